"""Rounds recorded: the next starts from them, unknown states move by the dynamics, nothing recorded is lost."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time

import numpy as np
import pytest
from command_line import run

import rmab_opt as ro
from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Model, decide
from rmab_opt.errors import ModelError
from rmab_opt.problem import Arms, Problem, Table, Tabular
from rmab_opt.programme.ledger import Ledger


@pytest.fixture
def model() -> Model:
    rng = np.random.default_rng(3)
    transition = rng.dirichlet(np.ones(3), size=(4, 2, 3))
    arms = Arms.from_arrays(4)
    dynamics = Tabular(transition, rng.random((4, 3, 2)), state_names=("low", "middle", "high"))
    return Model(Problem(arms, dynamics, horizon=60), ActionSet(arms, {"calls": Budget(at_most=2)}))


def saved(model: Model, state: list[int], period: int) -> dict:
    return json.loads(decide(model, np.array(state), period=period).to_json())


def outcomes(**rows: tuple[str, str]) -> Table:
    done, state = zip(*rows.values(), strict=True) if rows else ((), ())
    return Table({"id": list(rows), "done": done, "state": state}, source="outcomes.csv")


def test_unobserved_states_follow_what_was_really_done(tmp_path, model):
    made = saved(model, [0, 1, 2, 0], 0)
    failed, held = made["action"]
    ledger = Ledger(tmp_path, model)
    ledger.record(made, outcomes(**{failed: ("no", ""), held: ("yes", "high")}))
    standing = Ledger(tmp_path, model).standing()
    transition, _ = model.problem.dynamics.tabular()
    index = model.problem.arms.index
    assert standing.belief[index(held)].tolist() == [0, 0, 1]
    for name in set(model.problem.arms.ids) - {held}:
        # A call that failed moves its arm as if nobody had called.
        arm = index(name)
        assert standing.belief[arm] == pytest.approx(transition[arm, 0, made["state"][arm]])
    assert held not in standing.estimated
    assert set(standing.estimated) == set(model.problem.arms.ids) - {held}
    assert standing.period == 1
    # A second round without a word about anybody: chances of chances, not of the best guess.
    ledger = Ledger(tmp_path, model)
    second = saved(model, standing.state.tolist(), 1)
    ledger.record(second, outcomes())
    after = ledger.standing()
    acted = [int(name in second["action"]) for name in model.problem.arms.ids]
    for arm in range(4):
        assert after.belief[arm] == pytest.approx(standing.belief[arm] @ transition[arm, acted[arm]])


def test_faulty_rows_are_named_together_and_nothing_is_recorded(tmp_path, model):
    made = saved(model, [0, 0, 0, 0], 0)
    ledger = Ledger(tmp_path, model)
    with pytest.raises(ModelError) as caught:
        ledger.record(made, outcomes(arm0=("maybe", ""), arm1=("", "hihg"), arm9=("yes", "")))
    for part in ("1: done of 'arm0' is 'maybe'", "2: state of 'arm1' is 'hihg'", "3: no arm 'arm9'"):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ModelError, match="round 3, the ledger stands before round 1"):
        ledger.record({**made, "period": 2}, outcomes())
    with pytest.raises(ModelError, match="another model"):
        ledger.record({**made, "ids": ["x"]}, outcomes())


def test_rounds_are_added_once_and_never_changed(tmp_path, model):
    made = saved(model, [0, 0, 0, 0], 0)
    first = Ledger(tmp_path, model).record(made, outcomes(arm0=("", "low")))
    content = first.read_bytes()
    other = Ledger(tmp_path, model)
    assert Ledger(tmp_path, model).record(made, outcomes(arm0=("", "low"))) == first
    with pytest.raises(ModelError, match="stands before round 2"):
        other.record(made, outcomes(arm0=("", "high")))
    # Another decision that says the same of this round is not the one that was recorded.
    with pytest.raises(ModelError, match=r"period is 0(.|\n)*stands before round 2"):
        other.record({**made, "value": made["value"] + 1.0}, outcomes(arm0=("", "low")))
    stale = Ledger(tmp_path, model)
    Ledger(tmp_path, model).record(saved(model, [0, 0, 0, 0], 1), outcomes())
    with pytest.raises(ModelError, match="somebody else"):
        stale.record(saved(model, [1, 1, 1, 1], 1), outcomes())
    assert first.read_bytes() == content
    first.write_bytes(content.replace(b'"period": 0', b'"period": 7'))
    with pytest.raises(ModelError, match=r"round-0001\.json: was altered"):
        Ledger(tmp_path, model)
    first.unlink()
    with pytest.raises(ModelError, match=r"round-0001\.json: is missing"):
        Ledger(tmp_path, model)


def test_the_newest_round_is_protected_too(tmp_path, model):
    for period in range(2):
        Ledger(tmp_path, model).record(saved(model, [0, 0, 0, 0], period), outcomes(arm0=("", "low")))
    last = tmp_path / "round-0002.json"
    content = last.read_bytes()
    last.write_bytes(content.replace(b'"arm0": 0', b'"arm0": 1'))
    with pytest.raises(ModelError, match=r"round-0002\.json: was altered"):
        Ledger(tmp_path, model)
    last.unlink()
    with pytest.raises(ModelError, match=r"round-0002\.json: is missing"):
        Ledger(tmp_path, model)
    last.write_bytes(content)
    assert len(Ledger(tmp_path, model).rounds) == 2


def test_a_ledger_of_the_first_format_reads_and_goes_on(tmp_path, model):
    """As version 0.1 wrote it: no head file, each round names the digest of the one before."""
    previous = ""
    for period in range(2):
        entry = {
            "format": 1, "model": "model", "period": period, "ids": list(model.problem.arms.ids),
            "state": [0, 1, 2, 0], "decided": ["arm0", "arm1"], "done": ["arm0"], "observed": {"arm2": 1},
        }  # fmt: skip
        text = json.dumps({**entry, "previous": previous}, indent=1, ensure_ascii=False) + "\n"
        (tmp_path / f"round-{period + 1:04d}.json").write_text(text)
        previous = hashlib.sha256(text.encode()).hexdigest()
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ledger = Ledger(tmp_path, model)
    assert ledger.standing().belief[2].tolist() == [0, 1, 0]
    ledger.record(saved(model, [0, 0, 0, 0], 2), outcomes(arm0=("yes", "high")))
    again = Ledger(tmp_path, model)
    assert [found["period"] for found in again.rounds] == [0, 1, 2]
    assert again.standing().belief[0].tolist() == [0, 0, 1]
    assert {name: (tmp_path / name).read_bytes() for name in old} == old
    (tmp_path / "round-0001.json").write_bytes(old["round-0001.json"].replace(b'"arm2": 1', b'"arm2": 0'))
    with pytest.raises(ModelError, match=r"round-0001\.json: was altered"):
        Ledger(tmp_path, model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"action": ["nobody"]}, "action names 'nobody'"),
        ({"action": None}, "action: "),
        ({"action": ["arm0", "arm1", "arm2"]}, "breaks calls: 3 chosen"),
        ({"ids": None}, "ids: "),
        ({"period": "x"}, "period: "),
        ({"period": -1}, "period: "),
        ({"period": True}, "period: "),
        ({"state": [-1, 0, 0, 0]}, "state.0: Input should be greater"),
        ({"state": [0.5, 0, 0, 0]}, "state"),
        ({"shared": {"stock": 1}}, "shared names 'stock'"),
    ],
)
def test_a_decision_that_cannot_be_is_not_recorded(tmp_path, model, change, words):
    made = saved(model, [0, 0, 0, 0], 0)
    with pytest.raises(ModelError, match=words):
        Ledger(tmp_path, model).record({**made, **change}, outcomes())
    assert list(tmp_path.iterdir()) == []
    # What was relaxed on request is in order.
    if words.startswith("breaks"):
        Ledger(tmp_path, model).record({**made, **change, "relaxed": "calls"}, outcomes())
        assert len(Ledger(tmp_path, model).rounds) == 1


@pytest.mark.parametrize(
    ("column", "meant"), [("Done", "done"), ("don", "done"), ("State", "state"), ("staet", "state")]
)
def test_a_misspelt_column_is_refused_and_a_note_is_not(tmp_path, model, column, meant):
    made = saved(model, [0, 0, 0, 0], 0)
    with pytest.raises(ModelError, match=f"column '{column}'(.|\n)*'{meant}'"):
        Ledger(tmp_path, model).record(made, Table({"id": ["arm0"], column: ["no"]}))
    Ledger(tmp_path, model).record(made, Table({"id": ["arm0"], "date": ["3 May"], "worker": ["asha"]}))


def test_a_machine_that_stops_loses_no_round(tmp_path, model):
    """SIGKILL at random moments while rounds are written: what is there is whole, in order and can go on."""
    made = saved(model, [0, 0, 0, 0], 0)
    rng = np.random.default_rng(0)
    reached = 0
    (tmp_path / "told").write_text("0")
    for _ in range(6):
        told = tmp_path / "told"
        child = os.fork()
        if child == 0:
            ledger = Ledger(tmp_path, model)
            while len(ledger.rounds) < 60:
                ledger.record({**made, "period": len(ledger.rounds)}, outcomes(arm1=("", "middle")))
                # Told only after it was recorded.
                told.write_text(str(len(ledger.rounds)))
            os._exit(0)
        # A slow machine is waited for: a child gets a round further, then dies anywhere in the next ones.
        for _ in range(60_000):
            if reached == 60 or int(told.read_text() or 0) > reached:
                break
            time.sleep(0.001)
        time.sleep(float(rng.uniform(0.0, 0.03)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = len(Ledger(tmp_path, model).rounds)
        assert found >= max(reached, int(told.read_text() or 0) if told.exists() else 0)
        reached = found
    assert reached >= 6


def test_a_week_is_recorded_and_the_next_starts_from_there(tmp_path):
    """A planner's week, step 12."""
    folder, week, kept = tmp_path / "demo", tmp_path / "week.json", tmp_path / "ledger"
    assert run("new", "weekly_calls", folder).code == 0
    start = ("decide", folder / "model.yaml", "--ledger", kept, "--out", week, "--episodes", 0)
    mistyped = run(*start, "--state", folder / "monday.csv")
    assert mistyped.code == 2
    assert "--new" in mistyped.err
    first = run(*start, "--new", "--state", folder / "monday.csv")
    assert first.code == 0, first.err
    called = json.loads(week.read_text())["action"]
    seen = tmp_path / "seen.csv"
    names = ro.load(folder / "model.yaml").problem.dynamics.state_names
    seen.write_text(f"id,done,state\n{called[0]},no,\n{called[1]},,{names[-1]}\n")
    answer = run("record", folder / "model.yaml", "--decision", week, "--outcomes", seen, "--ledger", kept)
    assert answer.code == 0, answer.err
    assert f"{len(called) - 1} done, 1 planned but not done, 1 states observed" in answer.out
    second = run(*start)
    assert second.code == 0, second.err
    assert "from the ledger: round 2, 240 arms, 239 states estimated" in second.out
    document = json.loads(week.read_text())
    assert document["period"] == 1
    assert document["state"][document["ids"].index(called[1])] == len(names) - 1
    assert run("check", folder / "model.yaml", "--decision", week).code == 0
    clash = run(*start, "--state", folder / "monday.csv")
    assert clash.code == 2
    assert "--ledger says state and round itself" in clash.err
    nothing = run("record", folder / "model.yaml", "--decision", seen, "--outcomes", seen, "--ledger", kept)
    assert nothing.code == 2
    assert "is no saved decision" in nothing.err
