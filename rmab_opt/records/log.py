"""An append-only log of typed entries, each chained to the one before; a head file protects the newest too.

One file an entry (``round-0001.json``), written whole, never changed afterwards. An entry names the digest of the file
before it; ``head.json`` names how many there are and the digest of the last, so that an altered, missing or foreign
entry is noticed and named. An append is announced in the head, written, then confirmed: what a crash leaves between
the steps is finished or set aside by the next append, and readers see either all of it or nothing.

The digests find accidents and edits by hand. They are no signature: who rewrites the whole folder is not found.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rmab_opt.errors import ModelError
from rmab_opt.records.files import read_regular, write_atomically
from rmab_opt.records.locks import held

__all__ = ["Entry", "Log"]

HEAD = "head.json"

WAIT = 10.0
"""Seconds that an append waits for another; one takes milliseconds."""


class Entry(BaseModel):
    """Base of what a log keeps: a subclass's fields are read strictly, an unknown one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    newest: ClassVar[int] = 1
    """Format that is written."""

    format: int
    previous: str = ""
    """SHA-256 of the file before; empty for the first."""

    @classmethod
    def upgrade(cls, document: dict[str, Any]) -> dict[str, Any]:
        """A document of an older format as one of the newest; overridden where there is an older one."""
        return document


