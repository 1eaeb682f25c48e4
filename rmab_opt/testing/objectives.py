"""What an objective promises: its program and its evaluator give one number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rmab_opt.actions import ActionSet, Constraint
from rmab_opt.actions.kinds import LockedIn, LockedOut
from rmab_opt.decisions import Chooser, Model, Objective, Situation, decide
from rmab_opt.errors import ModelError
from rmab_opt.testing.contract import Promise, copied, keep, require, same

__all__ = ["OBJECTIVE_PROMISES", "check_objective"]

PINNED = 12
"""Actions at which the program's own value is asked for."""

TOLERANCE = 1e-6
"""Relative difference between the program's value and the evaluator's: the solver's feasibility tolerance."""


@dataclass(frozen=True)
class ObjectiveCase:
    """A model whose objective is checked, at a few situations."""

    model: Model
    anywhere: bool = True

    @cached_property
    def everything(self) -> np.ndarray:
        """All allowed actions, int64 (M, C)."""
        found = self.model.actions.enumerate()
        if found is None or not len(found):
            raise ModelError("no action, or too many to list", "check the objective on a smaller set.")
        return found.astype(np.int64)

    @cached_property
    def situations(self) -> list[Situation]:
        """The start in round 0, and random states in later rounds."""
        problem, rng = self.model.problem, np.random.default_rng(0)
        states = [problem.sample_start(rng), *rng.integers(problem.dynamics.n_states, size=(3, problem.n_arms))]
        if not self.anywhere:
            states = states[:1]
        last = problem.horizon - 1
        return [
            Situation(problem, self.model.actions.columns, np.asarray(state), min(k, last), problem.start_shared)
            for k, state in enumerate(states)
        ]

    def near(self, first: float, second: float) -> bool:
        """Whether two values agree within the solver's tolerance."""
        return abs(first - second) <= TOLERANCE * (1.0 + abs(second))


def values_are_finite_and_repeat(case: ObjectiveCase) -> None:
    """Values of all actions are finite, alike one by one and together, and the same each time."""
    for situation in case.situations:
        before = situation.state.copy()
        values = case.model.objective.batch_value(case.everything, situation)
        require(np.shape(values) == (len(case.everything),), f"values have shape {np.shape(values)}")
        require(np.isfinite(values).all(), "a value is not finite")
        require(same(values, case.model.objective.batch_value(case.everything, situation)), "values change")
        for k in range(0, len(case.everything), max(1, len(case.everything) // PINNED)):
            alone = case.model.objective.value(case.everything[k], situation)
            require(abs(alone - values[k]) <= 1e-9 * (1 + abs(alone)), f"alone {alone:.9g}, among all {values[k]:.9g}")
        require(same(before, situation.state), "the state was changed")


def value_is_the_expression(case: ObjectiveCase) -> None:
    """Held to one action, the program's own value is the evaluator's."""
    columns, ids = case.model.actions.columns, np.array(case.model.actions.columns.ids)
    rows = np.random.default_rng(1).permutation(len(case.everything))[:PINNED]
    for situation in case.situations[:2]:
        for action in case.everything[rows]:
            pins: dict[str, Constraint] = {}
            if (action == 1).any():
                pins["pinned"] = LockedIn(ids=tuple(ids[action == 1]))
            if (action == 0).any():
                pins["closed"] = LockedOut(ids=tuple(ids[action == 0]))
            held = ActionSet(columns, {**case.model.actions.constraints, **pins})
            chooser = Chooser(case.model.problem, held, case.model.objective, "exact", method="program")
            made = chooser.decide(situation.state, situation.period)
            value = case.model.objective.value(action, situation)
            claimed = made.value + made.encoding_error
            require(same(made.action, action), f"held to {action.tolist()}, {made.action.tolist()} came out")
            require(
                case.near(made.value, value) and made.encoding_error <= TOLERANCE * (1 + abs(value)),
                f"at {action.tolist()} the program says {claimed:.9g} within {made.encoding_error:.2g}, "
                f"the evaluator {value:.9g}",
            )


def a_decision_is_the_best_of_all(case: ObjectiveCase) -> None:
    """What is decided is worth what the best of all allowed actions is worth, and its bound is above."""
    for situation in case.situations:
        best = float(case.model.objective.batch_value(case.everything, situation).max())
        made = decide(case.model, situation.state, period=situation.period, solver="exact")
        require(not case.model.actions.violations(made.action), "a forbidden action was decided")
        require(case.near(made.value, best), f"decided {made.value:.9g}, the best is {best:.9g}")
        require(made.bound >= best - TOLERANCE * (1 + abs(best)), f"bound {made.bound:.9g} is below {best:.9g}")


def another_state_needs_no_new_program(case: ObjectiveCase) -> None:
    """One program carried from state to state decides as well as a fresh one at each."""
    model = case.model
    chooser = Chooser(model.problem, model.actions, model.objective, "exact", method="program")
    for situation in [*case.situations, *reversed(case.situations)]:
        best = float(model.objective.batch_value(case.everything, situation).max())
        made = chooser.decide(situation.state, situation.period)
        require(case.near(made.value, best), f"carried on, {made.value:.9g} is decided; the best is {best:.9g}")


def pickles(case: ObjectiveCase) -> None:
    """A copy in another process gives the same values."""
    back = copied(case.model.objective)
    for situation in case.situations:
        first, second = (o.batch_value(case.everything, situation) for o in (case.model.objective, back))
        require(same(first, second), "the copy gives other values")


OBJECTIVE_PROMISES: tuple[Promise, ...] = (
    values_are_finite_and_repeat,
    value_is_the_expression,
    a_decision_is_the_best_of_all,
    another_state_needs_no_new_program,
    pickles,
)


def check_objective(
    objective: Objective, model: Model, *, anywhere: bool = True, promises: Sequence[Promise] = OBJECTIVE_PROMISES
) -> None:
    """Hold an objective to its promises on a small model, whose allowed actions are all tried.

    Parameters
    ----------
    anywhere
        Whether the arms may be in any states together; False tries the model's start alone.

    Raises
    ------
    ContractError
        At the first promise that does not hold; names the class and the promise.
    """
    case = ObjectiveCase(model.with_objective(objective), anywhere)
    keep(f"objective {type(objective).__name__}", case, promises)
