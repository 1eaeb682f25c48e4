"""Second opinions by plain search: written without flows, rows, packing tricks or Pyomo."""

from __future__ import annotations

import itertools

import numpy as np

from rmab_opt.actions import Columns
from rmab_opt.actions.kinds import Budget, Capacity, Conflict, Knapsack, Linear, LockedIn, LockedOut, Scheduling


def within(total: float, rule) -> bool:
    if rule.equal is not None:
        return abs(total - rule.equal) < 1e-9
    return (rule.at_most is None or total <= rule.at_most + 1e-9) and (
        rule.at_least is None or total >= rule.at_least - 1e-9
    )


def allowed(rule, action: np.ndarray, columns: Columns) -> bool:
    """Whether the action satisfies the rule, by its definition."""
    ids, chosen = columns.ids, [c for c, taken in enumerate(action) if taken]
    if isinstance(rule, Budget):
        return within(len(chosen), rule)
    if isinstance(rule, Linear):
        value = [1.0] * len(ids) if rule.column is None else [float(x) for x in columns.text(rule.column)]
        about = [c for c in range(len(ids)) if all(columns.text(k)[c] in v for k, v in rule.where.items())]
        keys = {columns.text(rule.per)[c] for c in about} if rule.per else {None}
        return all(
            within(
                sum(value[c] for c in chosen if c in about and (key is None or columns.text(rule.per)[c] == key)), rule
            )
            for key in keys
        )
    if isinstance(rule, Knapsack):
        return sum(float(columns.text(rule.cost)[c]) for c in chosen) <= rule.at_most
    if isinstance(rule, LockedIn):
        return all(ids.index(name) in chosen for name in rule.ids)
    if isinstance(rule, LockedOut):
        return not any(ids.index(name) in chosen for name in rule.ids)
    if isinstance(rule, Conflict):
        return all(sum(ids.index(name) in chosen for name in group) <= rule.at_most for group in rule.groups)
    if isinstance(rule, Capacity):
        load = [1.0 if rule.cost is None else float(columns.text(rule.cost)[c]) for c in range(len(ids))]
        capacity = [float(cell) for cell in rule.workers.text("capacity")]
        return any(
            all(
                sum(load[c] for c, i in zip(chosen, by, strict=True) if i == k) <= capacity[k]
                for k in range(len(capacity))
            )
            for by in itertools.product(range(len(capacity)), repeat=len(chosen))
        )
    if isinstance(rule, Scheduling):
        return roster_allows(rule, chosen, columns)
    raise AssertionError(rule)


def roster_allows(rule: Scheduling, chosen: list[int], columns: Columns) -> bool:
    """Depth-first over arms; each takes a multiset of shifts with calls left."""
    text = rule.roster.text
    shifts = list(
        zip(text("worker"), text("slot"), text("village") if rule.match else [""] * len(rule.roster), strict=True)
    )
    left = [int(cell) for cell in text("calls")] if "calls" in rule.roster else [1] * len(shifts)

    def place(rest: list[int]) -> bool:
        if not rest:
            return True
        c = rest[0]
        mine = [
            k
            for k, (_, slot, group) in enumerate(shifts)
            if slot in columns.text("slots")[c].split(";")
            and (not rule.match or group in ("", columns.text("village")[c]))
        ]
        for picked in itertools.combinations_with_replacement(mine, rule.visits):
            workers, slots = [shifts[k][0] for k in picked], {shifts[k][1] for k in picked}
            if rule.rule != "any" and len(set(workers)) < rule.visits:
                continue
            if rule.rule == "same_slot" and len(slots) > 1:
                continue
            for k in picked:
                left[k] -= 1
            fits = min(left[k] for k in picked) >= 0 and place(rest[1:])
            for k in picked:
                left[k] += 1
            if fits:
                return True
        return False

    return place(chosen)
