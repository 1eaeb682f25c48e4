"""What a contract is made of: promises, each a named function over one case, and the error that names what broke."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

__all__ = ["ContractError", "Promise", "copied", "keep", "require", "same"]

Case = TypeVar("Case")
Copied = TypeVar("Copied")

Promise = Callable[[Any], None]
"""A function over one case; the first line of its docstring is what is promised."""


class ContractError(AssertionError):
    """A promise that does not hold; names the thing, the promise and what was found."""

    def __init__(self, thing: str, promise: str, found: str) -> None:
        self.thing, self.promise, self.found = thing, promise, found
        super().__init__(f"{thing} breaks a promise.\n  promise  {promise}\n  found    {found}")


class _Broken(Exception):
    """What :func:`require` found."""


def require(holds: object, found: str) -> None:
    """Say what was found, where something does not hold."""
    if not holds:
        raise _Broken(found)


def keep(thing: str, case: Case, promises: Iterable[Callable[[Case], None]]) -> None:
    """Hold a case to its promises, one after the other.

    Raises
    ------
    ContractError
        At the first that does not hold, or that ends in any other error than the promise allows.
    """
    for promise in promises:
        line = (promise.__doc__ or promise.__name__).strip().splitlines()[0].rstrip(".")
        said = f"{promise.__name__}: {line}"
        try:
            promise(case)
        except _Broken as broken:
            raise ContractError(thing, said, str(broken)) from None
        except Exception as error:
            raise ContractError(thing, said, f"{type(error).__name__}: {error}") from error


def copied(thing: Copied) -> Copied:
    """The thing after a trip to another process."""
    try:
        back: Copied = pickle.loads(pickle.dumps(thing))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise _Broken(f"does not pickle: {error}") from error
    return back


def same(first: Sequence[Any] | np.ndarray, second: Sequence[Any] | np.ndarray) -> bool:
    """Whether two arrays are equal to the last bit."""
    return bool(np.array_equal(np.asarray(first), np.asarray(second)))
