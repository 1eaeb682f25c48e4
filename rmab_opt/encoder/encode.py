"""Rows and variables that make an expression equal to a network's output on a Pyomo block."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rmab_opt.encoder.bounds import Bounds, Effort, Rising, masses, rising
from rmab_opt.encoder.network import Hidden, Judge, Network, Reduced, dense
from rmab_opt.encoder.record import LARGE_M, EncodingWarning, Record, binding
from rmab_opt.encoder.rows import KINDS, Formulation, LayerRows, Rows, assemble_rows
from rmab_opt.encoder.support import Support
from rmab_opt.encoder.trees import TreeEnsemble, encode_trees
from rmab_opt.errors import ModelError
from rmab_opt.solver.encoded import ATTRIBUTE, Encoded

__all__ = ["assemble", "encode"]

Floats = NDArray[np.float64]
Sense = Literal["maximise", "minimise", "equal"]

MERGED_SIZE = 4_000_000
"""Weights of a layer up to which duplicates are looked for."""


def encode(
    network: Any,
    block: Any,
    inputs: Any,
    *,
    effort: Effort = "auto",
    formulation: Formulation = "auto",
    at_least: float | None = None,
    reusable: bool = False,
    weights_change: bool = True,
    sense: Sense = "equal",
    support: Support | None = None,
) -> tuple[Any, Any]:
    """Add a network to a Pyomo block and return the expression of its output.

    A neuron whose pre-activation x has bounds l < 0 < u becomes y - q = x, 0 <= y <= u z, 0 <= q <= -l (1 - z)
    with a binary z, so that y = max(0, x) and q = max(0, -x). Neurons with one sign only vanish into the
    expressions of the next layer, multiples of one neuron are merged, and where the objective itself pushes a
    neuron onto its bend (``sense="maximise"``) the binary is left out.

    Parameters
    ----------
    network
        A :class:`Network` or :class:`TreeEnsemble`, or what :func:`rmab_opt.encoder.read_model` reads: a torch
        module, a list of (weight, bias, activation), the path of an ONNX or safetensors file, a fitted model of
        scikit-learn, XGBoost or LightGBM. Trees are written by :func:`rmab_opt.encoder.trees.encode_trees`, whose
        rows are exact in both directions; the options below are then not used.
    block
        Pyomo block or model that takes the variables and rows; the bounds come from the rows of the model it
        stands in, as far as they are built before this call.
    inputs
        One Pyomo variable, or number, an input of the network; an indexed Var counts in its index order.
    effort
        Of the bounds: ``interval``, ``linear``, ``lp``, ``cutoff`` or ``auto``; see
        :func:`rmab_opt.encoder.bounds.rising`.
    formulation
        ``big-m``, ``partition`` or ``cuts``; see :func:`rmab_opt.encoder.rows.assemble_rows`. ``auto`` is ``big-m``: on
        the trained networks of ``benchmarks/formulations.py`` cuts took 1.4 and the partitioned form 1.6 times its
        time on HiGHS, though they need 0.6 and 0.9 times its nodes.
    at_least
        A value the network is known to reach at an allowed point. Solutions worth less are cut off by a row, and
        with ``effort="cutoff"`` the bounds are tightened by it; only with ``sense="maximise"``.
    reusable
        Keep what another state changes as mutable Params (``bias``, ``constant``, bounds, and with
        ``weights_change`` also first-layer ``weight`` and ``skip``), and every neuron that may become unstable.
        ``record.update(network)`` gives their values for another network.
    weights_change
        Only with ``reusable``: False when other states change first-layer biases and the constant only, which is
        cheaper to build and to re-solve.
    sense
        What the model does with the output. ``equal`` (the default) holds its exact value at every feasible point and
        is right for every use. ``maximise`` and ``minimise`` may drop binaries, are faster where they do, and hold the
        value at an optimum in that sense, or in a row that limits the output from the other side. A
        :class:`Session` refuses a use that the rows were not made for, and points where the network, or the framework
        it was read from, says otherwise. Where bounds or rows of the inputs were widened after ``encode``, a new
        session writes the block's rows again and warns; a session that stands refuses the next solve.
    support
        In place of the one read from the model, for example of a larger set when rows will be loosened later.

    Returns
    -------
    tuple
        (output, :class:`Record`; of trees a :class:`TreeRecord`). The output is a named expression of the block.

    Raises
    ------
    ModelError
        When inputs do not match, an input has no finite bounds, or a layer cannot be encoded.

    Warns
    -----
    EncodingWarning
        When an indicator row needs a coefficient above 1e4.

    References
    ----------
    Big-M form of a ReLU: Fischetti and Jo (2018); bounds: see :mod:`rmab_opt.encoder.bounds`.

    Examples
    --------
    The best recipe of two ingredients under a limit, by a network that was trained on yields:

    >>> import pyomo.environ as pyo
    >>> model = pyo.ConcreteModel()
    >>> model.share = pyo.Var([0, 1], bounds=(0, 1))
    >>> model.limit = pyo.Constraint(expr=model.share[0] + model.share[1] <= 1)
    >>> model.taste = pyo.Block()
    >>> hidden = ([[2.0, -1.0], [-1.0, 3.0]], [0.0, -1.0], "relu")
    >>> network = Network.from_arrays([hidden, ([[1.0, 1.0]], [0.0], "linear")])
    >>> output, record = encode(network, model.taste, model.share, sense="maximise")
    >>> model.yields = pyo.Objective(expr=output, sense=pyo.maximize)
    >>> from rmab_opt.solver import Session
    >>> round(Session(model).solve().objective, 6)
    2.0
    >>> record.counts["binaries"]
    2
    """
    listed = list(inputs.values()) if hasattr(inputs, "is_indexed") and inputs.is_indexed() else list(inputs)
    network = _read(network, listed)
    if reusable and not isinstance(network, TreeEnsemble):
        if formulation not in ("auto", "big-m") or at_least is not None:
            raise ModelError(
                f"a reusable encoding by {formulation!r}" + ("" if at_least is None else " with a cut-off"),
                "use formulation='big-m' without at_least, or encode every state anew.",
            )
        return _reusable(network, block, listed, effort, weights_change, sense, support)

    def write() -> tuple[Any, Any, Encoded]:
        if isinstance(network, TreeEnsemble):
            return encode_trees(network, block, listed)
        own, variables, found = _inputs(network, block, listed, support)
        record = assemble(own, found, effort=effort, formulation=formulation, at_least=at_least, sense=sense)
        assert record.arrays is not None
        output, record.variables, record.rows = _write(record.arrays, block, variables)
        record.block = block
        return output, record, _promise(block, output, record, variables, sense)

    # A support of the caller's own is no reading of the model, which a second reading could put right.
    return _Placed(block, write, again=support is None).first()


class _Placed:
    """A model's rows on a block, written again when the set of its inputs was widened since."""

    def __init__(self, block: Any, write: Callable[[], tuple[Any, Any, Encoded]], again: bool) -> None:
        self.block, self.write, self.may = block, write, again
        self.output: Any = None
        self.record: Any = None
        self.added: list[Any] = []

    def first(self) -> tuple[Any, Any]:
        """The output, as a named expression that later writings change for all who use it, and the record."""
        import pyomo.environ as pyo
        from pyomo.common.modeling import unique_component_name

        expression, self.record = self._written()
        self.output = pyo.Expression(expr=expression)
        self.block.add_component(unique_component_name(self.block, "output"), self.output)
        return self.output, self.record

    def again(self) -> None:
        """Rows for the inputs' set as it is now, in place of the ones before."""
        for component in self.added:
            self.block.del_component(component)
        expression, record = self._written()
        self.output.set_value(expression)
        vars(self.record).update(vars(record))
        warnings.warn(
            f"the inputs of block {self.block.name!r} may take values that they could not at encode: its rows were "
            "written again for the set as it is now",
            EncodingWarning,
            stacklevel=2,
        )

    def _written(self) -> tuple[Any, Any]:
        before = {id(component) for component in self.block.component_objects(descend_into=False)}
        expression, record, promise = self.write()
        self.added = [c for c in self.block.component_objects(descend_into=False) if id(c) not in before]
        setattr(self.block, ATTRIBUTE, replace(promise, again=self.again if self.may else None))
        return expression, record


