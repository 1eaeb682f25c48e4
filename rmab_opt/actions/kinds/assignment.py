"""Generalised assignment: every chosen arm is carried by one worker whose capacity holds its load."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BeforeValidator
from scipy import sparse

from rmab_opt.actions.columns import Columns
from rmab_opt.actions.constraint import Constraint, Rows, table_with
from rmab_opt.actions.kinds.rows import opened, row_unit, tolerance
from rmab_opt.actions.packing import carried_rows, pack
from rmab_opt.errors import Findings, UnsettledError
from rmab_opt.overdue import checkpoint
from rmab_opt.problem import Table

__all__ = ["Capacity"]

PACKING_NODES, PACKING_WORK = 200_000, 5_000_000
"""Nodes after which the packing check gives up, and nodes times arms and workers; never silently."""

LARGE = 4000
"""Pairs of columns and workers from which packings are found and bounded without a program of them."""

FILLED_UNITS = 100_000
"""Room of a worker, in units of load, up to which the packing check lists all sums."""

REMEMBERED = 50_000
"""Lists of loads whose answer is kept."""


class Capacity(Constraint, kind="capacity"):
    """Every chosen arm is assigned to one worker; loads stay within the workers' capacities.

    sum over i of x[c, i] = act[c]; sum over c of cost[c] * x[c, i] <= capacity[i].

    References
    ----------
    Xu, Wilder, Khalil, Tambe (ICLR 2025), capacity-constrained setting.
    """

    limiting: ClassVar[tuple[str, ...]] = ("load_of",)
    own_variables: ClassVar[bool] = True

    workers: Annotated[Table, BeforeValidator(table_with("worker", "capacity"))]
    """Table with columns ``worker`` and ``capacity``."""
    cost: str | None = None
    """Column of the arms' table with the load of each arm; 1 an arm when absent."""

    def build(self, block: Any, act: Any, columns: Columns) -> None:
        import pyomo.environ as pyo

        names, capacity, load = self._data(columns)
        pairs = [
            (c, i)
            for c in range(len(columns))
            for i in range(len(names))
            if load[c] <= capacity[i] + tolerance(capacity[i])
        ]
        carriers: list[list[int]] = [[] for _ in columns.ids]
        carried: list[list[int]] = [[] for _ in names]
        for c, i in pairs:
            carriers[c].append(i)
            carried[i].append(c)
        # Equal loads make the rows a network (after rounding capacities to whole arms): no binaries needed.
        equal = bool(len(set(load.tolist())) == 1 and load[0] > 0)
        block.carries = pyo.Var(pairs, domain=pyo.UnitInterval if equal else pyo.Binary)

        @block.Constraint(list(columns.ids))
        def assigned(_: Any, name: str) -> Any:
            checkpoint()
            c = columns.index(name)
            if not carriers[c]:
                return act[c] == 0
            return sum(block.carries[c, i] for i in carriers[c]) == act[c]

        @block.Constraint([name for i, name in enumerate(names) if carried[i]])
        def load_of(_: Any, name: str) -> Any:
            checkpoint()
            i = names.index(name)
            if equal:
                return sum(block.carries[c, i] for c in carried[i]) <= int(
                    (capacity[i] + tolerance(capacity[i])) // load[0]
                )
            return sum(float(load[c]) * block.carries[c, i] for c in carried[i]) <= float(capacity[i])

        # Workers of equal capacity are interchangeable; ordering their loads removes the copies of each plan.
        order = [i for i in np.argsort(capacity, kind="stable").tolist() if carried[i]]
        twins = [(i, j) for i, j in itertools.pairwise(order) if capacity[i] == capacity[j]]
        if not equal and twins:

            @block.Constraint([f"{names[i]} {names[j]}" for i, j in twins])
            def symmetry(_: Any, name: str) -> Any:
                checkpoint()
                i, j = twins[[f"{names[a]} {names[b]}" for a, b in twins].index(name)]
                return sum(float(load[c]) * block.carries[c, i] for c in carried[i]) >= sum(
                    float(load[c]) * block.carries[c, j] for c in carried[j]
                )

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        _, capacity, load = self._data(columns)
        chosen = np.flatnonzero(action)
        too_big = [columns.ids[c] for c in chosen if load[c] > capacity.max() + tolerance(capacity.max())]
        if too_big:
            yield f"{', '.join(too_big)}: no worker has the capacity for one of them"
        elif self._packing(chosen, columns) is None:
            unit = self.unit(columns)
            yield f"loads {', '.join(f'{load[c] * unit:g}' for c in chosen)} do not fit the workers' capacities"

    def outer_rows(self, columns: Columns) -> Rows | None:
        _, capacity, load = self._data(columns)
        if len(load) * len(capacity) <= LARGE:
            return None

        def rows() -> Rows:
            matrix, limit = carried_rows(load, _opened(capacity))
            names = [f"carried {k + 1}" for k in range(len(limit))]
            return Rows(sparse.csr_array(matrix), np.full(len(limit), -np.inf), limit, names)

        return self._once(columns, rows)

    def packed(
        self,
        wanted: np.ndarray,
        others: np.ndarray,
        gain: np.ndarray,
        worth: np.ndarray,
        columns: Columns,
        swap: Callable[[int, int], bool],
        *,
        until: float = np.inf,
    ) -> tuple[np.ndarray, list[dict[str, str]]]:
        names, capacity, load = self._data(columns)
        place = pack(wanted, others, gain, worth, load, _opened(capacity), swap, until)
        action = np.zeros(len(columns), dtype=np.int64)
        action[list(place)] = 1
        rows = [{"column": columns.ids[c], "worker": names[i]} for i, c in sorted((i, c) for c, i in place.items())]
        if self.proves(rows, action, columns):
            # Full workers are hard to fill again from nothing: what was found and holds is remembered for the check.
            known, order, key = self._remembered(np.flatnonzero(action), columns)
            known[key] = np.array([place[c] for c in order.tolist()], dtype=np.int32)
        return action, rows

    def alike(self, columns: Columns) -> np.ndarray:
        return np.unique(self._data(columns)[2], return_inverse=True)[1]

    def _packing(self, chosen: np.ndarray, columns: Columns) -> dict[int, int] | None:
        """Worker of every chosen column, None where there is no packing.

        Only the loads matter, and the same few lists of loads come again and again.
        """
        _, capacity, load = self._data(columns)
        known, order, key = self._remembered(chosen, columns)
        if key not in known:
            found = self._pack(chosen, capacity, load)
            known[key] = None if found is None else np.array([found[c] for c in order.tolist()], dtype=np.int32)
        workers = known[key]
        return None if workers is None else dict(zip(order.tolist(), workers.tolist(), strict=True))

    def _remembered(
        self, chosen: np.ndarray, columns: Columns
    ) -> tuple[dict[bytes, np.ndarray | None], np.ndarray, bytes]:
        """(workers by loads in rising order; the chosen columns in that order; what they are remembered by)."""
        known: dict[bytes, np.ndarray | None] = self._once(columns, dict)
        if len(known) >= REMEMBERED:
            known.clear()
        load = self._data(columns)[2]
        order = chosen[np.argsort(load[chosen], kind="stable")]
        return known, order, load[order].tobytes()

    def describe(self) -> str:
        return f"every arm with one of {len(self.workers)} workers, {self.cost or 'arms'} within each worker's capacity"

    def check(self, columns: Columns) -> None:
        self._data(columns)

    def monotone(self, columns: Columns) -> bool:
        return True

    def assignment(self, action: np.ndarray, columns: Columns) -> list[dict[str, str]]:
        """Rows ``column, worker``, worker by worker; empty when the action does not fit."""
        names = self._data(columns)[0]
        packed = self._packing(np.flatnonzero(action), columns)
        if packed is None:
            return []
        return [
            {"column": columns.ids[c], "worker": names[i]} for i, c in sorted((i, int(c)) for c, i in packed.items())
        ]

    def misassigned(self, rows: list[dict[str, str]], action: np.ndarray, columns: Columns) -> str | None:
        names, capacity, load = self._data(columns)
        used, at = np.zeros(len(names)), {name: i for i, name in enumerate(names)}
        for row in rows:
            if set(row) != {"column", "worker"}:
                return f"{row}: a row names column and worker"
            if row["column"] not in columns or row["worker"] not in at:
                return f"{row}: no such column or worker"
            used[at[row["worker"]]] += load[columns.index(row["column"])]
        if sorted(row["column"] for row in rows) != sorted(columns.ids[c] for c in np.flatnonzero(action)):
            return "not every chosen column stands once"
        full = [
            name for name, load_of, most in zip(names, used, capacity, strict=True) if load_of > most + tolerance(most)
        ]
        return f"worker {full[0]!r} carries more than the capacity" if full else None

    def proves(self, rows: list[dict[str, str]], action: np.ndarray, columns: Columns) -> bool:
        return self.misassigned(rows, action, columns) is None

    def witness(
        self, block: Any, values: Callable[[Any], np.ndarray], action: np.ndarray, columns: Columns
    ) -> list[dict[str, str]]:
        names = self._data(columns)[0]
        pairs = np.array(list(block.carries), dtype=np.int64).reshape(-1, 2)
        carried = pairs[values(block.carries) > 0.5]
        return [{"column": columns.ids[c], "worker": names[i]} for i, c in sorted((i, c) for c, i in carried.tolist())]

    def _data(self, columns: Columns) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Workers' names, capacities (W,) and the columns' loads (C,), both divided by :meth:`unit`."""

        def data() -> tuple[list[str], np.ndarray, np.ndarray]:
            names = self.workers.only(("worker", "capacity")).text("worker")
            findings = Findings(self.workers.source)
            if not names:
                findings.add("", "there is no worker", "give one row a worker")
            for row, name in enumerate(names):
                if not name:
                    findings.add(self.workers.place(row), "worker is missing", "name the worker")
                elif names.index(name) != row:
                    findings.add(self.workers.place(row), f"worker {name!r} stands twice", "give each worker one row")
            findings.raise_if_any()
            capacity = self.workers.numbers("capacity", minimum=0.0)
            load = np.ones(len(columns)) if self.cost is None else columns.numbers(self.cost, minimum=0.0)
            unit = row_unit(load)
            return names, capacity / unit, load / unit

        return self._once(columns, data)

    def divided(self, block: Any, columns: Columns) -> list[tuple[Any, float]]:
        load = self._data(columns)[2]
        # Equal loads are written as counts.
        counts = len(set(load.tolist())) == 1 and load[0] > 0
        return [] if counts or self.unit(columns) == 1.0 else [(block.load_of, self.unit(columns))]

    def unit(self, columns: Columns) -> float:
        """The power of two that loads and capacities are divided by, for the program, the check and the packing."""
        return 1.0 if self.cost is None else row_unit(columns.numbers(self.cost, minimum=0.0))

    @staticmethod
    def _fill(items: list[int], room: list[float], load: np.ndarray) -> dict[int, int] | None:
        """A packing of whole loads by filling one worker after the other as full as can be; None where that fails.

        The least room first, with all sums that the loads left over reach as bits of one number: a second of depth
        first search is saved where hardly any minute is left over.
        """
        if any(load[c] != int(load[c]) for c in items) or max(room, default=0.0) > FILLED_UNITS:
            return None
        left, place = list(items), dict[int, int]()
        for worker in np.argsort(room, kind="stable").tolist():
            reached = [1]
            mask = (1 << int(room[worker]) + 1) - 1
            for c in left:
                reached.append((reached[-1] | reached[-1] << int(load[c])) & mask)
            total = reached[-1].bit_length() - 1
            for k in range(len(left), 0, -1):
                # Leaving an item out is preferred: the largest come first in the list and go first.
                if not reached[k - 1] >> total & 1:
                    total -= int(load[left[k - 1]])
                    place[left[k - 1]] = worker
            left = [c for c in left if c not in place]
        return None if left else place

    def _pack(self, chosen: np.ndarray, capacity: np.ndarray, load: np.ndarray) -> dict[int, int] | None:
        """Worker of every chosen column, or None when there is no packing: exact depth-first search.

        Largest load first, fullest fitting worker first (best fit, which usually succeeds at once);
        states of equal remaining capacities are visited once.
        """
        items = sorted((int(c) for c in chosen), key=lambda c: (-load[c], c))
        remaining = [float(limit) + tolerance(limit) for limit in capacity]
        if sum(load[c] for c in items) > sum(remaining):
            return None
        filled = self._fill(items, remaining, load)
        if filled is not None:
            return filled
        failed: set[tuple[int, tuple[float, ...]]] = set()
        place: dict[int, int] = {}
        nodes, most = 0, min(PACKING_NODES, PACKING_WORK // (len(items) + len(remaining)))
        # Explicit stack of (item, workers still to try): chosen sets may be longer than Python's recursion limit.
        stack: list[tuple[int, list[int]]] = []

        def candidates(depth: int) -> list[int]:
            need = load[items[depth]]
            fitting: dict[float, int] = {}
            for i, room in enumerate(remaining):
                if room >= need:
                    fitting.setdefault(round(room, 9), i)
            return [fitting[room] for room in sorted(fitting, reverse=True)]

        if not items:
            return place
        stack.append((0, candidates(0)))
        while stack:
            checkpoint()
            depth, options = stack[-1]
            item = items[depth]
            if item in place:
                remaining[place.pop(item)] += float(load[item])
            if not options:
                failed.add((depth, tuple(sorted(round(room, 9) for room in remaining))))
                stack.pop()
                continue
            nodes += 1
            if nodes > most:
                raise UnsettledError(
                    f"a packing check of {len(items)} arms within {most} nodes",
                    self,
                    ("round loads and capacities to coarser units", "split the workers into teams of their own"),
                )
            worker = options.pop()  # smallest remaining room that fits stands last
            place[item] = worker
            remaining[worker] -= float(load[item])
            if depth + 1 == len(items):
                return place
            if (depth + 1, tuple(sorted(round(room, 9) for room in remaining))) not in failed:
                stack.append((depth + 1, candidates(depth + 1)))
        return None


def _opened(capacity: np.ndarray) -> np.ndarray:
    """Capacities as the check lets them be filled."""
    return opened(capacity, capacity)[1]
