"""Limits that depend on the round or on a shared value: templates that become plain numbers at a situation."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Knapsack, Linear
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.problem import Arms

ARMS = Arms.from_arrays(4, village=["n", "n", "s", "s"], cost=[1, 2, 3, 4])


@given(st.integers(0, 6), st.floats(0, 5), st.lists(st.integers(0, 1), min_size=4, max_size=4))
def test_a_template_is_the_plain_set_of_its_numbers(period, stock, action):
    by_round = [3, 0, 2]
    template = ActionSet(
        ARMS,
        {
            "season": Budget(at_most={"from": "stock"}),
            "north": Linear(where={"village": "n"}, at_most={"by_round": by_round}),
            "money": Knapsack(cost="cost", at_most={"by_round": [10, 3]}),
            "fixed": Budget(at_most=3),
        },
    )
    plain = ActionSet(
        ARMS,
        {
            "season": Budget(at_most=stock),
            "north": Linear(where={"village": "n"}, at_most=by_round[min(period, 2)]),
            "money": Knapsack(cost="cost", at_most=10 if period == 0 else 3),
            "fixed": Budget(at_most=3),
        },
    )
    now = template.at(period, {"stock": stock, "other": 1.0})
    assert now.describe() == plain.describe()
    assert now.violations(np.array(action)) == plain.violations(np.array(action))
    assert now.constraints["fixed"] is template.constraints["fixed"]


def test_equal_limits_are_one_set_and_plain_sets_are_themselves():
    template = ActionSet(ARMS, {"season": Budget(at_most={"from": "stock"})})
    first = template.at(0, {"stock": 2.0})
    assert template.at(5, {"stock": 2.0, "other": 3.0}) is first
    assert template.at(0, {"stock": 1.0}) is not first
    plain = ActionSet(ARMS, {"calls": Budget(at_most=2)})
    assert plain.at(3, {"stock": 1.0}) is plain
    for number in range(200):
        template.at(0, {"stock": float(number)})
    assert len(template._at) == 64
    assert pickle.loads(pickle.dumps(template)).at(0, {"stock": 2.0}).describe() == first.describe()


def test_a_template_is_described_but_never_taken_for_a_set():
    template = ActionSet(ARMS, {"season": Budget(at_least={"by_round": [1, 0]}, at_most={"from": "stock"})})
    assert template.describe() == {"season": "between 1, 0 by round and what is left of stock in one round"}
    for use in (
        lambda: template.violations(np.zeros(4)),
        lambda: template.plain_rows,
        lambda: template.sample(np.random.default_rng(0)),
    ):
        with pytest.raises(CapabilityError, match=r"by round|left of stock"):
            use()


def test_faults_name_constraint_field_and_value():
    template = ActionSet(ARMS, {"season": Budget(at_least={"by_round": [1, 3]}, at_most={"from": "stock"})})
    assert template.at(0, {"stock": 1.0}).allows(np.array([1, 0, 0, 0]))
    with pytest.raises(ModelError, match=r"constraints\.season: at_most: no shared value 'stock'(.|\n)*'stok'"):
        template.at(0, {"stok": 1.0})
    with pytest.raises(ModelError, match="these arms share no state"):
        template.at(0)
    with pytest.raises(ModelError, match=r"season: in round 2 .*at_least 3 is above at_most 2"):
        template.at(1, {"stock": 2.0})
    with pytest.raises(ModelError, match="at_most is -1"):
        ActionSet(ARMS, {"season": Budget(at_most={"from": "stock"})}).at(0, {"stock": -1.0})
    with pytest.raises(ModelError, match=r"money: in round 1 .*at_most is -2"):
        ActionSet(ARMS, {"money": Knapsack(cost="cost", at_most={"from": "m"})}).at(0, {"m": -2.0})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"form": "stock"}, "give a number, {from: NAME"),
        ({"from": ""}, "from: "),
        ({"from": "stock", "extra": 1}, "extra: "),
        ({"by_round": []}, "by_round: "),
        ({"by_round": [1, "x"]}, r"by_round\.1: "),
        ({"by_round": [float("nan")]}, r"by_round\.0: "),
        (float("inf"), "finite"),
        ("many", "valid number"),
        ("5", "valid number"),
        (True, "valid number"),
    ],
)
def test_a_limit_of_the_wrong_form_is_refused(given, words):
    with pytest.raises(ValidationError, match=words):
        Budget(at_most=given)


def test_limits_from_a_model_file_are_read():
    assert Budget.model_validate_json('{"at_most": {"from": "stock"}}', strict=True).at(0, {"stock": 3}).at_most == 3.0
    assert Budget.model_validate_json('{"at_most": {"by_round": [1, 2]}}', strict=True).at(9, {}).at_most == 2.0
    assert Budget.model_validate_json('{"at_most": 4}', strict=True).at_most == 4.0
