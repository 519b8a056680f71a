"""Grids: which runs they are, that sources are left out of training alone, what is kept, and the table at the end."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from data.prepared import STORE, read_prepared
from data.run_folder import RECIPE, read_run
from data.segmentation_config import SegmentationConfig
from data.yaml_config import dump_yaml
from evals.ablation import run as ablation
from evals.ablation.dry_run import plan
from evals.ablation.grid import FOLDER, AblationGrid, read_grid, runs_of
from evals.ablation.run import MEASURES, ablate, is_made
from evals.ablation.table import AblationRow, as_csv, as_markdown, interval, rows_of
from evals.samples import file_name
from model.errors import ExportError, MicroStepError
from model.hub.loading import ModelSpec, load
from model.terminal import start
from tests.support.command import call
from tests.support.evaluations import lines, write_local
from tests.support.processes import Forked
from tests.support.tiny import save_tiny
from tests.support.training import conversation, make_prepared, recipe
from trainer.batches.dataset import rows_of as rows_of_recipe
from trainer.batches.dataset import training_rows
from trainer.final_eval import bits_per_byte
from trainer.loop import Trainer, accelerator_for
from trainer.run import RunPaths
from trainer.setup import build

pytestmark = pytest.mark.slow


def quiet(message: str, fraction: float | None) -> None:
    """Says nothing."""


SOURCES = ("birds.jsonl", "hats.jsonl")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny", "llama", seed=3, chat=True)


@pytest.fixture(scope="module")
def base_recipe(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe on a mix of two files, as a user would write it."""
    folder, chance = tmp_path_factory.mktemp("recipe"), random.Random(1)
    columns = {"prompt": "q", "response": "a"}
    for name in SOURCES:
        talks = [conversation(chance) for _ in range(24)]
        said = [{"q": f"{talk[0]['content']} {i}", "a": talk[1]["content"]} for i, talk in enumerate(talks)]
        (folder / name).write_text(lines(*said), "utf-8")
    uses = [{"file": name, "columns": columns} for name in SOURCES]
    (folder / "two.yaml").write_text(yaml.safe_dump({"name": "two", "sources": uses, "held_out": 4}), "utf-8")
    chosen = recipe(model, steps=2, data={"mix": str(folder / "two.yaml")}, validation={"every": 2})
    (folder / "recipe.yaml").write_text(dump_yaml(chosen), "utf-8")
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_local(tmp_path_factory.mktemp("local"))


def grid_of(path: Path, recipe: Path, **more: Any) -> AblationGrid:
    said = {"name": "g", "recipe": str(recipe), "seeds": [0, 1], "decode": None, **more}
    if "variants" not in said and "leave_out" not in said:
        said["leave_out"] = "sources"
    path.write_text(yaml.safe_dump(said, sort_keys=False), "utf-8")
    return read_grid(str(path))


