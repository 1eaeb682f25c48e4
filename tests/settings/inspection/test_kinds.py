"""Limits of slots: whose they are, and that they cannot be given for nobody."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from rmab_opt.problem import Arms
from rmab_opt.settings.inspection import SlotBudget, VisitColumns


def test_limits_by_value_need_the_attribute_whose_values_they_are():
    with pytest.raises(ValidationError, match="limits need `per`"):
        SlotBudget(limits={"north": 1})
    with pytest.raises(ValidationError, match="give one of at_most, at_least, limits"):
        SlotBudget(per="district")


def test_each_value_has_a_row_a_slot_over_its_own_arms():
    arms = Arms.from_arrays(4, district=["north", "south", "north", "east"])
    columns = VisitColumns(arms, 3)
    rule = SlotBudget(per="district", limits={"south": 2, "north": (1, 0, 3)}, at_least=0)
    rows = rule.rows(columns)
    counted = {
        name: (set(np.flatnonzero(row).tolist()), upper)
        for name, row, upper in zip(rows.names, rows.matrix.toarray(), rows.upper, strict=True)
    }
    limits = {"south": (2, 2, 2), "north": (1, 0, 3)}
    district = np.array(["north", "south", "north", "east"])
    assert counted == {
        f"{value} slot {t}": (
            set(np.flatnonzero((district[columns.arm] == value) & (columns.slot == t)).tolist()),
            limits[value][t],
        )
        for value in limits
        for t in range(3)
    }
    assert (rows.lower == 0).all()
