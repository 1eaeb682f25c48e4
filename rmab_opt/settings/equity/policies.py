"""Fairness in a round's action: units of group budgets in the order welfare asks for them, under any action set.

The round's program maximises

    sum_n score_n served_n  -  worth sum_g (b_g - helped_g)+

where helped_g counts the group's arms that are served and respond, b_g is the group's budget, a missing unit costs more
than all scores together, and scores are indices. So group budgets come first, the arms with the largest indices fill
them, and every other constraint holds exactly. Rules:

- Rounding: budgets are whole from the start; one unit at a time goes to the group that the welfare names.
- Constraints: under a plain budget the units in that order are the fairest budgets. Under any other action set
  (rosters, capacities, routes, windows) the fairest ones that some allowed action can fill are found by programs over
  that set: for ``max_min`` and ``leximin`` unit by unit in the order, passing over what is out of reach; for a welfare
  that is a sum in one program. Fairest is by the groups' predicted totals V_g(b), whichever of its arms are served.
- The plain mean of all arms (``utilitarian``) asks for no group budgets: the largest indices are served.
- Left-over: units that lift no group go to arms with positive index wherever they are, the best first.
- Harm: an arm whose index is not positive gets no unit unless a constraint asks for more; nor does any arm in the last
  round of problems that pay before the arm moves.
- Ties between arms are broken at random.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.chooser import Chooser
from rmab_opt.decisions.decision import Decision
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.objective import Objective, Scores, Situation
from rmab_opt.decisions.policy import Memory, Policy, RulePolicy, policy
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.errors import CapabilityError, InfeasibleError
from rmab_opt.overdue import checkpoint
from rmab_opt.problem import Problem
from rmab_opt.problem.dynamics import require_tabular
from rmab_opt.settings.equity.budgets import Shares, doubtful, share_units
from rmab_opt.settings.equity.curves import ChargeTable
from rmab_opt.settings.equity.groups import Groups
from rmab_opt.settings.equity.replan import FairReplan
from rmab_opt.settings.equity.welfare import Welfare

__all__ = ["FairObjective", "FairPolicy", "HighRisk", "model_groups"]

SCORE_SHARE = 0.25
"""Largest score of an arm."""

TIE_BREAK = 1e-7
"""Random part of a score."""

MOST_SHOWN = 10
"""Groups that a decision's remarks list."""

NO_RESPONSE = -0.05
"""Score of an arm that acting does not help: below zero, so that it is chosen only where a constraint asks for it."""


@dataclass(frozen=True, eq=False)
class _Round:
    """Numbers of one round: ``helps`` bool (N,), ``score`` (N,), the worth of each group's units (K, J), a constant."""

    helps: np.ndarray
    score: np.ndarray
    worth: np.ndarray
    base: float = 0.0


