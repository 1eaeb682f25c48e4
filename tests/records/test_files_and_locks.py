"""Files are whole or not there, what cannot be written is said in a sentence, and one writer works at a time."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rmab_opt.errors import ModelError, StorageError
from rmab_opt.records import files as files_module
from rmab_opt.records import held, read_regular, write_atomically


def test_a_file_is_written_whole_with_the_usual_rights(tmp_path):
    path = tmp_path / "deep" / "er" / "file.txt"
    write_atomically(path, "grün\n")
    assert path.read_bytes() == "grün\n".encode()
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    with pytest.raises(FileExistsError):
        write_atomically(path, b"third", replace=False)
    assert path.read_bytes() == b"second"
    assert [found.name for found in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
@pytest.mark.parametrize("use", [lambda path: write_atomically(path, "x"), read_regular])
def test_what_is_no_file_is_refused_by_name(tmp_path, kind, use):
    path = tmp_path / "thing"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = Path("/dev/null")
    with pytest.raises(ModelError, match=rf"{path.name}: is a {kind}"):
        use(path)
    assert not path.is_file()


def test_paths_through_a_file_and_missing_files(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelError, match="is a file, not a folder"):
        write_atomically(tmp_path / "file" / "below", "x")
    with pytest.raises(ModelError, match="absent: no such file"):
        read_regular(tmp_path / "absent")
    with pytest.raises(ModelError, match="name is too long"):
        write_atomically(tmp_path / ("n" * 300), "x")


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.ENOSPC, StorageError, "the disk is full"),
        (errno.EACCES, ModelError, "no permission"),
        (errno.EIO, StorageError, "cannot be written"),
    ],
)
def test_a_refusing_disk_leaves_the_old_file(tmp_path, monkeypatch, number, error, words):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files_module.os, "fsync", refuse)
    with pytest.raises(error, match=words):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


HOLD = """
import sys, time
from rmab_opt.records import held
with held(sys.argv[1], "counts sheep"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_told_who_holds_the_folder_and_a_killed_one_holds_nothing(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "held\n"
        words = rf"in use: process {child.pid} on \S+ counts sheep since \d{{4}}-"
        with pytest.raises(ModelError, match=words), held(tmp_path, "waits"):
            pass
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    # The dead holder's note is still there; the lock is not.
    assert (tmp_path / ".lock.holder").exists()
    with held(tmp_path, "works"):
        assert str(os.getpid()) in (tmp_path / ".lock.holder").read_text()
    assert not (tmp_path / ".lock.holder").exists()


def test_a_waiting_writer_gets_its_turn(tmp_path):
    start = time.monotonic()
    script = HOLD.replace("time.sleep(60)", "time.sleep(0.3)")
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    with held(tmp_path, "waits", wait=30.0):
        assert time.monotonic() > start
    assert child.wait() == 0


def test_where_folders_cannot_be_opened_files_are_written_all_the_same(tmp_path):
    """As on Windows: the package has to import without locks of folders, and must not ask for one."""
    code = f"""
import importlib, os, sys
from rmab_opt.records import files
sys.platform = "win32"
sys.modules["fcntl"] = None
files = importlib.reload(files)
real = os.open
def no_folders(path, *rest, **more):
    if os.path.isdir(path):
        raise PermissionError(path)
    return real(path, *rest, **more)
os.open = no_folders
with files.safe():
    for content in ("one", "two"):
        files.write_atomically({str(tmp_path / "out.txt")!r}, content)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.txt").read_text() == "two"
