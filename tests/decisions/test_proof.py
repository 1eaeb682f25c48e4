"""Proofs: never accepted where enumeration finds better, refused a millionth below, forged files named, scale exact."""

import json
from dataclasses import replace

import numpy as np
import pytest
from amounts import amount
from command_line import without_solver_and_torch
from proof_models import EVERY, N, network, problem_of, sets

import rmab_opt as ro
from rmab_opt.actions import ActionSet
from rmab_opt.actions.checker import best_of_routes, knapsack, price_bound
from rmab_opt.actions.kinds import Budget, Capacity, Knapsack, Linear, Scheduling
from rmab_opt.decisions import Chooser, Model, NetworkObjective, Scores, bound, decide, save_bound, verify
from rmab_opt.decisions.leaves import Leaves
from rmab_opt.decisions.proof import Proof, layers_of, rows_of_set
from rmab_opt.errors import CertificateError, InfeasibleError, ModelError
from rmab_opt.problem import Arms, Table
from rmab_opt.search import branch_and_bound


@pytest.mark.parametrize("seed", range(amount(12, 40)))
def test_any_prices_bound_every_allowed_action(seed):
    rng = np.random.default_rng(seed)
    actions = sets(rng)
    rows, scores = rows_of_set(actions), rng.normal(size=N)
    allowed = EVERY[[actions.allows(a) for a in EVERY]]
    best = (allowed @ scores).max()
    for scale in (0.0, 0.3, 1.0, 1e3):
        # Wrong signs, wild sizes: loose bounds, never false ones.
        assert price_bound(rows, scores, 0.0, scale * rng.normal(size=len(rows.row_lower))) >= best
    for size in (2.0**-40, 1.0, 2.0**40):
        goal = Scores(scores * size)
        made = decide(Model(problem_of(actions), actions, goal))
        assert made.bound >= best * size
        assert made.status == "optimal"
        assert made.value == pytest.approx(best * size, rel=1e-4)


def test_tables_and_routes_are_the_best_of_all():
    rng = np.random.default_rng(1)
    for _ in range(20):
        gain, weight, room = rng.normal(size=N), rng.integers(1, 6, N), int(rng.integers(0, 16))
        assert knapsack(gain, weight[None], (room,)) == pytest.approx((EVERY @ gain)[EVERY @ weight <= room].max())
        both = (EVERY @ weight <= room) & (EVERY[:, 1:].sum(axis=1) <= 2)
        loads = np.stack([weight, np.arange(N) > 0])
        assert knapsack(gain, loads, (room, 2)) == pytest.approx((EVERY @ gain)[both].max())
        inside, most = rng.random((4, N)) < 0.6, int(rng.integers(0, 4))
        fits = [a for a in EVERY if a.sum() <= most and any((a <= row).all() for row in inside)]
        assert best_of_routes(inside, gain, most) == pytest.approx((np.array(fits) @ gain).max())


@pytest.mark.parametrize("seed", range(amount(2, 12)))
def test_a_tree_is_accepted_at_the_value_and_refused_a_millionth_below(seed):
    rng = np.random.default_rng(seed)
    actions, net = sets(rng), network(rng)
    allowed = EVERY[[actions.allows(a) for a in EVERY]]
    best = float(net(allowed).max())
    step = 1e-6 * max(1.0, abs(best))
    for neurons in (False, True):
        leaves = Leaves(layers_of(net), rows_of_set(actions))
        found = leaves.close(best + step, actions.allows, neurons=neurons)
        assert found.whole
        assert best <= found.bound <= best + step
        again = leaves.close(best + step, actions.allows, found.tree, neurons=neurons)
        assert again.whole
        assert again.bound >= best
        below = leaves.close(best - step, actions.allows, found.tree, neurons=neurons)
        assert not below.whole or below.better is not None
        # Any other tree is a guide and no more.
        wild = rng.integers(0, leaves.n + sum(leaves.sizes), 15)
        wild = np.concatenate([wild, np.full(16, -1)]).astype(np.int16)
        guided = leaves.close(best + step, actions.allows, wild, neurons=neurons)
        assert guided.bound >= best


