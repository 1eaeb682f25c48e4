"""The relaxed equity problem as it is handed to a solver: values of groups over expected state-action frequencies.

    maximise  z  with  z <= v_g for g in free          (a stage of max-min or leximin)
    or        sum_g w_g U(v_g)                         (alpha-fairness, Nash, the plain mean)
    subject to  v_g = past_g + (1 / n_g) sum of arm values in g,   v_g >= floor_g,   coupling rows in every round.

Two back-ends answer it: one linear program over all arms (:mod:`.program`), and prices on groups and resources with
one small program over the arms' policies (:mod:`.prices`). Both return values, multipliers and two-sided limits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmab_opt.planning.equity.welfare import Welfare

__all__ = ["Answer", "Stage"]


@dataclass(frozen=True, eq=False)
class Stage:
    """One concave program in the group values.

    Parameters
    ----------
    floors
        Least value of each group, (K,); -inf for none.
    free
        Groups whose smallest value is maximised, bool (K,); None for a sum.
    weights
        w_g of the sum, (K,).
    welfare
        U of the sum; alpha 0 makes it linear.
    """

    floors: np.ndarray
    free: np.ndarray | None = None
    weights: np.ndarray | None = None
    welfare: Welfare | None = None

    @property
    def curved(self) -> bool:
        """Whether the objective bends, so that tangents are needed."""
        return self.welfare is not None and self.welfare.alpha > 0

    def objective(self, values: np.ndarray) -> float:
        """Objective of group values."""
        if self.free is not None:
            return float(values[self.free].min())
        assert self.weights is not None
        assert self.welfare is not None
        return float(self.weights @ self.welfare.each(values))


@dataclass(frozen=True, eq=False)
class Answer:
    """Solution of a stage.

    ``values`` (K,) can be attained by the relaxation; ``lower`` is their objective, ``upper`` no plan exceeds.
    ``share`` (K,) are the objective's multipliers of the groups (they sum to one for max-min), ``floor_price`` (K,)
    those of the floors, ``prices`` (T, R) those of the coupling rows in the round's own units. ``use`` (T, K) is the
    expected number of arms of each group acted on.
    """

    values: np.ndarray
    lower: float
    upper: float
    share: np.ndarray
    floor_price: np.ndarray
    prices: np.ndarray
    use: np.ndarray
    rounds: int

    @property
    def weights(self) -> np.ndarray:
        """Worth of one unit of each group's mean value, (K,)."""
        return self.share + self.floor_price
