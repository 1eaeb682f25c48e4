"""Plain rows and trees to text, HTML and CSV; files written so that a crash never leaves half of one."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["table_csv", "table_latex", "table_text", "tree", "write_atomically"]


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


def write_atomically(path: str | Path, content: str | bytes, *, replace: bool = True) -> None:
    """Write a file under its name only when it is complete and on disk; the old one stays until then.

    With ``replace=False`` a file that is already there stays for good, and FileExistsError says so.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
            Path(temporary).unlink()
            # The name itself has to reach the disk before anybody relies on it.
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
