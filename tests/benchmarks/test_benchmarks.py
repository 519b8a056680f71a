"""The benchmarks run and give their columns. How long anything takes is not for a test to say."""

import json
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmarks.decode import Judged, decode, setting
from benchmarks.decode_cli import decode_command
from benchmarks.decode_forced import Weights
from benchmarks.decode_studies import lossless_study, merged_study
from benchmarks.decode_ways import endless, read_prompts
from benchmarks.methods import METHODS, excerpt
from benchmarks.score import bundled_text, check_methods, timed
from benchmarks.train_step import STEPS, cut, peak_of_step, timed_steps
from model.errors import MicroStepError, TextError, TooLarge
from model.hub.loading import ModelSpec, load
from tests.support.tiny import save_tiny

PROMPTS = ["The quick brown fox", "She sold 48 clips in April"]

ROOT = Path(__file__).resolve().parents[2]


def command(*options, name="score"):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", name, *options], cwd=ROOT, capture_output=True, text=True, timeout=240
    )


def test_the_command_gives_a_table_and_json(tmp_path):
    model, out = save_tiny(tmp_path / "tiny", "llama"), tmp_path / "out.json"
    options = ["--tokens", "40", "--repeats", "2", "--method", "ours", "--out", str(out)]
    done = command("--model", str(model), *options)
    assert done.returncode == 0, done.stderr
    assert "x bare" in done.stdout and "peak MB" in done.stdout
    (report,) = json.loads(out.read_text())
    assert report["logits_bytes"] == 4 * report["tokens"] * report["vocabulary"]
    assert [row["method"] for row in report["rows"]] == ["bare", "ours"]
    for row in report["rows"]:
        assert row["note"] is None and row["peak_bytes"] >= 0
        assert len(row["seconds"]["each"]) == 2
        assert row["ratio"]["min"] <= row["ratio"]["median"] <= row["ratio"]["max"]
    assert report["rows"][0]["ratio"]["each"] == [1.0, 1.0]


def test_every_method_runs_or_says_why_not(tmp_path):
    model = save_tiny(tmp_path / "tiny", "gemma3_text", add_bos=True)
    report = timed(str(model), "float32", "cpu", bundled_text(50), 50, 1, check_methods(None))
    rows = {row["method"]: row for row in report["rows"]}
    assert list(rows) == [method.name for method in METHODS]
    for name, row in rows.items():
        assert (row["seconds"] is None) == (row["note"] is not None), row
        assert row["note"] is None or (name == "minicons" and "not installed" in row["note"])


@pytest.mark.parametrize("add_bos", [False, True])
def test_all_methods_read_the_same_tokens(tmp_path, add_bos):
    loaded = load(ModelSpec(str(save_tiny(tmp_path / "tiny", add_bos=add_bos)), device="cpu"))
    piece = excerpt(loaded, bundled_text(64), 64)
    assert 60 <= len(piece.ids) <= 64 and piece.fed.shape == (1, len(piece.ids))
    whole = loaded.tokenizer(piece.text)["input_ids"]
    assert whole == [*piece.prefix, *piece.ids.tolist()]
    assert bool(piece.prefix) == add_bos


def test_the_bundled_text_is_long_enough_and_always_the_same():
    assert len(bundled_text(1000)) >= 8000 and bundled_text(1000) == bundled_text(1000)


def test_a_wrong_name_is_one_line(tmp_path):
    with pytest.raises(MicroStepError, match="bare, discarded, ours, naive, minicons"):
        check_methods(["faster"])
    done = command("--method", "faster", "--out", str(tmp_path / "x.json"))
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "faster" in done.stderr
    assert not list(tmp_path.iterdir())
    assert command("--out", str(tmp_path / "x.csv")).returncode == 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("decode") / "tiny", "llama", chat=True))


