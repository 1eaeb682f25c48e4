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
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from scipy import sparse

from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.planning.costs import Costs
from rmab_opt.planning.coupling import Coupling, Merged, merge_identical
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

IMPROVEMENT = 1e-11
"""Policy improvement below this share of the values is a tie: without a threshold, iteration cycles on ties."""

CACHE_BYTES = 1 << 20
"""Kernels of one chunk of arms: they stay in cache over all rounds of a backward and a forward pass."""

FEW_MOVES = 64
"""Moves (action, from, to) that some arm can make, up to which passes go move by move: a product of small matrices an
arm takes 0.8 microseconds, a move 1 nanosecond an arm."""

MOVED_AT_ONCE = 4096
"""Arms whose values stay in cache while all moves are gone through."""

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


class _Evaluator(Protocol):
    """Arms under prices. Prices and slopes are flat vectors."""

    n_prices: int

    def __call__(self, price: np.ndarray) -> tuple[float, np.ndarray, object]:
        """g's arm part, the use of its policies, and a token from which the occupancy can be rebuilt."""
        ...

    def occupancy(self, token: object) -> np.ndarray:
        """Frequencies of one token, shape (M, S, A) or (T, M, S, A)."""
        ...


# ---------------------------------------------------------------------------------------------------------------------
# Arms under prices


