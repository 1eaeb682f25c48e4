"""The planner's week in a real browser, from opening to next week's list; every view for everybody (axe)."""

from __future__ import annotations

import shutil
import threading
import time

import pytest
from pages import CHROMIUM, Served
from programmes import begun, ticked

from rmab_opt.programme.asked import Asked
from rmab_opt.programme.desk import Desk
from rmab_opt.programme.folder import alone

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the extra app is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

VIEWS = ("/", "/why", "/what-if", "/groups", "/changes", "/record", "/proof")
QUIET = 20_000
"""Milliseconds that a busy machine may take."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return begun(tmp_path_factory.mktemp("week"), n=40, weeks=6)


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Live:
    """A page that is served from this process."""

    def __init__(self, desk):
        from rmab_opt.page.app import Page, new_token
        from rmab_opt.page.safety import Door
        from rmab_opt.page.serve import _socket

        desk.settle()
        listening = _socket(None, 0)
        port = listening.getsockname()[1]
        token = new_token()
        self.desk, self.root = desk, f"http://127.0.0.1:{port}"
        self.address = f"{self.root}/?token={token}"
        self.page = Page(desk, Door(token, frozenset({f"127.0.0.1:{port}"})))
        self.server = uvicorn.Server(uvicorn.Config(self.page.app, log_level="error", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listening]}, daemon=True)
        self.thread.start()

    def end(self):
        self.server.should_exit = True
        self.thread.join(timeout=20)


@pytest.fixture
def live(home, tmp_path):
    shutil.copytree(home, tmp_path / "own")
    found = Live(Desk(tmp_path / "own"))
    yield found
    found.end()


@pytest.fixture
def tab(chromium, live):
    """A window at the page; whatever its console complains of fails the test."""
    complaints = []
    context = chromium.new_context()
    context.set_default_timeout(QUIET)

    def opened():
        window = context.new_page()
        window.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        window.on("pageerror", lambda error: complaints.append(str(error)))
        window.goto(live.address)
        return window

    window = opened()
    window.another = opened
    window.complaints = complaints
    yield window
    context.close()
    assert not complaints


def lock(window, name, how):
    window.fill("#q", name)
    window.click(f"#people button[aria-label='{how} {name}']")
    window.wait_for_selector("#job .job, #job .trouble", state="attached")
    window.wait_for_selector("#job .job", state="detached")


def until(holds, seconds=20.0):
    """Wait for what a request of a window leads to."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < seconds
        time.sleep(0.05)


def outside(desk):
    listed = {row["id"] for row in desk.rows()}
    open_ = [name for name, cells in desk.members().items() if cells.get("reach") != "no"]
    return next(name for name in open_ if name not in listed and not name.startswith("#"))


def test_a_planners_week(tab, live, tmp_path):
    """Opening, a reason, a lock, a tick, the sheet with a fault, the sheet put right, next week's list."""
    desk = live.desk
    name, inside = outside(desk), desk.rows()[0]["id"]
    assert tab.inner_text("h1") == f"Week {desk.week}"
    assert tab.locator("tbody tr").count() == len(desk.rows())
    tab.goto(f"{live.root}/why?id={name}")
    assert f"{name} is not on the list." in tab.inner_text("main")
    assert desk.why(name).said in tab.inner_text("main").replace("\n", " ")
    tab.goto(live.root)
    lock(tab, name, "Lock in")
    tab.wait_for_url(f"{live.root}/")
    assert name in tab.inner_text(".locks")
    assert name in {row["id"] for row in desk.rows()}
    row = tab.locator("tbody tr", has=tab.locator(f"th:has-text('{name}')")).first
    row.locator("input[value=no]").check()
    row.locator("select").select_option("away")
    until(lambda: desk.draft().state == {name: "away"} and desk.draft().done == {name: "no"})
    tab.reload()
    row = tab.locator("tbody tr", has=tab.locator(f"th:has-text('{name}')")).first
    assert row.locator("input[value=no]").is_checked()
    week = desk.week
    sheet = ticked(desk.folder, week, tmp_path / "ticked.csv")
    good = sheet.read_text(encoding="utf-8")
    sheet.write_text(good.replace(";x;", ";perhaps;", 1), encoding="utf-8")
    tab.goto(f"{live.root}/record")
    tab.set_input_files("#outcomes", str(sheet))
    tab.click("form[action='/upload'] button")
    tab.wait_for_selector(".trouble")
    fault = tab.inner_text(".trouble")
    assert "perhaps" in fault
    assert "row 2" in fault or "line 2" in fault or ":2" in fault
    assert desk.week == week
    sheet.write_text(good, encoding="utf-8")
    tab.set_input_files("#outcomes", str(sheet))
    tab.click("form[action='/upload'] button")
    tab.wait_for_url(f"{live.root}/")
    assert tab.inner_text("h1") == f"Week {week + 1}"
    assert len(desk.ledger().rounds) == 1
    assert inside in desk.document(week)["action"]
    tab.goto(f"{live.root}/changes")
    assert tab.locator("tbody tr").count() == len(desk.changes())


