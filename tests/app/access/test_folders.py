"""Visitors of a served app open only what its operator offers, and no answer tells what else exists."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from analysis.runs.discovery import find_runs
from app.access.settings import ROOT, Settings, settings
from app.scheduling.run_queue import RunLimits
from model import access
from model.errors import MicroStepError, ModelError, ModelNotFound
from model.hub.fetch import fetch, is_cached, offered
from model.hub.huggingface import snapshot
from model.hub.loading import ModelSpec, load
from tests.support import pages

Serve = Callable[..., Settings]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts the app for others, with these folders."""
    before = access.model_access()

    def start(**said: object) -> Settings:
        monkeypatch.setenv("MICRO_STEP_SERVE", "1")
        for name, value in said.items():
            monkeypatch.setenv(f"MICRO_STEP_{name.upper()}", str(value))
        settings.cache_clear()
        return settings()

    yield start
    settings.cache_clear()
    access.limit_access(before)


@pytest.fixture
def lab(tmp_path: Path, models: dict[str, Path]) -> Path:
    """A folder that is offered, beside one that is not."""
    tmp_path = tmp_path.resolve()
    shutil.copytree(models["base"], tmp_path / "lab" / "base")
    shutil.copytree(models["sft"], tmp_path / "secret" / "sft")
    return tmp_path / "lab"


def refusal(name: object, spec: Callable[[str], object] = fetch) -> str:
    with pytest.raises(MicroStepError) as error:
        spec(str(name))
    return str(error.value).replace(repr(str(name)), "NAME")


def test_a_name_stands_for_one_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    said = {"MICRO_STEP_SERVE": "1", "MICRO_STEP_MODELS": f"lab={tmp_path / 'a'}"}
    folders = Settings.read({**said, "MICRO_STEP_RUNS": f"lab={tmp_path / 'a'}"}).models.folders
    assert folders is not None and folders.names == "lab, data/demo"
    with pytest.raises(MicroStepError, match="one name to two folders"):
        Settings.read({**said, "MICRO_STEP_RUNS": f"lab={tmp_path / 'b'}"})


def test_the_operator_limits_runs() -> None:
    limits = Settings.read({"MICRO_STEP_RUN_MINUTES": "1.5", "MICRO_STEP_QUEUE": "7"}).limits
    assert (limits.seconds, limits.waiting) == (90, 7)
    assert Settings.read({}).limits == RunLimits()
    for word in ("0", "-1", "nan", "many", "inf"):
        with pytest.raises(MicroStepError, match="MICRO_STEP_QUEUE"):
            Settings.read({"MICRO_STEP_QUEUE": word})


def test_for_oneself_every_folder_is_open_and_the_tick_box_is_there() -> None:
    read = Settings.read({})
    assert (read.serve, read.models, read.runs) == (False, access.ModelAccess(), None)
    others = Settings.read({"MICRO_STEP_SERVE": "1"}).models
    assert others == access.ModelAccess(others.folders, False, False, False) and others.folders is not None
    with pytest.raises(MicroStepError, match="MICRO_STEP_FETCH"):
        Settings.read({"MICRO_STEP_FETCH": "perhaps"})
    with pytest.raises(MicroStepError, match="no folder"):
        Settings.read({"MICRO_STEP_MODELS": "lab=/nowhere/at/all"})


def test_a_model_is_found_by_the_name_of_its_folder_or_by_its_path(serve: Serve, lab: Path) -> None:
    serve(models=f"lab={lab}")
    assert offered("lab/base") == offered(str(lab / "base")) == str(lab / "base")
    assert fetch("lab/base") == lab / "base" and is_cached("lab/base")
    assert offered("tiny-sft") == "tiny-sft" and is_cached("tiny-sft")


