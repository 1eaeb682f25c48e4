"""One step of policy improvement by roll-outs that all meet the same chance, under any action set.

At a state: what acting on one column alone now adds, a base rule following, for every column by the same draws; the
program takes the best sum of these; that action, the base's own and a few swaps meet fresh draws, and the base's action
is left only for one that is better by more than the noise of their difference. Nothing but a simulator is asked for.

References
----------
Bertsekas, Tsitsiklis (1996), *Neuro-Dynamic Programming*, section 6; common random numbers: Glasserman, Yao (1992).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from rmab_opt import registry
from rmab_opt.actions import ActionSet
from rmab_opt.errors import CapabilityError
from rmab_opt.overdue import checkpoint
from rmab_opt.planning.mean_field import MeanField
from rmab_opt.problem import Problem

__all__ = [
    "BatchRule",
    "Improvement",
    "Rollouts",
    "ScoreRule",
    "SingleGains",
    "base_rule",
    "best_action",
    "brought_rule",
    "improve",
    "on_arrays",
    "rollouts_of",
]

SCREENED = 24
"""Columns that keep all their draws after a first look at a sixth of them."""

SWAPPED_IN, SWAPPED_OUT = 3, 2
SAMPLED = 4
"""Random allowed actions among the candidates."""

FEW = 60
"""Allowed actions up to which all of them are candidates."""

LOOKED, GROWN = 6, 8
"""Columns looked at again in each step of growing an action, and the largest count of sets it is done for."""

CHUNKS = 4
"""Looks at the candidates: those that fall behind by more than two standard errors leave early."""


class BatchRule(Protocol):
    """A rule that runs on arrays."""

    def __call__(self, states: np.ndarray, period: int, shared: np.ndarray | None) -> np.ndarray:
        """Actions (B, C) at states (B, N) and shared states (B, K)."""
        ...


def best_action(actions: ActionSet, scores: np.ndarray) -> np.ndarray:
    """Allowed actions with the largest sum of scores (B, C) each, int64 (B, C)."""
    found = actions.shape.best(scores)
    if found.exact:
        return found.actions
    return np.stack([actions.best_by_program(row)[0] for row in np.atleast_2d(scores)])


class ScoreRule:
    """The best allowed action by a score of each arm-action: a rule that runs on arrays.

    Parameters
    ----------
    scores
        (states (B, N), period, shared (B, K) or None) to (B, N, A), passive 0.
    rule
        Where the scores come from, for those who ask.
    """

    def __init__(
        self,
        problem: Problem,
        actions: ActionSet,
        scores: Callable[[np.ndarray, int, np.ndarray | None], np.ndarray],
        rule: Any = None,
    ) -> None:
        self.problem, self.actions, self.scores, self.rule = problem, actions, scores, rule
        effect = sparse.coo_array(actions.columns.effect)
        n_actions = problem.dynamics.n_actions
        level = np.minimum(np.rint(effect.data).astype(np.int64), n_actions - 1)
        row, arm = effect.coords
        shape = (problem.n_arms * n_actions, len(actions))
        plus = sparse.csr_array((np.ones(len(row)), (arm * n_actions + level, row)), shape=shape)
        minus = sparse.csr_array((np.ones(len(row)), (arm * n_actions, row)), shape=shape)
        self._gather = sparse.csr_array(plus - minus)

    def __call__(self, states: np.ndarray, period: int, shared: np.ndarray | None) -> np.ndarray:
        table = np.asarray(self.scores(states, period, shared))
        scores = np.asarray(table.reshape(len(states), -1) @ self._gather)
        if not self.actions.open_constraints:
            return best_action(self.actions, scores)
        if shared is None or not len(shared):
            return best_action(self.actions.at(period), scores)
        # Limits depend on the shared state: states that share one are chosen for together.
        alike, which = np.unique(shared, axis=0, return_inverse=True)
        found = np.zeros(scores.shape, dtype=np.int64)
        for number, values in enumerate(alike):
            rows = which.ravel() == number
            found[rows] = best_action(self.actions.at(period, self.problem.shared_values(values)), scores[rows])
        return found


def on_arrays(problem: Problem, actions: ActionSet, name: str) -> ScoreRule:
    """A registered rule by name on arrays: ``myopic`` is this round's gain of each arm alone, ``none`` acts on nobody.

    A planner around the means plans anew at each state.

    Raises
    ------
    ModelError
        When no rule has that name.
    CapabilityError
        When the rule does not run on arrays.
    """
    if name == "none":
        idle = -np.arange(problem.dynamics.n_actions, dtype=float)
        return ScoreRule(problem, actions, lambda states, *_: np.broadcast_to(idle, (*states.shape, len(idle))))
    entry, given = registry.parse("rule", "single_gains" if name == "myopic" else name)
    rule = entry.make(problem, actions, **given)
    if not hasattr(rule, "values") and not getattr(rule, "batched", False):
        raise CapabilityError(
            f"rule {name!r} on arrays", rule, ("improve 'hand', 'mean_field' or 'myopic'", "give it a table")
        )

    def scored(states: np.ndarray, period: int, shared: np.ndarray | None) -> np.ndarray:
        return np.asarray(rule.scores(states, period, None, shared))

    return ScoreRule(problem, actions, scored, rule)


def brought_rule(problem: Problem, actions: ActionSet, name: str) -> BatchRule | None:
    """A rule on arrays that the dynamics bring themselves, ``batch_rule(problem, actions, name)``; None without one."""
    own = getattr(problem.dynamics, "batch_rule", None)
    brought: BatchRule | None = own(problem, actions, name) if callable(own) else None
    return brought


def base_rule(
    problem: Problem,
    actions: ActionSet,
    name: str,
    state: np.ndarray | None = None,
    period: int = 0,
    shared: np.ndarray | None = None,
) -> BatchRule:
    """A rule for roll-outs by name, as :func:`on_arrays`, but cheap at every state.

    A planner around the means is planned once, from the state given, and followed by its table of indices, or by the
    arms' rule of thumb where that is what it follows. Dynamics
    with policies of their own bring them as ``batch_rule(problem, actions, name)``.
    """
    brought = brought_rule(problem, actions, name)
    if brought is not None:
        return brought
    found = on_arrays(problem, actions, name)
    if not isinstance(found.rule, MeanField):
        return found
    at = problem.start_distribution.argmax(axis=1) if state is None else state
    beside = problem.start_shared if shared is None else shared
    made = found.rule.plan(at, period, beside)
    dynamics: Any = problem.dynamics
    index, arm = made.index, np.arange(len(at))

    def planned(states: np.ndarray, now: int, shared: np.ndarray | None) -> np.ndarray:
        if made.by_hand:
            score = np.asarray(dynamics.hand(states, now, shared))
        else:
            score = index[min(max(now - period, 0), len(index) - 1)][arm, states]
        return np.stack([np.zeros_like(score), score], axis=-1)

    return ScoreRule(problem, actions, planned)


class SingleGains:
    """What acting on each arm alone adds to the round's expected reward, whatever else is done."""

    note = ""
    batched = True
    """Whether states (B, N) are scored together."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def scores(
        self,
        state: np.ndarray,
        period: int,
        rng: np.random.Generator | None = None,
        shared: np.ndarray | None = None,
    ) -> np.ndarray:
        """Gain of each arm-action, passive 0, (..., N, A)."""
        problem, states = self.problem, np.asarray(state)
        dynamics: Any = problem.dynamics
        if callable(getattr(dynamics, "alone", None)):
            gain = dynamics.alone(states, shared)
            return np.stack([np.zeros_like(gain), gain], axis=-1)
        idle = problem.expected_reward(states, np.zeros_like(states), shared)
        found = [np.zeros(states.shape)]
        for level in range(1, dynamics.n_actions):
            if getattr(dynamics, "coupled", False):
                single = level * np.eye(problem.n_arms, dtype=np.int64)
                beside = None if shared is None else np.asarray(shared)[..., None, :]
                paid = problem.expected_reward(states[..., None, :], single, beside).sum(axis=-1)
                found.append(paid - idle.sum(axis=-1, keepdims=True))
            else:
                found.append(problem.expected_reward(states, np.full_like(states, level), shared) - idle)
        return np.stack(found, axis=-1)


@registry.register("rule", "single_gains")
def single_gains(problem: Problem, actions: ActionSet) -> SingleGains:
    """What acting on each arm alone adds to this round's expected reward, summed over arms."""
    return SingleGains(problem)