def test_decode_writes_what_it_promises(folder, tmp_path):
    prompts, out = tmp_path / "x.jsonl", tmp_path / "out.json"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    options = ["--prompts", str(prompts), "--confidence", "0.5", "--max-new-tokens", "12", "--repeats", "1"]
    done = command("--model", folder, *options, "--out", str(out), name="decode")
    assert done.returncode == 0, done.stderr
    assert "untrained" in done.stdout and "prompt lookup" in done.stdout
    report = json.loads(out.read_text())
    assert report["tokens_per_macro_step"] >= 1 and report["speedup"] > 0
    assert 0 <= report["agreement"] <= 1 and report["nll_ratio"] > 0
    assert [row["way"] for row in report["rows"]] == ["base", "micro_step", "prompt lookup", "assisted"]
    for row in report["rows"]:
        assert row["note"] is None
        if row["way"] != "micro_step":  # greedy, all of them
            assert row["agreement"] == row["identical"] == 1 and row["nll_ratio"] == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("options", [{"confidence": 1.5}, {"confidence": 0.0, "verify": True}])
def test_answers_that_are_the_bases_own_are_said_to_be(folder, options):
    made = setting(folder, PROMPTS, 10, batch_size=2)
    report = decode(made, repeats=1, **options)
    mine, lookup = report["rows"][1:3]
    assert mine["identical"] == report["agreement"] == 1
    assert report["nll_ratio"] == pytest.approx(1, rel=1e-4)
    assert report["verify"] is options.get("verify", False)
    assert "one prompt at a time" in lookup["note"] and lookup["speedup"] is None
    if not report["verify"]:
        assert report["tokens_per_macro_step"] == 1


