"""One upper bound for every policy of a problem under an action set, with the prices that prove it.

Order of the bounds, tightest first: value of the best policy <= hull of allowed actions <= time-indexed program
<= discounted program with constant prices <= the decomposition at any prices <= arms without limits. The reported
value is always g(prices), evaluated arm by arm by this package at the prices that some method proposed; no solver's
objective is taken on trust.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from rmab_opt.actions import ActionSet, shared_arms
from rmab_opt.actions.checker import Rows, price_bound
from rmab_opt.actions.kinds.rows import row_units
from rmab_opt.errors import ModelError, SolverError
from rmab_opt.planning.coupling import Coupling
from rmab_opt.planning.guaranteed import guaranteed_prices, owed_of
from rmab_opt.planning.hull import ActionOracle, hull_bound
from rmab_opt.planning.lagrangian import (
    SMOOTHED_FROM,
    Dual,
    action_values,
    constant_prices,
    dual_average,
    dual_discounted,
    dual_finite,
    priced_arms_value,
    stationary_values,
)
from rmab_opt.planning.occupancy import Polyhedron, occupancy_model, polyhedron, solve_occupancy
from rmab_opt.problem import Problem
from rmab_opt.problem.dynamics import require_tabular
from rmab_opt.report import notebook_html
from rmab_opt.solver import Program, Session

__all__ = ["COUPLINGS", "KINDS", "Bound", "MarginalArm", "bound", "bound_arrays", "in_unit", "marginal_arms", "support"]

KINDS = ("auto", "time_indexed", "discounted", "discounted_tail", "average")
"""What is bounded: the problem's own horizon (auto, time_indexed) or an endless run."""

COUPLINGS = ("auto", "relaxation", "hull")
"""Through what the arms are coupled: the action set's linear relaxation, or mixtures of its allowed actions."""

HULL_TOLERANCE = 1e-4
"""Relative gap to which the hull is priced out by default; its value is a bound at any gap."""

TOLERANCE, LARGE_TOLERANCE, LARGE_COHORT = 1e-6, 1e-3, 10_000
"""Relative gap to which prices are sought by default, the one for many arms, and how many those are."""

MANY_PRICES = 150
"""Above this many prices the linear program is tried first, if it is small enough."""

BEGUN_SHARE = 0.3
"""Share of its time that the hull may take for the relaxation's prices, at which it begins."""

FEW_ROWS = 6
"""Rows of a set without a program of its own that get a price a round at most."""

CHEAP = 1e-3
"""Rows that take a smaller share of what the dearest one takes are left out with them."""

LARGE_PROGRAM = 2_000_000
"""Non-zeros above which the linear program is left for the decomposition."""


