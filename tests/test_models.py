"""Each shipped model of the kernel solves its own check; the wheel holds models and profiles."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from shipped import models_of, solves_its_check

import rmab_opt as ro
from rmab_opt import registry
from rmab_opt.catalog import model_names
from rmab_opt.errors import ModelError
from rmab_opt.solver import profile_names

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", models_of(""))
def test_a_shipped_model_solves_its_own_check(name):
    solves_its_check(name)


def test_every_shipped_model_is_the_kernels_or_one_settings():
    """So that each is checked here or with its setting."""
    owned = [name for setting in ["", *registry.settings()] for name in models_of(setting)]
    assert sorted(owned) == model_names()


def test_values_of_a_file_are_overridden_by_short_or_whole_names():
    assert ro.load("scheduling", n_arms=12).problem.n_arms == 12
    assert ro.load("scheduling", **{"problem.n_arms": 13}).problem.n_arms == 13
    assert ro.load("weekly_calls", **{"weekly.at_most": 5}).actions.constraints["weekly"].at_most == 5
    with pytest.raises(ModelError, match="stands in several places"):
        ro.load("weekly_calls", at_most=3)


def test_the_committed_tables_are_what_their_script_makes(tmp_path, monkeypatch):
    sys.path.insert(0, str(ROOT / "scripts"))
    import make_weekly_calls

    monkeypatch.setattr(make_weekly_calls, "FOLDER", tmp_path)
    make_weekly_calls.main()
    for table in tmp_path.iterdir():
        assert table.read_text() == (ROOT / "models" / "weekly_calls" / table.name).read_text()


def test_a_built_wheel_loads_every_model_and_profile(tmp_path):
    """An editable install sees the source tree; only a wheel shows whether the data is packed."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    if "No module named" in done.stderr or "Missing dependencies" in done.stdout + done.stderr:
        pytest.skip("hatchling is not installed here")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        assert "rmab_opt/py.typed" in archive.namelist()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import rmab_opt; from rmab_opt.catalog import load, model_names\n"
        "from rmab_opt.solver import load_profile, profile_names\n"
        "assert rmab_opt.__file__.startswith(sys.argv[1]), rmab_opt.__file__\n"
        "[load(name) for name in sys.argv[2:]]; [load_profile(name) for name in profile_names()]\n"
        "print(*model_names(), *profile_names())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "site"), *models_of("")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [*model_names(), *profile_names()]
