"""A training recipe: what is trained, on which data, in which stages. Typed YAML, with every default written here.

It imports no torch, so a wrong recipe is reported at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from data.distill.answers import SHARD_PROMPTS
from data.distill.run import DistillOptions
from data.mixes import Mix, read_mix
from data.run_folder import RECIPE
from data.segmentation_config import SegmentationConfig
from data.yaml_config import StrictModel, read_yaml
from model.errors import MicroStepError

Objective = Literal["micro_step", "draft", "control", "pretraining"]
Started = Literal["micro decoder", "all"]
Group = Literal["new", "base", "adapter"]
Weighted = Literal["token_weight", "stop_weight", "teacher_weight", "hidden_weight"]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
FOLDER = Path(__file__).parent / "recipes"


class BaseConfig(StrictModel):
    name: str  # catalog name, hub id or folder; for pretraining, a folder with a tokenizer
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    """Precision of frozen weights, and of answering and scoring; None: the run's precision."""
    config: dict[str, Any] | None = None
    """A transformers configuration with model_type: start from random weights, for pretraining and micro_step. A
    `blt` is trained on the segments of the recipe as its patches."""


class DistillConfig(StrictModel):
    """Let the base generate the responses itself."""

    max_new_tokens: Positive = 256
    temperature: Annotated[float, Field(ge=0)] = 0.0  # 0: greedy
    batch_rows: Positive | None = None  # None: what fits into memory

    seed: int = 0  # seed for sampling; separate from the run's, so that runs with several seeds share their data

    def options(self) -> DistillOptions:
        given = {"temperature": self.temperature, "seed": self.seed, "batch_rows": self.batch_rows}
        if self.batch_rows is not None:  # a batch belongs to one shard
            given["shard_prompts"] = max(SHARD_PROMPTS, self.batch_rows)
        return DistillOptions(self.max_new_tokens, **given)  # type: ignore[arg-type]


class DataConfig(StrictModel):
    mix: str  # a name in data/mixes, or the path of a YAML file
    limit: Positive | None = None  # number of examples to use after cleaning
    distill: DistillConfig | None = None
    chat: bool = True  # apply the base's chat template; without it, and for plain texts, only the first token is prompt
    template: dict[str, Any] | None = None  # arguments of the chat template, such as enable_thinking
    template_date: str | None = None  # YYYY-MM-DD, the date that the chat template writes
    max_tokens: Positive = 512  # maximum length of an example; the rest is left out
    without: tuple[str, ...] = ()
    """Sources of the mix to leave out of training. Preparation, validation and solved thresholds do not change."""


class DraftConfig(StrictModel):
    """How a micro decoder is trained on stored states of a frozen base."""

    every: Positive = 1  # train on every n-th position of a response, with a random offset in each epoch
    vocabulary: Positive | None = None
    """Draft only this many words, the most frequent in the training responses; None: all."""


class StageConfig(StrictModel):
    """A part of the run with its own trainable groups."""

    name: str
    steps: Positive
    rates: dict[Group, Rate]  # peak learning rate of each trained group: new, base, adapter
    weights: dict[Weighted, Annotated[float, Field(ge=0)]] = Field(default={})
    """Weights of parts of the loss in this stage only; the others keep the model's."""
    warmup: Annotated[int, Field(ge=0)] = 20
    """Number of steps over which the rate rises to its peak; it falls from there."""
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    floor: Annotated[float, Field(ge=0, le=1)] = 0.1  # rate at the last step, as a share of the peak


class BatchConfig(StrictModel):
    tokens: Positive = 4096  # tokens including padding, over all processes; for a draft: positions
    accumulate: Positive = 1  # number of parts that a process takes one after the other


class OptimizerConfig(StrictModel):
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0)] = 0.01  # applied to matrices; vectors are not decayed
    clip: Rate = 1.0  # largest norm of the gradient


class ValidationConfig(StrictModel):
    """Validation on held-out examples."""

    every: Positive = 100
    tokens: Positive = 20_000  # number of tokens, from the first held-out rows


class CheckpointConfig(StrictModel):
    """When checkpoints are written, and how many are kept."""

    every: Positive = 200
    keep: Positive = 2


