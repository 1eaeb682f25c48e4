"""Arms observed only when acted on, as belief chains; their windows and frequencies inside the state.

An inspection leaves an arm good for certain, so the belief depends on the slots since then and on nothing else:
b_0 = 1, b_{n+1} = g b_n + q (1 - b_n), with g = P(good stays good) and q = P(bad becomes good).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rmab_opt.errors import CapabilityError, Findings, ModelError
from rmab_opt.overdue import checkpoint

__all__ = ["BeliefChains", "EncodedArms", "Windows", "earned", "encoded_arms", "rescale"]

LARGEST_TABLE = 2**30
"""Bytes of dense transition tables that are still made on request; a cohort that needs more has better ways."""


def _probabilities(stay_good: np.ndarray, recover: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    good, back = np.asarray(stay_good, dtype=np.float64), np.asarray(recover, dtype=np.float64)
    if good.ndim != 1 or good.shape != back.shape:
        raise ModelError(f"stay_good has shape {good.shape}, recover {back.shape}", "give one number an arm in each.")
    for name, values in (("stay_good", good), ("recover", back)):
        bad = np.flatnonzero(~((values >= 0) & (values <= 1)))
        if bad.size:
            raise ModelError(f"{name} of arm {bad[0]} is {values[bad[0]]:g}", "keep probabilities in [0, 1].")
    return good, back


def rescale(
    stay_good: np.ndarray, recover: np.ndarray, n_slots: int, *, given_for: int = 12
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a slot of another length: ``n_slots`` a year in place of ``given_for``.

    The share of good arms in the long run stays, the persistence r = g - q becomes r^(given_for / n_slots).

    Raises
    ------
    ModelError
        When an arm's persistence is negative: it swings from slot to slot, and no process in shorter slots does
        that, so the root of its matrix would be complex.
    """
    good, back = _probabilities(stay_good, recover)
    if n_slots < 1 or given_for < 1:
        raise ModelError(f"{n_slots} slots a year, given for {given_for}", "give at least one of each.")
    persistence = good - back
    bad = np.flatnonzero(persistence < 0)
    if bad.size:
        arm = bad[0]
        raise ModelError(
            f"{bad.size} arms have negative persistence, the first is arm {arm} (stay_good {good[arm]:g} below recover "
            f"{back[arm]:g}): its state swings between slots, and a process that swings has no version in other slots",
            "keep the slot length, or set recover = stay_good for these arms (no memory).",
        )
    limit = np.divide(back, 1.0 - persistence, out=np.ones_like(back), where=persistence < 1)
    root = persistence ** (given_for / n_slots)
    return limit + (1 - limit) * root, limit * (1 - root)


