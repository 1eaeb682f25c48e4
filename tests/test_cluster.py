"""Tables and lists on a local Dask cluster of two workers, also when one of them is killed in between."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.decisions import Chooser
from rmab_opt.learning import evaluate
from rmab_opt.parallel import pmap

joblib = pytest.importorskip("joblib")
distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.slow


def _slow_square(task: tuple[int, str]) -> int:
    number, folder = task
    # The first to come to task 3 waits to be killed; whoever comes again finds the mark.
    mark = os.path.join(folder, "seen")
    if number == 3 and not os.path.exists(mark):
        with open(mark, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(60)
    time.sleep(0.2)
    return number * number


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as found,
    ):
        yield found


def test_a_table_is_the_same_on_a_cluster(client):
    model = ro.load("budget", n_arms=12)
    events: list[dict] = []
    here = evaluate(model, ["myopic", "none"], episodes=4, seeds=[0, 1])
    with joblib.parallel_config(backend="dask"):
        there = evaluate(model, ["myopic", "none"], episodes=4, seeds=[0, 1], on_event=events.append)
    assert sum(event["advance"] for event in events) == 2 * 2 * model.problem.horizon
    for name, totals in here.episodes.items():
        np.testing.assert_array_equal(totals, there.episodes[name])


def test_decisions_are_the_same_on_a_cluster(client):
    model = ro.load("budget", n_arms=12)
    states = np.random.default_rng(0).integers(0, model.problem.dynamics.n_states, (6, 12))
    chooser = Chooser(model.problem, model.actions, model.objective, model.solver)
    here = [decision.chosen for decision in chooser.batch_decide(states)]
    with joblib.parallel_config(backend="dask"):
        there = [decision.chosen for decision in chooser.batch_decide(states)]
    assert here == there


def test_a_killed_worker_loses_nothing(client, tmp_path):
    tasks = [(number, str(tmp_path)) for number in range(8)]
    found: dict[int, int] = {}
    with joblib.parallel_config(backend="dask"):
        for number, result in pmap(_slow_square, tasks):
            found[number] = result
            mark = tmp_path / "seen"
            if mark.exists() and mark.read_text() and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                os.kill(int(mark.read_text()), signal.SIGKILL)
    assert (tmp_path / "killed").exists()
    assert found == {number: number * number for number in range(8)}
