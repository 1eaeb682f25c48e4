"""Solver profiles: the shipped ones, inheritance, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rmab_opt.errors import ModelError
from rmab_opt.solver import Profile, Program, Session, load_profile, profile_names

SHIPPED = ["default", "exact", "fast", "quick", "reproducible"]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_shipped_profiles():
    assert set(SHIPPED) <= set(profile_names())


@pytest.mark.parametrize("name", profile_names())
def test_each_shipped_profile_says_what_it_is_for_and_solves(name):
    profile = load_profile(name)
    assert profile.name == name
    assert len(profile.about.split()) > 5
    assert (profile.threads, profile.seed, profile.solver) == (1, 0, "highs")
    program = Program([3.0, 2.0], [[2.0, 1.0]], [-np.inf], [2.0], [0, 0], [1, 1], [True, True], True)
    assert Session.from_arrays(program, name).solve().objective == 3


def test_what_the_shipped_profiles_promise():
    assert load_profile("quick").seconds == 10
    assert load_profile("quick").relative_gap == 1e-3
    assert load_profile("exact").relative_gap <= 1e-9
    assert load_profile("exact").at_limit == "raise"
    assert load_profile("reproducible").seconds is None
    assert load_profile("reproducible").nodes is not None
    assert load_profile("default").seconds is None
    assert load_profile("fast").options["mip_heuristic_run_rins"] is False


def test_a_file_extends_a_shipped_profile_and_another_file(tmp_path):
    write(tmp_path, "mine", 'extends = "fast"\nabout = "Mine."\n[highs]\npresolve = "off"\nmip_rel_gap = 0.5\n')
    child = write(tmp_path, "child", 'extends = "mine.toml"\n[limits]\nnodes = 7\n')
    profile = load_profile(child)
    assert (profile.name, profile.about, profile.nodes, profile.relative_gap) == ("child", "Mine.", 7, 0.5)
    assert profile.options["presolve"] == "off"
    assert profile.options["mip_allow_restart"] is False
    assert load_profile(str(child)) == profile
    assert load_profile(profile) is profile


def test_solver_names_set_the_fields(tmp_path):
    text = "[highs]\nthreads = 2\nrandom_seed = 5\ntime_limit = 3\nmip_max_nodes = 9\nmip_abs_gap = 0.1\n"
    profile = load_profile(write(tmp_path, "own", text))
    assert (profile.threads, profile.seed, profile.seconds, profile.nodes) == (2, 5, 3, 9)
    assert profile.absolute_gap == 0.1
    assert profile.options == {}


def test_another_solver_does_not_inherit_options(tmp_path):
    profile = load_profile(write(tmp_path, "g", 'extends = "fast"\nsolver = "gurobi"\n[gurobi]\nMIPFocus = 1\n'))
    assert profile.options == {"MIPFocus": 1}
    assert profile.nodes == 20000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tread = 1", r"unknown key 'tread' \(nearest known: 'threads'\)"),
        ("[limits]\nsecond = 1", r"limits: unknown key 'second' \(nearest known: 'seconds'\)"),
        ("[higs]\nthreads = 1", "unknown key 'higs'"),
        ('solver = "hihgs"', "nearest known: 'highs'"),
        ("threads = 0", "threads is 0"),
        ("threads = true", "threads is True"),
        ('threads = "one"', "threads is 'one'"),
        ("seed = -1", "seed is -1"),
        ("log = 1", "log is 1"),
        ("[limits]\nseconds = -1", "seconds is -1"),
        ("[limits]\nseconds = nan", "seconds is nan"),
        ("[limits]\nnodes = 1.5", "nodes is 1.5"),
        ('[limits]\nat_limit = "panic"', "at_limit is 'panic'"),
        ('[limits]\nrelative_gap = "small"', "relative_gap is 'small'"),
        ("limits = 3", "limits is 3"),
        ("threads = 1\n[highs]\nthreads = 1", "also given as highs.threads"),
        ('solver = "scip"\n[highs]\npresolve = "off"', r"has a table \[highs\] but solves with scip"),
        ("[highs]\nmip_lifting_for_probing = 1", "infeasible"),
        ('extends = "defualt"', "nearest known: 'default'"),
        ("extends = 3", "extends is 3"),
        ('extends = "self.toml"', "extends itself"),
        ('extends = "gone.toml"', "no solver profile"),
        ("threads = = 1", "not valid TOML"),
        ("threads = 1000", "threads is 1000"),
        ("[highs]\ndual_feasibility_tolerance = 1e9", "dual_feasibility_tolerance is 1000000000.0, above 1e-05"),
        ("[highs]\nmip_feasibility_tolerance = 0.4", "mip_feasibility_tolerance is 0.4, above 1e-05"),
        ("[highs]\nuser_objective_scale = -60", "user_objective_scale is -60, which changes"),
        ("[highs]\nobjective_bound = 1.0", "objective_bound is 1.0, which changes"),
        ('solver = "gurobi"\n[gurobi]\nIntFeasTol = 0.1', "IntFeasTol is 0.1, above 1e-05"),
        ('solver = "scip"\n[scip]\n"numerics/feastol" = nan', "numerics/feastol is nan, above 1e-05"),
        ("unsafe = 1", "unsafe is 1"),
    ],
)
def test_bad_profiles_are_refused_with_the_file_and_the_key(tmp_path, text, message):
    path = write(tmp_path, "self", text)
    with pytest.raises(ModelError, match=message) as caught:
        load_profile(path)
    assert "self" in str(caught.value)
    assert "To fix" in str(caught.value)


@pytest.mark.parametrize("name", ["defalt", "no/such/place", "missing.toml"])
def test_unknown_profiles_list_the_known(name):
    with pytest.raises(ModelError, match=r"(?s)no solver profile.*default, exact"):
        load_profile(name)


def test_a_field_is_not_also_an_option():
    with pytest.raises(ModelError, match="set threads instead"):
        Profile("x", options={"threads": 2})


def test_unsafe_options_are_taken_by_name_only(tmp_path):
    path = write(tmp_path, "mine", "unsafe = true\n[highs]\nuser_objective_scale = -30")
    assert load_profile(path).options == {"user_objective_scale": -30}
    assert Profile("tight", options={"dual_feasibility_tolerance": 1e-5}).unsafe is False
    child = write(tmp_path, "child", 'extends = "mine.toml"\nunsafe = false')
    with pytest.raises(ModelError, match="set unsafe = true"):
        load_profile(child)


def test_a_profile_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "p.toml"
    path.write_bytes(bytes([255, 0]))
    with pytest.raises(ModelError, match=r"p\.toml: is not text"):
        load_profile(path)
