"""Which column of a programme's sheets means what: told in ``columns.yaml``, or inferred by name and said."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rmab_opt.errors import ModelError
from rmab_opt.problem import Table
from rmab_opt.problem.table import nearest
from rmab_opt.problem.table.conventions import Conventions

__all__ = [
    "Columns",
    "LogColumns",
    "PlanSection",
    "RegisterColumns",
    "RosterColumns",
    "bare_name",
    "infer",
    "named",
    "plan_section",
    "read_columns",
    "read_sheet",
    "read_told",
    "unsaid",
    "week_columns",
    "week_file",
    "week_label",
    "week_number",
]

WORDS: dict[str, tuple[str, ...]] = {
    "id": (
        "id", "family id", "client id", "patient id", "member id", "beneficiary id", "household id", "case id", "code",
        "no", "number", "nr", "familien nr", "familiennummer", "kennung", "code famille", "numero", "n°",
        "identifiant", "codigo", "codigo familia", "id familia", "id da familia", "matricule", "nambari", "आईडी",
        "expediente", "ficha", "prontuario", "dossier", "numero de dossier", "aktenzeichen", "cedula",
    ),
    "group": (
        "type", "group", "kind", "category", "segment", "class", "typ", "art", "gruppe", "kategorie", "groupe",
        "categorie", "tipo", "grupo", "categoria", "aina", "kundi", "प्रकार",
    ),
    "state": (
        "status", "state", "engagement", "stand", "zustand", "etat", "statut", "estado", "situacion",
        "situacao", "hali", "स्थिति",
    ),
    "slots": (
        "slots", "slot", "times", "availability", "available", "zeiten", "zeit", "zeitfenster", "termine", "schicht",
        "creneaux", "creneau", "disponibilite", "horaires", "horaire", "horarios", "horario", "turnos", "turno",
        "disponibilidad", "disponibilidade", "shift", "shifts", "nyakati",
    ),
    "reach": (
        "phone", "telephone", "mobile", "phone number", "mobile number", "tel", "telefon", "telefonnummer",
        "handy", "portable", "telefono", "celular", "movil", "telefone", "simu", "फोन", "फ़ोन",
    ),
    "name": ("name", "nom", "nombre", "nome", "full name", "family", "familie", "famille", "familia", "jina", "नाम"),
    "village": (
        "village", "place", "community", "town", "ort", "dorf", "gemeinde", "commune", "localite", "aldea", "pueblo",
        "comunidad", "aldeia", "comunidade", "kijiji", "गाँव", "गांव", "barrio", "bairro", "quartier", "mtaa",
    ),
    "since": (
        "registered", "joined", "enrolled", "registration date", "enrolment date", "date of registration",
        "angemeldet", "aufnahme", "seit", "inscrit", "inscription", "date d'inscription", "inscrito", "registrado",
        "fecha de registro", "data de registo", "cadastro", "fecha de ingreso", "ingreso", "fecha de inscripcion",
        "data de inscricao", "date d'entree", "eintritt", "start date",
    ),
    "worker": (
        "worker", "nurse", "caller", "staff", "volunteer", "health worker", "mitarbeiterin", "mitarbeiter", "helferin",
        "agente", "agent", "intervenante", "intervenant", "infirmiere", "benevole", "trabajadora", "trabajador",
        "promotora", "voluntaria", "enfermera", "mhudumu",
    ),
    "calls": (
        "calls", "capacity", "visits", "slots per week", "anrufe", "kapazitat", "appels", "capacite", "llamadas",
        "capacidad", "chamadas", "ligacoes", "capacidade", "simu", "cupos", "cupo", "vagas", "places",
    ),
    "week": ("week", "date", "round", "woche", "kw", "datum", "semaine", "semana", "fecha", "data", "wiki", "सप्ताह"),
    "called": (
        "called", "call", "visited", "contacted", "acted", "done", "angerufen", "anruf", "appele", "appelee", "appel",
        "llamado", "llamada", "contactado", "chamado", "chamada", "ligou", "alipigiwa",
    ),
    "listened": (
        "listened", "engaged", "answered", "attended", "adherent", "picked up", "heard", "state", "status", "gehort",
        "zugehort", "aktiv", "ecoute", "a ecoute", "engagee", "escucho", "escuchado", "escuchada", "ouviu",
        "alisikiliza", "adherente", "adherencia", "aderente", "adherant",
    ),
}  # fmt: skip
"""Names by which a column is known; compared without case, accents and unit."""

GOOD = (
    "engaged", "listening", "listened", "active", "attending", "adherent", "yes", "on track", "good", "aktiv", "dabei",
    "engagiert", "ja", "actif", "engage", "engagee", "oui", "activo", "activa", "participa", "comprometida", "si",
    "ativo", "ativa", "engajada", "engajado", "sim", "hai", "ndiyo", "हाँ", "adherente", "aderente", "adherant",
)  # fmt: skip
"""Words for the state that counts, compared as names of columns are."""


UNSAID = (
    "", "?", "??", "-", "--", "n/a", "na", "n.a", "nk", "unknown", "not known", "unbekannt", "inconnu", "inconnue",
    "desconocido", "desconocida", "sin dato", "desconhecido", "desconhecida", "sem dado", "haijulikani",
)  # fmt: skip
"""Cells of a state that say that nobody knows it."""


def unsaid(cell: str) -> bool:
    """Whether a cell of a state says that it is not known."""
    return cell.strip() in UNSAID or bare_name(cell) in UNSAID


def bare_name(text: str) -> str:
    """A name as it is compared: without case, a unit in brackets, accents of Latin letters, hyphens and underscores."""
    folded = text.split("(")[0].replace("_", " ").replace("-", " ").casefold()
    kept, base = [], ""
    for letter in unicodedata.normalize("NFKD", folded):
        if not unicodedata.combining(letter):
            base = letter
        # Marks of other scripts are letters' parts, and not accents.
        elif base.isascii():
            continue
        kept.append(letter)
    return " ".join(unicodedata.normalize("NFC", "".join(kept)).split()).strip(" .:")


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
    """Columns of the call log: one row a member and week, or (with ``legend``) one column a week."""

    id: str
    week: str | None = None
    called: str | None = None
    listened: str | None = None
    legend: dict[str, tuple[Literal["called", "listened", "unknown"], ...]] | None = None
    """What a cell of a log with one column a week says, e.g. ``{CL: [called, listened], C: [called], "-": []}``."""
    call_acts: Literal["next_week", "same_week"] = "next_week"
    """Whether a row's ``listened`` is the state before its call, or already the result."""

    @model_validator(mode="after")
    def _one_form(self) -> LogColumns:
        long = (self.week, self.called, self.listened)
        if self.legend is None and None in long:
            raise ValueError("week, called and listened are columns of the log, or there is a legend of its cells")
        if self.legend is not None and long != (None, None, None):
            raise ValueError("a log with a legend has one column a week: leave out week, called and listened")
        return self


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
    unticked: Literal["ask", "not_made", "as_planned"] = "ask"
    """What an empty cell of ``done`` means in a list of which others are ticked."""
    order: Literal["keep", "call_never_hurts"] = "keep"
    """Whether the plan takes it that a call never hurts where the log does not show that one helps."""
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
    tables: Conventions = Conventions()
    """How cells are read that can be read in two ways, as in a model file."""


