"""How the tables of a model are to be read where their cells leave it open, and a note of all that were read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from rmab_opt.problem.table.table import Table

__all__ = ["Conventions", "Readings", "conventions", "readings"]


class Conventions(BaseModel):
    """The section ``tables`` of a model file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decimal: Literal["comma", "dot"] | None = None
    """Decimal mark of columns whose cells fit both."""
    dates: Literal["dmy", "mdy"] | None = None
    """Order of day and month in columns whose cells fit both."""
    missing: tuple[str, ...] = ()
    """Further words for a missing number, date or yes/no."""
    empty: Literal["missing", "no"] = "missing"
    """What an empty cell of a yes/no column means."""

    @property
    def missing_words(self) -> frozenset[str]:
        """``missing`` as cells are compared with it."""
        return frozenset(word.strip().casefold() for word in self.missing)


@dataclass
class Readings:
    """Tables that were read from files while a model was built."""

    conventions: Conventions = field(default_factory=Conventions)
    tables: list[Table] = field(default_factory=list)

    @property
    def paths(self) -> list[Path]:
        """Files of the tables."""
        return [table.path for table in self.tables if table.path is not None]


_current: ContextVar[Readings | None] = ContextVar("readings", default=None)


@contextmanager
def readings(given: Conventions | None = None) -> Iterator[Readings]:
    """Read tables by these conventions within the block, and note them."""
    kept = Readings(given or Conventions())
    token = _current.set(kept)
    try:
        yield kept
    finally:
        _current.reset(token)


def conventions() -> Conventions:
    """What holds where a table is read now."""
    here = _current.get()
    return Conventions() if here is None else here.conventions


def note(table: Table) -> None:
    """Add a table to the readings that are open."""
    here = _current.get()
    if here is not None:
        here.tables.append(table)
