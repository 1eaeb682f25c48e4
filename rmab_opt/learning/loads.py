"""A Q-network over the loads of groups: what an arm adds depends on how many of its group are chosen with it.

    Q(s, a) - Q(s, nothing) = sum over groups g with L = sum of a in g >= 1 of ( c[g, L] + sum over chosen i in g of
    q[i, L] ),

q and c by one network with weights shared by all arms, c[g, L] the mean over the group. A threshold (a class), a crowd
and a tiring worker are all of this form, which no score per arm can say. Its program needs one binary a group and load;
under a count and counts of the groups themselves the best action is found by sorting and a table, without a program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rmab_opt import registry
from rmab_opt.actions import ActionSet, Columns
from rmab_opt.decisions import Objective, Situation
from rmab_opt.encoder import Network
from rmab_opt.errors import CapabilityError
from rmab_opt.learning.networks import PooledQ, _mlp, unchanging
from rmab_opt.problem import Problem

__all__ = ["LoadObjective", "LoadQ", "LoadRule"]

Tables = tuple[np.ndarray, np.ndarray]


@registry.register("network", "loads")
class LoadQ(PooledQ):
    """Values of arms by the load of their group (see the module), for dynamics that say ``group`` (N,).

    Parameters
    ----------
    head
        Taken for the sake of one signature; the loads are the head.
    """

    group: Tensor
    mean_of_group: Tensor

    def __init__(
        self,
        problem: Problem,
        columns: Columns,
        hidden: Sequence[int] = (32, 16),
        head: int = 0,
        *,
        scale: float = 1.0,
        generator: torch.Generator,
        features: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    ) -> None:
        said = getattr(problem.dynamics, "group", None)
        if said is None:
            raise CapabilityError(
                "group, the number of each arm's group", problem.dynamics, ("say it", "use network 'pooled'")
            )
        super().__init__(problem, columns, hidden, 0, scale=scale, generator=generator, features=features)
        group = np.asarray(said, dtype=np.int64)
        member = np.eye(int(group.max()) + 1)[group]
        self.largest = int(member.sum(axis=0).max())
        self.register_buffer("group", torch.tensor(group), persistent=False)
        share = torch.tensor(member / member.sum(axis=0), dtype=torch.float32)
        self.register_buffer("mean_of_group", share, persistent=False)
        first = self.arm[0]
        assert isinstance(first, nn.Linear)
        # Beside its own inputs an arm is told the mean of them over its group.
        self.arm = _mlp([2 * first.in_features, *hidden, 2 * self.largest], generator)

    def tables(self, state: Tensor, period: Tensor, shared: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """q (B, N, L) and c (B, G, L) for loads 1 to L, in reward units."""
        told = self._inputs(state, period, shared)
        around = torch.einsum("bnf,ng->bgf", told, self.mean_of_group)[:, self.group]
        out = self.arm(torch.cat([told, around], dim=2))
        unit = (self.scale * (self.horizon - period).clamp(min=1).to(out.dtype))[:, None, None]
        q, c = out[..., : self.largest] * unit, out[..., self.largest :] * unit
        return q, torch.einsum("bnl,ng->bgl", c, self.mean_of_group)

    def forward(
        self, state: Tensor, period: Tensor, action: Tensor, shared: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor]:
        q, c = self.tables(state, period, shared)
        return None, self._value(q, c, action[:, None])[:, 0]

    def effects(self, state: Tensor, period: Tensor, action: Tensor, shared: Tensor | None = None) -> Tensor:
        return self._value(*self.tables(state, period, shared), action)

    def single_effects(self, state: Tensor, period: Tensor, shared: Tensor | None = None) -> Tensor:
        q, c = self.tables(state, period, shared)
        return q[..., 0] + c[:, self.group, 0]

    def _value(self, q: Tensor, c: Tensor, action: Tensor) -> Tensor:
        """Of actions (B, M, N) by the tables, (B, M)."""
        chosen = action.to(q.dtype)
        load = torch.zeros((*action.shape[:2], c.shape[1]), dtype=torch.long, device=action.device)
        load.index_add_(2, self.group, action.long())
        at = (load - 1).clamp(min=0)
        by_arm = torch.gather(q[:, None].expand(-1, action.shape[1], -1, -1), 3, at[..., self.group, None])[..., 0]
        by_group = torch.gather(c[:, None].expand(-1, action.shape[1], -1, -1), 3, at[..., None])[..., 0]
        found: Tensor = (by_arm * chosen).sum(dim=2) + (by_group * (load > 0)).sum(dim=2)
        return found

    def at(self, situation: Situation) -> Network:
        raise CapabilityError("a network over columns alone", self, ("decide by its objective", "use network 'pooled'"))

    def objective(self, version: Callable[[], int] = unchanging) -> Objective:
        return LoadObjective(self.at_situation, self.group.numpy())

    def at_situation(self, situation: Situation) -> Tables:
        """:meth:`tables` of one situation in numpy: q (N, L) and c (G, L)."""
        beside = None if situation.shared is None else situation.shared[None]
        q, c = self.numbers(situation.state[None], situation.period, beside)
        return q[0], c[0]

    def numbers(self, state: np.ndarray, period: int, shared: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`tables` of states (B, N) of one round in numpy, float64."""
        with torch.no_grad():
            at = torch.full((len(state),), period, dtype=torch.long)
            beside = None if shared is None else torch.as_tensor(np.asarray(shared))
            q, c = self.tables(torch.as_tensor(np.array(state, dtype=np.int64)), at, beside)
        return q.double().numpy(), c.double().numpy()


