"""Rows of totals at the foot or in the midst of a sheet: found for certain, or refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rmab_opt.errors import Findings
from rmab_opt.problem.table.numbers import NumberColumn

if TYPE_CHECKING:
    from rmab_opt.problem.table.table import Table

__all__ = ["totals"]

WORDS = ("grand total", "sub-total", "subtotal", "totals", "total", "sous-total", "somme", "sum", "suma", "summe",
         "gesamt", "insgesamt", "totaux", "soma", "jumla", "कुल")  # fmt: skip
COUNTED = re.compile(r"([0-9][0-9.,'\u00a0\u202f]*)(?:\s+[^\W\d]|$)")
BEGINS = re.compile(rf"({'|'.join(WORDS)})(?!\w)", re.IGNORECASE)


def totals(table: Table, key: str) -> set[int]:
    """Rows of totals: without a key, or with a totals word for one, and nothing but sums beside it.

    Raises
    ------
    ModelError
        When a key is a totals word but the row's numbers are no sums.
    """
    names, found, findings = table.columns[key], set[int](), Findings(table.source)
    numeric: dict[str, NumberColumn] | None = None
    keys = set[str]()
    for row, name in enumerate(names):
        if row and row - 1 not in found:
            keys.add(names[row - 1])
        # In a list of ids alone there is nothing else to tell by: only the bare word is a total.
        begins = BEGINS.match(name.strip()) if len(table.columns) > 1 else BEGINS.fullmatch(name.strip())
        word = begins is not None
        if name.strip() and not word:
            continue
        others = [column for column, cells in table.columns.items() if column != key and cells[row].strip()]
        if not name.strip() and not others:
            found.add(row)
            continue
        said = word or any(BEGINS.match(table.columns[column][row].strip()) for column in others)
        if not name.strip() and said:
            found.add(row)
            continue
        if numeric is None:
            numeric = {column: read for column in table.columns if (read := table.number_column(column))}
        before = sorted(found)
        # Rows above, or keys above where one stands twice.
        counts = (row - len(before), row, len(keys))
        sums = _sums(numeric, others, row, before, counts, lambda column, row: table.columns[column][row].strip())
        if (sums is not False) if said else sums is True:
            found.add(row)
        elif BEGINS.fullmatch(name.strip().rstrip(":")):
            findings.add(
                table.place(row), f"{key} {name!r} looks like a row of totals, but its numbers are no sums",
                "remove the row, or give the entry another name",
            )  # fmt: skip
    findings.raise_if_any()
    return found


def _sums(
    numeric: dict[str, NumberColumn],
    others: Sequence[str],
    row: int,
    before: Sequence[int],
    counts: Sequence[int],
    read_text: Callable[[str, int], str],
) -> bool | None:
    """True when each number of a row is the sum of those above it; False when one is not; None without numbers."""
    looked = False
    for column in others:
        read = numeric.get(column)
        if read is None or not np.isfinite(read.values[:row]).any():
            # "150 families" beside the word counts the rows above, which is as good as a sum.
            counted = COUNTED.match(read_text(column, row))
            if counted is None or int(re.sub(r"\D", "", counted[1])) not in counts:
                return False
            looked = True
            continue
        if np.isnan(read.values[row]):
            continue
        above = np.ones(row, dtype=bool)
        above[[b for b in before if b < row]] = False
        start = max((b for b in before if b < row), default=-1) + 1
        value = read.values[row]
        looked = True
        fits = [np.nansum(read.values[:row][above]), np.nansum(read.values[start:row])]
        if not any(abs(value - total) <= 0.5 * 10.0 ** -_places(value) + 1e-9 * abs(total) for total in fits):
            return False
    return True if looked else None


def _places(value: float) -> int:
    """Decimal places that a number is written with."""
    text = f"{value:.10f}".rstrip("0")
    return len(text.split(".")[1])
