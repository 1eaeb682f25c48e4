"""A network's rows as arrays: which neurons need variables, in which form, and what a forward pass gives them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from rmab_opt.encoder.bounds import SAFETY, Bounds, line_above
from rmab_opt.encoder.network import Hidden, Matrix, Reduced, dense
from rmab_opt.encoder.support import LP_SAFETY, Support
from rmab_opt.errors import ModelError
from rmab_opt.solver import Program, Session

__all__ = ["FORMULATIONS", "KINDS", "STATUSES", "Formulation", "LayerRows", "Rows", "assemble_rows", "statuses"]

Floats = NDArray[np.float64]
Formulation = Literal["auto", "big-m", "partition", "cuts"]
FORMULATIONS = ("auto", "big-m", "partition", "cuts")

STABLE = 1e-10
"""A bound this close to zero, relative to the other one, is the safety margin of a neuron that is exactly stable."""

STATUSES = ("linear", "active", "dead", "unused", "merged", "one-sided", "split")
"""linear: no bend. active, dead: one piece only. unused: nothing reads it. merged: a multiple of another neuron.
one-sided: two rows without a binary, since the maximum pushes it onto its bend. split: with a binary."""

KINDS = ("positive", "negative", "sign", "part")
"""What a variable stands for: max(0, x), max(0, -x), 1 where x > 0, a group's share of max(0, x)."""

GROUPS = 3
"""Groups of a neuron's inputs in the partitioned form."""

CUT_ROUNDS, CUT_VIOLATION = 6, 1e-3
"""Rounds of separation at the root, and the violation, relative to the neuron's range, from which a cut is added."""

TINY = 1e-9
"""Coefficients below this share of their row's largest are left out of inequalities, which open by their worth."""

FAULT = 1e-6
"""Slack, relative to the numbers in a row, when rows are held against a forward pass."""


@dataclass
class LayerRows:
    """One hidden layer of the reduced network: every neuron's fate and bounds, and what they cost."""

    status: list[str]
    """One of ``STATUSES`` a neuron."""
    lower: Floats
    upper: Floats
    variables: int = 0
    binaries: int = 0
    rows: int = 0

    def count(self, status: str) -> int:
        """Neurons of a status."""
        return self.status.count(status)


