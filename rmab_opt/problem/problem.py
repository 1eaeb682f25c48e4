"""A planning problem: who the arms are, how they move, for how long, and where they start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmab_opt.errors import CapabilityError, Findings, ModelError
from rmab_opt.overdue import checkpoint
from rmab_opt.problem.arms import Arms
from rmab_opt.problem.dynamics import PROBABILITY_TOLERANCE, Dynamics
from rmab_opt.problem.shared import SHARED_PREFIX
from rmab_opt.problem.table import Table, TableLike, nearest

__all__ = ["Problem"]


MOST_ROUNDS = 1_000_000
"""Rounds above which a horizon is a slip of the pen: no plan over so many fits a machine."""


SIMULATED = 16
"""Steps whose mean stands for an expected reward that a simulator does not say."""


@dataclass(frozen=True)
class Problem:
    """Arms with dynamics over a horizon.

    Parameters
    ----------
    arms
        The cohort; ``len(arms) == dynamics.n_arms``.
    dynamics
        How the arms move; with a shared state as :class:`SharedDynamics` says.
    horizon
        Rounds in an episode, at least 1.
    discount
        Per round, in (0, 1]; 1 reports plain totals over the horizon.
    start
        First state of every arm, int array (N,); or the probability of each state, shape (N, S).
    start_shared
        First shared state, (K,), where the dynamics have one; theirs by default.

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
    start_shared: np.ndarray | None = None

    def __post_init__(self) -> None:
        n_arms, n_states = self.dynamics.n_arms, self.dynamics.n_states
        if len(self.arms) != n_arms:
            raise ModelError(f"{len(self.arms)} arms but dynamics of {n_arms}", "give one row of dynamics an arm.")
        if not isinstance(self.horizon, int | np.integer) or not 1 <= self.horizon <= MOST_ROUNDS:
            raise ModelError(
                f"horizon is {self.horizon!r}", f"give a whole number of rounds, at least 1 and at most {MOST_ROUNDS}."
            )
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
        self._check_dynamics()
        given = getattr(self.dynamics, "shared_start", None) if self.start_shared is None else self.start_shared
        object.__setattr__(self, "start_shared", self.check_shared(given, "start_shared"))

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

    def _check_dynamics(self) -> None:
        """Refuse dynamics that say only half of a shared state, or tables that leave it out."""
        names = self.shared_names
        if not names:
            return
        if not callable(getattr(self.dynamics, "step_shared", None)):
            raise CapabilityError(
                "step_shared()",
                self.dynamics,
                (f"add it, the shared state {', '.join(names)} needs it", "leave out shared_names"),
            )
        if getattr(self.dynamics, "tabular", None) is not None:
            raise ModelError(
                f"{type(self.dynamics).__name__} has the shared state {', '.join(names)} and offers tabular()",
                "call it frozen_tabular(): tables of single arms leave the shared state out.",
            )
        if len(set(names)) < len(names) or not all(isinstance(name, str) and name for name in names):
            raise ModelError(f"shared_names are {names}", "give every shared value its own name.")

    @property
    def shared_names(self) -> tuple[str, ...]:
        """Names of the shared state's entries; empty where the arms share none."""
        return tuple(getattr(self.dynamics, "shared_names", ()))

    def check_shared(self, shared: np.ndarray | None, name: str = "shared") -> np.ndarray | None:
        """The shared state as float64 of shape (K,), None where there is none; ModelError with name and value."""
        names = self.shared_names
        if not names:
            if shared is not None and np.size(shared):
                raise ModelError(f"{name} is {shared}, these arms share no state", "leave it out.")
            return None
        if shared is None:
            raise ModelError(f"{name} is missing", f"give one number for each of {', '.join(names)}.")
        try:
            values = np.array(shared, dtype=np.float64)
        except (TypeError, ValueError):
            raise ModelError(f"{name} is {shared!r}", "give numbers.") from None
        if values.shape != (len(names),):
            raise ModelError(f"{name} has shape {values.shape}", f"give one number for each of {', '.join(names)}.")
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise ModelError(f"{name}: {names[bad[0]]} is {values[bad[0]]}", "give a finite number.")
        return values

    def shared_values(self, shared: np.ndarray | None) -> dict[str, float]:
        """The shared state by name, as rows that depend on it and files take it; empty where there is none."""
        if shared is None:
            return {}
        return {name: float(value) for name, value in zip(self.shared_names, shared, strict=True)}

    def shared_array(self, values: Mapping[str, float], name: str = "shared") -> np.ndarray | None:
        """The shared state (K,) from its values by name; ModelError when one is missing or unknown."""
        names = self.shared_names
        for found in values:
            if found not in names:
                raise ModelError(f"{name} names {found!r}", nearest(found, names) if names else "leave it out.")
        missing = [wanted for wanted in names if wanted not in values]
        if missing:
            raise ModelError(f"{name} lacks {missing[0]!r}", f"give one number for each of {', '.join(names)}.")
        return self.check_shared(np.array([values[wanted] for wanted in names]) if names else None, name)

    @property
    def says_expected(self) -> bool:
        """Whether the dynamics say ``expected_reward``; a simulator may have ``step`` alone."""
        return callable(getattr(self.dynamics, "expected_reward", None))

    def expected_reward(self, state: np.ndarray, action: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """Expected reward of the round a arm, (..., N), at a shared state (..., K) where there is one.

        Of a simulator that does not say it, the mean of a few steps by draws that are always the same.
        """
        dynamics: Any = self.dynamics
        if not self.says_expected:
            shape = (SIMULATED, *np.broadcast_shapes(np.shape(state), np.shape(action)))
            beside = None if shared is None else np.broadcast_to(shared, (*shape[:-1], np.shape(shared)[-1]))
            drawn = self.step(
                np.broadcast_to(state, shape), np.broadcast_to(action, shape), beside, np.random.default_rng(0)
            )
            return np.asarray(drawn[1], dtype=np.float64).mean(axis=0)
        if not self.shared_names:
            return np.asarray(dynamics.expected_reward(state, action))
        return np.asarray(dynamics.expected_reward(state, action, self._given(shared)))

    def step(
        self, state: np.ndarray, action: np.ndarray, shared: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Next states (..., N), realised reward a arm (..., N), next shared state (..., K) or None."""
        checkpoint()
        dynamics: Any = self.dynamics
        if not self.shared_names:
            return (*dynamics.step(state, action, rng), None)
        moved, paid, after = dynamics.step_shared(state, action, self._given(shared), rng)
        return moved, paid, np.asarray(after, dtype=np.float64)

    def _given(self, shared: np.ndarray | None) -> np.ndarray:
        if shared is None:
            raise ModelError(
                f"the shared state {', '.join(self.shared_names)} is not given", "pass `shared` along with the state."
            )
        return np.asarray(shared, dtype=np.float64)

    @property
    def state_names(self) -> list[str]:
        """Names of the states; their numbers where they have none."""
        return list(getattr(self.dynamics, "state_names", map(str, range(self.dynamics.n_states))))

    @property
    def states_by_name(self) -> dict[str, int]:
        """Number of a state by what a table may call it: its name, or its number where no name is a number."""
        known = {name: number for number, name in enumerate(self.state_names)}
        if not any(name.strip().isdecimal() for name in known):
            known |= {str(number): number for number in range(self.dynamics.n_states)}
        return known

    def split_shared(
        self, table: Table, id_column: str = "id", state_column: str = "state"
    ) -> tuple[Table, dict[str, float]]:
        """The rows about arms, and the shared values by name from the rows ``shared:NAME``.

        Raises
        ------
        ModelError
            When a shared value is missing, unknown, no finite number or stands twice; names the rows.
        """
        names = self.shared_names
        if not names:
            return table, {}
        findings, values, others = Findings(table.source), dict[str, float](), []
        for row, (name, cell) in enumerate(zip(table.text(id_column), table.text(state_column), strict=True)):
            if not name.startswith(SHARED_PREFIX):
                others.append(row)
                continue
            bare, place = name.removeprefix(SHARED_PREFIX), table.place(row)
            if bare not in names:
                findings.add(place, f"no shared value {bare!r}", nearest(bare, names))
            elif bare in values:
                findings.add(place, f"{name!r} stands twice", "keep one row")
            else:
                try:
                    values[bare] = float(cell)
                except ValueError:
                    values[bare] = np.nan
                if not np.isfinite(values[bare]):
                    findings.add(place, f"{name} is {cell!r}", "give a finite number")
        for name in names:
            if name not in values:
                findings.add("", f"no row {SHARED_PREFIX}{name}", "give the shared value a row")
        findings.raise_if_any()
        return table.take(others), values

    def read_shared(
        self, source: TableLike, *, id_column: str = "id", state_column: str = "state"
    ) -> np.ndarray | None:
        """The shared state (K,) from a state file's rows ``shared:NAME``; None where the arms share none.

        Errors as in :meth:`split_shared`.
        """
        table = Table.read(source, needed=(id_column, state_column)).without_totals(id_column)
        return self.shared_array(self.split_shared(table, id_column, state_column)[1])

    def read_start(self, source: TableLike, *, others: str = "refuse") -> np.ndarray:
        """First states (N,) as :meth:`read_state` reads them, or the chance of each, (N, S).

        A table with a column for every state holds chances: members whose state is not known have a belief.
        """
        table = Table.read(source, needed=("id",))
        names = list(getattr(self.dynamics, "state_names", ()))
        if not names or not all(name in table for name in names) or "state" in table:
            return self.read_state(table, others=others)
        chance, seen = np.zeros((self.n_arms, len(names))), np.zeros(self.n_arms, dtype=bool)
        cells = np.stack([table.numbers(name, minimum=0, maximum=1) for name in names], axis=1)
        findings = Findings(table.source)
        for row, name in enumerate(table.text("id")):
            if name not in self.arms:
                if others != "ignore":
                    findings.add(table.place(row), f"no arm {name!r} in the cohort", nearest(name, self.arms.ids))
                continue
            arm = self.arms.index(name)
            if seen[arm]:
                findings.add(table.place(row), f"arm {name!r} stands twice", "keep one row an arm")
            if abs(cells[row].sum() - 1.0) > 1e-6:
                findings.add(table.place(row), f"chances of {name!r} sum to {cells[row].sum():.9g}", "make it one")
            chance[arm], seen[arm] = cells[row] / max(float(cells[row].sum()), 1e-300), True
        if not seen.all():
            name = self.arms.ids[int(np.flatnonzero(~seen)[0])]
            findings.add("", f"no chances for {name!r}", "give every arm a row")
        findings.raise_if_any()
        if ((chance == 0) | (chance == 1)).all():
            return np.asarray(chance.argmax(axis=1), dtype=np.int64)
        return chance

    def read_state(
        self, source: TableLike, id_column: str = "id", state_column: str = "state", *, others: str = "refuse"
    ) -> np.ndarray:
        """Read one state an arm from a table with columns ``id`` and ``state`` (a number or a state's name).

        Rows ``shared:NAME`` are about the shared state; :meth:`read_shared` reads them.

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
        table = Table.read(source, needed=(id_column, state_column)).without_totals(id_column)
        table, _ = self.split_shared(table, id_column, state_column)
        known, names = self.states_by_name, self.state_names
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
