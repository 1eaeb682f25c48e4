"""Work that is given up when its time is over, because whoever waits for it has no use for a part of it.

A deadline that is handed over (``until``, ``deadline``) asks for what is at hand by then. Where a part is worth
nothing, a policy that is not made to the end or a round that would not count, the caller opens :func:`given_up_at`
around the work instead, and long work inside, a solve or a loop, passes :func:`checkpoint`: past the time it raises.
No answer depends on it: it is the same one, or there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from time import perf_counter

from rmab_opt.errors import OverdueError

__all__ = ["checkpoint", "given_up_at", "seconds_left"]

_DUE: ContextVar[float] = ContextVar("rmab_opt_overdue_due", default=inf)
"""Time of ``perf_counter`` at which the work at hand is given up."""


@contextmanager
def given_up_at(until: float) -> Iterator[None]:
    """Work inside is given up at a time of ``perf_counter``, or earlier where the work around it is.

    Raises
    ------
    OverdueError
        From within, at the first checkpoint after it.
    """
    token = _DUE.set(min(until, _DUE.get()))
    try:
        checkpoint()
        yield
    finally:
        _DUE.reset(token)


def seconds_left() -> float:
    """Until the work at hand is given up: infinite outside of :func:`given_up_at`, negative when it is over."""
    due = _DUE.get()
    return inf if due == inf else due - perf_counter()


def checkpoint() -> None:
    """Raise OverdueError when the work at hand is to be given up; loops whose steps take long pass here each time."""
    if _DUE.get() != inf and seconds_left() <= 0.0:
        raise OverdueError("the time was over", "give more seconds.")
