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
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        self.before = self.files()

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}

    def write(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BLOCKS[name], encoding="utf-8")
        return path

    def run(self, *arguments: object, module: str = "rmab_opt.cli", **variables: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(self.folder), **variables}
        command = [sys.executable, "-m", module, *map(str, arguments)]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    def said(self, *arguments: object) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def names(self, kind: str) -> list[str]:
        """What the registry lists, asked in the copy."""
        code = f"import json, rmab_opt.registry as r; print(json.dumps([r.__file__, r.names({kind!r})]))"
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=self.folder, env=environment, capture_output=True, text=True, check=True
        )
        place, names = json.loads(done.stdout)
        assert Path(place).is_relative_to(self.folder)
        return list(names)

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
    assert "one_of_each" not in copy.names("constraint")
    copy.write("rmab_opt/actions/kinds/one_of_each.py")
    assert "one_of_each" in copy.names("constraint")
    copy.said("new", "weekly_calls", tmp_path / "calls")
    file = tmp_path / "calls" / "model.yaml"
    line = re.search(r"`(homes: \{kind: one_of_each.*?\})`", PAGE.read_text(encoding="utf-8"))[1]
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("  hours: ", f"  {line}\n  hours: ", 1), encoding="utf-8")
    assert "at most 3 of each village" in copy.said("check", file)
    decided = json.loads(copy.said("decide", file, "--json"))
    villages = {
        row.split(",")[0]: row.split(",")[1] for row in (file.parent / "arms.csv").read_text().split("\n")[2:-1]
    }
    chosen = [villages[name] for name in decided["action"]]
    assert chosen
    assert max(chosen.count(village) for village in chosen) == 3
    broken = copy.run("check", file, "--set", "constraints.homes.attribute=vilage")
    assert broken.returncode == 2
    assert "did you mean 'village'" in broken.stderr
    assert copy.added() == {"rmab_opt/actions/kinds/one_of_each.py"}


def test_a_policy_is_one_file(copy):
    """Listed, with its argument checked; compared with others."""
    assert "worst_first" not in copy.names("policy")
    copy.write("rmab_opt/decisions/policies/worst_first.py")
    assert "worst_first" in copy.names("policy")
    rows = copy.said("evaluate", "budget", "--policies", "worst_first,worst_first:weight=2", "--episodes", 2, "--json")
    assert "worst_first:weight=2" in rows
    wrong = copy.run("evaluate", "budget", "--policies", "worst_first:weight=much")
    assert wrong.returncode == 2
    assert "weight: Input should be a valid number" in wrong.stderr
    assert copy.added() == {"rmab_opt/decisions/policies/worst_first.py"}


def test_a_setting_is_one_folder(copy, tmp_path):
    """Its domain and its policy are found; hidden, both say which setting they need."""
    folder = "rmab_opt/settings/gardens"
    for name in ("__init__.py", "instances.py", "policies.py"):
        copy.write(f"{folder}/{name}")
    assert "gardens" in copy.names("domain")
    assert "driest" in copy.names("policy")
    model = tmp_path / "model.yaml"
    model.write_text(BLOCKS["model.yaml"], encoding="utf-8")
    assert "6 of 2 states" in copy.said("check", model)
    assert len(json.loads(copy.said("decide", model, "--json"))["action"]) <= 2
    assert "driest" in copy.said("evaluate", model, "--policies", "driest,none", "--episodes", "2")
    for command in (("check", model), ("evaluate", "budget", "--policies", "driest")):
        hidden = copy.run(*command, RMAB_OPT_WITHOUT="gardens")
        assert hidden.returncode == 2
        assert "needs the setting gardens" in hidden.stderr
    assert copy.added() == {f"{folder}/{name}" for name in ("__init__.py", "instances.py", "policies.py")}
