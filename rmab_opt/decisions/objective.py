"""What one decision maximises: an expression over the columns and an independent evaluator of the same number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rmab_opt.actions import (
    ActionSet,
    Columns,
    arm_levels,
    build_interpolation,
    build_levels,
    column_values,
    shared_arms,
)
from rmab_opt.encoder import Network, Record, Support, assemble
from rmab_opt.encoder.bounds import Effort
from rmab_opt.encoder.rows import Formulation
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.problem import Problem

if TYPE_CHECKING:
    from rmab_opt.planning import Bound

__all__ = [
    "ArmValues",
    "FixedNetwork",
    "Immediate",
    "Interpolated",
    "LinearObjective",
    "NetworkObjective",
    "Objective",
    "Scores",
    "Situation",
]


@dataclass(frozen=True)
class Situation:
    """Where a decision is taken.

    ``state`` is int (N,), ``period`` the round counted from 0, ``shared`` float (K,) where the arms share a state;
    ``actions`` are those allowed, where they are known.
    """

    problem: Problem
    columns: Columns
    state: np.ndarray
    period: int = 0
    shared: np.ndarray | None = None
    actions: ActionSet | None = None


class Objective:
    """Base of objectives; always maximised.

    A subclass builds its expression once with mutable Params for everything that the state changes and
    returns their values from :meth:`update`, so that a new state costs no new program.
    """

    planned_by = ""
    """The policy that looks further with it, where it is but what this round brings and arms are coupled."""

    def build(self, block: Any, act: Any, situation: Situation) -> Any:
        """Add what the expression needs to the Pyomo block and return the expression."""
        raise NotImplementedError

    def update(self, situation: Situation) -> dict[str, np.ndarray]:
        """Values of the block's mutable Params for another situation, by the Param's name in the block."""
        raise NotImplementedError

    def form(self, situation: Situation) -> tuple[Any, ...]:
        """What the built program depends on beside its Params: programs of one form take each other's :meth:`update`.

        By default the object itself: a program for it alone.
        """
        return (self,)

    def frozen(self, situation: Situation) -> Objective:
        """An objective that gives this one's values at a situation for ever; itself where nothing changes it."""
        return self

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        """The same number computed without the program, for actions (M, C); shape (M,)."""
        raise NotImplementedError

    def value(self, action: np.ndarray, situation: Situation) -> float:
        """The number of one action."""
        return float(self.batch_value(np.asarray(action)[None, :], situation)[0])

    def bound(self, problem: Problem, actions: ActionSet, state: np.ndarray) -> Bound | None:
        """Upper limit on what can be earned from a state, where an action is more than one round's; else None."""
        return None

    def remarks(self, action: np.ndarray, situation: Situation) -> dict[str, Any]:
        """What a decision should say beside its value, by name: an estimate out of sample, a guarantee."""
        return {}

    def choice(self, actions: ActionSet, situation: Situation) -> np.ndarray | None:
        """A best allowed action (C,) where one is known without a program; else None.

        For simulated rounds, where nobody reads a certificate; decisions that are reported do not rest on it.
        """
        return None

    def greedy(
        self, actions: ActionSet, situation: Situation, *, quick: bool = False
    ) -> tuple[np.ndarray, float, float, dict[str, Any]]:
        """An action built one column at a time by gains that only shrink, for objectives that have them.

        ``quick``: many decisions follow, and no time goes into the upper limit.

        Returns
        -------
        tuple
            (action (C,), its value as added up, an upper limit of every allowed action's value, remarks).
        """
        raise CapabilityError("method 'greedy'", self, ("use method 'auto'", "use an objective of kind 'cascade'"))

    def greedy_entries(self, situation: Situation) -> float | None:
        """Entries of the program's own rows, where :meth:`greedy` answers without it; None where it does not.

        Infinite where there is no program at all.
        """
        return None

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

    def form(self, situation: Situation) -> tuple[Any, ...]:
        # Numbers of columns are Params: any other linear objective puts its own in.
        return ("linear",) if type(self).build in (LinearObjective.build, ArmValues.build) else (self,)

    def build(self, block: Any, act: Any, situation: Situation) -> Any:
        import pyomo.environ as pyo

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


