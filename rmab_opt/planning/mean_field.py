"""Planning by means for coupled arms: what an arm does to the others through the shared quantity has its price.

Arms of two states and two actions are followed by their chances x_t(i) of state 1 and shares of action X_t(i, s).
Backwards from nothing, with V' the next round's values and F(i, s, a) the expected reward of an arm and what follows,

    g(i, s) = F(i, s, 1) - F(i, s, 0) + d/da_i of the others' F,
    V(i, s) = F(i, s, 0) + max(g(i, s) - price of acting, 0) + s * d/dx_i of the others' F,

where prices are those at which the shares fill the action set's relaxation. The last terms are the costate of the
shared quantity: without them (``frozen``) every arm takes what the others exert as given.

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
from scipy.optimize import linprog

from rmab_opt.actions import ActionSet
from rmab_opt.errors import CapabilityError, SolverError
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
    """

    index: np.ndarray
    values: np.ndarray
    mean: np.ndarray
    act: np.ndarray


# ------------------------------------------------------------------------------------------ one round around the means
class _Given:
    """Arms that say ``of_one_arm`` and ``pull``: derivatives as somebody wrote them down."""

    def __init__(self, dynamics: Any) -> None:
        self.dynamics = dynamics
        sign = 1.0 if dynamics.pays == 1 else -1.0
        self.more = sign * dynamics.worth
        self.base = np.zeros(dynamics.n_arms) if dynamics.pays == 1 else dynamics.worth

    def at(self, mean: np.ndarray, act: np.ndarray, shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Chance of state 1 and expected reward by own state and action, (N, 2, 2) each."""
        one = self.dynamics.of_one_arm(mean, act, shared)
        return one, self.base[:, None, None] + self.more[:, None, None] * one

    def after(self, mean: np.ndarray, act: np.ndarray, shared: np.ndarray, following: np.ndarray) -> np.ndarray:
        """The shared state after the round at the means, (K,)."""
        return shared

    def pull(
        self, mean: np.ndarray, act: np.ndarray, shared: np.ndarray, weight: np.ndarray, costate: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives of the others' rewards and weighted chances: by state, by action in 0 and in 1, by shared."""
        return (*self.dynamics.pull(mean, act, shared, weight + self.more), np.zeros(len(shared)))


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
        """Chance of state 1 and expected reward by own state and action, (N, 2, 2) each."""
        n, own = len(mean), np.arange(len(mean))
        acting = (1.0 - mean) * act[:, 0] + mean * act[:, 1]
        one, paid = np.empty((n, 2, 2)), np.empty((n, 2, 2))
        for s in range(2):
            for a in range(2):
                state, action = np.tile(mean, (n, 1)), np.tile(acting, (n, 1))
                state[own, own], action[own, own] = s, a
                one[:, s, a] = self._one(state, action, shared)[own, own]
                paid[:, s, a] = self._paid(state, action, shared)[own, own]
        return one, paid

    def after(self, mean: np.ndarray, act: np.ndarray, shared: np.ndarray, following: np.ndarray) -> np.ndarray:
        """The shared state after the round at the means, (K,)."""
        if not self.n_shared:
            return shared
        acting = (1.0 - mean) * act[:, 0] + mean * act[:, 1]
        return np.asarray(self.dynamics.shared_next(mean, acting, shared, following), dtype=np.float64)

    def pull(
        self, mean: np.ndarray, act: np.ndarray, shared: np.ndarray, weight: np.ndarray, costate: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives of the others' rewards and weighted chances: by state, by action in 0 and in 1, by shared."""
        n, k = len(mean), self.n_shared
        acting = (1.0 - mean) * act[:, 0] + mean * act[:, 1]
        own = np.eye(n, dtype=bool)
        state, action = np.tile(mean.astype(complex), (n, 1)), np.tile(acting.astype(complex), (n, 1))

        def others(s: np.ndarray, a: np.ndarray) -> np.ndarray:
            slope = (weight * self._one(s, a, shared) + self._paid(s, a, shared)).imag / STEP
            found: np.ndarray = np.where(own, 0.0, slope).sum(axis=1)
            if k:
                moved = self.dynamics.shared_next(s, a, shared, self._one(s, a, shared))
                found = found + (np.asarray(moved).imag / STEP) @ costate
            return found

        by_state = others(state + 1j * STEP * np.eye(n), action)
        by_action = others(state, action + 1j * STEP * np.eye(n))
        by_shared = np.zeros(k)
        for number in range(k):
            nudged = shared.astype(complex)
            nudged[number] += 1j * STEP
            s, a = mean.astype(complex), acting.astype(complex)
            slope = float((weight * self._one(s, a, nudged) + self._paid(s, a, nudged)).imag.sum()) / STEP
            moved = np.asarray(self.dynamics.shared_next(s, a, nudged, self._one(s, a, nudged)))
            by_shared[number] = slope + float((moved.imag / STEP) @ costate)
        return by_state, by_action, by_action, by_shared


# --------------------------------------------------------------------------------------------- shares of an action set
class _Fill:
    """Shares of action that maximise the mean gain in a set's relaxation, and the price of each arm's action."""

    def __init__(self, actions: ActionSet) -> None:
        self.count = actions.shape.count if _one_each(actions) else None
        self.rows: Polyhedron | None = None if self.count is not None else polyhedron(actions, 2)

    def __call__(self, gain: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(shares (N, 2) of action by state, price (N,)) for gains (N, 2) of arms that are in a state with ``mass``."""
        return self._sorted(gain, mass) if self.count is not None else self._program(gain, mass)

    def _sorted(self, gain: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self.count is not None
        fewest, most = self.count
        gains, masses = gain.ravel(), mass.ravel()
        order = np.argsort(-gains, kind="stable")
        ahead = np.cumsum(masses[order]) - masses[order]
        share = np.clip((most - ahead) / np.maximum(masses[order], 1e-12), 0.0, 1.0)
        share = np.where((gains[order] > 0) | (ahead < fewest), share, 0.0)
        full = ahead + masses[order] >= most
        margin = gains[order][int(full.argmax())] if full.any() else 0.0
        shares = np.empty_like(gains)
        shares[order] = share
        price = margin if fewest == most else max(margin, 0.0)
        return shares.reshape(gain.shape), np.full(len(gain), price)

    def _program(self, gain: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def _one_each(actions: ActionSet) -> bool:
    effect = sparse.csr_array(actions.columns.effect)
    return bool(effect.shape[0] == effect.shape[1] and (effect.diagonal() == 1.0).all() and effect.nnz == len(actions))


# ---------------------------------------------------------------------------------------------------------- the planner
class MeanField:
    """Index of acting on each arm now, by a plan around the means; see the module.

    Parameters
    ----------
    frozen
        Whether arms take what the others exert as given: the same planner without the costate.
    iterations
        Forward and backward passes; the shares move by 2/(k + 2) towards the filled ones.

    Raises
    ------
    CapabilityError
        When arms have other than two states and two actions, or say no ``p_next``.
    """

    note = ""

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
        self._fills: dict[ActionSet, _Fill] = {}

    def scores(
        self,
        state: np.ndarray,
        period: int,
        rng: np.random.Generator | None = None,
        shared: np.ndarray | None = None,
    ) -> np.ndarray:
        """Index of each arm now, passive 0, (N, 2)."""
        index = self.plan(state, period, shared).index[0]
        now = index[np.arange(len(index)), np.asarray(state)]
        return np.stack([np.zeros_like(now), now], axis=1)

    def plan(self, state: np.ndarray, period: int, shared: np.ndarray | None = None) -> MeanPlan:
        """The plan from a state (N,), round and shared state (K,) to the end."""
        start = np.zeros(0) if shared is None else np.asarray(shared, dtype=np.float64)
        if self._season is None:
            return self._passes(np.asarray(state, float), period, start, 0.0)[0]
        left = float(start[self.problem.shared_names.index(self._season)])
        made, used = self._passes(np.asarray(state, float), period, start, 0.0)
        low, high = 0.0, max(1e-9, float(made.index.max(initial=0.0)))
        if used <= left:
            return made
        # One price for the whole season: what is spent falls as it rises.
        for _ in range(SEASON_STEPS):
            middle = (low + high) / 2.0
            _, used = self._passes(np.asarray(state, float), period, start, middle, SEASON_PASSES)
            low, high = (middle, high) if used > left else (low, middle)
        return self._passes(np.asarray(state, float), period, start, high)[0]

    def _fill(self, period: int, shared: np.ndarray) -> _Fill:
        given = self.problem.shared_values(shared if self.problem.shared_names else None)
        now = self.actions.at(period, given)
        if now not in self._fills:
            if len(self._fills) >= PERIODS:
                self._fills.clear()
            self._fills[now] = _Fill(now)
        return self._fills[now]

    def _passes(
        self, state: np.ndarray, period: int, shared: np.ndarray, season: float, iterations: int | None = None
    ) -> tuple[MeanPlan, float]:
        """The plan at a season's price, and how many actions it takes in all; indices are net of that price."""
        problem, around, n = self.problem, self._around, self.problem.n_arms
        rounds = problem.horizon - period
        # Limits of later rounds that depend on the shared state are taken at its value now.
        fills = [self._fill(period + h, shared) for h in range(rounds)]
        mean, index = np.zeros((rounds + 1, n)), np.zeros((rounds, n, 2))
        values, beside = np.zeros((rounds + 1, n, 2)), np.zeros((rounds + 1, len(shared)))
        act = np.full((rounds, n, 2), 0.0)
        for iteration in range(self.iterations if iterations is None else iterations):
            mean[0], beside[0] = state, shared
            seen = []
            for h in range(rounds):
                one, paid = around.at(mean[h], act[h], beside[h])
                seen.append((one, paid))
                by_state = one[..., 0] + (one[..., 1] - one[..., 0]) * act[h]
                mean[h + 1] = (1.0 - mean[h]) * by_state[:, 0] + mean[h] * by_state[:, 1]
                beside[h + 1] = around.after(mean[h], act[h], beside[h], mean[h + 1])
            filled, costate = np.zeros_like(act), np.zeros(len(shared))
            for h in range(rounds - 1, -1, -1):
                one, paid = seen[h]
                ahead = problem.discount * values[h + 1]
                differ = ahead[:, 1] - ahead[:, 0]
                worth = paid + ahead[:, :1, None] + one * differ[:, None, None]
                gain = worth[..., 1] - worth[..., 0] - season
                outside = np.zeros(n)
                if not self.frozen:
                    outside, zero, acted, costate = around.pull(
                        mean[h], act[h], beside[h], differ, problem.discount * costate
                    )
                    gain = gain + np.stack([zero, acted], axis=1)
                index[h] = gain
                mass = np.stack([1.0 - mean[h], mean[h]], axis=1)
                filled[h], price = fills[h](gain, mass)
                values[h] = worth[..., 0] + np.maximum(gain - price[:, None], 0.0)
                values[h, :, 1] += outside
            act = act + (filled - act) * (1.0 if iteration == 0 else 2.0 / (iteration + 2.0))
        used = float(sum(((1 - mean[h]) * act[h, :, 0] + mean[h] * act[h, :, 1]).sum() for h in range(rounds)))
        return MeanPlan(index, values, mean, act), used


@register("rule", "mean_field")
def mean_field(problem: Problem, actions: ActionSet, *, frozen: bool = False, iterations: int = 12) -> MeanField:
    """Index by a plan around the means that prices what an arm does to the others (``frozen``: without that price)."""
    return MeanField(problem, actions, frozen=frozen, iterations=iterations)
