"""Prices by descents on smooth functions: against the cuts' own optimum and the linear program."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Linear
from rmab_opt.instances.synthetic import ladder_mix
from rmab_opt.planning import bound, lagrangian, priced_arms, smoothing
from rmab_opt.planning.costs import Costs
from rmab_opt.planning.coupling import Coupling
from rmab_opt.planning.lagrangian import dual_finite
from rmab_opt.planning.occupancy import polyhedron
from rmab_opt.problem import Arms, Problem


def cohort(n_arms: int = 60, discount: float = 0.9) -> tuple[Problem, ActionSet]:
    made = ladder_mix(n_arms=n_arms, n_states=4, n_actions=2, seed=3)
    arms = Arms.from_arrays(n_arms, village=[f"v{i % 5}" for i in range(n_arms)])
    actions = ActionSet(arms, {"budget": Budget(at_most=9), "village": Linear(per="village", at_most=2)})
    return Problem(arms, made.dynamics, horizon=8, discount=discount, start=made.start), actions


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_both_ends_hold_and_meet_those_of_the_program(monkeypatch, discount):
    """The value is a bound, the certified value below is one of the relaxed problem; both near the LP's optimum."""
    problem, actions = cohort(discount=discount)
    right = bound(problem, actions, method="highs").value
    monkeypatch.setattr(lagrangian, "SMOOTHED_FROM", 0)
    found = bound(problem, actions, method="dual", tolerance=2e-2)
    assert found.lower <= right * (1 + 1e-9)
    assert right <= found.value * (1 + 1e-9)
    assert found.converged
    assert found.relative_gap <= 2e-2


def test_a_sample_of_the_arms_begins_and_a_clock_that_is_over_leaves_a_bound(monkeypatch):
    problem, actions = cohort(200)
    right = bound(problem, actions, method="highs").value
    monkeypatch.setattr(lagrangian, "SMOOTHED_FROM", 0)
    monkeypatch.setattr(lagrangian, "SAMPLED_FROM", 100)
    monkeypatch.setattr(lagrangian, "SAMPLE", 80)
    found = bound(problem, actions, method="dual", tolerance=2e-2)
    assert found.lower <= right * (1 + 1e-9) <= found.value * (1 + 2e-9)
    late = bound(problem, actions, method="dual", tolerance=2e-2, seconds=0.0)
    assert late.value >= right * (1 - 1e-9)


@pytest.mark.parametrize("sampled_from", [10**6, 30])
def test_constant_prices_of_many_rows_are_those_of_the_cuts(monkeypatch, sampled_from):
    """One descent without heat for the endless run comes to the cuts' bound, begun on a sample or not."""
    monkeypatch.setattr(lagrangian, "SAMPLED_FROM", sampled_from)
    monkeypatch.setattr(lagrangian, "SAMPLE", 30)
    problem, actions = cohort()
    right = bound(problem, actions, kind="discounted", discount=0.9, tolerance=1e-6)
    monkeypatch.setattr(lagrangian, "SMOOTHED_FROM", 0)
    found = bound(problem, actions, kind="discounted", discount=0.9, method="dual", tolerance=1e-3)
    assert right.lower <= found.value * (1 + 1e-9)
    assert found.value == pytest.approx(right.value, rel=5e-3)
    assert found.lower <= right.value * (1 + 1e-9)


