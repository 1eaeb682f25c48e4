"""Inspection plans as calendars: one period's visits with their certificate, and the same again after events."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.model import Model
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.problem import Arms
from rmab_opt.records import write_atomically
from rmab_opt.report import frame, notebook_html, tree
from rmab_opt.settings.inspection.agenda import Asked, Late, Rest, beginning, open_cells, plan_rest
from rmab_opt.settings.inspection.beliefs import EncodedArms, earned
from rmab_opt.settings.inspection.dates import Dates
from rmab_opt.settings.inspection.events import CalendarEvent, Happened, replay
from rmab_opt.settings.inspection.gains import VisitGains
from rmab_opt.settings.inspection.indices import exact_gains
from rmab_opt.settings.inspection.instances import HIGH, LOW, chains_at
from rmab_opt.settings.inspection.kinds import VisitColumns, VisitRows, Window, visits_of
from rmab_opt.settings.inspection.plan import clash_of, slot_price
from rmab_opt.settings.inspection.weights import VisitWeights
from rmab_opt.solver import Profile

__all__ = ["Calendar", "VisitGains", "calendar"]


LINE = 26
"""Slots up to which loads are printed one by one."""


@dataclass(frozen=True, eq=False)
class Calendar:
    """One period's plan: who is visited when, what it earns, and what no plan could exceed.

    ``visits`` bool (N, T); ``value`` the reward of the period by walking through its slots; ``bound`` what no plan
    under the same constraints exceeds, whatever weights chose it; both with the ``beyond`` slots after the period.
    ``load`` and ``capacity`` (T,); ``price`` (T,) what one more visit there is worth, if the program was linear.
    ``now``: slots before it are past. ``moved`` counts visits of the plan before that changed or went, ``overdue``
    says what required is not done in time: who, by when, when instead, and the least change that would do it.
    ``log`` holds every event and plan so far: each re-plan replays all of it.
    """

    visits: np.ndarray
    value: float
    bound: float
    capacity: np.ndarray
    price: np.ndarray | None
    path: str
    reason: str
    seconds: float
    slots: tuple[str, ...]
    gains: np.ndarray
    now: int = 0
    moved: int = 0
    overdue: tuple[Late, ...] = ()
    log: tuple[CalendarEvent, ...] = field(default=(), repr=False)
    _at: Happened = field(repr=False, default=None)  # type: ignore[assignment]
    _rest: Rest = field(repr=False, default=None)  # type: ignore[assignment]
    _model: Model = field(repr=False, default=None)  # type: ignore[assignment]
    _begin: Happened = field(repr=False, default=None)  # type: ignore[assignment]
    _profile: Any = field(repr=False, default="default")

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the arms."""
        return self._at.cohort.ids

    @property
    def model(self) -> Model:
        """The model that was planned."""
        return self._model

    @property
    def cohort(self) -> Arms:
        """The arms as they are now, with moved windows and those that opened."""
        return self._at.cohort

    @property
    def late(self) -> tuple[str, ...]:
        """Arms with something required that is not done in time."""
        return tuple(dict.fromkeys(found.arm for found in self.overdue))

    @property
    def gap(self) -> float:
        """bound - value, never negative."""
        return max(0.0, self.bound - self.value)

    @property
    def load(self) -> np.ndarray:
        """Visits in each slot, (T,)."""
        return self.visits.sum(axis=0)

    def rows(self) -> list[dict[str, Any]]:
        """One row a visit by slot: ``slot, id, belief`` before the visit, ``gain, best_slot, status``."""
        found = []
        ages = self._ages()
        columns, due = self._rest.columns, self._rest.due
        open_cells = columns.table(due.allowed) > 0
        tardy = {(found.arm, found.planned) for found in self.overdue}
        best = np.where(open_cells, self.gains, -np.inf).argmax(axis=1)
        for t in range(len(self.slots)):
            for i in np.flatnonzero(self.visits[:, t]).tolist():
                belief = float(
                    self._at.arms.chains.beliefs[i, min(ages[i, t], self._at.arms.chains.beliefs.shape[1] - 1)]
                )
                found.append(
                    {
                        "slot": self.slots[t],
                        "id": self.ids[i],
                        "belief": round(belief, 4),
                        "gain": round(float(self.gains[i, t]), 4),
                        "best_slot": self.slots[int(best[i])],
                        "status": "past" if t < self.now else "late" if (self.ids[i], t) in tardy else "planned",
                    }
                )
        return found

    def _ages(self) -> np.ndarray:
        """Slots since the last visit at the start of each slot, (N, T)."""
        ages = np.zeros(self.visits.shape, dtype=np.int64)
        now = self._at.age.copy()
        for t in range(self.visits.shape[1]):
            ages[:, t] = now
            now = np.where(self.visits[:, t], 0, now + 1)
        return ages

    def loads(self) -> list[dict[str, Any]]:
        """One row a slot: ``slot, visits, capacity, price``; no capacity where none is declared."""
        return [
            {
                "slot": name,
                "visits": int(self.load[t]),
                "capacity": int(self.capacity[t]) if np.isfinite(self.capacity[t]) else None,
                "price": None if self.price is None else round(float(self.price[t]), 6),
            }
            for t, name in enumerate(self.slots)
        ]

    def ends(self) -> list[tuple[float, float, float]]:
        """(persistence, what the visits earn over none, share of what no visits lose) at both ends of its interval.

        Empty where the arms' table has no interval (``rmab-opt fit --out`` writes one). The plan is the same: only
        what it is worth is asked again. Persistence is said in slots of the records.
        """
        found = []
        for column in (LOW, HIGH):
            chains = chains_at(self.cohort, column, self._at.arms.length)
            if chains is None:
                return []
            arms = EncodedArms(chains, self._at.arms.windows)
            rest = np.zeros((len(self.ids), _weights(self._model).beyond), dtype=bool)
            visits = np.concatenate([self.visits, rest], axis=1)
            none = earned(arms, self._at.age, np.zeros_like(visits))
            gain = earned(arms, self._at.age, visits) - none
            lost = visits.size - none
            mean = float(self.cohort.numbers(column).mean())
            found.append((mean, gain, gain / lost if lost > 0 else 0.0))
        return found

    def at_the_ends(self) -> str:
        """The same in words; empty where nothing is known."""
        found = self.ends()
        if not found:
            return ""
        (low, less, share), (high, more, best) = found
        said = f"over no visits {less:.4g} with persistence at the low end ({low:.3f}), "
        said += f"{more:.4g} at the high end ({high:.3f})"
        if low <= 0:
            said += "; memory is not shown: when an establishment is visited hardly matters, how often may"
        return said + f"; {share:.1%} to {best:.1%} of what is lost without visits"

    def table(self) -> list[dict[str, str]]:
        """One row an arm, one column a slot, ``x`` for a visit."""
        return [
            {"id": name, **{slot: "x" if row[t] else "" for t, slot in enumerate(self.slots)}}
            for name, row in zip(self.ids, self.visits.tolist(), strict=True)
        ]

    def summary(self) -> dict[str, Any]:
        """The certificate as plain values."""
        return {
            "visits": int(self.visits.sum()),
            "arms_visited": int(self.visits.any(axis=1).sum()),
            "value": self.value,
            "bound": self.bound,
            "gap": self.gap,
            "path": self.path,
            "reason": self.reason,
            "over_no_visits": [
                {"persistence": at, "gain": gain, "share_of_lost": share} for at, gain, share in self.ends()
            ],
            "past_slots": self.now,
            "moved": self.moved,
            "late": [
                {
                    "who": late.arm,
                    "what": late.what,
                    "by": self.slots[late.by] if late.by >= 0 else "",
                    "planned": None if late.planned is None else self.slots[late.planned],
                    "least_change": late.change,
                }
                for late in self.overdue
            ],
            "seconds": self.seconds,
        }

    def to_csv(self, path: str | Path | None = None) -> str:
        """Arm by slot table as CSV text; written atomically when a path is given."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["id", *self.slots])
        marks = np.where(self.visits, "x", "").tolist()
        writer.writerows([name, *row] for name, row in zip(self.ids, marks, strict=True))
        if path is not None:
            write_atomically(path, text.getvalue())
        return text.getvalue()

    def to_excel(self, path: str | Path) -> None:
        """Plan, visits in order, load and certificate as four sheets of an XLSX file (extra ``report``)."""
        try:
            from openpyxl import Workbook
        except ImportError:
            raise CapabilityError(
                "to_excel", self, ("install rmab-opt[report]", "use to_csv, which every spreadsheet opens")
            ) from None
        book = Workbook(write_only=True)
        certificate = [{"what": key, "value": str(value)} for key, value in self.summary().items()]
        sheets = {"plan": self.table(), "visits": self.rows(), "load": self.loads(), "certificate": certificate}
        for title, rows in sheets.items():
            sheet = book.create_sheet(title)
            sheet.append(list(rows[0]) if rows else ["(no rows)"])
            for row in rows:
                sheet.append(list(row.values()))
        buffer = io.BytesIO()
        book.save(buffer)
        write_atomically(path, buffer.getvalue())

    def picture(self, path: str | Path) -> None:
        """Load of each slot against its capacity, as PNG (extra ``report``)."""
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError:
            raise CapabilityError("picture", self, ("install rmab-opt[report]", "read loads()")) from None
        figure = Figure(figsize=(7.0, 3.2), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes, at = figure.add_subplot(), np.arange(len(self.slots))
        axes.bar(at, self.load, color="#4878a8", label="visits")
        held = np.where(np.isfinite(self.capacity), self.capacity, np.nan)
        axes.step(
            np.append(at, len(at)) - 0.5, np.append(held, held[-1]), where="post", color="#c04040", label="capacity"
        )
        if self.now:
            axes.axvspan(-0.5, self.now - 0.5, color="0.9", zorder=0, label="past")
        shown = at[:: max(1, len(at) // 26)]
        axes.set_xticks(shown, [self.slots[t] for t in shown])
        axes.set_xlabel("slot")
        axes.set_ylabel("visits")
        axes.legend(frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        write_atomically(path, buffer.getvalue())

    def _load_line(self) -> str:
        """Visits slot by slot where a line holds them, else their range."""
        room = self.capacity[np.isfinite(self.capacity)]
        of = f"   of {room.max():g}" if room.size and len({*room.tolist()} - {0.0}) == 1 else ""
        if len(self.slots) <= LINE:
            return " ".join(str(count) for count in self.load.tolist()) + of
        return f"{self.load.min()} to {self.load.max()} a slot, {self.load.mean():.1f} on average{of}"

    def _lines(self) -> dict[str, str]:
        lines = {
            "visits": f"{int(self.visits.sum())} to {int(self.visits.any(axis=1).sum())} of {len(self.ids)} arms",
            "load": self._load_line(),
            "value": f"{self.value:.6g}   bound {self.bound:.6g}   gap {self.gap:.3g}",
            "solved": f"{self.seconds:.2g} s · {self.path}: {self.reason}",
        }
        if self.at_the_ends():
            lines["earns"] = self.at_the_ends()
        if self.now:
            lines["re-planned"] = f"from slot {self.slots[self.now]} on · {self.moved} visits moved"
        for number, found in enumerate(self.overdue[:8]):
            lines[f"late {number + 1}"] = self.said(found)
        if len(self.overdue) > 8:
            lines["late"] = f"and {len(self.overdue) - 8} more"
        return lines

    def __str__(self) -> str:
        return tree("Calendar", self._lines())

    def _repr_html_(self) -> str:
        return notebook_html("Calendar", [("", self._lines()), ("", self.loads())])

    def to_frame(self, backend: str | None = None) -> Any:
        """:meth:`rows`, one a visit, as a data frame, pandas before polars unless ``backend`` names one."""
        return frame(self.rows(), backend)

    def said(self, found: Late) -> str:
        """Who is late, with what, by when, and the least change, in words."""
        due = f"was due by {self.slots[found.by]}" if found.by >= 0 else "has no open slot"
        then = (
            "cannot be planned in this period" if found.planned is None else f"is planned {self.slots[found.planned]}"
        )
        change = found.change if found.change.startswith("no ") else f"in time with: {found.change}"
        return f"{found.arm or 'a limit'}: {found.what} {due}, {then}; {change}"

    def replan(
        self,
        slot: int,
        *,
        missed: Sequence[tuple[str, int]] = (),
        extra: Sequence[tuple[str, int]] = (),
        must: Mapping[str, tuple[int, int]] | None = None,
        events: Sequence[CalendarEvent] = (),
        stay: float = 0.0,
    ) -> Calendar:
        """The plan from ``slot`` on, after all that ever happened; the past is fixed.

        Parameters
        ----------
        slot
            The next slot to plan.
        missed
            Planned visits (arm, slot) of the past that did not take place.
        extra
            Visits (arm, slot) of the past that were not planned; they reset their arm wherever they fall.
        must
            Complaints: arm to the first and last slot in which it must be visited, in or outside its window.
        events
            Anything else that happened, see :class:`CalendarEvent`.
        stay
            What a visit must gain to be moved, in reward: keeps announced dates. No part of value and bound.

        Raises
        ------
        ModelError
            When an event names no such arm or visit, or lies in the future.
        """
        n_slots = len(self.slots)
        if not self.now <= slot < n_slots:
            raise ModelError(f"slot {slot}", f"give a slot from {self.now} to {n_slots - 1}.")
        given = [CalendarEvent(event="missed", arm=name, slot=when) for name, when in missed]
        given += [CalendarEvent(event="done", arm=name, slot=when) for name, when in extra]
        for name, (first, last) in (must or {}).items():
            if not slot <= first <= last < n_slots:
                raise ModelError(
                    f"complaint {name!r}: slots {first} to {last}",
                    f"name an arm and slots from {slot} to {n_slots - 1}.",
                )
            given.append(CalendarEvent(event="complaint", arm=name, slot=first, last=last))
        given += events
        for event in given:
            if event.event in ("done", "missed") and not event.slot < slot:
                raise ModelError(f"event {event.arm!r} in slot {event.slot}", f"name an arm and a slot before {slot}.")
        return again(self._model, (*self.log, *given), slot, slots=self.slots, begin=self._begin, stay=stay,
                     profile=self._profile)  # fmt: skip

    def changes(self) -> list[dict[str, str]]:
        """One row a visit that moved, came or went against the plan before: ``id, from, to``."""
        if self._at.planned is None:
            return []
        found, now = [], self.now
        for i in np.flatnonzero((self._at.planned[:, now:] != self.visits[:, now:]).any(axis=1)).tolist():
            gone = np.flatnonzero(self._at.planned[i, now:] & ~self.visits[i, now:]) + now
            come = np.flatnonzero(~self._at.planned[i, now:] & self.visits[i, now:]) + now
            for k in range(max(len(gone), len(come))):
                before = self.slots[gone[k]] if k < len(gone) else ""
                found.append({"id": self.ids[i], "from": before, "to": self.slots[come[k]] if k < len(come) else ""})
        return found

    def because(self) -> str:
        """What changed since the plan before, in a sentence."""
        said = [f"{e.event} {e.arm or e.group}".strip() for e in self._at.news]
        why = f", because of {'; '.join(said[:6])}{'; ...' if len(said) > 6 else ''}" if said else ""
        if self._at.planned is None:
            return "first plan"
        new = sum(not row["from"] for row in self.changes())
        return f"{self.moved} visits moved, {new} new, {len(self.overdue)} late{why or ': nothing happened'}"


def again(
    model: Model, log: tuple[CalendarEvent, ...], slot: int, *, slots: tuple[str, ...], begin: Happened | None = None,
    stay: float = 0.0, profile: str | Path | Profile | None = None,
) -> Calendar:  # fmt: skip
    """The plan from ``slot`` on after a whole log; see :meth:`Calendar.replan`."""
    begin = beginning_of(model) if begin is None else begin
    profile = model.solver if profile is None else profile
    at = replay(begin, log, _window(model.actions))
    asked = Asked(at, model.actions.constraints, _weights(model), open_cells(model.actions), slot)
    rest = plan_rest(asked, profile, stay=stay)
    assert rest is not None
    return _shown(model, begin, at, rest, slots, log, slot, profile)


def _window(actions: ActionSet) -> str:
    """Column of the arms' table with their open slots."""
    return next((c.column for c in actions.constraints.values() if isinstance(c, Window)), "window")


