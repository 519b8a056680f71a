"""NaN and infinity: refused wherever a model is run, in one sentence with a count; only surprisals may be infinite."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analysis.uncertainty.compare import compare
from analysis.uncertainty.scoring import score_document
from analysis.uncertainty.summary import summarise
from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.options import CorpusOptions
from data.corpus.rule_inputs import CorpusSource
from data.corpus.scored_rows import ScoredRows, from_parquet
from data.corpus.scoring import score_corpus
from data.corpus.store import Mark, open_store, read_mark, shard_name
from data.corpus.store_writer import write_shard
from model.errors import MicroStepError, NumericalError
from model.hub.loading import LoadedModel, ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM
from model.scoring.continuation import continue_text
from model.scoring.limited_history import limited_history
from model.scoring.scores import Sampling, TokenScores
from model.scoring.token_scores import score, score_pair
from model.segmentation.attention_features import attention_shares, router_turns
from model.segmentation.micro_features import refined_confidences
from model.text.document import TextInput
from tests.support.command import call
from tests.support.micro_steps import micro_step
from tests.support.tiny import BOS, save_tiny, tiny_model, tiny_tokenizer

TEXT = "The quick brown fox jumps over the lazy dog."


@pytest.fixture(scope="module")
def overflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama whose activations pass the largest float16 in its first layer; bfloat16 and float32 hold them."""
    folder = tmp_path_factory.mktemp("models") / "overflow"
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(2e4)
    assert max(float(weight.abs().max()) for weight in model.parameters()) < 65504  # the weights themselves fit
    model.save_pretrained(folder)
    tiny_tokenizer(chat=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def half(overflow: Path) -> LoadedModel:
    return load(ModelSpec(str(overflow), dtype="float16"))


@pytest.fixture(scope="module")
def ids(half: LoadedModel) -> np.ndarray:
    return np.array(half.tokenizer(TEXT)["input_ids"], dtype=np.int64)


def breaking(model: Any, at: int) -> Any:
    """The model with NaN in the hidden states from a position on, as an overflow at that token gives."""

    def spoil(_: Any, __: Any, output: Any) -> Any:
        output.last_hidden_state[:, at:] = torch.nan
        return output

    model.model.register_forward_hook(spoil)
    return model


def test_scores_of_an_overflow_are_refused_with_their_count(half: LoadedModel, ids: np.ndarray) -> None:
    """They used to be rows of NaN that looked like tokens without a score."""
    n = len(ids)
    said = rf"overflow: {n - 1} of {n - 1} tokens have logits that are not finite in float16; load it as bfloat16"
    for run in (
        lambda: score(half.model, [ids]),
        lambda: limited_history(half.model, ids, n, "banded"),
        lambda: score_pair(half.model, half.model, ids),
        lambda: continue_text(half.model, ids, 4),
    ):
        with pytest.raises(NumericalError, match=said):
            run()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_other_precisions_hold_the_same_model(overflow: Path, ids: np.ndarray, dtype: Any) -> None:
    (found,) = score(load(ModelSpec(str(overflow), dtype=dtype)).model, [ids], prefix=(BOS,))
    assert np.isfinite(found.entropy).all()


def test_a_part_that_is_not_finite_is_counted() -> None:
    model, ids = tiny_model("llama"), np.arange(10, 18)
    score(model, [ids[:3], ids])  # how the model is read is found out once
    model = breaking(model, 5)
    with pytest.raises(NumericalError, match=r"the model: 3 of 8 tokens .* float32; its weights are finite"):
        score(model, [ids], prefix=(BOS,))
    assert not score(model, [ids[:5]], prefix=(BOS,))[0].missing.any()
    with pytest.raises(NumericalError) as told:  # of a batch, the text is named; padding is no part of it
        score(model, [ids[:3], ids, ids[:4]])
    assert told.value.row == 1 and "2 of 7" in str(told.value)


def test_damaged_weights_are_named() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(NumericalError, match=r"model\.layers\.1\.mlp\.up_proj\.weight.*damaged"):
        score(model, [np.arange(10, 18)])


def test_a_first_token_without_bos_is_missing_and_no_error() -> None:
    (found,) = score(tiny_model("llama"), [np.arange(10, 14)])
    assert found.missing.tolist() == [True, False, False, False] and not found.not_finite.any()
    assert not TokenScores.missing_scores(3, 1).not_finite.any()


@pytest.mark.parametrize("settings", [{}, {"do_sample": True}, {"repetition_penalty": 1.3}])
@pytest.mark.parametrize("verify", [False, True])
def test_nothing_is_written_from_an_overflow(settings: dict[str, Any], verify: bool, half: LoadedModel) -> None:
    """Greedy decoding used to write padding, sampling to end in a traceback."""
    model = MicroStepForCausalLM.from_base(half.model, half.tokenizer).eval()
    with pytest.raises(NumericalError, match="overflow: new token 1 has logits that are not finite in float16"):
        model.generate_segments(torch.tensor([[5, 6, 7]]), verify=verify, max_new_tokens=4, seed=0, **settings)


@pytest.mark.parametrize(
    ("rule", "verify"),
    [("confidence", False), ("confidence", True), ("product", False), ("product", True), ("stop_head", False)],
)
def test_a_broken_micro_decoder_is_told(rule: str, verify: bool) -> None:
    """A probability that is NaN is never kept: it used to pass as a model that is never sure."""
    model = micro_step(stop_head=True)
    with torch.no_grad():
        for weight in (*model.micro.parameters(), *(model.stop.parameters() if rule == "stop_head" else ())):
            weight.fill_(torch.nan)
    with pytest.raises(NumericalError, match="the micro decoder has probabilities that are not finite"):
        model.generate_segments(torch.tensor([[5, 6, 7]]), verify=verify, rule=rule, confidence=0.1, max_new_tokens=9)
    with pytest.raises(NumericalError, match="micro decoder's logits"):
        refined_confidences(model, np.arange(10, 20))


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("verify", [False, True])
def test_settings_that_forbid_every_word_are_no_overflow(sampled: bool, verify: bool) -> None:
    def nothing(_: Any, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, -torch.inf)

    with pytest.raises(MicroStepError, match="the settings forbid every token as new token 1") as told:
        micro_step().generate_segments(
            torch.tensor([[5, 6, 7]]), verify=verify, max_new_tokens=4, do_sample=sampled, logits_processor=[nothing]
        )
    assert not isinstance(told.value, NumericalError)


def test_a_continuation_that_breaks_says_at_which_token() -> None:
    model, calls = tiny_model("llama"), list[int]()
    continue_text(model, np.arange(10, 14), 6, Sampling(0.0))  # how the model is continued is found out once

    def spoil(_: Any, __: Any, output: Any) -> Any:
        calls.append(0)
        if len(calls) > 2:
            output.last_hidden_state[:] = torch.nan
        return output

    model.model.register_forward_hook(spoil)
    for temperature in (0.0, 1.0):
        calls.clear()
        with pytest.raises(NumericalError, match="new token 3 has logits"):
            continue_text(model, np.arange(10, 14), 6, Sampling(temperature))


def test_attention_and_states_of_an_overflow_are_refused(half: LoadedModel, ids: np.ndarray) -> None:
    """The map of a head used to be saved as zeros."""
    with pytest.raises(NumericalError, match="positions have queries or keys in layer 1 that are not finite"):
        attention_shares(half.model, ids)
    with pytest.raises(NumericalError, match="hidden states after layer 2"):
        router_turns(half.model, ids, 2)


@pytest.mark.parametrize(
    "words",
    [
        ("score", "--model", "MODEL", "--text", TEXT),
        ("compare", "--a", "MODEL", "--b", "tiny-sft", "--text", TEXT),
        ("segment", "--model", "MODEL", "--text", TEXT, "--strategy", "entropy"),
        ("attention", "--model", "MODEL", "--text", TEXT, "--layer", "1", "--head", "0", "--out", "OUT/map.npz"),
        ("attribute", "--model", "MODEL", "--text", TEXT, "--quantity", "entropy", "--at", "3"),
        ("generate", "--model", "MODEL", "--prompt", TEXT, "--max-new-tokens", "4"),
        ("corpus", "score", "--model", "MODEL", "--data", "OUT/texts.jsonl", "--out", "OUT/store"),
    ],
    ids=lambda words: words[0],
)
def test_every_command_says_it_in_one_line(
    words: tuple[str, ...],
    overflow: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`score` used to exit 0; `compare` said there was nothing that both scored; `generate` wrote padding."""
    (tmp_path / "texts.jsonl").write_text('{"text": "The cat sat."}\n{"text": "The dog saw it all."}\n', "utf-8")
    words = tuple(word.replace("MODEL", str(overflow)).replace("OUT", str(tmp_path)) for word in words)
    assert call(monkeypatch, *words, "--dtype", "float16") == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("Error: ") and "overflow" in last and "not finite in float16; load it as bfloat16" in last
    assert {path.name for path in tmp_path.iterdir()} == {"texts.jsonl"}


# --- corpora


def scored(folder: Path, model: Path, lines: int = 3, dtype: Any = "float32", shard_tokens: int = 10_000) -> Path:
    data = folder / "texts.jsonl"
    data.write_text("".join(json.dumps({"text": TEXT[: 20 + 4 * i]}) + "\n" for i in range(lines)), "utf-8")
    spec = ModelSpec(str(model), dtype=dtype)
    options = CorpusOptions(shard_tokens=shard_tokens)
    score_corpus(lambda: load(spec), open_corpus(CorpusSpec(str(data))), folder / "store", options)
    return folder / "store"


def test_a_corpus_stops_at_the_document_that_overflows(
    tmp_path: Path, overflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No statistic is made of the documents that happen not to overflow; complete shards stay."""
    with pytest.raises(NumericalError, match="document 2 of the corpus: overflow"):
        scored(tmp_path, overflow, dtype="float16")
    assert not (tmp_path / "store").exists()

    def broken_at_two(model: Any, rows: Any, *given: Any, **more: Any) -> Any:
        if len(rows[0]) > 12:
            raise NumericalError("overflow: it is not")
        return score(model, rows, *given, **more)

    monkeypatch.setattr("model.scoring.token_scores.score", broken_at_two)
    with pytest.raises(NumericalError, match="another --out than .*store, which holds the scores so far"):
        scored(tmp_path, overflow, dtype="float32", shard_tokens=12, lines=6)
    assert (tmp_path / "store" / "shard-00000.json").is_file()


def test_an_old_store_with_scores_that_are_not_finite_is_recognised(
    tmp_path: Path, overflow: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reports used to print strategies with +-0.000, and corpus-change a KeyError."""
    store = scored(tmp_path, overflow)
    rows = from_parquet((store / shard_name(0)).read_bytes())
    bad = np.arange(len(rows.ids)) >= int(rows.offsets[2]) + 1
    floats = {name: np.where(bad, np.nan, getattr(rows, name)).astype(np.float32)
              for name in ("entropy", "confidence", "margin", "surprisal")}  # fmt: skip
    spoilt: ScoredRows = replace(rows, **floats, rank=np.where(bad, 1, rows.rank).astype(np.int32))
    mark = read_mark(store, 0)
    assert isinstance(mark, Mark)
    write_shard(store, 0, spoilt, mark)
    said = f"not finite.* of {int(bad.sum())} of {len(bad)} tokens in 1 of 3 documents; score the corpus again"
    with pytest.raises(NumericalError, match=said):
        CorpusSource.read(open_store(store))
    for command in (("corpus", "report", store), ("corpus", "change", store, store)):
        assert call(monkeypatch, *command) == 1
        assert "scores that are not finite" in capsys.readouterr().err


# --- probability 0 is legal


def impossible(token: int, seed: int = 0) -> Any:
    """A model that gives one word the probability 0 everywhere, by a logit of minus infinity."""
    model = tiny_model("phi", seed=seed)
    with torch.no_grad():
        model.lm_head.bias[token] = -torch.inf
    return model


def test_a_word_of_probability_0_is_no_error_and_its_surprisal_infinite() -> None:
    ids = np.array([10, 11, 12, 13])
    (found,) = score(impossible(12), [ids], prefix=(BOS,))
    assert np.isfinite(found.entropy).all() and np.isfinite(found.margin).all()
    assert np.isinf(found.surprisal).tolist() == [False, False, True, False] and found.rank[2] == 400


def test_a_divergence_from_what_is_ruled_out_is_infinite() -> None:
    """KL(A||B) where B rules out what A holds possible used to be a large number, -1e4 in place of ln 0."""
    ids = np.array([10, 11, 12, 13])
    a, b = tiny_model("phi"), impossible(300)
    _, _, found = score_pair(a, b, ids, prefix=(BOS,))
    pa = a(torch.tensor([[BOS, *ids[:-1]]])).logits[0].double().softmax(-1)
    pb = pa * (torch.arange(400) != 300)
    pb /= pb.sum(-1, keepdim=True)  # B is A without the word
    middle = (pa + pb) / 2
    js = (torch.special.xlogy(pa, pa / middle) + torch.special.xlogy(pb, pb / middle)).sum(-1) / 2
    assert np.isinf(found.kl_ab).all()
    kl_ba = torch.special.xlogy(pb, pb / pa).sum(-1)
    np.testing.assert_allclose(found.kl_ba, kl_ba.numpy(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.js, js.numpy(), rtol=1e-3, atol=1e-6)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_an_infinite_surprisal_is_said_and_stays_infinite(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny", "phi")
    a = load(ModelSpec(str(folder)))
    word = int(a.tokenizer(TEXT)["input_ids"][4])
    b = replace(a, model=impossible(word))
    noted = score_document(b, TextInput.plain(TEXT))
    assert any("1 of" in note and "probability 0" in note for note in noted.notes)
    bits = summarise(compare(a, b, TextInput.plain(TEXT))).bits_per_byte
    assert np.isfinite(bits.a) and bits.b == np.inf and bits.gap.mean == np.inf and not bits.gap.clear
