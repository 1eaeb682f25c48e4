"""Policies that lie about their decisions: nobody may believe them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmab_opt import Decision, Model
from rmab_opt.decisions.policy import make_policy


class Everything:
    """Chooses everything and claims that nothing is wrong with it."""

    name = "everything"

    def __init__(self, model: Model) -> None:
        self.model = model

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        made = make_policy("none", self.model).decide(state, period, rng)
        return forged(made, action=np.ones(len(self.model.actions), dtype=np.int64), violations={})


def forged(made: Decision, **change: Any) -> Decision:
    """A decision with fields changed, past whatever its maker would say."""
    copy = object.__new__(type(made))
    for name, value in {**made.__dict__, **change}.items():
        object.__setattr__(copy, name, value)
    return copy
