"""The base of every constraint kind: what one must say, and the registry of kinds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast

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
from scipy import sparse

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
    "Rows",
    "TableSource",
    "as_number",
    "in_words",
    "linked",
    "table_with",
]

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

    def later(self, first: int) -> ByRound:
        """The limits as they are counted from a later round on."""
        return ByRound(by_round=self.by_round[min(first, len(self.by_round) - 1) :])

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


@dataclass(frozen=True, eq=False)
class _Links:
    """Other constraints of the same set: those this one names, by field, and those that name this one."""

    others: Mapping[str, Constraint] = field(default_factory=dict)
    askers: tuple[Constraint, ...] = ()


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
    ``violations`` never touches Pyomo. A kind that builds on another constraint of the set lists the field with its
    name in :attr:`needs` and asks :meth:`other` and :meth:`other_block`. The program, the sampler, the simulator's
    check, the certificate, the explanation of infeasibility and the report follow from the three.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    kind: ClassVar[str] = ""
    polyhedral: ClassVar[bool] = True
    """Whether the rows of one round hold in every round, so that they may couple bounds over all of them."""

    limiting: ClassVar[tuple[str, ...]] = ()
    """Components of the block whose limits a planner would relax; all rows when empty."""

    needs: ClassVar[tuple[str, ...]] = ()
    """Fields that hold the name of another constraint of the set, on whose parts this kind builds."""

    looks_only: ClassVar[bool] = False
    """Whether it reads the constraint that it names and asks nothing of that one's block."""

    common: ClassVar[tuple[str, ...]] = ("soft",)
    """Fields that every kind has: lists of kinds leave them out."""

    soft: float | None = Field(default=None, gt=0, allow_inf_nan=False, repr=False)
    """Price a unit of violation, in the objective's unit: then it is a preference, and no constraint."""

    _cache: dict[Any, Any] = PrivateAttr(default_factory=dict)
    _links: _Links = PrivateAttr(default_factory=_Links)

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

    def shortfall(self, actions: np.ndarray, columns: Columns) -> np.ndarray:
        """Units by which actions (M, C) break this, (M,): how far rows are passed, all together.

        Raises
        ------
        ModelError
            When this kind has variables of its own and does not say what a unit is.
        """
        rows = self._priced_rows(columns)
        used = np.asarray(actions, dtype=np.float64) @ rows.matrix.T
        over = np.maximum(used - rows.upper, 0.0) + np.maximum(rows.lower - used, 0.0)
        return np.asarray(over.sum(axis=1))

    def build_short(self, block: Any, act: Any, columns: Columns) -> Any:
        """Add what :meth:`shortfall` needs to a Pyomo block, and return it as an expression to be minimised."""
        import pyomo.environ as pyo

        rows = self._priced_rows(columns)
        sides = [
            (row, sign, limit)
            for sign, limits in ((1.0, rows.upper), (-1.0, rows.lower))
            for row, limit in enumerate(limits.tolist())
            if np.isfinite(limit)
        ]
        block.over = pyo.Var(range(len(sides)), domain=pyo.NonNegativeReals)

        @block.Constraint(range(len(sides)))
        def passed(_: Any, number: int) -> Any:
            row, sign, limit = sides[number]
            at = slice(rows.matrix.indptr[row], rows.matrix.indptr[row + 1])
            members, weights = rows.matrix.indices[at].tolist(), rows.matrix.data[at].tolist()
            used = pyo.quicksum(weight * act[c] for c, weight in zip(members, weights, strict=True))
            return block.over[number] >= sign * (used - limit)

        return pyo.quicksum(block.over.values())

    def _priced_rows(self, columns: Columns) -> Rows:
        rows = self.said_rows(columns)
        if rows is None:
            raise ModelError(
                f"soft: kind {self.kind!r} has variables of its own and no unit of violation",
                "make it firm, or put the price on a limit, a roster or a wish.",
            )
        return rows

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

    def later(self, first: int) -> Constraint:
        """The constraint as rounds are counted from round ``first`` on; itself where it is the same in all rounds."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        moved = {name: limit.later(first) for name, limit in fields.items() if isinstance(limit, ByRound)}
        return type(self).model_validate(fields | moved) if moved and first else self

    def counted(self, services: np.ndarray, columns: Columns) -> Constraint:
        """The constraint after rounds in which arms had services, int (rounds, N); itself where they do not matter."""
        return self

    def monotone(self, columns: Columns) -> bool:
        """Whether dropping a chosen column never breaks this constraint; lets the sampler grow actions."""
        return False

    def assignment(self, action: np.ndarray, columns: Columns) -> list[dict[str, str]]:
        """Who does what, when: rows with ``column`` and further keys; none by default."""
        return []

    def misassigned(self, rows: list[dict[str, str]], action: np.ndarray, columns: Columns) -> str | None:
        """What is wrong with rows of who does what for an action, judged row by row; None when nothing is.

        Kinds with several ways to serve an action say which they are; by default only their own is right.
        """

        def told(given: list[dict[str, str]]) -> list[tuple[tuple[str, str], ...]]:
            return sorted(tuple(sorted(row.items())) for row in given)

        own = self.assignment(action, columns)
        if told(own) == told(rows):
            return None
        odd = [row for row in rows if row not in own]
        return f"{odd[0] if odd else 'a visit is missing'} is not this action's"

    def outer_rows(self, columns: Columns) -> Rows | None:
        """Rows over the columns alone that every allowed action keeps, where :meth:`build` would be too large.

        Sets whose kinds with variables of their own all offer them are bounded by these rows and decided by
        their checks, without a program. None, the default: the rows of :meth:`build` serve.
        """
        return None

    def packed(
        self,
        wanted: np.ndarray,
        others: np.ndarray,
        gain: np.ndarray,
        worth: np.ndarray,
        columns: Columns,
        swap: Callable[[int, int], bool],
        *,
        until: float = np.inf,
    ) -> tuple[np.ndarray, list[dict[str, str]]] | None:
        """An allowed action that is worth much with who does what, for kinds whose check may take exponential time.

        Parameters
        ----------
        wanted, others
            Columns that are taken if possible, and further ones, best first.
        gain, worth
            Value of every column, (C,), and what is left of it after the plain rows' prices.
        swap
            (column or -1, column that leaves or -1): whether the plain rows let it in; takes note when they do. All of
            ``wanted`` is taken at first.
        until
            Time of ``perf_counter`` at which what is packed by then is the answer.
        """
        return None

    def alike(self, columns: Columns) -> np.ndarray | None:
        """A number a column, (C,), the same for columns that this constraint cannot tell apart; None: not known."""
        return None

    def proves(self, rows: list[dict[str, str]], action: np.ndarray, columns: Columns) -> bool:
        """Whether rows of who does what show by themselves that the action, (C,), is allowed; without a search.

        For kinds whose :meth:`violations` has to find such rows first. By default none do.
        """
        return False

    def witness(
        self, block: Any, values: Callable[[Any], np.ndarray], action: np.ndarray, columns: Columns
    ) -> list[dict[str, str]]:
        """Rows of who does what as a solved program has them, for :meth:`proves`; none by default.

        Parameters
        ----------
        block
            That :meth:`build` has filled.
        values
            The solution's values of a variable of the block, in the order of its index.
        action
            The solution's action, (C,).
        """
        return []

    own_variables: ClassVar[bool] = False
    """Whether :meth:`build` always adds variables of its own: its rows are then never looked through for others."""

    def divided(self, block: Any, columns: Columns) -> list[tuple[Any, float]]:
        """Pyomo constraints of the built block whose rows were divided by a power of two, with that power."""
        return []

    def said_rows(self, columns: Columns) -> Rows | None:
        """:meth:`rows`, unless a subclass writes other rows in a ``build`` of its own."""
        for base in type(self).__mro__:
            if "rows" in vars(base):
                return self.rows(columns)
            if "build" in vars(base):
                return None
        return None

    def parts(self, columns: Columns) -> Any:
        """What other kinds may build on, as plain data; None when this kind offers nothing.

        The kind's documentation names the variables of its block that go with it.
        """
        return None

    @property
    def askers(self) -> tuple[Constraint, ...]:
        """Constraints of the set that name this one, in the order of declaration."""
        return self._links.askers

    def other(self, field: str) -> Constraint:
        """The constraint that a field of :attr:`needs` names.

        Raises
        ------
        ModelError
            When this constraint stands in no action set.
        """
        found = self._links.others.get(field)
        if found is None:
            raise ModelError(
                f"{self.kind}: {field} {getattr(self, field, '')!r} is another constraint, and this one stands alone",
                "put both into one ActionSet and ask its constraints.",
            )
        return found

    def other_block(self, block: Any, field: str) -> Any:
        """The Pyomo block of :meth:`other`, built before this one's ``block`` of the same family."""
        index, name = block.index(), getattr(self, field)
        # A planner keeps one family of blocks over rounds and names: the name stands last.
        return block.parent_component()[(*index[:-1], name) if isinstance(index, tuple) else name]

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


