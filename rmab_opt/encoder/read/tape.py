"""What every reader writes on: layers and links, and tensors that are affine in the inputs and in layers' outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from rmab_opt.encoder.network import INPUTS, WAY_OUT, Activation, Network
from rmab_opt.encoder.read.curves import CURVES, Curve, pieces
from rmab_opt.errors import ModelError

__all__ = ["Head", "Tape", "Value", "windows"]

Floats = NDArray[np.float64]

SPARSE_SIZE, SPARSE_SHARE = 4_000_000, 0.1
"""Weights of all layers above which, and share of nonzero ones below which, they stay sparse."""

FAR = 1e30
"""Limits of a clamp beyond this never bind; exporters write the largest float for none."""


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor inside the graph: shift + sum over sources of matrix @ its outputs, entries in row-major order."""

    shape: tuple[int, ...]
    parts: dict[int, sparse.csr_array]
    """Layer number (-1: the inputs) -> matrix (size, its outputs)."""
    shift: Floats
    """Shape (size,)."""

    @property
    def size(self) -> int:
        """Number of entries."""
        return len(self.shift)

    @property
    def index(self) -> NDArray[np.int64]:
        """Position of every entry, in the tensor's shape: what moves it moves the entries."""
        return np.arange(self.size).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Head:
    """The end of a classifier, of which only the order is read: softmax, log_softmax or sigmoid of a value."""

    kind: str
    value: Value
    axis: int = -1
    where: str = ""
    """What messages call it."""

    def numbers(self, values: Floats) -> Floats:
        """What the framework gives, from (P, *shape)."""
        if self.kind == "sigmoid":
            return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)))
        axis = self.axis % len(self.value.shape) + 1
        moved = values - values.max(axis=axis, keepdims=True)
        total = np.exp(moved).sum(axis=axis, keepdims=True)
        return np.asarray(moved - np.log(total) if self.kind == "log_softmax" else np.exp(moved) / total)


class _Bend(NamedTuple):
    """factor * curve(source) + shift."""

    factor: float
    shift: float
    source: Value
    curve: Curve


@dataclass
class _Written:
    """One layer: activation(sum of parts @ their sources + shift)."""

    parts: dict[int, sparse.csr_array]
    shift: Floats
    activation: Activation
    error: Floats
    """Shape (outputs,): how far the framework's own number may be from this one."""
    level: int = 0


