"""Fairness in a round's action: units of group budgets in the order welfare asks for them, under any action set.

The round's program maximises

    sum_g (worth of the first, second, ... unit that group g gets)  +  sum_c score[c] act[c],

where a unit's worth is its place in the planner's order and scores are indices within (-1/4, 1/4). So group budgets
come first, the arms with the largest indices fill them, and every other constraint holds exactly: where a roster or a
capacity forbids a unit, the next one in the order takes its place. Rules:

- Rounding: budgets are whole from the start; one unit at a time goes to the group that the welfare names.
- Left-over: units that lift no group go to arms with positive index wherever they are, the best first.
- Harm: an arm whose index is not positive gets no unit unless a constraint asks for more; nor does any arm in the last
  round of problems that pay before the arm moves.
- Ties between arms are broken at random.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyomo.environ as pyo

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.chooser import Chooser
from rmab_opt.decisions.decision import Decision
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.objective import Objective, Scores, Situation
from rmab_opt.decisions.policy import POLICIES, RulePolicy, policy
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.planning.equity.budgets import Shares, share_units
from rmab_opt.planning.equity.curves import ChargeTable
from rmab_opt.planning.equity.groups import Groups
from rmab_opt.planning.equity.scores import FairReplan
from rmab_opt.planning.equity.welfare import WELFARES, Welfare
from rmab_opt.problem import Problem
from rmab_opt.problem.dynamics import require_tabular

__all__ = ["FairObjective", "FairPolicy", "HighRisk", "model_groups"]

SCORE_SHARE = 0.25
"""Largest score of an arm, where the worths of neighbouring units differ by one."""

TIE_BREAK = 1e-7
"""Random part of a score."""

NO_RESPONSE = -0.05
"""Score of an arm that acting does not help: below zero, so that it is chosen only where a constraint asks for it."""


class FairObjective(Objective):
    """The round's welfare in units of group budgets, then the arms' indices; see the module.

    Parameters
    ----------
    problem, actions
        Two-action arms with tables; columns that act on one arm each.
    groups
        Column of the cohort's table, or groups that do not overlap.
    welfare
        ``leximin``, ``max_min``, ``nash``, ``nash_groups``, ``utilitarian`` or a number (alpha-fairness).
    units
        Arms acted on in a round at most; found from the action set by default.

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
        units: int | None = None,
        table: ChargeTable | None = None,
    ) -> None:
        transition, _ = require_tabular(problem.dynamics, "fair objectives")
        effect = actions.columns.effect
        if transition.shape[1] != 2 or (np.diff(effect.indptr) != 1).any():
            raise CapabilityError(
                "group budgets with several actions or arms a column",
                problem.dynamics,
                ("use policy 'fair_replan'", "use two actions"),
            )
        self.problem, self.actions = problem, actions
        self.groups = Groups.of(problem.arms, groups) if isinstance(groups, str) else groups
        self.welfare = Welfare.of(welfare)
        self.arm = effect.indices.astype(np.int64)
        self.column_group = self.groups.label[self.arm]
        self.past = np.zeros(len(self.groups))
        """Totals collected by the groups so far; the policy keeps them up to date."""
        self.noise = np.zeros(len(self.arm))
        self._units, self._table = units, table
        self._key: tuple[object, ...] | None = None
        self._known: tuple[np.ndarray, np.ndarray, Shares] | None = None

    @property
    def table(self) -> ChargeTable:
        """Values and indices of all arms, computed at the first decision."""
        if self._table is None:
            transition, reward = self.problem.dynamics.tabular()
            self._table = ChargeTable(transition, reward, horizon=self.problem.horizon, discount=self.problem.discount)
        return self._table

    @property
    def units(self) -> int:
        """Most arms that any allowed action acts on."""
        if self._units is None:
            most = Scores(np.ones(len(self.actions)))
            anywhere = self.problem.start_distribution.argmax(axis=1)
            self._units = round(Chooser(self.problem, self.actions, most, "exact").decide(anywhere).value)
        return self._units

    def shares(self, situation: Situation) -> Shares:
        """Budgets of the groups at a state, and the order of all units that gain."""
        return self._present(situation)[2]

    def _present(self, situation: Situation) -> tuple[np.ndarray, np.ndarray, Shares]:
        """Scores of the columns (C,), cumulative worth of units (K, J + 1), and the shares."""
        key = (situation.state.tobytes(), situation.period, self.past.tobytes(), self.noise.tobytes())
        if key == self._key and self._known is not None:
            return self._known
        left = max(1, self.problem.horizon - situation.period)
        most = min(self.units, int(self.groups.sizes.max()))
        index = self.table.indices(situation.state, left)
        responds = index > 0
        shares = share_units(
            self.table.curves(situation.state, left, self.groups, most),
            self.units,
            self.groups,
            welfare=self.welfare,
            past=self.past,
            caps=(self.groups.member & responds).sum(axis=1),
            beyond=self.units,
        )
        worth = np.zeros((len(self.groups), most))
        given = np.zeros(len(self.groups), dtype=np.int64)
        for place, group in enumerate(shares.order):
            worth[group, given[group]] = len(shares.order) - place
            given[group] += 1
        total = np.concatenate([np.zeros((len(worth), 1)), np.cumsum(worth, axis=1)], axis=1)
        size = max(float(np.abs(index).max()), 1e-12)
        score = np.where(
            responds,
            SCORE_SHARE * index / size,
            NO_RESPONSE + (SCORE_SHARE + NO_RESPONSE) * np.minimum(index, 0.0) / size,
        )
        self._key, self._known = key, (score[self.arm] + TIE_BREAK * self.noise, total, shares)
        return self._known

    def build(self, block: Any, act: Any, situation: Situation) -> Any:
        n_columns, n_groups = len(self.arm), len(self.groups)
        most = min(self.units, int(self.groups.sizes.max()))
        cells = range(n_groups * most)
        block.score = pyo.Param(range(n_columns), mutable=True, domain=pyo.Reals, initialize=0.0)
        block.worth = pyo.Param(cells, mutable=True, domain=pyo.Reals, initialize=0.0)
        block.unit = pyo.Var(cells, bounds=(0.0, 1.0))
        members = [np.flatnonzero(self.column_group == g) for g in range(n_groups)]

        @block.Constraint(range(n_groups))
        def filled(_: Any, g: int) -> Any:
            units = pyo.quicksum(block.unit[g * most + j] for j in range(most))
            return units <= pyo.quicksum(act[int(c)] for c in members[g])

        return pyo.quicksum(block.score[c] * act[c] for c in range(n_columns)) + pyo.quicksum(
            block.worth[u] * block.unit[u] for u in cells
        )

    def update(self, situation: Situation) -> dict[str, np.ndarray]:
        score, total, _ = self._present(situation)
        return {"score": score, "worth": np.diff(total, axis=1).ravel()}

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        score, total, _ = self._present(situation)
        used = actions @ (self.column_group[:, None] == np.arange(len(self.groups)))
        used = np.minimum(np.rint(used).astype(np.int64), total.shape[1] - 1)
        return actions @ score + total[np.arange(len(self.groups)), used].sum(axis=-1)


