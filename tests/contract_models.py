"""Small examples of the kernel's registered things, and how tests walk the names of a kind.

Every registered name of the kernel has an entry here, every one of a setting in ``tests/settings/<name>``; a name
without one fails the suite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmab_opt import registry
from rmab_opt.actions import ActionSet, Columns, Constraint
from rmab_opt.actions.kinds import Budget, Linear
from rmab_opt.decisions import Model, Objective
from rmab_opt.problem import Arms, Ladder, Problem, Tabular
from rmab_opt.problem.coupled import CoupledArms
from rmab_opt.testing import examples
from rmab_opt.testing.contract import Promise


def registered(kind: str, setting: str) -> list[str]:
    """Names of a kind that the package brings: the kernel's for "", a setting's otherwise; none of other tests."""
    found = []
    for entry in registry.entries(kind):
        make: Any = entry.make
        while isinstance(make, partial):
            make = make.func
        if str(getattr(make, "__module__", "")).startswith("rmab_opt.") and entry.setting == setting:
            found.append(entry.name)
    return found


def cases(names: Iterable[str], promises: Iterable[Promise], leave_out: Mapping[str, set[str]] = {}) -> list[Any]:
    """One test a name, with its promises; ``leave_out`` holds those that do not apply. What fails names its promise."""
    return [
        pytest.param(name, [p for p in promises if p.__name__ not in leave_out.get(name, set())], id=name)
        for name in names
    ]


def missing(kind: str, setting: str, known: Iterable[str]) -> tuple[set[str], set[str]]:
    """(registered names without an example, examples without a registered name)."""
    names, given = set(registered(kind, setting)), set(known)
    return names - given, given - names


# ------------------------------------------------------------------------------------------------------- constraints
COHORT = examples.cohort()
SEVERAL_ACTIONS = Columns.of_arm_actions(examples.cohort(4), 3)


def constraint(kind: str, **fields: Any) -> Constraint:
    """A constraint as a model file makes it."""
    made: Constraint = registry.find("constraint", kind).make.model_validate(fields)
    return made


ROSTER = [
    {"worker": "asha", "slot": "mon", "calls": 1, "village": "north"},
    {"worker": "asha", "slot": "tue", "calls": 1, "village": "south"},
    {"worker": "brij", "slot": "mon", "calls": 2, "village": "south"},
    {"worker": "chin", "slot": "tue", "calls": 1, "village": "east"},
]
WORKERS = [{"worker": "asha", "capacity": 3}, {"worker": "brij", "capacity": 4}]
ROADS = [{"from": f"arm{a}", "to": f"arm{b}"} for a, b in ((0, 1), (1, 2), (2, 3), (3, 0), (2, 4), (4, 5), (0, 4))]

VILLAGE_ROADS = [
    {"from": "clinic", "to": "north", "minutes": 1},
    {"from": "north", "to": "south", "minutes": 1},
    {"from": "south", "to": "east", "minutes": 2},
]

DAYS = [{**row, "day": "week" if row["slot"] in ("mon", "tue") else "end"} for row in ROSTER]
WISHED = {"duty": constraint("scheduling", roster=ROSTER)}
BESIDE = {
    "rest_after": {"duty": constraint("scheduling", roster=DAYS)},
    "same_worker": WISHED,
    "preferred_slot": WISHED,
}
"""What stands beside the examples of a kind that names other constraints."""

DONE = [{"id": "arm1", "services": 2}, {"id": "arm2", "services": 1}]

CONSTRAINTS: dict[str, list[tuple[Constraint, Arms | Columns]]] = {
    "budget": [(constraint("budget", at_most=2), COHORT), (constraint("budget", at_least=1, at_most=4), COHORT)],
    "linear": [
        (constraint("linear", column="cost", at_most=6), COHORT),
        (constraint("linear", column="load", per="village", at_most=3, at_least=1), COHORT),
        (constraint("linear", where={"action": 2}, at_most=1), SEVERAL_ACTIONS),
    ],
    "knapsack": [(constraint("knapsack", cost="cost", at_most=7), COHORT)],
    "locked_in": [(constraint("locked_in", ids=["arm1", "arm4"]), COHORT)],
    "locked_out": [(constraint("locked_out", ids=["arm0"]), COHORT)],
    "closed": [
        (constraint("closed", table=[{"id": "arm0", "open_from": ""}, {"id": "arm3", "open_from": ""}]), COHORT)
    ],
    "guarantee": [
        (constraint("guarantee", at_least=2, end=4, done=DONE, before=2, now=2), COHORT),
        (constraint("guarantee", at_least=3, per="village", end=5, room=2, now=0), COHORT),
    ],
    "conflict": [(constraint("conflict", groups=[["arm0", "arm1", "arm2"], ["arm2", "arm5"]]), COHORT)],
    "one_action": [(constraint("one_action"), SEVERAL_ACTIONS)],
    "capacity": [
        (constraint("capacity", workers=WORKERS), COHORT),
        (constraint("capacity", workers=WORKERS, cost="load"), COHORT),
    ],
    "path": [
        (constraint("path", edges=ROADS, depot="arm0", length=4), COHORT),
        (constraint("path", edges=ROADS, depot="arm0", length=3, vehicles=2), COHORT),
        (constraint("path", edges=VILLAGE_ROADS, depot="clinic", length=4, point="village"), COHORT),
    ],
    "scheduling": [
        (constraint("scheduling", roster=ROSTER), COHORT),
        (constraint("scheduling", roster=ROSTER, visits=2, rule="distinct_workers"), COHORT),
        (constraint("scheduling", roster=ROSTER, match="village"), COHORT),
    ],
    "continuity": [(constraint("continuity", last=[{"id": "arm0"}, {"id": "arm3"}], at_most=2), COHORT)],
    "same_worker": [
        (
            constraint("same_worker", roster="duty", last=[{"id": f"arm{k}", "worker": "asha"} for k in (0, 1, 2)]),
            COHORT,
        )
    ],
    "preferred_slot": [(constraint("preferred_slot", roster="duty", slots="slots"), COHORT)],
    "rest_after": [
        (constraint("rest_after", roster="duty"), COHORT),
        (constraint("rest_after", roster="duty", rest=0, a_day=1), COHORT),
    ],
}


# ---------------------------------------------------------------------------------------------------------- dynamics
def _tabular_file(folder: Path) -> Any:
    made = examples.tabular(3, 3, 2)
    lines = ["id,state,action,a,b,c,reward"]
    for n in range(3):
        for s, name in enumerate("abc"):
            for a in range(2):
                row = made.transition[n, a, s]
                lines.append(f"arm{n},{name},{a},{row[0]!r},{row[1]!r},{row[2]!r},{made.reward[n, s, a]!r}")
    (folder / "rows.csv").write_text("\n".join(lines).replace("np.float64(", "").replace(")", ""))
    return registry.find("dynamics", "tabular").make(Arms.from_arrays(3), folder, "refuse", file="rows.csv")


def _ladder(folder: Path) -> Any:
    arms = Arms.from_arrays(4, low=[0.1, 0.2, 0.0, 0.3], high=[0.9, 0.8, 1.0, 0.5], top=[3, 2, 1, 5])
    return registry.find("dynamics", "ladder").make(
        arms, folder, "refuse", up=("low", "high"), reward=(0.0, 0.5, "top")
    )


def _season(folder: Path) -> Any:
    _tabular_file(folder)
    of = {"kind": "tabular", "file": "rows.csv"}
    return registry.find("dynamics", "season").make(Arms.from_arrays(3), folder, "refuse", total=5.0, of=of)


DYNAMICS: dict[str, list[Callable[[Path], Any]]] = {
    "season": [_season],
    "tabular": [
        _tabular_file,
        lambda folder: examples.tabular(4, 3, 3),
        lambda folder: Tabular(examples.tabular(4).transition, np.arange(12.0).reshape(4, 3), paid_on="arrival"),
    ],
    "ladder": [
        _ladder,
        lambda folder: Ladder(
            np.random.default_rng(0).uniform(0, 0.6, (3, 4, 3)), np.arange(12.0).reshape(3, 4), stay=0.3
        ),
    ],
}


# ------------------------------------------------------------------------------------------------------------ models
def plain_model(n_arms: int = 6, at_most: int = 2) -> Model:
    """Arms under a budget."""
    return examples.model(n_arms, at_most)


class _Pressing(CoupledArms):
    """Arms that are ill (1) or not, and press on each other; a visit halves what presses."""

    def chance_of_one(self, state: Any, action: Any, shared: Any = None) -> Any:
        press = np.asarray(state).mean(axis=-1, keepdims=True)
        return (0.1 + 0.6 * press) * (1.0 - 0.5 * np.asarray(action)) + 0.2 * np.asarray(state)


def coupled_model() -> Model:
    """Six arms that press on each other, under a budget."""
    arms = Arms.from_arrays(6)
    dynamics: Any = _Pressing(np.arange(1.0, 7.0), pays=0)
    problem = Problem(arms, dynamics, horizon=3, start=np.array([1, 0, 1, 0, 0, 1]))
    return Model(problem, ActionSet(arms, {"budget": Budget(at_most=2)}), solver="exact", title="pressing")


def roster_model() -> Model:
    """Arms under a roster and a budget: rows with variables of their own."""
    arms, base = COHORT, examples.model()
    rules = {"roster": constraint("scheduling", roster=ROSTER), "budget": Budget(at_most=3)}
    return Model(base.problem, ActionSet(arms, rules), solver="exact", title="roster")


def several_actions_model() -> Model:
    """Arms with two ways of acting."""
    arms = examples.cohort(4)
    problem = Problem(arms, examples.tabular(4, 3, 3), horizon=4)
    rules = {"strong": Linear(where={"action": 2}, at_most=1), "any": Budget(at_most=2)}
    return Model(problem, ActionSet(Columns.of_arm_actions(arms, 3), rules), solver="exact", title="several")


# -------------------------------------------------------------------------------------------------------- objectives
def _made(kind: str, model: Model, folder: Path, **arguments: Any) -> tuple[Objective, Model]:
    return registry.find("objective", kind).make(model.problem, model.actions, folder, **arguments), model


def _network_file(folder: Path) -> tuple[Objective, Model]:
    from rmab_opt.encoder import Network

    rng, model = np.random.default_rng(0), roster_model()
    layers = [(rng.normal(size=(5, 12)), rng.normal(size=5), "relu"), (rng.normal(size=(1, 5)), np.zeros(1), "linear")]
    Network.from_arrays(layers).to_safetensors(folder / "net.safetensors")
    return _made("network", model, folder, file="net.safetensors")


def _learned(folder: Path) -> tuple[Objective, Model]:
    from rmab_opt.learning import DQNConfig, train

    model = plain_model()
    config = DQNConfig(episodes=2, hidden=(4,), head=2, pretrain_steps=3, batch=4, validation_episodes=0)
    train(model, config, out=folder / "run")
    return _made("learned", model, folder, run="run")


OBJECTIVES: dict[str, list[Callable[[Path], tuple[Objective, Model]]]] = {
    "immediate": [
        lambda folder: _made("immediate", plain_model(), folder),
        lambda folder: _made("immediate", roster_model(), folder),
        lambda folder: _made("immediate", several_actions_model(), folder),
        lambda folder: _made("immediate", several_actions_model(), folder, points=2),
    ],
    "single_gains": [
        lambda folder: _made("single_gains", plain_model(), folder),
        lambda folder: _made("single_gains", coupled_model(), folder),
    ],
    "scores": [lambda folder: _made("scores", roster_model(), folder, column="cost")],
    "index": [lambda folder: _made("index", plain_model(), folder, index="whittle")],
    "network": [_network_file],
    "learned": [_learned],
}

# ---------------------------------------------------------------------------------------------------------- policies
MORE_ARGUMENTS = {"sampling": "sampling:20", "lp_update": "lp_update:window=2", "improve": "improve:draws=4"}
"""How a policy is written where the bare name would be slow."""

POLICY_MODELS = {"mean_field": coupled_model, "living": partial(plain_model, 4)}
"""Models of the policies that are about other arms than the plain ones."""


def loads_model() -> Model:
    """Arms in groups, for networks that see how many of a group are chosen."""
    model = coupled_model()
    model.problem.dynamics.group = np.arange(model.problem.n_arms) % 2
    return model


NETWORKS = {"pooled": plain_model, "anchored": plain_model, "dense": plain_model, "loads": loads_model}

DOMAINS: dict[str, dict[str, Any]] = {
    "budget": {"n_arms": 6, "n_valuable": 2},
    "scheduling": {"n_arms": 6, "n_workers": 2},
    "capacity": {"n_arms": 6, "n_workers": 2},
    "path": {"n_arms": 8, "n_stops": 3},
    "interventions": {"n_arms": 12, "n_interventions": 4, "budget": 2},
    "delayed": {"n_arms": 5},
    "ladder_mix": {"n_arms": 5},
    "unstructured": {"n_arms": 5},
}
