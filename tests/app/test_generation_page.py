"""The generation page through Streamlit's own test runner: what it shows, what it asks, and when it runs a model."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest
import typer

from analysis.generation import recordings
from analysis.generation.provenance import serve_command
from analysis.generation.request import GenerationRequest
from analysis.generation.result import Answer, Decoding
from app.cache import model_pool
from app.generation import live
from micro_step import cli
from model.hub.loading import ModelSpec, load
from model.hub.wrap_base import wrap
from model.text.document import Document, Message, TextInput
from tests.support import pages
from tests.support.micro_steps import scramble
from tests.support.pages import charts, shown

pytestmark = pytest.mark.slow

TEXT = "the cat sat on the mat"


@pytest.fixture
def runs(monkeypatch):
    """Counts the runs."""
    from analysis.generation.request import GenerationRequest

    count, original = [], GenerationRequest.run
    monkeypatch.setattr(
        GenerationRequest, "run", lambda self, *rest, **more: (count.append(self), original(self, *rest, **more))[1]
    )
    return count


@pytest.fixture
def loaded_answer():
    """Two tokens, one of them hostile."""
    text = "ok<img src=x onerror='alert(1)'>"
    two = np.array([0.9, 0.1])
    spans = np.array([0, 2], dtype=np.int32), np.array([2, len(text)], dtype=np.int32)
    nothing = np.zeros((2, 0))
    return Answer(text, two.astype(int), *spans, two, two, nothing.astype(int), nothing, two, 1.0)


FOLDED = ("answer_numbers", "answer", "steps", "endings", "answer_segments", "answer_prompt", "taus", "serve")


def opened(models, text=TEXT, **query):
    """With few new tokens, on the reader's own run, which was not started."""
    return pages.opened(
        models, text, "generation", **{"new_tokens": "12", "film": "Your run", "open": list(FOLDED), **query}
    )


def ran(models, text=TEXT, **query):
    """After a press of Run."""
    return press_run(opened(models, text, **query))


def press_run(at):
    return at.button(key="run_generation").click().run()


@pytest.fixture(scope="module")
def tape(models, tmp_path_factory):
    """A folder with a recording of each name, all of one tiny run."""
    folder = tmp_path_factory.mktemp("recordings")
    loaded = load(ModelSpec(str(models["sft"])))
    text = TextInput(Document((Message("user", "where is <b>it</b>"),)), chat=True)
    request = GenerationRequest(loaded.spec, text, Decoding(tau=0.0, lossless=True, max_new_tokens=12))
    for name in recordings.RECORDINGS:
        recordings.write(request.run(lambda _: loaded), folder / f"{name}.npz")
    return folder


def test_the_page_opens_with_a_recording_and_runs_no_model_until_run(models, runs, tape, monkeypatch):
    monkeypatch.setattr(recordings, "FOLDER", tape)
    first = pages.opened(models, TEXT)
    monkeypatch.setattr(model_pool(), "load", None)  # no model may be loaded from here on
    at = pages.turned_to(first, "generation")
    assert not at.exception and not at.error and "Recording" in shown(at) and not runs
    assert "an estimate" in shown(at)
    at.segmented_control(key="film").set_value("Drafting loses").run()
    assert "German" in shown(at) and not at.exception
    at.segmented_control(key="film").set_value("Your run").run()
    assert "not been run" in at.info[0].value and not runs


def test_the_films_that_come_with_the_project_are_what_their_titles_say():
    found = {name: recordings.recorded(name) for name in recordings.RECORDINGS}
    assert found["wins"].speed_ratio > 1.2 and found["loses"].speed_ratio < 1
    for name, generation in found.items():
        request = recordings.RECORDINGS[name].request
        assert generation.finished and generation.prompt.chat and generation.how == replace(request.how)
        assert generation.facts.name == request.model.name and not generation.lossless_failed
        assert generation.lossless == (name != "merged") and "processor time" in generation.notes[-1]
    assert sum(path.stat().st_size for path in recordings.FOLDER.iterdir()) < 150_000


def test_the_command_that_serves_a_model_says_how_its_segments_end():
    for name, said in (("merged", "--merged"), ("wins", "--lossless")):
        words = shlex.split(serve_command(recordings.RECORDINGS[name].request, recordings.recorded(name)))
        assert words[1] == "serve" and said in words
        line = typer.main.get_command(cli.command(words[1:]))
        context = line.context_class(line, info_name="micro-step")
        _, verb, rest = line.resolve_command(context, words[1:])
        given = verb.make_context("serve", list(rest), parent=context).params
        how = recordings.RECORDINGS[name].request.how
        assert (given["rule"], given["confidence"], given["max_segment_length"]) == (
            how.rule,
            how.tau,
            how.max_segment_length,
        )


def test_an_untrained_model_answers_and_says_that_it_is_untrained(models, runs):
    at = ran(models)
    assert not at.exception and not at.error and len(runs) == 1
    assert [metric.label.split()[0] for metric in at.metric] == ["tokens", "cache", "written", "equal"]
    assert "Untrained." in shown(at) and shown(at).count("Untrained modules") == 3
    assert runs[0].model.name == str(models["sft"]) and runs[0].how.lossless is False
    assert any(code.value.startswith(f"micro-step serve {models['sft']}") for code in at.code)
    assert {figure["layout"]["xaxis"]["title"]["text"] for figure in charts(at)} == {
        "seconds, prompt included",
        "tokens of a segment",
    }


