"""What a planner asks of one week's list beyond the model, and what has been noted of it so far: ``this_week.json``.

Locks and moved visits are written into ``model.yaml`` as constraints too, so that the certificate and every other
command know of them. The next week begins without.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rmab_opt.errors import ModelError
from rmab_opt.programme.front_door import IN, OUT
from rmab_opt.records import json_text, read_object, write_atomically

__all__ = ["Asked", "Draft", "Event", "read_draft", "write_draft"]

FILE = "this_week.json"
PLACED_TABLE = "this_week_placed.csv"


class Asked(BaseModel):
    """Locks and moved visits of one week."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    into: tuple[str, ...] = ()
    """Ids that must be on the list."""
    out: tuple[str, ...] = ()
    """Ids that must not be on it."""
    placed: dict[str, tuple[str, str]] = Field(default_factory=dict)
    """Worker and slot of visits that a person has moved, by id; those are in :attr:`into` too."""
    relax: str | None = None
    """A constraint that is loosened by its least change where no list is possible."""

    def locked(self, name: str, how: str) -> Asked:
        """With a person locked ``in``, locked ``out`` or ``free`` again."""
        if how not in ("in", "out", "free"):
            raise ModelError(f"lock is {how!r}", "say in, out or free.")
        into = tuple(one for one in self.into if one != name) + ((name,) if how == "in" else ())
        out = tuple(one for one in self.out if one != name) + ((name,) if how == "out" else ())
        placed = {one: place for one, place in self.placed.items() if one != name or how == "in"}
        return self.model_copy(update={"into": into, "out": out, "placed": placed})

    def moved(self, name: str, worker: str, slot: str) -> Asked:
        """With a person's visit in one shift."""
        into = self.into if name in self.into else (*self.into, name)
        placed = {**self.placed, name: (worker, slot)}
        return self.locked(name, "in").model_copy(update={"into": into, "placed": placed})

    def applied(self, content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The content of a model file with these constraints in place of an earlier week's or wish's.

        The table of moved visits is written into ``folder``.
        """
        declared = dict(content.get("constraints") or {})
        declared = {name: dict(one) for name, one in declared.items() if name not in (IN, OUT)}
        roster = next((name for name, one in declared.items() if one.get("kind") == "scheduling"), None)
        if self.placed and roster is None:
            raise ModelError("a visit was moved, and the model has no roster", "lock the person in instead.")
        if roster is not None:
            declared[roster].pop("placed", None)
            if self.placed:
                rows = [[name, *place] for name, place in sorted(self.placed.items())]
                write_atomically(folder / PLACED_TABLE, _csv([["id", "worker", "slot"], *rows]))
                declared[roster]["placed"] = PLACED_TABLE
        if self.into:
            declared[IN] = {"kind": "locked_in", "ids": sorted(self.into)}
        if self.out:
            declared[OUT] = {"kind": "locked_out", "ids": sorted(self.out)}
        return {**content, "constraints": declared}


class Event(BaseModel):
    """Somebody who joined, left, paused, returned or changed, as it will be recorded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    event: str
    cells: dict[str, str] = Field(default_factory=dict)


class Draft(BaseModel):
    """One week as noted so far: nothing of it is recorded yet."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    week: int
    asked: Asked = Field(default_factory=Asked)
    done: dict[str, str] = Field(default_factory=dict)
    """``yes`` or ``no`` by id, as ticked."""
    state: dict[str, str] = Field(default_factory=dict)
    """States seen, by id."""
    events: tuple[Event, ...] = ()

    def without(self, name: str) -> Draft:
        """Without anything about a person."""
        return self.model_copy(
            update={
                "done": {one: word for one, word in self.done.items() if one != name},
                "state": {one: word for one, word in self.state.items() if one != name},
                "events": tuple(event for event in self.events if event.id != name),
            }
        )

    def outcomes(self, listed: list[str]) -> str:
        """What was noted as a sheet, for the same reader that reads a ticked one; ``listed`` are on the list."""
        names = list(dict.fromkeys([*listed, *self.done, *self.state]))
        # Beside a tick an empty cell of a sheet may mean either; here what was left alone means as planned.
        alone = dict.fromkeys(listed, "yes" if any(self.done.values()) else "")
        rows = [[name, self.done.get(name) or alone.get(name, ""), self.state.get(name, "")] for name in names]
        return _csv([["id", "done", "state"], *rows])

    def register(self) -> str:
        """Events as a sheet."""
        names = list(dict.fromkeys(key for event in self.events for key in event.cells))
        rows = [[event.id, event.event, *(event.cells.get(key, "") for key in names)] for event in self.events]
        return _csv([["id", "event", *names], *rows])


def read_draft(folder: Path, week: int) -> Draft:
    """What is noted of a week; nothing where the file is another week's or not there."""
    path = folder / FILE
    if not path.is_file():
        return Draft(week=week)
    fix = "delete it: locks and ticks of this week are lost, nothing recorded is."
    try:
        found = Draft.model_validate(read_object(path, "notes of a week", fix))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise ModelError(f"{path}: {where}: {fault['msg']}", fix) from None
    return found if found.week == week else Draft(week=week)


def write_draft(folder: Path, draft: Draft) -> None:
    """Keep what is noted; atomically."""
    write_atomically(folder / FILE, json_text(draft.model_dump(mode="json")) + "\n", kept=True)


def _csv(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
