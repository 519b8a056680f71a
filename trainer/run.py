"""Run a recipe from beginning to end: prepare the data if needed, build the model, train."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from data.corpus.features import FeatureSpec
from data.prepared import STATES, Prepared, folder_name, read_prepared
from data.run_folder import Run
from model.errors import MicroStepError
from model.hub.loading import ModelSpec, load
from model.one_writer import one_writer
from model.progress import Tell, silent
from model.segmentation.features import features_needed
from model.segmentation.segment import valid_parameters
from model.text.document import template_arguments
from trainer.batches.kept import needed_states
from trainer.budgets.time_budget import fit
from trainer.loop import Trainer, accelerator_for
from trainer.model_card import write_card
from trainer.recipe import Recipe, mix_of
from trainer.setup import RunSetup, build


@dataclass(frozen=True)
class RunPaths:
    out: Path
    local: Path | None = None  # files of the sources; None: the hub
    prepared: Path | None = None  # None: a folder beside the run, named after mix and base
    states: Path | None = None  # the base's states, for a draft or a teacher; None: a folder in the prepared data

    def prepared_for(self, recipe: Recipe) -> Path:
        if self.prepared is not None:
            return self.prepared
        return self.out.parent / "prepared" / folder_name(recipe.data.mix, recipe.base.name)

    def states_for(self, recipe: Recipe) -> Path:
        return self.states if self.states is not None else self.prepared_for(recipe) / STATES


def run_recipe(recipe: Recipe, places: RunPaths, device: str, tell: Tell, shard: bool = False) -> Run | None:
    """Prepare data if needed, and train; an existing run is resumed. Returns None in all processes but the main one.

    Args:
        recipe: the recipe.
        places: the folders.
        device: auto, cpu, cuda, ..; each process has its own.
        tell: told of progress.
        shard: let each process hold a part of every weight, for a model that does not fit into one device.

    Raises:
        MicroStepError: the run is not possible.
        KeyboardInterrupt: the user stopped it.
    """
    accelerator = accelerator_for(recipe, device)
    main = accelerator.is_main_process
    if shard:
        _check_shardable(recipe)
    quiet: Tell = tell if main else silent
    with one_writer(places.out) if main else nullcontext():
        built = prepare_and_build(recipe, places, device, quiet, accelerator, shard)
        for note in built.notes:
            quiet(note, None)
        built = fit(built, places.out, accelerator, quiet)
        done = Trainer(built, places.out, accelerator, quiet, shard).run()
        if not main:
            return None
        write_card(done, built.recipe, places.prepared_for(recipe))
        return done


def prepare_and_build(
    recipe: Recipe,
    places: RunPaths,
    device: str,
    tell: Tell,
    accelerator: Accelerator | None = None,
    shard: bool = False,
) -> RunSetup:
    """Prepare the data and build the setup. The main process prepares; the others wait for it."""

    def built() -> RunSetup:
        data = prepared_data(recipe, places, device, tell)
        return build(recipe, data, places.states_for(recipe), _device(device, accelerator, shard), tell)

    if accelerator is None:
        return built()
    first = built() if accelerator.is_main_process else None
    accelerator.wait_for_everyone()
    return built() if first is None else first


def _device(device: str, accelerator: Accelerator | None, shard: bool) -> str:
    if shard:
        return "cpu"  # a layer at a time goes from there to its processes
    return device if accelerator is None else str(accelerator.device)


def _check_shardable(recipe: Recipe) -> None:
    if recipe.objective == "draft" or recipe.teacher:
        raise MicroStepError("--shard cannot compute the states of the base: it trains no draft, and without a teacher")
    if recipe.minutes is not None:
        raise MicroStepError("--shard cannot measure how many steps fit into minutes: give steps")


def prepared_data(recipe: Recipe, places: RunPaths, device: str, tell: Tell) -> Prepared:
    """Return the recipe's data, prepared now if needed; a folder that was named is used as it is."""
    if places.prepared is not None:
        return read_prepared(places.prepared)
    from data.prepare import PrepareOptions, prepare

    options = PrepareOptions(
        chat=recipe.data.chat,
        template=template_arguments(recipe.data.template) if recipe.data.template else None,
        template_date=recipe.data.template_date,
        max_tokens=recipe.data.max_tokens,
        limit=recipe.data.limit,
        distill=None if recipe.data.distill is None else recipe.data.distill.options(),
        states=needed_states(recipe, places.states_for(recipe).resolve()),
    )
    if (under := recipe.segmentation.under) is not None and recipe.is_segmented:
        segmentation = recipe.segmentation.model_copy(update={"under": None})
        base = recipe.base.model_copy(update={"name": under, "revision": None})
        other = recipe.model_copy(update={"base": base, "segmentation": segmentation, "teacher": False})
        prepared_data(other, places, device, tell)
    spec = ModelSpec(recipe.base.name, recipe.base.revision, dtype=recipe.base_dtype, device=device)
    return prepare(
        mix_of(recipe),
        recipe.base.name,
        lambda: load(spec, tell),
        places.prepared_for(recipe),
        places.local,
        options,
        _needed_features(recipe),
        tell,
    )


def _needed_features(recipe: Recipe) -> tuple[FeatureSpec, ...]:
    if not recipe.is_segmented:
        return ()
    cut = recipe.segmentation
    if cut.under is not None:
        return ()
    feature = features_needed(cut.rule, valid_parameters(cut.rule, cut.parameters), cut.max_length)
    return () if feature is None else (FeatureSpec(feature),)
