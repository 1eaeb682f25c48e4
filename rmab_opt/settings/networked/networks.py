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

from rmab_opt.actions import Columns
from rmab_opt.decisions import Chooser, Model, NetworkObjective, Situation
from rmab_opt.decisions.policy import ChooserPolicy, Memory, Policy
from rmab_opt.decisions.question import Proposal, Question
from rmab_opt.encoder import Network
from rmab_opt.errors import ModelError
from rmab_opt.learning.config import DQNConfig
from rmab_opt.learning.networks import QNetwork, unchanging
from rmab_opt.problem import Problem
from rmab_opt.registry import register
from rmab_opt.search.hill_climb import climb_network
from rmab_opt.settings.networked.greedy import arm_of_column, cascade_dynamics
from rmab_opt.settings.networked.spread import Scenarios, continuation_weights

__all__ = ["ClimbingPolicy", "GraphQ", "LookaheadGraphQ"]

ANCHOR_SAMPLES = 200
"""Scenarios behind the look-ahead that a network begins at."""


@register("network", "graph")
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
        self.n_arms, self.n_columns, self.horizon = problem.n_arms, len(columns), problem.horizon
        self._heard: tuple[Any, Tensor] | None = None
        weights = sparse.coo_array(dynamics.graph.weights)
        busy = np.bincount(weights.row, weights.data, minlength=self.n_arms)
        keeps = problem.discount * (dynamics.chance[:, 1, 0] - dynamics.chance[:, 0, 0])
        endless = 1 if (keeps >= 1).any() else None
        lasting = continuation_weights(dynamics, problem.discount, left=endless)
        raw = np.column_stack([dynamics.chance.reshape(self.n_arms, 4), dynamics.value, busy, lasting])
        raw = (raw - raw.mean(axis=0)) / np.maximum(raw.std(axis=0), 1e-9)
        unit = max(1e-9, float(busy.mean()))
        self.dynamics, self.discount = dynamics, problem.discount
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

    def forward(
        self, state: Tensor, period: Tensor, action: Tensor, shared: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor]:
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
        batch, nodes, channels = values.shape
        flat = values.transpose(0, 1).reshape(nodes, -1)
        return torch.sparse.mm(self._arriving(values), flat).reshape(nodes, batch, channels).transpose(0, 1)

    def _arriving(self, like: Tensor) -> Tensor:
        """Sparse (N, N): what each node hears of each other, in the kind of numbers of ``like``."""
        key = (like.dtype, like.device)
        if self._heard is None or self._heard[0] != key:
            place = torch.stack([self.head_of, self.tail])
            matrix = torch.sparse_coo_tensor(
                place, self.passed.to(like.dtype), (self.n_arms, self.n_arms), check_invariants=True
            )
            self._heard = (key, matrix.coalesce())
        return self._heard[1]

    def objective(self, version: Callable[[], int] = unchanging) -> NetworkObjective:
        return NetworkObjective(self.at, version=version)

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
        layers: list[tuple[Any, np.ndarray, str]] = []
        rounds: Any = zip(self.own, self.near, strict=True)
        for number, (layer, passing) in enumerate(rounds):
            mine, others, bias = _array(layer.weight), _array(passing.weight), _array(layer.bias)
            if number == 0:
                base = z @ mine.T + (arrives @ z) @ others.T + bias
                to, source = arrives.nonzero()
                channel = np.arange(len(bias))
                rows = np.concatenate([np.arange(n)[:, None] * len(bias) + channel, to[:, None] * len(bias) + channel])
                size = np.concatenate([effect @ mine.T, arrives.data[:, None] * (effect @ others.T)[source]])
                acting = np.repeat(np.concatenate([np.arange(n), source]), len(bias))
                weight = sparse.csc_array((size.reshape(-1), (rows.reshape(-1), acting)), shape=(n * len(bias), n))
                layers.append((weight[:, arm], base.reshape(-1), "relu"))
            else:
                joined = sparse.kron(sparse.eye_array(n), mine) + sparse.kron(arrives, others)
                layers.append((sparse.csr_array(joined), np.tile(bias, n), "relu"))
        layers.append((unit * np.tile(_array(self.out.weight), (1, n)), np.zeros(1), "linear"))
        return Network.from_arrays(layers, skip=skip[arm], constant=constant)


