"""Numbers of a column: one decision for all cells, made by what they prove, refused where both readings fit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

import numpy as np

from rmab_opt.problem.table.cells import is_missing

__all__ = ["Mark", "NumberColumn", "looks_numeric", "read_numbers"]

Mark = Literal["comma", "dot"]

SIGNS = {"comma": ",", "dot": "."}
SPACES = " \u00a0\u202f\u2009"
GROUPS = rf"[{SPACES}]|['’]"
MONEY = r"[$€£¥₹]|Rs\.?|R\$|kr\.?|CFA|EUR|USD|GBP|INR|CHF|KES|KSh|TZS|UGX|NGN|ZAR|BRL|MXN|BDT|PKR"
CELL = re.compile(
    rf"(?P<sign>[+\-−]?)[{SPACES}]*(?P<before>{MONEY})?[{SPACES}]*(?P<late>[\-−]?)"
    rf"(?P<body>[0-9.,](?:[0-9.,'’{SPACES}]*[0-9])?)[{SPACES}]*(?P<after>%|[$€£¥₹]|[^\W\d_][^\d_]*)?"
)
PLAIN = re.compile(rf"[+\-−]?[{SPACES}]*[0-9.,]*[0-9][0-9.,'’{SPACES}]*%?")
CODE = re.compile(r"(\+|0[0-9])[^.,]*")
"""A telephone number or a code: no number, whatever its digits."""


def _pattern(mark: str) -> re.Pattern[str]:
    """Correct groups of three and at most one decimal mark; a group never begins with 0."""
    other = r"\." if mark == "," else ","
    group = rf"(?P<g>{other}|{GROUPS})"
    return re.compile(
        rf"(?P<whole>[1-9][0-9]{{0,2}}{group}[0-9]{{3}}(?:(?P=g)[0-9]{{3}})*|[0-9]*)(?:\{mark}(?P<part>[0-9]+))?"
    )


PATTERNS: dict[Mark, re.Pattern[str]] = {"comma": _pattern(","), "dot": _pattern(".")}


def looks_numeric(text: str) -> bool:
    """Whether a text is digits and marks, as no name of a column is."""
    return PLAIN.fullmatch(text) is not None


@dataclass
class NumberColumn:
    """What a column says as numbers.

    ``values`` is float64 with NaN where a cell is missing or wrong; ``faults`` holds (row, what, fix), ``refusal`` what
    is wrong with the column as a whole, ``proves`` the decimal mark that its own cells prove, ``assumed`` what was
    taken from elsewhere.
    """

    values: np.ndarray
    missing: np.ndarray
    faults: list[tuple[int, str, str]] = field(default_factory=list)
    refusal: tuple[int, str, str] | None = None
    proves: Mark | None = None
    open: bool = False
    """Whether a cell has two readings that only evidence from elsewhere can settle."""
    assumed: str = ""
    unit: str = ""


@dataclass(frozen=True)
class _Cell:
    row: int
    text: str
    comma: Decimal | None
    dot: Decimal | None
    unit: str


def _reading(body: str, mark: Mark, negative: bool) -> Decimal | None:
    found = PATTERNS[mark].fullmatch(body)
    if found is None or not (found["whole"] or found["part"]):
        return None
    whole = re.sub(r"[^0-9]", "", found["whole"])
    value = Decimal(f"{whole or '0'}.{found['part'] or '0'}")
    return -value if negative else value


def _cell(row: int, text: str) -> _Cell | None:
    found = CELL.fullmatch(text)
    if found is None or CODE.fullmatch(text) or (found["sign"] and found["late"]):
        return None
    negative = (found["sign"] or found["late"]) in ("-", "−")
    comma, dot = (_reading(found["body"], mark, negative) for mark in ("comma", "dot"))
    if comma is None and dot is None:
        return None
    units = [part.strip() for part in (found["before"], found["after"]) if part]
    return None if len(units) > 1 else _Cell(row, text, comma, dot, "".join(units))


def read_numbers(
    cells: Sequence[object], texts: Sequence[str], told: Mark | None, sheet: Mark | None, extra_missing: frozenset[str]
) -> NumberColumn:
    """Read all cells of a column.

    Parameters
    ----------
    cells, texts
        The cells as they came and as text; a cell that is a number already is believed.
    told
        Decimal mark that the model file names.
    sheet
        Decimal mark that the sheet's other columns prove, or None.
    extra_missing
        Further words for a missing value, in lower case.
    """
    n = len(cells)
    column = NumberColumn(np.full(n, np.nan), np.zeros(n, dtype=bool))
    read: list[_Cell] = []
    for row, (cell, text) in enumerate(zip(cells, texts, strict=True)):
        if isinstance(cell, bool | np.bool_):
            column.faults.append((row, f"{text!r} is not a number", "write it as 3 or 2.5"))
        elif isinstance(cell, int | float | np.integer | np.floating) and text:
            try:
                column.values[row] = float(cell)
            except OverflowError:
                column.values[row] = np.inf
        elif is_missing(text, extra_missing):
            column.missing[row] = True
        elif (found := _cell(row, text)) is not None:
            read.append(found)
        else:
            what = (
                "looks like a code or a telephone number, not a number" if CODE.fullmatch(text) else "is not a number"
            )
            column.faults.append((row, f"{text!r} {what}", "write it as 3 or 2.5"))
    if read:
        _decide(column, read, told, sheet)
    for row in np.flatnonzero(np.isinf(column.values)).tolist():
        column.faults.append((row, f"{texts[row][:40]!r} is not a finite number", "give its value"))
    return column


def _decide(column: NumberColumn, read: list[_Cell], told: Mark | None, sheet: Mark | None) -> None:
    first: dict[Mark, _Cell] = {}
    doubtful: _Cell | None = None
    for cell in read:
        if cell.comma is None:
            first.setdefault("dot", cell)
        elif cell.dot is None:
            first.setdefault("comma", cell)
        elif cell.comma != cell.dot and doubtful is None:
            doubtful = cell
    units = {cell.unit: cell for cell in reversed(read)}
    if ("%" in units and len(units) > 1) or len(units.keys() - {""}) > 1:
        one, other = list(units.values())[:2]
        column.refusal = (
            max(one.row, other.row),
            f"several units: {one.text!r} and {other.text!r}",
            "write all cells in one unit",
        )
        return
    column.unit = next((unit for unit in units if unit), "")
    if len(first) == 2:
        comma, dot = first["comma"], first["dot"]
        later = max(comma.row, dot.row)
        column.refusal = (
            later,
            f"both decimal marks: {comma.text!r} has a comma, {dot.text!r} a dot",
            "write all cells alike",
        )
        return
    column.proves = next(iter(first), None)
    mark = column.proves
    if mark is not None and told is not None and mark != told:
        cell = first[mark]
        column.refusal = (
            cell.row,
            f"{cell.text!r} has a decimal {mark}, the model file says {told}",
            "correct one of them",
        )
        return
    if mark is None and doubtful is not None:
        column.open = True
        mark = told or sheet
        if mark is None:
            column.refusal = (
                doubtful.row,
                f"both readings possible: {doubtful.text!r} is {doubtful.comma:f} with a decimal comma"
                f" and {doubtful.dot:f} with a decimal dot",
                "say `tables: {decimal: comma}` or `{decimal: dot}` in the model file or columns.yaml, or write it so "
                "that one fits",
            )
            return
        column.assumed = f"decimal {mark} " + ("as the model file says" if told else "as other columns of the sheet")
    percent = column.unit == "%"
    for cell in read:
        value = cell.comma if mark == "comma" else cell.dot
        assert value is not None
        column.values[cell.row] = float(value / 100 if percent else value)
