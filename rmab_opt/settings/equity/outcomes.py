"""What one decision means for groups and persons: now, planned, and what no policy exceeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np

from rmab_opt.decisions import Decision, Model
from rmab_opt.report import cell, table_text
from rmab_opt.settings.equity.cohort import Cohort
from rmab_opt.settings.equity.groups import MOST_NAMED, Groups
from rmab_opt.settings.equity.levels import solve_levels
from rmab_opt.settings.equity.policies import model_groups
from rmab_opt.settings.equity.prices import PricedGroups
from rmab_opt.settings.equity.welfare import Welfare
from rmab_opt.solver.session import power_of_two

__all__ = ["MOST_ROWS", "Fairness", "fairness_of", "spread_in_words", "worst_ten"]

SHOWN_GAP = 1e-3
"""Relative gap of plans that are shown beside a decision."""

MOST_ROWS = 12
"""Groups that are listed one by one; of more, the worst ten and how all are spread."""


@dataclass(frozen=True)
class Fairness:
    """What groups and persons get from one decision and can get from the rounds that follow.

    ``rows`` hold, per group: ``group, arms, served`` (arms acted on now), ``now`` (mean reward of an arm this round),
    the mean total of an arm from now on in the relaxed plan that is best on average (``planned``) and in the one that
    is best for the worst group (``max_min``), and ``at_most`` (if nothing were scarce: no policy gives more).
    ``persons`` hold ``id, served, now, planned, at_most`` of every arm. ``worst`` names the group that the plan leaves
    lowest, ``price`` is the share of the mean that max-min gives up, ``limit`` is what no policy lifts the worst
    group above.
    """

    rows: list[dict[str, Any]]
    persons: list[dict[str, Any]] = field(repr=False)
    worst: str
    lowest: float
    lifted: float
    limit: float
    price: float
    small: str
    left_out: str = ""

    def summary(self) -> dict[str, Any]:
        """The tables and the numbers below them, for JSON."""
        return {
            "groups": self.rows,
            "persons": self.persons,
            "worst_group": self.worst,
            "worst_value": self.lowest,
            "worst_value_max_min": self.lifted,
            "worst_value_at_most": self.limit,
            "price_of_max_min": self.price,
            "gains": self.gains,
            "waits": self.waits,
        }

    @property
    def gains(self) -> list[str]:
        """Groups that max-min lifts above the plan that is best on average, the most lifted first."""
        lift = sorted(self.rows, key=lambda row: row["planned"] - row["max_min"])
        return [row["group"] for row in lift if row["max_min"] > row["planned"] * (1 + 1e-3) + 1e-9]

    @property
    def waits(self) -> list[str]:
        """Groups of whom nobody is served now, the lowest first."""
        return [row["group"] for row in sorted(self.rows, key=lambda row: row["planned"]) if not row["served"]]

    @property
    def shown(self) -> list[dict[str, Any]]:
        """All groups, or the worst ten of many."""
        return worst_ten(self.rows, "planned")

    @property
    def sentence(self) -> str:
        """Worst group, price, who gains and who waits, in words."""
        said = (
            f"worst group {self.worst}: {cell(self.lowest)} from now on if only the mean counts; "
            f"max-min lifts the lowest group to {cell(self.lifted)} (no policy above {cell(self.limit)}) and costs "
            f"{100 * self.price:.2g} % of the mean (limits on average, not promises)"
        )
        said += f"\nwould gain by max-min: {_named(self.gains)} · nobody served now: {_named(self.waits)}"
        if len(self.rows) > MOST_ROWS:
            said += f"\n{spread_in_words([row['planned'] for row in self.rows])}"
        return "\n".join([said, *(text for text in (self.small, self.left_out) if text)])

    def __str__(self) -> str:
        return f"{table_text(self.shown)}\n{self.sentence}"


def worst_ten(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Rows of all groups, or of the ten with the least ``key`` where there are many."""
    return rows if len(rows) <= MOST_ROWS else sorted(rows, key=lambda row: row[key])[:MOST_NAMED]


def spread_in_words(values: Sequence[float] | np.ndarray) -> str:
    """How the values of many groups are spread."""
    lowest, quarter, middle, three, highest = (cell(float(x)) for x in np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    return (
        f"the worst {MOST_NAMED} of {len(values)} groups are listed; all: lowest {lowest}, quarter {quarter}, "
        f"middle {middle}, three quarters {three}, highest {highest}"
    )


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more if names else "no group"


def fairness_of(model: Model, decision: Decision, groups: str | Groups, *, seconds: float | None = None) -> Fairness:
    """The fairness of a decision: who is served now, and what each group and person can get from here on.

    Parameters
    ----------
    groups
        Columns of the cohort's table (see :meth:`Groups.of`), or groups.
    seconds
        When they are over, plans are shown as far as they are.

    Raises
    ------
    ModelError
        When the cohort has no such column.
    CapabilityError
        When the dynamics have no tables.
    """
    until = None if seconds is None else perf_counter() + seconds
    named = model_groups(model, groups) if isinstance(groups, str) else groups
    problem = model.problem
    cohort = Cohort.of(problem, model.actions, named, state=decision.state, period=decision.period)
    unit = power_of_two(float(np.abs(cohort.reward).max(initial=0.0)))
    # One set of plans serves both welfares.
    backend = PricedGroups(replace(cohort, reward=cohort.reward / unit), apart=True)
    mean = solve_levels(backend, named, Welfare.of("utilitarian"), tolerance=SHOWN_GAP, until=until).last
    planned = backend.persons() * unit
    found = solve_levels(backend, named, Welfare.of("max_min"), tolerance=SHOWN_GAP, until=until)
    most = backend.free() * unit
    action = model.actions.columns.arm_action(decision.action)
    now = problem.dynamics.expected_reward(decision.state, action)
    values = {
        "now": named.means(now),
        "planned": mean.values * unit,
        "max_min": found.last.values * unit,
        "at_most": named.means(most),
    }
    rows = [
        {"group": name, "arms": int(named.sizes[g]), "served": int((action[named.member[g]] > 0).sum())}
        | {key: float(value[g]) for key, value in values.items()}
        for g, name in enumerate(named.names)
    ]
    persons = [
        {"id": name, "served": bool(action[n] > 0), "now": float(now[n]), "planned": float(planned[n])}
        | {"at_most": float(most[n])}
        for n, name in enumerate(problem.arms.ids)
    ]
    best, fair = (float(named.sizes @ values[key]) for key in ("planned", "max_min"))
    lowest = int(values["planned"].argmin())
    return Fairness(
        rows,
        persons,
        named.names[lowest],
        float(values["planned"][lowest]),
        float(values["max_min"].min()),
        found.first.upper * unit,
        max(0.0, 1.0 - fair / best) if best > 0 else 0.0,
        named.small,
        _left_out(model),
    )


def _left_out(model: Model) -> str:
    """Guarantees, which these plans do not keep, in words; empty without any."""
    names = [name for name in model.actions.declared if name not in model.actions.lasting.declared]
    if not names:
        return ""
    return f"planned, max_min and the limits leave out {', '.join(names)}; `rmab-opt bound --groups` plans with it"
