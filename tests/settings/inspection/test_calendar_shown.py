"""A calendar in a notebook and as a data frame."""

from __future__ import annotations

from dataclasses import replace

import pytest
from notebooks import EVIL, shown

import rmab_opt as ro
from rmab_opt.settings.inspection.calendar import calendar
from rmab_opt.settings.inspection.events import CalendarEvent
from rmab_opt.settings.inspection.views import year_page


def test_a_calendar_shows_its_certificate_and_gives_a_frame():
    model = ro.load("inspection")
    plan = calendar(model)
    plan = replace(plan, reason=EVIL)
    text = shown(plan)
    assert EVIL in text
    assert f"{plan.value:.6g}" in text
    polars = pytest.importorskip("polars")
    made = plan.to_frame("polars")
    assert isinstance(made, polars.DataFrame)
    assert made.to_dicts() == plan.rows()


def test_the_page_of_a_year_shows_loads_capacity_as_events_left_it_and_who_is_late(tmp_path):
    """Days are told by week; a day closed or with somebody on leave holds less; nothing is escaped twice."""
    lines = ["id,good,back,window,class,district"]
    lines += [f"r{k},0.{80 + k},0.1,0-19,low,{'ns'[k % 2]}&" for k in range(12)]
    (tmp_path / "arms.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "city.yaml").write_text(
        "format: 1\ntitle: City\nproblem:\n  arms: arms.csv\n  dynamics: {kind: inspection, n_slots: 20, stay_good: "
        "good, recover: back, window: null}\n  horizon: 20\ncolumns: visits\nconstraints:\n"
        "  often: {kind: class_rules, rules: {class: [low], visits: [1]}}\n"
        "  staff: {kind: inspectors, staff: {id: [ann, b&b], capacity: [1, 2], district: ['n&', 's&']}}\n"
        "objective: {kind: visit_gains}\ncalendar: {start: '2026-01-05', unit: day, closed: ['2026-01-14']}\n"
    )
    plan = calendar(ro.load(tmp_path / "city.yaml"))
    assert plan.capacity.tolist() == [0.0 if t == 7 else 3.0 for t in range(20)]
    events = [
        CalendarEvent(event="leave", arm="b&b", slot=3, last=4),
        CalendarEvent(event="complaint", arm="r1", slot=0, last=1),
    ]
    made = plan.replan(3, events=events)
    assert made.capacity[3:6].tolist() == [1.0, 1.0, 3.0]
    page = year_page(made)
    assert page.count("<rect") == 20
    assert "Visits by week" in page
    assert "<td>2026-01-12</td>" in page
    assert "b&amp;b" in page
    assert "&amp;amp;" not in page
    assert "<th>due by</th>" in page
    assert "r1" in page.partition("due by")[2]
