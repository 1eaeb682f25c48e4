"""Allowed actions of the coupled models by a search straight from the definitions."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

import rmab_opt as ro
from rmab_opt.actions.kinds import Path
from rmab_opt.errors import ModelError
from rmab_opt.learning import Simulator


def walks_pass(rule: Path, action: np.ndarray, ids: tuple[str, ...]) -> bool:
    """Whether some walk from the depot and back passes all chosen arms, move by move."""
    ways: dict[str, set[str]] = {}
    for one, other in zip(rule.edges.text("from"), rule.edges.text("to"), strict=True):
        ways.setdefault(one, set()).add(other)
        ways.setdefault(other, set()).add(one)
    wanted = {ids[c] for c in np.flatnonzero(action)}
    layer = {(rule.depot, frozenset({rule.depot}) & wanted)}
    found = {passed for at, passed in layer if at == rule.depot}
    for _ in range(rule.length):
        layer = {(to, passed | ({to} & wanted)) for at, passed in layer for to in ways[at]}
        found |= {passed for at, passed in layer if at == rule.depot}
    return any(wanted <= passed | {rule.depot} for passed in found)


def by_definition(model: ro.Model, action: np.ndarray) -> bool:
    columns = model.actions.columns
    return all(
        walks_pass(rule, action, columns.ids) if isinstance(rule, Path) else oracles.allowed(rule, action, columns)
        for rule in model.actions.constraints.values()
    )


def drawn_model(name: str, seed: int) -> ro.Model:
    rng = np.random.default_rng(seed)
    n_arms = int(rng.integers(5, 9))
    if name.startswith("scheduling"):
        over = {"problem.n_workers": 3, "constraints.budget.at_most": int(rng.integers(1, 5))}
        over["rule"] = str(rng.choice(["any", "distinct_workers", "same_slot"]))
    elif name.startswith("capacity"):
        over = {"problem.n_workers": int(rng.integers(1, 4))}
    elif name.startswith("path"):
        over = {"constraints.budget.at_most": int(rng.integers(1, 6)), "length": int(rng.integers(2, 9))}
    elif name == "interventions":
        n_arms, over = 12, {"n_interventions": 4, "problem.budget": 3, "constraints.budget.equal": 3}
    else:
        over = {"n_interventions": 5, "reach": 2, "problem.budget": 2, "constraints.budget.equal": 2}
    return ro.load(name, seed=seed, n_arms=n_arms, **over)


def simulator_rejects_by_definition(name: str, seed: int) -> None:
    """Four random actions: the simulator takes those that the search allows, and no other."""
    model = drawn_model(name, seed % 7)
    rng = np.random.default_rng(seed)
    size = len(model.actions)
    for _ in range(4):
        action = (rng.random(size) < rng.uniform(0.1, 0.6)).astype(np.int64)
        simulator = Simulator(model.problem, model.actions, [np.random.SeedSequence(seed)])
        if by_definition(model, action):
            simulator.step(action[None])
        else:
            with pytest.raises(ModelError, match="forbidden action"):
                simulator.step(action[None])