class Recipe(StrictModel):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]  # name of the run's folder
    objective: Objective
    base: BaseConfig
    data: DataConfig
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1)]  # of the whole plan, if several runs share it
    until: Positive | None = None
    """The step of the plan at which this run ends; None: it does all of them."""
    continues: str | None = None
    """Folder of an earlier run of the same plan. Its weights, the optimizer's moments and the schedule are continued,
    on the same data or on other data."""
    segmentation: SegmentationConfig = SegmentationConfig()
    model: dict[str, Any] = Field(default={})  # fields of MicroStepConfig
    start: str | None = None
    """A micro_step model on the same base, by catalog name or folder, whose weights are the starting point."""
    start_with: Started = "micro decoder"
    """Which of its weights to use; `all`: also merger, stop head and adapter, whose settings must agree."""
    adapter: dict[str, Any] | None = None  # fields of peft's LoraConfig, for a group `adapter` on the base
    draft: DraftConfig = DraftConfig()
    teacher: bool = False  # also match the distributions of the unchanged base
    teacher_top: Positive | None = None
    """Store the teacher as its likeliest so many tokens and their probabilities; None: as states, for all tokens."""
    prompt_gradients: bool = True
    """False: read the prompts without gradients, which saves their backward pass. Only for a frozen base: exact where
    new modules alone are trained, and an approximation with an adapter."""
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16: autocast; trained weights stay in float32
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    validation: ValidationConfig = ValidationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log_every: Positive = 10
    minutes: Rate | None = None
    """A budget for steps and validations: as many steps as fit, divided among the stages in proportion."""
    flops: Rate | None = None
    """A budget of operations for the steps, by the formula of budgets/flops.py: as many steps as fit, as above."""
    seed: int = 0

    @property
    def base_dtype(self) -> Literal["float32", "bfloat16"]:
        """Precision of a frozen base."""
        return self.base.dtype or self.precision

    @property
    def groups(self) -> set[str]:
        return {group for stage in self.stages for group in stage.rates}

    @property
    def is_segmented(self) -> bool:
        """True if rows are trained on in segments: of a micro_step model, or as the patches of a BLT."""
        patched = self.base.config is not None and self.base.config.get("model_type") == "blt"
        return self.objective == "micro_step" or (self.objective == "pretraining" and patched)

    @property
    def matches_states(self) -> bool:
        """True if some stage matches the states of the context layers."""
        given = [self.model.get("hidden_weight", 0), *(stage.weights.get("hidden_weight", 0) for stage in self.stages)]
        return self.objective == "micro_step" and any(weight != 0 for weight in given)

    @property
    def steps(self) -> int:
        """Number of steps of the whole plan."""
        return sum(stage.steps for stage in self.stages)

    @property
    def last_step(self) -> int:
        """The step at which this run ends."""
        return self.steps if self.until is None else self.until

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        groups = self.groups
        allowed: set[str] = {
            "micro_step": {"new", "base", "adapter"},
            "draft": {"new"},
            "control": {"base", "adapter"},
            "pretraining": {"base"},
        }[self.objective]
        if unknown := sorted(groups - allowed):
            raise ValueError(
                f"stages of the objective {self.objective} train {', '.join(sorted(allowed))}, not {unknown[0]}"
            )
        if empty := [stage.name for stage in self.stages if not stage.rates]:
            raise ValueError(f"stage {empty[0]!r} trains nothing: give it rates")
        if ("adapter" in groups) != (self.adapter is not None):
            raise ValueError("an adapter needs a stage that trains it, and the other way round: give both or none")
        if len({stage.name for stage in self.stages}) < len(self.stages):
            raise ValueError("two stages have the same name")
        if self.objective == "pretraining" and self.base.config is None:
            raise ValueError("pretraining starts from random weights: describe the model in base.config")
        if self.base.config is not None and self.objective not in ("pretraining", "micro_step"):
            raise ValueError(f"base.config is for pretraining and micro_step, not for {self.objective}")
        if self.base.config is not None and (self.teacher or "base" not in groups):
            raise ValueError("a base from random weights must be trained, and teaches nothing: give it a rate")
        if self.minutes is not None and self.flops is not None:
            raise ValueError("give a budget of either minutes or flops")
        if self.flops is not None and self.objective == "draft":
            raise ValueError("a draft's operations are not counted: give it steps or minutes")
        if self.model and self.objective in ("control", "pretraining"):
            raise ValueError(f"model holds settings of a micro_step model, which {self.objective} does not train")
        if self.start and self.objective in ("control", "pretraining"):
            raise ValueError(f"start names a micro decoder to continue from, but {self.objective} trains none")
        if self.start_with == "all" and not self.start:
            raise ValueError("start_with selects parts of `start`: name a model there")
        if self.teacher and self.objective in ("control", "pretraining"):
            raise ValueError(f"a teacher is for micro_step and draft, not for {self.objective}")
        self._check_weights()
        if self.teacher_top is not None and (not self.teacher or self.objective == "draft" or self.matches_states):
            raise ValueError(
                "teacher_top needs a teacher of a micro_step model; a draft and a hidden_weight need its states"
            )
        if not self.model.get("prompt_adapter", True) and (self.adapter is None or "base" in groups):
            raise ValueError("prompt_adapter may be false for an adapter on a frozen base only")
        if not self.prompt_gradients and (self.objective != "micro_step" or "base" in groups):
            raise ValueError("prompt_gradients may be false for a micro_step model on a frozen base only")
        if self.until is not None and self.until > self.steps:
            raise ValueError(f"until is {self.until:,}, but the stages have {self.steps:,} steps")
        if (self.until or self.continues) and (self.minutes or self.flops):
            raise ValueError("a budget of minutes or flops changes the steps of a plan: leave it out")
        if self.objective == "draft" and self.model.get("decoding", "lossless") != "lossless":
            raise ValueError("a draft is for the lossless mode: leave model.decoding out")
        return self

    def _check_weights(self) -> None:
        if self.matches_states and not self.teacher:
            raise ValueError("a hidden_weight needs the states of a teacher: set teacher to true")
        for stage in self.stages:
            if stage.weights and self.objective in ("control", "pretraining"):
                raise ValueError(
                    f"the loss of {self.objective} has only one part: leave out the weights of {stage.name!r}"
                )
            if "stop_weight" in stage.weights and self.objective == "draft":
                raise ValueError(f"a draft has no stop head: leave out the stop_weight of {stage.name!r}")
            if "hidden_weight" in stage.weights and self.objective == "draft":
                raise ValueError(f"a draft reads the base's own states: leave out the hidden_weight of {stage.name!r}")
            if stage.weights.get("token_weight") == 0 and not (self.teacher and stage.weights.get("teacher_weight", 1)):
                raise ValueError(f"stage {stage.name!r} follows neither tokens nor a teacher: set teacher to true")


