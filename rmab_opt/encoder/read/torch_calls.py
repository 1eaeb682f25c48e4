"""Torch functions and methods that are read, each with its complete argument list."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmab_opt.encoder.network import WAY_OUT
from rmab_opt.encoder.read.curves import CURVES
from rmab_opt.encoder.read.tape import Head, Tape, Value
from rmab_opt.errors import ModelError

__all__ = ["VIEWS", "Positions", "changes", "constants", "functions", "methods", "name_of", "tensor"]

Floats = NDArray[np.float64]
Handler = Callable[..., Any]


def _words(text: str) -> list[str]:
    return text.split()


class Positions:
    """What torch gives beside the values of a maximum: it may be unpacked, and is refused where it is used."""


POSITIONS = Positions()

VIEWS = frozenset(
    _words(
        "flatten reshape view squeeze unsqueeze transpose swapaxes permute t getitem getattr narrow select chunk split "
        "unbind expand expand_as contiguous detach view_as reshape_as unflatten ravel movedim double float to identity "
        "tensor_split dropout"
    )
)
"""Calls whose result may look into the memory of what they are given."""


def name_of(node: Any) -> str:
    """What a call is called."""
    return str(node.target) if isinstance(node.target, str) else str(getattr(node.target, "__name__", node.target))


def changes(node: Any, args: Sequence[Any]) -> bool:
    """Whether a call changes its first argument in place; += on plain numbers does not."""
    name = name_of(node)
    if name.startswith("__"):
        name = name.strip("_")
        return name in ("iadd", "isub", "imul", "itruediv")
    if node.op == "call_function" and name in ("iadd", "isub", "imul", "itruediv"):
        return not isinstance(args[0], int | float)
    return name.endswith("_") and not name.startswith("_")


def _array(given: Any) -> Floats:
    """Numbers of a constant.

    Raises
    ------
    ModelError
        When it hangs on the inputs.
    """
    if isinstance(given, Value | Head):
        raise ModelError("multiplies, divides or bounds by what hangs on the inputs", "use weights that do not.")
    if hasattr(given, "detach"):
        if given.is_complex():
            raise ModelError("computes with complex numbers", "use real ones.")
        return np.asarray(given.detach().cpu().double().numpy())
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise ModelError(f"is given {given!r} for a number", "give a number or a tensor.")
    return np.asarray(given, dtype=np.float64)


def _either(given: Any) -> Any:
    return tensor(given) if isinstance(given, Value | Head) else _array(given)


def tensor(given: Any) -> Value:
    """The network's tensor that a call is given.

    Raises
    ------
    ModelError
        When it is a classifier's head, or no tensor.
    """
    if isinstance(given, Head):
        more = ", or smooth=0.01 to read it as pieces with a stated error" if given.kind == "sigmoid" else ""
        raise ModelError(f"{given.where}, which has no exact linear rows", WAY_OUT + more + ".")
    if not isinstance(given, Value):
        raise ModelError(f"is given a {type(given).__name__} for the network's tensor", "use the plain form.")
    return given


def _none(**given: Any) -> None:
    """Arguments that must be left out."""
    for name, value in given.items():
        if value is not None and value is not False:
            raise ModelError(f"has {name}={value!r}", f"leave {name} out.")


# ---- arithmetic
def add(tape: Tape, input: Any, other: Any, *, alpha: Any = 1, out: Any = None) -> Value:
    """input + alpha * other."""
    _none(out=out)
    a, b, alpha = _either(input), _either(other), float(_array(alpha))
    if isinstance(a, Value):
        return tape.add(a, b, alpha)
    return tape.add(tape.scale(b, alpha), a)


def sub(tape: Tape, input: Any, other: Any, *, alpha: Any = 1, out: Any = None) -> Value:
    """input - alpha * other."""
    return add(tape, input, other, alpha=-float(_array(alpha)), out=out)


def rsub(tape: Tape, input: Any, other: Any, *, alpha: Any = 1) -> Value:
    """other - alpha * input."""
    return add(tape, other, input, alpha=-float(_array(alpha)))


def mul(tape: Tape, input: Any, other: Any, *, out: Any = None) -> Value:
    """input * other, one of them numbers, or a tensor times a curve of its own (SiLU, Mish, GELU)."""
    _none(out=out)
    if isinstance(input, Value | Head) and isinstance(other, Value | Head):
        return tape.product(input, other)
    if isinstance(input, Value | Head):
        return tape.scale(tensor(input), _array(other))
    return tape.scale(tensor(other), _array(input))


def div(tape: Tape, input: Any, other: Any, *, rounding_mode: Any = None, out: Any = None) -> Value:
    """input / other, the latter numbers."""
    _none(rounding_mode=rounding_mode, out=out)
    number = _array(other)
    if (number == 0).any():
        raise ModelError("divides by zero", "divide by other numbers.")
    value = tensor(input)
    return tape.scale(value, 1.0 / number)


def neg(tape: Tape, input: Any, *, out: Any = None) -> Value:
    """-input."""
    _none(out=out)
    return tape.scale(tensor(input), -1.0)


def absolute(tape: Tape, input: Any, *, out: Any = None) -> Value:
    """|input|: slope -1 to the left of zero."""
    _none(out=out)
    return tape.leaky(tensor(input), -1.0)


def matmul(tape: Tape, input: Any, other: Any, *, out: Any = None) -> Value:
    """input @ other, one of them numbers."""
    _none(out=out)
    a, b = _either(input), _either(other)
    if isinstance(a, Value) and isinstance(b, Value):
        raise ModelError("multiplies two parts of the network", "use weights that do not hang on the inputs.")
    return tape.matmul(a, b)


def addmm(tape: Tape, input: Any, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1, out: Any = None) -> Value:
    """beta * input + alpha * mat1 @ mat2."""
    _none(out=out)
    a, b = _either(mat1), _either(mat2)
    live = isinstance(a, Value) or isinstance(b, Value)
    product = matmul(tape, mat1, mat2) if live else _Numbers(np.matmul(a, b))
    return add(tape, _scaled(tape, product, alpha), _scaled(tape, input, beta))


def _scaled(tape: Tape, given: Any, factor: Any) -> Any:
    number = float(_array(factor))
    return tape.scale(given, number) if isinstance(given, Value) else _Numbers(_array(given) * number)


class _Numbers:
    """A constant as torch's tensors look to :func:`_array`."""

    def __init__(self, array: Floats) -> None:
        self.array = array

    def detach(self) -> _Numbers:
        """Itself."""
        return self

    cpu = double = detach

    def numpy(self) -> Floats:
        """The numbers."""
        return self.array

    def is_complex(self) -> bool:
        """False."""
        return False


