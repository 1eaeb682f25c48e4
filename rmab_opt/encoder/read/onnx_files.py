"""ONNX graphs of dense layers, piecewise-linear activations and sums of branches, read and written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmab_opt.encoder.network import Network, dense
from rmab_opt.encoder.read.torch_modules import Tape, Value
from rmab_opt.errors import ModelError

__all__ = ["read_onnx", "write_onnx"]

Floats = NDArray[np.float64]

KNOWN = (
    "Gemm, MatMul, Add, Sub, Mul, Div, Neg, Concat, Relu, LeakyRelu, Clip, Identity, Flatten, Reshape, ReduceMax, "
    "Dropout and Cast"
)


def _package() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ModelError(
            "reading and writing ONNX needs the package onnx", "run pip install 'rmab-opt[onnx]'."
        ) from error
    return onnx


@dataclass(frozen=True)
class _Grouped:
    """A vector reshaped into groups, on its way to the largest of each."""

    value: Value
    size: int


def read_onnx(path: str | Path) -> Network:
    """A network from an ONNX file: one input, one output, branches that meet in sums or concatenations.

    Raises
    ------
    ModelError
        When the file cannot be read, or a node is not linear in pieces; names the node's number and type.
    """
    onnx = _package()
    path = Path(path)
    if not path.exists():
        raise ModelError(f"{path}: no such file", "check the path.")
    try:
        model = onnx.load(str(path))
        graph = model.graph
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    except Exception as error:
        raise ModelError(f"{path}: not an ONNX file ({type(error).__name__})", "export the network again.") from error
    free = [value.name for value in graph.input if value.name not in constants]
    if len(free) != 1 or len(graph.output) != 1:
        raise ModelError(
            f"{path}: {len(free)} inputs and {len(graph.output)} outputs", "export a network with one of each."
        )
    tape = Tape()
    known: dict[str, Any] = {free[0]: tape.inputs}
    known |= {name: np.asarray(value, dtype=np.float64) for name, value in constants.items()}
    for number, node in enumerate(graph.node):
        where = f"{path}: node {number} ({node.op_type})"
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant":
            if "value" not in given:
                raise ModelError(f"{where}: a constant of an unusual kind", "export it as an initializer.")
            known[node.output[0]] = np.asarray(onnx.numpy_helper.to_array(given["value"]), dtype=np.float64)
            continue
        unknown = [name for name in node.input if name and name not in known]
        if unknown:
            raise ModelError(f"{where}: {unknown[0]!r} comes from nowhere", "export the network again.")
        try:
            known[node.output[0]] = _node(tape, node.op_type, [known.get(name) for name in node.input], given, where)
        except ModelError as error:
            said = error.message if error.message.startswith(where) else f"{where}: {error.message}"
            raise ModelError(said, error.fix) from None
    try:
        return tape.network(known[graph.output[0].name])
    except (ModelError, KeyError) as error:
        said, fix = (error.message, error.fix) if isinstance(error, ModelError) else ("no output", "export it again.")
        raise ModelError(f"{path}: {said}", fix) from None


def _node(tape: Tape, kind: str, inputs: list[Any], given: dict[str, Any], where: str) -> Any:
    """What one node gives: a vector of the tape, or an array when all its inputs are constants."""
    first: Any = inputs[0] if inputs else None
    vectors = [value for value in inputs if isinstance(value, Value)]
    values = [value for value in inputs if isinstance(value, np.ndarray)]
    if isinstance(first, _Grouped):
        axes = np.ravel(inputs[1] if len(inputs) > 1 else given.get("axes", [])).tolist()
        if kind == "ReduceMax" and axes in ([2], [-1]) and not given.get("keepdims", 1):
            return tape.bend(first.value, ("max", first.size))
        raise ModelError(f"{where}: groups are only read for the largest of each", "export the network again.")
    if kind in ("Identity", "Cast", "Flatten", "Dropout"):
        return first
    if kind == "Reshape":
        shape = [] if inputs[1] is None else np.ravel(inputs[1]).astype(int).tolist()
        if isinstance(first, np.ndarray):
            return first.reshape(shape)
        return _Grouped(first, shape[2]) if len(shape) == 3 else first
    if kind == "Transpose" and isinstance(first, np.ndarray):
        return first.transpose(given.get("perm"))
    if kind in ("Gemm", "MatMul") and vectors:
        if not isinstance(first, Value) or len(inputs) < 2 or len(vectors) > 1 or given.get("transA", 0):
            raise ModelError(f"{where}: only input times a matrix of weights is read", "export nn.Linear layers.")
        weight = inputs[1] if kind == "Gemm" and given.get("transB", 0) else inputs[1].T
        if weight.ndim != 2:
            raise ModelError(f"{where}: only input times a matrix of weights is read", "export nn.Linear layers.")
        weight = weight * float(given.get("alpha", 1.0))
        bias = np.zeros(len(weight))
        if len(inputs) > 2 and inputs[2] is not None:
            bias = np.broadcast_to(inputs[2] * float(given.get("beta", 1.0)), (1, len(weight)))[0].copy()
        return tape.dense(first, weight, bias)
    if kind == "Neg" and vectors:
        return tape.scaled(first, np.array([-1.0]))
    if kind == "Concat" and vectors and given.get("axis") in (1, -1) and len(vectors) == len(inputs):
        return tape.joined(vectors)
    if kind in ("Add", "Sub") and len(vectors) == 2:
        return tape.sum(inputs[0], tape.scaled(inputs[1], np.array([-1.0])) if kind == "Sub" else inputs[1])
    if kind in ("Add", "Sub", "Mul", "Div") and len(vectors) == 1:
        number, vector = values[0].reshape(-1), vectors[0]
        width = tape.width(vector)
        if width is not None and number.size not in (1, width):
            raise ModelError(f"{where}: {number.size} numbers for {width} neurons", "export the network again.")
        if kind in ("Mul", "Div"):
            if kind == "Div" and first is not vector:
                raise ModelError(f"{where} divides by the network", "export nn.Linear layers.")
            return tape.scaled(vector, number if kind == "Mul" else 1.0 / number)
        if kind == "Sub" and first is not vector:
            return tape.moved(tape.scaled(vector, np.array([-1.0])), number)
        return tape.moved(vector, number if kind == "Add" else -number)
    if kind in ("Relu", "LeakyRelu"):
        return tape.bend(first, "relu" if kind == "Relu" else ("leaky_relu", float(given.get("alpha", 0.01))))
    if kind == "Clip":
        # Bounds are inputs since opset 11 and attributes before; either may be missing.
        ends = [*inputs[1:], None, None]
        low = float(ends[0].reshape(-1)[0]) if ends[0] is not None else float(given.get("min", -np.inf))
        high = float(ends[1].reshape(-1)[0]) if ends[1] is not None else float(given.get("max", np.inf))
        if low == 0 and (not np.isfinite(high) or high > 1e30):
            return tape.bend(first, "relu")
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ModelError(f"{where}: clips to [{low}, {high}]", "clip on both sides or use Relu.")
        return tape.bend(first, ("clip", low, high))
    raise ModelError(f"{where} has no exact linear rows or is not read", f"use {KNOWN}.")


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
