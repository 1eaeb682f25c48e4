"""ONNX chains of dense layers and piecewise-linear activations, read and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmab_opt.encoder.network import Network
from rmab_opt.errors import ModelError

__all__ = ["read_onnx", "write_onnx"]

Floats = NDArray[np.float64]

KNOWN = "Gemm, MatMul, Add, Sub, Mul, Relu, LeakyRelu, Clip, Identity, Flatten, Reshape, Dropout and Cast"


def _package() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ModelError(
            "reading and writing ONNX needs the package onnx", "run pip install 'rmab-opt[onnx]'."
        ) from error
    return onnx


def read_onnx(path: str | Path) -> Network:
    """A network from an ONNX file: one chain from one input to one output.

    Raises
    ------
    ModelError
        When the file cannot be read, the graph is not a chain, or a node is not linear in pieces; names the node's
        number and type.
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
            f"{path}: {len(free)} inputs and {len(graph.output)} outputs", "export a chain with one of each."
        )
    layers: list[tuple[Floats, Floats, Any]] = []
    current = free[0]
    # Add and Mul before any dense layer wait here until the width is known.
    scale: Any = None
    shift: Any = None
    for number, node in enumerate(graph.node):
        where = f"{path}: node {number} ({node.op_type})"
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant":
            if "value" not in given:
                raise ModelError(f"{where}: a constant of an unusual kind", "export it as an initializer.")
            constants[node.output[0]] = onnx.numpy_helper.to_array(given["value"])
            continue
        names = [name for name in node.input if name]
        if current not in names:
            raise ModelError(f"{where}: the graph is not a chain", "export a sequence of layers without branches.")
        others = [np.asarray(constants[name], dtype=np.float64) if name in constants else None for name in names]
        if any(other is None and name != current for name, other in zip(names, others, strict=True)):
            raise ModelError(f"{where}: the graph is not a chain", "export a sequence of layers without branches.")
        first = names[0] == current
        values = [other for other in others if other is not None]
        kind = node.op_type
        if kind in ("Identity", "Flatten", "Dropout", "Cast", "Reshape"):
            pass
        elif kind in ("Gemm", "MatMul"):
            if not first or not values or values[0].ndim != 2 or given.get("transA", 0):
                raise ModelError(f"{where}: only input times a matrix of weights is read", "export nn.Linear layers.")
            weight = values[0] if kind == "Gemm" and given.get("transB", 0) else values[0].T
            weight = weight * float(given.get("alpha", 1.0))
            bias = np.zeros(len(weight))
            if len(values) > 1:
                bias = np.broadcast_to(values[1] * float(given.get("beta", 1.0)), (1, len(weight)))[0].copy()
            if scale is not None or shift is not None:
                width = weight.shape[1]
                factor = np.ones(width) if scale is None else np.broadcast_to(scale, (1, width))[0]
                moved = np.zeros(width) if shift is None else np.broadcast_to(shift, (1, width))[0]
                weight, bias = weight * factor, bias + weight @ moved
                scale = shift = None
            layers.append((weight, bias, "linear"))
        elif kind in ("Add", "Sub", "Mul"):
            if not values or (kind == "Sub" and not first):
                raise ModelError(f"{where}: only a constant on the right is read", "export nn.Linear layers.")
            _affine_step(layers, kind, values[0].reshape(1, -1), where)
            if not layers:
                one = values[0].reshape(1, -1)
                if kind == "Mul":
                    scale = one if scale is None else scale * one
                    shift = None if shift is None else shift * one
                else:
                    moved = one if kind == "Add" else -one
                    shift = moved if shift is None else shift + moved
        elif kind in ("Relu", "LeakyRelu", "Clip"):
            if not layers:
                raise ModelError(f"{where}: an activation before any dense layer", "begin with a dense layer.")
            if kind == "Clip":
                # Bounds are inputs since opset 11 and attributes before; either may be missing.
                ends = list(node.input[1:]) + [""] * (2 - len(node.input[1:]))
                low = float(constants[ends[0]].reshape(-1)[0]) if ends[0] else given.get("min", -np.inf)
                high = float(constants[ends[1]].reshape(-1)[0]) if ends[1] else given.get("max", np.inf)
                activation: Any = ("clip", float(low), float(high))
                if low == 0 and (not np.isfinite(high) or high > 1e30):
                    activation = "relu"
                elif not (np.isfinite(low) and np.isfinite(high)):
                    raise ModelError(f"{where}: clips to [{low}, {high}]", "clip on both sides or use Relu.")
            else:
                activation = "relu" if kind == "Relu" else ("leaky_relu", float(given.get("alpha", 0.01)))
            weight, bias, before = layers[-1]
            if before == "linear":
                layers[-1] = (weight, bias, activation)
            else:
                layers.append((np.eye(len(bias)), np.zeros(len(bias)), activation))
        else:
            raise ModelError(f"{where} has no exact linear rows or is not read", f"use a chain of {KNOWN}.")
        current = node.output[0]
    if current != graph.output[0].name:
        raise ModelError(f"{path}: the chain ends at {current!r}, not at the output", "export one chain.")
    if not layers:
        raise ModelError(f"{path}: no dense layer", "export at least one.")
    try:
        return Network.from_arrays(layers)
    except ModelError as error:
        raise ModelError(f"{path}: {error.message}", error.fix) from None


def _affine_step(layers: list[tuple[Floats, Floats, Any]], kind: str, value: Floats, where: str) -> None:
    """Work an addition or a scaling into the last dense layer; into a new diagonal one after an activation."""
    if not layers:
        return
    weight, bias, activation = layers[-1]
    if value.shape[1] not in (1, len(bias)):
        raise ModelError(f"{where}: {value.shape[1]} numbers for {len(bias)} neurons", "export the network again.")
    number = np.broadcast_to(value, (1, len(bias)))[0]
    if activation != "linear":
        layers.append((np.eye(len(bias)), np.zeros(len(bias)), "linear"))
        weight, bias, _ = layers[-1]
    if kind == "Mul":
        layers[-1] = (weight * number[:, None], bias * number, "linear")
    else:
        layers[-1] = (weight, bias + (number if kind == "Add" else -number), "linear")


def write_onnx(network: Network, path: str | Path) -> None:
    """Write a network as ONNX opset 17 in float64, skip and constant included, checked by onnx itself.

    Input ``x`` of shape (batch, n), output ``value`` of shape (batch, 1). A skip becomes a branch of its own, which
    other readers of chains (and :func:`read_onnx`) do not take; networks without one come back equal.
    """
    onnx = _package()
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, current = [], [], "x"

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float64), name))
        return name

    for number, (weight, bias, activation) in enumerate(network.layers()):
        names = [current, constant(f"weight{number}", weight), constant(f"bias{number}", bias)]
        current = f"dense{number}"
        nodes.append(helper.make_node("Gemm", names, [current], transB=1))
        after = f"h{number}"
        if activation.name == "relu":
            nodes.append(helper.make_node("Relu", [current], [after]))
        elif activation.name == "leaky_relu":
            nodes.append(helper.make_node("LeakyRelu", [current], [after], alpha=activation.slope))
        elif activation.name == "clip":
            ends = [constant(f"low{number}", activation.lower), constant(f"high{number}", activation.upper)]
            nodes.append(helper.make_node("Clip", [current, *ends], [after]))
        elif activation.name == "max":
            raise ModelError(f"layer {number} takes the largest of groups", "write it by to_safetensors instead.")
        else:
            continue
        current = after
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
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    Path(path).write_bytes(model.SerializeToString())