@dataclass(frozen=True, eq=False)
class Bound:
    """A proven upper limit on the expected total reward of every policy.

    Parameters
    ----------
    value
        The bound: total over arms (and rounds; an average a round for kind ``average``), in reward units.
    lower
        What the relaxed problem itself attains, certified; ``gap`` is the difference. A policy may lie below it.
    kind
        One of ``time_indexed``, ``discounted``, ``discounted_tail``, ``average``.
    method
        Who proposed the prices: ``dual``, ``highs``, ``pyomo``, ``cuts`` (the hull's), or ``none`` (no prices: arms
        without limits).
    coupling
        ``resources`` (rows on the actions themselves), ``relaxation`` (the action set's linear relaxation),
        ``allowed actions`` (the same prices, rents maximised over the true set, which can only be tighter) or ``hull``
        (prices chosen for the true set, the tightest).
    prices
        Reward units per unit of each named resource in one round, (K,) or (T, K); None with auxiliary variables.
    price_names
        Names of the K resources.
    arm_prices
        What acting costs arm by arm in one round, (N, A) or (T, N, A), passive free.
    occupancy
        State-action frequencies that attain ``lower``; None unless asked for.
    evaluations
        Prices tried.
    converged
        Whether the requested gap was reached; a value stopped early is a bound all the same.
    seconds
        Wall-clock time.
    """

    value: float
    lower: float
    kind: str
    method: str
    coupling: str
    prices: np.ndarray | None
    price_names: tuple[str, ...]
    arm_prices: np.ndarray
    occupancy: np.ndarray | None
    evaluations: int
    converged: bool
    seconds: float
    guarantees: tuple[str, ...] = ()
    """Guaranteed services that the bounded policies keep, in words."""
    without: float | None = None
    """The bound without them; None where there are none."""

    @property
    def gap(self) -> float:
        """``value - lower``, never negative."""
        return max(0.0, self.value - self.lower)

    @property
    def relative_gap(self) -> float:
        """Gap as a share of the larger of value and lower."""
        size = max(abs(self.value), abs(self.lower))
        return self.gap / size if size > 0 else 0.0

    def __float__(self) -> float:
        return self.value

    def summary(self) -> dict[str, Any]:
        """Plain numbers for reports and JSON."""
        return {
            "value": self.value,
            "lower": self.lower,
            "gap": self.gap,
            "kind": self.kind,
            "method": self.method,
            "coupling": self.coupling,
            "converged": self.converged,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
            **({"guarantees": list(self.guarantees), "without_guarantees": self.without} if self.guarantees else {}),
            "prices": {}
            if self.prices is None
            else {name: np.round(self.prices[..., k], 9).tolist() for k, name in enumerate(self.price_names)},
        }

    def _name(self) -> str:
        return f"Bound · {self.kind} · {self.coupling}"

    def _lines(self) -> list[tuple[str, str]]:
        lines = [("value", f"{self.value:.6g}   within {self.gap:.2g} of the relaxed problem's own value")]
        if self.prices is not None:
            for k, name in enumerate(self.price_names):
                column = np.atleast_2d(self.prices)[:, k]
                text = f"{column[0]:.4g}" if column.size == 1 else f"{column[0]:.4g} first round, {column[-1]:.4g} last"
                lines.append(("one more", f"{name}: {text}"))
        if self.guarantees and self.without is not None:
            cost = f"cost {max(0.0, self.without - self.value):.4g} of the bound {self.without:.6g} without them"
            lines += [("guaranteed", said) for said in self.guarantees] + [("their cost", cost)]
        state = "proven to the requested gap" if self.converged else "stopped early, still a valid bound"
        return [*lines, ("found", f"{self.seconds:.2g} s · {self.method} · {state}")]

    def __str__(self) -> str:
        *lines, last = [f"{label:<10}  {said}" for label, said in self._lines()]
        return "\n".join([self._name(), *(f"├ {line}" for line in lines), f"└ {last}"])

    def _repr_html_(self) -> str:
        return notebook_html(self._name(), [("", [{"": label, "what": said} for label, said in self._lines()])])


def bound(
    problem: Problem,
    actions: ActionSet,
    *,
    kind: str = "auto",
    coupling: str = "auto",
    method: str = "auto",
    tolerance: float | None = None,
    seconds: float | None = None,
    state: np.ndarray | None = None,
    horizon: int | None = None,
    discount: float | None = None,
    prices: np.ndarray | None = None,
    occupancy: bool = False,
    integer: bool = False,
    constant: bool = False,
) -> Bound:
    """Upper bound on what any policy under the action set earns from the problem's start.

    Parameters
    ----------
    problem
        With dynamics that offer ``tabular()``.
    actions
        What couples the arms, whatever constraints it declares.
    coupling
        ``relaxation``: the action set's linear relaxation; ``hull``: mixtures of allowed actions, never looser and
        much tighter for routes and loads (:mod:`rmab_opt.planning.hull`), for the problem's horizon; ``auto``: the
        relaxation, and the hull where columns act on several arms or share them, which have no other.
    kind
        ``auto`` and ``time_indexed``: the problem's horizon, discounted or not. ``discounted``: an endless run with one
        constant price a resource; ``discounted_tail``: the same with free prices in the first ``horizon`` rounds, never
        looser; ``average``: long-run reward a round.
    method
        ``auto``, ``dual`` (decomposition), ``highs`` (linear program) or ``pyomo`` (the same, readable, small).
    tolerance, seconds
        Relative gap to stop at (1e-6, from 10,000 arms 1e-3, for the hull 1e-4), and a limit on wall-clock time.
    state
        Start from these states, (N,), or probabilities (N, S), instead of the problem's start.
    horizon, discount
        Instead of the problem's.
    prices
        Where the decomposition starts.
    occupancy
        Whether to return state-action frequencies.
    integer
        Maximise the rents over the allowed actions themselves, one mixed-integer program a round: tighter where the
        relaxation is loose (routes).
    constant
        Hull only: the same prices in every round.

    Raises
    ------
    CapabilityError
        When the dynamics offer no tables, or a column acts on several arms and an endless run or frequencies are
        asked for.
    ModelError
        When ``kind``, ``coupling`` or ``method`` is unknown or does not fit the discount.
    """
    transition, reward = require_tabular(problem.dynamics, "the upper bound")
    if len(actions.lasting.constraints) < len(actions.constraints):
        asked = {"kind": kind, "coupling": coupling, "method": method, "occupancy": occupancy, "integer": integer}
        return _guaranteed(problem, actions, state, seconds, horizon, discount, asked | {"constant": constant})
    unit, least, reward = in_unit(reward)
    rounds, factor = problem.horizon if horizon is None else horizon, problem.discount if discount is None else discount
    found = _bound_in_unit(
        transition,
        reward,
        problem.start_distribution if state is None else np.asarray(state),
        actions,
        kind=kind,
        coupling=coupling,
        method=method,
        tolerance=tolerance,
        seconds=seconds,
        horizon=rounds,
        discount=factor,
        prices=None if prices is None else np.asarray(prices) / unit,
        occupancy=occupancy,
        integer=integer,
        constant=constant,
    )
    return _in_own_unit(found, unit, least, rounds, factor)


