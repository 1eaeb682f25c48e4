"""What the published inspection code does, by its effect on the published setting."""

from __future__ import annotations

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Model
from rmab_opt.decisions.policy import make_policy
from rmab_opt.settings.inspection.beliefs import BeliefChains, Windows
from rmab_opt.settings.inspection.indices import encoded_indices
from rmab_opt.settings.inspection.periods import plan_periods
from rmab_opt.settings.inspection.reproduction import narrow_problem, played


def test_most_pulls_of_the_published_random_policy_are_wasted():
    """Arm numbers with replacement, windows or not: of 120 inspections a handful has an effect, and the improvement
    over it is nearly that over no inspection at all. Random among arms whose window is open has most of the gain."""
    problem = narrow_problem(100, 12, 0)
    found = {name: played(problem, 10, name, 0) for name in ("random_as_coded", "random_eligible", "none", "lookahead")}
    assert all(found.values())
    reward = {name: got["reward"] for name, got in found.items()}
    assert found["random_as_coded"]["arms"] <= 30
    assert found["random_eligible"]["arms"] >= 90
    gain = reward["lookahead"] - reward["none"]
    assert reward["random_as_coded"] - reward["none"] < 0.3 * gain
    assert reward["random_eligible"] - reward["none"] > 0.9 * gain
    problem = narrow_problem(300, 60, 1)
    found = {name: played(problem, 30, name, 0) for name in ("random_as_coded", "none", "lookahead")}
    over_coded, over_none = (
        100 * (found["lookahead"]["reward"] / found[n]["reward"] - 1) for n in ("random_as_coded", "none")
    )
    # The published 19 to 20 % at budgets of 10 and 20 % are the gain over no inspection.
    assert 18.0 < over_none < 21.5
    assert over_coded < over_none - 2.0


def test_surplus_inspections_of_the_published_index_policy_go_where_they_have_no_effect():
    """Without a mask on windows, indices clipped at zero tie with those of arms on which nothing has an effect."""
    problem = narrow_problem(200, 12, 0)
    arms, state, rng = problem.dynamics, np.asarray(problem.start), np.random.default_rng(0)
    indices = encoded_indices(arms.chains, arms.windows, 0.99)
    done = pulled = 0
    for _ in range(12):
        age, slot, used = arms.decode(state)
        clipped = np.maximum(np.asarray(indices.at(age, int(slot[0]), used)), 6e-7)
        order = np.lexsort((rng.random(200), -clipped))[:20]
        action = np.zeros(200, dtype=np.int64)
        action[order] = 1
        done += int((action.astype(bool) & arms.eligible(state)).sum())
        pulled += 20
        state = arms.move(state, action)
    assert done < 0.95 * pulled
    masked = played(problem, 20, "time_constrained", 0)
    assert masked is not None
    assert masked["arms"] > done


def test_a_belief_rolled_round_its_chain_takes_the_longest_unvisited_arm_for_a_fresh_one():
    """The published plan predicts age (k + t) mod K: an arm at the end of its chain begins again at certainly good."""
    chains = BeliefChains.build(np.array([0.85]), np.array([0.15]), rule="step")
    length = int(chains.length[0])
    ages = np.minimum(length - 1 + np.arange(4), length - 1)
    wrapped = (length - 1 + np.arange(4)) % length
    right, wrong = chains.beliefs[0][ages], chains.beliefs[0][wrapped]
    assert (right == right[0]).all()
    assert wrong[1] == 1.0
    assert right[1] < 0.6


def test_indices_are_no_weights_for_the_choice_of_a_slot():
    """In a window's first slot the index of waiting is negative: the published plan leaves visits to the last slot, and
    earns less than the plan by exact gains at the same cost."""
    problem = narrow_problem(200, 12, 3)
    windows = problem.dynamics.windows
    first = encoded_indices(problem.dynamics.chains, windows, 0.99)
    starts = np.argmax(windows.open, axis=1)
    values = first.values[np.arange(200), 0, starts, 0]
    assert (values < 0).mean() > 0.5
    by_index, by_gain = (played(problem, 16, name, 0) for name in ("lookahead", "lookahead_gain"))
    bound = plan_periods(problem.dynamics.chains, windows, 12, 16).bound
    assert by_index is not None
    assert by_gain is not None
    assert by_index["reward"] < by_gain["reward"] - 1e-6
    assert abs(by_gain["reward"] - bound) < 1e-6 * bound


def test_exactly_one_visit_a_window_needs_417_inspections_a_slot():
    """Table 1's cells without a figure: 12 slots of 416 are 4,992 visits for 5,000 arms."""
    problem = narrow_problem(500, 12, 0)
    short = Model(problem, ActionSet(problem.arms, {"slot": Budget(at_most=41)}))
    assert played(problem, 41, "lookahead_once", 0) is None
    assert played(problem, 46, "lookahead_once", 0) is not None
    assert make_policy("lookahead_once", short).name == "lookahead_once"
    assert Windows.spans(np.array([0]), 2, 12).n_arms == 1
