"""Policies that prove nothing: no action, random ones, the best of a sample, greedy by this round's reward."""

from __future__ import annotations

import numpy as np

from rmab_opt.decisions.chooser import Chooser
from rmab_opt.decisions.decision import Decision
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.objective import Immediate, Scores, Situation
from rmab_opt.decisions.policy import Greedy, policy, unproven


@policy("none")
class NoAction:
    """Acts on as few columns as the constraints allow: on none, where they allow that."""

    name = "none"

    def __init__(self, model: Model) -> None:
        self.model = model
        self._idle = np.zeros(len(model.actions), dtype=np.int64)
        if not model.actions.allows(self._idle):
            fewest = Scores(-np.ones(len(model.actions)))
            state = model.problem.sample_start(np.random.default_rng(0))
            self._idle = Chooser(model.problem, model.actions, fewest, model.solver).decide(state).action

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        return unproven(self.model, self._idle, state, period, self.name)


@policy("random")
class RandomAction:
    """A random allowed action, grown until nothing fits."""

    name = "random"

    def __init__(self, model: Model) -> None:
        self.model = model

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        return unproven(self.model, self.model.actions.sample(rng)[0], state, period, self.name)


@policy("sampling")
class Sampling:
    """The best of many random allowed actions by the round's expected reward."""

    name = "sampling"

    def __init__(self, model: Model, *, draws: int = 100) -> None:
        self.model, self.draws = model, draws

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        actions = self.model.actions.sample(rng, self.draws)
        situation = Situation(self.model.problem, self.model.actions.columns, state, period)
        values = Immediate().batch_value(actions, situation)
        return unproven(self.model, actions[int(np.argmax(values))], state, period, self.name)


@policy("iterative_myopic")
def _iterative_myopic(model: Model) -> Greedy:
    """The greedy baseline of the published comparisons, made to stop."""
    return Greedy(model, Immediate(), "iterative_myopic")
