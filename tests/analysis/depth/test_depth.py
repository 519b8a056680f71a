"""Depth of one model and of two: identities with the ordinary comparison, and statistics worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.depth.answer import depth_answer
from analysis.depth.figures import FIGURES, TOKENS, draw
from analysis.depth.options import DepthView
from analysis.depth.request import DepthRequest, LensFile, lens_files
from analysis.depth.scores import LAYER_SCORES
from analysis.depth.statistics import (
    change_by_layer,
    counted,
    decided_in_bins,
    decided_shares,
    mean_by_layer,
    pooled,
    rank_correlation,
)
from analysis.depth.tables import layer_table, token_table
from analysis.query import Session
from analysis.stored_results.codec import StoredFile, write_npz
from analysis.uncertainty.compare import compare
from analysis.uncertainty.summary import summarise
from analysis.uncertainty.tables import cell_table
from model.errors import MicroStepError, ModelError, TextError
from model.hub.loading import ModelSpec, load
from model.text.document import Document, Message, TextInput
from tests.support.tiny import tiny_config, tiny_model, tiny_tokenizer

TEXT = "the cat sat on the mat\n  and ate 12 + 30 = 42 🦆 ducks. " * 3
CHAT = Document((Message("user", "the cat sat?"), Message("assistant", "It sat on the mat, and ate.")))


@pytest.fixture(scope="module")
def ask(models):
    return Session(load)


def depth_of(ask, models, *names, text=None):
    specs = tuple(zip("AB", (ModelSpec(str(models[name])) for name in names), strict=False))
    request = DepthRequest(specs, text or TextInput.plain(TEXT))
    return request, request.answered(ask(request.questions))


def test_the_last_layer_is_the_ordinary_comparison(ask, models):
    for b in ("sft", "other"):
        _, depth = depth_of(ask, models, "base", b)
        found = compare(*(ask.load(ModelSpec(str(models[name]))) for name in ("base", b)), TextInput.plain(TEXT))
        table = cell_table(found)
        for name in ("entropy", "confidence", "surprisal"):
            np.testing.assert_allclose(
                depth.change(name, "nats")[-1], table[f"{name}_difference"], rtol=1e-4, atol=1e-4
            )
            a, b_side = counted(depth)
            expected = summarise(found).mean(name)
            assert mean_by_layer(a, name, "nats").mean[-1] == pytest.approx(expected.a, rel=1e-4)
            gap = change_by_layer(a, b_side, name, "nats").at(-1)
            assert gap.mean == pytest.approx(expected.gap.mean, rel=1e-3, abs=1e-5)
            assert (gap.low, gap.high) == pytest.approx((expected.gap.low, expected.gap.high), rel=1e-3, abs=1e-4)


def test_a_model_against_itself_differs_nowhere_and_a_second_look_runs_nothing(ask, models):
    request, depth = depth_of(ask, models, "base", "base")
    assert all((depth.change(name, "nats") == 0).all() for name in LAYER_SCORES)
    again = request.answered(ask(request.questions))
    assert again.sides[0] is depth.sides[0]
    latest_a, latest_b = depth.decided_in_cells()
    np.testing.assert_array_equal(latest_a, latest_b)
    assert np.isfinite(latest_a).all()


def test_roles_and_the_missing_first_token_stay_out_of_the_means(ask, models):
    _, depth = depth_of(ask, models, "sft", text=TextInput(CHAT, chat=True))
    (side,), encoded = depth.sides, depth.sides[0].scored.encoded
    for role in ("all", "user", "assistant"):
        own = side.scored.content & ((encoded.role == role) | (role == "all"))
        (tokens,) = counted(depth, role)
        assert tokens.count == own.sum()
        np.testing.assert_allclose(
            mean_by_layer(tokens, "kl", "bits").mean, side.values("kl", "bits")[:, own].mean(1), rtol=1e-5
        )
        shares = decided_shares(tokens)
        assert shares.mean.sum() == pytest.approx(1)
        by_hand = [(side.decided[own] == layer).mean() for layer in range(side.count + 1)]
        np.testing.assert_allclose(shares.mean, by_hand, atol=1e-12)
    _, plain = depth_of(ask, models, "base")
    table = token_table(plain)
    assert len(table) == len(plain.sides[0].scored.encoded) * (plain.sides[0].count + 1)
    assert table[table["position"] == 0][[*LAYER_SCORES, "decided"]].isna().all().all()
    assert table[table["position"] > 0]["entropy"].notna().all()


def test_correlation_and_bins_are_those_of_the_tokens(ask, models):
    from scipy.stats import spearmanr

    _, depth = depth_of(ask, models, "base")
    (tokens,), (side,) = counted(depth), depth.sides
    own = side.scored.content
    entropy = side.scored.scores.entropy[own]
    found = rank_correlation(tokens, "entropy")
    assert found.mean == pytest.approx(spearmanr(entropy, side.decided[own]).statistic, abs=1e-5)
    assert not found.known or found.low <= found.mean <= found.high
    constant = replace(tokens, layers=replace(tokens.layers, final_rank=np.ones_like(tokens.layers.rank)))
    assert np.isnan(rank_correlation(constant, "entropy").mean)
    assert (constant.decided == 0).all()  # though the likeliest words differ by name: they are tied with the final one
    middle, means, _ = decided_in_bins(tokens, "entropy", "nats", 4)
    order = np.array_split(np.argsort(entropy, kind="stable"), 4)
    assert sorted(middle) == list(middle)
    sizes = [len(part) for part in order]
    assert sum(sizes) == tokens.count and np.average(means.mean, weights=sizes) == pytest.approx(
        side.decided[own].mean(), abs=0.1
    )


def test_documents_are_the_units_of_many_texts(ask, models):
    texts = [TextInput.plain(TEXT[at:]) for at in (0, 7, 20, 33)]
    depths = [depth_of(ask, models, "base", "sft", text=text)[1] for text in texts]
    a, b = pooled(depths)
    assert a.units.count == 4 and not a.units.in_order and a.count == sum(counted(each)[0].count for each in depths)
    each = [counted(depth)[0] for depth in depths]
    total = sum(part.by_layer("entropy", "nats").sum(0) for part in each)
    np.testing.assert_allclose(mean_by_layer(a, "entropy", "nats").mean, total / a.count, rtol=1e-6)
    assert a.bytes.sum() == sum(part.bytes.sum() for part in each) and change_by_layer(a, b, "kl", "nats").at(0).known


def test_layers_that_do_not_match_have_no_difference(ask, models, tmp_path):
    config = tiny_config("llama")
    config.num_hidden_layers = 2
    type(tiny_model("llama"))(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    _, depth = depth_of(ask, {**models, "short": tmp_path}, "base", "short")
    assert not depth.same_layers
    _, alone = depth_of(ask, models, "base")
    for name in ("strip", "heatmap"):
        with pytest.raises(MicroStepError, match="no model B"):
            draw(name, alone, DepthView(lens="b"))
    for make in (lambda: depth.change("entropy", "nats"), lambda: draw("heatmap", depth, DepthView(lens="change"))):
        with pytest.raises(MicroStepError, match="3 and 2 layers"):
            make()
    for name in FIGURES:
        assert len(draw(name, depth, DepthView()).data)
    assert "relative depth" in draw("layers", depth, DepthView()).figure.layout.xaxis.title.text
    bins = draw("agreement", depth, DepthView()).data
    for (key, own), side in zip(bins.groupby("model"), depth.sides, strict=True):  # equally many tokens in each bin
        assert own["decided"].mean() == pytest.approx(np.nanmean(side.decided) / side.count, abs=0.05), key
    table = layer_table(depth)
    assert "entropy_difference" not in table and table.groupby("model")["depth"].max().tolist() == [1, 1]


def test_a_heat_map_holds_a_window_around_what_is_pinned(ask, models):
    text = TextInput.plain(TEXT * 4)
    _, depth = depth_of(ask, models, "base", "sft", text=text)
    pinned = len(TEXT) * 3
    for view in (
        DepthView(pinned=pinned),
        DepthView(pinned=pinned, lens="change", theme="dark"),
        DepthView(start=30, lens="a"),
    ):
        drawn = draw("heatmap", depth, view)
        columns = drawn.data.groupby("model")["column"].nunique()
        assert (columns == TOKENS).all() and drawn.figure.data[0].z.shape == (4, TOKENS)
        if view.pinned is not None:
            inside = (drawn.data["start"] <= pinned) & (pinned < drawn.data["end"])
            assert inside.any()
        else:
            assert drawn.data["column"].min() == 30


def test_a_figure_computes_nothing_before_it_is_opened(ask, models, monkeypatch):
    _, depth = depth_of(ask, models, "base", "sft")
    monkeypatch.setattr("analysis.depth.figures.counted", None)
    assert all("lens" in draw(name, depth, DepthView()).caption for name in FIGURES if name != "strip")


def test_an_answer_can_be_stored(ask, models):
    _, depth = depth_of(ask, models, "base")
    (side,) = depth.sides
    back = StoredFile(write_npz({"side": (type(side), side)})).read("side", type(side))
    np.testing.assert_array_equal(back.layers.kl, side.layers.kl)
    np.testing.assert_array_equal(back.decided, side.decided)
    assert back.strings == side.strings


def test_costs_and_wrong_requests(ask, models):
    request, _ = depth_of(ask, models, "base")
    loaded = ask.load(request.models[0][1])
    cost = request.questions[0].cost(loaded)
    longer = DepthRequest(request.models, TextInput.plain(TEXT * 2)).questions[0].cost(loaded)
    assert longer.memory > cost.memory > 0 and longer.work > cost.work and cost.tokens < longer.tokens
    for wrong in (
        lambda: DepthRequest((), request.text),
        lambda: DepthView(score="nothing"),
        lambda: lens_files(None, "x", 1),
    ):
        with pytest.raises(MicroStepError):
            wrong()
    for path in ("/nowhere", "a\0b", "a" * 5000, "~nobody-of-this-name/lens"):
        with pytest.raises(ModelError, match="tuned lens"):
            LensFile.of(path)
    with pytest.raises(TextError):
        depth_answer(DepthRequest(request.models, TextInput.plain("")), DepthView(), ask.load)


@pytest.mark.parametrize("names", [("base",), ("base", "sft")])
def test_a_text_without_a_scored_token_has_empty_tables_and_figures(ask, models, names):
    """A text of one token, and a role that does not occur."""
    request, depth = depth_of(ask, models, *names, text=TextInput.plain("t"))
    answer = depth_answer(request, DepthView(), ask.load)
    assert "No token is scored" in answer.summary and answer.table["entropy"].isna().all()
    _, longer = depth_of(ask, models, *names)
    for name in FIGURES:
        for found, view in ((depth, DepthView()), (longer, DepthView(role="assistant"))):
            drawn = draw(name, found, view)
            assert drawn.figure.layout.height and drawn.data is not None
    if len(names) == 2:
        assert draw("heatmap", depth, DepthView(lens="change")).figure.layout.height
