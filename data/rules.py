r"""The rules of cleaning, each on its own: line breaks, code languages, duplicates, contamination."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from data.example import Example

_WORDS = re.compile(r"\w+")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*([\w+#.-]*)[^\n]*$", re.MULTILINE)
_ALIASES = {"py": "python", "python3": "python", "python2": "python", "pycon": "python", "ipython": "python"}
_NO_LANGUAGE = {"", "text", "txt", "plaintext", "output", "console", "shell", "bash", "sh"}
_SHORTEST = 8  # words of an evaluation text that is looked for: fewer stand in any text


def line_breaks(text: str, literal: bool = False) -> str:
    r"""Turn literal ``\n`` into line breaks, in a text that was written with them.

    A text was if it has more literal ones than line breaks, and none that stands inside a pair of quotes on its line,
    where code means it.

    Args:
        text: any.
        literal: the other way round, every line break into a literal one.
    """
    if literal:
        return text.replace("\n", "\\n")
    if text.count("\\n") <= text.count("\n") or _quoted(text):
        return text
    return text.replace("\\r\\n", "\n").replace("\\n", "\n").replace("\\t", "\t")


def _quoted(text: str) -> bool:
    """Whether a short quoted string holds a literal line break, as in ``print("\\n")``."""
    return re.search(r"""(["'])[^"'\n]{0,40}\\n[^"'\n]{0,40}\1\s*[),\]:+%]""", text) is not None


def languages(text: str) -> list[str]:
    """The languages that fenced blocks are labelled with, in order; "" for a block without a label."""
    labels = _FENCE.findall(text)[::2]  # every second fence closes
    return [_ALIASES.get(label.lower(), label.lower()) for label in labels]


def code_language(example: Example, wanted: str) -> bool:
    """Whether an example holds fenced code that is labelled with another language."""
    found = {language for message in example.messages for language in languages(message.content)}
    return bool(found - {wanted} - _NO_LANGUAGE)


def fingerprint(text: str) -> bytes:
    """The same for texts that differ in case and white space only."""
    return hashlib.sha256(" ".join(text.lower().split()).encode("utf-8", "surrogatepass")).digest()


def runs(text: str, n: int) -> Iterator[str]:
    """Runs of n words, lower case, without punctuation; of a shorter text all its words."""
    words = _WORDS.findall(text.lower())
    for i in range(max(1, len(words) - n + 1)):
        yield " ".join(words[i : i + n])


class Contamination:
    """Runs of words of evaluation sets."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._runs: dict[int, set[int]] = {}

    def add(self, text: str) -> None:
        """Keep this text out."""
        words = len(_WORDS.findall(text))
        n = min(self._n, words)
        if n >= min(self._n, _SHORTEST):
            self._runs.setdefault(n, set()).update(_hash(run) for run in runs(text, n))

    def holds(self, text: str) -> bool:
        """Whether a text shares a run of words with any of them."""
        words = len(_WORDS.findall(text))
        return any(
            words >= n and any(_hash(run) in known for run in runs(text, n)) for n, known in self._runs.items()
        )


class NearDuplicates:
    """Texts seen so far, found again by MinHash and compared in full."""

    def __init__(self, least: float, permutations: int = 64) -> None:
        from datasketch import MinHashLSH

        self._least, self._permutations = least, permutations
        self._index = MinHashLSH(threshold=max(0.1, least - 0.1), num_perm=permutations)
        self._runs: list[frozenset[int]] = []

    def again(self, text: str) -> bool:
        """Whether an earlier text shares this much of its runs of five words; a new one is remembered."""
        from datasketch import MinHash

        found = frozenset(_hash(run) for run in runs(text, 5))
        small = MinHash(num_perm=self._permutations, seed=1)
        small.update_batch([run.to_bytes(8, "little") for run in found])
        for key in self._index.query(small):
            other = self._runs[int(key)]
            if len(found & other) >= self._least * len(found | other):
                return True
        self._index.insert(str(len(self._runs)), small)
        self._runs.append(found)
        return False


def _hash(run: str) -> int:
    return int.from_bytes(hashlib.blake2b(run.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
