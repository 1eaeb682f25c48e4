"""Models of scikit-learn, XGBoost and LightGBM: read as they predict, and optimised as sampling and enumeration say."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pyomo.environ as pyo
import pytest

from rmab_opt.encoder import Network, Tree, TreeEnsemble, encode, read_model
from rmab_opt.errors import ModelError
from rmab_opt.solver import Session

sklearn = pytest.importorskip("sklearn")


def data(seed, n=4, whole=False):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 2, size=(150, n)).astype(float) if whole else rng.normal(size=(150, n))
    return x, x[:, 0] * 2 - np.abs(x[:, 1]) + x[:, 2] * x[:, -1] + 0.1 * rng.normal(size=150)


def estimators():
    from sklearn import ensemble, linear_model, neural_network, preprocessing, svm, tree
    from sklearn.pipeline import make_pipeline

    scaled = make_pipeline(preprocessing.StandardScaler(), preprocessing.MinMaxScaler())
    return {
        "linear": linear_model.LinearRegression(),
        "ridge": make_pipeline(preprocessing.RobustScaler(), linear_model.Ridge()),
        "svr": svm.LinearSVR(),
        "logistic": make_pipeline(preprocessing.MaxAbsScaler(), linear_model.LogisticRegression()),
        "mlp": make_pipeline(
            *[s for _, s in scaled.steps],
            neural_network.MLPRegressor(hidden_layer_sizes=(6, 5), max_iter=50, random_state=0),
        ),
        "mlp classes": neural_network.MLPClassifier(hidden_layer_sizes=(6,), max_iter=50, random_state=0),
        "tree": tree.DecisionTreeRegressor(max_depth=4),
        "tree classes": tree.DecisionTreeClassifier(max_depth=4),
        "forest": ensemble.RandomForestRegressor(8, max_depth=4),
        "forest classes": ensemble.RandomForestClassifier(8, max_depth=3),
        "extra": ensemble.ExtraTreesRegressor(8, max_depth=4),
        "boosting": ensemble.GradientBoostingRegressor(n_estimators=10, max_depth=2),
        "boosting classes": ensemble.GradientBoostingClassifier(n_estimators=10, max_depth=2),
        "scaled forest": make_pipeline(preprocessing.StandardScaler(), ensemble.RandomForestRegressor(5, max_depth=3)),
    }


def prediction(name, model, x):
    if name in ("tree classes", "forest classes"):
        return model.predict_proba(x)[:, 1]
    if name == "mlp classes":
        share = model.predict_proba(x)
        return np.log(share[:, 1] / share[:, 0])
    return model.decision_function(x) if "classes" in name or name == "logistic" else model.predict(x)


@pytest.fixture(scope="module")
def fitted():
    found = {}
    for name, model in estimators().items():
        x, y = data(3)
        with warnings.catch_warnings():
            # Fifty rounds of training do not converge, and need not.
            warnings.simplefilter("ignore")
            found[name] = model.fit(x, y > 0 if "classes" in name or name == "logistic" else y)
    return found


def test_log_odds_are_read_where_shares_have_lost_their_digits():
    from sklearn.neural_network import MLPClassifier

    x, y = data(6)
    model = MLPClassifier(hidden_layer_sizes=(5,), max_iter=20, random_state=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, y > 0)
    model.coefs_[-1] = model.coefs_[-1] * 40
    network = read_model(model)
    assert np.abs(network(x)).max() > 25
    assert np.allclose(1 / (1 + np.exp(-network(x))), model.predict_proba(x)[:, 1])


def boosters():
    x, y = data(4)
    for home in ("xgboost", "lightgbm"):
        library = pytest.importorskip(home)
        if home == "xgboost":
            made = library.XGBRegressor(n_estimators=8, max_depth=3, n_jobs=1).fit(x, y)
            classes = library.XGBClassifier(n_estimators=5, max_depth=2, n_jobs=1).fit(x, y > 0)
            yield made, made.predict
            yield classes, lambda p, model=classes: model.predict(p, output_margin=True)
        else:
            made = library.LGBMRegressor(n_estimators=8, num_leaves=6, n_jobs=1, verbose=-1).fit(x, y)
            classes = library.LGBMClassifier(n_estimators=5, num_leaves=4, n_jobs=1, verbose=-1).fit(x, y > 0)
            yield made, lambda p, model=made: model.booster_.predict(p)
            yield classes, lambda p, model=classes: model.booster_.predict(p, raw_score=True)


@pytest.mark.parametrize("name", list(estimators()))
def test_estimators_are_read_as_they_predict(fitted, name):
    x = np.random.default_rng(1).normal(size=(1000, 4)).astype(np.float32).astype(float)
    wanted = prediction(name, fitted[name], x)
    off = np.abs(read_model(fitted[name])(x) - wanted)
    # A scaler before trees rounds on its own: a point in ten thousand may stand on a threshold.
    assert np.quantile(off, 0.999) <= 1e-6 * max(1.0, np.abs(wanted).max())


def test_boosters_are_read_as_they_predict():
    x = np.random.default_rng(1).normal(size=(1000, 4)).astype(np.float32).astype(float)
    for model, predict in boosters():
        wanted = np.asarray(predict(x), dtype=float)
        assert np.abs(read_model(model)(x) - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())


def program(n, low=-2.0, high=2.0, domain=pyo.Reals):
    model = pyo.ConcreteModel()
    model.x = pyo.Var(range(n), bounds=(low, high), domain=domain)
    model.limit = pyo.Constraint(expr=sum(model.x.values()) <= 1)
    model.q = pyo.Block()
    return model


@pytest.mark.parametrize("direction", [pyo.maximize, pyo.minimize])
@pytest.mark.parametrize("name", ["mlp", "tree", "forest", "extra", "boosting", "scaled forest"])
def test_optimum_over_a_polytope_is_above_every_sample_and_reached(fitted, name, direction):
    """The bound holds every sample; the point found has the value claimed by the model's own prediction."""
    model = program(4)
    output, record = encode(fitted[name], model.q, model.x, **({} if name != "mlp" else {"sense": "equal"}))
    model.best = pyo.Objective(expr=output, sense=direction)
    session = Session(model, "exact")
    result = session.solve()
    assert result.status == "optimal"
    point = result.x[session.index(model.x)]
    sign = 1.0 if direction == pyo.maximize else -1.0
    samples = np.random.default_rng(0).uniform(-2, 2, size=(20000, 4))
    samples = samples[samples.sum(axis=1) <= 1]
    assert sign * result.objective >= (sign * fitted[name].predict(samples)).max() - 1e-6
    if name == "mlp":
        assert fitted[name].predict(point[None])[0] == pytest.approx(result.objective, abs=1e-6)
    else:
        assert record.output[0] - 1e-9 <= result.objective <= record.output[1] + 1e-9


