"""Arms under prices of the coupling rows: each at its own best, what all come to, and what they use of the rows.

Endless runs by policy iteration (:class:`Stationary`), runs of some rounds by backward and forward passes
(:class:`Finite`). Prices and use are flat vectors, rounds first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from rmab_opt.errors import CapabilityError
from rmab_opt.overdue import checkpoint
from rmab_opt.planning.costs import Costs
from rmab_opt.planning.smoothing import Drawn, Rests

__all__ = ["Evaluator", "Finite", "Stationary"]

IMPROVEMENT = 1e-11
"""Policy improvement below this share of the values is a tie: without a threshold, iteration cycles on ties."""

CACHE_BYTES = 1 << 20
"""Kernels of one chunk of arms: they stay in cache over all rounds of a backward and a forward pass."""

FEW_MOVES = 64
"""Moves (action, from, to) that some arm can make, up to which passes go move by move: a product of small matrices an
arm takes 0.8 microseconds, a move 1 nanosecond an arm."""

FITS, FURTHEST = 5, 8.0
"""Steps to fit a round's prices to its limits, and how far one goes, in heats a unit of the row."""

MOVED_AT_ONCE = 4096
"""Arms whose values stay in cache while all moves are gone through."""

SOLVED_ENTRIES = 4_000_000
"""Entries of the systems that are solved together, between two looks at the clock."""


class Evaluator(Protocol):
    """Arms under prices. Prices and slopes are flat vectors."""

    n_prices: int

    def __call__(self, price: np.ndarray) -> tuple[float, np.ndarray, object]:
        """g's arm part, the use of its policies, and a token from which the occupancy can be rebuilt."""
        ...

    def occupancy(self, token: object) -> np.ndarray:
        """Frequencies of one token, shape (M, S, A) or (T, M, S, A)."""
        ...


