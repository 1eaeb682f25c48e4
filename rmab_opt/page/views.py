"""What each view shows: plain values for the templates, asked of the desk and of what the command line calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from time import perf_counter
from typing import Any

from rmab_opt import registry
from rmab_opt.actions.kinds import Scheduling
from rmab_opt.errors import RmabError
from rmab_opt.programme.comparison import AS_IT_IS, Comparison, compare, standpoint
from rmab_opt.programme.desk import Desk
from rmab_opt.programme.estimate import STATES

__all__ = [
    "alternatives",
    "changes",
    "fairness",
    "group_columns",
    "groups",
    "limits",
    "people",
    "proof",
    "record",
    "side_by_side",
    "slide",
    "state_names",
    "week",
    "why",
]

PER_PAGE = 100
"""Rows of a page: a cohort of 20,000 is searched, not scrolled."""

MOST_FOUND = 30
MOST_GROUPS = 60
MOST_SLIDERS = 16
MOST_NAMED = 12

DAYS = {day: k for k, day in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun"))}

Shown = dict[str, Any]


def _states(desk: Desk) -> dict[str, str]:
    """State in words that the list was decided for, by id."""
    document = desk.document()
    names = STATES if desk.is_programme else tuple(desk.model().problem.state_names)
    ids, states = document["ids"], document["state"]
    return {} if len(ids) != len(states) else {one: str(names[k]) for one, k in zip(ids, states, strict=True)}


def _figures(document: Mapping[str, Any]) -> Shown:
    """Value, bound and how far they are apart."""
    return {
        "value": document["value"],
        "bound": document["bound"],
        "gap": None if document["relative_gap"] is None else round(document["relative_gap"], 6),
        "status": {"optimal": "optimal", "solver_optimal": "solver", "limit": "limit"}.get(
            document["status"], "heuristic"
        ),
        "by": document["solver"],
    }


def _marked(desk: Desk, rows: Sequence[Mapping[str, str]]) -> list[Shown]:
    """Rows of a list with what is noted of each."""
    draft, states = desk.draft(), _states(desk)
    asked = draft.asked
    hidden = ("id", "worker", "slot", "week")
    found = []
    for row in rows:
        name = row["id"]
        found.append(
            {
                "id": name,
                "worker": row.get("worker", ""),
                "slot": row.get("slot", ""),
                "cells": {key: cell for key, cell in row.items() if key not in hidden},
                "state": states.get(name, ""),
                "done": draft.done.get(name, ""),
                "seen": draft.state.get(name, ""),
                "lock": "in" if name in asked.into else "out" if name in asked.out else "",
                "placed": name in asked.placed,
            }
        )
    return found


def week(desk: Desk, by: str = "", page: int = 1) -> Shown:
    """The list of the week, by worker or by a column of the cohort, a page of it."""
    rows, document, draft = desk.rows(), desk.document(), desk.draft()
    first = rows[0] if rows else {}
    choices = (["worker"] if "worker" in first else []) + [
        name for name in first if name not in ("id", "worker", "slot", "week")
    ]
    by = by if by in choices else (choices[0] if choices else "")
    ordered = sorted(rows, key=lambda row: (row.get(by, ""), _in_time(row.get("slot", "")), row["id"]))
    pages = max(1, ceil(len(ordered) / PER_PAGE))
    page = min(max(page, 1), pages)
    blocks: dict[str, list[Shown]] = {}
    for row in _marked(desk, ordered[(page - 1) * PER_PAGE : page * PER_PAGE]):
        label = row["worker"] if by == "worker" else row["cells"].get(by, "")
        blocks.setdefault(label, []).append(row)
    return {
        "week": desk.label,
        "blocks": blocks,
        "columns": [name for name in choices if name not in ("worker", by)],
        "choices": choices,
        "by": by,
        "page": page,
        "pages": pages,
        "visits": len(rows),
        "chosen": len(document["action"]),
        "figures": _figures(document),
        "asked": draft.asked,
        "relaxed": document.get("relaxed"),
        "has_roster": "worker" in first,
        "state_names": state_names(desk),
    }


def _in_time(slot: str) -> tuple[int, str]:
    """Slots by the day of the week that they begin with, then as they are written."""
    return DAYS.get(slot[:3].casefold(), len(DAYS)), slot


def state_names(desk: Desk) -> list[str]:
    """States in words."""
    return list(STATES) if desk.is_programme else [str(name) for name in desk.model().problem.state_names]


def people(desk: Desk, asked: str) -> Shown:
    """Anybody of the cohort whose id or cells hold a text, on the list or not."""
    wanted = asked.strip().casefold()
    listed = {row["id"]: row for row in desk.rows()}
    found = []
    if wanted:
        for name, cells in desk.members().items():
            if wanted in name.casefold() or any(wanted in cell.casefold() for cell in cells.values()):
                found.append(name)
    shown = desk.shown()
    rows = [{"id": name, **shown(name), **listed.get(name, {})} for name in found[:MOST_FOUND]]
    on = [name in listed for name in found[:MOST_FOUND]]
    marked = [{**row, "on": here} for row, here in zip(_marked(desk, rows), on, strict=True)]
    return {"rows": marked, "count": len(found), "q": asked, "more": len(found) > MOST_FOUND}


def why(desk: Desk, name: str = "") -> Shown:
    """Why somebody is on the list or not; which limits are used up, and what one more unit is worth."""
    told, document = desk.told(), desk.document()
    sentences = desk.model().actions.describe()
    horizon = told.get("horizon") or desk.outlook()
    return {
        "reason": desk.why(name) if name else None,
        "name": name,
        "tight": [
            {"limit": key, "used": _few(rows), "says": sentences.get(key, "")}
            for key, rows in document["tight"].items()
        ],
        "worth": horizon.get("worth", {}) if horizon else {},
        "rule": told.get("rule", document["notes"].get("policy", "") if "notes" in document else ""),
        "said": told.get("said", []),
        "rules": sentences,
    }


def alternatives(desk: Desk) -> list[Shown]:
    """Other lists within one per cent, and how each differs."""
    made = desk.live()
    found = made.alternatives(2)
    rows = [
        {
            "value": one.value,
            "comes": _few([name for name in one.chosen if name not in made.chosen]),
            "goes": _few([name for name in made.chosen if name not in one.chosen]),
        }
        for one in found
    ]
    return [*rows, *([{"said": found.reason}] if found.reason else [])]


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def limits(desk: Desk) -> Shown:
    """What can be moved: limits with a number, workers, rules."""
    settings = desk.model().settings.get("constraints") or {}
    numbers = {
        name: one["at_most"]
        for name, one in settings.items()
        if isinstance(one, Mapping) and isinstance(one.get("at_most"), int | float)
    }
    workers: dict[str, int] = {}
    for one in desk.model().actions.declared.values():
        if isinstance(one, Scheduling):
            for worker, _, calls in one.shifts_of(desk.model().actions.columns):
                workers[worker] = max(workers.get(worker, 0), calls)
    sliders = [
        {"name": name, "now": now, "low": 0, "high": max(2 * int(now), int(now) + 10)} for name, now in numbers.items()
    ]
    if len(workers) <= MOST_SLIDERS:
        sliders += [
            {"name": f"calls={name}", "label": name, "now": now, "low": 0, "high": max(2 * now, now + 4)}
            for name, now in sorted(workers.items())
        ]
    options = [("", AS_IT_IS)]
    for name, now in numbers.items():
        options += [(f"{name}={round(now * share)}", f"{name} ≤ {round(now * share)}") for share in (0.8, 1.1, 1.25)]
    options += [(f"{word}={one}", f"{sign} {one}") for one in sorted(set(workers)) for word, sign in
                (("more", "+ 1"), ("less", "- 1"))]  # fmt: skip
    options += [(f"without={name}", f"∅ {name}") for name in settings]
    return {"sliders": sliders, "workers": sorted(set(workers)), "rules": list(settings), "options": options}


def slide(desk: Desk, change: str) -> Shown:
    """One change at once: this week's list by the same gains, what it is worth, and who changes."""
    began = perf_counter()
    now = desk.live()
    then = desk.what_if(change) if change else now
    rows = [
        {"list": len(one.chosen), "value": one.value, "bound": one.bound, "change": one.value - now.value}
        for one in (now, then)
    ]
    comes = [name for name in then.chosen if name not in now.chosen]
    goes = [name for name in now.chosen if name not in then.chosen]
    return {
        "rows": rows, "comes": _few(comes), "goes": _few(goes), "change": change, "seconds": perf_counter() - began,
    }  # fmt: skip


