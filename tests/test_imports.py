"""The public names, the lazy top level and the direction of imports."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

import rmab_opt as ro
from rmab_opt import registry

ROOT = Path(__file__).resolve().parent.parent


def last_line(code: str) -> str:
    """What a process of its own prints last; it has to end well."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1] if done.stdout else ""


def test_the_ten_public_names_are_there():
    names = {"load", "Model", "Problem", "ActionSet", "Constraint", "decide", "Decision", "bound", "train", "evaluate"}
    assert names | {"show_versions", "__version__", "RmabError"} == set(ro.__all__)
    assert all(callable(getattr(ro, name)) for name in names)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ro.nothing


def test_the_top_level_loads_nothing_heavy():
    code = "import sys, rmab_opt; print(sorted({'torch', 'pyomo', 'numpy', 'highspy', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_checking_a_model_with_a_section_for_training_does_not_load_torch():
    code = (
        "import sys; sys.argv = ['rmab-opt', 'check', 'budget']\n"
        "from rmab_opt.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print('LOADED', sorted({'torch', 'gymnasium', 'matplotlib'} & set(sys.modules)))"
    )
    assert last_line(code) == "LOADED []"


def test_parts_of_scipy_that_pyomo_asks_for_in_advance_wait_until_they_are_used():
    code = (
        "import sys, rmab_opt, pyomo.environ\n"
        "from scipy import sparse, stats\n"
        "assert 'scipy.stats._stats_py' not in sys.modules\n"
        "assert abs(stats.norm.ppf(0.975) - 1.959964) < 1e-6\n"
        "assert 'scipy.stats._stats_py' in sys.modules\n"
        "from scipy.spatial.distance import pdist\n"
        "from scipy.stats.distributions import norm"
    )
    last_line(code)