def linear(tape: Tape, input: Any, weight: Any, bias: Any = None) -> Value:
    """input @ weight.T + bias."""
    found = tape.matmul(tensor(input), _array(weight).T)
    return found if bias is None else tape.add(found, _array(bias))


# ---- pieces
def relu(tape: Tape, input: Any, inplace: bool = False) -> Value:
    """max(0, input)."""
    return tape.relu(tensor(input))


def relu6(tape: Tape, input: Any, inplace: bool = False) -> Value:
    """Between 0 and 6."""
    return tape.clamp(tensor(input), 0.0, 6.0)


def leaky_relu(tape: Tape, input: Any, negative_slope: Any = 0.01, inplace: bool = False) -> Value:
    """A slope to the left of zero."""
    return tape.leaky(tensor(input), _array(negative_slope))


def prelu(tape: Tape, input: Any, weight: Any) -> Value:
    """A slope a channel (axis 1)."""
    value, slopes = tensor(input), _array(weight)
    if slopes.size > 1:
        slopes = slopes.reshape(1, -1, *[1] * (len(value.shape) - 2))
    return tape.leaky(value, slopes)


def hardtanh(tape: Tape, input: Any, min_val: Any = -1.0, max_val: Any = 1.0, inplace: bool = False) -> Value:
    """Between two numbers."""
    return tape.clamp(tensor(input), _array(min_val), _array(max_val))