@dataclass(frozen=True, eq=False)
class _Fixed:
    """Tables as they were at one situation."""

    tables: Tables

    def __call__(self, situation: Situation) -> Tables:
        return self.tables


class LoadObjective(Objective):
    """What a decision by :class:`LoadQ` maximises.

    y[g, L] says that L of group g are chosen and w[i, L] that arm i is one of them:

        sum_L y[g, L] <= 1,  sum_L L y[g, L] = sum of act in g,  sum_L w[i, L] = act[i],  w[i, L] <= y[g, L].

    Parameters
    ----------
    tables
        q (N, L) and c (G, L) at a situation.
    group
        Number of each arm's group, (N,).
    """

    def __init__(self, tables: Callable[[Situation], Tables], group: np.ndarray) -> None:
        self.tables, self._group = tables, np.asarray(group)

    @property
    def listable(self) -> bool:
        return True

    def frozen(self, situation: Situation) -> Objective:
        return LoadObjective(_Fixed(self.tables(situation)), self._group)

    def build(self, block: Any, act: Any, situation: Situation) -> Any:
        import pyomo.environ as pyo

        q, c = self.tables(situation)
        sizes = np.bincount(self._group, minlength=len(c))
        groups, arms = range(len(c)), range(len(q))
        loads = [(g, x) for g in groups for x in range(1, sizes[g] + 1)]
        among = [(i, x) for i in arms for x in range(1, sizes[self._group[i]] + 1)]
        of = [np.flatnonzero(self._group == g).tolist() for g in groups]
        block.makes = pyo.Var(loads, domain=pyo.Binary)
        block.among = pyo.Var(among, bounds=(0, 1))
        values = self.update(situation)
        block.arm = pyo.Param(
            among, mutable=True, domain=pyo.Reals, initialize=dict(zip(among, values["arm"], strict=True))
        )
        block.whole = pyo.Param(
            loads, mutable=True, domain=pyo.Reals, initialize=dict(zip(loads, values["whole"], strict=True))
        )
        block.one = pyo.Constraint(groups, rule=lambda b, g: sum(b.makes[g, x] for x in range(1, sizes[g] + 1)) <= 1)
        block.load = pyo.Constraint(
            groups,
            rule=lambda b, g: sum(x * b.makes[g, x] for x in range(1, sizes[g] + 1)) == sum(act[i] for i in of[g]),
        )
        block.each = pyo.Constraint(
            arms, rule=lambda b, i: sum(b.among[i, x] for x in range(1, sizes[self._group[i]] + 1)) == act[i]
        )
        block.only = pyo.Constraint(among, rule=lambda b, i, x: b.among[i, x] <= b.makes[int(self._group[i]), x])
        arm_part = pyo.quicksum(block.arm[key] * block.among[key] for key in among)
        return arm_part + pyo.quicksum(block.whole[key] * block.makes[key] for key in loads)

    def update(self, situation: Situation) -> dict[str, np.ndarray]:
        q, c = self.tables(situation)
        sizes = np.bincount(self._group, minlength=len(c))
        return {
            "arm": np.concatenate([q[i, : sizes[g]] for i, g in enumerate(self._group)]),
            "whole": np.concatenate([c[g, :size] for g, size in enumerate(sizes)]),
        }

    def batch_value(self, actions: np.ndarray, situation: Situation) -> np.ndarray:
        q, c = self.tables(situation)
        chosen = np.asarray(actions, dtype=np.float64)
        load = (chosen @ np.eye(len(c))[self._group]).astype(np.int64)
        at = np.maximum(load - 1, 0)
        by_arm = q[np.arange(len(q)), at[:, self._group]]
        by_group = np.where(load > 0, c[np.arange(len(c)), at], 0.0)
        return np.asarray((by_arm * chosen).sum(axis=1) + by_group.sum(axis=1))