@dataclass
class Tape:
    """Layers written down in the order they are met; everything between two bends is one affine map.

    Every tensor is an affine function of the inputs and of earlier layers' outputs, so sums of branches, scalings,
    slices and concatenations need no layer of their own.
    """

    shape: tuple[int, ...]
    """Of the input, the axis of examples included as 1."""
    smooth: float | None = None
    """Largest error of a curve's pieces; None: curves are refused."""
    layers: list[_Written] = field(default_factory=list)
    bent: dict[int, tuple[Value, Curve]] = field(default_factory=dict)
    """Layer that holds a curve's values -> what it is a curve of: :meth:`product` knows gates by it."""

    @property
    def n(self) -> int:
        """Number of inputs."""
        return int(np.prod(self.shape))

    @property
    def inputs(self) -> Value:
        """The input tensor."""
        return Value(self.shape, {INPUTS: _eye(self.n)}, np.zeros(self.n))

    def constant(self, numbers: Any) -> Value:
        """A tensor that hangs on nothing."""
        array = np.asarray(numbers, dtype=np.float64)
        return Value(array.shape, {}, array.reshape(-1).copy())

    # ---- affine maps
    def linear(self, value: Value, matrix: Any, shape: Sequence[int], bias: Any = 0.0) -> Value:
        """matrix @ value + bias, in a shape."""
        matrix = sparse.csr_array(matrix)
        parts = {k: sparse.csr_array(matrix @ m) for k, m in value.parts.items()}
        shift = matrix @ value.shift + bias
        return Value(tuple(int(s) for s in shape), parts, np.asarray(shift, dtype=np.float64))

    def take(self, value: Value, index: Any, fill: float = 0.0) -> Value:
        """Entries at these positions, in the shape of ``index``; -1 stands for the number ``fill``."""
        index = np.asarray(index, dtype=np.int64)
        flat = index.reshape(-1)
        kept = np.flatnonzero(flat >= 0)
        matrix = sparse.csr_array((np.ones(len(kept)), (kept, flat[kept])), shape=(len(flat), value.size))
        return self.linear(value, matrix, index.shape, np.where(flat >= 0, 0.0, fill))

    def broadcast(self, value: Value, shape: tuple[int, ...]) -> Value:
        """Repeated to a larger shape."""
        return value if value.shape == shape else self.take(value, np.broadcast_to(value.index, shape))

    def scale(self, value: Value, factor: Any) -> Value:
        """factor * value, entry by entry."""
        factor = np.asarray(factor, dtype=np.float64)
        shape = np.broadcast_shapes(value.shape, factor.shape)
        value = self.broadcast(value, shape)
        diagonal = sparse.dia_array((np.broadcast_to(factor, shape).reshape(1, -1), [0]), shape=(value.size,) * 2)
        return self.linear(value, diagonal, shape)

    def add(self, a: Value, b: Any, factor: float = 1.0) -> Value:
        """a + factor * b, where b may be numbers."""
        other = b if isinstance(b, Value) else self.constant(b)
        shape = np.broadcast_shapes(a.shape, other.shape)
        a, other = self.broadcast(a, shape), self.broadcast(other, shape)
        parts = dict(a.parts)
        for k, matrix in other.parts.items():
            parts[k] = sparse.csr_array(parts[k] + factor * matrix) if k in parts else factor * matrix
        return Value(shape, parts, a.shift + factor * other.shift)

    def matmul(self, a: Any, b: Any) -> Value:
        """a @ b as numpy has it, one of them numbers."""
        value, right = (a, True) if isinstance(a, Value) else (b, False)
        numbers = np.asarray(b if right else a, dtype=np.float64)
        if isinstance(a, Value) and isinstance(b, Value):
            raise ModelError("two parts of the network are multiplied", WAY_OUT + ".")
        if right and numbers.ndim <= 2 and value.shape:
            weight = numbers.reshape(len(numbers), int(np.prod(numbers.shape[1:])))
            if value.shape[-1] != len(weight):
                raise ModelError(f"a tensor of shape {value.shape} times {numbers.shape}", "check the shapes.")
            lead = int(np.prod(value.shape[:-1]))
            shape = (*value.shape[:-1], *numbers.shape[1:])
            return self.linear(value, sparse.kron(_eye(lead), weight.T, format="csr"), shape)
        return self.basis(value, lambda x: np.matmul(x, numbers) if right else np.matmul(numbers, x))

    def basis(self, value: Value, function: Callable[[Floats], Floats]) -> Value:
        """A linear map given as a function of arrays, by what it makes of every unit."""
        try:
            columns = [np.asarray(function(unit.reshape(value.shape))) for unit in np.eye(value.size)]
        except ValueError as error:
            raise ModelError(f"a tensor of shape {value.shape} does not fit ({error})", "check the shapes.") from None
        matrix = np.stack([column.reshape(-1) for column in columns], axis=1)
        return self.linear(value, matrix, columns[0].shape)

    def joined(self, values: Sequence[Any]) -> tuple[Value, list[NDArray[np.int64]]]:
        """All entries one below the other as a flat value, and where each tensor's stand."""
        made = [value if isinstance(value, Value) else self.constant(value) for value in values]
        ends = np.cumsum([0, *(value.size for value in made)])
        total = Value((int(ends[-1]),), {}, np.zeros(int(ends[-1])))
        for value, start in zip(made, ends, strict=False):
            rows = np.arange(value.size)
            place = sparse.csr_array((np.ones(value.size), (start + rows, rows)), shape=(total.size, value.size))
            total = self.add(total, self.linear(value, place, (total.size,)))
        return total, [value.index + start for value, start in zip(made, ends, strict=False)]

    def reduce(self, value: Value, axes: Sequence[int] | None, keep: bool, mean: bool) -> Value:
        """Sum or mean over axes (None: all)."""
        rows, shape = _grouped(value.index, axes, keep)
        factor = 1.0 / rows.shape[1] if mean else 1.0
        at = np.repeat(np.arange(len(rows)), rows.shape[1])
        matrix = sparse.csr_array((np.full(rows.size, factor), (at, rows.reshape(-1))), shape=(len(rows), value.size))
        return self.linear(value, matrix, shape)

    def convolve(
        self,
        value: Value,
        weight: Floats,
        bias: Floats | None,
        stride: Sequence[int],
        pads: Sequence[tuple[int, int]],
        dilation: Sequence[int],
        groups: int,
    ) -> Value:
        """Convolution of a value (N, channels, *space) as frameworks define it."""
        outputs, per_group, *kernel = weight.shape
        if len(value.shape) != len(kernel) + 2 or value.shape[1] != per_group * groups or outputs % groups:
            raise ModelError(f"a convolution of shape {weight.shape} over {value.shape}", "check the shapes.")
        index, out = windows(value.shape, kernel, stride, pads, dilation)
        number, _, points, size = index.shape
        each = outputs // groups
        # Axes: example, group, output of the group, input of the group, point, place in the kernel.
        read = index.reshape(number, groups, 1, per_group, points, size)
        filters = weight.reshape(1, groups, each, per_group, 1, size)
        at = np.arange(number * outputs * points).reshape(number, groups, each, 1, points, 1)
        full = np.broadcast_shapes(read.shape, filters.shape, at.shape)
        rows, columns, data = (np.broadcast_to(part, full).reshape(-1) for part in (at, read, filters))
        kept = columns >= 0
        matrix = sparse.csr_array(
            (data[kept], (rows[kept], columns[kept])), shape=(number * outputs * points, value.size)
        )
        shift = 0.0 if bias is None else np.broadcast_to(bias[None, :, None], (number, outputs, points)).reshape(-1)
        return self.linear(value, matrix, (number, outputs, *out), shift)

    # ---- bends
    def bend(self, value: Value, activation: Any, axes_last: int = 0) -> Value:
        """activation(value) as a new layer; with ``axes_last`` the last axis holds the groups of a maximum."""
        kind = Activation.of(activation)
        shape = value.shape[:-1] if axes_last else value.shape
        number = len(self.layers)
        error = self.error(value)
        if kind.name == "max":
            error = error.reshape(-1, kind.group).max(axis=1)
        elif kind.name == "leaky_relu":
            error = error * max(1.0, abs(kind.slope))
        level = 1 + max([self.layers[k].level for k in value.parts if k != INPUTS], default=-1)
        self.layers.append(_Written(value.parts, value.shift, kind, error, level))
        return Value(shape, {number: _eye(len(error))}, np.zeros(len(error)))

    def error(self, value: Value) -> Floats:
        """How far the framework's own numbers may be from these, through the pieces of curves before; (size,)."""
        return np.asarray(
            sum((abs(m) @ self.layers[k].error for k, m in value.parts.items() if k != INPUTS), np.zeros(value.size))
        )

    def relu(self, value: Value) -> Value:
        """max(0, value)."""
        return self.bend(value, "relu")

    def leaky(self, value: Value, slopes: Any) -> Value:
        """value where positive, slope * value elsewhere; one slope or one an entry (broadcast)."""
        slopes = np.asarray(slopes, dtype=np.float64)
        if np.ptp(slopes) == 0:
            return self.bend(value, ("leaky_relu", float(slopes.reshape(-1)[0])))
        return self.add(self.scale(value, slopes), self.scale(self.relu(value), 1.0 - slopes))

    def clamp(self, value: Value, low: Any = None, high: Any = None) -> Value:
        """Kept within limits, numbers or arrays; either may be missing."""
        low, high = (self._limit(end, sign) for end, sign in ((low, -1), (high, 1)))
        if low is not None and high is not None:
            if low.size == 1 and high.size == 1 and low < high:
                return self.bend(value, ("clip", float(low.reshape(-1)[0]), float(high.reshape(-1)[0])))
            if (np.broadcast_arrays(low, high)[0] > np.broadcast_arrays(low, high)[1]).any():
                raise ModelError("clamps to a lower limit above the upper one", "give lower <= upper.")
        if low is not None:
            value = self.add(self.relu(self.add(value, low, -1.0)), low)
        if high is not None:
            value = self.add(self.scale(self.relu(self.add(self.scale(value, -1.0), high)), -1.0), high)
        return value

    @staticmethod
    def _limit(end: Any, sign: int) -> Floats | None:
        """A limit as an array; None where there is none, or none that could bind."""
        if end is None:
            return None
        array = np.asarray(end, dtype=np.float64)
        if np.isnan(array).any():
            raise ModelError("a limit is not a number", "give finite limits.")
        if (sign * array > FAR).all():
            return None
        if not np.isfinite(array).all():
            raise ModelError("a limit is infinite on the wrong side or for some entries", "give finite limits.")
        return array

    def highest(self, values: Sequence[Any]) -> Value:
        """The largest of several tensors or numbers, entry by entry."""
        numbers = [v for v in values if not isinstance(v, Value)]
        tensors = [v for v in values if isinstance(v, Value)]
        if len(tensors) == 1:
            found = tensors[0]
            for number in numbers:
                found = self.clamp(found, low=number)
            return found
        shape = np.broadcast_shapes(*(v.shape if isinstance(v, Value) else np.shape(v) for v in values))
        wide = [self.broadcast(v if isinstance(v, Value) else self.constant(v), shape) for v in values]
        flat, index = self.joined(wide)
        return self.bend(self.take(flat, np.stack(index, axis=-1)), ("max", len(values)), 1)

    def lowest(self, values: Sequence[Any]) -> Value:
        """The least of several tensors or numbers."""
        turned = [self.scale(v, -1.0) if isinstance(v, Value) else -np.asarray(v, dtype=float) for v in values]
        return self.scale(self.highest(turned), -1.0)

    def largest_of(self, value: Value, axes: Sequence[int] | None, keep: bool, sign: float = 1.0) -> Value:
        """The largest (sign 1) or least (-1) over axes (None: all)."""
        rows, shape = _grouped(value.index, axes, keep)
        value = value if sign > 0 else self.scale(value, -1.0)
        found = self.bend(self.take(value, rows), ("max", rows.shape[1]), 1)
        found = Value(shape, found.parts, found.shift)
        return found if sign > 0 else self.scale(found, -1.0)

    def pool_largest(
        self,
        value: Value,
        kernel: Sequence[int],
        stride: Sequence[int],
        pads: Sequence[tuple[int, int]],
        dilation: Sequence[int],
    ) -> Value:
        """The largest of every window of a value (N, channels, *space)."""
        index, out = windows(value.shape, kernel, stride, pads, dilation)
        # A window that hangs over the edge holds fewer entries: one of its own fills the rest, which changes nothing.
        filled = np.where(index >= 0, index, index.max(axis=-1, keepdims=True))
        if (filled < 0).any():
            raise ModelError("a pooling window lies in the padding altogether", "use less padding.")
        found = self.bend(self.take(value, filled), ("max", filled.shape[-1]), 1)
        return Value((*value.shape[:2], *out), found.parts, found.shift)

    def pool_mean(
        self,
        value: Value,
        kernel: Sequence[int],
        stride: Sequence[int],
        pads: Sequence[tuple[int, int]],
        count_pads: bool,
        divisor: float | None = None,
    ) -> Value:
        """The mean of every window of a value (N, channels, *space)."""
        index, out = windows(value.shape, kernel, stride, pads, [1] * len(kernel))
        rows = index.reshape(-1, index.shape[-1])
        inside = rows >= 0
        count = np.full(len(rows), rows.shape[1]) if count_pads else inside.sum(axis=1)
        weight = 1.0 / (count if divisor is None else np.full(len(rows), float(divisor)))
        at, place = np.nonzero(inside)
        matrix = sparse.csr_array((weight[at], (at, rows[at, place])), shape=(len(rows), value.size))
        return self.linear(value, matrix, (*value.shape[:2], *out))

    # ---- curves
    def curve(self, value: Value, curve: Curve) -> Value:
        """A smooth function by pieces whose largest error is known, and enters the network's ``error``.

        Raises
        ------
        ModelError
            When the tape reads exactly.
        """
        if self.smooth is None:
            raise ModelError(
                f"{curve.name} has no exact linear rows",
                WAY_OUT + ", or smooth=0.01, the largest error a neuron, to read it as pieces with a stated error.",
            )
        found = pieces(curve, self.smooth)
        total = self.constant(np.full(value.shape, found.height[0]))
        span, rise = np.diff(found.at), np.diff(found.height)
        unit = self.scale(
            self.add(self._stack(value, len(span)), found.at[:-1], -1.0), 1.0 / span
        )  # 0 to 1 along a piece
        parts = self.bend(unit, ("clip", 0.0, 1.0))
        total = self.add(total, self.reduce(self.scale(parts, rise), [len(value.shape)], False, False))
        if found.left:
            total = self.add(total, self.relu(self.add(self.scale(value, -1.0), found.at[0])), -found.left)
        if found.right:
            total = self.add(total, self.relu(self.add(value, found.at[-1], -1.0)), found.right)
        error = found.error + curve.steepest * self.error(value)
        result = self.bend(total, "linear")
        self.layers[-1].error = error
        self.bent[len(self.layers) - 1] = (value, curve)
        return result

    def product(self, a: Value | Head, b: Value | Head) -> Value:
        """Two tensors' product, where it is a curve of one of them: x times its own sigmoid (SiLU), and its like.

        Files and functions write SiLU, Mish and GELU so; read factor by factor they would be products.

        Raises
        ------
        ModelError
            Of any other product, and where the tape reads exactly.
        """
        for x, gate in ((a, b), (b, a)):
            if isinstance(x, Value) and (found := self._gated(x, gate)) is not None:
                return found
        raise ModelError(
            "the product of two tensors that both hang on the network's inputs has no linear rows",
            "use weights, or x times its own sigmoid (SiLU), Mish or GELU.",
        )

    def _gated(self, x: Value, gate: Value | Head) -> Value | None:
        if isinstance(gate, Head):
            known = gate.kind == "sigmoid" and _multiple(x, gate.value) == 1.0
            return self.curve(x, CURVES["silu"]()) if known else None
        bend = self._bend_of(gate)
        if bend is None:
            return None
        name, width, source = "", 1.0, bend.source
        if bend.curve.name == "Sigmoid" and bend.shift == 0:
            name = "silu"
        elif bend.curve.name == "Erf" and bend.shift == bend.factor:
            # x (1 + erf(x / sqrt 2)) / 2 is GELU.
            name, width = "gelu", float(np.sqrt(2.0))
        elif bend.curve.name == "Tanh" and bend.shift == 0:
            inner, softplus = self._bend_of(source), CURVES["softplus"]()
            if inner is not None and (inner.factor, inner.shift) == (1.0, 0.0):
                name = "mish" if (inner.curve.name, inner.curve.bend) == (softplus.name, softplus.bend) else ""
                source = inner.source
        share = _multiple(x, source) if name else None
        if share is None:
            return None
        return self.scale(self.curve(self.scale(source, width), CURVES[name]()), share * bend.factor * width)

    def _bend_of(self, value: Value) -> _Bend | None:
        """A tensor as factor * curve(source) + shift, entry by entry; None where it is something else."""
        layer = next(iter(value.parts), INPUTS)
        if len(value.parts) != 1 or layer not in self.bent or not value.size:
            return None
        source, curve = self.bent[layer]
        matrix, shift = value.parts[layer], float(value.shift[0])
        factor = float(matrix.diagonal()[0])
        plain = source.size == value.size and abs(matrix - factor * _eye(value.size)).max() == 0
        return _Bend(factor, shift, source, curve) if plain and (value.shift == shift).all() else None

    def _stack(self, value: Value, count: int) -> Value:
        return self.broadcast(Value((*value.shape, 1), value.parts, value.shift), (*value.shape, count))

    # ---- what comes out
    def evaluate(self, points: Floats) -> list[Floats]:
        """Outputs of the inputs (P, n) and of every layer, each (P, outputs); entry k + 1 is layer k."""
        reached = [points]
        for layer in self.layers:
            z = layer.shift + sum((m @ reached[k + 1].T).T for k, m in layer.parts.items())
            reached.append(layer.activation(np.broadcast_to(z, (len(points), len(layer.shift)))))
        return reached

    def numbers(self, value: Value | Head, reached: list[Floats]) -> Floats:
        """A tensor's numbers at the points of :meth:`evaluate`, shape (P, *shape)."""
        if isinstance(value, Head):
            return value.numbers(self.numbers(value.value, reached))
        z = value.shift + sum((m @ reached[k + 1].T).T for k, m in value.parts.items())
        return np.broadcast_to(z, (len(reached[0]), value.size)).reshape(len(reached[0]), *value.shape)

    def mass(self, reached: list[Floats]) -> float:
        """The largest sum of absolute terms behind any layer at these points: the scale of rounding."""
        largest = 1.0
        for layer in self.layers:
            z = np.abs(layer.shift) + sum((abs(m) @ np.abs(reached[k + 1]).T).T for k, m in layer.parts.items())
            largest = max(largest, float(np.max(z, initial=0.0)))
        return largest

    def network(self, value: Any, output: Any = None, names: Sequence[str] = ()) -> Network:
        """The network of one number of a value; see ``output`` of :meth:`Network.from_torch`."""
        result = self._chosen(value, output, names)
        number = len(self.layers)
        self.bend(result, "linear")
        error = float(self.layers[number].error[0])
        try:
            order, place = self._scheduled(number)
            return self._assembled(order, place, error)
        finally:
            self.layers.pop()

    def _chosen(self, value: Any, output: Any, names: Sequence[str]) -> Value:
        kind = value.kind if isinstance(value, Head) else ""
        inner = value.value if isinstance(value, Head) else value
        if not isinstance(inner, Value):
            raise ModelError("the output does not hang on the inputs", "give a network of its inputs.")
        flat = self.take(inner, np.arange(inner.size))
        if isinstance(output, str) and output in names:
            output = list(names).index(output)
        if isinstance(output, tuple) and len(output) == 2 and output[0] == "margin":
            return self._margin(flat, output[1], kind)
        if isinstance(output, str) and output == "logit":
            if kind != "sigmoid" or flat.size != 1:
                raise ModelError("output 'logit' of what does not end in one sigmoid", "leave output out.")
            return flat
        if output is None:
            if flat.size != 1:
                raise ModelError(
                    f"the network has {flat.size} outputs",
                    "say which: output=2, a list of one weight an output, or ('margin', 2) for how far output 2 is "
                    "ahead of the next.",
                )
            output = 0
        weights = np.zeros(flat.size)
        if isinstance(output, int | np.integer) and not isinstance(output, bool):
            if not -flat.size <= output < flat.size:
                raise ModelError(f"output {output} of {flat.size}", "count outputs from 0.")
            weights[int(output)] = 1.0
        else:
            try:
                weights = np.asarray(output, dtype=np.float64).reshape(-1)
            except (TypeError, ValueError):
                raise ModelError(f"output is {output!r}", "give a number, a name or weights.") from None
        if weights.size != flat.size or not np.isfinite(weights).all():
            raise ModelError(f"output has {weights.size} weights for {flat.size} outputs", "give a finite one each.")
        if kind and not (kind == "log_softmax" and abs(weights.sum()) <= 1e-12 * np.abs(weights).sum()):
            way = "'logit' (its log-odds)" if kind == "sigmoid" else "('margin', k), ahead of the next in log-odds"
            raise ModelError(
                f"{value.where}: the network ends in a {kind}, of which only the order is read", f"give output={way}."
            )
        return self.linear(flat, weights[None], (1,))

    def _margin(self, flat: Value, which: Any, kind: str) -> Value:
        if kind == "sigmoid" or flat.size < 2:
            raise ModelError("a margin of one output", "use output='logit' or leave output out.")
        if not isinstance(which, int | np.integer) or not 0 <= which < flat.size:
            raise ModelError(f"a margin of output {which!r} of {flat.size}", "count outputs from 0.")
        rest = np.delete(np.arange(flat.size), which)
        return self.add(self.take(flat, [which]), self.largest_of(self.take(flat, rest), [0], True), -1.0)

    def _scheduled(self, last: int) -> tuple[list[list[int]], dict[int, tuple[int, int]]]:
        """Layers that the last one needs, those of one depth and activation together; where each one's outputs went."""
        needed, open_ = set(), [last]
        while open_:
            k = open_.pop()
            if k not in needed:
                needed.add(k)
                open_ += [source for source in self.layers[k].parts if source != INPUTS]
        groups: dict[tuple[Any, ...], list[int]] = {}
        for k in sorted(needed):
            kind = self.layers[k].activation
            groups.setdefault((self.layers[k].level, k == last, str(kind.spec())), []).append(k)
        order = [groups[key] for key in sorted(groups)]
        place = {}
        for number, members in enumerate(order):
            start = 0
            for k in members:
                place[k] = (number, start)
                start += len(self.layers[k].error)
        return order, place

    def _assembled(self, order: list[list[int]], place: dict[int, tuple[int, int]], error: float) -> Network:
        widths = [sum(len(self.layers[k].error) for k in members) for members in order]
        written: list[tuple[Any, Floats, Any]] = []
        links: dict[tuple[int, int], Any] = {}
        made: list[dict[int, sparse.csr_array]] = []
        for number, members in enumerate(order):
            rows = np.cumsum([0, *(len(self.layers[k].shift) for k in members)])
            parts: dict[int, list[Any]] = {}
            for k, first in zip(members, rows, strict=False):
                for source, matrix in self.layers[k].parts.items():
                    target, shift = place[source] if source != INPUTS else (INPUTS, 0)
                    coo = sparse.coo_array(matrix)
                    parts.setdefault(target, []).append((coo.data, first + coo.coords[0], shift + coo.coords[1]))
            found = {}
            parts.setdefault(number - 1, [])
            for source, blocks in parts.items():
                wide = self.n if source == INPUTS else widths[source]
                data, row, column = (
                    np.concatenate([b[i] for b in blocks] or [np.zeros(0, dtype=np.int64)]) for i in range(3)
                )
                found[source] = sparse.csr_array((data.astype(float), (row, column)), shape=(int(rows[-1]), wide))
            made.append(found)
        size = sum(m.shape[0] * m.shape[1] for found in made for m in found.values())
        filled = sum(m.nnz for found in made for m in found.values())
        stay = size > SPARSE_SIZE and filled < SPARSE_SHARE * size
        for number, (members, found) in enumerate(zip(order, made, strict=True)):
            moved = np.concatenate([self.layers[k].shift for k in members])
            for source, matrix in found.items():
                full: Any = matrix if stay else matrix.toarray()
                if source == number - 1:
                    written.append((full, moved, self.layers[members[0]].activation))
                elif matrix.nnz:
                    links[source, number] = full
        network = Network.from_arrays(written, links=links)
        network.error = error
        return network


