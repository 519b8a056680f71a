"""The model's code as files for `trust_remote_code`: a flat folder that needs torch and transformers alone.

transformers copies a model's own code file by file, follows `from .file import name`, and knows no folders. So every
file that the modeling code imports becomes `room_file.py`, and its imports are rewritten to match.
"""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

from model.import_rewriting import rewrite_imports

_ROOM = __package__.rpartition(".")[0]  # "model", or "micro_step.model" where it is installed
_CONFIGURATION, _MODELING = "micro_step.configuration", "micro_step.modeling"
_REGISTERS = re.compile(r"^Auto\w+\.register\(.*\)\n", re.MULTILINE)  # transformers does it for code of a model's own

AUTO_MAP = {
    "AutoConfig": f"{_CONFIGURATION.replace('.', '_')}.MicroStepConfig",
    "AutoModelForCausalLM": f"{_MODELING.replace('.', '_')}.MicroStepForCausalLM",
}


def write_code(folder: Path) -> None:
    """Write the modeling code, and all of the project that it imports."""
    left, done = [_MODELING], set[str]()
    while left:
        name = left.pop()
        if name in done:
            continue
        done.add(name)
        source = _source(name)
        left += _imported(source)
        (folder / f"{name.replace('.', '_')}.py").write_text(_rewritten(source), "utf-8")


def _source(name: str) -> str:
    spec = find_spec(f"{_ROOM}.{name}")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_text("utf-8")


def _imported(source: str) -> list[str]:
    """Return the files of the project that a file imports, those for type checkers included: transformers wants all."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    modules = [node.module or "" for node in nodes]
    return [module.removeprefix(f"{_ROOM}.") for module in modules if module.startswith(f"{_ROOM}.")]


def _rewritten(source: str) -> str:
    relative = rewrite_imports(source, [_ROOM], "")  # from .model.text.document import ...
    pattern = rf"^(\s*from )\.{re.escape(_ROOM)}\.([\w.]+)"
    flat = re.sub(pattern, lambda found: f"{found[1]}.{found[2].replace('.', '_')}", relative, flags=re.MULTILINE)
    return "# Of micro_step, Apache-2.0, written by `micro-step model convert`.\n" + _REGISTERS.sub("", flat)
