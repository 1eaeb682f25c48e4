"""Kinds of a visit plan, whose columns are arms with slots: windows, frequencies, budgets a slot, cells, gaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator
from scipy import sparse
from scipy.sparse import csgraph

from rmab_opt.actions import ActionSet
from rmab_opt.actions.columns import Columns
from rmab_opt.actions.constraint import Constraint, Names, Rows, TableSource
from rmab_opt.actions.kinds.path import FEW_STOPS, Path
from rmab_opt.actions.kinds.rows import block_constraint, opened, weighted
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.problem import Arms, Problem, Table
from rmab_opt.problem.table import nearest
from rmab_opt.registry import register
from rmab_opt.settings.inspection.beliefs import Windows
from rmab_opt.settings.inspection.dates import Dates, read_date
from rmab_opt.settings.inspection.events import CalendarEvent

__all__ = ["Cells", "ClassRules", "Frequency", "Gap", "Inspectors", "Rows", "SlotBudget", "VisitColumns", "Window"]


class VisitColumns(Columns):
    """One column an arm and slot of the period, called ``arm@slot``; attributes are the arm's, and ``arm``, ``slot``.

    Parameters
    ----------
    arms
        The cohort.
    n_slots
        Slots T of the period.
    open_cells
        Bool (N, T): only these cells become columns; all by default.
    """

    def __init__(self, arms: Arms, n_slots: int, open_cells: np.ndarray | None = None) -> None:
        if n_slots < 1:
            raise ModelError(f"{n_slots} slots", "give at least one.")
        if open_cells is None:
            open_cells = np.ones((len(arms), n_slots), dtype=bool)
        if open_cells.shape != (len(arms), n_slots):
            raise ModelError(f"open cells have shape {open_cells.shape}", f"give shape {(len(arms), n_slots)}.")
        self.n_slots = n_slots
        self.arm, self.slot = (part.astype(np.int64) for part in np.nonzero(open_cells))
        if not self.arm.size:
            raise ModelError("no arm has an open slot", "open a window.")
        n = len(self.arm)
        effect = sparse.csr_array((np.ones(n), self.arm, np.arange(n + 1)), shape=(n, len(arms)))
        super().__init__(arms, self._visits, effect)

    def _visits(self) -> Table:
        """One row a visit."""
        owner, when = self.arm.tolist(), self.slot.tolist()
        names = [self.arms.ids[i] for i in owner]
        return self.arms.table.take(owner).with_columns(
            {"arm": names, "slot": when, "id": [f"{name}@{t}" for name, t in zip(names, when, strict=True)]}
        )

    def arm_action(self, action: np.ndarray) -> np.ndarray:
        # A period's visits are no round's action: simulating or training on them would do them all in every round.
        raise CapabilityError(
            "one round's action: its columns are the visits of a whole period",
            self,
            ("plan and value it with `rmab-opt plan`", "use columns of arms for policies round by round"),
        )

    def table(self, action: np.ndarray) -> np.ndarray:
        """The action as an arm by slot table of 0 and 1, int64 (N, T)."""
        table = np.zeros((len(self.arms), self.n_slots), dtype=np.int64)
        table[self.arm, self.slot] = action
        return table


def _rows(group: np.ndarray, members: np.ndarray, n_columns: int, lower: Any, upper: Any, names: list[str]) -> Rows:
    """Rows that count: column ``members[j]`` stands in row ``group[j]``."""
    n = len(names)
    matrix = sparse.csr_array((np.ones(len(members)), (group, members)), shape=(n, n_columns))
    return Rows(matrix, np.broadcast_to(lower, n).astype(float), np.broadcast_to(upper, n).astype(float), names)


def visits_of(columns: Columns) -> VisitColumns:
    """The columns, when they are arms with slots."""
    if not hasattr(columns, "slot"):
        raise ModelError("this kind needs columns that are arms with slots", "set `columns: visits`.")
    return columns  # type: ignore[return-value]


class VisitRows(Constraint):
    """A kind that is counting rows over visits: says them once, as arrays, for Pyomo and for plans alike."""

    def rows(self, columns: Columns) -> Rows:
        """The rows; the same ones that :meth:`build` gives to Pyomo."""
        raise NotImplementedError

    def build(self, block: Any, act: Any, columns: Columns) -> None:
        found = self.rows(columns)
        split = np.split(found.matrix.indices, found.matrix.indptr[1:-1])
        limits = zip(found.names, split, found.lower.tolist(), found.upper.tolist(), strict=True)
        rows = {
            name: (lower if np.isfinite(lower) else None, weighted(act, members), upper if np.isfinite(upper) else None)
            for name, members, lower, upper in limits
        }
        block.add_component("visits", block_constraint(list(rows), rows))

    def least_visits(self, columns: VisitColumns) -> np.ndarray:
        """Visits each arm needs in the period at least, (N,); for explaining why there is no plan."""
        return np.zeros(len(columns.arms), dtype=np.int64)

    def capacities(self, columns: VisitColumns) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """(whom, arms bool (N,), visits each slot can hold (T,)) for every limit on slots."""
        return []

    def changes(self, columns: VisitColumns, events: Sequence[CalendarEvent]) -> list[tuple[str, int, int]]:
        """(whom, slot, visits more or fewer) that events do to this limit; whom as in the rows' names."""
        return []

    def closed(self, columns: VisitColumns) -> np.ndarray:
        """Columns that this constraint forbids, bool (C,)."""
        return np.zeros(len(columns), dtype=bool)