def model_groups(model: Model, group: str | None = None) -> Groups:
    """Groups of a model: by the given column, the one its objective names, or column ``group``.

    Raises
    ------
    ModelError
        When the cohort has no such column.
    """
    own = getattr(model.objective, "groups", None)
    if group is None and isinstance(own, Groups):
        return own
    column = group or "group"
    if column not in model.problem.arms.columns:
        raise ModelError(
            f"the cohort has no column {column!r} that says who belongs to which group",
            "name one: `objective: {kind: fair, group: village}`.",
        )
    return Groups.of(model.problem.arms, column)


class FairPolicy:
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
        self.problem, self.history = model.problem, history
        self.groups = model_groups(model, group)
        self.objective = FairObjective(model.problem, model.actions, self.groups, welfare=welfare)
        self.name = name or self.objective.welfare.name
        self.chooser = Chooser(model.problem, model.actions, self.objective, "exact", title=model.title)
        # Episodes run side by side: each has its own generator, by which its past is known.
        self._past: dict[int, tuple[np.random.Generator, int, np.ndarray]] = {}

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        """The round's action; the past of an episode is kept by its generator and forgotten at round 0."""
        kept = self._past.get(id(rng))
        fits = kept is not None and kept[0] is rng and kept[1] == period and period > 0
        past = kept[2] if kept is not None and fits else np.zeros(len(self.groups))
        self.objective.past = past if self.history else np.zeros(len(self.groups))
        self.objective.noise = rng.random(len(self.objective.arm))
        made = self.chooser.decide(state, period)
        paid = self.problem.dynamics.expected_reward(state, self.chooser.actions.columns.arm_action(made.action))
        earned = self.groups.member @ paid * self.problem.discount**period
        self._past[id(rng)] = (rng, period + 1, past + earned)
        return made


