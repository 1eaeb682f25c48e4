"""From sheets to a list and to the next: one command a week, nothing lost, the order of rows never matters."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
import yaml
from command_line import run
from programmes import FOLDER, begun, needs_data, sheets, ticked

from rmab_opt.catalog import load
from rmab_opt.errors import ModelError
from rmab_opt.programme.columns import PlanSection
from rmab_opt.programme.folder import next_week, start
from rmab_opt.programme.ledger import Ledger
from rmab_opt.records.cohort import Cohort


def test_a_list_from_messy_sheets_does_not_depend_on_the_order_of_rows(tmp_path):
    one, two = begun(tmp_path / "one"), begun(tmp_path / "two", shuffle=3)
    for name in ("weeks/week-09.csv", "model.yaml", "transitions.csv", "start.csv", "cohort.csv", "closed.csv"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    rows = list(csv.DictReader((one / "weeks" / "week-09.csv").open(encoding="utf-8-sig")))
    assert 0 < len(rows) <= 7
    unreachable = {row["id"] for row in csv.DictReader((one / "closed.csv").open())}
    assert not unreachable & {row["id"] for row in rows}
    assert "#060" in (one / "cohort.csv").read_text()


def test_the_ticked_list_comes_back_and_the_cohort_lives_on(tmp_path):
    folder = begun(tmp_path)
    back = ticked(folder, 9, tmp_path / "ticked.csv")
    events = tmp_path / "changes.csv"
    events.write_text(
        "id;event;from week;to week;Region;Status\n101;joined;10;;North;engaged\n102;joined;10;;South;\n"
        "001;left;10;;;\n002;paused;10;11;;\n003;moved;10;;South;\n",
        encoding="utf-8",
    )
    before = {path: path.read_bytes() for path in (folder / "weeks").iterdir()}
    week = next_week(folder, back, events)
    assert week.number == 10
    said = "\n".join(week.said)
    for words in ("2 joined", "1 left", "1 paused", "1 changed", "1 calls not made", "1 states were never seen"):
        assert words in said
    members = {row["id"]: row for row in csv.DictReader((folder / "cohort.csv").open(encoding="utf-8"))}
    assert "001" not in members
    assert members["003"]["Region"] == "South"
    assert members["101"]["slots"] == "mon-am;tue-pm"
    closed = {row["id"]: row for row in csv.DictReader((folder / "closed.csv").open())}
    # Paused for weeks 10 and 11: open again in week 12, three rounds after the first.
    assert closed["002"]["open_from"] == "3"
    assert all(path.read_bytes() == data for path, data in before.items())
    # The next week, in which the pause is over for the plan when week 12 comes; a week is recorded once.
    with pytest.raises(ModelError, match="week 10's"):
        next_week(folder, back)
    third = next_week(folder, ticked(folder, 10, tmp_path / "second.csv"))
    fourth = next_week(folder, ticked(folder, 11, tmp_path / "third.csv"))
    assert third.number == 11
    assert "1 back from a pause that ended" in fourth.said
    standing = Cohort(folder / "cohort").members()
    assert "002" in standing.active
    assert "001" not in standing.active


@pytest.mark.parametrize(("told", "missing"), [("not_made", 2), ("as_planned", 0)])
def test_a_list_ticked_in_part_is_asked_about_and_answered_once(tmp_path, told, missing):
    folder = begun(tmp_path)
    rows = list(csv.DictReader((folder / "weeks" / "week-09.csv").open(encoding="utf-8-sig")))
    back = tmp_path / "back.csv"
    ticks = [["id", "done"], *([row["id"], "x" if k > 1 else ""] for k, row in enumerate(rows))]
    back.write_text("\n".join(",".join(cells) for cells in ticks) + "\n", encoding="utf-8")
    with pytest.raises(ModelError, match="2 of the list are not") as refused:
        next_week(folder, back)
    assert "plan.unticked" in refused.value.fix
    assert not (folder / "ledger").exists()
    columns = (folder / "columns.yaml").read_text(encoding="utf-8")
    (folder / "columns.yaml").write_text(columns.replace("unticked: ask", f"unticked: {told}"), encoding="utf-8")
    week = next_week(folder, back)
    assert f"{missing} calls not made" in "\n".join(week.said)
    done = json.loads((folder / "ledger" / "round-0001.json").read_text(encoding="utf-8"))["done"]
    assert len(done) == len(rows) - missing


def test_every_verb_sees_a_programme_as_it_stands(tmp_path):
    folder = begun(tmp_path)
    events = tmp_path / "changes.csv"
    events.write_text("id;event;from week;to week\n002;paused;10;11\n", encoding="utf-8")
    week = next_week(folder, ticked(folder, 9, tmp_path / "ticked.csv"), events)
    limit, rounds = week.outlook.bound, week.outlook.rounds
    decided = run("decide", folder, "--json")
    assert decided.code == 0, decided.err
    ahead = json.loads(decided.out)
    assert ahead["horizon"]["rounds"] == rounds
    assert ahead["horizon"]["bound"] == pytest.approx(limit, rel=1e-6)
    assert ahead["action"] == list(week.decision.chosen)
    bounded = run("bound", folder, "--out", tmp_path / "bound.json", "--json")
    assert bounded.code == 0, bounded.err
    assert json.loads(bounded.out)["value"] == pytest.approx(limit, rel=1e-6)
    assert run("check", folder, "--bound", tmp_path / "bound.json").code == 0
    played = run("evaluate", folder, "--policies", "living,none", "--episodes", 4, "--json")
    assert played.code == 0, played.err
    told = json.loads(played.out)
    assert told["header"]["bound"] == pytest.approx(limit, rel=1e-6)
    assert told["header"]["horizon"] == rounds


def test_who_is_missing_from_a_new_register_is_a_question_and_no_leaver(tmp_path):
    folder = begun(tmp_path)
    register = tmp_path / "sheets" / "register.csv"
    text = register.read_text(encoding="utf-8-sig").splitlines()
    shorter = tmp_path / "new.csv"
    shorter.write_text("\n".join(line for line in text if not line.startswith("007;")), encoding="utf-8")
    week = next_week(folder, ticked(folder, 9, tmp_path / "t.csv"), shorter)
    assert any("1 missing from the new register and paused (007)" in line for line in week.said)
    assert "007" in (folder / "cohort.csv").read_text()
    assert "007" not in week.decision.chosen


def test_a_crash_leaves_the_old_week_or_the_new_one(tmp_path, monkeypatch):
    folder = begun(tmp_path)
    back = ticked(folder, 9, tmp_path / "t.csv")
    from rmab_opt.programme import folder as module

    for broken in ("plan_decision", "finish"):
        copy = tmp_path / broken
        shutil.copytree(folder, copy)
        real, calls = getattr(module, broken), []

        def stop(*given, real=real, calls=calls, broken=broken, **named):
            calls.append(1)
            if broken == "finish" and len(calls) < 3:
                return real(*given, **named)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(module, broken, stop)
            with pytest.raises(KeyboardInterrupt):
                next_week(copy, back)
        if broken == "plan_decision":
            # Nothing of the new week shows; the same command again makes it.
            assert json.loads((copy / "standing.json").read_text())["week"] == 9
            assert next_week(copy, back).number == 10
        else:
            # The week was whole: the next command brings it into place and asks for its outcomes.
            with pytest.raises(ModelError, match="week 10's"):
                next_week(copy, back)
        whole = tmp_path / f"{broken}-whole"
        shutil.copytree(folder, whole)
        next_week(whole, back)
        assert (copy / "weeks" / "week-10.csv").read_bytes() == (whole / "weeks" / "week-10.csv").read_bytes()


def test_what_a_person_changed_in_the_model_is_in_the_next_weeks(tmp_path):
    folder = begun(tmp_path)
    path = folder / "model.yaml"
    before = yaml.safe_load(path.read_text(encoding="utf-8"))
    listed = list(csv.DictReader((folder / "weeks/week-09.csv").open(encoding="utf-8-sig")))
    shut = listed[0]["id"]
    (folder / "shut.csv").write_text(f"id,open_from,reason\n{shut},,asked not to be called\n", encoding="utf-8")
    mine = {
        **before,
        "title": "Our calls",
        "constraints": {
            **before["constraints"],
            "weekly": {"kind": "budget", "at_most": 3},
            "never": {"kind": "closed", "table": "shut.csv"},
        },
    }
    path.write_text(yaml.safe_dump(mine), encoding="utf-8")
    for week in (9, 10):
        found = next_week(folder, ticked(folder, week, tmp_path / f"{week}.csv"))
        after = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert after["title"] == "Our calls"
        assert after["constraints"]["weekly"] == {"kind": "budget", "at_most": 3}
        assert after["problem"]["horizon"] == before["problem"]["horizon"] + week - 8
        assert len(found.decision.chosen) == 3
        assert shut not in found.decision.chosen
        assert "kept from model.yaml: title is 'Our calls'" in found.said
        assert any(line.startswith("kept from model.yaml: constraints.never is") for line in found.said)
    # A limit that is taken out again is no change any more.
    del after["constraints"]["weekly"]
    path.write_text(yaml.safe_dump(after), encoding="utf-8")
    found = next_week(folder, ticked(folder, 11, tmp_path / "11.csv"))
    assert len(found.decision.chosen) > 3
    assert not any("weekly" in line for line in found.said)


@pytest.mark.parametrize(
    ("place", "value", "remedy"),
    [
        (("horizon",), 30, "plan.weeks"),
        (("dynamics", "file"), "mine.csv", "estimated anew"),
        (("arms",), "mine.csv", "register"),
    ],
)
def test_what_every_week_writes_itself_is_refused_before_anything_is_recorded(tmp_path, place, value, remedy):
    folder = begun(tmp_path)
    if place == ("dynamics", "file"):
        shutil.copy(folder / "transitions.csv", folder / "mine.csv")
    if place == ("arms",):
        shutil.copy(folder / "cohort.csv", folder / "mine.csv")
    content = yaml.safe_load((folder / "model.yaml").read_text(encoding="utf-8"))
    inner = content["problem"]
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    text = yaml.safe_dump(content)
    (folder / "model.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=f"problem.{'.'.join(place)} was changed by hand") as found:
        next_week(folder, ticked(folder, 9, tmp_path / "t.csv"))
    assert remedy in found.value.fix
    assert (folder / "model.yaml").read_text(encoding="utf-8") == text
    assert not Ledger(folder / "ledger", load(folder)).rounds


def test_a_member_without_an_id_is_named_by_row_and_nothing_is_begun(tmp_path):
    given = sheets(tmp_path / "sheets")
    lines = given["register"].read_text(encoding="utf-8-sig").splitlines()
    lines[5] = lines[5].partition(";")[1] + lines[5].partition(";")[2]
    given["register"].write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"register.csv:6: Family ID is empty; to fix, give every member an id"):
        start(given["register"], tmp_path / "own", log=given["log"], roster=given["roster"])
    assert not (tmp_path / "own").exists()


def test_columns_are_asked_for_or_told(tmp_path):
    given = sheets(tmp_path)
    common = ("--log", given["log"], "--roster", given["roster"], "--out", tmp_path / "own")
    asked = run("start", given["register"], *common)
    assert asked.code == 2
    assert "id is column 'Family ID'" in asked.err
    assert "--yes" in asked.err
    told = run("start", given["register"], *common, "--yes", "--weeks", "3")
    assert told.code == 0, told.err
    assert "rule" in told.out
    assert "3 rounds to go" in told.out
    again = run(
        "start", given["register"], *common[:-1], tmp_path / "second", "--columns", tmp_path / "own" / "columns.yaml"
    )
    assert again.code == 0, again.err
    assert (tmp_path / "own/weeks/week-09.csv").read_bytes() == (tmp_path / "second/weeks/week-09.csv").read_bytes()
    page = (tmp_path / "own/weeks/week-09.html").read_text(encoding="utf-8")
    assert "<svg" in page
    # The page names whom the sheet names.
    listed = list(csv.DictReader((tmp_path / "own/weeks/week-09.csv").open(encoding="utf-8-sig")))
    assert all(f"<td>{row['Name']}</td>" in page for row in listed)
    checked = run("check", tmp_path / "own", "--decision", tmp_path / "own/weeks/week-09.json")
    assert checked.code == 0, checked.out
    made = run("estimate", given["log"], "--register", given["register"], "--out", tmp_path / "estimate")
    assert made.code == 0, made.err
    assert (tmp_path / "estimate/transitions.csv").read_bytes() == (tmp_path / "own/transitions.csv").read_bytes()


def test_records_hold_no_name_and_no_telephone(tmp_path):
    folder = begun(tmp_path)
    next_week(folder, ticked(folder, 9, tmp_path / "t.csv"))
    for part in ("ledger", "cohort"):
        for path in (folder / part).iterdir():
            assert "Family " not in path.read_text(encoding="utf-8")
            assert "0700" not in path.read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------- the shared programme
@needs_data
@pytest.mark.slow
def test_the_shared_programme_from_workbook_to_week_28(tmp_path):
    right = json.loads((FOLDER / "right_values.json").read_text(encoding="utf-8"))
    folder = tmp_path / "own"
    week = start(
        FOLDER / "families.xlsx", folder, log=FOLDER / "call_log.csv", roster=FOLDER / "roster.csv", plan=PlanSection()
    )
    assert week.number == 27
    assert len(week.decision.chosen) <= right["roster_calls"]
    assert week.estimate.moves.total.sum() == 27_072
    assert {"#01196", "#01200"} <= set(week.estimate.ids)
    assert len(week.estimate.ids) == right["rows"]
    assert week.outlook is not None
    assert week.outlook.total <= week.outlook.bound + 3 * (week.outlook.high - week.outlook.low)
    back = ticked(folder, 27, tmp_path / "t.csv")
    after = next_week(folder, back, FOLDER / "changes_week28.csv")
    members = Cohort(folder / "cohort").members()
    paused = right["week28"]["paused"]
    assert len(members.active) + len(members.paused) == right["week28"]["enrolled"]
    assert len(members.paused) == paused
    assert len(members.active) == right["week28"]["callable before phones"]
    assert any("4 states were never seen" in line for line in after.said)