def windows(
    shape: tuple[int, ...],
    kernel: Sequence[int],
    stride: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilation: Sequence[int],
) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """What every window of a tensor (N, channels, *space) reads: positions (N, channels, points, places), space left.

    -1 stands for the padding.
    """
    index = np.arange(int(np.prod(shape))).reshape(shape)
    index = np.pad(index, [(0, 0), (0, 0), *pads], constant_values=-1)
    axes = len(kernel)
    out = tuple((index.shape[2 + i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(axes))
    if len(shape) != axes + 2 or any(size < 1 for size in out):
        raise ModelError(f"windows of {tuple(kernel)} over a tensor of shape {shape}", "check the shapes.")
    for i in range(axes):
        at = stride[i] * np.arange(out[i])[:, None] + dilation[i] * np.arange(kernel[i])
        # Points of this axis stay in place, its places in the kernel go last.
        index = np.moveaxis(np.take(index, at, axis=2 + i), 3 + i, -1)
    return index.reshape(*shape[:2], int(np.prod(out)), -1), out


def _grouped(
    index: NDArray[np.int64], axes: Sequence[int] | None, keep: bool
) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """Positions in rows, one a group of entries that lie along ``axes``; and the shape without them."""
    every = range(index.ndim) if axes is None else axes
    chosen = sorted({int(axis) % max(1, index.ndim) for axis in every})
    rest = [axis for axis in range(index.ndim) if axis not in chosen]
    shape = tuple(1 if axis in chosen else index.shape[axis] for axis in range(index.ndim) if keep or axis in rest)
    count = int(np.prod([index.shape[axis] for axis in rest], dtype=int))
    return index.transpose(*rest, *chosen).reshape(count, -1), shape


def _eye(n: int) -> sparse.csr_array:
    return sparse.csr_array(sparse.eye_array(n, format="csr"))


def _multiple(value: Value, of: Value) -> float | None:
    """The number that times ``of`` is ``value``; None where there is none."""
    if value.shape != of.shape or set(value.parts) != set(of.parts):
        return None
    at = max(of.parts, key=lambda k: abs(of.parts[k]).max() if of.parts[k].nnz else 0.0, default=None)
    if at is None or not of.parts[at].nnz:
        return None
    place = int(np.argmax(np.abs(of.parts[at].data)))
    row = int(np.searchsorted(of.parts[at].indptr, place, side="right")) - 1
    factor = float(value.parts[at][row, int(of.parts[at].indices[place])]) / float(of.parts[at].data[place])
    # Single-precision constants (1 / sqrt 2) are met as they were rounded; the comparison of points judges the rest.
    near = all(
        abs(value.parts[k] - factor * of.parts[k]).max() <= 1e-6 * max(abs(value.parts[k]).max(), 1e-300)
        for k in of.parts
    )
    return factor if near and np.allclose(value.shift, factor * of.shift, rtol=1e-6, atol=1e-12) else None


def curve_of(name: str, **numbers: float) -> Curve:
    """A known curve with its parameters."""
    return CURVES[name](**numbers)
