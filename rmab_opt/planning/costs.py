"""What actions take of each resource in one round: rows times arm-actions, kept sparse, as an arm is in few rows."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy import sparse

from rmab_opt.errors import ModelError

__all__ = ["Costs"]

TOGETHER, TABLES, DAMPED = 8, 4, 0.1
"""Rows up to which Newton's steps know what they do to one another, such sets of rows that are kept, and by what share
of its own use a row's step is shorter: rows that hardly differ would exchange their prices for ever otherwise."""


class Costs:
    """K rows over arms, states and actions, of which most entries are zero.

    An axis of length 1 says that all arms (or all states) take the same. Rows, cells and entries are all that is ever
    held: with a row a village no table of rows times arms is made.

    Parameters
    ----------
    matrix
        Shape (K, cells), the cells of (N or 1, S or 1, A) in that order.
    shape
        (K, N or 1, S or 1, A).
    """

    def __init__(self, matrix: sparse.csr_array, shape: tuple[int, int, int, int]) -> None:
        self.matrix = sparse.csr_array(matrix)
        self.matrix.sum_duplicates()
        self.matrix.eliminate_zeros()
        self.shape = shape
        self._tables: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    @classmethod
    def of(cls, given: np.ndarray | Costs) -> Costs:
        """A table (K, N or 1, S or 1, A) as it stands; costs are what they are.

        Raises
        ------
        ModelError
            When the table has not four axes.
        """
        if isinstance(given, Costs):
            return given
        table = np.asarray(given, dtype=np.float64)
        if table.ndim != 4:
            raise ModelError(f"costs have shape {table.shape}", "give (K, N or 1, S or 1, A).")
        k, n, s, a = table.shape
        return cls(sparse.csr_array(table.reshape(k, n * s * a)), (k, n, s, a))

    @classmethod
    def of_columns(
        cls, rows: sparse.csr_array, arm: np.ndarray, action: np.ndarray, n_arms: int, n_actions: int
    ) -> Costs:
        """Rows over columns (K, C), each of which gives its arm an action; one for all arms where they take alike."""
        entries = sparse.coo_array(rows)
        place = arm[entries.col].astype(np.int64) * n_actions + action[entries.col]
        cells = (rows.shape[0], n_arms * n_actions)
        made = cls(
            sparse.csr_array((entries.data, (entries.row, place)), shape=cells), (rows.shape[0], n_arms, 1, n_actions)
        )
        return made.once() if made.alike else made

    @property
    def n_rows(self) -> int:
        """Number of rows K."""
        return self.shape[0]

    @property
    def cells(self) -> int:
        """Entries that an arm has, state by state and action by action."""
        return self.shape[2] * self.shape[3]

    @property
    def by_arm(self) -> bool:
        """Whether arms may differ in what they take."""
        return self.shape[1] > 1

    @property
    def by_state(self) -> bool:
        """Whether it may depend on the state."""
        return self.shape[2] > 1

    @property
    def finite(self) -> bool:
        """Whether every entry is a number."""
        return bool(np.isfinite(self.matrix.data).all())

    @cached_property
    def arms(self) -> sparse.csr_array:
        """What stands in each arm's rows, (N or 1, K * cells): equal for arms that take alike."""
        entries = sparse.coo_array(self.matrix)
        arm, cell = np.divmod(entries.col.astype(np.int64), self.cells)
        made = sparse.csr_array(
            (entries.data, (arm, entries.row.astype(np.int64) * self.cells + cell)),
            shape=(self.shape[1], self.n_rows * self.cells),
        )
        made.sort_indices()
        return made

    @property
    def alike(self) -> bool:
        """Whether all arms take the same."""
        own = self.arms
        many = np.diff(own.indptr)
        if (many != many[0]).any():
            return False
        indices, data = own.indices.reshape(len(many), -1), own.data.reshape(len(many), -1)
        return bool((indices == indices[:1]).all() and (data == data[:1]).all())

    def once(self) -> Costs:
        """Those of the first arm, for all."""
        return Costs(self.matrix[:, : self.cells], (self.n_rows, 1, *self.shape[2:]))

    def of_arms(self, arms: np.ndarray | slice) -> Costs:
        """Those of some of the arms."""
        if not self.by_arm:
            return self
        if isinstance(arms, slice):
            part = self._by_cell[_cells(arms, self.shape[1], self.cells)]
            n_arms = part.shape[0] // self.cells
        else:
            n_arms = len(arms)
            part = self._by_cell[(arms[:, None] * self.cells + np.arange(self.cells)).ravel()]
        return Costs(sparse.csr_array(part.T), (self.n_rows, n_arms, *self.shape[2:]))

    def for_arms(self, n_arms: int) -> sparse.csr_array:
        """The rows over the cells of every arm, (K, N * cells), written out where all take the same."""
        if self.by_arm or n_arms == 1:
            return self.matrix
        return sparse.csr_array(sparse.kron(np.ones((1, n_arms)), self.matrix))

    @cached_property
    def _by_cell(self) -> sparse.csr_array:
        return sparse.csr_array(self.matrix.T)

    def paid(self, price: np.ndarray, arms: slice | None = None) -> np.ndarray:
        """What each action costs at prices (K,) or (T, K): (N or 1, S or 1, A), or (T, ...).

        Parameters
        ----------
        arms
            Of these only.
        """
        cells = self._by_cell
        if arms is not None and self.by_arm:
            cells = cells[_cells(arms, self.shape[1], self.cells)]
        found = np.asarray((cells @ price.T).T)
        return found.reshape(*price.shape[:-1], -1, *self.shape[2:])

    def use(self, acted: np.ndarray, arms: slice | None = None) -> np.ndarray:
        """What expected actions (..., N, S, A) take of each row, (..., K).

        Where costs do not depend on states, their axis may be summed up already: (..., N, 1, A).

        Parameters
        ----------
        arms
            Whose actions they are; all by default.
        """
        if not self.by_state and acted.shape[-2] > 1:
            acted = acted.sum(axis=-2, keepdims=True)
        if not self.by_arm:
            acted = acted.sum(axis=-3, keepdims=True)
        flat = acted.reshape(*acted.shape[:-3], -1)
        if arms is None or not self.by_arm:
            return np.asarray((self.matrix @ flat.T).T)
        return np.asarray((self._by_cell[_cells(arms, self.shape[1], self.cells)].T @ flat.T).T)

    @cached_property
    def _row(self) -> np.ndarray:
        return np.repeat(np.arange(self.n_rows), np.diff(self.matrix.indptr))

    def newton(self, active: np.ndarray, over: np.ndarray, varied: np.ndarray, furthest: np.ndarray) -> np.ndarray:
        """By how much prices of rows are to be raised so that rows are not used too much, nor too little, (K,).

        Few rows together; of many each alone, less the more of them an arm is in.

        Parameters
        ----------
        active
            Rows that count, bool (K,).
        over
            Use less limit, (K,).
        varied
            By how much an action's chance falls when it costs a unit more, (N, 1, A).
        furthest
            Of one step, (K,).
        """
        at, step = np.flatnonzero(active), np.zeros(self.n_rows)
        if at.size > TOGETHER:
            # What all of these rows do to an arm together: steps of each alone never overshoot then.
            steep = self.sizes.use(self.sizes.paid(active.astype(np.float64)) * varied)
            step[at] = np.divide(over[at], steep[at], out=np.sign(over[at]) * furthest[at], where=steep[at] > 0)
            return np.clip(step, -furthest, furthest)
        if not at.size:
            return step
        table, cells = self._together(at.tobytes())
        if not self.by_arm:
            varied = varied.sum(axis=0, keepdims=True)
        steep = (table * varied.reshape(-1)[cells]) @ table.T
        own = np.diag(steep).copy()
        steep[np.diag_indices_from(steep)] = own * (1.0 + DAMPED) + (own <= 0)
        step[at] = np.where(own > 0, np.linalg.solve(steep, over[at]), np.sign(over[at]) * furthest[at])
        return step * min(1.0, float((furthest[at] / np.maximum(np.abs(step[at]), 1e-300)).min()))

    def _together(self, key: bytes) -> tuple[np.ndarray, np.ndarray]:
        """A few rows over the cells that any of them has, and these cells; the last few asked for are kept."""
        if key not in self._tables:
            if len(self._tables) >= TABLES:
                del self._tables[next(iter(self._tables))]
            rows = sparse.csr_array(self.matrix[np.frombuffer(key, dtype=np.int64)])
            cells = np.unique(rows.indices)
            self._tables[key] = sparse.csc_array(rows)[:, cells].toarray(), cells
        return self._tables[key]

    @cached_property
    def sizes(self) -> Costs:
        """The same without signs."""
        return self if not self.gives.any() else Costs(abs(self.matrix), self.shape)

    @cached_property
    def smallest(self) -> np.ndarray:
        """Least size of an entry of each row, (K,); 1 where a row has none."""
        found = np.full(self.n_rows, np.inf)
        np.minimum.at(found, self._row, np.abs(self.matrix.data))
        return np.where(np.isfinite(found), found, 1.0)

    @cached_property
    def largest(self) -> np.ndarray:
        """Largest size of an entry of each row, (K,)."""
        found = np.zeros(self.n_rows)
        np.maximum.at(found, self._row, np.abs(self.matrix.data))
        return found

    @cached_property
    def gives(self) -> np.ndarray:
        """Whether some action gives to the row in place of taking from it, bool (K,)."""
        found = np.zeros(self.n_rows, dtype=bool)
        found[self._row[self.matrix.data < 0]] = True
        return found

    @property
    def passive_free(self) -> bool:
        """Whether resting takes and gives nothing."""
        return not (self.matrix.indices % self.shape[3] == 0).any()

    def dense(self) -> np.ndarray:
        """The whole table (K, N or 1, S or 1, A), for few rows or arms."""
        return np.asarray(self.matrix.toarray()).reshape(self.shape)

    def beside(self, other: Costs) -> Costs:
        """Both sets of rows, one below the other."""
        n_arms, n_states = max(self.shape[1], other.shape[1]), max(self.shape[2], other.shape[2])
        parts = [each.over(n_arms, n_states) for each in (self, other)]
        shape = (self.n_rows + other.n_rows, n_arms, n_states, self.shape[3])
        return Costs(sparse.csr_array(sparse.vstack(parts)), shape)

    def over(self, n_arms: int, n_states: int) -> sparse.csr_array:
        """The rows over the cells of (n_arms, n_states, A), written out where arms or states take the same."""
        if self.by_state or n_states == 1:
            return self.for_arms(n_arms)
        own = sparse.coo_array(self.matrix)
        arm, action = np.divmod(own.col.astype(np.int64), self.shape[3])
        place = (arm[:, None] * n_states + np.arange(n_states)) * self.shape[3] + action[:, None]
        entries = (np.repeat(own.data, n_states), (np.repeat(own.row, n_states), place.ravel()))
        shape = (self.n_rows, self.shape[1], n_states, self.shape[3])
        cells = (self.n_rows, shape[1] * n_states * shape[3])
        return Costs(sparse.csr_array(entries, shape=cells), shape).for_arms(n_arms)


def _cells(arms: slice, n_arms: int, each: int) -> slice:
    """Cells of a run of arms, of ``each`` an arm."""
    begin, end, _ = arms.indices(n_arms)
    return slice(begin * each, end * each)
