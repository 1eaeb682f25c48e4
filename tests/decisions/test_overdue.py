"""A limit reaches all long work: who has a use for a part gets what is at hand, who has none sees it given up."""

from contextlib import contextmanager, suppress
from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest
from proof_models import problem_of

import rmab_opt as ro
from rmab_opt import overdue
from rmab_opt.actions import ActionSet, packing
from rmab_opt.actions.kinds import Budget
from rmab_opt.actions.shape import Shape
from rmab_opt.decisions import Chooser, Scores, resort, ways
from rmab_opt.decisions.bench import Bench
from rmab_opt.decisions.policy import Policy, make_policy, round_of, unhurried
from rmab_opt.decisions.question import Proposal
from rmab_opt.errors import InfeasibleError, LimitError, OverdueError, SolverError
from rmab_opt.learning import evaluate, evaluation
from rmab_opt.overdue import checkpoint, given_up_at, seconds_left
from rmab_opt.problem import Arms
from rmab_opt.programme import front_door
from rmab_opt.programme.front_door import Plan, ahead_of, plan_decision
from rmab_opt.programme.stability import stability_of
from rmab_opt.settings.equity import fairness
from rmab_opt.solver import Program, Session, load_profile
from rmab_opt.solver.highs import HighsSolver

OVER = -1.0
"""A time of the clock that has long been over."""

HARD = {
    "roster": ("scheduling", {"n_arms": 40}),
    "loads": ("capacity", {"n_arms": 40}),
    "route": ("path", {"n_arms": 20}),
    "counts": ("budget", {"n_arms": 40}),
}


def state_of(model):
    return model.problem.sample_start(np.random.default_rng(0))


@contextmanager
def over_after(steps: int):
    """The time of what is at work is over at the checkpoint after so many."""
    left = iter([1.0] * steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overdue, "seconds_left", lambda: next(left, OVER))
        with given_up_at(1e12):
            yield


