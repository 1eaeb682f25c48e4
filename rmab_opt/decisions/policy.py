"""Policies: how an action is chosen round after round, by name.

A new policy is a file in :mod:`rmab_opt.decisions.policies` with a line ``@policy("name")``; simulation, tables and
the command line find it by that name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from rmab_opt import registry
from rmab_opt.decisions.chooser import Chooser
from rmab_opt.decisions.decision import Decision
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.objective import ArmValues, Immediate, Objective, Situation
from rmab_opt.errors import ModelError, SolverError

__all__ = [
    "POLICIES",
    "ChooserPolicy",
    "Greedy",
    "Policy",
    "RulePolicy",
    "decisions",
    "known_policy",
    "make_policy",
    "policy",
    "unproven",
]


class Policy(Protocol):
    """What simulation asks of a policy."""

    name: str

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        """An allowed action at state (N,), with what is known of its quality."""
        ...


def policy(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a policy's factory: called with the model, its keyword-only parameters are the policy's arguments."""
    return registry.register("policy", name)


POLICIES = registry.Registered("policy")
"""Names of all policies to what makes them."""


def make_policy(given: str | Policy, model: Model) -> Policy:
    """A policy by name, or the object itself; arguments follow a colon (``iterative_dqn:runs/a``).

    Raises
    ------
    ModelError
        When no policy has that name, naming the nearest one, or an argument is missing or unknown.
    """
    if not isinstance(given, str):
        return given
    made: Policy = registry.make("policy", given, model)
    made.name = given
    return made


def known_policy(given: str) -> bool:
    """Whether :func:`make_policy` knows the name before a possible argument."""
    return registry.known("policy", given.partition(":")[0])


def unproven(model: Model, action: np.ndarray, state: np.ndarray, period: int, name: str) -> Decision:
    """A decision without a program: allowed and valued, nothing proven about its quality."""
    situation = Situation(model.problem, model.actions.columns, state, period)
    value = Immediate().value(action, situation)
    return Decision(
        ids=model.actions.columns.ids,
        action=action,
        state=state,
        value=value,
        bound=np.inf,
        bound_kind="none",
        encoding_error=0.0,
        violations=model.actions.violations(action),
        status="heuristic",
        solver=name,
        seconds=0.0,
        period=period,
        title=model.title,
    )


class Greedy:
    """Adds the column with the largest gain in an objective, one by one, while something gains and fits.

    Where the constraints ask for a least number, it goes on with the smallest loss until they are met. Every column is
    looked at once as the best of a step, so it ends after at most C steps; it carries no guarantee.

    Parameters
    ----------
    objective
        What gains are measured in: the round's expected reward, a trained network.
    name
        Of the policy.

    Raises
    ------
    ModelError
        On deciding, when lower limits are left unmet.
    """

    def __init__(self, model: Model, objective: Objective, name: str) -> None:
        self.model, self.objective, self.name = model, objective, name
        plain = model.actions.plain_rows
        # Upper limits of rows that no column lowers must hold all along; the other rows only at the end.
        self._lasting = np.asarray(plain.matrix.min(axis=1).toarray()).ravel() >= 0

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        actions, plain = self.model.actions, self.model.actions.plain_rows
        situation = Situation(self.model.problem, actions.columns, state, period)
        action = np.zeros(len(actions), dtype=np.int64)
        value, open_columns = self.objective.value(action, situation), np.ones(len(actions), dtype=bool)
        while open_columns.any():
            candidates = np.flatnonzero(open_columns)
            trials = np.repeat(action[None], len(candidates), axis=0)
            trials[np.arange(len(candidates)), candidates] = 1
            used = trials.astype(np.float64) @ plain.matrix.T
            fits = (~self._lasting | (used <= plain.upper + plain.slack)).all(axis=1)
            values = np.where(fits, self.objective.batch_value(trials, situation), -np.inf)
            best = int(np.argmax(values))
            if not fits[best] or (values[best] <= value and plain.allow(action)):
                break
            open_columns[candidates[best]] = False
            if not any(actions.breaks(name, trials[best]) for name in actions.structured):
                action, value = trials[best], float(values[best])
        if not actions.allows(action):
            raise ModelError(
                f"policy {self.name!r} ended with {', '.join(actions.violations(action))} unmet", "use policy 'myopic'."
            )
        return unproven(self.model, action, state, period, self.name)


class ChooserPolicy:
    """A policy that maximises an objective exactly each round, through one compiled program."""

    def __init__(self, chooser: Chooser, name: str) -> None:
        self.chooser, self.name = chooser, name

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        return self.chooser.decide(state, period)

    def forget(self) -> None:
        """Drop what earlier decisions left in the solver."""
        self.chooser.forget()


class _RoundScores(ArmValues):
    """Scores of the arms in this round, (N, A), as a rule has just given them."""

    def __init__(self, n_arms: int, n_actions: int) -> None:
        self.now = np.zeros((n_arms, n_actions))

    def arm_values(self, situation: Situation) -> np.ndarray:
        return self.now


class RulePolicy:
    """A rule of :mod:`rmab_opt.planning`: its scores become the objective, so that any action set holds exactly."""

    def __init__(self, model: Model, name: str, make: Callable[..., Any]) -> None:
        self.name = name
        self.rule = make(model.problem, model.actions)
        self.note = getattr(self.rule, "note", "")
        self._objective = _RoundScores(model.problem.n_arms, model.problem.dynamics.n_actions)
        self.chooser = Chooser(model.problem, model.actions, self._objective, model.solver, title=model.title)

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        self._objective.now = self.rule.scores(state, period, rng)
        return self.chooser.decide(state, period)


def decisions(
    chosen: Policy, states: np.ndarray, period: int, generators: list[np.random.Generator]
) -> Iterator[Decision]:
    """One decision an episode, states (E, N); each is checked to be allowed unless the policy says it was relaxed."""
    for state, rng in zip(states, generators, strict=True):
        made = chosen.decide(state, period, rng)
        if made.violations and made.relaxed is None:
            raise SolverError(
                f"policy {chosen.name!r} chose a forbidden action: {made.violations}", "repair the policy."
            )
        yield made
