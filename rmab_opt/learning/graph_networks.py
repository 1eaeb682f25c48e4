"""A message-passing Q-network in plain torch, unrolled at a state into sparse ReLU layers, and policies that learn.

On a fixed graph message passing is an ordinary sparse network: one neuron a node and channel. Its inputs are the
chances m_v = p0_v + (p1_v - p0_v) a_v of being active by one's own move, which are linear in the action.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from rmab_opt.actions import ActionSet, Columns
from rmab_opt.decisions import Decision, Model, Situation
from rmab_opt.decisions.cascade import arm_of_column, cascade_dynamics, climb_network
from rmab_opt.decisions.policy import Policy, policy
from rmab_opt.encoder import Network
from rmab_opt.learning.config import DQNConfig
from rmab_opt.learning.networks import FreshObjective, QNetwork
from rmab_opt.planning.cascade import continuation_weights
from rmab_opt.problem import Problem

__all__ = ["ClimbingPolicy", "GraphQ"]


class GraphQ(QNetwork):
    """Q = sum over nodes of q_v; q_v reads its own chance m_v and what arrives from its contacts.

    With z_v = [x_v, m_v, m_v x_v], x_v the node's features, and messages weighted by the contacts' probabilities:
    h1_v = ReLU(S1 z_v + N1 sum_u w_uv z_u + b1), further layers alike on h, and
    q_v = o . h_v + s . z_v + n . sum_u w_uv z_u + c, in units of a typical reward times the rounds left.

    Parameters
    ----------
    problem, columns
        Networked dynamics; columns touch one arm each.
    hidden
        Channels of each round of messages.
    scale
        Typical reward of one arm and round.
    generator
        Of the first weights.
    """

    features: Tensor
    chance: Tensor
    column_arm: Tensor
    tail: Tensor
    head_of: Tensor
    passed: Tensor

    def __init__(
        self,
        problem: Problem,
        columns: Columns,
        hidden: Sequence[int] = (8,),
        *,
        scale: float = 1.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        dynamics = cascade_dynamics(problem)
        self.n_arms, self.horizon = problem.n_arms, problem.horizon
        weights = sparse.coo_array(dynamics.graph.weights)
        busy = np.bincount(weights.row, weights.data, minlength=self.n_arms)
        keeps = problem.discount * (dynamics.chance[:, 1, 0] - dynamics.chance[:, 0, 0])
        endless = 1 if (keeps >= 1).any() else None
        lasting = continuation_weights(dynamics, problem.discount, left=endless)
        raw = np.column_stack([dynamics.chance.reshape(self.n_arms, 4), dynamics.value, busy, lasting])
        raw = (raw - raw.mean(axis=0)) / np.maximum(raw.std(axis=0), 1e-9)
        unit = max(1e-9, float(busy.mean()))
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.register_buffer("features", torch.tensor(raw, dtype=torch.float32))
        self.register_buffer("chance", torch.tensor(dynamics.chance.reshape(self.n_arms, 4), dtype=torch.float32))
        self.register_buffer("column_arm", torch.tensor(arm_of_column(columns)))
        self.register_buffer("tail", torch.tensor(weights.row.astype(np.int64)))
        self.register_buffer("head_of", torch.tensor(weights.col.astype(np.int64)))
        self.register_buffer("passed", torch.tensor(weights.data / unit, dtype=torch.float32))
        width = 2 * (raw.shape[1] + 3) + 1
        sizes = [width, *hidden]
        self.own = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.near = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes))
        self.out, self.skip = nn.Linear(sizes[-1], 1), nn.Linear(width, 1, bias=False)
        self.skip_near = nn.Linear(width, 1, bias=False)
        with torch.no_grad():
            for parameter in self.parameters():
                bound = (1.0 / max(1, parameter.shape[-1])) ** 0.5
                parameter.uniform_(-bound, bound, generator=generator)
            for layer in (self.out, self.skip, self.skip_near):
                layer.weight.mul_(0.1)

    def forward(self, state: Tensor, period: Tensor, action: Tensor) -> tuple[Tensor | None, Tensor]:
        arm_action = torch.zeros_like(state)
        arm_action.index_add_(1, self.column_arm, action.long())
        own, idle, acted = self._nodes(state, period)
        chance = torch.where(arm_action > 0, acted, idle)[:, :, None]
        z = torch.cat([own, chance, chance * own], dim=2)
        near = self._messages(z)
        arms = self.skip(z) + self.skip_near(near)
        h = z
        for layer, passing in zip(self.own, self.near, strict=True):
            h = torch.relu(layer(h) + passing(near))
            near = self._messages(h)
        arms = (arms + self.out(h))[:, :, 0]
        unit = self.scale * (self.horizon - period).clamp(min=1).to(arms.dtype)
        return arms * unit[:, None], torch.zeros_like(unit)

    def _nodes(self, state: Tensor, period: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, N, d) and the two chances (B, N) of each node's own move."""
        batch = state.shape[0]
        idle, acted = (
            torch.gather(self.chance[None].expand(batch, -1, -1), 2, (2 * state + action)[:, :, None])[:, :, 0]
            for action in (0, 1)
        )
        left = ((self.horizon - period.to(idle.dtype)) / self.horizon)[:, None, None].expand(batch, self.n_arms, 1)
        own = torch.cat(
            [
                self.features[None].expand(batch, -1, -1),
                state[:, :, None].to(idle.dtype),
                (acted - idle)[:, :, None],
                left,
            ],
            dim=2,
        )
        return own, idle, acted

    def _messages(self, values: Tensor) -> Tensor:
        """Sum of what arrives over contacts, (B, N, channels)."""
        arriving = torch.zeros_like(values)
        return arriving.index_add_(1, self.head_of, values[:, self.tail] * self.passed[None, :, None])

    def objective(self, version: Callable[[], int] = lambda: 0) -> FreshObjective:
        return FreshObjective(self.at, version=version)

    def at(self, situation: Situation) -> Network:
        """The network over the columns: contacts become entries of sparse weight matrices."""
        with torch.no_grad():
            state = torch.as_tensor(situation.state, device=self.chance.device)[None]
            parts = self._nodes(state, torch.tensor([situation.period], device=self.chance.device))
            own, idle, acted = (part[0].double().cpu().numpy() for part in parts)
        n, arm = self.n_arms, self.column_arm.cpu().numpy()
        arrives = sparse.csr_array(
            (_array(self.passed), (self.head_of.cpu().numpy(), self.tail.cpu().numpy())), shape=(n, n)
        )
        z = np.column_stack([own, idle, idle[:, None] * own])
        # Acting on node v changes z_v alone, by this much.
        effect = np.column_stack([np.zeros_like(own), acted - idle, (acted - idle)[:, None] * own])
        unit = float(self.scale) * max(1, self.horizon - situation.period)
        s, t = _array(self.skip.weight)[0], _array(self.skip_near.weight)[0]
        skip = unit * (effect @ s + (effect @ t) * arrives.sum(axis=0))
        constant = unit * (float((z @ s + (arrives @ z) @ t).sum()) + n * float(_array(self.out.bias)[0]))
        layers: list[tuple[np.ndarray, np.ndarray, str]] = []
        rounds: Any = zip(self.own, self.near, strict=True)
        for number, (layer, passing) in enumerate(rounds):
            mine, others, bias = _array(layer.weight), _array(passing.weight), _array(layer.bias)
            if number == 0:
                base = z @ mine.T + (arrives @ z) @ others.T + bias
                weight = np.zeros((n, len(bias), n))
                weight[np.arange(n), :, np.arange(n)] = effect @ mine.T
                to, source = arrives.nonzero()
                weight[to, :, source] += arrives.data[:, None] * (effect @ others.T)[source]
                layers.append((weight.reshape(-1, n)[:, arm], base.reshape(-1), "relu"))
            else:
                joined = np.kron(np.eye(n), mine) + np.kron(arrives.toarray(), others)
                layers.append((joined, np.tile(bias, n), "relu"))
        layers.append((unit * np.tile(_array(self.out.weight), (1, n)), np.zeros(1), "linear"))
        return Network.from_arrays(layers, skip=skip[arm], constant=constant)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