@pytest.mark.parametrize(
    ("share", "seeds"),
    [(0.6, 4), (0.9, 4), *(pytest.param(share, 40, marks=pytest.mark.slow) for share in (0.6, 0.8, 0.9))],
)
def test_a_search_with_wrong_hidden_bounds_makes_no_wrong_certificate(share, seeds, monkeypatch):
    real, wrong = branch_and_bound.NodeBounds.tighten, 0

    def narrow(self, node, cutoff=-np.inf):
        alive = real(self, node, cutoff)
        node["upper"] = node["lower"] + share * (node["upper"] - node["lower"])
        return alive

    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        actions, net = sets(rng), network(rng)
        best = float(net(EVERY[[actions.allows(a) for a in EVERY]]).max())
        chooser = Chooser(
            problem_of(actions), actions, NetworkObjective(lambda _, net=net: net), method="search", many=False
        )
        with monkeypatch.context() as patch:
            patch.setattr(branch_and_bound.NodeBounds, "tighten", narrow)
            try:
                made = chooser.decide()
            except CertificateError:
                continue
        wrong += made.bound < best or (made.status == "optimal" and made.value < best - 1e-4 * (1 + abs(best)))
    assert not wrong


@pytest.mark.parametrize("case", ["prices", "program", "listing", "network", "network program"])
def test_scale_by_powers_of_two_changes_nothing_bit_for_bit(case):
    rng = np.random.default_rng(3)
    arms = Arms.from_arrays(N, cost=[3, 5, 2, 7, 4, 6, 1, 8])
    kinds = {"budget": Budget(at_most=3)} if case == "prices" else {"money": Knapsack(cost="cost", at_most=11)}
    actions = ActionSet(arms, kinds)
    problem, scores = problem_of(actions), rng.normal(size=N)
    method = {"prices": "prices", "listing": "listing", "network": "search"}.get(case, "program")
    seen = set()
    for k in range(-40, 41, 1 if "network" not in case else 8):
        size = 2.0**k
        goal = Scores(scores * size)
        if "network" in case:
            net = network(np.random.default_rng(5), size)
            goal = NetworkObjective(lambda _, net=net: net)
        made = Chooser(problem, actions, goal, method=method, many=False).decide()
        prices = b"" if made.proof.prices is None else made.proof.prices.tobytes()
        seen.add((made.chosen, made.value / size, made.bound / size, made.status, made.relative_gap, prices))
    assert len(seen) == 1


def saved(tmp_path):
    rng = np.random.default_rng(2)
    actions = ActionSet(
        Arms.from_arrays(N, cost=[3, 5, 2, 7, 4, 6, 1, 8]), {"money": Knapsack(cost="cost", at_most=11)}
    )
    model = Model(problem_of(actions), actions, Scores(rng.random(N)))
    path = tmp_path / "week.json"
    decide(model).to_json(path)
    return model, path


def test_an_honest_file_is_verified_and_every_forged_field_is_refused(tmp_path):
    model, path = saved(tmp_path)
    honest = json.loads(path.read_text())
    verdict = verify(path, model.problem, model.actions, model.objective)
    assert verdict.ok
    assert verdict.proven
    assert verdict.exit_code == 0
    forged = {
        "value": honest["value"] * (1 + 1e-6),
        "bound": honest["value"] * (1 - 1e-6),
        "gap": 1.0,
        "relative_gap": 0.5,
        "action": honest["action"][:-1],
        "state": [1, *honest["state"][1:]],
        "period": 1,
        "unit": 2 * honest["unit"],
        "base": 0.5,
        "bound_kind": "listing" if honest["bound_kind"] != "listing" else "prices",
        "tight": {"money": ["9 of 9"]},
        "relaxed": "money",
        "violations": {"money": ["x"]},
        "assignment": [{"column": "arm0"}],
        "digests": {**honest["digests"], "tables": "0" * 64},
        "extra": 1,
        "status": "proven",
    }
    for field, value in forged.items():
        try:
            verdict = verify({**honest, field: value}, model.problem, model.actions, model.objective)
        except ModelError:
            continue
        assert not verdict.ok, field
    lower = {**honest, "bound": honest["value"], "gap": 0.0, "relative_gap": 0.0}
    worse = {**lower, "action": [], "value": 0.0, "bound": 0.0, "tight": {}}
    worse["proof"] = {**honest["proof"], "proven_bound": 0.0}
    assert not verify(worse, model.problem, model.actions, model.objective).ok


