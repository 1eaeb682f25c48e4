"""Rows against checks: each of twelve faults is seen and named; sets without a fault pass."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyomo.environ as pyo
import pytest
from amounts import amount
from command_line import run

import rmab_opt as ro
from rmab_opt.actions import ActionSet, Constraint, agreement
from rmab_opt.actions.agreement import compare_rows
from rmab_opt.actions.kinds import Budget, Path
from rmab_opt.decisions import Model, Scores, decide
from rmab_opt.errors import CertificateError, LimitError
from rmab_opt.problem import Arms, Ladder, Problem, Table

SIZE, MOST, MONEY = 24, 6, 75.0
COST = np.random.default_rng(1).integers(5, 31, SIZE).astype(float)
GROUP = np.arange(SIZE) % 4


def right_rows() -> tuple[np.ndarray, np.ndarray]:
    """At most 6, at most 75 of money, 2 of each of four groups, four pairs that exclude each other."""
    rows = [np.ones(SIZE), COST, *[(g == GROUP) * 1.0 for g in range(4)]]
    limits = [MOST, MONEY, 2.0, 2.0, 2.0, 2.0]
    for first in range(0, 8, 2):
        pair = np.zeros(SIZE)
        pair[[first, first + 1]] = 1.0
        rows.append(pair)
        limits.append(1.0)
    return np.array(rows), np.array(limits)


ROWS, LIMITS = right_rows()


SHIPPED = ("budget", "scheduling", "capacity", "path", "interventions", "weekly_calls")


class Rows(Constraint, kind="rows_of_the_agreement_test"):
    """Rows as given; the check is always the right one."""

    matrix: tuple[tuple[float, ...], ...]
    limit: tuple[float, ...]

    def build(self, block, act, columns):
        @block.Constraint(range(len(self.limit)))
        def row(_, i):
            return sum(w * act[c] for c, w in enumerate(self.matrix[i]) if w) <= self.limit[i]

    def violations(self, action, columns):
        for row, limit in zip(ROWS @ action, LIMITS, strict=True):
            if row > limit + 1e-9:
                yield f"{row:g} above {limit:g}"

    def describe(self):
        return "rows"


def fault(row=None, column=None, value=None, limit=None, drop=None, shift=False):
    matrix, limits = ROWS.copy(), LIMITS.copy()
    if column is not None:
        matrix[row, column] = value
    if limit is not None:
        limits[row] = limit
    if drop is not None:
        matrix, limits = np.delete(matrix, drop, 0), np.delete(limits, drop)
    if shift:
        matrix[6:] = np.roll(matrix[6:], 1, axis=1)
    return matrix, limits


WRONG_GROUP = ROWS.copy()
WRONG_GROUP[3] = ROWS[2]
FAULTS = {
    "budget one too small": fault(0, limit=MOST - 1),
    "budget one too large": fault(0, limit=MOST + 1),
    "strict instead of at most (money)": fault(1, limit=MONEY - 1),
    "one group's limit 1 for 2": fault(3, limit=1.0),
    "one group's limit 3 for 2": fault(3, limit=3.0),
    "one conflict forgotten": fault(drop=7),
    "one column forgotten in the money row": fault(1, 5, 0.0),
    "one cost typed 10 times too high": fault(1, 5, 10 * COST[5]),
    "one column can never be chosen": fault(0, 3, 100.0),
    "a group's row on the wrong group": (WRONG_GROUP, LIMITS),
    "budget row missing": fault(drop=0),
    "conflict pairs shifted by one": fault(shift=True),
}


def the_set(matrix: np.ndarray, limits: np.ndarray) -> ActionSet:
    own = Rows(matrix=tuple(map(tuple, matrix.tolist())), limit=tuple(limits.tolist()))
    return ActionSet(Arms.from_arrays(SIZE), {"own": own})


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_seen_and_named(name):
    found = compare_rows(the_set(*FAULTS[name]), work=2e6)
    assert found.fault is not None, found
    assert "constraints.own (kind 'rows_of_the_agreement_test')" in found.fault
    with pytest.raises(CertificateError, match=r"its rows (allow|forbid) an action that its check (forbids|allows)"):
        found.demand()


@pytest.mark.slow
def test_right_rows_pass_and_say_how_many_actions_were_compared():
    found = compare_rows(the_set(ROWS, LIMITS), work=6e6)
    assert found.fault is None
    assert found.compared > 1000
    assert found.left_out == ()


def test_what_there_was_no_time_for_is_said():
    found = compare_rows(the_set(ROWS, LIMITS), work=0)
    assert found.left_out
    assert "left out: " in str(found)


@pytest.mark.parametrize("name", amount(["scheduling", "path", "weekly_calls"], SHIPPED))
def test_shipped_sets_agree(name):
    model = ro.load(name)
    now = model.actions.at(0, model.problem.shared_values(model.problem.start_shared))
    found = compare_rows(now, work=amount(3e4, 1e5))
    assert found.fault is None
    assert found.silent == ()


class Helped(Constraint, kind="helped_of_the_agreement_test"):
    """At most ``n`` by own variables that carry the choice; ``rows`` is what the rows think."""

    n: int
    rows: int

    def build(self, block, act, columns):
        block.carried = pyo.Var(range(len(columns)), bounds=(0, 1))
        block.at_least = pyo.Constraint(range(len(columns)), rule=lambda _, c: block.carried[c] >= act[c])
        block.limit = pyo.Constraint(expr=sum(block.carried.values()) <= self.rows)

    def violations(self, action, columns):
        if action.sum() > self.n:
            yield f"{action.sum()} above {self.n}"

    def describe(self):
        return f"at most {self.n}"


@pytest.mark.parametrize(("rows", "words"), [(2, "its rows forbid"), (4, "its rows allow"), (3, None)])
def test_kinds_with_variables_of_their_own(rows, words):
    actions = ActionSet(Arms.from_arrays(9), {"own": Helped(n=3, rows=rows), "budget": Budget(at_most=7)})
    found = compare_rows(actions, work=3e6)
    assert (
        (found.fault is None) if words is None else (f"constraints.own (kind {Helped.kind!r}): {words}" in found.fault)
    )


def test_a_wrong_kind_of_ones_own_stops_the_first_decision_and_a_right_one_is_asked_once(monkeypatch):
    def model(actions):
        arms = Arms.from_arrays(SIZE)
        ladder = Ladder(np.tile([0.1, 0.5], (SIZE, 1)), np.tile([0.0, 1.0], (SIZE, 1)))
        return Model(Problem(arms, ladder, horizon=2), actions, Scores(np.arange(1.0, SIZE + 1)))

    with pytest.raises(CertificateError, match=r"constraints\.own"):
        decide(model(the_set(*FAULTS["budget one too small"])), np.zeros(SIZE, int))
    from rmab_opt.actions import agreement

    asked = []
    real = agreement.compare_rows
    monkeypatch.setattr(
        agreement, "compare_rows", lambda *given, **more: asked.append(given) or real(*given, work=2e4, **more)
    )
    agreement._FOUND.clear()
    first, again = (decide(model(the_set(ROWS, LIMITS)), np.zeros(SIZE, int)) for _ in range(2))
    assert first.status == again.status == "optimal"
    assert len(asked) == 1
    shipped = ActionSet(Arms.from_arrays(SIZE), {"budget": Budget(at_most=3)})
    decide(model(shipped), np.zeros(SIZE, int))
    assert len(asked) == 1


def test_check_says_how_many_were_compared():
    answer = run("check", "budget", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["compared"] > 50
    assert "rows and checks agree" in run("check", "budget").out


def test_very_large_sets_are_shown_not_empty_by_their_rows_alone(monkeypatch):
    """Writing out hundreds of thousands of columns takes minutes and gigabytes; rows are said as arrays already."""
    from rmab_opt.actions import action_set, agreement

    monkeypatch.setattr(action_set, "LARGE_SET", 0)
    free = ActionSet(Arms.from_arrays(9), {"budget": Budget(at_most=7, at_least=2)})
    with monkeypatch.context() as within:
        within.setattr(ActionSet, "model", lambda self: pytest.fail("the set was written out"))
        assert free.explain() is None
    clash = ActionSet(Arms.from_arrays(9), {"few": Budget(at_most=2), "many": Budget(at_least=4)})
    assert set(clash.explain().sentences) == {"few", "many"}
    monkeypatch.setattr(agreement, "MOST_COLUMNS", 5)
    found = compare_rows(free)
    assert found.compared > 0
    assert found.fault is None
    assert "a program of the rows, too large" in str(found)


def test_a_comparison_ends_when_its_time_is_over_and_says_what_it_left_out(monkeypatch):
    """Every look at the clock is a second: some actions are compared, none is blamed, and nothing of it is kept."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(agreement, "perf_counter", lambda: float(next(ticks)))
    rows = Rows(matrix=tuple(map(tuple, ROWS)), limit=tuple(LIMITS))
    actions = ActionSet(Arms.from_arrays(SIZE), {"rows": rows})
    late = compare_rows(actions, 5000, until=next(ticks) + 200.0)
    assert 0 < late.compared < compare_rows(actions, 5000).compared
    assert late.fault is None
    assert late.left_out[-1] == agreement.LATE
    assert compare_rows(actions, until=0.0) == agreement.Agreement(0, (agreement.LATE,))
    assert agreement.LATE in agreement.agreement_of(actions, until=0.0).left_out
    assert agreement._key(actions) not in agreement._FOUND


