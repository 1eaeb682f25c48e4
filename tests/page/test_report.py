"""The page of a decision: everyone chosen is on it once, everything is escaped, nothing comes from elsewhere."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from command_line import run

import rmab_opt as ro
from rmab_opt.actions import ActionSet, Columns
from rmab_opt.actions.kinds import Budget
from rmab_opt.page.report import decision_page
from rmab_opt.problem import Arms, Problem, Tabular
from rmab_opt.report import bars_svg, static_page, style, table_html

VOID = {"meta"}


class Reader(HTMLParser):
    """Tables of a page as lists of rows, and whether every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.headings, self.links = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif self.open and self.open[-1] == "h2":
            self.headings[-1] += data


def test_every_visit_stands_once_under_its_worker_in_the_order_of_the_roster():
    model = ro.load("weekly_calls", **{"problem.first": 40, "weekly.at_most": 8, "villages.at_least": 0})
    decision = ro.decide(model)
    page = Reader(decision_page(model, decision))
    lists = dict(zip(page.headings, page.tables, strict=False))
    visits = [(row["worker"], row["slot"], row["column"]) for row in decision.assignment]
    shown = [
        (heading.split()[1], row[0], row[1])
        for heading, table in lists.items()
        if heading.startswith("Worker")
        for row in table[1:]
    ]
    assert shown == sorted(visits, key=lambda visit: [name for name, _, _ in visits].index(visit[0]))
    assert {name for _, _, name in shown} == set(decision.chosen)
    assert page.headings[-2:] == ["Constraints", "How good it is"]
    assert page.links == []


def test_names_are_escaped_and_the_same_decision_gives_the_same_page():
    arms = Arms.from_arrays(2, note=["<b>bold</b> & co", "plain"])
    problem = Problem(arms, Tabular(np.full((2, 2, 2, 2), 0.5), np.eye(2)), 3, 1.0, np.zeros(2, dtype=int))
    model = ro.Model(problem, ActionSet(Columns.of_arms(arms), {"two": Budget(at_most=2)}), title="<script>")
    decision = dataclasses.replace(ro.decide(model), action=np.ones(2, dtype=int))
    text = decision_page(model, decision)
    assert "<script>" not in text
    assert "<b>" not in text
    assert any("<b>bold</b> & co" in row for table in Reader(text).tables for row in table)
    assert text == decision_page(model, decision)


def test_a_limit_and_a_broken_constraint_are_marked():
    model = ro.load("weekly_calls", **{"problem.first": 14, "weekly.at_most": 2, "villages.at_least": 0})
    decision = dataclasses.replace(
        ro.decide(model), status="limit", violations={"hours": ["600 of 540 minutes"]}, relaxed="hours", bound=np.inf
    )
    text = decision_page(model, decision)
    assert text.count('class="warning"') == 2
    assert "best list found, gap open" in text
    assert "hours is not kept, relaxed on request: 600 of 540 minutes" in text


def test_tables_without_rows_and_pages_without_parts():
    assert table_html([]) == "<p>(none)</p>"
    assert Reader(static_page("Empty", [])).tables == []
    assert Reader(table_html([{"name": "a", "x": 0.12345}])).tables == [[["name", "x"], ["a", "0.1235"]]]


def test_the_command_line_writes_the_page(tmp_path):
    path = tmp_path / "week.html"
    arguments = ("decide", "weekly_calls", "--set", "problem.first=14", "--set", "weekly.at_most=3")
    loose = ("--set", "villages.at_least=0", "--report")
    answer = run(*arguments, *loose, path)
    assert answer.code == 0
    assert f"written to {path}" in answer.out
    assert Reader(path.read_text(encoding="utf-8")).tables
    assert run(*arguments, *loose, tmp_path / "week.pdf").code == 2


@pytest.mark.parametrize("name", ["path", "budget"])
def test_routes_and_plain_lists_have_pages_too(name):
    model = ro.load(name)
    state = model.problem.sample_start(np.random.default_rng(0))
    decision = ro.decide(model, state, solver="quick")
    page = Reader(decision_page(model, decision))
    shown = [row for table in page.tables[: -1 if page.headings else None] for row in table[1:]]
    assert {row[page.tables[0][0].index("id")] for row in shown} == set(decision.chosen)


def test_a_static_page_has_the_style_of_the_planners_page_and_no_buttons():
    model = ro.load("weekly_calls", **{"problem.first": 14, "weekly.at_most": 2, "villages.at_least": 0})
    text = decision_page(model, ro.decide(model))
    assert style() in text
    for tag in ("<button", "<form", "<input", "<script", "<link"):
        assert tag not in text
    assert text.count('class="figure"') == 3
    assert len(re.findall('<abbr title="[^"]{20,}"', text)) == 3
    picture = bars_svg([("a", 1.0)], meaning="What <it> means")
    assert "<title>What &lt;it&gt; means</title>" in static_page("P", [("", picture)])
