"""What is due in the rest of a period, and the best plan that does it: first plan and re-plan are this one program.

Rows of all constraints with the past subtracted, a row for every promise, and the arms' walks. What cannot be done in
time is found first, by the fewest visits missing and the least delay; it is then planned at the next allowed slot, and
the rest is planned around it. Nothing that is due leaves the program without being named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import sparse

from rmab_opt.actions import ActionSet
from rmab_opt.actions.constraint import Constraint
from rmab_opt.errors import ModelError, SolverError
from rmab_opt.problem import Problem
from rmab_opt.settings.inspection.beliefs import earned, encoded_arms
from rmab_opt.settings.inspection.choose import Chosen, best_walks
from rmab_opt.settings.inspection.events import CalendarEvent, Happened, Promise
from rmab_opt.settings.inspection.kinds import Frequency, Gap, Rows, VisitColumns, VisitRows, Window, visits_of
from rmab_opt.settings.inspection.large import levelled
from rmab_opt.settings.inspection.plan import all_rows
from rmab_opt.settings.inspection.walks import Grid, Task
from rmab_opt.settings.inspection.weights import VisitWeights
from rmab_opt.solver import Profile, Program, Session, load_profile

__all__ = ["Asked", "Late", "Rest", "beginning", "open_cells", "plan_rest"]

MISSING = 1000.0
"""What a missing visit costs against a delay, which is at most one."""

TINY = 1e-6
"""Visits: below it a row is kept."""

SETTLED = 100_000
"""Cells up to which all arms may move to make room for what would be late."""

PROMISED = 20
"""Cells up to which a visit is asked for at a time, and not some time in the period."""

NO_SLOT = "no open slot is left in time"

SOON = 4
"""First open cells of what is late in which room is made for it."""

CALM = 1e-5
"""What staying put counts among plans of the same worth, as a share of what a visit gains."""

SAME = 1e-7
"""Share of the worth by which plans differ and are the same."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A question for a plan: where the calendar stands, what holds, what counts; slots before ``now`` are past.

    ``cells`` bool (N, T) are those that the model makes columns of.
    """

    at: Happened
    constraints: Mapping[str, Constraint]
    weights: VisitWeights
    cells: np.ndarray
    now: int

    @classmethod
    def first(
        cls, problem: Problem, actions: ActionSet, weights: VisitWeights, state: np.ndarray | None = None
    ) -> Asked:
        """For a first plan, nothing having happened."""
        return cls(beginning(problem, actions, state), actions.constraints, weights, open_cells(actions), 0)

    @property
    def done(self) -> np.ndarray:
        """Visits that took place, bool (N, T)."""
        done: np.ndarray = self.at.visits.copy()
        done[:, self.now :] = False
        return done


@dataclass(frozen=True)
class Late:
    """Something required that is not done in time: who, by when, when instead (None: not in this period), and the
    least change that would do it in time."""

    arm: str
    what: str
    by: int
    planned: int | None
    change: str


@dataclass(frozen=True, eq=False)
class Rest:
    """The plan of the rest, the past included in ``visits``; ``value`` what the period earns from its start.

    ``bound`` is what no plan of the same rest exceeds, whatever staying put was worth.
    """

    visits: np.ndarray
    value: float
    bound: float
    solved: Chosen
    columns: VisitColumns
    due: _Due
    late: tuple[Late, ...]


@dataclass(frozen=True, eq=False)
class _Due:
    """Rows over the columns for the slots still open, with whom each is about.

    ``allowed`` (C,) cells in time, ``spare`` (C,) cells for what is late. ``owner`` (R,) is the arm of a row about one
    arm, else -1; ``what`` its constraint, ``by`` the last slot it can be done in. ``most`` (N,) visits at most,
    ``apart`` slots from each other.
    """

    columns: VisitColumns
    rows: Rows
    allowed: np.ndarray
    spare: np.ndarray
    owner: np.ndarray
    what: tuple[str, ...]
    by: np.ndarray
    most: np.ndarray
    apart: int

    @cached_property
    def grid(self) -> Grid:
        """The cells."""
        return Grid(self.columns.arm, self.columns.slot, len(self.columns.arms), self.columns.n_slots)

    @cached_property
    def room(self) -> np.ndarray:
        """Visits in time that each row could still count, (R,)."""
        return np.asarray(self.rows.matrix @ self.allowed.astype(float))


def beginning(
    problem: Problem, actions: ActionSet, state: np.ndarray | None = None, closed: Sequence[int] = ()
) -> Happened:
    """Where a calendar stands before anything happened; in the slots ``closed`` nobody is visited.

    Raises
    ------
    ModelError
        When the state is not a period's start.
    """
    arms, columns = encoded_arms(problem.dynamics, "a calendar"), visits_of(actions.columns)
    begin = problem.start if state is None else problem.check_state(state)
    assert begin is not None
    begin = begin if begin.ndim == 1 else begin.argmax(axis=1)
    age, first, _ = arms.decode(begin)
    if (first != 0).any():
        raise ModelError("the state is not a period's start", "plan from slot 0; use replan() later.")
    none = np.zeros((len(columns.arms), columns.n_slots), dtype=bool)
    shut = none.copy()
    shut[:, list(closed)] = True
    return Happened(arms, columns.arms, age, none, None, shut, none[:, 0], none[:, 0])


def open_cells(actions: ActionSet) -> np.ndarray:
    """Cells that an action set makes columns of, bool (N, T)."""
    columns = visits_of(actions.columns)
    return columns.table(np.ones(len(columns), dtype=np.int64)) > 0


# ----------------------------------------------------------------------------------------------------------------- rows
def _due(asked: Asked, late: Mapping[int, tuple[int, int]]) -> _Due:
    """All that is due; ``late`` gives the arms that need cells after their time: (visits needed in all, after slot)."""
    at, done = asked.at, asked.done
    n_slots = done.shape[1]
    promised = np.zeros(done.shape, dtype=bool)
    for promise in at.promises:
        promised[promise.arm, promise.first : promise.last + 1] = True
    spare = np.zeros(done.shape, dtype=bool)
    for who, (_, after) in late.items():
        spare[who, max(asked.now, after + 1) :] = True
    cells = np.ones(done.shape, dtype=bool)
    cells[: len(asked.cells)] = asked.cells
    cells[at.moved] = True
    columns = VisitColumns(at.cohort, n_slots, cells | done | promised | spare)
    arm, slot = columns.arm, columns.slot
    window, forbidden = np.zeros(len(columns), dtype=bool), np.zeros(len(columns), dtype=bool)
    for constraint in asked.constraints.values():
        if isinstance(constraint, Window):
            window |= constraint.closed(columns)
        elif isinstance(constraint, VisitRows):
            forbidden |= constraint.closed(columns)
    window |= ~(cells | promised)[arm, slot]
    near = _near(done, _apart(asked.constraints))
    future = (slot >= asked.now) & ~at.shut[arm, slot] & ~forbidden & ~near[arm, slot]
    allowed = future & (~window | promised[arm, slot])
    parts = [
        _part(asked, columns, name, constraint, window)
        for name, constraint in asked.constraints.items()
        # Arcs keep visits of an arm apart: rows of a gap would be many, and say no more.
        if not isinstance(constraint, Window | Gap)
    ]
    parts.append(_promised(at.promises, done, columns, asked.now, at.gone))
    due = _joined(columns, parts, allowed, future & spare[arm, slot] & ~allowed, _apart(asked.constraints))
    return _lifted(asked, due, late, window)


def _near(done: np.ndarray, apart: int) -> np.ndarray:
    """Cells nearer than ``apart`` slots after a visit that took place, bool (N, T)."""
    near = np.zeros_like(done)
    for away in range(1, apart):
        near[:, away:] |= done[:, : done.shape[1] - away]
    return near


Part = tuple[Rows, np.ndarray, list[str], np.ndarray]


def _part(asked: Asked, columns: VisitColumns, name: str, constraint: Constraint, window: np.ndarray) -> Part:
    """(rows with the past subtracted, owners, name, last slot in time) of a constraint."""
    found = all_rows(ActionSet(columns, {name: constraint}))
    matrix = sparse.csr_array(found.matrix)
    used = matrix @ asked.done[columns.arm, columns.slot].astype(float)
    lower, upper = found.lower - used, np.maximum(found.upper - used, 0.0)
    names = [key.removeprefix(f"{name}[").removesuffix("]") for key in found.names]
    if isinstance(constraint, VisitRows) and constraint.capacities(columns):
        upper = _changed(upper, names, constraint, columns, asked.at.room)
        lower = np.minimum(lower, upper)
    owner = _owners(matrix, columns)
    lower = np.where((owner >= 0) & asked.at.gone[np.maximum(owner, 0)], np.minimum(lower, 0.0), lower)
    return Rows(matrix, lower, upper, names), owner, [name] * len(names), _last(matrix, columns, ~window)


def _changed(
    upper: np.ndarray, names: list[str], constraint: VisitRows, columns: VisitColumns, room: tuple[CalendarEvent, ...]
) -> np.ndarray:
    """Capacities after what changed them: rows are named ``slot 3`` or ``north slot 3``."""
    if not room:
        return upper
    upper = upper.copy()
    place = {name: row for row, name in enumerate(names)}
    for whom, t, change in constraint.changes(columns, room):
        row = place.get(f"{whom} slot {t}".strip())
        if row is not None:
            upper[row] = max(0.0, upper[row] + change)
    return upper


def _owners(matrix: sparse.csr_array, columns: VisitColumns) -> np.ndarray:
    """The arm that a row is about, -1 where it is about several or none."""
    owner = np.full(matrix.shape[0], -1, dtype=np.int64)
    some = np.diff(matrix.indptr) > 0
    if some.any():
        arms = columns.arm[matrix.indices]
        begin = matrix.indptr[:-1][some]
        low, high = np.minimum.reduceat(arms, begin), np.maximum.reduceat(arms, begin)
        owner[some] = np.where(low == high, low, -1)
    return owner


def _last(matrix: sparse.csr_array, columns: VisitColumns, usual: np.ndarray) -> np.ndarray:
    """Last slot in time of each row, (R,); -1 where it has none."""
    kept = sparse.csr_array(matrix @ sparse.diags_array((usual * (columns.slot + 1)).astype(float)))
    found = kept.max(axis=1).toarray().ravel() if kept.nnz else np.zeros(matrix.shape[0])
    return np.asarray(np.rint(found), dtype=np.int64) - 1


def _promised(
    promises: tuple[Promise, ...], done: np.ndarray, columns: VisitColumns, now: int, gone: np.ndarray
) -> Part:
    """A row for each promise that no visit since has kept."""
    open_ones = [p for p in dict.fromkeys(promises) if not done[p.arm, p.first :].any() and not gone[p.arm]]
    group, members = [], []
    for row, promise in enumerate(open_ones):
        inside = np.flatnonzero(
            (columns.arm == promise.arm) & (columns.slot >= max(promise.first, now)) & (columns.slot <= promise.last)
        )
        group += [row] * len(inside)
        members += inside.tolist()
    matrix = sparse.csr_array((np.ones(len(members)), (group, members)), shape=(len(open_ones), len(columns)))
    ones = np.ones(len(open_ones))
    rows = Rows(matrix, ones, np.full(len(ones), np.inf), [f"{p.arm} {p.first} {p.last}" for p in open_ones])
    owner = np.array([p.arm for p in open_ones], dtype=np.int64)
    return rows, owner, [p.why for p in open_ones], np.array([p.last for p in open_ones], dtype=np.int64)


def _joined(columns: VisitColumns, parts: list[Part], allowed: np.ndarray, spare: np.ndarray, apart: int) -> _Due:
    rows = Rows(
        sparse.csr_array(sparse.vstack([part[0].matrix for part in parts])),
        np.concatenate([part[0].lower for part in parts]),
        np.concatenate([part[0].upper for part in parts]),
        [name for part in parts for name in part[0].names],
    )
    what = tuple(name for part in parts for name in part[2])
    owner, by = np.concatenate([part[1] for part in parts]), np.concatenate([part[3] for part in parts])
    most = np.bincount(columns.arm[allowed | spare], minlength=len(columns.arms)).astype(float)
    return _Due(columns, rows, allowed, spare, owner, what, by, most, apart)


def _lifted(asked: Asked, due: _Due, late: Mapping[int, tuple[int, int]], window: np.ndarray) -> _Due:
    """What is promised or late may pass the usual number; then the most visits of each arm are known."""
    columns, what = due.columns, np.array(due.what, dtype=object)
    n_arms = len(columns.arms)
    owed = np.zeros(n_arms)
    extra = np.flatnonzero((due.owner >= 0) & ~np.isin(what, list(asked.constraints)))
    np.add.at(owed, due.owner[extra], due.rows.lower[extra])
    for arm, (visits, _) in late.items():
        owed[arm] = max(owed[arm], visits)
    upper, most = due.rows.upper.copy(), due.most
    for name, constraint in asked.constraints.items():
        mine = np.flatnonzero(what == name)
        if not isinstance(constraint, Frequency) or not mine.size:
            continue
        arms = due.owner[mine]
        upper[mine] = np.where(arms >= 0, np.maximum(upper[mine], owed[np.maximum(arms, 0)]), upper[mine])
        counted = np.zeros(n_arms)
        np.add.at(counted, arms[arms >= 0], upper[mine][arms >= 0])
        # Cells that the rows do not count may be taken beside.
        outside = (due.allowed | due.spare) & (np.asarray(due.rows.matrix[mine].sum(axis=0)).ravel() == 0)
        counted += np.bincount(columns.arm[outside], minlength=n_arms)
        most = np.minimum(most, counted)
    if late:
        group = {arm: row for row, arm in enumerate(late)}
        inside = np.flatnonzero((due.allowed | due.spare) & np.isin(columns.arm, list(late)))
        total = sparse.csr_array(
            (np.ones(len(inside)), ([group[a] for a in columns.arm[inside].tolist()], inside)),
            shape=(len(late), len(columns)),
        )
        rows = Rows(
            sparse.csr_array(sparse.vstack([due.rows.matrix, total])),
            np.concatenate([due.rows.lower, [float(visits) for visits, _ in late.values()]]),
            np.concatenate([upper, np.full(len(late), np.inf)]),
            [*due.rows.names, *("late" for _ in late)],
        )
        return replace(
            due, rows=rows, most=most, owner=np.append(due.owner, list(late)),
            what=(*due.what, *("late" for _ in late)),
            by=np.append(due.by, [after for _, after in late.values()]),
        )  # fmt: skip
    return replace(due, rows=replace(due.rows, upper=upper), most=most)


# -------------------------------------------------------------------------------------------------------- what is late
def _lacking(due: _Due, lack: np.ndarray, rules: Mapping[str, Constraint]) -> dict[int, tuple[int, int]]:
    """Arms that lack visits by their rows: visits needed in all, and the slot after which the late ones may come."""
    late: dict[int, tuple[int, int]] = {}
    what = np.array(due.what, dtype=object)
    by_rule = np.array([name in rules for name in due.what])
    for row in np.flatnonzero((lack > TINY) & (due.owner >= 0)).tolist():
        arm = int(due.owner[row])
        # One constraint's rows about an arm (its windows) are about different visits; two constraints' may be the same,
        # and so may two promises.
        same = (due.owner == arm) & (what == what[row]) & (by_rule[row] | (np.arange(len(what)) == row))
        total = int(np.ceil(np.maximum(due.rows.lower[same], 0.0).sum() - TINY))
        known = late.get(arm, (0, due.columns.n_slots))
        late[arm] = (max(known[0], total), min(known[1], int(due.by[row])))
    return late


def _least(
    due: _Due, usable: np.ndarray, cost: np.ndarray, slack: np.ndarray, lift: np.ndarray, profile: Profile
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Fewest missing visits (rows ``slack``) or fewest more of capacity (rows ``lift``), then the least cost.

    Returns (action over columns, missing by row, more by row), or None when even that does not help.
    """
    inside, n_rows = np.flatnonzero(usable), len(due.rows.lower)
    identity = sparse.eye_array(n_rows, format="csr")
    near = _near_rows(due.grid, inside, due.apart)
    matrix = sparse.csr_array(
        sparse.hstack([due.rows.matrix[:, inside], identity[:, slack], -identity[:, lift]], format="csr")
    )
    n, m = len(inside), len(slack) + len(lift)
    matrix = sparse.csr_array(
        sparse.vstack([matrix, sparse.hstack([near, sparse.csr_array((near.shape[0], m))])], format="csr")
    )
    none = np.full(near.shape[0], -np.inf)
    wide = np.concatenate([np.maximum(due.rows.lower[slack], 0.0), np.full(len(lift), float(max(1, n)))])
    program = Program(
        np.concatenate([cost[inside], np.full(m, MISSING)]),
        matrix,
        np.concatenate([due.rows.lower, none]),
        np.concatenate([due.rows.upper, np.ones(len(none))]),
        np.zeros(n + m),
        np.concatenate([np.ones(n), wide]),
        np.ones(n + m, dtype=bool),
        maximise=False,
    )
    result = Session.from_arrays(program, profile).solve()
    if result.x is None:
        return None
    x = np.rint(result.x)
    action, missing, more = np.zeros(len(usable)), np.zeros(n_rows), np.zeros(n_rows)
    action[inside], missing[slack], more[lift] = x[:n], x[n : n + len(slack)], x[n + len(slack) :]
    return action, missing, more


