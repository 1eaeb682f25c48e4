"""Files that are whole under their name or not there: a crash, a full disk or a second writer never leaves half of one.

What the machine refuses becomes one sentence: a :class:`ModelError` where the path is not one that can be read or
written (a folder, a pipe, no permission), a :class:`StorageError` where the machine has no room or the disk fails.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmab_opt.errors import ModelError, RmabError, SolverError, StorageError

if sys.platform != "win32":
    import fcntl

__all__ = [
    "allow",
    "in_a_sentence",
    "is_ours",
    "json_text",
    "keep_safe",
    "make_folder",
    "parsed",
    "read_object",
    "read_regular",
    "refuse_foreign",
    "safe",
    "write_atomically",
]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What an operating system answers where nothing more fits."""

UNUSABLE = {
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EROFS: "the disk is read-only",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENOENT: "its folder is not there",
    errno.ELOOP: "the link leads to itself",
}


@dataclass
class _Verb:
    """What a verb that runs may not write over."""

    reads: set[tuple[int, int]] = field(default_factory=set)
    """Device and number of the files that it reads."""
    force: bool = False
    """Whether other people's files may be replaced."""


_VERB: ContextVar[_Verb | None] = ContextVar("_VERB", default=None)
"""None outside of verbs: a program that calls us says itself what it writes where."""


@contextmanager
def safe() -> Iterator[None]:
    """Within: what :func:`keep_safe` names is written over by nobody, nor what is not ours before :func:`allow`."""
    token = _VERB.set(_Verb())
    try:
        yield
    finally:
        _VERB.reset(token)


def allow(force: bool) -> bool:
    """Whether the verb that runs may replace files that are not ours; returns what it is given."""
    verb = _VERB.get()
    if verb is not None:
        verb.force = force
    return force


def keep_safe(paths: Iterable[Path | None]) -> None:
    """Files that a verb reads: until it ends nothing is written over one of them, by whatever name it is reached."""
    verb = _VERB.get()
    for path in paths if verb is not None else ():
        try:
            found = None if path is None else path.stat()
        except (OSError, ValueError):
            continue
        if verb is not None and found is not None and stat.S_ISREG(found.st_mode):
            verb.reads.add((found.st_dev, found.st_ino))


def write_atomically(path: str | Path, content: str | bytes, *, replace: bool = True, kept: bool = False) -> None:
    """Write a file under its name only when it is complete and on disk; the old one stays until then.

    Within a verb (:func:`safe`) this is the one guard of what is there: a file that the verb reads, or one that is not
    ours, is never replaced; and what is written is known as ours later.

    Parameters
    ----------
    replace
        False: a file that is already there stays for good, and FileExistsError says so.
    kept
        The file belongs to a record (a log, a run) whose reader has just found it to be ours.

    Raises
    ------
    ModelError
        When the path is a folder, a pipe or a device, may not be written, is one of what the verb reads, or holds what
        we did not write.
    StorageError
        When the disk is full or fails; the old file is as it was.
    """
    path = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    with in_a_sentence(path, "written"):
        _refuse_special(path, "written")
        guarded = replace and not kept and _VERB.get() is not None
        if guarded:
            refuse_foreign(path)
        make_folder(path.parent)
        if guarded and not _marked(data):
            # Before the file itself: whenever we are stopped, both the old and the new one are known as ours.
            _sign(path, data)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".part")
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
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        # The name itself has to reach the disk before anybody relies on it.
        _to_disk(path.parent)


def _to_disk(folder: Path) -> None:
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refuse_read(path: Path) -> None:
    verb = _VERB.get()
    if verb is not None and path.exists():
        found = path.stat()
        if (found.st_dev, found.st_ino) in verb.reads:
            raise ModelError(f"{path}: the model is made of this file", "name another file.")


def json_text(document: Any, *, indent: int | None = 1) -> str:
    """A document as JSON that every program reads: a NaN or an infinity is no JSON, and never a result.

    Raises
    ------
    SolverError
        When it holds one.
    """
    try:
        return json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise SolverError("the answer holds a number that is not finite", "look at the model's numbers.") from None


