"""The recorded failing inputs, where they are found: beside the checkout, or where RMAB_CASES says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rmab_opt.registry import HIDDEN_BY

FOLDER = Path(os.environ.get("RMAB_CASES", Path(__file__).parents[2] / "shared" / "cases"))


HERE = pytest.mark.skipif(not (FOLDER / "run_cases.py").is_file(), reason="the recorded cases are not here")


def failed(*more: str) -> str:
    command = [sys.executable, str(FOLDER / "run_cases.py"), "--python", sys.executable, *more]
    # They ask for every setting, whatever is hidden from the tests beside them.
    around = {name: value for name, value in os.environ.items() if name != HIDDEN_BY}
    told = subprocess.run(command, capture_output=True, text=True, check=False, env=around)
    lines = [line for line in told.stdout.splitlines() if line.startswith("fail")]
    return "" if told.returncode == 0 else "\n".join(lines) + told.stderr + told.stdout[-500:]


@HERE
@pytest.mark.parametrize(
    "kind", ["yaml: hidden sizes", pytest.param("format: an unknown version", marks=pytest.mark.slow)]
)
def test_no_recorded_input_of_a_quick_kind_fails(kind):
    assert failed("--kind", kind) == ""


@pytest.mark.slow
@HERE
def test_no_recorded_input_fails():
    assert failed() == ""
