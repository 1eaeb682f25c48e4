"""A programme's folder: from sheets to a model and a list, week after week.

``columns.yaml`` says which column means what; ``model.yaml`` with its tables is this week's model, to read and change;
``log.csv`` is the call log so far; ``weeks/`` has each list with its certificate; ``ledger/`` and ``cohort/`` what
happened. Everything is keyed by id and sorted by it, so that the order of a sheet's rows never matters.
"""

from __future__ import annotations

import csv
import datetime
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from rmab_opt.catalog import load
from rmab_opt.decisions import Decision, Model
from rmab_opt.errors import Findings, ModelError, OverdueError
from rmab_opt.overdue import given_up_at
from rmab_opt.problem import Table
from rmab_opt.problem.table import nearest
from rmab_opt.problem.table.conventions import Conventions, readings
from rmab_opt.programme.arrivals import ARRIVALS, Arrivals, rates_of
from rmab_opt.programme.asked import read_draft, write_draft
from rmab_opt.programme.by_hand import ByHand, borrowed, changes_by_hand, said_of, untouched, with_changes
from rmab_opt.programme.changes import Changes, changes_of_events, changes_of_register, is_events, require_members
from rmab_opt.programme.columns import (
    WORDS,
    Columns,
    LogColumns,
    PlanSection,
    RegisterColumns,
    check,
    infer,
    named,
    read_columns,
    read_sheet,
    read_told,
    unsaid,
    week_file,
    week_label,
    week_number,
    write_columns,
)
from rmab_opt.programme.estimate import STATES, CallLog, Estimate, estimate, read_log
from rmab_opt.programme.explore import called_useless, planned_tables, with_tables
from rmab_opt.programme.front_door import (
    Ahead,
    Outlook,
    Plan,
    ahead_of,
    choose_rule,
    plan_decision,
    saved_document,
)
from rmab_opt.programme.groups import members_of
from rmab_opt.programme.ledger import Ledger
from rmab_opt.programme.moves import UNKNOWN
from rmab_opt.programme.pages import Part, estimate_page, estimate_parts, list_pictures
from rmab_opt.programme.privacy import ERASED, erase_files, hide
from rmab_opt.programme.stability import DRAWS, Stability, stability_of
from rmab_opt.programme.targeted import tables_of
from rmab_opt.programme.trial import Villages, villages_of
from rmab_opt.records import held, json_text, read_object, write_atomically
from rmab_opt.records.cohort import Cohort
from rmab_opt.report import tree, workbook

__all__ = [
    "PATIENCE",
    "TOLD",
    "Week",
    "alone",
    "drawn_models",
    "erase",
    "estimate_sheets",
    "finish",
    "model_text",
    "next_week",
    "read_members",
    "read_register",
    "read_standing",
    "shown_of",
    "spread_of_villages",
    "stage_in",
    "start",
    "sure_again",
    "write_list",
]

RESTORE = "take the file back from a copy, or begin anew with `rmab-opt start`."
PATIENCE = 60.0
"""Seconds to wait for another command on the same folder."""

PLAIN_TEXT = re.compile(r"[A-Za-z][A-Za-z_/.-]*( [A-Za-z][A-Za-z_/.-]*)*(?<!\.)")

MANY = 3000
"""Members above which a list is held against a quarter of the draws."""
OPEN_PAUSE = 4
"""Weeks for which a pause without an end is taken to last."""

Cells = dict[str, dict[str, str]]
"""Members by id: ``group``, ``state``, ``slots``, ``reach`` and kept columns."""


@dataclass(frozen=True, eq=False)
class Week:
    """A week's list with everything that is said about it."""

    number: int
    decision: Decision
    plan: Plan
    outlook: Outlook | None
    estimate: Estimate
    list_path: Path
    said: list[str] = field(default_factory=list)
    """What was assumed and what has changed."""
    possible: int = 0
    """Members who could have been on the list."""
    model: Model | None = None
    places: tuple[str, dict[str, str]] = ("", {})
    """A kept column, e.g. the village, and its cell by id."""
    shown: Callable[[str], Mapping[str, str]] | None = None
    """What the list shows beside an id, e.g. a name."""

    def parts(self) -> list[Part]:
        """What stands on the week's page beside the list and the proof."""
        lines = {"rule": str(self.plan), **({} if self.outlook is None else self.outlook.lines())}
        lines |= {"list": f"{len(self.decision.chosen)} of {self.possible} possible"}
        headings = ["What was assumed, and what has changed", *[""] * len(self.said)]
        column, cells = self.places
        where: list[Part] = []
        if column:
            where = [(f"The list by {column}", list_pictures([cells.get(name, "") for name in self.decision.chosen]))]
        said: list[Part] = list(zip(headings, self.said, strict=False))
        return [("To the horizon", lines), *where, *estimate_parts(self.estimate)[:2], *said]

    def __str__(self) -> str:
        lines = {"rule": str(self.plan), **({} if self.outlook is None else self.outlook.lines())}
        lines["list"] = f"{len(self.decision.chosen)} of {self.possible} possible"
        for k, line in enumerate(self.said):
            lines["assumed" if not k else " " * k] = line
        warnings = self.estimate.warnings()
        if warnings:
            lines["the estimate"] = f"{len(warnings)} warnings, see estimate.txt: {warnings[0]}"
        return f"{self.decision}\n{tree('To the horizon', lines)}\nlist to tick: {self.list_path}"

    def document(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **self.decision.summary(),
            "week": self.number,
            "rule": {"policy": self.plan.policy, "reason": self.plan.reason},
            "horizon": None if self.outlook is None else self.outlook.summary(),
            "possible": self.possible,
            "said": self.said,
            "estimate": self.estimate.document(),
            "list": str(self.list_path),
        }


@dataclass(frozen=True, eq=False)
class _Now:
    """A programme at a week: who belongs, what is known, what is closed."""

    columns: Columns
    members: Cells
    log: CallLog
    week: int
    period: int = 0
    paused: dict[str, int | None] = field(default_factory=dict)
    """Last week of each pause; None without an end."""
    met: frozenset[str] = frozenset()
    """Members of an earlier round: the ledger knows their states."""
    outcomes: str = ""
    """Digest of the file that told how the last week went."""
    by_hand: ByHand = field(default_factory=dict)
    """What a person changed in the last week's ``model.yaml``."""
    due: float | None = None
    """Time of ``perf_counter`` by which the list is made; None without a limit."""

    @property
    def own(self) -> RegisterColumns:
        return self.columns.register_


