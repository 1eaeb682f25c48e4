"""Writes the tables of models/weekly_calls: a seeded cohort as a programme would export it.

Families differ in how they respond to a call. "quick" ones come at once and slip back at once, so that a
planner who looks one week ahead calls them again and again; "lasting" ones come more slowly and stay.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent.parent / "models" / "weekly_calls"
N_FAMILIES = 240
STATES = ("away", "wavering", "engaged")
SLOTS = ("mon-am", "mon-pm", "tue-am", "tue-pm", "wed-am", "wed-pm")
VILLAGES = {"Amari": "north", "Basa": "north", "Chiru": "north", "Deva": "south", "Elim": "south", "Fola": "south"}
TYPES = {"steady": 0.2, "quick": 0.3, "lasting": 0.3, "distant": 0.2}

# Probabilities of (away, wavering, engaged) next week, by type, state and call.
MOVES = {
    "steady": {
        "away": ((0.55, 0.40, 0.05), (0.35, 0.50, 0.15)),
        "wavering": ((0.10, 0.55, 0.35), (0.05, 0.45, 0.50)),
        "engaged": ((0.02, 0.13, 0.85), (0.02, 0.08, 0.90)),
    },
    "quick": {
        "away": ((0.85, 0.14, 0.01), (0.30, 0.30, 0.40)),
        "wavering": ((0.45, 0.50, 0.05), (0.10, 0.15, 0.75)),
        "engaged": ((0.20, 0.55, 0.25), (0.05, 0.15, 0.80)),
    },
    "lasting": {
        "away": ((0.95, 0.05, 0.00), (0.60, 0.39, 0.01)),
        "wavering": ((0.20, 0.78, 0.02), (0.05, 0.50, 0.45)),
        "engaged": ((0.00, 0.03, 0.97), (0.00, 0.01, 0.99)),
    },
    "distant": {
        "away": ((0.97, 0.03, 0.00), (0.80, 0.20, 0.00)),
        "wavering": ((0.40, 0.58, 0.02), (0.20, 0.60, 0.20)),
        "engaged": ((0.05, 0.25, 0.70), (0.02, 0.13, 0.85)),
    },
}


def write(name: str, note: str, header: list[str], rows: list[list[object]]) -> None:
    """One CSV file with a note on its first line."""
    with (FOLDER / name).open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {note}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main() -> None:
    """Write the four tables."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20260807)
    ids = [f"p{number:03d}" for number in range(1, N_FAMILIES + 1)]
    villages = rng.choice(list(VILLAGES), N_FAMILIES, p=[0.22, 0.18, 0.12, 0.2, 0.16, 0.12])
    types = rng.choice(list(TYPES), N_FAMILIES, p=list(TYPES.values()))
    families = []
    for name, village, kind in zip(ids, villages, types, strict=True):
        slots = sorted(rng.choice(len(SLOTS), rng.integers(1, 4), replace=False))
        minutes = int(rng.choice([10, 15, 20, 30]))
        families.append([name, village, VILLAGES[village], kind, ";".join(SLOTS[k] for k in slots), minutes])
    write(
        "arms.csv",
        "One row a family. slots: when somebody can be reached; minutes: length of a call.",
        ["id", "village", "region", "type", "slots", "minutes"],
        families,
    )
    workers = [
        ("asha", "north"),
        ("bina", "north"),
        ("chand", "south"),
        ("dipti", "south"),
        ("esha", ""),
        ("farid", ""),
    ]
    roster = []
    for worker, region in workers:
        for k in sorted(rng.choice(len(SLOTS), 3, replace=False)):
            roster.append([worker, SLOTS[k], 2, region])
    write(
        "roster.csv",
        "One row a worker on duty in a slot. calls: how many in that slot; region: empty serves both.",
        ["worker", "slot", "calls", "region"],
        roster,
    )
    write(
        "transitions.csv",
        "Where a family is next week, by type, state and whether it is called (action 1); each row sums to one.",
        ["type", "state", "action", *STATES],
        [[kind, state, action, *MOVES[kind][state][action]] for kind in TYPES for state in STATES for action in (0, 1)],
    )
    state = rng.choice(STATES, N_FAMILIES, p=[0.35, 0.4, 0.25])
    write(
        "monday.csv",
        "Each family's state this Monday.",
        ["id", "state"],
        [list(row) for row in zip(ids, state, strict=True)],
    )


if __name__ == "__main__":
    main()
