"""What simulated totals say: less noise by the bound's own prices, intervals, paired differences, Holm's marks.

With the bound's prices every arm has a value ``V_t``; along an episode the jumps of the arms' values around their
expectations add up to ``M``, whose mean is zero for every policy that does not look ahead. ``total - M`` therefore has
the same mean as the total, and it can be written as the bound minus what was left unused and what was chosen wrongly
(both priced), so that no single episode of allowed actions lies above the bound.

References
----------
Martingale control variates: Henderson and Glynn (2002); the pathwise bound is weak duality, arm by arm and round by
round (Hawkins 2003; Brown, Smith and Sun 2010).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from rmab_opt.actions import ActionSet
from rmab_opt.actions.levels import arm_levels
from rmab_opt.errors import CertificateError, ModelError
from rmab_opt.planning import Bound, polyhedron
from rmab_opt.planning.lagrangian import priced_values
from rmab_opt.problem import Problem
from rmab_opt.problem.dynamics import require_tabular

__all__ = [
    "ControlVariate",
    "Difference",
    "Estimate",
    "cross_fit",
    "demand_below",
    "exact_value",
    "interval",
    "marks",
    "paired",
    "summaries",
    "units",
]

ROUNDING = 1e-10
"""Slack of an adjusted episode against the bound, as a share of the terms that were summed: 1e-16 was seen, rents by
linear programs are good to 1e-11 of their terms."""

LEAST_HALF = 4
"""Episodes of each half below which a coefficient is not fitted, and the variate counts in full."""

WORTH_FITTING = 0.5
"""A fitted part must leave less than this share of the variance that the whole variate leaves: the fit's own error
costs good policies more than it gains (weekly_calls, 12 episodes)."""

SETTLED = 0.05
"""Level of the intervals, and of all printed marks of a table together."""


# ------------------------------------------------------------------------------------------------- the control variate
@dataclass(frozen=True, eq=False)
class ControlVariate:
    """Zero-mean noise of an episode, from the values that the bound's prices give the arms' states.

    Parameters
    ----------
    transition
        (N, A, S, S).
    values
        Worth of every arm's state before each round and after the last, (T + 1, N, S).
    mean
        Expected worth of the first states.
    discount
        A round.
    limit
        The bound.
    """

    transition: np.ndarray
    values: np.ndarray
    mean: float
    discount: float
    limit: float

    @classmethod
    def of(cls, problem: Problem, actions: ActionSet, found: Bound) -> ControlVariate:
        """The variate of a bound over the problem's own horizon, discount and start.

        Raises
        ------
        ModelError
            When the bound is of an endless run.
        """
        if found.kind != "time_indexed":
            raise ModelError(f"a control variate from a bound of kind {found.kind!r}", "use kind 'time_indexed'.")
        transition, reward = require_tabular(problem.dynamics, "the control variate")
        n_arms, n_actions = transition.shape[:2]
        prices = np.broadcast_to(found.arm_prices, (problem.horizon, n_arms, n_actions))
        # Forbidden arm-actions count as nothing: with them the values would stand above those of the bound.
        allowed = arm_levels(actions.columns, n_actions)
        if found.coupling != "hull" and not actions.open_constraints:
            rows = polyhedron(actions, n_actions)
            shut = rows.z_upper <= 0
            allowed[rows.arm[shut], rows.action[shut]] = False
        values = priced_values(transition, reward, prices, problem.horizon, problem.discount, allowed)
        mean = float((problem.start_distribution * values[0]).sum())
        return cls(transition, values, mean, problem.discount, found.value)

    def first(self, states: np.ndarray) -> np.ndarray:
        """What the first states (E, N) are worth beyond their expectation, (E,)."""
        worth: np.ndarray = self.values[0][np.arange(states.shape[1]), states].sum(axis=1)
        return worth - self.mean

    def moved(self, period: int, states: np.ndarray, arm_action: np.ndarray, after: np.ndarray) -> np.ndarray:
        """What the next states (E, N) are worth beyond their expectation, (E,), discounted to the first round."""
        arm = np.arange(states.shape[1])
        worth = self.values[period + 1]
        expected = np.einsum("ens,ns->en", self.transition[arm, arm_action, states], worth)
        jump: np.ndarray = (worth[arm, after] - expected).sum(axis=1)
        return self.discount ** (period + 1) * jump

    @property
    def mass(self) -> float:
        """Size of the terms that are summed, for rounding."""
        return float(np.abs(self.values).max(axis=2).sum()) + abs(self.limit)


def exact_value(problem: Problem, arm_actions: np.ndarray) -> float:
    """Expected total of actions (T, N) that do not depend on the states, by the arms' own chains; no simulation."""
    transition, reward = require_tabular(problem.dynamics, "the exact value")
    arm = np.arange(transition.shape[0])
    belief, total = problem.start_distribution, 0.0
    for t, taken in enumerate(arm_actions):
        total += problem.discount**t * float((belief * reward[arm, :, taken]).sum())
        belief = np.einsum("ns,nst->nt", belief, transition[arm, taken])
    return total