def test_passes_move_by_move_are_those_by_products():
    """Totals and use of the same policies, with discount, end values and prices that differ from round to round."""
    problem, actions = cohort(40, 0.9)
    transition, reward = problem.dynamics.tabular()
    coupling = polyhedron(actions, 2).coupling(40, 2)
    rng = np.random.default_rng(0)
    terminal = rng.random(reward.shape[:2])
    start = np.full(reward.shape[:2], 0.25)
    arms = priced_arms.Finite(transition, reward, coupling.cost, start, 0.9, 5, terminal)
    price = rng.random(arms.n_prices)
    fast = arms(price)
    arms.by_moves = False
    slow = arms(price)
    assert fast[0] == pytest.approx(slow[0], rel=1e-12)
    np.testing.assert_allclose(fast[1], slow[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("heat", [0.0, 0.05])
@pytest.mark.parametrize("n_actions", [2, 3])
def test_arms_that_rest_round_by_round_keep_every_limit_and_earn_what_a_walk_of_their_chances_does(heat, n_actions):
    """Against a walk over the rounds written out by products, every chance by its formula and rests by hand."""
    rng = np.random.default_rng(n_actions)
    n_arms, n_states, rounds, discount = 12, 3, 4, 0.9
    transition = rng.dirichlet(np.ones(n_states), (n_arms, n_actions, n_states))
    reward, terminal = rng.random((n_arms, n_states, n_actions)), rng.random((n_arms, n_states))
    start = rng.dirichlet(np.ones(n_states), n_arms)
    member = np.arange(n_arms) % 3
    cost = np.zeros((4, n_arms, 1, n_actions))
    cost[0, :, 0, 1:] = 1.0
    for g in range(3):
        cost[1 + g, member == g, 0, 1:] = 1.0
    limit = np.tile([3.0, 1.0, 1.5, 2.0], (rounds, 1))
    arms = priced_arms.Finite(transition, reward, Costs.of(cost), start, discount, rounds, terminal)
    price = 0.2 * rng.random(arms.n_prices)
    rests = smoothing.Rests(sparse.csr_array(cost[:, :, 0].reshape(4, -1)), n_actions)
    earned, use = arms.within(price, heat, limit, rests, fits=0)
    assert (use <= limit + 1e-6).all()

    paid = np.einsum("tk,kna->tna", price.reshape(rounds, 4), cost[:, :, 0])
    chance, value = [], terminal
    for t in range(rounds - 1, -1, -1):
        q = reward + discount * np.einsum("nasz,nz->nsa", transition, value) - paid[t][:, None]
        best = q.max(axis=2, keepdims=True)
        drawn = np.exp((q - best) / heat) if heat else (q == best) * 1.0
        chance.insert(0, drawn / drawn.sum(axis=2, keepdims=True))
        value = best[..., 0] + (heat * np.log(drawn.sum(axis=2)) if heat else 0.0)
    assert arms._by_moves(price, heat).total == pytest.approx(float((start * value).sum()))
    mass, total = start, 0.0
    for t in range(rounds):
        flow = mass[:, :, None] * chance[t]
        acts = flow[..., 1:].sum(axis=(1, 2))
        keep = np.array([min(1.0, limit[t, 1 + g] / acts[member == g].sum()) for g in member])
        keep *= min(1.0, limit[t, 0] / (keep * acts).sum())
        flow[..., 1:] *= keep[:, None, None]
        flow[..., 0] = mass - flow[..., 1:].sum(axis=2)
        total += discount**t * float((flow * reward).sum())
        np.testing.assert_allclose(use[t, 0], (keep * acts).sum(), rtol=1e-5)
        mass = np.einsum("nsa,nasz->nz", flow, transition)
    total += discount**rounds * float((mass * terminal).sum())
    assert earned == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize(("groups", "discount"), [(2, 1.0), (12, 1.0), (2, 0.4)])
def test_rounds_fitted_to_their_limits_keep_them_and_lose_little(groups, discount):
    """At prices a little off: what is drawn stays within every limit and below the program's optimum, and near it."""
    rng = np.random.default_rng(groups)
    n_arms, n_states, rounds = 240, 3, 5
    transition = rng.dirichlet(np.ones(n_states), (n_arms, 2, n_states))
    reward, start = rng.random((n_arms, n_states, 2)), rng.dirichlet(np.ones(n_states), n_arms)
    member = np.arange(n_arms) % groups
    cost = np.zeros((1 + groups, n_arms, 1, 2))
    cost[0, :, 0, 1] = rng.integers(1, 4, n_arms)
    cost[1:, :, 0, 1] = member == np.arange(groups)[:, None]
    limit = np.tile([60.0, *[36.0 / groups] * groups], (rounds, 1))
    coupling = Coupling(cost, limit[0])
    right = dual_finite(transition, reward, coupling, start, horizon=rounds, discount=discount, tolerance=1e-7)
    arms = priced_arms.Finite(transition, reward, coupling.cost, start, discount, rounds)
    rests = smoothing.Rests(coupling.cost.matrix, 2)
    heat, off = 0.002, (right.prices * rng.uniform(0.8, 1.2, right.prices.shape)).ravel()
    plain, _ = arms.within(off, heat, limit, rests, fits=0)
    fitted, use = arms.within(off, heat, limit, rests)
    assert (use <= limit * (1 + 1e-6)).all()
    assert fitted <= right.value * (1 + 1e-6)
    # What is lost against resting, where prices that are off lose nearly all of it.
    idle = arms._by_moves(np.full(arms.n_prices, 1e3)).total
    assert right.value - fitted <= 0.03 * (right.value - idle)
    assert right.value - fitted <= 0.5 * (right.value - plain)
