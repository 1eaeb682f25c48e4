"""Nobody but this machine, this page and this start gets an answer; whatever stands in a sheet stays text."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from urllib.parse import quote

import pytest
from pages import HOST, TOKEN, ended, page_of
from programmes import sheets

from rmab_opt.page import words
from rmab_opt.page.safety import MOST_BYTES, MOST_WRONG
from rmab_opt.page.words import LANGUAGES
from rmab_opt.programme.columns import PlanSection
from rmab_opt.programme.folder import start

NASTY = "<script>alert(1)</script>\"'&{{7*7}}"
VIEWS = ("/", "/why", "/what-if", "/groups", "/changes", "/record", "/proof")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A programme whose names are attacks."""
    folder = tmp_path_factory.mktemp("nasty")
    given = sheets(folder / "sheets", n=40, weeks=6)
    for name in ("register", "log"):
        text = given[name].read_text(encoding="utf-8-sig")
        text = re.sub("(?m)^007;", lambda _: '"' + NASTY.replace('"', '""') + '";', text)
        given[name].write_text(text, encoding="utf-8-sig")
    plan = PlanSection(weeks=4)
    start(given["register"], folder / "home", log=given["log"], roster=given["roster"], plan=plan)
    return folder / "home"


@pytest.fixture
def asked(home, tmp_path):
    folder = tmp_path / "home"
    shutil.copytree(home, folder)
    return (*page_of(folder), folder)