@pytest.fixture(scope="module")
def done(base_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[AblationGrid, Path, list[AblationRow]]:
    """A grid that leaves out each of two sources, with two seeds, and its rows."""
    folder = tmp_path_factory.mktemp("grid")
    grid = grid_of(folder / "g.yaml", base_recipe)
    return grid, folder / "out", ablate(grid, folder / "out", device="cpu")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs that are trained from here on."""
    import trainer.run

    names, real = list[str](), trainer.run.run_recipe

    def counted(recipe: Any, *rest: Any) -> Any:
        names.append(recipe.name)
        return real(recipe, *rest)

    monkeypatch.setattr(trainer.run, "run_recipe", counted)
    return names


# --- which runs


def test_every_grid_of_the_project_is_right() -> None:
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    assert {"line-breaks", "mergers", "segmentations", "sources", "stages"} <= set(names)
    for name in names:
        grid = read_grid(name)
        assert grid.name == name
        assert len(runs_of(grid)) == len(grid.variants) * len(grid.seeds)
    assert [run.recipe.name for run in runs_of(read_grid("stages"))][3:6] == [
        f"stages-joint-from-the-start-{seed}" for seed in (0, 1, 2)
    ]


def test_each_source_is_left_out_once_in_as_many_steps_on_the_same_data() -> None:
    runs = runs_of(read_grid("sources"))
    left_out = [run.recipe.data.without for run in runs if run.seed == 0]
    assert left_out == [(), ("gsm8k",), ("dolly_hhrlhf",), ("tinystories",), ("thealgorithms_python",)]
    assert len({(run.recipe.steps, run.recipe.batch.tokens) for run in runs}) == 1
    assert len({RunPaths(Path("out") / run.recipe.name).prepared_for(run.recipe) for run in runs}) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"evaluat": {}}, "unknown key 'evaluat'; did you mean 'evaluate'"),
        ({"evaluate": {"tasks": ["gsm8k_tokens"], "limt": 3}}, "unknown key 'evaluate.limt'; did you mean 'limit'"),
        ({"evaluate": {"tasks": []}}, "evaluate.tasks"),
        ({"variants": {}, "leave_out": None}, "give either variants, or `leave_out: sources`"),
        ({"variants": {"a": {}}, "leave_out": "sources"}, "give either variants"),
        ({"variants": {"a": {"stagez": []}}}, "the variant 'a' of the grid g: unknown key 'stagez'; did you mean"),
        ({"variants": {"a": {"data": {"witout": []}}}}, "unknown key 'data.witout'; did you mean 'without'"),
        ({"variants": {"a": {"data": {"without": ["owls"]}}}}, "has no 'owls'; it has birds.jsonl, hats.jsonl"),
        (
            {"variants": {"a": {"evaluate": {"taks": ["x"]}}}},
            "the variant 'a' of the grid g, evaluate: unknown key 'taks'; did you mean 'tasks'",
        ),
        ({"variants": {"a": {"evaluate": {"limit": 3}}}}, "the key 'tasks' is missing"),
        ({"variants": {"a": {"evaluate": 3}}}, "evaluate must hold keys and values"),
        ({"variants": {"a b": {}, "a-b": {}}}, "the same folder, g-a-b-0"),
        ({"seeds": [1, 1]}, "one is given twice"),
    ],
)
def test_a_wrong_grid_is_one_line(change: dict[str, Any], said: str, base_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(MicroStepError) as caught:
        runs_of(grid_of(tmp_path / "g.yaml", base_recipe, **change))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_benchmark_that_cannot_run_is_said_before_anything_is_trained(
    base_recipe: Path, tmp_path: Path, local: Path, trained: list[str]
) -> None:
    for tasks, more, said in (
        (["gsm8k"], {}, "there is no benchmark 'gsm8k'"),
        (["humaneval"], {}, "allow it with --allow-code-execution"),
        (["gsm8k_tokens"], {"repeats": 2}, "above 0"),
    ):
        grid = grid_of(tmp_path / "g.yaml", base_recipe, evaluate={"tasks": tasks, **more})
        with pytest.raises(MicroStepError, match=said):
            ablate(grid, tmp_path / "out", local, "cpu")
    assert not trained and not (tmp_path / "out").exists()


# --- leaving out sources


def test_a_source_is_left_out_of_training_alone(done: tuple[AblationGrid, Path, list[AblationRow]]) -> None:
    prepared = read_prepared(done[1] / "prepared" / "two-tiny")
    assert prepared.sources == SOURCES and prepared.from_sources(["birds.jsonl"]).sum() == 24
    cut = SegmentationConfig(rule="entropy", target_length=1.6)
    every, fewer = training_rows(prepared, cut), training_rows(prepared, cut, ["hats.jsonl"])
    hats = prepared.origin == 1
    assert hats[every.train.example].sum() == 18 and not hats[fewer.train.example].any()
    assert set(fewer.train.example) == set(every.train.example[~hats[every.train.example]])
    assert len(fewer.repeat) == len(fewer.train) == 18
    np.testing.assert_array_equal(fewer.held_out.example, every.held_out.example)
    np.testing.assert_array_equal(fewer.held_out.starts, every.held_out.starts)  # the threshold is solved for all
    assert hats[fewer.held_out.example].sum() == 6 and "18 examples of hats.jsonl are left out" in fewer.notes


def test_what_is_left_out_is_named_wrongly_or_is_all_there_is(
    done: tuple[AblationGrid, Path, list[AblationRow]],
) -> None:
    prepared = read_prepared(done[1] / "prepared" / "two-tiny")
    with pytest.raises(MicroStepError, match=r"no example of 'owls', only of birds.jsonl, hats.jsonl"):
        training_rows(prepared, None, ["owls"])
    with pytest.raises(MicroStepError, match="no response to learn; check data.without"):
        training_rows(prepared, None, SOURCES)


def test_runs_of_one_preparation_know_their_data_apart(done: tuple[AblationGrid, Path, list[AblationRow]]) -> None:
    prepared = read_prepared(done[1] / "prepared" / "two-tiny")
    hashes = {run.variant: read_run(done[1] / run.recipe.name).facts.data_hash for run in runs_of(done[0])}
    assert hashes["all"] == prepared.hash and len(set(hashes.values())) == 3
    assert prepared.hash_without(SOURCES) == prepared.hash_without(SOURCES[::-1])
    card = (done[1] / "g-without-hats.jsonl-0/model/README.md").read_text("utf-8")
    assert "without hats.jsonl" in card and "| birds.jsonl |" in card and "| hats.jsonl |" not in card


def test_a_run_on_other_sources_does_not_go_into_a_begun_folder(
    done: tuple[AblationGrid, Path, list[AblationRow]],
) -> None:
    from trainer.run import run_recipe

    one, other = runs_of(done[0])[0].recipe, runs_of(done[0])[2].recipe
    clash = other.model_copy(update={"name": one.name})
    with pytest.raises(ExportError, match="another recipe"):
        run_recipe(clash, RunPaths(done[1] / one.name), "cpu", lambda message, fraction: None)
    facts = done[1] / one.name / "run.json"
    said = facts.read_text("utf-8")
    facts.write_text(said.replace("sha256:", "sha256:0"), "utf-8")
    with pytest.raises(ExportError, match="other data"):
        run_recipe(one, RunPaths(done[1] / one.name), "cpu", lambda message, fraction: None)
    facts.write_text(said, "utf-8")


def test_a_run_from_before_sources_could_be_left_out_is_still_known(
    done: tuple[AblationGrid, Path, list[AblationRow]],
) -> None:
    """Recipes were compared as text: a new key with its default made every older run one of another recipe."""
    recipe = runs_of(done[0])[0].recipe
    file = done[1] / recipe.name / RECIPE
    said = file.read_text("utf-8")
    assert "  without: []\n" in said
    file.write_text(said.replace("  without: []\n", ""), "utf-8")
    assert is_made(recipe, done[1])
    file.write_text(said.replace("seed: 0", "seed: 7"), "utf-8")
    assert not is_made(recipe, done[1])
    file.write_text(said, "utf-8")


# --- a grid from beginning to end


def test_bits_per_byte_are_all_bits_over_all_bytes(model: Path, tmp_path: Path) -> None:
    """The token that closes an answer was in the mean nll and not in its tokens: 5.294 told, 5.436 right."""
    prepared = make_prepared(tmp_path / "p", model, examples=24, every=4)
    chosen = recipe(model, "control", steps=1, validation={"every": 1, "tokens": 150})
    built = build(chosen, prepared, tmp_path, "cpu", quiet)
    done = Trainer(built, tmp_path / "run", accelerator_for(chosen, "cpu"), quiet).run()
    found = load(ModelSpec(str(done.model), dtype="float32"))
    bits = size = 0.0
    held_out = rows_of_recipe(prepared, chosen).held_out
    for row in range(len(held_out))[:2]:  # as many as a validation reads
        one = held_out.take(np.array([row]))
        ids = torch.from_numpy(one.ids)[None]
        with torch.no_grad():
            scores = found.model(ids).logits[0, :-1].double().log_softmax(-1)
        nats = -scores.gather(1, ids[0, 1:, None])[:, 0]
        bits += float(nats[torch.from_numpy(one.loss_mask[1:])].sum() / np.log(2))
        said = found.tokenizer.decode(one.ids[one.loss_mask], skip_special_tokens=False)
        size += len(said.removesuffix("<|im_end|>").encode())
    assert done.validated is not None and done.validated.tokens == sum(held_out.loss_tokens[:2])
    assert bits_per_byte(done, chosen, prepared) == pytest.approx(bits / size, rel=0.02)  # saved in bfloat16


def test_sources_are_measured_apart_and_add_up(done: tuple[AblationGrid, Path, list[AblationRow]]) -> None:
    grid, out, rows = done
    assert [row.variant for row in rows] == ["all", "without birds.jsonl", "without hats.jsonl"]
    assert list(rows[0].values)[-2:] == ["nll birds.jsonl", "nll hats.jsonl"] and "nll" in rows[0].values
    assert all(len(values) == 2 for row in rows for values in row.values.values())
    prepared = read_prepared(out / "prepared" / "two-tiny")
    for row, run in zip(rows, runs_of(grid)[::2], strict=True):
        held = rows_of_recipe(prepared, run.recipe).held_out
        tokens = [int(held.take(np.flatnonzero(prepared.origin[held.example] == i)).loss_mask.sum()) for i in (0, 1)]
        apart = sum(n * row.values[f"nll {name}"][0] for n, name in zip(tokens, SOURCES, strict=True)) / sum(tokens)
        assert apart == pytest.approx(row.values["nll"][0], rel=5e-3)  # the model was saved in bfloat16
        assert row.differences["nll"][0] == pytest.approx(row.values["nll"][0] - rows[0].values["nll"][0])


def test_data_is_prepared_once_and_nothing_is_made_again(
    done: tuple[AblationGrid, Path, list[AblationRow]], trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import data.corpus.scoring
    import trainer.final_eval

    grid, out, rows = done
    assert sorted(path.name for path in (out / "prepared").iterdir()) == ["two-tiny"]
    store = {path: path.stat().st_mtime_ns for path in (out / "prepared/two-tiny" / STORE).rglob("*")}
    newest = max(store.values())
    assert all((out / run.recipe.name / "run.json").stat().st_mtime_ns > newest for run in runs_of(grid))

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("made again")

    for where, name in ((data.corpus.scoring, "score_corpus"), (trainer.final_eval, "nll_by_source")):
        monkeypatch.setattr(where, name, refuse)
    assert ablate(grid, out, device="cpu") == rows and not trained
    (out / "g-all-1" / MEASURES).unlink()
    monkeypatch.undo()
    assert ablate(grid, out, device="cpu") == rows


def test_a_grid_without_benchmarks_needs_no_harness(base_recipe: Path, tmp_path: Path) -> None:
    grid_of(tmp_path / "g.yaml", base_recipe, variants={"a": {}}, seeds=[0])

    def without_it() -> None:
        for name in [name for name in sys.modules if name.split(".")[0] in ("evals", "lm_eval")]:
            del sys.modules[name]
        sys.modules["lm_eval"] = None  # type: ignore[assignment]
        words = [str(tmp_path / "g.yaml"), "--device", "cpu", "--out", str(tmp_path / "out")]
        sys.argv = ["micro-step", "eval", "ablate", *words, "--table", str(tmp_path / "t.csv")]
        start()

    ended = Forked(without_it)
    assert ended.ended() == 0, ended.err[-2000:]
    assert ended.out.startswith("| g | nll | accuracy |") and "\n| a | " in ended.out
    assert "runs           1, 0 trained" in ended.err and "g: run 1 of 1" in ended.err
    assert next(csv.DictReader((tmp_path / "t.csv").open()))["variant"] == "a"


def test_benchmarks_are_columns_and_are_not_run_again(
    base_recipe: Path, tmp_path: Path, local: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import evals.ablation.evaluate

    asked, real = list[tuple[list[str], list[float]]](), evals.ablation.evaluate.evaluate

    def counted(load: Any, chosen: Any, taus: Any, *rest: Any) -> Any:
        asked.append(([each.name for each in chosen], list(taus)))
        return real(load, chosen, taus, *rest)

    monkeypatch.setattr(evals.ablation.evaluate, "evaluate", counted)
    variants: dict[str, Any] = {"read": {}, "chat": {"evaluate": {"chat": True}}, "none": {"evaluate": None}}
    control = {"objective": "control", "stages": [{"name": "only", "steps": 2, "rates": {"base": 1e-3}}]}
    how: dict[str, Any] = {"tasks": ["gsm8k_tokens"], "confidence": [0.05, 1.1], "limit": 2}
    given = {"evaluate": how, "seeds": [0], "variants": variants | {"plain": control}}
    rows = ablate(grid_of(tmp_path / "g.yaml", base_recipe, **given), tmp_path / "out", local, "cpu")
    read, chat, none, plain = (row.values for row in rows)
    score, steps = "gsm8k_tokens at {}: accuracy", "gsm8k_tokens at {}: tokens a macro step"
    assert read[steps.format("1.1")] == (1.0,) and read[steps.format("0.05")][0] > 1
    assert set(chat) == set(read) and chat[score.format("1.1")] != read[score.format("1.1")]
    assert not any("gsm8k" in name for name in none)
    assert "gsm8k_tokens: accuracy" in plain and not any("macro step" in name for name in plain)
    assert len(asked) == 3 and len(trained) == 4
    assert ablate(grid_of(tmp_path / "g.yaml", base_recipe, **given), tmp_path / "out", local, "cpu") == rows
    assert len(asked) == 3 and len(trained) == 4
    (folder,) = (tmp_path / "out/g-read-0").glob("evaluated-*")
    kept = (folder / file_name("gsm8k_tokens", 0.05)).read_bytes()
    how["confidence"].append(0.2)
    more = ablate(grid_of(tmp_path / "g.yaml", base_recipe, **given), tmp_path / "out", local, "cpu")
    assert score.format("0.2") in more[0].values and len(trained) == 4
    assert (folder / file_name("gsm8k_tokens", 0.05)).read_bytes() == kept
    assert len(list((tmp_path / "out/g-read-0").glob("evaluated-*"))) == 1


def test_a_stopped_grid_goes_on_where_it_was(
    done: tuple[AblationGrid, Path, list[AblationRow]], tmp_path: Path, trained: list[str]
) -> None:
    def stop(message: str, fraction: float | None) -> None:
        if "run 2 of 6" in message:
            raise KeyboardInterrupt

    grid, out = done[0], tmp_path / "out"
    before = plan(grid, out, None, "cpu")
    assert (before.runs, before.trained, before.left, before.seconds) == (6, 0, 12, None) and not out.exists()
    with pytest.raises(KeyboardInterrupt):
        ablate(grid, out, device="cpu", tell=stop)
    assert trained == ["g-all-0", "g-all-1"]
    halfway = plan(grid, out, None, "cpu")
    assert (halfway.trained, halfway.measured, halfway.steps, halfway.left) == (2, 2, 12, 8) and halfway.seconds
    assert ablate(grid, out, device="cpu") == done[2]
    assert trained == [run.recipe.name for run in runs_of(grid)]
    assert plan(grid, out, None, "cpu").left == 0


def test_prepared_data_gives_an_estimate(done: tuple[AblationGrid, Path, list[AblationRow]], tmp_path: Path) -> None:
    (tmp_path / "prepared").symlink_to(done[1] / "prepared")
    found = plan(done[0], tmp_path, None, "cpu")
    assert found.trained == 0 and found.seconds and "min on this machine" in found.text


def test_a_run_that_held_nothing_out_is_refused(base_recipe: Path, tmp_path: Path) -> None:
    mix = yaml.safe_load((base_recipe.parent / "two.yaml").read_text("utf-8")) | {"held_out": None, "name": "none"}
    file = base_recipe.parent / "none.yaml"
    file.write_text(yaml.safe_dump(mix), "utf-8")
    grid = grid_of(tmp_path / "g.yaml", base_recipe, common={"data": {"mix": str(file)}}, seeds=[0])
    with pytest.raises(MicroStepError, match="held nothing out"):
        ablate(grid, tmp_path / "out", device="cpu")


def test_damaged_measures_are_measured_again(tmp_path: Path) -> None:
    for said in ("", "[]", '{"format": "micro_step measures 2"}', json.dumps({"format": "x", "decode": None})):
        (tmp_path / MEASURES).write_text(said, "utf-8")
        assert ablation.stored_measures(tmp_path, None) is None


# --- the table


def test_an_interval_by_hand() -> None:
    """1, 2, 3: mean 2, s = 1; t(2) = 4.303 over the square root of 3 is 2.484.

    From 11 seeds on 1.96 stood for t: of twelve, 0 and 2 by turns, s = 1.0445, t(11) = 2.201.
    """
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, found.half) == (2.0, pytest.approx(2.48414, abs=1e-5)) and str(found) == "2.000 ± 2.484"
    assert interval([0.0, 2.0] * 6).half == pytest.approx(2.200985 * math.sqrt(12 / 11 / 12))
    assert str(interval([0.5])) == str(interval([0.5, 0.5])) == "0.500", "one seed, or seeds that are all alike"


def test_the_table_has_means_and_differences_seed_by_seed() -> None:
    found = {"a": [{"nll": 1.0, "x": 1.0}, {"nll": 2.0, "x": 2.0}], "b": [{"nll": 1.5}, {"nll": 2.5, "y": 1.0}]}
    rows = rows_of(found)
    assert rows[1].values == {"nll": (1.5, 2.5)} and rows[1].differences == {"nll": (0.5, 0.5)}
    told = as_markdown("t", rows)
    assert "| t | nll | x |" in told and "| b | 2.000 ± 6.353 | - |" in told
    assert told.endswith("Differences from a, seed by seed:\n\n| t | nll | x |\n| --- | --- | --- |\n| b | 0.500 | - |")
    lines = list(csv.DictReader(io.StringIO(as_csv((0, 5), rows))))
    assert float(lines[0].pop("half_95")) == pytest.approx(6.353102)
    assert lines[0] == {
        "variant": "a", "measure": "nll", "mean": "1.5", "difference": "",
        "difference_half_95": "", "seed_0": "1.0", "seed_5": "2.0",
    }  # fmt: skip
    assert (lines[2]["difference"], lines[2]["difference_half_95"], lines[2]["seed_5"]) == ("0.5", "", "2.5")


def test_many_measures_stand_below_each_other() -> None:
    names = [f"m{i}" for i in range(13)]
    told = as_markdown("t", rows_of({"a": [dict.fromkeys(names, 1.0)], "b": [dict.fromkeys(names, 3.0)]}))
    assert told.startswith("| t | a | b |\n| --- | --- | --- |\n| m0 | 1.000 | 3.000 |\n")
    assert "| t | b |\n| --- | --- |\n| m0 | 2.000 |" in told


# --- the command


def test_the_command_estimates_and_says_mistakes_in_one_line(
    done: tuple[AblationGrid, Path, list[AblationRow]],
    base_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    grid_of(tmp_path / "g.yaml", base_recipe)

    def ablate(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = call(monkeypatch, "eval", "ablate", *words, "--device", "cpu")
        return code, *capsys.readouterr()

    code, told, _ = ablate(str(tmp_path / "g.yaml"), "--dry-run", "--out", str(tmp_path / "out"))
    assert code == 0 and "6, 0 trained" in told and not (tmp_path / "out").exists()
    for words, said in (
        (["owls"], "there is no grid 'owls'"),
        ([str(tmp_path / "g.yaml"), "--table", str(tmp_path / "t.txt")], "give a .md or .csv file"),
    ):
        code, told, error = ablate(*words)
        assert code == 1 and said in error and len(error.strip().splitlines()) == 1 and not told
