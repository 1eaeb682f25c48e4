"""What visits are worth: the gains of a period's visits from the arms' beliefs, as an objective of one decision."""

from __future__ import annotations

from typing import Literal

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.objective import LinearObjective, Situation
from rmab_opt.errors import CapabilityError
from rmab_opt.planning import Bound
from rmab_opt.problem import Problem
from rmab_opt.settings.inspection.agenda import Asked, plan_rest
from rmab_opt.settings.inspection.beliefs import earned, encoded_arms
from rmab_opt.settings.inspection.kinds import visits_of
from rmab_opt.settings.inspection.plan import clash_of
from rmab_opt.settings.inspection.weights import VisitWeights

__all__ = ["VisitGains"]


class VisitGains(LinearObjective):
    """What each visit of a period gains over none, from the arms' beliefs now; exact for one visit an arm.

    Parameters
    ----------
    weights, beyond
        See :class:`~rmab_opt.settings.inspection.weights.VisitWeights`.
    several
        Whether an arm may get several visits: then no sum over visits tells what they gain, and only a plan of walks
        (``rmab-opt plan``) values them.
    """

    def __init__(self, weights: Literal["gain", "index"] = "gain", beyond: int = 0, *, several: bool = False) -> None:
        self.weights, self.several = VisitWeights(weights, beyond), several

    def _refusal(self) -> CapabilityError:
        return CapabilityError(
            "the gain of several visits to one arm as a sum over visits",
            self,
            ("plan with `rmab-opt plan` (calendar() in Python)", "allow one visit a period (frequency, at_most: 1)"),
        )

    def bound(self, problem: Problem, actions: ActionSet, state: np.ndarray) -> Bound | None:
        """What no plan of the period can exceed: the calendar's own bound, not a bound of rounds."""
        asked = Asked.first(problem, actions, self.weights, state)
        plan = plan_rest(asked, strict=True)
        if plan is None:
            raise clash_of(actions)
        none = np.zeros((problem.n_arms, 2))
        return Bound(
            plan.bound, plan.value, "time_indexed", "highs", "the plan's own program", None, (), none, None, 1,
            plan.bound - plan.value <= 1e-6 * max(1.0, abs(plan.bound)), plan.solved.seconds,
        )  # fmt: skip

    def coefficients(self, situation: Situation) -> tuple[np.ndarray, float]:
        if self.several and self.weights.kind == "gain":
            raise self._refusal()
        arms, columns = encoded_arms(situation.problem.dynamics, "visit gains"), visits_of(situation.columns)
        age, slots, _ = arms.decode(situation.state)
        base = 0.0
        if self.weights.kind == "gain":
            rest = arms.n_slots - int(slots[0]) + self.weights.beyond
            base = earned(arms, age, np.zeros((arms.n_arms, rest), dtype=bool))
        return self.weights.table(arms, situation.state)[columns.arm, columns.slot], base

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        # Arms by their beliefs, slot after slot, where that is what the weights mean; else the sum of the weights.
        arms, columns = encoded_arms(situation.problem.dynamics, "visit gains"), visits_of(situation.columns)
        age, slots, _ = arms.decode(situation.state)
        slot = int(slots[0])
        actions = np.asarray(actions)
        tables = np.zeros((len(actions), arms.n_arms, arms.n_slots), dtype=bool)
        tables[:, columns.arm, columns.slot] = actions > 0
        if self.weights.kind == "gain":
            if tables.sum(axis=2).max(initial=0) > 1:
                raise self._refusal()
            rest = np.zeros((arms.n_arms, self.weights.beyond), dtype=bool)
            return np.array([earned(arms, age, np.concatenate([t[:, slot:], rest], axis=1)) for t in tables])
        weights, base = self.coefficients(situation)
        return actions @ weights + base