def test_answers_are_judged_as_the_base_reads_them(folder):
    base = load(ModelSpec(folder, device="cpu")).model
    prompts, answers = [[5, 6, 7], [8]], [[9, 10], [11, 12, 13]]
    nll, agreed = [], []
    for prompt, answer in zip(prompts, answers, strict=True):
        log_p = base(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
        nll += (-log_p[range(len(answer)), answer]).tolist()
        agreed += (log_p.argmax(-1) == torch.tensor(answer)).tolist()
    found = Judged.of(base, prompts, answers)
    assert found.nll == pytest.approx(sum(nll) / 5, rel=1e-5) and found.agreement == sum(agreed) / 5


def test_the_bound_is_the_designs():
    smollm2 = Weights(106_203_456, 28_311_552, 7_080_192, 28_311_552)
    assert [round(smollm2.merged_bound(k), 2) for k in (1, 1.5, 2, 3, 4)] == [1, 1.33, 1.58, 1.97, 2.24]
    cut_head = Weights(100, 50, 10, 5)
    assert cut_head.lossless_bound(2.2, 3) == pytest.approx(2.2 / (1 + 3 * 15 / 150))


def test_weights_are_counted_without_what_is_looked_up(folder):
    made = setting(folder, PROMPTS, 4, draft_words=100)
    found, base = Weights.of(made.ways.model), made.ways.base
    tied = base.get_input_embeddings().weight.numel()
    assert found.head == tied and found.body + tied == sum(p.numel() for p in base.parameters())
    assert found.draft_head == tied * 100 // 400


def test_lengths_are_forced_and_answers_have_all_their_tokens(folder):
    made = setting(folder, PROMPTS, 12, batch_size=2)
    rows = merged_study(made, [1, 1.5, 2, 4], 1)
    for row in rows:  # the last segment may be cut short
        assert row["tokens_per_macro_step"] == pytest.approx(row["length"])
        assert row["of_bound"] == pytest.approx(row["speedup"]["median"] / row["bound"])
        assert sum(row["parts"].values()) == pytest.approx(1)
    assert made.ways.model.generation_config.eos_token_id is not None
    with pytest.raises(MicroStepError, match="1 to 8 tokens"):
        merged_study(made, [9], 1)


def test_a_forced_length_asks_nothing_of_the_micro_decoder_in_vain(folder):
    from benchmarks.decode_forced import forced_length

    ways = endless((made := setting(folder, PROMPTS[:1], 12)).ways)
    (row,) = ways.segments(made.batches[0], rule=forced_length(1.5), confidence=0.0, verify=False).rows
    assert [len(segment) for segment in row.segments] == [1, 2] * 4
    assert row.micro_steps == 4 and set(row.why) == {"unsure", "limit"} and set(row.refused) == {None}


@pytest.mark.parametrize("rate, a_pass", [(0, 1), (1, 3)])
def test_drafts_agree_as_often_as_they_are_told_to(folder, rate, a_pass):
    made = setting(folder, PROMPTS, 13, batch_size=2)
    (row,) = lossless_study(made, [rate], [2], 1)
    assert row["identical"] == 1
    # the prompt's pass gives one token, each other one those that agree and one of its own
    assert row["tokens_per_macro_step"] == pytest.approx(13 / (1 + 12 / a_pass))
    with pytest.raises(MicroStepError, match="drafts 1 to 7"):
        lossless_study(made, [1], [8], 1)


def test_prompts_that_cannot_be_read_are_one_line(folder, tmp_path):
    path = tmp_path / "x.jsonl"
    for text, message in (('{"prompt": "a"}\n{"text": "b"}', "line 2"), ("plain", "line 1"), ("\n", "no prompts")):
        path.write_text(text)
        with pytest.raises(TextError, match=message):
            read_prompts(path)
    with pytest.raises(TooLarge, match="context of 512"):
        setting(folder, PROMPTS, 512)
    for options in ({"prompts": path}, {"forced": "two"}, {"rule": "hope"}, {"out": tmp_path / "x.csv"}):
        with pytest.raises(MicroStepError):
            decode_command(model=folder, **options)
    done = command("--model", str(tmp_path / "nothing"), "--out", str(tmp_path / "out.json"), name="decode")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ") and not (tmp_path / "out.json").exists()


def test_a_training_step_is_measured(folder):
    report = timed_steps(folder, 2, 24, 2.0, "bfloat16", 2)
    assert [row["step"] for row in report["rows"]] == [step.name for step in STEPS]
    assert report["rows"][0]["ratio"]["each"] == [1.0, 1.0] and 1 <= report["mean_length"] <= 4
    assert peak_of_step(folder, 2, 24, 2.0, "float32", "micro_step") >= 0


def test_all_training_steps_take_the_same_loss_of_single_tokens(folder):
    from benchmarks.train_step import _ready

    model, batch = _ready(folder, 2, 24, 1.0)
    assert batch.starts.all()
    model.config.stop_weight = 0.0
    losses = [step.loss(model, batch).item() for step in STEPS]
    assert losses == pytest.approx([losses[0]] * len(STEPS), rel=1e-5)


@pytest.mark.parametrize("mean", [1, 2, 3.5, 4])
def test_rows_are_cut_into_segments_of_the_mean_length(mean):
    starts = cut(20001, mean, random.Random(0))
    at = [i for i, start in enumerate(starts) if start]
    lengths = [b - a for a, b in pairwise(at)]
    assert starts[:2] == [True, True] and max(lengths) <= 4
    assert sum(lengths[1:]) / len(lengths[1:]) == pytest.approx(mean, rel=0.03)


# --- drafts


def test_passes_that_a_draft_saves_are_counted_without_writing(tmp_path):
    """The count from known answers is that of writing them, the pass that checks an answer's last tokens included."""
    import numpy as np

    from benchmarks.drafts import drafts, walk
    from data.training_rows import TokenRows
    from model.hub.loading import ModelSpec, load
    from model.micro_step.modeling import MicroStepForCausalLM

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
    learnt = np.tile(np.arange(26) >= 6, 4)
    rows = TokenRows(np.concatenate(ids), learnt, np.ones(104, dtype=bool), np.arange(0, 105, 26), np.arange(4))
    report = drafts(loaded, rows, tuple(passes), lambda message, fraction: None)
    for each in report["walks"]:
        assert each["tokens"] == tokens
        assert each["tokens_per_pass"][0] == pytest.approx(tokens / passes[each["tau"]])
    # by hand: tokens 0 | 1 2 kept, 3 refused | 3 | 4 | 5 kept, and checked
    right = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0], [0, 0, 0]], dtype=bool)
    sure = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1]], dtype=bool)
    assert walk(right, sure) == (6, 4, 4, 3)
