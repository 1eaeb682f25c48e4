"""A cohort that comes and goes under weekly limits and a season's total: bound, prices, gains, exact values.

The season's limit is one more price ``mu``, the worth of a call saved for later. With ``lambda[t]`` the prices of a
round's own limits and V the values of the arms under the prices together::

    bound = min over lambda, mu >= 0 of  sum_c V_c(lambda + mu) + sum_t limit[t] lambda[t] + season mu

Expectations are linear, so with mean arrivals the value bounds every policy for any arrival process with those means
that does not depend on the actions; the season's total is met on average only, so it stays an upper bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from time import perf_counter

import numpy as np

from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.overdue import checkpoint
from rmab_opt.planning.coupling import Coupling
from rmab_opt.planning.lagrangian import _Search

__all__ = [
    "Course",
    "LivingBound",
    "bound_at",
    "first_gains",
    "fits_exactly",
    "gains_at",
    "living_bound",
    "living_optimum",
    "living_value",
]

MOST_STATES = 100_000
"""Joint states times season's totals that are solved exactly."""

MOST_ACTIONS = 2_000
"""Ways to act in a round that are tried one by one."""


@dataclass(frozen=True, eq=False)
class Course:
    """How a cohort runs over the rounds to come; a class is an arm, or several alike.

    Parameters
    ----------
    transition
        P[c, a, s, s'], shape (C, A, S, S); action 0 is passive.
    reward
        r[c, s, a], (C, S, A), expected in the round.
    start
        Arms of each class in each state at the first round, (C, S); a belief where one arm's state is not known.
    horizon
        Rounds to go.
    limit
        Of each round on the number of acts, (T,) or one number; or several resources as a :class:`Coupling`.
    season
        Of acts over all rounds; None without.
    open
        Whether a class can be acted on in a round, bool (T, C): a pause with an end is known to the plan.
    counted
        Whether a class's reward counts in a round, bool (T, C): it joined, and has not left.
    arrivals
        Mean joiners at the beginning of each round, (T, C, S).
    stay
        Chance to stay after a round by the state arrived in, (C, S).
    """

    transition: np.ndarray
    reward: np.ndarray
    start: np.ndarray
    horizon: int
    limit: np.ndarray | float | Coupling
    season: float | None = None
    discount: float = 1.0
    open: np.ndarray | None = None
    counted: np.ndarray | None = None
    arrivals: np.ndarray | None = None
    stay: np.ndarray | None = None
    rows: Coupling = field(init=False)

    def __post_init__(self) -> None:
        n, n_actions, n_states, _ = self.transition.shape
        shapes = {
            "reward": (n, n_states, n_actions),
            "start": (n, n_states),
            "open": (self.horizon, n),
            "counted": (self.horizon, n),
            "arrivals": (self.horizon, n, n_states),
            "stay": (n, n_states),
        }
        for name, shape in shapes.items():
            given = getattr(self, name)
            if given is not None and np.shape(given) != shape:
                raise ModelError(f"{name} has shape {np.shape(given)}", f"give {shape}.")
        if self.season is not None and not self.season >= 0:
            raise ModelError(f"season is {self.season}", "give a number of acts, at least 0.")
        rows = self.limit
        if not isinstance(rows, Coupling):
            acts = np.ones((1, 1, 1, n_actions))
            acts[..., 0] = 0.0
            each = np.broadcast_to(np.asarray(rows, dtype=np.float64), (self.horizon,))
            rows = Coupling(acts, each[:, None], names=("limit",))
        object.__setattr__(self, "rows", rows)

    def paid(self, period: int) -> np.ndarray:
        """Reward (C, S, A) of a round, nothing for those who do not belong yet or any more."""
        return self.reward if self.counted is None else self.reward * self.counted[period][:, None, None]

    def onward(self, value: np.ndarray) -> np.ndarray:
        """Value (C, S) of arriving in a state, for those who stay."""
        return value if self.stay is None else value * self.stay


@dataclass(frozen=True, eq=False)
class LivingBound:
    """The bound with its prices and what they make acting worth.

    Parameters
    ----------
    value, lower
        Upper limit of every policy, and what the relaxed problem attains.
    prices
        Of the rounds' own resources, (T, K), beyond ``saved``.
    saved
        What an act saved for later is worth (the season's price); 0 without a season's limit.
    gain
        Worth of acting over resting, the round's own price not subtracted but ``saved`` is, (T, C, S, A).
    use
        Expected use in each round, (T * K,), and in the season as the last entry.
    values
        Of the classes' states under all prices, (T + 1, C, S).
    """

    value: float
    lower: float
    prices: np.ndarray
    saved: float
    gain: np.ndarray
    use: np.ndarray
    values: np.ndarray
    evaluations: int = 0
    """Prices tried."""

    def __float__(self) -> float:
        return self.value

    def expected_gain(self, belief: np.ndarray, period: int = 0) -> np.ndarray:
        """Gain of each action under beliefs (C, S), (C, A): the mean of the gains, never the likeliest state's."""
        return np.einsum("cs,csa->ca", belief, self.gain[period])


