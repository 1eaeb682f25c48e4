"""A living cohort by id: who joined, left, paused and came back, as a log; the order of rows never matters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from rmab_opt.errors import Findings, ModelError
from rmab_opt.records.log import Entry, Log

__all__ = ["Cohort", "CohortEvent", "Members"]

Event = Literal["join", "leave", "pause", "resume", "change"]

NEEDS: dict[Event, tuple[str, ...]] = {
    "join": ("absent",),
    "leave": ("active", "paused"),
    "pause": ("active",),
    "resume": ("paused",),
    "change": ("active", "paused"),
}
"""What somebody must be for an event to happen to them."""

BECOMES: dict[Event, str] = {"join": "active", "leave": "absent", "pause": "paused", "resume": "active"}
"""What they are afterwards; a change of attributes leaves that as it is."""


class CohortEvent(Entry):
    """Something that happened to some members at the beginning of a round."""

    event: Event
    period: int = Field(ge=0)
    """Round counted from 0, from which on it counts."""
    ids: tuple[str, ...] = Field(min_length=1)
    """Sorted, each once."""
    attributes: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Cells by id and column: all of those who join, otherwise those that are new."""


@dataclass(frozen=True)
class Members:
    """Who belongs to the cohort in a round; ids sorted."""

    period: int
    active: tuple[str, ...]
    paused: tuple[str, ...]
    attributes: Mapping[str, Mapping[str, str]]


class Cohort:
    """A cohort whose members come and go, kept in a folder.

    Parameters
    ----------
    folder
        Holds ``member-0001.json`` and so on.

    Raises
    ------
    ModelError
        As :class:`Log`; or when an event cannot have happened to a member.
    """

    def __init__(self, folder: str | Path) -> None:
        self.log: Log[CohortEvent] = Log(folder, CohortEvent, stem="member")

    def join(self, ids: Iterable[str] | Mapping[str, Mapping[str, str]], period: int = 0) -> None:
        """Take in members, with their cells where a mapping is given; errors as :meth:`add`."""
        given = {name: dict(cells) for name, cells in ids.items()} if isinstance(ids, Mapping) else {}
        self.add("join", list(ids), period, given)

    def leave(self, ids: Iterable[str], period: int) -> None:
        """Members who are gone from a round on."""
        self.add("leave", ids, period)

    def pause(self, ids: Iterable[str], period: int) -> None:
        """Members who cannot be acted on until they resume."""
        self.add("pause", ids, period)

    def resume(self, ids: Iterable[str], period: int) -> None:
        """Members who are back from a pause."""
        self.add("resume", ids, period)

    def add(
        self,
        event: Event,
        ids: Iterable[str],
        period: int,
        attributes: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Record an event; the same event once more changes nothing, so that a command can be repeated.

        Raises
        ------
        ModelError
            Naming every id that stands twice, or to whom this cannot happen now; or when the round lies back.
        """
        names = [str(name) for name in ids]
        if not names:
            return
        entry = CohortEvent(
            format=CohortEvent.newest,
            event=event,
            period=int(period),
            ids=tuple(sorted(names)),
            attributes={name: dict(cells) for name, cells in sorted((attributes or {}).items())},
        )
        latest = max((done.period for done in self.log.entries), default=0)
        if entry.period < latest:
            raise ModelError(
                f"{event} in round {entry.period + 1}, the cohort is known up to round {latest + 1} already",
                f"give round {latest + 1} or a later one.",
            )
        standing, findings = self._standing(latest), Findings(event)
        if any(_same(entry, done) for done in self.log.entries) and all(
            standing.get(name, "absent") == BECOMES.get(event, standing.get(name, "absent")) for name in names
        ):
            return
        for name, count in Counter(names).items():
            is_now = standing.get(name, "absent")
            if count > 1:
                findings.add("", f"{name!r} stands twice", "name everybody once")
            elif not name:
                findings.add("", "an id is empty", "give every member an id")
            elif is_now not in NEEDS[event]:
                findings.add("", f"{name!r} is {is_now} in round {entry.period + 1}", "correct the list")
        findings.raise_if_any()
        self.log.append(entry)

    def members(self, period: int | None = None) -> Members:
        """Who belongs to the cohort in a round, or after all that is recorded."""
        at = max((done.period for done in self.log.entries), default=0) if period is None else period
        standing = self._standing(at)
        cells: dict[str, dict[str, str]] = {}
        for done in self.log.entries:
            if done.period <= at:
                for name, row in done.attributes.items():
                    kept = {} if done.event == "join" else cells.get(name, {})
                    cells[name] = kept | dict(row)
        by = {
            word: tuple(sorted(name for name, is_now in standing.items() if is_now == word))
            for word in ("active", "paused")
        }
        here = (*by["active"], *by["paused"])
        return Members(at, by["active"], by["paused"], {name: cells[name] for name in sorted(here) if name in cells})

    def _standing(self, period: int) -> dict[str, str]:
        standing: dict[str, str] = {}
        for done in self.log.entries:
            if done.period <= period and done.event in BECOMES:
                standing.update(dict.fromkeys(done.ids, BECOMES[done.event]))
        return standing


def _same(first: CohortEvent, second: CohortEvent) -> bool:
    bare = {"format", "previous"}
    return first.model_dump(exclude=bare) == second.model_dump(exclude=bare)
