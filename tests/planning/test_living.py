"""A cohort that comes and goes: right values of the programme specification, section 3, and brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from amounts import amount

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Closed
from rmab_opt.decisions import Model, bound, save_bound, verify_bound
from rmab_opt.decisions.policy import make_policy
from rmab_opt.errors import ModelError
from rmab_opt.learning import evaluate
from rmab_opt.planning.living import Course, bound_at, living_bound, living_optimum, living_value
from rmab_opt.problem import Arms, Problem, Season, Table, Tabular

ARMS = np.array([[0.15, 0.75, 0.40, 0.90], [0.10, 0.50, 0.70, 0.80], [0.05, 0.95, 0.50, 0.98]])
"""Chance to be engaged: passive away, passive engaged, called away, called engaged."""


def tables(up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    chance = up.reshape(-1, 2, 2)
    transition = np.stack([1 - chance, chance], axis=-1)
    return transition, chance.transpose(0, 2, 1).copy()


def tiny(season: float | None = 3, weekly: float = 2, rounds: int = 4, **more) -> Course:
    transition, reward = tables(ARMS)
    start = more.pop("start", np.eye(2)[[0, 1, 0]])
    return Course(transition, reward, start, rounds, weekly, season, **more)


def _without(arm: int, rounds: list[int]) -> np.ndarray:
    found = np.ones((4, 3), dtype=bool)
    found[rounds, arm] = False
    return found


CASES = {
    "A": (tiny(), 5.912829, (2,), 6.062275, 2.670850, 5.567800, 5.772437),
    "B": (tiny(weekly=1), 5.885609, (2,), 6.062275, 2.670850, 5.772437, 5.772437),
    "C": (tiny(season=8), 7.894435, (0, 2), 7.949325, 2.670850, 7.705089, None),
    "D": (tiny(weekly=3), 5.912829, (2,), 6.062275, 2.670850, 5.249600, 5.772437),
    "E": (tiny(open=_without(2, [1, 2])), 5.562275, (0, 2), 5.644320, 2.670850, 5.267200, 5.445400),
    "F": (tiny(open=_without(1, [0, 1])), 5.826505, (2,), 5.957035, 2.670850, 5.577950, 5.808337),
    "G": (
        tiny(open=_without(0, [2, 3]), counted=_without(0, [2, 3])), 5.268466, (2,), 5.441875, 2.050450, 4.947400,
        5.152038,
    ),
    "H": (
        tiny(open=_without(1, [0, 1]), counted=_without(1, [0, 1])), 5.026505, (2,), 5.157035, 1.870850, 4.777950,
        5.008338,
    ),
}  # fmt: skip


def myopic(course: Course, most: int | None = None, rounds: int = 4):
    up = ARMS.reshape(3, 2, 2)

    def choose(state: np.ndarray, period: int, left: int) -> tuple[int, ...]:
        gain = up[np.arange(3), 1, state] - up[np.arange(3), 0, state]
        open_ = np.ones(3, dtype=bool) if course.open is None else course.open[period]
        limit = int(course.limit) if most is None else most
        count = min(limit, left) if period < rounds else 0
        best = [int(n) for n in np.argsort(-gain, kind="stable") if open_[n] and gain[n] > 0]
        return tuple(best[:count])

    return choose


@pytest.mark.parametrize("name", CASES)
def test_the_season_budget_has_its_exact_values(name):
    course, optimum, first, bound, idle, at_once, one_a_week = CASES[name]
    best = living_optimum(course)
    assert best.value == pytest.approx(optimum, abs=1e-6)
    assert best.first()[1] == first
    found = living_bound(course)
    assert found.value == pytest.approx(bound, abs=1e-6)
    assert found.lower <= found.value + 1e-9
    assert living_value(course, lambda *_: ()) == pytest.approx(idle, abs=1e-6)
    assert living_value(course, myopic(course)) == pytest.approx(at_once, abs=1e-6)
    if one_a_week is not None:
        assert living_value(course, myopic(course, most=1, rounds=3)) == pytest.approx(one_a_week, abs=1e-6)


def test_season_totals_side_by_side():
    totals = [4.218400, 5.226470, 5.912829, 6.450414, 6.964508, 7.361913]
    bounds = [4.218400, 5.296150, 6.062275, 6.611595, 7.087962, 7.447385]
    for season, (best, limit) in enumerate(zip(totals, bounds, strict=True), start=1):
        assert living_optimum(tiny(season)).value == pytest.approx(best, abs=1e-6)
        assert living_bound(tiny(season)).value == pytest.approx(limit, abs=1e-6)


@pytest.mark.parametrize(
    ("chance", "value", "told", "first"),
    [(0.2, 6.172213, 6.262364, (2,)), (0.4, 6.431598, 6.611899, (2,)), (0.45, 6.496444, 6.699283, (2,)),
     (0.55, 6.626136, 6.874051, (2,)), (0.8, 7.176469, 7.310970, (0,))],
)  # fmt: skip
def test_an_unknown_first_state_is_planned_by_expected_gain(chance, value, told, first):
    start = np.array([[1, 0], [0, 1], [1 - chance, chance]])
    best = living_optimum(tiny(start=start))
    assert best.value == pytest.approx(value, abs=1e-6)
    assert best.first()[1] == first
    sure = [best.first(np.eye(2)[[0, 1, s]])[0] for s in (0, 1)]
    assert (1 - chance) * sure[0] + chance * sure[1] == pytest.approx(told, abs=1e-6)
    if chance == 0.4:
        assert living_bound(tiny(start=start)).value == pytest.approx(6.757434, abs=1e-6)
    if chance == 0.55:
        # What planning on the likeliest state would call, and what that earns.
        likely = best.first(np.eye(2)[[0, 1, 1]])[1]
        assert likely == (0,)
        means = (best.q[0][-1] * np.array([1 - chance, chance])).sum(axis=-1)[:, 0, 1]
        assert means[best.acts.index(likely)] == pytest.approx(6.571423, abs=1e-6)


def classes(season: float | None = None, joiners: bool = False, leavers: bool = False, weekly: float = 60) -> Course:
    transition, reward = tables(ARMS)
    start = np.array([[300, 300], [180, 180], [120, 120]], dtype=float)
    arrivals = np.zeros((12, 3, 2))
    if joiners:
        arrivals[1:] = np.array([10, 6, 4])[None, :, None] / 2
    return Course(
        transition, reward, start, 12, weekly, season, arrivals=arrivals, stay=np.full((3, 2), 0.98 if leavers else 1.0)
    )


WEEKS = {
    "closed": [2.1782, 1.9202, 1.6336, 0.9997, 0.9993, 0.9984, 0.9959, 0.9898, 0.9744, 0.9360, 0.8400, 0.6000],
    "leavers": [2.0770, 1.8447, 1.5813, 0.9866, 0.9863, 0.9854, 0.9833, 0.9777, 0.9635, 0.9274, 0.8352, 0.6000],
}


def test_arrivals_in_the_bound():
    for course, value, prices in [
        (classes(), 6343.0363, WEEKS["closed"]),
        (classes(leavers=True), 5748.9039, WEEKS["leavers"]),
        (classes(joiners=True, leavers=True), 6234.5285, WEEKS["leavers"]),
    ]:
        found = living_bound(course)
        assert found.value == pytest.approx(value, abs=1e-4)
        np.testing.assert_allclose(found.prices[:, 0], prices, atol=6e-5)
    found = living_bound(classes(500, joiners=True, leavers=True))
    assert found.value == pytest.approx(6052.6598, abs=1e-4)
    assert found.saved == pytest.approx(0.9777, abs=6e-5)
    found = living_bound(classes(500))
    assert found.value == pytest.approx(6159.9525, abs=1e-4)
    assert found.saved == pytest.approx(0.9898, abs=6e-5)
    np.testing.assert_allclose(
        found.prices[:8, 0], [1.1887, 0.9308, 0.6442, 0.01, 0.0096, 0.0086, 0.0061, 0], atol=6e-5
    )
    assert living_bound(classes(720, weekly=1e6)).value == pytest.approx(6444.960, abs=1e-3)


@pytest.mark.parametrize("season", amount([3], [1, 3, 8]))
def test_the_policy_keeps_the_season_in_its_shared_state_and_is_exact_where_few_arms_are_left(season):
    transition, reward = tables(ARMS)
    arms = Arms.from_arrays(3)
    problem = Problem(arms, Season(Tabular(transition, reward), season), horizon=4, start=np.array([0, 1, 0]))
    limits = {"weekly": Budget(at_most=2), "season": Budget(at_most={"from": "left"})}
    chosen = make_policy("living", Model(problem, ActionSet(arms, limits)))

    def choose(state: np.ndarray, period: int, left: int) -> tuple[int, ...]:
        made, _ = chosen.follow(state, period, None, np.array([float(left)]))
        return tuple(np.flatnonzero(made.action).tolist())

    assert living_value(tiny(season), choose) == pytest.approx(living_optimum(tiny(season)).value, abs=1e-9)
    # What is left goes down by what was done, in the simulator too.
    _, _, after = problem.step(np.array([0, 1, 0]), np.array([1, 0, 1]), np.array([3.0]), np.random.default_rng(0))
    assert after.tolist() == [1.0]


def test_closed_arms_open_again_in_their_round():
    arms = Arms.from_arrays(3)
    table = Table({"id": ["arm0", "arm2"], "open_from": ["", "2"]})
    actions = ActionSet(arms, {"away": Closed(table=table), "weekly": Budget(at_most=3)})
    for period, allowed in [(0, [1]), (1, [1]), (2, [1, 2]), (9, [1, 2])]:
        now = actions.at(period)
        assert [n for n in range(3) if now.allows(np.eye(3, dtype=np.int64)[n])] == allowed
    assert actions.at(2) is actions.at(7)
    with pytest.raises(ModelError, match="open_from"):
        Closed(table=Table({"id": ["arm0"], "open_from": ["soon"]}))


def test_the_bound_at_given_prices_is_the_bound_and_no_other_price_is_lower():
    rng = np.random.default_rng(0)
    for course in (classes(500, joiners=True, leavers=True), tiny(3), classes()):
        found = living_bound(course)
        assert bound_at(course, found.prices, found.saved) == pytest.approx(found.value, rel=1e-12)
        for _ in range(5):
            other = found.prices * rng.uniform(0.5, 1.5, found.prices.shape)
            assert bound_at(course, other, found.saved * rng.uniform(0.5, 1.5)) >= found.value - 1e-6


def changing(opens: str, horizon: int, n: int = 3, budget: int = 1) -> Model:
    rng = np.random.default_rng(7)
    transition = rng.dirichlet(np.ones(2), size=(n, 2, 2))
    reward = np.zeros((n, 2, 2))
    reward[:, 1] = rng.random(n)[:, None]
    arms = Arms.from_arrays(n)
    problem = Problem(arms, Tabular(transition, reward), horizon=horizon, start=np.array([0, 1, 0]))
    table = Table({"id": ["arm0", "arm2"], "open_from": ["", opens]})
    return Model(problem, ActionSet(arms, {"away": Closed(table=table), "weekly": Budget(at_most=budget)}))


def best_of_all(model: Model) -> float:
    """What the best policy earns, by backward induction over joint states and every allowed action."""
    transition, reward = model.problem.dynamics.tabular()
    n, horizon = model.problem.n_arms, model.problem.horizon
    states = list(product(range(2), repeat=n))
    value = dict.fromkeys(states, 0.0)
    for t in range(horizon - 1, -1, -1):
        allowed = [a for a in product(range(2), repeat=n) if model.actions.at(t).allows(np.array(a))]

        def worth(state, action, ahead=value):
            chance = [transition[k, action[k], state[k]] for k in range(n)]
            paid = sum(reward[k, state[k], action[k]] for k in range(n))
            return paid + sum(np.prod([chance[k][s[k]] for k in range(n)]) * v for s, v in ahead.items())

        value = {s: max(worth(s, a) for a in allowed) for s in states}
    return value[tuple(model.problem.start)]


@pytest.mark.parametrize("opens", amount(["2"], ["1", "2", "3"]))
def test_the_bound_knows_who_is_closed_in_which_round(opens, tmp_path):
    model = changing(opens, 4)
    found, best = bound(model), best_of_all(model)
    always = bound(replace(model, actions=ActionSet(model.problem.arms, {"weekly": Budget(at_most=1)})))
    assert best <= found.value + 1e-9
    assert found.value < always.value - 1e-4
    # With a budget for all, acting is free but for those who are closed: the relaxation has no gap then.
    free = changing(opens, 4, budget=3)
    assert bound(free).value == pytest.approx(best_of_all(free), abs=1e-6)
    # The file of it is proven without a solver, and no other round's prices pass for it.
    text, proven = save_bound(model, found, path=tmp_path / "bound.json")
    assert best <= proven <= found.value + 1e-6
    assert verify_bound(tmp_path / "bound.json", model).proven
    (tmp_path / "forged.json").write_text(text.replace('"horizon": 4', '"horizon": 3'), encoding="utf-8")
    assert not verify_bound(tmp_path / "forged.json", model).ok
    table = evaluate(model, ["living", "none"], episodes=30)
    assert table.header["bound"] == pytest.approx(found.value)
    with pytest.raises(ModelError, match="from round to round"):
        bound(model, kind="average")


def test_a_model_from_a_later_round_on_has_the_limits_of_that_round():
    model = changing("2", 4)
    for first in range(4):
        later = model.later(first, np.array([0, 1, 0]))
        assert later.problem.horizon == 4 - first
        for t in range(4 - first):
            for action in product(range(2), repeat=3):
                assert later.actions.at(t).allows(np.array(action)) == model.actions.at(first + t).allows(
                    np.array(action)
                )
        assert bound(later).value == pytest.approx(best_of_all(later), rel=0.2)
        assert bound(later).value >= best_of_all(later) - 1e-9
    with pytest.raises(ModelError, match="none is left"):
        model.later(4, np.array([0, 1, 0]))
