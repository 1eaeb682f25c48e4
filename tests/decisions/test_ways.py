"""When the program is given a start: networks that bend enough, and only where nothing is relaxed."""

from __future__ import annotations

import numpy as np
import pytest
from strategies import tabular

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Chooser, NetworkObjective, ways
from rmab_opt.encoder import Network
from rmab_opt.problem import Arms, Problem


@pytest.mark.parametrize(("short_of", "climbs"), [(1, True), (0, False)])
def test_a_start_is_climbed_to_from_more_binaries_than_it_costs(monkeypatch, short_of, climbs):
    rng = np.random.default_rng(0)
    n = 7
    arms = Arms.from_arrays(n)
    problem = Problem(arms, tabular(n, 2, 2, rng), horizon=2, start=np.zeros(n, dtype=int))
    actions = ActionSet(arms, {"budget": Budget(at_most=3)})
    layers = [(rng.normal(size=(8, n)), rng.normal(size=8), "relu"), (rng.normal(size=(1, 8)), np.zeros(1), "linear")]
    network = Network.from_arrays(layers)
    right, seen, climbed = ways.climb, [], []

    def begun(way, question, loaded):
        seen.append(loaded.record.counts["binaries"])
        monkeypatch.setattr(ways, "SEARCH_FROM_BINARIES", seen[-1] - short_of)
        return start(way, question, loaded)

    start = ways.MixedInteger._start
    monkeypatch.setattr(ways.MixedInteger, "_start", begun)
    monkeypatch.setattr(ways, "climb", lambda *given: climbed.append(given) or right(*given))
    decision = Chooser(problem, actions, NetworkObjective(lambda _: network), "exact", method="program").decide()
    assert seen[0] > 1
    assert bool(climbed) == climbs
    points = actions.enumerate()
    assert decision.value == pytest.approx(network(points.astype(float)).max())
