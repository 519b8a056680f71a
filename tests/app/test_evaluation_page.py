"""The evaluation page through Streamlit's own test runner: reports, samples side by side, invalid answers, damage."""

import json
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from analysis.export import bundle, table_bytes
from evals.report import figures, sample_figures
from evals.report.provenance import document_origin, invalid_origin, report_origin, sample_origin
from evals.report.sample_tables import document_table
from evals.report.score_rows import read_folder, report_rows
from evals.report.side_by_side import SideBySide, read_side
from evals.report.token_spans import locate_tokens
from evals.samples import WrittenAnswer
from model.errors import MicroStepError, TextError
from tests.support.command import repeat
from tests.support.evaluations import save_evaluation
from tests.support.pages import ROOT, charts, turned_to
from tests.support.pages import shown as shown_escaped

pytestmark = pytest.mark.slow

GSM8K = "gsm8k_cot_zeroshot"
EVIL = "**b** :smile: $x$ <img class=evil src=x onerror='window.hostile=1'> %{x} =1+1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluations")
    save_evaluation(root / "plain", "tiny-sft", [None])
    save_evaluation(root / "micro", "micro-step-tiny", [0.5, 1.1])
    return root


def opened(folder, **query):
    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=120)
    at.query_params["evaluations"] = str(folder)
    for key, value in query.items():
        at.query_params[key] = value
    return turned_to(at, "evaluation")


def shown(at):
    return shown_escaped(at).replace("\\", "")


def test_a_first_visit_opens_with_the_evaluation_that_comes_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    at = turned_to(AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=120), "evaluation")
    assert not at.exception and not at.error and "comes with micro_step" in shown(at)
    assert at.text_input(key="evaluations").value == "data/demo/evaluated"
    assert set(table(at, "x base")["model"]) == {"micro-step-smollm2-135m", "smollm2-135m-instruct"}


def table(at, column):
    """The one table of the page with such a column."""
    (found,) = (each.value for each in at.dataframe if column in each.value)
    return found


# --- the page


def test_an_empty_folder_says_what_makes_an_evaluation(tmp_path):
    at = opened(tmp_path)
    assert "There is no evaluation in" in shown(at) and not at.exception
    assert any(code.value.startswith("micro-step eval run --model micro-step-tiny") for code in at.code)
    for lost in (tmp_path / "nowhere", "~nobody-of-this-name/evals", "x" * 5000):
        at = opened(lost)
        assert not at.exception and not at.error and len(at.info) == 1


def test_the_report_is_that_of_the_command(folder):
    at = opened(folder)
    assert not at.exception and not at.error
    rows = report_rows([read_folder(folder / name) for name in ("plain", "micro")])
    assert set(at.multiselect(key="evaluation").value) == {"plain", "micro"}
    assert table(at, "x base").to_dict() == figures.reading_table(rows).to_dict()
    assert len(charts(at)) == 2 and len(at.metric) == 4
    at.selectbox(key="benchmark").set_value(GSM8K).run()
    assert at.metric[0].value == "80.0 ± 20.0%" and at.metric[1].value == "1.79" and at.metric[3].value == "20.0%"


def test_one_run_stands_alone(folder):
    at = opened(folder / "plain", benchmark=GSM8K)
    assert not at.exception and not at.error
    assert at.multiselect(key="evaluation").value == ["plain"]
    assert at.selectbox(key="run_b").value == "no second run"
    documents = table(at, "score_A")
    assert "score_B" not in documents and len(documents) == 5
    assert any(code.value.startswith("Q: Ann has") for code in at.code)


