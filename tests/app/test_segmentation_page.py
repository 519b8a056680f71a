"""The segmentation page through Streamlit's own test runner: what it shows, what it asks, and when it runs a model."""

import json

import pytest

from tests.support import pages
from tests.support.pages import ROOT, asked_of, shown

pytestmark = pytest.mark.slow

TEXT = "the cat sat on the mat, and the dog sat down"


@pytest.fixture
def runs(monkeypatch):
    """The questions that were put to models."""
    from analysis.segmentation.request import FeatureQuery, ScoresQuery

    return asked_of(monkeypatch, ScoresQuery, FeatureQuery)


def opened(models, /, text=TEXT, cut=("entropy:threshold=3.5", "word"), **query):
    """With these strategies in the link, and the folded parts open that tests look into."""
    opening = {"open": ["strategies", "statistics", "threshold"], **({"cut": list(cut)} if cut else {})}
    return pages.opened(models, text, "segmentation", **(opening | query))


def cuts(at):
    """Names of the cuts in the table."""
    return list(at.dataframe[0].value["segmentation"])


def test_a_deep_link_shows_its_strategies_under_both_models(models, runs):
    at = opened(models, at="5")
    assert not at.exception and not at.error
    assert cuts(at) == ["A entropy", "B entropy", "A words", "B words"] and len(runs) == 2
    assert "Under entropy, A makes segments of" in shown(at)
    assert at.dataframe[0].value["pinned"].str.contains("starts|joins").all()
    assert "prompt of a chat is faint" in shown(at)
    at.segmented_control(key="models").set_value("B").run()
    assert not at.exception and cuts(at) == ["entropy", "words"] and len(runs) == 2


def test_the_first_visit_is_two_strategies_and_folded_figures(models, runs, monkeypatch):
    drawn = pages.strips(monkeypatch)
    at = opened(models, cut=(), open=[])
    assert not at.exception and not at.dataframe and not at.get("plotly_chart")
    rows = [row.key for row in drawn["segments"].rows if row.key]
    assert {row.split()[-1] for row in rows} == {"entropy", "confidence"}
    assert [box.key for box in at.selectbox if box.key.startswith(("pick", "rule"))] == ["pick_0", "pick_1"]
    at.selectbox(key="pick_1").set_value("fixed").run()
    assert [row.key for row in drawn["segments"].rows][-1] == "A, B fixed length"  # equal rows stand once
    assert at.query_params["cut"][1].startswith("fixed:k=3") and not at.exception
    at.selectbox(key="pick_1").set_value("refined").run()
    assert "trained micro_step model" in shown(at).replace("\\", "") and at.selectbox(key="pick_1").value == "fixed"


def test_parameters_copies_and_removals_run_no_model_and_stand_in_the_link(models, runs):
    at = opened(models, models="A")
    box = next(n for n in at.number_input if n.label == "threshold, bits")
    before = at.dataframe[0].value["segments"][0]
    box.set_value(8.0).run()
    assert at.dataframe[0].value["segments"][0] < before
    assert at.query_params["cut"][0].startswith("entropy:threshold=5.545")  # nats
    slider = next(s for s in at.slider if s.label == "threshold, bits")
    assert slider.value == pytest.approx(8.0, abs=1e-4)
    slider.set_value(1.0).run()
    assert next(n for n in at.number_input if n.label == "threshold, bits").value == pytest.approx(1, abs=1e-4)
    at.button(key="copy_0").click().run()
    assert cuts(at) == ["entropy", "entropy 2", "words"]
    at.button(key="drop_0").click().run()
    at.button(key="add_strategy").click().run()
    assert cuts(at) == ["entropy", "words", "fixed length"] and len(at.query_params["cut"]) == 3
    at.number_input(key="most").set_value(2).run()
    at.segmented_control(key="unit").set_value("nats").run()
    assert next(n for n in at.number_input if n.label == "threshold, nats").value == pytest.approx(0.6931, abs=1e-3)
    assert not at.exception and len(runs) == 1


def test_a_still_picture_is_drawn_only_for_its_download(models, runs, monkeypatch):
    from analysis.figures.static_strip import Page

    drawn = []
    monkeypatch.setattr(Page, "figure", lambda *rest: drawn.append(rest))
    assert cuts(opened(models)) and not drawn  # it took a second of every move of a slider


def test_a_target_is_solved_or_refused_in_one_message(models, runs):
    at = opened(models, models="A")
    at.button(key="solve_0").click().run()
    assert "Type a target length first" in shown(at)
    at.number_input(key="target_0").set_value(2.0).run()
    at.button(key="solve_0").click().run()
    assert "tokens per segment on model A" in shown(at).replace("\\", "")
    assert at.dataframe[0].value["mean_length"][0] == pytest.approx(2.0, abs=0.3)
    at.number_input(key="target_0").set_value(3.99).run()
    at.button(key="solve_0").click().run()
    assert "3.99 tokens cannot be reached" in shown(at).replace("\\", "") and not at.exception


