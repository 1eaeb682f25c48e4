"""The page of claims and its data, and quick forms of the measurements behind it."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from pathlib import Path

import pytest
from command_line import run

from rmab_opt import registry
from rmab_opt.errors import ModelError
from rmab_opt.experiments import COLUMNS, Experiment, data_file, figure, measure

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "reproduction_page.py"))
DOCUMENT = SCRIPT["claims"]()
CLAIMS = DOCUMENT["claims"]
EXPERIMENTS = sorted({check["of"] for claim in CLAIMS for check in claim.get("quick", [])})


# ---- the page and its data
def test_the_page_is_what_its_data_say():
    assert SCRIPT["PAGE"].read_text(encoding="utf-8") == SCRIPT["page"](), "run scripts/reproduction_page.py"


def test_every_picture_of_the_page_is_there():
    for name in [*SCRIPT["PICTURES"], *SCRIPT["CURVES"]]:
        assert (SCRIPT["IMAGES"] / f"{name}.png").is_file(), name
        assert f"images/reproduction/{name}.png" in SCRIPT["PAGE"].read_text(encoding="utf-8")


def test_no_row_is_without_verdict_source_and_size_and_few_cannot_be_tested():
    assert len(CLAIMS) >= 40
    assert len({claim["id"] for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim["verdict"] in SCRIPT["VERDICTS"], claim["id"]
        assert claim["size"] in SCRIPT["SIZES"], claim["id"]
        assert claim["system"] in DOCUMENT["systems"], claim["id"]
        assert claim["source"], claim["id"]
        assert claim["why"], claim["id"]
        assert claim["figures"] or "test" in claim or claim["verdict"] == "cannot be tested", claim["id"]
    count = Counter(claim["verdict"] for claim in CLAIMS)
    assert count["cannot be tested"] <= 4
    assert all("Missing input" in c["why"] for c in CLAIMS if c["verdict"] == "cannot be tested")


def test_what_does_not_hold_has_a_test_of_its_cause_and_every_named_test_is_there():
    for claim in CLAIMS:
        if claim["verdict"] == "does not hold":
            assert "test" in claim, claim["id"]
        if "test" in claim:
            path, _, name = claim["test"].partition("::")
            assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), claim["test"]


def test_every_effect_on_the_page_of_honesty_names_a_test_that_is_there():
    page = (ROOT / "docs" / "honesty.md").read_text(encoding="utf-8")
    named = [part.partition("`")[0] for part in page.split("`tests/")[1:]]
    assert len(named) >= 10
    for entry in named:
        path, _, name = entry.partition("::")
        assert f"\ndef {name}(" in (ROOT / "tests" / path).read_text(encoding="utf-8"), entry


def test_recorded_runs_say_what_they_were_made_with():
    made = {entry["experiment"]: entry for entry in SCRIPT["runs"]()}
    used = {f["of"] for claim in CLAIMS for f in claim["figures"] if "of" in f}
    assert used <= made.keys()
    for entry in made.values():
        assert entry["form"] in ("quick", "full")
        assert entry["cpu_seconds"] > 0
        assert {"rmab-opt", "numpy", "highspy"} <= entry["versions"].keys()


# ---- the frame, on an experiment of its own
def work(task):
    return {"twice": 2 * task["x"]}


def fail_late(task):
    if task["x"] == 2:
        raise KeyboardInterrupt
    return work(task)


def rows(found):
    return [figure("twice", [result["twice"] for _, result in found], 3.0)]


def tasks(full):
    return [{"x": x, "seed": 0} for x in range(4 if full else 3)]


@pytest.fixture
def own(monkeypatch):
    """Registers an experiment for one test."""
    made = {}

    def put(name, run_one, needs=""):
        entry = registry.Entry("experiment", name, lambda: Experiment("own", tasks, run_one, rows, needs), "", "own")
        known = registry._TABLE.entries["experiment"]
        registry.names("experiment")
        monkeypatch.setitem(known, name, entry)
        made[name] = entry

    return put


def test_what_is_finished_is_kept_and_a_stopped_run_goes_on(own, tmp_path):
    own("own_stop", fail_late)
    with pytest.raises(KeyboardInterrupt):
        measure("own_stop", tmp_path)
    kept = sorted((tmp_path / "own_stop" / "tasks").iterdir())
    assert len(kept) == 2
    before = [path.read_bytes() for path in kept]
    events = []
    own("own_stop", work)
    made = measure("own_stop", tmp_path, on_event=events.append)
    assert [event["done"] for event in events] == [3]
    assert [path.read_bytes() for path in kept] == before
    (row,) = made.document["rows"]
    assert (row["published"], row["ours"], row["n"]) == (3.0, 2.0, 3)
    assert row["low"] == pytest.approx(2 - 4.302653 * 2 / 3**0.5, abs=1e-5)
    header = (tmp_path / "own_stop.csv").read_text().splitlines()[0]
    assert header == ",".join(COLUMNS)
    # Two more tasks, none again.
    events.clear()
    measure("own_stop", tmp_path, full=True, on_event=events.append)
    assert len(events) == 1
    head = json.loads((tmp_path / "own_stop.json").read_text())
    assert (head["form"], head["tasks"], head["seeds"]) == ("full", 4, [0])


def test_data_that_are_not_there_are_named(own, tmp_path, monkeypatch):
    monkeypatch.setenv("RMAB_DATA", str(tmp_path))
    own("own_needs", work, needs="nothing_of_that_name.csv")
    assert data_file("nothing_of_that_name.csv") is None
    with pytest.raises(ModelError, match=r"nothing_of_that_name\.csv is not there"):
        measure("own_needs", tmp_path)


def test_the_verb_lists_measures_and_answers_in_json(own, tmp_path):
    own("own_verb", work)
    listed = json.loads(run("reproduce", "--list", "--json").out)
    assert {"name": "own_verb", "what": "own", "source": "own", "quick": 3, "full": 4} in listed
    (document,) = json.loads(run("reproduce", "own_verb", "--out", tmp_path, "--json").out)
    assert document["rows"][0]["ours"] == 2.0
    assert run("reproduce", "nobody", "--out", tmp_path).code == 2


# ---- quick forms
def quick(name: str, folder: Path) -> None:
    made: Experiment = registry.find("experiment", name).make()
    if made.needs and data_file(made.needs) is None:
        pytest.skip(f"{made.needs} is not here")
    found = {row["measure"]: row["ours"] for row in measure(name, folder).document["rows"]}
    for claim in CLAIMS:
        for check in claim.get("quick", []):
            if check["of"] == name:
                value = found[check["measure"]]
                assert check["at_least"] <= value <= check["at_most"], (claim["id"], value)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_quick_form_gives_what_the_row_says(name, tmp_path):
    if name not in registry.names("experiment"):
        pytest.skip("its setting is hidden")
    quick(name, tmp_path)


@pytest.mark.parametrize("name", ["networked_run_time", "coupled_binaries"])
def test_a_cheap_experiment_runs(name, tmp_path):
    if name not in registry.names("experiment"):
        pytest.skip("its setting is hidden")
    quick(name, tmp_path)
