"""Kinds that are plain rows over the columns: counts, weighted sums, locks and conflicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, field_validator, model_validator
from scipy import sparse

from rmab_opt.actions.columns import Columns
from rmab_opt.actions.constraint import Constraint, Limit, LimitField, Names, Rows, as_number, in_words
from rmab_opt.errors import ModelError

if TYPE_CHECKING:
    from pyomo.core.expr import LinearExpression

__all__ = [
    "ROW_TOLERANCE",
    "Budget",
    "Conflict",
    "Knapsack",
    "Linear",
    "LockedIn",
    "LockedOut",
    "OneAction",
    "row_unit",
    "row_units",
    "tolerance",
]

ROW_TOLERANCE = 1e-6
"""How far a weighted sum may pass its limit, relative to the limit's size: the solver's own tolerance."""

LEAST, LARGEST = 0.5, 2.0**20
"""A row whose largest weight lies between these is written as it is: tolerances of 1e-6 fit it."""

DECIMALS, STEPS = 6, 20
"""Decimals, and powers of two up to :data:`LARGEST`, by which a row's unit is looked for."""


Part = tuple[float | None, np.ndarray, np.ndarray | None, float | None]
"""One row: lower limit, members, their weights (1 when None), upper limit."""


def row_unit(weights: np.ndarray | None) -> float:
    """The power of two that a row is divided by before any solver, search or check: its sums have no unit of ours.

    1 where the largest weight is neither small nor huge; else the one after which the weights have the fewest
    decimals, so that sums stay on their grid, with the largest between :data:`LEAST` and :data:`LARGEST`.

    Parameters
    ----------
    weights
        The row's weights, any shape; None for a count.
    """
    if weights is None:
        return 1.0
    size = np.abs(np.asarray(weights, dtype=np.float64))
    most = float(size.max(initial=0.0))
    if most == 0.0 or LEAST <= most <= LARGEST or not np.isfinite(most):
        return 1.0
    # ldexp is exact, and a power of two itself may overflow where the weights are the smallest numbers there are.
    base = int(np.frexp(most)[1])
    for decimals in range(DECIMALS + 1):
        for step in range(STEPS + 1):
            scaled = np.ldexp(size, step - base) * 10.0**decimals
            if (np.abs(scaled - np.rint(scaled)) <= 4 * np.finfo(np.float64).eps * scaled).all():
                return float(np.ldexp(1.0, base - step))
    return float(np.ldexp(1.0, base))


def row_units(matrix: sparse.csr_array) -> np.ndarray:
    """:func:`row_unit` of every row, (m,)."""
    units = np.ones(matrix.shape[0])
    filled = np.flatnonzero(np.diff(matrix.indptr) > 0)
    if filled.size:
        most = np.maximum.reduceat(np.abs(matrix.data), matrix.indptr[:-1][filled])
        for row in filled[(most < LEAST) | (most > LARGEST)].tolist():
            units[row] = row_unit(matrix.data[matrix.indptr[row] : matrix.indptr[row + 1]])
    return units


def tolerance(limit: float, unit: float = 1.0) -> float:
    """How far a sum may pass a limit in a row of this unit."""
    return ROW_TOLERANCE * max(unit, abs(float(limit)))


def opened(lower: Any, upper: Any) -> tuple[np.ndarray, np.ndarray]:
    """Limits as every check takes them: each opened by the tolerance, relative to its own size; arrays or numbers."""
    low, high = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    size = [np.maximum(1.0, np.abs(np.where(np.isfinite(side), side, 0.0))) for side in (low, high)]
    return low - ROW_TOLERANCE * size[0], high + ROW_TOLERANCE * size[1]


def weighted(act: Any, members: np.ndarray, weights: np.ndarray | None = None) -> LinearExpression:
    """Sum of ``weights[k] * act[members[k]]``, built in one pass; without members zero times the first column."""
    from pyomo.core.expr import LinearExpression

    if not len(members):
        members, weights = np.zeros(1, dtype=np.int64), np.zeros(1)
    coefficients = [1.0] * len(members) if weights is None else [float(weight) for weight in weights]
    return LinearExpression(constant=0, linear_coefs=coefficients, linear_vars=[act[int(c)] for c in members])


def impossible(variable: Any, lower: float | None, upper: float | None) -> Any:
    """lower <= 0 <= upper as a row over a 0/1 variable: none where it holds, else one that no value satisfies.

    A row without coefficients cannot be written; this one makes the set empty and is relaxed by the same amount.
    """
    import pyomo.environ as pyo

    if lower is not None and lower > 0:
        return -variable >= lower
    return variable <= upper if upper is not None and upper < 0 else pyo.Constraint.Feasible


