"""Visits over several periods, exactly: every arm walks from one inspection to the next, all share the slots.

Beliefs are certain, so what an arm earns between two inspections depends on these two slots alone. One unit of flow
an arm through a network of its possible inspections, coupled by the slots' capacities, is the whole problem; its
linear relaxation bounds every policy, and its prices decide almost every arm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from scipy import sparse

from rmab_opt.errors import InfeasibleError, ModelError, SolverError
from rmab_opt.settings.inspection.beliefs import BeliefChains, Windows
from rmab_opt.settings.inspection.plan import shortage
from rmab_opt.solver import Profile, Program, Session

__all__ = ["PeriodsPlan", "plan_periods"]

WHOLE = 1e-6
"""Flow that counts as none or all: the solver's feasibility tolerance."""


@dataclass(frozen=True, eq=False)
class PeriodsPlan:
    """Visits over a horizon with their certificate.

    ``visits`` bool (N, H); ``value`` the total reward they earn, ``bound`` what no policy can earn, recomputed from the
    slots' prices by one longest path an arm; ``price`` (H,) what one more visit in a slot is worth. ``fractional``
    counts arms that the linear program split.
    """

    visits: np.ndarray
    value: float
    bound: float
    price: np.ndarray
    fractional: int
    variables: int
    seconds: float

    @property
    def gap(self) -> float:
        """bound - value, never negative."""
        return max(0.0, self.bound - self.value)


class _Network:
    """Arms of one window pattern: nodes (slot, count in the window), arcs between consecutive inspections.

    Node 0 is the start, the last one the end; ``gain`` has shape (arms, arcs).
    """

    def __init__(
        self, arms: np.ndarray, label: np.ndarray, allowance: np.ndarray, horizon: int, age: np.ndarray,
        chains: BeliefChains, every_window: bool, slot: int = 0, used: int = 0,
    ) -> None:  # fmt: skip
        period = len(label)
        labels = [int(label[(u + slot) % period]) for u in range(horizon)]
        instance = [
            (u + slot) // period * (int(label.max()) + 1) + own if own >= 0 else -1 for u, own in enumerate(labels)
        ]
        order = {number: place for place, number in enumerate(dict.fromkeys(i for i in instance if i >= 0))}
        nodes = [(u, c) for u in range(horizon) if instance[u] >= 0 for c in range(allowance[labels[u]])]
        window = [order[instance[u]] for u, _ in nodes]
        tail, head, begin, finish = [], [], [], []

        def arc(one: int, two: int, left: int, entered: int) -> None:
            tail.append(one)
            head.append(two)
            begin.append(left)
            finish.append(entered)

        end = len(nodes) + 1
        for j, (v, c) in enumerate(nodes):
            # The window that is open now has its count already; a used one need not be visited again.
            due = window[j] == 0 or (window[j] == 1 and used > 0)
            if c == (used if window[j] == 0 else 0) and (not every_window or due):
                arc(0, j + 1, -1, v)
            for i, (u, before) in enumerate(nodes[:j]):
                same = window[i] == window[j]
                if u < v and (
                    (same and c == before + 1)
                    or (not same and c == 0 and (not every_window or window[j] == window[i] + 1))
                ):
                    arc(i + 1, j + 1, u, v)
            if not every_window or window[j] == len(order) - 1:
                arc(j + 1, end, v, horizon)
        if not every_window or not nodes or (used > 0 and len(order) == 1):
            arc(0, end, -1, horizon)
        self.arms, self.end = arms, end
        self.tail, self.head = np.array(tail), np.array(head)
        self.slot = np.array([-1, *(u for u, _ in nodes), -1])[self.head]
        left, entered = np.array(begin), np.array(finish)
        own = chains.of(arms)
        sums = own.sums(int(age[arms].max(initial=0)) + horizon + 2)
        # From the start, slot t pays the belief age + t + 1; from an inspection at u, slot t pays the belief t - u.
        first = np.where(left[None, :] < 0, age[arms][:, None] + 1, 0)
        count = np.where(left < 0, entered, entered - left)
        self.gain = np.take_along_axis(sums, first + count, axis=1) - np.take_along_axis(sums, first, axis=1)

    def longest(self, price: np.ndarray) -> np.ndarray:
        """Worth of every arm's best walk when a visit in slot t costs ``price[t]``, (A,)."""
        worth = np.full((len(self.arms), self.end + 1), -np.inf)
        worth[:, 0] = 0.0
        cost = np.where(self.slot >= 0, price[np.maximum(self.slot, 0)], 0.0)
        # Heads in rising order: nodes are in the order of time, so their tails are settled before.
        order = np.argsort(self.head, kind="stable")
        starts = np.flatnonzero(np.diff(self.head[order], prepend=-1))
        for part in np.split(order, starts[1:]):
            reached = worth[:, self.tail[part]] + self.gain[:, part] - cost[part]
            worth[:, self.head[part[0]]] = reached.max(axis=1)
        return worth[:, self.end]


