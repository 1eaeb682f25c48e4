"""Everything that the setting registers keeps the promises of its kind."""

from __future__ import annotations

import numpy as np
import pytest
from contract_models import cases, missing, registered
from settings.coupled.tiny import WORLDS, tiny

from rmab_opt import registry
from rmab_opt.instances import generate
from rmab_opt.settings.coupled.within import HeldSessions
from rmab_opt.testing import (
    DOMAIN_PROMISES,
    DYNAMICS_PROMISES,
    OBJECTIVE_PROMISES,
    POLICY_PROMISES,
    check_domain,
    check_dynamics,
    check_objective,
    check_policy,
    check_setting,
)

DOMAINS = {
    "scheduling_stateful": {"n_arms": 6, "n_workers": 2, "n_slots": 3},
    "capacity_stateful": {"n_arms": 6, "n_workers": 2},
    "path_stateful": {"n_arms": 8, "n_stops": 3},
    "interventions_stateful": {"n_arms": 8, "n_interventions": 5, "budget": 2},
    "contagion": {"n_arms": 8, "villages": 2},
    "crowding": {"n_arms": 6, "n_workers": 2},
    "sessions": {"n_arms": 6, "n_groups": 2},
    "tiring": {"n_arms": 6, "n_workers": 2},
    "season_stock": {"n_arms": 6, "stock": 8},
    "influencers": {"n_arms": 8, "leaders": 3, "each": 2},
    "assortment": {"n_arms": 5},
}

OBJECTIVES = {"crowded_visits": "crowding", "held_sessions": "sessions", "assortment_revenue": "assortment"}
"""A small world for each kind."""

POLICIES = {"hand": "contagion", "best_assortment": "assortment", "planned_round": "sessions"}


def test_every_registered_name_has_an_example():
    assert missing("domain", "coupled", DOMAINS) == (set(), set())
    assert missing("objective", "coupled", OBJECTIVES) == (set(), set())
    named = set(registered("policy", "coupled")) | set(registered("rule", "coupled"))
    assert named == set(POLICIES)
    assert registered("constraint", "coupled") == []


@pytest.mark.slow
def test_the_setting_keeps_its_promises():
    check_setting("coupled")


@pytest.mark.parametrize(("name", "promises"), cases(DOMAINS, DOMAIN_PROMISES))
def test_domains_keep_their_promises(name, promises):
    check_domain(name, DOMAINS[name], promises=promises)


# Items that hardly anybody buys show no range of rewards; test_worlds tests the chances of purchases.
LEFT_OUT = {"assortment": {"rewards_average_to_the_expected"}}


@pytest.mark.parametrize(("name", "promises"), cases(DOMAINS, DYNAMICS_PROMISES, LEFT_OUT))
def test_their_arms_keep_the_promises_of_dynamics(name, promises):
    check_dynamics(generate(name, **DOMAINS[name]).problem.dynamics, promises=promises)


@pytest.mark.parametrize(("name", "promises"), cases(OBJECTIVES, OBJECTIVE_PROMISES))
def test_objectives_keep_their_promises(name, promises, tmp_path):
    model = tiny(OBJECTIVES[name], 0)
    made = registry.find("objective", name).make(model.problem, model.actions, tmp_path)
    check_objective(made, model, promises=promises)


@pytest.mark.parametrize(("name", "promises"), cases(POLICIES, POLICY_PROMISES))
def test_policies_keep_their_promises(name, promises):
    model = tiny(POLICIES[name], 0)
    if name == "planned_round":
        model = model.with_objective(HeldSessions())
    check_policy(name, model, promises=promises)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", ["improve:base=hand,draws=2", "single_gains"])
def test_planners_keep_their_promises_on_every_world(name, world):
    some = [p for p in POLICY_PROMISES if p.__name__ in ("never_a_forbidden_action", "decisions_are_of_their_round")]
    check_policy(name, tiny(world, 1), promises=some)


def test_what_acting_alone_adds_is_the_expected_reward_of_single_actions():
    rng = np.random.default_rng(0)
    for world in WORLDS:
        model = tiny(world, 0)
        problem, n = model.problem, model.problem.n_arms
        state = rng.integers(2, size=n)
        each = problem.expected_reward(state, np.eye(n, dtype=int), problem.start_shared).sum(axis=1)
        none = problem.expected_reward(state, np.zeros(n, dtype=int), problem.start_shared).sum()
        rule = registry.find("rule", "single_gains").make(problem, model.actions)
        found = rule.scores(state, 0, None, problem.start_shared)[:, 1]
        assert found == pytest.approx(each - none, abs=1e-12), world
