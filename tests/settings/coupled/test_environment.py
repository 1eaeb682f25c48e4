"""Gymnasium's own checker on every shipped model, and what environments promise beside it."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gym_checks import checked

import rmab_opt as ro
from rmab_opt.catalog.environments import identifier, register
from rmab_opt.catalog.files import model_names
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.learning import RestlessBanditEnv, RestlessBanditVectorEnv
from rmab_opt.learning.environment import nearest_allowed

SMALL = ("contagion", "villages", "season_stock", "assortment", "scheduling_stateful")


@pytest.mark.parametrize("name", SMALL)
def test_gymnasium_accepts_the_environment(name):
    checked(ro.load(name), flat=name == "villages", forbidden="penalty" if name == "contagion" else "repair")


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_gymnasium_accepts_every_shipped_model(name):
    model = ro.load(name)
    try:
        RestlessBanditEnv(model)
    except CapabilityError as error:
        if "one round's action" not in error.message:
            raise
        pytest.skip("its columns are more than one round's action")
    checked(model)


def test_the_nearest_allowed_action_is_the_nearest_of_all():
    model = ro.load("villages", n_arms=9)
    everything, rng = model.actions.enumerate().astype(np.int64), np.random.default_rng(0)
    for _ in range(20):
        wanted = rng.integers(2, size=9)
        done = nearest_allowed(model.actions, wanted)
        distance = np.abs(everything - wanted).sum(axis=1)
        nearest = everything[distance == distance.min()]
        assert np.abs(done - wanted).sum() == distance.min()
        # Of equally near ones the lower columns: the largest read as a number.
        assert done.tolist() == max(nearest.tolist(), key=lambda a: sum(9 - k for k, x in enumerate(a) if x))


def test_forbidden_actions_are_repaired_charged_or_refused():
    model = ro.load("contagion")
    everything = np.ones(20, dtype=int)
    mended, charged, strict = (
        RestlessBanditEnv(model, forbidden=kind, penalty=5.0) for kind in ("repair", "penalty", "raise")
    )
    for env in (mended, charged, strict):
        _, info = env.reset(seed=3)
        assert info["action_mask"].all()
    *_, info = mended.step(everything)
    assert (info["repaired"], info["action"].tolist()) == (17, [1, 1, 1] + [0] * 17)
    _, reward, *_, info = charged.step(everything)
    assert info["action"].sum() == 0
    assert reward == pytest.approx(info["reward"].sum() - 5.0)
    with pytest.raises(ModelError, match="forbidden action: visits"):
        strict.step(everything)
    with pytest.raises(ModelError, match="each 0 or 1"):
        mended.step(np.full(20, 2))
    assert mended.mask([1, 1, 1] + [0] * 17).sum() == 0
    assert mended.mask([1, 1] + [0] * 18).tolist() == [0, 0] + [1] * 18
    assert (mended.sample_action(seed=1) == mended.sample_action(seed=1)).all()


def test_an_episode_terminates_at_the_horizon_and_is_over():
    env = RestlessBanditEnv(ro.load("season_stock", horizon=3))
    with pytest.raises(CapabilityError, match="before reset"):
        env.step(np.zeros(40, dtype=int))
    seen, _ = env.reset(seed=1)
    again, _ = env.reset(seed=1)
    assert all((seen[key] == again[key]).all() for key in seen)
    lefts = [float(seen["time_left"][0])]
    ended = False
    while not ended:
        seen, _, ended, truncated, _ = env.step(env.action_space.sample())
        assert not truncated
        lefts.append(float(seen["time_left"][0]))
    assert lefts == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0])
    with pytest.raises(CapabilityError, match="after the end"):
        env.step(np.zeros(40, dtype=int))


@pytest.mark.parametrize("name", ["contagion", "season_stock", "scheduling_stateful"])
def test_episodes_side_by_side_are_those_of_single_environments(name):
    model = ro.load(name, horizon=3)
    many, count = RestlessBanditVectorEnv(model, 3), len(model.actions)
    single = [RestlessBanditEnv(model) for _ in range(3)]
    seen, _ = many.reset(seed=5)
    alone = [env.reset(seed=5 + k)[0] for k, env in enumerate(single)]
    rng = np.random.default_rng(0)
    for _ in range(2):
        for _ in range(3):
            action = rng.integers(2, size=(3, count))
            seen, reward, ended, _, _ = many.step(action)
            made = [env.step(row) for env, row in zip(single, action, strict=True)]
            for key, part in seen.items():
                assert np.array_equal(part, np.stack([step[0][key] for step in made]))
            assert reward == pytest.approx([step[1] for step in made], rel=1e-12)
        assert ended.all()
        # The next step begins anew, whatever its actions are.
        seen, reward, ended, _, _ = many.step(np.zeros((3, count), dtype=int))
        alone = [env.reset()[0] for env in single]
        assert np.array_equal(seen["state"], np.stack([state["state"] for state in alone]))
        assert not ended.any()
        assert not reward.any()


def test_gymnasium_makes_them_by_id():
    register()
    assert identifier("weekly_calls") == "rmab_opt/WeeklyCalls-v0"
    env = gymnasium.make("rmab_opt/Contagion-v0", n_arms=12, forbidden="penalty")
    assert env.unwrapped.model.problem.n_arms == 12
    env.reset(seed=0)
    assert env.unwrapped.mask().shape == (12,)
    assert gymnasium.make("rmab_opt/Model-v0", model="budget").action_space.n > 0
    assert gymnasium.make_vec("rmab_opt/Contagion-v0", num_envs=2).num_envs == 2


@pytest.mark.slow
def test_learners_of_others_train():
    sb3 = pytest.importorskip("stable_baselines3")
    env = RestlessBanditEnv(ro.load("contagion"), flat=True)
    sb3.PPO("MlpPolicy", env, n_steps=64, seed=0, device="cpu").learn(256)