class _Units(Objective):
    """Worth of the units that groups get, not growing from unit to unit, and scores of the arms served.

    Parameters
    ----------
    actions, groups
        Columns that act on one arm each; an arm counts in every group it is in.
    most
        Units J of a group that can be worth anything.
    """

    def __init__(self, actions: ActionSet, groups: Groups, most: int = 0, now: _Round | None = None) -> None:
        effect = actions.columns.effect
        self.arm = effect.indices.astype(np.int64)
        self.groups, self._most, self._effect = groups, most, effect
        self.now = now
        """The round's numbers, where they are given and not worked out."""
        self.template: _Units = self
        """The object whose program this one's numbers fit."""
        order = np.argsort(self.arm, kind="stable")
        ends = np.cumsum(np.bincount(self.arm, minlength=effect.shape[1]))
        self.columns_of = np.split(order, ends[:-1])

    @property
    def most(self) -> int:
        """Units J of a group that can be worth anything."""
        return self._most

    def round(self, situation: Situation) -> _Round:
        """Numbers of the round to decide."""
        assert self.now is not None
        return self.now

    def form(self, situation: Situation) -> tuple[Any, ...]:
        return (self.template,)

    def at_round(self, now: _Round) -> _Units:
        """The same units with the numbers of a round."""
        other = copy(self)
        other.now = now
        return other

    def build(self, block: Any, act: Any, situation: Situation) -> Any:
        import pyomo.environ as pyo

        n_arms, n_groups, most = len(self.columns_of), len(self.groups), self.most
        cells = range(n_groups * most)
        block.helps = pyo.Param(range(n_arms), mutable=True, domain=pyo.Reals, initialize=1.0)
        block.score = pyo.Param(range(n_arms), mutable=True, domain=pyo.Reals, initialize=0.0)
        block.worth = pyo.Param(cells, mutable=True, domain=pyo.Reals, initialize=0.0)
        block.base = pyo.Param(mutable=True, domain=pyo.Reals, initialize=0.0)
        block.unit = pyo.Var(cells, bounds=(0.0, 1.0))
        # An arm with several columns, such as slots, is served by any of them and counts once.
        several = [n for n, columns in enumerate(self.columns_of) if len(columns) > 1]
        block.once = pyo.Var(several, bounds=(0.0, 1.0))
        served = {
            n: block.once[n] if len(columns) > 1 else act[int(columns[0])]
            for n, columns in enumerate(self.columns_of)
            if len(columns)
        }

        @block.Constraint(several)
        def by_some(_: Any, n: int) -> Any:
            return block.once[n] <= pyo.quicksum(act[int(c)] for c in self.columns_of[n])

        @block.Constraint([(n, int(c)) for n in several for c in self.columns_of[n]])
        def by_each(_: Any, n: int, c: int) -> Any:
            return block.once[n] >= act[c]

        @block.Constraint(range(n_groups))
        def filled(_: Any, g: int) -> Any:
            units = pyo.quicksum(block.unit[g * most + j] for j in range(most))
            members = [n for n in np.flatnonzero(self.groups.member[g]).tolist() if n in served]
            return units <= pyo.quicksum(block.helps[n] * served[n] for n in members)

        units = pyo.quicksum(block.worth[u] * block.unit[u] for u in cells)
        return pyo.quicksum(block.score[n] * arm for n, arm in served.items()) + units + block.base

    def update(self, situation: Situation) -> dict[str, np.ndarray]:
        now = self.round(situation)
        numbers = {"helps": now.helps.astype(float), "score": now.score, "worth": now.worth.ravel()}
        return {**numbers, "base": np.array([now.base])}

    def helped(self, actions: np.ndarray, helps: np.ndarray) -> np.ndarray:
        """Responding arms that each group is served, int (..., K)."""
        served = (np.asarray(actions) @ self._effect > 0) & helps
        return served.astype(np.int64) @ self.groups.member.T.astype(np.int64)

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        now = self.round(situation)
        total = np.concatenate([np.zeros((len(now.worth), 1)), np.cumsum(now.worth, axis=1)], axis=1)
        used = np.minimum(self.helped(actions, now.helps), self.most)
        served = np.asarray(actions) @ self._effect > 0
        return served @ now.score + total[np.arange(len(self.groups)), used].sum(axis=-1) + now.base


