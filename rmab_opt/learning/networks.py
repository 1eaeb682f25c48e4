"""Q-networks in torch that can be handed to the encoder at any state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from rmab_opt import registry
from rmab_opt.actions import Columns
from rmab_opt.decisions import NetworkObjective, Objective, Situation
from rmab_opt.decisions.objective import ArmValues, Scores
from rmab_opt.encoder import Network
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.learning import targets
from rmab_opt.problem import Problem

__all__ = [
    "AnchoredQ",
    "ArmLevels",
    "DenseQ",
    "PooledQ",
    "QNetwork",
    "arm_numbers",
    "make_network",
]


def unchanging() -> int:
    """Version of weights that stand still; a function with a name, so that objectives pickle."""
    return 0


class QNetwork(nn.Module):
    """Q(s, a, t) over the columns; subclasses say ``forward`` and ``at``.

    Outputs are multiplied by a typical reward and the rounds left, so that the layers learn numbers near one.
    """

    scale: Tensor
    n_columns: int
    begins_at: str | None = None
    """Name of the known policy that fresh weights act as, if they do."""
    pretrains = True
    """Whether a fit to the reward of the round is a sensible beginning."""

    @property
    def arm_unit(self) -> float:
        """The reward of one arm and round in which the network learns."""
        return float(self.scale)

    def forward(
        self, state: Tensor, period: Tensor, action: Tensor, shared: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor]:
        """Value of states (B, N) long, periods (B,), actions (B, C) and shared states (B, K), in two parts.

        Returns
        -------
        tuple
            (what each arm adds (B, N), or None for networks that do not say; the rest (B,)). The value is
            the sum of all.
        """
        raise NotImplementedError

    def effects(self, state: Tensor, period: Tensor, action: Tensor, shared: Tensor | None = None) -> Tensor:
        """Q of actions (B, M, C) less Q of choosing nothing, (B, M), at states (B, N) and shared states (B, K)."""
        batch, many, _ = action.shape
        tried = torch.cat([torch.zeros_like(action[:, :1]), action], dim=1).flatten(0, 1)
        at, beside = (None if part is None else part.repeat_interleave(many + 1, 0) for part in (state, shared))
        assert at is not None
        arms, rest = self(at, period.repeat_interleave(many + 1, 0), tried, beside)
        value = (rest if arms is None else rest + arms.sum(dim=1)).reshape(batch, many + 1)
        return value[:, 1:] - value[:, :1]

    def single_effects(self, state: Tensor, period: Tensor, shared: Tensor | None = None) -> Tensor:
        """Q of choosing one column alone less Q of choosing none, (B, C)."""
        count = self.n_columns
        alone = torch.eye(count, dtype=torch.long, device=state.device)
        return self.effects(state, period, alone.expand(len(state), -1, -1), shared)

    @property
    def bends(self) -> bool:
        """Whether neurons see the action, which its program needs a binary each for, unless bounds fix their sign."""
        return False

    def neurons(
        self, state: Tensor, period: Tensor, shared: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[nn.Linear]]:
        """First neurons over the columns at states (B, N): constants (B, H), weights (B or 1, H, C); layers behind.

        Of networks that bend; the output layer is not among them.
        """
        raise NotImplementedError

    def at(self, situation: Situation) -> Network:
        """The network over the C columns with state and period folded in."""
        raise NotImplementedError

    def objective(self, version: Callable[[], int] = unchanging) -> Objective:
        """What a decision by this network maximises; ``version`` changes with the weights."""
        return NetworkObjective(self.at, version=version)


class SharedInput(nn.Module):
    """The shared state as inputs of a network: K numbers, each in the unit of its first value; none where K is 0."""

    unit: Tensor

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        start = np.zeros(0) if problem.start_shared is None else problem.start_shared
        self.names = problem.shared_names
        unit = torch.tensor(np.maximum(1.0, np.abs(start)), dtype=torch.float32)
        self.register_buffer("unit", unit, persistent=bool(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def forward(self, shared: Tensor | None, batch: int) -> Tensor:
        """(B, K) as float32."""
        if shared is None:
            if self.names:
                raise ModelError(
                    f"the shared state {', '.join(self.names)} is not given", "pass `shared` along with the state."
                )
            return self.unit.new_zeros((batch, 0))
        return shared.to(self.unit.dtype) / self.unit

    def at(self, situation: Situation) -> Tensor | None:
        """The shared state of a situation, (1, K), or None."""
        return None if situation.shared is None else torch.as_tensor(situation.shared, device=self.unit.device)[None]


class ContextInput:
    """What the dynamics' ``context(state, shared)`` tells of each arm in its situation: F further inputs an arm.

    For dynamics without it, F is 0. A simulator without equations names its features this way.
    """

    def __init__(self, problem: Problem) -> None:
        said = getattr(problem.dynamics, "context", None)
        self._said: Callable[..., Any] | None = said if callable(said) else None
        self.shared = bool(problem.shared_names)
        self.width = 0
        if self._said is not None:
            at = np.zeros((1, problem.n_arms), dtype=np.int64)
            start = None if problem.start_shared is None else problem.start_shared[None]
            self.width = int(np.asarray(self._said(at, start)).shape[-1])

    def __call__(self, state: Tensor, shared: Tensor | None) -> Tensor:
        """(B, N, F) as float32."""
        if self._said is None:
            return torch.zeros((*state.shape, 0), device=state.device)
        beside = None if shared is None else shared.detach().cpu().double().numpy()
        # A copy: what is told may be a view of the dynamics' own numbers.
        told = np.array(self._said(state.cpu().numpy(), beside))
        return torch.as_tensor(told, dtype=torch.float32, device=state.device)


MEASURED_PAIRS, MEASURED_DRAWS = 64, 32
"""States with actions at which arms without tables are described, and moves drawn at each."""


def arm_numbers(problem: Problem) -> np.ndarray:
    """What tells arms apart, shape (N, F): their tables when small, else means of them; measured where there are none.

    Without ``tabular()``, arms are told apart by their expected rewards and by where they mostly go, in every state
    and action (of many states, evenly some) with all arms alike; the draws behind it are the same for each network.
    """
    dynamics, n_arms = problem.dynamics, problem.n_arms
    if getattr(dynamics, "tabular", None) is None:
        return _measured(problem, np.random.default_rng(0))
    transition, reward = dynamics.tabular()
    parts = [transition.reshape(n_arms, -1), reward.reshape(n_arms, -1)]
    if parts[0].shape[1] > 64:
        # Mean next state by action and state says where an arm drifts in S * A numbers instead of S * S * A.
        parts[0] = (transition @ np.arange(transition.shape[-1])).reshape(n_arms, -1)
    return np.concatenate(parts, axis=1)


def _measured(problem: Problem, rng: np.random.Generator) -> np.ndarray:
    dynamics, n_arms = problem.dynamics, problem.n_arms
    some = max(1, min(dynamics.n_states, MEASURED_PAIRS // dynamics.n_actions))
    found = []
    for at in np.unique(np.linspace(0, dynamics.n_states - 1, some).astype(np.int64)):
        state = np.full(n_arms, at)
        for level in range(dynamics.n_actions):
            action = np.full(n_arms, level)
            # Where the arms share a state, at its first value.
            shared = problem.start_shared
            found.append(np.asarray(problem.expected_reward(state, action, shared), dtype=np.float64))
            drawn = np.stack([problem.step(state, action, shared, rng)[0] for _ in range(MEASURED_DRAWS)])
            goes, error = drawn.mean(axis=0), drawn.std(axis=0).mean() / MEASURED_DRAWS**0.5
            # Scaled to unit spread later, the noise of equal arms would look like a difference.
            found.append(goes if goes.std() > 2.0 * error else np.full(n_arms, goes.mean()))
    return np.stack(found, axis=1)


def _tables(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    if getattr(problem.dynamics, "tabular", None) is None:
        raise CapabilityError(
            "tabular()", problem.dynamics, ("add it, an anchored network begins at known arm values", "use 'pooled'")
        )
    tables: tuple[np.ndarray, np.ndarray] = problem.dynamics.tabular()
    return tables


class ArmLevels:
    """How the columns make up the arms' actions: any table over arms and actions as a function over the columns.

    An arm that one column at a time acts on contributes to that column alone. Where several columns add up, x = sum of
    what they add, and a table f is exact at whole numbers as

        f(0) + (f(1) - f(0)) x + sum over k of (f(k + 1) - 2 f(k) + f(k - 1)) max(0, x - k),

    so that arms which the same columns act on share their bends.

    Parameters
    ----------
    columns
        C columns over N arms.
    n_actions
        Actions of an arm; levels run from 0 to one less.
    """

    def __init__(self, columns: Columns, n_actions: int) -> None:
        effect = sparse.csr_array(columns.effect)
        self.n_columns, self.n_arms = effect.shape
        self.column = np.repeat(np.arange(self.n_columns), np.diff(effect.indptr))
        self.arm, self.level = effect.indices.astype(np.int64), np.rint(effect.data).astype(np.int64)
        adding = np.zeros(self.n_arms, dtype=bool) if columns.exclusive else np.bincount(self.arm) > 1
        adding = np.pad(adding, (0, self.n_arms - len(adding)))
        self._adds = adding[self.arm]
        rows: dict[tuple[bytes, int], int] = {}
        weights, shared = [], []
        for arm in np.flatnonzero(adding):
            reach = effect[:, [arm]].toarray().ravel()
            for bend in range(1, min(int(reach.sum()), n_actions - 1)):
                key = (reach.tobytes(), bend)
                if key not in rows:
                    rows[key] = len(rows)
                    weights.append(reach)
                shared.append((arm, bend, rows[key]))
        self._bend_arm, self._bend, self._bend_row = np.array(shared, dtype=np.int64).reshape(-1, 3).T
        self.weight = np.array(weights).reshape(len(rows), self.n_columns)
        """What each column adds to the x of each bend, shape (H, C)."""
        self.threshold = np.array([bend for _, bend in rows], dtype=np.float64)
        """k of each bend, shape (H,)."""

    def over_columns(self, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(linear part (C, ...), factor of each bend (H, ...)) of a table (N, A, ...), relative to nothing chosen."""
        n, k = self.arm, self.level
        stretched = k.reshape(-1, *([1] * (table.ndim - 2))) * (table[n, 1] - table[n, 0])
        gain = np.where(self._adds.reshape(-1, *([1] * (table.ndim - 2))), stretched, table[n, k] - table[n, 0])
        linear = np.zeros((self.n_columns, *table.shape[2:]))
        np.add.at(linear, self.column, gain)
        n, k = self._bend_arm, self._bend
        factors = np.zeros((len(self.threshold), *table.shape[2:]))
        np.add.at(factors, self._bend_row, table[n, k + 1] - 2.0 * table[n, k] + table[n, k - 1])
        return linear, factors


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


