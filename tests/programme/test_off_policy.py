"""Another list from a log: unbiased with any tables, exact on enumeration, refused where nothing was left to chance."""

from __future__ import annotations

import sys
from itertools import product

import numpy as np
import pytest
from programmes import make_log, needs_data

from rmab_opt.errors import ModelError
from rmab_opt.programme.off_policy import price_for, soft_price_rule, value_of_another


def chain(truth: np.ndarray, target: np.ndarray, start: np.ndarray, weeks: int) -> float:
    """Exact expected family-weeks of a list by own states: chances pushed forward, no values."""
    chance, total = np.eye(2)[start], 0.0
    for _ in range(weeks):
        moved = (1 - target)[..., None] * truth[:, 0] + target[..., None] * truth[:, 1]
        chance = np.einsum("ns,nst->nt", chance, moved)
        total += chance[:, 1].sum()
    return float(total)


def tables(up: np.ndarray) -> np.ndarray:
    return np.stack([1 - up, up], axis=-1)


def test_the_estimate_is_exactly_unbiased_over_all_logs_of_one_arm_whatever_the_tables():
    rng = np.random.default_rng(0)
    truth, wrong = tables(rng.random((1, 2, 2))), tables(rng.random((1, 2, 2)))
    target, followed = rng.random((1, 2)), rng.random((1, 2)) * 0.6 + 0.2
    mean = dict.fromkeys(("doubly_robust", "inverse"), 0.0)
    for path in product(range(2), repeat=6):
        state, action = np.array([[0, *path[0::2]]]), np.array([path[1::2]])
        chance = followed[0][state[:, :-1]]
        weight = 1.0
        for t in range(3):
            weight *= chance[0, t] if action[0, t] else 1 - chance[0, t]
            weight *= truth[0, action[0, t], state[0, t], state[0, t + 1]]
        # Two copies of the arm: an interval needs more than one.
        two = [np.repeat(part, 2, axis=0) for part in (state, action, chance, target, wrong)]
        found = value_of_another(*two)
        for name in mean:
            mean[name] += weight * getattr(found, name) / 2
    right = chain(truth, target, np.array([0]), 3)
    assert mean == pytest.approx({"doubly_robust": right, "inverse": right}, abs=1e-9)


def test_a_list_without_a_lottery_and_too_different_a_list_are_refused():
    rng = np.random.default_rng(1)
    state, action = rng.integers(0, 2, (400, 7)), (rng.random((400, 6)) < 0.1).astype(int)
    known = tables(np.full((400, 2, 2), 0.5))
    with pytest.raises(ModelError, match="nothing to chance"):
        value_of_another(state, action, action.astype(float), np.full((400, 2), 0.5), known)
    with pytest.raises(ModelError, match="fewer than 5 %"):
        value_of_another(state, action, np.full((400, 6), 0.1), np.full((400, 2), 0.999), known)


def test_a_price_meets_the_wanted_calls_on_average():
    rng = np.random.default_rng(2)
    gain, state = rng.normal(size=(300, 2)), rng.integers(0, 2, (300, 5))
    price = price_for(gain, state, 40.0)
    made = np.take_along_axis(soft_price_rule(gain, price), state, axis=1).sum() / 5
    assert made == pytest.approx(40, abs=1e-6)


@needs_data
def test_doubly_robust_over_a_hundred_logs_with_right_and_wrong_tables(capsys):
    """Spec 5.1: unbiased within 2.5 standard errors with a wrong model, intervals cover in 88 of 100 or more."""
    log = make_log().simulate(0)
    truth, kind, start, weeks, n = tables(log["up"]), log["kind"], log["state"][-1], 6, 1200
    gain = (log["up"][:, 1] - log["up"][:, 0]) * 1.5
    target = soft_price_rule(gain, price_for(gain, np.repeat(start[:, None], 2, axis=1), 90, 0.1), 0.1)
    lottery = np.array([np.clip(target[kind == g].mean(axis=0), 0.02, 0.20) for g in range(3)])[kind]
    right = chain(truth, target, start, weeks)
    mean = np.broadcast_to(truth.mean(axis=0), truth.shape)
    idle = np.broadcast_to(truth[:, :1], truth.shape)
    for name, known in (("right", truth), ("cohort mean", mean), ("no uplift", idle)):
        errors, covered, alone = [], 0, 0.0
        for seed in range(100):
            rng = np.random.default_rng([seed, 7])
            state, action = np.empty((n, weeks + 1), int), np.empty((n, weeks), int)
            state[:, 0] = start
            for t in range(weeks):
                action[:, t] = rng.random(n) < lottery[np.arange(n), state[:, t]]
                state[:, t + 1] = rng.random(n) < truth[np.arange(n), action[:, t], state[:, t], 1]
            chance = np.take_along_axis(lottery, state[:, :-1], axis=1)
            found = value_of_another(state, action, chance, target, known)
            errors.append(found.doubly_robust - right)
            covered += found.low <= right <= found.high
            alone = found.model - right
        spread = np.std(errors, ddof=1)
        with capsys.disabled():
            sys.stdout.write(
                f"\n{name}: error {np.mean(errors):.1f} ({spread:.0f}), {covered} covered, tables alone {alone:.1f}"
            )
        assert abs(np.mean(errors)) <= 2.5 * spread / 10
        assert covered >= 88
        if name != "right":
            assert abs(alone) > 25
