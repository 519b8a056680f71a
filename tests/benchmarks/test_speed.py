"""Answers of micro_step models beside their base's: on tiny models, what is known beforehand comes out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from analysis.segmentation.strategy import Strategy
from benchmarks.families.tiny_models import tiny_family
from benchmarks.ratio import ratio
from benchmarks.report import cell
from benchmarks.speed.compare import _AnswerScorer, compare
from benchmarks.speed.decoders import BASE, ComparedModels, baselines_of, load_models, plain_answers
from benchmarks.speed.drafts import drafts, walk
from benchmarks.speed.figure import draw
from benchmarks.speed.forced import Weights, forced_drafts, forced_length, forced_lengths, forced_study
from benchmarks.speed.options import ComparedModelOptions, DecodeOptions
from benchmarks.speed.position_accuracy import position_accuracy
from benchmarks.speed.prompts import Rows, held_out_prompts, prompt_ids, read_prompts
from data.prepared import Prepared
from data.training_rows import TokenRows as TrainingRows
from micro_step import cli
from model.causal_lm.padding import padding_is_bound
from model.errors import ExportError, MicroStepError, ModelError, TextError, TooLarge
from model.hub.loading import ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM
from tests.support.micro_steps import scramble
from tests.support.tiny import save_tiny
from tests.support.training import make_prepared

pytestmark = pytest.mark.slow

TEXTS = ["The quick brown fox", "She sold 48 clips in April"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("base") / "base", "llama", chat=True))


@pytest.fixture(scope="module")
def prepared(base: str, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return make_prepared(tmp_path_factory.mktemp("data") / "prepared", Path(base), examples=24, every=4)


@pytest.fixture(scope="module")
def names(base: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A merged and a lossless model around the base, moved away from where they start."""
    loaded, folder = load(ModelSpec(base)), tmp_path_factory.mktemp("models")
    for name in ("merged", "lossless"):
        model = MicroStepForCausalLM.from_base(loaded.model, loaded.tokenizer, decoding=name)
        scramble(model)
        model.save_modules(folder / name, base)
    return str(folder / "merged"), str(folder / "lossless")


@pytest.fixture(scope="module")
def merged(names: tuple[str, str], base: str) -> ComparedModels:
    return load_models(ComparedModelOptions(model=[names[0]], base=base))


@pytest.fixture(scope="module")
def untrained(base: str) -> ComparedModels:
    return load_models(ComparedModelOptions(model=[base]))


@pytest.fixture
def prompts(untrained: ComparedModels) -> Rows:
    return [prompt_ids(text, untrained.tokenizer) for text in TEXTS]


def command(*options: str) -> Any:
    words = ["bench", "decode", *options]
    return CliRunner().invoke(cli.command(words), words)


# --- the comparison


def test_above_one_all_are_the_base_and_lossless_is_at_every_tau(
    base: str, prepared: Prepared, names: tuple[str, str]
) -> None:
    models = load_models(ComparedModelOptions(model=list(names), base=base, control=[base]))
    options = DecodeOptions(confidence=(0.01, 1.1), max_new_tokens=8, batch_size="1:2,2", repeats=1, fast_base=True)
    report = compare(models, {"made": held_out_prompts(prepared, "made", 3)}, options)
    rows = report["rows"]
    assert [(row["model"], row["tau"], row["at_a_time"], row["prompts"]) for row in rows] == [
        (model, tau, size, prompts)
        for size, prompts in ((1, 2), (2, 3))
        for model, tau in (
            (BASE, None),
            ("merged", 0.01),
            ("merged", 1.1),
            ("lossless", 0.01),
            ("lossless", 1.1),
            (models.controls[0].facts.name, None),
        )
    ]
    for number, row in enumerate(rows):
        if number % 6 == 0:
            assert row["speedup"][0] == row["nll_ratio"][0] == row["cache_of_base"][0] == 1
        if row["tau"] in (None, 1.1):
            assert row["tokens_per_macro_step"][0] == 1
        if row["model"] != "merged" or row["tau"] == 1.1:
            assert row["identical"][0] == row["same_prefix"][0] == 1
            assert row["agreement"][0] == 1 and row["nll_ratio"][0] == pytest.approx(1)
        elif row["tokens_per_macro_step"][0] > 1:
            assert row["cache_of_base"][0] < 1
            layers, heads, width, size = load(ModelSpec(base)).facts.layers, 2, 8, 4
            whole = 2 * layers * heads * width * size
            assert row["cache_bytes_a_token"][0] == pytest.approx(whole / row["tokens_per_macro_step"][0])
    assert any(row["model"] == "merged" and row["tokens_per_macro_step"][0] > 1.5 for row in rows)
    lines = [line for line in draw(report).data if line.name != BASE]
    assert len(lines) == 2 * (4 + 1), "a line a model and panel, and one more for the speed of one prompt at a time"
    first = rows[1]
    assert report["speedup"] == first["speedup_by_round"]["median"] and report["agreement"] == first["agreement"][0]