class _Stationary:
    """Batched policy iteration for discounted (or average) reward, warm from the last price.

    Values are kept as one column of reward and K of use under the current policy, so that a price changes them
    without a solve; systems are solved again only for arms whose policy changed. Where there are more rows than an arm
    has cells (its actions, by state where costs depend on it), the columns are these instead, each with its own price.
    """

    def __init__(
        self, transition: np.ndarray, reward: np.ndarray, costs: Costs, start: np.ndarray, discount: float
    ) -> None:
        n_arms, _, n_states, _ = transition.shape
        self.transition, self.discount = transition, discount
        self.reward = np.ascontiguousarray(reward.transpose(0, 2, 1))
        self.n_prices = costs.n_rows
        self.rows = costs if costs.n_rows > costs.cells else None
        table = costs.dense() if self.rows is None else np.eye(costs.cells).reshape(-1, 1, *costs.shape[2:])
        self.cost = np.ascontiguousarray(table.transpose(0, 1, 3, 2))
        """What counts in each column of :attr:`base`, (columns, N or 1, A, S or 1)."""
        self.start = start
        self.count = start.sum(axis=1)
        self.policy = np.zeros((n_arms, n_states), dtype=np.int64)
        self.base = np.empty((n_arms, n_states, 1 + len(self.cost)))
        self.average = discount == 1.0
        self.size = float(np.abs(reward).max(initial=0.0))
        self.dear = costs.largest
        self.slack = np.zeros(n_arms)
        self._solve(np.arange(n_arms))

    def _solve(self, arms: np.ndarray) -> None:
        n_states = self.policy.shape[1]
        state = np.arange(n_states)
        for begin in range(0, arms.size, 8192):
            part = arms[begin : begin + 8192]
            policy = self.policy[part]
            system = self.transition[part[:, None], policy, state] * -self.discount
            system[:, state, state] += 1.0
            if self.average:
                # Bias is relative to state 0; its column carries the gain.
                system[:, :, 0] = 1.0
            right = np.empty((part.size, n_states, 1 + len(self.cost)))
            right[..., 0] = self.reward[part[:, None], policy, state]
            row = part[:, None] if self.cost.shape[1] > 1 else np.zeros((1, 1), dtype=np.int64)
            column = state if self.cost.shape[3] > 1 else np.zeros(1, dtype=np.int64)
            right[..., 1:] = np.moveaxis(self.cost[:, row, policy, column], 0, -1)
            try:
                self.base[part] = np.linalg.solve(system, right)
            except np.linalg.LinAlgError:
                raise CapabilityError(
                    "average reward by decomposition",
                    self,
                    ("use method='highs', which needs no recurrent class", "use a discount below 1"),
                ) from None

    def __call__(self, price: np.ndarray) -> tuple[float, np.ndarray, object]:
        n_arms, n_states = self.policy.shape
        n_actions = self.reward.shape[1]
        arms = np.arange(n_arms)
        slack = np.zeros(n_arms)
        weight = self._weight(price)
        # What is earned and paid in a round: no absolute size, or small rewards would all be ties.
        pay = self.size + float(np.abs(price) @ self.dear)
        for _ in range(200):
            every = arms.size == n_arms
            kernel = self.transition if every else self.transition[arms]
            cost = self.cost if self.cost.shape[1] == 1 or every else self.cost[:, arms]
            value = self.values(weight) if every else self.values(weight, arms)
            bias = value
            if self.average:
                bias = value.copy()
                bias[:, 0] = 0.0
            ahead = np.matmul(kernel.reshape(arms.size, n_actions * n_states, n_states), bias[:, :, None])
            q = ahead.reshape(arms.size, n_actions, n_states)
            if self.discount != 1.0:
                q *= self.discount
            q += self.reward if every else self.reward[arms]
            if self.rows is None:
                q -= np.tensordot(price, cost, axes=(0, 0))
            else:
                own = (weight if len(weight) == 1 else weight[arms])[:, 1:]
                q += own.reshape(len(own), -1, n_actions).transpose(0, 2, 1)
            level = value if not self.average else bias + value[:, :1]
            best = q[:, 0].copy()
            choice = np.zeros((arms.size, n_states), dtype=np.int64)
            for action in range(1, n_actions):
                better = q[:, action] > best
                choice[better] = action
                np.maximum(best, q[:, action], out=best)
            gain = best - level
            threshold = IMPROVEMENT * (pay + np.abs(level).max(axis=1))
            move = gain > threshold[:, None]
            slack[arms] = np.maximum(gain.max(axis=1), 0.0)
            changed = move.any(axis=1)
            if not changed.any():
                break
            arms = arms[changed]
            policy = self.policy[arms]
            self.policy[arms] = np.where(move[changed], choice[changed], policy)
            self._solve(arms)
        self.slack = slack
        # What ties were forgiven is added back, so that the value is a bound for the exact optimum too.
        rest = float(self.count @ slack) / (1.0 if self.average else 1.0 - self.discount)
        flat = self._flat()
        use = flat[:, 1:].sum(axis=0) if self.rows is None else self.rows.use(self._acted(flat))
        return float((flat * weight).sum()) + rest, use, self.policy.astype(np.uint8)

    def _flat(self) -> np.ndarray:
        """Reward and use of the current policies from the start, (N, 1 + columns)."""
        if self.average:
            return np.asarray(self.count[:, None] * self.base[:, 0, :])
        return np.asarray(np.matmul(self.start[:, None, :], self.base)[:, 0])

    def _acted(self, flat: np.ndarray) -> np.ndarray:
        """What was done by cell, (N, S or 1, A), where the columns are the arms' cells."""
        assert self.rows is not None
        return flat[:, 1:].reshape(len(flat), *self.rows.shape[2:])

    def drawn(self, price: np.ndarray, _: float) -> Drawn:
        """What the best actions at a price come to; only where the columns are the arms' actions."""
        return Drawn(self(price)[0], self._flat()[None, :, 1:])

    def _weight(self, price: np.ndarray) -> np.ndarray:
        """What the columns of :attr:`base` count at a price, (N or 1, 1 + columns)."""
        paid = price[None] if self.rows is None else self.rows.paid(price).reshape(-1, self.rows.cells)
        return np.concatenate([np.ones((len(paid), 1)), -paid], axis=1)

    def values(self, weight: np.ndarray, arms: np.ndarray | None = None) -> np.ndarray:
        """Values of the current policies at :meth:`_weight`, (N, S); of some arms only where they are given."""
        base = self.base if arms is None else self.base[arms]
        if len(weight) == 1:
            return np.asarray(base @ weight[0])
        return np.matmul(base, (weight if arms is None else weight[arms])[:, :, None])[:, :, 0]

    def at(self, price: np.ndarray) -> np.ndarray:
        """Optimal values at a price, (N, S), never below the exact ones."""
        self(price)
        return self.values(self._weight(price)) + (self.slack / (1.0 - self.discount))[:, None]

    def occupancy(self, token: object) -> np.ndarray:
        policy = np.asarray(token).astype(np.int64)
        n_arms, n_states = policy.shape
        state = np.arange(n_states)
        result = np.zeros((n_arms, n_states, self.reward.shape[1]))
        for begin in range(0, n_arms, 8192):
            part = np.arange(begin, min(n_arms, begin + 8192))
            system = self.transition[part[:, None], policy[part], state] * -self.discount
            system[:, state, state] += 1.0
            right = self.start[part]
            if self.average:
                system[:, :, 0] = 1.0
                right = np.zeros_like(right)
                right[:, 0] = self.count[part]
            mass = np.linalg.solve(system.transpose(0, 2, 1), right[:, :, None])[..., 0]
            result[part[:, None], state, policy[part]] = mass
        return result


