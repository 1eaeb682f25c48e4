"""Random modules and graphs out of every operation that is read, for the property tests of the readers."""

from __future__ import annotations

import numpy as np


def torch_module(seed: int, curves: bool = False):
    """A torch module of one input row and one output, depth to 8, and its number of inputs."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    n = int(rng.integers(1, 10))
    parts, steps = nn.ModuleList(), []
    shapes = [(n,)]

    def layer(module):
        parts.append(module)
        return len(parts) - 1

    def number():
        return float(rng.normal())

    def vector(shape):
        return torch.as_tensor(rng.normal(size=shape))

    def dense(shape):
        out = int(rng.integers(1, 13))
        i = layer(nn.Linear(shape[-1], out, bias=bool(rng.random() < 0.8)))
        return (lambda m, h, old: m.parts[i](h)), (*shape[:-1], out)

    def normal(shape):
        norm = nn.BatchNorm1d(shape[0]) if len(shape) < 3 else nn.BatchNorm2d(shape[0])
        norm.running_mean, norm.running_var = torch.randn(shape[0]), torch.rand(shape[0]) + 0.1
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        i = layer(norm)
        return (lambda m, h, old: m.parts[i](h)), shape

    def bend(shape):
        lo = number()
        hi = lo + abs(number()) + 0.01
        slope = float(rng.uniform(-0.5, 1.5))
        kinds = [
            nn.ReLU(), nn.ReLU(inplace=bool(rng.random() < 0.3)), nn.LeakyReLU(slope), nn.Hardtanh(lo, hi), nn.ReLU6(),
            nn.Hardsigmoid(), nn.PReLU(1, slope), nn.PReLU(shape[0]) if len(shape) > 0 else nn.PReLU(),
            nn.Softshrink(abs(lo)), nn.Identity(), nn.Dropout(0.3),
        ]  # fmt: skip
        if curves:
            kinds = [nn.Sigmoid(), nn.Tanh(), nn.Softplus(), nn.SiLU(), nn.GELU(), nn.ELU(), nn.SELU(), nn.Hardswish()]
        calls = [
            lambda h: torch.relu(h), lambda h: h.relu(), lambda h: F.relu(h), lambda h: F.leaky_relu(h, slope),
            lambda h: h.clamp(min=lo), lambda h: torch.clamp(h, max=hi), lambda h: torch.clip(h, lo, hi),
            lambda h: F.hardtanh(h, lo, hi), lambda h: F.hardsigmoid(h), lambda h: F.relu6(h), lambda h: h.abs(),
            lambda h: torch.abs(h), lambda h: torch.maximum(h, h.new_zeros(()) if False else -h),
            lambda h: torch.minimum(h, 0.5 * h + 1), lambda h: F.softshrink(h, abs(lo)), lambda h: h.clamp_min(lo),
        ]  # fmt: skip
        if curves or rng.random() < 0.5:
            i = layer(kinds[int(rng.integers(len(kinds)))])
            return (lambda m, h, old: m.parts[i](h)), shape
        call = calls[int(rng.integers(len(calls)))]
        return (lambda m, h, old: call(h)), shape

    def arithmetic(shape):
        a, v = number(), vector(shape)
        b = a if abs(a) > 0.05 else 0.5
        calls = [
            lambda h: h + a, lambda h: a - h, lambda h: h * a, lambda h: h / b, lambda h: -h, lambda h: h - v,
            lambda h: v * h, lambda h: torch.add(h, v, alpha=2), lambda h: torch.sub(h, h, alpha=a),
            lambda h: h.mul(a), lambda h: torch.neg(h), lambda h: (h - a) / b, lambda h: torch.div(h, b),
            lambda h: torch.rsub(h, a),
        ]  # fmt: skip
        call = calls[int(rng.integers(len(calls)))]
        return (lambda m, h, old: call(h)), shape

    def older(shape):
        which = int(rng.integers(len(shapes)))
        if shapes[which] == shape:
            sign = int(rng.integers(4))
            return (
                lambda m, h, old: [h + old[which], h - old[which], torch.maximum(h, old[which]),
                                   torch.minimum(old[which], h)][sign]
            ), shape  # fmt: skip
        if len(shape) == 1 and len(shapes[which]) == 1:
            wide = shape[0] + shapes[which][0]
            return (lambda m, h, old: torch.cat([h, old[which]], dim=1)), (wide,)
        return arithmetic(shape)

    def move(shape):
        if len(shape) == 1:
            width = shape[0]
            first = int(rng.integers(width))
            last = int(rng.integers(first + 1, width + 1))
            order = torch.as_tensor(rng.permutation(width))
            if width % 2 == 0 and rng.random() < 0.3:
                return (lambda m, h, old: h.reshape(h.shape[0], 2, width // 2)), (2, width // 2)
            pick = int(rng.integers(6))
            if pick == 0:
                return (lambda m, h, old: h[:, first:last]), (last - first,)
            if pick == 1:
                return (lambda m, h, old: torch.index_select(h, 1, order)), shape
            if pick == 2 and width > 1:
                return (lambda m, h, old: torch.cat(h.chunk(2, dim=-1)[::-1], dim=-1)), shape
            if pick == 3:
                return (lambda m, h, old: torch.flip(h, [1])), shape
            if pick == 4:
                return (lambda m, h, old: F.pad(h, (1, 2), value=0.3)), (width + 3,)
            return (lambda m, h, old: h.narrow(1, first, last - first)), (last - first,)
        if len(shape) == 2 and rng.random() < 0.4:
            return (lambda m, h, old: h.transpose(1, 2)), shape[::-1]
        size = int(np.prod(shape))
        return (lambda m, h, old: h.flatten(1)), (size,)

    def reduce(shape):
        axis = int(rng.integers(len(shape)))
        calls = [
            lambda h: h.sum(dim=axis + 1, keepdim=True), lambda h: torch.mean(h, dim=axis + 1, keepdim=True),
            lambda h: torch.amax(h, dim=axis + 1, keepdim=True), lambda h: h.min(dim=axis + 1, keepdim=True)[0],
            lambda h: torch.max(h, axis + 1, keepdim=True).values,
        ]  # fmt: skip
        call = calls[int(rng.integers(len(calls)))]
        return (lambda m, h, old: call(h)), (*shape[:axis], 1, *shape[axis + 1 :])

    def space(shape):
        channels, length = shape
        kernel = int(rng.integers(1, min(4, length) + 1))
        stride, pad = int(rng.integers(1, 3)), int(rng.integers(0, kernel // 2 + 1))
        left = (length + 2 * pad - kernel) // stride + 1
        pick = int(rng.integers(3))
        if pick == 0:
            out = int(rng.integers(1, 4))
            i = layer(nn.Conv1d(channels, out, kernel, stride, pad))
            return (lambda m, h, old: m.parts[i](h)), (out, left)
        if pick == 1:
            i = layer(nn.MaxPool1d(kernel, stride, pad))
        else:
            i = layer(nn.AvgPool1d(kernel, stride, pad, count_include_pad=bool(rng.random() < 0.5)))
        return (lambda m, h, old: m.parts[i](h)), (channels, left)

    depth = int(rng.integers(1, 9))
    for _ in range(depth):
        shape = shapes[-1]
        if int(np.prod(shape)) > 64:
            pick = reduce
        elif len(shape) == 2 and rng.random() < 0.5:
            pick = space
        else:
            chances = [dense, bend, bend, arithmetic, older, move, reduce if rng.random() < 0.4 else bend]
            chances += [normal] if len(shape) < 3 else []
            pick = chances[int(rng.integers(len(chances)))]
        step, after = pick(shape)
        steps.append(step)
        shapes.append(after)
    last = nn.Linear(int(np.prod(shapes[-1])), 1)

    class Drawn(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts, self.last = parts, last

        def forward(self, x):
            old = [x]
            for step in steps:
                old.append(step(self, old[-1], old))
            return self.last(old[-1].flatten(1))

    return Drawn().double().eval(), n


def onnx_graph(seed: int):
    """An ONNX model (float64) of one input row and one output, depth to 8, opset 9 to 21; and its inputs."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    opset = int(rng.choice([9, 10, 11, 12, 13, 15, 17, 18, 20, 21]))
    n = int(rng.integers(1, 10))
    nodes, constants = [], []
    tensors = [("x", (n,))]

    def constant(value):
        name = f"c{len(constants)}"
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(kind, inputs, shape, **given):
        name = f"t{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], **given))
        tensors.append((name, tuple(shape)))

    def shaped(name, shape):
        return constant(np.array([-1, *shape], dtype=np.int64))

    def dense(h, shape):
        out = int(rng.integers(1, 13))
        if len(shape) == 1 and rng.random() < 0.6:
            flip = int(rng.random() < 0.5)
            weight = rng.normal(size=(out, shape[0]) if flip else (shape[0], out))
            given = [h, constant(weight), constant(rng.normal(size=out))]
            node("Gemm", given, (out,), transB=flip, alpha=float(rng.uniform(0.5, 2)), beta=float(rng.uniform(0.5, 2)))
        else:
            node("MatMul", [h, constant(rng.normal(size=(shape[-1], out)))], (*shape[:-1], out))

    def bend(h, shape):
        lo = float(rng.normal())
        hi = lo + float(rng.uniform(0.01, 2))
        pick = int(rng.integers(8))
        if pick == 0 or pick == 7:
            node("Relu", [h], shape)
        elif pick == 1:
            node("LeakyRelu", [h], shape, alpha=float(rng.uniform(-0.5, 1.5)))
        elif pick == 2:
            node("PRelu", [h, constant(rng.uniform(-0.5, 1.5, size=shape[-1:]))], shape)
        elif pick == 3 and opset < 11:
            which = int(rng.integers(3))
            node("Clip", [h], shape, **({"min": lo} if which != 1 else {}), **({"max": hi} if which != 0 else {}))
        elif pick == 3:
            which = int(rng.integers(3))
            ends = [constant(lo) if which != 1 else "", constant(hi) if which != 0 else ""]
            node("Clip", [h, *ends], shape)
        elif pick == 4:
            node("HardSigmoid", [h], shape, alpha=float(rng.uniform(0.1, 1)), beta=lo)
        elif pick == 5:
            node("Abs", [h], shape)
        else:
            node(str(rng.choice(["Max", "Min"])), [h, constant(rng.normal(size=shape[-1:]))], shape)

    def arithmetic(h, shape):
        number = constant(rng.normal(size=shape[-1:]) if rng.random() < 0.5 else np.array(float(rng.uniform(0.3, 2))))
        kind = str(rng.choice(["Add", "Sub", "Mul", "Div", "Neg", "Sum", "Mean"]))
        if kind == "Neg":
            return node("Neg", [h], shape)
        # onnx's reference evaluator adds into its first operand, which must be the larger.
        inputs = [h, number] if kind in ("Div", "Sum", "Mean") or rng.random() < 0.5 else [number, h]
        return node(kind, inputs, shape)

    def older(h, shape):
        name, other = tensors[int(rng.integers(len(tensors)))]
        if other == shape:
            node(str(rng.choice(["Add", "Sub", "Max", "Min", "Sum", "Mean"])), [h, name], shape)
        elif len(other) == len(shape) == 1:
            node("Concat", [h, name], (shape[0] + other[0],), axis=int(rng.choice([1, -1])))
        else:
            arithmetic(h, shape)

    def move(h, shape):
        if len(shape) == 2:
            if rng.random() < 0.5:
                return node("Transpose", [h], shape[::-1], perm=[0, 2, 1])
            return node("Flatten", [h], (int(np.prod(shape)),), axis=1)
        width = shape[0]
        first = int(rng.integers(width))
        last = int(rng.integers(first + 1, width + 1))
        if width % 2 == 0 and rng.random() < 0.3:
            return node("Reshape", [h, shaped(h, (2, width // 2))], (2, width // 2))
        if rng.random() < 0.3:
            order = rng.integers(0, width, size=int(rng.integers(1, 6)))
            return node("Gather", [h, constant(order.astype(np.int64))], (len(order),), axis=1)
        if opset < 10:
            return node("Slice", [h], (last - first,), axes=[1], starts=[first], ends=[last])
        ends = [constant(np.array([v], dtype=np.int64)) for v in (first, last, 1)]
        return node("Slice", [h, *ends], (last - first,))

    def reduce(h, shape):
        axis = int(rng.integers(len(shape))) + 1
        kind = str(rng.choice(["ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean"]))
        after = (*shape[: axis - 1], 1, *shape[axis:])
        if opset >= 18 or (opset >= 13 and kind == "ReduceSum"):
            return node(kind, [h, constant(np.array([axis], dtype=np.int64))], after, keepdims=1)
        return node(kind, [h], after, axes=[axis], keepdims=1)

    def space(h, shape):
        channels, length = shape
        kernel = int(rng.integers(1, min(4, length) + 1))
        stride, pad = int(rng.integers(1, 3)), int(rng.integers(0, kernel // 2 + 1))
        left = (length + 2 * pad - kernel) // stride + 1
        given = {"kernel_shape": [kernel], "strides": [stride], "pads": [pad, pad]}
        pick = int(rng.integers(3))
        if pick == 0:
            out = int(rng.integers(1, 4))
            inputs = [h, constant(rng.normal(size=(out, channels, kernel))), constant(rng.normal(size=out))]
            return node("Conv", inputs, (out, left), **given)
        return node("MaxPool" if pick == 1 else "AveragePool", [h], (channels, left), **given)

    def normal(h, shape):
        if opset < 14:
            # onnx's reference evaluator, the judge, mixes the examples of a batch before opset 14.
            return arithmetic(h, shape)
        size = shape[0]
        inputs = [constant(rng.normal(size=size)) for _ in range(3)] + [constant(rng.uniform(0.1, 2, size=size))]
        return node("BatchNormalization", [h, *inputs], shape, epsilon=1e-4, momentum=0.9)

    for _ in range(int(rng.integers(1, 9))):
        h, shape = tensors[-1]
        chances = [dense, bend, bend, arithmetic, older, move, normal, reduce if rng.random() < 0.4 else bend]
        pick = chances[int(rng.integers(len(chances)))]
        if int(np.prod(shape)) > 64:
            pick = reduce
        elif len(shape) == 2 and rng.random() < 0.5:
            pick = space
        pick(h, shape)
    h, shape = tensors[-1]
    node("Flatten", [h], (int(np.prod(shape)),), axis=1)
    h, shape = tensors[-1]
    node("Gemm", [h, constant(rng.normal(size=(1, *shape))), constant(rng.normal(size=1))], (1,), transB=1)
    graph = helper.make_graph(
        nodes,
        "drawn",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, n])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.DOUBLE, [None, 1])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), n
