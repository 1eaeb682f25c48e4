"""Pages to read and print, and what a notebook shows: the templates and the style of the planner's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmab_opt.report.cells import cell, visible

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = [
    "Figure",
    "Part",
    "Parts",
    "Picture",
    "bars_svg",
    "intervals_svg",
    "notebook_html",
    "renderer",
    "static_page",
    "style",
    "table_html",
]

HERE = Path(__file__).parent

LABEL = 40
"""Width of a figure under an axis, in units of the picture."""


class Picture(str):
    """SVG that this package drew: goes into a page as it is."""

    __slots__ = ()


@dataclass(frozen=True)
class Figure:
    """One figure of a page's head, with what it means for whoever points at it."""

    label: str
    value: str
    meaning: str


Part = tuple[str, str | Mapping[str, str] | Sequence[Figure] | Sequence[Mapping[str, Any]]]
Parts = Sequence[Part]
"""Headings, each with a text, a list of terms, figures or rows."""


def style() -> str:
    """The one style sheet of all pages."""
    return (HERE / "page.css").read_text(encoding="utf-8")


def renderer(package: str | None = None) -> Environment:
    """Templates of a package over the shared ones; everything is escaped, signs that are not seen are written out."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    own = [] if package is None else [PackageLoader(package)]
    made = Environment(
        loader=ChoiceLoader([*own, PackageLoader("rmab_opt.report")]),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_seen,
    )  # fmt: skip
    made.filters |= {"cell": cell, "figure": figure, "number_columns": _numbers, "drawn": lambda one: Markup(str(one))}
    # What a form sends back must be the name itself, whatever signs are in it.
    made.filters["exact"] = lambda value: Markup(escape(str(value)))
    made.tests |= {"picture": lambda part: isinstance(part, Picture), "figure": lambda part: isinstance(part, Figure)}
    made.globals["style"] = Markup(style())
    return made


def figure(value: Any, digits: int = 6) -> str:
    """A number as a person reads it."""
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, int | float) else str(value)


def _numbers(rows: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """Columns of rows, and whether each holds numbers alone."""
    return {name: all(isinstance(row.get(name), int | float | None) for row in rows) for name in rows[0]}


def _seen(value: Any) -> Any:
    return visible(value, keep="\n\t") if type(value) is str else value


@cache
def _shared() -> Environment:
    return renderer()


def static_page(title: str, parts: Parts) -> str:
    """One self-contained page that prints well: no script, no button, no font, no picture from elsewhere.

    Parameters
    ----------
    title
        Heading of the page.
    parts
        (heading, content): text, a :class:`Picture`, a mapping as a list of terms, figures, or rows as a table. An
        empty heading gives none; text that begins with ``!`` is marked as a warning.
    """
    return _shared().get_template("static.html").render(title=title, parts=parts) + "\n"


def notebook_html(title: str, parts: Parts) -> str:
    """What a notebook shows of a thing: the parts of a page, in the notebook's own style."""
    return _shared().get_template("notebook.html").render(title=title, parts=parts)


def table_html(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as an HTML table; numbers to the right, everything escaped."""
    macros: Any = _shared().get_template("macros.html").module
    return str(macros.table(rows)).strip()


def intervals_svg(rows: Sequence[tuple[str, float, float, float]], unit: str = "", meaning: str = "") -> Picture:
    """Rows (label, middle, low, high) as dots with whiskers on one scale with zero; ``meaning`` for a pointer."""
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
        f"{_said(meaning)}{''.join(parts)}</svg>"
    )


def bars_svg(rows: Sequence[tuple[str, float]], unit: str = "", meaning: str = "") -> Picture:
    """Rows (label, amount from 0) as bars; ``meaning`` for a pointer."""
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
        f"{_said(meaning)}{''.join(parts)}</svg>"
    )


def _said(meaning: str) -> str:
    """What a picture means, one hover away and read aloud."""
    return f"<title>{escape(meaning)}</title>" if meaning else ""
