"""An inspector's year, step by step (shared/design/journeys.md)."""

from __future__ import annotations

import csv
import json
import shutil
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from command_line import run

N = 12
MODEL = """\
format: 1
title: The city's year
problem:
  arms: arms.csv
  dynamics: {kind: inspection, n_slots: 26, given_for: 12, window: null}
  horizon: 26
columns: visits
constraints:
  often: {kind: class_rules, rules: {class: [cafe, school], visits: [1, 2], every: [26, 13]}}
  staff: {kind: inspectors, staff: staff.csv}
objective: {kind: visit_gains}
calendar:
  start: "2026-01-05"
  unit: week
  closed: ["2026-04-06..2026-04-10"]
  deadlines: {complaint: 10 working days}
"""


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def city(tmp_path_factory) -> Path:
    """Dated inspections, inspectors, and a model; fitted and planned by the command line."""
    folder, rng = tmp_path_factory.mktemp("city"), np.random.default_rng(0)
    lines = ["id,date,outcome,class"]
    for k in range(N):
        day, bad = date(2020, 1, 6), False
        for _ in range(14):
            day += timedelta(days=int(rng.integers(20, 200)))
            bad = bool(rng.random() < (0.7 if bad else 0.25))
            lines.append(f"e{k:02d},{day.isoformat()},{int(bad)},{('cafe', 'school')[k % 3 == 0]}")
    (folder / "inspections.csv").write_text("\n".join(lines) + "\n")
    (folder / "staff.csv").write_text("id,capacity\nann,1\nbea,1\ncid,1\n")
    (folder / "model.yaml").write_text(MODEL)
    fitted = run(
        "fit", folder / "inspections.csv", "--date", "date", "--class", "class", "--unit", "week", "--out",
        folder / "arms.csv",
    )  # fmt: skip
    assert fitted.code == 0, fitted.err
    planned = run("plan", folder / "model.yaml", "--out", folder / "plan", "--json")
    assert planned.code == 0, planned.err
    return folder


def copy_of(plan: Path, to: Path) -> Path:
    """Another folder in which the same was planned."""
    return Path(shutil.copytree(plan, to))


def test_step_1_a_dated_year_with_pictures_sheets_and_calendars(city):
    plan = city / "plan"
    assert {row["id"] for row in rows(city / "arms.csv")} == {f"e{k:02d}" for k in range(N)}
    visits = rows(plan / "visits.csv")
    counted = {name: sum(row["id"] == name for row in visits) for name in {row["id"] for row in visits}}
    assert counted == {f"e{k:02d}": 2 if k % 3 == 0 else 1 for k in range(N)}
    days = [date.fromisoformat(row["slot"]) for row in visits]
    assert all(date(2026, 1, 5) <= day < date(2026, 7, 6) for day in days)
    # Nobody goes out in the week that is closed.
    assert not [day for day in days if date(2026, 4, 6) <= day <= date(2026, 4, 10)]
    page = (plan / "year.html").read_text(encoding="utf-8")
    assert "<rect" in page
    assert "Visits by week" in page
    book = openpyxl.load_workbook(plan / "plan.xlsx")
    assert {"ann", "bea", "cid"} & {row["inspector"] for row in visits}
    assert any(name in title for title in book.sheetnames for name in ("ann", "staff"))
    events = sum(path.read_bytes().count(b"BEGIN:VEVENT") for path in (plan / "ics").glob("*.ics"))
    assert events == len(visits)


def test_step_2_what_happened_moves_visits_says_why_and_forgets_nothing(city, tmp_path):
    plan = copy_of(city / "plan", tmp_path / "plan")
    before = rows(plan / "visits.csv")
    first = min(before, key=lambda row: row["slot"])
    second = sorted(before, key=lambda row: row["slot"])[1]
    complained, closed = [name for name in (f"e{k:02d}" for k in range(N)) if name not in (first["id"], second["id"])][
        :2
    ]
    happened = [
        f"kind=missed arm={first['id']} on={first['slot']}",
        f"kind=complaint arm={complained} on=2026-02-02",
        f"kind=closed arm={closed} on=2026-02-02",
        "kind=leave arm=ann on=2026-02-02 by=2026-02-20",
        "kind=leave arm=bea on=2026-02-02 by=2026-02-13",
    ]
    answer = run(
        "replan", plan, *(word for words in happened for word in ("--event", words)), "--now", "2026-02-02", "--json"
    )
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    after = rows(plan / "visits.csv")
    assert told["changes"]
    for words in ("complaint", "leave"):
        assert words in told["because"]
    # The closed one is visited no more; everybody else as often as the rules ask, or is named as late.
    late = json.dumps(told["late"])
    for name in {row["id"] for row in before} - {closed}:
        visits = [row for row in after if row["id"] == name and row["status"] != "missed"]
        assert len(visits) >= sum(row["id"] == name for row in before) or name in late, name
    assert not [row for row in after if row["id"] == closed and row["slot"] >= "2026-02-02"]
    assert [row for row in after if row["id"] == first["id"] and row["slot"] >= "2026-02-02"]
    soon = [row for row in after if row["id"] == complained and "2026-02-02" <= row["slot"] <= "2026-02-16"]
    assert soon or complained in late
    away = [row for row in after if row["inspector"] in ("ann", "bea") and "2026-02-02" <= row["slot"] < "2026-02-13"]
    assert away == []
    log = [json.loads(path.read_text()) for path in sorted((plan / "log").glob("*.json"))]
    assert {"missed", "complaint", "closed", "leave"} <= {entry.get("event") for entry in log}


def test_step_3_where_nothing_happened_the_re_plan_is_the_plan(city, tmp_path):
    plan = copy_of(city / "plan", tmp_path / "plan")
    before = [(row["slot"], row["id"], row["inspector"]) for row in rows(plan / "visits.csv")]
    answer = run("replan", plan, "--now", "2026-02-02", "--json")
    assert answer.code == 0, answer.err
    assert [(row["slot"], row["id"], row["inspector"]) for row in rows(plan / "visits.csv")] == before
    assert json.loads(answer.out)["changes"] == []