def test_two_runs_are_stepped_through_and_filtered(folder):
    at = opened(folder, benchmark=GSM8K, run_a="micro-step-tiny (0.5)", run_b="micro-step-tiny (1.1)")
    assert not at.exception and at.number_input(key="sample").value == 0
    at.button(key="sample_next").click().run()
    assert at.number_input(key="sample").value == 1 and "2 of 5" in shown(at)
    at.segmented_control(key="show").set_value("wrong in A, right in B").run()
    assert table(at, "score_A")["document"].tolist() == [0, 2]
    assert at.number_input(key="sample").value == 2 and at.button(key="sample_next").disabled
    at.button(key="sample_previous").click().run()
    facts = table(at, "fact").set_index("fact")
    assert facts.loc["ours", "A"] == "0" and facts.loc["ours", "B"] == "1.00"
    assert facts.loc["ours: read", "A"] == "1000" and facts.loc["right answer", "B"] == "7"
    assert "B minus A in ours, on the same 5 documents: +0.4" in shown(at)
    assert "B is better on 2 and worse on 0" in shown(at)
    at.segmented_control(key="show").set_value("wrong in B, right in A").run()
    assert "No documents match" in shown(at) and not at.exception
    at.segmented_control(key="show").set_value("invalid").run()
    assert table(at, "score_A")["document"].tolist() == [4]
    at.number_input(key="sample").set_value(1).run()
    assert at.number_input(key="sample").value == 4 and not at.exception


def test_invalid_answers_are_listed_with_their_reasons(folder):
    at = opened(folder, benchmark=GSM8K, invalid_run="micro-step-tiny (0.5)")
    listed = table(at, "reason")
    assert listed["document"].tolist() == [4] and "truncated before an answer" in listed["reason"][0]
    assert any(code.value == "Well, let me think about 5" for code in at.code)
    at.segmented_control(key="way").set_value("flexible").run()
    assert "No answer is invalid: flexible could read all 5" in shown(at) and not at.exception
    at.selectbox(key="benchmark").set_value("arc_challenge").run()
    assert "no answer is invalid" in shown(at) and "No text was written" in shown(at) and not at.exception
    assert "log-likelihood of B, nats" in table(at, "fact")["fact"].tolist()


def test_a_link_says_what_is_looked_at(folder):
    query = {"evaluation": "micro", "benchmark": GSM8K, "run_a": "micro-step-tiny (1.1)", "sample": "3"}
    at = opened(folder, **query, run_b="micro-step-tiny (0.5)", judged_by="strict", show="all", way="strict")
    assert not at.exception and at.multiselect(key="evaluation").value == ["micro"]
    assert at.selectbox(key="judged_by").value == "strict" and at.number_input(key="sample").value == 3
    assert at.segmented_control(key="way").value == "strict"
    bad = {"evaluation": ["gone", "plain"], "benchmark": "gone", "run_a": "gone", "sample": "99999999999999999999"}
    at = opened(folder, **bad, show="gone", judged_by="gone", way="gone")
    assert not at.exception and "Not in this folder: gone" in shown(at)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("manifest.json", '"threads"', '"heads"', "lacks threads"),
        ("manifest.json", "micro_step evaluation 1", "?", "holds no evaluation"),
        (f"{GSM8K}@base.jsonl", '"tokens": ', '"tokens": "<img src=x>", "t": ', "is damaged"),
        (f"{GSM8K}@base.jsonl", '"starts": [0', '"starts": [77', "segments start at"),
        (f"{GSM8K}@base.jsonl", '"ours"', '"theirs"', "has no score 'ours'"),
        (f"{GSM8K}@base.jsonl", f'"{GSM8K}"', '"gsm8k_tokens"', "it was renamed"),
    ],
)
def test_a_damaged_folder_is_said_and_left_out(tmp_path, file, old, new, said):
    save_evaluation(tmp_path / "good", "good", [0.5])
    path = save_evaluation(tmp_path / "bad", "bad", [None]) / file
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")
    at = opened(tmp_path)
    assert not at.exception and len(at.error) == 1 and said in at.error[0].value.replace("\\", "")
    assert set(table(at, "x base")["model"]) == {"good"} and "<img" not in shown_escaped(at)


def test_names_prompts_and_answers_stay_text(tmp_path):
    save_evaluation(tmp_path / EVIL.replace("/", ""), EVIL, [0.5, 1.1], [EVIL, f"The answer is 17. {EVIL}", "", "\x00"])
    at = opened(tmp_path, benchmark=GSM8K)
    assert not at.exception and not at.error
    drawn = json.dumps(charts(at))
    assert "<img" not in drawn and "%{x} =" not in json.dumps([
        trace.get("hovertemplate", "") for figure in charts(at) for trace in figure["data"]
    ])  # fmt: skip
    assert "**b**" not in shown_escaped(at) and "<img" not in shown_escaped(at).replace("\\<", "")
    for number in range(1, 4):
        at.number_input(key="sample").set_value(number).run()
        assert not at.exception and not at.error