def _weights(model: Model) -> VisitWeights:
    if not isinstance(model.objective, VisitGains):
        raise CapabilityError("gains of visits", model.objective, ("use the objective 'visit_gains'", "use decide"))
    return model.objective.weights


def _shown(
    model: Model, begin: Happened, at: Happened, rest: Rest, slots: tuple[str, ...], log: tuple[CalendarEvent, ...],
    now: int, profile: Any,
) -> Calendar:  # fmt: skip
    """A plan as a calendar, and as an entry of its log."""
    columns, n_slots = rest.columns, len(slots)
    room = _room(model, at, columns)
    age = at.age.copy()
    for taken in rest.visits[:, :now].T:
        age = np.where(taken, 0, age + 1)
    gains = exact_gains(at.arms.chains, age, n_slots, slot=now, beyond=_weights(model).beyond)
    moved = 0 if at.planned is None else int((at.planned[:, now:] & ~rest.visits[:, now:]).sum())
    visits = {
        at.cohort.ids[i]: tuple(np.flatnonzero(rest.visits[i]).tolist())
        for i in np.flatnonzero(rest.visits.any(axis=1))
    }
    made = CalendarEvent(event="planned", slot=now, visits=visits, prices=_prices(rest))
    price = None
    if rest.solved.duals is not None and not rest.late and not now:
        due = rest.due
        price = slot_price(model.actions.constraints, columns, due.what, due.rows.names, rest.solved.duals)
    return Calendar(
        rest.visits, rest.value, rest.bound, room, price, rest.solved.path, rest.solved.reason, rest.solved.seconds,
        slots, gains, now, moved, rest.late, (*log, made), at, rest, model, begin, profile,
    )  # fmt: skip


