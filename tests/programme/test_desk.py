"""A planner's desk: locks and moves are constraints of the week, answers agree with deciding again, nothing is lost."""

from __future__ import annotations

import shutil
from itertools import product

import numpy as np
import pytest
from programmes import begun, ticked

from rmab_opt.actions import ActionSet, Columns
from rmab_opt.actions.kinds import Scheduling
from rmab_opt.decisions import verify
from rmab_opt.errors import InfeasibleError, ModelError
from rmab_opt.problem import Arms, Table
from rmab_opt.programme.asked import Asked, Draft
from rmab_opt.programme.desk import Desk, begin_desk
from rmab_opt.programme.folder import STAGE, erase, next_week
from rmab_opt.programme.front_door import saved_objective


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return begun(tmp_path_factory.mktemp("desk"), n=40, weeks=6)


@pytest.fixture
def desk(home, tmp_path):
    shutil.copytree(home, tmp_path / "own")
    return Desk(tmp_path / "own")


def outside(desk):
    """Somebody who could be on the list and is not."""
    listed = {row["id"] for row in desk.rows()}
    shut = {name for name, cells in desk.members().items() if cells.get("reach") == "no"}
    return next(name for name in desk.members() if name not in listed | shut)


def verified(desk):
    """What the command line says of the saved decision."""
    model, saved = desk.model(), desk.path()
    return verify(saved, model.problem, model.actions, saved_objective(model, saved))


def test_locks_are_constraints_that_every_command_knows(desk):
    first = desk.live()
    inside, other = first.chosen[0], outside(desk)
    made = desk.redecide(Asked().locked(other, "in").locked(inside, "out"))
    assert other in made.chosen
    assert inside not in made.chosen
    assert {row["id"] for row in desk.rows()} == set(made.chosen)
    assert {"this_week_in", "this_week_out"} <= set(desk.model().actions.describe())
    assert verified(desk).ok
    assert verified(desk).proven
    free = desk.redecide(Asked())
    assert set(free.chosen) == set(first.chosen)
    assert free.value == pytest.approx(first.value, abs=1e-9)
    assert "this_week_in" not in desk.model().actions.describe()


def test_what_a_lock_costs_is_what_why_says(desk):
    first, other = desk.live(), outside(desk)
    said = desk.why(other).said
    inside = first.chosen[-1]
    without = desk.why(inside).said
    made = desk.redecide(Asked().locked(other, "in"))
    assert f"costs {first.value - made.value:.4g} of" in said
    for name in set(first.chosen) - set(made.chosen):
        assert name in said
    made = desk.redecide(Asked().locked(inside, "out"))
    assert f"is worth {first.value - made.value:.4g} less" in without
    for name in set(made.chosen) - set(first.chosen):
        assert name in without


@pytest.mark.slow
def test_places_are_ranked_and_a_move_costs_what_was_said(desk):
    first = desk.live()
    name = first.assignment[0]["column"]
    places = desk.places(name)
    assert places[0].here
    costs = [place.cost for place in places[1:] if place.cost is not None]
    assert costs == sorted(costs)
    for place in places:
        made = desk.redecide(Asked().moved(name, place.worker, place.slot))
        assert made.value == pytest.approx(first.value - place.cost, abs=1e-6)
        assert [(row["worker"], row["slot"]) for row in made.assignment if row["column"] == name] == [
            (place.worker, place.slot)
        ]
        assert set(place.displaced) == set(first.chosen) - set(made.chosen) or place.cost < 1e-9
    assert verified(desk).ok


@pytest.mark.slow
def test_a_clash_changes_nothing_and_its_loosening_is_said(desk):
    before = {path: path.read_bytes() for path in desk.folder.rglob("*") if path.is_file()}
    shut = {name for name, cells in desk.members().items() if cells.get("reach") == "no"}
    asked = Asked(into=tuple(name for name in desk.members() if name not in shut)[:12])
    with pytest.raises(InfeasibleError) as error:
        desk.redecide(asked)
    assert set(error.value.clash) == {"roster", "this_week_in"}
    after = {path: path.read_bytes() for path in desk.folder.rglob("*") if path.is_file()}
    assert {path: content for path, content in after.items() if path in before} == before
    loosened = desk.redecide(asked.model_copy(update={"relax": "roster"}))
    assert loosened.relaxed == "roster"
    assert set(asked.into) <= set(loosened.chosen)
    assert desk.verdict().ok