@pytest.mark.slow
def test_a_clash_is_said_in_words_and_a_way_out_is_one_press_away(tab, live):
    desk = live.desk
    open_ = [name for name, cells in desk.members().items() if cells.get("reach") != "no"][:12]
    desk.note(lambda draft: draft.model_copy(update={"asked": Asked(into=tuple(open_[:11]))}))
    before = desk.rows()
    lock(tab, open_[11], "Lock in")
    said = tab.inner_text(".trouble")
    assert "roster" in said
    assert "must be chosen" in said
    assert desk.rows() == before
    tab.click("text=Loosen roster by its least change")
    tab.wait_for_selector(".warning:has-text('roster')")
    assert desk.document()["relaxed"] == "roster"
    tab.goto(f"{live.root}/proof")
    assert "hold" in tab.inner_text(".verdict")


@pytest.mark.slow
def test_a_visit_moves_to_a_place_chosen_by_its_cost(tab, live):
    desk = live.desk
    name = next(row["id"] for row in desk.rows() if len(desk.places(row["id"])) > 1)
    place = next(one for one in desk.places(name) if not one.here)
    tab.click(f"summary[aria-label='Change {name}']")
    tab.locator("tbody tr", has=tab.locator(f"th:has-text('{name}')")).locator("text=Move").click()
    tab.click(f"#places button[aria-label='Move here: {place.worker} {place.slot}']")
    tab.wait_for_selector(".locks .mark")
    row = next(row for row in desk.rows() if row["id"] == name)
    assert (row["worker"], row["slot"]) == (place.worker, place.slot)


@pytest.mark.slow
def test_what_if_answers_and_changes_nothing(tab, live):
    before = live.desk.document()
    tab.goto(f"{live.root}/what-if")
    tab.select_option("#change", "more=Ada")
    tab.wait_for_selector("#slide table")
    assert "more=Ada" in tab.inner_text("#slide")
    then = live.desk.what_if("more=Ada")
    assert f"{then.value:.6g}" in tab.inner_text("#slide")
    tab.locator("input[type=range]").first.fill("0")
    tab.wait_for_selector("#slide:has-text('calls=Ada:0')")
    tab.select_option("#case-2", "more=Ada")
    tab.select_option("#case-3", "less=Bo")
    tab.click("text=Compare")
    tab.wait_for_selector("h3:has-text('Who changes')")
    assert tab.locator("section:has(form.cases) table").first.locator("tbody tr").count() == 3
    assert live.desk.document() == before


