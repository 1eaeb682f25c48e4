"""What training draws beside its episodes: next states for Bellman targets, and the samples of the warm start."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.decisions import Model
from rmab_opt.errors import ModelError
from rmab_opt.problem import Problem
from rmab_opt.problem.dynamics import require_tabular

__all__ = ["MOST_SUCCESSORS", "Successors", "WarmStart"]

MOST_SUCCESSORS = 1024
"""Joint next states beyond which an exact expectation is refused."""

POOL = 200
"""Random allowed actions drawn once for the published warm start, and as many random states."""


class Successors:
    """K next states of a state and action, with weights that sum to one.

    Parameters
    ----------
    problem
        Whose arms move independently given the action.
    count
        Next states drawn, the one that came about among them; 0 for all that are possible.

    Raises
    ------
    ModelError
        When all are asked for and there may be more than :data:`MOST_SUCCESSORS`.
    CapabilityError
        When all are asked for and the dynamics offer neither tables nor joint chances.
    """

    def __init__(self, problem: Problem, count: int) -> None:
        self.problem, self.count, self.exact = problem, count, count == 0
        dynamics: Any = problem.dynamics
        self._joint: Any = dynamics if callable(getattr(dynamics, "joint_chance", None)) else None
        if self.exact and self._joint is not None:
            self.count = _few(len(self._joint.possible()))
        elif self.exact:
            self._kernel, _ = require_tabular(problem.dynamics, "all next states")
            most = float(np.prod((self._kernel > 0).sum(axis=3).max(axis=(1, 2)).astype(float)))
            self.count = _few(most)

    def __call__(
        self,
        state: np.ndarray,
        action: np.ndarray,
        moved: np.ndarray,
        actions: ActionSet,
        rng: np.random.Generator,
        shared: np.ndarray | None = None,
        after: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """(next states (K, N), weights (K,), next shared states (K, k) or None).

        ``moved`` (N,) and ``after`` (k,) are those that came about from ``shared`` (k,).
        """
        arm_action = actions.columns.arm_action(action)
        if not self.exact:
            others = [self.problem.step(state, arm_action, shared, rng) for _ in range(self.count - 1)]
            beside = None if after is None else np.stack([after, *(np.asarray(part[2]) for part in others)])
            return np.stack([moved, *(part[0] for part in others)]), np.full(self.count, 1.0 / self.count), beside
        if self._joint is not None:
            joint = self._joint.possible()
            chance = self._joint.joint_chance(state, arm_action, shared, joint)
            if shared is None:
                return joint, chance, None
            follows = self._joint.shared_next(state, arm_action, shared, joint)
            return joint, chance, np.broadcast_to(follows, (len(joint), len(shared)))
        rows = self._kernel[np.arange(len(state)), arm_action, state]
        support = [np.flatnonzero(row) for row in rows]
        joint = np.stack(np.meshgrid(*support, indexing="ij"), axis=-1).reshape(-1, len(state))
        chance = np.prod(rows[np.arange(len(state)), joint], axis=1)
        # Fixed width for the memory's arrays: what is missing has weight zero.
        lacking = self.count - len(joint)
        filled = np.concatenate([joint, np.repeat(joint[:1], lacking, axis=0)])
        return filled, np.concatenate([chance, np.zeros(lacking)]), None


def _few(most: float) -> int:
    if most > MOST_SUCCESSORS:
        raise ModelError(
            f"train.next_states is 0 and {most:.3g} joint next states may follow, more than {MOST_SUCCESSORS}",
            "sample them: next_states 1 or more.",
        )
    return int(most)


class WarmStart:
    """Samples for a fit to known rewards.

    Parameters
    ----------
    model
        What is learned on.
    kind
        ``lasting``: random states, random actions of any size, the reward as if it went on to the end.
        ``published``: states all 0, all 1, unit vectors and their complements, and states in which the arms of a random
        allowed action stand at the top and the others anywhere; actions nothing, everything, unit vectors, their
        complements, random allowed ones and those arms; one round's reward. Forbidden actions are welcome: they teach
        the reward of every arm and action alike.
    rng
        Of all draws.

    References
    ----------
    Xu, Wilder, Khalil, Tambe (ICLR 2025), warm start; the released code drew its first group from one state only.
    """

    def __init__(self, model: Model, kind: str, rng: np.random.Generator) -> None:
        self.model, self.kind, self.rng = model, kind, rng
        if kind == "published":
            now = model.actions.at(0, model.problem.shared_values(model.problem.start_shared))
            self.allowed = now.sample(rng, POOL)
            self.states, self.actions = self._published()

    def draw(self, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """States (size, N), periods (size,), actions (size, C), rewards a arm (size, N)."""
        problem, columns, rng = self.model.problem, self.model.actions.columns, self.rng
        if self.kind == "published":
            rows = rng.integers(len(self.states), size=size)
            state, action = self.states[rows].astype(np.int64), self.actions[rows].astype(np.int64)
        else:
            state = rng.integers(problem.dynamics.n_states, size=(size, problem.n_arms))
            action = (rng.random((size, len(columns))) < rng.random((size, 1))).astype(np.int64)
        if columns.exclusive:
            action = np.stack([_one_an_arm(row, columns.effect.indices, rng) for row in action])
        # Where the arms share a state, at its first value.
        reward = problem.expected_reward(state, columns.arm_action(action), problem.start_shared)
        period = rng.integers(problem.horizon, size=size)
        lasting = 1 if self.kind == "published" else (problem.horizon - period)[:, None]
        return state, period, action, reward * lasting

    def _published(self) -> tuple[np.ndarray, np.ndarray]:
        n_arms, n_columns = self.model.problem.n_arms, len(self.model.actions)
        top = self.model.problem.dynamics.n_states - 1
        unit, columns = np.eye(n_arms, dtype=np.int16), np.eye(n_columns, dtype=np.int8)
        starters = np.concatenate([np.zeros((1, n_columns)), np.ones((1, n_columns)), columns, 1 - columns]).astype(
            np.int8
        )
        plain = np.concatenate([np.zeros((1, n_arms)), np.ones((1, n_arms)), unit, 1 - unit]).astype(np.int16)
        groups = []
        for state in plain:
            groups.append((state, np.concatenate([self.allowed[:10], starters])))
        for own in self.allowed:
            high = self.model.actions.columns.arm_action(own) > 0
            state = np.where(high, top, self.rng.integers(top + 1, size=n_arms)).astype(np.int16)
            some = self.allowed[self.rng.integers(POOL, size=10)]
            groups.append((state, np.concatenate([own[None], some, starters])))
        states = np.concatenate([np.repeat(state[None], len(tried), axis=0) for state, tried in groups])
        return states, np.concatenate([tried for _, tried in groups]).astype(np.int8)


def _one_an_arm(action: np.ndarray, arm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    order = rng.permutation(len(action))
    kept = order[np.unique(np.where(action[order] == 1, arm[order], -1 - order), return_index=True)[1]]
    out = np.zeros_like(action)
    out[kept] = action[kept]
    return out
