"""What a generator of seeded instances gives, and how one is registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rmab_opt import registry
from rmab_opt.problem import Problem, Table

__all__ = ["Instance", "domain", "generate"]


@dataclass(frozen=True)
class Instance:
    """A generated problem with the tables its constraints refer to by name.

    ``columns``, when given, holds what can be chosen where that is not the arms themselves: (ids, effect), ids of
    length C and effect[c, n], what choosing column c adds to arm n's action. ``attributes`` are those columns' cells
    by name, each of length C.
    """

    problem: Problem
    tables: dict[str, Table]
    columns: tuple[tuple[str, ...], np.ndarray] | None = None
    attributes: Mapping[str, Sequence[object]] = field(default_factory=dict)


def domain(name: str) -> Callable[[Callable[..., Instance]], Callable[..., Instance]]:
    """Register a generator for model files: ``problem: {domain: NAME, ...}``; its arguments are keyword-only."""
    return registry.register("domain", name)


def generate(name: str, **settings: Any) -> Instance:
    """An instance of a domain.

    Raises
    ------
    ModelError
        When there is no such domain; names the nearest.
    """
    made: Instance = registry.find("domain", name).make(**settings)
    return made
