"""Macro attention by blocks against transformers' own whole arrays, and every figure against plain NumPy in float64."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, GptOssConfig

from analysis.attention import layer as layer_module
from analysis.attention import maps as maps_module
from analysis.attention import overview as overview_module
from analysis.attention.answer import AttentionMaps
from analysis.attention.layer import layer_attention
from analysis.attention.maps import MapWindow, SegmentRows, cells, received, row, window
from analysis.attention.overview import overview
from analysis.attention.passes.attend import attend, encode_whole, read
from analysis.attention.passes.pooler import Pooler
from analysis.attention.pooling import PooledGrid
from analysis.attention.positions import AttentionPositions
from analysis.attention.request import LayerQuery, OverviewQuery, PositionsQuery
from analysis.attention.result import AttentionRequest, AttentionView, check_comparable
from analysis.attention.rollout import rollout
from analysis.attention.statistics import STATISTICS
from analysis.segmentation.strategy import Segmenter, Strategy
from model.errors import MicroStepError, TooLarge
from model.hub.loading import LoadedModel, ModelSpec, load
from model.hub.model_info import MicroStepInfo
from model.text.document import Document, TextInput
from tests.support.micro_steps import micro_step
from tests.support.tiny import FAMILIES, save_tiny, tiny_model, tiny_tokenizer

TEXT = "the cat sat on the mat, and the cat sat on the dog, and the dog sat on"


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """Facts of some model, for readings that are made by hand."""
    return load(ModelSpec(str(save_tiny(tmp_path_factory.mktemp("facts") / "llama")))).facts


def wrapped(model, facts, add_bos=False):
    return LoadedModel(ModelSpec("tiny"), facts, model, tiny_tokenizer(add_bos=add_bos))


def reading_of(loaded, text=TEXT, every=3):
    encoded, notes = encode_whole(loaded, TextInput.plain(text))
    return read(loaded, encoded, np.arange(len(encoded)) % every == 0, "test", notes)


def eager(model, reading):
    """[L, H, P, P] as transformers gives it, in float64."""
    ids = np.concatenate([np.asarray(reading.encoded.prefix, dtype=np.int64), reading.encoded.ids])
    model.set_attn_implementation("eager")
    with torch.no_grad():
        found = model(torch.as_tensor(ids)[None], output_attentions=True).attentions
    return np.stack([each[0].double().numpy() for each in found])


def double(family):
    """The same model computing in float64."""
    return tiny_model(family).double()


@pytest.mark.parametrize(("family", "bos"), [(name, i % 2 == 1) for i, name in enumerate(FAMILIES)])
def test_every_layer_and_head_equals_eager_attention(family, bos, facts, monkeypatch):
    monkeypatch.setattr(overview_module, "_BLOCK_ELEMENTS", 4 * 30 * 7)  # blocks of some 7 queries
    monkeypatch.setattr(maps_module, "_BLOCK_ELEMENTS", 30 * 5)
    loaded = wrapped(tiny_model(family), facts, bos)
    reading = reading_of(loaded)
    truth, precise = eager(tiny_model(family), reading), eager(double(family), reading)
    everything = MapWindow.of(len(reading))
    for layer in range(3):
        found = layer_attention(loaded, reading, layer)
        for head in range(4):
            weights = np.nan_to_num(window(found.rows_of(head), everything))
            np.testing.assert_allclose(weights, truth[layer, head], rtol=1e-5, atol=5e-6)
            np.testing.assert_allclose(weights, precise[layer, head], atol=2e-4)
        mean = np.nan_to_num(window(found.rows_of(None), everything))
        np.testing.assert_allclose(mean, truth[layer].mean(0), rtol=1e-5, atol=5e-6)
    found = overview(loaded, reading, keep=2)
    np.testing.assert_allclose(
        np.nan_to_num(found.maps), truth, rtol=1e-5, atol=5e-6
    )  # a cell a weight, of a text this short
    assert found.kept is not None and found.step == 1
    kept = np.nan_to_num(window(found.kept.rows_of(1), everything))
    np.testing.assert_allclose(kept, truth[2, 1], rtol=1e-5, atol=5e-6)
    expected = slow_statistics(truth, reading, found_window(family))
    np.testing.assert_allclose(found.statistics, expected, atol=2e-4, rtol=2e-4)


def found_window(family):
    """Which layers of the tiny models see the last 8 keys only."""
    return {"gemma2": (0, 2), "gemma3_text": (0, 1), "mistral": (0, 1, 2)}.get(family, ())


def slow_statistics(truth, reading, windowed=()):
    """[S, L, H] by the definitions, query by query."""
    layers, heads, n, _ = truth.shape
    segment, starts, kinds = reading.segment, reading.starts, reading.kinds
    out = np.full((len(STATISTICS), layers, heads), np.nan)
    for layer in range(layers):
        for head in range(heads):
            values = {name: [] for name in STATISTICS}
            for q in range(1, n):
                first = max(0, q - 7) if layer in windowed else 0
                keys = np.arange(n)
                a = truth[layer, head, q]
                p = a[first : q + 1] / a.sum()
                entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
                values["evenness"].append(entropy / np.log(q + 1 - first))
                values["support"].append(np.exp(entropy))
                values["sink"].append(a[0])
                values["current"].append(a[segment == segment[q]].sum())
                if segment[q] > 0:
                    values["previous"].append(a[segment == segment[q] - 1].sum())
                values["boundaries"].append(a[starts].sum())
                values["distance"].append((a / a.sum() * (q - keys)).sum())
                after = [k for k in range(1, q + 1) if kinds[k - 1] == kinds[q]]
                if after:
                    values["induction"].append(a[after].sum())
            out[:, layer, head] = [np.mean(each) if each else np.nan for each in values.values()]
    return out


def test_learned_sinks_leave_less_than_one_and_statistics_say_so(facts):
    torch.manual_seed(0)
    config = GptOssConfig(
        vocab_size=400, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, num_local_experts=2, num_experts_per_tok=1, sliding_window=8,
        layer_types=["sliding_attention", "full_attention"], pad_token_id=0,
    )  # fmt: skip
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).float().eval().requires_grad_(False)
    for each in model.model.layers:
        each.self_attn.sinks.normal_(1, 1)
    loaded = wrapped(model, facts)
    reading = reading_of(loaded)
    found = overview(loaded, reading, keep=1)
    truth = eager(model, reading)
    assert truth.sum(-1).max() < 0.999
    np.testing.assert_allclose(np.nan_to_num(found.maps), truth, rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(found.statistics, slow_statistics(truth, reading, (0,)), atol=2e-4, rtol=2e-4)
    assert found.kept is not None
    np.testing.assert_allclose(
        np.nan_to_num(window(found.kept.rows_of(3), MapWindow.of(len(reading)))), truth[1, 3], rtol=1e-5, atol=5e-6
    )


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("bos", [False, True])
def test_a_model_that_merges_is_read_macro_step_by_macro_step(family, bos, facts):
    model = micro_step(family)
    micro = MicroStepInfo("merged", 4, "residual_softmax", 2, (1, 2, 3), False, None, None, False)
    loaded = wrapped(model, replace(facts, micro_step=micro), bos)
    reading = reading_of(loaded)
    assert reading.merged and len(reading) < len(reading.encoded)
    assert (reading.end - reading.begin)[0] == 1  # no macro step stands before the first position
    assert "".join(reading.words[reading.lead :]) == TEXT
    model.base.set_attn_implementation("eager")
    starts = np.concatenate([np.ones(reading.lead, dtype=bool), reading.token_starts])
    ids = np.concatenate([np.asarray(reading.encoded.prefix, dtype=np.int64), reading.encoded.ids])
    with torch.no_grad():
        out = model(torch.as_tensor(ids)[None], segment_starts=torch.as_tensor(starts)[None], output_attentions=True)
    truth = np.stack([each[0].double().numpy() for each in out.macro_attentions])
    found = overview(loaded, reading)
    np.testing.assert_allclose(np.nan_to_num(found.maps), truth, rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(found.of("boundaries"), 1, atol=1e-5)  # every macro step starts a segment
    lossless = replace(loaded, facts=replace(facts, micro_step=replace(micro, decoding="lossless")))
    again = read(lossless, reading.encoded, reading.token_starts, "test")
    assert not again.merged and "losslessly" in again.notes[-1]
    np.testing.assert_allclose(
        np.nan_to_num(overview(lossless, again).maps), eager(tiny_model(family), again), rtol=1e-5, atol=5e-6
    )


class Whole:
    """A map that is held, for tests."""

    def __init__(self, array):
        self.array, self.size = array, len(array)

    def rows(self, begin, end):
        return self.array[begin:end, :end]


def random_map(n, seed=0):
    array = np.tril(np.random.default_rng(seed).random((n, n)) ** 4).astype(np.float32)
    return array / array.sum(1, keepdims=True)


@pytest.mark.parametrize(("n", "most"), [(1, 4), (7, 7), (8, 3), (37, 8), (64, 64), (65, 64), (100, 10)])
@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize("block", [1, 5, 1000])
def test_pooling_by_blocks_equals_pooling_at_once(n, most, pool, block):
    array, grid = random_map(n), PooledGrid(n, most)
    pooler = Pooler(grid, pool, 1)
    for begin in range(0, n, block):
        end = min(n, begin + block)
        pooler.add(begin, torch.as_tensor(array[None, begin:end, :end]))
    found, step = pooler.done()[0], grid.step
    assert found.shape == (grid.side, grid.side) and grid.side <= most
    visible = np.tri(n, dtype=bool)
    for i in range(grid.side):
        for j in range(grid.side):
            part = slice(i * step, (i + 1) * step), slice(j * step, (j + 1) * step)
            seen = array[part][visible[part]]
            expected = np.nan if not len(seen) else seen.max() if pool == "max" else seen.mean(dtype=np.float64)
            np.testing.assert_allclose(found[i, j], expected, rtol=1e-5, atol=1e-6)
    whole = cells(Whole(array), MapWindow.of(n), most, pool)
    np.testing.assert_allclose(whole.weight, found, rtol=1e-5, atol=1e-6)
    assert whole.step == step


def test_mean_pooling_keeps_the_total(facts):
    array, grid = random_map(100), PooledGrid(100, 16)
    pooler = Pooler(grid, "mean", 1)
    pooler.add(0, torch.as_tensor(array[None]))
    assert np.nansum(pooler.done()[0] * grid.pairs) == pytest.approx(100, abs=1e-4)  # every row sums to one


@pytest.mark.parametrize(
    ("queries", "keys"), [((0, 30), (0, 30)), ((10, 17), (3, 9)), ((2, 5), (20, 29)), ((29, 30), (0, 1))]
)
def test_windows_rows_and_what_is_received(queries, keys):
    array = random_map(30)
    map_, part = Whole(array), MapWindow.of(30, queries, keys)
    later = np.arange(*keys) > np.arange(*queries)[:, None]
    np.testing.assert_array_equal(window(map_, part), np.where(later, np.nan, array[slice(*queries), slice(*keys)]))
    for pool in ("max", "mean"):
        coarse = cells(map_, part, 4, pool)
        fine = window(map_, part)
        step = coarse.step
        for i, j in np.ndindex(coarse.weight.shape):
            block = fine[i * step : (i + 1) * step, j * step : (j + 1) * step]
            seen = block[~np.isnan(block)]
            expected = np.nan if not len(seen) else seen.max() if pool == "max" else seen.mean()
            np.testing.assert_allclose(coarse.weight[i, j], expected, rtol=1e-5)
    np.testing.assert_array_equal(row(map_, 12), np.where(np.arange(30) > 12, np.nan, array[12]))
    expected = [array[k:, k].mean() for k in range(30)]
    np.testing.assert_allclose(received(map_), expected, rtol=1e-5)


@pytest.mark.parametrize("wrong", [(0, 0), (5, 4), (-1, 3), (0, 31)])
def test_windows_outside_of_a_map_are_refused(wrong):
    with pytest.raises(MicroStepError, match=r"within 0:30"):
        MapWindow.of(30, wrong)


def test_segments_sum_keys_and_average_queries():
    array = random_map(20)
    starts = np.isin(np.arange(20), [0, 1, 4, 5, 9, 13, 18])
    map_ = SegmentRows(Whole(array), starts)
    edges = [*np.flatnonzero(starts), 20]
    expected = np.array(
        [[array[a:b, c:d].sum(1).mean() for c, d in zip(edges, edges[1:])] for a, b in zip(edges, edges[1:])]  # noqa: B905
    )
    assert map_.size == 7
    np.testing.assert_allclose(np.nan_to_num(window(map_, MapWindow.of(7))), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(map_.rows(2, 5), expected[2:5, :5], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.nan_to_num(window(map_, MapWindow.of(7))).sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_rollout_equals_the_product_of_whole_matrices(family, facts, monkeypatch):
    monkeypatch.setattr("analysis.attention.rollout._BLOCK_ELEMENTS", 4 * 30 * 7)
    loaded = wrapped(tiny_model(family), facts)
    reading = reading_of(loaded)
    truth = eager(tiny_model(family), reading)
    product = np.eye(len(reading))
    for layer in range(3):
        product = (truth[layer].mean(0) + np.eye(len(reading))) / 2 @ product
        found = rollout(loaded, reading, layer)
        np.testing.assert_allclose(found.whole, product, rtol=1e-5, atol=5e-6)
        np.testing.assert_allclose(found.whole.sum(1), 1, atol=1e-5)
    monkeypatch.setattr("analysis.attention.rollout.available_memory", lambda device: 100)
    with pytest.raises(TooLarge, match="shorten the text"):
        rollout(loaded, reading, 0)


def test_blocks_of_any_size_give_the_same(facts, monkeypatch):
    loaded = wrapped(tiny_model("gemma2"), facts, True)
    reading = reading_of(loaded, TEXT * 5)
    whole = overview(loaded, reading, pool="mean")
    for size in (1, 4 * len(reading) * 3, 1 << 30):
        monkeypatch.setattr(overview_module, "_BLOCK_ELEMENTS", size)
        found = overview(loaded, reading, pool="mean")
        np.testing.assert_allclose(found.maps, whole.maps, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.statistics, whole.statistics, rtol=1e-5, atol=1e-6)


def test_the_pass_ends_at_the_last_layer_and_leaves_the_model_as_it_was(facts):
    model = tiny_model("llama")
    loaded = wrapped(model, facts)
    reading, seen, told = reading_of(loaded), [], []
    attend(loaded, reading, [1], lambda *_: None)  # what is found out about a model once is kept on it
    ran = []
    for i, each in enumerate(model.model.layers):
        each.mlp.register_forward_hook(lambda *_, i=i: ran.append(i))
    before = [(name, len(vars(module))) for name, module in model.named_modules()]
    attend(loaded, reading, [1], lambda layer, _: seen.append(layer), told.append)
    assert seen == [1] and ran == [0] and told == sorted(told) and told[-1] == 1
    assert before == [(name, len(vars(module))) for name, module in model.named_modules()]
    held = layer_module.layer_attention(loaded, reading, 2).attended
    assert sum(p.numel() for p in held.module.parameters()) == 0  # what is kept of a layer holds no weights
    for wrong in ([3], [-1], []):
        with pytest.raises(MicroStepError, match="layer must be from 0 to 2"):
            attend(loaded, reading, wrong, lambda *_: None)
    with pytest.raises(MicroStepError, match="head must be from 0 to 3"):
        layer_attention(loaded, reading, 0).rows_of(4)


@pytest.mark.parametrize("text", ["a", "ab cd"])
def test_short_texts(text, facts):
    loaded = wrapped(tiny_model("llama"), facts)
    reading = reading_of(loaded, text)
    found = overview(loaded, reading)
    assert found.maps.shape[:2] == (3, 4) and found.statistics.shape == (len(STATISTICS), 3, 4)
    if len(reading) == 1:
        assert np.isnan(found.statistics).all() and found.maps[0, 0, 0, 0] == 1


def test_a_text_longer_than_the_context_is_cut_and_said(facts):
    loaded = wrapped(tiny_model("gpt2"), facts, True)
    reading = reading_of(loaded, TEXT * 60)
    assert len(reading) == 512 and "context ends at 512" in reading.notes[-1]


def test_words_and_places_of_positions(facts):
    loaded = wrapped(tiny_model("llama"), facts, True)
    reading: AttentionPositions = reading_of(loaded)
    assert reading.words[0] == "BOS" and reading.source[0].tolist() == [-1, -1]
    for p, (a, b) in enumerate(reading.source[1:].tolist(), 1):
        assert TEXT[a:b] == reading.words[p] and reading.at(a) == p
    assert reading.at(None) is None and reading.at(10_000) is None
    same = [[reading.words[i] == reading.words[j] for j in range(1, 9)] for i in range(1, 9)]
    kinds = reading.kinds[1:9]
    assert same == (kinds[:, None] == kinds).tolist()


@pytest.fixture(scope="module")
def pair(models):
    specs = ModelSpec(str(models["base"])), ModelSpec(str(models["sft"]))
    loaded = {spec: load(spec) for spec in specs}
    return specs, loaded.__getitem__


def test_questions_are_answered_as_their_functions_do(pair):
    (spec, _), give = pair
    asked = PositionsQuery(
        "A", spec, TextInput.plain(TEXT), segmenter=Segmenter(Strategy.of("entropy", {"threshold": 2.0}))
    )
    reading = asked.run(give)
    found = OverviewQuery(asked).run(give, None, reading)
    assert found.reading is reading and asked.cost(give(spec)).work > 0
    assert PositionsQuery("A", spec, TextInput.plain(TEXT)).cost(give(spec)).work == 0  # words need no run
    np.testing.assert_allclose(
        np.nan_to_num(window(LayerQuery(asked, 1).run(give).rows_of(2), MapWindow.of(len(reading)))),
        np.nan_to_num(found.maps[1, 2]),
        rtol=1e-5,
        atol=1e-6,
    )


def test_word_segments_without_scores_are_those_of_the_segmentation(pair):
    from analysis.segmentation.single import gather
    from model.segmentation.segment import segment

    (spec, _), give = pair
    document = Document.plain(TEXT)
    for strategy in (Strategy.of("word"), Strategy.of("fixed", {"k": 3})):
        found = PositionsQuery("A", spec, TextInput(document), segmenter=Segmenter(strategy)).run(give)
        usual = gather(give(spec), TextInput(document), Segmenter(strategy))
        expected = segment(strategy.name, usual.inputs, 4, **strategy.parameters).starts
        np.testing.assert_array_equal(found.token_starts, expected)


def test_the_difference_is_bs_minus_as(pair):
    (a, b), give = pair
    document, view = Document.plain(TEXT), AttentionView(layer=1, head=2, pinned=20)
    both = AttentionMaps(AttentionRequest((("A", a), ("B", b)), TextInput(document)), give).result(view, "map")
    each = [
        AttentionMaps(AttentionRequest((pair_,), TextInput(document)), give).result(view, "map")
        for pair_ in (("A", a), ("B", b))
    ]
    np.testing.assert_allclose(
        both.cells().weight, each[1].cells().weight - each[0].cells().weight, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(both.spread()[0], each[1].spread()[0] - each[0].spread()[0], rtol=1e-5, atol=1e-6)
    assert both.query == each[0].query == both.reading.at(20)
    both = AttentionMaps(AttentionRequest((("A", a), ("B", b)), TextInput(document)), give).result(view, "statistics")
    each = [
        AttentionMaps(AttentionRequest((pair_,), TextInput(document)), give).result(view, "statistics")
        for pair_ in (("A", a), ("B", b))
    ]
    np.testing.assert_allclose(
        both.statistic("distance"), each[1].statistic("distance") - each[0].statistic("distance"), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("turned", [False, True])
def test_segments_are_subtracted_from_the_same_segments(pair, turned):
    """Each model's own scores cut its own text: 92% of rows were other words, and with B first it was an IndexError."""
    models, give = pair
    specs = dict(zip("ba" if turned else "ab", models, strict=True))
    strategy, document = Strategy.parse("entropy_rise:threshold=0"), Document.plain(TEXT)
    view = AttentionView(layer=1, source="mean", level="segments")
    request = AttentionRequest(
        (("A", specs["a"]), ("B", specs["b"])), TextInput(document), segmenter=Segmenter(strategy)
    )

    both = AttentionMaps(request, give).result(view, "map")
    a, b = (side.reading for side in both.sides)
    own = [
        PositionsQuery("A", specs[key], TextInput(document), segmenter=Segmenter(strategy)).run(give) for key in "ab"
    ]
    assert not np.array_equal(own[0].token_starts, own[1].token_starts)
    np.testing.assert_array_equal(b.token_starts, a.token_starts)
    np.testing.assert_array_equal(a.token_starts, own[0].token_starts)
    maps = [SegmentRows(layer_attention(give(specs[key]), a, 1).rows_of(None), a.starts) for key in "ab"]
    slow = maps[1].rows(0, maps[1].size).astype(np.float64) - maps[0].rows(0, maps[0].size)
    np.testing.assert_allclose(np.nan_to_num(both.cells().weight), slow, rtol=1e-5, atol=1e-6)
    assert "".join(both.names()).replace("BOS", "") == TEXT and "under A" in b.strategy
    with pytest.raises(MicroStepError, match="B − A needs the same segments"):
        check_comparable(own[0], own[1])


