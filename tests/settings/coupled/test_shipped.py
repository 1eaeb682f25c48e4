"""The setting's shipped models solve their own checks, and the examples of its page run."""

from __future__ import annotations

import numpy as np
import pytest
from shipped import examples, models_of, run_example, solves_its_check

import rmab_opt as ro
from rmab_opt.decisions import decide
from rmab_opt.decisions.saved import verify


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
