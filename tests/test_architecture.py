"""The import arrows of the project hold, every module imports, and nothing heavy hangs on the core."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("micro_step", "model", "data", "trainer", "analysis", "evals", "serving", "app", "pages", "benchmarks")

# package -> which of the project's packages it may import
ARROWS = {
    "model": set(),
    "data": {"model"},
    "trainer": {"model", "data"},
    "analysis": {"model", "data"},
    "evals": {"model", "data", "analysis", "trainer"},
    "serving": {"model"},
    "app": {"model", "data", "analysis", "evals"},
    "pages": {"model", "data", "analysis", "evals", "app"},
    "benchmarks": {"model", "data", "analysis", "trainer", "evals", "serving"},
    "micro_step": {"model", "data", "analysis", "trainer", "evals", "serving", "benchmarks", "app"},
}
FORBIDDEN = {
    "model": {"pandas", "plotly", "streamlit"},
    "data": {"streamlit", "plotly"},
    "analysis": {"streamlit"},
    "trainer": {"streamlit"},
    "evals": {"streamlit"},
    "serving": {"streamlit"},
    "micro_step": {"streamlit"},
}
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path):
    """Top-level packages that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add((node.module or "").split(".")[0])
    return names


def test_arrows():
    offenders = []
    for path in FILES:
        package = path.relative_to(ROOT).parts[0]
        names = imported(path)
        wrong = names & set(PACKAGES) - {package} - ARROWS[package] | names & FORBIDDEN.get(package, set())
        offenders += [f"{path.relative_to(ROOT)} imports {name}" for name in sorted(wrong)]
    assert not offenders


def test_only_app_cache_uses_streamlits_cache():
    users = [path.relative_to(ROOT).as_posix() for path in FILES if "st.cache_" in path.read_text("utf-8")]
    assert users == ["app/cache.py"]


def test_every_module_imports():
    for path in FILES:
        relative = path.relative_to(ROOT).with_suffix("")
        if relative.parts[0] == "pages" or relative.name in ("__main__", "main"):
            continue  # a page is run by the app: see test_app.py
        importlib.import_module(".".join(relative.parts).removesuffix(".__init__"))


def test_the_command_line_starts_without_torch():
    """`micro-step --help` answer in well under a second."""
    heavy = "sys.exit(bool({'torch', 'transformers', 'pandas'} & {*sys.modules}))"
    code = f"import sys, micro_step.cli as cli; cli.command([]); {heavy}"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_what_the_app_takes_from_evals_needs_neither_torch_nor_the_harness():
    """The page Benchmarks opens where lm-evaluation-harness is not installed."""
    users = [path for path in FILES if path.relative_to(ROOT).parts[0] in ("app", "pages")]
    nodes = [node for path in users for node in ast.walk(ast.parse(path.read_text("utf-8"))) if is_of_evals(node)]
    lines = list(map(ast.unparse, nodes))
    assert lines
    code = "import sys\n" + "\n".join(lines) + "\nsys.exit(bool({'torch', 'lm_eval', 'transformers'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def is_of_evals(node):
    """Whether a node imports of evals."""
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "evals"


def test_files_are_small_and_say_what_they_are_for():
    for path in FILES:
        text = path.read_text("utf-8")
        assert len(text.splitlines()) <= 400, f"{path} is long: give it one subject"
        assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
