"""Records of a sheet to a header and rows: titles and group rows above it go, with a word in the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rmab_opt.errors import Findings, ModelError
from rmab_opt.problem.table.cells import cell_text, same_name
from rmab_opt.problem.table.dates import looks_like_date
from rmab_opt.problem.table.log import Log
from rmab_opt.problem.table.numbers import looks_numeric
from rmab_opt.problem.table.text import Record
from rmab_opt.problem.table.workbook import Unsaved

__all__ = ["Laid", "lay_out"]


@dataclass(frozen=True)
class Laid:
    """A sheet with its header found: cells by column name, and the line of every row."""

    columns: dict[str, list[object]]
    lines: list[int]


def _filled(record: Record) -> list[int]:
    return [k for k, cell in enumerate(record.cells) if cell_text(cell) or isinstance(cell, Unsaved)]


def _all_names(record: Record) -> bool:
    """Whether every filled cell is text that is no number and no date."""
    cells = [record.cells[k] for k in _filled(record)]
    return all(
        isinstance(cell, str) and not looks_numeric(cell.strip()) and not looks_like_date(cell.strip())
        for cell in cells
    )


def _distinct(record: Record) -> bool:
    names = [same_name(cell_text(record.cells[k])) for k in _filled(record)]
    return len(set(names)) == len(names)


def _has(record: Record, needed: Sequence[str]) -> bool:
    names = {same_name(cell) for cell in record.cells if isinstance(cell, str)}
    return {same_name(name) for name in needed} <= names


def _header(found: list[Record], needed: Sequence[str], where: str) -> int:
    """Position of the header: the row with the needed names, else the first well-filled row of names.

    Raises
    ------
    ModelError
        When no row can be it.
    """
    if needed:
        for k, record in enumerate(found):
            if _has(record, needed):
                return k
    used = len({column for record in found for column in _filled(record)})
    wide = [k for k, record in enumerate(found) if 2 * len(_filled(record)) >= used]
    named = next((k for k in wide if _all_names(found[k])), None)
    if not wide:
        raise ModelError(
            f"{where}:{found[0].line}: there is no header line, no row fills half of the columns",
            "give the columns names in one line above the rows.",
        )
    first = wide[0]
    if named is not None and all(len(_filled(record)) < len(_filled(found[named])) for record in found[:named]):
        return named
    # With a row of names below one that is as full, that one may be a header with numbers for names.
    record = found[first]
    cells = [record.cells[k] for k in _filled(record)]
    if isinstance(cells[0], str) and not looks_numeric(cells[0].strip()) and not looks_like_date(cells[0].strip()):
        return first
    raise ModelError(
        f"{where}:{record.line}: there is no header line, this row begins with {cell_text(cells[0])[:40]!r}",
        "give the columns names in one line above the rows.",
    )


def _names(found: list[Record], at: int, width: int, log: Log) -> list[str]:
    """Names of the columns; where they repeat below a row of groups, with the group's name before them."""
    cells = [cell_text(cell) for cell in found[at].cells] + [""] * (width - len(found[at].cells))
    above = found[at - 1] if at else None
    if above is None or not 1 < len(_filled(above)) < len(_filled(found[at])):
        return cells
    log.add(
        above.line, "", " | ".join(cell_text(cell) for cell in above.cells if cell_text(cell)), "", "a row of groups"
    )
    if _distinct(found[at]):
        return cells
    joined, group = [], ""
    for k, name in enumerate(cells):
        group = (cell_text(above.cells[k]) if k < len(above.cells) else "") or group
        joined.append(f"{group} / {name}" if group and name else name)
    return joined


def lay_out(found: list[Record], needed: Sequence[str], where: str, log: Log) -> Laid:
    """Find the header and put the cells below it under its names.

    Parameters
    ----------
    needed
        Names that the header has for certain, when the reader knows them.

    Raises
    ------
    ModelError
        When there is no header, a name stands twice or is missing above cells, or a row is too long.
    """
    if not found:
        raise ModelError(f"{where}: is empty", "give a header line and one row an entry.")
    at = _header(found, needed, where)
    width = max(len(record.cells) for record in found[at:])
    names = _names(found, at, width, log)
    header = found[at]
    for record in found[:at]:
        if not any(remark.line == record.line for remark in log.remarks):
            text = " | ".join(cell_text(cell) for cell in record.cells if cell_text(cell))
            log.add(record.line, "", text, "", "a title above the header")
    log.facts["header"] = f"line {header.line}"
    rows, findings = found[at + 1 :], Findings(where)
    spellings: dict[str, str] = {}
    for name in names:
        if name and same_name(name) in spellings:
            other = spellings[same_name(name)]
            alike = "" if other == name else f" (as {other!r})"
            findings.add(str(header.line), f"column {name!r} stands twice{alike}", "rename one of them")
        spellings.setdefault(same_name(name), name)
    surplus = len(header.cells)
    while surplus and not names[surplus - 1]:
        surplus -= 1
    kept = []
    for k, name in enumerate(names):
        if name:
            kept.append(k)
        elif k < len(header.cells) and any(k in _filled(record) for record in rows):
            findings.add(str(header.line), f"column {k + 1} has no name", "name it or remove it")
        elif k < len(header.cells):
            log.add(header.line, "", f"column {k + 1}", "", "an unnamed empty column")
    for record in rows:
        count = max(_filled(record), default=-1) + 1
        if count > len(header.cells):
            findings.add(
                str(record.line), f"{count} cells, the header has {surplus}", "put cells with marks into quotes"
            )
        elif len(record.cells) < surplus:
            log.add(record.line, "", "", "", f"{len(record.cells)} cells of {surplus}, the rest is empty")
    findings.raise_if_any()
    columns: dict[str, list[object]] = {
        names[k]: [_trimmed(record.cells[k]) if k < len(record.cells) else "" for record in rows] for k in kept
    }
    if any(looks_numeric(names[k]) for k in kept):
        log.add(header.line, "", "", "", "some columns have numbers for names")
    return Laid(columns, [record.line for record in rows])


def _trimmed(cell: object) -> object:
    return cell.strip() if type(cell) is str else cell