def _guaranteed(
    problem: Problem,
    actions: ActionSet,
    state: np.ndarray | None,
    seconds: float | None,
    horizon: int | None,
    discount: float | None,
    asked: dict[str, Any],
) -> Bound:
    """The bound of policies that keep guaranteed services, with the bound of all policies beside it."""
    known = {"kind": ("auto", "time_indexed"), "coupling": ("auto", "relaxation"), "method": ("auto", "highs")}
    for name, value in asked.items():
        if value not in known.get(name, (False,)):
            raise ModelError(
                f"{name}={value!r} under guaranteed services", f"leave {name} out, or bound the set without them."
            )
    transition, reward = require_tabular(problem.dynamics, "the upper bound")
    unit, least, reward = in_unit(reward)
    rounds, factor = problem.horizon if horizon is None else horizon, problem.discount if discount is None else discount
    begun = time.perf_counter()
    start = problem.start_distribution if state is None else np.asarray(state)
    start = np.eye(reward.shape[1])[start] if start.ndim == 1 else start
    proposed = guaranteed_prices(
        transition, reward, start, actions, horizon=rounds, discount=factor, seconds=seconds
    )  # fmt: skip
    rows = proposed.rows
    allowed = _allowed(rows, proposed.arm_prices)
    value = priced_arms_value(transition, reward, start, proposed.arm_prices, rounds, factor, allowed)
    value += float(factor ** np.arange(rounds) @ support(rows, proposed.column_prices)) - proposed.rent
    found = Bound(
        value=value,
        lower=min(proposed.lower, value),
        kind="time_indexed",
        method="highs",
        coupling="relaxation" if rows.n_extra else "resources",
        prices=None if rows.n_extra else proposed.prices,
        price_names=() if rows.n_extra else rows.names,
        arm_prices=proposed.arm_prices,
        occupancy=None,
        evaluations=1,
        converged=value - proposed.lower <= 1e-6 * max(1.0, abs(value)),
        seconds=time.perf_counter() - begun,
        guarantees=tuple(actions.constraints[name].describe() for name in owed_of(actions)),
    )
    free = bound(problem, actions.lasting, state=state, seconds=seconds, horizon=horizon, discount=discount)
    return replace(_in_own_unit(found, unit, least, rounds, factor), without=free.value)


def _allowed(rows: Polyhedron, arm_prices: np.ndarray) -> np.ndarray:
    """Arm-actions that exist, bool (N, A)."""
    allowed = np.zeros(arm_prices.shape[-2:], dtype=bool)
    allowed[:, 0] = True
    open_ = rows.z_upper > 0
    allowed[rows.arm[open_], rows.action[open_]] = True
    return allowed


LARGEST_REWARD = 1e150
"""Larger numbers overflow in sums and squares and are refused."""


def in_unit(reward: np.ndarray) -> tuple[float, float, np.ndarray]:
    """(unit, what all arms earn a round whatever is done, rewards above that in the unit).

    The unit is the power of two near the largest difference within an arm.

    Raises
    ------
    ModelError
        When a reward is above 1e150.
    """
    largest = float(np.abs(reward).max(initial=0.0))
    if not largest <= LARGEST_REWARD:
        raise ModelError(f"a reward is {largest:g} in size", f"give finite numbers of at most {LARGEST_REWARD:g}.")
    least = reward.min(axis=(1, 2), keepdims=True)
    span = float((reward - least).max(initial=0.0))
    unit = float(2.0 ** np.round(np.log2(span))) if span > 0 else 1.0
    return unit, float(least.sum()), (reward - least) / unit


