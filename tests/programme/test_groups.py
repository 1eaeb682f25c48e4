"""Whom to estimate together: crosses with calls enough, clusters that held-out moves bear out."""

from __future__ import annotations

import numpy as np
import pytest

from rmab_opt.programme.columns import RegisterColumns
from rmab_opt.programme.estimate import CallLog
from rmab_opt.programme.groups import best_clusters, members_of


def log_of(up: np.ndarray, weeks: int = 30, seed: int = 0, calls: float = 0.1) -> CallLog:
    """A log of arms with chances (N, A, S)."""
    rng, n = np.random.default_rng(seed), len(up)
    seen, called = np.empty((n, weeks), int), (rng.random((n, weeks)) < calls).astype(int)
    seen[:, 0] = rng.random(n) < 0.5
    for w in range(weeks - 1):
        seen[:, w + 1] = rng.random(n) < up[np.arange(n), called[:, w], seen[:, w]]
    return CallLog(tuple(f"f{k:03d}" for k in range(n)), tuple(range(1, weeks + 1)), seen, called)


def test_clusters_find_two_kinds_and_do_not_invent_any():
    kinds = np.array([[[0.1, 0.5], [0.6, 0.8]], [[0.3, 0.95], [0.5, 0.97]]])
    kind = np.arange(300) % 3 % 2
    found = best_clusters(log_of(kinds[kind]), 4)
    names = np.array([found[f"f{k:03d}"] for k in range(300)])
    # The larger kind has the first name; nearly everybody is with their own.
    assert (names[kind == 0] == "cluster 1").mean() > 0.85
    assert (names[kind == 1] != "cluster 1").mean() > 0.85
    alike = best_clusters(log_of(np.repeat(kinds[:1], 300, axis=0), seed=1), 4)
    assert set(alike.values()) == {"cluster 1"}


def test_a_cross_needs_calls_enough_in_every_state():
    up = np.repeat(np.array([[[0.2, 0.6], [0.5, 0.8]]]), 90, axis=0)
    log = log_of(up)
    cells = {
        name: {"group": "all", "Region": "North" if k < 60 else "Far" if k > 87 else "South", "reach": "yes"}
        for k, name in enumerate(log.ids)
    }
    columns = RegisterColumns(id="id", keep=("Region",), cross=("Region",))
    groups = {name: member.group for name, member in members_of(cells, columns, log).items()}
    assert groups["f000"] == "all / North"
    assert groups["f070"] == "all / South"
    # Two families have too few calls for figures of their own.
    assert groups["f089"] == "all"
    with pytest.raises(ValueError, match="'Village' is not among keep"):
        RegisterColumns(id="id", cross=("Village",))