def rollouts_of(problem: Problem, actions: ActionSet, base: BatchRule) -> Rollouts:
    """Roll-outs of a base: those that the dynamics bring (``rollouts(problem, actions, base)``), else simulated."""
    own = getattr(problem.dynamics, "rollouts", None)
    found: Rollouts = own(problem, actions, base) if callable(own) else Rollouts(problem, actions, base)
    return found


class Rollouts:
    """Totals from a state to the end: candidates now, a base rule from the next round on, all by the same draws.

    Parameters
    ----------
    base
        Runs on arrays; see :func:`base_rule`.
    """

    def __init__(self, problem: Problem, actions: ActionSet, base: BatchRule) -> None:
        self.problem, self.actions, self.base = problem, actions, base
        self._dynamics: Any = problem.dynamics
        self.expected = problem.says_expected and not getattr(problem.dynamics, "realised", False)
        """Whether expected rewards are added, not those that episodes earn."""

    def __call__(
        self,
        state: np.ndarray,
        period: int,
        shared: np.ndarray | None,
        first: np.ndarray,
        draws: int,
        rng: np.random.Generator,
        *,
        common: bool = True,
    ) -> np.ndarray:
        """Discounted totals (M, draws) of first actions (M, C) at a state (N,); ``common`` False draws anew for each.

        Rewards are the expected ones of the states met, of a simulator that does not say them the realised ones.
        """
        beside = None if shared is None else np.asarray(shared)[None]
        return self.many(np.asarray(state)[None], period, beside, first[None], draws, rng, common=common)[0]

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
        """Totals (B, M, draws) of first actions (B, M, C) at states (B, N) of one round and shared states (B, K).

        The first actions of one state meet the same draws, different states meet different ones.
        """
        problem, columns = self.problem, self.actions.columns
        shape = (*first.shape[:2], draws)
        at = np.broadcast_to(states[:, None, None], (*shape, problem.n_arms))
        beside = None if shared is None else np.broadcast_to(shared[:, None, None], (*shape, shared.shape[-1])).copy()
        totals, weight = np.zeros(shape), 1.0
        for now in range(period, problem.horizon):
            checkpoint()
            if now == period:
                acted = columns.arm_action(first.reshape(-1, first.shape[-1])).reshape(*shape[:2], 1, -1)
                acted = np.broadcast_to(acted, at.shape)
            else:
                flat = None if beside is None else beside.reshape(-1, beside.shape[-1])
                acted = columns.arm_action(self.base(at.reshape(-1, problem.n_arms), now, flat)).reshape(at.shape)
            if self.expected:
                totals += weight * problem.expected_reward(at, acted, beside).sum(axis=-1)
            if now + 1 < problem.horizon or not self.expected:
                at, beside, paid = self._move(at, acted, beside, rng, common)
                totals += 0.0 if self.expected else weight * paid.sum(axis=-1)
            weight *= problem.discount
        return totals

    def _move(
        self,
        states: np.ndarray,
        acted: np.ndarray,
        beside: np.ndarray | None,
        rng: np.random.Generator,
        common: bool,
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Next states, shared states and realised rewards."""
        batch, count, draws, _ = states.shape
        if common and hasattr(self._dynamics, "moved_together"):
            moved = self._dynamics.moved_together(states, acted, rng)
            return moved, beside, self._dynamics.value * moved
        if hasattr(self._dynamics, "uniforms"):
            shape = (batch, 1, draws) if common else (batch, count, draws)
            given = np.zeros(0) if beside is None else beside
            moved = self._dynamics.moved(states, acted, beside, self._dynamics.uniforms(shape, rng))
            if beside is None:
                return moved, None, self._dynamics.paid(moved)
            after = self._dynamics.shared_next(states, acted, given, moved)
            return moved, np.broadcast_to(after, beside.shape).copy(), self._dynamics.paid(moved)
        # A simulator only: the same seed for every first action, whose steps take the same draws whatever is done.
        seeds = rng.integers(2**63, size=(batch, 1 if common else count))
        seeds = np.broadcast_to(seeds, (batch, count))
        made = [
            self.problem.step(
                states[b, k], acted[b, k], None if beside is None else beside[b, k], np.random.default_rng(seeds[b, k])
            )
            for b in range(batch)
            for k in range(count)
        ]
        after = None if beside is None else np.stack([np.asarray(part[2]) for part in made]).reshape(beside.shape)
        paid = np.stack([part[1] for part in made]).reshape(states.shape)
        return np.stack([part[0] for part in made]).reshape(states.shape), after, paid


@dataclass(frozen=True, eq=False)
class Improvement:
    """What one improvement found.

    Parameters
    ----------
    action
        The action to take, (C,).
    base
        The base rule's own.
    gain, error
        Mean and standard error of the action's gain over the base's in fresh draws; 0 where the base is kept.
    singles
        What acting on each column alone adds, (C,).
    draws
        Roll-outs spent.
    """

    action: np.ndarray
    base: np.ndarray
    gain: float
    error: float
    singles: np.ndarray
    draws: int


def single_effects(
    rollouts: Rollouts,
    state: np.ndarray,
    period: int,
    shared: np.ndarray | None,
    draws: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, int]:
    """What acting on each column alone now adds to acting on none, (C,), and the roll-outs it took.

    A base that says which columns are worth a look (``looked_at``) spares the others: they count as the least of those.
    """
    n = len(rollouts.actions)
    looked = getattr(rollouts.base, "looked_at", None)
    if looked is not None and n > SCREENED:
        among = looked(state, period)
        first = np.vstack([np.zeros((1, n), dtype=np.int64), np.eye(n, dtype=np.int64)[among]])
        totals = rollouts(state, period, shared, first, draws, rng)
        adds = (totals[1:] - totals[:1]).mean(axis=1)
        effect = np.full(n, min(0.0, float(adds.min())))
        effect[among] = adds
        return effect, totals.size
    first = np.vstack([np.zeros((1, n), dtype=np.int64), np.eye(n, dtype=np.int64)])
    few = max(2, draws // 6)
    if n <= SCREENED or few >= draws:
        totals = rollouts(state, period, shared, first, draws, rng)
        return (totals[1:] - totals[:1]).mean(axis=1), totals.size
    totals = rollouts(state, period, shared, first, few, rng)
    effect = (totals[1:] - totals[:1]).mean(axis=1)
    best = np.sort(np.argsort(-effect, kind="stable")[:SCREENED])
    more = rollouts(state, period, shared, first[np.r_[0, 1 + best]], draws, rng)
    effect[best] = (few * effect[best] + draws * (more[1:] - more[:1]).mean(axis=1)) / (few + draws)
    return effect, totals.size + more.size


def improve(
    rollouts: Rollouts,
    actions: ActionSet,
    state: np.ndarray,
    period: int,
    shared: np.ndarray | None,
    draws: int,
    rng: np.random.Generator,
    *,
    keep: float = 1.0,
    base: np.ndarray | None = None,
    until: float = np.inf,
) -> Improvement:
    """A better action than the base rule's, where fresh draws say so; see the module.

    Parameters
    ----------
    actions
        What may be done now.
    draws
        Roll-outs an arm; the candidates get twice as many.
    keep
        Standard errors by which an action must beat the base's.
    base
        The base's own action, (C,), where it is known better than the rule on arrays says it.
    until
        Time (``perf_counter``) at which the best found so far is the answer.
    """
    beside = None if shared is None else shared[None]
    own = rollouts.base(np.asarray(state)[None], period, beside)[0] if base is None else base
    # Of a few allowed actions every one is a candidate, and nothing has to be guessed from single columns.
    every = actions.enumerate(FEW) if len(actions) <= FEW else None
    effect, spent = np.zeros(len(actions)), 0
    if every is not None and len(every) <= FEW:
        candidates = [own, *every.astype(np.int64)]
    else:
        effect, spent = single_effects(rollouts, state, period, shared, draws, rng)
        found = best_action(actions, effect[None])[0]
        brought = getattr(rollouts.base, "others", None)
        # Where single columns add nothing (a class needs several), only whole actions can show what they are worth.
        candidates = [own, found, *_swaps(actions, found, effect), *_swaps(actions, own, effect)]
        if perf_counter() < until:
            grown, more = _grown(rollouts, actions, state, period, shared, max(2, draws // 2), rng, effect)
            candidates[2:2], spent = [grown], spent + more
        candidates += list(actions.sample(rng, SAMPLED)) if brought is None else brought(state, period)
    _, first = np.unique(np.stack(candidates), axis=0, return_index=True)
    listed = np.stack([candidates[k] for k in np.sort(first)])
    best, gain, error, more = _race(rollouts, listed, state, period, shared, draws, rng, until)
    better = gain > keep * error and best > 0
    action = listed[best] if better else own
    return Improvement(action, own, gain * better, error * better, effect, spent + more)


def _race(
    rollouts: Rollouts,
    candidates: np.ndarray,
    state: np.ndarray,
    period: int,
    shared: np.ndarray | None,
    draws: int,
    rng: np.random.Generator,
    until: float,
) -> tuple[int, float, float, int]:
    """The best of candidates (M, C) by fresh draws, its gain over the first, that gain's standard error, roll-outs.

    Those that are two standard errors behind leave; all ends when one is left, or when time is up.
    """
    alive, totals, spent = np.arange(len(candidates)), np.zeros((len(candidates), 0)), 0
    mean = error = np.zeros(len(candidates))
    for _ in range(CHUNKS):
        if spent and perf_counter() > until:
            break
        more = rollouts(state, period, shared, candidates[alive], max(2, 2 * draws // CHUNKS), rng)
        totals = np.hstack([totals[: len(alive)], more])
        spent += more.size
        mean, error = _mean_error(totals - totals[:1])
        best = int(mean.argmax())
        behind, noise = _mean_error(totals - totals[best])
        stay = (behind + 2.0 * noise >= 0.0) | (np.arange(len(alive)) == 0)
        stay[best] = True
        alive, totals, mean, error = alive[stay], totals[stay], mean[stay], error[stay]
        if len(alive) == 1 or more.shape[1] == 1:
            break
    best = int(mean.argmax())
    return int(alive[best]), float(mean[best]), float(error[best]), spent


def _mean_error(apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of rows and their standard errors; 0 where a row is one exact number."""
    count = apart.shape[1]
    error = apart.std(axis=1, ddof=1) / count**0.5 if count > 1 else np.zeros(len(apart))
    return apart.mean(axis=1), error


def _grown(
    rollouts: Rollouts,
    actions: ActionSet,
    state: np.ndarray,
    period: int,
    shared: np.ndarray | None,
    draws: int,
    rng: np.random.Generator,
    effect: np.ndarray,
) -> tuple[np.ndarray, int]:
    """An action grown one column at a time by what each adds to those before, by roll-outs; and their number.

    Each step looks again only at the best of the effects known so far, as lazy greedy does. Sets with large counts or
    that cannot be grown keep the best sum of single effects.
    """
    most = actions.shape.at_most if actions.monotone and not actions.structured else None
    if most is None or not 1 < most <= GROWN:
        return best_action(actions, effect[None])[0], 0
    room, upper, spent = actions.shape.room(), effect.copy(), 0
    for _ in range(most):
        checkpoint()
        fitting = room.fitting(np.flatnonzero(np.isfinite(upper)))
        if not len(fitting):
            break
        looked = fitting[np.argsort(-upper[fitting], kind="stable")[:LOOKED]]
        first = np.repeat(room.action[None], 1 + len(looked), axis=0)
        first[1 + np.arange(len(looked)), looked] = 1
        totals = rollouts(state, period, shared, first, draws, rng)
        spent += totals.size
        adds = (totals[1:] - totals[:1]).mean(axis=1)
        upper[looked] = adds
        if adds.max() <= 0:
            break
        column = int(looked[adds.argmax()])
        room.take(column)
        upper[column] = -np.inf
    return room.action, spent


def _swaps(actions: ActionSet, found: np.ndarray, effect: np.ndarray) -> list[np.ndarray]:
    """Allowed swaps of an action's weakest columns for the best outside it."""
    inside, outside = np.flatnonzero(found == 1), np.flatnonzero(found == 0)
    into = outside[np.argsort(-effect[outside], kind="stable")[:SWAPPED_IN]]
    out = inside[np.argsort(effect[inside], kind="stable")[:SWAPPED_OUT]]
    made = []
    for one in into:
        for other in out:
            changed = found.copy()
            changed[one], changed[other] = 1, 0
            if actions.allows(changed):
                made.append(changed)
    return made
