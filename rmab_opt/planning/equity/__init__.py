"""Fair outcomes across groups: relaxed plans with certificates, group value curves, published planners."""

from rmab_opt.planning.equity.groups import Groups
from rmab_opt.planning.equity.plan import Capacity, FairPlan, fair_plan, fair_plan_arrays, smallest_budget
from rmab_opt.planning.equity.welfare import WELFARES, Welfare, gini

__all__ = [
    "WELFARES",
    "Capacity",
    "FairPlan",
    "Groups",
    "Welfare",
    "fair_plan",
    "fair_plan_arrays",
    "gini",
    "smallest_budget",
]
