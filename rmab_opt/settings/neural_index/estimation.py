"""Transitions from what was seen: estimates with smoothing and intervals, and a policy that re-fits as it acts.

A count of moves per arm, state and action is turned into probabilities by a Dirichlet prior centred on what similar
arms did: few data lean on the cohort, many speak for themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rmab_opt.decisions import Model, Scores
from rmab_opt.decisions.policy import Decider, Memory, Policy, adapted, round_of
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.errors import ModelError
from rmab_opt.learning.simulator import Simulator
from rmab_opt.overdue import checkpoint
from rmab_opt.problem import Problem, Tabular
from rmab_opt.settings.neural_index.index import NeuralIndex

__all__ = ["Estimate", "RefittedIndex", "Trajectories", "collect", "count_moves", "estimate", "with_estimate"]


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Logged rounds: ``state`` (E, T + 1, N), -1 where missing, and the arms' ``action`` (E, T, N), both int64."""

    state: np.ndarray
    action: np.ndarray

    def __post_init__(self) -> None:
        state, action = np.asarray(self.state), np.asarray(self.action)
        if state.ndim != 3 or action.shape != (state.shape[0], state.shape[1] - 1, state.shape[2]):
            raise ModelError(
                f"trajectories: state {state.shape}, action {action.shape}", "give (E, T + 1, N) and (E, T, N)."
            )
        object.__setattr__(self, "state", state.astype(np.int64))
        object.__setattr__(self, "action", action.astype(np.int64))


def collect(
    model: Model, policy: Policy | Decider, episodes: int, *, seed: int = 0, rounds: int | None = None
) -> Trajectories:
    """Trajectories of a policy in simulation, all actions checked; exploration needs a policy that varies.

    Parameters
    ----------
    rounds
        Rounds an episode; the model's horizon by default.
    """
    moves, choices = np.random.SeedSequence(seed).spawn(2)
    simulator = Simulator(model.problem, model.actions, moves.spawn(episodes))
    chosen = adapted(policy, model)
    memories = [chosen.begin(np.random.default_rng(child)) for child in choices.spawn(episodes)]
    states, actions = [simulator.state], []
    for period in range(model.problem.horizon if rounds is None else rounds):
        checkpoint()
        found = round_of(chosen, simulator.state, period, memories, simulator.shared)
        memories = found.memories
        made = np.stack([decision.action for decision in found.decisions])
        actions.append(model.actions.columns.arm_action(made))
        simulator.step(made, checked=True)
        states.append(simulator.state)
    return Trajectories(np.stack(states, axis=1), np.stack(actions, axis=1))


def count_moves(seen: Trajectories, n_states: int, n_actions: int) -> np.ndarray:
    """How often arm n went from s to s' under a, float64 (N, A, S, S); rounds with a missing state are left out.

    Raises
    ------
    ModelError
        When a state or an action is out of range.
    """
    before, after, action = seen.state[:, :-1], seen.state[:, 1:], seen.action
    if seen.state.max(initial=0) >= n_states or action.max(initial=0) >= n_actions or action.min(initial=0) < 0:
        raise ModelError(f"a state is not below {n_states} or an action not below {n_actions}", "check the log.")
    known = (before >= 0) & (after >= 0)
    arm = np.broadcast_to(np.arange(before.shape[2]), before.shape)
    counts = np.zeros((before.shape[2], n_actions, n_states, n_states))
    np.add.at(counts, (arm[known], action[known], before[known], after[known]), 1.0)
    return counts


@dataclass(frozen=True, eq=False)
class Estimate:
    """Estimated transitions.

    ``transition`` is P[n, a, s, s'], (N, A, S, S), the posterior mean; ``low`` and ``high`` are the ends of each
    probability's interval, same shape; ``counts`` the moves seen; ``level`` the intervals' level.
    """

    transition: np.ndarray
    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    level: float

    @property
    def unseen(self) -> float:
        """Share of (arm, action, state) that no round showed: there the estimate is the prior."""
        return float((self.counts.sum(axis=3) == 0).mean())


