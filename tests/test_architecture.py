"""The import arrows of the project hold, every module imports, and nothing heavy hangs on the core."""

import ast
import importlib
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("micro_step", "model", "data", "trainer", "analysis", "evals", "serving", "app", "pages", "benchmarks")

# package -> which of the project's packages it may import
ARROWS = {
    "model": set(),
    "data": {"model"},
    "trainer": {"model", "data"},
    "analysis": {"model", "data", "serving"},
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


# room of model -> rooms of model that it may not import
APART = {room: {"hub"} for room in ("causal_lm", "text", "micro_step", "decoding")}
LONGEST_FILE = 600  # lines
LARGEST_FOLDER = 16  # Python files, __init__ and __main__ aside


def imports_of(path):
    """Dotted names of all that a file imports, anywhere in it: inside functions and for type checkers, too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def module_of(path):
    """Dotted name of a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def import_graph():
    """From each module to those modules of the project that it imports."""
    modules = {module_of(path): path for path in FILES}
    graph = {}
    for module, path in modules.items():
        names = imports_of(path)
        graph[module] = {found for name in names if (found := nearest_module(name, modules))} - {module}
    return graph


def nearest_module(name, modules):
    """The module that `from package.module import name` or `import package.module` reads."""
    return name if name in modules else parent if (parent := name.rpartition(".")[0]) in modules else None


def circles(graph):
    """Sets of modules that import each other, by taking away again and again what imports nothing that is left."""
    left = {module: set(others) for module, others in graph.items()}
    while free := {module for module, others in left.items() if not others}:
        left = {module: others - free for module, others in left.items() if module not in free}
    while top := set(left) - set().union(*left.values(), set()):  # what only imports a circle is not in it
        left = {module: others for module, others in left.items() if module not in top}
    return sorted(left)


def arrow_offenders():
    for path in FILES:
        package, *rooms = path.relative_to(ROOT).parts
        names = {name.split(".")[0] for name in imports_of(path)}
        wrong = names & set(PACKAGES) - {package} - ARROWS[package] | names & FORBIDDEN.get(package, set())
        if package == "model":
            apart = APART.get(rooms[0], set())
            wrong |= {name for name in imports_of(path) if name.startswith("model.") and name.split(".")[1] in apart}
        yield from (f"{module_of(path)} imports {name}" for name in sorted(wrong))


def size_offenders():
    for path in FILES:
        lines = path.read_text("utf-8").splitlines()
        if len(lines) > LONGEST_FILE:
            yield f"{path.relative_to(ROOT)} has {len(lines)} lines: give it one subject"
        if lines and not ast.get_docstring(ast.parse("\n".join(lines))):
            yield f"{path.relative_to(ROOT)} does not say what it is for"
    folders = Counter(path.parent for path in (*FILES, *(ROOT / "tests").rglob("*.py")) if "__" not in path.name)
    yield from (f"{folder.relative_to(ROOT)} holds {n} files" for folder, n in folders.items() if n > LARGEST_FOLDER)


def name_offenders():
    where = defaultdict(list)
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                where[node.name].append(module_of(path))
    yield from (f"class {name} stands in {' and '.join(modules)}" for name, modules in where.items() if modules[1:])


def test_the_house_is_in_order():
    offenders = [*arrow_offenders(), *size_offenders(), *name_offenders()]
    offenders += [f"{module} is in a circle of imports" for module in circles(import_graph())]
    assert not offenders, "\n".join(offenders)


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == ["b", "c"]


def test_the_network_and_its_decoding_need_no_hub():
    code = "import sys, model.decoding.merged, model.micro_step.modeling; sys.exit('model.hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


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


def test_pages_show_stored_results_without_torch():
    names = ("uncertainty", "segmentation", "generation", "attention", "depth", "attribution", "runs", "evaluation")
    files = [ROOT / "app" / "main.py", *(ROOT / "pages" / f"{name}.py" for name in names)]
    nodes = [node for path in files for node in ast.parse(path.read_text("utf-8")).body]
    lines = [ast.unparse(node) for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    code = "import sys\n" + "\n".join(lines) + "\nsys.exit(bool({'torch', 'transformers'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def is_of_evals(node):
    """Whether a node imports of evals."""
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "evals"
