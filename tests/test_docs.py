"""The Python examples of the guide and of the docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import rmab_opt

DOCS = Path(__file__).resolve().parent.parent / "docs"
EXAMPLES = [
    (page.stem, number, code)
    for page in sorted(DOCS.glob("*.md"))
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S))
]
MODULES = [
    module.name
    for module in pkgutil.walk_packages(rmab_opt.__path__, "rmab_opt.")
    if ">>>" in Path(importlib.util.find_spec(module.name).origin).read_text(encoding="utf-8")
]


@pytest.mark.parametrize(("page", "number", "code"), EXAMPLES, ids=[f"{page}-{number}" for page, number, _ in EXAMPLES])
def test_an_example_of_the_guide_runs(page, number, code):
    exec(compile(code, f"{page}.md", "exec"), {"__name__": f"example_{page}_{number}"})
    assert code


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_print_what_they_say(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
