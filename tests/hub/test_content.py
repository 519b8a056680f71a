"""A model is known by the content of its files, whatever their dates say."""

import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from analysis.segmentation.request import ScoresQuery
from app.cache import ModelPool
from data.mixes import Mix
from data.prepare import PrepareOptions, _begin
from model.errors import ExportError, ModelBroken
from model.hub import cache, loading
from model.hub.loading import ModelSpec, content_of, load
from model.hub.model_info import find_source
from model.text.document import TextInput

WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MICRO_STEP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(models, tmp_path) -> Path:
    return shutil.copytree(models["base"], tmp_path / "model")


def replaced_by_older(folder: Path, models: dict[str, Path]) -> None:
    """Other weights of the same size, with a date in the past, as `cp -p` leaves them."""
    before = (folder / WEIGHTS).stat()
    content = (models["sft"] / WEIGHTS).read_bytes()
    assert len(content) == before.st_size
    time.sleep(0.02)  # a tick of the file system's clock
    (folder / WEIGHTS).write_bytes(content)
    os.utime(folder / WEIGHTS, ns=(before.st_atime_ns, before.st_mtime_ns - 10**12))


@pytest.mark.parametrize("settled", [True, False])
def test_a_hash_is_remembered_only_for_the_state_in_which_it_was_read(tmp_path, monkeypatch, settled):
    monkeypatch.setattr(cache, "SETTLED_NS", -1 if settled else 10**18)
    file, hashed = tmp_path / "x", list[Path]()
    original = cache.file_sha256
    monkeypatch.setattr(cache, "file_sha256", lambda path: (hashed.append(path), original(path))[1])
    file.write_text("one")
    stat = file.stat()
    first = cache.remembered_sha256(file)
    assert cache.remembered_sha256(file) == first and len(hashed) == (1 if settled else 2)
    time.sleep(0.02)
    file.write_text("two")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the same size, inode and date
    assert cache.remembered_sha256(file) == original(file) != first


def test_a_note_that_is_damaged_is_not_believed(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SETTLED_NS", -1)
    file = tmp_path / "x"
    file.write_text("one")
    first = cache.remembered_sha256(file)
    (note,) = (tmp_path / "cache" / "hashes").iterdir()
    for content in ("", "[]", "{}", '{"state": null, "sha256": "0"}', "[" * 100_000):
        note.write_text(content)
        assert cache.remembered_sha256(file) == first


def test_older_weights_in_the_same_place_are_a_new_model_everywhere(models, folder):
    pool, spec = ModelPool(), ModelSpec(str(folder))
    query = ScoresQuery("A", spec, TextInput.plain("the cat sat on the mat"))
    asked = [pool.run(query, pool.load(query, lambda what, share: None), lambda share: None)]
    assert pool.get(query) is asked[0]
    revision, content = find_source(str(folder), folder, loading.ROOT).revision, content_of(spec)
    options = PrepareOptions()
    mix = Mix.model_construct()
    _begin(folder.parent / "prepared", mix, str(folder), options)
    _begin(folder.parent / "prepared", mix, str(folder), options)
    replaced_by_older(folder, models)
    assert content_of(spec) != content and find_source(str(folder), folder, loading.ROOT).revision != revision
    assert pool.get(query) is None
    asked += [pool.run(query, pool.load(query, lambda what, share: None), lambda share: None)]
    first, second = (answer.scores.surprisal for answer in asked)
    assert (first[1:] != second[1:]).all()
    with pytest.raises(ExportError, match="weights"):
        _begin(folder.parent / "prepared", mix, str(folder), options)


def test_a_changed_base_changes_the_content_of_what_is_built_on_it(models, folder, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(f'{{"peft_type": "LORA", "base_model_name_or_path": "{folder}"}}')
    shutil.copy(models["base"] / WEIGHTS, adapter / "adapter_model.safetensors")
    for spec in (ModelSpec(str(adapter)), ModelSpec(str(models["sft"]), adapter=str(adapter))):
        before = content_of(spec)
        replaced_by_older(folder, models)
        assert content_of(spec) != before
        shutil.copy(models["base"] / WEIGHTS, folder / WEIGHTS)


def test_a_config_that_names_itself_as_its_base_ends(folder):
    (folder / "adapter_config.json").write_text(f'{{"peft_type": "LORA", "base_model_name_or_path": "{folder}"}}')
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
    assert len(content_of(ModelSpec(str(folder)))) == 1


def test_files_that_change_while_they_are_read_are_refused(models, folder, monkeypatch):
    original = loading._read

    def read(*rest):
        loaded = original(*rest)
        replaced_by_older(folder, models)
        return loaded

    monkeypatch.setattr(loading, "_read", read)
    with pytest.raises(ModelBroken, match="changed while"):
        load(ModelSpec(str(folder)))


@pytest.mark.parametrize("gone", ["config.json", WEIGHTS])
def test_files_that_go_while_they_are_read_are_told(folder, monkeypatch, gone):
    """The hash of a file that was no longer there ended in a traceback."""
    original = loading._facts

    def facts(*rest):
        (folder / gone).unlink()
        return original(*rest)

    monkeypatch.setattr(loading, "_facts", facts)
    with pytest.raises(ModelBroken, match="changed while"):
        load(ModelSpec(str(folder)))


def test_what_a_changing_folder_breaks_is_told_as_such(models, folder, monkeypatch):
    def read(*rest):
        replaced_by_older(folder, models)
        raise KeyError("model.embed_tokens.weight")

    monkeypatch.setattr(loading, "_read", read)
    with pytest.raises(ModelBroken, match="changed while"):
        load(ModelSpec(str(folder)))


def test_a_loaded_model_outlives_its_files(folder):
    loaded = load(ModelSpec(str(folder), dtype="float32"))
    weight = next(loaded.model.parameters())
    before = weight.clone()
    if sys.platform == "linux":  # else the next reading of a shorter file ends this process
        assert str(folder / WEIGHTS) not in Path("/proc/self/maps").read_text()
    (folder / WEIGHTS).write_bytes(b"")
    assert (weight == before).all()
