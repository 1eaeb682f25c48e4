"""A plan to read and to carry out: visits given to inspectors, as CSV, XLSX (a sheet an inspector), iCalendar, HTML."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize

from rmab_opt.errors import CapabilityError
from rmab_opt.records import refuse_foreign, write_atomically
from rmab_opt.report import static_page, table_csv
from rmab_opt.settings.inspection.calendar import Calendar
from rmab_opt.settings.inspection.dates import Dates
from rmab_opt.settings.inspection.kinds import Inspectors

__all__ = ["given_out", "to_ics", "write_views", "year_page"]

NOBODY = 1e6
"""Cost of a visit that the inspector cannot do."""

PASSES = 3
"""Times that a slot's visits are given out again, nearer to what each inspector has in it already."""


def given_out(plan: Calendar) -> dict[tuple[str, int], str]:
    """Who does each visit, by (arm, slot): near home and near each other, evenly over the season.

    Empty where the model names no inspectors. Slot by slot an assignment at least cost, by the ways between districts
    and by who has done least of their capacity so far; then again with the ways to the inspector's other visits of the
    slot, kept where the slot's ways become shorter. The plan's own rows see to it that there is one.
    """
    kind = next((c for c in plan.model.actions.constraints.values() if isinstance(c, Inspectors)), None)
    if kind is None:
        return {}
    names, n_slots, cohort = kind.staff.text("id"), len(plan.slots), plan.cohort
    room = kind.rooms(n_slots, plan.log)
    needs = cohort.text(kind.skill) if kind.skill is not None else [""] * len(cohort)
    home = kind.staff.text("district") if "district" in kind.staff else [""] * len(names)
    area = cohort.text(kind.district) if kind.district in cohort.columns else [""] * len(cohort)
    areas = list(dict.fromkeys([*home, *area]))
    way = kind.ways(areas)
    at_home, place = np.array([areas.index(h) for h in home]), np.array([areas.index(a) for a in area])
    unable = ~kind.able(needs) * NOBODY
    done, found = np.zeros(len(names)), {}
    for t in range(n_slots):
        here = np.flatnonzero(plan.visits[:, t])
        seats = np.repeat(np.arange(len(names)), np.rint(room[:, t]).astype(int))
        if not len(here) or not len(seats):
            continue
        share = done / np.maximum(1.0, room[:, : t + 1].sum(axis=1))
        cost = way[at_home[seats]][:, place[here]] + unable[seats][:, here] + kind.fairness * share[seats][:, None]
        for seat, visit in _together(cost, seats, place[here], way):
            found[cohort.ids[int(here[visit])], t] = names[int(seats[seat])]
            done[seats[seat]] += 1
    return found


def _together(cost: np.ndarray, seats: np.ndarray, place: np.ndarray, way: np.ndarray) -> list[tuple[int, int]]:
    """(seat, visit) pairs of one slot at least cost, with each inspector's visits together where that is cheaper."""
    best: list[tuple[int, int]] = []
    least, now = np.inf, cost
    for _ in range(PASSES):
        pairs = [
            (int(seat), int(visit))
            for seat, visit in zip(*optimize.linear_sum_assignment(now), strict=True)
            if cost[seat, visit] < NOBODY
        ]
        own = {who: [v for s, v in pairs if seats[s] == who] for who in {int(seats[s]) for s, _ in pairs}}
        between = sum(float(way[np.ix_(place[v], place[v])].sum()) / max(1, len(v) - 1) for v in own.values())
        total = sum(float(cost[s, v]) for s, v in pairs) + between
        if total < least - 1e-12:
            least, best = total, pairs
        near = np.array(
            [
                way[place[own[int(who)]]].mean(axis=0) if own.get(int(who)) else np.zeros(len(way))
                for who in seats
            ]
        )  # fmt: skip
        now = cost + near[:, place]
    return best


def staff_rows(plan: Calendar) -> list[dict[str, Any]]:
    """One row an inspector: visits, slots worked, areas a slot, visits outside the home district, share of capacity."""
    kind = next((c for c in plan.model.actions.constraints.values() if isinstance(c, Inspectors)), None)
    if kind is None:
        return []
    who, cohort = given_out(plan), plan.cohort
    area = cohort.text(kind.district) if kind.district in cohort.columns else [""] * len(cohort)
    home = kind.staff.text("district") if "district" in kind.staff else [""] * len(kind.staff)
    room = kind.rooms(len(plan.slots), plan.log).sum(axis=1)
    rows = []
    for number, name in enumerate(kind.staff.text("id")):
        mine = [(arm, t) for (arm, t), doer in who.items() if doer == name]
        places = [(t, area[cohort.index(arm)]) for arm, t in mine]
        slots = len({t for t, _ in places})
        rows.append(
            {
                "inspector": name, "visits": len(mine), "slots": slots,
                "areas_a_slot": round(len(set(places)) / slots, 2) if slots else 0.0,
                "away": sum(bool(home[number]) and a != home[number] for _, a in places),
                "share_of_capacity": round(len(mine) / room[number], 3) if room[number] else 0.0,
            }
        )  # fmt: skip
    return rows


def visit_rows(plan: Calendar) -> list[dict[str, Any]]:
    """One row a visit in the order of time, with its inspector where there are any."""
    who = given_out(plan)
    place = {name: t for t, name in enumerate(plan.slots)}
    rows = []
    for row in plan.rows():
        name = who.get((row["id"], place[row["slot"]]))
        rows.append({**row, "inspector": name or "nobody"} if who else row)
    return rows


