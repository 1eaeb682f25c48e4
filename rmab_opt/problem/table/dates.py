"""Dates and yes/no: one decision for all cells of a column."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rmab_opt.problem.table.cells import is_missing

__all__ = ["DateColumn", "Order", "looks_like_date", "read_dates", "read_yes_no"]

Order = Literal["dmy", "mdy"]

ISO = re.compile(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})(?P<time>[T ][0-9:.]+(?:Z|[+-][0-9:]+)?)?")
OTHER = re.compile(r"([0-9]{1,2})([/.\-])([0-9]{1,2})\2([0-9]{4}|[0-9]{2})(?P<time>[T ][0-9:.]+)?")
DAY_NUMBER = re.compile(r"[0-9]{5}")
EPOCH = datetime.date(1899, 12, 30)

YES = frozenset(["yes", "y", "oui", "sí", "si", "sim", "ja", "да", "हाँ", "हां", "ndiyo", "1", "true", "x", "✓"])
NO = frozenset(["no", "n", "non", "não", "nao", "nein", "нет", "नहीं", "hapana", "0", "false"])


def looks_like_date(text: str) -> bool:
    """Whether a text is written as a date."""
    return ISO.fullmatch(text) is not None or OTHER.fullmatch(text) is not None


@dataclass
class DateColumn:
    """What a column says as dates; ``faults`` and ``refusal`` as in :class:`NumberColumn`."""

    values: list[datetime.date | None]
    faults: list[tuple[int, str, str]] = field(default_factory=list)
    refusal: tuple[int, str, str] | None = None
    proves: Order | None = None
    open: bool = False
    assumed: str = ""


def _date(year: int, month: int, day: int) -> datetime.date | None:
    try:
        return datetime.date(year, month, day)
    except ValueError:
        return None


def read_dates(
    cells: Sequence[object], texts: Sequence[str], told: Order | None, sheet: Order | None, extra: frozenset[str]
) -> DateColumn:
    """Read all cells of a column: ISO first, else day and month in the order that the cells prove.

    Parameters
    ----------
    told, sheet
        The order that the model file names, and that the sheet's other date columns prove.
    """
    column = DateColumn([None] * len(cells))
    turned: list[tuple[int, str, int, int, int]] = []
    for row, (cell, text) in enumerate(zip(cells, texts, strict=True)):
        if isinstance(cell, datetime.datetime) and text:
            column.values[row] = cell.date()
        elif isinstance(cell, datetime.date) and text:
            column.values[row] = cell
        elif is_missing(text, extra):
            continue
        elif found := ISO.fullmatch(text):
            column.values[row] = _date(int(found[1]), int(found[2]), int(found[3]))
            if column.values[row] is None:
                column.faults.append((row, f"{text!r} is no date: the day is out of range", "give a day that exists"))
            if found["time"]:
                column.assumed = "the times of day are left out"
        elif found := OTHER.fullmatch(text):
            year = int(found[4]) + (2000 if len(found[4]) == 2 else 0)
            turned.append((row, text, int(found[1]), int(found[3]), year))
            if len(found[4]) == 2:
                column.assumed = "two-digit years are taken as 20yy"
        elif DAY_NUMBER.fullmatch(text):
            would = EPOCH + datetime.timedelta(days=int(text))
            column.faults.append(
                (row, f"{text!r} is a spreadsheet's day number, it would be {would}", "make it a date cell")
            )
        else:
            column.faults.append((row, f"{text!r} is no date", "write it as 2026-04-03"))
    if turned:
        _order(column, turned, told, sheet)
    return column


def _order(
    column: DateColumn, turned: list[tuple[int, str, int, int, int]], told: Order | None, sheet: Order | None
) -> None:
    first: dict[Order, tuple[int, str]] = {}
    doubtful = None
    for row, text, a, b, year in turned:
        if a > 12 >= b:
            first.setdefault("dmy", (row, text))
        elif b > 12 >= a:
            first.setdefault("mdy", (row, text))
        elif a != b and doubtful is None:
            doubtful = row, text, a, b, year
    if len(first) == 2:
        (row, day_first), (other, month_first) = first["dmy"], first["mdy"]
        column.refusal = (
            max(row, other),
            f"both orders: {day_first!r} has the day first, {month_first!r} the month",
            "write all alike",
        )
        return
    column.proves = next(iter(first), None)
    order = column.proves
    if order is not None and told is not None and order != told:
        row, text = first[order]
        column.refusal = (row, f"{text!r} is {order}, the model file says {told}", "correct one of them")
        return
    if order is None and doubtful is not None:
        column.open = True
        order = told or sheet
        if order is None:
            row, text, a, b, year = doubtful
            readings = [day.strftime("%d %B %Y") if day else "no day" for day in (_date(year, b, a), _date(year, a, b))]
            column.refusal = (
                row,
                f"both orders possible: {text!r} is {readings[0]} or {readings[1]}",
                "say `tables: {dates: dmy}` or `{dates: mdy}` in the model file or columns.yaml, or write 2026-04-03",
            )
            return
        column.assumed = f"{order} " + ("as the model file says" if told else "as other columns of the sheet")
    for row, text, a, b, year in turned:
        day, month = (b, a) if order == "mdy" else (a, b)
        column.values[row] = _date(year, month, day)
        if column.values[row] is None:
            column.faults.append((row, f"{text!r} is no date: the day is out of range", "give a day that exists"))


def read_yes_no(
    cells: Sequence[object], texts: Sequence[str], empty_is_no: bool, extra: frozenset[str]
) -> Iterator[tuple[bool | None, str]]:
    """For each cell True, False or None for missing, and what is wrong with it."""
    for cell, text in zip(cells, texts, strict=True):
        lower = text.casefold()
        if isinstance(cell, bool):
            yield cell, ""
        elif lower in YES:
            yield True, ""
        elif lower in NO:
            yield False, ""
        elif is_missing(text, extra):
            yield (False if empty_is_no and not text else None), ""
        else:
            yield None, f"{text!r} is neither yes nor no"
