"""What has changed in a cohort since last week: from a sheet of events, or from a whole new register."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rmab_opt.errors import Findings, ModelError
from rmab_opt.problem import Table
from rmab_opt.problem.table import nearest
from rmab_opt.programme.columns import RegisterColumns, bare_name, named, week_label, week_number

__all__ = ["Changes", "changes_of_events", "changes_of_register", "is_events"]

EVENTS = {
    "joined": "join", "join": "join", "new": "join", "left": "leave", "leave": "leave", "gone": "leave",
    "paused": "pause", "pause": "pause", "returned": "resume", "resumed": "resume", "back": "resume",
    "moved": "change", "type": "change", "changed": "change", "change": "change",
    "neu": "join", "nouveau": "join", "nouvelle": "join", "alta": "join", "nuevo": "join", "nueva": "join",
    "novo": "join", "nova": "join", "inscrit": "join", "beigetreten": "join", "amejiunga": "join",
    "ausgetreten": "leave", "weg": "leave", "parti": "leave", "partie": "leave", "sorti": "leave", "sortie": "leave",
    "baja": "leave", "saiu": "leave", "saida": "leave", "ameondoka": "leave",
    "pausiert": "pause", "en pause": "pause", "pausada": "pause", "pausado": "pause", "pausa": "pause",
    "zuruck": "resume", "de retour": "resume", "retour": "resume", "regreso": "resume", "voltou": "resume",
    "umgezogen": "change", "geandert": "change", "demenage": "change", "change de type": "change", "cambio": "change",
    "mudou": "change", "mudanza": "change",
}  # fmt: skip
"""Words of a sheet of events, compared as names of columns are."""

EVENT = ("event", "ereignis", "evenement", "evento", "tukio")
BEGINS = ("from week", "from", "ab woche", "von woche", "de la semaine", "a partir de la semaine", "desde la semana",
          "desde semana", "da semana")  # fmt: skip
ENDS = ("to week", "until week", "to", "until", "bis woche", "jusqu'a la semaine", "hasta la semana", "ate a semana")
"""Names of the columns of such a sheet."""


@dataclass(frozen=True)
class Changes:
    """By id; cells are those of the model's own columns (``group``, ``state`` and the kept ones)."""

    join: dict[str, dict[str, str]] = field(default_factory=dict)
    leave: tuple[str, ...] = ()
    pause: dict[str, int | None] = field(default_factory=dict)
    """Last week of the pause; None when it is open."""
    resume: tuple[str, ...] = ()
    change: dict[str, dict[str, str]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    """Not in the new register: a question, paused until it is answered."""

    def lines(self) -> list[str]:
        """What happened, for the printed decision."""
        said = []
        for what, who in (
            ("joined", list(self.join)),
            ("left", list(self.leave)),
            ("paused", list(self.pause)),
            ("back from a pause", list(self.resume)),
            ("changed", list(self.change)),
        ):
            if who:
                said.append(f"{len(who)} {what}")
        if self.missing:
            listed = ", ".join(self.missing[:5]) + (", ..." if len(self.missing) > 5 else "")
            said.append(f"{len(self.missing)} missing from the new register and paused ({listed}): have they left?")
        return said


def is_events(table: Table) -> bool:
    """Whether a sheet lists events and is no register."""
    return named(table, EVENT) is not None


def changes_of_events(table: Table, columns: RegisterColumns, week: int) -> Changes:
    """Events with effect from a week: columns ``id``, ``event``, optional ``from week``, ``to week`` and cells.

    Raises
    ------
    ModelError
        Naming rows with an unknown event, without an id, or of another week.
    """
    key = "id" if "id" in table else columns.id
    ids, events = table.text(key), table.text(named(table, EVENT) or "event")
    blank = [""] * len(table)
    begins, ends = (blank if (own := named(table, words)) is None else table.text(own) for words in (BEGINS, ENDS))
    cells = {}
    for own, name in _own_columns(columns).items():
        # A sheet of events may call a column as the register does, or by the model's own name.
        column = next((column for column in (name, own) if column in table), None)
        if column is not None:
            cells[own] = table.categories(column)
    findings = Findings(table.source)
    found: dict[str, dict[str, dict[str, str]]] = {"join": {}, "change": {}}
    pause: dict[str, int | None] = {}
    plain: dict[str, list[str]] = {"leave": [], "resume": []}
    for row, (name, word) in enumerate(zip(ids, events, strict=True)):
        event = EVENTS.get(bare_name(word))
        row_cells = {own: column[row] for own, column in cells.items() if column[row]}
        if not name or event is None:
            findings.add(
                table.place(row),
                f"event of {name!r} is {word!r}",
                nearest(word, list(EVENTS)) if name else "name the id",
            )
        elif begins[row] and week_number(begins[row]) != week:
            said = f"from week {begins[row]}, the next list is week {week_label(week)}'s"
            findings.add(table.place(row), said, "use that week")
        elif event in found:
            found[event][name] = found[event].get(name, {}) | row_cells
        elif event == "pause":
            pause[name] = week_number(ends[row])
            if ends[row] and pause[name] is None:
                findings.add(table.place(row), f"to week {ends[row]!r} is no week", "write its number, or nothing")
        else:
            plain[event].append(name)
    findings.raise_if_any()
    return Changes(found["join"], tuple(sorted(plain["leave"])), pause, tuple(sorted(plain["resume"])), found["change"])


def _own_columns(columns: RegisterColumns) -> dict[str, str]:
    """The model's names of cells to the sheet's columns."""
    own = {"group": columns.group, "state": columns.state, "slots": columns.slots, "reach": columns.reach}
    found = {name: column for name, column in own.items() if column is not None}
    return found | {column: column for column in (*columns.keep, *columns.show)}


def changes_of_register(
    members: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]], columns: RegisterColumns
) -> Changes:
    """Differences between the cohort and a whole new register, both as cells by id."""
    gone = sorted(set(members) - set(new))
    change = {}
    for name in sorted(set(new) & set(members)):
        differs = {
            key: cell for key, cell in new[name].items() if key != "state" and members[name].get(key, "") != cell
        }
        if differs:
            change[name] = differs
    join = {name: dict(new[name]) for name in sorted(set(new) - set(members))}
    if gone and columns.missing == "left":
        return Changes(join, tuple(gone), {}, (), change)
    return Changes(join, (), dict.fromkeys(gone, None), (), change, tuple(gone))


def require_members(changes: Changes, members: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse events of people who are not in the cohort, and joiners who are; ModelError with the id."""
    for who in (changes.leave, changes.pause, changes.resume, changes.change):
        for name in who:
            if name not in members:
                raise ModelError(f"{name!r} is not in the cohort", nearest(name, list(members)))
    for name in changes.join:
        if name in members:
            raise ModelError(f"{name!r} joined, and is in the cohort already", "give the newcomer another id.")
