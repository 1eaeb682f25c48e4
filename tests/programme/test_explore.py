"""Learning while acting and a season's limit: recorded draws, what is left goes down by what was done."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from command_line import run
from programmes import begun, sheets, ticked

from rmab_opt.catalog import load
from rmab_opt.errors import ModelError
from rmab_opt.problem import Table
from rmab_opt.programme.columns import PlanSection
from rmab_opt.programme.explore import Counts
from rmab_opt.programme.folder import next_week, start
from rmab_opt.programme.ledger import Ledger


def other(tmp_path, **plan):
    given = sheets(tmp_path / "sheets")
    folder = tmp_path / "own"
    start(given["register"], folder, log=given["log"], roster=given["roster"], plan=PlanSection(weeks=4, **plan))
    return folder


@pytest.mark.slow
def test_draws_are_recorded_and_the_same_seed_draws_the_same(tmp_path):
    plain = begun(tmp_path / "plain")
    one, two = (other(tmp_path / name, explore="sampling", seed=3) for name in ("one", "two"))
    third = other(tmp_path / "third", explore="sampling", seed=4)
    tables = [(folder / "transitions.csv").read_bytes() for folder in (plain, one, two, third)]
    assert tables[1] == tables[2]
    assert len({tables[0], tables[1], tables[3]}) == 3
    week = next_week(one, ticked(one, 9, tmp_path / "t.csv"))
    kept = Ledger(one / "ledger", load(one)).rounds[0]["explored"]
    assert kept.startswith("sampling: seed 3, block 0, draw ")
    assert json.loads((one / "weeks/week-09.json").read_text())["notes"]["explored"] == kept
    assert any("planned to find things out" in line for line in week.said)
    checked = run("check", one, "--decision", one / "weeks/week-10.json")
    assert checked.code == 0, checked.out
    hopeful = other(tmp_path / "hopeful", explore="optimism")
    rows = [list(csv.DictReader((folder / "transitions.csv").open())) for folder in (plain, hopeful)]
    for before, after in zip(*rows, strict=True):
        gain = float(after["engaged"]) - float(before["engaged"])
        assert gain > 0.01 or float(after["engaged"]) == 1 if before["action"] == "1" else gain == 0


def test_counts_are_dirichlet():
    counts = Counts(np.ones((1, 2, 2, 2)))
    counts.see(np.array([1]), np.array([0]), np.array([1]))
    assert counts.mean()[0, 0, 1].tolist() == pytest.approx([1 / 3, 2 / 3])
    rng = np.random.default_rng(0)
    drawn = np.array([counts.tables("sampling", 1, rng)[0, 0, 1, 1] for _ in range(4000)])
    assert drawn.mean() == pytest.approx(2 / 3, abs=0.01)
    assert drawn.var() == pytest.approx(2 * 1 / (9 * 4), abs=0.003)


def test_a_seasons_limit_is_shared_state_and_checked(tmp_path):
    folder = other(tmp_path, season=9)
    document = json.loads((folder / "weeks/week-09.json").read_text())
    assert document["shared"] == {"left": 9.0}
    model = load(folder)
    wrong = Table({"id": ["shared:left"], "done": [""], "state": ["8"]}, source="o.csv")
    with pytest.raises(ModelError, match="shared:left is 8 after the round"):
        Ledger(tmp_path / "wrong", model).record(document, wrong)
    left = 9.0
    for week in (9, 10, 11):
        listed = len(document["action"])
        assert listed <= left
        made = next_week(folder, ticked(folder, week, tmp_path / f"{week}.csv"))
        left -= max(listed - 1, 0) if listed > 1 else listed
        document = json.loads((folder / f"weeks/week-{week + 1:02d}.json").read_text())
        assert document["shared"] == {"left": left}
        assert any(line == f"{left:g} calls are left of the season's 9" for line in made.said)
    checked = run("check", folder, "--decision", folder / "weeks/week-12.json")
    assert checked.code == 0, checked.out
    # The workbook is the same list as the sheet.
    book = Table.read(folder / "weeks/week-10.xlsx", needed=["id"])
    sheet = Table.read(folder / "weeks/week-10.csv", needed=["id"])
    assert book.text("id") == sheet.text("id")
    assert set(book.columns) == set(sheet.columns)
