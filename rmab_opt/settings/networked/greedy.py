"""Deciding on a contact graph: lazy greedy with what it proves, the sampled program under any constraints.

Both work on one form of the round's value, a coverage function of the set acted on; see
:mod:`rmab_opt.settings.networked.spread`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from rmab_opt.actions import ActionSet, Columns
from rmab_opt.decisions.objective import Objective, Situation
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.problem import Problem
from rmab_opt.settings.networked.cascade import Cascade, LiveEdges
from rmab_opt.settings.networked.coverage import STEPS, Coverage, ceiling, celf
from rmab_opt.settings.networked.spread import (
    OneRound,
    Scenarios,
    continuation_weights,
    raising_moves,
)

__all__ = [
    "ESTIMATORS",
    "CascadeObjective",
    "Structure",
    "structure",
]

ESTIMATORS = ("scenarios", "moves_exact")
"""``scenarios``: whole rounds drawn in advance, which the program takes. ``moves_exact``: contacts drawn, the arms' own
moves exact, less noisy, for the greedy method."""

ENOUGH = 1e-4
"""Relative distance to greedy's value at which the search for a lower limit ends."""

QUICK = 2
"""Tangents behind one of many decisions."""

WHOLE = 1.0 - 1.0 / math.e
"""Share of the best gain that greedy reaches under a count (Nemhauser, Wolsey, Fisher 1978)."""


# ------------------------------------------------------------------------------------------- what the set looks like
@dataclass(frozen=True)
class Structure:
    """What is known of greedy under a set of constraints: ``share`` of the best gain is guaranteed (0: nothing)."""

    kind: str
    """``count``, ``knapsack``, ``quotas`` (nested groups with limits), ``monotone`` or ``other``."""
    share: float
    cost: np.ndarray | None = None
    """Of each column, for ``knapsack``."""

    def sentence(self) -> str:
        """The guarantee in words."""
        words = {
            "count": "at least 63 % of the best gain (1 - 1/e, a count)",
            "knapsack": "at least 31 % of the best gain ((1 - 1/e)/2, better of two rules under costs)",
            "quotas": "at least half of the best gain (quotas of groups)",
        }
        return words.get(self.kind, "none under these constraints; see the bound")


def structure(actions: ActionSet) -> Structure:
    """What greedy can promise under the declared constraints, by the set's shape."""
    shape = actions.shape
    if not shape.monotone:
        return Structure("other", 0.0)
    if shape.count is not None:
        return Structure("count", WHOLE)
    if shape.kind in ("groups", "nested"):
        return Structure("quotas", 0.5)
    if shape.kind == "knapsack":
        cost = np.asarray(actions.plain_rows.matrix[shape.binding_rows].sum(axis=0)).ravel()
        return Structure("knapsack", 0.5 * WHOLE, cost=cost)
    return Structure("monotone", 0.0)


def arm_of_column(columns: Columns) -> np.ndarray:
    """Arm of each column, int64 (C,).

    Raises
    ------
    CapabilityError
        When columns touch several arms, or an arm several columns.
    """
    effect = columns.effect
    if (np.diff(effect.indptr) != 1).any() or (np.bincount(effect.indices, minlength=1) > 1).any():
        raise CapabilityError(
            "columns that touch several arms, or arms of several columns",
            CascadeObjective,
            ("use one column an arm", "act by policy 'whittle'"),
        )
    return effect.indices.astype(np.int64)


