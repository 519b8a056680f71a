"""A named pipe in the place of a file is one clear message: whoever opened it would wait until somebody writes."""

import os
import shutil
import threading

import pytest

from analysis.depth.request import _content
from analysis.runs.log import Follower
from data.corpus.store import open_store
from data.run_folder import read_facts, read_lines
from data.yaml_config import StrictModel, read_yaml
from evals.samples import read_samples
from model.errors import MicroStepError
from model.hub.loading import ModelSpec, load
from model.reading.regular_files import need_regular, open_regular, read_bytes
from tests.support.pages import ROOT

READERS = {
    "a training log": lambda path: Follower(path).read(),
    "a log": read_lines,
    "run.json": lambda path: read_facts(path.parent),
    "samples": read_samples,
    "a recipe": lambda path: read_yaml(path, StrictModel),
    "a lens": _content,
}


def ended(read, path):
    """What a read raises, if it ends at all."""
    raised = []

    def run():
        try:
            read(path)
        except Exception as error:  # noqa: BLE001 - is looked at below
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive() and raised, "the read waits for a writer"
    return raised[0]


@pytest.mark.parametrize("what", READERS)
def test_a_pipe_is_refused(tmp_path, what):
    path = tmp_path / ("run.json" if what == "run.json" else "file.yaml")
    os.mkfifo(path)
    assert isinstance(ended(READERS[what], path), MicroStepError)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors", "chat_template.jinja"])
def test_a_pipe_in_a_models_folder_is_refused(tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(ROOT / "data" / "demo" / "tiny-base", folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    error = ended(lambda path: load(ModelSpec(str(path))), folder)
    assert isinstance(error, MicroStepError) and name in str(error) and "pipe" in str(error)


def test_a_pipe_in_a_store_is_refused(tmp_path):
    folder = tmp_path / "store"
    shutil.copytree(ROOT / "data" / "demo" / "scored" / "tiny-base", folder)
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    assert isinstance(ended(open_store, folder), MicroStepError)


def test_a_device_is_refused_and_a_file_is_read(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"content")
    assert read_bytes(file) == b"content"
    need_regular(tmp_path)
    for path in (os.devnull, tmp_path):
        with pytest.raises(OSError, match=r"device|directory"):
            open_regular(path)
