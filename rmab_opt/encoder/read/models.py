"""Models of scikit-learn, XGBoost and LightGBM, read by exact type: linear ones, perceptrons, trees and pipelines."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from rmab_opt.encoder.network import Judge, Network
from rmab_opt.encoder.read.compare import Box, compare, spread
from rmab_opt.encoder.read.curves import CURVES
from rmab_opt.encoder.read.tape import Tape, Value
from rmab_opt.encoder.trees import Tree, TreeEnsemble
from rmab_opt.errors import ModelError

__all__ = ["ESTIMATORS", "SCALERS", "read_model"]

Floats = NDArray[np.float64]

ESTIMATORS = {
    "LinearRegression": "linear", "Ridge": "linear", "RidgeCV": "linear", "Lasso": "linear", "LassoCV": "linear",
    "ElasticNet": "linear", "ElasticNetCV": "linear", "SGDRegressor": "linear", "LinearSVR": "linear",
    "HuberRegressor": "linear", "BayesianRidge": "linear", "LogisticRegression": "classes", "LinearSVC": "classes",
    "RidgeClassifier": "classes", "Perceptron": "classes", "SGDClassifier": "classes", "MLPRegressor": "perceptron",
    "MLPClassifier": "perceptron", "DecisionTreeRegressor": "tree", "DecisionTreeClassifier": "tree",
    "ExtraTreeRegressor": "tree", "ExtraTreeClassifier": "tree", "RandomForestRegressor": "forest",
    "RandomForestClassifier": "forest", "ExtraTreesRegressor": "forest", "ExtraTreesClassifier": "forest",
    "GradientBoostingRegressor": "boosting", "GradientBoostingClassifier": "boosting",
}  # fmt: skip
"""scikit-learn's estimators that are read, and how."""

SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler")
"""scikit-learn's transformers that are read, before any estimator."""

Model = Network | TreeEnsemble


def read_model(
    model: Any,
    *,
    output: Any = None,
    box: Box | None = None,
    smooth: float | None = None,
    shape: Any = None,
    n_inputs: int | None = None,
) -> Model:
    """A trained model of any tool that is read, as a :class:`Network` or a :class:`TreeEnsemble`.

    Parameters
    ----------
    model
        A torch module, the path of an ONNX or safetensors file, a fitted estimator or pipeline of scikit-learn, a model
        or booster of XGBoost or LightGBM, layers as arrays, or what was read already.
    output
        Which of several outputs; see :meth:`Network.from_torch`. Classifiers give log-odds, linear ones their decision
        function, trees of scikit-learn the share of a class (by default of the second of two), boosters the raw score.
    box, smooth, shape
        See :meth:`Network.from_torch`.

    Raises
    ------
    ModelError
        At what is not read, by its name; at a difference from the model's own prediction at 64 inputs.
    """
    given: dict[str, Any] = {"output": output, "box": box, "smooth": smooth}
    if isinstance(model, Network | TreeEnsemble):
        return model
    if isinstance(model, str | Path):
        if str(model).endswith(".onnx"):
            from rmab_opt.encoder.read.onnx_files import read_onnx

            return read_onnx(model, shape=shape, n_inputs=n_inputs, **given)
        return Network.from_safetensors(model)
    if isinstance(model, list | tuple):
        return Network.from_arrays(model)
    home = type(model).__module__.split(".")[0]
    if home == "sklearn":
        return _sklearn(model, **given)
    if home in ("xgboost", "lightgbm"):
        ensemble, predict = (_xgboost if home == "xgboost" else _lightgbm)(model, output)
        return _checked(ensemble, predict, box, type(model).__name__)
    from rmab_opt.encoder.read.torch_modules import read_torch

    return read_torch(model, shape=shape, n_inputs=n_inputs, **given)


# ---------------------------------------------------------------------------------------------------- scikit-learn
def _known(model: Any) -> bool:
    """Whether this is scikit-learn's own class, not one of the same name."""
    return type(model).__module__.startswith("sklearn.")