class FairObjective(_Units):
    """The round's group budgets, then the arms' indices; see the module.

    Parameters
    ----------
    problem, actions
        Two-action arms with tables; columns that act on one arm each.
    groups
        Columns of the cohort's table (see :meth:`Groups.of`), or groups; they may overlap.
    welfare
        ``leximin``, ``max_min``, ``nash``, ``nash_groups``, ``utilitarian`` or a number (alpha-fairness).
    table
        Values of the arms, when they are known already; computed at the first decision by default.

    Raises
    ------
    CapabilityError
        When arms have more than two actions, or a column acts on several arms.
    """

    def __init__(
        self,
        problem: Problem,
        actions: ActionSet,
        groups: Groups | str = "group",
        *,
        welfare: str | float | Welfare = "leximin",
        table: ChargeTable | None = None,
    ) -> None:
        transition, _ = require_tabular(problem.dynamics, "fair objectives")
        if transition.shape[1] != 2 or (np.diff(actions.columns.effect.indptr) != 1).any():
            raise CapabilityError(
                "group budgets with several actions or arms a column",
                problem.dynamics,
                ("use policy 'fair_replan'", "use two actions"),
            )
        named = Groups.of(problem.arms, groups) if isinstance(groups, str) else groups
        super().__init__(actions, named)
        self.problem, self.actions = problem, actions
        self.welfare = Welfare.of(welfare)
        self.past = np.zeros(len(named))
        """Totals collected by the groups so far."""
        self.noise = np.zeros(problem.n_arms)
        self._table = table
        self._known: tuple[tuple[object, ...], _Round, Shares, np.ndarray] | None = None

    def standing(self, past: np.ndarray, noise: np.ndarray) -> FairObjective:
        """The same objective where groups have collected ``past`` (K,) and arms' ties are broken by ``noise`` (N,)."""
        # What all rounds share is worked out before it is copied.
        _ = self.table, self.units, self._whole or self._reach
        other = copy(self)
        other.past, other.noise, other._known = past, noise, None
        return other

    @property
    def table(self) -> ChargeTable:
        """Values and indices of all arms, computed at the first decision."""
        if self._table is None:
            transition, reward = self.problem.dynamics.tabular()
            self._table = ChargeTable(transition, reward, horizon=self.problem.horizon, discount=self.problem.discount)
        return self._table

    @cached_property
    def plain_budget(self) -> int | None:
        """The limit, when the action set is nothing but a number of arms; else None."""
        if self.actions.lasting is not self.actions:
            # What a guarantee asks of a round is known when the round is.
            return None
        count = self.actions.shape.count
        if count is None or count[0] > 0 or any(len(columns) != 1 for columns in self.columns_of):
            return None
        return count[1]

    @cached_property
    def units(self) -> int:
        """Most arms that any allowed action acts on."""
        if self.plain_budget is not None:
            return self.plain_budget
        everyone = _Round(
            np.ones(self.problem.n_arms, dtype=bool), np.ones(self.problem.n_arms), np.zeros((len(self.groups), 0))
        )
        reach = _Units(self.actions, self.groups, now=everyone)
        anywhere = self.problem.start_distribution.argmax(axis=1)
        try:
            return round(Chooser(self.problem, self.actions.lasting, reach, "exact").decide(anywhere).value)
        except InfeasibleError:
            # Only a relaxed set has any action; what it allows is not known here.
            return self.problem.n_arms

    @property
    def most(self) -> int:
        return min(self.units, int(self.groups.sizes.max()))

    @cached_property
    def _reach(self) -> tuple[_Units, Chooser]:
        """Which numbers of helped arms groups can have together: the same units without scores."""
        units = _Units(self.actions, self.groups, self.most)
        nothing = _Round(
            np.ones(self.problem.n_arms, dtype=bool),
            np.zeros(self.problem.n_arms),
            np.zeros((len(self.groups), self.most)),
        )
        return units, Chooser(self.problem, self.actions, units.at_round(nothing), "exact")

    def shares(self, situation: Situation) -> Shares:
        """Budgets of the groups at a state where only their number is limited, and the order of all units that gain.

        By the exact curves: those of the table are refined as far as the budgets may hang on it, or the order where
        other constraints ask for it. In large cohorts they stay within their limits, see
        :data:`~rmab_opt.settings.equity.curves.MOST_VALUES`.
        """
        left = max(1, self.problem.horizon - situation.period)
        helps = self.table.indices(situation.state, left) > 0
        curves = self.table.curves(situation.state, left, self.groups, self.most)
        about: dict[str, Any] = {
            "welfare": self.welfare,
            "past": self.past,
            "caps": (self.groups.member & helps).sum(axis=1),
        }
        if not self._whole:
            curves.refine(np.arange(self.most + 1) <= about["caps"][:, None])
        while True:
            checkpoint()
            shares = share_units(curves.values, self.units, self.groups, **about)
            if not self._whole:
                return shares
            unsure = doubtful(curves.lower, curves.upper, shares, self.groups, **about)
            if not (unsure & ~curves.refined).any() or not curves.refine(unsure):
                return shares

    @property
    def _whole(self) -> bool:
        """Whether any split of the units can be filled."""
        return self.plain_budget is not None and not self.groups.overlap

    def budgets(self, situation: Situation) -> np.ndarray:
        """The fairest budgets that an allowed action can fill, (K,)."""
        self.round(situation)
        assert self._known is not None
        return self._known[3]

    def round(self, situation: Situation) -> _Round:
        key = (situation.state.tobytes(), situation.period, self.past.tobytes())
        if self._known is None or self._known[0] != key:
            shares = self.shares(situation)
            left = max(1, self.problem.horizon - situation.period)
            index = self.table.indices(situation.state, left)
            if self.welfare.kind == "alpha" and self.welfare.alpha == 0 and self.welfare.by_size:
                # The mean over all arms asks for no group budgets: the largest indices serve it best.
                budgets = np.zeros(len(self.groups), dtype=np.int64)
            elif self._whole:
                budgets = shares.budgets
            else:
                budgets = self._settle(situation, shares, index > 0)
            # A unit outweighs every score, so that no set of arms is preferred to a group's budget.
            unit = 1.0 + 2.0 * SCORE_SHARE * self.units
            worth = np.where(np.arange(self.most) < budgets[:, None], unit, 0.0)
            size = max(float(np.abs(index).max()), 1e-12)
            score = np.where(
                index > 0,
                SCORE_SHARE * index / size,
                NO_RESPONSE + (SCORE_SHARE + NO_RESPONSE) * np.minimum(index, 0.0) / size,
            )
            # Full budgets count nothing, so that a profile's relative gap is one of the scores.
            self._known = key, _Round(index > 0, score, worth, -float(worth.sum())), shares, budgets
        known = self._known[1]
        return replace(known, score=known.score + TIE_BREAK * self.noise)

    def choice(self, actions: ActionSet, situation: Situation) -> np.ndarray | None:
        """Where any split can be filled: each group's best arms up to its budget, then the best of all others."""
        if not self._whole or actions is not self.actions:
            return None
        now, budgets = self.round(situation), self.budgets(situation)
        order = np.argsort(-now.score, kind="stable")
        helping = order[now.helps[order]]
        label = self.groups.label[helping]
        taken = np.zeros(len(now.score), dtype=bool)
        for group, units in enumerate(budgets):
            taken[helping[label == group][:units]] = True
        rest = order[~taken[order] & (now.score[order] > 0)]
        taken[rest[: self.units - int(budgets.sum())]] = True
        action = np.zeros(len(actions), dtype=np.int64)
        action[[int(self.columns_of[n][0]) for n in np.flatnonzero(taken)]] = 1
        return action

    def _settle(self, situation: Situation, shares: Shares, helps: np.ndarray) -> np.ndarray:
        """The fairest budgets within reach, (K,); ``shares.budgets`` where no action is allowed at all."""
        n_groups, order = len(self.groups), shares.order
        unit = np.zeros(len(order), dtype=np.int64)
        for g in range(n_groups):
            unit[order == g] = np.arange((order == g).sum())
        objective, chooser = self._reach

        def reached(worth: np.ndarray) -> np.ndarray:
            """Helped arms of each group, as far as units count, of the action with most worth; worth (places,)."""
            table = np.zeros((n_groups, self.most))
            table[order, unit] = worth
            now = objective.at_round(_Round(helps, np.zeros(len(helps)), table))
            action = chooser.answer(chooser.question(situation.state, situation.period).about(now)).action
            return np.minimum(objective.helped(action, helps), np.bincount(order, minlength=n_groups))

        if not len(order):
            return np.zeros(n_groups, dtype=np.int64)
        try:
            if not self.welfare.lowest_first:
                return reached(shares.worth / shares.worth.max())
            place = 1.0 - np.arange(len(order)) / len(order)
            have, got, closed = reached(place), np.zeros(n_groups, dtype=np.int64), np.zeros(n_groups, dtype=bool)
        except InfeasibleError:
            return shares.budgets
        for level in np.unique(shares.level):
            at = np.flatnonzero((shares.level == level) & ~closed[order])
            if not len(at) or (got.sum() >= self.units and not self.groups.overlap):
                continue
            if (have[order[at]] <= unit[at]).any():
                # Units settled before outweigh those of this level, and these all later ones together.
                settled = (unit < got[order]) & ~np.isin(np.arange(len(order)), at)
                worth = place / (2.0 * place.sum())
                worth[at] = 1.0
                worth[settled] = len(at) + 1.0
                have = reached(worth)
            taken = have[order[at]] > unit[at]
            np.maximum.at(got, order[at][taken], unit[at][taken] + 1)
            closed[order[at][~taken]] = True
        return got

    def remarks(self, action: np.ndarray, situation: Situation) -> dict[str, Any]:
        now = self.round(situation)
        helped = self.helped(action, now.helps)
        budgets = self.budgets(situation)
        said = " · ".join(
            f"{name} {int(n)} of {int(size)}"
            for name, n, size in list(zip(self.groups.names, helped, self.groups.sizes, strict=True))[:MOST_SHOWN]
        )
        if len(helped) > MOST_SHOWN:
            said = f"{int((helped > 0).sum())} of {len(helped)} groups · {said} · ..."
        full = bool((helped >= budgets).all())
        rule = "over all whole budgets" if self._whole else "over all allowed actions"
        kept = (
            f"exact {rule}, by the groups' predicted totals" if full else "not kept: a group gets less than it should"
        )
        return {"helped": said, "fairness": f"{self.welfare.name}, {kept}"}


