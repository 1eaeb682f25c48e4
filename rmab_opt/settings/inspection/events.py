"""What happens to a calendar, as entries of a log: replayed from the first, they say what is due now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from pydantic import Field

from rmab_opt.errors import ModelError
from rmab_opt.problem import Arms, Table
from rmab_opt.problem.table import nearest
from rmab_opt.records import Entry
from rmab_opt.settings.inspection.beliefs import EncodedArms, Windows

__all__ = ["CalendarEvent", "Happened", "Promise", "replay"]

Kind = Literal[
    "planned", "done", "missed", "complaint", "closed", "opened", "window", "capacity", "leave", "holiday"
]  # fmt: skip


class CalendarEvent(Entry):
    """Something that happened to a calendar, or a plan that was made."""

    format: int = 1
    event: Kind
    arm: str = ""
    """Whom it is about; of ``leave`` the inspector."""
    slot: int = Field(default=0, ge=0)
    """When: of ``planned`` the first slot that was still open."""
    last: int | None = Field(default=None, ge=0)
    """Last slot, of what lasts or has a deadline; the same slot by default."""
    change: int = 0
    """Of ``capacity``: visits a slot more or, below zero, fewer."""
    group: str = ""
    """Of ``capacity``: whose slots, a value of the attribute that slots are divided by; empty for all."""
    window: str = ""
    """Of ``window`` and ``opened``: the open slots, as in the arms' table."""
    like: str = ""
    """Of ``opened``: the arm whose decay and attributes the new one has."""
    visits: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Of ``planned``: slots by arm, the past included."""
    prices: dict[str, float] = Field(default_factory=dict)
    """Of ``planned``, where it was large: prices of rows in common, to begin the next plan from."""
    note: str = ""
    """Why, in words."""

    @property
    def end(self) -> int:
        """The last slot it is about."""
        return self.slot if self.last is None else self.last


@dataclass(frozen=True)
class Promise:
    """A visit that an event requires between two slots, both included."""

    arm: int
    first: int
    last: int
    why: str


@dataclass(frozen=True, eq=False)
class Happened:
    """Where a calendar stands after all its events.

    ``visits`` bool (N, T) took place or are foreseen; ``planned`` is the plan before; ``shut`` are cells in which
    nobody can be visited, ``gone`` (N,) arms to which nothing is due any more, ``moved`` (N,) those with
    windows that the model does not know; ``room`` are changes of capacity.
    ``news`` are events since the plan before, ``prices`` its rows' prices.
    """

    arms: EncodedArms
    cohort: Arms
    age: np.ndarray
    visits: np.ndarray
    planned: np.ndarray | None
    shut: np.ndarray
    gone: np.ndarray
    moved: np.ndarray
    promises: tuple[Promise, ...] = ()
    room: tuple[CalendarEvent, ...] = ()
    now: int = 0
    prices: Mapping[str, float] = field(default_factory=dict)
    news: tuple[CalendarEvent, ...] = ()


def replay(start: Happened, events: Iterable[CalendarEvent], window: str = "window") -> Happened:
    """Where the calendar stands after events, in their order.

    Parameters
    ----------
    window
        Column of the arms' table with their open slots.

    Raises
    ------
    ModelError
        When an event cannot be: an arm that is not there, a visit that was not planned, a slot out of range.
    """
    at = start
    for event in events:
        at = _after(at, event, window)
    return at


def _after(at: Happened, event: CalendarEvent, window: str) -> Happened:
    n_slots = at.visits.shape[1]
    if event.event == "planned":
        table = np.zeros_like(at.visits)
        for name, slots in event.visits.items():
            table[at.cohort.index(name), list(slots)] = True
        return replace(at, visits=table, planned=table.copy(), now=event.slot, prices=event.prices, news=())
    if not event.slot <= event.end < n_slots:
        raise ModelError(
            f"{event.event} {event.arm!r}: slots {event.slot} to {event.end}", f"give slots from 0 to {n_slots - 1}."
        )
    at = replace(at, news=(*at.news, event))
    if event.event in ("capacity", "leave"):
        return replace(at, room=(*at.room, event))
    if event.event == "holiday":
        shut = at.shut.copy()
        shut[:, event.slot : event.end + 1] = True
        return replace(at, shut=shut)
    if event.event == "opened":
        return _opened(at, event, window)
    if event.arm not in at.cohort:
        raise ModelError(f"event {event.event}: name an arm, {event.arm!r} is none", nearest(event.arm, at.cohort.ids))
    arm = at.cohort.index(event.arm)
    if event.event in ("done", "missed"):
        return _visited(at, event, arm)
    if event.event == "complaint":
        promise = Promise(arm, event.slot, event.end, event.note or "complaint")
        return replace(at, promises=(*at.promises, promise))
    if event.event == "closed":
        shut, gone = at.shut.copy(), at.gone.copy()
        shut[arm, event.slot :] = True
        gone[arm] = True
        return replace(at, shut=shut, gone=gone)
    cells = at.cohort.text(window) if window in at.cohort.columns else [f"0-{n_slots - 1}"] * len(at.cohort)
    Windows.parse([event.window], n_slots)
    moved = at.moved.copy()
    moved[arm] = True
    return replace(at, moved=moved, cohort=_with(at.cohort, {window: [*cells[:arm], event.window, *cells[arm + 1 :]]}))


def _visited(at: Happened, event: CalendarEvent, arm: int) -> Happened:
    """A visit that took place unplanned, or did not although it was planned."""
    happened = event.event == "done"
    if at.visits[arm, event.slot] == happened:
        word = "took place already" if happened else "was not planned"
        raise ModelError(f"the visit of {event.arm} in slot {event.slot} {word}", "correct the event.")
    visits = at.visits.copy()
    visits[arm, event.slot] = happened
    return replace(at, visits=visits)


def _opened(at: Happened, event: CalendarEvent, window: str) -> Happened:
    """A new arm: its decay and cells are another's, its first visit is due by the event's last slot."""
    if event.arm in at.cohort or not event.arm:
        raise ModelError(f"opened: {event.arm!r} is there already", "give the new establishment an id of its own.")
    if event.like not in at.cohort:
        raise ModelError(f"opened {event.arm!r}: like {event.like!r} is no arm", nearest(event.like, at.cohort.ids))
    n_slots, other = at.visits.shape[1], at.cohort.index(event.like)
    cells = {name: [*at.cohort.text(name), at.cohort.text(name)[other]] for name in at.cohort.columns}
    cells["id"][-1] = event.arm
    if window in cells:
        cells[window][-1] = event.window or f"{event.slot}-{n_slots - 1}"
        Windows.parse([cells[window][-1]], n_slots)
    who = np.append(np.arange(len(at.cohort)), other)
    none, arm = np.zeros((1, n_slots), dtype=bool), len(at.cohort)
    # Slots in which nobody is visited (holidays) hold for the new one too.
    shut = np.concatenate([at.shut, at.shut.all(axis=0, keepdims=True)])
    shut[arm, : event.slot] = True
    promises = at.promises
    if event.last is not None:
        promises = (*promises, Promise(arm, event.slot, event.last, event.note or "first visit"))
    return replace(
        at,
        arms=EncodedArms(at.arms.chains.of(who), at.arms.windows.of(who), at.arms.length),
        cohort=Arms(Table(cells, source=at.cohort.table.source)),
        # Nobody has seen it yet: its belief is where the chain ends.
        age=np.append(at.age, at.arms.chains.length[other]),
        visits=np.concatenate([at.visits, none]),
        planned=None if at.planned is None else np.concatenate([at.planned, none]),
        shut=shut, gone=np.append(at.gone, False), moved=np.append(at.moved, True), promises=promises,
    )  # fmt: skip


def _with(cohort: Arms, cells: dict[str, list[str]]) -> Arms:
    """The cohort with some columns replaced."""
    return Arms(Table({name: cohort.text(name) for name in cohort.columns} | cells, source=cohort.table.source))


EVENTS: tuple[str, ...] = tuple(kind for kind in get_args(Kind) if kind != "planned")
"""Kinds that a person can report."""
