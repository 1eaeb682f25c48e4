"""Arms from inspection records: a likelihood fit with intervals, grouped splits, and what the plan owes to the fit.

A record is one inspection with what the one before it found and the slots between the two. P(good) at the visit is
pi + (s - pi) r^n with pi the long-run share of good, r the persistence, n the slots since, and s how sure the earlier
result makes us.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy import optimize, stats

from rmab_opt.actions import ActionSet
from rmab_opt.decisions import Model
from rmab_opt.errors import Findings, ModelError
from rmab_opt.problem import Arms, Table
from rmab_opt.problem.table import TableLike, nearest
from rmab_opt.report import table_text
from rmab_opt.settings.inspection.beliefs import BeliefChains, Windows
from rmab_opt.settings.inspection.indices import exact_gains
from rmab_opt.settings.inspection.kinds import Frequency, SlotBudget, VisitColumns
from rmab_opt.settings.inspection.plan import plan_visits

__all__ = [
    "Fit",
    "RecordColumns",
    "Records",
    "Sensitivity",
    "area_under_curve",
    "fit_records",
    "grouped_split",
    "read_records",
    "records_of",
    "sensitivity",
]

SURE = 0.99
"""P(good) right after a visit that found nothing, and P(bad) after one that did: the published start."""

LEAK = 0.98
"""A column that alone orders the outcomes this well was known only with the outcome."""

DROP = 1.920729
"""Log-likelihood units below the maximum that bound a 95 % interval of one number."""

GRID = np.concatenate([np.arange(0.0, 0.95, 0.025), [0.95, 0.97, 0.98, 0.99, 0.995]])
"""Persistences looked at before the best one is refined."""


@dataclass(frozen=True)
class RecordColumns:
    """Names of the columns of a user's own records; the ``records`` section of a model file."""

    file: str = ""
    """CSV beside the model file."""
    arm: str = "id"
    """Whom the record is about."""
    elapsed: str = "elapsed"
    """Slots since the inspection before."""
    before: str = "before"
    """1 when that inspection found the arm bad, 0 when not, empty when there was none."""
    outcome: str = "outcome"
    """1 when this inspection found the arm bad, 0 when not."""
    features: tuple[str, ...] = ()
    """Columns known before the visit; text columns become one indicator a value."""
    after_visit: tuple[str, ...] = ()
    """Columns that are results of the visit itself; they may not be features."""


@dataclass(frozen=True, eq=False)
class Records:
    """Checked records: arrays over the R rows whose history is known; ``dropped`` counts the others."""

    arm: np.ndarray
    elapsed: np.ndarray
    before: np.ndarray
    outcome: np.ndarray
    features: np.ndarray
    feature_names: tuple[str, ...]
    dropped: int

    def __len__(self) -> int:
        return len(self.outcome)

    def of(self, rows: np.ndarray) -> Records:
        """Some of the rows."""
        return Records(
            self.arm[rows], self.elapsed[rows], self.before[rows], self.outcome[rows], self.features[rows],
            self.feature_names, self.dropped,
        )  # fmt: skip


def area_under_curve(score: np.ndarray, outcome: np.ndarray) -> float:
    """Chance that a bad arm scores above a good one; ties count half; nan when one kind is missing."""
    bad = outcome > 0
    n_bad, n_good = int(bad.sum()), int((~bad).sum())
    if not n_bad or not n_good:
        return float("nan")
    rank = stats.rankdata(score)
    return float((rank[bad].sum() - n_bad * (n_bad + 1) / 2) / (n_bad * n_good))


def records_of(model: Model) -> Records:
    """The records that the model file's ``records`` section names.

    Raises
    ------
    ModelError
        When there is no such section, or the file is wrong.
    """
    section = dict(model.settings.get("records") or {})
    if not section.get("file") or model.path is None:
        raise ModelError("the model has no records", "add `records: {file: visits.csv, arm: ..., outcome: ...}`.")
    known = [field.name for field in fields(RecordColumns)]
    unknown = [key for key in section if key not in known]
    if unknown:
        raise ModelError(f"records.{unknown[0]}: unknown key", nearest(unknown[0], known))
    for key in ("features", "after_visit"):
        section[key] = tuple(section.get(key, ()))
    columns = RecordColumns(**section)
    return read_records(model.path.parent / columns.file, columns)


