"""Whatever a reader takes equals the framework everywhere, and whatever else there is is refused by name."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from amounts import amount
from encoder.drawn import onnx_graph, torch_module

from rmab_opt.encoder import Network
from rmab_opt.errors import ModelError

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")


def differs(network, given, x, relative=1e-6):
    mine = network(x)
    return np.abs(mine - given).max() > relative * max(1.0, np.abs(given).max())


def check_torch(seeds):
    refused = []
    for seed in seeds:
        module, n = torch_module(seed)
        x = np.random.default_rng(seed).normal(size=(1000, n)) * 3
        try:
            network = Network.from_torch(module, shape=(n,))
        except ModelError as error:
            refused.append((seed, error.message))
            continue
        with torch.no_grad():
            assert not differs(network, module(torch.as_tensor(x)).numpy()[:, 0], x), f"seed {seed}"
    return refused


def judged(model, x):
    """onnxruntime's values; of onnx's own evaluator where there is no kernel in float64."""
    runtime = pytest.importorskip("onnxruntime")
    runtime.set_default_logger_severity(4)
    try:
        session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - onnxruntime's errors have no common class
        from onnx.reference import ReferenceEvaluator

        return ReferenceEvaluator(model).run(None, {"x": x})[0][:, 0]
    return session.run(None, {"x": x})[0][:, 0]


def check_onnx(seeds, folder):
    refused = []
    for seed in seeds:
        model, n = onnx_graph(seed)
        x = np.random.default_rng(seed).normal(size=(1000, n)) * 3
        path = folder / f"{seed}.onnx"
        onnx.save(model, str(path))
        try:
            network = Network.from_onnx(path)
        except ModelError as error:
            refused.append((seed, error.message))
            continue
        given = judged(model, x)
        assert not differs(network, given, x), f"seed {seed}"
    return refused


def test_random_torch_modules_are_read_as_torch_has_them():
    """Refused are changes in place of what is read again, and nothing else."""
    refused = check_torch(range(amount(40, 120)))
    assert all("in place" in message for _, message in refused)
    assert len(refused) < 4


def test_random_onnx_graphs_are_read_as_onnx_has_them(tmp_path):
    refused = check_onnx(range(amount(25, 80)), tmp_path)
    assert all("cannot be run" in message for _, message in refused)
    assert len(refused) < 4


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_three_thousand_torch_modules(part):
    refused = check_torch(range(1000 + 1000 * part, 2000 + 1000 * part))
    assert all("in place" in message for _, message in refused)
    assert len(refused) < 30


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_three_thousand_onnx_graphs(part, tmp_path):
    # Neither onnxruntime nor onnx's own evaluator runs a few pools in float64: what cannot be compared is refused.
    refused = check_onnx(range(1000 + 1000 * part, 2000 + 1000 * part), tmp_path)
    assert all("cannot be run" in message for _, message in refused)
    assert len(refused) < 30


@pytest.mark.parametrize("accuracy", [0.05, 0.005])
def test_curves_are_within_their_stated_error(accuracy):
    from rmab_opt.encoder.read.curves import CURVES, pieces

    x = np.concatenate([np.linspace(-60, 60, 60_001), [-1e4, 1e4]])
    for name, make in CURVES.items():
        found = pieces(make(), accuracy)
        assert np.abs(found(x) - make().function(x)).max() <= found.error <= 1.01 * accuracy, name
        assert len(found.at) < 40


def test_networks_of_curves_are_within_their_stated_error():
    for seed in range(25):
        module, n = torch_module(seed, curves=True)
        try:
            network = Network.from_torch(module, shape=(n,), smooth=0.01)
        except ModelError as error:
            assert "in place" in error.message, seed  # noqa: PT017 - any other refusal is the failure
            continue
        x = np.random.default_rng(seed).normal(size=(2000, n)) * 3
        with torch.no_grad():
            given = module(torch.as_tensor(x)).numpy()[:, 0]
        assert np.abs(network(x) - given).max() <= network.error + 1e-9 * np.abs(given).max(), seed


def test_of_several_outputs_one_is_chosen():
    nn = torch.nn
    torch.manual_seed(2)
    body = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x = np.random.default_rng(0).normal(size=(300, 4))
    with torch.no_grad():
        y = body(torch.as_tensor(x)).numpy()
    margin = y[:, 1] - np.maximum(y[:, 0], y[:, 2])
    for head in (nn.Identity(), nn.Softmax(dim=1), nn.LogSoftmax(dim=-1)):
        assert np.allclose(Network.from_torch(nn.Sequential(body, head), output=("margin", 1))(x), margin)
    assert np.allclose(Network.from_torch(body, output=2)(x), y[:, 2])
    assert np.allclose(Network.from_torch(body, output=[1.0, -2.0, 0.5])(x), y @ [1.0, -2.0, 0.5])
    with pytest.raises(ModelError, match="only the order is read"):
        Network.from_torch(nn.Sequential(body, nn.Softmax(dim=1)), output=1)
    with pytest.raises(ModelError, match="output 3 of 3"):
        Network.from_torch(body, output=3)
    assert np.allclose(Network.from_torch(body, output=np.array([1.0, -2.0, 0.5]))(x), y @ [1.0, -2.0, 0.5])


GATES = {
    "silu": lambda h: h * torch.sigmoid(h),
    "swish": lambda h: torch.sigmoid(1.7 * h) * h,
    "scaled silu": lambda h: (2 * h).sigmoid() * 3 * h,
    "mish": lambda h: h * torch.tanh(torch.nn.functional.softplus(h)),
    "gelu": lambda h: 0.5 * h * (1 + torch.erf(h / 2**0.5)),
    "wide gelu": lambda h: h * (1 + torch.erf(h / 3)) * 0.25,
}
PRODUCTS = {
    "of itself": lambda h: h * h,
    "by its tanh": lambda h: h * torch.tanh(h),
    "shifted": lambda h: (h + 1) * torch.sigmoid(h),
    "a shifted gate": lambda h: h * torch.sigmoid(h + 1),
    "another's gate": lambda h: h * torch.sigmoid(h.flip(-1)),
    "two gates": lambda h: torch.sigmoid(h) * torch.sigmoid(h),
    "half a gelu": lambda h: h * (2 + torch.erf(h)),
    "a steeper softplus": lambda h: h * torch.tanh(torch.nn.functional.softplus(h, beta=2.0)),
}


class Gated(torch.nn.Module):
    def __init__(self, bend):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.last, self.bend = torch.nn.Linear(3, 5), torch.nn.Linear(5, 1), bend

    def forward(self, x):
        return self.last(self.bend(self.first(x)))


@pytest.mark.parametrize("name", GATES)
def test_curves_written_as_products_are_read(tmp_path, name):
    """Exporters and older code write SiLU, Mish and GELU as a tensor times a bend of itself."""
    module = Gated(GATES[name]).eval()
    x = np.random.default_rng(0).normal(size=(2000, 3)).astype(np.float32) * 3
    with torch.no_grad():
        given = module(torch.as_tensor(x)).numpy()[:, 0]
    readings = [Network.from_torch(module, shape=(3,), smooth=0.01)]
    if importlib.util.find_spec("onnx"):
        torch.onnx.export(module, (torch.zeros(1, 3),), str(tmp_path / "net.onnx"), dynamo=False, opset_version=17)
        readings.append(Network.from_onnx(tmp_path / "net.onnx", smooth=0.01))
    for network in readings:
        assert 0 < network.error < 0.2
        assert np.abs(network(x) - given).max() <= network.error + 1e-5
    with pytest.raises(ModelError, match=r"no (exact )?linear rows"):
        Network.from_torch(module, shape=(3,))


@pytest.mark.parametrize("name", PRODUCTS)
def test_other_products_are_refused(name):
    with pytest.raises(ModelError, match="product of two tensors"):
        Network.from_torch(Gated(PRODUCTS[name]).eval(), shape=(3,), smooth=0.01)


def test_users_forms_of_the_plain_operations_are_read():
    """Positions that are unpacked and left, casts to the own precision, constants in a tensor's shape."""
    nn = torch.nn

    class Forms(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.shift = nn.Linear(3, 4), nn.Parameter(torch.tensor([0.5]))

        def forward(self, x):
            rows, columns = x.shape
            h = self.first(x.to(self.first.weight.device)).to(x.dtype).type_as(x)
            best, _ = h.max(1, keepdim=True)
            return best.view(rows, 1) * columns + self.shift.expand_as(best)

    torch.manual_seed(0)
    module = Forms().double()
    x = np.random.default_rng(0).normal(size=(100, 3))
    with torch.no_grad():
        assert np.allclose(Network.from_torch(module, shape=(3,))(x), module(torch.as_tensor(x)).numpy()[:, 0])


def test_quantised_weights_of_files_are_read(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    constants = {"q": np.arange(-6, 6, dtype=np.int8).reshape(3, 4), "s": np.float32(0.1), "z": np.int8(1),
                 "w": np.ones((4, 1), dtype=np.float32)}  # fmt: skip
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]), helper.make_node("MatMul", ["x", "d"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]), helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]  # fmt: skip
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, n]) for name, n in (("x", 3), ("y", 1))]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "q", ends[:1], ends[1:], tensors),
        opset_imports=[helper.make_opsetid("", 21)], ir_version=9,
    )  # fmt: skip
    onnx.save(model, str(tmp_path / "q.onnx"))
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    given = runtime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0][:, 0]
    assert np.allclose(Network.from_onnx(tmp_path / "q.onnx")(x.astype(float)), given, atol=1e-5)
