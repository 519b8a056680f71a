"""The entropy of each byte of a text under a small byte model, which the rules byte_entropy and byte_entropy_rise use.

As the patcher of BLT (arXiv 2412.09871), the byte model reads bytes and knows no tokens, so that it gives the same
values beside every model. A byte that starts a patch moves its boundary to the start of the character that holds it,
and to the token in which this character begins: no segment starts inside a character that is split over tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from model.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BYTE_MODEL = "tiny-byte"
OFFSET = 4  # id of byte 0, after the special tokens
JOINS = {"byte_entropy": 0.0, "byte_rise": -6.0}  # nats: of a token in which no character begins; no threshold is lower
WINDOW = 512  # bytes that it sees at most
_ROWS = 16  # windows a batch


@lru_cache(maxsize=1)
def byte_model() -> PreTrainedModel:
    """Return the byte model that comes with the project, on the processor."""
    from model.hub.loading import ModelSpec, load

    return load(ModelSpec(BYTE_MODEL, dtype="float32", device="cpu")).model


def byte_entropies(data: bytes, model: PreTrainedModel, progress: Progress | None = None) -> NDArray[np.float32]:
    """Return [B] the entropy, in nats, of the byte model's distribution before each byte; NaN before the first.

    Windows overlap by half, so each byte is predicted from all before it, or from at least half a window.
    """
    width, step = WINDOW, WINDOW // 2
    ids = torch.tensor(np.frombuffer(data, dtype=np.uint8).astype(np.int64) + OFFSET)
    entropy = np.full(len(data), np.nan, dtype=np.float32)
    starts = list(range(0, max(1, len(data) - 1 - width + step), step)) if len(data) > 1 else []
    for first in range(0, len(starts), _ROWS):
        batch = starts[first : first + _ROWS]
        rows = [ids[start : min(start + width, len(data) - 1)] for start in batch]
        fed = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # what stands behind a row changes nothing in it
        with torch.inference_mode():
            log_p = model(input_ids=fed, use_cache=False).logits.float().log_softmax(-1)
            found = -(log_p.exp() * log_p).sum(-1).numpy()
        for row, (start, read) in enumerate(zip(batch, rows, strict=True)):
            known = 0 if start == 0 else width - step  # predictions that the window before gave
            entropy[start + 1 + known : start + 1 + len(read)] = found[row, known : len(read)]
        if progress is not None:
            progress(min(1.0, (first + len(batch)) / len(starts)))
    return entropy


def byte_features(pieces: Sequence[bytes], progress: Progress | None = None) -> dict[str, NDArray[np.float32]]:
    """Return what the byte rules compare, for tokens of these bytes.

    Returns:
        byte_entropy: [N] nats, the highest entropy of a byte of a character that begins in the token.
        byte_rise: [N] nats, the highest rise of the entropy over that of the byte before.
        Both are NaN where the text has too few bytes before to compare.
    """
    entropy = byte_entropies(b"".join(pieces), byte_model(), progress)
    rise = np.diff(entropy, prepend=np.float32(np.nan))
    return {
        "byte_entropy": highest_of_tokens(entropy, pieces, JOINS["byte_entropy"]),
        "byte_rise": highest_of_tokens(rise, pieces, JOINS["byte_rise"]),
    }


def highest_of_tokens(values: NDArray[np.float32], pieces: Sequence[bytes], otherwise: float) -> NDArray[np.float32]:
    """Return [N] the highest value of a byte of a character that begins in each token.

    Args:
        values: [B] one per byte.
        pieces: [N] the bytes of the tokens, B in all.
        otherwise: the value of a token in which no character begins.
    """
    found = np.full(len(pieces), otherwise, dtype=np.float32)
    if len(values):
        data = np.frombuffer(b"".join(pieces), dtype=np.uint8)
        first = (data & 0xC0) != 0x80  # first bytes of characters
        first[0] = True  # a text that starts inside a character
        begins = np.flatnonzero(first)
        token = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
        with np.errstate(invalid="ignore"):
            np.maximum.at(found, token[begins], np.maximum.reduceat(values, begins))  # NaN wins
    return found
