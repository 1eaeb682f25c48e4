"""Exact values of the small worlds, by the product's own probabilities: specification 2f."""

from __future__ import annotations

import numpy as np
import pytest
from amounts import amount
from scipy import stats
from settings.coupled.tiny import WORLDS, tiny

from rmab_opt.decisions.policy import make_policy
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.instances import generate
from rmab_opt.planning import CoupledTable

EXACT = {
    ("contagion", 0): (17.358635, 4.58729, 11.376134, 11.376134, 17.357222, 17.358635),
    ("contagion", 1): (21.192568, 6.141338, 14.684265, 14.684265, 21.191292, 21.192568),
    ("villages", 0): (27.163111, 8.782495, 22.274218, 22.274218, 26.904071, 27.160343),
    ("villages", 1): (28.815434, 12.475723, 24.265751, 24.265751, 28.775586, 28.815404),
    ("crowding", 0): (27.167604, 7.479379, 27.040986, 26.017412, 27.167604, 27.167604),
    ("crowding", 1): (27.338084, 6.294258, 26.868795, 25.931648, 27.338084, 27.338084),
    ("sessions", 0): (25.04741, 5.725061, 25.047336, 5.725061, 25.04741, 25.04741),
    ("sessions", 1): (24.783429, 4.558942, 24.75704, 4.558942, 24.783429, 24.783429),
    ("fatigue", 0): (28.588813, 5.425126, 20.267481, 20.267481, 27.899564, 28.585751),
    ("fatigue", 1): (24.420467, 3.590054, 17.167367, 17.167367, 23.618622, 24.419441),
    ("stock", 0): (23.814212, 6.910357, 22.300645, 22.300645, 23.661853, 23.811182),
    ("stock", 1): (17.133731, 4.92859, 15.86881, 15.86881, 16.814568, 17.126524),
    ("influencers", 0): (27.408178, 0.0, 19.173537, None, 27.408178, 27.408178),
    ("influencers", 1): (28.323475, 0.0, 20.241006, None, 28.323475, 28.323475),
}
"""Optimum, none, myopic, sum of single gains, myopic improved once and twice."""

ASSORTMENT = {
    0: (33.294, 32.728352, 33.27774),
    2: (20.185458, 19.451697, 10.8255),
    3: (19.005983, 19.000526, 10.194473),
}
"""Optimum, best expected revenue now, dearest items."""


@pytest.mark.parametrize(("name", "seed"), amount([one for one in EXACT if one[1] == 0], list(EXACT)))
def test_exact_values_of_the_small_worlds(name, seed):
    model = tiny(name, seed)
    table = CoupledTable(model.problem, model.actions)
    myopic, taken = table.myopic()
    once, better = table.improved(taken)
    twice, _ = table.improved(better)
    found = [table.optimum()[0], table.none()[0], myopic, table.by_single_gains()[0], once, twice]
    for value, stated in zip(found, EXACT[name, seed], strict=True):
        if stated is not None:
            assert value == pytest.approx(stated, abs=1e-6)
    assert table.value(better) == pytest.approx(once, abs=1e-12)


@pytest.mark.parametrize("seed", amount([0], list(ASSORTMENT)))
def test_exact_values_of_the_small_assortment(seed):
    model = tiny("assortment", seed)
    table = CoupledTable(model.problem, model.actions)
    dearest = np.zeros(5, dtype=np.int64)
    dearest[np.argsort(-model.problem.dynamics.worth, kind="stable")[:2]] = 1
    found = [table.optimum()[0], table.myopic()[0], table.of(lambda state, period, shared: dearest)[0]]
    assert found == pytest.approx(ASSORTMENT[seed], abs=1e-6)


@pytest.mark.parametrize("name", WORLDS)
def test_steps_come_as_often_as_the_joint_chances_say(name):
    """Moves by :meth:`moved` have the law of ``joint_chance``, shared states included: a chi-squared test."""
    model, rng = tiny(name, 0), np.random.default_rng(0)
    problem, dynamics = model.problem, model.problem.dynamics
    state = problem.start if name == "assortment" else rng.integers(2, size=problem.n_arms)
    allowed = model.actions.at(0, problem.shared_values(problem.start_shared))
    for action in allowed.sample(rng, 3):
        shared = problem.start_shared
        many = 4000
        following, _, _ = dynamics.step_shared(
            np.tile(state, (many, 1)), np.tile(action, (many, 1)), np.tile(dynamics.shared_start, (many, 1)), rng
        )
        rows = dynamics.possible()
        chance = dynamics.joint_chance(state, action, shared, rows)
        assert chance.sum() == pytest.approx(1.0, abs=1e-12)
        seen = (following[:, None, :] == rows[None]).all(axis=2).sum(axis=0)
        common = chance * many >= 5
        rest = chance[~common].sum()
        expected, counted = chance[common] * many, seen[common].astype(float)
        if rest > 1e-12:
            expected, counted = np.append(expected, rest * many), np.append(counted, seen[~common].sum())
        off = ((counted - expected) ** 2 / expected).sum()
        assert stats.chi2.sf(off, max(1, len(expected) - 1)) > 1e-6


def test_full_sizes_are_the_stated_ones():
    village = generate("contagion", n_arms=24, villages=3).problem.dynamics
    # Of the force on a village, .85 + .15/3 comes from its own weighted share of ill arms.
    own = (np.arange(24) % 3 == 1).astype(float)
    assert village.force(own)[1] == pytest.approx(0.9)
    assert village.force(own)[0] == pytest.approx(0.05)
    peers = generate("influencers").problem
    assert peers.n_arms == 200
    assert peers.discount == 0.95
    assert (np.asarray(peers.dynamics.contacts.sum(axis=0)).ravel()[20:] == 3).all()


def test_a_table_too_large_is_refused_by_name():
    model = tiny("contagion", 0)
    with pytest.raises(CapabilityError, match="joint_chance"):
        CoupledTable(generate("budget", n_arms=4).problem, model.actions)
    with pytest.raises(ModelError, match="random"):
        CoupledTable(generate("contagion", n_arms=5).problem, model.actions)


def test_features_of_an_episode_come_from_a_file(tmp_path):
    x = np.random.default_rng(3).uniform(1, 10, (5, 6))
    names = ("static1", "static2", "hype", "satisfaction", "price")
    lines = [",".join(names), *(",".join(repr(float(cell)) for cell in row) for row in x.T)]
    (tmp_path / "episode.csv").write_text("\n".join(lines))
    read = generate("assortment", features=str(tmp_path / "episode.csv")).problem.dynamics
    drawn = generate("assortment", n_arms=6, seed=3).problem.dynamics
    assert np.allclose(read.attraction(None), drawn.attraction(None))


@pytest.mark.parametrize("name", amount(["contagion"], ["contagion", "fatigue", "stock"]))
def test_the_myopic_policy_earns_its_exact_value(name):
    model = tiny(name, 0)
    policy = make_policy("myopic", model)

    def decided(state, period, shared):
        decision, _ = policy.follow(state, period, None, shared)
        return decision.action

    assert CoupledTable(model.problem, model.actions).of(decided)[0] == pytest.approx(EXACT[name, 0][2], abs=1e-6)
