"""A shared state beside the arms': two tiny settings, held against enumeration of everything that can happen."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
from amounts import amount

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Chooser, Model, decide, verify
from rmab_opt.decisions.objective import Immediate, Situation
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.learning import evaluate
from rmab_opt.learning.simulator import Simulator
from rmab_opt.problem import Arms, Problem, Table, Tabular, draw_next
from rmab_opt.programme.ledger import Ledger


class Shared:
    """Arms of two states, bad and good, paid for being good; a call lifts an arm with a chance the subclass says."""

    n_arms, n_states, n_actions = 3, 2, 2
    shared_names: tuple[str, ...] = ()
    up, stay = np.array([0.1, 0.05, 0.2]), np.array([0.7, 0.8, 0.6])
    value = np.array([1.0, 1.5, 0.7])

    def success(self, shared: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def after(self, action: np.ndarray, shared: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def p_next(self, state: np.ndarray, action: np.ndarray, shared: np.ndarray) -> np.ndarray:
        rest = np.where(np.asarray(state) == 1, self.stay, self.up)
        good = rest + (1 - rest) * np.asarray(action) * self.success(np.asarray(shared))
        return np.stack([1 - good, good], axis=-1)

    def expected_reward(self, state: np.ndarray, action: np.ndarray, shared: np.ndarray) -> np.ndarray:
        return self.p_next(state, action, shared)[..., 1] * self.value

    def step_shared(self, state, action, shared, rng):
        moved = draw_next(self.p_next(state, action, shared), rng)
        return moved, moved * self.value, self.after(np.asarray(action), np.asarray(shared))


class Stock(Shared):
    """A season's stock of calls: each call uses one up."""

    shared_names = ("stock",)
    shared_start = np.array([2.0])

    def success(self, shared):
        return np.array([0.9, 0.6, 0.8])

    def after(self, action, shared):
        return shared - action.sum(axis=-1, keepdims=True)


class Fatigue(Shared):
    """A worker tires by one for every call beyond the first, rests by one without, and helps less when tired."""

    shared_names = ("fatigue",)
    shared_start = np.array([0.0])

    def success(self, shared):
        return np.array([0.9, 0.6, 0.8]) * (1 - 0.3 * shared)

    def after(self, action, shared):
        return np.clip(shared + action.sum(axis=-1, keepdims=True) - 1, 0, 3)


def stock(horizon: int = 3) -> Model:
    arms = Arms.from_arrays(3)
    return Model(
        Problem(arms, Stock(), horizon=horizon, start=np.ones(3, dtype=np.int64)),
        ActionSet(arms, {"season": Budget(at_most={"from": "stock"})}),
    )


def fatigue(horizon: int = 3) -> Model:
    arms = Arms.from_arrays(3)
    return Model(
        Problem(arms, Fatigue(), horizon=horizon, start=np.ones(3, dtype=np.int64)),
        ActionSet(arms, {"calls": Budget(at_most=2)}),
    )


ACTIONS = np.array(list(product((0, 1), repeat=3)))


def optimum(model: Model) -> tuple[float, np.ndarray]:
    """Value and first action by enumeration of actions and next states, from the class's own formulas."""
    dynamics = model.problem.dynamics

    def best(state: tuple[int, ...], shared: float, left: int) -> tuple[float, np.ndarray]:
        if not left:
            return 0.0, ACTIONS[0]
        found = (-np.inf, ACTIONS[0])
        for action in ACTIONS:
            limit = shared if dynamics.shared_names == ("stock",) else 2
            if action.sum() > limit:
                continue
            chances = dynamics.p_next(np.array(state), action, np.array([shared]))
            following = float(dynamics.after(action, np.array([shared]))[0])
            value = float((chances[:, 1] * dynamics.value).sum())
            for moved in product((0, 1), repeat=3):
                chance = float(np.prod(chances[np.arange(3), moved]))
                value += chance * best(moved, following, left - 1)[0]
            if value > found[0] + 1e-12:
                found = (value, action)
        return found

    return best((1, 1, 1), float(model.problem.start_shared[0]), model.problem.horizon)


