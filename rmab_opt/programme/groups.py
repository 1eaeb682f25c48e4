"""Whom to estimate together: a column, a cross of columns where there are calls enough, or clusters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.cluster.vq import kmeans2

from rmab_opt.programme.columns import RegisterColumns
from rmab_opt.programme.estimate import FEW_MOVES, STATES, CallLog, Member
from rmab_opt.programme.moves import UNKNOWN, count_moves

__all__ = ["best_clusters", "members_of"]

WEIGHT = 4.0
"""Moves that an arm's own frequency is drawn to the cohort's with, before it is clustered."""


def members_of(cells: Mapping[str, Mapping[str, str]], columns: RegisterColumns, log: CallLog) -> dict[str, Member]:
    """Members by id with the groups that they are estimated in.

    ``cross`` splits a group by further columns; a part with fewer than 30 called moves in some state stays with its
    group. ``clusters`` splits what is left by how members move when nobody calls, into at most so many clusters;
    their number is the one of largest held-out likelihood.
    """
    group = {name: own.get("group") or "all" for name, own in cells.items()}
    if columns.cross:
        group = _crossed(cells, group, columns.cross, log)
    if columns.clusters > 1:
        number = best_clusters(log, columns.clusters)
        group = {name: f"{one} / {number.get(name, 'cluster 1')}" for name, one in group.items()}
    return {name: Member(group[name], own.get("reach", "yes") == "yes") for name, own in cells.items()}


def _crossed(
    cells: Mapping[str, Mapping[str, str]], group: dict[str, str], columns: tuple[str, ...], log: CallLog
) -> dict[str, str]:
    total = count_moves(log.seen, log.called, len(STATES)).total[:, 1]
    row = {name: n for n, name in enumerate(log.ids)}
    part = {name: " / ".join([group[name], *(own.get(c, "") or "-" for c in columns)]) for name, own in cells.items()}
    calls: dict[str, np.ndarray] = {}
    for name, one in part.items():
        found = total[row[name]] if name in row else np.zeros(len(STATES))
        calls[one] = calls.get(one, np.zeros(len(STATES))) + found
    return {name: one if calls[one].min() >= FEW_MOVES else group[name] for name, one in part.items()}


def best_clusters(log: CallLog, most: int) -> dict[str, str]:
    """Cluster of every member of a log, ``cluster 1`` the largest; their number by the moves of every other week."""
    even = np.arange(log.seen.shape[1]) % 2 == 0
    # A move is of the week it begins in.
    of_half = (np.where(mask, log.called, UNKNOWN) for mask in (even, ~even))
    parts = [count_moves(log.seen, called, len(STATES)).counts[:, 0] for called in of_half]
    best, number = -np.inf, 1
    for k in range(1, most + 1):
        worth = _likelihood(parts[1], _clusters(parts[0], k), parts[0])
        if worth > best + 1e-9:
            best, number = worth, k
    found = _clusters(parts[0] + parts[1], number)
    order = np.argsort(-np.bincount(found, minlength=number), kind="stable")
    place = np.empty(number, dtype=int)
    place[order] = np.arange(number)
    return {name: f"cluster {place[found[n]] + 1}" for n, name in enumerate(log.ids)}


def _clusters(counts: np.ndarray, k: int) -> np.ndarray:
    """Cluster of each arm by its passive frequencies, shrunk to the cohort's; counts (N, S, S)."""
    if k == 1:
        return np.zeros(len(counts), dtype=int)
    whole = counts.sum(axis=0) + 0.5
    centre = whole[:, 1] / whole.sum(axis=1)
    total = counts.sum(axis=2)
    share = (counts[:, :, 1] + WEIGHT * centre) / (total + WEIGHT)
    _, found = kmeans2(share, k, minit="++", seed=np.random.default_rng(0))
    return np.asarray(found)


def _likelihood(held: np.ndarray, cluster: np.ndarray, seen: np.ndarray) -> float:
    """Mean log-likelihood of held-out moves under the clusters' frequencies."""
    total = 0.0
    for one in np.unique(cluster):
        here = cluster == one
        chance = (seen[here].sum(axis=0) + 0.5) / (seen[here].sum(axis=0) + 0.5).sum(axis=1, keepdims=True)
        total += float((held[here].sum(axis=0) * np.log(chance)).sum())
    return total / max(float(held.sum()), 1.0)
