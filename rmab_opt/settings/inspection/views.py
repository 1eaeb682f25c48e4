"""A plan to read and to carry out: visits given to inspectors, as CSV, XLSX (a sheet an inspector), iCalendar, HTML."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from datetime import timedelta
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize

from rmab_opt.errors import CapabilityError
from rmab_opt.records import refuse_foreign, write_atomically
from rmab_opt.report import Picture, static_page, table_csv
from rmab_opt.settings.inspection.calendar import Calendar, dates_of
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


def staff_rows(plan: Calendar, who: Mapping[tuple[str, int], str] | None = None) -> list[dict[str, Any]]:
    """One row an inspector: visits, slots worked, areas a slot, visits outside the home district, share of capacity.

    ``who`` is :func:`given_out`, where it is known already.
    """
    kind = next((c for c in plan.model.actions.constraints.values() if isinstance(c, Inspectors)), None)
    if kind is None:
        return []
    who, cohort = given_out(plan) if who is None else who, plan.cohort
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


def visit_rows(plan: Calendar, who: Mapping[tuple[str, int], str] | None = None) -> list[dict[str, Any]]:
    """One row a visit in the order of time, with its inspector where there are any."""
    who = given_out(plan) if who is None else who
    place = {name: t for t, name in enumerate(plan.slots)}
    stops = _stops(plan, who)
    rows = []
    for row in plan.rows():
        visit = row["id"], place[row["slot"]]
        told = {**row, "inspector": who.get(visit, "nobody")} if who else row
        rows.append({**told, "stop": stops.get(visit, "")} if stops else told)
    return rows


def _stops(plan: Calendar, who: Mapping[tuple[str, int], str]) -> dict[tuple[str, int], int]:
    """Which stop of its inspector's round each visit is, from 1, by (arm, slot); empty where no round is asked for."""
    kind = next((c for c in plan.model.actions.constraints.values() if isinstance(c, Inspectors)), None)
    if kind is None or not kind.routes:
        return {}
    home = (
        dict(zip(kind.staff.text("id"), kind.staff.text("district"), strict=True)) if "district" in kind.staff else {}
    )
    area = dict(zip(plan.ids, plan.cohort.text(kind.district), strict=True))
    days: dict[tuple[str, int], list[str]] = {}
    for (arm, slot), name in who.items():
        days.setdefault((name, slot), []).append(arm)
    rounds: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    found = {}
    for (name, slot), arms in days.items():
        key = home.get(name, ""), tuple(sorted({area[arm] for arm in arms}))
        if key not in rounds:
            rounds[key] = kind.round(*key)
        for number, arm in enumerate(sorted(arms, key=lambda a: (rounds[key].index(area[a]), a)), start=1):
            found[arm, slot] = number
    return found


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
    who = given_out(plan)
    rows, staff = visit_rows(plan, who), staff_rows(plan, who)
    write_atomically(folder / "visits.csv", table_csv(rows))
    write_atomically(folder / "load.csv", table_csv(plan.loads()))
    write_atomically(folder / "changes.csv", table_csv(plan.changes()))
    write_atomically(folder / "year.html", year_page(plan, staff))
    by: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by.setdefault(str(row.get("inspector", "visits")), []).append(row)
    try:
        _workbook(folder / "plan.xlsx", plan, by, staff)
        if dates is not None:
            for name, own in by.items():
                write_atomically(folder / "ics" / f"{_file(name)}.ics", to_ics(own, plan, dates))
    except CapabilityError:
        # Tables and page say the same; spreadsheets and calendars are the extra `report`.
        return


def _file(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name) or "visits"


def _workbook(path: Path, plan: Calendar, by: Mapping[str, list[dict[str, Any]]], staff: list[dict[str, Any]]) -> None:
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
        "staff": staff,
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


def year_page(plan: Calendar, staff: list[dict[str, Any]] | None = None) -> str:
    """The period on one page: coverage, load against capacity, what is late, and what changed since the plan before.

    ``staff`` is :func:`staff_rows`, where they are known already.
    """
    beyond = getattr(getattr(plan.model.objective, "weights", None), "beyond", 0)
    slots = len(plan.ids) * (len(plan.slots) + beyond)
    visited = int(plan.visits.any(axis=1).sum())
    proof = {
        "coverage": f"{visited} of {len(plan.ids)} are visited, {int(plan.visits.sum())} visits",
        "value": f"{plan.value:.6g} of {slots} slots in good order, no plan exceeds {plan.bound:.6g}",
        "since the plan before": plan.because(),
    }
    if plan.at_the_ends():
        proof["earns"] = plan.at_the_ends()
    late = [
        {
            "who": found.arm or "a limit", "what": found.what, "due by": plan.slots[found.by] if found.by >= 0 else "",
            "planned": "not in this period" if found.planned is None else plan.slots[found.planned],
            "in time with": found.change,
        }
        for found in plan.overdue
    ]  # fmt: skip
    told, changes = _told(staff_rows(plan) if staff is None else staff, plan), plan.changes()
    parts: list[Any] = [("", proof), ("Load", _load_svg(plan))]
    parts += [("Late", late)] if late else [("", "Nothing is late.")]
    parts += [("What changed", changes)] if changes else []
    parts += [("Inspectors", told)] if told else []
    return static_page(f"Plan · {plan.model.title}", [*parts, (f"Visits by {_unit(plan)}", _load_rows(plan))])