def _in_own_unit(found: Bound, unit: float, least: float, horizon: int, discount: float) -> Bound:
    """A bound of rewards in their unit, for the rewards themselves."""
    if found.kind == "average":
        rounds = 1.0
    elif found.kind == "time_indexed":
        rounds = float((discount ** np.arange(horizon)).sum())
    else:
        rounds = 1.0 / (1.0 - discount)
    return replace(
        found,
        value=found.value * unit + least * rounds,
        lower=found.lower * unit + least * rounds,
        prices=None if found.prices is None else found.prices * unit,
        arm_prices=found.arm_prices * unit,
    )


def _bound_in_unit(
    transition: np.ndarray,
    reward: np.ndarray,
    start: np.ndarray,
    actions: ActionSet,
    *,
    kind: str,
    coupling: str,
    method: str,
    tolerance: float | None,
    seconds: float | None,
    horizon: int,
    discount: float,
    prices: np.ndarray | None,
    occupancy: bool,
    integer: bool,
    constant: bool,
) -> Bound:
    """:func:`bound` with rewards in their unit."""
    if coupling not in COUPLINGS:
        raise ModelError(f"coupling is {coupling!r}", f"use one of {', '.join(COUPLINGS)}.")
    if coupling == "hull" or (
        coupling == "auto" and kind in ("auto", "time_indexed") and not occupancy and shared_arms(actions.columns)
    ):
        if kind not in ("auto", "time_indexed") or occupancy:
            raise ModelError(
                f"coupling 'hull' with kind {kind!r} and occupancy {occupancy}",
                "use kind 'time_indexed' without frequencies, or coupling 'relaxation'.",
            )
        return _hull(
            transition,
            reward,
            start,
            actions,
            horizon=horizon,
            discount=discount,
            tolerance=HULL_TOLERANCE if tolerance is None else tolerance,
            seconds=seconds,
            constant=constant,
        )
    if constant:
        raise ModelError("constant prices without coupling 'hull'", "use kind 'discounted' for one price a resource.")
    rows = polyhedron(actions, reward.shape[2])
    if actions.outer is not None:
        rows = _dear(rows, transition, reward, start, horizon, discount)
    return bound_arrays(
        transition,
        reward,
        start,
        rows,
        kind=kind,
        method=method,
        horizon=horizon,
        discount=discount,
        tolerance=(LARGE_TOLERANCE if len(transition) >= LARGE_COHORT else TOLERANCE)
        if tolerance is None
        else tolerance,
        seconds=seconds,
        prices=prices,
        occupancy=occupancy,
        integer=integer,
        actions=actions,
    )


def _dear(
    rows: Polyhedron, transition: np.ndarray, reward: np.ndarray, start: np.ndarray, horizon: int, discount: float
) -> Polyhedron:
    """The rows that rough constant prices do not call free; others would cost a price a round and prove little.

    Only for rows beside which the set has others of its own: any of them bound it, however few.
    """
    coupling = rows.coupling(len(transition), reward.shape[2])
    if coupling is None or coupling.n_rows <= FEW_ROWS:
        return rows
    start = np.eye(reward.shape[1])[start] if start.ndim == 1 else start
    prices = constant_prices(transition, reward, coupling, start, horizon=horizon, discount=discount)
    paid = prices * np.abs(coupling.limit)
    order = np.argsort(-paid, kind="stable")[:FEW_ROWS]
    dear = {coupling.names[k].removesuffix(" (at least)") for k in order if paid[k] > CHEAP * paid.max(initial=0.0)}
    kept = np.array([k for k, name in enumerate(rows.names) if name in dear], dtype=np.int64)
    if not kept.size:
        return rows
    return replace(
        rows,
        act=rows.act[kept],
        extra=rows.extra[kept],
        lower=rows.lower[kept],
        upper=rows.upper[kept],
        names=tuple(rows.names[k] for k in kept.tolist()),
    )


