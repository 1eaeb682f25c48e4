"""Routes that collect much on the way: insertion, 2-opt and moved stops, taken apart and mended again and again.

Nothing is proven here; what is found is a start for :mod:`rmab_opt.actions.labels`, and the answer when time is short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from rmab_opt.actions.side_rows import SideRows

__all__ = ["MOST_COUNTED", "ROUNDS", "Orienteering", "collected", "shortened", "through", "tightened"]

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

TRIES = 25
"""Exchanges that are held against windows, the best first, before a route counts as short."""

MOST_COUNTED = 5000
"""Combinations of what walks may have counted."""

MOST_HELD = 1_000_000
"""Rows times points that are held against each other while routes are sought."""

THROUGH_ROUNDS = 40
"""Rounds in which routes through all of some stops with windows are looked for where insertion finds none."""


@dataclass(frozen=True, eq=False)
class Orienteering:
    """Stops that at most ``vehicles`` closed ways from point 0 may pass, each in at most ``length`` steps.

    Parameters
    ----------
    between
        Fewest steps from the begin of a visit to the arrival at another stop, (k + 1, k + 1), whole numbers; what the
        visit itself takes is in them, and no way round is shorter.
    length
        Steps that one way may take.
    vehicles
        How many ways there are.
    members
        Columns at each point, (k + 1,).
    window
        Earliest and latest begin of each visit, (k + 1, 2), in steps after the start; who comes early waits. None: any
        time will do.
    beside
        What else the chosen columns have to satisfy.
    """

    between: np.ndarray
    length: int
    vehicles: int = 1
    members: tuple[np.ndarray, ...] = ()
    window: np.ndarray | None = None
    beside: SideRows | None = None

    @cached_property
    def opens(self) -> np.ndarray:
        """Earliest begin of each visit that a way can come to, (k + 1,); 0 at the start."""
        soonest = self.between[0].copy()
        soonest[0] = 0.0
        if self.window is not None:
            soonest[1:] = np.maximum(soonest[1:], self.window[1:, 0])
        return soonest

    @cached_property
    def closes(self) -> np.ndarray:
        """Latest begin of each visit from which a way is back in time, (k + 1,)."""
        last = self.length - self.between[:, 0]
        last[0] = self.length
        if self.window is not None:
            last[1:] = np.minimum(last[1:], self.window[1:, 1])
        return last

    @cached_property
    def moves(self) -> np.ndarray:
        """Moves (from, to) that a way may hold, bool (k + 1, k + 1).

        Visits that take no time at one place, at one moment, are made in the order of their numbers: another order
        brings nothing, and so no two moves lead round in no time.
        """
        kept = self.opens[:, None] + self.between <= self.closes[None, :]
        np.fill_diagonal(kept, False)
        at_once = (self.between == 0) & (self.between.T == 0)
        meet = np.maximum(self.opens[:, None], self.opens[None, :]) <= np.minimum(self.closes[:, None], self.closes)
        at_once[0], at_once[:, 0] = False, False
        return kept & ~(at_once & meet & np.tri(len(kept), k=-1, dtype=bool))

    @property
    def work(self) -> float:
        """Times by moves that a table of walks looks at, or times by points where these are more."""
        span = np.maximum(self.closes - self.opens + 1, 0.0)
        return max(float(span @ self.moves.sum(axis=0)), (self.length + 1.0) * len(span))

    @cached_property
    def turns(self) -> bool:
        """Whether every way may as well be gone the other way round."""
        return self.window is None and bool((self.between == self.between.T).all())

    def begins(self, route: Sequence[int]) -> np.ndarray | None:
        """When each visit of a route begins, as early as can be; None where one is too late, or the route."""
        opens, closes, between = self.opens, self.closes, self.between
        times, clock, at = [0.0], 0.0, route[0]
        for k in route[1:]:
            clock = max(clock + between[at, k], opens[k])
            if clock > closes[k]:
                return None
            times.append(clock)
            at = k
        return np.array(times) if clock + between[at, 0] <= self.length else None

    def fits(self, route: Sequence[int]) -> bool:
        """Whether a route that begins and ends at point 0 is in time everywhere."""
        return self.begins(route) is not None

    def insertions(self, routes: list[list[int]], stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What stops would add to each leg of the routes, infinite where they are late: (legs (L, 3), steps (L, S)).

        A leg is where it begins, where it ends, and the number of its route.
        """
        between = self.between
        legs = np.array([[a, b, number] for number, route in enumerate(routes) for a, b in pairwise(route)])
        to, on = between[legs[:, 0]][:, stops], between[:, legs[:, 1]][stops].T
        extra = to + on - between[legs[:, 0], legs[:, 1]][:, None]
        if self.window is None:
            left = np.array([self.length - self.steps(route) for route in routes])
            extra[extra > left[legs[:, 2]][:, None]] = np.inf
            return legs, extra
        begins, ends = zip(*(self._slack(route) for route in routes), strict=True)
        visit = np.maximum(np.concatenate(begins)[:, None] + to, self.opens[stops])
        late = (visit > self.closes[stops]) | (visit + on > np.concatenate(ends)[:, None])
        extra[late] = np.inf
        return legs, extra

    def _slack(self, route: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """(begin of each leg's first visit, latest arrival at its end from which the rest is in time)."""
        begins = self.begins(route)
        assert begins is not None
        last, ends = float(self.length), [float(self.length)]
        for a, b in zip(route[-2:0:-1], route[:1:-1], strict=True):
            last = min(self.closes[a], last - self.between[a, b])
            ends.append(last)
        return begins[:-1], np.array(ends[::-1])

    @cached_property
    def at(self) -> tuple[np.ndarray, np.ndarray]:
        """(columns that stand at a point, the point of each)."""
        none = np.zeros(0, dtype=np.int64)
        points = np.repeat(np.arange(len(self.members)), [len(own) for own in self.members])
        return np.concatenate([none, *self.members]).astype(np.int64), points

    @cached_property
    def near(self) -> SideRows | None:
        """Counts among the columns of one point each, which sorting there settles; None where there are none."""
        if self.beside is None:
            return None
        rows = self.beside.part(self._alone)
        return rows if len(rows) and rows.sorts else None

    @cached_property
    def far(self) -> SideRows | None:
        """The other rows: those that get a price; None where there are none."""
        if self.beside is None:
            return None
        rows = self.beside.part(self.priced)
        return rows if len(rows) else None

    @cached_property
    def priced(self) -> np.ndarray:
        """Which rows :attr:`far` holds, bool (R,)."""
        assert self.beside is not None
        return np.ones(len(self.beside), dtype=bool) if self.near is None else ~self._alone

    @cached_property
    def _alone(self) -> np.ndarray:
        """Rows that a choice can only break by columns of one point, bool (R,)."""
        assert self.beside is not None
        columns, points = self.at
        point = np.full(self.beside.matrix.shape[1], -1)
        point[columns] = points
        return np.array(
            [len({*point[self.beside.members(row)].tolist()} - {-1}) <= 1 for row in range(len(self.beside))],
            dtype=bool,
        )

    def picked(self, gain: np.ndarray) -> np.ndarray:
        """The columns that each point alone would have chosen, bool (C,); none at a loss."""
        columns = self.at[0]
        if self.near is not None:
            chosen = self.near.best(columns, gain)
            assert chosen is not None
            return chosen > 0
        chosen = np.zeros(len(gain), dtype=bool)
        chosen[columns] = gain[columns] > 0
        return chosen

    def worth(self, gain: np.ndarray) -> np.ndarray:
        """What each point brings by itself, (k + 1,)."""
        columns, points = self.at
        return np.bincount(points, np.where(self.picked(gain), gain, 0.0)[columns], minlength=len(self.between))

    @cached_property
    def held(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Upper limits that say by themselves which points are too many: (needs (H, k + 1), room (H,), rows of
        :attr:`far` (H,)).

        These are the ones about points of one column each; what stands at the depot can be left out later.
        """
        rows = self.far
        single = all(len(own) <= 1 for own in self.members[1:])
        if rows is None or not single or len(rows) * len(self.between) > MOST_HELD:
            return np.zeros((0, len(self.between))), np.zeros(0), np.zeros(0, dtype=np.int64)
        which = np.flatnonzero(rows.growing & np.isfinite(rows.upper))
        columns, points = self.at
        needs = np.zeros((len(which), len(self.between)))
        needs[:, points] = rows.matrix[which][:, columns].toarray()
        needs[:, 0] = 0.0
        return needs, rows.upper[which], which

    @cached_property
    def countable(self) -> np.ndarray | None:
        """Rows of :attr:`far` whose columns a walk can count, bool (R,); None where there are none.

        Counts by ones over points of one column each: whoever passes such a point chooses it, or need not pass it.
        """
        far = self.far
        if far is None or any(len(own) > 1 for own in self.members[1:]):
            return None
        ones = np.array([bool((far.matrix[[row]].data == 1.0).all()) for row in range(len(far))])
        high = np.where(np.isfinite(far.upper), far.upper, np.maximum(far.lower, 0.0))
        bound = np.isfinite(far.upper) | ((far.lower > 0) & (self.vehicles == 1))
        return ones & bound & (high < MOST_COUNTED)

    def sought(self, gain: np.ndarray, price: np.ndarray) -> np.ndarray:
        """What each point brings while routes are sought, (k + 1,): at the prices (R,) of rows that are not held."""
        if self.far is None or len(self.held[1]) == len(self.far):
            return self.worth(gain)
        price = price.copy()
        price[self.held[2]] = 0.0
        return self.worth(gain - self.far.priced(price)[0])

    def within(self, routes: list[list[int]], worth: np.ndarray) -> list[list[int]]:
        """The routes without points that :attr:`held` rows have no room for, those that bring least first."""
        needs, room, _ = self.held
        if not len(room):
            return routes
        stops = np.array([k for route in routes for k in route if k], dtype=np.int64)
        if (needs[:, stops].sum(axis=1) <= room).all():
            return routes
        left, kept = room.copy(), {0}
        for k in stops[np.argsort(-worth[stops], kind="stable")].tolist():
            if (needs[:, k] <= left).all():
                left -= needs[:, k]
                kept.add(k)
        return [[k for k in route if k in kept] for route in routes]

    def action(self, routes: list[list[int]], gain: np.ndarray) -> np.ndarray | None:
        """The best allowed columns at the depot and on the routes, int64 (C,); None where none was found."""
        passed = np.concatenate([self.members[k] for k in {0, *(k for route in routes for k in route)}])
        if self.beside is not None and len(self.beside):
            return self.beside.best(passed.astype(np.int64), gain)
        chosen = np.zeros(len(gain), dtype=np.int64)
        chosen[passed[gain[passed] > 0]] = 1
        return chosen

    def value(self, routes: list[list[int]], gain: np.ndarray) -> float:
        """What :meth:`action` brings; minus infinity where none was found."""
        action = self.action(routes, gain)
        return -np.inf if action is None else float(gain @ action)

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
        routes = [tightened(task, route) for route in routes]
        if not _inserted(task, gain, routes, weight, rng) and again:
            break
    return routes


def _inserted(
    task: Orienteering, gain: np.ndarray, routes: list[list[int]], weight: float, rng: np.random.Generator
) -> bool:
    """Adds stops in place, the one with the largest gain**weight for its steps first; whether any was added."""
    added = False
    inside = {k for route in routes for k in route}
    open_ = np.array([k for k in np.flatnonzero(gain > 0).tolist() if k not in inside and k > 0], dtype=np.int64)
    pull = gain[open_] ** weight * rng.uniform(0.9, 1.1, len(open_))
    needs, room, _ = task.held
    room = room - needs[:, [k for route in routes for k in route]].sum(axis=1)
    while len(open_):
        free = (needs[:, open_] <= room[:, None]).all(axis=0)
        open_, pull = open_[free], pull[free]
        if not len(open_):
            return added
        # All legs of all routes beside one another: what a stop would add in each, (legs, open).
        ends, extra = task.insertions(routes, open_)
        leg = extra.argmin(axis=0)
        least = extra[leg, np.arange(len(open_))]
        score = pull / (least + 1.0)
        k = int(score.argmax())
        if least[k] == np.inf:
            return added
        number, place = int(ends[leg[k], 2]), int(leg[k]) - int((ends[:, 2] < ends[leg[k], 2]).sum())
        routes[number].insert(place + 1, int(open_[k]))
        room = room - needs[:, open_[k]]
        fits = least < np.inf
        fits[k] = False
        # A stop that fits nowhere now fits nowhere later in these routes: legs only get fuller.
        open_, pull = open_[fits], pull[fits]
        added = True
    return added


def through(task: Orienteering) -> list[list[int]] | None:
    """Routes through all stops, without the depot, by cheapest insertion; None where that fails.

    The farthest stop goes first, or the one that closes first. With windows, routes that collect as many stops as they
    can are tried as well.
    """
    stops, windows = np.arange(1, len(task.between)), task.window is not None
    routes = [[0, 0] for _ in range(task.vehicles)]
    late = task.closes[stops] if windows else -task.between[0, stops]
    for stop in stops[np.argsort(late, kind="stable")].tolist():
        for again in (False, True):
            if again:
                routes = [tightened(task, route) for route in routes]
            legs, extra = task.insertions(routes, np.array([stop]))
            leg = int(extra[:, 0].argmin())
            if extra[leg, 0] < np.inf:
                break
        else:
            break
        number = int(legs[leg, 2])
        routes[number].insert(leg - int((legs[:, 2] < number).sum()) + 1, stop)
    if windows and sum(len(route) - 2 for route in routes) < len(stops):
        gain = np.append(0.0, np.ones(len(stops)))
        routes = collected(task, gain, np.random.default_rng(0), rounds=THROUGH_ROUNDS)
    found = [route[1:-1] for route in routes if len(route) > 2]
    return found if sum(map(len, found)) == len(stops) else None


def tightened(task: Orienteering, route: list[int]) -> list[int]:
    """:func:`shortened` within the task's windows."""
    return shortened(route, task.between, None if task.window is None else task.fits)


def shortened(route: list[int], between: np.ndarray, fits: Callable[[Sequence[int]], bool] | None = None) -> list[int]:
    """A closed route through the same points that no exchange of two legs or move of up to three stops shortens.

    Parameters
    ----------
    route
        Begins and ends at the same point.
    between
        Steps, (k, k).
    fits
        What a shorter route has to pass as well; the best exchanges are tried.
    """
    way, tries = np.array(route), 1 if fits is None else TRIES
    while len(way) > 3:
        for better in (_turned, _moved):
            found = next((one for one in better(way, between, tries) if fits is None or fits(one.tolist())), None)
            if found is not None:
                way = found
                break
        else:
            break
    return [int(k) for k in way]


def _largest(gain: np.ndarray, tries: int) -> list[int]:
    """Positions of the largest gains beyond rounding, largest first, in the flat array."""
    flat = gain.ravel()
    if tries == 1:
        best = np.array([int(flat.argmax())])
    else:
        best = np.argpartition(-flat, min(tries, len(flat) - 1))[:tries]
        best = best[np.argsort(-flat[best], kind="stable")]
    return best[flat[best] > TURNS_KEPT].tolist()


def _inner(way: np.ndarray, between: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(steps of each leg, what the legs before each stop cost more when gone the other way)."""
    own = between[way[:-1], way[1:]]
    return own, np.append(0.0, np.cumsum(between[way[1:], way[:-1]] - own))


def _turned(way: np.ndarray, between: np.ndarray, tries: int) -> Iterator[np.ndarray]:
    """The way with a part of it turned round, where that shortens it most first (2-opt)."""
    own, more = _inner(way, between)
    gain = own[:, None] + own[None, :]
    # Turning round what lies between legs i and j > i, (legs, legs).
    gain -= between[way[:-1, None], way[None, :-1]] + between[way[1:, None], way[None, 1:]]
    gain -= more[None, :-1] - more[1:, None]
    gain[np.tri(len(own), dtype=bool)] = 0.0
    for at in _largest(gain, tries):
        i, j = divmod(at, len(own))
        yield np.concatenate([way[: i + 1], way[i + 1 : j + 1][::-1], way[j + 1 :]])


def _moved(way: np.ndarray, between: np.ndarray, tries: int) -> Iterator[np.ndarray]:
    """The way with one to three stops in a row moved, either way round, where that shortens it most first (or-opt)."""
    own, more = _inner(way, between)
    found = list[tuple[float, int, int, int, bool]]()
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
            if turned:
                added = added + (more[last] - more[first])[:, None]
            gain = np.where(near, -np.inf, saved[:, None] - added)
            found += [(float(gain.flat[at]), size, *divmod(at, len(own)), turned) for at in _largest(gain, tries)]
    # Of equal ones the first found, as without windows.
    for _, size, i, leg, turned in sorted(found, key=lambda one: -one[0])[:tries]:
        part = way[i + 1 : i + 1 + size]
        rest = np.concatenate([way[: i + 1], way[i + 1 + size :]])
        place = leg + 1 if leg < i else leg + 1 - size
        yield np.concatenate([rest[:place], part[::-1] if turned else part, rest[place:]])