class Tags(HTMLParser):
    """Tags, and attributes that would run something."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.inline = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "script":
            self.scripts.append(dict(attrs).get("src"))
        self.inline += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self.inline += [tag] if tag in ("style", "iframe", "object") else []


def test_nothing_is_answered_without_the_key(asked):
    _, browser, _ = asked
    for path in (*VIEWS, "/file/list.csv", "/picture/load.svg", "/job", "/static/page.js"):
        for cookie in (None, "", "another", TOKEN + "x"):
            answer = browser.get(path, cookie=cookie)
            assert answer.status_code == 403
            assert "Family" not in answer.text
    assert browser.get("/?token=wrong", cookie=None).status_code == 403
    handed = browser.get(f"/?token={TOKEN}", cookie=None)
    assert handed.status_code == 303
    assert handed.headers["location"] == "/"
    assert handed.headers["set-cookie"] == f"rmab_opt={TOKEN}; Path=/; HttpOnly; SameSite=Strict"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1", "127.0.0.1:8001", "127.0.0.1.evil:8000"]
)
def test_a_name_that_was_bent_to_this_machine_is_refused(asked, host):
    _, browser, _ = asked
    assert browser.get("/", host=host).status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", f"https://{HOST}", f"http://{HOST}.evil", None])
def test_a_form_of_another_page_changes_nothing(asked, origin):
    page, browser, _ = asked
    before = page.desk.draft()
    for path, data in (("/lock", {"id": "001", "how": "in"}), ("/tick", {"id": "001", "done": "yes"}), ("/record", {})):
        assert browser.post(path, data, origin=origin).status_code == 403
    assert page.jobs.last is None
    assert page.desk.draft() == before


def test_a_page_of_another_site_gets_nothing_although_the_browser_asks(asked):
    _, browser, _ = asked
    assert browser.get("/file/list.csv", origin="http://evil.example").status_code == 403
    crossed = browser.post("/stop", {}, headers={"sec-fetch-site": "cross-site"})
    assert crossed.status_code == 403


@pytest.mark.parametrize(
    "path",
    ["/file/../model.yaml", "/file/..%2fmodel.yaml", "/file/x",
     "/file/%2e%2e/model.yaml", "/file//etc/passwd",
     "/static/../app.py", "/static/..%2fapp.py", "/static/%2fetc%2fpasswd", "/picture/..%2f..%2fx.svg", "/model.yaml"],
)  # fmt: skip
def test_no_file_outside_what_is_offered(asked, path):
    _, browser, _ = asked
    answer = browser.get(path)
    assert answer.status_code == 404
    assert "format: 1" not in answer.text
    assert "import" not in answer.text


def test_script_in_names_stays_text_and_no_page_holds_a_script_of_its_own(asked):
    _, browser, _ = asked
    nasty = quote(NASTY)
    more = ("/people?q=script", f"/people?q={nasty}", f"/why?id={nasty}", f"/?by={nasty}", f"/groups?by={nasty}")
    for path in (*VIEWS, *more):
        answer = browser.get(path)
        found = Tags(answer.text)
        assert set(found.scripts) <= {"/static/htmx.min.js", "/static/page.js"}, path
        assert not found.inline, path
        assert "<script>alert" not in answer.text
    assert "&lt;script&gt;alert(1)" in browser.get("/people?q=script").text


def test_every_answer_forbids_what_it_does_not_need(asked):
    _, browser, _ = asked
    for path in (*VIEWS, "/static/htmx.min.js", "/nowhere", "/file/list.csv"):
        policy = browser.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert browser.get(path).headers["x-frame-options"] == "DENY"
        assert browser.get(path).headers["cache-control"] == "no-store"
    assert browser.get("/", host="evil").headers["content-security-policy"]


def test_uploads_that_are_too_large_or_malformed_record_nothing(asked):
    page, browser, _ = asked
    week = page.desk.week
    said = browser.ask("POST", "/upload", headers={"content-length": str(MOST_BYTES + 1)}, content=b"x")
    assert said.status_code == 413
    for name, content in (
        ("list.csv", b""), ("list.csv", b"\x00\x01\x02\xff" * 50), ("list.xlsx", b"PK\x03\x04 no workbook"),
        ("list.csv", b"id,done\nnobody,yes\n"), ("list.csv", b"id,done\n001,perhaps\n"), ("list.ods", b"<xml>"),
        ("../../list.csv", b"id\nnobody\n"),
    ):  # fmt: skip
        answer = browser.ask("POST", "/upload", files={"outcomes": (name, content)})
        assert answer.status_code in (303, 400)
        job = ended(page)
        assert job.error is not None
        assert "internal error" not in job.error.message, (name, job.error)
    for name in ("list.exe", "list", "list.html", "list.csv.py"):
        assert browser.ask("POST", "/upload", files={"outcomes": (name, b"id,done\n")}).status_code == 400
    garbage = browser.ask(
        "POST", "/upload", content=b"--x\r\nbroken", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert garbage.status_code == 400
    assert page.desk.week == week
    assert not page.desk.ledger().rounds


def test_a_body_that_grows_beyond_what_it_said_is_cut(asked):
    _, browser, _ = asked

    async def flood():
        for _ in range(MOST_BYTES // 2**20 + 2):
            yield b"a" * 2**20

    answer = browser.ask(
        "POST", "/tick", content=flood(), headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 413


def test_an_office_needs_the_password_and_too_many_wrong_ones_shut_the_door(home, tmp_path):
    shutil.copytree(home, tmp_path / "home")
    _, browser = page_of(tmp_path / "home", password="open sesame")
    door = browser.get("/", cookie=None)
    assert door.status_code == 401
    assert 'name="password"' in door.text
    assert browser.post("/password", {"password": "wrong"}, cookie=None).status_code == 401
    right = browser.post("/password", {"password": "open sesame"}, cookie=None)
    assert right.status_code == 303
    assert TOKEN in right.headers["set-cookie"]
    for _ in range(MOST_WRONG):
        browser.post("/password", {"password": "wrong"}, cookie=None)
    assert browser.post("/password", {"password": "open sesame"}, cookie=None).status_code == 401


def test_both_languages_have_every_text_with_the_same_parts():
    english = words._read("en")
    for language in LANGUAGES:
        own = words._read(language)
        assert set(own) == set(english)
        for key, text in own.items():
            assert sorted(re.findall(r"\{(\w+)\}", text)) == sorted(re.findall(r"\{(\w+)\}", english[key])), key


def test_templates_ask_for_words_that_there_are(asked):
    _, browser, _ = asked
    for path in VIEWS:
        assert '<html lang="es">' in browser.get(path, spanish=True).text
