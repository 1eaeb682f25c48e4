"""The planner's page: a local server whose every answer comes from the desk; it decides nothing itself."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import threading
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from rmab_opt.errors import ModelError, RmabError
from rmab_opt.page import pictures, views
from rmab_opt.page.jobs import Jobs
from rmab_opt.page.safety import MOST_BYTES, Door, Guard
from rmab_opt.page.words import LANGUAGES, words
from rmab_opt.programme.asked import Asked, Event
from rmab_opt.programme.desk import Desk
from rmab_opt.solver import Progress

__all__ = ["VIEWS", "Page", "new_token"]

VIEWS = {
    "week": "/", "why": "/why", "what_if": "/what-if", "groups": "/groups", "changes": "/changes",
    "record": "/record", "proof": "/proof",
}  # fmt: skip
"""Views and their addresses, in the order of a week."""

STATIC = {"page.css": "text/css", "page.js": "text/javascript", "htmx.min.js": "text/javascript"}

READ = ("week", "people", "record", "changes", "groups")
"""Views that only read files: they wait for nobody's question."""

SHEETS = (".csv", ".txt", ".xlsx", ".ods")
"""Endings of sheets that are taken."""

FIELDS = 40_000
"""Most fields of a form: two a family of a long list."""

Handler = Callable[[Request], Awaitable[Response]]


def new_token() -> str:
    """A key of one start, 192 random bits."""
    return secrets.token_urlsafe(24)


