"""Routes with service times, windows, one-way roads and parts of minutes: every part agrees with trying every order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from strategies import problem_for

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Path, path
from rmab_opt.actions.labels import Labels, proven, searched
from rmab_opt.actions.tours import Orienteering, collected, through
from rmab_opt.decisions import Chooser, Scores
from rmab_opt.decisions.proof import recheck
from rmab_opt.decisions.scale import scaled
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.problem import Arms, Table


@dataclass
class Town:
    """Roads between villages, minutes in quarters, and families with service and windows; village 0 is the depot."""

    roads: list[dict]
    home: list[str]
    service: list[float]
    earliest: list[float]
    latest: list[float]
    length: float
    vehicles: int

    def set(self, scale: float = 1.0, order: list[int] | None = None, **more) -> ActionSet:
        order = list(range(len(self.home))) if order is None else order
        roads = [road | {"minutes": road["minutes"] * scale} for road in self.roads]
        cells = {
            "village": self.home, "visit": [scale * t for t in self.service],
            "opens": [scale * t for t in self.earliest],
            "closes": ["" if t == np.inf else scale * t for t in self.latest],
        }  # fmt: skip
        table = {"id": [f"f{k}" for k in order]} | {name: [row[k] for k in order] for name, row in cells.items()}
        rule = Path(
            edges=roads, depot="v0", length=self.length * scale, vehicles=self.vehicles, point="village",
            service="visit", earliest="opens", latest="closes",
        )  # fmt: skip
        return ActionSet(Arms.read(Table(table, source="families")), {"way": rule, **more})

    def fits(self) -> np.ndarray:
        """Which sets of families can be visited, bool (2**n,), by trying every order of every vehicle."""
        names = sorted({road[end] for road in self.roads for end in ("from", "to")})
        place = {name: k for k, name in enumerate(names)}
        way = np.full((len(names), len(names)), np.inf)
        np.fill_diagonal(way, 0.0)
        for road in self.roads:
            i, j = place[road["from"]], place[road["to"]]
            way[i, j] = min(way[i, j], road["minutes"])
            if road["one_way"] != "yes":
                way[j, i] = min(way[j, i], road["minutes"])
        for k in range(len(names)):
            way = np.minimum(way, way[:, k, None] + way[None, k])
        depot, n = place["v0"], len(self.home)
        at = [place[name] for name in self.home]
        away = [k for k in range(n) if at[k] != depot]
        here = sum(1 << k for k in range(n) if at[k] == depot)
        one = np.zeros(1 << n, dtype=bool)

        def onward(point: int, clock: float, done: int) -> None:
            if clock + way[point, depot] <= self.length:
                one[done | here] = True
            for k in away:
                if done >> k & 1:
                    continue
                begin = max(clock + way[point, at[k]], self.earliest[k])
                if begin <= self.latest[k] and begin + self.service[k] + way[at[k], depot] <= self.length:
                    onward(at[k], begin + self.service[k], done | 1 << k)

        onward(depot, 0.0, 0)
        every = one.copy()
        for _ in range(self.vehicles - 1):
            sets = np.flatnonzero(every)[:, None] | np.flatnonzero(one)[None]
            every[sets.ravel()] = True
        for k in range(n):
            pair = every.reshape(-1, 2, 1 << k)
            pair[:, 0] |= pair[:, 1]
        return every


def town(seed: int, families: int = 0) -> Town:
    rng = np.random.default_rng(seed)
    n = families or int(rng.integers(2, 7))
    villages = int(rng.integers(2, min(n, 5) + 2))
    pairs = [(i, j) for i in range(villages) for j in range(villages) if i != j]
    roads = [(k, k - 1, False) for k in range(1, villages)] + [
        (*pairs[k], True) for k in rng.permutation(len(pairs))[: int(rng.integers(0, 2 * villages))].tolist()
    ]
    seen, kept = set(), []
    for i, j, single in roads:
        if (i, j) not in seen:
            minutes = float(rng.integers(1, 20)) / 4
            kept.append({"from": f"v{i}", "to": f"v{j}", "minutes": minutes, "one_way": "yes" if single else ""})
            seen |= {(i, j)} if single else {(i, j), (j, i)}
    length = float(rng.integers(20, 80)) / 4
    earliest = np.where(rng.random(n) < 0.5, rng.integers(0, 30, n) / 4, 0.0)
    latest = np.where(rng.random(n) < 0.5, earliest + rng.integers(0, 30, n) / 4, np.inf)
    service = np.where(rng.random(n) < 0.6, rng.integers(0, 10, n) / 4, 0.0)
    home = [f"v{k}" for k in rng.integers(0, villages, n)]
    return Town(kept, home, service.tolist(), earliest.tolist(), latest.tolist(), length, int(rng.integers(1, 3)))


def bits(n: int) -> np.ndarray:
    """Every action, (2**n, n), column k being bit k."""
    return np.arange(1 << n)[:, None] >> np.arange(n) & 1


def chooser(actions: ActionSet, gain: np.ndarray, **how) -> Chooser:
    return Chooser(problem_for(actions.columns.arms, np.random.default_rng(0)), actions, Scores(gain), "exact", **how)


def agrees(seed: int, *, program: bool) -> None:
    given = town(seed)
    actions, fits, every = given.set(), given.fits(), bits(len(given.home))
    for action, right in zip(every, fits, strict=True):
        assert (not actions.violations(action)) == right, (seed, action)
        if right:
            rows = actions.assignment(action)
            assert actions.misassigned(rows, action) is None
    gain = np.random.default_rng(seed).normal(0.5, 1.0, len(given.home)).round(2)
    best = float((every @ gain)[fits].max())
    decision = chooser(actions, gain, many=False).decide(np.zeros(len(gain), dtype=int))
    assert decision.value == pytest.approx(best, abs=1e-9), seed
    assert decision.status == "optimal"
    if program:
        solved = chooser(actions, gain, method="program").decide(np.zeros(len(gain), dtype=int))
        assert solved.value == pytest.approx(best, abs=1e-7), seed
        assert actions.agreement().fault is None


@pytest.mark.parametrize("seed", range(12))
def test_check_list_and_program_say_what_every_order_says(seed):
    agrees(seed, program=seed < 6)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_check_list_and_program_say_what_every_order_says_often(part):
    for seed in range(100 + 20 * part, 120 + 20 * part):
        agrees(seed, program=True)
