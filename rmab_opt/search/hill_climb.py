"""Adding columns one by one by what each gains: climbing of any value, and of a network by its marginals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from rmab_opt.actions import ActionSet
from rmab_opt.encoder import Network
from rmab_opt.encoder.network import Reduced

__all__ = ["climb_network", "hill_climb"]


def hill_climb(
    value: Callable[[np.ndarray], np.ndarray], actions: ActionSet, *, start: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Best next column by its true marginal, again and again, until none improves the value.

    Parameters
    ----------
    value
        Of actions (M, C), shape (M,). Nothing is assumed of it, and nothing is guaranteed: a learned value is
        neither monotone nor submodular.
    start
        A partial action to go on from; nothing by default.

    Returns
    -------
    tuple
        (action (C,), its value).
    """
    room = actions.shape.room()
    for column in np.flatnonzero(np.zeros(len(actions)) if start is None else start):
        room.take(int(column))
    best = float(value(room.action[None])[0])
    open_ = np.flatnonzero(room.action == 0)
    while True:
        open_ = room.fitting(open_)
        if not len(open_):
            return room.action, best
        candidates = np.repeat(room.action[None], len(open_), axis=0)
        candidates[np.arange(len(open_)), open_] = 1
        found = value(candidates)
        pick = int(np.argmax(found))
        if not found[pick] > best + 1e-12 * max(1.0, abs(best)):
            return room.action, best
        best = float(found[pick])
        room.take(int(open_[pick]))
        open_ = np.delete(open_, pick)


def climb_network(network: Network, actions: ActionSet) -> tuple[np.ndarray, float]:
    """:func:`hill_climb` on a network, by what each column adds to the first layer; (action (C,), value).

    With one hidden layer only the neurons that a column touches are looked at: on a graph network these are the
    node's own and its contacts'.
    """
    reduced = network.reduced
    if not reduced.hidden:
        return hill_climb(network, actions)
    marginals = _Marginals(reduced)
    room, open_, value = actions.shape.room(), np.ones(len(actions), dtype=bool), float(reduced(np.zeros(len(actions))))
    while True:
        candidates = room.fitting(np.flatnonzero(open_))
        if not len(candidates):
            break
        gains = marginals(candidates)
        pick = int(np.argmax(gains))
        if not gains[pick] > 1e-12 * max(1.0, abs(value)):
            break
        column = int(candidates[pick])
        room.take(column)
        open_[column] = False
        marginals.take(column)
        value += float(gains[pick])
    return room.action, float(np.asarray(network(room.action.astype(np.float64))).reshape(-1)[0])


class _Marginals:
    """What each column adds to a network's value beside those taken.

    The entries of the first layer are kept by column and by neuron: with one hidden layer, taking a column changes
    the marginals of those columns only that share a neuron with it.
    """

    def __init__(self, reduced: Reduced) -> None:
        self.first, self.later = reduced.hidden[0], reduced.hidden[1:]
        self.skip, self.readout = reduced.skip, reduced.readout
        self.by_column = sparse.csc_array(self.first.weight)
        self.neuron, self.amount = self.by_column.indices, self.by_column.data
        self.owner = np.repeat(np.arange(len(self.skip)), np.diff(self.by_column.indptr))
        self.at = self.first.bias.copy()
        if self.later:
            self.rows = sparse.csr_array(self.by_column.T)
            return
        self.order = np.argsort(self.neuron, kind="stable")
        self.start = np.concatenate([[0], np.cumsum(np.bincount(self.neuron, minlength=len(self.at)))])
        self.part = self._part(np.arange(len(self.neuron)))
        self.gain = self.skip + np.bincount(self.owner, self.part, minlength=len(self.skip))

    def __call__(self, candidates: np.ndarray) -> np.ndarray:
        """Gains of columns (M,)."""
        if not self.later:
            return np.asarray(self.gain[candidates])
        every = slice(None)
        h, h0 = self._bend(self.at + self.rows[candidates].toarray(), every), self._bend(self.at, every)
        for layer in self.later:
            h, h0 = layer(h), layer(h0)
        return np.asarray(self.skip[candidates] + (h - h0) @ self.readout)

    def take(self, column: int) -> None:
        """From here on beside this column too."""
        own = slice(self.by_column.indptr[column], self.by_column.indptr[column + 1])
        touched = self.neuron[own]
        self.at[touched] += self.amount[own]
        if self.later:
            return
        first, count = self.start[touched], self.start[touched + 1] - self.start[touched]
        place = np.repeat(first - np.concatenate([[0], np.cumsum(count)[:-1]]), count) + np.arange(count.sum())
        entries = self.order[place]
        change = self._part(entries) - self.part[entries]
        self.part[entries] += change
        self.gain += np.bincount(self.owner[entries], change, minlength=len(self.gain))

    def _part(self, entries: np.ndarray) -> np.ndarray:
        """What entries of the first layer add through their neurons."""
        neuron, at = self.neuron[entries], self.at[self.neuron[entries]]
        change = self._bend(at + self.amount[entries], neuron) - self._bend(at, neuron)
        return np.asarray(change * self.readout[neuron])

    def _bend(self, at: np.ndarray, neurons: Any) -> np.ndarray:
        bent: np.ndarray = self.first.slope[neurons] * at + self.first.gain[neurons] * np.maximum(at, 0.0)
        return bent
