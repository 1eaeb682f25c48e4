"""Exact choice of one action an arm under plain budgets, by prices, with a certificate.

    maximise  sum_n W[n, a_n]   subject to  at most b_a arms with action a >= 1

is a transportation problem with integral vertices. Its dual, sum_n max(0, max_a W[n, a] - p_a) + p . b, is minimised
one price after the other; each price is an order statistic, so a sweep costs one partial sort an action. Exchanges of
arms along cycles of actions then close what is left and give prices that prove it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from rmab_opt.errors import InfeasibleError, ModelError, SolverError
from rmab_opt.solver import Program, Session

__all__ = ["Assignment", "assign"]

SWEEPS = 6
"""Price sweeps; three suffice on random scores, coordinate steps can stop short of the optimum on small ones."""

EXCHANGES = 400
"""Improving exchanges before the linear program takes over; a handful suffices unless most scores are tied."""

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
    count = np.minimum(np.floor(budgets), scores.shape[0]).astype(np.int64)
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
    """Prices give a nearly optimal start; exchanges along cycles of actions make it optimal and yield exact prices."""
    n_actions, n_arms = worth.shape
    price = np.zeros(n_actions)
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
        if np.array_equal(price, before):
            break
    full = np.concatenate([np.zeros((1, n_arms)), worth])
    action = _spread(full, price, count, equal)
    for _ in range(EXCHANGES):
        cycle, price = _exchange(full, action, count, equal)
        if cycle is None:
            break
        for arm, to in cycle:
            action[arm] = to
    else:
        return None
    value = float(full[action, np.arange(n_arms)].sum())
    bound = float((full - np.concatenate([[0.0], price])[:, None]).max(axis=0).sum() + price @ count)
    if bound - value > CERTIFICATE * max(1.0, abs(bound)):
        return None
    return Assignment(action, value, max(bound, value), price, "prices")


def _spread(full: np.ndarray, price: np.ndarray, count: np.ndarray, equal: bool) -> np.ndarray:
    """Best actions at the prices; what exceeds a budget moves where it loses least, then rests."""
    n_actions = full.shape[0] - 1
    net = full - np.concatenate([[0.0], price])[:, None]
    action = net.argmax(axis=0)
    room = count - np.bincount(action, minlength=n_actions + 1)[1:]
    for own in np.flatnonzero(room < 0) + 1:
        holders = np.flatnonzero(action == own)
        others = net.copy()
        others[own] = -np.inf
        order = np.argsort(net[own, holders] - others[:, holders].max(axis=0), kind="stable")
        excess = holders[order[: -room[own - 1]]]
        for to in range(1, n_actions + 1):
            if room[to - 1] > 0 and excess.size:
                willing = excess[net[to, excess] >= net[0, excess]][: room[to - 1]]
                action[willing] = to
                room[to - 1] -= willing.size
                excess = np.setdiff1d(excess, willing)
        action[excess] = 0
        room[own - 1] = 0
    if equal:
        for own in np.flatnonzero(room > 0) + 1:
            idle = np.flatnonzero(action == 0)
            order = np.argsort(-full[own, idle], kind="stable")[: room[own - 1]]
            action[idle[order]] = own
    return action


def _exchange(
    full: np.ndarray, action: np.ndarray, count: np.ndarray, equal: bool
) -> tuple[list[tuple[int, int]] | None, np.ndarray]:
    """An improving cycle of moves between actions, or None with the prices that prove there is none.

    Nodes are the actions and, when budgets need not be used up, one for slack; an edge a -> b carries the largest
    gain of moving one arm from a to b. Longest paths without a positive cycle are optimal prices.
    """
    n_nodes = full.shape[0] + 1
    slack = n_nodes - 1
    weight = np.full((n_nodes, n_nodes), -np.inf)
    mover = np.full((n_nodes, n_nodes), -1)
    used = np.bincount(action, minlength=slack)
    for own in range(slack):
        holders = np.flatnonzero(action == own)
        if not holders.size:
            continue
        gain = full[:, holders] - full[own, holders]
        best = gain.argmax(axis=1)
        weight[own, :slack] = gain[np.arange(slack), best]
        mover[own, :slack] = holders[best]
        weight[own, own] = -np.inf
    if not equal:
        weight[slack, :slack] = 0.0
        weight[0, slack] = 0.0
        for own in range(1, slack):
            if used[own] < count[own - 1]:
                weight[own, slack] = 0.0
    tolerance = 1e-12 * (1.0 + np.abs(full).max())
    distance = np.zeros(n_nodes)
    parent = np.full(n_nodes, -1)
    last = -1
    for _ in range(n_nodes):
        last = -1
        for node in range(n_nodes):
            reach = distance + weight[:, node]
            best_node = int(reach.argmax())
            if reach[best_node] > distance[node] + tolerance:
                distance[node], parent[node], last = reach[best_node], best_node, node
        if last < 0:
            return None, distance[1:slack] - distance[0]
    for _ in range(n_nodes):
        last = int(parent[last])
    cycle, node = [], last
    while True:
        previous = int(parent[node])
        if mover[previous, node] >= 0:
            cycle.append((int(mover[previous, node]), node))
        node = previous
        if node == last:
            return cycle, distance[1:slack]


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