# ------------------------------------------------------------------------------------------------ policies that learn
class ClimbingPolicy:
    """Hill climbing on a learned Q by true sequential marginals; stops when nothing improves it. No guarantee."""

    def __init__(self, inner: Any, actions: ActionSet, name: str) -> None:
        self.inner, self.actions, self.name = inner, actions, name

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> Decision:
        objective = self.inner.chooser.objective
        situation = Situation(self.inner.chooser.problem, self.actions.columns, np.asarray(state), period)
        network = objective.network(situation)
        action, value = climb_network(network, self.actions)
        return Decision(
            ids=self.actions.columns.ids,
            action=action,
            state=np.asarray(state),
            value=value,
            bound=np.inf,
            bound_kind="none",
            encoding_error=0.0,
            violations=self.actions.violations(action),
            status="heuristic",
            solver="hill climbing",
            seconds=0.0,
            period=period,
            notes={"guarantee": "none: a learned value is neither monotone nor submodular"},
        )


def _trained(model: Model, network: str) -> Any:
    """Train on this model with its ``train`` section (or short defaults) and give the policy of the run."""
    from rmab_opt.learning.dqn import train

    given = dict(model.settings.get("train", {}))
    defaults = {
        "episodes": 15,
        "hidden": (8,) if network == "graph" else (32,),
        "refreshes": 0,
        "argmax": "hill_climb",
        "validation_episodes": 0,
    }
    config = replace(DQNConfig.from_mapping({**defaults, **given}), network=network)
    with tempfile.TemporaryDirectory() as folder:
        return train(model, config, out=folder).policy


@policy("gnn")
def _gnn(model: Model) -> Policy:
    """A graph network trained when the policy is made, climbed by true marginals."""
    return ClimbingPolicy(_trained(model, "graph"), model.actions, "gnn")


@policy("hill_climbing_dqn")
def _hill_climbing_dqn(model: Model) -> Policy:
    """A fully connected network trained when the policy is made, climbed by true marginals."""
    return ClimbingPolicy(_trained(model, "dense"), model.actions, "hill_climbing_dqn")
