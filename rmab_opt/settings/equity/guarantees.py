"""Guaranteed services in plans: so many for every arm or group, on average or for certain, in a window of rounds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds.guarantee import Guarantee as Declared
from rmab_opt.actions.kinds.guarantee import Owed
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.planning.coupling import Coupling
from rmab_opt.settings.equity.cohort import Cohort

__all__ = ["Guarantee", "counted"]


@dataclass(frozen=True)
class Guarantee:
    """At least ``at_least`` services.

    Parameters
    ----------
    at_least
        Rounds acted on, expected, or for certain.
    per
        ``arm``: every arm; ``group``: every group, all its arms together.
    begin, end
        Window: rounds ``begin`` to ``end`` - 1, counted from 0; the whole horizon by default.
    certain
        Whatever happens, not on average; of arms, in a window that begins with the plan, in whole numbers.
    owed
        What is left of it, where arms had services before or the groups are others than the plan's.

    Raises
    ------
    ModelError
        When a number is out of range.
    """

    at_least: float
    per: str = "arm"
    begin: int = 0
    end: int | None = None
    certain: bool = False
    owed: Owed | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.at_least < np.inf or self.per not in ("arm", "group"):
            raise ModelError(
                f"a guarantee of {self.at_least} services per {self.per!r}", "say arm or group, 0 or more."
            )
        if not 0 <= self.begin < (np.inf if self.end is None else self.end):
            raise ModelError(
                f"a guarantee from round {self.begin} to {self.end}", "let the window end after it begins."
            )
        if self.certain and (self.per != "arm" or self.begin or self.at_least != int(self.at_least)):
            raise CapabilityError(
                f"certain services: {self.in_words()}",
                self,
                ("guarantee a whole number to every arm from the first round on", "guarantee them on average"),
            )

    @classmethod
    def declared(cls, actions: ActionSet, period: int = 0) -> tuple[Guarantee, ...]:
        """What the guarantees of an action set leave to do from a round on.

        Raises
        ------
        CapabilityError
            When the services before the round were not counted.
        """
        found = []
        for given in actions.declared.values():
            if isinstance(given, Declared):
                given.at(period, {})
                owed = given.owed(actions.columns, period)
                if owed.end:
                    per = "arm" if given.per == "arm" else "group"
                    found.append(cls(given.at_least, per, owed.begin, owed.end, given.certain, owed))
        return tuple(found)

    def lowered(self, at_least: float) -> Guarantee:
        """The same of fewer services."""
        if self.owed is None:
            return dataclasses.replace(self, at_least=at_least)
        least = np.maximum(0.0, self.owed.least - (self.at_least - at_least))
        return dataclasses.replace(self, at_least=at_least, owed=dataclasses.replace(self.owed, least=least))

    def window(self, horizon: int) -> slice:
        """Rounds it speaks of."""
        return slice(self.begin, horizon if self.end is None else min(self.end, horizon))

    def in_words(self) -> str:
        """For reports."""
        sure = "certain" if self.certain else "expected"
        ends = (
            "" if self.begin == 0 and self.end is None else f" in rounds {self.begin + 1} to {self.end or 'the last'}"
        )
        return f"at least {self.at_least:g} {sure} services per {self.per}{ends}"


def counted(cohort: Cohort, guarantee: Guarantee) -> tuple[Cohort, np.ndarray]:
    """Arms that count their services up to the guarantee, and the state-actions that it closes.

    States become (services so far, state), (l + 1) S of them; resting is closed where every round that is left of the
    window is needed, bool (T, (l + 1) S, A).

    Raises
    ------
    CapabilityError
        When costs depend on the state.
    """
    most = int(guarantee.at_least)
    n_arms, n_actions, n_states, _ = cohort.transition.shape
    if isinstance(cohort.rows, Coupling) and cohort.rows.cost.by_state:
        raise CapabilityError(
            "certain services where costs depend on the state",
            cohort.rows,
            ("guarantee on average", "let costs depend on the action"),
        )
    size = (most + 1) * n_states
    transition = np.zeros((n_arms, n_actions, size, size))
    for count in range(most + 1):
        here = slice(count * n_states, (count + 1) * n_states)
        for action in range(n_actions):
            after = min(count + (action > 0), most)
            transition[:, action, here, after * n_states : (after + 1) * n_states] = cohort.transition[:, action]
    had = np.zeros(n_arms) if guarantee.owed is None else most - np.minimum(most, guarantee.owed.least)
    first = np.zeros((n_arms, most + 1, n_states))
    first[np.arange(n_arms), had.astype(np.int64)] = cohort.start
    start = first.reshape(n_arms, size)
    end = guarantee.window(cohort.horizon).stop
    owed = most - np.arange(size) // n_states
    closed = np.zeros((cohort.horizon, size, n_actions), dtype=bool)
    left = end - np.arange(cohort.horizon)
    closed[:, :, 0] = (owed[None, :] >= left[:, None]) & (left[:, None] > 0) & (owed[None, :] > 0)
    # Who owes more than the rounds that are left has broken the guarantee: no plan may lead there.
    lost = (owed[None, :] > left[:, None]) & (left[:, None] >= 0)
    closed |= lost[:, :, None]
    reward = np.tile(cohort.reward, (1, most + 1, 1))
    return dataclasses.replace(cohort, transition=transition, reward=reward, start=start), closed
