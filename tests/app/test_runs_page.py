"""The runs page through Streamlit's own test runner: what it shows of good, damaged and missing runs."""

import json

import pytest
from streamlit.testing.v1 import AppTest

from app import state
from app.cache import log_cache
from data.run_folder import FACTS, LOG, MODEL, to_line
from tests.support.pages import ROOT
from tests.support.pages import shown as shown_escaped
from tests.support.training_logs import line, lines, save_run

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    save_run(tmp_path / "one", finished=True, checkpoints=2)
    save_run(tmp_path / "two", lines(260, 1.6), seed=1)
    return tmp_path


def opened(folder, **query):
    log_cache.clear()
    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
    at.query_params["folder"] = str(folder)
    for key, value in query.items():
        at.query_params[key] = value
    return at.switch_page("../pages/runs.py").run()


def shown(at):
    return shown_escaped(at).replace("\\", "")


def figures(at):
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


def test_runs_are_found_compared_and_summed_up(folder):
    at = opened(folder)
    assert not at.exception and not at.error
    assert set(at.multiselect(key="runs").value) == {"one", "two"}
    assert [metric.value for metric in at.metric][3] == "260 / 400" and at.metric[0].value.endswith("bits")
    assert "two: running, about" in shown(at)
    table = at.dataframe[0].value
    assert dict(zip(table["run"], table["state"], strict=True)) == {"one": "finished", "two": "running"}
    assert len(figures(at)) == 3
    assert any("merger: residual_softmax" in code.value for code in at.code)


def test_a_link_says_what_is_drawn(folder):
    query = {"runs": "two", "curve": ["accuracy", "learning rates"], "x": "tokens", "smoothing": "0.9"}
    at = opened(folder, **query, log_scale="true", measure="NLL", live="false")
    assert not at.exception and at.multiselect(key="runs").value == ["two"]
    curves, over, _ = figures(at)
    assert curves["layout"]["yaxis"]["tickformat"] == ".0%" and curves["layout"]["yaxis2"]["type"] == "log"
    assert curves["layout"]["xaxis2"]["title"]["text"] == "labelled tokens seen"
    assert "smoothed by 0.9" in shown(at) and "NLL, bits" in json.dumps(over)
    at.segmented_control(key="unit").set_value("nats").run()
    assert not at.exception and "NLL, nats" in json.dumps(figures(at)[1])
    at.slider(key="smoothing").set_value(0.0).run()
    assert "Not smoothed" in shown(at)


def test_controls_and_choices_redraw(folder):
    at = opened(folder)
    at.multiselect(key="runs").set_value(["two", "one"]).run()
    at.get("button_group")
    at.segmented_control(key="x").set_value("seconds").run()
    at.toggle(key="log_scale").set_value(True).run()
    curves = figures(at)[0]
    assert not at.exception and curves["layout"]["yaxis"]["type"] == "log"
    assert curves["layout"]["xaxis"]["title"]["text"] == "seconds of training"
    at.multiselect(key="runs").set_value([]).run()
    assert not at.exception and "No run is chosen" in shown(at) and not figures(at)
    at.multiselect(key="runs").set_value(["one"]).run()
    assert len(figures(at)) == 3


def test_a_single_run_and_another_folder(folder, tmp_path_factory):
    at = opened(folder / "one")
    assert at.multiselect(key="runs").value == ["one"] and not at.exception
    other = tmp_path_factory.mktemp("other")
    save_run(other / "sweep" / "third", lines(30))
    at.text_input(key="folder").set_value(str(other)).run()
    assert not at.exception and at.multiselect(key="runs").value == ["sweep/third"]
    assert "no validation" in shown(at).lower()


def test_a_run_that_the_link_names_and_that_is_not_there(folder):
    at = opened(folder, runs=["gone", "two"])
    assert not at.exception and "Not in this folder: gone" in shown(at)
    assert at.multiselect(key="runs").value == ["two"]