@dataclass(frozen=True, eq=False)
class Rows:
    """Variables and rows that a network adds to a program over its inputs.

    Columns are the inputs and then the new variables; ``row_lower <= matrix @ columns <= row_upper``, the output is
    ``cost @ columns + constant``.
    """

    n_inputs: int
    matrix: sparse.csr_array
    """Shape (m, n_inputs + n_new)."""
    row_lower: Floats
    row_upper: Floats
    lower: Floats
    """Shape (n_new,), of the new variables."""
    upper: Floats
    integer: NDArray[np.bool_]
    cost: Floats
    """Shape (n_inputs + n_new,)."""
    constant: float
    kind: NDArray[np.int8]
    """Shape (n_new,), position in ``KINDS``."""
    layer: NDArray[np.int64]
    neuron: NDArray[np.int64]
    group: NDArray[np.int64]
    """Which group of the neuron's inputs a ``part`` is."""
    groups: sparse.csr_array
    """Shape (parts, n_inputs + n_new), the sums that the parts are shares of, in the parts' order."""
    layers: list[LayerRows]
    cuts: int = 0
    at_least: float | None = None
    """The last row demands this output, when it is not None."""

    def join(self, base: Program, inputs: NDArray[np.int64]) -> Program:
        """The base program with these rows behind its own, maximising the output; inputs stand in its columns."""
        n, m = base.cost.size, self.n_inputs
        at = np.concatenate([inputs, n + np.arange(len(self.lower))])
        # Put together by hand: scipy's vstack costs more than everything else here.
        own, above = self.matrix, base.matrix
        matrix = sparse.csr_array(
            (
                np.concatenate([above.data, own.data]),
                np.concatenate([above.indices, at[own.indices]]),
                np.concatenate([above.indptr, above.indptr[-1] + own.indptr[1:]]),
            ),
            shape=(above.shape[0] + own.shape[0], n + len(self.lower)),
        )
        cost = np.zeros(n + len(self.lower))
        np.add.at(cost, inputs, self.cost[:m])
        cost[n:] = self.cost[m:]
        return Program(
            cost=cost,
            matrix=matrix,
            row_lower=np.concatenate([base.row_lower, self.row_lower]),
            row_upper=np.concatenate([base.row_upper, self.row_upper]),
            lower=np.concatenate([base.lower, self.lower]),
            upper=np.concatenate([base.upper, self.upper]),
            integer=np.concatenate([base.integer, self.integer]),
            maximise=True,
            offset=self.constant,
        )

    def completed(self, reduced: Reduced, points: Floats) -> Floats:
        """All columns at input points (M, n_inputs), the new ones by the forward pass; shape (M, n_inputs + n_new)."""
        full = np.concatenate([points, np.zeros((len(points), len(self.lower)))], axis=1)
        x = reduced.preactivations(points)
        for number, name in enumerate(KINDS):
            at = np.flatnonzero(self.kind == number)
            if not at.size:
                continue
            own = np.stack([x[k][:, i] for k, i in zip(self.layer[at], self.neuron[at], strict=True)], axis=1)
            if name == "part":
                own = (own > 0) * np.asarray((self.groups @ full.T).T)
            elif name == "sign":
                own = (own > 0).astype(np.float64)
            else:
                own = np.maximum(own if name == "positive" else -own, 0.0)
            full[:, self.n_inputs + at] = own
        return full

    def faults(self, reduced: Reduced, points: Floats) -> list[str]:
        """What keeps allowed points (M, n_inputs) out of the rows, or gives them another output: empty when right.

        Every point is completed by the network's own forward pass. It must lie in all bounds and rows, and the
        output's expression must equal the network's value, whatever the solver thinks.
        """
        value = reduced(points)
        if self.at_least is not None:
            kept = value >= self.at_least
            points, value = points[kept], value[kept]
        if not len(points):
            return []
        full = self.completed(reduced, points)
        new = full[:, self.n_inputs :]
        found = []
        for lines, miss in (("lower", self.lower - new), ("upper", new - self.upper)):
            slack = FAULT * np.maximum(1.0, np.abs(self.lower if lines == "lower" else self.upper))
            for j in np.flatnonzero((miss > slack).any(axis=0)).tolist():
                what = f"{KINDS[self.kind[j]]} of neuron {self.neuron[j]}, layer {self.layer[j]}"
                found.append(f"an allowed action has {what} beyond its {lines} bound by {miss[:, j].max():.3g}")
        activity = np.asarray((self.matrix @ full.T).T)
        size = FAULT * np.maximum(1.0, np.asarray((abs(self.matrix) @ np.abs(full).T).T))
        off = np.maximum(self.row_lower - activity, activity - self.row_upper) - size
        for i in np.flatnonzero((off > 0).any(axis=0)).tolist():
            found.append(f"an allowed action breaks row {i} by {off[:, i].max():.3g}")
        claimed = full @ self.cost + self.constant
        size = FAULT * np.maximum(1.0, np.abs(full) @ np.abs(self.cost))
        if (np.abs(claimed - value) > size).any():
            worst = int(np.argmax(np.abs(claimed - value) - size))
            found.append(f"the encoded output is {claimed[worst]:.8g} where the network's is {value[worst]:.8g}")
        return found


def _cleaned(
    matrix: sparse.csr_array, row_lower: Floats, row_upper: Floats, lower: Floats, upper: Floats
) -> tuple[sparse.csr_array, Floats, Floats]:
    """Inequality rows without coefficients so small that presolve stumbles over them: the rows open by their worth."""
    matrix.sum_duplicates()
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    size: Floats = np.zeros(matrix.shape[0])
    np.maximum.at(size, row, np.abs(matrix.data))
    small = (np.abs(matrix.data) <= TINY * size[row]) & (row_lower != row_upper)[row]
    if small.any():
        data, column = matrix.data[small], matrix.indices[small]
        ends = np.stack([data * lower[column], data * upper[column]])
        row_lower, row_upper = row_lower.copy(), row_upper.copy()
        np.subtract.at(row_lower, row[small], ends.max(axis=0))
        np.subtract.at(row_upper, row[small], ends.min(axis=0))
        matrix.data[small] = 0.0
    matrix.eliminate_zeros()
    return matrix, row_lower, row_upper


