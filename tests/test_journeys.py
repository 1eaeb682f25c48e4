"""A newcomer's first ten minutes, step by step (shared/design/journeys.md), and where the other journeys are tested."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from command_line import run

import rmab_opt as ro
from rmab_opt.actions import Constraint
from rmab_opt.errors import ModelError

VERBS = ("models", "new", "check", "decide", "train", "evaluate")


HERE = Path(__file__).parent
JOURNEYS = {
    "a newcomer's first ten minutes": (12, ["test_journeys.py"]),
    "a planner's week": (12, ["test_planners_week.py", "settings/equity/test_fairness.py"]),
    "a researcher's table": (11, ["test_researchers_table.py", "settings/equity/test_reproduced.py"]),
    "a programme's first hour": (10, ["test_first_hour.py"]),
    "an inspector's year": (3, ["settings/inspection/test_inspectors_year.py"]),
}
"""Steps of each journey, and the files that test them: ``test_step_NUMBER_...``."""


@pytest.mark.parametrize("journey", JOURNEYS)
def test_every_step_of_every_journey_is_one_test_with_its_number(journey):
    steps, files = JOURNEYS[journey]
    texts = [(HERE / file).read_text(encoding="utf-8") for file in files if (HERE / file).is_file()]
    found = sorted(int(number) for text in texts for number in re.findall(r"(?m)^def test_step_(\d+)_", text))
    assert found == list(range(1, steps + 1))


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("journey") / "demo"
    answer = run("new", "weekly_calls", folder)
    assert answer.code == 0, answer.err
    return folder


def decide(model: Path, *more: object) -> dict:
    answer = run("decide", model, "--solver", "exact", "--episodes", 0, "--json", *more)
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def test_step_1_it_installs_into_an_empty_environment_without_compiler_licence_or_account(tmp_path):
    """Of what pip does, all but the downloads: the wheel fits every machine, and stands in a new environment."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("pip is not installed here")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(HERE.parent)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    if "No module named" in done.stderr or "Missing dependencies" in done.stdout + done.stderr:
        pytest.skip("hatchling is not installed here")
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith((".so", ".pyd", ".c", ".pyx"))]
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        told = archive.read(metadata).decode().splitlines()
    needed = {re.split(r"[^\w.-]", line.removeprefix("Requires-Dist: "))[0] for line in told
              if line.startswith("Requires-Dist: ") and "extra ==" not in line}  # fmt: skip
    # Solvers that ask for a licence or an account are never needed, nor is torch, which is most of an installation.
    assert {"highspy", "pyomo"} <= needed
    assert not needed & {"gurobipy", "xpress", "cplex", "mosek", "torch"}
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "empty")], check=True)
    (binaries,) = [path for path in (tmp_path / "empty").iterdir() if path.name in ("bin", "Scripts")]
    python = next(path for path in binaries.iterdir() if path.stem == "python")
    install = [*pip, "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    command = next(path for path in binaries.iterdir() if path.stem == "rmab-opt")
    # What it stands on is not downloaded here: the modules of this environment are lent.
    around = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if "-packages" in p)}
    told = subprocess.run(
        [str(command), "models", "--json"], capture_output=True, text=True, check=True, env=around, cwd=tmp_path
    )
    assert {"budget", "weekly_calls"} <= {row["name"] for row in json.loads(told.stdout)}


