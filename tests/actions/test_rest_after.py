"""Rules over another constraint's parts: rest between shifts, held against trying every roster."""

from __future__ import annotations

import itertools
import pickle
import re
from typing import Any

import numpy as np
import pyomo.environ as pyo
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import all_actions

from rmab_opt import ActionSet, Constraint, decide
from rmab_opt.actions.kinds import Budget, LockedIn, Scheduling
from rmab_opt.actions.kinds import scheduling as scheduling_module
from rmab_opt.actions.kinds.rest_after import RestAfter
from rmab_opt.actions.kinds.scheduling import RosterRule
from rmab_opt.catalog import copy_model, load
from rmab_opt.decisions import verify
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.problem import Arms, Table
from rmab_opt.solver import Session

DAY = {"mon-am": "mon", "mon-pm": "mon", "tue-am": "tue", "tue-pm": "tue", "tue-eve": "tue"}
SLOTS = tuple(DAY)


def rosters(columns: Any, roster: Scheduling, chosen: list[int]):
    """Every list of (column, worker, slot) that serves the chosen ones, by trying all."""
    shifts = list(zip(roster.roster.text("worker"), roster.roster.text("slot"), strict=True))
    calls = dict(zip(shifts, map(int, roster.roster.text("calls")), strict=True))
    ways = []
    for c in chosen:
        mine = [shift for shift in shifts if shift[1] in columns.text("slots")[c].split(";")]
        ways.append(
            [
                way
                for way in itertools.combinations_with_replacement(mine, roster.visits)
                if roster.rule == "any" or len({worker for worker, _ in way}) == roster.visits
                if roster.rule != "same_slot" or len({slot for _, slot in way}) == 1
            ]
        )
    for picked in itertools.product(*ways):
        visits = [(c, *shift) for c, way in zip(chosen, picked, strict=True) for shift in way]
        if all(sum(v[1:] == shift for v in visits) <= calls[shift] for shift in shifts):
            yield visits


def rested(visits: list[tuple[int, str, str]], rule: RestAfter, days: bool, order: tuple[str, ...]) -> bool:
    """Rest and daily limit by their definitions, pair by pair."""
    shifts = {(worker, slot) for _, worker, slot in visits}
    for (w, s), (v, t) in itertools.combinations(shifts, 2):
        day = [slot for slot in order if not days or DAY[slot] == DAY[s]]
        if w == v and t in day and abs(day.index(s) - day.index(t)) <= rule.rest:
            return False
    served = [(w, DAY[s]) for w, s in shifts]
    return rule.a_day is None or all(served.count(key) <= rule.a_day for key in served)


@st.composite
def rosters_with_rules(draw, most_rules: int = 1) -> tuple[ActionSet, bool, tuple[str, ...]]:
    """A roster and one or two rules over it; whether it has days, and the order of its slots."""
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    n, days = int(rng.integers(2, 5)), bool(rng.random() < 0.6)
    used = [SLOTS[k] for k in sorted(rng.choice(5, int(rng.integers(2, 6)), replace=False))]
    cells = [";".join(rng.choice(used, int(rng.integers(1, len(used) + 1)), replace=False)) for _ in range(n)]
    duty = [(w, slot) for w in ("x", "y", "z")[: int(rng.integers(1, 4))] for slot in used if rng.random() < 0.8]
    duty = duty or [("x", used[0])]
    duty.append(("w", cells[0].split(";")[0]))
    order = tuple(dict.fromkeys(slot for _, slot in duty))
    if rng.random() < 0.5:
        order = tuple(slot for slot in SLOTS if slot in order)
        given: tuple[str, ...] = order
    else:
        given = ()
    table = {"worker": [w for w, _ in duty], "slot": [s for _, s in duty]}
    table["calls"] = [str(k) for k in rng.integers(1, 3, len(duty))]
    if days:
        table["day"] = [DAY[s] for _, s in duty]
    roster = Scheduling(
        roster=Table(table),
        visits=int(rng.integers(1, 3)),
        rule=["any", "distinct_workers", "same_slot"][rng.integers(3)],
        slot_order=given,
    )
    constraints: dict[str, Constraint] = {}
    for k in range(int(rng.integers(1, most_rules + 1))):
        limit = int(rng.integers(1, 3)) if days and rng.random() < 0.6 else None
        constraints[f"rest{k}"] = RestAfter(roster="duty", rest=int(rng.integers(0 if limit else 1, 3)), a_day=limit)
    # Named before what it needs: the order of declaration does not matter.
    return ActionSet(Arms.from_arrays(n, slots=cells), {**constraints, "duty": roster}), days, order