def linked(constraints: Mapping[str, Constraint]) -> dict[str, Constraint]:
    """The same constraints, in copies that see each other where one names another.

    Raises
    ------
    ModelError
        When a name is none of the set's, the constraint named offers nothing, or names go round in a circle.
    """
    named = _named(constraints)
    for name, fields in named.items():
        for key, target in fields.items():
            if target not in constraints:
                raise ModelError(
                    f"constraints.{name}: {key}: no constraint {target!r}", nearest(target, list(constraints))
                )
            if type(constraints[target]).parts is Constraint.parts:
                raise ModelError(
                    f"constraints.{name}: {key}: kind {constraints[target].kind!r} of {target!r} offers no parts",
                    "name a constraint of another kind, or define `parts` in that one.",
                )
    built_in_order(constraints)
    involved = {part for name, fields in named.items() if fields for part in (name, *fields.values())}
    copies = {name: c.model_copy() if name in involved else c for name, c in constraints.items()}
    for name in involved:
        asking = tuple(
            copies[asker] for asker, fields in named.items() if name in fields.values() and not copies[asker].looks_only
        )
        # What a copy remembers depends on who stands beside it.
        copies[name]._cache = {}
        copies[name]._links = _Links({key: copies[target] for key, target in named[name].items()}, asking)
    return copies


