"""The best few stops within any of many listed routes, for gains that add up."""

from __future__ import annotations

import numpy as np

__all__ = ["RouteList"]

CHUNK_BITS = 11
"""Bits of a mask that one table of sums covers."""

FIRST_LOOK = 2000
"""Routes valued exactly before the bound is asked who else could win."""


class RouteList:
    """Sets of columns, of which at most ``most`` may be chosen within one.

    Parameters
    ----------
    sets
        Bit masks, (M,) uint64.
    n_columns
        Columns C, at most 63.
    most
        Columns that may be chosen.
    """

    def __init__(self, sets: np.ndarray, n_columns: int, most: int) -> None:
        self.sets, self.n_columns, self.most = sets, n_columns, most
        self._starts = range(0, n_columns, CHUNK_BITS)
        low = np.uint64((1 << CHUNK_BITS) - 1)
        self._chunks = [((sets >> np.uint64(start)) & low).astype(np.int64) for start in self._starts]
        self._charge = 0.0

    def best(self, gain: np.ndarray) -> tuple[np.ndarray, float]:
        """(action int64 (C,), value) with the largest sum of gains (C,); nothing is chosen at a loss.

        At any charge c >= 0 a set earns at most most * c + sum over its columns of max(0, gain - c). With the
        charge near the last gain taken hardly any set but the best exceeds the best value: those are valued exactly.
        """
        useful = np.maximum(np.asarray(gain, dtype=np.float64), 0.0)
        best, value = np.zeros(self.n_columns, dtype=np.int64), 0.0
        if not useful.any() or not len(self.sets) or not self.most:
            return best, value
        done = np.zeros(len(self.sets), dtype=bool)
        for _ in range(3):
            limit = self._limits(useful, self._charge)
            rows = np.flatnonzero((limit > value + 1e-9 * (1.0 + abs(value))) & ~done)
            if not len(rows):
                break
            if len(rows) > FIRST_LOOK:
                rows = rows[np.argpartition(-limit[rows], FIRST_LOOK)[:FIRST_LOOK]]
            best, value = self._look(rows, useful, best, value)
            done[rows] = True
            # The least gain that the best action takes is what one more stop would have to beat.
            taken = useful[best == 1]
            self._charge = float(taken.min()) if len(taken) == self.most else 0.0
        limit = self._limits(useful, self._charge)
        for rows in np.array_split(open_rows := np.flatnonzero((limit > value) & ~done), 1 + len(open_rows) // 20_000):
            best, value = self._look(rows, useful, best, value)
        return best, float(np.asarray(gain, dtype=np.float64) @ best)

    def _limits(self, useful: np.ndarray, charge: float) -> np.ndarray:
        """What each set can earn at most, (M,)."""
        over = np.maximum(useful - charge, 0.0)
        limit = np.full(len(self.sets), self.most * charge)
        for start, chunk in zip(self._starts, self._chunks, strict=True):
            part = over[start : start + CHUNK_BITS]
            table = np.zeros(1)
            for amount in part:
                table = np.concatenate([table, table + amount])
            limit += table[chunk]
        return limit

    def _look(self, rows: np.ndarray, useful: np.ndarray, best: np.ndarray, value: float) -> tuple[np.ndarray, float]:
        """The best action of these sets, if it beats ``value``."""
        if not len(rows):
            return best, value
        inside = (self.sets[rows, None] >> np.arange(self.n_columns, dtype=np.uint64)) & np.uint64(1)
        gains = np.where(inside == 1, useful, 0.0)
        top = np.argpartition(-gains, min(self.most, self.n_columns - 1), axis=1)[:, : self.most]
        earned = np.take_along_axis(gains, top, axis=1).sum(axis=1)
        winner = int(earned.argmax())
        if earned[winner] <= value:
            return best, value
        action = np.zeros(self.n_columns, dtype=np.int64)
        chosen = top[winner]
        action[chosen[gains[winner, chosen] > 0]] = 1
        return action, float(earned[winner])
