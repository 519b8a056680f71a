"""`python -m serving MODEL`: the same as `micro-step serve MODEL`."""

from model.terminal import start

if __name__ == "__main__":
    start("serving")
