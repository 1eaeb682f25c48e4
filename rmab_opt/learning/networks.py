"""Q-networks in torch that can be handed to the encoder at any state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rmab_opt.actions import ActionSet, Columns
from rmab_opt.decisions import NetworkObjective, Situation
from rmab_opt.encoder import Network
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.planning import bound, rollout_values
from rmab_opt.planning.scores import priced_action_values
from rmab_opt.problem import Problem

__all__ = ["AnchoredQ", "DenseQ", "PooledQ", "QNetwork", "arm_features", "make_network"]


class QNetwork(nn.Module):
    """Q(s, a, t) over the columns; subclasses say ``forward`` and ``at``.

    Outputs are multiplied by a typical reward and the rounds left, so that the layers learn numbers near one.
    """

    scale: Tensor
    pretrains = True
    """Whether a fit to the reward of the round is a sensible beginning."""
    weights_change = True
    """Whether first-layer weights of :meth:`at` depend on the state."""

    def forward(self, state: Tensor, period: Tensor, action: Tensor) -> tuple[Tensor | None, Tensor]:
        """Value of states (B, N) long, periods (B,) and actions over columns (B, C), in two parts.

        Returns
        -------
        tuple
            (what each arm adds (B, N), or None for networks that do not say; the rest (B,)). The value is
            the sum of all.
        """
        raise NotImplementedError

    def at(self, situation: Situation) -> Network:
        """The network over the C columns with state and period folded in."""
        raise NotImplementedError

    def objective(self, version: Callable[[], int] = lambda: 0) -> NetworkObjective:
        """What a decision by this network maximises; ``version`` changes with the weights."""
        return NetworkObjective(self.at, weights_change=self.weights_change, version=version)


def arm_features(problem: Problem) -> np.ndarray:
    """What tells arms apart, standardised, shape (N, F): their tables when small, else means of them.

    F is 0 when all arms are alike.
    """
    tabular = getattr(problem.dynamics, "tabular", None)
    if tabular is None:
        raise CapabilityError(
            "tabular()", problem.dynamics, ("add it, it describes the arms to the network", "use network='dense'")
        )
    transition, reward = tabular()
    n_arms = problem.n_arms
    parts = [transition.reshape(n_arms, -1), reward.reshape(n_arms, -1)]
    if parts[0].shape[1] > 64:
        # Mean next state by action and state says where an arm drifts in S * A numbers instead of S * S * A.
        parts[0] = (transition @ np.arange(transition.shape[-1])).reshape(n_arms, -1)
    raw = np.concatenate(parts, axis=1)
    spread = raw.std(axis=0)
    varies = spread > 1e-9
    return (raw[:, varies] - raw[:, varies].mean(axis=0)) / spread[varies]


def _mlp(sizes: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    layers: list[nn.Module] = []
    for k, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        layer = nn.Linear(fan_in, fan_out)
        bound = (1.0 / max(1, fan_in)) ** 0.5
        with torch.no_grad():
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.uniform_(-bound, bound, generator=generator)
        layers.append(layer)
        if k < len(sizes) - 2:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _arrays(module: nn.Sequential) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        (layer.weight.detach().cpu().double().numpy(), layer.bias.detach().cpu().double().numpy())
        for layer in module
        if isinstance(layer, nn.Linear)
    ]


class PooledQ(QNetwork):
    """Q = sum of q(s_n, a_n; x_n) + N g(mean of psi(s_n, a_n; x_n)): weights shared by all arms.

    With the state fixed both sums are linear in the columns, so only g's neurons need binaries,
    whatever N is; the same weights serve cohorts of any size.

    Parameters
    ----------
    problem, columns
        Sizes and arm features; columns must touch one arm each.
    hidden
        Widths of the arm network's hidden layers.
    head
        Width of the pooled description and of g's hidden layer; 0 leaves g out (then Q is a sum of indices).
    scale
        Typical reward of one arm and round; the network learns in this unit.
    generator
        Of the first weights.
    """

    features: Tensor
    column_arm: Tensor
    column_level: Tensor

    def __init__(
        self,
        problem: Problem,
        columns: Columns,
        hidden: Sequence[int] = (32,),
        head: int = 8,
        *,
        scale: float = 1.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if (np.diff(columns.effect.indptr) != 1).any():
            raise ModelError("a pooled network needs columns that touch one arm each", "use network='dense'.")
        dynamics = problem.dynamics
        self.n_arms, self.n_states, self.n_actions = problem.n_arms, dynamics.n_states, dynamics.n_actions
        self.horizon, self.head_width = problem.horizon, head
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.register_buffer("features", torch.tensor(arm_features(problem), dtype=torch.float32))
        self.register_buffer("column_arm", torch.tensor(columns.effect.indices.astype(np.int64)))
        self.register_buffer("column_level", torch.tensor(np.rint(columns.effect.data).astype(np.int64)))
        width = self.n_states + self.features.shape[1] + 1
        self.arm = _mlp([width, *hidden, self.n_actions * (1 + head)], generator)
        self.head = _mlp([head, head, 1], generator) if head else None

    def forward(self, state: Tensor, period: Tensor, action: Tensor) -> tuple[Tensor | None, Tensor]:
        table = self._described(state, period)
        level = torch.zeros_like(state)
        level.index_add_(1, self.column_arm, action.long() * self.column_level)
        picked = torch.gather(table, 2, level[:, :, None, None].expand(-1, -1, 1, table.shape[3]))[:, :, 0]
        unit = self.scale * (self.horizon - period).clamp(min=1).to(table.dtype)
        arms = picked[:, :, 0] * unit[:, None]
        if self.head is None:
            return arms, torch.zeros_like(unit)
        # The head sees what the arms are like, not what they are worth: its error must not reach the arm values.
        return arms, self.n_arms * unit * self.head(picked[:, :, 1:].mean(dim=1))[:, 0]

    def _described(self, state: Tensor, period: Tensor) -> Tensor:
        """(q, psi) of every arm and action: (B, N, A, 1 + head)."""
        one_hot = nn.functional.one_hot(state, self.n_states).to(self.features.dtype)
        left = (self.horizon - period.to(self.features.dtype)) / self.horizon
        batch = state.shape[0]
        parts = [
            one_hot,
            self.features[None].expand(batch, -1, -1),
            left[:, None, None].expand(batch, self.n_arms, 1),
        ]
        out = self.arm(torch.cat(parts, dim=2))
        return out.reshape(batch, self.n_arms, self.n_actions, 1 + self.head_width)

    def at(self, situation: Situation) -> Network:
        with torch.no_grad():
            device = self.features.device
            state = torch.as_tensor(situation.state, device=device)[None]
            table = self._described(state, torch.tensor([situation.period], device=device))[0].double().cpu().numpy()
        arm, level = self.column_arm.cpu().numpy(), self.column_level.cpu().numpy()
        scale = float(self.scale) * max(1, self.horizon - situation.period)
        difference = table[arm, level] - table[arm, 0]
        skip, constant = scale * difference[:, 0], scale * float(table[:, 0, 0].sum())
        if self.head is None:
            return Network.linear(skip, constant)
        (w1, b1), (w2, b2) = _arrays(self.head)
        psi, base = difference[:, 1:] / self.n_arms, table[:, 0, 1:].mean(axis=0)
        # relu(c x) = c relu(x) for c > 0: with the read-out's size moved into the first layer only numbers that the
        # program keeps open change in training, and it is compiled once.
        unit = scale * self.n_arms * np.abs(w2[0])
        return Network.from_arrays(
            [(unit[:, None] * (w1 @ psi.T), unit * (w1 @ base + b1), "relu"), (np.sign(w2), np.zeros(1), "linear")],
            skip=skip,
            constant=constant + float(scale * self.n_arms * b2[0]),
        )


ANCHORS = ("prices", "rollout")
"""Where an anchored network's arm values come from."""


