"""How much routes can bring at most: labels of walks by stop, time and memory, at prices of stops visited again.

A walk may come back to a stop that it no longer remembers; each visit pays the stop's price, and every price is earned
once. No route brings more than the best walk and all prices together. What no walk above the target passes, at a time
or from a stop, is left out for good, so that later walks have fewer ways to come back. Where few routes without a stop
twice are left, they are listed, and as many of them as there are vehicles are put together. See :func:`proven` and
:func:`searched`.

References
----------
Baldacci, Mingozzi, Roberti (2011) for the memories; Righini, Salani (2008) for letting them grow where walks repeat
stops; Irnich, Desaulniers, Desaulniers, Hadjar (2010) for leaving out what cannot be part of anything better; Baldacci,
Christofides, Mingozzi (2008) for listing what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rmab_opt.actions.tours import Orienteering, collected, tightened
from rmab_opt.actions.walks import EPS, MOST_CELLS, MOST_STEPS, Counts, Kept, Walks

__all__ = ["MOST_ROUNDS", "Labels", "proven", "searched"]

STEPS_OF_PRICES = 30
"""Walks after which what cannot be better is left out."""

PLAIN_ROUNDS = 4
"""Rounds before walks remember anything."""

NEAR = 4
"""Nearest stops that a stop's walks remember first."""

SLOWEST = 0.3
"""Pace of the prices with which a round begins at least, of Polyak's."""

LEAST_GAP = 5e-10
"""Of the value: what is better by less is not looked for."""

MOST_ROUNDS = 60
"""Rounds at most."""

UNKNOWN = 0.1
"""Share of the bound by which prices aim below it as long as no allowed choice is known."""

IDLE_ROUNDS = 5
"""Rounds without a gain, after which the search ends."""

MOST_REMEMBERED = 12
"""Stops that a stop's walks remember at most: each doubles its states."""

MOST_SOUGHT, ROUNDS_SOUGHT = 40, 30
"""Times that routes with an allowed choice are sought, and rounds of each."""

OFTEN = 0.3
"""Share of the walks that break a row before it is counted."""

MOST_LISTED, SOON_LISTED = 1_000_000, 60_000
"""Beginnings of routes that are listed at most, and those worth a try after every round."""

MOST_TOGETHER = 2_000_000
"""Routes that are put together at most."""

MOST_VALUED = 20_000
"""Of these, those that are valued one by one where sorting values them."""

MOST_CHOSEN = 200
"""Of these, those that are valued where choices have to be followed."""

FINEST = 1e-6
"""Part of the largest gain down to which gains are looked at for a common measure."""


@dataclass(frozen=True, eq=False)
class Labels:
    """What proves a bound, round by round.

    Parameters
    ----------
    prices
        Of the stops, the depot's being 0, and of the rows :attr:`~rmab_opt.actions.tours.Orienteering.far` from one
        stop, positive for upper limits and negative for lower ones, (rounds, k + 1 + R).
    joined
        Round from which on walks at a point remember another one, -1 for never, int16 (k + 1, k + 1).
    target
        What is left out is worth less.
    listed
        Whether the routes that are left after the last round are listed and put together.
    counted
        Round from which on walks count a row's columns, -1 for never, int16 (R,); by default no row's.
    """

    prices: np.ndarray
    joined: np.ndarray
    target: float
    listed: bool = False
    counted: np.ndarray | None = None


