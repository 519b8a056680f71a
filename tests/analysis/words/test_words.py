"""Texts of a table go in, and words or tokens with all columns come out: equal to a direct computation in float64."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import micro_step as ms
from analysis.export import read_csv, save_table
from analysis.words import answer
from analysis.words.options import StimulusOptions
from analysis.words.pieces import TablePieces
from analysis.words.spans import region_spans, split_regions, token_words, word_spans
from analysis.words.stimuli import ROW, open_stimuli
from analysis.words.stored import store_pieces
from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.options import CorpusOptions
from data.corpus.scoring import score_corpus
from data.corpus.store import open_store
from model.errors import MicroStepError, TextError, TooLarge
from model.hub.loading import ModelSpec, load
from model.text.document import TextInput
from model.text.encoding import encode
from tests.support.tiny import CORPUS, save_tiny, tiny_tokenizer

PIECES = [" ", "  ", "\t", "\n", "\u3000", "a", "word", "don't", "日本", "🙂", "👩‍👩‍👧", "é", ".", "=f(x)", "\u00a0"]
texts = st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two tiny models: no BOS and bytes, BOS and sentencepiece."""
    folder = tmp_path_factory.mktemp("pair")
    save_tiny(folder / "a", "llama")
    save_tiny(folder / "b", "gemma2", add_bos=True, kind="sentencepiece", seed=1)
    return [load(ModelSpec(str(folder / name), device="cpu")) for name in "ab"]


def reference(loaded, text):
    """[(characters, surprisal, entropy)] of each token, one whole pass in float64; None before which nothing stands."""
    ids = loaded.tokenizer(text)["input_ids"]
    bos = loaded.tokenizer.bos_token_id if ids[0] == loaded.tokenizer.bos_token_id else None
    model = type(loaded.model)(loaded.model.config).double().eval()
    model.load_state_dict({name: value.double() for name, value in loaded.model.state_dict().items()})
    with torch.no_grad():
        log_p = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    scores = [(None, None)] if bos is None else []
    for t in range(1, len(ids)):
        p = log_p[t - 1]
        scores.append((-p[ids[t]].item(), -(p.exp() * p).sum().item()))
    encoded = encode(TextInput.plain(text), loaded.tokenizer)
    return [
        (a, b, surprisal, entropy)
        for (a, b), (surprisal, entropy) in zip(
            zip(encoded.start.tolist(), encoded.end.tolist(), strict=True), scores, strict=True
        )
    ]


def slow_words(text, spans, start, end):
    """The rule, token by token and character by character."""
    out = []
    for a, b in zip(start, end, strict=True):
        touched = [w for w, (s, e) in enumerate(spans) for i in range(a, b) if s <= i < e and not text[i].isspace()]
        if not touched:  # with the next word's first character, or with the last word
            after = [w for w, (s, e) in enumerate(spans) if any(not text[i].isspace() for i in range(max(s, a), e))]
            touched = [after[0] if after else len(spans) - 1]
        out.append((min(touched), max(touched)))
    return out


def summed(spans, tokens, text):
    """[W] surprisal of each word; None where one of its tokens has none."""
    owners = slow_words(text, spans, [t[0] for t in tokens], [t[1] for t in tokens])
    found = []
    for w in range(len(spans)):
        mine = [token[2] for token, (first, _) in zip(tokens, owners, strict=True) if first == w]
        found.append(None if not mine or None in mine else math.fsum(mine))
    return found


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts.filter(str.strip), st.booleans(), st.data())
def test_tokens_belong_to_words_as_the_slow_rule_says(text, sentencepiece, data):
    tokenizer = tiny_tokenizer(kind="sentencepiece" if sentencepiece else "bytelevel")
    encoded = encode(TextInput.plain(text), tokenizer)
    spans = word_spans(text)
    assert [text[a:b] for a, b in spans.tolist()] == text.split()
    cuts = data.draw(st.sets(st.integers(1, len(text) - 1))) if len(text) > 1 else set()
    edges = [0, *sorted(cuts), len(text)]
    pieces = [text[a:b] for a, b in zip(edges, edges[1:], strict=False) if text[a:b].strip()]
    for each in (spans, region_spans(text, [piece.strip() for piece in pieces])):
        first, last = token_words(text, each, encoded.start, encoded.end)
        expected = slow_words(text, each.tolist(), encoded.start.tolist(), encoded.end.tolist())
        assert list(zip(first.tolist(), last.tolist(), strict=True)) == expected


