"""Seeded instances of the published equity settings: groups of arms that respond unequally to the same care.

Rewards are paid for the state a round begins in, before the arm moves, so the last round's actions earn nothing.
The group of every arm is the column ``group`` of its cohort table; the tables behind the arms are the CSV files in
``data/``. Draws follow the legacy generator that the published instances were made with, so that seed 0 gives them.

References
----------
Killian, Jain, Jia, Amar, Huang, Tambe, "Equitable Restless Multi-Armed Bandits" (2023), and its released data files.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.instances import Instance, domain
from rmab_opt.problem import Arms, Problem, Table, Tabular

__all__ = ["digital_diabetes", "equity_synthetic", "group_blocks", "maternal_health"]

PLANNING_DISCOUNT = 0.9999
"""So close to one that it only breaks ties; published totals are undiscounted."""

MATERNAL_COLUMNS = ("keep_rest", "keep_act", "fall_rest", "rise_act", "lost_rest", "lost_act")
DIABETES_COLUMNS = ("pME", "pMD1", "pMD0", "pEE", "qE0", "qE1", "q0", "q1")
"""Parameters in the order in which the published instances draw them."""


def group_blocks(n_arms: int, shares: np.ndarray) -> np.ndarray:
    """Group of every arm, int64 (N,): consecutive blocks of floor(N share); what flooring leaves over joins group 0."""
    if n_arms < 1:
        raise ModelError(f"n_arms is {n_arms}", "give at least one arm.")
    sizes = np.floor(n_arms * shares + 1e-9).astype(np.int64)
    group = np.repeat(np.arange(len(shares)), sizes)
    return np.concatenate([group, np.zeros(n_arms - len(group), dtype=np.int64)])


def _table(name: str) -> Table:
    return Table.from_csv(Path(str(files("rmab_opt.settings.equity"))) / "data" / f"{name}.csv")


def _noisy(means: np.ndarray, width: float, lowest: float, highest: float, rng: np.random.RandomState) -> np.ndarray:
    """Parameters of every arm around its group's, drawn arm by arm; ``means`` (N, P)."""
    drawn = rng.normal(means, width * np.minimum(means, 1.0 - means))
    return np.clip(drawn, lowest, highest)


def _demand(noise: float, horizon: int) -> None:
    if not 0.0 <= noise <= 1.0 or horizon < 1:
        raise ModelError(f"noise {noise}, horizon {horizon}", "give noise in [0, 1] and at least one round.")


@domain("equity_synthetic")
def equity_synthetic(
    *, n_arms: int = 100, horizon: int = 20, discount: float = PLANNING_DISCOUNT, seed: int = 0
) -> Instance:
    """Two-state arms in five groups, of which two do not respond at all; uniform start. ``seed`` changes nothing."""
    _demand(0.0, horizon)
    table = _table("equity_synthetic")
    group = group_blocks(n_arms, table.numbers("share"))
    good = np.stack([[table.numbers(f"{a}_{s}") for s in (0, 1)] for a in ("rest", "act")])
    chance = good[:, :, group].transpose(2, 0, 1)
    transition = np.stack([1.0 - chance, chance], axis=-1)
    dynamics = Tabular(transition, np.tile([0.0, 1.0], (n_arms, 1)), state_names=("bad", "good"))
    names = table.text("group")
    arms = Arms.from_arrays(n_arms, group=[names[g] for g in group])
    return Instance(Problem(arms, dynamics, horizon, discount, np.full((n_arms, 2), 0.5)), {})


@domain("maternal_health")
def maternal_health(
    *,
    n_arms: int = 200,
    large: str = "A",
    noise: float = 0.2,
    horizon: int = 20,
    discount: float = PLANNING_DISCOUNT,
    seed: int = 0,
) -> Instance:
    """Three-state arms: only persuadable mothers respond to a call; uniform start.

    Parameters
    ----------
    large
        Group that holds 60 % of the cohort; the other two hold 20 % each.
    noise
        Spread of an arm's parameters as a share of their distance to 0 or 1; 0 gives the group means.
    seed
        Of the arms' parameters.
    """
    _demand(noise, horizon)
    table = _table("maternal_health")
    names = table.text("group")
    if large not in names:
        raise ModelError(f"large is {large!r}", f"name one of {', '.join(names)}.")
    group = group_blocks(n_arms, np.where(np.array(names) == large, 0.6, 0.2))
    means = np.stack([table.numbers(column) for column in MATERNAL_COLUMNS], axis=1)[group]
    drawn = _noisy(means, noise, 0.001, 0.999, np.random.RandomState(seed))
    keep, move, lost = drawn[:, 0:2], drawn[:, 2:4], drawn[:, 4:6]
    transition = np.zeros((n_arms, 2, 3, 3))
    transition[:, :, 0, 0] = keep
    transition[:, 0, 1, 2], transition[:, 1, 1, 0] = move[:, 0], move[:, 1]
    transition[:, :, 2, 2] = lost
    transition[:, :, :, 1] = 1.0 - transition.sum(axis=3)
    dynamics = Tabular(
        transition,
        np.tile([1.0, 0.5, 0.0], (n_arms, 1)),
        state_names=("self-motivated", "persuadable", "lost cause"),
    )
    arms = Arms.from_arrays(n_arms, group=[names[g] for g in group])
    return Instance(Problem(arms, dynamics, horizon, discount, np.full((n_arms, 3), 1.0 / 3.0)), {})