def test_optimum_of_whole_inputs_is_the_best_enumerated_point():
    from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor

    for seed, kind in itertools.product(range(6), (GradientBoostingRegressor, RandomForestRegressor)):
        rng = np.random.default_rng(seed)
        x = rng.integers(0, 4, size=(80, 3)).astype(float)
        y = x[:, 0] * x[:, 1] - 2 * x[:, 2] + rng.normal(size=80)
        forest = kind(n_estimators=8, max_depth=3, random_state=seed).fit(x, y)
        points = np.array(list(itertools.product(range(4), repeat=3)), dtype=float)
        points = points[points.sum(axis=1) <= 5]
        for direction, best in ((pyo.maximize, np.max), (pyo.minimize, np.min)):
            model = program(3, 0, 3, pyo.Integers)
            model.limit.deactivate()
            model.few = pyo.Constraint(expr=sum(model.x.values()) <= 5)
            output, record = encode(forest, model.q, model.x)
            model.best = pyo.Objective(expr=output, sense=direction)
            result = Session(model, "exact").solve()
            assert result.objective == pytest.approx(best(forest.predict(points)), abs=1e-6)
            assert record.counts["binaries"] == sum(map(len, record.ensemble.splits.values()))


def test_trees_of_zero_one_inputs_are_a_network():
    from sklearn.ensemble import RandomForestRegressor

    x, y = data(5, 6, whole=True)
    forest = RandomForestRegressor(7, max_depth=4, random_state=0).fit(x, y)
    points = np.array(list(itertools.product([0.0, 1.0], repeat=6)))
    network = read_model(forest).network()
    assert isinstance(network, Network)
    assert np.allclose(network(points), forest.predict(points), atol=1e-9)


