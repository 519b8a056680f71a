"""The account of trained models: on tiny ones, what is known beforehand comes out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.account import _Judge, account, held_out_prompts
from benchmarks.account_figure import draw
from benchmarks.account_positions import positions
from benchmarks.account_ratio import ratio
from benchmarks.decode import Judged
from benchmarks.output import interval_cell
from data.prepared import Prepared
from model.errors import ExportError, ModelError, TextError
from model.hub.loading import LoadedModel, ModelSpec, load
from model.hub.wrap_base import wrap
from model.micro_step.modeling import MicroStepForCausalLM
from tests.support.micro_steps import scramble
from tests.support.tiny import save_tiny
from tests.support.training import make_prepared
from trainer.recipe import SegmentationConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "base", "llama", chat=True)


@pytest.fixture(scope="module")
def prepared(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return make_prepared(tmp_path_factory.mktemp("data") / "prepared", base, examples=24, every=4)


@pytest.fixture(scope="module")
def models(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A merged and a lossless model around the base, moved away from where they start."""
    loaded, folder = load(ModelSpec(str(base))), tmp_path_factory.mktemp("models")
    for name in ("merged", "lossless"):
        model = MicroStepForCausalLM.from_base(loaded.model, loaded.tokenizer, decoding=name)
        scramble(model)
        model.save_modules(folder / name, str(base))
    return str(folder / "merged"), str(folder / "lossless")


def opened(names: tuple[str, ...]) -> list[LoadedModel]:
    return [load(ModelSpec(name)) for name in names]


def test_above_one_all_are_the_base_and_lossless_is_at_every_tau(
    base: Path, prepared: Prepared, models: tuple[str, str]
) -> None:
    report = account(
        opened(models),
        load(ModelSpec(str(base))),
        {"made": held_out_prompts(prepared, "made", 6)},
        (0.01, 1.1),
        tokens=24,
        sizes=((1, 3), (4, None)),
    )
    rows = report["rows"]
    assert [(row["model"], row["tau"], row["at_a_time"], row["prompts"]) for row in rows] == [
        (model, tau, size, prompts)
        for size, prompts in ((1, 3), (4, 6))
        for model, tau in (
            ("base", None),
            ("merged", 0.01),
            ("merged", 1.1),
            ("lossless", 0.01),
            ("lossless", 1.1),
        )
    ]
    for row in rows:
        if row["model"] == "base":
            assert row["speedup"][0] == row["nll_ratio"][0] == row["cache_of_base"][0] == 1
        if row["model"] == "base" or row["tau"] == 1.1:
            assert row["tokens_per_macro_step"][0] == 1
        if row["model"] != "merged" or row["tau"] == 1.1:
            assert row["identical"][0] == row["same_prefix"][0] == 1
            assert row["agreement"][0] == 1 and row["nll_ratio"][0] == pytest.approx(1)
        elif row["tokens_per_macro_step"][0] > 1:
            assert row["cache_of_base"][0] < 1
            layers, heads, width, size = load(ModelSpec(str(base))).facts.layers, 2, 8, 4
            whole = 2 * layers * heads * width * size
            assert row["cache_bytes_a_token"][0] == pytest.approx(whole / row["tokens_per_macro_step"][0])
    assert any(row["model"] == "merged" and row["tokens_per_macro_step"][0] > 1.5 for row in rows)
    assert len(draw(report).data) == 4 + 3 * 2, "a line a model, and one more for the speed of one prompt at a time"


def test_the_cache_is_what_a_run_holds_at_its_end(base: Path, prepared: Prepared, models: tuple[str, str]) -> None:
    """A slot was counted for what is written last, which no pass reads again."""
    (prompt,) = held_out_prompts(prepared, "made", 1)
    model, own = opened(models[:1]), load(ModelSpec(str(base)))
    (alone, merged) = account(model, own, {"made": [prompt]}, (0.01,), tokens=12, sizes=((1, None),))["rows"]
    found = wrap(model[0]).model.generate_segments(torch.tensor([prompt]), confidence=0.01, max_new_tokens=12)
    assert found.cache_slots == len(prompt) + found.macro_steps - 1
    assert merged["cache_of_base"][0] == pytest.approx(found.cache_slots / (len(prompt) + alone["tokens"] - 1))


