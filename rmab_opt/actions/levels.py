"""Values that depend on what all chosen columns together make of an arm: exact rows, one binary a level.

sum over l of z[n, l] = 1,  sum over l of l * z[n, l] = sum over c of effect[c, n] * act[c],
value of arm n = sum over l of v[n, l] * z[n, l].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from rmab_opt.actions.columns import Columns

__all__ = ["arm_levels", "build_interpolation", "build_levels", "column_values", "shared_arms"]


def shared_arms(columns: Columns) -> bool:
    """Whether an arm's action may come from several columns, or a column acts on several arms."""
    effect = columns.effect
    several = not columns.exclusive and bool((np.bincount(effect.indices, minlength=1) > 1).any())
    return several or bool((np.diff(effect.indptr) > 1).any())


def column_values(columns: Columns, values: np.ndarray) -> np.ndarray:
    """What each column adds to the sum of arm values (N, A) where no arm is shared, (C,)."""
    effect = columns.effect
    acting = np.repeat(np.arange(len(columns)), np.diff(effect.indptr))
    arm, level = effect.indices, np.rint(effect.data).astype(np.int64)
    gain = np.zeros(len(columns))
    gain[acting] = values[arm, level] - values[arm, 0]
    return gain


def arm_levels(columns: Columns, n_actions: int) -> np.ndarray:
    """Actions that columns can give each arm, bool (N, A), passive included: one of them, or what several add up to."""
    effect = sparse.csc_array(columns.effect)
    level = np.zeros((effect.shape[1], n_actions), dtype=bool)
    level[:, 0] = True
    for arm in range(effect.shape[1]):
        for weight in np.rint(effect.data[effect.indptr[arm] : effect.indptr[arm + 1]]).astype(int):
            if columns.exclusive:
                level[arm, weight] = True
            elif weight < n_actions:
                level[arm, weight:] |= level[arm, : n_actions - weight].copy()
    return level


def build_levels(block: Any, act: Any, columns: Columns, n_actions: int) -> list[tuple[int, int]]:
    """Add ``level[n, l]`` (binary) and its two rows an arm to the Pyomo block, for arms that some column touches.

    Returns
    -------
    list
        The (arm, level) pairs in order.
    """
    import pyomo.environ as pyo

    effect = columns.effect.tocsc()
    touched = np.flatnonzero(np.diff(effect.indptr))
    allowed = arm_levels(columns, n_actions)
    keys = [(int(n), int(level)) for n in touched for level in np.flatnonzero(allowed[n])]
    of_arm: dict[int, list[int]] = {}
    for n, level in keys:
        of_arm.setdefault(n, []).append(level)
    block.level = pyo.Var(keys, domain=pyo.Binary)

    @block.Constraint(touched.tolist())
    def one_level(_: Any, n: int) -> Any:
        return sum(block.level[n, level] for level in of_arm[n]) == 1

    @block.Constraint(touched.tolist())
    def adds_up(_: Any, n: int) -> Any:
        entries = slice(effect.indptr[n], effect.indptr[n + 1])
        sent = sum(float(w) * act[int(c)] for c, w in zip(effect.indices[entries], effect.data[entries], strict=True))
        return sum(level * block.level[n, level] for level in of_arm[n]) == sent

    return keys


def build_interpolation(block: Any, act: Any, columns: Columns, points: dict[int, list[int]]) -> list[tuple[int, int]]:
    """Values between given levels on straight lines, in the convex-combination form.

    With the levels v_0 < ... < v_m of arm n: x_n = sum over k of v_k * level[n, v_k], the level's weights are
    non-negative and sum to one, and only two neighbours are positive: level[n, v_k] <= piece[n, k] + piece[n, k + 1],
    exactly one piece (binary) is chosen. Exact at the levels given.

    Parameters
    ----------
    points
        Levels of each arm, from 0 to the most that its columns add up to, sorted.

    Returns
    -------
    list
        The (arm, level) pairs in order.
    """
    import pyomo.environ as pyo

    effect = sparse.csc_array(columns.effect)
    keys = [(arm, level) for arm, levels in points.items() for level in levels]
    pieces = [(arm, k) for arm, levels in points.items() for k in range(1, len(levels))]
    block.level = pyo.Var(keys, bounds=(0, 1))
    block.piece = pyo.Var(pieces, domain=pyo.Binary)

    @block.Constraint(list(points))
    def weights(_: Any, n: int) -> Any:
        return sum(block.level[n, level] for level in points[n]) == 1

    @block.Constraint(list(points))
    def adds_up(_: Any, n: int) -> Any:
        entries = slice(effect.indptr[n], effect.indptr[n + 1])
        sent = sum(float(w) * act[int(c)] for c, w in zip(effect.indices[entries], effect.data[entries], strict=True))
        return sum(level * block.level[n, level] for level in points[n]) == sent

    @block.Constraint(list(points))
    def one_piece(_: Any, n: int) -> Any:
        return sum(block.piece[n, k] for k in range(1, len(points[n]))) == 1

    @block.Constraint([(n, k) for n, levels in points.items() for k in range(len(levels))])
    def neighbours(_: Any, n: int, k: int) -> Any:
        beside = [block.piece[n, j] for j in (k, k + 1) if 1 <= j < len(points[n])]
        return block.level[n, points[n][k]] <= sum(beside)

    return keys
