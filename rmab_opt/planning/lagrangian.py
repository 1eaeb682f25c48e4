"""The upper bound by decomposition: prices on the coupling rows make the arms independent.

    g(price) = sum_n V_n(price) + rent(price),    V_n = optimal value of arm n with reward r - price . cost

is convex, piecewise linear, and at least the value of every policy that respects the coupling, whatever the price;
its minimum is the occupancy-measure linear program. Each evaluation gives a value and a slope (rent minus expected
use), hence a cut; the cutting-plane program gives the next price, a lower value and, by its multipliers, the mixture
of evaluated policies that attains that value within the limits: the difference is a true primal-dual gap.

Few prices are found by Kelley's cuts alone, many (one a round) by a level bundle.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from rmab_opt.errors import ModelError, OverdueError
from rmab_opt.overdue import checkpoint, given_up_at
from rmab_opt.planning.costs import Costs
from rmab_opt.planning.coupling import Coupling, Merged, merge_identical
from rmab_opt.planning.priced_arms import Evaluator, Finite, Stationary
from rmab_opt.planning.smoothing import COLD, FINE, ROUGH, Drawn, Rests, Smoothed, smoothed
from rmab_opt.planning.smoothing import Problem as PriceProblem
from rmab_opt.solver import Program, Session, load_profile

__all__ = [
    "Dual",
    "action_values",
    "constant_prices",
    "dual_average",
    "dual_discounted",
    "dual_finite",
    "evaluate_prices",
    "priced_arms_value",
    "priced_values",
    "stationary_values",
]

ROUGH_SHARE = 0.3
"""Share of its time that a search may take for the rough prices it begins at; past it it begins at none."""

ROUGH_TOLERANCE = 1e-3
"""Gap from which a descent's constant prices are good enough; their gap is certified only roughly."""

SMOOTHED_FROM = 200_000
"""Prices times arms from which prices are sought by descents on smooth functions instead of cuts."""

SAMPLED_FROM, SAMPLE = 25_000, 12_000
"""Arms from which the first of these looks at a sample of them, and its size."""

NEVER = 1e6
"""Price, in its unit, at which nobody acts."""

FEW_PRICES = 3
"""Up to this many prices Kelley's cuts need fewer evaluations than the bundle."""

MOST_INHERITED = 200
"""Cuts that a search takes over from the one for a neighbouring limit."""

LEVEL = 0.9
"""Level of the bundle between lower (0) and best value (1); 0.9 took a third of the evaluations that 0.3 took."""


@dataclass(frozen=True, eq=False)
class Dual:
    """Outcome of the price search.

    Parameters
    ----------
    value
        Smallest g(price) found: an upper bound for every policy, converged or not. Total over arms.
    lower
        Certified value of the relaxed problem from below: ``value - lower`` bounds what more search can gain.
    prices
        Reward units per unit of each resource in one round, at the best value; (K,), or (T, K) for a finite horizon.
    use
        Expected use of the mixture that attains ``lower``, same shape (a discounted total, a round's, an average).
    occupancy
        Its state-action frequencies, (N, S, A) or (T, N, S, A); None unless asked for.
    evaluations
        Number of prices tried.
    seconds
        Wall-clock time.
    converged
        Whether the requested gap was reached.
    """

    value: float
    lower: float
    prices: np.ndarray
    use: np.ndarray
    occupancy: np.ndarray | None
    evaluations: int
    seconds: float
    converged: bool

    @property
    def gap(self) -> float:
        """``value - lower``, never negative."""
        return max(0.0, self.value - self.lower)

    @property
    def relative_gap(self) -> float:
        """Gap as a share of max(1, |value|)."""
        return self.gap / max(1.0, abs(self.value))


# ---------------------------------------------------------------------------------------------------------------------
# Price search