def _near_rows(grid: Grid, inside: np.ndarray, apart: int) -> sparse.csr_array:
    """Rows over some cells: of an arm's cells less than ``apart`` slots after one of them, at most one is taken."""
    group, members = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    place = np.full((grid.n_arms, grid.n_slots + apart), -1, dtype=np.int64)
    place[grid.arm[inside], grid.slot[inside]] = np.arange(len(inside))
    for away in range(1, apart):
        other = place[grid.arm[inside], grid.slot[inside] + away]
        group.append(np.flatnonzero(other >= 0))
        members.append(other[other >= 0])
    rows, column = np.concatenate(group), np.concatenate(members)
    first = np.unique(rows)
    rows, column = np.concatenate([rows, first]), np.concatenate([column, first])
    _, rows = np.unique(rows, return_inverse=True)
    return sparse.csr_array((np.ones(len(rows)), (rows, column)), shape=(len(first), len(inside)))


def _before(asked: Asked, due: _Due) -> np.ndarray:
    """A weight for each cell of the plan before, all of them less than one together, (C,)."""
    planned = asked.at.planned
    if planned is None:
        return np.zeros(len(due.columns))
    held = planned[due.columns.arm, due.columns.slot] & (due.columns.slot >= asked.now)
    return np.asarray(held / (1.0 + held.sum()))


