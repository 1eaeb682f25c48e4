"""Which setting a shipped model, a page of the guide and a module belong to, and how their examples are run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import command_line
import pytest

import rmab_opt
from rmab_opt import registry
from rmab_opt.catalog import check_model, model_folder
from rmab_opt.catalog.files import locate
from rmab_opt.catalog.yaml_text import read_yaml
from rmab_opt.errors import ModelError

DOCS = Path(__file__).resolve().parent.parent / "docs"


def _names(content: dict) -> list[tuple[str, object]]:
    """Kind and name of everything that a model file names."""
    problem, objective = content["problem"], content.get("objective", {})
    named = [("domain", problem.get("domain")), ("dynamics", problem.get("dynamics", {}).get("kind"))]
    named += [("objective", objective.get("kind")), ("columns", content.get("columns"))]
    named += [("constraint", rule.get("kind")) for rule in content.get("constraints", {}).values()]
    sections = {
        "format",
        "title",
        "about",
        "source",
        "problem",
        "constraints",
        "columns",
        "objective",
        "solver",
        "check",
    }
    return [pair for pair in named if pair[1] is not None] + [
        ("section", key) for key in content if key not in sections
    ]


def settings_of(model: str) -> set[str]:
    """Settings that a shipped model stands on, hidden or not; empty for the kernel's own."""
    found = set()
    for kind, name in _names(read_yaml(locate(model))[0]):
        try:
            found.add(registry.find(kind, name).setting)
        except ModelError as error:
            found |= set(error.needs)
    return found - {""}


def models_of(setting: str) -> list[str]:
    """Names of the shipped models of a setting; of the kernel's own for the empty name."""
    folder = model_folder()
    paths = sorted([*folder.glob("*.yaml"), *folder.glob("*/model.yaml")])
    names = [path.parent.name if path.name == "model.yaml" else path.stem for path in paths]
    return [name for name in names if settings_of(name) == ({setting} - {""})]


def solves_its_check(model: str) -> None:
    """A shipped model's own regression test."""
    stated, enumerated, decided = check_model(model)
    assert enumerated == pytest.approx(stated, abs=1e-4)
    assert decided == pytest.approx(enumerated, abs=1e-7)


def examples(pages: list[str]) -> list:
    """The Python examples of some pages of the guide, as parameters (page, number, code)."""
    return [
        pytest.param(page, number, code, id=f"{page}-{number}")
        for page in pages
        for number, code in enumerate(
            re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(encoding="utf-8"), flags=re.S)
        )
    ]


def run_example(page: str, number: int, code: str) -> None:
    """One example, as written."""
    exec(compile(code, f"{page}.md", "exec"), {"__name__": f"example_{page}_{number}"})


def commands(text: str) -> list[str]:
    """The commands that a page shows, in order: the lines of its blocks called console, without their comments."""
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.S)
    lines = [re.split(r"\s+#(?:\s|$)", line)[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def run_page(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of a page in order, in an empty folder that holds the files which the page shows with a title."""
    text = path.read_text(encoding="utf-8")
    for name, content in re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', text, flags=re.S):
        (folder / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(folder)
    for command in commands(text):
        run_command(command)


def run_command(command: str) -> None:
    """One command in the folder we stand in; of ``make`` only that the recipe exists, of scripts that they start."""
    tool, *arguments = shlex.split(command)
    if tool == "rmab-opt":
        answer = command_line.run(*arguments)
        assert answer.code == 0, f"{command}\n{answer.err}"
        return
    assert tool in ("make", "python"), f"{command}: not run by the suite"
    told = ["make", "--dry-run", *arguments] if tool == "make" else [sys.executable, arguments[0], "--help"]
    done = subprocess.run(told, cwd=DOCS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr}"


def modules_with_doctests(setting: str) -> list[str]:
    """Modules of a setting, or of everything but settings, whose docstrings have examples."""
    inside = f"{registry.GROUP}.{setting}."
    return [
        module.name
        for module in pkgutil.walk_packages(rmab_opt.__path__, "rmab_opt.")
        if (module.name.startswith(inside) if setting else not module.name.startswith(f"{registry.GROUP}."))
        and ">>>" in Path(importlib.util.find_spec(module.name).origin).read_text(encoding="utf-8")
    ]


def run_doctests(module: str) -> None:
    """The examples of a module's docstrings print what they say."""
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0
