"""Answers that come with the project: what a file may hold, when it answers a question, and that the models agree."""

import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.attention.request import LayerQuery, OpeningQuery, OverviewQuery, PositionsQuery, RolloutQuery
from analysis.attribution.request import AttributionRequest, SegmentsQuery
from analysis.depth.request import LayersQuery
from analysis.generation.request import GenerationRequest
from analysis.segmentation.request import FeatureQuery, ScoresQuery
from analysis.stored_results.codec import CodecError, StoredFile, key_of, write_npz
from analysis.stored_results.store import FOLDER, store_answer, stored_answer
from analysis.uncertainty.request import ComparisonQuery
from model.hub.loading import load
from model.hub.spec import ModelSpec
from model.text.document import Document, TextInput

KINDS = (
    ComparisonQuery, ScoresQuery, FeatureQuery, GenerationRequest, PositionsQuery, OverviewQuery, OpeningQuery,
    LayerQuery, RolloutQuery, LayersQuery, SegmentsQuery, AttributionRequest,
)  # fmt: skip
QUESTIONS = {kind.__name__: kind for kind in KINDS}
TINY = ("tiny-base", "tiny-sft", "micro-step-tiny")
MEGABYTES = 3.0


@dataclasses.dataclass(frozen=True)
class Inner:
    values: NDArray[np.float32]
    word: Literal["a", "b"] = "a"


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: tuple[Inner, ...]
    pair: tuple[int, str]
    names: Mapping[int, str]
    maybe: Inner | None
    number: float
    either: int | str
    anything: Any = None
    note: str = dataclasses.field(default="", compare=False)


INNER = Inner(np.array([[1.5, np.nan]], np.float32), "b")
OUTER = Outer((INNER, INNER), (1, "é\0"), {3: "x"}, None, np.float64(0.1), "7", np.arange(3), "aside")


def read_back(hint, value, as_hint=None):
    return StoredFile(write_npz({"it": (hint, value)})).read("it", as_hint or hint)


def test_a_value_comes_back_as_it_was():
    found = read_back(Outer, OUTER)
    assert found.pair == OUTER.pair and found.names == OUTER.names and found.maybe is None
    assert found.number == 0.1 and found.either == "7" and found.anything.tolist() == [0, 1, 2]
    assert found.inner[1].word == "b" and found.inner[1].values.dtype == np.float32
    np.testing.assert_array_equal(found.inner[0].values, INNER.values)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Inner, OUTER),
        (Inner, Inner(np.zeros(1, np.float64))),  # of another precision
        (Inner, Inner(np.array([object()]))),
        (Inner, Inner(np.zeros(1, np.float32), "c")),
        (tuple[int, ...], ("1",)),
        (bool, 1),
        (Any, OUTER),
        (set[int], {1}),
    ],
)
def test_what_does_not_fit_its_type_is_refused(hint, value):
    with pytest.raises(CodecError):
        write_npz({"it": (hint, value)})


def test_a_file_of_another_type_is_refused():
    for hint in (Outer, NDArray[np.float32], tuple[Inner, ...], Literal["a"], dict[int, str]):
        with pytest.raises(CodecError):
            read_back(Inner, INNER, hint)
    for content in (b"", b"no zip", write_npz({"it": (int, 1)})[:-40]):
        with pytest.raises(CodecError):
            StoredFile(content).read("it", int)


def test_equal_questions_have_equal_keys():
    plain = dataclasses.replace(OUTER, inner=(), anything=None)
    assert key_of(plain) == key_of(dataclasses.replace(plain, note="other"))
    assert key_of(plain) != key_of(dataclasses.replace(plain, number=0.2))
    with pytest.raises(CodecError):
        key_of(OUTER)


def asked(a="tiny-base", **options):
    text = TextInput(Document.plain("Once upon a time").with_template_settings({}, options.pop("date", None)))
    return ComparisonQuery(ModelSpec(a, **options), ModelSpec("tiny-sft"), text)


def test_a_stored_answer_is_for_one_question_and_the_same_weights(tmp_path, monkeypatch):
    path = store_answer(asked(), asked().run(cache(load)), tmp_path)
    found = stored_answer(asked(), tmp_path)
    assert found is not None and found.a.facts.name == "tiny-base" and len(found.a.encoded)
    assert stored_answer(asked(date="2001-01-01"), tmp_path) is not None  # no template of these writes the date
    for other in (asked("tiny-sft"), asked(dtype="bfloat16"), asked(str(tmp_path)), asked("smollm2-360m")):
        assert stored_answer(other, tmp_path) is None
    path.write_bytes(path.read_bytes()[:-9])
    assert stored_answer(asked(), tmp_path) is None  # damaged: the models are asked
    store_answer(asked(), found, tmp_path)
    monkeypatch.setattr("analysis.stored_results.store.remembered_sha256", lambda path: "of other files")
    assert stored_answer(asked(), tmp_path) is None


def of_tiny(path: Path) -> bool:
    return any(name in path.name for name in TINY)


def stored_files(tiny: bool) -> list[Path]:
    return sorted(path for path in FOLDER.glob("*.npz") if of_tiny(path) == tiny)


def test_the_results_that_come_with_the_project_are_small():
    assert stored_files(True) and stored_files(False)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MEGABYTES * 1e6


def test_the_tiny_models_give_the_stored_results():
    check(stored_files(True))


@pytest.mark.real
@pytest.mark.slow
def test_the_real_models_give_the_stored_results():
    """The smallest of each kind of question that takes seconds; the tiny models answer the others."""
    long = ("LayersQuery", "AttributionRequest")
    files = [path for path in stored_files(False) if not path.name.startswith(long)]
    files.sort(key=lambda path: path.stat().st_size)
    check({path.name.partition("_")[0]: path for path in reversed(files)}.values())


def check(files):
    loaded = cache(load)
    for path in files:
        question = StoredFile(path.read_bytes()).read("question", QUESTIONS[path.name.partition("_")[0]])
        stored = stored_answer(question)
        assert stored is not None, f"{path.name} is out of date: run `micro-step examples`"
        agrees(question.run(loaded), stored, path.name)


def agrees(new, old, where):
    """Numbers agree within what another processor may change in float32, far below the three digits that are shown."""
    if dataclasses.is_dataclass(old):
        for field in dataclasses.fields(old):
            if "seconds" not in field.name:  # of another run
                agrees(getattr(new, field.name), getattr(old, field.name), f"{where}.{field.name}")
    elif isinstance(old, np.ndarray) and old.dtype.kind == "f":
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-3, err_msg=where)
    elif isinstance(old, np.ndarray):
        assert new.shape == old.shape and (new == old).mean() > 0.995, where  # two tokens of like score may swap
    elif isinstance(old, tuple):
        assert len(new) == len(old), where
        for i, (mine, theirs) in enumerate(zip(new, old, strict=True)):
            agrees(mine, theirs, f"{where}[{i}]")
    elif isinstance(old, float):
        assert new == pytest.approx(old, rel=1e-3, abs=1e-3, nan_ok=True), where
    elif isinstance(old, Mapping):
        assert len({*new} ^ {*old}) <= 0.02 * len(old), where
    else:
        assert new == old, where