@domain("digital_diabetes")
def digital_diabetes(
    *,
    n_arms: int = 300,
    alpha: float = 0.5,
    noise: float = 0.5,
    weak: int = 0,
    horizon: int = 20,
    discount: float = PLANNING_DISCOUNT,
    seed: int = 0,
) -> Instance:
    """Patients of a digital programme: engagement x clinical state x two months of memory, 24 states.

    State (e, c, m0, m1): e in dropout, maintenance, engaged; c whether A1c is below 8; m0 and m1 whether the patient
    was engaged one and two months ago, as 1 (no) or 2 (yes). Engagement acts on A1c two months later.

    Parameters
    ----------
    alpha
        Reward is alpha for being in the programme plus 1 - alpha for A1c below 8.
    noise
        Spread of an arm's parameters, then clipped to [0.025, 0.975]; 0 gives the group means, not clipped.
    weak
        1 uses the second data file, in which group 3 hardly responds.
    seed
        Of the arms' parameters.
    """
    _demand(noise, horizon)
    if not 0.0 <= alpha <= 1.0 or weak not in (0, 1):
        raise ModelError(f"alpha {alpha}, weak {weak}", "give alpha in [0, 1] and weak 0 or 1.")
    table = _table("digital_diabetes_weak" if weak else "digital_diabetes")
    group = group_blocks(n_arms, table.numbers("share"))
    means = np.stack([table.numbers(column) for column in DIABETES_COLUMNS], axis=1)[group]
    if noise > 0:
        means = _noisy(means, noise, 0.025, 0.975, np.random.RandomState(seed))
    transition = diabetes_kernel(*means.T)
    engaged, clinical = np.divmod(np.arange(24) // 4, 2)
    reward = alpha * (engaged >= 1) + (1.0 - alpha) * (clinical == 1)
    names = tuple(
        f"{e}/{c}/{m0}{m1}"
        for e in ("dropout", "maintenance", "engaged")
        for c in ("high", "low")
        for m0 in (1, 2)
        for m1 in (1, 2)
    )
    dynamics = Tabular(transition, np.tile(reward, (n_arms, 1)), state_names=names)
    arms = Arms.from_arrays(n_arms, **{name: [table.text(name)[g] for g in group] for name in ("group", "sex", "age")})
    start = np.full(n_arms, names.index("engaged/high/11"))
    return Instance(Problem(arms, dynamics, horizon, discount, start), {})


def diabetes_kernel(
    pME: np.ndarray,
    pMD1: np.ndarray,
    pMD0: np.ndarray,
    pEE: np.ndarray,
    qE0: np.ndarray,
    qE1: np.ndarray,
    q0: np.ndarray,
    q1: np.ndarray,
) -> np.ndarray:
    """Kernel (N, 2, 24, 24) as the product of engagement, clinical and memory moves; each parameter (N,)."""
    n_arms = len(pME)
    engagement = np.zeros((n_arms, 2, 3, 3))
    engagement[:, :, 0, 0] = 1.0
    engagement[:, 0, 1, 0], engagement[:, 0, 1, 1] = pMD0, 1.0 - pMD0
    engagement[:, 1, 1, 0], engagement[:, 1, 1, 2] = pMD1, pME
    engagement[:, 1, 1, 1] = np.maximum(1.0 - pME - pMD1, 0.0)
    engagement[:, 0, 2, 1] = 1.0
    engagement[:, 1, 2, 1], engagement[:, 1, 2, 2] = 1.0 - pEE, pEE
    # Some drawn arms have pME + pMD1 > 1: the remainder is cut at 0 and the row scaled back to one.
    engagement /= engagement.sum(axis=3, keepdims=True)
    # Chance of a low A1c, [arm, c, m1].
    low = np.stack([np.stack([q0, qE0], axis=1), np.stack([q1, qE1], axis=1)], axis=1)
    clinical = np.stack([1.0 - low, low], axis=-1)
    recalled = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    moved = np.einsum("naex,ncqy,ew,pz->naecpqxywz", engagement, clinical, recalled, np.eye(2))
    return np.ascontiguousarray(moved.reshape(n_arms, 2, 24, 24))
