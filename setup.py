"""Builds the wheel. It holds one top-level package, `micro_step`, with the rooms of the source tree under it.

In the source tree the rooms stand side by side and are imported by short names (`model`, `data`, `app`), which other
people's code uses as well. In the wheel `model/` is `micro_step/model/`, and the imports are rewritten to match. An
editable install (`pip install -e .`) stays as the source tree is. All else that is said of the project stands in
pyproject.toml.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from model.import_rewriting import rewrite_imports  # noqa: E402 - the path comes first

PACKAGE = "micro_step"
# 9 MB of models; those on SmolLM2, 44 MB, stay in the source tree
DEMO = (
    "demo/tiny-*/*",
    "demo/micro-step-tiny/*",
    *(f"demo/{name}/{files}" for name in ("evaluated", "scored") for files in ("*.*", "*/*")),
)
EVERY = find_packages(str(ROOT), exclude=["tests", "tests.*"])
ROOMS = [name for name in EVERY if "." not in name and name != PACKAGE]


class OnePackage(build_py):
    """Copies the modules with their imports rewritten."""

    def run(self) -> None:
        """Build; what an earlier build left is removed first, since it would go into the wheel as well."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()

    def build_module(self, module: str, module_file: str, package: str) -> tuple[str, bool]:
        """Copy one module."""
        written, copied = super().build_module(module, module_file, package)
        file = Path(written)
        file.write_text(rewrite_imports(file.read_text("utf-8"), ROOMS, PACKAGE), "utf-8")
        return written, copied


class AsTheSourceTree(editable_wheel):
    """Makes the rooms importable by their short names, from where they are."""

    def run(self) -> None:
        """Install."""
        self.distribution.packages, self.distribution.package_dir = list(EVERY), {}
        super().run()


setup(
    packages=[name if name.split(".")[0] == PACKAGE else f"{PACKAGE}.{name}" for name in EVERY],
    package_dir={f"{PACKAGE}.{room}": room for room in ROOMS},
    package_data={
        f"{PACKAGE}.data": [
            "*.yaml",
            "mixes/*.yaml",
            "prompts/*.yaml",
            "samples/*",
            "examples/*",
            "recordings/*",
            *DEMO,
        ],
        f"{PACKAGE}.app": ["icon.svg", "layout.css", "one_step.js", ".streamlit/config.toml"],
        f"{PACKAGE}.app.access": ["*.html", "*.js"],
        f"{PACKAGE}.app.token_strip": ["*.js"],
        f"{PACKAGE}.analysis.token_strip": ["*.js", "*.css"],
        f"{PACKAGE}.analysis.generation": ["*.js", "*.css"],
        f"{PACKAGE}.trainer": ["recipes/*.yaml"],
        f"{PACKAGE}.evals": ["tasks/*.yaml", "tasks/*.jsonl", "ablations/*.yaml"],
    },
    include_package_data=False,
    cmdclass={"build_py": OnePackage, "editable_wheel": AsTheSourceTree},
)
