"""Simulate, train, evaluate: the loop whose argmax is `decide`."""

from __future__ import annotations

from typing import Any

__all__ = [
    "DQNConfig",
    "Evaluation",
    "RestlessBanditEnv",
    "RestlessBanditVectorEnv",
    "Run",
    "Simulator",
    "evaluate",
    "load_policy",
    "train",
]

_HOME = {
    "DQNConfig": "config",
    "Run": "dqn",
    "train": "dqn",
    "load_policy": "runs",
    "Evaluation": "evaluation",
    "evaluate": "evaluation",
    "RestlessBanditEnv": "environment",
    "RestlessBanditVectorEnv": "environment",
    "Simulator": "simulator",
}


def __getattr__(name: str) -> Any:
    # torch and gymnasium load only when a name that needs them is asked for.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from rmab_opt.errors import ModelError

        raise ModelError(f"{name} needs torch, which is not installed", "pip install 'rmab-opt[learn]'.") from error