@pytest.mark.parametrize("confidence, verify", [(1.5, None), (0.0, True)])
def test_answers_that_are_the_bases_own_are_said_to_be(
    untrained: ComparedModels, prompts: Rows, confidence: float, verify: bool | None
) -> None:
    options = DecodeOptions(confidence=(confidence,), verify=verify, max_new_tokens=10, batch_size="2", repeats=2)
    report = compare(untrained, {"made": prompts}, options, baselines_of(untrained))
    mine, lookup = report["rows"][1:3]
    assert mine["identical"][0] == report["agreement"] == 1 and len(mine["speedup_by_round"]["each"]) == 2
    assert report["nll_ratio"] == pytest.approx(1, rel=1e-4)
    assert mine["decoding"] == ("lossless" if verify else "merged")
    assert "one prompt at a time" in lookup["computes"] and lookup["speedup"] is None
    if not verify:
        assert report["tokens_per_macro_step"] == 1


def test_the_cache_is_what_a_run_holds_at_its_end(merged: ComparedModels, prepared: Prepared) -> None:
    """No slot is counted for what is written last, which no pass reads again."""
    (prompt,) = held_out_prompts(prepared, "made", 1)
    options = DecodeOptions(confidence=(0.01,), max_new_tokens=12, repeats=1)
    alone, mine = compare(merged, {"made": [prompt]}, options)["rows"]
    model = merged.micro[0].model
    found = model.generate_segments(torch.tensor([prompt]), confidence=0.01, max_new_tokens=12)
    assert found.cache_slots == len(prompt) + found.macro_steps - 1
    assert mine["cache_of_base"][0] == pytest.approx(found.cache_slots / (len(prompt) + alone["tokens"] - 1))


