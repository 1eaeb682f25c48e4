"""Rest between shifts: the example of a rule over another constraint that CONTRIBUTING.md walks through."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from pydantic import Field

from rmab_opt.actions.columns import Columns
from rmab_opt.actions.kinds.scheduling import Roster, RosterRule, Shift
from rmab_opt.errors import ModelError

__all__ = ["RestAfter"]


class RestAfter(RosterRule, kind="rest_after"):
    """A worker rests after a slot with visits, and has visits in at most so many slots a day.

    For every worker i and any ``rest`` + 1 consecutive slots: sum of works[i, s] <= 1; for every day, sum of
    works[i, s] over its slots <= ``a_day``. Where the roster has days, slots of different days are not consecutive.
    """

    rest: int = Field(default=1, ge=0)
    """Slots that follow a slot with visits and must be free; 0 for none."""
    a_day: int | None = Field(default=None, ge=1)
    """Slots with visits a worker and day."""
    day: str = "day"
    """Column of the roster with the day of each slot; without it all slots follow one another."""

    def check(self, columns: Columns) -> None:
        super().check(columns)
        table = self.other("roster").parts(columns).table
        if self.a_day is not None and self.day not in table:
            raise ModelError(
                f"a_day is given, but {table.source} has no column {self.day!r}", "add it, or leave a_day out."
            )
        if self.rest == 0 and self.a_day is None:
            raise ModelError("rest is 0 and a_day is not given", "give one of them.")
        self._days(self.other("roster").parts(columns))

    def build(self, block: Any, act: Any, columns: Columns) -> None:
        import pyomo.environ as pyo

        works, roster = self.other_block(block, "roster").works, self.other("roster").parts(columns)
        # Windows of rest + 1 slots with at most one worked, and whole days with at most a_day.
        limits: dict[tuple[str, str], tuple[Sequence[str], int]] = {}
        for day, slots in self._days(roster).items():
            windows = [slots[k : k + self.rest + 1] for k in range(max(1, len(slots) - self.rest))]
            for worker in roster.workers:
                limits |= {(worker, f"from {window[0]}"): (window, 1) for window in windows if self.rest}
                if self.a_day is not None:
                    limits[worker, f"day {day}"] = slots, self.a_day

        @block.Constraint(list(limits))
        def worked(_: Any, worker: str, when: str) -> Any:
            slots, most = limits[worker, when]
            mine = [works[worker, slot] for slot in slots if (worker, slot) in roster.open]
            return sum(mine) <= most if len(mine) > most else pyo.Constraint.Skip

    def clash(self, worked: Sequence[Shift], roster: Roster) -> Sequence[Shift] | None:
        place = {slot: (day, k) for day, slots in self._days(roster).items() for k, slot in enumerate(slots)}
        of_day: dict[tuple[str, str], list[Shift]] = defaultdict(list)
        for worker, slot in sorted(worked, key=lambda shift: place[shift[1]][1]):
            of_day[worker, place[slot][0]].append((worker, slot))
        for shifts in of_day.values():
            for first, second in pairwise(shifts):
                if place[second[1]][1] - place[first[1]][1] <= self.rest:
                    return first, second
            if self.a_day is not None and len(shifts) > self.a_day:
                return shifts[: self.a_day + 1]
        return None

    def describe(self) -> str:
        said = []
        if self.rest:
            said.append("a worker rests " + ("one slot" if self.rest == 1 else f"{self.rest} slots") + " after each")
        if self.a_day is not None:
            said.append(("" if self.rest else "a worker serves ") + f"at most {self.a_day} a day")
        return ", ".join(said)

    def _days(self, roster: Roster) -> dict[str, list[str]]:
        """Day to its slots in the order of time; one day where the roster has none."""
        of_slot = roster.of_slot(self.day) if self.day in roster.table else {}
        days: dict[str, list[str]] = defaultdict(list)
        for slot in roster.slots:
            if not of_slot or slot in of_slot:
                days[of_slot.get(slot, "")].append(slot)
        return days
