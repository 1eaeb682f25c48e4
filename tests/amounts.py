"""How much of a kind a test tries: few where the quick suite runs, all of it where slow tests run too."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")
QUICK = False
"""Set by conftest: whether slow tests are left out."""


def amount(quick: T, full: T) -> T:
    """``quick`` in the quick suite; ``full`` by ``make test-all``, and where a test is run by itself."""
    return quick if QUICK else full
