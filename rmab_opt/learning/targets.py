"""The learner's equations, one function each, free of networks, replay and files.

With K next states s'_k of weight w_k and a target network Q', a transition (s, t, a, r) is pulled towards

    r + discount * (1 - ended) * sum over k of w_k (Q'(s'_k, t + 1, a'_k) - chance_k),

where a'_k is the best action by the network that chooses, and ``chance`` is zero unless arm values are known.

References
----------
Mnih et al. (Nature 2015), periodic target; Lillicrap et al. (ICLR 2016), soft target; van Hasselt, Guez, Silver
(AAAI 2016), double Q-learning; control variates: Glasserman (2003), section 4.1.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rmab_opt.actions import ActionSet
from rmab_opt.problem import Problem

__all__ = [
    "bellman_loss",
    "chance",
    "copy_due",
    "follow",
    "next_round",
    "reward_unit",
    "treated",
    "what_follows",
    "who_chooses",
]

UNIT_STATES = 64
"""Random states from which the reward unit is read."""

Chooses = TypeVar("Chooses")


def what_follows(values: Tensor, weight: Tensor, ended: Tensor, discount: float) -> Tensor:
    """discount * (1 - ended) * sum over k of weight_k values_k: what a transition is worth beyond its own reward.

    Parameters
    ----------
    values
        Of the next states, (B, K); or of each arm there, (B, K, N).
    weight
        Of the next states, (B, K); a row sums to one.
    ended
        1 where the horizon was reached and nothing follows, (B,).

    Returns
    -------
    Tensor
        (B,) or (B, N), in the unit of ``values``.
    """
    kept = discount * (1.0 - ended)
    if values.ndim == 3:
        return kept[:, None] * (weight[:, :, None] * values).sum(dim=1)
    return kept * (weight * values).sum(dim=1)


def who_chooses(double: bool, online: Chooses, target: Chooses) -> Chooses:
    """The network whose best action is taken as the next one; the target network values it in any case."""
    return online if double else target


def bellman_loss(
    said: tuple[Tensor | None, Tensor],
    reward: Tensor,
    follows: tuple[Tensor | None, Tensor],
    unit: tuple[float, float],
) -> Tensor:
    """Huber loss between what a network says and reward plus what follows.

    The value of a sum of arms is the sum of their values: where the network says what each arm adds, each arm learns
    from its own reward, N errors a transition instead of one; the rest learns what is left of the total.

    Parameters
    ----------
    said, follows
        (what each arm adds (B, N) or None, the rest (B,)), now and from the next round on.
    reward
        Of each arm, (B, N).
    unit
        (of one arm, of a sum over arms): errors are measured in them.
    """
    arms, rest = said
    next_arms, next_rest = follows
    if arms is None:
        error = (rest - reward.sum(dim=1) - next_rest) / unit[1]
        return nn.functional.smooth_l1_loss(error, torch.zeros_like(error))
    goal = reward if next_arms is None else reward + next_arms
    by_arm = nn.functional.smooth_l1_loss((arms - goal) / unit[0], torch.zeros_like(goal))
    left_over = (rest + (arms - goal).detach().sum(dim=1) - next_rest) / unit[1]
    return by_arm + nn.functional.smooth_l1_loss(left_over, torch.zeros_like(left_over))


def copy_due(steps: int, every: int) -> bool:
    """Whether a periodic target network is copied after so many gradient steps."""
    return steps % every == 0


def follow(moving: nn.Module, source: nn.Module, rate: float) -> None:
    """Move weights a share of the way: moving <- (1 - rate) moving + rate source."""
    with torch.no_grad():
        for target, value in zip(moving.parameters(), source.parameters(), strict=True):
            target.lerp_(value, rate)


def next_round(period: Tensor, horizon: int) -> Tensor:
    """The round whose values a next state has; the last round stands in beyond the horizon, where all is masked."""
    return (period + 1).clamp(max=horizon - 1)


def chance(values: Tensor, reached: Tensor, following: Tensor, habit: Tensor) -> Tensor:
    """What chance alone gave a next state, in known arm values: its expectation is zero, shape (B, K).

    With v_n(s') = sum over a of habit[n, a] values[n, s', a]: sum over n of v_n(s'_n) - E v_n(s'_n).

    Parameters
    ----------
    values
        Arm values of the next round, (B, N, S, A).
    reached
        Chance of each next state of each arm, (B, N, S).
    following
        Next states that were drawn, (B, K, N).
    habit
        How often each arm has been treated how, (N, A); rows sum to one.
    """
    value = torch.einsum("bnsa,na->bns", values, habit)
    expected = (reached * value).sum(dim=(1, 2))
    return torch.gather(value.transpose(1, 2), 1, following).sum(dim=2) - expected[:, None]


def treated(habit: np.ndarray, arm_action: np.ndarray, rate: float) -> np.ndarray:
    """The record of how arms are treated, (N, A), after one more round with actions (N,): an exponential average."""
    after = habit * (1.0 - rate)
    after[np.arange(len(arm_action)), arm_action] += rate
    return after


def reward_unit(problem: Problem, actions: ActionSet, rng: np.random.Generator) -> float:
    """A typical reward of one arm and round: the number that the network's outputs and errors are measured in.

    The larger of two means over random states and random allowed actions: of an arm's absolute expected reward, and of
    what acting on an arm changes in it. Passive arms alone would not do: where they earn nothing, their mean is zero.
    There is no floor, so that rewards in another unit give the same run; 1 where no reward was met.
    """
    dynamics = problem.dynamics
    state = rng.integers(dynamics.n_states, size=(UNIT_STATES, problem.n_arms))
    now = actions.at(0, problem.shared_values(problem.start_shared))
    level = actions.columns.arm_action(now.sample(rng, UNIT_STATES))
    shared = problem.start_shared
    passive = problem.expected_reward(state, np.zeros_like(state), shared)
    acted = problem.expected_reward(state, level, shared)
    typical = max(float(np.abs(passive).mean()), float(np.abs(acted).mean()))
    changed = np.abs(acted - passive)[level > 0]
    unit = max(typical, float(changed.mean()) if changed.size else 0.0)
    return unit if unit > 0.0 else 1.0
