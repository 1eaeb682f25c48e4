"""Limits that no plan keeps together: which of them is at fault, and the least change that lets a plan keep all.

One elastic program gives every limit a slack in its own unit and looks for the smallest change of all together,

    minimise  sum_l weight_l slack_l   subject to  the limits, each loosened by its slack, and the plan's own rows,

where a floor or a service counts by its share of the limit, the Gini coefficient and the ratio as they are. An optimum
has few changes, and none of them can be smaller while the others stay as they are. The Gini coefficient and the ratio
are fractions of values, so their slacks are found by a sequence of programs (Dinkelbach 1967). Certain services are
whole numbers and are tried one after the other.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from rmab_opt.errors import InfeasibleError
from rmab_opt.settings.equity.cohort import Cohort, Limits, in_unit
from rmab_opt.settings.equity.program import EquityProgram, columns_of
from rmab_opt.settings.equity.welfare import gini
from rmab_opt.solver import Program, Session, load_profile
from rmab_opt.solver.session import power_of_two

__all__ = ["MOST_COLUMNS", "Blame", "Change", "blame"]

MOST_COLUMNS = 300_000
"""Frequencies up to which the limit at fault is looked for: some ninety seconds of interior points."""

MOVED = 1e-6
"""Share of a limit from which a slack is a change; solvers leave less where nothing is missing."""

DIGITS = 4
"""Digits of the limits that are proposed, rounded to the side on which a plan exists."""

EVEN = 1e-8
"""Share of a limit within which it is the number of few digits beside it."""

MOST_STEPS = 40
"""Programs until a fraction has settled; three to six do."""

MOST_NAMED = 10
"""Changes that a sentence names."""


@dataclass(frozen=True)
class Change:
    """One limit that has to give way.

    ``what`` names it; ``given`` is its value, ``least`` the nearest one that a plan can keep while the other limits
    are as the changes say, ``proposed`` that one rounded. ``rises`` says that the limit is a ceiling.
    """

    what: str
    given: float
    least: float
    rises: bool = False
    whole: bool = False

    @property
    def proposed(self) -> float:
        """The nearest value rounded to a few digits, to the side on which a plan exists."""
        if self.whole or self.least == 0.0:
            return self.least
        # Solvers keep rows to 1e-9 or so: what is read off one is given room, unless few digits say it.
        even = float(f"{self.least:.{DIGITS}g}")
        if abs(even - self.least) <= EVEN * abs(self.least):
            return even
        room = MOVED * max(abs(self.least), abs(self.given - self.least))
        nearest = self.least + room if self.rises else self.least - room
        step = 10.0 ** (np.floor(np.log10(abs(nearest))) - DIGITS + 1)
        found = (np.ceil if self.rises else np.floor)(nearest / step) * step
        return float(f"{found:.{DIGITS}g}")

    def __str__(self) -> str:
        verb = f"at least {self.proposed:g} is needed; raise" if self.rises else f"at most {self.proposed:g} can be had"
        return f"{self.what} {self.given:g}: {verb}{'' if self.rises else '; lower'} it to that"


@dataclass(frozen=True)
class Blame:
    """Why no plan keeps the limits.

    ``changes`` are the least ones after which a plan exists (none: the action set itself allows no plan whatever the
    limits say), ``relaxed`` the limits with them, ``instead`` the resources that would have to be larger for the
    limits to stay, where larger ones are enough.
    """

    changes: tuple[Change, ...]
    relaxed: Limits = field(repr=False)
    instead: tuple[Change, ...] = ()

    def error(self) -> InfeasibleError:
        """The error that says so."""
        if not self.changes:
            return InfeasibleError(
                "no plan keeps the action set, not even on average, whatever floors and limits say",
                "relax a constraint of the action set.",
            )
        shown = [f"  {change}" for change in self.changes[:MOST_NAMED]]
        if len(self.changes) > MOST_NAMED:
            shown.append(f"  and {len(self.changes) - MOST_NAMED} more")
        more = "".join(f", or raise the {change.what} from {change.given:g} to {change.proposed:g}" for change in
                       self.instead)  # fmt: skip
        both = "all of them" if len(self.changes) > 1 else "it"
        return InfeasibleError(
            "no plan keeps these limits together, not even on average. The least change:\n" + "\n".join(shown),
            f"change {both}{more}.",
            clash={change.what: str(change) for change in self.changes},
        )


def blame(cohort: Cohort, limits: Limits) -> Blame | None:
    """The least change of the limits after which a plan keeps them; None when one keeps them as they are.

    Raises
    ------
    InfeasibleError
        When the program would be too large to say; names the limits.
    SolverError
        When a program is not solved.
    """
    if columns_of(cohort, limits) > MOST_COLUMNS:
        raise InfeasibleError(
            f"no plan keeps these limits together, not even on average: {', '.join(limits.in_words())}",
            f"lower a floor or raise a limit; cohorts of up to {MOST_COLUMNS:,} frequencies are told which.",
        )
    unit = power_of_two(float(np.abs(cohort.reward).max(initial=0.0)))
    inner, kept = in_unit(cohort, limits, unit)
    best: tuple[float, _Loosened, int] | None = None
    sure = [place for place, service in enumerate(limits.services) if service.certain]
    most = int(limits.services[sure[0]].at_least) if sure else 0
    for fewer in range(most + 1):
        trial = _with_service(kept, sure[0], most - fewer) if fewer else kept
        found = _Elastic(inner, trial).least()
        if found is not None:
            cost = fewer / max(most, 1) + found.cost
            if best is None or cost < best[0] - MOVED:
                best = cost, found, fewer
            if not found.changed:
                break
    if best is None:
        return Blame((), limits)
    _, found, fewer = best
    if not fewer and not found.changed:
        return None
    changes, relaxed = _named(cohort, limits, found, unit)
    if fewer:
        words = f"guarantee ({limits.services[sure[0]].in_words()})"
        changes.append(Change(words, float(most), float(most - fewer), whole=True))
        relaxed = _with_service(relaxed, sure[0], most - fewer)
    return Blame(tuple(changes), relaxed, _Elastic(inner, kept).resources(cohort))


def _with_service(limits: Limits, place: int, at_least: float) -> Limits:
    services = list(limits.services)
    services[place] = services[place].lowered(at_least)
    return dataclasses.replace(limits, services=tuple(services))


@dataclass(frozen=True, eq=False)
class _Loosened:
    """Slack of every limit in its own unit; 0 where it stands, and the sum of their weighted changes."""

    floors: np.ndarray
    arm_floors: np.ndarray
    services: np.ndarray
    gini: float
    ratio: float
    cost: float

    @property
    def changed(self) -> bool:
        """Whether any limit gives way."""
        linear = np.concatenate([self.floors, self.arm_floors, self.services])
        return bool((linear > 0).any() or self.gini > 0 or self.ratio > 0)


def _named(cohort: Cohort, limits: Limits, found: _Loosened, unit: float) -> tuple[list[Change], Limits]:
    """Changes in words, and the limits with them."""
    changes = []
    floors = None if limits.floors is None else np.array(limits.floors, dtype=float)
    arms = None if limits.arm_floors is None else np.array(limits.arm_floors, dtype=float)
    names = cohort.ids or tuple(f"number {n + 1}" for n in range(len(cohort.transition)))
    for values, slack, what in (
        (floors, found.floors, [f"floor of group {name!r}" for name in cohort.groups.names]),
        (arms, found.arm_floors, [f"floor of arm {name}" for name in names]),
    ):
        for place in np.flatnonzero(slack):
            assert values is not None
            given = float(values[place])
            changes.append(Change(what[place], given, given - float(slack[place]) * unit))
            values[place] = changes[-1].proposed
    relaxed = dataclasses.replace(limits, floors=floors, arm_floors=arms)
    for place in np.flatnonzero(found.services):
        service = limits.services[place]
        least = service.at_least - float(found.services[place])
        changes.append(Change(f"guarantee ({service.in_words()})", service.at_least, max(0.0, least)))
        relaxed = _with_service(relaxed, int(place), max(0.0, changes[-1].proposed))
    if found.gini > 0:
        assert limits.gini is not None
        changes.append(Change("ceiling of the Gini coefficient", limits.gini, limits.gini + found.gini, rises=True))
        relaxed = dataclasses.replace(relaxed, gini=min(1.0, changes[-1].proposed))
    if found.ratio > 0:
        assert limits.ratio is not None
        changes.append(Change("ratio of any group to any other", limits.ratio, limits.ratio - found.ratio))
        relaxed = dataclasses.replace(relaxed, ratio=max(0.0, changes[-1].proposed))
    return changes, relaxed


class _Elastic:
    """The program whose limits give way at a price.

    Columns after the program's own: a slack for each floor, arm's floor, service (one for all whom it is given), the
    Gini coefficient, the ratio, then one for each resource. Slacks of the Gini coefficient and the ratio are in units
    of a mean value; they say whether these give way, and :meth:`_fraction` by how much.
    """

    def __init__(self, cohort: Cohort, limits: Limits) -> None:
        self.cohort, self.limits = cohort, limits
        built = EquityProgram(cohort, limits)
        self.rows, self.base, self.profile = built.limit_rows, built.bare, built.session.profile
        self.floors = np.full(len(cohort.groups), -np.inf) if limits.least is None else limits.least
        arms = limits.arm_floors
        self.arm_floors = np.empty(0) if arms is None else np.asarray(arms, dtype=float)
        self.sizes = [len(self.floors), len(self.arm_floors), len(limits.services), 1, 1, self._n_resources]
        ends = self.base.cost.size + np.cumsum([0, *self.sizes])
        self.slack = [np.arange(a, b) for a, b in itertools.pairwise(ends)]
        self.session = Session.from_arrays(self._program(1.0), self.profile)

    @property
    def _n_resources(self) -> int:
        return self.rows.resources.shape[1] if self.rows.resources.size else 0

    def _program(self, scale: float) -> Program:
        """Rows with slacks, all of them shut; ``scale`` is what one of the Gini coefficient or the ratio is worth."""
        rows, base = self.rows, self.base
        parts: list[tuple[np.ndarray, np.ndarray, float]] = [
            (rows.floors, self.slack[0], 1.0),
            (rows.arm_floors, self.slack[1], 1.0),
            *((served, np.full(len(served), self.slack[2][k]), 1.0) for k, served in enumerate(rows.services)),
            (rows.gini, np.full(len(rows.gini), self.slack[3][0]), scale * len(self.floors)),
            (rows.ratio, np.full(len(rows.ratio), self.slack[4][0]), scale),
        ]
        if self._n_resources:
            wide = np.broadcast_to(self.slack[5], rows.resources.shape)
            parts.append((rows.resources.ravel(), wide.ravel(), -1.0))
        width = int(self.slack[5][-1]) + 1 if self._n_resources else int(self.slack[4][0]) + 1
        row, column = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
        data = np.concatenate([np.full(len(p[0]), p[2]) for p in parts])
        own = sparse.csr_array((data, (row, column)), shape=(base.matrix.shape[0], width))
        more = width - base.cost.size
        old = sparse.csr_array(base.matrix)
        old.resize((old.shape[0], width))
        low = base.row_lower.copy()
        low[rows.floors] = self.floors
        return Program(
            cost=np.zeros(width),
            matrix=sparse.csr_array(old + own),
            row_lower=low,
            row_upper=base.row_upper,
            lower=np.concatenate([base.lower, np.zeros(more)]),
            upper=np.concatenate([base.upper, np.zeros(more)]),
            integer=np.concatenate([base.integer, np.zeros(more, dtype=bool)]),
            maximise=False,
        )

    def _weights(self) -> list[np.ndarray]:
        """What a unit of each slack counts, by kind: floors and services as shares of themselves."""
        finite = np.abs(self.floors[np.isfinite(self.floors)])
        near = 1e-3 * max(1.0, float(finite.max(initial=0.0)))
        services = np.array([service.at_least for service in self.limits.services])
        given = [self.floors, self.arm_floors, services]
        return [1.0 / np.maximum(np.where(np.isfinite(g), np.abs(g), 1.0), near) for g in given] + [np.ones(1)] * 2

    def _open(self, most: list[np.ndarray]) -> None:
        """Let slacks of the first kinds be at most so much, and price them; all others are shut."""
        size = self.session.program.cost.size
        cost, upper = np.zeros(size), np.zeros(size - self.base.cost.size)
        for columns, weight, limit in zip(self.slack, self._weights(), most, strict=False):
            cost[columns] = weight
            upper[columns - self.base.cost.size] = limit
        self.session.set_cost(np.arange(size), cost)
        columns = self.base.cost.size + np.arange(len(upper))
        self.session.set_bounds(columns, np.zeros(len(upper)), upper)

    def _solve(self) -> np.ndarray | None:
        """The point found, or None where there is none."""
        found = self.session.solve()
        if found.status in ("infeasible", "infeasible_or_unbounded"):
            return None
        if found.x is None or found.status != "optimal":
            # The same program from nothing, by the method that does not depend on a basis left before.
            found = Session.from_arrays(self.session.program, load_profile("exact")).solve()
        return found.x

    def least(self) -> _Loosened | None:
        """The least change; None when none of the limits' is enough."""
        fractions = self.limits.gini is not None or self.limits.ratio is not None
        every = [np.full(size, np.inf) for size in self.sizes[:5]]
        self._open(every)
        point = self._solve()
        if point is None:
            return None
        scale = float(np.abs(point[self.rows.values]).mean())
        if fractions and scale > 0 and max(point[self.slack[3]].max(), point[self.slack[4]].max()) > 0:
            # A unit of inequality is worth what it is at the values found.
            self.session = Session.from_arrays(self._program(scale), self.profile)
            self._open(every)
            point = self._solve()
            assert point is not None
        slack = self._read(point)
        gini_, ratio = self.limits.gini, self.limits.ratio
        values = point[self.rows.values]
        if slack[3][0] > 0 or slack[4][0] > 0:
            gini_ = max(gini_ or 0.0, float(gini(values))) if slack[3][0] > 0 else gini_
            ratio = min(ratio or 0.0, _ratio(values)) if slack[4][0] > 0 else ratio
            gini_, ratio, slack = self._settle(slack, gini_, ratio)
        moved = 0.0 if gini_ is None else gini_ - (self.limits.gini or 0.0)
        fell = 0.0 if ratio is None else (self.limits.ratio or 0.0) - ratio
        weights = self._weights()
        cost = sum(float((w * s).sum()) for w, s in zip(weights[:3], slack[:3], strict=True)) + moved + fell
        moved, fell = (x if x > MOVED else 0.0 for x in (moved, fell))
        return _Loosened(slack[0], slack[1], slack[2], moved, fell, cost)

    def _read(self, point: np.ndarray) -> list[np.ndarray]:
        """Slacks by kind, those that are a solver's dust as 0."""
        return [
            np.where(point[columns] * weight > MOVED, point[columns], 0.0)
            for columns, weight in zip(self.slack, self._weights(), strict=False)
        ]

    def _settle(
        self, slack: list[np.ndarray], gini_: float | None, ratio: float | None
    ) -> tuple[float | None, float | None, list[np.ndarray]]:
        """The fractions one after the other as good as the rest allows, then the rest as small as they allow."""
        if slack[3][0] > 0:
            gini_ = self._with(gini_, ratio).fraction(slack, gini_, of_gini=True)
        if slack[4][0] > 0:
            ratio = self._with(gini_, ratio).fraction(slack, ratio, of_gini=False)
        final = self._with(None if gini_ is None else gini_ + MOVED, None if ratio is None else ratio - MOVED)
        final._open([*(s + MOVED * (s > 0) for s in slack[:3]), np.zeros(1), np.zeros(1)])
        point = final._solve()
        return gini_, ratio, slack if point is None else final._read(point)

    def _with(self, gini_: float | None, ratio: float | None) -> _Elastic:
        clip = lambda x: None if x is None else min(1.0, max(0.0, x))  # noqa: E731 - used twice, here only
        return _Elastic(self.cohort, dataclasses.replace(self.limits, gini=clip(gini_), ratio=clip(ratio)))

    def fraction(self, slack: list[np.ndarray], now: float | None, *, of_gini: bool) -> float:
        """The least Gini coefficient or the largest ratio while floors and services give way by the slacks."""
        assert now is not None
        rows, size = self.rows, self.session.program.cost.size
        free = [np.inf] if of_gini else [0.0]
        other = [0.0] if of_gini else [np.inf]
        self._open([*(s + MOVED * (s > 0) for s in slack[:3]), np.array(free), np.array(other)])
        values, n_groups = rows.values, len(rows.values)
        if not of_gini:
            size += 2
            self._add_ends()
        for _ in range(MOST_STEPS):
            cost = np.zeros(size)
            if of_gini:
                cost[rows.pairs], cost[values] = 1.0, -now * n_groups
            else:
                cost[-2], cost[-1] = -1.0, now
            self.session.set_cost(np.arange(size), cost)
            point = self._solve()
            if point is None:
                break
            found = float(gini(point[values])) if of_gini else _ratio(point[values])
            if (found >= now - 1e-10) if of_gini else (found <= now + 1e-10):
                break
            now = found
        return now

    def _add_ends(self) -> None:
        """Two columns below and above all values."""
        program, values = self.session.program, self.rows.values
        n_groups, width = len(values), program.cost.size
        one, eye = np.arange(n_groups), np.ones(n_groups)
        below = sparse.csr_array(
            (np.concatenate([eye, -eye]), (np.tile(one, 2), np.concatenate([values, np.full(n_groups, width)]))),
            shape=(n_groups, width + 2),
        )
        above = sparse.csr_array(
            (np.concatenate([eye, -eye]), (np.tile(one, 2), np.concatenate([np.full(n_groups, width + 1), values]))),
            shape=(n_groups, width + 2),
        )
        old = sparse.csr_array(program.matrix)
        old.resize((old.shape[0], width + 2))
        self.session = Session.from_arrays(
            Program(
                cost=np.concatenate([program.cost, np.zeros(2)]),
                matrix=sparse.csr_array(sparse.vstack([old, below, above])),
                row_lower=np.concatenate([program.row_lower, np.zeros(2 * n_groups)]),
                row_upper=np.concatenate([program.row_upper, np.full(2 * n_groups, np.inf)]),
                lower=np.concatenate([program.lower, np.full(2, -np.inf)]),
                upper=np.concatenate([program.upper, np.full(2, np.inf)]),
                integer=np.concatenate([program.integer, np.zeros(2, dtype=bool)]),
                maximise=False,
            ),
            self.profile,
        )

    def resources(self, cohort: Cohort) -> tuple[Change, ...]:
        """Resources as large as the limits need, the least in all; none where no size is enough."""
        coupling = cohort.coupling
        if not self._n_resources or coupling is None or coupling.limit.ndim != 1:
            return ()
        size = self.session.program.cost.size
        limit = np.maximum(np.abs(coupling.limit), 1e-3)
        self._open([])
        cost = np.zeros(size)
        cost[self.slack[5]] = 1.0 / limit
        self.session.set_cost(np.arange(size), cost)
        # Rows that hold exactly and those from below are no resources of which more could be had.
        grows = ~coupling.equal & (coupling.limit >= 0)
        self.session.set_bounds(self.slack[5], np.zeros(len(limit)), np.where(grows, np.inf, 0.0))
        point = self._solve()
        if point is None:
            return ()
        more = point[self.slack[5]]
        return tuple(
            Change(name, float(coupling.limit[k]), float(coupling.limit[k] + more[k]), rises=True)
            for k, name in enumerate(coupling.names)
            if more[k] > MOVED * limit[k]
        )


def _ratio(values: np.ndarray) -> float:
    """Smallest value over the largest; 1 where all are 0."""
    highest = float(values.max())
    return float(values.min()) / highest if highest > 0 else 1.0
