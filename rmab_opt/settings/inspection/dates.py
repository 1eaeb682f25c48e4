"""Dates of a calendar's slots: days, weeks or months from a start, working days, closed dates and deadlines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Literal

from rmab_opt.errors import ModelError
from rmab_opt.problem.table import nearest

__all__ = ["Dates", "read_date"]

Unit = Literal["day", "week", "month"]
UNITS: tuple[Unit, ...] = ("day", "week", "month")

DEADLINES = {"complaint": "3 working days", "opened": "30 days", "failed": "30 days"}
"""Until when what an event requires must be done, where the model says nothing else."""

KEYS = ("start", "unit", "closed", "deadlines")


def read_date(text: object, where: str = "a date") -> date:
    """An ISO date; ModelError that names the field otherwise."""
    if isinstance(text, date):
        return text
    try:
        return date.fromisoformat(str(text).strip())
    except ValueError:
        raise ModelError(f"{where}: {text!r} is no date", "write it as 2026-03-31.") from None


@dataclass(frozen=True)
class Dates:
    """Which dates a slot stands for.

    Days are working days, Monday to Friday: slots count those alone, so that a holiday
    that is added later renumbers nothing. Weeks begin on Monday, months on the first.

    Parameters
    ----------
    start
        A date in the first slot.
    closed
        Dates on which nobody works; a slot all of whose working days are closed holds no visit.
    deadlines
        Until when, by kind of event: ``3 working days`` or ``30 days``.
    """

    start: date
    unit: Unit = "week"
    closed: frozenset[date] = frozenset()
    deadlines: Mapping[str, str] = field(default_factory=lambda: dict(DEADLINES))

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Dates:
        """From the section ``calendar`` of a model file: ``start, unit, closed, deadlines``.

        ``closed`` lists dates and spans of dates, ``2026-08-03..2026-08-14``.

        Raises
        ------
        ModelError
            When a key is unknown or a value is no date; names the field.
        """
        unknown = [key for key in section if key not in KEYS]
        if unknown:
            raise ModelError(f"calendar.{unknown[0]}: unknown key", nearest(unknown[0], KEYS))
        if "start" not in section:
            raise ModelError("calendar.start is missing", "give the first day, as 2026-01-05.")
        unit = section.get("unit", "week")
        if unit not in UNITS:
            raise ModelError(f"calendar.unit is {unit!r}", f"use one of {', '.join(UNITS)}.")
        given = dict(section.get("deadlines") or {})
        wrong = [key for key in given if key not in DEADLINES]
        if wrong:
            raise ModelError(f"calendar.deadlines.{wrong[0]}: unknown event", nearest(wrong[0], list(DEADLINES)))
        dates = cls(
            read_date(section["start"], "calendar.start"), unit,
            frozenset(_spans(section.get("closed") or [], "calendar.closed")), DEADLINES | given,
        )  # fmt: skip
        for kind in dates.deadlines:
            dates.deadline(kind, dates.start)
        return dates

    # ---- slots
    def first(self, slot: int) -> date:
        """The first day of a slot."""
        if self.unit == "day":
            begin = self._working(self.start)
            weeks, days = divmod(begin.weekday() + slot, 5)
            return begin - timedelta(days=begin.weekday()) + timedelta(days=7 * weeks + days)
        if self.unit == "week":
            return self.start - timedelta(days=self.start.weekday()) + timedelta(weeks=slot)
        years, month = divmod(self.start.month - 1 + slot, 12)
        return date(self.start.year + years, month + 1, 1)

    def last(self, slot: int) -> date:
        """The last working day of a slot."""
        if self.unit == "day":
            return self.first(slot)
        day = self.first(slot + 1) - timedelta(days=1)
        while day.weekday() > 4:
            day -= timedelta(days=1)
        return day

    def slot(self, when: object) -> int:
        """The slot of a date (a weekend counts to the Monday after it, in days); below 0 before the start.

        A whole number is a slot already.
        """
        if isinstance(when, int) or re.fullmatch(r"\d+", str(when).strip()):
            return int(str(when))
        day = read_date(when)
        if self.unit == "month":
            return (day.year - self.start.year) * 12 + day.month - self.start.month
        monday = self.start - timedelta(days=self.start.weekday())
        if self.unit == "week":
            return (day - monday).days // 7
        day, begin = self._working(day), self._working(self.start)
        monday = begin - timedelta(days=begin.weekday())
        weeks, days = divmod((day - monday).days, 7)
        return weeks * 5 + days - begin.weekday()

    def name(self, slot: int) -> str:
        """A slot as text: its date, or its month."""
        first = self.first(slot)
        return f"{first:%Y-%m}" if self.unit == "month" else first.isoformat()

    def days(self, slot: int) -> list[date]:
        """Working days of a slot that are not closed."""
        day, found = self.first(slot), []
        while day <= self.last(slot):
            if day.weekday() < 5 and day not in self.closed:
                found.append(day)
            day += timedelta(days=1)
        return found

    def shut(self, n_slots: int) -> list[int]:
        """Slots without an open day."""
        return [slot for slot in range(n_slots) if not self.days(slot)]

    # ---- spans
    def window(self, cell: str) -> str:
        """Open spans of dates as slots: ``2026-03-01..2026-04-15;2026-10-01..`` as ``2-3;9-9``.

        Only slots count that lie within a span as a whole. Slots (``2-4``) stay as they are.
        """
        if ".." not in cell:
            return cell
        parts = []
        for part in cell.split(";"):
            low, _, high = part.strip().partition("..")
            first = self.slot(low)
            if self.first(first) < read_date(low):
                first += 1
            last = self.slot(high)
            if self.last(last) > read_date(high):
                last -= 1
            if last >= max(first, 0):
                parts.append(f"{max(first, 0)}-{last}")
        return ";".join(parts)

    def deadline(self, kind: str, when: date) -> date:
        """Last day for what an event of a kind on a day requires.

        Raises
        ------
        ModelError
            When the rule is not ``N days`` or ``N working days``.
        """
        rule = self.deadlines[kind]
        found = re.fullmatch(r"(\d+) (working )?days?", str(rule).strip())
        if found is None:
            raise ModelError(f"calendar.deadlines.{kind} is {rule!r}", "write '3 working days' or '30 days'.")
        count, day = int(found[1]), when
        if not found[2]:
            return when + timedelta(days=count)
        while count:
            day += timedelta(days=1)
            count -= day.weekday() < 5 and day not in self.closed
        return day

    @staticmethod
    def _working(day: date) -> date:
        """The day, or the Monday after a weekend."""
        return day + timedelta(days=max(0, 7 - day.weekday()) % 7) if day.weekday() > 4 else day


def _spans(given: Sequence[object] | str, where: str) -> Iterable[date]:
    """All dates of a list of dates and spans."""
    for entry in [given] if isinstance(given, str) else given:
        low, dots, high = str(entry).partition("..")
        day, end = read_date(low, where), read_date(high if dots else low, where)
        if end < day:
            raise ModelError(f"{where}: {entry} ends before it begins", "write the earlier date first.")
        while day <= end:
            yield day
            day += timedelta(days=1)
