"""What leaves the program: no formula, no control sign, any encoding, and nothing written over that is not ours."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import openpyxl
import pytest
from amounts import amount
from command_line import run
from hypothesis import given
from hypothesis import strategies as st

from rmab_opt import errors
from rmab_opt.catalog import copy_model
from rmab_opt.cli.common import printed
from rmab_opt.errors import ModelError, RmabError
from rmab_opt.problem import Arms, Table
from rmab_opt.report import is_visible, marked, static_page, table_text, tree, unmarked, visible, workbook


@pytest.fixture
def folder(tmp_path):
    copy_model("weekly_calls", tmp_path / "demo")
    return tmp_path / "demo"


@given(text=st.text())
def test_a_marked_text_is_no_formula_and_reads_back(text):
    assert unmarked(marked(text)) == text
    assert not str(marked(text)).startswith(("=", "+", "-", "@", "\t", "\r"))


@given(text=st.text(), title=st.text(max_size=20))
def test_no_text_forges_a_line_or_moves_the_cursor(text, title):
    shown = tree(title, {"arms": text, "last": "x"})
    assert len(shown.split("\n")) == 3
    assert is_visible(shown.replace("\n", ""))
    assert len(table_text([{"id": text}]).split("\n")) == 2
    assert "\x1b" not in static_page(title, [("", text)])
    if is_visible(text):
        assert visible(text) == text


@given(
    text=st.text(st.characters(exclude_categories=["Cs"])), encoding=st.sampled_from(["ascii", "cp1252", "utf-8", None])
)
def test_every_text_is_printed_in_every_encoding(text, encoding):
    printed(text, encoding).encode(encoding or "utf-8")


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\nb", "\u202ea", "a\x00"])
def test_ids_with_control_signs_are_refused(name):
    with pytest.raises(ModelError, match="control sign"):
        Arms(Table({"id": [name]}))


def test_a_workbook_says_which_text_it_cannot_keep():
    with pytest.raises(ModelError, match="no workbook can keep"):
        workbook({"s": [["id"], ["a\x01"]]})


@pytest.mark.parametrize("encoding", amount(["ascii"], ["ascii", "cp1252"]))
def test_the_command_line_speaks_in_any_encoding(folder, encoding):
    around = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "rmab_opt.cli", "check", str(folder / "model.yaml")]
    told = subprocess.run(command, env=around, capture_output=True, check=False)
    assert told.returncode == 0, told.stderr
    assert "some action satisfies all constraints" in told.stdout.decode(encoding)


def test_a_list_out_has_what_the_cohort_says_and_is_no_formula(folder):
    out = folder.parent / "o.xlsx"
    decide = ("decide", folder / "model.yaml", "--state", folder / "monday.csv", "--episodes", 0)
    assert run(*decide, "--out", out).code == 0
    sheet = openpyxl.load_workbook(out)["actions"]
    rows = list(sheet.iter_rows(values_only=True))
    assert rows[0][:3] == ("id", "worker", "slot")
    assert {"village", "region", "minutes"} <= set(rows[0])
    assert all(cell.data_type in "sn" for row in sheet.iter_rows() for cell in row)
    table = Table.read(f"{out}#actions")
    assert table.text("id") == [row[0] for row in rows[1:]]


def test_nothing_is_written_over_that_is_read_or_not_ours(folder):
    decide = ("decide", folder / "model.yaml", "--policy", "immediate", "--episodes", 0)
    decide += ("--state", folder / "monday.csv", "--out")
    for name in ("arms.csv", "roster.csv", "monday.csv", "transitions.csv"):
        before = (folder / name).read_bytes()
        for force in ((), ("--force",)):
            answer = run(*decide, folder / name, *force)
            assert answer.code == 2
            assert name in answer.err
        assert (folder / name).read_bytes() == before
    foreign = {"o.csv": b"\xef\xbb\xbfid,x\r\na,1\r\n", "o.json": b'{"a": 1}', "o.xlsx": b"text"}
    for name, content in foreign.items():
        out = folder / name
        out.write_bytes(content)
        assert run(*decide, out).code == 2
        assert out.read_bytes() == content
        assert run(*decide, out, "--force").code == 0
        assert out.read_bytes() != content
        # What is ours is replaced without a word.
        assert run(*decide, out).code == 0
    assert json.loads((folder / "o.json").read_text())["action"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("decide", "budget", "--seed", -1), "--seed"),
        (("evaluate", "budget", "--seed", -1), "--seed"),
        (("evaluate", "budget", "--seeds", 0), "--seeds"),
        (("evaluate", "budget", "--jobs", -7), "n_jobs"),
        (("check", "budget", "--set", "seed=-1"), "seed"),
        (("check", "budget", "--set", "n_arms=1000000000000"), "n_arms"),
        (("check", "budget", "--set", "horizon=1000000000"), "horizon"),
        (("bound", "budget", "--sweep", "budget=0:1e11:1e-3"), "--sweep"),
        (("decide", "budget", "--ledger", "no/such/ledger"), "--new"),
        (("check", "x" * 300 + ".yaml"), "no such model file"),
    ],
)
def test_options_out_of_range_are_refused_by_name(arguments, word):
    answer = run(*arguments)
    assert answer.code == 2, answer.err
    assert word in answer.err


def test_the_table_of_exit_codes_the_help_and_the_errors_agree():
    said = " ".join(run("--help").out.split()).partition("Exit codes: ")[2]
    in_help = {int(number) for number in re.findall(r"(?:^|, )(\d+) ", said)}
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8").partition("| code | means |")[2]
    in_table = {int(number) for number in re.findall(r"^\| (\d+) \|", readme, re.M)}
    raised = {
        kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RmabError)
    }
    # Beside the errors: answered, a closed pipe, a bound that is not proven, an internal error, stopped.
    assert in_help == in_table == raised | {0, 1, 5, 70, 130}
