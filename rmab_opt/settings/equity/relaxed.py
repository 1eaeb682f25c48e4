"""The relaxed equity problem as it is handed to a solver: values of groups over expected state-action frequencies.

    maximise  z  with  z <= v_g for g in free          (a stage of max-min or leximin)
    or        sum_g w_g U(v_g)                         (alpha-fairness, Nash, the plain mean)
    subject to  v_g = past_g + (1 / n_g) sum of arm values in g,   v_g >= floor_g,   coupling rows in every round,
                Gini(v) <= ceiling,   v_g >= ratio v_h.

Two back-ends answer it: one linear program over all arms (:mod:`.program`), and prices on groups and resources with
one small program over the arms' policies (:mod:`.prices`). Both return values, multipliers and two-sided limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
from scipy import sparse

from rmab_opt.errors import ModelError
from rmab_opt.settings.equity.welfare import Welfare

__all__ = ["Answer", "Spread", "Stage"]


class Spread:
    """Limits on how unequal group values may be, as rows  matrix @ (v, d) >= 0  with d >= 0 for every pair of groups.

    Parameters
    ----------
    n_groups
        K.
    gini
        Ceiling on the Gini coefficient: d_gh >= |v_g - v_h| and sum_{g<h} d_gh <= gini K sum_g v_g, linear as the
        mean is.
    ratio
        Least ratio of any group's value to any other's.

    Raises
    ------
    ModelError
        When a limit is outside [0, 1].
    """

    def __init__(self, n_groups: int, gini: float | None = None, ratio: float | None = None) -> None:
        for name, limit in (("gini", gini), ("ratio", ratio)):
            if limit is not None and not 0.0 <= limit <= 1.0:
                raise ModelError(f"{name} is {limit}", "give a number in [0, 1].")
        pairs = list(combinations(range(n_groups), 2)) if gini is not None else []
        self.n_groups, self.n_pairs = n_groups, len(pairs)
        self.ceiling = gini is not None
        """Whether the last row is the ceiling."""
        rows = []
        for low, high in permutations(range(n_groups), 2) if ratio is not None else ():
            row = np.zeros(n_groups + len(pairs))
            row[low], row[high] = 1.0, -float(ratio or 0.0)
            rows.append(row)
        for number, (g, h) in enumerate(pairs):
            for sign in (1.0, -1.0):
                row = np.zeros(n_groups + len(pairs))
                row[g], row[h], row[n_groups + number] = sign, -sign, 1.0
                rows.append(row)
        if gini is not None:
            rows.append(np.concatenate([np.full(n_groups, gini * n_groups), -np.ones(len(pairs))]))
        self.matrix = sparse.csr_array(np.array(rows).reshape(len(rows), n_groups + len(pairs)))

    def tilt(self, price: np.ndarray) -> np.ndarray:
        """What prices of the rows add to the groups' weights, (K,); made valid where rounding left them invalid."""
        price = np.maximum(price, 0.0)
        if self.n_pairs:
            # Any price of the sum above those of its pairs proves a limit; rounding may leave it just below.
            pairs = self.matrix[:-1, self.n_groups :].T @ price[:-1]
            price[-1] = max(price[-1], float(pairs.max(initial=0.0)))
        return self.matrix[:, : self.n_groups].T @ price


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
    those of the floors, ``tilt`` (K,) what limits on inequality add, ``prices`` (T, R) those of the coupling rows in
    the round's own units. ``use`` (T, K) is the expected number of arms of each group acted on.
    """

    values: np.ndarray
    lower: float
    upper: float
    share: np.ndarray
    floor_price: np.ndarray
    tilt: np.ndarray
    prices: np.ndarray
    use: np.ndarray
    rounds: int

    @property
    def weights(self) -> np.ndarray:
        """Worth of one unit of each group's mean value, (K,); below zero where a limit on inequality holds it down."""
        return self.share + self.floor_price + self.tilt
