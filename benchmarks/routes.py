"""Orienteering through `decide`: instances made the way Chao's are, several limits, one and two vehicles; windows.

python benchmarks/routes.py --quick                  # a minute: 64 stops, three limits
python benchmarks/routes.py --record                 # all; writes benchmarks/data/routes.csv
python benchmarks/routes.py --record --only windows  # some of them; the others' rows stay
python benchmarks/routes.py --files FOLDER           # published files (`Tmax P`, then `x y score`), where you have them

Points lie on a lattice about the depot, a tenth of its spacing off at random, and bring 6 a ring from the centre. Steps
are tenths of the lattice's own unit, rounded up. Ten stops stand for what is listed. Towns with windows are drawn the
way Solomon's are: a square of 60 minutes' side, visits of 10 minutes, windows of 60 or 120 minutes on average, ways in
tenths of a minute that take longer uphill; scores 1 to 20. Beside routes stand quotas, least numbers or costs.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path as File

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import rmab_opt as ro
from rmab_opt.actions import ActionSet
from rmab_opt.actions.constraint import Constraint
from rmab_opt.actions.kinds import Knapsack, Linear, Path
from rmab_opt.actions.tours import collected
from rmab_opt.decisions import Model, Scores
from rmab_opt.problem import Arms, Problem, Table, Tabular
from rmab_opt.report import table_text

RECORD = File(__file__).parent / "data" / "routes.csv"

SPACING = 10
"""Steps between neighbours of the lattice."""

HUNDREDTHS = 100
"""Steps of a published file's unit."""


