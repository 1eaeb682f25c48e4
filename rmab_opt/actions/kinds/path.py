"""Routes: the chosen arms lie on walks that leave the depot and are back in time, visited in their windows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BeforeValidator, Field
from scipy import sparse

from rmab_opt.actions.columns import Columns
from rmab_opt.actions.constraint import Constraint, table_with
from rmab_opt.actions.side_rows import SideRows
from rmab_opt.actions.tours import Orienteering, through
from rmab_opt.errors import Findings, ModelError, UnsettledError
from rmab_opt.overdue import checkpoint
from rmab_opt.problem import Table
from rmab_opt.problem.table import nearest

__all__ = ["Path"]

REMEMBERED = 100_000
"""Sets of stops whose routes are kept."""

MOST_WALKS = 4_000_000
"""Walks told apart at one time, beyond which the sets they pass are not listed."""

MOST_MOVES = 500_000
"""Moves at a time beyond which the program is over the order of stops: layers of time would take minutes to write."""

MOST_ORDERED = 1_500
"""Stops within reach whose order is looked at: times from each to each take 18 MB."""

MOST_LAYERS = 2_000
"""Units of time beyond which the sets that walks pass are not listed layer by layer."""

FEW_STOPS = 16
"""Stops within reach up to which all their subsets are tried: half a second and 8 MiB."""

MOST_STOPS = 18
"""Chosen arms that the exact tour check (2**k k**2 steps) takes; more are refused, never guessed."""

MILLIONTHS = 1_000_000
"""Times are whole numbers of these parts of a minute, and so are their sums: nothing is rounded."""

LONGEST = 1e9
"""Minutes that a time may have, so that sums stay exact."""


def _length(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST:
        raise ValueError(f"is {value!r}; give minutes, a number above 0 (at most {LONGEST:g})")
    return value


def _minutes(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST:
        raise ValueError(f"is {value!r}; give minutes, 0 to {LONGEST:g}, or the name of a column of the arms' table")
    return float(value)


Minutes = Annotated[float | str | None, BeforeValidator(_minutes)]
"""Minutes for all arms, or the column of the arms' table with each one's."""


@dataclass(frozen=True, eq=False)
class _Stops:
    """What routes stop at: arms at one point without service and windows are one stop, all others are their own.

    Stop 0 is the depot. Times are whole numbers of a unit, ``unit`` millionths of a minute.
    """

    unit: int
    names: list[str]
    point: np.ndarray
    """Point of each stop, (K + 1,)."""
    service: np.ndarray
    """Units that a visit takes, int64 (K + 1,)."""
    window: np.ndarray | None
    """Earliest and latest begin of a visit, (K + 1, 2); None where any time will do."""
    members: tuple[np.ndarray, ...]
    """Columns of each stop."""
    of: np.ndarray
    """Stop of each column, (C,); 0 at the depot, where no visit is needed."""
    length: int
    out: np.ndarray
    home: np.ndarray
    """Units of the way from the depot, and of a visit and the way back to it, (K + 1,)."""

    @cached_property
    def opens(self) -> np.ndarray:
        """Earliest begin of a visit that a route can come to."""
        return self.out if self.window is None else np.maximum(self.out, self.window[:, 0])

    @cached_property
    def closes(self) -> np.ndarray:
        """Latest begin of a visit from which a route is back in time."""
        last = self.length - self.home
        return last if self.window is None else np.minimum(last, self.window[:, 1])

    @cached_property
    def reached(self) -> np.ndarray:
        """Whether a route of its own can visit the stop, (K + 1,)."""
        return self.opens <= self.closes

    def minutes(self, units: float) -> str:
        """Units as minutes in decimal digits, exactly."""
        whole, rest = divmod(round(units) * self.unit, MILLIONTHS)
        return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")


class Path(Constraint, kind="path"):
    """Every chosen arm is visited by a walk of at most ``length`` minutes from the depot back to it.

    Without service times and windows: one unit of flow a vehicle through the time-expanded graph: f[j, k, t] says that
    a vehicle leaves j at time t for k (or waits, j = k); flow in = flow out at every (j, t); it starts and ends at the
    depot; act[j] <= sum of the flow into j. Layers make the flow a closed walk, so no subtours arise. Arcs that
    cannot be reached from the depot in time, or not return in time, are left out.

    With them, or where time has too many layers: x[i, j] says that a vehicle goes from stop i to stop j by the fastest
    way, b[j] when the visit at j begins; flow in = flow out <= 1, at most ``vehicles`` leave the depot,
    b[j] >= b[i] + service[i] + way[i, j] where x[i, j] = 1 (Miller, Tucker, Zemlin 1960), act[c] <= flow into the stop
    of c. Who comes early waits.

    References
    ----------
    Xu, Wilder, Khalil, Tambe (ICLR 2025), path-constrained setting, with waiting counted as a move
    (without it the published rows admit every set of arms). Solomon (1987) for service times and windows.
    """

    limiting: ClassVar[tuple[str, ...]] = ("passed",)
    own_variables: ClassVar[bool] = True

    edges: Annotated[Table, BeforeValidator(table_with("from", "to"))]
    """Table with columns ``from``, ``to`` (ids of arms), optional ``minutes`` (numbers, 1 by default) and optional
    ``one_way`` (yes or no): an edge is used both ways unless it says yes; unequal times are two such rows."""
    depot: str
    """Where every route begins and ends: an arm, which counts as visited; with ``point`` one of the roads."""
    length: Annotated[int | float, BeforeValidator(_length)]
    """Minutes (time steps) that a route may take."""
    vehicles: int = Field(default=1, ge=1)
    """How many routes there are."""
    point: str | None = None
    """Column of the arms' table with the point of the roads where each arm is, e.g. its village; whoever passes a point
    passes all arms there. By default the arms are the points."""
    service: Minutes = None
    """Minutes that a visit takes: a number, or a column of the arms' table; none at the depot."""
    earliest: Minutes = None
    """Minutes after the start before which no visit begins, a number or a column (empty cells: any time)."""
    latest: Minutes = None
    """Minutes after the start after which no visit begins, a number or a column (empty cells: any time)."""

    def build(self, block: Any, act: Any, columns: Columns) -> None:
        stops = self._table(columns)
        if self._ordered(columns):
            into = self._build_order(block, columns)
        else:
            into = self._build_layers(block, columns)

        @block.Constraint([name for c, name in enumerate(columns.ids) if stops.of[c]])
        def passed(_: Any, name: str) -> Any:
            checkpoint()
            c = columns.index(name)
            here = into.get(int(stops.of[c]))
            return act[c] <= sum(here) if here else act[c] == 0

    def _ordered(self, columns: Columns) -> bool:
        """Whether the program is over the order of stops, not over layers of time."""
        return self._timed or not self._table(columns).length or self.moves(columns) > MOST_MOVES

    @property
    def _timed(self) -> bool:
        return not (self.service is None and self.earliest is None and self.latest is None)

    def _build_layers(self, block: Any, columns: Columns) -> dict[int, list[Any]]:
        """The flow through layers of time; what flows into each stop."""
        import pyomo.environ as pyo

        (graph, depot), stops = self._graph(columns), self._table(columns)
        out, home = self._distances(columns)
        arcs: list[tuple[int, int, int, int]] = []
        for j, k, minutes in [*graph, *((j, j, 1) for j in range(len(self._points(columns)[0])))]:
            for t in range(stops.length - minutes + 1):
                if out[j] <= t and home[k] <= stops.length - t - minutes:
                    arcs.append((j, k, t, minutes))
        block.move = pyo.Var(
            [arc[:3] for arc in arcs], domain=pyo.Binary if self.vehicles == 1 else pyo.NonNegativeIntegers,
            bounds=(0, self.vehicles),
        )  # fmt: skip
        leaving: dict[tuple[int, int], list[Any]] = defaultdict(list)
        entering: dict[tuple[int, int], list[Any]] = defaultdict(list)
        for j, k, t, minutes in arcs:
            leaving[j, t].append(block.move[j, k, t])
            entering[k, t + minutes].append(block.move[j, k, t])
        block.leave = pyo.Constraint(expr=sum(leaving[depot, 0]) == self.vehicles)
        block.back = pyo.Constraint(expr=sum(entering[depot, stops.length]) == self.vehicles)
        inner = [place for place in {*leaving, *entering} if 0 < place[1] < stops.length]

        @block.Constraint(sorted(inner))
        def onward(_: Any, j: int, t: int) -> Any:
            checkpoint()
            return sum(entering[j, t]) == sum(leaving[j, t])

        arrivals: dict[int, list[Any]] = defaultdict(list)
        for (k, _), flows in entering.items():
            arrivals[k] += flows
        return {s: arrivals[k] for s, k in enumerate(stops.point.tolist()) if s and k in arrivals}

    def _build_order(self, block: Any, columns: Columns) -> dict[int, list[Any]]:
        """The order of stops and when each visit begins; what flows into each stop."""
        import pyomo.environ as pyo

        task, places = self.task(columns)
        # Times in the same power of two whatever the unit: the solver's tolerances mean the same everywhere.
        scale = 2.0 ** -np.ceil(np.log2(max(task.length, 1) / 1024))
        arcs = [(i, j) for i, j in np.argwhere(task.moves).tolist() if j] + [(i, 0) for i in range(1, len(places))]
        block.move = pyo.Var(arcs, domain=pyo.Binary)
        opens, closes, between = task.opens * scale, task.closes * scale, task.between * scale
        ends = [(float(opens[j]), float(closes[j])) for j in range(len(places))]
        # Nothing begins before its window opens, also before the first solve.
        block.begin = pyo.Var(range(1, len(places)), bounds=lambda _, j: ends[j], initialize=lambda _, j: ends[j][0])
        entering: dict[int, list[Any]] = defaultdict(list)
        leaving: dict[int, list[Any]] = defaultdict(list)
        for i, j in arcs:
            leaving[i].append(block.move[i, j])
            entering[j].append(block.move[i, j])
        inner = range(1, len(places))
        if leaving[0]:
            block.leave = pyo.Constraint(expr=sum(leaving[0]) <= self.vehicles)
        block.once = pyo.Constraint([j for j in inner if entering[j]], rule=lambda _, j: sum(entering[j]) <= 1)
        block.onward = pyo.Constraint(inner, rule=lambda _, j: sum(entering[j]) == sum(leaving[j]))

        @block.Constraint([(i, j) for i, j in arcs if i and j])
        def later(_: Any, i: int, j: int) -> Any:
            checkpoint()
            most = float(closes[i] + between[i, j] - opens[j])
            wait = block.begin[i] + float(between[i, j]) - block.begin[j]
            return wait <= most * (1 - block.move[i, j])

        return {places[j]: entering[j] for j in inner if entering[j]}

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        stops, table = self._chosen(action, columns), self._table(columns)
        far = [k for k in stops if not table.reached[k]]
        early = [k for k in far if table.window is not None and table.out[k] + table.home[k] <= table.length]
        names = ", ".join(table.names[k] for k in far[:5])
        if early == far and far:
            yield f"{names}: the window closes before a route from {self.depot} is there, or opens too late to be back"
        elif far:
            yield f"{names}: there and back from {self.depot} takes longer than {self.length:g}"
        elif self._routes(stops, columns) is None:
            routes = "no route" if self.vehicles == 1 else f"no {self.vehicles} routes"
            passed, windows = (
                ", ".join(table.names[k] for k in stops),
                "" if table.window is None else " in the windows",
            )
            yield f"{routes} of {self.length:g} {self._word} from {self.depot} and back passes {passed}{windows}"

    def describe(self) -> str:
        routes = "one route" if self.vehicles == 1 else f"{self.vehicles} routes"
        said = f"on {routes} from {self.depot} and back within {self.length:g} {self._word}"
        if self.service is not None:
            said += f", visits of {_told(self.service)}"
        if self.earliest is not None:
            said += f", not before {_told(self.earliest)}"
        return said if self.latest is None else f"{said}, not after {_told(self.latest)}"

    @property
    def _word(self) -> str:
        return "minutes" if self._timed or self.length != int(self.length) else "steps"

    def check(self, columns: Columns) -> None:
        self._table(columns)

    def monotone(self, columns: Columns) -> bool:
        return True

    def assignment(self, action: np.ndarray, columns: Columns) -> list[dict[str, str]]:
        """Rows ``column, route, stop, arrival`` in the order of visiting; empty when no route exists."""
        routes = self._routes(self._chosen(action, columns), columns)
        return [] if routes is None else self.told(routes, action, columns)

    def misassigned(self, rows: list[dict[str, str]], action: np.ndarray, columns: Columns) -> str | None:
        stops, timed = self._table(columns), all("arrival" in row for row in rows)
        keys = {"column", "route", "stop"} | ({"arrival"} if timed else set())
        if any(set(row) != keys or not row["stop"].isdecimal() for row in rows):
            return "a row names column, route, stop, a number, and arrival, minutes"
        if sorted(row["column"] for row in rows) != sorted(columns.ids[c] for c in np.flatnonzero(action)):
            return "not every chosen column stands once"
        routes: dict[str, list[tuple[int, int, int | None, str]]] = defaultdict(list)
        for row in rows:
            told = _millionths(row["arrival"]) if timed else None
            if timed and told is None:
                return f"arrival of {row['column']} is {row['arrival']!r}, no minutes with at most six decimals"
            k = int(stops.of[columns.index(row["column"])])
            if k:
                routes[row["route"]].append((int(row["stop"]), k, told, row["column"]))
        if len(routes) > self.vehicles:
            return f"{len(routes)} routes, {self.vehicles} allowed"
        for name, visits in routes.items():
            if (fault := self._late(name, sorted(visits), columns)) is not None:
                return fault
        return None

    def _late(self, route: str, visits: list[tuple[int, int, int | None, str]], columns: Columns) -> str | None:
        """What is wrong with the times of a route's visits (place, stop, millionths of a minute or None, column)."""
        stops, depot = self._table(columns), self._graph(columns)[1]
        ways, clock, at, last = self._all_distances(columns), 0, 0, (-1, -1)
        for place, k, told, name in visits:
            if place == last[0] and k != last[1]:
                return f"two places at stop {place} of route {route}"
            way = float(ways[stops.point[at], stops.point[k]]) + (float(stops.service[at]) if k != at else 0.0)
            if not np.isfinite(way):
                return f"route {route}: no way to {name}"
            soonest = clock + (int(way) * stops.unit if at or k != at else 0)
            window = (0.0, np.inf) if stops.window is None else stops.window[k] * float(stops.unit)
            begins = max(soonest, int(window[0])) if told is None else told
            if begins < soonest:
                return f"{name} is visited at {_text(begins)}, the way there takes until {_text(soonest)}"
            if begins < window[0]:
                return f"{name} is visited at {_text(begins)}, its window opens at {_text(int(window[0]))}"
            if begins > window[1]:
                return f"{name} is visited at {_text(begins)}, its window closes at {_text(int(window[1]))}"
            clock, at, last = begins, k, (place, k)
        back = float(ways[stops.point[at], depot]) + float(stops.service[at])
        whole = clock + int(back) * stops.unit if np.isfinite(back) else None
        if whole is None or whole > round(self.length * MILLIONTHS):
            said = "does not come back" if whole is None else f"takes {_text(whole)} {self._word}"
            return f"route {route} {said}, {self.length:g} allowed"
        return None

    def proves(self, rows: list[dict[str, str]], action: np.ndarray, columns: Columns) -> bool:
        return self.misassigned(rows, action, columns) is None

    def witness(
        self, block: Any, values: Callable[[Any], np.ndarray], action: np.ndarray, columns: Columns
    ) -> list[dict[str, str]]:
        times = np.rint(values(block.move)).astype(np.int64).tolist()
        open_ = set(self._chosen(action, columns))
        routes = self._followed_order if self._ordered(columns) else self._followed_layers
        kept = []
        for walk in routes(list(zip(block.move, times, strict=True)), columns):
            kept.append([k for k in dict.fromkeys(walk) if k in open_])
            open_ -= {*kept[-1]}
        return self.told([route for route in kept if route], action, columns)

    def _followed_layers(self, moved: list[tuple[Any, int]], columns: Columns) -> Iterator[list[int]]:
        """Stops along each vehicle's flow through the layers."""
        (arcs, depot), stops = self._graph(columns), self._table(columns)
        minutes, stop = {(j, k): steps for j, k, steps in arcs}, {k: s for s, k in enumerate(stops.point.tolist())}
        onward: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for (j, k, t), count in moved:
            onward[j, t] += [(k, t + minutes.get((j, k), 1))] * count
        for _ in range(self.vehicles):
            at, walk = (depot, 0), list[int]()
            while onward[at]:
                at = onward[at].pop()
                walk += [stop[at[0]]] if stop.get(at[0]) else []
            yield walk

    def _followed_order(self, moved: list[tuple[Any, int]], columns: Columns) -> Iterator[list[int]]:
        """Stops along the moves from the depot on."""
        places = self.task(columns)[1]
        onward = {i: j for (i, j), taken in moved if taken and i}
        for first in [j for (i, j), taken in moved if taken and not i]:
            walk, at = list[int](), first
            while at and len(walk) <= len(places):
                walk.append(places[at])
                at = onward.get(at, 0)
            yield walk

    def task(self, columns: Columns, beside: SideRows | None = None) -> tuple[Orienteering, list[int]]:
        """The routes as a task over the depot and the stops within reach, and these stops, the depot first.

        Parameters
        ----------
        beside
            What else the chosen columns have to satisfy.

        Raises
        ------
        UnsettledError
            When there are more stops than can be held against each other.
        """
        stops = self._table(columns)
        places = [0, *self._within_reach(columns)]
        if len(places) > MOST_ORDERED:
            raise UnsettledError(
                f"the order of {len(places) - 1} stops within reach (at most {MOST_ORDERED - 1})",
                self,
                (
                    "leave out service times and windows and attach arms to villages by `point`",
                    "split the area into depots",
                ),
            )
        return self._task(places, columns, tuple(stops.members[k] for k in places), beside), places

    def _task(
        self,
        places: list[int],
        columns: Columns,
        members: tuple[np.ndarray, ...] = (),
        beside: SideRows | None = None,
    ) -> Orienteering:
        """Routes over some stops, the depot first."""
        stops = self._table(columns)
        window = None if stops.window is None else stops.window[places]
        return Orienteering(self._between(places, columns), stops.length, self.vehicles, members, window, beside)

    def told(self, routes: list[list[int]], action: np.ndarray, columns: Columns) -> list[dict[str, str]]:
        """Rows ``column, route, stop, arrival`` of the chosen columns along routes of stops without the depot.

        ``arrival`` is when the visit begins, in minutes after the start: who comes before a window opens waits.
        """
        stops, chosen = self._table(columns), np.flatnonzero(action)
        here = chosen[stops.of[chosen] == 0].tolist()
        rows = [{"column": columns.ids[c], "route": "1", "stop": "0", "arrival": "0"} for c in here]
        for number, route in enumerate(routes, start=1):
            times = self._task([0, *route], columns).begins(range(len(route) + 1))
            if times is None:
                return []
            rows += [
                {"column": columns.ids[c], "route": str(number), "stop": str(place), "arrival": stops.minutes(time)}
                for place, (k, time) in enumerate(zip(route, times[1:].tolist(), strict=True), start=1)
                for c in chosen[stops.of[chosen] == k].tolist()
            ]
        return rows

    def passable(self, columns: Columns) -> np.ndarray | None:
        """Largest sets of arms that a route passes, as bit masks (M,) uint64 over the columns; None where too many.

        Layer by layer: the sets of arms passed by the walks that are at an arm at a time, each kept once, from where it
        can still return. A set is left out when a listed one has just one arm more; so every set that a route passes is
        within one of them. The 40 published stations with 20 moves have 743,788 sets and are listed in a quarter of
        a minute; an action is allowed exactly when it is within a listed set.
        """
        if len(columns) > 63:
            return None
        if self.few(columns):
            return self._passable_by_stops(columns)
        if self.vehicles != 1 or self.point is not None or self._timed or self._table(columns).length > MOST_LAYERS:
            return None
        arcs, depot = self._graph(columns)
        _, home = self._distances(columns)
        return _passed_sets(tuple(arcs), depot, tuple(home.tolist()), self._table(columns).length)

    def moves(self, columns: Columns) -> int:
        """Moves between points at a time: about what :meth:`build` makes variables of, or how hard those are."""
        return (len(self._graph(columns)[0]) + len(self._points(columns)[0])) * self._table(columns).length

    def few(self, columns: Columns) -> bool:
        """Whether the stops within reach are so few that a table over their subsets is made in a moment."""
        return len(self._within_reach(columns)) <= FEW_STOPS

    def _within_reach(self, columns: Columns) -> list[int]:
        """Stops, without the depot, that a route of their own can visit."""
        return (1 + np.flatnonzero(self._table(columns).reached[1:])).tolist()

    def _passable_by_stops(self, columns: Columns) -> np.ndarray | None:
        """:meth:`passable` by a table over all subsets of the stops (Held and Karp 1962), for few of them."""
        places, stops = self._within_reach(columns), self._table(columns)
        here = sum(1 << int(c) for c in stops.members[0])
        if not places:
            return np.array([here], dtype=np.uint64)
        cost = _tours(self._between(places, columns), stops.opens[places], stops.closes[places])
        fits = np.isfinite(cost.min(axis=1))
        fits[0] = True
        # Leaving a stop out never lengthens a way by shortest paths: the largest sets say all.
        largest = one = _largest(fits)
        for _ in range(self.vehicles - 1):
            if len(largest) * len(one) > MOST_WALKS:
                return None
            together = np.zeros(len(fits), dtype=bool)
            together[(largest[:, None] | one[None, :]).ravel()] = True
            for k in range(len(places)):
                # Subsets are allowed as well.
                without = together.reshape(-1, 2, 1 << k)
                without[:, 0] |= without[:, 1]
            largest = _largest(together)
        sets = np.full(len(largest), here, dtype=np.uint64)
        for k, stop in enumerate(places):
            members = np.uint64(sum(1 << int(c) for c in stops.members[stop]))
            sets |= np.where(largest >> k & 1 == 1, members, np.uint64(0))
        return sets

    def _routes(self, stops: list[int], columns: Columns) -> list[list[int]] | None:
        """Routes through all stops that are back in time, by a table over their subsets; None when there are none."""
        count = len(stops)
        if not count:
            return []
        if not self._table(columns).reached[stops].all():
            return None
        if count > MOST_STOPS:
            found = through(self._task([0, *stops], columns))
            if found is not None:
                return [[stops[k - 1] for k in route] for route in found]
            if self._too_far(stops, columns):
                return None
            raise UnsettledError(
                f"the exact route check of {count} stops",
                self,
                (f"limit the stops of a round to {MOST_STOPS} by a budget", "split the area into depots"),
            )
        known: dict[tuple[int, ...], list[list[int]] | None] = self._once(columns, dict)
        if (key := tuple(stops)) not in known:
            # Samplers and simulators ask for the same few sets again and again.
            if len(known) >= REMEMBERED:
                known.clear()
            known[key] = self._solve_routes(stops, columns)
        return known[key]

    def _too_far(self, stops: list[int], columns: Columns) -> bool:
        """Whether even the shortest tree that joins depot and stops is longer than all routes together."""
        # Loaded where it is used: it takes a third of a second that few decisions need.
        from scipy.sparse.csgraph import minimum_spanning_tree

        between = self._between([0, *stops], columns)
        # Sparse matrices know no ways of no length: every way counts one more, and so does the tree's every edge.
        near = np.triu(np.minimum(between, between.T) + 1.0, 1)
        tree = float(minimum_spanning_tree(sparse.csr_array(near)).sum()) - len(stops)
        return tree > self.vehicles * self._table(columns).length

    def _solve_routes(self, stops: list[int], columns: Columns) -> list[list[int]] | None:
        table, between = self._table(columns), self._between(stops, columns)
        cost = _tours(between, table.opens[stops], table.closes[stops])
        fits = np.isfinite(cost.min(axis=1))
        fits[0] = True
        for vehicles in range(1, self.vehicles + 1):
            parts = _split(fits, len(fits) - 1, vehicles)
            if parts is not None:
                return [self._order(part, cost, between, table.home[stops], stops) for part in parts]
        return None

    @staticmethod
    def _order(subset: int, cost: np.ndarray, between: np.ndarray, home: np.ndarray, stops: list[int]) -> list[int]:
        order, visited = [], subset
        last = int(np.argmin(cost[subset] + home))
        while True:
            order.append(stops[last])
            before = visited ^ 1 << last
            if not before:
                return order[::-1]
            last, visited = int(np.argmin(cost[before] + between[:, last])), before

    def _points(self, columns: Columns) -> tuple[list[str], np.ndarray]:
        """Names of the points that ways join, and the point of each column, (C,)."""

        def points() -> tuple[list[str], np.ndarray]:
            if self.point is None:
                return list(columns.ids), np.arange(len(columns))
            if self.point not in columns.names:
                raise ModelError(f"point: no column {self.point!r}", nearest(self.point, list(columns.names)))
            names = list(dict.fromkeys((*self.edges.text("from"), *self.edges.text("to"))))
            place = {name: k for k, name in enumerate(names)}
            findings, cells = Findings(self.point), columns.text(self.point)
            for name, cell in zip(columns.ids, cells, strict=True):
                if cell not in place:
                    findings.add(name, f"no point {cell!r} on the roads", nearest(cell, names))
            findings.raise_if_any()
            return names, np.array([place[cell] for cell in cells], dtype=np.int64)

        return self._once(columns, points)

    def _chosen(self, action: np.ndarray, columns: Columns) -> list[int]:
        """Stops of the chosen columns, each once, without the depot; ascending."""
        return [k for k in np.unique(self._table(columns).of[np.flatnonzero(action)]).tolist() if k]

    def _roads(self, columns: Columns) -> tuple[dict[tuple[int, int], int], int]:
        """Millionths of a minute of every arc (from, to), and the depot's position."""

        def roads() -> tuple[dict[tuple[int, int], int], int]:
            names = self._points(columns)[0]
            place = {name: k for k, name in enumerate(names)}
            what = "arm" if self.point is None else "point of the roads"
            if self.depot not in place:
                fix = "name an arm as depot." if self.point is None else nearest(self.depot, names)
                raise ModelError(f"depot: no {what} {self.depot!r}", fix)
            findings, edges = Findings(self.edges.source), self.edges
            edges.only(("from", "to", "minutes", "one_way"))
            steps = edges.numbers("minutes", maximum=LONGEST) if "minutes" in edges else np.ones(len(edges))
            single = edges.yes_no("one_way") if "one_way" in edges else [False] * len(edges)
            ways: dict[tuple[int, int], int] = {}
            for row, (one, two, step) in enumerate(
                zip(edges.text("from"), edges.text("to"), steps.tolist(), strict=True)
            ):
                for end in (one, two):
                    if end not in place:
                        findings.add(edges.place(row), f"no arm {end!r}", "use ids of the arms")
                parts = _millionths(step)
                if parts is None:
                    findings.add(edges.place(row), f"minutes is {step:.9g}", "give at most six decimals")
                elif parts <= 0:
                    findings.add(edges.place(row), f"minutes is {step:g}", "give more than 0")
                elif one in place and two in place:
                    i, j = place[one], place[two]
                    for way in ((i, j),) if single[row] else ((i, j), (j, i)):
                        if ways.setdefault(way, parts) != parts:
                            findings.add(
                                edges.place(row),
                                f"{one!r} and {two!r} are {_text(ways[way])} minutes apart in another row, "
                                f"{_text(parts)} here",
                                "give a pair one time, or a row a direction and say yes in a column one_way",
                            )
                            break
            findings.raise_if_any()
            return {way: parts for way, parts in sorted(ways.items()) if way[0] != way[1]}, place[self.depot]

        return self._once(columns, roads)

    def _unit(self, columns: Columns) -> int:
        """Millionths of a minute of which all ways, services and openings are whole multiples."""

        def unit() -> int:
            service, earliest, _ = self._times(columns)
            parts = [np.array(list(self._roads(columns)[0].values()), dtype=np.int64), service, earliest]
            return int(np.gcd.reduce(np.concatenate(parts))) or MILLIONTHS

        return self._once(columns, unit)

    def _times(self, columns: Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Millionths of a minute of each column's service, earliest and latest begin, int64 (C,); -1: no latest."""

        def times() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            found = [self._millionths_of(field, columns) for field in ("service", "earliest", "latest")]
            findings = Findings("")
            wrong = (found[2] >= 0) & (found[1] > found[2])
            for c in np.flatnonzero(wrong).tolist():
                findings.add(
                    columns.ids[c],
                    f"earliest {_text(found[1][c])} is after latest {_text(found[2][c])}",
                    "let the window open before it closes",
                )
            findings.raise_if_any()
            return found[0], found[1], found[2]

        return self._once(columns, times)

    def _millionths_of(self, field: str, columns: Columns) -> np.ndarray:
        given, none = getattr(self, field), -1 if field == "latest" else 0
        if given is None:
            return np.full(len(columns), none, dtype=np.int64)
        if isinstance(given, str):
            if given not in columns.names:
                raise ModelError(f"{field}: no column {given!r}", nearest(given, list(columns.names)))
            sheet = columns.sheet
            values = sheet.numbers(given, minimum=0.0, maximum=LONGEST, missing=field != "service")
        else:
            values = np.full(len(columns), float(given))
        findings, found = Findings(field), np.full(len(columns), none, dtype=np.int64)
        for c in np.flatnonzero(~np.isnan(values)).tolist():
            parts = _millionths(float(values[c]))
            if parts is None:
                findings.add(f" {columns.ids[c]}", f"{values[c]:.9g} minutes", "give at most six decimals")
            else:
                found[c] = parts
        findings.raise_if_any()
        return found

    def _graph(self, columns: Columns) -> tuple[list[tuple[int, int, int]], int]:
        """Arcs (from, to, units of time) and the depot's position."""

        def graph() -> tuple[list[tuple[int, int, int]], int]:
            (roads, depot), unit = self._roads(columns), self._unit(columns)
            return [(i, j, parts // unit) for (i, j), parts in roads.items()], depot

        return self._once(columns, graph)

    def _table(self, columns: Columns) -> _Stops:
        """What routes stop at, and when."""

        def table() -> _Stops:
            (names, point), (_, depot), unit = self._points(columns), self._graph(columns), self._unit(columns)
            service, earliest, latest = self._times(columns)
            length = round(self.length * MILLIONTHS) // unit
            away = np.flatnonzero(point != depot)
            # Whoever is alike in all of this is visited together where that takes no time; else one by one.
            alone = np.where(service > 0, np.arange(len(point)), -1)
            keys = np.stack([point, service, earliest, latest, alone])[:, away]
            kinds, stop = np.unique(keys, axis=1, return_inverse=True)
            of = np.zeros(len(point), dtype=np.int64)
            of[away] = 1 + stop.ravel()
            members = tuple(np.flatnonzero(of == k) for k in range(kinds.shape[1] + 1))
            at, units = np.append(depot, kinds[0]), np.append(0, kinds[1] // unit)
            window = None
            if self.earliest is not None or self.latest is not None:
                closes = np.where(kinds[3] < 0, np.inf, kinds[3] // unit)
                window = np.array([np.append(0, kinds[2] // unit), np.append(np.inf, closes)], dtype=np.float64).T
            out, home = self._distances(columns)
            called = [names[k] for k in at.tolist()]
            if self._timed:
                called = [called[0], *(columns.ids[own[0]] for own in members[1:])]
            return _Stops(unit, called, at, units, window, members, of, length, out[at], home[at] + units)

        return self._once(columns, table)

    def _between(self, stops: list[int], columns: Columns) -> np.ndarray:
        """Units from the begin of a visit at one of the stops to the arrival at another, (k, k)."""
        table = self._table(columns)
        between = self._all_distances(columns)[np.ix_(table.point[stops], table.point[stops])]
        between = between + table.service[stops][:, None]
        np.fill_diagonal(between, 0.0)
        return between

    def _all_distances(self, columns: Columns) -> np.ndarray:
        """Least units of time between points; infinite where there is no way."""

        def distances() -> np.ndarray:
            # Loaded where it is used: it takes a third of a second that few decisions need.
            from scipy.sparse.csgraph import dijkstra

            arcs, _ = self._graph(columns)
            size = len(self._points(columns)[0])
            ends = np.array(arcs, dtype=np.int64).reshape(len(arcs), 3).T
            matrix = sparse.csr_array((ends[2].astype(np.float64), (ends[0], ends[1])), shape=(size, size))
            found: np.ndarray = dijkstra(matrix)
            return found

        return self._once(columns, distances)

    def _distances(self, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
        """Least units of time from the depot to each point and back."""
        depot = self._graph(columns)[1]
        every = self._all_distances(columns)
        return every[depot], every[:, depot]


def _millionths(value: float | str) -> int | None:
    """A time as whole millionths of a minute; None where it has more decimals, or is no time."""
    try:
        parts = float(value) * MILLIONTHS
    except ValueError:
        return None
    # Sums of decimals in binary are off by far less than this, a seventh decimal by more.
    off = abs(parts - round(parts)) if np.isfinite(parts) else np.inf
    return round(parts) if off <= 1e-3 + 1e-13 * abs(parts) else None


def _text(parts: int) -> str:
    """Millionths of a minute as minutes."""
    return f"{parts / MILLIONTHS:.6f}".rstrip("0").rstrip(".")


def _told(minutes: float | str) -> str:
    return f"its {minutes!r}" if isinstance(minutes, str) else f"{minutes:g}"


def _split(fits: np.ndarray, stops: int, vehicles: int) -> list[int] | None:
    """At most so many subsets that fit, (2**k,), and together hold the stops, a bit mask; None where none do."""
    if fits[stops]:
        return [stops]
    if vehicles == 1:
        return None
    members = np.arange(len(fits))
    first = stops & -stops
    inside = members[fits & (members & ~stops == 0) & (members & first > 0)]
    if vehicles == 2:
        good = inside[fits[stops ^ inside]]
        return [int(good[0]), stops ^ int(good[0])] if len(good) else None
    # The largest first: they leave the least to the others.
    size = sum(inside >> k & 1 for k in range(len(fits).bit_length() - 1))
    seen = list[int]()
    for part in inside[np.argsort(-np.asarray(size), kind="stable")].tolist():
        if any(part & larger == part for larger in seen):
            continue
        seen.append(part)
        rest = _split(fits, stops ^ part, vehicles - 1)
        if rest is not None:
            return [part, *rest]
    return None


def _tours(between: np.ndarray, opens: np.ndarray, closes: np.ndarray) -> np.ndarray:
    """Earliest begin (2**k, k) of the last visit of ways from the depot over a subset of the stops; infinite for none.

    Parameters
    ----------
    between
        Time from a visit's begin to the arrival at the next stop, (k, k).
    opens, closes
        Earliest and latest begin of each visit, (k,): from the depot, and to be back in time.
    """
    count = len(opens)
    cost = np.full((1 << count, count), np.inf)
    cost[1 << np.arange(count), np.arange(count)] = np.where(opens <= closes, opens, np.inf)
    members = np.arange(1 << count)
    size = sum(members >> k & 1 for k in range(count))
    for visited in range(1, count):
        layer = members[size == visited]
        for following in range(count):
            before = layer[layer >> following & 1 == 0]
            begins = np.maximum((cost[before] + between[:, following]).min(axis=1), opens[following])
            cost[before | 1 << following, following] = np.where(begins <= closes[following], begins, np.inf)
    return cost


def _largest(fits: np.ndarray) -> np.ndarray:
    """Subsets (M,) that fit, (2**k,), and no longer do with any further stop."""
    members, wider = np.arange(len(fits)), np.zeros(len(fits), dtype=bool)
    for k in range(len(fits).bit_length() - 1):
        wider |= (members >> k & 1 == 0) & fits[members | 1 << k]
    return members[fits & ~wider]


@lru_cache(maxsize=4)
def _passed_sets(
    arcs: tuple[tuple[int, int, int], ...], depot: int, home: tuple[float, ...], length: int
) -> np.ndarray | None:
    """See :meth:`Path.passable`; kept by graph, so that instances on one graph share it."""
    into: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for i, j, steps in arcs:
        into[j].append((i, steps))
    # Sets new at (arm, time), and all that were there earlier: waiting changes nothing, so only the first counts.
    fresh: dict[tuple[int, int], np.ndarray] = {(depot, 0): np.array([1 << depot], dtype=np.uint64)}
    seen = dict.fromkeys(range(len(home)), np.zeros(0, dtype=np.uint64)) | {depot: fresh[depot, 0]}
    for t in range(1, length + 1):
        size = 0
        for arm in range(len(home)):
            before = [fresh[i, t - steps] for i, steps in into[arm] if (i, t - steps) in fresh]
            if not before or home[arm] > length - t:
                continue
            passed = np.unique(np.concatenate(before) | np.uint64(1 << arm))
            new = np.setdiff1d(passed, seen[arm], assume_unique=True)
            fresh[arm, t], seen[arm] = new, np.union1d(seen[arm], new)
            size += len(new)
        if size > MOST_WALKS:
            return None
    sets = seen[depot]
    within = np.zeros(len(sets), dtype=bool)
    for arm in range(len(home)):
        bit = np.uint64(1 << arm)
        place = np.minimum(np.searchsorted(sets, sets | bit), len(sets) - 1)
        within |= ((sets & bit) == 0) & (sets[place] == (sets | bit))
    return sets[~within]