@dataclass(frozen=True)
class Inferred:
    """Columns with what was taken on trust."""

    columns: Columns
    said: list[str]


def read_told(path: Path) -> dict[str, Any]:
    """What a ``columns.yaml`` tells, whole or in part: a section that does not name its id is inferred beside it."""
    from rmab_opt.catalog.yaml_text import read_yaml

    content, _ = read_yaml(path)
    if not isinstance(content, dict):
        raise ModelError(f"{path}: holds no sections", "see docs/programme.md for the keys.")
    return content


def read_columns(path: Path) -> Columns:
    """A whole ``columns.yaml``; ModelError with the key at fault."""
    return made_columns(read_told(path), str(path))


def made_columns(content: Mapping[str, Any], source: str) -> Columns:
    """Columns from a document; ModelError with the key at fault."""
    try:
        return Columns.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise ModelError(f"{source}: {where}: {fault['msg']}", "see docs/programme.md for the keys.") from None


def plan_section(told: Path | None, **given: int | None) -> PlanSection:
    """The section ``plan`` of a ``columns.yaml``, with what is given beside it instead."""
    section = {} if told is None else read_told(told).get("plan") or {}
    changed = {name: value for name, value in given.items() if value is not None}
    try:
        return PlanSection.model_validate({**section, **changed})
    except (ValidationError, TypeError) as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "is no section"
        raise ModelError(f"{told}: plan: {said}", "see docs/programme.md for the keys.") from None


