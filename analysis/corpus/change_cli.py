"""`micro-step corpus change`: mean scores of two models on one corpus, and what changed between them."""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.options import Out, check_table, print_notes, print_or_save
from model.storage.places import place_of


def change_command(
    store: Annotated[str, typer.Argument(help="Store of model A, for instance the base.")],
    against: Annotated[str, typer.Argument(help="Store of the same corpus under model B, with the same tokenizer.")],
    out: Out = None,
) -> None:
    """What fine-tuning changed: mean entropy, confidence and surprisal under two models, by role, with intervals."""
    check_table(out)
    from analysis.corpus.change import change_table, changes
    from data.corpus.store import open_store

    a, b = (open_store(place_of(name)) for name in (store, against))
    changed, units = changes(a, b)
    found = change_table(changed)
    for each in (a, b):
        print_notes(f"{each.facts.name}: ", each.notes)
    if out is None:
        for name in ("a", "b", "difference"):
            found[f"±{name}"] = (found.pop(f"{name}_high") - found.pop(f"{name}_low")) / 2
        order = ["role", "score", "documents", "tokens", "a", "±a", "b", "±b", "difference", "±difference"]
        found = found[order]
    print_or_save(
        found,
        out,
        f"A {a.facts.name}, B {b.facts.name} on {a.manifest['data']['name']}; nats per token;"
        f" {units.meaning}; ± is half an interval",
    )