class _Priced:
    """A course under prices: lambda by round and resource, then mu."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.n_rows = course.rows.n_rows
        self.n_prices = course.horizon * self.n_rows + 1
        self.factor = course.discount ** np.arange(course.horizon)
        self.acts = (np.arange(course.transition.shape[1]) > 0).astype(np.float64)

    def values(self, price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Q (T, C, S, A) without the rounds' own prices and without mu, and V (T + 1, C, S) with both."""
        course = self.course
        n, n_actions, n_states, _ = course.transition.shape
        q = np.empty((course.horizon, n, n_states, n_actions))
        value = np.zeros((course.horizon + 1, n, n_states))
        rounds = price[:-1].reshape(course.horizon, self.n_rows)
        kernel = course.transition.reshape(n, n_actions * n_states, n_states)
        for t in range(course.horizon - 1, -1, -1):
            checkpoint()
            ahead = np.matmul(kernel, course.onward(value[t + 1])[:, :, None]).reshape(n, n_actions, n_states)
            q[t] = course.paid(t) + course.discount * ahead.transpose(0, 2, 1)
            paid = course.rows.cost.paid(rounds[t]) + price[-1] / self.factor[t] * self.acts
            net = q[t] - paid
            if course.open is not None:
                net[~course.open[t], :, 1:] = -np.inf
            value[t] = net.max(axis=2)
        return q, value

    def __call__(self, price: np.ndarray) -> tuple[float, np.ndarray, object]:
        course = self.course
        q, value = self.values(price)
        rounds = price[:-1].reshape(course.horizon, self.n_rows)
        n, n_actions, n_states, _ = course.transition.shape
        total, season = float((course.start * value[0]).sum()), 0.0
        use = np.zeros((course.horizon, self.n_rows))
        mass = course.start
        kernel = course.transition.reshape(n, n_actions * n_states, n_states)
        for t in range(course.horizon):
            if t and course.arrivals is not None:
                mass = mass + course.arrivals[t]
                total += float(self.factor[t] * (course.arrivals[t] * value[t]).sum())
            paid = course.rows.cost.paid(rounds[t]) + price[-1] / self.factor[t] * self.acts
            net = q[t] - paid
            if course.open is not None:
                net[~course.open[t], :, 1:] = -np.inf
            best = net.argmax(axis=2)
            flow = (np.arange(n_actions) == best[..., None]) * mass[..., None]
            use[t] = course.rows.cost.use(flow)
            season += float((flow * self.acts).sum())
            mass = np.matmul(flow.transpose(0, 2, 1).reshape(n, 1, -1), kernel)[:, 0]
            if course.stay is not None:
                mass = mass * course.stay
        return total, np.append(use.ravel(), season), np.array(price)

    def occupancy(self, token: object) -> np.ndarray:
        raise CapabilityError(
            "frequencies of a living cohort", self, ("take the prices", "ask a cohort of fixed members")
        )


def living_bound(
    course: Course, *, tolerance: float = 1e-9, evaluations: int = 3000, seconds: float | None = None
) -> LivingBound:
    """The upper bound of this module, evaluated at the prices that a search found.

    Parameters
    ----------
    tolerance
        Relative gap at which the search ends; the value is a bound at any gap.
    seconds
        Wall-clock time after which it ends all the same.
    """
    begun, priced = perf_counter(), _Priced(course)
    horizon, n_rows = course.horizon, priced.n_rows
    weight = np.append(np.repeat(priced.factor, n_rows), 1.0)
    rent = _rent(course, priced)
    # No act is worth more than the best reward against the worst in every round left, a unit of its cheapest use.
    spread = float(np.ptp(course.reward)) + float(np.abs(course.reward).max()) * (course.counted is not None)
    spread = max(spread, float(np.abs(course.reward).max())) if course.stay is not None else spread
    cheapest = course.rows.cost.smallest
    left = np.arange(horizon, 0, -1.0)
    unit = np.append(np.tile(spread / cheapest, horizon), spread)
    high = np.append(np.outer(left, spread / cheapest).ravel(), 0.0 if course.season is None else horizon * spread)
    unit, high = np.maximum(unit, 1e-12), np.maximum(high, 0.0)
    equal = np.append(np.tile(course.rows.equal, horizon), False)
    low = np.where(equal, -high, 0.0)
    search = _Search(priced, rent, weight, low, high, unit, tolerance)
    search.most_evaluations = evaluations
    search.deadline = begun + (np.inf if seconds is None else seconds)
    search.evaluate(np.clip(np.zeros(priced.n_prices), low, high))
    search.evaluate(np.clip(high / 4, low, high))
    search.run()
    best = search.best_price
    assert best is not None
    gain, values = _gains(priced, best)
    _, use, _ = priced(best)
    return LivingBound(
        search.best, search.lower, best[:-1].reshape(horizon, n_rows), float(best[-1]), gain, use, values,
        len(search.heights),
    )  # fmt: skip


