"""The known benchmarks, as data: where the documents are, how they are asked, how answers are scored.

Each is a YAML file in tasks/. Prompts, few-shot examples and stop strings come from the harness's own task (`stock`),
with the changes in the file; the harness's `ConfigurableTask` builds the requests. Documents come from the hub or from
a local folder, in the same shape.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from data.sources.records import records
from data.sources.schema import Source
from data.yaml_config import StrictModel, read_yaml
from evals.documents import SHAPES
from model.errors import MicroStepError, TextError

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask

Judge = Literal["gsm8k", "choices", "letter", "humaneval", "mbpp", "ifeval", "tokens", "text"]
FOLDER = Path(__file__).with_name("tasks")
_ELSEWHERE = (  # keys of a stock task that are replaced: its data set, and the scoring of answers
    "task", "tag", "include", "dataset_path", "dataset_name", "dataset_kwargs", "training_split", "validation_split",
    "fewshot_split", "filter_list", "metric_list", "process_results", "unsafe_code", "should_decontaminate",
    "doc_to_decontamination_query", "repeats",
)  # fmt: skip


class Benchmark(StrictModel):
    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    title: str
    about: str  # one line: the question, and the meaning of the score
    licence: str
    hub: str  # id of the data set on the Hugging Face hub; "" for documents that come with the project
    subset: str | None = None
    split: str = "test"
    local: str  # name of the file in the folder of --local
    shape: str = "plain"  # how each record is converted, a name in documents.SHAPES
    stock: str | None = None  # a task file of the harness, relative to its folder of tasks
    config: dict[str, Any]  # keys of a harness task, which override the stock ones
    judge: Judge
    metric: str  # the benchmark's main score
    beside: tuple[str, ...] = ()  # other scores for tables, if samples have them
    higher_is_better: bool = True
    runs_code: bool = False

    @property
    def generates(self) -> bool:
        return self.judge not in ("choices", "tokens", "text")


@cache
def benchmarks() -> Mapping[str, Benchmark]:
    loaded = [read_yaml(path, Benchmark) for path in sorted(FOLDER.glob("*.yaml"))]
    for path, benchmark in zip(sorted(FOLDER.glob("*.yaml")), loaded, strict=True):
        if path.stem != benchmark.name:
            raise MicroStepError(f"{path} describes {benchmark.name!r}; the file must have the benchmark's name")
    return {benchmark.name: benchmark for benchmark in loaded}


def find_benchmark(name: str) -> Benchmark:
    if name not in benchmarks():
        raise MicroStepError(f"there is no benchmark {name!r}; choose from {', '.join(benchmarks())}")
    return benchmarks()[name]


def documents(benchmark: Benchmark, local: Path | None, limit: int | None) -> list[dict[str, Any]]:
    """Return the first `limit` documents, or all."""
    source = Source(
        name=benchmark.name,
        title=benchmark.title,
        licence=benchmark.licence,
        hub=benchmark.hub,
        subset=benchmark.subset,
        split=benchmark.split,
        local=benchmark.local,
        text="text",
        evaluate_only=True,
    )
    shape, collected = SHAPES[benchmark.shape], list[dict[str, Any]]()
    for record in records(source, local if benchmark.hub else FOLDER):
        try:
            shaped = shape(record)
        except (KeyError, TypeError, ValueError) as error:
            raise TextError(
                f"{benchmark.name}: a record is not one of {benchmark.hub} ({type(error).__name__}: {error}); it has"
                f" {', '.join(record) or 'nothing'}"
            ) from None
        if shaped is not None:
            collected.append(shaped)
        if len(collected) == limit:
            break
    if not collected:
        raise TextError(f"{benchmark.name}: the data set holds no document")
    return collected


def data_hash(collected: Sequence[Mapping[str, Any]]) -> str:
    """Return the SHA-256 of documents."""
    digest = hashlib.sha256()
    for document in collected:
        digest.update(json.dumps(document, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def task_of(benchmark: Benchmark, collected: Sequence[dict[str, Any]], max_new_tokens: int | None) -> ConfigurableTask:
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    config = {**stock_config(benchmark.stock), **benchmark.config}
    config |= {"task": benchmark.name, "test_split": "test", "repeats": 1}
    config["custom_dataset"] = lambda **_: {"test": Dataset.from_list(list(collected))}
    if benchmark.generates and max_new_tokens is not None:
        config["generation_kwargs"] = {**config["generation_kwargs"], "max_gen_toks": max_new_tokens}
    task = ConfigurableTask(config=config)
    if task.config.num_fewshot is None:
        task.set_config("num_fewshot", 0)
    task.set_fewshot_seed(0)
    return task


def stock_config(stock: str | None) -> dict[str, Any]:
    """Return the prompt settings in a task file of the harness, without loading its functions."""
    if stock is None:
        return {}
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    settings = load_yaml(Path(lm_eval.tasks.__file__).parent / stock, resolve_func=False)
    return {key: value for key, value in settings.items() if key not in _ELSEWHERE}


def read_limits(tasks: str) -> dict[str, int | None]:
    """Each benchmark's name in `a,b:20`, and how many documents are asked for, if that is said."""
    limits: dict[str, int | None] = {}
    for part in tasks.replace(",", " ").split():
        name, colon, limit = part.partition(":")
        if colon and (not limit.isdecimal() or int(limit) < 1):
            raise MicroStepError(f"--tasks takes NAME or NAME:N, N documents at most, got {part!r}")
        limits[name] = int(limit) if colon else None
    return limits
