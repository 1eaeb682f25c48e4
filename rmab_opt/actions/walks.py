"""The best walks through stops by arrival, stop and memory: tables that prices are held against.

A walk may come back to a stop that it does not remember, and may count what it passes of some rows.
:mod:`rmab_opt.actions.labels` finds prices, memories and rows to count, and says where these come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from rmab_opt.actions.tours import MOST_COUNTED, Orienteering

__all__ = ["EPS", "MOST_CELLS", "MOST_STEPS", "Counts", "Kept", "Walks"]

EPS = float(np.finfo(np.float64).eps)

MOST_CELLS = 20_000_000
"""Times by states of one pass: 160 MB."""

MOST_STEPS = 120_000_000
"""Times by moves of one pass: under a second, and 1 GB where nothing is left out."""

MOST_MOVES = 30_000_000
"""Moves between states, reached or not."""


class Kept:
    """Moves and begins of visits that may be part of a route above the target."""

    def __init__(self, task: Orienteering) -> None:
        self.between, self.length, self.turns = task.between.astype(np.int64), task.length, task.turns
        self.points = len(self.between)
        self.moves = task.moves.copy()
        self.moves[:, 0] = False
        times = np.arange(self.length + 1)[:, None]
        self.times = (times >= task.opens) & (times <= task.closes)
        self.times[:, 0] = False

    def narrow(self, walks: Walks, target: float) -> int:
        """Leaves out what no walk above the target holds; how many times and moves went."""
        before = int(self.times.sum()) + int(self.moves.sum())
        times, moves = walks.most_through()
        room = target - walks.rest - walks.slack
        self.times &= times >= room
        self.moves &= moves >= room
        if self.turns:
            # What no way holds in one direction none holds in the other.
            self.moves[1:, 1:] &= self.moves[1:, 1:].T
        return before - int(self.times.sum()) - int(self.moves.sum())


class Walks:
    """The best walks by cell: when a visit begins, its point, and which of the stops remembered there were passed.

    Parameters
    ----------
    memory
        Whether walks at a point remember another, (k + 1, k + 1).
    kept
        Moves and times that are looked at.
    counted
        Rows of :attr:`~rmab_opt.actions.tours.Orienteering.far` whose columns walks count, (Q,).
    """

    def __init__(self, task: Orienteering, memory: np.ndarray, kept: Kept, counted: np.ndarray) -> None:
        self.task, self.kept, self.length = task, kept, task.length
        self.memory = [np.flatnonzero(row).tolist() for row in memory]
        self.counts = Counts.of(task, counted)
        self.states, self.moves, self.fits = 0, (np.zeros(0, dtype=np.int64),) * 3, False
        if self.counts is None:
            return
        # Counted before anything is made: a file may ask for more memories than any machine has room for.
        moves = sum((1 << len(own)) * int(row.sum()) for own, row in zip(self.memory, kept.moves, strict=True))
        if moves * self.counts.size > MOST_MOVES:
            return
        self._reach(*self._moves())
        self.fits = self.work <= MOST_STEPS and self.size <= MOST_CELLS
        if self.fits:
            self._expand()

    def _reach(self, source: np.ndarray, state: np.ndarray, steps: np.ndarray) -> None:
        """Keeps the states that are reached from the depot, numbered anew, and the moves between them by target."""
        reached = np.zeros(1 + int(max(source.max(initial=0), state.max(initial=0))), dtype=bool)
        reached[0], count = True, 0
        while count < (count := int(reached.sum())):
            reached[state[reached[source]]] = True
        number, inside = np.cumsum(reached) - 1, reached[source]
        self.states, self.point = int(reached.sum()), self._stop_of[: len(reached)][reached]
        self.enough = self._enough[: len(reached)][reached]
        state = number[state[inside]]
        order = np.argsort(state, kind="stable")
        self.moves = (number[source[inside]][order], state[order], steps[inside][order])
        kept = self.kept.times
        self.first, self.span = kept.argmax(axis=0), np.where(kept.any(axis=0), 1 + np.ptp(_ends(kept), axis=0), 0)
        self.first[0], self.span[0] = 0, 1
        # Visits that take no time and lie at one place follow each other at one moment, level by level.
        task = self.task
        meet = np.maximum(task.opens[:, None], task.opens) <= np.minimum(task.closes[:, None], task.closes)
        self.level = _levels(self.kept.moves & (self.kept.between == 0) & meet)
        self.at_once = max(1, int(steps.min(initial=self.length + 1)))

    @property
    def size(self) -> int:
        """Times by states, as far as they may be part of a route."""
        return int(self.span[self.point].sum())

    @property
    def work(self) -> int:
        """Times by moves."""
        return int(self.span[self.point[self.moves[1]]].sum())

    def _moves(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(from state, to state, steps) of every move between all states, numbered point by point.

        A point's states are numbered by what is remembered there, and within that by what was counted.
        """
        assert self.counts is not None
        counts = self.counts.size
        sizes = [(1 << len(own)) * counts for own in self.memory]
        start = np.concatenate([[0], np.cumsum(sizes)])
        self._stop_of = np.repeat(np.arange(len(sizes)), sizes)
        self._enough = np.tile(self.counts.enough, int(start[-1]) // counts)
        place = [{k: bit for bit, k in enumerate(own)} for own in self.memory]
        none = np.zeros(0, dtype=np.int64)
        parts = [(none, none, none)]
        for j, own in enumerate(self.memory):
            subsets = np.arange(1 << len(own))
            for i in np.flatnonzero(self.kept.moves[j]).tolist():
                free = subsets if i not in place[j] else subsets[(subsets >> place[j][i] & 1) == 0]
                passed = np.zeros(len(free), dtype=np.int64)
                for bit, k in enumerate(self.memory[i]):
                    if k == j:
                        passed |= 1 << bit
                    elif k in place[j]:
                        passed |= (free >> place[j][k] & 1) << bit
                before, after = self.counts.moves[i]
                source = (start[j] + free[:, None] * counts + before).ravel()
                state = (start[i] + passed[:, None] * counts + after).ravel()
                parts.append((source, state, np.full(len(source), self.kept.between[j, i])))
        one, two, three = (np.concatenate(each) for each in zip(*parts, strict=True))
        return one, two, three

    def _expand(self) -> None:
        """Numbers the cells that are reached, by time, level and state, and lists the cells before each."""
        source, state, steps = self.moves
        number = np.full(self.size, -1, dtype=np.int32)
        number[0], count = 0, 1
        # The number of a state at a time stands at its base plus the time, as long as it lies within its span.
        since, span = self.first[self.point], self.span[self.point]
        until, base = since + span, np.cumsum(span) - span - since
        open_ = self.kept.times[:, self.point]
        opens = self.task.opens[self.point[state]]
        before, begin, places = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int64)], [np.zeros(1, np.int64)]
        self.blocks, pairs = list[tuple[int, int]](), 0
        level = self.level[self.point[state]]
        levels = [(source, state, steps, opens)]
        if level.any():
            levels = [tuple(each[level == k] for each in levels[0]) for k in range(int(level.max()) + 1)]  # type: ignore[misc]
        for first in range(1, self.length + 1, self.at_once):
            last = min(self.length + 1, first + self.at_once)
            times = np.arange(first, last)[:, None]
            for moves in levels:
                ever = np.asarray(open_[first:last].any(axis=0))
                live = np.flatnonzero(ever[moves[1]])
                come, to, took, opening = (each[live] for each in moves)
                left = times - took
                came = np.where(
                    (left >= since[come]) & (left < until[come]), number.take(left + base[come], mode="clip"), -1
                )
                row, move = np.nonzero((came >= 0) & open_[times[:, 0]][:, to])
                cell, came = (first + row) * self.states + to[move], came[row, move]
                waiting = np.flatnonzero((opening >= first) & (opening < last) & (opening > took))
                if self.task.window is not None and len(waiting):
                    early = [
                        self._waited(number, base, come[own], to[own], took[own]) for own in self._by_point(to, waiting)
                    ]
                    cell, came = (np.concatenate(each) for each in zip((cell, came), *early, strict=True))
                    order = np.argsort(cell, kind="stable")
                    cell, came = cell[order], came[order]
                if not len(cell):
                    continue
                start = np.flatnonzero(np.diff(cell, prepend=-1))
                when, which = np.divmod(cell[start], self.states)
                number[when + base[which]] = np.arange(count, count + len(start))
                before.append(came)
                begin.append(pairs + start)
                places.append(cell[start])
                self.blocks.append((count, count + len(start)))
                count, pairs = count + len(start), pairs + len(cell)
        self.before = np.concatenate(before)
        # Cell c > 0 comes from the cells before[begin[c - 1] : begin[c]].
        self.begin = np.append(np.concatenate(begin), pairs)
        self.time, at = np.divmod(np.concatenate(places), self.states)
        self.place = self.point[at]
        # Where walks may end: what they counted is as much as is asked for.
        self.stay = np.where(self.enough[at], 0.0, -np.inf)

    def _by_point(self, to: np.ndarray, moves: np.ndarray) -> list[np.ndarray]:
        """Moves to states, grouped by the states' point where its opening may be waited for."""
        open_ = self.kept.times[self.task.opens[self.point[to[moves]]].astype(np.int64), self.point[to[moves]]]
        moves = moves[open_]
        point = self.point[to[moves]]
        return [moves[point == k] for k in np.unique(point)]

    def _waited(
        self, number: np.ndarray, base: np.ndarray, come: np.ndarray, to: np.ndarray, took: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(cells at which visits at one point begin as it opens, numbers of the cells before) of who comes before."""
        opening, point = int(self.task.opens[self.point[to[0]]]), self.point[come]
        first, end = self.first[point], np.minimum(self.first[point] + self.span[point], opening - took)
        times = np.arange(int(first.min()), max(int(end.max()), int(first.min())))[:, None]
        inside = (times >= first) & (times < end)
        early = np.where(inside, number.take(times + base[come], mode="clip"), -1)
        time, move = np.nonzero(early >= 0)
        return opening * self.states + to[move], early[time, move]

    def bound(self, gain: np.ndarray, price: np.ndarray) -> float:
        """What any choice along kept moves brings at most at prices of stops and rows (k + 1 + R,)."""
        task, points = self.task, len(self.task.between)
        pays, back, added = (np.zeros_like(gain), 0.0, 0.0) if task.far is None else task.far.priced(price[points:])
        worth = task.worth(gain - pays) - price[:points]
        at_depot, worth[0] = float(worth[0]), 0.0
        self.worth, brings = worth, worth[self.place]
        self.best = np.zeros(len(self.place))
        for first, last in self.blocks:
            start, end = self.begin[first - 1], self.begin[last - 1]
            came = self.best.take(self.before[start:end])
            self.best[first:last] = np.maximum.reduceat(came, self.begin[first - 1 : last - 1] - start)
            self.best[first:last] += brings[first:last]
        # Whoever stays at home brings what the depot has, which :func:`proven` looks at by itself.
        ends = self.best[1:] + self.stay[1:]
        self.end = 1 + int(ends.argmax()) if len(ends) else 0
        top = float(ends[self.end - 1]) if self.end else -np.inf
        fixed = float(price[:points].sum()) + at_depot + back
        self.fixed, self.rest = fixed, fixed + (task.vehicles - 1) * max(top, 0.0)
        stops = 2 + self.length / self.at_once * (1 + int(self.level.max()))
        mass = float(np.abs(worth).max(initial=0.0)) * stops * task.vehicles + float(np.abs(gain).sum()) + added
        self.slack = 8 * EPS * (stops + len(price)) * (mass + abs(fixed))
        self.price = price
        self.pays, self.back, self.at_home = pays, back, at_depot + float(price[0]) + back + self.slack
        return (top if task.vehicles == 1 or not self.end else max(top, 0.0)) + self.rest + self.slack

    def walk(self) -> list[int]:
        """Stops of the best walk in order, without the depot."""
        cell, stops = self.end, list[int]()
        while cell:
            stops.append(int(self.place[cell]))
            came = self.before[self.begin[cell - 1] : self.begin[cell]]
            cell = int(came[self.best[came].argmax()])
        return stops[::-1]

    def most_through(self) -> tuple[np.ndarray, np.ndarray]:
        """What walks bring at most through a visit (length + 1, k + 1) and through a move (k + 1, k + 1).

        Kept in ``onward``: what they bring after a visit that begins at a time or later, (length + 1, k + 1).
        """
        brings, points = self.worth[self.place], self.kept.points
        ahead, moves = self.stay.copy(), np.full(points * points, -np.inf)
        for first, last in self.blocks[::-1]:
            start, end = self.begin[first - 1], self.begin[last - 1]
            came, counts = self.before[start:end], np.diff(self.begin[first - 1 : last])
            onward = np.repeat(brings[first:last] + ahead[first:last], counts)
            np.maximum.at(ahead, came, onward)
            move = self.place[came] * points + np.repeat(self.place[first:last], counts)
            np.maximum.at(moves, move, self.best[came] + onward)
        cell = self.time * points + self.place
        times, later = np.full((2, (self.length + 1) * points), -np.inf)
        np.maximum.at(times, cell, self.best + ahead)
        np.maximum.at(later, cell, ahead)
        self.onward = np.maximum.accumulate(later.reshape(-1, points)[::-1], axis=0)[::-1]
        return times.reshape(-1, points), moves.reshape(points, points)


@dataclass(frozen=True, eq=False)
class Counts:
    """What walks may have counted of some rows, all combinations numbered."""

    size: int
    moves: list[tuple[np.ndarray, np.ndarray]]
    """Of each point: numbers before a visit that are not too high for it, and the numbers after it."""
    enough: np.ndarray
    """Whether as much was counted as the rows ask for, bool (size,)."""

    @classmethod
    def of(cls, task: Orienteering, rows: np.ndarray) -> Counts | None:
        """Of rows that the task calls countable; None where one is not among them, or they are too many."""
        points, may = len(task.between), task.countable
        if len(rows) and (may is None or not np.isin(rows, np.flatnonzero(may)).all()):
            return None
        adds, least, most = list[np.ndarray](), list[int](), list[float]()
        for row in rows.tolist():
            assert task.far is not None
            inside = np.zeros(points, dtype=np.int64)
            columns, where = task.at
            np.add.at(inside, where[np.isin(columns, task.far.members(row))], 1)
            # Who is at the depot may be chosen as well: so many fewer are asked for of the stops.
            asked = max(0, int(max(task.far.lower[row], 0.0)) - int(inside[0])) if task.vehicles == 1 else 0
            adds.append(inside)
            least.append(asked)
            most.append(task.far.upper[row])
        inside_of = np.array(adds, dtype=np.int64).reshape(-1, points)
        fewest, limit = np.array(least, dtype=np.int64), np.array(most, dtype=np.float64)
        tops = np.where(np.isfinite(limit), np.maximum(limit, fewest), fewest).astype(np.int64)
        size = prod(int(top) + 1 for top in tops)
        if size > MOST_COUNTED:
            return None
        digit = np.cumprod(np.append(1, tops[:-1] + 1))[: len(tops)]
        now = np.arange(size)[:, None] // digit % (tops + 1)
        moves = []
        for i in range(points):
            after = now + inside_of[:, i]
            before = np.flatnonzero((after <= limit).all(axis=1))
            moves.append((before, np.minimum(after[before], tops) @ digit))
        return cls(size, moves, np.asarray((now >= fewest).all(axis=1)))


def _ends(kept: np.ndarray) -> np.ndarray:
    """First and last true row of each column, (2, n); for columns without one, the table's ends."""
    return np.array([kept.argmax(axis=0), len(kept) - 1 - kept[::-1].argmax(axis=0)])


def _levels(at_once: np.ndarray) -> np.ndarray:
    """How many moves that take no time may come before each point, one after the other, int64 (k + 1,).

    Parameters
    ----------
    at_once
        Moves that take no time, bool (k + 1, k + 1); they lead nowhere round.
    """
    level = np.zeros(len(at_once), dtype=np.int64)
    while True:
        more = np.where(at_once, level[:, None] + 1, 0).max(axis=0)
        if (more <= level).all():
            return level
        level = np.maximum(level, more)
