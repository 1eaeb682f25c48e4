"""Visits within windows and frequencies: belief chains, indices, period plans and calendars."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "BeliefChains": "beliefs",
    "Calendar": "calendar",
    "Cells": "kinds",
    "EncodedArms": "beliefs",
    "Frequency": "kinds",
    "Gap": "kinds",
    "SlotBudget": "kinds",
    "VisitColumns": "kinds",
    "VisitGains": "gains",
    "Window": "kinds",
    "Windows": "beliefs",
    "calendar": "calendar",
    "plan_periods": "periods",
    "plan_visits": "plan",
}

__all__ = [
    "BeliefChains",
    "Calendar",
    "Cells",
    "EncodedArms",
    "Frequency",
    "Gap",
    "SlotBudget",
    "VisitColumns",
    "VisitGains",
    "Window",
    "Windows",
    "calendar",
    "plan_periods",
    "plan_visits",
]


def __getattr__(name: str) -> Any:
    # Nothing of a setting is imported before it is asked for.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
