"""Makes the notebooks of this folder from the scripts beside them, and executes them.

python examples/build.py           every script, 1_NAME.py to 1_NAME.ipynb
python examples/build.py 1 4       those whose names begin so

Cells begin with `# %%`, and cells of text with `# %% [markdown]`. Stored figures hold their data and a picture, so that
they can be seen where no JavaScript runs.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
SCRIPTS = sorted(HERE.glob("[0-9]*.py"))
_CELL = re.compile(r"^# %%(?: \[(markdown)\])?\n", re.MULTILINE)


def notebook(script: Path) -> nbformat.NotebookNode:
    """The cells of a script, not executed."""
    _, *pieces = _CELL.split(script.read_text("utf-8"))
    cells = []
    for i, (kind, source) in enumerate(zip(pieces[::2], pieces[1::2], strict=True)):
        text = re.sub(r"^# ?", "", source, flags=re.MULTILINE) if kind else source
        new = nbformat.v4.new_markdown_cell if kind else nbformat.v4.new_code_cell
        cells.append(new(text.strip(), id=f"cell-{i}"))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}}, nbformat_minor=5
    )


def execute(made: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Run the cells, from the repository's root, and keep what they show without progress and warnings."""
    NotebookClient(made, timeout=300, record_timing=False, resources={"metadata": {"path": str(HERE.parent)}}).execute()
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    made.metadata.language_info = {"name": "python"}  # not the version of Python here
    return made


def main(begins: list[str]) -> None:
    """Write the notebooks of all scripts, or of those whose names begin as given."""
    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype+png"
    for script in SCRIPTS:
        if not begins or script.name.startswith(tuple(begins)):
            target = script.with_suffix(".ipynb")
            target.write_text(nbformat.writes(execute(notebook(script))) + "\n", "utf-8")
            print(f"{target.relative_to(HERE.parent)}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
