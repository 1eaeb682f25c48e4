"""Rules of thumb for coupled arms, which a planner or a learned network has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.errors import CapabilityError
from rmab_opt.problem import Problem
from rmab_opt.registry import register

__all__ = ["Hand"]


class Hand:
    """Scores that the dynamics' own ``hand`` gives."""

    note = ""
    batched = True

    def __init__(self, problem: Problem) -> None:
        self._dynamics: Any = problem.dynamics
        if not callable(getattr(self._dynamics, "hand", None)):
            raise CapabilityError("hand()", self._dynamics, ("say it in the dynamics", "use 'myopic'"))

    def scores(
        self,
        state: np.ndarray,
        period: int,
        rng: np.random.Generator | None = None,
        shared: np.ndarray | None = None,
    ) -> np.ndarray:
        """Score of each arm-action now, passive 0, (..., N, 2)."""
        now = np.asarray(self._dynamics.hand(state, period, shared))
        return np.stack([np.zeros_like(now), now], axis=-1)


@register("rule", "hand")
def hand(problem: Problem, actions: ActionSet) -> Hand:
    """The rule of thumb that goes with the arms: spreaders first, influencers first, the fullest group, the dearest."""
    return Hand(problem)
