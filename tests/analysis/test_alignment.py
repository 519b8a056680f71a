"""Cells of two tokenisations, against the definition."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.uncertainty.alignment import common_cells
from model.text.document import Document, Message, TextInput
from model.text.encoding import encode
from tests.support.tiny import tiny_tokenizer

BYTES, PIECES = tiny_tokenizer(), tiny_tokenizer(kind="sentencepiece", add_bos=True)


def slow_boundaries(tokens, n):
    spans = [(s, e) for s, e in zip(tokens.source_start, tokens.source_end, strict=True) if e > s]
    return {c for c in range(n + 1) if not any(s < c < e for s, e in spans)}


@settings(max_examples=80, deadline=None)
@given(st.text(st.sampled_from("the cat sat  \n🦆é1 ▁日本"), max_size=40))
def test_cells_are_the_finest_common_pieces(text):
    a, b = encode(TextInput.plain(text), BYTES), encode(TextInput.plain(text), PIECES)
    all_a, all_b = np.ones(len(a), bool), np.ones(len(b), bool)
    cells = common_cells(text, a, all_a, b, all_b)
    common = sorted(slow_boundaries(a, len(text)) & slow_boundaries(b, len(text)))
    assert list(zip(cells.start, cells.end, strict=True)) == list(zip(common[:-1], common[1:], strict=True))
    assert cells.bytes.sum() == len(text.encode())
    for tokens, which in ((a, cells.token_cell_a), (b, cells.token_cell_b)):
        for i, cell in enumerate(which):
            assert cells.start[cell] <= tokens.source_start[i] and tokens.source_end[i] <= cells.end[cell]
        assert np.isclose(cells.sum_a(np.ones(len(a))).sum(), len(a)) if tokens is a else True


def test_a_missing_score_takes_its_whole_cell_out():
    text = "the cat sat"
    a, b = encode(TextInput.plain(text), BYTES), encode(TextInput.plain(text), PIECES)
    scored = np.ones(len(a), bool)
    scored[0] = False
    cells = common_cells(text, a, scored, b, np.ones(len(b), bool))
    assert cells.start[0] >= a.source_end[0] and cells.token_cell_a[0] == -1
    assert cells.bytes.sum() < len(text)


def test_only_content_is_compared_across_templates():
    document = Document((Message("user", "the cat"), Message("assistant", "it sat there")))
    chat = tiny_tokenizer(chat=True)
    a, b = encode(TextInput(document, chat=True), chat), encode(TextInput(document), PIECES)
    cells = common_cells(document.text, a, np.ones(len(a), bool), b, np.ones(len(b), bool))
    assert set(cells.role) == {"user", "assistant"}
    covered = "".join(document.text[s:e] for s, e in zip(cells.start, cells.end, strict=True))
    assert covered in ("the catit sat there",) or set(covered) <= set(document.text)
    assert not any(document.text[s:e] == "\n" for s, e in zip(cells.start, cells.end, strict=True))
