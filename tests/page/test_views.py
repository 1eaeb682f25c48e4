"""The page asked without a browser: what it shows is what the desk says, and what it is told is done."""

from __future__ import annotations

import re

import pytest
from pages import ended, page_of
from programmes import begun

from rmab_opt.programme.comparison import compare, standpoint
from rmab_opt.programme.desk import Desk


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return begun(tmp_path_factory.mktemp("views"), n=40, weeks=6)


def test_a_week_by_forms_alone(home):
    """Lock, tick, an event, record: each by a plain form, without any script."""
    page, browser = page_of(home)
    desk, week = page.desk, page.desk.week
    listed = [row["id"] for row in desk.rows()]
    other = next(name for name, cells in desk.members().items() if name not in listed and cells.get("reach") != "no")
    assert browser.post("/lock", {"id": other, "how": "in"}).status_code == 303
    assert ended(page).error is None
    assert other in {row["id"] for row in desk.rows()}
    assert browser.post("/lock", {"id": "nobody", "how": "in"}).status_code == 303
    assert "no column 'nobody'" in ended(page).error.message
    assert "nobody" in browser.get("/").text
    browser.post("/dismiss", {})
    assert browser.post("/tick", {"id": other, "done": "no"}).status_code == 204
    assert browser.post("/tick", {"id": "nobody", "done": "no"}).status_code == 400
    assert browser.post("/event", {"id": "900", "event": "joined", "cell-Region": "North"}).status_code == 303
    assert browser.post("/event", {"id": "901", "event": "joined", "cell-Region": "North"}).status_code == 303
    assert browser.post("/event", {"drop": "901"}).status_code == 303
    gone = next(name for name in desk.members() if name not in listed and name != other)
    browser.post("/event", {"id": gone, "event": "left"})
    assert browser.post("/record", {}).status_code == 303
    job = ended(page)
    assert job.error is None, job.error
    assert desk.week == week + 1
    assert other not in desk.ledger().rounds[-1]["done"]
    assert "900" in desk.members()
    assert "901" not in desk.members()
    assert gone not in desk.members()
    assert f"Week {week + 1}" in browser.get("/").text
    shown = browser.get("/changes").text
    for name, _, said in desk.changes():
        assert name in shown
        assert said in shown
    verdict = browser.get("/proof").text
    assert "Value and rules hold, and the bound is proven." in verdict


def test_what_if_says_what_compare_says(home):
    page, browser = page_of(home)
    said = page.desk.what_if("calls=Ada:0")
    shown = browser.get("/slide?name=calls%3DAda&value=0").text
    assert f"{said.value:.6g}" in shown
    assert not any(row["worker"] == "Ada" for row in said.assignment)
    assert browser.post("/compare", {"case": ["less=Ada"], "column": "Region"}).status_code == 303
    assert ended(page).error is None
    shown = browser.get("/what-if").text
    found = compare(standpoint(str(home)), ["less=Ada"], episodes=2, column="Region")
    for row in found.rows():
        assert f"{row['this round']:.6g}" in shown
    assert [row["list"] for row in found.rows()][1] == len(said.chosen)
    assert browser.get("/slide?name=calls%3DNobody&value=0").status_code == 400


def test_every_picture_is_vectors_with_text(home):
    _, browser = page_of(home)
    for path in ("/picture/load.svg", "/picture/groups.svg?by=Region"):
        answer = browser.get(path)
        assert answer.headers["content-type"] == "image/svg+xml"
        assert re.search(r"<text[^>]*>[^<]*\w", answer.text)
        assert "<script" not in answer.text
    assert browser.get("/picture/nothing.svg").status_code == 404


def test_a_desk_keeps_nothing_that_another_would_not_find(home):
    page, _ = page_of(home)
    fresh = Desk(home)
    assert fresh.rows() == page.desk.rows()
    assert fresh.draft() == page.desk.draft()
    assert set(fresh.live().chosen) == set(page.desk.live().chosen)
