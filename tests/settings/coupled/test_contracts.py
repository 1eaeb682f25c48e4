"""Everything that the setting registers keeps the promises of its kind."""

from __future__ import annotations

import pytest
from contract_models import cases, missing, registered

from rmab_opt.instances import generate
from rmab_opt.testing import (
    DOMAIN_PROMISES,
    DYNAMICS_PROMISES,
    check_domain,
    check_dynamics,
    check_setting,
)

DOMAINS = {
    "scheduling_stateful": {"n_arms": 6, "n_workers": 2, "n_slots": 3},
    "capacity_stateful": {"n_arms": 6, "n_workers": 2},
    "path_stateful": {"n_arms": 8, "n_stops": 3},
    "interventions_stateful": {"n_arms": 8, "n_interventions": 5, "budget": 2},
}


def test_every_registered_name_has_an_example():
    assert missing("domain", "coupled", DOMAINS) == (set(), set())
    assert registered("policy", "coupled") == registered("constraint", "coupled") == []


def test_the_setting_keeps_its_promises():
    check_setting("coupled")


@pytest.mark.parametrize(("name", "promises"), cases(DOMAINS, DOMAIN_PROMISES))
def test_domains_keep_their_promises(name, promises):
    check_domain(name, DOMAINS[name], promises=promises)


@pytest.mark.parametrize(("name", "promises"), cases(DOMAINS, DYNAMICS_PROMISES))
def test_their_arms_keep_the_promises_of_dynamics(name, promises):
    check_dynamics(generate(name, **DOMAINS[name]).problem.dynamics, promises=promises)
