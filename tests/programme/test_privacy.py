"""Pseudonyms travel and verify; one person is erased and every chain still holds."""

from __future__ import annotations

import csv
import json
import re
import stat

import pytest
from command_line import run
from programmes import begun, ticked

from rmab_opt.catalog import load
from rmab_opt.errors import ModelError
from rmab_opt.problem import Table
from rmab_opt.programme.folder import erase, next_week
from rmab_opt.programme.ledger import Ledger
from rmab_opt.programme.privacy import travelling
from rmab_opt.records.cohort import Cohort


def texts(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".xlsx"]
    return {path: path.read_text(encoding="utf-8") for path in files}


def test_what_travels_has_no_person_in_it_and_verifies(tmp_path):
    folder = begun(tmp_path)
    out = travelling(folder, 9)
    ids = [row["id"] for row in csv.DictReader((folder / "cohort.csv").open(encoding="utf-8"))]
    whole = "\n".join(texts(out).values())
    # Pseudonyms are drawn: only whole words count, for one may end in two letters of a name.
    assert not {"Family", "0700", "Ada", "Bo"} & set(re.findall(r"\w+", whole))
    assert not [name for name in ids if f'"{name}"' in whole or f"\n{name}," in whole]
    saved = json.loads((folder / "weeks/week-09.json").read_text())
    other = json.loads((out / "week-09.json").read_text())
    assert len(other["action"]) == len(saved["action"])
    # Arms stand in another order, and prices are found to a tolerance.
    assert other["value"] == pytest.approx(saved["value"], rel=1e-3)
    checked = run("check", out, "--decision", out / "week-09.json")
    assert checked.code == 0, checked.out + checked.err
    # The same key gives the same names; another folder's does not.
    assert json.loads((travelling(folder, 9) / "week-09.json").read_text())["action"] == other["action"]
    assert stat.S_IMODE((folder / "pseudonyms.key").stat().st_mode) == 0o600
    assert not (out / "pseudonyms.key").exists()


def test_one_person_is_erased_and_the_records_hold(tmp_path):
    folder = begun(tmp_path)
    week = next_week(folder, ticked(folder, 9, tmp_path / "a.csv"))

    listed = week.decision.chosen[0]
    before = Ledger(folder / "ledger", load(folder)).rounds
    travelling(folder, 10)
    token = erase(folder, listed)
    assert token == "erased-001"
    assert not (folder / "travel").exists()
    assert listed not in Table.read(folder / "weeks/week-10.xlsx", needed=["id"]).text("id")
    for path, text in texts(folder).items():
        assert f'"{listed}"' not in text, path
        assert f"\n{listed}," not in text, path
    model = load(folder)
    after = Ledger(folder / "ledger", model).rounds
    assert [one["state"] for one in after] == [one["state"] for one in before]
    assert [len(one["done"]) for one in after] == [len(one["done"]) for one in before]
    cohort = Cohort(folder / "cohort").members()
    assert listed not in (*cohort.active, *cohort.paused)
    assert token not in (*cohort.active, *cohort.paused)
    checked = run("check", folder, "--decision", folder / "weeks/week-10.json")
    assert checked.code == 0, checked.out + checked.err
    # The season goes on: the person is on no later list, and nobody else is lost.
    third = next_week(folder, ticked(folder, 10, tmp_path / "b.csv"))
    assert third.number == 11
    assert token not in third.decision.ids
    assert len(third.decision.ids) == len(week.decision.ids) - 1
    assert token not in Ledger(folder / "ledger", load(folder)).rounds[-1]["done"]
    with pytest.raises(ModelError, match="was never in this programme"):
        erase(folder, "nobody")
    other = week.decision.chosen[1]
    answer = run("erase", folder, other)
    assert answer.code == 0, answer.err
    assert "erased-002" in answer.out
    entry = json.loads((folder / "erasures/erasure-0002.json").read_text())
    assert entry["ledger_after"] == json.loads((folder / "ledger/head.json").read_text())["digest"]
    assert f'"{other}"' not in json.dumps(entry)
