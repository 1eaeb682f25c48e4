"""`decide` equals trying every action, judged without Pyomo; a certificate that fails is an error."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import KINDS, action_sets, all_actions, cohorts, problem_for, tabular

from rmab_opt.actions import ActionSet, Columns
from rmab_opt.actions.kinds import Budget, Linear, LockedIn
from rmab_opt.decisions import Chooser, Immediate, Model, NetworkObjective, Scores, Situation, decide, verify
from rmab_opt.encoder import Network
from rmab_opt.errors import CapabilityError, CertificateError, InfeasibleError, ModelError, SolverError
from rmab_opt.problem import Arms, Problem, Tabular
from rmab_opt.solver import load_profile

OBJECTIVES = ("immediate", "linear", "network")


def random_network(n_inputs: int, rng: np.random.Generator, depth: int) -> Network:
    """Dense ReLU layers of random widths; now and then a dead or doubled neuron and a linear skip."""
    sizes = [n_inputs, *rng.integers(1, 7, depth).tolist(), 1]
    layers = []
    for k, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        weight, bias = rng.normal(size=(fan_out, fan_in)), rng.normal(size=fan_out)
        if k < depth and rng.random() < 0.3:
            weight[-1], bias[-1] = weight[0], bias[0]
        if k < depth and rng.random() < 0.2:
            weight[0], bias[0] = 0.0, -1.0
        layers.append((weight, bias, "relu" if k < depth else "linear"))
    skip = rng.normal(size=n_inputs) if rng.random() < 0.5 else None
    return Network.from_arrays(layers, skip=skip, constant=float(rng.normal()) if skip is not None else 0.0)


def objective(kind: str, actions: ActionSet, problem: Problem, rng: np.random.Generator):
    n = len(actions)
    if kind == "immediate":
        return Immediate()
    if kind == "linear":
        return Scores(rng.normal(size=(problem.n_arms, problem.dynamics.n_states, 2)))
    depth = int(rng.integers(1, 4))
    # One architecture in all situations: the widths come from the first state, only numbers change with it.
    base = random_network(n, rng, depth)

    def shifted(situation: Situation) -> Network:
        shift = np.random.default_rng(situation.state).normal(size=len(base.layers()[0][1]))
        layers = [(w, b + (shift if k == 0 else 0), kind) for k, (w, b, kind) in enumerate(base.layers())]
        return Network.from_arrays(layers, skip=base.skip, constant=base.constant)

    return NetworkObjective(shifted)


def brute_force(actions: ActionSet, goal, situation: Situation) -> float | None:
    values = [goal.value(a, situation) for a in all_actions(len(actions)) if not actions.violations(a)]
    return max(values) if values else None


def check_against_enumeration(actions: ActionSet, kind: str, seed: int, method: str = "auto") -> None:
    rng = np.random.default_rng(seed)
    problem = problem_for(actions.columns.arms, rng)
    goal = objective(kind, actions, problem, rng)
    chooser = Chooser(problem, actions, goal, "exact", method=method)
    # Two states through one compiled program: the second is a re-solve.
    for state in (problem.start, rng.integers(3, size=problem.n_arms)):
        best = brute_force(actions, goal, Situation(problem, actions.columns, state))
        if best is None:
            with pytest.raises(InfeasibleError):
                chooser.decide(state)
            return
        decision = chooser.decide(state)
        scale = 1.0 + abs(best)
        assert decision.value == pytest.approx(best, abs=1e-6 * scale)
        assert decision.bound >= best - 1e-6 * scale
        assert decision.encoding_error <= 1e-6 * scale
        assert decision.violations == {}
        assert actions.violations(decision.action) == {}
        assert set(np.unique(decision.action)) <= {0, 1}
        assert verify(decision, problem, actions, goal).ok


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=amount(6, 30))
@given(data=st.data())
def test_every_kind_alone_equals_enumeration(kind, data):
    check_against_enumeration(
        data.draw(action_sets((kind,))), data.draw(st.sampled_from(OBJECTIVES)), data.draw(st.integers(0, 9999))
    )


@settings(max_examples=amount(50, 300))
@given(action_sets(), st.sampled_from(OBJECTIVES), st.integers(0, 9999))
def test_random_combinations_equal_enumeration(actions, kind, seed):
    check_against_enumeration(actions, kind, seed)


@settings(max_examples=amount(10, 150))
@given(action_sets(), st.integers(0, 9999))
def test_the_exact_search_equals_enumeration(actions, seed):
    check_against_enumeration(actions, "network", seed, method="search")


def test_an_unknown_method_and_a_search_without_a_network_are_refused():
    model = small_model()
    with pytest.raises(ModelError, match="method is 'fast'"):
        Chooser(model.problem, model.actions, Immediate(), method="fast")
    with pytest.raises(CapabilityError, match="Immediate does not offer exact search"):
        Chooser(model.problem, model.actions, Immediate(), method="search")


@settings(max_examples=amount(13, 40))
@given(cohorts(most=3), st.integers(0, 9999))
def test_several_actions_an_arm_equal_enumeration(arms, seed):
    rng = np.random.default_rng(seed)
    problem = Problem(arms, tabular(len(arms), 3, 3, rng), start=rng.integers(3, size=len(arms)))
    actions = ActionSet(
        Columns.of_arm_actions(arms, 3),
        {"first": Linear(where={"action": 1}, at_most=1), "second": Linear(where={"action": 2}, at_most=1)},
    )
    for goal in (Immediate(), Scores(rng.normal(size=(len(arms), 3, 3)))):
        best = brute_force(actions, goal, Situation(problem, actions.columns, problem.start))
        assert Chooser(problem, actions, goal, "exact").decide().value == pytest.approx(best, abs=1e-7)


@settings(max_examples=amount(20, 60))
@given(cohorts(most=4), st.integers(0, 9999))
def test_prices_equal_enumeration_under_plain_budgets(arms, seed):
    rng = np.random.default_rng(seed)
    n, n_actions = len(arms), int(rng.integers(2, 4))
    problem = Problem(arms, tabular(n, 3, n_actions, rng), start=rng.integers(3, size=n))
    side = "equal" if rng.random() < 0.3 else "at_most"
    if n_actions == 2:
        actions = ActionSet(arms, {"budget": Budget(**{side: int(rng.integers(0, n + 1))})})
    else:
        limits = rng.integers(0, n // 2 + 1, 2)
        rows = {f"a{k}": Linear(where={"action": k}, **{side: int(limits[k - 1])}) for k in (1, 2)}
        actions = ActionSet(Columns.of_arm_actions(arms, 3), rows)
    goal = Scores(np.round(rng.normal(size=(n, 3, n_actions)), 1))
    best = brute_force(actions, goal, Situation(problem, actions.columns, problem.start))
    for method in ("auto", "prices", "program"):
        decision = Chooser(problem, actions, goal, "exact", method=method).decide()
        assert decision.value == pytest.approx(best, abs=1e-7)
        assert decision.bound >= best - 1e-7
        assert decision.bound_kind == "prices"


@pytest.mark.parametrize("seed", range(6))
def test_a_relaxed_decision_by_a_network_is_the_best_of_the_loosened_set(seed):
    """Bounds from the original rows would cut off what the least relaxation lets in."""
    rng = np.random.default_rng(seed)
    arms = Arms.from_arrays(5, village=["n", "n", "n", "s", "s"])
    actions = ActionSet(arms, {"weekly": Budget(at_most=1), "north": Linear(where={"village": "n"}, at_least=3)})
    loosened = ActionSet(arms, {"weekly": Budget(at_most=3), "north": Linear(where={"village": "n"}, at_least=3)})
    problem = problem_for(arms, rng)
    network = random_network(5, rng, 2)
    goal = NetworkObjective(lambda _: network)
    decision = Chooser(problem, actions, goal, "exact", relax="weekly").decide()
    best = brute_force(loosened, goal, Situation(problem, actions.columns, problem.start))
    assert decision.value == pytest.approx(best, abs=1e-6)
    assert list(decision.violations) == ["weekly"]


def test_prices_are_refused_where_they_do_not_apply():
    model = small_model()
    several = ActionSet(model.problem.arms, {"one": Budget(at_most=2), "two": LockedIn(ids=["arm0"])})
    with pytest.raises(CapabilityError, match="ActionSet does not offer assignment by prices"):
        Chooser(model.problem, several, Immediate(), method="prices").decide()
    with pytest.raises(CapabilityError, match="NetworkObjective does not offer"):
        Chooser(model.problem, several, NetworkObjective(lambda _: Network.linear(np.ones(6))), method="prices")
    # Limits inside each other are a budget's kind: sorted, and as good as the program.
    nested = ActionSet(model.problem.arms, {"one": Budget(at_most=2), "two": Budget(at_most=1)})
    sorted_, solved = (Chooser(model.problem, nested, Immediate(), method=m).decide() for m in ("prices", "program"))
    assert sorted_.value == pytest.approx(solved.value, abs=1e-9)
    assert sorted_.gap <= 1e-12


def small_model(n: int = 6, at_most: int = 2, goal=None) -> Model:
    rng = np.random.default_rng(1)
    arms = Arms.from_arrays(n)
    problem = Problem(arms, tabular(n, 3, 2, rng), start=rng.integers(3, size=n))
    return Model(problem, ActionSet(arms, {"budget": Budget(at_most=at_most)}), goal or Immediate(), "exact")


class Sabotaged(Scores):
    """Claims another number than it evaluates to."""

    def coefficients(self, situation):
        gain, base = super().coefficients(situation)
        return gain + 1.0, base


def test_a_claim_that_differs_from_the_re_computed_value_is_an_error():
    with pytest.raises(CertificateError, match="did not survive its re-check"):
        decide(small_model(goal=Sabotaged(np.ones(6))))


def test_where_nothing_is_decided_no_gap_is_open():
    """Bounds are rounded outward: all of a span of nothing but rounding would look open."""
    problem = small_model().problem
    same = replace(problem, dynamics=Tabular(np.full((6, 2, 3, 3), 1 / 3), np.full((6, 3, 2), 0.1)))
    model = replace(small_model(), problem=same)
    for method in ("prices", "program", "listing"):
        made = decide(model, method=method)
        assert made.status == "optimal"
        assert made.relative_gap == 0.0
        assert verify(made, same, model.actions, model.objective).ok


class Understated(Scores):
    """Its program hides value: the bound lies below actions that exist."""

    def coefficients(self, situation):
        gain, base = super().coefficients(situation)
        return gain, base - 1.0


def test_a_bound_below_a_known_action_is_an_error():
    with pytest.raises(CertificateError):
        decide(small_model(goal=Understated(np.ones(6))))


def test_an_action_that_breaks_a_constraint_is_an_error():
    class Forgetful(Budget):
        """Its rows forget the limit that its check knows."""

        def build(self, block, act, columns):
            pass

    model = small_model()
    actions = ActionSet(model.problem.arms, {"budget": Forgetful(at_most=2)})
    with pytest.raises(CertificateError, match=r"its check forbids|breaks"):
        decide(Model(model.problem, actions, Scores(np.ones(6)), "exact"))


def test_the_gap_of_a_stopped_solve_is_open_and_said_so():
    rng = np.random.default_rng(0)
    n = 40
    arms = Arms.from_arrays(n)
    problem = Problem(arms, tabular(n, 3, 2, rng), start=rng.integers(3, size=n))
    actions = ActionSet(arms, {"budget": Budget(at_most=12)})
    first = (rng.normal(size=(24, n)), rng.normal(size=24), "relu")
    second = (rng.normal(size=(24, 24)), rng.normal(size=24), "relu")
    network = Network.from_arrays([first, second, (rng.normal(size=(1, 24)), np.zeros(1), "linear")])
    goal = NetworkObjective(lambda _: network)
    hurried = replace(load_profile("default"), seconds=0.01)
    # The local search's start is always at hand, so that even a hundredth of a second leaves an action.
    decision = Chooser(problem, actions, goal, hurried).decide()
    assert decision.status == "limit"
    assert decision.violations == {}
    assert decision.bound >= decision.value
    assert decision.value == pytest.approx(float(network(decision.action[None].astype(float)).ravel()[0]))
    assert "stopped at a limit" in str(decision)
    with pytest.raises(SolverError, match="limit"):
        Chooser(problem, actions, goal, replace(hurried, at_limit="raise")).decide()


def test_the_printed_tree_the_json_and_the_csv_tell_the_same():
    decision = decide(small_model())
    document = json.loads(decision.to_json())
    assert document["action"] == list(decision.chosen)
    assert document["value"] == decision.value
    assert document["gap"] == pytest.approx(decision.gap)
    assert decision.to_csv().splitlines() == ["id", *decision.chosen]
    for part in ("chosen", "value", "tight", "re-checked", "solved", "2 of 6", "budget 2 of 2"):
        assert part in str(decision)


def test_why_not_names_cost_and_displaced():
    model = small_model(goal=Scores(np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.5])))
    decision = decide(model)
    assert decision.chosen == ("arm0", "arm1")
    assert decision.why_not("arm3") == "Choosing arm3 costs 2 of 9 and displaces arm1."
    assert decision.why_not("arm0") == "arm0 is chosen."
    assert decide(model).chosen == ("arm0", "arm1")


def test_a_start_that_breaks_a_constraint_is_refused():
    with pytest.raises(ModelError, match="start breaks budget"):
        decide(small_model(), start=np.ones(6, dtype=int))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (np.zeros(5, dtype=int), "state has shape"),
        (np.array([0, 0, 3, 0, 0, 0]), "arm 'arm2' is in state 3"),
        (np.array([0, 0, -1, 0, 0, 0]), "arm 'arm2' is in state -1"),
        (np.array([0, 0, 0.5, 0, 0, 0]), "arm 'arm2' is in state 0.5"),
        (np.array([0, 0, np.nan, 0, 0, 0]), "arm 'arm2' is in state nan"),
    ],
)
def test_a_wrong_state_names_arm_and_value(state, message):
    with pytest.raises(ModelError) as caught:
        decide(small_model(), state)
    assert message in str(caught.value)


def test_scores_must_be_finite():
    with pytest.raises(ModelError, match=r"score at \(2,\) is nan"):
        Scores(np.array([1.0, 2.0, np.nan]))


def test_the_same_model_decides_the_same_twice():
    one, two = (decide(small_model(), solver="reproducible") for _ in range(2))
    assert np.array_equal(one.action, two.action)
    assert one.value == two.value


def test_other_plans_are_as_many_as_asked_and_the_best_of_the_rest():
    """Against all actions sorted by value; fewer come back only when there are no more."""
    arms = Arms.from_arrays(3)
    problem = Problem(arms, tabular(3, 2, 2, np.random.default_rng(0)), horizon=2, start=np.zeros(3, dtype=int))
    scores = np.array([8.0, 4.0, 2.0])
    model = Model(problem, ActionSet(arms, {"weekly": Budget(at_most=2)}), Scores(scores), "exact")
    decision = decide(model)
    rest = sorted((scores @ a for a in all_actions(3) if a.sum() <= 2), reverse=True)[1:]
    for count in (0, 1, 3, 6, 9):
        plans = decision.alternatives(count, within=1.0, differ=0.01)
        assert [plan.value for plan in plans] == pytest.approx(rest[:count])
    near = decision.alternatives(9, within=0.2, differ=0.01)
    assert [plan.value for plan in near] == pytest.approx([10.0])
    assert near.reason.startswith("none other within 20 %")
    assert decision.alternatives(1, within=1.0).reason is None
    assert decision.alternatives(9, within=1.0, differ=0.01).reason.startswith("none other differs enough")
    # Entries that leave and entries that come count alike.
    far = decision.alternatives(9, within=1.0, differ=1.0)
    every = [decision, *far]
    assert all((a.action != b.action).sum() >= 2 for i, b in enumerate(every) for a in every[:i] if a.action.sum() == 2)
