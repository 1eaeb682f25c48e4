"""A programme's first hour, from its own spreadsheets, step by step (shared/design/journeys.md)."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import openpyxl
import pytest
from command_line import run
from programmes import sheets, ticked

from rmab_opt.programme import folder as programme
from rmab_opt.programme.ledger import Ledger
from rmab_opt.solver import session

BUDGET = 5


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def workbook(source: Path, to: Path) -> Path:
    """A sheet of text as a workbook, its numbers written out."""
    book = openpyxl.Workbook()
    with source.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.reader(file, delimiter=";"):
            book.active.append(row)
    book.save(to)
    return to


class Hour:
    """The programme's folder as ``start`` left it, the sheets it came from, and what was said."""

    def __init__(self, base: Path) -> None:
        given = sheets(base / "sheets")
        self.register = workbook(given["register"], base / "families.xlsx")
        self.log, self.roster = given["log"], given["roster"]
        told = base / "told.yaml"
        told.write_text("register: {group: Region}\n", encoding="utf-8")
        self.options = ("--log", self.log, "--roster", self.roster, "--columns", told, "--weeks", 4, "--calls", BUDGET)
        self.asked = run("start", self.register, *self.options, "--out", base / "asked")
        self.answer = run("start", self.register, *self.options, "--yes", "--out", base / "programme")
        assert self.answer.code == 0, self.answer.err
        self.folder = base / "programme"


@pytest.fixture(scope="module")
def hour(tmp_path_factory) -> Hour:
    return Hour(tmp_path_factory.mktemp("hour"))


@pytest.fixture
def own(hour, tmp_path) -> Path:
    """A copy, for steps that go on from the first week."""
    return Path(shutil.copytree(hour.folder, tmp_path / "own"))


def test_step_1_start_says_what_it_read_and_changed_and_asks_what_it_cannot_know(hour):
    # What it cannot know is whether the columns are what they seem: nothing was made before the answer.
    assert hour.asked.code == 2
    assert "id is column 'Family ID'" in hour.asked.err
    assert "--yes" in hour.asked.err
    assert not (hour.folder.parent / "asked").exists()
    assert "families.xlsx: id is column 'Family ID'" in hour.answer.out
    read = table(hour.folder / "readings.csv")
    whys = {(row["sheet"], row["why"]) for row in read}
    assert ("families.xlsx", "a title above the header") in whys
    assert ("roster.csv", "a row of totals") in whys
    assert all(row["line"] and row["digest"] for row in read)


def test_step_2_a_column_with_two_readings_is_refused_and_the_answer_is_not_asked_again(hour, tmp_path):
    roster = tmp_path / "roster.csv"
    rows = [line for line in hour.roster.read_text(encoding="utf-8-sig").splitlines() if not line.startswith("Total")]
    roster.write_text("\n".join(re.sub(r";(\d);", r";\1.000;", line) for line in rows), encoding="utf-8")
    common = ("start", hour.register, "--log", hour.log, "--roster", roster, "--weeks", 2)
    refused = run(*common, "--yes", "--out", tmp_path / "one")
    assert refused.code == 2
    assert "roster.csv:2: Calls: both readings possible" in refused.err
    assert "2000.0 with a decimal comma" in refused.err
    assert "2.000 with a decimal dot" in refused.err
    assert "tables: {decimal: comma}" in refused.err
    told = tmp_path / "columns.yaml"
    told.write_text("tables: {decimal: dot}\n", encoding="utf-8")
    answered = run(*common, "--yes", "--columns", told, "--out", tmp_path / "two")
    assert answered.code == 0, answered.err
    assert "decimal: dot" in (tmp_path / "two" / "columns.yaml").read_text(encoding="utf-8")
    again = run(*common, "--columns", tmp_path / "two" / "columns.yaml", "--out", tmp_path / "three")
    assert again.code == 0, again.err
    assert len(table(tmp_path / "three" / "weeks" / "week-09.csv")) == 7


def test_step_3_who_was_called_is_said_and_uplift_by_group_is_shown(hour):
    said = (hour.folder / "estimate.txt").read_text(encoding="utf-8")
    log = table_of_log(hour.log)
    calls = [row for row in log if row["called"] == "Yes"]
    assert f"{len(calls)} calls to {len({row['id'] for row in calls})} of 60; never called" in said
    assert "engaged next week without a call, ever called / never called though reachable" in said
    rows = json.loads((hour.folder / "estimate.json").read_text(encoding="utf-8"))["uplift"]
    assert {(row["group"], row["state"]) for row in rows} == {
        (group, state) for group in ("North", "South") for state in ("away", "engaged")
    }
    assert all(row["low"] < row["uplift"] < row["high"] for row in rows)
    page = (hour.folder / "estimate.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "North" in page


def table_of_log(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, delimiter=";"))


def test_step_4_the_first_list_has_rule_total_share_certificate_and_a_box_to_tick(hour):
    for words in ("rule", "expected", "attainable", "% of what acting can add", "re-checked  yes", "proven by"):
        assert words in hour.answer.out
    listed = table(hour.folder / "weeks" / "week-09.csv")
    assert 0 < len(listed) <= BUDGET
    assert all(row["Name"] and row["worker"] and row["slot"] and row["done"] == "" for row in listed)
    sheet = openpyxl.load_workbook(hour.folder / "weeks" / "week-09.xlsx").worksheets[0]
    head = next(sheet.iter_rows(values_only=True))
    assert {"id", "Name", "worker", "slot", "done"} <= set(head)