def clamp(tape: Tape, input: Any, min: Any = None, max: Any = None, *, out: Any = None) -> Value:
    """Between limits, of which one may be missing."""
    _none(out=out)
    return tape.clamp(tensor(input), None if min is None else _array(min), None if max is None else _array(max))


def clamp_min(tape: Tape, input: Any, min: Any) -> Value:
    """At least a number."""
    return tape.clamp(tensor(input), _array(min))


def clamp_max(tape: Tape, input: Any, max: Any) -> Value:
    """At most a number."""
    return tape.clamp(tensor(input), None, _array(max))


def hardsigmoid(tape: Tape, input: Any, inplace: bool = False) -> Value:
    """input / 6 + 1 / 2 between 0 and 1."""
    return tape.clamp(tape.add(tape.scale(tensor(input), 1 / 6), 0.5), 0.0, 1.0)


def softshrink(tape: Tape, input: Any, lambd: Any = 0.5) -> Value:
    """Towards zero by lambd."""
    value, step = tensor(input), float(_array(lambd))
    if step < 0:
        raise ModelError(f"has lambd={step}", "give a lambd of at least 0.")
    right = tape.relu(tape.add(value, -step))
    return tape.add(right, tape.relu(tape.add(tape.scale(value, -1.0), -step)), -1.0)


def maximum(tape: Tape, input: Any, other: Any, *, out: Any = None) -> Value:
    """The larger, entry by entry."""
    _none(out=out)
    return tape.highest([_either(input), _either(other)])


def minimum(tape: Tape, input: Any, other: Any, *, out: Any = None) -> Value:
    """The smaller, entry by entry."""
    _none(out=out)
    return tape.lowest([_either(input), _either(other)])


def _axes(dim: Any) -> list[int] | None:
    if dim is None or dim == () or dim == []:
        return None
    return [int(axis) for axis in (dim if isinstance(dim, tuple | list) else (dim,))]


def _extreme(sign: float) -> Handler:
    def found(
        tape: Tape, input: Any, dim: Any = None, keepdim: bool = False, *, out: Any = None, other: Any = None
    ) -> Any:
        _none(out=out)
        if other is not None or isinstance(dim, Value) or hasattr(dim, "detach"):
            return (maximum if sign > 0 else minimum)(tape, input, dim if other is None else other)
        value = tape.largest_of(tensor(input), _axes(dim), bool(keepdim), sign)
        return value if dim is None else (value, POSITIONS)

    return found


def _amax(sign: float) -> Handler:
    def found(tape: Tape, input: Any, dim: Any = (), keepdim: bool = False, *, out: Any = None) -> Value:
        _none(out=out)
        return tape.largest_of(tensor(input), _axes(dim), bool(keepdim), sign)

    return found


def _sums(mean: bool) -> Handler:
    def found(
        tape: Tape, input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, out: Any = None
    ) -> Value:
        _none(dtype=dtype, out=out)
        return tape.reduce(tensor(input), _axes(dim), bool(keepdim), mean)

    return found


# ---- curves
def _curved(name: str) -> Handler:
    def found(tape: Tape, input: Any, inplace: bool = False) -> Value:
        return tape.curve(tensor(input), CURVES[name]())

    return found


tanh, silu, selu, logsigmoid, hardswish, tanhshrink, mish, erf = (
    _curved(name) for name in ("tanh", "silu", "selu", "logsigmoid", "hardswish", "tanhshrink", "mish", "erf")
)


def sigmoid(tape: Tape, input: Any, *, out: Any = None) -> Any:
    """In pieces; exactly, as a classifier's head, where the reading is exact."""
    _none(out=out)
    value = tensor(input)
    return Head("sigmoid", value) if tape.smooth is None else tape.curve(value, CURVES["sigmoid"]())


