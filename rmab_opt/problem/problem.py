"""A planning problem: who the arms are, how they move, for how long, and where they start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmab_opt.errors import Findings, ModelError
from rmab_opt.problem.arms import Arms
from rmab_opt.problem.dynamics import PROBABILITY_TOLERANCE, Dynamics
from rmab_opt.problem.table import Table, nearest

__all__ = ["Problem"]


@dataclass(frozen=True)
class Problem:
    """Arms with dynamics over a horizon.

    Parameters
    ----------
    arms
        The cohort; ``len(arms) == dynamics.n_arms``.
    dynamics
        How the arms move.
    horizon
        Rounds in an episode, at least 1.
    discount
        Per round, in (0, 1]; 1 reports plain totals over the horizon.
    start
        First state of every arm, int array (N,); or the probability of each state, shape (N, S).

    Raises
    ------
    ModelError
        When sizes disagree, or horizon, discount or start are out of range; names the field.
    """

    arms: Arms
    dynamics: Dynamics
    horizon: int = 20
    discount: float = 1.0
    start: np.ndarray | None = None

    def __post_init__(self) -> None:
        n_arms, n_states = self.dynamics.n_arms, self.dynamics.n_states
        if len(self.arms) != n_arms:
            raise ModelError(f"{len(self.arms)} arms but dynamics of {n_arms}", "give one row of dynamics an arm.")
        if not isinstance(self.horizon, int | np.integer) or self.horizon < 1:
            raise ModelError(f"horizon is {self.horizon!r}", "give a whole number of rounds, at least 1.")
        if not 0.0 < self.discount <= 1.0:
            raise ModelError(f"discount is {self.discount!r}", "give a number above 0 and at most 1.")
        start = np.zeros(n_arms, dtype=np.int64) if self.start is None else np.asarray(self.start)
        if start.ndim == 1:
            start = self.check_state(start, "start")
        elif start.shape == (n_arms, n_states):
            bad = np.flatnonzero(
                (np.abs(start.sum(axis=1) - 1.0) > PROBABILITY_TOLERANCE)
                | (start < 0).any(axis=1)
                | ~np.isfinite(start).all(axis=1)
            )
            if bad.size:
                raise ModelError(
                    f"start: probabilities of arm {self.arms.ids[bad[0]]!r} are {start[bad[0]].tolist()}",
                    "give non-negative numbers that sum to one.",
                )
        else:
            raise ModelError(
                f"start has shape {start.shape}", f"give ({n_arms},) states or ({n_arms}, {n_states}) probabilities."
            )
        object.__setattr__(self, "start", start)

    @property
    def n_arms(self) -> int:
        """Number of arms N."""
        return self.dynamics.n_arms

    @property
    def start_distribution(self) -> np.ndarray:
        """Probability of each first state, shape (N, S)."""
        assert self.start is not None
        if self.start.ndim == 2:
            return self.start
        return np.eye(self.dynamics.n_states)[self.start]

    def sample_start(self, rng: np.random.Generator, size: int | None = None) -> np.ndarray:
        """First states, shape (N,) or (size, N)."""
        assert self.start is not None
        shape = (self.n_arms,) if size is None else (size, self.n_arms)
        if self.start.ndim == 1:
            return np.broadcast_to(self.start, shape).copy()
        cumulative = np.cumsum(self.start, axis=1)
        cumulative[:, -1] = 1.0
        return (rng.random(shape)[..., None] >= cumulative).sum(axis=-1)

    def check_state(self, state: np.ndarray, name: str = "state") -> np.ndarray:
        """The state as int64 of shape (N,), or a ModelError that names the arm and the value."""
        state = np.asarray(state)
        if state.shape != (self.dynamics.n_arms,):
            raise ModelError(
                f"{name} has shape {state.shape}", f"give one state an arm, shape ({self.dynamics.n_arms},)."
            )
        if not np.issubdtype(state.dtype, np.number) or np.issubdtype(state.dtype, np.complexfloating):
            raise ModelError(f"{name} holds {state.dtype} values", "give whole numbers from 0.")
        bad = np.flatnonzero(~((state >= 0) & (state < self.dynamics.n_states) & (state == np.floor(state))))
        if bad.size:
            raise ModelError(
                f"{name}: arm {self.arms.ids[bad[0]]!r} is in state {state[bad[0]]}",
                f"give a whole number from 0 to {self.dynamics.n_states - 1}.",
            )
        return state.astype(np.int64)

    def read_state(
        self, source: str | Path | Table, id_column: str = "id", state_column: str = "state", *, others: str = "refuse"
    ) -> np.ndarray:
        """Read one state an arm from a table with columns ``id`` and ``state`` (a number or a state's name).

        ``others`` says what to do with ids that are not in the cohort: ``refuse`` or ``ignore``.

        Returns
        -------
        numpy.ndarray
            int64, shape (N,), in the order of the arms.

        Raises
        ------
        ModelError
            Listing every row with an unknown, doubled or missing id or an unknown state, by row number.
        """
        table = source if isinstance(source, Table) else Table.from_csv(source)
        names = list(getattr(self.dynamics, "state_names", [str(s) for s in range(self.dynamics.n_states)]))
        known = {str(number): number for number in range(self.dynamics.n_states)}
        known.update({name: number for number, name in enumerate(names)})
        findings = Findings(table.source)
        state = np.full(self.n_arms, -1, dtype=np.int64)
        for row, (name, cell) in enumerate(zip(table.text(id_column), table.text(state_column), strict=True)):
            place = table.place(row)
            if not name:
                findings.add(place, f"{id_column} is missing", "name the arm")
            elif name not in self.arms:
                if others == "ignore":
                    continue
                findings.add(place, f"no arm {name!r} in the cohort", nearest(name, self.arms.ids))
            elif state[self.arms.index(name)] >= 0:
                findings.add(place, f"arm {name!r} stands twice", "keep one row an arm")
            elif cell not in known:
                findings.add(place, f"{state_column} of arm {name!r} is {cell!r}", f"use one of {', '.join(names)}")
                state[self.arms.index(name)] = 0
            else:
                state[self.arms.index(name)] = known[cell]
        missing = np.flatnonzero(state < 0)
        if missing.size:
            listed = ", ".join(self.arms.ids[arm] for arm in missing[:5]) + (", ..." if missing.size > 5 else "")
            findings.add("", f"no state for {missing.size} of {self.n_arms} arms ({listed})", "give every arm a row")
        findings.raise_if_any()
        return state
