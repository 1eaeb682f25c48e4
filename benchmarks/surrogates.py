"""Trained models maximised over a polytope: ours against sampling from below, the bound from above, and OMLT + HiGHS.

    python benchmarks/surrogates.py [--quick | --full] [--seconds 60] [--out FILE.csv]

Every model is trained here on seeded data of an invented yield of 3 to 5 inputs: ReLU, leaky, clipped, residual, one
that pools a maximum, a convolution with max pooling, how far a class of a softmax is ahead, a tanh one read as pieces,
scikit-learn's perceptron with a scaler, forests of 50 trees and gradient boosting of three libraries. It is maximised
over a box cut by two rows. `--quick` is 28 models, two of a kind, `--full` 200. For each: the value (held against the
framework's own forward pass), the best of 20,000 allowed draws, the solver's bound, and CPU seconds from the trained
model to the answer. Where `omlt` is installed and reads the model (plain ReLU layers and trees) the same program goes
through OMLT and HiGHS in the same run, by turns first and second, with the same gaps; optima must agree to 1e-6.
The last lines are the CPU ratios, geometric means by kind.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyomo.environ as pyo

from rmab_opt.encoder import Network, TreeEnsemble, encode, read_model
from rmab_opt.report import table_csv
from rmab_opt.solver import Session, load_profile

KINDS = (
    "relu", "leaky", "clipped", "residual", "maximum", "tanh pieces", "perceptron", "forest", "boosting", "deep relu",
    "convolution", "margin", "xgboost", "lightgbm",
)  # fmt: skip
TREES = ("forest", "boosting", "xgboost", "lightgbm")
NEEDS = {
    "perceptron": "sklearn", "forest": "sklearn", "boosting": "sklearn", "xgboost": "xgboost", "lightgbm": "lightgbm",
}  # fmt: skip
"""Kind -> the library that trains it."""
OUTPUTS: dict[str, Any] = {"margin": ("margin", 1)}
"""Kind -> which of several outputs is maximised."""
GAP = 1e-7
SMOOTH = 0.05
DRAWS = 20_000


def data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """400 trials of an invented yield."""
    rng = np.random.default_rng(seed)
    n = 3 + seed % 3
    x = rng.uniform(-1, 1, size=(400, n))
    mix = rng.normal(size=(n, 4)) * 2
    return x, np.sin(x @ mix) @ rng.normal(size=4) - 0.5 * (x**2).sum(axis=1) + 0.05 * rng.normal(size=400)


def module_of(kind: str, n: int) -> Any:
    """An untrained torch module."""
    import torch
    from torch import nn

    bend: Callable[[], Any] = {
        "leaky": lambda: nn.LeakyReLU(0.1), "clipped": nn.ReLU6, "tanh pieces": nn.Tanh,
    }.get(kind, nn.ReLU)  # fmt: skip

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(n, 10), nn.Linear(10, 10), nn.Linear(10, 1)

        def forward(self, x: Any) -> Any:
            h = torch.relu(self.a(x))
            return self.c(torch.relu(h + self.b(h)))

    class Largest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(n, 8), nn.Linear(8, 6)

        def forward(self, x: Any) -> Any:
            return torch.amax(self.b(torch.relu(self.a(x))), dim=1, keepdim=True) - 0.3 * x.abs().sum(1, keepdim=True)

    if kind == "convolution":
        window = nn.Conv1d(1, 4, 2, padding=1)
        return nn.Sequential(
            nn.Unflatten(1, (1, n)), window, nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(4 * ((n + 1) // 2), 1)
        )
    if kind == "margin":
        return nn.Sequential(nn.Linear(n, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(1))
    if kind in ("residual", "maximum"):
        return Residual() if kind == "residual" else Largest()
    width, depth = {"deep relu": (10, 3), "tanh pieces": (4, 1)}.get(kind, (12, 2))
    parts, before = [], n
    for _ in range(depth):
        parts += [nn.Linear(before, width), bend()]
        before = width
    return nn.Sequential(*parts, nn.Linear(before, 1))


def trained(kind: str, seed: int) -> tuple[Any, Callable[[np.ndarray], np.ndarray]]:
    """A trained model and its own prediction."""
    x, y = data(seed)
    if kind in (*TREES, "perceptron"):
        model = estimator(kind, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(x, y)
        return model, model.predict
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    module = module_of(kind, x.shape[1]).double()
    inputs, wanted = torch.as_tensor(x), torch.as_tensor(y)[:, None]
    thirds = torch.as_tensor(np.digitize(y, np.quantile(y, [1 / 3, 2 / 3])))
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(300):
        found = module(inputs)
        if kind == "margin":
            loss = torch.nn.functional.nll_loss(torch.log(found + 1e-12), thirds)
        else:
            loss = ((found - wanted) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    module.eval()

    def predict(points: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            if kind != "margin":
                return module(torch.as_tensor(points)).numpy()[:, 0]
            # Log-odds from before the softmax: its shares have lost their digits near 0 and 1.
            scores = module[:-1](torch.as_tensor(points)).numpy()
            return scores[:, 1] - np.maximum(scores[:, 0], scores[:, 2])

    return module, predict


def estimator(kind: str, seed: int) -> Any:
    """An unfitted model of scikit-learn, XGBoost or LightGBM."""
    from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if kind == "xgboost":
        import xgboost

        return xgboost.XGBRegressor(n_estimators=50, max_depth=2, random_state=seed, n_jobs=1)
    if kind == "lightgbm":
        import lightgbm

        return lightgbm.LGBMRegressor(n_estimators=50, num_leaves=4, random_state=seed, n_jobs=1, verbose=-1)
    return {
        "perceptron": make_pipeline(
            StandardScaler(), MLPRegressor(hidden_layer_sizes=(10, 8), max_iter=200, random_state=seed)
        ),
        "forest": RandomForestRegressor(50, max_depth=3, random_state=seed),
        "boosting": GradientBoostingRegressor(n_estimators=50, max_depth=2, random_state=seed),
    }[kind]


def polytope(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows A x <= b that cut the box [-1, 1]^n."""
    return np.stack([np.ones(n), np.where(np.arange(n) % 2 == 0, 1.0, -1.0)]), np.array([0.5, 1.0])


