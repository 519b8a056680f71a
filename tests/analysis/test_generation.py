"""Generations beside their base: figures worked out by hand, identities, sweeps, and who is told what."""

import numpy as np
import pytest
import torch

from analysis.generation import figures as figures
from analysis.generation import sweep_figures as sweep_figures
from analysis.generation.provenance import origin
from analysis.generation.request import LONGEST_WORDS, GenerationRequest, beginning, prompt_of
from analysis.generation.result import Answer, Decoding, GeneratedSegments, Generation
from analysis.generation.summary import agreement, finding, kind, promise
from analysis.generation.sweep import SweepRequest, parse_values
from analysis.generation.tables import answer_table, is_timed, segment_table, sweep_table, timeline_table
from analysis.generation.view import GenerationView
from analysis.strips.generation import generation_strip, sweep_strip
from model.errors import MicroStepError, TextError, TooLarge
from model.hub.loading import ModelSpec, load
from model.scoring.scores import Sampling
from model.scoring.token_scores import score
from model.text.document import Document, Message, TextInput
from model.text.encoding import encode

TEXT = "the cat sat on the mat, <b>and</b> 🦆"


@pytest.fixture(scope="module")
def loaded(models):
    return load(ModelSpec(str(models["sft"])))


@pytest.fixture
def ask(models, loaded):
    def asked(text=TEXT, chat=False, **how):
        how = {"max_new_tokens": 24, "tau": 0.02, **how}
        document = Document.plain(text) if isinstance(text, str) else text
        return GenerationRequest(ModelSpec(str(models["sft"])), TextInput(document, chat), how=Decoding(**how))

    return asked


@pytest.fixture
def run(ask, loaded):
    return lambda *text, **how: ask(*text, **how).run(lambda spec: loaded)


def written(text, ids, probability, seconds=None, nll=None):
    """An answer by hand, a character a token."""
    n = len(ids)
    return Answer(
        text,
        np.array(ids),
        np.arange(n, dtype=np.int32),
        np.arange(1, n + 1, dtype=np.int32),
        np.array(probability, dtype=np.float32),
        np.array(nll or [1.0] * n, dtype=np.float32),
        np.zeros((n, 0), dtype=np.int64),
        np.zeros((n, 0), dtype=np.float32),
        np.array(seconds or np.arange(n), dtype=np.float64),
        2.0,
    )


@pytest.fixture
def by_hand(loaded):
    """Six tokens in three segments, of two, three and one, after a prompt."""

    def make(base=(1, 2, 3, 9, 5, 6), finished=True, lossless=False, **how):
        return Generation(
            facts=loaded.facts,
            how=Decoding(**how),
            verified=lossless,
            prompt=encode(TextInput.plain("abc"), loaded.tokenizer),
            micro=written("abcdef", (1, 2, 3, 4, 5, 6), (0.9, 0.8, 0.5, 0.9, 0.7, 0.6)),
            segments=GeneratedSegments(
                np.array([0, 2, 5], dtype=np.int32),
                ("unsure", "cap", "end"),
                np.array([7, -1, -1]),
                np.array([0.25, np.nan, np.nan], dtype=np.float32),
                6,
            ),
            base=written("abcdef"[: len(base)], base, [0.5] * len(base)) if base else None,
            macro_steps=3,
            micro_steps=4,
            drafted=0,
            accepted=0,
            relaxed=0,
            cache_slots=len(encode(TextInput.plain("abc"), loaded.tokenizer)) + 2,
            strings={7: "<i>"},
            notes=(),
            finished=finished,
        )

    return make


def test_figures_by_hand(by_hand):
    found = by_hand()
    prompt = len(found.prompt)
    assert found.tokens_per_macro_step == 2
    assert (found.cached_tokens, found.cache_slots) == (prompt + 5, prompt + 2)
    assert found.cache_saved == pytest.approx(3 / (prompt + 5))
    assert found.speed_ratio == pytest.approx(1)
    assert found.segments.lengths.tolist() == [2, 3, 1]
    assert found.segments.of_token.tolist() == [0, 0, 1, 1, 1, 2]
    assert found.segments.micro_position.tolist() == [0, 1, 0, 1, 2, 0]
    assert found.written_by == ["base", "micro decoder", "base", "micro decoder", "micro decoder", "base"]
    assert (found.agreement.first, found.agreement.share) == (3, pytest.approx(5 / 6))
    assert "from token 4 on it differs" in agreement(found) and "2.00 per step" in finding(found)


