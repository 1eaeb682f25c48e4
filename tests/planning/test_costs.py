"""Costs by row, kept sparse: what they say against the table that they stand for, and what relabelling changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from rmab_opt.errors import ModelError
from rmab_opt.planning.bound import arm_prices_of, bound_arrays
from rmab_opt.planning.costs import DAMPED, Costs
from rmab_opt.planning.coupling import Coupling, merge_identical
from rmab_opt.planning.lagrangian import evaluate_prices


@st.composite
def tables(draw, by_arm=None):
    """(table (K, N or 1, S or 1, A) with many zeros and both signs, arms, states)."""
    seed = draw(st.integers(0, 10**6))
    n_rows, n_arms, n_states, n_actions = (draw(st.integers(1, most)) for most in (5, 5, 3, 3))
    rng = np.random.default_rng(seed)
    each = draw(st.booleans()) if by_arm is None else by_arm
    shape = (n_rows, n_arms if each else 1, n_states if draw(st.booleans()) else 1, n_actions)
    return rng.integers(-3, 4, shape) * (rng.random(shape) < 0.5) * 0.5, n_arms, n_states


@given(tables(), st.integers(0, 10**6))
def test_what_is_paid_and_used_is_that_of_the_table(made, seed):
    """Sums written out over the whole table, for all arms, for some of them and for a run of them."""
    table, n_arms, n_states = made
    rng, costs = np.random.default_rng(seed), Costs.of(table)
    whole = np.broadcast_to(table, (len(table), n_arms, n_states, table.shape[3]))
    price, acted = rng.normal(size=(2, len(table))), rng.random((2, n_arms, n_states, table.shape[3]))
    paid = np.einsum("tk,knsa->tnsa", price, whole)
    np.testing.assert_allclose(np.broadcast_to(costs.paid(price), paid.shape), paid, atol=1e-12)
    np.testing.assert_allclose(np.broadcast_to(costs.paid(price[0]), paid[0].shape), paid[0], atol=1e-12)
    np.testing.assert_allclose(costs.use(acted), np.einsum("knsa,tnsa->tk", whole, acted), atol=1e-12)
    np.testing.assert_allclose(costs.use(acted[0]), np.einsum("knsa,nsa->k", whole, acted[0]), atol=1e-12)
    if not costs.by_state:
        np.testing.assert_allclose(costs.use(acted.sum(axis=2, keepdims=True)), costs.use(acted), atol=1e-12)
    begin = int(rng.integers(n_arms))
    part, some = slice(begin, n_arms), rng.permutation(n_arms)[: begin + 1]
    of_part = np.broadcast_to(costs.paid(price, part), paid[:, part].shape)
    np.testing.assert_allclose(of_part, paid[:, part], atol=1e-12)
    want = np.einsum("knsa,tnsa->tk", whole[:, part], acted[:, part])
    np.testing.assert_allclose(costs.use(acted[:, part], part), want, atol=1e-12)
    for arms in (part, some):
        mine = costs.of_arms(arms).over(len(whole[0][arms]), n_states).toarray()
        np.testing.assert_array_equal(mine, whole[:, arms].reshape(len(table), -1))


@given(tables())
def test_what_is_said_of_a_table_is_read_off_it(made):
    table, n_arms, n_states = made
    costs = Costs.of(table)
    np.testing.assert_array_equal(costs.dense(), table)
    np.testing.assert_array_equal(costs.largest, np.abs(table).max(axis=(1, 2, 3)))
    least = [np.abs(row[row != 0]).min() if row.any() else 1.0 for row in table]
    np.testing.assert_array_equal(costs.smallest, least)
    np.testing.assert_array_equal(costs.gives, (table < 0).any(axis=(1, 2, 3)))
    assert costs.passive_free == (not table[..., 0].any())
    assert costs.alike == bool((table == table[:, :1]).all())
    whole = np.broadcast_to(table, (len(table), n_arms, *table.shape[2:]))
    np.testing.assert_array_equal(costs.for_arms(n_arms).toarray(), whole.reshape(len(table), -1))
    full = np.broadcast_to(table, (len(table), n_arms, n_states, table.shape[3]))
    np.testing.assert_array_equal(costs.over(n_arms, n_states).toarray(), full.reshape(len(table), -1))
    both = costs.beside(Costs.of(np.ones((2, n_arms, 1, table.shape[3]))))
    assert both.shape == (len(table) + 2, n_arms, table.shape[2], table.shape[3])
    np.testing.assert_array_equal(both.dense()[:-2], whole)
    assert (both.dense()[-2:] == 1.0).all()


def test_rows_over_columns_are_one_for_all_arms_where_they_take_alike():
    """A budget over all columns is held once; a row of one village is not, and columns of one arm's action add up."""
    arm, action = np.array([0, 1, 2, 0, 1, 2]), np.array([1, 1, 1, 2, 2, 2])
    budget = sparse.csr_array(np.array([[1.0, 1.0, 1.0, 2.0, 2.0, 2.0]]))
    assert Costs.of_columns(budget, arm, action, 3, 3).dense().tolist() == [[[[0.0, 1.0, 2.0]]]]
    village = sparse.csr_array(np.array([[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]]))
    assert Costs.of_columns(village, arm, action, 3, 3).shape == (1, 3, 1, 3)
    twice = Costs.of_columns(budget, arm, np.ones(6, dtype=np.int64), 3, 2)
    assert twice.dense().tolist() == [[[[0.0, 3.0]]]]


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1)])
def test_a_table_without_four_axes_is_refused(shape):
    with pytest.raises(ModelError, match="shape"):
        Costs.of(np.ones(shape))
    with pytest.raises(ModelError, match="cost has shape"):
        Coupling(np.ones(shape), np.ones(2))