def _named(constraints: Mapping[str, Constraint]) -> dict[str, dict[str, str]]:
    """Name to field to the other constraint's name."""
    return {name: {key: getattr(c, key) for key in c.needs if getattr(c, key)} for name, c in constraints.items()}


def built_in_order(constraints: Mapping[str, Constraint]) -> list[str]:
    """Names so that every one comes after those it names; ModelError for a circle."""
    named = _named(constraints)
    order: dict[str, None] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            circle = " -> ".join((*above[above.index(name) :], name))
            raise ModelError(f"constraints name each other in a circle: {circle}", "let one of them name none.")
        if name not in order:
            for target in named[name].values():
                visit(target, (*above, name))
            order[name] = None

    for name in named:
        visit(name, ())
    return list(order)


def _plain_signature(method: Callable[..., Any]) -> str:
    names = ", ".join(inspect.signature(method).parameters)
    return f"({names})"


def _names(value: Any) -> Any:
    if isinstance(value, str | int):
        value = [value]
    if isinstance(value, list | tuple):
        return tuple(str(name) for name in value)
    return value


def table_with(*needed: str) -> Callable[[Any, ValidationInfo], Table]:
    """Reads a table that has certain columns: a file beside the model file, rows, columns by name, or a data frame.

    Rows of totals are left out, with the first of the columns as their key.
    """

    def read(value: Any, info: ValidationInfo) -> Table:
        context: Mapping[str, Any] = info.context or {}
        name = str(info.field_name)
        if isinstance(value, str | Path):
            tables = context.get("tables", {})
            if str(value) in tables:
                return cast(Table, tables[str(value)])
            table = Table.read(Path(context.get("folder", ".")) / value, needed=needed)
        elif isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
            keys = list(value[0])
            ragged = [number for number, row in enumerate(value) if list(row) != keys]
            if ragged:
                raise ModelError(
                    f"{name}: row {ragged[0] + 1} has other keys than row 1", "give all rows the same keys."
                )
            table = Table({key: [row[key] for row in value] for key in keys}, source=name)
        elif isinstance(value, bool | int | float | list | tuple | None):
            raise ValueError("give a CSV file's name, or a list of rows")
        else:
            table = Table.read(value, source=name)
        return table.without_totals(needed[0]) if needed and needed[0] in table else table

    return read


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
"""Ids: a list, or one alone; numbers become text."""

TableSource = Annotated[Table, BeforeValidator(table_with())]
"""A table: a CSV file beside the model file, a list of rows, a mapping of columns, or a :class:`Table`."""