def proven(task: Orienteering, gain: np.ndarray, labels: Labels) -> float:
    """Upper limit of what any allowed choice of columns brings, rounded outward; found by the stored rounds alone.

    Parameters
    ----------
    gain
        Of each column, (C,).
    labels
        Of :func:`searched`, or anybody's: whatever they hold, the limit holds.
    """
    points, rows = len(task.between), 0 if task.far is None else len(task.far)
    if labels.prices.ndim != 2 or labels.prices.shape[1] != points + rows or labels.joined.shape != (points, points):
        return np.inf
    if not (np.isfinite(labels.prices).all() and (labels.prices[:, :points] >= 0).all()):
        return np.inf
    if not np.isfinite(labels.target):
        return np.inf
    counted = np.full(rows, -1, dtype=np.int16) if labels.counted is None else labels.counted
    if counted.shape != (rows,):
        return np.inf
    kept, bound = Kept(task), np.inf
    walks: Walks | None = None
    at_home = _at_home(task, gain, labels.target)
    for number, price in enumerate(labels.prices):
        memory = (labels.joined >= 0) & (labels.joined <= number)
        walks = Walks(task, memory, kept, np.flatnonzero((counted >= 0) & (counted <= number)))
        if not walks.fits:
            return np.inf
        bound, at_home = min(bound, walks.bound(gain, price)), min(at_home, walks.at_home)
        kept.narrow(walks, labels.target)
    if labels.listed and walks is not None and bound > labels.target:
        found = _together(walks, gain, labels.target, MOST_LISTED)
        bound = bound if found is None else min(bound, found[0])
    return _whole(task, max(bound, labels.target, at_home), gain)


def _at_home(task: Orienteering, gain: np.ndarray, least: float) -> float:
    """What the depot's own columns bring at most, or ``least``, rounded outward."""
    rows = task.beside
    if rows is None or rows.sorts:
        return task.value([], gain) * (1 + 4 * len(gain) * EPS)
    found = rows.most(task.members[0].astype(np.int64), gain, np.zeros(len(rows)), least)
    return found + 4 * len(gain) * EPS * abs(found)


def measure(gain: np.ndarray) -> float:
    """The largest number of which all gains at hand are exact multiples; 0 where it is too fine to help."""
    useful = np.unique(gain[gain > 0])
    if not len(useful):
        return 0.0
    finest = 2.0 ** np.floor(np.log2(FINEST * useful[-1]))
    # Division by a power of two and rounding are exact here: equality decides, no tolerance.
    counts = np.rint(useful / finest)
    if (counts * finest != useful).any():
        return 0.0
    common = float(np.gcd.reduce(counts.astype(np.int64)))
    return common * finest


def _measure(task: Orienteering, gain: np.ndarray) -> float:
    """:func:`measure` of the gains that a best choice may hold: losses are taken only where rows ask for them."""
    needed = task.beside is not None and not task.beside.growing.all()
    return measure(np.abs(gain) if needed else gain)


def _whole(task: Orienteering, bound: float, gain: np.ndarray) -> float:
    """The bound lowered to a multiple of the gains' measure."""
    step = _measure(task, gain)
    if step == 0.0 or not np.isfinite(bound):
        return bound
    return float(np.floor(bound / step + 4 * EPS * abs(bound / step)) * step)


def searched(
    task: Orienteering,
    gain: np.ndarray,
    routes: list[list[int]],
    rng: np.random.Generator,
    *,
    gap: float = 0.0,
    steps: int = MOST_STEPS,
    late: Callable[[], bool] = lambda: False,
) -> tuple[list[list[int]], Labels, float]:
    """(the best routes met, prices and memories that prove much, the limit that they prove).

    Parameters
    ----------
    gain
        Of each column, (C,).
    routes
        From point 0 and back, to begin with.
    rng
        Of the mending of walks.
    gap
        What the bound may lie above the best routes to end the search.
    steps
        Times by moves of a pass up to which memories and counts grow.
    late
        Whether the time is up; asked at every pass.
    """
    return _Searching(task, gain, routes, rng, gap, steps, late).run()


