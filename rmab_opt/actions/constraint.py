"""The base of every constraint kind: what one must say, and the registry of kinds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PlainValidator,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)

from rmab_opt.actions.columns import Columns
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.problem import Table
from rmab_opt.problem.table import nearest
from rmab_opt.registry import register

__all__ = [
    "ByRound",
    "Constraint",
    "FromShared",
    "Limit",
    "LimitField",
    "Names",
    "TableSource",
    "as_number",
    "in_words",
]

Built = TypeVar("Built")


class FromShared(BaseModel):
    """A limit that is a shared value of the arms, ``{from: stock}``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(alias="from", min_length=1)

    def at(self, period: int, shared: Mapping[str, float]) -> float:
        """The value at a situation; ModelError when the arms share nothing of that name."""
        if self.name not in shared:
            known = nearest(self.name, list(shared)) if shared else "these arms share no state; give a number."
            raise ModelError(f"no shared value {self.name!r}", known)
        return float(shared[self.name])

    def __str__(self) -> str:
        return f"what is left of {self.name}"


class ByRound(BaseModel):
    """A limit of each round, ``{by_round: [5, 5, 8]}``; the last serves all later rounds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by_round: tuple[FiniteFloat, ...] = Field(min_length=1)

    def at(self, period: int, shared: Mapping[str, float]) -> float:
        """The value in a round."""
        return self.by_round[min(period, len(self.by_round) - 1)]

    def __str__(self) -> str:
        listed = ", ".join(f"{value:g}" for value in self.by_round[:6])
        return f"{listed}{', ...' if len(self.by_round) > 6 else ''} by round"


def _limit(value: Any) -> Any:
    # Told apart by the key, so that a fault is about the form that was meant.
    if isinstance(value, Mapping):
        for form, key in ((FromShared, "from"), (ByRound, "by_round")):
            if key in value:
                try:
                    return form.model_validate(dict(value))
                except ValidationError as error:
                    fault = error.errors()[0]
                    where = ".".join(str(part) for part in fault["loc"])
                    raise ValueError(f"{where}: {fault['msg']}") from None
        raise ValueError("give a number, {from: NAME of a shared value} or {by_round: [numbers]}")
    if isinstance(value, FromShared | ByRound):
        return value
    # Text and yes or no are no numbers, wherever they come from.
    if isinstance(value, str | bool):
        raise ValueError("Input should be a valid number")
    return _NUMBER.validate_python(value)


_NUMBER: TypeAdapter[float] = TypeAdapter(FiniteFloat)

Limit = float | FromShared | ByRound
"""A limit: a number, or what it is at a situation."""

LimitField = Annotated[Limit, PlainValidator(_limit)]
"""A limit as a field of a constraint."""


def as_number(limit: Limit | None) -> float | None:
    """The limit as a number; CapabilityError where it depends on the situation."""
    if isinstance(limit, FromShared | ByRound):
        raise CapabilityError(
            f"a number: it is {limit}",
            Constraint,
            ("ask the action set for a round, `actions.at(period, shared)`", "give the limit as a number"),
        )
    return limit


def in_words(limit: Limit) -> str:
    """The limit as a sentence has it."""
    return str(limit) if isinstance(limit, FromShared | ByRound) else f"{limit:g}"


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

    def check(self, columns: Columns) -> None:
        """Raise ModelError when the fields do not fit the cohort; called once, before anything is built."""

    @property
    def open_limits(self) -> dict[str, FromShared | ByRound]:
        """Fields that depend on the round or a shared value, by name; with any, this is a template, see :meth:`at`."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in fields.items() if isinstance(value, FromShared | ByRound)}

    def at(self, period: int, shared: Mapping[str, float]) -> Constraint:
        """The constraint with numbers at a situation; itself where nothing depends on it.

        Raises
        ------
        ModelError
            When a shared value is unknown, or the numbers do not go together.
        """
        limits = self.open_limits
        if not limits:
            return self
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        now = {}
        for name, limit in limits.items():
            try:
                now[name] = limit.at(period, shared)
            except ModelError as error:
                raise ModelError(f"{name}: {error.message}", error.fix) from None
        try:
            return type(self).model_validate(fields | now)
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            values = ", ".join(f"{name} {value:g}" for name, value in now.items())
            raise ModelError(f"in round {period + 1} ({values}): {message}", "give limits that go together.") from None

    def monotone(self, columns: Columns) -> bool:
        """Whether dropping a chosen column never breaks this constraint; lets the sampler grow actions."""
        return False

    def assignment(self, action: np.ndarray, columns: Columns) -> list[dict[str, str]]:
        """Who does what, when: rows with ``column`` and further keys; none by default."""
        return []

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
