"""Files of the shape of ACAS Xu's: both formats are read alike, and the user's own, where there are any, are solved."""

from __future__ import annotations

import os
import runpy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from rmab_opt.encoder import read_model

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "acas.py"
FILES = sorted(
    path for path in Path(os.environ.get("ACAS_XU", "/nowhere")).glob("*") if path.suffix in (".onnx", ".nnet")
)


def layers(seed, sizes):
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(after, before)).astype(np.float32), rng.normal(size=after).astype(np.float32))
        for before, after in pairwise(sizes)
    ]


def test_both_formats_of_the_files_are_read_alike(tmp_path):
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    sizes = [5, 7, 6, 5]
    made = layers(0, sizes)
    text = ["// a header", "3,5,5,7,", ",".join(map(str, sizes)) + ",", "0,", "-1,-1,-1,-1,-1,", "1,1,1,1,1,",
            "0,0,0,0,0,0,", "1,1,1,1,1,1,"]  # fmt: skip
    for weight, bias in made:
        text += [",".join(f"{cell:.17g}" for cell in row) + "," for row in weight.tolist()]
        text += [f"{cell:.17g}," for cell in bias.tolist()]
    (tmp_path / "net.nnet").write_text("\n".join(text) + "\n")
    # As the competition's files are: one example of shape (1, 1, 5), a shift, flattened, then products and sums.
    nodes = [helper.make_node("Sub", ["x", "mean"], ["a"]), helper.make_node("Flatten", ["a"], ["h0"])]
    constants = [numpy_helper.from_array(np.zeros((1, 1, 1, 5), dtype=np.float32), "mean")]
    for k, (weight, bias) in enumerate(made):
        constants += [numpy_helper.from_array(weight.T.copy(), f"w{k}"), numpy_helper.from_array(bias, f"b{k}")]
        last = k + 1 == len(made)
        nodes += [
            helper.make_node("MatMul", [f"h{k}", f"w{k}"], [f"m{k}"]),
            helper.make_node("Add", [f"m{k}", f"b{k}"], ["y" if last else f"s{k}"]),
        ]
        nodes += [] if last else [helper.make_node("Relu", [f"s{k}"], [f"h{k + 1}"])]
    graph = helper.make_graph(
        nodes, "acas", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])], constants,
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "net.onnx"
    )
    by_text = runpy.run_path(str(BENCHMARK))["read_nnet"](tmp_path / "net.nnet", output=2)
    by_graph = read_model(tmp_path / "net.onnx", output=2, box=(-1.0, 1.0))
    x = np.random.default_rng(1).uniform(-1, 1, size=(200, 5))
    assert np.allclose(by_text(x), by_graph(x), atol=1e-9)


@pytest.mark.slow
@pytest.mark.skipif(not FILES, reason="set ACAS_XU to a folder of the networks")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_users_own_networks_are_solved_over_property_three(path):
    """Within five parts in a hundred, never below what sampling finds."""
    acas = runpy.run_path(str(BENCHMARK))
    box = (acas["LOWER"], acas["UPPER"])
    network = acas["read_nnet"](path) if path.suffix == ".nnet" else read_model(path, output=0, box=box)
    found = acas["row"](path.name, network, *box, 40_000)
    assert found["value"] >= found["sampled"] - 1e-9
    assert found["gap_of_value"] <= 0.05
