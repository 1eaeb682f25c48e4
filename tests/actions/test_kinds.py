"""Every kind: one allowed and one forbidden action by hand, the sentence, and agreement with enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import allowed
from strategies import KINDS, action_sets, all_actions

from rmab_opt import registry
from rmab_opt.actions import ActionSet, Constraint
from rmab_opt.actions.kinds import Budget, Capacity, Conflict, Knapsack, Linear, LockedIn, LockedOut, Scheduling
from rmab_opt.actions.kinds.rows import ROW_TOLERANCE
from rmab_opt.errors import InfeasibleError, ModelError
from rmab_opt.problem import Arms, Table

ARMS = Arms.from_arrays(
    ["a", "b", "c", "d"],
    village=["n", "n", "s", "s"],
    cost=[1, 2, 3, 4],
    slots=["mon", "mon;tue", "tue", "wed"],
)
ROSTER = Table({"worker": ["x", "y", "y"], "slot": ["mon", "mon", "tue"]})
HAND = [
    (Budget(at_most=2), "ab", "abc", "at most 2 in one round"),
    (Budget(at_least=1, at_most=3), "a", "", "between 1 and 3 in one round"),
    (Linear(per="village", at_least=1), "ac", "ab", "at least 1 arm for every village"),
    (Linear(column="cost", where={"village": "s"}, at_most=4), "abd", "cd", "at most 4 of cost with village s"),
    (Knapsack(cost="cost", at_most=5), "ad", "bd", "total cost at most 5"),
    (LockedIn(ids=["b"]), "b", "a", "b must be chosen"),
    (LockedOut(ids=["b", "c"]), "ad", "ac", "b, c must not be chosen"),
    (Conflict(groups=[["a", "b", "c"]], at_most=1), "ad", "ab", "at most 1 of each of: a, b, c"),
    (
        Capacity(workers=Table({"worker": ["x", "y"], "capacity": [4, 3]}), cost="cost"),
        "cd",
        "bcd",
        "every arm with one of 2 workers, cost within each worker's capacity",
    ),
    (Scheduling(roster=ROSTER), "abc", "d", "one visit an arm, staffed by 2 workers on their slots"),
    (
        Scheduling(roster=ROSTER, visits=2, rule="same_slot"),
        "a",
        "c",
        "2 visits an arm by different workers in one slot, staffed by 2 workers on their slots",
    ),
    (
        Scheduling(roster=ROSTER, visits=2, rule="distinct_workers"),
        "b",
        "ab",
        "2 visits an arm by different workers, staffed by 2 workers on their slots",
    ),
]


def action_of(letters: str) -> np.ndarray:
    return np.array([int(name in letters) for name in ARMS.ids])


@pytest.mark.parametrize(("kind", "fine", "broken", "sentence"), HAND, ids=[type(k[0]).__name__ for k in HAND])
def test_one_allowed_and_one_forbidden_action(kind, fine, broken, sentence):
    actions = ActionSet(ARMS, {"rule": kind})
    assert actions.violations(action_of(fine)) == {}
    assert list(actions.violations(action_of(broken))) == ["rule"]
    assert actions.describe() == {"rule": sentence}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=amount(20, 60))
@given(data=st.data())
def test_the_checkers_agree_with_an_independent_oracle(kind, data):
    """`violations` against plain search written without flows, rows or packing tricks."""
    actions = data.draw(action_sets((kind,), most=5))
    (rule,) = actions.constraints.values()
    for action in all_actions(len(actions)):
        assert (not actions.violations(action)) == allowed(rule, action, actions.columns), (rule, action)


@settings(max_examples=amount(50, 150))
@given(action_sets())
def test_enumeration_and_sampler_give_what_the_checkers_accept(actions):
    accepted = {tuple(a) for a in all_actions(len(actions)) if not actions.violations(a)}
    assert {tuple(a) for a in actions.enumerate().tolist()} == accepted
    rng = np.random.default_rng(0)
    if accepted:
        assert {tuple(a) for a in actions.sample(rng, 5).tolist()} <= accepted
    else:
        with pytest.raises(InfeasibleError):
            actions.sample(rng)


@settings(max_examples=amount(33, 100))
@given(action_sets())
def test_an_empty_set_is_explained_by_a_minimal_clash(actions):
    """Exactly the sets that are empty are explained; dropping any named constraint frees the rest."""
    candidates = all_actions(len(actions))
    conflict = actions.explain()
    empty = not any(not actions.violations(a) for a in candidates)
    assert (conflict is not None) == empty
    if conflict is None:
        return
    named = list(conflict.sentences)

    def free(names: list[str]) -> bool:
        rules = [actions.constraints[name] for name in names]
        return any(not any(list(rule.violations(a, actions.columns)) for rule in rules) for a in candidates)

    assert not free(named)
    assert all(free([other for other in named if other != name]) for name in named)
    assert all(f"  {name}" in str(conflict.error()) for name in named)


@settings(max_examples=amount(33, 100))
@given(action_sets())
def test_assignments_hold_what_the_roster_says(actions):
    """Every assignment printed is itself within the workers' hours and capacities."""
    for action in actions.enumerate().astype(int)[:20]:
        rows = actions.assignment(action)
        for name, rule in actions.constraints.items():
            mine = [row for row in rows if row["constraint"] == name]
            if isinstance(rule, Scheduling):
                assert len(mine) == rule.visits * action.sum()
                calls = dict(
                    zip(
                        zip(rule.roster.text("worker"), rule.roster.text("slot"), strict=True),
                        rule.roster.numbers("calls"),
                        strict=True,
                    )
                )
                for shift, limit in calls.items():
                    assert sum((row["worker"], row["slot"]) == shift for row in mine) <= limit
                for row in mine:
                    assert row["slot"] in actions.columns.text("slots")[actions.columns.index(row["column"])]
                if rule.rule != "any":
                    assert len({(row["column"], row["worker"]) for row in mine}) == len(mine)
                if rule.rule == "same_slot":
                    assert len({(row["column"], row["slot"]) for row in mine}) == action.sum()
            if isinstance(rule, Capacity):
                assert sorted(row["column"] for row in mine) == sorted(np.array(actions.columns.ids)[action == 1])
                load = dict(
                    zip(
                        actions.columns.ids,
                        np.ones(len(action)) if rule.cost is None else actions.columns.numbers("load"),
                        strict=True,
                    )
                )
                for worker, limit in zip(rule.workers.text("worker"), rule.workers.numbers("capacity"), strict=True):
                    assert sum(load[row["column"]] for row in mine if row["worker"] == worker) <= limit + 1e-5


