"""The card of a trained model: what it is, what it was trained on and under which licences, and what was measured.

Written from what the run says of itself; it measures nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

from data.prepared import EXAMPLES
from data.run_folder import LogLine, Run
from model.atomic_files import atomic_write
from trainer.recipe import Recipe

CARD = "README.md"
_WHAT = {
    "micro_step": "A micro_step model: a merger folds confident runs of tokens into one macro step, the base runs once"
    " a macro step, and a micro decoder writes the next one's tokens.",
    "draft": "A micro decoder for the lossless mode: it drafts from the states of its base, which stays as it is and"
    " checks every draft.",
    "control": "The control of a micro_step model: its base, trained on the same data without the new modules.",
    "pretraining": "A language model, trained from random weights.",
}


def write_card(run: Run, recipe: Recipe, prepared: Path) -> None:
    """Write the card into the run's model folder.

    Args:
        run: a finished one.
        recipe: of it.
        prepared: folder of its data.

    Raises:
        ExportError: it cannot be written.
    """
    facts = run.facts
    stages = "\n".join(
        f"| {each.name} | {each.first:,} to {each.last:,} |"
        f" {', '.join(f'{group} {rate:g}' for group, rate in each.rates.items())} |"
        for each in facts.stages
    )
    packages = ", ".join(f"{name} {version}" for name, version in facts.packages.items())
    revision = f" ({facts.base_revision[:19]})" if facts.base_revision else ""
    parts = [
        "---",
        f"library_name: {'peft' if recipe.objective == 'control' and recipe.adapter else 'transformers'}",
        "---",
        f"# {facts.name}",
        "",
        _WHAT[facts.objective],
        "",
        f"Base: {facts.base}{revision}. Its licence holds for this model too, and the data's below may.",
        "",
        "| parameters | |",
        "|---|---|",
        *(f"| {group} | {count:,} |" for group, count in facts.parameters.items()),
        "",
        "## Training",
        "",
        f"{facts.steps:,} steps of AdamW, {facts.tokens_per_step:,.0f} learnt tokens each on average; precision"
        f" {recipe.precision}, seed {facts.seed}; {packages}. The recipe stands beside the log of the run.",
        "",
        "| stage | steps | peak rates |",
        "|---|---|---|",
        stages,
        "",
        "## Data",
        "",
        *_data(prepared, recipe),
        "",
        "## Held out",
        "",
        *_held_out(run),
        "",
        "**Limits.** Measured on held-out examples of its own data alone; see the base's card for what the base is.",
    ]
    assert run.model is not None
    atomic_write(run.model / CARD, ("\n".join(parts) + "\n").encode())


def _data(prepared: Path, recipe: Recipe) -> list[str]:
    answers = "written by the base itself" if recipe.data.distill is not None else "as they are in the data"
    left_out = f", without {', '.join(recipe.data.without)}" if recipe.data.without else ""
    told = [
        f"The mix {recipe.data.mix}{left_out}, responses {answers}.",
        "",
        "| source | licence | examples |",
        "|---|---|---|",
    ]
    try:
        report = json.loads((prepared / EXAMPLES / "report.json").read_text("utf-8"))
        learnt = [each for each in report["sources"] if each["source"] not in recipe.data.without]
        told += [f"| {each['source']} | {each['licence']} | {each['kept']:,} |" for each in learnt]
    except (OSError, ValueError, KeyError, TypeError):
        return [f"Prepared data without a report on its sources: {prepared.name}."]
    return told


def _held_out(run: Run) -> list[str]:
    last = run.validated
    if last is None:
        return ["Nothing was held out."]
    told = [f"{last.tokens:,} tokens: {last.token_loss:.4f} nats a token, {last.accuracy:.3f} of them the likeliest."]
    if len(last.position_tokens) > 1:
        told += [
            "",
            "| place in the segment | tokens | nats a token | likeliest |",
            "|---|---|---|---|",
            *_places(last),
        ]
    if last.stop_accuracy is not None:
        told += ["", f"Of {last.stops:,} stops {last.stop_accuracy:.3f} are right."]
    return told


def _places(line: LogLine) -> list[str]:
    found = []
    for j, (count, loss, right) in enumerate(
        zip(line.position_tokens, line.position_loss, line.position_accuracy, strict=True), 1
    ):
        if count:
            found.append(f"| {j} | {count:,} | {'-' if loss is None else f'{loss:.3f}'} | {right:.3f} |")
    return found
