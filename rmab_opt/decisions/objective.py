"""What one decision maximises: an expression over the columns and an independent evaluator of the same number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyomo.environ as pyo

from rmab_opt.actions import Columns
from rmab_opt.encoder import Network, Record, Rows, Support, assemble
from rmab_opt.encoder.bounds import Effort
from rmab_opt.encoder.rows import Formulation
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.problem import Problem

__all__ = ["Immediate", "LinearObjective", "NetworkObjective", "Objective", "Scores", "Situation"]


SEARCH_FROM_BINARIES = 12
"""Networks with fewer indicator binaries are solved faster than a start is searched for: a pooled network of 240
arms with a head of 4 took 0.02 s to solve and 0.15 s to search."""


@dataclass(frozen=True)
class Situation:
    """Where a decision is taken.

    ``state`` is int (N,), ``period`` the round counted from 0.
    """

    problem: Problem
    columns: Columns
    state: np.ndarray
    period: int = 0


class Objective:
    """Base of objectives; always maximised.

    A subclass builds its expression once with mutable Params for everything that the state changes and
    returns their values from :meth:`update`, so that a new state costs no new program.
    """

    def build(self, block: Any, act: Any, situation: Situation) -> Any:
        """Add what the expression needs to the Pyomo block and return the expression."""
        raise NotImplementedError

    def update(self, situation: Situation) -> dict[str, np.ndarray]:
        """Values of the block's mutable Params for another situation, by the Param's name in the block."""
        raise NotImplementedError

    def outdated(self, situation: Situation) -> bool:
        """Whether the built program cannot take this situation by :meth:`update` and must be built anew."""
        return False

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        """The same number computed without the program, for actions (M, C); shape (M,)."""
        raise NotImplementedError

    def value(self, action: np.ndarray, situation: Situation) -> float:
        """The number of one action."""
        return float(self.batch_value(np.asarray(action)[None, :], situation)[0])

    def ceiling(self, situation: Situation) -> float:
        """A proven upper limit known without solving; infinity when there is none."""
        return np.inf

    def faults(self, actions: np.ndarray, situation: Situation) -> list[str]:
        """What in the program built for this situation disagrees with the objective at allowed actions (M, C)."""
        return []

    def remarks(self, action: np.ndarray, situation: Situation) -> dict[str, Any]:
        """What a decision should say beside its value, by name: an estimate out of sample, a guarantee."""
        return {}

    def greedy(self, actions: Any, situation: Situation, *, title: str = "") -> Any:
        """A decision built one column at a time by gains that only shrink, for objectives that have them."""
        raise CapabilityError("method 'greedy'", self, ("use method 'auto'", "use an objective of kind 'cascade'"))

    @property
    def searchable(self) -> bool:
        """Whether a local search for a start pays: for networks with many bends, not for linear programs."""
        return False

    @property
    def listable(self) -> bool:
        """Whether valuing tens of thousands of actions at once costs milliseconds."""
        return False


class LinearObjective(Objective):
    """An objective that is linear in the columns; subclasses say :meth:`coefficients`."""

    def coefficients(self, situation: Situation) -> tuple[np.ndarray, float]:
        """(value of each column (C,), value of choosing nothing)."""
        raise NotImplementedError

    @property
    def listable(self) -> bool:
        return True

    def linear(self, situation: Situation) -> bool:
        """Whether :meth:`coefficients` tell the whole objective over this set's columns."""
        return True

    def build(self, block: Any, act: Any, situation: Situation) -> Any:
        n_columns = len(situation.columns)
        scores, base = self.coefficients(situation)
        block.score = pyo.Param(
            range(n_columns), mutable=True, domain=pyo.Reals, initialize=dict(enumerate(scores.tolist()))
        )
        block.base = pyo.Param(mutable=True, domain=pyo.Reals, initialize=float(base))
        return pyo.quicksum(block.score[c] * act[c] for c in range(n_columns)) + block.base

    def update(self, situation: Situation) -> dict[str, np.ndarray]:
        scores, base = self.coefficients(situation)
        return {"score": scores, "base": np.array([base])}


