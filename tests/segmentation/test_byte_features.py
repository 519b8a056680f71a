"""Byte entropies against a reading of one byte after the other, and their way to tokens, with characters split over
tokens."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.segmentation.byte_features import (
    JOINS,
    OFFSET,
    WINDOW,
    byte_entropies,
    byte_features,
    byte_model,
    highest_of_tokens,
)
from model.segmentation.segment import RULES, SegmentInputs, segment
from model.text.encoding import token_bytes
from tests.support.tiny import tiny_tokenizer

TEXT = "The duck 🦆 said: «naïve café», 你好! " * 3


def pieces_of(data: bytes, ends: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(end % (len(data) + 1) for end in ends)})
    return [data[a:b] for a, b in zip(marks, marks[1:], strict=False)]


def slow(values: list[float], pieces: list[bytes], otherwise: float) -> list[float]:
    """One byte after the other: each counts for the token in which its character begins."""
    found, token, at = [otherwise] * len(pieces), 0, 0
    for number, piece in enumerate(pieces):
        for byte in piece:
            if at == 0 or not 0x80 <= byte < 0xC0:
                token = number
            value = values[at]
            found[token] = math.nan if math.isnan(value) or math.isnan(found[token]) else max(found[token], value)
            at += 1
    return found


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    text=st.one_of(st.text(max_size=30).map(lambda t: t.encode("utf-8", "replace")), st.binary(max_size=30)),
    ends=st.lists(st.integers(0, 200), max_size=12),
    seed=st.integers(0, 99),
)
def test_bytes_go_to_the_token_in_which_their_character_begins(text: bytes, ends: list[int], seed: int) -> None:
    pieces = pieces_of(text, ends)
    values = np.random.default_rng(seed).gamma(1, 1, len(text)).astype(np.float32)
    values[:1] = np.nan
    found = highest_of_tokens(values, pieces, 0.0)
    np.testing.assert_array_equal(found, np.array(slow(values.tolist(), pieces, 0.0), np.float32))


def test_no_segment_starts_inside_a_character() -> None:
    pieces = [b"a", "🦆".encode()[:2], "🦆".encode()[2:], b"b"]
    features = byte_features(pieces)
    assert features["byte_entropy"][2] == JOINS["byte_entropy"] and features["byte_rise"][2] == JOINS["byte_rise"]
    for rule in ("byte_entropy", "byte_entropy_rise"):
        low = RULES[rule].parameter("threshold").low
        starts = segment(rule, SegmentInputs(**features), threshold=low).starts
        assert not starts[2]


@pytest.mark.parametrize("length", [0, 1, 2, 511, 512, 513, 1300])
def test_entropies_are_those_of_every_window_read_alone(length: int) -> None:
    data = (TEXT * 20).encode()[:length]
    model = byte_model()
    found = byte_entropies(data, model)
    width, exact = WINDOW, copy.deepcopy(model).double()
    assert len(found) == length and np.isnan(found[:1]).all() and not np.isnan(found[1:]).any()
    for at in sorted({1, 2, 300, width - 1, width, width + 1, length - 1} & set(range(1, length))):
        begin = next(start for start in range(0, length, width // 2) if at - start <= width)
        ids = torch.tensor([[byte + OFFSET for byte in data[begin:at]]])
        with torch.inference_mode():
            log_p = exact(input_ids=ids).logits[0, -1].log_softmax(-1)
        assert found[at] == pytest.approx(-float((log_p.exp() * log_p).sum()), abs=2e-4)


def test_a_real_text_through_a_tokenizer() -> None:
    tokenizer = tiny_tokenizer()
    ids = np.array(tokenizer(TEXT, add_special_tokens=False)["input_ids"])
    pieces = token_bytes(tokenizer, ids)
    features = byte_features(pieces)
    entropy = byte_entropies(b"".join(pieces), byte_model())
    np.testing.assert_array_equal(features["byte_entropy"], np.array(slow(entropy.tolist(), pieces, 0.0), np.float32))
    assert all(values.shape == ids.shape and np.isfinite(values[2:]).all() for values in features.values())
    assert float(np.nanmax(entropy)) <= math.log(260)
