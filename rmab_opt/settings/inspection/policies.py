"""Inspection policies by name: slot by slot, for simulation and tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from scipy import sparse

from rmab_opt.decisions.model import Model
from rmab_opt.decisions.objective import Scores
from rmab_opt.decisions.policy import Memory, Policy, policy
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError
from rmab_opt.settings.inspection.beliefs import EncodedArms, encoded_arms
from rmab_opt.settings.inspection.choose import best_walks
from rmab_opt.settings.inspection.indices import encoded_indices, free_indices
from rmab_opt.settings.inspection.kinds import Rows
from rmab_opt.settings.inspection.periods import Horizon
from rmab_opt.settings.inspection.weights import INDEX_DISCOUNT, VisitWeights


def best_first(score: np.ndarray, allowed: np.ndarray, risk: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` allowed arms by score, ties by larger risk, then by position; bool (N,)."""
    order = np.lexsort((np.arange(len(score)), -risk, -score, ~allowed))[: max(0, most)]
    chosen = np.zeros(len(score), dtype=bool)
    chosen[order] = True
    return chosen & allowed


class SlotRule(Policy):
    """Arms by a score, slot after slot: as many as the constraints allow.

    Parameters
    ----------
    score
        ``score(state, rng)``, (N,): higher first.
    masked
        Whether only arms are chosen on which an inspection has an effect now.
    fill
        Whether arms of score 0 and below are chosen while there is room.
    """

    def __init__(
        self,
        model: Model,
        name: str,
        score: Callable[[np.ndarray, np.random.Generator], np.ndarray],
        *,
        masked: bool = True,
        fill: bool = True,
    ) -> None:
        super().__init__(model, name)
        self.score, self.masked, self.fill = score, masked, fill
        self.arms = encoded_arms(model.problem.dynamics, f"policy {name!r}")

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        """The best allowed arms; a question about the scores where more than a budget is declared."""
        state = question.state
        allowed = self.arms.eligible(state) if self.masked else np.ones(self.arms.n_arms, dtype=bool)
        score = self.score(state, memory)
        if not self.fill:
            allowed = allowed & (score > 0)
        count = question.actions.shape.count
        if count is not None and count[0] == 0:
            chosen = best_first(score, allowed, 1 - self.arms.belief(state), count[1])
            return Proposal(chosen.astype(np.int64)), memory
        lift = (1.0 - min(0.0, float(score.min()))) if self.fill else 0.0
        worth = np.where(allowed, score + lift, -1.0)
        return question.about(Scores(question.actions.columns.effect @ worth)), memory


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is left of a plan, bool (N, slots left), and the state that it foresees for the round ``period``."""

    visits: np.ndarray
    period: int
    state: bytes

    def holds(self, state: np.ndarray, period: int) -> bool:
        """Whether everything came as foreseen."""
        return self.period == period and self.state == state.tobytes()


class Lookahead(Policy):
    """Plans ahead when a plan is done, or when the state is not the one foreseen, and follows the plan.

    The constraints of one slot's action hold in every slot of the plan; visits are limited by the windows' allowances.
    A plan is one program of walks, so several visits of one arm are worth what they earn together.

    Parameters
    ----------
    weights
        ``gain``: what the visits earn; ``index``: Whittle index of the arm left alone until then (published).
    once
        Whether every window must get a visit.
    periods
        Periods planned ahead, the one that has begun included; None for all that are left.
    """

    def __init__(
        self, model: Model, name: str = "lookahead", *, weights: Literal["gain", "index"] = "index",
        once: bool = False, periods: int | None = 1,
    ) -> None:  # fmt: skip
        super().__init__(model, name)
        self.once, self.periods, self.weights = once, periods, VisitWeights(weights)
        self.arms = encoded_arms(model.problem.dynamics, f"policy {name!r}")
        if periods is not None and periods < 1:
            raise ModelError(f"policy {name!r}: periods is {periods}", "give at least 1.")
        if model.actions.structured:
            raise CapabilityError(
                "a slot's action without auxiliary variables", model.actions,
                ("use the policy 'time_constrained'", "plan without rosters"),
            )  # fmt: skip
        # Episodes that stand alike share a plan; the cache holds one round's and changes no answer.
        self._planned: tuple[int, dict[bytes, np.ndarray]] = (-1, {})

    def begin(self, rng: np.random.Generator) -> Memory:
        return None

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        """The plan's next slot; planned anew where it ends and when the state is not the one foreseen."""
        state, period = question.state, question.period
        follows = isinstance(memory, _Plan) and memory.visits.shape[1] > 0 and memory.holds(state, period)
        plan = memory.visits if follows else self._plan_of(state, period)
        visits = plan[:, 0]
        action = (question.actions.columns.effect @ visits.astype(float) > 0).astype(np.int64)
        return Proposal(action), _Plan(plan[:, 1:], period + 1, self.arms.move(state, visits).tobytes())

    def _plan_of(self, state: np.ndarray, period: int) -> np.ndarray:
        if self._planned[0] != period:
            self._planned = (period, {})
        known = self._planned[1]
        if state.tobytes() not in known:
            known[state.tobytes()] = self.plan(state, period)
        return known[state.tobytes()]

    def plan(self, state: np.ndarray, period: int) -> np.ndarray:
        """Visits of the slots planned ahead, the present one first, bool (N, H)."""
        arms, left = self.arms, self.model.problem.horizon - period
        age, slots, used = arms.decode(state)
        slot, n_slots = int(slots[0]), arms.n_slots
        # What comes after the horizon earns nothing and must not draw visits to it.
        length = max(1, left if self.periods is None else min(left, n_slots * self.periods - slot))
        # Beliefs go on after the plan, as far as the horizon does and an inspection is felt.
        beyond = int(np.clip(left - length, 0, n_slots))
        ahead = Horizon(arms, length, slot, age, used, self.once)
        table = None
        if self.weights.kind == "index":
            table = self.weights.table(arms, state)[:, (np.arange(length) + slot) % n_slots]
        plain = self.model.actions.plain_rows
        per_arm = sparse.csr_array(plain.matrix @ self.model.actions.columns.effect)
        task = ahead.task(Rows(per_arm, plain.lower, plain.upper, []), table=table, beyond=beyond)
        found = best_walks(task, self.model.solver)
        if found is None:
            most = self.model.actions.shape.at_most
            lack = None if most is None else ahead.shortage(np.full(length, float(most)))
            raise lack or InfeasibleError(
                f"no plan from slot {slot} on satisfies the slots' constraints",
                "relax them, or do not require every visit.",
            )
        return ahead.visits(found, task)