def model_groups(model: Model, group: str | None = None) -> Groups:
    """Groups of a model: by the given columns, the ones its objective names, or column ``group``.

    Raises
    ------
    ModelError
        When the cohort has no such column.
    """
    own = getattr(model.objective, "groups", None)
    if group is None and isinstance(own, Groups):
        return own
    return Groups.of(model.problem.arms, group or "group")


class FairPolicy(Policy):
    """Plans anew every round from the state and from what each group has collected, then decides exactly.

    Parameters
    ----------
    group
        Column of the cohort's table; see :func:`model_groups`.
    welfare
        See :class:`FairObjective`.
    history
        Whether a group's past rewards count: then it is the outcome at the end that is fair.
    """

    def __init__(
        self,
        model: Model,
        *,
        welfare: str | float | Welfare = "leximin",
        group: str | None = None,
        history: bool = True,
        name: str | None = None,
    ) -> None:
        self.groups = model_groups(model, group)
        self.objective = FairObjective(model.problem, model.actions, self.groups, welfare=welfare)
        super().__init__(model, name or self.objective.welfare.name)
        self.history = history
        self.__dict__["chooser"] = Chooser(model.problem, model.actions, self.objective, "exact", title=model.title)

    def begin(self, rng: np.random.Generator) -> Memory:
        """What groups have collected, and the generator that breaks ties."""
        return np.zeros(len(self.groups)), rng

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        past, rng = memory
        noise = rng.random(self.model.problem.n_arms)
        counted = past if self.history else np.zeros(len(self.groups))
        return question.about(self.objective.standing(counted, noise)), memory

    def remember(self, memory: Memory, decision: Decision) -> Memory:
        return self._collected(memory, decision.state, decision.action, decision.period)

    def act(
        self,
        state: np.ndarray,
        period: int,
        memory: Memory,
        shared: np.ndarray | None = None,
        *,
        deadline: float | None = None,
    ) -> tuple[np.ndarray, Memory]:
        offered, kept = self.propose(self.chooser.question(state, period, shared=shared, deadline=deadline), memory)
        assert isinstance(offered, Question)
        action = self.chooser.best(offered)
        return action, self._collected(kept, state, action, period)

    def _collected(self, memory: Memory, state: np.ndarray, action: np.ndarray, period: int) -> Memory:
        """The memory with what the groups get from an action."""
        past, rng = memory
        problem = self.model.problem
        paid = problem.dynamics.expected_reward(state, self.model.actions.columns.arm_action(action))
        return past + self.groups.member @ paid * problem.discount**period, rng


