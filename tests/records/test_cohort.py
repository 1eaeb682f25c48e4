"""A cohort by id: events may come in any order of rows, happen once, and only to whom they can happen."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rmab_opt.errors import ModelError
from rmab_opt.records import Cohort

IDS = ["ana", "ben", "cleo", "dev"]


def test_a_season(tmp_path):
    cohort = Cohort(tmp_path)
    cohort.join({"ben": {"village": "north"}, "ana": {"village": "south"}, "cleo": {}})
    cohort.pause(["ana"], 2)
    cohort.leave(["ben"], 2)
    cohort.resume(["ana"], 4)
    cohort.join(["ben"], 5)
    again = Cohort(tmp_path)
    told = [(m.active, m.paused) for m in (again.members(period) for period in range(6))]
    everybody = (("ana", "ben", "cleo"), ())
    assert told == [
        everybody,
        everybody,
        (("cleo",), ("ana",)),
        (("cleo",), ("ana",)),
        (("ana", "cleo"), ()),
        everybody,
    ]
    assert again.members(3).attributes == {"ana": {"village": "south"}, "cleo": {}}


@settings(max_examples=20)
@given(order=st.permutations(IDS))
def test_the_order_of_rows_never_matters(tmp_path_factory, order):
    folder, other = tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
    for place, ids in ((folder, order), (other, IDS)):
        Cohort(place).join({name: {"n": name} for name in ids})
    assert (folder / "member-0001.json").read_bytes() == (other / "member-0001.json").read_bytes()


def test_what_cannot_have_happened_is_refused_and_everybody_named(tmp_path):
    cohort = Cohort(tmp_path)
    cohort.join(["ana", "ben"])
    with pytest.raises(ModelError) as caught:
        cohort.join(["ana", "ben", "cleo", "cleo", ""], 1)
    for part in ("'ana' is active", "'ben' is active", "'cleo' stands twice", "an id is empty"):
        assert part in str(caught.value)
    with pytest.raises(ModelError, match="'cleo' is absent in round 2"):
        cohort.leave(["cleo"], 1)
    with pytest.raises(ModelError, match="'ana' is active"):
        cohort.resume(["ana"], 1)
    cohort.pause(["ana"], 3)
    with pytest.raises(ModelError, match="known up to round 4"):
        cohort.leave(["ben"], 2)
    assert len(Cohort(tmp_path).log) == 2


def test_a_repeated_command_changes_nothing(tmp_path):
    cohort = Cohort(tmp_path)
    for _ in range(3):
        cohort.join(["ana", "ben"])
    Cohort(tmp_path).join(["ben", "ana"])
    assert len(Cohort(tmp_path).log) == 1
    cohort.leave(["ana"], 0)
    cohort.leave(["ben"], 0)
    cohort.join(["ana", "ben"], 0)
    assert len(Cohort(tmp_path).log) == 4


class Season(RuleBasedStateMachine):
    """Against a plain dictionary; the folder is read anew for every step, as after a crash."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.kept = tempfile.TemporaryDirectory()
        self.period, self.known = 0, {}

    @rule(event=st.sampled_from(["join", "leave", "pause", "resume"]), name=st.sampled_from(IDS), later=st.booleans())
    def happen(self, event: str, name: str, later: bool) -> None:
        period = self.period + later
        now = self.known.get(name)
        possible = {"join": now is None, "leave": now is not None, "pause": now == "active", "resume": now == "paused"}
        becomes = {"join": "active", "leave": None, "pause": "paused", "resume": "active"}[event]
        cohort = Cohort(self.kept.name)
        if possible[event]:
            cohort.add(event, [name], period)
            self.known[name], self.period = becomes, period
        elif now != becomes:
            with pytest.raises(ModelError):
                cohort.add(event, [name], period)

    @invariant()
    def the_folder_agrees(self) -> None:
        told = Cohort(self.kept.name).members()
        for word in ("active", "paused"):
            assert list(getattr(told, word)) == sorted(name for name, now in self.known.items() if now == word)

    def teardown(self) -> None:
        self.kept.cleanup()


TestSeason = Season.TestCase
TestSeason.settings = settings(max_examples=15, stateful_step_count=12)
