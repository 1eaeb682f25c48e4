"""The published coupled settings with arms that remember, and the table over all of them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "compare": "comparison",
}

__all__ = [
    "compare",
]


def __getattr__(name: str) -> Any:
    # Nothing of a setting is imported before it is asked for.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
