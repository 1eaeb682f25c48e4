"""Networks from arrays, torch and files; what cannot be read names its layer."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from rmab_opt.encoder import Network
from rmab_opt.errors import ModelError


def test_torch_sequential_gives_the_module_s_own_values():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Flatten(),
        nn.Linear(5, 7),
        nn.BatchNorm1d(7),
        nn.LeakyReLU(0.05),
        nn.Dropout(0.5),
        nn.Sequential(nn.Linear(7, 6, bias=False), nn.ReLU6()),
        nn.Linear(6, 4),
        nn.Hardtanh(-0.3, 0.4),
        nn.Linear(4, 4),
        nn.ReLU(),
        nn.Identity(),
        nn.Linear(4, 1),
    ).double()
    module(torch.randn(64, 5, dtype=torch.float64))  # moves the running statistics off their defaults
    module.eval()
    x = np.random.default_rng(0).normal(size=(50, 5)) * 3
    network = Network.from_torch(module)
    assert np.allclose(network(x), module(torch.tensor(x)).detach().numpy()[:, 0], atol=1e-12)
    assert np.allclose(network.reduced(x), network(x), atol=1e-12)


@pytest.mark.parametrize("name", ["Softmax", "Tanh", "Sigmoid"])
def test_layers_without_exact_rows_are_named(name):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), getattr(torch.nn, name)(), torch.nn.Linear(2, 1))
    with pytest.raises(ModelError, match=f"layer 1 is a {name}") as error:
        Network.from_torch(module)
    assert "To fix, use Linear" in str(error.value)


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ([([[np.nan]], [0.0], "relu")], r"layer 0 \(dense, relu\): weight is nan at \[0, 0\]"),
        ([([[1.0]], [np.inf], "relu")], r"layer 0 \(dense, relu\): bias is inf"),
        ([([[1.0]], [0.0, 1.0], "relu")], "bias has 2 entries, weight 1 rows"),
        ([([[1.0]], [0.0], "relu"), ([[1.0, 2.0]], [0.0], "linear")], "layer 1 .* takes 2 inputs, the layer before"),
        ([([[1.0], [1.0]], [0.0, 0.0], "relu")], "layer 0 .* has 2 outputs"),
        ([([[1.0]], [0.0], "softplus")], "activation 'softplus' is not linear in pieces"),
        ([([[1.0]], [0.0], ("clip", 1.0, 0.0))], "clip from 1.0 to 0.0"),
        ([([1.0], [0.0], "relu")], "weight has shape"),
    ],
)
def test_bad_arrays(layers, match):
    with pytest.raises(ModelError, match=match):
        Network.from_arrays(layers)


def test_fold_fixes_inputs():
    rng = np.random.default_rng(2)
    network = Network.from_arrays(
        [(rng.normal(size=(4, 5)), rng.normal(size=4), "relu"), (rng.normal(size=(1, 4)), [0.3], "linear")],
        skip=rng.normal(size=5),
        constant=2.0,
    )
    x = rng.normal(size=(20, 5))
    x[:, [3, 1]] = [0.5, -1.0]
    folded = network.fold({3: 0.5, 1: -1.0})
    assert np.allclose(folded(x[:, [0, 2, 4]]), network(x))
    assert np.allclose(network.fold([3, 1], [0.5, -1.0])(x[:, [0, 2, 4]]), network(x))
    with pytest.raises(ModelError, match="input 5"):
        network.fold({5: 1.0})
    with pytest.raises(ModelError, match="fixed to nan"):
        network.fold({0: np.nan})


def test_safetensors_round_trip_and_plain_torch_state(tmp_path):
    rng = np.random.default_rng(2)
    network = Network.from_arrays(
        [
            (rng.normal(size=(4, 5)), rng.normal(size=4), ("leaky_relu", 0.1)),
            (rng.normal(size=(3, 4)), rng.normal(size=3), ("clip", -1, 2)),
            (rng.normal(size=(1, 3)), [0.3], "linear"),
        ],
        skip=rng.normal(size=5),
        constant=2.0,
    )
    x = rng.normal(size=(20, 5))
    network.to_safetensors(tmp_path / "q.safetensors")
    assert np.array_equal(Network.from_safetensors(tmp_path / "q.safetensors")(x), network(x))

    from safetensors.numpy import save_file

    plain = {"0.weight": np.ones((2, 5)), "0.bias": np.zeros(2), "10.weight": np.ones((1, 2))}
    save_file(plain, str(tmp_path / "plain.safetensors"))
    with pytest.raises(ModelError, match="does not say which activations"):
        Network.from_safetensors(tmp_path / "plain.safetensors")
    read = Network.from_safetensors(tmp_path / "plain.safetensors", activation="relu")
    assert np.allclose(read(x), 2 * np.maximum(x.sum(axis=1), 0))
    (tmp_path / "bad.safetensors").write_bytes(b"not a file of tensors")
    with pytest.raises(ModelError, match="not a safetensors file"):
        Network.from_safetensors(tmp_path / "bad.safetensors")
    with pytest.raises(ModelError, match="no such file"):
        Network.from_safetensors(tmp_path / "missing.safetensors")


def test_the_encoder_loads_neither_torch_nor_pyomo():
    code = "import rmab_opt.encoder, sys; print([m for m in ('torch', 'pyomo', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
