"""The command line: `python -m trainer RECIPE`."""

from trainer.cli import main

main()
