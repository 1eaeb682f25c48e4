"""Which prices are tried: those between the best so far and the newest, and the newest where these prove little."""

from __future__ import annotations

import numpy as np
import pytest

from rmab_opt.planning import Coupling
from rmab_opt.settings.equity.groups import Groups
from rmab_opt.settings.equity.prices import PricedGroups
from rmab_opt.settings.equity.relaxed import Stage

MOVE = np.tile(np.array([[[0.9, 0.1], [0.3, 0.7]], [[0.5, 0.5], [0.1, 0.9]]]), (2, 1, 1, 1))
PAY = np.tile(np.array([[0.0, 0.0], [1.0, 1.0]]), (2, 1, 1))


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_the_newest_prices_are_tried_where_those_between_close_less_than_a_thousandth_of_the_gap(monkeypatch, unit):
    """The best plan is worth 0; bounds come down from 100 to it, at every size of the reward alike."""
    groups = Groups(("all",), np.ones((1, 2), dtype=bool))
    arms = PricedGroups(MOVE, PAY, np.eye(2)[[0, 0]], groups, Coupling.budgets([1]), horizon=2, discount=1.0)
    duals = (np.ones(1), np.zeros(1), np.zeros(1), np.ones((2, 1)))
    mixed, asked = [], []

    def mix(stage, fans):
        mixed.append(len(asked))
        return np.zeros(1), 0.0, duals, np.zeros((2, 1)), 0.0

    # Round 1 has one point. Round 2 closes a hundredth at once; rounds 3 and 4 little, the newest more; 5 the rest.
    limits = iter([100.0, 99.0, 98.95, 98.0, 97.99, 97.0, 0.0])

    def bound(stage, *point):
        asked.append(point)
        return unit * next(limits)

    monkeypatch.setattr(arms, "_mix", mix)
    monkeypatch.setattr(arms, "bound", bound)
    answer = arms.solve(Stage(np.full(1, -np.inf), free=np.ones(1, dtype=bool)))
    assert np.diff([*mixed, len(asked)]).tolist() == [1, 1, 2, 2, 1]
    assert (answer.lower, answer.upper, answer.rounds) == (0.0, 0.0, 5)