class AnchoredQ(PooledQ):
    """Q = sum of the bound's own arm values + a pooled head: learning begins at the LP-index policy.

    The arm values Q[t, n, s, a] come from the prices of the occupancy bound under the model's own
    constraints, or from rolling out the best constant action, and stay as they are; the head, zero at first,
    learns what the coupling adds to their sum.

    Parameters
    ----------
    actions
        Whose bound gives the prices; None leaves the values to :meth:`load_state_dict`.
    anchor
        ``prices``, best for many arms; or ``rollout``, best where a few large arms share a rigid set.
    """

    pretrains = False
    base: Tensor

    def __init__(
        self,
        problem: Problem,
        columns: Columns,
        hidden: Sequence[int] = (32,),
        head: int = 8,
        *,
        scale: float = 1.0,
        generator: torch.Generator,
        actions: ActionSet | None = None,
        anchor: str = "prices",
    ) -> None:
        if anchor not in ANCHORS:
            raise ModelError(f"anchor is {anchor!r}", f"use one of {', '.join(ANCHORS)}.")
        if head < 1:
            raise ModelError("an anchored network without a head learns nothing", "give head at least 1.")
        super().__init__(problem, columns, hidden, head, scale=scale, generator=generator)
        shape = (problem.horizon, self.n_arms, self.n_states, self.n_actions)
        values = np.zeros(shape)
        if actions is not None and anchor == "rollout":
            values = rollout_values(problem, actions)
        elif actions is not None:
            found = bound(problem, actions)
            transition, reward = problem.dynamics.tabular()
            values, _ = priced_action_values(
                transition, reward, found.arm_prices, discount=problem.discount, horizon=problem.horizon
            )
        self.register_buffer("base", torch.tensor(values, dtype=torch.float64))
        self.offset = nn.Parameter(torch.zeros(problem.horizon + 1))
        with torch.no_grad():
            self._last.weight.zero_()
            self._last.bias.zero_()

    def forward(self, state: Tensor, period: Tensor, action: Tensor) -> tuple[Tensor | None, Tensor]:
        _, learned = super().forward(state, period, action)
        level = torch.zeros_like(state)
        level.index_add_(1, self.column_arm, action.long() * self.column_level)
        arm = torch.arange(self.n_arms, device=state.device)
        at = period.clamp(max=self.horizon - 1)
        anchor = self.base[at[:, None], arm[None], state, level].sum(dim=1).to(learned.dtype)
        return None, anchor + learned + self.n_arms * self.scale * self.offset[period.clamp(max=self.horizon)]

    def at(self, situation: Situation) -> Network:
        learned = super().at(situation)
        period = min(situation.period, self.horizon - 1)
        table = self.base[period].cpu().numpy()[np.arange(self.n_arms), situation.state]
        arm, level = self.column_arm.cpu().numpy(), self.column_level.cpu().numpy()
        offset = self.n_arms * float(self.scale) * float(self.offset[period].detach())
        return Network.from_arrays(
            learned.layers(),
            skip=table[arm, level] - table[arm, 0],
            constant=self._rest(situation) + float(table[:, 0].sum()) + offset,
        )

    def _rest(self, situation: Situation) -> float:
        """The head's own constant: its output bias."""
        scale = float(self.scale) * max(1, self.horizon - situation.period)
        return scale * self.n_arms * float(self._last.bias.detach()[0])

    @property
    def _last(self) -> nn.Linear:
        assert self.head is not None
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        return last