@policy("leximin")
def _leximin(model: Model) -> FairPolicy:
    """The worst group first, then the next: budgets anew every round, the past counted."""
    return FairPolicy(model, welfare="leximin", name="leximin")


@policy("nash")
def _nash(model: Model) -> FairPolicy:
    """Proportional fairness of arms' means, the past counted."""
    return FairPolicy(model, welfare="nash", name="nash")


@policy("nash_groups")
def _nash_groups(model: Model) -> FairPolicy:
    """Proportional fairness of groups' totals, the past counted."""
    return FairPolicy(model, welfare="nash_groups", name="nash_groups")


@policy("utilitarian")
def _utilitarian(model: Model) -> FairPolicy:
    """The mean of all arms; no group budgets."""
    return FairPolicy(model, welfare="utilitarian", name="utilitarian")


# The published planners as repaired: exact curves, no memory of what groups have collected.
@policy("mmr")
def _mmr(model: Model) -> FairPolicy:
    """The published max-min planner, repaired."""
    return FairPolicy(model, welfare="max_min", history=False, name="mmr")


@policy("mnw")
def _mnw(model: Model) -> FairPolicy:
    """The published Nash planner over groups, repaired."""
    return FairPolicy(model, welfare="nash_groups", history=False, name="mnw")


@policy("mnw_eg")
def _mnw_eg(model: Model) -> FairPolicy:
    """The published Nash planner over arms, repaired."""
    return FairPolicy(model, welfare="nash", history=False, name="mnw_eg")


