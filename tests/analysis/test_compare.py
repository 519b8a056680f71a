"""Comparisons against slow, obvious computations, and identities of equal models."""

import numpy as np
import pandas as pd
import pytest

from analysis.document_file import document_file, read_document
from analysis.figures.theme import DIVERGING, SEQUENTIAL
from analysis.score_registry import SCORES, significant
from analysis.uncertainty.compare import compare, compare_continuations
from analysis.uncertainty.next_tokens import first_tokens, least_moved
from analysis.uncertainty.scoring import score_document, score_limited
from analysis.uncertainty.summary import NOTHING_SCORED, summarise
from analysis.uncertainty.tables import cell_table, summary_table, token_table
from model.errors import MicroStepError, TextError
from model.hub.loading import ModelSpec, load
from model.scoring.scores import Sampling
from model.text.document import Document, Message, TextInput

TEXT = "the cat sat on the mat\n  and ate 12 + 30 = 42 🦆 ducks. " * 3
CHAT = Document((Message("user", "the cat sat?"), Message("assistant", "It sat on the mat, and ate.")))


@pytest.fixture(scope="module")
def loaded(models):
    return {name: load(ModelSpec(str(folder))) for name, folder in models.items()}


def test_token_table_has_the_promised_columns(loaded):
    scored = score_document(loaded["base"], TextInput.plain(TEXT))
    table = token_table(scored)
    assert list(table.columns) == [
        "position", "token_id", "token", "start", "end", "role", "entropy", "confidence", "margin", "surprisal",
        "excess_surprisal", "rank", "unit",
    ]  # fmt: skip
    assert len(table) == len(scored.encoded) and pd.isna(table["rank"][0]) and np.isnan(table["entropy"][0])
    bits = token_table(scored, "bits")
    np.testing.assert_allclose(bits["entropy"][1:], table["entropy"][1:] / np.log(2))
    np.testing.assert_allclose(bits["confidence"][1:], table["confidence"][1:])


def test_one_tokenizer_is_compared_token_by_token(loaded):
    found = compare(loaded["base"], loaded["sft"], TextInput.plain(TEXT))
    assert found.divergences is not None and found.same_tokens
    table = cell_table(found, "nats")
    whole = (table["tokens_a"] == 1) & (table["tokens_b"] == 1)
    first = {int(s): i for i, s in enumerate(found.a.encoded.source_start)}
    for row in table[whole].itertuples():
        i = first[row.start]
        gap = found.b.scores.entropy[i] - found.a.scores.entropy[i]
        assert row.entropy_difference == pytest.approx(gap, rel=1e-5, abs=1e-6)
        assert row.kl_ab == pytest.approx(found.divergences.kl_ab[i], rel=1e-5, abs=1e-6)


def test_a_model_against_itself_differs_nowhere(loaded):
    found = compare(loaded["base"], loaded["base"], TextInput.plain(TEXT))
    assert np.nanmax(found.divergences.js) < 1e-6
    assert (cell_table(found)["entropy_difference"] == 0).all()
    summary = summarise(found)
    gap = summary.difference
    assert gap.mean == 0 and not gap.known
    assert "No clear difference" in summary.finding and "no difference" in summary.finding


def test_two_tokenizers_are_compared_in_common_cells(loaded):
    found = compare(loaded["base"], loaded["other"], TextInput.plain(TEXT))
    assert found.divergences is None
    summary, table = summarise(found, "bits"), cell_table(found, "bits")
    # bits per byte by hand: all of each model's surprisal in the cells over the bytes that they cover
    covered = "".join(TEXT[s:e] for s, e in zip(table["start"], table["end"], strict=True))
    assert summary.bytes_a == summary.bytes_b == len(covered.encode())
    by_hand = sum(
        s
        for s, a, b in zip(
            found.b.scores.surprisal, found.b.encoded.source_start, found.b.encoded.source_end, strict=True
        )
        if any(c <= a and b <= d for c, d in zip(table["start"], table["end"], strict=True))
    )
    assert summary.bits_per_byte.b == pytest.approx(by_hand / np.log(2) / summary.bytes_b, rel=1e-5)
    # A has no BOS: its first token, and with it the first cell, is out of the comparison for both
    assert table["start"].iloc[0] > 0 and np.isnan(found.a.scores.entropy[0])
    assert not np.isnan(found.b.scores.entropy[0])


