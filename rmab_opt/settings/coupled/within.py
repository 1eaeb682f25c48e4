"""Exact programs for effects within one round that are no sum over arms: crowded workers, classes, shown items.

Each objective is the round's expected reward; its evaluator is the dynamics' own expectation, its program is written
out here. What the state changes are Params, so that a new state needs no new program.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.objective import Objective, Situation
from rmab_opt.errors import ModelError
from rmab_opt.overdue import checkpoint
from rmab_opt.planning.improve import best_action
from rmab_opt.settings.coupled.worlds import Assortment, Crowding, Sessions

__all__ = ["AssortmentRevenue", "CrowdedVisits", "HeldSessions", "best_assortment"]

DINKELBACH_ROUNDS = 50
"""Each round at least halves the distance to the best ratio; five are usual."""


class WithinRound(Objective):
    """Base: the expected reward of a round as the dynamics say it, for any actions.

    Parameters
    ----------
    worth
        What arriving in state 1 counts, (N,), in place of the arms' own reward: a planner adds the rounds to come.

    Raises
    ------
    ModelError
        On deciding over other columns than one an arm.
    """

    def __init__(self, worth: np.ndarray | None = None) -> None:
        self._worth = worth

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        world: Any = situation.problem.dynamics
        acted = situation.columns.arm_action(actions)
        one = world.chance_of_one(situation.state, acted, situation.shared)
        return np.asarray((self.worth(world) * one).sum(axis=-1), dtype=np.float64)

    def worth(self, world: Any) -> np.ndarray:
        """What arriving in state 1 counts, (N,)."""
        return np.asarray(world.worth if self._worth is None else self._worth)

    def _gains(self, situation: Situation) -> dict[str, np.ndarray]:
        """``gain`` of a sure visit of each arm, (N,), and the ``rest`` that comes without any."""
        world: Any = situation.problem.dynamics
        worth, base = self.worth(world), world.base(situation.state)
        return {"gain": worth * (1.0 - base) * world.success, "rest": np.array([float((worth * base).sum())])}

    @property
    def listable(self) -> bool:
        return True

    @staticmethod
    def one_each(situation: Situation) -> None:
        """Refuse columns that are not the arms themselves."""
        effect = situation.columns.effect
        if effect.shape[0] != effect.shape[1] or effect.nnz != effect.shape[0] or (effect.diagonal() != 1.0).any():
            raise ModelError("this objective's program is over arms", "leave out `columns`.")


class CrowdedVisits(WithinRound):
    """Visits that take from each other: sum over workers of rho^(load - 1) times the gains of the visited arms.

    y[j, L] says that worker j makes L visits and w[i, L] that arm i is one of them:

        sum_L y[j, L] = 1,  sum of w[i, L] over j's arms = L y[j, L],  sum_L w[i, L] = act[i],  w[i, L] <= y[j, L],

    and the value is the sum of gain[i] rho^(L - 1) w[i, L]. Of each worker alone the linear relaxation is exact, a
    union of sets of L arms each, so that prices of what binds the workers together prove nearly all.
    """

    planned_by = "planned_round"

    def build(self, block: Any, act: Any, situation: Situation) -> Any:
        import pyomo.environ as pyo

        self.one_each(situation)
        world: Crowding = situation.problem.dynamics  # type: ignore[assignment]
        workers = range(world.member.shape[1])
        sizes = world.member.sum(axis=0).astype(int)
        pairs = [(j, load) for j in workers for load in range(sizes[j] + 1)]
        arms = [(i, load) for i in range(world.n_arms) for load in range(1, sizes[world.group[i]] + 1)]
        block.makes = pyo.Var(pairs, domain=pyo.Binary)
        block.among = pyo.Var(arms, bounds=(0, 1))
        values = self.update(situation)
        block.gain = pyo.Param(
            range(world.n_arms), mutable=True, domain=pyo.Reals, initialize=dict(enumerate(values["gain"].tolist()))
        )
        block.rest = pyo.Param(mutable=True, domain=pyo.Reals, initialize=float(values["rest"][0]))
        of = {j: np.flatnonzero(world.group == j).tolist() for j in workers}
        block.one = pyo.Constraint(workers, rule=lambda b, j: sum(b.makes[j, x] for x in range(sizes[j] + 1)) == 1)
        block.load = pyo.Constraint(
            [pair for pair in pairs if pair[1]],
            rule=lambda b, j, x: sum(b.among[i, x] for i in of[j]) == x * b.makes[j, x],
        )
        block.whole = pyo.Constraint(
            range(world.n_arms),
            rule=lambda b, i: sum(b.among[i, x] for x in range(1, sizes[world.group[i]] + 1)) == act[i],
        )
        block.only = pyo.Constraint(arms, rule=lambda b, i, x: b.among[i, x] <= b.makes[int(world.group[i]), x])
        return (
            pyo.quicksum(block.gain[i] * float(world.rho ** (x - 1)) * block.among[i, x] for i, x in arms) + block.rest
        )

    def update(self, situation: Situation) -> dict[str, np.ndarray]:
        return self._gains(situation)


class HeldSessions(WithinRound):
    """Classes: an invitation counts where its class is held, and a class is held from ``least`` invitations on.

    With one binary held[g] a group: ``least`` held[g] <= sum of act in g, w[i] <= act[i], w[i] <= held[g(i)]; the value
    is the sum of gain[i] w[i].
    """

    planned_by = "planned_round"

    def build(self, block: Any, act: Any, situation: Situation) -> Any:
        import pyomo.environ as pyo

        self.one_each(situation)
        world: Sessions = situation.problem.dynamics  # type: ignore[assignment]
        groups, arms = range(world.member.shape[1]), range(world.n_arms)
        block.held = pyo.Var(groups, domain=pyo.Binary)
        block.attends = pyo.Var(arms, bounds=(0, 1))
        values = self.update(situation)
        block.gain = pyo.Param(
            arms, mutable=True, domain=pyo.Reals, initialize=dict(enumerate(values["gain"].tolist()))
        )
        block.rest = pyo.Param(mutable=True, domain=pyo.Reals, initialize=float(values["rest"][0]))
        of = {g: np.flatnonzero(world.group == g).tolist() for g in groups}
        block.enough = pyo.Constraint(groups, rule=lambda b, g: world.least * b.held[g] <= sum(act[i] for i in of[g]))
        block.invited = pyo.Constraint(arms, rule=lambda b, i: b.attends[i] <= act[i])
        block.only = pyo.Constraint(arms, rule=lambda b, i: b.attends[i] <= b.held[int(world.group[i])])
        return pyo.quicksum(block.gain[i] * block.attends[i] for i in arms) + block.rest

    def update(self, situation: Situation) -> dict[str, np.ndarray]:
        return self._gains(situation)


class AssortmentRevenue(WithinRound):
    """What is earned from the next customer: sum of price e act / (1 + sum of e act), e the items' attraction.

    With none the chance that nothing is bought and bought[i] that item i is (Charnes, Cooper 1962):

        none + sum of bought = 1,  bought[i] <= e/(1+e) act[i],
        bought[i] <= e none,  bought[i] >= e none - e (1 - act[i])

    where the last two rows are divided by max(1, e).
    """

    def build(self, block: Any, act: Any, situation: Situation) -> Any:
        import pyomo.environ as pyo

        self.one_each(situation)
        world: Assortment = situation.problem.dynamics  # type: ignore[assignment]
        items = range(world.n_arms)
        values = self.update(situation)

        def given(name: str) -> Any:
            return pyo.Param(items, mutable=True, domain=pyo.Reals, initialize=dict(enumerate(values[name].tolist())))

        block.most, block.like, block.unit = given("most"), given("like"), given("unit")
        block.none = pyo.Var(bounds=(0, 1))
        block.bought = pyo.Var(items, bounds=(0, 1))
        block.all = pyo.Constraint(expr=block.none + sum(block.bought[i] for i in items) == 1)
        block.shown = pyo.Constraint(items, rule=lambda b, i: b.bought[i] <= b.most[i] * act[i])
        block.above = pyo.Constraint(items, rule=lambda b, i: b.unit[i] * b.bought[i] <= b.like[i] * b.none)
        block.below = pyo.Constraint(
            items, rule=lambda b, i: b.unit[i] * b.bought[i] >= b.like[i] * b.none - b.like[i] * (1 - act[i])
        )
        return pyo.quicksum(float(self.worth(world)[i]) * block.bought[i] for i in items)

    def update(self, situation: Situation) -> dict[str, np.ndarray]:
        world: Assortment = situation.problem.dynamics  # type: ignore[assignment]
        liked = world.attraction(situation.shared)
        size = np.maximum(1.0, liked)
        return {"most": liked / (1.0 + liked), "like": liked / size, "unit": 1.0 / size}


def best_assortment(world: Assortment, actions: ActionSet, shared: np.ndarray | None) -> tuple[np.ndarray, float]:
    """The allowed action with the largest expected revenue from the next customer, and that revenue.

    lambda <- revenue of the action that maximises the sum of e (price - lambda), until it does not rise: each round is
    one linear program over the set (Dinkelbach 1967).
    """
    liked, ratio = world.attraction(shared), 0.0
    action = np.zeros(len(actions), dtype=np.int64)
    for _ in range(DINKELBACH_ROUNDS):
        checkpoint()
        scores = liked * (world.worth - ratio)
        # Divided by the largest, so that the program's tolerances mean the same in every state.
        found = best_action(actions, scores[None] / max(float(np.abs(scores).max()), 1e-300))[0]
        shown = liked * found
        better = float(world.worth @ shown / (1.0 + shown.sum()))
        if better <= ratio * (1.0 + 1e-13) and action.any():
            break
        action, ratio = found, better
    return action, ratio