def _told(rows: list[dict[str, Any]], plan: Calendar) -> list[dict[str, Any]]:
    """Rows without columns about districts where none are known; shares in per cent."""
    dates = dates_of(plan.model)
    unit = "slot" if dates is None else dates.unit
    known = any(row["areas_a_slot"] != 1.0 or row["away"] for row in rows if row["visits"])
    kept = [key for key in (rows[0] if rows else {}) if known or key not in ("areas_a_slot", "away")]
    return [
        {
            key.replace("slot", unit): f"{row[key]:.0%}" if key == "share_of_capacity" else row[key]
            for key in kept
        }
        for row in rows
    ]  # fmt: skip


def _unit(plan: Calendar) -> str:
    """What a row of the table of loads is."""
    dates = dates_of(plan.model)
    if dates is None:
        return "slot"
    return "week" if dates.unit == "day" else dates.unit


def _load_rows(plan: Calendar) -> list[dict[str, Any]]:
    """Visits and capacity a slot; days by weeks."""
    dates = dates_of(plan.model)
    weeks: dict[str, list[int]] = {}
    for t, name in enumerate(plan.slots):
        if dates is not None and dates.unit == "day":
            first = dates.first(t)
            name = (first - timedelta(days=first.weekday())).isoformat()
        weeks.setdefault(name, []).append(t)
    unit, rows = _unit(plan), []
    most = max((float(plan.load[own].sum()) for own in weeks.values()), default=1.0) or 1.0
    for name, own in weeks.items():
        visits, room = int(plan.load[own].sum()), float(plan.capacity[own].sum())
        rows.append(
            {
                unit: name, "visits": visits, **({"capacity": int(room)} if np.isfinite(room) else {}),
                "load": "█" * round(24 * visits / most), "": "past" if own[-1] < plan.now else "",
            }
        )  # fmt: skip
    return rows if plan.now else [{key: value for key, value in row.items() if key} for row in rows]


def _load_svg(plan: Calendar) -> Picture:
    """Visits by slot as columns, with the capacity as a line and what is past in grey."""
    room = np.where(np.isfinite(plan.capacity), plan.capacity, np.nan)
    high = max(1.0, float(plan.load.max(initial=0)), float(np.nanmax(room)) if np.isfinite(room).any() else 0.0)
    left, width, height, n = 40, 700, 150, len(plan.slots)
    step = width / n
    parts = []
    for t, load in enumerate(plan.load.tolist()):
        tall = height * load / high
        colour = "#9aa7b1" if t < plan.now else "#2b6a9b"
        parts.append(
            f'<rect x="{left + step * t:.1f}" y="{10 + height - tall:.1f}" width="{max(0.5, step * 0.8):.2f}" '
            f'height="{tall:.1f}" fill="{colour}"><title>{escape(plan.slots[t])}: {load}</title></rect>'
        )
    line = " ".join(
        f"{left + step * (t + k):.1f},{10 + height * (1 - float(room[t]) / high):.1f}"
        for t in range(n) for k in (0, 1) if np.isfinite(room[t])
    )  # fmt: skip
    parts.append(f'<polyline points="{line}" fill="none" stroke="#b03030"/>' if line else "")
    parts.append(f'<line x1="{left}" y1="{10 + height}" x2="{left + width}" y2="{10 + height}" stroke="#888"/>')
    for value in (0.0, high):
        parts.append(
            f'<text x="{left - 6}" y="{14 + height * (1 - value / high):.0f}" text-anchor="end">{value:g}</text>'
        )
    for t in range(0, n, max(1, round(n / 6))):
        parts.append(f'<text x="{left + step * t:.1f}" y="{26 + height}">{escape(plan.slots[t])}</text>')
    said = "visits by slot" + ("; the line is the capacity" if line else "") + ("; grey is past" if plan.now else "")
    parts.append(f'<text x="{left}" y="{44 + height}" fill="#555">{said}</text>')
    return Picture(
        f'<svg viewBox="0 0 {left + width + 40} {50 + height}" role="img" aria-label="visits by slot" font-size="12" '
        f'width="100%">{"".join(parts)}</svg>'
    )
