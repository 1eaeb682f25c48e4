"""Policies that prove nothing: no action, random ones, the best of a sample, greedy by this round's reward."""

from __future__ import annotations

import numpy as np

from rmab_opt.decisions.chooser import Chooser
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.objective import Immediate, Scores
from rmab_opt.decisions.policy import Greedy, Memory, Policy, policy
from rmab_opt.decisions.question import Proposal, Question


@policy("none")
class NoAction(Policy):
    """Acts on as few columns as the constraints allow: on none, where they allow that."""

    name = "none"

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._idle = np.zeros(len(model.actions), dtype=np.int64)
        self.blind = not model.actions.open_constraints
        if not model.actions.open_constraints and not model.actions.allows(self._idle):
            fewest = Scores(-np.ones(len(model.actions)))
            state = model.problem.sample_start(np.random.default_rng(0))
            self._idle = Chooser(model.problem, model.actions, fewest, model.solver).decide(state).action

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        if self.model.actions.open_constraints and not question.actions.allows(self._idle):
            return question.about(Scores(-np.ones(len(question.actions)))), memory
        return Proposal(self._idle), memory


@policy("random")
class RandomAction(Policy):
    """A random allowed action, grown until nothing fits."""

    name = "random"

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        return Proposal(question.actions.sample(memory, until=question.until)[0]), memory


@policy("sampling")
class Sampling(Policy):
    """The best of many random allowed actions by the round's expected reward."""

    name = "sampling"

    def __init__(self, model: Model, *, draws: int = 100) -> None:
        super().__init__(model)
        self.draws = draws

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        actions = question.actions.sample(memory, self.draws, until=question.until)
        values = question.objective.batch_value(actions, question.situation)
        fewer = {"draws": f"{len(actions)} of {self.draws}, the time was over"} if len(actions) < self.draws else {}
        return Proposal(actions[int(np.argmax(values))], remarks=fewer), memory


@policy("iterative_myopic")
def _iterative_myopic(model: Model) -> Greedy:
    """The greedy baseline of the published comparisons, made to stop."""
    return Greedy(model, Immediate(), "iterative_myopic")
