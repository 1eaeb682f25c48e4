"""A visit plan for one period: linear where its rows allow it, mixed-integer where not, and why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from rmab_opt.actions import ActionSet
from rmab_opt.actions.constraint import Constraint
from rmab_opt.errors import CapabilityError, CertificateError, InfeasibleError, ModelError, SolverError
from rmab_opt.settings.inspection.kinds import Rows, VisitColumns, VisitRows, closed_cells, visits_of
from rmab_opt.solver import Profile, Program, Session, load_profile

__all__ = [
    "Shortage",
    "Structure",
    "VisitPlan",
    "all_rows",
    "clash_of",
    "plan_visits",
    "shortage",
    "slot_price",
    "solve_rows",
    "two_sided",
]

WHOLE = 1e-6
"""How far an entry of a linear program's vertex may be from a whole number: the solver's feasibility tolerance."""

WHOLE_FLOW = "the linear program of the arms' walks has a whole solution"

EXPLAINED = 5_000
"""Columns up to which a clash that is no lack of capacity is explained through the general program."""


@dataclass(frozen=True)
class Structure:
    """Whether the linear relaxation's vertices are whole numbers, and why."""

    exact: bool
    reason: str


def two_sided(matrix: sparse.csr_array, lower: np.ndarray, upper: np.ndarray) -> Structure:
    """Whether rows fall into two families, in each of which any two are nested or disjoint.

    Such a 0/1 matrix is totally unimodular (each family is a tree, together a network), so every vertex of
    lower <= matrix @ x <= upper with whole limits and 0 <= x <= 1 is whole. The test draws an edge between rows that
    overlap without being nested and asks whether two colours suffice. A "no" does not mean that it is not
    totally unimodular, only that this proof is not there.

    References
    ----------
    Edmonds (1970), intersections of laminar families; Hoffman, Kruskal (1956).
    """
    matrix = sparse.csr_array(matrix)
    matrix.eliminate_zeros()
    size = np.diff(matrix.indptr)
    first = np.ones(len(size))
    some = size > 0
    first[some] = matrix.data[matrix.indptr[:-1][some]]
    if (matrix.data != np.repeat(first, size)).any():
        return Structure(False, "a row weighs its visits unequally")
    limits = np.concatenate([lower[some] / first[some], upper[some] / first[some]])
    limits = limits[np.isfinite(limits)]
    if (limits != np.rint(limits)).any():
        return Structure(False, "a limit is not a whole number")
    pattern = sparse.csr_array((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)
    shared = sparse.coo_array(pattern @ pattern.T)
    one, two = shared.coords
    crossing = shared.data < np.minimum(size[one], size[two])
    n = len(size)
    # A graph takes two colours exactly when no vertex meets its own copy in the graph's double cover.
    ends = (np.concatenate([one[crossing], one[crossing] + n]), np.concatenate([two[crossing] + n, two[crossing]]))
    cover = sparse.csr_array((np.ones(len(ends[0])), ends), shape=(2 * n, 2 * n))
    _, part = csgraph.connected_components(cover, directed=False)
    if (part[:n] == part[n:]).any():
        return Structure(False, "rows overlap on more than two sides")
    return Structure(True, "rows are nested on two sides")


@dataclass(frozen=True)
class Shortage:
    """An interval of slots that must hold more visits than it can: the proof that there is no plan."""

    whom: str
    first: int
    last: int
    visits: int
    capacity: int
    least_budget: int

    def error(self) -> InfeasibleError:
        """The proof in words."""
        whom = f" of {self.whom}" if self.whom else ""
        slots = f"slots {self.first} to {self.last}" if self.last > self.first else f"slot {self.first}"
        return InfeasibleError(
            f"no plan: {self.visits} visits{whom} must fall into {slots}, which can hold {self.capacity}",
            f"give at least {self.least_budget} visits a slot{whom}, or require fewer visits.",
        )


def shortage(open_cells: np.ndarray, needed: np.ndarray, capacity: np.ndarray, whom: str = "") -> Shortage | None:
    """The interval of slots that lacks the most capacity a slot, or None when no interval lacks any.

    Parameters
    ----------
    open_cells
        Bool (N, T): slots in which an arm can be visited, once each.
    needed
        Visits each arm needs at least, int (N,).
    capacity
        Visits each slot can hold, (T,).

    Notes
    -----
    In slots a .. b must fall, of each arm, what does not fit into its open slots outside. For contiguous windows, one
    visit an arm and no floors this test is complete (Hall's condition on convex bipartite graphs).
    """
    n_slots = len(capacity)
    count = np.concatenate([np.zeros((len(open_cells), 1), dtype=np.int64), np.cumsum(open_cells, axis=1)], axis=1)
    total, room = count[:, -1], np.concatenate([[0.0], np.cumsum(capacity)])
    worst: tuple[float, int, int, int] | None = None
    budget = 0
    for first in range(n_slots):
        inside = count[:, first + 1 :] - count[:, first : first + 1]
        visits = np.maximum(0, needed[:, None] - (total[:, None] - inside)).sum(axis=0)
        length = np.arange(1, n_slots - first + 1)
        budget = max(budget, int(np.ceil(visits / length - 1e-12).max()))
        lack = (visits - (room[first + 1 :] - room[first])) / length
        at = int(lack.argmax())
        if lack[at] > 1e-9 and (worst is None or lack[at] > worst[0] + 1e-12):
            worst = (float(lack[at]), first, first + at, int(visits[at]))
    if worst is None:
        return None
    _, first, last, must = worst
    return Shortage(whom, first, last, must, int(room[last + 1] - room[first]), budget)


@dataclass(frozen=True, eq=False)
class VisitPlan:
    """A plan with its certificate.

    ``action`` int64 (C,) over the columns; ``value`` the gains it collects, ``bound`` what no plan can exceed. ``path``
    is ``linear`` or ``mixed-integer`` and ``reason`` says why. ``slot_price`` (T,) is what one more visit in a slot
    would be worth (linear path only), from the rows that limit whole slots. ``fractional`` counts entries of the linear
    program's solution that were not whole.
    """

    columns: VisitColumns
    gains: np.ndarray
    action: np.ndarray
    value: float
    bound: float
    path: str
    reason: str
    slot_price: np.ndarray | None
    seconds: float
    solver_seconds: float
    fractional: int = 0

    @property
    def gap(self) -> float:
        """bound - value, never negative."""
        return max(0.0, self.bound - self.value)


def all_rows(actions: ActionSet) -> Rows:
    """Rows of all constraints, named ``constraint[row]``.

    Raises
    ------
    CapabilityError
        When a constraint has variables of its own.
    """
    if actions.structured:
        name = actions.structured[0]
        raise CapabilityError(
            f"plain rows (constraint {name!r})",
            actions.constraints[name],
            ("decide with rmab_opt.decide", "leave it out"),
        )
    plain = actions.plain_rows.as_declared
    names = [f"{name}[{key}]" for name, key in zip(plain.owner, plain.key, strict=True)]
    return Rows(plain.matrix, plain.lower, plain.upper, names)


def _explain(actions: ActionSet) -> InfeasibleError | None:
    """Lack of capacity in words, or None when there is none to be seen."""
    columns = visits_of(actions.columns)
    kinds = [c for c in actions.constraints.values() if isinstance(c, VisitRows)]
    needed = np.max([np.zeros(len(columns.arms), dtype=np.int64), *(c.least_visits(columns) for c in kinds)], axis=0)
    open_cells = columns.table(~closed_cells(actions, columns)) > 0
    lacking = np.flatnonzero(open_cells.sum(axis=1) < needed)
    if lacking.size:
        i = lacking[0]
        return InfeasibleError(
            f"no plan: {columns.arms.ids[i]} needs {needed[i]} visits and has {open_cells[i].sum()} open slots",
            "widen its window or require fewer visits.",
        )
    for kind in kinds:
        for whom, members, capacity in kind.capacities(columns):
            # A slot without a limit can hold all; a finite stand-in keeps sums finite.
            room = np.minimum(capacity, len(columns))
            found = shortage(open_cells[members], needed[members], room, whom)
            if found is not None:
                return found.error()
    return None


def plan_visits(actions: ActionSet, gains: np.ndarray, profile: str | Path | Profile = "default") -> VisitPlan:
    """The best plan under an action set over visits.

    The rows decide how: nested on two sides, the linear relaxation is solved and its solution certified whole;
    otherwise the columns are declared binary. The action is checked again by every constraint, without the
    program, and the bound is recomputed from the program's prices by weak duality.

    Parameters
    ----------
    actions
        Over :class:`VisitColumns`; kinds with auxiliary variables (rosters) are refused.
    gains
        What each column's visit gains, (C,); or (N, T) by arm and slot.

    Raises
    ------
    InfeasibleError
        With the interval of slots that must hold too much, its count, its capacity and the least budget; or, for
        small sets, the constraints that clash.
    CertificateError
        When an action breaks a constraint in the second check.
    """
    begun = perf_counter()
    columns = visits_of(actions.columns)
    gains = np.asarray(gains, dtype=np.float64)
    if gains.shape == (len(columns.arms), columns.n_slots):
        gains = gains[columns.arm, columns.slot]
    if gains.shape != (len(columns),) or not np.isfinite(gains).all():
        raise ModelError(f"gains have shape {gains.shape}", f"give finite numbers, one a column ({len(columns)}).")
    solved = solve_rows(all_rows(actions), gains, profile)
    if solved is None:
        raise clash_of(actions)
    action = solved.action
    broken = actions.violations(action)
    if broken:
        name = next(iter(broken))
        raise CertificateError(f"the plan breaks {name}: {broken[name][0]}", "report this with the model file.")
    value = float(gains @ action)
    price = (
        None
        if solved.duals is None
        else slot_price(actions.constraints, columns, actions.plain_rows.owner, actions.plain_rows.key, solved.duals)
    )
    return VisitPlan(
        columns, gains, action, value, max(solved.bound, value), solved.path, solved.reason, price,
        perf_counter() - begun, solved.seconds, solved.fractional,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Solved:
    """What the program of some rows gave: the best 0/1 vector, a bound, and which way it was found."""

    action: np.ndarray
    bound: float
    path: str
    reason: str
    duals: np.ndarray | None
    seconds: float
    fractional: int


def solve_rows(rows: Rows, gains: np.ndarray, profile: str | Path | Profile = "default") -> Solved | None:
    """Best 0/1 vector of the rows: linear where they are nested on two sides; None when there is none.

    Raises
    ------
    SolverError
        When a limit was reached before anything was found.
    """
    structure = two_sided(rows.matrix, rows.lower, rows.upper)
    n = len(gains)
    integer = np.full(n, not structure.exact)
    program = Program(gains, rows.matrix, rows.lower, rows.upper, np.zeros(n), np.ones(n), integer, maximise=True)
    session = Session.from_arrays(program, load_profile(profile))
    result = session.solve()
    if result.status in ("infeasible", "infeasible_or_unbounded"):
        return None
    if not result.has_solution or result.x is None:
        raise SolverError(f"no plan was found: {result.status}", "give the profile more time.")
    path, reason = "linear" if structure.exact else "mixed-integer", structure.reason
    seconds, bound, duals, fractional = result.seconds, result.bound, None, 0
    if structure.exact:
        duals = result.row_duals
        bound = bound if duals is None else _dual_bound(program, duals)
        fractional = int((np.abs(result.x - np.rint(result.x)) > WHOLE).sum())
        if fractional:
            # An optimal face has whole vertices, but an interior point of it is not one.
            session.set_integer(np.arange(n), True)
            result = session.solve()
            # A limit may have stopped it: the better of the two bounds holds.
            bound = min(bound, result.bound) if result.bound is not None else bound
            seconds += result.seconds
            if result.status in ("infeasible", "infeasible_or_unbounded"):
                return None
            path, reason = "mixed-integer", f"{fractional} entries of the linear solution were not whole"
    if result.x is None:
        raise SolverError(f"no plan was found: {result.status}", "give the profile more time.")
    return Solved(np.rint(result.x).astype(np.int64), bound, path, reason, duals, seconds, fractional)


def clash_of(actions: ActionSet) -> Exception:
    """Why there is no plan: lack of capacity where there is one to be seen, else the constraints that clash."""
    lack = _explain(actions)
    if lack is not None:
        return lack
    if len(actions) <= EXPLAINED:
        return actions.infeasibility()
    named = "\n".join(f"  {name}  {sentence}" for name, sentence in actions.describe().items())
    return InfeasibleError(f"no plan satisfies these together:\n{named}", "relax one of them.")


def _dual_bound(program: Program, duals: np.ndarray) -> float:
    """Weak duality: any prices bound the program, whatever the solver did to find them."""
    price = np.where(duals > 0, np.where(np.isfinite(program.row_upper), duals, 0.0), duals)
    price = np.where(price < 0, np.where(np.isfinite(program.row_lower), price, 0.0), price)
    limit = np.where(price > 0, program.row_upper, program.row_lower)
    paid = float((price[price != 0] * limit[price != 0]).sum())
    return paid + float(np.maximum(0.0, program.cost - program.matrix.T @ price).sum()) + program.offset


def slot_price(
    constraints: Mapping[str, Constraint], columns: VisitColumns, what: Sequence[str], names: Sequence[str],
    duals: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Prices of the rows that limit whole slots, summed over constraints; ``what`` is each row's constraint."""
    price, owner = np.zeros(columns.n_slots), np.array(what)
    for name, constraint in constraints.items():
        if not isinstance(constraint, VisitRows):
            continue
        if [members.all() for _, members, _ in constraint.capacities(columns)] == [True]:
            # A slot without cells has no row, and no price.
            for row in np.flatnonzero(owner == name).tolist():
                price[int(names[row].rsplit(" ", 1)[-1])] += duals[row]
    return price
