"""Whatever the bytes, a reader answers or refuses in a sentence, in two seconds, and drops no row and no key.

Inputs are whole files with a few places spoilt; each is made from its number, which a failure names. ``RMAB_FUZZ`` says
how many a reader, by default 300 in the quick suite and 50,000 in the slow one; ``RMAB_FUZZ_FROM`` is the first number,
so that a long run can be split or one input repeated.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import functools
import io
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest

import rmab_opt as ro
from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.catalog import copy_model
from rmab_opt.catalog.files import locate
from rmab_opt.decisions import Model, decide, verify
from rmab_opt.errors import RmabError
from rmab_opt.learning import DQNConfig, load_policy, train
from rmab_opt.problem import Arms, Problem, Table, Tabular
from rmab_opt.programme.ledger import Ledger
from rmab_opt.report import unmarked, workbook

SECONDS = 2.0
MOST_SHOWN = 8
HOSTILE = (
    "", "0", "-1", "1e309", "NaN", "Infinity", "1" * 400, "null", "true", "[]", "{}", "'", '"', "\x00", "\ufeff", "é",
    "\u2028", "=1+1", "007", "#1", "12_34", "8.000", "1,5", "31/02/2026", "../x", "/dev/null", ".nan", ".inf", "1e5",
    "*a", "&a", "<<", "!!python/object:os.system", "- ", ": ", "\t", "\r\n", ";", "|", "\\", "\ud800", "total", "2**63",
    str(2**63), str(-(2**63)), str(2**200), "0x10", "1:30", "yes", "~",
)  # fmt: skip


def counted(slow: bool) -> int:
    return int(os.environ.get("RMAB_FUZZ", "50000" if slow else "300"))


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Two seconds of this process's own time: another's load is no hang."""

    def late(*_: object) -> None:
        raise AssertionError(f"no answer within {SECONDS} s")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def each(count: int, check: Callable[[random.Random], None]) -> None:
    """A check of so many inputs, each made from its own number."""
    first, failures = int(os.environ.get("RMAB_FUZZ_FROM", "0")), []
    for number in range(first, first + count):
        try:
            with in_time():
                check(random.Random(number))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            error.add_note(f"input {number}: repeat with RMAB_FUZZ_FROM={number} RMAB_FUZZ=1")
            failures.append(error)
        if len(failures) == MOST_SHOWN:
            break
    if failures:
        raise ExceptionGroup(f"inputs {first} to {number}", failures)


def both(reader: Callable[..., None]) -> Callable[..., None]:
    """The same fuzz with a few inputs, and with many in the slow suite."""
    return pytest.mark.parametrize("count", [counted(False), pytest.param(counted(True), marks=pytest.mark.slow)])(
        reader
    )


# ------------------------------------------------------------------------------------------------------------- spoiling
def spoilt(data: bytes, draw: random.Random) -> bytes:
    """Bytes with some flipped, cut, doubled, or a hostile word put in."""
    for _ in range(draw.choice((1, 1, 2, 5))):
        at = draw.randrange(len(data) + 1)
        end = min(len(data), at + draw.choice((0, 1, 3, 40)))
        word = draw.choice(HOSTILE).encode("utf-8", "surrogatepass")
        how = draw.randrange(5)
        if how == 0:
            data = data[:at] + draw.randbytes(draw.choice((1, 2, 9))) + data[end:]
        elif how == 1:
            data = data[:at] + word + data[end:]
        elif how == 2:
            data = data[:at] + data[at:end] * draw.choice((2, 3)) + data[end:]
        elif how == 3:
            data = data[:at] if draw.random() < 0.2 else data[:at] + data[end:]
        else:
            lines = data.split(b"\n")
            draw.shuffle(lines)
            data = b"\n".join(lines)
    return data


def spoilt_json(document: Any, draw: random.Random) -> tuple[Any, bool]:
    """A document with one value, key or type changed; and whether a key was put in that nobody knows."""
    document = json.loads(json.dumps(document))
    places = list(_places(document))
    holder, key = draw.choice(places)
    how = draw.randrange(6)
    if how == 0 and isinstance(holder, dict):
        holder["no_such_key"] = 1
        return document, holder is document
    if how == 1:
        del holder[key]
        return document, False
    values = (
        None,
        -1,
        0,
        10**400,
        1e300,
        float("nan"),
        float("inf"),
        "",
        "x" * 2000,
        [],
        {},
        [[]],
        True,
        "\ud800",
        0.5,
    )
    holder[key] = draw.choice((*values, [holder[key]] * 3, {"a": holder[key]}, draw.choice(HOSTILE)))
    return document, False


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict | list):
        for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, key
            yield from _places(inner)


# --------------------------------------------------------------------------------------------------------------- tables
LETTERS = "abcXYZ019 .,;:#'\"=+-@_%/éßИगाँव½\n\t|"


def grid(draw: random.Random) -> list[list[str]]:
    """A header and rows with ids of their own."""
    width, height = draw.randint(1, 5), draw.randint(1, 8)
    rows = [["id", *(f"column {name}" for name in "vwxy"[: width - 1])]]
    for row in range(height):
        rows.append([f"k{row}", *("".join(draw.choices(LETTERS, k=draw.randint(0, 7))) for _ in range(width - 1))])
    return rows


