"""Lets transformers' Auto classes open our checkpoints in a process that imported only `micro_step`.

Our classes register themselves when their modules are imported, which takes torch and transformers. To keep `import
micro_step` quick, that waits until transformers itself imports its Auto classes. A module that ours need must not
import an Auto class at its top: if it were the first to do so, it would be asked for while half done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def _register_configuration() -> None:
    from model.micro_step import configuration  # noqa: F401


def _register_model() -> None:
    from model.hub import fetch  # noqa: F401 - it finds bases by the names of the catalog
    from model.micro_step import modeling  # noqa: F401


def _register_tokenizer() -> None:
    from model.hub import fetch  # noqa: F401 - it finds bases by the names of the catalog
    from model.micro_step import tokenizer  # noqa: F401


_AFTER: dict[str, Callable[[], None]] = {
    "transformers.models.auto.configuration_auto": _register_configuration,
    "transformers.models.auto.modeling_auto": _register_model,
    "transformers.models.auto.tokenization_auto": _register_tokenizer,
}


class _AfterAutoClasses(MetaPathFinder):
    """Finds the modules of the Auto classes as Python does, and registers our classes once they have run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own spec, its loader extended; None for all other modules."""
        register = _AFTER.get(fullname)
        spec = PathFinder.find_spec(fullname, path, target) if register is not None else None
        if register is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def register_auto_classes() -> None:
    """Register our classes with the Auto classes: now where these are imported already, else as soon as they are."""
    imported = [name for name in _AFTER if name in sys.modules]
    for name in imported:
        _AFTER[name]()
    if len(imported) < len(_AFTER):
        sys.meta_path.insert(0, _AfterAutoClasses())
