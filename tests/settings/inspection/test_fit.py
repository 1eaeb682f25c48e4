"""Estimation from records: known truth is found again, leaks are refused, splits keep arms whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.errors import ModelError
from rmab_opt.problem import Table
from rmab_opt.settings.inspection.beliefs import Windows
from rmab_opt.settings.inspection.fit import (
    RecordColumns,
    Sensitivity,
    area_under_curve,
    fit_records,
    grouped_split,
    read_records,
    records_of,
    sensitivity,
)

CHICAGO = Path(__file__).resolve().parents[4] / "shared" / "data" / "chicago" / "inspection_pairs.csv"


def synthetic(n: int = 6000, persistence: float = 0.8, seed: int = 0, **more) -> Table:
    """Visits of arms whose long-run share of bad depends on a feature."""
    rng = np.random.default_rng(seed)
    arm, risk = rng.integers(0, n // 3, n), rng.normal(size=n)
    share = 1 / (1 + np.exp(1.5 - 0.8 * risk))
    before, elapsed = (rng.random(n) < share).astype(int), rng.integers(1, 12, n)
    start = np.where(before > 0, 0.99, 0.01)
    chance = share + (start - share) * persistence**elapsed
    outcome = (rng.random(n) < chance).astype(int)
    cells = {"arm": arm, "slots": elapsed, "last": before, "bad": outcome, "risk": risk}
    return Table({**cells, **{key: make(outcome, rng) for key, make in more.items()}})


COLUMNS = RecordColumns(arm="arm", elapsed="slots", before="last", outcome="bad", features=("risk",))


def test_the_truth_lies_in_the_interval_and_the_feature_is_found():
    fit = fit_records(read_records(synthetic(), COLUMNS))
    assert fit.low < 0.8 < fit.high
    assert fit.high - fit.low < 0.1
    assert fit.weights[1] == pytest.approx(0.8, abs=0.1)
    good, back = fit.probabilities(np.zeros((1, 1)))
    assert good[0] - back[0] == pytest.approx(fit.persistence)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    inside = 0
    for seed in range(20):
        fit = fit_records(read_records(synthetic(800, 0.6, seed), COLUMNS))
        inside += fit.low <= 0.6 <= fit.high
    assert inside >= 16


def test_results_of_the_visit_are_refused_as_features():
    table = synthetic(violations=lambda bad, rng: bad * rng.integers(1, 5, bad.size))
    leaky = RecordColumns(arm="arm", elapsed="slots", before="last", outcome="bad", features=("risk", "violations"))
    with pytest.raises(ModelError, match=r"'violations' alone orders the outcomes .* 1\.000"):
        read_records(table, leaky)
    with pytest.raises(ModelError, match="is a result of the visit"):
        read_records(table, RecordColumns("", "arm", "slots", "last", "bad", ("risk",), ("risk",)))


def test_an_unknown_history_is_dropped_and_a_guessed_one_is_refused():
    rows = {"arm": ["a", "b", "c"], "slots": [1, 2, 3], "last": ["0", "", "1"], "bad": [0, 1, 1]}
    columns = RecordColumns(arm="arm", elapsed="slots", before="last", outcome="bad")
    records = read_records(Table(rows), columns)
    assert (len(records), records.dropped) == (2, 1)
    with pytest.raises(ModelError, match=r"last is '0\.142'"):
        read_records(Table({**rows, "last": ["0", "0.142", "1"]}), columns)


def test_no_arm_stands_on_both_sides_of_a_split():
    records = read_records(synthetic(900), COLUMNS)
    fitted, tested = grouped_split(records, 0.25, np.random.default_rng(0))
    assert not set(records.arm[fitted]) & set(records.arm[tested])
    assert len(fitted) + len(tested) == len(records)
    assert 0.15 < len(tested) / len(records) < 0.35


def test_area_under_the_curve_by_counting_pairs():
    rng = np.random.default_rng(0)
    score, outcome = rng.integers(0, 5, 40), rng.integers(0, 2, 40)
    pairs = [(a > b) + 0.5 * (a == b) for a in score[outcome > 0] for b in score[outcome == 0]]
    assert area_under_curve(score, outcome) == pytest.approx(np.mean(pairs))


def test_a_plan_is_best_under_the_persistence_it_was_made_with():
    rng = np.random.default_rng(0)
    found = sensitivity(rng.uniform(0.6, 0.95, 60), (0.3, 0.6, 0.9), Windows.spans(rng.integers(0, 9, 60), 4, 12), 4)
    assert np.diag(found.regret) == pytest.approx(0.0, abs=1e-12)
    assert (found.regret >= -1e-9).all()
    assert found.regret.max() > 0
    assert len(found.rows()) == 3


def test_regret_is_the_share_of_what_inspections_can_gain():
    """Between doing nothing (2 and 4) and the best plan (10 and 12), the other plan misses 2 of 8 and 6 of 8."""
    value = np.array([[10.0, 6.0], [8.0, 12.0]])
    found = Sensitivity((0.3, 0.6), value, np.array([2.0, 4.0]), np.array([0, 3]))
    assert found.regret == pytest.approx(np.array([[0.0, 0.75], [0.25, 0.0]]))


def test_a_model_file_names_its_records(tmp_path):
    table = synthetic(300)
    lines = [",".join(table.columns), *(",".join(row) for row in zip(*table.columns.values(), strict=True))]
    (tmp_path / "visits.csv").write_text("\n".join(lines))
    (tmp_path / "model.yaml").write_text(
        "format: 1\ntitle: Own\nproblem: {domain: inspection, n_arms: 4}\n"
        "records: {file: visits.csv, arm: arm, elapsed: slots, before: last, outcome: bad, features: [risk]}\n"
    )
    assert len(records_of(ro.load(tmp_path / "model.yaml"))) == 300
    with pytest.raises(ModelError, match="no records"):
        records_of(ro.load("inspection"))


@pytest.mark.skipif(not CHICAGO.is_file(), reason="the shared data folder is not here")
def test_chicago_pairs_have_the_known_maximum_and_hardly_identify_it():
    columns = RecordColumns(arm="est_id", elapsed="months_since_last", before="last_critical", outcome="critical")
    records = read_records(CHICAGO, columns)
    fit = fit_records(records, sure=1 - 1e-9)
    good, back = fit.probabilities(records.features[:1])
    assert (good[0], back[0]) == pytest.approx((0.9544, 0.2803), abs=5e-4)
    assert fit.log_likelihood - fit.profile[0, 1] < 5
    with pytest.raises(ModelError, match="no column"):
        read_records(CHICAGO, RecordColumns("", "est_id", "months_since_last", "last_critical", "criticalCount"))