def test_points_on_a_threshold_move_into_their_cell():
    """The right side is worth more and its input is dear: the rows stop at the threshold, the model needs more."""
    stump = Tree(*map(np.array, ([0, -1, -1], [0.5, 0.0, 0.0], [1, 0, 0], [2, 0, 0], [0.0, 1.0, 3.0])))
    model = pyo.ConcreteModel()
    model.x = pyo.Var([0], bounds=(0, 1))
    model.q = pyo.Block()
    output, record = encode(TreeEnsemble((stump,), 1), model.q, model.x)
    model.best = pyo.Objective(expr=output - model.x[0], sense=pyo.maximize)
    pyo.SolverFactory("appsi_highs").solve(model)
    point = record.inside([pyo.value(model.x[0])])
    assert record.value(point) == 3.0
    assert point[0] == pytest.approx(0.5, abs=1e-6)
    assert point[0] > 0.5


def test_what_is_not_read_is_named():
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures

    x, y = data(1)
    with pytest.raises(ModelError, match="GaussianProcessRegressor"):
        read_model(GaussianProcessRegressor().fit(x, y))
    with pytest.raises(ModelError, match="PolynomialFeatures"):
        read_model(make_pipeline(PolynomialFeatures(), LinearRegression()).fit(x, y))
    with pytest.raises(ModelError, match="not fitted"):
        read_model(LinearRegression())

    class Ridge(LinearRegression):
        """A user's own class of a known name."""

        def predict(self, x):
            return super().predict(x) ** 2

    with pytest.raises(ModelError, match="Ridge"):
        read_model(Ridge().fit(x, y))


def test_scalers_without_a_mean_and_boosting_from_another_model():
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import RobustScaler, StandardScaler

    x, y = data(9)
    x = x + 3.0
    for scaler in (StandardScaler(with_mean=False), StandardScaler(with_std=False), RobustScaler(with_centering=False)):
        model = make_pipeline(scaler, LinearRegression()).fit(x, y)
        assert np.allclose(read_model(model)(x), model.predict(x))
    begun = GradientBoostingRegressor(n_estimators=3, init=LinearRegression()).fit(x, y)
    with pytest.raises(ModelError, match=r"begins from a LinearRegression \(init\)"):
        read_model(begun)


def test_boosters_that_stopped_early_are_read_as_they_predict():
    """The wrapper predicts with its best rounds, of which the tail of the training is no part."""
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    x, y = data(10)
    x = x.astype(np.float32).astype(np.float64)
    worse = [(x[:40], -y[:40])]
    early = xgboost.XGBRegressor(n_estimators=12, early_stopping_rounds=3, n_jobs=1)
    early.fit(x, y, eval_set=worse, verbose=False)
    assert early.best_iteration + 1 < early.get_booster().num_boosted_rounds()
    assert np.allclose(read_model(early)(x), early.predict(x), atol=1e-5)
    assert np.allclose(read_model(early.get_booster())(x), early.get_booster().predict(xgboost.DMatrix(x)), atol=1e-5)
    other = lightgbm.LGBMRegressor(n_estimators=12, verbose=-1, n_jobs=1)
    other.fit(x, y, eval_set=worse, callbacks=[lightgbm.early_stopping(3, verbose=False)])
    assert np.allclose(read_model(other)(x), other.predict(x))
    forest = lightgbm.LGBMRegressor(
        n_estimators=4, boosting_type="rf", bagging_freq=1, bagging_fraction=0.5, verbose=-1
    )
    forest.fit(x, y)
    assert np.allclose(read_model(forest)(x), forest.predict(x))
