"""Values that depend on what all chosen columns together make of an arm: exact rows, one binary a level.

sum over l of z[n, l] = 1,  sum over l of l * z[n, l] = sum over c of effect[c, n] * act[c],
value of arm n = sum over l of v[n, l] * z[n, l].
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyomo.environ as pyo

from rmab_opt.actions.columns import Columns

__all__ = ["arm_levels", "build_levels", "column_values", "shared_arms"]


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
    """Actions that columns can give each arm, bool (N, A): up to the sum of all, passive included."""
    effect = columns.effect.tocsc()
    most = np.asarray(effect.sum(axis=0)).ravel()
    if columns.exclusive:
        most = effect.max(axis=0).toarray().ravel()
    level: np.ndarray = np.arange(n_actions) <= np.rint(most)[:, None]
    return level


def build_levels(block: Any, act: Any, columns: Columns, n_actions: int) -> list[tuple[int, int]]:
    """Add ``level[n, l]`` (binary) and its two rows an arm to the Pyomo block, for arms that some column touches.

    Returns
    -------
    list
        The (arm, level) pairs in order.
    """
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
