"""Arms by themselves: what each earns and uses when rewards have weights and resources have prices.

Arms lie along the last axis of every array, so that one round of all arms is a handful of vector operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from rmab_opt.planning.coupling import merge_identical
from rmab_opt.settings.equity.cohort import Cohort
from rmab_opt.settings.equity.resources import Resources

__all__ = ["Arms", "Plans"]

FEWEST_CELLS = 40
"""Cells below which those of several types are divided."""

CACHE_NUMBERS = 1 << 18
"""Numbers in the tables of one chunk of arms."""


@dataclass(frozen=True, eq=False)
class Plans:
    """Best plans of all arms under weights and prices, added up over the arms of a cell.

    Parameters
    ----------
    total
        Sum of the arms' values.
    values
        Reward of each cell, discounted, (Q,).
    use
        What each pair of resource and cell uses a round, (P, T); see :attr:`Arms.pair_row`.
    acted
        Arms of each cell acted on, (T, Q).
    paid
        Reward of each type, discounted, (M,).
    first
        Probability of each action in the first round in every state, float32 (A, S, M).
    actions
        Probability of each action, float32 (T, A, M), where they were asked for.
    """

    total: float
    values: np.ndarray
    use: np.ndarray
    acted: np.ndarray
    paid: np.ndarray
    first: np.ndarray
    actions: np.ndarray | None = None


class Arms:
    """Arms of a cohort as M types, those of a cell side by side.

    Parameters
    ----------
    cohort
        Tables, first states, rounds.
    cell
        Cell of every arm, (N,): arms with the same groups. Few cells of many types are divided further, as plans of
        small cells mix better; :attr:`of_cell` says which cell each then comes from.
    resources
        What couples them; arms that differ in a cost are types of their own.
    apart
        Whether every arm is a type, as rows yet unknown may tell arms apart.
    """

    def __init__(self, cohort: Cohort, cell: np.ndarray, resources: Resources, *, apart: bool = False) -> None:
        n_arms, n_actions, n_states, _ = cohort.transition.shape
        if apart:
            kinds, start, member = np.arange(n_arms), cohort.start, np.arange(n_arms)
        else:
            marks = np.broadcast_to(cell.astype(float)[:, None, None], (n_arms, n_states, n_actions))
            own = np.broadcast_to(resources.signature(n_arms, n_states, n_actions), marks.shape)
            merged = merge_identical(cohort.transition, cohort.reward, np.stack([own, marks]), cohort.start)
            kinds, start, member = merged.representative, merged.start, merged.member
        order = np.argsort(cell[kinds], kind="stable")
        kinds, start = kinds[order], start[order]
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        self.member = place[member]
        """Type of every arm, (N,)."""
        self.kinds = kinds
        self.cell, self.of_cell = _finer(cell[kinds])
        self.horizon, self.discount = cohort.horizon, cohort.discount
        self.round = cohort.discount ** np.arange(cohort.horizon)
        self.kernel = np.ascontiguousarray(cohort.transition[kinds].transpose(1, 2, 3, 0))
        self.reward = np.ascontiguousarray(cohort.reward[kinds].transpose(2, 1, 0))
        self.start = np.ascontiguousarray(start.T)
        self.shape = (n_actions, n_states, len(kinds))
        self.n_cells = len(self.of_cell)
        self.sums = sparse.csr_array(
            (np.ones(len(kinds)), (self.cell, np.arange(len(kinds)))), shape=(self.n_cells, len(kinds))
        )
        self.allowed = resources.allowed[kinds].T
        self.chunk = max(64, CACHE_NUMBERS // (n_actions * n_states * n_states))
        self.price(resources)

    def price(self, resources: Resources) -> None:
        """Take the rows of ``resources``, which may have become more."""
        n_actions, n_states, n_types = self.shape
        self.by_state = resources.by_state
        table = resources.of_types(self.kinds, n_states, n_actions)
        self.rows = table
        entries = sparse.coo_array(table)
        pair, number = np.unique(
            entries.row.astype(np.int64) * self.n_cells + self.cell[entries.col % n_types], return_inverse=True
        )
        self.pair_row, self.pair_cell = np.divmod(pair, self.n_cells)
        self._used = sparse.csr_array((entries.data, (number, entries.col)), shape=(len(pair), table.shape[1]))
        self._charged = sparse.csr_array(table.T)

    def use_of(self, actions: np.ndarray) -> np.ndarray:
        """What plans with these actions (T, A, M) use, (P, T)."""
        return self._used @ actions.reshape(self.horizon, -1).T.astype(float)

    def evaluate(self, worth: np.ndarray, prices: np.ndarray, *, actions: bool = False, heat: float = 0.0) -> Plans:
        """Best plans where rewards of a cell are worth ``worth`` (Q,) and resources cost ``prices`` (T, R).

        With ``heat`` actions are drawn, with chances that fall off with what they lose in units of the heat; ``total``
        is then smooth in worth and prices, the plans' rewards and use are its slopes, and it lies above the best.
        """
        n_actions, n_states, n_types = self.shape
        depth = n_states if self.by_state else 1
        charge = (self._charged @ prices.T).T.reshape(self.horizon, n_actions, depth, n_types)
        # A table of all rounds is kept once: what is done, of which use follows.
        done = np.empty((self.horizon, n_actions, depth, n_types))
        paid, total = np.empty(n_types), 0.0
        first = np.empty((n_actions, n_states, n_types), dtype=np.float32)
        of_type = worth[self.cell]
        for begin in range(0, n_types, self.chunk):
            part = slice(begin, min(begin + self.chunk, n_types))
            chance, value = self._backward(part, of_type[part], charge[..., part], heat)
            total += float((self.start[:, part] * value).sum())
            first[..., part] = chance[0]
            paid[part] = self._forward(part, chance, done[..., part])
        acted = done[:, 1:].sum(axis=(1, 2))
        return Plans(
            total,
            self.sums @ paid,
            self._used @ done.reshape(self.horizon, -1).T,
            (self.sums @ acted.T).T,
            paid,
            first,
            done.sum(axis=2).astype(np.float32) if actions else None,
        )

    def _backward(
        self, part: slice, worth: np.ndarray, charge: np.ndarray, heat: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Chances of actions in every round and state (T, A, S, m), and values of the first round (S, m)."""
        kernel, reward = self.kernel[..., part], self.reward[..., part] * worth
        n_actions, n_states = self.shape[:2]
        closed = np.where(self.allowed[:, part], 0.0, -np.inf)[:, None, :]
        value = np.zeros(reward.shape[1:])
        chance = np.empty((self.horizon, n_actions, *value.shape), dtype=np.float64 if heat else bool)
        product = np.empty_like(kernel[:, :, 0])
        for t in range(self.horizon - 1, -1, -1):
            gain = reward - charge[t]
            if t + 1 < self.horizon:
                value *= self.discount
                for after in range(n_states):
                    np.multiply(kernel[:, :, after], value[after], out=product)
                    gain += product
            gain += closed
            value = gain.max(axis=0)
            if heat:
                gain -= value
                gain /= heat
                np.exp(gain, out=gain)
                mass = gain.sum(axis=0)
                np.divide(gain, mass, out=chance[t])
                value += heat * np.log(mass)
            elif n_actions == 2:
                np.greater(gain[1], gain[0], out=chance[t, 1])
                np.logical_not(chance[t, 1], out=chance[t, 0])
            else:
                chance[t] = gain.argmax(axis=0) == np.arange(n_actions)[:, None, None]
        return chance, value

    def _forward(self, part: slice, chance: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Rewards paid to each arm, (m,); what is done in every round goes into ``done`` (T, A, S or 1, m)."""
        kernel, reward = self.kernel[..., part], self.reward[..., part]
        n_actions, n_states = self.shape[:2]
        mass = self.start[:, part]
        paid = np.zeros(mass.shape[1])
        for t in range(self.horizon):
            flow = chance[t] * mass
            paid += self.round[t] * (flow * reward).sum(axis=(0, 1))
            done[t] = flow if done.shape[2] > 1 or n_states == 1 else flow.sum(axis=1, keepdims=True)
            if t + 1 < self.horizon:
                mass = np.zeros_like(mass)
                for action in range(n_actions):
                    for state in range(n_states):
                        mass += kernel[action, state] * flow[action, state]
        return paid


def _finer(cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells of types in order (M,), divided evenly where there are few; and the cell each comes from, (Q,)."""
    n_cells, n_types = int(cell.max()) + 1, len(cell)
    parts = max(1, FEWEST_CELLS // n_cells)
    first = np.searchsorted(cell, np.arange(n_cells))
    size = np.bincount(cell, minlength=n_cells)
    part = (np.arange(n_types) - first[cell]) * np.minimum(parts, size)[cell] // size[cell]
    of_cell, fine = np.unique(cell * parts + part, return_inverse=True)
    return fine, of_cell // parts
