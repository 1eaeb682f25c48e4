"""What makes one set of group values fairer than another: concave welfare functions of the per-arm group means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.problem.table import nearest
from rmab_opt.settings.equity.groups import Groups

__all__ = ["WELFARES", "Welfare", "gini"]

LEAST_VALUE = 1e-9
"""Group values below this count as this much where a logarithm or a power needs a positive number."""


@dataclass(frozen=True)
class Welfare:
    """W(v_1, ..., v_K), concave and non-decreasing, of the group means v_g.

    Parameters
    ----------
    name
        For reports.
    kind
        ``max_min`` (the worst group), ``leximin`` (the worst, then the second worst, ...), or ``alpha``:
        sum_g w_g v_g^(1 - alpha) / (1 - alpha); alpha 0 is the plain mean, 1 is Nash welfare sum_g w_g log v_g.
    alpha
        Inequality aversion, at least 0.
    by_size
        Whether w_g is the group's share of the arms, or 1 for every group.
    """

    name: str
    kind: str
    alpha: float = 0.0
    by_size: bool = True

    def __post_init__(self) -> None:
        if self.kind not in ("max_min", "leximin", "alpha") or not 0.0 <= self.alpha < np.inf:
            raise ModelError(f"welfare {self.kind!r} with alpha {self.alpha}", "use max_min, leximin or alpha >= 0.")

    @classmethod
    def of(cls, given: str | float | Welfare) -> Welfare:
        """A welfare by name, or alpha-fairness weighted by size from a number."""
        if isinstance(given, Welfare):
            return given
        if isinstance(given, str):
            if given not in WELFARES:
                raise ModelError(f"no welfare {given!r}", nearest(given, list(WELFARES)))
            return WELFARES[given]
        return cls(f"alpha {given:g}", "alpha", float(given))

    @property
    def lowest_first(self) -> bool:
        """Whether only the order of the groups' values counts."""
        return self.kind != "alpha"

    def weights(self, groups: Groups) -> np.ndarray:
        """w_g, (K,)."""
        return groups.sizes / groups.sizes.sum() if self.by_size else np.ones(len(groups))

    def each(self, values: np.ndarray) -> np.ndarray:
        """v^(1 - alpha) / (1 - alpha), elementwise, or the logarithm."""
        if self.alpha == 0.0:
            return np.asarray(values, dtype=float)
        values = np.maximum(values, LEAST_VALUE)
        return np.log(values) if self.alpha == 1.0 else values ** (1.0 - self.alpha) / (1.0 - self.alpha)

    def slope(self, values: np.ndarray) -> np.ndarray:
        """Derivative of :meth:`each`."""
        return np.maximum(values, LEAST_VALUE) ** -self.alpha if self.alpha else np.ones_like(values, dtype=float)

    def inverse_slope(self, slopes: np.ndarray) -> np.ndarray:
        """Values at which :meth:`slope` is the given one; alpha above 0."""
        return np.maximum(slopes, 1e-300) ** (-1.0 / self.alpha)

    def value(self, values: np.ndarray, groups: Groups) -> float:
        """W of group means (K,); the smallest one for ``max_min`` and ``leximin``."""
        if self.lowest_first:
            return float(np.min(values))
        return float(self.weights(groups) @ self.each(values))


WELFARES = {
    "utilitarian": Welfare("utilitarian", "alpha", 0.0),
    "nash": Welfare("nash", "alpha", 1.0),
    "nash_groups": Welfare("nash_groups", "alpha", 1.0, by_size=False),
    "max_min": Welfare("max_min", "max_min"),
    "leximin": Welfare("leximin", "leximin"),
}
"""Welfare functions by name; ``nash`` weighs groups by size, ``nash_groups`` does not and favours small groups."""


def gini(values: np.ndarray) -> np.ndarray | float:
    """Gini coefficient of group means (..., K): sum_gh |v_g - v_h| / (2 K^2 mean), the mean over the K groups.

    All groups count alike; the plain definition, with one denominator everywhere. 0 where all means are 0.
    """
    values = np.asarray(values, dtype=float)
    spread = np.abs(values[..., :, None] - values[..., None, :]).sum(axis=(-1, -2))
    mean = values.mean(axis=-1)
    size = values.shape[-1]
    result = spread / (2.0 * size * size * np.where(mean == 0.0, 1.0, mean))
    return np.where(mean == 0.0, 0.0, result) if values.ndim > 1 else float(0.0 if mean == 0.0 else result)
