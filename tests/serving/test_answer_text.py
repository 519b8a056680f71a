"""The text of an answer comes in whole characters, and stops before a stop string, however it is split."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.text.document import TextInput
from model.text.encoding import encode, token_bytes
from serving.answer_text import AnswerText, StopStringCriterion, TokenBytes
from serving.job import Job, WrittenSegment
from serving.responses import Wording
from tests.support.tiny import EOS, tiny_tokenizer

TEXT = "naïve café: 你好，世界 🙂👩‍👩‍👧 🦀 end"  # no tokenizer has seen the crab: its bytes are tokens


def ids_of(tokenizer, text):
    return encode(TextInput.plain(text), tokenizer).ids.tolist()


def test_characters_that_are_split_over_tokens_come_whole():
    for kind in ("bytelevel", "sentencepiece"):
        tokenizer = tiny_tokenizer(kind=kind)
        ids = ids_of(tokenizer, TEXT)
        parts = token_bytes(tokenizer, np.array(ids))
        at = next(i for i, part in enumerate(parts) if part[:1] == b"\xf0" and len(part) < 4)
        text = AnswerText(TokenBytes(tokenizer))
        pieces = [text.add([i]) for i in ids] + [text.add([EOS], last=True)]
        assert "".join(pieces) == TEXT and "\ufffd" not in "".join(pieces)
        cut = AnswerText(TokenBytes(tokenizer))
        assert "\ufffd" in cut.add(ids[: at + 1], last=True), "bytes that never become a character are shown as such"


@settings(max_examples=60, deadline=None)
@given(
    st.text("abc\n", max_size=30),
    st.lists(st.text("abc\n", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
)
def test_stop_strings_end_a_text_wherever_they_are_split(text, stops, sizes):
    tokens = TokenBytes(tiny_tokenizer())
    ids, answer, out, at, turn = ids_of(tiny_tokenizer(), text), AnswerText(tokens, stops), "", 0, 0
    stopped = StopStringCriterion(tokens, stops)
    import torch

    ends = [stopped(torch.tensor([ids[: i + 1]]), None) for i in range(len(ids))]
    while at < len(ids):
        n = sizes[turn % len(sizes)]
        out += answer.add(ids[at : at + n], last=at + n >= len(ids))
        at, turn = at + n, turn + 1
    found = [text.find(stop) for stop in stops if stop in text]
    first = min((text.find(stop) + len(stop) for stop in stops if stop in text), default=None)
    assert answer.stopped == bool(found) == any(ends)
    if first is None:
        assert out == text
    else:
        assert text.startswith(out) and not any(stop in out for stop in stops)


def test_offsets_of_tokens_count_whole_characters():
    tokenizer = tiny_tokenizer()
    ids, rows = ids_of(tokenizer, TEXT), [None]
    request = SimpleNamespace(topk=0, stops=())
    service = SimpleNamespace(tokenizer=tokenizer, tokens=TokenBytes(tokenizer))
    wording = Wording(cast("Job", SimpleNamespace(request=request, service=service, rows=rows)))
    told = [wording.logprobs([WrittenSegment(0, 0, "unsure", [i], [0.5], [], False)]) for i in ids]
    pieces = token_bytes(tokenizer, np.array(ids))
    whole = [len(b"".join(pieces[:at]).decode("utf-8", "ignore")) for at in range(len(ids))]
    assert [one["text_offset"][0] for one in told if one] == whole
