"""Policy improvement by simulation as a policy: ``improve:BASE``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rmab_opt.decisions.model import Model
from rmab_opt.decisions.policy import Memory, Policy, policy
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.planning.improve import Rollouts, base_rule, improve


@policy("improve")
class Improve(Policy):
    """One step of improvement on a base rule by roll-outs that meet the same chance, under any constraints.

    Parameters
    ----------
    base
        ``myopic``, ``none`` or a rule: ``hand``, ``mean_field``, ``lagrangian``.
    draws
        Roll-outs an arm.
    keep
        Standard errors by which an action must beat the base's.
    """

    name = "improve"

    def __init__(self, model: Model, *, base: str = "myopic", draws: int = 32, keep: float = 1.0) -> None:
        super().__init__(model)
        self.base, self.draws, self.keep = base, draws, keep
        self._fixed: Rollouts | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fixed": None}

    def _rollouts(self, state: np.ndarray | None, period: int, shared: np.ndarray | None) -> Rollouts:
        problem, actions = self.model.problem, self.model.actions
        return Rollouts(problem, actions, base_rule(problem, actions, self.base, state, period, shared))

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        state, period, shared = question.state, question.period, question.shared
        # A plan around the means is made anew from where the round stands; other rules stand once made.
        rollouts = self._fixed or self._rollouts(state, period, shared)
        if not self.base.startswith("mean_field"):
            self._fixed = rollouts
        found = improve(rollouts, question.actions, state, period, shared, self.draws, memory, keep=self.keep)
        said = (
            f"beats that of {self.base} by {found.gain:.4g} +- {found.error:.2g} (s.e.), {found.draws} roll-outs"
            if found.gain
            else f"is that of {self.base}: nothing beat it in {found.draws} roll-outs"
        )
        return replace(Proposal(found.action, by=f"improve:{self.base}"), remarks={"action": said}), memory
