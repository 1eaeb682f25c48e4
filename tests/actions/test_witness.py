"""Who does what proves an action by itself: no search, and nothing that does not hold is believed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import problem_for

import rmab_opt as ro
from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Capacity, assignment
from rmab_opt.decisions import Chooser, Scores
from rmab_opt.errors import CapabilityError, UnsettledError
from rmab_opt.problem import Arms, Table


def teams(loads: list[int], capacity: list[int]) -> ActionSet:
    workers = Table({"worker": [f"w{i}" for i in range(len(capacity))], "capacity": capacity}, source="workers")
    return ActionSet(Arms.from_arrays(len(loads), load=loads), {"team": Capacity(workers=workers, cost="load")})


@pytest.fixture
def unsettled(monkeypatch):
    """The packing check gives up at once."""
    monkeypatch.setattr(assignment, "PACKING_NODES", 0)
    monkeypatch.setattr(Capacity, "_fill", staticmethod(lambda items, room, load: None))


def test_a_decision_survives_where_the_packing_check_gives_up(unsettled):
    rng = np.random.default_rng(0)
    actions = teams(rng.integers(10, 41, 30).tolist(), [70, 80, 90])
    chooser = Chooser(
        problem_for(actions.columns.arms, rng), actions, Scores(rng.uniform(size=30)), "exact", many=False
    )
    decision = chooser.decide(np.zeros(30, dtype=int))
    assert decision.status == "optimal"
    with pytest.raises(CapabilityError, match="a packing check"):
        actions.violations(decision.action)
    assert actions.violations(decision.action, decision.assignment) == {}
    assert actions.allows(decision.action, decision.assignment)
    # A witness proves its own action only, and no more than it says.
    for wrong in (
        decision.assignment[1:],
        [{**row, "worker": "w0"} for row in decision.assignment],
        [{**row, "worker": "nobody"} for row in decision.assignment],
        [*decision.assignment, decision.assignment[0]],
    ):
        with pytest.raises(CapabilityError, match="a packing check"):
            actions.violations(decision.action, wrong)


def test_an_answer_that_nothing_settles_ends_in_an_allowed_action(unsettled, monkeypatch):
    monkeypatch.setattr(Capacity, "proves", lambda self, rows, action, columns: False)
    rng = np.random.default_rng(1)
    actions = teams([3, 4, 5] * 9, [6, 5])
    chooser = Chooser(problem_for(actions.columns.arms, rng), actions, Scores(np.ones(27)), "default", many=False)
    decision = chooser.decide(np.zeros(27, dtype=int))
    assert not decision.chosen
    assert decision.status == "heuristic"
    assert "the re-check was not settled" in decision.solver


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.lists(st.integers(0, 14), min_size=1, max_size=3))
def test_filling_agrees_with_depth_first_search(loads, capacity):
    actions = teams(loads, capacity)
    kind = actions.constraints["team"]
    room, load = np.array(capacity, dtype=float), np.array(loads, dtype=float)
    order = sorted(range(len(loads)), key=lambda c: -loads[c])
    filled = kind._fill(order, room.tolist(), load)
    if filled is not None:
        used = np.bincount(list(filled.values()), load[list(filled)], len(capacity))
        assert (used <= room).all()
        assert sorted(filled) == list(range(len(loads)))
        assert not actions.violations(np.ones(len(loads), dtype=int))


def test_full_workers_that_were_packed_are_not_packed_from_nothing_again(monkeypatch):
    """No minute is left over: the search from nothing gives up, what was found and holds is remembered."""
    actions = ro.load("capacity", n_arms=1000, **{"problem.n_workers": 100}).actions
    (name,) = actions.structured
    drawn = actions.sample(np.random.default_rng(0), 3)
    for action in drawn:
        rows = actions.constraints[name].assignment(action, actions.columns)
        assert actions.constraints[name].misassigned(rows, action, actions.columns) is None
    fresh = ro.load("capacity", n_arms=1000, **{"problem.n_workers": 100}).actions
    monkeypatch.setattr(assignment, "PACKING_NODES", 1000)
    with pytest.raises(UnsettledError):
        fresh.violations(drawn[0])


def test_a_hint_whose_check_is_too_hard_is_none(monkeypatch):
    model = ro.load("budget", n_arms=5)
    bench = Chooser(model.problem, model.actions, Scores(np.arange(5.0)), "fast")._bench
    assert bench.vertex(np.arange(5.0)) is not None

    def too_hard(*_):
        raise UnsettledError("a check", model.actions, ("wait", "ask less"))

    monkeypatch.setattr(type(model.actions), "allows", too_hard)
    assert bench.vertex(np.arange(5.0)) is None
