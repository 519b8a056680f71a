"""Imports that move under another package, and nothing else of a file that changes."""

import importlib

import pytest

from model.import_rewriting import rewrite_imports


@pytest.mark.parametrize(
    ("source", "moved"),
    [
        ("from model.text import document", "from p.model.text import document"),
        ("from model import text", "from p.model import text"),
        ("from  \\\n  model import text", "from  \\\n  p.model import text"),
        ("import model.text as t", "import p.model.text as t"),
        ("import model", "import p.model as model"),
        ("import os, model.text, data as d", "import os, p.model.text, p.model as model, p.data as d"),
        ("if x:\n    é = 'é'; from data import (\n  a,\n)", "if x:\n    é = 'é'; from p.data import (\n  a,\n)"),
        ("run(['python', '-m', 'data', 'prepare'])", "run(['python', '-m', 'p.data', 'prepare'])"),
        ('"""Run `python -m data prepare`."""', '"""Run `python -m p.data prepare`."""'),
        ('print(f"python -m data {x}")  # python -m data', 'print(f"python -m p.data {x}")  # python -m p.data'),
    ],
)  # fmt: skip
def test_a_room_moves(source, moved):
    assert rewrite_imports(source, ("model", "data"), "p") == moved


@pytest.mark.parametrize(
    "source",
    [
        "from models import a\nimport database, os.model",
        "from . import model\nfrom .model import a",
        "from torch import model\nmodel = data.model('model')",
        '"from model import a, and `python -m datasets`"',
        "import torch.data\r\nx = 1\r\n",
    ],
)
def test_what_is_no_room_stays(source):
    assert rewrite_imports(source, ("model", "data"), "p") == source


def test_a_plain_import_still_binds_the_name(tmp_path, monkeypatch):
    room = tmp_path / "pack" / "room"
    room.mkdir(parents=True)
    for file in (room.parent / "__init__.py", room / "__init__.py"):
        file.write_text("")
    (room / "inner.py").write_text("VALUE = 7")
    monkeypatch.syspath_prepend(str(tmp_path))
    source = rewrite_imports("import room.inner\nvalue = room.inner.VALUE", ("room",), "pack")
    (tmp_path / "uses_room.py").write_text(source)
    assert importlib.import_module("uses_room").value == 7