class _Searching:
    """The state of :func:`searched`."""

    def __init__(
        self,
        task: Orienteering,
        gain: np.ndarray,
        routes: list[list[int]],
        rng: np.random.Generator,
        gap: float,
        steps: int,
        late: Callable[[], bool],
    ) -> None:
        self.task, self.gain, self.routes, self.rng, self.gap, self.late = task, gain, routes, rng, gap, late
        self.steps = steps
        points = len(task.between)
        self.measure, self.kept = _measure(task, gain), Kept(task)
        self.value = task.value(routes, gain)
        self.joined = np.full((points, points), -1, dtype=np.int16)
        self.counted = np.full(0 if task.far is None else len(task.far), -1, dtype=np.int16)
        self.narrowed: float | None = None
        rows = np.zeros((0, 2)) if task.far is None else np.stack([task.far.lower, task.far.upper], axis=1)
        # A price lowers the limit only on a side that has one; a stop is passed once at most.
        self.least = np.append(np.zeros(points), np.where(np.isfinite(rows[:, 0]), -np.inf, 0.0))
        self.dearest = np.append(np.full(points, np.inf), np.where(np.isfinite(rows[:, 1]), np.inf, 0.0))
        self.price, self.bound, self.pace = np.zeros(len(self.least)), np.inf, 1.0
        self.pulls = np.zeros(len(self.least))
        self.near = False

    @property
    def target(self) -> float:
        """What is not worth more is left out; less than anything is worth until an allowed choice is known."""
        if not np.isfinite(self.value):
            return -float(np.abs(self.gain).sum()) - 1.0
        if self.measure:
            return max(self.value + (1 - 1e-6) * self.measure, self.value + self.gap)
        return self.value + max(self.gap, LEAST_GAP * abs(self.value))

    def run(self) -> tuple[list[list[int]], Labels, float]:
        """See :func:`searched`."""
        rounds: list[np.ndarray] = []
        walks: Walks | None = None
        idle = 0
        self._seek()
        while len(rounds) < MOST_ROUNDS and idle < IDLE_ROUNDS:
            looked = Walks(self.task, self.joined >= 0, self.kept, np.flatnonzero(self.counted >= 0))
            if not looked.fits:
                break
            walks, before = looked, self.bound
            passed = self._descend(walks)
            found = walks.bound(self.gain, self.price)
            rounds.append(self.price)
            self.bound = min(self.bound, found)
            if self.bound <= self.target or self.late():
                break
            gone = self.kept.narrow(walks, self.target)
            if self._list(walks, SOON_LISTED):
                break
            grown = self._grow(walks, passed, len(rounds)) if len(rounds) >= PLAIN_ROUNDS else 1
            lower = not np.isfinite(before) or self.bound < before - 1e-4 * abs(before)
            useful = lower or gone > 0.002 * self.kept.times.sum()
            idle = 0 if useful else idle + 1
            if not grown and not useful:
                break
        if walks is not None and self.narrowed is None and self.bound > self.target and not self.late():
            self.kept.narrow(walks, self.target)
            self._list(walks, MOST_LISTED, last=True)
        target = self.target if self.narrowed is None else self.narrowed
        prices = np.array(rounds).reshape(len(rounds), len(self.price))
        limit = _whole(self.task, max(self.bound, target), self.gain)
        return self.routes, Labels(prices, self.joined, target, self.narrowed is not None, self.counted), limit

    def _seek(self) -> None:
        """Routes with an allowed choice where the given ones have none: what rows lack is worth more every time."""
        far, gain = self.task.far, self.gain
        if np.isfinite(self.value) or far is None:
            return
        columns, where = self.task.at
        wanted = np.zeros(len(far))
        for _ in range(MOST_SOUGHT):
            if self.late():
                return
            worth = self.task.sought(gain, wanted)
            made = collected(self.task, worth, self.rng, rounds=ROUNDS_SOUGHT)
            self.value, self.routes = self.task.value(made, gain), made
            if np.isfinite(self.value):
                return
            passed = np.zeros(len(gain))
            passed[columns] = np.isin(where, [0, *(k for route in made for k in route)])
            lacking = far.matrix @ passed < far.lower
            wanted = np.where(lacking, 1.5 * wanted - float(np.abs(gain).max(initial=0.0)), 0.9 * wanted)

    def _list(self, walks: Walks, most: int, *, last: bool = False) -> bool:
        """Whether the routes that are left were put together and that settles it; the best of them are taken."""
        target = self.target
        found = _together(walks, self.gain, target, most)
        if found is None:
            return False
        value = self.task.value(found[1], self.gain)
        if value > self.value:
            self.routes, self.value = found[1], value
        if found[0] > self.target and not last:
            return False
        self.narrowed, self.bound = target, min(self.bound, found[0])
        return True

    def _descend(self, walks: Walks) -> list[list[int]]:
        """Prices moved along the walks' repeats (Polyak's steps); the walks seen."""
        self.pace = max(self.pace, SLOWEST)
        own, best, since = np.inf, self.price, 0
        price, seen = self.price, list[list[int]]()
        for number in range(STEPS_OF_PRICES):
            bound = walks.bound(self.gain, price)
            if not np.isfinite(own) or bound < own - 1e-9 * abs(own):
                own, best, since = bound, price, 0
            else:
                since += 1
            if own <= self.target or self.late():
                break
            walk = walks.walk()
            seen.append(walk)
            if number % 3 == 0:
                self._mend(walk)
            if since >= 5:
                self.pace, since, price = 0.6 * self.pace, 0, best
            pulls = self._pulls(walk, price)
            self.pulls = 0.7 * pulls + 0.3 * self.pulls
            size = float(self.pulls @ self.pulls)
            if size == 0.0:
                break
            aim = self.value if np.isfinite(self.value) else bound - UNKNOWN * abs(bound)
            step = self.pace * max(bound - aim, 0.0) / size
            price = np.clip(price + step * self.pulls, self.least, self.dearest)
        self.price = best
        return seen

    def _pulls(self, walk: list[int], price: np.ndarray) -> np.ndarray:
        """How the bound falls with each price at the walk, (k + 1 + R,)."""
        task, points = self.task, len(self.task.between)
        counts = task.vehicles * np.bincount(walk, minlength=points).astype(np.float64)
        pulls, counts[0] = counts - 1.0, 1.0
        pulls[0] = 0.0
        if task.far is not None:
            own, (columns, where) = price[points:], task.at
            times = np.zeros(len(self.gain))
            times[columns] = counts[where]
            pulls = np.append(pulls, task.far.pulls(times * task.picked(self.gain - task.far.priced(own)[0]), own))
        pulls[((price <= self.least) & (pulls < 0)) | ((price >= self.dearest) & (pulls > 0))] = 0.0
        return pulls

    def _mend(self, walk: list[int]) -> None:
        """Routes from a walk: each stop once, as many as fit, and what fits beside them."""
        task, worth = self.task, self.task.sought(self.gain, self.price[len(self.task.between) :])
        # A walk without its later visits to a stop is in time as well: no way round is shorter.
        route = tightened(task, [0, *dict.fromkeys(walk), 0])
        route = task.within([route], worth)[0]
        if len(route) < 3:
            return
        others = sorted(self.routes, key=lambda one: len({*one} & {*route}), reverse=True)[1:]
        kept = [[0, *(k for k in one if k not in {*route}), 0] for one in others]
        begun = task.within([route, *kept, *([[0, 0]] * task.vehicles)][: task.vehicles], worth)
        made = collected(task, worth, self.rng, rounds=3, begun=begun)
        value = task.value(made, self.gain)
        if value > self.value:
            self.routes, self.value = made, value

    def _grow(self, walks: Walks, passed: list[list[int]], number: int) -> int:
        """Memories of the stops between two visits of one, from the walks passed, or of a count; how many joined."""
        # Counts first: they multiply the states by little, and stops that are passed again are counted again.
        if self._count(walks, passed, number):
            return 1
        if 2 * walks.size > MOST_CELLS or 2 * walks.work > self.steps:
            return 0
        between, joined = self.task.between, 0
        if not self.near:
            self.near = True
            near = np.where(self.kept.moves, between, np.inf)
            near[:, 0] = np.inf
            for i in range(1, len(between)):
                first = np.argsort(near[i], kind="stable")[:NEAR]
                self.joined[i, first[np.isfinite(near[i, first])]] = number
            return int((self.joined == number).sum())
        states = 2.0 * walks.states + 200
        used = (self.joined >= 0).sum(axis=1)
        for walk in passed[::-1]:
            last: dict[int, int] = {}
            for place, k in enumerate(walk):
                for i in walk[last[k] + 1 : place] if k in last else []:
                    if self.joined[i, k] < 0 and used[i] < MOST_REMEMBERED and states > 0:
                        self.joined[i, k] = number
                        states -= (
                            float(np.count_nonzero(walks.point == i)) * 2.0 ** (self.joined[i] == number).sum() / 2
                        )
                        used[i] += 1
                        joined += 1
                last[k] = place
        return joined

    def _count(self, walks: Walks, passed: list[list[int]], number: int) -> bool:
        """Whether walks begin to count the row that they break most often, where they still can."""
        task, may = self.task, self.task.countable
        assert walks.counts is not None
        if may is None or not passed:
            return False
        far, (columns, where) = task.far, task.at
        assert far is not None
        inside = np.array([np.bincount(walk, minlength=len(task.between)) for walk in passed], dtype=np.float64)
        used = (far.matrix[:, columns] @ inside[:, where].T).T
        broken = np.where(may & (self.counted < 0), ((used > far.upper) | (used < far.lower)).mean(axis=0), 0.0)
        for row in np.argsort(-broken, kind="stable").tolist():
            if broken[row] < OFTEN:
                return False
            more = Counts.of(task, np.append(np.flatnonzero(self.counted >= 0), row))
            times = np.inf if more is None else more.size / walks.counts.size
            if times * walks.size <= MOST_CELLS and times * walks.work <= self.steps:
                self.counted[row] = number
                return True
        return False