def block_constraint(index: list[str], rows: Mapping[str, tuple[float | None, Any, float | None]]) -> Any:
    """A Pyomo constraint indexed by text with rows ``lower <= body <= upper``.

    A row whose weights are all zero is left out where it holds; elsewhere :func:`impossible` stands for it.
    """
    import pyomo.environ as pyo

    def rule(_: Any, key: str) -> Any:
        lower, body, upper = rows[key]
        if not any(body.linear_coefs):
            return impossible(body.linear_vars[0], lower, upper)
        if lower is not None and lower == upper:
            return body == lower
        return (
            pyo.inequality(lower, body, upper)
            if lower is not None and upper is not None
            else (body <= upper if lower is None else body >= lower)
        )

    return pyo.Constraint(index, rule=rule)


class PlainKind(Constraint):
    """A kind that is rows over the columns: says them once, for Pyomo and for everyone who reads arrays."""

    component: ClassVar[str] = "rows"
    """What the rows are called in the block."""

    def sums(self, columns: Columns) -> dict[str, Part]:
        """Name to row."""
        raise NotImplementedError

    def build(self, block: Any, act: Any, columns: Columns) -> None:
        found = {}
        for name, (lower, members, weights, upper) in self.sums(columns).items():
            unit = self.unit_of(weights)
            limits = [None if side is None else side / unit for side in (lower, upper)]
            body = weighted(act, members, None if weights is None else weights / unit)
            found[name] = (limits[0], body, limits[1])
        block.add_component(self.component, block_constraint(list(found), found))

    @property
    def in_units(self) -> bool:
        """Whether the rows are written here, each divided by its :func:`row_unit`."""
        return type(self).build is PlainKind.build

    def unit_of(self, weights: np.ndarray | None) -> float:
        """What a row with these weights is divided by; 1 where a subclass writes rows of its own."""
        return row_unit(weights) if self.in_units else 1.0

    def divided(self, block: Any, columns: Columns) -> list[tuple[Any, float]]:
        found = {name: self.unit_of(part[2]) for name, part in self.sums(columns).items()}
        written = block.component(self.component) if self.in_units else {}
        return [(written[name], unit) for name, unit in found.items() if unit != 1.0 and name in written]

    def rows(self, columns: Columns) -> Rows:
        found = self.sums(columns)
        members = [np.asarray(part[1], dtype=np.int64) for part in found.values()]
        weights = [np.ones(len(part[1])) if part[2] is None else part[2] for part in found.values()]
        sizes = [len(part) for part in members]
        matrix = sparse.csr_array(
            (
                np.concatenate([*weights, np.empty(0)]),
                (np.repeat(np.arange(len(sizes)), sizes), np.concatenate([*members, np.empty(0, dtype=np.int64)])),
            ),
            shape=(len(sizes), len(columns)),
        )
        lower = np.array([-np.inf if part[0] is None else part[0] for part in found.values()], dtype=np.float64)
        upper = np.array([np.inf if part[3] is None else part[3] for part in found.values()], dtype=np.float64)
        return Rows(matrix, lower, upper, list(found))


class _Limits(PlainKind):
    """Shared fields of kinds that bound a sum from one or both sides."""

    at_most: LimitField | None = None
    """Largest value of the sum: a number, ``{from: NAME}`` of a shared value, or ``{by_round: [...]}``."""
    at_least: LimitField | None = None
    """Smallest value of the sum."""
    equal: LimitField | None = None
    """Exact value of the sum; excludes the other two."""

    @model_validator(mode="after")
    def _some_limit(self) -> _Limits:
        if self.equal is not None and (self.at_most is not None or self.at_least is not None):
            raise ValueError("give either equal, or at_most and at_least")
        if self.equal is None and self.at_most is None and self.at_least is None:
            raise ValueError("give one of at_most, at_least, equal")
        if isinstance(self.at_most, float) and isinstance(self.at_least, float) and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least:g} is above at_most {self.at_most:g}")
        return self

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """(lower, upper); None where there is none."""
        if self.equal is not None:
            return as_number(self.equal), as_number(self.equal)
        return as_number(self.at_least), as_number(self.at_most)

    def words(self) -> str:
        """``at most 8``, ``at least 1``, ``exactly 3``, ``between 1 and 8``."""
        if self.equal is not None:
            return f"exactly {in_words(self.equal)}"
        if self.at_most is None:
            return f"at least {in_words(self.at_least)}" if self.at_least is not None else "any number"
        if self.at_least is None:
            return f"at most {in_words(self.at_most)}"
        return f"between {in_words(self.at_least)} and {in_words(self.at_most)}"

    def broken(self, used: float, unit: float = 1.0) -> bool:
        """Whether a sum of this size, in a row of this unit, breaks a limit."""
        lower, upper = self.limits
        return (upper is not None and used > upper + tolerance(upper, unit)) or (
            lower is not None and used < lower - tolerance(lower, unit)
        )


