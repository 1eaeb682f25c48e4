"""Seeded worlds of coupled arms; draws come from ``numpy.random.default_rng(seed)`` in the order of each docstring."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.instances import Instance, domain
from rmab_opt.problem import Arms, Problem, Table
from rmab_opt.settings.coupled.worlds import (
    Assortment,
    Contagion,
    Crowding,
    Influencers,
    Sessions,
    Stock,
    Tiring,
)

__all__ = ["assortment", "contagion", "crowding", "influencers", "season_stock", "sessions", "tiring"]

Start = tuple[int, ...]


def _demand_arms(n_arms: int, least: int = 1) -> None:
    if n_arms < least:
        raise ModelError(f"n_arms is {n_arms}", f"give at least {least}.")


def _rounded(values: np.ndarray, digits: int) -> np.ndarray:
    """Draws as they are (-1), or rounded, so that an instance can be typed in."""
    return values if digits < 0 else np.round(values, digits)


def _problem(
    dynamics: Any, horizon: int, discount: float, start: Any, attributes: dict[str, Any] | None = None
) -> Problem:
    cohort = Arms.from_arrays(dynamics.n_arms, worth=dynamics.worth.tolist(), **(attributes or {}))
    return Problem(cohort, dynamics, horizon, discount, start)


def _numbered(name: str, numbers: np.ndarray) -> list[str]:
    return [f"{name}{k}" for k in numbers]


@domain("contagion")
def contagion(
    *,
    n_arms: int = 20,
    villages: int = 1,
    spreaders: int | None = None,
    start: Start | None = None,
    digits: int = -1,
    horizon: int = 20,
    discount: float = 1.0,
    seed: int = 0,
) -> Instance:
    """Illness that spreads, most of it through a few arms of little worth of their own.

    Draws: worth U[.5, 1.5] of all, then susceptibility U[.7, 1.3] of all; the first ``spreaders`` (a quarter) have
    weight 5 and worth .35, the others weight .3. Arm i lives in village i mod G; of the force on a village, .85 + .15/G
    comes from its own weighted share of ill arms, .15/G from each other. Each arm starts ill with chance .4, or as
    ``start`` says.
    """
    _demand_arms(n_arms)
    if not 1 <= villages <= n_arms:
        raise ModelError(f"villages is {villages}", f"give from 1 to {n_arms}.")
    rng = np.random.default_rng(seed)
    many = n_arms // 4 if spreaders is None else spreaders
    worth = _rounded(rng.uniform(0.5, 1.5, n_arms), digits)
    worth[:many] = 0.35
    susceptible = _rounded(rng.uniform(0.7, 1.3, n_arms), digits)
    weight = np.full(n_arms, 0.3)
    weight[:many] = 5.0
    group = np.arange(n_arms) % villages
    mixing = 0.85 * np.eye(villages) + 0.15 / villages if villages > 1 else np.ones((1, 1))
    total = np.bincount(group, weight)
    reach = mixing[group[None, :], group[:, None]] * (weight / total[group])[:, None]
    dynamics = Contagion(worth, susceptible, reach, weight)
    first = np.tile([0.6, 0.4], (n_arms, 1)) if start is None else np.array(start)
    attributes = {"village": _numbered("v", group), "weight": weight.tolist()}
    return Instance(_problem(dynamics, horizon, discount, first, attributes), {})


def _visited(
    n_arms: int,
    seed: int,
    digits: int,
    success: tuple[float, float],
    up: tuple[float, float],
    stay: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Worth, success, up and stay of each arm, drawn in the order success, worth, up, stay."""
    rng = np.random.default_rng(seed)
    q = _rounded(rng.uniform(*success, n_arms), digits)
    worth = _rounded(rng.uniform(0.5, 1.5, n_arms), digits)
    low = _rounded(rng.uniform(*up, n_arms), digits)
    return worth, q, low, _rounded(rng.uniform(*stay, n_arms), digits)


def _shared_out(n_arms: int, n_groups: int) -> np.ndarray:
    if not 1 <= n_groups <= max(1, n_arms):
        raise ModelError(f"{n_groups} groups of {n_arms} arms", f"give from 1 to {n_arms}.")
    return np.arange(n_arms) * n_groups // n_arms


@domain("crowding")
def crowding(
    *,
    n_arms: int = 40,
    n_workers: int = 5,
    rho: float = 0.6,
    digits: int = -1,
    horizon: int = 20,
    discount: float = 1.0,
    seed: int = 0,
) -> Instance:
    """Visits that take from each other: q U[.5, .95], worth U[.5, 1.5], up U[.02, .15], stay U[.55, .9]."""
    _demand_arms(n_arms)
    numbers = _visited(n_arms, seed, digits, (0.5, 0.95), (0.02, 0.15), (0.55, 0.9))
    worker = _shared_out(n_arms, n_workers)
    dynamics = Crowding(*numbers, worker, rho)
    return Instance(_problem(dynamics, horizon, discount, None, {"worker": _numbered("w", worker)}), {})


