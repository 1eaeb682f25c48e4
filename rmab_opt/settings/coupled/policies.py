"""Policies for coupled arms by name."""

from __future__ import annotations

from typing import Any

from rmab_opt.decisions.model import Model
from rmab_opt.decisions.policy import Memory, Policy, policy
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.errors import CapabilityError
from rmab_opt.planning.mean_field import MeanField
from rmab_opt.settings.coupled.within import WithinRound, best_assortment
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


@policy("planned_round")
class PlannedRound(Policy):
    """The exact program of the round in which arriving well counts what `mean_field` says of the rounds to come, too.

    For models whose objective is the round's own program (`held_sessions`, `crowded_visits`).
    """

    name = "planned_round"

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        if not isinstance(model.objective, WithinRound) or not model.objective.planned_by:
            raise CapabilityError(
                "a round's own program as objective", model.objective, ("declare one", "use 'mean_field'")
            )
        self._kind = type(model.objective)
        self._planner = MeanField(model.problem, model.actions)

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        problem: Any = self.model.problem
        ahead = problem.discount * self._planner.plan(question.state, question.period, question.shared).values[1]
        return question.about(self._kind(problem.dynamics.worth + ahead[:, 1] - ahead[:, 0])), memory
