"""A published figure measured again by one command: steps 1, 3 and 11 of a researcher's table."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run

from rmab_opt import registry

ROOT = Path(__file__).parents[3]
NAME = "equity_capacity"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, list[dict]]:
    """The folder of an uninterrupted quick run, and its rows."""
    folder = tmp_path_factory.mktemp("whole")
    answer = run("reproduce", NAME, "--out", folder, "--json")
    assert answer.code == 0, answer.err
    (document,) = json.loads(answer.out)
    assert document["form"] == "quick"
    return folder, document["rows"]


def test_step_1_one_command_reproduces_a_published_figure_by_policy_and_full_runs_its_sizes(whole):
    folder, rows = whole
    policies = {part for row in rows for part in row["measure"].split("/") if part in registry.names("policy")}
    assert {"whittle", "round_robin_high_risk"} <= policies
    assert (folder / f"{NAME}.csv").read_text().count("\n") == len(rows) + 1
    (listed,) = [row for row in json.loads(run("reproduce", "--list", "--json").out) if row["name"] == NAME]
    assert "figure 8" in listed["source"]
    # 16 budgets (0, 10, ..., 150), all policies and both targets where the quick form takes four budgets.
    assert listed["quick"] < listed["full"]
    assert listed["full"] % 16 == 0


KILLED = """
import os, signal, sys
from rmab_opt.experiments import measure

def stop(event):
    if event["done"] == event["of"] // 2:
        os.kill(os.getpid(), signal.SIGKILL)

measure(sys.argv[1], sys.argv[2], on_event=stop)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_step_3_killed_at_half_it_goes_on_to_the_same_table(whole, tmp_path):
    folder, rows = whole
    done = subprocess.run([sys.executable, "-c", KILLED, NAME, str(tmp_path)], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    kept = sorted((tmp_path / NAME / "tasks").glob("*.json"))
    of = len(list((folder / NAME / "tasks").glob("*.json")))
    assert len(kept) == of // 2
    before = [path.stat().st_mtime_ns for path in kept]
    answer = run("reproduce", NAME, "--out", tmp_path, "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)[0]["rows"] == rows
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert (tmp_path / f"{NAME}.csv").read_bytes() == (folder / f"{NAME}.csv").read_bytes()


def test_step_11_published_numbers_are_compared_with_a_tolerance_and_differences_explained(whole):
    _, rows = whole
    found = {row["measure"]: row for row in rows}
    claims = runpy.run_path(str(ROOT / "scripts" / "reproduction_page.py"))["claims"]()["claims"]
    compared = [(claim, check) for claim in claims for check in claim.get("quick", []) if check["of"] == NAME]
    assert compared
    for claim, check in compared:
        assert check["at_least"] <= found[check["measure"]]["ours"] <= check["at_most"], claim["id"]
        assert claim["verdict"]
        assert claim["why"]
    # The published figure stands beside ours.
    assert any(row["published"] == 50 for row in rows)
