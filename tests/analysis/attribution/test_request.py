"""The request for an attribution, and the command line: costs, progress, refusals, files."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.attribution import methods
from analysis.attribution.faithfulness import ROWS
from analysis.attribution.methods import attribute
from analysis.attribution.request import AttributionRequest, SegmentsQuery, default_target
from analysis.attribution.targets import problem
from analysis.segmentation.strategy import Segmenter, Strategy
from analysis.uncertainty.scoring import encode_for, score_document
from model.errors import MicroStepError, TooLarge
from model.hub.loading import ModelSpec, load
from model.text.document import TextInput
from tests.support.tiny import save_tiny

TEXT = "the cat sat on the mat,\nand the dog sat on the cat"


@pytest.fixture(scope="module")
def tiny(models):
    return load(ModelSpec(str(models["base"])))


def asked(loaded, **more):
    """A request of one model, and its answer."""
    request = AttributionRequest((("A", loaded.spec),), TextInput.plain(TEXT), **{"at": 9, **more})
    return request, request.run(lambda _: loaded)


def test_a_request_says_what_it_costs_tells_its_progress_and_stops(tiny):
    request = AttributionRequest((("A", tiny.spec),), TextInput.plain(TEXT), 9, method="feature_ablation")
    cost = request.cost(tiny)
    assert cost.tokens == 9 and cost.memory > 0
    assert cost.work == pytest.approx((10 + ROWS) * (tiny.facts.parameters * 9 + 3 * 32 * 81))
    gradients = replace(request, method="integrated_gradients").cost(tiny)
    assert gradients.memory > cost.memory
    assert gradients.work == pytest.approx((992 * 3 + ROWS) / (10 + ROWS) * cost.work)  # all doublings
    told = []
    request.run(lambda _: tiny, told.append)
    assert told == sorted(told) and told[-1] == 1.0 and len(told) > 2

    class Stopped(Exception):
        pass

    def stop(share):
        raise Stopped

    with pytest.raises(Stopped):
        request.run(lambda _: tiny, stop)
    assert hash(request) == hash(replace(request)) and request == replace(request)


def test_gradients_that_do_not_converge_are_said_to(tiny, monkeypatch):
    assert not any("converge" in note for note in asked(tiny)[1].notes)
    monkeypatch.setattr(methods, "CLOSE", 1e-12)
    monkeypatch.setattr(methods, "FLOAT_ERROR", 0.0)
    monkeypatch.setattr(methods, "MOST_STEPS", 64)
    found = asked(tiny)[1]
    assert found.found.steps == 64 and "did not converge in 64 steps" in found.notes[-1]


def test_the_default_target_is_the_most_open_token_with_something_before_it(tiny):
    scored = score_document(tiny, TextInput.plain(TEXT))
    assert default_target(scored, "entropy") == int(np.nanargmax(scored.scores.entropy))
    with pytest.raises(MicroStepError, match="no token at which"):
        default_target(score_document(tiny, TextInput.plain("a")), "entropy")


def test_segments_of_a_strategy_by_scores_or_by_text(tiny):
    count = len(encode_for(tiny, TextInput.plain(TEXT)))
    by_text = SegmentsQuery("A", tiny.spec, TextInput.plain(TEXT), segmenter=Segmenter(Strategy.parse("fixed:k=2.0")))
    assert by_text.run(lambda _: tiny).starts.tolist() == [i % 2 == 1 or i == 0 for i in range(count)]
    assert by_text.cost(tiny).work == 0
    by_score = replace(by_text, segmenter=Segmenter(Strategy.parse("entropy:threshold=3.0")))
    assert len(by_score.run(lambda _: tiny).starts) == count and by_score.cost(tiny).work > 0


def test_a_shipped_micro_step_model_by_request():
    loaded = load(ModelSpec("micro-step-tiny"))
    strategy = Strategy.parse("fixed:k=2.0")
    text = "Question: Tom has 12 apples and eats 5. How many are left? Answer: 7"
    request = AttributionRequest(
        (("A", loaded.spec),), TextInput.plain(text), 1, quantity="micro_confidence", segmenter=Segmenter(strategy)
    )
    scored, segments = score_document(loaded, TextInput.plain(text)), request.segments.run(lambda _: loaded)
    at = default_target(scored, "micro_confidence", segments)
    found = replace(request, at=at).run(lambda _: loaded)
    assert 0 < found.found.f_input <= 1 and np.isfinite(found.values).all()
    assert any("fixed:k=2" in note for note in found.notes), found.notes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quantity": "nothing"}, "unknown quantity"),
        ({"method": "lime"}, "unknown method"),
        ({"baseline": "grey"}, "unknown baseline"),
        ({"features": "words"}, "takes no features"),
        ({"quantity": "kl"}, "two models"),
        ({"quantity": "stop"}, "needs a strategy"),
        ({"segmenter": Segmenter()}, "reads no segments"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_before_any_model_is_loaded(tiny, change, said):
    with pytest.raises(MicroStepError, match=said):
        AttributionRequest((("A", tiny.spec),), TextInput.plain(TEXT), 5, **change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"at": 0}, "no token before"),
        ({"at": 999}, "there is no token 999"),
        ({"at": -1}, "there is no token -1"),
        ({"quantity": "stop", "segmenter": Segmenter()}, "needs a micro_step model"),
    ],
)
def test_a_token_or_model_without_the_quantity_is_refused(tiny, change, said):
    with pytest.raises(MicroStepError, match=said):
        asked(tiny, **change)


def test_kl_of_models_that_read_other_tokens_is_refused(tiny, models):
    other = load(ModelSpec(str(models["other"])))
    request = AttributionRequest((("A", tiny.spec), ("B", other.spec)), TextInput.plain(TEXT), 5, quantity="kl")
    with pytest.raises(MicroStepError, match="same tokenizer"):
        request.run({tiny.spec: tiny, other.spec: other}.__getitem__)


def test_what_does_not_fit_the_memory_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(methods, "available_memory", lambda device: 1000)
    with pytest.raises(TooLarge, match="MB"):
        asked(tiny)


def test_other_precisions_and_numbers_that_overflow(tmp_path):
    folder = save_tiny(tmp_path / "tiny", "gemma2")
    loaded = load(ModelSpec(str(folder), dtype="bfloat16"))
    _, found = asked(loaded)
    assert np.isfinite(found.values).all() and any("bfloat16" in note for note in found.notes)
    asking = problem([loaded], found.encoded, "entropy", 5)
    broken = replace(asking, score=lambda e: e.sum((1, 2)) / 0.0)
    with pytest.raises(MicroStepError, match="not finite"):
        attribute(broken, "input_x_gradient", "mean")


# --- the command line


def test_a_table_of_words_with_the_figures_of_the_run(models, command, tmp_path):
    out = tmp_path / "a.csv"
    code, said, errors = command(
        "attribute", "--model", models["base"], "--text", TEXT, "--at", 9, "--sum-over", "words", "--out", out
    )
    assert code == 0 and said.strip() == str(out)
    assert "on the baseline" in errors[-1] and "delta" in errors[-1] and "area" in errors[-1]
    table = pd.read_csv(out)
    assert list(table)[:4] == ["group", "text", "first_token", "last_token"] and table["last_token"].iloc[-1] == 8
    bits = tmp_path / "bits.json"
    words = ("attribute", "--model", models["base"], "--text", TEXT, "--at", 9, "--unit", "bits", "--out", bits)
    assert command(*words)[0] == 0
    tokens = pd.read_json(bits)
    assert len(tokens) == 9
    assert (set(table["unit"]), set(tokens["unit"])) == ({"nats"}, {"bits"})
    assert tokens["attribution"].sum() * np.log(2) == pytest.approx(table["attribution"].sum(), rel=1e-5)


def test_without_a_token_the_most_open_one_is_taken_and_the_table_is_shown(models, command):
    code, said, _ = command("attribute", "--model", models["base"], "--text", TEXT, "--method", "input_x_gradient")
    assert code == 0 and "attribution" in said and "at token" in " ".join(said.split())


def test_kl_and_segments_from_the_command_line(models, command, tmp_path):
    out = tmp_path / "a.parquet"
    words = ["attribute", "--a", models["base"], "--text", TEXT, "--at", 9, "--method", "feature_ablation"]
    code, _, _ = command(
        *words,
        "--b",
        models["sft"],
        "--quantity",
        "kl",
        "--sum-over",
        "segments",
        "--strategy",
        "fixed:k=3",
        "--out",
        out,
    )
    assert code == 0 and (pd.read_parquet(out)["last_token"] - pd.read_parquet(out)["first_token"]).max() == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--quantity", "kl"], "two models"),
        (["--at", "99"], "there is no token 99"),
        (["--features", "words"], "takes no features"),
        (["--method", "shapley_sampling", "--sum-over", "tokens"], "no sums over tokens"),
        (["--strategy", "nothing"], "no segmentation rule"),
        (["--out", "x.png"], "png"),
    ],
)
def test_mistakes_are_one_line(models, command, tmp_path, monkeypatch, more, said):
    monkeypatch.chdir(tmp_path)
    code, _, errors = command("attribute", "--model", models["base"], "--text", "the cat sat", *more)
    assert code != 0 and said in errors[-1] and not any("Traceback" in line for line in errors)
    assert list(tmp_path.iterdir()) == []


def test_figures_from_the_command_line(models, command, tmp_path):
    words = ["--a", models["base"], "--text", TEXT, "--at", 9, "--method", "feature_ablation"]
    for name in ("attribution", "units", "curves"):
        out = tmp_path / f"{name}.html"
        assert command("attribute", "--figure", name, *words, "--out", out)[0] == 0 and out.stat().st_size > 10_000
    code, _, errors = command("attribute", "--figure", "nothing", *words, "--out", tmp_path / "x.html")
    assert code != 0 and "unknown figure" in errors[-1]
