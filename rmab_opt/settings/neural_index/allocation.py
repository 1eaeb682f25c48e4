"""Soft allocation of actions to arms under exact budgets, with exact gradients: the layer between index and loss.

    plan(I) = argmax  sum_na I[n, a] G[n, a] - epsilon sum_na G[n, a] (log G[n, a] - 1)
              over    G >= 0,  sum_a G[n, a] = 1,  sum_na cost[k, n, a] G[n, a] <= limit[k]  (or = limit[k])

has the solution G_n = softmax((I_n - sum_k p_k cost_kn) / epsilon), where the prices p minimise the convex semi-dual

    F(p) = epsilon sum_n logsumexp((I_n - p . cost_n) / epsilon) + p . limit,     p_k >= 0 for upper limits.

There are as many prices as resources, so Newton's method takes a handful of tiny systems, and the gradient follows from
one more of them (implicit differentiation) instead of an unrolled iteration. In the published range of ``epsilon`` an
unrolled Sinkhorn iteration of 100 steps misses both budgets and gradient; it is kept here as a cross-check.

References
----------
Pandey, Wang, Garcia (2025), with the unrolled layer replaced; Cuturi (2013) for the iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rmab_opt.errors import InfeasibleError, ModelError, SolverError
from rmab_opt.planning import Coupling

__all__ = ["Allocation", "sinkhorn"]

COLUMN_TOLERANCE = 1e-12
"""Largest difference between a resource's use and its limit at which the prices count as found."""

ROUNDING = 1e-14
"""The same per arm: a sum over 100,000 arms carries this much rounding."""

MOST_STEPS = 200
"""Newton steps of one problem; 4 to 10 are usual."""

SMOOTH = 0.03
"""Epsilon from which Newton starts at zero prices, as a share of the indices' range."""

FACTOR = 3.0
"""How much smaller the next epsilon is on the way to a small one."""

RIDGE = 1e-14
"""Added to Newton's matrix, relative: resources that repeat one another leave their prices undetermined, not the
plan."""

AT_REST = 1e-9
"""A price below this share of epsilon rests at zero when its limit is not reached."""


def _logits(index: Tensor, cost: Tensor, price: Tensor, epsilon: float) -> Tensor:
    """(I - p . cost) / epsilon, shape (B, N, A)."""
    return (index - torch.tensordot(price, cost, dims=([1], [0]))) / epsilon