def _hull(
    transition: np.ndarray,
    reward: np.ndarray,
    start: np.ndarray,
    actions: ActionSet,
    *,
    horizon: int,
    discount: float,
    tolerance: float,
    seconds: float | None,
    constant: bool,
) -> Bound:
    """The hull's bound, begun at the relaxation's prices where there are any."""
    begun = time.perf_counter()
    n_states, n_actions = reward.shape[1:]
    start = np.eye(n_states)[start] if start.ndim == 1 else start
    first = None
    if not shared_arms(actions.columns):
        rows = polyhedron(actions, n_actions)
        first = bound_arrays(
            transition,
            reward,
            start,
            rows,
            horizon=horizon,
            discount=discount,
            tolerance=1e-4,
            seconds=None if seconds is None else BEGUN_SHARE * seconds,
            certify=False,
        ).arm_prices
    found = hull_bound(
        transition,
        reward,
        start,
        ActionOracle(actions, n_actions),
        horizon=horizon,
        discount=discount,
        prices=first,
        constant=constant,
        tolerance=tolerance,
        seconds=None if seconds is None else max(0.0, seconds - (time.perf_counter() - begun)),
    )
    return Bound(
        value=found.value,
        lower=found.lower,
        kind="time_indexed",
        method="cuts",
        coupling="hull",
        prices=None,
        price_names=(),
        arm_prices=found.prices,
        occupancy=None,
        evaluations=found.tries,
        converged=found.converged,
        seconds=time.perf_counter() - begun,
    )


def bound_arrays(
    transition: np.ndarray,
    reward: np.ndarray,
    start: np.ndarray,
    rows: Polyhedron | Coupling,
    *,
    horizon: int,
    discount: float = 1.0,
    kind: str = "auto",
    method: str = "auto",
    tolerance: float = 1e-6,
    seconds: float | None = None,
    prices: np.ndarray | None = None,
    occupancy: bool = False,
    integer: bool = False,
    actions: ActionSet | None = None,
    terminal: np.ndarray | None = None,
    certify: bool = True,
) -> Bound:
    """:func:`bound` on arrays; ``rows`` are resources or an action set's polyhedron.

    Parameters
    ----------
    terminal
        Values of the arms' states after the last round, (N, S); time-indexed only.
    certify
        False leaves out the evaluation of the linear program's prices; then ``value`` is the solver's objective and
        no proof, for callers that only need prices.
    """
    begun = time.perf_counter()
    if kind not in KINDS:
        raise ModelError(f"kind is {kind!r}", f"use one of {', '.join(KINDS)}.")
    if method not in ("auto", "dual", "highs", "pyomo"):
        raise ModelError(f"method is {method!r}", "use 'auto', 'dual', 'highs' or 'pyomo'.")
    kind = "time_indexed" if kind == "auto" else kind
    if kind.startswith("discounted") and discount >= 1.0:
        raise ModelError(f"kind {kind} with discount {discount}", "give a discount below 1.")
    n_arms, n_actions, n_states, _ = transition.shape
    asked = _Asked(
        transition=transition,
        reward=reward,
        start=np.eye(n_states)[start] if np.ndim(start) == 1 else np.asarray(start),
        rows=rows,
        coupling=rows if isinstance(rows, Coupling) else rows.coupling(n_arms, n_actions),
        kind=kind,
        horizon=horizon,
        discount=discount,
        terminal=terminal,
        tolerance=tolerance,
        seconds=seconds,
        integer=integer,
    )
    method = _choose(transition, asked.coupling, asked.rounds) if method == "auto" else method
    if kind == "discounted_tail":
        if asked.coupling is None:
            raise ModelError("kind discounted_tail needs resources without auxiliary variables", "use 'discounted'.")
        method = "dual"
    if method == "dual":
        found = asked.by_prices(prices, occupancy)
    else:
        found = asked.by_program(method, actions, occupancy, certify)
    return replace(found, seconds=time.perf_counter() - begun)


