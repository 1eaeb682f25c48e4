"""ONNX files checked against onnxruntime, both ways."""

from __future__ import annotations

import numpy as np
import pytest

from rmab_opt.encoder import Network
from rmab_opt.errors import ModelError

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


def run(path, x):
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = session.get_inputs()[0]
    kind = np.float64 if "double" in wanted.type else np.float32
    return session.run(None, {wanted.name: x.astype(kind)})[0][:, 0]


@pytest.mark.parametrize(
    "activation", ["relu", ("leaky_relu", 0.25), ("clip", -0.5, 1.0), "linear", ("max", 3)], ids=str
)
@pytest.mark.parametrize("skip", [False, True])
def test_written_files_have_the_network_s_values(tmp_path, activation, skip):
    rng = np.random.default_rng(0)
    network = Network.from_arrays(
        [
            (rng.normal(size=(6, 4)), rng.normal(size=6), activation),
            (rng.normal(size=(5, 2 if activation == ("max", 3) else 6)), rng.normal(size=5), "relu"),
            (rng.normal(size=(5, 5)), rng.normal(size=5), "relu"),
            (rng.normal(size=(1, 5)), rng.normal(size=1), "linear"),
        ],
        skip=rng.normal(size=4) if skip else None,
        constant=0.7,
        links={(-1, 1): rng.normal(size=(5, 4)), (1, 3): rng.normal(size=(1, 5))} if skip else None,
    )
    network.to_onnx(tmp_path / "q.onnx")
    x = rng.normal(size=(40, 4)) * 3
    assert np.allclose(run(tmp_path / "q.onnx", x), network(x), atol=1e-6)
    assert np.allclose(Network.from_onnx(tmp_path / "q.onnx")(x), network(x), atol=1e-9)


def chain(tmp_path, nodes, constants, n=3):
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, n])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(np.asarray(v, dtype=np.float32), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path = tmp_path / "chain.onnx"
    onnx.save(model, str(path))
    return path


def test_chains_of_other_exporters_have_onnxruntime_s_values(tmp_path):
    from onnx import helper

    rng = np.random.default_rng(1)
    constants = {
        "mean": rng.normal(size=3),
        "size": rng.uniform(1, 2, size=3),
        "w0": rng.normal(size=(3, 4)),
        "b0": rng.normal(size=4),
        "w1": rng.normal(size=(4, 5)),
        "s1": rng.uniform(0.5, 2, size=5),
        "low": -0.4,
        "high": 0.6,
        "half": 0.5,
        "w2": rng.normal(size=(1, 5)),
        "b2": rng.normal(size=1),
    }
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["a"]),
        helper.make_node("Mul", ["a", "size"], ["b"]),
        helper.make_node("MatMul", ["b", "w0"], ["c"]),
        helper.make_node("Add", ["b0", "c"], ["d"]),
        helper.make_node("LeakyRelu", ["d"], ["e"]),
        helper.make_node("MatMul", ["e", "w1"], ["f"]),
        helper.make_node("Mul", ["f", "s1"], ["g"]),
        helper.make_node("Clip", ["g", "low", "high"], ["h"]),
        helper.make_node("Add", ["h", "half"], ["i"]),
        helper.make_node("Relu", ["i"], ["j"]),
        helper.make_node("Gemm", ["j", "w2", "b2"], ["y"], transB=1, alpha=2.0, beta=0.5),
    ]
    path = chain(tmp_path, nodes, constants)
    x = rng.normal(size=(60, 3)) * 2
    assert np.allclose(Network.from_onnx(path)(x), run(path, x), atol=1e-4)


