"""Plain rows and trees to text, HTML and CSV."""

from __future__ import annotations

import csv
import io
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from html import escape
from typing import Any
from unicodedata import category

from rmab_opt.errors import ModelError

__all__ = [
    "Report",
    "frame",
    "is_visible",
    "marked",
    "notebook_html",
    "page_html",
    "table_csv",
    "table_html",
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


def _escaped(text: str) -> str:
    return escape(visible(text, keep="\n\t"))


def table_html(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as an HTML table; numbers to the right, everything escaped."""
    if not rows:
        return "<p>(none)</p>"
    names = list(rows[0])
    right = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]

    def line(tag: str, cells: Sequence[str]) -> str:
        marked = [
            f'<{tag} class="n">{_escaped(part)}</{tag}>' if number else f"<{tag}>{_escaped(part)}</{tag}>"
            for part, number in zip(cells, right, strict=True)
        ]
        return f"<tr>{''.join(marked)}</tr>"

    body = "\n".join(line("td", [cell(row.get(name)) for name in names]) for row in rows)
    head = line("th", [name.replace("_", " ") for name in names])
    return f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


PAGE_STYLE = """
body { font: 15px/1.45 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #1c1c1c; margin: 2em auto;
  max-width: 60em; padding: 0 1em; }
h1 { font-size: 1.5em; margin: 0 0 .2em; } h2 { font-size: 1.1em; margin: 1.6em 0 .4em; }
p { margin: .3em 0; } p.warning { border-left: 4px solid #b03030; padding-left: .6em; font-weight: 600; }
section { break-inside: avoid; } section:has(tbody tr:nth-child(12)) { break-inside: auto; }
table { border-collapse: collapse; width: 100%; } tr { break-inside: avoid; } thead { display: table-header-group; }
th, td { text-align: left; padding: .25em .6em; border-bottom: 1px solid #d5d5d5; vertical-align: top; }
td:first-child, td:nth-child(2) { white-space: nowrap; }
th { border-bottom: 2px solid #8a8a8a; font-weight: 600; } .n { text-align: right; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15em 1em; margin: .4em 0; }
dt { color: #555; } dd { margin: 0; }
@media screen { section { overflow-x: auto; } svg { min-width: 34em; } }
@media screen and (max-width: 40em) { body { margin: 1em auto; }
  dl { grid-template-columns: 1fr; } dd { margin: 0 0 .4em; } svg { min-width: 0; font-size: 20px; }
  th, td { padding: .25em .3em; } td:nth-child(2) { white-space: normal; } }
@media print { body { font-size: 10.5pt; margin: 0; max-width: none; padding: 0; } h2 { break-after: avoid; }
  @page { margin: 16mm; } }
"""


class Picture(str):
    """SVG that this package drew: goes into a page as it is."""

    __slots__ = ()


def intervals_svg(rows: Sequence[tuple[str, float, float, float]], unit: str = "") -> Picture:
    """Rows (label, middle, low, high) as dots with whiskers on one scale that includes zero."""
    if not rows:
        return Picture("")
    low, high = min(0.0, *(row[2] for row in rows)), max(0.0, *(row[3] for row in rows))
    spread = (high - low) or 1.0
    left, width, step = 220, 460, 24

    def x(value: float) -> float:
        return left + width * (value - low) / spread

    bottom = step * len(rows) + 8
    parts = [f'<line x1="{x(0):.1f}" y1="0" x2="{x(0):.1f}" y2="{bottom}" stroke="#888" stroke-dasharray="3 3"/>']
    for k, (label, middle, first, last) in enumerate(rows):
        y = step * k + 16
        parts += [
            f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(label)}</text>',
            f'<line x1="{x(first):.1f}" y1="{y}" x2="{x(last):.1f}" y2="{y}" stroke="#2b6a9b" stroke-width="3"/>',
            f'<circle cx="{x(middle):.1f}" cy="{y}" r="5" fill="#2b6a9b"/>',
            f'<text x="{left + width + 8}" y="{y + 4}">{middle:.2f}</text>',
        ]
    # An end that lies beside zero has no figure of its own: two would be printed over each other.
    for value in (end for end in (low, 0.0, high) if end == 0.0 or abs(x(end) - x(0)) > LABEL):
        parts.append(
            f'<text x="{x(value):.1f}" y="{bottom + 16}" text-anchor="middle">{value:.2f}{escape(unit)}</text>'
        )
    return Picture(
        f'<svg viewBox="0 0 {left + width + 70} {bottom + 24}" role="img" font-size="12" width="100%">'
        f"{''.join(parts)}</svg>"
    )


def bars_svg(rows: Sequence[tuple[str, float]], unit: str = "") -> Picture:
    """Rows (label, amount from 0) as bars."""
    if not rows:
        return Picture("")
    high = max(max(amount for _, amount in rows), 1e-12)
    left, width, step = 220, 440, 22
    parts = []
    for k, (label, amount) in enumerate(rows):
        y, length = step * k + 4, width * amount / high
        parts += [
            f'<text x="{left - 10}" y="{y + 13}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="16" fill="#2b6a9b"/>',
            f'<text x="{left + length + 6:.1f}" y="{y + 13}">{amount:.4g}{escape(unit)}</text>',
        ]
    return Picture(
        f'<svg viewBox="0 0 {left + width + 80} {step * len(rows) + 6}" role="img" font-size="12" width="100%">'
        f"{''.join(parts)}</svg>"
    )


Parts = Sequence[tuple[str, str | Mapping[str, str] | Sequence[Mapping[str, Any]]]]
"""Headings, each with a text, a list of terms or rows."""


def page_html(title: str, parts: Parts) -> str:
    """One self-contained page that prints well: no script, no font, no picture from elsewhere.

    Parameters
    ----------
    title
        Heading of the page.
    parts
        (heading, content): text, a :class:`Picture`, a mapping as a list of terms, or rows as a table. An empty
        heading gives none; text that begins with ``!`` is marked as a warning.
    """
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="generator" content="rmab-opt">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escaped(title)}</title>\n<style>{PAGE_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{_escaped(title)}</h1>\n{_sections(parts)}\n</body>\n</html>\n"
    )


def notebook_html(title: str, parts: Parts) -> str:
    """What a notebook shows of a thing: the parts of a page, in the notebook's own style."""
    return f"<div>\n<p><strong>{_escaped(title)}</strong></p>\n{_sections(parts)}\n</div>"


def _sections(parts: Parts) -> str:
    body = []
    for heading, content in parts:
        if isinstance(content, Picture):
            inner = str(content)
        elif isinstance(content, str):
            mark, text = (' class="warning"', content[1:].strip()) if content.startswith("!") else ("", content)
            inner = f"<p{mark}>{_escaped(text)}</p>"
        elif isinstance(content, Mapping):
            terms = "\n".join(f"<dt>{_escaped(key)}</dt><dd>{_escaped(said)}</dd>" for key, said in content.items())
            inner = f"<dl>\n{terms}\n</dl>"
        else:
            inner = table_html(content)
        head = f"<h2>{_escaped(heading)}</h2>\n" if heading else ""
        body.append(f"<section>\n{head}{inner}\n</section>")
    return "\n".join(body)


LABEL = 40
"""Width of a figure under an axis, in units of the picture."""

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
