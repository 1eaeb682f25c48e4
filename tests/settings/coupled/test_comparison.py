"""The table over settings survives being killed, refuses a folder of other settings, and agrees with `evaluate`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import run

import rmab_opt as ro
from rmab_opt.errors import ModelError
from rmab_opt.settings.coupled import comparison
from rmab_opt.settings.coupled.comparison import FULL, LARGE, QUICK, Plan, Setting, compare

TRAIN = {"episodes": 2, "validations": 1, "validation_episodes": 2, "hidden": [4], "anchor": "open_loop"}
SMALL = Plan(
    (
        Setting("few", "budget", 2, ("none", "static", "learned"), {"n_arms": 5, "horizon": 3}, TRAIN),
        Setting("fewer", "budget", 1, ("none", "myopic"), {"n_arms": 4, "horizon": 3}),
    ),
    episodes=3,
)
KILLED_AFTER = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import rmab_opt as ro
from settings.coupled.test_comparison import SMALL
from rmab_opt.settings.coupled.comparison import compare
def stop(event):
    if event["done"] == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
compare(SMALL, {out!r}, load=ro.load, on_event=stop)
"""


@pytest.mark.slow
def test_a_killed_table_goes_on_to_the_same_table(tmp_path):
    """Killed twice between tasks and once inside a run, it ends with the bytes of an uninterrupted one."""
    whole = compare(SMALL, tmp_path / "whole", load=ro.load)
    tests = str(Path(__file__).parents[2])
    for after in (2, 5):
        code = KILLED_AFTER.format(tests=tests, after=after, out=str(tmp_path / "killed"))
        done = subprocess.run([sys.executable, "-c", code], env=os.environ, check=False)
        assert done.returncode == -signal.SIGKILL
        assert len(list((tmp_path / "killed" / "ledger").iterdir())) == after
    again = compare(SMALL, tmp_path / "killed", load=ro.load)
    assert (tmp_path / "killed" / "table.csv").read_bytes() == (tmp_path / "whole" / "table.csv").read_bytes()
    assert again.rows == whole.rows
    assert len(whole.rows) == 5
    seen = []
    compare(SMALL, tmp_path / "killed", load=ro.load, on_event=seen.append)
    assert seen == []


@pytest.mark.slow
def test_its_numbers_are_those_of_evaluate_and_pairs_are_over_instances(tmp_path):
    found = compare(SMALL, tmp_path, load=ro.load)
    model = ro.load("budget", n_arms=5, horizon=3)
    table = ro.evaluate(model, ["none", "static"], seeds=range(2), episodes=3, bound=False)
    for policy in ("none", "static"):
        assert np.array_equal(found.tables["few"].episodes[policy], table.episodes[policy])
    rows = {row["policy"]: row for row in found.rows if row["setting"] == "few"}
    mean, low, high = table.difference("none", "static")[:3]
    base = table.episodes["static"].mean()
    assert rows["none"]["gain"] == pytest.approx(100 * mean / base)
    assert (rows["none"]["gain_low"], rows["none"]["gain_high"]) == pytest.approx((100 * low / base, 100 * high / base))
    assert rows["static"]["gain"] is None
    assert rows["learned"]["share_of_bound"] is None or rows["learned"]["share_of_bound"] <= 1
    learned = next(row for row in found.times if row["policy"] == "learned")
    assert learned["training_cpu_seconds"] > 0
    assert learned["kept"].startswith("open_loop")


def test_processor_time_is_what_the_evaluation_took(tmp_path, monkeypatch):
    """A clock that stands at 1000 and moves by one second a look: an evaluation looks once before and once after."""
    looks = iter(range(1000, 2000))
    monkeypatch.setattr(comparison, "process_time", lambda: float(next(looks)))
    compare(replace(SMALL, settings=SMALL.settings[1:]), tmp_path, load=ro.load)
    entries = [json.loads(file.read_text()) for file in (tmp_path / "ledger").iterdir()]
    assert [entry["cpu_seconds"] for entry in entries if "totals" in entry] == [1.0, 1.0]


def test_a_folder_of_other_settings_is_refused(tmp_path):
    compare(SMALL, tmp_path, load=ro.load)
    with pytest.raises(ModelError, match="was made with another episodes"):
        compare(replace(SMALL, episodes=4), tmp_path, load=ro.load)


def test_the_published_plans_name_models_that_load():
    for plan in (QUICK, FULL):
        for setting in plan.settings:
            assert "learned" in setting.policies
    assert {setting.seeds for setting in FULL.settings} == {10}
    for name, overrides in LARGE.items():
        assert ro.load(name, **overrides).problem.n_arms == 40


def test_the_verb_writes_table_and_plots(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "QUICK", SMALL)
    answer = run("evaluate", "sequoia_table", "--quick", "--out", str(tmp_path), "--json")
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert [row["policy"] for row in told["rows"]] == ["none", "static", "learned", "none", "myopic"]
    written = {path.name for path in tmp_path.iterdir()}
    assert {"table.csv", "times.csv", "few.png", "few.seconds.png", "fewer.png"} <= written


def test_the_verb_refuses_what_it_cannot_mean():
    answer = run("evaluate", "budget", "--quick")
    assert answer.code == 2
    assert "sequoia_table" in answer.err


@pytest.mark.slow
def test_seeds_side_by_side_are_the_runs_one_by_one(tmp_path):
    """Two processes, and one run alone: the same weights; the command line lists them."""
    short = [f"train.{key}={json.dumps(value)}" for key, value in TRAIN.items()]
    sets = [part for text in ["n_arms=5", "horizon=3", *short] for part in ("--set", text)]
    answer = run("train", "budget", "--out", str(tmp_path), "--seeds", "2", "--jobs", "2", *sets, "--json")
    assert answer.code == 0, answer.err
    rows = json.loads(answer.out)
    assert [row["seed"] for row in rows] == [0, 1]
    model = ro.load("budget", n_arms=5, horizon=3, **{f"train.{key}": value for key, value in TRAIN.items()})
    alone = ro.train(model, seed=1, out=tmp_path / "alone")
    assert rows[1]["weights_sha256"] == alone.weights_hash()