def _settle(asked: Asked, due: _Due, profile: Profile) -> tuple[_Due, np.ndarray, tuple[Late, ...]]:
    """The rest with what cannot be in time set to its next slot: (what is due, cells that are fixed, who is late).

    In large plans the others' visits stay where they are while this is found.
    """
    required, movable = np.flatnonzero(due.rows.lower > TINY), _movable(asked, due)
    lift = np.flatnonzero((due.owner < 0) & np.isfinite(due.rows.upper))
    nothing = np.zeros(len(due.columns))
    # The least change that would do all in time, where that has open cells at all.
    reachable = replace(due, rows=replace(due.rows, lower=np.minimum(due.rows.lower, due.room)))
    change = _least(reachable, due.allowed & movable, nothing, required[:0], lift, profile)
    words = _words(due, None if change is None else change[2])
    # Among the fewest that are missing, those that the plan before was without: who is late does not change by itself.
    first = _least(due, due.allowed & movable, -_before(asked, due), required, required[:0], profile)
    if first is None:
        raise SolverError("no plan was found for what is due", "relax a constraint that has nothing to do with arms.")
    lack = np.maximum(first[1], due.rows.lower - due.room)
    late = _lacking(due, lack, asked.constraints)
    again = _due(asked, late)
    # In time as far as was found possible; the late ones' own row asks for the rest of their visits.
    given_up = {(due.what[row], due.rows.names[row]): first[1][row] for row in np.flatnonzero(first[1] > TINY).tolist()}
    lower = again.rows.lower - np.array(
        [given_up.get(key, 0.0) for key in zip(again.what, again.rows.names, strict=True)]
    )
    again = replace(again, rows=replace(again.rows, lower=lower))
    required, movable = np.flatnonzero(lower > TINY), _movable(asked, again)
    slot, arm = again.columns.slot, again.columns.arm
    tardy = np.isin(arm, list(late))
    delay = np.where(tardy, (slot - asked.now + 1) / (again.columns.n_slots + 1), 0.0)
    cost = delay - _before(asked, again) / (again.columns.n_slots + 2)
    second = _least(again, (again.allowed | again.spare) & movable, cost, required, required[:0], profile)
    if second is None:
        raise SolverError("no plan was found for what is due", "relax a constraint that has nothing to do with arms.")
    again = replace(again, rows=replace(again.rows, lower=lower - second[1]))
    again, fixed, found = _named(due, again, late, lack, second, words)
    return again, fixed, tuple(_too_soon(entry, asked, due.apart) for entry in found)


