"""A researcher's table, step by step (shared/design/journeys.md).

Steps 1 and 11 (published tables and how far ours are from them) belong to `reproduce` and tests of the settings, step 3
(a run that was stopped goes on to the same table) to tests/learning and the coupled setting, step 6 to tests/learning.
"""

from __future__ import annotations

import csv
import io
from itertools import product

import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.errors import RmabError

NAMES = ["lagrangian", "myopic", "none"]


@pytest.fixture(scope="module")
def model():
    return ro.load("budget", n_arms=8, **{"problem.horizon": 4, "budget.at_most": 3})


@pytest.fixture(scope="module")
def table(model):
    return ro.evaluate(model, NAMES, seeds=range(4), episodes=3)


def test_step_2_the_header_states_how_it_was_evaluated(table):
    stated = {key: table.header[key] for key in ("reward", "horizon", "arms", "seeds", "episodes")}
    assert stated == {"reward": "expected", "horizon": 4, "arms": 8, "seeds": 4, "episodes": 3}
    assert {"profile", "versions", "bound"} <= set(table.header)
    assert table.header["versions"]["rmab-opt"] == ro.__version__


def test_step_4_other_seeds_give_paired_differences_over_seeds(model, table):
    other = ro.evaluate(model, NAMES, seeds=range(4, 8), episodes=3)
    assert other.rows[0]["reward"] != table.rows[0]["reward"]
    by_hand = table.episodes["lagrangian"].mean(axis=1) - table.episodes["myopic"].mean(axis=1)
    assert by_hand.shape == (4,)
    found = table.difference("lagrangian", "myopic")
    assert found.mean == pytest.approx(by_hand.mean())
    assert found.low < found.mean < found.high


def test_step_5_an_unsupported_layer_is_named_with_its_index_and_the_way_out():
    torch = pytest.importorskip("torch")
    pyo = pytest.importorskip("pyomo.environ")
    from rmab_opt.encoder import encode

    own = pyo.ConcreteModel()
    own.x = pyo.Var(range(3), bounds=(0, 1))
    own.net = pyo.Block()
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Softplus(), torch.nn.Linear(4, 1))
    with pytest.raises(RmabError, match="Softplus") as refused:
        encode(network, own.net, own.x, sense="maximise")
    assert "1" in str(refused.value)
    assert "To fix" in str(refused.value)


def test_step_7_no_policy_exceeds_the_bound(table):
    assert all(row["reward"] <= table.header["bound"] * (1 + 1e-9) for row in table.rows)
    assert all(0 < row["share_of_bound"] <= 1 for row in table.rows)


def test_step_8_with_exact_the_program_equals_enumeration_on_every_state(model):
    allowed = np.array([each for each in product((0, 1), repeat=8) if sum(each) <= 3])
    rng = np.random.default_rng(0)
    for state in rng.integers(0, 4, (12, 8)):
        values = model.problem.expected_reward(np.broadcast_to(state, allowed.shape), allowed).sum(axis=1)
        decision = ro.decide(model, state, solver="exact")
        assert decision.value == pytest.approx(values.max(), abs=1e-9)
        assert decision.bound == pytest.approx(values.max(), abs=1e-7)


def test_step_9_and_10_plots_csv_latex_and_the_record(table, tmp_path):
    from rmab_opt.learning.plots import policy_plot, time_plot

    policy_plot(table, tmp_path / "policies.png")
    time_plot(table.seconds, tmp_path / "seconds.png")
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("*.png"))
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [row["policy"] for row in rows] == NAMES
    assert [float(row["reward"]) for row in rows] == pytest.approx([row["reward"] for row in table.rows], rel=1e-3)
    assert table.to_latex().count(r"\\") >= len(NAMES)
