"""What version 0.1.0 wrote is read as it is: the files under ``fixtures/version_0_1`` were made by its command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import run
from shipped import settings_of

import rmab_opt as ro
from rmab_opt import registry

OLD = Path(__file__).parent / "fixtures" / "version_0_1"
FILES = sorted([*(OLD / "models").glob("*.yaml"), *(OLD / "models").glob("*/model.yaml")])
MODELS = [path for path in FILES if not settings_of(str(path)) & registry.hidden_settings()]


@pytest.fixture
def folder(tmp_path):
    """A copy, so that nothing is written beside the fixtures."""
    shutil.copytree(OLD, tmp_path / "old", ignore=shutil.ignore_patterns("models"))
    return tmp_path / "old"


@pytest.mark.parametrize("path", MODELS, ids=[path.relative_to(OLD / "models").parts[0] for path in MODELS])
def test_a_model_file_is_read(path):
    assert ro.load(path).problem.n_arms > 0


def test_a_saved_decision_is_checked(folder):
    done = run("check", folder / "model.yaml", "--decision", folder / "decision.json")
    # Constraints and value are computed again; files of format 1 hold no proof of the bound (exit code 5).
    assert done.code == 5, done.err
    assert "without a proof" in done.out


def test_a_ledger_goes_on(folder):
    done = run("decide", folder / "model.yaml", "--ledger", folder / "ledger", "--out", folder / "next.json")
    assert done.code == 0, done.err
    saved = json.loads((folder / "next.json").read_text())
    assert saved["period"] == 1
    # As it was observed: a is engaged, b and c are away.
    assert saved["state"] == [1, 0, 0]


def test_a_run_folder_decides(folder):
    done = run("evaluate", folder / "model.yaml", "--policies", folder / "run", "--episodes", "1", "--json")
    assert done.code == 0, done.err
    assert len(json.loads(done.out)["rows"]) == 1