@dataclass
class _Search:
    """Minimise g over a box of prices with cuts, in scaled prices and values."""

    evaluator: Evaluator
    rent: np.ndarray
    weight: np.ndarray
    low: np.ndarray
    high: np.ndarray
    unit: np.ndarray
    tolerance: float
    most_evaluations: int = 1000
    deadline: float = np.inf
    tokens: list[object] = field(default_factory=list)
    prices: list[np.ndarray] = field(default_factory=list)
    arms: list[float] = field(default_factory=list)
    uses: list[np.ndarray] = field(default_factory=list)
    slopes: list[np.ndarray] = field(default_factory=list)
    heights: list[float] = field(default_factory=list)
    best: float = np.inf
    best_price: np.ndarray | None = None
    lower: float = -np.inf
    mixture: np.ndarray | None = None
    session: Session | None = None
    scale: float = 1.0

    @property
    def size(self) -> int:
        """Number of prices."""
        return self.rent.size

    def evaluate(self, price: np.ndarray) -> float:
        """Evaluate g, keep its cut, return the value."""
        checkpoint()
        arms, use, token = self.evaluator(price)
        value = arms + float(self.rent @ price)
        slope = self.rent - self.weight * use
        self.tokens.append(token)
        self.prices.append(price.copy())
        self.arms.append(arms)
        self.uses.append(use)
        self.slopes.append(slope)
        self.heights.append(value - float(slope @ price))
        if value < self.best:
            self.best, self.best_price = value, price.copy()
        self._add_cut()
        return value

    def adopt(self, other: _Search) -> None:
        """Take over the evaluations of a search that differs in its rents only: no policy is evaluated again."""
        self.tokens, self.prices, self.arms = list(other.tokens), list(other.prices), list(other.arms)
        self.uses = list(other.uses)
        self.slopes = [self.rent - self.weight * use for use in self.uses]
        values = np.array(self.arms) + np.array(self.prices) @ self.rent
        slopes = np.array(self.slopes)
        self.heights = (values - (slopes * np.array(self.prices)).sum(axis=1)).tolist()
        first = int(values.argmin())
        self.best, self.best_price = float(values[first]), self.prices[first].copy()
        if len(self.heights) > MOST_INHERITED:
            # Cuts far below the value near the best price will not be active; they only slow the programs down.
            near = np.array(self.heights) + slopes @ self.best_price
            kept = np.sort(np.argsort(-near, kind="stable")[:MOST_INHERITED])
            for name in ("tokens", "prices", "arms", "uses", "slopes", "heights"):
                old = getattr(self, name)
                setattr(self, name, [old[i] for i in kept])
        self._start_session()

    def _cut_rows(self, first: int) -> tuple[np.ndarray, np.ndarray]:
        slopes = np.array(self.slopes[first:]) * self.unit / self.scale
        return np.concatenate([np.ones((len(slopes), 1)), -slopes], axis=1), np.array(self.heights[first:]) / self.scale

    def _start_session(self) -> None:
        self.scale = max(1.0, abs(self.heights[0]))
        rows, heights = self._cut_rows(0)
        program = Program(
            cost=np.concatenate([[1.0], np.zeros(self.size)]),
            matrix=sparse.csr_array(rows),
            row_lower=heights,
            row_upper=np.full(heights.size, np.inf),
            lower=np.concatenate([[-np.inf], self.low / self.unit]),
            upper=np.concatenate([[np.inf], self.high / self.unit]),
            integer=np.zeros(self.size + 1, dtype=bool),
        )
        self.session = Session.from_arrays(program, load_profile("exact"))

    def _add_cut(self) -> None:
        if self.session is None:
            self._start_session()
        else:
            rows, heights = self._cut_rows(len(self.slopes) - 1)
            self.session.add_rows(rows, heights, np.inf)

    def run(self) -> None:
        """Search with the method that suits the number of prices."""
        if self.size <= FEW_PRICES:
            self.kelley()
        else:
            self.level_bundle()

    def cutting_plane(self) -> np.ndarray:
        """Lowest point of the cuts; updates the certified lower value and its mixture."""
        assert self.session is not None
        result = self.session.solve()
        if result.x is None or result.row_duals is None:
            assert self.best_price is not None
            return self.best_price
        mixture = np.maximum(result.row_duals, 0.0)
        mixture /= mixture.sum()
        # The value of the mixture is computed here, so the certificate does not rest on the solver's tolerances.
        slope = mixture @ np.array(self.slopes)
        worst = np.where(slope > 0, self.low, self.high)
        lower = float(mixture @ np.array(self.heights) + slope @ np.where(slope == 0, 0.0, worst))
        if lower > self.lower:
            self.lower, self.mixture = lower, mixture
        return np.clip(result.x[1:] * self.unit, self.low, self.high)

    @property
    def closed(self) -> bool:
        return self.best - self.lower <= self.tolerance * max(1.0, abs(self.best))

    @property
    def stopped(self) -> bool:
        return len(self.heights) >= self.most_evaluations or time.perf_counter() > self.deadline

    def kelley(self) -> None:
        """Next price = lowest point of the cuts."""
        while True:
            price = self.cutting_plane()
            if self.closed or self.stopped:
                return
            before = self.best
            self.evaluate(price)
            if self.best >= before and self.best_price is not None and np.array_equal(price, self.best_price):
                return

    def level_bundle(self, share: float = LEVEL) -> None:
        """Next price = projection of the best price onto the cuts' level set between lower and best value."""
        stalled = 0
        while True:
            lowest = self.cutting_plane()
            if self.closed or self.stopped:
                return
            price = self._project(self.lower + share * (self.best - self.lower))
            if price is None or stalled >= 3:
                price, stalled = lowest, 0
            before = self.best - self.lower
            self.evaluate(price)
            stalled = stalled + 1 if before - (self.best - self.lower) <= 1e-12 * max(1.0, abs(self.best)) else 0

    def _project(self, level: float) -> np.ndarray | None:
        """Nearest point to the best price with every cut at most ``level``, by a least-distance program."""
        # Loaded where it is used: it takes a third of a second that few decisions need.
        from scipy.optimize import nnls

        assert self.best_price is not None
        centre = self.best_price
        slopes = np.array(self.slopes) * self.unit
        room = level - np.array(self.heights) - np.array(self.slopes) @ centre
        norm = np.linalg.norm(slopes, axis=1)
        used = norm > 0
        matrix = -slopes[used] / norm[used, None]
        right = -room[used] / norm[used]
        eye = np.eye(self.size)
        matrix = np.concatenate([matrix, eye, -eye])
        right = np.concatenate([right, (self.low - centre) / self.unit, (centre - self.high) / self.unit])
        scale = np.abs(right[: int(used.sum())]).max()
        if not np.isfinite(scale) or scale <= 0:
            return None
        right = right / scale
        keep = np.isfinite(right) & (right > -1e6)
        matrix, right = matrix[keep], right[keep]
        system = np.concatenate([matrix.T, right[None, :]])
        target = np.zeros(self.size + 1)
        target[-1] = 1.0
        try:
            multiplier, residual = nnls(system, target, maxiter=20 * system.shape[1])
        except RuntimeError:
            return None
        if residual <= 1e-10:
            return None
        rest = system @ multiplier - target
        step = -rest[:-1] / rest[-1]
        if not np.isfinite(step).all():
            return None
        return np.clip(centre + step * scale * self.unit, self.low, self.high)


