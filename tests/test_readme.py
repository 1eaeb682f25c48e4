"""Every command and every Python example of the README runs as written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.S)


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("console") for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_readme_shows_the_two_commands():
    assert "make demo" in commands()
    assert "make test" in commands()


def test_the_first_example_is_the_journey_from_sheets_to_a_list():
    first = next(line for line in commands() if line.startswith("rmab-opt"))
    assert first.startswith("rmab-opt start ")


def test_the_commands_run_in_order_as_written(tmp_path):
    (tmp_path / "models").symlink_to(ROOT / "models", target_is_directory=True)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in commands():
        if command.startswith("make "):
            # `make demo` runs these very verbs and CI runs `make test`; here their recipes only have to exist.
            done = subprocess.run(
                ["make", "--dry-run", command.split()[1]], cwd=ROOT, capture_output=True, text=True, check=False
            )
        else:
            done = subprocess.run(
                shlex.split(command), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    lists = [(tmp_path / "calls" / "weeks" / f"week-{week}.csv").read_text(encoding="utf-8-sig") for week in (17, 18)]
    assert all(len(one.splitlines()) > 20 for one in lists)
    assert lists[0] != lists[1]
    assert (tmp_path / "calls" / "audit.html").is_file()
    assert (tmp_path / "out" / "week.csv").read_text(encoding="utf-8-sig").startswith("id,worker,slot")
    assert (tmp_path / "out" / "table" / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "run" / "learning.png").exists()


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_python_examples_run(number, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[number]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