@settings(max_examples=amount(12, 120))
@given(rosters_with_rules(most_rules=2))
def test_a_rule_allows_what_some_roster_of_all_rosters_keeps(drawn):
    """The closing search against every roster; the program against the search, action by action."""
    actions, days, order = drawn
    duty = actions.constraints["duty"]
    rules = [rule for name, rule in actions.constraints.items() if name != "duty"]
    model = actions.model()
    session = Session(model, "fast")
    for action in all_actions(len(actions)):
        chosen = np.flatnonzero(action).tolist()
        every = list(rosters(actions.columns, duty, chosen))
        kept = [visits for visits in every if all(rested(visits, rule, days, order) for rule in rules)]
        broken = actions.violations(action)
        assert (not broken) == bool(kept), action
        # A roster that cannot be kept at all is the roster's own word, and only its.
        assert ("duty" in broken) == (not every)
        assert not ("duty" in broken and len(broken) > 1)
        for k, rule in enumerate(rules):
            if every and not any(rested(visits, rule, days, order) for visits in every):
                assert f"rest{k}" in broken
        session.parameters["score"][:] = 2.0 * action - 1.0
        reached = np.rint(session.solve().x[session.index(model.act)])
        assert (reached == action).all() == bool(kept), action
        if kept:
            rows = [(r["column"], r["worker"], r["slot"]) for r in actions.assignment(action)]
            ids = actions.columns.ids
            assert sorted((ids.index(c), w, s) for c, w, s in rows) in [sorted(visits) for visits in kept]


@settings(max_examples=amount(20, 60))
@given(rosters_with_rules(most_rules=2), st.integers(0, 5))
def test_samples_and_lists_keep_the_rules(drawn, seed):
    actions, _, _ = drawn
    accepted = {tuple(a) for a in all_actions(len(actions)) if not actions.violations(a)}
    assert {tuple(a) for a in actions.enumerate().tolist()} == accepted
    assert {tuple(a) for a in actions.sample(np.random.default_rng(seed), 5).tolist()} <= accepted


ARMS = Arms.from_arrays(["a", "b", "c"], slots=["mon-am", "mon-pm", "mon-am;mon-pm;tue-am"])
DUTY = Scheduling(roster=Table({"worker": ["x", "x", "x"], "slot": ["mon-am", "mon-pm", "tue-am"]}))


def test_one_worker_in_consecutive_slots():
    actions = ActionSet(ARMS, {"duty": DUTY, "rest": RestAfter(roster="duty")})
    assert actions.violations(np.array([1, 0, 1])) == {}
    assert actions.assignment(np.array([1, 0, 1])) == [
        {"constraint": "duty", "column": "a", "worker": "x", "slot": "mon-am"},
        {"constraint": "duty", "column": "c", "worker": "x", "slot": "tue-am"},
    ]
    assert actions.violations(np.array([1, 1, 0])) == {
        "rest": ["2 chosen cannot be served within duty so that a worker rests one slot after each"]
    }
    # The list still says who could serve them within the roster alone.
    assert [row["slot"] for row in actions.assignment(np.array([1, 1, 0]))] == ["mon-am", "mon-pm"]


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (RestAfter(roster="duty"), "a worker rests one slot after each"),
        (RestAfter(roster="duty", rest=2, a_day=3), "a worker rests 2 slots after each, at most 3 a day"),
        (RestAfter(roster="duty", rest=0, a_day=1), "a worker serves at most 1 a day"),
    ],
)
def test_the_sentence(rule, sentence):
    assert rule.describe() == sentence


