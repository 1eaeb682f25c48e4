"""Arms of their own that share what is left of a season: so many acts in all, spread as the plan likes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from rmab_opt import registry
from rmab_opt.problem.arms import Arms
from rmab_opt.problem.dynamics import Dynamics
from rmab_opt.registry import register

__all__ = ["Season"]


class Season:
    """Independent arms whose acts use up one shared number; a budget limits a round's acts to it (``{from: left}``).

    Parameters
    ----------
    arms
        How the arms move.
    total
        Acts at the beginning.
    name
        Of the shared number.
    """

    def __init__(self, arms: Dynamics, total: float, name: str = "left") -> None:
        self.arms = arms
        self.n_arms, self.n_states, self.n_actions = arms.n_arms, arms.n_states, arms.n_actions
        self.shared_names, self.shared_start = (name,), np.array([float(total)])
        named = getattr(arms, "state_names", None)
        if named is not None:
            self.state_names = named

    def frozen_tabular(self) -> tuple[np.ndarray, np.ndarray]:
        """Tables of the arms; what is left only limits the acts."""
        return self.arms.tabular()

    def p_next(self, state: np.ndarray, action: np.ndarray, shared: np.ndarray) -> np.ndarray:
        transition, _ = self.arms.tabular()
        return transition[np.arange(self.n_arms), action, state]

    def expected_reward(self, state: np.ndarray, action: np.ndarray, shared: np.ndarray) -> np.ndarray:
        return self.arms.expected_reward(state, action)

    def step_shared(
        self, state: np.ndarray, action: np.ndarray, shared: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        moved, paid = self.arms.step(state, action, rng)
        used = (np.asarray(action) > 0).sum(axis=-1, keepdims=True)
        return moved, paid, np.maximum(np.asarray(shared, dtype=np.float64) - used, 0.0)


@register("dynamics", "season")
def season(
    arms: Arms,
    folder: Path,
    others: str,
    *,
    total: Annotated[float, Field(ge=0)],
    of: dict[str, Any],
    name: str = "left",
) -> Season:
    """Arms with so many acts in a season.

    Parameters
    ----------
    total
        Acts in the season; a constraint ``{kind: budget, at_most: {from: left}}`` keeps to what is left of it.
    of
        How the arms move: another kind of dynamics with its arguments.
    name
        Of what is left.
    """
    entry = registry.find("dynamics", of.get("kind"))
    given = entry.check({key: value for key, value in of.items() if key != "kind"})
    return Season(entry.make(arms, folder, others, **given), total, name)