def test_views_run_no_model_and_what_decides_the_answer_does(models, runs):
    at = ran(models, text=f"{TEXT}, and so on")
    at.segmented_control(key="unit").set_value("nats").run()
    at.segmented_control(key="over").set_value("base passes").run()
    assert len(runs) == 1 and not at.exception
    assert "passes of the base" in {figure["layout"]["xaxis"]["title"]["text"] for figure in charts(at)}
    press_run(at.slider(key="tau").set_value(0.0).run())
    at.slider(key="tau").set_value(0.3).run()
    assert len(runs) == 2 and runs[1].how.tau == 0 and "nats per token" in shown(at)
    press_run(at.segmented_control(key="writer").set_value("A").run())
    assert len(runs) == 3 and runs[2].model.name == str(models["base"])


def test_lossless_is_stated_and_checked(models, runs, monkeypatch):
    at = ran(models, decoding="lossless", tau="0.0", text="where is the cat")
    assert "output equals the base" in shown(at) and not at.warning
    assert at.metric[3].value == "100%" and at.metric[1].value == "0%"
    press_run(at.slider(key="eps").set_value(0.05).run())
    assert runs[-1].how.eps == 0.05 and "Relaxed" in shown(at) and "nats per token" in shown(at) and not at.warning
    assert "output equals the base" not in shown(at)
    press_run(at.slider(key="eps").set_value(1.0).run())
    from analysis.generation.result import Generation

    monkeypatch.setattr(Generation, "lossless_failed", True)
    at.run()
    assert "decoding failed" in at.warning[0].value


def test_sampling_settings_come_from_the_link(models, runs):
    at = ran(models, temperature="1.0", seed="3", penalty="1.2", rule="stop_head", most="2", text="once upon")
    how = runs[0].how
    assert not at.exception and (how.sampling.seed, how.rule, how.max_segment_length) == (3, "stop_head", 2)
    assert how.repetition_penalty == 1.2 and how.sampled


def test_a_saved_model_brings_its_own_settings(models, runs, tmp_path):
    model = wrap(load(ModelSpec(str(models["sft"])))).model
    scramble(model)
    model.config.decoding, model.config.max_segment_length, model.config.stop_head = "lossless", 3, True
    model.merger.position.data = model.merger.position.data[:3]
    model.save_modules(tmp_path / "trained", str(models["sft"]))
    at = ran({**models, "trained": tmp_path / "trained"}, b="trained", most="8")
    assert not at.exception and not at.error
    assert runs[0].how.lossless is True and runs[0].how.tau == 0.8 and runs[0].how.max_segment_length <= 3
    assert "Untrained" not in shown(at) and "output equals the base" in shown(at)
    at.switch_page("../pages/uncertainty.py").run()
    assert not at.exception and not at.error and "token by token, as training left it" in shown(at)


def test_a_sweep_runs_when_it_is_asked_for(models, runs):
    at = ran(models, taus="0 1.01", text="the dog sat")
    assert len(charts(at)) == 2
    next(button for button in at.button if button.label == "Run the sweep").click().run()
    assert not at.exception and not at.error and len(charts(at)) == 4
    assert "Segments for each tau" in shown(at)
    at.text_input(key="taus").set_value("nothing").run()
    assert "numbers" in at.error[0].value and len(runs) == 1


def test_an_example_is_continued_from_its_first_words(models, runs):
    at = ran(models, source="Example")
    assert len(runs[0].text.document.text.split()) == 12
    press_run(at.segmented_control(key="prompt_part").set_value("whole text").run())
    assert len(runs[1].text.document.text.split()) > 12


def test_a_conversation_is_answered_without_its_answer(models, runs):
    at = ran(models, answer="It sat.", chat="true")
    assert any("im_start" in code.value and "It sat" not in code.value for code in at.code)


def test_states_without_an_answer(models, runs):
    assert "There is no prompt yet" in shown(opened(models, text=""))
    at = ran({**models, "lost": "no/such-model"}, b="lost")
    assert "is not on this machine yet" in shown(at) and not runs
    at = ran(models, new_tokens="600")
    assert "context" in at.error[0].value and not at.exception and not at.metric


def test_a_heavy_run_is_not_asked_for_twice(models, runs, monkeypatch):
    monkeypatch.setattr("app.run_query.HEAVY", 1e-9)
    at = ran(models, text="a heavy one")
    assert len(runs) == 1 and at.metric and "an estimate" in shown(at)


def test_a_stopped_run_keeps_what_was_written(models, runs, monkeypatch):
    """Streamlit stops a run at a redraw: here at the third."""
    from streamlit.runtime.scriptrunner_utils.exceptions import StopException

    from app import state

    original, count = live.Live.__call__, []

    def stopping(self, run):
        original(self, run)
        count.append(run)
        if len(count) == 3:
            raise StopException

    with monkeypatch.context() as patch:
        patch.setattr(live.Live, "__call__", stopping)
        at = ran(models, text="stop me there", decoding="merged")
    assert not at.metric
    at.session_state[state.STOPPED] = {runs[0]}
    at.run()
    assert not at.exception and "written until then are shown below" in shown(at)
    assert at.metric[0].value != "" and at.metric[3].value == "none" and len(runs) == 1
    next(button for button in at.button if button.label == "Run again").click().run()
    assert len(runs) == 2 and "Stopped" not in shown(at) and at.metric[3].value != "none"


def test_hostile_text_and_names_stay_text(models, runs):
    at = ran(models, text="<img src=x onerror=alert(1)> ![x](http://e/p.png) **b**", token="2")
    assert not at.exception and at.session_state["token"] == 2
    drawn = "".join(json.dumps(figure) for figure in charts(at))
    assert "<img" not in drawn and "![x](" not in shown(at)


def test_what_streams_in_is_escaped(loaded_answer):
    drawn = live._spans(loaded_answer, loaded_answer.start[:1], "light")
    assert "<img" not in drawn and "&lt;img" in drawn and drawn.count("<span") == 2
    assert drawn.count("begins") == 1
