"""What couples the arms in one round, as rows on their actions, and the merging of identical arms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from rmab_opt.errors import ModelError
from rmab_opt.planning.costs import Costs

__all__ = ["Coupling", "Merged", "merge_identical"]


@dataclass(frozen=True, eq=False, init=False)
class Coupling:
    """K resources of one round: sum over arms of cost[k, n, s_n, a_n] is at most (or exactly) limit[k].

    Parameters
    ----------
    cost
        Table (K, N, S, A), or :class:`~rmab_opt.planning.costs.Costs`, as which it is kept; axes 1 and 2 may have
        length 1 when the cost depends on neither arm nor state. The passive action costs nothing.
    limit
        Units a round, shape (K,), or (T, K) when it changes from round to round.
    equal
        Rows that must be met exactly, bool (K,); all False by default.
    names
        One name a row, for reports.

    Raises
    ------
    ModelError
        When shapes disagree or a number is not finite.
    """

    cost: Costs
    limit: np.ndarray
    equal: np.ndarray
    names: tuple[str, ...]

    def __init__(
        self,
        cost: np.ndarray | Costs,
        limit: np.ndarray,
        equal: np.ndarray | None = None,
        names: Sequence[str] = (),
    ) -> None:
        shape = cost.shape if isinstance(cost, Costs) else np.shape(cost)
        limit = np.asarray(limit, dtype=np.float64)
        if len(shape) != 4 or limit.shape[-1:] != shape[:1]:
            raise ModelError(
                f"coupling: cost has shape {shape}, limit {limit.shape}", "give (K, N, S, A) and (K,) or (T, K)."
            )
        cost, n_rows = Costs.of(cost), shape[0]
        if not (cost.finite and np.isfinite(limit).all()):
            raise ModelError("coupling: a cost or a limit is not finite", "leave out rows without a limit.")
        equal = np.zeros(n_rows, dtype=bool) if equal is None else np.asarray(equal, dtype=bool)
        names = tuple(names) or tuple(f"resource {k}" for k in range(n_rows))
        if equal.shape != (n_rows,) or len(names) != n_rows:
            raise ModelError(f"coupling: {n_rows} rows, {len(names)} names, equal {equal.shape}", "give one a row.")
        for name, value in (("cost", cost), ("limit", limit), ("equal", equal), ("names", names)):
            object.__setattr__(self, name, value)

    @classmethod
    def budgets(cls, budgets: Sequence[float] | np.ndarray, *, equal: bool = False) -> Coupling:
        """At most ``budgets[a - 1]`` arms a round get action a = 1 .. A - 1; shape (A - 1,), or (T, A - 1)."""
        limit = np.asarray(budgets, dtype=np.float64)
        n_rows = limit.shape[-1]
        cost = np.zeros((n_rows, 1, 1, n_rows + 1))
        cost[np.arange(n_rows), 0, 0, np.arange(1, n_rows + 1)] = 1.0
        names = ("budget",) if n_rows == 1 else tuple(f"action {a}" for a in range(1, n_rows + 1))
        return cls(cost, limit, np.full(n_rows, equal), names)

    @classmethod
    def knapsack(cls, cost: np.ndarray, limit: float, *, name: str = "budget") -> Coupling:
        """One shared budget: cost of shape (A,), (N, A) or (N, S, A) against ``limit`` units a round."""
        cost = np.asarray(cost, dtype=np.float64)
        shaped = {1: cost[None, None], 2: cost[:, None] if cost.ndim == 2 else cost, 3: cost}.get(cost.ndim)
        if shaped is None:
            raise ModelError(f"knapsack: cost has shape {cost.shape}", "give (A,), (N, A) or (N, S, A).")
        return cls(shaped[None], np.array([limit]), names=(name,))

    @property
    def n_rows(self) -> int:
        """Number of resources K."""
        return self.cost.n_rows

    @property
    def by_action_only(self) -> bool:
        """Whether costs depend neither on the arm nor on its state."""
        return not self.cost.by_arm and not self.cost.by_state

    def of_arms(self, arms: np.ndarray) -> Coupling:
        """The same limits over some of the arms."""
        return Coupling(self.cost.of_arms(arms), self.limit, self.equal, self.names)

    def stacked(self, other: Coupling) -> Coupling:
        """Both sets of rows together."""
        leading = np.broadcast_shapes(self.limit.shape[:-1], other.limit.shape[:-1])
        limit = np.concatenate([np.broadcast_to(c.limit, (*leading, c.n_rows)) for c in (self, other)], axis=-1)
        equal = np.concatenate([self.equal, other.equal])
        return Coupling(self.cost.beside(other.cost), limit, equal, (*self.names, *other.names))


@dataclass(frozen=True, eq=False)
class Merged:
    """Identical arms as one type each.

    ``representative`` (M,) is an arm of each type, ``member`` (N,) the type of each arm, ``start`` (M, S) the
    summed start distributions, ``count`` (M,) the number of arms.
    """

    representative: np.ndarray
    member: np.ndarray
    start: np.ndarray
    count: np.ndarray


def merge_identical(
    transition: np.ndarray, reward: np.ndarray, cost: np.ndarray | Costs, start: np.ndarray, *, seed: int = 0
) -> Merged:
    """Group arms with the same kernel, reward and cost; exact, as start distributions simply add up.

    Parameters
    ----------
    transition, reward, cost, start
        Shapes (N, A, S, S), (N, S, A), (K, N or 1, S or 1, A), (N, S).
    """
    n_arms, cost = transition.shape[0], Costs.of(cost)
    rows = [transition.reshape(n_arms, -1), reward.reshape(n_arms, -1)]
    # A random projection sorts candidates; equality of the rows themselves decides.
    rng = np.random.default_rng(seed)
    key = sum((row @ rng.normal(size=row.shape[1]) for row in rows), np.zeros(n_arms))
    taken = cost.arms if cost.by_arm else None
    if taken is not None:
        key = key + taken @ rng.normal(size=taken.shape[1])
    order = np.argsort(key, kind="stable")
    near = np.abs(np.diff(key[order])) <= 1e-9 * (1.0 + np.abs(key[order][1:]))
    same = np.zeros(n_arms - 1, dtype=bool)
    pair = np.flatnonzero(near)
    if pair.size:
        left, right = order[pair], order[pair + 1]
        equal = np.ones(pair.size, dtype=bool)
        for row in rows:
            equal &= (row[left] == row[right]).all(axis=1)
        if taken is not None:
            equal &= np.diff(sparse.csr_array(taken[left] != taken[right]).indptr) == 0
        same[pair] = equal
    if not same.any():
        return Merged(np.arange(n_arms), np.arange(n_arms), np.asarray(start), np.ones(n_arms))
    kind = np.concatenate([[0], np.cumsum(~same)])
    representative = order[np.concatenate([[True], ~same])]
    member = np.empty(n_arms, dtype=np.int64)
    member[order] = kind
    total = np.zeros((representative.size, start.shape[1]))
    np.add.at(total, member, start)
    return Merged(representative, member, total, np.bincount(member).astype(float))