def parsed(data: bytes | str) -> Any:
    """JSON as Python has it; ValueError where it is none, and where it is nested without end."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_regular(path: str | Path) -> bytes:
    """Content of a regular file, over which the verb that runs will not write.

    Raises
    ------
    ModelError
        When there is none, or it is a folder, a pipe or a device, or may not be read; a pipe is never waited for.
    StorageError
        When the disk fails.
    """
    path = Path(path)
    with in_a_sentence(path, "read"):
        if not path.exists():
            raise ModelError(f"{path}: no such file", "check the name.")
        _refuse_special(path, "read")
        keep_safe([path])
        return path.read_bytes()


def read_object(path: str | Path, what: str, fix: str) -> dict[str, Any]:
    """The JSON object in a file of ours: ``what`` it should be, for the message, and how to come by one.

    Raises
    ------
    ModelError
        When the file cannot be read, is no JSON, is nested without end, or holds something else than an object.
    """
    try:
        document = parsed(read_regular(path).decode("utf-8-sig"))
    except ValueError as error:
        raise ModelError(f"{path}: is no {what} ({str(error)[:200]})", fix) from None
    if not isinstance(document, dict):
        raise ModelError(f"{path}: is no {what}, it holds a {type(document).__name__}", fix)
    return document


def _refuse_special(path: Path, done: str) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISREG(mode):
        return
    what = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device, not a file"
    raise ModelError(f"{path}: is {what} and cannot be {done}", "name a file.")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; ModelError when a file stands in its place."""
    with in_a_sentence(folder, "made"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise ModelError(f"{folder}: is a file, not a folder", "name another folder.") from None


@contextmanager
def in_a_sentence(path: Path, done: str) -> Iterator[None]:
    """What the operating system refuses in the block, as an error of ours about ``path``."""
    try:
        yield
    except (RmabError, FileExistsError):
        raise
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageError(f"{path}: cannot be {done}, the disk is full", "make room and repeat.") from None
        if error.errno in UNUSABLE:
            raise ModelError(f"{path}: cannot be {done}, {UNUSABLE[error.errno]}", "name another path.") from None
        raise StorageError(f"{path}: cannot be {done} ({error.strerror})", "look at the disk and repeat.") from None


MARK = b"rmab-opt"
"""Stands in every file we write that a person may name: a JSON's keys, a page's head, a workbook's creator."""


SIGNATURE = ".rmab-opt.json"
"""Names and digests of the tables and pictures that we put into a folder, which have no room for a mark."""


REMEMBERED = 4
"""Digests a name: the file that is there, the one that is being written, and another writer's."""


def _sign(path: Path, data: bytes) -> None:
    """Note that a file with this content is ours, so that a repeat may replace it without asking."""
    # Two verbs that write into one folder both have their files in it.
    with _one_writer(path.parent):
        known, digest = _signed(path.parent), hashlib.sha256(data).hexdigest()
        digests = [other for other in known.get(path.name, []) if other != digest]
        known[path.name] = [*digests, digest][-REMEMBERED:]
        text = json_text({"written by": MARK.decode(), "sha256": known}) + "\n"
        write_atomically(path.parent / SIGNATURE, text, kept=True)


@contextmanager
def _one_writer(folder: Path) -> Iterator[None]:
    """Nobody else notes anything in a folder meanwhile, without a file of ours that would stay in it."""
    if sys.platform == "win32":
        # A folder cannot be opened there: of two notes at one moment one is lost, and a repeat asks for --force.
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _signed(folder: Path) -> dict[str, list[str]]:
    try:
        document = parsed((folder / SIGNATURE).read_bytes())
    except (OSError, ValueError):
        return {}
    known = document.get("sha256") if isinstance(document, dict) else None
    if not isinstance(known, dict):
        return {}
    # Up to version 0.2 one digest stood there.
    return {
        str(name): [str(digest) for digest in (found if isinstance(found, list) else [found])]
        for name, found in known.items()
    }


def refuse_foreign(path: Path, *, force: bool = False) -> None:
    """Before a verb writes a file: ModelError where it reads the one that is there, or where we did not write that,
    unless ``force``."""
    verb = _VERB.get()
    if verb is None:
        # A program that calls us says itself what it writes where.
        return
    with in_a_sentence(path, "written"):
        _refuse_read(path)
        there = path.is_file()
    if there and not force and not verb.force and not is_ours(path):
        raise ModelError(f"{path}: is there already, and was not written by rmab-opt", "name another, or say --force.")


def is_ours(path: Path) -> bool:
    """Whether a file is one that this program writes: such a file may be replaced without asking.

    A table in CSV has no room for a signature: its mark at the front, the column ``id`` first and its line ends have
    to do; no spreadsheet writes these three together.
    """
    with in_a_sentence(path, "read"):
        _refuse_special(path, "read")
        data = path.read_bytes()
    return _marked(data) or hashlib.sha256(data).hexdigest() in _signed(path.parent).get(path.name, [])


def _marked(data: bytes) -> bool:
    """Whether a content shows by itself that it is ours; an empty one has nothing to lose."""
    if not data:
        return True
    if data.startswith(b"PK"):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return MARK in archive.read("docProps/core.xml")
        except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, OSError):
            return False
    if data.lstrip()[:1] == b"{":
        try:
            document = parsed(data)
        except ValueError:
            return False
        ours = ({"format", "action", "value"}, {"format", "what", "value"})
        return isinstance(document, dict) and any(keys <= document.keys() for keys in ours)
    table = data.startswith((b"\xef\xbb\xbfid,", b"\xef\xbb\xbfid\n")) and b"\r\n" not in data
    return table or MARK in data[:600]
