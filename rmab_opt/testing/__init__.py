"""Contracts of everything that plugs in, for the package's own suite and for yours: one line a class."""

from __future__ import annotations

from typing import Any

__all__ = [
    "CONSTRAINT_PROMISES",
    "DOMAIN_PROMISES",
    "DYNAMICS_PROMISES",
    "NETWORK_PROMISES",
    "OBJECTIVE_PROMISES",
    "POLICY_PROMISES",
    "SETTING_PROMISES",
    "ContractError",
    "check_constraint",
    "check_domain",
    "check_dynamics",
    "check_network",
    "check_objective",
    "check_policy",
    "check_setting",
]

_HOME = {
    "ContractError": "contract",
    "CONSTRAINT_PROMISES": "constraints",
    "check_constraint": "constraints",
    "DYNAMICS_PROMISES": "dynamics",
    "check_dynamics": "dynamics",
    "OBJECTIVE_PROMISES": "objectives",
    "check_objective": "objectives",
    "POLICY_PROMISES": "policies",
    "check_policy": "policies",
    "NETWORK_PROMISES": "networks",
    "check_network": "networks",
    "DOMAIN_PROMISES": "settings",
    "SETTING_PROMISES": "settings",
    "check_domain": "settings",
    "check_setting": "settings",
}


def __getattr__(name: str) -> Any:
    # A user's test of a constraint needs no torch, and one of arms no Pyomo.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
