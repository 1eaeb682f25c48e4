"""Improving on constant actions: one round other than the best of them, or the best of them chosen anew each round."""

from __future__ import annotations

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.overdue import checkpoint
from rmab_opt.planning.hull import ActionOracle
from rmab_opt.planning.scores import ScoreTable, static
from rmab_opt.problem import Problem
from rmab_opt.problem.dynamics import require_tabular
from rmab_opt.registry import register

__all__ = ["constant_action", "open_loop", "open_loop_values", "rollout", "rollout_values"]


def constant_action(problem: Problem, actions: ActionSet) -> np.ndarray:
    """The allowed action, int (C,), that is best when it is played in every round.

    Arms interact only through what is allowed, so the value of a constant action is the sum of its arms', each
    exact over the horizon and averaged over its start; the best of all allowed actions is found by listing small
    sets, else by one program.

    Raises
    ------
    SolverError
        When the program is not solved.
    """
    # The static table ranks an arm's actions whatever its state: any state's entries tell them.
    worth = static(problem, actions).values[0][:, 0]
    return ActionOracle(actions, worth.shape[1]).action(worth)


@register("rule", "rollout")
def rollout(problem: Problem, actions: ActionSet) -> ScoreTable:
    """Scores of :func:`rollout_values`, passive 0: one policy improvement on the constant action.

    The constant action is an allowed plan, so the roll-out policy is never worse than it in expectation.

    Raises
    ------
    CapabilityError
        When the dynamics offer no tables.

    References
    ----------
    Bertsekas, *Dynamic Programming and Optimal Control*: roll-out as one policy iteration.
    """
    table = rollout_values(problem, actions)
    return ScoreTable(table - table[..., :1], "rollout")


@register("rule", "open_loop")
def open_loop(problem: Problem, actions: ActionSet) -> ScoreTable:
    """Scores of :func:`open_loop_values`, passive 0: the best constant action from here, chosen anew each round.

    Every round's choice is at least as good a plan for the rest as the one before it, so the policy is never worse than
    the best constant action in expectation.

    Raises
    ------
    CapabilityError
        When the dynamics offer no tables.

    References
    ----------
    Bertsekas, *Dynamic Programming and Optimal Control*: open-loop feedback control.
    """
    table = open_loop_values(problem)
    return ScoreTable(table - table[..., :1], "open_loop")


def open_loop_values(problem: Problem) -> np.ndarray:
    """Value of an action kept from this round to the end, (T, N, S, A).

    Q[t, n, s, a] = r[n, s, a] + discount * sum over s' of P[n, a, s, s'] Q[t + 1, n, s', a], nothing after the last
    round; exact, because arms interact only through what is allowed.
    """
    transition, reward = require_tabular(problem.dynamics, "policy 'open_loop'")
    paid = reward.transpose(0, 2, 1)
    value = np.zeros(paid.shape)
    table = np.empty((problem.horizon, *reward.shape))
    for period in range(problem.horizon - 1, -1, -1):
        checkpoint()
        value = paid + problem.discount * np.matmul(transition, value[..., None])[..., 0]
        table[period] = value.transpose(0, 2, 1)
    return table


def rollout_values(problem: Problem, actions: ActionSet) -> np.ndarray:
    """Value of acting now and playing the best constant action from the next round on, (T, N, S, A).

    Q[t, n, s, a] = r[n, s, a] + discount * sum over s' of P[n, a, s, s'] V[t + 1, n, s'], with V the value of
    the constant action; exact, because arms interact only through what is allowed.
    """
    transition, reward = require_tabular(problem.dynamics, "policy 'rollout'")
    chosen = actions.columns.arm_action(constant_action(problem, actions))
    arm = np.arange(problem.n_arms)
    stay, paid = transition[arm, chosen], reward[arm, :, chosen]
    value = np.zeros(paid.shape)
    table = np.empty((problem.horizon, *reward.shape))
    for period in range(problem.horizon - 1, -1, -1):
        checkpoint()
        table[period] = reward + problem.discount * np.einsum("nast,nt->nsa", transition, value)
        value = paid + problem.discount * np.einsum("nst,nt->ns", stay, value)
    return table
