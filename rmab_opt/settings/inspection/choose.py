"""The best walks of a task: the whole linear program where it is small, else arms one by one at prices.

Over a year of days an arm has thousands of walks and uses one. There the rows in common get prices; at any prices one
longest walk an arm bounds what *all* walks can earn, and arms that choose one by one at good prices come near it. Where
that is not near enough, linear programs over the cells that prices ask for follow. What a linear program splits is
chosen again in whole numbers beside the arms that it did not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
from scipy import sparse

from rmab_opt.errors import SolverError
from rmab_opt.settings.inspection.kinds import Rows
from rmab_opt.settings.inspection.large import asking, corrected, improve, in_common, seated, type_prices
from rmab_opt.settings.inspection.plan import WHOLE, WHOLE_FLOW, two_sided
from rmab_opt.settings.inspection.walks import Task, Walks
from rmab_opt.solver import Profile, Program, Session, load_profile

__all__ = ["Chosen", "best_walks"]

WHOLE_ARCS = 300_000
"""Arcs up to which all of them stand in one program."""

TRIED = 50_000
"""Arcs from which on prices are tried before the program of all of them."""

SETTLED = 1e-6
"""Gap, as a share of what the visits earn, at which that is the answer."""

ROUNDS = 8
"""Times that cells are added at most; the bound says what was left."""

ENOUGH = 4e-3
"""Gap, as a share of what the visits of a large plan earn, that no program over its cells is asked to close."""

NEAR = 1e-3
"""The same share at which arms no longer choose again in a first plan."""

STALLED = 2e-5
"""What all arms' choosing again must gain at least, as such a share, to be done once more."""

AGAIN = 12
"""Times that all arms choose again at most."""

CORRECTED = 4
"""Steps of the prices at which all arms take part, after types of arms found them."""

TINY = 1e-6


@dataclass(frozen=True, eq=False)
class Chosen:
    """Walks, rising ``cells`` (V,) of the task, what they weigh, and what no walks exceed.

    ``duals`` (R,) are prices of the rows over cells, where a linear program gave them; ``fractional`` counts arms that
    it split, ``arcs`` is its size, ``path`` and ``reason`` say how whole walks were found; ``sifted`` whether cells
    were left out of it.
    """

    cells: np.ndarray
    value: float
    bound: float
    duals: np.ndarray | None
    path: str
    reason: str
    seconds: float
    fractional: int
    arcs: int
    sifted: bool = False


@dataclass(frozen=True, eq=False)
class _Solved:
    """A linear program over some cells: its arcs, their flow, prices of the rows and what is missing of the rows."""

    walks: Walks
    weight: np.ndarray
    flow: np.ndarray
    duals: np.ndarray
    value: float
    lacking: float
    seconds: float