@given(tables(by_arm=True), st.integers(0, 10**6))
def test_arms_are_merged_where_their_table_is_the_same(made, seed):
    """Arms that differ in their costs alone: types are those of the table's own columns, entry by entry."""
    table, n_arms, n_states = made
    n_actions = table.shape[3]
    transition = np.tile(np.eye(n_states), (n_arms, n_actions, 1, 1))
    reward, start = np.zeros((n_arms, n_states, n_actions)), np.full((n_arms, n_states), 1.0 / n_states)
    found = merge_identical(transition, reward, table, start, seed=seed)
    own = [table[:, n].tobytes() if table.shape[1] > 1 else b"" for n in range(n_arms)]
    for n in range(n_arms):
        for m in range(n_arms):
            assert (found.member[n] == found.member[m]) == (own[n] == own[m])
    assert [own[n] for n in found.representative[found.member]] == own


def test_arms_whose_costs_differ_by_a_hair_are_not_merged():
    """Their random projections are too near to be told apart; the entries themselves decide."""
    cost = np.zeros((1, 3, 1, 2))
    cost[0, :, 0, 1] = 1.0, 1.0 + 1e-13, 1.0
    found = merge_identical(np.ones((3, 2, 1, 1)), np.zeros((3, 1, 2)), cost, np.ones((3, 1)))
    assert found.member[0] == found.member[2]
    assert found.member[0] != found.member[1]


