"""A start for the solver: flips and swaps of chosen columns, whole neighbourhoods scored at once."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np

from rmab_opt.actions import ActionSet

__all__ = ["improve"]

NEIGHBOURS_AT_ONCE = 4096
"""Neighbours scored in one batch: enough to keep the matrix products dense, a few megabytes."""

TRIES = 40
"""Best neighbours handed to the roster-like checks before a pass counts as exhausted."""


def improve(
    actions: ActionSet,
    value: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    rng: np.random.Generator,
    *,
    seconds: float = 1.0,
    passes: int = 200,
) -> tuple[np.ndarray, float]:
    """Climb from an allowed action by single flips and one-for-one swaps until none is better.

    Parameters
    ----------
    value
        Objective of actions (M, C), shape (M,).
    start
        An allowed action, int (C,).
    rng
        Draws the neighbourhood's part when it is larger than ``NEIGHBOURS_AT_ONCE``.

    Returns
    -------
    tuple
        (allowed action (C,), its value); never worse than ``start``.
    """
    deadline = perf_counter() + seconds
    best, best_value = start.astype(np.int64), float(value(start[None])[0])
    for _ in range(passes):
        if perf_counter() > deadline:
            break
        neighbours = _neighbours(best, rng)
        neighbours = neighbours[actions.plain_rows.allow(neighbours)]
        if not len(neighbours):
            break
        values = value(neighbours)
        better = np.flatnonzero(values > best_value + 1e-9 * max(1.0, abs(best_value)))
        order = better[np.argsort(-values[better], kind="stable")][:TRIES]
        taken = next((k for k in order if actions.allows(neighbours[k])), None)
        if taken is None:
            break
        best, best_value = neighbours[taken].astype(np.int64), float(values[taken])
    return best, best_value


def _neighbours(action: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    inside, outside = np.flatnonzero(action == 1), np.flatnonzero(action == 0)
    n_swaps = len(inside) * len(outside)
    room = max(0, NEIGHBOURS_AT_ONCE - len(action))
    # All swaps when they fit, otherwise a fresh random part each pass.
    swaps = np.arange(n_swaps) if n_swaps <= room else rng.choice(n_swaps, size=room, replace=False)
    moves = np.repeat(action[None].astype(np.int8), len(action) + len(swaps), axis=0)
    flips = np.arange(len(action))
    moves[flips, flips] ^= 1
    rows = len(action) + np.arange(len(swaps))
    if len(swaps):
        moves[rows, inside[swaps // len(outside)]] = 0
        moves[rows, outside[swaps % len(outside)]] = 1
    return moves
