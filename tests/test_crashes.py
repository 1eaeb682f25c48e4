"""A kill, a full disk, a closed pipe, a second writer: nothing torn, nothing lost, and a repeat ends as if nothing was.

Each verb that writes runs in a process of its own. Killed before one of its steps on the disk (so that every step has
its turn), with files limited to fewer bytes than it needs, with nobody at the other end of its output, or twice at
once. Afterwards every file under its own name is whole, and the verb's repeat gives what an undisturbed run gives.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MODEL = """\
format: 1
title: Small
problem:
  arms: arms.csv
  dynamics: {kind: tabular, file: transitions.csv, by: type, reward: {bad: 0, good: 1}, paid_on: arrival}
  horizon: 4
  start: start.csv
constraints:
  weekly: {kind: budget, at_most: 2}
train: {episodes: 6, pretrain_steps: 2, hidden: [6], head: 2, updates: 1, batch: 8, validation_episodes: 0}
"""
TABLES = {
    "arms.csv": "id,type\n" + "".join(f"p{n},{'ab'[n % 2]}\n" for n in range(6)),
    "transitions.csv": "type,state,action,bad,good\n"
    + "".join(
        f"{t},{s},{a},{1 - q},{q}\n"
        for t, shift in (("a", 0.0), ("b", 0.125))
        for s, a, q in (("bad", 0, 0.25 + shift), ("bad", 1, 0.75), ("good", 0, 0.5), ("good", 1, 0.875 + shift))
    ),
    "start.csv": "id,state\n" + "".join(f"p{n},{'bad' if n < 4 else 'good'}\n" for n in range(6)),
    "seen.csv": "id,done,state\np0,no,\np1,yes,good\np2,,bad\n",
}


@dataclass(frozen=True)
class Work:
    """A verb that writes into the folder ``out``, and what of it must be the same after every repeat."""

    arguments: Callable[[Path, Path], list[str]]
    result: Callable[[Path], Any]
    again: int = 0
    """Exit code of a repeat after the whole: 2 where what is done is not done twice."""


def tables(out: Path) -> Any:
    document = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    slow = {"seconds", "per decision", "ms"}
    rows = [
        {key: cell for key, cell in row.items() if not any(word in key for word in slow)} for row in document["rows"]
    ]
    return len(rows), rows, sorted(path.name for path in out.iterdir() if not path.name.endswith(".part"))


def run_of(out: Path) -> Any:
    return (out / "weights.safetensors").read_bytes(), (out / "log.jsonl").read_bytes()


def ledger(out: Path) -> Any:
    # The head may still announce what is there: it is finished by the next round, and read as finished until then.
    return {path.name: path.read_bytes() for path in out.glob("round-*.json")}


def lists(out: Path) -> Any:
    document = json.loads((out / "list.json").read_text(encoding="utf-8"))
    return document["action"], document["value"], document["bound"], (out / "page.html").stat().st_size > 2000


WORKS = {
    "train": Work(lambda folder, out: ["train", f"{folder}/model.yaml", "--out", f"{out}"], run_of),
    "evaluate": Work(
        lambda folder, out: [
            "evaluate", f"{folder}/model.yaml", "--policies", "none,random,myopic", "--episodes", "4", "--jobs", "1",
            "--out", f"{out}",
        ],
        tables,
    ),
    "record": Work(
        lambda folder, out: [
            "record", f"{folder}/model.yaml", "--decision", f"{folder}/week.json", "--outcomes", f"{folder}/seen.csv",
            "--ledger", f"{out}",
        ],
        ledger,
        again=2,
    ),
    "decide": Work(
        lambda folder, out: [
            "decide", f"{folder}/model.yaml", "--out", f"{out}/list.json", "--report", f"{out}/page.html",
        ],
        lists,
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ processes
def _verb(arguments: list[str], printed: int | str, dies_at: int, most: int | None) -> None:
    """Run a verb, its output in a file or a pipe; die before that step on the disk; no file above ``most`` bytes."""
    from rmab_opt import cli

    sink = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if isinstance(printed, str) else printed
    os.dup2(sink, 1)
    os.dup2(sink if isinstance(printed, str) else os.open(os.devnull, os.O_WRONLY), 2)
    # Line by line, as to a person: a pipe that nobody reads is noticed with the first line.
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    steps = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any, **named: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **named)

        return step

    os.fsync, os.replace, os.link = dying(os.fsync), dying(os.replace), dying(os.link)
    tempfile.mkstemp = dying(tempfile.mkstemp)
    if most is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    sys.argv = ["rmab-opt", *arguments]
    cli.main()


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["rmab_opt.learning.dqn", "rmab_opt.decisions", "rmab_opt.page.report", "highspy"])


def begun(work: Work, folder: Path, out: Path, *, dies_at: int = 0, most: int | None = None, name: str = "said") -> Any:
    said = str(folder / name) if most is None else os.devnull
    process = CONTEXT.Process(target=_verb, args=(work.arguments(folder, out), said, dies_at, most))
    process.start()
    return process


def ended(process: Any) -> int:
    process.join(120)
    assert process.exitcode is not None, "no end"
    return int(process.exitcode)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("crash")
    for name, text in {"model.yaml": MODEL, **TABLES}.items():
        (place / name).write_text(text, encoding="utf-8")
    week = Work(
        lambda folder, out: ["decide", f"{folder}/model.yaml", "--out", f"{folder}/week.json"], lambda out: None
    )
    assert ended(begun(week, place, place)) == 0, (place / "said").read_text()
    return place


@pytest.fixture(scope="module")
def whole(folder):
    """What each verb gives undisturbed; and its steps on the disk, counted by a kill that never comes."""
    known: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in known:
            assert ended(begun(WORKS[name], folder, folder / f"whole-{name}")) == 0, (folder / "said").read_text()
            known[name] = WORKS[name].result(folder / f"whole-{name}")
        return known[name]

    return of


def nothing_is_torn(out: Path) -> None:
    """Every file under its own name can be read to its end."""
    for path in out.rglob("*") if out.is_dir() else ():
        if not path.is_file() or path.name.endswith((".part", ".lock")):
            continue
        data = path.read_bytes()
        if path.suffix == ".json":
            json.loads(data)
        elif path.suffix == ".jsonl":
            for line in data.splitlines():
                json.loads(line)
            # Before the first episode a log has no line yet.
            assert not data or data.endswith(b"\n")
        elif path.suffix == ".png":
            assert b"IEND" in data[-12:]
        elif path.suffix == ".html":
            assert data.rstrip().endswith(b"</html>")
        elif path.suffix == ".csv":
            assert data.endswith(b"\n")
        elif path.suffix == ".tex":
            assert data.rstrip().endswith(b"\\end{tabular}")


def repeated(work: Work, folder: Path, out: Path, whole: Any) -> None:
    """The verb once more, and what it gives; and the same after one more."""
    code = ended(begun(work, folder, out))
    assert code in (0, work.again), (folder / "said").read_text()
    assert work.result(out) == whole


def crashes(*quick: str) -> Callable[[Any], Any]:
    """Once for some verbs, and fifteen times for every verb in the slow suite."""
    few = [(name, 1) for name in quick]
    many = [pytest.param(name, 15, marks=pytest.mark.slow) for name in WORKS]
    return pytest.mark.parametrize(("name", "times"), [*few, *many])


@crashes("record")
def test_killed_at_a_step_on_the_disk(folder, whole, tmp_path, name, times):
    work, reference = WORKS[name], whole(name)
    killed = 0
    for attempt in range(times):
        out = tmp_path / f"{attempt}"
        # Verbs take between six and some thirty steps.
        code = ended(begun(work, folder, out, dies_at=5 if times == 1 else attempt + 1))
        assert code in (0, -signal.SIGKILL), (folder / "said").read_text()
        killed += code != 0
        nothing_is_torn(out)
        repeated(work, folder, out, reference)
    assert killed >= min(times, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKS)
def test_killed_at_a_moment(folder, whole, tmp_path, name):
    work, reference = WORKS[name], whole(name)
    began = time.monotonic()
    assert ended(begun(work, folder, tmp_path / "timed")) == 0
    length = time.monotonic() - began
    for attempt in range(15):
        out = tmp_path / f"{attempt}"
        process = begun(work, folder, out)
        time.sleep(length * (attempt + 1) / 16)
        process.kill()
        ended(process)
        nothing_is_torn(out)
        repeated(work, folder, out, reference)


@crashes("decide")
def test_a_full_disk(folder, whole, tmp_path, name, times):
    """No file may grow above so many bytes, as where a disk has no more room."""
    work, reference = WORKS[name], whole(name)
    largest = max(path.stat().st_size for path in (folder / f"whole-{name}").iterdir() if path.is_file())
    for attempt in range(times):
        out = tmp_path / f"{attempt}"
        code = ended(begun(work, folder, out, most=largest * attempt // times))
        assert code == 74, attempt
        nothing_is_torn(out)
        assert not [path.name for path in out.rglob("*.part")]
        repeated(work, folder, out, reference)
        # The old ones stay as they are when a repeat finds no room.
        if work.again == 0 and name != "train":
            before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
            assert ended(begun(work, folder, out, most=0)) == 74
            assert {path: path.read_bytes() for path in before} == before


@crashes("decide")
def test_nobody_reads_the_output(folder, whole, tmp_path, name, times):
    work, reference = WORKS[name], whole(name)
    for attempt in range(times):
        out = tmp_path / f"{attempt}"
        reading, writing = os.pipe()
        child = CONTEXT.Process(target=_through, args=(work.arguments(folder, out), attempt))
        os.close(reading)
        os.close(writing)
        child.start()
        assert ended(child) in (0, 1)
        nothing_is_torn(out)
        assert work.result(out) == reference


def _through(arguments: list[str], taken: int) -> None:
    """A verb whose reader leaves after some bytes of its output."""
    reading, writing = os.pipe()
    reader = os.fork()
    if reader == 0:
        os.close(writing)
        if taken:
            os.read(reading, taken)
        os._exit(0)
    os.close(reading)
    if taken == 0:
        os.waitpid(reader, 0)
    _verb(arguments, writing, 0, None)


@crashes("record")
def test_two_writers(folder, whole, tmp_path, name, times):
    work, reference = WORKS[name], whole(name)
    for attempt in range(times):
        out = tmp_path / f"{attempt}"
        both = [begun(work, folder, out, name=f"said {n}") for n in range(2)]
        codes = [ended(process) for process in both]
        said = [(folder / f"said {n}").read_text() for n in range(2)]
        # One is refused where only one can do it, in a sentence; never both.
        assert 0 in codes, said
        assert set(codes) <= {0, 2}, said
        nothing_is_torn(out)
        assert work.result(out) == reference