class Immediate(LinearObjective):
    """Expected reward of this round, summed over arms: the myopic objective.

    Linear when no two columns that may be chosen together touch one arm. Otherwise an arm's action is the
    sum of what its chosen columns add, and its reward is looked up exactly by one binary a level::

        sum over l of z[n, l] = 1,  sum over l of l * z[n, l] = sum over c of effect[c, n] * act[c],
        reward of arm n = sum over l of r[n, s_n, l] * z[n, l].
    """

    def build(self, block: Any, act: Any, situation: Situation) -> Any:
        if not self._several(situation.columns):
            return super().build(block, act, situation)
        effect = situation.columns.effect.tocsc()
        reward = self._rewards(situation)
        touched = np.flatnonzero(np.diff(effect.indptr))
        most = np.minimum(effect.sum(axis=0)[touched], reward.shape[1] - 1).astype(int)
        levels = [(int(n), level) for n, top in zip(touched, most, strict=True) for level in range(top + 1)]
        block.level = pyo.Var(levels, domain=pyo.Binary)
        block.reward = pyo.Param(
            levels,
            mutable=True,
            domain=pyo.Reals,
            initialize={(n, level): float(reward[n, level]) for n, level in levels},
        )
        block.rest = pyo.Param(mutable=True, domain=pyo.Reals, initialize=self._untouched(reward, touched))
        top_of = dict(zip(touched.tolist(), most.tolist(), strict=True))

        @block.Constraint(touched.tolist())
        def one_level(_: Any, n: int) -> Any:
            return sum(block.level[n, level] for level in range(top_of[n] + 1)) == 1

        @block.Constraint(touched.tolist())
        def adds_up(_: Any, n: int) -> Any:
            entries = slice(effect.indptr[n], effect.indptr[n + 1])
            sent = sum(
                float(w) * act[int(c)] for c, w in zip(effect.indices[entries], effect.data[entries], strict=True)
            )
            return sum(level * block.level[n, level] for level in range(top_of[n] + 1)) == sent

        return pyo.quicksum(block.reward[key] * block.level[key] for key in levels) + block.rest

    def update(self, situation: Situation) -> dict[str, np.ndarray]:
        if not self._several(situation.columns):
            return super().update(situation)
        effect = situation.columns.effect.tocsc()
        reward = self._rewards(situation)
        touched = np.flatnonzero(np.diff(effect.indptr))
        most = np.minimum(effect.sum(axis=0)[touched], reward.shape[1] - 1).astype(int)
        values = [reward[n, : top + 1] for n, top in zip(touched, most, strict=True)]
        return {"reward": np.concatenate(values), "rest": np.array([self._untouched(reward, touched)])}

    def linear(self, situation: Situation) -> bool:
        return not self._several(situation.columns)

    def coefficients(self, situation: Situation) -> tuple[np.ndarray, float]:
        columns = situation.columns
        if self._several(columns):
            raise CapabilityError(
                "an expected reward that is linear in the columns",
                situation.problem.dynamics,
                ("use columns that touch one arm each", "let Immediate build its levels"),
            )
        reward = self._rewards(situation)
        acting = np.repeat(np.arange(len(columns)), np.diff(columns.effect.indptr))
        arm, level = columns.effect.indices, np.rint(columns.effect.data).astype(np.int64)
        gain = np.zeros(len(columns))
        gain[acting] = reward[arm, level] - reward[arm, 0]
        return gain, float(reward[:, 0].sum())

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        return situation.problem.dynamics.expected_reward(situation.state, situation.columns.arm_action(actions)).sum(
            axis=-1
        )

    @staticmethod
    def _several(columns: Columns) -> bool:
        """Whether one arm's action may come from several columns, or one column acts on several arms."""
        effect = columns.effect
        touches = np.diff(effect.indptr)
        return bool((touches > 1).any() or (not columns.exclusive and (np.bincount(effect.indices) > 1).any()))

    @staticmethod
    def _rewards(situation: Situation) -> np.ndarray:
        """Expected reward of each arm by action, (N, A), at the current states: one vectorised call an action."""
        dynamics, state = situation.problem.dynamics, situation.state
        if getattr(dynamics, "coupled", False):
            raise CapabilityError(
                "an expected reward that is a sum over arms",
                dynamics,
                ("use policy 'myopic_cascade'", "use an objective of kind 'cascade'"),
            )
        return np.stack(
            [dynamics.expected_reward(state, np.full_like(state, action)) for action in range(dynamics.n_actions)],
            axis=1,
        )

    @staticmethod
    def _untouched(reward: np.ndarray, touched: np.ndarray) -> float:
        return float(np.delete(reward[:, 0], touched).sum())


