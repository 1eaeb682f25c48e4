"""ONNX graphs read by an allow-list of operators and complete attributes, and written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmab_opt.encoder.network import WAY_OUT, Judge, Network, dense
from rmab_opt.encoder.read.compare import Box, compare, finite, spread
from rmab_opt.encoder.read.curves import CURVES
from rmab_opt.encoder.read.tape import Head, Tape, Value
from rmab_opt.errors import ModelError

__all__ = ["OPERATORS", "read_onnx", "write_onnx"]

Floats = NDArray[np.float64]
Evaluator = Callable[[list[str], dict[str, Any]], list[Any]]

OPSETS = (9, 30)
"""Versions of the operators' set that are read; later ones may mean something else."""

SINGLE, DOUBLE = 2e-5, 1e-8
"""Rounding of a forward pass in float32 and float64, relative to the largest sum of terms."""


def _package() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ModelError(
            "reading and writing ONNX needs the package onnx", "run pip install 'rmab-opt[onnx]'."
        ) from error
    return onnx


def read_onnx(
    path: str | Path,
    *,
    shape: Sequence[int] | None = None,
    output: Any = None,
    box: Box | None = None,
    smooth: float | None = None,
    n_inputs: int | None = None,
) -> Network:
    """A network from an ONNX file of one input; see :meth:`Network.from_onnx`.

    Raises
    ------
    ModelError
        When the file cannot be read, an operator or attribute is not on the list (names the node's number and
        type), or the forward pass of onnxruntime differs (names the first node that does).
    """
    onnx = _package()
    path = Path(path)
    if not path.exists():
        raise ModelError(f"{path}: no such file", "check the path.")
    try:
        model = onnx.load(str(path))
    except Exception as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ModelError(
            f"{path}: not an ONNX file ({type(error).__name__}: {said})", "export the network again."
        ) from error
    try:
        file = _File.of(onnx, model)
        problem: ModelError | None = None
        for form, batch in file.forms(shape, n_inputs):
            walk = _Walk(file, Tape(form, smooth))
            try:
                result, names = walk.run(output)
                points = spread(walk.tape.n, box)
                points = points.astype(np.float32).astype(np.float64) if not file.double else points
                given = file.forward(points, form, batch, [walk.result])[walk.result]
                finite(given)
                file.alone(points, form, batch, walk.result, given)
                compare(walk.tape, result, points, given, partial(walk.steps, points, batch), file.relative)
                network = walk.tape.network(result, output if not walk.chosen else None, names)
                if not isinstance(result, Head) and not walk.chosen and not isinstance(output, str):
                    judge = partial(_value, file, form, batch, walk.result)
                    network.judge = Judge.of(judge, given.shape[1], output, file.relative)
                return network
            except ModelError as error:
                problem = problem or error
        raise problem or ModelError("the input's shape is not in the file", "give shape=, that of one example.")
    except ModelError as error:
        raise ModelError(f"{path}: {error.message}", error.fix) from None