@dataclass(frozen=True, eq=False)
class BeliefChains:
    """Belief in "good" by slots since the last inspection, cut where it hardly moves any more.

    ``beliefs`` has shape (N, K): each row is followed by copies of its last kept belief. ``length`` (N,) counts
    the kept beliefs. ``cut`` (N,) marks chains that ``longest`` stopped before they met the tolerance.
    """

    beliefs: np.ndarray
    length: np.ndarray
    cut: np.ndarray
    persistence: np.ndarray

    @classmethod
    def build(
        cls,
        stay_good: np.ndarray,
        recover: np.ndarray,
        *,
        rule: Literal["limit", "step"] = "limit",
        tolerance: float = 1e-2,
        longest: int = 120,
    ) -> BeliefChains:
        """Chains of all arms.

        Parameters
        ----------
        stay_good, recover
            P(good stays good) and P(bad becomes good) in one slot without inspection, shape (N,).
        rule
            ``limit`` keeps beliefs until one is within ``tolerance`` of where the chain ends: what is cut off is
            never worth more. ``step`` is the published rule, until two neighbours are that near; it takes a durable
            arm (stay_good > 1 - tolerance) for one that never decays.
        longest
            Beliefs kept at most: an arm that decays for years does so within the plan only up to its length.

        Raises
        ------
        ModelError
            When a probability is outside [0, 1], or an option is out of range.
        """
        good, back = _probabilities(stay_good, recover)
        if rule not in ("limit", "step"):
            raise ModelError(f"rule is {rule!r}", "use 'limit' or 'step'.")
        if not tolerance > 0 or longest < 1:
            raise ModelError(f"tolerance {tolerance:g}, longest {longest}", "give positive numbers.")
        persistence = good - back
        # An arm that never moves (good stays good, bad stays bad) stays at b_0 = 1.
        limit = np.divide(back, 1.0 - persistence, out=np.ones_like(back), where=persistence < 1)
        with np.errstate(under="ignore"):
            beliefs = limit[:, None] + (1 - limit)[:, None] * persistence[:, None] ** np.arange(longest + 1)
        if rule == "limit":
            near = np.abs(beliefs[:, :longest] - limit[:, None]) < tolerance
        else:
            near = np.abs(np.diff(beliefs, axis=1)) < tolerance
        cut = ~near.any(axis=1)
        length = np.where(cut, longest, near.argmax(axis=1) + 1)
        width = int(length.max(initial=1))
        kept = np.minimum(np.arange(width)[None, :], length[:, None] - 1)
        return cls(np.take_along_axis(beliefs, kept, axis=1), length, cut, persistence)

    def __len__(self) -> int:
        return len(self.length)

    def of(self, arms: np.ndarray) -> BeliefChains:
        """The chains of some arms."""
        width = int(self.length[arms].max(initial=1))
        return BeliefChains(self.beliefs[arms][:, :width], self.length[arms], self.cut[arms], self.persistence[arms])

    def at(self, age: np.ndarray) -> np.ndarray:
        """Belief of every arm that was inspected ``age`` slots ago, int (..., N)."""
        return self.beliefs[np.arange(len(self)), np.minimum(age, self.beliefs.shape[1] - 1)]

    def sums(self, size: int) -> np.ndarray:
        """Running sums: [n, i] = b_0 + ... + b_{i-1} of arm n, shape (N, size + 1)."""
        index = np.minimum(np.arange(size), self.beliefs.shape[1] - 1)
        return np.concatenate([np.zeros((len(self), 1)), np.cumsum(self.beliefs[:, index], axis=1)], axis=1)


