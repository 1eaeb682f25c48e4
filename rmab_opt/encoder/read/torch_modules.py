"""Torch modules read through torch.fx: an allow-list by exact type, function and complete argument list."""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from rmab_opt.encoder.network import WAY_OUT, Judge, Network
from rmab_opt.encoder.read import torch_calls as calls
from rmab_opt.encoder.read.compare import Box, compare, finite, spread
from rmab_opt.encoder.read.tape import Head, Tape, Value
from rmab_opt.errors import ModelError

__all__ = ["read_torch"]

Floats = NDArray[np.float64]

RELATIVE = 1e-9
"""Rounding of float64 forward passes, relative to the largest sum of terms."""


def read_torch(
    module: Any,
    *,
    shape: Sequence[int] | None = None,
    output: Any = None,
    box: Box | None = None,
    smooth: float | None = None,
    n_inputs: int | None = None,
) -> Network:
    """A network from a torch module in evaluation mode; see :meth:`Network.from_torch`.

    Raises
    ------
    ModelError
        At anything that is not on the list, with its name; at a difference from the module's own forward pass.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f"a {type(module).__name__} is neither a torch module nor a model of a class that is read",
            "give one (docs/encoder.md lists them), arrays, or a file.",
        )
    _no_hooks(module)
    try:
        module = copy.deepcopy(module).double().eval().cpu()
    except Exception as error:
        raise ModelError(f"the module cannot be copied in float64 ({error})", "give a plain module.") from error
    _finite(module)
    graph = _traced(module)
    _listed(module, graph)
    problem: ModelError | None = None
    for form in _shapes(module, shape, n_inputs):
        reader = _Reader(module, graph, Tape((1, *form), smooth))
        try:
            with torch.no_grad():
                module(torch.zeros((1, *form), dtype=torch.float64))
        except Exception as failed:  # noqa: BLE001 - a forward of the user's may raise anything
            problem = problem or ModelError(
                f"the module does not take inputs of shape (1, {', '.join(map(str, form))}): {failed}",
                "give shape=, that of one example.",
            )
            continue
        with torch.no_grad():
            result = reader.run()
            points = spread(reader.tape.n, box)
            given = _forward(module, points, form)
            compare(reader.tape, result, points, given, partial(reader.steps, points), RELATIVE)
            network = reader.tape.network(result, output)
            if not isinstance(result, Head):
                judge = partial(_without_gradients, module, form)
                network.judge = Judge.of(judge, given.shape[1], output, RELATIVE)
            return network
    raise problem or ModelError(
        "the number of inputs cannot be told from the module", "give shape=, that of one example."
    )


def _no_hooks(module: Any) -> None:
    import torch.nn.modules.module as base

    for path, part in module.named_modules():
        name = f"{path or 'the module'} ({type(part).__name__})"
        for kind in ("_forward_hooks", "_forward_pre_hooks"):
            if getattr(part, kind):
                raise ModelError(f"{name} has a hook ({kind[1:-1]}), which may change what it computes", "remove it.")
        if "forward" in vars(part):
            raise ModelError(f"{name} has a forward that was put on the object", "write it in the class.")
    if base._global_forward_hooks or base._global_forward_pre_hooks:
        raise ModelError("torch has a global forward hook, which may change what modules compute", "remove it.")


def _finite(module: Any) -> None:
    for path, tensor in [*module.named_parameters(), *module.named_buffers()]:
        bad = (~tensor.isfinite()).nonzero()
        if len(bad):
            at = tuple(bad[0].tolist())
            raise ModelError(f"{path} is {tensor[at].item()} at {list(at)}", "train the module again.")


def _traced(module: Any) -> Any:
    import torch.fx

    class Tracer(torch.fx.Tracer):
        """Modules on the list, and all of torch's own but containers, stay whole; a user's own are looked into."""

        def is_leaf_module(self, m: Any, module_qualified_name: str) -> bool:
            own = type(m).__module__.startswith("torch.") and not type(m).__module__.startswith("torch.fx")
            return own and type(m) not in (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)

    class Whole(torch.nn.Module):
        """Holds a single layer."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Any) -> Any:
            return self.inner(x)

    try:
        if Tracer().is_leaf_module(module, ""):
            return Tracer().trace(Whole(module))
        if type(module) is torch.nn.ModuleList:
            module = torch.nn.Sequential(*module)
        return Tracer().trace(module)
    except Exception as error:
        raise ModelError(
            f"{type(module).__name__} cannot be traced by torch.fx ({type(error).__name__}: {error})",
            "give a Sequential, or the weights by Network.from_arrays.",
        ) from error


