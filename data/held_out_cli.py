"""`micro-step data held-out`: the examples that no run on prepared data saw, as a corpus of conversations."""

import json
from pathlib import Path
from typing import Annotated

import typer


def held_out_command(
    prepared: Annotated[Path, typer.Argument(help="Folder that `micro-step data prepare` or `clean` wrote.")],
    out: Annotated[Path, typer.Option(help="A .jsonl file: source, number, and the conversation as messages.")],
    references: Annotated[
        bool, typer.Option("--references", help="With the sources' own answers, not those that the base wrote.")
    ] = False,
) -> None:
    """Write the held-out examples, one a line, for `micro-step corpus score --column messages` and other tools."""
    from data.examples import TABLE, read_examples
    from data.prepared import EXAMPLES, examples_file
    from model.atomic_files import atomic_write
    from model.errors import ExportError, TextError

    if out.suffix != ".jsonl":
        raise ExportError(f"{out} is no .jsonl file; give one")
    folder = prepared / EXAMPLES if references else examples_file(prepared).parent
    if not (folder / TABLE).is_file():
        folder = prepared  # of `clean`
    chosen = [each for each in read_examples(folder) if each.held_out]
    if not chosen:
        raise TextError(f"{folder} holds no example back; its mix has no `held_out`")
    lines = []
    for each in chosen:
        line = {"source": each.source, "number": each.number, "messages": each.turns}
        lines.append(json.dumps(line, ensure_ascii=False))
    atomic_write(out, ("\n".join(lines) + "\n").encode())
    print(out)
