"""What a policy promises: allowed actions, the same ones again, and decisions that stand whatever comes after them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rmab_opt.decisions import Decision, Model
from rmab_opt.decisions.policy import Policy, make_policy
from rmab_opt.errors import CapabilityError, ModelError, RmabError
from rmab_opt.problem import Tabular
from rmab_opt.testing.contract import Promise, copied, keep, require, same

__all__ = ["POLICY_PROMISES", "check_policy"]

LATER = 10
"""Decisions after which an earlier one is asked again."""


@dataclass(frozen=True)
class PolicyCase:
    """A policy by name, or a factory called with the model."""

    given: str | Callable[[Model], Policy]
    model: Model
    scales: bool = True
    """Whether rewards in another unit must give the same actions."""

    def make(self, model: Model | None = None) -> Policy:
        """A fresh policy."""
        over = self.model if model is None else model
        return make_policy(self.given, over) if isinstance(self.given, str) else self.given(over)

    def episode(self, policy: Policy, seed: int, model: Model | None = None) -> list[Decision]:
        """The decisions of one episode; moves and choices each have a generator of their own."""
        problem = (self.model if model is None else model).problem
        moves, choices = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
        state, shared, found = problem.sample_start(moves), problem.start_shared, []
        for period in range(problem.horizon):
            made = _decided(policy, state.copy(), period, choices, shared)
            found.append(made)
            state, shared = self.move(made, moves)
        return found

    def move(self, made: Decision, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        """Next state and shared state after a decision."""
        problem = self.model.problem
        acted = self.model.actions.columns.arm_action(made.action)
        shared = problem.shared_array(made.shared) if problem.shared_names else None
        state, _, after = problem.step(np.asarray(made.state), acted, shared, rng)
        return state, after


def _actions(decisions: Sequence[Decision]) -> np.ndarray:
    return np.stack([made.action for made in decisions])


def never_a_forbidden_action(case: PolicyCase) -> None:
    """Every action of an episode is 0/1 over the columns and passes the check, which the decision says too."""
    for seed in range(2):
        for period, made in enumerate(case.episode(case.make(), seed)):
            action = case.model.actions.check_action(made.action)
            allowed = case.model.actions.at(period, made.shared)
            broken = allowed.violations(action)
            require(not broken, f"round {period}: {broken}")
            require(not made.violations, f"round {period}: claims violations {made.violations} of an allowed action")


def decisions_are_of_their_round(case: PolicyCase) -> None:
    """A decision names the model's columns, its state and its round; its value is finite and below its bound."""
    problem, moves = case.model.problem, np.random.default_rng(0)
    policy, state, rng = case.make(), problem.sample_start(moves), np.random.default_rng(1)
    shared = problem.start_shared
    for period in range(problem.horizon):
        given = state.copy()
        made = _decided(policy, given, period, rng, shared)
        require(same(given, state), f"round {period}: the state was changed")
        require(made.ids == case.model.actions.columns.ids, f"round {period}: names other columns")
        require(same(made.state, state), f"round {period}: speaks of state {np.asarray(made.state).tolist()}")
        require(made.period == period, f"round {period}: speaks of round {made.period}")
        require(np.isfinite(made.value), f"round {period}: value {made.value}")
        least = made.value - 1e-6 * (1 + abs(made.value))
        require(made.bound >= least, f"round {period}: bound {made.bound:.9g} below value {made.value:.9g}")
        state, shared = case.move(made, moves)


def same_seed_same_actions(case: PolicyCase) -> None:
    """Two policies made alike, with generators of one seed, act alike over an episode."""
    first, second = (_actions(case.episode(case.make(), 3)) for _ in range(2))
    require(same(first, second), "two episodes of one seed differ")


def an_episode_begins_anew(case: PolicyCase) -> None:
    """What happened in one episode does not reach into the next."""
    policy = case.make()
    case.episode(policy, 4)
    require(same(_actions(case.episode(policy, 3)), _actions(case.episode(case.make(), 3))), "the second differs")


