"""What a budget is worth to a group: V_g(b), concave and non-decreasing, from arms under one charge for acting.

    V_g(b) = min over charges >= 0 of  sum_i V_i(s_i; charge) + charge b (1 + discount + ... )

bounds the group's value with at most b of its arms acted on a round. :class:`ChargeTable` solves all arms, states and
rounds once on a grid of charges, so that curves of any state are sums and minima; :func:`group_curve` finds the exact
curve of one start with all its breakpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.planning.coupling import Coupling, merge_identical
from rmab_opt.settings.equity.arms import Arms
from rmab_opt.settings.equity.cohort import Cohort
from rmab_opt.settings.equity.groups import Groups
from rmab_opt.settings.equity.resources import Resources

__all__ = ["ChargeTable", "GroupCurve", "group_curve", "rounds_worth", "values_at_charges"]

RESPONSE = 1e-6
"""Indices up to this, in units of the reward's span, count as no response: single precision resolves no less."""


def rounds_worth(rounds: int, discount: float) -> float:
    """1 + discount + ... over the rounds."""
    return float((discount ** np.arange(rounds)).sum())


def values_at_charges(
    transition: np.ndarray,
    reward: np.ndarray,
    charges: np.ndarray,
    rounds: int,
    discount: float,
    *,
    dtype: type = np.float64,
    each: Callable[[slice, int, np.ndarray], None] | None = None,
) -> np.ndarray:
    """Values of two-action arms under each charge for acting, for every number of rounds left.

    Parameters
    ----------
    transition, reward
        Shapes (M, 2, S, S) and (M, S, 2).
    charges
        Shape (L,), the same for all arms.
    each
        Called with arms (a slice), rounds left (at least 1) and their gain of acting over resting, charge paid,
        (m, S, L); the array is overwritten afterwards.

    Returns
    -------
    numpy.ndarray
        V of shape (rounds + 1, M, S, L), first axis the rounds left.
    """
    n_arms, _, n_states, _ = transition.shape
    charges = np.asarray(charges, dtype=dtype)
    kernel: np.ndarray = np.asarray(transition, dtype=dtype).reshape(n_arms, 2 * n_states, n_states) * dtype(discount)
    rest_pay: np.ndarray = np.ascontiguousarray(reward[:, :, 0, None], dtype=dtype)
    act_pay: np.ndarray = np.ascontiguousarray(reward[:, :, 1, None], dtype=dtype)
    extra = act_pay - rest_pay - charges
    value: np.ndarray = np.empty((rounds + 1, n_arms, n_states, charges.size), dtype=dtype)
    value[0] = 0.0
    # Arm by chunk, so that values stay in cache over the rounds.
    chunk = max(1, (1 << 20) // (np.dtype(dtype).itemsize * 2 * n_states * max(charges.size, n_states)))
    ahead: np.ndarray = np.empty((min(chunk, n_arms), 2 * n_states, charges.size), dtype=dtype)
    for begin in range(0, n_arms, chunk):
        part = slice(begin, min(begin + chunk, n_arms))
        size = part.stop - begin
        for left in range(1, rounds + 1):
            both = np.matmul(kernel[part], value[left - 1, part], out=ahead[:size])
            rest, gain = both[:, :n_states], both[:, n_states:]
            gain -= rest
            gain += extra[part]
            best = np.maximum(gain, 0, out=value[left, part])
            best += rest
            best += rest_pay[part]
            if each is not None:
                each(part, left, gain)
    return value


class ChargeTable:
    """Values of all arms on a grid of charges, and their time-dependent indices, from one sweep.

    Parameters
    ----------
    transition, reward
        P[n, a, s, s'] (N, 2, S, S), r[n, s, a] (N, S, 2).
    horizon, discount
        Rounds and discount in (0, 1].
    charges
        Points of the grid; between two of them a curve is overestimated by at most a chord's height.

    Raises
    ------
    CapabilityError
        When arms have more than two actions.
    """

    def __init__(
        self, transition: np.ndarray, reward: np.ndarray, *, horizon: int, discount: float, charges: int = 96
    ) -> None:
        if transition.shape[1] != 2:
            raise CapabilityError(
                "one charge for acting with several actions",
                transition,
                ("use two actions", "use policy 'fair_replan'"),
            )
        start = np.zeros((transition.shape[0], transition.shape[2]))
        merged = merge_identical(transition, reward, np.zeros((1, 1, 1, 2)), start)
        self.kind = merged.member
        kernel, pay = transition[merged.representative], reward[merged.representative]
        self.horizon, self.discount = horizon, discount
        span = max(float(np.ptp(reward)), 1e-12)
        # A rough sweep finds the largest charge anybody would pay.
        rough = np.concatenate([[0.0], np.geomspace(0.02, 1.1 * horizon, 20) * span])
        paid = np.zeros(len(rough), dtype=bool)

        def pays(_: slice, __: int, gain: np.ndarray) -> None:
            np.logical_or(paid, (gain > 0).any(axis=(0, 1)), out=paid)

        values_at_charges(kernel, pay, rough, horizon, discount, dtype=np.float32, each=pays)
        top = rough[min(int(paid.sum()), len(rough) - 1)] if paid.any() else span
        self.charges = np.linspace(0.0, float(top), charges)
        self.index = np.empty((horizon, *pay.shape[:2]))
        """Charge at which acting and resting tie, (H, M, S); gains at charge 0 where they are not positive."""

        def ties(part: slice, left: int, gain: np.ndarray) -> None:
            self.index[left - 1, part] = self._roots(gain, RESPONSE * span)

        self.values = values_at_charges(kernel, pay, self.charges, horizon, discount, dtype=np.float32, each=ties)

    def _roots(self, gain: np.ndarray, response: float) -> np.ndarray:
        """Charge at which each gain (..., L) changes sign; the gain at charge 0 where it is not positive."""
        last = gain.shape[-1] - 1
        below = np.clip(np.count_nonzero(gain > 0, axis=-1), 1, last)[..., None]
        upper = np.take_along_axis(gain, below, axis=-1)[..., 0].astype(float)
        lower = np.take_along_axis(gain, below - 1, axis=-1)[..., 0].astype(float)
        root = self.charges[below[..., 0] - 1] + self.charges[1] * lower / np.maximum(lower - upper, 1e-30)
        free = gain[..., 0].astype(float)
        return np.where(free > response, root, np.minimum(free, 0.0) * (free < -response))

    def indices(self, state: np.ndarray, left: int) -> np.ndarray:
        """Index of every arm now, (N,), with ``left`` rounds to go; 0 for no response, negative where acting harms."""
        return self.index[left - 1, self.kind, state]

    def curves(self, state: np.ndarray, left: int, groups: Groups, most: int) -> np.ndarray:
        """Group totals V_g(b) from now on, (K, most + 1), b = 0 .. most arms a round."""
        own = self.values[left][self.kind, state]
        total = groups.member.astype(np.float32) @ own
        price = rounds_worth(left, self.discount) * self.charges
        return (total[:, :, None].astype(float) + price[:, None] * np.arange(most + 1.0)).min(axis=1)


@dataclass(frozen=True, eq=False)
class GroupCurve:
    """An exact curve V_g(b) for budgets that may be fractions: linear between breakpoints.

    ``budgets`` and ``values`` (J,) are its breakpoints, ``slopes`` (J - 1,) the worth of one unit a round between
    them, not increasing; beyond the last breakpoint more budget is worth nothing.
    """

    budgets: np.ndarray
    values: np.ndarray

    @property
    def slopes(self) -> np.ndarray:
        """Worth of one more unit a round on each piece, total reward of the group."""
        return np.diff(self.values) / np.diff(self.budgets)

    def __call__(self, budget: np.ndarray | float) -> np.ndarray:
        """Value at budgets of at least 0."""
        if (np.asarray(budget) < 0).any():
            raise ModelError(f"budget is {budget}", "give at least 0.")
        return np.interp(budget, self.budgets, self.values)


def group_curve(
    transition: np.ndarray,
    reward: np.ndarray,
    start: np.ndarray,
    *,
    horizon: int,
    discount: float = 1.0,
    tolerance: float = 1e-9,
) -> GroupCurve:
    """The group's value by budget, exact: charges between two known policies find the next, until none is left.

    Parameters
    ----------
    transition, reward, start
        Arms of one group: (n, A, S, S), (n, S, A), and states (n,) or probabilities (n, S).
    tolerance
        Corners that lift the curve by less, relative to its height, are left out.

    References
    ----------
    Eisner, Severance (1976), for the breakpoints of a parametric minimum.
    """
    start = np.eye(transition.shape[2])[start] if np.ndim(start) == 1 else np.asarray(start)
    groups = Groups(("all",), np.ones((1, len(transition)), dtype=bool))
    rows = Coupling.budgets([1.0] * (reward.shape[2] - 1))
    cohort = Cohort(transition, reward, start, groups, rows, horizon, discount)
    shape = (len(transition), reward.shape[2], reward.shape[1])
    arms = Arms(cohort, np.zeros(len(transition), dtype=np.int64), Resources.of(rows, horizon, shape))
    weight = rounds_worth(horizon, discount)

    def point(charge: float) -> tuple[float, float]:
        found = arms.evaluate(np.ones(arms.n_cells), np.full((horizon, reward.shape[2] - 1), charge))
        return float(arms.round @ found.acted.sum(axis=1)) / weight, float(found.values.sum())

    span = max(float(np.ptp(reward)), 1e-12)
    ends = [point(span * (horizon + 1.0)), point(0.0)]
    done, open_ = [ends[0]], [ends[1]]
    height = tolerance * max(1.0, abs(ends[1][1]))
    while open_:
        (left, low), (right, high) = done[-1], open_[-1]
        if right - left <= 1e-9 or high - low <= height:
            if high > low + height or right > left + 1e-9:
                done.append(open_.pop())
            else:
                open_.pop()
            continue
        slope = (high - low) / (right - left)
        budget, value = point(slope / weight)
        if value - slope * budget > low - slope * left + height and left + 1e-9 < budget < right - 1e-9:
            open_.append((budget, value))
        else:
            done.append(open_.pop())
    corners = np.array(done)
    # A flat end is dropped: the curve stays at its last value.
    keep = np.concatenate([[True], np.diff(corners[:, 1]) > height]) if len(corners) > 1 else np.array([True])
    return GroupCurve(corners[keep, 0], corners[keep, 1])