def _too_soon(entry: Late, asked: Asked, apart: int) -> Late:
    """What is late for want of an open slot, with the reason where a visit has just taken place."""
    if entry.change != NO_SLOT or entry.arm not in asked.at.cohort:
        return entry
    past = np.flatnonzero(asked.done[asked.at.cohort.index(entry.arm), : entry.by + 1])
    if not past.size or entry.by - past[-1] >= apart:
        return entry
    return replace(entry, change=f"{NO_SLOT}: its last visit was less than {apart} slots before")


def _named(
    due: _Due, again: _Due, late: Mapping[int, tuple[int, int]], lack: np.ndarray,
    second: tuple[np.ndarray, np.ndarray, np.ndarray], words: str,
) -> tuple[_Due, np.ndarray, tuple[Late, ...]]:  # fmt: skip
    """Who is late with what, and the late ones' cells."""
    fixed, found = np.zeros(len(again.columns), dtype=bool), []
    for arm in late:
        rows = np.flatnonzero((due.owner == arm) & (lack > TINY))
        row = int(rows[np.argmin(due.by[rows])])
        mine = np.flatnonzero((again.columns.arm == arm) & (second[0] > 0.5))
        tardy = mine[again.spare[mine] | (again.columns.slot[mine] > due.by[row])]
        count = round(max(float(lack[rows].max()), 1.0))
        cells = tardy[np.argsort(again.columns.slot[tardy])][:count]
        fixed[cells] = True
        structural = due.room[row] < due.rows.lower[row] - TINY
        change = NO_SLOT if structural else words
        for k in range(count):
            when = int(again.columns.slot[cells[k]]) if k < len(cells) else None
            found.append(Late(again.columns.arms.ids[arm], due.what[row], int(due.by[row]), when, change))
    for row in np.flatnonzero((due.owner < 0) & (lack > TINY)).tolist():
        found.append(Late("", f"{due.what[row]} {due.rows.names[row]}".strip(), int(due.by[row]), None, words))
    return again, fixed, tuple(found)


