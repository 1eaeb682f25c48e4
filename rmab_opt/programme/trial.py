"""A trial of two lists, randomised by village: how many villages, what can be seen with those at hand, the analysis.

Families of one village are alike (the same worker, the same weather), so the village's mean is the outcome and
villages are what is counted. With D the difference, J villages a side, m families a village::

    J = 2 (z[.975] + z[.80])^2 sigma^2 (1 - R^2) / D^2  (+ 1 for the t distribution)
    sigma^2 = sigma_b^2 + sigma_w^2 / m = sigma_arm^2 (1 + (m - 1) rho) / m,    rho = sigma_b^2 / sigma_arm^2

where R is the correlation of a village's mean with its own before the trial, where that is taken into account.
Each side owns its calls: with one budget for both, what one side saves is spent on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from rmab_opt.errors import Findings, ModelError
from rmab_opt.problem import Table
from rmab_opt.programme.estimate import CallLog
from rmab_opt.programme.moves import UNKNOWN
from rmab_opt.report import tree

__all__ = ["Result", "Trial", "Villages", "analyse", "villages_of"]

WAYS_OUT = (
    "randomise families within each village",
    "take a longer time before the trial as baseline",
    "let each village switch its list from week to week, in an order drawn by lot",
)
"""What is left where there are too few villages."""


@dataclass(frozen=True)
class Villages:
    """How villages differ.

    Parameters
    ----------
    between, within
        Standard deviation of village levels, and of families' means within a village.
    families
        A village.
    baseline
        Correlation of a village's mean with its mean before; 0 where no baseline is used.
    count
        Villages at hand, both sides together; None when it does not matter.
    """

    between: float
    within: float
    families: float
    baseline: float = 0.0
    count: int | None = None

    def __post_init__(self) -> None:
        for name in ("between", "within"):
            if not getattr(self, name) >= 0:
                raise ModelError(f"{name} is {getattr(self, name)}", "give a standard deviation, at least 0.")
        if not self.between + self.within > 0:
            raise ModelError("villages do not differ at all", "give their standard deviations.")
        if not self.families >= 1:
            raise ModelError(f"families is {self.families}", "give at least 1 a village.")
        if not -1 < self.baseline < 1:
            raise ModelError(f"baseline is {self.baseline}", "give a correlation between -1 and 1.")

    @classmethod
    def from_mean(cls, sd: float, families: float, rho: float, **more: Any) -> Villages:
        """Villages by the standard deviation of their means and the correlation within."""
        if not 0 <= rho <= 1:
            raise ModelError(f"rho is {rho}", "give a correlation from 0 to 1.")
        arm = sd**2 * families / (1 + (families - 1) * rho)
        return cls(float(np.sqrt(rho * arm)), float(np.sqrt((1 - rho) * arm)), families, **more)

    @property
    def rho(self) -> float:
        """Correlation of two families of one village."""
        return self.between**2 / (self.between**2 + self.within**2)

    @property
    def design_effect(self) -> float:
        """How many times more families are needed than if they were independent."""
        return 1.0 + (self.families - 1.0) * self.rho

    @property
    def sd(self) -> float:
        """Standard deviation of a village's mean, before a baseline is taken into account."""
        return float(np.sqrt(self.between**2 + self.within**2 / self.families))

    @property
    def left(self) -> float:
        """The same once the baseline is taken into account."""
        return float(self.sd * np.sqrt(1.0 - self.baseline**2))