class DenseQ(QNetwork):
    """A fully connected network of action, one-hot states and time left: the published architecture, repaired."""

    weights_change = False

    def __init__(
        self,
        problem: Problem,
        columns: Columns,
        hidden: Sequence[int] = (16, 32),
        *,
        scale: float = 1.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.n_columns, self.n_states, self.horizon = len(columns), problem.dynamics.n_states, problem.horizon
        self.register_buffer("scale", torch.tensor(float(scale) * problem.n_arms))
        self.body = _mlp([len(columns) + problem.n_arms * self.n_states + 1, *hidden, 1], generator)

    def _fixed(self, state: Tensor, period: Tensor) -> Tensor:
        one_hot = nn.functional.one_hot(state, self.n_states).to(self.scale.dtype).flatten(1)
        left = (self.horizon - period.to(self.scale.dtype)) / self.horizon
        return torch.cat([one_hot, left[:, None]], dim=1)

    def forward(self, state: Tensor, period: Tensor, action: Tensor) -> tuple[Tensor | None, Tensor]:
        inputs = torch.cat([action.to(self.scale.dtype), self._fixed(state, period)], dim=1)
        unit = self.scale * (self.horizon - period).clamp(min=1).to(self.scale.dtype)
        return None, self.body(inputs)[:, 0] * unit

    def at(self, situation: Situation) -> Network:
        device = self.scale.device
        fixed = self._fixed(
            torch.as_tensor(situation.state, device=device)[None], torch.tensor([situation.period], device=device)
        )
        rest = fixed[0].double().cpu().numpy()
        layers: list[tuple[np.ndarray, np.ndarray, str]] = [(w, b, "relu") for w, b in _arrays(self.body)]
        weight, bias, _ = layers[0]
        layers[0] = (weight[:, : self.n_columns], bias + weight[:, self.n_columns :] @ rest, "relu")
        weight, bias, _ = layers[-1]
        scale = float(self.scale) * max(1, self.horizon - situation.period)
        layers[-1] = (scale * weight, scale * bias, "linear")
        return Network.from_arrays(layers)


NETWORKS: dict[str, Any] = {"pooled": PooledQ, "anchored": AnchoredQ, "dense": DenseQ}


def make_network(
    kind: str,
    problem: Problem,
    columns: Columns,
    hidden: Sequence[int],
    head: int,
    scale: float,
    seed: int,
    actions: ActionSet | None = None,
    anchor: str = "prices",
) -> QNetwork:
    """A fresh network of a kind, its weights drawn from ``seed``; ``actions`` anchor an anchored one.

    Raises
    ------
    ModelError
        When there is no such kind.
    """
    if kind == "graph":
        from rmab_opt.learning.graph_networks import GraphQ

        NETWORKS[kind] = GraphQ
    if kind not in NETWORKS:
        raise ModelError(f"network is {kind!r}", f"use one of {', '.join(NETWORKS)}.")
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {} if kind in ("dense", "graph") else {"head": head}
    if kind == "anchored":
        options |= {"actions": actions, "anchor": anchor}
    network: QNetwork = NETWORKS[kind](problem, columns, hidden, scale=scale, generator=generator, **options)
    return network