def _dated(late: tuple[Late, ...], visits: np.ndarray, asked: Asked) -> tuple[Late, ...]:
    """What is late with the slots in which the plan does it: of an arm's visits after their time, one each."""
    found, used = [], dict[str, int]()
    for entry in late:
        if entry.planned is not None:
            row = visits[asked.at.cohort.index(entry.arm)]
            after = np.flatnonzero(row[max(asked.now, entry.by + 1) :]) + max(asked.now, entry.by + 1)
            number = used.get(entry.arm, 0)
            used[entry.arm] = number + 1
            entry = replace(entry, planned=int(after[number]) if number < len(after) else None)
        found.append(entry)
    return tuple(found)


def _words(due: _Due, more: np.ndarray | None) -> str:
    if more is None or not (more > 0.5).any():
        return "no change of capacity alone would do it"
    rows = np.flatnonzero(more > 0.5).tolist()
    said = [f"{int(more[r])} more in {due.rows.names[r]} ({due.what[r]})" for r in rows[:6]]
    return ", ".join(said) + (", ..." if len(rows) > 6 else "")


# ------------------------------------------------------------------------------------------------------------- planning
def plan_rest(
    asked: Asked, profile: str | Path | Profile = "default", *, stay: float = 0.0, strict: bool = False
) -> Rest | None:
    """The best plan from ``asked.now`` on that does all that is due, or names what it cannot do.

    Parameters
    ----------
    stay
        What a visit must gain to be moved; a preference of the choice alone, no part of value and bound.
    strict
        Whether None is returned where something cannot be done in time.
    """
    profile = load_profile(profile)
    due, fixed = _due(asked, {}), None
    late: tuple[Late, ...] = ()
    solved = None
    if (due.rows.lower <= due.room + TINY).all():
        solved = _choose(asked, due, None, profile, stay)
    if solved is None:
        if strict:
            return None
        # Ties are broken by small numbers, so the gaps of a quick profile would not do.
        due, fixed, late = _settle(asked, due, load_profile("exact"))
        solved = _choose(asked, due, fixed, profile, stay)
        if solved is None:
            raise SolverError("the rest could not be planned around what is late", "give the profile more time.")
    chosen, limit, result = solved
    done, at = asked.done, asked.at
    visits = done.copy()
    visits[due.columns.arm[chosen], due.columns.slot[chosen]] = True
    late = _dated(late, visits, asked)
    beyond = np.zeros((len(visits), asked.weights.beyond), dtype=bool)
    value = earned(at.arms, at.age, np.concatenate([visits, beyond], axis=1))
    base = earned(at.arms, at.age, np.concatenate([done, beyond], axis=1))
    return Rest(visits, value, max(value, base + limit), result, due.columns, due, late)