def _explained(made: Decision) -> list[Any]:
    """What a decision says of itself: every why-not that it answers, its alternatives, and its own summary."""
    said: list[Any] = [{key: value for key, value in made.summary().items() if key != "seconds"}]
    for name in made.ids:
        try:
            said.append(made.why_not(name))
        except CapabilityError:
            said.append("cannot say")
        except RmabError as error:
            said.append(str(error))
    try:
        said += [other.chosen for other in made.alternatives(2, within=0.5, differ=0.1)]
    except CapabilityError:
        said.append("cannot say")
    return said


def decisions_stand(case: PolicyCase) -> None:
    """``why_not`` and ``alternatives`` say the same before and after ten more decisions of the same policy."""
    problem, rng, moves = case.model.problem, np.random.default_rng(1), np.random.default_rng(0)
    policy, state, shared = case.make(), problem.sample_start(moves), problem.start_shared
    made = _decided(policy, state.copy(), 0, rng, shared)
    before = _explained(made)
    for k in range(LATER):
        now = _decided(policy, state.copy(), k % problem.horizon, rng, shared)
        state, shared = case.move(now, moves)
        if (k + 1) % problem.horizon == 0:
            state, shared = problem.sample_start(moves), problem.start_shared
    for then, later in zip(before, _explained(made), strict=True):
        require(then == later, f"said {then!r}, after {LATER} more decisions {later!r}")


def pickles(case: PolicyCase) -> None:
    """A copy in another process acts alike."""
    policy = case.make()
    back = copied(policy)
    require(same(_actions(case.episode(back, 3)), _actions(case.episode(policy, 3))), "the copy acts otherwise")


def rewards_in_another_unit(case: PolicyCase) -> None:
    """Rewards times a power of two give the same actions, where the arms are given by tables."""
    dynamics = case.model.problem.dynamics
    if not case.scales or type(dynamics) is not Tabular:
        return
    wanted = _actions(case.episode(case.make(), 3))
    for power in (-10, 10):
        scaled = Tabular(dynamics.transition, dynamics.reward * 2.0**power, state_names=dynamics.state_names)
        other = replace(case.model, problem=replace(case.model.problem, dynamics=scaled))
        found = _actions(case.episode(case.make(other), 3, other))
        require(same(found, wanted), f"rewards times 2^{power} change the actions")


def names_unknown_arguments(case: PolicyCase) -> None:
    """An argument that the policy does not take is refused by a message with its or the policy's name."""
    if not isinstance(case.given, str):
        return
    name = case.given.partition(":")[0]
    try:
        make_policy(f"{name}:no_such_argument=1", case.model)
    except ModelError as error:
        said = str(error)
        require(name in said or "no_such_argument" in said, f"the message names neither policy nor argument: {said}")
    else:
        require(False, "an unknown argument is accepted")


POLICY_PROMISES: tuple[Promise, ...] = (
    never_a_forbidden_action,
    decisions_are_of_their_round,
    same_seed_same_actions,
    an_episode_begins_anew,
    decisions_stand,
    pickles,
    rewards_in_another_unit,
    names_unknown_arguments,
)


def check_policy(
    policy: str | Callable[[Model], Policy],
    model: Model,
    *,
    scales: bool = True,
    promises: Sequence[Promise] = POLICY_PROMISES,
) -> None:
    """Hold a policy to its promises on a small model.

    Parameters
    ----------
    policy
        A registered name with its arguments, or the class or function that makes the policy from a model.
    scales
        Whether the same actions are asked for with rewards in another unit; False where they are settled by programs
        with ties, or by an iteration with a tolerance of its own.

    Raises
    ------
    ContractError
        At the first promise that does not hold; names the policy and the promise.
    """
    name = policy if isinstance(policy, str) else getattr(policy, "__name__", str(policy))
    keep(f"policy {name!r}", PolicyCase(policy, model, scales), promises)


def _decided(policy: Any, state: np.ndarray, period: int, rng: np.random.Generator, shared: np.ndarray | None) -> Any:
    """What a policy decides; an object of somebody's own takes no shared state."""
    return policy.decide(state, period, rng) if shared is None else policy.decide(state, period, rng, shared)