def test_forty_stimuli_come_out_with_two_models_words_and_all_columns(pair, tmp_path, command):
    """Quoted line breaks, a byte order mark, formulas, numbers with zeros in front: nothing of the file is lost."""
    rows = []
    for item in range(1, 21):
        for condition in "ab":
            text = f"{CORPUS[item % len(CORPUS)][:40].strip()} {condition}\n{item} 日本 🙂 end"
            words = text.split()
            region = "|".join([" ".join(words[:2]), *words[2:-1], words[-1]])
            rows.append([f"{item:03}", condition, text, region if "  " not in text else text, "=1+f(2)", ""])
    file, out = tmp_path / "stimuli.csv", tmp_path / "words.csv"
    with file.open("w", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream).writerows([["item", "condition", "sentence", "region", "note", "rt"], *rows])
    names = [loaded.spec.name for loaded in pair]
    code, *_ = command("score", "--a", names[0], "--b", names[1], "--data", file, "--column", "sentence",
                   "--id", "item,condition", "--out", out)  # fmt: skip
    assert code == 0
    table = read_csv(out, dtype={"item": "str", "word": "str"})
    assert list(table.columns[:6]) == ["item", "condition", "sentence", "region", "note", "rt"]
    assert set(table["note"]) == {"=1+f(2)"} and table["rt"].isna().all()
    for number, row in enumerate(rows):
        mine = table[table["document"] == number]
        assert set(mine["item"]) == {row[0]} and set(mine["sentence"]) == {row[2]}
        assert mine["word"].tolist() == row[2].split()
        for side, loaded in zip("ab", pair, strict=True):
            expected = summed(word_spans(row[2]).tolist(), reference(loaded, row[2]), row[2])
            values = np.array([np.nan if value is None else value for value in expected])
            np.testing.assert_allclose(mine[f"surprisal_{side}"].to_numpy(dtype=float), values, rtol=2e-4, atol=2e-4)
            assert (mine[f"missing_{side}"].notna() == np.isnan(values)).all()
    first = table[table["position"] == 0]
    assert first["surprisal_a"].isna().all() and set(first["missing_a"]) == {"no token stands before it"}
    assert first["surprisal_b"].notna().all()


def test_regions_of_a_cell_and_of_rows_are_the_same(pair):
    wide = pd.DataFrame(
        {"text": ["The quick  brown fox.", "日本語です"], "cut": ["The quick|brown | fox.", "日本|語です"]}
    )
    found = ms.score_table(pair[0], wide, regions="cut").table
    assert found["word"].tolist() == ["The quick", "brown", "fox.", "日本", "語です"]
    long = pd.DataFrame({"item": [7, 7, 7, 8], "word": ["The quick ", "brown", "fox.", "x y"], "rt": [1.5, 2, 3, 4]})
    by_rows = ms.score_table(pair[0], long, column="word", ids=["item"], rows="regions").table
    assert by_rows["rt"].tolist() == [1.5, 2, 3, 4] and by_rows["scored_word"].tolist()[0] == "The quick"
    one = ms.score_table(pair[0], pd.DataFrame({"text": ["The quick brown fox."]})).table
    assert by_rows["surprisal"].iloc[1] == pytest.approx(one["surprisal"].iloc[2], rel=1e-4)
    tokens = ms.score_table(pair[0], long, column="word", ids=["item"], rows="regions", by="token").table
    sums = tokens.groupby(["document", "word_position"])["surprisal"].sum(min_count=1)
    assert sums.loc[0, 1] == pytest.approx(by_rows["surprisal"].iloc[1])
    assert tokens.loc[(tokens["document"] == 0) & (tokens["word_position"] == 2), "rt"].unique().tolist() == [3]


def test_a_token_of_two_words_counts_with_the_first_and_is_told():
    spans = region_spans("unbelievable", ["unbe", "liev", "able"])
    first, last = token_words("unbelievable", spans, np.array([0, 2, 10]), np.array([2, 10, 12]))
    assert first.tolist() == [0, 0, 2] and last.tolist() == [0, 2, 2]


def test_a_shared_token_is_flagged_and_a_word_without_a_token_is_missing(pair):
    text = "The quick brown"
    pieces = encode(TextInput.plain(text), pair[0].tokenizer)
    long = next(i for i, (a, b) in enumerate(zip(pieces.start, pieces.end, strict=True)) if i and b - a >= 3)
    inside = int(pieces.start[long]) + 2
    table = ms.score_table(
        pair[0], pd.DataFrame({"text": [text], "cut": [f"{text[:inside]}|{text[inside:]}"]}), regions="cut"
    ).table
    assert table["shared_token"].tolist() == [True, True]
    assert table["tokens"].sum() == len(pieces)
    only = pd.DataFrame({"text": ["The quick"], "cut": ["The qui|ck"]})
    found = ms.score_table(pair[0], only, regions="cut").table
    assert (found["tokens"] > 0).tolist() == found["missing"].isin([None, "no token stands before it"]).tolist()