def test_the_order_of_slots_may_be_given():
    """Told that tuesday stands between, the same two slots are no longer consecutive."""
    given = Scheduling(roster=DUTY.roster, slot_order=["mon-am", "tue-am", "mon-pm"])
    actions = ActionSet(ARMS, {"duty": given, "rest": RestAfter(roster="duty")})
    assert actions.constraints["duty"].parts(actions.columns).slots == ("mon-am", "tue-am", "mon-pm")
    assert actions.violations(np.array([1, 1, 0])) == {}
    with pytest.raises(ModelError, match="slot 'tue-am' stands 0 times"):
        ActionSet(ARMS, {"duty": Scheduling(roster=DUTY.roster, slot_order=["mon-am", "mon-pm"])})


def test_a_clash_names_both_and_each_least_change():
    actions = ActionSet(
        ARMS,
        {"duty": DUTY, "rest": RestAfter(roster="duty"), "weekly": Budget(at_most=3), "must": LockedIn(ids=["a", "b"])},
    )
    conflict = actions.explain()
    assert set(conflict.sentences) == {"duty", "rest", "must"}
    assert {r.name: r.total for r in conflict.relaxations}["rest"] == 1.0
    assert "  rest  a worker rests one slot after each" in str(conflict.error())


def test_two_rules_that_hold_alone_may_not_hold_together():
    """Rest wants one slot a day apart, the daily limit one worker a day: two workers can do either, not both."""
    table = Table({"worker": ["x", "x", "y"], "slot": ["1", "3", "2"], "day": ["d", "e", "d"]})
    arms = Arms.from_arrays(["a", "b"], slots=["1;2", "2;3"])

    class NoLast(RosterRule, kind="no_last_in_tests"):
        """Nobody has visits in the last slot."""

        def build(self, block, act, columns):
            works, last = self.other_block(block, "roster").works, self.other("roster").parts(columns).slots[-1]
            block.free = pyo.Constraint(expr=sum(works[key] for key in works if key[1] == last) <= 0)

        def clash(self, worked, roster):
            return [shift for shift in worked if shift[1] == roster.slots[-1]][:1] or None

        def describe(self):
            return "nobody works last"

    class NotBoth(NoLast, kind="not_both_in_tests"):
        """x and y do not both have visits in the first two slots."""

        def build(self, block, act, columns):
            works = self.other_block(block, "roster").works
            block.both = pyo.Constraint(expr=works["x", "1"] + works["y", "2"] <= 1)

        def clash(self, worked, roster):
            return (("x", "1"), ("y", "2")) if {("x", "1"), ("y", "2")} <= set(worked) else None

    duty = Scheduling(roster=table, slot_order=["1", "2", "3"])
    actions = ActionSet(arms, {"duty": duty, "last": NoLast(roster="duty"), "both": NotBoth(roster="duty")})
    every = np.array([1, 1])
    assert list(actions.violations(every)) == ["both"]
    assert "not with the rules before it" in actions.violations(every)["both"][0]
    for name in ("last", "both"):
        alone = {key: rule for key, rule in actions.constraints.items() if key in ("duty", name)}
        assert ActionSet(arms, alone).violations(every) == {}
    assert actions.violations(np.array([1, 0])) == {}


