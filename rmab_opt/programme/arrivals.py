"""Who will join and who will leave: rates from a register's dates and a cohort's log, and the bound that counts them.

A bound of today's members alone can lie below what a programme earns with those who join; with mean arrivals it holds
for every policy and any arrival process of those means that does not depend on the calls.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.planning.living import Course, bound_at
from rmab_opt.records import read_object

__all__ = ["ARRIVALS", "Arrivals", "Rates", "arrivals_of", "bound_with", "rates_of"]

ARRIVALS = "arrivals.json"
"""File of a programme's folder that says who will come and go."""

WEEKS = 26
"""Last weeks of the register's dates that count."""

PRIOR = 0.5
"""Of the gamma and the beta: a rate of nothing seen is not zero."""

Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Rates:
    """Joiners a week, all together, and the share of members who leave in a week: mean, low, high of 95 %.

    ``shares`` are the groups' shares of the joiners.
    """

    joiners: Interval
    leavers: Interval | None
    shares: tuple[float, ...]

    def __str__(self) -> str:
        mean, low, high = self.joiners
        text = f"{mean:.1f} joiners a week ({low:.1f} to {high:.1f})"
        if self.leavers is None:
            return f"{text}; leavers are not known yet, taken as none"
        mean, low, high = (100 * part for part in self.leavers)
        return f"{text}; {mean:.2f} % leave a week ({low:.2f} to {high:.2f})"


def rates_of(
    joined: Iterable[tuple[datetime.date, int]], n_groups: int, member_weeks: int = 0, left: int = 0
) -> Rates | None:
    """Rates from dates of joining with groups, and from the weeks that members were watched; None without a date.

    Joiners are gamma-Poisson over the last weeks up to the latest date, leavers beta-binomial.
    """
    dates = list(joined)
    if not dates:
        return None
    # Loaded where it is used: it takes a third of a second that few decisions need.
    from scipy import stats

    latest = max(day for day, _ in dates)
    recent = [group for day, group in dates if (latest - day).days < 7 * WEEKS]
    shape = PRIOR + len(recent)
    joiners = (shape / WEEKS, *(float(stats.gamma.ppf(p, shape) / WEEKS) for p in (0.025, 0.975)))
    leavers = None
    if member_weeks:
        own = PRIOR + left, PRIOR + member_weeks - left
        leavers = (own[0] / sum(own), *(float(stats.beta.ppf(p, *own)) for p in (0.025, 0.975)))
    counts = np.bincount(recent, minlength=n_groups) + 1e-9
    return Rates(joiners, leavers, tuple((counts / counts.sum()).tolist()))  # type: ignore[arg-type]


def bound_with(
    course: Course,
    prices: tuple[np.ndarray, float],
    rates: Rates,
    groups: tuple[np.ndarray, Sequence[float]],
) -> Interval:
    """The bound with joiners and leavers at the rates' means, and at the ends of their intervals.

    Evaluated at the prices of today's bound: any prices give a bound, these seldom a loose one.

    Parameters
    ----------
    course
        Of today's members.
    groups
        Tables of a newcomer by group (G, A, S, S), and the share of each group's newcomers in the last state.
    """
    tables, first = groups
    n_groups, _, n_states, _ = tables.shape
    reward = np.broadcast_to(course.reward.mean(axis=0), (n_groups, *course.reward.shape[1:])).copy()
    # Paid on arrival: a newcomer earns the chance to arrive in the last state.
    reward[:] = tables[..., -1].transpose(0, 2, 1)
    more = np.zeros((n_groups, n_states))
    more[:, -1] = np.asarray(first) * rates.shares
    more[:, 0] = (1.0 - np.asarray(first)) * rates.shares

    def at(joiners: float, leavers: float) -> float:
        n, rounds = len(course.transition), course.horizon
        arrivals = np.zeros((rounds, n + n_groups, n_states))
        arrivals[1:, n:] = joiners * more
        open_ = None
        if course.open is not None:
            open_ = np.concatenate([course.open, np.ones((rounds, n_groups), dtype=bool)], axis=1)
        living = replace(
            course,
            transition=np.concatenate([course.transition, tables]),
            reward=np.concatenate([course.reward, reward]),
            start=np.concatenate([course.start, np.zeros((n_groups, n_states))]),
            open=open_,
            arrivals=arrivals,
            stay=np.full((n + n_groups, n_states), 1.0 - leavers),
        )
        return bound_at(living, *prices)

    gone = (0.0, 0.0, 0.0) if rates.leavers is None else rates.leavers
    return at(rates.joiners[0], gone[0]), at(rates.joiners[1], gone[2]), at(rates.joiners[2], gone[1])


@dataclass(frozen=True, eq=False)
class Arrivals:
    """Rates with the tables (G, A, S, S) and the first states of a newcomer by group."""

    rates: Rates
    tables: np.ndarray
    first: tuple[float, ...]

    def line(self, course: Course, prices: tuple[np.ndarray, float]) -> str:
        """The bound with joiners and leavers, in a sentence."""
        value, low, high = bound_with(course, prices, self.rates, (self.tables, self.first))
        return f"{self.rates}: nothing above {value:.6g} with them ({low:.6g} to {high:.6g})"

    def to_json(self) -> str:
        """For the programme's folder, so that every verb counts the same joiners."""
        rates = self.rates
        document = {
            "joiners": rates.joiners,
            "leavers": rates.leavers,
            "shares": rates.shares,
            "first": self.first,
            "tables": self.tables.tolist(),
        }
        return json.dumps(document, indent=1) + "\n"


def _interval(values: Sequence[float]) -> Interval:
    mean, low, high = map(float, values)
    return mean, low, high


def arrivals_of(model_path: Path) -> Arrivals | None:
    """Who will come and go in the programme whose folder or model file is named; None where nothing says so.

    Raises
    ------
    ModelError
        When the file is not as it was written.
    """
    path = (model_path if model_path.is_dir() else model_path.parent) / ARRIVALS
    if not path.is_file():
        return None
    fix = "make it anew with `rmab-opt start` or `next`."
    found: dict[str, Any] = read_object(path, "joiners of a programme", fix)
    try:
        joiners, leavers = _interval(found["joiners"]), found["leavers"]
        rates = Rates(joiners, None if leavers is None else _interval(leavers), tuple(map(float, found["shares"])))
        made = Arrivals(rates, np.array(found["tables"], dtype=np.float64), tuple(map(float, found["first"])))
    except (KeyError, TypeError, ValueError):
        raise ModelError(f"{path}: is not as it was written", fix) from None
    groups = len(rates.shares)
    if made.tables.ndim != 4 or {len(made.tables), len(made.first)} != {groups}:
        raise ModelError(f"{path}: is not as it was written", fix)
    return made
