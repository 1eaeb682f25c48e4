"""The bound through mixtures of allowed actions on arms that remember."""

from __future__ import annotations

import pytest
from hull_checks import asking_gives_what_listing_gives, hull_lies_between

SMALL = {
    "scheduling_stateful": {"n_arms": 4, "n_workers": 2, "horizon": 5, "budget.at_most": 2},
    "interventions_stateful": {
        "n_arms": 4, "n_interventions": 4, "reach": 2, "n_touches": 2, "problem.budget": 2,
        "constraints.budget.equal": 2, "horizon": 5,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_the_hull_lies_between_the_optimum_and_the_relaxation(name):
    hull_lies_between(name, SMALL[name], by_program=name == "interventions_stateful")


def test_asking_programs_gives_what_listing_gives(monkeypatch):
    asking_gives_what_listing_gives("interventions_stateful", SMALL["interventions_stateful"], monkeypatch)