# ------------------------------------------------------------------------------------------------------------- reading
def read_register(sheet: Path | Table, columns: RegisterColumns) -> tuple[Cells, Table]:
    """The register as cells by id; rows of totals and repeated rows are left out and noted."""
    table = Table.read(sheet, needed=[columns.id]).without_totals(columns.id)
    findings = Findings(table.source)
    for row, name in enumerate(table.text(columns.id)):
        if not name:
            findings.add(table.place(row), f"{columns.id} is empty", "give every member an id, or delete the row")
    findings.raise_if_any()
    table = table.one_a_key(columns.id)
    return _cells(table, columns), table


def _cells(table: Table, columns: RegisterColumns) -> Cells:
    ids = table.text(columns.id)
    blank = [""] * len(ids)
    of_kind = {"group": columns.group, "state": columns.state}
    parts = {own: table.categories(name) if name in table else blank for own, name in of_kind.items() if name}
    if "state" in parts:
        parts["state"] = ["" if unsaid(cell) else cell for cell in parts["state"]]
    if columns.slots:
        parts["slots"] = [";".join(slots) for slots in table.lists(columns.slots)]
    if columns.reach:
        parts["reach"] = ["yes" if cell else "no" for cell in table.text(columns.reach)]
    if columns.since and columns.since in table:
        parts["since"] = ["" if day is None else day.isoformat() for day in table.dates(columns.since)]
    for name in dict.fromkeys((*columns.keep, *columns.show)):
        parts[name] = table.categories(name) if name in columns.keep else table.text(name)
    return {member: {own: cells[row] for own, cells in parts.items()} for row, member in enumerate(ids)}


def _same_ids(known: list[str], log: CallLog) -> tuple[CallLog, list[str]]:
    """The log under the register's ids: leading zeros that one of them lost are given back when all fit."""
    members = set(known)
    foreign = [name for name in log.ids if name not in members]
    if not foreign:
        return log, []
    bare = {name.lstrip("0"): name for name in known}
    if len(bare) == len(known) and all(name.lstrip("0") in bare for name in log.ids):
        ids = tuple(bare[name.lstrip("0")] for name in log.ids)
        order = np.argsort(np.array(ids))
        meant = bare[foreign[0].lstrip("0")]
        said = f"ids of the log are the register's without leading zeros ({foreign[0]!r} is {meant!r})"
        return CallLog(tuple(sorted(ids)), log.weeks, log.seen[order], log.called[order], log.said), [said]
    if len(foreign) == len(log.ids):
        raise ModelError(
            f"no id of the log is in the register, e.g. {', '.join(map(repr, foreign[:3]))}",
            "use the same ids in both sheets.",
        )
    return log, [f"{len(foreign)} members of the log are not in the register ({foreign[0]!r}); their rows are not used"]