def _reusable(
    network: Network,
    block: Any,
    listed: list[Any],
    effort: Effort,
    weights_change: bool,
    sense: Sense,
    support: Support | None,
) -> tuple[Any, Record]:
    """What another state changes as mutable Params."""
    network, variables, support = _inputs(network, block, listed, support)
    found = rising(network, support, effort)
    pushed = _senses(network.reduced, sense)
    builder = _Reusable(block, variables, network.reduced, found.layers, pushed, weights_change)
    output, layers = builder.run()
    record = _recorded(network, support, effort, found, layers)
    _warn(record)
    record.reusable, record.weights_change, record.inner = True, weights_change, builder.inner
    record.variables, record.rows, record.block = builder.variables_added, builder.rows_added, block
    setattr(block, ATTRIBUTE, _promise(block, output, record, variables, sense))
    return output, record


def _promise(block: Any, output: Any, record: Record, inputs: list[Any], sense: Sense) -> Encoded:
    """What a session holds every solve against: direction, the inputs' set, and the network's own value."""
    from pyomo.repn import generate_standard_repn

    # Where every neuron keeps both rows the value is exact at every point, whatever sense was asked for.
    one_sided = record.bounds.at_least is not None or any(layer.count("one-sided") for layer in record.layers)
    terms = generate_standard_repn(output, compute_values=not record.reusable, quadratic=False)
    pairs = zip(terms.linear_vars, terms.linear_coefs, strict=True)
    support, network = record.support, record.network
    auxiliary = record.effort in ("lp", "cutoff") or bool(support.assignments)
    ends = np.array([variable.bounds for variable in inputs], dtype=float).reshape(-1, 2).T
    return Encoded(
        name=block.name,
        sense=sense if one_sided else "equal",
        inputs=inputs,
        # A support of the caller's own may be wider than the variables were.
        lower=np.fmin(ends[0], support.lower) if support.reading is None else ends[0],
        upper=np.fmax(ends[1], support.upper) if support.reading is None else ends[1],
        whole=[variable.is_integer() for variable in inputs] if support.reading is not None else [False] * len(inputs),
        terms=[(variable, float(number)) for variable, number in pairs if isinstance(number, int | float)],
        constant=0.0 if record.reusable else float(terms.constant),
        rows=record.rows,
        signs=[variable for variable in record.variables if variable.is_binary()],
        reading=None if support.reading is None else support.reading.used(len(inputs), auxiliary),
        value=None if record.reusable else lambda x, signs: float(network.reduced(x)),
        judged=None if record.reusable or network.judge is None else partial(_judged, network, network.judge),
    )