def test_models_of_one_name_are_told_apart(tmp_path):
    for name in ("x/one", "y/one", "two"):
        save_evaluation(tmp_path / name, "tiny", [None])
    names = {row.model for row in report_rows([read_folder(tmp_path / name) for name in ("x/one", "y/one", "two")])}
    assert len(names) == 3 and "tiny [x/one]" in names
    assert len(opened(tmp_path).selectbox(key="run_a").options) == 3


# --- tables, and the commands that make them again


def test_documents_are_compared_by_any_score(folder):
    sides = tuple(read_side(folder / "micro" / f"{GSM8K}@{tau}.jsonl") for tau in ("0.5", "1.1"))
    assert document_table(SideBySide(sides, "ours"), "differing")["document"].tolist() == [0, 2]
    assert document_table(SideBySide(sides, "strict"), "b-wrong").empty
    with pytest.raises(MicroStepError, match="has no score 'x'"):
        SideBySide(sides, "x")
    with pytest.raises(MicroStepError, match="give a second one"):
        document_table(SideBySide(sides[:1], "ours"), "differing")
    with pytest.raises(MicroStepError, match="of one benchmark"):
        SideBySide((sides[0], read_side(folder / "micro" / "arc_challenge@0.5.jsonl")), "ours")
    with pytest.raises(TextError, match="holds no samples"):
        read_side(folder / "nowhere.jsonl")


@pytest.mark.parametrize(
    ("text", "tokens", "spans"),
    [
        ("a b", ("a", " b", "<end>"), ["a", " b", "<end>"]),
        ("The cat", ("The", "cat"), ["The", " cat"]),  # a tokenizer that keeps spaces apart
        ("x é!", ("x", " ", "\ufffd", "\ufffd", "!"), ["x", " ", "é", "é", "!"]),  # a character split in two
        ("é", ("\ufffd", "\ufffd"), ["é", "é"]),
        ("", (), []),
    ],
)
def test_tokens_are_found_in_their_text(text, tokens, spans):
    whole, start, end = locate_tokens(
        WrittenAnswer(text, tokens, tuple(range(len(tokens))), (0,) if tokens else (), None, True)
    )
    assert [whole[a:b] for a, b in zip(start.tolist(), end.tolist(), strict=True)] == spans


def cases(folder):
    names = ("plain", "micro")
    found = {name: read_folder(folder / name) for name in names}
    rows = report_rows(list(found.values()))
    mine = [row for row in rows if row.benchmark.name == GSM8K]
    beside = SideBySide(tuple(read_side(folder / "micro" / f"{GSM8K}@{tau}.jsonl") for tau in ("0.5", "1.1")), "ours")
    return {
        "report": (figures.report(rows), report_origin(found, rows)),
        "score": (figures.score(mine), report_origin(found, mine, GSM8K)),
        "documents": (sample_figures.documents(beside, "a-wrong"), document_origin(beside, "a-wrong")),
        "tokens": (sample_figures.tokens(beside, 2), sample_origin(beside, 2, 1)),
        "facts": (sample_figures.facts(beside, 2), sample_origin(beside, 2, 1)),
        "invalid": (sample_figures.invalid(beside.sides[0], "ours"), invalid_origin(beside.sides[0], "ours")),
    }


@pytest.mark.parametrize("name", ["report", "score", "documents", "tokens", "facts", "invalid"])
def test_an_export_is_made_again_by_its_command(folder, tmp_path, monkeypatch, name):
    drawn, origin = cases(folder)[name]
    for path, content in origin.files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert repeat(monkeypatch, origin.command(drawn.name, "figure.csv")) == 0
    assert Path("figure.csv").read_bytes() == table_bytes(drawn.data, "csv")
    assert drawn.figure.to_json() and len(pd.read_csv("figure.csv")) == len(drawn.data) > 0


def test_a_bundle_holds_no_texts_that_its_figure_does_not_show(folder, monkeypatch):
    monkeypatch.setattr("analysis.export.chrome", lambda: None)
    drawn, origin = cases(folder)["report"]
    assert b"Ann has" not in b"".join(origin.files.values()) and bundle(drawn, origin)
    _, origin = cases(folder)["tokens"]
    assert b"".join(origin.files.values()).count(b"Ann has") == 2
