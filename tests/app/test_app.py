"""The page through Streamlit's own test runner: what it shows, what it asks, and when it runs a model."""

import json
import re
import shutil
from contextlib import ExitStack

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from analysis.query import scoring_cost
from analysis.segmentation.request import ScoresQuery
from app.cache import REACHED, ModelPool, model_pool
from app.escape import escape_markdown
from app.token_strip import TokenChoice
from app.uncertainty.editing import edited
from model.causal_lm.device_speed import multiplications_per_second
from model.hub.loading import ModelSpec, load
from model.text.document import Document, TextInput
from tests.support import pages
from tests.support.pages import ROOT, charts, shown

TEXT = "the cat sat on the mat"


@pytest.fixture
def runs(monkeypatch):
    """Counts the model runs."""
    from analysis.uncertainty.request import ComparisonQuery

    count, original = [], ComparisonQuery.run
    monkeypatch.setattr(ComparisonQuery, "run", lambda self, *rest: (count.append(self), original(self, *rest))[1])
    return count


def opened(models, text=TEXT, **query):
    return pages.opened(models, text, **query)


def test_a_deep_link_shows_two_models_on_its_text(models, runs):
    at = opened(models, open="scatter")
    assert not at.exception and not at.error
    assert "A base" in shown(at) and "B sft" in shown(at)
    assert "tokens" in shown(at) and len(runs) == 1
    titles = {
        json.loads(chart.proto.spec)["layout"]["xaxis"].get("title", {}).get("text") for chart in at.get("plotly_chart")
    }
    assert "A: entropy, bits" in titles


def test_units_and_scores_run_no_model_and_a_second_view_comes_from_the_cache(models, runs):
    at = opened(models)
    bits, unit = mean_of_a(at)
    assert unit == "bits"
    at.segmented_control(key="unit").set_value("nats").run()
    nats, unit = mean_of_a(at)
    assert nats == pytest.approx(bits * 0.6931, rel=2e-2) and unit == "nats"
    at.selectbox(key="score").set_value("confidence").run()
    assert not at.exception and len(runs) == 1 and "of confidence per token" in shown(at)
    assert at.query_params["score"] == "confidence"
    at.toggle(key="chat").set_value(True).run()
    assert len(runs) == 2
    at.toggle(key="chat").set_value(False).run()
    assert len(runs) == 2
    assert mean_of_a(opened(models, fresh=False))[0] == bits and len(runs) == 2  # another reader


def mean_of_a(at):
    number, unit = re.search(r"A base \*\*([\d.]+) (\w+)\*\*", shown(at)).groups()
    return float(number), unit


def test_the_lens_draws_what_changed_and_the_finding_follows(models, runs, monkeypatch):
    drawn = pages.strips(monkeypatch)
    at = opened(models, lens="change", measure="kl_ab", open="next")
    assert not at.exception and not at.error
    strip = drawn["strip"]
    (row,) = (row for row in strip.rows if not row.hidden)
    assert row.key == "B−A" and row.scale == "sequential" and strip.overview == row.key
    assert row.start[0] == 0 and np.isnan(row.value[0])  # what no model scored is there, without a value
    assert np.isfinite(row.value[1:]).all() and (row.start[1:] == row.end[:-1]).all()
    assert 0 < len(strip.jumps) <= 20 and list(strip.jumps) == sorted(strip.jumps)
    assert "KL(A‖B)" in shown(at).replace("\\", "")
    assert len(charts(at)) == 1  # the slopes of the next tokens
    at.selectbox(key="measure").set_value("difference").run()
    assert {row.scale for row in drawn["strip"].rows if not getattr(row, "hidden", False)} == {"diverging"}
    other = opened(models, b="other", lens="change", measure="js")
    assert not other.exception and "same tokens of one vocabulary" in shown(other)


def test_an_alternative_is_written_into_the_right_message(models, runs, monkeypatch):
    drawn = pages.strips(monkeypatch)
    opened(models, a="sft", answer="It sat.", chat="true")
    strip, found = drawn["strip"], runs[0]
    assert strip.turns == ((0, "user"), (len(TEXT) + 1, "assistant"))
    token = int(np.flatnonzero(strip.rows[1].start > len(TEXT) + 2)[0])
    row = strip.rows[1]
    text = found.text.document.text
    choice = TokenChoice("B", token, 3)
    document = edited(model_pool().get(found), choice)
    written = row.topk.strings[row.topk.ids[token, 3]]
    assert document.text == text[: row.start[token]] + written + text[row.end[token] :]
    assert document.messages[0] == found.text.document.messages[0]
    for wrong in (TokenChoice("C", 0, 0), TokenChoice("A", 10**6, 0), TokenChoice("A", 0, 99)):
        assert edited(model_pool().get(found), wrong) is None
    shown_again = opened(models, a="sft", answer="It sat.", chat="true", with_template="true")
    assert not shown_again.exception and "<|im_start|>" in drawn["strip"].text and not drawn["strip"].turns


