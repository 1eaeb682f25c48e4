"""Proofs by a quadratic above a network: any multipliers give a limit that holds, fitted ones a near one."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from proof_models import EVERY, N

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Capacity, Conflict, Knapsack, Scheduling
from rmab_opt.decisions import Chooser, NetworkObjective, quadratics, verify
from rmab_opt.decisions import fitted as prover
from rmab_opt.decisions.fitted import fitted, prices_of
from rmab_opt.decisions.leaves import Layers
from rmab_opt.decisions.proof import layers_of, recheck, rows_of_set
from rmab_opt.decisions.quadratics import Multipliers, implied, limit, tangent
from rmab_opt.decisions.saved import saved_question
from rmab_opt.decisions.scale import scaled
from rmab_opt.encoder import Network
from rmab_opt.errors import ModelError
from rmab_opt.problem import Arms, Problem, Table, Tabular
from rmab_opt.search.quadratic import fit
from rmab_opt.solver import load_profile

KINDS = ("budget", "knapsack", "groups", "quota", "capacity", "roster")
WIDE = 20


@cache
def made(kind: str, n: int = N) -> ActionSet:
    rng = np.random.default_rng(3)
    cost = rng.uniform(0.5, 2.0, n).round(3)
    slots = [";".join(rng.choice(["mon", "tue", "wed"], rng.integers(1, 3), replace=False)) for _ in range(n)]
    arms = Arms.from_arrays(n, cost=cost, load=rng.integers(1, 4, n), slots=slots)
    ids = [f"arm{i}" for i in range(n)]
    money = Knapsack(cost="cost", at_most=float(np.round(0.4 * cost.sum(), 2)))
    team = Table({"worker": ["a", "b"], "capacity": [4, 3]})
    roster = Table({"worker": ["a", "a", "b"], "slot": ["mon", "tue", "wed"]})
    return ActionSet(
        arms,
        {
            "budget": {"count": Budget(at_most=n // 3)},
            "knapsack": {"money": money},
            "groups": {"apart": Conflict(groups=[ids[:3], ids[3:5]]), "count": Budget(at_most=3)},
            "quota": {"some": Budget(at_least=2, at_most=4), "money": money},
            "capacity": {"team": Capacity(workers=team, cost="load")},
            "roster": {"roster": Scheduling(roster=roster)},
        }[kind],
    )


@cache
def points(kind: str) -> np.ndarray:
    """Every allowed action, by the kinds' own checks."""
    return EVERY[[made(kind).allows(a) for a in EVERY]].astype(float)


def net(rng: np.random.Generator, depth: int, n: int = N, width: int = 12, skip: float = 1.0) -> Network:
    layers, before = [], n
    for k in range(depth):
        kind = ("leaky_relu", 0.2) if k and rng.random() < 0.4 else ("clip", 0.0, 1.5) if rng.random() < 0.3 else "relu"
        size = int(rng.integers(2, width))
        layers.append((rng.normal(size=(size, before)), 0.5 * rng.normal(size=size), kind))
        before = size
    last = (rng.normal(size=(1, before)), rng.normal(size=1), "linear")
    return Network.from_arrays([*layers, last], skip=skip * rng.normal(size=n))


def layers(rng: np.random.Generator, depth: int) -> Layers:
    """Gains of any sign in all layers, slopes in all but the first."""
    sizes = [N, *(int(rng.integers(1, 9)) for _ in range(depth))]
    parts = list(zip(sizes[1:], sizes[:-1], strict=True))
    slope = tuple(np.zeros(m) if k == 0 else 0.5 * rng.normal(size=m) for k, (m, _) in enumerate(parts))
    return Layers(
        tuple(rng.normal(size=part) for part in parts),
        tuple(rng.normal(size=m) for m, _ in parts),
        slope,
        tuple(rng.normal(size=m) for m, _ in parts),
        rng.normal(size=sizes[-1]),
        rng.normal(size=N),
        float(rng.normal()),
    )


def values(net: Layers, actions: np.ndarray) -> np.ndarray:
    """The network's values (B,), one action and one neuron at a time."""
    found = []
    for action in actions:
        h = action
        for w, b, s, g in zip(net.weight, net.bias, net.slope, net.gain, strict=True):
            z = np.array([float(row @ h) for row in w]) + b
            h = np.array([s[i] * v + (g[i] * v if v > 0 else 0.0) for i, v in enumerate(z)])
        found.append(float(net.skip @ action) + net.constant + float(net.readout @ h))
    return np.array(found)