def softplus(tape: Tape, input: Any, beta: Any = 1.0, threshold: Any = 20.0) -> Value:
    """log(1 + exp(beta * input)) / beta, a line beyond the threshold, which is 2e-9 off."""
    if float(_array(threshold)) < 15:
        raise ModelError(f"has threshold={threshold}", "leave it at 20.")
    return tape.curve(tensor(input), CURVES["softplus"](beta=float(_array(beta))))


def gelu(tape: Tape, input: Any, approximate: str = "none") -> Value:
    """GELU, or its approximation by tanh."""
    if approximate not in ("none", "tanh"):
        raise ModelError(f"has approximate={approximate!r}", "use 'none' or 'tanh'.")
    return tape.curve(tensor(input), CURVES["gelu" if approximate == "none" else "gelu_tanh"]())


def elu(tape: Tape, input: Any, alpha: Any = 1.0, inplace: bool = False) -> Value:
    """alpha * (exp(input) - 1) to the left of zero."""
    return tape.curve(tensor(input), CURVES["elu"](alpha=float(_array(alpha))))


def celu(tape: Tape, input: Any, alpha: Any = 1.0, inplace: bool = False) -> Value:
    """alpha * (exp(input / alpha) - 1) to the left of zero."""
    return tape.curve(tensor(input), CURVES["celu"](alpha=float(_array(alpha))))