def write_columns(columns: Columns) -> str:
    """The text of a ``columns.yaml``."""
    import yaml

    document = columns.model_dump(mode="json", by_alias=True, exclude_none=True)
    return "# Which column means what; change a line and start again.\n" + yaml.safe_dump(
        document, sort_keys=False, allow_unicode=True
    )


def read_sheet(given: Path, told: Any, key: str, *others: str, without: str = "") -> Table:
    """A sheet of which the key's column is told or has a known name: it tells header and sheet from others.

    Parameters
    ----------
    others, without
        What the columns of the sheet that is meant have names for, and what they have none for.

    Raises
    ------
    ModelError
        When it cannot be read with certainty.
    """
    if isinstance(told, Mapping) and isinstance(told.get(key), str):
        return Table.read(given, needed=[told[key]])
    try:
        return Table.read(given)
    except ModelError as error:
        sheets = error.message.partition("several sheets could be meant: ")[2]
        if not sheets:
            raise
        fits = []
        for name in sheets.split(", "):
            try:
                table = Table.read(f"{given}#{name}")
            except ModelError:
                continue
            if all(named(table, WORDS[what]) for what in (key, *others)) and not named(table, WORDS.get(without, ())):
                fits.append(table)
        if len(fits) != 1:
            raise
        return fits[0]


class _Taking:
    """Takes columns by their names, and remembers what was taken on trust."""

    def __init__(self, told: Mapping[str, Any], shared: Callable[[], tuple[str, str] | None]) -> None:
        self.told, self.said = told, list[str]()
        self.shared = shared
        """Columns of register and log that hold the same members, for an id whose name is not known."""

    def section(self, name: str) -> Mapping[str, Any]:
        found = self.told.get(name) or {}
        return found if isinstance(found, Mapping) else {}

    def __call__(
        self, table: Table, section: str, key: str, what: str, *, needed: bool = False, others: Sequence[str] = ()
    ) -> str | None:
        if key in self.section(section):
            given = self.section(section)[key]
            return None if given is None else table.column(str(given))
        found = named(table, (*WORDS[what], *others))
        met = self.shared() if found is None and what == "id" else None
        if met is not None:
            found = met[section == "log"]
            self.said.append(f"register and log meet in {met[0]!r} and {met[1]!r}: the same members")
        if found is None and needed:
            raise ModelError(
                f"{table.source}: no column for {what} (columns: {', '.join(table.columns)})",
                f"name it in columns.yaml as {section}.{key}, or call it {WORDS[what][0]!r}.",
            )
        if found is not None:
            self.said.append(f"{Path(table.source).name}: {what} is column {found!r}")
        return found


