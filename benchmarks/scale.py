"""Verbs over settings and sizes: CPU seconds, memory and the growth exponent, each run in a process of its own.

    python benchmarks/scale.py [--quick] [--only SETTING,SETTING] [--out FILE]

A run that passes its limit is cut and stands as such: the exponent is then of the runs that ended. It is the slope of
log seconds over log arms, the larger of that between the smallest and the largest size and that between the two
largest; seconds as measured, start of Python included (the row ``start``; taking it off leaves noise where it is most
of a run).
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

MODELS = Path(__file__).resolve().parent.parent / "models"
"""The models that come along; their sizes are set on the command line."""

SETTINGS = {
    "budget": ("budget", ["constraints.budget.at_most={tenth}"]),
    "groups": (
        "budget",
        [
            "constraints.budget.at_most={tenth}",
            "problem.n_villages={villages}",
            "constraints.groups={{kind: linear, per: village, at_most: 40}}",
        ],
    ),
    "roster": ("scheduling", ["problem.n_workers=100", "constraints.budget.at_most={tenth}"]),
    "capacity": ("capacity", ["problem.n_workers=100"]),
}
"""Name to (model, further settings); a tenth of the arms and villages of 500 are filled in."""

VERBS = ("check", "decide", "record", "bound", "evaluate")
MORE = {
    "decide": ["--episodes", "0"],
    "evaluate": ["--policies", "myopic", "--episodes", "1", "--no-bound"],
}
"""What each verb is asked beside the model; `evaluate` and `bound` measure what a decision says of the horizon."""
QUICK, FULL = (100, 300, 1000), (1000, 10_000, 100_000)
QUICK_LIMIT, FULL_LIMIT = 20, 300


def measured(verb: str, setting: str, n_arms: int, limit: float) -> tuple[float, float, str]:
    """(CPU seconds, MB at most, how it ended) of one run; ``limit`` are CPU seconds."""
    model, more = SETTINGS[setting]
    sizes = {"tenth": max(1, n_arms // 10), "villages": max(2, n_arms // 500)}
    asked = [str(MODELS / f"{model}.yaml"), "--set", f"n_arms={n_arms}"]
    for entry in more:
        asked += ["--set", entry.format(**sizes)]
    run = [sys.executable, "-m", "rmab_opt.cli"]
    with tempfile.TemporaryDirectory() as folder:
        if verb != "record":
            return watched([*run, verb, *asked, *MORE.get(verb, [])], limit)
        # What is recorded is decided first, unmeasured.
        ledger, week = Path(folder) / "ledger", Path(folder) / "week.json"
        made = ["--ledger", str(ledger), "--new", "--out", str(week), "--episodes", "0"]
        if watched([*run, "decide", *asked, *made], limit)[2] != "ok":
            return 0.0, 0.0, "no decision to record"
        seen = Path(folder) / "seen.csv"
        seen.write_text("id,done,state\narm0,no,\n", encoding="utf-8")
        told = ["--ledger", str(ledger), "--decision", str(week), "--outcomes", str(seen)]
        return watched([*run, "record", *asked, *told], limit)


def watched(command: list[str], limit: float) -> tuple[float, float, str]:
    """(CPU seconds, MB at most, how it ended) of a command."""

    def cut() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit), math.ceil(limit) + 1))

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors, preexec_fn=cut)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
    seconds = used.ru_utime + used.ru_stime
    if child.returncode < 0 or seconds >= limit:
        ended = "cut"
    else:
        ended = "ok" if child.returncode == 0 else f"exit {child.returncode}: {(said or [''])[0][:60]}"
    return seconds, used.ru_maxrss / 1024, ended


def exponent(runs: list[tuple[int, float]]) -> float:
    """The larger slope of log seconds over log arms, from the first and from the last but one to the last; or nan."""
    ended = sorted(runs)
    if len(ended) < 2:
        return math.nan
    many, slow = ended[-1]
    return max(math.log(slow / fast) / math.log(many / few) for few, fast in (ended[0], ended[-2]))


def main() -> None:
    """One row a run, and the growth exponents after them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="to 1,000 arms, 20 CPU seconds a run")
    parser.add_argument("--only", help="names of settings, separated by commas")
    parser.add_argument("--out", type=Path, help="CSV file to record the runs in")
    given = parser.parse_args()
    sizes, limit = (QUICK, QUICK_LIMIT) if given.quick else (FULL, FULL_LIMIT)
    begun = perf_counter()
    idle = measured("check", "budget", 10, limit)[0]
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=MODELS
    )
    commit = asked.stdout.strip()
    rows: list[list[object]] = [["start", "none", 10, f"{idle:.2f}", "", "ok", "", commit]]

    def kept_so_far() -> None:
        if given.out is not None:
            with given.out.open("w", newline="", encoding="utf-8") as file:
                head = [["verb", "setting", "arms", "cpu_seconds", "megabytes", "ended", "load", "commit"]]
                csv.writer(file, lineterminator="\n").writerows([*head, *rows])

    print(f"a run of nothing: {idle:.2f} CPU s; load {os.getloadavg()[0]:.1f}")
    print(f"{'verb':8}{'setting':10}{'arms':>8}{'cpu_s':>9}{'MB':>8}  ended")
    chosen = list(SETTINGS) if given.only is None else given.only.split(",")
    # Verb by verb: the longest come last.
    for verb in VERBS:
        for setting in chosen:
            kept: list[tuple[int, float]] = []
            for n_arms in sizes:
                load = os.getloadavg()[0]
                seconds, memory, ended = measured(verb, setting, n_arms, limit)
                rows.append([verb, setting, n_arms, f"{seconds:.2f}", f"{memory:.0f}", ended, f"{load:.1f}", commit])
                print(f"{verb:8}{setting:10}{n_arms:>8}{seconds:>9.2f}{memory:>8.0f}  {ended}", flush=True)
                if ended == "cut":
                    break  # Larger ones would be cut as well.
                if ended == "ok":
                    kept.append((n_arms, seconds))
            growth = exponent(kept)
            rows.append([verb, setting, "exponent", f"{growth:.2f}", "", "", "", commit])
            kept_so_far()
            print(f"{verb:8}{setting:10}{'':>8}{'':>9}{'':>8}  exponent {growth:.2f}", flush=True)
    print(f"{perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
