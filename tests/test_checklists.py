"""The checklists of CONTRIBUTING.md, performed from nothing: each block is written into a copy of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Answer, together

from rmab_opt.catalog import copy_model

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "CONTRIBUTING.md"
if not PAGE.exists():
    pytest.skip("the guide for contributors is not part of this installation", allow_module_level=True)
BLOCKS = dict(re.findall(r"^```\w+\n# file: (\S+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.S | re.M))


class Copy:
    """A copy of the package's tree, with the command line run from it and from nowhere else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in ("rmab_opt", "models", "solvers_cfg"):
            # With what was compiled: files keep their times.
            shutil.copytree(ROOT / part, folder / part)
        self.before = self.files()

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}

    def write(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BLOCKS[name], encoding="utf-8")
        return path

    def answers(self, *commands: list[object], **variables: str) -> list[Answer]:
        """What commands answer, run one after the other in one process of the copy."""
        return together(*commands, first=self.folder, **variables)

    def said(self, *commands: list[object]) -> list[str]:
        """The same of commands that succeed."""
        answers = self.answers(*commands)
        for done in answers:
            assert done.code == 0, done.err
        return [done.out for done in answers]

    def names(self, *kinds: str) -> list[list[str]]:
        """What the registry lists, asked in the copy."""
        code = (
            "import json, rmab_opt.registry as r; "
            f"print(json.dumps([r.__file__, [list(r.names(kind)) for kind in {kinds!r}]]))"
        )
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=self.folder, env=environment, capture_output=True, text=True, check=True
        )
        place, names = json.loads(done.stdout)
        assert Path(place).is_relative_to(self.folder)
        return names

    def added(self) -> set[str]:
        """Files that are new; no other may have changed."""
        now = self.files()
        assert {name: text for name, text in now.items() if name in self.before} == self.before
        return set(now) - set(self.before)


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path / "tree")


def test_every_block_is_performed_here():
    assert set(BLOCKS) == {
        "rmab_opt/actions/kinds/one_of_each.py",
        "rmab_opt/decisions/policies/worst_first.py",
        "rmab_opt/settings/gardens/__init__.py",
        "rmab_opt/settings/gardens/instances.py",
        "rmab_opt/settings/gardens/policies.py",
        "model.yaml",
    }


def test_a_constraint_kind_is_one_file(copy, tmp_path):
    """Listed, checked, decided with; its sentence and its verdict are there."""
    assert "one_of_each" not in copy.names("constraint")[0]
    copy.write("rmab_opt/actions/kinds/one_of_each.py")
    assert "one_of_each" in copy.names("constraint")[0]
    copy_model("weekly_calls", tmp_path / "calls")
    file = tmp_path / "calls" / "model.yaml"
    line = re.search(r"`(homes: \{kind: one_of_each.*?\})`", PAGE.read_text(encoding="utf-8"))[1]
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("  hours: ", f"  {line}\n  hours: ", 1), encoding="utf-8")
    checked, decided, broken = copy.answers(
        ["check", file],
        ["decide", file, "--episodes", 0, "--json"],
        ["check", file, "--set", "constraints.homes.attribute=vilage"],
    )
    assert checked.code == decided.code == 0, checked.err + decided.err
    assert "at most 3 of each village" in checked.out
    villages = {
        row.split(",")[0]: row.split(",")[1] for row in (file.parent / "arms.csv").read_text().split("\n")[2:-1]
    }
    chosen = [villages[name] for name in json.loads(decided.out)["action"]]
    assert chosen
    assert max(chosen.count(village) for village in chosen) == 3
    assert broken.code == 2
    assert "did you mean 'village'" in broken.err
    assert copy.added() == {"rmab_opt/actions/kinds/one_of_each.py"}


@pytest.mark.slow
def test_a_policy_is_one_file(copy):
    """Listed, with its argument checked; compared with others."""
    assert "worst_first" not in copy.names("policy")[0]
    copy.write("rmab_opt/decisions/policies/worst_first.py")
    assert "worst_first" in copy.names("policy")[0]
    compare = ("evaluate", "budget", "--policies")
    rows, wrong = copy.answers(
        [*compare, "worst_first,worst_first:weight=2", "--episodes", 2, "--no-bound", "--json"],
        [*compare, "worst_first:weight=much"],
    )
    assert rows.code == 0, rows.err
    assert "worst_first:weight=2" in rows.out
    assert wrong.code == 2
    assert "weight: Input should be a valid number" in wrong.err
    assert copy.added() == {"rmab_opt/decisions/policies/worst_first.py"}


@pytest.mark.slow
def test_a_setting_is_one_folder(copy, tmp_path):
    """Its domain and its policy are found; hidden, both say which setting they need."""
    folder = "rmab_opt/settings/gardens"
    for name in ("__init__.py", "instances.py", "policies.py"):
        copy.write(f"{folder}/{name}")
    domains, policies = copy.names("domain", "policy")
    assert "gardens" in domains
    assert "driest" in policies
    model = tmp_path / "model.yaml"
    model.write_text(BLOCKS["model.yaml"], encoding="utf-8")
    checked, decided, compared = copy.said(
        ["check", model],
        ["decide", model, "--json"],
        ["evaluate", model, "--policies", "driest,none", "--episodes", "2"],
    )
    assert "6 of 2 states" in checked
    assert len(json.loads(decided)["action"]) <= 2
    assert "driest" in compared
    commands = ["check", model], ["evaluate", "budget", "--policies", "driest"]
    for hidden in copy.answers(*commands, RMAB_OPT_WITHOUT="gardens"):
        assert hidden.code == 2
        assert "needs the setting gardens" in hidden.err
    assert copy.added() == {f"{folder}/{name}" for name in ("__init__.py", "instances.py", "policies.py")}