def _choose(
    asked: Asked, due: _Due, fixed: np.ndarray | None, profile: Profile, stay: float
) -> tuple[np.ndarray, float, Chosen] | None:
    """(cells chosen, what no plan's gain exceeds, how it was solved); None when the rows clash."""
    columns, at, now = due.columns, asked.at, asked.now
    usable = due.allowed if fixed is None else due.allowed | fixed
    rows = due.rows if fixed is None else _with_fixed(due.rows, np.flatnonzero(fixed))
    age = at.age.copy()
    for taken in asked.done[:, :now].T:
        age = np.where(taken, 0, age + 1)
    task = Task(
        due.grid, rows, usable, due.most, at.arms.chains, age, now, asked.weights.beyond, _apart(asked.constraints)
    )
    planned, weighed = np.zeros(len(columns), dtype=bool), task
    if asked.weights.kind == "index":
        weighed = replace(task, table=asked.weights.table(at.arms, at.arms.encode(age, now))[columns.arm, columns.slot])
    if at.planned is not None:
        planned = at.planned[columns.arm, columns.slot] & (columns.slot >= now)
    if stay != 0 and planned.any():
        weighed = replace(weighed, liking=stay * planned)
    begin, prices = _known(asked, due, rows, planned)
    solved = best_walks(weighed, profile, begin=begin, prices=prices)
    if solved is None:
        return None
    if at.news and planned.any() and not solved.sifted:
        solved = _calm(weighed, solved, planned, profile)
    # What the choice preferred is no part of what is proven.
    true = solved if weighed is task else best_walks(task, profile, begin=begin, prices=prices)
    limit = np.inf if true is None else true.bound
    if solved.duals is not None:
        solved = replace(solved, duals=solved.duals[: len(due.rows.lower)])
    if at.planned is None and not solved.sifted:
        solved = replace(solved, cells=levelled(weighed, solved.cells))
    return _kept(asked, due, weighed, solved, planned, fixed), limit, solved


