"""Tables as a programme exports them: cells stay as they came until a reader asks for numbers, dates or yes/no.

Cells stay text until a reader asks for numbers, so ``9:30`` is never taken for anything else.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Union

import numpy as np

from rmab_opt.errors import Findings, ModelError
from rmab_opt.problem.table.cells import cell_text, same_name, text_of
from rmab_opt.problem.table.conventions import Conventions, conventions, note
from rmab_opt.problem.table.dates import DateColumn, Order, read_dates, read_yes_no
from rmab_opt.problem.table.layout import Laid, lay_out
from rmab_opt.problem.table.log import Log
from rmab_opt.problem.table.numbers import Mark, NumberColumn, read_numbers
from rmab_opt.problem.table.text import records
from rmab_opt.problem.table.workbook import Unsaved, is_workbook, sheets
from rmab_opt.records import read_regular

__all__ = ["Table", "TableLike", "is_table_like", "nearest"]

MOST_BYTES = 1 << 28

BOOKS = (".xlsx", ".ods", ".xlsm", ".xls")
"""Endings of workbooks."""

CONTROLS = re.compile(rb"[\x01-\x08\x0e-\x19\x1b-\x1f]")
"""Bytes that no text of a table has."""

TableLike = Union["Table", str, Path, Mapping[str, Sequence[object]], Any]
"""What a table can be made of: a table, a file's path, columns by name, or a pandas, polars or other data frame."""


def is_table_like(given: object) -> bool:
    """Whether a value is a table, a file of one, columns by name or a data frame, and no plain array."""
    return isinstance(given, Table | str | Path | Mapping) or hasattr(given, "columns")


