"""Whatever a solver says, nothing that enumeration refutes is called optimal or proven, and every error has a name."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from amounts import amount
from lies import LIES, behind_pyomo, lying
from strategies import tabular

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Conflict, Knapsack
from rmab_opt.decisions import Chooser, Immediate, Scores
from rmab_opt.errors import CertificateError, ModelError, RmabError
from rmab_opt.planning import bound
from rmab_opt.problem import Arms, Problem, Tabular
from rmab_opt.solver import Profile

LATER: dict[tuple[str, str], str] = {}
"""What waits for the proof objects, and why: a failure there is reported as expected, a success counts."""


def judged(target: str, lie: str, refuted: str | None) -> None:
    """Fail with what was refuted, unless it is on the list of what waits."""
    if refuted is None:
        return
    if (target, lie) in LATER:
        pytest.xfail(f"{LATER[target, lie]}: {refuted}")
    pytest.fail(refuted)


def instance(seed: int):
    """Eight arms under a budget, a knapsack and a conflict; the best allowed value by enumeration."""
    rng = np.random.default_rng(seed)
    reward, cost = rng.random((8, 3, 2)) * [[[1.0, 2.0]]], rng.integers(1, 9, 8)
    arms = Arms.from_arrays(8, cost=cost.tolist())
    problem = Problem(
        arms, Tabular(rng.dirichlet(np.ones(3), size=(8, 2, 3)), reward), horizon=5, start=np.zeros(8, int)
    )
    rules = {"hours": Knapsack(cost="cost", at_most=15), "weekly": Budget(at_most=3)}
    actions = ActionSet(arms, {**rules, "apart": Conflict(groups=[["arm0", "arm1"]])})
    every = np.array(list(itertools.product((0, 1), repeat=8)))
    allowed = np.array([a for a in every if not actions.violations(a)])
    values = reward[np.arange(8), 0][np.arange(8), allowed].sum(axis=1)
    return problem, actions, float(values.max())


def refuted(decision, best: float) -> str | None:
    """What enumeration says against a decision."""
    if decision.violations:
        return f"a forbidden action: {decision.violations}"
    if decision.bound < best - 1e-9 * abs(best):
        return f"the bound {decision.bound:.9g} lies below an allowed value {best:.9g}"
    if decision.status == "optimal" and decision.value < best - 1e-3 * abs(best):
        return f"{decision.value:.9g} is called optimal, {best:.9g} is allowed"
    return None


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("seed", range(amount(1, 2)))
def test_programs(lie, seed):
    problem, actions, best = instance(seed)
    chooser = Chooser(problem, actions, Immediate(), "default", many=False, method="program")
    with lying(lie) as told:
        try:
            found = refuted(chooser.decide(), best)
        except RmabError:
            found = None
    assert told
    judged("program", lie, found)


@pytest.mark.parametrize("lie", LIES)
def test_programs_behind_pyomo(lie):
    problem, actions, best = instance(0)
    chooser = Chooser(problem, actions, Immediate(), Profile("behind", solver="scip"), many=False, method="program")
    with behind_pyomo() as asked, lying(lie) as told:
        try:
            found = refuted(chooser.decide(), best)
        except RmabError:
            found = None
    assert asked
    assert told
    judged("behind", lie, found)


def _say(**what):
    """Changes what Pyomo's answer says, by section and field."""

    def change(answer):
        for place, value in what.items():
            section, name = place.split("__")
            setattr(getattr(answer, section), name, value)

    return change


def _no_values(answer):
    answer.solution.clear()


def _values(change):
    def lie(answer):
        for said in answer.solution(0).variable.values():
            said["Value"] = change(said["Value"])

    return lie


ANSWERS = {
    "nothing is wrong": None,
    "no solution": _no_values,
    "no bound": _say(problem__upper_bound=None),
    "a bound below the value": _say(problem__upper_bound=0.0),
    "a bound of nan": _say(problem__upper_bound=float("nan")),
    "a bound of text": _say(problem__upper_bound="much"),
    "an unknown word": _say(solver__termination_condition="delighted"),
    "infeasible": _say(solver__termination_condition="infeasible"),
    "unbounded": _say(solver__termination_condition="unbounded"),
    "halves": _values(lambda value: 0.5 * value),
    "nan": _values(lambda value: float("nan")),
    "text": _values(lambda value: "one"),
}


@pytest.mark.parametrize("said", ANSWERS)
def test_answers_of_pyomo(said):
    problem, actions, best = instance(1)
    profile = Profile("behind", solver="cbc")
    with behind_pyomo(ANSWERS[said]) as asked:
        chooser = Chooser(problem, actions, Immediate(), profile, many=False, method="program")
        try:
            made = chooser.decide()
        except RmabError:
            made = None
    assert asked
    if made is not None:
        assert refuted(made, best) is None
    if ANSWERS[said] is None:
        assert made is not None
        assert made.status == "optimal"


