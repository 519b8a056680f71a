"""Build the parts of the loop from a recipe and prepared data: the module, its input, and how it is saved.

This module knows families and files, but nothing about steps.
"""

import copy
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from data.prepared import Prepared
from data.run_folder import RunFacts, StageFacts
from data.segmentation_config import SegmentationConfig
from data.training_rows import LONGEST_MOVED, TokenRows
from model.atomic_files import as_json, atomic_write
from model.checkpoint_files import share_weights
from model.decoding.generation_config import end_ids
from model.errors import MicroStepError
from model.hub.fetch import fetch
from model.hub.loading import ModelSpec, load
from model.hub.transformers_io import read_tokenizer
from model.micro_step.modeling import MicroStepForCausalLM
from model.progress import Tell
from model.quiet import quiet
from model.reading.json_text import parse_json
from trainer.batches.dataset import rows_of
from trainer.batches.hidden_state_cache import States
from trainer.batches.kept import Kept, kept_states, needed_states
from trainer.batches.loader import DraftFeed, Feed, RowFeed, mean_tokens
from trainer.draft_objective import DraftObjective, frequent
from trainer.objectives import objective_over_rows, positions_of
from trainer.optimizer import group_of
from trainer.recipe import Recipe
from trainer.warm_start import start_from

_PACKAGES = ("torch", "transformers", "accelerate", "peft", "numpy")


@dataclass(frozen=True)
class RunSetup:
    recipe: Recipe
    objective: nn.Module  # computes the loss; see `trainer.objectives.Objective`
    model: PreTrainedModel  # the trained model, as it is saved
    tokenizer: PreTrainedTokenizerBase
    feed: Feed
    facts: RunFacts
    notes: tuple[str, ...]
    positions: int  # M; 1 if there are no segments

    def export(self, folder: Path) -> None:
        """Write a folder that opens like any model, in bfloat16."""
        with quiet():
            self._export(folder)
        share_weights(folder)

    def _export(self, folder: Path) -> None:
        recipe = self.recipe
        whole = "base" in recipe.groups
        if isinstance(self.model, MicroStepForCausalLM) and not whole:
            self.model.save_modules(folder, recipe.base.name, recipe.base.revision, torch.bfloat16)
        elif isinstance(self.model, MicroStepForCausalLM):
            merged = copy.deepcopy(self.model)
            if merged.config.adapter is not None:
                merged.merge_adapter()
            merged.to(torch.bfloat16).save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        elif recipe.adapter is None:
            copy.deepcopy(self.model).to(torch.bfloat16).save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        else:
            self.model.save_pretrained(folder)
            _in_bfloat16(folder / "adapter_model.safetensors")
            _name_base(folder, recipe)


def build(recipe: Recipe, prepared: Prepared, states: Path, device: str, tell: Tell) -> RunSetup:
    """Load the base and build the rest of the recipe around it."""
    rows = rows_of(prepared, recipe)
    model, tokenizer, revision = build_model(recipe, device, tell, rows.train)
    _check_prefix(prepared, tokenizer)
    kept: Kept | None = None
    if (spec := needed_states(recipe, states)) is not None:
        assert isinstance(model, MicroStepForCausalLM)
        kept = kept_states(recipe, prepared, rows, model, tokenizer, revision, spec, tell)
    objective: nn.Module
    feed: Feed
    if recipe.objective == "draft":
        assert isinstance(model, MicroStepForCausalLM) and kept is not None
        train, measured = kept
        assert isinstance(train, States) and isinstance(measured, States)
        objective = DraftObjective(model)
        feed = DraftFeed(recipe, train, rows.repeat, measured, objective.drafted)
    else:
        objective = objective_over_rows(model, recipe.prompt_gradients)
        feed = RowFeed(recipe, rows.train, rows.repeat, rows.held_out, kept)
    facts = _facts(recipe, model, prepared, feed, revision)
    return RunSetup(recipe, objective, model, tokenizer, feed, facts, rows.notes, positions_of(model))