@registry.register("network", "pooled")
class PooledQ(QNetwork):
    """Q = sum of q(s_n, a_n; x_n) + N g(mean of psi(s_n, a_n; x_n)): weights shared by all arms.

    With the state fixed both sums are linear in the columns (up to the bends of :class:`ArmLevels`), so only g's
    neurons need binaries, whatever N is; the same weights serve cohorts of any size.

    Parameters
    ----------
    problem, columns
        Sizes and arm features.
    hidden
        Widths of the arm network's hidden layers.
    head
        Width of the pooled description and of g's hidden layer; 0 leaves g out (then Q is a sum of indices).
    scale
        Typical reward of one arm and round; the network learns in this unit.
    generator
        Of the first weights.
    features
        (positions, mean, spread) of the numbers that told arms apart where the weights were trained; by default those
        of this cohort that differ.
    """

    features: Tensor
    feature_place: Tensor
    feature_mean: Tensor
    feature_spread: Tensor
    column: Tensor
    column_arm: Tensor
    column_level: Tensor
    prior: Tensor | None
    """Arm values (T, N, S, A) in reward units that the arm network adds to, where there are any."""

    def __init__(
        self,
        problem: Problem,
        columns: Columns,
        hidden: Sequence[int] = (32,),
        head: int = 8,
        *,
        scale: float = 1.0,
        generator: torch.Generator,
        features: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    ) -> None:
        super().__init__()
        dynamics = problem.dynamics
        self.n_arms, self.n_states, self.n_actions = problem.n_arms, dynamics.n_states, dynamics.n_actions
        self.horizon, self.head_width, self.n_columns = problem.horizon, head, len(columns)
        self.register_buffer("prior", None)
        self.levels = ArmLevels(columns, self.n_actions)
        self.register_buffer("scale", torch.tensor(float(scale)))
        raw = arm_numbers(problem)
        if features is None:
            place = np.flatnonzero(raw.std(axis=0) > 1e-9)
            features = place, raw[:, place].mean(axis=0), raw[:, place].std(axis=0)
        place, mean, spread = (np.asarray(part) for part in features)
        self.register_buffer("feature_place", torch.tensor(place.astype(np.int64)))
        self.register_buffer("feature_mean", torch.tensor(mean, dtype=torch.float64))
        self.register_buffer("feature_spread", torch.tensor(spread, dtype=torch.float64))
        described = torch.tensor((raw[:, place] - mean) / spread, dtype=torch.float32)
        # What follows from the cohort is not part of the weights: it is made anew for every cohort.
        self.register_buffer("features", described, persistent=False)
        for name, array in (
            ("column", self.levels.column),
            ("column_arm", self.levels.arm),
            ("column_level", self.levels.level),
        ):
            self.register_buffer(name, torch.tensor(array), persistent=False)
        self.shared_input = SharedInput(problem)
        self.context = ContextInput(problem)
        width = self.n_states + len(place) + 1 + len(self.shared_input) + self.context.width
        self.arm = _mlp([width, *hidden, self.n_actions * (1 + head)], generator)
        self.head = _mlp([head, head, 1], generator) if head else None

    def forward(
        self, state: Tensor, period: Tensor, action: Tensor, shared: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor]:
        table = self._described(state, period, shared)
        level = self._level(action)
        picked = torch.gather(table, 2, level[:, :, None, None].expand(-1, -1, 1, table.shape[3]))[:, :, 0]
        unit = self.scale * (self.horizon - period).clamp(min=1).to(table.dtype)
        arms = picked[:, :, 0] * unit[:, None]
        if self.head is None:
            return arms, torch.zeros_like(unit)
        # The head sees what the arms are like, not what they are worth: its error must not reach the arm values.
        return arms, self.n_arms * unit * self.head(picked[:, :, 1:].mean(dim=1))[:, 0]

    def single_effects(self, state: Tensor, period: Tensor, shared: Tensor | None = None) -> Tensor:
        """Q of acting on one arm alone less Q of acting on none, (B, N), at the arms' first action."""
        table = self._described(state, period, shared)
        unit = self.scale * (self.horizon - period).clamp(min=1).to(table.dtype)
        found = unit[:, None] * (table[:, :, 1, 0] - table[:, :, 0, 0])
        if self.head is None:
            return found
        idle = table[:, :, 0, 1:].mean(dim=1)
        moved = idle[:, None] + (table[:, :, 1, 1:] - table[:, :, 0, 1:]) / self.n_arms
        apart = self.head(moved)[..., 0] - self.head(idle)[..., 0][:, None]
        return found + self.n_arms * unit[:, None] * apart

    @property
    def bends(self) -> bool:
        return self.head is not None and self.n_actions == 2

    def neurons(
        self, state: Tensor, period: Tensor, shared: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[nn.Linear]]:
        assert self.head is not None
        first = self.head[0]
        assert isinstance(first, nn.Linear)
        psi = self._described(state, period, shared)[..., 1:]
        by_arm = (psi[:, :, 1] - psi[:, :, 0]) @ first.weight.T / self.n_arms
        # Two columns on one arm do not add up; counted as if they did, they only widen the bounds.
        onto = torch.zeros((self.n_arms, self.n_columns), dtype=psi.dtype, device=psi.device)
        onto[self.column_arm, self.column] = 1.0
        return first(psi[:, :, 0].mean(dim=1)), by_arm.transpose(1, 2) @ onto, []

    def _level(self, action: Tensor) -> Tensor:
        """Action of every arm, (B, N), from the columns, (B, C)."""
        level = torch.zeros((len(action), self.n_arms), dtype=torch.long, device=action.device)
        return level.index_add_(1, self.column_arm, action.long()[:, self.column] * self.column_level)

    def _described(self, state: Tensor, period: Tensor, shared: Tensor | None) -> Tensor:
        """(q, psi) of every arm and action: (B, N, A, 1 + head)."""
        out = self.arm(self._inputs(state, period, shared))
        table = out.reshape(len(state), self.n_arms, self.n_actions, 1 + self.head_width)
        if self.prior is None:
            return table
        arm = torch.arange(self.n_arms, device=state.device)
        known = self.prior[period.clamp(max=len(self.prior) - 1)[:, None], arm[None], state]
        unit = self.scale * (self.horizon - period).clamp(min=1).to(table.dtype)
        begun: Tensor = known.to(table.dtype) / unit[:, None, None]
        return torch.cat([table[..., :1] + begun[..., None], table[..., 1:]], dim=-1)

    def _inputs(self, state: Tensor, period: Tensor, shared: Tensor | None) -> Tensor:
        """What the arm network is told of each arm, (B, N, F)."""
        one_hot = nn.functional.one_hot(state, self.n_states).to(self.features.dtype)
        left = (self.horizon - period.to(self.features.dtype)) / self.horizon
        batch = state.shape[0]
        parts = [
            one_hot,
            self.features[None].expand(batch, -1, -1),
            left[:, None, None].expand(batch, self.n_arms, 1),
            self.shared_input(shared, batch)[:, None].expand(batch, self.n_arms, -1),
            self.context(state, shared),
        ]
        return torch.cat(parts, dim=2)

    def at(self, situation: Situation) -> Network:
        with torch.no_grad():
            device = self.features.device
            state = torch.as_tensor(situation.state, device=device)[None]
            period, shared = torch.tensor([situation.period], device=device), self.shared_input.at(situation)
            table = self._described(state, period, shared)[0].double().cpu().numpy()
        unit = float(self.scale) * max(1, self.horizon - situation.period)
        return self._over_columns(unit * table[:, :, 0], table[:, :, 1:], unit * self.n_arms)

    def _over_columns(self, values: np.ndarray, psi: np.ndarray | None, unit: float, constant: float = 0.0) -> Network:
        """Sum of ``values`` (N, A) + ``unit`` * g(mean of ``psi`` (N, A, head)) + constant, over the columns."""
        linear, bends = self.levels.over_columns(values)
        constant += float(values[:, 0].sum())
        count = len(bends)
        layers: list[tuple[np.ndarray, np.ndarray, str]] = []
        bent = (self.levels.weight, -self.levels.threshold)
        if psi is None or self.head is None:
            if count:
                layers = [(*bent, "relu"), (bends[None], np.zeros(1), "linear")]
            return Network.from_arrays(layers, skip=linear, constant=constant)
        (w1, b1), (w2, b2) = _arrays(self.head)
        straight, bending = (part / self.n_arms for part in self.levels.over_columns(psi))
        # relu(c x) = c relu(x) for c > 0: with the read-out's size moved into the first layer only numbers that the
        # program keeps open change in training, and it is compiled once.
        size = unit * np.abs(w2[0])
        first, bias = size[:, None] * (w1 @ straight.T), size * (w1 @ psi[:, 0].mean(axis=0) + b1)
        if count:
            # Columns and bends are never negative, so that a ReLU passes them on unchanged to the layer above.
            n = self.levels.n_columns
            layers.append((np.vstack([np.eye(n), bent[0]]), np.concatenate([np.zeros(n), bent[1]]), "relu"))
            first = np.hstack([first, size[:, None] * (w1 @ bending.T)])
            first = np.vstack([first, np.hstack([np.zeros((count, n)), np.eye(count)])])
            layers.append((first, np.concatenate([bias, np.zeros(count)]), "relu"))
            layers.append((np.concatenate([np.sign(w2[0]), bends])[None], np.zeros(1), "linear"))
        else:
            layers = [(first, bias, "relu"), (np.sign(w2), np.zeros(1), "linear")]
        return Network.from_arrays(layers, skip=linear, constant=constant + unit * float(b2[0]))

    def objective(self, version: Callable[[], int] = unchanging) -> Objective:
        if len(self.levels.threshold):
            return NetworkObjective(self.at, version=version)
        return super().objective(version)