def _listed(module: Any, graph: Any) -> None:
    """Refuse what is on no list by its name alone, before shapes are known and numbers go through it."""
    parts, count = dict(module.named_modules()), 0
    for number, node in enumerate(graph.nodes):
        if node.op == "call_module":
            part = parts.get(str(node.target), module)
            if type(part) not in layers():
                # A quantised layer is called Linear as well.
                kind = type(part).__name__
                same = any(kind == known.__name__ for known in layers())
                kind = f"{type(part).__module__}.{kind}" if same else kind
                raise ModelError(
                    f"layer {count} is a {kind} ({node.target}), which has no exact linear rows",
                    WAY_OUT + ".",
                )
            count += 1
        elif node.op in ("call_function", "call_method"):
            table = calls.methods() if node.op == "call_method" else calls.functions()
            if node.target not in table and node.target not in calls.constants():
                said = f"calls {calls.name_of(node)}, which has no exact linear rows or is not read"
                raise ModelError(f"node {number} ({node.name}) {said}", WAY_OUT + ".")


def _shapes(module: Any, shape: Sequence[int] | None, n_inputs: int | None) -> Iterable[tuple[int, ...]]:
    """Shapes of one example to try, the likeliest first."""
    import torch

    if shape is not None:
        yield tuple(int(size) for size in shape)
        return
    if n_inputs is not None:
        yield (int(n_inputs),)
        return
    seen: list[int] = []
    for part in module.modules():
        if type(part) is torch.nn.Linear:
            seen.append(part.in_features)
        elif type(part) is torch.nn.BatchNorm1d:
            seen.append(part.num_features)
    seen += [tensor.shape[-1] for tensor in [*module.parameters(), *module.buffers()] if tensor.dim()]
    yield from ((size,) for size in dict.fromkeys(seen))


def _without_gradients(module: Any, form: tuple[int, ...], points: Floats) -> Floats:
    import torch

    with torch.no_grad():
        return _forward(module, points, form)


def _forward(module: Any, points: Floats, form: tuple[int, ...]) -> Floats:
    """The module's own outputs, one example at a time, and the same of all examples at once where it takes them."""
    import torch

    inputs = torch.as_tensor(points, dtype=torch.float64).reshape(len(points), *form)
    single = []
    for example in inputs:
        found = module(example[None].clone())
        if not isinstance(found, torch.Tensor):
            raise ModelError(f"the module gives a {type(found).__name__}", "return one tensor.")
        single.append(found.double().numpy().reshape(-1))
    given = np.stack(single)
    finite(given)
    try:
        together = module(inputs.clone())
    except Exception:  # noqa: BLE001 - it may be written for one example only, which is how it is read
        return given
    if together.shape[:1] == (len(points),) and together.numel() == given.size:
        off = np.abs(together.double().numpy().reshape(given.shape) - given).max(initial=0.0)
        if not off <= 1e-6 * (1.0 + np.abs(given).max(initial=0.0)):
            raise ModelError(
                "the module's output for one example hangs on the others of its batch, or changes from call to call, "
                f"by {off:.3g}",
                "give a module without normalisation over the batch, chance and memory.",
            )
    return given


