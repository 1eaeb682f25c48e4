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
from rmab_opt.errors import CapabilityError, InfeasibleError
from rmab_opt.settings.inspection.beliefs import EncodedArms, encoded_arms
from rmab_opt.settings.inspection.indices import encoded_indices, free_indices
from rmab_opt.settings.inspection.kinds import Rows
from rmab_opt.settings.inspection.periods import plan_periods
from rmab_opt.settings.inspection.plan import shortage, solve_rows
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
    """Plans the rest of the period when it begins, or when the state is not the one foreseen, and follows the plan.

    The constraints of one slot's action hold in every slot of the plan; visits are limited by the windows' allowances.

    Parameters
    ----------
    weights
        ``gain``: exact gain of the only visit; ``index``: Whittle index of the arm left alone until then (published).
    once
        Whether every window must get a visit.
    """

    def __init__(
        self, model: Model, name: str = "lookahead", *, weights: Literal["gain", "index"] = "index", once: bool = False
    ) -> None:
        super().__init__(model, name)
        self.once = once
        self.arms = encoded_arms(model.problem.dynamics, f"policy {name!r}")
        if model.actions.structured:
            raise CapabilityError(
                "a slot's action without auxiliary variables", model.actions,
                ("use the policy 'time_constrained'", "plan without rosters"),
            )  # fmt: skip
        self.weights = VisitWeights(weights)
        # Episodes that stand alike share a plan; the cache holds one round's and changes no answer.
        self._planned: tuple[int, dict[bytes, np.ndarray]] = (-1, {})

    def begin(self, rng: np.random.Generator) -> Memory:
        return None

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        """The plan's next slot; planned anew at a period's start and when the state is not the one foreseen."""
        state, period = question.state, question.period
        slot = int(self.arms.decode(state)[1][0])
        follows = isinstance(memory, _Plan) and slot > 0 and memory.holds(state, period)
        plan = memory.visits if follows else self._plan_of(state, period)
        visits = plan[:, slot]
        action = (question.actions.columns.effect @ visits.astype(float) > 0).astype(np.int64)
        return Proposal(action), _Plan(plan, period + 1, self.arms.move(state, visits).tobytes())

    def _plan_of(self, state: np.ndarray, period: int) -> np.ndarray:
        if self._planned[0] != period:
            self._planned = (period, {})
        known = self._planned[1]
        if state.tobytes() not in known:
            known[state.tobytes()] = self.plan(state, period)
        return known[state.tobytes()]

    def plan(self, state: np.ndarray, period: int) -> np.ndarray:
        """Visits of the rest of the period, bool (N, T)."""
        arms, windows = self.arms, self.arms.windows
        _, slots, used = arms.decode(state)
        slot, n_slots = int(slots[0]), arms.n_slots
        # Beliefs go on after the period, as far as the horizon does and an inspection is felt.
        beyond = int(np.clip(self.model.problem.horizon - period - (n_slots - slot), 0, n_slots))
        objective = self.weights.reaching(beyond)
        cells = windows.open & (np.arange(n_slots) >= slot)
        arm, when = np.nonzero(cells)
        current = np.where(cells.any(axis=1), windows.label[np.arange(len(cells)), cells.argmax(axis=1)], -1)
        key, group = np.unique(arm * windows.n_windows + windows.label[arm, when], return_inverse=True)
        owner, window = np.divmod(key, windows.n_windows)
        spent = np.where(window == current[owner], used[owner], 0)
        most = windows.allowance[owner, window] - spent
        least = np.where(spent > 0, 0, 1) if self.once else np.zeros(len(key))
        ones = np.ones(len(arm))
        parts = [sparse.csr_array((ones, (group, np.arange(len(arm)))), shape=(len(key), len(arm)))]
        lower, upper = [least.astype(float)], [most.astype(float)]
        plain = self.model.actions.plain_rows
        per_arm = sparse.csc_array(plain.matrix @ self.model.actions.columns.effect)
        for t in range(slot, n_slots):
            parts.append(sparse.csr_array(per_arm[:, arm] @ sparse.diags_array((when == t).astype(float))))
            lower.append(plain.lower)
            upper.append(plain.upper)
        matrix = sparse.csr_array(sparse.vstack(parts))
        matrix.eliminate_zeros()
        rows = Rows(matrix, np.concatenate(lower), np.concatenate(upper), [])
        gains = objective.table(arms, state)[arm, when]
        solved = solve_rows(rows, gains, self.model.solver)
        if solved is None:
            raise self._infeasible(cells, least, owner, slot)
        plan = np.zeros(cells.shape, dtype=bool)
        plan[arm, when] = solved.action > 0
        return plan

    def _infeasible(self, cells: np.ndarray, least: np.ndarray, owner: np.ndarray, slot: int) -> InfeasibleError:
        most = self.model.actions.shape.at_most
        if most is not None:
            room = np.where(np.arange(cells.shape[1]) >= slot, float(most), 0.0)
            needed = np.bincount(owner, weights=least, minlength=len(cells)).astype(np.int64)
            found = shortage(cells, needed, room)
            if found is not None:
                return found.error()
        return InfeasibleError(
            f"no plan from slot {slot} on satisfies the slots' constraints",
            "relax them, or do not require every visit.",
        )


class LookaheadPeriods(Policy):
    """The exact plan over all periods left, each arm from inspection to inspection; needs one plain budget a slot."""

    def __init__(self, model: Model, name: str = "lookahead_periods", *, once: bool = False) -> None:
        super().__init__(model, name)
        self.once = once
        self.arms = encoded_arms(model.problem.dynamics, f"policy {name!r}")
        count = model.actions.shape.count
        if count is None or count[0] > 0:
            raise CapabilityError(
                "one upper budget a slot as the only constraint", model.actions,
                ("use the policy 'lookahead_gain'", "leave the other constraints out"),
            )  # fmt: skip
        self.capacity = count[1]

    def begin(self, rng: np.random.Generator) -> Memory:
        return None

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        """The plan's next slot; planned anew when the state is not the one foreseen."""
        state, period = question.state, question.period
        if isinstance(memory, _Plan) and memory.holds(state, period):
            plan = memory.visits
        else:
            age, slots, used = self.arms.decode(state)
            found = plan_periods(
                self.arms.chains, self.arms.windows, self.model.problem.horizon - period, self.capacity,
                slot=int(slots[0]), age=age, used=used, every_window=self.once, profile=self.model.solver,
            )  # fmt: skip
            plan = found.visits
        visits = plan[:, 0]
        action = (question.actions.columns.effect @ visits.astype(float) > 0).astype(np.int64)
        return Proposal(action), _Plan(plan[:, 1:], period + 1, self.arms.move(state, visits).tobytes())


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
def _lookahead_periods(model: Model) -> LookaheadPeriods:
    """The exact plan over all periods left."""
    return LookaheadPeriods(model, "lookahead_periods")


@policy("lookahead_periods_once")
def _lookahead_periods_once(model: Model) -> LookaheadPeriods:
    """The same with a visit in every window."""
    return LookaheadPeriods(model, "lookahead_periods_once", once=True)