def test_the_next_week_begins_without_the_locks_of_this_one(desk, tmp_path):
    desk.redecide(Asked().locked(outside(desk), "in"))
    week = desk.week
    desk.note(lambda draft: draft.model_copy(update={"done": {desk.rows()[0]["id"]: "no"}}))
    listed = [row["id"] for row in desk.rows()]
    sheet = tmp_path / "outcomes.csv"
    sheet.write_text(desk.draft().outcomes(listed), encoding="utf-8")
    desk.record(sheet)
    assert desk.week == week + 1
    assert desk.draft() == Draft(week=week + 1)
    assert "this_week_in" not in desk.model().actions.describe()
    assert set(desk.ledger().rounds[-1]["done"]) == set(listed[1:])
    assert {name for name, _, _ in desk.changes()} == set(listed) ^ {row["id"] for row in desk.rows()}
    assert all(said for _, _, said in desk.changes())


@pytest.mark.slow
def test_the_command_line_beside_it_sees_and_is_seen(desk, tmp_path):
    inside = desk.live().chosen[0]
    desk.redecide(Asked().locked(inside, "out"))
    week = desk.week
    next_week(desk.folder, ticked(desk.folder, week, tmp_path / "ticked.csv"))
    assert desk.week == week + 1
    assert inside not in desk.ledger().rounds[-1]["decided"]
    assert desk.live().title.endswith(f"week {week + 1}")


