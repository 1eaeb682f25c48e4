"""Random modules and graphs out of every kind of operation that is read, for the property tests of the readers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

WIDEST = 64
"""Numbers a tensor holds at most, beyond which it is reduced."""


def torch_module(seed: int, curves: bool = False):
    """A torch module of one input row and one output, depth to 8, shapes to 64; and its number of inputs."""
    import torch
    from torch import nn

    made = _TorchDrawn(seed, curves)
    steps = [made.step() for _ in range(int(made.rng.integers(1, 9)))]
    last = nn.Linear(math.prod(made.shape), 1)

    class Drawn(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts, self.last = made.parts, last

        def forward(self, x):
            old = [x]
            for step in steps:
                old.append(step(self, old[-1], old))
            return self.last(old[-1].flatten(1))

    return Drawn().to(torch.float64).eval(), made.shapes[0][0]


class _TorchDrawn:
    """Draws steps (module, tensor, earlier tensors) -> tensor, and keeps the layers they call."""

    def __init__(self, seed: int, curves: bool) -> None:
        import torch
        from torch import nn

        self.rng, self.curves = np.random.default_rng(seed), curves
        torch.manual_seed(seed)
        self.parts = nn.ModuleList()
        n = int(self.rng.integers(1, 10)) if self.rng.random() < 0.8 else int(self.rng.integers(10, WIDEST + 1))
        self.shapes: list[tuple[int, ...]] = [(n,)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the last tensor, without the axis of examples."""
        return self.shapes[-1]

    def step(self):
        """One more step."""
        shape, rng = self.shape, self.rng
        if math.prod(shape) > WIDEST:
            pick: Callable[[], Any] = self.reduce
        elif len(shape) > 1 and rng.random() < 0.5:
            pick = self.space
        else:
            chances = [self.dense, self.bend, self.bend, self.arithmetic, self.older, self.move, self.move]
            chances += [self.reduce if rng.random() < 0.4 else self.bend, self.normal]
            pick = chances[int(rng.integers(len(chances)))]
        call, after = pick()
        self.shapes.append(tuple(int(size) for size in after))
        return call

    # ---- small tools
    def number(self) -> float:
        return float(self.rng.normal())

    def tensor(self, *shape: int):
        import torch

        return torch.as_tensor(self.rng.normal(size=shape))

    def layer(self, module):
        """A step that calls a layer of the module's own."""
        self.parts.append(module)
        i = len(self.parts) - 1
        return lambda m, h, old: m.parts[i](h)

    def one(self, calls):
        """One of several calls of a tensor as a step."""
        call = calls[int(self.rng.integers(len(calls)))]
        return lambda m, h, old: call(h)

    # ---- steps
    def dense(self):
        import torch
        import torch.nn.functional as F
        from torch import nn

        shape = self.shape
        out = int(self.rng.integers(1, 13)) if self.rng.random() < 0.9 else int(self.rng.integers(13, WIDEST + 1))
        weight, bias = self.tensor(out, shape[-1]) / 2, self.tensor(out)
        after = (*shape[:-1], out)
        pick = int(self.rng.integers(8))
        if pick < 3:
            return self.layer(nn.Linear(shape[-1], out, bias=bool(self.rng.random() < 0.8))), after
        if pick == 3 and len(shape) == 2:
            left = self.tensor(out, shape[0])
            return self.one([lambda h: left @ h, lambda h: torch.matmul(left, h)]), (out, shape[1])
        calls = [lambda h: F.linear(h, weight, bias), lambda h: h @ weight.T, lambda h: h.matmul(weight.T)]
        if len(shape) == 1:
            calls += [
                lambda h: torch.addmm(bias, h, weight.T, beta=0.5, alpha=2), lambda h: torch.mm(h, weight.T),
                lambda h: (weight @ h.T).T,
            ]  # fmt: skip
        return self.one(calls), after

    def normal(self):
        import torch
        from torch import nn

        shape = self.shape
        norm = nn.BatchNorm1d(shape[0]) if len(shape) < 3 else nn.BatchNorm2d(shape[0])
        norm.running_mean, norm.running_var = torch.randn(shape[0]), torch.rand(shape[0]) + 0.1
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        return self.layer(norm), shape

    def bend(self):
        import torch
        import torch.nn.functional as F
        from torch import nn

        shape, lo = self.shape, self.number()
        hi, slope = lo + abs(self.number()) + 0.01, float(self.rng.uniform(-0.5, 1.5))
        if self.curves:
            kinds = [nn.Sigmoid(), nn.Tanh(), nn.Softplus(), nn.SiLU(), nn.GELU(), nn.ELU(), nn.SELU(), nn.Hardswish(),
                     nn.CELU(), nn.LogSigmoid(), nn.Tanhshrink()]  # fmt: skip
            return self.layer(kinds[int(self.rng.integers(len(kinds)))]), shape
        kinds = [
            nn.ReLU(), nn.ReLU(inplace=bool(self.rng.random() < 0.3)), nn.LeakyReLU(slope), nn.Hardtanh(lo, hi),
            nn.ReLU6(), nn.Hardsigmoid(), nn.PReLU(1, slope), nn.PReLU(shape[0]), nn.Softshrink(abs(lo)),
            nn.Identity(), nn.Dropout(0.3), nn.AlphaDropout(0.3),
        ]  # fmt: skip
        ends, each = self.tensor(*shape), torch.full((shape[0],), slope, dtype=torch.float64)
        calls = [
            lambda h: torch.relu(h), lambda h: h.relu(), lambda h: F.relu(h), lambda h: F.leaky_relu(h, slope),
            lambda h: h.clamp(min=lo), lambda h: torch.clamp(h, max=hi), lambda h: torch.clip(h, lo, hi),
            lambda h: F.hardtanh(h, lo, hi), lambda h: F.hardsigmoid(h), lambda h: F.relu6(h), lambda h: h.abs(),
            lambda h: torch.abs(h), lambda h: torch.maximum(h, -h), lambda h: torch.minimum(h, 0.5 * h + 1),
            lambda h: F.softshrink(h, abs(lo)), lambda h: h.clamp_min(lo), lambda h: torch.max(h, ends),
            lambda h: h.min(ends), lambda h: h.clamp(ends, ends + 1), lambda h: h.clamp_max(hi),
            lambda h: F.prelu(h, each), lambda h: h.clone().relu_(), lambda h: (h + 0).clamp_(lo, hi), abs,
        ]  # fmt: skip
        if self.rng.random() < 0.4:
            return self.layer(kinds[int(self.rng.integers(len(kinds)))]), shape
        return self.one(calls), shape

    def arithmetic(self):
        import torch

        shape, a, v = self.shape, self.number(), self.tensor(*self.shape)
        b = a if abs(a) > 0.05 else 0.5
        w = torch.as_tensor(self.rng.uniform(0.3, 2, size=shape))
        calls = [
            lambda h: h + a, lambda h: a - h, lambda h: h * a, lambda h: h / b, lambda h: -h, lambda h: h - v,
            lambda h: v * h, lambda h: torch.add(h, v, alpha=2), lambda h: torch.sub(h, h, alpha=a),
            lambda h: h.mul(a), lambda h: torch.neg(h), lambda h: (h - a) / b, lambda h: torch.div(h, b),
            lambda h: torch.rsub(h, a), lambda h: (h - v) / w, lambda h: torch.true_divide(h, w),
            lambda h: h.clone().mul_(a).add_(v), lambda h: torch.subtract(v, h, alpha=a), lambda h: h.div(w).negative(),
            lambda h: torch.multiply(h, w) + h.shape[-1], lambda h: torch.stack([h, v.expand_as(h)]).sum(0),
        ]  # fmt: skip
        return self.one(calls), shape

    def older(self):
        import torch

        shape, which = self.shape, int(self.rng.integers(len(self.shapes)))
        other = self.shapes[which]
        if other == shape:
            calls = [
                lambda h, g: h + g, lambda h, g: h - g, torch.maximum, torch.minimum, lambda h, g: torch.max(g, h),
                lambda h, g: torch.stack([h, g], dim=1).mean(1), lambda h, g: torch.add(h, g, alpha=-0.5),
            ]  # fmt: skip
            call = calls[int(self.rng.integers(len(calls)))]
            return (lambda m, h, old: call(h, old[which])), shape
        if len(shape) == len(other) and shape[1:] == other[1:]:
            return (lambda m, h, old: torch.cat([h, old[which]], dim=1)), (shape[0] + other[0], *shape[1:])
        if len(shape) > 1 and math.prod(other) == math.prod(shape):
            return (lambda m, h, old: h + old[which].reshape(h.shape)), shape
        return self.arithmetic()

    def move(self):
        import torch
        import torch.nn.functional as F
        from torch import nn

        shape, rng = self.shape, self.rng
        size, width = math.prod(shape), self.shape[-1]
        if len(shape) > 1 and rng.random() < 0.6:
            axes = rng.permutation(len(shape)) + 1
            turned = tuple(shape[axis - 1] for axis in axes)
            swapped = (shape[-1], *shape[1:-1], shape[0])
            pick = int(rng.integers(7))
            if pick < 2:
                calls = [lambda h: h.transpose(1, -1), lambda h: torch.swapaxes(h, 1, -1)]
                return self.one(calls), swapped
            if pick == 2:
                return (lambda m, h, old: h.permute(0, *axes.tolist())), turned
            if pick == 3:
                return self.layer(nn.Flatten()), (size,)
            if pick == 4:
                return (lambda m, h, old: torch.movedim(h, 1, -1)), (*shape[1:], shape[0])
            if pick == 5:
                return (lambda m, h, old: h.unbind(1)[-1]), shape[1:]
            return self.one([lambda h: h.flatten(1), lambda h: h.reshape(h.size(0), -1)]), (size,)
        first = int(rng.integers(width))
        last = int(rng.integers(first + 1, width + 1))
        order = torch.as_tensor(rng.permutation(width))
        parts = [k for k in range(2, 9) if width % k == 0]
        if parts and len(shape) < 3 and rng.random() < 0.5:
            k = int(rng.choice(parts))
            after = (*shape[:-1], k, width // k)
            calls = [lambda h: h.reshape(-1, *after), lambda h: h.unflatten(-1, (k, width // k)),
                     lambda h: h.contiguous().view(-1, *after)]  # fmt: skip
            return (
                (self.layer(nn.Unflatten(len(shape), (k, width // k))), after)
                if rng.random() < 0.2
                else (self.one(calls), after)
            )
        cut = (*shape[:-1], last - first)
        if rng.random() < 0.3:
            calls = [lambda h: h[..., first:last], lambda h: h.narrow(-1, first, last - first),
                     lambda h: torch.split(h, [first, last - first, width - last], dim=-1)[1],
                     lambda h: torch.tensor_split(h, (first, last), dim=-1)[1]]  # fmt: skip
            return self.one(calls), cut
        if rng.random() < 0.3:
            pads = [(lambda h: F.pad(h, (1, 2), value=0.3)), (lambda h: F.pad(h, [2, 1]))]
            return self.one(pads), (*shape[:-1], width + 3)
        if len(shape) == 1 and rng.random() < 0.2:
            calls = [lambda h: h.repeat(1, 2), lambda h: torch.tile(h, (1, 2)), lambda h: torch.cat([h, -h], 1)]
            return self.one(calls), (2 * width,)
        if rng.random() < 0.2:
            calls = [lambda h: h.unsqueeze(1).expand(-1, 2, *shape), lambda h: torch.stack([h, 2 * h], dim=1)]
            return (self.one(calls), (2, *shape)) if len(shape) < 3 else (self.one([torch.clone]), shape)
        calls = [
            lambda h: torch.index_select(h, -1, order), lambda h: h[..., order], lambda h: torch.flip(h, [-1]),
            lambda h: h.roll(1, dims=-1), lambda h: torch.cat(h.chunk(2, dim=-1)[::-1], dim=-1),
            lambda h: h.unsqueeze(1).squeeze(1), lambda h: h[:, None][:, 0],
        ]  # fmt: skip
        return self.one(calls), shape

    def reduce(self):
        import torch

        shape = self.shape
        axis = int(self.rng.integers(len(shape)))
        calls = [
            lambda h: h.sum(dim=axis + 1, keepdim=True), lambda h: torch.mean(h, dim=axis + 1, keepdim=True),
            lambda h: torch.amax(h, dim=axis + 1, keepdim=True), lambda h: h.min(dim=axis + 1, keepdim=True)[0],
            lambda h: torch.max(h, axis + 1, keepdim=True).values, lambda h: h.amin((axis + 1,), keepdim=True),
        ]  # fmt: skip
        return self.one(calls), (*shape[:axis], 1, *shape[axis + 1 :])

    def space(self):
        """Windows over the last one or two axes."""
        import torch.nn.functional as F
        from torch import nn

        rng, (channels, *spaces) = self.rng, self.shape
        kernel = [int(rng.integers(1, min(4, n) + 1)) for n in spaces]
        stride = [int(rng.integers(1, 3)) for _ in spaces]
        pad = [int(rng.integers(0, k // 2 + 1)) for k in kernel]
        left = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(spaces, pad, kernel, stride, strict=True)]
        two = len(spaces) == 2
        pick, count = int(rng.integers(7)), bool(rng.random() < 0.5)
        if pick < 2:
            groups = channels if rng.random() < 0.3 and channels < 9 else 1
            out = groups * int(rng.integers(1, 4))
            made = (nn.Conv2d if two else nn.Conv1d)(channels, out, kernel, stride, pad, groups=groups, bias=count)
            if rng.random() < 0.3:
                weight, bias = self.tensor(out, channels, *kernel) / 2, self.tensor(out)
                call = F.conv2d if two else F.conv1d
                return (lambda m, h, old: call(h, weight, bias, stride, pad)), (out, *left)
            return self.layer(made), (out, *left)
        if pick == 2:
            return self.layer((nn.MaxPool2d if two else nn.MaxPool1d)(kernel, stride, pad)), (channels, *left)
        if pick == 3:
            made = (nn.AvgPool2d if two else nn.AvgPool1d)(kernel, stride, pad, count_include_pad=count)
            return self.layer(made), (channels, *left)
        if pick == 4:
            made = (nn.AdaptiveAvgPool2d if two else nn.AdaptiveAvgPool1d)(1)
            return self.layer(made), (channels, *(1 for _ in spaces))
        if pick == 5:
            call = F.max_pool2d if two else F.max_pool1d
            return (lambda m, h, old: call(h, kernel, stride, pad)), (channels, *left)
        call = F.avg_pool2d if two else F.avg_pool1d
        return (lambda m, h, old: call(h, kernel, stride, pad)), (channels, *left)


OPSETS = (9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 22, 23)


def onnx_graph(seed: int):
    """An ONNX model (float64) of one input row and one output, depth to 8, shapes to 64; and its inputs."""
    from onnx import TensorProto, helper

    made = _GraphDrawn(seed)
    n = made.shape[0]
    for _ in range(int(made.rng.integers(1, 9))):
        made.step()
    h, shape = made.tensors[-1]
    made.node("Flatten", [h], (math.prod(shape),), axis=1)
    h, shape = made.tensors[-1]
    made.node("Gemm", [h, made.constant(made.rng.normal(size=(1, *shape))), made.constant([0.3])], (1,), transB=1)
    graph = helper.make_graph(
        made.nodes,
        "drawn",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, n])],
        [helper.make_tensor_value_info(made.nodes[-1].output[0], TensorProto.DOUBLE, [None, 1])],
        made.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", made.opset)], ir_version=8), n


class _GraphDrawn:
    """Draws nodes one after the other."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = int(self.rng.choice(OPSETS))
        n = int(self.rng.integers(1, 10)) if self.rng.random() < 0.8 else int(self.rng.integers(10, WIDEST + 1))
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.tensors: list[tuple[str, tuple[int, ...]]] = [("x", (n,))]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the last tensor, without the axis of examples."""
        return self.tensors[-1][1]

    def step(self) -> None:
        """One more step: one node, now and then two."""
        (h, shape), rng = self.tensors[-1], self.rng
        if math.prod(shape) > WIDEST:
            pick: Callable[..., None] = self.reduce
        elif len(shape) > 1 and rng.random() < 0.5:
            pick = self.space
        else:
            chances = [self.dense, self.bend, self.bend, self.arithmetic, self.older, self.move, self.move]
            chances += [self.normal, self.reduce if rng.random() < 0.4 else self.bend]
            pick = chances[int(rng.integers(len(chances)))]
        pick(h, shape)

    # ---- small tools
    def constant(self, value: Any) -> str:
        """A constant of the graph: an initializer, or a node of its own."""
        from onnx import helper, numpy_helper

        array = np.asarray(value) if not isinstance(value, list) else np.asarray(value, dtype=np.float64)
        name = f"c{len(self.constants)}_{len(self.nodes)}"
        tensor = numpy_helper.from_array(array, name)
        if self.rng.random() < 0.2:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.constants.append(tensor)
        return name

    def whole(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def node(self, kind: str, inputs: list[str], shape: Any, others: int = 0, **given: Any) -> None:
        """A node whose first output goes on; ``others`` further outputs are left."""
        from onnx import helper

        name = f"t{len(self.nodes)}"
        outputs = [name, *(f"{name}_{i}" for i in range(others))]
        self.nodes.append(helper.make_node(kind, inputs, outputs, **given))
        self.tensors.append((name, tuple(int(size) for size in shape)))

    # ---- steps
    def dense(self, h: str, shape: tuple[int, ...]) -> None:
        rng = self.rng
        out = int(rng.integers(1, 13)) if rng.random() < 0.9 else int(rng.integers(13, WIDEST + 1))
        if len(shape) == 1 and rng.random() < 0.6:
            flip = int(rng.random() < 0.5)
            weight = rng.normal(size=(out, shape[0]) if flip else (shape[0], out)) / 2
            given = [h, self.constant(weight), self.constant(rng.normal(size=out))]
            alpha, beta = (float(rng.uniform(0.5, 2)) for _ in range(2))
            self.node("Gemm", given, (out,), transB=flip, alpha=alpha, beta=beta)
        elif len(shape) == 2 and rng.random() < 0.4:
            self.node("MatMul", [self.constant(rng.normal(size=(out, shape[0]))), h], (out, shape[1]))
        else:
            self.node("MatMul", [h, self.constant(rng.normal(size=(shape[-1], out)) / 2)], (*shape[:-1], out))

    def bend(self, h: str, shape: tuple[int, ...]) -> None:
        rng = self.rng
        lo = float(rng.normal())
        hi = lo + float(rng.uniform(0.01, 2))
        pick, which = int(rng.integers(10)), int(rng.integers(3))
        if pick in (0, 6, 7):
            self.node("Relu", [h], shape)
        elif pick == 1:
            self.node("LeakyRelu", [h], shape, alpha=float(rng.uniform(-0.5, 1.5)))
        elif pick == 2:
            self.node("PRelu", [h, self.constant(rng.uniform(-0.5, 1.5, size=shape[-1:]))], shape)
        elif pick == 3 and self.opset < 11:
            self.node("Clip", [h], shape, **({"min": lo} if which != 1 else {}), **({"max": hi} if which != 0 else {}))
        elif pick == 3:
            ends = [self.constant(lo) if which != 1 else "", self.constant(hi) if which != 0 else ""]
            self.node("Clip", [h, *ends], shape)
        elif pick == 4:
            self.node("HardSigmoid", [h], shape, alpha=float(rng.uniform(0.1, 1)), beta=lo)
        elif pick == 5:
            self.node("Abs", [h], shape)
        elif pick == 8:
            self.node(str(rng.choice(["Identity", "Dropout"])), [h], shape)
        else:
            self.node(str(rng.choice(["Max", "Min"])), [h, self.constant(rng.normal(size=shape[-1:]))], shape)

    def arithmetic(self, h: str, shape: tuple[int, ...]) -> None:
        rng = self.rng
        number = self.constant(
            rng.normal(size=shape[-1:]) if rng.random() < 0.5 else np.array(float(rng.uniform(0.3, 2)))
        )
        kind = str(rng.choice(["Add", "Sub", "Mul", "Div", "Neg", "Sum", "Mean"]))
        if kind == "Neg":
            return self.node("Neg", [h], shape)
        # onnx's reference evaluator adds into its first operand, which must be the larger.
        inputs = [h, number] if kind in ("Div", "Sum", "Mean") or rng.random() < 0.5 else [number, h]
        return self.node(kind, inputs, shape)

    def older(self, h: str, shape: tuple[int, ...]) -> None:
        rng = self.rng
        name, other = self.tensors[int(rng.integers(len(self.tensors)))]
        if other == shape:
            self.node(str(rng.choice(["Add", "Sub", "Max", "Min", "Sum", "Mean"])), [h, name], shape)
        elif len(other) == len(shape) and other[1:] == shape[1:]:
            axis = 1 if len(shape) > 1 else int(rng.choice([1, -1]))
            self.node("Concat", [h, name], (shape[0] + other[0], *shape[1:]), axis=axis)
        else:
            self.arithmetic(h, shape)

    def move(self, h: str, shape: tuple[int, ...]) -> None:
        rng, width, size = self.rng, shape[-1], math.prod(shape)
        if len(shape) > 1 and rng.random() < 0.6:
            if len(shape) == 3 and rng.random() < 0.5 and all(n % 2 == 0 for n in shape[1:]):
                after = (4 * shape[0], shape[1] // 2, shape[2] // 2)
                return self.node("SpaceToDepth", [h], after, blocksize=2)
            if len(shape) == 3 and rng.random() < 0.5 and shape[0] % 4 == 0:
                return self.node("DepthToSpace", [h], (shape[0] // 4, shape[1] * 2, shape[2] * 2), blocksize=2)
            if rng.random() < 0.5:
                axes = rng.permutation(len(shape))
                perm = [0, *(int(axis) + 1 for axis in axes)]
                return self.node("Transpose", [h], [shape[axis] for axis in axes], perm=perm)
            return self.node("Flatten", [h], (size,), axis=1)
        parts = [k for k in range(2, 9) if width % k == 0]
        if parts and len(shape) < 3 and rng.random() < 0.4:
            k = int(rng.choice(parts))
            after = (*shape[:-1], k, width // k)
            return self.node("Reshape", [h, self.whole(-1, *after)], after)
        pick = int(rng.integers(7))
        axis = len(shape)
        if pick == 0:
            order = rng.integers(0, width, size=int(rng.integers(1, 6)))
            return self.node("Gather", [h, self.whole(*order.tolist())], (*shape[:-1], len(order)), axis=axis)
        if pick == 1 and width > 1:
            return self.split(h, shape)
        if pick == 2 and len(shape) < 3:
            return self.widened(h, shape)
        if pick == 3:
            pads = [0] * axis + [1] + [0] * axis + [2]
            after = (*shape[:-1], width + 3)
            if self.opset < 11:
                return self.node("Pad", [h], after, pads=pads, value=0.3)
            return self.node("Pad", [h, self.whole(*pads), self.constant(np.array(0.3))], after)
        if pick == 4:
            return self.node("Tile", [h, self.whole(*[1] * axis, 2)], (*shape[:-1], 2 * width))
        first = int(rng.integers(width))
        last = int(rng.integers(first + 1, width + 1))
        after = (*shape[:-1], last - first)
        if self.opset < 10:
            return self.node("Slice", [h], after, axes=[axis], starts=[first], ends=[last])
        return self.node("Slice", [h, *(self.whole(v) for v in (first, last, axis))], after)

    def split(self, h: str, shape: tuple[int, ...]) -> None:
        """The first of two parts of the last axis."""
        width, axis = shape[-1], len(shape)
        first = int(self.rng.integers(1, width))
        after = (*shape[:-1], first)
        if self.opset < 13:
            return self.node("Split", [h], after, others=1, axis=axis, split=[first, width - first])
        return self.node("Split", [h, self.whole(first, width - first)], after, others=1, axis=axis)

    def widened(self, h: str, shape: tuple[int, ...]) -> None:
        """An axis put in and repeated, or taken out again."""
        axes: dict[str, Any] = {"axes": [1]} if self.opset < 13 else {}
        more = [] if axes else [self.whole(1)]
        self.node("Unsqueeze", [h, *more], (1, *shape), **axes)
        h = self.tensors[-1][0]
        if self.rng.random() < 0.5:
            return self.node("Squeeze", [h, *more], shape, **axes)
        return self.node("Expand", [h, self.whole(1, 2, *[1] * len(shape))], (2, *shape))

    def reduce(self, h: str, shape: tuple[int, ...]) -> None:
        axis = int(self.rng.integers(len(shape))) + 1
        kind = str(self.rng.choice(["ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean"]))
        after = (*shape[: axis - 1], 1, *shape[axis:])
        if self.opset >= 18 or (self.opset >= 13 and kind == "ReduceSum"):
            return self.node(kind, [h, self.whole(axis)], after, keepdims=1)
        return self.node(kind, [h], after, axes=[axis], keepdims=1)

    def space(self, h: str, shape: tuple[int, ...]) -> None:
        """Windows over the last one or two axes."""
        rng, (channels, *spaces) = self.rng, shape
        kernel = [int(rng.integers(1, min(4, n) + 1)) for n in spaces]
        stride = [int(rng.integers(1, 3)) for _ in spaces]
        pad = [int(rng.integers(0, k // 2 + 1)) for k in kernel]
        left = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(spaces, pad, kernel, stride, strict=True)]
        given = {"kernel_shape": kernel, "strides": stride, "pads": [*pad, *pad]}
        pick = int(rng.integers(5))
        if pick < 2:
            groups = channels if rng.random() < 0.3 and channels < 9 else 1
            out = groups * int(rng.integers(1, 4))
            weight = rng.normal(size=(out, channels // groups, *kernel)) / 2
            inputs = [h, self.constant(weight), self.constant(rng.normal(size=out))]
            return self.node("Conv", inputs, (out, *left), group=groups, **given)
        if pick == 2:
            return self.node("MaxPool", [h], (channels, *left), **given)
        if pick == 3:
            # The largest over all of one axis is wrong in onnx's reference evaluator, the judge without a kernel.
            kind = str(rng.choice(["GlobalAveragePool", "GlobalMaxPool"])) if len(spaces) == 2 else "GlobalAveragePool"
            return self.node(kind, [h], (channels, *(1 for _ in spaces)))
        return self.node("AveragePool", [h], (channels, *left), count_include_pad=int(rng.random() < 0.5), **given)

    def normal(self, h: str, shape: tuple[int, ...]) -> None:
        rng, size = self.rng, shape[0]
        if self.opset < 14:
            # onnx's reference evaluator, the judge, mixes the examples of a batch before opset 14.
            return self.arithmetic(h, shape)
        inputs = [self.constant(rng.normal(size=size)) for _ in range(3)]
        inputs += [self.constant(rng.uniform(0.1, 2, size=size))]
        return self.node("BatchNormalization", [h, *inputs], shape, epsilon=1e-4, momentum=0.9)
