"""Cases side by side: values by hand, right values of the specification, one nurse more and less."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from programmes import begun, make_log, needs_data

from rmab_opt import overdue
from rmab_opt.catalog import load
from rmab_opt.decisions import policy as policies
from rmab_opt.programme import comparison, front_door
from rmab_opt.programme.comparison import Standpoint, changed, compare, standpoint


def small(folder: Path, n: int, up: np.ndarray, state: np.ndarray, calls: int, rounds: int) -> Path:
    """A model folder over ``n`` arms with their own chances (N, A, S) to be engaged."""
    folder.mkdir(exist_ok=True)
    ids = [f"f{k:04d}" for k in range(n)]
    with (folder / "transitions.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "state", "action", "away", "engaged"])
        for k in range(n):
            for s, name in enumerate(("away", "engaged")):
                out.writerows([[ids[k], name, a, float(1 - up[k, a, s]), float(up[k, a, s])] for a in (0, 1)])
    (folder / "arms.csv").write_text("id,side\n" + "".join(f"{i},{'NS'[k % 2]}\n" for k, i in enumerate(ids)))
    rows = "".join(f"{i},{('away', 'engaged')[s]}\n" for i, s in zip(ids, state, strict=True))
    (folder / "start.csv").write_text("id,state\n" + rows)
    (folder / "model.yaml").write_text(
        "format: 1\ntitle: calls\nproblem:\n  arms: arms.csv\n  dynamics: {kind: tabular, file: transitions.csv,"
        " by: id, reward: {away: 0, engaged: 1}, paid_on: arrival}\n"
        f"  horizon: {rounds}\n  start: start.csv\nconstraints:\n  weekly: {{kind: budget, at_most: {calls}}}\n"
    )
    return folder


def test_budgets_side_by_side_are_concave_and_priced(tmp_path):
    rng = np.random.default_rng(4)
    up = np.sort(rng.random((30, 2, 2)), axis=1)
    folder = small(tmp_path / "m", 30, up, rng.integers(0, 2, 30), 4, 5)
    found = compare(standpoint(str(folder)), [f"weekly={k}" for k in (2, 3, 5, 6)], episodes=3, column="side")
    by = {case.name: case for case in found.cases}
    bounds = [by[name].bound for name in ("weekly=2", "weekly=3", "as it is", "weekly=5", "weekly=6")]
    steps = np.diff(bounds)
    assert (np.diff(steps) <= 1e-6).all()
    # The price lies between what the last unit brought and what the next brings.
    assert steps[2] - 1e-6 <= by["as it is"].worth["weekly"] <= steps[1] + 1e-6
    for case in found.cases:
        assert case.outlook.total <= case.bound + 3 * (case.outlook.high - case.outlook.low)
        assert len(case.decision.chosen) == int(case.name.rpartition("=")[2] or 4) if "=" in case.name else 4
    lines = "\n".join(found.worth())
    assert "each further one is worth less" in lines
    assert sum(found.groups()[0][side] for side in "NS") == 4
    base, other = set(by["as it is"].decision.chosen), set(by["weekly=6"].decision.chosen)
    assert all(name in found.changes()[3] for name in other ^ base)


def test_a_nurse_more_and_less_and_a_constraint_less(tmp_path):
    folder = begun(tmp_path)
    more, less = changed(str(folder), "more=Ada"), changed(str(folder), "less=Ada and without=closed")
    rosters = [one.actions.constraints["roster"].roster for one in (more, less)]
    assert [len(set(table.text("worker"))) for table in rosters] == [3, 1]
    assert rosters[0].text("slot").count("mon-am") == 2
    assert "closed" not in less.actions.constraints
    answer = run(
        "compare", folder, "--set", "more=Ada", "--set", "less=Ada", "--groups", "Region", "--draws", 2,
        "--episodes", 2, "--report", tmp_path / "page.html",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    for words in ("more=Ada", "over the estimate's draws", "North", "comes", "goes"):
        assert words in answer.out
    assert "Side by side" in (tmp_path / "page.html").read_text(encoding="utf-8")
    faults = {
        "calls=3": "calls=WORKER:NUMBER with one of Ada, ",
        "more=Adda": "'Ada'",
        "without=rooster": "'roster'",
        "weekli=3": "write the whole path",
    }
    for change, words in faults.items():
        wrong = run("compare", folder, "--set", change)
        assert wrong.code == 2
        assert words in wrong.err


def test_a_folder_is_found_by_its_bare_name_and_a_shipped_model_keeps_its_own(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    for name in ("calls", "budget"):
        small(Path(name), 4, np.sort(rng.random((4, 2, 2)), axis=1), rng.integers(0, 2, 4), 1, 3)
    assert load("calls").problem.n_arms == 4
    assert load(Path("budget")).problem.n_arms == 4
    assert load("budget").problem.n_arms != 4
    assert len(compare(standpoint("calls"), ["weekly=2"], episodes=0).cases) == 2


@needs_data
@pytest.mark.slow
def test_the_right_values_of_several_budgets(tmp_path):
    log = make_log().simulate(0)
    folder = small(tmp_path / "m", 1200, log["up"], log["state"][-1], 60, 12)
    right = {40: 6233.12, 59: 6527.97, 60: 6542.16, 61: 6556.25, 67: 6638.82, 80: 6806.80}
    here = Standpoint(str(folder), np.eye(2)[log["state"][-1]])
    found = compare(here, [f"weekly={calls}" for calls in right], episodes=0)
    for case, bound in zip(found.cases[1:], right.values(), strict=True):
        assert case.bound == pytest.approx(bound, abs=0.02)
    assert found.first.worth["weekly"] == pytest.approx(14.14, abs=0.02)
    assert found.cases[5].bound - found.first.bound == pytest.approx(96.7, abs=0.1)


def test_cases_that_the_time_was_not_enough_for_say_so(tmp_path, monkeypatch):
    """The clock jumps past the end while the second case is decided: the first stands, the third names what to do."""
    rng = np.random.default_rng(4)
    folder = small(tmp_path / "m", 12, np.sort(rng.random((12, 2, 2)), axis=1), np.zeros(12, dtype=int), 3, 4)
    here = standpoint(folder)
    now = [0.0]
    monkeypatch.setattr(comparison, "perf_counter", lambda: now[0])
    for module in (front_door, policies, overdue):
        monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    decided = comparison.plan_decision

    def timed(*given, **options):
        assert options["deadline"] is not None
        made = decided(*given, **{**options, "deadline": None})
        now[0] = 1000.0 if options["title"] == "weekly=2" else now[0]
        return made

    monkeypatch.setattr(comparison, "plan_decision", timed)
    found = compare(here, ["weekly=2", "weekly=4"], episodes=2, until=90.0)
    whole, second, third = found.cases
    assert whole.outlook.episodes == 2
    assert second.decision is not None
    assert (second.outlook, second.bound, second.said) == (None, None, "no bound, the time was over")
    assert "weekly=2: no bound, the time was over" in str(found)
    assert third.decision is None
    assert "give more --seconds" in str(found)
    assert "no list" in str(compare(here, ["weekly=2"], until=0.0))