def cut(model: Any, variables: list[Any]) -> None:
    """The rows on a Pyomo model."""
    rows, limits = polytope(len(variables))
    model.rows = pyo.ConstraintList()
    for row, limit in zip(rows.tolist(), limits.tolist(), strict=True):
        model.rows.add(sum(a * x for a, x in zip(row, variables, strict=True)) <= limit)


def ours(given: Any, kind: str, n: int, seconds: float) -> tuple[float, float, np.ndarray, float, float]:
    """Value, bound, point, CPU seconds, and the error that the reading states."""
    began = time.process_time()
    model = pyo.ConcreteModel()
    model.x = pyo.Var(range(n), bounds=(-1, 1))
    cut(model, list(model.x.values()))
    model.q = pyo.Block()
    read = read_model(given, box=(-1.0, 1.0), smooth=SMOOTH, n_inputs=n, output=OUTPUTS.get(kind))
    output, _ = encode(read, model.q, model.x, sense="equal" if isinstance(read, TreeEnsemble) else "maximise")
    model.best = pyo.Objective(expr=output, sense=pyo.maximize)
    session = Session(model, load_profile("fast"))
    result = session.solve(seconds=seconds, relative_gap=GAP)
    error = read.error if isinstance(read, Network) else 0.0
    # The program's bound is of the pieces; the model's own value may lie the stated error above it.
    return result.objective, result.bound + error, result.x[session.index(model.x)], time.process_time() - began, error


def theirs(given: Any, kind: str, n: int, seconds: float) -> tuple[float, float] | None:
    """Objective and CPU seconds of OMLT + HiGHS; None where OMLT is missing or does not read the model."""
    try:
        from omlt import OmltBlock
        from omlt.gbt import GBTBigMFormulation, GradientBoostedTreeModel
        from omlt.neuralnet import NetworkDefinition, ReluBigMFormulation
        from omlt.neuralnet.layer import DenseLayer, InputLayer
        from pyomo.contrib.appsi.solvers.highs import Highs
    except ImportError:
        return None
    began = time.process_time()
    ends = dict.fromkeys(range(n), (-1.0, 1.0))
    if kind in TREES:
        formulation = GBTBigMFormulation(
            GradientBoostedTreeModel(tree_graph(read_model(given)), scaled_input_bounds=ends)
        )
    else:
        layers = list(given) if type(given).__name__ == "Sequential" else []
        if not layers or {type(layer).__name__ for layer in layers} - {"Linear", "ReLU"}:
            return None
        definition = NetworkDefinition(scaled_input_bounds=ends)
        before = InputLayer([n])
        definition.add_layer(before)
        for k, layer in enumerate(layers):
            if type(layer).__name__ != "Linear":
                continue
            weight, bias = (part.detach().double().numpy() for part in (layer.weight, layer.bias))
            bend = "relu" if k + 1 < len(layers) else "linear"
            dense = DenseLayer(before.output_size, [len(bias)], activation=bend, weights=weight.T, biases=bias)
            definition.add_layer(dense)
            definition.add_edge(before, dense)
            before = dense
        formulation = ReluBigMFormulation(definition)
    model = pyo.ConcreteModel()
    model.net = OmltBlock()
    model.net.build_formulation(formulation)
    inputs, outputs = list(model.net.inputs.values()), list(model.net.outputs.values())
    for variable in inputs:
        variable.setlb(-1)
        variable.setub(1)
    cut(model, inputs)
    model.best = pyo.Objective(expr=outputs[0], sense=pyo.maximize)
    solver = Highs()
    solver.highs_options = {"mip_rel_gap": GAP, "mip_abs_gap": GAP, "threads": 1, "time_limit": seconds}
    solver.config.load_solution = False
    results = solver.solve(model)
    bound, value = results.best_objective_bound, results.best_feasible_objective
    if value is None or abs(bound - value) > 10 * GAP * max(1.0, abs(value)):
        value = float("nan")
    return float(value), time.process_time() - began


