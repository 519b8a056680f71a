"""Files that are damaged, or made to harm: each is one clear message, in little memory."""

import gzip
import io
import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import transformers

from analysis.document_file import read_document
from analysis.runs.tables import _settings
from analysis.stored_results.codec import CodecError, StoredFile
from data.corpus.documents import CorpusSpec, open_corpus
from data.run_folder import LogLine, from_line, to_line
from data.yaml_config import load_yaml, read_yaml
from model.atomic_files import read_json
from model.checkpoint_files import find_problem, safetensors_problem
from model.errors import MicroStepError, TextError, TooLarge
from model.hub.cache import read_record
from model.hub.loading import ModelSpec, load
from model.hub.micro_step_io import saved_in
from model.reading import unpacked
from model.reading.declared_sizes import need_readable_at_once, read_npz, rows_at_once
from model.reading.json_text import parse_json
from trainer.recipe import Recipe

DEEP = "[" * 200_000
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


def test_deeply_nested_json_is_damaged_json(models, tmp_path):
    with pytest.raises(ValueError, match="nested"):
        parse_json(DEEP)
    folder = shutil.copytree(models["base"], tmp_path / "m")
    (folder / "config.json").write_text(DEEP)
    assert "config.json" in str(find_problem(folder)) and saved_in(folder) is None
    with pytest.raises(MicroStepError, match=r"config\.json"):
        load(ModelSpec(str(folder)))
    (folder / "micro_step.json").write_text(DEEP)
    assert read_record(folder) == {} and read_json(folder / "micro_step.json") is None
    header = DEEP.encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "damaged" in str(safetensors_problem(folder / "model.safetensors"))
    with pytest.raises(MicroStepError):
        read_document(DEEP.encode(), "conversation.json")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(DEEP + "\n")
    with pytest.raises(TextError):
        list(open_corpus(CorpusSpec(str(rows))).entries())


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json.gz", "rows.txt.gz"])
def test_an_archive_of_one_endless_line_is_refused_early(tmp_path, monkeypatch, name):
    monkeypatch.setattr(unpacked, "LONGEST_LINE", 2 << 20)
    monkeypatch.setattr(unpacked, "LONGEST_WHOLE", 2 << 20)
    file = tmp_path / name
    with gzip.open(file, "wb") as out:
        out.write(b"[" + b"x" * (8 << 20))
    with pytest.raises(TextError, match="unpack it"):
        list(open_corpus(CorpusSpec(str(file))).entries())


def test_an_archive_of_many_lines_may_be_long(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacked, "LONGEST_LINE", 1 << 20)
    file = tmp_path / "rows.jsonl.gz"
    with gzip.open(file, "wt") as out:
        out.writelines(json.dumps({"text": "x" * 10_000}) + "\n" for _ in range(400))
    assert len(list(open_corpus(CorpusSpec(str(file))).entries())) == 400


@pytest.mark.parametrize("text", [BOMB, "a: &a [*a]\n", "a: &a {b: *a}\n"])
def test_yaml_whose_aliases_stand_for_too_much_is_refused(tmp_path, text):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(MicroStepError, match="aliases"):
        read_yaml(file, Recipe)
    assert _settings(text) == []


def test_plain_aliases_are_read():
    assert load_yaml("a: &a [1, 2]\nb: *a\n") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize("step", [-(10**20), 10**20, -1])
def test_a_log_counts_no_steps_below_zero_or_beyond_numbers(step):
    line = LogLine(1, "s", "train", 1, 1, 1.0, 1.0, None, None, 1.0, (1,), (1.0,), (1.0,), None, 0, {}, None, None, 1.0)
    assert from_line(to_line(line)) == line
    with pytest.raises(ValueError, match="counts"):
        from_line(to_line(replace(line, step=step)))


def test_too_little_memory_is_not_told_as_damage(models, monkeypatch):
    def full(*args: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", full)
    with pytest.raises(TooLarge, match="memory"):
        load(ModelSpec(str(models["base"])))


def repeated(file, text, times):
    """A Parquet file that holds a text once, for many rows."""
    values = pa.DictionaryArray.from_arrays(pa.array(np.zeros(times, np.int32)), pa.array([text]))
    pq.write_table(pa.table({"text": values}), file, compression="zstd", dictionary_pagesize_limit=1 << 30)
    return file


def test_a_small_parquet_file_cannot_fill_the_memory(tmp_path, monkeypatch):
    """700 bytes stand for 2,000 rows of 8 MB each: 256 of them were read at once."""
    file = repeated(tmp_path / "rows.parquet", "x" * (8 << 20), 2000)
    assert file.stat().st_size < 2000
    with pq.ParquetFile(file) as opened:
        assert rows_at_once(opened, "rows", 256) * (8 << 20) <= 1 << 28
        with pytest.raises(TextError, match="stands for"):
            need_readable_at_once(opened, "rows")
    next(iter(open_corpus(CorpusSpec(str(file))).entries()))
    monkeypatch.setattr(unpacked, "LONGEST_WHOLE", 1 << 20)
    with pytest.raises(TextError, match="stands for"):
        next(iter(open_corpus(CorpusSpec(str(file))).entries()))


def test_an_ordinary_parquet_file_is_read_in_large_batches(tmp_path):
    pq.write_table(pa.table({"text": [f"text {i}" for i in range(1000)]}), tmp_path / "rows.parquet")
    with pq.ParquetFile(tmp_path / "rows.parquet") as opened:
        assert rows_at_once(opened, "rows", 256) == 256
        need_readable_at_once(opened, "rows")


def npz_that_declares(shape, content=b""):
    """An archive whose one array has another size than its header says."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue() + content)
    return file.getvalue()


def test_arrays_that_declare_more_than_they_hold_are_damaged(monkeypatch):
    """Room was made for what is declared: MemoryError in place of a message."""
    huge = npz_that_declares((1 << 20, 1 << 20, 16))
    with pytest.raises(ValueError, match="declares more"):
        read_npz(io.BytesIO(huge))
    with pytest.raises(CodecError):
        StoredFile(huge)
    assert read_npz(io.BytesIO(npz_that_declares((2,), bytes(8))))["x"].tolist() == [0, 0]
    monkeypatch.setattr(unpacked, "LONGEST_WHOLE", 1 << 20)
    with pytest.raises(unpacked.TooMuchContent):
        read_npz(io.BytesIO(npz_that_declares((1 << 20,), bytes(4 << 20))))