def test_models_that_cut_differently_are_not_subtracted(models):
    specs = (("A", ModelSpec(str(models["base"]))), ("B", ModelSpec(str(models["other"]))))
    with pytest.raises(MicroStepError, match="same tokenizer"):
        AttentionMaps(AttentionRequest(specs, TextInput.plain(TEXT)), load).result(AttentionView(), "map")


# --- the command line


def test_the_command_writes_one_map_as_transformers_gives_it(command, models, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(models["other"], attn_implementation="eager")
    tokenizer = load(ModelSpec(str(models["other"]))).tokenizer
    ids = torch.tensor([tokenizer(TEXT)["input_ids"]])
    with torch.no_grad():
        truth = model(ids, output_attentions=True).attentions[2][0, 3].numpy()
    words = ("attention", "--model", models["other"], "--text", TEXT, "--layer", 2)
    code, said, _ = command(*words, "--head", 3, "--out", tmp_path / "x.npz")
    assert code == 0 and said.strip().endswith("x.npz")
    with np.load(tmp_path / "x.npz") as held:
        assert held["attention"].dtype == np.float32
        np.testing.assert_allclose(held["attention"], truth, rtol=1e-5, atol=5e-6)
        assert held["tokens"][0] == "BOS" and len(held["tokens"]) == len(truth) == len(held["starts"])
        assert '"layer": 2' in str(held["facts"])
    parts = ("--queries", "5:9", "--keys", "2:4")
    assert command(*words, "--head", 3, *parts, "--out", tmp_path / "y.npz")[0] == 0
    with np.load(tmp_path / "y.npz") as held:
        np.testing.assert_allclose(held["attention"], truth[5:9, 2:4], rtol=1e-5, atol=5e-6)
    assert command(*words, "--source", "rollout", "--level", "segments", "--out", tmp_path / "z.npz")[0] == 0
    with np.load(tmp_path / "z.npz") as held:
        assert held["attention"].shape[0] == held["starts"].sum()
        np.testing.assert_allclose(held["attention"].sum(1), 1, atol=1e-5)


def test_the_command_gives_statistics_as_a_table(command, models, tmp_path):
    words = ("attention", "--model", models["base"], "--text", TEXT)
    code, said, _ = command(*words)
    assert code == 0 and "induction" in said and "Means over queries" in said
    assert command(*words, "--layer", 1, "--head", 0, "--head", 2, "--out", tmp_path / "s.csv")[0] == 0
    table = pd.read_csv(tmp_path / "s.csv")
    assert table[["layer", "head"]].to_numpy().tolist() == [[1, 0], [1, 2]]
    assert list(table.columns) == ["layer", "head", *(each.column for each in STATISTICS.values())]
    assert command("attention", "--help")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--layer", 9, "--out", "X.npz"), "layer must be from 0 to 2"),
        (("--layer", 0, "--head", 9, "--out", "X.npz"), "head must be from 0 to 3"),
        (("--out", "X.npz"), "give one --layer"),
        (("--layer", 0, "--layer", 1, "--out", "X.npz"), "give one --layer"),
        (("--layer", 0, "--queries", "5-9", "--out", "X.npz"), "0:100"),
        (("--layer", 0, "--queries", "5:900", "--out", "X.npz"), "within 0:"),
        (("--layer", 0, "--head", 1, "--source", "rollout", "--out", "X.npz"), "leave --head out"),
        (("--queries", "0:3"), "apply to a map"),
        (("--out", "X.png"), "unknown format"),
        (("--strategy", "nothing"), "no segmentation rule"),
    ],
)
def test_wrong_input_ends_with_one_line_and_no_file(command, models, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    code, _, lines = command("attention", "--model", models["base"], "--text", TEXT, *words)
    assert code != 0 and said in lines[-1] and "Traceback" not in "".join(lines)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("figure", ["maps", "statistics", "map", "row"])
def test_figures_are_made_by_the_command(command, models, tmp_path, figure):
    words = ("attention", "--figure", figure, "--a", models["base"], "--b", models["sft"], "--text", TEXT, "--layer", 1)
    assert command(*words, "--pinned", 9, "--out", tmp_path / "x.csv")[0] == 0
    assert len(pd.read_csv(tmp_path / "x.csv")) > 3
    assert command(*words, "--shown", "sink", "--level", "segments", "--out", tmp_path / "x.html")[0] == 0
    assert "plotly" in (tmp_path / "x.html").read_text("utf-8")