def _check_prefix(prepared: Prepared, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse data whose rows would lack what the base reads before every text."""
    store = prepared.source.store
    if store.prefix_under(tokenizer) != store.prefix:
        raise MicroStepError(f"{prepared.path} does not say what stands before its texts (BOS): prepare it again")


def build_model(
    recipe: Recipe, device: str, tell: Tell, rows: TokenRows | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str | None]:
    """Return the model to train, its tokenizer, and the base's revision."""
    torch.manual_seed(recipe.seed)
    base, tokenizer, revision = load_base(recipe, device, tell)
    model = base
    if recipe.objective in ("micro_step", "draft"):
        model = _micro_step(recipe, base, tokenizer, rows)
    elif recipe.adapter is not None:
        from peft import LoraConfig

        base.add_adapter(LoraConfig(**recipe.adapter))
    model.train()
    if isinstance(model, MicroStepForCausalLM) and not recipe.groups & {"base", "adapter"}:
        model.base.eval()
    return model, tokenizer, revision


def load_base(recipe: Recipe, device: str, tell: Tell) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str | None]:
    """Return the base, its tokenizer and its revision; in bfloat16 only if its weights are frozen."""
    if recipe.base.config is not None:
        folder = fetch(recipe.base.name, recipe.base.revision, tell)
        given = dict(recipe.base.config)
        if given.get("model_type") == "blt":
            given |= {"patch_in_forward": False, "max_patch_length": longest_segment(recipe.segmentation)}
        try:
            tokenizer = read_tokenizer(ModelSpec(recipe.base.name), folder)
            config = AutoConfig.for_model(given.pop("model_type"), **given)
            fresh: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        except (KeyError, ValueError, TypeError) as error:
            raise MicroStepError(f"base.config does not describe a model: {error}") from error
        if fresh.config.vocab_size < len(tokenizer):
            raise MicroStepError(
                f"base.config has a vocab_size of {fresh.config.vocab_size}, the tokenizer {len(tokenizer)} words"
            )
        return fresh, tokenizer, None
    dtype = "float32" if "base" in recipe.groups else recipe.base_dtype
    loaded = load(ModelSpec(recipe.base.name, recipe.base.revision, dtype=dtype, device=device), tell)
    if isinstance(loaded.model, MicroStepForCausalLM):
        raise MicroStepError(f"{recipe.base.name} is a micro_step model already; give its base")
    loaded.model.config._name_or_path = recipe.base.name  # saved with the model, so no folder of this machine
    return loaded.model, loaded.tokenizer, loaded.facts.revision


def longest_segment(segmentation: SegmentationConfig) -> int:
    """Return the most tokens that a segment can have."""
    return segmentation.max_length if segmentation.under is None else LONGEST_MOVED


def _micro_step(
    recipe: Recipe, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: TokenRows | None
) -> MicroStepForCausalLM:
    """Put new modules around the base, in float32."""
    settings = dict(recipe.model)
    if recipe.objective == "draft":
        settings |= {"decoding": "lossless", "merger": "mean", "stop_head": False}
        if recipe.draft.vocabulary is not None and rows is not None:
            settings["draft_vocabulary"] = frequent(rows, recipe.draft.vocabulary, end_ids(base))
    settings.setdefault("max_segment_length", recipe.segmentation.max_length)
    if settings["max_segment_length"] != recipe.segmentation.max_length:
        raise MicroStepError("model.max_segment_length and segmentation.max_length differ: leave the first out")
    model = MicroStepForCausalLM.from_base(base, tokenizer, **settings)
    for module in (model.merger, model.micro, model.stop):
        if module is not None:
            module.float()
    if recipe.adapter is not None:
        model.add_adapter_to_base(**recipe.adapter)
    if recipe.start is not None:
        start_from(model, recipe.start, recipe.start_with)
    return model


def _facts(recipe: Recipe, model: PreTrainedModel, prepared: Prepared, feed: Feed, revision: str | None) -> RunFacts:
    return RunFacts(
        name=recipe.name,
        objective=recipe.objective,
        base=recipe.base.name if recipe.base.config is None else str(recipe.base.config["model_type"]),
        base_revision=revision,
        data=prepared.name,
        data_hash=prepared.hash_without(recipe.data.without),
        steps=recipe.last_step,
        stages=stage_facts(recipe),
        parameters=parameters_of(recipe, model),
        tokens_per_step=mean_tokens(feed),
        seed=recipe.seed,
        packages={name: importlib.metadata.version(name) for name in _PACKAGES},
    )


def stage_facts(recipe: Recipe) -> tuple[StageFacts, ...]:
    """Return where each stage begins and ends, and its peak rates."""
    stages, first = [], 1
    for stage in recipe.stages:
        rates = {str(group): rate for group, rate in stage.rates.items()}
        stages.append(StageFacts(stage.name, first, first + stage.steps - 1, rates))
        first += stage.steps
    return tuple(stages)


def parameters_of(recipe: Recipe, model: PreTrainedModel) -> dict[str, int]:
    """Return the parameter counts of each group that is trained at some stage, and of `frozen`."""
    counts = dict.fromkeys([*sorted(recipe.groups), "frozen"], 0)
    for name, parameter in model.named_parameters():
        group = group_of(name, recipe.objective)
        counts[group if group in recipe.groups else "frozen"] += parameter.numel()
    return counts


def _in_bfloat16(file: Path) -> None:
    """Round an adapter's weights, which are trained in float32."""
    weights = {name: weight.to(torch.bfloat16) for name, weight in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


def _name_base(folder: Path, recipe: Recipe) -> None:
    """Make an adapter's folder name its base as the recipe does, not the folder it was loaded from."""
    file = folder / "adapter_config.json"
    config: dict[str, Any] = parse_json(file.read_text("utf-8"))
    config |= {"base_model_name_or_path": recipe.base.name, "revision": recipe.base.revision}
    atomic_write(file, as_json(config))
