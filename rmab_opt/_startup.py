"""Parts of scipy that are imported in advance are loaded when first used.

Pyomo imports ``scipy.stats`` and what it stands on as soon as scipy is there, at a third of a second of CPU time in
every process, for transformations that nothing here calls; ``scipy.optimize`` is asked by few verbs. The standard
library's lazy loader leaves them where everybody expects them and runs them at the first look inside.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

__all__ = ["load_scipy_lazily", "load_whole"]

PARTS = frozenset(
    {"scipy.integrate", "scipy.optimize", "scipy.sparse.csgraph", "scipy.sparse.linalg", "scipy.spatial", "scipy.stats"}
)


class _AtFirstUse(MetaPathFinder):
    """Finds the parts where they are, and puts off their execution."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in PARTS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def load_whole() -> None:
    """Execute what has been put off: the lazy loader is not made for threads that look inside at the same time."""
    for name in sorted(PARTS):
        _ = import_module(name).__doc__


def load_scipy_lazily() -> None:
    """From now on in this process; parts that are loaded already stay as they are."""
    if not any(isinstance(finder, _AtFirstUse) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AtFirstUse())