def _sklearn(model: Any, output: Any, box: Box | None, smooth: float | None) -> Model:
    steps = [model]
    if type(model).__name__ == "Pipeline":
        steps = [step for _, step in model.steps if step is not None and step != "passthrough"]
    *before, last = steps
    name = type(last).__name__
    for step in steps:
        if not _known(step) or type(step).__name__ not in (SCALERS if step is not last else ESTIMATORS):
            what = "a step of the pipeline" if step is not last else "the estimator"
            raise ModelError(
                f"{what} is a {type(step).__name__}, which is not read",
                f"use {', '.join(SCALERS)} before one of {', '.join(ESTIMATORS)}.",
            )
    if not hasattr(last, "n_features_in_"):
        raise ModelError(f"the {name} is not fitted", "call fit first.")
    n = int(steps[0].n_features_in_)
    scale, shift = np.ones(n), np.zeros(n)
    for step in before:
        own, moved = _scaled(step)
        scale, shift = own * scale, own * shift + moved
    how = ESTIMATORS[name]
    if how in ("linear", "classes", "perceptron"):
        return _layers(model, last, n, scale, shift, output, box, smooth)
    ensemble = _trees(last, how, output)
    if before:
        ensemble = _unscaled(ensemble, scale, shift)
    return _checked(ensemble, _predictor(model, last, how, output), box, name)


def _scaled(step: Any) -> tuple[Floats, Floats]:
    """(scale, shift) of a transformer: x -> scale * x + shift."""
    n, name = int(step.n_features_in_), type(step).__name__
    if name == "MinMaxScaler":
        if step.clip:
            raise ModelError("the MinMaxScaler has clip=True", "fit it with clip=False.")
        return np.asarray(step.scale_, dtype=float), np.asarray(step.min_, dtype=float)
    center = getattr(step, "center_", None)
    if name == "StandardScaler":
        # Its mean is there whether it is taken off or not.
        center = step.mean_ if step.with_mean else None
    size = np.ones(n) if step.scale_ is None else np.asarray(step.scale_, dtype=float)
    return 1.0 / size, np.zeros(n) if center is None else -np.asarray(center, dtype=float) / size


def _layers(
    model: Any, last: Any, n: int, scale: Floats, shift: Floats, output: Any, box: Box | None, smooth: float | None
) -> Network:
    tape = Tape((n,), smooth)
    value = tape.add(tape.scale(tape.inputs, scale), shift)
    raw: Callable[[Floats], Floats]
    if ESTIMATORS[type(last).__name__] == "perceptron":
        value, raw = _perceptron(tape, last, value), lambda x: _logits(model, last, x)
    else:
        weight = np.atleast_2d(np.asarray(last.coef_, dtype=np.float64))
        value = tape.add(tape.matmul(value, weight.T), np.ravel(last.intercept_))
        raw = model.decision_function if ESTIMATORS[type(last).__name__] == "classes" else model.predict
    points = spread(n, box)
    given = np.asarray(raw(points), dtype=float).reshape(len(points), -1)
    compare(tape, value, points, given, lambda: [], 1e-9)
    network = tape.network(value, output)
    network.judge = Judge.of(raw, given.shape[1], output, 1e-9)
    return network


def _perceptron(tape: Tape, last: Any, value: Value) -> Value:
    count = len(last.coefs_)
    for k, (weight, bias) in enumerate(zip(last.coefs_, last.intercepts_, strict=True)):
        value = tape.add(tape.matmul(value, np.asarray(weight, dtype=float)), np.asarray(bias, dtype=float))
        if k + 1 == count or last.activation == "identity":
            continue
        if last.activation == "relu":
            value = tape.relu(value)
        else:
            value = tape.curve(value, CURVES["tanh" if last.activation == "tanh" else "sigmoid"]())
    return value


