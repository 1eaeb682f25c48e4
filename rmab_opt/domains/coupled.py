"""Seeded instances of the published coupled settings: arms that climb a ladder under shared workers.

References
----------
Xu, Wilder, Khalil, Tambe (ICLR 2025); the released code's distributions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.problem import Arms, Ladder, Problem, Table

__all__ = ["DOMAINS", "Instance", "budget", "capacity", "scheduling"]

START_PROBABILITY = 0.2
"""Each arm starts in state 1 with this probability, else in 0."""


@dataclass(frozen=True)
class Instance:
    """A generated problem with the tables its constraints refer to by name."""

    problem: Problem
    tables: dict[str, Table]


DOMAINS: dict[str, Callable[..., Instance]] = {}
"""Generators by the name that model files use."""


def domain(name: str) -> Callable[[Callable[..., Instance]], Callable[..., Instance]]:
    """Register a generator."""

    def register(make: Callable[..., Instance]) -> Callable[..., Instance]:
        DOMAINS[name] = make
        return make

    return register


def _ladder(n_arms: int, n_valuable: int, rng: np.random.Generator) -> Ladder:
    """Four-state arms; the first ``n_valuable`` lose reward on the way up to a large last rung, the others do not."""
    up = np.stack([rng.uniform(0.0, 0.2, n_arms), rng.uniform(0.7, 0.9, n_arms)], axis=1)
    valuable = np.arange(n_arms) < n_valuable
    top = np.where(valuable, rng.choice([4.0, 5.0, 6.0], n_arms), rng.choice([1.0, 2.0, 3.0], n_arms))
    lower = np.where(valuable[:, None], [0.20, 0.15, 0.10], [0.10, 0.15, 0.20])
    return Ladder(up, np.concatenate([lower, top[:, None]], axis=1))


def _problem(arms: Arms, dynamics: Ladder, horizon: int, discount: float) -> Problem:
    start = np.zeros((len(arms), dynamics.n_states))
    start[:, 0], start[:, 1] = 1.0 - START_PROBABILITY, START_PROBABILITY
    return Problem(arms, dynamics, horizon=horizon, discount=discount, start=start)


def _check(n_arms: int, n_workers: int) -> None:
    if n_arms < 1 or n_workers < 1:
        raise ModelError(f"n_arms {n_arms}, n_workers {n_workers}", "give at least one of each.")


@domain("budget")
def budget(
    *, n_arms: int = 20, n_valuable: int = 5, horizon: int = 20, discount: float = 1.0, seed: int = 0
) -> Instance:
    """Published arms without further structure; ``n_valuable`` plays the part of the published budget."""
    _check(n_arms, max(1, n_valuable))
    dynamics = _ladder(n_arms, n_valuable, np.random.default_rng(seed))
    return Instance(_problem(Arms.from_arrays(n_arms), dynamics, horizon, discount), {})


@domain("scheduling")
def scheduling(
    *, n_arms: int = 20, n_workers: int = 5, n_slots: int = 5, horizon: int = 20, discount: float = 1.0, seed: int = 0
) -> Instance:
    """Arms available in two slots, workers on duty in three; arms prefer late slots, workers early ones."""
    _check(n_arms, n_workers)
    if n_slots < 3:
        raise ModelError(f"n_slots is {n_slots}", "give at least 3, every worker is on duty in three.")
    arm_seed, slot_seed = np.random.SeedSequence(seed).spawn(2)
    rng = np.random.default_rng(slot_seed)
    names = [f"slot{k + 1}" for k in range(n_slots)]
    late, early = np.sort(rng.random(n_slots)), np.sort(rng.random(n_slots))[::-1]

    def draw(size: int, popularity: np.ndarray) -> list[str]:
        return [names[k] for k in sorted(rng.choice(n_slots, size, replace=False, p=popularity / popularity.sum()))]

    cells = [";".join(draw(2, late)) for _ in range(n_arms)]
    duty = [(f"worker{i + 1}", slot) for i in range(n_workers) for slot in draw(3, early)]
    roster = Table({"worker": [worker for worker, _ in duty], "slot": [slot for _, slot in duty]}, source="roster")
    dynamics = _ladder(n_arms, n_workers, np.random.default_rng(arm_seed))
    return Instance(_problem(Arms.from_arrays(n_arms, slots=cells), dynamics, horizon, discount), {"roster": roster})


@domain("capacity")
def capacity(
    *, n_arms: int = 20, n_workers: int = 5, horizon: int = 20, discount: float = 1.0, seed: int = 0
) -> Instance:
    """Arms with loads 2 to 6, workers with capacities 2 to 7: generalised assignment without another budget."""
    _check(n_arms, n_workers)
    arm_seed, load_seed = np.random.SeedSequence(seed).spawn(2)
    rng = np.random.default_rng(load_seed)
    workers = Table(
        {"worker": [f"worker{i + 1}" for i in range(n_workers)], "capacity": rng.integers(2, 8, n_workers).tolist()},
        source="workers",
    )
    arms = Arms.from_arrays(n_arms, load=rng.integers(2, 7, n_arms).tolist())
    dynamics = _ladder(n_arms, n_workers, np.random.default_rng(arm_seed))
    return Instance(_problem(arms, dynamics, horizon, discount), {"workers": workers})
