"""What an attribution comes to, in one line: the same on the command line and in a notebook."""

from __future__ import annotations

from analysis.attribution.faithfulness import ROWS
from analysis.attribution.view import ShownAttribution
from analysis.score_registry import significant


def finding(shown: ShownAttribution) -> str:
    """The values on the text and on the baseline, how exact the method was, and how faithful."""
    found, check = shown.found.found, shown.found.faithfulness
    parts = [
        f"{significant(found.f_input * shown.scale)} {shown.unit} on the text",
        f"{significant(found.f_baseline * shown.scale)} on the baseline",
    ]
    parts += [f"delta {significant(found.delta * shown.scale)}"] if found.delta is not None else []
    parts += [f"{found.steps} steps"] if found.steps is not None else []
    area = f"area {significant(check.own)}, random {significant(float(check.random.mean()))}"
    return ", ".join([*parts, f"{found.passes + ROWS} rows read", area])