def read_records(source: TableLike, columns: RecordColumns) -> Records:
    """Read a user's own records.

    Raises
    ------
    ModelError
        For rows that are not numbers or no 0/1 results; for a feature that leaks the outcome: one that is declared a
        result of the visit, is the outcome itself, or alone orders the outcomes almost perfectly.
    """
    table = Table.read(source, needed=(columns.arm, columns.outcome)).without_totals(columns.arm)
    results = {columns.outcome, *columns.after_visit}
    for name in columns.features:
        if name in results:
            raise ModelError(
                f"{table.source}: feature {name!r} is a result of the visit it should predict",
                "leave it out of features: it is not known before the visit.",
            )
    findings = Findings(table.source)
    outcome = table.numbers(columns.outcome, minimum=0, maximum=1)
    cells = table.text(columns.before)
    known = np.array([cell != "" for cell in cells])
    before = np.zeros(len(cells))
    for row in np.flatnonzero(known).tolist():
        if cells[row] not in ("0", "1", "0.0", "1.0"):
            findings.add(
                table.place(row), f"{columns.before} is {cells[row]!r}", "write 0 or 1, or leave it empty when unknown"
            )
            continue
        before[row] = float(cells[row])
    for row in np.flatnonzero((outcome != 0) & (outcome != 1)).tolist():
        findings.add(table.place(row), f"{columns.outcome} is {outcome[row]:g}", "write 0 or 1")
    findings.raise_if_any()
    elapsed = table.numbers(columns.elapsed, minimum=0)
    blocks, names = [], []
    for name in columns.features:
        block, labels = _feature(table, name)
        blocks.append(block)
        names += labels
    features = np.concatenate(blocks, axis=1) if blocks else np.zeros((len(cells), 0))
    for number, name in enumerate(names):
        area = area_under_curve(features[:, number], outcome)
        if max(area, 1 - area) >= LEAK:
            raise ModelError(
                f"{table.source}: feature {name!r} alone orders the outcomes with an area under the curve of "
                f"{max(area, 1 - area):.3f}: it is a result of the visit, or made from one",
                "leave it out, or list it under after_visit.",
            )
    if not known.any():
        raise ModelError(f"{table.source}: no record has an inspection before", "give pairs of inspections.")
    whole = Records(
        np.array(table.text(columns.arm), dtype=str), elapsed, before, outcome, features, tuple(names),
        int((~known).sum()),
    )  # fmt: skip
    return whole.of(known)


def _feature(table: Table, name: str) -> tuple[np.ndarray, list[str]]:
    """A numeric column, scaled, or the indicators of a text column's values."""
    cells = table.text(name)
    values = table.numbers(name) if table.is_numeric(name) else None
    if values is None:
        kinds, position = np.unique(np.array(cells, dtype=str), return_inverse=True)
        return np.eye(len(kinds))[position.reshape(-1)], [f"{name}={kind}" for kind in kinds.tolist()]
    spread = values.std()
    return ((values - values.mean()) / (spread if spread > 0 else 1.0))[:, None], [name]


