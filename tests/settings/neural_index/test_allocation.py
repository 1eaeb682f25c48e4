"""The soft allocation: budgets met, gradients against finite differences, against an independent convex solve."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from rmab_opt.errors import InfeasibleError, ModelError
from rmab_opt.settings.neural_index.allocation import Allocation, sinkhorn

EPSILONS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)


def indices(seed: int, *shape: int) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def differences(function, at: np.ndarray, step: float) -> np.ndarray:
    """Central differences of fourth order."""
    slope = np.zeros_like(at)
    for k in range(at.size):
        shift = np.zeros(at.size)
        shift[k] = step
        one = shift.reshape(at.shape)
        near = function(at + one) - function(at - one)
        far = function(at + 2 * one) - function(at - 2 * one)
        slope.flat[k] = (8 * near - far) / (12 * step)
    return slope


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("equal", [True, False])
def test_budgets_hold_to_1e_9(epsilon, equal):
    layer = Allocation.budgets([5, 3], equal=equal, epsilon=epsilon)
    plan = layer(indices(0, 6, 50, 3))
    assert (plan.sum(dim=2) - 1).abs().max() < 1e-12
    use = plan[:, :, 1:].sum(dim=1)
    limit = torch.tensor([5.0, 3.0], dtype=torch.float64)
    # Half of standard normal indices are positive: upper limits bind here as well.
    assert (use - limit).abs().max() < 1e-9


@pytest.mark.parametrize("epsilon", amount(EPSILONS[::3], EPSILONS))
@pytest.mark.parametrize("kind", amount(["upper", "costs"], ["equal", "upper", "loose", "costs"]))
def test_the_gradient_is_that_of_finite_differences(epsilon, kind):
    rng = np.random.default_rng(7)
    if kind == "costs":
        cost = rng.uniform(0.2, 1.5, (2, 12, 3))
        cost[:, :, 0] = 0
        layer = Allocation(cost, [3.0, 2.5], epsilon=epsilon)
    else:
        layer = Allocation.budgets(
            [2.0, 1.0] if kind != "loose" else [2.0, 11.0], equal=kind == "equal", epsilon=epsilon
        )
    index = rng.normal(size=(12, 3))
    weight = torch.tensor(rng.normal(size=(12, 3)))

    def value(at: np.ndarray) -> float:
        return float((layer(torch.tensor(at)) * weight).sum())

    variable = torch.tensor(index, requires_grad=True)
    (layer(variable) * weight).sum().backward()
    wanted = differences(value, index, 2e-3 * epsilon)
    scale = np.abs(wanted).max()
    assert np.abs(variable.grad.numpy() - wanted).max() < 1e-5 * scale


def test_the_gradient_of_a_limit_is_that_of_finite_differences():
    layer = Allocation.budgets([3.0, 2.0], epsilon=0.1)
    index, weight = indices(1, 20, 3), indices(2, 20, 3)
    limit = torch.tensor([3.0, 2.0], dtype=torch.float64, requires_grad=True)
    (layer(index, limit=limit) * weight).sum().backward()
    wanted = differences(lambda at: float((layer(index, limit=at) * weight).sum()), np.array([3.0, 2.0]), 1e-3)
    assert np.abs(limit.grad.numpy() - wanted).max() < 1e-6 * np.abs(wanted).max()


def test_the_plan_solves_the_convex_program():
    """Against a general-purpose solver on the primal, upper limits one of which is loose."""
    epsilon, index = 0.2, indices(3, 8, 3).numpy()
    limit = np.array([1.0, 6.0])

    def objective(flat):
        plan = flat.reshape(8, 3)
        return -(index * plan).sum() + epsilon * (plan * (np.log(plan) - 1)).sum()

    def slope(flat):
        return -index.ravel() + epsilon * np.log(flat)

    rows = [{"type": "eq", "fun": lambda x: x.reshape(8, 3).sum(axis=1) - 1}]
    rows.append({"type": "ineq", "fun": lambda x: limit - x.reshape(8, 3)[:, 1:].sum(axis=0)})
    found = minimize(
        objective, np.full(24, 1 / 3) * np.tile([2.4, 0.3, 0.3], 8), jac=slope, method="SLSQP",
        constraints=rows, bounds=[(1e-9, 1)] * 24, options={"maxiter": 500, "ftol": 1e-14},
    )  # fmt: skip
    plan = Allocation.budgets(limit, epsilon=epsilon)(torch.tensor(index)).numpy()
    assert found.success
    assert objective(plan.ravel()) == pytest.approx(found.fun, abs=1e-7)
    assert np.abs(plan.ravel() - found.x).max() < 1e-3


@pytest.mark.parametrize("epsilon", [1.0, 0.5])
def test_the_published_iteration_agrees_where_it_converges(epsilon):
    index = indices(4, 3, 30, 4)
    exact = Allocation.budgets([6, 4, 2], equal=True, epsilon=epsilon)
    one, two = index.clone().requires_grad_(), index.clone().requires_grad_()
    weight = indices(5, 3, 30, 4)
    plan, unrolled = exact(one), sinkhorn(two, [6.0, 4.0, 2.0], epsilon=epsilon, iterations=400)
    assert (plan - unrolled).abs().max() < 1e-9
    (plan * weight).sum().backward()
    (unrolled * weight).sum().backward()
    assert (one.grad - two.grad).abs().max() < 1e-8


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(2, 4), st.sampled_from([1.0, 0.1, 0.01, 0.001]))
def test_random_rows_are_respected_and_complementary(seed, n_arms, n_actions, epsilon):
    """Limits hold; a price above zero means its limit is reached; the smoothed optimum is near the linear one."""
    rng = np.random.default_rng(seed)
    cost = rng.uniform(0, 2, (2, n_arms, n_actions))
    cost[:, :, 0] = 0
    limit = rng.uniform(0, 0.8 * n_arms, 2)
    index = rng.normal(size=(n_arms, n_actions))
    layer = Allocation(cost, limit, epsilon=epsilon)
    log_plan, price = layer.solve(torch.tensor(index))
    plan = log_plan.exp().numpy()
    use = (cost * plan).sum(axis=(1, 2))
    assert (use <= limit + 1e-9).all()
    assert (price.numpy() >= 0).all()
    assert np.abs((limit - use) * price.numpy()).max() < 1e-7
    rows = np.kron(np.eye(n_arms), np.ones(n_actions))
    best = linprog(-index.ravel(), cost.reshape(2, -1), limit, rows, np.ones(n_arms), method="highs")
    value = (index * plan).sum()
    assert value <= -best.fun + 1e-7
    assert value >= -best.fun - epsilon * n_arms * np.log(n_actions) - 1e-7


def test_edges_are_bans_and_orders():
    index = indices(6, 10, 3)
    none = Allocation.budgets([0, 4], epsilon=0.1)(index)
    assert (none[:, 1] == 0).all()
    assert none[:, 2].sum() <= 4 + 1e-9
    every = Allocation.budgets([6, 4], equal=True, epsilon=0.1)(index)
    assert (every[:, 0] == 0).all()
    assert every[:, 1].sum() == pytest.approx(6, abs=1e-9)
    with pytest.raises(InfeasibleError, match="11 actions for 10 arms"):
        Allocation.budgets([6, 5], equal=True)(index)
    with pytest.raises(InfeasibleError):
        Allocation.budgets([-1.0])(index[:, :2])


def test_bad_input_is_refused():
    with pytest.raises(ModelError, match="epsilon is 0"):
        Allocation.budgets([1], epsilon=0.0)
    with pytest.raises(ModelError, match="not finite"):
        Allocation.budgets([1])(torch.tensor([[0.0, np.nan]]))
    with pytest.raises(ModelError, match="index"):
        Allocation.budgets([1])(torch.zeros(4, 3))


def test_epsilon_and_budgets_change_at_run_time_and_batches_are_independent():
    layer, index = Allocation.budgets([5, 3], epsilon=0.1), indices(8, 4, 50, 3)
    limits = torch.tensor([[5.0, 3.0], [1.0, 1.0], [0.0, 2.0], [20.0, 9.0]], dtype=torch.float64)
    together = layer(index, limit=limits, epsilon=0.05)
    for row in range(4):
        alone = Allocation.budgets(limits[row].numpy(), epsilon=0.05)(index[row])
        assert (together[row] - alone).abs().max() < 1e-9


def test_a_constant_on_one_action_changes_nothing_under_exact_masses_only():
    index = indices(9, 30, 3)
    moved = index + torch.tensor([0.0, 7.0, -3.0])
    exact, upper = Allocation.budgets([5, 3], equal=True), Allocation.budgets([5, 3])
    assert (exact(index) - exact(moved)).abs().max() < 1e-9
    assert float(upper(moved)[:, 2].sum()) < 1.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_the_layer_agrees_on_a_gpu():
    index = indices(10, 8, 200, 3)
    layer = Allocation.budgets([20, 10])
    here = layer(index)
    assert (layer.cuda()(index.cuda()).cpu() - here).abs().max() < 1e-9
