"""The command `micro-step PROGRAM ...`, also `python -m micro_step PROGRAM ...`: it hands over to a room's program."""

import sys

import analysis
import benchmarks
import data
import evals
import model
import trainer
from model.terminal import start

PROGRAMS = {room.__name__.rpartition(".")[2]: room for room in (model, data, trainer, analysis, evals, benchmarks)}
HELP = f"""Usage: micro-step PROGRAM ...

PROGRAM is one of {", ".join(PROGRAMS)}; `micro-step PROGRAM --help` lists its commands."""


def main() -> None:
    """Run the program that the first word names with the words after it."""
    name, *words = sys.argv[1:] or ["--help"]
    if name in PROGRAMS:
        sys.argv = [f"micro-step {name}", *words]
        start(f"{PROGRAMS[name].__name__}.cli")
    elif name == "--help":
        print(HELP)
    else:
        sys.exit(f"Error: there is no program {name!r}; use one of {', '.join(PROGRAMS)}")


if __name__ == "__main__":
    main()
