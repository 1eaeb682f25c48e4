"""What visits are worth: the gains of a period's visits from the arms' beliefs, as an objective of one decision."""

from __future__ import annotations

from typing import Literal

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.objective import LinearObjective, Situation
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.planning import Bound
from rmab_opt.problem import Problem
from rmab_opt.settings.inspection.beliefs import EncodedArms
from rmab_opt.settings.inspection.indices import EncodedIndices, encoded_indices, exact_gains
from rmab_opt.settings.inspection.kinds import visits_of

__all__ = ["INDEX_DISCOUNT", "VisitGains", "earned", "encoded_arms"]

INDEX_DISCOUNT = 0.99
"""Per slot, inside index computation only; the published value. Rewards are plain sums."""


def encoded_arms(dynamics: object, purpose: str) -> EncodedArms:
    """The dynamics, when they are arms with windows in their state."""
    if not isinstance(dynamics, EncodedArms):
        raise CapabilityError(
            "windows and beliefs",
            dynamics,
            (f"use the domain 'inspection' or EncodedArms for {purpose}", "choose another policy"),
        )
    return dynamics


class VisitGains(LinearObjective):
    """What each visit of a period gains over none, from the arms' beliefs now; exact for one visit an arm.

    Parameters
    ----------
    weights
        ``gain``: reward gained until the period's end (and ``beyond`` slots more). ``index``: Whittle index of the
        arm in that slot, left alone until then: the published weight.
    beyond
        Slots after the period whose beliefs count too.
    several
        Whether an arm may get several visits: then no sum over visits tells what they gain, and only a plan of walks
        (``rmab-opt plan``) values them.
    """

    def __init__(self, weights: Literal["gain", "index"] = "gain", beyond: int = 0, *, several: bool = False) -> None:
        if weights not in ("gain", "index"):
            raise ModelError(f"weights is {weights!r}", "use 'gain' or 'index'.")
        if beyond < 0:
            raise ModelError(f"beyond is {beyond}", "give a whole number of slots, at least 0.")
        self.weights, self.beyond, self.several = weights, beyond, several
        self._indices: list[tuple[EncodedArms, EncodedIndices]] = []
        """Of the arms asked about last: a cache, shared with copies that reach further."""

    def reaching(self, beyond: int) -> VisitGains:
        """The same weights felt for so many slots after the period; what was computed is shared."""
        other = VisitGains(self.weights, beyond, several=self.several)
        other._indices = self._indices
        return other

    def table(self, arms: EncodedArms, state: np.ndarray) -> np.ndarray:
        """Weight of every arm in every slot of the rest of the period, (N, T)."""
        age, slots, _ = arms.decode(state)
        slot = int(slots[0])
        if self.weights == "gain":
            return exact_gains(arms.chains, age, arms.n_slots, slot=slot, beyond=self.beyond)
        if not self._indices or self._indices[0][0] is not arms:
            self._indices[:] = [(arms, encoded_indices(arms.chains, arms.windows, INDEX_DISCOUNT, verdict=False))]
        weights = np.zeros((arms.n_arms, arms.n_slots))
        for t in range(slot, arms.n_slots):
            weights[:, t] = self._indices[0][1].at(np.minimum(age + t - slot, arms.chains.length - 1), t, 0)
        return weights

    def _refusal(self) -> CapabilityError:
        return CapabilityError(
            "the gain of several visits to one arm as a sum over visits",
            self,
            ("plan with `rmab-opt plan` (calendar() in Python)", "allow one visit a period (frequency, at_most: 1)"),
        )

    def bound(self, problem: Problem, actions: ActionSet, state: np.ndarray) -> Bound | None:
        """What no plan of the period can exceed: the calendar's own bound, not a bound of rounds."""
        from rmab_opt.decisions.model import Model
        from rmab_opt.settings.inspection.calendar import calendar

        plan = calendar(Model(problem, actions, self), state=state)
        none = np.zeros((problem.n_arms, 2))
        return Bound(
            plan.bound, plan.value, "time_indexed", "highs", "the plan's own program", None, (), none, None, 1,
            plan.gap <= 1e-6 * max(1.0, abs(plan.bound)), plan.seconds,
        )  # fmt: skip

    def coefficients(self, situation: Situation) -> tuple[np.ndarray, float]:
        if self.several and self.weights == "gain":
            raise self._refusal()
        arms, columns = encoded_arms(situation.problem.dynamics, "visit gains"), visits_of(situation.columns)
        age, slots, _ = arms.decode(situation.state)
        base = 0.0
        if self.weights == "gain":
            base = earned(arms, age, np.zeros((arms.n_arms, arms.n_slots - int(slots[0]) + self.beyond), dtype=bool))
        return self.table(arms, situation.state)[columns.arm, columns.slot], base

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        # Arms by their beliefs, slot after slot, where that is what the weights mean; else the sum of the weights.
        arms, columns = encoded_arms(situation.problem.dynamics, "visit gains"), visits_of(situation.columns)
        age, slots, _ = arms.decode(situation.state)
        slot = int(slots[0])
        actions = np.asarray(actions)
        tables = np.zeros((len(actions), arms.n_arms, arms.n_slots), dtype=bool)
        tables[:, columns.arm, columns.slot] = actions > 0
        if self.weights == "gain":
            if tables.sum(axis=2).max(initial=0) > 1:
                raise self._refusal()
            rest = np.zeros((arms.n_arms, self.beyond), dtype=bool)
            return np.array([earned(arms, age, np.concatenate([t[:, slot:], rest], axis=1)) for t in tables])
        weights, base = self.coefficients(situation)
        return actions @ weights + base


def earned(arms: EncodedArms, age: np.ndarray, visits: np.ndarray) -> float:
    """Reward of visits bool (N, H) from ages (N,), each with effect, by walking through the slots."""
    total, now = 0.0, age.copy()
    for taken in visits.T:
        now = np.where(taken, 0, now + 1)
        total += float(arms.chains.at(now).sum())
    return total
