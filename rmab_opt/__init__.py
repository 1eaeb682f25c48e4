"""Optimisation modelling for restless bandits with combinatorial actions.

Every decision is a mathematical program: declare arms and constraints, decide with a certificate,
train the embedded Q, evaluate against the bound. Names load when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rmab_opt._startup import load_scipy_lazily

__version__ = "0.2.0"

__all__ = [
    "ActionSet",
    "Constraint",
    "Decision",
    "Model",
    "Problem",
    "RmabError",
    "__version__",
    "bound",
    "decide",
    "evaluate",
    "load",
    "show_versions",
    "train",
]

if TYPE_CHECKING:
    from rmab_opt.actions import ActionSet, Constraint
    from rmab_opt.catalog import load
    from rmab_opt.decisions import Decision, Model, bound, decide
    from rmab_opt.errors import RmabError
    from rmab_opt.learning import evaluate, train
    from rmab_opt.problem import Problem

_HOME = {
    "ActionSet": "actions",
    "Constraint": "actions",
    "Decision": "decisions",
    "Model": "decisions",
    "Problem": "problem",
    "RmabError": "errors",
    "bound": "decisions",
    "decide": "decisions",
    "evaluate": "learning",
    "load": "catalog",
    "train": "learning",
}


load_scipy_lazily()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def show_versions() -> str:
    """A block for a bug report: versions, machine, solvers found."""
    import os
    import platform
    from importlib import metadata

    lines = [
        f"rmab-opt {__version__}",
        f"python {platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores",
    ]
    for name in (
        "pyomo",
        "highspy",
        "numpy",
        "scipy",
        "torch",
        "networkx",
        "pydantic",
        "gymnasium",
        "matplotlib",
        "gurobipy",
        "pyscipopt",
    ):
        try:
            lines.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{name} not installed")
    return "\n".join(lines)
