"""The published planners: as written, to reproduce what was reported, and as repaired, to be used.

What departs from the optimum when written as published:

- ``whittle_to_lagrange`` takes the charge between the b-th and the next index instead of the minimising one, so its
  curve is neither monotone nor concave, and greedy rules on it are not optimal. Repaired: the minimum over charges.
- ``mmr`` keeps giving to the lowest group even when that group cannot respond. Repaired: such a group is left as it
  is (leximin).
- ``mnw`` takes logarithms of zero and spends units that lift nobody. Repaired: both.
- ``mnw_eg`` enlarges every group to the largest by drawing duplicates, keeps the budget although the cohort grew,
  rescales and rounds at random. Repaired: Nash welfare weighted by group size, to which a correctly scaled version
  of it converges.

None loops: every rule gives one unit a step and stops when no group has room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.settings.equity.budgets import share_units
from rmab_opt.settings.equity.curves import rounds_worth, values_at_charges
from rmab_opt.settings.equity.groups import Groups

__all__ = ["mmr", "mnw", "mnw_eg", "whittle_to_lagrange"]


def whittle_to_lagrange(
    transition: np.ndarray,
    reward: np.ndarray,
    state: np.ndarray,
    indices: np.ndarray,
    *,
    rounds: int,
    discount: float,
    as_written: bool = False,
) -> np.ndarray:
    """Estimated value of a group at budgets 0 .. n, shape (n + 1,).

    Parameters
    ----------
    transition, reward, state, indices
        The group's arms: (n, 2, S, S), (n, S, 2), (n,), and their present indices (n,).
    as_written
        The charge between neighbouring indices; otherwise the best of these charges, of 0 and of a prohibitive one.
    """
    n_arms = len(state)
    order = np.sort(indices)[::-1]
    prohibitive = float(np.ptp(reward)) * (rounds + 1.0) + float(np.abs(order).max(initial=0.0))
    between = 0.5 * (order[:-1] + order[1:])
    charges = np.concatenate([[prohibitive], between, order[-1:]])
    if not as_written:
        charges = np.concatenate([np.maximum(charges, 0.0), [0.0]])
    value = values_at_charges(transition, reward, charges, rounds, discount)[rounds]
    total = value[np.arange(n_arms), state].sum(axis=0)
    price = charges * rounds_worth(rounds, discount)
    if as_written:
        # With no budget the charge has no term: the arms' passive values.
        return total + price * np.arange(n_arms + 1.0)
    return (total[:, None] + price[:, None] * np.arange(n_arms + 1.0)).min(axis=0)


def mmr(curves: Sequence[np.ndarray], budget: int, *, as_written: bool = False) -> np.ndarray:
    """Max-min reward by water filling: one unit at a time to the group with the lowest mean; budgets (K,).

    ``curves[g]`` are the group's totals at 0 .. n_g.
    """
    if not as_written:
        return share_units(*_padded(curves, budget), welfare="leximin").budgets
    sizes = np.array([len(curve) - 1 for curve in curves])
    given = np.zeros(len(curves), dtype=np.int64)
    for _ in range(min(budget, int(sizes.sum()))):
        mean = [curve[given[g]] / sizes[g] if given[g] < sizes[g] else np.inf for g, curve in enumerate(curves)]
        given[int(np.argmin(mean))] += 1
    return given


def mnw(curves: Sequence[np.ndarray], budget: int, *, as_written: bool = False) -> np.ndarray:
    """Nash welfare over groups, each counted once: a unit goes where the logarithm grows most; budgets (K,)."""
    if not as_written:
        return share_units(*_padded(curves, budget), welfare="nash_groups").budgets
    sizes = np.array([len(curve) - 1 for curve in curves])
    given = np.zeros(len(curves), dtype=np.int64)
    for _ in range(min(budget, int(sizes.sum()))):
        gain = np.array(
            [
                np.log(max(curve[given[g] + 1], 1e-300)) - np.log(max(curve[given[g]], 1e-300))
                if given[g] < sizes[g]
                else -np.inf
                for g, curve in enumerate(curves)
            ]
        )
        given[int(gain.argmax())] += 1
    return given


def mnw_eg(
    curve_of: Callable[[np.ndarray], np.ndarray],
    members: Sequence[np.ndarray],
    budget: int,
    *,
    as_written: bool = False,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Nash welfare with equalised groups; budgets (K,).

    Parameters
    ----------
    curve_of
        Totals at 0 .. n of a list of arms, which may name an arm several times.
    members
        Arms of each group.
    rng
        Of the duplicates and the rounding; needed as written only.
    """
    sizes = np.array([len(arms) for arms in members])
    if not as_written:
        return share_units(*_padded([curve_of(arms) for arms in members], budget), welfare="nash").budgets
    if rng is None:
        raise ModelError("mnw_eg as written draws duplicates", "give it a random generator.")
    largest = int(sizes.max())
    enlarged = [np.concatenate([arms, rng.choice(arms, largest - len(arms))]) for arms in members]
    share = mnw([curve_of(arms) for arms in enlarged], budget, as_written=True) * (sizes / largest)
    budget = min(budget, int(sizes.sum()))
    share = share * (budget / max(share.sum(), 1e-300))
    # Excess over a group's size goes evenly to groups with room; each pass fills a group, so K passes are enough.
    for _ in range(len(members)):
        excess = float(np.maximum(share - sizes, 0.0).sum())
        share = np.minimum(share, sizes)
        room = share < sizes
        if excess <= 1e-12 or not room.any():
            break
        share = share + np.where(room, excess / room.sum(), 0.0)
    given = np.floor(np.minimum(share, sizes) + 1e-9).astype(np.int64)
    rest = np.maximum(share - given, 0.0)
    while (missing := budget - int(given.sum())) > 0:
        chance = np.where(given < sizes, np.maximum(rest, 1e-12), 0.0)
        count = min(missing, int((chance > 0).sum()))
        drawn = rng.choice(len(members), size=count, replace=False, p=chance / chance.sum())
        given[drawn] += 1
    return given


def _padded(curves: Sequence[np.ndarray], budget: int) -> tuple[np.ndarray, int, Groups]:
    """Curves of different lengths as one table, with groups of those sizes."""
    sizes = [len(curve) - 1 for curve in curves]
    table = np.array([np.pad(curve, (0, max(sizes) + 1 - len(curve)), mode="edge") for curve in curves])
    return table, budget, Groups.from_labels(np.repeat(np.arange(len(curves)), sizes))