@pytest.mark.slow
def test_a_half_made_week_is_as_if_nothing_had_been_asked(desk, monkeypatch):
    before = desk.rows()
    import rmab_opt.programme.desk as module

    def dies(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_list", dies)
    with pytest.raises(KeyboardInterrupt):
        desk.redecide(Asked().locked(outside(desk), "in"))
    assert (desk.folder / STAGE).exists()
    again = Desk(desk.folder)
    again.settle()
    assert again.rows() == before
    assert again.draft() == Draft(week=again.week)
    monkeypatch.undo()
    assert again.redecide(Asked()).chosen


@pytest.mark.slow
def test_an_erased_person_is_in_no_note_and_a_locked_one_is_named(desk):
    name, other = outside(desk), desk.rows()[0]["id"]
    desk.note(lambda draft: draft.model_copy(update={"state": {name: "away"}, "done": {other: "yes"}}))
    desk.redecide(Asked().locked(name, "in"))
    with pytest.raises(ModelError, match="lift the lock"):
        erase(desk.folder, name)
    desk.redecide(Asked())
    erase(desk.folder, name)
    assert name not in (desk.folder / "this_week.json").read_text(encoding="utf-8")
    assert desk.draft().done == {other: "yes"}


def test_a_shipped_model_gets_a_folder_of_its_own_and_rounds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = begin_desk("weekly_calls")
    assert begin_desk("weekly_calls") == home
    desk = Desk(home)
    desk.settle()
    week, rows = desk.week, desk.rows()
    assert {row["id"] for row in rows} == set(desk.document()["action"])
    out = next(name for name in desk.members() if name not in {row["id"] for row in rows})
    assert out in desk.redecide(Asked().locked(out, "in")).chosen
    sheet = tmp_path / "outcomes.csv"
    sheet.write_text(desk.draft().outcomes([row["id"] for row in desk.rows()]), encoding="utf-8")
    desk.record(sheet)
    assert desk.week == week + 1
    assert len(desk.ledger().rounds) == 1


def test_placed_visits_agree_with_trying_every_way():
    """Every action is judged as a search over all assignments judges it, whoever is placed where."""
    rng = np.random.default_rng(3)
    shifts = [("Ada", "mon", 1), ("Ada", "tue", 1), ("Bo", "mon", 2), ("Cy", "tue", 1)]
    roster = Table(
        {key: [str(row[k]) for row in shifts] for k, key in enumerate(("worker", "slot", "calls"))}, source="r"
    )
    names = [f"p{k}" for k in range(5)]
    for _ in range(12):
        slots = [[slot for slot in ("mon", "tue") if rng.random() < 0.7] or ["mon"] for _ in names]
        arms = Arms(Table({"id": names, "slots": [";".join(own) for own in slots]}, source="a"))
        moved = {}
        for k in rng.choice(5, size=2, replace=False):
            ways = [shift for shift in shifts if shift[1] in slots[k]]
            moved[int(k)] = ways[rng.integers(len(ways))][:2]
        rows = [[names[k], *place] for k, place in moved.items()]
        placed = Table({key: [row[i] for row in rows] for i, key in enumerate(("id", "worker", "slot"))}, source="m")
        kind = Scheduling(roster=roster, placed=placed)
        actions = ActionSet(Columns(arms), {"roster": kind})
        for bits in product((0, 1), repeat=5):
            action = np.array(bits)
            chosen = np.flatnonzero(action)
            ways = [[s for s in shifts if s[1] in slots[k] and (k not in moved or s[:2] == moved[k])] for k in chosen]
            possible = any(
                all(sum(one == shift for one in way) <= shift[2] for shift in shifts) for way in product(*ways)
            )
            assert actions.allows(action) == possible
            if possible:
                rows_ = actions.assignment(action)
                assert actions.misassigned(rows_, action) is None
                at = {row["column"]: (row["worker"], row["slot"]) for row in rows_}
                assert all(at[names[k]] == moved[k] for k in chosen if k in moved)


def test_a_table_of_moves_that_cannot_be_is_refused_by_row():
    roster = Table({"worker": ["Ada"], "slot": ["mon"]}, source="r")
    arms = Arms(Table({"id": ["a", "b"], "slots": ["mon", "mon"]}, source="a"))
    placed = Table({"id": ["a", "a"], "worker": ["Ada", "Bo"], "slot": ["mon", "mon"]}, source="moves.csv")
    with pytest.raises(ModelError, match=r"moves\.csv.*'Bo'"):
        ActionSet(Columns(arms), {"roster": Scheduling(roster=roster, placed=placed)})


def test_a_price_is_what_one_more_adds_at_most_and_one_less_costs_at_least(desk):
    """A second method: the week is decided again with another limit."""
    prices = {one.row: one.price for one in desk.prices() if one.limit == "roster"}
    assert prices
    now, more, less = (desk.worth(change) for change in ("", "calls=Bo:4", "calls=Bo:2"))
    # Bo works in one slot, anywhere: only the slot as a whole has more of him.
    assert more - now <= prices["tue-pm"] + 1e-9
    assert now - less >= prices["tue-pm"] - 1e-9
    assert prices["tue-pm"] > 0.0
    assert [one.price for one in desk.prices()] == sorted(prices.values(), reverse=True)


@pytest.mark.slow
def test_limits_of_a_model_are_priced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = begin_desk("weekly_calls")
    desk = Desk(home)
    desk.settle()
    at_most = {one.limit: one.price for one in desk.prices() if not one.least}
    now = desk.live()
    for limit, price in at_most.items():
        settings = desk.model().settings["constraints"][limit]
        if price is not None and isinstance(settings.get("at_most"), int):
            assert desk.worth(f"{limit}={settings['at_most'] + 1}") - now.value <= price + now.gap + 1e-9
    assert at_most


def test_how_sure_the_list_is_stays_and_is_worked_out_again(desk):
    first = desk.sure()
    assert set(first) == set(desk.live().chosen)
    name, gone = outside(desk), desk.live().chosen[0]
    made = desk.redecide(Asked().locked(name, "in").locked(gone, "out"))
    kept = desk.sure()
    assert kept == {one: share for one, share in first.items() if one in made.chosen}
    rows = desk.rows()
    assert desk.resure()
    assert sorted(map(str, desk.rows())) != sorted(map(str, rows)) or desk.sure() == kept
    assert set(desk.sure()) == set(made.chosen) - {name}
    assert [row["sure"] for row in desk.rows() if row["id"] == name] == [""]
    assert {row["id"]: (row["worker"], row["slot"]) for row in desk.rows()} == {
        row["id"]: (row["worker"], row["slot"]) for row in rows
    }
    # The same list is as sure as it was when it was made.
    desk.redecide(Asked())
    assert desk.resure()
    assert desk.sure() == first


def test_learning_curves_of_the_runs_in_the_folder(desk):
    run = desk.folder / "runs" / "dqn"
    run.mkdir(parents=True)
    (run / "log.jsonl").write_text('{"episode": 1, "reward": 2.5}\n{"episode": 2, "reward": 3}\n', encoding="utf-8")
    assert desk.learning() == {"own/runs/dqn": [(1.0, 2.5), (2.0, 3.0)]}


@pytest.mark.parametrize("large", [False, True])
def test_prices_are_told_by_slot_whether_the_roster_is_a_program_or_rows(desk, monkeypatch, large):
    """Above so many pairs of member and shift a roster has no program of its own; its rows say the same."""
    known = {(one.limit, one.row): one.price for one in desk.prices()}
    if large:
        monkeypatch.setattr("rmab_opt.actions.kinds.scheduling.LARGE", 1)
    other = Desk(desk.folder)
    assert (other.model().actions.outer is not None) == large
    found = other.prices()
    assert found
    assert all(one.row and "cut" not in one.row for one in found if one.limit == "roster")
    assert sum(one.price * one.amount for one in found) == pytest.approx(
        sum(price * one.amount for one, price in zip(desk.prices(), known.values(), strict=True)), rel=1e-6
    )