def demand_below(policy: str, totals: np.ndarray, variate: np.ndarray, limits: np.ndarray, mass: float) -> None:
    """Every adjusted episode (seeds, episodes) against the bound of its seed; the variate counts in full.

    Raises
    ------
    CertificateError
        When one lies above: then the bound, the simulator or an action is wrong; names the episode.
    """
    adjusted = totals - variate
    above = adjusted - limits[:, None] - ROUNDING * (mass + np.abs(totals) + np.abs(variate))
    if not (above > 0).any():
        return
    seed, episode = np.unravel_index(int(np.argmax(above)), above.shape)
    raise CertificateError(
        f"episode {episode} of seed number {seed} of policy {policy!r} earns {adjusted[seed, episode]:.10g} without "
        f"its luck, above the bound {limits[seed]:.10g}: the bound, the simulator or an action is wrong",
        "report this with the model file.",
    )


@dataclass(frozen=True, eq=False)
class Estimate:
    """Totals (seeds, episodes) of a policy as they count in the table.

    ``kind``: ``adjusted`` (variate in full, or fitted on the other half), ``exact`` (by the arms' chains) or ``raw``.
    """

    totals: np.ndarray
    raw: np.ndarray
    kind: str

    @property
    def variance_ratio(self) -> float | None:
        """Variance of the raw totals over that of the totals that count; None where either says nothing."""
        if self.kind == "raw" or self.raw.size < 2:
            return None
        left = float(np.var(self.totals))
        return float(np.var(self.raw)) / left if left > 0 else None


