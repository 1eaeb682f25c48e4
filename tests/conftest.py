"""Shared settings of the test run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
# The command line is started hundreds of times: compiling the package anew each time would cost more than most tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.path.insert(0, str(Path(__file__).parent))

import amounts
import pytest
from hypothesis import HealthCheck, settings

sys.dont_write_bytecode = False

settings.register_profile(
    "repo",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("repo")


def pytest_configure(config: pytest.Config) -> None:
    amounts.QUICK = "not slow" in config.option.markexpr