def _choose(transition: np.ndarray, coupling: Coupling | None, rounds: int | None) -> str:
    if coupling is None:
        return "highs"
    mixed = coupling.cost.gives.any()
    n_prices = coupling.n_rows * (rounds or 1)
    if n_prices * len(transition) >= SMOOTHED_FROM and not mixed and not coupling.equal.any():
        return "dual"
    size = np.count_nonzero(transition) * (rounds or 1)
    if (n_prices > MANY_PRICES or mixed) and size <= LARGE_PROGRAM and not coupling.cost.by_state:
        return "highs"
    return "dual"


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is bounded, checked; and the two ways to a bound: by prices, and by a linear program."""

    transition: np.ndarray
    reward: np.ndarray
    start: np.ndarray
    """Shape (N, S)."""
    rows: Polyhedron | Coupling
    coupling: Coupling | None
    """Rows on the actions alone; None where there are auxiliary variables."""
    kind: str
    horizon: int
    discount: float
    terminal: np.ndarray | None
    tolerance: float
    seconds: float | None
    integer: bool

    @property
    def rounds(self) -> int | None:
        """Of a time-indexed bound; None: an endless run."""
        return self.horizon if self.kind == "time_indexed" else None

    @property
    def factor(self) -> float:
        """Discount of a round."""
        return 1.0 if self.kind == "average" else self.discount

    def certified(self, rows: Polyhedron, arm_prices: np.ndarray, integer: bool) -> float:
        """The bound at prices, evaluated arm by arm."""
        return certified(
            self.transition,
            self.reward,
            self.start,
            rows,
            arm_prices,
            self.rounds,
            self.factor,
            integer=integer,
            terminal=self.terminal,
        )

    def by_prices(self, prices: np.ndarray | None, occupancy: bool) -> Bound:
        """The decomposition at its best prices."""
        coupling = self.coupling
        if coupling is None:
            raise ModelError("method 'dual' needs rows on the actions alone", "use 'highs', or 'auto'.")
        dual = self._dual(coupling, prices, occupancy)
        arm_prices = arm_prices_of(coupling, dual.prices, len(self.transition))
        value, relaxation = dual.value, "resources"
        if self.integer and isinstance(self.rows, Polyhedron) and self.kind != "discounted_tail":
            tight = self.certified(self.rows, arm_prices, integer=True)
            if tight < value:
                value, relaxation = tight, "allowed actions"
        return Bound(
            value=value,
            lower=min(dual.lower, value),
            kind=self.kind,
            method="dual",
            coupling=relaxation,
            prices=dual.prices,
            price_names=coupling.names,
            arm_prices=arm_prices,
            occupancy=dual.occupancy,
            evaluations=dual.evaluations,
            converged=dual.converged,
            seconds=0.0,
        )

    def by_program(self, method: str, actions: ActionSet | None, occupancy: bool, certify: bool) -> Bound:
        """The linear program of occupancies, whose prices are then evaluated."""
        n_arms, n_actions = self.transition.shape[:2]
        shape = self.rows if isinstance(self.rows, Polyhedron) else Polyhedron.from_coupling(self.rows, n_arms)
        x, lower, resource_prices = None, -np.inf, None
        arm_prices = np.zeros((n_arms, n_actions) if self.rounds is None else (self.horizon, n_arms, n_actions))
        found = "none"
        try:
            lower, x, column_price, resource_prices = self._solved(method, shape, actions)
            arm_prices[..., shape.arm, shape.action] = column_price
            found = method
        except SolverError:
            # A limit before the optimum: without prices the arms' own optima are still a bound, and the kind says so.
            if method == "pyomo":
                raise
        if not certify and found != "none":
            value = lower
        elif self.kind == "average":
            value = _average_value(self.transition, self.reward, self.start, shape, arm_prices)
        else:
            value = self.certified(shape, arm_prices, integer=False)
        relaxation = "relaxation" if shape.n_extra else "resources"
        if self.integer and self.kind != "average":
            tight = self.certified(shape, arm_prices, integer=True)
            if tight < value:
                value, relaxation = tight, "allowed actions"
        lower = min(lower, value)
        close = value - lower <= max(self.tolerance, 1e-6) * max(1.0, abs(value))
        return Bound(
            value=value,
            lower=lower,
            kind=self.kind,
            method=found,
            coupling=relaxation,
            prices=resource_prices,
            price_names=shape.names if resource_prices is not None else (),
            arm_prices=arm_prices,
            occupancy=x if occupancy else None,
            evaluations=1,
            converged=close or relaxation == "allowed actions",
            seconds=0.0,
        )

    def _solved(
        self, method: str, shape: Polyhedron, actions: ActionSet | None
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray | None]:
        """Optimum of the program, its occupancies, and prices of columns and of resources."""
        if method == "pyomo":
            if actions is None:
                raise ModelError("method 'pyomo' needs the action set", "call bound(problem, actions, method='pyomo').")
            return *_through_pyomo(
                self.transition, self.reward, self.start, actions, self.rounds, self.factor, self.seconds
            ), None
        solved = solve_occupancy(
            self.transition,
            self.reward,
            self.start,
            discount=self.factor,
            horizon=self.rounds,
            rows=shape,
            terminal=self.terminal,
            transient=self.kind == "average",
            seconds=self.seconds,
        )
        return solved.value, solved.x, solved.prices @ shape.act, solved.prices if shape.n_extra == 0 else None

    def _dual(self, coupling: Coupling, prices: np.ndarray | None, occupancy: bool) -> Dual:
        """Prices of the resources that make the decomposition least."""
        arms = (self.transition, self.reward, coupling)
        common: dict[str, Any] = {"tolerance": self.tolerance, "seconds": self.seconds, "occupancy": occupancy}
        ahead: dict[str, Any] = {"horizon": self.horizon, "discount": self.discount, **common}
        if self.kind == "time_indexed":
            return dual_finite(*arms, self.start, terminal=self.terminal, prices=prices, **ahead)
        if self.kind == "average":
            return dual_average(*arms, prices=prices, **common)
        if self.kind == "discounted":
            return dual_discounted(*arms, self.start, discount=self.discount, prices=prices, **common)
        steady = dual_discounted(*arms, self.start, discount=self.discount, tolerance=self.tolerance)
        tail = stationary_values(*arms, steady.prices, discount=self.discount)
        after = self.discount**self.horizon * float(coupling.limit @ steady.prices) / (1.0 - self.discount)
        dual = dual_finite(
            *arms, self.start, terminal=tail, prices=steady.prices if prices is None else prices, **ahead
        )
        return replace(
            dual,
            value=min(dual.value + after, steady.value),
            lower=dual.lower + after,
            evaluations=dual.evaluations + steady.evaluations,
            seconds=dual.seconds + steady.seconds,
        )


def arm_prices_of(coupling: Coupling, prices: np.ndarray, n_arms: int) -> np.ndarray:
    """Resource prices as prices of arm-actions, (N, A) or (T, N, A); state-dependent costs are averaged over states."""
    paid = coupling.cost.paid(prices).mean(axis=-2)
    return np.array(np.broadcast_to(paid, (*prices.shape[:-1], n_arms, paid.shape[-1])))


def support(rows: Polyhedron, column_prices: np.ndarray, *, integer: bool = False) -> np.ndarray:
    """Largest price . z over what is allowed in one round, for each of several price vectors.

    Parameters
    ----------
    column_prices
        Shape (T, C).
    integer
        Over allowed actions instead of their linear relaxation.

    Returns
    -------
    numpy.ndarray
        Proven upper values, shape (T,).

    Raises
    ------
    SolverError
        When the solver gives no bound.
    """
    n_columns = rows.arm.size
    matrix = sparse.csr_array(sparse.hstack([rows.act, rows.extra], format="csr"))
    units = row_units(matrix)
    program = Program(
        cost=np.zeros(n_columns + rows.n_extra),
        matrix=sparse.csr_array(sparse.diags_array(1.0 / units) @ matrix) if (units != 1.0).any() else matrix,
        row_lower=rows.lower / units,
        row_upper=rows.upper / units,
        lower=np.concatenate([np.zeros(n_columns), rows.w_lower]),
        upper=np.concatenate([rows.z_upper, rows.w_upper]),
        integer=np.concatenate([np.full(n_columns, integer), rows.integer & integer]),
        maximise=True,
    )
    session = Session.from_arrays(program, "exact")
    matrix = program.matrix
    relaxed = Rows(
        matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), np.asarray(matrix.data),
        program.row_lower, program.row_upper, program.lower, program.upper,
        np.concatenate([np.ones(n_columns, dtype=bool), rows.integer]), np.arange(n_columns),
    )  # fmt: skip
    values = np.empty(len(column_prices))
    for t, price in enumerate(column_prices):
        if t and np.array_equal(price, column_prices[t - 1]):
            values[t] = values[t - 1]
            continue
        session.set_cost(np.arange(n_columns), price)
        result = session.solve()
        if not integer and result.row_duals is not None:
            # The solver proposes prices of the rows; what they prove is computed here.
            cost = np.concatenate([price, np.zeros(rows.n_extra)])
            values[t] = price_bound(relaxed, cost, 0.0, result.row_duals)
            if np.isfinite(values[t]):
                continue
        if not np.isfinite(result.bound):
            raise SolverError(f"rents were not bounded: {result.status}", "bound the constraint's own variables.")
        values[t] = max(result.bound, result.objective if result.has_solution else -np.inf)
    return values


def certified(
    transition: np.ndarray,
    reward: np.ndarray,
    start: np.ndarray,
    rows: Polyhedron,
    arm_prices: np.ndarray,
    horizon: int | None,
    discount: float,
    *,
    integer: bool,
    terminal: np.ndarray | None = None,
) -> float:
    """g at given arm prices: arms' values plus the most that any allowed action can collect in prices."""
    allowed = _allowed(rows, arm_prices)
    value = priced_arms_value(transition, reward, start, arm_prices, horizon, discount, allowed, terminal)
    column_prices = np.atleast_2d(arm_prices[..., rows.arm, rows.action])
    rents = support(rows, column_prices, integer=integer)
    weight = discount ** np.arange(horizon) if horizon is not None else np.array([1.0 / (1.0 - discount)])
    return value + float(weight @ rents)


