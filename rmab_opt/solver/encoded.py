"""Networks inside a program: used in the direction their rows were made for, within the bounds, at their own value.

Who encodes a network leaves a :class:`Encoded` on its Pyomo block; a session finds it there and holds every solve
against it. Nothing here knows how a network is encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from rmab_opt.errors import ModelError
from rmab_opt.solver.program import Arrays, Floats, Ints, Names, Program

__all__ = ["ATTRIBUTE", "Encoded", "Reading", "Watch", "watches"]

ATTRIBUTE = "encoded_network"
"""Of a Pyomo block that carries an :class:`Encoded`."""

VALUE_SHARE = 1e-6
"""Difference of claim and network, as a share of what the output's terms can add up to: the solvers' own tolerance."""

LOOSER = 1e-9
"""Rounding of a limit, relative to its size, that is no widening."""

SENSES = {"maximise": 1, "minimise": -1, "equal": 0}


@dataclass(frozen=True, eq=False)
class Reading:
    """What bounds were computed from: rows of the model around a block, and the variables in them, inputs first."""

    variables: Sequence[Any]
    rows: Sequence[Any]
    """Pyomo constraints, in the program's order of rows."""
    program: Program

    def used(self, n: int, auxiliary: bool) -> Reading:
        """Rows over the first n variables; with ``auxiliary`` all that hang together with them."""
        matrix = sparse.csr_array(self.program.matrix != 0, dtype=np.int64)
        reached = np.arange(matrix.shape[1]) < n
        rows = matrix @ ~reached == 0
        while auxiliary:
            rows = matrix @ reached > 0
            wider = reached | (matrix.T @ rows > 0)
            if (wider == reached).all():
                break
            reached = wider
        rows &= np.isfinite(self.program.row_lower) | np.isfinite(self.program.row_upper)
        rows &= matrix.sum(axis=1) > 0
        kept = np.flatnonzero(rows)
        own = self.program
        program = replace(own, matrix=own.matrix[kept], row_lower=own.row_lower[kept], row_upper=own.row_upper[kept])
        return Reading(self.variables, [self.rows[i] for i in kept.tolist()], program)


