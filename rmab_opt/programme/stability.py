"""How sure a list is: planned again on draws of the estimate, who would still be on it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from rmab_opt.decisions import Decision, Model, Scores
from rmab_opt.errors import OverdueError
from rmab_opt.overdue import checkpoint, given_up_at
from rmab_opt.programme.front_door import Ahead

__all__ = ["DRAWS", "OFTEN", "Stability", "stability_of"]

DRAWS = 40
"""Draws of the estimate that a list is held against."""

OFTEN = 0.8
"""Share of draws from which on a place on the list is sure."""


@dataclass(frozen=True)
class Stability:
    """Share of the draws in which each of the list is on the list; the bound's spread over the draws.

    Prices of the rounds to come are the plan's own: only what is known of the families differs between draws.
    """

    share: dict[str, float]
    draws: int
    bound: tuple[float, float]

    @property
    def sure(self) -> int:
        """Members who are on the list in at least 80 % of the draws."""
        return sum(share >= OFTEN for share in self.share.values())

    @property
    def likely(self) -> int:
        """Members who are on the list in at least half of the draws."""
        return sum(share >= 0.5 for share in self.share.values())

    def lines(self) -> list[str]:
        """What is said of the list; the verdict on the data stands only where it is due."""
        if not self.share:
            return []
        low, high = self.bound
        said = [
            f"of {len(self.share)} on the list {self.sure} are on it in at least 80 % of {self.draws} draws of the "
            f"estimate, {self.likely} in at least half (mean {np.mean(list(self.share.values())):.2f}); over the draws "
            f"the bound is {low:.6g} to {high:.6g}"
        ]
        if 2 * self.likely < len(self.share):
            said.append("not enough data for a list: fewer than half of it are on it in half of the draws")
        return said


def stability_of(ahead: Ahead, decision: Decision, others: Iterable[Model], until: float = np.inf) -> Stability:
    """Hold a decision against the same decision under other models, e.g. draws of the estimate.

    Parameters
    ----------
    ahead
        What lies ahead of the decision's round.
    others
        The model under each draw.
    until
        Time of ``perf_counter`` at which the draws that were looked at are the answer.
    """
    # The policy's own: what it compiled for its runs serves here too.
    actions, chooser = ahead.model.actions, ahead.policy.chooser
    question = chooser.question(decision.state, ahead.first, shared=ahead.shared)
    count, bounds = np.zeros(len(actions.columns)), []
    with suppress(OverdueError), given_up_at(until):
        for other in others:
            bound, gain = ahead.under(other)
            best = chooser.best(question.about(Scores(gain)))
            bounds.append(bound)
            count += best
            checkpoint()
    share = count / max(len(bounds), 1)
    chosen = {name: float(share[actions.columns.index(name)]) for name in decision.chosen}
    return Stability(chosen, len(bounds), (min(bounds, default=0.0), max(bounds, default=0.0)))
