"""Plain rows and trees to text, HTML and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

__all__ = ["Report", "page_html", "table_csv", "table_html", "table_latex", "table_text", "tree"]


@dataclass(frozen=True)
class Report:
    """What a verb is told by a setting."""

    document: Any
    """For JSON."""
    text: str
    """For a person."""
    parts: list[tuple[str, Any]] = field(default_factory=list)
    """For a page: headings, each with rows or a sentence."""


def tree(title: str, lines: Mapping[str, str]) -> str:
    """A title with one labelled branch a line, labels aligned."""
    width = max((len(label) for label in lines), default=0)
    labels = list(lines)
    branches = [
        f"{'└' if label == labels[-1] else '├'} {label:<{width}}  {text}".rstrip() for label, text in lines.items()
    ]
    return "\n".join([title, *branches])


def cell(value: Any) -> str:
    """One value as a person reads it: four significant digits, a dash for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as aligned columns; numbers to the right."""
    if not rows:
        return "(no rows)"
    names = list(rows[0])
    cells = [[cell(row.get(name)) for name in names] for row in rows]
    right = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]
    width = [max(len(name), *(len(line[k]) for line in cells)) for k, name in enumerate(names)]
    lines = [[*names], *cells]
    return "\n".join(
        "  ".join(part.rjust(width[k]) if right[k] else part.ljust(width[k]) for k, part in enumerate(line)).rstrip()
        for line in lines
    )


def table_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV text with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


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


def table_html(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as an HTML table; numbers to the right, everything escaped."""
    if not rows:
        return "<p>(none)</p>"
    names = list(rows[0])
    right = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]

    def line(tag: str, cells: Sequence[str]) -> str:
        marked = [
            f'<{tag} class="n">{escape(part)}</{tag}>' if number else f"<{tag}>{escape(part)}</{tag}>"
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
section { break-inside: avoid; }
table { border-collapse: collapse; width: 100%; } tr { break-inside: avoid; } thead { display: table-header-group; }
th, td { text-align: left; padding: .25em .6em; border-bottom: 1px solid #d5d5d5; vertical-align: top; }
td:first-child, td:nth-child(2) { white-space: nowrap; }
th { border-bottom: 2px solid #8a8a8a; font-weight: 600; } .n { text-align: right; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15em 1em; margin: .4em 0; }
dt { color: #555; } dd { margin: 0; }
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
    for value in (low, 0.0, high):
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


def page_html(title: str, parts: Sequence[tuple[str, str | Mapping[str, str] | Sequence[Mapping[str, Any]]]]) -> str:
    """One self-contained page that prints well: no script, no font, no picture from elsewhere.

    Parameters
    ----------
    title
        Heading of the page.
    parts
        (heading, content): text, a :class:`Picture`, a mapping as a list of terms, or rows as a table. An empty
        heading gives none; text that begins with ``!`` is marked as a warning.
    """
    body = []
    for heading, content in parts:
        if isinstance(content, Picture):
            inner = str(content)
        elif isinstance(content, str):
            mark, text = (' class="warning"', content[1:].strip()) if content.startswith("!") else ("", content)
            inner = f"<p{mark}>{escape(text)}</p>"
        elif isinstance(content, Mapping):
            terms = "\n".join(f"<dt>{escape(key)}</dt><dd>{escape(said)}</dd>" for key, said in content.items())
            inner = f"<dl>\n{terms}\n</dl>"
        else:
            inner = table_html(content)
        head = f"<h2>{escape(heading)}</h2>\n" if heading else ""
        body.append(f"<section>\n{head}{inner}\n</section>")
    inside = "\n".join(body)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{PAGE_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{inside}\n</body>\n</html>\n"
    )
