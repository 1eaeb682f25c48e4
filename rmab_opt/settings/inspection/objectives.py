"""Objectives of visits by the names of model files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.objective import Objective
from rmab_opt.problem import Problem
from rmab_opt.registry import register
from rmab_opt.settings.inspection.gains import VisitGains
from rmab_opt.settings.inspection.kinds import most_visits, visits_of


@register("objective", "visit_gains")
def _visit_gains(
    problem: Problem, actions: ActionSet, folder: Path, *, weights: Literal["gain", "index"] = "gain", beyond: int = 0
) -> Objective:
    """What each visit of a period gains over none."""
    several = bool((most_visits(actions, visits_of(actions.columns)) > 1).any())
    return VisitGains(weights, beyond, several=several)
