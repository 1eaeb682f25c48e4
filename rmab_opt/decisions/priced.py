"""An objective less what preferences cost: soft constraints of the set at their prices."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.actions.preferences import Preferences
from rmab_opt.decisions.objective import NetworkObjective, Objective, Situation
from rmab_opt.errors import CapabilityError
from rmab_opt.planning import Bound
from rmab_opt.problem import Problem

__all__ = ["Priced", "priced"]


class Priced(Objective):
    """inner(action) - sum over preferences of price * units not met.

    Value, bound and gap of a decision are then those of the priced problem, and it says so.
    """

    def __init__(self, inner: Objective, preferences: Preferences) -> None:
        if isinstance(inner, NetworkObjective):
            raise CapabilityError(
                "soft constraints beside a network",
                inner,
                ("make them firm", "decide by a rule with scores, for example --policy lagrangian"),
            )
        self.inner, self.preferences = inner, preferences

    def build(self, block: Any, act: Any, situation: Situation) -> Any:
        return self.inner.build(block, act, situation) - self.preferences.build(block, act)

    def update(self, situation: Situation) -> dict[str, np.ndarray]:
        return self.inner.update(situation)

    def form(self, situation: Situation) -> tuple[Any, ...]:
        own = self.inner.form(situation)
        return (self,) if own == (self.inner,) else ("priced", self.preferences, *own)

    def frozen(self, situation: Situation) -> Objective:
        return Priced(self.inner.frozen(situation), self.preferences)

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        return self.inner.batch_value(actions, situation) - self.preferences.cost(actions)

    def bound(self, problem: Problem, actions: ActionSet, state: np.ndarray) -> Bound | None:
        return self.inner.bound(problem, actions, state)

    def remarks(self, action: np.ndarray, situation: Situation) -> dict[str, Any]:
        found = dict(self.inner.remarks(action, situation))
        unmet = self.preferences.unmet(action)
        for name, one in unmet.items():
            cost = f"costs {one.cost:.4g} ({one.units:g} not met): {one.said}" if one.units else "met, costs nothing"
            found[f"preference {name}"] = cost
        total = sum(one.cost for one in unmet.values())
        bare = self.inner.value(action, situation)
        found["priced"] = f"{bare:.6g} less {total:.4g} for preferences; value, bound and gap are of the priced problem"
        return found


def priced(objective: Objective, actions: ActionSet) -> Objective:
    """The objective less what the set's preferences cost; itself where there are none."""
    if not actions.preferences or isinstance(objective, Priced):
        return objective
    return Priced(objective, actions.preferences)
