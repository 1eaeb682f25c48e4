"""Exact values where they can still be computed: the joint dynamic program over a few arms.

It knows no decomposition and no bound: the yardstick for both on small instances, and for learned policies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError
from rmab_opt.overdue import checkpoint
from rmab_opt.problem import Problem
from rmab_opt.problem.dynamics import require_tabular

__all__ = ["CoupledTable", "JointOptimum", "joint_optimum", "joint_value"]

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
        checkpoint()
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


# ---------------------------------------------------------------------------------------------------- coupled arms
TIE = 11
"""Decimals at which two values count as equal, so that rounding decides no policy."""


@dataclass(frozen=True, eq=False)
class _Node:
    """One joint state with a shared state: what may be done, what it earns, where it leads with which chance."""

    actions: np.ndarray
    reward: np.ndarray
    chance: np.ndarray
    leads: np.ndarray


class CoupledTable:
    """All that can happen to a few coupled arms, from the problem's start: exact values of any policy, and the best.

    Parameters
    ----------
    problem
        Its dynamics offer ``joint_chance``, ``possible`` and ``shared_next``; the start is given, not random.
    actions
        What may be done; limits may depend on round-free shared values.

    Raises
    ------
    CapabilityError
        When the dynamics do not say joint chances, or there are more than 200,000 joint states.
    """

    most_nodes = 200_000

    def __init__(self, problem: Problem, actions: ActionSet) -> None:
        for name in ("joint_chance", "possible", "shared_next"):
            if not callable(getattr(problem.dynamics, name, None)):
                raise CapabilityError(
                    f"{name}()", problem.dynamics, ("add it", "use joint_optimum for arms with tables")
                )
        assert problem.start is not None
        if problem.start.ndim != 1:
            raise ModelError("the start is random", "give one state an arm.")
        self.problem, self.actions = problem, actions
        dynamics: Any = problem.dynamics
        self._dynamics = dynamics
        self._following: np.ndarray = dynamics.possible()
        shared = np.zeros(0) if problem.start_shared is None else problem.start_shared
        self._names: dict[bytes, int] = {}
        self.states: list[np.ndarray] = []
        self.shared: list[np.ndarray] = []
        self.first: list[int] = []
        """Round by which each joint state can be reached first."""
        self.nodes: list[_Node] = []
        self._name(problem.start.astype(np.int64), shared, 0)
        place = 0
        while place < len(self.states):
            if self.first[place] < problem.horizon:
                self.nodes.append(self._expand(place))
            place += 1

    def _name(self, state: np.ndarray, shared: np.ndarray, depth: int) -> int:
        key = state.astype(np.int8).tobytes() + np.round(shared, 12).tobytes()
        if key not in self._names:
            if len(self.states) >= self.most_nodes:
                raise CapabilityError(
                    f"an exact table of more than {self.most_nodes} joint states",
                    self.problem,
                    ("use fewer arms or rounds", "ask for a statistical bound"),
                )
            self._names[key] = len(self.states)
            self.states.append(state)
            self.shared.append(shared)
            self.first.append(depth)
        return self._names[key]

    def _expand(self, place: int) -> _Node:
        problem, state, shared = self.problem, self.states[place], self.shared[place]
        given = shared if problem.shared_names else None
        allowed = self.actions.at(0, problem.shared_values(given))
        listed = allowed.enumerate(40 * MOST_ACTIONS)
        if listed is None or not len(listed):
            raise CapabilityError(
                "a list of the allowed actions", allowed, ("use fewer arms", "check that some action is allowed")
            )
        listed = listed.astype(np.int64)
        # Smaller actions first, then by the arms chosen, so that ties fall the same way everywhere.
        order = np.lexsort((*(-listed).T[::-1], listed.sum(axis=1)))
        listed = listed[order]
        acted = self.actions.columns.arm_action(listed)
        reward = np.asarray(problem.expected_reward(state, acted, given)).sum(axis=1)
        chance = self._dynamics.joint_chance(state, acted[:, None], given, self._following[None])
        after = np.asarray(self._dynamics.shared_next(state, acted[:, None], shared, self._following[None]))
        after = np.broadcast_to(after, (*chance.shape, len(shared)))
        reached = chance > 0
        leads = np.zeros(chance.shape, dtype=np.int64)
        flat = after[reached]
        which = np.nonzero(reached)[1]
        depth = self.first[place] + 1
        if (flat == flat[0]).all():
            # One shared state follows whatever is done: one name a joint state.
            names = {k: self._name(self._following[k], flat[0], depth) for k in np.unique(which).tolist()}
            leads[reached] = [names[k] for k in which.tolist()]
        else:
            leads[reached] = [
                self._name(self._following[k], row, depth) for k, row in zip(which.tolist(), flat, strict=True)
            ]
        return _Node(listed, reward, chance, leads)

    def after(self, place: int, uniforms: np.ndarray) -> np.ndarray:
        """Joint state that each of a node's actions leads to by given draws, (A,): rows of :attr:`states`."""
        problem, node = self.problem, self.nodes[place]
        state, shared = self.states[place], self.shared[place]
        acted = self.actions.columns.arm_action(node.actions)
        given = shared if problem.shared_names else None
        moved = self._dynamics.moved(state, acted, given, np.broadcast_to(uniforms, (len(acted), len(uniforms))))
        which = (moved[:, None, :] == self._following[None]).all(axis=2).argmax(axis=1)
        return np.asarray(node.leads[np.arange(len(acted)), which])

    def _back(
        self, choose: Callable[[int, int, np.ndarray], int], ahead: Callable[[int], np.ndarray] | None = None
    ) -> tuple[float, list[np.ndarray]]:
        """Value and choices of a rule that is asked with node, round and the values of all actions under ``ahead``."""
        horizon, discount = self.problem.horizon, self.problem.discount
        value = np.zeros(len(self.states))
        taken: list[np.ndarray] = []
        for period in range(horizon - 1, -1, -1):
            checkpoint()
            before, made = np.zeros(len(self.states)), np.zeros(len(self.nodes), dtype=np.int64)
            base = value if ahead is None else ahead(period + 1)
            for place, node in enumerate(self.nodes):
                if self.first[place] > period:
                    continue
                worth = node.reward + discount * (node.chance * base[node.leads]).sum(axis=1)
                best = choose(place, period, worth)
                made[place] = best
                before[place] = (
                    worth[best]
                    if ahead is None
                    else node.reward[best] + discount * float(node.chance[best] @ value[node.leads[best]])
                )
            value = before
            taken.append(made)
        return float(value[0]), taken[::-1]

    def optimum(self) -> tuple[float, list[np.ndarray]]:
        """The best policy's value and its choices by round, rows of each node's actions."""
        return self._back(lambda place, period, worth: int(np.argmax(np.round(worth, TIE))))

    def none(self) -> tuple[float, list[np.ndarray]]:
        """Acting as little as possible."""
        return self._back(lambda place, period, worth: 0)

    def myopic(self) -> tuple[float, list[np.ndarray]]:
        """The best expected reward of each round."""
        return self._back(lambda place, period, worth: int(np.argmax(np.round(self.nodes[place].reward, TIE))))

    def by_single_gains(self) -> tuple[float, list[np.ndarray]]:
        """The largest sum of what each column alone adds to the round's expected reward."""

        def choose(place: int, period: int, worth: np.ndarray) -> int:
            problem, node = self.problem, self.nodes[place]
            given = self.shared[place] if problem.shared_names else None
            alone = self.actions.columns.arm_action(np.eye(len(self.actions), dtype=np.int64))
            paid = np.asarray(problem.expected_reward(self.states[place], alone, given)).sum(axis=1)
            return int(np.argmax(np.round(node.actions @ (paid - node.reward[0]), TIE)))

        return self._back(choose)

    def of(self, decide: Callable[[np.ndarray, int, np.ndarray | None], np.ndarray]) -> tuple[float, list[np.ndarray]]:
        """Exact value of a policy: state (N,), round and shared state (K,) or None to an allowed action (C,).

        Raises
        ------
        ModelError
            When it takes a forbidden action.
        """

        def choose(place: int, period: int, worth: np.ndarray) -> int:
            given = self.shared[place] if self.problem.shared_names else None
            action = np.asarray(decide(self.states[place], period, given))
            found = np.flatnonzero((self.nodes[place].actions == action).all(axis=1))
            if not len(found):
                raise ModelError(
                    f"forbidden action {action.tolist()} in state {self.states[place].tolist()}", "repair."
                )
            return int(found[0])

        return self._back(choose)

    def value(self, taken: list[np.ndarray]) -> float:
        """Exact value of choices by round."""
        return self._back(lambda place, period, worth: int(taken[period][place]))[0]

    def improved(self, taken: list[np.ndarray]) -> tuple[float, list[np.ndarray]]:
        """One exact step of policy improvement on choices: the best action now, they from the next round on."""
        worth_by_round = self.values(taken)
        return self._back(lambda place, period, worth: int(np.argmax(np.round(worth, TIE))), worth_by_round.__getitem__)

    def values(self, taken: list[np.ndarray]) -> list[np.ndarray]:
        """Value of every node from each round on under choices: T + 1 arrays."""
        values = [np.zeros(len(self.states))]
        for period in range(self.problem.horizon - 1, -1, -1):
            checkpoint()
            here = np.zeros(len(self.states))
            for place, node in enumerate(self.nodes):
                if self.first[place] <= period:
                    row = int(taken[period][place])
                    ahead = float(node.chance[row] @ values[0][node.leads[row]])
                    here[place] = node.reward[row] + self.problem.discount * ahead
            values.insert(0, here)
        return values
