"""Seeded random cohorts with several actions an arm: easy, hard (delayed effect) and unstructured ones.

Draws follow one written order from ``numpy.random.default_rng(seed)``, so that published reference values hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.instances import Instance, domain
from rmab_opt.problem import Arms, Problem, Tabular

__all__ = ["Cohort", "delayed", "ladder_mix", "unstructured"]


@dataclass(frozen=True, eq=False)
class Cohort:
    """Arms and the state each of them starts in, int64 (N,)."""

    dynamics: Tabular
    start: np.ndarray


def _steps(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Ladder kernels (N, A, S, S) from probabilities of shape (N, S, A); steps off the ends stay."""
    n_arms, n_states, n_actions = up.shape
    kernel = np.zeros((n_arms, n_actions, n_states, n_states))
    state = np.arange(n_states)
    for target, chance in (
        (np.minimum(state + 1, n_states - 1), up),
        (np.maximum(state - 1, 0), down),
        (state, 1.0 - up - down),
    ):
        kernel[:, :, state, target] += chance.transpose(0, 2, 1)
    return kernel


def _demand(n_arms: int, n_states: int, n_actions: int) -> None:
    if n_arms < 1 or n_states < 2 or n_actions < 2:
        raise ModelError(
            f"{n_arms} arms, {n_states} states, {n_actions} actions", "give at least 1 arm, 2 states, 2 actions."
        )


def ladder_mix(n_arms: int, n_states: int, n_actions: int, seed: int) -> Cohort:
    """Easy arms: a ladder that actions push up, mixed 3 to 1 with an unstructured kernel; higher states pay more."""
    _demand(n_arms, n_states, n_actions)
    rng = np.random.default_rng(seed)
    down = rng.uniform(0.15, 0.5, n_arms)
    up = rng.uniform(0.02, 0.2, n_arms)
    effect = np.zeros((n_arms, n_actions))
    for action in range(1, n_actions):
        effect[:, action] = rng.uniform(0.2, 0.45, n_arms) * action
    pay = rng.uniform(0.5, 1.5, n_arms)
    mixed = rng.dirichlet(np.ones(n_states), (n_arms, n_states, n_actions))
    start = rng.integers(0, n_states, n_arms)
    rise = np.clip(up[:, None] + effect, 0.0, 0.95)[:, None, :].repeat(n_states, axis=1)
    fall = down[:, None, None] * (1.0 - rise)
    transition = 0.75 * _steps(rise, fall) + 0.25 * mixed.transpose(0, 2, 1, 3)
    reward = pay[:, None] * np.arange(n_states) / (n_states - 1)
    return Cohort(Tabular(transition, reward), start)


def delayed(n_arms: int, n_states: int, n_actions: int, seed: int) -> Cohort:
    """Hard arms: effort pays only near the top of a ladder that must be climbed first; myopic rules fail.

    Action a has strength 0.6 for a = 1 and 1 for a = 2 (and above) out of the arm's own effect.
    """
    _demand(n_arms, n_states, n_actions)
    rng = np.random.default_rng(seed)
    down = rng.uniform(0.05, 0.4, n_arms)
    up = rng.uniform(0.0, 0.25, n_arms)
    strength = np.array([0.0, 0.6, *[1.0] * max(0, n_actions - 2)])[:n_actions]
    effect = rng.uniform(0.3, 0.9, (n_arms, 1, n_actions)) * strength * rng.uniform(0.1, 1.0, (n_arms, n_states, 1))
    pay = rng.uniform(0.5, 1.5, n_arms)
    start = rng.integers(0, n_states, n_arms)
    rise = np.minimum(up[:, None, None] + effect, 0.95)
    fall = down[:, None, None] * (1.0 - rise)
    fall[:, -1] *= 0.2
    reward = np.zeros((n_arms, n_states))
    reward[:, -1] = pay
    reward[:, -2] = 0.1 * pay
    return Cohort(Tabular(_steps(rise, fall), reward), start)


def unstructured(n_arms: int, n_states: int, n_actions: int, seed: int) -> Cohort:
    """Arms without structure: Dirichlet(0.5) rows, sorted uniform rewards."""
    _demand(n_arms, n_states, n_actions)
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(n_states, 0.5), (n_arms, n_states, n_actions)).transpose(0, 2, 1, 3)
    reward = np.sort(rng.uniform(0.0, 1.0, (n_arms, n_states)), axis=1)
    return Cohort(Tabular(transition, reward), rng.integers(0, n_states, n_arms))


def _register(name: str, make: Callable[[int, int, int, int], Cohort]) -> None:
    """Offer a generator to model files as ``problem: {domain: NAME, ...}``."""

    def generate(
        *,
        n_arms: int = 50,
        n_states: int = 4,
        n_actions: int = 3,
        horizon: int = 50,
        discount: float = 1.0,
        seed: int = 0,
    ) -> Instance:
        cohort = make(n_arms, n_states, n_actions, seed)
        problem = Problem(Arms.from_arrays(n_arms), cohort.dynamics, horizon, discount, cohort.start)
        return Instance(problem, {})

    generate.__doc__ = make.__doc__
    domain(name)(generate)


for _generator in (delayed, ladder_mix, unstructured):
    _register(_generator.__name__, _generator)