def test_entropy_across_tokenizers_is_compared_per_byte(loaded):
    """The finer tokenizer has less entropy at each token; that once read as "more sure"."""
    one, two = (summarise(compare(loaded["base"], loaded[b], TextInput.plain(TEXT))) for b in ("sft", "other"))
    assert one.per == "token" and one.difference == one.mean("entropy").gap
    assert two.per == "byte" and two.difference == two.mean("entropy", "byte").gap and "per byte" in two.finding
    rate = two.mean("entropy", "byte")
    assert rate.a == pytest.approx(two.mean("entropy").a * two.tokens_a / two.bytes_a)
    # cutting one text twice as fine under the same total entropy halves the mean per token, not the rate per byte
    assert two.difference.mean == pytest.approx(rate.b - rate.a)


def test_roles_are_split_and_templates_left_out(loaded):
    found = compare(loaded["base"], loaded["sft"], TextInput(CHAT, chat=True))
    assert not found.a.encoded.chat and found.b.encoded.chat
    assert any("no chat template" in note for note in found.a.notes)
    table = summary_table(found)
    assert list(table["role"]) == ["all", "assistant", "user"]
    assert table["tokens_b"].iloc[0] == table["tokens_b"].iloc[1:].sum()
    for name in ("entropy_a", "entropy_b"):
        weighted = (table[name] * table[f"tokens_{name[-1]}"]).iloc[1:].sum() / table[f"tokens_{name[-1]}"].iloc[0]
        assert table[name].iloc[0] == pytest.approx(weighted)


def test_continuations_are_each_models_own(loaded):
    found = compare_continuations(
        loaded["base"], loaded["other"], TextInput.plain("the cat"), 12, Sampling(temperature=1.0, seed=3)
    )
    assert found.cells is None and found.a.generated <= 12
    summary = summarise(found, "bits")
    assert summary.tokens_a == found.a.generated and np.isnan(summary.bits_per_byte.a)
    assert summary.mean("entropy").a == pytest.approx(found.a.scores.entropy[-found.a.generated :].mean() / np.log(2))
    text = found.a.encoded.text[len("the cat") :]
    assert summary.bytes_a == len(text.encode())
    with pytest.raises(TextError, match="two continuations|aligned"):
        cell_table(found)
    with pytest.raises(TextError, match="ends with an answer"):
        compare_continuations(loaded["sft"], loaded["sft"], TextInput(CHAT, chat=True), 5)


def test_a_text_beyond_the_context_is_cut_and_says_so(loaded):
    limit = loaded["base"].facts.context_length
    scored = score_document(loaded["base"], TextInput.plain("cat " * 3 * limit))
    assert len(scored.encoded) == limit + 1  # the last token is scored but never read
    assert any(f"{limit:,}" in note for note in scored.notes)
    assert len(score_document(loaded["other"], TextInput.plain("cat " * 3 * limit)).encoded) == limit


def test_limited_history_names_its_method(loaded):
    scored = score_limited(loaded["base"], TextInput.plain(TEXT), 8, "strided", 4)
    assert "strided: between 8 and 11 tokens" in scored.notes[0]


def test_empty_texts_are_refused(loaded):
    with pytest.raises(TextError, match="empty"):
        score_document(loaded["base"], TextInput.plain(""))
    one = score_document(loaded["base"], TextInput.plain("a"))
    assert len(one.encoded) == 1 and one.scores.missing.all()
    lonely = compare(loaded["base"], loaded["other"], TextInput.plain("a"))
    assert len(lonely.cells) == 0 and summarise(lonely).finding == NOTHING_SCORED


def test_too_few_tokens_say_nothing(loaded):
    """Of a text of five tokens a difference used to be claimed in one case of four where there was none."""
    summary = summarise(compare(loaded["base"], loaded["sft"], TextInput.plain("a b c")))
    assert 2 <= summary.tokens_a < 10 and summary.difference.mean != 0 and not summary.difference.clear
    assert summary.finding.startswith("Too few tokens")
    assert "no interval: too few tokens" in summary.finding and "nan" not in summary.finding
    assert np.isnan(summary_table(compare(loaded["base"], loaded["sft"], TextInput.plain("a b c"))).entropy_low).all()


