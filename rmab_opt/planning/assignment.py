"""Exact choice of one action an arm under plain budgets, by prices, with a certificate.

    maximise  sum_n W[n, a_n]   subject to  at most b_a arms with action a >= 1

is a transportation problem with integral vertices. Its dual, sum_n max(0, max_a W[n, a] - p_a) + p . b, is minimised
one price after the other; each price is an order statistic, so a sweep costs one partial sort an action.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from rmab_opt.errors import InfeasibleError, ModelError, SolverError
from rmab_opt.solver import Program, Session

__all__ = ["Assignment", "assign"]

SWEEPS = 60
"""Price sweeps before the linear program takes over; three suffice where scores are not tied."""

CERTIFICATE = 1e-9
"""Gap, relative to the dual value, up to which an assignment counts as proven."""


@dataclass(frozen=True, eq=False)
class Assignment:
    """An action for every arm.

    Parameters
    ----------
    action
        int64, shape (N,).
    value
        Sum of the chosen scores, relative to all arms passive.
    bound
        Dual value at ``prices``: no allowed assignment is better.
    prices
        Value of one more unit of each action, shape (A - 1,).
    method
        ``prices``, or ``program`` when the certificate did not close.
    """

    action: np.ndarray
    value: float
    bound: float
    prices: np.ndarray
    method: str

    @property
    def gap(self) -> float:
        """``bound - value``, never negative."""
        return max(0.0, self.bound - self.value)


def assign(scores: np.ndarray, budgets: np.ndarray, *, equal: bool = False) -> Assignment:
    """Best feasible actions for scores under budgets per action.

    Parameters
    ----------
    scores
        W[n, a], shape (N, A); only differences within an arm matter.
    budgets
        Arms that may receive action a = 1 .. A - 1, whole numbers, shape (A - 1,).
    equal
        Use every budget in full even where a score is negative.

    Returns
    -------
    Assignment
        Proven optimal: ``gap`` is at most 1e-9 of the bound.

    Raises
    ------
    ModelError
        When shapes disagree, a score is not finite or a budget is negative.
    InfeasibleError
        When budgets that must be used in full exceed the number of arms.
    """
    scores = np.asarray(scores, dtype=np.float64)
    budgets = np.asarray(budgets)
    if scores.ndim != 2 or budgets.shape != (scores.shape[1] - 1,):
        raise ModelError(f"scores {scores.shape}, budgets {budgets.shape}", "give (N, A) and (A - 1,).")
    if not np.isfinite(scores).all() or (budgets < 0).any():
        raise ModelError("a score is not finite or a budget is negative", "check the inputs.")
    count = np.minimum(np.floor(budgets).astype(np.int64), scores.shape[0])
    if equal and count.sum() > scores.shape[0]:
        raise InfeasibleError(f"{count.sum()} actions for {scores.shape[0]} arms", "lower the budgets.")
    worth = np.ascontiguousarray((scores[:, 1:] - scores[:, :1]).T)
    found = _single(worth, count, equal) if len(count) == 1 else _prices(worth, count, equal)
    return found if found is not None else _program(worth, count, equal)


def _single(worth: np.ndarray, count: np.ndarray, equal: bool) -> Assignment:
    """One action: the largest, first arms first among equals."""
    row, n_chosen = worth[0], int(count[0])
    n_arms = row.size
    order = np.argsort(-row, kind="stable")
    chosen = order[:n_chosen]
    if not equal:
        chosen = chosen[row[chosen] > 0]
    action = np.zeros(n_arms, dtype=np.int64)
    action[chosen] = 1
    value = float(row[chosen].sum())
    price = float(row[order[n_chosen]]) if n_chosen < n_arms else (float(row.min()) if equal and n_arms else 0.0)
    price = price if equal else max(0.0, price)
    bound = float(np.maximum(row - price, 0.0).sum() + price * n_chosen)
    return Assignment(action, value, max(bound, value), np.array([price]), "prices")


def _prices(worth: np.ndarray, count: np.ndarray, equal: bool) -> Assignment | None:
    n_actions, n_arms = worth.shape
    price = np.zeros(n_actions)
    best_dual, best_price = np.inf, price.copy()
    for _ in range(SWEEPS):
        before = price.copy()
        for own in range(n_actions):
            # What the action adds over the arm's best alternative at current prices.
            rest = np.zeros(n_arms)
            for other in range(n_actions):
                if other != own:
                    np.maximum(rest, worth[other] - price[other], out=rest)
            gain = worth[own] - rest
            k = int(count[own])
            if k < n_arms:
                price[own] = np.partition(gain, n_arms - 1 - k)[n_arms - 1 - k]
            else:
                price[own] = gain.min() if equal else 0.0
            if not equal:
                price[own] = max(0.0, price[own])
        net = worth - price[:, None]
        dual = float(np.maximum(net.max(axis=0), 0.0).sum() + price @ count)
        if dual < best_dual:
            best_dual, best_price = dual, price.copy()
        if np.array_equal(price, before):
            break
    action = _repair(worth, best_price, count, equal)
    if action is None:
        return None
    chosen = np.flatnonzero(action)
    value = float(worth[action[chosen] - 1, chosen].sum())
    if best_dual - value > CERTIFICATE * max(1.0, abs(best_dual)):
        return None
    return Assignment(action, value, max(best_dual, value), best_price, "prices")


def _repair(worth: np.ndarray, price: np.ndarray, count: np.ndarray, equal: bool) -> np.ndarray | None:
    """Actions that are best at the prices, ties spread so that budgets hold; None when greedy spreading fails."""
    n_actions, n_arms = worth.shape
    net = np.concatenate([np.zeros((1, n_arms)), worth - price[:, None]])
    top = net.max(axis=0)
    tie = net >= top - 1e-12 * (1.0 + np.abs(top))
    options = tie.sum(axis=0)
    action = np.where(options == 1, tie.argmax(axis=0), 0)
    room = count - np.bincount(action[(options == 1)], minlength=n_actions + 1)[1:]
    if (room < 0).any():
        return None
    # Tied arms, those with the fewest ways out first; actions with a price must be used up.
    need = (price > 0) | equal
    tied = np.flatnonzero(options > 1)
    if tied.size > 50 * (n_actions + 1):
        return None
    edges = {int(n): [int(a) for a in np.flatnonzero(tie[:, n])] for n in tied}
    taken: dict[int, int] = {}
    load = [0] * (n_actions + 1)

    def place(action_: int, seen: set[int]) -> bool:
        """Find an arm for one more unit of an action, moving others along an alternating path."""
        if action_ in seen:
            return False
        seen.add(action_)
        for arm, ways in edges.items():
            if action_ in ways and taken.get(arm, -1) < 0:
                taken[arm] = action_
                load[action_] += 1
                return True
        for arm, ways in edges.items():
            held = taken.get(arm, -1)
            if action_ in ways and held > 0 and held != action_:
                taken[arm] = action_
                load[action_] += 1
                load[held] -= 1
                if place(held, seen):
                    return True
                taken[arm] = held
                load[action_] -= 1
                load[held] += 1
        return False

    for a in range(1, n_actions + 1):
        if need[a - 1]:
            while load[a] < room[a - 1] and place(a, set()):
                pass
            if load[a] < room[a - 1]:
                return None
    for arm, ways in edges.items():
        if arm not in taken:
            free = [a for a in ways if a == 0 or load[a] < room[a - 1]]
            if not free:
                return None
            taken[arm] = free[0]
            load[free[0]] += 1
    for arm, chosen in taken.items():
        action[arm] = chosen
    used = np.bincount(action, minlength=n_actions + 1)[1:]
    return action if (used <= count).all() else None


def _program(worth: np.ndarray, count: np.ndarray, equal: bool) -> Assignment:
    """The transportation program itself: integral at a vertex."""
    n_actions, n_arms = worth.shape
    column = np.arange(n_actions * n_arms)
    matrix = sparse.csr_array(
        (
            np.ones(2 * column.size),
            (np.concatenate([column % n_arms, n_arms + column // n_arms]), np.tile(column, 2)),
        ),
        shape=(n_arms + n_actions, column.size),
    )
    program = Program(
        cost=worth.ravel(),
        matrix=matrix,
        row_lower=np.concatenate([np.zeros(n_arms), count if equal else np.zeros(n_actions)]),
        row_upper=np.concatenate([np.ones(n_arms), count]),
        lower=np.zeros(column.size),
        upper=np.ones(column.size),
        integer=np.zeros(column.size, dtype=bool),
        maximise=True,
    )
    result = Session.from_arrays(program, "exact").solve()
    if result.x is None or result.row_duals is None:
        raise SolverError(f"assignment was not solved: {result.status}", "report these scores.")
    chosen = result.x.reshape(n_actions, n_arms) > 0.5
    action = np.where(chosen.any(axis=0), chosen.argmax(axis=0) + 1, 0)
    value = float(worth[chosen].sum())
    price = result.row_duals[n_arms:]
    price = price if equal else np.maximum(price, 0.0)
    bound = float(np.maximum((worth - price[:, None]).max(axis=0), 0.0).sum() + price @ count)
    if bound - value > 1e-7 * max(1.0, abs(bound)):
        raise SolverError(f"assignment is not proven: value {value:.9g}, bound {bound:.9g}", "report these scores.")
    return Assignment(action, value, max(bound, value), price, "program")