@domain("sessions")
def sessions(
    *,
    n_arms: int = 40,
    n_groups: int = 5,
    least: int = 3,
    digits: int = -1,
    horizon: int = 20,
    discount: float = 1.0,
    seed: int = 0,
) -> Instance:
    """Classes held from ``least`` attendants on: q U[.5, .9], worth U[.5, 1.5], up U[.02, .12], stay U[.6, .92]."""
    _demand_arms(n_arms)
    numbers = _visited(n_arms, seed, digits, (0.5, 0.9), (0.02, 0.12), (0.6, 0.92))
    group = _shared_out(n_arms, n_groups)
    dynamics = Sessions(*numbers, group, least)
    return Instance(_problem(dynamics, horizon, discount, None, {"group": _numbered("g", group)}), {})


@domain("tiring")
def tiring(
    *,
    n_arms: int = 40,
    n_workers: int = 5,
    digits: int = -1,
    horizon: int = 20,
    discount: float = 1.0,
    seed: int = 0,
) -> Instance:
    """Workers whom visits tire: q U[.6, .95], worth U[.5, 1.5], up U[.02, .1], stay U[.5, .85]."""
    _demand_arms(n_arms)
    numbers = _visited(n_arms, seed, digits, (0.6, 0.95), (0.02, 0.1), (0.5, 0.85))
    worker = _shared_out(n_arms, n_workers)
    dynamics = Tiring(*numbers, worker)
    return Instance(_problem(dynamics, horizon, discount, None, {"worker": _numbered("w", worker)}), {})


@domain("season_stock")
def season_stock(
    *,
    n_arms: int = 40,
    stock: int = 120,
    digits: int = -1,
    horizon: int = 20,
    discount: float = 1.0,
    seed: int = 0,
) -> Instance:
    """Visits from a stock for the whole season; draws as ``tiring``, stay U[.55, .95]."""
    _demand_arms(n_arms)
    if stock < 0:
        raise ModelError(f"stock is {stock}", "give 0 or more.")
    numbers = _visited(n_arms, seed, digits, (0.6, 0.95), (0.02, 0.1), (0.55, 0.95))
    return Instance(_problem(Stock(*numbers, stock), horizon, discount, None), {})


@domain("influencers")
def influencers(
    *,
    n_arms: int = 200,
    leaders: int = 20,
    each: int = 3,
    spread: float = 0.3,
    digits: int = -1,
    horizon: int = 20,
    discount: float = 0.95,
    seed: int = 0,
) -> Instance:
    """A few lasting influencers who are hard to win and pull the others every round.

    Draws: ``each`` distinct influencers of every other arm (none where it hears all), then worth U[1, 2], p(0,1) and
    p(1,1) U[.8, 1] of all; influencers have worth .3, p(0,1) .15, p(1,0) .95, p(1,1) .99. All start inactive.
    """
    _demand_arms(n_arms)
    if not 1 <= leaders < n_arms or not 1 <= each <= leaders:
        raise ModelError(f"{leaders} influencers of {n_arms} arms, {each} heard", "give fewer influencers than arms.")
    rng = np.random.default_rng(seed)
    contacts = np.zeros((leaders, n_arms))
    for arm in range(leaders, n_arms):
        heard = np.arange(leaders) if each == leaders else rng.choice(leaders, each, replace=False)
        contacts[heard, arm] = 1.0
    worth = _rounded(rng.uniform(1.0, 2.0, n_arms), digits)
    worth[:leaders] = 0.3
    own = np.zeros((n_arms, 2, 2))
    own[:, 0, 1] = _rounded(rng.uniform(0.8, 1.0, n_arms), digits)
    own[:, 1, 1] = _rounded(rng.uniform(0.8, 1.0, n_arms), digits)
    own[:leaders, 0, 1], own[:leaders, 1, 0], own[:leaders, 1, 1] = 0.15, 0.95, 0.99
    role = ["influencer" if arm < leaders else "member" for arm in range(n_arms)]
    return Instance(_problem(Influencers(worth, own, contacts, spread), horizon, discount, None, {"role": role}), {})


FEATURES = ("static1", "static2", "hype", "satisfaction", "price")
"""Columns of a file of features, one row an item."""


@domain("assortment")
def assortment(
    *,
    n_arms: int = 20,
    features: str | None = None,
    lift: float = 0.02,
    fade: float = 0.005,
    fill: float = 1.01,
    digits: int = -1,
    horizon: int = 80,
    discount: float = 1.0,
    seed: int = 0,
) -> Instance:
    """Items to show to one customer after the other; five features an item U[1, 10], or from a file.

    Parameters
    ----------
    features
        CSV of one episode, one row an item: static1, static2, hype, satisfaction, price.
    """
    _demand_arms(n_arms)
    if features is None:
        x = _rounded(np.random.default_rng(seed).uniform(1.0, 10.0, (5, n_arms)), digits)
    else:
        table = Table.from_csv(features)
        x = np.stack([table.numbers(name) for name in FEATURES])
    fixed = 0.3 * x[0] + 0.5 * x[1] - 0.8 * x[4]
    dynamics = Assortment(x[4], fixed, x[2], x[3], lift=lift, fade=fade, fill=fill)
    return Instance(_problem(dynamics, horizon, discount, None, {"price": x[4].tolist()}), {})
