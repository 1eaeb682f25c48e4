"""When the program is given a start: networks that bend enough, and only where nothing is relaxed."""

from __future__ import annotations

import numpy as np
import pytest
from strategies import tabular

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Knapsack
from rmab_opt.decisions import Chooser, NetworkObjective, Scores, ways
from rmab_opt.decisions.bench import Bench
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


@pytest.mark.parametrize("soft", [None, 0.4])
@pytest.mark.parametrize("kind", ["budget", "knapsack"])
def test_the_action_alone_is_worth_as_much_as_the_certified_answer(monkeypatch, kind, soft):
    rng = np.random.default_rng(3)
    n = 7
    arms = Arms.from_arrays(n, cost=[2.0, 3.0, 4.0, 5.0, 3.0, 2.0, 6.0])
    problem = Problem(arms, tabular(n, 2, 2, rng), horizon=2, start=np.zeros(n, dtype=int))
    limit = Budget(at_most=3, soft=soft) if kind == "budget" else Knapsack(cost="cost", at_most=8, soft=soft)
    actions = ActionSet(arms, {"limit": limit})
    seen, vertex = [], Bench.vertex
    monkeypatch.setattr(Bench, "vertex", lambda bench, *given: seen.append(vertex(bench, *given)) or seen[-1])
    chooser = Chooser(problem, actions, Scores(np.ones(n)), "exact", many=False)
    points = actions.enumerate()
    for _ in range(12):
        gain = rng.normal(size=n)
        question = chooser.question().about(Scores(gain))
        found = chooser.best(question)
        assert actions.allows(found)
        right = (points @ gain - actions.preferences.cost(points)).max()
        assert found @ gain - actions.preferences.cost(found[None])[0] == pytest.approx(right)
    # Limits of whole arms need no mixed-integer program, knapsacks mostly do; what preferences cost is no linear score.
    whole = [one is not None for one in seen]
    assert all(whole) if kind == "budget" else not all(whole) or not whole
    assert len(seen) == (12 if soft is None else 0)
