"""From a call log to each member's chances, with what the log can and cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from rmab_opt.errors import Findings, ModelError
from rmab_opt.problem import Table
from rmab_opt.programme.columns import LogColumns, week_columns, week_label, week_number
from rmab_opt.programme.moves import NO_MEMORY, UNKNOWN, MemoryGap, Moves, count_moves, memory_gap
from rmab_opt.programme.targeted import TargetedFit, fit_targeted, tables_of
from rmab_opt.report import table_csv, table_text

__all__ = ["CallLog", "Estimate", "Member", "estimate", "read_log"]

FEW_MOVES = 30
"""Called moves of a group and state below which its uplift is not worth a figure."""

WIDE = 0.30
"""Width of an uplift's interval above which the figure is not worth much."""

NOTABLE = 0.10
"""Difference by memory above which more levels are suggested."""

STATES = ("away", "engaged")

MOST_WEEKS = 1040
"""Weeks, twenty years, beyond which a log's week is a slip of the pen."""

VALID = (
    "The estimate holds where calls depended on group, state, reach and a lasting level of the family; not where "
    "workers reacted to a passing event that the log does not show."
)


@dataclass(frozen=True)
class Member:
    """Somebody to estimate for: group, and whether they can be reached."""

    group: str
    reachable: bool = True


@dataclass(frozen=True, eq=False)
class CallLog:
    """A log side by side: members sorted by id, weeks in order without a gap.

    ``seen`` and ``called`` are (N, W): 1 yes, 0 no, ``UNKNOWN`` where the log has nothing.
    """

    ids: tuple[str, ...]
    weeks: tuple[int, ...]
    seen: np.ndarray
    called: np.ndarray
    said: tuple[str, ...] = ()