def _average_value(
    transition: np.ndarray,
    reward: np.ndarray,
    start: np.ndarray,
    rows: Polyhedron,
    arm_prices: np.ndarray,
) -> float:
    """Average reward: arms' gains from their own small programs, which need no single recurrent class."""
    paid = reward - arm_prices[:, None, :]
    allowed = _allowed(rows, arm_prices)
    kernel = np.where(allowed[:, :, None, None], transition, transition[:, :1])
    paid = np.where(allowed[:, None, :], paid, paid[:, :, :1])
    own = solve_occupancy(kernel, paid, start, discount=1.0, transient=True)
    rents = support(rows, arm_prices[None, rows.arm, rows.action])
    return own.value + float(rents[0])


def _through_pyomo(
    transition: np.ndarray,
    reward: np.ndarray,
    start: np.ndarray,
    actions: ActionSet,
    horizon: int | None,
    discount: float,
    seconds: float | None,
) -> tuple[float, np.ndarray, np.ndarray]:
    """Optimum, frequencies and column prices from the readable model: prices are the duals of its ``expected`` rows."""
    n_arms, n_actions, n_states, _ = transition.shape
    model = occupancy_model(transition, reward, start, discount=discount, horizon=horizon, actions=actions)
    session = Session(model, "exact")
    result = session.solve(seconds=seconds)
    if result.x is None or result.row_duals is None:
        raise SolverError(f"the occupancy program was not solved: {result.status}", "use method='highs' or 'dual'.")
    rounds = 1 if horizon is None else horizon
    x = np.zeros((rounds, n_arms, n_states, n_actions))
    for key, variable in model.x.items():
        if not variable.fixed:
            x[key] = result.x[session.index(variable)]
    rows = session.rows(model.expected)
    price = result.row_duals[rows].reshape(rounds, len(actions))
    if horizon is not None:
        price = price / (discount ** np.arange(rounds))[:, None]
        return float(result.objective), x, price
    if discount < 1.0:
        price = price * (1.0 - discount)
    return float(result.objective), x[0], price[0]