def count_arcs(task: Task, active: np.ndarray) -> int:
    """Arcs over some cells, before near ones are left out."""
    own = np.bincount(task.grid.arm[active], minlength=task.grid.n_arms)
    return int(np.where(task.most > 1, own * (own + 1) // 2, own).sum())


def best_walks(
    task: Task, profile: str | Path | Profile = "default", *, begin: np.ndarray | None = None,
    prices: np.ndarray | None = None,
) -> Chosen | None:  # fmt: skip
    """The best walks, or None where the rows clash.

    Parameters
    ----------
    begin
        Cells to begin with, bool (C,), as a plan before; for tasks too large for one program.
    prices
        Of the rows, from a plan before: they bound the new one, however old they are.

    Raises
    ------
    SolverError
        When the solver found nothing within its limits.
    """
    profile = load_profile(profile)
    if (task.rows.lower > np.asarray(task.rows.matrix @ task.allowed.astype(float)) + TINY).any():
        return None
    if not task.allowed.any():
        return Chosen(np.zeros(0, dtype=np.int64), 0.0, 0.0, None, "linear", "no open cell is left", 0.0, 0, 0)
    arcs = count_arcs(task, task.allowed)
    if arcs > WHOLE_ARCS:
        return _by_prices(task, profile, begin, prices)
    if arcs > TRIED:
        # Where dates hardly matter all walks are worth the same: prices prove that at once, a program takes minutes.
        quick, fine = _at_prices(task, begin, prices)
        if fine and quick.bound - quick.value <= SETTLED * abs(quick.bound):
            return quick
    return _whole(task, profile)


def _whole(task: Task, profile: Profile) -> Chosen | None:
    """By one program over all walks."""
    walks = Walks.over(task, task.allowed)
    flows = bool(walks.flow.names)
    rows = _filled(walks.rows(task.rows))
    structure = None if flows else two_sided(rows[0].matrix, rows[0].lower, rows[0].upper)
    if structure is not None and not structure.exact:
        return _integer(task, walks, profile, structure.reason, np.inf, None, 0.0, 0)
    solved = _linear(task, walks, profile, elastic=False)
    if solved is None:
        return None
    bound, _ = task.priced(solved.duals[: len(task.rows.lower)])
    # The program's own value may be below: more is known of each arm in it than the longest walks know.
    bound = min(bound, _weak(task, walks, solved))
    reason = WHOLE_FLOW if structure is None else structure.reason
    return _rounded(task, task.allowed, solved, bound, profile, reason)


def _filled(rows: Rows) -> tuple[Rows, np.ndarray]:
    """The rows that count anything, and which those are."""
    some = np.diff(rows.matrix.indptr) > 0
    return Rows(sparse.csr_array(rows.matrix[some]), rows.lower[some], rows.upper[some], []), some


def _linear(task: Task, walks: Walks, profile: Profile, *, elastic: bool) -> _Solved | None:
    """The linear program over some arcs; ``elastic`` lets lower limits be missed at a cost that no visit is worth."""
    whole = walks.rows(task.rows)
    rows, some = _filled(whole)
    if (whole.lower[~some] > TINY).any() and not elastic:
        return None
    weight = task.weights(walks.cell, walks.before)
    n, matrix = len(weight), rows.matrix
    cost, upper, short = weight, np.ones(n), np.zeros(0, dtype=np.int64)
    lacking_before = float(np.maximum(whole.lower[~some], 0.0).sum())
    if elastic:
        short = np.flatnonzero(rows.lower > TINY)
        slack = sparse.csr_array(
            (np.ones(len(short)), (short, np.arange(len(short)))), shape=(len(rows.lower), len(short))
        )
        matrix = sparse.csr_array(sparse.hstack([matrix, slack], format="csr"))
        dear = 10.0 * (1.0 + float(np.abs(weight).max(initial=0.0)))
        cost = np.concatenate([weight, np.full(len(short), -dear)])
        upper = np.concatenate([upper, rows.lower[short]])
    total = len(cost)
    program = Program(
        cost, matrix, rows.lower, rows.upper, np.zeros(total), upper, np.zeros(total, dtype=bool), maximise=True
    )
    result = Session.from_arrays(program, profile).solve()
    if result.status in ("infeasible", "infeasible_or_unbounded"):
        return None
    if result.x is None or result.row_duals is None:
        raise SolverError(f"no plan was found: {result.status}", "give the profile more time.")
    duals = np.zeros(len(some))
    duals[some] = result.row_duals
    lacking = lacking_before + float(result.x[n:].sum())
    return _Solved(walks, weight, result.x[:n], duals, float(cost @ result.x), lacking, result.seconds)


def _weak(task: Task, walks: Walks, solved: _Solved) -> float:
    """Weak duality over all arcs: any prices bound the program, whatever the solver did to find them."""
    rows = walks.rows(task.rows)
    price = np.where((solved.duals > 0) & np.isinf(rows.upper), 0.0, solved.duals)
    price = np.where((price < 0) & np.isinf(rows.lower), 0.0, price)
    limit = np.where(price > 0, rows.upper, rows.lower)
    paid = float((price[price != 0] * limit[price != 0]).sum())
    return paid + float(np.maximum(0.0, solved.weight - rows.matrix.T @ price).sum())


# ------------------------------------------------------------------------------ prices, and arms one by one
def _missing(task: Task, cells: np.ndarray) -> float:
    """Visits that rows lack or have too many."""
    taken = np.zeros(len(task.grid))
    taken[cells] = 1.0
    counts = task.rows.matrix @ taken
    return float(np.maximum(task.rows.lower - counts, 0.0).sum() + np.maximum(counts - task.rows.upper, 0.0).sum())


def _at_prices(task: Task, begin: np.ndarray | None, prices: np.ndarray | None) -> tuple[Chosen, bool]:
    """Prices of the rows in common, then arms one by one at them; with it whether all rows hold."""
    clock, common = perf_counter(), in_common(task)
    if prices is None:
        price, held = asking(task, type_prices(task, common)), np.zeros(0, dtype=np.int64)
        seats = seated(task, price, held)
        price, bound = corrected(task, common, price, max(0.0, _worth(task, seats.cells)), CORRECTED)
    else:
        price = asking(task, prices)
        held = np.zeros(0, dtype=np.int64) if begin is None else np.flatnonzero(begin & task.allowed)
        seats, (bound, _) = seated(task, price, held), task.priced(price)
        if bound - _worth(task, seats.cells) > ENOUGH * abs(bound):
            # Prices of a plan before prove less and less: a better proof moves nobody.
            fresh = asking(task, type_prices(task, common, price))
            tighter, _ = task.priced(fresh)
            price, bound = (fresh, tighter) if tighter < bound else (price, bound)
    near = ENOUGH if len(held) else NEAR
    rng = np.random.default_rng(0)
    for _ in range(AGAIN):
        if _missing(task, seats.cells) <= TINY and bound - _worth(task, seats.cells) <= near * abs(bound):
            break
        if improve(seats, price, rng) <= STALLED * abs(bound):
            break
    cells = seats.cells
    reason = "arms one by one at prices of the rows in common"
    found = Chosen(cells, _worth(task, cells), bound, price, "priced", reason, perf_counter() - clock, 0,
                   len(task.grid), True)  # fmt: skip
    return found, _missing(task, cells) <= TINY


def _by_prices(task: Task, profile: Profile, begin: np.ndarray | None, prices: np.ndarray | None) -> Chosen | None:
    """Arms one by one at prices; the program over cells where that is not enough."""
    plain, fine = _at_prices(task, begin, prices)
    if fine and plain.bound - plain.value <= ENOUGH * abs(plain.bound):
        return plain
    price, bound, cells = plain.duals, plain.bound, plain.cells
    assert price is not None
    active = np.zeros(len(task.grid), dtype=bool)
    active[cells] = True
    active = _beside(task, active | task.priced(price)[1], 1)
    if fine and count_arcs(task, active) > WHOLE_ARCS > 0:
        # The bound says what is open; programs of this size would not close it in time.
        return plain
    found = _sifted(task, profile, active, bound)
    better = found is not None and (not fine or found.value > plain.value)
    return found if better else plain if fine else None


def _beside(task: Task, cells: np.ndarray, reach: int) -> np.ndarray:
    """Allowed cells of the same arm up to some slots away from some cells, bool (C,)."""
    place = task.grid.place
    table = np.zeros(place.shape, dtype=bool)
    chosen = np.flatnonzero(cells)
    for away in range(-reach, reach + 1):
        slot = task.grid.slot[chosen] + away
        fine = (slot >= 0) & (slot < task.grid.n_slots)
        table[task.grid.arm[chosen[fine]], slot[fine]] = True
    return table[task.grid.arm, task.grid.slot] & task.allowed


def _sifted(task: Task, profile: Profile, active: np.ndarray, bound: float) -> Chosen | None:
    """By linear programs over more and more cells."""
    seconds, solved = 0.0, None
    for _ in range(ROUNDS):
        solved = _linear(task, Walks.over(task, active), profile, elastic=True)
        assert solved is not None
        seconds += solved.seconds
        limit, asked = task.priced(solved.duals[: len(task.rows.lower)])
        bound = min(bound, limit)
        if solved.lacking <= TINY and bound - solved.value <= ENOUGH / 2 * abs(bound):
            break
        more = _beside(task, asked, 1) & ~active
        if not more.any():
            break
        active = active | more
    assert solved is not None
    if solved.lacking > TINY:
        return None
    found = _rounded(task, active, solved, bound, profile, "the linear program over the cells that its prices ask for")
    return None if found is None else replace(found, seconds=seconds, sifted=True)


# ------------------------------------------------------------------------------------------------------- whole numbers
def _rounded(
    task: Task, active: np.ndarray, solved: _Solved, bound: float, profile: Profile, reason: str
) -> Chosen | None:
    """Whole walks: those of the linear program, and beside them new ones for the arms that it split."""
    walks, grid = solved.walks, task.grid
    split = np.zeros(grid.n_arms, dtype=bool)
    split[grid.arm[walks.cell[np.abs(solved.flow - np.rint(solved.flow)) > WHOLE]]] = True
    taken = walks.cell[(solved.flow > 0.5) & ~split[grid.arm[walks.cell]]]
    duals, arcs = solved.duals[: len(task.rows.lower)], len(walks.cell)
    if not split.any():
        cells = np.sort(taken)
        return Chosen(cells, _worth(task, cells), bound, duals, "linear", reason, solved.seconds, 0, arcs)
    count, small = int(split.sum()), active is task.allowed
    reason = f"{count} arms were split by the linear program"
    free, rng = split.copy(), np.random.default_rng(0)
    while True:
        beside = _beside_others(task, active, taken[~free[grid.arm[taken]]], free, profile)
        near = profile.relative_gap * max(1.0, abs(bound))
        if beside is not None and (not small or bound - _worth(task, beside) <= near):
            return Chosen(
                beside, _worth(task, beside), bound, duals, "mixed-integer", reason, solved.seconds, count, arcs
            )
        if small:
            return _integer(task, walks, profile, reason, bound, duals, solved.seconds, count)
        if free.all():
            raise SolverError("no whole plan was found", "give the profile more time.")
        # The split arms do not fit beside the others: free ten times as many.
        free |= rng.random(grid.n_arms) < 10 * free.mean()


def _worth(task: Task, cells: np.ndarray) -> float:
    found = task.worth(cells)
    return -np.inf if found is None else found


def _beside_others(
    task: Task, active: np.ndarray, taken: np.ndarray, free: np.ndarray, profile: Profile
) -> np.ndarray | None:
    """Cells of all arms when those of some are fixed and the others are chosen in whole numbers; None if they clash."""
    fixed = np.zeros(len(task.grid))
    fixed[taken] = 1.0
    used = np.asarray(task.rows.matrix @ fixed)
    rest = replace(
        task, allowed=active & free[task.grid.arm],
        rows=Rows(task.rows.matrix, task.rows.lower - used, task.rows.upper - used, task.rows.names),
    )  # fmt: skip
    found = _integer(rest, Walks.over(rest, rest.allowed), profile, "", np.inf, None, 0.0, 0)
    return None if found is None else np.sort(np.concatenate([taken, found.cells]))


def _integer(
    task: Task, walks: Walks, profile: Profile, reason: str, bound: float, duals: np.ndarray | None, seconds: float,
    fractional: int,
) -> Chosen | None:  # fmt: skip
    """By declaring the arcs whole."""
    whole = walks.rows(task.rows)
    rows, some = _filled(whole)
    if (whole.lower[~some] > TINY).any() or (whole.upper[~some] < -TINY).any():
        return None
    weight = task.weights(walks.cell, walks.before)
    n = len(weight)
    program = Program(
        weight, rows.matrix, rows.lower, rows.upper, np.zeros(n), np.ones(n), np.ones(n, dtype=bool), maximise=True
    )
    result = Session.from_arrays(program, profile).solve()
    if result.status in ("infeasible", "infeasible_or_unbounded"):
        return None
    if result.x is None:
        raise SolverError(f"no plan was found: {result.status}", "give the profile more time.")
    bound = min(bound, np.inf if result.bound is None else result.bound)
    cells = np.sort(walks.cell[result.x > 0.5])
    return Chosen(
        cells, _worth(task, cells), bound, duals, "mixed-integer", reason, seconds + result.seconds, fractional, n
    )
