"""Every layer, call, operator and estimator on the readers' lists has an example, which equals its framework."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from rmab_opt.encoder import Network, read_model
from rmab_opt.encoder.read import torch_calls
from rmab_opt.encoder.read.models import ESTIMATORS, SCALERS
from rmab_opt.encoder.read.onnx_files import OPERATORS
from rmab_opt.encoder.read.torch_modules import layers

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

SMOOTH = 2e-3
RNG = np.random.default_rng(11)


def numbers(*shape, low=0.3, high=1.7):
    return torch.as_tensor(RNG.uniform(low, high, size=shape))


V, W, B, SQUARE = numbers(4), numbers(3, 4), numbers(3), numbers(4, 4)

# ---- torch's layers: name -> arguments; shape of one example where it is not (4,)
LAYERS = {
    "AdaptiveAvgPool1d": (2,), "AdaptiveAvgPool2d": ((1, 2),), "AlphaDropout": (), "AvgPool1d": (2,), "AvgPool2d": (2,),
    "BatchNorm1d": (4,), "BatchNorm2d": (2,), "CELU": (0.7,), "Conv1d": (2, 3, 2), "Conv2d": (2, 3, 2), "Dropout": (),
    "Dropout1d": (), "Dropout2d": (), "ELU": (0.7,), "Flatten": (), "GELU": (), "Hardsigmoid": (), "Hardswish": (),
    "Hardtanh": (-0.4, 0.6), "Identity": (), "LeakyReLU": (0.1,), "Linear": (4, 3), "LogSigmoid": (),
    "LogSoftmax": (1,), "Mish": (),
    "MaxPool1d": (2,), "MaxPool2d": (2,), "PReLU": (4, 0.3), "ReLU": (), "ReLU6": (), "SELU": (), "SiLU": (),
    "Sigmoid": (), "Softmax": (1,), "Softplus": (), "Softshrink": (0.4,), "Tanh": (), "Tanhshrink": (),
    "Unflatten": (1, (2, 2)),
}  # fmt: skip
PLANES = {"AdaptiveAvgPool2d", "AvgPool2d", "BatchNorm2d", "Conv2d", "Dropout2d", "MaxPool2d"}
LINES = {"AdaptiveAvgPool1d", "AvgPool1d", "Conv1d", "Dropout1d", "MaxPool1d"}

# ---- calls of one tensor: name -> (what follows the tensor, shape of one example)
CALLS = {
    "abs": (), "abs_": (), "absolute": (), "adaptive_avg_pool1d": (2,), "adaptive_avg_pool2d": ((1, 2),),
    "add": (V,), "add_": (V,), "amax": (-1,), "amin": (-1,), "avg_pool1d": (2,), "avg_pool2d": (2,),
    "batch_norm": (V, V + 1, V, V), "celu": (), "chunk": (2, 1), "clamp": (-0.5, 0.5), "clamp_": (-0.5, 0.5),
    "clamp_max": (0.3,), "clamp_min": (-0.3,), "clip": (-0.5, 0.5), "clip_": (None, 0.5), "clone": (), "contiguous": (),
    "conv1d": (numbers(3, 2, 2), B), "conv2d": (numbers(3, 2, 2, 2), B), "detach": (), "div": (V,), "div_": (V,),
    "divide": (V,), "double": (), "dropout": (0.5, False), "elu": (), "elu_": (), "erf": (), "expand": (-1, 2, -1),
    "expand_as": (torch.zeros(1, 2, 4),), "flatten": (1,), "flip": ([1],), "gelu": (), "hardsigmoid": (),
    "hardswish": (), "hardtanh": (), "hardtanh_": (), "iadd": (V,), "imul": (V,),
    "index_select": (1, torch.tensor([2, 0])),
    "isub": (V,), "itruediv": (V,), "leaky_relu": (0.1,), "leaky_relu_": (0.1,), "linear": (W, B), "log_sigmoid": (),
    "log_softmax": (-1,), "matmul": (W.T,), "max": (V,), "max_pool1d": (2,), "max_pool2d": (2,), "maximum": (V,),
    "mean": (-1, True), "min": (1,), "minimum": (V,), "mish": (), "mm": (W.T,), "movedim": (1, 2), "mul": (V,),
    "mul_": (V,),
    "multiply": (V,), "mv": (V,), "narrow": (1, 1, 2), "neg": (), "neg_": (), "negative": (), "pad": ((1, 2),),
    "permute": ((0, 2, 1),), "prelu": (V,), "ravel": (), "relu": (), "relu6": (), "relu_": (), "repeat": (1, 2),
    "reshape": ((1, 2, 2),), "reshape_as": (torch.zeros(1, 2, 2),), "roll": (1, 1), "rsub": (V,), "select": (1, 2),
    "selu": (), "sigmoid": (), "sigmoid_": (), "silu": (), "softmax": (-1,), "softplus": (), "softshrink": (0.4,),
    "split": (2, 1), "squeeze": (1,), "sub": (V,), "sub_": (V,), "subtract": (V,), "sum": (-1, True),
    "swapaxes": (1, 2), "t": (), "tanh": (), "tanh_": (), "tanhshrink": (), "tensor_split": (2, 1), "tile": ((1, 2),),
    "to": (torch.float64,), "transpose": (1, 2), "true_divide": (V,), "truediv": (V,), "type_as": (V,), "unbind": (1,),
    "unflatten": (1, (2, 2)), "unsqueeze": (1,), "view": ((1, 2, 2),), "view_as": (torch.zeros(1, 2, 2),),
}  # fmt: skip
SHAPES = dict.fromkeys(
    ("adaptive_avg_pool1d", "avg_pool1d", "conv1d", "max_pool1d", "movedim", "permute", "swapaxes", "transpose"), (2, 4)
)
SHAPES |= dict.fromkeys(("adaptive_avg_pool2d", "avg_pool2d", "conv2d", "max_pool2d"), (2, 4, 4))
SHAPES |= dict.fromkeys(("expand", "expand_as", "squeeze"), (1, 4))
OWN = {
    "addmm": lambda call, h: call(B, h, W.T),
    "cat": lambda call, h: call([h, V[None]], 1),
    "concat": lambda call, h: call([h, h], 1),
    "concatenate": lambda call, h: call([V[None], h], -1),
    "stack": lambda call, h: call([h, -h], 1),
    "getattr": lambda call, h: h * getattr(h, "shape")[1] + h.ndim,  # noqa: B009 - the call is what is read
    "getitem": lambda call, h: h[:, 1:3],
    "size": lambda call, h: h * h.size(1) + h.size()[1],
    "dim": lambda call, h: h + h.dim(),
    "numel": lambda call, h: h + h[0].numel(),
}
"""Calls that do not take one tensor first."""


class Holds(nn.Module):
    """A dense layer, then what is tried."""

    def __init__(self, shape, inner=None, call=None):
        super().__init__()
        self.first, self.inner, self.call = nn.Linear(shape[-1], shape[-1]), inner, call

    def forward(self, x):
        h = self.first(x)
        return self.inner(h) if self.call is None else self.call(h)


def is_read(module, shape, order=False):
    """Whether the reader's network gives the module's own numbers, weighed at random."""
    module = module.double().eval()
    x = np.random.default_rng(3).normal(size=(40, *shape)) * 2
    with torch.no_grad():
        own = np.stack([module(torch.as_tensor(point[None])).numpy().reshape(-1) for point in x])
    flat = x.reshape(len(x), -1)
    if order:
        network = Network.from_torch(module, shape=shape, output=("margin", 1))
        logs = own if own.max() <= 0 else np.log(own)
        given = logs[:, 1] - np.delete(logs, 1, axis=1).max(axis=1)
    else:
        weights = np.random.default_rng(4).normal(size=own.shape[1])
        network = Network.from_torch(module, shape=shape, output=weights, smooth=SMOOTH)
        given = own @ weights
    assert np.abs(network(flat) - given).max() <= 1e-9 * max(1.0, np.abs(given).max()) + network.error
    assert network.error < 0.2


def test_every_layer_on_the_list_has_its_example():
    assert {kind.__name__ for kind in layers()} == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_read(name):
    torch.manual_seed(1)
    shape = (2, 4, 4) if name in PLANES else (2, 4) if name in LINES else (4,)
    module = Holds(shape, getattr(nn, name)(*LAYERS[name]))
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean, part.running_var = torch.randn(part.num_features), torch.rand(part.num_features) + 0.2
    is_read(module, shape, order=name in ("Softmax", "LogSoftmax"))


FUNCTIONS = [(torch_calls.name_of(type("N", (), {"target": call})), call) for call in torch_calls.functions()]
METHODS = list(torch_calls.methods())


def test_every_call_on_the_list_has_its_example():
    known = {name for name, _ in FUNCTIONS} | set(METHODS)
    assert known == set(CALLS) | set(OWN)


@pytest.mark.parametrize(("name", "function"), FUNCTIONS, ids=[f"{i} {name}" for i, (name, _) in enumerate(FUNCTIONS)])
def test_functions_are_read(name, function):
    shape = SHAPES.get(name, (4,))
    if name in OWN:
        call = lambda h: OWN[name](function, h)  # noqa: E731
    else:
        call = lambda h: plain(function(h, *CALLS[name]))  # noqa: E731
    torch.manual_seed(2)
    is_read(Holds(shape, call=call), shape, order=name in ("softmax", "log_softmax"))


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_read(name):
    shape = SHAPES.get(name, (4,))
    given = CALLS.get(name, ())
    call = lambda h: plain(getattr(h, name)(*given))  # noqa: E731
    if name in OWN:
        call = lambda h: OWN[name](None, h) if name != "addmm" else h.addmm(V[None], SQUARE)  # noqa: E731
    torch.manual_seed(2)
    is_read(Holds(shape, call=call), shape, order=name in ("softmax", "log_softmax"))


def plain(found):
    """The first of several tensors that a call gives."""
    several = isinstance(found, tuple | list) or getattr(getattr(found, "node", None), "target", "") in SEVERAL
    return found[0] if several else found


SEVERAL = {*(getattr(torch, name) for name in ("chunk", "split", "unbind", "tensor_split", "min")),
           *("chunk", "split", "unbind", "tensor_split", "min")}  # fmt: skip


# ---- ONNX operators: name -> (constants behind the tensor, attributes); shape of one example where it is not (4,)
def whole(*values):
    return np.array(values, dtype=np.int64)


def single(tensor):
    return tensor.numpy().astype(np.float32)


AXES = {"keepdims": 0}
NODES = {
    "Abs": ([], {}), "Add": ([single(V)], {}), "AveragePool": ([], {"kernel_shape": [2], "pads": [1, 1]}),
    "BatchNormalization": ([single(V)] * 4, {"epsilon": 1e-3}), "Cast": ([], {"to": 1}), "Celu": ([], {"alpha": 0.7}),
    "Clip": ([np.float32(-0.4), np.float32(0.5)], {}), "Concat": ([single(V[None])], {"axis": 1}),
    "Conv": ([single(numbers(3, 2, 2)), single(B)], {"strides": [2]}), "DepthToSpace": ([], {"blocksize": 2}),
    "Div": ([single(V)], {}), "Dropout": ([], {}), "Elu": ([], {"alpha": 0.7}), "Erf": ([], {}),
    "Expand": ([whole(1, 2, 4)], {}),
    "Flatten": ([], {"axis": 1}), "Gather": ([whole(2, 0)], {"axis": 1}), "Gelu": ([], {}),
    "Gemm": ([single(W), single(B)], {"transB": 1, "alpha": 0.5, "beta": 2.0}), "GlobalAveragePool": ([], {}),
    "GlobalMaxPool": ([], {}), "HardSigmoid": ([], {"alpha": 0.3, "beta": 0.4}), "HardSwish": ([], {}),
    "Identity": ([], {}), "LeakyRelu": ([], {"alpha": 0.2}), "LogSoftmax": ([], {"axis": 1}),
    "MatMul": ([single(W.T)], {}), "Max": ([single(V), single(-V)], {}), "MaxPool": ([], {"kernel_shape": [2]}),
    "Mean": ([single(V)], {}), "Min": ([single(V)], {}), "Mish": ([], {}),
    "Mul": ([single(V)], {}), "Neg": ([], {}),
    "PRelu": ([single(V) - 1], {}), "Pad": ([whole(0, 1, 0, 2), np.float32(0.7)], {}), "ReduceMax": ([whole(1)], AXES),
    "ReduceMean": ([whole(1)], AXES), "ReduceMin": ([whole(1)], AXES), "ReduceSum": ([whole(1)], AXES),
    "Relu": ([], {}),
    "Reshape": ([whole(0, 2, -1)], {}), "Selu": ([], {}), "Shrink": ([], {"lambd": 0.5, "bias": 0.5}),
    "Sigmoid": ([], {}),
    "Slice": ([whole(1), whole(4), whole(1), whole(2)], {}), "Softmax": ([], {"axis": 1}), "Softplus": ([], {}),
    "SpaceToDepth": ([], {"blocksize": 2}), "Split": ([whole(1, 3)], {"axis": 1}), "Squeeze": ([whole(1)], {}),
    "Sub": ([single(V)], {}), "Sum": ([single(V), single(V)], {}), "Tanh": ([], {}), "Tile": ([whole(1, 2)], {}),
    "Transpose": ([], {"perm": [0, 2, 1]}), "Unsqueeze": ([whole(1)], {}),
}  # fmt: skip
FORMS = dict.fromkeys(("AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Transpose"), (2, 4))
FORMS |= {"Squeeze": (1, 4), "Expand": (1, 4), "DepthToSpace": (4, 2, 2), "SpaceToDepth": (1, 4, 4)}


def test_every_operator_on_the_list_has_its_example():
    assert set(OPERATORS) == set(NODES)


@pytest.mark.parametrize("name", NODES)
def test_operators_are_read(tmp_path, name):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    shape = FORMS.get(name, (4,))
    constants, attributes = NODES[name]
    tensors = [numpy_helper.from_array(np.asarray(value), f"c{i}") for i, value in enumerate(constants)]
    more = [tensor.name for tensor in tensors]
    nodes = [helper.make_node("Mul", ["x", "two"], ["a"])]
    nodes.append(helper.make_node(name, ["a", *more], ["y", "rest"][: 1 + (name == "Split")], **attributes))
    graph = helper.make_graph(
        nodes, "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [*tensors, numpy_helper.from_array(np.float32(2.0), "two")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, str(tmp_path / "one.onnx"))
    runtime.set_default_logger_severity(4)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(5).normal(size=(60, 1, *shape)).astype(np.float32)
    own = np.stack([session.run(["y"], {"x": point})[0].reshape(-1) for point in x]).astype(np.float64)
    if name in ("Softmax", "LogSoftmax"):
        network = Network.from_onnx(tmp_path / "one.onnx", output=("margin", 1))
        logs = own if name == "LogSoftmax" else np.log(own)
        given = logs[:, 1] - np.delete(logs, 1, axis=1).max(axis=1)
    else:
        weights = np.random.default_rng(6).normal(size=own.shape[1])
        network, given = Network.from_onnx(tmp_path / "one.onnx", output=weights, smooth=SMOOTH), own @ weights
    off = np.abs(network(x.reshape(len(x), -1).astype(np.float64)) - given).max()
    assert off <= 2e-5 * max(1.0, np.abs(given).max()) + network.error
    assert network.error < 0.2


# ---- scikit-learn
def known_estimators():
    from sklearn import ensemble, linear_model, neural_network, svm, tree

    homes = (ensemble, linear_model, neural_network, svm, tree)
    return {name: next(getattr(home, name) for home in homes if hasattr(home, name)) for name in ESTIMATORS}


# Every estimator with one scaler, every scaler with several estimators.
PAIRS = [(name, SCALERS[i % len(SCALERS)]) for i, name in enumerate(ESTIMATORS)]


@pytest.mark.parametrize(("name", "scaler"), PAIRS)
def test_estimators_are_read(name, scaler):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    from sklearn.pipeline import make_pipeline

    made = known_estimators()[name]
    options = {"n_estimators": 4, "max_depth": 3, "hidden_layer_sizes": (5,), "max_iter": 30, "random_state": 0}
    # Ridge and its kin count solver steps by max_iter as well, and need their own number.
    options |= {} if "MLP" in name else {"max_iter": None}
    taken = {k: v for k, v in options.items() if k in made().get_params() and v is not None}
    rng = np.random.default_rng(8)
    x = rng.normal(size=(120, 3))
    y = x @ [1.0, -2.0, 0.5] + np.abs(x[:, 0])
    classes = hasattr(made, "predict_proba") or "Classif" in name or name in ("LinearSVC", "Perceptron")
    model = make_pipeline(getattr(preprocessing, scaler)(), made(**taken))
    with warnings.catch_warnings():
        # A few rounds of training do not converge, and need not.
        warnings.simplefilter("ignore")
        model.fit(x, y > 0 if classes else y)
    points = rng.normal(size=(200, 3))
    if not classes:
        given = model.predict(points)
    elif ESTIMATORS[name] in ("tree", "forest"):
        given = model.predict_proba(points)[:, 1]
    elif ESTIMATORS[name] == "perceptron":
        share = model.predict_proba(points)
        given = np.log(share[:, 1] / share[:, 0])
    else:
        given = model.decision_function(points)
    found = read_model(model)(points)
    assert np.abs(found - given).max() <= 1e-6 * max(1.0, np.abs(given).max())