def test_outside_the_folders_it_is_the_same_whether_or_not_something_exists(serve: Serve, lab: Path) -> None:
    secret = lab.parent / "secret"
    (lab / "way").symlink_to(secret)
    (lab / "half").mkdir()
    for file in (secret / "sft").iterdir():
        (lab / "half" / file.name).symlink_to(file)
    serve(models=f"lab={lab}")
    there = [
        secret / "sft", "lab/../secret/sft", f"lab/{secret}/sft", "lab/way/sft", "lab/half", lab / "way" / "sft",
        f"{lab}/base/../../secret/sft", os.path.relpath(secret / "sft"), "~", "~root", "/etc/passwd", "app/main",
    ]  # fmt: skip
    nowhere = [secret / "nothing", "lab/nothing", "~nobody-of-this-name", "app/nothing", "HuggingFaceTB/SmolLM2-135M"]
    said = {refusal(name) for name in (*there, *nowhere)}
    said |= {refusal(name, offered) for name in (*there, *nowhere)}
    said |= {refusal(name, lambda n: load(ModelSpec("lab/base", tokenizer=n, adapter=n))) for name in there}
    assert len(said) == 1 and "lab" in said.pop()
    assert not any(is_cached(str(name)) for name in there)


def test_a_model_in_the_folders_leads_to_no_base_outside(serve: Serve, lab: Path) -> None:
    adapter = lab / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(lab.parent / "secret" / "sft")})
    )
    (adapter / "adapter_model.safetensors").write_bytes((lab / "base" / "model.safetensors").read_bytes())
    serve(models=f"lab={lab}")
    with pytest.raises(ModelNotFound, match="does not offer"):
        load(ModelSpec("lab/adapter"))


def test_no_code_of_models_and_no_fetch(serve: Serve, lab: Path) -> None:
    serve(models=f"lab={lab}", hub_cache=1)
    for spec in (ModelSpec("lab/base", trust_remote_code=True), ModelSpec("lab/base", attn_implementation="a/kernel")):
        with pytest.raises(ModelError, match="this server"):
            load(spec)
    with pytest.raises(ModelNotFound, match="fetches no models"):
        fetch("someone/a-model-that-is-not-here")
    assert snapshot("someone/model", "../../../../../etc/passwd") is None


SHIPPED = {"base": Path("tiny-base"), "sft": Path("tiny-sft")}


def test_pages_read_only_the_folders_that_are_offered(serve: Serve, lab: Path) -> None:
    secret = lab.parent / "secret"
    for name in ("mine", "other"):
        shutil.copytree(ROOT / "data/demo/micro-step-tiny", lab / "runs" / name)
        (lab / "runs" / name / "run.json").write_text("{}")
    (lab / "runs" / "other" / "log.jsonl").unlink(missing_ok=True)
    (lab / "runs" / "other" / "log.jsonl").symlink_to(secret / "sft" / "config.json")
    given = serve(models=f"lab={lab}", runs=f"runs={lab / 'runs'}")
    found = given.own("runs", find_runs(given.folder("runs", "runs")))
    assert [place.name for place in found.places] == ["mine"]
    paths = (secret, secret / "nothing", "/etc", "~root", "runs/../../secret", lab / "runs" / ".." / "base", "..")
    assert len({refusal(path, lambda typed: given.folder("runs", typed)) for path in paths}) == 1
    for page, key in (
        ("runs", "folder"),
        ("evaluation", "evaluations"),
        ("corpus", "stores"),
        ("segmentation", "store"),
    ):
        at = pages.opened(SHIPPED, "the cat", fresh=False, what="store", **{key: str(secret)})
        said = [error.value for error in pages.turned_to(at, page).error]
        assert len(said) == 1 and "offers no folder" in said[0] and not at.exception


def test_the_tick_box_is_there_only_where_the_operator_allowed_it(serve: Serve, models: dict[str, Path]) -> None:
    serve()
    at = pages.opened({**SHIPPED, "mine": models["sft"]}, "the cat", fresh=False, b="mine")
    assert not [box for box in at.checkbox if box.key == "trust"]
    assert len(at.error) == 1 and "does not offer" in at.error[0].value