def _judged(network: Network, judge: Judge, point: Floats, signs: Floats) -> tuple[float, float]:
    """The framework's value at a point, and what rounding and the pieces of curves may add to it."""
    largest = max(float(mass.max(initial=0.0)) for mass in masses(network.reduced, Support.box(point, point)))
    return float(judge.forward(point[None])[0]), judge.relative * max(1.0, largest) + network.error


def assemble(
    network: Network,
    support: Support,
    *,
    effort: Effort = "auto",
    formulation: Formulation = "auto",
    at_least: float | None = None,
    sense: Sense = "maximise",
) -> Record:
    """The rows of :func:`encode` as arrays (``record.arrays``), without a Pyomo model; a few milliseconds.

    Parameters
    ----------
    network, support
        Over the same inputs.
    effort, formulation, at_least, sense
        See :func:`encode`.

    Raises
    ------
    ModelError
        When an option is unknown, or a cut-off is asked for another sense than ``maximise``.
    """
    if at_least is not None and sense != "maximise":
        raise ModelError(f"a cut-off from below with sense {sense!r}", "leave at_least out.")
    reduced, merged = merge_duplicates(network.reduced)
    # After merging: a sum of duplicates may be read with another sign than each of them.
    pushed = _senses(reduced, sense)
    found = rising(network, support, effort, at_least)
    chosen = "big-m" if formulation == "auto" else formulation
    rows = assemble_rows(
        reduced, found.layers, support, merged=merged, pushed=pushed, formulation=chosen, at_least=at_least
    )
    record = _recorded(network, support, effort, found, rows.layers)
    record.formulation, record.arrays = chosen, rows
    _warn(record)
    return record


def _warn(record: Record) -> None:
    if record.largest_m > LARGE_M:
        warnings.warn(
            f"the largest indicator coefficient is {record.largest_m:.3g}, above {LARGE_M:g}: solvers' tolerances may "
            "let wrong actions pass; scale the network, tighten the inputs' bounds, or use effort='lp'.",
            EncodingWarning,
            stacklevel=3,
        )


