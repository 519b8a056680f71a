"""From a mix to prepared data: clean the examples, let the base answer them if requested, score them, add features.

Each part resumes where it was stopped, and is not done twice. prepared.py describes the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.cleaning.clean import clean
from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.features import FeatureSpec, compute_features
from data.corpus.options import CorpusOptions
from data.corpus.store import COMPLETE, CorpusStore, open_store
from data.distill.answers import begun_options
from data.distill.run import DistillOptions
from data.examples import TABLE
from data.mixes import Mix
from data.prepared import ANSWERS, EXAMPLES, IDENTITY, STORE, Prepared, examples_file, read_prepared
from data.ray_pool import RayOptions
from data.states.spec import StatesSpec
from data.yaml_config import dump_yaml
from model.atomic_files import as_json, atomic_write
from model.errors import ExportError
from model.hub.loading import content_of
from model.hub.spec import ModelSpec
from model.one_writer import one_writer
from model.progress import Tell, silent
from model.reading.json_text import parse_json
from model.reading.regular_files import read_text

if TYPE_CHECKING:
    from model.hub.loading import LoadedModel


@dataclass(frozen=True)
class PrepareOptions:
    chat: bool = True  # apply the base's chat template
    max_tokens: int = 512  # maximum length of an example; the rest is left out
    limit: int | None = None  # number of examples to use after cleaning
    distill: DistillOptions | None = None  # let the base generate the responses
    cluster: RayOptions | None = None  # where the base answers and scores
    template: tuple[tuple[str, str], ...] | None = None  # arguments of the chat template, as JSON by name
    template_date: str | None = None  # YYYY-MM-DD, the date that the chat template writes
    states: StatesSpec | None = None  # what else to keep of the pass that scores; the data are the same without


def prepare(
    mix: Mix,
    base: str,
    load_model: Callable[[], LoadedModel],
    out: Path,
    local: Path | None,
    options: PrepareOptions,
    needed: Sequence[FeatureSpec] = (),
    tell: Tell = silent,
) -> Prepared:
    """Prepare data under a base, or resume an earlier run.

    Raises:
        ExportError: the folder holds something else, or cannot be written.
        TextError: a source cannot be read, or nothing is left of it.
    """
    with one_writer(out, tell):
        _begin(out, mix, base, options)
        if not (out / EXAMPLES / TABLE).is_file():
            clean(mix, local, out / EXAMPLES, options.limit, tell)
        if options.distill is not None and not (out / ANSWERS / TABLE).is_file():
            from data.distill.examples import distill_examples

            answers = replace(options.distill, template=options.template, template_date=options.template_date)
            distill_examples(load_model, out / EXAMPLES, out / ANSWERS, answers, tell, cluster=options.cluster)
        _score(load_model, out, options, tell)
        store = open_store(out / STORE)
        for feature in needed:
            compute_features(load_model, store, feature, tell)
        if options.states is not None:
            _keep_states(load_model, store, options.states, tell)
        return read_prepared(out)


def _begin(out: Path, mix: Mix, base: str, options: PrepareOptions) -> None:
    """Record the inputs of the folder, or check that they are the same."""
    free = ("cluster", "template", "template_date", "states")
    options_used = {name: value for name, value in asdict(replace(options, states=None)).items() if name not in free}
    if options.template is not None or options.template_date is not None:
        options_used |= {"template": options.template, "template_date": options.template_date}
    inputs: dict[str, Any] = json.loads(
        as_json({"base": base, "options": options_used, "mix": dump_yaml(mix).splitlines()})
    )
    if content := content_of(ModelSpec(base)):  # folders of earlier versions do not name it
        inputs["weights"] = list(content)
    file = out / IDENTITY
    try:
        out.mkdir(parents=True, exist_ok=True)
        recorded = parse_json(read_text(file)) if file.is_file() else None
    except OSError as error:
        raise ExportError(f"{out} cannot be used: {error.strerror}") from None
    except ValueError:
        raise ExportError(f"{file} is damaged; remove {out} and prepare again") from None
    if recorded is None:
        atomic_write(file, as_json(inputs))
    elif not isinstance(recorded, dict):
        raise ExportError(f"{file} is damaged; remove {out} and prepare again")
    elif different := [name for name in inputs if recorded.get(name, inputs[name]) != inputs[name]]:
        raise ExportError(
            f"{out} was prepared differently: {', '.join(different)} differ from those in {file.name};"
            " give another folder, or remove this one"
        )


def _score(load_model: Callable[[], LoadedModel], out: Path, options: PrepareOptions, tell: Tell) -> None:
    if (out / STORE / COMPLETE).is_file():
        return
    corpus = open_corpus(CorpusSpec(str(examples_file(out)), "messages"))
    corpus_options = CorpusOptions(
        chat=options.chat,
        template=options.template,
        template_date=options.template_date or begun_options(out / ANSWERS).get("template_date"),
        max_tokens=options.max_tokens,
        states=options.states,
    )
    if options.cluster is not None and options.cluster.ray:
        from data.corpus.ray_scoring import score_corpus_with_ray

        score_corpus_with_ray(load_model, corpus, out / STORE, corpus_options, tell, options.cluster)
        return
    from data.corpus.scoring import score_corpus  # torch

    score_corpus(load_model, corpus, out / STORE, corpus_options, tell)


def _keep_states(load_model: Callable[[], LoadedModel], store: CorpusStore, spec: StatesSpec, tell: Tell) -> None:
    """Compute what the pass that scored did not keep, for example because it was asked for later."""
    from data.states.computing import compute_missing, missing_parts  # torch

    if missing_parts(store.facts.layers, store, spec, store.facts.revision, None):
        loaded = load_model()
        dtype = str(loaded.model.dtype).removeprefix("torch.")
        compute_missing(loaded.model, loaded.tokenizer, store, spec, loaded.facts.revision, dtype, tell)