@pytest.mark.parametrize(
    ("base", "finished", "first", "share"),
    [
        ((1, 2, 3, 4, 5, 6), True, None, 1.0),
        ((1, 2, 3, 4), True, 4, 4 / 6),  # the base ended earlier
        ((1, 2, 3, 4), False, None, 1.0),  # the base had come no further
        ((8, 2, 3, 4, 5, 6, 7, 7), True, 0, 5 / 8),
    ],
)
def test_agreement_by_hand(by_hand, base, finished, first, share):
    found = by_hand(base, finished).agreement
    assert (found.first, found.share) == (first, pytest.approx(share))


def test_a_broken_promise_is_said(by_hand):
    assert by_hand(lossless=True).lossless_failed and "decoding failed" in promise(by_hand(lossless=True))
    kept = by_hand((1, 2, 3, 4, 5, 6), lossless=True)
    assert not kept.lossless_failed and "equals the base's" in promise(kept)
    sampled = by_hand(lossless=True, sampling=Sampling(1.0))
    assert not sampled.lossless_failed and "distribution" in promise(sampled)
    relaxed = by_hand(lossless=True, eps=0.5)
    assert not relaxed.lossless and not relaxed.lossless_failed and "0.5" in promise(relaxed)
    assert "nats per token" in promise(relaxed) and "relaxed" in kind(relaxed)
    assert promise(by_hand()) == ""


def test_a_segment_row_says_what_was_refused(by_hand):
    table = segment_table(by_hand())
    assert table["text"].tolist() == ["ab", "cde", "f"] and table["tokens"].tolist() == [2, 3, 1]
    assert table["refused"].tolist() == ["<i>", "", ""] and table["refused_probability"].iloc[0] == 0.25
    assert table["least_probability"].tolist() == pytest.approx([0.8, 0.5, 0.6])
    strip = generation_strip(by_hand(), "bits")
    endings = strip.rows[0].notes[1]
    assert endings.words[0] == "the rule did not keep the next token: “<i>”, p 0.250"
    assert strip.rows[0].labels == ("1", "1", "2", "2", "2", "3")


def test_lossless_is_the_base_and_merged_above_one_too(run):
    for how in ({"lossless": True}, {"lossless": False, "tau": 1.01}):
        found = run(**how)
        assert found.agreement.equal and not found.lossless_failed and found.untrained
        assert found.micro.text == found.base.text and generation_strip(found, "nats").aligned
        np.testing.assert_allclose(found.micro.nll, found.base.nll)
        np.testing.assert_allclose(found.micro.probability, np.exp(-found.micro.nll), rtol=1e-4)


def test_merged_decoding_saves_slots_and_every_token_is_accounted_for(run):
    found = run(lossless=False, tau=0.0, max_segment_length=3)
    assert found.segments.lengths[:-1].max() == 3 and found.tokens_per_macro_step > 2
    assert found.cached_tokens - found.cache_slots == (found.segments.lengths[:-1] - 1).sum()
    assert "".join(segment_table(found)["text"]) == found.micro.text
    table = answer_table(found)
    assert set(table["answer"]) == {"micro_step", "base"}
    assert (table["seconds"] > 0).all() and table[table["answer"] == "base"]["seconds"].is_monotonic_increasing


@pytest.mark.parametrize("lossless", [True, False])
def test_a_model_of_another_family_with_bos(models, lossless):
    how = Decoding(tau=0.0, lossless=lossless, max_new_tokens=20)
    found = GenerationRequest(ModelSpec(str(models["other"])), TextInput.plain(TEXT), how=how).run(load)
    assert found.prompt.prefix and not found.lossless_failed
    held = 0 if lossless else int((found.segments.lengths[:-1] - 1).sum())
    assert found.cached_tokens - found.cache_slots == held
    assert found.micro.text.encode() and len(found.base) == 20


def test_nll_is_the_base_reading_the_answer(run, loaded):
    found = run(lossless=False, tau=0.0)
    whole = np.concatenate([found.prompt.ids, found.micro.ids])
    (scores,) = score(loaded.model, [whole], prefix=found.prompt.prefix)
    np.testing.assert_allclose(found.micro.nll, scores.surprisal[-len(found.micro) :])


