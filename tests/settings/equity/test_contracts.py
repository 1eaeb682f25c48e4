"""Everything that the setting registers keeps the promises of its kind."""

from __future__ import annotations

import pytest
from contract_models import cases, missing, registered

from rmab_opt import registry
from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Model
from rmab_opt.instances import generate
from rmab_opt.problem import Arms, Problem
from rmab_opt.testing import (
    DOMAIN_PROMISES,
    POLICY_PROMISES,
    check_domain,
    check_objective,
    check_policy,
    check_setting,
)
from rmab_opt.testing.examples import tabular

DOMAINS = {
    "equity_synthetic": {"n_arms": 10},
    "maternal_health": {"n_arms": 10},
    "digital_diabetes": {"n_arms": 10},
}
NO_CHANCE = {"equity_synthetic": {"another_seed_another_instance"}}
"""Published without anything drawn."""
HIGH_RISK = {"round_robin_high_risk", "random_high_risk"}


def grouped() -> Model:
    """Six arms in three groups."""
    arms = Arms.from_arrays(6, group=["a", "b", "c"] * 2)
    problem = Problem(arms, tabular(6), horizon=3)
    return Model(problem, ActionSet(arms, {"budget": Budget(at_most=2)}), solver="exact", title="grouped")


def patients() -> Model:
    """Arms of the published domain, which say who is at high risk."""
    problem = generate("digital_diabetes", n_arms=8, horizon=3).problem
    return Model(problem, ActionSet(problem.arms, {"budget": Budget(at_most=2)}), solver="exact", title="patients")


def test_every_registered_name_has_an_example():
    assert missing("domain", "equity", DOMAINS) == (set(), set())
    assert missing("objective", "equity", ["fair"]) == (set(), set())


@pytest.mark.slow
def test_the_setting_keeps_its_promises():
    check_setting("equity")


@pytest.mark.parametrize(("name", "promises"), cases(DOMAINS, DOMAIN_PROMISES, NO_CHANCE))
def test_domains_keep_their_promises(name, promises):
    check_domain(name, DOMAINS[name], promises=promises)


def test_objectives_keep_their_promises(tmp_path):
    model = grouped()
    check_objective(registry.find("objective", "fair").make(model.problem, model.actions, tmp_path), model)


@pytest.mark.parametrize(("name", "promises"), cases(registered("policy", "equity"), POLICY_PROMISES))
def test_policies_keep_their_promises(name, promises):
    # Fair planners settle ties by programs; the published domain's arms are no plain tables.
    check_policy(name, patients() if name in HIGH_RISK else grouped(), scales=False, promises=promises)
