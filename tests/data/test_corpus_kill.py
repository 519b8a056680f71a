"""`corpus` killed at random moments and started again gives the store of an undisturbed run, byte for byte.

Every start is a process of its own that runs the command line and dies by SIGKILL.
"""

import json
import random
import signal
import sys
import time

import numpy as np
import pytest
import torch

from data.corpus.store import open_store
from model.errors import TextError
from tests.support.processes import program
from tests.support.tiny import CORPUS, save_tiny

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")]

KILLS = 6
SHARDS_AT_MOST = 2  # that a start completes before it is killed


@pytest.fixture(scope="module")
def start():
    """Start the command in a process of its own; of one thread, as two wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield lambda words: program("analysis", "corpus", *words)
    torch.set_num_threads(threads)


def files(store):
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())}


def marks(store):
    return len(list(store.glob("shard-*.json")))


def pause(seconds, store, most):
    """Let a run go on, unless it has come that far: a machine may be faster now than when it was measured."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and marks(store) < most:
        time.sleep(0.002)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A command that scores some 40 shards, without --out."""
    folder = tmp_path_factory.mktemp("kill")
    draw = random.Random(5)
    texts = [" ".join(draw.choices(CORPUS, k=draw.randint(0, 4)))[: draw.randint(1, 400)] for _ in range(260)]
    data = folder / "corpus.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    model = save_tiny(folder / "model", "llama", seed=3, add_bos=True)
    return [
        "--model",
        model,
        "--data",
        data,
        "--shard-tokens",
        500,
        "--windows",
        "--max-tokens-per-document",
        64,
        "--no-report",
    ]


def test_killed_again_and_again_and_started_again_equals_an_undisturbed_run(start, words, tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    spent = time.monotonic()
    assert start([*words, "--out", undisturbed]).ended() == 0
    expected, total = files(undisturbed), marks(undisturbed)
    assert total > SHARDS_AT_MOST * KILLS, "the kills could not all land in mid-run"
    whole = open_store(undisturbed).arrays()

    warm = tmp_path / "warm"
    began = time.monotonic()
    process = start([*words, "--out", warm])
    process.until(lambda: marks(warm) > 0)
    until_first = time.monotonic() - began  # a shard takes a share of what is left
    assert process.ended() == 0
    shard_time = (time.monotonic() - began - until_first) / (total - 1)
    assert files(warm) == expected, "two undisturbed runs differ"

    draw, landed, added = random.Random(7), 0, 0
    for kill in range(KILLS):
        before = marks(killed) if killed.exists() else 0
        process = start([*words, "--out", killed])
        if kill in (0, 3):  # anywhere between the start and the first shard
            pause(draw.uniform(0, until_first), killed, before + SHARDS_AT_MOST)
        else:  # after some shards, anywhere in the making and writing of the next
            more = draw.randint(0, SHARDS_AT_MOST)
            process.until(lambda before=before, more=more: marks(killed) >= before + max(more, before == 0))
            seconds = draw.uniform(0, 1.2 * shard_time) + (until_first if more == 0 else 0) * draw.random()
            pause(seconds, killed, before + SHARDS_AT_MOST + 1)
        assert process.killed() == -signal.SIGKILL, "the run had ended before it was killed"
        landed += bool(killed.exists() and marks(killed) > before)
        added = marks(killed) if killed.exists() else 0
        if added:  # at every moment, what is there can be read and is right
            with pytest.raises(TextError, match="incomplete"):
                open_store(killed)
            part = open_store(killed, allow_incomplete=True)
            np.testing.assert_array_equal(part.arrays().entropy, whole.entropy[: part.tokens])
    assert landed >= 2 and 2 <= added < total, f"{landed} of {KILLS} kills landed after a shard, {added} shards"

    assert start([*words, "--out", killed]).ended() == 0
    assert files(killed) == expected
    a, b = open_store(killed).arrays(), whole
    for name in a.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    print(
        f"{landed} kills in mid-run, {added} of {total} shards before the last start, {time.monotonic() - spent:.0f} s"
    )


def test_two_writers_at_once_are_one_clear_error(start, words, tmp_path):
    store = tmp_path / "store"
    first = start([*words, "--out", store])
    first.until(lambda: (store / "manifest.json").exists())
    first.send(signal.SIGSTOP)  # it holds the lock for as long as the other one needs
    try:
        second = start([*words, "--out", store])
        assert second.ended() == 1
    finally:
        first.send(signal.SIGCONT)
    assert second.err.startswith("Error: another process writes into ") and second.err.count("\n") == 1
    assert first.ended() == 0 and open_store(store).complete
