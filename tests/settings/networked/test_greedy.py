"""Deciding on graphs: lazy equals plain, the program beats greedy and equals enumeration, bounds hold."""

from __future__ import annotations

import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from strategies import all_actions

import rmab_opt as ro
from rmab_opt.actions import ActionSet, Columns
from rmab_opt.actions.kinds import Budget, Capacity, Knapsack, Linear, LockedIn, Scheduling
from rmab_opt.decisions import Model, Situation, decide, verify, ways
from rmab_opt.decisions.policy import make_policy
from rmab_opt.errors import CapabilityError, SolverError
from rmab_opt.learning import evaluate
from rmab_opt.problem import Arms, Problem, Table
from rmab_opt.search import hill_climb
from rmab_opt.settings.networked.cascade import Cascade, Graph, active_sets, set_bits
from rmab_opt.settings.networked.coverage import Coverage, ceiling, celf
from rmab_opt.settings.networked.greedy import CascadeObjective, structure
from rmab_opt.settings.networked.spread import backward_induction, policy_value


def networked(seed: int, n: int = 6, *, directed: bool = False, most: float = 0.6) -> Cascade:
    rng = np.random.default_rng(seed)
    pairs = [(i, j) for i in range(n) for j in range(n) if (i != j if directed else i < j) and rng.random() < 0.5]
    graph = Graph.from_edges(
        np.array(pairs, dtype=np.int64).reshape(-1, 2), n, rng.uniform(0, most, len(pairs)), directed=directed
    )
    chance = np.sort(rng.random((n, 2, 2)), axis=2)
    return Cascade(graph, chance, rng.uniform(0, 2, n))


def model_of(dynamics: Cascade, constraints: dict, objective=None, horizon: int = 4, **columns) -> Model:
    arms = Arms.from_arrays(dynamics.n_arms, **columns)
    problem = Problem(arms, dynamics, horizon=horizon, discount=0.9)
    return Model(problem, ActionSet(arms, constraints), objective or CascadeObjective(40), solver="exact")


SETS = {
    "count": lambda n: {"budget": Budget(at_most=2)},
    "knapsack": lambda n: {"money": Knapsack(cost="cost", at_most=5)},
    "quotas": lambda n: {"budget": Budget(at_most=3), "each": Linear(per="village", at_most=1)},
    "monotone": lambda n: {"money": Knapsack(cost="cost", at_most=6), "each": Linear(per="village", at_most=1)},
}


def with_set(kind: str, seed: int, directed: bool, estimator: str) -> Model:
    dynamics = networked(seed, directed=directed)
    rng = np.random.default_rng(seed + 1)
    return model_of(
        dynamics, SETS[kind](6), CascadeObjective(30, estimator=estimator, seed=seed),
        cost=rng.integers(1, 4, 6), village=["a", "a", "b", "b", "c", "c"],
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from(sorted(SETS)), st.booleans(), st.sampled_from(["scenarios", "moves_exact"])
)
def test_greedy_keeps_its_promise_and_its_bound_against_enumeration(seed, kind, directed, estimator):
    model = with_set(kind, seed, directed, estimator)
    state = np.random.default_rng(seed).integers(0, 2, 6)
    situation = Situation(model.problem, model.actions.columns, state)
    made = decide(model, state, method="greedy")
    allowed = np.array([a for a in all_actions(6) if not model.actions.violations(a)])
    values = model.objective.batch_value(allowed, situation)
    idle = model.objective.value(np.zeros(6, dtype=np.int64), situation)
    known = structure(model.actions)
    assert made.value <= values.max() + 1e-9
    assert made.bound >= values.max() - 1e-9
    assert made.value - idle >= known.share * (values.max() - idle) - 1e-9
    assert verify(made, model.problem, model.actions, model.objective).ok
    assert float(model.objective.coverage(situation).constant) == pytest.approx(idle)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(SETS)), st.booleans())