@dataclass(frozen=True, eq=False)
class _Listed:
    """Routes that pass no stop twice and may be part of something above the target, one for every set of stops."""

    inside: np.ndarray
    """Whether a route passes a point, bool (M, k + 1)."""
    priced: np.ndarray
    """What it brings at the walks' prices, (M,), falling."""
    ends: list[tuple[int, int]]
    """Where it ends: (layer, number in it)."""
    layers: list[tuple[np.ndarray, np.ndarray]]
    """(last stop, number of the beginning before) of every beginning of so many stops."""

    def route(self, number: int) -> list[int]:
        """Points of a route, the depot first and last."""
        layer, k = self.ends[number]
        stops = list[int]()
        while layer >= 0:
            last, before = self.layers[layer]
            stops.append(int(last[k]))
            layer, k = layer - 1, int(before[k])
        return [0, *stops[::-1], 0]


def _listed(walks: Walks, room: float, most: int) -> _Listed | None:
    """Routes along kept moves worth ``room`` at the walks' prices; None where their beginnings are more than ``most``.

    Of the beginnings that pass the same stops and end at the same one, the one that begins its last visit first can be
    followed by whatever may follow the others.
    """
    kept, points = walks.kept, walks.kept.points
    between, opens, closes = (np.asarray(each) for each in (kept.between, walks.task.opens, walks.task.closes))
    words = -(-points // 64)
    word, bit = np.arange(points) // 64, np.uint64(1) << (np.arange(points) % 64).astype(np.uint64)
    last, clock, brought = np.zeros(1, dtype=np.int64), np.zeros(1), np.zeros(1)
    passed, count = np.zeros((1, words), dtype=np.uint64), 0
    layers, found = list[tuple[np.ndarray, np.ndarray]](), list[tuple[np.ndarray, np.ndarray, np.ndarray]]()
    if room <= 0.0:
        found.append((passed, np.zeros(1), np.array([[-1, 0]])))
    while len(last):
        if int(kept.moves.sum(axis=1)[last].sum()) > 8 * most:
            return None
        source, stop = np.nonzero(kept.moves[last])
        begin = np.maximum(clock[source] + between[last[source], stop], opens[stop])
        fresh = (passed[source, word[stop]] & bit[stop] == 0) & (begin <= closes[stop])
        source, stop, begin = source[fresh], stop[fresh], begin[fresh]
        worth = brought[source] + walks.worth[stop]
        useful = worth + walks.onward[begin.astype(np.int64), stop] >= room
        source, stop, begin, worth = source[useful], stop[useful], begin[useful], worth[useful]
        sets = passed[source]
        sets[np.arange(len(stop)), word[stop]] |= bit[stop]
        order = np.lexsort((begin, stop, *sets.T))
        own = np.column_stack([sets, stop.astype(np.uint64)])[order]
        if len(order):
            other = np.asarray((own[1:] != own[:-1]).any(axis=1))
            order = order[np.append(True, other)]
        last, clock, brought, passed = stop[order], begin[order], worth[order], sets[order]
        layers.append((last, source[order]))
        count += len(order)
        if count > most:
            return None
        good = np.flatnonzero(brought >= room)
        _, first = np.unique(passed[good], axis=0, return_index=True)
        ends = np.column_stack([np.full(len(first), len(layers) - 1), good[first]])
        found.append((passed[good[first]], brought[good[first]], ends))
    sets, priced, ends = (np.concatenate(each) for each in zip(*found, strict=True))
    order = np.argsort(-priced, kind="stable")
    inside = sets[order][:, word] & bit > 0
    return _Listed(inside, priced[order], [tuple(end) for end in ends[order].tolist()], layers)


def _together(walks: Walks, gain: np.ndarray, target: float, most: int) -> tuple[float, list[list[int]]] | None:
    """(what routes bring together at most, those routes) by a list of all that may; None where they are too many.

    The walks' prices and what :meth:`Walks.most_through` found are used; what is worth less than ``target`` is not
    looked for.
    """
    task, slack = walks.task, 2 * walks.slack
    listed = _listed(walks, target - walks.rest - slack, most)
    if listed is None:
        return None
    need, priced = target - walks.fixed - slack, listed.priced
    if not len(priced):
        return target, []
    plans, union, together = np.zeros((1, 0), dtype=np.int64), np.zeros((1, walks.kept.points), dtype=bool), np.zeros(1)
    for left in range(task.vehicles - 1, -1, -1):
        first = plans[:, -1] if plans.shape[1] else np.zeros(len(plans), dtype=np.int64)
        # The list falls: whoever joins stands between the last one that did and the first that brings too little.
        end = np.searchsorted(-priced, together + left * max(float(priced[0]), 0.0) - need, side="right")
        counts = np.maximum(end - first, 0)
        if int(counts.sum()) * walks.kept.points > 64 * MOST_TOGETHER:
            return None
        of = np.repeat(np.arange(len(plans)), counts)
        joins = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts) + first[of]
        plans = np.column_stack([plans[of], joins])
        union, together = union[of] | listed.inside[joins], together[of] + priced[joins]
    if not len(plans):
        return target, []
    value = np.minimum(_relaxed(task, gain, union, np.zeros_like(gain), 0.0), together + walks.fixed + slack)
    best = int(value.argmax())
    if task.far is not None:
        value = np.minimum(value, _relaxed(task, gain, union, walks.pays, walks.back) + slack)
        above = np.flatnonzero(value >= target)
        sorts = task.beside is not None and task.beside.sorts
        if len(above) > MOST_VALUED:
            return None
        if sorts:
            value = np.array([task.value([np.flatnonzero(union[k]).tolist()], gain) for k in above.tolist()])
            best = int(above[value.argmax()]) if len(above) else best
        else:
            # The dearest first: once one brings what the others can at most, it is the best.
            above, known = above[np.argsort(-value[above], kind="stable")], target
            for k in above[:MOST_CHOSEN].tolist():
                if value[k] <= known:
                    break
                value[k] = min(value[k], _within(walks, np.flatnonzero(union[k]), gain, known))
                best, known = (k, float(value[k])) if value[k] > known else (best, known)
    top = float(value.max(initial=-np.inf))
    bound = top + 4 * len(gain) * EPS * abs(top) if top > target else target
    routes, seen = list[list[int]](), set[int]()
    for number in plans[best].tolist():
        route = [k for k in listed.route(number)[1:-1] if k not in seen]
        seen |= {*route}
        routes += [[0, *route, 0]] if route else []
    return bound, routes


def _within(walks: Walks, points: np.ndarray, gain: np.ndarray, least: float) -> float:
    """What the columns of some points and the depot bring at most, or ``least``; at the walks' prices of rows."""
    task, price = walks.task, walks.price[walks.kept.points :]
    assert task.beside is not None
    every = np.zeros(len(task.beside))
    every[np.flatnonzero(task.priced)] = price
    columns = np.concatenate([task.members[k] for k in {0, *points.tolist()}]).astype(np.int64)
    return task.beside.most(columns, gain, every, least)


def _relaxed(task: Orienteering, gain: np.ndarray, union: np.ndarray, pays: np.ndarray, back: float) -> np.ndarray:
    """What sets of points bring at most where every column pays for the rows, (M,); ``union`` is bool (M, k + 1)."""
    worth = task.worth(gain - pays)
    at_depot, worth[0] = float(worth[0]), 0.0
    parts = np.array_split(union, 1 + len(union) // 100_000)
    return np.concatenate([part @ worth for part in parts]) + at_depot + back
