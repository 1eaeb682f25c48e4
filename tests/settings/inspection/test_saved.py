"""A plan in a folder: dates, the log, the views, and decay from records."""

from __future__ import annotations

import csv
from datetime import date

import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.errors import ModelError
from rmab_opt.problem import Table
from rmab_opt.settings.inspection.dates import Dates
from rmab_opt.settings.inspection.fit import RecordColumns
from rmab_opt.settings.inspection.memory import from_records
from rmab_opt.settings.inspection.saved import SavedPlan, read_event

MODEL = """
format: 1
title: City
problem:
  arms: arms.csv
  dynamics: {kind: inspection, n_slots: 12, stay_good: good, recover: back, window: null}
  horizon: 12
columns: visits
constraints:
  season: {kind: window, start: "2026-01-05", unit: week}
  often: {kind: class_rules, rules: {class: [high, low], visits: [2, 1]}}
  staff: {kind: inspectors, staff: {id: [ann, bob], capacity: [1, 2], district: [n, s], off: ["3-4", ""]}}
objective: {kind: visit_gains}
calendar: {start: "2026-01-05", unit: week, closed: ["2026-02-16..2026-02-20"]}
"""


@pytest.fixture
def city(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["id,good,back,window,class,district"]
    for k in range(12):
        window = "2026-01-19..2026-03-29" if k % 3 else "0-11"
        good, kind, area = rng.uniform(0.7, 0.95), "high" if k % 4 == 0 else "low", "ns"[k % 2]
        lines.append(f"r{k},{good:.3f},0.1,{window},{kind},{area}")
    (tmp_path / "arms.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "city.yaml").write_text(MODEL)
    return ro.load(tmp_path / "city.yaml"), tmp_path


def test_dates_are_slots_and_slots_dates():
    days = Dates(date(2026, 1, 1), "day", frozenset([date(2026, 1, 6)]))
    assert [days.first(k).isoformat() for k in range(3)] == ["2026-01-01", "2026-01-02", "2026-01-05"]
    for unit in ("day", "week", "month"):
        dates = Dates(date(2026, 1, 14), unit)
        assert [dates.slot(dates.first(k)) for k in range(30)] == list(range(30))
        assert [dates.slot(dates.last(k)) for k in range(30)] == list(range(30))
    assert days.shut(5) == [3]
    assert days.deadline("complaint", date(2026, 1, 2)) == date(2026, 1, 8)  # a weekend and a holiday between
    months = Dates(date(2026, 1, 1), "month")
    assert months.window("2026-03-01..2026-04-30;2026-11-15..2026-12-31") == "2-3;11-11"
    with pytest.raises(ModelError, match="unit"):
        Dates.of({"start": "2026-01-05", "unit": "hour"})


def test_a_plan_is_kept_replayed_and_written(city):
    model, folder = city
    saved, plan = SavedPlan.create(folder / "plan", model, str(folder / "city.yaml"))
    assert not plan.visits[:, 6].any()  # the closed week
    assert (plan.load[3:5] <= 2).all()  # ann is off
    assert plan.visits.sum() == 15
    with pytest.raises(ModelError, match="holds a plan already"):
        SavedPlan.create(folder / "plan", model, "city.yaml")
    event = read_event("kind=complaint arm=r1 on=2026-02-10", saved.dates)
    assert (event.slot, event.last) == (5, 5)  # within three working days
    away = read_event("kind=leave arm=bob on=2026-02-23 by=2026-03-06", saved.dates)
    again = SavedPlan.open(folder / "plan", model).replan([event, away], now=5)
    assert again.visits[1, 5]
    assert (again.load[7:9] <= 1).all()
    assert "complaint r1" in again.because()
    nothing = SavedPlan.open(folder / "plan", model).replan(now=6)
    assert (nothing.visits == again.visits).all()
    rows = list(csv.DictReader((folder / "plan" / "visits.csv").open()))
    assert len(rows) == again.visits.sum()
    assert {row["inspector"] for row in rows} <= {"ann", "bob"}
    per = {(r["slot"], r["inspector"]) for r in rows}
    assert all(sum((r["slot"], r["inspector"]) == key for r in rows) <= (1 if key[1] == "ann" else 2) for key in per)
    assert "What changed" in (folder / "plan" / "year.html").read_text() or nothing.moved == 0
    icalendar = pytest.importorskip("icalendar")
    found = [
        entry
        for name in ("ann", "bob")
        for entry in icalendar.Calendar.from_ical((folder / "plan" / "ics" / f"{name}.ics").read_bytes()).walk("VEVENT")
    ]
    assert len(found) == len(rows)


def test_a_changed_model_or_an_altered_log_is_noticed(city):
    model, folder = city
    SavedPlan.create(folder / "plan", model, str(folder / "city.yaml"))
    other = ro.load(folder / "city.yaml", **{"problem.dynamics.tolerance": 0.05})
    with pytest.raises(ModelError, match="changed since"):
        SavedPlan.open(folder / "plan", other)
    entry = next((folder / "plan" / "log").glob("event-*.json"))
    entry.write_text(entry.read_text().replace("r1", "r2"))
    with pytest.raises(ModelError, match="altered"):
        SavedPlan.open(folder / "plan", model)


@pytest.mark.parametrize(
    ("words", "said"),
    [("kind=quarrel on=1", "kind"), ("kind=complaint arm=r1", "on"), ("kind=done arm=r1 on=1 why=x", "why")],
)
def test_events_that_say_too_little_are_refused(words, said):
    with pytest.raises(ModelError, match=said):
        read_event(words, None)


def records(persistence: float, rng: np.random.Generator, n: int = 6000) -> Table:
    """Two classes with other shares of bad, and as much memory as told."""
    arm = np.arange(n) % 1500
    share = np.where(arm % 2 == 0, 0.05, 0.6)
    months = rng.integers(1, 10, n)
    before = (rng.random(n) < share).astype(int)
    memory = persistence**months if persistence else np.zeros(n)
    bad = (rng.random(n) < share + (np.where(before, 0.99, 0.01) - share) * memory).astype(int)
    kind = np.where(arm % 2 == 0, "low", "high")
    return Table({"id": arm, "elapsed": months, "before": before, "outcome": bad, "kind": kind})


def test_a_difference_between_establishments_is_not_sold_as_memory():
    columns = RecordColumns()
    none = from_records(records(0.0, np.random.default_rng(0)), columns, group="kind")
    assert none.pooled.low > 0.1  # what a fit without the classes would sell
    assert not none.kept
    assert none.persistence == 0.0
    assert {row["stay_good"] - row["recover"] for row in none.arms} == {0.0}
    assert "plan by class risk" in str(none)
    some = from_records(records(0.8, np.random.default_rng(1)), columns, group="kind")
    assert some.kept
    assert some.told.low <= 0.8 <= some.told.high
