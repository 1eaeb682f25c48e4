"""What somebody who waits sees of a running solve, and how they stop it with the best so far kept."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Progress"]


@dataclass(eq=False)
class Progress:
    """Value and bound as they move, from the thread that solves; :meth:`stop` from any other.

    Called, it says whether to stop: it serves wherever a solve takes an ``interrupt``. A decision that was stopped is
    the best that was found by then, with the bound that was proven of it and the status ``limit``.
    """

    value: float = -np.inf
    """Best found so far, in the objective's own unit."""
    bound: float = np.inf
    """What nothing exceeds, as the solver says so far."""
    size: float = 1.0
    base: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _above: Progress | None = field(default=None, repr=False)

    def __call__(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        """Let the solve end with what it has."""
        self._stop.set()

    def saw(self, value: float, bound: float) -> None:
        """What the solver says, in its own unit; numbers above 1e20 are none."""
        if self._above is not None:
            self._above.saw(value * self.size + self.base, bound * self.size + self.base)
        elif np.isfinite(value) and abs(value) < LARGE:
            self.value = max(self.value, float(value))
        if self._above is None and np.isfinite(bound) and abs(bound) < LARGE:
            self.bound = min(self.bound, float(bound))

    def in_unit(self, size: float, base: float) -> Progress:
        """The same watch for a solve in which value = base + size * what it sees."""
        return Progress(size=size, base=base, _stop=self._stop, _above=self)


LARGE = 1e20