def _program(networks: list[_Network], capacity: np.ndarray, integer: bool) -> Program:
    """One unit of flow an arm, slots in common."""
    flow, slots, gains, supply = [], [], [], []
    for network in networks:
        n, arcs, each = len(network.arms), np.arange(len(network.tail)), np.ones(len(network.tail))
        shape = (network.end + 1, len(each))
        balance = sparse.coo_array((each, (network.tail, arcs)), shape=shape) - sparse.coo_array(
            (each, (network.head, arcs)), shape=shape
        )
        flow.append(sparse.kron(sparse.eye_array(n), sparse.csr_array(balance)[: network.end], format="csr"))
        visit = network.slot >= 0
        one = sparse.coo_array((each[visit], (network.slot[visit], arcs[visit])), shape=(len(capacity), len(each)))
        slots.append(sparse.kron(np.ones((1, n)), one, format="csr"))
        gains.append(network.gain.ravel())
        supply.append(np.tile(np.eye(1, network.end)[0], n))
    matrix = sparse.vstack([sparse.block_diag(flow, format="csr"), sparse.hstack(slots, format="csr")], format="csr")
    gain, right = np.concatenate(gains), np.concatenate(supply)
    n = len(gain)
    return Program(
        gain, sparse.csr_array(matrix), np.concatenate([right, np.full(len(capacity), -np.inf)]),
        np.concatenate([right, capacity]), np.zeros(n), np.ones(n), np.full(n, integer), maximise=True,
    )  # fmt: skip