def test_a_store_gives_the_same_words_over_windows_and_its_columns(pair, tmp_path, command):
    file = tmp_path / "x.jsonl"
    file.write_text("".join(json.dumps({"text": text, "n": i, "tag": [i]}) + "\n" for i, text in enumerate(CORPUS)))
    for name, options in (("whole", {}), ("windows", {"windows": True, "max_tokens": 7, "shard_tokens": 30})):
        score_corpus(lambda: pair[1], open_corpus(CorpusSpec(str(file))), tmp_path / name, CorpusOptions(**options))
        assert command("corpus", "table", tmp_path / name, "--out", tmp_path / f"{name}.parquet")[0] == 0
    whole, windows = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("whole", "windows"))
    direct = ms.score_table(pair[1], file).table
    assert windows["word"].tolist() == whole["word"].tolist() == direct["word"].tolist()
    assert whole["n"].tolist() == direct["n"].tolist() and whole["tag"].iloc[-1] == "[7]"
    np.testing.assert_allclose(whole["surprisal"], direct["surprisal"], rtol=1e-3, atol=1e-3)
    assert windows["tokens"].tolist() == whole["tokens"].tolist()
    code, *_ = command("corpus", "table", tmp_path / "whole", "--against", tmp_path / "whole", "--by", "token",
                     "--out", tmp_path / "t.csv")  # fmt: skip
    assert code == 0
    table = read_csv(tmp_path / "t.csv")
    assert (table["surprisal_a"].dropna() == table["surprisal_b"].dropna()).all() and len(table) == whole[
        "tokens"
    ].sum()


@pytest.mark.parametrize(("form", "by"), [("csv", "word"), ("json", "token"), ("parquet", "token")])
def test_a_table_written_in_pieces_is_the_whole_table(pair, tmp_path, command, monkeypatch, form, by):
    """Kinds of columns are those of the whole file: 1 in the first piece stays 1.0 if 0.5 comes in the last."""
    file = tmp_path / "x.jsonl"
    others = [(1, None, "a"), (2, True, ["b"]), (0.5, None, 3), (None, False, None)] * 2
    rows = [{"text": t, "n": n, "yes": y, "unit": u} for t, (n, y, u) in zip(CORPUS, others, strict=True)]
    rows[-1]["late"] = "=f(x)"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = [pair[0].spec.name] * 2 if by == "token" else [loaded.spec.name for loaded in pair]
    whole = ms.score_table(names[0], file, names[1], by=by).table
    monkeypatch.setattr("analysis.words.answer.PIECE", 100)
    monkeypatch.setattr("analysis.words.stored.PIECE", 100)
    words = ("score", "--a", names[0], "--b", names[1], "--data", file, "--by", by)
    assert command(*words, "--out", tmp_path / f"t.{form}")[0] == 0
    _same(whole, tmp_path / f"t.{form}")
    for name, loaded in zip("ab", pair if by == "word" else pair[:1] * 2, strict=True):
        options = CorpusOptions(windows=True, max_tokens=7, shard_tokens=40 if name == "a" else 25)
        score_corpus(lambda loaded=loaded: loaded, open_corpus(CorpusSpec(str(file))), tmp_path / name, options)
    both = (tmp_path / "a", "--against", tmp_path / "b", "--by", by)
    made = store_pieces(tuple(open_store(tmp_path / name) for name in "ab"), by, "nats").made(None)
    assert command("corpus", "table", *both, "--out", tmp_path / f"s.{form}")[0] == 0
    _same(made.table, tmp_path / f"s.{form}")
    own = ["n", "yes", "unit", "late", "document"]
    pd.testing.assert_frame_equal(whole[own], made.table[own])


def _same(table, path):
    """The file is the table, but for rounding: batches are of other texts."""
    save_table(table, expected := path.with_name(f"whole{path.suffix}"))
    read = {".csv": read_csv, ".json": pd.read_json, ".parquet": pd.read_parquet}[path.suffix]
    pd.testing.assert_frame_equal(read(path), read(expected), rtol=1e-3, atol=1e-4)
    if path.suffix == ".csv":
        lines = [file.read_text("utf-8").splitlines()[0] for file in (path, expected)]
        assert lines[0] == lines[1]


def test_what_fails_in_a_later_piece_leaves_the_older_file(pair, tmp_path, command, monkeypatch):
    file, out = tmp_path / "x.csv", tmp_path / "t.csv"
    file.write_text("text\n" + "".join(f"{text.split()[0]}\n" for text in CORPUS))
    out.write_text("older")
    monkeypatch.setattr("analysis.words.answer.PIECE", 10)
    score, seen = answer.score_rows, []

    def breaks(*given):
        seen.append(given)
        if len(seen) == 3:
            raise TextError("broken")
        return score(*given)

    monkeypatch.setattr(answer, "score_rows", breaks)
    assert command("score", "--model", pair[0].spec.name, "--data", file, "--out", out)[0] == 1
    assert out.read_text() == "older" and {each.name for each in tmp_path.iterdir()} == {"x.csv", "t.csv"}
    code, _, told = command("score", "--model", pair[0].spec.name, "--data", file, "--out", file)
    assert code == 1 and "another --out" in told[-1]


