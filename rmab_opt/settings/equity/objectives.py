"""Fair objectives by the names of model files."""

from __future__ import annotations

from pathlib import Path

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.objective import Objective
from rmab_opt.problem import Problem
from rmab_opt.registry import register


@register("objective", "fair")
def _fair(
    problem: Problem, actions: ActionSet, folder: Path, *, group: str = "group", welfare: str = "leximin"
) -> Objective:
    """Group budgets of the round in the order of the welfare, then the arms' indices."""
    from rmab_opt.settings.equity.policies import FairObjective

    return FairObjective(problem, actions, group, welfare=welfare)