def decoded(data: bytes) -> str:
    """Text of a sheet by its mark, else by what it can be."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if data.startswith(mark):
            return data.removeprefix(mark).decode(name)
    with contextlib.suppress(UnicodeDecodeError):
        text = data.decode("utf-8")
        if "\x00" not in text:
            return text
    if b"\x00" not in data:
        return data.decode("cp1252")
    # Without a mark the zeros tell: of western text they stand at the odd places of little endian.
    even, odd = data[0::2].count(0), data[1::2].count(0)
    return data.decode("utf-16-be" if even > odd else "utf-16-le")


def nothing_is_lost(table: Table, plain: list[list[str]]) -> None:
    """Every row that holds anything is a row of the table, its header, or named in its log; and so is every cell."""
    away = {"a note, not a row", "a title above the header", "a row of groups"}
    gone = {remark.line for remark in table.log.remarks if remark.why in away}
    rows = [[cell.strip() for cell in cells] for cells in plain]
    rows = [cells for cells in rows if any(cells)]
    assert len(rows) == len(table) + 1 + len(gone), (len(rows), len(table), len(gone))
    read = [sorted(filter(None, cells)) for cells in zip(*table.columns.values(), strict=True)]
    # What is gone stands anywhere between; the rest is there in its order.
    left = iter(sorted(filter(None, cells)) for cells in rows)
    for cells in read:
        assert any(cells == other for other in left), cells


@both
def test_bytes_become_tables(count, tmp_path):
    place = tmp_path / "t.csv"

    def check(draw: random.Random) -> None:
        rows = grid(draw)
        text = io.StringIO()
        csv.writer(text, delimiter=draw.choice(";,\t|"), lineterminator=draw.choice(("\n", "\r\n"))).writerows(rows)
        written = text.getvalue()
        form = draw.choice(("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"))
        with contextlib.suppress(UnicodeEncodeError):
            written.encode(form)
        data = written.encode(form, "ignore")
        whole = data.decode(form) == written and draw.random() < 0.4
        place.write_bytes(data if whole else spoilt(data, draw))
        try:
            table = Table.read(place, needed=("id",))
        except RmabError:
            return
        for name in table.columns:
            for read in (table.text, table.numbers, table.dates, table.yes_no):
                with contextlib.suppress(RmabError):
                    read(name)
        if whole:
            assert table.text("id") == [row[0] for row in rows[1:]]
            filled = [j for j in range(len(rows[0])) if any(row[j].strip() for row in rows[1:])]
            assert {rows[0][j] for j in filled} <= set(table.columns)
        kept = place.read_bytes()
        if not kept.startswith(b"PK"):
            words = {"semicolon": ";", "comma": ",", "tab": "\t", "bar": "|"}
            mark = words.get(table.log.facts.get("delimiter", ""), "\ue123")
            lines = decoded(kept).replace("\r\n", "\n").replace("\r", "\n")
            plain = csv.reader(io.StringIO(lines), delimiter=mark)
            nothing_is_lost(table, [[unmarked(cell) for cell in cells] for cells in plain])

    each(count, check)


@both
def test_bytes_become_sheets(count, tmp_path):
    place = tmp_path / "t.xlsx"

    @functools.cache
    def made(number: int) -> tuple[list[list[str]], bytes]:
        # Writing a workbook takes ten times as long as reading it: at most 500 are written.
        rows = [[*line] for line in grid(random.Random(f"sheet {number}"))]
        return rows, workbook({"sheet": rows})

    def check(draw: random.Random) -> None:
        rows, data = made(draw.randrange(max(60, min(count, 2000) // 4)))
        whole = draw.random() < 0.1
        place.write_bytes(data if whole else spoilt(data, draw))
        try:
            table = Table.read(place, needed=("id",))
        except RmabError:
            assert not whole or any(cell.strip() for row in rows[1:] for cell in row[1:])
            return
        if whole:
            assert table.text("id") == [row[0] for row in rows[1:]]
        if not place.read_bytes().startswith(b"PK"):
            # Text under such a name, which is looked at with the tables.
            return
        sheet = openpyxl.load_workbook(place, read_only=False).active
        plain = [["" if cell is None else str(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
        nothing_is_lost(table, plain)

    each(count, check)


# --------------------------------------------------------------------------------------------------------------- models
MODELS = ("budget", "capacity", "scheduling", "equity_synthetic", "inspection_slots", "contacts_quotas", "season_stock")


@both
def test_text_becomes_models(count, tmp_path):
    texts = [Path(locate(name)).read_text(encoding="utf-8") for name in MODELS]
    folder = tmp_path / "weekly"
    copy_model("weekly_calls", folder)
    texts.append((folder / "model.yaml").read_text(encoding="utf-8"))
    place = folder / "spoilt.yaml"

    def check(draw: random.Random) -> None:
        lines = draw.choice(texts).splitlines()
        how, at = draw.randrange(4), draw.randrange(len(lines))
        extra = False
        if how == 0:
            lines.append("no_such_key: 1")
            extra = True
        elif how == 1:
            key, colon, value = lines[at].partition(":")
            lines[at] = f"{key}{colon} {draw.choice(HOSTILE)}" if colon else value
        elif how == 2:
            parts = lines[at].split(" ")
            parts[draw.randrange(len(parts))] = draw.choice(HOSTILE)
            lines[at] = " ".join(parts)
        data = "\n".join(lines).encode("utf-8", "surrogatepass")
        place.write_bytes(spoilt(data, draw) if how == 3 else data)
        try:
            ro.load(place)
        except RmabError:
            return
        assert not extra, "a key that nobody knows was dropped"

    each(count, check)


# ------------------------------------------------------------------------------------------- decisions, ledgers, runs
def small() -> Model:
    rng = np.random.default_rng(3)
    transition = rng.dirichlet(np.ones(3), size=(4, 2, 3))
    arms = Arms.from_arrays(4)
    dynamics = Tabular(transition, rng.random((4, 3, 2)), state_names=("low", "middle", "high"))
    return Model(Problem(arms, dynamics, horizon=6), ActionSet(arms, {"calls": Budget(at_most=2)}))


@both
def test_json_becomes_decisions(count, tmp_path):
    model, place = small(), tmp_path / "week.json"
    made = json.loads(decide(model, np.array([0, 1, 2, 0])).to_json())

    def check(draw: random.Random) -> None:
        document, extra = spoilt_json(made, draw)
        data = json.dumps(document).encode("utf-8", "surrogatepass")
        place.write_bytes(spoilt(data, draw) if draw.random() < 0.3 else data)
        try:
            verify(place, model.problem, model.actions, model.objective)
        except RmabError:
            return
        try:
            known = set(json.loads(place.read_bytes()))
        except ValueError:
            raise AssertionError("accepted what is no JSON") from None
        assert not extra, "a key that nobody knows was dropped"
        assert known <= set(made) | {"no_such_key"}

    each(count, check)


def begun(folder: Path) -> tuple[Model, Path, dict[str, Any]]:
    """A model and a ledger of two rounds of it."""
    model, place = small(), folder / "ledger"
    ledger = Ledger(place, model)
    made: dict[str, Any] = {}
    for period in range(2):
        made = json.loads(decide(model, np.array([0, 1, 2, 0]), period=period).to_json())
        told = {"id": made["action"], "done": ["yes"] * len(made["action"]), "state": ["high"] * len(made["action"])}
        ledger.record(made, Table(told, source="outcomes.csv"))
    return model, place, made


@both
def test_files_become_ledgers(count, tmp_path):
    model, kept, _ = begun(tmp_path)
    rounds = Ledger(kept, model).standing()
    names = sorted(path.name for path in kept.iterdir() if path.is_file())
    whole = {name: (kept / name).read_bytes() for name in names}
    place = tmp_path / "spoilt"
    shutil.copytree(kept, place)

    def check(draw: random.Random) -> None:
        touched = draw.choice(names)
        (place / touched).write_bytes(spoilt(whole[touched], draw))
        try:
            standing = Ledger(place, model).standing()
        except RmabError:
            return
        finally:
            (place / touched).write_bytes(whole[touched])
        assert standing is not None, "the rounds were dropped"
        assert standing.period == rounds.period
        assert np.array_equal(standing.belief, rounds.belief)

    each(count, check)


@both
def test_files_become_runs(count, tmp_path):
    model, kept = small(), tmp_path / "run"
    train(model, DQNConfig(episodes=1, pretrain_steps=1, hidden=(4,), head=2, validation_episodes=0), out=kept)
    names = sorted(path.name for path in kept.iterdir() if path.is_file() and path.suffix != ".lock")
    place = tmp_path / "spoilt"
    shutil.copytree(kept, place)
    whole = {name: (kept / name).read_bytes() for name in names}
    record = json.loads(whole["run.json"])
    state = np.array([0, 1, 2, 0])

    def check(draw: random.Random) -> None:
        touched = draw.choice(names)
        data = spoilt(whole[touched], draw)
        if touched == "run.json" and draw.random() < 0.6:
            data = json.dumps(spoilt_json(record, draw)[0]).encode("utf-8", "surrogatepass")
        (place / touched).write_bytes(data)
        try:
            load_policy(place, model).decide(state)
        except RmabError:
            return
        finally:
            (place / touched).write_bytes(whole[touched])

    each(count, check)


@pytest.mark.parametrize(("place", "value"), [("state", 2**63), ("period", 2**70), ("nodes", 10**30), ("rows", 2**62)])
def test_an_integer_without_end_is_refused_by_name(tmp_path, place, value):
    """JSON's integers have no end, arrays' have: these ended as OverflowError and ValueError."""
    model = small()
    made = json.loads(decide(model, np.array([0, 1, 2, 0])).to_json())
    holder = made["proof"] if place == "rows" else made
    holder[place] = [value, 0, 0, 0] if place == "state" else value
    with pytest.raises(RmabError, match=place):
        verify(made, model.problem, model.actions, model.objective)
