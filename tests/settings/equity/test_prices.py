"""Prices: what arms do under them, which are tried, and rows that hold for everything a roster allows."""

from __future__ import annotations

import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.planning import Coupling
from rmab_opt.planning.occupancy import polyhedron
from rmab_opt.settings.equity.cohort import Cohort
from rmab_opt.settings.equity.groups import Groups
from rmab_opt.settings.equity.master import Mixture
from rmab_opt.settings.equity.prices import PricedGroups
from rmab_opt.settings.equity.relaxed import Stage
from rmab_opt.settings.equity.resources import Separator

MOVE = np.tile(np.array([[[0.9, 0.1], [0.3, 0.7]], [[0.5, 0.5], [0.1, 0.9]]]), (2, 1, 1, 1))
PAY = np.tile(np.array([[0.0, 0.0], [1.0, 1.0]]), (2, 1, 1))


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_the_newest_prices_are_tried_where_those_between_close_less_than_a_thousandth_of_the_gap(monkeypatch, unit):
    """The best plan is worth 0; bounds come down from 100 to it, at every size of the reward alike."""
    groups = Groups(("all",), np.ones((1, 2), dtype=bool))
    arms = PricedGroups(Cohort(MOVE, PAY, np.array([0, 0]), groups, Coupling.budgets([1]), 2))
    duals = (np.ones(1), np.zeros(1), np.zeros(1), np.ones((2, 1)))
    mixed, asked = [], []

    def mix(stage):
        mixed.append(len(asked))
        return Mixture(np.zeros(arms.master.numbers.shape), duals, 0.0)

    # Round 1 has one point. Round 2 closes a hundredth at once; rounds 3 and 4 little, the newest more; 5 the rest.
    limits = iter([100.0, 99.0, 98.95, 98.0, 97.99, 97.0, 0.0])

    def bound(stage, *point):
        asked.append(point)
        arms.learnt = 1
        return unit * next(limits)

    monkeypatch.setattr(arms.master, "solve", mix)
    monkeypatch.setattr(arms, "_mixed", lambda parts: (np.zeros(1), 0.0))
    monkeypatch.setattr(arms, "bound", bound)
    answer = arms.solve(Stage(np.full(1, -np.inf), free=np.ones(1, dtype=bool)))
    assert np.diff([*mixed, len(asked)]).tolist() == [1, 1, 2, 2, 1]
    assert (answer.lower, answer.upper, answer.rounds) == (0.0, 0.0, 5)


@pytest.mark.parametrize("by_state", [False, True])
def test_arms_do_their_best_under_weights_and_prices(by_state):
    """Values, use and acts against a plain recursion over each arm alone."""
    rng = np.random.default_rng(3)
    move, pay = rng.dirichlet(np.ones(3), (4, 3, 3)), rng.random((4, 3, 3))
    cost = rng.random((2, 4, 3 if by_state else 1, 3)) * (np.arange(3) > 0)
    groups = Groups.from_labels(list("abab"))
    cohort = Cohort(move, pay, np.array([0, 1, 2, 0]), groups, Coupling(cost, np.array([1.0, 1.0])), 3, 0.9)
    arms = PricedGroups(cohort, apart=True).arms
    weights, prices = np.array([0.7, 1.9]), rng.random((3, 2))
    found = arms.evaluate(weights @ (groups.member.astype(float)[:, arms.kinds] @ arms.sums.T > 0), prices)
    full = np.broadcast_to(cost, (2, 4, 3, 3))

    def best(n, state, t):
        """(net, reward, use (2, 3)) of the best plan."""
        if t == 3:
            return 0.0, 0.0, np.zeros((2, 3))
        options = []
        for a in range(3):
            later = [best(n, x, t + 1) for x in range(3)]
            chance = move[n, a, state]
            own = np.zeros((2, 3))
            own[:, t] = full[:, n, state, a]
            worth = weights[0 if n % 2 == 0 else 1] * pay[n, state, a] - prices[t] @ full[:, n, state, a]
            options.append(
                (
                    worth + 0.9 * sum(p * x[0] for p, x in zip(chance, later, strict=True)),
                    pay[n, state, a] + 0.9 * sum(p * x[1] for p, x in zip(chance, later, strict=True)),
                    own + sum(p * x[2] for p, x in zip(chance, later, strict=True)),
                )
            )
        return max(options, key=lambda option: option[0])

    alone = [best(n, int(state), 0) for n, state in enumerate((0, 1, 2, 0))]
    assert found.total == pytest.approx(sum(x[0] for x in alone))
    assert found.paid[arms.member] == pytest.approx([x[1] for x in alone])
    use = np.zeros((2, 3))
    np.add.at(use, arms.pair_row, found.use)
    assert use == pytest.approx(sum(x[2] for x in alone))


def test_rows_of_a_roster_hold_for_every_allowed_action_and_cut_the_plan_off():
    model = ro.load("weekly_calls", **{"problem.first": 60, "weekly.at_most": 30, "villages.at_least": 0})
    rows = polyhedron(model.actions, 2)
    everyone = np.stack([np.zeros(60), np.ones(60)])[None]
    matrix, limit = Separator(rows, 60, 2).broken(everyone)
    assert len(limit) == 1
    assert (matrix @ everyone[0].T.ravel() > limit + 1e-9).all()
    rng = np.random.default_rng(0)
    for _ in range(40):
        chosen = np.asarray(model.actions.sample(rng))
        assert (matrix @ np.stack([1 - chosen, chosen]).T.ravel() <= limit + 1e-9).all()
