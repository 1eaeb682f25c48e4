"""Contacts as people have them: sheets, edge lists of the web with no header, networkx graphs; one contact once.

A file without a header is told by its first row, which joins an arm of the cohort. What reading drops or joins stands
in the table's log, which ``rmab-opt check`` prints: contacts of an arm with itself (they carry nothing), rows that
repeat a contact, both directions of one. Where such rows disagree in their probability the model has to say what holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rmab_opt.errors import Findings, ModelError
from rmab_opt.problem import Arms, Table
from rmab_opt.problem.table import TableLike, nearest
from rmab_opt.problem.table.cells import same_name, text_of
from rmab_opt.problem.table.conventions import note
from rmab_opt.records.files import read_regular
from rmab_opt.settings.networked.cascade import Graph

__all__ = ["Doubles", "contact_table", "graph_of", "read_contacts"]

Doubles = Literal["refuse", "largest", "mean", "any"]
"""What holds where rows of one contact differ: ``any`` is the chance that one of them passes activity on."""

NOTES = ("#", "%")
"""Signs that begin a line of remarks in edge lists."""

SHEETS = (".xlsx", ".xlsm", ".ods")


def read_contacts(
    arms: Arms,
    table: TableLike,
    *,
    ends: tuple[str, str] = ("u", "v"),
    probability: float | str = 0.05,
    weight: str | None = None,
    directed: bool = False,
    doubles: Doubles = "refuse",
    others: str = "refuse",
) -> Graph:
    """Your own contacts: one row each with the ids of its ends.

    Parameters
    ----------
    table
        A sheet; an edge list without a header (ends, and a third column where ``probability`` or ``weight`` names one),
        its remarks after ``#`` or ``%``; or a networkx graph, whose nodes are called as the arms and which says itself
        whether it is directed.
    ends
        Columns with the ids; activity goes from the first to the second when ``directed``.
    probability
        A number for all, or the column (of a networkx graph: the attribute) that holds each one's.
    weight
        Column with how much of a contact there is, at least 0 (meetings, hours): a weight w passes activity on with
        probability 1 - (1 - p)^w, p that of one unit.
    doubles
        See :data:`Doubles`; rows that agree are one contact.
    others
        What to do with ids that are not in the cohort: ``refuse`` or ``ignore``.

    Raises
    ------
    ModelError
        Listing rows with unknown ids and rows of one contact that differ; or with probabilities out of range.
    """
    given: Any = table
    if callable(getattr(given, "edges", None)):
        directed, table = bool(given.is_directed()), _of_networkx(given, ends, probability, weight)
    else:
        table = contact_table(arms, table, ends, probability, weight)
    first, second = table.text(ends[0]), table.text(ends[1])
    findings, kept = Findings(table.source), []
    for row, (one, two) in enumerate(zip(first, second, strict=True)):
        unknown = [name for name in dict.fromkeys((one, two)) if name not in arms]
        if not unknown:
            kept.append(row)
        elif others == "ignore":
            table.log.add(int(table.place(row)), "", f"{one} {two}", "", "a contact with somebody outside the cohort")
        for name in unknown if others != "ignore" else []:
            findings.add(table.place(row), f"no arm {name!r} in the cohort", nearest(name, arms.ids))
    findings.raise_if_any()
    chance = _chances(table, probability, weight)[kept]
    tail, head = (arms.indices([column[row] for row in kept]) for column in (first, second))
    return graph_of(arms.ids, tail, head, chance, table, kept, directed=directed, doubles=doubles)


def contact_table(
    arms: Arms, given: TableLike, ends: tuple[str, str], probability: float | str = 0.05, weight: str | None = None
) -> Table:
    """The rows of contacts under names of columns, with or without a header in the file."""
    if isinstance(given, str | Path) and Path(str(given).split("#")[0]).suffix.lower() not in SHEETS:
        third = [name for name in (probability, weight) if isinstance(name, str)]
        plain = _edge_list(arms, Path(given), (*ends, *third))
        if plain is not None:
            return plain
    return Table.read(given, needed=ends).without_totals(ends[0])


def _edge_list(arms: Arms, path: Path, names: tuple[str, ...]) -> Table | None:
    """A file of bare rows, or with blanks between the cells; None for what any table is."""
    try:
        data = read_regular(path)
        lines = data.decode("utf-8-sig").splitlines()
    except (OSError, ModelError, ValueError):
        # What cannot be read so is told by the reader of tables.
        return None
    rows = [(k, line) for k, line in enumerate(lines, start=1) if line.strip() and not line.lstrip().startswith(NOTES)]
    if not rows:
        return None
    mark = next((mark for mark in ("\t", ";", ",", "|") if mark in rows[0][1]), None)
    if mark == "\t" and " " not in rows[0][1].strip():
        # Where no cell holds a blank, any run of them parts cells.
        mark = None
    cells = [(k, [cell.strip() for cell in line.split(mark)]) for k, line in rows]
    head = cells[0][1]
    titled = {same_name(name) for name in names[:2]} <= {same_name(cell) for cell in head}
    if (titled and mark is not None) or (not titled and not any(cell in arms for cell in head[:2])):
        return None
    columns, cells = (head, cells[1:]) if titled else (list(names), cells)
    findings = Findings(str(path))
    for k, row in cells:
        if len(row) < len(columns):
            findings.add(str(k), f"{len(row)} cells, {', '.join(columns)} are expected", "complete the row")
    findings.raise_if_any()
    further = [f"column {k + 1}" for k in range(len(columns), max((len(row) for _, row in cells), default=0))]
    table = Table(
        {
            name: [row[k] if k < len(row) else "" for _, row in cells]
            for k, name in enumerate([*columns, *further])
        },
        source=str(path),
    )  # fmt: skip
    table._rows = [k for k, _ in cells]
    table.path, table.digest = path, hashlib.sha256(data).hexdigest()
    if not titled:
        said = f"no header: the columns are taken as {', '.join(columns)}"
        table.log.add(None, "", "", "", f"{said}; {len(further)} more are not read" if further else said)
    if len(rows) < len(lines):
        table.log.add(None, "", "", "", f"{len(lines) - len(rows)} lines of remarks or blanks")
    note(table)
    return table


def _of_networkx(graph: Any, ends: tuple[str, str], probability: float | str, weight: str | None) -> Table:
    rows = list(graph.edges(data=True))
    columns: dict[str, Sequence[object]] = {
        ends[0]: [text_of(u) for u, _, _ in rows],
        ends[1]: [text_of(v) for _, v, _ in rows],
    }
    for name in (probability, weight):
        if not isinstance(name, str):
            continue
        lacking = next(((u, v) for u, v, data in rows if name not in data), None)
        if lacking is not None:
            raise ModelError(
                f"the edge of {lacking[0]} and {lacking[1]} has no attribute {name!r}",
                "give every edge one, or a number.",
            )
        columns[name] = [data[name] for _, _, data in rows]
    return Table(columns, source="networkx graph")


def _chances(table: Table, probability: float | str, weight: str | None) -> np.ndarray:
    """Probability of each row, (rows,)."""
    if not isinstance(probability, str):
        if not 0 <= probability <= 1:
            raise ModelError(f"probability is {probability:g}", "give one from 0 to 1, or the name of a column.")
        chance = np.full(len(table), float(probability))
    else:
        chance = table.numbers(probability, minimum=0)
        if (chance > 1).any():
            row = int(np.argmax(chance > 1))
            raise ModelError(
                f"{table.source}:{table.place(row)}: {probability} is {chance[row]:g}, no probability",
                f"keep them in [0, 1]; for meetings or hours write weight: {probability} and probability: that of one.",
            )
    if weight is None:
        return chance
    said = f"{probability:g}" if not isinstance(probability, str) else probability
    table.log.add(None, weight, "", "", f"a weight w passes activity on with probability 1 - (1 - {said})^w")
    found: np.ndarray = 1.0 - (1.0 - chance) ** table.numbers(weight, minimum=0)
    return found


def graph_of(
    ids: Sequence[str],
    tail: np.ndarray,
    head: np.ndarray,
    chance: np.ndarray,
    table: Table,
    rows: Sequence[int],
    *,
    directed: bool = False,
    doubles: Doubles = "refuse",
) -> Graph:
    """The graph of contacts (M,) with each contact once, what was dropped or joined in the table's log.

    Parameters
    ----------
    ids
        What nodes are called.
    rows
        Row of the table behind each contact.

    Raises
    ------
    ModelError
        When rows of one contact differ and ``doubles`` does not say what holds.
    """
    if doubles not in ("refuse", "largest", "mean", "any"):
        raise ModelError(f"doubles is {doubles!r}", nearest(doubles, ("largest", "mean", "any", "refuse")))
    loops = tail == head
    if loops.any():
        name, own = ids[int(tail[loops][0])], int(loops.sum())
        table.log.add(None, "", "", "", f"{own} contacts of an arm with itself ({name}) left out: they carry nothing")
    place = np.flatnonzero(~loops)
    low, high = (tail, head) if directed else (np.minimum(tail, head), np.maximum(tail, head))
    key = low[place] * max(1, len(ids)) + high[place]
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    count = np.bincount(group, minlength=len(first))
    one = chance[place]
    least, most = np.full(len(first), np.inf), np.full(len(first), -np.inf)
    np.minimum.at(least, group, one)
    np.maximum.at(most, group, one)
    if doubles == "refuse" and (most > least).any():
        findings = Findings(table.source)
        for k in np.flatnonzero(most > least).tolist():
            mine = place[np.flatnonzero(group == k)] if len(findings.lines) < 20 else place[first[k : k + 1]]
            a, b = ids[int(tail[mine[0]])], ids[int(head[mine[0]])]
            lines = ", ".join(table.place(rows[int(m)]) for m in mine)
            values = ", ".join(f"{chance[m]:g}" for m in mine)
            findings.add(
                table.place(rows[int(mine[-1])]),
                f"the contact of {a!r} and {b!r} stands in rows {lines} with probabilities {values}",
                "keep one row, or say doubles: largest, mean or any in the dynamics",
            )
        findings.raise_if_any()
    if (count > 1).any():
        _note_doubles(table, ids, tail, head, place, first, group, directed, doubles)
    if doubles == "any":
        with np.errstate(divide="ignore"):
            kept = 1.0 - np.exp(np.bincount(group, np.log1p(-one), minlength=len(first)))
        kept = np.where(count == 1, most, kept)
    else:
        kept = np.bincount(group, one, minlength=len(first)) / np.maximum(count, 1) if doubles == "mean" else most
    # In the order of the rows, so that draws of a seed do not depend on ids.
    order = np.argsort(first, kind="stable")
    chosen = place[first[order]]
    return Graph(len(ids), tail[chosen], head[chosen], kept[order], directed)


def _note_doubles(
    table: Table,
    ids: Sequence[str],
    tail: np.ndarray,
    head: np.ndarray,
    place: np.ndarray,
    first: np.ndarray,
    group: np.ndarray,
    directed: bool,
    doubles: str,
) -> None:
    """What was made of rows that repeat a contact, in one line each for both directions and for doubles."""
    turned = np.zeros(len(place), dtype=bool) if directed else tail[place] != tail[place[first]][group]
    repeats = np.ones(len(place), dtype=bool)
    repeats[first] = False
    how = {"refuse": "counted once", "largest": "the largest holds", "mean": "their mean holds"}
    how["any"] = "joined as chances of their own"
    for which, what in ((repeats & turned, "in the other direction"), (repeats & ~turned, "again")):
        if which.any():
            k = place[int(np.argmax(which))]
            named = f"first {ids[int(tail[k])]} and {ids[int(head[k])]}"
            table.log.add(None, "", "", "", f"{int(which.sum())} contacts stand {what} ({named}): {how[doubles]}")