class Budget(_Limits, kind="budget"):
    """A limit on how many columns are chosen in one round.

    lower <= sum of act[c] over all columns c <= upper.
    """

    component: ClassVar[str] = "count"

    def sums(self, columns: Columns) -> dict[str, Part]:
        lower, upper = self.limits
        return {"all": (lower, np.arange(len(columns)), None, upper)}

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        used = int(action.sum())
        if self.broken(used):
            yield f"{used} chosen, allowed is {self.words()}"

    def describe(self) -> str:
        return f"{self.words()} in one round"

    def check(self, columns: Columns) -> None:
        if self.open_limits:
            return
        lower, upper = self.limits
        if upper is not None and upper < 0:
            raise ModelError(f"at_most is {upper:g}", "give a number of at least 0.")
        if lower is not None and lower > len(columns):
            raise ModelError(f"at least {lower:g} of {len(columns)} columns", f"give at most {len(columns)}.")

    def monotone(self, columns: Columns) -> bool:
        return (self.limits[0] or 0) <= 0


class Linear(_Limits, kind="linear"):
    """A limit on the sum of a table's column over selected arms, all together or per group.

    For every value g of ``per``: lower <= sum of value[c] * act[c] over selected columns c of g <= upper.
    """

    component: ClassVar[str] = "total"

    column: str | None = None
    """Table column whose numbers are summed; counts when absent."""
    where: dict[str, Any] = Field(default_factory=dict)
    """Only arms whose cell in the named column is the value, or one of the values."""
    per: str | None = None
    """Table column whose every value gets a row of its own."""

    @field_validator("where")
    @classmethod
    def _where(cls, where: dict[str, Any]) -> dict[str, tuple[str, ...]]:
        return {
            name: tuple(str(value) for value in (values if isinstance(values, list | tuple) else [values]))
            for name, values in where.items()
        }

    def _groups(self, columns: Columns) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        def groups() -> dict[str, tuple[np.ndarray, np.ndarray]]:
            chosen = np.ones(len(columns), dtype=bool)
            for name, values in self.where.items():
                chosen &= np.isin(np.array(columns.text(name), dtype=str), values)
            weights = np.ones(len(columns)) if self.column is None else columns.numbers(self.column)
            split = {"all": np.arange(len(columns))} if self.per is None else columns.by(self.per)
            kept = {value: members[chosen[members]] for value, members in split.items()}
            # A group without a selected arm has no row: `where` says whom the rule is about.
            return {v: (members, weights[members]) for v, members in kept.items() if members.size or self.per is None}

        return self._once(columns, groups)

    def sums(self, columns: Columns) -> dict[str, Part]:
        lower, upper = self.limits
        return {name: (lower, members, weights, upper) for name, (members, weights) in self._groups(columns).items()}

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        groups = self._groups(columns)
        units = self._once(columns, lambda: {value: self.unit_of(weights) for value, (_, weights) in groups.items()})
        for value, (members, weights) in groups.items():
            used = float(action[members] @ weights)
            if self.broken(used, units[value]):
                group = "" if self.per is None else f" for {self.per} {value!r}"
                yield f"{self.column or 'count'} is {used:g}{group}, allowed is {self.words()}"

    def describe(self) -> str:
        single = self.words().endswith(" 1")
        what = ("arm" if single else "arms") if self.column is None else f"of {self.column}"
        who = "".join(f" with {name} {' or '.join(values)}" for name, values in self.where.items())
        return f"{self.words()} {what}{who}{f' for every {self.per}' if self.per else ''}"

    def check(self, columns: Columns) -> None:
        for name, values in self.where.items():
            unknown = [value for value in values if value not in columns.by(name)]
            if unknown:
                known = ", ".join(list(columns.by(name))[:8])
                raise ModelError(
                    f"where.{name}: no arm has {unknown[0]!r}", f"use a value that occurs (known: {known})."
                )
        self._groups(columns)

    def monotone(self, columns: Columns) -> bool:
        nonnegative = all((weights >= 0).all() for _, weights in self._groups(columns).values())
        return nonnegative and (self.limits[0] or 0) <= 0