def infer(
    register: Table,
    log: Table | None,
    roster: Table | None,
    plan: PlanSection,
    told: Mapping[str, Any] | None = None,
) -> Inferred:
    """Columns by their names; what is taken is said, what cannot be found is refused.

    Parameters
    ----------
    told
        Sections of a ``columns.yaml``; one that names its id (of the roster: its worker) is taken as it is.

    Raises
    ------
    ModelError
        When a needed column has no name that is known.
    """
    take = _Taking(told or {}, lambda: None if log is None else _shared_id(register, log))
    document: dict[str, Any] = {"plan": plan.model_dump(mode="json"), **take.told}
    by_roster = take.section("roster")
    if roster is not None and "worker" not in by_roster:
        document["roster"] = {**_roster_columns(take, register, roster), **by_roster}
    by_register = take.section("register")
    if "id" not in by_register:
        match = (document.get("roster") or {}).get("match") if roster is not None else None
        document["register"] = {**_register_columns(take, register, match, roster is not None), **by_register}
    by_log = take.section("log")
    if log is not None and "id" not in by_log:
        document["log"] = {**_log_columns(take, log, document["register"]["id"]), **by_log}
    return Inferred(made_columns(document, "columns.yaml"), take.said)


def _shared_id(register: Table, log: Table) -> tuple[str, str] | None:
    """The one pair of columns of register and log that hold the same members, nearly each once in the register."""
    found = []
    for own in register.columns:
        try:
            cells = [cell for cell in register.text(own) if cell]
        except ModelError:
            # A column that cannot be read whole, such as formulas without values, holds no ids.
            continue
        members = set(cells)
        if len(members) < ALIKE * max(len(cells), 2):
            continue
        for other in log.columns:
            there = {cell for cell in log.text(other) if cell}
            if len(there) > 1 and len(there & members) >= ALIKE * len(there):
                found.append((own, other))
    return found[0] if len(found) == 1 else None


def _register_columns(take: _Taking, register: Table, match: str | None, has_roster: bool) -> dict[str, Any]:
    def own(key: str, needed: bool = False) -> str | None:
        return take(register, "register", key, key, needed=needed)

    key, group, state = own("id", needed=True), own("group"), own("state")
    slots = own("slots") if has_roster else None
    reach = own("reach")
    name, village = named(register, WORDS["name"]), named(register, WORDS["village"])
    since = own("since")
    if since is not None:
        try:
            register.dates(since)
        except ModelError as error:
            # Only a bound is better for it: what cannot be read with certainty is left out, and said.
            take.said.append(f"{since!r} is not used: {error.message}")
            since = None
    found = {"id": key, "group": group, "state": state, "slots": slots, "reach": reach, "since": since}
    if state is not None and "engaged" not in take.section("register"):
        found["engaged"] = _good(register, state)
    shown = [column for column in dict.fromkeys((name, village)) if column not in (None, key)]
    kept = [column for column in dict.fromkeys((village, match)) if column is not None]
    return {**{what: column for what, column in found.items() if column is not None}, "show": shown, "keep": kept}


def _roster_columns(take: _Taking, register: Table, roster: Table) -> dict[str, Any]:
    worker = take(roster, "roster", "worker", "worker", needed=True)
    slot = take(roster, "roster", "slot", "slots", needed=True)
    calls = take(roster, "roster", "calls", "calls")
    shared = [own for own in roster.columns if own in register and own not in (worker, slot, calls)]
    found = {"worker": worker, "slot": slot, "calls": calls, "match": shared[0] if shared else None}
    if shared and "match" not in take.section("roster"):
        take.said.append(f"workers and members meet in column {shared[0]!r}; an empty cell of the roster serves all")
    return {what: column for what, column in found.items() if column is not None}