@pytest.mark.parametrize("make", amount([stock], [stock, fatigue]))
def test_an_exact_plan_earns_in_the_simulator_what_enumeration_says(make):
    model = make()
    exact, _ = optimum(model)
    dynamics, plan = model.problem.dynamics, {}
    left = model.problem.horizon

    def act(state, shared, allowed):
        key = (tuple(state.tolist()), float(shared[0]), left)
        if key not in plan:
            later = Problem(model.problem.arms, dynamics, horizon=left, start=state, start_shared=shared)
            plan[key] = _best_by_values(Model(later, model.actions), values)
        return plan[key]

    values = _values(model)
    simulator = Simulator(model.problem, model.actions, np.random.SeedSequence(4).spawn(400))
    total, done = np.zeros(400), False
    while not done:
        now = zip(simulator.state, simulator.shared, simulator.sets(), strict=True)
        _, _, expected, done = simulator.step(np.stack([act(*each) for each in now]))
        total += expected.sum(axis=1)
        left -= 1
    error = float(total.std(ddof=1) / 400**0.5)
    assert values[(1, 1, 1), float(model.problem.start_shared[0]), model.problem.horizon] == pytest.approx(exact)
    assert abs(total.mean() - exact) < 4 * error
    # The settings can tell: planning by the round alone earns less.
    begin = (1, 1, 1), float(model.problem.start_shared[0]), model.problem.horizon
    assert _values(model, myopic=True)[begin] < exact - 0.02


def _allowed(model: Model, shared: float, period: int = 0) -> list[np.ndarray]:
    allowed = model.actions.at(period, {model.problem.shared_names[0]: shared})
    return [action for action in ACTIONS if allowed.allows(action)]


def _values(model: Model, myopic: bool = False) -> dict:
    """Values of every state, shared value and rounds left, by the package's own sets."""
    dynamics, found = model.problem.dynamics, {}
    reach = {float(model.problem.start_shared[0])}
    for _ in range(model.problem.horizon):
        reach |= {float(dynamics.after(a, np.array([s]))[0]) for s in reach for a in _allowed(model, s)}
    for left in range(model.problem.horizon + 1):
        for state, shared in product(product((0, 1), repeat=3), reach):
            found[state, shared, left] = 0.0
            if left:
                known = {} if myopic else found
                worth = [_worth(dynamics, state, shared, a, known, left) for a in _allowed(model, shared)]
                best = _allowed(model, shared)[int(np.argmax(worth))]
                found[state, shared, left] = _worth(dynamics, state, shared, best, found, left)
    return found


def _worth(dynamics, state, shared, action, values, left) -> float:
    chances = dynamics.p_next(np.array(state), action, np.array([shared]))
    following = float(dynamics.after(action, np.array([shared]))[0])
    later = sum(
        float(np.prod(chances[np.arange(3), moved])) * values.get((moved, following, left - 1), 0.0)
        for moved in product((0, 1), repeat=3)
    )
    return float((chances[:, 1] * dynamics.value).sum()) + later


def _best_by_values(model: Model, values: dict) -> np.ndarray:
    problem = model.problem
    state, shared = tuple(problem.start.tolist()), float(problem.start_shared[0])
    return max(
        _allowed(model, shared), key=lambda a: _worth(problem.dynamics, state, shared, a, values, problem.horizon)
    )


def test_the_simulator_keeps_the_stock_and_refuses_what_is_not_left():
    model = stock()
    simulator = Simulator(model.problem, model.actions, np.random.SeedSequence(0).spawn(2))
    assert simulator.shared.tolist() == [[2.0], [2.0]]
    simulator.step(np.array([[1, 1, 0], [1, 0, 0]]))
    assert simulator.shared.tolist() == [[0.0], [1.0]]
    with pytest.raises(ModelError, match="season"):
        simulator.step(np.array([[1, 0, 0], [1, 0, 0]]))
    simulator.step(np.array([[0, 0, 0], [0, 0, 1]]))
    assert simulator.shared.tolist() == [[0.0], [0.0]]
    assert simulator.reset().shape == (2, 3)
    assert simulator.shared.tolist() == [[2.0], [2.0]]


