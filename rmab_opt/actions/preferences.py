"""What an action leaves unmet of the soft constraints of a set, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmab_opt.actions.columns import Columns
from rmab_opt.actions.constraint import Constraint
from rmab_opt.actions.kinds.preferences import Wish, build_visits, cheapest

__all__ = ["Preferences", "Unmet"]

FIRM = 1e6
"""Weight of a wish that is a constraint, against all that are preferences."""

MOST_NAMED = 6


@dataclass(frozen=True)
class Unmet:
    """Of one preference: units that are not met, what they cost, and what that is in words."""

    units: float
    cost: float
    said: str


class Preferences:
    """The soft constraints of a set, and its wishes about rosters whether soft or firm.

    Parameters
    ----------
    declared
        All constraints of the set by name, linked.
    """

    def __init__(self, declared: Mapping[str, Constraint], columns: Columns) -> None:
        self.columns = columns
        self.soft = {name: one for name, one in declared.items() if one.soft is not None}
        self.wishes: dict[str, dict[str, Wish]] = {}
        for name, one in declared.items():
            if isinstance(one, Wish):
                self.wishes.setdefault(one.roster, {})[name] = one
        self.plain = {name: one for name, one in self.soft.items() if not isinstance(one, Wish)}

    def __bool__(self) -> bool:
        return bool(self.soft)

    def _weights(self, roster: str) -> np.ndarray:
        """Cost of every shift for every column, (C, K)."""
        own = self.wishes[roster].values()
        return np.sum(
            [np.where(one.unmet(self.columns), FIRM if one.soft is None else one.soft, 0.0) for one in own], axis=0
        )

    def visits(self, roster: str, action: np.ndarray) -> list[tuple[int, int]] | None:
        """(column, shift) so that wishes cost least; None where nobody wishes or the roster cannot serve the action."""
        if roster not in self.wishes:
            return None
        whose = next(iter(self.wishes[roster].values())).whose()
        calls = [calls for _, _, calls in whose.shifts_of(self.columns)]
        return cheapest(np.flatnonzero(action), whose.open_to(self.columns), self._weights(roster), calls)

    def unmet(self, action: np.ndarray) -> dict[str, Unmet]:
        """By preference, what an action (C,) leaves unmet; those that are met have zero units."""
        found: dict[str, Unmet] = {}
        for name, one in self.plain.items():
            units = float(one.shortfall(np.asarray(action)[None], self.columns)[0])
            said = "; ".join(one.violations(np.asarray(action), self.columns)) if units else "met"
            found[name] = Unmet(units, units * float(one.soft or 0.0), said)
        for roster, own in self.wishes.items():
            visits = self.visits(roster, action)
            for name, wish in own.items():
                if wish.soft is None:
                    continue
                against = wish.unmet(self.columns)
                whom = [self.columns.ids[c] for c, k in visits or [] if against[c, k]]
                units = float(len(whom)) if visits is not None else float(np.asarray(action).sum())
                more = f" and {len(whom) - MOST_NAMED} more" if len(whom) > MOST_NAMED else ""
                said = f"not for {', '.join(whom[:MOST_NAMED])}{more}" if whom else "met"
                found[name] = Unmet(units, units * wish.soft, said)
        return {name: found[name] for name in self.soft}

    def cost(self, actions: np.ndarray) -> np.ndarray:
        """What preferences cost, for actions (M, C); shape (M,)."""
        actions = np.asarray(actions)
        total = np.zeros(len(actions))
        for one in self.plain.values():
            total += float(one.soft or 0.0) * one.shortfall(actions, self.columns)
        for roster, own in self.wishes.items():
            prices = [wish.soft for wish in own.values() if wish.soft is not None]
            if not prices:
                continue
            weights = np.sum([np.where(w.unmet(self.columns), w.soft or 0.0, 0.0) for w in own.values()], axis=0)
            for row, action in enumerate(actions):
                visits = self.visits(roster, action)
                if visits is None:
                    total[row] += sum(prices) * action.sum()
                else:
                    total[row] += sum(float(weights[c, k]) for c, k in visits)
        return total

    def build(self, block: Any, act: Any) -> Any:
        """Add what the cost needs to a Pyomo block and return the cost as an expression, to be subtracted."""
        import pyomo.environ as pyo

        terms = []
        block.short = pyo.Block(list(self.plain))
        for name, one in self.plain.items():
            terms.append(float(one.soft or 0.0) * one.build_short(block.short[name], act, self.columns))
        priced = {r: own for r, own in self.wishes.items() if any(w.soft is not None for w in own.values())}
        block.wish = pyo.Block(list(priced))
        for roster, own in priced.items():
            whose = next(iter(own.values())).whose()
            calls = [calls for _, _, calls in whose.shifts_of(self.columns)]
            open_to, weights = whose.open_to(self.columns), np.zeros((len(self.columns), len(calls)))
            for wish in own.values():
                if wish.soft is None:
                    open_to = open_to & ~wish.unmet(self.columns)
                else:
                    weights = weights + np.where(wish.unmet(self.columns), wish.soft, 0.0)
            visit = build_visits(block.wish[roster], act, open_to, calls)
            terms.append(pyo.quicksum(weights[pair] * variable for pair, variable in visit.items()))
        return pyo.quicksum(terms)
