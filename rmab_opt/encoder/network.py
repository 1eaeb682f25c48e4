"""A trained piecewise-linear network as plain arrays: no framework, no state, one scalar output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmab_opt.errors import ModelError

__all__ = ["Activation", "Hidden", "Layer", "Matrix", "Network", "dense", "stacked"]

Floats = NDArray[np.float64]
Matrix = Any
"""Weights: a dense array, or a scipy sparse one where a layer reads few of its inputs, as messages on a graph do."""

INPUTS = -1
"""Source of a link that begins at the network's inputs."""

WAY_OUT = (
    "use Linear, convolution, ReLU and its kin, pooling, BatchNorm, Dropout or Flatten layers and sums of them "
    "(docs/encoder.md lists all), or give the weights by Network.from_arrays"
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
    """One layer: activation(weight @ x + bias + sum of link @ output of an earlier layer)."""

    weight: Matrix
    """Shape (outputs, inputs)."""
    bias: Floats
    """Shape (outputs,)."""
    activation: Activation
    links: tuple[tuple[int, Matrix], ...] = ()
    """(number of an earlier layer, or -1 for the inputs; matrix (outputs, its outputs)): residual connections."""

    @property
    def outputs(self) -> int:
        """Width of what the next layer reads."""
        return int(self.weight.shape[0]) // self.activation.group


@dataclass(frozen=True, eq=False)
class Hidden:
    """One layer in the form every other module works on: h = slope * x + gain * max(0, x), x = weight @ input + bias.

    ReLU is slope 0 and gain 1, a linear neuron slope 1 and gain 0, leaky ReLU slope s and gain 1 - s; a clipped
    neuron is two ReLU neurons, one after the other. Slope and gain are per neuron, so one layer may mix them.
    """

    weight: Matrix
    """Shape (neurons, inputs)."""
    bias: Floats
    """Shape (neurons,)."""
    slope: Floats
    """Shape (neurons,)."""
    gain: Floats
    """Shape (neurons,); zero where the neuron is linear."""

    def __call__(self, values: Floats) -> Floats:
        """Outputs for inputs (..., inputs)."""
        x = _times(values, self.weight) + self.bias
        return self.slope * x + self.gain * np.maximum(x, 0.0)


class Judge(NamedTuple):
    """The forward pass of the framework that a model was read from."""

    forward: Callable[[Floats], Floats]
    """Values (P,) of points (P, n)."""
    relative: float
    """Rounding, relative to the largest sum of terms in the model."""

    @classmethod
    def of(cls, forward: Callable[[Floats], Floats], size: int, output: Any, relative: float) -> Judge | None:
        """Of a framework's outputs (P, size) where the value is one of them; else None."""
        plain = isinstance(output, int | np.integer) and not isinstance(output, bool)
        if not plain and not (output is None and size == 1):
            return None
        column = 0 if output is None else int(output)
        return cls(
            lambda points: np.asarray(forward(points), dtype=np.float64).reshape(len(points), -1)[:, column], relative
        )


class Network:
    """A network with one output: value = skip . x + constant + head(x), in float64.

    Parameters
    ----------
    layers
        Layers of ``head``; the last has one output. None for a linear function.
    skip
        Shape (n,), straight from the inputs to the output; zero by default.
    constant
        Added to the output.
    error
        How far the value may be from that of the model it was read from, where curves were read as pieces.

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

    def __init__(
        self, layers: Iterable[Layer], skip: ArrayLike | None = None, constant: float = 0.0, error: float = 0.0
    ) -> None:
        self._layers = tuple(layers)
        self.error = float(error)
        """Largest difference from the model it was read from; 0 when it was read exactly."""
        self.judge: Judge | None = None
        """The forward pass of the framework it was read from, where there is one; pickling drops it."""
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
            for source, link in layer.links:
                if not INPUTS <= source < number - 1:
                    raise ModelError(
                        f"layer {number} links to layer {source}",
                        f"link to layers -1 (the inputs) to {number - 2}; the one before is its weight.",
                    )
                given = n if source == INPUTS else self._layers[source].outputs
                if link.shape != (layer.weight.shape[0], given):
                    raise ModelError(
                        f"the link from layer {source} to layer {number} has shape {link.shape}",
                        f"give ({layer.weight.shape[0]}, {given}).",
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
        links: Mapping[tuple[int, int], Any] | None = None,
    ) -> Network:
        """From (weight (outputs, inputs), bias (outputs,), activation) a layer; see :meth:`Activation.of`.

        Weights may be scipy sparse arrays, which stay sparse through bounds and rows.

        Parameters
        ----------
        links
            Residual connections: (source, target) -> matrix (neurons of target, outputs of source), or None for the
            identity. Layer ``target`` adds it, times the outputs of layer ``source`` (-1: the inputs), before its
            activation.
        """
        made = []
        links = {} if links is None else links
        widths: list[int] = []
        for number, (weight, bias, activation) in enumerate(layers):
            kind = Activation.of(activation)
            where = f"layer {number} (dense, {kind.name})"
            w, b = _closed(weight, f"{where}: weight", 2), _closed(bias, f"{where}: bias", 1)
            if number == 0:
                widths.append(w.shape[1])
            mine = []
            for (source, target), link in links.items():
                if target != number:
                    continue
                if link is None:
                    wide = widths[source + 1] if INPUTS <= source < number else len(b)
                    if wide != len(b):
                        raise ModelError(
                            f"{where}: an identity from {wide} outputs to {len(b)} neurons", "give the link's matrix."
                        )
                    link = _selector(np.arange(wide), wide, sparse.issparse(w))
                mine.append((int(source), _closed(link, f"{where}: link", 2)))
            if b.shape != (w.shape[0],):
                raise ModelError(
                    f"{where}: bias has {b.size} entries, weight {w.shape[0]} rows", "give one a row of the weight."
                )
            made.append(Layer(w, b, kind, tuple(mine)))
            widths.append(made[-1].outputs)
        lost = [target for _, target in links if not 0 <= target < len(made)]
        if lost:
            raise ModelError(f"a link to layer {lost[0]} of {len(made)}", "count layers from 0.")
        return cls(made, skip, constant)

    @classmethod
    def linear(cls, skip: ArrayLike, constant: float = 0.0) -> Network:
        """The linear function skip . x + constant."""
        return cls([], skip, constant)

    @classmethod
    def from_torch(
        cls,
        module: Any,
        *,
        shape: Sequence[int] | None = None,
        output: Any = None,
        box: tuple[ArrayLike, ArrayLike] | None = None,
        smooth: float | None = None,
    ) -> Network:
        """From a torch module in evaluation mode, traced by ``torch.fx``; docs/encoder.md lists all that is read.

        What is not on the list is refused with its name. What is read is held against the module's own forward pass
        at 64 inputs before it is returned.

        Parameters
        ----------
        shape
            Of one example, when it cannot be told from the first layer, as for convolutions: (channels, height, width).
        output
            Which number of several: its position, one weight an output, ``("margin", k)`` for output k minus the
            largest other one (also where the module ends in softmax: in log-odds), or ``"logit"`` of a last sigmoid.
        box
            Lower and upper ends of the inputs, over which the comparison is spread.
        smooth
            Reads sigmoid, tanh, softplus, SiLU, GELU, ELU and Hardswish as linear pieces that are at most this far off
            a neuron; ``network.error`` then bounds how far its value is off. None refuses them.

        Raises
        ------
        ModelError
            At anything that is not on the list; names its number and type. At a difference from the module's own
            forward pass; names the first layer that differs.
        """
        from rmab_opt.encoder.read.torch_modules import read_torch

        return read_torch(module, shape=shape, output=output, box=box, smooth=smooth)

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
        from rmab_opt.encoder.read.safetensors_files import read_safetensors

        return read_safetensors(path, activation=activation)

    @classmethod
    def from_onnx(
        cls,
        path: str | Path,
        *,
        shape: Sequence[int] | None = None,
        output: Any = None,
        box: tuple[ArrayLike, ArrayLike] | None = None,
        smooth: float | None = None,
    ) -> Network:
        """From an ONNX file, under the same terms and arguments as :meth:`from_torch`.

        ``output`` may also be the name of one of several outputs of the graph. The comparison is with onnxruntime
        where it is installed, else with the reference evaluator of the package onnx.
        """
        from rmab_opt.encoder.read.onnx_files import read_onnx

        return read_onnx(path, shape=shape, output=output, box=box, smooth=smooth)

    def to_onnx(self, path: str | Path) -> None:
        """Write as an ONNX graph (float64) with input ``x`` (batch, n) and output ``value`` (batch, 1)."""
        from rmab_opt.encoder.read.onnx_files import write_onnx

        write_onnx(self, path)

    def to_safetensors(self, path: str | Path) -> None:
        """Write weights, activations, skip and constant; :meth:`from_safetensors` gives the same network back."""
        from rmab_opt.encoder.read.safetensors_files import write_safetensors

        write_safetensors(self, path)

    # ---- reading
    @property
    def n_inputs(self) -> int:
        """Number of inputs."""
        return int(self.skip.size)

    def layers(self) -> list[tuple[Any, Floats, Activation]]:
        """(weight, bias, activation) of every layer; :meth:`links` are the rest of it."""
        return [(layer.weight, layer.bias, layer.activation) for layer in self._layers]

    def links(self) -> dict[tuple[int, int], Any]:
        """(source, target) -> matrix of every residual connection; source -1 are the inputs."""
        return {(source, k): link for k, layer in enumerate(self._layers) for source, link in layer.links}

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
        reached = [x]
        for layer in self._layers:
            z = _times(h, layer.weight) + layer.bias
            for source, link in layer.links:
                z = z + _times(reached[source + 1], link)
            h = layer.activation(z)
            reached.append(h)
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
        for number, layer in enumerate(layers):
            ends = [source for source, _ in layer.links]
            if number and INPUTS not in ends:
                continue
            weight, bias = layer.weight, layer.bias
            if number == 0:
                bias, weight = bias + weight[:, positions] @ numbers, _shut(weight[:, kept])
            links = []
            for source, link in layer.links:
                if source == INPUTS:
                    bias, link = bias + link[:, positions] @ numbers, _shut(link[:, kept])
                links.append((source, link))
            layers[number] = Layer(weight, _shut(bias), layer.activation, tuple(links))
        folded = Network(layers, self.skip[kept], self.constant + float(self.skip[positions] @ numbers), self.error)
        if self.judge is not None:
            judge, n = self.judge, self.n_inputs

            def forward(points: Floats) -> Floats:
                whole = np.zeros((len(points), n))
                whole[:, kept], whole[:, positions] = points, numbers
                return judge.forward(whole)

            folded.judge = Judge(forward, judge.relative)
        return folded

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "judge": None}

    @cached_property
    def reduced(self) -> Reduced:
        """The same function as layers of :class:`Hidden` and one linear read-out; linear layers are multiplied out."""
        return _Reducer(self).run()

    def __repr__(self) -> str:
        widths = [self.n_inputs, *(layer.outputs for layer in self._layers)]
        linked = sum(len(layer.links) for layer in self._layers)
        more = (", skip" if self.skip.any() else "") + (f", {linked} links" if linked else "")
        return f"Network({' -> '.join(map(str, widths))}{more})"


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

    def dense(self) -> Reduced:
        """The same function with dense weights, for those who need them."""
        if not any(sparse.issparse(layer.weight) for layer in self.hidden):
            return self
        hidden = tuple(Hidden(_shut(dense(part.weight)), part.bias, part.slope, part.gain) for part in self.hidden)
        return Reduced(hidden, self.readout, self.skip, self.constant)

    def preactivations(self, inputs: Floats) -> list[Floats]:
        """x of every hidden layer for inputs (..., n)."""
        found, h = [], inputs
        for layer in self.hidden:
            x = _times(h, layer.weight) + layer.bias
            found.append(x)
            h = layer.slope * x + layer.gain * np.maximum(x, 0.0)
        return found


class _Reducer:
    """Layers of :class:`Hidden` one after another, with what later layers still need carried by linear neurons.

    The value of a layer is (matrix, shift) over the outputs of the last Hidden; matrix None stands for the identity.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.hidden: list[Hidden] = []
        self.pending: dict[int, tuple[Matrix, Floats]] = {}
        """Target layer -> the part of its pre-activation that links have added so far."""

    def run(self) -> Reduced:
        layers = self.network._layers
        skip, constant = self.network.skip, self.network.constant
        if not layers:
            return Reduced((), np.zeros(0), skip, constant)
        matrix: Matrix | None = None
        shift: Floats = np.zeros(self.network.n_inputs)
        last = len(layers) - 1
        if layers[last].activation.name == "linear":
            # What goes straight from the inputs to the output needs no neuron to carry it.
            for source, link in layers[last].links:
                if source == INPUTS:
                    skip = skip + dense(link)[0]
        self._link(INPUTS, None, shift)
        for k, layer in enumerate(layers):
            w = layer.weight if matrix is None else layer.weight @ matrix
            b = layer.bias + layer.weight @ shift
            if k in self.pending:
                part, moved = self.pending.pop(k)
                w, b = w + part, b + moved
            activation, n = layer.activation, len(b)
            if activation.name == "linear":
                matrix, shift = w, b
            elif activation.name == "max":
                matrix, shift = self._tournament(w, b, activation.group)
            elif activation.name == "clip":
                # clip(x) = upper - relu((upper - lower) - relu(x - lower)): one after the other, so that interval
                # bounds know the range; the difference of two side by side loses it and grows from layer to layer.
                span = activation.upper - activation.lower
                back = self._bend(w, b - activation.lower, np.zeros(n), np.ones(n))
                back = self._bend(-back, np.full(n, span), np.zeros(n), np.ones(n))
                matrix, shift = -back, np.full(n, activation.upper)
            else:
                low = activation.slope if activation.name == "leaky_relu" else 0.0
                alone = not self.pending
                back = self._bend(w, b, np.full(n, low), np.full(n, 1.0 - low))
                matrix, shift = None if alone else back, np.zeros(n)
            self._link(k, matrix, shift)
        constant = constant + float(shift[0])
        readout = np.ones(1) if matrix is None else dense(matrix[[0]])[0]
        if not self.hidden:
            return Reduced((), np.zeros(0), _shut(skip + readout), constant)
        return Reduced(tuple(self.hidden), _shut(readout), _shut(skip), constant)

    def _link(self, source: int, matrix: Matrix | None, shift: Floats) -> None:
        """Add a finished layer's outputs to the pre-activations that link to it."""
        layers = self.network._layers
        for target, layer in enumerate(layers):
            for start, link in layer.links:
                straight = source == INPUTS and target == len(layers) - 1 and layer.activation.name == "linear"
                if start != source or straight:
                    continue
                part, moved = link if matrix is None else link @ matrix, link @ shift
                if target in self.pending:
                    part, moved = self.pending[target][0] + part, self.pending[target][1] + moved
                self.pending[target] = (part, moved)

    def _bend(self, weight: Matrix, bias: Floats, slope: Floats, gain: Floats) -> Matrix:
        """Append one Hidden of these neurons and what is carried past them; the neurons as rows over its outputs."""
        n = len(bias)
        carried = [part for part, _ in self.pending.values()]
        wide = n + sum(part.shape[0] for part in carried)
        at = n
        for target, (part, moved) in self.pending.items():
            rows = part.shape[0]
            self.pending[target] = (_selector(np.arange(at, at + rows), wide, sparse.issparse(weight)), moved)
            at += rows
        more = wide - n
        self.hidden.append(
            Hidden(
                _shut(stacked([weight, *carried])),
                _shut(np.concatenate([bias, np.zeros(more)])),
                _shut(np.concatenate([slope, np.ones(more)])),
                _shut(np.concatenate([gain, np.zeros(more)])),
            )
        )
        return _selector(np.arange(n), wide, sparse.issparse(weight))

    def _tournament(self, weight: Matrix, bias: Floats, group: int) -> tuple[Matrix, Floats]:
        """Layers that find the largest of every ``group`` rows: the winners over the last one's outputs.

        max(a, b) = b + relu(a - b), pair by pair; b is carried by a linear neuron, which costs no binary.
        """
        matrix, shift, size = weight, bias, group
        while size > 1:
            half, odd = size // 2, size % 2
            rows = np.arange(matrix.shape[0]).reshape(-1, size)
            n = len(rows)
            first, second = rows[:, :half].reshape(-1), rows[:, half : 2 * half].reshape(-1)
            kept = rows[:, half:].reshape(-1)
            back = self._bend(
                stacked([matrix[first] - matrix[second], matrix[kept]]),
                np.concatenate([shift[first] - shift[second], shift[kept]]),
                np.concatenate([np.zeros(n * half), np.ones(len(kept))]),
                np.concatenate([np.ones(n * half), np.zeros(len(kept))]),
            )
            # The winners: a pair's carried neuron plus its bend; an odd one out is carried alone.
            size = half + odd
            paired = np.arange(n * size).reshape(n, size)[:, :half].reshape(-1)
            spread = _selector(paired, n * size, sparse.issparse(back)).T
            matrix, shift = back[n * half :] + spread @ back[: n * half], np.zeros(n * size)
        return matrix, shift


def _selector(columns: np.ndarray, wide: int, sparse_rows: bool) -> Matrix:
    """Rows of the identity: entry ``columns[i]`` of ``wide`` in row i."""
    at = np.arange(len(columns))
    if sparse_rows:
        return sparse.csr_array((np.ones(len(columns)), (at, columns)), shape=(len(columns), wide))
    chosen = np.zeros((len(columns), wide))
    chosen[at, columns] = 1.0
    return chosen


def dense(matrix: Matrix) -> Floats:
    """As a dense array."""
    return matrix.toarray() if sparse.issparse(matrix) else matrix


def stacked(parts: Sequence[Matrix]) -> Matrix:
    """Rows below one another: sparse when the first part is, as the layer's own weight comes first."""
    if len(parts) > 1 and sparse.issparse(parts[0]):
        return sparse.csr_array(sparse.vstack([sparse.csr_array(part) for part in parts]))
    return np.concatenate([dense(part) for part in parts]) if len(parts) > 1 else parts[0]


def _times(values: Floats, weight: Matrix) -> Floats:
    """values (..., inputs) @ weight.T, (..., neurons)."""
    if not sparse.issparse(weight):
        return values @ weight.T
    flat = values.reshape(-1, values.shape[-1])
    return np.asarray((weight @ flat.T).T).reshape(*values.shape[:-1], weight.shape[0])


def _shut(array: Any) -> Any:
    if sparse.issparse(array):
        kept = sparse.csr_array(array, dtype=np.float64, copy=True)
        kept.sum_duplicates()
        kept.data.setflags(write=False)
        return kept
    array = np.array(array, dtype=np.float64)
    array.setflags(write=False)
    return array


def _closed(given: Any, what: str, ndim: int) -> Any:
    """A read-only float64 copy of the right number of axes without NaN or infinity; sparse stays sparse."""
    if sparse.issparse(given):
        kept = _shut(given)
        if not np.isfinite(kept.data).all():
            raise ModelError(f"{what} holds NaN or infinity", "train again from the last checkpoint.")
        return kept
    array = _shut(np.asarray(given, dtype=np.float64))
    if array.ndim != ndim or (ndim == 2 and 0 in array.shape):
        raise ModelError(f"{what} has shape {array.shape}", f"give an array with {ndim} non-empty axes.")
    if not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ModelError(
            f"{what} is {array[place]} at {list(place)}", "train again from the last checkpoint with finite weights."
        )
    return array