def test_a_stopped_comparison_is_resumed_and_measures_nothing_twice(
    merged: ComparedModels, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, keep = {"made": held_out_prompts(prepared, "made", 4)}, tmp_path / "kept.jsonl"
    options = DecodeOptions(confidence=(0.5,), max_new_tokens=8, batch_size="2", repeats=1, keep=keep)
    whole = compare(merged, prompts, options)
    lines = keep.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 2 * 2, "a head, and two batches of two decoders"
    keep.write_text("".join(lines[:3]) + lines[3][:20])  # stopped in the middle of a line
    again = compare(merged, prompts, options)
    assert again["sittings"] == 2 and len(keep.read_text().splitlines()) == 6
    exact = ("tokens", "tokens_per_macro_step", "agreement", "same_prefix", "nll", "nll_ratio", "cache_of_base")
    assert [[row[key] for key in exact] for row in again["rows"]] == [
        [row[key] for key in exact] for row in whole["rows"]
    ]

    monkeypatch.setattr("benchmarks.speed.measure.seconds_of", lambda run: pytest.fail("it was measured before"))
    third = compare(merged, prompts, options)
    assert third["rows"] == again["rows"] and third["sittings"] == 3
    with pytest.raises(ExportError, match=r"max_new_tokens \(8 there, 9 now\)"):
        compare(merged, prompts, replace(options, max_new_tokens=9))
    keep.write_text('{"format": "other"}\n')
    with pytest.raises(ExportError, match="resumed"):
        compare(merged, prompts, options)


def test_every_rule_that_a_model_can_follow_is_measured(merged: ComparedModels, prepared: Prepared) -> None:
    prompts = {"made": held_out_prompts(prepared, "made", 2)}
    options = DecodeOptions(
        confidence=(0.5,), rule=("confidence", "stop_head"), max_new_tokens=4, batch_size="2", repeats=1
    )
    report = compare(merged, prompts, options)
    assert [(row["model"], row["rule"]) for row in report["rows"][1:]] == [
        ("merged", rule) for rule in ("confidence", "stop_head")
    ]


def test_settings_are_varied_one_at_a_time_and_each_gives_a_line(names: tuple[str, str], base: str) -> None:
    models = load_models(ComparedModelOptions(model=list(names), base=base))
    options = DecodeOptions(
        confidence=(0.01, 0.5), eps=(0.5, 1.0), max_segment_length=(4, 2), cross=False, max_new_tokens=4, repeats=1
    )
    report = compare(models, {"made": [prompt_ids(TEXTS[0], models.tokenizer)]}, options)
    rows = [(row["model"], row["tau"], row["eps"], row["max_segment_length"]) for row in report["rows"][1:]]
    assert sorted(rows, key=str) == sorted(
        [("merged", tau, None, most) for tau, most in ((0.01, 4), (0.5, 4), (0.01, 2))]
        + [("lossless", *each) for each in ((0.01, 0.5, 4), (0.5, 0.5, 4), (0.01, 1.0, 4), (0.01, 0.5, 2))],
        key=str,
    )
    longest = {row["max_segment_length"]: row["tokens_per_macro_step"][0] for row in report["rows"][1:]}
    assert longest[2] <= 2
    lines = [line for line in draw(report).data if line.name != BASE and line.showlegend]
    assert [line.name.split(": ")[1].split(" varies")[0] for line in lines] == ["tau", "M", "tau", "eps", "M"]
    crossed = draw({**report, "crossed": True}).data
    assert len({line.name for line in crossed if line.name != BASE}) == 2 + 3, "a line over tau for each of the others"
    with pytest.raises(MicroStepError, match="1 to 4 tokens"):
        compare(models, {"made": [[5]]}, replace(options, max_segment_length=(5,)))


def test_answers_are_scored_as_the_base_reads_them(base: str) -> None:
    model = load(ModelSpec(base, device="cpu")).model
    prompts, answers = [[5, 6, 7], [8]], [[9, 10], [11, 12, 13]]
    nll, agreed = [], []
    for prompt, answer in zip(prompts, answers, strict=True):
        log_p = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
        nll.append(float(-log_p[range(len(answer)), answer].sum()))
        agreed.append(float((log_p.argmax(-1) == torch.tensor(answer)).sum()))
    scores = _AnswerScorer(model).scores(prompts, answers)
    assert scores[:, 0] == pytest.approx(nll, rel=1e-5) and scores[:, 1].tolist() == agreed


def test_prompts_are_answered_apart_where_padding_would_change_the_answers() -> None:
    """The layers of a recurrent family read the padding that stands before a shorter prompt."""
    model = tiny_family("recurrent_gemma")
    assert not padding_is_bound(model)
    settings = {"do_sample": False, "max_new_tokens": 6, "eos_token_id": None, "pad_token_id": 0}
    prompts = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14, 15, 16]]
    alone = [plain_answers(model, [prompt], settings)[0] for prompt in prompts]
    assert plain_answers(model, prompts, settings) == alone


def test_accuracy_by_place_is_the_models_own_beside_the_bases(merged: ComparedModels, prepared: Prepared) -> None:
    rows = position_accuracy(merged, prepared, Strategy.of("fixed", {"k": 3}))
    assert [row["place"] for row in rows] == [1, 2, 3]
    assert rows[0]["tokens"] >= rows[1]["tokens"] >= rows[2]["tokens"] > 0
    (only,) = position_accuracy(merged, prepared, Strategy.of("fixed", {"k": 1}))
    assert only["accuracy"] == only["base_accuracy"], "every token a segment: the base itself"
    assert only["tokens"] == sum(row["tokens"] for row in rows)


def test_a_ratio_is_of_sums_and_its_interval_holds_it() -> None:
    over, by = np.array([1.0, 2.0, 6.0, 3.0]), np.array([1.0, 1.0, 2.0, 2.0])
    value, low, high = ratio((over, by))
    assert value == 2 and low is not None and high is not None and low < 2 < high
    assert ratio((over, by), (over, by)) == [1, None, None], "nothing varies"
    assert ratio((over[:2], by[:2])) == [1.5, None, None], "two prompts are too few"
    assert cell([1.5, None, None]) == "1.50 (no interval)"
    assert cell([1.5, 1.25, 1.75]) == "1.50 (1.25..1.75)"


