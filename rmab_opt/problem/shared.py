"""A state that all arms share, beside their own: a season's stock, a worker's fatigue, an infection's pressure.

It is one float64 array with a name an entry. Dynamics have it when they say ``shared_names``; a dynamics without them
is asked exactly as before.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

__all__ = ["SHARED_PREFIX", "SharedDynamics", "draw_next"]

SHARED_PREFIX = "shared:"
"""What a row of a state file begins its id with when it is about a shared value: ``shared:stock,12``."""


class SharedDynamics(Protocol):
    """What a problem asks of arms that share a state. ``...`` is any number of leading axes, as in :class:`Dynamics`.

    There is no ``tabular()``: tables of single arms cannot say what the shared state does. Tables at a frozen shared
    state may be offered under a name that says so.
    """

    n_arms: int
    n_states: int
    n_actions: int
    shared_names: tuple[str, ...]
    """Name of each entry of the shared state."""
    shared_start: np.ndarray
    """Its first value, (K,)."""

    def p_next(self, state: np.ndarray, action: np.ndarray, shared: np.ndarray) -> np.ndarray:
        """Probability of each next state of each arm, given everybody's state and action, (..., N, S)."""
        ...

    def expected_reward(self, state: np.ndarray, action: np.ndarray, shared: np.ndarray) -> np.ndarray:
        """Expected reward of the round a arm, (..., N)."""
        ...

    def step_shared(
        self, state: np.ndarray, action: np.ndarray, shared: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Next states (..., N), realised reward a arm (..., N), next shared state (..., K)."""
        ...


def draw_next(chances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One next state an arm from ``p_next``'s (..., N, S), by one uniform an arm whatever the chances are."""
    cumulative = np.cumsum(chances, axis=-1)
    # A draw just below one never runs past the last state.
    cumulative[..., -1] = 1.0
    drawn = rng.random(chances.shape[:-1])
    return np.asarray((drawn[..., None] >= cumulative).sum(axis=-1), dtype=np.int64)