def test_step_2_help_and_version_come_at_once_without_heavy_imports():
    code = (
        "import sys\nfrom rmab_opt import cli\nsys.argv = ['rmab-opt', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'pyomo', 'numpy', 'scipy', 'highspy', 'pydantic', 'networkx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in VERBS)
    # Not a speed test: an import of torch or Pyomo alone would take longer than this generous limit.
    assert time.perf_counter() - began < 30
    assert run("--version").out == f"rmab-opt {ro.__version__}\n"


def test_step_3_models_are_listed_with_title_size_and_source():
    rows = json.loads(run("models", "--json").out)
    assert {"budget", "capacity", "scheduling", "weekly_calls"} <= {row["name"] for row in rows}
    own = [row for row in rows if "needs" not in row]
    assert all(row["title"] and row["arms"] > 0 and row["source"] for row in own)


def test_step_4_new_writes_a_model_and_commented_tables(demo):
    # Hidden: the note of what was written here.
    names = {path.name for path in demo.iterdir() if not path.name.startswith(".")}
    tables = {"model.yaml", "arms.csv", "roster.csv", "transitions.csv", "monday.csv"}
    # The schema is for editors: they complete and check the model file with it.
    assert names == tables | {"schema.json"}
    assert all((demo / name).read_text().startswith("#") for name in tables)
    assert run("new", "weekly_calls", demo).code == 2


def test_step_5_check_says_what_the_model_holds(demo):
    answer = run("check", demo / "model.yaml")
    assert answer.code == 0
    for part in ("at most 30 in one round", "staffed by 6 workers", "at least 2 arms for every village", "ready"):
        assert part in answer.out


def test_step_6_decide_gives_a_list_with_a_certificate(demo):
    answer = run("decide", demo / "model.yaml", "--state", demo / "monday.csv", "--out", demo / "out" / "week.csv")
    assert answer.code == 0, answer.err
    for part in ("value", "bound", "gap", "tight", "re-checked  yes"):
        assert part in answer.out
    with (demo / "out" / "week.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert all(row["worker"] and row["slot"] for row in rows)


def test_step_7_more_calls_are_worth_no_less(demo):
    before = decide(demo / "model.yaml")
    after = decide(demo / "model.yaml", "--set", "constraints.weekly.at_most=32", "--set", "hours.at_most=600")
    assert after["value"] >= before["value"] - 1e-9
    assert len(after["action"]) == len(before["action"]) + 2 or after["tight"]


def test_step_8_a_typo_is_one_message_with_line_field_and_remedy(demo):
    text = (demo / "model.yaml").read_text()
    (demo / "typo.yaml").write_text(text.replace("at_most: 30", "at_mots: 30").replace("horizon: 12", "horizon: 0"))
    answer = run("check", demo / "typo.yaml")
    line = next(n for n, row in enumerate(text.splitlines(), start=1) if "at_most: 30" in row)
    assert answer.code == 2
    assert f"typo.yaml:{line}: constraints.weekly.at_mots: unknown key; to fix, did you mean 'at_most'?" in answer.err
    assert "problem.horizon" in answer.err
    assert "Traceback" not in answer.err


def test_step_9_a_clash_is_named_in_sentences(demo):
    text = (demo / "model.yaml").read_text()
    roster = "[{worker: asha, slot: mon-pm, region: north, calls: 2}]"
    text = text.replace("roster: roster.csv", f"roster: {roster}")
    text = text.replace(
        "villages: {kind: linear, per: village, at_least: 2}",
        "north_first: {kind: linear, where: {region: north}, at_least: 3}",
    )
    (demo / "clash.yaml").write_text(text)
    for verb in ("check", "decide"):
        answer = run(verb, demo / "clash.yaml")
        assert answer.code == 3
        assert "no action satisfies these two together" in answer.err
        assert "roster" in answer.err
        assert "at least 3 arms with region north" in answer.err
        assert "weekly " not in answer.err
    relaxed = decide(demo / "clash.yaml", "--relax", "north_first")
    assert relaxed["relaxed"] == "north_first"
    assert list(relaxed["violations"]) == ["north_first"]


def test_step_10_the_same_answer_in_three_lines_of_python(demo):
    model = ro.load(demo / "model.yaml")
    decision = ro.decide(model, state=demo / "monday.csv", solver="exact")
    assert "Decision · Weekly calls" in str(decision)
    told = decide(demo / "model.yaml", "--state", demo / "monday.csv", "--policy", "immediate")
    assert decision.value == pytest.approx(told["value"])
    assert list(decision.chosen) == told["action"]


def test_step_11_an_own_kind_works_in_python_and_in_yaml(demo):
    class AtMostPerRegion(Constraint, kind="journey_at_most_each"):
        attribute: str
        at_most: int

        def build(self, block, act, columns):
            @block.Constraint(list(columns.by(self.attribute)))
            def limit(_, value):
                return sum(act[c] for c in columns.by(self.attribute)[value]) <= self.at_most

        def violations(self, action, columns):
            for value, members in columns.by(self.attribute).items():
                if action[members].sum() > self.at_most:
                    yield f"{action[members].sum()} chosen in {value}, limit {self.at_most}"

        def describe(self):
            return f"at most {self.at_most} arms per {self.attribute}"

    text = (demo / "model.yaml").read_text()
    (demo / "own.yaml").write_text(
        text.replace(
            "constraints: ", "constraints:\n  each: {kind: journey_at_most_each, attribute: region, at_most: 14}\n#"
        )
    )
    decision = ro.decide(ro.load(demo / "own.yaml"))
    regions = np.array(ro.load(demo / "own.yaml").problem.arms.text("region"))
    assert max(np.sum(regions[decision.action == 1] == r) for r in ("north", "south")) <= 14
    assert decision.tight["each"]
    with pytest.raises(ModelError, match=r"def violations\(self, action, columns\)"):

        class Half(Constraint, kind="journey_half"):
            def build(self, block, act, columns):
                pass

            def describe(self):
                return ""


def test_step_12_versions_for_a_bug_report():
    text = ro.show_versions()
    assert f"rmab-opt {ro.__version__}" in text
    assert "highspy 1." in text