def test_what_cannot_be_compared_is_said(base: str, prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(TextError, match="'other'"):
        held_out_prompts(prepared, "other", 3)
    other = save_tiny(tmp_path / "other", "llama", chat=True, vocab_size=500)
    with pytest.raises(ModelError, match="words"):
        load_models(ComparedModelOptions(model=[str(other)], base=base))


# --- the command


def test_the_command_gives_tables_and_json_of_prompts_from_a_file(base: str, tmp_path: Path) -> None:
    prompts, out = tmp_path / "x.jsonl", tmp_path / "out.json"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS))
    options = ["--prompts", str(prompts), "--confidence", "0.5", "--max-new-tokens", "12", "--repeats", "1"]
    done = command("--model", base, *options, "--out", str(out))
    assert done.exit_code == 0, done.exception
    assert "prompt lookup" in done.stdout and "same prefix" in done.stdout
    assert ["untrained", "True"] in [line.split() for line in done.stdout.splitlines()]
    report = json.loads(out.read_text())
    assert report["tokens_per_macro_step"] >= 1 and report["speedup"] > 0
    assert 0 <= report["agreement"] <= 1 and report["nll_ratio"] > 0
    assert [row["decoding"] for row in report["rows"]] == ["plain", "merged", "prompt lookup", "assisted"]
    for row in report["rows"]:
        if row["tau"] is None:  # greedy, all of them
            assert row["agreement"][0] == row["identical"][0] == 1 and row["nll_ratio"][0] == pytest.approx(1, rel=1e-4)