class _Head(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal[1] = 1
    count: int = Field(ge=0)
    digest: str
    """Of the last entry's file."""
    pending: str | None = None
    """Of the entry that is being appended."""


Kept = TypeVar("Kept", bound=Entry)


class Log(Generic[Kept]):
    """Entries of one kind in a folder, in the order they were appended.

    Parameters
    ----------
    folder
        Made when the first entry is appended.
    kind
        The entries' class.
    stem
        What their files' names begin with.
    context
        What the entries' validators may look at (pydantic's ``info.context``).
    headless
        Formats that were once written without a head file and are read without one.

    Raises
    ------
    ModelError
        When an entry is missing, altered, foreign or not of its type; names the file, and the field where it can.
    """

    def __init__(
        self,
        folder: str | Path,
        kind: type[Kept],
        *,
        stem: str = "entry",
        context: Any = None,
        headless: tuple[int, ...] = (),
    ) -> None:
        self.folder, self.kind, self.stem = Path(folder), kind, stem
        self.context, self.headless = context, headless
        self.entries: list[Kept] = []
        self.digest = ""
        """Of the last entry's file."""
        self._load()

    def __len__(self) -> int:
        return len(self.entries)

    def path(self, number: int) -> Path:
        """File of an entry, counted from 1."""
        return self.folder / f"{self.stem}-{number:04d}.json"

    def append(self, entry: Kept) -> Path:
        """Add an entry; it is on disk when this returns.

        Raises
        ------
        ModelError
            When somebody else has appended since this log was read, or is at it for too long.
        StorageError
            When the disk is full; the log is as it was.
        """
        number = len(self.entries) + 1
        path = self.path(number)
        with held(self.folder, f"appends {path.name}", wait=WAIT):
            head, found = self._head(), self._numbers()
            self._set_aside(head, found)
            count = max(found, default=0) if head is None else head.count
            if head is not None and head.pending is not None and self._committed(head):
                count += 1
            if count != len(self.entries) or (head is not None and head.count == count and head.digest != self.digest):
                raise ModelError(f"{path}: was written by somebody else just now", "look at it, then repeat.")
            document = entry.model_dump(mode="json") | {"format": self.kind.newest, "previous": self.digest}
            # Read back before it is written: what this version cannot read it never writes.
            data = (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
            kept = self._typed(path, data)
            digest = hashlib.sha256(data).hexdigest()
            self._write_head(_Head(count=len(self.entries), digest=self.digest, pending=digest))
            try:
                write_atomically(path, data, replace=False)
            except FileExistsError:
                raise ModelError(f"{path}: was written by somebody else just now", "look at it, then repeat.") from None
            self._write_head(_Head(count=number, digest=digest))
        self.entries.append(kept)
        self.digest = digest
        return path

    def _load(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise ModelError(f"{self.folder}: is a file, not a folder", "name the folder of the log.")
        head, found = self._head(), self._numbers()
        count = max(found, default=0)
        if head is not None:
            count = head.count + (1 if head.pending is not None and self._committed(head) else 0)
            torn = head.count + 1 if head.pending is not None else None
            for number in found:
                if number > count and number != torn:
                    raise ModelError(
                        f"{self.path(number)}: was not appended by this program, {HEAD} knows {count} entries",
                        "move the file out of the folder.",
                    )
        raw: list[bytes] = []
        for number in range(1, count + 1):
            path = self.path(number)
            if number not in found:
                raise ModelError(f"{path}: is missing", "put back the original files from a copy.")
            raw.append(read_regular(path))
            self.entries.append(self._typed(path, raw[-1]))
        digests = [hashlib.sha256(data).hexdigest() for data in raw]
        if head is None:
            self._may_lack_head()
            self.digest = digests[-1] if digests else ""
        else:
            self.digest = head.digest if count == head.count else str(head.pending)
        # From the newest backwards: a file is what its follower says, so the first that is not is the altered one.
        expected = self.digest
        for number in range(count, 0, -1):
            if digests[number - 1] != expected:
                raise ModelError(
                    f"{self.path(number)}: was altered after it was recorded", "put back the original file from a copy."
                )
            expected = self.entries[number - 1].previous
        if expected:
            raise ModelError(
                f"{self.path(1)}: does not begin the log; one before it is missing", "put back the original files."
            )

    def _may_lack_head(self) -> None:
        """Only logs that were written before there was a head may be without one."""
        for number, entry in enumerate(self.entries, start=1):
            if entry.format not in self.headless:
                raise ModelError(
                    f"{self.folder / HEAD}: is missing, it vouches for {self.path(number).name}",
                    "put back the original file from a copy.",
                )

    def _numbers(self) -> dict[int, Path]:
        found: dict[int, Path] = {}
        for path in self.folder.glob(f"{self.stem}-*.json"):
            match = re.fullmatch(rf"{re.escape(self.stem)}-(\d{{4,}})\.json", path.name)
            if match is None or path.name != self.path(int(match[1])).name or int(match[1]) == 0:
                raise ModelError(f"{path}: is no entry of this log", "move the file out of the folder.")
            found[int(match[1])] = path
        return found

    def _typed(self, path: Path, data: bytes) -> Kept:
        """The entry in a file, of whatever format; its ``format`` is the file's."""
        try:
            document = json.loads(data)
        except ValueError as error:
            raise ModelError(f"{path}: is no entry of this log ({error})", "put back the original file.") from None
        written = document.get("format") if isinstance(document, dict) else None
        if not isinstance(written, int) or isinstance(written, bool) or written < 1:
            raise ModelError(f"{path}: is no entry of this log: it has no format", "move the file out of the folder.")
        if written > self.kind.newest:
            raise ModelError(
                f"{path}: has format {written}, this version reads up to {self.kind.newest}", "update rmab-opt."
            )
        if written < self.kind.newest:
            document = self.kind.upgrade(document)
        try:
            return self.kind.model_validate_json(json.dumps(document), context=self.context)
        except ValidationError as error:
            raise ModelError(f"{path}: {_first(error)}", "put back the original file from a copy.") from None

    def _head(self) -> _Head | None:
        path = self.folder / HEAD
        if not path.exists():
            return None
        data = read_regular(path)
        try:
            return _Head.model_validate_json(data)
        except ValidationError as error:
            raise ModelError(f"{path}: {_first(error)}", "put back the original file from a copy.") from None

    def _committed(self, head: _Head) -> bool:
        """Whether the announced entry reached the disk whole, so that only the head's last word is missing."""
        path = self.path(head.count + 1)
        return path.is_file() and hashlib.sha256(read_regular(path)).hexdigest() == head.pending

    def _set_aside(self, head: _Head | None, found: dict[int, Path]) -> None:
        """Rename what a crash tore; nothing is deleted."""
        if head is not None and head.pending is not None and head.count + 1 in found and not self._committed(head):
            torn = found.pop(head.count + 1)
            torn.rename(torn.with_suffix(".torn"))

    def _write_head(self, head: _Head) -> None:
        write_atomically(self.folder / HEAD, head.model_dump_json(indent=1) + "\n", kept=True)


def _first(error: ValidationError) -> str:
    """The first fault as ``field: what``."""
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    what = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what
