"""Runs the command line inside the test process."""

from __future__ import annotations

import contextlib
import io
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
