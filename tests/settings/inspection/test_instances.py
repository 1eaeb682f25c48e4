"""Establishments in districts."""

from __future__ import annotations

import pytest

from rmab_opt.errors import ModelError
from rmab_opt.settings.inspection.instances import inspection


@pytest.mark.parametrize("n_districts", [1, 3])
def test_establishments_are_dealt_to_the_districts(n_districts):
    problem = inspection(n_arms=7, n_slots=4, n_districts=n_districts).problem
    assert problem.arms.text("district") == [f"d{k % n_districts + 1}" for k in range(7)]


def test_there_is_at_least_one_district():
    with pytest.raises(ModelError, match="n_districts is 0"):
        inspection(n_districts=0)
