"""Segments of one tokenizer's tokens, moved to those of another by character."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data.corpus.rule_inputs import continuation
from data.mixes import read_mix
from data.prepare import PrepareOptions, prepare
from data.prepared import Prepared, beside, folder_name
from data.training_rows import TokenRows, segment_as_under, segment_examples
from model.errors import MicroStepError
from model.hub.loading import ModelSpec, load
from trainer.batches.sampler import batch
from trainer.objectives import patch_lengths

TEXTS = [
    f"{name} said: «naïve 🦆, {word}!»\nThen the {word} went home." for name in ("Ann", "Bo") for word in ("cat", "海")
]


def prepared(folder: Path, base: str, texts: list[str]) -> Prepared:
    folder.mkdir(exist_ok=True)
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), "utf-8")
    mix = folder / "made.yaml"
    mix.write_text("name: made\nsources: [{file: texts.jsonl, columns: {text: text}}]\nheld_out: 2\n")
    spec = ModelSpec(base, dtype="float32", device="cpu")
    out = folder / folder_name("made.yaml", base)
    return prepare(read_mix(str(mix)), base, lambda: load(spec), out, None, PrepareOptions(chat=False))


def characters(rows: TokenRows, source: Prepared, row: int) -> set[int]:
    """The characters at which the segments of a row start, but for those that start inside one."""
    scored = source.source.tokens.rows
    (index,) = np.flatnonzero(scored.document == rows.example[row])
    first = int(scored.offsets[index])
    starts = rows.starts[rows.offsets[row] : rows.offsets[row + 1]]
    starts = starts & ~continuation(scored)[first : first + len(starts)]
    return set(scored.start[first : first + len(starts)][starts].tolist())


def test_segments_move_to_bytes(tmp_path: Path) -> None:
    tokens, in_bytes = (prepared(tmp_path, base, TEXTS) for base in ("tiny-base", "tiny-byte"))
    assert beside(in_bytes.path, "tiny-base") == tokens.path
    how = "entropy", {}, 4, 2.0
    theirs, ours = segment_examples(tokens, *how).rows, segment_as_under(in_bytes, tokens, *how)
    assert ours.parameters == segment_examples(tokens, *how).parameters
    text = in_bytes.source.tokens.rows
    for row in range(len(theirs)):
        (other,) = np.flatnonzero(ours.rows.example == theirs.example[row])
        found, expected = characters(ours.rows, in_bytes, int(other)), characters(theirs, tokens, row)
        # The first byte is read, not written, so it stands alone, and so a segment starts behind it.
        assert found - {1} == expected - {1}
        split = np.diff(text.start[text.offsets[other] : text.offsets[other + 1]]) == 0
        inside = ours.rows.starts[ours.rows.offsets[other] : ours.rows.offsets[other + 1]][1:]
        assert not inside[split[: len(inside)]].any(), "a segment starts inside a character"
    part = batch(ours.rows, np.arange(len(ours.rows)))
    assert (patch_lengths(part.starts, part.mask)[:, 0] == 1).all()


def test_other_examples_are_refused(tmp_path: Path) -> None:
    a, b = prepared(tmp_path / "a", "tiny-base", TEXTS), prepared(tmp_path / "b", "tiny-byte", TEXTS[:2])
    with pytest.raises(MicroStepError, match="other examples"):
        segment_as_under(b, a, "entropy", {}, 4)
