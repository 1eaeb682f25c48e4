"""Indices learned by a network through a differentiable allocation, with the LP bound beside them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "Allocation": "allocation",
    "NeuralIndexConfig": "config",
    "NeuralIndexPolicy": "index",
    "NeuralRun": "index",
    "load_neural_index": "index",
    "train_neural_index": "index",
}

__all__ = [
    "Allocation",
    "NeuralIndexConfig",
    "NeuralIndexPolicy",
    "NeuralRun",
    "load_neural_index",
    "train_neural_index",
]


def __getattr__(name: str) -> Any:
    # Nothing of a setting is imported before it is asked for.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