@register("network", "graph_lookahead")
class LookaheadGraphQ(GraphQ):
    """A graph network on top of the look-ahead: Q = sum over nodes of c_v P(v active) + what messages add to it.

    P is the share of drawn scenarios in which v ends the round active and c_v its worth until it lapses, if nobody
    acts again (see :func:`~rmab_opt.settings.networked.spread.continuation_weights`);
    both stay as they are, and the rest is
    zero at first, so that learning begins at policy ``lookahead_cascade``. As a program, a component that several
    columns can activate is one more ReLU: min(1, x) = x - ReLU(x - 1).
    """

    pretrains = False
    begins_at = "lookahead"

    def __init__(self, problem: Problem, columns: Columns, hidden: Sequence[int] = (8,), **options: Any) -> None:
        super().__init__(problem, columns, hidden, **options)
        if (self.dynamics.chance[:, :, 1] < self.dynamics.chance[:, :, 0]).any():
            raise ModelError("acting on an arm lowers its chance", "use network='graph'.")
        # Part of what the network is: fixed, whatever the seed of its weights.
        self.scenarios = Scenarios.draw(self.dynamics.graph, ANCHOR_SAMPLES, np.random.default_rng(0xA2C))
        self.worth = np.stack(
            [
                continuation_weights(self.dynamics, problem.discount, left=max(1, left))
                for left in range(problem.horizon + 1)
            ]
        )
        with torch.no_grad():
            for layer in (self.out, self.skip, self.skip_near):
                layer.weight.zero_()
            self.out.bias.zero_()

    def forward(
        self, state: Tensor, period: Tensor, action: Tensor, shared: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor]:
        learned, rest = super().forward(state, period, action)
        arm_action = torch.zeros_like(state)
        arm_action.index_add_(1, self.column_arm, action.long())
        chance = self.dynamics.own_move(state.cpu().numpy(), arm_action.cpu().numpy())
        base = self.scenarios.activation(chance) * self._worth_of(period.cpu().numpy())
        assert learned is not None
        return learned + torch.as_tensor(base, dtype=learned.dtype, device=learned.device), rest

    def _worth_of(self, period: Any) -> np.ndarray:
        weights: np.ndarray = self.worth[np.maximum(0, self.horizon - np.asarray(period))]
        return weights

    def at(self, situation: Situation) -> Network:
        learned, arm = super().at(situation), self.column_arm.cpu().numpy()
        passive = np.zeros(self.n_arms, dtype=np.int64)
        idle, acted = (self.dynamics.own_move(situation.state, passive + action) for action in (0, 1))
        constant, linear, sets, gain = self.scenarios.coverage(idle, acted, self._worth_of(situation.period))
        columns = sparse.csr_array(sparse.csc_array(sets)[:, arm])
        size = np.diff(columns.indptr)
        single = gain @ columns
        columns, gain = columns[size > 1], gain[size > 1]
        layers = []
        for number, (weight, bias, kind) in enumerate(learned.layers()[:-1]):
            if number == 0:
                weight = sparse.vstack([columns, weight], format="csc")
                bias = np.concatenate([np.full(len(gain), -1.0), bias])
            else:
                # What is at least 0 goes through a ReLU unchanged.
                weight = sparse.block_diag([sparse.eye_array(len(gain)), weight], format="csr")
                bias = np.concatenate([np.zeros(len(gain)), bias])
            layers.append((weight, bias, kind))
        weight, bias, kind = learned.layers()[-1]
        last = weight.toarray() if sparse.issparse(weight) else np.asarray(weight)
        layers.append((np.concatenate([-gain, last[0]])[None], bias, kind))
        return Network.from_arrays(
            layers, skip=learned.skip + linear[arm] + single, constant=learned.constant + constant
        )


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()


# ------------------------------------------------------------------------------------------------ policies that learn
class ClimbingPolicy(Policy):
    """Hill climbing on a learned Q by true sequential marginals; stops when nothing improves it. No guarantee."""

    def __init__(self, inner: ChooserPolicy, model: Model, name: str) -> None:
        super().__init__(model, name)
        self.inner = inner

    @property
    def chooser(self) -> Chooser:  # type: ignore[override]
        """That of the learned Q, by which actions are valued."""
        return self.inner.chooser

    def propose(self, question: Question, memory: Memory) -> tuple[Proposal | Question, Memory]:
        assert isinstance(question.objective, NetworkObjective)
        action, _ = climb_network(question.objective.network(question.situation), question.actions)
        return Proposal(
            action, remarks={"guarantee": "none: a learned value is neither monotone nor submodular"}
        ), memory


def trained(model: Model, network: str) -> Any:
    """Train on this model with its ``train`` section (or short defaults) and give the policy of the run."""
    from rmab_opt.learning.dqn import train

    given = dict(model.settings.get("train", {}))
    defaults = {
        "episodes": 15,
        "hidden": (8,) if network.startswith("graph") else (32,),
        "refreshes": 0,
        "argmax": "hill_climb",
        "validation_episodes": 12 if network == "graph_lookahead" else 0,
    }
    config = replace(DQNConfig.from_mapping({**defaults, **given}), network=network)
    with tempfile.TemporaryDirectory() as folder:
        return train(model, config, out=folder).policy
