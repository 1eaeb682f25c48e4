"""What `encode` added to a model: every neuron's fate, bounds, variables and rows; and the way to the next state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmab_opt.encoder.bounds import Effort, Rising, rising
from rmab_opt.encoder.network import Network, Reduced, dense
from rmab_opt.encoder.rows import STATUSES, LayerRows, Rows
from rmab_opt.encoder.support import Support
from rmab_opt.errors import ModelError

__all__ = ["LARGE_M", "EncodingWarning", "Record", "binding"]

Floats = NDArray[np.float64]

LARGE_M = 1e4
"""Indicator rows with larger coefficients have given wrong optima within the solver's tolerances (solver.md)."""

HOPELESS_M = 1e9
"""Larger ones are refused on a model: with 1e12 HiGHS called a feasible one infeasible."""


class EncodingWarning(UserWarning):
    """The encoding is exact on paper but asks for numbers at the edge of the solver's tolerances."""


@dataclass
class Record:
    """Everything that an encoding added, printable as a tree.

    With ``reusable=True`` :meth:`update` computes the values of the block's Params for another network of the
    same shape (another state), so that nothing is built again.
    """

    network: Network
    """The network encoded last: at first the one given to ``encode``, later the one given to ``update``."""
    support: Support
    effort: Effort
    layers: list[LayerRows]
    output: tuple[float, float]
    """Bounds of the output over the inputs' polytope."""
    bounds: Rising
    """Bounds of every neuron and the effort each came from."""
    formulation: str = "big-m"
    arrays: Rows | None = None
    """The rows as arrays; None for a reusable encoding."""
    block: Any = None
    reusable: bool = False
    weights_change: bool = True
    variables: list[Any] = field(default_factory=list)
    """Pyomo variables added."""
    rows: list[Any] = field(default_factory=list)
    """Pyomo constraints added."""
    inner: list[np.ndarray] = field(default_factory=list, repr=False)
    """Positions of the neurons that carry Params, a layer."""

    @property
    def largest_m(self) -> float:
        """Largest bound that stands in an indicator row; 0 without binaries."""
        sizes = [
            max(abs(layer.lower[i]), abs(layer.upper[i]))
            for layer in self.layers
            for i, status in enumerate(layer.status)
            if status == "split"
        ]
        return float(max(sizes, default=0.0))

    @property
    def counts(self) -> dict[str, int]:
        """Neurons by status, then variables, binaries and rows added."""
        found = {status: sum(layer.count(status) for layer in self.layers) for status in STATUSES}
        return found | {
            "variables": sum(layer.variables for layer in self.layers),
            "binaries": sum(layer.binaries for layer in self.layers),
            "rows": sum(layer.rows for layer in self.layers),
        }

    def faults(self, points: ArrayLike) -> list[str]:
        """What is wrong with the encoding, by a forward pass of allowed input points (M, n); empty when right.

        Every pre-activation must lie within its bounds, and every point, completed by the forward pass, within all
        rows with the network's own value as output. Judged without a solver.
        """
        points = np.atleast_2d(np.asarray(points, dtype=np.float64))
        reduced = self.network.reduced
        checked = points
        if self.bounds.at_least is not None:
            checked = points[reduced(points) >= self.bounds.at_least]
        found = []
        reached = [*reduced.preactivations(checked), reduced(checked)[:, None]]
        for k, (x, (low, high)) in enumerate(zip(reached, self.bounds.layers, strict=True)):
            slack = 1e-9 * np.maximum(1.0, np.maximum(np.abs(low), np.abs(high)))
            for i in np.flatnonzero(((x < low - slack) | (x > high + slack)).any(axis=0)).tolist():
                what = f"neuron {i} of layer {k}" if k < len(reduced.hidden) else "the output"
                found.append(
                    f"an allowed action brings {what} to [{x[:, i].min():.6g}, {x[:, i].max():.6g}], "
                    f"bounds [{low[i]:.6g}, {high[i]:.6g}]"
                )
        return found + ([] if self.arrays is None else self.arrays.faults(reduced, points))

    def value(self, inputs: ArrayLike) -> Any:
        """The network's own value: what the encoded output must equal at these inputs (..., n)."""
        return self.network(inputs)

    def update(self, network: Network) -> dict[str, Floats]:
        """Values of the block's Params for another network of the same shape, bounds computed anew.

        Returns
        -------
        dict
            Param name in the block -> flat array in the Param's own order, for ``Session.parameters``.

        Raises
        ------
        ModelError
            When the encoding is not reusable, or something changed that has no Param: a later layer's weights, or
            first-layer weights with ``weights_change=False``.
        """
        if not self.reusable:
            raise ModelError("this encoding is for one network", "call encode(..., reusable=True).")
        if network is not self.network:
            self._check_same(network)
            self.bounds = rising(network, self.support, self.effort)
            found = self.bounds.layers
            self.network = network
            self.output = (float(found[-1][0][0]), float(found[-1][1][0]))
            for layer, (low, high) in zip(self.layers, found, strict=False):
                layer.lower, layer.upper = low, high
        return binding(self.network.reduced, self.layers, self.inner, self.weights_change)

    def _check_same(self, network: Network) -> None:
        old, new = self.network.reduced, network.reduced
        fix = "encode anew, or keep everything but the inputs' state as it is."
        if [h.weight.shape for h in old.hidden] != [h.weight.shape for h in new.hidden] or old.skip.shape != (
            new.skip.shape
        ):
            raise ModelError(f"{network!r} has another shape than {self.network!r}", fix)
        pairs = [] if self.weights_change else [("the skip", old.skip, new.skip)]
        for k, (a, b) in enumerate(zip(old.hidden, new.hidden, strict=True)):
            pairs += [(f"the activation of layer {k}", np.stack([a.slope, a.gain]), np.stack([b.slope, b.gain]))]
            if k or not self.weights_change:
                pairs += [(f"the weights of layer {k}", a.weight, b.weight)]
            if k:
                pairs += [(f"the bias of layer {k}", a.bias, b.bias)]
        pairs += [("the read-out weights", old.readout, new.readout)]
        for what, before, now in pairs:
            if not np.array_equal(before, now):
                raise ModelError(f"{what} changed, which this encoding holds fixed", fix)

    def __str__(self) -> str:
        def short(number: float) -> str:
            return f"{0.0 if abs(number) < 1e-9 else number:.6g}"

        counts = self.counts
        kind = "reusable" if self.reusable else "for one network"
        lines = [f"Encoding · {self.network!r} · {self.formulation} · {kind}"]
        for k, layer in enumerate(self.layers):
            said = ", ".join(f"{layer.count(s)} {s}" for s in STATUSES if layer.count(s))
            span = f"x in [{short(layer.lower.min())}, {short(layer.upper.max())}]"
            lines.append(f"├ layer {k}     {len(layer.status)} neurons: {said} · {span}")
        added = f"{counts['variables']} variables ({counts['binaries']} binary), {counts['rows']} rows"
        lines.append(f"├ added       {added} · largest M {short(self.largest_m)}")
        if self.arrays is not None and self.arrays.cuts:
            lines.append(f"├ cuts        {self.arrays.cuts}")
        came = self.bounds.counts()
        if came:
            solved = f" · {self.bounds.lps} LPs" if self.bounds.lps else ""
            lines.append(f"├ bounds      {', '.join(f'{count} by {name}' for name, count in came.items())}{solved}")
        lines.append(f"└ output      in [{short(self.output[0])}, {short(self.output[1])}]")
        return "\n".join(lines)


