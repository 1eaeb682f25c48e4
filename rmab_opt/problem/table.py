"""Tables as a programme exports them: text cells with their row numbers, numbers only when asked for.

Cells stay text until a reader asks for numbers, so ``9:30`` is never taken for anything else.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path

import numpy as np

from rmab_opt.errors import Findings, ModelError

__all__ = ["Table", "nearest"]


def nearest(name: str, known: Sequence[str]) -> str:
    """Text that names the known word nearest to ``name``, or lists the known ones."""
    close = get_close_matches(str(name), [str(word) for word in known], n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    listed = ", ".join(str(word) for word in list(known)[:12])
    return f"known: {listed}" + (", ..." if len(known) > 12 else "")


class Table:
    """Named columns of text cells, all of one length.

    Parameters
    ----------
    columns
        Column name to its cells; anything that is not text is converted with ``str``.
    source
        Where the table comes from, for messages.
    first_row
        Number that messages give to the first row; 2 for a file with a header line.

    Raises
    ------
    ModelError
        When columns differ in length.
    """

    def __init__(self, columns: Mapping[str, Sequence[object]], source: str = "table", first_row: int = 1) -> None:
        self.source = source
        self.columns: dict[str, list[str]] = {
            str(name): [cell if isinstance(cell, str) else _text(cell) for cell in cells]
            for name, cells in columns.items()
        }
        lengths = {name: len(cells) for name, cells in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ModelError(f"{source}: columns differ in length: {lengths}", "give every column one cell an arm.")
        self._rows = list(range(first_row, first_row + next(iter(lengths.values()), 0)))

    @classmethod
    def from_csv(cls, path: str | Path) -> Table:
        """Read a CSV file with a header line (UTF-8; comma, semicolon or tab; lines starting with ``#`` are notes).

        Raises
        ------
        ModelError
            When the file is missing, not text, empty, has a doubled column name or a row of another length.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise ModelError(f"{path}: no such file", "check the path; it is relative to the model file.") from None
        except IsADirectoryError:
            raise ModelError(f"{path}: is a folder, not a CSV file", "name the file inside it.") from None
        except (UnicodeDecodeError, OSError) as error:
            raise ModelError(f"{path}: cannot be read as UTF-8 text ({error})", "export it as CSV UTF-8.") from None
        if "\x00" in text:
            raise ModelError(f"{path}: holds binary data, not CSV", "export the sheet as CSV UTF-8.")
        # Lines that start with '#' are notes for the reader of the file; blanking them keeps the row numbers.
        text = "\n".join("" if line.startswith("#") else line for line in text.splitlines())
        head = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = max(",;\t", key=head.count)
        reader = csv.reader(text.splitlines(), delimiter=delimiter)
        try:
            lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
        except csv.Error as error:
            raise ModelError(f"{path}:{reader.line_num}: {error}", "repair the quotes in this line.") from None
        if not lines:
            raise ModelError(f"{path}: is empty", "give a header line and one row an entry.")
        header = [cell.strip() for cell in lines[0][1]]
        findings = Findings(str(path))
        for name in sorted({name for name in header if header.count(name) > 1}):
            findings.add("1", f"column {name!r} stands twice", "rename one of them")
        if "" in header:
            findings.add("1", f"column {header.index('') + 1} has no name", "name it or remove it")
        for number, row in lines[1:]:
            if len(row) != len(header):
                findings.add(str(number), f"{len(row)} cells, the header has {len(header)}", "complete the row")
        findings.raise_if_any()
        cells = [[cell.strip() for cell in row] for _, row in lines[1:]]
        table = cls({name: [row[k] for row in cells] for k, name in enumerate(header)}, source=str(path))
        table._rows = [number for number, _ in lines[1:]]
        return table

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def head(self, count: int) -> Table:
        """The first ``count`` rows, with their row numbers."""
        return self.take(range(min(count, len(self))))

    def take(self, rows: Sequence[int]) -> Table:
        """Some of the rows, in the order given, with their row numbers."""
        part = Table({name: [cells[row] for row in rows] for name, cells in self.columns.items()}, self.source)
        part._rows = [self._rows[row] for row in rows]
        return part

    def place(self, row: int) -> str:
        """Row number as a person counts it in the source."""
        return str(self._rows[row])

    def text(self, name: str) -> list[str]:
        """Cells of one column.

        Raises
        ------
        ModelError
            When there is no such column; names the nearest one.
        """
        if name not in self.columns:
            raise ModelError(f"{self.source}: no column {name!r}", nearest(name, list(self.columns)))
        return self.columns[name]

    def numbers(self, name: str, *, minimum: float = -np.inf, maximum: float = np.inf) -> np.ndarray:
        """One column as float64, shape (rows,).

        Raises
        ------
        ModelError
            Naming each row whose cell is not a finite number within [minimum, maximum].
        """
        cached = self._numbers.get(name)
        if cached is None:
            findings = Findings(self.source)
            cells = self.text(name)
            cached = np.empty(len(cells))
            for row, cell in enumerate(cells):
                try:
                    cached[row] = float(cell)
                except ValueError:
                    cached[row] = 0.0
                    findings.add(self.place(row), f"{name}: {cell!r} is not a number", "write it as 3 or 2.5")
                    continue
                if not np.isfinite(cached[row]):
                    findings.add(self.place(row), f"{name}: {cell!r} is not a finite number", "give its value")
            findings.raise_if_any()
            self._numbers[name] = cached
        outside = np.flatnonzero((cached < minimum) | (cached > maximum))
        if outside.size:
            findings = Findings(self.source)
            for row in outside.tolist():
                findings.add(
                    self.place(row), f"{name}: {cached[row]:g} is outside [{minimum:g}, {maximum:g}]", "correct it"
                )
            findings.raise_if_any()
        return cached

    @cached_property
    def _numbers(self) -> dict[str, np.ndarray]:
        return {}


def _text(cell: object) -> str:
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        return str(int(cell))
    return str(cell)