@registry.register("network", "anchored")
class AnchoredQ(PooledQ):
    """Q = sum of known arm values + a pooled head: learning begins at a planning rule.

    The arm values Q[t, n, s, a] come from :func:`anchor_values` and stay as they are; the head, zero at first,
    learns what the coupling adds to their sum.

    Parameters
    ----------
    values
        The arm values, (T, N, S, A); None leaves them to :meth:`load_state_dict`.
    """

    pretrains = False
    base: Tensor
    kernel: Tensor

    def __init__(
        self,
        problem: Problem,
        columns: Columns,
        hidden: Sequence[int] = (32,),
        head: int = 8,
        *,
        scale: float = 1.0,
        generator: torch.Generator,
        features: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
        values: np.ndarray | None = None,
    ) -> None:
        if head < 1:
            raise ModelError("an anchored network without a head learns nothing", "give head at least 1.")
        super().__init__(problem, columns, hidden, head, scale=scale, generator=generator, features=features)
        shape = (problem.horizon, self.n_arms, self.n_states, self.n_actions)
        self.register_buffer("base", torch.zeros(shape, dtype=torch.float64))
        transition, _ = _tables(problem)
        self.register_buffer("kernel", torch.tensor(transition, dtype=torch.float64), persistent=False)
        self.offset = nn.Parameter(torch.zeros(problem.horizon + 1))
        self.silence()
        if values is not None:
            self.base.copy_(torch.as_tensor(values))

    def silence(self) -> None:
        """Set the head to zero: what is left is the anchor."""
        with torch.no_grad():
            self._last.weight.zero_()
            self._last.bias.zero_()
            self.offset.zero_()

    @property
    def silent(self) -> bool:
        """Whether the head says nothing at any action."""
        return not bool(self._last.weight.detach().any())

    def forward(
        self, state: Tensor, period: Tensor, action: Tensor, shared: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor]:
        _, learned = super().forward(state, period, action, shared)
        arm = torch.arange(self.n_arms, device=state.device)
        at = period.clamp(max=self.horizon - 1)
        anchor = self.base[at[:, None], arm[None], state, self._level(action)].sum(dim=1).to(learned.dtype)
        return None, anchor + learned + self.n_arms * self.scale * self.offset[period.clamp(max=self.horizon)]

    def chance(self, state: Tensor, period: Tensor, action: Tensor, following: Tensor, habit: Tensor) -> Tensor:
        """What chance alone gave next states (B, K, N), in the anchor's values: see :func:`targets.chance`.

        Arms count in the next round as they are mostly treated, ``habit`` (N, A); state, period and action are (B, N),
        (B,) and (B, C).
        """
        arm = torch.arange(self.n_arms, device=state.device)
        reached = self.kernel[arm[None], self._level(action), state]
        return targets.chance(self.base[targets.next_round(period, self.horizon)], reached, following, habit)

    def at(self, situation: Situation) -> Network:
        last = min(situation.period, self.horizon - 1)
        offset = self.n_arms * float(self.scale) * float(self.offset[last].detach())
        with torch.no_grad():
            device = self.features.device
            state = torch.as_tensor(situation.state, device=device)[None]
            period, shared = torch.tensor([situation.period], device=device), self.shared_input.at(situation)
            table = self._described(state, period, shared)[0].double().cpu().numpy()
        unit = float(self.scale) * max(1, self.horizon - situation.period) * self.n_arms
        return self._over_columns(self.anchored(situation), table[:, :, 1:], unit, offset)

    def alone(self) -> Objective:
        """What a decision by the anchor without its head maximises."""
        return _Anchor(self)

    def anchored(self, situation: Situation) -> np.ndarray:
        """The anchor's value of each arm by action now, (N, A)."""
        table = self.base[min(situation.period, self.horizon - 1)].cpu().numpy()
        values: np.ndarray = table[np.arange(self.n_arms), situation.state]
        return values

    @property
    def _last(self) -> nn.Linear:
        assert self.head is not None
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        return last