# ------------------------------------------------------------------------------------------------------- the objective
class CascadeObjective(Objective):
    """Expected worth of the arms active at the end of the round, over samples of who infects whom.

    The program has one binary a column and one continuous variable 0 <= z_k <= 1 a coverage row,
    z_k <= sum of the columns that can activate its component (Kempe et al.; never one row a neighbour: two live
    neighbours would activate each other for free). It is exact for the drawn scenarios under any constraints; a second
    sample values the answer out of sample.

    Parameters
    ----------
    samples
        Scenarios or live-edge samples.
    weights
        What an active arm counts for: ``reward``, ``never_again``, ``priced`` or ``contacts``, see
        :func:`rmab_opt.settings.networked.spread.continuation_weights`.
    estimator
        See :data:`ESTIMATORS`.
    seed
        Of the samples; the check sample is drawn from another stream of it.
    budget
        Actions a round, for ``priced`` and ``contacts``.
    """

    def __init__(
        self,
        samples: int = 200,
        weights: str = "reward",
        *,
        estimator: str = "scenarios",
        seed: int = 0,
        budget: float = 0.0,
    ) -> None:
        if samples < 1:
            raise ModelError(f"samples is {samples}", "draw at least 1.")
        if estimator not in ESTIMATORS:
            raise ModelError(f"estimator is {estimator!r}", f"use one of {', '.join(ESTIMATORS)}.")
        self.samples, self.weights, self.estimator, self.seed, self.budget = samples, weights, estimator, seed, budget
        self._of: Cascade | None = None
        self._drawn: dict[int, Scenarios | LiveEdges] = {}
        self._worth: dict[int, np.ndarray] = {}
        self._cover: tuple[Any, Coverage] | None = None
        self._known: tuple[ActionSet, Structure] | None = None

    def worth(self, situation: Situation) -> np.ndarray:
        """What each active arm counts for in this round, (N,)."""
        problem = situation.problem
        left, dynamics = max(1, problem.horizon - situation.period), cascade_dynamics(problem)
        self._follow(dynamics)
        if left not in self._worth:
            self._worth[left] = continuation_weights(
                dynamics, problem.discount, self.weights, left=left, budget=self.budget
            )
        return self._worth[left]

    def _follow(self, dynamics: Cascade) -> None:
        """Forget what was kept for other dynamics."""
        if self._of is not dynamics:
            self._of, self._drawn, self._worth, self._cover = dynamics, {}, {}, None

    def coverage(self, situation: Situation) -> Coverage:
        """The round's value as a coverage function of the columns; kept for the next call at the same situation."""
        self._follow(cascade_dynamics(situation.problem))
        key = _key(situation)
        if self._cover is None or self._cover[0] != key:
            self._cover = (key, self._coverage(situation))
        return self._cover[1]

    def _coverage(self, situation: Situation) -> Coverage:
        arm = arm_of_column(situation.columns)
        dynamics, worth = cascade_dynamics(situation.problem), self.worth(situation)
        sample, shut = self._sample(dynamics, 0), _shut(situation, arm)
        every = len(arm) == dynamics.n_arms and bool((arm == np.arange(len(arm))).all())
        if isinstance(sample, LiveEdges):
            one = OneRound(dynamics, sample, situation.state, worth, shut)
            rows = one.by_source if every else sparse.csc_array(one.by_source[:, arm])
            base = float(sample.alone @ (one.idle * worth)) + float(one.row_worth.sum() - one.idle_rows().sum())
            return Coverage(base, one.alone_gain[arm], one.share[arm], rows, one.idle_rows())
        idle, acted = raising_moves(dynamics, situation.state, shut)
        constant, linear, sets, gain = sample.coverage(idle, acted, worth)
        rows = sparse.csc_array(sets)[:, arm]
        kept = np.asarray(rows.sum(axis=1)).reshape(-1) > 0
        return Coverage(constant, linear[arm], np.ones(len(arm)), sparse.csc_array(rows[kept]), gain[kept])

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        return self._valued(actions, situation, 0).mean(axis=1)

    def estimate(self, action: np.ndarray, situation: Situation) -> tuple[float, float]:
        """Value of an action on a sample it was not chosen on, and that value's standard error."""
        found = self._valued(np.asarray(action)[None], situation, 1)[0]
        return float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else np.inf

    def _valued(self, actions: np.ndarray, situation: Situation, which: int) -> np.ndarray:
        """Value of each action in each sample, (M, samples); sample 0 is chosen on, 1 is not."""
        dynamics, worth = cascade_dynamics(situation.problem), self.worth(situation)
        arm_action = situation.columns.arm_action(np.asarray(actions))
        sample = self._sample(dynamics, which)
        idle, acted = _moves(dynamics, situation.state)
        if isinstance(sample, Scenarios):
            return sample.values(idle, acted, worth, arm_action)
        return np.stack([sample.totals(np.where(row > 0, acted, idle), worth) for row in arm_action])

    def _sample(self, dynamics: Cascade, which: int) -> Scenarios | LiveEdges:
        """The sample chosen on (0) or the one to check with (1), drawn when first asked for."""
        self._follow(dynamics)
        if which not in self._drawn:
            # The check needs no program: the arms' moves are exact in it, which leaves the contacts' noise only.
            draw = Scenarios.draw if self.estimator == "scenarios" and which == 0 else LiveEdges.draw
            self._drawn[which] = draw(dynamics.graph, self.samples, np.random.default_rng([self.seed, which]))
        return self._drawn[which]

    def build(self, block: Any, act: Any, situation: Situation) -> Any:
        import pyomo.environ as pyo

        if self.estimator != "scenarios":
            raise CapabilityError("a linear program", self, ("use method 'greedy'", "use estimator 'scenarios'"))
        cover = self.coverage(situation)
        rows = sparse.csr_array(cover.rows_of)
        block.covered = pyo.Var(range(rows.shape[0]), bounds=(0.0, 1.0))

        @block.Constraint(range(rows.shape[0]))
        def reached(_: Any, k: int) -> Any:
            members = rows.indices[rows.indptr[k] : rows.indptr[k + 1]]
            return block.covered[k] <= pyo.quicksum(act[int(c)] for c in members)

        own = pyo.quicksum(float(cover.linear[c]) * act[int(c)] for c in np.flatnonzero(cover.linear))
        spread = pyo.quicksum(float(worth) * block.covered[k] for k, worth in enumerate(cover.worth))
        return cover.constant + own + spread

    def form(self, situation: Situation) -> tuple[Any, ...]:
        # The state decides which components can still be activated: other rows, not other numbers.
        return (self, *_key(situation))

    def update(self, situation: Situation) -> dict[str, np.ndarray]:
        return {}

    def remarks(self, action: np.ndarray, situation: Situation) -> dict[str, Any]:
        mean, error = self.estimate(action, situation)
        drawn = "drawn scenarios" if self.estimator == "scenarios" else "drawn contact samples"
        return {
            "sample": f"value and bound are those of {self.samples} {drawn}",
            "out of sample": f"{mean:.6g} ± {error:.2g} (standard error)",
        }

    def greedy(
        self, actions: ActionSet, situation: Situation, *, quick: bool = False
    ) -> tuple[np.ndarray, float, float, dict[str, Any]]:
        """Lazy greedy with the bound that tangents prove.

        No set is worth more than the largest allowed sum under tangents of the covered rows; see
        :func:`rmab_opt.settings.networked.coverage.ceiling`. Under a count, a knapsack or nested quotas the guarantee
        holds too, for gains over doing nothing, on the drawn samples.

        Raises
        ------
        CapabilityError
            When dropping an arm from an allowed action may be forbidden.
        """
        known, cover = self._structure(actions), self.coverage(situation)
        room = actions.shape.room()
        _, gain, _, _ = celf(cover, room, cost=known.cost)
        if known.kind == "knapsack":
            other = actions.shape.room()
            second = celf(cover, other)
            if second[1] > gain:
                room, gain = other, second[1]
        action = room.action
        claimed = cover.constant + gain
        remarks = {
            "gain": f"{gain:.6g} over doing nothing ({cover.constant:.6g})",
            "guarantee": known.sentence(),
        }
        limit = ceiling(cover, actions.shape, action, claimed, enough=ENOUGH, most=QUICK if quick else STEPS)
        if known.share > 0:
            limit = min(limit, cover.constant + gain / known.share)
        return action, claimed, max(limit, claimed), remarks

    def greedy_entries(self, situation: Situation) -> float:
        return np.inf if self.estimator != "scenarios" else float(self.coverage(situation).rows_of.nnz)

    def _structure(self, actions: ActionSet) -> Structure:
        if self._known is None or self._known[0] is not actions:
            self._known = (actions, structure(actions))
        return self._known[1]


def cascade_dynamics(problem: Problem) -> Cascade:
    """The problem's networked dynamics, or a CapabilityError."""
    dynamics: Any = problem.dynamics
    if getattr(dynamics, "live_edges", None) is None:
        raise CapabilityError(
            "live_edges()", dynamics, ("give the problem dynamics of kind 'cascade'", "use policy 'myopic'")
        )
    networked: Cascade = dynamics
    return networked


def _moves(dynamics: Cascade, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chances of the arms' own moves, left alone and acted on, whatever their order."""
    passive = np.zeros(dynamics.n_arms, dtype=np.int64)
    return dynamics.own_move(state, passive), dynamics.own_move(state, passive + 1)


def _shut(situation: Situation, arm: np.ndarray) -> np.ndarray | None:
    """Arms that no allowed action acts on, bool (N,); None where the situation does not say what is allowed."""
    if situation.actions is None:
        return None
    shut = np.ones(situation.problem.n_arms, dtype=bool)
    shut[arm[~situation.actions.shape.closed]] = False
    return shut


def _key(situation: Situation) -> tuple[Any, ...]:
    shut = b"" if situation.actions is None else situation.actions.shape.closed.tobytes()
    return (situation.state.tobytes(), situation.period, shut)