def test_the_program_is_the_best_action_and_no_worse_than_greedy_on_the_same_scenarios(seed, kind, directed):
    model = with_set(kind, seed, directed, "scenarios")
    state = np.random.default_rng(seed).integers(0, 2, 6)
    situation = Situation(model.problem, model.actions.columns, state)
    allowed = np.array([a for a in all_actions(6) if not model.actions.violations(a)])
    best = model.objective.batch_value(allowed, situation).max()
    made = decide(model, state)
    assert made.value == pytest.approx(best, abs=1e-7)
    assert made.value >= decide(model, state, method="greedy").value - 1e-9
    assert "out of sample" in made.notes


def village_network(n: int = 400, seed: int = 0, samples: int = 60) -> Model:
    """A network with a few people of many contacts, arms that hardly start alone, a budget and village quotas."""
    rng = np.random.default_rng(seed)
    pairs = sorted({(int(v * rng.random() ** 2), v) for v in range(1, n) for _ in range(3)})
    chance = np.sort(rng.uniform(0.0, 1.0, (n, 2, 2)), axis=2) * np.array([[0.02, 1.0], [0.8, 1.0]])
    dynamics = Cascade(Graph.from_edges(np.array(pairs), n, 0.1), np.sort(chance, axis=2), rng.uniform(1, 2, n))
    return model_of(
        dynamics, {"budget": Budget(at_most=n // 50), "each": Linear(per="village", at_most=1)},
        CascadeObjective(samples, seed=seed), village=[f"v{v}" for v in rng.integers(0, n // 25, n)],
    )  # fmt: skip


@pytest.mark.parametrize("way", ["left out", "stopped", "solved"])
def test_by_default_a_large_graph_is_decided_at_least_as_well_as_by_greedy(way, monkeypatch):
    """Greedy's action and ceiling stand where the program is left out or fails; where it is solved, it is no worse."""
    model = village_network()
    greedy = decide(model, method="greedy")
    if way == "left out":
        monkeypatch.setattr(ways, "LARGEST_COVER", 0)
    if way == "stopped":

        def late(*_: object) -> None:
            raise SolverError("no action found before the limit", "give it more time.")

        monkeypatch.setattr(ways.MixedInteger, "_solved", late)
    made = decide(model)
    assert made.value >= greedy.value - 1e-9
    assert made.bound <= greedy.bound + 1e-9
    assert greedy.bound <= 1.03 * greedy.value
    assert ("left out" in made.notes.get("program", "")) == (way == "left out")
    assert ("no action found" in made.solver) == (way == "stopped")
    assert made.status in (("optimal", "solver_optimal") if way == "solved" else ("heuristic",))


@settings(max_examples=amount(10, 30), deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(SETS)), st.booleans())
def test_a_ceiling_is_above_every_allowed_set_wherever_its_tangents_begin(seed, kind, certain):
    """Random coverage, shares of one among others: no enumerated set is worth more; all sets allowed close the gap."""
    model, rng = with_set(kind, seed, False, "scenarios"), np.random.default_rng(seed)
    share = np.where(rng.random(6) < 0.3, 1.0, rng.random(6)) if not certain else np.ones(6)
    rows = sparse.csc_array((rng.random((9, 6)) < 0.5).astype(float))
    cover = Coverage(1.0, rng.random(6), share, rows, rng.random(9))
    allowed = np.array([a for a in all_actions(6) if not model.actions.violations(a)])
    left = np.prod(1.0 - allowed[:, None, :] * rows.toarray() * share, axis=2)
    values = cover.constant + allowed @ cover.linear + (1.0 - left) @ cover.worth
    start = int(rng.integers(len(allowed)))
    assert ceiling(cover, model.actions.shape, allowed[start], float(values[start])) >= values.max() - 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_a_roster_with_quotas_is_decided_to_the_best_action(seed):
    """Two workers on their slots, arms free at some of them, at most one a village: enumeration agrees."""
    roster = Table({"worker": ["x", "y", "y"], "slot": ["mon", "mon", "tue"]})
    limits = {"roster": Scheduling(roster=roster, visits=1), "each": Linear(per="village", at_most=1)}
    model = model_of(
        networked(seed), limits, CascadeObjective(30, seed=seed),
        village=["a", "a", "b", "b", "c", "d"], slots=["mon", "mon;tue", "tue", "mon", "tue", "mon;tue"],
    )  # fmt: skip
    state = np.random.default_rng(seed).integers(0, 2, 6)
    allowed = np.array([a for a in all_actions(6) if not model.actions.violations(a)])
    assert 8 < len(allowed) < 42
    best = model.objective.batch_value(allowed, Situation(model.problem, model.actions.columns, state)).max()
    made = decide(model, state)
    assert made.value == pytest.approx(best, abs=1e-7)
    assert made.assignment


@pytest.mark.parametrize("estimator", ["scenarios", "moves_exact"])
@pytest.mark.parametrize("method", ["greedy", "program"])
def test_the_estimate_beside_an_optimum_is_of_its_exact_value(estimator, method):
    """Twenty samples flatter the action chosen on them; the second sample does not, within its standard error."""
    if (estimator, method) == ("moves_exact", "program"):
        with pytest.raises(CapabilityError, match="linear program"):
            decide(with_set("count", 0, False, estimator), method=method)
        return
    off = []
    for seed in range(12):
        dynamics = networked(seed, 8, most=0.3)
        objective = CascadeObjective(60, estimator=estimator, seed=seed)
        model = model_of(dynamics, {"budget": Budget(at_most=3)}, objective)
        made = decide(model, method=method)
        exact = dynamics.expected_reward(made.state, made.action).sum()
        mean, error = (float(word) for word in made.notes["out of sample"].split(" (")[0].split(" ± "))
        off.append((mean - exact) / error)
        assert "of 60 drawn" in made.notes["sample"]
    assert np.abs(off).max() < 4
    assert np.abs(np.mean(off)) < 1.2


def plain_greedy(cover: Coverage, at_most: int) -> list[int]:
    """Every gain from scratch before every choice."""
    rows, chosen = cover.rows_of.toarray(), []

    def value(members: list[int]) -> float:
        idle = np.ones(len(cover.worth))
        for c in members:
            idle = idle * np.where(rows[:, c] > 0, 1 - cover.share[c], 1.0)
        return float(cover.linear[members].sum() + (cover.worth * (1 - idle)).sum())

    while len(chosen) < at_most:
        gains = [-np.inf if c in chosen else value([*chosen, c]) - value(chosen) for c in range(rows.shape[1])]
        if max(gains) <= 1e-12:
            break
        chosen.append(int(np.argmax(gains)))
    return chosen


@pytest.mark.parametrize("estimator", ["scenarios", "moves_exact"])
@pytest.mark.parametrize("seed", range(4))
def test_lazy_greedy_equals_plain_greedy(seed, estimator):
    dynamics = networked(seed, 14, most=0.25)
    model = model_of(dynamics, {"budget": Budget(at_most=5)}, CascadeObjective(60, estimator=estimator))
    situation = Situation(model.problem, model.actions.columns, np.zeros(14, dtype=np.int64))
    cover = model.objective.coverage(situation)
    chosen, gain, left, counted = celf(cover, model.actions.shape.room())
    assert chosen == plain_greedy(cover, 5)
    assert counted < 14 * 6
    assert gain == pytest.approx(model.objective.value(np.isin(np.arange(14), chosen), situation) - cover.constant)
    assert left.min() >= 0


def test_two_live_neighbours_do_not_activate_each_other():
    """The neighbour form of the program counts this pair as active for free; components do not."""
    chance = np.zeros((3, 2, 2))
    chance[:, :, 1] = 1.0
    dynamics = Cascade(Graph.from_edges([(0, 1)], 3, 1.0), chance, np.array([5.0, 5.0, 1.0]))
    model = model_of(dynamics, {"last": Linear(where={"id": "arm2"}, at_least=1), "one": Budget(at_most=1)})
    made = decide(model)
    assert made.chosen == ("arm2",)
    assert made.value == pytest.approx(1.0)


def test_sets_that_cannot_be_grown_go_to_the_program():
    model = model_of(networked(3), {"must": LockedIn(ids=("arm4",)), "budget": Budget(at_most=2)})
    with pytest.raises(CapabilityError, match="one-by-one"):
        decide(model, method="greedy")
    assert "arm4" in decide(model).chosen
    chosen = make_policy("lookahead_cascade", model).decide(np.zeros(6, dtype=np.int64), 0, np.random.default_rng(0))
    assert "arm4" in chosen.chosen
    workers = Table({"worker": ["w"], "capacity": [3]})
    shared = model_of(networked(3), {"work": Capacity(workers=workers, cost="load")}, load=[1, 2, 3, 1, 2, 3])
    assert decide(shared, method="greedy").value <= decide(shared).value + 1e-9


@pytest.mark.parametrize("estimator", ["scenarios", "moves_exact"])
def test_a_programme_that_reaches_the_first_arms_only_values_their_columns(estimator):
    """Columns for arms 0 to 3 of six: coverage by sets of columns is the value of the arms' action."""
    dynamics = networked(4)
    arms = Arms.from_arrays(6)
    problem = Problem(arms, dynamics, horizon=3, discount=0.9)
    columns = Columns(arms, Table({"id": list(arms.ids[:4])}), sparse.csr_array(np.eye(6)[:4]))
    objective = CascadeObjective(30, estimator=estimator)
    situation = Situation(problem, columns, np.array([0, 1, 0, 0, 1, 0]), 0)
    cover = objective.coverage(situation)
    every = all_actions(4)
    left = np.prod(1.0 - every[:, None, :] * cover.rows_of.toarray() * cover.share, axis=2)
    value = cover.constant + every @ cover.linear + (1.0 - left) @ cover.worth
    assert value == pytest.approx(objective.batch_value(every, situation))


def test_structures_are_read_from_rows_and_nothing_is_claimed_without_one():
    dynamics = networked(0)
    shares = {kind: structure(with_set(kind, 0, False, "scenarios").actions).share for kind in SETS}
    assert shares == {"count": pytest.approx(1 - 1 / np.e), "knapsack": pytest.approx((1 - 1 / np.e) / 2),
                      "quotas": 0.5, "monotone": 0.0}  # fmt: skip
    crossing = {"a": Linear(where={"v": "x"}, at_most=1), "b": Linear(where={"w": "x"}, at_most=1)}
    model = model_of(dynamics, crossing, v=list("xxxyyy"), w=list("yxxxyy"))
    assert structure(model.actions).kind == "monotone"
    assert model.actions.shape.most_chosen == 4


@pytest.mark.parametrize("seed", range(3))
def test_backward_induction_is_the_best_policy_by_enumeration(seed):
    """Two rounds of three arms: every action now, the best action later, by plain sums over sets."""
    dynamics = networked(seed, 3)
    actions = np.array([a for a in all_actions(3) if a.sum() <= 1])
    value, best = backward_induction(dynamics, actions, 2, 0.9)
    kernel, bits = dynamics.graph.kernel, set_bits(3)

    def q(state: np.ndarray, action: np.ndarray, following: np.ndarray) -> float:
        total = 0.0
        for u in range(8):
            own = np.prod([p if bits[u, i] else 1 - p for i, p in enumerate(dynamics.own_move(state, action))])
            total += own * sum(kernel[u, s] * (bits[s] @ dynamics.value + 0.9 * following[s]) for s in range(8))
        return total

    last = np.array([max(q(bits[s].astype(int), a, np.zeros(8)) for a in actions) for s in range(8)])
    first = np.array([max(q(bits[s].astype(int), a, last) for a in actions) for s in range(8)])
    assert value[1] == pytest.approx(last)
    assert value[0] == pytest.approx(first)
    assert policy_value(dynamics, actions[best], 2, 0.9) == pytest.approx(first)


@pytest.mark.parametrize(
    "name",
    amount(["contacts_stars"], ["contacts_slow_start", "contacts_stars", "contacts_lapsing", "contacts_lapsing_stars"]),
)
def test_the_lookahead_is_near_the_optimum_where_policies_differ(name):
    """Exact values of all policies over all states of eight arms, without end: at least 97 % of the optimal gain."""
    model = ro.load(name, n_arms=8, n_contacts=11, at_most=1, horizon=400, seed=3)
    dynamics, states = model.problem.dynamics, set_bits(8)
    own_worth = states @ dynamics.value

    def value(chosen: np.ndarray) -> float:
        moves = active_sets(dynamics.own_move(states, chosen)) @ dynamics.graph.kernel
        return float(np.linalg.solve(np.eye(256) - 0.95 * moves, moves @ own_worth)[0])

    def by_name(policy: str) -> float:
        made, rng = make_policy(policy, model), np.random.default_rng(0)
        return value(np.stack([made.decide(s, 0, rng).action for s in states.astype(np.int64)]))

    actions = np.concatenate([np.zeros((1, 8), dtype=np.int64), np.eye(8, dtype=np.int64)])
    found, best = backward_induction(dynamics, actions, 300, 0.95)
    idle, optimum = value(np.zeros((256, 8), dtype=np.int64)), value(actions[best[0]])
    assert optimum == pytest.approx(found[0, 0], rel=1e-6)
    share = {policy: (by_name(policy) - idle) / (optimum - idle) for policy in ("lookahead_cascade", "myopic_cascade")}
    assert 0.97 <= share["lookahead_cascade"] <= 1 + 1e-9
    if "lapsing" in name:
        assert share["lookahead_cascade"] > share["myopic_cascade"] + 0.02


@pytest.mark.slow
def test_policies_run_by_name_and_the_optimal_one_is_best():
    model = model_of(networked(5, 5), {"budget": Budget(at_most=1)}, horizon=3)
    names = ["none", "random", "random_inactive", "whittle", "myopic_cascade", "lookahead_cascade",
             "lookahead_priced", "tabular"]  # fmt: skip
    table = evaluate(model, names, episodes=amount(150, 400))
    by_name = {row["policy"]: row for row in table.rows}
    optimal = make_policy("tabular", model)
    assert by_name["tabular"]["reward"] == pytest.approx(optimal.value[0, 0], rel=amount(0.05, 0.03))
    for name in names[:-1]:
        assert table.difference("tabular", name)[2] > 0, name
    with pytest.raises(CapabilityError, match="single_gains"):
        make_policy("myopic", model).decide(np.zeros(5, dtype=np.int64), 0, np.random.default_rng(0))


def test_random_inactive_leaves_active_arms_alone():
    model = model_of(networked(5, 6), {"budget": Budget(at_most=4)})
    state = np.array([1, 0, 1, 1, 0, 0])
    made = make_policy("random_inactive", model).decide(state, 0, np.random.default_rng(0))
    assert (made.action * state).sum() == 0
    assert made.action.sum() == 3
    must = model_of(networked(5, 6), {"must": LockedIn(ids=("arm0",)), "two": Budget(equal=2)})
    made = make_policy("random_inactive", must).decide(state, 0, np.random.default_rng(0))
    assert made.action[0] == 1
    assert (made.action * state).sum() == 1


def test_hill_climbing_takes_true_marginals_and_stops_when_none_helps():
    gain = np.array([1.0, 2.0, -1.0, 0.5])

    def value(actions: np.ndarray) -> np.ndarray:
        return actions @ gain - 3.0 * actions[:, 0] * actions[:, 1]

    actions = ActionSet(Arms.from_arrays(4), {"budget": Budget(at_most=3)})
    action, best = hill_climb(value, actions)
    assert action.tolist() == [0, 1, 0, 1]
    assert best == pytest.approx(2.5)