@dataclass(frozen=True, eq=False)
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
    inputs, lower, upper, whole
        Pyomo variables, the bounds they had, and which were held to whole values.
    terms
        (variable, coefficient) of the output, over the block's own variables and the inputs.
    constant
        Of the output.
    rows
        The block's own constraints.
    signs
        Its binaries.
    reading
        The rows that the bounds were computed from, beside those of the variables; None: none that a session knows.
    value
        The network's own value at the inputs' values, given the binaries'; None where it changes with Params.
    judged
        The value by the framework that the network was read from, and how far it may lie from ``value``.
    again
        Writes the block's rows anew for the model as it is now; None where nobody can.
    """

    name: str
    sense: str
    inputs: Sequence[Any]
    lower: Floats
    upper: Floats
    whole: Sequence[bool]
    terms: Sequence[tuple[Any, float]]
    constant: float
    rows: Sequence[Any]
    signs: Sequence[Any]
    reading: Reading | None
    value: Callable[[Floats, Floats], float] | None
    judged: Callable[[Floats, Floats], tuple[float, float]] | None = None
    again: Callable[[], None] | None = None


class _Index(Protocol):
    def __call__(self, component: Any) -> Any: ...


def watches(model: Any, index: _Index, rows: dict[int, int], columns: dict[int, int]) -> list[Watch]:
    """A watch for every encoded network of a model whose variables stand in the program."""
    import pyomo.environ as pyo

    found = []
    for block in model.block_data_objects(active=None, descend_into=pyo.Block):
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
        self.off = bool(encoded.rows) and not self.own_rows.size
        """Whether its block is not active, so that nothing holds its output."""
        self.signs: Ints = np.array(
            [columns[id(sign)] for sign in encoded.signs if id(sign) in columns], dtype=np.int64
        )
        read = encoded.reading
        self.read_rows: Ints = np.array([rows.get(id(row), -1) for row in read.rows] if read else [], dtype=np.int64)
        self.read_columns: Ints = np.array(
            [columns.get(id(variable), -1) for variable in read.variables] if read else [], dtype=np.int64
        )

    def _wider(self, arrays: Arrays, names: Names) -> str | None:
        """Where the inputs may now take values that the rows were not made for; None when nowhere."""
        wide = (arrays.lower[self.inputs] < self.encoded.lower) | (arrays.upper[self.inputs] > self.encoded.upper)
        if wide.any():
            at = int(np.flatnonzero(wide)[0])
            column = self.inputs[at]
            return (
                f"{names.column(column)} may be {arrays.lower[column]:g} to {arrays.upper[column]:g}; the network of "
                f"block {self.encoded.name!r} was encoded for {self.encoded.lower[at]:g} to {self.encoded.upper[at]:g}"
            )
        reading = self.encoded.reading
        if reading is None:
            return None
        said = f"; the bounds of block {self.encoded.name!r} were computed with it as it was at encode"
        own = reading.program
        known = np.flatnonzero(self.read_columns >= 0)
        column = self.read_columns[known]
        wide = arrays.lower[column] < own.lower[known] - _rounding(own.lower[known])
        wide |= arrays.upper[column] > own.upper[known] + _rounding(own.upper[known])
        # Variables that stand in no row that was used say nothing.
        wide &= own.matrix.sum(axis=0)[known] != 0 if own.matrix.shape[0] else False
        if wide.any():
            return f"{names.column(int(column[wide][0]))} has wider bounds now{said}"
        gone = np.flatnonzero(self.read_rows < 0)
        if gone.size:
            return f"constraint {reading.rows[int(gone[0])].name!r} is no longer active{said}"
        rows = self.read_rows
        loose = arrays.row_lower[rows] < own.row_lower - _rounding(own.row_lower)
        loose |= arrays.row_upper[rows] > own.row_upper + _rounding(own.row_upper)
        if loose.any():
            return f"{names.row(int(rows[loose][0]))} is looser now{said}"
        changed = _changed(arrays.matrix[rows], own.matrix, self.read_columns)
        return None if changed is None else f"{names.row(int(rows[changed]))} has other coefficients now{said}"

    def widened(self, arrays: Arrays, names: Names) -> bool:
        """Whether the rows must be written again, and can be."""
        if self.encoded.again is None or self.off:
            return False
        fractional = np.asarray(self.encoded.whole, dtype=bool) & ~arrays.integer[self.inputs]
        return bool(fractional.any()) or self._wider(arrays, names) is not None

    def demand(self, arrays: Arrays, names: Names) -> None:
        """Raise ModelError when inputs may leave the set the rows were made for, or the output is used otherwise."""
        if self.off:
            ours = self.columns[self.ours]
            if arrays.cost[ours].any() or arrays.matrix[:, ours].nnz:
                raise ModelError(
                    f"block {self.encoded.name!r} is not active, and the output of its network is used",
                    "activate it, or take the output out of the objective and the rows.",
                )
            return
        wider = self._wider(arrays, names)
        if wider is not None:
            raise ModelError(
                wider, "set the inputs' bounds and rows before encode, or make the session from the changed model."
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
        if self.off or self.encoded.value is None or not arrays.integer[self.signs].all():
            return None
        claimed = float(self.numbers @ x[self.columns]) + self.encoded.constant
        worth = self.encoded.value(x[self.inputs], x[self.signs])
        ends = np.maximum(np.abs(arrays.lower[self.columns]), np.abs(arrays.upper[self.columns]))
        size = np.where(np.isfinite(ends), ends, np.abs(x[self.columns]))
        mass = float(np.abs(self.numbers) @ size) + abs(self.encoded.constant)
        apart = claimed - worth if self.sense == 0 else max(0.0, self.sense * (claimed - worth))
        if abs(apart) > VALUE_SHARE * mass:
            return f"block {self.encoded.name!r} claims {claimed:.9g} where its network says {worth:.9g}"
        return self._judged(x, worth)

    def _judged(self, x: Floats, worth: float) -> str | None:
        """How the framework's own forward pass at a point differs from the network as it was read."""
        if self.encoded.judged is None:
            return None
        judged, allowed = self.encoded.judged(x[self.inputs], x[self.signs])
        if abs(judged - worth) <= allowed:
            return None
        return (
            f"the framework gives {judged:.9g} at the point where the network of block {self.encoded.name!r}, as it "
            f"was read, gives {worth:.9g}"
        )


def _rounding(limits: Floats) -> Floats:
    return np.where(np.isfinite(limits), LOOSER * np.maximum(1.0, np.abs(limits)), 0.0)


def _changed(now: sparse.csr_array, read: sparse.csr_array, columns: Ints) -> int | None:
    """The first row whose coefficients are not those that were read; None when all are."""
    entries = sparse.coo_array(read)
    row, column = entries.coords
    lost = columns[column] < 0
    if lost.any():
        return int(row[lost][0])
    then = sparse.csr_array((entries.data, (row, columns[column])), shape=now.shape)
    apart = sparse.coo_array(now - then)
    size = np.maximum(1.0, abs(then).max(axis=1).toarray().reshape(-1)) if then.nnz else np.ones(now.shape[0])
    off = np.abs(apart.data) > LOOSER * size[apart.coords[0]]
    return int(apart.coords[0][off][0]) if off.any() else None