def _calm(task: Task, solved: Chosen, planned: np.ndarray, profile: Profile) -> Chosen:
    """Of walks that are worth the same those nearest to the plan before, bool (C,); the ones solved where none are."""
    held = np.flatnonzero(planned & task.allowed)
    if not (planned & ~np.isin(np.arange(len(planned)), solved.cells)).any() or not held.size:
        return solved
    dearest = float(np.abs(task.weights(held, np.full(len(held), -1))).max())
    liked = (0.0 if task.liking is None else task.liking) + CALM * max(dearest, TINY) * planned
    calm = best_walks(replace(task, liking=liked), profile)
    worth = None if calm is None else task.worth(calm.cells)
    if calm is None or worth is None or worth < solved.value - SAME * max(1.0, abs(solved.value)):
        return solved
    return replace(solved, cells=calm.cells, value=worth, seconds=solved.seconds + calm.seconds)


def _with_fixed(rows: Rows, must: np.ndarray) -> Rows:
    """The rows, and one for each cell that is fixed."""
    one = sparse.csr_array((np.ones(len(must)), (np.arange(len(must)), must)), shape=(len(must), rows.matrix.shape[1]))
    return Rows(
        sparse.csr_array(sparse.vstack([rows.matrix, one])), np.concatenate([rows.lower, np.ones(len(must))]),
        np.concatenate([rows.upper, np.ones(len(must))]), [*rows.names, *("late" for _ in must)],
    )  # fmt: skip


def _apart(constraints: Mapping[str, Constraint]) -> int:
    """Slots between two visits of an arm at least."""
    return max([1, *(c.slots for c in constraints.values() if isinstance(c, Gap))])


