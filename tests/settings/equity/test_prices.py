"""Prices: what arms do under them, which are tried, and rows that hold for everything a roster allows."""

from __future__ import annotations

import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.planning import Coupling
from rmab_opt.planning.occupancy import polyhedron
from rmab_opt.settings.equity import descent, prices
from rmab_opt.settings.equity.cohort import Cohort
from rmab_opt.settings.equity.groups import Groups
from rmab_opt.settings.equity.master import Mixture
from rmab_opt.settings.equity.plan import fair_plan_arrays
from rmab_opt.settings.equity.prices import PricedGroups
from rmab_opt.settings.equity.relaxed import Stage
from rmab_opt.settings.equity.resources import Separator
from rmab_opt.settings.equity.welfare import Welfare

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


def _warm(seed: int = 5):
    """Arms of three actions in two overlapping groups under two costs, with what drawn actions come to."""
    rng = np.random.default_rng(seed)
    move, pay = rng.dirichlet(np.ones(3), (6, 3, 3)), rng.random((6, 3, 3))
    cost = rng.random((2, 6, 1, 3)) * (np.arange(3) > 0)
    member = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]], dtype=bool)
    cohort = Cohort(
        move, pay, rng.integers(0, 3, 6), Groups(("a", "b"), member), Coupling(cost, np.array([1.0, 1.0])), 4, 0.9
    )
    return PricedGroups(cohort), rng


def test_drawn_actions_are_the_slopes_of_a_smooth_value_above_the_best():
    made, rng = _warm()
    arms, heat, step = made.arms, 0.1, 1e-6
    worth, prices = rng.random(arms.n_cells) + 0.5, rng.random((4, 2))
    found, best = (arms.evaluate(worth, prices, heat=warm) for warm in (heat, 0.0))
    discounted = 6 * float(arms.round.sum())
    assert best.total < found.total <= best.total + heat * np.log(3) * discounted + 1e-12
    assert best.total == pytest.approx(arms.evaluate(worth, prices, heat=1e-9).total, abs=1e-6)
    use = np.zeros((2, 4))
    np.add.at(use, arms.pair_row, found.use)
    for change, slope in [((one, np.zeros((4, 2))), found.values @ one) for one in np.eye(arms.n_cells)] + [
        ((np.zeros(arms.n_cells), one.reshape(4, 2)), -(arms.round * use).T.ravel() @ one) for one in np.eye(8)
    ]:
        high, low = (
            arms.evaluate(worth + sign * step * change[0], prices + sign * step * change[1], heat=heat).total
            for sign in (1.0, -1.0)
        )
        assert (high - low) / (2 * step) == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("lowest", [True, False])
def test_a_descent_follows_the_slopes_of_its_bound(monkeypatch, lowest):
    """Floors, past and prices that may be below zero included, along the ray of shares."""
    made, _ = _warm()
    asked = []

    def met(value, first, **given):
        asked.append((value, first))
        value(first)

    monkeypatch.setattr("scipy.optimize.minimize", met)
    free = np.array([True, True]) if lowest else None
    weights = None if lowest else np.array([0.3, 0.7])
    stage = Stage(np.array([0.4, -np.inf]), free, weights, None if lowest else Welfare.of("utilitarian"))
    past = np.array([0.1, 0.3])
    descent.descended(made.arms, made.per_mean, made.resources, past, stage, made.span, None, (0.1, 1e-6), None)
    value, first = asked[0]
    at = first + np.random.default_rng(0).random(len(first))
    slope, step = value(at)[1], 1e-6
    by_hand = [(value(at + step * one)[0] - value(at - step * one)[0]) / (2 * step) for one in np.eye(len(at))]
    np.testing.assert_allclose(slope, by_hand, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("welfare", ["max_min", "utilitarian"])
def test_descents_and_columns_alone_find_the_same(monkeypatch, welfare):
    """From many arms on a stage begins with descents; what is proven is what columns prove, in fewer mixtures."""
    rng = np.random.default_rng(1)
    move, pay = rng.dirichlet(np.ones(2), (120, 2, 2)), np.tile(PAY[0], (120, 1, 1))
    cohort = Cohort(
        move, pay, rng.integers(0, 2, 120), Groups.from_labels(np.arange(120) % 4), Coupling.budgets([12]), 5, 0.95
    )
    kind = Welfare.of(welfare)
    stage = (
        Stage(np.full(4, -np.inf), free=np.ones(4, dtype=bool))
        if kind.lowest_first
        else Stage(np.array([2.6, -np.inf, -np.inf, -np.inf]), weights=kind.weights(cohort.groups), welfare=kind)
    )
    answers = [PricedGroups(cohort).solve(stage, tolerance=1e-6)]
    monkeypatch.setattr(prices, "MANY", 1000)
    answers.append(PricedGroups(cohort).solve(stage, tolerance=1e-6))
    assert answers[0].lower == pytest.approx(answers[1].lower, rel=3e-6)
    assert all(answer.lower <= other.upper + 1e-9 for answer in answers for other in answers)
    assert answers[0].rounds < answers[1].rounds


@pytest.mark.parametrize("overlap", [False, True])
def test_levels_of_many_arms_are_those_of_the_program(overlap):
    """Leximin of 110 arms, whose groups earn so differently that each level is another's."""
    rng = np.random.default_rng(3)
    n_arms, n_groups = 110, 5
    move, pay = rng.dirichlet(np.ones(3), (n_arms, 2, 3)), np.sort(rng.random((n_arms, 3)), axis=1)
    label = np.arange(n_arms) % n_groups
    pay = np.repeat((pay * (0.4 + 0.6 * rng.random(n_groups)[label])[:, None])[:, :, None], 2, axis=2)
    member = label == np.arange(n_groups)[:, None]
    if overlap:
        member = member | (rng.random(member.shape) < 0.4)
    groups = Groups(tuple("abcde"), member)
    cohort = Cohort(move, pay, rng.integers(0, 3, n_arms), groups, Coupling.budgets([n_arms / 8]), 4, 0.95)
    priced, plain = (fair_plan_arrays(cohort, method=method) for method in ("prices", "program"))
    assert len(plain.levels) > 2
    np.testing.assert_allclose(priced.values, plain.values, atol=1e-5)