def closed_cells(actions: ActionSet, columns: VisitColumns) -> np.ndarray:
    """Columns that some constraint forbids by its own words, bool (C,); a slot without capacity is not closed."""
    kinds = [c for c in actions.constraints.values() if isinstance(c, VisitRows)]
    return np.any([np.zeros(len(columns), dtype=bool), *(c.closed(columns) for c in kinds)], axis=0)


class Window(VisitRows, kind="window"):
    """Visits only in the arm's own slots: the sum of act over an arm's closed slots is 0."""

    column: str = "window"
    """Attribute with the open slots of each arm: ``2-4``, or ``0-1;6-7`` for two windows; with ``start`` also dates."""
    start: str | None = None
    """First day of the first slot, for windows written as dates: ``2026-03-01..2026-04-15``."""
    unit: Literal["day", "week", "month"] = "week"
    """What a slot is, with ``start``."""

    def _open(self, columns: VisitColumns) -> np.ndarray:
        cells = columns.arms.text(self.column)
        if self.start is not None:
            dates = Dates(read_date(self.start, "window.start"), self.unit)
            cells = [dates.window(cell) for cell in cells]
        windows: Windows = self._once(columns, lambda: Windows.parse(cells, columns.n_slots))
        return windows.open

    def closed(self, columns: VisitColumns) -> np.ndarray:
        return ~self._open(columns)[columns.arm, columns.slot]

    def rows(self, columns: Columns) -> Rows:
        visits = visits_of(columns)
        members = np.flatnonzero(self.closed(visits))
        arms, group = np.unique(visits.arm[members], return_inverse=True)
        names = [visits.arms.ids[i] for i in arms.tolist()]
        return _rows(group, members, len(visits), -np.inf, 0.0, names)

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        visits = visits_of(columns)
        for c in np.flatnonzero(action):
            arm, slot = int(visits.arm[c]), int(visits.slot[c])
            if not self._open(visits)[arm, slot]:
                cell = visits.arms.text(self.column)[arm]
                yield f"{visits.arms.ids[arm]} is visited in slot {slot}, its {self.column} is {cell or 'empty'}"

    def describe(self) -> str:
        return f"visits only in the slots of the arm's {self.column}"

    def check(self, columns: Columns) -> None:
        self._open(visits_of(columns))

    def monotone(self, columns: Columns) -> bool:
        return True


