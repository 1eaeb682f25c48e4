"""What the equity study states and what its code does: theorems by exact joint programs, faults by their effects."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from amounts import amount
from fair_plans import planned
from hypothesis import given, settings
from hypothesis import strategies as st

import rmab_opt as ro
from rmab_opt.decisions.policy import make_policy
from rmab_opt.planning import Coupling
from rmab_opt.settings.equity import Groups
from rmab_opt.settings.equity.curves import group_curve
from rmab_opt.settings.equity.fairness import compare_groups
from rmab_opt.settings.equity.published import whittle_to_lagrange
from rmab_opt.settings.equity.reproduction import PublishedRule, StandingRoundRobin, final_shares

ROUNDS = 3


def arms(seed: int, n: int, *, alike: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two-state arms that acting may help, rewards in [0, 1], known first states."""
    rng = np.random.default_rng(seed)
    chance = np.sort(rng.random((n, 2, 2)), axis=2)
    reward = np.sort(rng.random((n, 2)), axis=1)
    state = rng.integers(0, 2, n)
    if alike:
        chance, reward, state = chance[[0] * n], reward[[0] * n], state[[0] * n]
    return chance, reward, state


def joint(chance: np.ndarray, reward: np.ndarray, state: np.ndarray, budget: int, rounds: int = ROUNDS) -> float:
    """The best expected total of a group of arms under a budget a round: dynamic program over all joint states."""
    n = len(state)
    states = np.array(list(itertools.product((0, 1), repeat=n)))
    paid = reward[np.arange(n), states].sum(axis=1)
    value = np.zeros(len(states))
    every = [a for a in itertools.product((0, 1), repeat=n) if sum(a) <= budget]
    for _ in range(rounds):
        best = np.full(len(states), -np.inf)
        for action in every:
            up = chance[np.arange(n), states, np.array(action)]
            moves = np.prod(np.where(states[None] == 1, up[:, None], 1 - up[:, None]), axis=2)
            best = np.maximum(best, paid + moves @ value)
        value = best
    return float(value[int("".join(map(str, state)), 2)])


def relaxed(chance: np.ndarray, reward: np.ndarray, state: np.ndarray, budget: float, rounds: int = ROUNDS) -> float:
    """The relaxation with a price a round."""
    n = len(state)
    transition = np.stack([1 - chance, chance], axis=-1).swapaxes(1, 2)
    group = Groups(("all",), np.ones((1, n), dtype=bool))
    paid = np.repeat(reward[:, :, None], 2, axis=2)
    coupling = Coupling.budgets([float(budget)])
    plan = planned(transition, paid, state, group, coupling, horizon=rounds, welfare="max_min")
    return n * plan.upper


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_theorem_1_more_budget_never_lowers_a_group_s_value(seed):
    given_arms = arms(seed, 3)
    values = [joint(*given_arms, budget) for budget in range(4)]
    assert (np.diff(values) >= -1e-12).all()


@given(st.integers(0, 10_000))
@settings(max_examples=amount(4, 6), deadline=None)
def test_theorem_2_the_relaxation_is_concave_in_the_budget_and_does_not_fall(seed):
    given_arms = arms(seed, 3)
    values = np.array([relaxed(*given_arms, budget) for budget in np.linspace(0, 3, 7)])
    assert (np.diff(values) >= -1e-6).all()
    assert (np.diff(values, 2) <= 1e-6).all()


@given(st.integers(0, 10_000), st.integers(0, 3))
@settings(max_examples=12, deadline=None)
def test_theorem_3_identical_arms_lose_at_most_the_idle_ones_rounds(seed, budget):
    given_arms = arms(seed, 3, alike=True)
    gap = relaxed(*given_arms, budget) - joint(*given_arms, budget)
    assert -1e-6 <= gap <= (3 - budget) * ROUNDS + 1e-6
    if budget in (0, 3):
        assert gap == pytest.approx(0.0, abs=1e-5)


@given(st.integers(0, 10_000), st.integers(0, 2))
@settings(max_examples=12, deadline=None)
def test_theorem_4_a_group_is_worth_at_least_its_best_arm_and_at_most_all_alone(seed, budget):
    chance, reward, state = arms(seed, 3)
    alone = [joint(chance[[i]], reward[[i]], state[[i]], min(1, budget)) for i in range(3)]
    together = joint(chance, reward, state, budget)
    assert max(alone) - 1e-12 <= together <= sum(alone) + 1e-12


