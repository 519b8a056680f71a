"""A folder that is built beside its place is there whole or not at all, and what a killed process left of it goes."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from model.atomic_files import atomic_folder, atomic_open, atomic_write, scratch_folder
from tests.support.processes import Forked
from trainer import checkpoint


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def build(place, content="new", beside=None):
    with atomic_folder(place, beside) as folder:
        (folder / "file").write_text(content)


def build_and_die(place):
    with atomic_folder(place) as folder:
        (folder / "file").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_folder_replaces_the_one_before_and_after_an_error_nothing_is_left(tmp_path):
    place = tmp_path / "models" / "a"
    build(place, "old", tmp_path / "staging")
    with pytest.raises(ZeroDivisionError), atomic_folder(place) as folder:
        (folder / "file").write_text("half")
        raise ZeroDivisionError
    assert (place / "file").read_text() == "old" and names(place.parent) == ["a"]
    build(place)
    assert (place / "file").read_text() == "new" and names(place) == ["file"]
    assert names(place.parent) == ["a"] and names(tmp_path / "staging") == []


def test_what_a_killed_process_left_is_removed_and_what_is_being_built_stays(tmp_path):
    place = tmp_path / "a[1]"
    assert Forked(build_and_die, place).ended() == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    with atomic_folder(place) as mine:
        assert names(tmp_path) == [mine.name] != [left.name]
        build(place)
        (mine / "file").write_text("mine")
    assert names(tmp_path) == ["a[1]"] and (place / "file").read_text() == "mine"


def write_and_die(place):
    with atomic_open(place) as file:
        file.write(b"half")
        os.kill(os.getpid(), signal.SIGKILL)


def scratch_and_die(folder):
    with scratch_folder("kind", folder):
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_left_of_a_file_is_removed_and_what_is_being_written_stays(tmp_path):
    """Such files stayed for ever."""
    place = tmp_path / "a[1].json"
    assert Forked(write_and_die, place).ended() == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    with atomic_open(place) as mine:
        assert left.name not in names(tmp_path) and len(names(tmp_path)) == 1
        atomic_write(place, b"theirs")
        mine.write(b"mine")
    assert names(tmp_path) == ["a[1].json"] and place.read_bytes() == b"mine"


def test_a_scratch_folder_goes_and_takes_those_of_killed_processes_with_it(tmp_path):
    assert Forked(scratch_and_die, tmp_path).ended() == -signal.SIGKILL
    with scratch_folder("kind", tmp_path) as mine, scratch_folder("kind", tmp_path) as other:
        assert names(tmp_path) == sorted([mine.name, other.name])
    assert names(tmp_path) == []


def test_a_checkpoint_that_is_interrupted_leaves_nothing_and_a_killed_ones_goes(tmp_path):
    """A second Ctrl-C left step-*.part, and said that nothing was left."""

    def interrupt(folder):
        raise KeyboardInterrupt

    weight = torch.nn.Parameter(torch.ones(2))
    adam = torch.optim.AdamW([weight])
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, checkpoint.Progress(step=3), {"w": weight}, adam, interrupt)
    assert names(tmp_path) == []
    checkpoint.begin_part(checkpoint.part_of(tmp_path, checkpoint.Progress(step=2)))  # of a run that was killed
    checkpoint.save(tmp_path, checkpoint.Progress(step=3), {"w": weight}, adam, lambda folder: folder.mkdir())
    checkpoint.prune(tmp_path, 2)
    assert names(tmp_path) == ["step-00000003"]
