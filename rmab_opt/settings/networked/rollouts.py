"""The look-ahead on arrays and exact expectations on tiny graphs: what contact graphs bring to policy improvement.

Roll-outs need a base that decides for thousands of episodes at once: gains of single arms over sampled contacts are
sparse products for all states together, and under a count the arms are taken one by one with what each pick leaves.
Up to ten arms no roll-out is drawn: the base's value at every state is summed exactly.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.overdue import checkpoint
from rmab_opt.planning.improve import BatchRule, Rollouts, best_action
from rmab_opt.problem import Problem
from rmab_opt.settings.networked.cascade import EXACT_NODES, Cascade, active_sets, set_bits
from rmab_opt.settings.networked.greedy import arm_of_column
from rmab_opt.settings.networked.spread import continuation_weights

__all__ = ["BASES", "BatchLookahead", "ExactRollouts", "batch_rule", "rollouts_of"]

BASES = {
    "myopic_cascade": "reward",
    "lookahead_cascade": "never_again",
    "lookahead_priced": "priced",
    "lookahead_contacts": "contacts",
}
"""Policies that run on arrays, and the weights that they give to active arms."""

SAMPLES = 16
"""Samples of the contacts behind the rule in roll-outs: the next rounds' choices need not be as sharp as this one's."""

LOOKED = 12
"""Arms of the largest gains under each of two weights that roll-outs try alone."""

HELD = 4_000_000
"""Numbers held at once."""


class BatchLookahead:
    """This round's spread and what active arms are worth later, maximised greedily at many states together.

    Under a count the arms are taken one by one by true marginal gains; under other constraints the best allowed sum of
    single gains is taken, which counts arms reached twice double.

    Parameters
    ----------
    weights
        See :data:`rmab_opt.settings.networked.spread.WEIGHTS`.
    """

    def __init__(
        self, problem: Problem, actions: ActionSet, weights: str, *, samples: int = SAMPLES, seed: int = 0
    ) -> None:
        self.problem, self.actions, self.weights = problem, actions, weights
        dynamics: Any = problem.dynamics
        self.dynamics: Cascade = dynamics
        self.arm = arm_of_column(actions.columns)
        self.budget = float(actions.shape.most_chosen) if weights in ("priced", "contacts") else 0.0
        self.live = self.dynamics.live_edges(samples, np.random.default_rng([seed, 0xBA5E]))
        sets = self.live.merged
        self.sources, self.by_source = sets.sources, sets.sources.tocsc()
        self._worth: dict[int, np.ndarray] = {}

    @cached_property
    def _twin(self) -> BatchLookahead:
        """The look-ahead that sees one round more, or one that sees no contact after this round."""
        other = BatchLookahead(
            self.problem, self.actions, "never_again" if self.weights == "contacts" else "contacts", samples=1
        )
        other.live, other.sources, other.by_source = self.live, self.sources, self.by_source
        return other

    def others(self, state: np.ndarray, period: int) -> list[np.ndarray]:
        """Further actions (C,) worth a look at a state (N,)."""
        return [self._twin(np.asarray(state)[None], period)[0]]

    def looked_at(self, state: np.ndarray, period: int) -> np.ndarray:
        """Columns worth a look, sorted: those of the largest single gains under two weights."""
        found = []
        for rule in (self, self._twin):
            gains = rule._gains(np.asarray(state)[None], period)[0][0, self.arm]
            found.append(np.argsort(-gains, kind="stable")[:LOOKED])
        return np.unique(np.concatenate(found))

    def worth(self, period: int) -> np.ndarray:
        """What each active arm counts for, (N,)."""
        left = max(1, self.problem.horizon - period)
        if left not in self._worth:
            self._worth[left] = continuation_weights(
                self.dynamics, self.problem.discount, self.weights, left=left, budget=self.budget
            )
        return self._worth[left]

    def __call__(self, states: np.ndarray, period: int, shared: np.ndarray | None = None) -> np.ndarray:
        """Actions (B, C) at states (B, N)."""
        actions = self.actions.at(period) if self.actions.open_constraints else self.actions
        step = max(1, HELD // max(1, self.sources.shape[0], states.shape[1]))
        parts = [self._chosen(states[k : k + step], period, actions) for k in range(0, len(states), step)]
        return np.concatenate(parts) if parts else np.zeros((0, len(actions)), dtype=np.int64)

    def _gains(self, states: np.ndarray, period: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gain of each arm alone (B, N), what rows have left to gain (K, B), and the share of it that arms take."""
        worth = self.worth(period)
        passive = np.zeros(states.shape, dtype=np.int64)
        idle, acted = self.dynamics.own_move(states, passive), self.dynamics.own_move(states, passive + 1)
        # Arms that acting harms gain nothing: they are for sets that lock them out.
        acted = np.maximum(acted, idle)
        share = np.divide(acted - idle, 1.0 - idle, out=np.zeros_like(idle), where=idle < 1)
        row_worth = (self.live.merged.members @ worth) / self.live.size
        with np.errstate(divide="ignore"):
            left = np.exp(self.sources @ np.log1p(-idle).T) * row_worth[:, None]
        return self.live.alone * worth * (acted - idle) + share * (self.by_source.T @ left).T, left, share

    def _chosen(self, states: np.ndarray, period: int, actions: ActionSet) -> np.ndarray:
        gains, left, share = self._gains(states, period)
        if actions.shape.count is None:
            return best_action(actions, gains[:, self.arm])
        chosen = np.zeros((len(states), len(actions)), dtype=np.int64)
        fewest, most = actions.shape.count
        column, every = np.full(states.shape[1], -1), np.arange(len(states))
        column[self.arm] = np.arange(len(self.arm))
        gains[:, column < 0] = -np.inf
        for number in range(most):
            checkpoint()
            pick = gains.argmax(axis=1)
            gained = gains[every, pick] > 1e-12
            if number >= fewest and not gained.any():
                break
            rows = every if number < fewest else np.flatnonzero(gained)
            chosen[rows, column[pick[rows]]] = 1
            if number + 1 < most:
                self._take(rows, pick[rows], left, gains, share)
            gains[rows, pick[rows]] = -np.inf
        return chosen

    def _take(self, rows: np.ndarray, pick: np.ndarray, left: np.ndarray, gains: np.ndarray, share: np.ndarray) -> None:
        """Take what the picks cover off what is left and off the gains, in place."""
        own, owner = _spans(self.by_source.indptr, self.by_source.indices, pick)
        at = rows[owner]
        lost = left[own, at] * share[at, pick[owner]]
        left[own, at] -= lost
        source, place = _spans(self.sources.indptr, self.sources.indices, own)
        key = at[place] * gains.shape[1] + source
        off = np.bincount(key, lost[place], minlength=gains.size).reshape(gains.shape)
        gains -= share * off


