"""Which column of a programme's sheets means what: told in ``columns.yaml``, or inferred by name and said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rmab_opt.errors import ModelError
from rmab_opt.problem import Table
from rmab_opt.problem.table import nearest

__all__ = ["Columns", "LogColumns", "PlanSection", "RegisterColumns", "RosterColumns", "infer", "read_columns"]

WORDS: dict[str, tuple[str, ...]] = {
    "id": ("id", "family id", "client id", "patient id", "member id", "beneficiary id", "code", "no", "number"),
    "group": ("type", "group", "kind", "category", "segment", "class", "typ", "groupe", "tipo"),
    "state": ("status", "state", "engagement", "etat", "zustand", "estado"),
    "slots": ("slots", "slot", "times", "availability", "available"),
    "reach": ("phone", "telephone", "mobile", "phone number", "tel", "telefon", "telefono"),
    "name": ("name", "nom", "nombre", "full name"),
    "village": ("village", "place", "community", "town", "ort", "aldea"),
    "since": ("registered", "joined", "enrolled", "registration date", "enrolment date", "date of registration"),
    "worker": ("worker", "nurse", "caller", "staff", "volunteer"),
    "calls": ("calls", "capacity", "visits", "slots per week"),
    "week": ("week", "date", "round", "woche", "semaine", "semana"),
    "called": ("called", "call", "visited", "contacted", "acted", "done"),
    "listened": ("listened", "engaged", "answered", "attended", "adherent", "picked up", "state", "status"),
}
"""Names by which a column is known; compared without case and unit."""

GOOD = ("engaged", "listening", "listened", "active", "attending", "adherent", "yes", "on track", "good")
"""Words for the state that counts."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RegisterColumns(_Section):
    """Columns of the register."""

    id: str
    group: str | None = None
    """Members of one group are estimated together."""
    state: str | None = None
    engaged: str = "engaged"
    """The word for the state that counts."""
    slots: str | None = None
    reach: str | None = None
    """Who has nothing here cannot be acted on, e.g. the telephone."""
    since: str | None = None
    """Date of joining: from it the bound learns how many more will come."""
    show: tuple[str, ...] = ()
    """Columns of the list that is printed."""
    keep: tuple[str, ...] = ()
    """Columns that the model and the ledger keep."""
    cross: tuple[str, ...] = ()
    """Kept columns by which a group is split where there are calls enough."""
    clusters: int = Field(default=0, ge=0, le=12)
    """At most so many clusters of members who move alike when nobody calls; 0: none."""
    missing: Literal["ask", "left"] = "ask"
    """Whether a member who is missing from a new register has left; by default they are paused and asked about."""

    @model_validator(mode="after")
    def _kept(self) -> RegisterColumns:
        foreign = [name for name in self.cross if name not in self.keep]
        if foreign:
            raise ValueError(f"cross: {foreign[0]!r} is not among keep")
        return self


class LogColumns(_Section):
    """Columns of the call log."""

    id: str
    week: str
    called: str
    listened: str
    call_acts: Literal["next_week", "same_week"] = "next_week"
    """Whether a row's ``listened`` is the state before its call, or already the result."""


class RosterColumns(_Section):
    """Columns of the roster."""

    worker: str
    slot: str
    calls: str | None = None
    match: str | None = None
    """Column that workers and members share, e.g. the region; empty serves all."""


class PlanSection(_Section):
    """How the list is planned."""

    weeks: int = Field(default=12, ge=1)
    """Weeks to look ahead."""
    calls: int | None = Field(default=None, ge=0)
    """At most so many a week; the roster's total where there is one."""
    season: int | None = Field(default=None, ge=0)
    """At most so many in the first ``weeks`` weeks, in all."""
    explore: Literal["none", "optimism", "sampling"] = "none"
    """Whether lists are planned to find things out as well; see :mod:`rmab_opt.programme.explore`."""
    block: int = Field(default=1, ge=1)
    """Weeks that a draw of ``sampling`` is kept."""
    seed: int = Field(default=0, ge=0)
    """Of the draws."""


class Columns(_Section):
    """A whole ``columns.yaml``."""

    register_: RegisterColumns = Field(alias="register")
    log: LogColumns | None = None
    roster: RosterColumns | None = None
    plan: PlanSection = PlanSection()


@dataclass(frozen=True)
class Inferred:
    """Columns with what was taken on trust."""

    columns: Columns
    said: list[str]


def read_columns(path: Path) -> Columns:
    """A ``columns.yaml``; ModelError with the key at fault."""
    from rmab_opt.catalog.yaml_text import read_yaml

    content, _ = read_yaml(path)
    try:
        return Columns.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise ModelError(f"{path}: {where}: {fault['msg']}", "see docs/programme.md for the keys.") from None


