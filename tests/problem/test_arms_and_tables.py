"""Tables keep text as text and name row, column and value of what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from rmab_opt.errors import ModelError
from rmab_opt.problem import Arms, Problem, Table, Tabular


def write(tmp_path, text: str):
    path = tmp_path / "arms.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_times_stay_text_and_numbers_are_numbers_when_asked(tmp_path):
    table = Table.from_csv(write(tmp_path, "# a note\nid;time;cost\np1;9:30;2,5\np2;10:00;3\n"))
    assert table.text("time") == ["9:30", "10:00"]
    assert table.numbers("cost").tolist() == [2.5, 3.0]
    with pytest.raises(ModelError, match=r"arms.csv:3: time: '9:30' is not a number"):
        table.numbers("time")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("id,cost\np1,1,2\n", "arms.csv:2: 3 cells, the header has 2"),
        ("id,id\np1,p2\n", "column 'id' stands twice"),
        ("id,\np1,p2\n", "column 2 has no name"),
        ("id,cost\np1,1\n\np1,2\n", "arms.csv:4: id 'p1' stands in row 2 already"),
        ("id,cost\n,1\n", "arms.csv:2: id is missing"),
        ("name,cost\np1,1\n", "no column 'id'"),
        ("id\n", "holds no arm"),
    ],
)
def test_broken_tables_name_the_place(tmp_path, text, message):
    with pytest.raises(ModelError) as caught:
        Arms.from_csv(write(tmp_path, text))
    assert message in str(caught.value)


def test_all_faults_of_a_column_are_reported_at_once():
    table = Table({"cost": ["1", "x", "inf", "4"]}, source="t")
    with pytest.raises(ModelError) as caught:
        table.numbers("cost")
    assert "t:2: cost: 'x'" in str(caught.value)
    assert "t:3: cost: 'inf'" in str(caught.value)


def test_numbers_outside_a_range_are_refused_even_when_read_before():
    table = Table({"cost": ["1", "-2"]}, source="t")
    assert table.numbers("cost").tolist() == [1.0, -2.0]
    with pytest.raises(ModelError, match="t:2: cost: -2 is outside"):
        table.numbers("cost", minimum=0.0)
    # The ends of a range belong to it.
    assert table.numbers("cost", minimum=-2.0, maximum=1.0).tolist() == [1.0, -2.0]
    for ends in ({"minimum": np.nextafter(-2.0, 0.0)}, {"maximum": np.nextafter(1.0, 0.0)}):
        with pytest.raises(ModelError, match="is outside"):
            table.numbers("cost", **ends)


def test_groups_and_positions_follow_the_rows():
    arms = Arms.from_arrays(["a", "b", "c"], village=["n", "s", "n"])
    assert {key: value.tolist() for key, value in arms.groups("village").items()} == {"n": [0, 2], "s": [1]}
    assert arms.indices(["c", "a"]).tolist() == [2, 0]
    with pytest.raises(ModelError, match=r"did you mean 'b'|known: a, b, c"):
        arms.index("bb")


def problem() -> Problem:
    return Problem(
        Arms.from_arrays(["a", "b"]), Tabular(np.full((2, 2, 2, 2), 0.5), np.zeros((2, 2)), state_names=("bad", "good"))
    )


def test_a_state_table_is_read_by_id_in_any_order():
    assert problem().read_state(Table({"id": ["b", "a"], "state": ["good", "0"]})).tolist() == [0, 1]


def test_every_wrong_row_of_a_state_table_is_named():
    table = Table(
        {"id": ["a", "x", "a", "", "b"], "state": ["good", "bad", "bad", "bad", "9:30"]},
        source="monday.csv",
        first_row=2,
    )
    with pytest.raises(ModelError) as caught:
        problem().read_state(table)
    text = str(caught.value)
    assert "monday.csv:3: no arm 'x'" in text
    assert "monday.csv:4: arm 'a' stands twice" in text
    assert "monday.csv:5: id is missing" in text
    assert "monday.csv:6: state of arm 'b' is '9:30'" in text


def test_missing_arms_in_a_state_table_are_counted():
    with pytest.raises(ModelError, match=r"no state for 1 of 2 arms \(b\)"):
        problem().read_state(Table({"id": ["a"], "state": ["bad"]}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"horizon": 0}, "horizon is 0"),
        ({"discount": 0.0}, "discount is 0.0"),
        ({"discount": float("nan")}, "discount is nan"),
        ({"start": np.array([0, 2])}, "start: arm 'b' is in state 2"),
        ({"start": np.array([0, 0, 0])}, "start has shape"),
        ({"start": np.full((2, 3), 1 / 3)}, "start has shape (2, 3)"),
        ({"start": np.full((1, 2, 2), 0.5)}, "start has shape (1, 2, 2)"),
        ({"start": np.array([[0.5, 0.5], [0.7, 0.7]])}, "start: probabilities of arm 'b'"),
        ({"start": np.array(["x", "y"])}, "start holds"),
    ],
)
def test_problem_refuses_what_is_out_of_range(change, message):
    base = problem()
    with pytest.raises(ModelError) as caught:
        Problem(base.arms, base.dynamics, **{"horizon": 3, **change})
    assert message in str(caught.value)
