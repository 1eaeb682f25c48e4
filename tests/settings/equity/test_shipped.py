"""The setting's shipped models solve their own checks, and the examples of its page run."""

from __future__ import annotations

import pytest
from shipped import DOCS, examples, models_of, run_example, run_page, solves_its_check


@pytest.mark.parametrize("name", models_of("equity"))
def test_a_shipped_model_solves_its_own_check(name):
    solves_its_check(name)


@pytest.mark.parametrize(("page", "number", "code"), examples(["equity"]))
def test_an_example_of_the_guide_runs(page, number, code):
    run_example(page, number, code)


@pytest.mark.slow
def test_the_commands_of_the_page_run_in_order_as_written(tmp_path, monkeypatch):
    run_page(DOCS / "equity.md", tmp_path, monkeypatch)