@given(st.integers(0, 10_000))
@settings(max_examples=8, deadline=None)
def test_the_up_sampling_conjecture_holds_for_the_relaxation_and_from_above_for_the_value(seed):
    """A group of every arm twice with twice the budget: exactly twice the relaxed value; the value itself lies between
    twice the group's own and that."""
    chance, reward, state = arms(seed, 2)
    twice = (np.concatenate([chance, chance]), np.concatenate([reward, reward]), np.concatenate([state, state]))
    upper = relaxed(chance, reward, state, 1)
    assert relaxed(*twice, 2) == pytest.approx(2 * upper, rel=1e-5)
    own = joint(chance, reward, state, 1)
    assert 2 * own - 1e-9 <= joint(*twice, 2) <= 2 * upper + 1e-6


def test_a_second_group_of_the_same_kind_gains_little_from_sharing():
    """How far the conjecture is off, over random groups: the doubled group gains at most a few per cent."""
    excess = []
    for seed in range(30):
        chance, reward, state = arms(seed, 2)
        twice = (np.concatenate([chance, chance]), np.concatenate([reward, reward]), np.concatenate([state, state]))
        excess.append(joint(*twice, 2) / (2 * joint(chance, reward, state, 1)) - 1)
    assert min(excess) > -1e-12
    assert 0 < max(excess) < 0.08


# ---- what the published code does
def test_clipped_indices_tie_the_best_arms_and_cost_the_utilitarian_rule_much():
    model = ro.load("maternal_health", large="A")
    index = PublishedRule(model, "opt").indices(np.ones(200, dtype=np.int64), 20)
    assert (index == index.max()).sum() > 50
    assert index.max() == pytest.approx(0.99609375)
    table = compare_groups(model, [PublishedRule(model, "opt"), "whittle"], episodes=3, bound=False)
    apart = table.difference("whittle", "published_opt")
    assert apart.mean > 0.3
    assert apart.low > 0.0


def test_a_clock_that_stands_still_serves_the_same_patients_for_ever():
    model = ro.load("digital_diabetes", n_arms=60, at_most=6)
    rng, state = np.random.default_rng(0), model.problem.start
    standing = StandingRoundRobin(model)
    served = sum(np.asarray(standing.decide(state, t, rng)) for t in range(10))
    assert (served > 0).sum() == 6
    policy = make_policy("round_robin_high_risk", model)
    memory, right = policy.begin(rng), np.zeros(60, dtype=np.int64)
    for t in range(10):
        decision, memory = policy.follow(state, t, memory)
        right += decision.action
    assert right.tolist() == [1] * 60


def test_the_published_curve_of_a_group_that_cannot_respond_jumps_and_then_falls():
    model = ro.load("equity_synthetic")
    rule = PublishedRule(model, "mmr")
    state = np.tile([0, 1], 50)
    arms_of_d = rule.members[3]
    curve = whittle_to_lagrange(
        rule.transition[arms_of_d], rule.reward[arms_of_d], state[arms_of_d], rule.indices(state, 20)[arms_of_d],
        rounds=20, discount=0.9999, as_written=True,
    )  # fmt: skip
    assert curve[1] > curve[0] + 0.01
    assert (np.diff(curve[1:]) < 0).sum() >= 20
    transition, reward = rule.transition[arms_of_d], rule.reward[arms_of_d]
    exact = group_curve(transition, reward, state[arms_of_d], horizon=20, discount=0.9999)
    assert exact(np.arange(6.0)) == pytest.approx(exact(0.0))


# ---- the ends of the programme
def test_shares_at_the_end_count_states_after_the_last_round():
    model = ro.load("digital_diabetes", n_arms=30, at_most=30, horizon=3)
    shares = final_shares(model, "none", 2, 0)
    assert set(shares) == {"engaged", "low A1c"}
    assert all(((values >= 0) & (values <= 1)).all() for values in shares.values())
    all_served = final_shares(model, "whittle", 2, 0)
    assert all_served["engaged"].mean() >= shares["engaged"].mean()