def statuses(lower: Floats, upper: Floats, gain: Floats) -> list[str]:
    """linear, active, dead or split, by bounds alone."""
    return [
        "linear" if g == 0 else "active" if low >= -STABLE * high else "dead" if high <= -STABLE * low else "split"
        for low, high, g in zip(lower, upper, gain, strict=True)
    ]


def assemble_rows(
    reduced: Reduced,
    found: Bounds,
    support: Support,
    *,
    merged: list[dict[int, int]],
    pushed: list[np.ndarray],
    formulation: str = "big-m",
    at_least: float | None = None,
) -> Rows:
    """Rows and variables of a reduced network between bounds.

    Parameters
    ----------
    found
        One pair a hidden layer, then the output's.
    merged, pushed
        Neurons another one took over, and neurons the objective itself pushes onto their bend, a layer.
    formulation
        ``big-m``: y - q = x, y <= u z, q <= -l (1 - z). ``partition``: a share v_p of y for every group p of the
        neuron's inputs, the convex hull of both signs over the groups. ``cuts``: ``big-m`` and the rows
        y <= X_I v - min X_I v (1 - z) + (c + max X_rest v) z that the relaxed optimum breaks.
    at_least
        Adds the row output >= at_least.

    References
    ----------
    Partitioned form: Tsay, Kronqvist, Thebelt, Misener (2021). Cuts: Anderson, Huchette, Ma, Tjandraatmadja, Vielma
    (2020), with sums of bounds replaced by the set's support function.
    """
    if formulation not in FORMULATIONS[1:]:
        raise ModelError(f"formulation is {formulation!r}", f"use one of {', '.join(FORMULATIONS)}.")
    work = _Assembly(reduced, found, support, merged, pushed, formulation)
    rows = work.run(at_least)
    return work.separate(rows) if formulation == "cuts" else rows


@dataclass(eq=False)
class _Bends:
    """The neurons of one layer that got variables, for propagating rows backwards."""

    x: Matrix
    """Shape (neurons, columns before)."""
    shift: Floats
    y: NDArray[np.int64]
    q: NDArray[np.int64]
    """Columns; q is -1 where the form has none."""
    z: NDArray[np.int64]
    """Columns; -1 without a binary."""
    low: Floats
    high: Floats


