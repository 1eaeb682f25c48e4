"""Runs the command line inside the test process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
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


TOGETHER = """\
import json, sys
import command_line
print(json.dumps([vars(command_line.run(*words)) for words in json.loads(sys.argv[1])]))
"""


def together(*commands: list[object], first: Path | None = None, **around: str) -> list[Answer]:
    """What each command answers, one after the other in one process of its own: starts cost more than most verbs.

    ``first`` is where it stands, and looked in first when modules are imported; ``around`` is its environment.
    """
    path = [*([str(first)] if first else []), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    path += [str(Path(__file__).resolve().parent), os.getcwd()]
    done = subprocess.run(
        [sys.executable, "-c", TOGETHER, json.dumps([[str(word) for word in words] for words in commands])],
        cwd=first,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), **around},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [Answer(**each) for each in json.loads(done.stdout)]


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
