"""One set of allowed actions a setting: the simulator rejects exactly what a search by definition rejects."""

from __future__ import annotations

import numpy as np
import pytest
from amounts import amount
from feasibility_checks import by_definition, drawn_model, simulator_rejects_by_definition
from hypothesis import given, settings
from hypothesis import strategies as st

import rmab_opt as ro
from rmab_opt.decisions import Chooser, Immediate, Interpolated, Situation
from rmab_opt.errors import ModelError
from rmab_opt.instances import generate


@pytest.mark.parametrize("name", ["scheduling", "capacity", "path", "interventions"])
@settings(max_examples=amount(8, 25), deadline=None)
@given(seed=st.integers(0, 9999))
def test_the_simulator_rejects_exactly_what_a_search_by_definition_rejects(name, seed):
    simulator_rejects_by_definition(name, seed)


@pytest.mark.parametrize("name", ["scheduling", "capacity", "path", "interventions"])
def test_the_list_of_allowed_actions_is_complete(name):
    """Every 0/1 vector, judged by definition, against the list that decisions and bounds are made from."""
    model = drawn_model(name, 3)
    size = len(model.actions)
    every = (np.arange(2**size)[:, None] >> np.arange(size)) & 1
    wanted = {tuple(action) for action in every.tolist() if by_definition(model, np.array(action))}
    assert {tuple(action) for action in model.actions.listed.astype(int).tolist()} == wanted
    assert {tuple(action) for action in model.actions.enumerate().tolist()} == wanted


@pytest.mark.parametrize("seed", range(3))
def test_the_link_is_the_published_sigmoid_at_0_3_6_9(seed):
    """alpha, beta and x0 drawn again in the written order; phi(x) = 0.98 alpha (sg(beta x - x0) - sg(-x0)) + 0.01."""
    n_arms, n_interventions, budget = 20, 10, 5
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[1])
    steep = np.arange(n_arms) >= -(-n_arms * budget // n_interventions)
    alpha = np.round(np.where(steep, 0.7, 0.2) + rng.uniform(0, 0.3, n_arms), 1)
    beta = np.where(steep, np.round(1.4 + rng.uniform(0, 0.5, n_arms), 1), 1.0)
    middle = np.where(steep, rng.integers(9, 11, n_arms), rng.integers(1, 3, n_arms))

    def phi(x: float) -> np.ndarray:
        return 0.98 * alpha * (1 / (1 + np.exp(-(beta * x - middle))) - 1 / (1 + np.exp(middle))) + 0.01

    up = generate("interventions", seed=seed).problem.dynamics.up
    general = generate("interventions", seed=seed, weights="general").problem.dynamics.up
    for level, x in enumerate((0, 3, 6, 9)):
        assert np.allclose(up[:, 0, level], phi(x), atol=1e-12)
        assert np.allclose(general[:, 0, x], phi(x), atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_program_holds_the_link_exactly_and_lines_keep_their_stated_error(seed):
    """General weights: one binary an attainable sum is exact; lines are exact at their points and off as stated."""
    model = ro.load("interventions", seed=seed, weights="general")
    problem, columns = model.problem, model.actions.columns
    state = np.random.default_rng(seed).integers(4, size=problem.n_arms)
    situation = Situation(problem, columns, state)
    every = model.actions.enumerate().astype(np.int64)
    exact = Immediate().batch_value(every, situation)
    made = Chooser(problem, model.actions, Immediate(), "exact", method="program").decide(state)
    assert made.value == pytest.approx(exact.max(), abs=1e-7)
    errors = []
    for points in (2, 3, 5, 16):
        lines = Interpolated(points)
        drawn = lines.batch_value(every, situation)
        errors.append(lines.error(situation))
        assert np.abs(drawn - exact).max() <= errors[-1] + 1e-12
        decided = Chooser(problem, model.actions, lines, "exact", method="program").decide(state)
        assert decided.value == pytest.approx(drawn.max(), abs=1e-7)
        assert "off by at most" in decided.notes["expected reward"]
        for arm, levels in lines._choose(situation)[0].items():
            assert np.array_equal(
                lines.arm_values(situation)[arm, levels], Immediate().arm_values(situation)[arm, levels]
            )
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0.0


def test_lines_are_a_model_files_objective():
    model = ro.load("interventions", weights="general", **{"objective.points": 3})
    assert isinstance(model.objective, Interpolated)
    with pytest.raises(ModelError, match="at least 2"):
        ro.load("interventions", **{"objective.points": 1})
    with pytest.raises(ModelError, match="weights is"):
        ro.load("interventions", weights="heavy")


def test_workers_of_equal_capacity_are_ordered():
    """The plan with the loads of two equal workers exchanged is cut off; what may be done is not."""
    from rmab_opt.actions import ActionSet
    from rmab_opt.actions.kinds import Capacity
    from rmab_opt.problem import Arms, Table
    from rmab_opt.solver import Session

    arms = Arms.from_arrays(3, load=[2, 3, 4])
    rule = Capacity(workers=Table({"worker": ["a", "b"], "capacity": [5, 5]}), cost="load")
    actions = ActionSet(arms, {"workers": rule})
    model = actions.model()
    session = Session(model, "exact")
    carries = model.constraint["workers"].carries
    act = session.index(model.act)
    session.set_bounds(act, np.ones(3) * [1, 0, 1], np.ones(3) * [1, 0, 1])
    plans = 0
    for first in (0, 1):
        for second in (0, 1):
            fixed = session.index([carries[0, first], carries[2, second]])
            session.set_bounds(fixed, np.ones(2), np.ones(2))
            plans += session.solve().status == "optimal"
            session.set_bounds(fixed, np.zeros(2), np.ones(2))
    # Loads 2 and 4 need a worker each: of the two plans that swap the twins one is left.
    assert plans == 1
    assert [actions.allows(np.array(a)) for a in ([1, 0, 1], [1, 1, 1], [0, 1, 1])] == [True, True, True]
