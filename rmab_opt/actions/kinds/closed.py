"""Columns that cannot be chosen for a while: paused members, people out of reach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from pydantic import model_validator

from rmab_opt.actions.columns import Columns
from rmab_opt.actions.constraint import ByRound, LimitField, TableSource, as_number
from rmab_opt.actions.kinds.rows import Part, PlainKind
from rmab_opt.errors import ModelError

__all__ = ["Closed"]


class Closed(PlainKind, kind="closed"):
    """Columns that must not be chosen before a round of their own, or never.

    ``act[c] <= 0`` for every column c of the table whose ``open_from`` is later than the round, or empty.
    """

    component: ClassVar[str] = "shut"

    table: TableSource
    """Columns ``id``, ``open_from`` (round counted from 0 from which on it is open again; empty: never), and any
    further ones for people, such as the reason."""
    now: LimitField | None = None
    """The round; worked out from the table where it matters."""

    @model_validator(mode="after")
    def _rounds(self) -> Closed:
        if self.now is None:
            latest = int(max([0.0, *self.open_from[np.isfinite(self.open_from)]]))
            # After the last opening all rounds are alike, so that they are one set.
            now = ByRound(by_round=tuple(float(t) for t in range(latest + 1))) if latest else 0.0
            object.__setattr__(self, "now", now)
        return self

    @property
    def open_from(self) -> np.ndarray:
        """Round from which on each row is open again; infinite for never."""
        # Kept beside the fields: a cached property would stand among them, and in the digest of a decision.
        if "open_from" not in self._cache:
            self._cache["open_from"] = self._opens()
        return np.asarray(self._cache["open_from"])

    def _opens(self) -> np.ndarray:
        cells = self.table.text("open_from") if "open_from" in self.table else [""] * len(self.table)
        found = np.full(len(cells), np.inf)
        for row, cell in enumerate(cells):
            if cell.strip():
                if not cell.strip().isdigit():
                    raise ModelError(
                        f"{self.table.source}:{self.table.place(row)}: open_from is {cell!r}",
                        "give a round counted from 0, or nothing.",
                    )
                found[row] = int(cell)
        return found

    def shut(self, period: float) -> list[str]:
        """Ids that are closed in a round, each once."""
        ids = self.table.text("id")
        return list(dict.fromkeys(name for name, opens in zip(ids, self.open_from, strict=True) if period < opens))

    def shut_at(self, period: int) -> list[str]:
        """Ids that are closed in a round as this constraint counts rounds, see :meth:`later`."""
        return self.shut(self.now.at(period, {}) if isinstance(self.now, ByRound) else as_number(self.now) or 0.0)

    def sums(self, columns: Columns) -> dict[str, Part]:
        period = as_number(self.now)
        assert period is not None
        return {name: (None, columns.indices([name]), None, 0.0) for name in self.shut(period)}

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        period = as_number(self.now)
        assert period is not None
        taken = [name for name in self.shut(period) if action[columns.index(name)]]
        if taken:
            yield f"{', '.join(taken)} cannot be chosen in this round"

    def describe(self) -> str:
        ever, later = int(np.isinf(self.open_from).sum()), int(np.isfinite(self.open_from).sum())
        return f"{ever} not to be chosen, {later} not before a round of their own"

    def check(self, columns: Columns) -> None:
        columns.indices(self.table.text("id"))

    def monotone(self, columns: Columns) -> bool:
        return True
