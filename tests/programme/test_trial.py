"""A trial by village: the specification's figures, simulated power, an analysis that does not count families."""

from __future__ import annotations

import numpy as np
import pytest
from command_line import run
from scipy import stats

from rmab_opt.errors import ModelError
from rmab_opt.problem import Table
from rmab_opt.programme.trial import Trial, Villages, analyse


def test_the_worked_figures():
    plain = Trial(Villages.from_mean(0.0876, 30, 0.05, count=14), 0.0303)
    assert plain.exactly == pytest.approx(130.9, abs=0.6)
    assert plain.a_side == 132 or plain.a_side == 133
    assert plain.smallest(7) == pytest.approx(0.131, abs=5e-4)
    based = Trial(Villages.from_mean(0.0876, 30, 0.05, baseline=0.795), 0.0249)
    # The specification's standard deviation with a baseline is not printed; its R^2 and D give its J within two.
    assert based.exactly == pytest.approx(
        2 * (1.95996 + 0.84162) ** 2 * 0.0876**2 * (1 - 0.795**2) / 0.0249**2, rel=1e-4
    )
    own = plain.villages
    assert own.sd == pytest.approx(0.0876)
    assert own.sd**2 == pytest.approx((own.between**2 + own.within**2) * own.design_effect / 30)
    answer = run("trial", "--difference", 0.0303, "--sd", 0.0876, "--families", 30, "--rho", 0.05, "--villages", 14)
    assert answer.code == 0, answer.err
    for words in (
        "cannot show the difference",
        "7 against 7 show 0.1312 or more",
        "within each village",
        "design effect",
    ):
        assert words in answer.out


@pytest.mark.parametrize("baseline", [0.0, 0.8])
def test_simulated_power_and_false_alarms(baseline):
    """Families are drawn in villages, the trial is analysed as it is offered; 1,500 trials each."""
    own = Villages(0.06, 0.35, 30, baseline)
    trial = Trial(own, 0.06)
    rng, a_side = np.random.default_rng(3), trial.a_side
    shown = {0.0: 0, trial.difference: 0}
    for difference in shown:
        for _ in range(1500):
            before = rng.normal(0, own.sd, 2 * a_side)
            mean = baseline * before + rng.normal(0, own.left, 2 * a_side)
            side = np.arange(2 * a_side) % 2
            mean = mean + difference * side
            design = np.stack([np.ones_like(mean), side, before], axis=1)[:, : 3 if baseline else 2]
            found, rest, *_ = np.linalg.lstsq(design, mean, rcond=None)
            freedom = len(mean) - design.shape[1]
            error = np.sqrt(rest[0] / freedom * np.linalg.inv(design.T @ design)[1, 1])
            shown[difference] += abs(found[1]) / error > stats.t.ppf(0.975, freedom)
    assert shown[trial.difference] / 1500 == pytest.approx(0.80, abs=0.05)
    assert shown[0.0] / 1500 == pytest.approx(0.05, abs=0.02)


def families(rng: np.random.Generator, difference: float, villages: int = 20, each: int = 12) -> Table:
    level = rng.normal(0, 0.3, villages)
    village = np.repeat(np.arange(villages), each)
    side = village % 2
    outcome = 0.5 + level[village] + difference * side + rng.normal(0, 0.4, len(village))
    cells = {
        "village": [f"v{k}" for k in village], "side": [("old", "new")[k] for k in side],
        "outcome": [f"{value:.5f}" for value in outcome],
    }  # fmt: skip
    return Table(cells, source="seen.csv")


def test_the_analysis_counts_villages_and_covers():
    rng = np.random.default_rng(8)
    found = [analyse(families(rng, 0.2)) for _ in range(200)]
    # "new" stands first in the alphabet, so the difference is that of old less new.
    assert np.mean([one.low <= -0.2 <= one.high for one in found]) >= 0.91
    assert np.mean([one.naive for one in found]) < 0.5 * np.mean([(one.high - one.low) / 2 for one in found])
    assert np.mean([one.rho for one in found]) == pytest.approx(0.09 / 0.25, abs=0.05)
    means = {"old": [], "new": []}
    table = families(rng, 0.0)
    for v in range(20):
        rows = [float(x) for x, w in zip(table.text("outcome"), table.text("village"), strict=True) if w == f"v{v}"]
        means[("old", "new")[v % 2]].append(np.mean(rows))
    second = stats.ttest_ind(means["old"], means["new"])
    assert analyse(table).p == pytest.approx(second.pvalue, rel=1e-9)


def test_what_is_no_trial_is_refused():
    table = families(np.random.default_rng(1), 0.1)
    bare = Table({name: table.text(name) for name in ("side", "outcome")}, source="seen.csv")
    with pytest.raises(ModelError, match="must not be counted as independent"):
        analyse(bare)
    mixed = {name: list(table.text(name)) for name in table.columns}
    mixed["side"][0] = "new"
    with pytest.raises(ModelError, match="'v0' stands on both sides"):
        analyse(Table(mixed, source="seen.csv"))
    with pytest.raises(ModelError, match="difference is 0"):
        Trial(Villages(0.1, 0.1, 10), 0.0)