@pytest.mark.slow
def test_a_long_solve_shows_value_and_bound_and_a_stop_keeps_the_best(home, chromium, tmp_path):
    class Slow(Desk):
        """Finds nothing better until somebody stops it."""

        def redecide(self, asked, watch=None):
            step = 0
            # As a solve does, it holds the folder meanwhile.
            with alone(self.folder, "makes the list again"):
                while watch is not None and not watch():
                    watch.saw(3.0 + 0.1 * step, 9.0 - 0.1 * step)
                    step = min(step + 1, 20)
                    time.sleep(0.05)
            return super().redecide(asked)

    shutil.copytree(home, tmp_path / "own")
    live = Live(Slow(tmp_path / "own"))
    try:
        window = chromium.new_context().new_page()
        window.goto(live.address)
        name = outside(live.desk)
        window.fill("#q", name)
        window.click(f"#people button[aria-label='Lock in {name}']")
        window.wait_for_selector(".job dd:has-text('5')", timeout=QUIET)
        assert "7" in window.locator(".job dd").nth(1).inner_text()
        second = window.context.new_page()
        second.goto(live.root)
        assert second.locator(".job").count() == 1
        assert second.locator("tbody tr").count() == len(live.desk.rows())
        ticked_now = second.locator("tbody th").first.inner_text()
        second.locator("tbody tr").first.locator("input[value=yes]").check()
        until(lambda: live.desk.draft().done == {ticked_now: "yes"})
        window.click("text=Stop and keep the best so far")
        window.wait_for_selector(".locks .mark", timeout=QUIET)
        assert live.desk.draft().done == {ticked_now: "yes"}
        assert name in {row["id"] for row in live.desk.rows()}
        window.context.close()
    finally:
        live.end()


@pytest.mark.slow
def test_two_tabs_do_not_write_over_each_other(tab, live):
    second = tab.another()
    names = [row["id"] for row in live.desk.rows()][:6]
    for k, name in enumerate(names):
        window = (tab, second)[k % 2]
        window.locator("tbody tr", has=window.locator(f"th:has-text('{name}')")).locator("input[value=yes]").check()
    until(lambda: live.desk.draft().done == dict.fromkeys(names, "yes"))
    for window in (tab, second):
        window.reload()
    for window in (tab, second):
        assert window.locator("input[value=yes]:checked").count() == len(names)


@pytest.mark.slow
def test_a_killed_server_says_so_and_a_new_one_has_everything(home, chromium, tmp_path):
    shutil.copytree(home, tmp_path / "own")
    with Served(tmp_path / "own") as served:
        window = chromium.new_context().new_page()
        window.goto(served.address)
        name = window.locator("tbody th").first.inner_text()
        window.locator("tbody tr").first.locator("input[value=yes]").check()
        until(lambda: Desk(tmp_path / "own").draft().done == {name: "yes"})
        served.kill()
        window.locator("tbody tr").nth(1).locator("input[value=yes]").check()
        window.wait_for_selector("#job [role=alert]", timeout=QUIET)
    with Served(tmp_path / "own") as again:
        window.goto(again.address)
        assert window.locator("tbody tr", has_text=name).first.locator("input[value=yes]").is_checked()
        window.context.close()


@pytest.mark.slow
def test_every_view_is_for_everybody_at_every_width(tab, live):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    live.desk.redecide(Asked().locked(outside(live.desk), "in"))
    name = live.desk.rows()[0]["id"]
    for width in (360, 800, 1400):
        tab.set_viewport_size({"width": width, "height": 900})
        for path in (*VIEWS, f"/why?id={name}"):
            tab.goto(live.root + path)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
            if width == 800:
                found = axe.run(tab)
                assert found.violations_count == 0, (path, found.generate_report())


@pytest.mark.slow
def test_the_keyboard_alone_reaches_everything(tab, live):
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("Enter")
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.id") == "q"
    tab.keyboard.type(live.desk.rows()[0]["id"])
    tab.wait_for_selector("#people li")
    first = tab.locator(".acts summary").first
    first.focus()
    tab.keyboard.press("Enter")
    assert tab.locator(".acts details[open]").count() == 1
    tab.keyboard.press("Escape")
    assert tab.locator(".acts details[open]").count() == 0


@pytest.mark.slow
def test_the_page_speaks_spanish_when_asked(tab, live):
    tab.select_option("#language", "es")
    tab.click(".language button")
    assert tab.inner_text("h1") == f"Semana {live.desk.week}"
    assert tab.get_attribute("html", "lang") == "es"