@dataclass
class _File:
    """A model with what surrounds its graph."""

    onnx: Any
    model: Any
    opset: int
    source: Any
    """The one input that is no constant."""
    calls: dict[tuple[str, ...], Evaluator] = field(default_factory=dict)
    """Evaluators by the tensors that they give: a session asks at every solve."""
    runtime: bool = False
    """Whether they are onnxruntime's."""

    @classmethod
    def of(cls, onnx: Any, model: Any) -> _File:
        graph = model.graph
        if model.functions:
            raise ModelError(f"the file holds a function of its own, {model.functions[0].name!r}", "export it inlined.")
        if graph.sparse_initializer:
            raise ModelError("the file holds sparse constants", "export dense ones.")
        versions = {entry.domain: entry.version for entry in model.opset_import}
        opset = versions.get("", versions.get("ai.onnx", 0))
        if not OPSETS[0] <= opset <= OPSETS[1]:
            raise ModelError(f"opset {opset}", f"export with opset {OPSETS[0]} to {OPSETS[1]}.")
        constants = {tensor.name for tensor in graph.initializer}
        free = [value for value in graph.input if value.name not in constants]
        if len(free) != 1:
            raise ModelError(f"{len(free)} inputs", "export a network with one.")
        kinds = onnx.TensorProto
        if free[0].type.tensor_type.elem_type not in (kinds.FLOAT, kinds.DOUBLE):
            name = kinds.DataType.Name(free[0].type.tensor_type.elem_type)
            raise ModelError(f"the input {free[0].name!r} is of {name}", "export float or double inputs.")
        return cls(onnx, model, opset, free[0])

    @property
    def double(self) -> bool:
        """Whether the input is float64."""
        return bool(self.source.type.tensor_type.elem_type == self.onnx.TensorProto.DOUBLE)

    @property
    def relative(self) -> float:
        """Rounding that a comparison allows."""
        return DOUBLE if self.double else SINGLE

    def forms(self, shape: Sequence[int] | None, n_inputs: int | None) -> Iterable[tuple[tuple[int, ...], int]]:
        """Shapes of the input to try, the axis of examples as 1; and how many examples the file takes at once."""
        tensor = self.source.type.tensor_type
        sizes = (
            [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
            if tensor.HasField("shape")
            else []
        )
        if shape is not None:
            yield (1, *(int(size) for size in shape)), max(1, sizes[0] if sizes else 1)
            return
        if sizes and all(sizes[1:]) and len(sizes) > 1:
            yield (1, *sizes[1:]), max(1, sizes[0])
            if sizes[0] > 1:
                # The first axis may hold no examples after all: W @ x of a column x.
                yield tuple(sizes), 0
        elif len(sizes) == 1 and sizes[0]:
            yield (sizes[0],), 0
        elif n_inputs is not None:
            yield (1, int(n_inputs)), 1
        else:
            arrays = {t.name: tuple(t.dims) for t in self.model.graph.initializer}
            for node in self.model.graph.node:
                if node.op_type in ("Gemm", "MatMul") and node.input[1] in arrays and len(arrays[node.input[1]]) == 2:
                    flip = any(a.name == "transB" and a.i for a in node.attribute)
                    yield (1, arrays[node.input[1]][1 if flip else 0]), 1
                    return

    def forward(self, points: Floats, form: tuple[int, ...], batch: int, names: list[str]) -> dict[str, Floats]:
        """The framework's own numbers of tensors at points (P, n), each (P, size)."""
        call = self.calls.get(tuple(names))
        if call is None:
            model = self.onnx.ModelProto()
            model.CopyFrom(self.model)
            wanted = [name for name in names if name not in {value.name for value in model.graph.output}]
            model.graph.output.extend([self.onnx.ValueInfoProto(name=name) for name in wanted])
            call, self.runtime = _evaluator(self.onnx, model)
            self.calls[tuple(names)] = call
        kind = np.float64 if self.double else np.float32
        found: dict[str, list[Floats]] = {name: [] for name in names}
        for point in points:
            example = point.astype(kind).reshape(form)
            example = np.repeat(example, batch, axis=0) if batch > 1 else example
            try:
                values = call(names, {self.source.name: example})
            except Exception as error:
                said = str(error).strip().splitlines()[0]
                raise ModelError(f"the file cannot be run ({said})", "export the network again.") from error
            for name, value in zip(names, values, strict=True):
                value = np.asarray(value, dtype=np.float64)
                if batch > 1 and value.ndim and value.shape[0] == batch:
                    if np.ptp(value, axis=0).max(initial=0.0) > 1e-4 * (1 + np.abs(value).max(initial=0.0)):
                        raise ModelError("examples of one batch get different outputs", "export one example.")
                    value = value[:1]
                found[name].append(value.reshape(-1))
        if any(len({len(value) for value in values}) > 1 for values in found.values()):
            raise ModelError("the output's size changes with the inputs", "export a plain network.")
        return {name: np.stack(values) for name, values in found.items()}

    def alone(self, points: Floats, form: tuple[int, ...], batch: int, name: str, given: Floats) -> None:
        """Refuse an output that hangs on the other examples of its batch, where the file takes several at once."""
        shape = self.source.type.tensor_type.shape
        # onnx's own reference mixes examples of its own in normalisation before opset 14, and is no judge of this.
        if not self.runtime or batch != 1 or form[0] != 1 or not shape.dim or shape.dim[0].HasField("dim_value"):
            return
        many = points.astype(np.float64 if self.double else np.float32).reshape(len(points), *form[1:])
        try:
            found = np.asarray(self.calls[(name,)]([name], {self.source.name: many})[0], dtype=np.float64)
        except Exception:  # noqa: BLE001 - it may be written for one example only, which is how it is read
            return
        if found.shape[:1] != (len(points),) or found.size != given.size:
            return
        off = float(np.abs(found.reshape(given.shape) - given).max(initial=0.0))
        if not off <= 1e-4 * (1.0 + np.abs(given).max(initial=0.0)):
            raise ModelError(
                f"the output for one example hangs on the others of its batch, by {off:.3g}",
                "export a network without normalisation over the batch.",
            )


def _value(file: _File, form: tuple[int, ...], batch: int, name: str, points: Floats) -> Floats:
    return file.forward(points, form, batch, [name])[name]


def _evaluator(onnx: Any, model: Any) -> tuple[Evaluator, bool]:
    """onnxruntime where it is installed and knows the operators (then True), else onnx's own reference."""
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return lambda names, given: list(session.run(names, given)), True
    except Exception:  # noqa: BLE001 - missing, older than the file's opset, or without a float64 kernel
        from onnx.reference import ReferenceEvaluator

        reference = ReferenceEvaluator(model)
        return lambda names, given: list(reference.run(names, given)), False


@dataclass
class _Walk:
    """One walk through the nodes, writing on a tape."""

    file: _File
    tape: Tape
    known: dict[str, Any] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    result: str = ""
    chosen: bool = False
    """Whether ``output`` was the name of one of the graph's outputs."""

    def run(self, output: Any) -> tuple[Any, list[str]]:
        """The output's value, and names of its numbers (none)."""
        graph, onnx = self.file.model.graph, self.file.onnx
        self.known[self.file.source.name] = self.tape.inputs
        for tensor in graph.initializer:
            self.known[tensor.name] = onnx.numpy_helper.to_array(tensor)
        for number, node in enumerate(graph.node):
            where = f"node {number} ({node.op_type})"
            try:
                outputs = self._node(node)
            except ModelError as error:
                given = [self.known.get(name) for name in node.input]
                own = any(isinstance(v, Head) and error.message.startswith(v.where) for v in given)
                raise ModelError(error.message if own else f"{where}: {error.message}", error.fix) from None
            except (TypeError, ValueError, IndexError, RuntimeError, AttributeError, KeyError) as error:
                raise ModelError(f"{where} is given what is not read ({error})", "export the plain form.") from None
            for name, value in zip(node.output, outputs, strict=False):
                if name and name in self.known:
                    raise ModelError(f"{where}: {name!r} is given twice", "export it again.")
                self.known[name] = replace(value, where=where) if isinstance(value, Head) else value
                self.where[name] = where
        names = [value.name for value in graph.output]
        self.result = names[0]
        if isinstance(output, str) and output in names:
            self.result, self.chosen = output, True
        elif len(names) > 1:
            raise ModelError(f"{len(names)} outputs", f"say which: output={names[0]!r}, ... or export one.")
        found = self.known.get(self.result)
        if not isinstance(found, Value | Head):
            raise ModelError("the output does not hang on the input", "export it again.")
        return found, []

    def _node(self, node: Any) -> list[Any]:
        onnx = self.file.onnx
        if node.domain not in ("", "ai.onnx"):
            raise ModelError(f"{node.op_type} of the domain {node.domain!r} is not read", "use standard operators.")
        unknown = [name for name in node.input if name and name not in self.known]
        if unknown:
            raise ModelError(f"{unknown[0]!r} comes from nowhere, or is an output that is not read", "export it again.")
        inputs = [self.known[name] if name else None for name in node.input]
        while inputs and inputs[-1] is None:
            inputs.pop()
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        operator = OPERATORS.get(node.op_type)
        live = [value for value in inputs if isinstance(value, Value | Head)]
        if node.op_type == "Shape" and live and isinstance(inputs[0], Value):
            stop = given.get("end", len(inputs[0].shape))
            return [np.array(inputs[0].shape[given.get("start", 0) : stop], dtype=np.int64)]
        if not live:
            if operator is None and node.op_type not in FOLDED:
                raise ModelError(f"{node.op_type} over constants is not read", f"use {_listed()}.")
            return self._folded(node, inputs)
        if operator is None:
            raise ModelError(f"{node.op_type} has no exact linear rows or is not read", f"use {_listed()}.")
        more = [name for name in given if name not in operator.attributes]
        if more:
            raise ModelError(f"its attribute {more[0]}={given[more[0]]!r} is not read", f"leave {more[0]} out.")
        if not operator.inputs[0] <= len(inputs) <= operator.inputs[1]:
            raise ModelError(
                f"{len(inputs)} inputs, {operator.inputs[0]} to {operator.inputs[1]} are read", "export it."
            )
        heads = [value for value in live if isinstance(value, Head)]
        if heads and node.op_type != "Identity":
            plain = node.op_type in ("Flatten", "Reshape", "Squeeze") and inputs[0] is heads[0]
            if not plain:
                raise ModelError(f"{heads[0].where}, which has no exact linear rows", WAY_OUT + ", or smooth=0.01.")
            return [heads[0]]
        found = operator.read(_Call(self, node, inputs, given))
        return list(found) if isinstance(found, tuple) else [found]

    def _folded(self, node: Any, inputs: list[Any]) -> list[Any]:
        """A node over constants alone, carried out by onnx's own reference."""
        return carried_out(self.file, node, inputs)

    def steps(self, points: Floats, batch: int) -> Iterable[tuple[str, Any, Floats]]:
        """Every node with the framework's own numbers at the points."""
        names = [name for name in self.where if isinstance(self.known[name], Value | Head)]
        names = [name for name in names if self.known[name] is not self.tape.inputs]
        found = self.file.forward(points, self.tape.shape, batch, names)
        for name in names:
            yield self.where[name], self.known[name], found[name]


def carried_out(file: _File, node: Any, inputs: list[Any]) -> list[Any]:
    """One node of constants by onnx's reference evaluator."""
    onnx = file.onnx
    from onnx.reference import ReferenceEvaluator

    names = [name for name, value in zip(node.input, inputs, strict=False) if name and value is not None]
    arrays = {name: np.asarray(value) for name, value in zip(node.input, inputs, strict=False) if name in names}
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [
            onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in arrays.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", file.opset)])
    return list(ReferenceEvaluator(model).run(None, arrays))


@dataclass(frozen=True)
class _Call:
    """A node on its way to its reader."""

    walk: _Walk
    node: Any
    inputs: list[Any]
    given: dict[str, Any]

    @property
    def tape(self) -> Tape:
        """Where it is written."""
        return self.walk.tape

    @property
    def first(self) -> Value:
        """The network's tensor, when it comes first."""
        return self.value(0)

    def value(self, i: int) -> Value:
        """Input i, which must hang on the network's inputs."""
        found = self.inputs[i]
        if not isinstance(found, Value):
            raise ModelError(f"input {i} is a constant", "export layers whose first input is the network's.")
        return found

    def array(self, i: int) -> Floats | None:
        """Input i, which must be constant; None when it is missing."""
        found = self.inputs[i] if i < len(self.inputs) else None
        if isinstance(found, Value | Head):
            raise ModelError(f"input {i} hangs on the network's inputs", "use weights that do not.")
        return None if found is None else np.asarray(found, dtype=np.float64)

    def axes(self, at: int) -> list[int] | None:
        """Axes from an attribute (before opset 13 or 18) or from input ``at``; None: all."""
        found = self.given.get("axes")
        if found is None and at < len(self.inputs) and self.inputs[at] is not None:
            found = self.array(at)
        if found is None or np.size(found) == 0:
            if self.given.get("noop_with_empty_axes", 0):
                raise ModelError("reduces over no axes", "leave the node out.")
            return None
        return [int(axis) for axis in np.ravel(found)]


def _listed() -> str:
    return ", ".join(sorted(OPERATORS))


@dataclass(frozen=True)
class Operator:
    """An operator that is read."""

    read: Callable[[_Call], Any]
    attributes: frozenset[str] = frozenset()
    inputs: tuple[int, int] = (1, 1)


def _named(*names: str) -> frozenset[str]:
    return frozenset(names)


FOLDED = _named(
    *[
        "Constant",
        "ConstantOfShape",
        "Range",
        "Equal",
        "Where",
        "Not",
        "Less",
        "Greater",
        "Shape",
        "Sqrt",
        "Exp",
        "Log",
    ],
    *["Reciprocal", "Pow", "Floor", "Ceil", "Mod", "Size", "And", "Or", "EyeLike", "DequantizeLinear"],
)
"""Further operators that are carried out over constants alone: they draw nothing."""


# ---------------------------------------------------------------------------------------------------- readers
def _arithmetic(call: _Call) -> Value:
    a, b = call.inputs
    kind, tape = call.node.op_type, call.tape
    if kind in ("Add", "Sub"):
        sign = 1.0 if kind == "Add" else -1.0
        if isinstance(a, Value):
            return tape.add(a, b, sign)
        return tape.add(tape.scale(b, sign), a)
    if kind == "Mul":
        if isinstance(a, Value | Head) and isinstance(b, Value | Head):
            return tape.product(a, b)
        value, number = (a, call.array(1)) if isinstance(a, Value) else (b, call.array(0))
        return tape.scale(value, number)
    number = call.array(1)
    if number is None or (number == 0).any():
        raise ModelError("divides by zero", "divide by other numbers.")
    return tape.scale(call.first, 1.0 / number)


def _gemm(call: _Call) -> Value:
    given, tape = call.given, call.tape
    a, b = call.inputs[:2]
    a = _turned(call, a) if given.get("transA", 0) else a
    b = _turned(call, b) if given.get("transB", 0) else b
    if isinstance(a, Value) and isinstance(b, Value):
        raise ModelError("multiplies two parts of the network", "use weights that do not hang on the inputs.")
    if not any(isinstance(part, Value) for part in (a, b)):
        product: Any = (
            np.asarray(a, dtype=np.float64) @ np.asarray(b, dtype=np.float64) * float(given.get("alpha", 1.0))
        )
        return tape.add(tape.scale(call.value(2), float(given.get("beta", 1.0))), product)
    found = tape.scale(tape.matmul(a, b), float(given.get("alpha", 1.0)))
    if len(call.inputs) > 2:
        more, beta = call.inputs[2], float(given.get("beta", 1.0))
        found = (
            tape.add(found, more, beta)
            if isinstance(more, Value)
            else tape.add(found, beta * np.asarray(call.array(2)))
        )
    return found


def _turned(call: _Call, given: Any) -> Any:
    return call.tape.take(given, given.index.T) if isinstance(given, Value) else np.asarray(given).T


def _matmul(call: _Call) -> Value:
    if all(isinstance(part, Value) for part in call.inputs):
        raise ModelError("multiplies two parts of the network", "use weights that do not hang on the inputs.")
    return call.tape.matmul(*call.inputs)


def _moved(call: _Call) -> Any:
    """What only moves entries: onnx's own reference applied to their positions."""
    value = call.first
    rest = [call.inputs[i] for i in range(1, len(call.inputs))]
    if any(isinstance(part, Value) for part in rest):
        raise ModelError("moves entries by what hangs on the inputs", "use constants.")
    found = carried_out(call.walk.file, call.node, [value.index, *rest])
    return tuple(call.tape.take(value, index) for index in found)


def _concat(call: _Call) -> Value:
    flat, index = call.tape.joined(call.inputs)
    return call.tape.take(flat, np.concatenate(index, axis=int(call.given["axis"])))


def _padded(call: _Call) -> Value:
    value, given = call.first, call.given
    if given.get("mode", b"constant") != b"constant":
        raise ModelError(f"its attribute mode={given['mode']!r} is not read", "pad by a constant.")
    pads = given.get("pads")
    pads = np.asarray(call.array(1) if pads is None else pads).astype(int).reshape(2, -1)
    number = call.array(2)
    fill = float(given.get("value", 0.0)) if number is None else float(np.ravel(number)[0])
    if len(call.inputs) > 3:
        raise ModelError("pads chosen axes", "give pads for all axes.")
    if (pads < 0).any():
        raise ModelError("pads by less than nothing", "use Slice.")
    return call.tape.take(value, np.pad(value.index, pads.T, constant_values=-1), fill)


def _clip(call: _Call) -> Value:
    ends = []
    for i, name in ((1, "min"), (2, "max")):
        # Limits are inputs since opset 11 and attributes before; either may be missing.
        found = call.array(i)
        ends.append(call.given.get(name) if found is None else float(np.ravel(found)[0]))
    return call.tape.clamp(call.first, *ends)


def _leaky(call: _Call) -> Value:
    return call.tape.leaky(call.first, float(call.given.get("alpha", 0.01)))


def _prelu(call: _Call) -> Value:
    return call.tape.leaky(call.first, call.array(1))


def _pads(call: _Call, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    mode = call.given.get("auto_pad", b"NOTSET")
    axes = len(kernel)
    if mode in (b"NOTSET", b"VALID"):
        pads = [0] * (2 * axes) if mode == b"VALID" else call.given.get("pads", [0] * (2 * axes))
        return [(int(pads[i]), int(pads[axes + i])) for i in range(axes)]
    found = []
    for i, size in enumerate(call.first.shape[2:]):
        total = max(0, (-(-size // stride[i]) - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 - size)
        small, large = total // 2, total - total // 2
        found.append((small, large) if mode == b"SAME_UPPER" else (large, small))
    return found


def _conv(call: _Call) -> Value:
    weight = call.array(1)
    assert weight is not None
    axes = weight.ndim - 2
    kernel = list(weight.shape[2:])
    if list(call.given.get("kernel_shape", kernel)) != kernel:
        raise ModelError("kernel_shape is not the weight's", "export it again.")
    stride, dilation = (list(call.given.get(name, [1] * axes)) for name in ("strides", "dilations"))
    pads = _pads(call, kernel, stride, dilation)
    return call.tape.convolve(
        call.first, weight, call.array(2), stride, pads, dilation, int(call.given.get("group", 1))
    )


def _pool(call: _Call) -> Value:
    given, value = call.given, call.first
    kernel = list(given["kernel_shape"])
    axes = len(kernel)
    stride, dilation = (list(given.get(name, [1] * axes)) for name in ("strides", "dilations"))
    pads = _pads(call, kernel, stride, dilation)
    reach = [n + sum(p) - d * (k - 1) - 1 for n, p, d, k in zip(value.shape[2:], pads, dilation, kernel, strict=True)]
    if given.get("ceil_mode", 0) and any(left % s for left, s in zip(reach, stride, strict=True)):
        raise ModelError("its attribute ceil_mode=1 adds windows that hang over", "leave ceil_mode out.")
    if call.node.op_type == "MaxPool":
        if given.get("storage_order", 0) or len([name for name in call.node.output if name]) > 1:
            raise ModelError("gives positions of its maxima", "export values only.")
        return call.tape.pool_largest(value, kernel, stride, pads, dilation)
    if dilation != [1] * axes:
        raise ModelError("its attribute dilations is not read", "leave dilations out.")
    return call.tape.pool_mean(value, kernel, stride, pads, bool(given.get("count_include_pad", 0)))


def _global(call: _Call) -> Value:
    axes = list(range(2, len(call.first.shape)))
    if call.node.op_type == "GlobalMaxPool":
        return call.tape.largest_of(call.first, axes, True)
    return call.tape.reduce(call.first, axes, True, True)


def _batch_norm(call: _Call) -> Value:
    given, value = call.given, call.first
    if given.get("training_mode", 0) or not given.get("spatial", 1) or len([n for n in call.node.output if n]) > 1:
        raise ModelError("normalises over the batch", "export in evaluation mode.")
    scale, shift, mean, variance = (np.asarray(call.array(i)) for i in range(1, 5))
    factor = scale / np.sqrt(variance + float(given.get("epsilon", 1e-5)))
    form = (1, -1, *[1] * (len(value.shape) - 2))
    return call.tape.add(call.tape.scale(value, factor.reshape(form)), (shift - factor * mean).reshape(form))


def _reduced(call: _Call) -> Value:
    kind, keep, axes = call.node.op_type, bool(call.given.get("keepdims", 1)), call.axes(1)
    if kind in ("ReduceMax", "ReduceMin"):
        return call.tape.largest_of(call.first, axes, keep, 1.0 if kind == "ReduceMax" else -1.0)
    return call.tape.reduce(call.first, axes, keep, kind == "ReduceMean")


def _several(call: _Call) -> Value:
    kind, tape = call.node.op_type, call.tape
    values = [part if isinstance(part, Value) else np.asarray(part, dtype=np.float64) for part in call.inputs]
    if kind in ("Max", "Min"):
        return tape.highest(values) if kind == "Max" else tape.lowest(values)
    total = tape.constant(0.0)
    for value in values:
        total = tape.add(total, value)
    return total if kind == "Sum" else tape.scale(total, 1.0 / len(values))


def _hard_sigmoid(call: _Call) -> Value:
    alpha, beta = float(call.given.get("alpha", 0.2)), float(call.given.get("beta", 0.5))
    return call.tape.clamp(call.tape.add(call.tape.scale(call.first, alpha), beta), 0.0, 1.0)


def _cast(call: _Call) -> Value:
    kinds = call.walk.file.onnx.TensorProto
    if call.given.get("to") not in (kinds.FLOAT, kinds.DOUBLE):
        name = kinds.DataType.Name(call.given.get("to", 0))
        raise ModelError(f"casts the network's numbers to {name}", "cast to float or double only.")
    return call.first


def _dropout(call: _Call) -> Value:
    training = call.array(2)
    if training is not None and bool(np.ravel(training)[0]):
        raise ModelError("draws at random (training_mode)", "export in evaluation mode.")
    if len([name for name in call.node.output if name]) > 1:
        raise ModelError("gives its mask", "export values only.")
    return call.first


def _curved(name: str, **defaults: float) -> Callable[[_Call], Value]:
    def read(call: _Call) -> Value:
        numbers = {key: float(call.given.get(key, value)) for key, value in defaults.items()}
        return call.tape.curve(call.first, CURVES[name](**numbers))

    return read


def _sigmoid(call: _Call) -> Any:
    return Head("sigmoid", call.first) if call.tape.smooth is None else _curved("sigmoid")(call)


def _gelu(call: _Call) -> Value:
    return _curved("gelu_tanh" if call.given.get("approximate", b"none") == b"tanh" else "gelu")(call)


def _selu(call: _Call) -> Value:
    usual = {"alpha": 1.6732632, "gamma": 1.0507009}
    if any(abs(float(call.given.get(name, number)) - number) > 1e-6 for name, number in usual.items()):
        raise ModelError("its attributes alpha and gamma are not the usual ones", "use Elu.")
    return _curved("selu")(call)


def _softmax(call: _Call) -> Head:
    value, old = call.first, call.walk.file.opset < 13
    axis = int(call.given.get("axis", 1 if old else -1))
    kind = "softmax" if call.node.op_type == "Softmax" else "log_softmax"
    over = value.shape[axis % len(value.shape) :] if old else (value.shape[axis],)
    if int(np.prod(over)) != value.size:
        raise ModelError("a softmax over part of the outputs has no exact linear rows", WAY_OUT + ".")
    return Head(kind, value, axis)


def _shrink(call: _Call) -> Value:
    step, bias = float(call.given.get("lambd", 0.5)), float(call.given.get("bias", 0.0))
    if step != bias or step < 0:
        raise ModelError(f"jumps at lambd={step} with bias={bias}", "use bias = lambd.")
    tape, value = call.tape, call.first
    right = tape.relu(tape.add(value, -step))
    return tape.add(right, tape.relu(tape.add(tape.scale(value, -1.0), -step)), -1.0)


_WINDOW = _named("auto_pad", "kernel_shape", "pads", "strides", "dilations")
OPERATORS: dict[str, Operator] = {
    "Add": Operator(_arithmetic, inputs=(2, 2)),
    "Sub": Operator(_arithmetic, inputs=(2, 2)),
    "Mul": Operator(_arithmetic, inputs=(2, 2)),
    "Div": Operator(_arithmetic, inputs=(2, 2)),
    "Neg": Operator(lambda call: call.tape.scale(call.first, -1.0)),
    "Abs": Operator(lambda call: call.tape.leaky(call.first, -1.0)),
    "Sum": Operator(_several, inputs=(1, 99)),
    "Mean": Operator(_several, inputs=(1, 99)),
    "Max": Operator(_several, inputs=(1, 99)),
    "Min": Operator(_several, inputs=(1, 99)),
    "Gemm": Operator(_gemm, _named("alpha", "beta", "transA", "transB"), (2, 3)),
    "MatMul": Operator(_matmul, inputs=(2, 2)),
    "Conv": Operator(_conv, _WINDOW | {"group"}, (2, 3)),
    "MaxPool": Operator(_pool, _WINDOW | {"ceil_mode", "storage_order"}),
    "AveragePool": Operator(_pool, _WINDOW | {"ceil_mode", "count_include_pad"}),
    "GlobalAveragePool": Operator(_global),
    "GlobalMaxPool": Operator(_global),
    "BatchNormalization": Operator(_batch_norm, _named("epsilon", "momentum", "training_mode", "spatial"), (5, 5)),
    "Relu": Operator(lambda call: call.tape.relu(call.first)),
    "LeakyRelu": Operator(
        lambda call: call.tape.leaky(call.first, float(call.given.get("alpha", 0.01))), _named("alpha")
    ),
    "PRelu": Operator(_prelu, inputs=(2, 2)),
    "Clip": Operator(_clip, _named("min", "max"), (1, 3)),
    "HardSigmoid": Operator(_hard_sigmoid, _named("alpha", "beta")),
    "Shrink": Operator(_shrink, _named("lambd", "bias")),
    "Sigmoid": Operator(_sigmoid),
    "Tanh": Operator(_curved("tanh")),
    "Softplus": Operator(_curved("softplus")),
    "Mish": Operator(_curved("mish")),
    "Erf": Operator(_curved("erf")),
    "Elu": Operator(_curved("elu", alpha=1.0), _named("alpha")),
    "Celu": Operator(_curved("celu", alpha=1.0), _named("alpha")),
    "Selu": Operator(_selu, _named("alpha", "gamma")),
    "Gelu": Operator(_gelu, _named("approximate")),
    "HardSwish": Operator(_curved("hardswish")),
    "Softmax": Operator(_softmax, _named("axis")),
    "LogSoftmax": Operator(_softmax, _named("axis")),
    "Identity": Operator(lambda call: call.inputs[0]),
    "Dropout": Operator(_dropout, _named("ratio", "seed"), (1, 3)),
    "Cast": Operator(_cast, _named("to", "saturate")),
    "Concat": Operator(_concat, _named("axis"), (1, 99)),
    "Pad": Operator(_padded, _named("mode", "pads", "value"), (1, 4)),
    "Flatten": Operator(_moved, _named("axis")),
    "Reshape": Operator(_moved, _named("allowzero"), (2, 2)),
    "Transpose": Operator(_moved, _named("perm")),
    "Squeeze": Operator(_moved, _named("axes"), (1, 2)),
    "Unsqueeze": Operator(_moved, _named("axes"), (1, 2)),
    "Slice": Operator(_moved, _named("axes", "starts", "ends"), (1, 5)),
    "Gather": Operator(_moved, _named("axis"), (2, 2)),
    "Split": Operator(_moved, _named("axis", "split", "num_outputs"), (1, 2)),
    "Expand": Operator(_moved, inputs=(2, 2)),
    "Tile": Operator(_moved, inputs=(2, 2)),
    "DepthToSpace": Operator(_moved, _named("blocksize", "mode")),
    "SpaceToDepth": Operator(_moved, _named("blocksize", "mode")),
    "ReduceMax": Operator(_reduced, _named("axes", "keepdims", "noop_with_empty_axes"), (1, 2)),
    "ReduceMin": Operator(_reduced, _named("axes", "keepdims", "noop_with_empty_axes"), (1, 2)),
    "ReduceSum": Operator(_reduced, _named("axes", "keepdims", "noop_with_empty_axes"), (1, 2)),
    "ReduceMean": Operator(_reduced, _named("axes", "keepdims", "noop_with_empty_axes"), (1, 2)),
}
"""Operator -> how it is read, with every attribute and number of inputs that is."""


def write_onnx(network: Network, path: str | Path) -> None:
    """Write a network as ONNX opset 18 in float64, skip and constant included, checked by onnx itself.

    Input ``x`` of shape (batch, n), output ``value`` of shape (batch, 1). Skip and links become branches that meet in
    sums.
    """
    onnx = _package()
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, current = [], [], "x"

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float64), name))
        return name

    links = network.links()
    outputs = {-1: "x"}
    for number, (weight, bias, activation) in enumerate(network.layers()):
        names = [current, constant(f"weight{number}", dense(weight)), constant(f"bias{number}", bias)]
        current = f"dense{number}"
        nodes.append(helper.make_node("Gemm", names, [current], transB=1))
        for (source, target), link in links.items():
            if target == number:
                name = f"link{source + 1}_{number}"
                nodes.append(helper.make_node("MatMul", [outputs[source], constant(f"w{name}", dense(link).T)], [name]))
                nodes.append(helper.make_node("Add", [current, name], [f"sum{name}"]))
                current = f"sum{name}"
        after = f"h{number}"
        if activation.name == "relu":
            nodes.append(helper.make_node("Relu", [current], [after]))
        elif activation.name == "leaky_relu":
            nodes.append(helper.make_node("LeakyRelu", [current], [after], alpha=activation.slope))
        elif activation.name == "clip":
            ends = [constant(f"low{number}", activation.lower), constant(f"high{number}", activation.upper)]
            nodes.append(helper.make_node("Clip", [current, *ends], [after]))
        elif activation.name == "max":
            shape = np.array([0, len(bias) // activation.group, activation.group], dtype=np.int64)
            constants.append(numpy_helper.from_array(shape, f"groups{number}"))
            constants.append(numpy_helper.from_array(np.array([2], dtype=np.int64), f"axis{number}"))
            nodes.append(helper.make_node("Reshape", [current, f"groups{number}"], [f"grouped{number}"]))
            names = [f"grouped{number}", f"axis{number}"]
            nodes.append(helper.make_node("ReduceMax", names, [after], keepdims=0))
        else:
            outputs[number] = current
            continue
        current = outputs[number] = after
    if network.skip.any() or not network.layers():
        nodes.append(helper.make_node("MatMul", ["x", constant("skip", network.skip[:, None])], ["straight"]))
        if network.layers():
            nodes.append(helper.make_node("Add", [current, "straight"], ["both"]))
        current = "both" if network.layers() else "straight"
    if network.constant:
        nodes.append(helper.make_node("Add", [current, constant("constant", np.array([network.constant]))], ["moved"]))
        current = "moved"
    nodes.append(helper.make_node("Identity", [current], ["value"]))
    graph = helper.make_graph(
        nodes,
        "rmab_opt",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["batch", network.n_inputs])],
        [helper.make_tensor_value_info("value", TensorProto.DOUBLE, ["batch", 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    Path(path).write_bytes(model.SerializeToString())
