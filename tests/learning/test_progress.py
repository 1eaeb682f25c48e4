"""How far training and evaluation have come is shown on a terminal and in a notebook, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rmab_opt.progress import watch

WORK = """
import sys
import rmab_opt as ro
from rmab_opt.learning.config import DQNConfig

model = ro.load("budget", n_arms=6, **{"problem.horizon": 3})
ro.evaluate(model, ["none", "myopic"], episodes=2, bound=False)
ro.train(model, DQNConfig(episodes=2, hidden=(4,), validations=1, validation_episodes=0), out=sys.argv[1])
"""

PARTS = [WORK.partition("ro.train")[0], pytest.param(WORK, marks=pytest.mark.slow)]
"""Evaluation alone, which loads no torch; and training after it."""


def on_a_terminal(folder: Path, work: str) -> tuple[str, str]:
    """What the work shows on a terminal, and what it writes to stdout."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", work, str(folder)], stdout=subprocess.PIPE, stderr=theirs, stdin=theirs, check=False
    )
    os.close(theirs)
    shown = b""
    # A terminal that everybody left says so by an error of its own.
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:
        pass
    os.close(ours)
    assert done.returncode == 0, shown.decode()
    return shown.decode(), done.stdout.decode()


@pytest.mark.parametrize("work", PARTS)
def test_a_terminal_shows_a_bar_and_the_answer_stays_alone(tmp_path, work):
    shown, answer = on_a_terminal(tmp_path / "run", work)
    assert "evaluating myopic" in shown
    assert "6/6" in shown
    assert work != WORK or "training · reward" in shown
    assert work != WORK or "2/2" in shown
    assert answer == ""


@pytest.mark.parametrize("work", PARTS)
def test_a_pipe_stays_quiet(tmp_path, work):
    done = subprocess.run(
        [sys.executable, "-c", work, str(tmp_path / "run")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


class Terminal:
    """A stream that takes itself for a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


def test_one_bar_at_a_time_and_none_where_it_is_not_wanted(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with watch("unwanted", quiet=True) as tell:
        tell("quiet", advance=1)
    assert screen.text == ""
    with watch("outer", 2) as tell:
        tell("[red]outer[/red]", advance=1)
        with watch("inner") as inner:
            inner("inner", advance=1)
        tell(advance=1)
    assert "inner" not in screen.text
    assert "[red]outer[/red]" in screen.text
    assert "2/2" in screen.text


def test_a_notebook_keeps_the_last_line():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    code = (
        "from rmab_opt.progress import watch\n"
        "with watch('training', 3) as tell:\n"
        "    for _ in range(3):\n"
        "        tell('training <b>', advance=1)\n"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    (shown,) = book.cells[0].outputs
    assert shown.data["text/plain"] == "training <b> · 3 of 3"
    assert shown.data["text/html"] == '<progress max="3" value="3"></progress> training &lt;b&gt; · 3 of 3'
