"""Planning by means for coupled arms: what an arm does to the others through the shared quantity has its price.

Arms of two states and two actions are followed by their chances x_t(i) of state 1 and shares of action X_t(i, s).
Backwards from nothing, with V' the next round's values and F(i, s, a) the expected reward of an arm and what follows,

    g(i, s) = F(i, s, 1) - F(i, s, 0) + d/da_i of the others' F,
    V(i, s) = F(i, s, 0) + max(g(i, s) - price of acting, 0) + s * d/dx_i of the others' F,

where prices are those at which the shares fill the action set's relaxation. The last terms are the costate of the
shared quantity: without them (``frozen``) every arm takes what the others exert as given.

Such a plan is a point that small changes do not improve, and there are several: where a class needs three, nobody gains
from coming alone, so that acting on nobody is one. It is therefore looked for from acting on all and, where the arms
say a rule of thumb (``hand``), from its flow of means; the one that is worth most by its own means is the plan. Where
the flow of the rule itself is worth more than any of them, the rule is followed in this round.

References
----------
Costates of mean-field control: Carmona, Delarue (2018), *Probabilistic Theory of Mean Field Games*, chapter 6.
Derivatives by complex steps: Squire, Trapp, SIAM Review 40 (1998).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from rmab_opt.actions import ActionSet
from rmab_opt.errors import CapabilityError, SolverError
from rmab_opt.overdue import checkpoint
from rmab_opt.planning.occupancy import Polyhedron, polyhedron
from rmab_opt.problem import Problem
from rmab_opt.registry import register

__all__ = ["MeanField", "MeanPlan", "mean_field"]

STEP = 1e-30
"""Imaginary step of a derivative: its error is of the order of the square."""

SEASON_STEPS, SEASON_PASSES = 14, 4
"""Halvings of the season's price, and passes of each."""

PERIODS = 4096


@dataclass(frozen=True, eq=False)
class MeanPlan:
    """A plan by means from one situation.

    Parameters
    ----------
    index
        g of each round, arm and state, (H, N, 2): what acting is worth now.
    values
        V of each arm and state from each round on, (H + 1, N, 2).
    mean
        Chance of state 1, (H + 1, N).
    act
        Share of action by state, (H, N, 2).
    by_hand
        Whether the arms' rule of thumb is worth more than the plan, and is followed now: bool, ().
    """

    index: np.ndarray
    values: np.ndarray
    mean: np.ndarray
    act: np.ndarray
    by_hand: np.ndarray


# ------------------------------------------------------------------------------------------ one round around the means
# ``...`` below is any number of leading axes: situations that are planned for together.
class _Given:
    """Arms that say ``of_one_arm`` and ``pull``: derivatives as somebody wrote them down."""

    def __init__(self, dynamics: Any) -> None:
        self.dynamics = dynamics
        sign = 1.0 if dynamics.pays == 1 else -1.0
        self.more = sign * dynamics.worth
        self.base = np.zeros(dynamics.n_arms) if dynamics.pays == 1 else dynamics.worth

    def at(self, mean: np.ndarray, act: np.ndarray, shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Chance of state 1 and expected reward by own state and action, (..., N, 2, 2) each."""
        one = self.dynamics.of_one_arm(mean, act, shared)
        return one, self.base[:, None, None] + self.more[:, None, None] * one

    def after(self, mean: np.ndarray, act: np.ndarray, shared: np.ndarray, following: np.ndarray) -> np.ndarray:
        """The shared state after the round at the means, (..., K)."""
        return _after(self.dynamics, mean, act, shared, following)

    def pull(
        self, mean: np.ndarray, act: np.ndarray, shared: np.ndarray, weight: np.ndarray, costate: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives of the others' rewards and weighted chances: by state, by action in 0 and in 1, by shared."""
        found: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] = self.dynamics.pull(
            mean, act, shared, weight + self.more, costate
        )
        return found


