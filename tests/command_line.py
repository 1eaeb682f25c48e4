"""Runs the command line inside the test process."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from dataclasses import dataclass
from unittest import mock

from rmab_opt import cli


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


def run(*arguments: object) -> Answer:
    """Exit code, standard output and standard error of ``rmab-opt ARGUMENTS``."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["rmab-opt", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Answer(code, out.getvalue(), err.getvalue())


BARE = """\
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("highspy", "torch"):
            raise ImportError(name + " is not here")

sys.meta_path.insert(0, Absent())
from rmab_opt.cli import main
for words in {commands!r}:
    sys.argv = ["rmab-opt", *words]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


def without_solver_and_torch(*commands: list[object]) -> str:
    """What these commands print, one after the other, in a process that can import neither; all of them succeed."""
    code = BARE.format(commands=[[str(word) for word in words] for words in commands])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
