"""Bytes of a text file to records with their line numbers: encoding, delimiter, notes, quotes as RFC 4180 has them."""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from rmab_opt.errors import ModelError
from rmab_opt.problem.table.log import Log
from rmab_opt.report import unmarked

__all__ = ["Record", "records"]

DELIMITERS = ";,\t|"
NAMES = {";": "semicolon", ",": "comma", "\t": "tab", "|": "bar"}
LOOKED_AT = 2000
"""Records that decide the delimiter."""


@dataclass(frozen=True)
class Record:
    """Cells of one row and the line it begins in, as a text editor counts."""

    line: int
    cells: list[object]


def decode(data: bytes, where: str, log: Log) -> str:
    """Text of a file by its mark, else UTF-8, else UTF-16 by its zeros, else Windows-1252 with a word in the log.

    Raises
    ------
    ModelError
        When it is none of these; names the line.
    """
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise ModelError(f"{where}: is UTF-32 text", "export it as CSV UTF-8.")
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if data.startswith(mark):
            return _decoded(data[len(mark) :], name, where)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    if text is not None and "\x00" not in text:
        return text
    even, odd = data[0::2].count(0), data[1::2].count(0)
    half = max(len(data) // 2, 1)
    if max(even, odd) >= 0.3 * half:
        return _decoded(data, "utf-16-be" if even > odd else "utf-16-le", where)
    if b"\x00" in data:
        raise ModelError(f"{where}: holds binary data, not a table", "export the sheet as CSV UTF-8, .xlsx or .ods.")
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n|\r|\n", data[: error.start])) + 1
        raise ModelError(
            f"{where}:{line}: byte {data[error.start]:02X} is neither UTF-8 nor Windows-1252 text",
            "export it as CSV UTF-8.",
        ) from None
    word = next((word for word in re.split(r'[\s;,\t|"]+', text) if not word.isascii()), "")
    log.add(None, "", word, word, f"read as Windows-1252: `{word[:40]}`")
    return text


def _decoded(data: bytes, name: str, where: str) -> str:
    try:
        text = data.decode(name)
    except UnicodeDecodeError as error:
        begun = data[: error.start].decode(name, "ignore")
        line = len(re.findall(r"\r\n|\r|\n", begun)) + 1
        raise ModelError(
            f"{where}:{line}: is not {name.upper()} text ({error.reason})", "export it as CSV UTF-8."
        ) from None
    if "\x00" in text:
        raise ModelError(f"{where}: holds binary data, not a table", "export the sheet as CSV UTF-8, .xlsx or .ods.")
    return text


@dataclass
class _Lines:
    """Feeds lines to ``csv`` and takes out the notes, which may stand between rows only, not in a quoted cell."""

    lines: list[str]
    delimiter: str | None
    log: Log
    between: bool = True
    begun: int = 0
    at: int = 0
    header_read: bool = False

    def __iter__(self) -> Iterator[str]:
        for number, line in enumerate(self.lines, start=1):
            self.at = number
            if self.between:
                self.begun = number
                if line.startswith("#") and self._is_note(line):
                    self.log.add(number, "", line.strip(), "", "a note, not a row")
                    continue
            self.between = False
            yield line

    def _is_note(self, line: str) -> bool:
        begins_with_space = line[1:2] in (" ", "\u00a0")
        if not self.header_read and begins_with_space:
            return True
        if self.delimiter is None:
            # In a sheet of one column nothing tells a note from a cell.
            return False
        return not any(mark in line for mark in {self.delimiter, '"'})


def _delimiter(lines: list[str], log: Log) -> str | None:
    """The mark that cuts most lines into equally many cells; None for a sheet of one column."""
    best, most = None, 0
    for mark in DELIMITERS:
        counts: Counter[int] = Counter()
        first = 0
        feed = _Lines(lines[: LOOKED_AT + 50], mark, Log())
        with suppress(csv.Error):
            for cells in csv.reader(feed, delimiter=mark):
                feed.between = True
                if any(cell.strip() for cell in cells):
                    feed.header_read = True
                    first = first or len(cells)
                    counts[len(cells)] += 1
        agree = max((times for count, times in counts.items() if count > 1), default=0)
        # Where fewer than half of the lines agree and the first has no such mark, text happens to hold it.
        if agree > most and (2 * agree > counts.total() or first > 1):
            best, most = mark, agree
    if best is None:
        log.add(None, "", "", "", "read as one column")
    else:
        log.facts["delimiter"] = NAMES[best]
    return best


def records(data: bytes, where: str, log: Log) -> list[Record]:
    """All rows that hold anything, in order.

    Raises
    ------
    ModelError
        When it is no text, or its quotes are not closed; names the line.
    """
    text = decode(data, where, log)
    # A line break is one sign, whichever a system writes, in a cell too.
    lines = [f"{line}\n" for line in re.split(r"\r\n|\r|\n", text)]
    if lines[-1] == "\n":
        del lines[-1]
    skipped, delimiter = 0, None
    said = re.fullmatch(r"\s*\"?sep=(.)\"?\s*", lines[0]) if lines else None
    if said is not None:
        delimiter, skipped, lines[0] = said[1], 1, "\n"
        log.facts["delimiter"] = f"{said[1]!r}, as its first line says"
    else:
        delimiter = _delimiter(lines, log)
    feed = _Lines(lines, delimiter, log)
    # A sheet of one column has no delimiter; csv needs one, so it gets a sign that stands nowhere.
    missing = next(
        sign for sign in ("\x1f", "\x1e", "\x1d", "\ue000", "\ue001") if sign not in text or sign == "\ue001"
    )
    reader = csv.reader(feed, delimiter=delimiter or missing, strict=True)
    found, blank = [], 0
    while True:
        feed.between = True
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            what = "a quoted cell does not end" if "unexpected end" in str(error) else str(error)
            raise ModelError(f"{where}:{feed.begun}: {what}", "repair the quotes in this line.") from None
        if any(cell.strip() for cell in cells):
            feed.header_read = True
            found.append(Record(feed.begun, [unmarked(cell) for cell in cells]))
        elif feed.begun > skipped:
            blank += 1
            log.blank.append(feed.begun)
    return found
