"""Objectives for effects within one round by the names of model files."""

from __future__ import annotations

from pathlib import Path

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.objective import Objective
from rmab_opt.errors import ModelError
from rmab_opt.problem import Problem
from rmab_opt.registry import register
from rmab_opt.settings.coupled.within import AssortmentRevenue, CrowdedVisits, HeldSessions
from rmab_opt.settings.coupled.worlds import Assortment, Crowding, Sessions


def _demand(problem: Problem, kind: type, name: str) -> None:
    if not isinstance(problem.dynamics, kind):
        raise ModelError(
            f"objective {name} is about {kind.__name__}, these arms are {type(problem.dynamics).__name__}",
            "use objective immediate.",
        )


@register("objective", "crowded_visits")
def crowded_visits(problem: Problem, actions: ActionSet, folder: Path) -> Objective:
    """Expected reward of a round in which a worker's visits take from each other."""
    _demand(problem, Crowding, "crowded_visits")
    return CrowdedVisits()


@register("objective", "held_sessions")
def held_sessions(problem: Problem, actions: ActionSet, folder: Path) -> Objective:
    """Expected reward of a round in which a class needs several attendants."""
    _demand(problem, Sessions, "held_sessions")
    return HeldSessions()


@register("objective", "assortment_revenue")
def assortment_revenue(problem: Problem, actions: ActionSet, folder: Path) -> Objective:
    """Expected revenue from the next customer, who buys one of the shown items or nothing."""
    _demand(problem, Assortment, "assortment_revenue")
    return AssortmentRevenue()