def _known(asked: Asked, due: _Due, rows: Rows, planned: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(cells that stay, prices of the rows) as far as the plan before tells them."""
    at = asked.at
    if not planned.any():
        return None, None
    price = np.zeros(len(rows.lower))
    common = np.flatnonzero(due.owner < 0)
    price[common] = [at.prices.get(f"{due.what[row]} {due.rows.names[row]}", 0.0) for row in common.tolist()]
    held = planned & due.allowed
    return held & ~_disturbed(asked, due, rows, planned)[due.columns.arm], price


def _disturbed(asked: Asked, due: _Due, rows: Rows, planned: np.ndarray) -> np.ndarray:
    """Arms that the plan before does not suit any more and that choose again, bool (N,); the others stay."""
    held, at = planned & due.allowed, asked.at
    counts = rows.matrix @ held.astype(float)
    owner = np.concatenate([due.owner, np.full(len(rows.lower) - len(due.owner), -1)])
    moved = np.zeros(len(due.most), dtype=bool)
    moved[owner[((counts < rows.lower - TINY) | (counts > rows.upper + TINY)) & (owner >= 0)]] = True
    moved[due.columns.arm[planned & ~due.allowed]] = True
    moved[[at.cohort.index(e.arm) for e in at.news if e.arm in at.cohort]] = True
    for row in np.flatnonzero((owner < 0) & (counts > rows.upper + TINY)).tolist():
        inside = rows.matrix.indices[rows.matrix.indptr[row] : rows.matrix.indptr[row + 1]]
        staying = [c for c in inside.tolist() if held[c] and not moved[due.columns.arm[c]]]
        moved[due.columns.arm[staying[max(0, int(rows.upper[row])) :]]] = True
    return moved


def _movable(asked: Asked, due: _Due) -> np.ndarray:
    """Cells among which what is late is looked for, bool (C,): all; of a large plan those that are planned, those of
    arms that it does not suit any more, and open ones of the arms that sit where one of these must be visited."""
    if asked.at.planned is None or len(due.columns) <= SETTLED:
        return np.ones(len(due.columns), dtype=bool)
    columns, rows = due.columns, due.rows
    planned = asked.at.planned[columns.arm, columns.slot] & (columns.slot >= asked.now)
    counts = rows.matrix @ (planned & due.allowed).astype(float)
    full = (due.owner < 0) & (counts > rows.upper - 1.0 + TINY)
    size = np.diff(rows.matrix.indptr)
    lacking = (due.owner >= 0) & (counts < rows.lower - TINY) & (size <= PROMISED)
    asked_for = (rows.matrix.T @ lacking.astype(float) > 0) & due.allowed
    asked_for |= _soonest(due)
    crowded = full & (rows.matrix @ asked_for.astype(float) > 0)
    sitting = np.zeros(len(due.most), dtype=bool)
    sitting[columns.arm[(rows.matrix.T @ crowded.astype(float) > 0) & planned]] = True
    free = rows.matrix.T @ full.astype(float) <= 0
    found: np.ndarray = planned | _disturbed(asked, due, rows, planned)[columns.arm] | (sitting[columns.arm] & free)
    return found


def _soonest(due: _Due) -> np.ndarray:
    """The first open cells of the arms with something late, bool (C,): there room is made for it."""
    arm, slot = due.columns.arm, due.columns.slot
    late = due.owner[np.array([what == "late" for what in due.what], dtype=bool)]
    mine = np.flatnonzero((due.allowed | due.spare) & np.isin(arm, late))
    mine = mine[np.lexsort((slot[mine], arm[mine]))]
    number = np.arange(len(mine)) - np.searchsorted(arm[mine], arm[mine])
    found = np.zeros(len(due.columns), dtype=bool)
    found[mine[number < SOON]] = True
    return found


def _kept(
    asked: Asked, due: _Due, task: Task, solved: Chosen, planned: np.ndarray, fixed: np.ndarray | None
) -> np.ndarray:
    """The plan before, where it still does all that is due and nothing new happened, or it is worth as much."""
    if asked.at.planned is None:
        return solved.cells
    held = asked.at.planned[:, asked.now :].sum() == (planned & (due.allowed | due.spare)).sum()
    counts = due.rows.matrix @ planned.astype(float)
    if not held or (counts > due.rows.upper + TINY).any():
        return solved.cells
    cells = np.flatnonzero(planned)
    if not asked.at.news:
        return cells
    if (counts < due.rows.lower - TINY).any() or (fixed is not None and (fixed & ~planned).any()):
        return solved.cells
    same = task.worth(cells)
    return cells if same is not None and same >= solved.value - 1e-9 * max(1.0, abs(solved.value)) else solved.cells