def lattice(n: int, shape: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(places (n, 2) in steps, scores (n,)) of the n lattice points nearest to the depot at 0, by rings."""
    rng = np.random.default_rng(seed)
    side = np.arange(-15, 16)
    points = np.array([(x, y) for x in side for y in side if shape == "square" or (x + y) % 2 == 0], dtype=float)
    ring = np.abs(points).max(axis=1) if shape == "square" else np.abs(points).sum(axis=1) / 2
    first = np.lexsort((rng.random(len(ring)), ring))[:n]
    place = points[first] * SPACING + rng.uniform(-0.1, 0.1, (n, 2)) * SPACING
    place[0] = 0.0
    return place, 6.0 * np.ceil(ring[first])


def published(folder: File) -> Iterator[tuple[str, np.ndarray, np.ndarray, int]]:
    """(name, places in steps, scores, limit in steps) of files whose routes end where they begin."""
    for file in sorted(folder.glob("*.txt")):
        rows = [[float(cell) for cell in line.split()] for line in file.read_text().splitlines() if line.strip()]
        points = np.array(rows[1:])
        if not np.array_equal(points[0, :2], points[1, :2]):
            print(f"{file.name}: begins and ends at different points, left out")
            continue
        points = np.delete(points, 1, axis=0)
        yield file.stem, points[:, :2] * HUNDREDTHS, points[:, 2], int(rows[0][0] * HUNDREDTHS)


TOWNS = (
    (51, 0, 60, 240, 1), (51, 1, 60, 240, 1), (51, 0, 120, 240, 1), (51, 0, 120, 240, 2), (101, 0, 60, 240, 1),
    (101, 1, 60, 240, 1), (101, 0, 60, 240, 2), (101, 0, 120, 240, 2), (101, 0, 60, 480, 1), (101, 0, 60, 480, 2),
    (101, 0, 120, 480, 1), (101, 2, 60, 480, 1), (101, 2, 120, 480, 2), (101, 2, 120, 480, 3),
)  # fmt: skip
"""(points, seed, mean width of the windows, minutes of the day, vehicles) of the towns with windows."""

GROUPED = 2
"""Seed of the towns that lie in groups."""


@dataclass(frozen=True)
class Town:
    """Visits with windows, drawn the way Solomon's are: minutes, a start at 0, a day that ends at ``length``."""

    place: np.ndarray
    scores: np.ndarray
    windows: np.ndarray
    """Earliest and latest begin, (n, 2)."""
    minutes: np.ndarray
    """From each to each, (n, n), tenths of a minute; uphill takes longer than downhill."""
    service: float


def town(n: int, seed: int, width: float, length: float, *, grouped: bool = False, service: float = 10.0) -> Town:
    """n points, the depot first, spread or in groups; windows of ``width`` minutes on average."""
    rng = np.random.default_rng([seed, n, int(width)])
    centres = rng.uniform(0, 60, (8, 2))
    spread = centres[rng.integers(0, 8, n)] + rng.normal(0, 4, (n, 2))
    place = np.clip(spread, 0, 60) if grouped else rng.uniform(0, 60, (n, 2))
    place[0] = 30.0
    far = np.linalg.norm(place[:, None] - place[None], axis=2)
    height = place[:, 1] / 60
    minutes = np.round(far * (1.0 + 0.3 * np.clip(height[None] - height[:, None], 0, None)) + 1.0, 1)
    centre, wide = rng.uniform(0, length - service, n), rng.uniform(0.5, 1.5, n) * width
    windows = np.round(np.stack([centre - wide / 2, centre + wide / 2], axis=1).clip(0, length))
    scores = rng.integers(1, 21, n).astype(float)
    scores[0] = 0.0
    return Town(place, scores, windows, minutes, service)


def town_model(given: Town, length: float, vehicles: int) -> Model:
    """One decision over routes in the windows of a town."""
    n = len(given.place)
    one, two = np.nonzero(~np.eye(n, dtype=bool))
    edges = {
        "from": [f"arm{k}" for k in one], "to": [f"arm{k}" for k in two], "one_way": ["yes"] * len(one),
        "minutes": given.minutes[one, two].tolist(),
    }  # fmt: skip
    arms = Arms.from_arrays(n, opens=given.windows[:, 0].tolist(), closes=given.windows[:, 1].tolist())
    route = Path(
        edges=Table(edges), depot="arm0", length=length, vehicles=vehicles, service=given.service, earliest="opens",
        latest="closes",
    )  # fmt: skip
    tables = Tabular(np.full((n, 2, 2, 2), 0.5), np.zeros((n, 2, 2)))
    start = np.zeros(n, dtype=int)
    return Model(Problem(arms, tables, start=start), ActionSet(arms, {"route": route}), Scores(given.scores))


BESIDE: dict[str, dict[str, Constraint]] = {
    "quota": {"quota": Linear(per="quarter", at_most=4)},
    "least": {"least": Linear(per="quarter", at_least=2)},
    "money": {"money": Knapsack(cost="cost", at_most=30)},
}
"""What holds beside the routes: numbers of stops in each quarter of the plane, costs of 1 to 3 with 30 to spend."""


def model_of(place: np.ndarray, scores: np.ndarray, length: int, vehicles: int, beside: str = "") -> Model:
    """One decision over routes, every point an arm; ``beside`` is one of :data:`BESIDE`."""
    n = len(place)
    steps = np.ceil(np.linalg.norm(place[:, None] - place[None], axis=2) - 1e-9).astype(int)
    one, two = np.triu_indices(n, 1)
    edges = {
        "from": [f"arm{k}" for k in one],
        "to": [f"arm{k}" for k in two],
        "minutes": np.maximum(steps[one, two], 1).tolist(),
    }
    quarters = [f"{'east' if x > 0 else 'west'} {'north' if y > 0 else 'south'}" for x, y in place]
    cost = np.random.default_rng(n).uniform(1, 3, n).round(1).tolist()
    arms = Arms.from_arrays(n, quarter=quarters, cost=cost)
    route = Path(edges=Table(edges), depot="arm0", length=length, vehicles=vehicles)
    actions = ActionSet(arms, {"route": route, **BESIDE.get(beside, {})})
    tables = Tabular(np.full((n, 2, 2, 2), 0.5), np.zeros((n, 2, 2)))
    return Model(Problem(arms, tables, start=np.zeros(n, dtype=int)), actions, Scores(scores), title="orienteering")


def run(name: str, model: Model, scores: np.ndarray, length: float, vehicles: int, seconds: float) -> dict[str, object]:
    """One row of the record."""
    task = model.actions.shape.orienteering
    assert task is not None
    begun = time.process_time()
    routes = collected(task, task.worth(scores), np.random.default_rng([0, len(scores)]), rounds=10 * len(scores))
    start, first = task.value(routes, scores), time.process_time() - begun
    begun = time.process_time()
    decision = ro.decide(model, seconds=seconds)
    spent = time.process_time() - begun
    again = decision.proof.seconds
    return {
        "instance": name,
        "stops": len(scores) - 1,
        "length": length,
        "vehicles": vehicles,
        "chosen": len(decision.chosen),
        "start": start,
        "start_cpu_seconds": round(first, 2),
        "value": round(decision.value, 6),
        "bound": round(decision.bound, 6),
        "gap_percent": round(100 * (decision.bound - decision.value) / decision.value, 3),
        "status": decision.status,
        "proof": decision.proof.kind,
        "cpu_seconds": round(spent, 2),
        "check_wall_seconds": round(again, 2),
        "proof_bytes": decision.proof.size,
    }


def instances(args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Model], np.ndarray, float, int]]:
    """(name, its model, scores, length, vehicles)."""

    def plain(name: str, place: np.ndarray, scores: np.ndarray, length: int, vehicles: int):
        return name, lambda: model_of(place, scores, length, vehicles), scores, length, vehicles

    if args.files:
        for name, place, scores, length in published(File(args.files)):
            yield plain(name, place, scores, length, 1)
        return
    yield plain("square 10", *lattice(11, "square", 0), 100, 1)
    shapes = [(64, "diamond"), (66, "square")] + ([] if args.quick else [(102, "diamond")])
    for n, shape in shapes:
        for seed in range(1 if args.quick else 2):
            place, scores = lattice(n, shape, seed)
            for length in (150, 250, 350) if args.quick else (150, 250, 350, 450, 600):
                yield plain(f"{shape} {n} seed {seed}", place, scores, length, 1)
    for length in () if args.quick else (150, 250):
        yield plain("diamond 64 seed 0", *lattice(64, "diamond", 0), length, 2)
        yield plain("diamond 102 seed 0", *lattice(102, "diamond", 0), length, 2)
    for beside in [*BESIDE][: 1 if args.quick else len(BESIDE)]:
        for n, length in ((33, 250), (64, 250), (102, 250))[: 1 if args.quick else 3]:
            place, scores = lattice(n, "diamond", 0)
            name = f"diamond {n} seed 0 {beside}"
            yield name, partial(model_of, place, scores, length, 1, beside), scores, length, 1
    for n, seed, width, length, vehicles in TOWNS[: 1 if args.quick else len(TOWNS)]:
        given = town(n, seed, width, length, grouped=seed == GROUPED)
        name = f"windows {n} seed {seed}{' grouped' if seed == GROUPED else ''} width {width}"
        yield name, partial(town_model, given, length, vehicles), given.scores, length, vehicles


