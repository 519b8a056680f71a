"""Git-LFS pointers: a few lines of text in a file's place, where a clone did not fetch the file itself."""

from pathlib import Path

from model.reading.regular_files import open_regular

_BEGINS = b"version https://git-lfs.github.com/spec/"
WHAT = "is a git-LFS pointer, not the file itself: run `git lfs pull` where it was cloned, or download the file"


def is_pointer(content: bytes) -> bool:
    """True if a file's content, or its beginning, is that of a pointer."""
    return content.startswith(_BEGINS)


def pointer(path: Path) -> str | None:
    """Return an error message that begins with the file's name if the file is only a pointer, else None."""
    try:
        with open_regular(path) as file:
            return f"{path.name} {WHAT}" if is_pointer(file.read(len(_BEGINS))) else None
    except OSError:
        return None
