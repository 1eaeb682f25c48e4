"""The clock of the whole verb: shares of what is left, last resorts that say what they are, the one-sided rule."""

from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest
from command_line import run
from proof_models import EVERY, network, problem_of, sets

from rmab_opt import overdue
from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Knapsack
from rmab_opt.decisions import Chooser, NetworkObjective, Scores, decide, question, ways
from rmab_opt.decisions import policy as policies
from rmab_opt.decisions.certify import certify
from rmab_opt.decisions.policy import Policy
from rmab_opt.decisions.question import Proposal
from rmab_opt.errors import CapabilityError, CertificateError, LimitError, SolverError, UnsettledError
from rmab_opt.learning import evaluation
from rmab_opt.problem import Arms
from rmab_opt.solver import load_profile


class Clock:
    """Stands still until it is moved."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        for module in (question, overdue):
            monkeypatch.setattr(module, "perf_counter", lambda: self.now)


def late(monkeypatch, clock, seconds=3.0):
    """Every program ignores its limit for some seconds and then has nothing."""

    def propose(self, asked):
        clock.now += seconds
        raise LimitError("no action found before the limit (time_limit)", "give more.")

    monkeypatch.setattr(ways.MixedInteger, "propose", propose)
    monkeypatch.setattr(ways.Search, "propose", propose)


def chooser(goal, *, profile="default", kinds=None) -> Chooser:
    arms = Arms.from_arrays(8, cost=[3, 5, 2, 7, 4, 6, 1, 8])
    actions = ActionSet(arms, kinds or {"money": Knapsack(cost="cost", at_most=11)})
    return Chooser(problem_of(actions), actions, goal, profile, method="program", many=False)


def test_a_tenth_of_what_is_left_is_kept_for_the_proof(monkeypatch):
    clock = Clock(monkeypatch)
    asked = chooser(Scores(np.ones(8))).question(deadline=110.0)
    assert asked.seconds == pytest.approx(9.0)
    assert asked.left == pytest.approx(10.0)
    clock.now = 109.0
    assert asked.seconds == pytest.approx(0.8)
    clock.now = 110.5
    assert asked.seconds == 0.0
    assert replace(asked, deadline=None).seconds == asked.profile.seconds


def test_an_allowed_action_comes_back_and_says_what_it_is(monkeypatch):
    clock = Clock(monkeypatch)
    late(monkeypatch, clock)
    rng = np.random.default_rng(0)
    scores = rng.random(8)
    own = chooser(Scores(scores))
    made = own.answer(own.question(deadline=101.0))
    assert clock.now == 103.0, "one late program is the end"
    assert not made.violations
    assert made.status in ("heuristic", "optimal")
    assert "greedy (no action found before the limit" in made.solver
    best = max(float(a @ scores) for a in EVERY if own.actions.allows(a))
    assert 0 < made.value <= best <= made.bound
    assert "greedy" in str(made)
    start = np.eye(8, dtype=int)[3]
    begun = own.answer(own.question(deadline=104.0, start=start))
    assert begun.chosen == ("arm3",)
    assert begun.solver.startswith("the start (")


def test_a_network_gets_one_too(monkeypatch):
    clock = Clock(monkeypatch)
    late(monkeypatch, clock)
    rng = np.random.default_rng(1)
    actions, net = sets(rng), network(rng)
    own = Chooser(problem_of(actions), actions, NetworkObjective(lambda _: net), method="search", many=False)
    made = own.answer(own.question(deadline=150.0))
    best = float(net(EVERY[[actions.allows(a) for a in EVERY]]).max())
    assert not made.violations
    assert made.value <= best + 1e-9
    assert made.bound >= best


def test_limits_without_anything_and_profiles_that_raise(monkeypatch):
    clock = Clock(monkeypatch)
    late(monkeypatch, clock)
    strict = chooser(Scores(np.ones(8)), profile=replace(load_profile("default"), at_limit="raise"))
    with pytest.raises(SolverError, match="before the limit"):
        strict.answer(strict.question(deadline=101.0))
    empty = chooser(Scores(np.ones(8)), kinds={"money": Knapsack(cost="cost", at_most=1), "two": Budget(equal=2)})
    with pytest.raises(SolverError, match="not proven that none exists"):
        empty.answer(empty.question(deadline=101.0))


def test_what_is_worth_more_than_claimed_is_taken_at_its_own_value():
    own = chooser(Scores(np.arange(1.0, 9.0)))
    asked = own.question()
    action = np.eye(8, dtype=int)[0]
    made = certify(asked, Proposal(action, 0.25, 9.0, "dual", by="shy"))
    assert made.value == 1.0
    with pytest.raises(CertificateError):
        certify(asked, Proposal(action, 2.0, 9.0, "dual", by="bold"))


def test_the_verbs_take_seconds():
    made = decide(ro_model(), np.zeros(10, dtype=int), seconds=20.0)
    assert made.status == "optimal"
    assert "Decision" in run("decide", "budget", "--seconds", "20", "--episodes", "0").out
    assert "Bound" in run("bound", "budget", "--seconds", "20").out


def ro_model():
    import rmab_opt as ro

    return ro.load("budget", n_arms=10)


def test_only_unsettled_checks_end_in_a_last_resort(monkeypatch):
    """An ability that something lacks is an error of the question, not of the time."""

    def broken(error):
        def judge(asked, proposal, **given):
            if proposal.proof == "none" or "re-check" in proposal.by:
                return certify(asked, proposal, **given)
            raise error

        return judge

    own = chooser(Scores(np.arange(1.0, 9.0)))
    monkeypatch.setattr("rmab_opt.decisions.chooser.certify", broken(CapabilityError("a value", own, ("a", "b"))))
    with pytest.raises(CapabilityError, match="a value"):
        own.answer(own.question())
    monkeypatch.setattr("rmab_opt.decisions.chooser.certify", broken(UnsettledError("a packing", own, ("a", "b"))))
    made = own.answer(own.question())
    assert "the re-check was not settled" in made.solver
    assert not made.violations


class Ticking:
    """A clock far ahead of the true one, which ways of deciding read: they have all they need. A decision takes 1 s."""

    def __init__(self, monkeypatch, slow=Policy):
        self.now, follow = perf_counter() + 1e6, slow.follow

        def followed(policy, *given, **options):
            self.now += 1.0
            return follow(policy, *given, **options)

        monkeypatch.setattr(slow, "follow", followed)
        for module in (evaluation, policies, overdue):
            monkeypatch.setattr(module, "perf_counter", lambda: self.now)


def test_evaluation_ends_inside_an_episode_and_says_so(monkeypatch):
    model = ro_model()
    rounds = model.problem.horizon
    Ticking(monkeypatch)
    # The first policy is done, the second comes half-way; its last decision took more than half of what was left.
    table = evaluation.evaluate(model, ["none", "myopic"], episodes=1, bound=False, seconds=1.5 * rounds)
    assert [row["policy"] for row in table.rows] == ["none"]
    assert table.header["stopped"] == f"myopic in round {rounds // 2} of {rounds}"
    assert "stopped myopic" in str(table)
    with pytest.raises(LimitError, match="no episode was played to its end"):
        evaluation.evaluate(model, ["none", "myopic"], episodes=1, bound=False, seconds=1.0)
    whole = evaluation.evaluate(model, ["none", "myopic"], episodes=1, bound=False, seconds=1e6)
    assert "stopped" not in whole.header
    assert len(whole.rows) == 2


def test_ctrl_c_brings_an_allowed_action_within_a_moment():
    """The verb asks once more with a second to go; a second Ctrl-C ends it."""
    from rmab_opt.cli.common import STOPPED, stoppable

    asked = []

    def once(deadline):
        asked.append(deadline)
        if len(asked) == 1:
            raise KeyboardInterrupt
        return "decision"

    assert stoppable(once, None) == ("decision", True)
    assert asked[0] is None
    assert asked[1] is not None
    assert STOPPED <= 1.0

    def always(deadline):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stoppable(always, None)


def test_an_evaluation_within_which_nothing_is_played_is_an_answer(monkeypatch):
    def never(*_, **__):
        raise LimitError("no episode was played to its end in 0.1 s", "give more seconds.")

    monkeypatch.setattr("rmab_opt.learning.evaluate", never)
    said = run("evaluate", "budget", "--seconds", "0.1")
    assert said.code == 0
    assert "no episode was played to its end" in said.out