@dataclass(frozen=True)
class Trial:
    """A trial of two lists over villages.

    Parameters
    ----------
    difference
        Of the two lists' mean shares engaged that the trial should show.
    power, level
        Chance to show it, and to see a difference where there is none (two-sided).
    """

    villages: Villages
    difference: float
    power: float = 0.80
    level: float = 0.05

    def __post_init__(self) -> None:
        if not self.difference > 0:
            raise ModelError(f"difference is {self.difference}", "give the difference of the mean shares, above 0.")
        if not 0 < self.level < self.power < 1:
            raise ModelError(f"power {self.power}, level {self.level}", "give 0 < level < power < 1.")

    @property
    def _both(self) -> float:
        return float(stats.norm.ppf(1 - self.level / 2) + stats.norm.ppf(self.power))

    @property
    def exactly(self) -> float:
        """J of the formula, before it is rounded up."""
        return 2 * (self._both * self.villages.left / self.difference) ** 2

    @property
    def a_side(self) -> int:
        """Villages a side that show the difference."""
        return int(np.ceil(self.exactly - 1e-9)) + 1

    def smallest(self, a_side: int) -> float:
        """The smallest difference that so many villages a side show."""
        if a_side < 1:
            raise ModelError(f"{a_side} villages a side", "give at least 1.")
        return float(self._both * self.villages.left * np.sqrt(2 / a_side))

    def lines(self) -> dict[str, str]:
        """For a person."""
        own = self.villages
        found = {
            "needed": f"{self.a_side} villages a side ({self.exactly:.1f} by the formula) to show "
            f"{self.difference:.4g} with power {self.power:g} at level {self.level:g}",
            "villages": f"mean {own.families:g} families, standard deviation of their means {own.sd:.4g}"
            + (f", {own.left:.4g} beside the baseline (R = {own.baseline:.3f})" if own.baseline else ""),
            "alike within": f"rho {own.rho:.4f}, design effect {own.design_effect:.2f}: families "
            + (
                "of a village are alike and count less"
                if own.rho > 0
                else "of a village seem no more alike than others"
            ),
            "budgets": "each side has its own calls; with one budget, calls leak from one side to the other",
        }
        if own.count is not None:
            half = own.count // 2
            if half < self.a_side:
                detectable = f"{self.smallest(half):.4g}" if half else "nothing"
                found["at hand"] = (
                    f"{own.count} villages: this trial cannot show the difference; {half} against {half} show "
                    f"{detectable} or more"
                )
                found["instead"] = "; ".join(WAYS_OUT)
            else:
                found["at hand"] = f"{own.count} villages: enough"
        return found

    def __str__(self) -> str:
        return tree("Trial of two lists, by village", self.lines())

    def document(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        own = self.villages
        half = None if own.count is None else own.count // 2
        return {
            "difference": self.difference,
            "power": self.power,
            "level": self.level,
            "villages_a_side": self.a_side,
            "formula": self.exactly,
            "rho": own.rho,
            "design_effect": own.design_effect,
            "sd": own.sd,
            "baseline": own.baseline,
            "at_hand": own.count,
            "can_show": None if half is None else half >= self.a_side,
            "smallest_difference": None if not half else self.smallest(half),
        }


def villages_of(log: CallLog, village: dict[str, str], weeks: int) -> Villages:
    """How villages differ by the log's last weeks, with as many weeks before as baseline where there are.

    Raises
    ------
    ModelError
        When fewer than three villages were seen.
    """

    def means(seen: np.ndarray) -> np.ndarray:
        known = seen != UNKNOWN
        count = known.sum(axis=1)
        return np.where(count > 0, (seen * known).sum(axis=1) / np.maximum(count, 1), np.nan)

    last, before = means(log.seen[:, -weeks:]), means(log.seen[:, -2 * weeks : -weeks])
    by: dict[str, list[int]] = {}
    for n, name in enumerate(log.ids):
        if village.get(name) and np.isfinite(last[n]):
            by.setdefault(village[name], []).append(n)
    groups = [np.array(rows) for rows in by.values() if len(rows) > 1]
    if len(groups) < 3:
        raise ModelError(f"{len(groups)} villages were seen", "give standard deviations, or a log of more villages.")
    between, within, families = _components([last[rows] for rows in groups])
    baseline = 0.0
    if log.seen.shape[1] >= 2 * weeks:
        pairs = np.array([(last[rows].mean(), np.nanmean(before[rows])) for rows in groups])
        if np.isfinite(pairs).all() and (pairs.std(axis=0) > 0).all():
            baseline = float(np.corrcoef(pairs.T)[0, 1])
    return Villages(between, within, families, min(max(baseline, 0.0), 0.999), len(groups))


def _components(groups: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Between and within standard deviation and the size that stands for all, by the analysis of variance."""
    sizes = np.array([len(values) for values in groups], dtype=np.float64)
    total, count = sizes.sum(), len(groups)
    mean = np.concatenate(list(groups)).mean()
    within = sum(float(((values - values.mean()) ** 2).sum()) for values in groups) / max(total - count, 1)
    among = sum(len(values) * (values.mean() - mean) ** 2 for values in groups) / max(count - 1, 1)
    size = (total - (sizes**2).sum() / total) / max(count - 1, 1)
    return float(np.sqrt(max((among - within) / size, 0.0))), float(np.sqrt(within)), float(size)


@dataclass(frozen=True)
class Result:
    """What a trial showed, villages counted.

    ``naive`` is the half-width that would follow if families were independent: too short, printed as a warning.
    """

    difference: float
    low: float
    high: float
    p: float
    sides: tuple[str, str]
    villages: tuple[int, int]
    rho: float
    design_effect: float
    naive: float
    baseline: float | None

    def lines(self) -> dict[str, str]:
        """For a person."""
        one, two = self.sides
        shown = "a difference is shown" if self.p < 0.05 else "no difference is shown"
        beside = "" if self.baseline is None else f", beside the baseline (R = {self.baseline:.3f})"
        half = (self.high - self.low) / 2
        return {
            "difference": f"{two} less {one}: {self.difference:+.4f} ({self.low:+.4f} to {self.high:+.4f}), "
            f"p = {self.p:.3f}: {shown}{beside}",
            "counted": f"{self.villages[0]} and {self.villages[1]} villages",
            "alike within": f"rho {self.rho:.4f}, design effect {self.design_effect:.2f}; families taken as "
            f"independent would give +- {self.naive:.4f} in place of +- {half:.4f}, which is not so",
        }

    def __str__(self) -> str:
        return tree("What the trial showed", self.lines())

    def document(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def analyse(table: Table) -> Result:
    """A trial's outcome by village: columns ``village``, ``side``, ``outcome``, optional ``baseline``, a row a family.

    Raises
    ------
    ModelError
        When there is no village (families must not be taken as independent), a village stands on both sides, there are
        not two sides, or fewer than two villages stand on one.
    """
    for column in ("side", "outcome"):
        if column not in table:
            raise ModelError(f"{table.source}: no column {column!r}", "give village, side and outcome of each family.")
    if "village" not in table:
        raise ModelError(
            f"{table.source}: no column 'village': families of one village are alike and must not be counted as "
            "independent",
            "give each family's village, the unit that was drawn by lot.",
        )
    side, place = table.text("side"), table.text("village")
    outcome = table.numbers("outcome")
    before = table.numbers("baseline") if "baseline" in table else None
    names = sorted(set(side))
    if len(names) != 2:
        raise ModelError(f"{table.source}: sides are {', '.join(names)}", "compare two lists.")
    of: dict[str, str] = {}
    findings = Findings(table.source)
    for row, (where, which) in enumerate(zip(place, side, strict=True)):
        if of.setdefault(where, which) != which:
            findings.add(table.place(row), f"village {where!r} stands on both sides", "draw whole villages by lot")
    findings.raise_if_any()
    rows = {where: [n for n, at in enumerate(place) if at == where] for where in of}
    groups = {which: [outcome[rows[where]] for where in of if of[where] == which] for which in names}
    counts = tuple(len(groups[which]) for which in names)
    if min(counts) < 2:
        raise ModelError(f"{table.source}: {min(counts)} village on a side", "give at least two.")
    mean = np.array([outcome[rows[where]].mean() for where in of])
    treated = np.array([of[where] == names[1] for where in of], dtype=np.float64)
    parts = [np.ones(len(mean)), treated]
    correlation = None
    if before is not None:
        base = np.array([before[rows[where]].mean() for where in of])
        parts.append(base - base.mean())
        left = [one - np.where(treated, one[treated == 1].mean(), one[treated == 0].mean()) for one in (mean, base)]
        correlation = float(np.corrcoef(left)[0, 1]) if min(np.std(one) for one in left) > 0 else 0.0
    design = np.stack(parts, axis=1)
    freedom = len(mean) - design.shape[1]
    if freedom < 1:
        raise ModelError(f"{table.source}: {len(mean)} villages", "give more villages, or leave out the baseline.")
    found, *_ = np.linalg.lstsq(design, mean, rcond=None)
    spread = float(((mean - design @ found) ** 2).sum() / freedom)
    error = float(np.sqrt(spread * np.linalg.inv(design.T @ design)[1, 1]))
    half = float(stats.t.ppf(0.975, freedom)) * error
    p = float(2 * stats.t.sf(abs(found[1]) / error, freedom)) if error > 0 else float(found[1] == 0)
    centred = [values - np.concatenate(groups[which]).mean() for which in names for values in groups[which]]
    between, within, size = _components(centred)
    rho = between**2 / max(between**2 + within**2, 1e-300)
    whole = [np.concatenate(groups[which]) for which in names]
    naive = 1.96 * float(np.sqrt(sum(values.var(ddof=1) / len(values) for values in whole)))
    return Result(
        float(found[1]), float(found[1]) - half, float(found[1]) + half, p, (names[0], names[1]),
        (counts[0], counts[1]), rho, 1 + (size - 1) * rho, naive, correlation,
    )  # fmt: skip
