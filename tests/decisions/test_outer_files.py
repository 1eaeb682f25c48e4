"""Bounds, and files of decisions and bounds, of sets without a program: at least the optimum, and checked anew."""

from __future__ import annotations

import json

import numpy as np
import pytest
from strategies import problem_for

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Capacity, Scheduling, assignment, scheduling
from rmab_opt.decisions import Chooser, Model, Scores, bound, save_bound, verify, verify_bound
from rmab_opt.planning import joint_optimum
from rmab_opt.problem import Arms, Table


@pytest.fixture
def all_large(monkeypatch):
    """Every roster and load counts as too large for a program."""
    monkeypatch.setattr(assignment, "LARGE", -1)
    monkeypatch.setattr(scheduling, "LARGE", -1)


def drawn(seed: int) -> ActionSet:
    rng = np.random.default_rng(seed)
    if seed % 2:
        workers = Table({"worker": ["w0", "w1"], "capacity": rng.integers(2, 9, 2).tolist()}, source="workers")
        load = rng.integers(1, 7, 4).tolist()
        return ActionSet(Arms.from_arrays(4, load=load), {"team": Capacity(workers=workers, cost="load")})
    slots = ["a", "a;b", "b;c", "c"]
    roster = Table({"worker": ["w0", "w1", "w2", "w0"], "slot": ["a", "b", "b", "c"]}, source="roster")
    rule = ("any", "distinct_workers")[seed // 2 % 2]
    return ActionSet(
        Arms.from_arrays(4, slots=rng.permutation(slots).tolist()),
        {"roster": Scheduling(roster=roster, visits=2 if rule == "distinct_workers" else 1, rule=rule)},
    )


@pytest.mark.parametrize("seed", range(6))
def test_a_bound_is_at_least_the_optimum_and_its_file_is_checked(all_large, seed):
    actions = drawn(seed)
    problem = problem_for(actions.columns.arms, np.random.default_rng(seed))
    model = Model(problem, actions, Scores(np.ones(4)))
    best = joint_optimum(problem, actions).value
    found = bound(model)
    assert actions.outer is not None
    assert found.value >= best - 1e-9 * abs(best)
    text, value = save_bound(model, found)
    assert value >= best - 1e-9 * abs(best)
    assert verify_bound(json.loads(text), model).exit_code == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_saved_decision_is_checked(all_large, seed, tmp_path):
    actions = drawn(seed)
    problem = problem_for(actions.columns.arms, np.random.default_rng(seed))
    objective = Scores(np.random.default_rng(seed).uniform(size=4))
    decision = Chooser(problem, actions, objective, "default", many=False).decide(problem.start)
    path = tmp_path / "decision.json"
    decision.to_json(path)
    assert verify(path, problem, actions, objective).ok
    document = json.loads(path.read_text(encoding="utf-8"))
    if decision.chosen:
        # Fewer are allowed as well; who does what no longer fits them.
        document["assignment"] = document["assignment"][1:]
        assert not verify(document, problem, actions, objective).ok
