"""What a plan of visits counts: exact gains or published indices, and how far after the period beliefs count."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.settings.inspection.beliefs import EncodedArms
from rmab_opt.settings.inspection.indices import EncodedIndices, encoded_indices, exact_gains

__all__ = ["INDEX_DISCOUNT", "VisitWeights"]

INDEX_DISCOUNT = 0.99
"""Per slot, inside index computation only; the published value. Rewards are plain sums."""


@dataclass(frozen=True)
class VisitWeights:
    """How visits are weighed.

    Parameters
    ----------
    kind
        ``gain``: reward gained until the period's end (and ``beyond`` slots more). ``index``: Whittle index of the
        arm in that slot, left alone until then: the published weight.
    beyond
        Slots after the period whose beliefs count too.

    Raises
    ------
    ModelError
        When the kind is unknown or ``beyond`` negative.
    """

    kind: Literal["gain", "index"] = "gain"
    beyond: int = 0
    _indices: list[tuple[EncodedArms, EncodedIndices]] = field(default_factory=list, repr=False, compare=False)
    """Of the arms asked about last: a cache, shared with copies that reach further."""

    def __post_init__(self) -> None:
        if self.kind not in ("gain", "index"):
            raise ModelError(f"weights is {self.kind!r}", "use 'gain' or 'index'.")
        if self.beyond < 0:
            raise ModelError(f"beyond is {self.beyond}", "give a whole number of slots, at least 0.")

    def reaching(self, beyond: int) -> VisitWeights:
        """The same weights felt for so many slots after the period; what was computed is shared."""
        return VisitWeights(self.kind, beyond, self._indices)

    def table(self, arms: EncodedArms, state: np.ndarray) -> np.ndarray:
        """Weight of every arm in every slot of the rest of the period, (N, T)."""
        age, slots, _ = arms.decode(state)
        slot = int(slots[0])
        if self.kind == "gain":
            return exact_gains(arms.chains, age, arms.n_slots, slot=slot, beyond=self.beyond)
        if not self._indices or self._indices[0][0] is not arms:
            self._indices[:] = [(arms, encoded_indices(arms.chains, arms.windows, INDEX_DISCOUNT, verdict=False))]
        weights = np.zeros((arms.n_arms, arms.n_slots))
        for t in range(slot, arms.n_slots):
            weights[:, t] = self._indices[0][1].at(np.minimum(age + t - slot, arms.chains.length - 1), t, 0)
        return weights
