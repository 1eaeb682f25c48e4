"""Policies on contact graphs, by name."""

from __future__ import annotations

import numpy as np

from rmab_opt.decisions.chooser import Chooser
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.objective import Scores
from rmab_opt.decisions.policy import ChooserPolicy, Memory, Policy, policy
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.errors import CapabilityError
from rmab_opt.settings.networked.greedy import CascadeObjective, cascade_dynamics
from rmab_opt.settings.networked.spread import backward_induction


class CascadePolicy(ChooserPolicy):
    """Maximises the round's value on samples: lazily where dropping an arm is always allowed, else by the program."""

    def __init__(self, model: Model, weights: str, *, samples: int = 200, seed: int = 0) -> None:
        cascade_dynamics(model.problem)
        budget = float(model.actions.shape.most_chosen) if weights in ("priced", "contacts") else 0.0
        greedy = model.actions.monotone and not model.actions.structured
        self.objective = CascadeObjective(
            samples, weights, estimator="moves_exact" if greedy else "scenarios", seed=seed, budget=budget
        )
        method = "greedy" if greedy else "auto"
        chooser = Chooser(model.problem, model.actions, self.objective, model.solver, method=method, title=model.title)
        super().__init__(chooser, weights, model)


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


@policy("lookahead_contacts")
def _lookahead_contacts(model: Model) -> CascadePolicy:
    """As lookahead_priced, and each active arm is also worth what its contacts gain by it while it lasts."""
    return CascadePolicy(model, "contacts")


@policy("random_inactive")
class RandomInactive(Policy):
    """A random allowed action on inactive arms; the baseline that published learned policies must beat."""

    name = "random_inactive"

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        actions, rng = question.actions, memory
        acted_on = actions.columns.effect @ (question.state == 0)
        order = rng.permutation(np.flatnonzero(acted_on > 0))
        if actions.monotone:
            room = actions.shape.room()
            for column in order:
                if room(int(column)):
                    room.take(int(column))
            return Proposal(room.action), memory
        # Sets that cannot be grown: the best random scores of inactive arms, nothing for the others.
        scores = np.where(acted_on > 0, rng.random(len(acted_on)), -1.0)
        return question.about(Scores(scores)), memory


@policy("tabular")
class Optimal(Policy):
    """The optimal policy of a small networked problem over its horizon, by exact backward induction."""

    name = "tabular"

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        problem = model.problem
        dynamics = cascade_dynamics(problem)
        columns = model.actions.enumerate()
        if columns is None:
            raise CapabilityError("an enumerable action set", model.actions, ("use fewer arms", "use 'whittle'"))
        self.columns = columns.astype(np.int64)
        self.value, self.best = backward_induction(
            dynamics, model.actions.columns.arm_action(self.columns), problem.horizon, problem.discount
        )

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        place = int((question.state << np.arange(len(question.state))).sum())
        return Proposal(self.columns[self.best[question.period, place]]), memory


@policy("gnn")
def _gnn(model: Model) -> Policy:
    """A graph network trained when the policy is made, climbed by true marginals."""
    from rmab_opt.settings.networked.networks import ClimbingPolicy, trained

    return ClimbingPolicy(trained(model, "graph"), model, "gnn")


@policy("gnn_lookahead")
def _gnn_lookahead(model: Model) -> Policy:
    """A graph network trained from the look-ahead on when the policy is made, climbed by true marginals; what it began
    at is kept unless validation episodes speak for a change."""
    from rmab_opt.settings.networked.networks import ClimbingPolicy, trained

    return ClimbingPolicy(trained(model, "graph_lookahead"), model, "gnn_lookahead")


@policy("hill_climbing_dqn")
def _hill_climbing_dqn(model: Model) -> Policy:
    """A fully connected network trained when the policy is made, climbed by true marginals."""
    from rmab_opt.settings.networked.networks import ClimbingPolicy, trained

    return ClimbingPolicy(trained(model, "dense"), model, "hill_climbing_dqn")