def _recorded(network: Network, support: Support, effort: Effort, found: Rising, layers: list[LayerRows]) -> Record:
    # Where curves were read as pieces, the model's own value may lie that much further out.
    output = (float(found.layers[-1][0][0]) - network.error, float(found.layers[-1][1][0]) + network.error)
    return Record(network=network, support=support, effort=effort, layers=layers, output=output, bounds=found)


def _senses(reduced: Reduced, sense: str) -> list[np.ndarray]:
    signs = {"maximise": 1, "minimise": -1, "equal": 0}
    if sense not in signs:
        raise ModelError(f"sense is {sense!r}", "use 'maximise', 'minimise' or 'equal'.")
    return _pushed(reduced, signs[sense])


def _read(given: Any, listed: list[Any]) -> Network | TreeEnsemble:
    """A model of any tool, compared with it over the box of these inputs."""
    if isinstance(given, Network | TreeEnsemble):
        return given
    from rmab_opt.encoder.read.models import read_model

    ends = [(v, v) if isinstance(v, int | float | np.number) else (v.lb, v.ub) for v in listed if v is not None]
    box = np.array(ends, dtype=np.float64).T if all(None not in pair for pair in ends) else None
    return read_model(given, box=None if box is None else (box[0], box[1]), n_inputs=len(listed))


def _inputs(
    network: Network, block: Any, listed: list[Any], support: Support | None
) -> tuple[Network, list[Any], Support]:
    """Numbers among the inputs folded in; the variables that remain, with their support."""
    if len(listed) != network.n_inputs:
        raise ModelError(f"{len(listed)} inputs for {network!r}", f"give {network.n_inputs}, in the network's order.")
    numbers = {i: float(v) for i, v in enumerate(listed) if isinstance(v, int | float | np.number)}
    variables = [v for i, v in enumerate(listed) if i not in numbers]
    for i, variable in enumerate(listed):
        if i not in numbers and not (hasattr(variable, "is_variable_type") and variable.is_variable_type()):
            raise ModelError(
                f"input {i} is a {type(variable).__name__}", "give a variable or a number; equate an expression to one."
            )
    if numbers:
        network = network.fold(numbers)
    if support is None:
        support = Support.from_model(block.model(), variables)
    elif support.n != len(variables):
        raise ModelError(f"the support is over {support.n} inputs, {len(variables)} are variables", "match them.")
    return network, variables, support


def merge_duplicates(reduced: Reduced) -> tuple[Reduced, list[dict[int, int]]]:
    """The same function with positive multiples of one neuron summed into the first of them.

    max(0, c x) = c max(0, x) for c > 0, so a multiple's outgoing weights go to the first neuron's, times c.
    Returns also, a layer, merged neuron -> the neuron that took it over; merged ones keep weight zero onwards.
    """
    hidden = list(reduced.hidden)
    merged: list[dict[int, int]] = []
    readout = reduced.readout
    for k, layer in enumerate(hidden):
        if layer.weight.shape[0] * layer.weight.shape[1] > MERGED_SIZE:
            merged.append({})
            continue
        full = np.column_stack([dense(layer.weight), layer.bias])
        size = np.linalg.norm(full, axis=1)
        unit = full / np.where(size > 0, size, 1.0)[:, None]
        taken: dict[int, int] = {}
        # Equal directions have equal shadows on any line: along it they stand side by side, and the first takes all.
        shadow = unit @ np.cos(np.arange(unit.shape[1]) + 1.0)
        order = np.argsort(shadow, kind="stable")
        near = np.flatnonzero(np.diff(shadow[order]) <= 1e-12)
        for i, j in zip(order[near].tolist(), order[near + 1].tolist(), strict=True):
            same = size[i] > 0 and size[j] > 0 and np.abs(unit[i] - unit[j]).max() <= 1e-14
            if same and layer.slope[i] == layer.slope[j] and layer.gain[i] == layer.gain[j]:
                taken[j] = taken.get(i, i)
        merged.append(taken)
        if not taken:
            continue
        into = readout[None].copy() if k + 1 == len(hidden) else dense(hidden[k + 1].weight).copy()
        for j, i in taken.items():
            into[:, i] += into[:, j] * (size[j] / size[i])
            into[:, j] = 0.0
        if k + 1 == len(hidden):
            readout = into[0]
        else:
            after = hidden[k + 1]
            hidden[k + 1] = Hidden(into, after.bias, after.slope, after.gain)
    return Reduced(tuple(hidden), readout, reduced.skip, reduced.constant), merged


