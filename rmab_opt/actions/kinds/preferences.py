"""What people like without demanding it: few changes, the same worker, a slot. Given a price, each is a preference.

Any kind can be ``soft``: it is then no constraint but costs that much a unit of violation; these kinds are made for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BeforeValidator

from rmab_opt.actions.columns import Columns
from rmab_opt.actions.constraint import Constraint, LimitField, as_number, in_words, table_with
from rmab_opt.actions.kinds.rows import Part, PlainKind
from rmab_opt.actions.kinds.scheduling import Scheduling
from rmab_opt.errors import Findings, ModelError
from rmab_opt.problem import Table
from rmab_opt.problem.table import nearest

__all__ = ["Continuity", "PreferredSlot", "SameWorker", "Wish"]

NO_WAY = 1e9
"""Cost of a shift that a column cannot be served in."""


class Continuity(PlainKind, kind="continuity"):
    """At most so many changes against an earlier list: who comes and who goes count one each.

    sum of act[c] over c not on the list + sum of (1 - act[c]) over c on it <= at_most. ``soft`` prices every change
    beyond ``at_most``.
    """

    component: ClassVar[str] = "changes"

    last: Annotated[Table, BeforeValidator(table_with("id"))]
    """The earlier list: column ``id``; who is no column any more is not counted."""
    at_most: LimitField = 0.0
    """Changes."""

    def _listed(self, columns: Columns) -> np.ndarray:
        listed = set(self.last.text("id"))
        return np.array([name in listed for name in columns.ids], dtype=bool)

    def sums(self, columns: Columns) -> dict[str, Part]:
        most, listed = as_number(self.at_most), self._listed(columns)
        assert most is not None
        return {"all": (None, np.arange(len(columns)), np.where(listed, -1.0, 1.0), most - float(listed.sum()))}

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        most = as_number(self.at_most)
        assert most is not None
        changes = int((np.asarray(action, dtype=bool) != self._listed(columns)).sum())
        if changes > most + 1e-6:
            yield f"{changes} changes against the last list, allowed are {most:g}"

    def describe(self) -> str:
        return f"at most {in_words(self.at_most)} changes against a list of {len(self.last)}"


class Wish(Constraint):
    """A wish about who serves a column, or when, over the shifts of a roster with one visit a column.

    As a constraint, every chosen column with a wish is served so within the roster. With ``soft`` it is a preference:
    all wishes on one roster are met together as well as they can be, by the cheapest assignment.
    """

    needs: ClassVar[tuple[str, ...]] = ("roster",)
    looks_only: ClassVar[bool] = True

    roster: str
    """Name of the ``scheduling`` constraint whose shifts this is about."""

    def grants(self, column: int, worker: str, slot: str, columns: Columns) -> bool:
        """Whether a shift is what a column wishes; True where it wishes nothing."""
        raise NotImplementedError

    def whose(self) -> Scheduling:
        """The roster."""
        found = self.other("roster")
        assert isinstance(found, Scheduling)  # check() has refused anything else
        return found

    def check(self, columns: Columns) -> None:
        found = self.other("roster")
        if not isinstance(found, Scheduling) or found.visits != 1 or found.soft is not None:
            raise ModelError(
                f"roster: {self.roster!r} is no firm roster with one visit an arm",
                "name a constraint of kind 'scheduling' with visits: 1 and without soft.",
            )

    def unmet(self, columns: Columns) -> np.ndarray:
        """Whether each shift is against a column's wish, bool (C, shifts of the roster)."""

        def against() -> np.ndarray:
            shifts = self.whose().shifts_of(columns)
            return np.array(
                [[not self.grants(c, w, s, columns) for w, s, _ in shifts] for c in range(len(columns))], dtype=bool
            ).reshape(len(columns), len(shifts))

        return self._once(columns, against)

    def build(self, block: Any, act: Any, columns: Columns) -> None:
        build_visits(block, act, self.whose().open_to(columns) & ~self.unmet(columns), self._calls(columns))

    def _calls(self, columns: Columns) -> list[int]:
        return [calls for _, _, calls in self.whose().shifts_of(columns)]

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        chosen = np.flatnonzero(action)
        cost = np.where(self.unmet(columns), 1.0, 0.0)
        visits = cheapest(chosen, self.whose().open_to(columns), cost, self._calls(columns))
        if visits is None:
            yield f"{len(chosen)} chosen, more than the roster can serve"
            return
        against = [columns.ids[c] for c, k in visits if cost[c, k]]
        if against:
            yield f"{', '.join(against[:5])}: cannot all be served so that {self.describe()}"

    def monotone(self, columns: Columns) -> bool:
        return True

    def shortfall(self, actions: np.ndarray, columns: Columns) -> np.ndarray:
        """Columns not served as they wish, were this the only wish; all where the roster cannot serve them."""
        cost, calls, found = np.where(self.unmet(columns), 1.0, 0.0), self._calls(columns), []
        for action in np.asarray(actions):
            visits = cheapest(np.flatnonzero(action), self.whose().open_to(columns), cost, calls)
            found.append(float(action.sum()) if visits is None else sum(float(cost[c, k]) for c, k in visits))
        return np.array(found)


