"""One cell: typed or text, missing or filled."""

from __future__ import annotations

import datetime
import math
import unicodedata

import numpy as np

__all__ = ["MISSING", "cell_text", "is_missing", "same_name", "text_of"]

MISSING = frozenset(
    "|-|–|—|.|n/a|na|#n/a|nan|null|none|nd|s/d|k. a.|<na>|nat".split("|")  # noqa: SIM905
    + "#div/0! #value! #ref! #name? #num! #null!".split()  # noqa: SIM905
)
"""What people write where there is no value, in lower case; only numbers, dates and yes/no look at it."""


def is_missing(text: str, extra: frozenset[str] = frozenset()) -> bool:
    """Whether a cell stands for nothing where a value is asked for."""
    lower = text.casefold()
    return lower in MISSING or lower in extra


def text_of(cell: object) -> str:
    """A cell as text; whole numbers without a mark, nothing for what is missing."""
    if isinstance(cell, str):
        return str(cell)
    if cell is None:
        return ""
    if isinstance(cell, float | np.floating):
        value = float(cell)
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(cell, datetime.datetime):
        if cell != cell:  # pandas' NaT is a datetime that differs from itself
            return ""
        return cell.date().isoformat() if cell.time() == datetime.time() else cell.replace(tzinfo=None).isoformat()
    if isinstance(cell, datetime.time):
        return cell.strftime("%H:%M" if not cell.second else "%H:%M:%S")
    text = str(cell)
    return "" if text in ("<NA>", "NaT") else text


def cell_text(cell: object) -> str:
    """As :func:`text_of`, without the spaces around it."""
    return text_of(cell).strip()


def same_name(name: str) -> str:
    """What two spellings of one column name have in common: case and spaces do not count."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())
