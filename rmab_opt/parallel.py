"""One way to run independent tasks at once: local cores by default, a cluster by joblib's own ``parallel_config``."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from rmab_opt import registry
from rmab_opt.errors import ModelError, RmabError

__all__ = ["TaskLostError", "pmap", "runs_here"]

Task = TypeVar("Task")
Result = TypeVar("Result")

MOST_WORKERS = 1024

RETRIES = 2
"""How often a task is started again after its worker died; more often it is the task that kills."""


class TaskLostError(RmabError):
    """A task's worker process died each time the task was tried; what other tasks returned has been delivered."""

    exit_code = 4


def _numbered(function: Callable[[Task], Result], number: int, task: Task) -> tuple[int, Result]:
    return number, function(task)


class _Sealed:
    """A value that a worker unpickles after loading this process's plugins, whose classes it may need."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        # As joblib pickles by itself: functions of a notebook and closures too.
        from joblib.externals.loky.backend.reduction import dumps

        return _unsealed, (registry.plugins(), bytes(dumps(self.value)))


def _unsealed(plugins: tuple[str, ...], pickled: bytes) -> _Sealed:
    for file in plugins:
        registry.load_plugin(file)
    return _Sealed(pickle.loads(pickled))


def _call(sealed: _Sealed) -> Any:
    function, task = sealed.value
    return function(task)


def runs_here(n_jobs: int | None) -> bool:
    """Whether :func:`pmap` runs tasks one after the other in this process, where they can report as they go."""
    from joblib import effective_n_jobs

    return n_jobs == 1 or (n_jobs is None and effective_n_jobs(None) == 1)


def pmap(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, n_jobs: int | None = None
) -> Iterator[tuple[int, Result]]:
    """Results of independent tasks as they come, each with its task's number.

    Nothing of a result may depend on where or in which order tasks run: a task carries its own seed (spawn one a
    task from a ``SeedSequence``). A task whose worker died is started again, at most twice; what others returned is
    kept. On a cluster, write ``with joblib.parallel_config(backend="dask"): ...`` around the call and leave
    ``n_jobs`` out.

    Parameters
    ----------
    function
        Called with one task; it and the tasks must be picklable where there are several workers.
    tasks
        In order; numbers count from 0.
    n_jobs
        Workers; None takes joblib's configuration, or one; 1 runs the tasks here, in order; -1 takes all cores.

    Raises
    ------
    TaskLostError
        When a worker died three times; names the tasks.
    ModelError
        When ``n_jobs`` is 0, below -1 or above any machine.
    """
    if n_jobs is not None and (n_jobs == 0 or n_jobs < -1 or n_jobs > MOST_WORKERS):
        raise ModelError(
            f"n_jobs is {n_jobs}", f"give the number of workers, at most {MOST_WORKERS}, or -1 for all cores."
        )
    if n_jobs is not None and n_jobs > 1:
        n_jobs = max(1, min(n_jobs, len(tasks)))
    # joblib costs 0.1 s to import, which `--help` must not pay.
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import BrokenProcessPool

    missing: dict[int, Any] = dict(enumerate(tasks))
    for _ in range(1 + RETRIES):
        if not missing:
            return
        pool: Any = Parallel(n_jobs=n_jobs, return_as="generator_unordered")
        try:
            if registry.plugins():
                calls = [
                    delayed(_numbered)(_call, number, _Sealed((function, task))) for number, task in missing.items()
                ]
            else:
                calls = [delayed(_numbered)(function, number, task) for number, task in missing.items()]
            for number, result in pool(calls):
                del missing[number]
                yield number, result
        except BrokenProcessPool:
            continue
    if missing:
        raise TaskLostError(
            f"worker processes died {1 + RETRIES} times on task {', '.join(map(str, sorted(missing)[:8]))}",
            "run it with n_jobs=1 to see why; memory is the usual reason.",
        )
