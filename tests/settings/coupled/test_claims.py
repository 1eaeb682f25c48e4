"""What the published code of embedded Q-planning does, by its effect; the program with fewer binaries than neurons."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, LinearConstraint, milp

import rmab_opt as ro
from rmab_opt.encoder import Network, Support, assemble
from rmab_opt.settings.coupled.reproduction import greedy_score, one_round, released_samples


def published_route(edges: list[tuple[int, int]], n: int, length: int, reward: np.ndarray, budget: int, *, waits: bool):
    """Chosen nodes of the published route program from node 0 and back; ``waits``: self-loops count as moves."""
    arcs = [(i, j) for i, j in edges] + [(j, i) for i, j in edges]
    steps = [(i, j, t) for t in range(length) for i, j in [*arcs, *((k, k) for k in range(n))]]
    at = {step: n + k for k, step in enumerate(steps)}
    rows, low, high = [], [], []

    def row(terms: dict[int, float], least: float, most: float) -> None:
        line = np.zeros(n + len(steps))
        for column, value in terms.items():
            line[column] += value
        rows.append(line)
        low.append(least)
        high.append(most)

    row(dict.fromkeys(range(n), 1.0), 0, budget)
    out = [(0, j, 0) for i, j in arcs if i == 0] + ([(0, 0, 0)] if waits else [])
    back = [(i, 0, length - 1) for i, j in arcs if j == 0] + ([(0, 0, length - 1)] if waits else [])
    row({at[step]: 1.0 for step in out}, 1, 1)
    row({at[step]: 1.0 for step in back}, 1, 1)
    for t in range(length):
        moves = [*arcs, *((k, k) for k in range(n))] if waits else arcs
        row({at[i, j, t]: 1.0 for i, j in moves}, 1, 1)
    everywhere = [*arcs, *((k, k) for k in range(n))]
    for t, node in itertools.product(range(length - 1), range(n)):
        terms = {at[i, j, t]: 1.0 for i, j in everywhere if j == node}
        for i, j in everywhere:
            if i == node:
                terms[at[i, j, t + 1]] = terms.get(at[i, j, t + 1], 0.0) - 1.0
        row(terms, 0, 0)
    for node in range(n):
        terms = {at[i, j, t]: -1.0 for i, j in everywhere if j == node for t in range(length)}
        row({**terms, node: 1.0}, -np.inf, 0)
    cost = np.concatenate([-reward, np.zeros(len(steps))])
    whole = np.ones(len(cost))
    done = milp(cost, constraints=LinearConstraint(np.array(rows), low, high), bounds=Bounds(0, 1), integrality=whole)
    assert done.success
    return np.flatnonzero(done.x[:n] > 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_the_published_path_constraint_allows_every_set(seed):
    """A line of six nodes and four moves from its end: only the first three can be visited. Self-loops that no row
    counts let the program pull the best of all, wherever they are; counted as waiting, they do not."""
    edges = [(k, k + 1) for k in range(5)]
    reward = np.random.default_rng(seed).random(6)
    chosen = published_route(edges, 6, 4, reward, 2, waits=False)
    assert sorted(chosen) == sorted(np.argsort(-reward)[:2])
    right = published_route(edges, 6, 4, reward, 2, waits=True)
    assert sorted(right) == sorted(np.argsort(-reward[:3])[:2])


@pytest.mark.slow
def test_our_routes_are_those_that_can_be_walked():
    model = ro.load("path")
    listed = np.asarray(model.actions.enumerate())
    assert len(listed) == 3931
    every = sum(len(list(itertools.combinations(range(20), k))) for k in range(6))
    assert every == 21_700


def test_a_learning_rate_that_falls_a_tenth_an_episode_is_spent_after_22_of_100():
    rates = 0.9 ** np.arange(100)
    assert rates.sum() == pytest.approx(10.0, abs=0.01)
    assert (rates >= 0.1).sum() == 22
    assert rates[22:].sum() / rates.sum() < 0.1


@pytest.mark.parametrize(("rate", "climbs"), [(1e-6, False), (0.1, True)])
def test_a_target_that_never_moves_looks_two_rounds_ahead_and_no_further(rate, climbs):
    """An arm that pays only at its third step up, a small cost for climbing: the first reward lies three rounds away.
    2,000 updates of the published 0.0001 % leave the target the myopic fit, and the learned choice never climbs."""
    reward = np.array([[0.0, -0.1], [0.0, -0.1], [0.0, -0.1], [5.0, 5.0]])
    following = np.array([[0, 1], [0, 2], [1, 3], [3, 3]])
    target = reward.copy()
    learned = reward.copy()
    for _ in range(2000):
        learned = reward + 0.99 * target[following].max(axis=2)
        target = target + rate * (learned - target)
    assert (learned[0, 1] > learned[0, 0]) == climbs
    if not climbs:
        assert np.abs(target - reward).max() < 0.0025 * np.abs(learned - reward).max()


def test_importance_weights_of_the_published_replay_are_a_common_factor():
    """Weights of shape (32) times losses of shape (32, 1) are 32 x 32: their mean is the product of the means."""
    generator = torch.Generator().manual_seed(0)
    weights, losses = torch.rand(32, generator=generator), torch.rand(32, 1, generator=generator)
    assert (weights * losses).shape == (32, 32)
    assert (weights * losses).mean() == pytest.approx(float(weights.mean() * losses.mean()))
    assert (weights * losses[:, 0]).mean() != pytest.approx(float(weights.mean() * losses.mean()))


def test_a_network_that_ranks_arms_by_their_mean_effect_plays_the_best_constant_action():
    """Blind to the state, it earns far more than the exact myopic rule: the published level needs no planning."""
    model = ro.load("scheduling", n_arms=12, n_workers=3, at_most=3, horizon=20)
    n = model.problem.n_arms
    _, reward = model.problem.dynamics.tabular()
    effect = (reward[:, :, 1] - reward[:, :, 0]).mean(axis=1)
    blind = torch.nn.Sequential(torch.nn.Linear(2 * n, 1), torch.nn.Linear(1, 1))
    with torch.no_grad():
        blind[0].weight[:] = torch.cat([torch.from_numpy(effect).float(), torch.zeros(n)])
        blind[0].bias[:] = 0.0
        blind[1].weight[:] = 1.0
        blind[1].bias[:] = 0.0
    score = np.mean(greedy_score(model, blind, one_hot=False, episodes=5, seed=1))
    table = ro.evaluate(model, ["static", "myopic"], seeds=[1], episodes=5, bound=False)
    a_round = {name: values.mean() / 20 for name, values in table.episodes.items()}
    assert score > 0.9 * a_round["static"]
    assert score > 1.2 * a_round["myopic"]


def test_the_released_warm_start_has_one_state_for_all_of_its_first_group():
    model = ro.load("scheduling", n_arms=8, n_workers=2, at_most=2, horizon=2)
    states, actions, paid = released_samples(model, 0)
    listed = 2 + 2 * 8 + 10
    first = (2 + 2 * 8) * listed
    assert (states[:first] == states[0]).all()
    assert len(states) == len(actions) == first + 50 * 2 * (listed + 1)
    assert paid[:5] == pytest.approx(one_round(model, states[:5], actions[:5]))


def test_a_trained_network_needs_fewer_binaries_than_it_has_neurons_and_big_m_one_each():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(20, 16), torch.nn.ReLU(), torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1)
    )
    model = ro.load("budget", n_arms=20, at_most=2)
    made, compiled = model.actions.compiled
    act = compiled.index(made.act)
    tight = assemble(Network.from_torch(network), Support.from_program(compiled.program, act), effort="linear")
    loose = assemble(Network.from_torch(network), Support.box(np.zeros(20), np.ones(20)), effort="interval")
    assert tight.counts["binaries"] < loose.counts["binaries"] <= 48
