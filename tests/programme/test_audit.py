"""After the weeks: counts by hand, drift found and not invented, the page without a person on it."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import yaml
from amounts import amount
from command_line import run, without_solver_and_torch
from programmes import begun, ticked

from rmab_opt.decisions.proof import packed
from rmab_opt.programme.audit import audit, drift
from rmab_opt.programme.estimate import CallLog, Member, estimate
from rmab_opt.programme.folder import next_week


@pytest.fixture(scope="module")
def season(tmp_path_factory):
    base = tmp_path_factory.mktemp("season")
    folder = begun(base)
    for week in (9, 10):
        next_week(folder, ticked(folder, week, base / f"{week}.csv"))
    return folder


def test_planned_done_and_seen_are_counted(season):
    found = audit(season)
    lists = [list(csv.DictReader((season / f"weeks/week-{w:02d}.csv").open(encoding="utf-8-sig"))) for w in (9, 10)]
    for row, listed in zip(found.weeks, lists, strict=True):
        assert row["planned"] == len(listed)
        assert row["done"] == len(listed) - 1
        assert row["planned, not done"] == 1
        assert row["seen"] == len(listed)
        assert row["engaged %"] == 100
    north = {row["group"]: row for row in found.groups["Region"]}
    assert sum(row["calls"] for row in north.values()) == sum(row["done"] for row in found.weeks)
    assert "nothing to chance" in found.other
    assert "by lottery" in found.other
    answer = run("audit", season)
    assert answer.code == 0, answer.err
    page = (season / "audit.html").read_text(encoding="utf-8")
    assert "Who got what, by Region" in page
    assert "<svg" in page
    assert "Family " not in page
    assert "0700" not in page


def lottery(season, path):
    rng = np.random.default_rng(0)
    ids = [row["id"] for row in csv.DictReader((season / "cohort.csv").open(encoding="utf-8"))]
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "week", "called", "listened", "chance"])
        for name in ids:
            for week in range(1, 5):
                out.writerow([name, week, int(rng.random() < 0.3), int(rng.random() < 0.5), 0.3])
    return path


@pytest.mark.parametrize("closed", amount([True], [True, False]))
def test_an_auditor_needs_no_solver(season, tmp_path, closed):
    folder = tmp_path / "copy"
    shutil.copytree(season, folder)
    saved = folder / "weeks" / "week-11.json"
    if not closed:
        # Without pauses and the unreachable the default rule is the Lagrangian one.
        model = yaml.safe_load((folder / "model.yaml").read_text(encoding="utf-8"))
        del model["constraints"]["closed"]
        (folder / "model.yaml").write_text(yaml.safe_dump(model), encoding="utf-8")
        answer = run("decide", folder / "model.yaml", "--out", saved)
        assert answer.code == 0, answer.err
    document = json.loads(saved.read_text(encoding="utf-8"))
    assert document["policy"] == ("living" if closed else "lagrangian")
    lottery(season, tmp_path / "lottery.csv")
    said = without_solver_and_torch(
        ["check", folder / "model.yaml", "--decision", saved], ["audit", folder, "--log", tmp_path / "lottery.csv"]
    )
    assert "verified without a solver" in said
    assert "would have earned" in said
    if closed:
        for wrong in (np.zeros(7), np.full(5, np.nan), np.full(5, 0.25)):
            altered = {**document, "prices": packed(wrong, "<f8")}
            saved.write_text(json.dumps(altered), encoding="utf-8")
            assert run("check", folder / "model.yaml", "--decision", saved).code in (2, 4)


def test_a_log_with_chances_gives_the_value_of_another_list(season, tmp_path):
    path = lottery(season, tmp_path / "lottery.csv")
    answer = run("audit", season, "--log", path)
    assert answer.code == 0, answer.err
    assert "would have earned" in answer.out
    assert "effective number of arms" in answer.out
    without = run("audit", season, "--log", path, "--chance", "chanse")
    assert "no column 'chanse'" in without.out


def test_drift_is_found_where_dynamics_moved_and_not_invented():
    rng = np.random.default_rng(6)

    def log(up: np.ndarray, weeks: int, first: int) -> CallLog:
        n = 400
        seen, called = np.empty((n, weeks), int), (rng.random((n, weeks)) < 0.15).astype(int)
        seen[:, 0] = rng.random(n) < 0.5
        for w in range(weeks - 1):
            seen[:, w + 1] = rng.random(n) < up[called[:, w], seen[:, w]]
        return CallLog(tuple(f"f{k:03d}" for k in range(n)), tuple(range(first, first + weeks)), seen, called)

    up = np.array([[0.2, 0.6], [0.5, 0.8]])
    members = {f"f{k:03d}": Member("all") for k in range(400)}
    made = estimate(log(up, 15, 1), members)
    assert all(row["verdict"] == "as estimated" for row in drift(made, log(up, 8, 16)))
    moved = up.copy()
    moved[0, 1] -= 0.15
    verdicts = {(row["state"], row["called"]): row["verdict"] for row in drift(made, log(moved, 8, 16))}
    assert verdicts.pop(("engaged", False)) == "has moved"
    assert set(verdicts.values()) == {"as estimated"}