def tree_graph(ensemble: TreeEnsemble) -> Any:
    """The ensemble as the ONNX tree node that OMLT reads."""
    from onnx import TensorProto, helper

    found: dict[str, list[Any]] = {key: [] for key in (
        "nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_values", "nodes_modes", "nodes_truenodeids",
        "nodes_falsenodeids", "nodes_hitrates", "nodes_missing_value_tracks_true", "target_treeids", "target_nodeids",
        "target_ids", "target_weights",
    )}  # fmt: skip
    for k, tree in enumerate(ensemble.trees):
        for i, feature in enumerate(tree.feature.tolist()):
            leaf = feature < 0
            row = (k, i, max(feature, 0), float(tree.threshold[i]), "LEAF" if leaf else "BRANCH_LEQ",
                   0 if leaf else int(tree.left[i]), 0 if leaf else int(tree.right[i]), 1.0, 0)  # fmt: skip
            for key, value in zip(list(found)[:9], row, strict=True):
                found[key].append(value)
            if leaf:
                for key, value in zip(list(found)[9:], (k, i, 0, float(tree.value[i])), strict=True):
                    found[key].append(value)
    node = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, post_transform="NONE",
        base_values=[float(ensemble.constant)], **found,
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "trees",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, ensemble.n_inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
    )  # fmt: skip
    return helper.make_model(graph)


def one(kind: str, seed: int, seconds: float, first: bool) -> dict[str, object]:
    """One model, both ways."""
    given, predict = trained(kind, seed)
    n = 3 + seed % 3
    other = None if first else theirs(given, kind, n, seconds)
    value, bound, point, cpu, error = ours(given, kind, n, seconds)
    other = theirs(given, kind, n, seconds) if first else other
    rng = np.random.default_rng(seed)
    rows, limits = polytope(n)
    draws = rng.uniform(-1, 1, size=(4 * DRAWS, n))
    sampled = float(predict(draws[(draws @ rows.T <= limits).all(axis=1)][:DRAWS]).max())
    # Trees jump at their thresholds, where the solver's point stands: their session judged the cell's middle.
    own = value if kind in TREES else float(predict(point[None])[0])
    scale = max(1.0, abs(value))
    right = sampled <= min(value + error, bound) + 1e-6 * scale and abs(own - value) <= error + 1e-5 * scale
    return {
        "kind": kind, "seed": seed, "inputs": n, "value": value, "framework": own, "sampled": sampled, "bound": bound,
        "proven": bound - error - value <= 10 * GAP * scale, "right": right, "cpu": cpu,
        "omlt_value": None if other is None else other[0], "omlt_cpu": None if other is None else other[1],
        "same": None if other is None or np.isnan(other[0]) else abs(other[0] - value) <= 1e-6 * scale,
    }  # fmt: skip


def main() -> None:
    """All models, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="28 models (the default)")
    parser.add_argument("--full", action="store_true", help="200 models")
    parser.add_argument("--models", type=int, help="another number")
    parser.add_argument("--seconds", type=float, default=60.0, help="a solve")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    count = options.models or (200 if options.full else 2 * len(KINDS))
    kinds = [kind for kind in KINDS if kind not in NEEDS or find_spec(NEEDS[kind]) is not None]
    if len(kinds) < len(KINDS):
        left_out = ", ".join(sorted(set(KINDS) - set(kinds)))
        print(f"left out, their libraries are missing (pip install 'rmab-opt[surrogates]'): {left_out}")
    rows = []
    for number in range(count):
        if KINDS[number % len(KINDS)] not in kinds:
            continue
        row = one(KINDS[number % len(KINDS)], number, options.seconds, first=number // len(KINDS) % 2 == 0)
        rows.append(row)
        if options.out:
            options.out.write_text(table_csv(rows))
        both = "" if row["omlt_cpu"] is None else f"  OMLT {row['omlt_value']:9.6f} in {row['omlt_cpu']:6.2f} s"
        print(
            f"{row['kind']:<12} {number:3d}  value {row['value']:9.6f}  sampled {row['sampled']:9.6f}  bound "
            f"{row['bound']:9.6f}  {'proven' if row['proven'] else 'limit '}  {row['cpu']:6.2f} s{both}"
            + ("" if row["right"] else "  WRONG") + ("  DIFFERS" if row["same"] is False else ""),
            flush=True,
        )  # fmt: skip
    wrong = [row for row in rows if not row["right"] or row["same"] is False]
    print(f"{len(rows)} models, {sum(bool(row['proven']) for row in rows)} proven, {len(wrong)} wrong or different")
    for kind in KINDS:
        ratios = [row["cpu"] / row["omlt_cpu"] for row in rows if row["kind"] == kind and row["omlt_cpu"]]  # type: ignore[operator]
        if ratios:
            ratio = float(np.exp(np.log(ratios).mean()))
            print(f"{kind:<12} CPU ours / OMLT + HiGHS: {ratio:.3f} over {len(ratios)} models")
    if not any(row["omlt_cpu"] for row in rows):
        print("OMLT is not installed: nothing compared (pip install 'rmab-opt[bench]')")


if __name__ == "__main__":
    main()
