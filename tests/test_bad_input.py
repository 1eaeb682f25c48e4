"""What is wrong with an input is said in one line that names field, value and remedy; never a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from safetensors.numpy import save_file

MODEL = """\
format: 1
title: Small
problem:
  arms: arms.csv
  dynamics: {kind: tabular, file: transitions.csv, by: type, reward: {bad: 0, good: 1}, paid_on: arrival}
  horizon: 3
  discount: 1
  start: start.csv
constraints:
  weekly: {kind: budget, at_most: 2}
  roster: {kind: scheduling, roster: roster.csv, visits: 1, match: region}
  teams: {kind: capacity, workers: workers.csv, cost: minutes}
  hours: {kind: knapsack, cost: minutes, at_most: 60}
objective: {kind: immediate}
solver: quick
train: {episodes: 2, pretrain_steps: 1, hidden: [4], head: 2}
"""
TABLES = {
    "arms.csv": "id,region,type,slots,minutes\np1,north,a,mon;tue,10\np2,north,b,tue,20\np3,south,a,mon,30\np4,south,b,9:30,15\n",
    "transitions.csv": "type,state,action,bad,good\n"
    + "".join(
        f"{t},{s},{a},{1 - q},{q}\n"
        for t in "ab"
        for s, a, q in (("bad", 0, 0.25), ("bad", 1, 0.75), ("good", 0, 0.5), ("good", 1, 1.0))
    ),
    "start.csv": "id,state\np1,bad\np2,bad\np3,good\np4,bad\n",
    "roster.csv": "worker,slot,calls,region\nasha,mon,1,north\nasha,9:30,1,\nbina,tue,2,\n",
    "workers.csv": "worker,capacity\nasha,30\nbina,45\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.yaml").write_text(MODEL)
    for name, text in TABLES.items():
        (tmp_path / name).write_text(text)
    rng = np.random.default_rng(0)
    arrays = {
        "0.weight": rng.normal(size=(3, 8)),
        "0.bias": rng.normal(size=3),
        "1.weight": rng.normal(size=(1, 3)),
        "1.bias": np.zeros(1),
    }
    save_file(arrays, tmp_path / "net.safetensors")
    return tmp_path


def edit(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / file
    text = path.read_text()
    assert old in text, (file, old)
    path.write_text(text.replace(old, new, 1))


def test_the_untouched_model_is_fine(folder):
    assert run("check", folder / "model.yaml").code == 0
    assert run("decide", folder / "model.yaml").code == 0


NETWORK = (
    "model.yaml",
    "objective: {kind: immediate}",
    "objective: {kind: network, activation: relu, file: net.safetensors}",
)

# (name, [(file, old, new), ...], extra arguments of `decide`, exit code, part of the message)
FILES = [
    ("format missing", [("model.yaml", "format: 1\n", "")], 2, "format: is missing"),
    ("format 2", [("model.yaml", "format: 1", "format: 2")], 2, "model.yaml:1: format"),
    ("title missing", [("model.yaml", "title: Small\n", "")], 2, "title: is missing"),
    ("unknown top key", [("model.yaml", "solver: quick", "solvr: quick")], 2, "model.yaml:15: solvr: unknown key; to fix, did you mean 'solver'?"),
    ("tab in yaml", [("model.yaml", "  arms: arms.csv", "\tarms: arms.csv")], 2, "model.yaml:4"),
    ("doubled key", [("model.yaml", "  horizon: 3\n", "  horizon: 3\n  horizon: 4\n")], 2, "duplicate key"),
    ("tag", [("model.yaml", "title: Small", "title: !!python/object:os.system Small")], 2, "tags such as"),
    ("not a mapping", [("model.yaml", MODEL, "- 1\n- 2\n")], 2, "holds no mapping"),
    ("empty file", [("model.yaml", MODEL, "")], 2, "holds no mapping"),
    ("unclosed brace", [("model.yaml", "at_most: 2}", "at_most: 2")], 2, "model.yaml:"),
    ("horizon 0", [("model.yaml", "horizon: 3", "horizon: 0")], 2, "model.yaml:6: problem.horizon"),
    ("horizon text", [("model.yaml", "horizon: 3", "horizon: three")], 2, "problem.horizon"),
    ("horizon fraction", [("model.yaml", "horizon: 3", "horizon: 3.5")], 2, "problem.horizon"),
    ("discount 0", [("model.yaml", "discount: 1", "discount: 0")], 2, "problem.discount"),
    ("discount 1.1", [("model.yaml", "discount: 1", "discount: 1.1")], 2, "problem.discount"),
    ("discount nan", [("model.yaml", "discount: 1", "discount: .nan")], 2, "problem.discount"),
    ("unknown dynamics", [("model.yaml", "kind: tabular", "kind: tabula")], 2, "problem.dynamics.kind: unknown kind"),
    ("dynamics key", [("model.yaml", "by: type", "bye: type")], 2, "problem.dynamics.bye: unknown key"),
    ("dynamics file missing", [("model.yaml", "file: transitions.csv", "file: nowhere.csv")], 2, "nowhere.csv: no such file"),
    ("arms file missing", [("model.yaml", "arms: arms.csv", "arms: nobody.csv")], 2, "nobody.csv: no such file"),
    ("start file missing", [("model.yaml", "start: start.csv", "start: never.csv")], 2, "never.csv: no such file"),
    ("start out of range", [("model.yaml", "start: start.csv", "start: 7")], 2, "arm 'p1' is in state 7"),
    ("start list too short", [("model.yaml", "start: start.csv", "start: [0, 1]")], 2, "start has shape (2,)"),
    ("reward lacks a state", [("model.yaml", "{bad: 0, good: 1}", "{bad: 0}")], 2, "reward lacks state 'good'"),
    ("reward of no state", [("model.yaml", "{bad: 0, good: 1}", "{bad: 0, good: 1, ugly: 2}")], 2, "reward names state 'ugly'"),
    ("reward infinite", [("model.yaml", "{bad: 0, good: 1}", "{bad: 0, good: .inf}")], 2, "problem.dynamics.reward.good"),
    ("paid_on unknown", [("model.yaml", "paid_on: arrival", "paid_on: later")], 2, "problem.dynamics.paid_on"),
    ("id doubled", [("arms.csv", "p2,north", "p1,north")], 2, "arms.csv:3: id 'p1' stands in row 2 already"),
    ("id empty", [("arms.csv", "p2,north", ",north")], 2, "arms.csv:3: id is missing"),
    ("long row", [("arms.csv", "p2,north,b,tue,20", "p2,north,b,tue,20,x")], 2, "arms.csv:3: 6 cells, the header has 5"),
    ("short row", [("arms.csv", "p2,north,b,tue,20", "p2,north,b")], 2, "arms.csv:3: minutes: '' is not a number"),
    ("no such type", [("arms.csv", "p2,north,b", "p2,north,z")], 2, "no rows for type 'z' of arm 'p2'"),
    ("minutes text", [("arms.csv", "tue,20", "tue,long")], 2, "arms.csv:3: minutes: 'long' is not a number"),
    ("minutes negative", [("arms.csv", "tue,20", "tue,-20")], 2, "arms.csv:3: minutes: -20 is outside"),
    ("minutes nan", [("arms.csv", "tue,20", "tue,nan")], 2, "minutes: 'nan' is not a finite number"),
    ("probabilities do not sum", [("transitions.csv", "0.75,0.25", "0.75,0.5")], 2, "transitions.csv:2: probabilities sum to 1.25"),
    ("probability negative", [("transitions.csv", "0.75,0.25", "-0.75,1.75")], 2, "transitions.csv:2: bad: -0.75 is outside"),
    ("probability text", [("transitions.csv", "0.75,0.25", "half,0.25")], 2, "transitions.csv:2: bad: 'half' is not a number"),
    ("transition twice", [("transitions.csv", "a,bad,1", "a,bad,0")], 2, "transitions.csv:3: type 'a', state 'bad', action 0 stands twice"),
    ("action fraction", [("transitions.csv", "a,bad,1", "a,bad,0.5")], 2, "transitions.csv:3: action is 0.5"),
    ("state without column", [("transitions.csv", "a,bad,1", "a,ugly,1")], 2, "no column for state 'ugly'"),
    ("start unknown id", [("start.csv", "p2,bad", "q2,bad")], 2, "start.csv:3: no arm 'q2'"),
    ("start unknown state", [("start.csv", "p2,bad", "p2,9:30")], 2, "start.csv:3: state of arm 'p2' is '9:30'"),
    ("start misses an arm", [("start.csv", "p2,bad\n", "")], 2, "no state for 1 of 4 arms (p2)"),
    ("start doubled", [("start.csv", "p2,bad", "p1,bad")], 2, "start.csv:3: arm 'p1' stands twice"),
    ("unknown kind", [("model.yaml", "kind: budget", "kind: budgt")], 2, "model.yaml:10: constraints.weekly.kind: unknown kind 'budgt'; to fix, did you mean 'budget'?"),
    ("kind missing", [("model.yaml", "{kind: budget, at_most: 2}", "{at_most: 2}")], 2, "constraints.weekly.kind: is missing"),
    ("unknown field", [("model.yaml", "at_most: 2", "at_mots: 2")], 2, "constraints.weekly.at_mots: unknown key; to fix, did you mean 'at_most'?"),
    ("no limit", [("model.yaml", "{kind: budget, at_most: 2}", "{kind: budget}")], 2, "give one of at_most, at_least, equal"),
    ("limits crossed", [("model.yaml", "at_most: 2}", "at_most: 2, at_least: 3}")], 2, "at_least 3 is above at_most 2"),
    ("limit text", [("model.yaml", "at_most: 2}", "at_most: few}")], 2, "constraints.weekly.at_most"),
    ("limit nan", [("model.yaml", "at_most: 2}", "at_most: .nan}")], 2, "constraints.weekly.at_most"),
    ("constraint no mapping", [("model.yaml", "{kind: budget, at_most: 2}", "8")], 2, "constraints.weekly"),
    ("budget negative", [("model.yaml", "at_most: 2}", "at_most: -2}")], 2, "at_most is -2"),
    ("roster no worker column", [("roster.csv", "worker,slot", "nurse,slot")], 2, "no column 'worker'"),
    ("roster shift twice", [("roster.csv", "bina,tue,2,", "asha,mon,2,")], 2, "roster.csv:4: worker 'asha' stands twice in slot 'mon'"),
    ("roster calls fraction", [("roster.csv", "bina,tue,2", "bina,tue,1.5")], 2, "roster.csv:4: calls is 1.5"),
    ("roster unknown region", [("roster.csv", "asha,mon,1,north", "asha,mon,1,west")], 2, "region 'west' of worker 'asha' has no arm"),
    ("visits 0", [("model.yaml", "visits: 1", "visits: 0")], 2, "constraints.roster.visits"),
    ("rule unknown", [("model.yaml", "visits: 1", "rule: some")], 2, "constraints.roster.rule"),
    ("match no column", [("model.yaml", "match: region", "match: regio")], 2, "no column 'regio'"),
    ("worker doubled", [("workers.csv", "bina,45", "asha,45")], 2, "workers.csv:3: worker 'asha' stands twice"),
    ("capacity text", [("workers.csv", "bina,45", "bina,much")], 2, "workers.csv:3: capacity: 'much' is not a number"),
    ("cost column unknown", [("model.yaml", "kind: knapsack, cost: minutes", "kind: knapsack, cost: minuts")], 2, "model.yaml:13: constraints.hours: "),
    ("objective unknown", [("model.yaml", "kind: immediate", "kind: imediate")], 2, "objective.kind: unknown kind 'imediate'"),
    ("objective key", [("model.yaml", "kind: immediate", "kind: immediate, weight: 2")], 2, "objective.weight: unknown key"),
    ("scores no column", [("model.yaml", "kind: immediate", "kind: scores, column: prio")], 2, "no column 'prio'"),
    ("solver unknown", [("model.yaml", "solver: quick", "solver: quik")], 2, "solver"),
    ("train key", [("model.yaml", "episodes: 2", "episods: 2")], 2, "train.episods is not a setting"),
    ("train range", [("model.yaml", "episodes: 2", "episodes: 0")], 2, "train.episodes is 0"),
    ("weights missing", [("model.yaml", "kind: immediate", "kind: network, activation: relu, file: no.safetensors")], 2, "no.safetensors"),
    ("weights of other size", [("model.yaml", "kind: immediate", "kind: network, activation: relu, file: net.safetensors, inputs: [action]")], 2, "the network takes 8 inputs, action 4 are 4"),
    ("inputs unknown", [("model.yaml", "kind: immediate", "kind: network, activation: relu, file: net.safetensors, inputs: [action, staet]")], 2, "objective.inputs names 'staet'"),
    ("clash", [("model.yaml", "  weekly: {kind: budget, at_most: 2}\n", "  weekly: {kind: budget, at_most: 2}\n  many: {kind: budget, at_least: 3}\n")], 3, "no action satisfies these two together"),
    ("clash by integrality", [("model.yaml", "hours: {kind: knapsack, cost: minutes, at_most: 60}", "hours: {kind: linear, column: minutes, equal: 37}")], 3, "hours"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "code", "message"), [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_a_wrong_file_is_refused_in_words(folder, changes, code, message):
    for change in changes:
        edit(folder, *change)
    answer = run("decide", folder / "model.yaml")
    assert answer.code == code, answer.err
    assert message in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""


ARGUMENTS = [
    ("no such model", ["decide", "weekly_cals"], 2, "did you mean 'weekly_calls'?"),
    ("no such file", ["check", "nowhere/model.yaml"], 2, "no such model file"),
    ("set without value", ["check", "{}", "--set", "horizon"], 2, "write --set key=value"),
    ("set unknown", ["check", "{}", "--set", "horizn=2"], 2, "set horizn: is not in the file"),
    ("set ambiguous", ["check", "{}", "--set", "at_most=2"], 2, "stands in several places"),
    ("set wrong section", ["check", "{}", "--set", "problm.horizon=2"], 2, "no section 'problm'"),
    ("set bad value", ["check", "{}", "--set", "horizon=-1"], 2, "problem.horizon"),
    ("state missing", ["decide", "{}", "--state", "no.csv"], 2, "no.csv: no such file"),
    ("solver missing", ["decide", "{}", "--solver", "nosuch"], 2, "nosuch"),
    ("relax unknown", ["decide", "{}", "--relax", "monthly"], 2, "relax: no constraint 'monthly'"),
    ("out format", ["decide", "{}", "--out", "x.doc"], 2, "unknown format '.doc'"),
    ("period", ["decide", "{}", "--period", "3"], 2, "--period 3"),
    ("why not whom", ["decide", "{}", "--why-not", "p9"], 2, "no column 'p9'"),
    ("run missing", ["decide", "{}", "--run", "norun"], 2, "holds no finished run"),
    ("decision missing", ["check", "{}", "--decision", "no.json"], 2, "no.json: no such file"),
    ("policy unknown", ["evaluate", "{}", "--policies", "myopi"], 2, "did you mean 'myopic'?"),
    ("no policy", ["evaluate", "{}", "--policies", ","], 2, "no policy"),
    ("no seeds", ["evaluate", "{}", "--seeds", "0"], 2, "Invalid value for '--seeds'"),
    ("no episodes", ["evaluate", "{}", "--episodes", "0"], 2, "Invalid value for '--episodes'"),
    ("reward kind", ["evaluate", "{}", "--reward", "real"], 2, "reward is 'real'"),
    ("new over old", ["new", "budget", "{folder}"], 2, "exists and is not empty"),
    ("unknown verb", ["decid", "{}"], 2, "No such command"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "message"), [case[1:] for case in ARGUMENTS], ids=[case[0] for case in ARGUMENTS]
)
def test_a_wrong_argument_is_refused_in_words(folder, arguments, code, message):
    given = [part.replace("{}", str(folder / "model.yaml")).replace("{folder}", str(folder)) for part in arguments]
    answer = run(*given)
    assert answer.code == code, answer.err
    assert message in answer.err
    assert "Traceback" not in answer.err


def broken_weights(folder: Path, change: str) -> None:
    edit(folder, *NETWORK)
    rng = np.random.default_rng(0)
    arrays = {
        "0.weight": rng.normal(size=(3, 8)),
        "0.bias": rng.normal(size=3),
        "1.weight": rng.normal(size=(1, 3)),
        "1.bias": np.zeros(1),
    }
    if change == "nan":
        arrays["0.weight"][1, 2] = np.nan
    if change == "shape":
        arrays["1.weight"] = rng.normal(size=(1, 4))
    if change == "wide output":
        arrays["1.weight"], arrays["1.bias"] = rng.normal(size=(2, 3)), np.zeros(2)
    save_file(arrays, folder / "net.safetensors")
    if change == "torn":
        data = (folder / "net.safetensors").read_bytes()
        (folder / "net.safetensors").write_bytes(data[: len(data) // 2])
    if change == "pickle":
        (folder / "net.safetensors").write_bytes(b"\x80\x04\x95\x00")


@pytest.mark.parametrize("change", ["nan", "shape", "wide output", "torn", "pickle"])
def test_wrong_weights_name_the_layer_or_the_file(folder, change):
    broken_weights(folder, change)
    answer = run("decide", folder / "model.yaml")
    assert answer.code == 2, answer.err
    assert "Traceback" not in answer.err
    assert {"nan": "layer 0", "shape": "layer 1", "wide output": "output"}.get(change, "net.safetensors") in answer.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends = 'default'\n[highs]\ntreads = 1\n", "treads"),
        ("extends = 'defalt'\n", "defalt"),
        ("[limits]\nsecnds = 3\n", "secnds"),
        ("extends = 'default'\n[limits]\nseconds = -1\n", "seconds"),
        ("extends = 'default'\n[highs]\nmip_rel_gap = 'small'\n", "gap"),
        ("not toml at all", "profile.toml"),
    ],
)
def test_wrong_profiles_name_the_key(folder, text, message):
    (folder / "profile.toml").write_text(text)
    answer = run("decide", folder / "model.yaml", "--solver", folder / "profile.toml")
    assert answer.code in (2, 4), answer.err
    assert message in answer.err
    assert "Traceback" not in answer.err


def test_a_solver_asked_for_and_missing_is_an_error(folder):
    (folder / "cbc.toml").write_text("solver = 'cbc'\n")
    if shutil.which("cbc"):
        pytest.skip("CBC is installed here")
    answer = run("decide", folder / "model.yaml", "--solver", folder / "cbc.toml")
    assert answer.code == 4
    assert "cbc" in answer.err.lower()
    assert "install" in answer.err.lower()


def test_a_decision_of_another_model_is_not_verified(folder):
    assert run("decide", folder / "model.yaml", "--out", folder / "week.json").code == 0
    assert run("check", folder / "model.yaml", "--decision", folder / "week.json").code == 0
    answer = run("check", "budget", "--decision", folder / "week.json")
    assert answer.code == 2
    assert "other columns" in answer.err


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("action", ["p1", "p2", "p3", "p4"], "weekly: 4 chosen"),
        ("value", 99.0, "value is"),
        ("bound", -5.0, "above the bound"),
    ],
)
def test_a_tampered_decision_is_found_out_without_a_solver(folder, key, value, message):
    assert run("decide", folder / "model.yaml", "--out", folder / "week.json").code == 0
    document = json.loads((folder / "week.json").read_text())
    document[key] = value
    (folder / "week.json").write_text(json.dumps(document))
    answer = run("check", folder / "model.yaml", "--decision", folder / "week.json")
    assert answer.code == 4
    assert message in answer.out


def test_every_fault_of_a_file_is_reported_at_once_in_file_order(folder):
    for old, new in (("horizon: 3", "horizn: 3"), ("kind: budget", "kind: budgt"), ("solver: quick", "solver: quik")):
        edit(folder, "model.yaml", old, new)
    answer = run("check", folder / "model.yaml")
    places = [answer.err.index(part) for part in ("horizn", "budgt", "quik")]
    assert answer.code == 2
    assert places == sorted(places)


def test_there_are_at_least_sixty_cases():
    assert len(FILES) + len(ARGUMENTS) >= 60
