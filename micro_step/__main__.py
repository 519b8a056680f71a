"""The command `micro-step`, also `python -m micro_step`."""

from model.terminal import start


def main() -> None:
    """Run the command that the command line gives."""
    start()


if __name__ == "__main__":
    main()
