"""Bound files: any prices bound the joint optimum, honest files pass, every changed field is named or refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from strategies import tabular

from rmab_opt.actions import ActionSet, Columns
from rmab_opt.actions.kinds import Budget, Conflict, Knapsack
from rmab_opt.decisions import Model, bound, save_bound, verify_bound
from rmab_opt.decisions.bounds import Proven, proven_value
from rmab_opt.decisions.proof import packed, rows_of_set
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.planning import joint_optimum
from rmab_opt.problem import Arms, Problem, Table


def three_arms(seed: int, scale: float = 1.0, discount: float = 0.8, by_round: bool = False) -> Model:
    rng = np.random.default_rng(seed)
    arms = Arms.from_arrays(3, cost=rng.integers(1, 5, 3).tolist())
    problem = Problem(arms, tabular(3, 2, 2, rng), horizon=4, discount=discount, start=np.zeros(3, int))
    problem = replace(problem, dynamics=type(problem.dynamics)(*scaled_tables(problem, scale)))
    limit = {"by_round": [2, 1, 0, 1]} if by_round else int(rng.integers(1, 3))
    kinds = {"weekly": Budget(at_most=limit), "hours": Knapsack(cost="cost", at_most=5)}
    kinds["apart"] = Conflict(groups=[["arm0", "arm2"]])
    chosen = ["weekly", *rng.choice(["hours", "apart"], rng.integers(0, 3), replace=False)]
    return Model(problem, ActionSet(arms, {name: kinds[name] for name in chosen}), title="three")


def scaled_tables(problem: Problem, scale: float):
    transition, reward = problem.dynamics.tabular()
    return transition, reward * scale


def by_backward_induction(model: Model) -> float:
    """The best policy's value by the joint table of 2^3 states, with each round's own limits."""
    problem = model.problem
    transition, reward = problem.dynamics.tabular()
    states = np.array(np.unravel_index(np.arange(8), (2, 2, 2))).T
    every = np.array(np.unravel_index(np.arange(8), (2, 2, 2))).T
    value, arm = np.zeros(8), np.arange(3)
    for t in range(problem.horizon - 1, -1, -1):
        allowed = [a for a in every if model.actions.at(t).allows(a)]
        now = np.full(8, -np.inf)
        for k, state in enumerate(states):
            for action in allowed:
                rows = transition[arm, action, state]
                ahead = np.einsum("i,j,k->ijk", *rows).ravel() @ value
                now[k] = max(now[k], reward[arm, state, action].sum() + problem.discount * ahead)
        value = now
    return float(value[0])


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(k, marks=pytest.mark.slow) for k in range(4, 200))])
def test_any_prices_bound_the_joint_optimum(seed):
    model = three_arms(seed)
    best = joint_optimum(model.problem, model.actions).value
    assert by_backward_induction(model) == pytest.approx(best)
    rng = np.random.default_rng(seed)
    rows = len(rows_of_set(model.actions).row_lower)
    start = model.problem.start_distribution
    for scale in (0.0, 0.1, 1.0, 50.0):
        prices = scale * rng.normal(size=(4, 3, 2))
        for rents in ("rows", "listing"):
            own = scale * rng.normal(size=(4, rows)) if rents == "rows" else None
            value, _ = proven_value(model, Proven("time_indexed", prices, rents, own, 4, 0.8, start))
            assert value >= best
    for options in ({"method": "dual"}, {"method": "highs"}, {"coupling": "hull"}):
        if options.get("method") == "dual" and "hours" in model.actions.constraints:
            continue
        text, value = save_bound(model, bound(model, **options))
        assert value >= best
        assert verify_bound(json.loads(text), model).exit_code == 0


def test_limits_that_change_by_round_bound_their_own_round():
    """A rent taken one round late lies below the best policy here."""
    model = three_arms(3, by_round=True)
    best = by_backward_induction(model)
    rng = np.random.default_rng(0)
    for _ in range(20):
        prices = rng.random((4, 3, 2)) * [[[0.0, 1.0]]]
        value, _ = proven_value(
            model, Proven("time_indexed", prices, "listing", None, 4, 0.8, model.problem.start_distribution)
        )
        assert value >= best


@pytest.mark.parametrize("kind", ["discounted", "discounted_tail", "average"])
def test_endless_runs(kind):
    model = three_arms(1)
    found = bound(model, kind=kind)
    text, value = save_bound(model, found)
    assert value == pytest.approx(found.value, rel=1e-6)
    assert value >= found.lower
    assert verify_bound(json.loads(text), model).exit_code == 0


def test_powers_of_two_change_no_bit():
    seen = set()
    for k in (-40, -13, 0, 7, 40):
        model = three_arms(2, 2.0**k)
        document = json.loads(save_bound(model, bound(model))[0])
        seen.add(
            (document["value"] / 2.0**k, document["arm_prices"], document["row_prices"], document["unit"] / 2.0**k)
        )
    assert len(seen) == 1


def judged(document: dict, model: Model) -> tuple[int, str]:
    """(exit code, what is said) of the check."""
    try:
        verdict = verify_bound(document, model)
    except ModelError as error:
        return 2, str(error)
    return verdict.exit_code, str(verdict)


def changed(honest: dict) -> dict[str, object]:
    """Another value of every field."""
    prices = np.zeros(4 * 3)
    found: dict[str, object] = {
        "format": 2,
        "what": "decision",
        "title": "four",
        "value": honest["value"] * (1 - 1e-7),
        "said": honest["said"] - 1,
        "kind": "average",
        "method": "pyomo",
        "coupling": "hull",
        "unit": 2 * honest["unit"],
        "horizon": 3,
        "discount": 0.7,
        "state": [1, 0, 0],
        "ids": ["arm0", "arm1", "arm9"],
        "rents": "listing",
        "rounds": 3,
        "arm_prices": packed(prices, "<f8"),
        "row_prices": packed(np.zeros(4), "<f8"),
        "digests": {**honest["digests"], "rows": "0" * 64},
    }
    assert set(found) == set(honest)
    return found


def test_every_changed_field_is_refused():
    model = three_arms(2)
    honest = json.loads(save_bound(model, bound(model))[0])
    assert verify_bound(honest, model).exit_code == 0
    for field, value in changed(honest).items():
        code, text = judged({**honest, field: value}, model)
        assert code in (2, 4), field
        assert code == 4 or field in text or field in ("what", "format")
    for wild in ({**honest, "value": "x"}, {**honest, "extra": 1}, {k: v for k, v in honest.items() if k != "unit"}):
        assert judged(wild, model)[0] == 2
    for pack in ("AAAA", "!", packed(np.full(12, np.nan), "<f8")):
        code, text = judged({**honest, "arm_prices": pack}, model)
        assert code in (2, 4)
        assert "arm_prices" in text


def test_random_digits():
    model = three_arms(2)
    text = save_bound(model, bound(model))[0]
    rng, refused = np.random.default_rng(0), 0
    places = [i for i, sign in enumerate(text) if sign.isdigit()]
    for place in rng.choice(places, 60, replace=False).tolist():
        other = text[:place] + str((int(text[place]) + 1 + int(rng.integers(9))) % 10) + text[place + 1 :]
        if json.loads(other) == json.loads(text):
            continue
        code, _ = judged(json.loads(other), model)
        # The last digits of the value lie within what another machine may sum otherwise.
        near = abs(json.loads(other)["value"] - json.loads(text)["value"]) < 3e-8
        refused += code in (2, 4)
        assert code in (2, 4) or near, other[max(0, place - 40) : place + 20]
    assert refused > 40


def test_another_model_and_a_calendar_are_refused():
    model = three_arms(2)
    honest = json.loads(save_bound(model, bound(model))[0])
    assert "digests" in str(verify_bound(honest, three_arms(4)))
    looser = replace(model, actions=ActionSet(model.actions.columns.arms, {"weekly": Budget(at_most=3)}))
    assert "digests" in str(verify_bound(honest, looser))
    found = replace(bound(model), coupling="the plan's own program")
    with pytest.raises(CapabilityError):
        save_bound(model, found)


def test_columns_that_share_arms_are_bounded_by_levels(monkeypatch):
    rng = np.random.default_rng(0)
    arms = Arms.from_arrays(3)
    problem = Problem(arms, tabular(3, 2, 3, rng), horizon=3, start=np.zeros(3, int))
    effect = sparse.csr_array(np.array([[1.0, 1, 0], [0, 1, 1], [1, 0, 0], [0, 0, 1]]))
    columns = Columns(arms, Table({"id": ["a", "b", "c", "d"]}), effect)
    model = Model(problem, ActionSet(columns, {"two": Budget(at_most=2)}))
    best = joint_optimum(problem, model.actions).value
    found = bound(model)
    for listed in (True, False):
        with monkeypatch.context() as patch:
            if not listed:
                patch.setitem(model.actions.__dict__, "listed", None)
            text, value = save_bound(model, found)
            assert verify_bound(json.loads(text), model).exit_code == 0
        assert json.loads(text)["rents"] == ("listing" if listed else "rows")
        assert value >= best
        # Levels relaxed to fractions are worth more than any list of actions; the file says so.
        assert value == pytest.approx(found.value) if listed else value > found.value