def test_a_strategy_that_needs_more_asks_the_models_for_no_more_than_that(models, runs):
    at = opened(models)
    asked = len(runs)
    at.selectbox(key="rule_0").set_value("router").run()
    assert not at.exception and cuts(at)[:2] == ["A router", "B router"]
    assert [type(each).__name__ for each in runs[asked:]] == ["FeatureQuery", "FeatureQuery"]
    asked = len(runs)
    at.selectbox(key="rule_0").set_value("refined").run()
    assert "trained micro_step model" in shown(at).replace("\\", "") and cuts(at)[:2] == ["A router", "B router"]
    at.toggle(key="history").set_value(True).run()
    assert [each.feature.window for each in runs[asked:]] == [32, 32]
    titles = json.dumps([json.loads(chart.proto.spec)["layout"] for chart in at.get("plotly_chart")])
    assert "D, bits" in titles


def test_a_link_may_ask_for_everything_at_once(models, runs):
    at = opened(models, cut=("router:layer=1", "attention_mass"), history="true", window="4", precision="true")
    assert not at.exception and not at.error and len(cuts(at)) == 4
    assert len(runs) == 2 + 6 + 2 + 4  # scores; extras; the same but the history in the other precision


def test_the_other_precision_is_asked_for_with_a_button(models, runs):
    at = opened(models, open=["unstable_boundaries"])
    at.button(key="run_other").click().run()
    assert not at.exception and {each.spec.dtype for each in runs} == {"auto", "bfloat16"} and len(runs) == 4
    assert "computes in bfloat16" in shown(at)


def test_two_tokenizers_and_a_chat(models, runs):
    at = opened(models, b="other", answer="It sat.", chat="true")
    assert not at.exception and "no chat template" in shown(at) and "over characters" in shown(at).replace("\\", "")


def test_states_without_an_answer(models, runs, monkeypatch):
    assert "There is no text yet" in shown(opened(models, text=""))
    at = opened({**models, "hollow": ROOT / "docs"}, a="hollow")
    assert len(at.error) == 1 and not at.exception
    at = opened(models, cut=("entropy:threshold=-3", "<img src=x>", "word"), models="A")
    assert cuts(at) == ["words"] and len(at.warning) == 2 and not at.exception
    assert "<img" not in at.warning[1].value.replace("\\<", "")
    assert "Type the folder of a store" in shown(opened(models, what="a corpus store"))
    at = opened(models, what="a corpus store", store="/no/such<b>")
    assert "holds no store" in shown(at) and not at.exception
    monkeypatch.setattr("app.run_query.HEAVY", 1e-9)
    before = len(runs)
    at = opened(models)
    assert "by an estimate" in shown(at) and len(runs) == before
    next(button for button in at.button if button.label == "Run it").click().run()
    assert len(runs) == before + 2 and cuts(at)


@pytest.mark.parametrize("text", ["![x](http://e/p.png) <b>b</b> **b** $x$ \x00\x1b[31m \u202e שלום 你好 🦆", "a"])
def test_hostile_texts_are_inert(models, runs, text):
    at = opened(models, text=text, cut=("entropy", "fixed:k=2", "confidence_product"))
    assert not at.exception
    assert "<b>" not in json.dumps([chart.proto.spec for chart in at.get("plotly_chart")]) and "http" not in shown(at)


def test_a_store_is_judged_whole(models, runs, tmp_path):
    from data.corpus.documents import CorpusSpec, open_corpus
    from data.corpus.scoring import score_corpus
    from model.hub.loading import ModelSpec, load

    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"the cat {i} sat on the mat" for i in range(9)), "utf-8")
    corpus = open_corpus(CorpusSpec(str(texts), documents="line"))
    score_corpus(lambda: load(ModelSpec(str(models["base"]))), corpus, tmp_path / "s")
    at = opened(models, what="a corpus store", store=str(tmp_path / "s"), document="2")
    assert not at.exception and cuts(at) == ["entropy", "words"] and not runs
    assert "9 documents" in shown(at) and "the cat 2" in shown(at)
    at.selectbox(key="rule_0").set_value("router").run()
    assert "a store holds scores only" in shown(at).replace("\\", "") and cuts(at) == ["entropy", "words"]
    at = opened(models, what="a corpus store", store=str(tmp_path / "s"), cut=("word", "router"))
    assert "model first: router" in shown(at) and cuts(at) == ["words"] and not at.exception