def _room(model: Model, at: Happened, columns: VisitColumns) -> np.ndarray:
    """Visits that each slot holds in all, (T,), as events left it; 0 where nobody is visited."""
    room = np.full(columns.n_slots, np.inf)
    for constraint in model.actions.constraints.values():
        if isinstance(constraint, VisitRows):
            own = [capacity.astype(float) for whom, _, capacity in constraint.capacities(columns) if not whom]
            if own:
                least = np.minimum.reduce(own)
                for whom, t, change in constraint.changes(columns, at.room):
                    least[t] = max(0.0, least[t] + change) if not whom else least[t]
                room = np.minimum(room, least)
    return np.where(at.shut.all(axis=0) & np.isfinite(room), 0.0, room)


def _prices(rest: Rest) -> dict[str, float]:
    """What rows in common cost, of a plan so large that the next one begins from them."""
    duals, due = rest.solved.duals, rest.due
    if duals is None or not rest.solved.sifted:
        return {}
    rows = np.flatnonzero((due.owner < 0) & (np.abs(duals) > 1e-12))
    return {f"{due.what[row]} {due.rows.names[row]}": float(duals[row]) for row in rows.tolist()}


def calendar(
    model: Model,
    *,
    state: np.ndarray | None = None,
    slots: Sequence[str] | None = None,
    solver: str | Path | Profile | None = None,
) -> Calendar:
    """The best plan of a model whose columns are visits, as a calendar.

    Parameters
    ----------
    model
        Its objective gives the visits' gains; its constraints are those of the plan.
    state
        Of the arms at the period's start; the problem's start by default.
    slots
        Names of the slots, for tables; numbers by default.

    Raises
    ------
    InfeasibleError
        With the interval of slots that must hold too much, and the least budget that repairs it.
    """
    columns = visits_of(model.actions.columns)
    dates = dates_of(model)
    names = tuple(slot_names(columns.n_slots, dates)) if slots is None else tuple(slots)
    if len(names) != columns.n_slots:
        raise ModelError(f"{len(names)} names for {columns.n_slots} slots", "give one a slot.")
    begin = beginning_of(model, state)
    profile = model.solver if solver is None else solver
    rest = plan_rest(
        Asked(begin, model.actions.constraints, _weights(model), open_cells(model.actions), 0), profile, strict=True
    )
    if rest is None:
        raise clash_of(model.actions)
    return _shown(model, begin, begin, rest, names, (), 0, profile)


def beginning_of(model: Model, state: np.ndarray | None = None) -> Happened:
    """Where a model's calendar stands before anything happened, closed dates included."""
    dates = dates_of(model)
    closed = () if dates is None else dates.shut(visits_of(model.actions.columns).n_slots)
    return beginning(model.problem, model.actions, state, closed)


def dates_of(model: Model) -> Dates | None:
    """The dates of the slots, where the model file has a section ``calendar``."""
    section = model.settings.get("calendar")
    return Dates.of(section) if section else None


def slot_names(n_slots: int, dates: Dates | None) -> list[str]:
    """Names of the slots: dates, or numbers."""
    return [str(t) if dates is None else dates.name(t) for t in range(n_slots)]
