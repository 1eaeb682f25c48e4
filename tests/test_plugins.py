"""A third party's kind, policy, verb and model, by ``--plugin`` and by an entry point."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run, together

PLUGIN = '''\
"""Pairs: a setting from elsewhere."""
from rmab_opt.actions.kinds import Budget
from rmab_opt.cli.common import say
from rmab_opt.decisions.policy import make_policy
from rmab_opt.registry import register

class Pairs(Budget, kind="acme_pairs"):
    """Twice as many columns as pairs."""
    def describe(self): return f"{self.at_most:g} chosen, in pairs"

@register("policy", "acme_first")
def first(model, *, weight: float = 1.0):
    """This round's reward, under another name."""
    return make_policy("myopic", model)

@register("verb", "acme", group="a calendar")
def acme(model: str = "x") -> None:
    """Say where one stands."""
    say(f"acme {model}")
'''
MODEL = """\
format: 1
title: Pairs of calls
source: acme
problem: {domain: budget, n_arms: 6, n_valuable: 2, horizon: 4, seed: 0}
constraints:
  pairs: {kind: acme_pairs, at_most: 2}
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A folder to install: one package with a model, and what says that it is a setting."""
    site = tmp_path_factory.mktemp("site")
    (site / "acme_bandits" / "models").mkdir(parents=True)
    (site / "acme_bandits" / "__init__.py").write_text(PLUGIN)
    (site / "acme_bandits" / "models" / "acme_pairs.yaml").write_text(MODEL)
    info = site / "acme_bandits-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-bandits\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rmab_opt.settings]\nacme = acme_bandits\n")
    return site


@pytest.mark.parametrize("way", ["file", "entry point"])
def test_a_setting_from_elsewhere_is_found_by_every_verb(package, way):
    given = ("--plugin", package / "acme_bandits" / "__init__.py") if way == "file" else ()
    names = ("--policies", "acme_first:weight=2,myopic", "--episodes", 3)
    models, checked, decided, evaluated, shown = together(
        [*given, "models", "--json"],
        [*given, "check", "acme_pairs"],
        [*given, "decide", "acme_pairs", "--episodes", 0, "--json"],
        [*given, "evaluate", "acme_pairs", *names, "--jobs", 2 if way == "file" else 1, "--json"],
        [*given, "--help"],
        first=None if way == "file" else package,
    )
    rows = {row["name"]: row for row in json.loads(models.out)}
    assert rows["acme_pairs"]["title"] == "Pairs of calls"
    assert "budget" in rows
    assert checked.code == 0, checked.err
    assert "2 chosen, in pairs" in checked.out
    assert decided.code == 0, decided.err
    assert len(json.loads(decided.out)["action"]) <= 2
    assert evaluated.code == 0, evaluated.err
    first, myopic = json.loads(evaluated.out)["rows"]
    assert first["policy"] == "acme_first:weight=2"
    assert first["reward"] == myopic["reward"]
    assert "acme" in shown.out.partition("A calendar:")[2].partition(":\n")[0]
    assert "Say where one stands." in shown.out


def test_a_folder_is_a_plugin_and_its_kinds_verbs_and_models_are_listed_and_copied(package, tmp_path):
    plugin = ("--plugin", package / "acme_bandits")
    listed, own, written, checked = together(
        ["kinds", "constraint", "--json", *plugin],
        ["acme", "--model", "week", *plugin],
        ["new", "acme_pairs", tmp_path / "copy", *plugin],
        ["check", tmp_path / "copy", *plugin],
    )
    (pairs,) = [row for row in json.loads(listed.out) if row["name"] == "acme_pairs"]
    assert pairs["line"] == "Twice as many columns as pairs"
    assert own.out == "acme week\n"
    assert written.code == 0, written.err
    assert checked.code == 0, checked.err


@pytest.mark.parametrize(
    "words",
    [
        "acme --plugin ACME",
        pytest.param("acme --plugin=ACME --model x", marks=pytest.mark.slow),
        pytest.param("--plugin ACME acme --plugin ACME --plugin OTHER", marks=pytest.mark.slow),
        "--plugin OTHER --plugin ACME other",
    ],
)
def test_the_option_stands_before_or_after_the_verb_and_several_times(package, tmp_path, words):
    """Each in a process of its own, in which nothing was loaded before."""
    other = tmp_path / "other.py"
    other.write_text(
        "from rmab_opt.cli.common import say\nfrom rmab_opt.registry import register\n\n"
        "@register('verb', 'other')\ndef other() -> None:\n    '''Other.'''\n    say('acme x')\n"
    )
    places = {"ACME": package / "acme_bandits" / "__init__.py", "OTHER": other}
    for name, place in places.items():
        words = words.replace(name, str(place))
    done, shown = together(words.split(), ["--plugin", other, "--help"])
    assert done.out == "acme x\n", done.err
    assert "Others:\n  other" in shown.out


def test_without_it_nothing_of_it_is_known(package):
    file = package / "acme_bandits" / "models" / "acme_pairs.yaml"
    unknown, refused = together(["check", "acme_pairs"], ["check", file])
    assert "no model 'acme_pairs'" in unknown.err
    assert refused.code == 2
    assert "constraints.pairs.kind: unknown kind 'acme_pairs'" in refused.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such Python file"),
        ("import nosuchmodule\n", "ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("1 +\n", "SyntaxError"),
        ("1 / 0\n", "ZeroDivisionError"),
        (
            "from rmab_opt.decisions.policy import policy\npolicy('myopic')(print)\n",
            "policy 'myopic' is taken by rmab_opt",
        ),
        (
            "from rmab_opt.actions.kinds import Budget\nclass Own(Budget, kind='budget'): pass\n",
            "constraint kind 'budget' is taken by rmab_opt.actions.kinds",
        ),
        ("from rmab_opt.registry import register\nregister('verb', 'decide')(print)\n", "verb 'decide' is taken by"),
        ("from rmab_opt.registry import register\nregister('spell', 'x')(print)\n", "nothing is registered as 'spell'"),
    ],
)
def test_a_plugin_that_fails_is_named_with_the_reason(tmp_path, text, said):
    file = tmp_path / "own.py"
    if text is not None:
        file.write_text(text)
    (done,) = together(["models", "--plugin", file])
    assert done.code == 2
    assert f"--plugin {file}" in done.err
    assert said in done.err
    assert "Traceback" not in done.err


def test_the_option_without_a_file_is_refused():
    done = run("models", "--plugin")
    assert done.code == 2
    assert "--plugin without a file" in done.err


def test_a_setting_that_fails_to_import_is_named(package, tmp_path):
    (tmp_path / "broken.py").write_text("raise RuntimeError('not today')\n")
    (tmp_path / "broken-1.dist-info").mkdir()
    (tmp_path / "broken-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (tmp_path / "broken-1.dist-info" / "entry_points.txt").write_text("[rmab_opt.settings]\nbroken = broken\n")
    (done,) = together(["check", "budget"], first=tmp_path)
    assert done.code == 2
    assert "the setting broken" in done.err
    assert "RuntimeError: not today" in done.err
    (hidden,) = together(["check", "budget"], first=tmp_path, RMAB_OPT_WITHOUT="broken")
    assert hidden.code == 0, hidden.err


def test_two_models_of_one_name_are_refused(package, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "budget.yaml").write_text(MODEL)
    (tmp_path / "own.py").write_text("")
    (done,) = together(["models", "--plugin", tmp_path / "own.py"])
    assert done.code == 2
    assert "model 'budget' is in" in done.err


WORKERS = """\
import sys
from rmab_opt import registry
from rmab_opt.parallel import pmap

def plain(task):
    return task

assert sorted(pmap(plain, [1, 2, 3], n_jobs=2)) == [(0, 1), (1, 2), (2, 3)]
own = registry.load_plugin(sys.argv[1])
# These workers were started before the plugin was there; task and result are of its own classes.
found = dict(pmap(own.double, [own.Item(k) for k in range(4)], n_jobs=2))
assert [found[k].value for k in range(4)] == [0, 2, 4, 6], found
assert all(type(item) is own.Item for item in found.values())
"""


def test_workers_know_the_classes_of_a_plugin(tmp_path):
    (tmp_path / "own.py").write_text(
        "class Item:\n    def __init__(self, value): self.value = value\n\n"
        "def double(item):\n    assert type(item) is Item\n    return Item(2 * item.value)\n"
    )
    (tmp_path / "run.py").write_text(WORKERS)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "own.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
