"""The wheel beside other people's code: it brings one package, which works where `model.py` and `data.py` lie."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from model.hub.loading import load
from model.hub.spec import ModelSpec
from model.micro_step.modeling import MicroStepForCausalLM
from model.micro_step.saving import save_modules

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ROOMS = sorted(
    path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name not in ("tests", "micro_step")
)
LARGE = ("control-smollm2-135m", "micro-step-smollm2-135m", "micro-step-smollm2-135m-draft")  # not in the wheel
LEFT_OUT = shutil.ignore_patterns("__pycache__", *LARGE)
BIN = "Scripts" if sys.platform == "win32" else "bin"
FACE = """
import json, sys
from pathlib import Path
import micro_step as ms
quick = "torch" not in sys.modules
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
folder = Path(ms.__file__).parent / "data" / "demo" / "micro-step-tiny"
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
written = model.generate(**tokenizer("Once upon", return_tensors="pt"), max_new_tokens=4)
result = ms.compare("tiny-base", "tiny-sft", "Once upon a time there was a cat.")
result.export("line.html", "line")
sys.modules["accelerate"] = None  # as where the extra is not installed
try:
    ms.train("tiny")
except ms.MicroStepError as error:
    lacking = str(error)
print(json.dumps({
    "quick": quick, "config": type(AutoConfig.from_pretrained(folder)).__module__, "model": type(model).__module__,
    "written": list(written.shape), "scored": len(ms.score("tiny-sft", "A cat.").table), "rows": len(result.table),
    "lacking": "micro_step[train]" in lacking,
    "figure": type(result.figure("scatter")).__name__, "rooms": sorted({*sys.modules} & set(sys.argv[1:])),
}))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds micro_step alone, and sees the other packages of this one."""
    root = tmp_path_factory.mktemp("wheel")
    source, bare = root / "source", root / "bare"
    source.mkdir()
    for name in (*ROOMS, "micro_step"):
        shutil.copytree(ROOT / name, source / name, ignore=LEFT_OUT)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    packages(bare).joinpath("others.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", bare / BIN / "python", "install"]
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--no-compile", "--quiet"]
    subprocess.run([*pip, *options, source], check=True, timeout=200)
    return bare


def packages(environment: Path) -> Path:
    """Where an environment keeps its packages."""
    variables = {"base": str(environment), "platbase": str(environment)}
    return Path(sysconfig.get_path("purelib", vars=variables))


def test_one_package_comes_with_all_its_files(environment):
    site = packages(environment)
    held = {path.name for path in site.iterdir()} - {"others.pth"}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert held == {"micro_step", f"micro_step-{version}.dist-info"}
    missing = []
    for folder, place in [(ROOT / "micro_step", site / "micro_step")] + [
        (ROOT / room, site / "micro_step" / room) for room in ROOMS
    ]:
        for path in folder.rglob("*"):
            needed = path.parent != folder or path.suffix in (".py", ".yaml")  # a room's own README is not
            if path.is_file() and needed and path.suffix != ".pyc" and not {*path.parts} & {*LARGE}:
                missing += [] if (place / path.relative_to(folder)).exists() else [path]
    assert not missing


def test_nothing_in_it_imports_a_room_by_its_short_name(environment):
    for path in (packages(environment) / "micro_step").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {*ROOMS}, path


def test_the_face_works_among_files_of_the_same_names(environment, tmp_path):
    for room in ROOMS:
        (tmp_path / f"{room}.py").write_text("raise SystemExit('the file of the user was imported')")
    (tmp_path / "use.py").write_text(FACE)
    command = [environment / BIN / "python", "use.py", *ROOMS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "quick": True,
        "config": "micro_step.model.micro_step.configuration",
        "model": "micro_step.model.micro_step.modeling",
        "written": [1, 6],
        "scored": 3,
        "rows": 1,
        "lacking": True,
        "figure": "NotebookFigure",
        "rooms": [],
    }
    assert (tmp_path / "line.html").stat().st_size > 1000
    for command in ([environment / BIN / "micro-step"], [environment / BIN / "python", "-m", "micro_step"]):
        shown = subprocess.run([*command, "--help"], cwd=tmp_path, capture_output=True, text=True)
        assert shown.returncode == 0
        assert "micro-step" in shown.stdout


def test_a_folder_of_modules_opens_with_its_base_where_transformers_was_imported_first(tmp_path):
    base = load(ModelSpec("tiny-base"))
    save_modules(MicroStepForCausalLM.from_base(base.model), tmp_path / "modules", "tiny-base", None, None)
    code = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\nimport micro_step\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(tmp_path / 'modules')!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(tmp_path / 'modules')!r})\n"
        "print(type(model).__name__, tokenizer('Once upon')['input_ids'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200)
    expected = base.tokenizer("Once upon")["input_ids"]
    assert done.stdout.strip() == f"MicroStepForCausalLM {expected}", done.stderr


def test_the_ranges_of_the_package_hold_the_pins_that_are_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    ranges = [Requirement(line) for lines in project["optional-dependencies"].values() for line in lines]
    ranges += [Requirement(line) for line in project["dependencies"]]
    pins = {}
    for name in ("requirements.txt", "requirements-evals.txt"):
        for line in (ROOT / name).read_text("utf-8").splitlines():
            if line and line[0] not in "#-":
                pins |= {Requirement(line).name: str(Requirement(line).specifier).removeprefix("==")}
    assert {each.name for each in ranges} - {"micro_step"} == {*pins}
    assert [each for each in ranges if each.name in pins and not each.specifier.contains(pins[each.name])] == []
