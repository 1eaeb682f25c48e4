"""Evaluations and training count by nodes: no clock decides what an episode earns, however busy the machine is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.learning import evaluate
from rmab_opt.solver import Profile, Program, Session, load_profile, profile_names, repeatable
from rmab_opt.solver.highs import HighsSolver

PLAYED = """
import json, sys, time
speed = float(sys.argv[1])
counter, steady = time.perf_counter, time.monotonic
time.perf_counter, time.monotonic = lambda: counter() * speed, lambda: steady() * speed
import rmab_opt as ro
from rmab_opt.learning import evaluate
found = {}
for name, policy in json.loads(sys.argv[2]):
    table = evaluate(ro.load(name), [policy], episodes=2, bound=False)
    found[name] = [*map(float.hex, table.raw[policy].ravel().tolist()), table.rows[0]["proven_share"]]
print(json.dumps(found))
"""

FASTER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
static int (*real)(clockid_t, struct timespec *);
static struct timespec base[8];
static int known[8];
int clock_gettime(clockid_t c, struct timespec *t) {
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(c, t);
    if (c != CLOCK_MONOTONIC && c != CLOCK_REALTIME && c != CLOCK_MONOTONIC_RAW) return answer;
    if (!known[c]) { base[c] = *t; known[c] = 1; }
    long long n = (t->tv_sec - base[c].tv_sec) * 1000000000LL + t->tv_nsec - base[c].tv_nsec;
    n = n * 100LL + base[c].tv_nsec;
    t->tv_sec = base[c].tv_sec + n / 1000000000LL;
    t->tv_nsec = n % 1000000000LL;
    return answer;
}
"""


def played(speed: float, models: list[tuple[str, str]], **around: str) -> dict[str, list]:
    command = [sys.executable, "-c", PLAYED, str(speed), json.dumps(models)]
    told = subprocess.run(command, env=os.environ | around, capture_output=True, text=True, check=True)
    return json.loads(told.stdout)


def test_a_clock_that_runs_a_hundred_times_faster_changes_no_episode():
    models = [("weekly_calls", "model"), ("contacts_quotas", "model")]
    assert played(1, models) == played(100, models)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler for the solver's clock")
def test_nor_does_the_solvers_own_clock(tmp_path: Path):
    """HiGHS reads the system's clock itself, so that one is made faster for the whole process."""
    (tmp_path / "faster.c").write_text(FASTER, encoding="utf-8")
    library = tmp_path / "faster.so"
    subprocess.run(
        ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "faster.c"), "-ldl"], check=True
    )
    names = ("weekly_calls", "contacts_quotas", "contacts_slow_start", "contacts_stars", "sessions", "capacity", "path")
    models = [(name, "model") for name in names]
    assert played(1, models) == played(1, models, LD_PRELOAD=str(library))


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