def test_models_that_differ_in_tokenizer_and_template(models, runs):
    at = opened(models, b="other", chat="true")
    assert not at.exception and "no chat template" in shown(at)


def test_own_continuations_stand_apart_and_their_prompt_is_faint(models, runs, monkeypatch):
    drawn = pages.strips(monkeypatch)
    at = opened(models, mode="own continuations", new_tokens="7")
    assert not at.exception and not at.error
    assert not drawn["strip"].aligned and len(drawn["strip"].rows) == 2
    assert all(row.muted.any() and (~row.muted).sum() == 7 for row in drawn["strip"].rows)
    assert runs[0].new_tokens == 7 and "bits per byte" not in shown(at)


def test_a_conversation_is_split_by_role_and_the_strip_shows_it_without_its_template(models, runs, monkeypatch):
    drawn = pages.strips(monkeypatch)
    at = opened(models, a="sft", answer="It sat.", chat="true", open=["roles", "read"])
    strip = drawn["strip"]
    assert strip.text.startswith(TEXT) and strip.text.endswith("It sat.")
    for row in strip.rows[:2]:
        pieces = [strip.text[a:b] for a, b in zip(row.start.tolist(), row.end.tolist(), strict=True)]
        assert "".join(pieces) in (strip.text, strip.text.replace("\n", ""))
    assert any("im_start" in code.value for code in at.code)
    assert "roles" in at.query_params["open"]


def test_template_arguments_of_a_link_reach_the_document(models, runs):
    at = opened(
        models, a="sft", answer="It sat.", chat="true", template="enable_thinking=false template_date=2024-02-29"
    )
    assert not at.exception and not at.error
    document = runs[0].text.document
    assert document.arguments == (("enable_thinking", "false"),) and document.date == "2024-02-29"
    assert "it was ignored" in shown(at)
    at.text_input(key="template").set_value("'open").run()
    assert not at.exception and "close the quotation mark" in shown(at)


def test_states_without_an_answer(models, runs):
    assert "There is no text yet" in shown(opened(models, text=""))
    at = opened({**models, "lost": "no/such-model"}, a="lost")
    assert "is not on this machine yet" in shown(at) and not runs
    at.button(key="fetch_A").click().run()
    assert len(at.error) == 1 and not at.exception and "tiny" in shown(at)
    assert at.button(key="fetch_A").label == "Try again"
    at = opened({**models, "typo": "tiny-bass"}, a="typo")
    at.button(key="use_A").click().run()
    assert at.session_state["a"] == "tiny-base" and "Mean entropy" in shown(at)
    at = opened({**models, "hollow": ROOT / "docs"}, a="hollow")
    assert not at.exception and len(runs) == 1


def test_the_pin_comes_from_the_link(models, runs):
    at = opened(models, at="5")
    assert at.session_state["at"] == 5
    assert opened(models, at="x' OR 1=1").session_state["at"] is None


def test_heavy_runs_are_asked_for_first(models, runs, monkeypatch):
    cost = scoring_cost(load(ModelSpec(str(models["base"]))), TextInput(Document.plain(TEXT)))
    monkeypatch.setattr("app.run_query.HEAVY", cost.work)  # for two models, and so twice as much
    monkeypatch.setattr("app.cache.ModelPool.speed", lambda self: 1.0)
    at = opened(models)
    assert "by an estimate" in shown(at) and not runs
    buttons = {button.label: button for button in at.button}
    assert f"Run the first {cost.tokens // 2} tokens instead" in buttons
    buttons["Run it"].click().run()
    assert len(runs) == 1 and "A base" in shown(at)
    monkeypatch.setattr("app.run_query.HEAVY", 1.4 * cost.work)
    at = opened(models)
    monkeypatch.setattr("app.run_query.HEAVY", 1e9)
    next(button for button in at.button if "instead" in button.label).click().run()
    assert len(runs) == 2 and TEXT.startswith(at.session_state["text"]) and len(at.session_state["text"]) < len(TEXT)
    assert "0.0 GB" not in shown(at)
    for tokens in (0, 1, len(TEXT)):  # nothing that is hardly a text, or all of it
        monkeypatch.setattr("app.run_query.HEAVY", 2 * cost.work * (tokens + 0.5) / cost.tokens)
        assert not any("instead" in button.label for button in opened(models).button)