def read_log(table: Table, columns: LogColumns) -> CallLog:
    """A log with one row a member and week, or (``columns.legend``) with one column a week.

    Raises
    ------
    ModelError
        Naming rows whose week is none, that contradict another of the same member and week, or that have a cell
        without a meaning.
    """
    found, findings = _Rows(table), Findings(table.source)
    if columns.legend is None:
        assert columns.week is not None
        assert columns.called is not None
        assert columns.listened is not None
        cells = table.text(columns.week)
        weeks = [week_number(cell) for cell in cells]
        if any(week is None for week in weeks):
            dates = table.dates(columns.week)
            weeks = [None if day is None else (day.toordinal() - 1) // 7 for day in dates]
        parts = table.text(columns.id), weeks, table.yes_no(columns.called), table.yes_no(columns.listened)
        for row, (name, week, call, heard) in enumerate(zip(*parts, strict=True)):
            if not name or week is None:
                findings.add(table.place(row), "id or week is missing", "complete the row")
            else:
                found.add(row, name, week, call, heard)
    else:
        _read_wide(table, columns, found, findings)
    return found.log(findings)


def _read_wide(table: Table, columns: LogColumns, found: _Rows, findings: Findings) -> None:
    """One column a week; a cell without a meaning is refused, an empty one is missing unless the legend has it."""
    legend = {code.strip().casefold(): set(meaning) for code, meaning in (columns.legend or {}).items()}
    names = week_columns(table, table.column(columns.id))
    if not names:
        raise ModelError(f"{table.source}: no column is named by a week", "name them 1, 2, ... or 2026-W05.")
    for column in names:
        week = week_number(column)
        assert week is not None
        for row, (name, cell) in enumerate(zip(table.text(columns.id), table.text(column), strict=True)):
            meaning = legend.get(cell.casefold())
            if not name:
                findings.add(table.place(row), "id is missing", "complete the row")
            elif meaning is None and cell:
                findings.add(
                    table.place(row), f"{column}: {cell!r} is not in the legend", f"use one of {', '.join(legend)}"
                )
            elif meaning is not None and "unknown" not in meaning:
                found.add(row, name, week, "called" in meaning, "listened" in meaning)
            else:
                found.names.add(name)


class _Rows:
    """Rows of a log as they are read, whatever its form."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.names: set[str] = set()
        self.rows: list[tuple[int, str, int, bool | None, bool | None]] = []

    def add(self, row: int, name: str, week: int, call: bool | None, heard: bool | None) -> None:
        self.names.add(name)
        self.rows.append((row, name, week, call, heard))

    def log(self, findings: Findings) -> CallLog:
        table, names = self.table, tuple(sorted(self.names))
        known = sorted({week for _, _, week, _, _ in self.rows})
        if not known:
            findings.raise_if_any()
            raise ModelError(f"{table.source}: no week", "give the log at least two weeks.")
        if known[-1] - known[0] > MOST_WEEKS:
            findings.raise_if_any()
            raise ModelError(
                f"{table.source}: weeks {known[0]} to {known[-1]} are more than {MOST_WEEKS}", "correct the weeks."
            )
        arm, span = {name: n for n, name in enumerate(names)}, range(known[0], known[-1] + 1)
        found = np.full((2, len(names), len(span)), UNKNOWN)
        for row, name, week, call, heard in self.rows:
            at = arm[name], week - known[0]
            for part, value in enumerate((heard, call)):
                now = UNKNOWN if value is None else int(value)
                if found[part][at] not in (UNKNOWN, now) and now != UNKNOWN:
                    findings.add(table.place(row), f"{name!r} in week {week} says otherwise in another row", "keep one")
                elif now != UNKNOWN:
                    found[part][at] = now
        findings.raise_if_any()
        lost = len(names) * len(span) - len({(name, week) for _, name, week, _, _ in self.rows})
        said = (
            f"{len(table)} rows, {len(names)} members, weeks {week_label(known[0])} to {week_label(known[-1])}; "
            f"{lost} of {len(names) * len(span)} member-weeks have no row and are missing, not 'no call'",
        )
        return CallLog(names, tuple(span), found[0], found[1], said)


@dataclass(frozen=True, eq=False)
class Estimate:
    """Chances of members sorted by id, with the evidence.

    ``transition`` is (N, 2, 2, 2) over the states away and engaged.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    group: np.ndarray
    reachable: np.ndarray
    moves: Moves
    fit: TargetedFit
    weeks: int
    first_share: np.ndarray
    """Share engaged by group among those seen in their first week: what is assumed of somebody new."""
    memory: MemoryGap = NO_MEMORY
    """Whether the week before the last says more than the last and the member's own level do."""

    def never_hurting(self) -> Estimate:
        """The estimate in which a call never hurts: every draw is brought into that order, not the mean alone."""
        up = self.fit.draws[..., 0]
        mean = up.mean(axis=2, keepdims=True)
        ordered = np.where(up[:, :, :1] > up[:, :, 1:], mean, up)
        tables = tables_of(ordered.mean(axis=0, dtype=np.float64)[..., None])
        return replace(self, fit=replace(self.fit, draws=ordered[..., None], transition=tables))

    @property
    def transition(self) -> np.ndarray:
        """Posterior mean tables, (N, A, S, S)."""
        return self.fit.transition

    def uplifts(self) -> list[dict[str, Any]]:
        """One row a group and state: mean uplift with its interval, the called moves behind it."""
        return [dict(row) for row in self._uplifts]

    @cached_property
    def _uplifts(self) -> list[dict[str, Any]]:
        rows = []
        draws = self.fit.draws[..., 0]
        for g, name in enumerate(self.groups):
            here = self.group == g
            if not here.any():
                continue
            gain = (draws[:, here, 1] - draws[:, here, 0]).mean(axis=1)
            low, high = np.quantile(gain, [0.025, 0.975], axis=0)
            for s, state in enumerate(STATES):
                rows.append(
                    {
                        "group": name,
                        "state": state,
                        "uplift": float(gain[:, s].mean()),
                        "low": float(low[s]),
                        "high": float(high[s]),
                        "called moves": int(self.moves.total[here, 1, s].sum()),
                        "passive moves": int(self.moves.total[here, 0, s].sum()),
                    }
                )
        return rows

    def warnings(self) -> list[str]:
        """Sentences of what the log cannot tell; each appears when its condition holds and only then."""
        said = []
        for row in self.uplifts():
            cell = f"{row['group']}/{row['state']}"
            if row["low"] <= 0:
                interval = f"{row['low']:.3f} to {row['high']:.3f}"
                said.append(f"not shown: that calls help {cell} (uplift {row['uplift']:.3f}, {interval})")
            width = row["high"] - row["low"]
            if row["called moves"] < FEW_MOVES or width > WIDE:
                per_week = row["called moves"] / max(self.weeks, 1)
                more = int(np.ceil(3 * row["called moves"] / per_week)) if per_week > 0 else 0
                until = (
                    f"about {more} further weeks like these would halve it"
                    if more
                    else "there are no calls to learn from"
                )
                said.append(
                    f"not enough data for a figure: {cell} has {row['called moves']} called moves, the interval is "
                    f"{width:.2f} wide; {until}"
                )
        for g, name in enumerate(self.groups):
            delta, half = float(self.fit.delta[g]), 1.96 * float(self.fit.delta_sd[g])
            if abs(delta) > half:
                whom = "weaker" if delta < 0 else "stronger"
                said.append(f"targeting: calls went to {whom} families of {name}: delta {delta:.2f} +- {half:.2f}")
        if self.memory.place is not None:
            g, a, before = self.memory.place
            remedy = "; states that look back on more weeks would say more" if self.memory.largest > NOTABLE else ""
            said.append(
                f"memory: {self.groups[g]}/{STATES[before]} {'with' if a else 'without'} a call move on differently by "
                f"{self.memory.largest:.2f} according to the week before{remedy}"
            )
        return said

    def exposure(self) -> list[str]:
        """Who was called, and how those who never were move by themselves."""
        called = self.moves.visits[:, 1].sum(axis=1)
        never = (called == 0).mean()
        reached = f"{int(called.sum())} calls to {int((called > 0).sum())} of {len(called)}"
        lines = [f"{reached}; never called: {100 * never:.0f} %"]
        passive = self.moves.counts[:, 0, :, 1], self.moves.total[:, 0]
        parts = []
        for s, state in enumerate(STATES):
            shares = []
            for who in (called > 0, (called == 0) & self.reachable):
                total = passive[1][who, s].sum()
                shares.append(passive[0][who, s].sum() / total if total else np.nan)
            parts.append(f"{state} {shares[0]:.3f} / {shares[1]:.3f}")
        lines.append(
            f"engaged next week without a call, ever called / never called though reachable: {', '.join(parts)}"
        )
        return lines

    def __str__(self) -> str:
        rows = [{**row} for row in self.uplifts()]
        moves = self.moves.total.sum(axis=(0, 2))
        head = f"Estimate · {len(self.ids)} members, {self.weeks} weeks, {moves[0]} passive and {moves[1]} called moves"
        warnings = [f"! {line}" for line in self.warnings()]
        return "\n".join([head, table_text(rows), *self.exposure(), *warnings, VALID])

    def document(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        moves = self.moves.total.sum(axis=(0, 2))
        return {
            "members": len(self.ids),
            "weeks": self.weeks,
            "moves": {"passive": int(moves[0]), "called": int(moves[1])},
            "uplift": self.uplifts(),
            "targeting": {
                name: {"delta": float(self.fit.delta[g]), "half_width": 1.96 * float(self.fit.delta_sd[g])}
                for g, name in enumerate(self.groups)
            },
            "memory": self.memory.largest,
            "warnings": self.warnings(),
            "valid": VALID,
        }

    def transitions_csv(self, states: Sequence[str] = STATES, transition: np.ndarray | None = None) -> str:
        """Rows for ``{kind: tabular, by: id}``: id, state, action and the chance of each next state."""
        tables, rows = self.transition if transition is None else transition, []
        for n, name in enumerate(self.ids):
            for s, state in enumerate(states):
                for a in (0, 1):
                    up = float(tables[n, a, s, 1])
                    rows.append(
                        {"id": name, "state": state, "action": a, states[0]: f"{1 - up:.12f}", states[1]: f"{up:.12f}"}
                    )
        return table_csv(rows)


def estimate(log: CallLog, members: Mapping[str, Member], *, call_acts: str = "next_week") -> Estimate:
    """Fit the targeted-log estimator for all members; those who are not in the log get their group's chances.

    Raises
    ------
    ModelError
        When there is no called move, or all members of a group were called in the same weeks: such a log says nothing
        about what calls do.
    """
    ids = tuple(sorted(members))
    row = {name: n for n, name in enumerate(log.ids)}
    at = np.array([row.get(name, -1) for name in ids])
    blank = np.full((1, log.seen.shape[1]), UNKNOWN)
    seen, called = np.vstack([log.seen, blank])[at], np.vstack([log.called, blank])[at]
    groups = tuple(sorted({member.group for member in members.values()}))
    group = np.array([groups.index(members[name].group) for name in ids])
    reachable = np.array([members[name].reachable for name in ids])
    moves = count_moves(seen, called, 2, call_acts=call_acts)
    if not moves.total[:, 1].sum():
        raise ModelError(
            "there is no called move in the log: nothing says what a call does",
            "give a log with calls, under the register's ids, and with the state of the week before and after.",
        )
    for g, name in enumerate(groups):
        here = group == g
        if not moves.total[here, 1].sum():
            # Nothing of its own: what calls do is taken from the whole cohort, and said among the warnings.
            continue
        logged = called[here][(called[here] != UNKNOWN).any(axis=1)]
        by_week = [set(column[column != UNKNOWN]) for column in logged.T]
        if len(logged) > 1 and all(len(values) <= 1 for values in by_week):
            raise ModelError(
                f"all of group {name!r} were called in the same weeks: the log cannot tell a call from a good week",
                "use weeks in which some were called and others not.",
            )
    fit = fit_targeted(moves, group, reachable, rng=np.random.default_rng(0))
    # In a log of results the call that led from a week to the next stands in the next week's row.
    taken = called if call_acts == "next_week" else np.roll(called, -1, axis=1)
    memory = memory_gap(seen, taken, group, fit.transition) if seen.shape[1] > 2 else NO_MEMORY
    first = _first_shares(seen, group, len(groups))
    return Estimate(ids, groups, group, reachable, moves, fit, len(log.weeks), first, memory)


def _first_shares(seen: np.ndarray, group: np.ndarray, n_groups: int) -> np.ndarray:
    known = seen != UNKNOWN
    has = known.any(axis=1)
    first = seen[np.arange(len(seen)), known.argmax(axis=1)]
    shares = np.full(n_groups, 0.5)
    for g in range(n_groups):
        here = (group == g) & has
        if here.any():
            shares[g] = first[here].mean()
    return shares
