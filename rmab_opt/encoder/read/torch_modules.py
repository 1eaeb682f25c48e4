"""Computation graphs of other tools read into layers and links: torch modules, and what ONNX files are built from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmab_opt.encoder.network import INPUTS, WAY_OUT, Activation, Network
from rmab_opt.errors import ModelError

__all__ = ["Tape", "Value", "read_torch"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Value:
    """A vector inside the graph: shift + sum over sources of matrix @ its outputs."""

    parts: dict[int, Floats | None]
    """Layer number (-1: the inputs) -> matrix, or None for the identity of yet unknown width."""
    shift: Floats
    """Shape (width,) or (1,)."""


class Tape:
    """Layers written down in the order they are met; everything between two bends is one affine map.

    Every vector is an affine function of the inputs and of earlier layers' outputs, so sums of branches, scalings and
    concatenations need no layer of their own: a layer reads the one before it by its weight, others by links.
    """

    def __init__(self) -> None:
        self.layers: list[tuple[Floats, Floats, Any]] = []
        self.links: dict[tuple[int, int], Floats] = {}
        self.inputs = Value({INPUTS: None}, np.zeros(1))

    def width(self, value: Value) -> int | None:
        """Entries of a vector; None while only the inputs, of unknown number, speak."""
        sizes = [len(matrix) for matrix in value.parts.values() if matrix is not None]
        return sizes[0] if sizes else (len(value.shift) if len(value.shift) > 1 else None)

    def dense(self, value: Value, weight: Floats, bias: Floats) -> Value:
        """weight @ value + bias."""
        shift = weight @ np.broadcast_to(value.shift, weight.shape[1]) + bias
        return Value({k: weight if m is None else weight @ m for k, m in value.parts.items()}, shift)

    def scaled(self, value: Value, factor: Floats) -> Value:
        """factor * value, a number or one an entry."""
        parts: dict[int, Floats | None] = {}
        for k, matrix in value.parts.items():
            if matrix is None and factor.size == 1:
                width = self.width(value)
                if width is None:
                    raise ModelError("the inputs are scaled before their number is known", "begin with a dense layer.")
                matrix = np.eye(width)
            parts[k] = np.diag(factor.reshape(-1)) if matrix is None else factor.reshape(-1, 1) * matrix
        return Value(parts, factor.reshape(-1) * value.shift)

    def sum(self, a: Value, b: Value) -> Value:
        """a + b."""
        wide = self.width(a) or self.width(b)
        parts = dict(a.parts)
        for k, matrix in b.parts.items():
            if k not in parts:
                parts[k] = matrix
                continue
            mine = parts[k]
            if wide is None:
                raise ModelError("the inputs are added to themselves first of all", "begin with a dense layer.")
            parts[k] = (np.eye(wide) if mine is None else mine) + (np.eye(wide) if matrix is None else matrix)
        return Value(parts, a.shift + b.shift)

    def moved(self, value: Value, shift: Floats) -> Value:
        """value + shift."""
        return Value(value.parts, value.shift + shift.reshape(-1))

    def joined(self, values: list[Value]) -> Value:
        """One below the other."""
        widths = [self.width(value) for value in values]
        if any(width is None for width in widths):
            raise ModelError("the inputs are joined before their number is known", "begin with a dense layer.")
        sizes = [int(width) for width in widths if width is not None]
        ends = np.cumsum([0, *sizes])
        parts: dict[int, Floats | None] = {}
        for value, start, size in zip(values, ends, sizes, strict=False):
            for k, matrix in value.parts.items():
                rows = np.eye(size) if matrix is None else matrix
                mine = parts.setdefault(k, np.zeros((int(ends[-1]), rows.shape[1])))
                assert mine is not None
                mine[start : start + size] = rows
        return Value(parts, np.concatenate([np.broadcast_to(v.shift, s) for v, s in zip(values, sizes, strict=True)]))

    def bend(self, value: Value, activation: Any) -> Value:
        """activation(value), as a new layer."""
        number = self._layer(value, activation)
        size = len(self.layers[number][1]) // Activation.of(activation).group
        return Value({number: np.eye(size)}, np.zeros(size))

    def _layer(self, value: Value, activation: Any) -> int:
        number = len(self.layers)
        width = self.width(value)
        if width is None:
            raise ModelError("an activation stands before any dense layer", "begin with a dense layer.")
        before = INPUTS if number == 0 else number - 1
        parts = {k: np.eye(width) if m is None else m for k, m in value.parts.items()}
        if before not in parts:
            given = self.layers[before][1].size // Activation.of(self.layers[before][2]).group if number else 0
            parts[before] = np.zeros((width, given))
        self.layers.append((parts[before], np.array(np.broadcast_to(value.shift, width)), activation))
        self.links |= {(k, number): matrix for k, matrix in parts.items() if k != before and matrix.any()}
        return number

    def network(self, value: Value) -> Network:
        """The network whose output is this value of one entry."""
        if not self.layers and value.parts.get(INPUTS) is None:
            raise ModelError("the graph has no dense layer", "export at least one.")
        self._layer(value, "linear")
        return Network.from_arrays(self.layers, links=self.links)


# ---------------------------------------------------------------------------------------------------- torch
def read_torch(module: Any) -> Network:
    """A network from a torch module, known by the names of its parts' classes.

    Raises
    ------
    ModelError
        At a part that is not linear in pieces; names its number and type.
    """
    tape = Tape()
    kind = type(module).__name__
    if kind in ("Sequential", "ModuleList"):
        value = tape.inputs
        for number, part in enumerate(_flat(module)):
            value = _part(tape, value, part, f"layer {number}")
        return tape.network(value)
    if kind == "Linear":
        return tape.network(_part(tape, tape.inputs, module, "layer 0"))
    return _traced(tape, module)


def _flat(part: Any) -> Iterable[Any]:
    if type(part).__name__ in ("Sequential", "ModuleList"):
        for child in part:
            yield from _flat(child)
    else:
        yield part


def _numbers(tensor: Any) -> Floats:
    return np.asarray(tensor.detach().cpu().double().numpy())


def _part(tape: Tape, value: Value, part: Any, where: str) -> Value:
    """One torch module applied to a vector."""
    kind = type(part).__name__
    if kind in ("Sequential", "ModuleList"):
        for child in _flat(part):
            value = _part(tape, value, child, where)
        return value
    if kind == "Linear":
        weight = _numbers(part.weight)
        return tape.dense(value, weight, np.zeros(len(weight)) if part.bias is None else _numbers(part.bias))
    if kind in ("Identity", "Dropout", "Flatten"):
        return value
    if kind == "BatchNorm1d" and part.running_mean is not None:
        scale = 1.0 / np.sqrt(_numbers(part.running_var) + part.eps)
        scale = scale if part.weight is None else scale * _numbers(part.weight)
        shift = 0.0 if part.bias is None else _numbers(part.bias)
        return tape.moved(tape.scaled(value, scale), shift - scale * _numbers(part.running_mean))
    if tape.width(value) is None:
        raise ModelError(f"{where} is a {kind} before any dense layer", "begin with a Linear layer.")
    if kind == "MaxPool1d":
        size, stride = (int(np.ravel(number)[0]) for number in (part.kernel_size, part.stride))
        rest = (int(np.ravel(part.padding)[0]), int(np.ravel(part.dilation)[0]), bool(part.ceil_mode))
        if size != stride or rest != (0, 1, False):
            raise ModelError(f"{where} is a MaxPool1d over groups that overlap", "use a stride of the kernel's size.")
        kept = (tape.width(value) or 0) // size * size
        return tape.bend(tape.dense(value, np.eye(kept, tape.width(value)), np.zeros(kept)), ("max", size))
    found = {
        "ReLU": lambda p: "relu",
        "LeakyReLU": lambda p: ("leaky_relu", float(p.negative_slope)),
        "Hardtanh": lambda p: ("clip", float(p.min_val), float(p.max_val)),
        "ReLU6": lambda p: ("clip", 0.0, 6.0),
    }.get(kind)
    if found is None:
        raise ModelError(f"{where} is a {kind}, which has no exact linear rows", WAY_OUT + ".")
    return tape.bend(value, found(part))


def _traced(tape: Tape, module: Any) -> Network:
    """A module with a forward of its own, by torch.fx."""
    import torch.fx

    try:
        graph = torch.fx.symbolic_trace(module).graph
    except Exception as error:
        raise ModelError(
            f"{type(module).__name__} cannot be traced by torch.fx ({type(error).__name__}: {error})",
            "give a Sequential, or the weights by Network.from_arrays.",
        ) from error
    parts = dict(module.named_modules())
    known: dict[Any, Any] = {}

    def attribute(path: str) -> Floats:
        found = module
        for name in path.split("."):
            found = getattr(found, name)
        return _numbers(found)

    for number, node in enumerate(graph.nodes):
        where = f"node {number} ({node.name})"
        if node.op == "placeholder":
            if any(isinstance(value, Value) for value in known.values()):
                raise ModelError(f"{type(module).__name__} takes several inputs", "give a module of one.")
            known[node] = tape.inputs
        elif node.op == "get_attr":
            known[node] = attribute(str(node.target))
        elif node.op == "call_module":
            known[node] = _part(tape, known[node.args[0]], parts[str(node.target)], where)
        elif node.op == "output":
            return tape.network(known[node.args[0]])
        else:
            known[node] = _called(tape, node, known, where)
    raise ModelError(f"{type(module).__name__} has no output", "return one tensor.")


def _called(tape: Tape, node: Any, known: dict[Any, Any], where: str) -> Any:
    """One function or method call of a traced module."""
    name = node.target if isinstance(node.target, str) else node.target.__name__
    given: list[Any] = [known.get(arg, arg) if not isinstance(arg, list | tuple) else arg for arg in node.args]
    vectors = [arg for arg in given if isinstance(arg, Value)]
    if name in ("relu", "relu_", "leaky_relu", "hardtanh", "relu6", "clamp", "clip"):
        rest = dict(node.kwargs)
        if name in ("relu", "relu_"):
            return tape.bend(given[0], "relu")
        if name == "leaky_relu":
            slope = given[1] if len(given) > 1 else rest.get("negative_slope", 0.01)
            return tape.bend(given[0], ("leaky_relu", float(slope)))
        if name == "relu6":
            return tape.bend(given[0], ("clip", 0.0, 6.0))
        names = ("min_val", "max_val") if name == "hardtanh" else ("min", "max")
        ends: list[Any] = [given[1 + i] if len(given) > 1 + i else rest.get(key) for i, key in enumerate(names)]
        ends = [(-1.0, 1.0)[i] if end is None and name == "hardtanh" else end for i, end in enumerate(ends)]
        if ends[0] == 0 and ends[1] is None:
            return tape.bend(given[0], "relu")
        if None in ends:
            raise ModelError(f"{where} clips on one side", "clip on both sides or use relu.")
        return tape.bend(given[0], ("clip", float(ends[0]), float(ends[1])))
    if name in ("flatten", "dropout", "contiguous", "squeeze") and vectors:
        return vectors[0]
    if name in ("cat", "concat", "concatenate"):
        axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        if axis in (1, -1):
            return tape.joined([known[arg] for arg in node.args[0]])
    if name in ("add", "add_", "iadd", "sub", "mul", "imul") and len(given) == 2:
        a, b = given
        if len(vectors) == 2 and name != "mul" and name != "imul":
            return tape.sum(a, tape.scaled(b, np.array([-1.0])) if name == "sub" else b)
        if len(vectors) == 1:
            number = np.asarray(b if isinstance(a, Value) else a, dtype=np.float64)
            if name in ("mul", "imul"):
                return tape.scaled(vectors[0], number)
            if name == "sub":
                return (
                    tape.moved(a, -number)
                    if isinstance(a, Value)
                    else tape.moved(tape.scaled(b, np.array([-1.0])), number)
                )
            return tape.moved(vectors[0], number)
    raise ModelError(f"{where} calls {name}, which has no exact linear rows or is not read", WAY_OUT + ".")