@policy("fair_replan")
def _fair_replan(model: Model) -> RulePolicy:
    """The relaxed plan made anew every round, for any number of actions and any constraints."""
    groups = model_groups(model)
    return RulePolicy(model, "fair_replan", lambda problem, actions: FairReplan(problem, actions, groups))


class HighRisk(Policy):
    """Arms at high risk first: in turn, the one left alone for longest first, or at random; the others fill up.

    Parameters
    ----------
    high
        bool (S,): states of high risk; by default those that pay least of all reward parts, see :func:`high_risk`.
    in_turn
        Round robin by rounds since the last action, or a random order.
    """

    def __init__(self, model: Model, *, in_turn: bool, high: np.ndarray | None = None, name: str = "") -> None:
        super().__init__(model, name or ("round_robin_high_risk" if in_turn else "random_high_risk"))
        self.in_turn = in_turn
        self.high = high_risk(model) if high is None else np.asarray(high, dtype=bool)
        effect = model.actions.columns.effect
        if (np.diff(effect.indptr) != 1).any():
            raise CapabilityError("turns of single arms", model.actions, ("use policy 'random'", "one arm a column"))
        self.arm = effect.indices.astype(np.int64)

    def begin(self, rng: np.random.Generator) -> Memory:
        """Round of each arm's last action, -1 before any, and the generator of the order."""
        return np.full(self.model.problem.n_arms, -1), rng

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        """Ranks all arms; the constraints take them from the top."""
        last, rng = memory
        n_arms = len(question.state)
        order = rng.random(n_arms)
        if self.in_turn:
            order = order + (question.period - last)
        rank = np.argsort(np.argsort(order, kind="stable"), kind="stable") / n_arms
        return question.about(Scores((1.0 + rank + 2.0 * self.high[question.state])[self.arm])), memory

    def remember(self, memory: Memory, decision: Decision) -> Memory:
        last, rng = memory
        acted = self.model.actions.columns.arm_action(decision.action) > 0
        return np.where(acted, decision.period, last), rng


def high_risk(model: Model) -> np.ndarray:
    """States of high risk, bool (S,): named ``.../high/...``, or else those that pay less than the mean state.

    In ``digital_diabetes`` these are the states with A1c of 8 or more.
    """
    names = getattr(model.problem.dynamics, "state_names", ())
    named = np.array(["high" in str(name).split("/") for name in names])
    if named.any():
        return named
    _, reward = require_tabular(model.problem.dynamics, "states of high risk")
    mean = reward[:, :, 0].mean(axis=0)
    return mean < mean.mean()


@policy("round_robin_high_risk")
def _round_robin_high_risk(model: Model) -> HighRisk:
    """Arms at high risk in turn."""
    return HighRisk(model, in_turn=True)


@policy("random_high_risk")
def _random_high_risk(model: Model) -> HighRisk:
    """Arms at high risk at random."""
    return HighRisk(model, in_turn=False)