def cross_fit(totals: np.ndarray, variate: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Totals (seeds, episodes) less the part of the variate that the other half of the episodes asks for.

    Each half's coefficient, cut to [0, 1], comes from the other half and is therefore independent of it: the mean
    stays unbiased. Where halves are small, the part gains little, or the mean would stand above the bound, the variate
    counts in full.
    """
    full: np.ndarray = totals - variate
    half = np.zeros(totals.shape, dtype=bool)
    half.flat[::2] = True
    if totals.shape[1] > 1:
        half[:] = np.arange(totals.shape[1]) % 2 == 0
    if min(half.sum(), (~half).sum()) < LEAST_HALF:
        return full
    share = np.empty(totals.shape)
    for fitted, used in ((half, ~half), (~half, half)):
        noise = variate[fitted] - variate[fitted].mean()
        earned = totals[fitted] - totals[fitted].mean()
        scale = float(noise @ noise)
        part = float(np.clip(float(noise @ earned) / scale, 0.0, 1.0)) if scale > 0 else 1.0
        left, left_in_full = float(((earned - part * noise) ** 2).sum()), float(((earned - noise) ** 2).sum())
        share[used] = part if left < WORTH_FITTING * left_in_full else 1.0
    found: np.ndarray = totals - share * variate
    return full if found.mean() > limits.mean() else found


# --------------------------------------------------------------------------------------------------------- intervals
def units(totals: np.ndarray) -> np.ndarray:
    """What is independent: means of the seeds (rows) when there are several, else the episodes."""
    return np.asarray(totals.mean(axis=1) if totals.shape[0] > 1 else totals[0])


def interval(values: np.ndarray) -> tuple[float, float | None, float | None]:
    """Mean and 95 % t-interval of independent values; without ends when there is a single one."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, None, None
    half = float(stdtrit(len(values) - 1, 1 - SETTLED / 2) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


class Difference(NamedTuple):
    """A paired difference: mean, 95 % t-interval, standard error, and how many pairs would settle its sign.

    ``low``, ``high`` and ``error`` are None with a single pair; ``needed`` is None where nothing but equality was seen,
    or with a single pair.
    """

    mean: float
    low: float | None
    high: float | None
    error: float | None
    needed: int | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:.4g}, one pair: nothing is known of its sign"
        said = f"{self.mean:.4g}, 95 % interval {self.low:.4g} to {self.high:.4g}"
        if self.low <= 0 <= self.high and self.needed is not None:
            said += f"; about {self.needed} pairs would settle its sign"
        return said


def paired(first: np.ndarray, second: np.ndarray) -> Difference:
    """The difference of two policies' independent values on the same draws."""
    apart = first - second
    mean, low, high = interval(apart)
    if len(apart) < 2:
        return Difference(mean, low, high, None, None)
    spread = float(apart.std(ddof=1))
    return Difference(mean, low, high, spread / math.sqrt(len(apart)), _needed(mean, spread))


def _needed(mean: float, spread: float) -> int | None:
    """Fewest pairs whose 95 % t-interval leaves zero out, were mean and spread what they seem."""
    if mean == 0:
        return None
    number = max(2, math.ceil(min((ndtri(1 - SETTLED / 2) * spread / abs(mean)) ** 2, 1e15)))
    # Student's quantile asks for a few more than the normal one.
    while float(stdtrit(number - 1, 1 - SETTLED / 2)) * spread / math.sqrt(number) > abs(mean) and number < 1e15:
        number += 1
    return number


def marks(values: Mapping[str, np.ndarray]) -> dict[str, str | None]:
    """Which policies can be told from the best one, from independent values on the same draws.

    Paired t-tests against the best mean, Holm's step-down over all of them at 5 %: ``best``, ``worse`` or ``not told
    apart``; None where there is one value each or one policy.
    """
    if len(values) < 2 or min(len(each) for each in values.values()) < 2:
        return dict.fromkeys(values)
    best = max(values, key=lambda name: float(values[name].mean()))
    chances: dict[str, float] = {}
    for name, each in values.items():
        if name == best:
            continue
        found = paired(values[best], each)
        if not found.error:
            chances[name] = 1.0 if found.mean == 0 else 0.0
        else:
            chances[name] = float(2 * stdtr(len(each) - 1, -abs(found.mean / found.error)))
    told: dict[str, str | None] = dict.fromkeys(values, "not told apart")
    told[best] = "best"
    for step, name in enumerate(sorted(chances, key=lambda name: chances[name])):
        if chances[name] > SETTLED / (len(chances) - step):
            break
        told[name] = "worse"
    return {name: told[name] for name in values}


def summaries(estimates: Mapping[str, Estimate], limits: np.ndarray | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Per policy its row: mean, interval, share of the bound and normalised score, never above the bound."""
    limit = None if limits is None else float(limits.mean())
    idle = float(estimates["none"].totals.mean()) if "none" in estimates else None
    told = marks({name: units(each.totals) for name, each in estimates.items()})
    for name, each in estimates.items():
        mean, low, high = interval(units(each.totals))
        note = None
        if limit is not None and each.kind == "raw" and mean > limit:
            note = "raw mean above the bound" + (
                f" by noise ({(mean - limit) / _error(each.totals):.1f} standard errors)" if _error(each.totals) else ""
            )
        elif limit is not None:
            mean, low, high = (None if end is None else min(end, limit) for end in (mean, low, high))  # type: ignore[assignment]
        shares = limit is not None and limit > 0 and note is None
        row: dict[str, Any] = {"policy": name, "reward": mean, "low": low, "high": high}
        for key, end in (("share_of_bound", mean), ("share_low", low), ("share_high", high)):
            row[key] = end / limit if shares and limit is not None and end is not None else None
        room = None if limit is None or idle is None or note is not None else limit - idle
        known = room is not None and limit is not None and room > 1e-9 * abs(limit)
        row["normalised"] = (mean - idle) / room if known and idle is not None and room is not None else None
        row |= {"against_best": told[name], "estimate": each.kind, "raw": float(each.raw.mean())}
        row |= {"variance_ratio": each.variance_ratio, "note": note}
        yield name, row


def _error(totals: np.ndarray) -> float:
    values = units(totals)
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