def _pushed(reduced: Reduced, sense: int) -> list[np.ndarray]:
    """Neurons whose max(0, x) the objective pushes down by itself, a layer; bool (neurons,).

    The output falls with y = max(0, x) when all paths from y to the output together never let it rise. Then two rows
    y >= x, y >= 0 are enough: the true value is feasible, and no feasible point claims more than it.
    """
    found: list[np.ndarray] = [np.zeros(0, dtype=bool)] * len(reduced.hidden)
    if sense == 0:
        return [np.zeros(len(layer.bias), dtype=bool) for layer in reduced.hidden]
    # Whether the output may rise, or fall, with each neuron's h.
    rises: Any = sense * reduced.readout > 0
    falls: Any = sense * reduced.readout < 0
    for k in range(len(reduced.hidden) - 1, -1, -1):
        layer = reduced.hidden[k]
        found[k] = np.where(layer.gain > 0, ~rises, ~falls) & (layer.gain != 0)
        if k == 0:
            break
        # h rises with x when both slopes are not negative; a neuron with mixed slopes may do either.
        low, high = layer.slope, layer.slope + layer.gain
        up, down = (low >= 0) & (high >= 0), (low <= 0) & (high <= 0)
        x_rises = (rises & ~down) | (falls & ~up)
        x_falls = (falls & ~down) | (rises & ~up)
        # Counts of the paths of either kind; sparse weights stay sparse.
        positive, negative = ((layer.weight * way > 0).astype(np.float64).T for way in (1, -1))
        rises, falls = positive @ x_rises + negative @ x_falls > 0, positive @ x_falls + negative @ x_rises > 0
    return found


def _write(rows: Rows, block: Any, inputs: list[Any]) -> tuple[Any, list[Any], list[Any]]:
    """The arrays as Pyomo components of a block: the output's expression, variables and rows."""
    import pyomo.environ as pyo
    from pyomo.core.expr import LinearExpression

    homes = [pyo.Var(pyo.Any, dense=False, domain=pyo.Binary if kind == "sign" else pyo.Reals) for kind in KINDS]
    for kind, home in zip(KINDS, homes, strict=True):
        block.add_component(kind, home)
    block.rows = pyo.ConstraintList()
    variables = []
    names = zip(rows.kind.tolist(), rows.layer.tolist(), rows.neuron.tolist(), rows.group.tolist(), strict=True)
    for (kind, *name), low, high in zip(names, rows.lower.tolist(), rows.upper.tolist(), strict=True):
        variable = homes[kind][tuple(name) if KINDS[kind] == "part" else tuple(name[:2])]
        variable.setlb(low)
        variable.setub(high)
        variables.append(variable)
    everyone = [*inputs, *variables]

    def expression(columns: list[int], numbers: list[float], constant: float = 0.0) -> Any:
        return LinearExpression(constant=constant, linear_coefs=numbers, linear_vars=[everyone[j] for j in columns])

    added = []
    matrix = rows.matrix
    for i in range(matrix.shape[0]):
        part = slice(matrix.indptr[i], matrix.indptr[i + 1])
        body = expression(matrix.indices[part].tolist(), matrix.data[part].tolist())
        low, high = float(rows.row_lower[i]), float(rows.row_upper[i])
        if not matrix.data[part].size:
            if low > 0 or high < 0:
                raise ModelError("a row without variables cannot hold", "the inputs' set is empty; check its rows.")
            continue
        added.append(
            block.rows.add(body == high)
            if low == high
            else block.rows.add((low if np.isfinite(low) else None, body, high if np.isfinite(high) else None))
        )
    at = np.flatnonzero(rows.cost)
    return expression(at.tolist(), rows.cost[at].tolist(), rows.constant), variables, added


