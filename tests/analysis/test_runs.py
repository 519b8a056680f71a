"""Training runs read for tables and figures: smoothing and tables against values worked out by hand, damaged logs."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import zipfile
from pathlib import Path
from time import time

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import stdtrit

from analysis.runs import tables
from analysis.runs.cli import FIGURE_NAMES
from analysis.runs.curves import CURVES, curve_table, log_table, smoothed
from analysis.runs.discovery import MOST, Place, find_all, find_runs
from analysis.runs.figure_style import colours, thinned, where
from analysis.runs.figures import FIGURES, draw
from analysis.runs.log import Follower, RunLog, RunStatus, read_log
from analysis.runs.log_cache import LogCache
from analysis.runs.positions import accuracy, position_curve_table, position_table
from analysis.runs.summary import duration, summarise
from analysis.runs.view import RunsView
from data.run_folder import CHECKPOINTS, FACTS, LOG, MODEL, from_line, read_facts, to_line
from model.errors import MicroStepError, TextError
from tests.support.command import call, repeat
from tests.support.training_logs import facts, line, lines, save_run
from trainer.metrics import MetricSums


def run_of(log, name="tiny", look=None, **more):
    return RunLog(name, Path("nowhere"), facts(name, **more), tuple(log), look or RunStatus(True))


def test_smoothing_equals_the_sum_that_defines_it():
    """b = 1/2, values 4, 1, 7, weights 1, 3, 2: 4; (2 + 3) / (1/2 + 3); (1 + 3/2 + 14) / (1/4 + 3/2 + 2)."""
    found = smoothed([4, 1, 7], [1, 3, 2], 0.5)
    np.testing.assert_allclose(found, [4, (0.5 * 4 + 3) / 3.5, (0.25 * 4 + 0.5 * 3 + 14) / 3.75], rtol=1e-15)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(smoothed([4, 1, 7], [1, 3, 2], 0.0), [4, 1, 7])
    np.testing.assert_allclose(smoothed([2.5] * 5, [3, 1, 4, 1, 5], 0.99), 2.5, rtol=1e-15)


def test_smoothing_passes_over_what_is_missing():
    found = smoothed([4, np.nan, np.inf, 1], [1, 1, 1, 3], 0.5)
    assert np.isnan(found[1:3]).all()
    assert found[3] == pytest.approx((4 / 8 + 3) / (1 / 8 + 3), rel=1e-15)
    assert np.isnan(smoothed([1.0], [0.0], 0.5)).all()
    for bad in (-0.1, 1.0, float("nan")):
        with pytest.raises(MicroStepError, match="smoothing"):
            smoothed([1.0], [1.0], bad)


def test_an_accuracys_interval_is_over_rows():
    """Wilson's, from the count of tokens, took the tokens of an answer as independent.

    Three rows of 4, 4 and 2 tokens with 4, 2 and 0 right ones: 0.6 of 10; the squares of right - 0.6 tokens sum to
    2.56 + 0.16 + 1.44 = 4.16; the error is sqrt(3/2 x 4.16) / 10 = 0.2498; the rows count as 100 / 36 = 2.778.
    """
    row = torch.tensor([0] * 4 + [1] * 4 + [2] * 2)
    right = torch.tensor([1, 1, 1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.bool)
    place = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 0, 0])
    whole = MetricSums.of(2, place, torch.ones(10), right).with_rows(row, place, right)
    parts = [
        MetricSums.of(2, place[a:b], torch.ones(b - a), right[a:b]).with_rows(row[a:b] - row[a], place[a:b], right[a:b])
        for a, b in ((0, 4), (4, 10))
    ]
    found = MetricSums.zeros(2, torch.device("cpu"), rows=True) + parts[0] + parts[1]
    torch.testing.assert_close(found.rows, whole.rows)
    assert found.accuracy_errors[0] == pytest.approx(0.24980, abs=1e-5) and found.row_counts[0] == pytest.approx(25 / 9)
    told = line(10, "validation", accuracy=0.6, row_counts=found.row_counts, accuracy_errors=found.accuracy_errors)
    assert from_line(to_line(told)) == told
    half = stdtrit(16 / 9, 0.975) * 0.24980
    assert half > 0.4 and accuracy(told).ends("{:.3f}".format) == "0.000 to 1.000", "no share is less than 0"
    error = 0.05
    narrow = accuracy(dataclasses.replace(told, row_counts=(30.0,) * 3, accuracy_errors=(error,) * 3))
    assert (narrow.low, narrow.high) == pytest.approx((0.6 - 2.04523 * error, 0.6 + 2.04523 * error), abs=1e-5)


def test_an_older_log_has_no_interval():
    old = {key: value for key, value in dataclasses.asdict(line(10, "validation")).items()
           if key not in ("row_counts", "accuracy_errors")}  # fmt: skip
    told = from_line(json.dumps(old))
    assert told.row_counts == () and not accuracy(told).known and not accuracy(told, 1).known
    assert np.isnan(position_table([run_of([told])])["accuracy_low"]).all()
    with pytest.raises(ValueError, match="standard error"):
        from_line(json.dumps({**old, "row_counts": [1.0]}))


def test_the_table_of_a_handmade_log():
    log = [
        line(10, token_loss=2.0, loss=2.5, tokens=100, seen=100, seconds=1.0, tokens_per_second=300.0),
        line(20, token_loss=1.0, loss=1.5, tokens=50, seen=150, seconds=2.0, tokens_per_second=None),
        line(20, "validation", token_loss=1.25, loss=1.75, accuracy=0.5, tokens=40, seen=150, seconds=2.0),
    ]
    run = run_of(log)
    table = tables.runs_table([run], "bits").iloc[0]
    assert (table["steps"], table["planned"], table["seen"], table["state"]) == (20, 400, 150, "finished")
    assert table["loss"] == pytest.approx(1.5 / math.log(2)) and table["validation_loss"] == pytest.approx(
        1.75 / math.log(2)
    )
    assert table["validation_accuracy"] == 0.5 and table["tokens_per_second"] == 300.0  # a median
    curves = curve_table([run], ["token_loss", "rates", "teacher_loss"], "nats", 0.5)
    loss = curves[curves["curve"] == "token_loss"]
    assert loss["value"].tolist() == [2.0, 1.0, 1.25] and loss["split"].tolist() == ["train", "train", "validation"]
    np.testing.assert_allclose(loss["smoothed"], [2.0, (0.5 * 100 * 2 + 50) / (0.5 * 100 + 50), 1.25], rtol=1e-15)
    rates = curves[curves["curve"] == "rates"]
    assert rates["group"].tolist() == ["new", "new"] and rates["value"].tolist() == [1e-4, 1e-4]
    assert not (curves["curve"] == "teacher_loss").any()
    whole = log_table([run])
    assert whole["token_loss"].tolist() == [2.0, 1.0, 1.25] and whole["rate_new"].isna().tolist() == [
        False,
        False,
        True,
    ]


def test_positions_are_of_the_last_validation():
    log = [
        line(10, position_tokens=(5, 3), position_loss=(1.0, 3.0), position_accuracy=(0.5, 0.1)),
        line(10, "validation", position_tokens=(10, 4, 0), position_loss=(2.0, 4.0, None),
             position_accuracy=(0.8, 0.25, None), row_counts=(12.0, 10.0, 1.0, 0.0),
             accuracy_errors=(0.1, 0.1, None, None)),
        line(20, position_tokens=(6, 2), position_loss=(0.5, 2.0), position_accuracy=(0.6, 0.2)),
    ]  # fmt: skip
    table = position_table([run_of(log)], "nats")
    assert table["predicted_by"].tolist() == ["base", "micro decoder"] and table["tokens"].tolist() == [10, 4]
    assert table["split"].tolist() == ["validation"] * 2 and table["nll"].tolist() == [2.0, 4.0]
    assert table["accuracy_low"].iloc[0] == pytest.approx(0.8 - 2.262157 * 0.1) and np.isnan(table["accuracy_low"][1])
    over = position_curve_table([run_of(log)], "nll", "nats", 0.5)
    second = over[(over["position"] == 1) & (over["split"] == "train")]
    assert second["value"].tolist() == [3.0, 2.0] and second["tokens"].tolist() == [3, 2]
    np.testing.assert_allclose(second["smoothed"], [3.0, (1.5 * 3 + 2 * 2) / (1.5 + 2)], rtol=1e-15)
    assert position_table([run_of(log[:1])])["split"].tolist() == ["train"] * 2


def test_finding_runs(tmp_path):
    first = save_run(tmp_path / "first")
    save_run(tmp_path / "sweep" / "seed-1", checkpoints=1)
    (tmp_path / "empty").mkdir()
    save_run(tmp_path / "a" / "b" / "c" / "too-deep")
    assert {place.name for place in find_runs(tmp_path).places} == {"first", "sweep/seed-1"}
    assert find_runs(first).places == (Place("first", first),)
    assert [place.name for place in find_all([tmp_path / "sweep"])] == ["seed-1"]
    assert [place.name for place in find_all([tmp_path / "sweep", first], tmp_path)] == ["sweep/seed-1", "first"]
    assert [place.name for place in find_all([tmp_path / "sweep", first])] == ["sweep/seed-1", "first"]
    for lost in (tmp_path / "nowhere", Path("x\0y")):
        with pytest.raises(TextError):
            find_runs(lost)
    with pytest.raises(TextError, match="not below"):
        find_all([first], tmp_path / "sweep")


def test_the_newest_runs_come_first_and_very_many_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.runs.discovery.MOST", 2)
    for age, name in enumerate(("new", "old", "oldest")):
        path = save_run(tmp_path / name, [])
        for file in path.iterdir():
            os.utime(file, (time() - 100 * age,) * 2)
    found = find_runs(tmp_path)
    assert [place.name for place in found.places] == ["new", "old"] and found.left_out == 1 and MOST > 100


def test_a_damaged_line_is_named_and_the_others_are_kept(tmp_path):
    path = save_run(tmp_path / "run", lines(30))
    log = (path / LOG).read_text().splitlines(keepends=True)
    (path / LOG).write_text(log[0] + "{broken\n" + log[1] + '{"step": "x"}\n' + log[2])
    run = read_log(path, "run", time())
    assert [each.step for each in run.lines] == [10, 20, 30]
    assert "line 2 is not a line of a training log, nor is 1 other; the other 3 are shown" in run.damage[0]
    (path / LOG).write_bytes(b"\xff\x00\n")
    assert "there are no others" in read_log(path, "run", time()).damage[0]
    (path / FACTS).write_text("[]")
    with pytest.raises(TextError, match="damaged"):
        read_log(path, "run", time())


def test_facts_and_lines_of_wrong_kinds_are_refused(tmp_path):
    path = save_run(tmp_path / "run")
    for name, value in (("steps", "many"), ("parameters", {"new": 1.5}), ("stages", [{"name": "x"}]), ("base", None)):
        said = json.loads((path / FACTS).read_text())
        (path / FACTS).write_text(json.dumps({**said, name: value}))
        with pytest.raises(TextError, match="damaged"):
            read_facts(path)
        (path / FACTS).write_text(json.dumps(said))
    good = json.loads(to_line(line(10)))
    assert from_line(to_line(line(10))) == line(10)
    for wrong in ({"loss": "low"}, {"split": "test"}, {"position_loss": [1.0]}, {"rates": [1]}, {"step": True}):
        with pytest.raises(ValueError, match="."):
            from_line(json.dumps({**good, **wrong}))


def test_a_follower_reads_only_what_is_new(tmp_path, monkeypatch):
    path = tmp_path / LOG
    follower = Follower(path)
    assert follower.read() == ((), (), 0)
    path.write_text("".join(map(to_line, lines(30))))
    count = []
    monkeypatch.setattr("analysis.runs.log.from_line", lambda each: (count.append(each), from_line(each))[1])
    assert len(follower.read()[0]) == 3 and len(count) == 3
    half = to_line(line(40))
    with path.open("a") as file:
        file.write(half[:25])
    assert len(follower.read()[0]) == 3
    with path.open("a") as file:
        file.write(half[25:])
    assert [each.step for each in follower.read()[0]] == [10, 20, 30, 40] and len(count) == 4
    assert follower.read()[0] == tuple(lines(40)) and len(count) == 4


def test_a_log_that_was_written_anew_is_read_anew(tmp_path):
    """Even if it has become longer than what was read before."""
    path = tmp_path / LOG
    path.write_text("".join(map(to_line, lines(50))))
    follower = Follower(path)
    follower.read()
    path.write_text("".join(map(to_line, lines(90, speed=2.0))))
    assert follower.read()[0] == tuple(lines(90, speed=2.0))
    path.write_text("".join(map(to_line, lines(20))))
    assert len(follower.read()[0]) == 2
    path.unlink()
    assert follower.read()[0] == ()


def test_steps_that_were_done_again_count_once(tmp_path):
    again = [line(step, speed=3.0) for step in (210, 220)]
    path = save_run(tmp_path / "run", [*lines(300), *again])
    run = read_log(path, "run", time())
    steps = [each.step for each in run.of("train")]
    assert steps == sorted(set(steps)) and steps[-1] == 220 and run.of("train")[-1] == again[-1]
    assert [each.step for each in run.of("validation")] == [100, 200] and run.repeated == 11
    assert "11 lines are left out" in tables.remarks(run)[0]


def test_the_state_is_told_from_files(tmp_path):
    path = save_run(tmp_path / "run", lines(100))
    assert read_log(path, "run", time()).state == "running"
    assert read_log(path, "run", time() + 61).state == "stopped"
    slow = [line(10 * i, seconds=100.0 * i) for i in range(1, 5)]
    (path / LOG).write_text("".join(map(to_line, slow)))
    assert read_log(path, "run", time() + 400).state == "running"
    assert read_log(path, "run", time() + 600).state == "stopped"
    assert read_log(path, "run", time()).seconds_left == pytest.approx((400 - 40) * 10)
    assert read_log(path, "run", time() - 1000).look.age == 0
    (path / MODEL).mkdir()
    (path / MODEL / "adapter_config.json").write_text("{}")
    place = path / CHECKPOINTS / "step-00000020" / MODEL
    place.mkdir(parents=True)
    (path / CHECKPOINTS / "step-00000040.part" / MODEL).mkdir(parents=True)
    run = read_log(path, "run", time())
    assert run.state == "finished"
    assert [each.title for each in run.look.checkpoints] == ["step 20", "final model"]


def test_a_shelf_reads_a_log_once_and_says_what_cannot_be_read(tmp_path, monkeypatch):
    save_run(tmp_path / "good", lines(200))
    (save_run(tmp_path / "bad") / FACTS).write_text("{}")
    shelf, places = LogCache(), find_runs(tmp_path).places
    found = shelf.briefly(places)
    assert [run.name for run in found.runs] == ["good"] and len(found.problems) == 1 and "version" in found.problems[0]
    assert tables.runs_table(found.runs).iloc[0]["steps"] == 200 and len(found.runs[0].of("train")) == 20
    monkeypatch.setattr("analysis.runs.log.from_line", None)  # nothing is read again
    assert shelf.briefly(places).runs[0].lines == found.runs[0].lines
    assert len(shelf.runs(find_runs(tmp_path / "good").places).runs[0].lines) == 22


def test_facts_stand_side_by_side(tmp_path):
    one, two = (read_log(save_run(tmp_path / name, [], seed=i), name, 0) for i, name in enumerate(("fact", "two")))
    table = tables.facts_table([one, two]).set_index("fact")
    assert table.loc["recipe: model.merger", "two"] == "residual_softmax" and not table.loc["data", "differs"]
    assert table.loc["seed", "differs"] and table.loc["seed", "two"] == "1" and table.columns[1] == "fact "
    assert table.loc["recipe: stages[1].name", "two"] == "joint"
    for hostile in ("[" * 5000, "a: 2020-99-99", "\x00", "- 1", "a: &a [*a]"):
        (one.path / "recipe.yaml").write_text(hostile)
        assert len(tables.facts_table([one]))
    assert "data" in tables.unlike([one, dataclasses.replace(two, facts=facts(data_hash="other"))])
    assert tables.unlike([one, two]) == ""


def test_the_summary_is_of_the_lowest_validation():
    fast, slow = run_of(lines(200, 4.0), "fast"), run_of(lines(400), "slow", RunStatus(False))
    only_train = run_of([line(10, loss=0.001)], "early")
    found = summarise([slow, fast, only_train])
    assert found is not None and found.best is fast and found.under_way is slow and found.line.step == 200
    assert summarise([only_train]).validated is False and summarise([run_of([])]) is None
    assert summarise([run_of([line(10, loss=float("nan"))]), fast]).best is fast
    assert (found.compared, found.apart) == (2, 0)
    assert [duration(each) for each in (4, 600, 7200)] == ["4 s", "10 min", "2.0 h"]


def test_the_best_run_is_that_of_the_best_tokens_among_runs_that_compare():
    """It was chosen by what is minimised: a run without a weight on its stops won with the worse token loss."""
    worse = run_of([line(10, "validation", token_loss=2.0, loss=2.0)], "no stops")
    better = run_of([line(10, "validation", token_loss=1.8, loss=2.3)], "stops")
    found = summarise([worse, better])
    assert found is not None and found.best is better and found.compared == 2
    elsewhere = dataclasses.replace(run_of([line(10, "validation", token_loss=0.1)]), facts=facts(data_hash="other"))
    draft = dataclasses.replace(run_of([line(10, "validation", token_loss=0.1)]), facts=facts(objective="draft"))
    found = summarise([worse, elsewhere, better, draft])
    assert found is not None and found.best is better and (found.compared, found.apart) == (2, 2)
    weighted = run_of([line(10, stop_loss=None)], "b")
    assert "compare their loss per token" in tables.unlike([run_of([line(10)], "a"), weighted])


def test_stages_stand_where_they_begin_on_each_axis():
    run = run_of(lines())
    assert [where(run, 200, x) for x in ("step", "tokens", "seconds")] == [200, 200 * 512, pytest.approx(14.0)]
    figure = draw("curves", [run], RunsView(("loss", "accuracy"), "tokens")).figure
    assert [shape.x0 for shape in figure.layout.shapes] == [200 * 512] * 2
    assert [note.text for note in figure.layout.annotations] == ["new·modules", "joint"]
    early = draw("curves", [run_of(lines(100))], RunsView()).figure
    assert not early.layout.shapes and len(early.layout.annotations) == 1


def test_a_run_has_one_colour_in_every_figure():
    runs = [run_of(lines(), "one"), run_of(lines(200, 2), "<b>two</b>")]
    view = RunsView(("loss", "rates"), smoothing=0.5)
    for name in ("curves", "positions", "position_curves"):
        traces = draw(name, runs, view).figure.data
        for run in runs:
            shown = str(run.name).replace("<", "&lt;").replace(">", "&gt;")
            own = {trace.line.color for trace in traces if trace.name and trace.name.split(",")[0] == shown}
            assert own == {colours(runs, "light")[run.name]}, name
        assert "<b>two" not in json.dumps([trace.name for trace in traces])
    faint = [trace for trace in draw("curves", runs, view).figure.data if trace.opacity]
    assert len(faint) == 2 and all(len(trace.x) == 40 - 20 * i for i, trace in enumerate(faint))


def test_long_lines_are_thinned_and_keep_their_peaks():
    values = np.sin(np.arange(50_000) / 1000)
    values[33_333], values[7] = 9.0, np.nan
    kept = thinned(values)
    assert len(kept) <= 802 and 33_333 in kept and kept[0] == 0 and kept[-1] == 49_999
    assert thinned(np.full(9000, np.nan)).size and (thinned(np.arange(5.0)) == np.arange(5)).all()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_runs_with_little_in_them(name, theme):
    view = RunsView(tuple(CURVES), log=True, theme=theme)
    one_position = line(10, position_tokens=(5,), position_loss=(1.0,), position_accuracy=(0.5,))
    for log in ([], [line(10)], [line(10, "validation")], [one_position], [line(10, loss=float("nan"))]):
        drawn = draw(name, [run_of(log)], view)
        assert drawn.figure.to_json() and drawn.caption


def test_unknown_views_are_refused():
    for given in ({"curves": ()}, {"curves": ("hope",)}, {"smoothing": 1.0}, {"x": "days"}, {"measure": "luck"}):
        with pytest.raises(MicroStepError):
            RunsView(**given)


def test_the_command_writes_each_table(tmp_path, command):
    save_run(tmp_path / "runs" / "one", lines(100))
    (save_run(tmp_path / "runs" / "bad") / FACTS).write_text("{}")
    for table, rows in (("runs", 1), ("curves", 11), ("positions", 4)):
        out = tmp_path / f"{table}.csv"
        code, said, errors = command("runs", tmp_path / "runs", "--table", table, "--out", out)
        assert code == 0 and str(out) in said and "another version" in errors[0]
        assert len(pd.read_csv(out)) == rows
    code, said, _ = command("runs", tmp_path / "runs" / "one")
    assert code == 0 and "validation_loss" in said


@pytest.mark.parametrize("name", FIGURE_NAMES)
def test_every_figure_has_a_bundle_that_makes_its_data_again(tmp_path, monkeypatch, capsys, name):
    save_run(tmp_path / "logs" / "my run" / "seed 1", lines(200), finished=True)
    other = save_run(tmp_path / "logs" / "-other", lines(120, 2), data_hash="x")
    os.utime(other / LOG, (time() - 900,) * 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("analysis.export.chrome", lambda: None)
    words = [
        "runs",
        "--figure",
        name,
        "logs",
        "--curves",
        "loss accuracy rates",
        "--x",
        "tokens",
        "--log",
        "--smoothing",
        0.9,
    ]
    assert call(monkeypatch, *words, "--measure", "nll", "--unit", "nats", "--out", "x.zip") == 0, capsys.readouterr()
    with zipfile.ZipFile("x.zip") as archive:
        archive.extractall("there")
    monkeypatch.chdir(tmp_path / "there")
    command = Path("README.txt").read_text().strip().splitlines()[-1]
    first = Path("figure.csv").read_bytes()
    Path("figure.csv").unlink()
    assert repeat(monkeypatch, command) == 0, capsys.readouterr()
    assert Path("figure.csv").read_bytes() == first and len(first.splitlines()) > 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("runs", "nowhere"), "no folder"),
        (("runs",), "no folder runs"),
        (("runs", "."), "no training run"),
        (("runs", "--figure", "pie"), "curves, positions"),
        (("runs", "--figure", "curves", "one", "--curves", "hope"), "token_loss"),
        (("runs", "--figure", "curves", "one", "--smoothing", "1"), "0 to 0.99"),
        (("runs", "--figure", "curves", "one", "--seen", "one/run.json"), "seen.json"),
    ],
)
def test_mistakes_end_with_one_line(tmp_path, monkeypatch, command, words, said):
    save_run(tmp_path / "work" / "one")
    (tmp_path / "work" / "none").mkdir()
    monkeypatch.chdir(tmp_path / "work" / ("." if "--figure" in words else "none"))
    code, _, errors = command(*words, "--out", tmp_path / "x.csv")
    assert code != 0 and said in errors[-1] and not (tmp_path / "x.csv").exists()
