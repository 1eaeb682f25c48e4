"""Score tables: what each action of each arm is worth now, for a linear objective over any action set.

A table has shape (T, N, S, A), or (1, N, S, A) when it does not depend on the round; gathered by state it gives one
score an arm-action, relative to resting. The program then maximises the chosen scores' sum under the true constraints,
so no table needs to know them. Current-round prices are never subtracted: that would idle budget.

Stateful rules offer ``scores(state, period, rng) -> (N, A)`` instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from rmab_opt.actions import ActionSet, shared_arms
from rmab_opt.errors import ModelError
from rmab_opt.overdue import checkpoint
from rmab_opt.planning.bound import Bound, bound, bound_arrays
from rmab_opt.planning.coupling import Coupling
from rmab_opt.planning.hull import ActionOracle, hull_bound
from rmab_opt.planning.lagrangian import stationary_values
from rmab_opt.planning.occupancy import Polyhedron, polyhedron
from rmab_opt.planning.whittle import whittle_indices, whittle_levels
from rmab_opt.problem import Problem
from rmab_opt.problem.dynamics import require_tabular
from rmab_opt.registry import register

__all__ = [
    "IdentityOrder",
    "LpUpdate",
    "RandomAssignment",
    "Rule",
    "ScoreTable",
    "TwoStep",
    "column_scores",
    "hull_index",
    "lagrangian",
    "lagrangian_at",
    "lp_index",
    "lp_priority",
    "multi_action_whittle",
    "occupancy_index",
    "priced_action_values",
    "static",
    "whittle",
]

TIE_BREAK = 1e-3
"""Weight of normalised action values behind an LP's randomisation: an LP vertex says who acts, but ranks nobody."""


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores with where they come from.

    Parameters
    ----------
    values
        (T or 1, N, S, A); the passive action's score is 0.
    name
        Name of the rule.
    note
        What a reader must know, e.g. how many arms use a fallback; empty otherwise.
    bound
        The bound whose prices made the scores, if any.
    """

    values: np.ndarray
    name: str
    note: str = ""
    bound: Bound | None = None

    def scores(
        self,
        state: np.ndarray,
        period: int,
        rng: np.random.Generator | None = None,
        shared: np.ndarray | None = None,
    ) -> np.ndarray:
        """Scores of the arms in their states, (..., N, A); rounds beyond the table use its last one."""
        table = self.values[min(period, len(self.values) - 1)]
        return table[np.arange(table.shape[0]), state]


class Rule(Protocol):
    """What decides by scores: a table or a stateful rule."""

    def scores(
        self,
        state: np.ndarray,
        period: int,
        rng: np.random.Generator | None = None,
        shared: np.ndarray | None = None,
    ) -> np.ndarray:
        """Score of each arm-action now, (N, A), passive 0."""
        ...


def column_scores(scores: np.ndarray, rows: Polyhedron) -> np.ndarray:
    """Scores (..., N, A) as a linear objective over the action set's columns, (..., C)."""
    return scores[..., rows.arm, rows.action] - scores[..., rows.arm, 0]