# ------------------------------------------------------------------------------------------------------------- writing
def _csv(rows: list[dict[str, Any]], names: list[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_list(
    stage: Path,
    week: int,
    decision: Decision,
    shown: Callable[[str], Mapping[str, str]],
    sure: Mapping[str, float] | None = None,
) -> str:
    """The sheet that is carried out and comes back ticked: CSV with mark, so that every spreadsheet reads it.

    ``shown`` gives cells of the cohort that stand beside an id, ``sure`` each one's share of the draws of the estimate;
    who is on the list in fewer than half of them is last.
    """
    sure, rows = sure or {}, list[dict[str, Any]]()
    for row in sorted(decision.rows(), key=lambda row: sure.get(row["id"], 1.0) < 0.5):
        rest = {key: cell for key, cell in row.items() if key != "id"}
        share = sure.get(row["id"])
        if sure:
            rest["sure"] = "" if share is None else f"{100 * share:.0f} %{' doubtful' if share < 0.5 else ''}"
        rows.append({"id": row["id"], **shown(row["id"]), **rest, "week": week_label(week), "done": "", "state": ""})
    names = list(rows[0]) if rows else ["id", "week", "done", "state"]
    path = f"weeks/{week_file(week)}.csv"
    write_atomically(stage / path, "\ufeff" + _csv(rows, names))
    listed = [names, *([row.get(name, "") for name in names] for row in rows)]
    write_atomically((stage / path).with_suffix(".xlsx"), workbook({"list": listed}))
    return path


def shown_of(members: Cells, own: RegisterColumns) -> Callable[[str], dict[str, str]]:
    """The cells that a list shows of a member."""
    return lambda name: {column: members[name].get(column, "") for column in own.show}


def _write_model(folder: Path, title: str, now: _Now, transitions: str, first: _First) -> dict[str, Any]:
    """``model.yaml`` and its tables, with what a person changed in last week's; the content without those changes."""
    own, columns, members = now.own, now.columns, now.members
    kept = list(own.keep)
    names = ["id", "group", *kept, *(["slots"] if own.slots else [])]
    rows = [{"id": name, "group": cells.get("group", "all"), **cells} for name, cells in sorted(members.items())]
    if columns.roster is not None:
        spelt = {slot.casefold(): slot for slot in Table.read(folder / "roster.csv").text("slot")}
        for row in rows:
            own_slots = row.get("slots", "").split(";")
            row["slots"] = ";".join(spelt.get(slot.casefold(), slot) for slot in own_slots)
    write_atomically(folder / "cohort.csv", _csv([{k: row.get(k, "") for k in names} for row in rows], names))
    write_atomically(folder / "transitions.csv", transitions)
    start = [
        {"id": name, STATES[0]: f"{1 - up:.12f}", STATES[1]: f"{up:.12f}"} for name, up in sorted(first.up.items())
    ]
    write_atomically(folder / "start.csv", _csv(start, ["id", *STATES]))
    constraints: dict[str, Any] = {}
    if columns.roster is not None:
        constraints["roster"] = {"kind": "scheduling", "roster": "roster.csv", "visits": 1}
        if columns.roster.match:
            constraints["roster"]["match"] = columns.roster.match
    if columns.plan.calls is not None:
        constraints["weekly"] = {"kind": "budget", "at_most": columns.plan.calls}
    if first.closed:
        write_atomically(folder / "closed.csv", _csv(first.closed, ["id", "open_from", "reason"]))
        constraints["closed"] = {"kind": "closed", "table": "closed.csv"}
    dynamics: dict[str, Any] = {
        "kind": "tabular", "file": "transitions.csv", "by": "id", "reward": dict.fromkeys(STATES, 0) | {STATES[1]: 1},
        "paid_on": "arrival",
    }  # fmt: skip
    if columns.plan.season is not None:
        dynamics = {"kind": "season", "total": columns.plan.season, "of": dynamics}
        constraints["season"] = {"kind": "budget", "at_most": {"from": LEFT}}
    document = {
        "format": 1,
        "title": title,
        "about": "Written by `rmab-opt start` and `next` from the programme's own sheets; change what is wrong.",
        "problem": {
            "arms": "cohort.csv",
            "dynamics": dynamics,
            "horizon": _horizon(now),
            "start": "start.csv",
        },
        "constraints": constraints,
        "solver": "quick",
    }
    write_atomically(folder / "model.yaml", model_text(with_changes(document, now.by_hand)))
    return document


class _Quoting(yaml.SafeDumper):
    """Quotes what a reader of YAML 1.2 would not take for text: ``008`` is a number there, and none for this writer."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if PLAIN_TEXT.fullmatch(text) else "'" if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Quoting.add_representer(str, _text_node)


def model_text(document: Mapping[str, Any]) -> str:
    """A model file's content as YAML that reads back as it is."""
    return yaml.dump(dict(document), Dumper=_Quoting, sort_keys=False, allow_unicode=True)


def _horizon(now: _Now) -> int:
    """Rounds from the first list on: so many weeks ahead, or the season's own end while it lasts."""
    plan = now.columns.plan
    in_season = plan.season is not None and now.period < plan.weeks
    return plan.weeks if in_season else now.period + plan.weeks


@dataclass(frozen=True)
class _First:
    """Chance to be engaged at first of each member, and who is closed until when."""

    up: dict[str, float]
    closed: list[dict[str, Any]]
    said: list[str]


TOLD = "told.json"
"""Rule, outlook and what was assumed of the newest list."""

LEFT = "left"
"""Name of what is left of a season."""

LISTED = 0.4
"""Share of the time left for the list itself; the rest is for what lies ahead of it."""

STAGE, WHOLE = ".next", "whole"
"""Folder in which a week is made, and the file that says it is whole: a crash leaves the old week or the new one."""


def stage_in(folder: Path) -> Path:
    """An empty folder to make a week in."""
    finish(folder)
    stage = folder / STAGE
    if stage.exists():
        shutil.rmtree(stage)
    (stage / "weeks").mkdir(parents=True)
    return stage


def finish(folder: Path) -> None:
    """Bring a whole new week into place; what is only half made stays where it is."""
    stage = folder / STAGE
    if not (stage / WHOLE).exists():
        return
    for path in sorted(stage.rglob("*")):
        if path.is_file() and path.name != WHOLE:
            target = folder / path.relative_to(stage)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    shutil.rmtree(stage)


@contextmanager
def alone(folder: Path, purpose: str) -> Iterator[None]:
    """Hold a programme's folder against other commands, windows and pages."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: holds no programme", "make it with `rmab-opt start`.")
    with held(folder, purpose, wait=PATIENCE):
        yield


def _first(now: _Now, made: Estimate) -> _First:
    engaged = now.own.engaged.casefold()
    same_week = now.columns.log is not None and now.columns.log.call_acts == "same_week"
    row = {name: n for n, name in enumerate(now.log.ids)}
    at = {name: n for n, name in enumerate(made.ids)}
    up, from_log, from_group = {}, 0, 0
    for name, cells in now.members.items():
        state = cells.get("state", "")
        if state:
            up[name] = float(state.casefold() == engaged)
            continue
        n = at[name]
        last = _last(now.log, row.get(name), made.transition[n], same_week)
        from_log += last is not None and name not in now.met
        from_group += last is None and name not in now.met
        up[name] = float(made.first_share[made.group[n]]) if last is None else last
    said = []
    if from_log:
        said.append(f"{from_log} states are not known; their chances follow from the log's last weeks")
    if from_group:
        shares = ", ".join(f"{name} {share:.2f}" for name, share in zip(made.groups, made.first_share, strict=True))
        said.append(f"{from_group} states were never seen; assumed engaged with the share of first weeks ({shares})")
    closed: list[dict[str, Any]] = [
        {"id": name, "open_from": "", "reason": "out of reach"}
        for name, cells in sorted(now.members.items())
        if cells.get("reach", "yes") == "no"
    ]
    open_ended = 0
    for name, until in sorted(now.paused.items()):
        open_ended += until is None
        last_week = now.week + OPEN_PAUSE - 1 if until is None else until
        closed.append({"id": name, "open_from": now.period + last_week - now.week + 1, "reason": "paused"})
    if open_ended:
        said.append(f"{open_ended} pauses have no end and are taken to last {OPEN_PAUSE} weeks")
    return _First(up, closed, said)


def _last(log: CallLog, row: int | None, transition: np.ndarray, same_week: bool) -> float | None:
    """Chance to be engaged after the log's last week, from the last state it has and what was done since."""
    if row is None:
        return None
    known = np.flatnonzero(log.seen[row] != UNKNOWN)
    if not known.size:
        return None
    last = int(known[-1])
    up = float(log.seen[row, last])
    for w in range(last + same_week, log.seen.shape[1]):
        action = int(log.called[row, w] == 1)
        up = up * float(transition[action, 1, 1]) + (1 - up) * float(transition[action, 0, 1])
    return up


# --------------------------------------------------------------------------------------------------------------- verbs
def start(
    register: Path,
    out: Path,
    *,
    log: Path,
    roster: Path | None = None,
    columns: Path | None = None,
    plan: PlanSection | None = None,
    due: float | None = None,
) -> Week:
    """A model folder and the first list from a register, a call log and a roster.

    By ``due``, a time of ``perf_counter``, the list is made with what is at hand.

    Raises
    ------
    ModelError
        When a sheet cannot be read with certainty, or does not say what is needed; names sheet, row and remedy.
    """
    if (out / "model.yaml").exists():
        raise ModelError(f"{out}: holds a programme already", "use `rmab-opt next`, or another folder.")
    found = _sheets(register, log, roster, columns, plan)
    given = found.columns
    assert given.log is not None
    members, table = read_register(found.register, given.register_)
    read, matched = _same_ids(list(members), read_log(found.log, given.log))
    with held(out, "starts a programme here"):
        return _started(
            out, found, members, table, (read, matched), {"register": register, "log": log, "roster": roster}, due
        )


def _started(
    out: Path,
    found: _Sheets,
    members: Cells,
    table: Table,
    log: tuple[CallLog, list[str]],
    paths: dict[str, Path | None],
    due: float | None,
) -> Week:
    """Write a programme's first week from what was read."""
    if (out / "model.yaml").exists():
        raise ModelError(f"{out}: holds a programme already", "use `rmab-opt next`, or another folder.")
    given, (read, matched) = found.columns, log
    stage = stage_in(out)
    write_atomically(stage / "columns.yaml", write_columns(given))
    read_from = (("register", table), ("log", found.log), ("roster", found.roster))
    tables = {path: sheet for name, sheet in read_from if (path := paths[name]) is not None and sheet is not None}
    if found.roster is not None and given.roster is not None:
        found.said.extend(_write_roster(stage, found.roster, given))
    _write_readings(stage, tables, _private(members, given.register_))
    Cohort(stage / "cohort").join({name: _public(cells, given.register_) for name, cells in members.items()}, 0)
    now = _Now(given, members, read, read.weeks[-1] + 1, due=due)
    return _list(out, now, [*found.said, *matched, *read.said, *_dropped(tables)])


@dataclass(frozen=True, eq=False)
class _Sheets:
    """A programme's sheets with what their columns mean and what was taken on trust."""

    columns: Columns
    said: list[str]
    register: Table
    log: Table
    roster: Table | None


def _sheets(register: Path, log: Path, roster: Path | None, columns: Path | None, plan: PlanSection | None) -> _Sheets:
    """Sheets and their columns, as told or inferred; rows of totals are left out of log and roster."""
    told = {} if columns is None else read_told(columns)
    with readings(_told_of_tables(told, columns)):
        table = read_sheet(register, told.get("register"), "id", without="called")
        log_table = read_sheet(log, told.get("log"), "id", "week", "called", "listened")
        roster_table = None if roster is None else read_sheet(roster, told.get("roster"), "worker", "slots")
        inferred = infer(table, log_table, roster_table, plan or PlanSection(), told)
    given, said = inferred.columns, inferred.said
    if plan is not None:
        given = given.model_copy(update={"plan": plan})
    check(given, {"register": table, "log": log_table, "roster": roster_table})
    assert given.log is not None
    log_table = log_table.without_totals(given.log.id)
    if roster_table is not None and given.roster is not None:
        roster_table = roster_table.without_totals(given.roster.worker)
    return _Sheets(given, said, table, log_table, roster_table)


def _told_of_tables(told: Mapping[str, Any], source: Path | None) -> Conventions:
    try:
        return Conventions.model_validate(told.get("tables") or {})
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(("tables", *map(str, fault["loc"])))
        raise ModelError(f"{source}: {where}: {fault['msg']}", "see docs/programme.md for the keys.") from None


def inferred_columns(register: Path, log: Path, roster: Path | None, columns: Path | None) -> list[str]:
    """What the columns of sheets are taken for; errors as :func:`start`."""
    return _sheets(register, log, roster, columns, None).said


def estimate_sheets(log: Path, register: Path, columns: Path | None = None) -> tuple[Estimate, list[str]]:
    """The estimate from a log and a register, with what was assumed; errors as :func:`start`."""
    found = _sheets(register, log, None, columns, None)
    given = found.columns
    members, _ = read_register(found.register, given.register_)
    assert given.log is not None
    read, matched = _same_ids(list(members), read_log(found.log, given.log))
    made = estimate(read, members_of(members, given.register_, read), call_acts=given.log.call_acts)
    return made, [*found.said, *matched, *read.said]


def next_week(folder: Path, outcomes: Path, register: Path | None = None, due: float | None = None) -> Week:
    """Record a week, take in what has changed, estimate anew and make the next list; as :func:`start` otherwise.

    The command can be repeated after a crash: what was recorded stays, and is recorded once. One at a time.
    """
    with alone(folder, "makes the next list here"):
        return _next_week(folder, outcomes, register, due)


def _next_week(folder: Path, outcomes: Path, register: Path | None, due: float | None) -> Week:
    finish(folder)
    columns = read_columns(folder / "columns.yaml")
    standing = read_standing(folder)
    week, period = standing["week"], standing["period"]
    model = load(folder)
    document = read_object(folder / "weeks" / f"{week_file(week)}.json", "saved decision", RESTORE)
    by_hand = changes_by_hand(folder, standing)
    # The list may be older than a limit that was changed since: it is held against the others.
    ledger = Ledger(folder / "ledger", untouched(model, by_hand), keep=("group", *columns.register_.keep))
    with readings(columns.tables):
        told = Table.read(outcomes)
        filled, said = _outcomes(told, columns, model, week, document["action"])
    # An empty list, or a file that names its week, may be the same as the last one.
    if len(told) and "week" not in told and told.digest == standing.get("outcomes"):
        raise ModelError(
            f"{outcomes}: is the file that was recorded for week {week_label(week - 1)}",
            f"give the outcomes of week {week_label(week)}; if they are the same, add a column week that says so.",
        )
    filled = _season_row(filled, document)
    said += said_of(by_hand)
    members = read_members(folder, columns)
    stage = stage_in(folder)
    pauses = {name: last for name, last in standing["paused"].items() if last is None or last > week}
    ended = sorted(set(standing["paused"]) - set(pauses))
    with readings(columns.tables):
        changes = Changes() if register is None else _changes(register, columns, members, week + 1)
    members_after, pauses = _apply(changes, members, pauses)
    said += _completed(members_after, columns, changes, folder)
    # From here on the week is recorded; everything before could be refused without a trace.
    ledger.record(document, filled)
    _keep(Cohort(folder / "cohort"), changes, ended, period + 1, columns.register_)
    if (folder / "roster.csv").exists():
        shutil.copy(folder / "roster.csv", stage / "roster.csv")
    if ended:
        said.append(f"{len(ended)} back from a pause that ended")
    met = frozenset(name for found in ledger.rounds for name in found["ids"])
    same_week = columns.log is not None and columns.log.call_acts == "same_week"
    grown = _extended(folder, ledger, week, same_week)
    now = _Now(columns, members_after, grown, week + 1, period + 1, pauses, met, told.digest, by_hand, due)
    return _list(folder, now, [*changes.lines(), *said])


def erase(folder: Path, name: str) -> str:
    """Put a token in place of a person everywhere in a programme's folder; the token. From now on they have left.

    Raises
    ------
    ModelError
        When the folder never knew the id.
    """
    with alone(folder, "erases a person"):
        return _erased(folder, name)


def _erased(folder: Path, name: str) -> str:
    finish(folder)
    standing = read_standing(folder)
    draft = read_draft(folder, standing["week"])
    if name in (*draft.asked.into, *draft.asked.out):
        raise ModelError(f"{name!r} is locked in or out of this week's list", "lift the lock first.")
    stage = stage_in(folder)
    write_draft(stage, draft.without(name))
    token = erase_files(folder, stage, name, standing["week"])
    if (folder / "travel").is_dir():
        # Pseudonyms of the person are in it; the current week's can be made again.
        shutil.rmtree(folder / "travel")
    members = Cohort(stage / "cohort").members()
    if token in (*members.active, *members.paused):
        Cohort(stage / "cohort").leave([token], max(members.period, standing["period"]))
    write_atomically(stage / WHOLE, "")
    finish(folder)
    return token


def _changes(register: Path, columns: Columns, members: Cells, week: int) -> Changes:
    table = Table.read(register)
    if is_events(table):
        changes = changes_of_events(table, columns.register_, week)
    else:
        changes = changes_of_register(members, read_register(register, columns.register_)[0], columns.register_)
    require_members(changes, members)
    return changes


def _list(folder: Path, now: _Now, said: list[str]) -> Week:
    """Estimate, write the model, decide, write the list; all in a stage that is brought into place as a whole."""
    stage = folder / STAGE
    assert now.columns.log is not None
    made = estimate(now.log, members_of(now.members, now.own, now.log), call_acts=now.columns.log.call_acts)
    if now.columns.plan.order == "call_never_hurts":
        made = made.never_hurting()
        said = [*said, "no call is taken to hurt (plan.order: call_never_hurts)"]
    first = _first(now, made)
    write_atomically(stage / "estimate.txt", f"{made}\n")
    write_atomically(stage / "estimate.json", json_text(made.document()) + "\n")
    write_atomically(stage / "estimate.html", estimate_page(made))
    write_atomically(stage / "log.csv", _log_csv(now.log))
    write_atomically(stage / "names.csv", _members_csv(now.members, now.own))
    plan_section = now.columns.plan
    meant = planned_tables(made, plan_section.explore, now.period, seed=plan_section.seed, block=plan_section.block)
    written = _write_model(stage, folder.name, now, made.transitions_csv(transition=meant.transition), first)
    with borrowed(folder, stage, bool(now.by_hand)):
        model = load(stage)
    # What is believed of the states rests on the estimate itself, whatever the list is planned on.
    known = model if not meant.drawn else with_tables(model, _in_order(made, made.transition, model))
    ledger = Ledger(folder / "ledger", known)
    standing, model = ledger.standing(), replace(model, actions=ledger.model.actions)
    belief = model.problem.start_distribution if standing is None else standing.belief
    shared = model.shared(None, None if standing is None else standing.shared or None)
    if standing is not None:
        said = [*said, f"{len(standing.estimated)} of {len(belief)} states are estimated from earlier weeks"]
    said = [*said, *([f"planned to find things out: {meant.drawn}"] if meant.drawn else called_useless(made))]
    plan = choose_rule(model, now.period)
    title = f"{folder.name} · week {week_label(now.week)}"
    # What lies ahead takes as long as the list itself.
    due = None if now.due is None else perf_counter() + LISTED * max(0.0, now.due - perf_counter())
    decision, plan = plan_decision(
        model, plan, belief.argmax(axis=1), now.period, belief=belief, title=title, shared=shared, deadline=due
    )
    if shared is not None:
        said = [*said, f"{shared[0]:g} calls are left of the season's {plan_section.season}"]
        if now.period >= plan_section.weeks:
            said = [
                *said,
                f"the season of {plan_section.weeks} weeks is over: what is left is spread over as many again",
            ]
    if meant.drawn:
        decision = replace(decision, notes={**decision.notes, "explored": meant.drawn})
    until = np.inf if now.due is None else now.due
    late = perf_counter() > until
    seen = None if late else ahead_of(model, plan, belief, now.period, shared=shared, until=until)
    ahead = None if seen is None else seen.outlook(2, until=until)
    if ahead is None and (late or seen is not None or perf_counter() > until):
        said = [*said, "what lies ahead was not looked at: the time was over, give more --seconds"]
    try:
        with given_up_at(until):
            said = [*said, *_with_joiners(stage, folder, now, made, seen)]
    except OverdueError:
        said = [*said, "who will join was not looked at: the time was over"]
    sure = None
    if seen is not None:
        drawn = (with_tables(model, _in_order(made, made.fit.tables(k), model)) for k in _spread(made, model))
        sure = stability_of(seen, decision, drawn, until)
        sure = sure if sure.draws else None
        said = [*([] if sure is None else sure.lines()), *said]
    document = saved_document(model, decision, plan, belief)
    saved = json_text(document) + "\n"
    write_atomically(stage / "weeks" / f"{week_file(now.week)}.json", saved)
    told = {"rule": str(plan), "horizon": None if ahead is None else ahead.summary(), "said": [*said, *first.said]}
    write_atomically(stage / TOLD, json_text(told) + "\n")
    path = write_list(stage, now.week, decision, shown_of(now.members, now.own), None if sure is None else sure.share)
    state = {
        "week": now.week,
        "period": now.period,
        "paused": dict(sorted(now.paused.items())),
        "outcomes": now.outcomes,
        "model": written,
    }
    write_atomically(stage / "standing.json", json_text(state) + "\n")
    write_atomically(stage / WHOLE, "")
    finish(folder)
    shut = {row["id"] for row in first.closed}
    possible = len(set(now.members) - shut)
    column = next(iter(now.own.keep), "")
    places = (column, {name: cells.get(column, "") for name, cells in now.members.items()})
    shown = shown_of(now.members, now.own)
    return Week(
        now.week, decision, plan, ahead, made, folder / path, [*said, *first.said], possible, model, places, shown
    )


def estimate_again(folder: Path) -> Estimate:
    """The estimate behind the folder's list, made again from its log and members."""
    columns = read_columns(folder / "columns.yaml")
    own = LogColumns(id="id", week="week", called="called", listened="listened")
    assert columns.log is not None
    members = read_members(folder, columns)
    log = read_log(Table.read(folder / "log.csv"), own)
    return estimate(log, members_of(members, columns.register_, log), call_acts=columns.log.call_acts)


def sure_again(
    folder: Path,
    model: Model,
    plan: Plan,
    decision: Decision,
    place: tuple[np.ndarray, int, np.ndarray | None],
) -> Stability | None:
    """How sure a list is, by the estimate behind the folder's model; None where nothing can be said of what lies ahead.

    ``place`` is what the list was made from: states (N,) or beliefs (N, S), the round, what the arms share.
    """
    start, period, shared = place
    seen = ahead_of(model, plan, start, period, shared=shared)
    if seen is None:
        return None
    made = estimate_again(folder)
    drawn = (with_tables(model, _in_order(made, made.fit.tables(k), model)) for k in _spread(made, model))
    return stability_of(seen, decision, drawn)


def spread_of_villages(folder: Path, column: str, weeks: int) -> Villages:
    """How the values of a column of the cohort differ, by a folder's log; ModelError when there is no such column."""
    columns = read_columns(folder / "columns.yaml")
    members = read_members(folder, columns)
    known = {name: cells for cells in members.values() for name in cells}
    meant = next((name for name in known if name.casefold() == column.casefold()), None)
    if meant is None:
        raise ModelError(f"{folder}: no column {column!r} is kept", nearest(column, list(known)))
    own = LogColumns(id="id", week="week", called="called", listened="listened")
    log = read_log(Table.read(folder / "log.csv"), own)
    return villages_of(log, {name: cells.get(meant, "") for name, cells in members.items()}, weeks)


def _spread(made: Estimate, model: Model) -> range:
    """Numbers of the draws that a list is held against: 40 spread over all, fewer where a decision takes long."""
    count = DRAWS if model.problem.n_arms <= MANY else DRAWS // 4
    return range(0, len(made.fit.draws), max(len(made.fit.draws) // count, 1))[:count]


def _with_joiners(stage: Path, folder: Path, now: _Now, made: Estimate, seen: Ahead | None) -> list[str]:
    """What the bound becomes with those who will join and leave; nothing where no date of joining is known."""
    if seen is None:
        return []
    place = {name: n for n, name in enumerate(made.ids)}
    dates = [
        (datetime.date.fromisoformat(cells["since"]), int(made.group[place[name]]))
        for name, cells in now.members.items()
        if cells.get("since")
    ]
    events = Cohort(folder / "cohort").log.entries
    left = sum(len(event.ids) for event in events if event.event == "leave" and event.period > 0)
    found = rates_of(dates, len(made.groups), now.period * len(now.members), left)
    if found is None:
        return []
    tables = np.stack([made.transition[made.group == g].mean(axis=0) for g in range(len(made.groups))])
    arrivals = Arrivals(found, tables, tuple(made.first_share.tolist()))
    write_atomically(stage / ARRIVALS, arrivals.to_json())
    return [arrivals.line(*seen.living_part)]


def _in_order(made: Estimate, tables: np.ndarray, model: Model) -> np.ndarray:
    """Tables in the order of a model's arms."""
    place = {name: n for n, name in enumerate(made.ids)}
    return np.asarray(tables[[place[name] for name in model.problem.arms.ids]])


def drawn_models(folder: Path) -> Callable[[Model, int], Model]:
    """A folder's model under posterior draw k of its estimate; the estimate is made when it is first asked for."""
    made: list[Estimate] = []

    def drawn(model: Model, k: int) -> Model:
        if not made:
            made.append(estimate_again(folder))
        found = made[0]
        draw = found.fit.draws[(k * 37) % len(found.fit.draws)].astype(np.float64)
        return with_tables(model, _in_order(found, tables_of(draw), model))

    return drawn


# ------------------------------------------------------------------------------------------------------ parts of a week
def read_standing(folder: Path) -> dict[str, Any]:
    """Week, round and pauses of a programme's folder; ModelError where it is none."""
    path = folder / "standing.json"
    if not path.is_file():
        raise ModelError(f"{folder}: holds no programme", "make it with `rmab-opt start`.")
    found = read_object(path, "standing of a programme", RESTORE)
    if not {"week", "period", "paused"} <= found.keys() or not isinstance(found["paused"], dict):
        raise ModelError(f"{path}: lacks week, period or paused", RESTORE)
    for name in ("week", "period"):
        if isinstance(found[name], bool) or not isinstance(found[name], int) or not 0 <= found[name] < 1_000_000:
            raise ModelError(f"{path}: {name} is {found[name]!r}", RESTORE)
    return found


def _unticked(ids: Sequence[str], done: list[str], columns: Columns, listed: Sequence[str], source: str) -> list[str]:
    """Cells of a list, those left empty beside ticks read as the programme says; refused where it does not say.

    With a no among them empty cells are neither; in a list without a tick nobody meant to say anything by them.
    """
    planned = set(listed)
    open_ = [k for k, name in enumerate(ids) if not done[k] and name in planned]
    ticks = sum(cell == "yes" for cell in done)
    if not open_ or not ticks or "no" in done or columns.plan.unticked == "as_planned":
        return done
    if columns.plan.unticked == "ask":
        raise ModelError(
            f"{source}: {ticks} calls are ticked, {len(open_)} of the list are not ({ids[open_[0]]}"
            f"{', ...' if len(open_) > 1 else ''}): they may be not made, or made as planned and not ticked",
            "write no for those not made, or say once in columns.yaml what no tick means: "
            "plan.unticked: not_made or as_planned.",
        )
    left = set(open_)
    return ["no" if k in left else cell for k, cell in enumerate(done)]


def _outcomes(
    table: Table, columns: Columns, model: Model, week: int, listed: Sequence[str]
) -> tuple[Table, list[str]]:
    """The ticked list, or any sheet with ids, as the ledger takes it: id, done, state."""
    own, log = columns.register_, columns.log
    engaged = own.engaged.casefold()
    words = {"engaged": STATES[1], engaged: STATES[1], "away": STATES[0]}
    ids = table.text(_one_of(table, "id", ("id", own.id, None if log is None else log.id)) or "id")
    week_column = _one_of(table, "week", ("week", None if log is None else log.week))
    weeks = [] if week_column is None else table.text(week_column)
    if others := sorted({cell for cell in weeks if cell and week_number(cell) != week}):
        raise ModelError(
            f"{table.source}: is about week {', '.join(others)}, the list to record is week {week_label(week)}'s",
            "give that week's outcomes; a week is recorded once.",
        )
    if "done" in table:
        # In the list itself an empty cell is no tick that was left out: it says nothing.
        table.conventions = table.conventions.model_copy(update={"empty": "missing"})
    blank: list[str] = [""] * len(ids)
    called = () if log is None else (log.called,)
    done_column = _one_of(table, "called", ("done", "called", *called))
    heard = () if log is None else (log.listened,)
    state_column = _one_of(table, "listened", ("state", "status", "listened", own.state, *heard))
    done = (
        blank if done_column is None else ["" if v is None else "yes" if v else "no" for v in table.yes_no(done_column)]
    )
    states = list(blank)
    if state_column is not None:
        cells = ["" if unsaid(cell) else cell for cell in table.text(state_column)]
        told = any(cells) or table.conventions.empty == "missing"
        if told and all(not cell or cell.casefold() in words for cell in cells):
            states = [words.get(cell.casefold(), "") for cell in cells]
        elif any(cell.casefold() == engaged for cell in cells):
            # The register's own words: whatever is not the one that counts is the other.
            states = [STATES[int(cell.casefold() == engaged)] if cell else "" for cell in cells]
        else:
            states = ["" if v is None else STATES[int(v)] for v in table.yes_no(state_column)]
    is_list = done_column is not None and done_column.casefold() == "done"
    if not is_list:
        # A log names everybody: who was not on the list and was not called has nothing to be done.
        done = [
            cell if cell == "yes" or name in model.actions.columns else "" for name, cell in zip(ids, done, strict=True)
        ]
    else:
        done = _unticked(ids, done, columns, listed, table.source)
    gone = [name for name in model.problem.arms.ids if name.startswith(ERASED)]
    ids, done, states = [*ids, *gone], [*done, *["no"] * len(gone)], [*states, *[""] * len(gone)]
    empty = sum(not cell for cell in done)
    seen = f"{sum(bool(s) for s in states)} states seen, taken as of the week's end"
    said = [f"{seen}; {sum(d == 'no' for d in done)} calls not made"]
    if empty and is_list:
        said.append(f"{empty} cells of done are empty: taken as done as planned")
    return Table({"id": ids, "done": done, "state": states}, source=table.source), said


def _one_of(table: Table, what: str, names: tuple[str | None, ...]) -> str | None:
    """The column of outcomes that means something: by the programme's own names, else by those that are known."""
    own = next((name for name in names if name is not None and name in table), None)
    return named(table, WORDS[what]) if own is None else table.column(own)


def _season_row(filled: Table, document: Mapping[str, Any]) -> Table:
    """The outcomes with what is left of the season, where there is one: what was left less what was done."""
    left = document.get("shared", {}).get(LEFT)
    if left is None:
        return filled
    done = dict.fromkeys(document["action"], True)
    ids, words = list(filled.text("id")), list(filled.text("done"))
    done |= {name: word == "yes" for name, word in zip(ids, words, strict=True) if word}
    after = max(left - sum(done.values()), 0.0)
    cells = {"id": [*ids, f"shared:{LEFT}"], "done": [*words, ""], "state": [*filled.text("state"), f"{after:g}"]}
    return Table(cells, source=filled.source)


def _apply(changes: Changes, members: Cells, paused: dict[str, int | None]) -> tuple[Cells, dict[str, int | None]]:
    """Members and pauses after the changes; nobody's history goes."""
    after = {name: dict(cells) for name, cells in members.items() if name not in changes.leave}
    for name, cells in changes.change.items():
        after[name].update({key: cell for key, cell in cells.items() if key != "state"})
    for name, cells in changes.join.items():
        after[name] = {"reach": "yes", **cells}
    pauses = {name: until for name, until in paused.items() if name in after and name not in changes.resume}
    return after, pauses | changes.pause


def _completed(members: Cells, columns: Columns, changes: Changes, folder: Path) -> list[str]:
    """Fill in what a short sheet of events leaves open about newcomers and those who moved; said, never silent."""
    own, said = columns.register_, []
    match = None if columns.roster is None else columns.roster.match
    if own.slots:
        bare = [name for name in changes.join if not members[name].get("slots")]
        if bare and (folder / "roster.csv").exists():
            every = ";".join(dict.fromkeys(Table.read(folder / "roster.csv").text("slot")))
            for name in bare:
                members[name]["slots"] = every
            said.append(f"{len(bare)} newcomers name no slots: taken as free in all")
    if match:
        for by in (column for column in own.keep if column != match):
            place: dict[str, set[str]] = {}
            for name, cells in members.items():
                if cells.get(match) and name not in changes.join and name not in changes.change:
                    place.setdefault(cells.get(by, ""), set()).add(cells[match])
            filled = 0
            for name in (*changes.join, *changes.change):
                found = place.get(members[name].get(by, ""), set())
                told = changes.join.get(name, changes.change.get(name, {}))
                if len(found) == 1 and match not in told and members[name].get(match) != (only := next(iter(found))):
                    members[name][match] = only
                    filled += 1
            if filled:
                said.append(f"{match} of {filled} follows from {by}, as it does for all others there")
    return said


def _dropped(tables: Mapping[Path, Table]) -> list[str]:
    """How many things the readings changed, by sheet."""
    return [
        f"{path.name}: {len(table.log.remarks)} remarks on reading, see readings.csv"
        for path, table in tables.items()
        if table.log.remarks
    ]


def _keep(cohort: Cohort, changes: Changes, ended: list[str], period: int, columns: RegisterColumns) -> None:
    """The events, for ever; each once, however often the command is repeated."""
    here = cohort.members()
    cohort.add("resume", [name for name in (*ended, *changes.resume) if name in here.paused], period)
    cohort.add("join", list(changes.join), period, {n: _public(c, columns) for n, c in changes.join.items()})
    until = {name: {"until": "" if last is None else str(last)} for name, last in changes.pause.items()}
    cohort.add("pause", [name for name in changes.pause if name in here.active], period, until)
    cohort.add("change", list(changes.change), period, {n: _public(c, columns) for n, c in changes.change.items()})
    cohort.add("leave", changes.leave, period)


def _public(cells: Mapping[str, str], columns: RegisterColumns) -> dict[str, str]:
    """Cells that records keep: no name and no telephone, unless they are among the kept columns."""
    return {key: cell for key, cell in cells.items() if key in ("group", "slots", *columns.keep)}


def _members_csv(members: Cells, columns: RegisterColumns) -> str:
    names = ["id", "group", "state", "slots", "reach", "since", *dict.fromkeys((*columns.keep, *columns.show))]
    return _csv([{"id": name, **cells} for name, cells in sorted(members.items())], names)


def read_members(folder: Path, columns: Columns) -> Cells:
    table = Table.read(folder / "names.csv", needed=["id"])
    names = [name for name in table.columns if name != "id"]
    cells = {name: table.text(name) for name in names}
    return {member: {name: cells[name][row] for name in names} for row, member in enumerate(table.text("id"))}


def _write_roster(folder: Path, table: Table, columns: Columns) -> list[str]:
    """The roster under the model's own names; what is said about rows that are repeated."""
    own = columns.roster
    assert own is not None
    parts = {name: table.categories(column, ask=False) for name, column in (("worker", own.worker), ("slot", own.slot))}
    if own.calls:
        parts["calls"] = [f"{calls:g}" for calls in table.numbers(own.calls, minimum=0)]
    if own.match:
        parts[own.match] = table.categories(own.match)
    first: dict[tuple[str, str], tuple[int, dict[str, str]]] = {}
    findings, said = Findings(table.source), []
    for row, cells in enumerate(zip(*parts.values(), strict=True)):
        found = dict(zip(parts, cells, strict=True))
        line, other = first.setdefault((found["worker"], found["slot"].casefold()), (row, found))
        if line == row:
            continue
        twice = f"{found['worker']!r} stands in slot {found['slot']!r} twice, first in row {table.place(line)}"
        if other == found:
            said.append(f"{Path(table.source).name}:{table.place(row)}: {twice}: one is kept")
        else:
            findings.add(table.place(row), twice, "keep one row a worker and slot, with all calls in it")
    findings.raise_if_any()
    rows = sorted((found for _, found in first.values()), key=lambda row: tuple(row.values()))
    write_atomically(folder / "roster.csv", _csv(rows, list(parts)))
    return said


def _log_csv(log: CallLog) -> str:
    words = {UNKNOWN: "", 0: "no", 1: "yes"}
    rows = []
    for n, name in enumerate(log.ids):
        for w, week in enumerate(log.weeks):
            called, seen = int(log.called[n, w]), int(log.seen[n, w])
            if (called, seen) != (UNKNOWN, UNKNOWN):
                rows.append({"id": name, "week": week_label(week), "called": words[called], "listened": words[seen]})
    return _csv(rows, ["id", "week", "called", "listened"])


def _extended(folder: Path, ledger: Ledger, week: int, same_week: bool) -> CallLog:
    """The log with the week that was just recorded and the states seen at its end.

    These are a week without calls yet, or where a row has the result of its call (``same_week``) in the same row.
    """
    own = LogColumns(id="id", week="week", called="called", listened="listened")
    log = read_log(Table.read(folder / "log.csv"), own)
    found = ledger.rounds[-1]
    ids = tuple(sorted({*log.ids, *found["ids"]}))
    width = week + 2 - log.weeks[0]
    seen, called = (np.full((len(ids), width), UNKNOWN) for _ in range(2))
    at = {name: n for n, name in enumerate(ids)}
    rows = [at[name] for name in log.ids]
    keep = min(width, log.seen.shape[1])
    seen[rows, :keep], called[rows, :keep] = log.seen[:, :keep], log.called[:, :keep]
    done, unsure = set(found["done"]), set(found["belief"])
    # The state before the week's calls stands beside them, or in the week before where a row has the calls' result.
    before = width - 2 - same_week
    for name, state in zip(found["ids"], found["state"], strict=True):
        called[at[name], width - 2] = int(name in done)
        if name not in unsure and before >= 0:
            seen[at[name], before] = state
    for name, state in found["observed"].items():
        seen[at[name], before + 1] = state
    weeks = width - same_week
    return CallLog(ids, tuple(range(log.weeks[0], log.weeks[0] + weeks)), seen[:, :weeks], called[:, :weeks])


def _private(members: Cells, columns: RegisterColumns) -> frozenset[str]:
    """Cells that no record keeps: those of shown columns that are not kept, e.g. names."""
    shown = [name for name in columns.show if name not in columns.keep]
    return frozenset(cells[name] for cells in members.values() for name in shown if cells.get(name))


def _write_readings(folder: Path, tables: Mapping[Path, Table], private: frozenset[str]) -> None:
    """The change log of all sheets: what was dropped, assumed or changed, cell by cell; names are left out."""
    rows = []
    for path, table in tables.items():
        for remark in table.log.remarks:
            row = {"sheet": path.name, "digest": table.digest, **remark.row()}
            rows.append({key: hide(str(cell), private) if key in ("was", "is") else cell for key, cell in row.items()})
    write_atomically(folder / "readings.csv", _csv(rows, ["sheet", "digest", "line", "column", "was", "is", "why"]))
