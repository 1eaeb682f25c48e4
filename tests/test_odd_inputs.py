"""What people really give: an answer or a sentence, never an internal error, never a number that is none.

Each input is told with the words that its refusal must hold, or with what must be read; kinds of `../shared/cases`.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from pathlib import Path

import pytest
import small_model
from command_line import Answer, run

import rmab_opt as ro
from rmab_opt.errors import RmabError
from rmab_opt.problem import Table

TABLES = {
    **small_model.TABLES,
    "arms.csv": "id,type,minutes\np0,a,10\np1,a,20\np2,a,30\n",
    "seen.csv": "id,done,state\np0,no,\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in {"model.yaml": small_model.MODEL, **TABLES}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fine(told: Answer) -> None:
    """No internal error, no traceback, and no number that is none."""
    assert told.code in (0, 2, 3, 4, 5, 74), told.err
    assert "Traceback" not in told.err + told.out
    assert "internal error" not in told.err
    assert not re.search(r"(?<![\w'\"./-])(nan|-?inf(inity)?)(?![\w'\"./-])", told.out.lower()), told.out


# ------------------------------------------------------------------------------------------------------------ arguments
ARGUMENTS = {
    "no workers": ("evaluate model.yaml --policies none --episodes 1 --jobs 0", "jobs"),
    "fewer than all cores": ("evaluate model.yaml --policies none --episodes 1 --jobs -2", "jobs"),
    "seed below zero": ("evaluate model.yaml --policies none --seed -1", "--seed"),
    "seed below zero, training": ("train model.yaml --out r --seed -1", "--seed"),
    "seconds that are no number": ("decide model.yaml --seconds nan", "--seconds"),
    "endless seconds": ("decide model.yaml --seconds inf", "--seconds"),
    "no seconds": ("bound model.yaml --seconds 0", "--seconds"),
    "a thousand threads": ("decide model.yaml --solver t.toml", "threads"),
    "no cuda": ("train model.yaml --out r --device cuda", "cuda"),
    "another device": ("train model.yaml --out r --device tpu", "--device"),
    "sweep of nan": ("bound model.yaml --sweep weekly=nan:2:1", "--sweep"),
    "sweep to infinity": ("bound model.yaml --sweep weekly=0:inf:1", "--sweep"),
    "sweep without steps": ("bound model.yaml --sweep weekly=0:2:0", "--sweep"),
    "sweep of no resource": ("bound model.yaml --sweep wekly=0:2:1", "wekly"),
    "period that is text": ("decide model.yaml --period first", "--period"),
    "period of long ago": ("decide model.yaml --period -1", "--period"),
    "episodes below zero": ("decide model.yaml --episodes -3", "--episodes"),
    "alternatives below zero": ("decide model.yaml --alternatives -1", "--alternatives"),
    "margin below zero": ("bound model.yaml --margin -2", "--margin"),
    "discount of nan": ("bound model.yaml --set problem.discount=.nan", "discount"),
    "budget of infinity": ("decide model.yaml --set constraints.weekly.at_most=.inf", "at_most"),
    "budget with an exponent": ("decide model.yaml --set constraints.weekly.at_most=1e400", "at_most"),
    "horizon of a yes": ("check model.yaml --set problem.horizon=true", "horizon"),
    "title of a number": ("check model.yaml --set title=3", "title"),
    "a policy of nothing": ("decide model.yaml --policy :", "policy"),
    "a policy with nan": ("evaluate model.yaml --policies lookahead:depth=nan --episodes 1", "depth"),
    "an unknown method": ("decide model.yaml --method fastest", "fastest"),
    "trial of nan": ("trial --sd nan --families 10 --difference 0.1", "sd"),
    "trial of no spread": ("trial --sd 0 --families 10 --difference 0.1", "do not differ"),
    "trial of no difference": ("trial --sd 0.1 --families 10 --difference 0", "difference"),
    "trial of infinite families": ("trial --sd 0.1 --families inf --difference 0.1", "families"),
    "trial of all power": ("trial --sd 0.1 --families 10 --difference 0.1 --power 1", "power"),
    "trial of a level above one": ("trial --sd 0.1 --families 10 --difference 0.1 --level 1.5", "level"),
    "trial of a correlation above one": ("trial --sd 0.1 --families 10 --difference 0.1 --rho 2", "rho"),
    "trial of villages below zero": ("trial --sd 0.1 --families 10 --difference 0.1 --villages -4", "villages"),
    "audit of a plain folder": ("audit .", "columns.yaml"),
    "next of a plain folder": ("next . --outcomes seen.csv", "columns"),
    "erase of a plain folder": ("erase . p0", "no programme"),
    "replan of a plain folder": ("replan .", "holds no plan"),
    "model that is a folder": ("check ./dir.csv", "model"),
    "model that is a pipe": ("check pipe.yaml", "pipe"),
    "state that is a pipe": ("decide model.yaml --state pipe.csv", "pipe"),
    "decision that is a pipe": ("check model.yaml --decision pipe.json", "pipe"),
    "state that is a folder": ("decide model.yaml --state dir.csv", "folder"),
    "register that is a folder": ("estimate log.csv --register dir.csv --out o", ""),
    "list to a folder": ("decide model.yaml --episodes 0 --out dir.csv", "folder"),
    "run into a file": ("train model.yaml --out arms.csv", "arms.csv"),
    "tables into a file": ("evaluate model.yaml --policies none --episodes 1 --no-bound --out arms.csv", "arms.csv"),
    "new into a file": ("new budget arms.csv", "arms.csv"),
    "ledger that is a file": ("decide model.yaml --ledger arms.csv", "arms.csv"),
    "ledger mistyped": ("decide model.yaml --ledger legder", "--new"),
    "run of a plain folder": ("decide model.yaml --run .", "run"),
    "plugin that is a table": ("--plugin arms.csv check model.yaml", "arms.csv"),
    "plugin that is not there": ("--plugin nothing.py check model.yaml", "nothing.py"),
    "an empty model name": ("check ''", "empty name"),
    "calls below zero": ("start arms.csv --log log.csv --calls -1 --out o --yes", "--calls"),
    "no weeks": ("start arms.csv --log log.csv --calls 1 --weeks 0 --out o --yes", "--weeks"),
    "calls of nan": ("audit . --calls nan", "--calls"),
    "a name with a zero byte": ("check a\0b", ""),
    "solver of yaml": ("decide model.yaml --solver model.yaml", "model.yaml"),
    "groups of no column": ("decide model.yaml --groups village", "village"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_odd_argument_is_refused_by_name(folder, name):
    text, words = ARGUMENTS[name]
    for suffix in ("yaml", "csv", "json"):
        os.mkfifo(folder / f"pipe.{suffix}")
    (folder / "dir.csv").mkdir()
    (folder / "t.toml").write_text("[highs]\nthreads = 1000\n")
    told = run(*("" if part == "''" else part for part in text.split(" ")))
    fine(told)
    assert told.code == 2, (told.code, told.out, told.err)
    assert words in told.err, told.err


# ---------------------------------------------------------------------------------------------------------- model files
ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
YAML = {
    "a bomb of aliases": (None, ALIASES, "alias"),
    "a merge": ("title: Small", "base: &b {title: x}\n<<: *b", "merge"),
    "a key that is a list": ("title: Small", "title: Small\n? [a, b]\n: 1", "key"),
    "a key that is a number": ("weekly: {", "7: {", ""),
    "a kind that is a list": ("kind: budget", "kind: [budget]", "kind"),
    "a kind that is a map": ("kind: budget", "kind: {a: budget}", "kind"),
    "a yes for a number": ("at_most: 1", "at_most: true", "at_most"),
    "a date for a number": ("at_most: 1", "at_most: 2026-04-03", "2026-04-03"),
    "a number for a file": ("arms: arms.csv", "arms: 7", "arms"),
    "a list for a file": ("arms: arms.csv", "arms: [arms.csv]", "arms"),
    "a folder for a file": ("arms: arms.csv", "arms: .", "folder"),
    "a pipe for a file": ("arms: arms.csv", "arms: pipe.csv", "pipe"),
    "a file above itself": ("arms: arms.csv", "arms: model.yaml", ""),
    "nothing for constraints": ("constraints:\n  weekly: {kind: budget, at_most: 1}", "constraints: null", ""),
    "text for constraints": ("constraints:\n  weekly: {kind: budget, at_most: 1}", "constraints: none", "constraints"),
    "hidden sizes of text": ("hidden: [4]", "hidden: four", "hidden"),
    "hidden sizes of nothing": ("hidden: [4]", "hidden: [0]", "hidden"),
    "a learning rate of nan": ("head: 2", "head: 2, learning_rate: .nan", "learning_rate"),
    "a reward of a yes": ("good: 1}", "good: true}", "reward"),
    "a reward without end": ("good: 1}", "good: 1e999}", "reward"),
    "a reward too large": ("good: 1}", "good: 1e300}", ""),
    "a horizon without end": ("horizon: 3", "horizon: 99999999999999999999", "horizon"),
    "two documents": ("title: Small", "title: Small\n---\nformat: 1", ""),
    "a policy that is none": ("title: Small", "title: Small\npolicy: lagrangain", "policy"),
    "a solver that is a number": ("title: Small", "title: Small\nsolver: 7", "solver"),
}


@pytest.mark.parametrize("name", YAML)
def test_an_odd_model_file_is_refused_by_name(folder, name):
    old, new, words = YAML[name]
    os.mkfifo(folder / "pipe.csv")
    (folder / "model.yaml").write_text(new if old is None else small_model.MODEL.replace(old, new))
    assert old is None or old in small_model.MODEL
    told = run("check", "model.yaml")
    fine(told)
    if words:
        assert told.code == 2, (told.out, told.err)
        assert words in told.err.lower(), told.err
    if told.code == 0:
        # Ready means that these start.
        for verb in (("decide", "model.yaml"), ("bound", "model.yaml"), ("bound", "model.yaml", "--json")):
            fine(run(*verb))


# --------------------------------------------------------------------------------------------------------------- tables
def refused(place: Path, read, *words: str) -> None:
    with pytest.raises(RmabError) as caught:
        read(Table.read(place, needed=("id",)))
    for word in words:
        assert word in str(caught.value)


BOTH = "id;Minutes\na;{}\nb;{}\n"
NUMBERS = {
    "both decimal marks": (("1,5", "2.5"), None),
    "a group or a fraction": (("8.000", "9.250"), None),
    "a comma for one": (("8.000", "9,5"), [8000.0, 9.5]),
    "an exponent": (("1e5", "3"), None),
    "accountants' minus": (("(12)", "3"), None),
    "a typographer's minus": (("\u22123,5", "2,5"), [-3.5, 2.5]),
    "groups with thin spaces": (("1\u202f234,5", "12"), [1234.5, 12.0]),
    "percent and bare": (("12 %", "0,3"), None),
    "two units": (("850 m", "1,2 km"), None),
    "nan as a word": (("nan", "3"), [math.nan, 3.0]),
    "infinity as a word": (("inf", "3"), None),
    "a number too long": (("1" * 400, "3"), None),
    "digits of another script": (("१२", "३"), None),
    "a half": (("½", "3"), None),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_a_column_are_read_one_way_or_refused(tmp_path, name):
    cells, right = NUMBERS[name]
    place = tmp_path / "t.csv"
    place.write_text(BOTH.format(*cells), encoding="utf-8")
    if right is None:
        refused(place, lambda table: table.numbers("Minutes"), "Minutes")
        return
    read = Table.read(place, needed=("id",)).numbers("Minutes", missing=True)
    assert [None if math.isnan(x) else x for x in read] == [None if math.isnan(x) else x for x in right]


@pytest.mark.parametrize("form", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_export_gives_the_same_rows(tmp_path, form, end):
    place = tmp_path / "t.csv"
    text = end.join(["id;Name", "#1;Élodie", "007;=1+1", "12_34;a;b"]).replace("a;b", '"a;b"') + end
    place.write_bytes(text.encode(form))
    table = Table.read(place, needed=("id",))
    assert table.text("id") == ["#1", "007", "12_34"]
    assert table.text("Name") == ["Élodie", "=1+1", "a;b"]


def test_a_merged_header_of_a_workbook_names_its_columns(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    for row in (
        [None, "Spring", None, "Autumn", None],
        ["id", "calls", "minutes", "calls", "minutes"],
        ["007", 3, 2.5, 1, 9],
        ["#1", 4, 8, 2, 7],
    ):
        sheet.append(row)
    sheet.merge_cells("B1:C1")
    sheet.merge_cells("D1:E1")
    book.save(tmp_path / "t.xlsx")
    table = Table.read(tmp_path / "t.xlsx")
    assert table.text("id") == ["007", "#1"]
    assert table.numbers("Spring / minutes").tolist() == [2.5, 8]
    assert table.numbers("Autumn / calls").tolist() == [1, 2]
    # A name that stands two rows high is refused in a sentence, or read with all its rows.
    sheet["A1"], sheet["A2"] = "id", None
    sheet.merge_cells("A1:A2")
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(RmabError, match="no name"):
        Table.read(tmp_path / "t.xlsx")


@pytest.mark.parametrize("data", [b";\x01\r\x01\r;;\x01", b"a;;;\n;b;;\n;;c;\n;;;d\n"])
def test_a_sheet_whose_rows_are_nearly_empty_has_no_header(tmp_path, data):
    place = tmp_path / "t.csv"
    place.write_bytes(data)
    with pytest.raises(RmabError, match="no header line"):
        Table.read(place)


def test_duplicate_ids_and_totals(tmp_path):
    place = tmp_path / "t.csv"
    place.write_text("id,n\na,1\nb,2\na,1\nTotal,4\n", encoding="utf-8")
    table = Table.read(place, needed=("id",)).without_totals("id")
    assert table.one_a_key("id").text("id") == ["a", "b"]
    place.write_text("id,n\na,1\nb,2\na,3\n", encoding="utf-8")
    refused(place, lambda table: table.one_a_key("id"), "'a'", "row", "n '1'")


# ------------------------------------------------------------------------------------------------ files of our own
def spoil(folder: Path, change) -> Answer:
    assert run("decide", "model.yaml", "--state", "state.csv", "--episodes", 0, "--out", "week.json").code == 0
    document = json.loads((folder / "week.json").read_text())
    change(document)
    (folder / "week.json").write_text(json.dumps(document))
    return run("check", "model.yaml", "--decision", "week.json")


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1}, {"value": math.nan}, {"bound": math.inf}, {"value": True}, {"value": "12"}, {"action": "p0"},
        {"action": ["p0", "p0"]}, {"action": [0]}, {"ids": ["p0", "p1"]}, {"state": [0, 1]}, {"state": [0, True, 0]},
        {"period": 0.5}, {"period": -1}, {"format": "2"}, {"format": 99}, {"proof": None}, {"proof": []},
    ],
    ids=str,
)  # fmt: skip
def test_an_odd_decision_is_not_verified(folder, change):
    told = spoil(folder, lambda document: document.update(change))
    fine(told)
    assert told.code != 0, told.out


def test_a_run_of_another_model_and_a_spoilt_ledger(folder):
    assert run("train", "model.yaml", "--out", "run").code == 0
    other = folder / "other"
    other.mkdir()
    for name in ("model.yaml", *TABLES):
        shutil.copy(folder / name, other / name)
    (other / "arms.csv").write_text("id,type,minutes\nq0,a,1\nq1,a,2\nq2,a,3\nq3,a,4\n")
    told = run("decide", "other/model.yaml", "--run", "run")
    fine(told)
    assert told.code in (0, 2)
    assert run("decide", "model.yaml", "--episodes", 0, "--out", "week.json").code == 0
    record = ("record", "model.yaml", "--decision", "week.json", "--outcomes", "seen.csv", "--ledger", "ledger")
    assert run(*record).code == 0
    for path in sorted((folder / "ledger").glob("*.json")):
        kept = path.read_bytes()
        for spoilt in (b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000, kept.replace(b"1", b"NaN")):
            path.write_bytes(spoilt)
            told = run("decide", "model.yaml", "--ledger", "ledger", "--episodes", 0)
            fine(told)
            assert told.code == 2, (path.name, spoilt[:9], told.out)
        path.write_bytes(kept)
    assert ro.load(folder / "model.yaml").title == "Small"
