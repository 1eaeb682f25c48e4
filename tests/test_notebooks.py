"""The tutorials' notebooks run, and the pages beside them are what they show."""

from __future__ import annotations

import re
import runpy

import pytest
from shipped import DOCS

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
SCRIPT = runpy.run_path(str(DOCS.parent / "scripts" / "notebooks.py"))
NAMES = SCRIPT["names"]()


def without_times(outputs: list) -> list[str]:
    """What is shown, without figures: seconds differ, and versions; the words around them may not."""
    texts = [output.get("text") or output.data.get("text/html") or output.data["text/plain"] for output in outputs]
    return [re.sub(r"[-\d.,e%+ ]+", " ", text) for text in texts]


def test_there_are_three_tutorials():
    assert NAMES == ["own_constraint_and_policy", "own_network", "planners_week"]


@pytest.mark.parametrize("name", NAMES)
def test_the_page_is_what_the_notebook_shows_and_every_cell_was_run(name):
    book = nbformat.read(DOCS / "tutorials" / f"{name}.ipynb", as_version=4)
    assert SCRIPT["page"](name, book) == (DOCS / "tutorials" / f"{name}.md").read_text("utf-8")
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert "/tmp" not in str(book)
    assert "<table>" in str(book) or name == "own_network"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_again_and_shows_the_same(name):
    book = nbformat.read(DOCS / "tutorials" / f"{name}.ipynb", as_version=4)
    again = SCRIPT["executed"](name)
    for before, after in zip(book.cells, again.cells, strict=True):
        assert without_times(after.get("outputs", [])) == without_times(before.get("outputs", [])), before.source