def _taken(networks: list[_Network], x: np.ndarray, n_arms: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Visits (N, H) of the arms whose flow is whole, and which arms those are."""
    visits, whole = np.zeros((n_arms, horizon), dtype=bool), np.ones(n_arms, dtype=bool)
    at = 0
    for network in networks:
        flow = x[at : at + network.gain.size].reshape(network.gain.shape)
        at += network.gain.size
        whole[network.arms] = (np.abs(flow - np.rint(flow)) <= WHOLE).all(axis=1)
        arm, arc = np.nonzero((flow > 0.5) & (network.slot >= 0))
        visits[network.arms[arm], network.slot[arc]] = True
    visits[~whole] = False
    return visits, whole


def plan_periods(
    chains: BeliefChains,
    windows: Windows,
    horizon: int,
    capacity: int | np.ndarray,
    *,
    slot: int = 0,
    age: np.ndarray | None = None,
    used: np.ndarray | None = None,
    every_window: bool = False,
    profile: str | Path | Profile = "default",
) -> PeriodsPlan:
    """Best visits over ``horizon`` slots and the certified bound on every policy.

    Parameters
    ----------
    horizon
        Slots H, one period or several.
    capacity
        Visits a slot can hold: one number, or (H,).
    slot
        Slot of the period in which the horizon begins.
    age
        Slots since each arm's last inspection, (N,); 0 by default.
    used
        Inspections in the window that is open now, (N,); 0 by default.
    every_window
        Whether no window may be skipped (with an allowance of one: exactly one visit a window).

    Raises
    ------
    InfeasibleError
        When no window may be skipped and the slots cannot hold all visits; names the interval.
    """
    begun = perf_counter()
    n_arms = len(chains)
    if windows.n_arms != n_arms or horizon < 1:
        raise ModelError(f"{n_arms} chains, {windows.n_arms} arms with windows, horizon {horizon}", "make them agree.")
    room = np.broadcast_to(np.asarray(capacity, dtype=np.float64), horizon).copy()
    age = np.zeros(n_arms, dtype=np.int64) if age is None else np.asarray(age, dtype=np.int64)
    age = np.minimum(age, chains.beliefs.shape[1])
    used = np.zeros(n_arms, dtype=np.int64) if used is None else np.asarray(used, dtype=np.int64)
    if every_window and not slot and not used.any():
        _demand_room(windows, horizon, room)
    pattern = np.concatenate([windows.label, windows.allowance, used[:, None]], axis=1)
    key, group = np.unique(pattern, axis=0, return_inverse=True)
    split = [(np.flatnonzero(group.reshape(-1) == g), row) for g, row in enumerate(key)]

    def networks(some: np.ndarray) -> list[_Network]:
        parts = [
            (arms[some[arms]], row[: windows.n_slots], row[windows.n_slots : -1], int(row[-1])) for arms, row in split
        ]
        return [
            _Network(arms, label, allowance, horizon, age, chains, every_window, slot, count)
            for arms, label, allowance, count in parts
            if arms.size
        ]

    whole_problem = networks(np.ones(n_arms, dtype=bool))
    program = _program(whole_problem, room, integer=False)
    result = Session.from_arrays(program, profile).solve()
    if result.status in ("infeasible", "infeasible_or_unbounded"):
        raise InfeasibleError("no plan: the slots cannot hold every window's visit", "give more visits a slot.")
    if result.x is None or result.row_duals is None:
        raise SolverError(f"no plan was found: {result.status}", "give the profile more time.")
    price = np.maximum(0.0, result.row_duals[-horizon:])
    bound = float(price @ room) + sum(float(network.longest(price).sum()) for network in whole_problem)
    visits, whole = _taken(whole_problem, result.x, n_arms, horizon)
    fractional, rng = int((~whole).sum()), np.random.default_rng(0)
    free = ~whole
    while free.any():
        visits[free] = False
        rest = networks(free)
        again = Session.from_arrays(_program(rest, room - visits.sum(axis=0), integer=True), profile).solve()
        if again.x is not None:
            found, _ = _taken(rest, np.rint(again.x), n_arms, horizon)
            visits[free] = found[free]
            break
        if free.all():
            raise InfeasibleError("no plan: the slots cannot hold every window's visit", "give more visits a slot.")
        # The split arms do not fit beside the others: free ten times as many.
        free |= rng.random(n_arms) < 10 * free.mean()
    value = _earned(chains, age, visits)
    return PeriodsPlan(visits, value, max(bound, value), price, fractional, len(program.cost), perf_counter() - begun)


def _demand_room(windows: Windows, horizon: int, room: np.ndarray) -> None:
    """Each window of each period, as an arm of its own, must find a slot."""
    slot = np.arange(horizon)
    label = windows.label[:, slot % windows.n_slots]
    for number in range(windows.n_windows):
        for period in range(-(-horizon // windows.n_slots)):
            cells = (label == number) & (slot // windows.n_slots == period)
            found = shortage(cells, cells.any(axis=1).astype(np.int64), room)
            if found is not None:
                raise found.error()


def _earned(chains: BeliefChains, age: np.ndarray, visits: np.ndarray) -> float:
    """Reward of the visits, by walking through the slots: a second opinion on the network's arcs."""
    total, now = 0.0, age.copy()
    for taken in visits.T:
        now = np.where(taken, 0, now + 1)
        total += float(chains.at(now).sum())
    return total