def _log_columns(take: _Taking, log: Table, key: str) -> dict[str, Any]:
    found: dict[str, Any] = {"id": take(log, "log", "id", "id", needed=True, others=(bare_name(key),))}
    wide = week_columns(log, found["id"])
    if "legend" not in take.section("log"):
        if len(wide) > 2 and named(log, WORDS["week"]) is None:
            codes = sorted({cell for name in wide for cell in log.text(name) if cell})[:8]
            raise ModelError(
                f"{log.source}: has one column a week ({wide[0]} to {wide[-1]}) with the cells {', '.join(codes)}",
                "say what they mean in columns.yaml, e.g. `log: {legend: {CL: [called, listened], C: [called], "
                "L: [listened], N: []}}`; an empty cell is missing unless the legend has one for ''.",
            )
        for what in ("week", "called", "listened"):
            found[what] = take(log, "log", what, what, needed=True)
    if "call_acts" not in take.section("log"):
        take.said.append("a row's listened is taken as the state before that week's call (log.call_acts: next_week)")
    return found


def week_columns(log: Table, key: str) -> list[str]:
    """Columns of a log that are named by a week: a number, an ISO week, or either with a word before it; in order."""
    found = [(week, name) for name in log.columns if name != key and (week := week_number(name)) is not None]
    return [name for _, name in sorted(found)]


def week_number(cell: str) -> int | None:
    """A week as a number: itself, with a word before it, an ISO week or an ISO date's week; None when neither."""
    cell = cell.strip()
    iso = re.fullmatch(r"([0-9]{4})-?W([0-9]{1,2})", cell)
    if iso:
        try:
            return datetime.date.fromisocalendar(int(iso[1]), int(iso[2]), 1).toordinal() // 7
        except ValueError:
            return None
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", cell):
        try:
            return (datetime.date.fromisoformat(cell).toordinal() - 1) // 7
        except ValueError:
            return None
    plain = re.fullmatch(r"(?:([^\W\d_]+)[ .]*)?([0-9]{1,4})", cell)
    if plain and (plain[1] is None or bare_name(plain[1]) in WEEKLY):
        return int(plain[2])
    return None


def week_label(week: int) -> str:
    """A week as people write it: its number, or of a log with dates the ISO week."""
    if week < DATED:
        return str(week)
    year, number, _ = datetime.date.fromordinal(7 * week + 1).isocalendar()
    return f"{year}-W{number:02d}"


def week_file(week: int) -> str:
    """Name of a week's files, without an ending."""
    return f"week-{week_label(week):0>2}"


ALIKE = 0.9
"""Share of cells that differ from each other in a column of ids, and of the log's members that the register has."""

DATED = 10_000
"""Weeks are counted from the year 1 where a log has dates, so that such a number is larger than this."""

WEEKLY = ("w", "wk", "week", "kw", "woche", "s", "sem", "semaine", "semana", "wiki")
"""Words that stand before a week's number."""


def named(table: Table, words: Sequence[str]) -> str | None:
    """The column that is called by the first of some words that any is called by."""
    bare = {bare_name(name): name for name in table.columns}
    return next((bare[word] for word in words if word in bare), None)


def _good(table: Table, column: str) -> str:
    """The word of the state that counts."""
    kinds = [kind for kind in dict.fromkeys(table.categories(column)) if not unsaid(kind)]
    found = [kind for kind in kinds if bare_name(kind) in GOOD]
    if len(found) != 1 or len(kinds) > 2:
        raise ModelError(
            f"{table.source}: column {column!r} has the states {', '.join(kinds[:6])}; which one counts is not clear",
            "say it in columns.yaml: `register: {engaged: WORD}`; all other words then count as not engaged.",
        )
    return found[0]


def check(columns: Columns, tables: Mapping[str, Table | None]) -> None:
    """Refuse a column that its sheet does not have; ModelError with the nearest."""
    sections: dict[str, Any] = {"register": columns.register_, "log": columns.log, "roster": columns.roster}
    for name, section in sections.items():
        table = tables.get(name)
        if section is None or table is None:
            continue
        values = section.model_dump(exclude={"engaged", "missing", "call_acts", "clusters", "legend"})
        for key, value in values.items():
            for column in value if isinstance(value, tuple | list) else [value]:
                if column is not None and column not in table:
                    raise ModelError(
                        f"columns.yaml: {name}.{key}: {table.source} has no column {column!r}",
                        nearest(column, list(table.columns)),
                    )