class _Pass(NamedTuple):
    """What the arms come to under prices."""

    total: float
    acted: np.ndarray
    """Expected actions, (T, A, N)."""


class _Finite:
    """Backward and forward passes over the rounds, chunk of arms by chunk."""

    def __init__(
        self,
        transition: np.ndarray,
        reward: np.ndarray,
        costs: Costs,
        start: np.ndarray,
        discount: float,
        horizon: int,
        terminal: np.ndarray | None = None,
    ) -> None:
        self.transition, self.discount, self.horizon = transition, discount, horizon
        self.reward = np.ascontiguousarray(reward.transpose(0, 2, 1))
        self.costs, self.terminal = costs, terminal
        self.start = start
        self.n_rows = costs.n_rows
        self.n_prices = horizon * self.n_rows
        _, n_actions, n_states, _ = transition.shape
        self.chunk = max(16, CACHE_BYTES // (8 * n_actions * n_states * n_states))
        self.moves = [(a, s, z) for a, s, z in np.argwhere((transition != 0).any(axis=0)).tolist()]
        self.by_moves = not costs.by_state and len(self.moves) <= FEW_MOVES
        """Whether passes go move by move."""

    def __call__(self, price: np.ndarray) -> tuple[float, np.ndarray, object]:
        total, use, _ = self._pass(price, keep=False)
        return total, use, np.array(price)

    def occupancy(self, token: object) -> np.ndarray:
        return np.asarray(self._pass(np.asarray(token), keep=True)[2])

    def sampled(self, arms: np.ndarray) -> _Finite:
        """The same for some of the arms."""
        reward, terminal = self.reward[arms].transpose(0, 2, 1), None if self.terminal is None else self.terminal[arms]
        return _Finite(
            self.transition[arms], reward, self.costs.of_arms(arms), self.start[arms], self.discount, self.horizon,
            terminal,
        )  # fmt: skip

    @cached_property
    def _planes(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """By chunk of arms, arms last: probabilities of the moves (M, n), rewards (A, S, n), starts (S, n)."""
        at = np.array(self.moves).T
        parts = [slice(first, first + MOVED_AT_ONCE) for first in range(0, len(self.start), MOVED_AT_ONCE)]
        return [
            (
                np.ascontiguousarray(self.transition[part, at[0], at[1], at[2]].T * self.discount),
                np.ascontiguousarray(self.reward[part].transpose(1, 2, 0)),
                np.ascontiguousarray(self.start[part].T),
            )
            for part in parts
        ]

    def _by_moves(self, price: np.ndarray, heat: float = 0.0) -> _Pass:
        """A backward and a forward pass, move by move for all arms of a chunk: few moves cost less than products.

        With ``heat`` arms draw their action with chances that fall off by exp(-loss / heat), and the total is that of
        the largest smooth function under it: sum over actions of exp(value / heat), in a logarithm, in place of a
        maximum.
        """
        n_arms, n_actions, _, _ = self.transition.shape
        paid = self._paid(price)
        acted = np.zeros((self.horizon, n_actions, n_arms))
        total = 0.0
        for part, move, reward, start, ends in self._parts():
            value, chance = self._chances(move, reward, paid if paid.shape[1] == 1 else paid[:, part], ends, heat)
            total += float((start * value).sum())
            mass, weight, step = start, 1.0, np.empty(start.shape[1])
            for t in range(self.horizon):
                flow = chance[t] * mass
                acted[t, :, part] = flow.sum(axis=1) / weight
                # Chances of moves hold the discount already.
                weight *= self.discount
                mass = self._moved(move, flow, step)
        return _Pass(total, acted)

    def _paid(self, price: np.ndarray) -> np.ndarray:
        """What actions cost in each round, whatever the state, (T, N or 1, A)."""
        return self.costs.paid(price.reshape(self.horizon, self.n_rows))[:, :, 0]

    def _parts(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Arms of each chunk with its planes, and values of the states after the last round, (S, n)."""
        first = 0
        for move, reward, start in self._planes:
            part = slice(first, first + start.shape[1])
            first = part.stop
            yield part, move, reward, start, np.zeros(start.shape) if self.terminal is None else self.terminal[part].T

    def _moved(self, move: np.ndarray, flow: np.ndarray, step: np.ndarray) -> np.ndarray:
        """States after a round, (S, n), from who acted in which, (A, S, n); ``step`` is room for a row."""
        mass = np.zeros(flow.shape[1:])
        for k, (a, s, z) in enumerate(self.moves):
            np.multiply(move[k], flow[a, s], out=step)
            mass[z] += step
        return mass

    def within(self, price: np.ndarray, heat: float, limit: np.ndarray, rests: Rests) -> tuple[float, np.ndarray]:
        """Reward and use (T, K) when in each round arms rest with the chance that its rows ask for, then go on.

        Action 0 uses nothing. The limits (T, K) are held in every round, so it is a point of the relaxed problem.
        """
        paid = self._paid(price)
        parts, chances = list(self._parts()), []
        for part, move, reward, _, ends in parts:
            chance = self._chances(move, reward, paid if paid.shape[1] == 1 else paid[:, part], ends, heat)[1]
            # Half the room: what rounds of many arms take stays small beside what is read.
            chances.append(chance.astype(np.float32) if heat else chance)
        masses = [start for _, _, _, start, _ in parts]
        use, total, weight = np.zeros(limit.shape), 0.0, 1.0
        for t in range(self.horizon):
            flows = [chance[t] * mass for chance, mass in zip(chances, masses, strict=True)]
            acted = np.concatenate([flow.sum(axis=1) for flow in flows], axis=1).T / weight
            share = rests.share(acted[None], limit[t : t + 1])
            use[t] = self.costs.use((share[:, None] * acted)[:, None])
            for k, (part, move, reward, start, _) in enumerate(parts):
                flow = flows[k]
                flow[1:] *= share[part]
                flow[0] = masses[k] - flow[1:].sum(axis=0)
                total += float((flow * reward).sum())
                masses[k] = self._moved(move, flow, np.empty(start.shape[1]))
            weight *= self.discount
        return total + sum(float((mass * ends).sum()) for mass, (*_, ends) in zip(masses, parts, strict=True)), use

    def _chances(
        self, move: np.ndarray, reward: np.ndarray, paid: np.ndarray, value: np.ndarray, heat: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values before the first round, (S, n), and with what chance each action is taken, (T, A, S, n)."""
        chance = np.empty((self.horizon, *reward.shape), dtype=np.float64 if heat else bool)
        step = np.empty(reward.shape[2])
        for t in range(self.horizon - 1, -1, -1):
            q = reward - paid[t].T[:, None, :]
            for k, (a, s, z) in enumerate(self.moves):
                np.multiply(move[k], value[z], out=step)
                q[a, s] += step
            value = q.max(axis=0)
            if heat and len(q) == 2:
                # One exponential in place of two.
                ahead = q[1] - q[0]
                ahead /= heat
                less = np.exp(-np.abs(ahead))
                sums = 1.0 + less
                less /= sums
                np.copyto(chance[t, 1], less)
                np.subtract(1.0, less, out=chance[t, 1], where=ahead > 0)
                np.subtract(1.0, chance[t, 1], out=chance[t, 0])
                value += heat * np.log(sums)
                continue
            if heat:
                q -= value
                q /= heat
                np.exp(q, out=q)
                sums = q.sum(axis=0)
                np.divide(q, sums, out=chance[t])
                value += heat * np.log(sums)
                continue
            # The first action that attains the maximum: a deterministic rule, so a price gives one policy.
            open_ = np.ones(value.shape, dtype=bool)
            for action in range(len(q)):
                np.logical_and(q[action] == value, open_, out=chance[t, action])
                open_ &= ~chance[t, action]
        return value, chance

    def _pass(self, price: np.ndarray, keep: bool) -> tuple[float, np.ndarray, np.ndarray | None]:
        if self.by_moves and not keep:
            found = self._by_moves(price)
            return found.total, self.costs.use(found.acted.transpose(0, 2, 1)[:, :, None]).ravel(), None
        n_arms, n_actions, n_states, _ = self.transition.shape
        price = price.reshape(self.horizon, self.n_rows)
        use = np.zeros((self.horizon, self.n_rows))
        kept = np.zeros((self.horizon, n_arms, n_states, n_actions)) if keep else None
        total = 0.0
        for begin in range(0, n_arms, self.chunk):
            part = slice(begin, begin + self.chunk)
            kernel = self.transition[part]
            size = kernel.shape[0]
            kernel = kernel.reshape(size, n_actions * n_states, n_states)
            paid = self.costs.paid(price, part).swapaxes(2, 3)
            value = np.zeros((size, n_states)) if self.terminal is None else self.terminal[part]
            acts = np.empty((self.horizon, n_actions, size, n_states))
            for t in range(self.horizon - 1, -1, -1):
                q = np.matmul(kernel, value[:, :, None]).reshape(size, n_actions, n_states)
                if self.discount != 1.0:
                    q *= self.discount
                q += self.reward[part]
                q -= paid[t]
                value = q[:, 0].copy()
                for action in range(1, n_actions):
                    np.maximum(value, q[:, action], out=value)
                # The first action that attains the maximum: a deterministic rule, so a price gives one policy.
                open_ = np.ones(value.shape, dtype=bool)
                for action in range(n_actions):
                    hit = (q[:, action] == value) & open_
                    acts[t, action] = hit
                    open_ &= ~hit
            total += float((self.start[part] * value).sum())
            mass = self.start[part]
            flow = np.empty((size, n_actions, n_states))
            acted = np.empty((self.horizon, size, n_states if self.costs.by_state else 1, n_actions))
            for t in range(self.horizon):
                np.multiply(acts[t].transpose(1, 0, 2), mass[:, None, :], out=flow)
                if kept is not None:
                    kept[t, part] = flow.transpose(0, 2, 1)
                acted[t] = (flow if self.costs.by_state else flow.sum(axis=2, keepdims=True)).transpose(0, 2, 1)
                if t + 1 < self.horizon:
                    mass = np.matmul(flow.reshape(size, 1, n_actions * n_states), kernel)[:, 0]
            use += self.costs.use(acted, part)
        return total, use.ravel(), kept


# ---------------------------------------------------------------------------------------------------------------------
# Price search


@dataclass
class _Search:
    """Minimise g over a box of prices with cuts, in scaled prices and values."""

    evaluator: _Evaluator
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
            lambda arms: _Stationary(kernel[arms], pay[arms], costs.of_arms(arms), merged.start[arms], discount),
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
    assert isinstance(evaluator, _Finite | _Stationary)
    many = len(evaluator.start) * search.size >= SMOOTHED_FROM
    able = evaluator.by_moves if isinstance(evaluator, _Finite) else evaluator.rows is not None and not costs.by_state
    free = not costs.gives.any() and costs.passive_free
    return many and able and free and not coupling.equal.any()


def _smoothed(search: _Search, first: np.ndarray, limit: np.ndarray) -> Smoothed:
    """Prices by descents on smooth functions, of a sample of the arms first."""
    evaluator = search.evaluator
    assert isinstance(evaluator, _Finite)
    whole = _smooth_problem(search, evaluator, limit)
    if len(evaluator.start) < SAMPLED_FROM:
        return smoothed(whole, first, search.tolerance, search.deadline)
    part, share = _sample(evaluator, whole.rows)
    rough = _smooth_problem(search, evaluator.sampled(part), limit * share)
    first = smoothed(rough, first, 0.0, search.deadline, heats=ROUGH).price
    return smoothed(whole, first, search.tolerance, search.deadline, heats=FINE)


def _sample(evaluator: _Finite | _Stationary, rows: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Arms to begin with, and what share of each row (K, N * A) is theirs."""
    n_arms, n_actions = len(evaluator.start), evaluator.reward.shape[1]
    part = np.sort(np.random.default_rng(0).permutation(n_arms)[:SAMPLE])
    weight, inside = evaluator.start.sum(axis=1), np.zeros(n_arms)
    inside[part] = weight[part]
    amount = np.abs(rows) @ np.repeat(weight, n_actions)
    return part, (np.abs(rows) @ np.repeat(inside, n_actions)) / np.maximum(amount, 1e-300)


def _descended(search: _Search, first: np.ndarray, sampled: Callable[[np.ndarray], _Stationary]) -> Smoothed:
    """Constant prices of very many rows by one descent, without heat; ``sampled`` makes the evaluator of some arms."""
    evaluator = search.evaluator
    assert isinstance(evaluator, _Stationary)
    whole = _endless_problem(search, evaluator, search.rent[None], first)
    if len(evaluator.start) >= SAMPLED_FROM:
        part, share = _sample(evaluator, whole.rows)
        rough = _endless_problem(search, sampled(part), search.rent[None] * share, first)
        first = smoothed(rough, first, 0.0, search.deadline, heats=COLD).price
    return smoothed(whole, first, search.tolerance, search.deadline, heats=COLD)


def _endless_problem(search: _Search, evaluator: _Stationary, limit: np.ndarray, first: np.ndarray) -> PriceProblem:
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


def _smooth_problem(search: _Search, evaluator: _Finite, limit: np.ndarray) -> PriceProblem:
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
    evaluator = _Stationary(kernel, pay, costs, merged.start, discount)
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
    evaluator = _Finite(kernel, pay, costs, merged.start, discount, horizon, terminal)
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
    evaluator = _Stationary(kernel[sample], pay[sample], part, merged.start[sample], factor)
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
        total, use, _ = _Stationary(kernel, pay, costs, merged.start, discount)(prices)
        return total + float(coupling.limit @ prices) / (1.0 - discount), use
    shape = (horizon, coupling.n_rows)
    prices = np.broadcast_to(prices, shape)
    total, use, _ = _Finite(kernel, pay, costs, merged.start, discount, horizon)(prices.ravel())
    weight = (discount ** np.arange(horizon))[:, None]
    return total + float((np.broadcast_to(coupling.limit, shape) * weight * prices).sum()), use.reshape(shape)


def stationary_values(
    transition: np.ndarray, reward: np.ndarray, coupling: Coupling, prices: np.ndarray, *, discount: float
) -> np.ndarray:
    """Optimal discounted values of the arms under constant prices, (N, S); never below the exact ones."""
    n_arms, _, n_states, _ = transition.shape
    start = np.full((n_arms, n_states), 1.0 / n_states)
    evaluator = _Stationary(np.asarray(transition), np.asarray(reward), coupling.cost, start, discount)
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