def test_check_answers_within_its_seconds_and_says_what_is_not_settled(monkeypatch):
    said = run("check", "budget", "--seconds", "60")
    assert said.code == 0
    assert "some action satisfies all constraints" in said.out

    def never(*_, **__):
        raise LimitError("feasibility was not settled: no_solution_limit", "give the profile more time.")

    monkeypatch.setattr(ActionSet, "explain", never)
    said = run("check", "budget", "--seconds", "60", "--json")
    assert said.code == 0
    assert json.loads(said.out)["ready"] is None
    assert "not settled in 60 s: give more --seconds" in run("check", "budget", "--seconds", "60").out
    assert run("check", "budget", "--seconds", "9", "--decision", "any.json").code == 2


def test_a_solver_that_runs_out_of_time_is_no_disagreement(monkeypatch):
    """Whether rows allow an action is only known where the solver says so: a limit blames nobody."""
    edges = Table({"from": ["arm0", "arm1", "arm2"], "to": ["arm1", "arm2", "arm0"], "minutes": [3, 4, 5]})
    actions = ActionSet(Arms.from_arrays(3), {"way": Path(edges=edges, depot="arm0", length=12)})
    assert compare_rows(actions).fault is None
    solved = agreement._Comparison._solved

    def stopped(self):
        return replace(solved(self), x=None, has_solution=False, status="no_solution_limit")

    monkeypatch.setattr(agreement._Comparison, "_solved", stopped)
    found = compare_rows(actions)
    assert found.fault is None
    assert found.left_out[-1] == agreement.HARD
