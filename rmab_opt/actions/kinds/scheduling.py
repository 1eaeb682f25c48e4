"""Visits in slots staffed by workers: who can be served at all, by whom and when.

Every rule of the roster itself is a flow once the chosen arms are fixed, so the program needs no binaries beyond the
action and the check is a maximum flow. Rules of other kinds on who works when (:class:`RosterRule`) close shifts of
that flow: the check closes one shift of every clash in turn until a flow without a clash is found or none is left.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field
from scipy import sparse

from rmab_opt.actions.columns import Columns
from rmab_opt.actions.constraint import Constraint, Names, Rows, table_with
from rmab_opt.errors import Findings, ModelError, UnsettledError
from rmab_opt.overdue import checkpoint
from rmab_opt.problem import Table

__all__ = ["Roster", "RosterRule", "Scheduling", "Shift"]

REMEMBERED = 100_000
"""Rosters whose answer is kept."""

LARGE = 4000
"""Pairs of columns and shifts from which rosters are decided and bounded without a program of them."""

CUT_POOLS, CUTS = 12, 64
"""Pools of shifts up to which all unions of columns' shifts are looked at, and rows that are kept of them."""

NAMED = 3
"""Slots up to which a row is named by all of them."""

CLOSINGS = 20_000
"""Sets of closed shifts after which the check of a roster with rules gives up; never silently."""

Shift = tuple[str, str]
"""(worker, slot)."""


