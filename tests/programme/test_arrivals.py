"""Joiners and leavers: rates with intervals, and the bound that counts them against the exact program's value."""

from __future__ import annotations

import datetime
import json

import numpy as np
import pytest
from command_line import run
from programmes import sheets

from rmab_opt.planning.living import Course, living_bound
from rmab_opt.programme.arrivals import bound_with, rates_of
from rmab_opt.programme.columns import PlanSection
from rmab_opt.programme.folder import start

UP = np.array([[0.15, 0.75, 0.40, 0.90], [0.10, 0.50, 0.70, 0.80], [0.05, 0.95, 0.50, 0.98]]).reshape(3, 2, 2)


def test_rates_are_gamma_poisson_and_beta_binomial():
    last = datetime.date(2026, 7, 1)
    days = [(last - datetime.timedelta(days=k), k % 3) for k in range(182)] + [(last - datetime.timedelta(days=900), 0)]
    found = rates_of(days, 3, member_weeks=5000, left=100)
    assert found.joiners[0] == pytest.approx(182.5 / 26)
    assert found.joiners[1] < 7 < found.joiners[2]
    assert found.leavers[0] == pytest.approx(100.5 / 5001)
    assert found.shares == pytest.approx((61 / 182, 61 / 182, 60 / 182))
    assert rates_of([], 3) is None
    assert "taken as none" in str(rates_of(days, 3))


def test_the_bound_counts_joiners_and_leavers_and_is_seldom_loose():
    """Spec 3.3: 6234.53 with joiners and leavers, at its own prices; joiners are a class of their own here."""
    tables = np.stack([1 - UP, UP], axis=-1)
    reward = UP.transpose(0, 2, 1).copy()
    start = np.array([[300, 300], [180, 180], [120, 120]], dtype=float)
    today = Course(tables, reward, start, 12, 60)
    closed = living_bound(today)
    days = [
        (datetime.date(2026, 7, 1) - datetime.timedelta(days=d % 182), g)
        for d, g in enumerate([0] * 260 + [1] * 156 + [2] * 104)
    ]
    rates = rates_of(days, 3, member_weeks=10**7, left=2 * 10**5)
    assert rates.joiners[0] == pytest.approx(20, abs=0.05)
    value, low, high = bound_with(today, (closed.prices, closed.saved), rates, (tables, (0.5, 0.5, 0.5)))
    assert low < value < high
    assert 6234.5285 - 1 <= value <= 6234.5285 * 1.01


def test_bound_and_decide_on_a_programmes_folder_count_its_joiners(tmp_path):
    given = sheets(tmp_path / "sheets")
    title, head, *rows = given["register"].read_text(encoding="utf-8-sig").splitlines()
    dated = [f"{title};", f"{head};Registered"]
    dated += [f"{row};{datetime.date(2026, 1, 5) + datetime.timedelta(days=3 * k)}" for k, row in enumerate(rows)]
    given["register"].write_text("\n".join(dated) + "\n", encoding="utf-8")
    folder = tmp_path / "own"
    week = start(given["register"], folder, log=given["log"], roster=given["roster"], plan=PlanSection(weeks=4))
    said = next(line for line in week.said if "joiners a week" in line)
    decided = run("decide", folder, "--json")
    assert json.loads(decided.out)["horizon"]["joiners"] == said
    found = run("bound", folder)
    assert "\nwith joiners: " in found.out
    assert said.split(";")[0] in found.out.replace("\n", " ")
    (folder / "arrivals.json").write_text("{}", encoding="utf-8")
    for verb in ("bound", "decide"):
        broken = run(verb, folder)
        assert broken.code == 2
        assert "arrivals.json" in broken.err
