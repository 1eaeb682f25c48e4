"""A call log as moves: who was in which state, what was done, where they went. Nothing is bridged over a lost week."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from rmab_opt.errors import ModelError

__all__ = ["NO_MEMORY", "UNKNOWN", "MemoryGap", "Moves", "count_moves", "levels_of", "memory_gap"]

UNKNOWN = -1
"""A state or an action that the log does not have."""


@dataclass(frozen=True, eq=False)
class Moves:
    """What a log says about each arm.

    Parameters
    ----------
    counts
        Moves (N, A, S, S): arm, action, state before, state after.
    visits
        Weeks with a known state and action, (N, A, S): what the share that was called is measured on.
    """

    counts: np.ndarray
    visits: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Moves of each arm by action and state, (N, A, S)."""
        return np.asarray(self.counts.sum(axis=3))


def levels_of(seen: np.ndarray, weeks: int = 1, thresholds: Sequence[float] = ()) -> np.ndarray:
    """States from what was reported week by week.

    Parameters
    ----------
    seen
        1 listened, 0 did not, ``UNKNOWN`` not reported; (N, W), weeks side by side without a gap.
    weeks
        How many last weeks a state looks back on; 1 takes the week itself.
    thresholds
        Shares of listened weeks between the states, ascending; a share on a threshold belongs below.

    Returns
    -------
    numpy.ndarray
        States (N, W); ``UNKNOWN`` where fewer than half of the weeks looked at, rounded up, were reported.
    """
    seen = np.asarray(seen)
    if weeks < 1 or list(thresholds) != sorted(set(thresholds)) or not all(0 <= bar < 1 for bar in thresholds):
        raise ModelError(
            f"{weeks} weeks with thresholds {list(thresholds)}", "give at least 1 week and ascending shares below 1."
        )
    if weeks == 1:
        return np.where(seen == UNKNOWN, UNKNOWN, (seen > 0).astype(np.int64))
    if not thresholds:
        raise ModelError("states look back on several weeks, without thresholds", "give shares, for example 1/3, 2/3.")
    known, good = (seen != UNKNOWN).astype(np.int64), (seen > 0).astype(np.int64)

    def last(values: np.ndarray) -> np.ndarray:
        total = np.cumsum(np.pad(values, ((0, 0), (weeks, 0))), axis=1)
        return np.asarray(total[:, weeks:] - total[:, :-weeks])

    reported, heard = last(known), last(good)
    # Shares are compared as whole numbers where they can be: 1/3 of three weeks must lie on the threshold, not beside.
    share = heard / np.maximum(reported, 1)
    state = sum((share > bar + 1e-9).astype(np.int64) for bar in thresholds)
    return np.where(reported >= ceil(weeks / 2), state, UNKNOWN)


def count_moves(
    state: np.ndarray, action: np.ndarray, n_states: int, *, n_actions: int = 2, call_acts: str = "next_week"
) -> Moves:
    """Moves of a log in which both weeks have a state and the first an action.

    Parameters
    ----------
    state, action
        (N, W), weeks side by side, ``UNKNOWN`` where nothing is known.
    call_acts
        ``next_week``: the week's state is the one before its call; ``same_week``: it is already the call's result.

    Raises
    ------
    ModelError
        When the timing is neither.
    """
    state, action = np.asarray(state), np.asarray(action)
    if call_acts not in ("next_week", "same_week"):
        raise ModelError(f"call_acts is {call_acts!r}", "write next_week or same_week.")
    if call_acts == "same_week":
        # The state before a week's call is then the one reported the week before.
        before, after, taken = state[:, :-1], state[:, 1:], action[:, 1:]
    else:
        before, after, taken = state[:, :-1], state[:, 1:], action[:, :-1]
    n_arms = len(state)
    arm = np.broadcast_to(np.arange(n_arms)[:, None], before.shape)
    known = (before != UNKNOWN) & (after != UNKNOWN) & (taken != UNKNOWN)
    counts = np.zeros((n_arms, n_actions, n_states, n_states), dtype=np.int64)
    np.add.at(counts, (arm[known], taken[known], before[known], after[known]), 1)
    if call_acts == "next_week":
        before, taken = state, action
        arm = np.broadcast_to(np.arange(n_arms)[:, None], before.shape)
    seen = (before != UNKNOWN) & (taken != UNKNOWN)
    visits = np.zeros((n_arms, n_actions, n_states), dtype=np.int64)
    np.add.at(visits, (arm[seen], taken[seen], before[seen]), 1)
    return Moves(counts, visits)


@dataclass(frozen=True)
class MemoryGap:
    """How differently arms move on according to the week before the last."""

    largest: float
    """Largest significant difference of a next state's frequency beyond what the arms' own levels explain; 0: none."""
    place: tuple[int, int, int] | None
    """Group, action and state of it."""


NO_MEMORY = MemoryGap(0.0, None)


def memory_gap(
    state: np.ndarray, action: np.ndarray, group: np.ndarray, expected: np.ndarray, *, level: float = 0.01
) -> MemoryGap:
    """Whether the state before the last says more than the last and the arm itself do.

    Parameters
    ----------
    group
        Number of each arm's group, (N,).
    expected
        Estimated chance of each next state, (N, A, S, S): differences between arms are taken out with it.
    level
        Of significance, shared out over all comparisons.
    """
    n_groups, n_states = int(group.max()) + 1, expected.shape[2]
    first, now, after, taken = state[:, :-2], state[:, 1:-1], state[:, 2:], action[:, 1:-1]
    known = (first != UNKNOWN) & (now != UNKNOWN) & (after != UNKNOWN) & (taken != UNKNOWN)
    arm, week = np.nonzero(known)
    chance = expected[arm, taken[arm, week], now[arm, week]]
    excess = np.eye(n_states)[after[arm, week]] - chance
    spread = chance * (1.0 - chance)
    from scipy.stats import norm

    found, tests = NO_MEMORY, []
    for g in range(n_groups):
        for a in range(expected.shape[1]):
            for s in range(n_states):
                here = (group[arm] == g) & (taken[arm, week] == a) & (now[arm, week] == s)
                parts = [here & (first[arm, week] == earlier) for earlier in range(n_states)]
                parts = [part for part in parts if part.sum() >= 30]
                for j in range(len(parts) - 1):
                    for k in range(j + 1, len(parts)):
                        one, two = parts[j], parts[k]
                        gap = excess[one].mean(axis=0) - excess[two].mean(axis=0)
                        error = np.sqrt(
                            spread[one].sum(axis=0) / one.sum() ** 2 + spread[two].sum(axis=0) / two.sum() ** 2
                        )
                        tests += [(abs(float(x)), float(e), (g, a, s)) for x, e in zip(gap, error, strict=True)]
    bar = norm.ppf(1.0 - level / (2.0 * max(len(tests), 1)))
    for gap_, error_, place in tests:
        if gap_ > bar * error_ and gap_ > found.largest:
            found = MemoryGap(gap_, place)
    return found