def test_a_wait_says_what_blocks_it(models, monkeypatch):
    said = []
    with ExitStack() as other:
        turn = other.enter_context(model_pool().queue.turn("other", "question", lambda: False, said.append))
        turn.doing = "writing"

        def show(bar, what, share):
            said.append(what)
            if "waiting" in what:
                other.close()  # the other run is done

        monkeypatch.setattr("app.run_query._show", show)
        at = pages.opened(models, "a text that nobody has asked for", fresh=False)
    assert "writing" in said[0] and "place 1 of 1" in said[0] and not at.exception
    assert "Mean entropy" in shown(at)


def test_a_short_run_does_not_tell_the_speed_of_the_machine(models, monkeypatch):
    pool, query = ModelPool(), ScoresQuery("A", ModelSpec(str(models["base"])), TextInput.plain(TEXT))
    loaded = pool.load(query, lambda what, share: None)
    monkeypatch.setattr("app.cache.LONG", 0.0)
    pool.run(query, loaded, lambda share: None)
    assert pool.speed() == REACHED * multiplications_per_second()
    monkeypatch.setattr("app.cache.WORK", 0.0)
    pool.run(query, loaded, lambda share: None)
    assert pool.speed() != REACHED * multiplications_per_second()


def test_a_text_of_one_token_has_no_numbers(models, runs):
    at = opened(models, text="a")
    assert not at.exception and "No token is scored" in shown(at) and "missing" not in shown(at)


def test_markdown_from_users_is_shown_as_it_is():
    for text in ("![x](http://e/p.png)", "**b** _i_ `c` $x$ :smile: <b>", "a\nb\x00\x1b[31m", "# h", "- item", "1. x"):
        escaped = escape_markdown(text)
        for special in "*_`[]()!<>$#:":
            assert escaped.count(special) == escaped.count(f"\\{special}")
        assert "\n" not in escaped and "\x1b" not in escaped


def test_a_refused_text_says_which_model_refuses_it(models, runs, tmp_path):
    folder = tmp_path / "odd"
    shutil.copytree(models["sft"], folder)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content | upper }}", encoding="utf-8")
    at = opened({**models, "odd": folder}, b="odd", chat="true")
    assert not at.exception and "model B, odd" in shown(at) and "rewrites a message" in shown(at)


def test_a_model_that_cannot_be_had_is_one_message_and_another_one_is_read(models, runs, tmp_path):
    empty, truncated, noise = tmp_path / "empty", tmp_path / "truncated", tmp_path / "noise"
    empty.mkdir()
    weights = "model.safetensors"
    for folder in (truncated, noise):
        shutil.copytree(models["base"], folder)
    (truncated / weights).write_bytes((models["base"] / weights).read_bytes()[:1000])
    (noise / "tokenizer.json").write_text("{")
    for name, said in {
        empty: "no config.json",
        truncated: "truncated",
        noise: "tokenizer",
        models["base"] / "config.json": "is a file",
        "no such model": "there is no folder",
        "x" * 5000: "too long",
        "owner/name": "is not on this machine yet",
    }.items():
        at = opened({**models, "lost": name}, a="lost")
        told = [each.value.replace("\\", "") for each in (*at.error, *at.info, *at.warning)]
        assert len(told) == 1 and said in told[0] and not at.exception
        assert [button.key for button in at.button if button.key == "fetch_A"] == ["fetch_A"] * (name == "owner/name")
    at.button(key="fetch_A").click().run()
    assert "cannot be reached" in at.error[0].value.replace("\\", "")
    at.selectbox(key="a").set_value("tiny-sft").run()
    assert "Mean entropy" in shown(at) and not at.error and not at.exception


def test_a_folded_part_is_drawn_only_while_it_is_open():
    def script():
        import streamlit as st

        from app.cards import fold

        fold("part", "A part of *text*", lambda: st.caption("drawn"))

    at = AppTest.from_function(script).run()
    assert at.expander[0].label == r"**A part of \*text\***" and not at.caption
    at = AppTest.from_function(script)
    at.query_params["open"] = "part"
    assert [caption.value for caption in at.run().caption] == ["drawn"]


def test_results_are_kept_while_they_take_little(monkeypatch):
    pool, kept = ModelPool(), 30
    pool.examples = None
    queries = [ScoresQuery("A", ModelSpec("none"), TextInput.plain(str(number))) for number in range(kept)]
    for query in queries:
        pool._keep(query, ((),), np.zeros(1000), False)
    assert all(pool.get(query) is not None for query in queries)
    monkeypatch.setattr("app.cache.RESULT_BYTES", 100_000)
    pool._keep(queries[-1], ((),), np.zeros(1000), False)
    assert sum(pool.get(query) is not None for query in queries) == 24
