"""Policies on contact graphs, by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmab_opt.decisions.chooser import Chooser
from rmab_opt.decisions.decision import Decision
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.objective import Scores
from rmab_opt.decisions.policy import Policy, policy, unproven
from rmab_opt.errors import CapabilityError
from rmab_opt.search.hill_climb import Room
from rmab_opt.settings.networked.greedy import CascadeObjective, cascade_dynamics, most_chosen
from rmab_opt.settings.networked.spread import backward_induction


class CascadePolicy:
    """Maximises the round's value on samples: lazily where dropping an arm is always allowed, else by the program."""

    def __init__(self, model: Model, weights: str, *, samples: int = 200, seed: int = 0) -> None:
        cascade_dynamics(model.problem)
        self.name = weights
        budget = float(most_chosen(model.actions)) if weights == "priced" else 0.0
        greedy = model.actions.monotone and not model.actions.structured
        self.objective = CascadeObjective(
            samples, weights, estimator="moves_exact" if greedy else "scenarios", seed=seed, budget=budget
        )
        self.chooser = Chooser(
            model.problem,
            model.actions,
            self.objective,
            model.solver,
            method="greedy" if greedy else "auto",
            title=model.title,
        )

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        return self.chooser.decide(state, period)


@policy("myopic_cascade")
def _myopic_cascade(model: Model) -> CascadePolicy:
    """Expected reward of this round, spread included."""
    return CascadePolicy(model, "reward")


@policy("lookahead_cascade")
def _lookahead_cascade(model: Model) -> CascadePolicy:
    """This round's spread, each active arm worth what it earns until it lapses if nobody acts again."""
    return CascadePolicy(model, "never_again")


@policy("lookahead_priced")
def _lookahead_priced(model: Model) -> CascadePolicy:
    """The same with later actions at the price that just uses the budget."""
    return CascadePolicy(model, "priced")


@policy("random_inactive")
class RandomInactive:
    """A random allowed action on inactive arms; the baseline that published learned policies must beat."""

    name = "random_inactive"

    def __init__(self, model: Model) -> None:
        self.model = model
        self._program: Chooser | None = None

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        acted_on = self.model.actions.columns.effect @ (np.asarray(state) == 0)
        order = rng.permutation(np.flatnonzero(acted_on > 0))
        if self.model.actions.monotone:
            room = Room(self.model.actions)
            for column in order:
                if room(int(column)):
                    room.take(int(column))
            action = room.action
        else:
            # Sets that cannot be grown: the best random scores of inactive arms, nothing for the others.
            scores = np.where(acted_on > 0, rng.random(len(acted_on)), -1.0)
            if self._program is None:
                self._program = Chooser(self.model.problem, self.model.actions, Scores(scores), self.model.solver)
            objective: Any = self._program.objective
            objective.scores = scores
            action = self._program.decide(state, period).action
        return unproven(self.model, action, state, period, self.name)


@policy("tabular")
class Optimal:
    """The optimal policy of a small networked problem over its horizon, by exact backward induction."""

    name = "tabular"

    def __init__(self, model: Model) -> None:
        problem = model.problem
        dynamics = cascade_dynamics(problem)
        columns = model.actions.enumerate()
        if columns is None:
            raise CapabilityError("an enumerable action set", model.actions, ("use fewer arms", "use 'whittle'"))
        self.model, self.columns = model, columns.astype(np.int64)
        self.value, self.best = backward_induction(
            dynamics, model.actions.columns.arm_action(self.columns), problem.horizon, problem.discount
        )

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        place = int((np.asarray(state) << np.arange(len(state))).sum())
        made = unproven(self.model, self.columns[self.best[period, place]], state, period, self.name)
        return made


@policy("gnn")
def _gnn(model: Model) -> Policy:
    """A graph network trained when the policy is made, climbed by true marginals."""
    from rmab_opt.settings.networked.networks import ClimbingPolicy, trained

    return ClimbingPolicy(trained(model, "graph"), model.actions, "gnn")


@policy("gnn_lookahead")
def _gnn_lookahead(model: Model) -> Policy:
    """A graph network trained from the look-ahead on when the policy is made, climbed by true marginals; what it began
    at is kept unless validation episodes speak for a change."""
    from rmab_opt.settings.networked.networks import ClimbingPolicy, trained

    return ClimbingPolicy(trained(model, "graph_lookahead"), model.actions, "gnn_lookahead")


@policy("hill_climbing_dqn")
def _hill_climbing_dqn(model: Model) -> Policy:
    """A fully connected network trained when the policy is made, climbed by true marginals."""
    from rmab_opt.settings.networked.networks import ClimbingPolicy, trained

    return ClimbingPolicy(trained(model, "dense"), model.actions, "hill_climbing_dqn")
