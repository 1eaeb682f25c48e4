"""Sheets as programmes send them: the cases of the specification, and the register with its right values."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

import numpy as np
import pytest

from rmab_opt.errors import ModelError
from rmab_opt.problem import Table
from rmab_opt.problem.table import Conventions

FOLDER = Path(os.environ.get("RMAB_DATA", Path(__file__).parents[3] / "shared" / "data")) / "programme"
needs_data = pytest.mark.skipif(not FOLDER.is_dir(), reason="the programme's spreadsheets are not here")
PROOF = {
    "decimal comma": ("proof", ["1,5"]), "decimal dot": ("proof", ["1.5"]),
    "dmy": ("proof", ["17/04/2026"]), "mdy": ("proof", ["04/17/2026"]),
}  # fmt: skip


def cases() -> list[dict]:
    if not FOLDER.is_dir():
        return []
    return json.loads((FOLDER / "cases.json").read_text())


def read(case: dict):
    cells = case["cells"]
    columns = {"cells": cells}
    if case["other_columns_prove"]:
        _, proof = PROOF[case["other_columns_prove"]]
        columns["proof"] = proof + [""] * (len(cells) - 1) if len(cells) else proof
    table = Table({name: [cell.strip() for cell in column] for name, column in columns.items()}, source="t")
    told = case["model_file_says"]
    if told:
        table.conventions = Conventions(decimal=told.removeprefix("decimal "))
    if case["kind"] == "number":
        return [None if np.isnan(value) else value for value in table.numbers("cells", missing=True)]
    if case["kind"] == "date":
        return [None if day is None else day.isoformat() for day in table.dates("cells")]
    return table.yes_no("cells")


@needs_data
@pytest.mark.parametrize("case", cases(), ids=lambda case: str(case["case"]))
def test_a_column_is_read_or_refused_as_the_specification_says(case):
    if "error_says" in case:
        with pytest.raises(ModelError) as caught:
            read(case)
        assert case["error_says"] in str(caught.value)
        return
    assert read(case) == [None if value in (None, "missing") else value for value in case["values"]]


def family_sheet(name: str) -> Table:
    table = Table.read(FOLDER / name, needed=["Family ID"])
    return table.without_totals("Family ID").one_a_key("Family ID")


@needs_data
@pytest.mark.parametrize("name", ["families.csv", "families.xlsx"])
def test_the_register_is_read_whole(name):
    table = family_sheet(name)
    assert len(table) == 1200
    types = table.categories("Type")
    assert [types.count(kind) for kind in ("steady", "quick", "lasting")] == [631, 319, 250]
    if name == "families.csv":  # the workbook has an error cell in this column
        assert table.numbers("Income").sum() == 83_881_402
    assert np.nansum(table.numbers("Minutes", missing=True)) == pytest.approx(20_879.2)
    assert np.isfinite(table.numbers("Minutes", missing=True)).sum() == 1198
    assert table.numbers("Listened").sum() == pytest.approx(604.709)
    assert table.numbers("Distance").sum() == pytest.approx(15_187.6)
    assert sum(value is True for value in table.yes_no("Pregnant")) == 390
    status = table.categories("Status")
    assert [status.count(kind) for kind in ("engaged", "away", "")] == [469, 675, 56]
    assert table.text("Phone").count("") == 139
    ids = table.text("family id")
    assert ids[0] == "00001"
    assert "#01196" in ids
    assert table.dates("Registered")[0] == datetime.date(2026, 1, 8)
    assert table.dates("Last visit")[0] == datetime.date(2026, 2, 5)
    if name == "families.xlsx":
        return
    note = table.text("Note")[ids.index("00041")]
    assert note.split("\n") == ["moved; new house", 'call "after" ten']


@needs_data
def test_what_was_dropped_from_the_register_is_in_its_log():
    log = family_sheet("families.csv").log
    said = "\n".join(map(str, log.remarks))
    for words in (
        "line 1: a title above",
        "line 1211",
        "2 blank rows",
        "the same row as line",
        "an unnamed empty column",
    ):
        assert words in said, said
    assert said.count("the same row as") == 2
    assert log.facts["header"] == "line 3"


@needs_data
@pytest.mark.parametrize("name", ["families_12.ods", "families_cp1252.csv", "families_utf16.txt"])
def test_the_first_twelve_are_the_same_in_every_form(name):
    table, whole = family_sheet(name), family_sheet("families.csv").head(12)
    assert len(table) == 12
    assert [name.lstrip("0") for name in table.text("Family ID")] == [n.lstrip("0") for n in whole.text("Family ID")]
    for column in ("Minutes", "Listened", "Distance"):
        assert table.numbers(column).tolist() == whole.numbers(column).tolist()
    assert table.dates("Registered") == whole.dates("Registered")


@needs_data
def test_two_rows_of_one_id_that_differ_are_refused():
    with pytest.raises(ModelError) as caught:
        family_sheet("families_conflict.csv")
    said = str(caught.value)
    for words in (":14:", "row 5", "'00004'", "Minutes", "'16,6'", "'99,9'"):
        assert words in said


@needs_data
def test_the_roster_loses_its_total():
    roster = Table.read(FOLDER / "roster.csv", needed=["worker"]).without_totals("worker")
    assert len(roster) == 41
    assert roster.numbers("calls").sum() == 90
