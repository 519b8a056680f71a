"""One pass of a base gives scores, states and teacher; the trainer reads what was kept, and runs no base."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaModel

from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.options import CorpusOptions
from data.corpus.scoring import score_corpus
from data.prepared import EXAMPLES, STORE, Prepared, read_prepared
from data.states.files import part_file
from data.states.spec import StatesSpec
from model.errors import TooLarge
from model.hub.loading import ModelSpec, load
from tests.support.training import recipe
from trainer.recipe import Recipe
from trainer.setup import RunSetup, build

LAYERS = (1, 3)


def quiet(message: str, fraction: float | None) -> None:
    """A run that says nothing."""


class _Pass(NamedTuple):
    rows: int
    tokens: int


@contextmanager
def passes() -> Iterator[list[_Pass]]:
    """Every pass of a base in the block, but for those that only try what a family can do with a few tokens."""
    found: list[_Pass] = []
    forward = LlamaModel.forward

    def counted(self: Any, *args: Any, **options: Any) -> Any:
        given = options.get("input_ids", options.get("inputs_embeds"))
        if given.shape[0] * given.shape[1] > 32:
            found.append(_Pass(given.shape[0], given.shape[1]))
        return forward(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlamaModel, "forward", counted)
        yield found


def scored(prepared: Prepared, model: Path, out: Path, states: StatesSpec | None) -> Prepared:
    """The examples of prepared data, scored anew in shards of a few rows."""
    shutil.copytree(prepared.path / EXAMPLES, out / EXAMPLES)
    corpus = open_corpus(CorpusSpec(str(next((out / EXAMPLES).iterdir())), "messages"))
    options = CorpusOptions(chat=True, max_tokens=256, shard_tokens=700, batch_tokens=300, states=states)
    score_corpus(lambda: load(ModelSpec(str(model))), corpus, out / STORE, options)
    return read_prepared(out)


def both(folder: Path) -> StatesSpec:
    return StatesSpec(folder, layers=LAYERS, top=8)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("[!.]*.*"))}


def built(chosen: Recipe, prepared: Prepared, states: Path) -> RunSetup:
    return build(chosen, prepared, states, "cpu", quiet)


def chosen(model: Path, top: int | None = None, objective: str = "micro_step") -> Recipe:
    made = recipe(model, objective, teacher=True, teacher_top=top)
    return made.model_copy(update={"model": {"context_layers": list(LAYERS)}})


def test_a_base_reads_an_answer_once_and_the_trainer_not_at_all(
    prepared: Prepared, model: Path, tmp_path: Path
) -> None:
    with passes() as while_scoring:
        made = scored(prepared, model, tmp_path / "made", both(tmp_path / "states"))
    lengths = np.diff(made.source.tokens.rows.offsets)
    assert sum(each.rows for each in while_scoring) == len(lengths)
    assert sum(each.rows * each.tokens for each in while_scoring) < 1.2 * (lengths - 1).sum()  # the rest is padding
    with passes() as while_building:
        feeds = [
            built(chosen(model), made, tmp_path / "states").feed,
            built(chosen(model, top=8), made, tmp_path / "states").feed,
            built(chosen(model, objective="draft"), made, tmp_path / "states").feed,
        ]
        for feed in feeds:
            feed.part(next(feed.steps()))
    assert not while_building
    assert len(made.source.store.marks) > 2  # the states of a step lie in several files


def test_what_one_pass_keeps_is_what_separate_passes_give(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    """Bit for bit in the same batches; and up to rounding that of each row alone."""
    made = scored(prepared, model, tmp_path / "made", both(tmp_path / "states"))
    plain = scored(prepared, model, tmp_path / "plain", None)
    assert contents(made.path / STORE) == contents(plain.path / STORE)
    with passes() as again:
        built(chosen(model), plain, tmp_path / "later")
        built(chosen(model, top=8), plain, tmp_path / "later")
    assert again and contents(tmp_path / "states") == contents(tmp_path / "later")

    whole, base = made.source.tokens.rows, load(ModelSpec(str(model))).model
    states: Any = built(chosen(model), made, tmp_path / "states").feed.teacher[0]  # type: ignore[attr-defined]
    top: Any = built(chosen(model, top=8), made, tmp_path / "states").feed.teacher[0]  # type: ignore[attr-defined]
    seen = 0
    for row in range(len(states.rows)):
        a, b = whole.offsets[states.rows.example[row] :][:2]
        with torch.no_grad():
            out = base(torch.from_numpy(whole.ids[a:b].astype(np.int64))[None], output_hidden_states=True)
        mine = states.row == row
        at = torch.from_numpy(states.token[mine] - states.rows.offsets[row])
        for k, layer in enumerate(LAYERS):
            theirs = out.hidden_states[layer][0, at]
            error = (states.states.take(states.place[mine])[:, k].float() - theirs).norm() / theirs.norm()
            assert error < 2**-8  # bfloat16
        expected = out.logits[0, at].softmax(-1).topk(8)
        torch.testing.assert_close(top.probability.take(top.place[mine]).float(), expected.values, rtol=2e-3, atol=1e-6)
        assert torch.equal(top.ids.take(top.place[mine]).long(), expected.indices)
        seen += int(mine.sum())
    assert seen == len(states) > 100


def test_only_what_is_missing_damaged_or_another_bases_is_computed_again(
    prepared: Prepared, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "states"
    made = scored(prepared, model, tmp_path / "made", StatesSpec(folder, layers=LAYERS))
    before, marks = contents(folder), made.source.store.marks
    file = part_file(folder / "1-3", 1)
    for spoil in (
        lambda: file.unlink(),
        lambda: file.write_bytes(file.read_bytes()[:-2] + b"xx"),
        lambda: file.with_suffix(".json").write_text(file.with_suffix(".json").read_text().replace("float32", "int8")),
    ):
        spoil()
        with passes() as again:
            built(chosen(model), made, folder)
        assert sum(each.rows for each in again) == marks[1].rows
        assert contents(folder) == before


def test_states_that_do_not_fit_the_disk_are_refused_before_anything_is_scored(
    prepared: Prepared, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=2**20))
    with passes() as read, pytest.raises(TooLarge, match="states"):
        scored(prepared, model, tmp_path / "made", StatesSpec(tmp_path / "states", layers=LAYERS, top=10**6))
    assert not read and not (tmp_path / "states").exists()