def _order(kind: str) -> Handler:
    def found(tape: Tape, input: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Head:
        _none(dtype=dtype)
        value = tensor(input)
        dim = 1 if dim is None and len(value.shape) == 2 else dim
        if dim is None or value.shape[int(dim)] != value.size:
            raise ModelError(f"is a {kind} over part of the outputs (dim={dim})", "give it all outputs, dim=-1.")
        return Head(kind, value, int(dim))

    return found


softmax, log_softmax = _order("softmax"), _order("log_softmax")


# ---- normalisation and windows
def batch_norm(
    tape: Tape,
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: Any = 0.1,
    eps: Any = 1e-5,
) -> Value:
    """By running statistics, a channel (axis 1)."""
    if training:
        raise ModelError("normalises over the batch (training=True)", "call eval().")
    value = tensor(input)
    scale = 1.0 / np.sqrt(_array(running_var) + float(eps))
    scale = scale if weight is None else scale * _array(weight)
    shift = (0.0 if bias is None else _array(bias)) - scale * _array(running_mean)
    form = (1, -1, *[1] * (len(value.shape) - 2))
    return tape.add(tape.scale(value, scale.reshape(form)), shift.reshape(form))


def dropout(tape: Tape, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Value:
    """Nothing outside training."""
    if training and p != 0:
        raise ModelError("draws at random (training=True)", "give training=self.training, or use nn.Dropout.")
    return tensor(input)


def _each(given: Any, axes: int) -> list[int]:
    parts = given if isinstance(given, tuple | list) else (given,)
    found = [int(part) for part in parts]
    return found * axes if len(found) == 1 else found


def _batched(value: Value, axes: int) -> tuple[Value, bool]:
    """With an axis of examples in front; torch's windows take tensors without one."""
    bare = len(value.shape) == axes + 1
    return (Value((1, *value.shape), value.parts, value.shift) if bare else value), bare


def _debatched(value: Value, bare: bool) -> Value:
    return Value(value.shape[1:], value.parts, value.shift) if bare else value


def _conv(axes: int) -> Handler:
    def found(
        tape: Tape,
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Value:
        filters = _array(weight)
        strides, dilations = _each(stride, axes), _each(dilation, axes)
        if padding == "same":
            total = [d * (k - 1) for d, k in zip(dilations, filters.shape[2:], strict=True)]
            pads = [(size // 2, size - size // 2) for size in total]
        else:
            pads = [(0, 0)] * axes if padding == "valid" else [(p, p) for p in _each(padding, axes)]
        value, bare = _batched(tensor(input), axes)
        numbers = None if bias is None else _array(bias)
        return _debatched(tape.convolve(value, filters, numbers, strides, pads, dilations, int(groups)), bare)

    return found


conv1d, conv2d = _conv(1), _conv(2)


def _whole_windows(value: Value, kernel: list[int], stride: list[int], pads: list[int], ceil_mode: bool) -> None:
    spaces = value.shape[-len(kernel) :]
    if ceil_mode and any((n + 2 * p - k) % s for n, k, s, p in zip(spaces, kernel, stride, pads, strict=True)):
        raise ModelError("has ceil_mode=True, which adds windows that hang over", "leave ceil_mode out.")


def _max_pool(axes: int) -> Handler:
    def found(
        tape: Tape,
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Value:
        _none(return_indices=return_indices)
        kernel = _each(kernel_size, axes)
        strides = kernel if stride is None or stride == [] else _each(stride, axes)
        pads, dilations = _each(padding, axes), _each(dilation, axes)
        value, bare = _batched(tensor(input), axes)
        _whole_windows(
            value, [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)], strides, pads, ceil_mode
        )
        return _debatched(tape.pool_largest(value, kernel, strides, [(p, p) for p in pads], dilations), bare)

    return found


max_pool1d, max_pool2d = _max_pool(1), _max_pool(2)


def _avg_pool(axes: int) -> Handler:
    def found(
        tape: Tape,
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: Any = None,
    ) -> Value:
        kernel = _each(kernel_size, axes)
        strides = kernel if stride is None or stride == [] else _each(stride, axes)
        pads = _each(padding, axes)
        value, bare = _batched(tensor(input), axes)
        _whole_windows(value, kernel, strides, pads, ceil_mode)
        pairs = [(p, p) for p in pads]
        return _debatched(
            tape.pool_mean(value, kernel, strides, pairs, bool(count_include_pad), divisor_override), bare
        )

    return found


avg_pool1d, avg_pool2d = _avg_pool(1), _avg_pool(2)


@cache
def adaptive_avg_pool(axes: int) -> Handler:
    """Means over equal windows; sizes that do not divide are refused."""

    def found(tape: Tape, input: Any, output_size: Any) -> Value:
        value, bare = _batched(tensor(input), axes)
        spaces = value.shape[-axes:]
        wanted = [
            n if size is None else int(size) for n, size in zip(spaces, _each_or_none(output_size, axes), strict=True)
        ]
        if any(n % size for n, size in zip(spaces, wanted, strict=True)):
            raise ModelError(f"pools {spaces} into {tuple(wanted)} unequal windows", "use sizes that divide.")
        kernel = [n // size for n, size in zip(spaces, wanted, strict=True)]
        return _debatched(tape.pool_mean(value, kernel, kernel, [(0, 0)] * axes, True), bare)

    return found


def _each_or_none(given: Any, axes: int) -> list[Any]:
    return list(given) if isinstance(given, tuple | list) else [given] * axes


# ---- entries that move
@cache
def moved(name: str) -> Handler:
    """A method of torch's that only moves entries, applied to their positions."""

    def found(tape: Tape, input: Any, *args: Any, **kwargs: Any) -> Any:
        import torch

        if any(isinstance(arg, Value | Head) for arg in [*args, *kwargs.values()]):
            args = tuple(torch.zeros(arg.shape) if isinstance(arg, Value) else arg for arg in args)
            if name not in ("expand_as", "view_as", "reshape_as"):
                raise ModelError(f"{name} by what hangs on the inputs", "use constants.")
            if isinstance(input, torch.Tensor):
                # A constant in the shape of a tensor of the network's is a constant.
                return getattr(input, name)(*args)
        value = tensor(input)
        index = torch.as_tensor(value.index)
        return _taken(tape, value, getattr(index, name)(*args, **kwargs))

    return found


def _taken(tape: Tape, value: Value, index: Any) -> Any:
    if isinstance(index, tuple | list):
        return tuple(_taken(tape, value, part) for part in index)
    return tape.take(value, index.numpy())


def _item(tape: Tape, input: Any, key: Any) -> Any:
    import torch

    if isinstance(input, tuple | list):
        return input[key]
    value = tensor(input)
    return _taken(tape, value, torch.as_tensor(value.index)[key])


def _attribute(tape: Tape, input: Any, name: str) -> Any:
    if isinstance(input, Value):
        if name == "shape":
            return input.shape
        if name == "ndim":
            return len(input.shape)
        if name in ("dtype", "device"):
            # The module was copied in float64 onto the processor.
            import torch

            return torch.float64 if name == "dtype" else torch.device("cpu")
        if name in ("T", "mT"):
            return moved("t")(tape, input)
    if isinstance(input, tuple) and name == "values":
        return input[0]
    raise ModelError(f"reads the attribute {name!r}", "use shapes only.")


def _size(tape: Tape, input: Any, dim: Any = None) -> Any:
    shape = tensor(input).shape
    return shape if dim is None else shape[int(dim)]


def _cat(tape: Tape, tensors: Any, dim: Any = 0, *, axis: Any = None, out: Any = None) -> Value:
    return _together(tape, tensors, "cat", dim if axis is None else axis, out)


def _stack(tape: Tape, tensors: Any, dim: Any = 0, *, out: Any = None) -> Value:
    return _together(tape, tensors, "stack", dim, out)


def _together(tape: Tape, tensors: Any, name: str, dim: Any, out: Any) -> Value:
    import torch

    _none(out=out)
    flat, index = tape.joined([_either(part) for part in tensors])
    return tape.take(flat, getattr(torch, name)([torch.as_tensor(part) for part in index], dim=int(dim)).numpy())


def _pad(tape: Tape, input: Any, pad: Any, mode: str = "constant", value: Any = None) -> Value:
    import torch

    given = tensor(input)
    index = torch.as_tensor(given.index)
    if mode != "constant":
        raise ModelError(f"pads by mode {mode!r}", "use 'constant'.")
    padded = torch.nn.functional.pad(index, pad, value=-1).numpy()
    return tape.take(given, padded, 0.0 if value is None else float(_array(value)))


def _same(tape: Tape, input: Any, *, memory_format: Any = None) -> Any:
    return input


def _cast(tape: Tape, input: Any, *to: Any, **given: Any) -> Value:
    """The module's own precision and place are all that a network knows."""
    import torch

    for value in [*to, *given.values()]:
        here = value is torch.float64 or isinstance(value, Value | bool) or value is torch.preserve_format
        if isinstance(value, str | torch.device):
            here = torch.device(value).type == "cpu"
        elif isinstance(value, torch.Tensor):
            here = value.dtype == torch.float64
        if not here:
            raise ModelError(f"casts to {value}", "leave the numbers in the module's own precision.")
    return tensor(input)


MOVES = _words(
    "flatten reshape view squeeze unsqueeze transpose swapaxes permute t narrow select chunk split unbind expand "
    "expand_as view_as reshape_as unflatten ravel movedim flip index_select tile repeat roll tensor_split"
)
SHARED: dict[str, Handler] = {
    "add": add, "sub": sub, "subtract": sub, "mul": mul, "multiply": mul, "div": div, "divide": div,
    "true_divide": div, "neg": neg, "negative": neg, "abs": absolute, "absolute": absolute, "matmul": matmul,
    "mm": matmul, "mv": matmul, "addmm": addmm, "relu": relu, "prelu": prelu, "clamp": clamp, "clip": clamp,
    "clamp_min": clamp_min, "clamp_max": clamp_max, "maximum": maximum, "minimum": minimum, "max": _extreme(1.0),
    "min": _extreme(-1.0), "amax": _amax(1.0), "amin": _amax(-1.0), "sum": _sums(False), "mean": _sums(True),
    "sigmoid": sigmoid, "tanh": tanh, "softmax": softmax, "log_softmax": log_softmax, "clone": _same,
    "detach": _same, "erf": erf,
}  # fmt: skip
"""Functions of ``torch`` that are methods of tensors as well."""


@cache
def functions() -> dict[Any, Handler]:
    """Function -> how it is read."""
    import torch
    import torch.nn.functional as F

    found: dict[Any, Handler] = {
        getattr(torch, name): handler for name, handler in SHARED.items() if hasattr(torch, name)
    }
    found |= {getattr(torch, name): moved(name) for name in MOVES if hasattr(torch, name) and name != "split"}
    found[torch.split] = lambda tape, given, split_size_or_sections, dim=0: moved("split")(
        tape, given, split_size_or_sections, dim
    )
    for name in ("relu_", "clamp_", "clip_", "neg_", "abs_", "sigmoid_", "tanh_"):
        found[getattr(torch, name)] = SHARED[name[:-1]]
    found |= {torch.rsub: rsub, torch.cat: _cat, torch.concat: _cat, torch.concatenate: _cat, torch.stack: _stack}
    found |= {
        operator.add: add, operator.sub: sub, operator.mul: mul, operator.truediv: div, operator.neg: neg,
        operator.matmul: matmul, operator.iadd: add, operator.isub: sub, operator.imul: mul, operator.itruediv: div,
        operator.abs: absolute, operator.getitem: _item, getattr: _attribute, abs: absolute,
    }  # fmt: skip
    own = {
        "linear": linear, "relu": relu, "relu_": relu, "relu6": relu6, "leaky_relu": leaky_relu,
        "leaky_relu_": leaky_relu, "prelu": prelu, "hardtanh": hardtanh, "hardtanh_": hardtanh,
        "hardsigmoid": hardsigmoid, "softshrink": softshrink, "hardswish": hardswish, "sigmoid": sigmoid, "tanh": tanh,
        "softplus": softplus, "logsigmoid": logsigmoid, "silu": silu, "gelu": gelu, "elu": elu, "elu_": elu,
        "selu": selu, "celu": celu, "tanhshrink": tanhshrink, "mish": mish, "softmax": softmax,
        "log_softmax": log_softmax,
        "batch_norm": batch_norm, "dropout": dropout, "conv1d": conv1d, "conv2d": conv2d, "max_pool1d": max_pool1d,
        "max_pool2d": max_pool2d, "avg_pool1d": avg_pool1d, "avg_pool2d": avg_pool2d,
        "adaptive_avg_pool1d": adaptive_avg_pool(1), "adaptive_avg_pool2d": adaptive_avg_pool(2), "pad": _pad,
    }  # fmt: skip
    found |= {getattr(F, name): handler for name, handler in own.items()}
    found |= {torch.conv1d: conv1d, torch.conv2d: conv2d, torch.max_pool1d: max_pool1d, torch.max_pool2d: max_pool2d}
    found |= {torch.avg_pool1d: avg_pool1d, torch.softmax: softmax, torch.log_softmax: log_softmax}
    found |= {torch.selu: selu, torch.celu: celu}
    return found


@cache
def methods() -> dict[str, Handler]:
    """Method of a tensor -> how it is read."""
    found = dict(SHARED) | {name: moved(name) for name in MOVES}
    for name in ("add", "sub", "mul", "div", "neg", "abs", "relu", "clamp", "clip", "sigmoid", "tanh"):
        found[name + "_"] = SHARED[name]
    found |= {"contiguous": _same, "size": _size, "dim": lambda tape, input: len(tensor(input).shape)}
    found |= {"numel": lambda tape, input: tensor(input).size, "to": _cast, "type_as": _cast}
    found["double"] = _same
    return found


@cache
def constants() -> frozenset[Any]:
    """Further functions that may be carried out over constants alone: they draw nothing and change nothing."""
    import math

    import torch

    names = _words(
        "zeros ones full tensor as_tensor arange eye linspace zeros_like ones_like full_like sqrt rsqrt exp log pow "
        "square reciprocal diag outer tril triu where broadcast_to std var"
    )
    plain: list[Any] = [
        operator.floordiv,
        operator.mod,
        operator.pow,
        operator.pos,
        operator.eq,
        operator.lt,
        operator.gt,
    ]
    plain += [int, float, len, min, max, sum, math.prod, math.sqrt, range, tuple, list]
    called = _words("size item sqrt exp log pow square reciprocal numel dim float double new_zeros new_ones")
    return frozenset([*(getattr(torch, name) for name in names), *plain, *called])
