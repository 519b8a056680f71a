"""Find the evaluations under a folder: the folders that `micro-step eval run --out` wrote."""

from pathlib import Path

from analysis.discovery import Found, search

MOST_SHOWN = 12  # evaluations that stand in one table


def find_evaluations(folder: Path) -> Found:
    """Return the evaluations under a folder, or the folder itself if it is one."""
    return search(
        folder, "evaluations", _is_evaluation, lambda path: max(map(_changed, path.glob("*@*.jsonl")), default=0.0)
    )


def _is_evaluation(folder: Path) -> bool:
    """True if there are files of samples; without its manifest it is a damaged evaluation."""
    try:
        return any(path.is_file() for path in folder.glob("*@*.jsonl"))
    except (OSError, ValueError):
        return False


def _changed(path: Path) -> float:
    return path.stat().st_mtime
