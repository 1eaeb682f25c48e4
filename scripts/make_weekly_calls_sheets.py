"""Messy sheets of a programme for the demo: register, roster, call log, a week's outcomes. Seeded, no real persons.

`python scripts/make_weekly_calls_sheets.py` writes models/weekly_calls_sheets/.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent.parent / "models" / "weekly_calls_sheets"
TYPES = ("steady", "quick", "lasting")
CENTRE = np.array([[[0.15, 0.75], [0.40, 0.90]], [[0.10, 0.50], [0.70, 0.80]], [[0.05, 0.95], [0.50, 0.98]]])
VILLAGES = (("Basa", "north"), ("Chiru", "north"), ("Deva", "south"), ("Elim", "south"), ("Fóla", "south"))
SLOTS = ("mon-am", "mon-pm", "tue-am", "tue-pm")


def _write(name: str, rows: list[list[object]]) -> None:
    with (FOLDER / name).open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)


def main(n: int = 240, weeks: int = 16, seed: int = 4) -> None:
    """Write the four sheets."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    ids = [f"{k:04d}" for k in range(1, n + 1)]
    kind, village = rng.choice(3, n, p=(0.5, 0.3, 0.2)), rng.integers(0, len(VILLAGES), n)
    own = rng.normal(0, 0.6, n)
    logit = np.log(CENTRE / (1 - CENTRE))[kind] + own[:, None, None]
    up = 1 / (1 + np.exp(-logit))
    state, reach = (rng.random(n) < 0.5).astype(int), rng.random(n) > 0.1
    log: list[list[object]] = [["id", "week", "called", "listened"]]
    for week in range(1, weeks + 1):
        score = rng.gumbel(size=n) + 1.2 * (state == 0) - own / 0.6
        score[~reach] = -np.inf
        called = np.zeros(n, dtype=int)
        called[np.argsort(-score)[:24]] = 1
        for k in range(n):
            if rng.random() > 0.05:
                log.append([ids[k], week, ("No", "Yes")[called[k]], ("No", "Yes")[state[k]]])
        state = (rng.random(n) < up[np.arange(n), called, state]).astype(int)
    head = ["Family ID", "Village", "Region", "Type", "Distance", "Status", "Phone", "Slots"]
    register: list[list[object]] = [["Register, export of July", *[""] * 7], [""] * 8, head]
    for k in range(n):
        free = sorted(rng.choice(len(SLOTS), rng.integers(1, 4), replace=False))
        place, region = VILLAGES[village[k]]
        status = "" if rng.random() < 0.05 else ("away", "engaged")[state[k]]
        kilometres = f"{rng.uniform(1, 25):.1f} km".replace(".", ",")
        phone = f"0700 {k:03d} {rng.integers(100, 999)}" if reach[k] else ""
        register.append(
            [ids[k], place, region, TYPES[kind[k]], kilometres, status, phone, "; ".join(SLOTS[s] for s in free)]
        )
    register += [list(register[20]), [f"TOTAL: {n} families", *[""] * 7]]
    _write("register.csv", register)
    _write("call_log.csv", log)
    roster: list[list[object]] = [["Worker", "Slot", "Calls", "Region"]]
    for worker, region in (("Asha", "north"), ("Brij", "south"), ("Chin", ""), ("Divya", "south")):
        roster += [[worker, slot, 2, region] for slot in SLOTS[: 4 if region else 2]]
    _write("roster.csv", [*roster, ["Total", "", sum(int(str(row[2])) for row in roster[1:]), ""]])
    changes: list[list[object]] = [["id", "event", "from week", "to week", "village", "type", "state"]]
    changes += [["0241", "joined", 18, "", "Basa", "quick", "away"], ["0242", "joined", 18, "", "Deva", "steady", ""]]
    changes += [["0017", "left", 18, "", "", "", ""], ["0005", "paused", 18, 19, "", "", ""]]
    changes += [["0030", "moved", 18, "", "Elim", "", ""]]
    _write("changes.csv", changes)
    after = (rng.random(n) < up[np.arange(n), 0, state]).astype(int)
    seen = [["id", "done", "state"], *[[ids[k], "", ("away", "engaged")[after[k]]] for k in range(n)]]
    _write("seen.csv", seen)


if __name__ == "__main__":
    main()
