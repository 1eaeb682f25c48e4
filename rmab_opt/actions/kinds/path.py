"""Routes: the chosen arms lie on walks that leave the depot and are back in time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BeforeValidator, Field
from scipy import sparse

from rmab_opt.actions.columns import Columns
from rmab_opt.actions.constraint import Constraint, table_with
from rmab_opt.actions.tours import Orienteering, shortened
from rmab_opt.errors import Findings, ModelError, UnsettledError
from rmab_opt.problem import Table
from rmab_opt.problem.table import nearest

__all__ = ["Path"]

REMEMBERED = 100_000
"""Sets of stops whose routes are kept."""

MOST_WALKS = 4_000_000
"""Walks told apart at one time, beyond which the sets they pass are not listed."""

FEW_STOPS = 16
"""Stops within reach up to which all their subsets are tried: half a second and 8 MiB."""

MOST_STOPS = 18
"""Chosen arms that the exact tour check (2**k k**2 steps) takes; more are refused, never guessed."""


class Path(Constraint, kind="path"):
    """Every chosen arm is passed by a walk of at most ``length`` time steps from the depot back to it.

    One unit of flow a vehicle through the time-expanded graph: f[j, k, t] says that a vehicle leaves j
    at time t for k (or waits, j = k); flow in = flow out at every (j, t); it starts and ends at the depot;
    act[j] <= sum of the flow into j. Layers make the flow a closed walk, so no subtours arise. Arcs that
    cannot be reached from the depot in time, or not return in time, are left out.

    References
    ----------
    Xu, Wilder, Khalil, Tambe (ICLR 2025), path-constrained setting, with waiting counted as a move
    (without it the published rows admit every set of arms).
    """

    limiting: ClassVar[tuple[str, ...]] = ("passed",)
    own_variables: ClassVar[bool] = True

    edges: Annotated[Table, BeforeValidator(table_with("from", "to"))]
    """Table with columns ``from``, ``to`` (ids of arms) and optional ``minutes`` (whole time steps, 1 by
    default); each edge may be used both ways."""
    depot: str
    """Where every route begins and ends: an arm, which counts as visited; with ``point`` one of the roads."""
    length: int = Field(ge=1)
    """Time steps a route may take."""
    vehicles: int = Field(default=1, ge=1)
    """How many routes there are."""
    point: str | None = None
    """Column of the arms' table with the point of the roads where each arm is, e.g. its village; whoever passes a point
    passes all arms there. By default the arms are the points."""

    def build(self, block: Any, act: Any, columns: Columns) -> None:
        import pyomo.environ as pyo

        graph, depot = self._graph(columns)
        out, home = self._distances(columns)
        arcs: list[tuple[int, int, int, int]] = []
        for j, k, minutes in [*graph, *((j, j, 1) for j in range(len(self._points(columns)[0])))]:
            for t in range(self.length - minutes + 1):
                if out[j] <= t and home[k] <= self.length - t - minutes:
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
        block.back = pyo.Constraint(expr=sum(entering[depot, self.length]) == self.vehicles)
        inner = [place for place in {*leaving, *entering} if 0 < place[1] < self.length]

        @block.Constraint(sorted(inner))
        def onward(_: Any, j: int, t: int) -> Any:
            return sum(entering[j, t]) == sum(leaving[j, t])

        arrivals: dict[int, list[Any]] = defaultdict(list)
        for (k, _), flows in entering.items():
            arrivals[k] += flows

        point = self._points(columns)[1]

        @block.Constraint([name for c, name in enumerate(columns.ids) if point[c] != depot])
        def passed(_: Any, name: str) -> Any:
            c = columns.index(name)
            here = arrivals[int(point[c])]
            return act[c] <= sum(here) if here else act[c] == 0

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        stops, names = self._stops(action, columns), self._points(columns)[0]
        out, home = self._distances(columns)
        far = [names[k] for k in stops if out[k] + home[k] > self.length]
        if far:
            yield f"{', '.join(far[:5])}: there and back from {self.depot} takes longer than {self.length}"
        elif self._routes(stops, columns) is None:
            routes = "no route" if self.vehicles == 1 else f"no {self.vehicles} routes"
            passed = ", ".join(names[k] for k in stops)
            yield f"{routes} of {self.length} steps from {self.depot} and back passes {passed}"

    def describe(self) -> str:
        routes = "one route" if self.vehicles == 1 else f"{self.vehicles} routes"
        return f"on {routes} from {self.depot} and back within {self.length} steps"

    def check(self, columns: Columns) -> None:
        self._graph(columns)

    def monotone(self, columns: Columns) -> bool:
        return True

    def assignment(self, action: np.ndarray, columns: Columns) -> list[dict[str, str]]:
        """Rows ``column, route, stop`` in the order of visiting; empty when no route exists."""
        routes = self._routes(self._stops(action, columns), columns)
        if routes is None:
            return []
        return self.told(routes, action, columns)

    def misassigned(self, rows: list[dict[str, str]], action: np.ndarray, columns: Columns) -> str | None:
        if any(set(row) != {"column", "route", "stop"} or not row["stop"].isdecimal() for row in rows):
            return "a row names column, route and stop, a number"
        if sorted(row["column"] for row in rows) != sorted(columns.ids[c] for c in np.flatnonzero(action)):
            return "not every chosen column stands once"
        point, depot, between = self._points(columns)[1], self._graph(columns)[1], self._all_distances(columns)
        routes: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for row in rows:
            k = int(point[columns.index(row["column"])])
            if k != depot:
                routes[row["route"]].append((int(row["stop"]), k))
        if len(routes) > self.vehicles:
            return f"{len(routes)} routes, {self.vehicles} allowed"
        for name, stops in routes.items():
            way = np.array([depot, *(k for _, k in sorted(stops)), depot])
            if (steps := float(between[way[:-1], way[1:]].sum())) > self.length:
                return f"route {name} takes {steps:g} steps, {self.length} allowed"
        return None

    def proves(self, rows: list[dict[str, str]], action: np.ndarray, columns: Columns) -> bool:
        return self.misassigned(rows, action, columns) is None

    def witness(
        self, block: Any, values: Callable[[Any], np.ndarray], action: np.ndarray, columns: Columns
    ) -> list[dict[str, str]]:
        minutes = {(j, k): steps for j, k, steps in self._graph(columns)[0]}
        onward: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for (j, k, t), times in zip(block.move, np.rint(values(block.move)).astype(np.int64).tolist(), strict=True):
            onward[j, t] += [(k, t + minutes.get((j, k), 1))] * times
        depot, routes = self._graph(columns)[1], []
        open_ = set(self._stops(action, columns))
        for _ in range(self.vehicles):
            at, route = (depot, 0), list[int]()
            while onward[at]:
                at = onward[at].pop()
                if at[0] in open_:
                    open_.remove(at[0])
                    route.append(at[0])
            routes.append(route)
        return self.told([route for route in routes if route], action, columns)

    def task(self, columns: Columns, most: int | None = None) -> tuple[Orienteering, list[int]]:
        """The routes as a task over the depot and the stops within reach, and these points, the depot first.

        Parameters
        ----------
        most
            Columns that may be chosen in all.
        """
        point, depot = self._points(columns)[1], self._graph(columns)[1]
        points = [depot, *self._within_reach(columns)]
        between = self._all_distances(columns)[np.ix_(points, points)]
        members = tuple(np.flatnonzero(point == k) for k in points)
        return Orienteering(between, self.length, self.vehicles, most, members), points

    def told(self, routes: list[list[int]], action: np.ndarray, columns: Columns) -> list[dict[str, str]]:
        """Rows ``column, route, stop`` of the chosen columns along routes of points without the depot."""
        point, depot = self._points(columns)[1], self._graph(columns)[1]
        chosen = np.flatnonzero(action)
        rows = [
            {"column": columns.ids[c], "route": str(number), "stop": str(place)}
            for number, route in enumerate(routes, start=1)
            for place, k in enumerate(route, start=1)
            for c in chosen[point[chosen] == k].tolist()
        ]
        here = chosen[point[chosen] == depot].tolist()
        at_depot = [{"column": columns.ids[c], "route": "1", "stop": "0"} for c in here]
        return at_depot + rows

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
        if self.vehicles != 1 or self.point is not None:
            return None
        arcs, depot = self._graph(columns)
        _, home = self._distances(columns)
        return _passed_sets(tuple(arcs), depot, tuple(home.tolist()), self.length)

    def moves(self, columns: Columns) -> int:
        """Moves between points at a time that :meth:`build` makes variables of, at most."""
        return (len(self._graph(columns)[0]) + len(self._points(columns)[0])) * self.length

    def few(self, columns: Columns) -> bool:
        """Whether the stops within reach are so few that a table over their subsets is made in a moment."""
        return len(self._within_reach(columns)) <= FEW_STOPS

    def _within_reach(self, columns: Columns) -> list[int]:
        """Points of columns, without the depot, that can be reached and left in time."""
        out, home = self._distances(columns)
        stops = self._stops(np.ones(len(columns), dtype=np.int64), columns)
        return [k for k in stops if out[k] + home[k] <= self.length]

    def _passable_by_stops(self, columns: Columns) -> np.ndarray | None:
        """:meth:`passable` by a table over all subsets of the stops (Held and Karp 1962), for few of them."""
        stops, (out, home) = self._within_reach(columns), self._distances(columns)
        point, depot = self._points(columns)[1], self._graph(columns)[1]
        here = sum(1 << c for c in np.flatnonzero(point == depot).tolist())
        if not stops:
            return np.array([here], dtype=np.uint64)
        cost = _tours(self._all_distances(columns)[np.ix_(stops, stops)], out[stops])
        fits = (cost + home[stops]).min(axis=1) <= self.length
        fits[0] = True
        # Leaving a stop out never lengthens a way by shortest paths: the largest sets say all.
        largest = one = _largest(fits)
        for _ in range(self.vehicles - 1):
            if len(largest) * len(one) > MOST_WALKS:
                return None
            together = np.zeros(len(fits), dtype=bool)
            together[(largest[:, None] | one[None, :]).ravel()] = True
            for k in range(len(stops)):
                # Subsets are allowed as well.
                without = together.reshape(-1, 2, 1 << k)
                without[:, 0] |= without[:, 1]
            largest = _largest(together)
        sets = np.full(len(largest), here, dtype=np.uint64)
        for k, stop in enumerate(stops):
            members = np.uint64(sum(1 << c for c in np.flatnonzero(point == stop).tolist()))
            sets |= np.where(largest >> k & 1 == 1, members, np.uint64(0))
        return sets

    def _routes(self, stops: list[int], columns: Columns) -> list[list[int]] | None:
        """Shortest closed tours through the stops (Held and Karp 1962), or None when they take too long."""
        count = len(stops)
        if count > MOST_STOPS and (found := self._inserted(stops, columns)) is not None:
            return found
        if count > MOST_STOPS and self._too_far(stops, columns):
            return None
        if count > MOST_STOPS:
            raise UnsettledError(
                f"the exact route check of {count} stops",
                self,
                (f"limit the stops of a round to {MOST_STOPS} by a budget", "split the area into depots"),
            )
        if not count:
            return []
        known: dict[tuple[int, ...], list[list[int]] | None] = self._once(columns, dict)
        if (key := tuple(stops)) not in known:
            # Samplers and simulators ask for the same few sets again and again.
            if len(known) >= REMEMBERED:
                known.clear()
            known[key] = self._solve_routes(stops, columns)
        return known[key]

    def _inserted(self, stops: list[int], columns: Columns) -> list[list[int]] | None:
        """Routes through all stops by cheapest insertion, the farthest first, and 2-opt; None where that fails."""
        depot = self._graph(columns)[1]
        between = self._all_distances(columns)
        routes = [[depot, depot] for _ in range(self.vehicles)]

        def steps(route: list[int]) -> float:
            return float(between[route[:-1], route[1:]].sum())

        for stop in sorted(stops, key=lambda k: -between[depot, k]):
            for again in (False, True):
                if again:
                    routes = [shortened(route, between) for route in routes]
                ways = []
                for number, route in enumerate(routes):
                    extra = between[route[:-1], stop] + between[stop, route[1:]] - between[route[:-1], route[1:]]
                    place = int(extra.argmin())
                    if steps(route) + extra[place] <= self.length:
                        ways.append((float(extra[place]), number, place))
                if ways:
                    break
            if not ways:
                return None
            _, number, place = min(ways)
            routes[number].insert(place + 1, stop)
        return [route[1:-1] for route in routes if len(route) > 2]

    def _too_far(self, stops: list[int], columns: Columns) -> bool:
        """Whether even the shortest tree that joins depot and stops is longer than all routes together."""
        # Loaded where it is used: it takes a third of a second that few decisions need.
        from scipy.sparse.csgraph import minimum_spanning_tree

        joined = [self._graph(columns)[1], *stops]
        between = self._all_distances(columns)[np.ix_(joined, joined)]
        return bool(minimum_spanning_tree(sparse.csr_array(between)).sum() > self.vehicles * self.length)

    def _solve_routes(self, stops: list[int], columns: Columns) -> list[list[int]] | None:
        count = len(stops)
        between = self._all_distances(columns)[np.ix_(stops, stops)]
        out, home = self._distances(columns)
        full = 1 << count
        cost = _tours(between, out[stops])
        tour = (cost + np.array([home[c] for c in stops])).min(axis=1)
        fits = tour <= self.length
        # How few routes cover each subset: one when its tour fits, else the best split.
        parts: dict[int, list[int]] = {0: []}
        for visited in range(1, full):
            if fits[visited]:
                parts[visited] = [visited]
                continue
            if self.vehicles == 1:
                continue
            first = visited & -visited
            rest, piece = visited ^ first, visited ^ first
            best: list[int] | None = None
            while True:
                taken = piece | first
                other = visited ^ taken
                if fits[taken] and other in parts and (best is None or len(parts[other]) + 1 < len(best)):
                    best = [taken, *parts[other]]
                if not piece:
                    break
                piece = (piece - 1) & rest
            if best is not None:
                parts[visited] = best
        found = parts.get(full - 1)
        if found is None or len(found) > self.vehicles:
            return None
        return [self._order(subset, cost, between, [home[c] for c in stops], stops) for subset in found]

    @staticmethod
    def _order(subset: int, cost: np.ndarray, between: np.ndarray, home: list[float], stops: list[int]) -> list[int]:
        order, visited = [], subset
        last = int(np.argmin(cost[subset] + np.array(home)))
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

    def _stops(self, action: np.ndarray, columns: Columns) -> list[int]:
        """Points of the chosen columns, each once, without the depot; ascending."""
        depot = self._graph(columns)[1]
        return [k for k in np.unique(self._points(columns)[1][np.flatnonzero(action)]).tolist() if k != depot]

    def _graph(self, columns: Columns) -> tuple[list[tuple[int, int, int]], int]:
        """Arcs (from, to, steps) in both directions and the depot's position."""

        def graph() -> tuple[list[tuple[int, int, int]], int]:
            names = self._points(columns)[0]
            place = {name: k for k, name in enumerate(names)}
            what = "arm" if self.point is None else "point of the roads"
            if self.depot not in place:
                fix = "name an arm as depot." if self.point is None else nearest(self.depot, names)
                raise ModelError(f"depot: no {what} {self.depot!r}", fix)
            findings = Findings(self.edges.source)
            self.edges.only(("from", "to", "minutes"))
            steps = self.edges.numbers("minutes", minimum=1) if "minutes" in self.edges else np.ones(len(self.edges))
            shortest: dict[tuple[int, int], int] = {}
            for row, (one, two, step) in enumerate(
                zip(self.edges.text("from"), self.edges.text("to"), steps, strict=True)
            ):
                for end in (one, two):
                    if end not in place:
                        findings.add(self.edges.place(row), f"no arm {end!r}", "use ids of the arms")
                if step != int(step):
                    findings.add(self.edges.place(row), f"minutes is {step:g}", "give whole time steps")
                if one in place and two in place:
                    i, j = place[one], place[two]
                    if shortest.get((i, j), int(step)) != int(step):
                        findings.add(
                            self.edges.place(row),
                            f"{one!r} and {two!r} are {shortest[i, j]} minutes apart in another row, {step:g} here",
                            "give a pair one time: ways go in both directions",
                        )
                    shortest[i, j] = shortest[j, i] = int(step)
            findings.raise_if_any()
            arcs = [(i, j, step) for (i, j), step in sorted(shortest.items()) if i != j]
            return arcs, place[self.depot]

        return self._once(columns, graph)

    def _all_distances(self, columns: Columns) -> np.ndarray:
        """Fewest steps between points; infinite where there is no way."""

        def distances() -> np.ndarray:
            # Loaded where it is used: it takes a third of a second that few decisions need.
            from scipy.sparse.csgraph import dijkstra

            arcs, _ = self._graph(columns)
            size = len(self._points(columns)[0])
            matrix = np.zeros((size, size))
            for i, j, step in arcs:
                matrix[i, j] = step
            found: np.ndarray = dijkstra(sparse.csr_array(matrix))
            return found

        return self._once(columns, distances)

    def _distances(self, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
        """Fewest steps from the depot to each point and back."""
        depot = self._graph(columns)[1]
        every = self._all_distances(columns)
        return every[depot], every[:, depot]


def _tours(between: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Fewest steps (2**k, k) of a way that begins at the depot, passes the stops of a subset and ends at one of them.

    Parameters
    ----------
    between
        Steps from stop to stop, (k, k).
    out
        Steps from the depot to each stop, (k,).
    """
    count = len(out)
    cost = np.full((1 << count, count), np.inf)
    cost[1 << np.arange(count), np.arange(count)] = out
    members = np.arange(1 << count)
    size = sum(members >> k & 1 for k in range(count))
    for visited in range(1, count):
        layer = members[size == visited]
        for following in range(count):
            before = layer[layer >> following & 1 == 0]
            cost[before | 1 << following, following] = (cost[before] + between[:, following]).min(axis=1)
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