def _logits(model: Any, last: Any, x: Floats) -> Floats:
    """What the last layer of a perceptron gives before it is made into shares."""
    if last.out_activation_ == "identity":
        return np.asarray(model.predict(x))
    share, h = model.predict_proba(x), x
    for _, step in getattr(model, "steps", [])[:-1]:
        h = h if step is None or step == "passthrough" else step.transform(h)
    for weight, bias in zip(last.coefs_[:-1], last.intercepts_[:-1], strict=True):
        z = h @ weight + bias
        h = {"relu": np.maximum(z, 0), "tanh": np.tanh(z), "identity": z}.get(
            last.activation, 0.5 + 0.5 * np.tanh(z / 2)
        )
    found = np.asarray(h @ last.coefs_[-1] + last.intercepts_[-1])
    # Shares near 0 and 1 have lost the digits of their log-odds, so they are what is compared, and not the other way.
    said = expit(np.stack([-found[:, 0], found[:, 0]], axis=1)) if found.shape[1] == 1 else softmax(found, axis=1)
    if last.out_activation_ == "logistic" and found.shape[1] > 1:
        said = expit(found)
    if np.abs(said - share).max(initial=0.0) > 1e-9:
        raise ModelError(
            f"the {type(last).__name__} gives other shares than its weights say, by {np.abs(said - share).max():.3g}",
            "give the weights by Network.from_arrays.",
        )
    return found


def _class(model: Any, output: Any) -> int:
    """Position of the class asked for; by default the second of two."""
    count = len(model.classes_)
    if output is None:
        if count != 2:
            raise ModelError(f"the classifier has {count} classes", "say whose share: output=1.")
        return 1
    if not isinstance(output, int | np.integer) or not 0 <= output < count:
        raise ModelError(f"class {output!r} of {count}", "count classes from 0.")
    return int(output)


def _trees(last: Any, how: str, output: Any) -> TreeEnsemble:
    n = int(last.n_features_in_)
    classes = hasattr(last, "classes_")
    if how == "boosting":
        if last.init is not None and last.init != "zero":
            raise ModelError(f"begins from a {type(last.init).__name__} (init)", "leave init out, or give 'zero'.")
        if classes and len(last.classes_) > 2 and output is None:
            raise ModelError(f"the classifier has {len(last.classes_)} classes", "say whose score: output=1.")
        column = int(output or 0) if classes and len(last.classes_) > 2 else 0
        trees = [_tree(stage[column].tree_, lambda v: last.learning_rate * v[:, 0, 0]) for stage in last.estimators_]
        start = np.asarray(last._raw_predict_init(np.zeros((1, n), dtype=np.float32)))[0, column]
        return TreeEnsemble(tuple(trees), n, float(start), single=True)
    members = [last] if how == "tree" else list(last.estimators_)
    if last.n_outputs_ != 1:
        return _several(members, n, last, output)
    if classes:
        which = _class(last, output)
        pick: Callable[[Floats], Floats] = lambda v: v[:, 0, which] / v[:, 0].sum(axis=1) / len(members)  # noqa: E731
    else:
        pick = lambda v: v[:, 0, 0] / len(members)  # noqa: E731
    return TreeEnsemble(tuple(_tree(member.tree_, pick) for member in members), n, single=True)


def _several(members: list[Any], n: int, last: Any, output: Any) -> TreeEnsemble:
    if hasattr(last, "classes_") or not isinstance(output, int) or not 0 <= output < last.n_outputs_:
        raise ModelError(f"the model has {last.n_outputs_} outputs", "say which, output=0, of a regression.")
    pick = lambda v: v[:, output, 0] / len(members)  # noqa: E731
    return TreeEnsemble(tuple(_tree(member.tree_, pick) for member in members), n, single=True)


def _tree(tree: Any, pick: Callable[[Floats], Floats]) -> Tree:
    inner = np.asarray(tree.children_left) >= 0
    return Tree(
        np.where(inner, tree.feature, -1).astype(np.int64),
        np.where(inner, tree.threshold, 0.0).astype(np.float64),
        np.asarray(tree.children_left, dtype=np.int64),
        np.asarray(tree.children_right, dtype=np.int64),
        np.asarray(pick(np.asarray(tree.value, dtype=np.float64)), dtype=np.float64),
    )


