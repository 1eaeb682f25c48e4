"""Guaranteed services: so many for every arm or group by a round of its own, kept by what each round owes to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from rmab_opt.actions.columns import Columns
from rmab_opt.actions.constraint import ByRound, Constraint, FromShared, table_with
from rmab_opt.actions.kinds.rows import Part, PlainKind
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.problem import Table

__all__ = ["Guarantee", "Owed"]

ARM = "arm"
"""What ``per`` is for every arm by itself."""


@dataclass(frozen=True, eq=False)
class Owed:
    """What is left of a guarantee, seen from the round before which its services were counted.

    Parameters
    ----------
    names
        Of the G whom it is given.
    of
        Whose each arm is, int (N,).
    least
        Services that are still owed, (G,).
    begin, end
        The window in rounds from now on: ``begin`` to ``end`` - 1.
    certain
        Whatever happens, or on average.
    """

    names: tuple[str, ...]
    of: np.ndarray
    least: np.ndarray
    begin: int
    end: int
    certain: bool

    @property
    def sizes(self) -> np.ndarray:
        """Arms of each, (G,)."""
        return np.bincount(self.of, minlength=len(self.names))

    def sums(self, amount: np.ndarray) -> np.ndarray:
        """Amounts of the arms (N,) added up for each, (G,)."""
        return np.bincount(self.of, amount, minlength=len(self.names))


class Guarantee(PlainKind, kind="guarantee"):
    """At least so many services of every arm, or of every group, in rounds ``begin`` to ``end`` - 1 counted from 0.

    With o_g services still owed to g, L rounds left and n_g arms in g, a round has rows

        sum of act[c] over columns c of g >= o_g - n_g (L - 1)                                  for every g,
        sum of act[c] over columns c of those with o_g > 0 >= the round's share of all that is owed,

    where the share is what later rounds cannot take: sum o_g - ``room`` (L - 1), or sum o_g / L without ``room``.
    Groups get their part of the share by what is owed an arm. Under a budget of ``room`` a round, such rounds can go on
    to the end. A round's rows rest on the services before it, so the set has them for round ``before`` alone.
    """

    component: ClassVar[str] = "owed"
    polyhedral: ClassVar[bool] = False

    at_least: int = Field(ge=0)
    """Services, rounds acted on."""
    per: str = ARM
    """``arm``, or an attribute of the cohort whose every value is a group: then all its arms together."""
    begin: int = Field(default=0, ge=0)
    """First round that counts, from 0."""
    end: int = Field(ge=1)
    """Round before which they are had: the horizon, for all rounds."""
    certain: bool = False
    """In plans and bounds: for certain, of every arm, or on average. Rounds that are decided keep it for certain."""
    room: float | None = Field(default=None, ge=0)
    """Services that fit in a round, such as the budget: a round then gives no more than later ones cannot take."""
    done: Annotated[Table, BeforeValidator(table_with("id", "services"))] | None = None
    """Arms' services from ``begin`` on before round ``before``: ``id``, ``services``; who is left out has had none."""
    before: int = Field(default=0, ge=0)
    """Round that ``done`` stands before."""
    now: int | None = Field(default=None, repr=False)
    """The round to decide; the action set says it."""

    @model_validator(mode="after")
    def _window(self) -> Guarantee:
        if self.end <= self.begin:
            raise ValueError(f"the window from round {self.begin} to before round {self.end} is empty")
        if self.certain and (self.per != ARM or self.begin):
            raise ValueError("certain services are of every arm from the first round on")
        if self.soft is not None:
            raise ValueError("a guarantee is firm; give a smaller one, or a budget's at_least a price")
        return self

    @property
    def open_limits(self) -> dict[str, FromShared | ByRound]:
        """The round, until it is known."""
        return {} if self.now is not None else {"now": ByRound(by_round=(0.0,))}

    def at(self, period: int, shared: Mapping[str, float]) -> Constraint:
        if self.now is not None:
            return self
        counted = self.begin < period < self.end or (period == self.begin and self.before > period)
        if counted and period != self.before:
            raise CapabilityError(
                f"round {period + 1}: it knows the services before round {self.before + 1}, and none are counted in "
                "rounds that are simulated",
                self,
                (f"give `done` with `before: {period}`", "leave the guarantee out"),
            )
        return self.model_copy(update={"now": period})

    def later(self, first: int) -> Constraint:
        """The guarantee counted from round ``first`` on; CapabilityError where services before it are not known."""
        if not first:
            return self
        if self.begin < first and self.before != first:
            self.at(first, {})
        window = {"begin": max(0, self.begin - first), "end": max(1, self.end - first)}
        if self.end <= first:
            # It is over: nothing is owed any more.
            return self.model_copy(update={**window, "at_least": 0, "before": 0, "done": None})
        return self.model_copy(update={**window, "before": 0})

    def counted(self, services: np.ndarray, columns: Columns) -> Constraint:
        """What was given in rounds ``before`` and later is added to ``done``; columns of who left are in no round."""
        rounds = len(services)
        if rounds <= self.before:
            return self
        served = self._served(columns) + services[max(self.begin, self.before) : self.end].sum(axis=0)
        done = Table({"id": columns.arms.ids, "services": served.tolist()}, source="the rounds recorded")
        return self.model_copy(update={"done": done, "before": rounds})

    def _served(self, columns: Columns) -> np.ndarray:
        """Services that ``done`` counts, (N,)."""
        served = np.zeros(len(columns.arms))
        if self.done is not None:
            place = [columns.arms.index(name) for name in self.done.text("id")]
            np.add.at(served, place, self.done.numbers("services", minimum=0))
        return served

    def owed(self, columns: Columns, period: int | None = None) -> Owed:
        """What is left of it before round ``before``, the window counted from ``period``, by default that round.

        Raises
        ------
        ModelError
            When ``done`` names an unknown arm.
        """
        arms, served = columns.arms, self._served(columns)
        if self.per == ARM:
            names, of = arms.ids, np.arange(len(arms))
        else:
            groups = arms.groups(self.per)
            names, of = tuple(groups), np.zeros(len(arms), dtype=np.int64)
            for number, members in enumerate(groups.values()):
                of[members] = number
        least = np.maximum(0.0, self.at_least - np.bincount(of, served, minlength=len(names)))
        first = self.before if period is None else period
        begin, end = max(0, self.begin - first), max(0, self.end - first)
        return Owed(tuple(names), of, least, begin, end, self.certain)

    def shares(self, columns: Columns) -> tuple[Owed, np.ndarray, float]:
        """What is owed before the round, what the round must give to each, (G,), and to all together."""
        assert self.now is not None
        owed = self.owed(columns)
        least, sizes = owed.least, owed.sizes
        later = self.end - self.now - 1
        if not self.begin <= self.now < self.end:
            return owed, np.zeros(len(least)), 0.0
        must = np.maximum(0.0, least - sizes * later)
        total = float(least.sum())
        need = np.ceil(total / (later + 1) - 1e-9) if self.room is None else np.ceil(total - self.room * later - 1e-9)
        need = float(max(0.0, need))
        if self.per != ARM:
            # One unit at a time to whom most is owed an arm: the rows then say who gets them.
            while must.sum() < need and (open_ := must < np.minimum(least, sizes)).any():
                must[int(np.argmax(np.where(open_, (least - must) / sizes, -1.0)))] += 1.0
        return owed, must, need

    def sums(self, columns: Columns) -> dict[str, Part]:
        if self.now is None:
            raise CapabilityError(
                "one round's rows for all rounds: they rest on the services before it",
                self,
                ("ask the action set for a round, `actions.at(period)`", "leave the guarantee out"),
            )
        owed, must, need = self.shares(columns)
        # One arm a column, as `check` demands.
        whose = owed.of[columns.effect.indices]
        order = np.argsort(whose, kind="stable")
        ends = np.searchsorted(whose[order], np.arange(len(owed.names) + 1))
        found: dict[str, Part] = {
            owed.names[g]: (float(must[g]), order[ends[g] : ends[g + 1]], None, None) for g in np.flatnonzero(must > 0)
        }
        if need > must.sum():
            waiting = np.flatnonzero(owed.least[whose] > 0)
            found["all"] = (need, waiting, None, None)
        return found

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        owed, must, need = self.shares(columns)
        taken = np.asarray(action) @ (columns.effect != 0).astype(float)
        given = owed.sums(taken)
        left = self.end - int(self.now or 0)
        for g in np.flatnonzero(given < must - 1e-6):
            yield (
                f"{given[g]:g} services now of {owed.names[g]}, to whom {owed.least[g]:g} are owed in {left} rounds: "
                f"at least {must[g]:g} are needed"
            )
        waiting = owed.least[owed.of] > 0
        if need > must.sum() and float(taken @ waiting) < need - 1e-6:
            yield f"{taken @ waiting:g} services now of those who are owed some, at least {need:g} are needed"

    def describe(self) -> str:
        sure = "for certain" if self.certain else "on average"
        whom = "every arm" if self.per == ARM else f"every {self.per}"
        since = f", counted before round {self.before + 1}" if self.before else ""
        return f"at least {self.at_least} services of {whom} in rounds {self.begin + 1} to {self.end} {sure}{since}"

    def check(self, columns: Columns) -> None:
        if (np.diff(columns.effect.indptr) != 1).any():
            raise CapabilityError(
                "services of columns that act on several arms", self, ("one arm a column", "leave the guarantee out")
            )
        owed = self.owed(columns)
        left = owed.end - owed.begin
        most = owed.sizes * left if left > 0 else np.full(len(owed.least), np.inf)
        if (short := np.flatnonzero(owed.least > most)).size:
            g = int(short[0])
            raise ModelError(
                f"{owed.least[g]:g} services of {owed.names[g]!r} in {left} rounds", f"give at most {most[g]:g}."
            )
        if self.room is not None and left > 0 and owed.least.sum() > self.room * left:
            raise ModelError(
                f"{owed.least.sum():g} services are owed in {left} rounds with room for {self.room:g}",
                f"guarantee fewer, or let room be what fits in a round: {owed.least.sum() / left:g} are needed.",
            )