def test_a_stopped_account_goes_on_and_measures_nothing_twice(
    base: Path, prepared: Prepared, models: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, keep = {"made": held_out_prompts(prepared, "made", 4)}, tmp_path / "kept.jsonl"
    loaded, own = opened(models[:1]), load(ModelSpec(str(base)))
    options = {"tokens": 8, "sizes": ((2, None),), "keep": keep}
    whole = account(loaded, own, prompts, (0.5,), **options)
    lines = keep.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 2 * 2, "a head, and two batches of two ways"
    keep.write_text("".join(lines[:3]) + lines[3][:20])  # stopped in the middle of a line
    again = account(loaded, own, prompts, (0.5,), **options)
    assert again["sittings"] == 2 and len(keep.read_text().splitlines()) == 6
    exact = ("tokens", "tokens_per_macro_step", "agreement", "same_prefix", "nll", "nll_ratio", "cache_of_base")
    assert [[row[key] for key in exact] for row in again["rows"]] == [
        [row[key] for key in exact] for row in whole["rows"]
    ]

    monkeypatch.setattr("benchmarks.account.seconds_of", lambda run: pytest.fail("it was measured before"))
    third = account(loaded, own, prompts, (0.5,), **options)
    assert third["rows"] == again["rows"] and third["sittings"] == 3
    with pytest.raises(ExportError, match=r"begun with something else: max_new_tokens \(8 there, 9 now\)"):
        account(loaded, own, prompts, (0.5,), **{**options, "tokens": 9})
    keep.write_text('{"format": "other"}\n')
    with pytest.raises(ExportError, match="no account that could be gone on with"):
        account(loaded, own, prompts, (0.5,), **options)


def test_an_answer_is_judged_as_by_itself(base: Path, prepared: Prepared) -> None:
    own, prompts = load(ModelSpec(str(base))), held_out_prompts(prepared, "made", 5)
    answers = [prompt[:n] for n, prompt in enumerate(reversed(prompts), 1)]
    told = _Judge(own.model).told(prompts, answers)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        alone = Judged.of(own.model, [prompt], [answer])
        assert told.count[i] == len(answer)
        assert told.nll[i] / len(answer) == pytest.approx(alone.nll, rel=1e-5)
        assert told.agreed[i] / len(answer) == pytest.approx(alone.agreement)


def test_accuracy_by_place_is_the_models_own_beside_the_bases(
    base: Path, prepared: Prepared, models: tuple[str, str]
) -> None:
    loaded = load(ModelSpec(str(base)))
    rows = positions(*opened(models[:1]), loaded, prepared, SegmentationConfig(rule="fixed", parameters={"k": 3}))
    assert [row["place"] for row in rows] == [1, 2, 3]
    assert rows[0]["tokens"] >= rows[1]["tokens"] >= rows[2]["tokens"] > 0
    alone = positions(*opened(models[:1]), loaded, prepared, SegmentationConfig(rule="fixed", parameters={"k": 1}))
    (only,) = alone
    assert only["accuracy"] == only["base_accuracy"], "every token a segment: the base itself"
    assert only["tokens"] == sum(row["tokens"] for row in rows)


def test_a_ratio_is_of_sums_and_its_interval_holds_it() -> None:
    over, by = np.array([1.0, 2.0, 6.0, 3.0]), np.array([1.0, 1.0, 2.0, 2.0])
    value, low, high = ratio((over, by))
    assert value == 2 and low < 2 < high
    assert ratio((over, by), (over, by)) == [1, None, None], "nothing varies"
    assert ratio((over[:2], by[:2])) == [1.5, None, None], "two prompts are too few"
    assert interval_cell([1.5, None, None], 2) == "1.50 (no interval)"
    assert interval_cell([1.5, 1.25, 1.75], 2) == "1.50 (1.25..1.75)"


def test_what_cannot_be_measured_is_said(base: Path, prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(TextError, match="holds out no prompts of 'other'; it does of made"):
        held_out_prompts(prepared, "other", 3)
    other = save_tiny(tmp_path / "other", "llama", chat=True, vocab_size=500)
    with pytest.raises(ModelError, match="words"):
        prompts = {"made": held_out_prompts(prepared, "made", 2)}
        account(opened((str(other),)), load(ModelSpec(str(base))), prompts, (0.5,), tokens=4)


def test_every_rule_that_a_model_can_follow_is_measured(
    base: Path, prepared: Prepared, models: tuple[str, str]
) -> None:
    prompts = {"made": held_out_prompts(prepared, "made", 2)}
    rules, sizes = ("confidence", "stop_head"), ((2, None),)
    report = account(opened(models[:1]), load(ModelSpec(str(base))), prompts, (0.5,), rules, 4, sizes)
    assert [(row["model"], row["rule"]) for row in report["rows"][1:]] == [("merged", rule) for rule in rules]


def test_the_command_gives_tables_and_json(
    base: Path, prepared: Prepared, models: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "account.json"
    options = ["--model", models[0], "--base", str(base), "--prepared", str(prepared.path), "--source", "made"]
    options += ["--questions", "0", "--held-out", "3", "--max-new-tokens", "8", "--confidence", "0.5"]
    options += ["--alone", "2", "--segments", "fixed:k=2", "--dtype", "float32", "--out", str(out)]
    options += ["--read", "2", "--keep", str(tmp_path / "kept.jsonl")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "account", *options], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "place" in done.stdout
    report = json.loads(out.read_text())
    assert (
        report["prompts"] == {"gsm8k_test": 0, "made": 3} and len(report["rows"]) == 4 and len(report["positions"]) == 2
    )