@pytest.mark.parametrize("make", [stock, fatigue])
def test_expected_reward_and_chances_agree_with_many_draws(make):
    problem, rng = make().problem, np.random.default_rng(1)
    state, action, shared = np.array([0, 1, 0]), np.array([1, 0, 1]), np.array([2.0])
    many = 20_000
    moved, paid, after = problem.step(
        np.tile(state, (many, 1)), np.tile(action, (many, 1)), np.tile(shared, (many, 1)), rng
    )
    chances = problem.dynamics.p_next(state, action, shared)
    assert chances.shape == (3, 2)
    assert chances.sum(axis=1) == pytest.approx(np.ones(3))
    assert moved.mean(axis=0) == pytest.approx(chances[:, 1], abs=4 * 0.5 / many**0.5)
    assert paid.mean(axis=0) == pytest.approx(problem.expected_reward(state, action, shared), abs=0.02)
    assert (after == problem.dynamics.after(action, shared)).all()


def test_the_round_s_reward_is_read_at_the_shared_state():
    model = fatigue()
    columns, state = model.actions.columns, np.array([0, 1, 0])
    for tired in (0.0, 2.0):
        situation = Situation(model.problem, columns, state, 1, np.array([tired]))
        table = Immediate().arm_values(situation)
        for action in ACTIONS:
            direct = model.problem.dynamics.expected_reward(state, action, np.array([tired])).sum()
            assert table[np.arange(3), action].sum() == pytest.approx(direct)
            assert Immediate().value(action, situation) == pytest.approx(direct)
    with pytest.raises(ModelError, match="fatigue is not given"):
        Immediate().arm_values(Situation(model.problem, columns, state))


def test_a_state_file_has_a_row_a_shared_value():
    problem = stock().problem
    table = Table({"id": ["arm1", "shared:stock", "arm0", "arm2"], "state": ["1", "1.5", "0", "1"]}, source="s.csv")
    assert problem.read_state(table).tolist() == [0, 1, 1]
    assert problem.read_shared(table).tolist() == [1.5]
    for cells, words in (
        ({"id": ["arm0"], "state": ["1"]}, "no row shared:stock"),
        ({"id": ["shared:stock", "shared:stock"], "state": ["1", "2"]}, "2: 'shared:stock' stands twice"),
        ({"id": ["shared:stok", "shared:stock"], "state": ["1", "2"]}, "1: no shared value 'stok'.*'stock'"),
        ({"id": ["shared:stock"], "state": ["nan"]}, "1: shared:stock is 'nan'"),
        ({"id": ["shared:stock"], "state": ["many"]}, "1: shared:stock is 'many'"),
    ):
        with pytest.raises(ModelError, match=words):
            problem.read_shared(Table(cells, source="s.csv"))
    plain = Problem(Arms.from_arrays(["shared:stock"]), _plain(1))
    assert plain.read_state(Table({"id": ["shared:stock"], "state": ["1"]})).tolist() == [1]
    assert plain.read_shared(Table({"id": ["shared:stock"], "state": ["1"]})) is None


def _plain(n_arms: int) -> Tabular:
    return Tabular(np.full((n_arms, 2, 2, 2), 0.5), np.ones((n_arms, 2)))


def test_what_is_half_said_is_refused_by_name():
    arms = Arms.from_arrays(3)

    class Halved(Stock):
        step_shared = None

    class Tables(Stock):
        def tabular(self):
            return _plain(3).tabular()

    class Doubled(Stock):
        shared_names, shared_start = ("stock", "stock"), np.zeros(2)

    with pytest.raises(CapabilityError, match=r"step_shared\(\)"):
        Problem(arms, Halved())
    with pytest.raises(ModelError, match=r"offers tabular\(\)(.|\n)*frozen_tabular"):
        Problem(arms, Tables())
    with pytest.raises(ModelError, match="its own name"):
        Problem(arms, Doubled())
    for given, words in (([1.0, 2.0], "shape"), ([np.inf], "stock is inf"), (["x"], "give numbers")):
        with pytest.raises(ModelError, match=words):
            Problem(arms, Stock(), start_shared=given)
    with pytest.raises(ModelError, match="share no state"):
        Problem(arms, _plain(3), start_shared=np.array([1.0]))
    problem = Problem(arms, Stock(), start_shared=np.array([5]))
    assert problem.shared_values(problem.start_shared) == {"stock": 5.0}
    with pytest.raises(ModelError, match="names 'stok'"):
        problem.shared_array({"stok": 1.0})
    with pytest.raises(ModelError, match="lacks 'stock'"):
        problem.shared_array({})


