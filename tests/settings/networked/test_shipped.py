"""The setting's shipped models solve their own checks, and the examples of its page run."""

from __future__ import annotations

import pytest
from shipped import examples, models_of, run_example, solves_its_check


@pytest.mark.parametrize("name", models_of("networked"))
def test_a_shipped_model_solves_its_own_check(name):
    solves_its_check(name)


@pytest.mark.parametrize(("page", "number", "code"), examples(["networked"]))
def test_an_example_of_the_guide_runs(page, number, code):
    run_example(page, number, code)
