"""The card of a converted model: where it is from, its licence, how it is used, and what its source's own card says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from model.convert.source import SourceModel

_FRONT = re.compile(r"\A---\s*\n.*?\n---\s*\n", re.DOTALL)
_TERMS = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")


def write_card(source: SourceModel, folder: Path, title: str, use: str) -> None:
    """Write README.md, and copy the files of the source that hold its terms.

    Args:
        source: the converted model.
        folder: of the copy.
        title: what the folder holds, a sentence.
        use: how it is used, in Markdown.
    """
    facts = source.facts
    micro = facts.micro_step
    front = [
        *([f"license: {facts.licence}"] if facts.licence else []),
        "library_name: transformers",
        "pipeline_tag: text-generation",
        *([f"base_model: {json.dumps(name)}"] if (name := source.base.config._name_or_path) else []),
        *(["tags:", "- micro_step"] if micro else []),
    ]
    notes = "".join(f"- {note}\n" for note in facts.approximations)
    parts = [
        "---\n" + "\n".join(front) + "\n---\n",
        f"# {facts.name}\n",
        title + "\n",
        use + "\n",
        f"Converted by micro_step from {_place(facts.source)} ({facts.revision[:19]}); weights in"
        f" {str(source.dtype).removeprefix('torch.')}.\n",
        *([f"It is not exactly the original:\n\n{notes}"] if notes else []),
    ]
    card = source.folder / "README.md"
    if _is_own(card):
        own = _FRONT.sub("", card.read_text("utf-8", errors="replace")).strip()
        parts.append(f"## The card of its source\n\n{own}\n")
    (folder / "README.md").write_text("\n".join(parts), "utf-8")
    for pattern in _TERMS:
        for path in source.folder.glob(pattern):
            if _is_own(path):
                shutil.copyfile(path, folder / path.name)


def _is_own(path: Path) -> bool:
    """Whether a file is there, and is the model's own: a link may lead to any file of this machine.

    Those of the hub's cache lead to its folder of blobs.
    """
    target = path.resolve()
    return path.is_file() and (not path.is_symlink() or target.parent == path.parent.resolve().parents[1] / "blobs")


def _place(source: str) -> str:
    """The source of a model, without the path of a folder of this machine."""
    kind, _, where = source.partition(" ")
    return f"the {kind} {Path(where).name}" if kind in ("folder", "file") else f"{kind} {where}"