def priced_action_values(
    transition: np.ndarray,
    reward: np.ndarray,
    arm_prices: np.ndarray,
    *,
    discount: float,
    horizon: int | None = None,
    terminal: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Q(s, a) under arm prices, the current price not subtracted, and the priced values V.

    Parameters
    ----------
    arm_prices
        (N, A), or (T, N, A) with a ``horizon``; passive free.
    terminal
        Values after the last round, (N, S).

    Returns
    -------
    tuple of numpy.ndarray
        Q of shape (T or 1, N, S, A); V of shape (T + 1, N, S) or (1, N, S).
    """
    n_arms, n_actions, n_states, _ = transition.shape
    stacked = transition.reshape(n_arms, n_actions * n_states, n_states)

    def look_ahead(value: np.ndarray) -> np.ndarray:
        ahead = np.matmul(stacked, value[:, :, None]).reshape(n_arms, n_actions, n_states)
        return reward + discount * ahead.transpose(0, 2, 1)

    if horizon is None:
        value = _stationary_value(transition, reward - arm_prices[:, None, :], discount)
        return look_ahead(value)[None], value[None]
    q = np.empty((horizon, n_arms, n_states, n_actions))
    values = np.zeros((horizon + 1, n_arms, n_states))
    if terminal is not None:
        values[horizon] = terminal
    for t in range(horizon - 1, -1, -1):
        checkpoint()
        q[t] = look_ahead(values[t + 1])
        values[t] = (q[t] - arm_prices[t][:, None, :]).max(axis=2)
    return q, values


def _stationary_value(transition: np.ndarray, reward: np.ndarray, discount: float) -> np.ndarray:
    free = Coupling(np.zeros((1, 1, 1, reward.shape[2])), np.zeros(1))
    return stationary_values(transition, reward, free, np.zeros(1), discount=discount)


def _relative(q: np.ndarray) -> np.ndarray:
    return q - q[..., :1]


def _steady_discount(problem: Problem) -> float:
    """Discount of the endless problem that stands for this horizon: its mean number of rounds left, capped at 0.99."""
    return min(problem.discount, 0.99, 1.0 - 2.0 / (problem.horizon + 2.0))


# ---------------------------------------------------------------------------------------------------------------------
# Tables


@register("rule", "lagrangian")
def lagrangian(problem: Problem, actions: ActionSet, *, discount: float | None = None) -> ScoreTable:
    """Action values under one constant price a resource: the discounted bound's, one table for all rounds.

    Where columns act on several arms or share them, the prices are the hull's, constant over the problem's horizon,
    and there is one table a round.

    References
    ----------
    Hawkins (2003); Adelman, Mersereau (2008); Killian, Perrault, Tambe (2021).
    """
    return lagrangian_within(problem, actions, None, discount=discount)


def lagrangian_within(
    problem: Problem, actions: ActionSet, seconds: float | None, *, discount: float | None = None
) -> ScoreTable:
    """:func:`lagrangian` at the prices that are found in so many seconds."""
    require_tabular(problem.dynamics, "scores of arms")
    if shared_arms(actions.columns):
        found = bound(problem, actions.lasting, coupling="hull", constant=True, seconds=seconds)
        return replace(lagrangian_at(problem, found.arm_prices), bound=found)
    factor = _steady_discount(problem) if discount is None else discount
    found = bound(problem, actions.lasting, kind="discounted", discount=factor, seconds=seconds)
    return replace(lagrangian_at(problem, found.arm_prices, discount=discount), bound=found)


def lagrangian_at(problem: Problem, arm_prices: np.ndarray, *, discount: float | None = None) -> ScoreTable:
    """The table of :func:`lagrangian` from its prices, (N, A) or the hull's (T, N, A); no solver is needed.

    Raises
    ------
    ModelError
        When the prices have another shape.
    """
    transition, reward = require_tabular(problem.dynamics, "scores of arms")
    each = (len(transition), transition.shape[1])
    rounds = problem.horizon if arm_prices.ndim == 3 else None
    if arm_prices.shape != (each if rounds is None else (rounds, *each)):
        raise ModelError(f"prices have shape {arm_prices.shape}", f"give {each} or {(problem.horizon, *each)}.")
    factor = problem.discount if rounds else _steady_discount(problem) if discount is None else discount
    q, _ = priced_action_values(transition, reward, arm_prices, discount=factor, horizon=rounds)
    return ScoreTable(_relative(q), "lagrangian")


@register("rule", "lp_index")
def lp_index(problem: Problem, actions: ActionSet, *, found: Bound | None = None) -> ScoreTable:
    """Action values under the time-indexed bound's prices, one table a round.

    Parameters
    ----------
    found
        A time-indexed bound computed before; computed here by default.

    References
    ----------
    Gast, Gaujal, Yan (2024).
    """
    transition, reward = require_tabular(problem.dynamics, "scores of arms")
    found = bound(problem, actions) if found is None else found
    q, _ = priced_action_values(
        transition, reward, found.arm_prices, discount=problem.discount, horizon=problem.horizon
    )
    return ScoreTable(_relative(q), "lp_index", bound=found)


@register("rule", "hull_index")
def hull_index(problem: Problem, actions: ActionSet) -> ScoreTable:
    """Action values under the prices of the hull of allowed actions, one table a round; see :mod:`.hull`."""
    table = lp_index(problem, actions, found=bound(problem, actions.lasting, coupling="hull"))
    return ScoreTable(table.values, "hull_index", bound=table.bound)


def _with_occupancy(problem: Problem, actions: ActionSet, found: Bound | None) -> Bound:
    if found is not None and found.occupancy is not None:
        return found
    return bound(problem, actions.lasting, occupancy=True)


def _probability(occupancy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pi(a | s) of an occupancy and where it is defined, shapes (..., S, A) and (..., S)."""
    total = occupancy.sum(axis=-1, keepdims=True)
    seen = total[..., 0] > 1e-9
    return np.where(total > 1e-9, occupancy / np.maximum(total, 1e-9), 0.0), seen


def _unit_scale(values: np.ndarray) -> np.ndarray:
    return values / (float(np.abs(values).max()) or 1.0)


@register("rule", "lp_priority")
def lp_priority(problem: Problem, actions: ActionSet, *, found: Bound | None = None) -> ScoreTable:
    """States by what the linear program does there: always act, then sometimes, then never; ties by priced gain.

    References
    ----------
    Verloop (2016), with its tie rule by reduced cost; time-indexed here.
    """
    transition, reward = require_tabular(problem.dynamics, "scores of arms")
    found = _with_occupancy(problem, actions, found)
    assert found.occupancy is not None
    q, _ = priced_action_values(
        transition, reward, found.arm_prices, discount=problem.discount, horizon=problem.horizon
    )
    gain = _relative(q)
    reduced = gain - found.arm_prices[:, :, None, :]
    chance, seen = _probability(found.occupancy)
    # Where the program never is, complementary slackness says what it would do: act where the priced gain is best.
    best = reduced.max(axis=-1, keepdims=True)
    chance = np.where(seen[..., None], chance, (reduced >= best - 1e-9 * np.abs(q).max()).astype(float))
    group = np.where(chance > 1.0 - 1e-6, 2.0, np.where(chance > 1e-6, 1.0, 0.0))
    rank = 0.5 + 0.49 * np.tanh(reduced / (float(np.abs(reduced).mean()) or 1.0))
    table = np.where((group == 0) & (gain <= 0), rank - 1.0, group + rank)
    table[..., 0] = 0.0
    return ScoreTable(table, "lp_priority", bound=found)


@register("rule", "occupancy_index")
def occupancy_index(problem: Problem, actions: ActionSet, *, found: Bound | None = None) -> ScoreTable:
    """Probability with which the linear program acts in a state, ties by the action's value.

    References
    ----------
    Xiong, Li, Singh (2022); its reward factor is replaced by action values, which rank the many ties.
    """
    transition, reward = require_tabular(problem.dynamics, "scores of arms")
    found = _with_occupancy(problem, actions, found)
    assert found.occupancy is not None
    q, _ = priced_action_values(
        transition, reward, found.arm_prices, discount=problem.discount, horizon=problem.horizon
    )
    chance, _ = _probability(found.occupancy)
    chance[..., 0] = 0.0
    return ScoreTable(chance + TIE_BREAK * _unit_scale(_relative(q)), "occupancy_index", bound=found)


@register("rule", "whittle")
def whittle(problem: Problem, actions: ActionSet, *, discount: float | None = None, finite: bool = False) -> ScoreTable:
    """Whittle indices of two-action arms: stationary ones for all rounds, or one table a round.

    Raises
    ------
    ModelError
        When arms have more than two actions; ``multi_action_whittle`` takes ordered levels.
    """
    own = getattr(problem.dynamics, "whittle_indices", None)
    if own is not None and not finite:
        # Dynamics that know their index in closed form say so; they need no table.
        values = own(problem.discount if discount is None else discount)
        return ScoreTable(np.stack([np.zeros_like(values), values], axis=2)[None], "whittle")
    transition, reward = require_tabular(problem.dynamics, "scores of arms")
    if finite:
        found = whittle_indices(
            transition, reward, discount=problem.discount, criterion="finite", horizon=problem.horizon
        )
        values = found.values
    else:
        factor = _steady_discount(problem) if discount is None else discount
        found = whittle_indices(transition, reward, discount=factor)
        values = found.values[None]
    table = np.zeros((*values.shape, 2))
    table[..., 1] = values
    odd = int((~found.indexable).sum())
    note = f"{odd} of {len(found.indexable)} arms are not indexable; theirs is a charge where acting turns to resting"
    return ScoreTable(table, "whittle", note if odd else "")


@register("rule", "multi_action_whittle")
def multi_action_whittle(
    problem: Problem, actions: ActionSet, *, discount: float | None = None, cost: np.ndarray | None = None
) -> ScoreTable:
    """Fair charges of ordered levels, summed up to each level: with falling charges the best sum raises greedily."""
    transition, reward = require_tabular(problem.dynamics, "scores of arms")
    factor = _steady_discount(problem) if discount is None else discount
    found = whittle_levels(transition, reward, discount=factor, cost=cost)
    n_arms, n_actions = transition.shape[:2]
    use = np.arange(n_actions, dtype=float) if cost is None else np.asarray(cost, dtype=float)
    step = np.diff(np.broadcast_to(use, (n_arms, n_actions)), axis=1)
    table = np.zeros((1, *reward.shape))
    table[0, :, :, 1:] = np.cumsum(found.values * step[:, None, :], axis=2)
    odd = int((~found.indexable).sum())
    note = f"{odd} of {n_arms} arms are not fully indexable" if odd else ""
    return ScoreTable(table, "multi_action_whittle", note)


@register("rule", "static")
def static(problem: Problem, actions: ActionSet) -> ScoreTable:
    """One constant choice: the value of always taking an action over never acting, averaged over the start."""
    transition, reward = require_tabular(problem.dynamics, "scores of arms")
    n_arms, n_actions, n_states, _ = transition.shape
    value = np.zeros((n_arms, n_actions, n_states))
    for _ in range(problem.horizon):
        value = reward.transpose(0, 2, 1) + problem.discount * np.matmul(transition, value[..., None])[..., 0]
    worth = np.einsum("nas,ns->na", value, problem.start_distribution)
    table = np.broadcast_to(_relative(worth)[None, :, None, :], (1, n_arms, n_states, n_actions)).copy()
    return ScoreTable(table, "static")


# ---------------------------------------------------------------------------------------------------------------------
# Stateful rules


@register("rule", "lp_update")
class LpUpdate:
    """Each round solves the next ``window`` rounds' program from the actual states and ranks by its action values.

    Beyond the window stand the values of the time-indexed bound, so the end of the horizon is respected. Where
    columns act on several arms or share them, both programs are the hull's.

    Parameters
    ----------
    beyond
        False values what lies beyond the window at nothing: with a window of two, this round's reward and what the
        next round can still bring (policy ``two_step``).

    References
    ----------
    Gast, Gaujal, Yan (2024); Gast, Narasimha (2024); Narasimha, Gast (2025).
    """

    def __init__(
        self,
        problem: Problem,
        actions: ActionSet,
        *,
        window: int = 6,
        found: Bound | None = None,
        tolerance: float = 1e-4,
        beyond: bool = True,
    ) -> None:
        if window < 1:
            raise ModelError(f"window is {window}", "look at least one round ahead.")
        self.problem, self.window, self.tolerance, self.beyond = problem, window, tolerance, beyond
        self.transition, self.reward = require_tabular(problem.dynamics, "scores of arms")
        n_arms, n_states, n_actions = self.reward.shape
        self.oracle = ActionOracle(actions, n_actions) if shared_arms(actions.columns) else None
        if self.oracle is None:
            rows = polyhedron(actions, n_actions)
            self.rows = rows.coupling(n_arms, n_actions) or rows
        self.found = found
        self.ahead = np.zeros((problem.horizon + 1, n_arms, n_states))
        if beyond:
            self.found = bound(problem, actions) if found is None else found
            _, self.ahead = priced_action_values(
                self.transition,
                self.reward,
                self.found.arm_prices,
                discount=problem.discount,
                horizon=problem.horizon,
            )
        self._key: bytes | None = None
        self._scores = np.zeros(0)

    def scores(
        self,
        state: np.ndarray,
        period: int,
        rng: np.random.Generator | None = None,
        shared: np.ndarray | None = None,
    ) -> np.ndarray:
        """Scores of the arms now, (N, A)."""
        period = min(period, self.problem.horizon - 1)
        state = np.asarray(state, dtype=np.int64)
        key = state.tobytes() + bytes([period % 251])
        if key == self._key:
            return self._scores
        ends = min(period + self.window, self.problem.horizon)
        terminal = self.ahead[ends]
        q, _ = priced_action_values(
            self.transition,
            self.reward,
            self._prices(state, period, ends, terminal),
            discount=self.problem.discount,
            horizon=ends - period,
            terminal=terminal,
        )
        self._scores = _relative(q[0][np.arange(len(state)), state])
        self._key = key
        return self._scores

    def _prices(self, state: np.ndarray, period: int, ends: int, terminal: np.ndarray) -> np.ndarray:
        """Prices of arm-actions in the window, (ends - period, N, A)."""
        if self.oracle is not None:
            begin = None if self.found is None else self.found.arm_prices[period:ends]
            return hull_bound(
                self.transition,
                self.reward,
                np.eye(self.reward.shape[1])[state],
                self.oracle,
                horizon=ends - period,
                discount=self.problem.discount,
                prices=begin,
                terminal=terminal,
                tolerance=10 * self.tolerance,
            ).prices
        begin = None
        if self.found is not None and self.found.prices is not None:
            begin = self.found.prices[period:ends]
        return bound_arrays(
            self.transition,
            self.reward,
            state,
            self.rows,
            horizon=ends - period,
            discount=self.problem.discount,
            tolerance=self.tolerance,
            prices=begin,
            terminal=terminal,
            certify=False,
        ).arm_prices


@register("rule", "two_step")
class TwoStep(LpUpdate):
    """This round's expected reward and the best that the next round can bring in expectation, nothing beyond.

    max over allowed a of the sum over arms of r(s_n, a_n) + discount * E max over b of [r(s'_n, b) - mu[n, b]]: the
    next round's competition is replaced by the prices mu of the two-round program from the actual states, so that
    the look-ahead is a sum over arms and one program over this round's allowed actions finds its best exactly. The
    last round is myopic.
    """

    def __init__(self, problem: Problem, actions: ActionSet) -> None:
        super().__init__(problem, actions, window=2, beyond=False)


@register("rule", "random_assignment")
class RandomAssignment:
    """Each arm draws its action from the linear program's own randomisation; the constraints drop the excess.

    References
    ----------
    Zayas-Cabán, Jasin, Wang (2019).
    """

    def __init__(self, problem: Problem, actions: ActionSet, *, found: Bound | None = None) -> None:
        transition, reward = require_tabular(problem.dynamics, "scores of arms")
        self.found = _with_occupancy(problem, actions, found)
        assert self.found.occupancy is not None
        q, _ = priced_action_values(
            transition, reward, self.found.arm_prices, discount=problem.discount, horizon=problem.horizon
        )
        self.gain = TIE_BREAK * _unit_scale(_relative(q))
        chance, seen = _probability(self.found.occupancy)
        reduced = _relative(q) - self.found.arm_prices[:, :, None, :]
        greedy = np.eye(chance.shape[-1])[reduced.argmax(axis=-1)]
        self.cumulative = np.cumsum(np.where(seen[..., None], chance, greedy), axis=-1)
        self.cumulative[..., -1] = 1.0

    def drawn(self, state: np.ndarray, period: int, rng: np.random.Generator | None) -> np.ndarray:
        """One action an arm, (N,), before any constraint."""
        if rng is None:
            raise ModelError("this rule draws actions", "give it a random generator.")
        period = min(period, len(self.cumulative) - 1)
        arm = np.arange(len(state))
        return (rng.random(len(state))[:, None] >= self.cumulative[period][arm, state]).sum(axis=1)

    def scores(
        self,
        state: np.ndarray,
        period: int,
        rng: np.random.Generator | None = None,
        shared: np.ndarray | None = None,
    ) -> np.ndarray:
        """1 for the drawn action, -1 for other actions, 0 for resting; ties by action value."""
        state = np.asarray(state, dtype=np.int64)
        arm = np.arange(len(state))
        action = self.drawn(state, period, rng)
        result = np.full((len(state), self.cumulative.shape[-1]), -1.0)
        result[arm, action] = 1.0 + self.gain[min(period, len(self.gain) - 1)][arm, state, action]
        result[:, 0] = 0.0
        return result


@register("rule", "id")
class IdentityOrder(RandomAssignment):
    """The drawn actions go to arms in one fixed order while the limits last.

    The order spreads expected use evenly, so that every prefix of arms carries its share of the limits; that makes
    the loss grow as the square root of the number of arms even when all arms differ.

    References
    ----------
    Hong et al. (2024); Zhang, Hong, Wang (2025).
    """

    def __init__(self, problem: Problem, actions: ActionSet, *, found: Bound | None = None) -> None:
        super().__init__(problem, actions, found=found)
        assert self.found.occupancy is not None
        use = self.found.occupancy[..., 1:].sum(axis=(0, 2, 3))
        by_use = np.argsort(use, kind="stable")
        # Bit reversal visits the sorted arms evenly: each prefix holds small and large users in proportion.
        bits = max(1, int(np.ceil(np.log2(max(2, len(use))))))
        position = np.arange(1 << bits)
        reverse = np.zeros_like(position)
        for bit in range(bits):
            reverse |= ((position >> bit) & 1) << (bits - 1 - bit)
        self.order = by_use[reverse[reverse < len(use)]]
        self.weight = np.empty(len(use))
        self.weight[self.order] = 2.0 - np.arange(len(use)) / max(1, len(use))

    def scores(
        self,
        state: np.ndarray,
        period: int,
        rng: np.random.Generator | None = None,
        shared: np.ndarray | None = None,
    ) -> np.ndarray:
        """Weights that fall along the order for the drawn action, -1 for other actions, 0 for resting."""
        state = np.asarray(state, dtype=np.int64)
        action = self.drawn(state, period, rng)
        result = np.full((len(state), self.cumulative.shape[-1]), -1.0)
        result[np.arange(len(state)), action] = self.weight
        result[:, 0] = 0.0
        return result