# --------------------------------------------------------------------------------------------------- what is given up
def test_work_is_given_up_at_the_earliest_time_around_it_and_nowhere_else(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(overdue, "perf_counter", lambda: now[0])
    checkpoint()
    assert seconds_left() == np.inf
    with given_up_at(20.0):
        with given_up_at(30.0):
            assert seconds_left() == 10.0, "the work around it ends first"
        with given_up_at(15.0):
            assert seconds_left() == 5.0
        now[0] = 20.0
        with pytest.raises(OverdueError):
            checkpoint()
        with pytest.raises(OverdueError), given_up_at(99.0):
            pytest.fail("work began that was to be given up")
    checkpoint()


def test_a_solve_that_is_cut_short_is_no_answer_for_who_did_not_ask_for_a_part(monkeypatch):
    asked = []

    def limited(self, arrays, limits, start, interrupt):
        asked.append(limits.seconds)
        found, stopped = solve(self, arrays, limits, start, interrupt)
        now[0] += limits.seconds + beyond[0]
        return replace(found, status="feasible_limit"), stopped

    now, beyond, solve = [0.0], [0.0], HighsSolver.solve
    monkeypatch.setattr(overdue, "perf_counter", lambda: now[0])
    monkeypatch.setattr(HighsSolver, "solve", limited)
    whole = np.ones(3, dtype=bool)
    session = Session.from_arrays(
        Program(np.ones(3), np.ones((1, 3)), np.zeros(1), np.ones(1), np.zeros(3), np.ones(3), whole, True)
    )
    with given_up_at(100.0):
        assert session.solve(seconds=2.0).status == "feasible_limit", "this one asked for what there is in two seconds"
        with pytest.raises(OverdueError):
            session.solve()
        with pytest.raises(OverdueError):
            session.solve()
    assert asked == [2.0, 98.0], "past the time no solver is asked"
    now[0], beyond[0] = 0.0, 5.0
    with given_up_at(3.0):
        assert session.solve(seconds=2.0).status == "feasible_limit", "however late it comes, a part was asked for"


def test_a_check_that_takes_long_is_given_up(monkeypatch):
    loads = ro.load("capacity", n_arms=20).actions
    kind = loads.constraints[loads.structured[0]]
    # Nothing but the search itself is left to find a packing.
    monkeypatch.setattr(type(kind), "_fill", lambda *_: None)
    chosen = np.zeros(len(loads), dtype=np.int64)
    chosen[:3] = 1
    with over_after(2), pytest.raises(OverdueError):
        loads.allows(chosen)
    roster = ro.load("scheduling", n_arms=20).actions
    kind = roster.constraints[roster.structured[0]]
    with over_after(1), pytest.raises(OverdueError):
        kind._visits(np.arange(2), roster.columns, ())
    assert loads.allows(chosen), "nothing is left behind"


@pytest.mark.parametrize("name", list(HARD))
def test_a_program_that_is_written_too_late_is_given_up(monkeypatch, name):
    model, sizes = HARD[name]
    actions = ro.load(model, **sizes).actions
    with over_after(3), pytest.raises(OverdueError):
        _ = actions.compiled
    assert actions.best_by_program(np.zeros(len(actions)))[0].shape == (len(actions),)


# --------------------------------------------------------------------------------------------- what is at hand by then
@pytest.mark.parametrize("name", list(HARD))
def test_a_draw_whose_time_is_over_is_the_action_as_it_is_grown_and_the_last(monkeypatch, name):
    model, sizes = HARD[name]
    actions = ro.load(model, **sizes).actions
    grown, grow = [], Shape.grow
    monkeypatch.setattr(Shape, "grow", lambda shape, *given: grown.append(given) or grow(shape, *given))
    drawn = actions.sample(np.random.default_rng(0), 50, until=OVER)
    assert drawn.shape == (1, len(actions))
    assert actions.allows(drawn[0])
    assert len(grown) == 1
    assert not drawn.any(), "nothing is added past the time"
    assert len(actions.sample(np.random.default_rng(0), 3)) == 3


def test_a_draw_that_needs_a_program_hands_the_time_on(monkeypatch):
    actions = ActionSet(Arms.from_arrays(8), {"two": Budget(equal=2)})
    asked, solve = [], Session.solve
    monkeypatch.setattr(Shape, "grow", lambda shape, *_: np.zeros(8, dtype=np.int64))
    monkeypatch.setattr(Session, "solve", lambda own, **given: asked.append(given["seconds"]) or solve(own, **given))
    with suppress(LimitError):
        assert actions.sample(np.random.default_rng(0), 4, until=OVER).sum() == 2
    assert asked == [0.01]
    assert actions.sample(np.random.default_rng(0), 4).sum() == 8
    assert asked[1:] == [None] * 4


def test_the_time_goes_on_to_programs_of_many_decisions_and_of_clashes(monkeypatch):
    actions = ActionSet(Arms.from_arrays(8), {"two": Budget(equal=2), "none": Budget(at_most=1)})
    asked, solve = [], Session.solve

    def seen(own, **given):
        asked.append(given.get("seconds"))
        return solve(own, **given)

    monkeypatch.setattr(Session, "solve", seen)
    actions.least_relaxation("two", until=OVER)
    assert asked == [0.01]
    with pytest.raises(InfeasibleError):
        raise actions.infeasibility(perf_counter() + 1e6)
    assert all(seconds is not None and seconds < 1e6 for seconds in asked)
    asked.clear()
    roster = ro.load("scheduling", n_arms=20)
    chooser = Chooser(roster.problem, roster.actions, Scores(np.arange(20.0)))
    chooser.best(chooser.question(state_of(roster), deadline=perf_counter() + 1e6))
    assert all(seconds is not None and seconds < 1e6 for seconds in asked)
    assert asked


def test_a_packing_whose_time_is_over_is_what_is_packed(monkeypatch):
    actions = ro.load("capacity", n_arms=300, n_workers=150).actions
    assert actions.outer is not None
    gain = np.random.default_rng(0).random(len(actions))
    monkeypatch.setattr(packing, "_knapsack", lambda *_: pytest.fail("a worker is loaded anew"))
    monkeypatch.setattr(packing, "_patterned", lambda *_: None)
    action, _ = actions.shape.packed(np.argsort(-gain)[:40], gain, np.zeros(len(actions.plain_rows.lower)), until=OVER)
    assert actions.allows(action)
    assert actions.allows(actions.shape.grown(np.random.default_rng(0), OVER))


def test_nothing_is_exchanged_or_loaded_anew_past_the_time(monkeypatch):
    gain, size, room = np.arange(1.0, 7.0), np.full(6, 2), np.full(2, 4)
    monkeypatch.setattr(packing, "_knapsack", lambda *_: pytest.fail("a worker is loaded anew"))

    def fits(column, leaving):
        pytest.fail("a column is exchanged")

    place = {0: 0, 1: 1}
    packing._exchange(place, gain, size, room, np.arange(6), fits, OVER)
    packing._refill(place, gain, size, room, np.arange(6), fits, OVER)
    assert place == {0: 0, 1: 1}
    assert packing._filled(np.arange(6), size, room, OVER) == {}


def test_who_can_do_without_a_solver_goes_on_without_it():
    """What is packed or found stands, without the best pattern or without a bound."""
    gain, size, room = np.arange(1.0, 7.0), np.full(6, 2), np.full(2, 4)
    assert packing._patterned(gain, size, room.copy(), np.inf)
    with over_after(1):
        assert packing._patterned(gain, size, room.copy(), np.inf) is None
    bench = Bench(ro.load("scheduling", n_arms=10).actions, load_profile("default"))
    assert bench.prices(np.ones(10)) is not None
    with over_after(1):
        assert bench.prices(np.ones(10)) is None


def test_a_last_resort_ends_with_what_it_has_and_is_named(monkeypatch):
    actions = ro.load("scheduling", n_arms=40).actions
    chooser = Chooser(problem_for(actions), actions, Scores(np.ones(len(actions))), method="program", many=False)
    priced, prices = [], Bench.prices
    monkeypatch.setattr(Bench, "prices", lambda own, gain, left: priced.append(left) or prices(own, gain, left))
    ticks = iter(np.arange(1.0, 1e6) * 0.15)
    monkeypatch.setattr(resort, "perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(ways.MixedInteger, "propose", _never)
    made = chooser.answer(chooser.question(deadline=perf_counter()))
    assert not made.violations
    assert made.solver.startswith("greedy (nothing in time)")
    assert len(made.chosen) == 2, "two looks at the clock until 0.4 s are over"
    assert priced == [resort.PRICED_SHARE * resort.LEAST_LEFT]


def _never(way, asked):
    raise LimitError("nothing in time", "give more.")


def problem_for(actions):
    from rmab_opt.problem import Problem, Tabular

    n, rng = len(actions.columns.arms), np.random.default_rng(7)
    tables = Tabular(rng.dirichlet(np.ones(2), (n, 2, 2)), rng.random((n, 2, 2)))
    return Problem(actions.columns.arms, tables, horizon=3, start=np.zeros(n, dtype=int))


def test_a_way_that_needs_but_a_moment_answers_however_late_it_is():
    actions = ActionSet(Arms.from_arrays(8), {"few": Budget(at_most=3)})
    chooser = Chooser(problem_of(actions), actions, Scores(np.arange(8.0)), many=False)
    made = chooser.answer(chooser.question(deadline=perf_counter() - 9.0))
    assert made.status == "optimal"
    assert made.chosen == ("arm5", "arm6", "arm7")


def test_a_way_that_does_not_end_is_given_up_at_the_deadline(monkeypatch):
    def endless(way, asked):
        assert overdue._DUE.get() == asked.deadline
        raise OverdueError("the time was over", "")

    actions = ActionSet(Arms.from_arrays(8), {"few": Budget(at_most=3)})
    monkeypatch.setattr(ways.MixedInteger, "propose", endless)
    chooser = Chooser(problem_of(actions), actions, Scores(np.arange(8.0)), method="program", many=False)
    made = chooser.answer(chooser.question(deadline=perf_counter() + 1e6))
    assert made.chosen == ("arm5", "arm6", "arm7")
    assert "the time was over" in made.solver


# ----------------------------------------------------------------------------------------------------- rules and tables
class Slow(Policy):
    """Passes a checkpoint when it is made and in every decision."""

    name = "slow"

    def propose(self, question, memory):
        checkpoint()
        return Proposal(np.zeros(len(question.actions), dtype=np.int64)), memory


def test_a_decision_that_took_more_than_half_of_what_was_left_does_not_count(monkeypatch):
    from rmab_opt.decisions import policy as policies

    now = [0.0]
    for module in (policies, overdue):
        monkeypatch.setattr(module, "perf_counter", lambda: now[0])

    def worked(seconds, until, error=None):
        now[0] = 0.0
        with unhurried(until):
            now[0] += seconds
            if error is not None:
                raise error

    worked(0.4, 1.0)
    worked(1e9, np.inf)
    with pytest.raises(OverdueError):
        worked(0.6, 1.0)
    with pytest.raises(OverdueError):
        worked(0.6, 1.0, SolverError("no allowed action found", ""))
    with pytest.raises(SolverError, match="a fault of its own"):
        worked(0.4, 1.0, SolverError("a fault of its own", ""))
    with pytest.raises(OverdueError), unhurried(-1.0):
        pytest.fail("a decision began past the time")


def test_policies_are_asked_under_the_limit_of_the_table(monkeypatch):
    model = ro.load("budget", n_arms=10)
    seen = []
    monkeypatch.setattr(
        Slow,
        "propose",
        lambda own, question, memory: (
            seen.append(question.deadline) or (Proposal(np.zeros(10, dtype=np.int64)), memory)
        ),
    )
    until = perf_counter() + 1e6
    slow = Slow(model)
    made = round_of(slow, np.zeros((3, 10), dtype=int), 0, [None] * 3, until=until)
    assert seen == [until] * 3
    assert len(made.seconds) == 3
    slow.act(np.zeros(10, dtype=int), 0, None, deadline=until)
    assert seen[3:] == [until]
    with pytest.raises(OverdueError):
        round_of(slow, np.zeros((3, 10), dtype=int), 0, [None] * 3, until=OVER)


@pytest.mark.parametrize("rule", ["lp_index", "hull_index", "lp_update", "occupancy_index", "whittle"])
def test_a_rule_that_is_not_made_in_time_has_no_row_and_is_named(monkeypatch, rule):
    model = ro.load("budget", n_arms=12)
    made = evaluation._policy

    def late(given, model):
        if given == "none":
            return made(given, model)
        assert 0.0 < seconds_left() < 1e6
        with over_after(2):
            return made(given, model)

    monkeypatch.setattr(evaluation, "_policy", late)
    table = evaluate(model, ["none", rule], episodes=1, bound=False, seconds=1e6, n_jobs=1)
    assert [row["policy"] for row in table.rows] == ["none"]
    assert table.header["stopped"] == f"{rule} in round 1 of {model.problem.horizon}"


def test_a_bound_that_is_not_there_in_time_is_named(monkeypatch):
    def late(model, **given):
        assert given["seconds"] < 1e6
        raise OverdueError("the time was over", "")

    monkeypatch.setattr(evaluation, "upper_bound", late)
    table = evaluate(ro.load("budget", n_arms=10), ["none", "myopic"], episodes=1, seconds=1e6, n_jobs=1)
    assert table.header["bound"] is None
    assert table.header["stopped"] == "the bound"
    assert [row["share_of_bound"] for row in table.rows] == [None, None]


def test_a_statistical_bound_that_is_not_there_in_time_is_named(monkeypatch):
    looked = []

    def late(problem, actions):
        looked.append(seconds_left())
        raise OverdueError("the time was over", "")

    monkeypatch.setattr(evaluation, "decoupled_bound", late)
    table = evaluate(ro.load("crowding", n_arms=8), ["none"], episodes=1, seconds=1e6, n_jobs=1)
    assert looked[0] < 1e6
    assert table.header["bound"] is None
    assert table.header["stopped"] == "the bound"


def test_groups_of_policies_that_were_not_played_to_their_end_have_no_row(monkeypatch):
    from rmab_opt.decisions import policy as policies

    model, now, follow = ro.load("equity_synthetic"), [0.0], Policy.follow

    def followed(policy, *given, **options):
        assert options["deadline"] is not None
        now[0] += policy.name == "random"
        return follow(policy, *given, **options | {"deadline": None})

    for module in (fairness, policies, overdue):
        monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    monkeypatch.setattr(Policy, "follow", followed)
    table = fairness.compare_groups(model, ["none", "random", "myopic"], episodes=3, bound=False, seconds=20.0)
    assert [row["policy"] for row in table.rows] == ["none"]
    assert table.header["stopped"] == "random, myopic"
    assert now[0] == 20.0, "no decision was begun past the time"


@pytest.mark.parametrize("rule", ["lp_index", "living", "sampling"])
def test_a_list_by_a_rule_that_is_not_ready_is_by_this_round_and_says_so(monkeypatch, rule):
    model, made = ro.load("budget", n_arms=12), front_door._made

    def endless(name, *given):
        if name == rule:
            raise OverdueError("the time was over", "")
        return made(name, *given)

    monkeypatch.setattr(front_door, "_made", endless)
    decision, plan = plan_decision(model, Plan(rule, "asked for"), state_of(model), deadline=perf_counter() + 1e6)
    assert not decision.violations
    assert decision.chosen
    assert plan == Plan("myopic", f"{rule} was not ready in time, this round's reward decides")
    monkeypatch.undo()
    _, plan = plan_decision(model, Plan(rule, "asked for"), state_of(model))
    assert plan.policy == rule


def test_a_list_is_made_however_late_it_is():
    """By the default rules at the first prices that were looked at, and not by what nobody would take for a list."""
    model = ro.load("budget", n_arms=12)
    for rule in ("lagrangian", "living"):
        made, plan = plan_decision(model, Plan(rule, "asked for"), state_of(model), deadline=perf_counter() - 1.0)
        assert made.chosen
        assert plan.policy == rule
    loads = ro.load("capacity", n_arms=300, n_workers=150)
    assert loads.actions.outer is not None
    chooser = Chooser(loads.problem, loads.actions, Scores(np.ones(300)), many=False)
    assert chooser.answer(chooser.question(state_of(loads), deadline=perf_counter() - 1.0)).chosen


def test_what_lies_ahead_is_none_past_the_time():
    model = ro.load("budget", n_arms=12)
    plan = Plan("lagrangian", "asked for")
    assert ahead_of(model, plan, state_of(model), until=OVER) is None
    ahead = ahead_of(model, plan, state_of(model))
    assert ahead.outlook(3, until=OVER) is None
    decision, _ = plan_decision(model, plan, state_of(model))
    assert stability_of(ahead, decision, [model] * 3, OVER).draws == 0
    assert stability_of(ahead, decision, [model] * 3).draws == 3


def test_random_policies_play_on_with_fewer_draws_and_say_so():
    model = ro.load("budget", n_arms=12)
    policy = make_policy("sampling:draws=30", model)
    question = policy.chooser.question(state_of(model), deadline=OVER)
    offered, _ = policy.propose(question, np.random.default_rng(0))
    assert offered.remarks == {"draws": "1 of 30, the time was over"}
    assert model.actions.allows(offered.action)
    offered, _ = policy.propose(policy.chooser.question(state_of(model)), np.random.default_rng(0))
    assert offered.remarks == {}
