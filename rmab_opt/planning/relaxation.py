"""A bound for coupled arms by relaxed information: who knows the draws beforehand earns at least as much.

On one path of draws the best actions are found by looking ahead; what looking ahead earns is charged by

    penalty(t) = discount * (W(s') - E W(s')),   E over the next state s' given state and action,

whose mean is zero for whoever does not look ahead, whatever the values W. The mean over paths is therefore an upper
limit of every policy, tight where W are the true values. It is an estimate with an interval, never a proof.

Where joint states are too many, :func:`decoupled_bound` also lets every arm choose what the others do to it, within
what the draws leave possible. Arms are then followed one by one and the limits are priced: quick at any size, and loose
where much of the reward is lost through the coupling.

References
----------
Brown, Smith, Sun (2010), Information relaxations and duality in stochastic dynamic programs, Operations Research 58.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.overdue import checkpoint
from rmab_opt.planning.improve import base_rule
from rmab_opt.planning.joint import CoupledTable
from rmab_opt.problem import Problem

__all__ = ["StatisticalBound", "decoupled_bound", "information_bound"]

NORMAL_99 = 2.3263478740408408
"""One-sided 99 % quantile of the normal law."""


@dataclass(frozen=True)
class StatisticalBound:
    """An upper limit that holds with a stated confidence.

    Parameters
    ----------
    value
        The limit at 99 % confidence: the mean over paths plus 2.33 standard errors.
    mean, error
        Of the paths, and the standard error.
    paths
        Number of paths.
    """

    value: float
    mean: float
    error: float
    paths: int

    coupling = "statistical bound (99 %)"
    """Stands where other bounds say through what the arms are coupled: it is an estimate, never a proof."""

    def __float__(self) -> float:
        return self.value

    def summary(self) -> dict[str, Any]:
        """Plain numbers for reports and JSON."""
        found = {"value": self.value, "kind": "statistical bound (99 %)", "mean": self.mean}
        return {**found, "standard_error": self.error, "paths": self.paths}

    def __str__(self) -> str:
        return f"statistical bound (99 %) {self.value:.6g} (mean {self.mean:.6g}, {self.paths} paths)"

    def share(self, total: np.ndarray) -> tuple[float, float, float]:
        """What episodes (E,) earned as a share of the bound's mean: (share, low, high) of a 95 % interval.

        The interval holds the noise of both, which are taken as independent.
        """
        earned = float(np.mean(total))
        own = float(np.std(total, ddof=1) / len(total) ** 0.5) if len(total) > 1 else 0.0
        share = earned / self.mean
        error = abs(share) * float(np.hypot(own / max(abs(earned), 1e-300), self.error / abs(self.mean)))
        return share, share - 1.96 * error, share + 1.96 * error


def information_bound(
    table: CoupledTable,
    *,
    paths: int = 100,
    seed: int = 0,
    values: list[np.ndarray] | None = None,
    penalty: bool = True,
) -> StatisticalBound:
    """Upper limit of every policy's expected total from the table's start, with 99 % confidence.

    Parameters
    ----------
    table
        The joint states that can be met; it is what makes the look ahead exact, and what keeps this to few arms.
    values
        W of each joint state by round, T + 1 arrays; by default those of the planner's policy.
    penalty
        Whether looking ahead is charged; False gives the plain bound of perfect information.

    Raises
    ------
    CapabilityError
        When the dynamics cannot move by given draws.
    """
    problem: Problem = table.problem
    dynamics: Any = problem.dynamics
    if not callable(getattr(dynamics, "moved", None)):
        raise CapabilityError("moved() by given draws", dynamics, ("add it", "use CoupledTable.optimum()"))
    if paths < 2:
        raise ModelError(f"paths is {paths}", "give at least 2.")
    given = values if values is not None else _planned(table)
    rng, totals = np.random.default_rng(seed), np.zeros(paths)
    for path in range(paths):
        draws = [dynamics.uniforms((), rng) for _ in range(problem.horizon)]
        worth = np.zeros(len(table.states))
        for period in range(problem.horizon - 1, -1, -1):
            here = np.zeros(len(table.states))
            ahead = given[period + 1] if penalty else np.zeros(len(table.states))
            for place, node in enumerate(table.nodes):
                if table.first[place] > period:
                    continue
                after = table.after(place, draws[period])
                charge = ahead[after] - (node.chance * ahead[node.leads]).sum(axis=1)
                here[place] = (node.reward + problem.discount * (worth[after] - charge)).max()
            worth = here
        totals[path] = worth[0]
    mean, error = float(totals.mean()), float(totals.std(ddof=1) / paths**0.5)
    return StatisticalBound(mean + NORMAL_99 * error, mean, error, paths)


def _planned(table: CoupledTable) -> list[np.ndarray]:
    """Exact values of the plan around the means, followed by its table of indices; of the myopic rule without one."""
    problem = table.problem
    try:
        rule = base_rule(problem, table.actions, "mean_field")
    except CapabilityError:
        return table.values(table.myopic()[1])

    def followed(state: np.ndarray, period: int, shared: np.ndarray | None) -> np.ndarray:
        return rule(state[None], period, None if shared is None else shared[None])[0]

    return table.values(table.of(followed)[1])


# -------------------------------------------------------------------------------------------------- arms one by one
PRICE_STEPS = 300
"""Steps of the search for prices: any prices give a bound, good ones a closer one."""


def decoupled_bound(
    problem: Problem, actions: ActionSet, *, state: np.ndarray | None = None, paths: int = 200, seed: int = 0
) -> StatisticalBound:
    """Upper limit of every policy's expected total, with 99 % confidence, for arms that say ``chances_between``.

    With prices p_t >= 0 of acting in round t, a path of draws u is worth at most

        sum over t of p_t most_t + sum over arms of max over (a, q) of sum over t of discount^t (r(q) - p_t a + charge),

    where the arm chooses its action and its chance q of state 1 in every round, q within what the others can do to it
    while their states stay between the bounds that the draws have left, and moves to 1 where u < q; the charge is that
    of the module with W the arm's value where q is free. The true moves are among these choices.

    Parameters
    ----------
    state
        Start from these states (N,) instead of the problem's start.

    Raises
    ------
    CapabilityError
        When the arms do not say ``chances_between`` and move by a uniform draw each.
    """
    dynamics: Any = problem.dynamics
    if not callable(getattr(dynamics, "chances_between", None)):
        raise CapabilityError(
            "chances_between() of the others' effects", dynamics, ("add it", "use information_bound if small")
        )
    if paths < 2:
        raise ModelError(f"paths is {paths}", "give at least 2.")
    rng, arms = np.random.default_rng(seed), _FreeArms(problem, actions)
    n, rounds = problem.n_arms, problem.horizon
    first = (
        problem.sample_start(rng, paths) if state is None else np.tile(np.asarray(state, dtype=np.int64), (paths, 1))
    )
    prices, values = arms.priced(first.mean(axis=0))
    draws = rng.random((rounds, paths, n))
    low, high = np.zeros((rounds, paths, n, 2, 2)), np.zeros((rounds, paths, n, 2, 2))
    least, most = first.astype(np.float64), first.astype(np.float64)
    for t in range(rounds):
        checkpoint()
        low[t], high[t] = dynamics.chances_between(least, most)
        # Own states and actions that are still possible: others leave the extremes out.
        ruled = np.stack([least > 0, most < 1], axis=-1)[..., None]
        smallest = np.where(ruled, 1.0, low[t]).min(axis=(-1, -2))
        largest = np.where(ruled, 0.0, high[t]).max(axis=(-1, -2))
        least, most = (draws[t] < smallest).astype(float), (draws[t] < largest).astype(float)
    worth = np.zeros((paths, n, 2))
    for t in range(rounds - 1, -1, -1):
        checkpoint()
        worth = _best_by_draw(arms, low[t], high[t], draws[t], worth, values[t + 1], prices[t], problem.discount)
    total = np.take_along_axis(worth, first[..., None], axis=-1)[..., 0].sum(axis=1) + arms.charged(prices)
    mean, error = float(total.mean()), float(total.std(ddof=1) / paths**0.5)
    return StatisticalBound(mean + NORMAL_99 * error, mean, error, paths)


def _best_by_draw(
    arms: _FreeArms,
    low: np.ndarray,
    high: np.ndarray,
    draw: np.ndarray,
    ahead: np.ndarray,
    values: np.ndarray,
    price: float,
    discount: float,
) -> np.ndarray:
    """Most that each arm can make of a path from each state on, (M, N, 2); values (N, 2) are those of the charge."""
    u = draw[..., None, None]
    drop, rise = values[:, None, None, 0], (values[:, 1] - values[:, 0])[:, None, None]
    found = np.full(low.shape, -np.inf)
    for following, least, most, possible in (
        (0, low, np.minimum(high, u), low <= u),
        (1, np.maximum(low, u), high, high > u),
    ):
        after = discount * (ahead[..., following] - values[:, following])[..., None, None]
        for q in (least, most):
            # Linear in q between its ends: what is paid, and what the charge gives back.
            paid = arms.base[:, None, None] + arms.more[:, None, None] * q + discount * (drop + rise * q)
            found = np.where(possible, np.maximum(found, paid + after), found)
    return np.asarray((found - price * np.arange(2.0)).max(axis=-1))


class _FreeArms:
    """Arms each of which chooses what the others do to it, under prices of acting."""

    def __init__(self, problem: Problem, actions: ActionSet) -> None:
        dynamics: Any = problem.dynamics
        self.problem = problem
        self.more = dynamics.worth if dynamics.pays == 1 else -dynamics.worth
        self.base = np.zeros(problem.n_arms) if dynamics.pays == 1 else dynamics.worth
        whole = np.zeros(problem.n_arms), np.ones(problem.n_arms)
        self.ends = np.stack(np.broadcast_arrays(*dynamics.chances_between(*whole)))
        given = problem.shared_values(problem.start_shared)
        sets = [actions.at(t, given) for t in range(problem.horizon)]
        most = [len(now) if now.shape.at_most is None else now.shape.at_most for now in sets]
        self.most = np.array(most, dtype=np.float64)
        season = getattr(dynamics, "season", None)
        self.stock = np.inf if season is None else float(given[season])

    def charged(self, prices: np.ndarray) -> float:
        """What the limits are worth at prices: what can be used at the dearest, by round or in the season."""
        # A price counts in rewards of its own round.
        prices = prices * self.problem.discount ** np.arange(len(prices))
        by_round = prices * self.most
        if not np.isfinite(self.stock) or self.most.sum() <= self.stock:
            return float(by_round.sum())
        order = np.argsort(-prices, kind="stable")
        taken = np.diff(np.minimum(np.cumsum(self.most[order]), self.stock), prepend=0.0)
        return float((prices[order] * taken).sum())

    def priced(self, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Prices (T,) that make the free arms' bound small, and the arms' values there, (T + 1, N, 2)."""
        rounds = self.problem.horizon
        prices = np.full(rounds, float(np.abs(self.more).mean()))
        best, kept = np.inf, prices
        for step in range(PRICE_STEPS):
            checkpoint()
            values, act, move = self._values(prices)
            mean, used = start, np.zeros(rounds)
            for t in range(rounds):
                used[t] = ((1.0 - mean) * act[t, :, 0] + mean * act[t, :, 1]).sum()
                mean = (1.0 - mean) * move[t, :, 0] + mean * move[t, :, 1]
            total = float(((1.0 - start) * values[0, :, 0] + start * values[0, :, 1]).sum()) + self.charged(prices)
            if total < best:
                best, kept = total, prices.copy()
            over = used - self.most
            if np.isfinite(self.stock):
                over = np.maximum(over, (used.sum() - self.stock) / rounds)
            size = float(np.abs(self.more).mean()) / (1.0 + 0.1 * step)
            prices = np.maximum(prices + size * over / (1.0 + np.abs(over)), 0.0)
        return kept, self._values(kept)[0]

    def _values(self, prices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values (T + 1, N, 2), whether to act (T, N, 2) and chance of state 1 (T, N, 2) of the free arms."""
        rounds, n = self.problem.horizon, self.problem.n_arms
        values, act, move = np.zeros((rounds + 1, n, 2)), np.zeros((rounds, n, 2)), np.zeros((rounds, n, 2))
        for t in range(rounds - 1, -1, -1):
            ahead = self.problem.discount * values[t + 1]
            slope = self.more + ahead[:, 1] - ahead[:, 0]
            # The chance that pays most: the largest where state 1 is worth more.
            chance = np.where((slope > 0)[:, None, None], self.ends[1], self.ends[0])
            worth = self.base[:, None, None] + ahead[:, :1, None] + slope[:, None, None] * chance
            worth = worth - prices[t] * np.arange(2.0)
            values[t], act[t] = worth.max(axis=-1), worth.argmax(axis=-1)
            move[t] = np.take_along_axis(chance, act[t].astype(np.int64)[..., None], axis=-1)[..., 0]
        return values, act, move
