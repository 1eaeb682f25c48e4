"""One set of allowed actions a model: the simulator rejects exactly what a search by definition rejects."""

from __future__ import annotations

import pytest
from amounts import amount
from feasibility_checks import simulator_rejects_by_definition
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    "name", ["scheduling_stateful", "capacity_stateful", "path_stateful", "interventions_stateful"]
)
@settings(max_examples=amount(8, 25), deadline=None)
@given(seed=st.integers(0, 9999))
def test_the_simulator_rejects_exactly_what_a_search_by_definition_rejects(name, seed):
    simulator_rejects_by_definition(name, seed)
