"""Planning for a cohort that is closed in part, or has a season's total left: solved again each round."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Closed
from rmab_opt.decisions.chooser import Chooser
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.objective import Scores
from rmab_opt.decisions.policy import Memory, Policy, policy
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.planning.living import Course, LivingBound, first_gains, fits_exactly, living_bound, living_optimum
from rmab_opt.problem.dynamics import require_tabular

PRICED_SHARE = 0.4
"""Share of the time left that the prices of a round may take."""

TOLERANCE = 1e-6
"""Relative gap of the prices; scores change by less than a call's worth."""


@policy("living")
class Living(Policy):
    """Gains under prices of the rounds to come and of what is left of the season; exact where few arms are left.

    Pauses that end are known to it. An act whose gain is below what an act saved for later is worth is not taken.

    Parameters
    ----------
    again
        False keeps the first round's prices for the later rounds: quicker, and seldom much worse.
    """

    name = "living"

    def __init__(self, model: Model, *, again: bool = True) -> None:
        super().__init__(model)
        self.again = again
        dynamics: Any = model.problem.dynamics
        tables = getattr(dynamics, "frozen_tabular", None)
        found: tuple[np.ndarray, np.ndarray] = (
            require_tabular(dynamics, "policy 'living'") if tables is None else tables()
        )
        self.transition, self.reward = found
        self._shut = {name: c for name, c in model.actions.constraints.items() if isinstance(c, Closed)}
        self._most: dict[ActionSet, float] = {}

    def begin(self, rng: np.random.Generator) -> Memory:
        return None

    def course(
        self, belief: np.ndarray, period: int, shared: np.ndarray | None = None, *, limits: bool = True
    ) -> Course:
        """What lies ahead of a round, seen from beliefs (N, S); ``limits`` false leaves the rounds' limits at 0.

        Gains at given prices do not depend on the limits, and these are solved for.
        """
        problem, columns = self.model.problem, self.model.actions.columns
        rounds = problem.horizon - period
        open_ = np.ones((rounds, problem.n_arms), dtype=bool)
        for constraint in self._shut.values():
            for t in range(rounds):
                open_[t, [columns.arms.index(name) for name in constraint.shut_at(period + t)]] = False
        limit = np.array([self._largest(period + t, shared) if limits else 0.0 for t in range(rounds)])
        left = None if shared is None else float(shared[0])
        return Course(self.transition, self.reward, belief, rounds, limit, left, problem.discount, open_)

    def _largest(self, period: int, shared: np.ndarray | None) -> float:
        """Most acts of any allowed action, whoever is closed: an upper limit that holds in every round."""
        problem, actions = self.model.problem, self.model.actions
        kept = {name: c for name, c in actions.constraints.items() if name not in self._shut}
        if not kept:
            return float(problem.n_arms)
        bare = self.__dict__.setdefault("_bare", ActionSet(actions.columns, kept))
        # What is left of the season is a limit of its own; here its first value stands for it.
        now = bare.at(period, problem.shared_values(problem.start_shared))
        if now not in self._most:
            most = Scores(np.ones(len(actions)))
            state = np.zeros(problem.n_arms, dtype=np.int64)
            found = Chooser(problem, now, most, self.model.solver, many=False).decide(
                state, 0, shared=problem.start_shared
            )
            self._most[now] = float(np.floor(min(found.bound, len(actions)) + 1e-6))
        return self._most[now]

    def scored(
        self, belief: np.ndarray, period: int, shared: np.ndarray | None = None, *, seconds: float | None = None
    ) -> Scores:
        """Worth of each action over resting under beliefs (N, S), with the prices that it follows from, if any.

        The prices are those that are found in so many seconds.
        """
        course = self.course(belief, period, shared)
        # Preferences have prices in the reward's unit; the exact optimum's scores say only who is chosen.
        if fits_exactly(course) and not self.model.actions.preferences:
            acts = list(living_optimum(course).first()[1])
            columns = self.model.actions.columns
            if len(columns) == len(belief) and self.model.actions.at(
                period, self.model.problem.shared_values(shared)
            ).allows(np.isin(np.arange(len(belief)), acts).astype(np.int64)):
                scores = np.zeros((len(belief), 2))
                scores[:, 1] = np.where(np.isin(np.arange(len(belief)), acts), 1.0, -1.0)
                return Scores(scores)
        found = self.bound(belief, period, shared, seconds=seconds)
        return Scores(_finite(found.expected_gain(belief)), np.append(found.prices.ravel(), found.saved))

    def scored_at(self, prices: np.ndarray, belief: np.ndarray, period: int, shared: np.ndarray | None) -> Scores:
        """As :meth:`scored` from its prices, without a solver; ModelError when their number is another."""
        gains = first_gains(self.course(belief, period, shared, limits=False), prices)
        return Scores(_finite(np.einsum("cs,csa->ca", belief, gains)), prices)

    def bound(
        self, belief: np.ndarray, period: int, shared: np.ndarray | None = None, *, seconds: float | None = None
    ) -> LivingBound:
        """What no policy can exceed from beliefs (N, S), with the prices that prove it, found in so many seconds."""
        return living_bound(self.course(belief, period, shared), tolerance=TOLERANCE, seconds=seconds)

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        belief = np.eye(self.reward.shape[1])[question.state]
        seconds = None if question.deadline is None else PRICED_SHARE * question.left
        if self.again:
            return question.about(self.scored(belief, question.period, question.shared, seconds=seconds)), memory
        if memory is None:
            memory = (question.period, self.bound(belief, question.period, question.shared, seconds=seconds))
        begun, found = memory
        return question.about(Scores(_finite(found.expected_gain(belief, question.period - begun)))), memory


def _finite(gain: np.ndarray) -> np.ndarray:
    """Closed arms cannot be chosen anyway; a program takes no infinite score."""
    return np.where(np.isfinite(gain), gain, 0.0)