def test_the_same_request_gives_the_same_answer_but_for_seconds(run):
    how = {"lossless": False, "sampling": Sampling(1.0, 0.9, seed=5), "repetition_penalty": 1.1}
    state = torch.get_rng_state()
    one, two, other = run(**how), run(**how), run(**{**how, "sampling": Sampling(1.0, 0.9, seed=6)})
    assert torch.equal(state, torch.get_rng_state())
    for table in (answer_table, segment_table, timeline_table):
        kept = [name for name in table(one) if not is_timed(name)]
        assert table(one)[kept].equals(table(two)[kept])
        assert len(kept) < len(table(one).columns) and is_timed(table(one).columns[-1])
    assert one.base.ids.tolist() == two.base.ids.tolist() != other.base.ids.tolist()


def test_two_answers_drawn_at_random_are_not_compared_token_by_token(run, ask, loaded):
    """Their agreement was told as if one of them were right."""
    found = run(lossless=False, sampling=Sampling(1.0, 1.0, seed=5))
    assert (found.agreement.first, found.agreement.tokens) == (None, 0) and np.isnan(found.agreement.share)
    assert "sampled" in finding(found) and "token for token" not in finding(found)
    for answer in (found.micro, found.base):
        before = torch.tensor([[*found.prompt.prefix, *found.prompt.ids, *answer.ids]])
        with torch.no_grad():
            logits = loaded.model(before).logits[0, -len(answer) - 1 : -1].double()
        true = logits[torch.arange(len(answer)), torch.tensor(answer.ids)]
        assert answer.rank.tolist() == ((logits > true[:, None]).sum(-1) + 1).tolist()
        assert answer.likeliest == pytest.approx(float((answer.rank == 1).mean()))
    sweep = SweepRequest(ask(lossless=False, sampling=Sampling(1.0)), (0.3,)).run(lambda spec: loaded)
    (row,) = sweep_table(sweep).to_dict("records")
    assert np.isnan(row["agreement"]) and 0 <= row["likeliest"] <= 1


def test_passes_over_time_count_the_one_that_confirms_a_draft(by_hand, run):
    """A draft's tokens stood in lossless decoding before the pass that confirmed them."""
    assert by_hand().passes_by_then.tolist() == [1, 1, 2, 2, 2, 3]
    assert by_hand(lossless=True).passes_by_then.tolist() == [1, 2, 2, 3, 3, 3]
    found = run(lossless=True, tau=0.0)
    table = timeline_table(found)
    assert table.loc[table["answer"] == "micro_step", "base_passes"].max() == found.macro_steps


def test_a_conversation_is_answered_from_its_last_question(run, loaded):
    turns = (Message("user", "Where is the cat?"), Message("assistant", "On the mat."))
    assert prompt_of(Document(turns)).messages == turns[:1]
    later = (*turns, Message("user", "And the dog?"), Message("assistant", "!"))
    assert prompt_of(Document(later)).messages == later[:3]
    found = run(Document(turns), chat=True)
    assert found.prompt.text.endswith("<|im_start|>assistant\n") and "mat" not in found.prompt.text
    with pytest.raises(TextError, match="no prompt"):
        prompt_of(Document((Message("assistant", "Hello"),)))
    with pytest.raises(TextError, match="no prompt"):
        prompt_of(Document.plain(""))


def test_the_beginning_of_a_text():
    assert beginning(Document.plain("one two\nthree")).text == "one two\nthree"
    assert beginning(Document.plain("a " * 40)).text == ("a " * 12).strip()
    assert beginning(Document.plain("字" * 500)).text == "字" * LONGEST_WORDS


def test_who_watches_is_told_and_may_stop(ask, loaded):
    told = []

    def watch(run):
        told.append(run.stopped())
        if len(told) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(lossless=False).run(lambda spec: loaded, watch=watch)
    kept = told[-1]
    assert not kept.finished and kept.base is None and len(kept.segments) == 4
    assert kept.micro.text == ask(lossless=False).run(lambda spec: loaded).micro.text[: len(kept.micro.text)]
    assert "has not answered" in agreement(kept) and len(answer_table(kept)) == len(kept.micro)
    for name in figures.FIGURES:
        assert figures.draw(name, kept, GenerationView()).figure.data
    generation_strip(kept, "bits")


def test_watching_takes_no_time_from_the_figures(ask, loaded):
    import time

    asked = ask(lossless=False, max_new_tokens=4)
    found = asked.run(lambda spec: loaded, watch=lambda run: time.sleep(0.3))
    assert found.micro.total_seconds < 1 and found.base.total_seconds < 1
    assert (np.diff(found.micro.seconds) >= 0).all() and found.micro.seconds[-1] <= found.micro.total_seconds + 1e-6


