"""Prompts made from a small grammar, so that a tiny model can be trained without a download.

A grammar is YAML: `slots` are lists of words, `templates` are sentences with {slot} in them; {slot2} is another word of
the same list, and {a slot} puts a or an before it. The order is shuffled with a fixed seed, and no prompt repeats.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from data.yaml_config import StrictModel, read_yaml

FOLDER = Path(__file__).parents[1] / "prompts"
_SLOT = re.compile(r"\{(a )?([a-z_]+)(\d*)\}")


class Grammar(StrictModel):
    """Templates and the words that fill them."""

    seed: int = 0
    count: Annotated[int, Field(ge=1)]  # maximum number of prompts made from each template
    slots: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]]
    templates: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _filled(self) -> Grammar:
        for template in self.templates:
            for _, name, _ in _SLOT.findall(template):
                if name not in self.slots:
                    raise ValueError(f"the template {template!r} has a slot {name!r} without words")
            if "{" in _SLOT.sub("", template):
                raise ValueError(f"the template {template!r} has a brace that is not a slot")
        return self


def read_grammar(name: str) -> Grammar:
    """Read a grammar of data/prompts."""
    return read_yaml(FOLDER / f"{name}.yaml", Grammar)


def prompts(grammar: Grammar) -> Iterator[str]:
    """Yield the prompts of a grammar without repetition, one of each template in turn."""
    by_template = (_of_template(grammar, template) for template in grammar.templates)
    seen: set[str] = set()
    for group in zip_longest(*by_template):
        for prompt in group:
            if prompt is not None and prompt not in seen:
                seen.add(prompt)
                yield prompt


def _of_template(grammar: Grammar, template: str) -> list[str]:
    """Return up to `count` random fillings of a template."""
    keys = list(dict.fromkeys((name, number) for _, name, number in _SLOT.findall(template)))
    lists = [grammar.slots[name] for name, _ in keys]
    total = math.prod(len(words) for words in lists)
    chance = random.Random(f"{grammar.seed}/{template}")
    fillings: list[str] = []
    for index in chance.sample(range(total), total) if total < 10**6 else iter(lambda: chance.randrange(total), -1):
        filled: dict[tuple[str, str], str] = {}
        for key, words in zip(keys, lists, strict=True):
            index, word = divmod(index, len(words))
            filled[key] = words[word]
        if len({(name, word) for (name, _), word in filled.items()}) == len(keys):  # name and name2 differ
            fillings.append(_SLOT.sub(lambda slot, by=filled: _word(slot, by), template))  # type: ignore[misc]
        if len(fillings) == grammar.count:
            break
    return fillings


def _word(slot: re.Match[str], filled: dict[tuple[str, str], str]) -> str:
    word = filled[slot[2], slot[3]]
    if slot[1] is None:
        return word
    return f"{'an' if word[0].lower() in 'aeiou' else 'a'} {word}"
