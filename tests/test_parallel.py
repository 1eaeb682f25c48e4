"""Tasks in parallel: the same results wherever they run, a killed worker's task redone, a killer task named."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from rmab_opt.errors import ModelError
from rmab_opt.parallel import TaskLostError, pmap


def _draw(seed: np.random.SeedSequence) -> float:
    return float(np.random.default_rng(seed).random())


def _dies_once(task: tuple[str, int]) -> int:
    folder, number = task
    mark = Path(folder) / "died"
    if number == 3 and not mark.exists():
        mark.write_text("once")
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def _always_dies(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _fails(number: int) -> int:
    raise ModelError(f"task {number} is wrong", "mend it.")


@pytest.mark.parametrize("n_jobs", [1, 2, 3])
def test_results_do_not_depend_on_the_number_of_workers(n_jobs):
    seeds = np.random.SeedSequence(5).spawn(9)
    assert dict(pmap(_draw, seeds, n_jobs=n_jobs)) == {k: _draw(seed) for k, seed in enumerate(seeds)}


def test_a_killed_workers_task_is_done_again(tmp_path):
    done = list(pmap(_dies_once, [(str(tmp_path), k) for k in range(8)], n_jobs=2))
    assert (tmp_path / "died").exists()
    assert sorted(done) == [(k, k * k) for k in range(8)]


def test_a_task_that_always_kills_its_worker_is_named():
    with pytest.raises(TaskLostError, match="task"):
        list(pmap(_always_dies, [0, 1], n_jobs=2))


def test_errors_of_a_task_come_through_and_no_workers_are_refused():
    with pytest.raises(ModelError, match="task 0 is wrong"):
        list(pmap(_fails, [0], n_jobs=2))
    with pytest.raises(ModelError, match="n_jobs is 0"):
        list(pmap(_draw, [], n_jobs=0))
