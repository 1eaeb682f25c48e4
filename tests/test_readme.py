"""Every command and every Python example of the README runs as written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from shipped import DOCS, commands, run_command

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.S)


def test_the_readme_shows_the_two_commands():
    assert "make demo" in commands(TEXT)
    assert "make test" in commands(TEXT)


def test_the_first_example_is_the_journey_from_sheets_to_a_list():
    first, second = [line for line in commands(TEXT) if line.startswith("rmab-opt")][:2]
    assert first.startswith("rmab-opt new weekly_calls_sheets ")
    assert second.startswith("rmab-opt start ")


# Training takes half of the time of all; the slow suite runs it and what follows from it.
@pytest.mark.parametrize("with_training", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_commands_run_in_order_as_written(tmp_path, monkeypatch, with_training):
    monkeypatch.chdir(tmp_path)
    # The week from sheets is run where it is told at length.
    elsewhere = commands((DOCS / "programme.md").read_text(encoding="utf-8"))
    for command in commands(TEXT):
        if command not in elsewhere and (with_training or "out/run" not in command):
            run_command(command)
    assert (tmp_path / "out" / "week.csv").read_text(encoding="utf-8-sig").startswith("id,worker,slot")
    if with_training:
        assert (tmp_path / "out" / "table" / "evaluation.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "out" / "run" / "learning.png").exists()


# The first one does in Python what the commands do, which the quick suite runs.
@pytest.mark.parametrize("number", [pytest.param(0, marks=pytest.mark.slow), *range(1, len(blocks("python")))])
def test_the_python_examples_run(number, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[number]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
