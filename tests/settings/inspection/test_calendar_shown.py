"""A calendar in a notebook and as a data frame."""

from __future__ import annotations

from dataclasses import replace

import pytest
from notebooks import EVIL, shown

import rmab_opt as ro
from rmab_opt.settings.inspection.calendar import calendar


def test_a_calendar_shows_its_certificate_and_gives_a_frame():
    model = ro.load("inspection")
    plan = calendar(model)
    plan = replace(plan, reason=EVIL)
    text = shown(plan)
    assert EVIL in text
    assert f"{plan.value:.6g}" in text
    polars = pytest.importorskip("polars")
    made = plan.to_frame("polars")
    assert isinstance(made, polars.DataFrame)
    assert made.to_dicts() == plan.rows()
