"""Policies for coupled arms by name."""

from __future__ import annotations

from typing import Any

from rmab_opt.decisions.model import Model
from rmab_opt.decisions.policy import Memory, Policy, policy
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.errors import CapabilityError
from rmab_opt.settings.coupled.within import best_assortment
from rmab_opt.settings.coupled.worlds import Assortment


@policy("best_assortment")
class BestAssortment(Policy):
    """The items with the largest expected revenue from this customer, by programs of scores under any constraints."""

    name = "best_assortment"

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._world: Any = model.problem.dynamics
        if not isinstance(self._world, Assortment):
            raise CapabilityError("an assortment", self._world, ("use a model of domain assortment", "use 'model'"))

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        return Proposal(best_assortment(self._world, question.actions, question.shared)[0]), memory