class Windows:
    """In which slots of a period an inspection has an effect, and how many in each window.

    Parameters
    ----------
    label
        Shape (N, T): number of the window the slot belongs to, counted from 0 in time order, or -1 for closed.
    allowance
        Inspections that have an effect in each window, shape (N, J) or one number.

    Raises
    ------
    ModelError
        When windows of an arm interleave, or an allowance is below 1.
    """

    def __init__(self, label: np.ndarray, allowance: np.ndarray | int = 1) -> None:
        label = np.asarray(label, dtype=np.int64)
        if label.ndim != 2 or not label.size:
            raise ModelError(f"window labels have shape {label.shape}", "give (arms, slots).")
        n_windows = max(1, int(label.max()) + 1)
        allowance = np.broadcast_to(np.asarray(allowance, dtype=np.int64), (len(label), n_windows)).copy()
        if (allowance < 1).any():
            raise ModelError("an allowance is below 1", "close the window's slots instead.")
        ahead = np.where(label >= 0, label, -1)
        bad = np.flatnonzero(((label >= 0) & (label < np.maximum.accumulate(ahead, axis=1))).any(axis=1))
        if bad.size:
            raise ModelError(f"windows of arm {bad[0]} interleave", "number the windows in the order of their slots.")
        self.label, self.allowance = label, allowance
        self.n_arms, self.n_slots, self.n_windows = *label.shape, n_windows
        following = np.full(label.shape, -1)
        # The label of the next open slot: a window ends where that one is another's, or there is none.
        for slot in range(self.n_slots - 2, -1, -1):
            following[:, slot] = np.where(label[:, slot + 1] >= 0, label[:, slot + 1], following[:, slot + 1])
        self.clears = (label >= 0) & (following != label)
        self.clears[:, -1] = True
        self.open = label >= 0

    @classmethod
    def spans(cls, start: np.ndarray, length: int | np.ndarray, n_slots: int, allowance: int = 1) -> Windows:
        """One window of ``length`` slots an arm, from slot ``start`` (N,) on; it must end within the period.

        Raises
        ------
        ModelError
            When a window passes the period's end; names the arm.
        """
        start = np.asarray(start, dtype=np.int64)
        end = start + np.asarray(length)
        bad = np.flatnonzero((start < 0) | (end > n_slots) | (end <= start))
        if bad.size:
            raise ModelError(
                f"the window of arm {bad[0]} is slots {start[bad[0]]} to {end[bad[0]] - 1} of 0 to {n_slots - 1}",
                "end it within the period, or split it into two windows.",
            )
        slot = np.arange(n_slots)
        inside = (slot >= start[:, None]) & (slot < end[:, None])
        return cls(np.where(inside, 0, -1), allowance)

    @classmethod
    def free(cls, n_arms: int, n_slots: int, allowance: int = 1) -> Windows:
        """The whole period is one window of every arm."""
        return cls(np.zeros((n_arms, n_slots), dtype=np.int64), allowance)

    @classmethod
    def parse(cls, cells: Sequence[str], n_slots: int, allowance: int = 1) -> Windows:
        """Windows as a table says them: ``2-4`` for slots 2 to 4, ``0-1;6-7`` for two windows, empty for never.

        Raises
        ------
        ModelError
            Naming every row that is not such a list of slots 0 .. n_slots - 1 in rising order.
        """
        label = np.full((len(cells), n_slots), -1, dtype=np.int64)
        findings = Findings("windows")
        for arm, cell in enumerate(cells):
            reached = -1
            for number, part in enumerate(str(cell).split(";") if str(cell).strip() else []):
                first, _, last = part.strip().partition("-")
                try:
                    low, high = int(first), int(last or first)
                except ValueError:
                    findings.add(f"row {arm + 1}", f"{cell!r} is not a list of slots", "write it as 2-4 or 0-1;6-7")
                    break
                if not reached < low <= high < n_slots:
                    findings.add(
                        f"row {arm + 1}", f"{cell!r}: give rising slots from 0 to {n_slots - 1}", "correct the cell"
                    )
                    break
                label[arm, low : high + 1] = number
                reached = high
        findings.raise_if_any()
        return cls(label, allowance)

    def of(self, arms: np.ndarray) -> Windows:
        """The windows of some arms."""
        part = Windows.__new__(Windows)
        part.__dict__.update(self.__dict__)
        part.label, part.allowance = self.label[arms], self.allowance[arms]
        part.clears, part.open, part.n_arms = self.clears[arms], self.open[arms], len(self.label[arms])
        return part


