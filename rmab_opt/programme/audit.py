"""A season looked back on: what was planned, done and seen; who got what; whether the dynamics moved; another list.

Everything is counted in groups: no id, name or telephone stands on the page.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import chdtrc

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Closed
from rmab_opt.decisions import Immediate, Model
from rmab_opt.decisions.policy import make_policy
from rmab_opt.errors import ModelError
from rmab_opt.problem import Season, Table
from rmab_opt.problem.table import nearest
from rmab_opt.programme.columns import LogColumns, read_columns, week_file, week_label, week_number
from rmab_opt.programme.estimate import STATES, CallLog, Estimate, estimate, read_log
from rmab_opt.programme.front_door import saved_gains
from rmab_opt.programme.groups import members_of
from rmab_opt.programme.ledger import Ledger
from rmab_opt.programme.moves import UNKNOWN, count_moves
from rmab_opt.programme.off_policy import OtherList, price_for, soft_price_rule, value_of_another
from rmab_opt.report import Picture, bars_svg, static_page, table_text

__all__ = ["Audit", "audit", "drift", "other_list"]

FAR = 3.0
"""Standard errors beyond which a group's moves are called drift; with a dozen cells compared, 1 in 30 by chance."""

LEVEL = 0.05
"""Of the test whether groups were called alike."""