def drawn(rng: np.random.Generator, net: Layers, rows, spread: float) -> Multipliers:
    """Any multipliers: a few of the wrong sign, points outside, rows that imply little."""
    sizes = [len(b) for b in net.bias]
    neurons = np.exp(spread * rng.normal(size=(5, sizes[0]))) * np.where(rng.random((5, sizes[0])) < 0.1, -1.0, 1.0)
    bends = rng.normal(size=(3, sizes[1] if len(sizes) > 1 else 0)) * np.exp(spread * rng.normal())
    count, m = int(rng.integers(0, 3)), len(rows.row_lower)
    own = np.exp(spread * rng.normal(size=N)) * np.where(rng.random(N) < 0.2, -1.0, 1.0)
    columns = [rng.normal(0.4, 1.0, N), own, rng.normal(size=N), rng.integers(-1, 4, N).astype(float)]
    prices = rng.normal(size=(count, m)) * (rng.random((count, m)) < 0.7)
    return Multipliers(neurons, bends, np.array(columns), prices)


def lies_above(net: Layers, rows, found: Multipliers, actions: np.ndarray, prices: np.ndarray) -> bool:
    """The tangent at every allowed action, and the limit; whether there was one."""
    line = tangent(net, rows, found)
    if line is None:
        return False
    own = values(net, actions)
    assert (actions @ line[0] + line[1] >= own).all()
    assert limit(net, rows, found, prices) >= own.max()
    return True


@settings(max_examples=amount(40, 1500), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    depth=st.integers(1, 3),
    spread=st.sampled_from([0.0, 1.0, 4.0]),
)
def test_any_multipliers_point_and_prices_give_a_limit_that_holds(seed, kind, depth, spread):
    rng = np.random.default_rng(seed)
    net, rows = layers(rng, depth), rows_of_set(made(kind))
    found = drawn(rng, net, rows, spread)
    assert lies_above(net, rows, found, points(kind), rng.normal(size=len(rows.row_lower)))


def both(network: Network, kind: str):
    """What the search's fit found, and the multipliers made of it."""
    told = []

    def spy(*given):
        told.append(fit(*given))
        return told[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prover, "fit", spy)
        found = fitted(network, made(kind), layers_of(network), rows_of_set(made(kind)), steps=25)
    return told[0], found


@pytest.mark.parametrize("kind", KINDS)
def test_near_fitted_multipliers_nothing_is_given_away_and_the_limit_holds(kind):
    """At the fit the checker finds the fit's own bound; a little off it all terms matter, and it holds as well."""
    for seed in range(amount(4, 40)):
        rng = np.random.default_rng(seed)
        network, rows = net(rng, 1 + seed % 3), rows_of_set(made(kind))
        said, found = both(network, kind)
        own = layers_of(network)
        line = tangent(own, rows, found)
        prices = prices_of(made(kind), line[0], 10.0)
        assert lies_above(own, rows, found, points(kind), prices)
        bound = limit(own, rows, found, prices)
        span = bound - values(own, points(kind)).min()
        assert bound <= said.bound + 1e-5 * span
        for _ in range(3):
            off = replace(found, neurons=found.neurons * np.exp(0.2 * rng.normal(size=found.neurons.shape)))
            off = replace(off, bends=off.bends * np.exp(0.2 * rng.normal(size=off.bends.shape)))
            moved = off.columns.copy()
            moved[:3] *= np.exp(0.2 * rng.normal(size=moved[:3].shape))
            assert lies_above(own, rows, replace(off, columns=moved), points(kind), prices)


def raw(net: Layers, rows, found: Multipliers, ends, a: np.ndarray, r: np.ndarray) -> float:
    """The quadratic at columns and neurons, term by term, wrong signs counted as 0; of one or two layers."""
    z = net.weight[0] @ a + net.bias[0]
    square, room, on, over, under = found.neurons[0], *np.maximum(found.neurons[1:], 0.0)
    total = float(net.skip @ a) + net.constant
    for i, (low, high) in enumerate(zip(*ends[0], strict=True)):
        if high <= 0:
            continue
        line = high * (z[i] - low) / (high - low) if low < 0 else z[i]
        total += square[i] * r[i] * (z[i] - r[i]) + room[i] * r[i] * (high - r[i]) + on[i] * r[i]
        total += over[i] * (r[i] - z[i]) + under[i] * (line - r[i])
    if len(net.bias) == 1:
        total += float((net.readout * net.gain[0]) @ np.where(ends[0][1] > 0, r, 0.0))
    else:
        y = net.weight[1] @ (net.gain[0] * np.where(ends[0][1] > 0, r, 0.0)) + net.bias[1]
        for j, (low, high) in enumerate(zip(*ends[1], strict=True)):
            total += net.readout[j] * net.slope[1][j] * y[j]
            part = net.readout[j] * net.gain[1][j]
            q, p, alpha = max(found.bends[0, j], 0.0), found.bends[1, j], min(max(found.bends[2, j], 0.0), 1.0)
            grid = np.append(np.linspace(low, high, 4001), np.clip(0.0, low, high))
            lift = float((np.maximum(grid, 0.0) - q * grid * grid - p * grid).max())
            if low >= 0:
                total += part * y[j]
            elif high > 0:
                total += part * (q * y[j] ** 2 + p * y[j] + lift if part > 0 else alpha * y[j])
    for j in range(N):
        total += found.columns[1, j] * a[j] * (1.0 - a[j])
        k = int(found.columns[3, j])
        if 0 <= k < len(found.implied):
            row = implied(rows, found.implied[k])
            if np.isfinite(row.most):
                total += max(found.columns[2, j], 0.0) * a[j] * (row.most - float(row.weight @ a))
    return total


