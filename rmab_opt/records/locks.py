"""One writer at a time: a folder in use says who uses it.

The operating system frees the lock of a process that ends in any way, so that nobody has to clear one away.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rmab_opt.errors import ModelError
from rmab_opt.records.files import in_a_sentence, json_text, make_folder, write_atomically

__all__ = ["held"]

LOCK, HOLDER = ".lock", ".lock.holder"
"""The locked file, and who holds it, beside what they protect."""


@contextmanager
def held(folder: str | Path, purpose: str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold a folder while the block runs; made when it is not there.

    Parameters
    ----------
    purpose
        What the holder does, for the one who is refused: "trains here".
    wait
        Seconds to wait for another holder.

    Raises
    ------
    ModelError
        When somebody else holds it; says who: process, machine, since when, doing what.
    """
    # Takes 50 ms to import, which reading a table must not pay.
    from filelock import FileLock, Timeout

    folder = Path(folder)
    make_folder(folder)
    with in_a_sentence(folder / LOCK, "written"):
        # A soft lock would outlive a killed process.
        lock = FileLock(folder / LOCK, fallback_to_soft=False)
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            raise ModelError(
                f"{folder}: is in use: {_holder(folder)}", "wait until that has ended, or name another folder."
            ) from None
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        who = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "purpose": purpose}
        write_atomically(folder / HOLDER, json_text(who, indent=None) + "\n", kept=True)
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def _holder(folder: Path) -> str:
    try:
        who = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {who['pid']} on {who['host']} {who['purpose']} since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        # Between taking the lock and saying who, or as the holder leaves.
        return "by a process that has not said its name yet"
