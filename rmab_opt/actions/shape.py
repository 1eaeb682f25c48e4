"""The shape of an action set: what its rows are, its largest linear value, the room that is left, random actions.

Read once from the set's plain rows and constraints. Whoever wants to know whether a set is one count, groups, a
knapsack, units or routes asks here, and nowhere else.
"""

from __future__ import annotations

from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from rmab_opt.actions.routes import RouteList
from rmab_opt.actions.side_rows import SideRows, nested
from rmab_opt.actions.tours import Orienteering
from rmab_opt.errors import CapabilityError, InfeasibleError, SolverError, UnsettledError
from rmab_opt.overdue import checkpoint
from rmab_opt.solver.polytope import Polytope, row_reach

if TYPE_CHECKING:
    from rmab_opt.actions.action_set import ActionSet
    from rmab_opt.actions.kinds import Path

__all__ = ["KINDS", "Best", "Room", "Shape"]

Floats = NDArray[np.float64]

KINDS = ("free", "count", "budgets", "groups", "nested", "knapsack", "overlapping", "units", "routes", "other")
"""What :attr:`Shape.kind` may say."""

GROWTH_ATTEMPTS = 3
"""Random growths tried before a program takes over."""

TAKEN_AT_ONCE = 64
"""Columns that are first tried together where a packing is filled up."""

REFUSALS_BEFORE_STOP = 25
"""Columns in a row that a roster-like constraint may refuse before the sampler takes the action as grown."""

WHOLE = 1e-9
"""How far an entry of a relaxation's maximiser may be from 0 or 1 to count as whole."""


class Best(NamedTuple):
    """What :meth:`Shape.best` found."""

    actions: np.ndarray
    """int64 (M, C); allowed where ``exact``, else the relaxation's maximisers without their fractions."""
    values: Floats
    """Shape (M,): the largest sums of scores, or upper bounds of them."""
    exact: bool


