"""The command line: `python -m data`."""

from model.terminal import start

if __name__ == "__main__":
    start(f"{__package__}.cli")