@dataclass(frozen=True, eq=False)
class Roster:
    """What a roster offers to other kinds.

    Beside it, where a rule asks for it, the roster's block holds ``serve[c, worker, slot]``, the visits of column c in
    a shift, and ``works[worker, slot]``, 1 where the worker may have visits in that slot.
    """

    workers: tuple[str, ...]
    slots: tuple[str, ...]
    """In the order of time."""
    open: dict[Shift, int]
    """Visits that each worker on duty can make in each slot, in the order of the table's rows."""
    table: Table
    """The roster as given, with whatever further columns it has."""

    def of_slot(self, column: str) -> dict[str, str]:
        """What a column of the roster says of every slot; ModelError where it says two things of one slot."""
        said: dict[str, str] = {}
        findings = Findings(self.table.source)
        for row, ((_, slot), cell) in enumerate(zip(self.open, self.table.text(column), strict=True)):
            if said.setdefault(slot, cell) != cell:
                findings.add(
                    self.table.place(row),
                    f"{column} of slot {slot!r} is {cell!r} and {said[slot]!r}",
                    "give a slot one value",
                )
        findings.raise_if_any()
        return said


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
    key: list[tuple[str, str]]
    """(slot, group) of every unit."""
    alike: np.ndarray
    """A number a column, (C,), the same for columns with the same units."""
    types: list[tuple[int, ...]]
    """Units of the columns of each such number."""


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

    limiting: ClassVar[tuple[str, ...]] = ("staff", "shift")
    own_variables: ClassVar[bool] = True

    roster: Annotated[Table, BeforeValidator(table_with("worker", "slot"))]
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
    slot_order: Names = ()
    """All slots in the order of time; by default in the order in which the roster first names them."""
    placed: Annotated[Table, BeforeValidator(table_with("id", "worker", "slot"))] | None = None
    """Arms that are served in one shift of the roster or not at all: columns ``id``, ``worker`` and ``slot``."""

    def build(self, block: Any, act: Any, columns: Columns) -> None:
        import pyomo.environ as pyo

        plan = self._plan(columns)
        pairs = [(c, unit) for c, units in enumerate(plan.demand) for unit in units]
        users = defaultdict(list)
        for c, unit in pairs:
            users[unit].append(c)
        ids = columns.ids
        # Continuous: for a fixed binary action the rows are a network, so some optimum is integral. Workers for several
        # visits in one slot are found within each arm's slot, which must therefore be settled where rules look on.
        settled = bool(self.askers) and self.rule == "same_slot" and self.visits > 1
        most = 1 if self.rule == "distinct_workers" else plan.need
        block.served = pyo.Var(pairs, bounds=(0, most), domain=pyo.Binary if settled else pyo.Reals)

        @block.Constraint(list(ids))
        def visits(_: Any, name: str) -> Any:
            checkpoint()
            c = columns.index(name)
            if not plan.demand[c]:
                return act[c] == 0
            return sum(block.served[c, unit] for unit in plan.demand[c]) == plan.need * act[c]

        if self.askers:
            self._build_shifts(block, plan, pairs)

        # The rows of single shifts say as much.
        @block.Constraint([] if self.askers else [plan.names[unit] for unit in users])
        def staff(_: Any, name: str) -> Any:
            checkpoint()
            unit = plan.names.index(name)
            return sum(block.served[c, unit] for c in users[unit]) <= int(plan.capacity[unit])

        if self.rule == "distinct_workers":
            by_worker: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
            for c, unit in pairs:
                by_worker[ids[c], plan.shifts[unit].worker].append((c, unit))
            several = [key for key, members in by_worker.items() if len(members) > 1]

            @block.Constraint(several)
            def once(_: Any, name: str, worker: str) -> Any:
                checkpoint()
                return sum(block.served[pair] for pair in by_worker[name, worker]) <= 1

    def _build_shifts(self, block: Any, plan: _Plan, pairs: list[tuple[int, int]]) -> None:
        """``serve`` and ``works``, the visits shift by shift, for the rules that look on."""
        import pyomo.environ as pyo

        users: dict[Shift, list[int]] = defaultdict(list)
        ways = {
            (c, unit): [(plan.shifts[k].worker, plan.shifts[k].slot) for k in plan.pools[unit]] for c, unit in pairs
        }
        for (c, _), open_to in ways.items():
            for open_shift in open_to:
                users[open_shift].append(c)
        together = self.visits if self.rule == "same_slot" else 1
        triples = [(c, *open_shift) for (c, _), open_to in ways.items() for open_shift in open_to]
        block.serve = pyo.Var(triples, bounds=(0, plan.need if self.rule == "any" else 1))
        calls = {(one.worker, one.slot): one.calls for one in plan.shifts}
        block.works = pyo.Var(list(calls), domain=pyo.Binary)

        @block.Constraint(pairs)
        def spread(_: Any, c: int, unit: int) -> Any:
            checkpoint()
            return (
                sum(block.serve[c, worker, slot] for worker, slot in ways[c, unit]) == together * block.served[c, unit]
            )

        @block.Constraint(list(users))
        def shift(_: Any, worker: str, slot: str) -> Any:
            checkpoint()
            served = sum(block.serve[c, worker, slot] for c in users[worker, slot])
            return served <= calls[worker, slot] * block.works[worker, slot]

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
        placed = f", {len(self.placed)} in a shift of their own" if self.placed is not None else ""
        return f"{visits} an arm{together}, staffed by {workers} workers{match} on their slots{placed}"

    def check(self, columns: Columns) -> None:
        self._plan(columns)

    def monotone(self, columns: Columns) -> bool:
        return True

    def parts(self, columns: Columns) -> Roster:
        """Workers, slots in the order of time and open shifts; ``serve`` and ``works`` of the block go with them."""

        def offered() -> Roster:
            shifts = self._plan(columns).shifts
            slots = self.slot_order or tuple(dict.fromkeys(shift.slot for shift in shifts))
            return Roster(
                tuple(dict.fromkeys(shift.worker for shift in shifts)),
                slots,
                {(shift.worker, shift.slot): shift.calls for shift in shifts},
                self.roster,
            )

        return self._once(columns, offered)

    def shifts_of(self, columns: Columns) -> list[tuple[str, str, int]]:
        """(worker, slot, calls) of every shift."""
        return [(one.worker, one.slot, one.calls) for one in self._plan(columns).shifts]

    def open_to(self, columns: Columns) -> np.ndarray:
        """Whether each column can be served in each shift, bool (C, shifts)."""

        def ways() -> np.ndarray:
            plan = self._plan(columns)
            found = np.zeros((len(columns), len(plan.shifts)), dtype=bool)
            for c, units in enumerate(plan.demand):
                for unit in units:
                    found[c, plan.pools[unit]] = True
            return found

        return self._once(columns, ways)

    def shortfall(self, actions: np.ndarray, columns: Columns) -> np.ndarray:
        """Visits that the roster leaves without a worker."""
        plan = self._plan(columns)
        return np.array([float(self._short(plan, np.flatnonzero(one), columns)) for one in actions])

    def build_short(self, block: Any, act: Any, columns: Columns) -> Any:
        import pyomo.environ as pyo

        if self.rule != "any":
            raise ModelError(f"soft: rule {self.rule!r} has no price a visit", "use rule 'any', or make it firm.")
        plan = self._plan(columns)
        pairs = [(c, unit) for c, units in enumerate(plan.demand) for unit in units]
        users = defaultdict(list)
        for c, unit in pairs:
            users[unit].append(c)
        block.served = pyo.Var(pairs, bounds=(0, plan.need))

        @block.Constraint([c for c, units in enumerate(plan.demand) if units])
        def visits(_: Any, c: int) -> Any:
            checkpoint()
            return sum(block.served[c, unit] for unit in plan.demand[c]) <= plan.need * act[c]

        @block.Constraint(sorted(users))
        def staff(_: Any, unit: int) -> Any:
            checkpoint()
            return sum(block.served[c, unit] for c in users[unit]) <= int(plan.capacity[unit])

        wanted = pyo.quicksum(plan.need * act[c] for c in range(len(columns)))
        return wanted - pyo.quicksum(block.served.values())

    def assignment(self, action: np.ndarray, columns: Columns) -> list[dict[str, str]]:
        """Rows ``column, worker, slot``, in the roster's order; empty when the action breaks the roster.

        Rules of other kinds are kept where the action allows it.
        """
        chosen, plan = np.flatnonzero(action), self._plan(columns)
        if any(not plan.demand[c] for c in chosen):
            return []
        visits = self._visits(chosen, columns, self.rules)
        if visits is None:
            visits = self._visits(chosen, columns, ()) or []
        return [
            {"column": columns.ids[c], "worker": plan.shifts[k].worker, "slot": plan.shifts[k].slot} for c, k in visits
        ]

    def misassigned(self, rows: list[dict[str, str]], action: np.ndarray, columns: Columns) -> str | None:
        if any(set(row) != {"column", "worker", "slot"} for row in rows):
            return "a row names column, worker and slot"
        plan, offered = self._plan(columns), self.parts(columns)
        shift_of = {(shift.worker, shift.slot): k for k, shift in enumerate(plan.shifts)}
        unit_of = {k: unit for unit, members in plan.pools.items() for k in members}
        made: dict[str, list[Shift]] = {columns.ids[c]: [] for c in np.flatnonzero(action)}
        used: dict[Shift, int] = defaultdict(int)
        for row in rows:
            shift = (row["worker"], row["slot"])
            if row["column"] not in made or shift not in shift_of:
                return f"{row}: the column is not chosen, or the worker is not on duty then"
            if unit_of[shift_of[shift]] not in plan.demand[columns.index(row["column"])]:
                return f"{row}: the column cannot be served then, or not by that worker"
            made[row["column"]].append(shift)
            used[shift] += 1
        for name, shifts in made.items():
            workers, slots = {worker for worker, _ in shifts}, {slot for _, slot in shifts}
            apart = self.rule == "distinct_workers" or (self.rule == "same_slot" and self.visits > 1)
            if len(shifts) != self.visits or (apart and len(workers) < self.visits):
                return f"{name} has not {self.visits} visits" + (" by different workers" if apart else "")
            if self.rule == "same_slot" and len(slots) > 1:
                return f"{name} has visits in several slots"
        over = [shift for shift, count in used.items() if count > offered.open[shift]]
        if over:
            return f"{over[0][0]} has more visits in {over[0][1]} than calls"
        worked = tuple(shift for shift in offered.open if used[shift])
        if self.rules and self._visits(np.flatnonzero(action), columns, self.rules) is not None:
            return next((f"{rule.describe()}: broken" for rule in self.rules if rule.clash(worked, offered)), None)
        return None

    @property
    def rules(self) -> tuple[RosterRule, ...]:
        """Rules of other kinds on this roster, in the order of declaration."""
        return tuple(asker for asker in self.askers if isinstance(asker, RosterRule))

    def staffs(self, action: np.ndarray, columns: Columns, rules: Sequence[RosterRule]) -> bool:
        """Whether the chosen columns, (C,), can be served so that all the given ones of :attr:`rules` hold at once.

        Raises
        ------
        UnsettledError
            When that is not settled within :data:`CLOSINGS` flows.
        """
        chosen, plan = np.flatnonzero(action), self._plan(columns)
        if any(not plan.demand[c] for c in chosen) or self._short(plan, chosen, columns):
            return False

        def verdicts() -> dict[tuple[Any, ...], bool]:
            return {}

        known = self._once(columns, verdicts)
        which = tuple(k for k, own in enumerate(self.rules) if any(own is rule for rule in rules))
        key = (which, *sorted(self.alike(columns)[chosen].tolist()))
        if rules and key not in known:
            if len(known) >= REMEMBERED:
                known.clear()
            known[key] = self._visits(chosen, columns, rules) is not None
        return not rules or known[key]

    def _visits(
        self, chosen: np.ndarray, columns: Columns, rules: Sequence[RosterRule]
    ) -> list[tuple[int, int]] | None:
        """(column, shift) of every visit so that no rule sees a clash, by shift; None when there is no such way.

        Depth first over sets of closed shifts: the flow over what is open is a relaxation, and of shifts that clash at
        least one has no visit in any way that keeps the rules.
        """
        whole, offered = self._plan(columns), self.parts(columns)
        place = {shift: k for k, shift in enumerate(offered.open)}
        stack, seen = [frozenset[int]()], set[frozenset[int]]()
        while stack:
            checkpoint()
            closed = stack.pop()
            if closed in seen:
                continue
            seen.add(closed)
            if len(seen) > CLOSINGS:
                raise UnsettledError(
                    f"a check of {len(chosen)} columns on a roster with {len(rules)} rules within {CLOSINGS} flows",
                    self,
                    ("split the roster into teams of their own", "close shifts in the roster itself"),
                )
            plan = self._closed(whole, closed)
            served, total = self._flow(plan, chosen)
            if total < plan.need * len(chosen):
                continue
            visits = self._spread(plan, served)
            used = {k for _, k in visits}
            worked = tuple(shift for shift, k in place.items() if k in used)
            clash = next((found for rule in rules if (found := rule.clash(worked, offered))), None)
            if clash is None:
                return visits
            if not set(clash) <= set(worked):
                raise ModelError(f"a rule's clash names shifts without visits: {clash}", "choose from `worked` only.")
            stack += [closed | {place[shift]} for shift in clash]
        return None

    def _closed(self, plan: _Plan, closed: frozenset[int]) -> _Plan:
        """The plan without some of its shifts."""
        if not closed:
            return plan
        pools = {unit: [k for k in members if k not in closed] for unit, members in plan.pools.items()}
        size = self._unit_capacity
        capacity = np.array([size([plan.shifts[k].calls for k in members]) for members in pools.values()])
        return replace(plan, capacity=capacity, pools=pools)

    def _spread(self, plan: _Plan, served: dict[tuple[int, int], int]) -> list[tuple[int, int]]:
        """(column, shift) of every visit of a flow, by shift."""
        left = {k: shift.calls for k, shift in enumerate(plan.shifts)}
        visits: list[tuple[int, int]] = []
        together = self.visits if self.rule == "same_slot" else 1
        for (c, unit), amount in sorted(served.items()):
            # Workers with most calls left go first: with different workers required this never runs short (Gale-Ryser).
            for _ in range(amount):
                for k in sorted(plan.pools[unit], key=lambda k: -left[k])[:together]:
                    left[k] -= 1
                    visits.append((c, k))
        return sorted(visits, key=lambda visit: visit[1])

    def alike(self, columns: Columns) -> np.ndarray:
        """A number a column, the same for columns with the same slots: those are interchangeable."""
        return self._plan(columns).alike

    def _short(self, plan: _Plan, chosen: np.ndarray, columns: Columns) -> int:
        """Visits that the roster leaves without a worker."""
        known: dict[tuple[int, ...], int] = self._once(columns, dict)
        key = tuple(sorted(self.alike(columns)[chosen].tolist()))
        if key not in known:
            # Samplers, simulators and enumerations ask for the same few rosters again and again.
            if len(known) >= REMEMBERED:
                known.clear()
            count = np.bincount(plan.alike[chosen], minlength=len(plan.types))
            known[key] = plan.need * len(chosen) - self._most_served(plan, count, columns)
        return known[key]

    def _crews(self, columns: Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Workers on duty alike as one crew: (post of every unit, crew of every post, workers of every crew).

        A post is a crew at one slot and group.
        """

        def crews() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            plan = self._plan(columns)
            duty: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
            for shift in plan.shifts:
                duty[shift.worker].append((shift.slot, shift.group, shift.calls))
                if self.placed is not None:
                    # An arm that is placed with a worker cannot be exchanged for one of another.
                    duty[shift.worker].append((shift.worker, "", 0))
            known: dict[tuple[tuple[str, str, int], ...], int] = {}
            crew = {worker: known.setdefault(tuple(sorted(own)), len(known)) for worker, own in duty.items()}
            posts: dict[tuple[int, str, str], int] = {}
            post = np.array(
                [posts.setdefault((crew[one.worker], one.slot, one.group), len(posts)) for one in plan.shifts]
            )
            size = np.bincount(list(crew.values()), minlength=len(known))
            return post, np.array([c for c, _, _ in posts], dtype=np.int64), size

        return self._once(columns, crews)

    def _most_served(self, plan: _Plan, count: np.ndarray, columns: Columns) -> int:
        """Largest number of served visits of ``count`` columns of every type, (types,): a flow of types, not of arms.

        Workers of a crew and arms of a type are interchangeable: a flow of their sums, spread evenly, is a flow of arms
        and workers, and then a whole one exists.
        """
        present = np.flatnonzero(count)
        if not present.size:
            return 0
        distinct = self.rule == "distinct_workers"
        n_types, unit = len(present), np.arange(len(plan.capacity))
        post, crew_of, size = self._crews(columns) if distinct else (unit, unit, np.ones(len(unit), dtype=np.int64))
        room = np.bincount(post, plan.capacity, len(crew_of)).astype(np.int64)
        first_post = 2 + n_types
        first_pair = first_post + len(room)
        tails, heads, limits = (
            [np.zeros(n_types, dtype=np.int64)],
            [2 + np.arange(n_types)],
            [plan.need * count[present]],
        )
        used = first_pair
        for k, number in enumerate(present.tolist()):
            posts = np.unique(post[list(plan.types[number])])
            many = int(count[number])
            if not distinct:
                tails.append(np.full(len(posts), 2 + k))
                heads.append(first_post + posts)
                limits.append(np.full(len(posts), plan.need * many))
                continue
            crews, which = np.unique(crew_of[posts], return_inverse=True)
            pair = used + np.arange(len(crews))
            used += len(crews)
            tails += [np.full(len(crews), 2 + k), pair[which]]
            heads += [pair, first_post + posts]
            limits += [many * size[crews], many * size[crews][which]]
        tails.append(first_post + np.arange(len(room)))
        heads.append(np.ones(len(room), dtype=np.int64))
        limits.append(room)
        tail, head, limit = (np.concatenate(part).astype(np.int32) for part in (tails, heads, limits))
        kept = limit > 0
        graph = sparse.csr_array((limit[kept], (tail[kept], head[kept])), shape=(used, used), dtype=np.int32)
        from scipy.sparse.csgraph import maximum_flow

        return int(maximum_flow(graph, 0, 1).flow_value)

    def outer_rows(self, columns: Columns) -> Rows | None:
        plan = self._plan(columns)
        if self.askers or sum(len(units) for units in plan.demand) <= LARGE:
            return None

        def rows() -> Rows:
            return self._cut_rows(plan)

        return self._once(columns, rows)

    def _cut_rows(self, plan: _Plan) -> Rows:
        """Columns that can only be served within some pools need no more visits than these have: cuts of the flow."""
        pools = {key: k for k, key in enumerate(dict.fromkeys(plan.key))}
        pool = np.array([pools[key] for key in plan.key], dtype=np.int64)
        room = np.bincount(pool, plan.capacity, len(pools))
        within = np.zeros((len(plan.types), len(pools)), dtype=bool)
        apart = self.rule == "distinct_workers"
        open_ = np.zeros(len(plan.types), dtype=bool)
        for number, units in enumerate(plan.types):
            within[number, pool[list(units)]] = True
            able = len({plan.shifts[unit].worker for unit in units}) if apart else plan.need
            open_[number] = bool(units) and able >= plan.need
        unions = {one.tobytes() for one in within[open_]} | {within[open_].any(axis=0).tobytes()}
        if len(pools) <= CUT_POOLS:
            several = set(unions)
            while several:
                fresh = {
                    (np.frombuffer(one, dtype=bool) | np.frombuffer(other, dtype=bool)).tobytes()
                    for one in several
                    for other in unions
                }
                several = fresh - unions
                unions |= several
        count = np.bincount(plan.alike, minlength=len(plan.types))
        cuts = np.array([np.frombuffer(one, dtype=bool) for one in sorted(unions)]).reshape(-1, len(pools))
        inside = ~(within[open_].astype(np.int64) @ ~cuts.T > 0)
        most, limit = plan.need * count[open_] @ inside, cuts @ room
        order = np.argsort(-most / np.maximum(limit, 1.0), kind="stable")
        kept = order[(most > limit)[order]][:CUTS]
        by_type = np.zeros((len(kept) + 1, len(plan.types)))
        by_type[:-1, open_] = inside[:, kept].T
        by_type[-1] = ~open_
        matrix = sparse.csr_array(by_type[:, plan.alike])
        limits = np.append(np.floor(limit[kept] / plan.need), 0.0)
        names = [_within(cuts[k], list(pools)) for k in kept.tolist()] + ["nobody"]
        some = np.diff(matrix.indptr) > 0
        at = np.flatnonzero(some)
        return Rows(matrix[at], np.full(len(at), -np.inf), limits[at], [names[k] for k in at.tolist()])

    def _flow(self, plan: _Plan, chosen: np.ndarray) -> tuple[dict[tuple[int, int], int], int]:
        """Largest number of served visits of the chosen columns, with the visits a (column, unit)."""
        if not chosen.size:
            return {}, 0
        distinct = self.rule == "distinct_workers"
        workers: dict[str, int] = {}
        owner = np.array([workers.setdefault(shift.worker, len(workers)) for shift in plan.shifts], dtype=np.int64)
        n_units, n_chosen = len(plan.capacity), len(chosen)
        first_unit, used = 2 + n_chosen, 2 + n_chosen + n_units
        tails, heads, limits = [np.zeros(n_chosen, dtype=np.int64)], [2 + np.arange(n_chosen)], [plan.need]
        ends: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        type_of = plan.alike[chosen]
        for number in np.unique(type_of).tolist():
            at = np.flatnonzero(type_of == number)
            units = np.array(plan.types[number], dtype=np.int64)
            if not units.size:
                continue
            through = np.repeat((2 + at)[:, None], len(units), axis=1)
            if distinct:
                known, which = np.unique(owner[units], return_inverse=True)
                pair = used + np.arange(len(at) * len(known)).reshape(len(at), len(known))
                used += pair.size
                tails.append(np.repeat(2 + at, len(known)))
                heads.append(pair.ravel())
                limits.append(1)
                through = pair[:, which]
            tails.append(through.ravel())
            heads.append(np.tile(first_unit + units, len(at)))
            limits.append(1 if distinct else plan.need)
            ends.append((np.repeat(chosen[at], len(units)), np.tile(units, len(at)), through.ravel()))
        tails.append(first_unit + np.arange(n_units))
        heads.append(np.ones(n_units, dtype=np.int64))
        each = [np.full(len(tail), limit) for tail, limit in zip(tails[:-1], limits, strict=True)]
        limit = np.concatenate([*each, plan.capacity]).astype(np.int32)
        tail, head = np.concatenate(tails).astype(np.int32), np.concatenate(heads).astype(np.int32)
        graph = sparse.csr_array((limit[limit > 0], (tail[limit > 0], head[limit > 0])), shape=(used, used))
        from scipy.sparse.csgraph import maximum_flow

        result = maximum_flow(graph, 0, 1)
        served: dict[tuple[int, int], int] = {}
        flow = sparse.csr_array(result.flow)
        for columns, units, through in ends:
            amount = np.asarray(flow[through, first_unit + units]).ravel()
            for k in np.flatnonzero(amount > 0).tolist():
                served[int(columns[k]), int(units[k])] = int(amount[k])
        return served, int(result.flow_value)

    def _plan(self, columns: Columns) -> _Plan:
        def plan() -> _Plan:
            shifts = self._shifts(columns)
            placed = self._placed(columns, shifts)
            if self.rule == "distinct_workers":
                pools = {k: [k] for k in range(len(shifts))}
                names = [f"{shift.worker} {shift.slot}" for shift in shifts]
                capacity = np.array([shift.calls for shift in shifts])
                key = [(shift.slot, shift.group) for shift in shifts]
            else:
                # A shift that an arm is placed in is told apart from those that it could otherwise be exchanged for.
                alone = set(placed.values())
                grouped: dict[tuple[str, str, str], list[int]] = defaultdict(list)
                for k, shift in enumerate(shifts):
                    grouped[shift.slot, shift.group, shift.worker if k in alone else ""].append(k)
                key = [(slot, group) for slot, group, _ in grouped]
                pools = dict(enumerate(grouped.values()))
                names = [" ".join(part for part in parts if part) for parts in grouped]
                capacity = np.array(
                    [self._unit_capacity([shifts[k].calls for k in members]) for members in pools.values()]
                )
            by_slot: dict[str, list[int]] = defaultdict(list)
            for unit, (slot, _) in enumerate(key):
                by_slot[slot].append(unit)
            values = [""] * len(columns) if self.match is None else columns.text(self.match)
            # Columns of the same slots and the same value share one list: arms are many, kinds of them few.
            known: dict[tuple[tuple[str, ...], str, int | None], tuple[list[int], int]] = {}
            place: dict[tuple[int, ...], int] = {}

            def units(slots: tuple[str, ...], value: str, shift: int | None) -> tuple[list[int], int]:
                if (slots, value, shift) not in known:
                    found = [
                        unit
                        for slot in slots
                        for unit in by_slot.get(slot, [])
                        if key[unit][1] in ("", value) and capacity[unit] and (shift is None or shift in pools[unit])
                    ]
                    known[slots, value, shift] = found, place.setdefault(tuple(found), len(place))
                return known[slots, value, shift]

            available = zip(self._available(columns), values, strict=True)
            drawn = [units(tuple(slots), value, placed.get(c)) for c, (slots, value) in enumerate(available)]
            alike = np.array([number for _, number in drawn], dtype=np.int64)
            need = 1 if self.rule == "same_slot" else self.visits
            return _Plan([one for one, _ in drawn], capacity, names, shifts, pools, need, key, alike, list(place))

        return self._once(columns, plan)

    def _placed(self, columns: Columns, shifts: list[_Shift]) -> dict[int, int]:
        """Shift of every column that is placed in one."""
        if self.placed is None:
            return {}
        if self.visits != 1:
            raise ModelError("placed: an arm with several visits is not served in one shift", "set visits to 1.")
        place, findings = {(one.worker, one.slot): k for k, one in enumerate(shifts)}, Findings(self.placed.source)
        rows = zip(*(self.placed.text(name) for name in ("id", "worker", "slot")), strict=True)
        found: dict[int, int] = {}
        for row, (name, worker, slot) in enumerate(rows):
            if name not in columns or (worker, slot) not in place or columns.index(name) in found:
                findings.add(
                    self.placed.place(row),
                    f"{name!r} at {worker!r} in {slot!r}: no such arm or shift, or placed twice",
                    "name an arm once, and a worker and slot of the roster",
                )
            else:
                found[columns.index(name)] = place[worker, slot]
        findings.raise_if_any()
        return found

    def _unit_capacity(self, calls: list[int]) -> int:
        """Arms (``same_slot``) or visits that the interchangeable shifts of one unit can take."""
        if self.rule != "same_slot":
            return sum(calls)
        # k arms need `visits` different workers each: possible iff sum of min(calls, k) >= visits * k (Gale-Ryser);
        # the left side is concave in k, so the possible k are 0 .. K.
        arms = 0
        while sum(min(count, arms + 1) for count in calls) >= self.visits * (arms + 1):
            arms += 1
        return arms

    def _shifts(self, columns: Columns) -> list[_Shift]:
        roster, findings = self.roster, Findings(self.roster.source)
        roster.only(("worker", "slot", "calls"), () if self.match is None else (self.match,))
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
        order = self.slot_order
        for slot in dict.fromkeys(slots if order else ()):
            if slot not in order or order.count(slot) > 1:
                findings.add(
                    "slot_order",
                    f"slot {slot!r} stands {order.count(slot)} times",
                    "name every slot of the roster once",
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


class RosterRule(Constraint):
    """A rule on who works when, over the shifts of a roster in the same set.

    A kind adds ``build``, which limits ``works[worker, slot]`` of ``self.other_block(block, "roster")``, ``describe``
    and :meth:`clash`. As a roster is found and not given, a rule is judged by whether the chosen columns can be served
    so that it holds: alone, and together with the roster's rules declared before it.
    """

    needs: ClassVar[tuple[str, ...]] = ("roster",)

    roster: str
    """Name of the ``scheduling`` constraint whose shifts this is about."""

    def clash(self, worked: Sequence[Shift], roster: Roster) -> Sequence[Shift] | None:
        """Some of the shifts with visits that may not all have visits, whatever else is worked; None when all is well.

        Fewer are better: the check closes each of them in turn.
        """
        raise NotImplementedError

    def check(self, columns: Columns) -> None:
        if not isinstance(self.other("roster"), Scheduling):
            raise ModelError(
                f"roster: {self.roster!r} is of kind {self.other('roster').kind!r}",
                "name a constraint of kind 'scheduling'.",
            )

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        roster = self.other("roster")
        assert isinstance(roster, Scheduling)  # check() has refused anything else

        def possible(*rules: RosterRule) -> bool:
            return roster.staffs(action, columns, rules)

        before = roster.rules[: next(k for k, rule in enumerate(roster.rules) if rule is self)]
        if not possible():
            return  # The roster says so itself.
        if not possible(self):
            yield f"{int(action.sum())} chosen cannot be served within {self.roster} so that {self.describe()}"
        elif before and possible(*before) and not possible(*before, self):
            yield f"{int(action.sum())} chosen can be served within {self.roster} so, but not with the rules before it"

    def monotone(self, columns: Columns) -> bool:
        return True


def _within(cut: np.ndarray, pools: list[tuple[str, str]]) -> str:
    """What a row about visits within some pools (K,) is called: its slots, with the group where a pool has one."""
    inside = [f"{slot} {group}".strip() for (slot, group), some in zip(pools, cut.tolist(), strict=True) if some]
    if len(inside) == len(pools) > 1:
        return "all slots"
    return " or ".join(inside) if len(inside) <= NAMED else f"{inside[0]} and {len(inside) - 1} more"
