"""Cleaning rules that compare an example with others: duplicates, near duplicates, evaluation sets.

Texts are compared as words in lower case without punctuation. This module knows nothing about mixes or files.
"""

import hashlib
import re
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

_WORDS = re.compile(r"\w+")
SHINGLE_WORDS = 5
_MISSED = 0.01  # highest chance of missing a pair just at the threshold
MIN_QUESTION_WORDS = 6  # shorter evaluation questions occur in any text


def words(text: str) -> list[str]:
    return _WORDS.findall(text.lower())


def word_runs(text_words: Sequence[str], n: int) -> Iterator[str]:
    """Yield runs of n words; if there are fewer words, one run of all."""
    for i in range(max(1, len(text_words) - n + 1)):
        yield " ".join(text_words[i : i + n])


class Duplicates:
    """Texts that were seen before, compared without case and white space. About 100 bytes each."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def seen_before(self, text: str) -> bool:
        """True if such a text was seen before; a new one is remembered."""
        fingerprint = _digest(" ".join(text.lower().split()), 16)
        if fingerprint in self._seen:
            return True
        self._seen.add(fingerprint)
        return False


class NearDuplicates:
    """Texts seen before, found by MinHash and then compared in full (Broder 1997).

    Two texts are near if their sets of five-word runs have a Jaccard index of at least `least`. MinHash only proposes
    candidates: it misses a pair just at the threshold with probability `missed` (at most 1 % if `least` is 0.3 or
    more), and no text is removed that is not near. Memory: about 7 kB per text, and 8 bytes per word.
    """

    def __init__(self, least: float, permutations: int = 128) -> None:
        from datasketch import MinHash, MinHashLSH

        self._least = least
        first = MinHash(num_perm=permutations, hashfunc=_low_32_bits)
        self._sketch: dict[str, Any] = {
            "permutations": first.permutations,
            "scheme": first.scheme,
            "hashfunc": _low_32_bits,
        }
        rows = max(r for r in range(1, 33) if r == 1 or (1 - least**r) ** (permutations // r) <= _MISSED)
        self._index = MinHashLSH(num_perm=permutations, params=(permutations // rows, rows))
        self._runs: list[array[int]] = []

    @property
    def missed(self) -> float:
        """Probability that a pair whose index is exactly `least` is missed."""
        return float((1 - self._least**self._index.r) ** self._index.b)

    def seen_before(self, text: str) -> bool:
        """True if an earlier text is near; a new one is remembered."""
        from datasketch import MinHash

        shingles = {int.from_bytes(_digest(run, 8), "little") for run in word_runs(words(text), SHINGLE_WORDS)}
        sketch = MinHash(**self._sketch)  # drawing the permutations anew would take most of the time
        sketch.update_batch(shingles)
        for number in self._index.query(sketch):
            other = set(self._runs[number])
            if len(shingles & other) >= self._least * len(shingles | other):
                return True
        self._index.insert(len(self._runs), sketch)
        self._runs.append(array("Q", shingles))
        return False


class ContaminationIndex:
    """Word runs of evaluation sets, which must be kept out of the training data.

    A text holds an item if they share a run of n words (13 by default: Brown et al. 2020, section C). A question of
    fewer words is searched as a whole, if it has at least MIN_QUESTION_WORDS; an answer of fewer than n words is not
    searched, since a number or a name may occur anywhere. About 200 bytes per word of the sets.
    """

    def __init__(self, n: int = 13) -> None:
        self._n = n
        self._sets: list[str] = []
        self._begins: dict[bytes, tuple[int, ...]] = {}  # maps the first words of runs to the lengths of those runs
        self._lengths: dict[tuple[int, ...], tuple[int, ...]] = {}  # shares equal values of `_begins`
        self._runs: dict[bytes, int] = {}  # maps a run to the index of its set
        self.unguarded: dict[str, int] = {}
        """Number of questions of each set that are too short to be searched."""

    def add(self, name: str, question: str, answer: str = "") -> None:
        """Add an item of a set, which is to be kept out."""
        if name not in self._sets:
            self._sets.append(name)
            self.unguarded[name] = 0
        question_words, answer_words = words(question), words(answer)
        if len(question_words) < self._begin:
            self.unguarded[name] += 1
        else:
            self._add(question_words, min(self._n, len(question_words)))
        if len(answer_words) >= self._n:
            self._add(answer_words, self._n)

    def _add(self, text_words: list[str], n: int) -> None:
        for run in word_runs(text_words, n):
            self._runs.setdefault(_digest(run, 8), len(self._sets) - 1)
            begin = " ".join(run.split(" ", self._begin)[: self._begin])
            lengths = self._begins.get(key := _digest(begin, 8), ())
            if n not in lengths:
                self._begins[key] = self._lengths.setdefault((*lengths, n), (*lengths, n))

    @property
    def _begin(self) -> int:
        """Number of words that every run has at least."""
        return min(self._n, MIN_QUESTION_WORDS)

    def find(self, text: str) -> str | None:
        """Return the set and the run of words that a text shares with it, or None."""
        text_words = words(text)
        for begin in range(len(text_words) - self._begin + 1):
            for n in self._begins.get(_digest(" ".join(text_words[begin : begin + self._begin]), 8), ()):
                run = " ".join(text_words[begin : begin + n])
                if begin + n <= len(text_words) and (number := self._runs.get(_digest(run, 8))) is not None:
                    return f"{self._sets[number]}: {run}"
        return None


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()


def _low_32_bits(run: int) -> int:
    """Return the lowest 32 bits, which MinHash expects."""
    return run & 0xFFFFFFFF
