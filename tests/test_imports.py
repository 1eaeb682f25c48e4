"""The public names, the lazy top level and the direction of imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rmab_opt as ro

ROOT = Path(__file__).resolve().parent.parent


def test_the_ten_public_names_are_there():
    names = {"load", "Model", "Problem", "ActionSet", "Constraint", "decide", "Decision", "bound", "train", "evaluate"}
    assert names | {"show_versions", "__version__"} == set(ro.__all__)
    assert all(callable(getattr(ro, name)) for name in names)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ro.nothing


def test_the_top_level_loads_nothing_heavy():
    code = "import sys, rmab_opt; print(sorted({'torch', 'pyomo', 'numpy', 'highspy', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_deciding_does_not_load_torch():
    code = (
        "import sys, rmab_opt as ro\nro.decide(ro.load('weekly_calls'))\n"
        "print(sorted({'torch', 'gymnasium', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_imports_point_one_way():
    tool = Path(sys.executable).parent / "lint-imports"
    if not tool.exists():
        pytest.skip("import-linter is not installed here")
    done = subprocess.run([str(tool), "--no-cache"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout
