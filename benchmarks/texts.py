"""The text that benchmarks read where none is given: the sentences of the bundled samples."""

import random
import re
from pathlib import Path
from typing import Any

from data.samples import samples
from model.errors import TextError


def bundled_text(tokens: int) -> str:
    """The sentences of the bundled samples, in a new order on every pass; long enough for so many tokens."""
    sentences = [s for sample in samples() for s in re.findall(r"\S.*?(?:[.!?](?=\s)|\n|$)\s*", sample.text, re.DOTALL)]
    order, parts, length = random.Random(0), list[str](), 0
    while length < 8 * tokens:  # no tokenizer in use makes tokens of 8 characters on average of these texts
        for sentence in order.sample(sentences, len(sentences)):
            parts.append(sentence if sentence[-1].isspace() else sentence + " ")
            length += len(parts[-1])
    return "".join(parts)


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise TextError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def bundled_ids(tokenizer: Any, count: int) -> list[int]:
    """The first `count` ids of the bundled text."""
    ids: list[int] = tokenizer(bundled_text(count), add_special_tokens=False)["input_ids"][:count]
    if len(ids) < count:
        raise TextError(f"the bundled text has {len(ids)} tokens, and {count} are needed; use fewer rows or tokens")
    return ids