class ArmValues(LinearObjective):
    """A sum over arms of a value that depends on the arm's action alone; subclasses say :meth:`arm_values`.

    Linear in the columns when no two columns that may be chosen together touch one arm. Otherwise an arm's action is
    the sum of what its chosen columns add, and its value is looked up exactly by one binary a level; see
    :mod:`rmab_opt.actions.levels`.
    """

    def arm_values(self, situation: Situation) -> np.ndarray:
        """Value of each arm by its action now, (N, A)."""
        raise NotImplementedError

    def build(self, block: Any, act: Any, situation: Situation) -> Any:
        import pyomo.environ as pyo

        if self.linear(situation):
            return super().build(block, act, situation)
        values = self.arm_values(situation)
        keys = build_levels(block, act, situation.columns, values.shape[1])
        block.value = pyo.Param(
            keys, mutable=True, domain=pyo.Reals, initialize={key: float(values[key]) for key in keys}
        )
        block.rest = pyo.Param(mutable=True, domain=pyo.Reals, initialize=self._untouched(values, situation))
        return pyo.quicksum(block.value[key] * block.level[key] for key in keys) + block.rest

    def update(self, situation: Situation) -> dict[str, np.ndarray]:
        if self.linear(situation):
            return super().update(situation)
        values = self.arm_values(situation)
        allowed = arm_levels(situation.columns, values.shape[1])
        allowed[self._idle(situation)] = False
        return {"value": values[allowed], "rest": np.array([self._untouched(values, situation)])}

    def linear(self, situation: Situation) -> bool:
        return not shared_arms(situation.columns)

    def form(self, situation: Situation) -> tuple[Any, ...]:
        if type(self).build is not ArmValues.build or self.linear(situation):
            return super().form(situation)
        return ("levels", situation.problem.dynamics.n_actions)

    def coefficients(self, situation: Situation) -> tuple[np.ndarray, float]:
        if not self.linear(situation):
            raise CapabilityError(
                "a value that is linear in the columns",
                situation.problem.dynamics,
                ("use columns that touch one arm each", "let the objective build its levels"),
            )
        values = self.arm_values(situation)
        return column_values(situation.columns, values), float(values[:, 0].sum())

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        values = self.arm_values(situation)
        return values[np.arange(len(values)), situation.columns.arm_action(actions)].sum(axis=-1)

    @staticmethod
    def _idle(situation: Situation) -> np.ndarray:
        """Arms that no column touches, bool (N,)."""
        return np.bincount(situation.columns.effect.indices, minlength=situation.problem.n_arms) == 0

    def _untouched(self, values: np.ndarray, situation: Situation) -> float:
        return float(values[self._idle(situation), 0].sum())


class Immediate(ArmValues):
    """Expected reward of this round, summed over arms: the myopic objective."""

    planned_by = "mean_field"

    def arm_values(self, situation: Situation) -> np.ndarray:
        """Expected reward of each arm by action, (N, A), at the current states: one vectorised call an action."""
        dynamics, state = situation.problem.dynamics, situation.state
        if getattr(dynamics, "coupled", False):
            raise CapabilityError(
                "an expected reward that is a sum over arms",
                dynamics,
                ("use policy 'single_gains', a sum all the same", "use the model's own objective: policy 'model'"),
            )
        return np.stack(
            [
                situation.problem.expected_reward(state, np.full_like(state, action), situation.shared)
                for action in range(dynamics.n_actions)
            ],
            axis=1,
        )

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        arm_action = situation.columns.arm_action(actions)
        return situation.problem.expected_reward(situation.state, arm_action, situation.shared).sum(axis=-1)