class Scores(LinearObjective):
    """A given score of every arm, by state and action: an index, a priority, a price-adjusted value.

    Parameters
    ----------
    scores
        Shape (C,), one number a column whatever the state; or (N, S, A), or (T, N, S, A) by period
        (the last period's table serves all later ones). Arm scores are compared with action 0's.

    Raises
    ------
    ModelError
        When a score is not finite or the shape fits neither columns nor arms.
    """

    def __init__(self, scores: np.ndarray) -> None:
        scores = np.asarray(scores, dtype=np.float64)
        if scores.ndim not in (1, 3, 4):
            raise ModelError(f"scores have shape {scores.shape}", "give (C,), (N, S, A) or (T, N, S, A).")
        if not np.isfinite(scores).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(scores))[0])
            raise ModelError(f"score at {where} is {scores[where]}", "give finite numbers.")
        self.scores = scores

    def coefficients(self, situation: Situation) -> tuple[np.ndarray, float]:
        if self.scores.ndim == 1:
            if self.scores.shape != (len(situation.columns),):
                raise ModelError(
                    f"{self.scores.size} scores for {len(situation.columns)} columns", "give one a column."
                )
            return self.scores, 0.0
        table = self._table(situation)
        effect = situation.columns.effect
        level = np.rint(effect.data).astype(np.int64)
        gain = np.zeros(len(situation.columns))
        acting = np.repeat(np.arange(len(situation.columns)), np.diff(effect.indptr))
        arm = effect.indices
        np.add.at(gain, acting, table[arm, level] - table[arm, 0])
        return gain, float(table[:, 0].sum())

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        actions = np.asarray(actions)
        if self.scores.ndim == 1:
            return actions.astype(np.float64) @ self.scores
        table = self._table(situation)
        arm_action = situation.columns.arm_action(actions)
        return table[np.arange(table.shape[0]), arm_action].sum(axis=-1)

    def _table(self, situation: Situation) -> np.ndarray:
        """Scores at the current states, (N, A)."""
        scores = self.scores if self.scores.ndim == 3 else self.scores[min(situation.period, len(self.scores) - 1)]
        if scores.shape[0] != situation.problem.n_arms:
            raise ModelError(
                f"scores of {scores.shape[0]} arms for {situation.problem.n_arms} arms", "give one row an arm."
            )
        return scores[np.arange(scores.shape[0]), situation.state]


class NetworkObjective(Objective):
    """A trained network over the columns, embedded with bounds from the action set.

    Parameters
    ----------
    at
        Gives the network over the C columns at a situation: everything but the action folded in. One
        architecture for all situations; weights and biases may change.
    effort, formulation
        Of the bounds and the rows; see :func:`rmab_opt.encoder.encode`.
    version
        Changes whenever ``at`` would answer otherwise for the same situation (training); constant by default.
    """

    def __init__(
        self,
        at: Callable[[Situation], Network],
        *,
        effort: Effort = "auto",
        formulation: Formulation = "auto",
        version: Callable[[], int] = lambda: 0,
    ) -> None:
        self.at, self.version = at, version
        self.effort, self.formulation = effort, formulation
        self._kept: tuple[Any, Network] | None = None
        self.record: Record | None = None
        """Of the situation embedded last."""

    def __getstate__(self) -> dict[str, Any]:
        # The record's support may hold a solver of this process.
        return {**self.__dict__, "_kept": None, "record": None}

    @property
    def listable(self) -> bool:
        return True

    @property
    def searchable(self) -> bool:
        return self.record is not None and self.record.counts["binaries"] > SEARCH_FROM_BINARIES

    def embed(self, situation: Situation, support: Support) -> Rows:
        """The network's variables and rows at a situation, over the columns that the support describes."""
        network = self.network(situation)
        self.record = assemble(network, support, effort=self.effort, formulation=self.formulation)
        assert self.record.arrays is not None
        return self.record.arrays

    def network(self, situation: Situation) -> Network:
        """The network at a situation; kept until the next situation is asked for."""
        key = (situation.state.tobytes(), situation.period, self.version())
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, self.at(situation))
        return self._kept[1]

    def ceiling(self, situation: Situation) -> float:
        # The record may be of another situation when decisions go to the search.
        mine = self.record is not None and self.record.network is self.network(situation)
        return self.record.output[1] if mine and self.record is not None else np.inf

    def faults(self, actions: np.ndarray, situation: Situation) -> list[str]:
        if self.record is None or self.record.network is not self.network(situation):
            return []
        return self.record.faults(actions)

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        return np.asarray(self.network(situation)(np.asarray(actions, dtype=np.float64))).reshape(-1)
