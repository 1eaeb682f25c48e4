"""What a decision says of its own gap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from strategies import tabular

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Chooser, Scores
from rmab_opt.decisions.saved import read_saved
from rmab_opt.errors import ModelError
from rmab_opt.problem import Arms, Problem


@pytest.mark.parametrize(("share", "words"), [(0.0, "(gap 0)"), (0.005, "(gap 0.5 %)"), (0.02, "(gap 2 %)")])
def test_a_gap_is_told_in_per_cent_of_what_is_decided(share, words):
    rng = np.random.default_rng(0)
    arms = Arms.from_arrays(5)
    problem = Problem(arms, tabular(5, 2, 2, rng), horizon=2, start=np.zeros(5, dtype=int))
    actions = ActionSet(arms, {"budget": Budget(at_most=2)})
    decision = Chooser(problem, actions, Scores(rng.uniform(1.0, 2.0, 5)), "exact").decide()
    assert decision.status == "optimal"
    # gap = bound - value is this share of the larger of both, counted from the least action's value.
    told = replace(decision, bound=decision.base + (decision.value - decision.base) / (1.0 - share))
    assert told.relative_gap == pytest.approx(share, abs=1e-12)
    assert told.proven().endswith(words)


def test_a_file_without_its_format_does_not_pass_for_an_old_one():
    with pytest.raises(ModelError, match="lacks format"):
        read_saved({"forma": 2, "ids": [], "state": [], "action": [], "value": 0.0, "bound": None, "violations": {}})