class EncodedArms:
    """Belief, slot of the period and inspections used in the current window, as one state: a :class:`Dynamics`.

    State (k, t, m) is numbered (k T + t)(M + 1) + m. Passive: k grows by one up to the chain's end. Acted on in an
    open slot with allowance left: k becomes 0 and m grows by one. Acted on otherwise: nothing happens. m is cleared
    at each window's end, t wraps around. Reward: the belief in "good" after the slot. All moves are certain.
    ``length`` is a slot's against the slots that the arms' table speaks of.
    """

    n_actions = 2

    def __init__(self, chains: BeliefChains, windows: Windows, length: float = 1.0) -> None:
        if len(chains) != windows.n_arms:
            raise ModelError(f"{len(chains)} belief chains, {windows.n_arms} arms with windows", "give one of each.")
        self.chains, self.windows, self.length = chains, windows, length
        self.n_arms, self.n_slots = windows.n_arms, windows.n_slots
        self.most = int(windows.allowance.max())
        self.n_beliefs = chains.beliefs.shape[1]
        self.n_states = self.n_beliefs * self.n_slots * (self.most + 1)
        # Allowance of the slot's window; closed slots have none.
        self._allowed = np.where(
            windows.open, np.take_along_axis(windows.allowance, np.maximum(windows.label, 0), axis=1), 0
        )

    @property
    def state_names(self) -> tuple[str, ...]:
        """``age k, slot t, used m`` of every state."""
        ages, slots, used = np.unravel_index(np.arange(self.n_states), (self.n_beliefs, self.n_slots, self.most + 1))
        return tuple(f"age {k}, slot {t}, used {m}" for k, t, m in zip(ages, slots, used, strict=True))

    def encode(self, age: np.ndarray, slot: np.ndarray | int, used: np.ndarray | int = 0) -> np.ndarray:
        """State numbers from slots since the last inspection (capped at the chain's end), slot and count."""
        age = np.minimum(age, self.chains.length - 1)
        return (age * self.n_slots + slot) * (self.most + 1) + used

    def decode(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(age, slot, used) of states (..., N)."""
        rest, used = np.divmod(np.asarray(state), self.most + 1)
        age, slot = np.divmod(rest, self.n_slots)
        return age, slot, used

    def eligible(self, state: np.ndarray) -> np.ndarray:
        """Whether an inspection has an effect now, bool (..., N)."""
        _, slot, used = self.decode(state)
        return used < self._allowed[np.arange(self.n_arms), slot]

    def belief(self, state: np.ndarray) -> np.ndarray:
        """Belief in "good" now, before the slot, (..., N)."""
        return self.chains.at(self.decode(state)[0])

    def move(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """The state after the slot, int64 (..., N)."""
        age, slot, used = self.decode(state)
        arm = np.arange(self.n_arms)
        acted = (np.asarray(action) > 0) & (used < self._allowed[arm, slot])
        following = np.where(acted, 0, np.minimum(age + 1, self.chains.length - 1))
        used = np.where(self.windows.clears[arm, slot], 0, used + acted)
        return (following * self.n_slots + (slot + 1) % self.n_slots) * (self.most + 1) + used

    def step(self, state: np.ndarray, action: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The next state and the reward; draws nothing."""
        following = self.move(state, action)
        return following, self.belief(following)

    def expected_reward(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Belief after the slot, (..., N)."""
        return self.belief(self.move(state, action))

    def tabular(self) -> tuple[np.ndarray, np.ndarray]:
        """Dense tables, for small cohorts.

        Raises
        ------
        CapabilityError
            When they would pass a gigabyte.
        """
        n, s = self.n_arms, self.n_states
        if n * 2 * s * s * 8 > LARGEST_TABLE:
            raise CapabilityError(
                f"tabular() for {n} arms of {s} states",
                self,
                ("use rmab_opt.settings.inspection.indices for indices and bounds", "take fewer arms"),
            )
        transition, reward = np.zeros((n, 2, s, s)), np.zeros((n, s, 2))
        for state in range(s):
            checkpoint()
            now = self.encode(*(np.full(n, part) for part in np.unravel_index(state, self._shape)))
            # Ages past the chain's end are never reached; they move as the end does.
            for action in (0, 1):
                following = self.move(now, np.full(n, action))
                transition[np.arange(n), action, state, following] = 1.0
                reward[:, state, action] = self.belief(following)
        return transition, reward

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.n_beliefs, self.n_slots, self.most + 1


def encoded_arms(dynamics: object, purpose: str) -> EncodedArms:
    """The dynamics, when they are arms with windows in their state."""
    if not isinstance(dynamics, EncodedArms):
        raise CapabilityError(
            "windows and beliefs",
            dynamics,
            (f"use the domain 'inspection' or EncodedArms for {purpose}", "choose another policy"),
        )
    return dynamics


def earned(arms: EncodedArms, age: np.ndarray, visits: np.ndarray) -> float:
    """Reward of visits bool (N, H) from ages (N,), each with effect, by walking through the slots."""
    total, now = 0.0, age.copy()
    for taken in visits.T:
        now = np.where(taken, 0, now + 1)
        total += float(arms.chains.at(now).sum())
    return total
