"""What another list would have earned, from the log of the one that was followed.

Arms move independently given their own actions, so weights are per arm (joint weights over a thousand arms are
useless). With pi the other list's chance of a call, e the followed one's, and Q, V of the estimated tables under pi::

    w[n, t] = prod over k <= t of pi / e
    IPS = sum_t sum_n w[n, t] r[n, t]
    WIS = sum_t N sum_n w[n, t] r[n, t] / sum_n w[n, t]
    DR  = sum_n V(s[n, 0]) + sum_t sum_n w[n, t] (r[n, t] + V(s[n, t + 1]) - Q(s[n, t], a[n, t]))

DR is unbiased when e is known, whatever the tables, or when the tables are right (Jiang & Li 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from rmab_opt.errors import ModelError

__all__ = ["LEAST_EFFECTIVE", "LONGEST_WINDOW", "OtherList", "soft_price_rule", "value_of_another"]

LEAST_EFFECTIVE = 0.05
"""Share of the arms that must be left in effect at the end of a window."""

LONGEST_WINDOW = 8
"""Weeks over which weights are multiplied; later weeks begin anew."""

WIDTH = 0.05
"""Softness of a price rule's edge, in the unit of its gains."""

NEEDS = (
    "It holds where calls were drawn with these chances given what the log holds, where no unrecorded reason decided, "
    "and where a call to one family changes nothing for another."
)


@dataclass(frozen=True, eq=False)
class OtherList:
    """Values of another list over a log, in expected family-weeks of engagement, all arms together.

    Parameters
    ----------
    doubly_robust, low, high
        The estimate with its 95 % interval from the spread of the arms' own terms.
    inverse, weighted, model
        The same by weights alone, by weights that are made to sum to N, by the tables alone.
    logged
        What was earned under the list that was followed.
    calls
        Mean number of calls a week that the other list would make in the states of the log.
    effective
        Effective number of arms at each window's end.
    """

    doubly_robust: float
    low: float
    high: float
    inverse: float
    weighted: float
    model: float
    logged: float
    calls: float
    effective: tuple[float, ...]
    arms: int
    weeks: int

    def lines(self) -> list[str]:
        """For a person."""
        ahead = self.doubly_robust - self.logged
        listed = ", ".join(f"{one:.0f}" for one in self.effective)
        return [
            f"another list would have earned {self.doubly_robust:.1f} ({self.low:.1f} to {self.high:.1f}) family-weeks "
            f"in {self.weeks} weeks; the one followed earned {self.logged:.1f} ({ahead:+.1f})",
            f"its expected calls: {self.calls:.1f} a week; a price rule meets a budget on average only",
            f"effective number of arms: {listed} of {self.arms}",
            f"by weights alone {self.inverse:.1f}, weights made to sum {self.weighted:.1f}, the tables alone "
            f"{self.model:.1f}",
            NEEDS,
        ]

    def summary(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            name: getattr(self, name)
            for name in ("doubly_robust", "low", "high", "inverse", "weighted", "model", "logged", "calls")
        } | {"effective": list(self.effective), "arms": self.arms, "weeks": self.weeks}


def soft_price_rule(gain: np.ndarray, price: float, width: float = WIDTH) -> np.ndarray:
    """Chance of a call by state, (N, S): near one where the gain is above the price, near zero below."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip((gain - price) / width, -60, 60))))


def price_for(gain: np.ndarray, state: np.ndarray, calls: float, width: float = WIDTH) -> float:
    """Price at which the soft rule makes so many calls a week on average over the log's states (N, W)."""
    at = np.take_along_axis(gain, state, axis=1)
    low, high = float(gain.min()) - 20 * width, float(gain.max()) + 20 * width
    for _ in range(80):
        middle = (low + high) / 2
        made = float(soft_price_rule(at, middle, width).sum()) / state.shape[1]
        low, high = (middle, high) if made > calls else (low, middle)
    return (low + high) / 2