class Interpolated(Immediate):
    """Expected reward of the round with each arm's link drawn through a few of its levels, straight lines between.

    For columns with general weights, whose sums are many: exact at the points, and nowhere further off than
    :meth:`error`. Points are 0, the top, and then each time the level that is furthest off in any state.

    Parameters
    ----------
    points
        Levels an arm, at least 2.
    """

    def __init__(self, points: int) -> None:
        if points < 2:
            raise ModelError(f"points is {points}", "give at least 2, the ends of the link.")
        self.points = points
        self._chosen: tuple[Problem, dict[int, list[int]], np.ndarray] | None = None

    def _choose(self, situation: Situation) -> tuple[dict[int, list[int]], np.ndarray]:
        """Points of each touched arm, and how far off its reward is at most in any state and attainable level, (N,)."""
        problem = situation.problem
        if self._chosen is None or self._chosen[0] is not problem:
            dynamics = problem.dynamics
            rewards = np.stack(
                [
                    Immediate().arm_values(replace(situation, state=np.full(problem.n_arms, state)))
                    for state in range(dynamics.n_states)
                ]
            )
            allowed = arm_levels(situation.columns, dynamics.n_actions)
            chosen: dict[int, list[int]] = {}
            error = np.zeros(problem.n_arms)
            for arm in np.flatnonzero(allowed[:, 1:].any(axis=1)).tolist():
                levels = np.flatnonzero(allowed[arm])
                picked = [int(levels[0]), int(levels[-1])]
                while True:
                    lines = np.stack([np.interp(levels, picked, row[picked]) for row in rewards[:, arm]])
                    off = np.abs(lines - rewards[:, arm, levels]).max(axis=0)
                    if len(picked) >= self.points or off.max() == 0.0:
                        break
                    picked = sorted([*picked, int(levels[off.argmax()])])
                chosen[arm], error[arm] = picked, off.max()
            self._chosen = (problem, chosen, error)
        return self._chosen[1:]

    def error(self, situation: Situation) -> float:
        """The most by which any action's value may differ from its expected reward, in reward units."""
        return float(self._choose(situation)[1].sum())

    def arm_values(self, situation: Situation) -> np.ndarray:
        values = super().arm_values(situation)
        levels = np.arange(values.shape[1])
        for arm, points in self._choose(situation)[0].items():
            values[arm] = np.interp(levels, points, values[arm, points])
        return values

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        return ArmValues.batch_value(self, actions, situation)

    def linear(self, situation: Situation) -> bool:
        return False

    def build(self, block: Any, act: Any, situation: Situation) -> Any:
        import pyomo.environ as pyo

        values = self.arm_values(situation)
        keys = build_interpolation(block, act, situation.columns, self._choose(situation)[0])
        block.value = pyo.Param(keys, mutable=True, domain=pyo.Reals, initialize={k: float(values[k]) for k in keys})
        block.rest = pyo.Param(mutable=True, domain=pyo.Reals, initialize=self._untouched(values, situation))
        return pyo.quicksum(block.value[key] * block.level[key] for key in keys) + block.rest

    def update(self, situation: Situation) -> dict[str, np.ndarray]:
        values = self.arm_values(situation)
        points = self._choose(situation)[0]
        at = np.array([values[arm, level] for arm, levels in points.items() for level in levels])
        return {"value": at, "rest": np.array([self._untouched(values, situation)])}

    def remarks(self, action: np.ndarray, situation: Situation) -> dict[str, Any]:
        exact = Immediate().value(action, situation)
        return {
            "expected reward": f"{exact:.6g} by the link itself; lines through {self.points} points are off by at most "
            f"{self.error(situation):.2g} for any action"
        }


