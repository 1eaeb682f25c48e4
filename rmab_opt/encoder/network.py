"""A trained piecewise-linear network as plain arrays: no framework, no state, one scalar output."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmab_opt.errors import ModelError

__all__ = ["Activation", "Hidden", "Layer", "Network"]

Floats = NDArray[np.float64]

FORMAT = "rmab_opt.network"
"""Key of the safetensors metadata that says which activation follows which layer."""

WAY_OUT = (
    "use Linear, ReLU, LeakyReLU, Hardtanh, ReLU6, BatchNorm1d, Dropout, Flatten or Identity layers, "
    "or give the weights by Network.from_arrays"
)


@dataclass(frozen=True)
class Activation:
    """An activation function that is linear in pieces.

    ``linear``: z. ``relu``: max(0, z). ``leaky_relu``: z where z > 0, ``slope`` * z elsewhere.
    ``clip``: z kept within [``lower``, ``upper``]. ``max``: the largest of every ``group`` neighbours, so that the
    layer has that many times fewer outputs than neurons.
    """

    name: str
    slope: float = 0.0
    lower: float = 0.0
    upper: float = 0.0
    group: int = 1

    @classmethod
    def of(cls, given: Any) -> Activation:
        """From a name, ``("leaky_relu", slope)``, ``("clip", lower, upper)``, ``("max", group)`` or an Activation.

        Raises
        ------
        ModelError
            When it is none of these or a number is unusable.
        """
        if isinstance(given, cls):
            return given
        name, *numbers = (given,) if isinstance(given, str) else tuple(given)
        shapes = {"linear": 0, "relu": 0, "leaky_relu": 1, "clip": 2, "max": 1}
        if name not in shapes:
            raise ModelError(f"activation {name!r} is not linear in pieces", f"use one of {', '.join(shapes)}.")
        if len(numbers) != shapes[name] or not np.isfinite(np.array(numbers, dtype=float)).all():
            raise ModelError(f"activation {name!r} has parameters {numbers}", f"give {shapes[name]} finite numbers.")
        if name == "leaky_relu":
            return cls(name, slope=float(numbers[0]))
        if name == "clip":
            if not numbers[0] < numbers[1]:
                raise ModelError(f"clip from {numbers[0]} to {numbers[1]}", "give lower < upper.")
            return cls(name, lower=float(numbers[0]), upper=float(numbers[1]))
        if name == "max":
            if numbers[0] != int(numbers[0]) or numbers[0] < 1:
                raise ModelError(f"max over groups of {numbers[0]}", "give a whole number of at least 1.")
            return cls(name, group=int(numbers[0]))
        return cls(name)

    def spec(self) -> list[Any]:
        """As JSON takes it; :meth:`of` reads it back."""
        extra: dict[str, list[Any]] = {
            "leaky_relu": [self.slope],
            "clip": [self.lower, self.upper],
            "max": [self.group],
        }
        return [self.name, *extra.get(self.name, [])]

    def __call__(self, values: Floats) -> Floats:
        """Applied to the last axis."""
        if self.name == "relu":
            return np.maximum(values, 0.0)
        if self.name == "leaky_relu":
            return np.where(values > 0, values, self.slope * values)
        if self.name == "clip":
            return np.clip(values, self.lower, self.upper)
        if self.name == "max":
            return values.reshape(*values.shape[:-1], -1, self.group).max(axis=-1)
        return values


@dataclass(frozen=True, eq=False)
class Layer:
    """One dense layer: activation(weight @ x + bias)."""

    weight: Floats
    """Shape (outputs, inputs)."""
    bias: Floats
    """Shape (outputs,)."""
    activation: Activation

    @property
    def outputs(self) -> int:
        """Width of what the next layer reads."""
        return int(self.weight.shape[0]) // self.activation.group


@dataclass(frozen=True, eq=False)
class Hidden:
    """One layer in the form every other module works on: h = slope * x + gain * max(0, x), x = weight @ input + bias.

    ReLU is slope 0 and gain 1, a linear neuron slope 1 and gain 0, leaky ReLU slope s and gain 1 - s; a clipped
    neuron is two ReLU neurons. Slope and gain are per neuron, so one layer may mix them.
    """

    weight: Floats
    """Shape (neurons, inputs)."""
    bias: Floats
    """Shape (neurons,)."""
    slope: Floats
    """Shape (neurons,)."""
    gain: Floats
    """Shape (neurons,); zero where the neuron is linear."""

    def __call__(self, values: Floats) -> Floats:
        """Outputs for inputs (..., inputs)."""
        x = values @ self.weight.T + self.bias
        return self.slope * x + self.gain * np.maximum(x, 0.0)


class Network:
    """A network with one output: value = skip . x + constant + head(x), in float64.

    Parameters
    ----------
    layers
        Dense layers of ``head``; the last has one output. None for a linear function.
    skip
        Shape (n,), straight from the inputs to the output; zero by default.
    constant
        Added to the output.

    Raises
    ------
    ModelError
        When a weight is NaN or infinite or shapes do not fit; names the layer's number and type.

    Notes
    -----
    Immutable: arrays are copied and closed for writing. A pooled network at a fixed state is a Network whose
    ``skip`` holds the columns' differences of q and whose first weight holds their differences of psi.

    Examples
    --------
    >>> network = Network.from_arrays([([[1.0, -1.0]], [0.0], "relu"), ([[2.0]], [1.0], "linear")])
    >>> network([[3.0, 1.0], [1.0, 3.0]]).tolist()
    [5.0, 1.0]
    >>> network.fold([1], [1.0])([3.0])
    5.0
    """

    def __init__(self, layers: Iterable[Layer], skip: ArrayLike | None = None, constant: float = 0.0) -> None:
        self._layers = tuple(layers)
        if not self._layers and skip is None:
            raise ModelError("the network has neither layers nor a skip", "give at least one of them.")
        n = self._layers[0].weight.shape[1] if self._layers else np.size(skip)  # type: ignore[arg-type]
        self.skip: Floats = _closed(np.zeros(n) if skip is None else skip, "skip", 1)
        """Shape (n,)."""
        self.constant = float(constant)
        if not np.isfinite(self.constant):
            raise ModelError(f"the network's constant is {self.constant}", "give a finite number.")
        if self.skip.shape != (n,):
            raise ModelError(f"skip has {self.skip.size} entries, the first layer {n} inputs", "give one an input.")
        width = n
        for number, layer in enumerate(self._layers):
            if layer.weight.shape[1] != width:
                raise ModelError(
                    f"layer {number} (dense, {layer.activation.name}) takes {layer.weight.shape[1]} inputs, "
                    f"the layer before gives {width}",
                    "check the order of the layers and whether weights are (outputs, inputs).",
                )
            width = layer.outputs
            if width * layer.activation.group != layer.weight.shape[0]:
                raise ModelError(
                    f"layer {number} (dense, max) has {layer.weight.shape[0]} neurons in groups of "
                    f"{layer.activation.group}",
                    "give a multiple of the group's size.",
                )
        if self._layers and width != 1:
            raise ModelError(
                f"layer {len(self._layers) - 1} (dense, {self._layers[-1].activation.name}) has {width} outputs",
                "give a network with one output, or pick one row of the last layer.",
            )

    # ---- construction
    @classmethod
    def from_arrays(
        cls,
        layers: Sequence[tuple[ArrayLike, ArrayLike, Any]],
        *,
        skip: ArrayLike | None = None,
        constant: float = 0.0,
    ) -> Network:
        """From (weight (outputs, inputs), bias (outputs,), activation) a layer; see :meth:`Activation.of`."""
        made = []
        for number, (weight, bias, activation) in enumerate(layers):
            kind = Activation.of(activation)
            where = f"layer {number} (dense, {kind.name})"
            w, b = _closed(weight, f"{where}: weight", 2), _closed(bias, f"{where}: bias", 1)
            if b.shape != (w.shape[0],):
                raise ModelError(
                    f"{where}: bias has {b.size} entries, weight {w.shape[0]} rows", "give one a row of the weight."
                )
            made.append(Layer(w, b, kind))
        return cls(made, skip, constant)

    @classmethod
    def linear(cls, skip: ArrayLike, constant: float = 0.0) -> Network:
        """The linear function skip . x + constant."""
        return cls([], skip, constant)

    @classmethod
    def from_torch(cls, module: Any, *, skip: ArrayLike | None = None, constant: float = 0.0) -> Network:
        """From a torch ``Sequential`` (nested ones too) of Linear layers and piecewise-linear activations.

        BatchNorm1d takes its running statistics and Dropout does nothing, as in evaluation mode.

        Raises
        ------
        ModelError
            At a layer that is not linear in pieces; names its number and type.
        """
        return cls.from_arrays(_read_torch(module), skip=skip, constant=constant)

    @classmethod
    def from_safetensors(cls, path: str | Path, *, activation: Any = None) -> Network:
        """Read a file of :meth:`to_safetensors`, or a torch ``Sequential``'s saved state.

        Parameters
        ----------
        activation
            Between the layers of a file that does not say it (a plain torch state holds weights only).

        Raises
        ------
        ModelError
            When the file is missing, is not safetensors, or does not say its activations.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.exists():
            raise ModelError(f"{path}: no such file", "check the path.")
        try:
            with safe_open(str(path), framework="numpy") as file:
                metadata = file.metadata() or {}
                tensors = {name: np.asarray(file.get_tensor(name), dtype=np.float64) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ModelError(f"{path}: not a safetensors file ({error})", "save the network again.") from error
        prefixes = {name.rsplit(".", 1)[0] for name in tensors if name.endswith(".weight")}
        try:
            order = sorted(prefixes, key=lambda prefix: [int(part) for part in prefix.split(".") if part.isdigit()])
            said = json.loads(metadata[FORMAT]) if FORMAT in metadata else None
        except ValueError as error:
            raise ModelError(f"{path}: its metadata cannot be read ({error})", "save the network again.") from error
        if said is None and activation is None:
            raise ModelError(
                f"{path}: the file does not say which activations stand between its {len(order)} layers",
                "give them, e.g. Network.from_safetensors(path, activation='relu'), or save by to_safetensors.",
            )
        if said is not None and len(said.get("activations", [])) != len(order):
            raise ModelError(
                f"{path}: {len(order)} weights, {len(said.get('activations', []))} activations", "re-save."
            )
        rest = set(tensors) - {f"{p}.{kind}" for p in order for kind in ("weight", "bias")} - {"skip", "constant"}
        if rest:
            raise ModelError(f"{path}: {sorted(rest)[0]!r} belongs to no dense layer", WAY_OUT + ".")
        kinds = said["activations"] if said is not None else [activation] * (len(order) - 1) + ["linear"] * bool(order)
        layers = []
        for prefix, kind in zip(order, kinds, strict=True):
            weight = tensors[f"{prefix}.weight"]
            layers.append((weight, tensors.get(f"{prefix}.bias", np.zeros(len(weight))), kind))
        constant = tensors.get("constant", np.zeros(1))
        try:
            return cls.from_arrays(layers, skip=tensors.get("skip"), constant=float(constant.reshape(-1)[0]))
        except ModelError as error:
            raise ModelError(f"{path}: {error.message}", error.fix) from None

    @classmethod
    def from_onnx(cls, path: str | Path) -> Network:
        """From an ONNX chain of Gemm, MatMul, Add, Relu, LeakyRelu, Clip; see :mod:`rmab_opt.encoder.onnx_files`."""
        from rmab_opt.encoder.onnx_files import read_onnx

        return read_onnx(path)

    def to_onnx(self, path: str | Path) -> None:
        """Write as an ONNX graph (float64) with input ``x`` (batch, n) and output ``value`` (batch, 1)."""
        from rmab_opt.encoder.onnx_files import write_onnx

        write_onnx(self, path)

    def to_safetensors(self, path: str | Path) -> None:
        """Write weights, activations, skip and constant; :meth:`from_safetensors` gives the same network back."""
        from safetensors.numpy import save

        tensors: dict[str, np.ndarray] = {"skip": self.skip.copy(), "constant": np.array([self.constant])}
        for number, layer in enumerate(self._layers):
            tensors[f"{number}.weight"] = np.ascontiguousarray(layer.weight)
            tensors[f"{number}.bias"] = np.ascontiguousarray(layer.bias)
        said = {"activations": [layer.activation.spec() for layer in self._layers]}
        Path(path).write_bytes(save(tensors, metadata={FORMAT: json.dumps(said)}))

    # ---- reading
    @property
    def n_inputs(self) -> int:
        """Number of inputs."""
        return int(self.skip.size)

    def layers(self) -> list[tuple[Floats, Floats, Activation]]:
        """(weight, bias, activation) of every dense layer."""
        return [(layer.weight, layer.bias, layer.activation) for layer in self._layers]

    def __call__(self, inputs: ArrayLike) -> Any:
        """Values of inputs (..., n), shape (...); a float for one input vector.

        Raises
        ------
        ModelError
            When the last axis is not n long.
        """
        x = np.asarray(inputs, dtype=np.float64)
        if x.ndim == 0 or x.shape[-1] != self.n_inputs:
            raise ModelError(f"inputs have shape {x.shape}", f"give {self.n_inputs} numbers on the last axis.")
        value = x @ self.skip + self.constant
        h = x
        for layer in self._layers:
            h = layer.activation(h @ layer.weight.T + layer.bias)
        if self._layers:
            value = value + h[..., 0]
        return float(value) if value.ndim == 0 else value

    def fold(self, fixed: Mapping[int, float] | ArrayLike, values: ArrayLike | None = None) -> Network:
        """The network of the remaining inputs, in their order, with some inputs fixed.

        Parameters
        ----------
        fixed
            Position -> value, or the positions (with ``values``).

        Raises
        ------
        ModelError
            When a position is out of range or given twice, or a value is not finite.
        """
        if isinstance(fixed, Mapping):
            positions = np.fromiter(fixed.keys(), dtype=np.int64, count=len(fixed))
            numbers = np.fromiter(fixed.values(), dtype=np.float64, count=len(fixed))
        else:
            positions = np.asarray(fixed, dtype=np.int64).reshape(-1)
            numbers = np.asarray(values, dtype=np.float64).reshape(-1)
        if positions.shape != numbers.shape or len(np.unique(positions)) != len(positions):
            raise ModelError(f"{positions.size} positions and {numbers.size} values", "give each position one value.")
        if positions.size and not (positions.min() >= 0 and positions.max() < self.n_inputs):
            raise ModelError(
                f"input {positions.max()} of a network with {self.n_inputs} inputs", "count inputs from 0."
            )
        if not np.isfinite(numbers).all():
            bad = int(np.flatnonzero(~np.isfinite(numbers))[0])
            raise ModelError(f"input {positions[bad]} is fixed to {numbers[bad]}", "give finite values.")
        kept = np.setdiff1d(np.arange(self.n_inputs), positions)
        layers = list(self._layers)
        if layers:
            first = layers[0]
            bias = first.bias + first.weight[:, positions] @ numbers
            layers[0] = Layer(_shut(first.weight[:, kept]), _shut(bias), first.activation)
        return Network(layers, self.skip[kept], self.constant + float(self.skip[positions] @ numbers))

    @cached_property
    def reduced(self) -> Reduced:
        """The same function as layers of :class:`Hidden` and one linear read-out; linear layers are multiplied out."""
        return _reduce(self)

    def __repr__(self) -> str:
        widths = [self.n_inputs, *(layer.outputs for layer in self._layers)]
        return f"Network({' -> '.join(map(str, widths))}{', skip' if self.skip.any() else ''})"


@dataclass(frozen=True, eq=False)
class Reduced:
    """value = skip . x + constant + readout . h, with h the outputs of the last hidden layer."""

    hidden: tuple[Hidden, ...]
    readout: Floats
    """Shape (neurons of the last hidden layer,); empty without hidden layers."""
    skip: Floats
    constant: float

    def __call__(self, inputs: Floats) -> Floats:
        """Values of inputs (..., n)."""
        value = inputs @ self.skip + self.constant
        if self.hidden:
            h = inputs
            for layer in self.hidden:
                h = layer(h)
            value = value + h @ self.readout
        return value

    def preactivations(self, inputs: Floats) -> list[Floats]:
        """x of every hidden layer for inputs (..., n)."""
        found, h = [], inputs
        for layer in self.hidden:
            x = h @ layer.weight.T + layer.bias
            found.append(x)
            h = layer.slope * x + layer.gain * np.maximum(x, 0.0)
        return found


def _reduce(network: Network) -> Reduced:
    hidden: list[Hidden] = []
    # The next layer's input is matrix @ (last hidden outputs) + shift; None stands for the identity.
    matrix: Floats | None = None
    shift: Floats = np.zeros(network.n_inputs)
    for weight, bias, activation in network.layers():
        w = weight if matrix is None else weight @ matrix
        b = bias + weight @ shift
        n = len(b)
        if activation.name == "linear":
            matrix, shift = w, b
            continue
        if activation.name == "max":
            rounds, matrix, shift = _tournament(w, b, activation.group)
            hidden += rounds
            continue
        if activation.name == "clip":
            # clip(x) = lower + relu(x - lower) - relu(x - upper)
            w, b = np.concatenate([w, w]), np.concatenate([b - activation.lower, b - activation.upper])
            matrix = np.concatenate([np.eye(n), -np.eye(n)], axis=1)
            shift = np.full(n, activation.lower)
            slope, gain = np.zeros(2 * n), np.ones(2 * n)
        else:
            matrix, shift = None, np.zeros(n)
            low = activation.slope if activation.name == "leaky_relu" else 0.0
            slope, gain = np.full(n, low), np.full(n, 1.0 - low)
        hidden.append(Hidden(_shut(w), _shut(b), _shut(slope), _shut(gain)))
    skip, constant = network.skip, network.constant
    if not network.layers():
        return Reduced((), np.zeros(0), skip, constant)
    if matrix is None:
        matrix = np.eye(1)
    constant = constant + float(shift[0])
    if not hidden:
        return Reduced((), np.zeros(0), _shut(skip + matrix[0]), constant)
    return Reduced(tuple(hidden), _shut(matrix[0]), skip, constant)


def _tournament(weight: Floats, bias: Floats, group: int) -> tuple[list[Hidden], Floats, Floats]:
    """Layers that find the largest of every ``group`` rows, and how their last outputs add up to it.

    max(a, b) = b + relu(a - b), pair by pair; b is carried by a linear neuron, which costs no binary.
    """
    rounds: list[Hidden] = []
    matrix, shift = weight, bias
    size = group
    while size > 1:
        w, b = matrix.reshape(-1, size, matrix.shape[1]), shift.reshape(-1, size)
        n, half, odd = len(w), size // 2, size % 2
        first, second = (w[:, :half], b[:, :half]), (w[:, half : 2 * half], b[:, half : 2 * half])
        bends = ((first[0] - second[0]).reshape(n * half, -1), (first[1] - second[1]).reshape(-1))
        carried = (w[:, half:].reshape(n * (half + odd), -1), b[:, half:].reshape(-1))
        count = len(carried[1])
        rounds.append(
            Hidden(
                _shut(np.concatenate([bends[0], carried[0]])),
                _shut(np.concatenate([bends[1], carried[1]])),
                _shut(np.concatenate([np.zeros(n * half), np.ones(count)])),
                _shut(np.concatenate([np.ones(n * half), np.zeros(count)])),
            )
        )
        # The winners: a pair's carried neuron plus its bend; an odd one out is carried alone.
        size = half + odd
        matrix, shift = np.zeros((n * size, n * half + count)), np.zeros(n * size)
        at = np.arange(n * size)
        matrix[at, n * half + at] = 1.0
        paired = at.reshape(n, size)[:, :half].reshape(-1)
        matrix[paired, np.arange(n * half)] = 1.0
    return rounds, matrix, shift


def _shut(array: np.ndarray) -> Floats:
    array = np.array(array, dtype=np.float64)
    array.setflags(write=False)
    return array


def _closed(given: ArrayLike, what: str, ndim: int) -> Floats:
    """A read-only float64 copy of the right number of axes without NaN or infinity."""
    array = _shut(np.asarray(given, dtype=np.float64))
    if array.ndim != ndim or (ndim == 2 and 0 in array.shape):
        raise ModelError(f"{what} has shape {array.shape}", f"give an array with {ndim} non-empty axes.")
    if not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ModelError(
            f"{what} is {array[place]} at {list(place)}", "train again from the last checkpoint with finite weights."
        )
    return array


def _read_torch(module: Any) -> list[tuple[Floats, Floats, Any]]:
    """Layers of a torch module by the names of its parts' classes: torch itself is not imported."""

    def flat(part: Any) -> Iterable[Any]:
        if type(part).__name__ in ("Sequential", "ModuleList"):
            for child in part:
                yield from flat(child)
        else:
            yield part

    def numbers(tensor: Any) -> Floats:
        return np.asarray(tensor.detach().cpu().double().numpy())

    layers: list[tuple[Floats, Floats, Any]] = []
    for number, part in enumerate(flat(module)):
        kind = type(part).__name__
        if kind == "Linear":
            weight = numbers(part.weight)
            layers.append((weight, numbers(part.bias) if part.bias is not None else np.zeros(len(weight)), "linear"))
            continue
        if kind in ("Identity", "Dropout", "Flatten"):
            continue
        if kind == "BatchNorm1d" and part.running_mean is not None:
            scale = 1.0 / np.sqrt(numbers(part.running_var) + part.eps)
            scale = scale if part.weight is None else scale * numbers(part.weight)
            shift = 0.0 if part.bias is None else numbers(part.bias)
            layers.append((np.diag(scale), shift - scale * numbers(part.running_mean), "linear"))
            continue
        found = {
            "ReLU": lambda p: "relu",
            "LeakyReLU": lambda p: ("leaky_relu", float(p.negative_slope)),
            "Hardtanh": lambda p: ("clip", float(p.min_val), float(p.max_val)),
            "ReLU6": lambda p: ("clip", 0.0, 6.0),
        }.get(kind)
        if found is None:
            raise ModelError(f"layer {number} is a {kind}, which has no exact linear rows", WAY_OUT + ".")
        if not layers:
            raise ModelError(f"layer {number} is a {kind} before any dense layer", "begin with a Linear layer.")
        weight, bias, before = layers[-1]
        if before != "linear":
            size = len(bias)
            layers.append((np.eye(size), np.zeros(size), found(part)))
        else:
            layers[-1] = (weight, bias, found(part))
    if not layers:
        raise ModelError("the module has no dense layer", WAY_OUT + ".")
    return layers
