"""The cohort: one row an arm, with its id, groups and features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from rmab_opt.errors import Findings, ModelError
from rmab_opt.problem.table import Table, TableLike, nearest
from rmab_opt.problem.table.cells import text_of
from rmab_opt.report import is_visible

__all__ = ["Arms"]


class Arms:
    """The arms of a problem, in a fixed order.

    Parameters
    ----------
    table
        One row an arm: a :class:`Table`, a file, columns by name, or a data frame.
    id_column
        Column with the arm's id; ids are text and unique.

    Raises
    ------
    ModelError
        When there is no arm, an id is missing or stands twice; names the rows.
    """

    def __init__(self, table: TableLike, id_column: str = "id") -> None:
        self.table = table = Table.read(table, needed=(id_column,))
        self.ids: tuple[str, ...] = tuple(table.text(id_column))
        findings = Findings(table.source)
        if not self.ids:
            findings.add("2", "holds no arm", "give one row an arm")
        first: dict[str, int] = {}
        for row, name in enumerate(self.ids):
            if not name:
                findings.add(table.place(row), f"{id_column} is missing", "give every arm an id")
            elif not is_visible(name):
                findings.add(
                    table.place(row),
                    f"{id_column} {name!r} holds a control sign",
                    "write it with letters, digits and visible signs",
                )
            elif name in first:
                findings.add(
                    table.place(row),
                    f"{id_column} {name!r} stands in row {table.place(first[name])} already",
                    "give every arm its own id",
                )
            else:
                first[name] = row
        findings.raise_if_any()
        self._position = first

    @classmethod
    def from_csv(cls, path: str | Path, id_column: str = "id") -> Arms:
        """Read the cohort from a CSV, .xlsx or .ods file; see :meth:`read`."""
        return cls.read(path, id_column)

    @classmethod
    def read(cls, given: TableLike, id_column: str = "id", *, first: int | None = None) -> Arms:
        """The cohort that a sheet holds: without its rows of totals, and with one row for rows that are quite equal.

        Parameters
        ----------
        first
            Only so many arms from the top.

        Raises
        ------
        ModelError
            As :meth:`Table.read` does; when two rows of one id differ, naming both.
        """
        table = Table.read(given, needed=(id_column,))
        table = table.without_totals(id_column).one_a_key(id_column)
        return cls(table if first is None else table.head(first), id_column)

    @classmethod
    def from_arrays(cls, ids: Sequence[object] | int, **columns: Sequence[object] | np.ndarray) -> Arms:
        """Make a cohort from arrays of one length.

        Parameters
        ----------
        ids
            Ids, or the number of arms, which are then called ``arm0``, ``arm1``, ...
        columns
            Further columns, e.g. ``village=[...]``, ``cost=[...]``.
        """
        if isinstance(ids, int | np.integer):
            names = [f"arm{number}" for number in range(int(ids))]
        else:
            names = [text_of(name) for name in ids]
        table: dict[str, Sequence[object]] = {"id": names}
        table.update({name: list(cells) for name, cells in columns.items()})
        return cls(Table(table, source="arms"))

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, name: object) -> bool:
        return name in self._position

    def index(self, name: str) -> int:
        """Position of the arm called ``name``; ModelError with the nearest id otherwise."""
        if name not in self._position:
            raise ModelError(f"{self.table.source}: no arm {name!r}", nearest(name, self.ids))
        return self._position[name]

    def indices(self, names: Iterable[str]) -> np.ndarray:
        """Positions of several arms, int64, in the order given."""
        return np.array([self.index(name) for name in names], dtype=np.int64)

    def text(self, column: str) -> list[str]:
        """Cells of one column."""
        return self.table.text(column)

    def numbers(self, column: str, *, minimum: float = -np.inf, maximum: float = np.inf) -> np.ndarray:
        """One column as float64, shape (N,)."""
        return self.table.numbers(column, minimum=minimum, maximum=maximum)

    def groups(self, column: str) -> dict[str, np.ndarray]:
        """Value of ``column`` to the positions of its arms, in order of first appearance."""
        if column not in self._groups:
            values = self.table.text(column)
            place = {value: number for number, value in enumerate(dict.fromkeys(values))}
            number = np.fromiter((place[value] for value in values), dtype=np.int64, count=len(values))
            ends = np.cumsum(np.bincount(number, minlength=len(place)))
            members = np.split(np.argsort(number, kind="stable"), ends[:-1])
            self._groups[column] = {str(value): own for value, own in zip(place, members, strict=True)}
        return self._groups[column]

    @cached_property
    def _groups(self) -> dict[str, dict[str, np.ndarray]]:
        return {}

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        return list(self.table.columns)