def side_by_side(desk: Desk, cases: Sequence[str], column: str) -> Shown:
    """Two to four ways to run the week, decided and simulated with the same chance for all."""
    found = compare(standpoint(str(desk.folder)), list(cases), episodes=2, column=column)
    lines = [*found.changes(), *found.worth()]
    return {"rows": _cases(found), "groups": found.groups(), "lines": lines, "column": column}


def _cases(found: Comparison) -> list[Shown]:
    rows = found.rows()
    for row, case in zip(rows, found.cases, strict=True):
        row["said"] = case.said
        row["number"] = case.bound
    return rows


def group_columns(desk: Desk) -> list[str]:
    """Columns of the cohort with a few values each."""
    members, columns = desk.members(), desk.columns()
    if columns is not None:
        choices = [*(["group"] if columns.register_.group else []), *columns.register_.keep]
    else:
        choices = [key for key in next(iter(members.values()), {}) if key != "slots"]
    return [key for key in choices if 1 < len({cells.get(key, "") for cells in members.values()}) <= MOST_GROUPS]


def groups(desk: Desk, column: str = "") -> Shown:
    """How the list is spread over groups, and who is served least."""
    members, listed, choices = desk.members(), {row["id"] for row in desk.rows()}, group_columns(desk)
    column = column if column in choices else (choices[0] if choices else "")
    if not column:
        return {"rows": [], "choices": [], "column": "", "worst": None}
    states, last = _states(desk), state_names(desk)[-1]
    counts: dict[str, list[int]] = {}
    for name, cells in members.items():
        one = counts.setdefault(cells.get(column, "") or "-", [0, 0, 0])
        one[0] += 1
        one[1] += name in listed
        one[2] += states.get(name) == last
    rows: list[Shown] = [
        {"group": key, "members": n, "list": on, "share": on / n, "engaged": up / n}
        for key, (n, on, up) in sorted(counts.items())
    ]
    worst = min(rows, key=lambda row: row["share"]) if len(rows) > 1 else None
    return {"rows": rows, "choices": choices, "column": column, "worst": worst, "last": last}


