"""Penalties for quicker programs: bounds over the actions are those of all actions, binaries fall."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from amounts import amount

import rmab_opt as ro
from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Linear
from rmab_opt.decisions import Model
from rmab_opt.decisions.objective import Situation
from rmab_opt.encoder import Support, assemble
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.learning import DQNConfig, train
from rmab_opt.learning.networks import make_network
from rmab_opt.learning.penalties import Penalties, bounds
from rmab_opt.problem import Arms


def model(**given) -> Model:
    return ro.load("budget", n_arms=7, horizon=4, **given)


def made(kind: str, of: Model, seed: int = 0, hidden=(6, 5), head: int = 4):
    return make_network(kind, of.problem, of.actions.columns, hidden, head, 1.0, seed)


@pytest.mark.parametrize("kind", ["dense", "pooled"])
def test_bounds_of_the_first_layer_are_those_of_all_allowed_actions(kind):
    """By enumeration, each neuron's value at every allowed action; layers behind lie within their intervals."""
    of = model()
    network, rng = made(kind, of), np.random.default_rng(1)
    state = torch.as_tensor(rng.integers(2, size=(5, 7)))
    period = torch.as_tensor(rng.integers(4, size=5))
    every = torch.as_tensor(of.actions.enumerate().astype(np.int64))
    found = bounds(network, of.actions, state, period, None)
    seen: dict[int, list[torch.Tensor]] = {}
    module = network.body if kind == "dense" else network.head
    hooks = [
        layer.register_forward_hook(lambda _, __, out, k=k: seen.setdefault(k, []).append(out.detach()))
        for k, layer in enumerate([part for part in module if isinstance(part, torch.nn.Linear)][:-1])
    ]
    for action in every:
        network(state, period, action.expand(5, -1))
    for hook in hooks:
        hook.remove()
    for k, (low, high) in enumerate(found):
        values = torch.stack(seen[k])
        if k == 0:
            assert low.detach().numpy() == pytest.approx(values.amin(dim=0).numpy(), abs=1e-5)
            assert high.detach().numpy() == pytest.approx(values.amax(dim=0).numpy(), abs=1e-5)
        assert (values >= low - 1e-5).all()
        assert (values <= high + 1e-5).all()
    assert len(found) == len(hooks)


def test_gradients_of_the_bounds_are_those_measured():
    of = model()
    network = made("dense", of).double()
    state, period = torch.zeros((1, 7), dtype=torch.long), torch.zeros(1, dtype=torch.long)
    weight = network.body[0].weight

    def total() -> torch.Tensor:
        return sum((high - 0.5 * low).sum() for low, high in bounds(network, of.actions, state, period, None))

    total().backward()
    rng = np.random.default_rng(0)
    for _ in range(10):
        row, column = int(rng.integers(6)), int(rng.integers(7))
        with torch.no_grad():
            weight[row, column] += 1e-6
            above = float(total())
            weight[row, column] -= 2e-6
            below = float(total())
            weight[row, column] += 1e-6
        assert float(weight.grad[row, column]) == pytest.approx((above - below) / 2e-6, abs=1e-4)


def test_nothing_is_added_before_half_of_the_run_and_l1_leaves_zeros():
    of = model()
    network = made("dense", of)
    at = torch.zeros((3, 7), dtype=torch.long), torch.zeros(3, dtype=torch.long), None
    penalties = Penalties(of, DQNConfig(l1=0.1, stability=1.0, bound_product=1.0), network)
    assert float(penalties(network, *at, 0.5)) == 0.0
    half, whole = (float(penalties(network, *at, share).detach()) for share in (0.75, 1.0))
    assert half == pytest.approx(whole / 2)
    with torch.no_grad():
        network.body[0].weight[0, :3] = torch.tensor([5e-4, -9e-4, 2e-3])
    penalties.settle(network)
    assert network.body[0].weight[0, :3].tolist() == pytest.approx([0.0, 0.0, 2e-3])


def binaries(of: Model, network) -> int:
    count = 0
    compiled_model, compiled = of.actions.compiled
    support = Support.from_program(compiled.program, compiled.index(compiled_model.act))
    rng = np.random.default_rng(3)
    for period in range(4):
        state = rng.integers(2, size=7)
        situation = Situation(of.problem, of.actions.columns, state, period)
        count += assemble(network.at(situation), support, effort="linear").counts["binaries"]
    return count


@pytest.mark.parametrize("targets", amount(["bellman"], ["bellman", "advantages"]))
def test_penalised_runs_need_fewer_binaries(targets, tmp_path):
    """Both loops, by the encoder's own count."""
    from rmab_opt.learning.run_folder import RunFolder
    from rmab_opt.learning.runs import load_network

    of = model()
    common = {"targets": targets, "network": "dense", "hidden": (12, 6), "episodes": 14, "pretrain_steps": 20,
              "updates": 8, "average_rate": 0.1, "learning_rate": 1e-2,
              "validation_episodes": 2, "states": 40, "draws": 2, "rounds": 1, "passes": 200,
              "ablations": False, "rivals": ("none",)}  # fmt: skip
    counts = []
    for name, more in (("plain", {}), ("small", {"stability": 5.0, "l1": 1e-2})):
        train(of, DQNConfig(**common, **more), out=tmp_path / name)
        counts.append(binaries(of, load_network(RunFolder(tmp_path / name), of)))
    assert counts[1] < 0.7 * counts[0], counts


def test_penalties_are_refused_where_no_neuron_sees_the_action():
    of = model()
    with pytest.raises(CapabilityError, match="without neurons over the action"):
        Penalties(of, DQNConfig(stability=1.0), made("pooled", of, head=0))
    with pytest.raises(ModelError, match=r"train\.l1"):
        DQNConfig(l1=-1.0)
    Penalties(of, DQNConfig(), made("pooled", of, head=0))


def test_bounds_hold_under_limits_of_groups():
    of = model()
    arms = Arms.from_arrays(7, village=["a", "a", "a", "b", "b", "b", "b"])
    grouped = ActionSet(arms, {"visits": Budget(at_most=3), "first": Linear(where={"village": "a"}, at_most=1)})
    network = made("dense", of)
    state, period = torch.ones((1, 7), dtype=torch.long), torch.zeros(1, dtype=torch.long)
    constant, weight, _ = network.neurons(state, period)
    every = torch.as_tensor(grouped.enumerate().astype(np.float32))
    values = constant[:, None] + (every @ weight[0].T)[None]
    low, high = bounds(network, grouped, state, period, None)[0]
    assert (low <= values.amin(dim=1) + 1e-5).all()
    assert (high >= values.amax(dim=1) - 1e-5).all()