def grouped_split(records: Records, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on and rows to test on, with every arm's records on one side.

    ``share`` is the part of the arms that goes to the test side.
    """
    if not 0 < share < 1:
        raise ModelError(f"share is {share:g}", "give a number between 0 and 1.")
    arms, owner = np.unique(records.arm, return_inverse=True)
    if len(arms) < 2:
        raise ModelError("records of one arm only", "give records of at least two arms.")
    count = min(len(arms) - 1, max(1, round(share * len(arms))))
    tested = np.zeros(len(arms), dtype=bool)
    tested[rng.permutation(len(arms))[:count]] = True
    tested = tested[owner.reshape(-1)]
    return np.flatnonzero(~tested), np.flatnonzero(tested)


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted cohort.

    ``persistence`` with its 95 % profile interval ``low .. high`` (``open_low``: zero is not excluded); ``weights`` of
    the long-run share of bad in logits, intercept first; ``log_likelihood`` at the maximum, and ``profile``: pairs of
    persistence and log-likelihood.
    """

    persistence: float
    low: float
    high: float
    weights: np.ndarray
    log_likelihood: float
    profile: np.ndarray
    n_records: int
    sure: float = SURE

    @property
    def open_low(self) -> bool:
        """Whether no memory at all is within the interval."""
        return self.low <= 0.0

    def bad_share(self, features: np.ndarray) -> np.ndarray:
        """Long-run share of bad of arms with these features, (R,)."""
        return _logistic(_design(features) @ self.weights)

    def probabilities(self, features: np.ndarray, persistence: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(stay_good, recover) of arms with these features, at the fitted or another persistence."""
        r, good = self.persistence if persistence is None else persistence, 1 - self.bad_share(features)
        return good + (1 - good) * r, good * (1 - r)

    def predict(self, records: Records) -> np.ndarray:
        """P(bad) at each record's visit, (R,)."""
        return _bad(self.bad_share(records.features), records, self.persistence, self.sure)

    def __str__(self) -> str:
        note = " (no memory is not excluded)" if self.open_low else ""
        interval = f"95 % {self.low:.3f} to {self.high:.3f}{note}"
        return f"persistence {self.persistence:.3f}, {interval}; {self.n_records} records"


def _logistic(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _design(features: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(features), 1)), features], axis=1)


def _bad(share: np.ndarray, records: Records, persistence: float, sure: float) -> np.ndarray:
    memory = persistence**records.elapsed
    start = np.where(records.before > 0, sure, 1 - sure)
    return share * (1 - memory) + start * memory


def _weights(
    records: Records, persistence: float, begin: np.ndarray, ridge: float, sure: float
) -> tuple[float, np.ndarray]:
    """Best log-likelihood at a persistence, and its weights."""
    design, memory = _design(records.features), persistence**records.elapsed
    bad, good = records.outcome > 0, records.outcome <= 0

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        share = _logistic(design @ weights)
        chance = np.clip(_bad(share, records, persistence, sure), 1e-12, 1 - 1e-12)
        value = np.log(chance[bad]).sum() + np.log(1 - chance[good]).sum()
        slope = np.where(bad, 1 / chance, -1 / (1 - chance)) * (1 - memory) * share * (1 - share)
        penalty = ridge * (weights[1:] ** 2).sum()
        return -value + penalty, -(design.T @ slope) + 2 * ridge * np.concatenate([[0.0], weights[1:]])

    found = optimize.minimize(loss, begin, jac=True, method="L-BFGS-B")
    return -float(found.fun), found.x