class LoadRule:
    """The best action by a :class:`LoadQ` on arrays: loads by a table over groups, members by sorting; exact.

    Raises
    ------
    CapabilityError
        When the set is more than a count and counts of whole groups.
    """

    def __init__(self, problem: Problem, actions: ActionSet, network: LoadQ) -> None:
        self.problem, self.actions, self.network = problem, actions, network
        self._group = network.group.numpy()
        self._members = [np.flatnonzero(self._group == g) for g in range(int(self._group.max()) + 1)]
        self._most, self._caps = self._limits()

    def _limits(self) -> tuple[int, list[int]]:
        """Most columns in all, and of each group."""
        actions, plain = self.actions, self.actions.plain_rows
        caps, most = [len(part) for part in self._members], len(actions)
        alone = np.array_equal(actions.columns.effect.toarray(), np.eye(len(actions)))
        rows = [] if actions.structured else list(actions.shape.binding_rows)
        for row in rows:
            part = slice(plain.matrix.indptr[row], plain.matrix.indptr[row + 1])
            inside, weight = plain.matrix.indices[part], plain.matrix.data[part]
            same = next((g for g, own in enumerate(self._members) if np.array_equal(np.sort(inside), own)), None)
            # No upper limit is one that all columns meet.
            limit = int(min(np.floor(plain.ceiling[row] / weight[0] + 1e-9), len(actions)))
            alone &= bool((weight == weight[0]).all() and plain.floor[row] <= 0)
            alone &= same is not None or len(inside) == len(actions)
            if same is None:
                most = min(most, limit)
            else:
                caps[same] = min(caps[same], limit)
        if not alone or actions.structured or actions.open_constraints:
            raise CapabilityError(
                "other limits than counts of all and of groups",
                actions,
                ("decide by the program", "use the run's policy"),
            )
        return most, caps

    def __call__(self, states: np.ndarray, period: int, shared: np.ndarray | None) -> np.ndarray:
        """Actions (B, C) at states (B, N) and shared states (B, K)."""
        q, c = self.network.numbers(states, period, shared)
        batch, most = len(states), self._most
        best, orders, taken = np.full((batch, most + 1), -np.inf), [], []
        best[:, 0] = 0.0
        for g, own in enumerate(self._members):
            cap = min(self._caps[g], most)
            part = q[:, own, :cap]
            order = np.argsort(-part, axis=1, kind="stable")
            ranked = np.take_along_axis(part, order, axis=1).cumsum(axis=1)
            worth = np.zeros((batch, cap + 1))
            worth[:, 1:] = ranked[:, np.arange(cap), np.arange(cap)] + c[:, g, :cap]
            # best[b, k]: the most that the groups so far are worth with k columns.
            tried = np.full((batch, cap + 1, most + 1), -np.inf)
            for load in range(cap + 1):
                tried[:, load, load:] = best[:, : most + 1 - load] + worth[:, load, None]
            taken.append(tried.argmax(axis=1))
            best = tried.max(axis=1)
            orders.append(order)
        left, rows = best.argmax(axis=1), np.arange(batch)
        action = np.zeros((batch, len(self._group)), dtype=np.int64)
        for g in range(len(self._members) - 1, -1, -1):
            load = taken[g][rows, left]
            for size in np.unique(load[load > 0]).tolist():
                some = np.flatnonzero(load == size)
                chosen = self._members[g][orders[g][some, :size, size - 1]]
                action[some[:, None], chosen] = 1
            left = left - load
        return action