def mix_of(recipe: Recipe) -> Mix:
    """Return the mix that a recipe's data is prepared from, including sources left out of training."""
    mix = read_mix(recipe.data.mix)
    names = [use.name for use in mix.sources]
    if unknown := [name for name in recipe.data.without if name not in names]:
        raise MicroStepError(f"data.without: the mix {mix.name} has no {unknown[0]!r}; it has {', '.join(names)}")
    return mix


_FREE_IN_A_PLAN = {"name", "data", "until", "continues", "log_every", "validation", "checkpoint"}


def check_same_plan(folder: Path, recipe: Recipe) -> None:
    """Raise MicroStepError if the run in a folder is not of the same plan; runs may differ in data and in reporting."""
    earlier, now = (each.model_dump(exclude=_FREE_IN_A_PLAN) for each in (read_yaml(folder / RECIPE, Recipe), recipe))
    if different := [name for name in now if earlier[name] != now[name]]:
        raise MicroStepError(
            f"continues: {folder} belongs to another plan, since {', '.join(different)} differ; runs of one plan have"
            " the same recipe, apart from data and until"
        )


def same_recipe(folder: Path, recipe: Recipe) -> bool:
    """True if the run in a folder has this recipe; keys that the stored one lacks count as their defaults.

    Under a budget of minutes or operations, the run keeps the steps that fitted when it was begun.
    """
    try:
        stored = read_yaml(folder / RECIPE, Recipe)
    except MicroStepError:
        return False
    if (recipe.minutes is not None or recipe.flops is not None) and len(stored.stages) == len(recipe.stages):
        recipe = with_steps(recipe, [stage.steps for stage in stored.stages])
    return stored == recipe


def with_steps(recipe: Recipe, steps: Sequence[int]) -> Recipe:
    stages = tuple(stage.model_copy(update={"steps": n}) for stage, n in zip(recipe.stages, steps, strict=True))
    return recipe.model_copy(update={"stages": stages})


def read_recipe(path: Path | str) -> Recipe:
    """Read a recipe: a YAML file, or the name of a bundled one."""
    given = Path(path)
    shipped = FOLDER / f"{path}.yaml"
    if not given.exists() and shipped.is_file():
        given = shipped
    if not given.exists():
        names = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise MicroStepError(f"there is no recipe {str(path)!r}; give a YAML file or one of {names}")
    return read_yaml(given, Recipe)
