"""Guarantees follow what a programme recorded: a list respects what is left after the rounds that were really done."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import run

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Guarantee
from rmab_opt.decisions import Model, decide
from rmab_opt.errors import ModelError
from rmab_opt.problem import Arms, Problem, Table, Tabular
from rmab_opt.programme.desk import Desk, begin_desk
from rmab_opt.programme.ledger import Ledger

FAVOURITE = np.array([[[0.9, 0.1], [0.9, 0.1]], [[0.1, 0.9], [0.1, 0.9]]])
"""Transitions [action, state]: acting helps."""


def pays(worth, **guarantee):
    """Arms of which the first gains most by an act, one act a round, and a service of each in four rounds."""
    move = np.tile(FAVOURITE, (len(worth), 1, 1, 1))
    pay = np.zeros((len(worth), 2, 2))
    pay[:, :, 1] = np.array(worth)[:, None]
    arms = Arms.from_arrays([f"a{n}" for n in range(len(worth))])
    sure = Guarantee.model_validate({"at_least": 1, "end": 4, "room": 1, **guarantee})
    return Model(
        Problem(arms, Tabular(move, pay), horizon=6, start=np.zeros(len(worth), dtype=int)),
        ActionSet(arms, {"weekly": Budget(at_most=1), "sure": sure}),
    )


def told(done: str, name: str) -> Table:
    return Table({"id": [name], "done": [done]}, source="outcomes.csv")


def test_rounds_respect_what_is_left_of_a_guarantee(tmp_path):
    model, acted = pays([3.0, 2.0, 1.0]), []
    words = ["yes", "no", "yes", "yes", "yes"]
    for period, word in enumerate(words):
        ledger = Ledger(tmp_path, model)
        standing = ledger.standing()
        state = np.zeros(3, dtype=int) if standing is None else standing.state
        made = decide(ledger.model, state, period=period)
        acted.append(made.chosen[0])
        saved = json.loads(made.to_json())
        path = ledger.record(saved, told(word, acted[-1]))
        # The same round once more, in another process: it is held against what was known before it.
        assert Ledger(tmp_path, model).record(saved, told(word, acted[-1])) == path
    # One round may go to the first; the second's act failed, so that two rounds are left for two; then nothing is owed.
    assert acted[:2] == ["a0", "a0"]
    assert acted[2:] == ["a1", "a2", "a0"]
    sure = Ledger(tmp_path, model).before(3).actions.declared["sure"]
    assert (sure.before, sure.done.numbers("services").tolist()) == (3, [1.0, 1.0, 0.0])


@pytest.mark.parametrize("begin", [0, 1])
def test_services_before_the_window_and_declared_ones_count_once(begin):
    services = np.array([[1, 0], [1, 0], [0, 1], [1, 1], [1, 1]])
    model = pays([1.0, 1.0], begin=begin, end=4, at_least=1, room=2)
    sure = model.counted(services[:3]).actions.declared["sure"]
    assert sure.done.numbers("services").tolist() == services[begin:3].sum(axis=0).tolist()
    # Counting goes on from where it stood, and ends with the window.
    at_once, stepwise = model.counted(services), model.counted(services[:2]).counted(services)
    for one in (at_once, stepwise):
        assert one.actions.declared["sure"].done.numbers("services").tolist() == services[begin:4].sum(axis=0).tolist()
    given = pays([1.0, 1.0], begin=begin, end=4, at_least=1, room=2, done=[{"id": "a1", "services": 1}], before=3)
    assert given.counted(services[:3]) is given
    assert given.counted(services[:4]).actions.declared["sure"].done.numbers("services").tolist() == [1.0, 2.0]


@pytest.mark.slow
def test_a_programme_s_list_follows_its_ledger(tmp_path):
    """A small folder: two rounds done, the third list has whoever is left; checks and bounds count alike."""
    source = tmp_path / "few.yaml"
    source.write_text(
        "format: 1\ntitle: Few\nproblem: {domain: maternal_health, n_arms: 3, horizon: 5, seed: 4}\n"
        "constraints:\n  weekly: {kind: budget, at_most: 1}\n"
        "  sure: {kind: guarantee, at_least: 1, end: 3, room: 1}\nobjective: {kind: immediate}\n"
    )
    desk = Desk(begin_desk(source, tmp_path / "own"))
    desk.settle()
    had = []
    for week in range(3):
        had += desk.live().chosen
        assert desk.verdict().ok
        if week < 2:
            outcomes = tmp_path / f"seen-{week}.csv"
            outcomes.write_text(f"id,done\n{had[-1]},yes\n")
            assert desk.record(outcomes) == []
    assert sorted(had) == ["arm0", "arm1", "arm2"]
    answer = run("decide", desk.folder, "--episodes", "0", "--json")
    assert json.loads(answer.out)["action"] == [had[2]]
    for week in (1, 2, 3):
        assert run("check", desk.folder, "--decision", desk.path(week)).code == 0
    # Rounds that other people had would break it.
    with pytest.raises(ModelError, match="breaks sure"):
        Ledger(desk.folder / "ledger", desk.model())._saved({**desk.document(), "action": [had[0]]})
