"""Routes that collect much on the way: insertion, 2-opt and moved stops, taken apart and mended again and again.

Nothing is proven here; what is found is a start for :mod:`rmab_opt.actions.labels`, and the answer when time is short.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

__all__ = ["ROUNDS", "Orienteering", "collected", "shortened"]

ROUNDS = 2000
"""Times that routes are taken apart and mended: two to four seconds for a hundred stops."""

WORSE = 0.02
"""Share of the best value that a mended plan may lose and still be gone on from."""

BACK = 200
"""Rounds without a better plan after which the best one is taken up again."""

LONGEST_PART = 0.5
"""Share of a route that is taken out at most."""

TURNS_KEPT = 1e-9
"""Exchanges that save less are rounding."""


@dataclass(frozen=True, eq=False)
class Orienteering:
    """Stops that at most ``vehicles`` closed ways from point 0 may pass, each in at most ``length`` steps.

    Parameters
    ----------
    between
        Fewest steps from point to point, (k + 1, k + 1), the same in both directions; no way round is shorter.
    length
        Steps that one way may take.
    vehicles
        How many ways there are.
    most
        Columns that may be chosen in all; any number by default.
    members
        Columns at each point, (k + 1,); by default every point but the first is one.
    """

    between: np.ndarray
    length: int
    vehicles: int = 1
    most: int | None = None
    members: tuple[np.ndarray, ...] = ()

    def worth(self, gain: np.ndarray, price: float = 0.0) -> np.ndarray:
        """What each point brings when every column costs ``price``, (k + 1,); columns at a loss are left out."""
        over = np.maximum(gain - price, 0.0)
        return np.array([float(over[own].sum()) for own in self.members])

    @property
    def room(self) -> float:
        """Points that may be passed: as many as columns where each point has one, else any number."""
        single = all(len(own) <= 1 for own in self.members) and not (self.members and len(self.members[0]))
        return np.inf if self.most is None or not single else self.most

    def action(self, routes: list[list[int]], gain: np.ndarray) -> np.ndarray:
        """The best columns at the depot and on the routes, int64 (C,)."""
        passed = np.concatenate([self.members[k] for k in {0, *(k for route in routes for k in route)}])
        passed = passed[gain[passed] > 0]
        chosen = np.zeros(len(gain), dtype=np.int64)
        chosen[passed[np.argsort(-gain[passed], kind="stable")][: self.most]] = 1
        return chosen

    def steps(self, route: list[int]) -> float:
        """Steps of a route that begins and ends at point 0."""
        return float(self.between[route[:-1], route[1:]].sum())


def collected(
    task: Orienteering,
    gain: np.ndarray,
    rng: np.random.Generator,
    *,
    rounds: int = ROUNDS,
    begun: list[list[int]] | None = None,
    late: Callable[[], bool] = lambda: False,
) -> list[list[int]]:
    """Routes from point 0 and back that collect much; the best seen in ``rounds`` rounds (iterated local search).

    A round takes a part out of a route, shortens what is left and inserts by gain for added steps, with a random weight
    of the two; plans that lose little are gone on from.

    Parameters
    ----------
    task
        What a route is.
    gain
        Of each point, (k + 1,); points at no gain are not passed on purpose.
    rng
        Of every choice.
    rounds
        Rounds at most.
    begun
        Routes to begin from; empty ones by default.
    late
        Whether the time is up; asked once a round.
    """
    now = [[0, 0] for _ in range(task.vehicles)] if begun is None else [list(route) for route in begun]
    now = _filled(task, gain, now, 1.0, rng)
    best, top = now, _worth(task, gain, now)
    own, since = top, 0
    for _ in range(rounds):
        if late():
            break
        since += 1
        if since > BACK:
            now, own, since = best, top, 0
        mended = _filled(task, gain, _torn(now, rng), float(rng.uniform(0.5, 2.0)), rng)
        value = _worth(task, gain, mended)
        if value > top:
            best, top, since = mended, value, 0
        if value[0] >= own[0] or value[0] >= (1 - WORSE * rng.random()) * top[0]:
            now, own = mended, value
    return [route for route in best if len(route) > 2]


def _worth(task: Orienteering, gain: np.ndarray, routes: list[list[int]]) -> tuple[float, float]:
    """(what the routes collect, steps they leave): the more the better, in this order."""
    inside = [k for route in routes for k in route[1:-1]]
    return float(gain[inside].sum()), -sum(task.steps(route) for route in routes)


def _torn(routes: list[list[int]], rng: np.random.Generator) -> list[list[int]]:
    """The routes without a part of one of them."""
    routes = [list(route) for route in routes]
    full = [number for number, route in enumerate(routes) if len(route) > 2]
    if not full:
        return routes
    route = routes[full[int(rng.integers(len(full)))]]
    stops = len(route) - 2
    taken = 1 + int(rng.integers(max(1, int(LONGEST_PART * stops))))
    first = 1 + int(rng.integers(stops - taken + 1))
    del route[first : first + taken]
    return routes


def _filled(
    task: Orienteering, gain: np.ndarray, routes: list[list[int]], weight: float, rng: np.random.Generator
) -> list[list[int]]:
    """The routes shortened, and stops added where they bring most for their steps, until none has room."""
    for again in (False, True):
        routes = [shortened(route, task.between) for route in routes]
        if not _inserted(task, gain, routes, weight, rng) and again:
            break
    return routes


def _inserted(
    task: Orienteering, gain: np.ndarray, routes: list[list[int]], weight: float, rng: np.random.Generator
) -> bool:
    """Adds stops in place, the one with the largest gain**weight for its steps first; whether any was added."""
    between, added = task.between, False
    inside = {k for route in routes for k in route}
    open_ = np.array([k for k in np.flatnonzero(gain > 0).tolist() if k not in inside and k > 0], dtype=np.int64)
    pull = gain[open_] ** weight * rng.uniform(0.9, 1.1, len(open_))
    left = np.array([task.length - task.steps(route) for route in routes])
    room = task.room - sum(len(route) - 2 for route in routes)
    while len(open_) and room > 0:
        # All legs of all routes beside one another: what a stop would add in each, (legs, open).
        ends = np.array([[a, b, number] for number, r in enumerate(routes) for a, b in pairwise(r)])
        extra = between[ends[:, 0]][:, open_] + between[ends[:, 1]][:, open_]
        extra -= between[ends[:, 0], ends[:, 1]][:, None]
        extra[extra > left[ends[:, 2]][:, None]] = np.inf
        leg = extra.argmin(axis=0)
        least = extra[leg, np.arange(len(open_))]
        score = pull / (least + 1.0)
        k = int(score.argmax())
        if least[k] == np.inf:
            return added
        number, place = int(ends[leg[k], 2]), int(leg[k]) - int((ends[:, 2] < ends[leg[k], 2]).sum())
        routes[number].insert(place + 1, int(open_[k]))
        left[number] -= least[k]
        fits = least < np.inf
        fits[k] = False
        # A stop that fits nowhere now fits nowhere later in these routes: legs only get fuller.
        open_, pull = open_[fits], pull[fits]
        room, added = room - 1, True
    return added


def shortened(route: list[int], between: np.ndarray) -> list[int]:
    """A closed route through the same points that no exchange of two legs or move of up to three stops shortens.

    Parameters
    ----------
    route
        Begins and ends at the same point.
    between
        Steps, the same in both directions, (k, k).
    """
    way = np.array(route)
    while len(way) > 3:
        if _turn(way, between):
            continue
        moved = _moved(way, between)
        if moved is None:
            break
        way = moved
    return [int(k) for k in way]


def _turn(way: np.ndarray, between: np.ndarray) -> bool:
    """Turns a part of the way round, in place, where that shortens it most (2-opt); False where it does nowhere."""
    own = between[way[:-1], way[1:]]
    gain = own[:, None] + own[None, :]
    # Turning round what lies between legs i and j > i, (legs, legs).
    gain -= between[way[:-1, None], way[None, :-1]] + between[way[1:, None], way[None, 1:]]
    gain[np.tri(len(own), dtype=bool)] = 0.0
    at = int(gain.argmax())
    if gain.flat[at] <= TURNS_KEPT:
        return False
    i, j = divmod(at, len(own))
    way[i + 1 : j + 1] = way[i + 1 : j + 1][::-1]
    return True


def _moved(way: np.ndarray, between: np.ndarray) -> np.ndarray | None:
    """The way with one to three stops in a row moved, either way round, where that shortens it most (or-opt)."""
    best, found = TURNS_KEPT, None
    own = between[way[:-1], way[1:]]
    for size in range(1, min(3, len(way) - 3) + 1):
        first = np.arange(1, len(way) - size)
        last = first + size - 1
        saved = own[first - 1] + own[last] - between[way[first - 1], way[last + 1]]
        legs = np.arange(len(own))
        # A leg from or to a moved stop is no place to move to.
        near = (legs >= first[:, None] - 1) & (legs <= last[:, None])
        for turned in (False, True)[: 1 + (size > 1)]:
            head, tail = (last, first) if turned else (first, last)
            added = between[way[:-1][None], way[head][:, None]] + between[way[tail][:, None], way[1:][None]] - own
            gain = np.where(near, -np.inf, saved[:, None] - added)
            at = int(gain.argmax())
            if gain.flat[at] > best:
                best, found = float(gain.flat[at]), (size, at // len(own), at % len(own), turned)
    if found is None:
        return None
    size, i, leg, turned = found
    part = way[i + 1 : i + 1 + size]
    rest = np.concatenate([way[: i + 1], way[i + 1 + size :]])
    place = leg + 1 if leg < i else leg + 1 - size
    return np.concatenate([rest[:place], part[::-1] if turned else part, rest[place:]])
