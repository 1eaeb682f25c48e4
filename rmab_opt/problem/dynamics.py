"""How arms move: finite Markov decision processes, vectorised over arms and over parallel episodes.

Array axes have one order everywhere: arm, state, action, next state; transition kernels are stored
as ``P[arm, action, state, next state]`` so that one action's matrix is contiguous.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from rmab_opt.errors import CapabilityError, Findings, ModelError

__all__ = ["PROBABILITY_TOLERANCE", "Dynamics", "Ladder", "Tabular"]

PROBABILITY_TOLERANCE = 1e-8
"""How far the sum of a transition row may be from one: what twelve printed digits lose."""
SHORT_TOLERANCE = 1e-6
"""The same for numbers of 32 bits, as near to one as a table's printed digits must be."""


@runtime_checkable
class Dynamics(Protocol):
    """What a problem asks of its arms. ``...`` is any number of leading axes (parallel episodes)."""

    n_arms: int
    n_states: int
    n_actions: int

    def step(self, state: np.ndarray, action: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Next state and realised reward a arm, both of shape (..., N)."""
        ...

    def expected_reward(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Expected reward of the round a arm, shape (..., N)."""
        ...

    def tabular(self) -> tuple[np.ndarray, np.ndarray]:
        """``P[n, a, s, s']`` of shape (N, A, S, S) and ``r[n, s, a]`` of shape (N, S, A)."""
        ...


class Tabular:
    """Any finite arms, given by their tables.

    Parameters
    ----------
    transition
        P[n, a, s, s'], shape (N, A, S, S); rows sum to one; action 0 is passive.
    reward
        r[n, s, a] of shape (N, S, A), or r[n, s] of shape (N, S), in the problem's reward unit.
    paid_on
        ``"departure"``: paid for the state and action of the round, before the arm moves.
        ``"arrival"``: ``reward`` is r[n, s'] of shape (N, S), paid for the state the arm moves to.
    state_names
        Names of the states, for tables a person reads; numbers by default.

    Raises
    ------
    ModelError
        When shapes disagree, a number is not finite, a probability is negative or a row does not sum
        to one; names arm, action and state.
    """

    def __init__(
        self,
        transition: np.ndarray,
        reward: np.ndarray,
        *,
        paid_on: str = "departure",
        state_names: tuple[str, ...] | None = None,
    ) -> None:
        single = np.asarray(transition).dtype in (np.float32, np.float16)
        transition = np.ascontiguousarray(transition, dtype=np.float64)
        if single and transition.ndim == 4:
            # Rows of short floats sum to one as nearly as they can; beyond that they are refused below.
            total = transition.sum(axis=3, keepdims=True)
            near = np.abs(total - 1.0) <= SHORT_TOLERANCE
            transition = np.where(near, transition / np.where(near, total, 1.0), transition)
        reward = np.asarray(reward, dtype=np.float64)
        if transition.ndim != 4 or transition.shape[2] != transition.shape[3] or transition.shape[1] < 2:
            raise ModelError(
                f"transition has shape {transition.shape}",
                "give P[arm, action, state, next state] of shape (N, A, S, S) with at least two actions.",
            )
        n_arms, n_actions, n_states, _ = transition.shape
        if paid_on not in ("departure", "arrival"):
            raise ModelError(f"paid_on is {paid_on!r}", "use 'departure' or 'arrival'.")
        if paid_on == "arrival" and reward.shape != (n_arms, n_states):
            raise ModelError(
                f"reward paid on arrival has shape {reward.shape}",
                f"give r[arm, arrival state], shape {(n_arms, n_states)}.",
            )
        _check_finite(reward, "reward", ("arm", "state", "action")[: reward.ndim])
        self._arrival = reward if paid_on == "arrival" else None
        if self._arrival is not None:
            reward = np.einsum("nast,nt->nsa", transition, reward)
        elif reward.shape == (n_arms, n_states):
            reward = np.repeat(reward[:, :, None], n_actions, axis=2)
        if reward.shape != (n_arms, n_states, n_actions):
            raise ModelError(
                f"reward has shape {reward.shape}",
                f"give r[arm, state, action], shape {(n_arms, n_states, n_actions)}.",
            )
        _check_rows(transition)
        self.n_arms, self.n_actions, self.n_states = n_arms, n_actions, n_states
        self.transition = transition
        self.reward = np.ascontiguousarray(reward)
        self.state_names = _names(state_names, n_states)
        cumulative = np.cumsum(transition, axis=3)
        # The last entry is set to one so that a draw just below one never runs past the last state.
        cumulative[..., -1] = 1.0
        self._cumulative = cumulative

    def step(self, state: np.ndarray, action: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw the next state of every arm; see :class:`Dynamics`."""
        state, action = np.asarray(state), np.asarray(action)
        arm = np.arange(self.n_arms)
        draw = rng.random(np.broadcast_shapes(state.shape, action.shape))
        following = (draw[..., None] >= self._cumulative[arm, action, state]).sum(axis=-1)
        paid = self.reward[arm, state, action] if self._arrival is None else self._arrival[arm, following]
        return following, paid

    def expected_reward(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """``r[n, s_n, a_n]``, shape (..., N)."""
        return self.reward[np.arange(self.n_arms), state, action]

    def tabular(self) -> tuple[np.ndarray, np.ndarray]:
        """The tables themselves (not copies)."""
        return self.transition, self.reward


class Ladder:
    """Arms that climb and slip one rung at a time and are paid for the rung they arrive at.

    With probability ``up[n, s, a]`` arm n goes to min(s + 1, S - 1), with ``stay[n, s, a]`` it stays,
    otherwise it goes to max(s - 1, 0).

    Parameters
    ----------
    up
        Shape (N, A), or (N, S, A) when it depends on the state.
    reward
        r[n, s'] for arriving in s', shape (N, S).
    stay
        Shape of ``up``; 0 by default.

    Raises
    ------
    ModelError
        When shapes disagree or a probability is outside [0, 1]; names arm, state and action.

    References
    ----------
    Xu, Wilder, Khalil, Tambe (ICLR 2025), base arm of all four settings.
    """

    def __init__(
        self,
        up: np.ndarray,
        reward: np.ndarray,
        stay: np.ndarray | float = 0.0,
        *,
        state_names: tuple[str, ...] | None = None,
    ) -> None:
        up, reward = np.asarray(up, dtype=np.float64), np.asarray(reward, dtype=np.float64)
        if reward.ndim != 2 or reward.shape[1] < 2:
            raise ModelError(f"reward has shape {reward.shape}", "give r[arm, arrival state], at least two states.")
        n_arms, n_states = reward.shape
        if up.ndim == 2:
            up = np.repeat(up[:, None, :], n_states, axis=1)
        if up.ndim != 3 or up.shape[:2] != (n_arms, n_states) or up.shape[2] < 2:
            raise ModelError(
                f"up has shape {up.shape}", f"give shape ({n_arms}, A) or ({n_arms}, {n_states}, A), A >= 2."
            )
        stay = np.asarray(stay, dtype=np.float64)
        if stay.ndim == 2:
            stay = stay[:, None, :]
        stay = np.broadcast_to(stay, up.shape)
        axes = ("arm", "state", "action")
        _check_finite(reward, "reward", axes[:2])
        _check_finite(up, "up", axes)
        _check_finite(stay, "stay", axes)
        for name, array in (("up", up), ("stay", stay), ("up + stay", up + stay)):
            bad = np.argwhere((array < 0) | (array > 1 + PROBABILITY_TOLERANCE))
            if bad.size:
                where = ", ".join(f"{axis} {position}" for axis, position in zip(axes, bad[0], strict=True))
                raise ModelError(f"{name} is {array[tuple(bad[0])]:g} at {where}", "keep probabilities in [0, 1].")
        self.n_arms, self.n_states, self.n_actions = n_arms, n_states, up.shape[2]
        self.up, self.stay, self.reward = np.ascontiguousarray(up), np.array(stay), reward
        self.state_names = _names(state_names, n_states)
        rungs = np.arange(n_states)
        self._above, self._below = np.minimum(rungs + 1, n_states - 1), np.maximum(rungs - 1, 0)
        self._expected = (
            self.up * reward[:, self._above, None]
            + self.stay * reward[:, :, None]
            + (1.0 - self.up - self.stay) * reward[:, self._below, None]
        )

    def step(self, state: np.ndarray, action: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw the next rung of every arm; see :class:`Dynamics`."""
        state, action = np.asarray(state), np.asarray(action)
        arm = np.arange(self.n_arms)
        draw = rng.random(np.broadcast_shapes(state.shape, action.shape))
        up, stay = self.up[arm, state, action], self.stay[arm, state, action]
        following = np.where(draw < up, self._above[state], np.where(draw < up + stay, state, self._below[state]))
        return following, self.reward[arm, following]

    def expected_reward(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Expected reward of arrival, shape (..., N)."""
        return self._expected[np.arange(self.n_arms), state, action]

    def tabular(self) -> tuple[np.ndarray, np.ndarray]:
        """The same arms as tables; the reward is the expectation over arrivals."""
        transition = np.zeros((self.n_arms, self.n_actions, self.n_states, self.n_states))
        down = 1.0 - self.up - self.stay
        for state in range(self.n_states):
            transition[:, :, state, self._above[state]] += self.up[:, state]
            transition[:, :, state, state] += self.stay[:, state]
            transition[:, :, state, self._below[state]] += down[:, state]
        return transition, self._expected


def require_tabular(dynamics: object, purpose: str) -> tuple[np.ndarray, np.ndarray]:
    """Tables of the dynamics, or a CapabilityError that says what needs them."""
    tabular = getattr(dynamics, "tabular", None)
    if tabular is None:
        raise CapabilityError(
            "tabular()",
            dynamics,
            (f"add it for {purpose}", "choose a policy that only simulates, such as 'myopic' or 'random'"),
        )
    return tabular()


def _names(names: tuple[str, ...] | None, n_states: int) -> tuple[str, ...]:
    if names is None:
        return tuple(str(state) for state in range(n_states))
    if len(names) != n_states or len(set(names)) != n_states:
        raise ModelError(f"state_names {names} do not name {n_states} states", f"give {n_states} different names.")
    return tuple(names)


def _check_finite(array: np.ndarray, name: str, axes: tuple[str, ...]) -> None:
    bad = np.argwhere(~np.isfinite(array))
    if bad.size:
        where = ", ".join(f"{axis} {position}" for axis, position in zip(axes, bad[0], strict=True))
        raise ModelError(f"{name} is {array[tuple(bad[0])]} at {where}", "give a finite number.")


def _check_rows(transition: np.ndarray) -> None:
    findings = Findings("transition")
    _check_finite(transition, "transition", ("arm", "action", "state", "next state"))
    for arm, action, state, following in np.argwhere(transition < -PROBABILITY_TOLERANCE)[:20]:
        findings.add(
            f" arm {arm}, action {action}, state {state}",
            f"probability of next state {following} is {transition[arm, action, state, following]:g}",
            "keep probabilities in [0, 1]",
        )
    total = transition.sum(axis=3)
    for arm, action, state in np.argwhere(np.abs(total - 1.0) > PROBABILITY_TOLERANCE)[:20]:
        findings.add(
            f" arm {arm}, action {action}, state {state}",
            f"probabilities sum to {total[arm, action, state]:.9g}",
            "make the row sum to one",
        )
    findings.raise_if_any(5)
