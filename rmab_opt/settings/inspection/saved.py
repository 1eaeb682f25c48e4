"""A plan kept in a folder with the log of all that happened to it; every re-plan replays the whole log."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rmab_opt.decisions.model import Model
from rmab_opt.errors import ModelError
from rmab_opt.records import Log, held, json_text, read_regular, write_atomically
from rmab_opt.settings.inspection.calendar import Calendar, again, calendar, dates_of, slot_names
from rmab_opt.settings.inspection.dates import DEADLINES, Dates, read_date
from rmab_opt.settings.inspection.events import EVENTS, CalendarEvent
from rmab_opt.settings.inspection.kinds import visits_of
from rmab_opt.settings.inspection.views import refuse_views, write_views

__all__ = ["SavedPlan", "read_event", "read_slot"]

MANIFEST = "plan.json"
LOG = "log"


@dataclass(frozen=True, eq=False)
class SavedPlan:
    """A folder with a plan: the model it is of, and the log of plans and events.

    ``source`` and ``sets`` say how the model is loaded; ``digest`` what it was when the plan was made.
    """

    folder: Path
    model: Model
    log: Log[CalendarEvent] = field(repr=False)

    @classmethod
    def create(
        cls, folder: str | Path, model: Model, source: str, sets: Sequence[str] = ()
    ) -> tuple[SavedPlan, Calendar]:
        """Plan and keep; a folder that holds a plan already is refused.

        Raises
        ------
        ModelError
            When there is a plan in the folder.
        InfeasibleError
            When nothing satisfies the constraints.
        """
        folder = Path(folder)
        with held(folder, "plans here"):
            if (folder / MANIFEST).exists():
                raise ModelError(f"{folder}: holds a plan already", "use `rmab-opt replan`, or name another folder.")
            refuse_views(folder)
            plan = calendar(model)
            log = Log(folder / LOG, CalendarEvent, stem="event")
            for event in plan.log:
                log.append(event)
            about = {"format": 1, "model": source, "sets": list(sets), "digest": _digest(model)}
            write_atomically(folder / MANIFEST, json_text(about) + "\n", kept=True)
            write_views(folder, plan, dates_of(model))
        return cls(folder, model, log), plan

    @staticmethod
    def source(folder: str | Path) -> tuple[str, list[str]]:
        """(model, values of --set) of the plan in a folder.

        Raises
        ------
        ModelError
            When there is none.
        """
        about = _manifest(Path(folder))
        return str(about["model"]), [str(entry) for entry in about["sets"]]

    @classmethod
    def open(cls, folder: str | Path, model: Model) -> SavedPlan:
        """The plan of a folder.

        Raises
        ------
        ModelError
            When the model is not the one that was planned, or the log was altered.
        """
        folder = Path(folder)
        if _manifest(folder)["digest"] != _digest(model):
            raise ModelError(
                f"{folder}: the model changed since the plan was made",
                "put back the model and its tables, or make a new plan; changes of a season are events.",
            )
        return cls(folder, model, Log(folder / LOG, CalendarEvent, stem="event"))

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the slots."""
        return tuple(slot_names(visits_of(self.model.actions.columns).n_slots, self.dates))

    @property
    def dates(self) -> Dates | None:
        """Dates of the slots, where the model gives them."""
        return dates_of(self.model)

    @property
    def now(self) -> int:
        """First slot that the newest plan had open."""
        return max((e.slot for e in self.log.entries if e.event == "planned"), default=0)

    def replan(self, events: Sequence[CalendarEvent] = (), *, now: int | None = None, stay: float = 0.0) -> Calendar:
        """Plan the rest again after some events, keep both in the log and write the views.

        Raises
        ------
        ModelError
            When an event cannot be, or ``now`` lies before the newest plan's; nothing is kept then.
        """
        if not math.isfinite(stay):
            raise ModelError(f"stay is {stay}", "give a finite reward.")
        slots = self.slots
        latest = [e.slot + 1 for e in events if e.event in ("done", "missed")]
        now = max([self.now, *latest]) if now is None else now
        if not self.now <= now < len(slots):
            raise ModelError(f"now is slot {now}", f"give one from {self.now} to {len(slots) - 1}.")
        for event in events:
            if event.event in ("done", "missed") and event.slot >= now:
                raise ModelError(f"{event.event} {event.arm} in {slots[event.slot]} lies ahead", "give a later --now.")
        with held(self.folder, "re-plans here"):
            refuse_views(self.folder)
            plan = again(self.model, (*self.log.entries, *events), now, slots=slots, stay=stay)
            for entry in (*events, plan.log[-1]):
                self.log.append(entry)
            write_views(self.folder, plan, self.dates)
        return plan