def test_what_needs_tables_of_single_arms_refuses(tmp_path):
    from rmab_opt.decisions import bound
    from rmab_opt.decisions.policy import make_policy
    from rmab_opt.learning import DQNConfig, train

    model = fatigue()
    with pytest.raises(CapabilityError, match=r"tabular\(\)"):
        bound(model)
    for name in ("whittle", "rollout"):
        with pytest.raises(CapabilityError, match=r"tabular\(\)"):
            make_policy(name, model)
    # Deep Q-learning carries the shared state since it was given one; it needs no tables.
    assert len(train(model, DQNConfig(network="dense", episodes=1), out=tmp_path / "run").log) == 1


def test_arms_without_a_shared_state_draw_as_before():
    arms, dynamics = Arms.from_arrays(3), _plain(3)
    problem = Problem(arms, dynamics, horizon=5)
    simulator = Simulator(problem, ActionSet(arms, {"calls": Budget(at_most=1)}), np.random.SeedSequence(3).spawn(2))
    generators = [np.random.default_rng(seed) for seed in np.random.SeedSequence(3).spawn(2)]
    state, action = np.zeros((2, 3), dtype=np.int64), np.array([[1, 0, 0], [0, 0, 1]])
    assert simulator.shared is None
    for _ in range(5):
        state = np.stack([dynamics.step(s, a, rng)[0] for s, a, rng in zip(state, action, generators, strict=True)])
        assert (simulator.step(action)[0] == state).all()
    assert simulator.sets() == [simulator.actions] * 2


def test_an_observation_is_a_copy_with_the_shared_state():
    from rmab_opt.learning.environment import RestlessBanditEnv

    env = RestlessBanditEnv(stock(), forbidden="raise")
    seen, _ = env.reset(seed=1)
    assert env.observation_space.contains(seen)
    seen["state"][:] = 1
    seen["shared"][:] = 99.0
    now, *_ = env.step(np.array([1, 1, 0]))
    assert now["shared"].tolist() == [0.0]
    assert env.sample_action().tolist() == [0, 0, 0]
    with pytest.raises(ModelError, match="season"):
        env.step(np.array([1, 0, 0]))
    plain = RestlessBanditEnv(
        Model(Problem(Arms.from_arrays(3), _plain(3)), ActionSet(Arms.from_arrays(3), {"calls": Budget(at_most=1)}))
    )
    seen, _ = plain.reset(seed=1)
    before = plain.render()
    seen["state"][:] = 1 - seen["state"]
    assert plain.render() == before
    assert plain.observation_space.contains(seen)


@pytest.mark.parametrize("make", [stock, fatigue])
def test_decide_is_the_best_allowed_action_at_the_shared_state_and_says_so(make):
    model = make()
    name = model.problem.shared_names[0]
    for state, value in product(([0, 1, 0], [0, 0, 0]), (0.0, 1.0, 2.0)):
        made = decide(model, np.array(state), shared={name: value}, period=1)
        allowed = _allowed(model, value, 1)
        best = max(model.problem.dynamics.expected_reward(np.array(state), a, np.array([value])).sum() for a in allowed)
        assert made.value == pytest.approx(best)
        assert made.shared == {name: value}
        document = json.loads(made.to_json())
        assert document["shared"] == {name: value}
        assert verify(document, model.problem, model.actions, model.objective).ok
        assert not verify({**document, "value": best + 1}, model.problem, model.actions, model.objective).ok
    if name == "stock":
        # Two calls where one is left: the re-check looks at the stock that was decided for.
        two = {**document, "shared": {"stock": 1.0}}
        assert "season" in verify(two, model.problem, model.actions, model.objective).problems[0]
        with pytest.raises(ModelError, match="lacks 'stock'"):
            verify({**document, "shared": {}}, model.problem, model.actions, model.objective)


def test_a_decision_reads_its_state_file_and_answers_again_at_its_own_stock():
    model = stock()
    table = Table({"id": ["arm0", "arm1", "arm2", "shared:stock"], "state": ["0", "0", "0", "1"]})
    made = decide(model, table)
    assert len(made.chosen) == 1
    other = next(name for name in made.ids if name not in made.chosen)
    assert f"displaces {made.chosen[0]}" in made.why_not(other)
    assert all(len(plan.chosen) <= 1 for plan in made.alternatives(2, within=1.0))


