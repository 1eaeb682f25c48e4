"""Evaluations and training count by nodes: no clock decides what an episode earns, however busy the machine is."""

from __future__ import annotations

import numpy as np
import pytest
from clocks import played

from rmab_opt.solver import Profile, Program, Session, load_profile, profile_names, repeatable
from rmab_opt.solver.highs import HighsSolver


@pytest.mark.slow
def test_a_clock_that_runs_a_hundred_times_faster_changes_no_episode():
    models = [("weekly_calls", "model"), ("budget", "lagrangian")]
    assert played(1, models) == played(100, models)


@pytest.mark.parametrize("name", profile_names())
def test_what_experiments_put_in_place_of_a_clock(name):
    mine, ours = load_profile(name), repeatable(name)
    assert (ours.clock, ours.seconds, ours.proof_seconds) == (None, None, None)
    assert ours.proof_nodes is not None
    assert (ours.nodes is None) == (mine.nodes is None and mine.seconds is None)
    assert repeatable(mine) is mine


def test_the_limit_of_a_solve_is_not_eaten_by_earlier_solves(monkeypatch):
    """HiGHS holds parts of a MILP against a clock that runs on; each solve under a limit has a fresh one."""
    begun = []
    run = HighsSolver._run
    monkeypatch.setattr(HighsSolver, "_run", lambda self, ask: begun.append(self._highs.getRunTime()) or run(self, ask))
    rng = np.random.default_rng(0)
    program = Program(
        rng.random(30), rng.random((9, 30)), np.full(9, -np.inf), np.full(9, 5.0), np.zeros(30), np.ones(30),
        np.ones(30, dtype=bool), True,
    )  # fmt: skip
    limited = Session.from_arrays(program, Profile("limited", seconds=20.0))
    free = Session.from_arrays(program, Profile("free"))
    for _ in range(3):
        cost = rng.random(30)
        for session in (limited, free):
            session.set_cost(np.arange(30), cost)
        begun.clear()
        assert limited.solve().objective == pytest.approx(free.solve().objective, rel=1e-4)
        assert begun[0] < 1e-3