class Frequency(VisitRows, kind="frequency"):
    """How often every arm is visited in the period, or in each of its windows: at_least <= visits <= at_most."""

    at_most: int | str | None = None
    """Number, or the attribute of the arm that holds it."""
    at_least: int | str | None = None
    """Number, or the attribute of the arm that holds it."""
    equal: int | str | None = None
    """Number, or the attribute of the arm that holds it; excludes the other two."""
    per: Literal["period", "window"] = "period"
    """Whether visits are counted over the period or in each window."""
    column: str = "window"
    """Attribute with the arm's windows, where they are counted."""

    @model_validator(mode="after")
    def _some_limit(self) -> Frequency:
        if self.equal is not None and (self.at_most is not None or self.at_least is not None):
            raise ValueError("give either equal, or at_most and at_least")
        if self.equal is None and self.at_most is None and self.at_least is None:
            raise ValueError("give one of at_most, at_least, equal")
        low, high = self.at_least, self.at_most
        if isinstance(low, int) and isinstance(high, int) and low > high:
            raise ValueError(f"at_least {low} is above at_most {high}")
        return self

    def _limits(self, columns: VisitColumns) -> tuple[np.ndarray, np.ndarray]:
        def numbers(given: int | str | None, default: float) -> np.ndarray:
            if isinstance(given, str):
                return columns.arms.numbers(given, minimum=0)
            return np.full(len(columns.arms), default if given is None else float(given))

        lower = numbers(self.equal if self.equal is not None else self.at_least, 0.0)
        return lower, numbers(self.equal if self.equal is not None else self.at_most, np.inf)

    def _counted(self, columns: VisitColumns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(columns, arm, number of the window) of every cell that is counted."""
        if self.per == "period":
            return np.arange(len(columns)), columns.arm, np.zeros(len(columns), dtype=np.int64)
        windows: Windows = self._once(columns, lambda: Windows.parse(columns.arms.text(self.column), columns.n_slots))
        label = windows.label[columns.arm, columns.slot]
        return np.flatnonzero(label >= 0), columns.arm[label >= 0], label[label >= 0]

    def _groups(self, columns: VisitColumns) -> int:
        if self.per == "period":
            return 1
        return max(1, *(len(cell.split(";")) for cell in columns.arms.text(self.column)))

    def rows(self, columns: Columns) -> Rows:
        visits = visits_of(columns)
        members, arm, window = self._counted(visits)
        per_arm = self._groups(visits)
        lower, upper = self._limits(visits)
        if self.per == "period":
            keys, names = np.arange(len(visits.arms)), list(visits.arms.ids)
            group = arm
        else:
            keys, group = np.unique(arm * per_arm + window, return_inverse=True)
            names = [f"{visits.arms.ids[key // per_arm]} window {key % per_arm}" for key in keys.tolist()]
        owner = keys // per_arm
        return _rows(group, members, len(visits), lower[owner], upper[owner], names)

    def least_visits(self, columns: VisitColumns) -> np.ndarray:
        lower = np.ceil(self._limits(columns)[0]).astype(np.int64)
        if self.per == "period":
            return lower
        _, arm, window = self._counted(columns)
        per_arm = self._groups(columns)
        return lower * np.bincount(np.unique(arm * per_arm + window) // per_arm, minlength=len(lower))

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        visits = visits_of(columns)
        members, arm, window = self._counted(visits)
        per_arm = self._groups(visits)
        used = np.zeros((len(visits.arms), per_arm))
        np.add.at(used, (arm, window), np.asarray(action)[members])
        counted = np.ones(used.shape, dtype=bool) if self.per == "period" else np.zeros(used.shape, dtype=bool)
        counted[arm, window] = True
        lower, upper = self._limits(visits)
        least, most = opened(lower, upper)
        for i, j in np.argwhere(counted & ((used < least[:, None]) | (used > most[:, None]))):
            where = "" if self.per == "period" else f" in window {j + 1}"
            allowed = f"between {lower[i]:g} and {upper[i]:g}" if lower[i] < upper[i] else f"exactly {lower[i]:g}"
            yield f"{visits.arms.ids[i]} is visited {used[i, j]:g} times{where}, allowed is {allowed}"

    def describe(self) -> str:
        words = [
            f"{word} {given}"
            for word, given in (("exactly", self.equal), ("at least", self.at_least), ("at most", self.at_most))
            if given is not None
        ]
        return f"every arm is visited {' and '.join(words)} times a {self.per}"

    def check(self, columns: Columns) -> None:
        visits = visits_of(columns)
        lower, upper = self._limits(visits)
        bad = np.flatnonzero((lower > upper) | (lower < 0) | (upper < 0))
        if bad.size:
            raise ModelError(
                f"{visits.arms.ids[bad[0]]}: visits at least {lower[bad[0]]:g}, at most {upper[bad[0]]:g}",
                "correct the numbers.",
            )
        self._counted(visits)

    def monotone(self, columns: Columns) -> bool:
        return bool((self._limits(visits_of(columns))[0] <= 0).all())


class ClassRules(Frequency, kind="class_rules"):
    """How often the arms of each class are visited in the period, in one table: risk 1 twice, risk 2 once, risk 3 every
    other period."""

    column: str = "class"
    """Attribute with the arm's class."""
    rules: TableSource
    """One row a class: ``class``, ``visits`` at least, ``at_most`` (the same by default), ``every`` (periods from visit
    to visit, 1 by default)."""
    last: str | None = None
    """Attribute with the periods since the arm's last visit, where a rule has ``every``; due where it is reached."""

    @model_validator(mode="after")
    def _some_limit(self) -> ClassRules:
        if any(given is not None for given in (self.equal, self.at_least, self.at_most)) or self.per != "period":
            raise ValueError("the numbers stand in the table `rules`, a period each")
        return self

    def _limits(self, columns: VisitColumns) -> tuple[np.ndarray, np.ndarray]:
        table = self.rules
        known = table.text("class")
        given = columns.arms.text(self.column)
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ModelError(f"rules: no row for {self.column} {unknown[0]!r}", nearest(unknown[0], known))
        row = np.array([known.index(name) for name in given])
        least = table.numbers("visits", minimum=0)
        most = table.numbers("at_most", minimum=0) if "at_most" in table else least
        every = table.numbers("every", minimum=1) if "every" in table else np.ones(len(known))
        since = np.full(len(given), np.inf) if self.last is None else columns.arms.numbers(self.last, minimum=0)
        due = (every[row] <= 1) | (since >= every[row])
        return np.where(due, least[row], 0.0), most[row]

    def describe(self) -> str:
        known, visits = self.rules.text("class"), self.rules.text("visits")
        return "visits a period by class: " + ", ".join(f"{k} {v}" for k, v in zip(known, visits, strict=True))


class Inspectors(VisitRows, kind="inspectors"):
    """Visits that a slot's inspectors can do: for every set of needs, those with one of them are at most what the
    inspectors with a fitting skill can do together (then each slot's visits can be given out, by Hall's condition)."""

    staff: TableSource
    """One row an inspector: ``id``, ``capacity`` (visits a slot), and where they are known ``district`` (home),
    ``skills`` (words; empty for all) and ``off`` (slots away, ``3-5``)."""
    skill: str | None = None
    """Attribute of the arm: the skill that its visit needs, empty for none."""
    district: str = "district"
    """Attribute of the arm that is compared with the inspector's home."""
    travel: TableSource | None = None
    """Cost of the way between districts, ``from, to, cost``, both ways where one is given; by default 1 between any
    two. Says how a slot's visits are given out, so that each inspector's lie together; no limit."""
    fairness: float = Field(default=0.5, ge=0)
    """Cost of a visit for somebody who has done all of their capacity so far, against ``travel``: evens out loads."""

    routes: bool = False
    """Whether an inspector's visits of a slot are put in the order of the shortest round from home: exactly, by the
    kind ``path``, up to 16 districts. Needs whole costs in ``travel``, and homes."""

    def round(self, home: str, areas: Sequence[str]) -> list[str]:
        """Districts in the order of the shortest round from home and back; as they are where there are too many."""
        stops = [area for area in dict.fromkeys(areas) if area]
        away = [area for area in stops if area != home]
        if not home or len(away) < 2 or len(away) > FEW_STOPS:
            return stops
        points = [home, *away]
        way = self.ways(points)
        pairs = list(combinations(range(len(points)), 2))
        if any(way[pair] < 1 or way[pair] != round(way[pair]) for pair in pairs):
            raise ModelError("travel: routes need whole costs from 1 on", "give minutes, or leave out `routes`.")
        edges = Table(
            {
                "from": [points[i] for i, _ in pairs], "to": [points[j] for _, j in pairs],
                "minutes": [int(way[i, j]) for i, j in pairs],
            }
        )  # fmt: skip
        columns = Columns.of_arms(Arms(Table({"id": away, "district": away})))
        path = Path(edges=edges, depot=home, length=int(way.sum()), point="district")
        told = path.assignment(np.ones(len(away), dtype=np.int64), columns)
        order = [row["column"] for row in sorted(told, key=lambda row: int(row["stop"]))]
        return [area for area in stops if area == home] + order

    def ways(self, areas: Sequence[str]) -> np.ndarray:
        """Cost of the way from each area to each, (K, K); empty names are anywhere and cost nothing.

        Raises
        ------
        ModelError
            When a pair of areas has no way; names it.
        """
        known = np.array([bool(name) for name in areas])
        cost = np.where(np.array(areas)[:, None] == np.array(areas)[None, :], 0.0, 1.0) * np.outer(known, known)
        if self.travel is None:
            return cost
        given = {
            (one, two): value
            for one, two, value in zip(
                self.travel.text("from"), self.travel.text("to"), self.travel.numbers("cost", minimum=0).tolist(),
                strict=True,
            )
        }  # fmt: skip
        for i, j in np.argwhere(cost > 0).tolist():
            found = given.get((areas[i], areas[j]), given.get((areas[j], areas[i])))
            if found is None:
                raise ModelError(f"travel: no way from {areas[i]!r} to {areas[j]!r}", "add a row with its cost.")
            cost[i, j] = found
        return cost

    def rooms(self, n_slots: int, events: Sequence[CalendarEvent] = ()) -> np.ndarray:
        """Visits of each inspector in each slot, (I, T), with the leaves among some events.

        Raises
        ------
        ModelError
            When somebody is on leave who is no inspector.
        """
        ids, capacity = self.staff.text("id"), self.staff.numbers("capacity", minimum=0)
        off = self.staff.text("off") if "off" in self.staff else [""] * len(capacity)
        room = np.asarray(capacity[:, None] * ~Windows.parse(off, n_slots).open)
        for event in events:
            if event.event == "leave":
                if event.arm not in ids:
                    raise ModelError(f"leave: no inspector {event.arm!r}", nearest(event.arm, ids))
                room[ids.index(event.arm), event.slot : event.end + 1] = 0.0
        return room

    def able(self, needs: Sequence[str]) -> np.ndarray:
        """Whether an inspector can do a visit with each need, bool (I, len(needs))."""
        held = self.staff.text("skills") if "skills" in self.staff else [""] * len(self.staff)
        return np.array([[not need or not own.strip() or need in own.split() for need in needs] for own in held])

    def _needs(self, columns: VisitColumns) -> list[str]:
        return columns.arms.text(self.skill) if self.skill is not None else [""] * len(columns.arms)

    def _sets(
        self, columns: VisitColumns, events: Sequence[CalendarEvent] = ()
    ) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """(name, arms bool (N,), visits a slot (T,)) of every set of needs."""
        mine = np.array(self._needs(columns), dtype=str)
        known = sorted(set(mine.tolist()))
        room, able = self.rooms(columns.n_slots, events), self.able(known)
        found = [("", np.ones(len(mine), dtype=bool), able.any(axis=1) @ room)]
        for size in range(1, len(known)):
            for group in combinations(range(len(known)), size):
                name = "+".join(known[k] or "any" for k in group)
                inside = np.isin(mine, [known[k] for k in group])
                found.append((name, inside, able[:, list(group)].any(axis=1) @ room))
        return found

    def rows(self, columns: Columns) -> Rows:
        visits = visits_of(columns)
        group, members, upper, names = [], [], [], []
        for number, (name, arms, room) in enumerate(self._sets(visits)):
            inside = np.flatnonzero(arms[visits.arm])
            group.append(number * visits.n_slots + visits.slot[inside])
            members.append(inside)
            upper.append(room)
            names += [f"{name + ' ' if name else ''}slot {t}" for t in range(visits.n_slots)]
        return _rows(np.concatenate(group), np.concatenate(members), len(visits), -np.inf, np.concatenate(upper), names)

    def capacities(self, columns: VisitColumns) -> list[tuple[str, np.ndarray, np.ndarray]]:
        return [(f"need {name}" if name else "", arms, room) for name, arms, room in self._sets(columns)]

    def changes(self, columns: VisitColumns, events: Sequence[CalendarEvent]) -> list[tuple[str, int, int]]:
        found = [
            ("", t, event.change)
            for event in events
            if event.event == "capacity" and not event.group
            for t in range(event.slot, event.end + 1)
        ]
        usual, now = self._sets(columns), self._sets(columns, events)
        for (name, _, before), (_, _, after) in zip(usual, now, strict=True):
            found += [(name, int(t), int(after[t] - before[t])) for t in np.flatnonzero(after != before)]
        return found

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        visits = visits_of(columns)
        taken = np.flatnonzero(action)
        needs = self._needs(visits)
        room = self.rooms(visits.n_slots)
        for t in range(visits.n_slots):
            here = visits.arm[taken[visits.slot[taken] == t]]
            able = self.able([needs[i] for i in here.tolist()])
            # Given out one by one along augmenting paths: nothing of the rows above is used.
            short = len(here) - _given_out(able, room[:, t])
            if short:
                yield f"{short} of {len(here)} visits in slot {t} have no inspector"

    def describe(self) -> str:
        return f"{len(self.staff)} inspectors do each slot's visits{' by skill' if self.skill else ''}"

    def check(self, columns: Columns) -> None:
        visits = visits_of(columns)
        if len(set(self._needs(visits))) > 6:
            raise ModelError(f"skill: {len(set(self._needs(visits)))} different needs", "give at most 6.")
        self._sets(visits)

    def monotone(self, columns: Columns) -> bool:
        return True


def _given_out(able: np.ndarray, room: np.ndarray) -> int:
    """Most visits that inspectors can do: able bool (I, V), room (I,)."""
    seats = np.repeat(np.arange(len(room)), np.rint(room).astype(int))
    if not len(seats) or not able.shape[1]:
        return 0
    matched = csgraph.maximum_bipartite_matching(sparse.csr_array(able[seats].astype(int)), perm_type="row")
    return int((matched >= 0).sum())


class SlotBudget(VisitRows, kind="slot_budget"):
    """How many visits each slot holds, in all or per value of an attribute: at_least <= visits in slot t <= at_most."""

    at_most: int | tuple[int, ...] | None = None
    """Capacity of each slot: one number, or one a slot."""
    at_least: int | tuple[int, ...] | None = None
    """Floor of each slot: one number, or one a slot."""
    per: str | None = None
    """Attribute of the arm, e.g. district: every value has slots of its own."""
    limits: dict[str, int | tuple[int, ...]] = Field(default_factory=dict)
    """With ``per``: capacity of each value, in place of ``at_most``."""

    @model_validator(mode="after")
    def _some_limit(self) -> SlotBudget:
        if self.at_most is None and self.at_least is None and not self.limits:
            raise ValueError("give one of at_most, at_least, limits")
        if self.limits and self.per is None:
            raise ValueError("limits need `per`")
        return self

    def _groups(self, columns: VisitColumns) -> dict[str, np.ndarray]:
        """Value to its arms, bool (N,)."""
        if self.per is None:
            return {"": np.ones(len(columns.arms), dtype=bool)}
        values = np.array(columns.arms.text(self.per), dtype=str)
        wanted = self.limits if self.limits and self.at_most is None else dict.fromkeys(values.tolist())
        return {value: values == value for value in wanted}

    def _limits(self, columns: VisitColumns, value: str) -> tuple[np.ndarray, np.ndarray]:
        def each(given: int | tuple[int, ...] | None, default: float) -> np.ndarray:
            if isinstance(given, tuple) and len(given) != columns.n_slots:
                raise ModelError(f"{len(given)} limits for {columns.n_slots} slots", "give one number, or one a slot.")
            return np.broadcast_to(np.asarray(default if given is None else given, dtype=float), columns.n_slots)

        return each(self.at_least, 0.0), each(self.limits.get(value, self.at_most), np.inf)

    def rows(self, columns: Columns) -> Rows:
        visits = visits_of(columns)
        groups = self._groups(visits)
        number = np.full(len(visits.arms), -1)
        for at, mask in enumerate(groups.values()):
            number[mask] = at
        members = np.flatnonzero(number[visits.arm] >= 0)
        row = number[visits.arm[members]] * visits.n_slots + visits.slot[members]
        pairs = [self._limits(visits, value) for value in groups]
        names = [f"{value + ' ' if value else ''}slot {t}" for value in groups for t in range(visits.n_slots)]
        lower, upper = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
        return _rows(row, members, len(visits), lower, upper, names)

    def capacities(self, columns: VisitColumns) -> list[tuple[str, np.ndarray, np.ndarray]]:
        return [
            (f"{self.per} {value}" if value else "", mask, self._limits(columns, value)[1])
            for value, mask in self._groups(columns).items()
        ]

    def changes(self, columns: VisitColumns, events: Sequence[CalendarEvent]) -> list[tuple[str, int, int]]:
        return [
            (event.group, t, event.change)
            for event in events
            if event.event == "capacity" and bool(event.group) == (self.per is not None)
            for t in range(event.slot, event.end + 1)
        ]

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        visits = visits_of(columns)
        taken = np.flatnonzero(action)
        for value, mask in self._groups(visits).items():
            load = np.bincount(visits.slot[taken][mask[visits.arm[taken]]], minlength=visits.n_slots)
            lower, upper = self._limits(visits, value)
            whom = f" of {self.per} {value}" if value else ""
            for t in np.flatnonzero((load > upper) | (load < lower)):
                side = f"at most {upper[t]:g}" if load[t] > upper[t] else f"at least {lower[t]:g}"
                yield f"{load[t]} visits{whom} in slot {t}, allowed is {side}"

    def describe(self) -> str:
        def words(given: int | tuple[int, ...] | None) -> str:
            return f"{min(given)} to {max(given)}" if isinstance(given, tuple) else str(given)

        sides = [f"at least {words(self.at_least)}"] if self.at_least is not None else []
        sides += [f"at most {words(self.at_most)}"] if self.at_most is not None else []
        sides += [f"{value} at most {words(limit)}" for value, limit in self.limits.items()]
        return f"{', '.join(sides)} visits a slot{f' for every {self.per}' if self.per else ''}"

    def check(self, columns: Columns) -> None:
        visits = visits_of(columns)
        if self.per is not None:
            known = sorted(set(visits.arms.text(self.per)))
            unknown = [value for value in self.limits if value not in known]
            if unknown:
                raise ModelError(f"limits: no arm has {self.per} {unknown[0]!r}", nearest(unknown[0], known))
        for value in self._groups(visits):
            lower, upper = self._limits(visits, value)
            if (lower > upper).any() or (lower < 0).any():
                raise ModelError(
                    f"a slot has floor {lower.max():g} and capacity {upper.min():g}", "correct the limits."
                )

    def monotone(self, columns: Columns) -> bool:
        return self.at_least is None or not np.any(self.at_least)


class Cells(VisitRows, kind="cells"):
    """Visits that are fixed: act = 1 in ``must``, act = 0 in ``must_not``."""

    must: Names = ()
    """Columns ``arm@slot`` with a visit, such as complaints and announced dates."""
    must_not: Names = ()
    """Columns ``arm@slot`` without one, such as holidays."""

    @model_validator(mode="after")
    def _no_clash(self) -> Cells:
        both = [name for name in self.must if name in self.must_not]
        if both:
            raise ValueError(f"{both[0]} stands in must and in must_not")
        if not self.must and not self.must_not:
            raise ValueError("give must or must_not")
        return self

    def closed(self, columns: VisitColumns) -> np.ndarray:
        closed = np.zeros(len(columns), dtype=bool)
        closed[columns.indices(self.must_not)] = True
        return closed

    def rows(self, columns: Columns) -> Rows:
        names = list(dict.fromkeys((*self.must, *self.must_not)))
        value = np.array([float(name in set(self.must)) for name in names])
        return _rows(np.arange(len(names)), columns.indices(names), len(columns), value, value, names)

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        for name in self.must:
            if not action[columns.index(name)]:
                yield f"{name} must be visited"
        for name in self.must_not:
            if action[columns.index(name)]:
                yield f"{name} must not be visited"

    def describe(self) -> str:
        parts = [
            f"{len(names)} cells {word} be visited ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for word, names in (("must", self.must), ("must not", self.must_not))
            if names
        ]
        return " and ".join(parts)

    def check(self, columns: Columns) -> None:
        columns.indices((*self.must, *self.must_not))

    def monotone(self, columns: Columns) -> bool:
        return not self.must


def most_visits(actions: ActionSet, columns: VisitColumns) -> np.ndarray:
    """Visits that each arm can get in the period at most, by its open cells and frequencies, (N,)."""
    n_arms = len(columns.arms)
    open_cells = ~closed_cells(actions, columns)
    most = np.bincount(columns.arm[open_cells], minlength=n_arms).astype(float)
    for constraint in actions.constraints.values():
        if isinstance(constraint, Frequency):
            found = constraint.rows(columns)
            counted = np.zeros(n_arms)
            some = np.diff(found.matrix.indptr) > 0
            np.add.at(counted, columns.arm[found.matrix.indices[found.matrix.indptr[:-1][some]]], found.upper[some])
            outside = open_cells & (np.asarray(found.matrix.sum(axis=0)).ravel() == 0)
            most = np.minimum(most, counted + np.bincount(columns.arm[outside], minlength=n_arms))
    return most


class Gap(VisitRows, kind="gap"):
    """Visits of one arm are at least so many slots apart: of any ``slots`` neighbouring slots at most one is taken.

    Overlapping rows of one arm crossed by the slots' rows are no longer a program that its relaxation solves.
    """

    slots: int = Field(ge=2)
    """2: not in neighbouring slots."""

    def rows(self, columns: Columns) -> Rows:
        visits = visits_of(columns)
        starts = max(1, visits.n_slots - self.slots + 1)
        begin = visits.slot[:, None] - np.arange(self.slots)
        column, _ = np.nonzero((begin >= 0) & (begin < starts))
        first = begin[(begin >= 0) & (begin < starts)]
        keys, group = np.unique(visits.arm[column] * starts + first, return_inverse=True)
        names = [f"{visits.arms.ids[key // starts]} from slot {key % starts}" for key in keys.tolist()]
        return _rows(group, column, len(visits), -np.inf, 1.0, names)

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        visits = visits_of(columns)
        taken = np.flatnonzero(action)
        order = taken[np.lexsort((visits.slot[taken], visits.arm[taken]))]
        for one, two in pairwise(order.tolist()):
            if visits.arm[one] == visits.arm[two] and visits.slot[two] - visits.slot[one] < self.slots:
                name, pair = visits.arms.ids[int(visits.arm[one])], f"{visits.slot[one]} and {visits.slot[two]}"
                yield f"{name} is visited in slots {pair}, less than {self.slots} apart"

    def describe(self) -> str:
        return f"visits of an arm are at least {self.slots} slots apart"

    def check(self, columns: Columns) -> None:
        visits_of(columns)

    def monotone(self, columns: Columns) -> bool:
        return True


@register("columns", "visits")
def _visits(problem: Problem) -> VisitColumns:
    """One an arm and slot of a period."""
    n_slots = getattr(problem.dynamics, "n_slots", None)
    if n_slots is None:
        raise ModelError("columns: visits need arms with slots", "use dynamics of kind inspection, or its domain.")
    return VisitColumns(problem.arms, n_slots)