class Page:
    """The application over one desk.

    Parameters
    ----------
    desk
        The folder that is worked on.
    door
        Who is let in.
    """

    def __init__(self, desk: Desk, door: Door) -> None:
        self.desk, self.jobs = desk, Jobs()
        # Questions share compiled programs, which one thread may use at a time.
        self._asking = threading.Lock()
        self._warm = False
        self.templates = Environment(
            loader=PackageLoader("rmab_opt.page"), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self.templates.filters["figure"] = figure
        self.app = Guard(Starlette(routes=self._routes(), exception_handlers={404: self._missing}), door)

    def _routes(self) -> list[Route]:
        view, post = self._view, partial(Route, methods=["POST"])
        return [
            Route("/", view("week", lambda q: views.week(self.desk, q.get("by", ""), _whole(q.get("page"), 1)))),
            Route("/people", view("people", lambda q: views.people(self.desk, q.get("q", "")))),
            Route("/why", view("why", lambda q: views.why(self.desk, q.get("id", "").strip()))),
            Route("/alternatives", view("alternatives", lambda q: {"lists": views.alternatives(self.desk)})),
            Route("/places", view("places", self._places)),
            Route("/what-if", view("what_if", lambda q: {**views.limits(self.desk), "result": self._compared()})),
            Route("/slide", view("slide", self._slide)),
            Route("/groups", view("groups", lambda q: views.groups(self.desk, q.get("by", "")))),
            Route("/fairness", view("fairness", lambda q: views.fairness(self.desk, q.get("by", "")))),
            Route("/changes", view("changes", lambda q: views.changes(self.desk))),
            Route("/record", view("record", lambda q: {**views.record(self.desk), "faults": None})),
            Route("/proof", view("proof", lambda q: views.proof(self.desk))),
            Route("/job", self._job),
            Route("/picture/{name}.svg", self._picture),
            Route("/file/{name}", self._file),
            Route("/static/{name}", _static),
            post("/tick", self._tick),
            post("/lock", self._lock),
            post("/move", self._move),
            post("/relax", self._relax),
            post("/stop", self._stop),
            post("/dismiss", self._dismiss),
            post("/compare", self._compare),
            post("/event", self._event),
            post("/record", self._record),
            post("/upload", self._upload),
            post("/language", self._language),
        ]

    def warm(self) -> None:
        """Load what the first question needs; what goes wrong is said when it is asked."""
        with contextlib.suppress(RmabError), self._asking:
            self.desk.live()

    # ------------------------------------------------------------------------------------------------------- answering
    def _render(self, request: Request, template: str, status: int = 200, /, **shown: Any) -> HTMLResponse:
        language = request.cookies.get("language", "en")
        language = language if language in LANGUAGES else "en"
        context = {
            "t": words(language), "language": language, "languages": LANGUAGES, "views": VIEWS, "view": template,
            "job": self.jobs.last, "folder": self.desk.folder.resolve().name, **shown,
        }  # fmt: skip
        return HTMLResponse(self.templates.get_template(f"{template}.html").render(context), status)

    def _view(self, name: str, make: Callable[[Mapping[str, str]], dict[str, Any]]) -> Handler:
        """A handler that shows what ``make`` gives for the address's query."""

        def made(query: Mapping[str, str]) -> dict[str, Any]:
            with contextlib.nullcontext() if name in READ else self._asking:
                return make(query)

        async def handler(request: Request) -> Response:
            try:
                shown = await run_in_threadpool(made, request.query_params)
            except RmabError as error:
                return self._refused(request, error)
            if name == "week" and not self._warm:
                # After the first list, so that nothing stands in its way.
                self._warm = True
                threading.Thread(target=self.warm, name="rmab-opt page warm", daemon=True).start()
            return self._render(request, name, **shown)

        return handler

    def _refused(self, request: Request, error: RmabError) -> Response:
        part = "trouble" if request.headers.get("hx-request") else "error"
        # htmx leaves the answer of a refused request out; the sentence must be seen.
        status = 200 if part == "trouble" else 400
        return self._render(request, part, status, error=error, clash=getattr(error, "clash", {}), asked=None)

    async def _missing(self, request: Request, error: Exception) -> Response:
        trouble = ModelError(words(request.cookies.get("language", "en"))("error.missing"))
        return self._render(request, "error", 404, error=trouble, clash={}, asked=None)

    async def _form(self, request: Request) -> Any:
        return await request.form(max_files=2, max_fields=FIELDS, max_part_size=MOST_BYTES)

    async def _begin(
        self, request: Request, what: str, back: str, work: Callable[[Progress], Any], asked: Asked | None = None
    ) -> Response:
        """Start a job and show how it goes; another one must have ended."""
        job = self.jobs.start(what, back, work)
        if job is None:
            said = words(request.cookies.get("language", "en"))("job.busy")
            return self._refused(request, ModelError(said))
        job.about = asked
        return self._render(request, "job") if request.headers.get("hx-request") else RedirectResponse(back, 303)

    # ------------------------------------------------------------------------------------------------ this week's list
    async def _tick(self, request: Request) -> Response:
        form = await self._form(request)
        name, done, seen = _text(form, "id"), form.get("done"), form.get("state")

        def noted() -> None:
            if name not in self.desk.members() and name not in self.desk.document()["ids"]:
                raise ModelError(f"nobody has the id {name!r}")
            self.desk.note(
                lambda draft: draft.model_copy(
                    update={
                        "done": _with(draft.done, name, done, ("yes", "no")),
                        "state": _with(draft.state, name, seen, views.state_names(self.desk)),
                    }
                )
            )

        try:
            await run_in_threadpool(noted)
        except RmabError as error:
            return self._refused(request, error)
        return Response(status_code=204)

    async def _lock(self, request: Request) -> Response:
        form = await self._form(request)
        names, how = [_text(form, "id")], _text(form, "how")
        return await self._again(request, lambda asked: _locked(asked, names, how))

    async def _move(self, request: Request) -> Response:
        form = await self._form(request)
        name, worker, slot = (_text(form, key) for key in ("id", "worker", "slot"))
        return await self._again(request, lambda asked: asked.moved(name, worker, slot))

    async def _relax(self, request: Request) -> Response:
        form = await self._form(request)
        name, last = _text(form, "name"), self.jobs.last
        tried = last.about if last is not None and last.about is not None and last.error is not None else None
        return await self._again(request, lambda asked: (tried or asked).model_copy(update={"relax": name or None}))

    async def _again(self, request: Request, change: Callable[[Asked], Asked]) -> Response:
        """The list once more under what is asked, as a job."""
        try:
            asked = change(self.desk.draft().asked)
        except RmabError as error:
            return self._refused(request, error)

        def work(progress: Progress) -> None:
            self.desk.redecide(asked, progress)

        return await self._begin(request, "redecide", "/", work, asked)

    def _places(self, query: Mapping[str, str]) -> dict[str, Any]:
        name = query.get("id", "").strip()
        self.desk.why(name)
        return {"name": name, "places": self.desk.places(name)}

    # ------------------------------------------------------------------------------------------------------------ jobs
    async def _job(self, request: Request) -> Response:
        job = self.jobs.last
        if job is not None and not job.done:
            job.track.append((job.seconds, job.progress.value, job.progress.bound))
        answer = self._render(request, "job")
        if job is not None and job.done and job.error is None:
            # Only windows that show the job ask; each is led to what came of it.
            answer.headers["HX-Redirect"] = job.back
        return answer

    async def _stop(self, request: Request) -> Response:
        if (job := self.jobs.running) is not None:
            job.stopped = True
            job.progress.stop()
        return self._render(request, "job")

    async def _dismiss(self, request: Request) -> Response:
        if self.jobs.running is None:
            self.jobs.last = None
        return self._render(request, "job")

    # ------------------------------------------------------------------------------------------------------- what if
    def _slide(self, query: Mapping[str, str]) -> dict[str, Any]:
        name, value, change = query.get("name", ""), query.get("value", ""), query.get("change", "")
        if name:
            # A worker's slider says whose calls; a limit's name stands for itself.
            change = f"{name}{':' if name.startswith('calls=') else '='}{_whole(value, 0)}"
        return views.slide(self.desk, change)

    async def _compare(self, request: Request) -> Response:
        form = await self._form(request)
        cases = [case for case in (str(one) for one in form.getlist("case")) if case][:3]
        column = _text(form, "column")

        def work(_: Progress) -> dict[str, Any]:
            return views.side_by_side(self.desk, cases, column)

        return await self._begin(request, "compare", "/what-if", work)

    def _compared(self) -> dict[str, Any] | None:
        job = self.jobs.last
        found = job.answer if job is not None and job.what == "compare" and job.done else None
        return {"columns": views.group_columns(self.desk), "found": found}

    # ------------------------------------------------------------------------------------------------------- recording
    async def _event(self, request: Request) -> Response:
        form = await self._form(request)
        given = {key.removeprefix("cell-"): value for key, value in form.items() if key.startswith("cell-")}
        cells = {key: str(value).strip() for key, value in given.items()}
        name, what, drop = _text(form, "id"), _text(form, "event"), _text(form, "drop")

        def noted() -> None:
            if not drop and not name:
                raise ModelError("an event without an id", "say whom it is about.")

            def change(draft: Any) -> Any:
                kept = tuple(event for event in draft.events if event.id != (drop or name))
                own = Event(id=name, event=what, cells={key: cell for key, cell in cells.items() if cell})
                return draft.model_copy(update={"events": kept if drop else (*kept, own)})

            self.desk.note(change)

        try:
            await run_in_threadpool(noted)
        except RmabError as error:
            return self._refused(request, error)
        return RedirectResponse("/record", 303)

    async def _record(self, request: Request) -> Response:
        draft = self.desk.draft()
        listed = list(dict.fromkeys(row["id"] for row in self.desk.rows()))
        sheets = {"outcomes.csv": draft.outcomes(listed).encode()}
        if draft.events:
            sheets["changes.csv"] = draft.register().encode()
        return await self._taken(request, sheets)

    async def _upload(self, request: Request) -> Response:
        form = await self._form(request)
        sheets: dict[str, bytes] = {}
        for key in ("outcomes", "register"):
            file = form.get(key)
            name = getattr(file, "filename", "") or ""
            if not name:
                continue
            suffix = Path(name).suffix.lower()
            if suffix not in SHEETS:
                error = ModelError(f"{name}: a sheet ends in {', '.join(SHEETS)}", "send the sheet itself.")
                return await self._faults(request, error)
            sheets[f"{'outcomes' if key == 'outcomes' else 'changes'}{suffix}"] = await file.read()  # type: ignore[union-attr]
        if not any(name.startswith("outcomes") for name in sheets):
            return await self._faults(request, ModelError("no sheet with outcomes", "choose one."))
        if self.desk.draft().events and not any(name.startswith("changes") for name in sheets):
            sheets["changes.csv"] = self.desk.draft().register().encode()
        return await self._taken(request, sheets)

    async def _taken(self, request: Request, sheets: Mapping[str, bytes]) -> Response:
        """Record by the sheets; faults are shown by row, and then nothing is recorded."""

        def work(_: Progress) -> list[str]:
            with tempfile.TemporaryDirectory(prefix="rmab-opt-") as name:
                paths = {}
                for file, content in sheets.items():
                    path = Path(name) / file
                    path.write_bytes(content)
                    paths[file.partition(".")[0]] = path
                return self.desk.record(paths["outcomes"], paths.get("changes"))

        job = self.jobs.start("record", "/", work)
        if job is None:
            return await self._faults(request, ModelError(words(request.cookies.get("language", "en"))("job.busy")))
        return RedirectResponse("/record", 303)

    async def _faults(self, request: Request, error: RmabError) -> Response:
        shown = await run_in_threadpool(views.record, self.desk)
        return self._render(request, "record", 400, **shown, faults=faults_of(error))

    # ---------------------------------------------------------------------------------------------------- files, words
    async def _picture(self, request: Request) -> Response:
        name, query, t = request.path_params["name"], request.query_params, words(request.cookies.get("language", "en"))

        def drawn() -> bytes | None:
            if name == "groups":
                rows = views.groups(self.desk, query.get("by", ""))["rows"]
                return pictures.bars([(row["group"], 100 * row["share"]) for row in rows], " %")
            if name == "load":
                counts: dict[str, float] = {}
                for row in self.desk.rows():
                    label = row.get("worker") or "-"
                    counts[label] = counts.get(label, 0.0) + 1
                return pictures.bars(sorted(counts.items()))
            job = self.jobs.last
            if name == "cases" and job is not None and isinstance(job.answer, dict):
                rows = [(row["case"], row["number"]) for row in job.answer["rows"] if row["number"] is not None]
                return pictures.bars(rows, zero=False)
            if name == "solve" and job is not None:
                track = [one for one in job.track if abs(one[1]) < 1e20 and abs(one[2]) < 1e20]
                return pictures.moving(track, (t("job.best"), t("job.bound"), "s"))
            return None

        try:
            found = await run_in_threadpool(drawn)
        except RmabError as error:
            return self._refused(request, error)
        if found is None:
            return Response(status_code=404)
        # A picture's own style stands in it; nothing else may.
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        return Response(found, media_type="image/svg+xml", headers={"content-security-policy": policy})

    async def _file(self, request: Request) -> Response:
        """One of this week's files, by a fixed name: no path is ever made of what is asked."""
        kinds = {
            "list.csv": (".csv", "text/csv"), "certificate.json": (".json", "application/json"),
            "list.xlsx": (".xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        }  # fmt: skip
        name = request.path_params["name"]
        if name not in kinds:
            return await self._missing(request, Exception())
        suffix, kind = kinds[name]
        path = self.desk.path(suffix=suffix)
        if not path.is_file():
            return await self._missing(request, Exception())
        content = await run_in_threadpool(path.read_bytes)
        disposition = f'attachment; filename="{path.name}"'
        return Response(content, media_type=kind, headers={"content-disposition": disposition})

    async def _language(self, request: Request) -> Response:
        form = await self._form(request)
        chosen = _text(form, "language")
        back = _text(form, "back")
        answer = RedirectResponse(back if back in VIEWS.values() else "/", 303)
        answer.set_cookie("language", chosen if chosen in LANGUAGES else "en", samesite="strict", max_age=31_536_000)
        return answer


def figure(value: Any, digits: int = 6) -> str:
    """A number as a person reads it."""
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, int | float) else str(value)


def faults_of(error: RmabError) -> list[tuple[str, str]]:
    """The places that a sheet is wrong at, each with what is wrong there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = []
    for line in lines:
        where, sign, what = line.partition(": ")
        found.append((where, what) if sign else ("", line))
    return found


def _text(form: Any, key: str) -> str:
    value = form.get(key, "")
    return value.strip() if isinstance(value, str) else ""


def _whole(text: str | None, other: int) -> int:
    return int(text) if text is not None and text.isdigit() and len(text) < 10 else other


def _with(noted: Mapping[str, str], name: str, word: Any, known: Any) -> dict[str, str]:
    """With a word noted of somebody; nothing or an unknown word takes it away, None leaves it."""
    if word is None:
        return dict(noted)
    rest = {one: said for one, said in noted.items() if one != name}
    return {**rest, name: str(word)} if word in known else rest


def _locked(asked: Asked, names: list[str], how: str) -> Asked:
    for name in names:
        asked = asked.locked(name, how)
    return asked


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        return Response(status_code=404)
    content = await run_in_threadpool((Path(__file__).parent / "static" / name).read_bytes)
    return Response(content, media_type=STATIC[name])