class Scores(ArmValues):
    """A given score of every arm, by state and action: an index, a priority, a price-adjusted value.

    Parameters
    ----------
    scores
        Shape (C,), one number a column whatever the state; (N, A), of each arm as it is now; (N, S, A), or
        (T, N, S, A) by period (the last period's table serves all later ones). Arm scores are compared with action 0's.
    prices
        From which the scores were worked out, if any: a saved decision keeps them, so that whoever checks it needs no
        solver to have the scores again.

    Raises
    ------
    ModelError
        When a score is not finite or the shape fits neither columns nor arms.
    """

    def __init__(self, scores: np.ndarray, prices: np.ndarray | None = None) -> None:
        self.prices = prices
        scores = np.array(scores, dtype=np.float64)
        scores.flags.writeable = False
        if scores.ndim not in (1, 2, 3, 4):
            raise ModelError(f"scores have shape {scores.shape}", "give (C,), (N, A), (N, S, A) or (T, N, S, A).")
        if not np.isfinite(scores).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(scores))[0])
            raise ModelError(f"score at {where} is {scores[where]}", "give finite numbers.")
        self.scores = scores

    def linear(self, situation: Situation) -> bool:
        return self.scores.ndim == 1 or super().linear(situation)

    def coefficients(self, situation: Situation) -> tuple[np.ndarray, float]:
        if self.scores.ndim > 1:
            return super().coefficients(situation)
        if self.scores.shape != (len(situation.columns),):
            raise ModelError(f"{self.scores.size} scores for {len(situation.columns)} columns", "give one a column.")
        return self.scores, 0.0

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        if self.scores.ndim == 1:
            return np.asarray(actions, dtype=np.float64) @ self.scores
        return super().batch_value(actions, situation)

    def arm_values(self, situation: Situation) -> np.ndarray:
        """Scores at the current states, (N, A)."""
        if self.scores.ndim == 2:
            if len(self.scores) != situation.problem.n_arms:
                n_arms = situation.problem.n_arms
                raise ModelError(f"scores of {len(self.scores)} arms for {n_arms} arms", "give one row an arm.")
            return self.scores
        scores = self.scores if self.scores.ndim == 3 else self.scores[min(situation.period, len(self.scores) - 1)]
        if scores.shape[0] != situation.problem.n_arms:
            raise ModelError(
                f"scores of {scores.shape[0]} arms for {situation.problem.n_arms} arms", "give one row an arm."
            )
        return scores[np.arange(scores.shape[0]), situation.state]


def _always_the_same() -> int:
    """Version of a network that nothing changes; a function with a name, so that objectives travel."""
    return 0


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
        version: Callable[[], int] = _always_the_same,
    ) -> None:
        self.at, self.version = at, version
        self.effort, self.formulation = effort, formulation
        self._kept: tuple[Any, Network] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}

    @property
    def listable(self) -> bool:
        return True

    def form(self, situation: Situation) -> tuple[Any, ...]:
        # Its rows are put behind the set's own at every situation.
        return ("network",)

    def frozen(self, situation: Situation) -> Objective:
        return FixedNetwork(self.network(situation), effort=self.effort, formulation=self.formulation)

    def embed(self, situation: Situation, support: Support, known: float | None = None) -> Record:
        """The network's variables and rows at a situation, over the columns that the support describes.

        ``known`` is the value of an allowed action, from which ``effort="cutoff"`` cuts; without it that is ``lp``.
        """
        network, effort = self.network(situation), self.effort
        cut = known if effort == "cutoff" else None
        effort = "lp" if effort == "cutoff" and cut is None else effort
        return assemble(network, support, effort=effort, formulation=self.formulation, at_least=cut)

    def network(self, situation: Situation) -> Network:
        """The network at a situation; kept until the next situation is asked for."""
        shared = b"" if situation.shared is None else situation.shared.tobytes()
        key = (situation.state.tobytes(), shared, situation.period, self.version())
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, self.at(situation))
        return self._kept[1]

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        return np.asarray(self.network(situation)(np.asarray(actions, dtype=np.float64))).reshape(-1)


class FixedNetwork(NetworkObjective):
    """A network as it was at one situation."""

    def __init__(self, network: Network, *, effort: Effort, formulation: Formulation) -> None:
        super().__init__(lambda _: network, effort=effort, formulation=formulation)
        self._network = network

    def network(self, situation: Situation) -> Network:
        return self._network

    def frozen(self, situation: Situation) -> Objective:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _fixed, (self._network, self.effort, self.formulation)


def _fixed(network: Network, effort: Effort, formulation: Formulation) -> FixedNetwork:
    return FixedNetwork(network, effort=effort, formulation=formulation)
