"""Leximin, level by level: the worst groups as high as they go, then the next, each settled with its proof."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np

from rmab_opt.settings.equity.groups import Groups
from rmab_opt.settings.equity.relaxed import Answer, Stage
from rmab_opt.settings.equity.welfare import Welfare

__all__ = ["Level", "Levels", "solve_levels"]

SLACK = 1e-9
"""How far a level reached before may be missed by a later stage, relative: below what the solver tells apart. Where a
little of one group is worth much to another, more than this shifts later levels by a thousand times as much."""

LEAST_SHARE = 1e-3
"""Share of an even multiplier from which a group surely binds."""


class Backend(Protocol):
    """What answers a stage: prices or one program."""

    def solve(self, stage: Stage, *, tolerance: float = ..., until: float | None = ...) -> Answer:
        """Best group values of a stage."""


@dataclass(frozen=True, eq=False)
class Level:
    """One settled level.

    ``value`` is attained by all groups that were not settled before, no plan that keeps the levels before lifts them
    all above ``upper``; ``groups`` (k,) are settled here; ``seconds`` since the beginning.
    """

    value: float
    upper: float
    groups: np.ndarray
    seconds: float


@dataclass(frozen=True, eq=False)
class Levels:
    """``first`` carries the certificate, ``last`` the values reported; ``complete`` says whether time sufficed."""

    first: Answer
    last: Answer
    settled: tuple[Level, ...]
    complete: bool


def solve_levels(
    backend: Backend,
    groups: Groups,
    kind: Welfare,
    *,
    floors: np.ndarray | None = None,
    tolerance: float = 1e-7,
    until: float | None = None,
    on_level: Callable[[Level], None] | None = None,
) -> Levels:
    """The stages of a welfare; any but ``leximin`` has one, or two.

    Parameters
    ----------
    floors
        Least value of each group, (K,).
    until
        Time of the clock (``perf_counter``) after which no stage begins and none goes on that has a plan.
    on_level
        Called with each level as it settles.
    """
    begun = perf_counter()
    floors = np.full(len(groups), -np.inf) if floors is None else np.array(floors, dtype=float)
    if not kind.lowest_first:
        stage = Stage(floors, weights=kind.weights(groups), welfare=kind)
        answer = backend.solve(stage, tolerance=tolerance, until=until)
        return Levels(answer, answer, (), _closed(answer, tolerance))
    free = np.ones(len(groups), dtype=bool)
    first: Answer | None = None
    settled: list[Level] = []
    while True:
        answer = backend.solve(Stage(floors, free=free), tolerance=tolerance, until=until)
        first = answer if first is None else first
        level = answer.lower - SLACK * max(1.0, abs(answer.lower))
        if kind.kind == "max_min":
            break
        binding = free & _binding(answer, free, tolerance)
        settled.append(Level(answer.lower, answer.upper, np.flatnonzero(binding), perf_counter() - begun))
        if on_level is not None:
            on_level(settled[-1])
        floors[binding] = np.maximum(floors[binding], level)
        free &= ~binding
        late = until is not None and perf_counter() >= until
        if late or not free.any():
            return Levels(first, answer, tuple(settled), not free.any() and _closed(first, tolerance))
    # Of all plans that lift the worst group as far as it goes, the one with the best mean.
    if until is not None and perf_counter() >= until:
        return Levels(first, first, (), _closed(first, tolerance))
    plain = Welfare.of("utilitarian")
    stage = Stage(np.maximum(floors, level), weights=plain.weights(groups), welfare=plain)
    return Levels(first, backend.solve(stage, tolerance=tolerance, until=until), (), _closed(first, tolerance))


def _binding(answer: Answer, free: np.ndarray, tolerance: float) -> np.ndarray:
    """Free groups that no plan with the rest at the level lifts: those with a positive multiplier bind in every one."""
    room = max(2.0 * (answer.upper - answer.lower), 10.0 * tolerance * max(1.0, abs(answer.lower)))
    near = answer.values <= answer.lower + room
    found = near & (answer.share > LEAST_SHARE / free.sum())
    return found if (free & found).any() else answer.share >= answer.share[free].max()


def _closed(answer: Answer, tolerance: float) -> bool:
    return answer.upper - answer.lower <= 2.0 * tolerance * max(1.0, abs(answer.lower))
