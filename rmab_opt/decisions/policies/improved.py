"""Policy improvement by simulation as a policy: ``improve:BASE``."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from rmab_opt.decisions.model import Model
from rmab_opt.decisions.policy import Memory, Policy, make_policy, policy
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.planning.improve import Rollouts, base_rule, improve, rollouts_of


@policy("improve")
class Improve(Policy):
    """One step of improvement on a base rule by roll-outs that meet the same chance, under any constraints.

    Parameters
    ----------
    base
        ``myopic``, ``none`` or a rule: ``hand``, ``mean_field``, ``lagrangian``; on contact graphs
        ``lookahead_priced``, ``lookahead_cascade`` or ``myopic_cascade``. By default the one that the dynamics name,
        else ``myopic``.
    draws
        Roll-outs an arm.
    keep
        Standard errors by which an action must beat the base's.
    seconds
        A decision's roll-outs end with the best found so far; 0 for no limit.
    """

    name = "improve"

    def __init__(
        self, model: Model, *, base: str = "", draws: int = 32, keep: float = 1.0, seconds: float = 0.0
    ) -> None:
        super().__init__(model)
        self.base = base or getattr(model.problem.dynamics, "usual_base", "myopic")
        self.draws, self.keep, self.seconds = draws, keep, seconds
        self._fixed: Rollouts | None = None
        # A policy that the dynamics bring on arrays says its own action of the round itself, as sharp as ever.
        brings = getattr(model.problem.dynamics, "batch_rule", None)
        sharp = callable(brings) and brings(model.problem, model.actions, self.base) is not None
        self._sharp = make_policy(self.base, model) if sharp else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fixed": None}

    def _rollouts(self, state: np.ndarray | None, period: int, shared: np.ndarray | None) -> Rollouts:
        problem, actions = self.model.problem, self.model.actions
        return rollouts_of(problem, actions, base_rule(problem, actions, self.base, state, period, shared))

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        state, period, shared = question.state, question.period, question.shared
        # A plan around the means is made anew from where the round stands; other rules stand once made.
        rollouts = self._fixed or self._rollouts(state, period, shared)
        if not self.base.startswith("mean_field"):
            self._fixed = rollouts
        until = perf_counter() + (self.seconds or np.inf)
        if question.deadline is not None:
            until = min(until, question.deadline)
        own = None if self._sharp is None else self._sharp.decide(state, period, shared=shared).action
        found = improve(
            rollouts, question.actions, state, period, shared, self.draws, memory, keep=self.keep, base=own, until=until
        )
        said = (
            f"beats that of {self.base} by {found.gain:.4g} +- {found.error:.2g} (s.e.), {found.draws} roll-outs"
            if found.gain
            else f"is that of {self.base}: nothing beat it in {found.draws} roll-outs"
        )
        return replace(Proposal(found.action, by=f"improve:{self.base}"), remarks={"action": said}), memory
