"""Every registered name of the kernel is held to the contract that users hold their own classes to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from amounts import amount
from contract_models import (
    BESIDE,
    CONSTRAINTS,
    DOMAINS,
    DYNAMICS,
    MORE_ARGUMENTS,
    NETWORKS,
    OBJECTIVES,
    POLICY_MODELS,
    cases,
    coupled_model,
    missing,
    plain_model,
    registered,
    roster_model,
)
from liars import Everything

import rmab_opt as ro
from rmab_opt.actions import Constraint
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Decision, LinearObjective, Model
from rmab_opt.decisions.policies import living
from rmab_opt.decisions.policy import make_policy
from rmab_opt.errors import RmabError
from rmab_opt.learning import DQNConfig, train
from rmab_opt.problem import Tabular
from rmab_opt.testing import (
    CONSTRAINT_PROMISES,
    DOMAIN_PROMISES,
    DYNAMICS_PROMISES,
    NETWORK_PROMISES,
    OBJECTIVE_PROMISES,
    POLICY_PROMISES,
    ContractError,
    check_constraint,
    check_domain,
    check_dynamics,
    check_network,
    check_objective,
    check_policy,
)
from rmab_opt.testing.examples import tabular

# Learners of another library train anew for every promise: theirs stand in tests/learning/test_outside.py.
POLICIES = {name: name for name in registered("policy", "") if name != "sb3"} | MORE_ARGUMENTS

ROSTERS = {"never_a_forbidden_action", "decisions_stand"}

TIED = {"hull_index", "id", "iterative_dqn", "lagrangian", "lp_index", "lp_priority", "lp_update"}
TIED |= {"occupancy_index", "random_assignment"}
"""Policies settled by linear programs or price searches with tolerances of their own: in another unit of reward, ties
and last digits may fall otherwise. A finished run keeps the unit that it was trained in."""


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("constraint", CONSTRAINTS),
        ("dynamics", DYNAMICS),
        ("objective", OBJECTIVES),
        ("network", NETWORKS),
        ("domain", DOMAINS),
    ],
)
def test_every_registered_name_has_an_example(kind, known):
    assert missing(kind, "", known) == (set(), set())


@pytest.mark.parametrize(("name", "promises"), cases(CONSTRAINTS, CONSTRAINT_PROMISES))
def test_constraints_keep_their_promises(name, promises):
    for constraint, columns in CONSTRAINTS[name]:
        check_constraint(constraint, columns, beside=BESIDE.get(name), promises=promises)


ALONE = {"season": {promise.__name__ for promise in DYNAMICS_PROMISES} - {"has_sizes"}}
"""Promises of arms that share no state; what a season promises stands in tests/planning/test_living.py."""


@pytest.mark.parametrize(("name", "promises"), cases(DYNAMICS, DYNAMICS_PROMISES, ALONE))
def test_dynamics_keep_their_promises(name, promises, tmp_path):
    for make in DYNAMICS[name]:
        check_dynamics(make(tmp_path), promises=promises)


@pytest.mark.parametrize(("name", "promises"), cases(OBJECTIVES, OBJECTIVE_PROMISES))
def test_objectives_keep_their_promises(name, promises, tmp_path):
    for make in OBJECTIVES[name]:
        objective, model = make(tmp_path)
        check_objective(objective, model, promises=promises)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("run")
    config = DQNConfig(episodes=2, hidden=(4,), head=2, pretrain_steps=3, batch=4, validation_episodes=0)
    train(plain_model(), config, out=folder)
    return str(folder)


SOME = ("hull_index", "improve", "lagrangian", "living", "myopic", "two_step")
"""Policies that the quick suite holds to their promises over rosters as well; the slow one all of them."""


@pytest.mark.parametrize(("name", "promises"), cases(POLICIES, POLICY_PROMISES))
def test_policies_keep_their_promises(name, promises, request, monkeypatch):
    if name == "iterative_dqn":
        given = f"iterative_dqn:{request.getfixturevalue('finished_run')}"
    else:
        given = POLICIES[name]
        # Rosters, with variables of their own, for what depends on how an action is found; by the prices of many arms.
        if POLICY_MODELS.get(name) is not coupled_model and name in amount(SOME, tuple(POLICIES)):
            with monkeypatch.context() as patch:
                patch.setattr(living, "fits_exactly", lambda course: False)
                check_policy(given, roster_model(), promises=[p for p in promises if p.__name__ in ROSTERS])
    check_policy(given, POLICY_MODELS.get(name, plain_model)(), scales=name not in TIED, promises=promises)


@pytest.mark.parametrize(("name", "promises"), cases(NETWORKS, NETWORK_PROMISES))
def test_networks_keep_their_promises(name, promises):
    check_network(name, NETWORKS[name](), promises=promises)


@pytest.mark.parametrize(("name", "promises"), cases(DOMAINS, DOMAIN_PROMISES))
def test_domains_keep_their_promises(name, promises):
    check_domain(name, DOMAINS[name], promises=promises)


# ------------------------------------------------------------------------------- the checks find what is broken
class _Lax(Constraint):
    """Rows allow one more than the check."""

    at_most: int = 2

    def build(self, block: Any, act: Any, columns: Any) -> None:
        block.limit = _pyo_limit(act, self.at_most + 1)

    def violations(self, action: np.ndarray, columns: Any) -> Iterator[str]:
        if action.sum() > self.at_most:
            yield f"{action.sum()} are chosen, limit {self.at_most}"

    def describe(self) -> str:
        return f"at most {self.at_most}"


def _pyo_limit(act: Any, most: int) -> Any:
    import pyomo.environ as pyo

    return pyo.Constraint(expr=sum(act[c] for c in act) <= most)


class _Monotone(Budget):
    """A lower limit that calls itself monotone."""

    def monotone(self, columns: Any) -> bool:
        return True


class _WrongTables(Tabular):
    """Tables with two next states swapped."""

    def tabular(self) -> tuple[np.ndarray, np.ndarray]:
        return self.transition[..., ::-1], self.reward


class _WrongReward(Tabular):
    def expected_reward(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        return super().expected_reward(state, action) + 0.01


class _Doubtful(LinearObjective):
    """Its evaluator forgets the constant."""

    def coefficients(self, situation: Any) -> tuple[np.ndarray, float]:
        return np.arange(len(situation.columns), dtype=float), 1.0

    def batch_value(self, actions: np.ndarray, situation: Any) -> np.ndarray:
        return np.asarray(actions, dtype=float) @ np.arange(len(situation.columns), dtype=float)


class _Forgetful:
    """Acts by a stream of its own."""

    name = "forgetful"

    def __init__(self, model: Model) -> None:
        self.inner, self.own = make_policy("random", model), np.random.default_rng()

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        return self.inner.decide(state, period, self.own)


def _faulty_tables(kind: type[Tabular]) -> Tabular:
    sound = tabular()
    return kind(sound.transition, sound.reward)


@pytest.mark.parametrize(
    ("check", "promise"),
    [
        (lambda: check_constraint(_Lax()), "rows_and_check_agree"),
        (lambda: check_constraint(_Monotone(at_least=1)), "monotone_means_it"),
        (lambda: check_dynamics(_faulty_tables(_WrongTables)), "tables_agree_with_steps"),
        (lambda: check_dynamics(_faulty_tables(_WrongReward)), "tables_agree_with_expected_rewards"),
        (lambda: check_objective(_Doubtful(), plain_model()), "value_is_the_expression"),
        (lambda: check_policy(Everything, plain_model()), "never_a_forbidden_action"),
        (lambda: check_policy(_Forgetful, plain_model()), "same_seed_same_actions"),
    ],
)
def test_a_broken_promise_is_found_and_named(check, promise):
    with pytest.raises(ContractError) as raised:
        check()
    assert raised.value.promise.startswith(promise)
    assert raised.value.thing.split()[0] in ("constraint", "dynamics", "objective", "policy")


def test_evaluate_refuses_a_policy_that_chooses_everything_and_claims_no_violations():
    """By its own check of the action: names the policy and the constraint."""
    model = plain_model()
    with pytest.raises(RmabError) as raised:
        ro.evaluate(model, [Everything(model)], episodes=2)
    assert "everything" in str(raised.value)
    assert "budget" in str(raised.value)


def test_checks_need_no_pytest():
    import subprocess
    import sys

    code = (
        "import sys\nfrom rmab_opt.testing import check_constraint, check_dynamics\n"
        "from rmab_opt.testing.examples import tabular\nfrom rmab_opt.actions.kinds import Budget\n"
        "check_constraint(Budget(at_most=2)); check_dynamics(tabular())\n"
        "print(sorted({'pytest', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
