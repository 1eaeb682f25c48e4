"""What was read held against the framework's own forward pass, always, before anybody uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmab_opt.encoder.read.tape import Tape
from rmab_opt.errors import ModelError

__all__ = ["Box", "compare", "finite", "spread"]

Floats = NDArray[np.float64]
Box = tuple[ArrayLike, ArrayLike]
"""Lower and upper ends of the inputs, numbers or one an input."""

POINTS = 64
"""Inputs at which every network is compared when it is read."""


def spread(n: int, box: Box | None) -> Floats:
    """64 points (64, n): a quarter corners of the box, the rest inside; without a box [-1, 1]^n and normal draws."""
    rng = np.random.default_rng(n)
    low, high = (-1.0, 1.0) if box is None else box
    low, high = (np.broadcast_to(np.asarray(end, dtype=np.float64), (n,)) for end in (low, high))
    if not (np.isfinite(low) & np.isfinite(high) & (low <= high)).all():
        raise ModelError("the declared box has ends that are infinite or crossed", "give finite lower <= upper.")
    count = POINTS // 4
    corner = rng.random((count, n)) < 0.5
    corner[0], corner[1] = False, True
    if 2**n <= count:
        corner = (np.arange(count)[:, None] % 2**n >> np.arange(n)) % 2 == 1
    inside = low + (high - low) * rng.random((POINTS - count, n))
    if box is None:
        # Normal draws of growing size meet clamps and far pieces that the unit box does not reach.
        inside[count:] = (
            rng.normal(size=(POINTS - 2 * count, n)) * np.repeat([1.0, 10.0], [count, POINTS - 3 * count])[:, None]
        )
    return np.concatenate([np.where(corner, high, low), inside])


def finite(given: Floats) -> None:
    """Refuse what a framework cannot compute with: weights that are no numbers, sums that overflow."""
    if not np.isfinite(given).all():
        raise ModelError("the model's output is not a finite number", "check its weights and the inputs' bounds.")


def compare(
    tape: Tape,
    result: Any,
    points: Floats,
    given: Floats,
    steps: Callable[[], Iterable[tuple[str, Any, Floats]]],
    relative: float,
) -> None:
    """Raise when the framework's output differs from what was read.

    Parameters
    ----------
    result
        The value read, before one of its numbers is chosen.
    given
        The framework's outputs at ``points``, (P, size).
    steps
        Called on a difference: (name, value read, framework's numbers (P, size)) of every step, in order.
    relative
        Rounding allowed, relative to the largest sum of terms in the network.

    Raises
    ------
    ModelError
        At a difference; names the first step that differs.
    """
    finite(given)
    reached = tape.evaluate(points)
    allowed = relative * tape.mass(reached)
    off = _worst(tape, result, reached, given, allowed)
    if off is None:
        return
    for name, value, numbers in steps():
        found = _worst(tape, value, reached, numbers, allowed)
        if found is not None:
            raise ModelError(
                f"{name} was read as something else: it differs from the framework's own forward pass by {found:.3g}",
                "leave it out, or give the weights by Network.from_arrays.",
            )
    raise ModelError(
        f"the network read differs from the framework's own forward pass by {off:.3g}, though no single layer does: "
        "a hook, a branch or a state that its graph does not show",
        "give the weights by Network.from_arrays.",
    )


def _worst(tape: Tape, value: Any, reached: list[Floats], given: Floats, allowed: float) -> float | None:
    """The largest difference; None when it is allowed."""
    mine = tape.numbers(value, reached).reshape(len(reached[0]), -1)
    if mine.shape != given.shape:
        return float("inf")
    inner = getattr(value, "value", value)
    error = tape.error(inner)
    error = np.full(mine.shape[1], error.max(initial=0.0)) if inner is not value else error
    off = np.abs(mine - given)
    bad = ~(off <= allowed + error)
    return (
        float(np.nanmax(np.where(bad, off, 0.0)))
        if bad.any() and not np.isnan(off).all()
        else (float("nan") if bad.any() else None)
    )