def write_columns(columns: Columns) -> str:
    """The text of a ``columns.yaml``."""
    import yaml

    document = columns.model_dump(mode="json", by_alias=True, exclude_none=True)
    return "# Which column means what; change a line and start again.\n" + yaml.safe_dump(
        document, sort_keys=False, allow_unicode=True
    )


def infer(register: Table, log: Table | None, roster: Table | None, plan: PlanSection) -> Inferred:
    """Columns by their names; what is taken is said, what cannot be found is refused.

    Raises
    ------
    ModelError
        When a needed column has no name that is known.
    """
    said: list[str] = []

    def take(table: Table, what: str, needed: bool = False, others: Sequence[str] = ()) -> str | None:
        found = _named(table, (*WORDS[what], *others))
        if found is None and needed:
            raise ModelError(
                f"{table.source}: no column for {what} (columns: {', '.join(table.columns)})",
                f"name it in columns.yaml, or call it {WORDS[what][0]!r}.",
            )
        if found is not None:
            said.append(f"{Path(table.source).name}: {what} is column {found!r}")
        return found

    key = take(register, "id", needed=True)
    assert key is not None
    group, state = take(register, "group"), take(register, "state")
    slots = take(register, "slots") if roster is not None else None
    reach, name, village = take(register, "reach"), take(register, "name"), take(register, "village")
    since = take(register, "since")
    if since is not None:
        try:
            register.dates(since)
        except ModelError as error:
            # Only a bound is better for it: what cannot be read with certainty is left out, and said.
            said.append(f"{since!r} is not used: {error.message}")
            since = None
    engaged = "engaged" if state is None else _good(register, state)
    by_roster = None
    match = None
    if roster is not None:
        worker, slot = take(roster, "worker", needed=True), take(roster, "slots", needed=True)
        assert worker is not None
        assert slot is not None
        calls = take(roster, "calls")
        shared = [own for own in roster.columns if own in register and own not in (worker, slot, calls)]
        match = shared[0] if shared else None
        if match is not None:
            said.append(f"workers and members meet in column {match!r}; an empty cell of the roster serves all")
        by_roster = RosterColumns(worker=worker, slot=slot, calls=calls, match=match)
    by_log = None
    if log is not None:
        found = {what: take(log, what, needed=True) for what in ("week", "called", "listened")}
        by_log = LogColumns(id=take(log, "id", needed=True, others=(key.casefold(),)), **found)  # type: ignore[arg-type]
        said.append("a row's listened is taken as the state before that week's call (log.call_acts: next_week)")
    kept = [column for column in (village, match) if column is not None]
    section = RegisterColumns(
        id=key,
        group=group,
        state=state,
        engaged=engaged,
        slots=slots,
        reach=reach,
        since=since,
        show=tuple(column for column in (name, village) if column is not None),
        keep=tuple(dict.fromkeys(kept)),
    )
    return Inferred(Columns(register=section, log=by_log, roster=by_roster, plan=plan), said)


def _named(table: Table, words: Sequence[str]) -> str | None:
    bare = {name.split("(")[0].strip().casefold().replace("_", " "): name for name in table.columns}
    return next((bare[word] for word in words if word in bare), None)


def _good(table: Table, column: str) -> str:
    """The word of the state that counts."""
    kinds = [kind for kind in dict.fromkeys(table.categories(column)) if kind]
    found = [kind for kind in kinds if kind.casefold() in GOOD]
    if len(found) != 1 or len(kinds) != 2:
        raise ModelError(
            f"{table.source}: column {column!r} has the states {', '.join(kinds[:6])}; which one counts is not clear",
            "give register.engaged (and register.state) in columns.yaml; two states are read, engaged or not.",
        )
    return found[0]


def check(columns: Columns, tables: Mapping[str, Table | None]) -> None:
    """Refuse a column that its sheet does not have; ModelError with the nearest."""
    sections: dict[str, Any] = {"register": columns.register_, "log": columns.log, "roster": columns.roster}
    for name, section in sections.items():
        table = tables.get(name)
        if section is None or table is None:
            continue
        values = section.model_dump(exclude={"engaged", "missing", "call_acts", "clusters"})
        for key, value in values.items():
            for column in value if isinstance(value, tuple | list) else [value]:
                if column is not None and column not in table:
                    raise ModelError(
                        f"columns.yaml: {name}.{key}: {table.source} has no column {column!r}",
                        nearest(column, list(table.columns)),
                    )
