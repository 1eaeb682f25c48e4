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


def residual_module(torch):
    """x + f(x), a branch from far back, a pooled layer; not a Sequential."""
    nn = torch.nn

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.inner, self.outer = nn.Linear(5, 6), nn.Linear(6, 8), nn.Linear(8, 6)
            self.leaky, self.far, self.pool = nn.LeakyReLU(0.2), nn.Linear(5, 6, bias=False), nn.MaxPool1d(3)
            self.last = nn.Linear(4, 1)

        def forward(self, x):
            h = torch.relu(self.first(x))
            h = h + self.outer(self.leaky(self.inner(h)))
            h = torch.nn.functional.hardtanh(0.5 * h - self.far(x) + 1.0, -2.0, 3.0)
            return self.last(torch.cat([self.pool(h), self.pool(h).clamp(min=0)], dim=1))

    return Residual().double().eval()


def test_modules_with_branches_give_their_own_values():
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    module = residual_module(torch)
    x = np.random.default_rng(0).normal(size=(200, 5)) * 3
    network = Network.from_torch(module)
    wanted = module(torch.tensor(x)).detach().numpy()[:, 0]
    assert np.allclose(network(x), wanted, atol=1e-12)
    assert np.allclose(network.reduced(x), wanted, atol=1e-12)
    assert np.allclose(network.fold([1, 4], x[0, [1, 4]])(x[0, [0, 2, 3]]), wanted[0])


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


def linked_network(rng, sparse_weights=False):
    from scipy import sparse

    def made(*shape):
        drawn = rng.normal(size=shape)
        return sparse.csr_array(drawn * (rng.random(shape) < 0.6)) if sparse_weights else drawn

    return Network.from_arrays(
        [
            (made(6, 5), rng.normal(size=6), "relu"),
            (made(6, 6), rng.normal(size=6), ("max", 2)),
            (made(6, 3), rng.normal(size=6), ("clip", -1, 2)),
            (made(6, 6), rng.normal(size=6), ("leaky_relu", 0.3)),
            (made(1, 6), rng.normal(size=1), "linear"),
        ],
        skip=rng.normal(size=5),
        links={(0, 2): None, (-1, 2): made(6, 5), (1, 3): made(6, 3), (0, 4): made(1, 6), (-1, 4): made(1, 5)},
    )


@pytest.mark.parametrize("sparse_weights", [False, True])
def test_links_add_earlier_outputs(tmp_path, sparse_weights):
    """Layer by layer by hand, reduced to a chain, folded, saved and read back."""
    rng = np.random.default_rng(7)
    network = linked_network(rng, sparse_weights)
    x = rng.normal(size=(30, 5)) * 2
    layers, links, reached = network.layers(), network.links(), {-1: x}
    for k, (weight, bias, activation) in enumerate(layers):
        z = (weight @ reached[k - 1].T).T + bias
        for (source, target), link in links.items():
            z = z + (link @ reached[source].T).T if target == k else z
        reached[k] = activation(z)
    wanted = reached[4][:, 0] + x @ network.skip
    assert np.allclose(network(x), wanted, atol=1e-12)
    assert np.allclose(network(x.reshape(5, 6, 5)), wanted.reshape(5, 6), atol=1e-12)
    assert np.allclose(network.reduced(x), wanted, atol=1e-12)
    assert np.allclose(network.reduced.dense()(x), wanted, atol=1e-12)
    x[:, 2] = 0.25
    assert np.allclose(network.fold({2: 0.25})(np.delete(x, 2, axis=1)), network(x), atol=1e-12)
    network.to_safetensors(tmp_path / "q.safetensors")
    assert np.allclose(Network.from_safetensors(tmp_path / "q.safetensors")(x), network(x), atol=1e-12)
    assert "5 links" in repr(network)


@pytest.mark.parametrize(
    ("links", "match"),
    [
        ({(0, 1): None}, "layer 1 links to layer 0"),
        ({(0, 2): np.ones((2, 2))}, r"link from layer 0 to layer 2 has shape \(2, 2\)"),
        ({(-1, 2): None}, "an identity from 3 outputs to 1 neurons"),
        ({(0, 7): None}, "a link to layer 7 of 3"),
    ],
)
def test_links_that_do_not_fit(links, match):
    layers = [
        (np.ones((2, 3)), np.zeros(2), "relu"),
        (np.ones((2, 2)), np.zeros(2), "relu"),
        (np.ones((1, 2)), [0], "linear"),
    ]
    with pytest.raises(ModelError, match=match):
        Network.from_arrays(layers, links=links)


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