def test_a_load_may_use_up_a_capacity_with_its_tolerance_and_no_more():
    edge = 4.0 + 4.0 * ROW_TOLERANCE
    for load, fits in [(edge, True), (np.nextafter(edge, 9.0), False)]:
        arms = Arms.from_arrays(2, load=[load, 1.0])
        team = Capacity(workers=Table({"worker": ["x"], "capacity": ["4"]}), cost="load")
        actions = ActionSet(arms, {"team": team})
        assert actions.allows(np.array([1, 0])) == fits
        assert not actions.allows(np.array([1, 1]))


def test_the_least_relaxation_is_the_least():
    actions = ActionSet(ARMS, {"budget": Budget(at_most=1), "north": Linear(where={"village": "n"}, at_least=2)})
    relaxations = {r.name: r for r in actions.explain().relaxations}
    assert relaxations["budget"].total == pytest.approx(1.0)
    assert relaxations["north"].total == pytest.approx(1.0)
    assert "least change of each" in str(actions.explain().error())


def test_two_separate_clashes_are_not_repaired_by_one_relaxation():
    actions = ActionSet(
        ARMS,
        {
            "in": LockedIn(ids=["a"]),
            "out": LockedOut(ids=["a"]),
            "in2": LockedIn(ids=["b"]),
            "out2": LockedOut(ids=["b"]),
        },
    )
    conflict = actions.explain()
    assert len(conflict.sentences) == 2
    assert not any(relaxation.enough for relaxation in conflict.relaxations)
    assert "more than one clash" in str(conflict.error())


def test_a_third_partys_kind_in_twelve_lines():
    class AtMostEach(Constraint, kind="test_at_most_each"):
        attribute: str
        at_most: int

        def build(self, block, act, columns):
            @block.Constraint(list(columns.by(self.attribute)))
            def limit(_, value):
                return sum(act[c] for c in columns.by(self.attribute)[value]) <= self.at_most

        def violations(self, action, columns):
            for value, members in columns.by(self.attribute).items():
                if action[members].sum() > self.at_most:
                    yield f"{action[members].sum()} chosen in {value}, limit {self.at_most}"

        def describe(self):
            return f"at most {self.at_most} arms per {self.attribute}"

    actions = ActionSet(ARMS, {"each": AtMostEach(attribute="village", at_most=1)})
    assert registry.find("constraint", "test_at_most_each").make is AtMostEach
    assert {tuple(a) for a in actions.enumerate().tolist()} == {
        tuple(a) for a in all_actions(4) if a[:2].sum() <= 1 and a[2:].sum() <= 1
    }


def test_a_kind_without_violations_is_an_error_at_its_definition():
    with pytest.raises(ModelError, match=r"lacks violations[\s\S]*def violations\(self, action, columns\)"):

        class Half(Constraint, kind="test_half"):
            def build(self, block, act, columns):
                pass

            def describe(self):
                return "half"

    assert "test_half" not in registry.names("constraint")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ActionSet(ARMS, {"w": Linear(per="vilage", at_most=1)}), "constraints.w: arms: no column 'vilage'"),
        (lambda: ActionSet(ARMS, {"w": Linear(where={"village": "x"}, at_most=1)}), "where.village: no arm has 'x'"),
        (lambda: ActionSet(ARMS, {"w": LockedIn(ids=["zz"])}), "constraints.w: no column 'zz'"),
        (lambda: ActionSet(ARMS, {"w": Knapsack(cost="village", at_most=1)}), "village: 'n' is not a number"),
        (lambda: ActionSet(ARMS, {"w": Budget(at_least=5)}), "at least 5 of 4 columns"),
        (lambda: ActionSet(ARMS, {"w": 3}), "constraints.w is a int"),
        (
            lambda: ActionSet(ARMS, {"w": Scheduling(roster=Table({"worker": ["x"], "slot": ["fri"]}))}),
            "no arm names a slot",
        ),
        (
            lambda: ActionSet(ARMS, {"w": Scheduling(roster=Table({"worker": ["x", "x"], "slot": ["mon", "mon"]}))}),
            "stands twice",
        ),
        (lambda: ActionSet(ARMS, {"w": Capacity(workers=Table({"worker": ["x"], "capacity": [-1]}))}), "outside [0"),
    ],
)
def test_constraints_that_do_not_fit_the_cohort_say_where(make, message):
    with pytest.raises(ModelError) as caught:
        make()
    assert message in str(caught.value)
