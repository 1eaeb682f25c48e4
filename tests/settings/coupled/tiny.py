"""The small worlds whose exact values are known, as arguments of the setting's generators."""

from __future__ import annotations

from typing import Any

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Linear
from rmab_opt.decisions import Model
from rmab_opt.instances import generate

WORLDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "contagion": (
        "contagion",
        {"n_arms": 5, "spreaders": 2, "start": (1, 0, 1, 0, 0), "horizon": 8},
        {"visits": Budget(at_most=1)},
    ),
    "villages": (
        "contagion",
        {"n_arms": 6, "spreaders": 2, "villages": 2, "start": (1, 0, 1, 0, 0, 1), "horizon": 8},
        {"visits": Budget(at_most=1)},
    ),
    "crowding": (
        "crowding",
        {"n_arms": 6, "n_workers": 2, "horizon": 7},
        {"visits": Budget(at_most=4), "capacity": Linear(per="worker", at_most=3)},
    ),
    "sessions": ("sessions", {"n_arms": 6, "n_groups": 2, "horizon": 6}, {"visits": Budget(at_most=3)}),
    "fatigue": ("tiring", {"n_arms": 4, "n_workers": 2, "horizon": 8}, {}),
    "stock": (
        "season_stock",
        {"n_arms": 5, "stock": 6, "horizon": 8},
        {"visits": Budget(at_most=2), "season": Budget(at_most={"from": "stock"})},
    ),
    "influencers": (
        "influencers",
        {"n_arms": 7, "leaders": 2, "each": 2, "spread": 0.4, "horizon": 16},
        {"visits": Budget(at_most=1)},
    ),
    "assortment": (
        "assortment",
        {"n_arms": 5, "lift": 0.5, "fade": 0.125, "fill": 1.25, "horizon": 5},
        {"shown": Budget(equal=2)},
    ),
}


def tiny(name: str, seed: int) -> Model:
    """The small version of a world, numbers rounded to two digits."""
    domain, arguments, rules = WORLDS[name]
    problem = generate(domain, **arguments, digits=2, seed=seed).problem
    return Model(problem, ActionSet(problem.arms, rules), solver="exact", title=name)
