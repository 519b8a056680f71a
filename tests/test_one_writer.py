"""A folder or file that is written over a long time has one writer."""

import subprocess
import sys
from pathlib import Path

import pytest

from model.errors import ExportError
from model.one_writer import one_writer

ELSEWHERE = """
import sys
from pathlib import Path
from model.one_writer import one_writer
with one_writer(Path(sys.argv[1]), is_file=sys.argv[2] == "file"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize(("name", "kind"), [("new/smollm2-1.7b", "folder"), ("new/kept.jsonl", "file")])
def test_another_writer_is_refused_or_waits(tmp_path: Path, name: str, kind: str) -> None:
    path, is_file, told = tmp_path / name, kind == "file", []

    def tell(message: str, fraction: float | None) -> None:
        told.append(message)
        other.communicate("end\n")

    with subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE, path, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(ExportError, match="another process"), one_writer(path, is_file=is_file):
            pass
        with one_writer(path, tell, is_file=is_file):
            assert len(told) == 1 and "waiting" in told[0]


def test_a_writer_that_writes_nothing_leaves_nothing(tmp_path: Path) -> None:
    for name, is_file in (("new/run", False), ("new/kept.jsonl", True)):
        with one_writer(tmp_path / name, is_file=is_file):
            assert (tmp_path / "new").exists()
        assert not (tmp_path / "new").exists()
