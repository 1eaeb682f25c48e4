"""From inspection records to decay: memory that an establishment has, told apart from establishments that differ.

Who was bad once is bad more often later, also where nobody remembers anything: some are simply worse. The persistence
fitted without features mixes the two. It is sold as memory only where it holds with every establishment's own level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.problem import Table
from rmab_opt.report import tree
from rmab_opt.settings.inspection.dates import read_date
from rmab_opt.settings.inspection.fit import Fit, RecordColumns, Records, fit_records, read_records
from rmab_opt.settings.inspection.instances import HIGH, LOW

__all__ = ["Memory", "from_records", "pairs_of"]

DAYS = {"day": 1.0, "week": 7.0, "month": 365.25 / 12}
WORKING = 5 / 7
"""Slots of a calendar by day are working days."""


@dataclass(frozen=True, eq=False)
class Memory:
    """What records say of decay: ``pooled`` without anything known of the arms, ``told`` with it.

    ``arms`` has one row an arm: its bad share, pooled with its class by how much is known of it, and its decay at the
    persistence that may be planned with. ``kept`` says whether that is more than none.
    """

    pooled: Fit
    told: Fit
    kept: bool
    arms: list[dict[str, Any]]
    spread: float

    @property
    def persistence(self) -> float:
        """What a plan may count on."""
        return self.told.persistence if self.kept else 0.0

    def summary(self) -> dict[str, Any]:
        """As plain values."""
        both = {
            name: {"persistence": fit.persistence, "low": fit.low, "high": fit.high, "records": fit.n_records}
            for name, fit in (("pooled", self.pooled), ("with_features", self.told))
        }
        return {**both, "memory": self.kept, "planned_with": self.persistence, "arms": len(self.arms)}

    def __str__(self) -> str:
        lines = {"pooled": str(self.pooled), "with what is known of each": str(self.told)}
        if self.kept:
            lines["memory"] = (
                f"yes: plan with {self.told.persistence:.3f}, and see what it earns at {self.told.low:.3f}"
            )
        else:
            lines["memory"] = (
                "not shown: what looks like memory is establishments that differ; plan by class risk (persistence 0), "
                "where a visit's date makes no difference"
            )
        lines["bad share"] = (
            f"{min(r['bad_share'] for r in self.arms):.3f} to {max(r['bad_share'] for r in self.arms):.3f}"
        )
        return tree(f"Decay of {len(self.arms)} establishments", lines)


def pairs_of(table: Table, arm: str, dated: str, outcome: str, unit: str) -> Table:
    """Dated visits as pairs: the columns of each visit with ``elapsed`` slots since the one before and ``before``.

    Raises
    ------
    ModelError
        When a date cannot be read or a unit is unknown.
    """
    if unit not in DAYS:
        raise ModelError(f"unit is {unit!r}", f"use one of {', '.join(DAYS)}.")
    ids, results = table.text(arm), table.text(outcome)
    days = [read_date(cell, f"{table.place(row)}: {dated}").toordinal() for row, cell in enumerate(table.text(dated))]
    length = DAYS[unit] / (WORKING if unit == "day" else 1.0)
    elapsed, before = ["0"] * len(ids), [""] * len(ids)
    latest: dict[str, int] = {}
    for row in sorted(range(len(ids)), key=lambda r: (days[r], r)):
        earlier = latest.get(ids[row])
        if earlier is not None:
            elapsed[row] = str(round((days[row] - days[earlier]) / length, 4))
            before[row] = results[earlier]
        latest[ids[row]] = row
    return Table({**table.columns, "elapsed": elapsed, "before": before}, source=table.source, first_row=2)


def from_records(
    source: str | Path | Table, columns: RecordColumns, *, dated: str | None = None, group: str | None = None,
    unit: str = "month",
) -> Memory:  # fmt: skip
    """Decay of the arms in some records.

    Parameters
    ----------
    columns
        Of the records; with ``dated``, its ``elapsed`` and ``before`` are found from the dates.
    group
        Column with the arm's class: a feature, and whom an arm's own share is pooled with.
    unit
        Slots of the plan, with ``dated``.

    Raises
    ------
    ModelError
        As :func:`read_records`.
    """
    table = source if isinstance(source, Table) else Table.from_csv(source)
    if dated is not None:
        table = pairs_of(table, columns.arm, dated, columns.outcome, unit)
        columns = RecordColumns(arm=columns.arm, outcome=columns.outcome, features=columns.features)
    features = tuple(dict.fromkeys((*columns.features, *((group,) if group else ()))))
    names: Mapping[str, Any] = {"arm": columns.arm, "elapsed": columns.elapsed, "before": columns.before}
    records = read_records(table, RecordColumns(**names, outcome=columns.outcome, features=features))
    bare = Records(
        records.arm, records.elapsed, records.before, records.outcome, records.features[:, :0], (), records.dropped
    )
    pooled = fit_records(bare)
    # Also each arm's own level, as far as its other records tell it: what stays is memory, not a difference.
    told = fit_records(_levelled(records))
    kept = not told.open_low
    arms, spread = _arms(table, columns, group, told.persistence if kept else 0.0)
    for row in arms:
        row.update({LOW: round(told.low if kept else 0.0, 6), HIGH: round(told.high, 6)})
    return Memory(pooled, told, kept, arms, spread)


def _levelled(records: Records) -> Records:
    """Records with each arm's bad share over its other pairs, shrunk to that of all, as a further feature."""
    _, owner = np.unique(records.arm, return_inverse=True)
    owner = owner.reshape(-1)
    bad, count = np.bincount(owner, weights=records.outcome), np.bincount(owner)
    rate, strength = float(records.outcome.mean()), 4.0
    # The pair's own outcome and the result before it are left out: the one is predicted, the other is the memory.
    others = np.maximum(count[owner] - 1, 0)
    share = (bad[owner] - records.outcome + strength * rate) / (others + strength)
    level = np.log(share / (1 - share))
    spread = float(level.std())
    own = ((level - level.mean()) / (spread if spread > 0 else 1.0))[:, None]
    return Records(
        records.arm, records.elapsed, records.before, records.outcome, np.concatenate([records.features, own], axis=1),
        (*records.feature_names, "own level"), records.dropped,
    )  # fmt: skip