def test_step_5_the_same_in_the_browser_with_locks_and_a_slider(own):
    pytest.importorskip("starlette")
    from pages import ended, page_of

    page, browser = page_of(own)
    listed = {row["id"] for row in table(own / "weeks" / "week-09.csv")}
    assert listed == {row["id"] for row in page.desk.rows()}
    assert all(name in browser.get("/").text for name in listed)
    other = next(name for name, cells in page.desk.members().items() if name not in listed and cells["reach"] != "no")
    before = page.desk.live().value
    said = browser.get("/why", params={"id": other}).text
    browser.post("/lock", {"id": other, "how": "in"})
    assert ended(page).error is None
    now = {row["id"] for row in page.desk.rows()}
    assert other in now
    # What it costs and whom it displaces was said before it was done.
    assert f"{before - page.desk.live().value:.4g}" in said
    assert all(name in said for name in listed - now)
    slid = browser.get("/slide?name=calls%3DAda&value=0").text
    assert f"{page.desk.what_if('calls=Ada:0').value:.6g}" in slid
    assert "with the price of one more" in browser.get("/prices").text


def test_step_6_three_budgets_and_one_more_nurse_side_by_side(hour):
    cases = [f"constraints.weekly.at_most={calls}" for calls in (3, 4)]
    told = run(
        "compare", hour.folder, *(word for case in [*cases, "more=Ada"] for word in ("--set", case)), "--episodes", 0,
        "--json",
    )  # fmt: skip
    assert told.code == 0, told.err
    as_is, three, four, more = json.loads(told.out)["cases"]
    assert three["bound"] < four["bound"] < as_is["bound"] <= more["bound"] + 1e-6
    assert [len(case["chosen"]) for case in (as_is, three, four)] == [BUDGET, 3, 4]
    assert len(set(more["chosen"])) >= BUDGET


def new_register(hour: Hour, to: Path) -> Path:
    """The register of the week after: family 007 is not in it, family 101 is new."""
    book = openpyxl.load_workbook(hour.register)
    sheet = book.active
    number = next(row[0].row for row in sheet.iter_rows() if row[0].value == "007")
    sheet.delete_rows(number)
    sheet.append(["101", "Family 101", "North", "away", "0700", "mon-am"])
    book.save(to)
    return to


def test_step_7_the_ticked_sheet_comes_back_and_the_next_list_says_what_changed(hour, own, tmp_path):
    states = dict.fromkeys(("002", "006"), "away")
    back = workbook(ticked(own, 9, tmp_path / "ticked.csv", states), tmp_path / "ticked.xlsx")
    before = {row["id"] for row in table(own / "weeks" / "week-09.csv")}
    answer = run("next", own, "--outcomes", back, "--register", new_register(hour, tmp_path / "families_new.xlsx"))
    assert answer.code == 0, answer.err
    for words in ("1 joined", "1 missing from the new register and paused (007)", "1 calls not made"):
        assert words in answer.out
    after = {row["id"] for row in table(own / "weeks" / "week-10.csv")}
    assert "007" not in after
    shown = answer.out.partition("Against last week's list")[2].splitlines()[2:]
    changes = {line.split()[0]: line.split(maxsplit=2)[1:] for line in shown}
    assert {name for name, (how, _) in changes.items() if how == "comes"} == after - before
    assert {name for name, (how, _) in changes.items() if how == "goes"} == before - after
    assert changes["101"] == ["comes", "joined"]


def test_step_8_after_a_power_cut_the_same_command_loses_nothing_and_does_nothing_twice(own, tmp_path, monkeypatch):
    command = ("next", own, "--outcomes", ticked(own, 9, tmp_path / "ticked.csv"))

    def cut(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(programme, "plan_decision", cut)
        assert run(*command).code == 130
    assert not (own / "weeks" / "week-10.csv").exists()
    again = run(*command)
    assert again.code == 0, again.err
    (one,) = Ledger(own / "ledger", programme.load(own)).rounds
    assert len(one["done"]) == len(table(own / "weeks" / "week-09.csv")) - 1
    twice = run(*command)
    assert twice.code == 2
    assert "week 10" in twice.err


def test_step_9_a_colleague_checks_the_list_without_a_solver(own, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a solver was asked")

    monkeypatch.setattr(session.Session, "solve", refuse)
    saved = own / "weeks" / "week-09.json"
    answer = run("check", own, "--decision", saved)
    assert answer.code == 0, answer.err + answer.out
    assert "verified without a solver: constraints ok" in answer.out
    assert "by prices: optimal" in answer.out
    # Files of the first format have no proof: what is not proven is said.
    document = json.loads(saved.read_text(encoding="utf-8")) | {"format": 1}
    del document["proof"]
    (own / "unproven.json").write_text(json.dumps(document), encoding="utf-8")
    unproven = run("check", own, "--decision", own / "unproven.json")
    assert unproven.code == 5, unproven.err
    assert "without a proof" in unproven.out


def test_step_10_after_a_season_an_audit_says_what_was_planned_done_and_seen(own, tmp_path):
    for week in (9, 10):
        told = run("next", own, "--outcomes", ticked(own, week, tmp_path / f"{week}.csv"))
        assert told.code == 0, told.err
    answer = run("audit", own)
    assert answer.code == 0, answer.err
    for words in ("planned", "done", "seen"):
        assert words in answer.out
    # What another list would have earned cannot be said, and why: nothing was left to chance.
    assert "nothing to chance" in answer.out
    page = (own / "audit.html").read_text(encoding="utf-8")
    assert "by Region" in page
    assert "<svg" in page