def estimate(counts: np.ndarray, *, smoothing: float = 10.0, prior: str = "cohort", level: float = 0.95) -> Estimate:
    """Posterior mean and equal-tailed intervals of every transition probability.

    Parameters
    ----------
    counts
        Moves, (N, A, S, S), from :func:`count_moves`.
    smoothing
        Weight of the prior, in moves.
    prior
        ``cohort``: what all arms together did in that state under that action, itself smoothed by one even move;
        ``even``: all next states alike.
    level
        Of the intervals, each probability by itself (a beta distribution).

    Raises
    ------
    ModelError
        When counts are negative or a setting is out of range.
    """
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 4 or counts.shape[2] != counts.shape[3] or not (counts >= 0).all():
        raise ModelError(f"counts have shape {counts.shape}, or one is negative", "give (N, A, S, S).")
    if not smoothing > 0 or not 0 < level < 1 or prior not in ("cohort", "even"):
        raise ModelError(
            f"smoothing {smoothing}, level {level}, prior {prior!r}", "give above 0, within 0 to 1, cohort or even."
        )
    n_states = counts.shape[3]
    even = np.full(counts.shape[1:], 1.0 / n_states)
    pooled = counts.sum(axis=0) + even
    centre = pooled / pooled.sum(axis=2, keepdims=True) if prior == "cohort" else even
    weight = counts + smoothing * centre
    total = weight.sum(axis=3, keepdims=True)
    tail = 0.5 * (1.0 - level)
    from scipy.special import betaincinv

    low = betaincinv(weight, total - weight, tail)
    high = betaincinv(weight, total - weight, 1.0 - tail)
    return Estimate(weight / total, low, high, counts, level)


def with_estimate(problem: Problem, found: Estimate) -> Problem:
    """The problem as the estimate sees it: estimated moves, the true rewards, same arms and start."""
    reward = problem.dynamics.tabular()[1]
    dynamics = Tabular(found.transition, reward)
    return Problem(problem.arms, dynamics, problem.horizon, problem.discount, problem.start)


class RefittedIndex(Policy):
    """Acts by a trained network on estimates that grow with every round it sees.

    The network reads transitions as features, so a re-fit is one forward pass: nothing is trained or solved again.

    Parameters
    ----------
    model
        Cohort and constraints; its transitions are never read, its rewards are.
    network
        Trained on any cohort with the features ``tables`` or ``summary``.
    every
        Rounds between re-fits.
    counts
        Moves known before, (N, A, S, S); none by default.
    forget
        Factor on old counts at each round, below 1 when the dynamics drift.
    options
        Of :func:`estimate`.
    """

    name = "refitted_index"

    def __init__(
        self,
        model: Model,
        network: NeuralIndex,
        *,
        every: int = 1,
        counts: np.ndarray | None = None,
        forget: float = 1.0,
        **options: Any,
    ) -> None:
        if every < 1 or not 0 < forget <= 1:
            raise ModelError(f"every {every}, forget {forget}", "give at least 1, and above 0 up to 1.")
        dynamics = model.problem.dynamics
        super().__init__(model)
        self.network, self.every, self.fading, self.options = network, every, forget, options
        shape = (model.problem.n_arms, dynamics.n_actions, dynamics.n_states, dynamics.n_states)
        self.counts = np.zeros(shape) if counts is None else np.array(counts, dtype=np.float64)
        self.refits, self._since = 0, 0
        self._refit()

    def _refit(self) -> None:
        found = estimate(self.counts, **self.options)
        self.table = self.network.indices(with_estimate(self.model.problem, found))
        self.refits += 1

    def update(self, state: np.ndarray, action: np.ndarray, following: np.ndarray) -> None:
        """Learn from one round: states (N,), actions of the arms (N,), next states (N,)."""
        arm = np.arange(len(state))
        if self.fading < 1.0:
            self.counts *= self.fading
        np.add.at(self.counts, (arm, action, state, following), 1.0)
        self._since += 1
        if self._since >= self.every:
            self._since = 0
            self._refit()

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        """About the sum of indices under the present estimate."""
        return question.about(Scores(self.table[np.arange(len(question.state)), question.state])), memory

    def run(self, rounds: int, *, seed: int = 0, world: Problem | None = None) -> np.ndarray:
        """Act, learn and re-fit for some rounds in one long episode; expected reward of each round, (rounds,).

        Parameters
        ----------
        world
            What really happens; the model's own problem by default.
        """
        truth = self.model.problem if world is None else world
        rng = np.random.default_rng(seed)
        state, earned = truth.sample_start(rng), np.zeros(rounds)
        for k in range(rounds):
            checkpoint()
            action = self.model.actions.columns.arm_action(self.decide(state).action)
            earned[k] = truth.dynamics.expected_reward(state, action).sum()
            following, _ = truth.dynamics.step(state, action, rng)
            self.update(state, action, following)
            state = following
        return earned