class Stationary:
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
        chunk = int(np.clip(SOLVED_ENTRIES // n_states**2, 1, 8192))
        for begin in range(0, arms.size, chunk):
            checkpoint()
            part = arms[begin : begin + chunk]
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


class Finite:
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

    def sampled(self, arms: np.ndarray) -> Finite:
        """The same for some of the arms."""
        reward, terminal = self.reward[arms].transpose(0, 2, 1), None if self.terminal is None else self.terminal[arms]
        return Finite(
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
        acted = np.empty((self.horizon, n_actions, n_arms))
        total = 0.0
        for part, move, reward, start, ends in self._parts():
            own = paid if paid.shape[1] == 1 else paid[:, part]
            value, chance = self._backward(move, reward, own, ends, heat, _drawn)
            total += float((start * value).sum())
            mass, weight, step = start, 1.0, np.empty(start.shape[1])
            count, flow = start.sum(axis=0), np.empty(reward.shape)
            for t in range(self.horizon):
                _split(chance[t], mass, flow)
                np.divide(flow[1:].sum(axis=1), weight, out=acted[t, 1:, part])
                acted[t, 0, part] = count - acted[t, 1:, part].sum(axis=0)
                # Chances of moves hold the discount already.
                weight *= self.discount
                if t + 1 < self.horizon:
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

    def within(
        self, price: np.ndarray, heat: float, limit: np.ndarray, rests: Rests, fits: int = FITS
    ) -> tuple[float, np.ndarray]:
        """Reward and use (T, K) of drawn actions that keep the limits (T, K) in every round, then go on.

        Round by round prices are first moved so that what is drawn uses what the limits allow, ``fits`` steps; then
        arms rest with the chance that their rows ask for. Action 0 uses nothing. Whatever the prices, limits are held,
        so it is a point of the relaxed problem.
        """
        paid, rounds = self._paid(price), price.reshape(limit.shape)
        parts = list(self._parts())
        leads = [
            self._backward(move, reward, paid if paid.shape[1] == 1 else paid[:, part], ends, heat, _ahead)[1]
            for part, move, reward, _, ends in parts
        ]
        masses = [start for _, _, _, start, _ in parts]
        use, total, weight, more = np.zeros(limit.shape), 0.0, 1.0, np.zeros(self.n_rows)
        for t in range(self.horizon):
            more = np.maximum(more, -rounds[t])
            if heat and fits:
                now = [(lead[t], mass / weight) for lead, mass in zip(leads, masses, strict=True)]
                more = self._fitted(now, heat, rounds[t], limit[t], more, fits)
            extra = self.costs.paid(more)[:, 0, 1:].T if more.any() else None
            flows, acts = [], []
            for k, (part, *_) in enumerate(parts):
                chance = _drawn(_less(leads[k][t], extra, part), heat)
                flow = np.empty((len(chance) + 1, *chance.shape[1:]))
                _split(chance, masses[k], flow)
                flows.append(flow)
                acts.append(flow.sum(axis=1))
            acted = np.concatenate(acts, axis=1).T / weight
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

    def _fitted(
        self,
        now: list[tuple[np.ndarray, np.ndarray]],
        heat: float,
        price: np.ndarray,
        limit: np.ndarray,
        more: np.ndarray,
        fits: int,
    ) -> np.ndarray:
        """What prices (K,) of a round are to be raised by, so that rows with a price are used to their limits, (K,).

        By Newton's steps, see :meth:`Costs.newton`.

        Parameters
        ----------
        now
            By chunk of arms what acting is ahead of resting, (A - 1, S, n), and who is in which state, (S, n).
        more
            Where to begin.
        """
        costs, ends = self.costs, np.cumsum([0, *(mass.shape[1] for _, mass in now)])
        n_actions = self.costs.shape[3]
        furthest = FURTHEST * heat / costs.smallest
        for _ in range(fits):
            extra = costs.paid(more)[:, 0, 1:].T if more.any() else None
            acted, varied = np.zeros((2, ends[-1], 1, n_actions))
            for k, (lead, mass) in enumerate(now):
                part = slice(ends[k], ends[k + 1])
                chance = _drawn(_less(lead, extra, part), heat)
                drawn = chance * mass
                acted[part, 0, 1:] = drawn.sum(axis=1).T
                drawn *= 1.0 - chance
                varied[part, 0, 1:] = drawn.sum(axis=1).T
            over = costs.use(acted) - limit
            active = (price + more > 0) | (over > 0)
            more = np.maximum(more + costs.newton(active, over, varied / heat, furthest), -price)
        return more

    def _backward(
        self,
        move: np.ndarray,
        reward: np.ndarray,
        paid: np.ndarray,
        value: np.ndarray,
        heat: float,
        kept: Callable[[np.ndarray, float], np.ndarray],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values before the first round, (S, n), and what is kept of what acting is ahead, (T, A - 1, S, n).

        With ``heat`` values are smooth, see :meth:`_by_moves`.
        """
        found: list[np.ndarray] = []
        step, q = np.empty(reward.shape[2]), np.empty(reward.shape)
        for t in range(self.horizon - 1, -1, -1):
            np.subtract(reward, paid[t].T[:, None, :], out=q)
            for k, (a, s, z) in enumerate(self.moves):
                np.multiply(move[k], value[z], out=step)
                q[a, s] += step
            value = q.max(axis=0)
            lead = q[1:] - q[0]
            found.append(kept(lead, heat))
            if heat:
                # Half the digits: what the logarithm adds is a few heats at most.
                loss = ((q - value) / -heat).astype(np.float32)
                value += heat * np.log(np.exp(-loss).sum(axis=0))
        return value, np.array(found[::-1])

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
                checkpoint()
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
                checkpoint()
                np.multiply(acts[t].transpose(1, 0, 2), mass[:, None, :], out=flow)
                if kept is not None:
                    kept[t, part] = flow.transpose(0, 2, 1)
                acted[t] = (flow if self.costs.by_state else flow.sum(axis=2, keepdims=True)).transpose(0, 2, 1)
                if t + 1 < self.horizon:
                    mass = np.matmul(flow.reshape(size, 1, n_actions * n_states), kernel)[:, 0]
            use += self.costs.use(acted, part)
        return total, use.ravel(), kept


def _ahead(lead: np.ndarray, _: float) -> np.ndarray:
    """What acting is ahead of resting, half the digits: as chances, it is read from one round to the next only."""
    return lead.astype(np.float32)


def _drawn(lead: np.ndarray, heat: float) -> np.ndarray:
    """Chances of acting (A - 1, S, n) where acting is ahead of resting by so much; without heat the first best action.

    A deterministic rule where there is no heat, so a price gives one policy.
    """
    if not heat:
        best = np.maximum(lead.max(axis=0), 0.0)
        hit, open_ = lead == best, best > 0
        for action in range(len(hit)):
            hit[action] &= open_
            open_ &= ~hit[action]
        return hit
    scaled = (lead / heat).astype(np.float32)
    if len(lead) == 1:
        small = np.exp(-np.abs(scaled))
        return np.where(scaled > 0, 1.0, small) / (1.0 + small)
    best = np.maximum(scaled.max(axis=0), 0.0)
    scaled = np.exp(scaled - best)
    return scaled / (scaled.sum(axis=0) + np.exp(-best))


def _less(lead: np.ndarray, extra: np.ndarray | None, part: slice) -> np.ndarray:
    """Leads (A - 1, S, n) of a chunk of arms under further prices (A - 1, N or 1)."""
    if extra is None:
        return lead
    own = extra if extra.shape[1] == 1 else extra[:, part]
    return lead - own[:, None, :].astype(lead.dtype)


def _split(chance: np.ndarray, mass: np.ndarray, flow: np.ndarray) -> None:
    """Who takes which action, (A, S, n), by chances of acting (A - 1, S, n)."""
    np.multiply(chance, mass, out=flow[1:])
    np.subtract(mass, flow[1] if len(flow) == 2 else flow[1:].sum(axis=0), out=flow[0])
