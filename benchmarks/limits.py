"""Limits that hold for the whole verb: hard models under ``--seconds``, each run in a process of its own.

    python benchmarks/limits.py [--quick] [--seconds 5] [--out FILE]

A run holds when it answers (exit code 0) before its limit and a second are over, start of Python included: on the wall,
or in CPU seconds, since on a busy machine the wall runs while the process waits. Both are printed, and the load.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

MODELS = Path(__file__).resolve().parent.parent / "models"

VILLAGES = "constraints.groups={kind: linear, per: village, at_most: 40}"

HARD: dict[str, tuple[str, list[str]]] = {
    "routes 40": ("path", ["n_arms=40"]),
    "routes 60": ("path", ["n_arms=60"]),
    "routes 100": ("path", ["n_arms=100"]),
    "routes with states 40": ("path_stateful", ["n_arms=40"]),
    "roster 100 by 12": ("scheduling", ["n_arms=100", "problem.n_workers=12", "constraints.budget.at_most=40"]),
    "roster 400 by 9": ("scheduling", ["n_arms=400", "problem.n_workers=9", "constraints.budget.at_most=60"]),
    "roster 1,000 by 100": ("scheduling", ["n_arms=1000", "problem.n_workers=100", "constraints.budget.at_most=100"]),
    "roster with states 100": ("scheduling_stateful", ["n_arms=100"]),
    "capacity 100 by 30": ("capacity", ["n_arms=100", "problem.n_workers=30"]),
    "capacity 400 by 9": ("capacity", ["n_arms=400", "problem.n_workers=9"]),
    "capacity 1,000 by 100": ("capacity", ["n_arms=1000", "problem.n_workers=100"]),
    "capacity with states 100": ("capacity_stateful", ["n_arms=100"]),
    "interventions 60": ("interventions", ["n_arms=60", "problem.n_interventions=20", "problem.budget=10"]),
    "interventions with states": ("interventions_stateful", []),
    "groups 1,000": ("budget", ["n_arms=1000", "problem.n_villages=10", "constraints.budget.at_most=100", VILLAGES]),
    "groups 10,000": ("budget", ["n_arms=10000", "problem.n_villages=20", "constraints.budget.at_most=1000", VILLAGES]),
    "contacts": ("contacts", []),
    "contacts, influencers": ("contacts_influencers", []),
    "contacts, lapsing": ("contacts_lapsing", []),
    "contacts, quotas": ("contacts_quotas", []),
    "contacts, route": ("contacts_route", []),
    "contagion": ("contagion", []),
    "villages": ("villages", []),
    "crowding": ("crowding", []),
    "assortment": ("assortment", []),
    "inspection": ("inspection", []),
    "inspection, slots": ("inspection_slots", []),
    "learned index": ("neural_index", []),
    "fair plans": ("equity_synthetic", []),
    "weekly calls": ("weekly_calls/model", []),
}
"""Name to (model, settings)."""

GROUPED = {"groups 1,000": "village", "groups 10,000": "village", "villages": "village", "weekly calls": "village"}
"""Models whose groups are compared as well."""

VERBS = ("decide", "bound", "evaluate")
OVER = 1.0
"""Seconds past the limit that a run may take."""


def held(verb: str, name: str, seconds: float, groups: str | None) -> tuple[float, float, str]:
    """(wall seconds, CPU seconds, how it ended) of one run."""
    model, settings = HARD[name]
    command = [sys.executable, "-m", "rmab_opt.cli", verb, str(MODELS / f"{model}.yaml"), "--seconds", f"{seconds:g}"]
    for entry in settings:
        command += ["--set", entry]
    command += [] if groups is None else ["--groups", groups]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as errors:
        begun = perf_counter()
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, used = os.wait4(child.pid, 0)
        wall = perf_counter() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        said = (errors.read().decode(errors="replace").strip().splitlines() or [""])[0]
    ended = "ok" if child.returncode == 0 else f"exit {child.returncode}: {said[:80]}"
    return wall, used.ru_utime + used.ru_stime, ended


def main() -> None:
    """One row a run; the exit code is 1 when one did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every sixth model, two seconds")
    parser.add_argument("--seconds", type=float, default=5.0, help="limit of each run")
    parser.add_argument("--out", type=Path, help="CSV file to record the runs in")
    given = parser.parse_args()
    seconds = 2.0 if given.quick else given.seconds
    names = list(HARD)[::6] if given.quick else list(HARD)
    rows: list[list[object]] = []
    print(f"limit {seconds:g} s; load {os.getloadavg()[0]:.1f}")
    for name in names:
        for verb in VERBS:
            for groups in (None, GROUPED[name]) if name in GROUPED else (None,):
                wall, cpu, ended = held(verb, name, seconds, groups)
                ok = ended == "ok" and min(wall, cpu) <= seconds + OVER
                said = verb if groups is None else f"{verb} --groups"
                rows.append([said, name, f"{wall:.2f}", f"{cpu:.2f}", "yes" if ok else "no", ended])
                print(f"{said:18}{name:26}{wall:>7.2f}{cpu:>7.2f}  {'' if ok else 'NOT HELD '}{ended}", flush=True)
    if given.out is not None:
        with given.out.open("w", newline="", encoding="utf-8") as file:
            head = ["verb", "model", "wall_seconds", "cpu_seconds", "held", "ended"]
            csv.writer(file, lineterminator="\n").writerows([head, *rows])
    missed = sum(row[4] == "no" for row in rows)
    print(f"{len(rows) - missed} of {len(rows)} held")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