FREE = {"title", "seconds", "nodes", "notes", "solver", "solver_bound", "encoding_error", "wanted", "policy"}
"""Fields of a decision file that claim nothing of their own, or say whose word they are."""


def test_random_digits_of_a_file(tmp_path):
    """200 times another digit somewhere: refused, or every claim that is left is true by enumeration."""
    model, path = saved(tmp_path)
    text, rng = path.read_text(), np.random.default_rng(6)
    honest, refused = json.loads(text), 0
    allowed = EVERY[[model.actions.allows(a) for a in EVERY]]
    best = float((allowed @ model.objective.scores).max())
    places = [i for i, letter in enumerate(text) if letter.isdigit()]
    for _ in range(200):
        at = int(rng.choice(places))
        forged = text[:at] + rng.choice([d for d in "0123456789" if d != text[at]]) + text[at + 1 :]
        try:
            document = json.loads(forged)
            verdict = verify(document, model.problem, model.actions, model.objective)
        except (ModelError, json.JSONDecodeError):
            refused += 1
            continue
        refused += not verdict.ok
        if verdict.ok and any(document[name] != honest[name] for name in honest if name not in FREE):
            # Rounding in the last places of a number, or another price that proves the same.
            assert document["bound"] >= best - 1e-9
            assert document["value"] == pytest.approx(honest["value"], rel=1e-8)
            assert document["action"] == honest["action"]
            assert document["digests"] == honest["digests"]
    assert refused > 120


def random_question(rng):
    """A set of eight columns in one of six kinds, linear or a network, in one of three units."""
    scale = 2.0 ** rng.choice([-40, 0, 40])
    kind = rng.integers(3)
    if kind == 0:
        actions = sets(rng)
    else:
        arms = Arms.from_arrays(N, cost=rng.integers(1, 9, N).tolist(), village=[f"v{i % 3}" for i in range(N)])
        groups = {"each": Linear(per="village", at_most=int(rng.integers(1, 3))), "few": Budget(at_most=4)}
        least = {"least": Linear(per="village", at_least=1), "money": Knapsack(cost="cost", at_most=24)}
        actions = ActionSet(arms, groups if kind == 1 else least)
    return asked_of(actions, rng, scale)


def question_of_units(rng):
    """Loads in any unit on workers, or a roster over eight columns; linear or a network, in one of three units."""
    scale = 2.0 ** rng.choice([-40, 0, 40])
    if rng.random() < 0.5:
        unit = 2.0 ** rng.choice([-40, 0, 40])
        arms = Arms.from_arrays(N, cost=(unit * rng.integers(1, 9, N)).tolist())
        room = (unit * rng.integers(4, 12, 2)).tolist()
        kinds = {"loads": Capacity(workers=Table({"worker": ["x", "y"], "capacity": room}), cost="cost")}
    else:
        arms = Arms.from_arrays(N, slots=rng.choice(["mon", "tue", "mon;tue"], N).tolist())
        roster = Table({"worker": ["x", "x", "y"], "slot": ["mon", "tue", str(rng.choice(["mon", "tue"]))]})
        kinds = {"roster": Scheduling(roster=roster, visits=int(rng.integers(1, 3)))}
    if rng.random() < 0.5:
        kinds["few"] = Budget(at_most=int(rng.integers(1, 5)))
    return asked_of(ActionSet(arms, kinds), rng, scale)


def asked_of(actions, rng, scale):
    """(set, objective, value of its best action or None, unit)."""
    allowed = EVERY[[actions.allows(a) for a in EVERY]]
    if rng.random() < 0.5:
        scores = scale * rng.normal(size=N)
        return actions, Scores(scores), (allowed @ scores).max() if len(allowed) else None, scale
    net = network(rng, scale)
    goal = NetworkObjective(lambda _, net=net: net)
    return actions, goal, float(net(allowed).max()) if len(allowed) else None, scale