def test_a_sweep_has_one_base_and_rising_taus(ask, loaded):
    shares = []
    sweep = SweepRequest(ask(lossless=False), (1.01, 0.02, 0.0, 0.02)).run(lambda spec: loaded, shares.append)
    assert sweep.taus == (0.0, 0.02, 1.01)
    assert len({id(each.base) for each in sweep.generations}) == 1
    table = sweep_table(sweep)
    assert table["tokens_per_macro_step"].is_monotonic_decreasing
    assert table["agreement"].iloc[-1] == 1 and table["tokens_per_macro_step"].iloc[-1] == 1
    assert shares == sorted(shares) and shares[-1] == 1
    assert [row.key for row in sweep_strip(sweep, "bits").rows] == ["τ 0", "τ 0.02", "τ 1.01"]
    for name in sweep_figures.FIGURES:
        assert sweep_figures.draw(name, sweep, GenerationView(theme="dark")).figure.data
    with pytest.raises(MicroStepError, match="1 to 12"):
        SweepRequest(ask(), tuple(i / 20 for i in range(14)))
    with pytest.raises(MicroStepError, match="tau must be"):
        SweepRequest(ask(), (-0.5,))
    assert parse_values(" .3; 0.5,1", "tau") == (0.3, 0.5, 1.0)
    for wrong in ("a lot", "nan", "0.3 inf"):
        with pytest.raises(MicroStepError, match="numbers"):
            parse_values(wrong, "tau")


def test_a_sweep_over_eps_says_what_fewer_passes_cost(ask, loaded):
    asked = SweepRequest(ask(lossless=True, max_new_tokens=16), (0.0,), (1.0, 1e-6))
    sweep = asked.run(lambda spec: loaded)
    table = sweep_table(sweep)
    assert table["eps"].tolist() == [1, 1e-6] and table["nll_ratio"].iloc[0] == pytest.approx(1)
    assert table["tokens_per_macro_step"].is_monotonic_increasing and table["nll_ratio"].iloc[1] > 1
    relaxed = sweep.generations[1]
    assert table["nll_ratio"].iloc[1] == pytest.approx(relaxed.micro.nll.mean() / sweep.generations[0].micro.nll.mean())
    line, base = sweep_figures.draw("sweep_quality", sweep, GenerationView()).figure.data
    assert (line.x[0], line.y[1]) == (table["tokens_per_macro_step"][0], table["nll_ratio"][1])
    assert (base.x, base.y) == ((1,), (1,))
    assert [row.key for row in sweep_strip(sweep, "bits").rows] == ["τ 0, eps 1", "τ 0, eps 1e-06"]
    assert "--eps 1.0,1e-06" in origin(asked.request, sweep, GenerationView()).command("sweep", "figure.csv")


def test_equal_requests_are_equal_whatever_the_side(ask):
    from dataclasses import replace

    assert replace(ask(), side="B") == ask() and hash(replace(ask(), side="B")) == hash(ask())
    assert SweepRequest(ask(tau=0.1)) == SweepRequest(ask(tau=0.9))


def test_hostile_text_is_escaped_in_every_figure(run):
    found = run("<script>alert(1)</script> $x$", lossless=False, tau=0.0)
    for name in figures.FIGURES:
        assert "<script" not in figures.draw(name, found, GenerationView(pinned=2)).figure.to_json()


@pytest.mark.parametrize(
    "how",
    [{"rule": "hope"}, {"tau": -1}, {"tau": float("nan")}, {"max_segment_length": 0}, {"repetition_penalty": 0.0}],
)
def test_settings_that_mean_nothing_are_refused(how):
    with pytest.raises(MicroStepError):
        Decoding(**how)


def test_what_does_not_fit_is_refused_before_anything_is_written(ask, loaded):
    told = []
    with pytest.raises(TooLarge, match="context of 512"):
        ask(max_new_tokens=510).run(lambda spec: loaded, watch=told.append)
    with pytest.raises(MicroStepError, match="1 to 8 tokens"):
        ask(max_segment_length=9).run(lambda spec: loaded)
    assert not told


def test_the_origin_names_the_command(ask, loaded):
    asked = ask(lossless=True, sampling=Sampling(0.5, 0.9, 3))
    found = asked.run(lambda spec: loaded)
    where = origin(asked, found, GenerationView(pinned=3))
    line = where.command("timeline", "figure.csv")
    for words in ("--figure timeline", "--lossless", "--seed 3", "--pinned 3", "--text-file text.txt"):
        assert words in line
    assert where.files["text.txt"].decode() == TEXT and "side" not in where.request
