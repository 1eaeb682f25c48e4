"""Sheets of an .xlsx or .ods workbook to records of typed cells."""

from __future__ import annotations

import datetime
import io
import re
from typing import Any

from rmab_opt.errors import ModelError
from rmab_opt.problem.table.log import Log
from rmab_opt.problem.table.packed import require_room
from rmab_opt.problem.table.text import Record

__all__ = ["Unsaved", "is_workbook", "sheets"]

ZEROS = re.compile(r"0{2,}")


def is_workbook(data: bytes) -> bool:
    """Whether these are the first bytes of a zip archive or of an old binary workbook."""
    return data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0"))


class Unsaved(str):
    """Stands for a formula whose value was never stored; text is empty, reading it where it is needed is refused."""

    __slots__ = ()


def sheets(data: bytes, where: str) -> dict[str, tuple[list[Record], Log]]:
    """Rows that hold anything, and a log, by the name of their sheet.

    Raises
    ------
    ModelError
        When the workbook cannot be read.
    """
    import python_calamine

    xlsx = data.startswith(b"PK") and require_room(data, where)
    try:
        book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        grids = {}
        for name in book.sheet_names:
            sheet = book.get_sheet_by_name(name)
            grids[name] = sheet.to_python(skip_empty_area=False)
    except (python_calamine.CalamineError, OSError, ValueError, IndexError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{where}: is no workbook that can be read ({said})", "save it as .xlsx, .ods or CSV UTF-8."
        ) from None
    looks = _looks(data, where) if xlsx else {}
    values = _looks(data, where, values=True) if any(map(_has_formula, looks.values())) else {}
    return {name: _records(grid, looks.get(name), values.get(name)) for name, grid in grids.items()}


def _has_formula(look: Any) -> bool:
    return any(cell.data_type == "f" for row in look.iter_rows() for cell in row)


def _looks(data: bytes, where: str, *, values: bool = False) -> dict[str, Any]:
    """The sheets as openpyxl sees them: formats, formulas, errors, hidden rows."""
    import openpyxl

    try:
        book = openpyxl.load_workbook(io.BytesIO(data), data_only=values)
    except Exception as error:  # noqa: BLE001 - openpyxl lets any error of its parts through
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{where}: is no workbook that can be read ({said})", "open it and save it again.") from None
    return {sheet.title: sheet for sheet in book.worksheets}


def _records(grid: list[list[Any]], look: Any, values: Any) -> tuple[list[Record], Log]:
    log, found = Log(), []
    formats: dict[int, dict[int, Any]] = {}
    if look is not None:
        for row in look.iter_rows():
            formats[row[0].row] = {cell.column: cell for cell in row if cell.value is not None}
        hidden = [number for number, kept in look.row_dimensions.items() if kept.hidden]
        if hidden:
            log.add(None, "", "", "", f"{len(hidden)} hidden or filtered rows are read too (row {hidden[0]} first)")
    for number, cells in enumerate(grid, start=1):
        seen = formats.get(number, {})
        row = [_believed(cell, seen.get(column), values) for column, cell in enumerate(cells, start=1)]
        if any(cell != "" or isinstance(cell, Unsaved) for cell in row):
            found.append(Record(number, row))
        else:
            log.blank.append(number)
    return found, log


def _believed(cell: Any, look: Any, values: Any) -> object:
    """The value by its type; what openpyxl knows beside it: zeros of a number's format, a formula without a value."""
    if isinstance(cell, datetime.timedelta):
        return str(cell)
    if look is None:
        return cell
    if look.data_type == "f" and cell == "":
        stored = values[look.coordinate]
        return Unsaved() if stored.value is None else str(stored.value)
    if look.data_type == "e":
        return str(look.value)
    if isinstance(cell, float) and cell.is_integer() and cell >= 0 and ZEROS.fullmatch(str(look.number_format)):
        return f"{int(cell):0{len(look.number_format)}d}"
    if isinstance(cell, datetime.time) and "hh" not in str(look.number_format).lower():
        return f"{cell.hour}:{cell.minute:02d}"
    return cell
