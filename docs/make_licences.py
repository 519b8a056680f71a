"""Writes THIRD_PARTY_LICENCES.md: the packages that requirements.txt brings, with the licence that each declares.

    make licences

It reads the metadata of the environment that runs it, and asks nobody. A licence that a package does not declare is
named as such.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "THIRD_PARTY_LICENCES.md"
HEAD = """# Licences of other packages

`make licences` writes this list from the metadata of the packages that `requirements.txt` brings, on Linux and with the
exact versions named there. micro_step holds no code of theirs; `make app` installs them.

| package | version | licence as it declares it | home |
|---|---|---|---|
"""


def needed(file: Path) -> dict[str, Distribution]:
    """The packages that a file of requirements names, and all that they need here, by name."""
    lines = (line.split("#")[0].strip() for line in file.read_text("utf-8").splitlines())
    waiting = [Requirement(line) for line in lines if line and not line.startswith("-")]
    found: dict[str, Distribution] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if (name, frozenset(wanted.extras)) in done:
            continue
        done.add((name, frozenset(wanted.extras)))
        try:
            package = found[name] = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is not installed; run make licences, which installs it")
        for line in package.requires or ():
            inner = Requirement(line)
            extras = ["", *wanted.extras]
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(inner)
    return dict(sorted(found.items()))


def licence(package: Distribution) -> str:
    """What a package declares: an SPDX expression, classifiers, or the first line of its licence field."""
    said = package.metadata
    if expression := said.get("License-Expression"):
        return str(expression)
    classifiers = [line.split(" :: ")[-1] for line in said.get_all("Classifier") or () if line.startswith("License ::")]
    named = [name for name in classifiers if name != "OSI Approved"]
    field = (said.get("License") or "").strip().splitlines()
    return ", ".join(named) or (field[0][:60] if field else "not declared")


def home(package: Distribution) -> str:
    """Its home page."""
    links = [line.partition(", ")[2] for line in package.metadata.get_all("Project-URL") or ()]
    return str(package.metadata.get("Home-page") or next(iter(links), ""))


def cell(text: str) -> str:
    """A text in a cell of the table."""
    return re.sub(r"[|\r\n<>`]", " ", text).strip()


if __name__ == "__main__":
    rows = [
        f"| {name} | {cell(package.version)} | {cell(licence(package))} | {cell(home(package))} |"
        for name, package in needed(ROOT / "requirements.txt").items()
    ]
    OUT.write_text(HEAD + "\n".join(rows) + "\n", "utf-8")
    print(f"{len(rows)} packages in {OUT.name}")
