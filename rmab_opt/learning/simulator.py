"""Parallel episodes of a problem under an action set; refuses what the checkers refuse."""

from __future__ import annotations

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.errors import ModelError
from rmab_opt.planning.improve import BatchRule
from rmab_opt.problem import Problem
from rmab_opt.problem.coupled import CoupledArms

__all__ = ["Simulator", "played"]


class Simulator:
    """E episodes that run side by side, each with its own generator.

    Every episode consumes the same draws whatever is done in it, so that policies simulated with the
    same seed meet common random numbers.

    Parameters
    ----------
    problem, actions
        What is simulated.
    seeds
        One entry an episode; ``numpy.random.default_rng`` accepts each.
    """

    def __init__(self, problem: Problem, actions: ActionSet, seeds: list[np.random.SeedSequence]) -> None:
        self.problem, self.actions = problem, actions
        self.generators = [np.random.default_rng(seed) for seed in seeds]
        self.period = 0
        self.state = np.empty((0, problem.n_arms), dtype=np.int64)
        self.shared: np.ndarray | None = None
        """Shared state of every episode, (E, K), where the arms have one."""
        self.reset()

    def reset(self) -> np.ndarray:
        """Start all episodes anew; states (E, N)."""
        self.period = 0
        self.state = np.stack([self.problem.sample_start(rng) for rng in self.generators])
        start = self.problem.start_shared
        self.shared = None if start is None else np.repeat(start[None], len(self.generators), axis=0)
        return self.state

    def sets(self) -> list[ActionSet]:
        """What may be done in each episode now; one object for all where nothing depends on round or shared state."""
        problem, actions = self.problem, self.actions
        if self.shared is None:
            return [actions.at(self.period)] * len(self.generators)
        return [actions.at(self.period, problem.shared_values(shared)) for shared in self.shared]

    def step(self, action: np.ndarray, *, checked: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
        """One round of all episodes.

        Parameters
        ----------
        action
            0/1, shape (E, C).
        checked
            Whether the caller has just had every action verified.

        Returns
        -------
        tuple
            Next states (E, N), realised reward a arm (E, N), expected reward a arm (E, N), and whether
            the horizon is reached.

        Raises
        ------
        ModelError
            When an action breaks a constraint; names it.
        """
        if not checked:
            for row, allowed in zip(np.atleast_2d(action), self.sets(), strict=True):
                broken = allowed.violations(row)
                if broken:
                    name = next(iter(broken))
                    raise ModelError(f"forbidden action: {name}: {broken[name][0]}", "take an allowed action.")
        arm_action = self.actions.columns.arm_action(action)
        known = self.problem.says_expected
        expected = self.problem.expected_reward(self.state, arm_action, self.shared) if known else None
        self.state, paid, self.shared = self._moved(arm_action)
        self.period += 1
        # What was earned is unbiased where nothing better is known.
        return self.state, paid, paid if expected is None else expected, self.period >= self.problem.horizon

    def _moved(self, arm_action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Next states, realised rewards and shared states of all episodes, each by its own generator."""
        dynamics, states, shared = self.problem.dynamics, self.state, self.shared
        if isinstance(dynamics, CoupledArms) and type(dynamics).step_shared is CoupledArms.step_shared:
            # The draws that each episode's own step would take, moved by together.
            uniforms = np.stack([dynamics.uniforms((), rng) for rng in self.generators])
            moved = dynamics.moved(states, arm_action, shared, uniforms)
            if shared is None:
                return moved, dynamics.paid(moved), None
            after = dynamics.shared_next(states, arm_action, shared, moved)
            return moved, dynamics.paid(moved), np.broadcast_to(after, shared.shape).copy()
        beside = [None] * len(states) if shared is None else shared
        made = [
            self.problem.step(state, act, now, rng)
            for state, act, now, rng in zip(states, arm_action, beside, self.generators, strict=True)
        ]
        together = None if shared is None else np.stack([np.asarray(after) for _, _, after in made])
        return np.stack([state for state, _, _ in made]), np.stack([reward for _, reward, _ in made]), together


def played(problem: Problem, actions: ActionSet, rule: BatchRule, seeds: list[np.random.SeedSequence]) -> np.ndarray:
    """Discounted expected total of each episode under a rule that runs on arrays, (E,).

    Draws are those of :class:`Simulator`: rules, and policies that :func:`rmab_opt.evaluate` plays, are paired.
    """
    simulator, done, weight, total = Simulator(problem, actions, seeds), False, 1.0, np.zeros(len(seeds))
    while not done:
        chosen = rule(simulator.state, simulator.period, simulator.shared)
        _, _, expected, done = simulator.step(chosen)
        total += weight * expected.sum(axis=1)
        weight *= problem.discount
    return total
