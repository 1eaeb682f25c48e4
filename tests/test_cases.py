"""The recorded failing inputs, where they are found: beside the checkout, or where RMAB_CASES says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("RMAB_CASES", Path(__file__).parents[2] / "shared" / "cases"))


@pytest.mark.slow
@pytest.mark.skipif(not (FOLDER / "run_cases.py").is_file(), reason="the recorded cases are not here")
def test_no_recorded_input_fails():
    command = [sys.executable, str(FOLDER / "run_cases.py"), "--python", sys.executable]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    failed = [line for line in told.stdout.splitlines() if line.startswith("fail")]
    assert told.returncode == 0, "\n".join(failed) + told.stderr
