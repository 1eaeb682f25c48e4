"""What no policy exceeds on a contact graph: arms priced one by one, each contact's help capped.

Let x[t, v, s, a] be the chance that arm v is in state s and action a is done to it in round t, z[t, v] that it is
active at the round's end, h[t, v, s, a] that besides others' activity reaches it. Whatever the policy,

    z = sum over s, a of p(s, a) x + (1 - p(s, a)) h,   h <= capped x,   sum over s, a of h <= sum over u of w_uv z_u,

because an arm's own luck is independent of what reaches it along paths that avoid it, activity reaches it over a last
contact that is live, and it is not reached when all its contacts fail: capped = 1 - product of (1 - w_uv). Actions
satisfy the declared rows in expectation. With prices on the last inequality and on the declared rows the program falls
into one small chain an arm, which numpy solves backwards: any prices at least 0 give an upper limit, and so the limit
does not rest on a solver. Good ones are found by subgradients: with 200 arms and 20 rounds within 1e-5 of the program.

References
----------
Hawkins (2003) for the rows in expectation; the union bound of influence is that of Kempe, Kleinberg, Tardos (2003).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
from scipy import sparse

from rmab_opt.actions import ActionSet
from rmab_opt.overdue import checkpoint
from rmab_opt.problem import Problem
from rmab_opt.settings.networked.greedy import arm_of_column

__all__ = ["ContactBound", "contact_bound"]

EPS = float(np.finfo(np.float64).eps)

STEPS = 600
"""Of the search for prices."""


@dataclass(frozen=True)
class ContactBound:
    """An upper limit of every policy's expected total, proven by prices that numpy sums up again.

    Parameters
    ----------
    value
        In reward units, discounted as the problem says.
    rows
        Prices behind it.
    """

    value: float
    rows: int

    coupling = "contacts' help capped, rows in expectation"

    def __float__(self) -> float:
        return self.value

    def summary(self) -> dict[str, Any]:
        """Plain numbers for reports and JSON."""
        return {"value": self.value, "kind": "priced arms", "coupling": self.coupling}

    def __str__(self) -> str:
        return f"upper bound {self.value:.6g} ({self.coupling}; proven by {self.rows} prices)"


def contact_bound(
    problem: Problem, actions: ActionSet, *, state: np.ndarray | None = None, seconds: float | None = None
) -> ContactBound:
    """Upper limit of every policy's expected total from the problem's start, or from states (N,).

    The search for prices ends after so many seconds on the wall; any prices give a limit.
    """
    deadline = np.inf if seconds is None else perf_counter() + seconds
    arms = _PricedArms(problem, actions, state)
    prices = arms.search(deadline)
    return ContactBound(arms.value(*prices)[0], prices[0].size + sum(len(row) for row in prices[1]))


class _PricedArms:
    """The arms one by one when help from contacts and limits on actions have prices: any prices give an upper limit.

    With price q[t, v] of a unit of help and y[t] of the declared rows, an arm in a state takes the action, and all of
    its capped help or none, that are best for it; when active it also earns sum over u of w_vu q[t, u] for what it
    passes on.
    """

    def __init__(self, problem: Problem, actions: ActionSet, state: np.ndarray | None) -> None:
        dynamics: Any = problem.dynamics
        self.problem, self.chance, self.worth = problem, dynamics.chance, dynamics.value
        self.weights = sparse.csr_array(dynamics.graph.weights)
        self.capped = 1.0 - np.exp(_log_fails(self.weights))
        self.start = problem.start_distribution[:, 1] if state is None else np.asarray(state, dtype=np.float64)
        self.rows: list[sparse.csr_array] = []
        self.limits: list[np.ndarray] = []
        self.shut: list[np.ndarray] = []
        n, last = problem.n_arms, None
        for t in range(problem.horizon):
            now = actions.at(t) if actions.open_constraints else actions
            if now is last:
                self.rows.append(self.rows[-1])
                self.limits.append(self.limits[-1])
                self.shut.append(self.shut[-1])
                continue
            last, arm, plain = now, arm_of_column(now.columns), now.plain_rows
            pick = sparse.csr_array((np.ones(len(arm)), (np.arange(len(arm)), arm)), shape=(len(arm), n))
            matrix = sparse.csr_array(sparse.csr_array(plain.matrix) @ pick)
            upper, lower = (np.asarray(ends, dtype=np.float64) for ends in (plain.upper, plain.lower))
            high, low = np.isfinite(upper), np.isfinite(lower)
            self.rows.append(sparse.csr_array(sparse.vstack([matrix[high], -matrix[low]])))
            self.limits.append(np.concatenate([upper[high], -lower[low]]))
            # Arms without a column, and those that no allowed action acts on.
            shut = np.ones(n, dtype=bool)
            shut[arm[~now.shape.closed]] = False
            self.shut.append(shut)

    def value(self, help_price: np.ndarray, row_price: list[np.ndarray]) -> tuple[float, np.ndarray, list[np.ndarray]]:
        """The limit that prices (T, N) and a list of (m,) prove, rounded outward, and its slopes in them."""
        rounds, n = help_price.shape
        discount = self.problem.discount ** np.arange(rounds)
        ahead, chosen = np.zeros((n, 2)), []
        size = 0.0
        for t in range(rounds - 1, -1, -1):
            gained = discount[t] * self.worth + self.weights @ help_price[t] + ahead[:, 1]
            rise = gained - ahead[:, 0]
            helped = (1.0 - self.chance) * rise[:, None, None] - help_price[t][:, None, None]
            up = self.chance * rise[:, None, None] + np.maximum(helped, 0.0) * self.capped[:, None, None]
            paid = self.rows[t].T @ row_price[t]
            worth = ahead[:, :1, None] + up
            worth[:, :, 1] -= paid[:, None]
            worth[self.shut[t], :, 1] = -np.inf
            best = worth.argmax(axis=2)
            takes = np.take_along_axis(helped > 0, best[:, :, None], axis=2)[:, :, 0]
            chosen.append((best, takes))
            ahead = np.take_along_axis(worth, best[:, :, None], axis=2)[:, :, 0]
            size += float(np.abs(gained).sum() + np.abs(paid).sum() + np.abs(help_price[t]).sum())
        total = float((ahead[:, 0] * (1.0 - self.start) + ahead[:, 1] * self.start).sum())
        rents = [float(limit @ price) for limit, price in zip(self.limits, row_price, strict=True)]
        size += sum(float(np.abs(limit) @ price) for limit, price in zip(self.limits, row_price, strict=True))
        mass, slope, row_slope = np.stack([1.0 - self.start, self.start], axis=1), np.zeros((rounds, n)), []
        for t, (best, takes) in enumerate(reversed(chosen)):
            p = np.take_along_axis(self.chance, best[:, :, None], axis=2)[:, :, 0]
            taken = mass * takes * self.capped[:, None]
            active = (mass * p + (1.0 - p) * taken).sum(axis=1)
            slope[t] = self.weights.T @ active - taken.sum(axis=1)
            row_slope.append(self.limits[t] - self.rows[t] @ (mass * best).sum(axis=1))
            mass = np.stack([1.0 - active, active], axis=1)
        # Rounding of each round is at most a few times the size of what is added in it.
        return total + sum(rents) + 16 * rounds * EPS * size, slope, row_slope

    def search(self, deadline: float = np.inf) -> tuple[np.ndarray, list[np.ndarray]]:
        """Good prices, by subgradients scaled by their own size (Kingma, Ba 2015) in falling steps."""
        rounds, n = self.problem.horizon, self.problem.n_arms
        unit = self.worth * (self.problem.discount ** np.arange(rounds))[:, None]
        help_price, row_price = 0.5 * unit, [np.full(len(limit), 0.5 * self.worth.mean()) for limit in self.limits]
        best, kept = np.inf, (help_price, row_price)
        ends = np.cumsum([0, *(len(row) for row in row_price)])
        at = np.concatenate([help_price.ravel(), *row_price])
        mean, square = np.zeros(len(at)), np.zeros(len(at))
        for step in range(1, STEPS + 1):
            checkpoint()
            now = at[: rounds * n].reshape(rounds, n)
            rows = [at[rounds * n + a : rounds * n + b] for a, b in pairwise(ends)]
            value, slope, row_slope = self.value(now, rows)
            if value < best:
                best, kept = value, (now.copy(), [row.copy() for row in rows])
            if perf_counter() > deadline:
                break
            gradient = np.concatenate([slope.ravel(), *row_slope])
            mean, square = 0.8 * mean + 0.2 * gradient, 0.95 * square + 0.05 * gradient**2
            size = 0.1 * float(self.worth.mean()) * (1.0 - step / (STEPS + 1.0)) ** 2
            move = (mean / (1.0 - 0.8**step)) / (np.sqrt(square / (1.0 - 0.95**step)) + 1e-9)
            at = np.maximum(at - size * move, 0.0)
        return kept


def _log_fails(weights: sparse.csr_array) -> np.ndarray:
    """log of the chance that every contact into each arm fails, (N,)."""
    into = sparse.coo_array(weights)
    with np.errstate(divide="ignore"):
        return np.bincount(into.col, np.log1p(-into.data), minlength=weights.shape[0])
