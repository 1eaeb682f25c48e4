"""Exact values where they can still be computed: the joint dynamic program over a few arms.

It knows no decomposition and no bound: the yardstick for both on small instances, and for learned policies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError
from rmab_opt.problem import Problem
from rmab_opt.problem.dynamics import require_tabular

__all__ = ["JointOptimum", "joint_optimum", "joint_value"]

MOST_STATES = 2_000_000
"""Joint states of one round that are taken on; each is a number in a few arrays."""

MOST_ACTIONS = 5_000
"""Allowed actions that are taken on."""


@dataclass(frozen=True, eq=False)
class JointOptimum:
    """The best policy of a small problem and what it earns.

    Parameters
    ----------
    value
        Expected (discounted) total from the problem's start, reward units.
    actions
        Allowed actions, int64 (M, C), one for each way to treat the arms.
    supports
        ``supports[t][n]``: states in which arm n can be at round t, sorted.
    best
        ``best[t]``: row of ``actions`` at each joint state, in the order of the supports, shape (|.|, ..., |.|).
    """

    value: float
    actions: np.ndarray
    supports: list[list[np.ndarray]]
    best: list[np.ndarray]

    def __float__(self) -> float:
        return self.value

    def action(self, state: np.ndarray, period: int) -> np.ndarray:
        """An optimal action, 0/1 (C,), at a state (N,) that the start can reach by that round.

        Raises
        ------
        ModelError
            When the state cannot be reached by then.
        """
        place = []
        for arm, known in enumerate(self.supports[period]):
            at = int(np.searchsorted(known, state[arm]))
            if at == len(known) or known[at] != state[arm]:
                raise ModelError(
                    f"arm {arm} cannot be in state {state[arm]} at round {period}", "start from the problem's start."
                )
            place.append(at)
        return self.actions[self.best[period][tuple(place)]]


def joint_optimum(problem: Problem, actions: ActionSet) -> JointOptimum:
    """The optimal expected total and policy by backward induction over joint states.

    V[t, s] = max over allowed a of the sum over n of r[n, s_n, a_n] + discount * E V[t + 1, s'], with every joint
    state that the start can reach; arms move independently, so the expectation is taken arm by arm.

    Raises
    ------
    CapabilityError
        When there are more than 2,000,000 joint states in a round or 5,000 allowed actions, or the dynamics offer no
        tables.
    InfeasibleError
        When no action is allowed.
    """
    transition, reward = require_tabular(problem.dynamics, "the joint optimum")
    supports = _supports(problem, transition)
    listed = actions.enumerate(40 * MOST_ACTIONS)
    if listed is None or len(listed) > MOST_ACTIONS:
        raise CapabilityError(
            f"a joint dynamic program over more than {MOST_ACTIONS} actions",
            actions,
            ("use fewer arms", "measure against rmab_opt.bound"),
        )
    if not len(listed):
        raise InfeasibleError("no action is allowed", "loosen a constraint.")
    # Actions that treat every arm alike are one.
    treated, first = np.unique(actions.columns.arm_action(listed), axis=0, return_index=True)
    value = np.zeros([len(states) for states in supports[problem.horizon]])
    best: list[np.ndarray] = []
    for period in range(problem.horizon - 1, -1, -1):
        here, there = supports[period], supports[period + 1]
        shape = [len(states) for states in here]
        chosen, most = np.zeros(shape, dtype=np.int64), np.full(shape, -np.inf)
        kernel = [transition[n][:, here[n]][:, :, there[n]] for n in range(problem.n_arms)]
        paid = [reward[n][here[n]] for n in range(problem.n_arms)]

        def look(
            arm: int,
            ahead: np.ndarray,
            rows: np.ndarray,
            now: np.ndarray,
            kernel: list[np.ndarray] = kernel,
            paid: list[np.ndarray] = paid,
            chosen: np.ndarray = chosen,
            most: np.ndarray = most,
        ) -> None:
            """Settle arms from ``arm`` on: ``ahead`` has the earlier arms' next states averaged out."""
            if arm == problem.n_arms:
                total = now + problem.discount * ahead
                better = total > most
                most[better], chosen[better] = total[better], first[rows[0]]
                return
            for action in np.unique(treated[rows, arm]):
                mean = np.moveaxis(np.tensordot(kernel[arm][action], ahead, axes=(1, arm)), 0, arm)
                along = [1] * problem.n_arms
                along[arm] = -1
                look(arm + 1, mean, rows[treated[rows, arm] == action], now + paid[arm][:, action].reshape(along))

        look(0, value, np.arange(len(treated)), np.zeros([1] * problem.n_arms))
        value = most
        best.append(chosen)
    start = problem.start_distribution
    for arm, states in enumerate(supports[0]):
        value = np.tensordot(start[arm, states], value, axes=(0, 0))
    return JointOptimum(float(value), listed.astype(np.int64), supports, best[::-1])


def joint_value(problem: Problem, actions: ActionSet, choose: Callable[[np.ndarray, int], np.ndarray]) -> float:
    """Exact expected total of a policy without chance of its own, from the problem's start.

    Parameters
    ----------
    choose
        State (N,) and round to the allowed 0/1 action (C,); asked once a joint state that the policy itself reaches.

    Raises
    ------
    CapabilityError
        When there are too many joint states; see :func:`joint_optimum`.
    ModelError
        When the policy takes a forbidden action.
    """
    transition, reward = require_tabular(problem.dynamics, "the value of a policy")
    supports = _supports(problem, transition)
    chance = np.ones([1] * problem.n_arms)
    for arm, states in enumerate(supports[0]):
        along = [1] * problem.n_arms
        along[arm] = -1
        chance = chance * problem.start_distribution[arm, states].reshape(along)
    total, every = 0.0, np.arange(problem.n_arms)
    for period in range(problem.horizon):
        here, there = supports[period], supports[period + 1]
        following = np.zeros([len(states) for states in there])
        grouped: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for place in zip(*np.nonzero(chance), strict=True):
            state = np.array([here[n][k] for n, k in enumerate(place)])
            action = np.asarray(choose(state, period))
            broken = actions.violations(action)
            if broken:
                raise ModelError(f"forbidden action in state {state.tolist()}: {broken}", "choose an allowed one.")
            taken = actions.columns.arm_action(action)
            total += problem.discount**period * chance[place] * float(reward[every, state, taken].sum())
            grouped.setdefault(tuple(taken.tolist()), []).append(place)
        for taken_, places in grouped.items():
            part = np.zeros_like(chance)
            where = tuple(np.array(axis) for axis in zip(*places, strict=True))
            part[where] = chance[where]
            for n in range(problem.n_arms):
                kernel = transition[n, taken_[n]][here[n]][:, there[n]]
                part = np.moveaxis(np.tensordot(kernel, part, axes=(0, n)), 0, n)
            following += part
        chance = following
    return total


def _supports(problem: Problem, transition: np.ndarray) -> list[list[np.ndarray]]:
    """States in which each arm can be at rounds 0 .. T under any actions; refused when their product is too large."""
    reachable = problem.start_distribution > 0
    step = transition.max(axis=1) > 0
    found = []
    for _ in range(problem.horizon + 1):
        sizes = reachable.sum(axis=1).astype(float)
        if np.log(sizes).sum() > np.log(MOST_STATES):
            raise CapabilityError(
                f"a joint dynamic program over more than {MOST_STATES} states",
                problem,
                ("use fewer arms, or fewer states", "measure against rmab_opt.bound"),
            )
        found.append([np.flatnonzero(row) for row in reachable])
        reachable = np.einsum("ns,nst->nt", reachable.astype(float), step.astype(float)) > 0
    return found
