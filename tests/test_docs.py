"""The Python examples of the guide and of the docstrings run; pages of a setting are tested with the setting."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys

import pytest
import typer
from shipped import DOCS, commands, examples, modules_with_doctests, run_doctests, run_example, run_page, settings_of

from rmab_opt import cli, registry
from rmab_opt.catalog import model_names

PAGES = sorted(page.stem for page in DOCS.glob("*.md") if page.stem not in registry.settings())


@pytest.mark.parametrize(("page", "number", "code"), examples(PAGES))
def test_an_example_of_the_guide_runs(page, number, code):
    run_example(page, number, code)


# What the README shows of sheets is on the programme's page too, and is run from there by the slow suite. What the page
# on decisions shows of ledgers is in tests/programme/test_ledger.py with fewer simulated runs.
WITH_COMMANDS = [
    pytest.param(page, marks=[pytest.mark.slow] if page in ("programme", "how_to", "decisions") else [])
    for page in PAGES
    if commands((DOCS / f"{page}.md").read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_of_a_page_run_in_order_as_written(page, tmp_path, monkeypatch):
    run_page(DOCS / f"{page}.md", tmp_path, monkeypatch)


def test_every_command_that_a_text_mentions_is_known_with_its_options():
    """Commands in sentences and in blocks that are not run: their verbs and options exist."""
    verbs = typer.main.get_command(cli._application()).commands
    for path in [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]:
        for command in re.findall(r"(?m)(?:^    |^|`)rmab-opt ([^`\n]*)", path.read_text(encoding="utf-8")):
            words = command.split("  #")[0].split()
            if not words or words[0] in ("is", "reads") or words[0].startswith("-"):
                continue
            assert words[0] in verbs, f"{path.name}: rmab-opt {command}"
            options = {option for each in verbs[words[0]].params for option in each.opts + each.secondary_opts}
            unknown = [word for word in words if word.startswith("--") and word not in options | {"--help"}]
            assert not unknown, f"{path.name}: rmab-opt {command}: {unknown}"


@pytest.mark.parametrize("name", modules_with_doctests(""))
def test_the_examples_in_docstrings_print_what_they_say(name):
    run_doctests(name)


def test_the_tables_of_registered_things_are_up_to_date():
    """What scripts/registry_tables.py would write, up to rows of settings that are hidden here."""
    kinds = ["constraint", "columns", "dynamics", "domain", "objective", "policy"]
    # In a process of its own: other tests register kinds.
    code = (
        "import json, sys\nfrom registry_tables import table\n"
        "print(json.dumps({kind: table(kind) for kind in sys.argv[1:]}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *kinds], capture_output=True, text=True, check=True, cwd=DOCS.parent / "scripts"
    )
    tables = json.loads(done.stdout)
    found = {
        kind: block.splitlines()
        for page in DOCS.glob("*.md")
        for kind, block in re.findall(
            r"<!-- registry: (\w+) -->\n(.*?)<!-- end -->", page.read_text("utf-8"), flags=re.S
        )
    }
    assert sorted(found) == sorted(kinds)
    for kind, rows in found.items():
        shown = [row for row in rows if not any(f"[{name}](" in row for name in registry.hidden_settings())]
        assert shown == tables[kind], "run scripts/registry_tables.py"


def test_the_table_of_what_is_read_is_up_to_date():
    pytest.importorskip("onnx")
    script = runpy.run_path(str(DOCS.parent / "scripts" / "registry_tables.py"))
    page = (DOCS / "encoder.md").read_text("utf-8")
    shown = re.findall(r"<!-- readers -->\n(.*?)<!-- end -->", page, flags=re.S)
    assert [block.splitlines() for block in shown] == [script["readers"]()], "run scripts/registry_tables.py"


def test_the_gallery_has_every_shipped_model_as_it_is():
    section = runpy.run_path(str(DOCS.parent / "scripts" / "gallery.py"))["section"]
    page = (DOCS / "gallery.md").read_text("utf-8")
    blocks = {block.partition("\n")[0]: f"## {block}".strip() for block in page.split("\n## ")[1:]}
    assert sorted(blocks) == model_names()
    for name, block in blocks.items():
        if not settings_of(name) & registry.hidden_settings():
            assert block.splitlines() == section(name), "run scripts/gallery.py"


def test_the_tables_of_size_and_limits_are_those_of_the_records():
    script = runpy.run_path(str(DOCS.parent / "scripts" / "scale_tables.py"))
    page = (DOCS / "decisions.md").read_text("utf-8")
    for name in ("scale", "limits"):
        block = re.findall(rf"<!-- {name} -->\n(.*?)<!-- end -->", page, flags=re.S)
        assert [part.splitlines() for part in block] == [script[name]()], "run scripts/scale_tables.py"