class _Assembly:
    def __init__(
        self,
        reduced: Reduced,
        found: Bounds,
        support: Support,
        merged: list[dict[int, int]],
        pushed: list[np.ndarray],
        formulation: str,
    ) -> None:
        self.reduced, self.found, self.support = reduced, found, support
        self.merged, self.pushed, self.formulation = merged, pushed, formulation
        self.n = support.n
        self.n_columns = self.n
        self.lower, self.upper = [support.lower], [support.upper]
        self.kinds: list[tuple[int, int, np.ndarray, np.ndarray]] = []
        self.entries: list[tuple[np.ndarray, np.ndarray, Floats]] = []
        self.sides: list[tuple[Floats, Floats]] = []
        self.n_rows = 0
        self.bends: list[_Bends] = []
        self.group_rows: list[sparse.csr_array] = []

    def columns(
        self, kind: str, k: int, neurons: np.ndarray, lower: Floats, upper: Floats, group: int = 0
    ) -> np.ndarray:
        """New variables, one a neuron."""
        at = self.n_columns + np.arange(len(neurons))
        self.n_columns += len(neurons)
        self.lower.append(lower)
        self.upper.append(upper)
        self.kinds.append((KINDS.index(kind), k, neurons, np.full(len(neurons), group)))
        return at

    def rows(
        self,
        lower: Floats | float,
        upper: Floats | float,
        count: int,
        *parts: tuple[np.ndarray, Floats | float] | Matrix,
    ) -> None:
        """New rows: each part is (column a row, coefficient a row), or a matrix over the columns."""
        at = self.n_rows + np.arange(count)
        for part in parts:
            if isinstance(part, tuple):
                self.entries.append((at, part[0], np.broadcast_to(part[1], count).astype(float)))
            elif isinstance(part, np.ndarray):
                row, column = np.nonzero(part)
                self.entries.append((self.n_rows + row, column, part[row, column]))
            else:
                coo = sparse.coo_array(part)
                self.entries.append((self.n_rows + coo.coords[0], coo.coords[1], coo.data))
        self.sides.append((np.broadcast_to(lower, count).astype(float), np.broadcast_to(upper, count).astype(float)))
        self.n_rows += count

    def run(self, at_least: float | None) -> Rows:
        reduced, n = self.reduced, self.n
        layers = []
        h: Matrix | None = None
        shift: Floats = np.zeros(n)
        for k, layer in enumerate(reduced.hidden):
            x = layer.weight if h is None else layer.weight @ h
            c = layer.bias + layer.weight @ shift
            status = self._fates(k, layer)
            before = self.n_columns, self.n_rows
            code = np.array(status)
            bent = np.flatnonzero((code == "split") | (code == "one-sided"))
            two = code[bent] == "split"
            low, high = self.found[k][0][bent], self.found[k][1][bent]
            bends = self._bend(k, x[bent], c[bent], low, high, bent, two)
            self.bends.append(bends)
            # h = slope x + gain y: stable neurons are multiples of x, others (slope + gain) y - slope q.
            own = layer.slope + np.where(code == "active", layer.gain, 0.0)
            has_q = bends.q >= 0
            by_q = bent[has_q]
            own[by_q] = 0.0
            own[(code == "unused") | (code == "merged")] = 0.0
            by_y = np.where(has_q, layer.slope[bent] + layer.gain[bent], layer.gain[bent])
            if sparse.issparse(x):
                scaled = sparse.coo_array(x.multiply(own[:, None]))
                rows = [scaled.coords[0], bent, by_q]
                places = [scaled.coords[1], bends.y, bends.q[has_q]]
                numbers = [scaled.data, by_y, -layer.slope[by_q]]
                h = sparse.csr_array(
                    (np.concatenate(numbers), (np.concatenate(rows), np.concatenate(places))),
                    shape=(len(code), self.n_columns),
                )
                h.eliminate_zeros()
            else:
                h = np.zeros((len(code), self.n_columns))
                np.multiply(x, own[:, None], out=h[:, : x.shape[1]])
                h[bent, bends.y] = by_y
                h[by_q, bends.q[has_q]] = -layer.slope[by_q]
            shift = own * c
            layers.append(
                LayerRows(status, *self.found[k], self.n_columns - before[0], int(two.sum()), self.n_rows - before[1])
            )
        cost, constant = np.zeros(self.n_columns), reduced.constant
        cost[:n] = reduced.skip
        if h is not None:
            cost += h.T @ reduced.readout
            constant += float(shift @ reduced.readout)
        if at_least is not None:
            row = sparse.csr_array(cost[None])
            self.rows(at_least - constant - LP_SAFETY * max(1.0, abs(at_least)), np.inf, 1, row)
        return self._done(cost, constant, layers, at_least)

    def _fates(self, k: int, layer: Hidden) -> list[str]:
        status = statuses(*self.found[k], layer.gain)
        for j in self.merged[k]:
            status[j] = "merged"
        last = k + 1 == len(self.reduced.hidden)
        after = self.reduced.readout[None] if last else self.reduced.hidden[k + 1].weight
        read = np.asarray(abs(after).sum(axis=0)) > 0
        for i, kind in enumerate(status):
            if kind == "split":
                status[i] = "unused" if not read[i] else "one-sided" if self.pushed[k][i] else kind
        return status

    def _bend(
        self, k: int, x: Matrix, c: Floats, low: Floats, high: Floats, at: np.ndarray, two: NDArray[np.bool_]
    ) -> _Bends:
        """Variables and rows of the unstable neurons ``at`` of layer k; ``two`` of them need a binary."""
        parted = two if self.formulation == "partition" else np.zeros(len(at), dtype=bool)
        count = len(at)
        y = self.columns("positive", k, at, np.zeros(count), high)
        q, z = np.full(count, -1), np.full(count, -1)
        q[~parted] = self.columns("negative", k, at[~parted], np.zeros(int((~parted).sum())), -low[~parted])
        z[two] = self.columns("sign", k, at[two], np.zeros(int(two.sum())), np.ones(int(two.sum())))
        plain = np.flatnonzero(~parted)
        # Inputs come before new columns in every row, so that nothing needs sorting.
        self.rows(c[plain], c[plain], len(plain), -x[plain], (y[plain], 1.0), (q[plain], -1.0))
        both = np.flatnonzero(two & ~parted)
        self.rows(-np.inf, 0.0, len(both), (y[both], 1.0), (z[both], -high[both]))
        self.rows(-np.inf, -low[both], len(both), (q[both], 1.0), (z[both], -low[both]))
        if parted.any():
            self._partition(k, sparse.csr_array(x), c, low, high, at, np.flatnonzero(parted), y, z)
        return _Bends(x, c, y, q, z, low, high)

    def _partition(
        self,
        k: int,
        x: sparse.csr_array,
        c: Floats,
        low: Floats,
        high: Floats,
        at: np.ndarray,
        which: np.ndarray,
        y: np.ndarray,
        z: np.ndarray,
    ) -> None:
        """v_p in [L_p z, U_p z], x_p - v_p in [L_p (1 - z), U_p (1 - z)], y = sum of v_p + c z, y >= x."""
        owner: list[int] = []
        number: list[int] = []
        rows, columns, data = [], [], []
        for i in which.tolist():
            part = slice(x.indptr[i], x.indptr[i + 1])
            members, weight = x.indices[part], x.data[part]
            # Inputs of like weight together, as published.
            for p, chosen in enumerate(np.array_split(np.argsort(weight, kind="stable"), min(GROUPS, len(weight)))):
                rows.append(np.full(len(chosen), len(owner)))
                columns.append(members[chosen])
                data.append(weight[chosen])
                owner.append(i)
                number.append(p)
        own = np.array(owner, dtype=np.int64)
        group = sparse.csr_array(
            (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns))), shape=(len(own), x.shape[1])
        )
        both = self.upper_of(sparse.csr_array(sparse.vstack([group, -group])))
        most, least = both[: len(own)], -both[len(own) :]
        v = self.columns("part", k, at[own], np.minimum(least, 0.0), np.maximum(most, 0.0))
        self.kinds[-1] = (*self.kinds[-1][:3], np.array(number, dtype=np.int64))
        self.group_rows.append(group)
        count = len(own)
        self.rows(-np.inf, 0.0, count, (v, 1.0), (z[own], -most))
        self.rows(0.0, np.inf, count, (v, 1.0), (z[own], -least))
        self.rows(-np.inf, most, count, group, (z[own], most), (v, -1.0))
        self.rows(least, np.inf, count, group, (z[own], least), (v, -1.0))
        total = len(which)
        place = np.zeros(len(y), dtype=np.int64)
        place[which] = np.arange(total)
        sums = sparse.csr_array((-np.ones(count), (place[own], v)), shape=(total, self.n_columns))
        self.rows(0.0, 0.0, total, (y[which], 1.0), (z[which], -c[which]), sums)
        minus = sparse.csr_array(-x[which])
        self.rows(c[which], np.inf, total, minus, (y[which], 1.0))
        # The whole row's own bounds know the set better than the sum of the groups'.
        self.rows(-np.inf, 0.0, total, (y[which], 1.0), (z[which], -high[which]))
        self.rows(-np.inf, c[which] - low[which], total, minus, (y[which], 1.0), (z[which], -low[which]))

    def upper_of(self, rows: sparse.csr_array) -> Floats:
        """Upper bounds of rows over the columns so far: intervals, and lines propagated back to the inputs; (m,)."""
        n, m = self.n, rows.shape[0]
        lower, upper = np.concatenate(self.lower), np.concatenate(self.upper)
        reach = np.maximum(np.abs(lower), np.abs(upper))
        c: Floats = np.zeros((m, self.n_columns))
        c[:, : rows.shape[1]] = dense(rows)
        new = c[:, n:]
        best = self.support.values(c[:, :n]) + np.maximum(new, 0.0) @ upper[n:] + np.minimum(new, 0.0) @ lower[n:]
        best += 10 * SAFETY * (np.abs(c) @ reach)
        for choice in ("adaptive", "zero", "one"):
            a, e, size = c.copy(), np.zeros(m), np.zeros(m)
            for bends in reversed(self.bends):
                if not len(bends.y):
                    continue
                slope, height = line_above(bends.low, bends.high)
                below = np.full(len(slope), float(choice == "one"))
                if choice == "adaptive":
                    below = (bends.high > -bends.low).astype(np.float64)
                # q = y - x where the form has q.
                by_q = np.where(bends.q >= 0, a[:, bends.q], 0.0)
                by_y = a[:, bends.y] + by_q
                positive = np.maximum(by_y, 0.0)
                by_x = positive * slope + np.minimum(by_y, 0.0) * below - by_q
                e += positive @ height + by_x @ bends.shift
                size += np.abs(by_x) @ np.maximum(np.abs(bends.low), np.abs(bends.high)) + positive @ height
                size += np.abs(by_x) @ np.abs(bends.shift)
                a[:, bends.y] = 0.0
                a[:, bends.q[bends.q >= 0]] = 0.0
                a[:, : bends.x.shape[1]] += by_x @ bends.x
            size += np.abs(a[:, :n]) @ reach[:n]
            best = np.minimum(best, self.support.values(a[:, :n]) + e + 10 * SAFETY * size)
        return best

    def _done(self, cost: Floats, constant: float, layers: list[LayerRows], at_least: float | None) -> Rows:
        new = self.n_columns - self.n
        empty = np.zeros(0, dtype=np.int64)
        rows, columns, data = (
            np.concatenate([np.asarray(entry[i]) for entry in self.entries] or [empty]) for i in range(3)
        )
        matrix = sparse.csr_array(
            (data.astype(float), (rows.astype(np.int64), columns.astype(np.int64))), shape=(self.n_rows, self.n_columns)
        )
        row_lower = np.concatenate([side[0] for side in self.sides] or [np.zeros(0)])
        row_upper = np.concatenate([side[1] for side in self.sides] or [np.zeros(0)])
        matrix, row_lower, row_upper = _cleaned(
            matrix, row_lower, row_upper, np.concatenate(self.lower), np.concatenate(self.upper)
        )
        kind = np.concatenate([np.full(len(part[2]), part[0]) for part in self.kinds] or [empty])
        wide = [sparse.csr_array((g.data, g.indices, g.indptr), shape=g.shape) for g in self.group_rows]
        for group in wide:
            group.resize((group.shape[0], self.n_columns))
        return Rows(
            n_inputs=self.n,
            matrix=matrix,
            row_lower=row_lower,
            row_upper=row_upper,
            lower=np.concatenate(self.lower)[self.n :],
            upper=np.concatenate(self.upper)[self.n :],
            integer=kind == KINDS.index("sign") if new else np.zeros(0, dtype=bool),
            cost=cost,
            constant=float(constant),
            kind=kind.astype(np.int8),
            layer=np.concatenate([np.full(len(part[2]), part[1]) for part in self.kinds] or [empty]),
            neuron=np.concatenate([part[2] for part in self.kinds] or [empty]),
            group=np.concatenate([part[3] for part in self.kinds] or [empty]),
            groups=sparse.csr_array(sparse.vstack(wide)) if wide else sparse.csr_array((0, self.n_columns)),
            layers=layers,
            at_least=at_least,
        )

    # ---- cuts
    def separate(self, rows: Rows) -> Rows:
        """Rows of the ideal form that the relaxed optimum breaks, a few rounds."""
        split = [np.flatnonzero(bends.z >= 0) for bends in self.bends]
        if not sum(len(part) for part in split):
            return rows
        wide = []
        for bends, part in zip(self.bends, split, strict=True):
            x = sparse.csr_array(bends.x[part])
            x.resize((len(part), self.n_columns))
            wide.append(x)
        x = sparse.csr_array(sparse.vstack(wide))
        pick = lambda name: np.concatenate(  # noqa: E731 - five arrays gathered alike
            [getattr(bends, name)[part] for bends, part in zip(self.bends, split, strict=True)]
        )
        shift, y, z, low, high = (pick(name) for name in ("shift", "y", "z", "low", "high"))
        base, inputs = self.support.program()
        program = rows.join(base, inputs)
        session = Session.from_arrays(replace(program, integer=np.zeros_like(program.integer)), "fast")
        at = np.concatenate([inputs, base.cost.size + np.arange(self.n_columns - self.n)])
        lower, upper = np.concatenate(self.lower), np.concatenate(self.upper)
        owner = np.repeat(np.arange(len(y)), np.diff(x.indptr))
        column, weight = x.indices, x.data
        least = np.where(weight > 0, lower[column], upper[column])
        most = np.where(weight > 0, upper[column], lower[column])
        added: list[sparse.csr_array] = []
        limits: list[Floats] = []
        for _ in range(CUT_ROUNDS):
            result = session.solve()
            if result.status != "optimal" or result.x is None:
                break
            v = result.x[at]
            inside = weight * (v[column] - least * (1 - v[z][owner])) < weight * most * v[z][owner]
            chosen = sparse.csr_array((np.where(inside, weight, 0.0), x.indices, x.indptr), shape=x.shape)
            rest = sparse.csr_array((np.where(inside, 0.0, weight), x.indices, x.indptr), shape=x.shape)
            both = self.upper_of(sparse.csr_array(sparse.vstack([-chosen, rest])))
            floor, ceiling = -both[: len(y)], shift + both[len(y) :]
            value = chosen @ v - floor * (1 - v[z]) + ceiling * v[z]
            broken = np.flatnonzero(v[y] > value + CUT_VIOLATION * np.maximum(1e-9, high - low))
            if not broken.size:
                break
            # y - X_I v - (floor + ceiling) z <= -floor
            count = np.arange(len(broken))
            own = sparse.csr_array(
                (
                    np.concatenate([np.ones(len(broken)), -(floor + ceiling)[broken]]),
                    (np.concatenate([count, count]), np.concatenate([y[broken], z[broken]])),
                ),
                shape=(len(broken), self.n_columns),
            )
            cut = sparse.csr_array(own - chosen[broken])
            cut.eliminate_zeros()
            cut, _, limit = _cleaned(cut, np.full(len(broken), -np.inf), -floor[broken], lower, upper)
            added.append(cut)
            limits.append(limit)
            coo = sparse.coo_array(cut)
            session.add_rows(
                sparse.csr_array(
                    (coo.data, (coo.coords[0], at[coo.coords[1]])), shape=(len(broken), len(program.cost))
                ),
                -np.inf,
                limit,
            )
        if not added:
            return rows
        limit = np.concatenate(limits)
        # The cut-off row, where there is one, stays last.
        matrix = sparse.csr_array(sparse.vstack([*added, rows.matrix], format="csr"))
        return replace(
            rows,
            matrix=sparse.csr_array(matrix),
            row_lower=np.concatenate([np.full(len(limit), -np.inf), rows.row_lower]),
            row_upper=np.concatenate([limit, rows.row_upper]),
            cuts=len(limit),
        )
