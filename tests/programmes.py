"""A small programme's messy sheets, and the shared data with known truth, for several test files."""

from __future__ import annotations

import csv
import importlib.util
import os
import random
from pathlib import Path

import numpy as np
import pytest

from rmab_opt.programme.columns import PlanSection
from rmab_opt.programme.folder import start

FOLDER = Path(os.environ.get("RMAB_DATA", Path(__file__).parents[2] / "shared" / "data")) / "programme"
needs_data = pytest.mark.skipif(not FOLDER.is_dir(), reason="the programme's spreadsheets are not here")


def make_log():
    """The module that makes logs with known truth."""
    spec = importlib.util.spec_from_file_location("make_log", FOLDER / "make_log.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sheets(folder: Path, n: int = 60, weeks: int = 8, shuffle: int | None = None) -> dict[str, Path]:
    """Messy sheets of a small programme: titles, totals, decimal commas, ids with zeros and number signs."""
    rng = np.random.default_rng(5)
    ids = [f"#{k:03d}" if k > n - 2 else f"{k:03d}" for k in range(1, n + 1)]
    level = rng.normal(0, 0.6, n)
    state = (rng.random(n) < 0.5).astype(int)
    log = []
    for week in range(1, weeks + 1):
        called = rng.random(n) < 0.2
        log += [[ids[k], week, "Yes" if called[k] else "No", "Yes" if state[k] else "No"] for k in range(n)]
        base = np.where(called, np.where(state, 2.0, 0.5), np.where(state, 1.0, -1.5))
        state = (rng.random(n) < 1 / (1 + np.exp(-base - level))).astype(int)
    register = [
        [ids[k], f"Family {k}", "North" if k % 2 else "South", "engaged" if state[k] else "away",
         "0700" if k % 9 else "", "mon-am; tue-pm" if k % 3 else "tue-pm"]
        for k in range(n)
    ]  # fmt: skip
    register[4][3] = ""
    roster = [["Ada", "mon-am", 2, "North"], ["Ada", "tue-pm", 2, "North"], ["Bo", "tue-pm", 3, ""]]
    if shuffle is not None:
        for rows in (register, log, roster):
            random.Random(shuffle).shuffle(rows)
    found = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, head, rows, title, total in [
        ("register", ["Family ID", "Name", "Region", "Status", "Phone", "Slots"], register, "Export of July", None),
        ("log", ["id", "week", "called", "listened"], log, None, None),
        ("roster", ["Worker", "Slot", "Calls", "Region"], roster, None, ["Total", "", 7, ""]),
    ]:
        found[name] = folder / f"{name}.csv"
        with found[name].open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file, delimiter=";")
            if title:
                file.write(f"{title}{';' * (len(head) - 1)}\r\n")
            writer.writerow(head)
            writer.writerows(rows + ([total] if total else []))
    return found


def begun(folder: Path, **more) -> Path:
    given = sheets(folder / "sheets", **more)
    start(given["register"], folder / "own", log=given["log"], roster=given["roster"], plan=PlanSection(weeks=4))
    return folder / "own"


def ticked(folder: Path, week: int, out: Path, states: dict[str, str] | None = None) -> Path:
    reader = csv.DictReader((folder / "weeks" / f"week-{week:02d}.csv").open(encoding="utf-8-sig"))
    rows = list(reader)
    for k, row in enumerate(rows):
        row["done"] = "no" if k == 1 else "x"
        row["state"] = (states or {}).get(row["id"], "engaged")
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, reader.fieldnames, delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    return out
