"""`python -m model list | fetch | show`."""

from model.terminal import start

if __name__ == "__main__":
    start(f"{__package__}.cli")