def to_ics(rows: list[dict[str, Any]], plan: Calendar, dates: Dates) -> bytes:
    """Visits as an iCalendar file of whole days; the same plan gives the same bytes.

    Raises
    ------
    CapabilityError
        When the package ``icalendar`` is not installed.
    """
    try:
        from icalendar import Calendar as Ics
        from icalendar import Event
    except ImportError:
        raise CapabilityError("to_ics", plan, ("install rmab-opt[report]", "use visits.csv")) from None
    place = {name: t for t, name in enumerate(plan.slots)}
    book = Ics()
    book.add("prodid", "-//rmab-opt//calendar//EN")
    book.add("version", "2.0")
    for row in rows:
        slot = place[row["slot"]]
        entry = Event()
        entry.add("uid", f"{row['id']}-{row['slot']}@rmab-opt")
        entry.add("dtstamp", dates.first(0))
        entry.add("dtstart", dates.first(slot))
        entry.add("dtend", dates.last(slot) + timedelta(days=1))
        late = " (late)" if row["status"] == "late" else ""
        entry.add("summary", f"Visit {row['id']}{late}")
        entry.add("description", f"chance of being in order {row['belief']:.0%}, gain {row['gain']:g}")
        book.add_component(entry)
    return bytes(book.to_ical())


def refuse_views(folder: Path) -> None:
    """Before anything is planned: ModelError where a file that is not ours lies under a name that we write."""
    names = ("visits.csv", "load.csv", "changes.csv", "year.html", "plan.xlsx")
    for path in (*(folder / name for name in names), *sorted((folder / "ics").glob("*.ics"))):
        refuse_foreign(path)


def write_views(folder: Path, plan: Calendar, dates: Dates | None) -> None:
    """``visits.csv``, ``load.csv``, ``changes.csv``, ``year.html``, and where they can be written ``plan.xlsx`` and an
    ``.ics`` file an inspector (models with dates)."""
    rows = visit_rows(plan)
    write_atomically(folder / "visits.csv", table_csv(rows))
    write_atomically(folder / "load.csv", table_csv(plan.loads()))
    write_atomically(folder / "changes.csv", table_csv(plan.changes()))
    write_atomically(folder / "year.html", year_page(plan))
    by: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by.setdefault(str(row.get("inspector", "visits")), []).append(row)
    try:
        _workbook(folder / "plan.xlsx", plan, by)
        if dates is not None:
            for name, own in by.items():
                write_atomically(folder / "ics" / f"{_file(name)}.ics", to_ics(own, plan, dates))
    except CapabilityError:
        # Tables and page say the same; spreadsheets and calendars are the extra `report`.
        return


def _file(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name) or "visits"


def _workbook(path: Path, plan: Calendar, by: Mapping[str, list[dict[str, Any]]]) -> None:
    """One sheet an inspector, then load, late list and certificate; text never becomes a formula."""
    try:
        from openpyxl import Workbook
    except ImportError:
        raise CapabilityError("plan.xlsx", plan, ("install rmab-opt[report]", "use visits.csv")) from None
    book = Workbook(write_only=True)
    late = [{"late": plan.said(found)} for found in plan.overdue]
    certificate = [{"what": key, "value": str(value)} for key, value in plan.summary().items() if key != "seconds"]
    sheets = {
        **by,
        "staff": staff_rows(plan),
        "load": plan.loads(),
        "late": late,
        "changes": plan.changes(),
        "certificate": certificate,
    }
    for title, rows in sheets.items():
        sheet = book.create_sheet(re.sub(r"[\[\]:*?/\\]", "_", title)[:31])
        sheet.append(list(rows[0]) if rows else ["(none)"])
        for row in rows:
            sheet.append([f"'{v}" if isinstance(v, str) and v[:1] in "=+-@" and v else v for v in row.values()])
    buffer = io.BytesIO()
    book.save(buffer)
    write_atomically(path, buffer.getvalue())


def year_page(plan: Calendar) -> str:
    """The period on one page: load by slot, coverage, the late list, and what changed since the plan before."""
    room = plan.capacity[np.isfinite(plan.capacity)]
    most = max(1.0, float(plan.load.max(initial=0)), float(room.max(initial=0)))
    load = [
        {
            "slot": name,
            "visits": f"{int(plan.load[t])}" + (f" of {plan.capacity[t]:g}" if np.isfinite(plan.capacity[t]) else ""),
            "load": "█" * round(24 * float(plan.load[t]) / most) + ("" if t >= plan.now else " past"),
        }
        for t, name in enumerate(plan.slots)
    ]
    visited = int(plan.visits.any(axis=1).sum())
    proof = {
        "coverage": f"{visited} of {len(plan.ids)} are visited, {int(plan.visits.sum())} visits",
        "value": f"{plan.value:.6g}, no plan exceeds {plan.bound:.6g}",
        "since the plan before": plan.because(),
    }
    if plan.at_the_ends():
        proof["earns"] = plan.at_the_ends()
    late = [{"late": plan.said(found)} for found in plan.overdue]
    staff = [{key: str(value) for key, value in row.items()} for row in staff_rows(plan)]
    parts: list[Any] = [("", proof)]
    parts += [("Late", late)] if late else [("", "Nothing is late.")]
    parts += [("Inspectors", staff)] if staff else []
    changes = plan.changes()
    parts += [("Load", load)] + ([("What changed", changes)] if changes else [])
    return static_page(f"Plan · {plan.model.title}", parts)
