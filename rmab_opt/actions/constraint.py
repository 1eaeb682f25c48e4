"""The base of every constraint kind: what one must say, and the registry of kinds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, PrivateAttr, ValidationInfo
from scipy import sparse

from rmab_opt.actions.columns import Columns
from rmab_opt.errors import ModelError
from rmab_opt.problem import Table
from rmab_opt.registry import register

__all__ = ["Constraint", "Names", "Rows", "TableSource"]

Built = TypeVar("Built")


@dataclass(frozen=True, eq=False)
class Rows:
    """lower <= matrix @ act <= upper, with a name a row; what a program needs, without Pyomo."""

    matrix: sparse.csr_array
    """Shape (m, C)."""
    lower: np.ndarray
    """Shape (m,), -inf for none."""
    upper: np.ndarray
    """Shape (m,), inf for none."""
    names: list[str]
    """What each row is about within its constraint: a group, an arm, a slot; ``all`` for its only one."""


class Constraint(BaseModel):
    """A declared restriction of the action: rows for the program, a check without it, and a sentence.

    Write a kind as a subclass with a name, its fields, and three methods::

        class AtMostEach(Constraint, kind="at_most_each"):
            attribute: str
            at_most: int

            def build(self, block, act, columns):
                @block.Constraint(list(columns.by(self.attribute)))
                def limit(_, value):
                    return sum(act[c] for c in columns.by(self.attribute)[value]) <= self.at_most

            def violations(self, action, columns):
                for value, members in columns.by(self.attribute).items():
                    if action[members].sum() > self.at_most:
                        yield f"{action[members].sum()} chosen in {value}, limit {self.at_most}"

            def describe(self):
                return f"at most {self.at_most} arms per {self.attribute}"

    ``build`` adds rows (never variable bounds or fixings) to the block it is given and to nothing else;
    ``violations`` never touches Pyomo. The program, the sampler, the simulator's check, the certificate,
    the explanation of infeasibility and the report follow from the three.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    kind: ClassVar[str] = ""
    polyhedral: ClassVar[bool] = True
    """Whether the rows' linear relaxation may couple the occupancy bound (it is a relaxation in any case)."""

    limiting: ClassVar[tuple[str, ...]] = ()
    """Components of the block whose limits a planner would relax; all rows when empty."""

    _cache: dict[Any, Any] = PrivateAttr(default_factory=dict)

    def build(self, block: Any, act: Any, columns: Columns) -> None:
        """Add rows over ``act`` (binary, indexed 0 .. C-1) and own variables to the Pyomo ``block``."""
        raise NotImplementedError

    def violations(self, action: np.ndarray, columns: Columns) -> Iterable[str]:
        """Sentences about what the action, int array (C,), breaks; none when it is allowed."""
        raise NotImplementedError

    def describe(self) -> str:
        """One sentence for a planner, without the constraint's name."""
        raise NotImplementedError

    def rows(self, columns: Columns) -> Rows | None:
        """The rows that :meth:`build` writes, as arrays, for a kind that needs no variables of its own; else None.

        Saves the program where only the rows are asked for; a kind that does not say them is compiled instead.
        """
        return None

    def check(self, columns: Columns) -> None:
        """Raise ModelError when the fields do not fit the cohort; called once, before anything is built."""

    def monotone(self, columns: Columns) -> bool:
        """Whether dropping a chosen column never breaks this constraint; lets the sampler grow actions."""
        return False

    def assignment(self, action: np.ndarray, columns: Columns) -> list[dict[str, str]]:
        """Who does what, when: rows with ``column`` and further keys; none by default."""
        return []

    def said_rows(self, columns: Columns) -> Rows | None:
        """:meth:`rows`, unless a subclass writes other rows in a ``build`` of its own."""
        for base in type(self).__mro__:
            if "rows" in vars(base):
                return self.rows(columns)
            if "build" in vars(base):
                return None
        return None

    def _once(self, columns: Columns, make: Callable[[], Built]) -> Built:
        """Value of ``make`` kept for these columns, so that checks of many actions prepare once."""
        key = make.__qualname__
        kept = self._cache.get(key)
        if kept is None or kept[0] is not columns:
            kept = (columns, make())
            self._cache[key] = kept
        return kept[1]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # Takes `kind=` off the class line; the hook below sees it once pydantic has made the class.
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(cls, kind: str = "", **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not kind:
            return
        for name in ("build", "violations", "describe"):
            base = getattr(Constraint, name)
            if getattr(cls, name) is base:
                raise ModelError(
                    f"constraint kind {kind!r} ({cls.__name__}) lacks {name}",
                    f"define `def {name}{_plain_signature(base)}` in the class.",
                )
        cls.kind = kind
        register("constraint", kind)(cls)


def _plain_signature(method: Callable[..., Any]) -> str:
    names = ", ".join(inspect.signature(method).parameters)
    return f"({names})"


def _names(value: Any) -> Any:
    if isinstance(value, str | int):
        value = [value]
    if isinstance(value, list | tuple):
        return tuple(str(name) for name in value)
    return value


def _table(value: Any, info: ValidationInfo) -> Any:
    context: Mapping[str, Any] = info.context or {}
    if isinstance(value, str | Path):
        tables = context.get("tables", {})
        if str(value) in tables:
            return tables[str(value)]
        return Table.from_csv(Path(context.get("folder", ".")) / value)
    if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        keys = list(value[0])
        ragged = [number for number, row in enumerate(value) if list(row) != keys]
        if ragged:
            raise ModelError(
                f"{info.field_name}: row {ragged[0] + 1} has other keys than row 1", "give all rows the same keys."
            )
        return Table({key: [row[key] for row in value] for key in keys}, source=str(info.field_name))
    if isinstance(value, Mapping):
        return Table(value, source=str(info.field_name))
    if isinstance(value, Table):
        return value
    raise ValueError("give a CSV file's name, or a list of rows")


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
"""Ids: a list, or one alone; numbers become text."""

TableSource = Annotated[Table, BeforeValidator(_table)]
"""A table: a CSV file beside the model file, a list of rows, a mapping of columns, or a :class:`Table`."""
