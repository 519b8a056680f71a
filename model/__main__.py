"""`python -m model list | fetch | show`."""

from model.cli import main

if __name__ == "__main__":
    main()
