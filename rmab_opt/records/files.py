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
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from rmab_opt.errors import ModelError, RmabError, StorageError

__all__ = [
    "in_a_sentence",
    "is_ours",
    "keep_safe",
    "make_folder",
    "read_object",
    "read_regular",
    "refuse_foreign",
    "safe",
    "sign",
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


_SAFE: ContextVar[set[tuple[int, int]] | None] = ContextVar("_SAFE", default=None)
"""Device and number of the files that nothing may be written over while one verb runs; None outside of verbs."""


@contextmanager
def safe() -> Iterator[None]:
    """Within: what :func:`keep_safe` names is written over by nobody."""
    token = _SAFE.set(set())
    try:
        yield
    finally:
        _SAFE.reset(token)


def keep_safe(paths: Iterable[Path | None]) -> None:
    """Files that a verb reads: until it ends nothing is written over one of them, by whatever name it is reached."""
    known = _SAFE.get()
    for path in paths if known is not None else ():
        try:
            found = None if path is None else path.stat()
        except (OSError, ValueError):
            continue
        if known is not None and found is not None and stat.S_ISREG(found.st_mode):
            known.add((found.st_dev, found.st_ino))


def write_atomically(path: str | Path, content: str | bytes, *, replace: bool = True) -> None:
    """Write a file under its name only when it is complete and on disk; the old one stays until then.

    Parameters
    ----------
    replace
        False: a file that is already there stays for good, and FileExistsError says so.

    Raises
    ------
    ModelError
        When the path is a folder, a pipe or a device, may not be written, or is one of what the verb reads.
    StorageError
        When the disk is full or fails; the old file is as it was.
    """
    path = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    with in_a_sentence(path, "written"):
        _refuse_special(path, "written")
        _refuse_read(path)
        make_folder(path.parent)
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
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _refuse_read(path: Path) -> None:
    known = _SAFE.get()
    if known and path.exists():
        found = path.stat()
        if (found.st_dev, found.st_ino) in known:
            raise ModelError(f"{path}: the model is made of this file", "name another file.")


def read_regular(path: str | Path) -> bytes:
    """Content of a regular file.

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
        return path.read_bytes()


def read_object(path: str | Path, what: str, fix: str) -> dict[str, Any]:
    """The JSON object in a file of ours: ``what`` it should be, for the message, and how to come by one.

    Raises
    ------
    ModelError
        When the file cannot be read, is no JSON, is nested without end, or holds something else than an object.
    """
    try:
        document = json.loads(read_regular(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise ModelError(f"{path}: is no {what} ({said})", fix) from None
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


def sign(folder: Path, names: Iterable[str]) -> None:
    """Note which files of a folder are ours as they now stand, so that a repeat may replace them without asking."""
    known = _signed(folder)
    known |= {name: _digest(folder / name) for name in names if (folder / name).is_file()}
    write_atomically(folder / SIGNATURE, json.dumps({"written by": MARK.decode(), "sha256": known}, indent=1) + "\n")


def _signed(folder: Path) -> dict[str, str]:
    try:
        document = json.loads(read_regular(folder / SIGNATURE))
    except (ModelError, ValueError, RecursionError):
        return {}
    known = document.get("sha256") if isinstance(document, dict) else None
    return {str(k): str(v) for k, v in known.items()} if isinstance(known, dict) else {}


def _digest(path: Path) -> str:
    return hashlib.sha256(read_regular(path)).hexdigest()


def refuse_foreign(path: Path, *, force: bool = False) -> None:
    """Before a verb writes a file: ModelError where one is there that we did not write, unless ``force``."""
    with in_a_sentence(path, "written"):
        there = path.is_file()
    if there and not force and not is_ours(path):
        raise ModelError(f"{path}: is there already, and was not written by rmab-opt", "name another, or say --force.")


def is_ours(path: Path) -> bool:
    """Whether a file is one that this program writes: such a file may be replaced without asking.

    A table in CSV has no room for a signature: its mark at the front, the column ``id`` first and its line ends have
    to do; no spreadsheet writes these three together.
    """
    data = read_regular(path)
    if not data or _signed(path.parent).get(path.name) == hashlib.sha256(data).hexdigest():
        return True
    if data.startswith(b"PK"):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return MARK in archive.read("docProps/core.xml")
        except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, OSError):
            return False
    if data.lstrip()[:1] == b"{":
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return False
        ours = ({"format", "action", "value"}, {"format", "what", "value"})
        return isinstance(document, dict) and any(keys <= document.keys() for keys in ours)
    table = data.startswith((b"\xef\xbb\xbfid,", b"\xef\xbb\xbfid\n")) and b"\r\n" not in data
    return table or MARK in data[:600]
