"""The command line: `python -m trainer RECIPE`."""

from model.terminal import start

if __name__ == "__main__":
    start(f"{__package__}.cli")