def _use(plan: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
    """Use of every resource by arm, (B, N, K), and in total, (B, K)."""
    by_arm = plan @ cost[:, 0].T if cost.shape[1] == 1 else torch.einsum("kna,bna->bnk", cost, plan)
    return by_arm, by_arm.sum(dim=1)


def _curvature(plan: Tensor, cost: Tensor, by_arm: Tensor) -> Tensor:
    """sum_n C_n (diag(G_n) - G_n G_n') C_n', shape (B, K, K)."""
    if cost.shape[1] == 1:
        flat = cost[:, 0]
        first = (flat * plan.sum(dim=1)[:, None, :]) @ flat.T
    else:
        first = torch.einsum("kna,bna,lna->bkl", cost, plan, cost)
    return first - by_arm.transpose(1, 2) @ by_arm


def _solve(matrix: Tensor, right: Tensor, free: Tensor) -> Tensor:
    """Solution on the free rows, zero elsewhere, (B, K)."""
    both = free[:, :, None] & free[:, None, :]
    kept = torch.where(both, matrix, torch.zeros_like(matrix))
    size = kept.diagonal(dim1=1, dim2=2).amax(dim=1, keepdim=True)
    diagonal = torch.where(free, RIDGE * size + 1e-200, torch.ones_like(right))
    system = kept + torch.diag_embed(diagonal)
    return torch.linalg.solve(system, torch.where(free, right, torch.zeros_like(right))[..., None])[..., 0]


class _State:
    """Log-plan, dual value and use at some prices."""

    def __init__(self, index: Tensor, cost: Tensor, limit: Tensor, price: Tensor, epsilon: float) -> None:
        logits = _logits(index, cost, price, epsilon)
        total = torch.logsumexp(logits, dim=2, keepdim=True)
        self.log_plan = logits - total
        self.plan = self.log_plan.exp()
        self.by_arm, self.use = _use(self.plan, cost)
        self.value = epsilon * total.sum(dim=(1, 2)) + (price * limit).sum(dim=1)
        self.slope = limit - self.use


def _descend(
    index: Tensor,
    cost: Tensor,
    limit: Tensor,
    equal: Tensor,
    live: Tensor,
    epsilon: float,
    price: Tensor,
    tolerance: Tensor,
    most_steps: int,
) -> tuple[Tensor, Tensor, _State, int, bool]:
    """Projected Newton on the semi-dual: (prices, rows that bind, state there, steps, whether all converged)."""
    # A step in price beyond a quarter of the indices' range cannot be trusted when nobody is near the margin.
    reach = torch.clamp(0.25 * _range(index), min=20.0 * epsilon)
    state = _State(index, cost, limit, price, epsilon)
    for step in range(most_steps + 1):
        held = ~equal & (price <= AT_REST * epsilon) & (state.slope > 0)
        free = live & ~held
        error = torch.where(free, state.slope.abs(), torch.zeros_like(price)).amax(dim=1)
        running = error > tolerance
        if step == most_steps or not bool(running.any()):
            break
        move = -epsilon * _solve(_curvature(state.plan, cost, state.by_arm), state.slope, free)
        # The whole step is shortened, not its entries: it stays a descent direction.
        share = torch.clamp(reach / move.abs().amax(dim=1).clamp(min=1e-300), max=1.0)
        move = move * (share * running)[:, None]
        length = torch.ones_like(error)
        slack = 1e-13 * (1.0 + state.value.abs())
        for _ in range(60):
            trial = price + length[:, None] * move
            trial = torch.where(equal, trial, trial.clamp(min=0.0))
            there = _State(index, cost, limit, trial, epsilon)
            wanted = state.value + 1e-4 * (state.slope * (trial - price)).sum(dim=1) + slack
            good = (there.value <= wanted) | ~running
            if bool(good.all()):
                break
            length = torch.where(good, length, 0.5 * length)
        price, state = trial, there
    return price, free, state, step, not bool(running.any())


def _range(index: Tensor) -> Tensor:
    """Largest minus smallest index that is not ruled out, (B,)."""
    finite = torch.where(torch.isfinite(index), index, torch.zeros_like(index))
    return finite.amax(dim=(1, 2)) - finite.amin(dim=(1, 2))


def _prices(
    index: Tensor, cost: Tensor, limit: Tensor, equal: Tensor, live: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, _State, int]:
    """Minimise the semi-dual: (prices (B, K), rows that bind (B, K), state there, Newton steps)."""
    tight = torch.full(limit.shape[:1], max(COLUMN_TOLERANCE, ROUNDING * index.shape[1]), dtype=limit.dtype)
    tight = tight.to(limit.device)
    rows = (index, cost, limit, equal, live)
    # Newton's region is of the size of epsilon: for a small one walk there through smoother problems, each started
    # from the last.
    price, steps, smooth = torch.zeros_like(limit), 0, SMOOTH * float(_range(index).max())
    loose = 0.02 * (1.0 + limit.abs().amax(dim=1))
    while smooth > 1.5 * epsilon:
        price, _, _, more, _ = _descend(*rows, smooth, price, loose, MOST_STEPS)
        steps, smooth = steps + more, smooth / FACTOR
    price, free, state, more, done = _descend(*rows, epsilon, price, tight, MOST_STEPS)
    if not done:
        missed = float(torch.where(free, state.slope.abs(), torch.zeros_like(price)).max())
        raise SolverError(
            f"the soft allocation did not converge: use misses its limit by {missed:.2g}",
            "raise epsilon, or scale the indices to order 1.",
        )
    return price, free, state, steps + more


class _LogPlan(torch.autograd.Function):
    """Logarithm of the plan: its gradient stays finite where the plan itself underflows."""

    @staticmethod
    def forward(
        ctx: Any, index: Tensor, limit: Tensor, cost: Tensor, equal: Tensor, live: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        price, free, state, steps = _prices(index, cost, limit, equal, live, epsilon)
        ctx.save_for_backward(state.plan, cost, free, _curvature(state.plan, cost, state.by_arm))
        ctx.epsilon = epsilon
        count = torch.tensor(steps)
        ctx.mark_non_differentiable(price, count)
        return state.log_plan, price, count

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[misc]
    def backward(ctx: Any, gradient: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
        plan, cost, free, curvature = ctx.saved_tensors
        # With g = dL/dlogG: J G' = g - G sum(g), where J = diag(G) - G G'.
        pushed = gradient - plan * gradient.sum(dim=2, keepdim=True)
        right = _use(pushed, cost)[1]
        weight = _solve(curvature, right, free)
        paid = torch.tensordot(weight, cost, dims=([1], [0])).expand_as(plan)
        pulled = plan * (paid - (plan * paid).sum(dim=2, keepdim=True))
        return (pushed - pulled) / ctx.epsilon, weight, None, None, None, None


class Allocation(nn.Module):
    """The plan of indices under resources, differentiable in the indices and in the limits.

    Parameters
    ----------
    cost
        Units of resource k that action a of arm n takes, (K, N, A), or (K, A) when it is the same for all arms.
    limit
        Units a round, (K,).
    equal
        Rows that are used in full, one for all or bool (K,). With upper limits (the default) an index below zero
        means "do not use"; with equalities a constant added to one action's indices changes nothing.
    epsilon
        Smoothing, in units of the index; 0.05 to 0.1 when the indices have spread 1.

    Raises
    ------
    ModelError
        When shapes disagree or a number is out of range.
    InfeasibleError
        When a limit is out of what the arms can use; raised where the limit is given.
    """

    cost: Tensor
    limit: Tensor
    equal: Tensor

    def __init__(
        self,
        cost: np.ndarray | Tensor,
        limit: np.ndarray | Tensor | Sequence[float],
        *,
        equal: bool | Sequence[bool] | np.ndarray = False,
        epsilon: float = 0.1,
    ) -> None:
        super().__init__()
        costs = torch.as_tensor(cost, dtype=torch.float64)
        costs = costs[:, None, :] if costs.ndim == 2 else costs
        limits = torch.as_tensor(np.asarray(limit), dtype=torch.float64)
        rows = torch.as_tensor(np.broadcast_to(np.asarray(equal, dtype=bool), (costs.shape[0],)).copy())
        if costs.ndim != 3 or limits.shape != costs.shape[:1]:
            raise ModelError(
                f"allocation: cost {tuple(costs.shape)}, limit {tuple(limits.shape)}", "give (K, N, A) and (K,)."
            )
        if not bool(torch.isfinite(costs).all()):
            raise ModelError("allocation: a cost is not finite", "leave out rows without a limit.")
        self.epsilon = _positive(epsilon)
        self.register_buffer("cost", costs)
        self.register_buffer("limit", limits)
        self.register_buffer("equal", rows)
        self.steps = 0
        """Newton steps of the last call."""

    @classmethod
    def budgets(cls, limit: Sequence[float] | np.ndarray, *, equal: bool = False, epsilon: float = 0.1) -> Allocation:
        """At most (or exactly) ``limit[a - 1]`` arms get action a = 1 .. A - 1."""
        n_rows = len(limit)
        return cls(np.eye(n_rows + 1)[1:], np.asarray(limit, dtype=np.float64), equal=equal, epsilon=epsilon)

    @classmethod
    def of_coupling(cls, coupling: Coupling, *, epsilon: float = 0.1, equal: bool = False) -> Allocation:
        """The resources of an action set; ``equal`` turns its upper limits into exact masses.

        Raises
        ------
        ModelError
            When costs depend on the state or limits on the round.
        """
        if coupling.cost.by_state or coupling.limit.ndim != 1:
            raise ModelError(
                f"allocation: cost {coupling.cost.shape}, limit {coupling.limit.shape}",
                "give costs without a state axis and one limit a resource.",
            )
        return cls(coupling.cost.dense()[:, :, 0], coupling.limit, equal=coupling.equal | equal, epsilon=epsilon)

    def forward(
        self, index: Tensor, *, epsilon: float | None = None, limit: Tensor | np.ndarray | None = None
    ) -> Tensor:
        """Share of every action, float64, shape of ``index``: (N, A) or (B, N, A).

        Parameters
        ----------
        index
            Worth of action a for arm n; only differences within an arm matter.
        epsilon, limit
            In place of the layer's own; ``limit`` of shape (K,) or (B, K).
        """
        return self.log_plan(index, epsilon=epsilon, limit=limit).exp()

    def log_plan(
        self, index: Tensor, *, epsilon: float | None = None, limit: Tensor | np.ndarray | None = None
    ) -> Tensor:
        """Logarithm of the plan; use it for losses that take one."""
        return self.solve(index, epsilon=epsilon, limit=limit)[0]

    def solve(
        self, index: Tensor, *, epsilon: float | None = None, limit: Tensor | np.ndarray | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log-plan, shape of ``index``, and the prices of the resources, (K,) or (B, K), in index units.

        Raises
        ------
        InfeasibleError
            When a limit cannot be met by these arms.
        SolverError
            When Newton's method does not converge.
        """
        if index.ndim not in (2, 3) or index.shape[-1] != self.cost.shape[2]:
            raise ModelError(
                f"allocation: index {tuple(index.shape)}", f"give (N, {self.cost.shape[2]}), with or without a batch."
            )
        batch = index[None] if index.ndim == 2 else index
        if self.cost.shape[1] not in (1, batch.shape[1]):
            raise ModelError(
                f"allocation: {batch.shape[1]} arms, costs of {self.cost.shape[1]}", "give costs of these arms."
            )
        batch = batch.to(torch.float64)
        if not bool(torch.isfinite(batch.detach()).all()):
            raise ModelError("allocation: an index is not finite", "lower the learning rate, or check the features.")
        given = self.limit if limit is None else torch.as_tensor(limit, dtype=torch.float64, device=batch.device)
        given = given.expand(batch.shape[0], self.cost.shape[0]) if given.ndim == 1 else given
        blocked, live = self._edges(given.detach(), batch.shape[1])
        if blocked is not None:
            batch = batch.masked_fill(blocked, -torch.inf)
        log_plan, price, steps = _LogPlan.apply(
            batch, given, self.cost, self.equal, live, self.epsilon if epsilon is None else _positive(epsilon)
        )
        self.steps = int(steps)
        return (log_plan[0], price[0]) if index.ndim == 2 else (log_plan, price)

    def _edges(self, limit: Tensor, n_arms: int) -> tuple[Tensor | None, Tensor]:
        """Actions that a limit at the edge of the possible rules out, (B, N or 1, A), and rows left to price (B, K).

        At the edge the price would be infinite: a budget of zero is a ban, a budget for all is an order.
        """
        repeat = n_arms if self.cost.shape[1] == 1 else 1
        least = self.cost.amin(dim=2, keepdim=True)
        most = self.cost.amax(dim=2, keepdim=True)
        low, high = least.sum(dim=(1, 2)) * repeat, most.sum(dim=(1, 2)) * repeat
        near = 1e-9 * (1.0 + limit.abs())
        if bool(((limit < low - near) | (self.equal & (limit > high + near))).any()):
            bad = int(torch.nonzero((limit < low - near) | (self.equal & (limit > high + near)))[0, 1])
            raise InfeasibleError(
                f"resource {bad}: limit {float(limit[0, bad]):g}, the arms use from {float(low[bad]):g} to "
                f"{float(high[bad]):g}",
                "change the limit.",
            )
        at_low, at_high = limit <= low + near, self.equal & (limit >= high - near)
        # Exact masses that leave nothing for the passive action rule it out.
        crowded = torch.zeros(limit.shape[0], dtype=torch.bool, device=limit.device)
        if bool(self.equal.all()) and self._is_budgets:
            crowded = limit.sum(dim=1) >= n_arms - 1e-9 * n_arms
            if bool((limit.sum(dim=1) > n_arms * (1.0 + 1e-9)).any()):
                raise InfeasibleError(f"{float(limit[0].sum()):g} actions for {n_arms} arms", "lower the budgets.")
        if not bool((at_low | at_high).any() or crowded.any()):
            return None, torch.ones_like(at_low)
        banned = (at_low[:, :, None, None] & (self.cost > least)).any(dim=1)
        banned = banned | (at_high[:, :, None, None] & (self.cost < most)).any(dim=1)
        banned[..., 0] |= crowded[:, None]
        return banned, ~(at_low | at_high)

    @property
    def _is_budgets(self) -> bool:
        """Whether the rows count one action each."""
        n_rows, width, n_actions = self.cost.shape
        return (
            width == 1
            and n_actions == n_rows + 1
            and bool((self.cost[:, 0] == torch.eye(n_actions, dtype=torch.float64, device=self.cost.device)[1:]).all())
        )


def sinkhorn(index: Tensor, limit: Tensor | Sequence[float], *, epsilon: float = 0.1, iterations: int = 100) -> Tensor:
    """The published layer: exact masses by alternating scaling in the log domain, differentiated through its steps.

    Rows are exact, columns are as good as the iterations make them; kept as the reference of :class:`Allocation`.

    Parameters
    ----------
    index
        (N, A) or (B, N, A).
    limit
        Arms with action a = 1 .. A - 1, positive, (A - 1,); their sum is below N.
    """
    masses = torch.as_tensor(limit, dtype=torch.float64, device=index.device)
    rest = index.shape[-2] - masses.sum()
    if bool((masses <= 0).any()) or float(rest) <= 0:
        raise ModelError(
            f"masses {masses.tolist()} for {index.shape[-2]} arms", "give positive masses that sum to less."
        )
    log_mass = torch.cat([rest[None], masses]).log()
    logits = index.to(torch.float64) / _positive(epsilon)
    column = torch.zeros_like(logits[..., :1, :])
    for _ in range(iterations):
        row = -torch.logsumexp(logits + column, dim=-1, keepdim=True)
        column = log_mass - torch.logsumexp(logits + row, dim=-2, keepdim=True)
    row = -torch.logsumexp(logits + column, dim=-1, keepdim=True)
    return (logits + row + column).exp()


def _positive(epsilon: float) -> float:
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise ModelError(f"epsilon is {epsilon}", "give a positive number; 0.1 suits indices of spread 1.")
    return float(epsilon)
