"""No clock decides what an episode on contact graphs earns, whose programs are the hardest that are shipped."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clocks import FASTER, played

import rmab_opt as ro
from rmab_opt.learning import evaluate
from rmab_opt.solver import load_profile
from rmab_opt.solver.highs import HighsSolver


@pytest.mark.slow
def test_a_clock_that_runs_a_hundred_times_faster_changes_no_episode():
    models = [("contacts_quotas", "model")]
    assert played(1, models) == played(100, models)


def test_a_shipped_profile_counts_by_nodes_and_an_own_one_says_that_it_reads_the_clock(monkeypatch):
    asked = []
    solve = HighsSolver.solve

    def spied(self, arrays, limits, start, interrupt):
        asked.append((limits.seconds, limits.nodes))
        return solve(self, arrays, limits, start, interrupt)

    monkeypatch.setattr(HighsSolver, "solve", spied)
    model = replace(ro.load("contacts_quotas", horizon=1), solver="quick")
    table = evaluate(model, ["model"], episodes=1, bound=False)
    assert asked
    assert all(np.isinf(seconds) for seconds, _ in asked)
    assert "depends on the clock" not in table.header
    asked.clear()
    mine = replace(load_profile("quick"), name="mine", seconds=7.0)
    table = evaluate(replace(model, solver=mine), ["model"], episodes=1, bound=False)
    assert table.header["depends on the clock"] == "7 s a solve"
    assert any(seconds == 7.0 for seconds, _ in asked)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler for the solver's clock")
def test_nor_does_the_solvers_own_clock(tmp_path: Path):
    """HiGHS reads the system's clock itself, so that one is made faster for the whole process."""
    (tmp_path / "faster.c").write_text(FASTER, encoding="utf-8")
    library = tmp_path / "faster.so"
    subprocess.run(
        ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "faster.c"), "-ldl"], check=True
    )
    names = ("weekly_calls", "contacts_quotas", "contacts_slow_start", "contacts_stars")
    models = [(name, "model") for name in names]
    assert played(1, models) == played(1, models, LD_PRELOAD=str(library))