def best_r(value, m: int) -> np.ndarray:
    """Where a function that is quadratic in r (m,) is flat, by differences."""
    unit = np.eye(m)
    flat, ahead, behind = value(np.zeros(m)), [value(e) for e in unit], [value(-e) for e in unit]
    slope = 0.5 * (np.array(ahead) - np.array(behind))
    bend = np.array([[value(d + e) - ahead[i] - ahead[j] + flat for j, e in enumerate(unit)]
                     for i, d in enumerate(unit)])  # fmt: skip
    return np.linalg.lstsq(bend, -slope, rcond=None)[0]


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_tangent_touches_the_quadratic_and_lies_above_it(kind, depth):
    """At an action, where all is concave; elsewhere, and where something lacked, it is above at any r in its box."""
    for seed in range(amount(4, 40)):
        rng = np.random.default_rng(seed)
        net, rows = layers(rng, depth), rows_of_set(made(kind))
        found = drawn(rng, net, rows, 0.5)
        ends = quadratics.ends_of(net, rows, [implied(rows, y) for y in found.implied])
        action = points(kind)[rng.integers(len(points(kind)))]
        columns = found.columns.copy()
        columns[0] = action
        lacking = replace(found, columns=columns)
        firm = replace(lacking, neurons=found.neurons + np.array([100.0, 0, 0, 0, 0])[:, None])
        firm = replace(firm, columns=columns + np.array([0, 1e4, 0, 0])[:, None])
        alive = np.maximum(ends[0][1], 0.0)
        for each in (firm, lacking):
            cost, constant = tangent(net, rows, each)
            if each is firm:
                here = np.where(alive > 0, best_r(partial(raw, net, rows, firm, ends, action), len(alive)), 0.0)
                top = raw(net, rows, firm, ends, action, here)
                assert cost @ action + constant == pytest.approx(top, rel=1e-6, abs=1e-5)
            for a in (action, *points(kind)[:: max(1, len(points(kind)) // 6)]):
                for r in (alive, 0.0 * alive, *(rng.random((3, len(alive))) * alive)):
                    inside = np.clip(r, np.maximum(ends[0][0], 0.0), alive)
                    under = raw(net, rows, each, ends, a, inside)
                    assert cost @ a + constant >= under - 1e-9 * (1.0 + abs(under))


def test_later_layers_that_never_bend_are_what_they_fold_into():
    for seed in range(amount(8, 80)):
        rng = np.random.default_rng(seed)
        net, rows = layers(rng, 3), rows_of_set(made("knapsack"))
        bias = np.where(rng.random(len(net.bias[2])) < 0.5, -1e4, 1e4)
        net = net._replace(bias=(*net.bias[:2], bias))
        part = net.readout * (net.slope[2] + net.gain[2] * (bias > 0))
        folded = Layers(
            net.weight[:2], net.bias[:2], net.slope[:2], net.gain[:2],
            net.weight[2].T @ part, net.skip, net.constant + float(part @ bias),
        )  # fmt: skip
        found = drawn(rng, net, rows, 0.5)
        one, two = tangent(net, rows, found), tangent(folded, rows, found)
        assert one[0] == pytest.approx(two[0], rel=1e-7, abs=1e-6)
        assert one[1] == pytest.approx(two[1], rel=1e-7, abs=1e-6)


def single(square: float) -> tuple[Layers, Multipliers]:
    """One neuron z = a_0 + 0.01 that is not read, and one multiplier, of r (z - r); the tangent at nothing chosen."""
    weight, zero = np.zeros((1, N)), np.zeros(1)
    weight[0, 0] = 1.0
    net = Layers((weight,), (np.array([0.01]),), (zero,), (np.ones(1),), zero, np.zeros(N), 0.0)
    columns = np.array([np.zeros(N), np.ones(N), np.zeros(N), -np.ones(N)])
    return net, Multipliers(np.array([[square], *[[0.0]] * 4]), np.zeros((3, 0)), columns, np.zeros((0, 1)))


def test_what_lacks_for_being_concave_in_neurons_lies_above_at_their_ends():
    """-r (z - r) is convex: at z = 0.01 and r = 1.01, which the checker cannot exclude, it is 1.01."""
    rows = rows_of_set(made("knapsack"))
    net, found = single(-1.0)
    assert tangent(net, rows, found)[1] >= 1.01


def test_the_best_r_need_not_be_exact(monkeypatch):
    """Its slope is met by the ends of r: of 4 r (0.01 - r) the most is at r = 0.005, the tangent at 0 holds too."""
    rows = rows_of_set(made("knapsack"))
    net, found = single(4.0)
    assert tangent(net, rows, found)[1] == pytest.approx(1e-4, rel=1e-6)
    solve = np.linalg.solve
    for share in (0.0, 0.5):
        monkeypatch.setattr(
            np.linalg, "solve", lambda left, side, share=share: solve(left, side) * (share if side.ndim == 1 else 1.0)
        )
        assert tangent(net, rows, found)[1] > 1.1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_prices_imply_rows_that_every_action_keeps(kind):
    rows, rng = rows_of_set(made(kind)), np.random.default_rng(0)
    finite = 0
    for _ in range(amount(20, 200)):
        y = rng.normal(size=len(rows.row_lower)) * (rng.random(len(rows.row_lower)) < 0.5)
        weight, most = implied(rows, y)
        finite += np.isfinite(most)
        assert (points(kind) @ weight <= most).all()
    assert finite
    network = net(np.random.default_rng(1), 2)
    found = fitted(network, made(kind), layers_of(network), rows, steps=20)
    for y in found.implied:
        weight, most = implied(rows, y)
        assert most < weight.sum() - 0.4


def test_parabolas_stand_as_low_as_they_can():
    rng = np.random.default_rng(0)
    curve, slope = np.where(rng.random(200) < 0.1, 0.0, rng.exponential(size=200)), rng.normal(0.5, 1.0, 200)
    ends = np.sort(2.0 * rng.normal(size=(2, 200)), axis=0)
    lift = quadratics._lift(curve, slope, *ends)
    y = np.linspace(*ends, 2001)
    inside = np.where((ends[0] <= 0) & (ends[1] >= 0), 0.0, ends[0])
    y = np.vstack([y, inside])
    grid = (np.maximum(y, 0.0) - curve * y * y - slope * y).max(axis=0)
    assert (lift >= grid - 1e-12).all()
    assert (lift <= grid + 1e-4 * (1.0 + curve)).all()


def test_what_is_no_number_or_does_not_fit_proves_nothing():
    rng = np.random.default_rng(4)
    net, rows = layers(rng, 2), rows_of_set(made("knapsack"))
    found = drawn(rng, net, rows, 0.5)
    found = replace(found, implied=np.ones((2, len(rows.row_lower))))
    prices = np.ones(len(rows.row_lower))
    assert np.isfinite(limit(net, rows, found, prices))
    for name in ("neurons", "bends", "columns", "implied"):
        part = getattr(found, name)
        for bad in (np.nan, np.inf, -np.inf):
            broken = part.copy()
            broken.flat[0] = bad
            assert limit(net, rows, replace(found, **{name: broken}), prices) == np.inf
        assert limit(net, rows, replace(found, **{name: part[:, :-1]}), prices) == np.inf
    for scale in (1e100, 1e200, 1e300):
        assert (
            limit(net, rows, replace(found, neurons=found.neurons * scale), prices)
            >= values(net, points("knapsack")).max()
        )
    assert limit(net, rows, found, np.full(1, np.nan)) == np.inf
    assert limit(net, rows, found, np.ones(5)) == np.inf
    sloped = net._replace(slope=(0.1 + net.slope[0], *net.slope[1:]))
    assert tangent(sloped, rows, found) is None
    assert tangent(net._replace(weight=(), bias=(), slope=(), gain=()), rows, found) is None
    many = replace(found, implied=np.ones((quadratics.MOST_IMPLIED + 1, len(rows.row_lower))))
    assert tangent(net, rows, many) is None


def wide(depth: int, kind: str, nodes: int = 400) -> Chooser:
    """Decides over a network like trained ones, stopped early."""
    rng = np.random.default_rng(depth)
    layers, before = [], WIDE
    for width in (160,) if depth == 1 else (90, 90):
        layers.append((rng.normal(size=(width, before)) / np.sqrt(before), 0.3 * rng.normal(size=width), "relu"))
        before = width
    network = Network.from_arrays([*layers, (rng.normal(size=(1, before)) / np.sqrt(before), np.zeros(1), "linear")])
    actions = made(kind, WIDE)
    n = len(actions.columns.ids)
    tables = Tabular(np.full((n, 2, 2, 2), 0.5), np.zeros((n, 2, 2)))
    problem = Problem(actions.columns.arms, tables, horizon=3, start=np.zeros(n, dtype=int))
    goal = NetworkObjective(lambda _, network=network: network)
    profile = replace(load_profile("default"), nodes=nodes, proof_nodes=100)
    return Chooser(problem, actions, goal, profile, method="search", many=False)


def test_wide_networks_have_proofs_whose_files_follow(tmp_path):
    """Of kind ``quadratic`` or a closed tree, checked from the file; lower claims are refused, others stay true."""
    kinds = []
    for depth in (1, 2):
        chooser = wide(depth, "knapsack")
        decision = chooser.decide()
        path = tmp_path / f"{depth}.json"
        decision.to_json(path)
        parts = chooser.problem, chooser.actions, chooser.objective
        kinds.append(decision.proof.kind)
        assert decision.status == "optimal" or decision.proof.kind == "quadratic"
        assert decision.proof.words() in str(decision)
        verdict = verify(path, *parts)
        assert verdict.ok
        assert verdict.proven
        if decision.proof.kind != "quadratic":
            continue
        document = json.loads(path.read_text())
        lower = {**document, "bound": decision.value, "gap": 0.0, "relative_gap": 0.0}
        lower["proof"] = {**document["proof"], "proven_bound": decision.value}
        assert not verify(lower, *parts).ok
        for field in ("neurons", "bends", "columns", "implied", "prices"):
            with pytest.raises(ModelError, match=f"proof.{field}"):
                verify({**document, "proof": {**document["proof"], field: "AAAA"}}, *parts)
            if field != "prices":
                assert not verify({**document, "proof": {**document["proof"], field: None}}, *parts).ok
        _, question = saved_question(path, *parts)
        unit, asked = scaled(question)
        again = decision.proof.file().proof()
        assert recheck(again, asked) == recheck(replace(decision.proof), asked)
        assert again.words() == decision.proof.words()
        rng = np.random.default_rng(depth)
        for name in ("neurons", "bends", "columns", "implied"):
            for scale in (0.0, 0.3, 3.0):
                part = getattr(again.quadratic, name)
                forged = replace(again.quadratic, **{name: part * (1.0 + scale * rng.normal(size=part.shape))})
                found = recheck(replace(again, quadratic=forged), asked) * unit.size + unit.base
                assert found >= decision.value
        assert recheck(replace(again, table=3), asked) == np.inf
        assert recheck(replace(again, table=None, counted=0), asked) == np.inf
        assert recheck(replace(again, prices=None), asked) == np.inf
    assert "quadratic" in kinds


def test_nothing_is_fitted_without_time_a_bend_or_a_choice():
    network, actions = net(np.random.default_rng(0), 2), made("budget")
    rows = rows_of_set(actions)
    assert fitted(network, actions, layers_of(network), rows) is not None
    assert fitted(network, actions, layers_of(network), rows, seconds=0.0) is None
    sloped = Network.from_arrays(
        [(np.ones((3, N)), np.zeros(3), ("leaky_relu", 0.1)), (np.ones((1, 3)), np.zeros(1), "linear")]
    )
    assert fitted(sloped, actions, layers_of(sloped), rows) is None
    straight = Network.from_arrays([(np.ones((1, N)), np.zeros(1), "linear")])
    assert fitted(straight, actions, layers_of(straight), rows) is None
    nothing = ActionSet(actions.columns.arms, {"count": Budget(at_most=0)})
    own, rows = layers_of(network), rows_of_set(nothing)
    assert lies_above(own, rows, fitted(network, nothing, own, rows), np.zeros((1, N)), np.zeros(1))


def test_a_quadratic_proves_more_than_a_tree_that_stays_open(monkeypatch):
    chooser = wide(2, "budget", nodes=60)
    by_quadratic = chooser.decide()
    monkeypatch.setattr("rmab_opt.decisions.proof.WIDE", 10**6)
    by_tree = wide(2, "budget", nodes=60).decide()
    assert by_tree.proof.kind == "tree"
    assert by_quadratic.proof.kind == "quadratic"
    assert by_quadratic.gap < 0.7 * by_tree.gap
