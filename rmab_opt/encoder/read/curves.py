"""Smooth activations as linear pieces whose largest error is certified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit

from rmab_opt.errors import ModelError

__all__ = ["CURVES", "Curve", "Pieces", "pieces"]

Floats = NDArray[np.float64]

STEP = 1e-3
"""Grid on which errors are measured; between its points a curve's bend adds at most bend * STEP**2 / 8."""


@dataclass(frozen=True)
class Curve:
    """A function that is a line on either side, up to what vanishes, and bends no faster than ``bend`` in between."""

    name: str
    function: Callable[[Floats], Floats]
    bend: float
    """Largest absolute second derivative, kinks aside."""
    steepest: float
    """Largest absolute slope."""
    left: float = 0.0
    """Slope far to the left."""
    right: float = 0.0
    height_left: float = 0.0
    """Line far to the left: left * x + height_left."""
    height_right: float = 0.0
    kinks: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Pieces:
    """Points joined by lines, and the lines beyond the ends."""

    at: Floats
    height: Floats
    left: float
    right: float
    error: float
    """Largest distance from the curve anywhere."""

    def __call__(self, x: Floats) -> Floats:
        """Values of the pieces."""
        inner = np.interp(x, self.at, self.height)
        return inner + self.left * np.minimum(x - self.at[0], 0.0) + self.right * np.maximum(x - self.at[-1], 0.0)


def _elu(alpha: float = 1.0, scale: float = 1.0, width: float = 1.0) -> Curve:
    alpha, scale, width = float(alpha), float(scale), float(width)
    if not (alpha > 0 and scale > 0 and width > 0):
        raise ModelError(f"an ELU with alpha {alpha}", "use a positive alpha.")
    return Curve(
        "ELU",
        lambda x: scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0) / width)),
        scale * alpha / width**2,
        scale * max(1.0, alpha / width),
        right=scale,
        height_left=-scale * alpha,
        kinks=(0.0,),
    )


def _softplus(beta: float = 1.0) -> Curve:
    beta = float(beta)
    if not beta > 0:
        raise ModelError(f"a softplus with beta {beta}", "use a positive beta.")
    return Curve("Softplus", lambda x: np.logaddexp(0.0, beta * x) / beta, 0.25 * beta, 1.0, right=1.0)


def _gelu_tanh(x: Floats) -> Floats:
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


_MAKERS: dict[str, Callable[..., Curve]] = {
    "sigmoid": lambda: Curve("Sigmoid", expit, 0.0963, 0.25, height_right=1.0),
    "tanh": lambda: Curve("Tanh", np.tanh, 0.77, 1.0, height_left=-1.0, height_right=1.0),
    "softplus": _softplus,
    "logsigmoid": lambda: Curve("LogSigmoid", lambda x: -np.logaddexp(0.0, -x), 0.25, 1.0, left=1.0),
    "silu": lambda: Curve("SiLU", lambda x: x * expit(x), 0.5, 1.1, right=1.0),
    "gelu": lambda: Curve("GELU", lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))), 0.8, 1.13, right=1.0),
    # Its second derivative is at most 0.8 at zero, measured 0.7979; a margin is kept.
    "gelu_tanh": lambda: Curve("GELU", _gelu_tanh, 0.9, 1.14, right=1.0),
    # Its second derivative is at most 0.6443 (near -0.09), its slope 1.0885.
    "mish": lambda: Curve("Mish", lambda x: x * np.tanh(np.logaddexp(0.0, x)), 0.66, 1.1, right=1.0),
    "erf": lambda: Curve("Erf", erf, 0.97, 1.13, height_left=-1.0, height_right=1.0),
    "elu": _elu,
    "selu": lambda: _elu(1.6732632423543772, 1.0507009873554805),
    "celu": lambda alpha=1.0: _elu(alpha, 1.0, alpha),
    "hardswish": lambda: Curve(
        "Hardswish", lambda x: x * np.clip(x + 3, 0, 6) / 6, 1 / 3, 1.5, right=1.0, kinks=(-3.0, 3.0)
    ),
    "tanhshrink": lambda: Curve(
        "Tanhshrink", lambda x: x - np.tanh(x), 0.77, 1.0, left=1.0, right=1.0, height_left=1.0, height_right=-1.0
    ),
}
CURVES = {name: lru_cache(maxsize=64)(make) for name, make in _MAKERS.items()}
"""Name -> curve of its parameters; one object for the same parameters, so that its pieces are sought once."""


@lru_cache(maxsize=256)
def pieces(curve: Curve, accuracy: float) -> Pieces:
    """Lines that stay within ``accuracy`` of a curve everywhere, few of them.

    Raises
    ------
    ModelError
        When the accuracy is not between 1e-5 and 1.
    """
    if not 1e-5 <= accuracy <= 1:
        raise ModelError(f"smooth is {accuracy}", "give the largest error of an activation, 1e-5 to 1.")
    # Ends where the curve is within half the accuracy of its lines, chords as long as they may be in between.
    slack = curve.bend * STEP**2 / 8
    reach = 1.0
    while max(
        _off(curve, -reach, curve.left, curve.height_left), _off(curve, reach, curve.right, curve.height_right)
    ) > (accuracy / 2):
        reach *= 1.1
        if reach > 1e4:
            raise ModelError(f"{curve.name} does not settle to a line", "give a looser smooth=.")
    reach = max(reach, *(abs(kink) for kink in curve.kinks)) if curve.kinks else reach
    ends = {-reach: curve.left * -reach + curve.height_left, reach: curve.right * reach + curve.height_right}
    stops = sorted({-reach, reach, *curve.kinks})
    at, height = [-reach], [ends[-reach]]
    for stop in stops[1:]:
        while at[-1] < stop:
            at_next = _furthest(curve, at[-1], height[-1], stop, ends.get(stop), accuracy - slack)
            at.append(at_next)
            height.append(ends[stop] if at_next == stop and stop in ends else float(curve.function(np.array(at_next))))
    made = Pieces(np.array(at), np.array(height), curve.left, curve.right, accuracy)
    grid = np.arange(-reach - STEP, reach + 2 * STEP, STEP)
    inside = float(np.abs(made(grid) - curve.function(grid)).max()) + slack
    # Beyond the ends the distance shrinks, or has its last hump, within the reach that was tried.
    far = max(
        float(np.abs(made(x) - curve.function(x)).max())
        for x in (np.linspace(reach, reach + 30, 3001), np.linspace(-reach - 30, -reach, 3001))
    )
    return Pieces(made.at, made.height, curve.left, curve.right, max(inside, far + slack))


def _off(curve: Curve, x: float, slope: float, height: float) -> float:
    return abs(float(curve.function(np.array(x))) - slope * x - height)


def _furthest(curve: Curve, start: float, height: float, stop: float, fixed: float | None, accuracy: float) -> float:
    """The end of the longest chord from a point that stays within the accuracy, at most ``stop``."""

    def fits(end: float) -> bool:
        target = fixed if end == stop and fixed is not None else float(curve.function(np.array(end)))
        grid = np.linspace(start, end, max(3, int((end - start) / STEP) + 2))
        line = height + (target - height) * (grid - start) / (end - start)
        return bool(np.abs(curve.function(grid) - line).max() <= accuracy)

    if fits(stop):
        return stop
    low, high = min(start + 1e-3, stop), stop
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