class SameWorker(Wish, kind="same_worker"):
    """The worker of last time, for columns that had one."""

    last: Annotated[Table, BeforeValidator(table_with("id", "worker"))]
    """Columns ``id`` and ``worker``: an earlier list, as it was written."""

    def grants(self, column: int, worker: str, slot: str, columns: Columns) -> bool:
        return self._workers(columns).get(column, worker) == worker

    def _workers(self, columns: Columns) -> dict[int, str]:
        def workers() -> dict[int, str]:
            here = set(self.whose().roster.text("worker"))
            rows = zip(self.last.text("id"), self.last.text("worker"), strict=True)
            # Who has left the roster cannot be wished for.
            return {columns.index(name): worker for name, worker in rows if name in columns and worker in here}

        return self._once(columns, workers)

    def describe(self) -> str:
        return "everybody has the worker of last time"


class PreferredSlot(Wish, kind="preferred_slot"):
    """One of the slots that a column likes best, of those it is available in."""

    slots: str = "preferred"
    """Column of the cohort's table with the slots that are liked, separated by ``;``; empty: no wish."""

    def grants(self, column: int, worker: str, slot: str, columns: Columns) -> bool:
        liked = self._liked(columns)[column]
        return not liked or slot in liked

    def _liked(self, columns: Columns) -> list[set[str]]:
        def liked() -> list[set[str]]:
            return [{part.strip() for part in cell.split(";") if part.strip()} for cell in columns.text(self.slots)]

        return self._once(columns, liked)

    def check(self, columns: Columns) -> None:
        super().check(columns)
        if self.slots not in columns.names:
            raise ModelError(f"slots: no column {self.slots!r}", nearest(self.slots, list(columns.names)))
        known, findings = set(self.whose().roster.text("slot")), Findings("preferred slots")
        for name, liked in zip(columns.ids, self._liked(columns), strict=True):
            for slot in sorted(liked - known):
                findings.add(name, f"no slot {slot!r} in the roster", nearest(slot, sorted(known)))
        findings.raise_if_any()

    def describe(self) -> str:
        return "everybody is served in a slot they like"


def build_visits(block: Any, act: Any, open_to: np.ndarray, calls: list[int]) -> dict[tuple[int, int], Any]:
    """Visits of columns in shifts they may use, (C, K), as a flow: one an acted-on column, at most ``calls`` a shift.

    Continuous: for a fixed binary action the rows are a network, so some cheapest flow is whole.
    """
    import pyomo.environ as pyo

    pairs = [(int(c), int(k)) for c, k in zip(*np.nonzero(open_to), strict=True)]
    block.visit = pyo.Var(pairs, bounds=(0, 1))
    by_column: dict[int, list[int]] = {}
    by_shift: dict[int, list[int]] = {}
    for c, k in pairs:
        by_column.setdefault(c, []).append(k)
        by_shift.setdefault(k, []).append(c)

    @block.Constraint(range(len(open_to)))
    def once(_: Any, c: int) -> Any:
        if c not in by_column:
            return act[c] == 0
        return sum(block.visit[c, k] for k in by_column[c]) == act[c]

    @block.Constraint(sorted(by_shift))
    def shift(_: Any, k: int) -> Any:
        return sum(block.visit[c, k] for c in by_shift[k]) <= calls[k]

    return {pair: block.visit[pair] for pair in pairs}


def cheapest(
    chosen: np.ndarray, open_to: np.ndarray, cost: np.ndarray, calls: list[int]
) -> list[tuple[int, int]] | None:
    """(column, shift) of the cheapest way to serve the chosen columns; None where they cannot all be served."""
    # Loaded where it is used: it takes a third of a second that few decisions need.
    from scipy.optimize import linear_sum_assignment

    if not len(chosen):
        return []
    copies = np.repeat(np.arange(len(calls)), np.minimum(calls, len(chosen)))
    if len(copies) < len(chosen):
        return None
    paid = np.where(open_to[chosen], cost[chosen], NO_WAY)[:, copies]
    rows, places = linear_sum_assignment(paid)
    if (paid[rows, places] >= NO_WAY).any():
        return None
    return [(int(chosen[row]), int(copies[place])) for row, place in zip(rows, places, strict=True)]