class Shape:
    """The structure of one action set; every part is read when it is first asked for.

    Parameters
    ----------
    actions
        The set; its plain rows and its constraints are read, nothing is changed.
    """

    def __init__(self, actions: ActionSet) -> None:
        self.actions = actions

    # ---- what the rows are
    @cached_property
    def kind(self) -> str:
        """One of :data:`KINDS`.

        ``free``: nothing binds; ``count``: one count over all columns; ``budgets``: one count an action, columns of an
        arm exclusive; ``groups``: disjoint counts; ``nested``: counts of nested or disjoint sets without lower limits;
        ``knapsack``: one weighted upper limit; ``units``: columns assigned to units with capacities; ``routes``: a
        route and at most a count; ``overlapping``: other plain rows; ``other``: other constraints with own variables.
        """
        if self.actions.structured:
            return "routes" if self._route is not None else "units" if self.units else "other"
        members, equal, floors = self._binding
        if not members:
            return "free"
        if equal.all() and len(members) == 1 and len(members[0]) == len(self.actions):
            return "count"
        if self.budgets is not None:
            return "budgets"
        if equal.all() and _disjoint(members, len(self.actions)):
            return "groups"
        if equal.all() and not floors.any() and nested(members, len(self.actions)):
            return "nested"
        row = self.binding_rows[0]
        weights = self.actions.plain_rows.matrix[[row]].data
        single = len(members) == 1 and len(weights) > 0 and not floors.any()
        return "knapsack" if single and (weights > 0).all() else "overlapping"

    @cached_property
    def monotone(self) -> bool:
        """Whether dropping a chosen column always keeps an action allowed."""
        actions = self.actions
        return all(constraint.monotone(actions.columns) for constraint in actions.constraints.values())

    @cached_property
    def growable(self) -> bool:
        """Whether actions may be grown: dropping a column never breaks a constraint with variables of its own."""
        actions = self.actions
        return all(actions.constraints[name].monotone(actions.columns) for name in actions.structured)

    @cached_property
    def lower_limits(self) -> bool:
        """Whether some plain row asks for something: choosing nothing breaks it."""
        return bool((self.actions.plain_rows.floor > 0).any())

    @cached_property
    def lasting(self) -> np.ndarray:
        """Plain rows that no column lowers, bool (m,): their upper limits must hold while an action grows."""
        matrix = self.actions.plain_rows.matrix
        lowers = np.zeros(matrix.shape[0], dtype=bool)
        lowers[np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))[matrix.data < 0]] = True
        return ~lowers

    @cached_property
    def _ends(self) -> tuple[Floats, Floats]:
        """Smallest and largest sum of each plain row over all 0/1 vectors, (m,) each."""
        matrix = self.actions.plain_rows.matrix
        row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        low, high = np.minimum(matrix.data, 0.0), np.maximum(matrix.data, 0.0)
        least, most = np.bincount(row, low, matrix.shape[0]), np.bincount(row, high, matrix.shape[0])
        return least.astype(np.float64), most.astype(np.float64)

    @cached_property
    def binding_rows(self) -> np.ndarray:
        """Plain rows that some 0/1 vector breaks."""
        plain, (least, most) = self.actions.plain_rows, self._ends
        return np.flatnonzero((plain.ceiling < most) | (plain.floor > least))

    @cached_property
    def closed(self) -> np.ndarray:
        """Columns that a plain row alone forbids, bool (C,)."""
        plain, (least, most) = self.actions.plain_rows, self._ends
        row = np.repeat(np.arange(len(least)), np.diff(plain.matrix.indptr))
        data = plain.matrix.data
        never = (least[row] + np.maximum(data, 0) > plain.ceiling[row]) | (
            most[row] + np.minimum(data, 0) < plain.floor[row]
        )
        closed = np.zeros(len(self.actions), dtype=bool)
        closed[plain.matrix.indices[never]] = True
        return closed

    @cached_property
    def _binding(self) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Of the rows that bind: members, whether they weigh all alike and above 0, whether they ask for something."""
        plain, rows = self.actions.plain_rows, self.binding_rows
        parts = [slice(plain.matrix.indptr[row], plain.matrix.indptr[row + 1]) for row in rows]
        data = [plain.matrix.data[part] for part in parts]
        equal = np.array([len(w) > 0 and w[0] > 0 and bool((w == w[0]).all()) for w in data], dtype=bool)
        return [plain.matrix.indices[part] for part in parts], equal, plain.floor[rows] > 0

    @cached_property
    def count(self) -> tuple[int, int] | None:
        """(fewest, most) columns, where a count over all columns is all that the constraints say; else None."""
        if self.actions.structured or self.kind not in ("free", "count"):
            return None
        n, plain = len(self.actions), self.actions.plain_rows
        if self.kind == "free":
            return 0, n
        row = self.binding_rows[0]
        weight = plain.matrix.data[plain.matrix.indptr[row]]
        fewest = max(0, int(np.ceil(plain.floor[row] / weight))) if np.isfinite(plain.floor[row]) else 0
        most = min(n, int(np.floor(plain.ceiling[row] / weight))) if np.isfinite(plain.ceiling[row]) else n
        return (fewest, most) if fewest <= most else None

    @cached_property
    def at_most(self) -> int | None:
        """The least limit of the plain rows that count all columns; None where there is no such row."""
        plain, n = self.actions.plain_rows, len(self.actions)
        found = []
        for row in np.flatnonzero((np.diff(plain.matrix.indptr) == n) & np.isfinite(plain.upper)):
            weight = plain.matrix.data[plain.matrix.indptr[row] : plain.matrix.indptr[row + 1]]
            if weight[0] > 0 and (weight == weight[0]).all():
                found.append(int(np.floor(plain.ceiling[row] / weight[0])))
        return min(found, default=None)

    @cached_property
    def _counts(self) -> list[tuple[int, float, float, float]] | None:
        """(action, lower, upper, weight) of rows that count one action over all arms, where no other row binds."""
        columns, plain = self.actions.columns, self.actions.plain_rows
        effect, n_arms = columns.effect, columns.effect.shape[1]
        if self.actions.structured or not len(effect.data) or (np.diff(effect.indptr) != 1).any():
            return None
        arm, level = effect.indices, np.rint(effect.data).astype(np.int64)
        n_levels = int(level.max())
        place = arm * n_levels + level - 1
        if level.min() < 1 or len(columns) != n_arms * n_levels or len(np.unique(place)) != len(place):
            return None
        if n_levels > 1 and not columns.exclusive:
            return None
        matrix = plain.matrix
        whole = np.diff(matrix.indptr) == n_arms
        found = []
        for row in np.flatnonzero(whole):
            entries = slice(matrix.indptr[row], matrix.indptr[row + 1])
            group, weight = level[matrix.indices[entries]], matrix.data[entries]
            if weight[0] > 0 and (group == group[0]).all() and (weight == weight[0]).all():
                found.append((int(group[0]), float(plain.lower[row]), float(plain.upper[row]), float(weight[0])))
            else:
                whole[row] = False
        # Whatever else is declared must hold for every choice of one action an arm.
        least, most = row_reach(matrix, arm)
        idle = (plain.floor <= least) & (plain.ceiling >= most)
        return found if (whole | idle).all() else None

    @cached_property
    def budgets(self) -> tuple[Floats, bool] | None:
        """(limit of each action (A - 1,), used in full) where one count an action is all that the constraints say."""
        counts = self._counts
        if counts is None:
            return None
        limits: dict[int, tuple[float, bool]] = {}
        for action, lower, upper, weight in counts:
            equal = lower == upper
            if weight != 1.0 or action in limits or not 0 <= upper < np.inf or (not equal and lower > 0):
                return None
            limits[action] = (upper, equal)
        n_levels = len(self.actions) // self.actions.columns.effect.shape[1]
        if sorted(limits) != list(range(1, n_levels + 1)) or len({equal for _, equal in limits.values()}) != 1:
            return None
        return np.array([limits[k][0] for k in sorted(limits)]), limits[1][1]

    @cached_property
    def caps(self) -> Floats | None:
        """Arms that may get each action (A - 1,), where upper counts of actions are all that binds; else None."""
        counts = self._counts
        if counts is None:
            return None
        n_arms = self.actions.columns.effect.shape[1]
        caps = np.full(len(self.actions) // n_arms, float(n_arms))
        for action, lower, upper, weight in counts:
            if lower > 0 or upper < 0:
                return None
            caps[action - 1] = min(caps[action - 1], np.floor(upper / weight + 1e-9))
        return caps

    @cached_property
    def polytope(self) -> Polytope:
        """The set's linear relaxation over the columns, 0/1, with assignments to units where it has variables."""
        plain = self.actions.outer or self.actions.plain_rows
        if self.actions.structured and self.actions.outer is None:
            model, session = self.actions.compiled
            return Polytope.from_program(session.program, session.index(model.act))
        n = len(self.actions)
        return Polytope(np.zeros(n), np.ones(n), plain.matrix, plain.lower, plain.upper, whole=True)

    @cached_property
    def units(self) -> list[tuple[Floats, Floats, Floats]]:
        """Assignments of columns to units: (load (C, units), need (C,), capacity (units,)); see :class:`Polytope`."""
        return self.polytope.assignments if self.actions.structured and self.actions.outer is None else []

    @cached_property
    def _route(self) -> int | None:
        """Columns that one route may hold at most, where a listable route and at most a count are declared."""
        actions = self.actions
        plain, n = actions.plain_rows, len(actions)
        if self._routed is None or plain.matrix.shape[0] > 1:
            return None
        if not plain.matrix.shape[0]:
            return n
        if plain.matrix.nnz != n or (plain.matrix.data != 1.0).any() or plain.lower[0] > 0:
            return None
        return min(n, int(np.floor(plain.ceiling[0])))

    @property
    def few_stops(self) -> bool:
        """Whether :attr:`routes` is made in a moment."""
        kind = self._routed if self._route is not None else None
        return kind is not None and bool(kind.few(self.actions.columns))

    @cached_property
    def orienteering(self) -> Orienteering | None:
        """Ways that bring what they pass, where routes and plain rows are all that is declared."""
        kind, plain = self._routed, self.actions.plain_rows
        if kind is None:
            return None
        try:
            return kind.task(self.actions.columns, SideRows.of(plain.matrix, plain.floor, plain.ceiling))[0]
        except UnsettledError:
            return None

    @property
    def moves(self) -> int:
        """Variables of the program of :attr:`orienteering`, about."""
        assert self._routed is not None
        return self._routed.moves(self.actions.columns)

    def routed(self, routes: list[list[int]], gain: np.ndarray) -> tuple[np.ndarray, list[dict[str, str]]] | None:
        """(the best allowed columns on routes of :attr:`orienteering`, who stands where); None where none was found."""
        task, kind, columns = self.orienteering, self._routed, self.actions.columns
        assert task is not None
        assert kind is not None
        action, points = task.action(routes, gain), kind.task(columns)[1]
        if action is None:
            return None
        # Where nobody is chosen nobody stops: no way round is shorter.
        stops = [[points[k] for k in route[1:-1] if action[task.members[k]].any()] for route in routes]
        told = kind.told([route for route in stops if route], action, columns)
        return action, [{"constraint": self.actions.structured[0], **row} for row in told]

    @cached_property
    def _routed(self) -> Path | None:
        """The routes, where they are the only constraint with variables of its own."""
        names = self.actions.structured
        kind = self.actions.constraints[names[0]] if len(names) == 1 else None
        return kind if hasattr(kind, "passable") else None  # type: ignore[return-value]

    @cached_property
    def routes(self) -> RouteList | None:
        """The largest sets that one route passes, where a route and at most a count are all that is declared."""
        if self._route is None or self._routed is None:
            return None
        sets = self._routed.passable(self.actions.columns)
        return None if sets is None else RouteList(sets, len(self.actions), self._route)

    # ---- the largest linear value
    @cached_property
    def _sorts(self) -> str:
        """How sorting maximises exactly: ``disjoint`` counts, ``nested`` counts, or not at all (empty)."""
        if self.actions.structured:
            return ""
        polytope = self.polytope
        if not all(row.counts for row in polytope.rows):
            return ""
        if polytope.exact:
            return "disjoint"
        members = [row.members for row in polytope.rows]
        upper_only = all(row.lower == 0 for row in polytope.rows)
        return "nested" if upper_only and nested(members, len(self.actions)) else ""

    @cached_property
    def nested(self) -> bool:
        """Whether upper limits of counts over disjoint or nested sets are all that binds."""
        if self.actions.structured:
            return False
        members, equal, floors = self._binding
        return bool(equal.all()) and not floors.any() and nested(members, len(self.actions))

    def sorted(self, scores: np.ndarray) -> tuple[np.ndarray, Floats]:
        """The action with the largest sum of scores (C,) in a :attr:`nested` set, and the prices that prove it, (m,).

        From the smallest sets to the largest each keeps its best; the first that it leaves out is its threshold. A set
        costs what its threshold exceeds those of all sets around it: what is kept is worth at least the largest
        threshold over it, what is left out at most that, and a set with a price is full, so the prices are optimal.
        """
        scores = np.asarray(scores, dtype=np.float64)
        members, rows = self._binding[0], self.binding_rows
        matrix, ceiling = self.actions.plain_rows.matrix, self.actions.plain_rows.ceiling
        kept = scores > 0
        order = np.argsort([len(own) for own in members], kind="stable").tolist()
        threshold = np.zeros(len(rows))
        for i in order:
            own = members[i][kept[members[i]]]
            most = max(0, int(np.floor(ceiling[rows[i]] / matrix.data[matrix.indptr[rows[i]]])))
            if len(own) > most:
                by_value = np.argsort(-scores[own], kind="stable")
                threshold[i] = scores[own[by_value[most]]]
                kept[own[by_value[most:]]] = False
        prices, around = np.zeros(matrix.shape[0]), np.zeros(len(scores))
        for i in reversed(order):
            outer = around[members[i][0]] if len(members[i]) else 0.0
            if threshold[i] > outer:
                prices[rows[i]] = (threshold[i] - outer) / matrix.data[matrix.indptr[rows[i]]]
                around[members[i]] = threshold[i]
        return kept.astype(np.int64), prices

    def best(self, scores: np.ndarray) -> Best:
        """The largest sum of scores over the set, for many score vectors at once.

        Exact for counts over disjoint or nested groups (by sorting), for routes and for sets that are listed; otherwise
        the values are upper bounds, exact only where the relaxation's maximisers are whole and allowed.

        Parameters
        ----------
        scores
            Shape (M, C).

        Raises
        ------
        InfeasibleError
            When the set is seen to be empty.
        """
        scores = np.atleast_2d(np.asarray(scores, dtype=np.float64))
        if self._sorts:
            actions = self._nested_best(scores) if self._sorts == "nested" else self._whole(scores)[0]
            if self.actions.plain_rows.allow(actions).all():
                return Best(actions, np.einsum("mc,mc->m", scores, actions.astype(np.float64)), True)
            # Only limits that contradict one another, or meet within the tolerance, come here: the program settles it.
            made = [self.actions.best_by_program(row) for row in scores]
            return Best(np.array([action for action, _ in made]), np.array([bound for _, bound in made]), False)
        if self.routes is not None:
            found = [self.routes.best(row) for row in scores]
            return Best(np.array([action for action, _ in found]), np.array([value for _, value in found]), True)
        listed = self.actions.listed
        if listed is not None:
            if not len(listed):
                raise self.actions.infeasibility()
            worth = scores @ listed.T
            at = worth.argmax(axis=1)
            return Best(listed[at].astype(np.int64), worth[np.arange(len(scores)), at], True)
        actions, values, whole = self._whole(scores)
        return Best(actions, values, bool(whole.all()) and all(self.actions.allows(action) for action in actions))

    def _whole(self, scores: Floats) -> tuple[np.ndarray, Floats, np.ndarray]:
        """The relaxation's maximisers without fractions, its values (M,), and which maximisers are whole (M,)."""
        values, points = self.polytope.maxima(np.where(self.closed, np.minimum(scores, 0.0), scores))
        whole = np.asarray(((points < WHOLE) | (points > 1 - WHOLE)).all(axis=1))
        return (points > 1 - WHOLE).astype(np.int64), values, whole

    def _nested_best(self, scores: Floats) -> np.ndarray:
        """Best first in each set, from the smallest sets to the largest: a laminar matroid's greedy, (M, C)."""
        polytope = self.polytope
        free = polytope.upper > polytope.lower
        kept = free & (scores > 0)
        for row in sorted(polytope.rows, key=lambda row: len(row.members)):
            own = np.where(kept[:, row.members], scores[:, row.members], -np.inf)
            last = np.argsort(-own, axis=1, kind="stable")[:, int(row.upper) :]
            left = kept[:, row.members]
            np.put_along_axis(left, last, False, axis=1)
            kept[:, row.members] = left
        return (kept | (polytope.lower > 0)).astype(np.int64)

    def largest(self, scores: np.ndarray) -> float:
        """An upper limit of the sum of scores (C,) over the set: exact, by a knapsack's relaxation, or the program's.

        Raises
        ------
        InfeasibleError
            When the set is empty.
        """
        found = self.best(scores)
        value = float(found.values[0])
        if found.exact or self.kind == "knapsack" or self.actions.outer is not None:
            return value
        return min(value, self.actions.best_by_program(scores)[1])

    @cached_property
    def most_chosen(self) -> int:
        """How many columns an allowed action can hold at most; all of them where no action is allowed."""
        try:
            return int(self.largest(np.ones(len(self.actions))) + 1e-6)
        except InfeasibleError:
            return len(self.actions)

    # ---- growing
    @cached_property
    def by_column(self) -> sparse.csc_array:
        """The plain rows' matrix by columns."""
        return sparse.csc_array(self.actions.plain_rows.matrix)

    def room(self) -> Room:
        """Nothing chosen yet, and what may still be added.

        Raises
        ------
        CapabilityError
            When dropping a column from an allowed action may be forbidden: such sets cannot be grown one by one.
        """
        if not self.monotone:
            raise CapabilityError(
                "one-by-one choice (dropping an arm must keep an action allowed)",
                self.actions,
                ("use method 'program'", "state lower limits and routes as upper limits"),
            )
        return Room(self)

    # ---- chance
    def sample(self, rng: np.random.Generator, size: int = 1, until: float = np.inf) -> np.ndarray:
        """Random allowed actions, int64 (size, C), for exploration; every one is checked.

        An action is grown column by column in random order, first the columns that lower limits ask for,
        then whatever still fits. Where that leads nowhere, the optimum of a random linear score is taken.
        ``until`` as in :meth:`ActionSet.sample`.

        Raises
        ------
        InfeasibleError
            When the set is empty.
        LimitError
            When no action was found by ``until``.
        """
        found: list[np.ndarray] = []
        while len(found) < size and not (found and perf_counter() > until):
            found.append(self._sample_one(rng, until))
        drawn = np.array(found, dtype=np.int64).reshape(len(found), len(self.actions))
        for action in drawn:
            broken = self.actions.violations(action)
            if broken:
                raise SolverError(
                    f"the sampler produced a forbidden action: {broken}", "report this with the model file."
                )
        return drawn

    def _sample_one(self, rng: np.random.Generator, until: float) -> np.ndarray:
        found = self.grown(rng, until)
        return self.actions.best_by_program(rng.normal(size=len(self.actions)), until)[0] if found is None else found

    def grown(self, rng: np.random.Generator, until: float = np.inf) -> np.ndarray | None:
        """An action grown at random within the rows, without a solver; None where growing leads nowhere.

        Nothing is added after ``until``, a time of ``perf_counter``.
        """
        if self.actions.outer is not None and self.monotone and not self.lower_limits:
            return self.packed(np.zeros(0, dtype=np.int64), rng.random(len(self.actions)), until=until)[0]
        if self.growable:
            for _ in range(GROWTH_ATTEMPTS):
                action = self.grow(rng, until)
                if self.actions.plain_rows.allow(action):
                    return action
                if perf_counter() > until:
                    break
        return None

    def packed(
        self, wanted: np.ndarray, gain: np.ndarray, prices: np.ndarray | None = None, *, until: float = np.inf
    ) -> tuple[np.ndarray, list[dict[str, str]]]:
        """An allowed action of a set that may lose columns, worth much but not the most, and who does what in it.

        Parameters
        ----------
        wanted
            Columns to take if possible, the dearest first, which the plain rows allow together.
        gain
            Value of every column, (C,).
        prices
            Of the plain rows, (m,), where they are known.
        until
            Time of ``perf_counter`` at which nothing more is added or exchanged.
        """
        actions, room = self.actions, self.room()
        worth = gain if prices is None else gain - actions.plain_rows.matrix.T @ prices
        for column in wanted.tolist():
            room.take(column)
        others = np.setdiff1d(np.flatnonzero(gain > 0), wanted)
        others = others[np.argsort(-gain[others], kind="stable")]
        if len(actions.structured) == 1:
            name = actions.structured[0]
            found = actions.constraints[name].packed(
                wanted, others, gain, worth, actions.columns, room.swap, until=until
            )
            if found is not None:
                return found[0], [{"constraint": name, **row} for row in found[1]]
        # Dropping columns keeps an action allowed: the longest allowed beginning is found by halving.
        kept, low, high = np.zeros(len(actions), dtype=np.int64), 0, len(wanted)
        while low < high:
            middle = (low + high + 1) // 2
            kept[:] = 0
            kept[wanted[:middle]] = 1
            low, high = (middle, high) if actions.allows(kept) else (low, middle - 1)
        room = self.room()
        for column in wanted[:low].tolist():
            room.take(column)
        self._add(room, [*wanted[low:].tolist(), *others.tolist()], until)
        return room.action, []

    def _add(self, room: Room, columns: list[int], until: float) -> None:
        """Take further columns, the dearest first, many at once where the constraints let them in together.

        What is refused stays refused, and so does whatever the constraints cannot tell from it.
        """
        kinds = [self.actions.constraints[name].alike(self.actions.columns) for name in self.actions.structured]
        alike = [np.arange(len(self.actions)) if one is None else one for one in kinds]
        refused: set[tuple[int, ...]] = set()
        parts = [columns[at : at + TAKEN_AT_ONCE] for at in range(0, len(columns), TAKEN_AT_ONCE)][::-1]
        in_a_row = 0
        while parts and in_a_row < REFUSALS_BEFORE_STOP and perf_counter() < until:
            part = [c for c in parts.pop() if tuple(int(one[c]) for one in alike) not in refused]
            part = room.within_all(part)
            if not part:
                continue
            if room.passes_all(part):
                for column in part:
                    room.take(column)
                in_a_row = 0
            elif len(part) > 1:
                parts += [part[len(part) // 2 :], part[: len(part) // 2]]
            else:
                refused.add(tuple(int(one[part[0]]) for one in alike))
                in_a_row += 1

    def grow(self, rng: np.random.Generator, until: float = np.inf) -> np.ndarray:
        room = Room(self)
        order = rng.permutation(len(self.actions))
        # Columns that raise a row still below its lower limit go first; then whatever fits.
        for only_lacking in (True, False) if (room.lacking > 0).any() else (False,):
            refused = 0
            for column in order[room.action[order] == 0].tolist():
                checkpoint()
                if perf_counter() > until:
                    return room.action
                if not room.within_rows(column) or (only_lacking and not room.helps(column)):
                    continue
                if room.passes(column):
                    room.take(column)
                    refused = 0
                    continue
                refused += 1
                if refused == REFUSALS_BEFORE_STOP:
                    break
        return room.action


class Room:
    """An action that grows column by column, and what the set still lets in; made by :meth:`Shape.room`.

    Calling it with a column says whether that one still fits. In a monotone set a column that does not fit never will.
    """

    def __init__(self, shape: Shape) -> None:
        actions = shape.actions
        self._columns, self._by_column = actions.columns, shape.by_column
        self._checks = [actions.constraints[name] for name in actions.structured]
        self.left = actions.plain_rows.ceiling.copy()
        """What each plain row still takes, (m,)."""
        self.lacking = actions.plain_rows.floor.copy()
        """What each plain row still asks for, (m,); nothing where not positive."""
        self.action = np.zeros(len(actions), dtype=np.int64)
        """What is taken so far, (C,)."""

    def _entries(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(self._by_column.indptr[column], self._by_column.indptr[column + 1])
        return self._by_column.indices[part], self._by_column.data[part]

    def __call__(self, column: int) -> bool:
        return self.within_rows(column) and self.passes(column)

    def within_rows(self, column: int) -> bool:
        """Whether every plain row has room for the column."""
        rows, amount = self._entries(column)
        return not (amount > self.left[rows]).any()

    def within_all(self, columns: list[int]) -> list[int]:
        """Those of the columns that every plain row has room for, one after the other."""
        left, kept = self.left.copy(), []
        for column in columns:
            rows, amount = self._entries(column)
            if not (amount > left[rows]).any():
                left[rows] -= amount
                kept.append(column)
        return kept

    def passes(self, column: int) -> bool:
        """Whether the constraints with variables of their own (rosters, loads, routes) let the column in."""
        return self.passes_all([column])

    def passes_all(self, columns: list[int]) -> bool:
        """Whether they let all of the columns in together."""
        if not self._checks:
            return True
        self.action[columns] = 1
        try:
            return all(next(iter(c.violations(self.action, self._columns)), None) is None for c in self._checks)
        except UnsettledError:
            # Not settled within the check's limits: the columns stay out, and what is taken so far stays allowed.
            return False
        finally:
            self.action[columns] = 0

    def helps(self, column: int) -> bool:
        """Whether the column raises a row that is still below its lower limit."""
        rows, amount = self._entries(column)
        return bool(((self.lacking[rows] > 0) & (amount > 0)).any())

    def fitting(self, columns: np.ndarray) -> np.ndarray:
        """Those of the columns that can still be added."""
        owner = np.repeat(np.arange(len(self.action)), np.diff(self._by_column.indptr))
        too_much = self._by_column.data > self.left[self._by_column.indices]
        kept = columns[np.bincount(owner, too_much, minlength=len(self.action))[columns] == 0]
        return kept if not self._checks else np.array([c for c in kept if self.passes(int(c))], dtype=np.int64)

    def swap(self, column: int, leaving: int) -> bool:
        """Whether the plain rows let a column in (-1: none) when another leaves (-1: none); done when they do."""
        change = np.zeros(len(self.left))
        for one, sign in ((column, 1.0), (leaving, -1.0)):
            if one >= 0:
                rows, amount = self._entries(one)
                change[rows] += sign * amount
        if column >= 0 and (change > self.left).any():
            return False
        self.left -= change
        self.lacking -= change
        return True

    def take(self, column: int) -> None:
        """Choose the column."""
        rows, amount = self._entries(column)
        self.left[rows] -= amount
        self.lacking[rows] -= amount
        self.action[column] = 1


def _disjoint(members: list[np.ndarray], n: int) -> bool:
    """Whether no column stands in two of the sets."""
    return bool((np.bincount(np.concatenate([*members, np.empty(0, dtype=np.int64)]), minlength=n) <= 1).all())