def test_a_table_that_no_disk_holds_is_refused_before_it_is_made(pair, tmp_path, command):
    file = tmp_path / "x.csv"
    file.write_text("text,note\n" + "a " * 10_000 + f",{'n' * 1_000_000}\n")
    assert open_stimuli(file, StimulusOptions()).size == 10_000 * (20_000 + 1_000_000 + ROW)
    pieces = TablePieces(lambda: iter(()), 1, ["m"], "word", "nats", lambda: (), 10**18)
    with pytest.raises(TooLarge, match="parquet"):
        pieces.made(tmp_path / "t.csv")
    assert [each.name for each in tmp_path.iterdir()] == ["x.csv"]


def test_texts_beyond_the_context_are_missing_there_not_zero(pair):
    long = pd.DataFrame({"text": ["word and " * 400, "short text"]})
    result = ms.score_table(pair[0], long)
    table = result.table[result.table["document"] == 0]
    cut = table["missing"] == "beyond the context"
    assert cut.any() and table.loc[cut, "surprisal"].isna().all() and (table["tokens"][~cut] > 0).all()
    assert any("beyond the context" in note for note in result.notes)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ({"text": ["a b", " "]}, {}, "row 2: the text is empty"),
        ({"text": ["a b", None]}, {}, "row 2: the text is empty"),
        ({"text": ["a b"]}, {"column": "sentence"}, "no column 'sentence'"),
        ({"text": ["a b"]}, {"ids": ["item"]}, "no column 'item'"),
        ({"text": ["a", "b"], "item": [1, 1]}, {"ids": ["item"]}, "row 2"),
        ({"text": ["a b"], "cut": ["a|c"]}, {"regions": "cut"}, "row 1: the text has 'b'"),
        ({"text": ["a b"], "cut": ["a"]}, {"regions": "cut"}, "goes on with 'b'"),
        ({"text": ["a b"], "cut": ["a||b"]}, {"regions": "cut"}, "none of them empty"),
        ({"text": ["a b"]}, {"rows": "regions"}, "needs --id"),
        ({"text": ["a", "b", "c"], "item": [1, 2, 1]}, {"ids": ["item"], "rows": "regions"}, "stand apart"),
        (
            {"text": ["a", "b"], "item": ["x", ""]},
            {"ids": ["item"], "rows": "regions"},
            "row 2: a cell of --id is empty",
        ),
        ({"text": ["a", "b"], "item": [np.nan, 1]}, {"ids": ["item"], "rows": "regions"}, "row 1: a cell of --id is"),
        ({"text": ["a"], "item": [pd.NA]}, {"ids": ["item"], "rows": "regions"}, "row 1: a cell of --id is empty"),
    ],
)
def test_what_cannot_be_scored_is_one_clear_message(pair, rows, options, message):
    with pytest.raises(MicroStepError, match=message):
        ms.score_table(pair[0], pd.DataFrame(rows), **options)


@pytest.mark.parametrize(
    ("lacking", "options", "message"),
    [
        ("item", {"ids": ["item"], "rows": "regions"}, "row 2: a cell of --id is empty"),
        ("cut", {"regions": "cut"}, "row 2: regions are texts"),
    ],
)
def test_a_json_record_without_a_column_that_is_needed_is_refused(pair, tmp_path, lacking, options, message):
    file = tmp_path / "texts.jsonl"
    file.write_text(json.dumps({"text": "a", lacking: "a"}) + '\n{"text": "b"}\n', encoding="utf-8")
    with pytest.raises(MicroStepError, match=message):
        ms.score_table(pair[0], file, **options)


def test_options_of_a_table_need_one(command):
    for words in (["--text", "a", "--by", "token"], ["--data", "x", "--text", "a"], ["--data", "x", "--history", "3"]):
        code, _, told = command("score", "--model", "tiny-base", *words)
        assert code == 1 and "--data" in told[-1]


def test_two_tokenizers_have_no_table_by_token(pair):
    with pytest.raises(TextError, match="--by word"):
        _ = ms.score_table(pair[0], pd.DataFrame({"text": ["The quick fox"]}), pair[1], by="token").table


def test_regions_are_split_at_bars_or_given_as_a_list():
    assert split_regions("a b | c|d ") == split_regions(["a b", " c", "d"]) == ["a b", "c", "d"]