class _Measured:
    """Arms that say ``p_next`` for fractions of states and actions: derivatives by complex steps.

    In derivatives an arm's own state and action stand at their means.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.dynamics: Any = problem.dynamics
        self.n_shared = len(problem.shared_names)

    def _one(self, state: np.ndarray, action: np.ndarray, shared: np.ndarray) -> np.ndarray:
        args = (state, action, shared) if self.n_shared else (state, action)
        return np.asarray(self.dynamics.p_next(*args))[..., 1]

    def _paid(self, state: np.ndarray, action: np.ndarray, shared: np.ndarray) -> np.ndarray:
        args = (state, action, shared) if self.n_shared else (state, action)
        return np.asarray(self.dynamics.expected_reward(*args))

    def at(self, mean: np.ndarray, act: np.ndarray, shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Chance of state 1 and expected reward by own state and action, (..., N, 2, 2) each."""
        n = mean.shape[-1]
        own, each = np.arange(n), (*mean.shape[:-1], n, n)
        acting, beside = _acting(mean, act), shared[..., None, :]
        one, paid = np.empty((*mean.shape, 2, 2)), np.empty((*mean.shape, 2, 2))
        for s in range(2):
            for a in range(2):
                state = np.broadcast_to(mean[..., None, :], each).copy()
                action = np.broadcast_to(acting[..., None, :], each).copy()
                state[..., own, own], action[..., own, own] = s, a
                one[..., s, a] = self._one(state, action, beside)[..., own, own]
                paid[..., s, a] = self._paid(state, action, beside)[..., own, own]
        return one, paid

    def after(self, mean: np.ndarray, act: np.ndarray, shared: np.ndarray, following: np.ndarray) -> np.ndarray:
        """The shared state after the round at the means, (..., K)."""
        return _after(self.dynamics, mean, act, shared, following)

    def pull(
        self, mean: np.ndarray, act: np.ndarray, shared: np.ndarray, weight: np.ndarray, costate: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives of the others' rewards and weighted chances: by state, by action in 0 and in 1, by shared."""
        n, k = mean.shape[-1], self.n_shared
        acting, beside = _acting(mean, act).astype(complex), shared[..., None, :]
        own, nudge = np.eye(n, dtype=bool), 1j * STEP * np.eye(n)

        def others(s: np.ndarray, a: np.ndarray) -> np.ndarray:
            one = self._one(s, a, beside)
            slope = (weight[..., None, :] * one + self._paid(s, a, beside)).imag / STEP
            found: np.ndarray = np.where(own, 0.0, slope).sum(axis=-1)
            if k:
                moved = np.asarray(self.dynamics.shared_next(s, a, beside, one))
                found = found + ((moved.imag / STEP) * costate[..., None, :]).sum(axis=-1)
            return found

        state = np.broadcast_to(mean[..., None, :], (*mean.shape, n)).astype(complex)
        action = np.broadcast_to(acting[..., None, :], (*mean.shape, n))
        by_state, by_action = others(state + nudge, action), others(state, action + nudge)
        by_shared = np.zeros(shared.shape)
        for number in range(k):
            nudged = shared.astype(complex)
            nudged[..., number] += 1j * STEP
            one = self._one(mean.astype(complex), acting, nudged)
            slope = (weight * one + self._paid(mean.astype(complex), acting, nudged)).imag.sum(axis=-1) / STEP
            moved = np.asarray(self.dynamics.shared_next(mean.astype(complex), acting, nudged, one))
            by_shared[..., number] = slope + ((moved.imag / STEP) * costate).sum(axis=-1)
        return by_state, by_action, by_action, by_shared


def _acting(mean: np.ndarray, act: np.ndarray) -> np.ndarray:
    """How much each arm is acted on at the means, (..., N)."""
    return np.asarray((1.0 - mean) * act[..., 0] + mean * act[..., 1])


def _at_means(table: np.ndarray, mean: np.ndarray, act: np.ndarray) -> np.ndarray:
    """What a table by own state and action (..., N, 2, 2) comes to at the means, (..., N)."""
    by_state = table[..., 0] + (table[..., 1] - table[..., 0]) * act
    return np.asarray(by_state[..., 0] + mean * (by_state[..., 1] - by_state[..., 0]))


def _after(dynamics: Any, mean: np.ndarray, act: np.ndarray, shared: np.ndarray, following: np.ndarray) -> np.ndarray:
    if not shared.shape[-1]:
        return shared
    return np.asarray(dynamics.shared_next(mean, _acting(mean, act), shared, following), dtype=np.float64)


# --------------------------------------------------------------------------------------------- shares of an action set
class _Fill:
    """Shares of action that maximise the mean gain in a set's relaxation, and the price of each arm's action.

    One count, with upper counts of disjoint groups under it, is filled by gain; other sets by a linear program.
    """

    def __init__(self, actions: ActionSet) -> None:
        counts = _counts(actions) if _one_each(actions) else None
        self.rows: Polyhedron | None = None
        self.fewest, self.most = 0.0, float(len(actions))
        self.member, self.caps = np.zeros((len(actions), 0)), np.zeros(0)
        if counts is None:
            self.rows = polyhedron(actions, 2)
        else:
            self.fewest, self.most, self.member, self.caps = counts

    def __call__(self, gain: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(shares (B, N, 2) of action by state, price (B, N)) for gains (B, N, 2) of arms in states by ``mass``."""
        if self.rows is None:
            limits = np.full(len(gain), self.fewest), np.full(len(gain), self.most)
            return filled(gain, mass, *limits, self.member, self.caps)
        made = [self._program(one, other) for one, other in zip(gain, mass, strict=True)]
        return np.stack([shares for shares, _ in made]), np.stack([price for _, price in made])

    def _program(self, gain: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same of one situation, (N, 2) and (N,), by the linear program over the relaxed set."""
        # Loaded where it is used: it takes a third of a second that few decisions need.
        from scipy.optimize import linprog

        rows = self.rows
        assert rows is not None
        # Each column twice, once a state of its arm, never more than the arm is in that state.
        act = sparse.csr_array(rows.act)
        matrix = sparse.hstack([act, act, sparse.csr_array(rows.extra)], format="csr")
        value = np.concatenate([gain[rows.arm, 0], gain[rows.arm, 1], np.zeros(rows.extra.shape[1])])
        upper = np.concatenate([rows.z_upper * mass[rows.arm, 0], rows.z_upper * mass[rows.arm, 1], rows.w_upper])
        lower = np.concatenate([np.zeros(2 * len(rows.arm)), rows.w_lower])
        above, below = np.isfinite(rows.upper), np.isfinite(rows.lower)
        found = linprog(
            -value,
            A_ub=sparse.vstack([matrix[above], -matrix[below]], format="csr"),
            b_ub=np.concatenate([rows.upper[above], -rows.lower[below]]),
            bounds=np.stack([lower, np.where(np.isfinite(upper), upper, np.inf)], axis=1),
            method="highs",
        )
        if found.status != 0:
            raise SolverError(f"shares of the relaxed action set: {found.message}", "loosen a constraint.")
        c = len(rows.arm)
        used = found.x[: 2 * c].reshape(2, c)
        shares, price = np.zeros_like(gain), np.zeros(len(gain))
        for s in range(2):
            np.add.at(shares[:, s], rows.arm, used[s])
        duals = found.ineqlin.marginals
        split = int(above.sum())
        charged = -(act[above].T @ duals[:split]) + act[below].T @ duals[split:]
        price[rows.arm] = charged
        return np.where(mass > 1e-12, np.clip(shares / np.maximum(mass, 1e-12), 0.0, 1.0), 0.0), price


def filled(
    gain: np.ndarray,
    mass: np.ndarray,
    fewest: np.ndarray,
    most: np.ndarray,
    member: np.ndarray,
    caps: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Best shares (B, N, 2) under a count (B,) and under counts of disjoint groups, and what acting costs, (B, N).

    Sorted by gain, the first k items can use up to F(k) = min(most, sum over groups of min(cap, mass of the first k in
    it)), and item k gets F(k) - F(k - 1): the greedy rule of polymatroids. The price of the count is the gain of the
    item at which it is used up; a group that is used up before adds what its own last item has above that.

    Parameters
    ----------
    member, caps
        Groups (N, G) as 0/1 and their counts (G,); G may be 0. With groups there is no least number.
    """
    batch, n, _ = gain.shape
    gains, masses = gain.reshape(batch, 2 * n), mass.reshape(batch, 2 * n)
    order = (-gains).argsort(axis=1, kind="stable")
    row = np.arange(batch)[:, None]
    ranked, weight = gains[row, order], masses[row, order]
    upto = weight.cumsum(axis=1)
    # Items that gain nothing are taken only as far as a least number asks.
    asked = (ranked > 0.0) | (upto - weight < fewest[:, None])
    group_price = np.zeros((batch, len(caps)))
    if len(caps):
        inside = (weight[..., None] * member[order // 2]).cumsum(axis=1)
        outside = (weight * (1.0 - member.sum(axis=1))[order // 2]).cumsum(axis=1)
        used = outside + np.minimum(inside, caps).sum(axis=-1)
    else:
        used = upto
    room = np.minimum(used, most[:, None])
    given = room.copy()
    given[:, 1:] -= room[:, :-1]
    share = np.where(asked, given / np.maximum(weight, 1e-12), 0.0).clip(0.0, 1.0)
    # An arm that is never in a state has no mass there: what it would get is what the room left says.
    empty = (weight < 1e-12) & asked & (room < most[:, None])
    share[empty] = 1.0
    full = used >= most[:, None]
    price = np.where(full[:, -1], ranked[row[:, 0], full.argmax(axis=1)], 0.0)
    price = np.where(fewest == most, price, np.maximum(price, 0.0))
    if len(caps):
        reached = inside >= caps
        last = np.take_along_axis(ranked, reached.argmax(axis=1), axis=1)
        group_price = np.where(reached[:, -1], np.maximum(last - price[:, None], 0.0), 0.0)
    shares = np.empty_like(gains)
    shares[row, order] = share
    charged = price[:, None] + (group_price @ member.T if len(caps) else 0.0) + np.zeros((batch, n))
    return shares.reshape(gain.shape), charged


def _counts(actions: ActionSet) -> tuple[float, float, np.ndarray, np.ndarray] | None:
    """(fewest, most, groups (C, G), caps (G,)) where that is all that the constraints say."""
    if actions.shape.count is not None:
        least, largest = actions.shape.count
        return float(least), float(largest), np.zeros((len(actions), 0)), np.zeros(0)
    if actions.structured or actions.shape.kind not in ("groups", "nested"):
        return None
    plain, most, members, caps = actions.plain_rows, float(len(actions)), [], []
    for row in actions.shape.binding_rows:
        part = slice(plain.matrix.indptr[row], plain.matrix.indptr[row + 1])
        weights, limit = plain.matrix.data[part], float(plain.ceiling[row])
        if plain.floor[row] > 0 or not np.isfinite(limit):
            return None
        if len(weights) == len(actions):
            most = min(most, float(np.floor(limit / weights[0] + 1e-9)))
        else:
            members.append(np.isin(np.arange(len(actions)), plain.matrix.indices[part]))
            caps.append(float(np.floor(limit / weights[0] + 1e-9)))
    member = np.array(members, dtype=np.float64).reshape(-1, len(actions)).T
    return (0.0, most, member, np.array(caps)) if member.sum(axis=1).max(initial=0.0) <= 1.0 else None


def _one_each(actions: ActionSet) -> bool:
    effect = sparse.csr_array(actions.columns.effect)
    return bool(effect.shape[0] == effect.shape[1] and (effect.diagonal() == 1.0).all() and effect.nnz == len(actions))


# ---------------------------------------------------------------------------------------------------------- the planner
class MeanField:
    """Index of acting on each arm now, by a plan around the means; see the module.

    Parameters
    ----------
    frozen
        Whether arms take what the others exert as given: the same planner without the costate, from acting on nobody.
    iterations
        Forward and backward passes; the shares move by 2/(k + 2) towards the filled ones.

    Raises
    ------
    CapabilityError
        When arms have other than two states and two actions, or say no ``p_next``.
    """

    note = ""
    batched = True
    """Whether states (B, N) are scored together."""

    def __init__(self, problem: Problem, actions: ActionSet, *, frozen: bool = False, iterations: int = 12) -> None:
        dynamics: Any = problem.dynamics
        if (dynamics.n_states, dynamics.n_actions) != (2, 2):
            raise CapabilityError("two states and two actions", dynamics, ("use 'improve'", "use 'lagrangian'"))
        self.problem, self.actions, self.frozen, self.iterations = problem, actions, frozen, iterations
        if callable(getattr(dynamics, "pull", None)):
            self._around: _Given | _Measured = _Given(dynamics)
        elif callable(getattr(dynamics, "p_next", None)):
            self._around = _Measured(problem)
        else:
            raise CapabilityError(
                "p_next() for fractions of states and actions",
                dynamics,
                ("add it", "use policy 'improve', which only simulates"),
            )
        self._season = getattr(dynamics, "season", None)
        self._known: dict[ActionSet, _Fill] = {}

    def scores(
        self,
        state: np.ndarray,
        period: int,
        rng: np.random.Generator | None = None,
        shared: np.ndarray | None = None,
    ) -> np.ndarray:
        """Index of each arm now, passive 0, (..., N, 2), at states (..., N) and shared states (..., K).

        Where the rule of thumb is followed, its own scores.
        """
        states = np.asarray(state)
        flat = states.reshape(-1, states.shape[-1])
        beside = None if shared is None else np.asarray(shared, dtype=np.float64).reshape(len(flat), -1)
        made = self._planned(flat, period, beside)
        now = np.take_along_axis(made.index[0], flat[..., None], axis=-1)[..., 0]
        some = np.flatnonzero(made.by_hand)
        if some.size:
            dynamics: Any = self.problem.dynamics
            now[some] = dynamics.hand(flat[some], period, None if beside is None else beside[some])
        now = now.reshape(states.shape)
        return np.stack([np.zeros_like(now), now], axis=-1)

    def plan(self, state: np.ndarray, period: int, shared: np.ndarray | None = None) -> MeanPlan:
        """The plan from a state (N,), round and shared state (K,) to the end."""
        made = self._planned(np.asarray(state)[None], period, None if shared is None else np.asarray(shared)[None])
        return _those(made, 0, made.by_hand[0])

    def _planned(self, states: np.ndarray, period: int, shared: np.ndarray | None) -> MeanPlan:
        """Plans from states (B, N) and shared states (B, K); a plan's arrays have B as their second axis."""
        start = np.zeros((len(states), 0)) if shared is None else np.asarray(shared, dtype=np.float64)
        now = _Situations(states, period, start, self._fills(period, start))
        if self._season is not None:
            return self._within_season(now)
        if self.frozen:
            return self._passes(now, np.zeros(len(states)), self._idle(now))[0]
        by_hand = self._by_hand(now)
        firsts = [np.ones_like(self._idle(now)), self._idle(now) if by_hand is None else by_hand[0]]
        rows = np.tile(np.arange(len(states)), len(firsts))
        made, worth, _ = self._passes(now.of(rows), np.zeros(len(rows)), np.concatenate(firsts, axis=1))
        worth = worth.reshape(len(firsts), -1)
        best = worth.argmax(axis=0) * len(states) + np.arange(len(states))
        follows = np.zeros(len(states), dtype=bool)
        if by_hand is not None:
            # Of two that are worth the same, the plan: it knows what single arms are worth.
            follows = by_hand[1] > worth.max(axis=0) + 1e-9 * np.abs(by_hand[1])
        return _those(made, best, follows)

    def _within_season(self, now: _Situations) -> MeanPlan:
        """Plans at one price for the whole season, where what they spend is more than is left."""
        made, _, used = self._passes(now, np.zeros(len(now.states)), self._idle(now))
        left = now.shared[:, self.problem.shared_names.index(self._season)]
        over = np.flatnonzero(used > left)
        if not over.size:
            return made
        # What is spent falls as the price rises.
        low, high = np.zeros(len(over)), made.index[:, over].max(axis=(0, 2, 3)).clip(1e-9)
        some = now.of(over)
        for _ in range(SEASON_STEPS):
            checkpoint()
            middle = (low + high) / 2.0
            used = self._passes(some, middle, self._idle(some), SEASON_PASSES)[2]
            more = used > left[over]
            low, high = np.where(more, middle, low), np.where(more, high, middle)
        priced = self._passes(some, high, self._idle(some))[0]
        for part, whole in zip(_arrays(priced), _arrays(made), strict=True):
            whole[:, over] = part
        return made

    def _idle(self, now: _Situations) -> np.ndarray:
        """Shares of acting on nobody, (H, B, N, 2)."""
        return np.zeros((self.problem.horizon - now.period, *now.states.shape, 2))

    def _by_hand(self, now: _Situations) -> tuple[np.ndarray, np.ndarray] | None:
        """Shares (H, B, N, 2) of the arms' rule of thumb along its own means, and what they are worth, (B,)."""
        rule = getattr(self.problem.dynamics, "hand", None)
        if not callable(rule):
            return None
        act, worth, weight = self._idle(now), np.zeros(len(now.states)), 1.0
        mean, shared = now.states.astype(np.float64), now.shared
        for h in range(len(act)):
            score = np.asarray(rule(mean, now.period + h, shared if shared.shape[1] else None))
            act[h], _ = now.fills[h](np.stack([score, score], axis=-1), np.stack([1.0 - mean, mean], axis=-1))
            one, paid = self._around.at(mean, act[h], shared)
            after = _at_means(one, mean, act[h])
            worth += weight * _at_means(paid, mean, act[h]).sum(axis=-1)
            mean, shared = after, self._around.after(mean, act[h], shared, after)
            weight *= self.problem.discount
        return act, worth

    def _fills(self, period: int, shared: np.ndarray) -> list[_Fills]:
        """What may be done in each round from now on, at the shared state of now."""
        rounds = range(period, self.problem.horizon)
        if not self.actions.open_constraints:
            return [_Fills([self._kept(self.actions)], np.zeros(len(shared), dtype=np.int64))] * len(rounds)
        names = self.problem.shared_names
        alike, which = np.unique(shared, axis=0, return_inverse=True)
        found = []
        for now in rounds:
            given = [self.problem.shared_values(row if names else None) for row in alike]
            found.append(_Fills([self._kept(self.actions.at(now, each)) for each in given], which.ravel()))
        return found

    def _kept(self, actions: ActionSet) -> _Fill:
        if actions not in self._known:
            if len(self._known) >= PERIODS:
                self._known.clear()
            self._known[actions] = _Fill(actions)
        return self._known[actions]

    def _passes(
        self, now: _Situations, season: np.ndarray, act: np.ndarray, iterations: int | None = None
    ) -> tuple[MeanPlan, np.ndarray, np.ndarray]:
        """Plans from first shares (H, B, N, 2) at a season's price (B,), of which indices are net.

        Returns
        -------
        tuple
            The plans; what they are worth by their own means, (B,); how many actions each takes in all, (B,).
        """
        problem, around, (batch, n) = self.problem, self._around, now.states.shape
        rounds = len(act)
        mean, index = np.zeros((rounds + 1, batch, n)), np.zeros((rounds, batch, n, 2))
        values, beside = np.zeros((rounds + 1, batch, n, 2)), np.zeros((rounds + 1, *now.shared.shape))
        filled_to, worth = np.zeros((rounds, batch, n, 2)), np.zeros(batch)
        mean[0], beside[0] = now.states, now.shared
        for iteration in range(self.iterations if iterations is None else iterations):
            checkpoint()
            seen = []
            for h in range(rounds):
                seen.append(around.at(mean[h], act[h], beside[h]))
                mean[h + 1] = _at_means(seen[h][0], mean[h], act[h])
                beside[h + 1] = around.after(mean[h], act[h], beside[h], mean[h + 1])
            worth = np.zeros(batch)
            costate = np.zeros(now.shared.shape)
            for h in range(rounds - 1, -1, -1):
                one, paid = seen[h]
                worth = _at_means(paid, mean[h], act[h]).sum(axis=-1) + problem.discount * worth
                ahead = problem.discount * values[h + 1]
                differ = ahead[..., 1] - ahead[..., 0]
                follows = paid + ahead[..., :1, None] + one * differ[..., None, None]
                gain = follows[..., 1] - follows[..., 0]
                gain -= season[:, None, None]
                if not self.frozen:
                    outside, zero, acted, costate = around.pull(
                        mean[h], act[h], beside[h], differ, problem.discount * costate
                    )
                    gain[..., 0] += zero
                    gain[..., 1] += acted
                mass = np.empty_like(gain)
                mass[..., 1] = mean[h]
                np.subtract(1.0, mean[h], out=mass[..., 0])
                index[h] = gain
                filled_to[h], price = now.fills[h](gain, mass)
                values[h] = follows[..., 0] + np.maximum(gain - price[..., None], 0.0)
                if not self.frozen:
                    values[h, ..., 1] += outside
            act += (filled_to - act) * (1.0 if iteration == 0 else 2.0 / (iteration + 2.0))
        used = _acting(mean[:-1], act).sum(axis=(0, 2))
        return MeanPlan(index, values, mean, act, np.zeros(batch, dtype=bool)), worth, used


@dataclass(frozen=True, eq=False)
class _Situations:
    """States (B, N) of one round, shared states (B, K), and what may be done in each round from then on."""

    states: np.ndarray
    period: int
    shared: np.ndarray
    fills: list[_Fills]

    def of(self, rows: np.ndarray) -> _Situations:
        return _Situations(self.states[rows], self.period, self.shared[rows], [fill.of(rows) for fill in self.fills])


@dataclass(frozen=True, eq=False)
class _Fills:
    """What may be done in one round by several situations: sets, and which of them each situation (B,) has."""

    sets: list[_Fill]
    which: np.ndarray

    def of(self, rows: np.ndarray) -> _Fills:
        return _Fills(self.sets, self.which[rows])

    def __call__(self, gain: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(self.sets) == 1:
            return self.sets[0](gain, mass)
        if all(one.rows is None and not len(one.caps) for one in self.sets):
            limits = np.array([(one.fewest, one.most) for one in self.sets])[self.which]
            return filled(gain, mass, limits[:, 0], limits[:, 1], self.sets[0].member, self.sets[0].caps)
        shares, price = np.empty_like(gain), np.empty(gain.shape[:-1])
        for number, one in enumerate(self.sets):
            rows = self.which == number
            if rows.any():
                shares[rows], price[rows] = one(gain[rows], mass[rows])
        return shares, price


def _arrays(plan: MeanPlan) -> tuple[np.ndarray, ...]:
    return plan.index, plan.values, plan.mean, plan.act


def _those(plan: MeanPlan, rows: np.ndarray | int, by_hand: np.ndarray) -> MeanPlan:
    """Plans of some of the situations."""
    index, values, mean, act = (part[:, rows] for part in _arrays(plan))
    return MeanPlan(index, values, mean, act, by_hand)


@register("rule", "mean_field")
def mean_field(problem: Problem, actions: ActionSet, *, frozen: bool = False, iterations: int = 12) -> MeanField:
    """Index by a plan around the means that prices what an arm does to the others (``frozen``: without that price)."""
    return MeanField(problem, actions, frozen=frozen, iterations=iterations)