def test_branches_that_meet_have_onnxruntime_s_values(tmp_path):
    """y = relu(x W0) + x, joined with -x / 2, a dense head."""
    from onnx import helper

    rng = np.random.default_rng(2)
    constants = {
        "w0": rng.normal(size=(3, 3)),
        "w1": rng.normal(size=(6, 4)),
        "w2": rng.normal(size=(4, 1)),
        "two": 2.0,
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Add", ["b", "x"], ["c"]),
        helper.make_node("Sub", ["c", "a"], ["d"]),
        helper.make_node("Neg", ["d"], ["e"]),
        helper.make_node("Div", ["e", "two"], ["f"]),
        helper.make_node("Concat", ["c", "f"], ["g"], axis=1),
        helper.make_node("MatMul", ["g", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["i"]),
        helper.make_node("MatMul", ["i", "w2"], ["y"]),
    ]
    path = chain(tmp_path, nodes, constants)
    x = rng.normal(size=(60, 3)) * 2
    network = Network.from_onnx(path)
    assert np.allclose(network(x), run(path, x), atol=1e-4)
    assert np.allclose(network.reduced(x), network(x), atol=1e-9)


@pytest.mark.parametrize("kind", ["Sigmoid", "Softmax", "Tanh"])
def test_other_nodes_are_named(tmp_path, kind):
    from onnx import helper

    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node(kind, ["a"], ["y"])]
    with pytest.raises(ModelError, match=rf"node 1 \({kind}\)"):
        Network.from_onnx(chain(tmp_path, nodes, {"w": np.ones((3, 1))}))


def test_files_that_are_none(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"\xff\xfe not protobuf")
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        Network.from_onnx(tmp_path / "bad.onnx")
    with pytest.raises(ModelError, match="no such file"):
        Network.from_onnx(tmp_path / "missing.onnx")


def test_torch_export_reads_back(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 1)).eval()
    torch.onnx.export(module, (torch.zeros(2, 3),), str(tmp_path / "torch.onnx"))
    x = np.random.default_rng(0).normal(size=(10, 3))
    assert np.allclose(Network.from_onnx(tmp_path / "torch.onnx")(x), Network.from_torch(module)(x), atol=1e-5)


def test_outputs_of_a_file_are_chosen_by_name(tmp_path):
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["score"]),
        helper.make_node("Relu", ["score"], ["dose"]),
    ]
    weight = np.array([[1.0], [-2.0], [0.5]], dtype=np.float32)
    ends = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("score", "dose")}
    graph = helper.make_graph(
        nodes, "two", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])], list(ends.values()),
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "two.onnx"
    )
    x = np.random.default_rng(0).normal(size=(40, 3))
    score = (x @ weight)[:, 0]
    assert np.allclose(Network.from_onnx(tmp_path / "two.onnx", output="score")(x), score)
    assert np.allclose(Network.from_onnx(tmp_path / "two.onnx", output="dose")(x), np.maximum(score, 0))
    with pytest.raises(ModelError, match="2 outputs"):
        Network.from_onnx(tmp_path / "two.onnx")


def test_a_keras_convolution_as_its_exporter_writes_it(tmp_path):
    """Images come with channels last; transposes lie around every window, and a Reshape stands for Flatten."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    constants = {
        "kernel": rng.normal(size=(2, 1, 3, 3)).astype(np.float32), "bias": rng.normal(size=2).astype(np.float32),
        "flat": np.array([-1, 8], dtype=np.int64), "w": rng.normal(size=(8, 1)).astype(np.float32),
        "b": rng.normal(size=1).astype(np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["a", "kernel", "bias"], ["c"], auto_pad="SAME_UPPER", strides=[1, 1]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2], auto_pad="VALID"),
        helper.make_node("Transpose", ["e"], ["f"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["f", "flat"], ["g"]),
        helper.make_node("MatMul", ["g", "w"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "keras", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["unk__5", 4, 4, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["unk__6", 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    path = tmp_path / "keras.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8), path)
    x = rng.normal(size=(30, 4, 4, 1))
    assert np.allclose(Network.from_onnx(path)(x.reshape(30, 16)), run(path, x), atol=1e-5)
