"""Deciding is a function of a frozen question: what is asked later, or by whom, changes no earlier answer."""

import ast
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.decisions import Chooser, Immediate, NetworkObjective, Scores
from rmab_opt.decisions.certify import certify
from rmab_opt.decisions.policy import POLICIES, Policy, make_policy
from rmab_opt.decisions.question import Proposal
from rmab_opt.encoder import Network
from rmab_opt.errors import CertificateError, ModelError, SolverError
from rmab_opt.solver import load_profile

PACKAGE = Path(ro.__file__).parent


def states(model, count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(model.problem.dynamics.n_states, size=(count, model.problem.n_arms))


def test_only_certify_makes_a_decision():
    makers = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Decision":
                makers.append(path.relative_to(PACKAGE).as_posix())
    assert makers == ["decisions/certify.py"]


def test_a_question_cannot_be_changed_and_its_objective_is_frozen():
    model = ro.load("budget", n_arms=6)
    weight = np.ones(6)
    chooser = Chooser(model.problem, model.actions, NetworkObjective(lambda _: Network.linear(weight)), "exact")
    asked = chooser.question(states(model, 1)[0])
    before = asked.objective.value(np.ones(6, dtype=int), asked.situation)
    weight[:] = 5.0
    chooser.objective._kept = None
    assert chooser.objective.value(np.ones(6, dtype=int), asked.situation) == 30.0
    assert asked.objective.value(np.ones(6, dtype=int), asked.situation) == before == 6.0
    with pytest.raises(FrozenInstanceError):
        asked.period = 3
    scores = Scores(weight)
    with pytest.raises(ValueError, match="read-only"):
        scores.scores[0] = 9.0


@pytest.mark.parametrize("name", ["lagrangian", "whittle", "lp_update", "random_assignment", "myopic", "model"])
def test_an_earlier_decision_answers_as_before(name):
    """why_not and alternatives say the same before and after ten more decisions."""
    model = ro.load("budget", n_arms=10)
    policy = make_policy(name, model)
    here, *later = states(model, 11)
    decision = policy.decide(here, 0, np.random.default_rng(1))
    who = next(name for name in decision.ids if name not in decision.chosen)

    def said():
        return decision.why_not(who), [plan.chosen for plan in decision.alternatives(2, within=0.5)]

    before = said()
    for period, state in enumerate(later):
        policy.decide(state, period, np.random.default_rng(period))
    assert said() == before
    policy.forget()
    assert said() == before


class Everything(Policy):
    name = "everything"

    def propose(self, question, memory):
        return Proposal(np.ones(len(question.actions), dtype=int), value=1e9, bound=1e9, status="optimal"), memory


class EverythingByOldWays:
    name = "old everything"

    def __init__(self, honest):
        self.honest = honest

    def decide(self, state, period, rng):
        return replace(self.honest, action=np.ones(len(self.honest.ids), dtype=int), violations={}, status="optimal")


def test_a_policy_is_never_believed():
    model = ro.load("budget", n_arms=8)
    honest = ro.decide(model, np.zeros(8, dtype=int))
    for cheat in (Everything(model), EverythingByOldWays(honest)):
        with pytest.raises(SolverError, match=f"policy '{cheat.name}'.*breaks budget: 8 chosen"):
            ro.evaluate(model, [cheat], episodes=2, bound=False)


class Boaster(Policy):
    name = "boaster"

    def propose(self, question, memory):
        nothing = np.zeros(len(question.actions), dtype=int)
        return Proposal(nothing, value=1e9, bound=1e9, proof="prices", status="optimal"), memory


def test_what_a_policy_claims_of_its_action_counts_for_nothing():
    model = ro.load("budget", n_arms=8)
    made = Boaster(model).decide(np.zeros(8, dtype=int))
    assert made.status == "heuristic"
    assert made.bound == np.inf
    assert made.bound_kind == "none"
    assert made.value == pytest.approx(Immediate().value(made.action, made._question.situation))


def test_claims_of_a_way_are_held_against_the_evaluator():
    model = ro.load("budget", n_arms=6)
    chooser = Chooser(model.problem, model.actions, Scores(np.arange(6.0)), "exact")
    asked = chooser.question(states(model, 1)[0])
    right = chooser.answer(asked)
    claim = Proposal(right.action, right.value, right.value, "listing", status="optimal")
    assert certify(asked, claim).value == right.value
    for wrong in (
        replace(claim, value=right.value + 1.0),
        replace(claim, bound=right.value - 1.0),
        replace(claim, action=np.ones(6, dtype=int)),
    ):
        with pytest.raises(CertificateError):
            certify(asked, wrong)
    with pytest.raises(ModelError, match="give 0 or 1"):
        certify(asked, replace(claim, action=np.full(6, 2)))
    worse = np.zeros(6, dtype=int)
    with pytest.raises(SolverError, match="stopped at a limit with value 0"):
        certify(asked, replace(claim, action=worse, value=0.0, bound=np.nan))
    # What a way claims of its bound is never believed, only proven.
    free = replace(asked, profile=load_profile("default"))
    assert certify(free, replace(claim, action=worse, value=0.0, bound=np.nan)).bound == pytest.approx(right.value)


def test_a_name_is_registered_once():
    before = POLICIES["myopic"]
    with pytest.raises(ModelError, match="'myopic' is taken by"):

        @ro.decisions.policy.policy("myopic")
        class Mine:
            """Another."""

    assert POLICIES["myopic"] is before
    with pytest.raises(TypeError):
        POLICIES["mine"] = before


def test_other_plans_than_the_empty_one_differ_from_it():
    model = ro.load("budget", n_arms=4)
    model = ro.Model(model.problem, model.actions, Scores(np.zeros(4)))
    decision = ro.decide(model, np.zeros(4, dtype=int))
    plans = [decision.chosen, *(plan.chosen for plan in decision.alternatives(3))]
    assert len(set(plans)) == len(plans) >= 2
