"""`python -m data`: the commands of before `micro-step`, which go on working."""

from model.terminal import start

if __name__ == "__main__":
    start("data")