class _Reader:
    """One walk through a traced graph, writing on a tape."""

    def __init__(self, module: Any, graph: Any, tape: Tape) -> None:
        self.module, self.graph, self.tape = module, graph, tape
        self.known: dict[Any, Any] = {}
        self.store: dict[Any, int] = {}
        """Node -> number of the memory it looks into; what changes it in place changes all of them."""
        self.names: dict[Any, str] = {}

    def run(self) -> Any:
        """The output's value."""
        self.parts = dict(self.module.named_modules())
        root = self.graph.owning_module
        placed, counted = 0, 0
        for number, node in enumerate(self.graph.nodes):
            self.names[node] = f"node {number} ({node.name})"
            self.store[node] = number
            if node.op == "placeholder":
                placed += 1
                if placed > 1:
                    raise ModelError(f"{type(self.module).__name__} takes several inputs", "give a module of one.")
                self.known[node] = self.tape.inputs
            elif node.op == "output":
                return self._output(node)
            else:
                if node.op == "call_module":
                    part = self._part(str(node.target), root)
                    self.names[node] = f"layer {counted} is a {type(part).__name__} ({node.target}) that"
                    counted += 1
                try:
                    found = self._node(node, root)
                except ModelError as error:
                    self._tell(node, error, counted - 1, root)
                # What reads a classifier's head further on names the head, not itself.
                said = self.names[node].removesuffix(" that")
                self.known[node] = replace(found, where=said) if isinstance(found, Head) else found
        raise ModelError(f"{type(self.module).__name__} has no output", "return one tensor.")

    def _tell(self, node: Any, error: ModelError, count: int, root: Any) -> NoReturn:
        if any(
            isinstance(self.known.get(arg), Head) and error.message.startswith(self.known[arg].where)
            for arg in node.all_input_nodes
        ):
            raise error
        if node.op == "call_module":
            kind = type(self._part(str(node.target), root)).__name__
            said = error.message.replace(f"{kind} has no exact linear rows", "", 1)
            said = said or "which has no exact linear rows"
            raise ModelError(f"layer {count} is a {kind} ({node.target}): {said}", error.fix) from None
        raise ModelError(f"{self.names[node]}: {error.message}", error.fix) from None

    def _part(self, path: str, root: Any) -> Any:
        if path in self.parts:
            return self.parts[path]
        return self.module if path == "inner" else self.parts[path]

    def _output(self, node: Any) -> Any:
        found = self._given(node.args[0])
        if isinstance(found, tuple | list) and len(found) == 1:
            found = found[0]
        if not isinstance(found, Value | Head):
            what = f"{len(found)} tensors" if isinstance(found, tuple | list | dict) else "what hangs on no input"
            raise ModelError(f"{type(self.module).__name__} gives {what}", "return one tensor of the inputs.")
        return found

    def _given(self, argument: Any) -> Any:
        import torch.fx

        return torch.fx.node.map_arg(argument, lambda node: self.known[node])

    def _node(self, node: Any, root: Any) -> Any:
        import torch

        if node.op == "get_attr":
            found: Any = self.module
            for name in str(node.target).split("."):
                found = getattr(found, name)
            return found
        args, kwargs = self._given(node.args), self._given(node.kwargs)
        unpacked = node.target in (operator.getitem, getattr)
        if not unpacked and any(isinstance(value, calls.Positions) for value in _flat((args, kwargs))):
            raise ModelError("reads the positions of a maximum", "use its values only.")
        if node.op == "call_module":
            part = self._part(str(node.target), root)
            known = layers()
            if type(part) not in known:
                raise ModelError(f"{type(part).__name__} has no exact linear rows", WAY_OUT + ".")
            _plain(part)
            if args and isinstance(args[0], Head):
                calls.tensor(args[0])
            if len(args) != 1 or kwargs or not isinstance(args[0], Value):
                raise ModelError("is called with more than one tensor of the inputs", WAY_OUT + ".")
            self._aliases(
                node,
                bool(getattr(part, "inplace", False)),
                type(part) in (torch.nn.Identity, torch.nn.Flatten, torch.nn.Dropout),
            )
            return known[type(part)](self.tape, part, args[0])
        name = calls.name_of(node)
        table = calls.methods() if node.op == "call_method" else calls.functions()
        handler = table.get(node.target)
        if not any(isinstance(value, Value | Head) for value in _flat((args, kwargs))):
            return self._folded(node, args, kwargs, handler, name)
        if handler is None:
            raise ModelError(f"calls {name}, which has no exact linear rows or is not read", WAY_OUT + ".")
        inplace = bool(kwargs.get("inplace", False)) or calls.changes(node, args)
        self._aliases(node, inplace, name in calls.VIEWS)
        try:
            return handler(self.tape, *args, **kwargs)
        except (TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
            raise ModelError(
                f"calls {name} with arguments that are not read ({error})", "use the plain form, or " + WAY_OUT + "."
            ) from None

    def _folded(self, node: Any, args: Any, kwargs: Any, handler: Any, name: str) -> Any:
        """A call over constants alone, carried out by torch itself."""
        if handler is None and node.target not in calls.constants():
            raise ModelError(f"calls {name} over constants, which is not read", "compute it in the constructor.")
        if calls.changes(node, args) or kwargs.get("inplace") or kwargs.get("out") is not None:
            raise ModelError(f"calls {name}, which changes a constant in place", "compute it in the constructor.")
        try:
            if node.op == "call_method":
                return getattr(args[0], node.target)(*args[1:], **kwargs)
            return node.target(*args, **kwargs)
        except Exception as error:
            raise ModelError(f"calls {name}, which fails ({error})", "check the module.") from error

    def _aliases(self, node: Any, inplace: bool, view: bool) -> None:
        """Refuse a change in place of what is read again afterwards under another name."""
        sources = [arg for arg in node.all_input_nodes if isinstance(self.known.get(arg), Value | tuple)]
        if not sources:
            return
        first = sources[0]
        if view or inplace:
            self.store[node] = self.store[first]
        if not inplace:
            return
        memory, after = self.store[first], False
        for other in self.graph.nodes:
            if other is node:
                after = True
                continue
            if not after:
                continue
            for read in other.all_input_nodes:
                if read is not node and read in self.store and self.store[read] == memory:
                    raise ModelError(
                        f"changes {first.name} in place, which {other.name} reads again afterwards",
                        "leave out inplace=True and the underscore.",
                    )

    def steps(self, points: Floats) -> Iterable[tuple[str, Any, Floats]]:
        """Every step with torch's own numbers at the points."""
        import torch
        import torch.fx

        reader = self
        found: dict[Any, list[Floats]] = {}

        class Watch(torch.fx.Interpreter):
            """Keeps what every node gives."""

            def run_node(self, n: Any) -> Any:
                given = super().run_node(n)
                if isinstance(given, torch.Tensor) and isinstance(reader.known.get(n), Value | Head):
                    found.setdefault(n, []).append(given.detach().double().numpy().reshape(-1).copy())
                return given

        root = self.module if not self.graph_is_whole() else self.graph.owning_module
        watch = Watch(torch.fx.GraphModule(root, self.graph))
        for example in points:
            watch.run(torch.as_tensor(example, dtype=torch.float64).reshape(self.tape.shape))
        for node in self.graph.nodes:
            if node in found and node.op != "placeholder":
                yield self.names[node].removesuffix(" that"), self.known[node], np.stack(found[node])

    def graph_is_whole(self) -> bool:
        """Whether the graph stands around a single layer."""
        return any(node.op == "call_module" and node.target == "inner" for node in self.graph.nodes) and (
            "inner" not in self.parts
        )


def _flat(given: Any) -> Iterable[Any]:
    if isinstance(given, dict):
        given = list(given.values())
    if isinstance(given, slice):
        given = [given.start, given.stop, given.step]
    if isinstance(given, tuple | list):
        for part in given:
            yield from _flat(part)
    else:
        yield given


# ---------------------------------------------------------------------------------------------------- modules
@cache
def _known_fields(kind: Any) -> frozenset[str]:
    """What an object of one of torch's classes holds, by one that was just made."""
    wanted = [p for p in inspect.signature(kind).parameters.values() if p.default is p.empty]
    # Sizes of one suit every class on the list.
    made = kind(*[(1,) if p.name == "unflattened_size" else 1 for p in wanted if p.kind is p.POSITIONAL_OR_KEYWORD])
    return frozenset([*vars(made), *made._parameters, *made._buffers])


def _plain(part: Any) -> None:
    """Refuse attributes, parameters, buffers and children that its class does not bring."""
    own = [*vars(part), *part._parameters, *part._buffers, *part._modules]
    more = [name for name in own if name not in _known_fields(type(part))]  # type: ignore[arg-type]
    if more:
        raise ModelError(f"holds {more[0]!r}, which torch's own does not", "remove it, or give the weights by arrays.")


def _numbers(tensor: Any) -> Floats:
    return np.asarray(tensor.detach().cpu().double().numpy())


def _dense(tape: Tape, part: Any, value: Value) -> Value:
    found = tape.matmul(value, _numbers(part.weight).T)
    return found if part.bias is None else tape.add(found, _numbers(part.bias))


def _normalised(tape: Tape, part: Any, value: Value) -> Value:
    if part.running_mean is None or part.running_var is None:
        raise ModelError("normalises over the batch", "track running statistics.")
    return calls.batch_norm(
        tape, value, part.running_mean, part.running_var, part.weight, part.bias, False, part.momentum, part.eps
    )


def _convolution(tape: Tape, part: Any, value: Value) -> Value:
    if part.padding_mode != "zeros":
        raise ModelError(f"has padding_mode {part.padding_mode!r}", "use zeros.")
    conv = {1: calls.conv1d, 2: calls.conv2d}[len(part.kernel_size)]
    return conv(tape, value, part.weight, part.bias, part.stride, part.padding, part.dilation, part.groups)


def _no_dropout(tape: Tape, part: Any, value: Value) -> Value:
    if part.training:
        raise ModelError("draws at random", "call eval().")
    return value


Layer = Callable[[Tape, Any, Value], Any]


@cache
def layers() -> dict[type, Layer]:
    """Exact type of a module -> how it is read."""
    from torch import nn

    call = calls
    return {
        nn.Linear: _dense,
        nn.Conv1d: _convolution,
        nn.Conv2d: _convolution,
        nn.BatchNorm1d: _normalised,
        nn.BatchNorm2d: _normalised,
        nn.Identity: lambda t, p, v: v,
        nn.Dropout: _no_dropout,
        nn.Dropout1d: _no_dropout,
        nn.Dropout2d: _no_dropout,
        nn.AlphaDropout: _no_dropout,
        nn.Flatten: lambda t, p, v: call.moved("flatten")(t, v, p.start_dim, p.end_dim),
        nn.Unflatten: lambda t, p, v: call.moved("unflatten")(t, v, p.dim, p.unflattened_size),
        nn.ReLU: lambda t, p, v: t.relu(v),
        nn.ReLU6: lambda t, p, v: t.clamp(v, p.min_val, p.max_val),
        nn.LeakyReLU: lambda t, p, v: t.leaky(v, p.negative_slope),
        nn.PReLU: lambda t, p, v: call.prelu(t, v, p.weight),
        nn.Hardtanh: lambda t, p, v: t.clamp(v, p.min_val, p.max_val),
        nn.Hardsigmoid: lambda t, p, v: call.hardsigmoid(t, v),
        nn.Softshrink: lambda t, p, v: call.softshrink(t, v, p.lambd),
        nn.Hardswish: lambda t, p, v: call.hardswish(t, v),
        nn.Sigmoid: lambda t, p, v: call.sigmoid(t, v),
        nn.Tanh: lambda t, p, v: call.tanh(t, v),
        nn.Softplus: lambda t, p, v: call.softplus(t, v, p.beta, p.threshold),
        nn.LogSigmoid: lambda t, p, v: call.logsigmoid(t, v),
        nn.SiLU: lambda t, p, v: call.silu(t, v),
        nn.GELU: lambda t, p, v: call.gelu(t, v, p.approximate),
        nn.ELU: lambda t, p, v: call.elu(t, v, p.alpha),
        nn.SELU: lambda t, p, v: call.selu(t, v),
        nn.CELU: lambda t, p, v: call.celu(t, v, p.alpha),
        nn.Mish: lambda t, p, v: call.mish(t, v),
        nn.Tanhshrink: lambda t, p, v: call.tanhshrink(t, v),
        nn.Softmax: lambda t, p, v: call.softmax(t, v, p.dim),
        nn.LogSoftmax: lambda t, p, v: call.log_softmax(t, v, p.dim),
        nn.MaxPool1d: lambda t, p, v: call.max_pool1d(
            t, v, p.kernel_size, p.stride, p.padding, p.dilation, p.ceil_mode, p.return_indices
        ),
        nn.MaxPool2d: lambda t, p, v: call.max_pool2d(
            t, v, p.kernel_size, p.stride, p.padding, p.dilation, p.ceil_mode, p.return_indices
        ),
        nn.AvgPool1d: lambda t, p, v: call.avg_pool1d(
            t, v, p.kernel_size, p.stride, p.padding, p.ceil_mode, p.count_include_pad
        ),
        nn.AvgPool2d: lambda t, p, v: call.avg_pool2d(
            t, v, p.kernel_size, p.stride, p.padding, p.ceil_mode, p.count_include_pad, p.divisor_override
        ),
        nn.AdaptiveAvgPool1d: lambda t, p, v: call.adaptive_avg_pool(1)(t, v, p.output_size),
        nn.AdaptiveAvgPool2d: lambda t, p, v: call.adaptive_avg_pool(2)(t, v, p.output_size),
    }
