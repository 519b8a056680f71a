"""The rules of cleaning that compare an example with others: duplicates, near duplicates, evaluation sets.

Texts are compared as words: small letters, no punctuation. Knows nothing about mixes or files.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

_WORDS = re.compile(r"\w+")
SHINGLE = 5  # words
_MISSED = 0.01  # the chance that a pair just at the threshold may be missed with
SHORTEST = 6  # words of an evaluation question that is looked for: fewer stand in any text


def words(text: str) -> list[str]:
    """The words of a text, in small letters."""
    return _WORDS.findall(text.lower())


def runs(found: Sequence[str], n: int) -> Iterator[str]:
    """Runs of n words; of fewer words one run of all."""
    for i in range(max(1, len(found) - n + 1)):
        yield " ".join(found[i : i + n])


class Duplicates:
    """Texts that were seen, equal but for case and white space. About 100 bytes each."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def again(self, text: str) -> bool:
        """Whether such a text was seen; a new one is remembered."""
        print_ = _digest(" ".join(text.lower().split()), 16)
        if print_ in self._seen:
            return True
        self._seen.add(print_)
        return False


class NearDuplicates:
    """Texts seen so far, found again by MinHash and then compared in full (Broder 1997).

    Two texts are near where their sets of five-word runs have a Jaccard index of at least `least`. MinHash only finds
    the candidates: it misses a pair just at the threshold in `missed` of the cases (at most 1 %, where `least` is .3 or
    more), and none is removed that is not near. Memory: about 7 kB a text, and 8 bytes a word.
    """

    def __init__(self, least: float, permutations: int = 128) -> None:
        from datasketch import MinHash, MinHashLSH

        self._least = least
        first = MinHash(num_perm=permutations, hashfunc=_low)
        self._sketch: dict[str, Any] = {"permutations": first.permutations, "scheme": first.scheme, "hashfunc": _low}
        rows = max(r for r in range(1, 33) if r == 1 or (1 - least**r) ** (permutations // r) <= _MISSED)
        self._index = MinHashLSH(num_perm=permutations, params=(permutations // rows, rows))
        self._runs: list[array[int]] = []

    @property
    def missed(self) -> float:
        """The chance that a pair whose index is exactly `least` is not found."""
        return float((1 - self._least**self._index.r) ** self._index.b)

    def again(self, text: str) -> bool:
        """Whether an earlier text is near; a new one is remembered."""
        from datasketch import MinHash

        found = {int.from_bytes(_digest(run, 8), "little") for run in runs(words(text), SHINGLE)}
        sketch = MinHash(**self._sketch)  # drawing the permutations anew would take most of the time
        sketch.update_batch(found)
        for number in self._index.query(sketch):
            other = set(self._runs[number])
            if len(found & other) >= self._least * len(found | other):
                return True
        self._index.insert(len(self._runs), sketch)
        self._runs.append(array("Q", found))
        return False


class ContaminationIndex:
    """Runs of words of evaluation sets, to be kept out of what is trained on.

    A text holds an item if they share a run of n words (13 unless said: Brown et al. 2020, section C). A question of
    fewer words is looked for as a whole, if it has at least SHORTEST; an answer of fewer than n words is not looked
    for, as a number or a name stands anywhere. About 200 bytes a word of the sets.
    """

    def __init__(self, n: int = 13) -> None:
        self._n = n
        self._sets: list[str] = []
        self._begins: dict[bytes, tuple[int, ...]] = {}  # first words of runs, to the lengths of those runs
        self._lengths: dict[tuple[int, ...], tuple[int, ...]] = {}  # one of each for all that have the same
        self._runs: dict[bytes, int] = {}  # to the number of the set
        self.unguarded: dict[str, int] = {}
        """Questions of a set that are too short to be looked for."""

    def add(self, name: str, question: str, answer: str = "") -> None:
        """Keep an item of a set out."""
        if name not in self._sets:
            self._sets.append(name)
            self.unguarded[name] = 0
        asked, answered = words(question), words(answer)
        if len(asked) < self._begin:
            self.unguarded[name] += 1
        else:
            self._add(asked, min(self._n, len(asked)))
        if len(answered) >= self._n:
            self._add(answered, self._n)

    def _add(self, found: list[str], n: int) -> None:
        for run in runs(found, n):
            self._runs.setdefault(_digest(run, 8), len(self._sets) - 1)
            begin = " ".join(run.split(" ", self._begin)[: self._begin])
            lengths = self._begins.get(key := _digest(begin, 8), ())
            if n not in lengths:
                self._begins[key] = self._lengths.setdefault((*lengths, n), (*lengths, n))

    @property
    def _begin(self) -> int:
        """Words that every run has."""
        return min(self._n, SHORTEST)

    def found(self, text: str) -> str | None:
        """The set and the run of words that a text shares with it; None where there is none."""
        every = words(text)
        for at in range(len(every) - self._begin + 1):
            for n in self._begins.get(_digest(" ".join(every[at : at + self._begin]), 8), ()):
                run = " ".join(every[at : at + n])
                if at + n <= len(every) and (number := self._runs.get(_digest(run, 8))) is not None:
                    return f"{self._sets[number]}: {run}"
        return None


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()


def _low(run: int) -> int:
    """32 bits, as MinHash takes them."""
    return run & 0xFFFFFFFF