@pytest.mark.parametrize("lie", LIES)
def test_no_lie_outlives_its_context(lie):
    problem, actions, best = instance(0)
    with lying(lie):
        pass
    decision = Chooser(problem, actions, Immediate(), "default", many=False, method="program").decide()
    assert decision.status == "optimal"
    assert decision.value == pytest.approx(best, rel=1e-6)


def rents_problem():
    rng = np.random.default_rng(2)
    arms = Arms.from_arrays(5, cost=[1, 2, 3, 2, 1])
    problem = Problem(arms, tabular(5, 2, 3, rng), horizon=4, discount=0.8, start=np.zeros(5, int))
    rules = {"hours": Knapsack(cost="cost", at_most=4), "weekly": Budget(at_most=2)}
    return problem, ActionSet(arms, rules)


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("after", amount([0], [0, 1, 3]))
@pytest.mark.parametrize("target", ["rents", "hull"])
def test_bounds(target, after, lie, monkeypatch):
    """The program of prices may lie, or only the rents after it.

    Every price vector bounds the relaxed problem's own value from above: no bound may lie below it.
    """
    problem, actions = rents_problem()
    if target == "hull":
        # Small sets are listed without a solver; here the pricing goes to it.
        monkeypatch.setattr(ActionSet, "listed", None)
    options = {"rents": {"method": "highs"}, "hull": {"coupling": "hull"}}[target]
    honest = bound(problem, actions, **options)
    with lying(lie, after=after):
        try:
            value = bound(problem, actions, **options).value
        except RmabError:
            value = np.inf
    size = abs(honest.lower) + 1.0
    below = f"the bound {value:.9g} lies below what the relaxed problem attains, {honest.lower:.9g}"
    judged(target, lie, below if not value >= honest.lower - 1e-6 * size else None)


OPTIONS = {
    "objective scale -60": {"user_objective_scale": -60},
    "objective scale -30": {"user_objective_scale": -30},
    "dual tolerance": {"dual_feasibility_tolerance": 1e9},
    "objective bound": {"objective_bound": 0.1},
    "objective target": {"objective_target": 0.1},
    "integrality": {"mip_feasibility_tolerance": 0.4},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options_that_lie_are_refused(options):
    """Lie 18."""
    with pytest.raises(ModelError, match="unsafe = true"):
        Profile("mine", options=OPTIONS[options])
    assert Profile("mine", options=OPTIONS[options], unsafe=True).unsafe


def test_a_lie_of_prices_is_seen(monkeypatch):
    """Lie 17: the assignment by prices says that nothing is best, with its own value as the bound."""
    from rmab_opt.decisions import ways

    rng = np.random.default_rng(0)
    arms, scores = Arms.from_arrays(6), np.arange(1.0, 7.0)
    problem = Problem(arms, tabular(6, 2, 2, rng), horizon=2, start=np.zeros(6, int))
    actions, best = ActionSet(arms, {"b": Budget(at_most=2)}), 11.0
    real = ways.assign

    def lies(*given, **more):
        found = real(*given, **more)
        return replace(found, action=np.zeros(6, int), value=0.0, bound=0.0)

    monkeypatch.setattr(ways, "assign", lies)
    try:
        found = refuted(Chooser(problem, actions, Scores(scores), many=False).decide(), best)
    except RmabError:
        found = None
    judged("prices", "17 nothing chosen and its own value as the bound", found)


def test_every_number_of_the_table_has_its_lie():
    """17 and 18 stand in this file, 20 in tests/actions/test_agreement.py."""
    told = {int(name.split()[0]) for name in LIES} | {17, 18, 20}
    assert told == set(range(1, 21))


@pytest.mark.parametrize("exactly", [False, True])
def test_an_allowed_action_refutes_the_word_infeasible(exactly):
    """Also where choosing nobody is not allowed."""
    arms = Arms.from_arrays(5)
    actions = ActionSet(arms, {"b": Budget(at_least=2, at_most=2) if exactly else Budget(at_most=2)})
    with lying("11 infeasible"), pytest.raises(CertificateError, match="says that no action is allowed"):
        actions.explain()
    assert actions.explain() is None


def test_a_solver_bound_below_the_value_is_dropped_and_named():
    problem, actions, best = instance(0)
    chooser = Chooser(problem, actions, Immediate(), "default", many=False, method="program")
    with lying("3 bound too low"):
        made = chooser.decide()
    assert made.solver_bound is None
    assert "counts for nothing" in made.notes["solver"]
    assert made.status == "optimal"
    assert made.bound >= best