def fairness(desk: Desk, column: str) -> Shown:
    """What fairness costs, and what each group got since the beginning."""
    return {"fair": _fair(desk, column), "season": _season(desk, column)}


def _fair(desk: Desk, column: str) -> list[str]:
    """What the setting for fair outcomes says of the list, where it is installed and can."""
    if "decision_groups" not in registry.names("report"):
        return []
    try:
        told = registry.find("report", "decision_groups").make(desk.model(), desk.live(), column)
    except RmabError as error:
        return [error.message]
    return [part for _, part in told.parts if isinstance(part, str)]


def _season(desk: Desk, column: str) -> list[Shown]:
    """What each group got since the beginning."""
    from rmab_opt.programme.audit import audit

    if not desk.is_programme or not desk.ledger().rounds:
        return []
    return list(audit(desk.folder).groups.get(column, []))


def changes(desk: Desk) -> Shown:
    """Who comes and goes against last week, and why."""
    found = desk.changes()
    first = not desk.path(desk.week - 1).is_file()
    comes = [(name, said) for name, what, said in found if what == "comes"]
    goes = [(name, said) for name, what, said in found if what == "goes"]
    stay = len(desk.document()["action"]) - len(comes)
    return {"first": first, "comes": comes, "goes": goes, "stay": stay, "said": desk.told().get("said", [])}


def record(desk: Desk) -> Shown:
    """What is noted of the week, to be recorded."""
    draft, columns = desk.draft(), desk.columns()
    cells = [] if columns is None else [
        *(["group"] if columns.register_.group else []), *(["state"] if columns.register_.state else []),
        *columns.register_.keep,
    ]  # fmt: skip
    values = {
        key: sorted({one.get(key, "") for one in desk.members().values()} - {""})[:60]
        for key in cells
        if key != "state"
    }
    return {
        "week": desk.label,
        "done": sum(word == "yes" for word in draft.done.values()),
        "missed": sum(word == "no" for word in draft.done.values()),
        "seen": len(draft.state),
        "events": draft.events,
        "cells": cells,
        "values": values,
        "can_change": columns is not None,
        "state_names": state_names(desk),
    }


def proof(desk: Desk, check: bool = True) -> Shown:
    """The certificate, re-checked now."""
    began = perf_counter()
    verdict = desk.verdict() if check else None
    document = desk.document()
    return {
        "verdict": verdict,
        "seconds": perf_counter() - began,
        "figures": _figures(document),
        "kind": document["bound_kind"],
        "path": str(desk.path()),
        "home": str(desk.folder),
    }
