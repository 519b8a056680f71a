"""What fine-tuning changed over a corpus: means by hand, nothing between a model and itself, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.corpus.change import SCORES, change_table, changes
from analysis.intervals import Units
from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.options import CorpusOptions
from data.corpus.scored_rows import ROLE_NAMES
from data.corpus.scoring import score_corpus
from data.corpus.store import CorpusStore, open_store
from model.errors import MicroStepError
from model.hub.loading import ModelSpec, load
from tests.support.command import call
from tests.support.tiny import CORPUS, save_tiny


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One corpus of conversations under two models with one tokenizer, and one with another; and a shorter one."""
    folder = tmp_path_factory.mktemp("change")
    found = {}
    for corpus, texts in (("all", CORPUS), ("some", CORPUS[:3])):
        data = folder / f"{corpus}.jsonl"
        talks = [[{"role": "user", "content": t[:20]}, {"role": "assistant", "content": t[20:]}] for t in texts]
        data.write_text("".join(json.dumps({"text": talk}) + "\n" for talk in talks), "utf-8")
        for name, options in (("a", {}), ("b", {"seed": 1}), ("other", {"vocab_size": 380})):
            model = save_tiny(folder / f"model-{name}-{corpus}", "llama", chat=True, **options)  # type: ignore[arg-type]
            out = folder / f"{corpus}-{name}"
            score_corpus(lambda m=model: load(ModelSpec(str(m))), open_corpus(CorpusSpec(str(data))), out,  # type: ignore[misc]
                         CorpusOptions(chat=True))  # fmt: skip
            found[f"{corpus}-{name}"] = out
    return found


def read(path: Path) -> CorpusStore:
    return open_store(path)


def test_means_and_differences_are_those_of_the_tokens(stores: dict[str, Path]) -> None:
    a, b = read(stores["all-a"]), read(stores["all-b"])
    found = {(each.role, each.score): each for each in changes(a, b)[0]}
    x, y = a.arrays(), b.arrays()
    for role in ("user", "assistant", "template"):
        for score in SCORES:
            theirs, mine = getattr(x, score), getattr(y, score)
            chosen = (x.role == ROLE_NAMES.index(role)) & ~np.isnan(theirs)
            one = found[role, score]
            assert one.tokens == chosen.sum() and one.documents == len(CORPUS)
            assert one.a.mean == pytest.approx(theirs[chosen].astype(float).mean())
            assert one.b.mean == pytest.approx(mine[chosen].astype(float).mean())
            assert one.difference.mean == pytest.approx(one.b.mean - one.a.mean)
            assert one.difference.low < one.difference.mean < one.difference.high
    content = found["content", "entropy"]
    assert content.tokens == found["user", "entropy"].tokens + found["assistant", "entropy"].tokens
    assert ("system", "entropy") not in found


def test_the_interval_is_of_pairs(stores: dict[str, Path]) -> None:
    """Between a model and itself nothing changes, in no document; the two means alone have wide intervals."""
    a = read(stores["all-a"])
    for each in changes(a, a)[0]:
        assert each.difference.mean == 0 and not each.difference.known and not each.difference.clear
        assert each.a == each.b and each.a.low < each.a.high


def test_two_documents_claim_nothing() -> None:
    """Differences used to be called clear from two documents on: in half of the cases where there was none."""
    units = Units.of(np.array([0, 1]))
    assert units.meaning == "no intervals: 2 documents are too few"


def test_other_tokens_are_refused(stores: dict[str, Path]) -> None:
    with pytest.raises(MicroStepError, match="different tokenizers"):
        changes(read(stores["all-a"]), read(stores["all-other"]))
    with pytest.raises(MicroStepError, match="different tokens"):
        changes(read(stores["all-a"]), read(stores["some-b"]))


def test_the_command_gives_a_table_and_a_file(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "change.csv"
    pair = stores["all-a"], stores["all-b"]
    assert call(monkeypatch, "corpus", "change", *pair, "--out", out) == 0
    expected = change_table(changes(read(pair[0]), read(pair[1]))[0])
    pd.testing.assert_frame_equal(pd.read_csv(out), expected, rtol=1e-6)
    capsys.readouterr()
    assert call(monkeypatch, "corpus", "change", *pair) == 0
    shown = capsys.readouterr().out
    assert "content" in shown and "difference" in shown
    assert call(monkeypatch, "corpus", "change", pair[0], stores["some-b"]) != 0
    assert "hold different tokens" in capsys.readouterr().err
