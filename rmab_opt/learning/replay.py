"""Past transitions in ring arrays, with the best next action as last solved for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Batch", "Replay"]


@dataclass(frozen=True)
class Batch:
    """B transitions of K next states: states (B, N), periods (B,), actions (B, C), rewards a arm (B, N), next states
    (B, K, N), next actions (B, K, C), weights of the next states (B, K), ends (B,), shared states (B, k) and the next
    ones (B, K, k), of width 0 where the arms share none."""

    rows: np.ndarray
    state: np.ndarray
    period: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_state: np.ndarray
    next_action: np.ndarray
    weight: np.ndarray
    ended: np.ndarray
    shared: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    next_shared: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0)))


class Replay:
    """A ring of ``capacity`` transitions; the oldest are overwritten.

    ``next_action`` is the argmax at each of the ``n_next`` next states when it was last solved for: Bellman targets
    re-value it with the current networks, and training refreshes a few of them each step instead of solving a program
    for every target.
    """

    def __init__(self, capacity: int, n_arms: int, n_columns: int, n_next: int = 1, n_shared: int = 0) -> None:
        self.capacity = capacity
        self.arrays: dict[str, np.ndarray] = {
            "state": np.zeros((capacity, n_arms), dtype=np.int16),
            "period": np.zeros(capacity, dtype=np.int32),
            "action": np.zeros((capacity, n_columns), dtype=np.int8),
            "reward": np.zeros((capacity, n_arms), dtype=np.float32),
            "next_state": np.zeros((capacity, n_next, n_arms), dtype=np.int16),
            "next_action": np.zeros((capacity, n_next, n_columns), dtype=np.int8),
            "weight": np.zeros((capacity, n_next), dtype=np.float32),
            "ended": np.zeros(capacity, dtype=np.uint8),
            "shared": np.zeros((capacity, n_shared)),
            "next_shared": np.zeros((capacity, n_next, n_shared)),
        }
        self.added = 0

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, **values: np.ndarray | float | int | bool) -> None:
        """Store one transition."""
        row = self.added % self.capacity
        for name, value in values.items():
            self.arrays[name][row] = value
        self.added += 1

    def sample(self, rng: np.random.Generator, size: int) -> Batch:
        """Uniform draws with replacement."""
        rows = rng.integers(len(self), size=size)
        return Batch(rows=rows, **{name: array[rows] for name, array in self.arrays.items()})

    def refresh(self, row: int, k: int, next_action: np.ndarray) -> None:
        """Replace the remembered argmax at one next state of one transition."""
        self.arrays["next_action"][row, k] = next_action

    def save(self) -> dict[str, np.ndarray]:
        """Arrays of the filled part, for a checkpoint."""
        return {name: array[: len(self)].copy() for name, array in self.arrays.items()}

    def load(self, arrays: dict[str, np.ndarray], added: int) -> None:
        """Restore what :meth:`save` gave."""
        for name, array in arrays.items():
            self.arrays[name][: len(array)] = array
        self.added = added
