"""What a budget is worth to a group: V_g(b), concave and non-decreasing, from arms under one charge for acting.

    V_g(b) = min over charges >= 0 of  sum_i V_i(s_i; charge) + charge b (1 + discount + ... )

bounds the group's value with at most b of its arms acted on a round. :class:`ChargeTable` solves all arms, states and
rounds once on a grid of charges, so that curves of any state are sums and minima, known from above and, as the sum is
convex in the charge, from below; :class:`Curves` makes those values exact on which something hangs.
:func:`group_curve` finds the exact curve of one start with all its breakpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.overdue import checkpoint
from rmab_opt.planning.coupling import Coupling, merge_identical
from rmab_opt.settings.equity.arms import Arms
from rmab_opt.settings.equity.cohort import Cohort
from rmab_opt.settings.equity.groups import Groups
from rmab_opt.settings.equity.resources import Resources

__all__ = ["ChargeTable", "Curves", "GroupCurve", "group_curve", "rounds_worth", "values_at_charges"]

SINGLE = 1.2e-7
"""What rounding to single precision changes a value by at most, relative, in a round."""

EXACT = 1e-12
"""Relative distance of limits that count as one number; double precision resolves no less."""

MOST_VALUES = 50_000
"""Arms' values that a tangent takes at most: half a second over 20 rounds. In large groups one more or one less of a
budget of hundreds hangs on the rest."""

MOST_TANGENTS = 60
"""Tangents until a value's limits stay apart; three to six meet."""

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
        checkpoint()
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
        Points of the grid; between two of them :class:`Curves` know a value up to a triangle's height.

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
        self._kernel, self._pay = kernel, pay
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

    def curves(self, state: np.ndarray, left: int, groups: Groups, most: int) -> Curves:
        """Group totals V_g(b) from now on, b = 0 .. most arms a round."""
        own = self.values[left][self.kind, state]
        total = (groups.member.astype(np.float32) @ own).astype(float)
        return Curves(self, state, left, groups, total, most)

    def at(self, kind: np.ndarray, state: np.ndarray, charges: np.ndarray, left: int) -> tuple[np.ndarray, np.ndarray]:
        """Values and discounted numbers of acts, (P,) each, of arms by kind and state, each under a charge of its own.

        In double precision.
        """
        n_states = self._pay.shape[1]
        value, acts = np.empty(len(kind)), np.empty(len(kind))
        chunk = max(1, (1 << 18) // (2 * n_states * n_states))
        for begin in range(0, len(kind), chunk):
            part = slice(begin, begin + chunk)
            kernel = self._kernel[kind[part]].reshape(-1, 2 * n_states, n_states) * self.discount
            pay = self._pay[kind[part]]
            extra = pay[:, :, 1] - pay[:, :, 0] - charges[part, None]
            both = np.zeros((len(kernel), n_states, 2))
            for _ in range(left):
                ahead = kernel @ both
                rest, act = ahead[:, :n_states], ahead[:, n_states:]
                gain = act[:, :, 0] - rest[:, :, 0] + extra
                chosen = gain > 0
                both[:, :, 0] = rest[:, :, 0] + pay[:, :, 0] + np.maximum(gain, 0.0)
                both[:, :, 1] = np.where(chosen, act[:, :, 1] + 1.0, rest[:, :, 1])
            own = np.arange(len(kernel)), state[part]
            value[part], acts[part] = both[own[0], own[1], 0], both[own[0], own[1], 1]
        return value, acts


class Curves:
    """Group totals at whole budgets, each between proven limits: ``lower <= V_g(b) <= upper``, (K, J + 1).

    Parameters
    ----------
    table, state, left, groups
        Whose values; ``left`` rounds to go.
    total
        Sums of the groups' values on the table's grid, (K, L), in single precision.
    most
        Largest budget J.

    Notes
    -----
    From above: a charge of the grid is a charge. From below: a convex function lies above the lines through its grid
    points beyond them, so between two neighbours it lies above the lines from both sides.
    """

    def __init__(
        self, table: ChargeTable, state: np.ndarray, left: int, groups: Groups, total: np.ndarray, most: int
    ) -> None:
        self.table, self.state, self.left, self.groups = table, np.asarray(state), left, groups
        self._worth = rounds_worth(left, table.discount)
        budgets, charges = np.arange(most + 1.0), table.charges
        price = self._worth * charges
        at, height = _below(charges, total, groups.sizes * self._worth)
        self.upper, self._best = np.empty((len(total), most + 1)), np.empty((len(total), most + 1), dtype=np.int64)
        self.lower = np.empty((len(total), most + 1))
        self.refined = np.zeros((len(total), most + 1), dtype=bool)
        """Which values were made exact, or as exact as tangents make them."""
        error = SINGLE * (left + 1) * np.abs(total).max(axis=1)
        for g in range(len(total)):
            lines = total[g][:, None] + price[:, None] * budgets
            self._best[g] = lines.argmin(axis=0)
            self.upper[g] = lines[self._best[g], np.arange(most + 1)] + error[g]
            under = height[g][:, None] + self._worth * at[g][:, None] * budgets
            self.lower[g] = np.minimum(under.min(axis=0), self.upper[g] - error[g]) - error[g]

    @property
    def values(self) -> np.ndarray:
        """The middle of the limits, (K, J + 1)."""
        return 0.5 * (self.lower + self.upper)

    def refine(self, where: np.ndarray) -> bool:
        """Make values exact, bool (K, J + 1): tangents from both sides of the best charge meet at the next one.

        False, and nothing is done, where that takes values of more than :data:`MOST_VALUES` arms a tangent: the limits
        stay as they are.
        """
        group, budget = np.nonzero(where & ~self.refined)
        if not len(group):
            return True
        if sum(len(self._members[0][g]) for g in group.tolist()) > MOST_VALUES:
            return False
        charges = self.table.charges
        best = self._best[group, budget]
        low, high = charges[np.maximum(best - 1, 0)], charges[np.minimum(best + 1, len(charges) - 1)]
        ends = [self._totals(group, budget, charge) for charge in (low, high)]
        value = np.minimum(ends[0][0], ends[1][0])
        under = np.full(len(group), -np.inf)
        open_ = np.ones(len(group), dtype=bool)
        for _ in range(MOST_TANGENTS):
            (f0, d0), (f1, d1) = ends
            # A minimum at an end: its slope points outwards, or both ends lie on one line.
            width = high - low
            drop = d1 - d0
            flat = (d0 >= 0) | (d1 <= 0) | (drop <= 1e-12 * (1.0 + np.abs(d0))) | (width <= 0)
            step = np.where(flat, 0.0, (f0 - f1 + d1 * width) / np.where(flat, 1.0, drop))
            meet = low + np.clip(step, 0.0, width)
            under = np.where(flat, value, np.maximum(under, f0 + d0 * (meet - low)))
            open_ &= ~flat & (value - under > EXACT * (1.0 + np.abs(value)))
            if not open_.any():
                break
            here = np.flatnonzero(open_)
            f, d = self._totals(group[here], budget[here], meet[here])
            value[here] = np.minimum(value[here], f)
            falls = d < 0
            for side, mine in ((0, here[falls]), (1, here[~falls])):
                ends[side][0][mine], ends[side][1][mine] = f[falls == (side == 0)], d[falls == (side == 0)]
            low[here[falls]], high[here[~falls]] = meet[here[falls]], meet[here[~falls]]
        self.refined[group, budget] = True
        self.upper[group, budget] = value
        self.lower[group, budget] = np.where(
            value - under <= 2.0 * EXACT * (1.0 + np.abs(value)), value, np.minimum(under, value)
        )
        return True

    def _totals(self, group: np.ndarray, budget: np.ndarray, charge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What a group's arms and its budget are worth at a charge, (P,), and the slope in the charge."""
        kinds, states, counts = self._members
        sizes = np.array([len(kinds[g]) for g in group])
        owner = np.repeat(np.arange(len(group)), sizes)
        kind = np.concatenate([kinds[g] for g in group])
        state, count = np.concatenate([states[g] for g in group]), np.concatenate([counts[g] for g in group])
        value, acts = self.table.at(kind, state, np.repeat(charge, sizes), self.left)
        total = np.bincount(owner, count * value, minlength=len(group))
        used = np.bincount(owner, count * acts, minlength=len(group))
        return total + self._worth * charge * budget, self._worth * budget - used

    @cached_property
    def _members(self) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """Kinds, states and numbers of the arms of each group, arms alike counted together."""
        found: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]] = ([], [], [])
        n_states = self.table.index.shape[2]
        code = self.table.kind * n_states + self.state
        for row in self.groups.member:
            alike, count = np.unique(code[row], return_counts=True)
            for part, values in zip(found, (alike // n_states, alike % n_states, count.astype(float)), strict=True):
                part.append(values)
        return found


def _below(charges: np.ndarray, total: np.ndarray, steepest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (charge, height) below convex functions between the neighbours of a grid, (K, L - 1) each.

    The functions fall, at first by ``steepest`` at most, and not at all beyond the grid.
    """
    width = np.diff(charges)
    slope = np.diff(total, axis=1) / width
    before = np.concatenate([-steepest[:, None], slope[:, :-1]], axis=1)
    after = np.concatenate([slope[:, 1:], np.zeros((len(total), 1))], axis=1)
    drop = after - before
    flat = drop <= 1e-12 * (1.0 + np.abs(before))
    step = np.where(flat, 0.0, (total[:, :-1] - total[:, 1:] + after * width) / np.where(flat, 1.0, drop))
    step = np.clip(step, 0.0, width)
    height = np.maximum(total[:, :-1] + before * step, total[:, 1:] - after * (width - step))
    return charges[:-1] + step, np.minimum(height, np.maximum(total[:, :-1], total[:, 1:]))


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
        checkpoint()
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
