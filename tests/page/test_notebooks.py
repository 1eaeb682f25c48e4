"""What a notebook shows, and data frames: names from tables stay text, rows come out as they are."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from notebooks import EVIL, OURS, Tags, shown

import rmab_opt as ro
from rmab_opt.errors import ModelError
from rmab_opt.report import frame, notebook_html

ROWS = [{"id": "a", "gain": 1.5, "late": None}, {"id": EVIL, "gain": 2.0, "late": True}]


@pytest.fixture(scope="module")
def model():
    made = ro.load("budget", n_arms=6, horizon=3)
    return replace(made, title=EVIL, about=EVIL)


def test_a_model_shows_its_facts_and_rules(model):
    text = shown(model)
    assert EVIL in text
    assert f"6 of {model.problem.dynamics.n_states} states" in text
    assert model.actions.describe()["budget"] in text


def test_a_decision_shows_its_certificate_and_list(model):
    decision = ro.decide(model, np.zeros(6, dtype=int), solver="quick")
    ids = tuple(EVIL if k == int(np.flatnonzero(decision.action)[0]) else name for k, name in enumerate(decision.ids))
    decision = replace(decision, ids=ids)
    text = shown(decision)
    assert text.count(EVIL) >= 2
    assert f"{decision.value:.6g}" in text
    assert all(row["id"] in text for row in decision.rows())
    assert decision.to_frame("polars").to_dicts() == decision.rows()


def test_a_long_list_is_cut_and_says_so(model):
    decision = ro.decide(ro.load("weekly_calls"), solver="quick")
    assert len(decision.rows()) > 20
    assert f"and {len(decision.rows()) - 20} more" in shown(decision)


def test_a_bound_shows_what_it_prints(model):
    limit = ro.bound(model)
    text = shown(limit)
    assert f"{limit.value:.6g}" in text
    # The tree and the table say the same words.
    words = set(re.sub(r"[├└·]", " ", str(limit)).split())
    assert words <= set(text.replace("·", " ").split()) | {"Bound"}


def test_an_evaluation_shows_its_table_and_gives_frames(model):
    table = ro.evaluate(model, ["myopic", "none"], episodes=2)
    text = shown(table)
    assert "myopic" in text
    assert table.to_frame("polars").to_dicts() == table.rows


@pytest.mark.parametrize("backend", ["pandas", "polars"])
def test_rows_become_frames(backend):
    library = pytest.importorskip(backend)
    made = frame(ROWS, backend)
    assert isinstance(made, library.DataFrame)
    assert list(made.columns) == ["id", "gain", "late"]
    assert list(made["id"]) == ["a", EVIL]
    assert list(made["gain"]) == [1.5, 2.0]
    assert len(frame([], backend)) == 0
    # Rows that say different things: a missing cell stays empty.
    assert list(frame([{"a": 1}, {"b": 2}], backend).columns) == ["a", "b"]


def test_without_a_library_of_frames_the_error_says_what_to_install(monkeypatch):
    import importlib.util

    true = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pandas" else true(name))
    if true("polars") is not None:
        assert type(frame(ROWS)).__module__.startswith("polars")
    with pytest.raises(ModelError, match=r"pandas is not installed\n.*pip install pandas"):
        frame(ROWS, "pandas")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"neither pandas nor polars is installed\n.*install pandas"):
        frame(ROWS)
    with pytest.raises(ModelError, match="no frames of 'excel'"):
        frame(ROWS, "excel")


def test_headings_terms_and_cells_are_escaped():
    assert Tags(notebook_html(EVIL, [(EVIL, EVIL), (EVIL, {EVIL: EVIL}), (EVIL, [{EVIL: EVIL}])])).seen <= OURS
