"""Rows for training begin with what a base reads before every text, such as BOS, as its scores and prompts do."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from data.corpus.store import MANIFEST
from data.learned import kept_positions
from data.prepared import STORE, read_prepared
from data.training_rows import TokenRows, strategy_rows
from model.errors import MicroStepError
from model.hub.loading import ModelSpec, load
from model.progress import silent
from tests.support.tiny import save_tiny
from tests.support.training import conversation, make_prepared, recipe
from trainer.batches.dataset import training_rows
from trainer.batches.hidden_state_cache import places, positions
from trainer.document_eval import _bytes
from trainer.final_eval import _answer_bytes
from trainer.setup import build


def test_rows_begin_with_bos_and_are_learnt_as_they_were_scored(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "m", seed=5, chat=True, add_bos=True)
    chance = random.Random(0)
    talks = [conversation(chance) for _ in range(8)]
    prepared = make_prepared(tmp_path / "p", model, messages=talks)
    loaded, found = load(ModelSpec(str(model))), training_rows(prepared, None)
    scored = prepared.source.tokens.rows
    for rows in (found.train, found.held_out):
        for i in range(len(rows)):
            one = rows.take(np.array([i]))
            assert one.ids[0] == loaded.tokenizer.bos_token_id and one.starts[0] and not one.loss_mask[:2].any()
            stored = scored.surprisal[scored.offsets[rows.example[i]] :][: len(one.ids) - 1]
            log_probs = loaded.model(torch.from_numpy(one.ids)[None]).logits[0, :-1].double().log_softmax(-1)
            nll = -log_probs.gather(1, torch.from_numpy(one.ids[1:, None]))[:, 0].detach().numpy()
            np.testing.assert_allclose(nll[one.loss_mask[1:]], stored[one.loss_mask[1:]], atol=1e-4)
            answer = len(talks[rows.example[i]][1]["content"].encode())
            sizes = _bytes(prepared, rows, i)
            assert _answer_bytes(prepared, rows, i) == answer == sizes[one.loss_mask].sum()
            assert one.prompt(0) == one.ids[: len(one.prompt(0))].tolist() and one.prompt(0)[0] == one.ids[0]
        row, token = positions(rows)
        kept_row, kept_token = kept_positions(scored)
        place = places(prepared, rows, len(kept_row))
        assert len(place) > 0 and (scored.document[kept_row[place]] == rows.example[row]).all()
        assert (kept_token[place] - scored.offsets[kept_row[place]] == token - rows.offsets[row] - 1).all()


def test_data_that_do_not_say_what_stood_before_are_refused(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "m", seed=5, chat=True, add_bos=True)
    prepared = make_prepared(tmp_path / "p", model, 8)
    manifest = prepared.path / STORE / MANIFEST
    said = json.loads(manifest.read_text("utf-8"))
    assert said.pop("prefix") == [load(ModelSpec(str(model))).tokenizer.bos_token_id]
    manifest.write_text(json.dumps(said), "utf-8")
    with pytest.raises(MicroStepError, match="BOS"):
        build(recipe(model), read_prepared(prepared.path), tmp_path / "states", "cpu", silent)


def test_a_prefix_moves_rows_and_nothing_else() -> None:
    ids, loss = np.arange(7), np.array([0, 0, 1, 1, 1, 0, 1], dtype=bool)
    rows = TokenRows(ids, loss, ~loss, np.array([0, 4, 4, 7]), np.arange(3))
    moved = rows.after([90, 91])
    assert moved.ids.tolist() == [90, 91, 0, 1, 2, 3, 90, 91, 90, 91, 4, 5, 6]
    assert moved.offsets.tolist() == [0, 6, 8, 13] and moved.prefix == 2 and rows.after([]) is rows
    assert moved.loss_mask.nonzero()[0].tolist() == [4, 5, 12]  # a row's first token has no loss, as without a prefix
    assert moved.take(np.array([2])).prefix == 2


def test_prompts_without_answers_have_no_strategies_to_compare(tmp_path: Path) -> None:
    talks = [[{"role": "user", "content": text}] for text in ("Say one.", "Say two.")]
    prepared = make_prepared(tmp_path / "p", save_tiny(tmp_path / "m", chat=True), messages=talks)
    assert strategy_rows(prepared, 4) == []  # and not a table of NaN
