"""Each setting hidden in turn: what stands on it says so, and everything else goes on."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run
from shipped import models_of

import rmab_opt as ro
from rmab_opt import registry
from rmab_opt.decisions.policy import POLICIES
from rmab_opt.errors import ModelError

ROOT = Path(__file__).resolve().parent.parent
OWN = ["coupled", "equity", "inspection", "networked", "neural_index"]

# What a person types, and who brings it.
FLAGS = [
    ("equity", ["decide", "weekly_calls", "--groups", "village"]),
    ("equity", ["bound", "weekly_calls", "--groups", "village"]),
    ("equity", ["bound", "weekly_calls", "--welfare", "nash"]),
    ("equity", ["bound", "weekly_calls", "--target", "2"]),
    ("equity", ["evaluate", "weekly_calls", "--groups", "village"]),
    ("equity", ["evaluate", "budget", "--policies", "none,leximin"]),
    ("equity", ["check", "budget", "--set", "objective.kind=fair"]),
    ("coupled", ["evaluate", "sequoia_table", "--quick"]),
    ("neural_index", ["train", "budget", "--policy", "neural_index", "--out", "nowhere"]),
    ("neural_index", ["evaluate", "budget", "--policies", "neural_index"]),
    ("inspection", ["evaluate", "budget", "--policies", "risk_first"]),
    ("inspection", ["check", "budget", "--set", "constraints.budget.kind=window"]),
    ("inspection", ["check", "budget", "--set", "columns=visits"]),
    ("networked", ["evaluate", "budget", "--policies", "gnn"]),
    ("networked", ["check", "budget", "--set", "problem.domain=contacts"]),
]  # fmt: skip


@pytest.fixture(params=OWN)
def hidden(request, monkeypatch):
    monkeypatch.setenv(registry.HIDDEN_BY, request.param)
    return request.param


def test_these_are_the_settings_that_come_along():
    assert sorted(registry.settings()) == OWN
    assert all(setting.line for setting in registry.settings().values())


def test_models_of_a_hidden_setting_are_listed_with_what_they_need(hidden):
    rows = {row["name"]: row for row in json.loads(run("models", "--json").out)}
    needed = models_of(hidden)
    assert needed
    assert {name for name, row in rows.items() if "needs" in row} == set(needed)
    assert all(row["title"] == f"needs the setting {hidden}" for row in rows.values() if "needs" in row)
    assert f"needs the setting {hidden}" in run("models").out
    for name in needed:
        with pytest.raises(ModelError, match=f"needs the setting {hidden}") as refused:
            ro.load(name)
        assert refused.value.needs == (hidden,)
        answer = run("decide", name)
        assert answer.code == 2
        assert answer.err.startswith("ModelError: ")
        assert f"needs the setting {hidden}" in answer.err


@pytest.mark.parametrize(("setting", "arguments"), FLAGS, ids=[" ".join(words) for _, words in FLAGS])
def test_a_flag_or_a_name_of_a_hidden_setting_says_what_it_needs(setting, arguments, monkeypatch):
    monkeypatch.setenv(registry.HIDDEN_BY, setting)
    answer = run(*arguments)
    assert answer.code == 2, answer.out
    assert "ModelError: " in answer.err
    assert f"needs the setting {setting}" in answer.err


def test_nothing_of_a_hidden_setting_is_listed(hidden, monkeypatch):
    without = {kind: set(registry.names(kind)) for kind in registry.PARTS}
    assert not any(entry.setting == hidden for kind in registry.PARTS for entry in registry.entries(kind))
    assert set(POLICIES) == without["policy"]
    monkeypatch.delenv(registry.HIDDEN_BY)
    brought = {(kind, name) for kind in registry.PARTS for name in set(registry.names(kind)) - without[kind]}
    assert brought
    for kind, name in brought:
        assert registry.find(kind, name).setting == hidden


def test_several_are_hidden_at_once_and_the_kernel_decides(monkeypatch):
    monkeypatch.setenv(registry.HIDDEN_BY, ", ".join(OWN))
    assert run("decide", "weekly_calls", "--episodes", 0).code == 0
    assert {row["name"] for row in json.loads(run("models", "--json").out) if "needs" not in row} == set(models_of(""))
    with pytest.raises(ModelError, match="needs the setting equity"):
        registry.need("equity")


def test_a_setting_that_is_not_there_at_all_is_named_by_its_flags(monkeypatch):
    monkeypatch.setattr(registry, "_discovered", lambda: {})
    monkeypatch.setattr(registry._TABLE, "entries", {**registry._TABLE.entries, "report": {}})
    for setting, arguments in [*FLAGS[:5], FLAGS[7]]:
        answer = run(*arguments)
        assert answer.code == 2
        assert f"needs the setting {setting}" in answer.err


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_everything_outside_a_hidden_settings_tests_passes(name):
    """And no test says that it was skipped for that reason."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "not slow and not gpu",
            "tests",
            f"--ignore=tests/settings/{name}",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, registry.HIDDEN_BY: name},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert not [line for line in done.stdout.splitlines() if line.startswith("SKIPPED") and "setting" in line]


@pytest.mark.parametrize(
    ("address", "name", "setting"),
    [
        ("rmab_opt.planning.equity", "fair_plan", "equity"),
        ("rmab_opt.decisions.inspection", "calendar", "inspection"),
    ],
)
def test_an_old_address_leads_to_the_settings_folder_or_says_what_it_needs(address, name, setting, monkeypatch):
    monkeypatch.delenv(registry.HIDDEN_BY, raising=False)
    old = importlib.import_module(address)
    with pytest.warns(DeprecationWarning, match=f"rmab_opt.settings.{setting}"):
        found = [getattr(old, name) for _ in range(2)]
    assert found[0] is found[1]
    assert found[0].__module__.startswith(f"rmab_opt.settings.{setting}.")
    assert callable(found[0])
    with pytest.warns(DeprecationWarning, match="is rmab_opt"), pytest.raises(AttributeError):
        getattr(old, "no_such_name")  # noqa: B009 - the module's own lookup is what is tested
    monkeypatch.setenv(registry.HIDDEN_BY, setting)
    with pytest.raises(ModelError, match=f"{address} needs the setting {setting}"):
        getattr(old, name)