PLAIN = [(random_question, part) for part in range(40)]
UNITS = [(question_of_units, part) for part in range(10)]


@pytest.mark.parametrize(
    ("ask", "part"), [*(one if not one[1] else pytest.param(*one, marks=pytest.mark.slow) for one in PLAIN + UNITS)]
)
def test_no_printed_bound_or_optimum_is_refuted_by_enumeration(ask, part):
    """25 random instances a part: 1,000 of plain rows, 250 of rosters and loads."""
    for seed in range(25 * part, 25 * part + amount(10, 25)):
        actions, goal, best, scale = ask(np.random.default_rng(seed))
        if best is None:
            with pytest.raises(InfeasibleError):
                decide(Model(problem_of(actions), actions, goal))
            continue
        made = decide(Model(problem_of(actions), actions, goal))
        size = scale * (1.0 + abs(best) / scale)
        assert actions.allows(made.action)
        assert made.bound >= best - 1e-12 * size, seed
        assert made.value <= best + 1e-12 * size, seed
        if made.status == "optimal":
            span = max(abs(made.value - made.base), abs(made.bound - made.base))
            assert made.value >= best - 1e-4 * span - 1e-6 * made.unit, seed


def test_other_models_and_old_files(tmp_path):
    model, path = saved(tmp_path)
    other = replace(model, actions=ActionSet(model.actions.columns.arms, {"money": Knapsack(cost="cost", at_most=12)}))
    assert "digests" in str(verify(path, other.problem, other.actions, other.objective))
    document = json.loads(path.read_text())
    old = {key: document[key] for key in ("ids", "state", "action", "value", "bound", "violations")}
    verdict = verify({"format": 1, **old}, model.problem, model.actions, model.objective)
    assert verdict.exit_code == 5
    assert "the bound is the solver's word" in str(verdict)


def test_a_file_is_checked_without_solver_and_torch(tmp_path):
    model = ro.load("scheduling", n_arms=10)
    decide(model, np.zeros(10, dtype=int)).to_json(tmp_path / "week.json")
    save_bound(model, bound(model), path=tmp_path / "bound.json")
    asked = ["check", "scheduling", "--set", "n_arms=10"]
    said = without_solver_and_torch(
        [*asked, "--decision", tmp_path / "week.json"], [*asked, "--bound", tmp_path / "bound.json"]
    )
    assert said.count("verified without a solver") == 2


def test_proofs_survive_their_file():
    proof = Proof(
        "tree", 1.5, np.array([0.0, 2.5, 0.0, 1e-30]), None, np.array([3, -1, 4, -1, -1], dtype=np.int16), 1.5
    )
    again = proof.file().proof()
    assert (again.prices == proof.prices).all()
    assert (again.tree == proof.tree).all()
    assert again.target == 1.5
    with pytest.raises(ModelError, match=r"proof.tree"):
        proof.file().model_copy(update={"tree": "AAAA"}).proof()


def test_a_check_that_ran_out_of_time_refutes_nothing(monkeypatch):
    """An honest file of a large network was called false on a busy machine."""
    rng = np.random.default_rng(1)
    actions, net = sets(rng), network(rng)
    goal = NetworkObjective(lambda _: net)
    made = Chooser(problem_of(actions), actions, goal, method="search", many=False).decide()
    assert made.proof.kind == "tree"
    assert verify(made, problem_of(actions), actions, goal).exit_code == 0
    monkeypatch.setattr("rmab_opt.decisions.proof.LONGEST_CHECK", 0.0)
    verdict = verify(made, problem_of(actions), actions, goal)
    assert verdict.exit_code == 5
    assert "not followed to its end" in str(verdict)


def test_programs_whose_numbers_are_parameters_are_verified():
    """The state's numbers are set in a kept program: the checker's own program must hold them too."""
    model = ro.load("interventions")
    assert verify(decide(model, np.zeros(model.problem.n_arms, dtype=int)), *_parts(model)).exit_code == 0


def _parts(model):
    return model.problem, model.actions, model.objective
