"""What a recipe needs of its base beside the scores, and how it is read: kept states, or likeliest tokens."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from data.prepared import Prepared
from data.states.computing import compute_missing
from data.states.files import IDS, PROBABILITY, STATES, open_parts
from data.states.recording import chosen_layers
from data.states.spec import StatesSpec
from data.training_rows import TokenRows
from model.micro_step.modeling import MicroStepForCausalLM
from model.progress import Tell
from trainer.batches.dataset import TrainingRows
from trainer.batches.hidden_state_cache import States, adapter_disabled, places, positions
from trainer.batches.teacher_cache import TopTokens
from trainer.recipe import Recipe

Kept = tuple[States, States] | tuple[TopTokens, TopTokens]  # of the rows for training and of those for validation


def needed_states(recipe: Recipe, folder: Path) -> StatesSpec | None:
    """Return what a recipe needs of its base, to be kept in a folder."""
    if recipe.objective != "draft" and not recipe.teacher:
        return None
    if recipe.teacher_top is not None:
        return StatesSpec(folder, top=recipe.teacher_top)
    return StatesSpec(folder, layers=tuple(recipe.model.get("context_layers", ())))


def kept_states(
    recipe: Recipe,
    prepared: Prepared,
    rows: TrainingRows,
    model: MicroStepForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    revision: str | None,
    spec: StatesSpec,
    tell: Tell,
) -> Kept:
    """Return what was kept of the base. Only what the scoring pass did not keep is computed now.

    Raises:
        TooLarge: the disk has no room.
        ExportError: the folder cannot be written.
        TextError: a file is damaged.
    """
    store = prepared.source.store
    with adapter_disabled(model):
        was = model.base.training
        model.base.eval()
        compute_missing(model.base, tokenizer, store, spec, revision, recipe.base_dtype, tell)
        model.base.train(was)
    if spec.top is not None:
        ids, probability = open_parts(spec.top_folder, (IDS, PROBABILITY), len(store.marks))

        def top(some: TokenRows) -> TopTokens:
            return TopTokens(some, ids, probability, places(prepared, some, len(ids)), *positions(some))

        return top(rows.train), top(rows.held_out)
    (whole,) = open_parts(
        spec.state_folder(chosen_layers(model.config.num_hidden_layers, spec)), (STATES,), len(store.marks)
    )

    def states(some: TokenRows) -> States:
        return States(some, whole, places(prepared, some, len(whole)), *positions(some))

    return states(rows.train), states(rows.held_out)
