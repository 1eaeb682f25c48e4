"""The setting's shipped models solve their own checks, and the examples of its page run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shipped import examples, models_of, run_example, solves_its_check

import rmab_opt as ro
from rmab_opt.decisions import Chooser, decide
from rmab_opt.decisions.saved import verify
from rmab_opt.solver import load_profile


@pytest.mark.parametrize("name", models_of("coupled"))
def test_a_shipped_model_solves_its_own_check(name):
    solves_its_check(name)


@pytest.mark.parametrize(("page", "number", "code"), examples(["coupled"]))
def test_an_example_of_the_guide_runs(page, number, code):
    run_example(page, number, code)


def test_a_program_whose_numbers_are_parameters_is_verified():
    """The state's numbers are set in a kept program: the checker's own program must hold them too."""
    model = ro.load("crowding")
    made = decide(model, np.zeros(model.problem.n_arms, dtype=int))
    assert verify(made, model.problem, model.actions, model.objective).exit_code == 0


@pytest.mark.parametrize("seed", range(4))
def test_prices_prove_crowded_visits_whatever_the_state(seed):
    """The program's relaxation is exact a worker: its value is the best of all actions, proven without a list."""
    model = ro.load("crowding", n_arms=12, n_workers=3, seed=seed)
    state = np.random.default_rng(seed).integers(0, 2, 12)
    profile = replace(load_profile("default"), proof_seconds=0.0)
    chooser = Chooser(model.problem, model.actions, model.objective, profile, method="program", many=False)
    made = chooser.decide(state)
    assert made.proof.kind == "prices"
    assert made.status == "optimal"
    listed = model.actions.enumerate()
    situation = chooser.question(state).situation
    assert made.value == pytest.approx(model.objective.batch_value(listed, situation).max(), rel=1e-9)