class _Reusable:
    """State-dependent numbers as mutable Params; every neuron with a bend keeps its variables."""

    def __init__(
        self,
        block: Any,
        variables: list[Any],
        reduced: Reduced,
        found: Bounds,
        pushed: list[np.ndarray],
        weights_change: bool,
    ) -> None:
        self.block, self.inputs, self.reduced, self.found = block, variables, reduced, found
        self.pushed, self.weights_change = pushed, weights_change
        self.variables_added: list[Any] = []
        self.rows_added: list[Any] = []
        self.layers: list[LayerRows] = []
        self.inner = [np.flatnonzero(layer.gain != 0) for layer in reduced.hidden]

    def run(self) -> tuple[Any, list[LayerRows]]:
        """The output's expression and a record a layer."""
        import pyomo.environ as pyo
        from pyomo.core.expr import LinearExpression

        block, reduced = self.block, self.reduced
        self.layers = [
            LayerRows(
                [
                    "linear" if g == 0 else "one-sided" if p else "split"
                    for g, p in zip(layer.gain, pushed, strict=True)
                ],
                *ends,
            )
            for layer, pushed, ends in zip(reduced.hidden, self.pushed, self.found, strict=False)
        ]
        self._params()
        bends = [(k, int(i)) for k, part in enumerate(self.inner) for i in part]
        block.rows = pyo.ConstraintList()
        block.positive, block.negative = pyo.Var(range(len(bends))), pyo.Var(range(len(bends)))
        split = [b for b, (k, i) in enumerate(bends) if self.layers[k].status[i] == "split"]
        block.sign = pyo.Var(split, domain=pyo.Binary)
        number = {bend: b for b, bend in enumerate(bends)}
        h: list[tuple[Any, ...]] = []
        for k, layer in enumerate(reduced.hidden):
            following: list[tuple[Any, ...]] = []
            for i in range(len(layer.bias)):
                x = self._below(k, i, h)
                b = number.get((k, i))
                if b is None:
                    following.append((float(layer.slope[i]) * x,))
                    continue
                y, q = self._bend(k, i, b, x)
                # h = slope (y - q) + gain y
                slope = float(layer.slope[i])
                whole = slope + float(layer.gain[i])
                following.append((whole * y,) if slope == 0 else (whole * y, -slope * q))
            h = following
        n = len(self.inputs)
        skip = [block.skip[j] for j in range(n)] if self.weights_change else reduced.skip.tolist()
        at = [j for j in range(n) if self.weights_change or skip[j] != 0]
        output = LinearExpression(
            constant=block.constant, linear_coefs=[skip[j] for j in at], linear_vars=[self.inputs[j] for j in at]
        )
        terms = [float(w) * term for w, terms in zip(reduced.readout, h, strict=True) if w for term in terms]
        return output + sum(terms) if terms else output, self.layers

    def _params(self) -> None:
        """What another state changes, as mutable Params of the block."""
        import pyomo.environ as pyo

        for name, numbers in binding(self.reduced, self.layers, self.inner, self.weights_change).items():
            if name == "constant":
                self.block.constant = pyo.Param(mutable=True, domain=pyo.Reals, initialize=float(numbers[0]))
                continue
            data = dict(enumerate(numbers.tolist()))
            self.block.add_component(name, pyo.Param(range(len(data)), mutable=True, domain=pyo.Reals, initialize=data))

    def _below(self, k: int, i: int, h: list[tuple[Any, ...]]) -> Any:
        """Pre-activation of neuron i of layer k, an expression in the terms of the layer before."""
        from pyomo.core.expr import LinearExpression

        layer, n = self.reduced.hidden[k], len(self.inputs)
        row = dense(layer.weight[[i]])[0]
        if k:
            return float(layer.bias[i]) + sum(
                float(w) * term for w, terms in zip(row, h, strict=True) if w for term in terms
            )
        weights = [self.block.weight[i * n + j] for j in range(n)] if self.weights_change else row.tolist()
        kept = [j for j in range(n) if self.weights_change or weights[j] != 0]
        return LinearExpression(
            constant=self.block.bias[i],
            linear_coefs=[weights[j] for j in kept],
            linear_vars=[self.inputs[j] for j in kept],
        )

    def _bend(self, k: int, i: int, b: int, x: Any) -> tuple[Any, Any]:
        """Variables of the parts of x above and below zero, with their rows; b counts neurons with a bend."""
        block, layer = self.block, self.layers[k]
        y, q = block.positive[b], block.negative[b]
        y.setlb(0.0)
        y.setub(block.largest[b])
        q.setlb(0.0)
        q.setub(block.depth[b])
        self.variables_added += [y, q]
        rows = [y - q == x]
        if layer.status[i] == "split":
            z = block.sign[b]
            z.setlb(block.surely[b])
            z.setub(block.maybe[b])
            self.variables_added.append(z)
            rows += [y <= block.largest[b] * z, q <= block.depth[b] * (1 - z)]
            layer.binaries += 1
        self.rows_added += [block.rows.add(row) for row in rows]
        layer.variables += 2 + (layer.status[i] == "split")
        layer.rows += len(rows)
        return y, q