def test_states_without_runs(tmp_path):
    at = opened(tmp_path)
    assert "There is no training run in" in shown(at) and not at.exception
    assert any(code.value == "micro-step train trainer/recipes/tiny.yaml" for code in at.code)
    for lost in (tmp_path / "nowhere", "~nobody-of-this-name/runs", "x" * 5000):
        at = opened(lost)
        assert not at.exception and not at.error and len(at.info) == 1


def test_a_damaged_log_is_named_and_the_rest_is_shown(folder):
    log = folder / "two" / LOG
    log.write_text(log.read_text().replace('"step": 20', '"step": <img src=x onerror=alert(1)>', 1))
    (save_run(folder / "broken", []) / FACTS).write_text("{}")
    at = opened(folder, runs=["one", "two"])
    said = [error.value for error in at.error]
    assert not at.exception and len(said) == 2
    assert any("line 2" in each for each in said) and any("another version" in each for each in said)
    assert len(figures(at)) == 3 and len(at.dataframe[0].value) == 2


def test_a_run_that_has_logged_nothing_yet(tmp_path):
    save_run(tmp_path / "fresh", [])
    at = opened(tmp_path)
    assert not at.exception and not at.error and not at.metric and "nothing is logged yet" in shown(at)


def test_new_lines_and_a_final_model_are_seen(folder):
    at = opened(folder, runs="two")
    with (folder / "two" / LOG).open("a") as file:
        file.write(to_line(line(300)))
    at.run()
    assert at.metric[3].value == "300 / 400"
    (folder / "two" / MODEL).mkdir()
    (folder / "two" / MODEL / "config.json").write_text("{}")
    at.run()
    assert not at.exception
    assert "two: finished" in shown(at)


def test_a_checkpoint_is_opened_beside_its_base(folder, models):
    save_run(folder / "three", base=str(models["base"]), finished=True, checkpoints=1)
    at = opened(folder, runs="three")
    assert at.selectbox(key="checkpoint").options == ["final model", "step 100"]
    at.session_state["adapter_b"] = "an/older-adapter"
    at.selectbox(key="checkpoint").set_value("step 100").run()
    at.button(key="open_Generation").click().run()
    assert at.session_state[state.B] == str(folder / "three" / "checkpoints" / "step-00000100" / MODEL)
    assert at.session_state[state.A] == str(models["base"]) and at.session_state["adapter_b"] == ""
    assert "Generation" in [title.value for title in at.title] and not at.exception


def test_an_adapter_is_opened_by_its_folder(folder, models):
    model = save_run(folder / "control", base="llama", objective="control") / MODEL
    model.mkdir()
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "no/such-base"}
    (model / "adapter_config.json").write_text(json.dumps(adapter))
    at = opened(folder, runs="control", a=str(models["base"]), source="Typed", text="the cat")
    at.button(key="open_Uncertainty").click().run()
    assert at.session_state[state.B] == str(model) and at.session_state["adapter_b"] == ""
    assert at.session_state[state.A] == str(models["base"]) and not at.exception
    assert "is an adapter" in shown_escaped(at)


def test_names_of_folders_and_stages_stay_text(tmp_path):
    name = "**b** :smile: $x$ <img src=x onerror=alert(1)> %{x}"
    save_run(tmp_path / name, base="![x](http://e/p.png)", data="<script>")
    at = opened(tmp_path)
    assert not at.exception and at.multiselect(key="runs").value == [name]
    drawn = json.dumps(figures(at))
    assert "<img" not in drawn and "![x](" not in shown_escaped(at) and "**b**" not in shown_escaped(at)
    templates = [trace.get("hovertemplate", "") for figure in figures(at) for trace in figure["data"]]
    assert templates and not any("%{x}" in template for template in templates)


def test_a_first_visit_opens_with_the_logs_that_come_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log_cache.clear()
    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
    at = at.switch_page("../pages/runs.py").run()
    assert not at.exception and not at.error and "come with micro_step" in shown(at)
    assert "micro-step-tiny" in set(at.dataframe[0].value["run"]) and set(at.dataframe[0].value["state"]) == {
        "finished"
    }
    assert at.text_input(key="folder").value == "data/demo" and at.metric[2].label == "training tokens per second"
    assert at.selectbox(key="checkpoint").options == ["final model"]