def _unscaled(ensemble: TreeEnsemble, scale: Floats, shift: Floats) -> TreeEnsemble:
    """Thresholds moved to before the scaling, whose rounding they then no longer share."""
    if (scale <= 0).any():
        raise ModelError("a scaler turns an input around", "leave it out: trees need none.")
    trees = []
    for tree in ensemble.trees:
        f = np.maximum(tree.feature, 0)
        moved = np.where(tree.feature >= 0, (tree.threshold - shift[f]) / scale[f], 0.0)
        trees.append(Tree(tree.feature, moved, tree.left, tree.right, tree.value))
    return TreeEnsemble(tuple(trees), ensemble.n_inputs, ensemble.constant)


def _predictor(model: Any, last: Any, how: str, output: Any) -> Callable[[Floats], Floats]:
    if not hasattr(last, "classes_"):
        if last.__dict__.get("n_outputs_", 1) != 1:
            return lambda x: model.predict(x)[:, output]
        return model.predict
    if how == "boosting":
        several = len(last.classes_) > 2
        return lambda x: model.decision_function(x)[:, output] if several else model.decision_function(x)
    return lambda x: model.predict_proba(x)[:, _class(last, output)]


def _checked(ensemble: TreeEnsemble, predict: Callable[[Floats], Floats], box: Box | None, name: str) -> TreeEnsemble:
    """The ensemble, held against the model's own prediction at points of the box and near its thresholds."""
    points = spread(ensemble.n_inputs, box)
    rng = np.random.default_rng(0)
    for f, thresholds in ensemble.splits.items():
        # Half of the points stand between thresholds, where the leaves are.
        points[::2, f] = rng.choice(thresholds, len(points[::2])) + rng.choice([-1e-3, 1e-3], len(points[::2]))
    points = points.astype(np.float32).astype(np.float64)
    given = np.asarray(predict(points), dtype=np.float64).reshape(-1)
    size = sum((np.abs(tree.value).max() for tree in ensemble.trees), abs(ensemble.constant))
    off = np.abs(ensemble(points) - given)
    if not (off <= 1e-6 * max(1.0, size)).all():
        raise ModelError(
            f"the {name} read differs from its own prediction by {np.nanmax(off):.3g}",
            "report it with the library's version; the model holds something that is not read.",
        )
    return replace(ensemble, judge=Judge(lambda x: np.asarray(predict(x), dtype=np.float64).reshape(-1), 1e-6))


# ---------------------------------------------------------------------------------------------------- boosters
def _xgboost(model: Any, output: Any) -> tuple[TreeEnsemble, Callable[[Floats], Floats]]:
    import xgboost

    booster = model if isinstance(model, xgboost.Booster) else model.get_booster()
    learner = json.loads(booster.save_raw("json"))["learner"]
    kind = learner["gradient_booster"]["name"]
    if kind != "gbtree":
        raise ModelError(f"an XGBoost model by {kind}", "train with booster='gbtree'.")
    parameters = learner["learner_model_param"]
    n, classes = (
        int(parameters["num_feature"]),
        max(1, int(parameters["num_class"]), int(parameters.get("num_target", 1))),
    )
    column = _column(classes, output)
    gbm = learner["gradient_booster"]["model"]
    start = np.ravel(json.loads(parameters["base_score"]))
    base = float(start[column if start.size > 1 else 0])
    objective = learner["objective"]["name"]
    if objective in ("binary:logistic", "reg:logistic", "binary:logitraw"):
        base = float(np.log(base / (1.0 - base)))
    elif objective in ("count:poisson", "reg:gamma", "reg:tweedie"):
        base = float(np.log(base))
    # Who stopped early predicts with its best rounds only; a bare booster with all.
    best = None if booster is model else getattr(model, "best_iteration", None)
    rounds = len(gbm["iteration_indptr"]) - 1 if best is None else int(best) + 1
    last = int(gbm["iteration_indptr"][rounds])
    trees = []
    for number, (tree, owner) in enumerate(zip(gbm["trees"][:last], gbm["tree_info"][:last], strict=True)):
        if any(tree.get("split_type", [])) or tree.get("categories"):
            raise ModelError(f"tree {number} splits by categories", "train on numbers.")
        if owner != column:
            continue
        left = np.array(tree["left_children"], dtype=np.int64)
        inner = left >= 0
        conditions = np.array(tree["split_conditions"], dtype=np.float32)
        # x < t in float32 is x <= the float32 before t.
        before = np.nextafter(conditions, np.float32(-np.inf)).astype(np.float64)
        trees.append(
            Tree(
                np.where(inner, tree["split_indices"], -1).astype(np.int64),
                np.where(inner, before, 0.0),
                left,
                np.array(tree["right_children"], dtype=np.int64),
                np.where(inner, 0.0, conditions.astype(np.float64)),
            )
        )

    def predict(x: Floats) -> Floats:
        data = xgboost.DMatrix(x.astype(np.float32), feature_names=booster.feature_names)
        found = np.asarray(booster.predict(data, output_margin=True, iteration_range=(0, rounds)), dtype=np.float64)
        return found[:, column] if found.ndim == 2 else found

    return TreeEnsemble(tuple(trees), n, base, single=True), predict