def fit_records(records: Records, *, ridge: float = 1.0, sure: float = SURE) -> Fit:
    """Maximum likelihood of the long-run share of bad (logistic in the features) and one persistence for all.

    Parameters
    ----------
    ridge
        Weight of the squared feature weights: keeps indicators of rare values finite; no effect without features.
    sure
        P(bad) right after a visit that found the arm bad, and P(good) after one that did not.

    Returns
    -------
    Fit
        With the profile interval of the persistence. Records often hardly identify it: show the interval, and what
        the plan loses over it (:func:`sensitivity`).
    """
    if not 0 < records.outcome.mean() < 1:
        raise ModelError("all outcomes are the same", "give records with both results.")
    rate = float(records.outcome.mean())
    weights = np.zeros(1 + records.features.shape[1])
    weights[0] = np.log(rate / (1 - rate))
    profile, kept = [], []
    for persistence in GRID.tolist():
        value, weights = _weights(records, persistence, weights, ridge, sure)
        profile.append((persistence, value))
        kept.append(weights)
    at = int(np.argmax([value for _, value in profile]))
    sides = (GRID[max(0, at - 1)], GRID[min(len(GRID) - 1, at + 1)])
    refined = optimize.minimize_scalar(
        lambda r: -_weights(records, r, kept[at], ridge, sure)[0],
        bounds=sides,
        method="bounded",
        options={"xatol": 1e-5},
    )
    best, top = (float(refined.x), -float(refined.fun))
    if profile[at][1] >= top:
        best, top = profile[at]
    _, weights = _weights(records, best, kept[at], ridge, sure)

    def short(persistence: float) -> float:
        return _weights(records, persistence, weights, ridge, sure)[0] - top + DROP

    # The outermost persistences that are not excluded: a flat profile may dip in between.
    inside = [r for r, value in profile if value >= top - DROP] + [best]
    ends = []
    for inner, outer in ((min(inside), GRID[min(inside) > GRID]), (max(inside), GRID[max(inside) < GRID][::-1])):
        ends.append(float(optimize.brentq(short, inner, outer[-1], xtol=1e-4)) if outer.size else inner)
    low, high = ends
    return Fit(best, low, high, weights, top, np.array(sorted([*profile, (best, top)])), len(records), sure)


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """What planning with one persistence costs when another is true.

    ``value[i, j]``: reward of the plan made with ``persistence[i]`` when ``persistence[j]`` is true; ``idle`` (P,)
    without inspections; ``moved[i]`` visits that differ from the plan of the middle value.
    """

    persistence: tuple[float, ...]
    value: np.ndarray
    idle: np.ndarray
    moved: np.ndarray

    @property
    def regret(self) -> np.ndarray:
        """Loss against knowing the truth, as a share of what inspections can gain then, (P, P)."""
        best = np.diag(self.value)
        return (best - self.value) / np.maximum(best - self.idle, 1e-12)

    def rows(self) -> list[dict[str, Any]]:
        """One row a persistence planned with."""
        return [
            {
                "planned_with": round(r, 3),
                "moved": int(self.moved[i]),
                **{f"regret_if_{true:.3f}": float(self.regret[i, j]) for j, true in enumerate(self.persistence)},
            }
            for i, r in enumerate(self.persistence)
        ]

    def __str__(self) -> str:
        return table_text(self.rows())


def sensitivity(
    good_share: np.ndarray,
    persistence: Sequence[float],
    windows: Windows,
    capacity: int,
    *,
    age: np.ndarray | None = None,
    once: bool = False,
) -> Sensitivity:
    """Plans of one period at several persistences (the interval's ends and its middle), each judged under all.

    Parameters
    ----------
    good_share
        Long-run share of good of each arm, (N,).
    capacity
        Visits a slot.
    once
        Whether every arm must be visited; at most once otherwise.
    """
    good = np.asarray(good_share, dtype=np.float64)
    persistence = sorted({float(r) for r in persistence})
    age = np.zeros(len(good), dtype=np.int64) if age is None else age
    columns = VisitColumns(Arms.from_arrays(len(good)), windows.n_slots, windows.open)
    visits = Frequency(equal=1) if once else Frequency(at_most=1)
    actions = ActionSet(columns, {"visits": visits, "slots": SlotBudget(at_most=capacity)})
    gains, idle = [], []
    for r in persistence:
        chains = BeliefChains.build(good + (1 - good) * r, good * (1 - r), tolerance=1e-4)
        gains.append(exact_gains(chains, age, windows.n_slots)[columns.arm, columns.slot])
        idle.append(sum(float(chains.at(age + t + 1).sum()) for t in range(windows.n_slots)))
    plans = [plan_visits(actions, weights).action for weights in gains]
    value = np.array([[idle[j] + float(gains[j] @ plan) for j in range(len(gains))] for plan in plans])
    middle = plans[len(plans) // 2]
    moved = np.array([int(((plan > 0) & (middle == 0)).sum()) for plan in plans])
    return Sensitivity(tuple(persistence), value, np.array(idle), moved)
