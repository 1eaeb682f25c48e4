"""Everything that the setting registers keeps the promises of its kind."""

from __future__ import annotations

import numpy as np
import pytest
from contract_models import cases, constraint, missing, registered

from rmab_opt import registry
from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Model
from rmab_opt.instances import generate
from rmab_opt.problem import Arms
from rmab_opt.settings.inspection.kinds import VisitColumns
from rmab_opt.testing import (
    CONSTRAINT_PROMISES,
    DOMAIN_PROMISES,
    POLICY_PROMISES,
    check_constraint,
    check_domain,
    check_dynamics,
    check_objective,
    check_policy,
    check_setting,
)

ARMS = Arms.from_arrays(3, window=["0-1", "1-2", "0-2"], district=["a", "b", "a"])
VISITS = VisitColumns(ARMS, 3)
CONSTRAINTS = {
    "window": [constraint("window")],
    "frequency": [
        constraint("frequency", equal=1),
        constraint("frequency", at_least=1, at_most=2, per="window"),
    ],
    "slot_budget": [
        constraint("slot_budget", at_most=2, at_least=1),
        constraint("slot_budget", per="district", limits={"a": 1, "b": 2}),
    ],
    "cells": [constraint("cells", must=["arm0@1"], must_not=["arm2@0", "arm1@2"])],
    "class_rules": [
        constraint("class_rules", column="district", rules={"class": ["a", "b"], "visits": [1, 0], "at_most": [2, 1]})
    ],
    "inspectors": [
        constraint("inspectors", staff={"id": ["ann", "bob"], "capacity": [1, 1], "off": ["", "1"]}),
        constraint(
            "inspectors", skill="district", staff={"id": ["ann", "bob"], "capacity": [1, 1], "skills": ["a", "a b"]}
        ),
    ],
    "gap": [constraint("gap", slots=2), constraint("gap", slots=3)],
}
DOMAINS = {"inspection": {"n_arms": 5, "n_slots": 4, "window": 2}}
UNTIED = {"rewards_in_another_unit"}


def slots_model() -> Model:
    """Slot by slot: every arm starts where the season does."""
    problem = generate("inspection", n_arms=5, n_slots=4, window=2, horizon=8).problem
    return Model(problem, ActionSet(problem.arms, {"slot": Budget(at_most=2)}), solver="exact")


def plan_model() -> Model:
    """A whole period at once."""
    problem = generate("inspection", n_arms=3, n_slots=3, window=2, horizon=3).problem
    rules = {
        "season": constraint("window"),
        "once": constraint("frequency", at_most=1),
        "slot": constraint("slot_budget", at_most=1),
    }
    return Model(problem, ActionSet(VisitColumns(problem.arms, 3), rules), solver="exact")


def dynamics(folder):
    arms = Arms.from_arrays(3, stay_good=[0.9, 0.8, 0.95], recover=[0.1, 0.2, 0.05], window=["0-1", "1-2", "0-2"])
    return registry.find("dynamics", "inspection").make(arms, folder, "refuse", n_slots=3)


def test_every_registered_name_has_an_example():
    for kind, known in (
        ("constraint", CONSTRAINTS),
        ("dynamics", ["inspection"]),
        ("domain", DOMAINS),
        ("objective", ["visit_gains"]),
    ):
        assert missing(kind, "inspection", known) == (set(), set()), kind


@pytest.mark.slow
def test_the_setting_keeps_its_promises():
    check_setting("inspection")


@pytest.mark.parametrize(("name", "promises"), cases(CONSTRAINTS, CONSTRAINT_PROMISES))
def test_constraints_keep_their_promises(name, promises):
    for one in CONSTRAINTS[name]:
        check_constraint(one, VISITS, promises=promises)


def test_dynamics_keep_their_promises(tmp_path):
    check_dynamics(dynamics(tmp_path))


@pytest.mark.parametrize(("name", "promises"), cases(DOMAINS, DOMAIN_PROMISES))
def test_domains_keep_their_promises(name, promises):
    check_domain(name, DOMAINS[name], promises=promises)


@pytest.mark.parametrize("weights", ["gain", "index"])
def test_objectives_keep_their_promises(weights, tmp_path):
    model = plan_model()
    made = registry.find("objective", "visit_gains").make(model.problem, model.actions, tmp_path, weights=weights)
    # All arms stand in one slot of the season: only the start is a state that occurs.
    check_objective(made, model, anywhere=False)


@pytest.mark.parametrize(("name", "promises"), cases(registered("policy", "inspection"), POLICY_PROMISES))
def test_policies_keep_their_promises(name, promises):
    check_policy(name, slots_model(), promises=promises)


def test_the_season_begins_in_one_slot():
    """What `anywhere=False` above stands on."""
    arms = plan_model().problem
    assert len(np.unique(arms.dynamics.decode(arms.start)[1])) == 1