def _column(classes: int, output: Any) -> int:
    if output is None and classes > 1:
        raise ModelError(f"the model has {classes} outputs", "say which: output=0.")
    column = 0 if output is None else output
    if not isinstance(column, int | np.integer) or not 0 <= column < classes:
        raise ModelError(f"output {output!r} of {classes}", "count outputs from 0.")
    return int(column)


def _lightgbm(model: Any, output: Any) -> tuple[TreeEnsemble, Callable[[Floats], Floats]]:
    import lightgbm

    booster = model if isinstance(model, lightgbm.Booster) else model.booster_
    dump = booster.dump_model()
    each = int(dump["num_tree_per_iteration"])
    column = _column(each, output)
    own = [info for number, info in enumerate(dump["tree_info"]) if number % each == column]
    share = 1.0 / len(own) if dump.get("average_output") and own else 1.0
    trees = [_lightgbm_tree(info["tree_structure"], info["tree_index"], share) for info in own]

    def predict(x: Floats) -> Floats:
        # Raw scores of a random forest are sums, what it predicts is their mean.
        found = share * np.asarray(booster.predict(x, raw_score=True), dtype=np.float64)
        return found[:, column] if found.ndim == 2 else found

    return TreeEnsemble(tuple(trees), int(dump["max_feature_idx"]) + 1), predict


def _lightgbm_tree(root: dict[str, Any], number: int, share: float) -> Tree:
    feature: list[int] = []
    left: list[int] = []
    right: list[int] = []
    threshold: list[float] = []
    value: list[float] = []
    open_ = [(root, -1, left)]
    while open_:
        node, parent, side = open_.pop()
        at = len(feature)
        if parent >= 0:
            side[parent] = at
        if "leaf_const" in node or "leaf_coeff" in node:
            raise ModelError(f"tree {number} has linear leaves", "train without linear_tree.")
        leaf = "leaf_value" in node
        if not leaf and (node["decision_type"] != "<=" or node.get("missing_type", "None") == "Zero"):
            raise ModelError(f"tree {number} splits by categories or takes zero for missing", "train on numbers.")
        feature.append(-1 if leaf else int(node["split_feature"]))
        threshold.append(0.0 if leaf else float(node["threshold"]))
        value.append(share * float(node["leaf_value"]) if leaf else 0.0)
        left.append(0)
        right.append(0)
        if not leaf:
            open_ += [(node["right_child"], at, right), (node["left_child"], at, left)]
    return Tree(
        np.array(feature, dtype=np.int64), np.array(threshold), np.array(left, dtype=np.int64),
        np.array(right, dtype=np.int64), np.array(value),
    )  # fmt: skip
