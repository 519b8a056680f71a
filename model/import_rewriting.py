"""Moves Python source under another package: `from model.text import x` becomes `from micro_step.model.text import x`.

The source tree imports its rooms by their short names. The wheel holds one package, `micro_step`, with the rooms under
it, and `setup.py` rewrites their imports with this module. Only the places that name a room change; all else of a
file, comments and layout included, stays as it is.
"""

import ast
import re
from collections.abc import Collection, Iterator
from itertools import pairwise

_FROM = re.compile(rb"from(?:\s|\\\r?\n)+")
Edit = tuple[int, int, str]  # bytes [begin, end) of the source, and the text that takes their place


def rewrite_imports(source: str, rooms: Collection[str], package: str) -> str:
    """Let a module import some packages from under another one.

    Three things are rewritten: absolute imports, `python -m ROOM` in any text, and the words `"-m", "ROOM"` of a
    command. Module names in other strings are not: a module that needs its own name takes `__package__`.

    Args:
        source: of a Python module.
        rooms: names of the packages that move, dotted or not: `model`, `data`.
        package: where they move to: `micro_step`.

    Raises:
        SyntaxError: the source is no Python.
    """
    raw = source.encode("utf-8")
    starts = [0]
    for line in raw.split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)
    edits: list[Edit] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and _inside(node.module or "", rooms):
            statement = starts[node.lineno - 1] + node.col_offset
            found = _FROM.match(raw, statement)
            assert found is not None
            edits.append((found.end(), found.end(), f"{package}."))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if _inside(alias.name, rooms):
                    begin = starts[alias.lineno - 1] + alias.col_offset
                    edits.append((begin, begin + len(alias.name), _imported(alias, package)))
        else:
            for room in _run_as_program(node, rooms):
                begin = starts[room.lineno - 1] + room.col_offset + 1  # behind the quote
                edits.append((begin, begin, f"{package}."))
    for begin, end, text in sorted(edits, reverse=True):
        raw = raw[:begin] + text.encode("utf-8") + raw[end:]
    names = "|".join(re.escape(room) for room in sorted(rooms))
    return re.sub(rf"\bpython -m (?=(?:{names})\b)", f"python -m {package}.", raw.decode("utf-8"))


def _inside(module: str, rooms: Collection[str]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def _imported(alias: ast.alias, package: str) -> str:
    """The text of one name of an import. `import a.b` binds `a`, so that it must go on doing so."""
    if alias.asname is not None:
        return f"{package}.{alias.name}"  # "as ..." follows in the source
    top, dot, _ = alias.name.partition(".")
    bound = f"{package}.{top} as {top}"
    return f"{package}.{alias.name}, {bound}" if dot else bound


def _run_as_program(node: ast.AST, rooms: Collection[str]) -> Iterator[ast.Constant]:
    """The room in the words `"-m", "ROOM"` of a list, a tuple or a call."""
    words = node.elts if isinstance(node, ast.List | ast.Tuple) else node.args if isinstance(node, ast.Call) else []
    for before, word in pairwise(words):
        if (
            isinstance(before, ast.Constant)
            and before.value == "-m"
            and isinstance(word, ast.Constant)
            and isinstance(word.value, str)
            and _inside(word.value, rooms)
        ):
            yield word
