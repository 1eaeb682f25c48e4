"""Everything that the setting registers keeps the promises of its kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
from contract_models import cases, missing, registered

import rmab_opt as ro
from rmab_opt import registry
from rmab_opt.decisions import Model
from rmab_opt.problem import Arms
from rmab_opt.testing import (
    DOMAIN_PROMISES,
    NETWORK_PROMISES,
    POLICY_PROMISES,
    check_domain,
    check_dynamics,
    check_network,
    check_objective,
    check_policy,
    check_setting,
)

DOMAINS = {
    "contacts": {"n_arms": 6, "n_contacts": 9},
    "contacts_influencers": {"n_arms": 6, "influencers": 2, "each": 2},
}
NETWORKS = ("graph", "graph_lookahead")


SHORT = {"episodes": 1, "pretrain_steps": 5, "batch": 4, "hidden": [4], "validation_episodes": 1}
"""Some policies train when they are made."""


def small() -> Model:
    """Six arms, two of which may be acted on."""
    model = ro.load("contacts", n_arms=6, n_contacts=9, at_most=2, probability=0.2, horizon=3, samples=20)
    return replace(model, settings={**model.settings, "train": SHORT})


def dynamics(folder):
    chance = {"p00": 0.1, "p01": 0.6, "p10": 0.5, "p11": 0.9}
    arms = Arms.from_arrays(4, worth=[1, 2, 0.5, 1], **{name: [cell] * 4 for name, cell in chance.items()})
    (folder / "contacts.csv").write_text("u,v,p\narm0,arm1,0.3\narm1,arm2,0.5\narm2,arm3,0.2\n")
    make = registry.find("dynamics", "cascade").make
    return make(arms, folder, "refuse", contacts="contacts.csv", probability="p", value="worth")


def test_every_registered_name_has_an_example():
    for kind, known in (
        ("dynamics", ["cascade"]),
        ("domain", DOMAINS),
        ("objective", ["cascade"]),
        ("network", NETWORKS),
    ):
        assert missing(kind, "networked", known) == (set(), set()), kind


@pytest.mark.slow
def test_the_setting_keeps_its_promises():
    check_setting("networked")


def test_dynamics_keep_their_promises(tmp_path):
    check_dynamics(dynamics(tmp_path))


@pytest.mark.parametrize(("name", "promises"), cases(DOMAINS, DOMAIN_PROMISES))
def test_domains_keep_their_promises(name, promises):
    check_domain(name, DOMAINS[name], promises=promises)


def test_objectives_keep_their_promises(tmp_path):
    model = small()
    made = registry.find("objective", "cascade").make(model.problem, model.actions, tmp_path, samples=20)
    check_objective(made, model)


@pytest.mark.parametrize(("name", "promises"), cases(NETWORKS, NETWORK_PROMISES))
def test_networks_keep_their_promises(name, promises):
    check_network(name, small(), promises=promises)


@pytest.mark.parametrize(("name", "promises"), cases(registered("policy", "networked"), POLICY_PROMISES))
def test_policies_keep_their_promises(name, promises):
    check_policy(name, small(), promises=promises)