def test_deciding_does_not_load_torch():
    code = (
        "import sys, rmab_opt as ro\nro.decide(ro.load('weekly_calls'))\n"
        "print(sorted({'torch', 'gymnasium', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


# Every verb but those of LEARNS with something small to do, in order; a programme takes longer.
WITHOUT_TORCH = """
models
kinds constraint
policies
schema
new budget m
check m/model.yaml
decide m/model.yaml --ledger ledger --new --out week.json
check m/model.yaml --decision week.json
record m/model.yaml --ledger ledger --decision week.json --outcomes seen.csv
bound m/model.yaml
evaluate m/model.yaml --policies myopic,none --episodes 1
trial --difference 0.1 --sd 0.3 --families 20
"""
A_PROGRAMME_WITHOUT_TORCH = """
new weekly_calls_sheets sheets
start sheets/register.csv --log sheets/call_log.csv --roster sheets/roster.csv --out calls --yes
next calls --outcomes calls/weeks/week-17.csv --register sheets/changes.csv
estimate sheets/call_log.csv --register sheets/register.csv --out estimate
audit calls
erase calls 0003
compare m/model.yaml --set budget=3
"""
LEARNS = {"train", "reproduce"}
"""Verbs that may load torch."""
ELSEWHERE = {"fit", "plan", "replan", "serve"}
"""Verbs of a setting, and the page that calls the others; not tried here."""


def runs_without_torch(lines: str, folder: Path) -> None:
    """Every line is answered in a process where torch cannot be imported."""
    code = (
        "import sys\nimport command_line\n\n"
        "class Refuses:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError('no torch here', name='torch')\n\n"
        "sys.meta_path.insert(0, Refuses())\n"
        "for line in sys.argv[1].split('\\n'):\n"
        "    answer = command_line.run(*line.split())\n"
        "    assert answer.code == 0, f'{line}: {answer.err}'\n"
        # Those that need it say so, and how it is installed.
        "answer = command_line.run('train', 'budget', '--out', 'run')\n"
        "assert answer.code == 2 and \"pip install 'rmab-opt[learn]'\" in answer.err, answer.err\n"
    )
    (folder / "seen.csv").write_text("id,done,state\n", encoding="utf-8")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", code, lines.strip()],
        capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_no_verb_but_those_that_learn_needs_torch(tmp_path):
    runs_without_torch(WITHOUT_TORCH, tmp_path)


@pytest.mark.slow
def test_a_programme_needs_no_torch(tmp_path):
    runs_without_torch("new budget m" + A_PROGRAMME_WITHOUT_TORCH, tmp_path)


def test_every_verb_is_tried_without_torch_or_learns():
    tried = {line.split()[0] for line in (WITHOUT_TORCH + A_PROGRAMME_WITHOUT_TORCH).split("\n") if line}
    assert tried | LEARNS | ELSEWHERE >= set(registry.names("verb"))


def test_imports_point_one_way():
    tool = Path(sys.executable).parent / "lint-imports"
    if not tool.exists():
        pytest.skip("import-linter is not installed here")
    done = subprocess.run([str(tool), "--no-cache"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout


def test_what_modules_import_at_their_top_is_a_declared_dependency():
    """Each package that a module needs to be imported stands in pyproject, so that a plain install brings it."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[<>=!~;\[ ]", each)[0].lower() for each in declared["dependencies"]}
    # Extras whose own modules are loaded only where the extra is asked for.
    names |= {"gymnasium", "jinja2", "starlette", "torch"}
    called = {"python-calamine": "python_calamine", "pyyaml": "yaml", "ruamel.yaml": "ruamel"}
    known = {called.get(name, name) for name in names} | set(sys.stdlib_module_names) | {"rmab_opt"}
    needed = {other.split(".")[0] for others in graph(inside=False).values() for other in others}
    assert needed <= known, needed - known


# ------------------------------------------------------------------------------------------------ the graph, by syntax
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "rmab_opt").rglob("*.py"))
}
RIM = ("rmab_opt.cli", "rmab_opt.page", "rmab_opt.programme")
TORCH_IN = (
    "rmab_opt.learning.",
    "rmab_opt.encoder.read.",
    "rmab_opt.settings.neural_index.",
    "rmab_opt.settings.coupled.reproduction",
)


def imported(nodes: list[ast.stmt], *, inside: bool) -> Iterator[str]:
    """Modules that statements import when run; with ``inside``, those of functions too; not for annotations."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)
        elif isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from imported([*node.body, *node.orelse], inside=inside)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not inside:
            continue
        else:
            for name in ("body", "orelse", "finalbody", "handlers"):
                part = getattr(node, name, None)
                yield from imported(part if isinstance(part, list) else [], inside=inside)


@functools.cache
def read(*, inside: bool) -> dict[str, frozenset[str]]:
    return {
        name: frozenset(imported(ast.parse(path.read_text(encoding="utf-8")).body, inside=inside))
        for name, path in MODULES.items()
    }


def graph(*, inside: bool) -> dict[str, set[str]]:
    return {name: set(others) for name, others in read(inside=inside).items()}


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    own = nx.DiGraph((name, other) for name, others in edges.items() for other in others if other in MODULES)
    return [sorted(part) for part in nx.strongly_connected_components(own) if len(part) > 1]


def test_the_graph_sees_what_it_should():
    """The judge judged: it reads top-level imports, skips annotations and functions, and finds a circle."""
    text = (
        "import numpy\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
        "try:\n    import onnx\nexcept ImportError:\n    import rich\n"
        "class A:\n    import yaml\n    def f(self):\n        from rmab_opt.actions import columns\n"
    )
    body = ast.parse(text).body
    assert set(imported(body, inside=False)) == {"numpy", "typing", "onnx", "rich", "yaml"}
    assert set(imported(body, inside=True)) == {"numpy", "typing", "onnx", "rich", "yaml", "rmab_opt.actions.columns"}
    first, second = list(MODULES)[1:3]
    assert circles({first: {second}, second: {first}}) == [sorted((first, second))]


def test_no_module_imports_itself_in_a_circle():
    assert circles(graph(inside=False)) == []


def test_imports_inside_functions_make_no_circle_but_the_readers_of_networks():
    """`Network.from_torch` and its like are one line each, for readers that build networks."""
    edges = graph(inside=True)
    edges["rmab_opt.encoder.network"] -= {name for name in MODULES if name.startswith("rmab_opt.encoder.read.")}
    # So are the hooks by which contact graphs hand over to what is built on them.
    edges["rmab_opt.settings.networked.cascade"] -= {
        f"rmab_opt.settings.networked.{name}" for name in ("bound", "contacts", "rollouts")
    }
    assert circles(edges) == []


def test_the_kernel_never_imports_a_setting():
    """Not even inside a function; the command line and the pages stand on the rim, above the settings."""
    wrong = {
        (name, other)
        for name, others in graph(inside=True).items()
        for other in others
        if not name.startswith(("rmab_opt.settings", *RIM)) and f"{other}.".startswith("rmab_opt.settings.")
    }
    assert wrong == set()


def test_a_setting_imports_no_other_setting():
    """Each can be deleted alone."""
    wrong = {
        (name, other)
        for name, others in graph(inside=True).items()
        for other in others
        if name.startswith("rmab_opt.settings.") and other.startswith("rmab_opt.settings.")
        if name.split(".")[2] != other.split(".")[2]
    }
    assert wrong == set()


def test_torch_is_imported_where_networks_live_only():
    users = {
        name for name, others in graph(inside=True).items() if any(other.split(".")[0] == "torch" for other in others)
    }
    assert "rmab_opt.learning.networks" in users
    assert {name for name in users if not name.startswith(TORCH_IN) and not name.endswith(".networks")} == set()


def test_the_page_has_parts_of_scipy_whole_before_its_threads_begin():
    code = (
        "import sys\nfrom rmab_opt._startup import PARTS, load_whole\nload_whole()\n"
        "assert {type(sys.modules[name]).__name__ for name in PARTS} == {'module'}\n"
        "assert 'scipy.optimize._minimize' in sys.modules"
    )
    last_line(code)


def test_a_large_set_is_checked_without_pyomo_and_optimizers():
    code = (
        "import sys; sys.argv = ['rmab-opt', 'check', 'budget', '--set', 'n_arms=6000']\n"
        "from rmab_opt.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print('LOADED', sorted({'pyomo', 'scipy.optimize._minimize', 'scipy.special'} & set(sys.modules)))"
    )
    assert last_line(code) == "LOADED []"
