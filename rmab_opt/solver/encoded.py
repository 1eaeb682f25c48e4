"""Networks inside a program: used in the direction their rows were made for, within the bounds, at their own value.

Who encodes a network leaves a :class:`Encoded` on its Pyomo block; a session finds it there and holds every solve
against it. Nothing here knows how a network is encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.solver.program import Arrays, Floats, Ints, Names

__all__ = ["ATTRIBUTE", "Encoded", "Watch", "watches"]

ATTRIBUTE = "encoded_network"
"""Of a Pyomo block that carries an :class:`Encoded`."""

VALUE_SHARE = 1e-6
"""Difference of claim and network, as a share of what the output's terms can add up to: the solvers' own tolerance."""

SENSES = {"maximise": 1, "minimise": -1, "equal": 0}


@dataclass(eq=False)
class Encoded:
    """What a block promises about the network it holds.

    Parameters
    ----------
    name
        Of the block.
    sense
        ``maximise``: no point claims more than the network, and the largest claim is the network's; ``minimise``
        likewise; ``equal``: every point claims the network's value. Rows of one neuron alone may already be equal:
        then this is ``equal`` whatever was asked for.
    inputs, lower, upper
        Pyomo variables and the bounds they had.
    terms
        (variable, coefficient) of the output, over the block's own variables and the inputs.
    constant
        Of the output.
    rows
        The block's own constraints.
    signs
        Its binaries.
    value
        The network's own value at the inputs' values; None where it changes with Params.
    """

    name: str
    sense: str
    inputs: Sequence[Any]
    lower: Floats
    upper: Floats
    terms: Sequence[tuple[Any, float]]
    constant: float
    rows: Sequence[Any]
    signs: Sequence[Any]
    value: Callable[[Floats], float] | None


class _Index(Protocol):
    def __call__(self, component: Any) -> Any: ...


def watches(model: Any, index: _Index, rows: dict[int, int], columns: dict[int, int]) -> list[Watch]:
    """A watch for every encoded network of a model whose variables stand in the program."""
    import pyomo.environ as pyo

    found = []
    for block in model.block_data_objects(active=True, descend_into=pyo.Block):
        encoded = getattr(block, ATTRIBUTE, None)
        if isinstance(encoded, Encoded) and all(id(variable) in columns for variable in encoded.inputs):
            found.append(Watch(encoded, index, rows, columns))
    return found


class Watch:
    """One encoded network in a program's columns and rows."""

    def __init__(self, encoded: Encoded, index: _Index, rows: dict[int, int], columns: dict[int, int]) -> None:
        self.encoded, self.sense = encoded, SENSES[encoded.sense]
        self.inputs: Ints = np.asarray(index(list(encoded.inputs)), dtype=np.int64)
        entries = [(columns[id(variable)], number) for variable, number in encoded.terms if id(variable) in columns]
        self.columns: Ints = np.array([column for column, _ in entries], dtype=np.int64)
        self.numbers: Floats = np.array([number for _, number in entries], dtype=float)
        given = set(self.inputs.tolist())
        self.ours = np.array([column not in given for column in self.columns.tolist()], dtype=bool)
        self.own_rows: Ints = np.array([rows[id(row)] for row in encoded.rows if id(row) in rows], dtype=np.int64)
        self.signs: Ints = np.array(
            [columns[id(sign)] for sign in encoded.signs if id(sign) in columns], dtype=np.int64
        )

    def demand(self, arrays: Arrays, names: Names) -> None:
        """Raise ModelError when inputs may leave the bounds the rows were made for, or the output is used otherwise."""
        wide = (arrays.lower[self.inputs] < self.encoded.lower) | (arrays.upper[self.inputs] > self.encoded.upper)
        if wide.any():
            at = int(np.flatnonzero(wide)[0])
            column = self.inputs[at]
            raise ModelError(
                f"{names.column(column)} may be {arrays.lower[column]:g} to {arrays.upper[column]:g}; the network of "
                f"block {self.encoded.name!r} was encoded for {self.encoded.lower[at]:g} to {self.encoded.upper[at]:g}",
                "set the inputs' bounds before encode, or encode the network again.",
            )
        place = self._misused(arrays, names) if self.sense else None
        if place is not None:
            raise ModelError(
                f"block {self.encoded.name!r} holds its network for sense={self.encoded.sense!r}, and {place}",
                'encode it with sense="equal", which is right for every use.',
            )

    def _misused(self, arrays: Arrays, names: Names) -> str | None:
        """Where the output is pushed the other way, or held in an equality; None when nowhere."""
        columns, numbers = self.columns[self.ours], self.numbers[self.ours]
        push = arrays.cost[columns] * numbers * (self.sense if arrays.maximise else -self.sense)
        if (push < 0).any():
            return f"the objective {'maximises' if arrays.maximise else 'minimises'} it the other way"
        outside = np.ones(arrays.row_lower.size, dtype=bool)
        outside[self.own_rows] = False
        part = arrays.matrix[:, columns].tocoo()
        kept = outside[part.row] & (part.data != 0)
        row, push = part.row[kept], part.data[kept] * numbers[part.col[kept]] * self.sense
        upper, lower = np.isfinite(arrays.row_upper[row]), np.isfinite(arrays.row_lower[row])
        bad = np.flatnonzero((upper & lower) | ((push > 0) & upper) | ((push < 0) & lower))
        if not bad.size:
            return None
        where = int(row[bad[0]])
        both = np.isfinite(arrays.row_upper[where]) and np.isfinite(arrays.row_lower[where])
        return f"{names.row(where)} {'holds it from both sides' if both else 'pushes it the other way'}"

    def fault(self, arrays: Arrays, x: Floats) -> str | None:
        """How the claim at a point differs from the network's own value; None when it does not.

        Relaxed binaries claim what they like; a one-sided network may claim less than it is worth.
        """
        if self.encoded.value is None or not arrays.integer[self.signs].all():
            return None
        claimed = float(self.numbers @ x[self.columns]) + self.encoded.constant
        worth = self.encoded.value(x[self.inputs])
        ends = np.maximum(np.abs(arrays.lower[self.columns]), np.abs(arrays.upper[self.columns]))
        size = np.where(np.isfinite(ends), ends, np.abs(x[self.columns]))
        mass = float(np.abs(self.numbers) @ size) + abs(self.encoded.constant)
        apart = claimed - worth if self.sense == 0 else max(0.0, self.sense * (claimed - worth))
        if abs(apart) <= VALUE_SHARE * mass:
            return None
        return f"block {self.encoded.name!r} claims {claimed:.9g} where its network says {worth:.9g}"