def test_names_that_do_not_fit_are_said():
    with pytest.raises(ModelError, match=re.escape("constraints.rest: roster: no constraint 'dutty'")) as failed:
        ActionSet(ARMS, {"duty": DUTY, "rest": RestAfter(roster="dutty")})
    assert "did you mean 'duty'" in failed.value.fix
    with pytest.raises(ModelError, match="kind 'budget' of 'weekly' offers no parts"):
        ActionSet(ARMS, {"weekly": Budget(at_most=2), "rest": RestAfter(roster="weekly")})
    with pytest.raises(ModelError, match="this one stands alone"):
        list(RestAfter(roster="duty").violations(np.array([1, 1, 1]), ActionSet(ARMS, {}).columns))
    with pytest.raises(ModelError, match="has no column 'day'"):
        ActionSet(ARMS, {"duty": DUTY, "rest": RestAfter(roster="duty", a_day=1)})
    with pytest.raises(ModelError, match="rest is 0 and a_day is not given"):
        ActionSet(ARMS, {"duty": DUTY, "rest": RestAfter(roster="duty", rest=0)})
    two = Table({"worker": ["x", "y"], "slot": ["mon-am", "mon-am"], "day": ["mon", "tue"]})
    with pytest.raises(ModelError, match="day of slot 'mon-am' is 'tue' and 'mon'"):
        ActionSet(ARMS, {"duty": Scheduling(roster=two), "rest": RestAfter(roster="duty")})


class Round(Constraint, kind="round_in_tests"):
    """Names another, which may name it back."""

    needs = ("after",)
    after: str

    def build(self, block, act, columns):
        self.other_block(block, "after")

    def violations(self, action, columns):
        return ()

    def parts(self, columns):
        return self.after

    def describe(self):
        return f"after {self.after}"


def test_names_in_a_circle_are_refused():
    with pytest.raises(ModelError, match="circle: x -> y -> x"):
        ActionSet(ARMS, {"x": Round(after="y"), "y": Round(after="x")})


def test_the_given_constraints_stay_as_they_were():
    """The set links copies: one instance serves several sets, and a plain constraint is the one given."""
    rest, weekly = RestAfter(roster="duty"), Budget(at_most=2)
    busy = Scheduling(roster=Table({"worker": ["x", "y"], "slot": ["mon-am", "mon-pm"]}))
    first = ActionSet(ARMS, {"duty": DUTY, "rest": rest, "weekly": weekly})
    second = ActionSet(ARMS, {"duty": busy, "rest": rest})
    assert first.constraints["weekly"] is weekly
    assert DUTY.askers == ()
    both = np.array([1, 1, 0])
    assert (first.allows(both), second.allows(both)) == (False, True)
    copy = pickle.loads(pickle.dumps(first))
    assert (copy.allows(both), copy.allows(np.array([1, 0, 1]))) == (False, True)


def test_a_check_that_is_not_settled_says_so(monkeypatch):
    monkeypatch.setattr(scheduling_module, "CLOSINGS", 1)
    actions = ActionSet(ARMS, {"duty": DUTY, "rest": RestAfter(roster="duty")})
    with pytest.raises(CapabilityError, match="roster with 1 rules within 1 flows"):
        actions.violations(np.array([1, 1, 0]))


def test_a_model_file_and_a_decision(tmp_path):
    """The shipped roster with a rule: the decision's list keeps it, and a saved decision is verified with it."""
    path = copy_model("weekly_calls", tmp_path / "model")[0]
    text = path.read_text(encoding="utf-8")
    assert "match: region}\n" in text
    more = "match: region, slot_order: [mon-am, mon-pm, tue-am, tue-pm, wed-am, wed-pm]}\n"
    rest = "  rest:     {kind: rest_after, roster: roster}\n"
    path.write_text(text.replace("match: region}\n", more + rest), encoding="utf-8")
    model = load(path)
    decision = decide(model, model.state(path.parent / "monday.csv"))
    assert decision.violations == {}
    order = model.actions.constraints["roster"].parts(model.actions.columns).slots
    worked = {(row["worker"], order.index(row["slot"])) for row in decision.assignment if row["constraint"] == "roster"}
    assert worked
    assert not any((worker, k + 1) in worked for worker, k in worked)
    loose = decide(load("weekly_calls"), model.state(path.parent / "monday.csv"))
    assert decision.value <= loose.value
    decision.to_json(tmp_path / "week.json")
    assert verify(tmp_path / "week.json", model.problem, model.actions, model.objective).ok