# Scores by functions with names, so that policies travel to worker processes.
def _at_random(state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.random(state.shape)


def _risk(arms: EncodedArms, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(1.0 - arms.belief(state))


def _unwindowed(arms: EncodedArms, table: np.ndarray, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    found: np.ndarray = table[np.arange(arms.n_arms), np.minimum(arms.decode(state)[0], table.shape[1] - 1)]
    return found


def _windowed(arms: EncodedArms, indices: Any, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    age, slots, used = arms.decode(state)
    return np.asarray(indices.at(age, int(slots[0]), used))


@policy("random_eligible")
def _random_eligible(model: Model) -> SlotRule:
    """Arms whose window is open, at random."""
    return SlotRule(model, "random_eligible", _at_random)


@policy("risk_first")
def _risk_first(model: Model) -> SlotRule:
    """Arms whose window is open, those most likely to be bad first."""
    return SlotRule(model, "risk_first", partial(_risk, encoded_arms(model.problem.dynamics, "policy 'risk_first'")))


@policy("whittle_unwindowed")
def _whittle_unwindowed(model: Model) -> SlotRule:
    """Whittle indices that know of no windows."""
    arms = encoded_arms(model.problem.dynamics, "policy 'whittle_unwindowed'")
    score = partial(_unwindowed, arms, free_indices(arms.chains, INDEX_DISCOUNT))
    return SlotRule(model, "whittle_unwindowed", score, masked=False)


def _time_constrained(model: Model, *, fill: bool) -> SlotRule:
    arms = encoded_arms(model.problem.dynamics, "policy 'time_constrained'")
    indices = encoded_indices(arms.chains, arms.windows, INDEX_DISCOUNT, verdict=False)
    return SlotRule(model, "time_constrained", partial(_windowed, arms, indices), fill=fill)


@policy("time_constrained")
def _time_constrained_full(model: Model) -> SlotRule:
    """Window-aware Whittle indices; arms of index 0 and below fill what room is left."""
    return _time_constrained(model, fill=True)


@policy("time_constrained_useful")
def _time_constrained_useful(model: Model) -> SlotRule:
    """Window-aware Whittle indices; nobody is visited at no gain."""
    return _time_constrained(model, fill=False)


@policy("lookahead")
def _lookahead(model: Model) -> Lookahead:
    """The published plan of a period by indices, followed until the state differs."""
    return Lookahead(model, "lookahead")


@policy("lookahead_once")
def _lookahead_once(model: Model) -> Lookahead:
    """The same with a visit in every window."""
    return Lookahead(model, "lookahead_once", once=True)


@policy("lookahead_gain")
def _lookahead_gain(model: Model) -> Lookahead:
    """The plan of a period by exact gains."""
    return Lookahead(model, "lookahead_gain", weights="gain")


@policy("lookahead_gain_once")
def _lookahead_gain_once(model: Model) -> Lookahead:
    """The same with a visit in every window."""
    return Lookahead(model, "lookahead_gain_once", weights="gain", once=True)


@policy("lookahead_periods")
def _lookahead_periods(model: Model, *, periods: int | None = None) -> Lookahead:
    """The exact plan over several periods, or all that are left."""
    return Lookahead(model, "lookahead_periods", weights="gain", periods=periods)


@policy("lookahead_periods_once")
def _lookahead_periods_once(model: Model, *, periods: int | None = None) -> Lookahead:
    """The same with a visit in every window."""
    return Lookahead(model, "lookahead_periods_once", weights="gain", once=True, periods=periods)