def instance(seed, n_arms=9, n_states=3, n_actions=3, villages=3):
    """Arms in villages: a budget over all and a row a village, as a table."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(n_states), (n_arms, n_actions, n_states))
    reward, start = rng.random((n_arms, n_states, n_actions)), rng.dirichlet(np.ones(n_states), n_arms)
    village = rng.integers(0, villages, n_arms)
    cost = np.zeros((1 + villages, n_arms, 1, n_actions))
    cost[0, :, 0, 1:] = rng.integers(1, 4, (n_arms, n_actions - 1))
    for g in range(villages):
        cost[1 + g, village == g, 0, 1:] = 1.0
    limit = np.array([4.0, *rng.integers(1, 3, villages)])
    return transition, reward, start, cost, limit, village


def value_by_hand(transition, reward, start, table, limit, price, discount):
    """g at prices (T, K), every arm by backward induction over the whole table."""
    value = np.zeros(start.shape)
    for t in range(len(price) - 1, -1, -1):
        paid = np.einsum("k,knsa->nsa", price[t], np.broadcast_to(table, (len(table), *reward.shape)))
        value = (reward - paid + discount * np.einsum("nasz,nz->nsa", transition, value)).max(axis=2)
    weight = discount ** np.arange(len(price))
    return float((start * value).sum() + weight @ (price @ limit))


@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([0.8, 1.0]))
def test_the_bound_at_prices_is_that_of_the_table(seed, by_state, discount):
    """By products and move by move, costs with and without states: backward induction over the table written out."""
    transition, reward, start, cost, limit, _ = instance(seed)
    rng = np.random.default_rng(seed)
    if by_state:
        cost = cost * rng.integers(0, 3, (1, 1, reward.shape[1], 1))
    price = rng.random((4, len(limit)))
    found, use = evaluate_prices(transition, reward, Coupling(cost, limit), start, price, discount=discount, horizon=4)
    assert found == pytest.approx(value_by_hand(transition, reward, start, cost, limit, price, discount), rel=1e-9)
    assert use.shape == (4, len(limit))
    # A subgradient: the slope at these prices never overshoots the value at others.
    other = rng.random((4, len(limit)))
    slope = (discount ** np.arange(4))[:, None] * (limit - use)
    there = value_by_hand(transition, reward, start, cost, limit, other, discount)
    assert there >= found + float((slope * (other - price)).sum()) - 1e-9 * abs(found)


@pytest.mark.parametrize("by_state", [False, True])
def test_endless_runs_under_many_rows_pay_by_cell(by_state):
    """More rows than an arm has cells: value and use against the linear system of every rule of each arm."""
    transition, reward, start, cost, limit, _ = instance(3, n_arms=4, n_states=2, n_actions=2, villages=6)
    if by_state:
        cost = cost * np.array([1.0, 2.0])[None, None, :, None]
    price, discount = np.random.default_rng(1).random(len(limit)) * 0.3, 0.9
    total, used = 0.0, np.zeros(len(limit))
    table = np.broadcast_to(cost, (len(cost), *reward.shape))
    state = np.arange(2)
    for n in range(4):
        best = (-np.inf, None)
        for rule in np.ndindex(2, 2):
            act = np.array(rule)
            visits = np.linalg.solve((np.eye(2) - discount * transition[n, act, state]).T, start[n])
            spent = table[:, n, state, act] @ visits
            best = max(best, (float(reward[n, state, act] @ visits - price @ spent), spent.tolist()))
        total, used = total + best[0], used + np.array(best[1])
    found, use = evaluate_prices(transition, reward, Coupling(cost, limit), start, price, discount=discount)
    assert found == pytest.approx(total + float(limit @ price) / (1 - discount), rel=1e-9)
    np.testing.assert_allclose(use, used, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["time_indexed", "discounted"])
def test_names_of_arms_and_villages_do_not_matter(kind):
    """Arms in another order and rows in another order: the same bound, and prices that went along."""
    transition, reward, start, cost, limit, _ = instance(5)
    rng = np.random.default_rng(0)
    arms, rows = rng.permutation(len(start)), rng.permutation(len(limit))
    given = {"horizon": 5, "discount": 0.9, "kind": kind, "method": "dual", "tolerance": 1e-9}
    one = bound_arrays(transition, reward, start, Coupling(cost, limit), **given)
    other = bound_arrays(
        transition[arms], reward[arms], start[arms], Coupling(cost[rows][:, arms], limit[rows]), **given
    )
    assert other.value == pytest.approx(one.value, rel=1e-7)
    moved = arm_prices_of(Coupling(cost[rows][:, arms], limit[rows]), one.prices[..., rows], len(start))
    np.testing.assert_allclose(moved, one.arm_prices[..., arms, :], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("by_arm", [True, False])
def test_steps_of_few_rows_know_one_another_and_of_many_they_never_overshoot(monkeypatch, by_arm):
    """Few rows: the damped linear system over the table written out. Many: each row over all its arms answer to."""
    rng = np.random.default_rng(0)
    table = rng.integers(1, 4, (3, 5 if by_arm else 1, 1, 3)).astype(float)
    table[..., 0] = 0.0
    costs, varied = Costs.of(table), rng.random((5, 1, 3))
    active, over, far = np.array([True, False, True]), np.array([0.4, 0.3, -0.2]), np.full(3, 1e3)
    whole = np.broadcast_to(table, (3, 5, 1, 3))
    steep = np.einsum("knsa,lnsa,nsa->kl", whole, whole, varied)[np.ix_([0, 2], [0, 2])]
    damped = steep + DAMPED * np.diag(np.diag(steep))
    step = costs.newton(active, over, varied, far)
    np.testing.assert_allclose(step[[0, 2]], np.linalg.solve(damped, over[[0, 2]]), rtol=1e-9)
    assert step[1] == 0.0
    short = costs.newton(active, over, varied, np.full(3, 1e-3))
    np.testing.assert_allclose(short, step * 1e-3 / np.abs(step).max(), rtol=1e-9)
    monkeypatch.setattr("rmab_opt.planning.costs.TOGETHER", 1)
    answers = np.einsum("knsa,lnsa,nsa->kl", whole, whole, varied)[:, [0, 2]].sum(axis=1)
    np.testing.assert_allclose(
        costs.newton(active, over, varied, far), np.where(active, over / answers, 0.0), rtol=1e-9
    )


def test_a_row_that_nobody_near_the_margin_answers_to_goes_as_far_as_it_may():
    costs = Costs.of(np.array([[[[0.0, 1.0]]], [[[0.0, 2.0]]]]))
    over, none = np.array([0.5, -0.5]), np.zeros((4, 1, 2))
    np.testing.assert_array_equal(costs.newton(over != 0, over, none, np.array([3.0, 2.0])), [3.0, -2.0])
    np.testing.assert_array_equal(costs.newton(over > 9, over, none, np.ones(2)), [0.0, 0.0])