class _Anchor(ArmValues):
    """The arm values of an anchored network, read at each decision."""

    def __init__(self, network: AnchoredQ) -> None:
        self.network = network

    def arm_values(self, situation: Situation) -> np.ndarray:
        return self.network.anchored(situation)

    def frozen(self, situation: Situation) -> Objective:
        return Scores(self.arm_values(situation))


@registry.register("network", "dense")
class DenseQ(QNetwork):
    """A fully connected network of action, one-hot states and time left: the published architecture, repaired."""

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
        self.n_arms = problem.n_arms
        self.register_buffer("scale", torch.tensor(float(scale) * problem.n_arms))
        self.shared_input = SharedInput(problem)
        fixed = problem.n_arms * self.n_states + 1 + len(self.shared_input)
        self.body = _mlp([len(columns) + fixed, *hidden, 1], generator)

    @property
    def arm_unit(self) -> float:
        return float(self.scale) / self.n_arms

    def _fixed(self, state: Tensor, period: Tensor, shared: Tensor | None) -> Tensor:
        one_hot = nn.functional.one_hot(state, self.n_states).to(self.scale.dtype).flatten(1)
        left = (self.horizon - period.to(self.scale.dtype)) / self.horizon
        return torch.cat([one_hot, left[:, None], self.shared_input(shared, len(state))], dim=1)

    def forward(
        self, state: Tensor, period: Tensor, action: Tensor, shared: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor]:
        inputs = torch.cat([action.to(self.scale.dtype), self._fixed(state, period, shared)], dim=1)
        unit = self.scale * (self.horizon - period).clamp(min=1).to(self.scale.dtype)
        return None, self.body(inputs)[:, 0] * unit

    @property
    def bends(self) -> bool:
        return True

    def neurons(
        self, state: Tensor, period: Tensor, shared: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[nn.Linear]]:
        layers = [layer for layer in self.body if isinstance(layer, nn.Linear)]
        weight = layers[0].weight
        constant = self._fixed(state, period, shared) @ weight[:, self.n_columns :].T + layers[0].bias
        return constant, weight[None, :, : self.n_columns], layers[1:-1]

    def at(self, situation: Situation) -> Network:
        device = self.scale.device
        fixed = self._fixed(
            torch.as_tensor(situation.state, device=device)[None],
            torch.tensor([situation.period], device=device),
            self.shared_input.at(situation),
        )
        rest = fixed[0].double().cpu().numpy()
        layers: list[tuple[np.ndarray, np.ndarray, str]] = [(w, b, "relu") for w, b in _arrays(self.body)]
        weight, bias, _ = layers[0]
        layers[0] = (weight[:, : self.n_columns], bias + weight[:, self.n_columns :] @ rest, "relu")
        weight, bias, _ = layers[-1]
        scale = float(self.scale) * max(1, self.horizon - situation.period)
        layers[-1] = (scale * weight, scale * bias, "linear")
        return Network.from_arrays(layers)


SHARED_WEIGHTS = ("pooled", "anchored", "loads")
"""Networks whose weights are shared by arms and serve cohorts of any size."""


def make_network(
    kind: str,
    problem: Problem,
    columns: Columns,
    hidden: Sequence[int],
    head: int,
    scale: float,
    seed: int,
    **options: Any,
) -> QNetwork:
    """A fresh network of a kind, its weights drawn from ``seed``.

    Parameters
    ----------
    options
        ``features`` of a network whose weights are shared by arms, ``values`` of an anchored one.

    Raises
    ------
    ModelError
        When there is no such kind.
    """
    entry = registry.find("network", kind)
    generator = torch.Generator().manual_seed(seed)
    if kind in SHARED_WEIGHTS:
        options["head"] = head
    network: QNetwork = entry.make(problem, columns, hidden, scale=scale, generator=generator, **options)
    return network


def demand_cuda() -> None:
    """Raise ModelError where torch can use no CUDA device."""
    if not torch.cuda.is_available():
        raise ModelError("--device cuda: this machine has no CUDA device that torch can use", "leave it out.")
