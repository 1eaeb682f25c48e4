"""Fair plans from loose arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from rmab_opt.settings.equity import Cohort, FairPlan, Groups, Limits, fair_plan_arrays


def planned(
    transition: np.ndarray,
    reward: np.ndarray,
    start: np.ndarray,
    groups: Groups,
    rows: Any,
    *,
    horizon: int,
    discount: float = 1.0,
    past: np.ndarray | None = None,
    **options: Any,
) -> FairPlan:
    """:func:`fair_plan_arrays` with the fields of the cohort and of its limits side by side."""
    cohort = Cohort(transition, reward, start, groups, rows, horizon, discount, past)
    names = {item.name for item in dataclasses.fields(Limits)} & options.keys()
    limits = Limits(**{name: options.pop(name) for name in names})
    return fair_plan_arrays(cohort, limits, **options)