def _fair(model: Model, *, name: str, welfare: str, history: bool) -> FairPolicy:
    return FairPolicy(model, welfare=welfare, history=history, name=name)


for _name in ("leximin", "nash", "nash_groups", "utilitarian"):
    POLICIES[_name] = partial(_fair, name=_name, welfare=_name, history=True)
# The published planners as repaired: exact curves, no memory of what groups have collected.
for _name, _welfare in (("mmr", WELFARES["max_min"]), ("mnw", WELFARES["nash_groups"]), ("mnw_eg", WELFARES["nash"])):
    POLICIES[_name] = partial(_fair, name=_name, welfare=_welfare.name, history=False)


@policy("fair_replan")
def _fair_replan(model: Model) -> RulePolicy:
    """The relaxed plan made anew every round, for any number of actions and any constraints."""
    groups = model_groups(model)
    return RulePolicy(model, "fair_replan", lambda problem, actions: FairReplan(problem, actions, groups))


class HighRisk:
    """Arms at high risk first: in turn, the one left alone for longest first, or at random; the others fill up.

    Parameters
    ----------
    high
        bool (S,): states of high risk; by default those that pay least of all reward parts, see :func:`high_risk`.
    in_turn
        Round robin by rounds since the last action, or a random order.
    """

    def __init__(self, model: Model, *, in_turn: bool, high: np.ndarray | None = None, name: str = "") -> None:
        self.in_turn = in_turn
        self.name = name or ("round_robin_high_risk" if in_turn else "random_high_risk")
        self.high = high_risk(model) if high is None else np.asarray(high, dtype=bool)
        effect = model.actions.columns.effect
        if (np.diff(effect.indptr) != 1).any():
            raise CapabilityError("turns of single arms", model.actions, ("use policy 'random'", "one arm a column"))
        self.arm = effect.indices.astype(np.int64)
        self._scores = Scores(np.zeros(len(self.arm)))
        self.columns = model.actions.columns
        self.chooser = Chooser(model.problem, model.actions, self._scores, model.solver, title=model.title)
        self._last: dict[int, tuple[np.random.Generator, int, np.ndarray]] = {}

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        """Ranks all arms; the constraints take them from the top."""
        n_arms = len(state)
        kept = self._last.get(id(rng))
        fits = kept is not None and kept[0] is rng and kept[1] == period and period > 0
        last = kept[2] if kept is not None and fits else np.full(n_arms, -1)
        order = rng.random(n_arms)
        if self.in_turn:
            order = order + (period - last)
        rank = np.argsort(np.argsort(order, kind="stable"), kind="stable") / n_arms
        self._scores.scores = (1.0 + rank + 2.0 * self.high[state])[self.arm]
        made = self.chooser.decide(state, period)
        acted = self.columns.arm_action(made.action) > 0
        self._last[id(rng)] = (rng, period + 1, np.where(acted, period, last))
        return made


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


POLICIES["round_robin_high_risk"] = partial(HighRisk, in_turn=True)
POLICIES["random_high_risk"] = partial(HighRisk, in_turn=False)
