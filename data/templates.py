"""Prompts made from a small grammar, so that a tiny model can be trained with no download.

A grammar is YAML: `slots` are lists of words, `templates` are sentences with {slot} in them. Every combination can come;
the order is shuffled by a fixed seed, and each prompt comes once.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

from data.recipe import read_yaml

_SLOT = re.compile(r"\{(\w+)\}")


class Grammar(BaseModel):
    """Templates and what fills them."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    seed: int
    count: int
    """Prompts that are made of each template, at most."""
    slots: dict[str, tuple[str, ...]]
    templates: tuple[str, ...]

    @model_validator(mode="after")
    def _filled(self) -> Grammar:
        for template in self.templates:
            for name in _SLOT.findall(template):
                if name.rstrip("0123456789") not in self.slots:
                    raise ValueError(f"the template {template!r} has a slot {name!r} that nothing fills")
        return self


def prompts(path: Path) -> Iterator[str]:
    """The prompts of a grammar, each once, templates in turn. A slot with a number (name2) is filled anew.

    Raises:
        MicroStepError: the grammar is wrong.
    """
    grammar = read_yaml(path, Grammar)
    chance = random.Random(grammar.seed)
    seen: set[str] = set()
    for _ in range(grammar.count):
        for template in grammar.templates:
            made = _SLOT.sub(lambda slot: chance.choice(grammar.slots[slot[1].rstrip("0123456789")]), template)
            if made not in seen:
                seen.add(made)
                yield made
