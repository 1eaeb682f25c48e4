"""Whether a workbook may be opened: small files can unpack to more than a machine has."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any
from xml.parsers import expat

from rmab_opt.errors import ModelError

__all__ = ["MOST_BYTES", "require_room"]

MOST_BYTES = 1 << 30
"""Unpacked size above which a workbook is refused."""

MOST_CELLS = 60_000_000
"""Cells of a sheet, empty ones between the first and the last included: readers make room for all of them."""

CHUNK = 1 << 20
FIX = "export the one sheet that is needed."
SHEET = re.compile(r"(xl/worksheets/[^/]+\.xml|content\.xml)", re.IGNORECASE)
PLACE = re.compile(r"([A-Za-z]{1,3})(\d{1,7})")


def require_room(data: bytes, where: str, most: int = MOST_BYTES) -> bool:
    """Refuse an archive that unpacks to more than ``most`` bytes or to too many cells; whether it is an XLSX.

    What the archive says of its own sizes is not believed: every part is unpacked once, a piece at a time.

    Raises
    ------
    ModelError
        When the archive is broken or too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
            room, cells = most, 0
            for part in parts:
                area = _Area() if SHEET.fullmatch(part.filename) else None
                for piece in _pieces(data, part):
                    room -= len(piece)
                    if room < 0:
                        raise ModelError(f"{where}: unpacks to more than {most >> 20} MiB", FIX)
                    if area is not None and cells + area.fed(piece) > MOST_CELLS:
                        raise ModelError(f"{where}: has more than {MOST_CELLS:,} cells, most of them empty", FIX)
                cells += 0 if area is None else area.cells
            return any(part.filename == "xl/workbook.xml" for part in parts)
    except (zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, OSError) as error:
        raise ModelError(f"{where}: is a broken workbook ({error})", "open it and save it again.") from None


def _pieces(data: bytes, part: zipfile.ZipInfo) -> Iterator[bytes]:
    """A part's content, unpacked to its true end."""
    head = data[part.header_offset : part.header_offset + 30]
    if len(head) < 30:
        raise ValueError("a part lies outside the file")
    begin = part.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    packed = data[begin : begin + part.compress_size]
    if part.compress_type == zipfile.ZIP_STORED:
        yield packed
        return
    if part.compress_type != zipfile.ZIP_DEFLATED:
        raise NotImplementedError(f"packed by method {part.compress_type}")
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    while packed and not unpacker.eof:
        yield unpacker.decompress(packed, CHUNK)
        packed = unpacker.unconsumed_tail
    # What was read and not given yet.
    while piece := unpacker.decompress(b"", CHUNK):
        yield piece


class _Area:
    """Cells that a reader makes room for: up to the last one of a sheet, repeated ones as often as they are."""

    def __init__(self) -> None:
        self.done = self.rows = self.columns = self.row = self.column = 0
        self.times = 1
        self.broken = False
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end

    @property
    def cells(self) -> int:
        """Cells so far."""
        return self.done + self.rows * self.columns

    def fed(self, piece: bytes) -> int:
        """Cells after a further piece. What is no XML is left to the reader, which says so."""
        if not self.broken:
            try:
                self.parser.Parse(piece, False)
            except expat.ExpatError:
                self.broken = True
        return self.cells

    def _start(self, name: str, attributes: dict[str, Any]) -> None:
        kind = name.rpartition(" ")[2]
        if kind not in ("row", "c", "table-row", "table-cell", "covered-table-cell"):
            return
        own = {key.rpartition(" ")[2]: value for key, value in attributes.items()}
        if kind == "row":
            self.row, self.column = _count(own.get("r"), self.row + 1), 0
        elif kind == "table-row":
            self.times, self.column = _count(own.get("number-rows-repeated"), 1), 0
        elif kind == "c":
            place = PLACE.fullmatch(own.get("r", ""))
            self.column = self.column + 1 if place is None else _letters(place[1])
            self._at(self.row if place is None else int(place[2]))
        else:
            self.column += _count(own.get("number-columns-repeated"), 1)
            # Empty cells to the margin are written as repeated ones by every program, and make no room.
            if "value-type" in own or "formula" in own:
                self._at(self.row + self.times)

    def _at(self, row: int) -> None:
        self.rows, self.columns = max(self.rows, row), max(self.columns, self.column)

    def _end(self, name: str) -> None:
        kind = name.rpartition(" ")[2]
        if kind == "table-row":
            self.row += self.times
        elif kind == "table":
            self.done, self.rows, self.columns, self.row = self.cells, 0, 0, 0


def _count(text: str | None, other: int) -> int:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else other


def _letters(text: str) -> int:
    number = 0
    for sign in text.upper():
        number = 26 * number + ord(sign) - 64
    return number