def _arms(
    table: Table, columns: RecordColumns, group: str | None, persistence: float
) -> tuple[list[dict[str, Any]], float]:
    """One row an arm, its bad share pooled with its class by a beta prior of matching moments."""
    ids, outcome = np.array(table.text(columns.arm)), table.numbers(columns.outcome)
    classes = np.array(table.text(group)) if group else np.full(len(ids), "all")
    names, first, owner = np.unique(ids, return_index=True, return_inverse=True)
    bad, count = np.bincount(owner, weights=outcome), np.bincount(owner)
    rows: list[dict[str, Any]] = []
    strengths = []
    for name in np.unique(classes[first]).tolist():
        mine = np.flatnonzero(classes[first] == name)
        rate = float(np.clip(bad[mine].sum() / count[mine].sum(), 1e-6, 1 - 1e-6))
        strength = _strength(bad[mine], count[mine], rate)
        strengths.append(strength)
        for i in mine.tolist():
            share = (bad[i] + strength * rate) / (count[i] + strength)
            rows.append(
                {
                    "id": str(names[i]), "class": name, "visits": int(count[i]), "bad_share": round(float(share), 6),
                    "stay_good": round(float(1 - share + share * persistence), 6),
                    "recover": round(float((1 - share) * (1 - persistence)), 6),
                }
            )  # fmt: skip
    return rows, float(np.mean(strengths))


def _strength(bad: np.ndarray, count: np.ndarray, rate: float) -> float:
    """Visits that the class is worth against an arm's own: from the variance between arms beyond chance."""
    several = count > 1
    if several.sum() < 10:
        return 10.0
    share, size = bad[several] / count[several], count[several]
    noise = rate * (1 - rate) / size
    between = float(np.average((share - rate) ** 2 - noise, weights=size))
    return float(np.clip(rate * (1 - rate) / max(between, 1e-9) - 1, 1.0, 1000.0))
