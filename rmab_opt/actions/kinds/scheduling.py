"""Visits in slots staffed by workers: who can be served at all, by whom and when.

Every rule is a flow once the chosen arms are fixed, so the program needs no binaries beyond the
action and the check is a maximum flow.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyomo.environ as pyo
from pydantic import Field
from scipy import sparse
from scipy.sparse.csgraph import maximum_flow

from rmab_opt.actions.columns import Columns
from rmab_opt.actions.constraint import Constraint, TableSource
from rmab_opt.errors import Findings, ModelError

__all__ = ["Scheduling"]

REMEMBERED = 100_000
"""Rosters whose answer is kept."""


@dataclass(frozen=True)
class _Shift:
    """One worker in one slot."""

    worker: str
    slot: str
    calls: int
    group: str


@dataclass(frozen=True)
class _Plan:
    """What the check and the program share about a roster: the demand side and the staffing side of a flow.

    ``demand[c]`` lists the units that column c can draw on. A unit is a key of ``capacity``; for the
    rule ``distinct_workers`` units are shifts, otherwise pools of interchangeable shifts (slot, group).
    """

    demand: list[list[int]]
    capacity: np.ndarray
    names: list[str]
    shifts: list[_Shift]
    pools: dict[int, list[int]]
    need: int


class Scheduling(Constraint, kind="scheduling"):
    """Every chosen arm gets its visits from workers on duty in slots the arm is available in.

    With x[c, i, s] the visits of column c by worker i in slot s: sum over i, s of x[c, i, s] =
    visits * act[c]; sum over c of x[c, i, s] <= calls[i, s]. Rules: ``any``, no more;
    ``distinct_workers``, sum over s of x[c, i, s] <= 1; ``same_slot``, all visits of an arm in one slot
    by different workers.

    References
    ----------
    Xu, Wilder, Khalil, Tambe (ICLR 2025), schedule-constrained setting, with its rule made explicit.
    """

    limiting: ClassVar[tuple[str, ...]] = ("staff",)

    roster: TableSource
    """Table with columns ``worker`` and ``slot``, one row a worker on duty in a slot; optional ``calls``
    (visits in that slot, 1 by default) and the column named by ``match``."""
    visits: int = Field(default=1, ge=1)
    """Visits a chosen arm needs."""
    rule: Literal["any", "distinct_workers", "same_slot"] = "any"
    """How an arm's visits may be spread."""
    slots: str = "slots"
    """Column of the arms' table with the slots the arm is available in, separated by ``;``."""
    match: str | None = None
    """Column that arm and worker share (district, language); an empty cell of the roster serves all."""

    def build(self, block: Any, act: Any, columns: Columns) -> None:
        plan = self._plan(columns)
        pairs = [(c, unit) for c, units in enumerate(plan.demand) for unit in units]
        users = defaultdict(list)
        for c, unit in pairs:
            users[unit].append(c)
        ids = columns.ids
        # Continuous: for a fixed binary action the rows are a network, so some optimum is integral.
        block.served = pyo.Var(pairs, bounds=(0, 1 if self.rule == "distinct_workers" else plan.need))

        @block.Constraint(list(ids))
        def visits(_: Any, name: str) -> Any:
            c = columns.index(name)
            if not plan.demand[c]:
                return act[c] == 0
            return sum(block.served[c, unit] for unit in plan.demand[c]) == plan.need * act[c]

        @block.Constraint([plan.names[unit] for unit in users])
        def staff(_: Any, name: str) -> Any:
            unit = plan.names.index(name)
            return sum(block.served[c, unit] for c in users[unit]) <= int(plan.capacity[unit])

        if self.rule == "distinct_workers":
            by_worker: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
            for c, unit in pairs:
                by_worker[ids[c], plan.shifts[unit].worker].append((c, unit))
            several = [key for key, members in by_worker.items() if len(members) > 1]

            @block.Constraint(several)
            def once(_: Any, name: str, worker: str) -> Any:
                return sum(block.served[pair] for pair in by_worker[name, worker]) <= 1

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        chosen = np.flatnonzero(action)
        plan = self._plan(columns)
        stranded = [columns.ids[c] for c in chosen if not plan.demand[c]]
        if stranded:
            yield f"{', '.join(stranded[:5])}: no worker is on duty in any slot of theirs"
            return
        short = self._short(plan, chosen, columns)
        if short:
            visits = "" if self.visits == 1 else f" of {self.visits} visits each"
            yield f"{len(chosen)} chosen{visits}, but the roster leaves {short} without a worker"

    def describe(self) -> str:
        visits = "one visit" if self.visits == 1 else f"{self.visits} visits"
        rule = {
            "any": "",
            "distinct_workers": " by different workers",
            "same_slot": " by different workers in one slot",
        }
        workers = len(set(self.roster.text("worker")))
        match = f" of the same {self.match}" if self.match else ""
        together = rule[self.rule] if self.visits > 1 else ""
        return f"{visits} an arm{together}, staffed by {workers} workers{match} on their slots"

    def check(self, columns: Columns) -> None:
        self._plan(columns)

    def monotone(self, columns: Columns) -> bool:
        return True

    def assignment(self, action: np.ndarray, columns: Columns) -> list[dict[str, str]]:
        """Rows ``column, worker, slot``, in the roster's order; empty when the action breaks the roster."""
        chosen = np.flatnonzero(action)
        plan = self._plan(columns)
        if any(not plan.demand[c] for c in chosen):
            return []
        served, total = self._flow(plan, chosen)
        if total < plan.need * len(chosen):
            return []
        left = {k: shift.calls for k, shift in enumerate(plan.shifts)}
        rows: list[tuple[int, dict[str, str]]] = []
        for (c, unit), amount in sorted(served.items()):
            # Workers with most calls left go first: with different workers required this never runs short (Gale-Ryser).
            repeat = 1 if self.rule == "any" else self.visits if self.rule == "same_slot" else 1
            for _ in range(amount):
                ranked = sorted(plan.pools[unit], key=lambda k: -left[k])
                for shift in ranked[:repeat]:
                    left[shift] -= 1
                    rows.append(
                        (
                            shift,
                            {
                                "column": columns.ids[c],
                                "worker": plan.shifts[shift].worker,
                                "slot": plan.shifts[shift].slot,
                            },
                        )
                    )
        return [row for _, row in sorted(rows, key=lambda pair: pair[0])]

    def _short(self, plan: _Plan, chosen: np.ndarray, columns: Columns) -> int:
        """Visits that the roster leaves without a worker; arms with the same slots are interchangeable."""

        def alike() -> np.ndarray:
            place: dict[tuple[int, ...], int] = {}
            return np.array([place.setdefault(tuple(units), len(place)) for units in plan.demand])

        kinds = self._once(columns, alike)
        known: dict[tuple[int, ...], int] = self._once(columns, dict)
        key = tuple(sorted(kinds[chosen].tolist()))
        if key not in known:
            # Samplers, simulators and enumerations ask for the same few rosters again and again.
            if len(known) >= REMEMBERED:
                known.clear()
            known[key] = plan.need * len(chosen) - self._flow(plan, chosen)[1]
        return known[key]

    def _flow(self, plan: _Plan, chosen: np.ndarray) -> tuple[dict[tuple[int, int], int], int]:
        """Largest number of served visits of the chosen columns, with the visits a (column, unit)."""
        if not chosen.size:
            return {}, 0
        edges: list[tuple[int, int, int]] = []
        source, sink = 0, 1
        node = {"column": {int(c): 2 + k for k, c in enumerate(chosen)}}
        first_unit = 2 + len(chosen)
        distinct = self.rule == "distinct_workers"
        pair_node: dict[tuple[int, str], int] = {}
        next_node = first_unit + len(plan.capacity)
        for c, at in node["column"].items():
            edges.append((source, at, plan.need))
            for unit in plan.demand[c]:
                if distinct:
                    key = (c, plan.shifts[unit].worker)
                    if key not in pair_node:
                        pair_node[key] = next_node
                        edges.append((at, next_node, 1))
                        next_node += 1
                    edges.append((pair_node[key], first_unit + unit, 1))
                else:
                    edges.append((at, first_unit + unit, plan.need))
        edges += [(first_unit + unit, sink, int(limit)) for unit, limit in enumerate(plan.capacity) if limit]
        tail, head, limit = (np.array(part, dtype=np.int32) for part in zip(*edges, strict=True))
        graph = sparse.csr_array((limit, (tail, head)), shape=(next_node, next_node), dtype=np.int32)
        result = maximum_flow(graph, source, sink)
        flow = sparse.coo_array(result.flow)
        amount = {(int(i), int(j)): int(v) for i, j, v in zip(flow.row, flow.col, flow.data, strict=True) if v > 0}
        served: dict[tuple[int, int], int] = {}
        for c, at in node["column"].items():
            for unit in plan.demand[c]:
                through = pair_node[c, plan.shifts[unit].worker] if distinct else at
                if (value := amount.get((through, first_unit + unit), 0)) > 0:
                    served[c, unit] = value
        return served, int(result.flow_value)

    def _plan(self, columns: Columns) -> _Plan:
        def plan() -> _Plan:
            shifts = self._shifts(columns)
            if self.rule == "distinct_workers":
                pools = {k: [k] for k in range(len(shifts))}
                names = [f"{shift.worker} {shift.slot}" for shift in shifts]
                capacity = np.array([shift.calls for shift in shifts])
                key = [(shift.slot, shift.group) for shift in shifts]
            else:
                grouped: dict[tuple[str, str], list[int]] = defaultdict(list)
                for k, shift in enumerate(shifts):
                    grouped[shift.slot, shift.group].append(k)
                key = list(grouped)
                pools = dict(enumerate(grouped.values()))
                names = [slot if not group else f"{slot} {group}" for slot, group in key]
                capacity = np.array(
                    [self._pool_capacity([shifts[k].calls for k in members]) for members in pools.values()]
                )
            by_slot: dict[str, list[int]] = defaultdict(list)
            for unit, (slot, _) in enumerate(key):
                by_slot[slot].append(unit)
            values = [""] * len(columns) if self.match is None else columns.text(self.match)
            demand = [
                [
                    unit
                    for slot in slots
                    for unit in by_slot.get(slot, [])
                    if key[unit][1] in ("", value) and capacity[unit]
                ]
                for slots, value in zip(self._available(columns), values, strict=True)
            ]
            return _Plan(demand, capacity, names, shifts, pools, 1 if self.rule == "same_slot" else self.visits)

        return self._once(columns, plan)

    def _pool_capacity(self, calls: list[int]) -> int:
        """Arms (``same_slot``) or visits (``any``) that interchangeable shifts of one slot can take."""
        if self.rule == "any":
            return sum(calls)
        # k arms need `visits` different workers each: possible iff sum of min(calls, k) >= visits * k (Gale-Ryser);
        # the left side is concave in k, so the possible k are 0 .. K.
        arms = 0
        while sum(min(count, arms + 1) for count in calls) >= self.visits * (arms + 1):
            arms += 1
        return arms

    def _shifts(self, columns: Columns) -> list[_Shift]:
        roster, findings = self.roster, Findings(self.roster.source)
        workers, slots = roster.text("worker"), roster.text("slot")
        calls = roster.numbers("calls", minimum=0) if "calls" in roster else np.ones(len(roster))
        groups = [""] * len(roster) if self.match is None else roster.text(self.match)
        seen: set[tuple[str, str]] = set()
        if not len(roster):
            findings.add("", "the roster is empty", "give one row a worker on duty in a slot")
        known = set() if self.match is None else set(columns.by(self.match))
        for row, (worker, slot, count, group) in enumerate(zip(workers, slots, calls, groups, strict=True)):
            place = roster.place(row)
            if not worker or not slot:
                findings.add(place, f"{'worker' if not worker else 'slot'} is missing", "complete the row")
            if (worker, slot) in seen:
                findings.add(
                    place, f"worker {worker!r} stands twice in slot {slot!r}", "keep one row, use column calls"
                )
            if count != int(count):
                findings.add(place, f"calls is {count:g}", "give a whole number")
            if group and group not in known:
                findings.add(
                    place,
                    f"{self.match} {group!r} of worker {worker!r} has no arm",
                    f"known: {', '.join(sorted(known))}",
                )
            seen.add((worker, slot))
        if self.rule == "same_slot" and self.visits > 1 and self.match is not None and "" in groups:
            findings.add(
                roster.place(groups.index("")),
                f"a worker without {self.match} cannot be combined with rule same_slot",
                f"give every worker a {self.match}, or use rule distinct_workers",
            )
        findings.raise_if_any()
        return [_Shift(w, s, int(n), g) for w, s, n, g in zip(workers, slots, calls, groups, strict=True)]

    def _available(self, columns: Columns) -> list[list[str]]:
        cells = columns.text(self.slots)
        parts = [
            list(dict.fromkeys(part.strip() for part in re.split(r"[;|]", cell) if part.strip())) for cell in cells
        ]
        if not any(parts):
            raise ModelError(
                f"column {self.slots!r}: no arm is available in any slot", "write slots as 'mon-am;tue-pm'."
            )
        known = set(self.roster.text("slot"))
        if not known & {slot for slots in parts for slot in slots}:
            raise ModelError(
                f"column {self.slots!r}: no arm names a slot of the roster (roster: {', '.join(sorted(known)[:5])})",
                "use the same slot names in both tables.",
            )
        return parts
