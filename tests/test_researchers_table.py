"""A researcher's table, step by step (shared/design/journeys.md); steps 1, 3, 11 are tests of the setting equity."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Model
from rmab_opt.decisions.policy import round_of
from rmab_opt.errors import CapabilityError, RmabError
from rmab_opt.learning import evaluation
from rmab_opt.problem import Arms, Problem

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


class Own:
    """Arms of a researcher's own: no tables, only what they do in a round."""

    n_arms, n_states, n_actions = 6, 2, 2

    def step(self, state, action, rng):
        arrived = (rng.random(np.shape(state)) < np.where(action == 1, 0.8, 0.3)).astype(np.int64)
        return arrived, arrived.astype(float)

    def expected_reward(self, state, action):
        return np.where(action == 1, 0.8, 0.3)


def test_step_6_own_dynamics_without_tables_say_what_rows_need_and_play_the_rest():
    arms = Arms.from_arrays(6)
    problem = Problem(arms, Own(), horizon=4, start=np.zeros(6, dtype=np.int64))
    model = Model(problem, ActionSet(arms, {"budget": Budget(at_most=2)}))
    for jobs in (None, 2):
        table = ro.evaluate(model, ["whittle", "myopic", "lp_index", "none"], episodes=3, n_jobs=jobs)
        played = {row["policy"]: row for row in table.rows if row["reward"] is not None}
        assert set(played) == {"myopic", "none"}
        assert played["myopic"]["reward"] == pytest.approx(4 * (2 * 0.8 + 4 * 0.3))
        for row in table.rows[2:]:
            assert row["policy"] in ("whittle", "lp_index")
            assert row["note"] == "not played: Own does not offer tabular()"
        assert "does not offer tabular()" in str(table)
    # Where no policy can be played, that is an error.
    with pytest.raises(CapabilityError, match="tabular"):
        ro.evaluate(model, ["whittle"], episodes=1)


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


def test_step_9_learning_solve_time_gaps_and_the_share_at_the_limit_are_shown(model, table, tmp_path, monkeypatch):
    from rmab_opt.learning.plots import learning_plot, policy_plot, time_plot

    policy_plot(table, tmp_path / "policies.png")
    time_plot(table.seconds, tmp_path / "seconds.png")
    learning_plot([{"episode": k, "reward": float(k)} for k in range(1, 9)], tmp_path / "learning.png")
    assert len([path for path in tmp_path.glob("*.png") if path.read_bytes().startswith(b"\x89PNG")]) == 3
    for row in table.rows:
        assert row["decisions"] == table.seconds[row["policy"]].size == 4 * 3 * 4
        assert row["seconds_per_decision"] == pytest.approx(table.seconds[row["policy"]].mean())
        assert row["limit_share"] == 0.0
    best = next(row for row in table.rows if row["policy"] == "myopic")
    assert 0 <= best["mean_gap"] < 1e-4
    assert best["proven_share"] == 1.0

    def hurried(*given, **more):
        """Every second decision as a limit ends it, without a bound."""
        found = round_of(*given, **more)
        return replace(found, decisions=[replace(d, status="limit", bound=np.inf) if d.period % 2 else d
                                         for d in found.decisions])  # fmt: skip

    monkeypatch.setattr(evaluation, "round_of", hurried)
    (row,) = ro.evaluate(model, ["myopic"], episodes=1, bound=False).rows
    assert (row["limit_share"], row["proven_share"]) == (0.5, 0.5)
    assert row["mean_gap"] < 1e-4


def test_step_10_csv_latex_and_a_record_with_versions_and_hashes(model, table, tmp_path):
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [row["policy"] for row in rows] == NAMES
    assert [float(row["reward"]) for row in rows] == pytest.approx([row["reward"] for row in table.rows], rel=1e-3)
    assert table.to_latex().count(r"\\") >= len(NAMES)
    pytest.importorskip("torch")
    from rmab_opt.learning import DQNConfig

    few = DQNConfig(episodes=1, hidden=(4,), head=2, pretrain_steps=1, batch=2, validation_episodes=0)
    ro.train(model, few, out=tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert {"python", "rmab-opt", "numpy", "highspy", "torch"} <= set(record["versions"])
    weights = hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest()
    assert weights in record["digests"].values()
    assert record["fingerprint"]