FEW = 20
"""Moves below which a cell is not judged."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Audit:
    """What happened in a programme, by week and by group.

    ``other`` is the value of another list, or the sentence why it cannot be said.
    """

    title: str
    weeks: Rows
    groups: dict[str, Rows]
    drift: Rows
    other: OtherList | str
    said: list[str] = field(default_factory=list)

    def findings(self) -> list[str]:
        """What a reader should see first."""
        found = []
        for row in self.drift:
            if row["verdict"] != "as estimated":
                found.append(
                    f"drift: {row['group']}/{row['state']} {'called' if row['called'] else 'not called'}: engaged next "
                    f"week {row['seen']:.3f}, estimated {row['estimated']:.3f} ({row['errors']:+.1f} standard errors)"
                )
        for column, rows in self.groups.items():
            rates = [row for row in rows if row["members"]]
            if len(rates) > 1 and _differ(rates):
                low, high = (pick(rates, key=lambda row: row["calls a member"]) for pick in (min, max))
                found.append(
                    f"calls by {column}: from {low['calls a member']:.2f} a member ({low['group']}) to "
                    f"{high['calls a member']:.2f} ({high['group']})"
                )
        return found

    def __str__(self) -> str:
        parts = [f"Audit · {self.title}", table_text(self.weeks)]
        parts += [f"by {column}\n{table_text(rows)}" for column, rows in self.groups.items()]
        if self.drift:
            parts.append(f"moves seen against the estimate before\n{table_text(self.drift)}")
        other = [f"another list: {self.other}"] if isinstance(self.other, str) else self.other.lines()
        parts.append("\n".join([*(f"! {line}" for line in self.findings()), *other, *self.said]))
        return "\n\n".join(parts)

    def document(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "weeks": self.weeks,
            "groups": self.groups,
            "drift": self.drift,
            "other_list": self.other if isinstance(self.other, str) else self.other.summary(),
            "findings": self.findings(),
            "said": self.said,
        }

    def page(self) -> str:
        """One page for a ministry."""
        seen = [(f"week {row['week']}", float(row["engaged %"] or 0.0)) for row in self.weeks]
        calls = [(f"week {row['week']}", float(row["done"])) for row in self.weeks]
        parts: list[tuple[str, Any]] = [("", f"! {line}") for line in self.findings()]
        parts += [("Planned, done, seen", self.weeks)]
        pictures: list[tuple[str, Picture]] = [
            ("Calls made", bars_svg(calls, " calls", "Calls made in each recorded week.")),
            ("Engaged, of those seen", bars_svg(seen, " %", "Of those whose state was seen that week, the engaged.")),
        ]  # fmt: skip
        parts += pictures
        parts += [(f"Who got what, by {column}", rows) for column, rows in self.groups.items()]
        if self.drift:
            parts.append(("Do families still move as estimated", self.drift))
        lines = [self.other] if isinstance(self.other, str) else self.other.lines()
        parts += [("What another list would have earned", lines[0]), *(("", line) for line in lines[1:])]
        parts += [("What was assumed" if not k else "", line) for k, line in enumerate(self.said)]
        return static_page(f"{self.title} · after the weeks", parts)


def audit(folder: Path, log: Path | None = None, chance: str = "chance", calls: float | None = None) -> Audit:
    """Look back on the weeks that a programme's ledger holds.

    Parameters
    ----------
    folder
        Of the programme.
    log
        A call log with a further column: the chance with which the followed list gave each call. Without it nothing
        can be said about another list.
    chance
        That column.
    calls
        Calls a week of the other list; those made by default.

    Raises
    ------
    ModelError
        When no week is recorded yet, or the log does not fit.
    """
    from rmab_opt.catalog import load
    from rmab_opt.programme.folder import read_members, read_standing

    columns, standing = read_columns(folder / "columns.yaml"), read_standing(folder)
    model = load(folder)
    ledger = Ledger(folder / "ledger", model)
    if not ledger.rounds:
        raise ModelError(f"{folder}: no week is recorded yet", "record one with `rmab-opt next DIR --outcomes FILE`.")
    first_week = standing["week"] - standing["period"]
    names = LogColumns(id="id", week="week", called="called", listened="listened")
    whole = read_log(Table.read(folder / "log.csv"), names)
    before = _until(whole, first_week)
    members = members_of(read_members(folder, columns), columns.register_, before)
    acts = "next_week" if columns.log is None else columns.log.call_acts
    weeks = len(ledger.rounds)
    said = [f"{weeks} week{'s' if weeks != 1 else ''}, from week {week_label(first_week)}"]
    moved: Rows = []
    made: Estimate | None = None
    try:
        made = estimate(before, members, call_acts=acts)
        moved = drift(made, _from(whole, first_week))
    except ModelError as error:
        said.append(f"drift is not judged: {error.message}")
    other: OtherList | str
    if log is None:
        other = (
            "cannot be said: the lists left nothing to chance. To learn it, draw the last places of each list by "
            "lottery among those at the margin, log the chance of each call, and give the log with --log and --chance"
        )
    else:
        try:
            newest = folder / "weeks" / f"{week_file(standing['week'])}.json"
            gain = saved_gains(_bare(model), newest) if newest.is_file() else None
            other = other_list(Table.read(log), chance, model, names, calls, gain)
        except ModelError as error:
            other = f"cannot be said: {error.message}. {error.fix}"
    kept = tuple(dict.fromkeys(("group", *columns.register_.keep)))
    return Audit(folder.name, _weeks(ledger, first_week), _groups(ledger, kept), moved, other, said)


def _until(log: CallLog, week: int) -> CallLog:
    keep = np.array(log.weeks) < week
    return CallLog(log.ids, tuple(np.array(log.weeks)[keep].tolist()), log.seen[:, keep], log.called[:, keep])


def _from(log: CallLog, week: int) -> CallLog:
    keep = np.array(log.weeks) >= week
    return CallLog(log.ids, tuple(np.array(log.weeks)[keep].tolist()), log.seen[:, keep], log.called[:, keep])


def _weeks(ledger: Ledger, first: int) -> Rows:
    rows = []
    for number, found in enumerate(ledger.rounds):
        decided, done, seen = set(found["decided"]), set(found["done"]), list(found["observed"].values())
        rows.append(
            {
                "week": week_label(first + number),
                "members": len(found["ids"]),
                "planned": len(decided),
                "done": len(done),
                "planned, not done": len(decided - done),
                "done, not planned": len(done - decided),
                "seen": len(seen),
                "engaged %": 100 * float(np.mean([state == len(STATES) - 1 for state in seen])) if seen else None,
            }
        )
    return rows


def _groups(ledger: Ledger, columns: tuple[str, ...]) -> dict[str, Rows]:
    """By column, one row a value: member-weeks, places on lists, calls, engaged among those seen."""
    found: dict[str, Rows] = {}
    for column in columns:
        counts: dict[str, np.ndarray] = {}
        for one in ledger.rounds:
            decided, done = set(one["decided"]), set(one["done"])
            for name, cells in one["attributes"].items():
                if column not in cells:
                    continue
                state = one["observed"].get(name)
                counts.setdefault(cells[column], np.zeros(5))[:] += [
                    1, name in decided, name in done, state is not None, state == len(STATES) - 1
                ]  # fmt: skip
        weeks = max(len(ledger.rounds), 1)
        rows = [
            {
                "group": value or "-",
                "members": round(count[0] / weeks),
                "planned": int(count[1]),
                "calls": int(count[2]),
                "calls a member": float(count[2] / max(count[0], 1)) * weeks,
                "planned and called %": 100 * float(count[2] / count[1]) if count[1] else None,
                "engaged % of seen": 100 * float(count[4] / count[3]) if count[3] else None,
            }
            for value, count in sorted(counts.items())
        ]
        if rows:
            found[column] = rows
    return found


def _differ(rows: Rows) -> bool:
    """Whether groups were called at rates that chance alone does not explain: chi-square of the counts."""
    members, calls = (np.array([row[name] for row in rows], dtype=np.float64) for name in ("members", "calls"))
    expected = members * calls.sum() / members.sum()
    if not calls.sum():
        return False
    return float(chdtrc(len(rows) - 1, ((calls - expected) ** 2 / expected).sum())) < LEVEL


def drift(made: Estimate, later: CallLog) -> Rows:
    """Moves of later weeks against an estimate from before: one row a group, state and action with moves enough.

    The standard error holds both the chance of the moves and what the estimate leaves open.
    """
    row = {name: n for n, name in enumerate(later.ids)}
    at = np.array([row.get(name, -1) for name in made.ids])
    blank = np.full((1, later.seen.shape[1]), UNKNOWN)
    seen, called = np.vstack([later.seen, blank])[at], np.vstack([later.called, blank])[at]
    moves = count_moves(seen, called, 2)
    rows, draws = [], made.fit.draws[..., 0]
    for g, name in enumerate(made.groups):
        here = made.group == g
        for s, state in enumerate(STATES):
            for a in (0, 1):
                total = moves.total[here, a, s]
                count = int(total.sum())
                if count < FEW:
                    continue
                chance = made.transition[here, a, s, 1]
                drawn = draws[:, here, a, s] @ total
                spread = np.sqrt(float((total * chance * (1 - chance)).sum() + drawn.var()))
                apart = float(moves.counts[here, a, s, 1].sum() - (total * chance).sum()) / max(spread, 1e-12)
                rows.append(
                    {
                        "group": name,
                        "state": state,
                        "called": bool(a),
                        "moves": count,
                        "seen": float(moves.counts[here, a, s, 1].sum() / count),
                        "estimated": float((total * chance).sum() / count),
                        "errors": apart,
                        "verdict": "as estimated" if abs(apart) <= FAR else "has moved",
                    }
                )
    return rows


def other_list(
    table: Table,
    column: str,
    model: Model,
    names: LogColumns,
    calls: float | None = None,
    gain: np.ndarray | None = None,
) -> OtherList:
    """The value of a price rule on the estimate's gains, from a log whose calls were drawn with known chances.

    ``gain`` (N, S) of a call by state, e.g. at the prices of a saved list; solved for where it is not given.

    Raises
    ------
    ModelError
        When the column is missing, the log has no complete members, or :func:`value_of_another` refuses.
    """
    if column not in table:
        raise ModelError(f"{table.source}: no column {column!r}", nearest(column, list(table.columns)))
    log = read_log(table, names)
    chance = np.full(log.seen.shape, np.nan)
    place = {name: n for n, name in enumerate(log.ids)}
    week = {cell: w for w, cell in enumerate(log.weeks)}
    for name, cell, value in zip(
        table.text(names.id), table.text(names.week or "week"), table.numbers(column, minimum=0, maximum=1), strict=True
    ):
        number = week_number(cell)
        if number in week:
            chance[place[name], week[number]] = value
    state, action, chance = log.seen, log.called[:, :-1], chance[:, :-1]
    known = set(model.problem.arms.ids)
    whole = np.array([name in known for name in log.ids])
    whole &= (state != UNKNOWN).all(axis=1) & (action != UNKNOWN).all(axis=1) & np.isfinite(chance).all(axis=1)
    if not whole.any():
        raise ModelError(f"{table.source}: no member has all weeks with state, call and chance", "complete the log.")
    rows = [model.problem.arms.index(name) for n, name in enumerate(log.ids) if whole[n]]
    tables: Any = model.problem.dynamics
    transition, _ = tables.frozen_tabular() if hasattr(tables, "frozen_tabular") else tables.tabular()
    if gain is None:
        policy = make_policy("lagrangian", _bare(model))
        values = np.asarray(policy.rule.values)[0]  # type: ignore[attr-defined]
        gain = np.asarray(values[..., 1] - values[..., 0])
    gain = gain[rows]
    state, action, chance = state[whole], action[whole], chance[whole]
    wanted = float(action.sum()) / action.shape[1] if calls is None else calls
    target = soft_price_rule(gain, price_for(gain, state[:, :-1], wanted))
    return value_of_another(state, action, chance, target, transition[rows])


def _bare(model: Model) -> Model:
    """The model as seen by its prices alone: what is closed or left of a season does not change a gain's order."""
    kept = {
        name: one
        for name, one in model.actions.constraints.items()
        if not isinstance(one, Closed) and not one.open_limits
    }
    dynamics: Any = model.problem.dynamics
    problem = replace(
        model.problem, dynamics=dynamics.arms if isinstance(dynamics, Season) else dynamics, start_shared=None
    )
    return replace(model, problem=problem, actions=ActionSet(model.actions.columns, kept), objective=Immediate())