def test_the_command_compares_models_on_held_out_prompts(
    base: str, prepared: Prepared, names: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    options = ["--model", names[0], "--base", base, "--prepared", str(prepared.path), "--source", "made"]
    options += ["--held-out", "3", "--max-new-tokens", "8", "--confidence", "0.5", "--batch-size", "1:2,8"]
    options += ["--positions", "fixed:k=2", "--read", "2", "--repeats", "1", "--no-baselines", "--out", str(out)]
    done = command(*options, "--keep", str(tmp_path / "kept.jsonl"))
    assert done.exit_code == 0 and "place" in done.stdout
    report = json.loads(out.read_text())
    assert report["prompts"] == {"made": 3} and len(report["rows"]) == 4 and len(report["positions"]) == 2


def test_a_mistake_is_told_before_anything_is_loaded_and_leaves_no_file(base: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    for text, message in (('{"prompt": "a"}\n{"text": "b"}', "line 2"), ("plain", "line 1"), ("\n", "no prompts")):
        path.write_text(text)
        with pytest.raises(TextError, match=message):
            read_prompts(path)
    with pytest.raises(TooLarge, match="context of 512"):
        compare(load_models(ComparedModelOptions(model=[base])), {"made": [[5]]}, DecodeOptions(max_new_tokens=512))
    wrong = ["--prompts", str(path)], ["--forced", "two"], ["--rule", "hope"], ["--batch-size", "0"]
    for options in (*wrong, ["--positions", "word"], ["--confidence", ""], ["--out", str(tmp_path / "x.csv")]):
        assert isinstance(command("--model", base, *options).exception, MicroStepError)
    done = command("--model", str(tmp_path / "nothing"), "--out", str(tmp_path / "out.json"))
    assert isinstance(done.exception, MicroStepError) and not (tmp_path / "out.json").exists()


# --- forced decoding


def test_the_bound_is_the_designs() -> None:
    smollm2 = Weights(106_203_456, 28_311_552, 7_080_192, 28_311_552)
    assert [round(smollm2.merged_bound(k), 2) for k in (1, 1.5, 2, 3, 4)] == [1, 1.33, 1.58, 1.97, 2.24]
    cut_head = Weights(100, 50, 10, 5)
    assert cut_head.lossless_bound(2.2, 3) == pytest.approx(2.2 / (1 + 3 * 15 / 150))


def test_weights_are_counted_without_what_is_looked_up(base: str) -> None:
    models = load_models(ComparedModelOptions(model=[base], draft_words=100))
    weights, tied = Weights.of(models.micro[0].model), models.base.get_input_embeddings().weight.numel()
    assert weights.head == tied and weights.body + tied == sum(p.numel() for p in models.base.parameters())
    assert weights.draft_head == tied * 100 // 400


def test_lengths_are_forced_and_answers_have_all_their_tokens(untrained: ComparedModels, prompts: Rows) -> None:
    options = DecodeOptions(max_new_tokens=12, batch_size="2", repeats=1)
    for row in forced_study(untrained, prompts, forced_lengths(untrained, [1, 1.5, 2, 4]), options):
        assert row["tokens_per_macro_step"] == pytest.approx(row["length"])
        assert row["of_bound"] == pytest.approx(row["speedup"]["median"] / row["bound"])
        assert sum(row["parts"].values()) == pytest.approx(1)
    assert untrained.micro[0].model.generation_config.eos_token_id is not None
    with pytest.raises(MicroStepError, match="1 to 8 tokens"):
        forced_lengths(untrained, [9])


def test_a_forced_length_asks_nothing_of_the_micro_decoder_in_vain(untrained: ComparedModels, prompts: Rows) -> None:
    settings, rule = untrained.settings(12, endless=True), forced_length(1.5)
    model = untrained.micro[0].model
    found = model.generate_segments(torch.tensor(prompts[:1]), **settings, rule=rule, confidence=0.0, verify=False)
    (row,) = found.rows
    assert [len(segment) for segment in row.segments] == [1, 2] * 4
    assert row.micro_steps == 4 and set(row.why) == {"unsure", "limit"} and set(row.refused) == {None}


@pytest.mark.parametrize("rate, a_pass", [(0, 1), (1, 3)])
def test_drafts_agree_as_often_as_they_are_told_to(
    untrained: ComparedModels, prompts: Rows, rate: int, a_pass: int
) -> None:
    options = DecodeOptions(max_new_tokens=13, batch_size="2", repeats=1)
    cases = forced_drafts(untrained, prompts, [rate], [2], options)
    (row,) = forced_study(untrained, prompts, cases, options)
    assert row["identical"] == 1
    # the prompt's pass gives one token, each other one those that agree and one of its own
    assert row["tokens_per_macro_step"] == pytest.approx(13 / (1 + 12 / a_pass))
    with pytest.raises(MicroStepError, match="drafts 1 to 7"):
        forced_drafts(untrained, prompts, [1], [8], options)


# --- drafts


def test_the_command_reads_drafts_of_held_out_answers(
    prepared: Prepared, names: tuple[str, str], tmp_path: Path
) -> None:
    options = ["--model", names[1], "--prepared", str(prepared.path), "--read", "2", "--confidence", "0.1"]
    words = ["bench", "drafts", *options, "--out", str(tmp_path / "out.json")]
    done = CliRunner().invoke(cli.command(words), words)
    (report,) = json.loads((tmp_path / "out.json").read_text())
    assert done.exit_code == 0 and report["answers"] == 2 and report["walks"][0]["tokens_per_pass"][0] >= 1


def test_passes_that_a_draft_saves_are_counted_without_writing(tmp_path: Path) -> None:
    """The count from known answers is that of writing them, the pass that checks an answer's last tokens included."""
    base = load(ModelSpec(str(save_tiny(tmp_path / "base", "llama", seed=3, chat=True)), dtype="float32"))
    torch.manual_seed(0)
    draft = MicroStepForCausalLM.from_base(base.model, decoding="lossless", merger="mean", stop_head=False).eval()
    draft.save_modules(tmp_path / "draft", str(tmp_path / "base"))
    loaded = load(ModelSpec(str(tmp_path / "draft"), dtype="float32", device="cpu"))
    ids, passes, tokens = [], {0.0: 0, 0.02: 0}, 0
    for prompt in torch.randint(5, 100, (4, 6)):
        for tau in passes:
            found = loaded.model.generate_segments(
                prompt[None], torch.ones(1, 6, dtype=torch.long), rule="confidence", confidence=tau, verify=True,
                max_new_tokens=20, eos_token_id=[],
            )  # fmt: skip
            passes[tau] += found.rows[0].macro_steps
        ids.append(np.concatenate([prompt.numpy(), found.rows[0].ids]))
        tokens += 20
    loss_mask = np.tile(np.arange(26) >= 6, 4)
    rows = TrainingRows(np.concatenate(ids), loss_mask, np.ones(104, dtype=bool), np.arange(0, 105, 26), np.arange(4))
    report = drafts(loaded, rows, tuple(passes), lambda message, fraction: None)
    for each in report["walks"]:
        assert each["tokens"] == tokens
        assert each["tokens_per_pass"][0] == pytest.approx(tokens / passes[each["tau"]])
    # by hand: tokens 0 | 1 2 kept, 3 refused | 3 | 4 | 5 kept, and checked
    right = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0], [0, 0, 0]], dtype=bool)
    sure = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1]], dtype=bool)
    assert walk(right, sure) == (6, 4, 4, 3)
