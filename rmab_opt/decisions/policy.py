"""Policies: how an action is chosen round after round, by name.

A new policy is a class with ``decide`` and a line ``@policy("name")``; simulation, tables and the
command line find it by that name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import numpy as np

from rmab_opt.decisions.chooser import Chooser
from rmab_opt.decisions.decision import Decision
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.objective import ArmValues, Immediate, Scores, Situation
from rmab_opt.errors import ModelError, SolverError
from rmab_opt.planning import RULES, TABLES
from rmab_opt.problem.dynamics import require_tabular
from rmab_opt.problem.table import nearest

__all__ = ["POLICIES", "Policy", "make_policy", "policy"]


class Policy(Protocol):
    """What simulation asks of a policy."""

    name: str

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        """An allowed action at state (N,), with what is known of its quality."""
        ...


POLICIES: dict[str, Callable[[Model], Any]] = {}
"""Factories by name."""


def policy(name: str) -> Callable[[Callable[[Model], Any]], Callable[[Model], Any]]:
    """Register a policy's factory (usually the class) under a name."""

    def register(factory: Callable[[Model], Any]) -> Callable[[Model], Any]:
        POLICIES[name] = factory
        return factory

    return register


def make_policy(given: str | Policy, model: Model) -> Policy:
    """A policy by name, or the object itself.

    Raises
    ------
    ModelError
        When no policy has that name; names the nearest one.
    """
    if not isinstance(given, str):
        return given
    if given not in POLICIES:
        raise ModelError(f"no policy {given!r}", nearest(given, list(POLICIES)))
    made: Policy = POLICIES[given](model)
    made.name = given
    return made


def _unproven(model: Model, action: np.ndarray, state: np.ndarray, period: int, name: str) -> Decision:
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


@policy("none")
class NoAction:
    """Acts on as few columns as the constraints allow: on none, where they allow that."""

    name = "none"

    def __init__(self, model: Model) -> None:
        self.model = model
        self._idle = np.zeros(len(model.actions), dtype=np.int64)
        if not model.actions.allows(self._idle):
            fewest = Scores(-np.ones(len(model.actions)))
            state = model.problem.sample_start(np.random.default_rng(0))
            self._idle = Chooser(model.problem, model.actions, fewest, model.solver).decide(state).action

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        return _unproven(self.model, self._idle, state, period, self.name)


@policy("random")
class RandomAction:
    """A random allowed action, grown until nothing fits."""

    name = "random"

    def __init__(self, model: Model) -> None:
        self.model = model

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        return _unproven(self.model, self.model.actions.sample(rng)[0], state, period, self.name)


@policy("sampling")
class Sampling:
    """The best of many random allowed actions by the round's expected reward."""

    name = "sampling"

    def __init__(self, model: Model, draws: int = 100) -> None:
        self.model, self.draws = model, draws

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        actions = self.model.actions.sample(rng, self.draws)
        situation = Situation(self.model.problem, self.model.actions.columns, state, period)
        values = Immediate().batch_value(actions, situation)
        return _unproven(self.model, actions[int(np.argmax(values))], state, period, self.name)


@policy("iterative_myopic")
class IterativeMyopic:
    """Adds the column with the largest gain in the round's expected reward, one by one, while something gains and fits.

    The greedy baseline of the published comparisons, made to stop; it carries no guarantee.
    """

    name = "iterative_myopic"

    def __init__(self, model: Model) -> None:
        self.model = model

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        actions, objective = self.model.actions, Immediate()
        situation = Situation(self.model.problem, actions.columns, state, period)
        action = np.zeros(len(actions), dtype=np.int64)
        if not actions.allows(action):
            raise ModelError(
                "policy 'iterative_myopic' begins with nobody chosen, which the constraints forbid", "use 'myopic'."
            )
        value, open_columns = objective.value(action, situation), np.ones(len(actions), dtype=bool)
        while open_columns.any():
            candidates = np.flatnonzero(open_columns)
            trials = np.repeat(action[None], len(candidates), axis=0)
            trials[np.arange(len(candidates)), candidates] = 1
            fits = actions.plain_rows.allow(trials)
            values = np.where(fits, objective.batch_value(trials, situation), -np.inf)
            best = int(np.argmax(values))
            if values[best] <= value:
                break
            open_columns[candidates[best]] = False
            if actions.allows(trials[best]):
                action, value = trials[best], float(values[best])
        return _unproven(self.model, action, state, period, self.name)


class ChooserPolicy:
    """A policy that maximises an objective exactly each round, through one compiled program."""

    def __init__(self, chooser: Chooser, name: str) -> None:
        self.chooser, self.name = chooser, name

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        return self.chooser.decide(state, period)

    def forget(self) -> None:
        """Drop what earlier decisions left in the solver."""
        self.chooser.forget()


@policy("myopic")
def _myopic(model: Model) -> ChooserPolicy:
    return ChooserPolicy(Chooser(model.problem, model.actions, Immediate(), model.solver, title=model.title), "myopic")


@policy("model")
def _own(model: Model) -> ChooserPolicy:
    """The model's own objective."""
    return ChooserPolicy(
        Chooser(model.problem, model.actions, model.objective, model.solver, title=model.title), "model"
    )


class _RoundScores(ArmValues):
    """Scores of the arms in this round, (N, A), as a rule has just given them."""

    def __init__(self, n_arms: int, n_actions: int) -> None:
        self.now = np.zeros((n_arms, n_actions))

    def arm_values(self, situation: Situation) -> np.ndarray:
        return self.now


class RulePolicy:
    """A rule of :mod:`rmab_opt.planning`: its scores become the objective, so that any action set holds exactly."""

    def __init__(self, model: Model, name: str, make: Callable[..., Any]) -> None:
        require_tabular(model.problem.dynamics, f"policy {name!r}")
        self.name = name
        self.rule = make(model.problem, model.actions)
        self.note = getattr(self.rule, "note", "")
        self._objective = _RoundScores(model.problem.n_arms, model.problem.dynamics.n_actions)
        self.chooser = Chooser(model.problem, model.actions, self._objective, model.solver, title=model.title)

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        self._objective.now = self.rule.scores(state, period, rng)
        return self.chooser.decide(state, period)


for _name, _make in {**TABLES, **RULES}.items():
    POLICIES[_name] = partial(RulePolicy, name=_name, make=_make)


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