def _manifest(folder: Path) -> Mapping[str, Any]:
    path = folder / MANIFEST
    if not path.exists():
        raise ModelError(f"{folder}: holds no plan", "make one with `rmab-opt plan MODEL --out DIR`.")
    try:
        about = json.loads(read_regular(path))
        return {key: about[key] for key in ("format", "model", "sets", "digest")}
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{path}: is no plan's manifest", "put back the original file from a copy.") from None


def _digest(model: Model) -> str:
    """Of everything that a plan depends on: rules, arms, decay, start."""
    arms = model.problem.arms
    found = hashlib.sha256()
    told = {"rules": model.actions.describe(), "calendar": model.settings.get("calendar")}
    found.update(json.dumps(told, sort_keys=True, default=str).encode())
    for name in sorted(arms.columns):
        found.update(json.dumps([name, arms.text(name)]).encode())
    chains = getattr(model.problem.dynamics, "chains", None)
    for array in (getattr(chains, "beliefs", None), model.problem.start):
        if array is not None:
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def read_event(given: Mapping[str, Any] | str, dates: Dates | None) -> CalendarEvent:
    """An event as a person writes it: ``kind=complaint arm=r12 on=2026-03-02 by=2026-03-05``, or a table's row.

    ``on`` and ``by`` are dates or slots. A complaint, an opening or a failed visit without ``by`` gets the deadline of
    the model's section ``calendar``.

    Raises
    ------
    ModelError
        When a word is unknown or a value is not what it must be; names it.
    """
    if isinstance(given, str):
        pairs = [word.partition("=") for word in given.split()]
        words = {key: value for key, _, value in pairs}
    else:
        words = {str(key): str(value) for key, value in given.items() if str(value).strip()}
    allowed = ("kind", "arm", "on", "by", "change", "group", "window", "like", "note")
    unknown = [key for key in words if key not in allowed]
    if unknown:
        raise ModelError(f"event {given!r}: unknown word {unknown[0]!r}", f"use {', '.join(allowed)}.")
    kind = words.get("kind", "")
    if kind not in (*EVENTS, "failed"):
        raise ModelError(f"event {given!r}: kind is {kind!r}", f"use one of {', '.join((*EVENTS, 'failed'))}.")
    if "on" not in words:
        raise ModelError(f"event {given!r}: on is missing", "give the date or slot, as on=2026-03-02.")
    first, last = _slots(words, kind, dates)
    try:
        change = int(words.get("change", "0"))
    except ValueError:
        raise ModelError(f"event {given!r}: change is {words['change']!r}", "give a whole number, as -2.") from None
    window = words.get("window", "")
    note = words.get("note", "re-inspection" if kind == "failed" else "")
    return CalendarEvent(
        event="complaint" if kind == "failed" else kind,  # type: ignore[arg-type]
        arm=words.get("arm", ""), slot=first, last=last, change=change, group=words.get("group", ""),
        window=window if dates is None else dates.window(window), like=words.get("like", ""), note=note,
    )  # fmt: skip


def read_slot(text: str, dates: Dates | None, where: str) -> int:
    """A slot from a date or a number.

    Raises
    ------
    ModelError
        When it is neither, or a date where the model has none.
    """
    if re.fullmatch(r"\d+", text.strip()):
        return int(text)
    if dates is None:
        raise ModelError(
            f"{where} {text!r}: the model has no dates", "give a slot's number, or add `calendar: {start: ...}`."
        )
    return dates.slot(read_date(text, where))


def _slots(words: Mapping[str, str], kind: str, dates: Dates | None) -> tuple[int, int | None]:
    """First and last slot of an event."""
    first = read_slot(words["on"], dates, f"event {kind}: on")
    last = read_slot(words["by"], dates, f"event {kind}: by") if "by" in words else None
    if kind in DEADLINES and last is None and dates is not None:
        on = dates.first(first) if words["on"].isdigit() else read_date(words["on"])
        last = dates.slot(dates.deadline(kind, on))
    if first < 0 or (last is not None and last < first):
        raise ModelError(f"event {kind}: from {words['on']} to {words.get('by', '')}", "write the earlier date first.")
    return first, last
