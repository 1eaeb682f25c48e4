"""Many states in one call: what single decisions give, wherever they were taken, also when a worker is lost."""

from __future__ import annotations

import os
import signal
from functools import partial

import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import action_sets, problem_for

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Knapsack
from rmab_opt.decisions import Chooser, NetworkObjective, Scores, Situation
from rmab_opt.decisions import chooser as module
from rmab_opt.encoder import Network
from rmab_opt.errors import InfeasibleError, ModelError
from rmab_opt.problem import Arms
from rmab_opt.search.local_search import climb, climb_all


def at_state(base: Network, situation: Situation) -> Network:
    """The network with first biases, and now and then weights, of its own at every state."""
    rng = np.random.default_rng(situation.state)
    layers = [
        (w, b + (rng.normal(size=len(b)) if k == 0 else 0.0), kind) for k, (w, b, kind) in enumerate(base.layers())
    ]
    return Network.from_arrays(layers, skip=base.skip)


def network_of(n: int, rng: np.random.Generator, hidden: int = 12) -> Network:
    sizes = [(hidden, n), (8, hidden), (1, 8)]
    layers = [(rng.normal(size=s), rng.normal(size=s[0]), "linear" if s[0] == 1 else "relu") for s in sizes]
    return Network.from_arrays(layers, skip=rng.normal(size=n))


def a_chooser(n: int = 9, method: str = "search", seed: int = 0, **options) -> Chooser:
    rng = np.random.default_rng(seed)
    actions = ActionSet(
        Arms.from_arrays(n, cost=rng.uniform(0.5, 2.0, n)), {"money": Knapsack(cost="cost", at_most=4.0)}
    )
    goal = NetworkObjective(partial(at_state, network_of(n, rng)))
    return Chooser(problem_for(actions.columns.arms, rng), actions, goal, "exact", method=method, many=False, **options)


def states_of(chooser: Chooser, count: int) -> np.ndarray:
    return np.random.default_rng(7).integers(3, size=(count, chooser.problem.n_arms))


@settings(max_examples=amount(4, 20), deadline=None)
@given(actions=action_sets(), seed=st.integers(0, 10**6), method=st.sampled_from(["auto", "search", "program"]))
def test_a_batch_decides_as_fresh_choosers_do(actions, seed, method):
    rng = np.random.default_rng(seed)
    problem = problem_for(actions.columns.arms, rng)
    goal = NetworkObjective(partial(at_state, network_of(len(actions), rng)))
    chooser = Chooser(problem, actions, goal, "exact", method=method, many=False)
    states = rng.integers(3, size=(4, problem.n_arms))
    try:
        single = [Chooser(problem, actions, goal, "exact", method=method, many=False).decide(s) for s in states]
    except InfeasibleError:
        with pytest.raises(InfeasibleError):
            chooser.batch_decide(states)
        return
    for one, other in zip(single, chooser.batch_decide(states), strict=True):
        assert other.value == pytest.approx(one.value, abs=1e-6 * (1 + abs(one.value)))
        assert other.bound >= one.value - 1e-9
        assert other.violations == {}
        assert other.status == "optimal"


@pytest.mark.parametrize("method", amount(["search"], ["search", "program"]))
def test_decisions_do_not_depend_on_the_workers_or_on_what_was_decided_before(method, monkeypatch):
    """Ten states in chunks of four: two workers give the same bits as one, and as single decisions."""
    monkeypatch.setattr(module, "CHUNK", 4)
    chooser = a_chooser(method=method)
    states = states_of(chooser, 10)
    here = chooser.batch_decide(states)
    chooser.decide(states[3])
    apart = chooser.batch_decide(states, n_jobs=2)
    for one, other in zip(here, apart, strict=True):
        assert np.array_equal(one.action, other.action)
        assert (one.value, one.bound, one.nodes) == (other.value, other.bound, other.nodes)
    fresh = [a_chooser(method=method).decide(state) for state in states[:3]]
    assert [d.chosen for d in fresh] == [d.chosen for d in apart[:3]]


def test_what_came_from_a_worker_can_be_asked_why(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 2)
    chooser = a_chooser()
    decision = chooser.batch_decide(states_of(chooser, 4), n_jobs=2)[3]
    other = next(name for name in decision.ids if name not in decision.chosen)
    assert "costs" in decision.why_not(other)


def _killing(folder: str, home: int, base: Network, situation: Situation) -> Network:
    mark = os.path.join(folder, "died")
    if os.getpid() != home and not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return at_state(base, situation)


@pytest.mark.slow
def test_a_lost_workers_states_are_decided_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)
    chooser = a_chooser()
    states = states_of(chooser, 10)
    expected = [d.chosen for d in chooser.batch_decide(states)]
    base = chooser.objective.at.args[0]
    chooser.objective.at = partial(_killing, str(tmp_path), os.getpid(), base)
    assert [d.chosen for d in chooser.batch_decide(states, n_jobs=2)] == expected
    assert (tmp_path / "died").exists()


def test_scores_are_decided_in_batches_too():
    rng = np.random.default_rng(1)
    actions = ActionSet(Arms.from_arrays(6), {"budget": Budget(at_most=2)})
    problem = problem_for(actions.columns.arms, rng)
    goal = Scores(rng.normal(size=(6, 3, 2)))
    states = rng.integers(3, size=(5, 6))
    batch = Chooser(problem, actions, goal, "exact").batch_decide(states)
    assert [d.chosen for d in batch] == [Chooser(problem, actions, goal, "exact").decide(s).chosen for s in states]
    with pytest.raises(ModelError, match="give one state a row"):
        Chooser(problem, actions, goal).batch_decide(states[0])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6), n=st.integers(1, 60), many=st.integers(1, 5), shared=st.booleans(), linear=st.booleans()
)
def test_local_search_for_many_states_is_the_one_for_each(seed, n, many, shared, linear):
    """Also where networks differ in their weights; no single flip or swap improves what it ends with."""
    rng = np.random.default_rng(seed)
    base = network_of(n, rng)
    networks = []
    for _ in range(many):
        own = base if shared else network_of(n, rng)
        layers = [(w, b + rng.normal(), kind) for w, b, kind in own.layers()]
        networks.append(Network.linear(rng.normal(size=n)) if linear else Network.from_arrays(layers, skip=own.skip))
    most = int(rng.integers(1, n + 1))
    start = np.zeros((many, n), dtype=int)

    def fits(actions):
        return actions.sum(axis=1) <= most

    actions, values = climb_all(networks, start, fits, lambda action: action.sum() <= most)
    for network, first, action, value in zip(networks, start, actions, values, strict=True):
        alone, worth = climb(network, first, fits, lambda action: action.sum() <= most)
        assert np.array_equal(action, alone)
        assert value == pytest.approx(worth) == pytest.approx(network(action))
        assert action.sum() <= most
        assert value >= network(first) - 1e-9
        flips = np.abs(action - np.eye(n))
        swaps = (action - np.eye(n)[action == 1][:, None] + np.eye(n)[action == 0][None]).reshape(-1, n)
        near = np.concatenate([flips, swaps])
        assert network(near[near.sum(axis=1) <= most]).max(initial=-np.inf) <= value + 1e-8 * max(1.0, abs(value))


def test_local_search_stops_at_its_ceiling():
    network = Network.linear([1.0, 2.0, 3.0])
    found = climb_all(
        [network, network],
        np.zeros((2, 3)),
        lambda a: a.sum(axis=1) <= 9,
        lambda a: True,
        ceilings=np.array([2.5, np.inf]),
    )
    assert found[1].tolist() == [3.0, 6.0]