def nearest(name: str, known: Sequence[str]) -> str:
    """Text that names the known word nearest to ``name``, or lists the known ones."""
    close = get_close_matches(str(name), [str(word) for word in known], n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    listed = ", ".join(str(word) for word in list(known)[:12])
    return f"known: {listed}" + (", ..." if len(known) > 12 else "")


class Table:
    """Named columns of cells, all of one length; every cell is text, and numbers, dates or yes/no when asked for.

    Parameters
    ----------
    columns
        Column name to its cells; numbers and dates are believed, anything else is converted with ``str``.
    source
        Where the table comes from, for messages.
    first_row
        Number that messages give to the first row; 2 for a file with a header line.

    Attributes
    ----------
    columns
        Column name to its cells as text.
    source
        As given.
    path
        The file, when it was read from one.
    digest
        SHA-256 of the file's bytes; empty otherwise.
    log
        What reading assumed, dropped or changed.

    Raises
    ------
    ModelError
        When columns differ in length.
    """

    def __init__(self, columns: Mapping[str, Sequence[object]], source: str = "table", first_row: int = 1) -> None:
        self.source = source
        self.path: Path | None = None
        self.digest = ""
        self.log = Log()
        self.conventions = conventions()
        self._cells: dict[str, list[object]] = {str(name): list(cells) for name, cells in columns.items()}
        self.columns: dict[str, list[str]] = {
            name: [cell if type(cell) is str else text_of(cell) for cell in cells]
            for name, cells in self._cells.items()
        }
        lengths = {name: len(cells) for name, cells in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ModelError(f"{source}: columns differ in length: {lengths}", "give every column one cell an arm.")
        self._rows = list(range(first_row, first_row + next(iter(lengths.values()), 0)))
        self._whole: Table = self
        """The table whose cells together decide how a column is read; rows of it are in ``_picked``."""
        self._picked: np.ndarray | None = None
        self._numbers: dict[str, NumberColumn] = {}
        self._dates: dict[str, DateColumn] = {}

    # ------------------------------------------------------------------------------------------------------- reading
    @classmethod
    def from_csv(cls, path: str | Path) -> Table:
        """Read a file; as :meth:`read` does."""
        return cls.read(path)

    @classmethod
    def read(
        cls, given: TableLike, *, needed: Sequence[str] = (), source: str = "", told: Conventions | None = None
    ) -> Table:
        """Read a table from a file or make one of a data frame or of columns.

        Parameters
        ----------
        given
            A path of a CSV (any encoding and delimiter), .xlsx or .ods file, ``book.xlsx#Sheet`` for one of several
            sheets; a pandas, polars or other data frame; a mapping of columns; or a :class:`Table`, which is returned.
        needed
            Names of columns that must be there: they tell the header from titles, and the sheet from others.
        source
            Name for messages; a file's path by default.
        told
            What the model file says about its tables; that of the open :func:`readings` by default.

        Raises
        ------
        ModelError
            When it cannot be read with certainty; names file, line and column.
        """
        if isinstance(given, Table):
            return given
        if isinstance(given, str | Path):
            table = _read_file(cls, given, needed, told or conventions())
            if source:
                table.source = source
            note(table)
            return table
        if isinstance(given, Mapping):
            return cls(given, source=source or "table")
        return _read_frame(cls, given, source or "table")

    # --------------------------------------------------------------------------------------------------------- shape
    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._known(name) is not None

    def _known(self, name: str) -> str | None:
        """A column's own spelling: as it is, else without case, spaces and a unit in brackets."""
        if name in self.columns:
            return name
        wanted = same_name(name)
        for bare in (same_name, lambda own: same_name(own.split("(")[0])):
            alike = [own for own in self.columns if bare(own) == wanted]
            if len(alike) == 1:
                return alike[0]
        return None

    def column(self, name: str) -> str:
        """A column's name as the sheet spells it; ModelError with the nearest one when there is none."""
        known = self._known(name)
        if known is None:
            raise ModelError(f"{self.source}: no column {name!r}", nearest(name, list(self.columns)))
        return known

    def head(self, count: int) -> Table:
        """The first ``count`` rows, with their row numbers."""
        return self.take(range(min(count, len(self))))

    def take(self, rows: Iterable[int]) -> Table:
        """Some of the rows, in the order given, with their row numbers; columns are read as in the whole table."""
        picked = np.fromiter(rows, dtype=np.int64)
        part = Table({name: [cells[row] for row in picked] for name, cells in self._cells.items()}, self.source)
        part._rows = [self._rows[row] for row in picked]
        part._keep(self)
        part._whole = self._whole
        part._picked = picked if self._picked is None else self._picked[picked]
        return part

    def with_columns(self, columns: Mapping[str, Sequence[object]], *, without: Sequence[str] = ()) -> Table:
        """The same rows with columns added, replaced or left out; the others are read as they are here."""
        cells = {name: kept for name, kept in self._cells.items() if name not in without} | dict(columns)
        other = Table({name: list(kept) for name, kept in cells.items()}, self.source)
        other._rows = list(self._rows)
        other._keep(self)
        for name in self._cells.keys() - set(without) - columns.keys():
            other._numbers[name] = self._part(self._number_column(name))
        return other

    def _keep(self, origin: Table) -> None:
        self.path, self.digest, self.conventions = origin.path, origin.digest, origin.conventions
        self.log = origin.log.copy()

    def place(self, row: int) -> str:
        """Row number as a person counts it in the source."""
        return str(self._rows[row])

    # --------------------------------------------------------------------------------------------------------- cells
    def text(self, name: str) -> list[str]:
        """Cells of one column.

        Raises
        ------
        ModelError
            When there is no such column; names the nearest one.
        """
        known = self.column(name)
        for row, cell in enumerate(self._cells[known]):
            if isinstance(cell, Unsaved):
                raise ModelError(
                    f"{self.source}:{self.place(row)}: {known}: is a formula without a stored value",
                    "open the file, and save it once.",
                )
        return self.columns[known]

    def cells(self, name: str) -> list[object]:
        """Cells of one column as they came: text, or a typed number or date."""
        self.text(name)
        return self._cells[self.column(name)]

    def numbers(
        self, name: str, *, minimum: float = -np.inf, maximum: float = np.inf, missing: bool = False
    ) -> np.ndarray:
        """One column as float64, shape (rows,); one decimal mark holds for all cells of the column.

        Parameters
        ----------
        minimum, maximum
            Smallest and largest number allowed.
        missing
            True: a missing number is NaN; False: it is an error.

        Raises
        ------
        ModelError
            Naming each row whose cell is not a finite number within [minimum, maximum]; or the column, when its cells
            can be read in two ways.
        """
        self.text(name)
        known = self.column(name)
        read = self._part(self._number_column(known))
        findings = Findings(self.source)
        if read.refusal is not None:
            row, what, fix = read.refusal
            findings.add(self._whole.place(row), f"{known}: {what}", fix)
            findings.raise_if_any()
        for row, what, fix in read.faults:
            findings.add(self.place(row), f"{known}: {what}", fix)
        if not missing:
            for row in np.flatnonzero(read.missing).tolist():
                cell = self.columns[known][row]
                what = "is not a finite number" if cell else "is not a number"
                findings.add(self.place(row), f"{known}: {cell!r} {what}", "give its value")
        findings.lines.sort(key=lambda line: int(line[len(self.source) + 1 :].split(":")[0]))
        findings.raise_if_any()
        with np.errstate(invalid="ignore"):
            outside = np.flatnonzero((read.values < minimum) | (read.values > maximum))
        for row in outside.tolist():
            findings.add(
                self.place(row), f"{known}: {read.values[row]:g} is outside [{minimum:g}, {maximum:g}]", "correct it"
            )
        findings.raise_if_any()
        for why in (read.assumed, f"unit {read.unit} left out" if read.unit else ""):
            if why:
                self.log.add(None, known, "", "", why)
        return read.values

    def _part(self, read: NumberColumn) -> NumberColumn:
        """The rows of this table of a column that was read as a whole."""
        if self._picked is None or self._whole is self:
            return read
        position: dict[int, list[int]] = {}
        for k, row in enumerate(self._picked.tolist()):
            position.setdefault(row, []).append(k)
        faults = [(k, what, fix) for row, what, fix in read.faults for k in position.get(row, ())]
        return NumberColumn(
            read.values[self._picked], read.missing[self._picked], faults, read.refusal, read.proves, read.open,
            read.assumed, read.unit,
        )  # fmt: skip

    def _number_column(self, name: str) -> NumberColumn:
        whole = self._whole
        if name in whole._numbers:
            return whole._numbers[name]
        if name not in whole._cells:
            return read_numbers(self._cells[name], self.columns[name], None, None, frozenset())
        told, words = whole.conventions.decimal, whole.conventions.missing_words
        read = read_numbers(whole._cells[name], whole.columns[name], told, None, words)
        if read.open and told is None:
            proved = {alone.proves for other in whole._cells if (alone := whole._alone(other)) and alone.proves}
            sheet: Mark | None = proved.pop() if len(proved) == 1 else None
            if sheet is not None:
                read = read_numbers(whole._cells[name], whole.columns[name], told, sheet, words)
        whole._numbers[name] = read
        return read

    def _alone(self, name: str) -> NumberColumn | None:
        """A column read by itself, as evidence for others; None unless all its cells are numbers."""
        read = read_numbers(self._cells[name], self.columns[name], None, None, self.conventions.missing_words)
        return None if read.faults or read.refusal else read

    def is_numeric(self, name: str) -> bool:
        """Whether every cell of a column is a number."""
        read = self._part(self._number_column(self.column(name)))
        return not (read.faults or read.missing.any())

    def number_column(self, name: str) -> NumberColumn | None:
        """A column as numbers if at least one cell is one; None otherwise."""
        read = self._part(self._number_column(name))
        return read if np.isfinite(read.values).any() else None

    def dates(self, name: str) -> list[datetime.date | None]:
        """One column as dates, None where missing; one order of day and month holds for the whole column.

        Raises
        ------
        ModelError
            Naming each row whose cell is no date; or the column, when its cells can be read in two ways.
        """
        self.text(name)
        known, whole = self.column(name), self._whole
        read = whole._date_column(known)
        findings = Findings(self.source)
        if read.refusal is not None:
            row, what, fix = read.refusal
            findings.add(whole.place(row), f"{known}: {what}", fix)
        picked = range(len(self)) if self._picked is None else self._picked.tolist()
        wrong = {row: (what, fix) for row, what, fix in read.faults}
        for k, row in enumerate(picked):
            if row in wrong:
                findings.add(self.place(k), f"{known}: {wrong[row][0]}", wrong[row][1])
        findings.raise_if_any()
        if read.assumed:
            self.log.add(None, known, "", "", read.assumed)
        return [read.values[row] for row in picked]

    def _date_column(self, name: str) -> DateColumn:
        if name not in self._dates:
            told, words = self.conventions.dates, self.conventions.missing_words
            read = read_dates(self._cells[name], self.columns[name], told, None, words)
            if read.open and told is None:
                orders: set[Order] = set()
                for other in self._cells:
                    alone = read_dates(self._cells[other], self.columns[other], None, None, words)
                    if alone.proves and not alone.faults and not alone.refusal:
                        orders.add(alone.proves)
                if len(orders) == 1:
                    read = read_dates(self._cells[name], self.columns[name], told, orders.pop(), words)
            self._dates[name] = read
        return self._dates[name]

    def yes_no(self, name: str) -> list[bool | None]:
        """One column as yes or no, in the words of several languages; None where missing.

        Raises
        ------
        ModelError
            Naming each row whose cell is neither.
        """
        self.text(name)
        known = self.column(name)
        findings, values = Findings(self.source), []
        empty_is_no = self.conventions.empty == "no"
        read = read_yes_no(self._cells[known], self.columns[known], empty_is_no, self.conventions.missing_words)
        for row, (value, what) in enumerate(read):
            values.append(value)
            if what:
                findings.add(self.place(row), f"{known}: {what}", "write yes or no")
        findings.raise_if_any()
        return values

    def categories(self, name: str, *, ask: bool = True) -> list[str]:
        """One column as kinds: spellings that differ in case or spaces are one, shown as it is written most often.

        Spellings one letter apart are two kinds, with a question in the log (``ask``: not for names that are numbered).
        """
        known, cells = self.column(name), self.text(name)
        clean = [" ".join(unicodedata.normalize("NFC", cell).split()) for cell in cells]
        by_kind: dict[str, Counter[str]] = {}
        for spelling in clean:
            by_kind.setdefault(spelling.casefold(), Counter())[spelling] += 1
        # Among spellings that are as frequent the order of rows must not decide.
        shown = {kind: min(found, key=lambda one: (-found[one], one)) for kind, found in by_kind.items()}
        for kind, spellings in by_kind.items():
            others = {spelling: count for spelling, count in spellings.items() if spelling != shown[kind]}
            for spelling, count in others.items():
                self.log.add(
                    None, known, spelling, shown[kind], f"{count} cells spelt {spelling!r} are {shown[kind]!r}"
                )
        kinds = [kind for kind in shown if kind]
        for k, kind in enumerate(kinds if ask and len(kinds) <= 200 else ()):
            for other in kinds[:k]:
                if _one_letter_apart(kind, other):
                    why = f"is {shown[kind]!r} another kind than {shown[other]!r}? they are kept apart"
                    self.log.add(None, known, shown[kind], shown[kind], why)
        return [shown[spelling.casefold()] for spelling in clean]

    def lists(self, name: str) -> list[tuple[str, ...]]:
        """One column as lists, cut at the one of ``; , |`` that the column uses, in this order."""
        cells = self.text(name)
        mark = next((mark for mark in ";,|" if any(mark in cell for cell in cells)), ";")
        return [tuple(part.strip() for part in cell.split(mark) if part.strip()) for cell in cells]

    # ----------------------------------------------------------------------------------------------- rows and columns
    def without_totals(self, key: str) -> Table:
        """Without the rows of totals, which are noted in the log.

        Parameters
        ----------
        key
            Column that every other row fills.

        Raises
        ------
        ModelError
            When a row looks like one but its numbers are no sums of the rows above it.
        """
        from rmab_opt.problem.table.totals import totals

        found = totals(self, self.column(key))
        if not found:
            return self
        kept = [row for row in range(len(self)) if row not in found]
        rest = Table({name: [cells[row] for row in kept] for name, cells in self._cells.items()}, self.source)
        rest._rows = [self._rows[row] for row in kept]
        rest._keep(self)
        for row in found:
            text = " | ".join(cells[row] for cells in self.columns.values() if cells[row])
            rest.log.add(self._rows[row], "", text, "", "a row of totals")
        return rest

    def one_a_key(self, key: str) -> Table:
        """One row a key: rows that repeat another in every cell are left out and noted in the log.

        Raises
        ------
        ModelError
            When two rows of one key differ; names both lines, and the first column that differs.
        """
        known = self.column(key)
        first: dict[str, int] = {}
        kept, again, findings = [], [], Findings(self.source)
        for row, name in enumerate(cell_text(cell) for cell in self.columns[known]):
            other = first.setdefault(name, row) if name else row
            if other == row:
                kept.append(row)
                continue
            differs = next((c for c, cells in self.columns.items() if cells[row].strip() != cells[other].strip()), None)
            if differs is None:
                again.append((row, other, name))
                continue
            cells = self.columns[differs]
            findings.add(
                self.place(row),
                f"{known} {name!r} stands in row {self.place(other)} already, with {differs} {cells[other]!r}"
                f" there and {cells[row]!r} here",
                "keep one of the two rows",
            )
        findings.raise_if_any()
        if not again:
            return self
        rest = self.take(kept)
        for row, other, name in again:
            rest.log.add(self._rows[row], known, name, "", f"the same row as line {self.place(other)}")
        return rest

    def only(self, known: Sequence[str], declared: Sequence[str] = ()) -> Table:
        """The same table, when its columns are the known ones; others are noted as not used.

        Parameters
        ----------
        known
            Names that the reader looks at, needed or optional.
        declared
            Names that the model file mentions elsewhere.

        Raises
        ------
        ModelError
            When a further column's name is nearly that of a known one that is absent: it would be ignored silently.
        """
        findings = Findings(self.source)
        used = {self._known(name) for name in (*known, *declared)}
        absent = [name for name in known if self._known(name) is None]
        line = "" if self.path is None else self.log.facts.get("header", "").removeprefix("line ")
        for name in self.columns:
            if name in used:
                continue
            close = get_close_matches(same_name(name), absent, n=1, cutoff=0.7)
            if close:
                findings.add(line, f"column {name!r} is not known", f"write {close[0]!r}, or rename it")
            else:
                self.log.add(None, name, "", "", f"column {name!r} is not used")
        findings.raise_if_any()
        return self


def _one_letter_apart(one: str, other: str) -> bool:
    """Whether one letter changed, added or left out makes one text of the other."""
    if abs(len(one) - len(other)) > 1:
        return False
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    short, long = sorted((one[same:], other[same:]), key=len)
    return long[1:] in (short, short[1:])


# ----------------------------------------------------------------------------------------------------------- sources
def _read_file(cls: type[Table], given: str | Path, needed: Sequence[str], told: Conventions) -> Table:
    path, wanted = _sheet_of(given)
    where = str(path)
    data = _bytes(path)
    if is_workbook(data):
        laid, log = _of_workbook(data, where, wanted, needed)
    elif wanted is not None:
        raise ModelError(f"{where}: is no workbook, so it has no sheet {wanted!r}", "leave the sheet's name out.")
    elif path.suffix.lower() in BOOKS and (data.startswith(b"PK") or CONTROLS.search(data)):
        # Text under such a name is read, what is left of a workbook is not.
        raise ModelError(f"{where}: is no workbook that can be read", "open it and save it again, or export CSV UTF-8.")
    else:
        log = Log()
        laid = lay_out(records(data, where, log), needed, where, log)
    table = cls(laid.columns, source=where)
    table._rows = laid.lines
    table.path, table.log, table.conventions = path, log, told
    table.digest = hashlib.sha256(data).hexdigest()
    inner = [line for line in log.blank if laid.lines and laid.lines[0] < line < laid.lines[-1]]
    if inner:
        log.add(None, "", "", "", f"{len(inner)} blank rows")
    return table


def _bytes(path: Path) -> bytes:
    if "\x00" in str(path):
        raise ModelError(f"{str(path)!r}: is no name of a file", "check the path; it is relative to the model file.")
    try:
        large = path.stat().st_size > MOST_BYTES
    except OSError:
        large = False
    if large:
        raise ModelError(f"{path}: is larger than {MOST_BYTES >> 20} MiB", "split it.")
    try:
        return read_regular(path)
    except ModelError as error:
        raise ModelError(error.message, "check the path; it is relative to the model file.") from None


def _sheet_of(given: str | Path) -> tuple[Path, str | None]:
    """``book.xlsx#Sheet`` as path and sheet, unless a file has that very name."""
    path = Path(given)
    book, mark, sheet = str(given).rpartition("#")
    if mark and Path(book).suffix.lower() in (*BOOKS, ".csv") and "\x00" not in book and not path.exists():
        return Path(book), sheet
    return path, None


def _of_workbook(data: bytes, where: str, wanted: str | None, needed: Sequence[str]) -> tuple[Laid, Log]:
    """The one sheet that has the needed columns, or the one that is named."""
    found = sheets(data, where)
    if wanted is not None:
        if wanted not in found:
            raise ModelError(f"{where}: no sheet {wanted!r}", nearest(wanted, list(found)))
        rows, log = found[wanted]
        return lay_out(rows, needed, where, log), log
    filled = {name: pair for name, pair in found.items() if pair[0]}
    if not filled:
        raise ModelError(f"{where}: is empty", "give a header line and one row an entry.")
    fits: dict[str, tuple[Laid, Log]] = {}
    wrong: ModelError | None = None
    for name, (rows, log) in filled.items():
        try:
            laid = lay_out(rows, needed, where if len(filled) == 1 else f"{where}#{name}", log)
        except ModelError as error:
            wrong = wrong or error
            continue
        names = {same_name(column) for column in laid.columns}
        if {same_name(column) for column in needed} <= names and (laid.lines or len(filled) == 1):
            fits[name] = laid, log
    if not fits and wrong is not None:
        raise wrong
    if not fits:
        raise ModelError(
            f"{where}: no sheet has the columns {', '.join(map(repr, needed))} (sheets: {', '.join(filled)})",
            "name the columns so, or name the sheet as `file.xlsx#Sheet`.",
        )
    if len(fits) > 1:
        raise ModelError(f"{where}: several sheets could be meant: {', '.join(fits)}", "name one as `file.xlsx#Sheet`.")
    ((name, (laid, log)),) = fits.items()
    log.facts["sheet"] = name
    return laid, log


def _read_frame(cls: type[Table], given: Any, source: str) -> Table:
    """A data frame's columns; its index is none of them."""
    import narwhals

    try:
        frame = narwhals.from_native(given, eager_only=True)
    except TypeError:
        raise ModelError(
            f"{source}: {type(given).__name__} is no table", "give a file's name, columns by name, or a data frame."
        ) from None
    names = [str(name) for name in frame.columns]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ModelError(f"{source}: column {min(doubled)!r} stands twice", "rename one of them.")
    columns, remarks = {}, []
    for name, series in zip(names, frame.iter_columns(), strict=True):
        cells = series.to_list()
        columns[name] = [_plain(cell) for cell in cells]
        filled = [cell for cell in columns[name] if cell is not None]
        if len(filled) < len(cells) and filled and all(isinstance(c, float) and c.is_integer() for c in filled):
            remarks.append((name, "whole numbers that a missing value had made decimal"))
    table = cls(columns, source=source)
    for name, why in remarks:
        table.log.add(None, name, "", "", why)
    return table


def _plain(cell: Any) -> object:
    """A cell without a frame's own type; None for what is missing."""
    if cell is None or (text_of(cell) == "" and not isinstance(cell, str)):
        return None
    return cell.strip() if type(cell) is str else cell