class Knapsack(PlainKind, kind="knapsack"):
    """A limit on the total cost of what is chosen: sum of cost[c] * act[c] <= at_most."""

    component: ClassVar[str] = "cost"

    cost: str
    """Table column with the cost of each arm, not negative."""
    at_most: LimitField
    """Money, hours or other units available in one round; or ``{from: NAME}``, or ``{by_round: [...]}``."""

    @field_validator("at_most")
    @classmethod
    def _not_negative(cls, at_most: Limit) -> Limit:
        if isinstance(at_most, float) and at_most < 0:
            raise ValueError(f"at_most is {at_most:g}, give a number of at least 0")
        return at_most

    @property
    def limit(self) -> float:
        """``at_most`` as a number."""
        return float(as_number(self.at_most) or 0.0)

    def sums(self, columns: Columns) -> dict[str, Part]:
        return {"all": (None, np.arange(len(columns)), columns.numbers(self.cost), self.limit)}

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        used = sum(float(cell) for cell, chosen in zip(columns.text(self.cost), action, strict=True) if chosen)
        unit = self._once(columns, lambda: self.unit_of(columns.numbers(self.cost)))
        if used > self.limit + tolerance(self.limit, unit):
            yield f"{self.cost} is {used:g}, allowed is at most {self.limit:g}"

    def describe(self) -> str:
        return f"total {self.cost} at most {in_words(self.at_most)}"

    def check(self, columns: Columns) -> None:
        columns.numbers(self.cost, minimum=0.0)

    def monotone(self, columns: Columns) -> bool:
        return True


class LockedIn(PlainKind, kind="locked_in"):
    """Named columns that must be chosen."""

    component: ClassVar[str] = "chosen"

    ids: Names = Field(min_length=1)
    """Ids of the arms that are acted on in any case."""

    def sums(self, columns: Columns) -> dict[str, Part]:
        return {name: (1.0, columns.indices([name]), None, 1.0) for name in dict.fromkeys(self.ids)}

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        left = [name for name in self.ids if not action[columns.index(name)]]
        if left:
            yield f"{', '.join(left)} must be chosen"

    def describe(self) -> str:
        return f"{', '.join(self.ids)} must be chosen"

    def check(self, columns: Columns) -> None:
        columns.indices(self.ids)


class LockedOut(PlainKind, kind="locked_out"):
    """Named columns that must not be chosen."""

    component: ClassVar[str] = "left_out"

    ids: Names = Field(min_length=1)
    """Ids of the arms that are left alone in any case."""

    def sums(self, columns: Columns) -> dict[str, Part]:
        return {name: (0.0, columns.indices([name]), None, 0.0) for name in dict.fromkeys(self.ids)}

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        taken = [name for name in self.ids if action[columns.index(name)]]
        if taken:
            yield f"{', '.join(taken)} must not be chosen"

    def describe(self) -> str:
        return f"{', '.join(self.ids)} must not be chosen"

    def check(self, columns: Columns) -> None:
        columns.indices(self.ids)

    def monotone(self, columns: Columns) -> bool:
        return True


class Conflict(PlainKind, kind="conflict"):
    """Sets of columns of which only some may be chosen together."""

    component: ClassVar[str] = "together"

    groups: tuple[Names, ...] = Field(min_length=1)
    """Lists of ids, each with at least two."""
    at_most: int = Field(default=1, ge=0)
    """How many of each list may be chosen."""

    @field_validator("groups")
    @classmethod
    def _pairs(cls, groups: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        for number, group in enumerate(groups):
            if len(set(group)) < 2:
                raise ValueError(f"list {number + 1} names fewer than two arms: {list(group)}")
        return tuple(tuple(dict.fromkeys(group)) for group in groups)

    def sums(self, columns: Columns) -> dict[str, Part]:
        return {" + ".join(group): (None, columns.indices(group), None, float(self.at_most)) for group in self.groups}

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        for group in self.groups:
            taken = [name for name in group if action[columns.index(name)]]
            if len(taken) > self.at_most:
                yield f"{', '.join(taken)} chosen together, at most {self.at_most} of {', '.join(group)}"

    def describe(self) -> str:
        listed = "; ".join(", ".join(group) for group in self.groups[:3]) + ("; ..." if len(self.groups) > 3 else "")
        return f"at most {self.at_most} of each of: {listed}"

    def check(self, columns: Columns) -> None:
        for group in self.groups:
            columns.indices(group)

    def monotone(self, columns: Columns) -> bool:
        return True


class OneAction(PlainKind, kind="one_action"):
    """At most one action an arm, where columns are arms with their actions; added by itself there."""

    component: ClassVar[str] = "one"

    def sums(self, columns: Columns) -> dict[str, Part]:
        return {arm: (None, members, None, 1.0) for arm, members in columns.by("arm").items()}

    def violations(self, action: np.ndarray, columns: Columns) -> Iterator[str]:
        # Counted over all arms at once: cohorts of 100,000 are checked every round.
        names, arm = self._once(columns, lambda: np.unique(np.array(columns.text("arm")), return_inverse=True))
        count = np.bincount(arm, weights=action, minlength=len(names))
        for crowded in np.flatnonzero(count > 1):
            yield f"arm {names[crowded]} has {count[crowded]:g} actions"

    def describe(self) -> str:
        return "at most one action an arm"

    def monotone(self, columns: Columns) -> bool:
        return True