def _gains(priced: _Priced, price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Worth of acting over resting at prices, (T, C, S, A), minus infinity where closed; values (T + 1, C, S)."""
    q, values = priced.values(price)
    gain = q - q[..., :1] - (price[-1] / priced.factor)[:, None, None, None] * priced.acts
    if priced.course.open is not None:
        gain[~priced.course.open, :, 1:] = -np.inf
    return gain, values


def first_gains(course: Course, price: np.ndarray) -> np.ndarray:
    """Gains (C, S, A) of the first round, as a :class:`LivingBound` has them at its prices.

    Parameters
    ----------
    price
        Of the rounds' resources, row by row, then of the season: (T * K + 1,).

    Raises
    ------
    ModelError
        When there are more prices, or fewer.
    """
    priced = _Priced(course)
    if price.shape != (priced.n_prices,):
        raise ModelError(
            f"{price.size} prices for {priced.n_prices}", "give one a resource and round, and the season's."
        )
    return _gains(priced, price)[0][0]


def _rent(course: Course, priced: _Priced) -> np.ndarray:
    """What a unit of every price costs: the limits, discounted, then the season's total."""
    limits = np.broadcast_to(course.rows.limit, (course.horizon, priced.n_rows)) * priced.factor[:, None]
    return np.append(limits.ravel(), 0.0 if course.season is None else course.season)


def bound_at(course: Course, prices: np.ndarray, saved: float = 0.0) -> float:
    """The bound at given prices (T, K) of the rounds' own resources and of the season: valid at any prices >= 0."""
    priced = _Priced(course)
    price = np.append(np.asarray(prices, dtype=np.float64).ravel(), saved)
    return float(priced(price)[0] + price @ _rent(course, priced))


def gains_at(course: Course, prices: np.ndarray, saved: float = 0.0) -> tuple[float, np.ndarray]:
    """The bound at given prices, as :func:`bound_at`, and the first round's expected gains (C, A) under the start.

    Gains are worth over resting, what an act saved for later is worth subtracted; those of closed arms are 0.
    """
    priced = _Priced(course)
    price = np.append(np.asarray(prices, dtype=np.float64).ravel(), saved)
    q, values = priced.values(price)
    value = float((course.start * values[0]).sum() + price @ _rent(course, priced))
    if course.arrivals is not None:
        value += sum(float(priced.factor[t] * (course.arrivals[t] * values[t]).sum()) for t in range(1, course.horizon))
    gain = np.einsum("cs,csa->ca", course.start, q[0] - q[0, ..., :1] - saved * priced.acts)
    if course.open is not None:
        gain[~course.open[0]] = 0.0
    return value, gain


# -------------------------------------------------------------------------------------------------- exact, when small
def fits_exactly(course: Course) -> bool:
    """Whether :func:`living_optimum` takes the course on: few arms, one limit a round, no arrivals."""
    n, n_actions, n_states, _ = course.transition.shape
    if course.arrivals is not None or course.stay is not None or isinstance(course.limit, Coupling) or n_actions != 2:
        return False
    totals = 1.0 if course.season is None else course.season + 1.0
    return n * np.log(n_states) + np.log(totals) <= np.log(MOST_STATES) and 2.0**n <= MOST_ACTIONS


@dataclass(frozen=True, eq=False)
class LivingOptimum:
    """The best policy of a small course. ``q[t][left]``: (actions, joint states); ``acts``: arms of each action."""

    value: float
    acts: tuple[tuple[int, ...], ...]
    q: list[list[np.ndarray]]
    start: np.ndarray

    def first(self, start: np.ndarray | None = None) -> tuple[float, tuple[int, ...]]:
        """Value and arms to act on now under a belief (C, S); states are seen from the next round on."""
        chance = _joint(self.start if start is None else start).ravel()
        # A shut action is worth minus infinity everywhere; where nobody can be, nothing is multiplied.
        means = self.q[0][-1].reshape(len(self.acts), -1)[:, chance > 0] @ chance[chance > 0]
        best = int(np.argmax(np.round(means, 12)))
        return float(means[best]), self.acts[best]


def _joint(start: np.ndarray) -> np.ndarray:
    """Probability of every joint state, shape (S,) * C."""
    chance = np.ones(())
    for row in start:
        chance = chance[..., None] * row
    return chance


def _ways(course: Course) -> tuple[tuple[int, ...], ...]:
    most = int(np.floor(np.max(np.asarray(course.limit)) + 1e-9))
    n = len(course.transition)
    return tuple(chosen for size in range(min(most, n) + 1) for chosen in combinations(range(n), size))


def _look(course: Course, t: int, ahead: np.ndarray, chosen: tuple[int, ...]) -> np.ndarray:
    """Expected reward and value after ``t`` of an action in every joint state."""
    n = len(course.transition)
    paid, total = course.paid(t), np.zeros([1] * n)
    for arm in range(n):
        action = int(arm in chosen)
        ahead = np.moveaxis(np.tensordot(course.transition[arm, action], ahead, axes=(1, arm)), 0, arm)
        along = [1] * n
        along[arm] = -1
        total = total + paid[arm, :, action].reshape(along)
    return np.asarray(total + course.discount * ahead)


def _allowed(course: Course, t: int, chosen: tuple[int, ...], left: int) -> bool:
    limit = np.broadcast_to(np.asarray(course.limit, dtype=np.float64), (course.horizon,))[t]
    shut = course.open is not None and not all(course.open[t][arm] for arm in chosen)
    return len(chosen) <= min(limit + 1e-9, left) and not shut


def _need_small(course: Course) -> None:
    if not fits_exactly(course):
        raise CapabilityError(
            f"an exact value of more than {MOST_STATES} joint states", course, ("use living_bound", "use fewer arms")
        )


def living_optimum(course: Course) -> LivingOptimum:
    """Backward induction over joint states and what is left of the season.

    The first round may be decided under a belief; from the second on all states are seen.

    Raises
    ------
    CapabilityError
        When there are too many joint states, or arms come and go by chance.
    """
    _need_small(course)
    n, _, n_states, _ = course.transition.shape
    ways, total = _ways(course), n * course.horizon if course.season is None else int(course.season)
    value = np.zeros((total + 1, *[n_states] * n))
    tables: list[list[np.ndarray]] = []
    for t in range(course.horizon - 1, -1, -1):
        checkpoint()
        q = np.full((total + 1, len(ways), *[n_states] * n), -np.inf)
        for k, chosen in enumerate(ways):
            for left in range(len(chosen), total + 1):
                if _allowed(course, t, chosen, left):
                    q[left, k] = _look(course, t, value[left - len(chosen)], chosen)
        value = q.max(axis=1)
        tables.append(list(q))
    found = LivingOptimum(0.0, ways, tables[::-1], course.start)
    return LivingOptimum(found.first()[0], ways, tables[::-1], course.start)


def living_value(course: Course, choose: Callable[[np.ndarray, int, int], tuple[int, ...]]) -> float:
    """Exact expected total of a policy ``choose(state (C,), period, left) -> arms`` on a small course.

    Raises
    ------
    ModelError
        When it acts on more than is left or open.
    """
    _need_small(course)
    n, _, n_states, _ = course.transition.shape
    total = n * course.horizon if course.season is None else int(course.season)
    value = np.zeros((total + 1, *[n_states] * n))
    for t in range(course.horizon - 1, -1, -1):
        checkpoint()
        looked: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}
        new = np.zeros_like(value)
        for place in np.ndindex(*[n_states] * n):
            for left in range(total + 1):
                chosen = tuple(sorted(choose(np.array(place), t, left)))
                if not _allowed(course, t, chosen, left):
                    raise ModelError(f"acts on {chosen} in round {t + 1} with {left} left", "choose an allowed action.")
                key = (left, chosen)
                if key not in looked:
                    looked[key] = _look(course, t, value[left - len(chosen)], chosen)
                new[(left, *place)] = looked[key][place]
        value = new
    return float((value[total] * _joint(course.start)).sum())
