"""The arrays of one linear or mixed-integer program, and the check that no number in them fools a solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from rmab_opt.errors import ModelError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Program:
    """Arrays of one linear or mixed-integer program; pickles, so it is what travels between processes.

    maximise or minimise  cost @ x + offset
    subject to            row_lower <= matrix @ x <= row_upper,  lower <= x <= upper,  x[j] whole where integer[j].

    Raises
    ------
    ModelError
        When shapes disagree, or a number is NaN or infinite where it must not be; names the array and the place.
    """

    cost: Floats
    """Shape (n,), objective per unit of each column."""
    matrix: sparse.csr_array
    """Shape (m, n), sparse by rows."""
    row_lower: Floats
    """Shape (m,), -inf for none."""
    row_upper: Floats
    """Shape (m,), +inf for none."""
    lower: Floats
    """Shape (n,), -inf for none."""
    upper: Floats
    """Shape (n,), +inf for none."""
    integer: NDArray[np.bool_]
    """Shape (n,), True where the column takes whole values only."""
    maximise: bool = False
    offset: float = 0.0
    """Constant part of the objective."""

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731 - frozen: the one way to convert
        for name in ("cost", "row_lower", "row_upper", "lower", "upper"):
            put(name, np.array(getattr(self, name), dtype=float))
        put("integer", np.array(self.integer, dtype=bool))
        matrix = sparse.csr_array(self.matrix, dtype=float, copy=True)
        matrix.sum_duplicates()
        if matrix.nnz >= 2**31:
            raise ModelError(f"the program has {matrix.nnz} coefficients, more than 2^31.", "split it.")
        # HiGHS reads 32-bit indices; scipy chooses 64 bits for some products and slices.
        matrix.indptr, matrix.indices = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
        put("matrix", matrix)
        put("maximise", bool(self.maximise))
        put("offset", float(self.offset))
        rows, columns = matrix.shape
        for name in ("cost", "row_lower", "row_upper", "lower", "upper", "integer"):
            size = rows if name.startswith("row") else columns
            if getattr(self, name).shape != (size,):
                raise ModelError(
                    f"program: {name} has shape {getattr(self, name).shape}, the matrix {matrix.shape}.",
                    f"give {name} the shape ({size},).",
                )
        demand_numbers(self, Names())

    @property
    def has_integers(self) -> bool:
        """Whether it is a MILP."""
        return bool(self.integer.any())


KINDS = ("cost", "offset", "row_lower", "row_upper", "lower", "upper", "data")


def values_of(program: Any, kind: str) -> Floats:
    """A numeric array of a Program or of a session's arrays; ``data`` are the matrix coefficients."""
    return program.matrix.data if kind == "data" else np.atleast_1d(getattr(program, kind))


def demand_numbers(program: Any, names: Names) -> None:
    """Raise ModelError at the first number that a solver must not see."""
    for kind in KINDS:
        values = values_of(program, kind)
        bad = np.flatnonzero(refused(kind, values))
        if bad.size:
            raise ModelError(f"{names.place(kind, int(bad[0]), program.matrix)} is {values[bad[0]]}.", FIX_NUMBER)


FIX_NUMBER = "give a finite number (a bound may be infinite on its open side)."


def refused(kind: str, values: Floats) -> NDArray[np.bool_]:
    """Where HiGHS would drop a term, keep an old bound or call a NaN objective optimal, without a word."""
    if kind.endswith("lower"):
        return np.isnan(values) | (values == np.inf)
    if kind.endswith("upper"):
        return np.isnan(values) | (values == -np.inf)
    return ~np.isfinite(values)


ARRAYS = ("cost", "matrix", "row_lower", "row_upper", "lower", "upper", "integer")


@dataclass
class Arrays:
    """The arrays a session works on: a Program that may change."""

    cost: Floats
    matrix: sparse.csr_array
    row_lower: Floats
    row_upper: Floats
    lower: Floats
    upper: Floats
    integer: NDArray[np.bool_]
    maximise: bool
    offset: Floats
    """Shape (1,), an array like the others so that Params can write into it."""

    @classmethod
    def of(cls, program: Program) -> Arrays:
        copies = {name: getattr(program, name).copy() for name in ARRAYS}
        return cls(**copies, maximise=program.maximise, offset=np.array([program.offset]))

    def copy(self) -> Arrays:
        return Arrays(**{name: getattr(self, name).copy() for name in (*ARRAYS, "offset")}, maximise=self.maximise)

    def program(self) -> Program:
        return Program(
            **{name: getattr(self, name) for name in ARRAYS}, maximise=self.maximise, offset=self.offset.item()
        )


class Names:
    """What messages call a row, a column or a coefficient."""

    def __init__(self, constraints: list[Any] | None = None, variables: list[Any] | None = None) -> None:
        self.constraints, self.variables = constraints or [], variables or []

    def row(self, i: int) -> str:
        return f"constraint {self.constraints[i].name!r}" if i < len(self.constraints) else f"row {i}"

    def column(self, j: int) -> str:
        return f"variable {self.variables[j].name!r}" if j < len(self.variables) else f"column {j}"

    def place(self, kind: str, position: int, matrix: sparse.csr_array) -> str:
        """For example: the cost of variable 'act[3]'."""
        if kind == "offset":
            return "the constant of the objective"
        if kind == "data":
            row = int(np.searchsorted(matrix.indptr, position, side="right")) - 1
            return f"the coefficient of {self.column(int(matrix.indices[position]))} in {self.row(row)}"
        words = {"cost": "cost", "row_lower": "lower limit", "row_upper": "upper limit"}
        item = self.row(position) if kind.startswith("row") else self.column(position)
        return f"the {words.get(kind, kind + ' bound')} of {item}"


def int32(matrix: Any) -> sparse.csr_array:
    """The same matrix with the 32-bit indices HiGHS reads."""
    matrix = sparse.csr_array(matrix)
    matrix.indptr, matrix.indices = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
    return matrix