def test_change_is_measured_against_slow_computations(loaded):
    """Surprise beyond expectation, rank change, and the probability that moved, from whole distributions."""
    text = TextInput.plain(TEXT)
    vocabulary = loaded["base"].facts.vocab_size
    found, whole = (compare(loaded["base"], loaded["sft"], text, k=k) for k in (10, vocabulary))
    table = cell_table(found, "nats")
    p = {}
    for side in ("a", "b"):
        scores = getattr(whole, side).scores
        p[side] = np.zeros((len(scores), vocabulary))
        np.put_along_axis(p[side], np.maximum(scores.topk_ids, 0), scores.topk_probability.astype(float), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = {s: p[s][np.arange(len(p[s])), found.a.encoded.ids] for s in "ab"}
        excess = -np.log(own["a"]) + np.nansum(p["a"] * np.log(p["a"]), axis=1)
    tv = np.abs(p["a"] - p["b"]).sum(1) / 2
    bound, exact = least_moved(found), least_moved(whole)
    one = np.flatnonzero((table["tokens_a"] == 1) & (table["tokens_b"] == 1))
    assert len(one) > 50
    for piece in one.tolist():
        i, j = first_tokens(found, piece)
        assert i == j
        row, rank = table.iloc[piece], {s: 1 + (p[s][i] > own[s][i]).sum() for s in "ab"}
        assert row.excess_surprisal_a == pytest.approx(excess[i], rel=1e-3, abs=1e-3)
        assert row.rank_change == pytest.approx(np.log10(rank["b"] / rank["a"]), abs=1e-6)
        assert row.tv == pytest.approx(tv[i], rel=1e-3, abs=1e-5)
        assert 0 <= bound[piece] <= tv[i] + 1e-6
        assert exact[piece] == pytest.approx(tv[i], rel=1e-3, abs=1e-4)


def test_the_finding_follows_the_score_and_the_measure(loaded):
    found = compare(loaded["base"], loaded["sft"], TextInput.plain(TEXT))
    for name, score in SCORES.items():
        summary = summarise(found, "bits", score=name)
        assert score.title in summary.finding
        rows = cell_table(found, "bits")
        by_hand = (rows[f"{name}_b"] * rows["tokens_b"] ** (not score.information)).sum() / rows["tokens_b"].sum()
        assert summary.mean(name).b == pytest.approx(by_hand, rel=1e-4)
    kl = summarise(found, "bits", measure="kl_ab")
    assert kl.finding.startswith("KL(A‖B)") and "bits per token" in kl.finding
    assert kl.change[1].mean == pytest.approx(cell_table(found, "bits")["kl_ab"].sum() / kl.tokens_a)


def test_text_is_readable_on_every_colour_of_every_scale():
    """One ink a theme: neighbouring cells of like colour never flip between black and white."""
    for theme in ("light", "dark"):
        for ramp in (SEQUENTIAL[theme], DIVERGING[theme]):
            stops = np.array(ramp) / 255
            at = np.linspace(0, len(stops) - 1, 255)
            fill = np.stack([np.interp(at, np.arange(len(stops)), stops[:, i]) for i in range(3)], axis=1)
            linear = np.where(fill <= 0.04045, fill / 12.92, ((fill + 0.055) / 1.055) ** 2.4)
            light = linear @ [0.2126, 0.7152, 0.0722] + 0.05
            contrast = light / 0.05 if theme == "light" else 1.05 / light
            assert contrast.min() >= 4.5


def test_documents_from_files():
    assert read_document(b"\xef\xbb\xbfhi", "a.txt") == Document.plain("hi")
    assert [read_document(content, "a.txt").text for content in (b"", b"a\0b")] == ["", "a\0b"]
    with pytest.raises(TextError, match="not UTF-8.*byte 1"):
        read_document(b"a\xff\xfe", "a.txt")
    for broken in (b"{", b"[]", b'{"messages": [{"role": "pope", "content": ""}]}', b'{"messages": 3}'):
        with pytest.raises(TextError):
            read_document(broken, "a.json")
    name, content = document_file(CHAT)
    assert read_document(content, name) == CHAT


def test_units_and_rounding():
    assert SCORES["entropy"].top("nats") == pytest.approx(8 * np.log(2))
    assert SCORES["confidence"].shade(np.array([1.0, 0.25]), "bits").tolist() == [0.0, 0.75]
    assert [significant(x) for x in (0, 1234.5, 0.012345, 9.999, 4.0312e-11, float("nan"))] == [
        "0", "1230", "0.0123", "10.0", "4.03e-11", "missing",
    ]  # fmt: skip
    with pytest.raises(MicroStepError, match="top-p"):
        Sampling(top_p=2)