def _arms(
    transition: np.ndarray, reward: np.ndarray, coupling: Coupling, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Costs, Merged]:
    transition, reward = np.asarray(transition, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    n_arms, n_actions, n_states, _ = transition.shape
    if coupling.cost.shape[3] != n_actions or coupling.cost.shape[1] not in (1, n_arms):
        raise ModelError(
            f"coupling costs have shape {coupling.cost.shape} for {n_arms} arms and {n_actions} actions",
            "give (K, N or 1, S or 1, A).",
        )
    start = np.asarray(start)
    if start.ndim == 1:
        start = np.eye(n_states)[start]
    merged = merge_identical(transition, reward, coupling.cost, start)
    kinds = merged.representative
    if kinds.size < n_arms:
        transition, reward = transition[kinds], reward[kinds]
    costs = coupling.cost if kinds.size == n_arms else coupling.cost.of_arms(kinds)
    return np.ascontiguousarray(transition), np.ascontiguousarray(reward), costs, merged


def _box(reward: np.ndarray, costs: Costs, equal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Natural unit of each price, and the price a round beyond which nobody uses the resource."""
    span = max(float(np.ptp(reward)), 1e-9)
    # Rows with costs of both signs can need more; such a price box only costs tightness, never validity.
    unit = span / costs.smallest
    return unit, unit * np.where(costs.gives | equal, 50.0, 1.0)


def _finish(search: _Search, shape: tuple[int, ...], merged: Merged, n_arms: int, keep: bool, begun: float) -> Dual:
    assert search.best_price is not None
    use = np.full(search.size, np.nan)
    occupancy = None
    if search.mixture is not None:
        weights = search.mixture
        use = weights @ np.array(search.uses)[: weights.size]
        if keep:
            total: np.ndarray | float = 0.0
            for i in np.flatnonzero(weights > 1e-12):
                total = total + weights[i] * search.evaluator.occupancy(search.tokens[i])
            assert isinstance(total, np.ndarray)
            axis = total.ndim - 3
            share = 1.0 / merged.count[merged.member]
            occupancy = np.take(total, merged.member, axis=axis) * share[:, None, None]
    return Dual(
        value=search.best,
        lower=min(search.lower, search.best),
        prices=search.best_price.reshape(shape),
        use=use.reshape(shape),
        occupancy=occupancy,
        evaluations=len(search.heights),
        seconds=time.perf_counter() - begun,
        converged=search.closed,
    )


def dual_discounted(
    transition: np.ndarray,
    reward: np.ndarray,
    coupling: Coupling,
    start: np.ndarray,
    *,
    discount: float,
    tolerance: float = 1e-6,
    seconds: float | None = None,
    evaluations: int = 500,
    prices: np.ndarray | None = None,
    occupancy: bool = False,
) -> Dual:
    """Bound for the infinite discounted horizon with one constant price a resource.

    Parameters
    ----------
    transition, reward
        P[n, a, s, s'] of shape (N, A, S, S) and r[n, s, a] of shape (N, S, A).
    coupling
        Rows of one round; limits of shape (K,).
    start
        First states (N,), or their probabilities (N, S).
    discount
        In (0, 1).
    tolerance
        Relative primal-dual gap to stop at.
    seconds, evaluations
        Limits; what is found until then is a valid bound all the same.
    prices
        Where to start, (K,), e.g. those of a similar problem.
    occupancy
        Whether to rebuild the primal occupancy.

    Returns
    -------
    Dual
        Values are totals: sum over arms and rounds of discount**t times reward.
    """
    if not 0.0 < discount < 1.0:
        raise ModelError(f"discount is {discount!r}", "give a number in (0, 1), or use the finite or average bound.")
    return _stationary(
        transition, reward, coupling, start, discount, tolerance, seconds, evaluations, prices, occupancy
    )


def dual_average(
    transition: np.ndarray,
    reward: np.ndarray,
    coupling: Coupling,
    *,
    tolerance: float = 1e-6,
    seconds: float | None = None,
    evaluations: int = 500,
    prices: np.ndarray | None = None,
    occupancy: bool = False,
) -> Dual:
    """Bound for the long-run average reward a round; every policy of an arm must have one recurrent class.

    Raises
    ------
    CapabilityError
        When a policy met in the search has several recurrent classes; the linear program handles those.
    """
    start = np.zeros(transition.shape[0], dtype=np.int64)
    return _stationary(transition, reward, coupling, start, 1.0, tolerance, seconds, evaluations, prices, occupancy)


def _stationary(
    transition: np.ndarray,
    reward: np.ndarray,
    coupling: Coupling,
    start: np.ndarray,
    discount: float,
    tolerance: float,
    seconds: float | None,
    evaluations: int,
    prices: np.ndarray | None,
    occupancy: bool,
) -> Dual:
    begun = time.perf_counter()
    n_arms = transition.shape[0]
    kernel, pay, costs, merged = _arms(transition, reward, coupling, start)
    if coupling.limit.ndim != 1:
        raise ModelError("limits change from round to round", "use the finite-horizon bound.")
    search = _stationary_search(kernel, pay, costs, merged, coupling, discount, tolerance)
    search.most_evaluations = evaluations
    search.deadline = begun + (np.inf if seconds is None else seconds)
    low, high = search.low, search.high
    first = np.clip(np.zeros(coupling.n_rows) if prices is None else prices, low, high)
    if not occupancy and search.size > FEW_PRICES and _smooths(search, coupling):
        found = _descended(
            search,
            first,
            lambda arms: Stationary(kernel[arms], pay[arms], costs.of_arms(arms), merged.start[arms], discount),
        )
        if tolerance >= ROUGH_TOLERANCE or found.closed(tolerance) or search.stopped:
            return _dual_of(found, (coupling.n_rows,), tolerance, begun)
        first = found.price
    search.evaluate(np.asarray(first, dtype=np.float64))
    search.run()
    return _finish(search, (coupling.n_rows,), merged, n_arms, occupancy, begun)


def dual_finite(
    transition: np.ndarray,
    reward: np.ndarray,
    coupling: Coupling,
    start: np.ndarray,
    *,
    horizon: int,
    discount: float = 1.0,
    terminal: np.ndarray | None = None,
    tolerance: float = 1e-6,
    seconds: float | None = None,
    evaluations: int = 1000,
    prices: np.ndarray | None = None,
    occupancy: bool = False,
) -> Dual:
    """Bound for ``horizon`` rounds with one price a round and resource.

    Parameters
    ----------
    discount
        In (0, 1]; 1 gives plain totals.
    terminal
        Value of ending in each state, (N, S); none by default.
    prices
        Where to start, (T, K) or (K,).

    Other parameters and the result are those of :func:`dual_discounted`; prices are in the round's own reward units.
    """
    begun = time.perf_counter()
    n_arms = transition.shape[0]
    if horizon < 1 or not 0.0 < discount <= 1.0:
        raise ModelError(f"horizon {horizon!r}, discount {discount!r}", "give horizon >= 1 and discount in (0, 1].")
    kernel, pay, costs, merged = _arms(transition, reward, coupling, start)
    if terminal is not None and merged.representative.size < n_arms:
        merged = Merged(np.arange(n_arms), np.arange(n_arms), _spread(start, kernel.shape[2]), np.ones(n_arms))
        kernel, pay, costs = np.asarray(transition), np.asarray(reward), coupling.cost
    shape = (horizon, coupling.n_rows)
    search = _finite_search(kernel, pay, costs, merged, coupling, horizon, discount, terminal, tolerance)
    search.most_evaluations = evaluations
    search.deadline = begun + (np.inf if seconds is None else seconds)
    if prices is None:
        prices = np.zeros(coupling.n_rows)
        with suppress(OverdueError), given_up_at(begun + (np.inf if seconds is None else ROUGH_SHARE * seconds)):
            prices = _constant_prices(kernel, pay, costs, merged, coupling, horizon, discount)
    first = np.clip(np.broadcast_to(prices, shape).ravel(), search.low, search.high)
    if not occupancy and _smooths(search, coupling):
        found = _smoothed(search, first, np.broadcast_to(coupling.limit, shape))
        if found.closed(tolerance) or search.stopped:
            return _dual_of(found, shape, tolerance, begun)
        first = found.price
    search.evaluate(first)
    search.run()
    return _finish(search, shape, merged, n_arms, occupancy, begun)


def _smooths(search: _Search, coupling: Coupling) -> bool:
    """Whether the prices are sought by :mod:`rmab_opt.planning.smoothing`: for many of them times many arms."""
    evaluator, costs = search.evaluator, coupling.cost
    assert isinstance(evaluator, Finite | Stationary)
    many = len(evaluator.start) * search.size >= SMOOTHED_FROM
    able = evaluator.by_moves if isinstance(evaluator, Finite) else evaluator.rows is not None and not costs.by_state
    free = not costs.gives.any() and costs.passive_free
    return many and able and free and not coupling.equal.any()


def _smoothed(search: _Search, first: np.ndarray, limit: np.ndarray) -> Smoothed:
    """Prices by descents on smooth functions, of a sample of the arms first."""
    evaluator = search.evaluator
    assert isinstance(evaluator, Finite)
    whole = _smooth_problem(search, evaluator, limit)
    if len(evaluator.start) < SAMPLED_FROM:
        return smoothed(whole, first, search.tolerance, search.deadline)
    part, share = _sample(evaluator, whole.rows)
    rough = _smooth_problem(search, evaluator.sampled(part), limit * share)
    first = smoothed(rough, first, 0.0, search.deadline, heats=ROUGH).price
    return smoothed(whole, first, search.tolerance, search.deadline, heats=FINE)


def _sample(evaluator: Finite | Stationary, rows: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Arms to begin with, and what share of each row (K, N * A) is theirs."""
    n_arms, n_actions = len(evaluator.start), evaluator.reward.shape[1]
    part = np.sort(np.random.default_rng(0).permutation(n_arms)[:SAMPLE])
    weight, inside = evaluator.start.sum(axis=1), np.zeros(n_arms)
    inside[part] = weight[part]
    amount = np.abs(rows) @ np.repeat(weight, n_actions)
    return part, (np.abs(rows) @ np.repeat(inside, n_actions)) / np.maximum(amount, 1e-300)


def _descended(search: _Search, first: np.ndarray, sampled: Callable[[np.ndarray], Stationary]) -> Smoothed:
    """Constant prices of very many rows by one descent, without heat; ``sampled`` makes the evaluator of some arms."""
    evaluator = search.evaluator
    assert isinstance(evaluator, Stationary)
    whole = _endless_problem(search, evaluator, search.rent[None], first)
    if len(evaluator.start) >= SAMPLED_FROM:
        part, share = _sample(evaluator, whole.rows)
        rough = _endless_problem(search, sampled(part), search.rent[None] * share, first)
        first = smoothed(rough, first, 0.0, search.deadline, heats=COLD).price
    return smoothed(whole, first, search.tolerance, search.deadline, heats=COLD)


def _endless_problem(search: _Search, evaluator: Stationary, limit: np.ndarray, first: np.ndarray) -> PriceProblem:
    """Of all arms, or of a sample of them under its share of the limits, (1, K)."""
    assert evaluator.rows is not None
    rows = evaluator.rows
    matrix = rows.for_arms(len(evaluator.start))

    def hard(price: np.ndarray) -> float:
        return evaluator(price)[0] + float(limit[0] @ price)

    evaluator(first + NEVER * search.unit)
    idle, rests = evaluator._flat()[:, 0].copy(), Rests(matrix, evaluator.reward.shape[1])

    def within(price: np.ndarray, _: float) -> tuple[float, np.ndarray]:
        evaluator(price)
        flat = evaluator._flat()
        # An endless run has no rounds to rest in: arms act from the start, or never.
        share = rests.share(flat[None, :, 1:], limit)
        used = rows.use(evaluator._acted(share[:, None] * flat))
        return float((idle + share * (flat[:, 0] - idle)).sum()), used[None]

    span = max(float(np.ptp(evaluator.reward)), 1e-300)
    ones = np.ones(limit.shape)
    return PriceProblem(evaluator.drawn, hard, within, matrix, limit, ones, search.high, search.unit, span)


def _smooth_problem(search: _Search, evaluator: Finite, limit: np.ndarray) -> PriceProblem:
    """Of all arms, or of a sample of them under its share of the limits, (T, K)."""
    matrix = evaluator.costs.for_arms(len(evaluator.start))
    weight = search.weight.reshape(limit.shape)
    rent = (limit * weight).ravel()

    def drawn(price: np.ndarray, heat: float) -> Drawn:
        found = evaluator._by_moves(price, heat)
        return Drawn(found.total, found.acted.transpose(0, 2, 1))

    def hard(price: np.ndarray) -> float:
        return evaluator._by_moves(price).total + float(rent @ price)

    rests = Rests(matrix, evaluator.reward.shape[1])

    def within(price: np.ndarray, heat: float) -> tuple[float, np.ndarray]:
        return evaluator.within(price, heat, limit, rests)

    span = max(float(np.ptp(evaluator.reward)), 1e-300)
    return PriceProblem(drawn, hard, within, matrix, limit, weight, search.high, search.unit, span)


def _dual_of(found: Smoothed, shape: tuple[int, ...], tolerance: float, begun: float) -> Dual:
    return Dual(
        value=found.value,
        lower=min(found.lower, found.value),
        prices=found.price.reshape(shape),
        use=found.use.reshape(shape),
        occupancy=None,
        evaluations=found.evaluations,
        seconds=time.perf_counter() - begun,
        converged=found.closed(tolerance),
    )


def _stationary_search(
    kernel: np.ndarray,
    pay: np.ndarray,
    costs: Costs,
    merged: Merged,
    coupling: Coupling,
    discount: float,
    tolerance: float,
) -> _Search:
    rounds = 1.0 if discount == 1.0 else 1.0 / (1.0 - discount)
    unit, high = _box(pay, costs, coupling.equal)
    high = high * (rounds if discount < 1.0 else 100.0)
    low = np.where(coupling.equal, -high, 0.0)
    evaluator = Stationary(kernel, pay, costs, merged.start, discount)
    return _Search(evaluator, coupling.limit * rounds, np.ones(coupling.n_rows), low, high, unit, tolerance)


def _finite_search(
    kernel: np.ndarray,
    pay: np.ndarray,
    costs: Costs,
    merged: Merged,
    coupling: Coupling,
    horizon: int,
    discount: float,
    terminal: np.ndarray | None,
    tolerance: float,
) -> _Search:
    shape = (horizon, coupling.n_rows)
    unit, high = _box(pay, costs, coupling.equal)
    left = np.cumsum(discount ** np.arange(horizon))[::-1] if discount < 1 else np.arange(horizon, 0, -1.0)
    if terminal is not None:
        left = left + np.ptp(terminal) / max(float(np.ptp(pay)), 1e-9)
    top = (left[:, None] * high).ravel()
    bottom = np.where(np.broadcast_to(coupling.equal, shape).ravel(), -top, 0.0)
    weight = np.repeat(discount ** np.arange(horizon), coupling.n_rows)
    evaluator = Finite(kernel, pay, costs, merged.start, discount, horizon, terminal)
    rent = np.broadcast_to(coupling.limit, shape).ravel() * weight
    return _Search(evaluator, rent, weight, bottom, top, np.tile(unit, horizon), tolerance)


class Sweep:
    """One search that serves many limits: policies evaluated for one limit are cuts for all others.

    Parameters are those of :func:`dual_finite`, or of :func:`dual_discounted` without a horizon.
    """

    def __init__(
        self,
        transition: np.ndarray,
        reward: np.ndarray,
        coupling: Coupling,
        start: np.ndarray,
        *,
        horizon: int | None,
        discount: float,
        tolerance: float = 1e-6,
    ) -> None:
        kernel, pay, costs, self.merged = _arms(transition, reward, coupling, start)
        self.coupling, self.horizon, self.n_arms = coupling, horizon, transition.shape[0]
        if horizon is None:
            self.search = _stationary_search(kernel, pay, costs, self.merged, coupling, discount, tolerance)
            self.shape: tuple[int, ...] = (coupling.n_rows,)
            self.scale = np.array(1.0 if discount == 1.0 else 1.0 / (1.0 - discount))
            first = np.zeros(coupling.n_rows)
        else:
            self.search = _finite_search(kernel, pay, costs, self.merged, coupling, horizon, discount, None, tolerance)
            self.shape = (horizon, coupling.n_rows)
            self.scale = (discount ** np.arange(horizon))[:, None]
            rough = _constant_prices(kernel, pay, costs, self.merged, coupling, horizon, discount)
            first = np.broadcast_to(rough, self.shape).ravel()
        self.search.evaluate(np.clip(first, self.search.low, self.search.high))
        self.evaluations = 1

    def solve(self, limit: np.ndarray, deadline: float = np.inf) -> Dual:
        """Bound at other limits, (K,) or (T, K), with the prices that are found by a time of ``perf_counter``."""
        begun = time.perf_counter()
        old = self.search
        rent = (np.broadcast_to(limit, self.shape) * self.scale).ravel()
        self.search = _Search(old.evaluator, rent, old.weight, old.low, old.high, old.unit, old.tolerance)
        self.search.adopt(old)
        before = len(self.search.heights)
        self.search.most_evaluations = before + 1000
        self.search.deadline = deadline
        self.search.run()
        self.evaluations += len(self.search.heights) - before
        return _finish(self.search, self.shape, self.merged, self.n_arms, False, begun)


def _spread(start: np.ndarray, n_states: int) -> np.ndarray:
    start = np.asarray(start)
    return np.eye(n_states)[start] if start.ndim == 1 else start


def constant_prices(
    transition: np.ndarray,
    reward: np.ndarray,
    coupling: Coupling,
    start: np.ndarray,
    *,
    horizon: int,
    discount: float,
) -> np.ndarray:
    """Rough prices of the resources, the same in every round, (K,), from a sample of the arms: they prove nothing."""
    kernel, pay, costs, merged = _arms(transition, reward, coupling, start)
    return _constant_prices(kernel, pay, costs, merged, coupling, horizon, discount)


def _constant_prices(
    kernel: np.ndarray,
    pay: np.ndarray,
    costs: Costs,
    merged: Merged,
    coupling: Coupling,
    horizon: int,
    discount: float,
) -> np.ndarray:
    """Where to start: the constant prices of a discounted problem of about the same length, on a sample of arms."""
    n_kinds = kernel.shape[0]
    # At random: arms in the file's order may come group by group, or in turn.
    sample = np.sort(np.random.default_rng(0).permutation(n_kinds)[:1000]) if n_kinds > 1000 else np.arange(n_kinds)
    part = costs.of_arms(sample)
    share = merged.start[sample].sum() / merged.start.sum()
    limit = np.broadcast_to(coupling.limit, (horizon, coupling.n_rows)).mean(axis=0) * share
    rough = Coupling(part, limit, coupling.equal, coupling.names)
    factor = min(discount, 1.0 - 1.0 / (horizon + 1.0))
    evaluator = Stationary(kernel[sample], pay[sample], part, merged.start[sample], factor)
    rounds = 1.0 / (1.0 - factor)
    unit, high = _box(pay, part, coupling.equal)
    low = np.where(coupling.equal, -high * rounds, 0.0)
    search = _Search(evaluator, limit * rounds, np.ones(rough.n_rows), low, high * rounds, unit, 1e-3, 60, np.inf)
    search.evaluate(np.clip(np.zeros(rough.n_rows), low, high * rounds))
    search.run()
    assert search.best_price is not None
    return search.best_price


# ---------------------------------------------------------------------------------------------------------------------
# Values under given prices


def evaluate_prices(
    transition: np.ndarray,
    reward: np.ndarray,
    coupling: Coupling,
    start: np.ndarray,
    prices: np.ndarray,
    *,
    discount: float,
    horizon: int | None = None,
) -> tuple[float, np.ndarray]:
    """g(price) and expected use at given prices: an upper bound for any non-negative price, from anywhere.

    Parameters
    ----------
    prices
        (K,), or (T, K) with a ``horizon``.
    """
    kernel, pay, costs, merged = _arms(transition, reward, coupling, start)
    prices = np.asarray(prices, dtype=np.float64)
    if horizon is None:
        total, use, _ = Stationary(kernel, pay, costs, merged.start, discount)(prices)
        return total + float(coupling.limit @ prices) / (1.0 - discount), use
    shape = (horizon, coupling.n_rows)
    prices = np.broadcast_to(prices, shape)
    total, use, _ = Finite(kernel, pay, costs, merged.start, discount, horizon)(prices.ravel())
    weight = (discount ** np.arange(horizon))[:, None]
    return total + float((np.broadcast_to(coupling.limit, shape) * weight * prices).sum()), use.reshape(shape)


def stationary_values(
    transition: np.ndarray, reward: np.ndarray, coupling: Coupling, prices: np.ndarray, *, discount: float
) -> np.ndarray:
    """Optimal discounted values of the arms under constant prices, (N, S); never below the exact ones."""
    n_arms, _, n_states, _ = transition.shape
    start = np.full((n_arms, n_states), 1.0 / n_states)
    evaluator = Stationary(np.asarray(transition), np.asarray(reward), coupling.cost, start, discount)
    return evaluator.at(np.asarray(prices, dtype=np.float64))


def action_values(
    transition: np.ndarray,
    reward: np.ndarray,
    coupling: Coupling,
    prices: np.ndarray,
    *,
    discount: float,
    horizon: int | None = None,
    terminal: np.ndarray | None = None,
) -> np.ndarray:
    """Q(s, a) of every arm under prices, the current round's price NOT subtracted.

    Subtracting it would leave budget unused whenever the limit is an upper one; later rounds are priced.

    Returns
    -------
    numpy.ndarray
        (1, N, S, A) for the discounted problem, (T, N, S, A) with a ``horizon``.
    """
    transition, reward = np.asarray(transition, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    n_arms, n_actions, n_states, _ = transition.shape
    prices = np.asarray(prices, dtype=np.float64)
    kernel = transition.reshape(n_arms, n_actions * n_states, n_states)
    if horizon is None:
        value = stationary_values(transition, reward, coupling, prices, discount=discount)
        ahead = np.matmul(kernel, value[:, :, None]).reshape(n_arms, n_actions, n_states) * discount
        return (reward + ahead.transpose(0, 2, 1))[None]
    prices = np.broadcast_to(prices, (horizon, coupling.n_rows))
    result = np.empty((horizon, n_arms, n_states, n_actions))
    value = np.zeros((n_arms, n_states)) if terminal is None else np.asarray(terminal, dtype=np.float64)
    for t in range(horizon - 1, -1, -1):
        ahead = np.matmul(kernel, value[:, :, None]).reshape(n_arms, n_actions, n_states) * discount
        result[t] = reward + ahead.transpose(0, 2, 1)
        value = (result[t] - coupling.cost.paid(prices[t])).max(axis=2)
    return result


def priced_arms_value(
    transition: np.ndarray,
    reward: np.ndarray,
    start: np.ndarray,
    arm_prices: np.ndarray,
    horizon: int | None,
    discount: float,
    allowed: np.ndarray | None = None,
    terminal: np.ndarray | None = None,
) -> float:
    """Sum of the arms' optimal values when every arm-action has its price.

    Parameters
    ----------
    arm_prices
        (N, A), or (T, N, A) with a ``horizon``.
    allowed
        Arm-actions that exist, bool (N, A); all by default.
    terminal
        Values after the last round, (N, S); none by default.
    """
    n_arms, n_actions, n_states, _ = transition.shape
    ban = np.zeros((n_arms, n_actions)) if allowed is None else np.where(allowed, 0.0, np.inf)
    if horizon is None:
        paid = reward - arm_prices[:, None, :]
        # Forbidden actions repeat the passive one: same kernel, same reward.
        kernel = np.where(np.isinf(ban)[:, :, None, None], transition[:, :1], transition)
        paid = np.where(np.isinf(ban)[:, None, :], paid[:, :, :1], paid)
        free = Coupling(np.zeros((1, 1, 1, n_actions)), np.zeros(1))
        value = stationary_values(kernel, paid, free, np.zeros(1), discount=discount)
        return float((start * value).sum())
    value = np.zeros((n_arms, n_states)) if terminal is None else terminal
    for _, before in _backward(transition, reward, arm_prices, horizon, discount, ban, value):
        value = before
    return float((start * value).sum())


def priced_values(
    transition: np.ndarray,
    reward: np.ndarray,
    arm_prices: np.ndarray,
    horizon: int,
    discount: float,
    allowed: np.ndarray,
) -> np.ndarray:
    """Worth of every arm's state before each round when every arm-action has its price, (T + 1, N, S); last is zero."""
    n_arms, _, n_states, _ = transition.shape
    values = np.zeros((horizon + 1, n_arms, n_states))
    ban = np.where(allowed, 0.0, np.inf)
    for t, value in _backward(transition, reward, arm_prices, horizon, discount, ban, values[horizon]):
        values[t] = value
    return values


def _backward(
    transition: np.ndarray,
    reward: np.ndarray,
    arm_prices: np.ndarray,
    horizon: int,
    discount: float,
    ban: np.ndarray,
    value: np.ndarray,
) -> Iterator[tuple[int, np.ndarray]]:
    """(round, values of the states before it, (N, S)), from the last round to the first."""
    n_arms, n_actions, n_states, _ = transition.shape
    stacked = transition.reshape(n_arms, n_actions * n_states, n_states)
    for t in range(horizon - 1, -1, -1):
        ahead = np.matmul(stacked, value[:, :, None]).reshape(n_arms, n_actions, n_states) * discount
        q = reward.transpose(0, 2, 1) + ahead - (arm_prices[t] + ban)[:, :, None]
        value = q.max(axis=1)
        yield t, value