# ---------------------------------------------------------------------------------------------------------------------
# What the prices tell


@dataclass(frozen=True)
class MarginalArm:
    """One arm near the margin: what its best action is worth now, what it costs, and the difference."""

    arm: int
    action: int
    worth: float
    price: float

    @property
    def margin(self) -> float:
        """Worth minus price: near zero at the margin, positive for arms that should be served."""
        return self.worth - self.price


def marginal_arms(
    transition: np.ndarray,
    reward: np.ndarray,
    state: Sequence[int] | np.ndarray,
    found: Bound,
    coupling: Coupling,
    *,
    horizon: int | None,
    discount: float,
    most: int = 10,
) -> list[MarginalArm]:
    """Arms whose service in the first round is worth about its price, nearest first."""
    if found.prices is None:
        raise ModelError("this bound has no resource prices", "use method='dual'.")
    q = action_values(transition, reward, coupling, found.prices, discount=discount, horizon=horizon)[0]
    arm = np.arange(q.shape[0])
    now = q[arm, np.asarray(state)]
    price = (found.arm_prices if found.arm_prices.ndim == 2 else found.arm_prices[0])[:, 1:]
    worth = now[:, 1:] - now[:, :1]
    margin = worth - price
    best = margin.argmax(axis=1)
    order = np.argsort(np.abs(margin[arm, best]), kind="stable")[:most]
    return [MarginalArm(int(n), int(best[n]) + 1, float(worth[n, best[n]]), float(price[n, best[n]])) for n in order]