def binding(
    reduced: Reduced, layers: list[LayerRows], inner: list[np.ndarray], weights_change: bool
) -> dict[str, Floats]:
    """Param values of a reusable encoding: weights, biases, and the ranges of y, q and z that the bounds give."""
    values: dict[str, Floats] = {"constant": np.array([reduced.constant])}
    if weights_change:
        values["skip"] = reduced.skip.copy()
    if reduced.hidden:
        values["bias"] = reduced.hidden[0].bias.copy()
        if weights_change:
            values["weight"] = dense(reduced.hidden[0].weight).reshape(-1).copy()
    low = [layer.lower[at] for layer, at in zip(layers, inner, strict=True)]
    high = [layer.upper[at] for layer, at in zip(layers, inner, strict=True)]
    if sum(len(part) for part in low):
        lower, upper = np.concatenate(low), np.concatenate(high)
        values["largest"] = np.maximum(upper, 0.0)
        values["depth"] = np.maximum(-lower, 0.0)
        values["surely"] = (lower >= 0).astype(np.float64)
        values["maybe"] = (upper > 0).astype(np.float64)
        # An active neuron at exactly zero would ask for z >= 1 and z <= 0 when both ends are zero.
        values["maybe"] = np.maximum(values["maybe"], values["surely"])
    return values