def _spans(indptr: np.ndarray, indices: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entries of several sparse rows one after the other, and the place in ``rows`` that each is of."""
    length = indptr[rows + 1] - indptr[rows]
    place = np.repeat(np.arange(len(rows)), length)
    within = np.arange(len(place)) - np.repeat(np.cumsum(length) - length, length)
    return indices[np.repeat(indptr[rows], length) + within], place


class ExactRollouts(Rollouts):
    """Expected totals on graphs of up to ten arms: the base's value at every state by sums over all sets of arms."""

    @property
    def dynamics(self) -> Cascade:
        found: Cascade = self._dynamics
        return found

    @cached_property
    def values(self) -> list[np.ndarray]:
        """Value of the base from each round on at every set of active arms, T + 1 arrays (2^N,); bit i is arm i."""
        dynamics, states = self.dynamics, set_bits(self.dynamics.n_arms).astype(np.int64)
        found = [np.zeros(len(states))]
        for period in range(self.problem.horizon - 1, -1, -1):
            checkpoint()
            acted = self.actions.columns.arm_action(self.base(states, period, None))
            chance, arrival = dynamics.own_move(states, acted), self._arrival(found[0])
            parts = [active_sets(chance[k : k + 256]) @ arrival for k in range(0, len(chance), 256)]
            found.insert(0, np.concatenate(parts))
        return found

    def _arrival(self, ahead: np.ndarray) -> np.ndarray:
        """Expected worth of the sets active before the cascade, (2^N,), when ``ahead`` follows it."""
        pay = set_bits(self.dynamics.n_arms) @ self.dynamics.value
        found: np.ndarray = self.dynamics.graph.kernel @ (pay + self.problem.discount * ahead)
        return found

    def many(
        self,
        states: np.ndarray,
        period: int,
        shared: np.ndarray | None,
        first: np.ndarray,
        draws: int,
        rng: np.random.Generator,
        *,
        common: bool = True,
    ) -> np.ndarray:
        """Expected totals (B, M, 1) of first actions (B, M, C) at states (B, N); nothing is drawn."""
        arrival = self._arrival(self.values[period + 1])
        acted = self.actions.columns.arm_action(first.reshape(-1, first.shape[-1])).reshape(*first.shape[:2], -1)
        chance = self.dynamics.own_move(np.broadcast_to(np.asarray(states)[:, None], acted.shape), acted)
        # One state at a time: what stands for all sets of arms is large.
        return np.stack([active_sets(own) @ arrival for own in chance])[..., None]


def batch_rule(problem: Problem, actions: ActionSet, name: str) -> BatchRule | None:
    """The look-ahead of that name on arrays; None for other rules."""
    return BatchLookahead(problem, actions, BASES[name]) if name in BASES else None


def rollouts_of(problem: Problem, actions: ActionSet, base: BatchRule) -> Rollouts:
    """Exact expectations on tiny graphs, else simulated episodes."""
    if problem.n_arms <= EXACT_NODES and not actions.open_constraints:
        return ExactRollouts(problem, actions, base)
    return Rollouts(problem, actions, base)
