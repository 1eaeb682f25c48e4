"""Plain rows and trees to text, CSV and workbooks."""

from __future__ import annotations

import csv
import io
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from unicodedata import category

from rmab_opt.errors import ModelError

__all__ = [
    "Report",
    "cell",
    "frame",
    "is_visible",
    "marked",
    "table_csv",
    "table_latex",
    "table_text",
    "tree",
    "unmarked",
    "visible",
    "workbook",
]

MOST_LETTERS = 32_767


@dataclass(frozen=True)
class Report:
    """What a verb is told by a setting."""

    document: Any
    """For JSON."""
    text: str
    """For a person."""
    parts: list[tuple[str, Any]] = field(default_factory=list)
    """For a page: headings, each with rows or a sentence."""


HIDDEN = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Signs that break or turn a line without being seen; other formatting signs belong to scripts."""


def is_visible(text: str) -> bool:
    """Whether a text holds no control sign: nothing that moves a cursor, breaks a line or turns its direction."""
    return text.isprintable() or not any(sign in HIDDEN or category(sign) in ("Cc", "Cs") for sign in text)


def visible(text: str, keep: str = "") -> str:
    """A text with its control signs written out, but for those to ``keep``: it cannot forge a line or move a cursor."""
    if is_visible(text):
        return text
    return "".join(
        sign.encode("unicode_escape").decode("ascii")
        if sign not in keep and (sign in HIDDEN or category(sign) in ("Cc", "Cs"))
        else sign
        for sign in text
    )


def tree(title: str, lines: Mapping[str, str]) -> str:
    """A title with one labelled branch a line, labels aligned."""
    labels = [visible(label) for label in lines]
    width = max((len(label) for label in labels), default=0)
    branches = [
        f"{'└' if k == len(labels) - 1 else '├'} {label:<{width}}  {visible(text)}".rstrip()
        for k, (label, text) in enumerate(zip(labels, lines.values(), strict=True))
    ]
    return "\n".join([visible(title), *branches])


def cell(value: Any) -> str:
    """One value as a person reads it: four significant digits, a dash for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return visible(str(value))


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as aligned columns; numbers to the right."""
    if not rows:
        return "(no rows)"
    names = list(rows[0])
    cells = [[cell(row.get(name)) for name in names] for row in rows]
    right = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]
    lines = [[visible(name) for name in names], *cells]
    width = [max(len(line[k]) for line in lines) for k in range(len(names))]
    return "\n".join(
        "  ".join(part.rjust(width[k]) if right[k] else part.ljust(width[k]) for k, part in enumerate(line)).rstrip()
        for line in lines
    )


FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""How a text begins that a spreadsheet would take for a formula, or that was marked as none."""


def marked(value: Any) -> Any:
    """A CSV cell that is read back as it is: a text that a spreadsheet would take for a formula gets an apostrophe,
    which reading takes off; a number has no exponent, and no three decimals that could be thousands."""
    if isinstance(value, float):
        return _plain(value)
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def _plain(value: float) -> str:
    """All digits of a number, in one reading; empty for one that is none."""
    if not math.isfinite(value):
        return ""
    text = f"{Decimal(repr(float(value))):f}"
    return f"{text}0" if re.fullmatch(r"-?[1-9]\d{0,2}\.\d{3}", text) else text


def unmarked(text: str) -> str:
    """What :func:`marked` was given."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def table_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV text with a header; no text in it becomes a formula."""
    text = io.StringIO()
    names = list(rows[0]) if rows else []
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([marked(name) for name in names])
    writer.writerows([marked(row.get(name, "")) for name in names] for row in rows)
    return text.getvalue()


def workbook(sheets: Mapping[str, Sequence[Sequence[Any]]]) -> bytes:
    """An XLSX file: rows of cells by the name of their sheet; text stays text, whatever it begins with.

    Raises
    ------
    ModelError
        When a text holds a control sign, which no workbook can keep, or is longer than a cell holds.
    """
    from openpyxl import Workbook
    from openpyxl.styles import Font
    from openpyxl.utils.exceptions import IllegalCharacterError

    book = Workbook()
    book.remove(book.active)
    book.properties.creator = "rmab-opt"
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for line, cells in enumerate(rows, start=1):
            for column, value in enumerate(cells, start=1):
                if value is None or value == "":
                    continue
                place = sheet.cell(line, column)
                if isinstance(value, str) and len(value) > MOST_LETTERS:
                    raise ModelError(f"{value[:40]!r}... has {len(value)} letters", "a workbook's cell holds 32767.")
                try:
                    place.value = value
                except IllegalCharacterError:
                    raise ModelError(
                        f"{str(value)!r} holds a sign that no workbook can keep", "write a .csv, or take the sign out."
                    ) from None
                if isinstance(value, str):
                    place.data_type, place.quotePrefix, place.number_format = "s", True, "@"
                if line == 1:
                    place.font = Font(bold=True)
        sheet.freeze_panes = "A2"
    buffer = io.BytesIO()
    book.save(buffer)
    return _without_clock(buffer.getvalue())


def _without_clock(data: bytes) -> bytes:
    """A workbook whose bytes depend on its cells alone: the times in the archive and in its properties are fixed."""
    found = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            text = old.read(part)
            if part.filename == "docProps/core.xml":
                text = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"1980-01-01T00:00:00Z", text)
            new.writestr(zipfile.ZipInfo(part.filename), text, zipfile.ZIP_DEFLATED)
    return found.getvalue()


def table_latex(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a LaTeX tabular."""
    if not rows:
        return ""
    names = list(rows[0])

    def escaped(text: str) -> str:
        return text.replace("\\", r"\textbackslash{}").replace("_", r"\_").replace("%", r"\%").replace("&", r"\&")

    body = [" & ".join(escaped(cell(row.get(name))) for name in names) + r" \\" for row in rows]
    head = " & ".join(escaped(name) for name in names) + r" \\"
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * (len(names) - 1)}}}",
            r"\hline",
            head,
            r"\hline",
            *body,
            r"\hline",
            r"\end{tabular}",
        ]
    )


FRAMES = ("pandas", "polars")
"""Libraries of data frames, in the order in which they are looked for."""


def frame(rows: Sequence[Mapping[str, Any]], backend: str | None = None) -> Any:
    """Rows as a data frame of ``backend``, or of the first of :data:`FRAMES` that is installed.

    Raises
    ------
    ModelError
        When the backend is not one of them, or none is installed.
    """
    from importlib.util import find_spec

    if backend is not None and backend not in FRAMES:
        raise ModelError(f"no frames of {backend!r}", f"use one of {', '.join(FRAMES)}.")
    found = [name for name in FRAMES if backend in (None, name) and find_spec(name) is not None]
    if not found:
        neither = f"neither {' nor '.join(FRAMES)} is installed"
        raise ModelError(
            f"no data frames: {neither if backend is None else f'{backend} is not installed'}",
            f"pip install {backend or FRAMES[0]}, or take the plain rows.",
        )
    import narwhals

    library: Any = found[0]
    names = list(dict.fromkeys(name for row in rows for name in row))
    made = narwhals.from_dict({name: [row.get(name) for row in rows] for name in names}, backend=library)
    return made.to_native()