def test_batches_decide_each_at_its_own_shared_state():
    model = stock()
    chooser = Chooser(model.problem, model.actions, model.objective)
    shared = np.array([[2.0], [0.0], [1.0]])
    made = chooser.batch_decide(np.zeros((3, 3), dtype=np.int64), 1, shared=shared)
    assert [len(each.chosen) for each in made] == [2, 0, 1]
    assert [each.shared for each in made] == [{"stock": value} for value in (2.0, 0.0, 1.0)]


@pytest.mark.parametrize("make", amount([stock], [stock, fatigue]))
def test_policies_are_evaluated_at_the_shared_state(make):
    """The myopic rule's simulated worth is its exact one, and every plain policy respects the stock."""
    model = make()
    table = evaluate(
        model, ["none", "random", "sampling", "myopic", "iterative_myopic"], episodes=amount(20, 40), bound=False
    )
    begin = (1, 1, 1), float(model.problem.start_shared[0]), model.problem.horizon
    exact = _values(model, myopic=True)[begin]
    row = next(row for row in table.rows if row["policy"] == "myopic")
    assert row["low"] - 0.3 <= exact <= row["high"] + 0.3
    idle = next(row["reward"] for row in table.rows if row["policy"] == "none")
    assert idle < exact


def test_a_ledger_keeps_the_shared_values(tmp_path):
    model = stock()
    made = json.loads(decide(model, np.array([1, 1, 0]), shared={"stock": 2.0}).to_json())
    rows = {"id": [*made["ids"], "shared:stock"], "state": ["1", "1", "0", "1"], "done": ["", "no", "", ""]}
    with pytest.raises(ModelError, match="no row shared:stock"):
        Ledger(tmp_path, model).record(made, Table({"id": ["arm0"], "state": ["1"]}))
    with pytest.raises(ModelError, match="season"):
        Ledger(tmp_path, model).record({**made, "shared": {"stock": 0.0}}, Table(rows))
    Ledger(tmp_path, model).record(made, Table(rows))
    standing = Ledger(tmp_path, model).standing()
    assert standing.shared == {"stock": 1.0}
    assert standing.state.tolist() == [1, 1, 0]
    # Somebody not seen moves by the chances at the round's own stock.
    second = json.loads(decide(model, standing.state, period=1, shared=standing.shared).to_json())
    some = Table({"id": ["arm0", "arm1", "shared:stock"], "state": ["0", "1", "0"]})
    Ledger(tmp_path, model).record(second, some)
    acted = np.isin(model.problem.arms.ids, second["action"]).astype(int)
    chances = model.problem.dynamics.p_next(np.array([1, 1, 0]), acted, np.array([1.0]))
    assert Ledger(tmp_path, model).standing().belief[2] == pytest.approx(chances[2])


@pytest.mark.parametrize("kind", ["dense", "pooled"])
def test_networks_see_the_shared_state(kind):
    """The encoded network is the forward pass at every action and stock, and the stock changes it."""
    torch = pytest.importorskip("torch")
    from rmab_opt.learning.networks import make_network

    model = stock()
    network = make_network(kind, model.problem, model.actions.columns, (6,), 3, 1.0, 0)
    state, outputs = np.array([0, 1, 1]), []
    for value in (0.0, 2.0):
        shared = np.array([value])
        encoded = network.at(Situation(model.problem, model.actions.columns, state, 1, shared))
        arms, rest = network(
            torch.as_tensor(np.tile(state, (8, 1))), torch.ones(8, dtype=torch.long), torch.as_tensor(ACTIONS),
            torch.as_tensor(np.tile(shared, (8, 1))),
        )  # fmt: skip
        direct = (rest if arms is None else rest + arms.sum(dim=1)).detach().double().numpy()
        outputs.append(np.asarray(encoded(ACTIONS.astype(float))).ravel())
        assert outputs[-1] == pytest.approx(direct, rel=1e-4, abs=1e-5)
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-4
    with pytest.raises(ModelError, match="stock is not given"):
        network.at(Situation(model.problem, model.actions.columns, state, 1))
