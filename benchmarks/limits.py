"""Limits that hold for the whole verb: hard models under ``--seconds``, each run in a process of its own.

    python benchmarks/limits.py [--quick] [--seconds 5] [--only NAME,NAME] [--out FILE]

A run holds when it answers before its limit and a second are over (five seconds at 100,000 arms), start of Python
included: on the wall, or in CPU seconds, since on a busy machine the wall runs while the process waits. Both are
recorded, with the load and the commit. An answer is exit code 0, or the refusal of a verb that stands on what the model
does not have (:data:`REFUSED`).
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

import yaml

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

LARGE: dict[str, tuple[str, list[str]]] = {
    "budget 100,000": ("budget", ["n_arms=100000", "constraints.budget.at_most=10000"]),
    "capacity 100,000": ("capacity", ["n_arms=100000", "problem.n_workers=100"]),
    "roster 100,000": ("scheduling", ["n_arms=100000", "problem.n_workers=100", "constraints.budget.at_most=10000"]),
}
"""The same at 100,000 arms."""

VERBS = ("check", "decide", "bound", "evaluate", "compare")
OVER, OVER_LARGE = 1.0, 5.0
"""Seconds past the limit that a run may take, and one over 100,000 arms."""

REFUSED: dict[str, tuple[str, ...]] = {
    "bound": ("assortment",),
    "bound --groups": ("villages",),
    "evaluate": ("inspection",),
}
"""Models whose arms have no tables, or no round's action, which these verbs stand on: they say so, exit code 2."""


def sized(path: Path, settings: list[str], folder: Path) -> Path:
    """A model file with values of ``--set`` in it."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in settings:
        key, _, value = entry.partition("=")
        *sections, last = (key if "." in key else f"problem.{key}").split(".")
        place = content
        for section in sections:
            place = place[section]
        place[last] = yaml.safe_load(value)
    written = folder / path.name
    written.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return written


def held(verb: str, name: str, seconds: float, groups: str | None, folder: Path) -> tuple[float, float, str]:
    """(wall seconds, CPU seconds, how it ended) of one run; ``folder`` is room for a file."""
    model, settings = (HARD | LARGE)[name]
    path = MODELS / f"{model}.yaml"
    if verb == "compare" and settings:
        # Its --set are cases: the sizes stand in a file.
        path, settings = sized(path, settings, folder), []
    command = [sys.executable, "-m", "rmab_opt.cli", verb, str(path), "--seconds", f"{seconds:g}"]
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
    if child.returncode == 2 and name in REFUSED.get(verb if groups is None else f"{verb} --groups", ()):
        ended = "refused"
    return wall, used.ru_utime + used.ru_stime, ended


def main() -> None:
    """One row a run; the exit code is 1 when one did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="every sixth model, two seconds")
    parser.add_argument("--seconds", type=float, default=5.0, help="limit of each run")
    parser.add_argument("--only", help="names of models, separated by semicolons")
    parser.add_argument("--out", type=Path, help="CSV file to record the runs in")
    given = parser.parse_args()
    seconds = 2.0 if given.quick else given.seconds
    names = list(HARD)[::6] if given.quick else [*HARD, *LARGE]
    names = names if given.only is None else [name for name in names if name in given.only.split(";")]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=MODELS
    )
    rows: list[list[object]] = []

    def keep() -> None:
        if given.out is not None:
            with given.out.open("w", newline="", encoding="utf-8") as file:
                head = ["verb", "model", "wall_seconds", "cpu_seconds", "held", "ended", "load", "commit"]
                csv.writer(file, lineterminator="\n").writerows([head, *rows])

    print(f"limit {seconds:g} s; load {os.getloadavg()[0]:.1f}")
    for name in names:
        for verb in VERBS:
            for groups in (None, GROUPED[name]) if name in GROUPED and verb != "check" else (None,):
                load = os.getloadavg()[0]
                with tempfile.TemporaryDirectory() as folder:
                    wall, cpu, ended = held(verb, name, seconds, groups, Path(folder))
                over = OVER_LARGE if name in LARGE else OVER
                ok = ended in ("ok", "refused") and min(wall, cpu) <= seconds + over
                said = verb if groups is None else f"{verb} --groups"
                row = [said, name, f"{wall:.2f}", f"{cpu:.2f}", "yes" if ok else "no", ended]
                rows.append([*row, f"{load:.1f}", commit.stdout.strip()])
                keep()
                print(f"{said:18}{name:26}{wall:>7.2f}{cpu:>7.2f}  {'' if ok else 'NOT HELD '}{ended}", flush=True)
    missed = sum(row[4] == "no" for row in rows)
    print(f"{len(rows) - missed} of {len(rows)} held")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
