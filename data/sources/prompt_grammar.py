"""Prompts made from a small grammar, so that a tiny model can be trained with no download.

A grammar is YAML: `slots` are lists of words, `templates` are sentences with {slot} in them; {slot2} is another word of
the same list, and {a slot} puts a or an before it. The order is shuffled by a fixed seed, and each prompt comes once.
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
    """Templates and what fills them."""

    seed: int = 0
    count: Annotated[int, Field(ge=1)]
    """Prompts that are made of each template, at most."""
    slots: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]]
    templates: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _filled(self) -> Grammar:
        for template in self.templates:
            for _, name, _ in _SLOT.findall(template):
                if name not in self.slots:
                    raise ValueError(f"the template {template!r} has a slot {name!r} that nothing fills")
            if "{" in _SLOT.sub("", template):
                raise ValueError(f"the template {template!r} has a brace that is no slot")
        return self


def read_grammar(name: str) -> Grammar:
    """A grammar of data/prompts.

    Raises:
        MicroStepError: there is none of that name, or it is wrong.
    """
    return read_yaml(FOLDER / f"{name}.yaml", Grammar)


def prompts(grammar: Grammar) -> Iterator[str]:
    """The prompts of a grammar, each once, one of each template in turn."""
    made = (_of_template(grammar, template) for template in grammar.templates)
    seen: set[str] = set()
    for turn in zip_longest(*made):
        for prompt in turn:
            if prompt is not None and prompt not in seen:
                seen.add(prompt)
                yield prompt


def _of_template(grammar: Grammar, template: str) -> list[str]:
    """Up to `count` fillings of a template: of all that there are, so many by chance."""
    keys = list(dict.fromkeys((name, number) for _, name, number in _SLOT.findall(template)))
    lists = [grammar.slots[name] for name, _ in keys]
    every = math.prod(len(words) for words in lists)
    chance = random.Random(f"{grammar.seed}/{template}")
    found: list[str] = []
    for index in chance.sample(range(every), every) if every < 10**6 else iter(lambda: chance.randrange(every), -1):
        filled: dict[tuple[str, str], str] = {}
        for key, words in zip(keys, lists, strict=True):
            index, word = divmod(index, len(words))
            filled[key] = words[word]
        if len({(name, word) for (name, _), word in filled.items()}) == len(keys):  # name and name2 differ
            found.append(_SLOT.sub(lambda slot, by=filled: _word(slot, by), template))  # type: ignore[misc]
        if len(found) == grammar.count:
            break
    return found


def _word(slot: re.Match[str], filled: dict[tuple[str, str], str]) -> str:
    word = filled[slot[2], slot[3]]
    if slot[1] is None:
        return word
    return f"{'an' if word[0].lower() in 'aeiou' else 'a'} {word}"