def value_of_another(
    state: np.ndarray, action: np.ndarray, chance: np.ndarray, target: np.ndarray, transition: np.ndarray
) -> OtherList:
    """The value of another list, checked for what the log can say.

    Parameters
    ----------
    state
        0 or 1, (N, W + 1): before each week and after the last; reward is the state arrived in.
    action
        Calls made, (N, W).
    chance
        Chance that the followed list gave each call, (N, W), given what the log holds.
    target
        Chance of a call under the other list by the arm's own state, (N, 2) or (W, N, 2).
    transition
        Estimated tables, (N, A, 2, 2).

    Raises
    ------
    ModelError
        When calls were no lottery where the other list acts, or too few arms are left in effect; names the remedy.
    """
    n, weeks = action.shape
    pi = np.broadcast_to(target, (weeks, n, 2))
    at = pi[np.arange(weeks)[:, None], np.arange(n)[None], state[:, :-1].T].T
    of_taken = np.where(action == 1, at, 1.0 - at)
    given = np.where(action == 1, chance, 1.0 - chance)
    # Where the other list takes an action for sure or perhaps, the followed one must have had some chance to take it.
    unseen = ((at > 0) & (chance <= 0)) | ((at < 1) & (chance >= 1))
    if not np.isfinite(chance).all() or (given <= 0).any() or unseen.any():
        bad = int(unseen.sum())
        raise ModelError(
            f"in {bad} of {n * weeks} member-weeks the list left nothing to chance, so the log cannot say what another "
            "list would have earned",
            "draw the last places of each list by lottery among those at the margin, and log the chance of each call.",
        )
    ratio = of_taken / given
    reward = state[:, 1:].astype(np.float64)
    terms, inverse, weighted, model, effective = np.zeros(n), 0.0, 0.0, 0.0, []
    for first in range(0, weeks, LONGEST_WINDOW):
        last = min(first + LONGEST_WINDOW, weeks)
        weight = np.cumprod(ratio[:, first:last], axis=1)
        effective.append(float(weight[:, -1].sum() ** 2 / max((weight[:, -1] ** 2).sum(), 1e-300)))
        if effective[-1] < LEAST_EFFECTIVE * n:
            raise ModelError(
                f"the other list differs so much that {effective[-1]:.0f} of {n} members count after "
                f"{last - first} weeks, fewer than {100 * LEAST_EFFECTIVE:g} %",
                "ask about a list that is nearer to the one followed, or look at fewer weeks.",
            )
        value, q = _values(transition, pi[first:last])
        here = state[:, first]
        arm = np.arange(n)
        model += float(value[0][arm, here].sum())
        terms += value[0][arm, here]
        for k in range(last - first):
            t = first + k
            arrived = reward[:, t]
            terms += weight[:, k] * (
                arrived + value[k + 1][arm, state[:, t + 1]] - q[k][arm, state[:, t], action[:, t]]
            )
            inverse += float((weight[:, k] * arrived).sum())
            weighted += float(n * (weight[:, k] * arrived).sum() / weight[:, k].sum())
    half = float(ndtri(0.975) * np.sqrt(n) * terms.std(ddof=1))
    total = float(terms.sum())
    return OtherList(
        total, total - half, total + half, inverse, weighted, model, float(reward.sum()), float(at.sum() / weeks),
        tuple(effective), n, weeks,
    )  # fmt: skip


def _values(transition: np.ndarray, target: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """V (T + 1) of (N, S) and Q (T) of (N, S, A) of a list, by the tables."""
    weeks, n, n_states = target.shape
    value = [np.zeros((n, n_states))]
    action_values: list[np.ndarray] = []
    arrival = np.arange(n_states, dtype=np.float64)
    for t in range(weeks - 1, -1, -1):
        q = np.einsum("nast,nt->nsa", transition, arrival[None] + value[0])
        action_values.insert(0, q)
        value.insert(0, q[..., 0] * (1.0 - target[t]) + q[..., 1] * target[t])
    return value, action_values
