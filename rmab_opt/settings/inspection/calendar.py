"""Inspection plans as calendars, and inspection policies by name.

A calendar is one period's plan with its certificate; what happened (missed, extra, complaints) is fed in and the rest
is planned again. The policies choose slot by slot, for simulation and tables.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import sparse

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.objective import LinearObjective, Situation
from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError
from rmab_opt.records import write_atomically
from rmab_opt.report import tree
from rmab_opt.settings.inspection.beliefs import EncodedArms
from rmab_opt.settings.inspection.indices import EncodedIndices, encoded_indices, exact_gains
from rmab_opt.settings.inspection.kinds import Frequency, Rows, VisitColumns, VisitRows, Window, closed_cells, visits_of
from rmab_opt.settings.inspection.plan import all_rows, plan_visits, solve_rows
from rmab_opt.solver import Profile

__all__ = ["Calendar", "VisitGains", "calendar"]

INDEX_DISCOUNT = 0.99
"""Per slot, inside index computation only; the published value. Rewards are plain sums."""


def encoded_arms(dynamics: object, purpose: str) -> EncodedArms:
    """The dynamics, when they are arms with windows in their state."""
    if not isinstance(dynamics, EncodedArms):
        raise CapabilityError(
            "windows and beliefs",
            dynamics,
            (f"use the domain 'inspection' or EncodedArms for {purpose}", "choose another policy"),
        )
    return dynamics


# ------------------------------------------------------------------------------------------------------------ objective
class VisitGains(LinearObjective):
    """What each visit of a period gains over none, from the arms' beliefs now; exact for one visit an arm.

    Parameters
    ----------
    weights
        ``gain``: reward gained until the period's end (and ``beyond`` slots more). ``index``: Whittle index of the
        arm in that slot, left alone until then: the published weight.
    """

    def __init__(self, weights: Literal["gain", "index"] = "gain", beyond: int = 0) -> None:
        if weights not in ("gain", "index"):
            raise ModelError(f"weights is {weights!r}", "use 'gain' or 'index'.")
        if beyond < 0:
            raise ModelError(f"beyond is {beyond}", "give a whole number of slots, at least 0.")
        self.weights, self.beyond = weights, beyond
        self._indices: list[tuple[EncodedArms, EncodedIndices]] = []
        """Of the arms asked about last: a cache, shared with copies that reach further."""

    def reaching(self, beyond: int) -> VisitGains:
        """The same weights felt for so many slots after the period; what was computed is shared."""
        other = VisitGains(self.weights, beyond)
        other._indices = self._indices
        return other

    def table(self, arms: EncodedArms, state: np.ndarray) -> np.ndarray:
        """Weight of every arm in every slot of the rest of the period, (N, T)."""
        age, slots, _ = arms.decode(state)
        slot = int(slots[0])
        if self.weights == "gain":
            return exact_gains(arms.chains, age, arms.n_slots, slot=slot, beyond=self.beyond)
        if not self._indices or self._indices[0][0] is not arms:
            self._indices[:] = [(arms, encoded_indices(arms.chains, arms.windows, INDEX_DISCOUNT, verdict=False))]
        weights = np.zeros((arms.n_arms, arms.n_slots))
        for t in range(slot, arms.n_slots):
            weights[:, t] = self._indices[0][1].at(np.minimum(age + t - slot, arms.chains.length - 1), t, 0)
        return weights

    def coefficients(self, situation: Situation) -> tuple[np.ndarray, float]:
        arms, columns = encoded_arms(situation.problem.dynamics, "visit gains"), visits_of(situation.columns)
        age, slots, _ = arms.decode(situation.state)
        base = 0.0
        if self.weights == "gain":
            base = _earned(arms, age, np.zeros((arms.n_arms, arms.n_slots - int(slots[0]) + self.beyond), dtype=bool))
        return self.table(arms, situation.state)[columns.arm, columns.slot], base

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        # Arms by their beliefs, slot after slot, where that is what the weights mean; else the sum of the weights.
        arms, columns = encoded_arms(situation.problem.dynamics, "visit gains"), visits_of(situation.columns)
        age, slots, _ = arms.decode(situation.state)
        slot = int(slots[0])
        actions = np.asarray(actions)
        tables = np.zeros((len(actions), arms.n_arms, arms.n_slots), dtype=bool)
        tables[:, columns.arm, columns.slot] = actions > 0
        if self.weights == "gain" and tables.sum(axis=2).max(initial=0) <= 1:
            rest = np.zeros((arms.n_arms, self.beyond), dtype=bool)
            return np.array([_earned(arms, age, np.concatenate([t[:, slot:], rest], axis=1)) for t in tables])
        weights, base = self.coefficients(situation)
        return actions @ weights + base


def _earned(arms: EncodedArms, age: np.ndarray, visits: np.ndarray) -> float:
    """Reward of visits bool (N, H) from ages (N,), each with effect, by walking through the slots."""
    total, now = 0.0, age.copy()
    for taken in visits.T:
        now = np.where(taken, 0, now + 1)
        total += float(arms.chains.at(now).sum())
    return total


# ------------------------------------------------------------------------------------------------------------- calendar
@dataclass(frozen=True, eq=False)
class Calendar:
    """One period's plan: who is visited when, what it earns, and what no plan could exceed.

    ``visits`` bool (N, T); ``value`` the reward of the period by walking through its slots; ``bound`` what no plan
    under the same constraints exceeds (infinite where the objective's weights are no gains: then nothing is proven).
    ``load`` and ``capacity`` (T,); ``price`` (T,) what one more visit there is worth, if the program was linear.
    ``now``: slots before it are past. ``moved`` counts visits of the plan before that changed or went, ``late`` names
    arms whose required visit has no open slot left.
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
    late: tuple[str, ...] = ()
    _arms: EncodedArms = field(repr=False, default=None)  # type: ignore[assignment]
    _actions: ActionSet = field(repr=False, default=None)  # type: ignore[assignment]
    _age: np.ndarray = field(repr=False, default=None)  # type: ignore[arg-type]
    _profile: Any = field(repr=False, default="default")

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the arms."""
        return visits_of(self._actions.columns).arms.ids

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
        columns = visits_of(self._actions.columns)
        open_cells = columns.table(~closed_cells(self._actions, columns)) > 0
        best = np.where(open_cells, self.gains, -np.inf).argmax(axis=1)
        for t in range(len(self.slots)):
            for i in np.flatnonzero(self.visits[:, t]).tolist():
                belief = float(self._arms.chains.beliefs[i, min(ages[i, t], self._arms.chains.beliefs.shape[1] - 1)])
                found.append(
                    {
                        "slot": self.slots[t],
                        "id": self.ids[i],
                        "belief": round(belief, 4),
                        "gain": round(float(self.gains[i, t]), 4),
                        "best_slot": self.slots[int(best[i])],
                        "status": "past" if t < self.now else "planned",
                    }
                )
        return found

    def _ages(self) -> np.ndarray:
        """Slots since the last visit at the start of each slot, (N, T)."""
        ages = np.zeros(self.visits.shape, dtype=np.int64)
        now = self._age.copy()
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
            "past_slots": self.now,
            "moved": self.moved,
            "late": list(self.late),
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

    def __str__(self) -> str:
        room = self.capacity[np.isfinite(self.capacity)]
        lines = {
            "visits": f"{int(self.visits.sum())} to {int(self.visits.any(axis=1).sum())} of {len(self.ids)} arms",
            "load": " ".join(str(count) for count in self.load.tolist()[:26])
            + (f"   of {room.min():g}" if room.size and room.min() == room.max() else ""),
            "value": f"{self.value:.6g}   bound {self.bound:.6g}   gap {self.gap:.3g}",
            "solved": f"{self.seconds:.2g} s · {self.path}: {self.reason}",
        }
        if self.now:
            lines["re-planned"] = f"from slot {self.slots[self.now]} on · {self.moved} visits moved"
        if self.late:
            lines["late"] = f"{', '.join(self.late[:8])}{', ...' if len(self.late) > 8 else ''}"
        return tree("Calendar", lines)

    def replan(
        self,
        slot: int,
        *,
        missed: Sequence[tuple[str, int]] = (),
        extra: Sequence[tuple[str, int]] = (),
        must: Mapping[str, tuple[int, int]] | None = None,
        stay: float = 0.0,
    ) -> Calendar:
        """The plan from ``slot`` on, after what happened before it; the past is fixed.

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
        stay
            What a visit must gain to be moved, in reward: keeps announced dates.

        Raises
        ------
        ModelError
            When an event names no such arm or visit, or lies in the future.
        InfeasibleError
            When the rest cannot be planned.
        """
        old = visits_of(self._actions.columns)
        n_slots = old.n_slots
        if not self.now <= slot < n_slots:
            raise ModelError(f"slot {slot}", f"give a slot from {self.now} to {n_slots - 1}.")
        done = self.visits.copy()
        done[:, slot:] = False
        for events, happened in ((missed, False), (extra, True)):
            for name, when in events:
                i = old.arms.index(name) if name in old.arms else -1
                if i < 0 or not 0 <= when < slot:
                    raise ModelError(f"event {name!r} in slot {when}", f"name an arm and a slot before {slot}.")
                if done[i, when] == happened:
                    word = "took place already" if happened else "was not planned"
                    raise ModelError(f"the visit of {name} in slot {when} {word}", "correct the event.")
                done[i, when] = happened
        complaints = _complaints(old, must or {}, slot)
        cells = np.zeros(done.shape, dtype=bool)
        cells[old.arm, old.slot] = True
        columns = VisitColumns(old.arms, n_slots, cells | complaints | done)
        actions = ActionSet(columns, self._actions.constraints)
        # A complaint is followed up wherever its deadline falls, in or outside the window.
        future = (columns.slot >= slot) & (~closed_cells(actions, columns) | complaints[columns.arm, columns.slot])
        rows, late = _rest(actions, columns, done, complaints, future, must or {})
        age = self._age.copy()
        for t in range(slot):
            age = np.where(done[:, t], 0, age + 1)
        gains = exact_gains(self._arms.chains, age, n_slots, slot=slot)
        kept = self.visits[columns.arm, columns.slot] & future
        weight = gains[columns.arm, columns.slot]
        solved = solve_rows(
            Rows(rows.matrix[:, future], rows.lower, rows.upper, rows.names),
            (weight + stay * kept)[future],
            self._profile,
        )
        if solved is None:
            raise InfeasibleError(
                f"no plan for the rest from slot {slot} on", "give more visits a slot, or later deadlines."
            )
        visits = done.copy()
        chosen = np.flatnonzero(future)[solved.action > 0]
        visits[columns.arm[chosen], columns.slot[chosen]] = True
        value = _earned(self._arms, self._age, visits)
        past = _earned(self._arms, self._age, done[:, :slot]) + _earned(
            self._arms, age, np.zeros((len(age), n_slots - slot), dtype=bool)
        )
        moved = int((self.visits[:, slot:] & ~visits[:, slot:]).sum())
        return replace(
            self, visits=visits, value=value, bound=max(value, past + solved.bound), price=None, path=solved.path,
            reason=solved.reason, seconds=solved.seconds, gains=np.where(np.arange(n_slots) >= slot, gains, self.gains),
            now=slot, moved=moved, late=late, _actions=actions,
        )  # fmt: skip


def _complaints(columns: VisitColumns, must: Mapping[str, tuple[int, int]], slot: int) -> np.ndarray:
    """Cells that complaints open, bool (N, T)."""
    cells = np.zeros((len(columns.arms), columns.n_slots), dtype=bool)
    for name, (first, last) in must.items():
        if name not in columns.arms or not slot <= first <= last < columns.n_slots:
            raise ModelError(
                f"complaint {name!r}: slots {first} to {last}",
                f"name an arm and slots from {slot} to {columns.n_slots - 1}.",
            )
        cells[columns.arms.index(name), first : last + 1] = True
    return cells


def _rest(
    actions: ActionSet, columns: VisitColumns, done: np.ndarray, complaints: np.ndarray, future: np.ndarray,
    must: Mapping[str, tuple[int, int]],
) -> tuple[Rows, tuple[str, ...]]:  # fmt: skip
    """Rows over all columns whose limits have the past subtracted, and the arms whose required visit is lost."""
    happened = done[columns.arm, columns.slot].astype(float)
    freed = complaints[columns.arm, columns.slot]
    parts, late = [], dict[str, None]()
    for name, constraint in actions.constraints.items():
        if isinstance(constraint, Window):
            continue
        found = all_rows(ActionSet(columns, {name: constraint}))
        matrix = sparse.csr_array(found.matrix)
        used = matrix @ happened
        rest = sparse.csr_array(matrix @ sparse.diags_array(future.astype(float)))
        rest.eliminate_zeros()
        room = rest.sum(axis=1)
        lower, upper = np.maximum(found.lower - used, -np.inf), np.maximum(found.upper - used, 0.0)
        if isinstance(constraint, Frequency):
            # What is past cannot be made up where no open slot is left; a complaint may pass the usual number.
            lost = np.flatnonzero(lower > room)
            late.update(dict.fromkeys(found.names[r].rsplit("[", 1)[-1].rstrip("]").split(" window")[0] for r in lost))
            lower = np.minimum(lower, room)
            upper = np.maximum(upper, (sparse.csr_array(matrix) @ freed.astype(float) > 0) * 1.0)
        some = np.diff(rest.indptr) > 0
        parts.append((rest[some], lower[some], upper[some]))
    arm, index = columns.arm, {name: columns.arms.index(name) for name in must}
    for name, (first, last) in must.items():
        inside = ((arm == index[name]) & (columns.slot >= first) & (columns.slot <= last)).astype(float)
        parts.append((sparse.csr_array(inside[None, :]), np.array([1.0]), np.array([np.inf])))
    matrix = sparse.csr_array(sparse.vstack([part[0] for part in parts]))
    lower, upper = np.concatenate([part[1] for part in parts]), np.concatenate([part[2] for part in parts])
    return Rows(matrix, lower, upper, []), tuple(late)


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
    arms, columns = encoded_arms(model.problem.dynamics, "a calendar"), visits_of(model.actions.columns)
    if not isinstance(model.objective, LinearObjective):
        raise CapabilityError("linear gains", model.objective, ("use the objective 'visit_gains'", "use decide"))
    begin = model.problem.start if state is None else model.problem.check_state(state)
    assert begin is not None
    begin = begin if begin.ndim == 1 else begin.argmax(axis=1)
    names = tuple(str(t) for t in range(columns.n_slots)) if slots is None else tuple(slots)
    if len(names) != columns.n_slots:
        raise ModelError(f"{len(names)} names for {columns.n_slots} slots", "give one a slot.")
    gains, _ = model.objective.coefficients(Situation(model.problem, columns, begin))
    profile = model.solver if solver is None else solver
    plan = plan_visits(model.actions, gains, profile)
    age, first, _ = arms.decode(begin)
    if (first != 0).any():
        raise ModelError("the state is not a period's start", "plan from slot 0; use replan() later.")
    visits = columns.table(plan.action) > 0
    value = _earned(arms, age, visits)
    # Single gains are exact for one visit an arm; the sum of several is more than they earn together where beliefs
    # only fall (persistence >= 0), so it still bounds every plan.
    exact = isinstance(model.objective, VisitGains) and model.objective.weights == "gain" and not model.objective.beyond
    single = any(
        isinstance(c, Frequency) and c.per == "period" and 1 in (c.equal, c.at_most)
        for c in model.actions.constraints.values()
    )
    exact = exact and (single or bool((arms.chains.persistence >= 0).all()))
    base = _earned(arms, age, np.zeros_like(visits))
    bound = max(value, base + plan.bound) if exact else np.inf
    room = np.full(columns.n_slots, np.inf)
    for constraint in model.actions.constraints.values():
        if isinstance(constraint, VisitRows):
            for whom, _, capacity in constraint.capacities(columns):
                room = np.minimum(room, capacity) if not whom else room
    table = np.zeros(visits.shape)
    table[columns.arm, columns.slot] = plan.gains
    return Calendar(
        visits, value, bound, room, plan.slot_price, plan.path, plan.reason, plan.seconds, names, table,
        _arms=arms, _actions=model.actions, _age=age, _profile=profile,
    )  # fmt: skip