def recorded(rows: list[dict[str, object]]) -> None:
    """Writes the rows; those of other instances stay as they are."""
    keys = ("instance", "length", "vehicles")
    with RECORD.open(newline="") as file:
        old = list(csv.DictReader(file))
    fresh = {tuple(str(row[key]) for key in keys): row for row in rows}
    kept: list[dict[str, object]] = [fresh.pop(tuple(row[key] for key in keys), dict(row)) for row in old]
    with RECORD.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([*kept, *fresh.values()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 and 66 points, three limits, one seed")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name}")
    parser.add_argument("--only", default="", help="instances whose name, with vehicles, holds one of these, by commas")
    parser.add_argument("--files", default="", help="folder of published files")
    parser.add_argument("--seconds", type=float, default=200.0, help="wall seconds a decision (200)")
    args = parser.parse_args()
    rows = []
    for name, made, scores, length, vehicles in instances(args):
        if not any(part in f"{name} vehicles {vehicles}" for part in args.only.split(",")):
            continue
        rows.append(run(name, made(), scores, length, vehicles, args.seconds))
        print(table_text(rows[-1:]), flush=True)
        if args.record:
            recorded(rows)
    done = [row for row in rows if row["status"] == "optimal"]
    print(f"{len(done)} of {len(rows)} proven; largest gap {max(float(str(row['gap_percent'])) for row in rows)} %")


if __name__ == "__main__":
    main()
