"""Fair outcomes across groups: relaxed plans with certificates, group budgets every round, published planners."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "Capacity": "plan",
    "Cohort": "cohort",
    "FairObjective": "policies",
    "FairPlan": "plan",
    "Groups": "groups",
    "Limits": "cohort",
    "WELFARES": "welfare",
    "Welfare": "welfare",
    "compare_groups": "fairness",
    "fair_plan": "plan",
    "fair_plan_arrays": "plan",
    "gini": "welfare",
    "smallest_budget": "plan",
}

__all__ = [
    "WELFARES",
    "Capacity",
    "Cohort",
    "FairObjective",
    "FairPlan",
    "Groups",
    "Limits",
    "Welfare",
    "compare_groups",
    "fair_plan",
    "fair_plan_arrays",
    "gini",
    "smallest_budget",
]


def __getattr__(name: str) -> Any:
    # Nothing of a setting is imported before it is asked for.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
