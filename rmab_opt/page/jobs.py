"""One long piece of work at a time beside the page: value and bound as they move, a stop that keeps the best."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rmab_opt.errors import RmabError
from rmab_opt.solver import Progress

__all__ = ["Job", "Jobs"]


@dataclass(eq=False)
class Job:
    """A piece of work: running, then with its answer or its error."""

    what: str
    """What it is about, a key of the words."""
    back: str
    """Where to go when it has ended."""
    number: int
    progress: Progress = field(default_factory=Progress)
    begun: float = field(default_factory=time.monotonic)
    track: list[tuple[float, float, float]] = field(default_factory=list)
    """Seconds, value and bound, as they were looked at."""
    stopped: bool = False
    done: bool = False
    about: Any = None
    """What was asked, to ask it again another way."""
    answer: Any = None
    error: RmabError | None = None

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.begun


class Jobs:
    """The one job that runs or ran last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.last: Job | None = None

    @property
    def running(self) -> Job | None:
        """The job that runs; None where none does."""
        return self.last if self.last is not None and not self.last.done else None

    def start(self, what: str, back: str, work: Callable[[Progress], Any]) -> Job | None:
        """Begin; None where another job still runs."""
        with self._lock:
            if self.running is not None:
                return None
            number = 1 if self.last is None else self.last.number + 1
            self.last = job = Job(what, back, number)
        threading.Thread(target=self._run, args=(job, work), name=f"rmab-opt page {what}", daemon=True).start()
        return job

    @staticmethod
    def _run(job: Job, work: Callable[[Progress], Any]) -> None:
        try:
            job.answer = work(job.progress)
        except RmabError as error:
            job.error = error
        except Exception as error:  # noqa: BLE001 - a thread's end: the page says it where it would be lost
            job.error = RmabError(f"internal error: {type(error).__name__}: {error}", "repeat it on the command line.")
        finally:
            job.done = True
