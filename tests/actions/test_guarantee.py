"""Guaranteed services: rounds that keep them can go on to the end, bounds know them, simulations refuse them."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

import rmab_opt as ro
from rmab_opt import ActionSet
from rmab_opt.actions.kinds import Budget, Guarantee
from rmab_opt.decisions import Model, bound, decide
from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError
from rmab_opt.planning.occupancy import occupancy_program, polyhedron
from rmab_opt.problem import Arms, Problem
from rmab_opt.testing import examples


def table(services):
    return [{"id": f"a{n}", "services": int(s)} for n, s in enumerate(services)]


def cohort(n_arms):
    return Arms.from_arrays([f"a{n}" for n in range(n_arms)], village=["ab"[n % 2] for n in range(n_arms)])


def small(seed=0, n_arms=4, horizon=5, at_most=2, **guarantee):
    """Arms of which acting helps some much more than others, under a budget and a guarantee."""
    made = examples.tabular(n_arms, 3, 2, seed=seed) if seed else examples.tabular(n_arms, 3, 2)
    arms = cohort(n_arms)
    problem = Problem(arms, made, horizon=horizon, discount=0.9, start=np.zeros(n_arms, dtype=np.int64))
    constraints = {"weekly": Budget(at_most=at_most)}
    if guarantee:
        constraints["sure"] = Guarantee.model_validate(guarantee)
    return Model(problem, ActionSet(arms, constraints))


# ---- rounds
@given(st.integers(0, 10_000), st.sampled_from(["arm", "village"]), st.booleans())
@settings(max_examples=amount(30, 300), deadline=None)
def test_any_allowed_rounds_keep_the_guarantee_to_the_end(seed, per, room):
    """Actions are drawn from the rounds' allowed ones, counted by hand, and nobody is short at the end."""
    rng = np.random.default_rng(seed)
    n_arms, horizon = int(rng.integers(2, 6)), int(rng.integers(1, 6))
    at_most = int(rng.integers(1, n_arms + 1))
    arms = cohort(n_arms)
    sizes = np.ones(n_arms) if per == "arm" else np.array([len(m) for m in arms.groups("village").values()])
    most = int(min(horizon, at_most * horizon // n_arms if per == "arm" else at_most * horizon // len(sizes)))
    at_least = int(rng.integers(0, most + 1))
    served = np.zeros(n_arms, dtype=int)
    for t in range(horizon):
        rule = Guarantee(
            at_least=at_least, per=per, end=horizon, room=at_most if room else None, done=table(served), before=t
        )  # fmt: skip
        now = ActionSet(arms, {"weekly": Budget(at_most=at_most), "sure": rule}).at(t)
        allowed = [
            a for a in map(np.array, itertools.product([0, 1], repeat=n_arms)) if not now.violations(a)
        ]  # fmt: skip
        assert allowed, (t, served)
        served = served + allowed[rng.integers(len(allowed))]
    given_ = served if per == "arm" else np.array([served[m].sum() for m in arms.groups("village").values()])
    assert (given_ >= at_least).all()


def test_room_lets_services_wait_and_without_it_they_are_spread():
    """Four arms, one service each in four rounds: a budget of two can wait two rounds, the share of one cannot."""
    for room, least in ((2, 0), (None, 1)):
        rule = Guarantee(at_least=1, end=4, room=room)
        now = ActionSet(cohort(4), {"weekly": Budget(at_most=2), "sure": rule}).at(0)
        assert now.allows(np.zeros(4, dtype=int)) == (least == 0)
        assert now.allows(np.array([0, 0, 0, 1]))
    late = Guarantee(at_least=1, end=4, room=3, done=table([0, 0, 0, 1]), before=3)
    now = ActionSet(cohort(4), {"sure": late}).at(3)
    assert now.violations(np.array([1, 1, 0, 0])) == {
        "sure": ["0 services now of a2, to whom 1 are owed in 1 rounds: at least 1 are needed"]
    }
    assert now.allows(np.array([1, 1, 1, 0]))


@pytest.mark.parametrize(
    ("period", "before", "begin", "asks"),
    [(0, 0, 0, True), (2, 2, 0, True), (1, 0, 2, False), (2, 0, 2, True), (5, 0, 0, False), (4, 4, 2, True)],
)
def test_rounds_outside_the_window_owe_nothing(period, before, begin, asks):
    rule = Guarantee(at_least=1, end=5, begin=begin, before=before)
    now = ActionSet(cohort(4), {"sure": rule}).at(period)
    assert now.allows(np.zeros(4, dtype=int)) != asks


def test_rounds_whose_services_nobody_counted_are_refused_by_name():
    model = small(at_least=1, end=5)
    with pytest.raises(CapabilityError, match="knows the services before round 1, and none are counted in rounds that"):
        model.actions.at(3)
    with pytest.raises(CapabilityError, match="rounds that are simulated"):
        ro.evaluate(model, ["myopic"], episodes=1)
    for policy in ("random", "whittle"):
        with pytest.raises(CapabilityError):
            ro.evaluate(model, [policy], episodes=1)


def test_a_decision_keeps_what_is_owed_and_says_so():
    model = small(at_least=2, end=5, done=table([2, 2, 0, 1]), before=3)
    made = decide(model, np.zeros(4, dtype=np.int64), period=3)
    assert "a2" in made.chosen
    assert made.violations == {}
    assert "sure" in made.tight


@pytest.mark.parametrize(
    "fields",
    [
        {"at_least": 1, "begin": 3, "end": 3},
        {"at_least": 1, "end": 3, "per": "village", "certain": True},
        {"at_least": 1, "end": 3, "soft": 0.5},
        {"at_least": -1, "end": 3},
    ],
)
def test_fields_that_make_no_guarantee_are_refused(fields):
    with pytest.raises(ValueError, match=r"window|certain|firm|greater"):
        Guarantee.model_validate(fields)


def test_more_than_the_window_holds_is_refused():
    with pytest.raises(ModelError, match=r"constraints.sure: 4 services of 'a0' in 3 rounds"):
        ActionSet(cohort(2), {"sure": Guarantee(at_least=4, end=3)})
    with pytest.raises(ModelError, match="6 services are owed in 3 rounds with room for 1"):
        ActionSet(cohort(2), {"sure": Guarantee(at_least=3, end=3, room=1)})
    with pytest.raises(ModelError, match="no arm 'a7'"):
        ActionSet(cohort(2), {"sure": Guarantee(at_least=1, end=3, done=[{"id": "a7", "services": 1}])})


# ---- bounds
@pytest.mark.parametrize(("at_least", "published"), [(0, 8.88894), (2, 8.22293)])
def test_the_bound_is_the_published_welfare(at_least, published):
    model = ro.load("equity_synthetic", at_most=20)
    constraints = model.actions.declared | {"sure": Guarantee(at_least=at_least, end=20, room=20)}
    found = bound(dataclasses.replace(model, actions=ActionSet(model.actions.columns, constraints)))
    assert found.value / 100 == pytest.approx(published, abs=5e-6)
    assert found.lower <= found.value <= found.lower + 1e-6 * found.value
    assert "their cost" in str(found)
    assert found.without / 100 == pytest.approx(8.88894, abs=2e-5)


def by_scipy(model, owed, begin, end):
    """The relaxed optimum under expected services by another solver's own program."""
    transition, reward = model.problem.dynamics.tabular()
    horizon, n_arms = model.problem.horizon, model.problem.n_arms
    rows = polyhedron(model.actions, 2)
    base, _ = occupancy_program(
        transition, reward, model.problem.start_distribution, discount=model.problem.discount, horizon=horizon,
        rows=rows,
    )  # fmt: skip
    matrix, equal = base.matrix.toarray(), base.row_lower == base.row_upper
    acted = np.zeros((len(owed), horizon, n_arms, reward.shape[1], 2))
    member = np.eye(n_arms) if len(owed) == n_arms else np.array([[n % 2 == g for n in range(n_arms)] for g in (0, 1)])
    acted[:, begin:end, :, :, 1] = member[:, None, :, None]
    upper = [matrix[~equal], -acted.reshape(len(owed), -1)]
    found = linprog(
        -base.cost, np.concatenate(upper), np.concatenate([base.row_upper[~equal], -owed]), matrix[equal],
        base.row_lower[equal],
    )  # fmt: skip
    return -found.fun if found.status == 0 else None


@pytest.mark.parametrize("seed", range(1, amount(3, 5)))
@pytest.mark.parametrize("per", ["arm", "village"])
def test_the_bound_under_a_window_is_the_program_s(seed, per):
    window = {"begin": 1, "end": 4}
    model = small(seed, at_least=1 if per == "arm" else 3, per=per, **window)
    expected = by_scipy(model, np.full(4 if per == "arm" else 2, 1.0 if per == "arm" else 3.0), 1, 4)
    found = bound(model)
    assert found.value == pytest.approx(expected, rel=1e-7)
    assert found.value <= found.without + 1e-9


def test_a_bound_later_counts_the_services_before():
    done = [1, 0, 2, 0]
    model = small(2, horizon=3, at_least=2, end=5, done=table(done), before=2)
    expected = by_scipy(model, np.maximum(0.0, 2.0 - np.array(done)), 0, 3)
    assert bound(model).value == pytest.approx(expected, rel=1e-7)


def test_bounds_that_cannot_know_a_guarantee_say_so():
    with pytest.raises(InfeasibleError, match="no policy keeps sure together"):
        bound(small(at_least=3, end=5, at_most=1))
    with pytest.raises(ModelError, match="ends 4 rounds after the horizon"):
        bound(small(at_least=1, end=9))
    with pytest.raises(ModelError, match="kind='average' under guaranteed services"):
        bound(small(at_least=1, end=5), kind="average")


def test_a_set_s_bound_without_its_guarantee_is_the_plain_one():
    model = small(1, at_least=0, end=5)
    assert bound(model).value == pytest.approx(bound(small(1)).value, rel=1e-5)
    assert list(model.actions.lasting.constraints) == ["weekly"]


@pytest.mark.parametrize("first", [0, 1, 2, 3, 4])
def test_counted_from_a_later_round_on_it_owes_what_it_owed_then(first):
    arms = Arms.from_arrays(4)
    done = {"id": ["arm0", "arm1"], "services": ["1", "2"]}
    one = Guarantee(at_least=2, begin=0, end=4, done=done, before=2, room=3)
    actions = ActionSet(arms, {"sure": one})
    if first in (1, 3):
        with pytest.raises(CapabilityError, match="none are counted"):
            actions.later(first)
        return
    later = actions.later(first)
    for action in itertools.product(range(2), repeat=4):
        # Round 3 is decided where services before it are known, and rounds after the window owe nothing.
        if first in (2, 4):
            assert later.at(0).allows(np.array(action)) == actions.at(first).allows(np.array(action))
