"""Each equation of the learner against tables, alone and where the loop uses it: break its line and a test fails."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from amounts import amount
from torch import Tensor, nn

import rmab_opt as ro
from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Model, Situation
from rmab_opt.errors import CapabilityError
from rmab_opt.learning import DQNConfig, load_policy, targets, train
from rmab_opt.learning.learner import HABIT_RATE, Learner
from rmab_opt.learning.networks import QNetwork, arm_numbers
from rmab_opt.learning.replay import Batch
from rmab_opt.learning.samples import Successors, WarmStart
from rmab_opt.problem import Arms, Problem, Tabular

SMALL = DQNConfig(
    episodes=4, pretrain_steps=5, hidden=(8,), head=2, updates=1, batch=8, capacity=40, validation_episodes=2
)


def config(**change: object) -> DQNConfig:
    return DQNConfig(**{**vars(SMALL), **change})


def model_of(n: int = 3, states: int = 2, horizon: int = 3, seed: int = 0, at_most: int = 1, **more: float) -> Model:
    rng = np.random.default_rng(seed)
    arms = Arms.from_arrays(n)
    dynamics = Tabular(rng.dirichlet(np.ones(states), (n, 2, states)), rng.normal(size=(n, states, 2)))
    problem = Problem(arms, dynamics, horizon=horizon, **more)
    return Model(problem, ActionSet(arms, {"budget": Budget(at_most=at_most)}), solver="exact", title="table")


class TableQ(QNetwork):
    """Q as one number a round, joint state and column chosen (the last for none): any target can be met exactly."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.n_arms, self.n_states = problem.n_arms, problem.dynamics.n_states
        self.register_buffer("scale", torch.tensor(1.0))
        generator = torch.Generator().manual_seed(5)
        shape = (problem.horizon + 1, self.n_states**self.n_arms, problem.n_arms + 1)
        # Beyond the horizon the table is wrong on purpose: nothing may read it there.
        self.table = nn.Parameter(3.0 + torch.randn(shape, generator=generator))

    def place(self, state: Tensor, period: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        joint = (state * self.n_states ** torch.arange(self.n_arms)).sum(dim=1)
        chosen = torch.where(action.sum(dim=1) > 0, action.argmax(dim=1), torch.tensor(self.n_arms))
        return period, joint, chosen

    def forward(self, state: Tensor, period: Tensor, action: Tensor) -> tuple[Tensor | None, Tensor]:
        return None, self.table[self.place(state, period, action)]

    def at(self, situation: Situation):
        raise NotImplementedError


def exact_q(model: Model, discount: float) -> dict[tuple[int, tuple[int, ...], tuple[int, ...]], float]:
    """Q*(t, s, a) by backward induction over joint states, from the arms' tables alone."""
    transition, reward = model.problem.dynamics.tabular()
    n, n_states = model.problem.n_arms, transition.shape[2]
    states = list(itertools.product(range(n_states), repeat=n))
    actions = [tuple(int(i == k) for i in range(n)) for k in range(n)] + [(0,) * n]
    value = dict.fromkeys(states, 0.0)
    found = {}
    for period in range(model.problem.horizon - 1, -1, -1):
        for state, action in itertools.product(states, actions):
            paid = sum(reward[i, state[i], action[i]] for i in range(n))
            later = sum(
                np.prod([transition[i, action[i], state[i], s[i]] for i in range(n)]) * value[s] for s in states
            )
            found[period, state, action] = paid + discount * later
        value = {state: max(found[period, state, action] for action in actions) for state in states}
    return found


@pytest.mark.parametrize("discount", [None, 0.7])
def test_repeated_targets_end_at_the_joint_dynamic_program(monkeypatch, discount):
    """The table set to its own targets, as often as there are rounds, is Q* to float accuracy.

    Needs the terminal mask, the discount (the problem's or the run's), the weights of next states and the argmax.
    """
    model = model_of(discount=0.9)
    monkeypatch.setattr("rmab_opt.learning.learner.make_network", lambda kind, problem, *rest: TableQ(problem))
    monkeypatch.setattr(TableQ, "objective", lambda self, version=None: ro.decisions.Immediate())
    learner = Learner(model, config(next_states=0, discount=discount), 0, "cpu")
    wanted = exact_q(model, 0.9 if discount is None else discount)
    keys = list(wanted)
    period, state, action = (np.array([key[part] for key in keys]) for part in range(3))
    reward = model.problem.dynamics.expected_reward(state, action)
    rng = np.random.default_rng(0)
    following, weight = map(
        np.stack,
        zip(
            *(learner.successors(s, a, s, model.actions, rng)[:2] for s, a in zip(state, action, strict=True)),
            strict=True,
        ),
    )
    choices = np.concatenate([np.eye(3, dtype=int), np.zeros((1, 3), dtype=int)])
    online, target = learner.online, learner.target
    for _ in range(model.problem.horizon):
        size, count = weight.shape
        flat = torch.tensor(following.reshape(size * count, -1))
        after = torch.tensor(np.repeat(np.minimum(period + 1, model.problem.horizon), count))
        with torch.no_grad():
            values = torch.stack([online(flat, after, torch.tensor(c)[None].expand(len(flat), -1))[1] for c in choices])
            best = choices[values.argmax(dim=0).numpy()].reshape(size, count, -1)
            batch = Batch(
                rows=np.arange(size), state=state, period=period, action=action, reward=reward, next_state=following,
                next_action=best, weight=weight, ended=(period + 1 == model.problem.horizon),
            )  # fmt: skip
            arms, rest = learner.follows(batch)
            assert arms is None
            goal = rest + torch.tensor(reward.sum(axis=1))
            place = online.place(torch.tensor(state), torch.tensor(period), torch.tensor(action))
            for network in (online, target):
                network.table[place] = goal.to(network.table.dtype)
    found = online(torch.tensor(state), torch.tensor(period), torch.tensor(action))[1].detach().numpy()
    assert np.allclose(found, [wanted[key] for key in keys], atol=1e-5)


def random_batch(learner: Learner, size: int = 6, k: int = 3, seed: int = 1) -> Batch:
    """Transitions of which the last half have ended, next states of unequal weight."""
    rng, problem = np.random.default_rng(seed), learner.model.problem
    n, horizon, columns = problem.n_arms, problem.horizon, len(learner.model.actions)
    ended = np.arange(size) >= size // 2
    return Batch(
        rows=np.arange(size),
        state=rng.integers(problem.dynamics.n_states, size=(size, n)),
        period=np.where(ended, horizon - 1, rng.integers(horizon - 1, size=size)),
        action=rng.integers(2, size=(size, columns)),
        reward=rng.normal(size=(size, n)),
        next_state=rng.integers(problem.dynamics.n_states, size=(size, k, n)),
        next_action=rng.integers(2, size=(size, k, columns)),
        weight=rng.dirichlet(np.ones(k), size),
        ended=ended.astype(np.uint8),
    )


def value_by_encoder(learner: Learner, network: QNetwork, state, period, action) -> float:
    """Q as the encoder's network over columns says it in numpy: a second way to the number."""
    model = learner.model
    folded = network.at(Situation(model.problem, model.actions.columns, np.asarray(state), int(period)))
    return float(np.ravel(folded(np.asarray(action, dtype=float)[None]))[0])


@pytest.mark.parametrize("network", ["dense", "pooled", "anchored"])
@pytest.mark.parametrize("double", [True, False])
def test_what_follows_is_the_discounted_mean_of_the_target_network_until_the_end(network, double):
    """Every kind, in the learner itself; in both forms of double Q the target network values."""
    learner = Learner(
        model_of(4, 3, 4, discount=0.8), config(network=network, anchor="open_loop", double=double), 0, "cpu"
    )
    learner.begin()
    with torch.no_grad():
        for weights in learner.target.parameters():
            weights.add_(0.3 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(3)))
    batch = random_batch(learner)
    arms, rest = learner.follows(batch)
    found = (rest if arms is None else rest + arms.sum(dim=1)).numpy()
    wanted = np.zeros(len(found))
    transition, _ = learner.model.problem.dynamics.tabular()
    for row in np.flatnonzero(batch.ended == 0):
        for k in range(batch.weight.shape[1]):
            moved, after = batch.next_state[row, k], batch.period[row] + 1
            value = value_by_encoder(learner, learner.target, moved, after, batch.next_action[row, k])
            if network == "anchored":
                v = (learner.target.base[after].numpy() * learner.habit[:, None, :]).sum(axis=2)
                kernel = transition[np.arange(4), batch.action[row], batch.state[row]]
                value -= v[np.arange(4), moved].sum() - (kernel * v).sum()
            wanted[row] += 0.8 * batch.weight[row, k] * value
    assert np.allclose(found, wanted, atol=1e-4)
    assert np.abs(wanted[batch.ended == 0]).min() > 1e-3


def test_the_control_variate_takes_off_all_the_noise_where_its_values_are_right():
    """Arms always treated alike, values of exactly that treatment in every round: one draw is as good as the mean.

    Values of another round would leave noise: the table changes from round to round.
    """
    model = model_of(4, 3, 5, discount=0.9)
    learner = Learner(model, config(network="anchored", anchor="open_loop"), 0, "cpu")
    transition, reward = model.problem.dynamics.tabular()
    treatment = np.array([1, 0, 0, 1])
    learner.habit = np.eye(2)[treatment]
    values, ahead = np.zeros((5, 4, 3, 2)), np.zeros((4, 3))
    for period in range(4, -1, -1):
        values[period] = reward + 0.9 * np.einsum("nast,nt->nsa", transition, ahead)
        ahead = values[period][np.arange(4), :, treatment]
    learner.target.base.copy_(torch.as_tensor(values))
    for period in range(4):
        state = np.array([0, 1, 2, 1])
        draws = np.array(list(itertools.product(range(3), repeat=4)))
        size = len(draws)
        batch = Batch(
            rows=np.arange(size), state=np.tile(state, (size, 1)), period=np.full(size, period),
            action=np.tile([0, 1, 0, 0], (size, 1)), reward=np.zeros((size, 4)), next_state=draws[:, None],
            next_action=np.tile(treatment, (size, 1, 1)), weight=np.ones((size, 1)), ended=np.zeros(size),
        )  # fmt: skip
        _, rest = learner.follows(batch)
        kernel = transition[np.arange(4), [0, 1, 0, 0], state]
        mean = 0.9 * (kernel * values[period + 1][np.arange(4), :, treatment]).sum()
        assert np.allclose(rest.numpy(), mean, atol=1e-5)


def test_the_round_of_a_next_state():
    assert targets.next_round(torch.tensor([0, 3, 4]), 5).tolist() == [1, 4, 4]


@pytest.mark.parametrize("double", [True, False])
def test_double_q_chooses_by_the_online_network_and_single_by_the_target(double):
    """Against trying every action in the network that should choose; the two disagree at most states."""
    learner = Learner(model_of(4, 3, 4, at_most=2), config(network="dense", double=double, argmax="program"), 0, "cpu")
    with torch.no_grad():
        for weights in learner.target.parameters():
            weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(3)))
    everything = learner.model.actions.enumerate().astype(int)
    states = np.random.default_rng(0).integers(3, size=(8, 4))
    found = learner.argmax(states, 1, np.zeros((8, 4), dtype=int))
    best = {
        name: np.stack([
            everything[np.argmax([value_by_encoder(learner, network, s, 1, a) for a in everything])] for s in states
        ])
        for name, network in (("online", learner.online), ("target", learner.target))
    }  # fmt: skip
    assert (best["online"] != best["target"]).any(axis=1).sum() >= 4
    assert np.array_equal(found, best["online" if double else "target"])
    assert targets.who_chooses(double, "online", "target") == ("online" if double else "target")


def weights_of(network: QNetwork) -> np.ndarray:
    return torch.cat([weights.detach().ravel() for weights in network.parameters()]).numpy().copy()


def test_a_soft_target_moves_its_share_of_the_way_each_step():
    learner = Learner(model_of(), config(network="dense", target_rate=0.3, average_rate=0.1), 0, "cpu")
    learner.begin()
    batch = random_batch(learner)
    for _ in range(3):
        before, average = weights_of(learner.target), weights_of(learner.average)
        learner.learn(batch)
        online = weights_of(learner.online)
        assert np.allclose(weights_of(learner.target), 0.7 * before + 0.3 * online, atol=1e-6)
        assert np.allclose(weights_of(learner.average), 0.9 * average + 0.1 * online, atol=1e-6)
        assert not np.allclose(weights_of(learner.target), before, atol=1e-5)


def test_a_periodic_target_stands_still_between_copies_and_is_the_online_network_after_one():
    learner = Learner(
        model_of(), config(network="dense", target="periodic", target_every=4, pretrain_steps=0), 0, "cpu"
    )
    learner.begin()
    batch, copies = random_batch(learner), 0
    for step in range(1, 13):
        before = weights_of(learner.target)
        learner.learn(batch)
        if step % 4:
            assert np.array_equal(weights_of(learner.target), before)
        else:
            copies += 1
            assert np.array_equal(weights_of(learner.target), weights_of(learner.online))
            assert not np.array_equal(weights_of(learner.target), before)
    assert copies == 3
    assert [k for k in range(1, 10) if targets.copy_due(k, 3)] == [3, 6, 9]


def test_next_states_weigh_as_probable_as_they_are():
    """The pure mean against numpy, of totals and of arms; and the drawn next states' own weights sum to one."""
    rng = np.random.default_rng(0)
    weight, ended = rng.dirichlet(np.ones(4), 5), np.array([0, 0, 1, 0, 1.0])
    totals, by_arm = rng.normal(size=(5, 4)), rng.normal(size=(5, 4, 3))
    kept = 0.6 * (1 - ended)
    found = targets.what_follows(*map(torch.tensor, (totals, weight, ended)), 0.6)
    assert np.allclose(found, kept * (totals * weight).sum(axis=1))
    found = targets.what_follows(*map(torch.tensor, (by_arm, weight, ended)), 0.6)
    assert np.allclose(found, kept[:, None] * np.einsum("bk,bkn->bn", weight, by_arm))
    model = model_of()
    for count in (0, 1, 5):
        states, weights, _ = Successors(model.problem, count)(
            np.zeros(3, dtype=int), np.array([1, 0, 0]), np.ones(3, dtype=int), model.actions, rng
        )
        assert len(states) == len(weights)
        assert weights.sum() == pytest.approx(1.0)


def test_the_loss_is_the_huber_loss_of_the_bellman_error_in_its_units():
    """Whole networks against numpy; where arms are told apart, each learns from its own reward, the rest the rest."""

    def huber(error: np.ndarray) -> float:
        size = np.abs(error)
        return float(np.where(size < 1, 0.5 * size**2, size - 0.5).mean())

    rng = np.random.default_rng(0)
    arms, rest, reward = rng.normal(size=(4, 3)) * 3, rng.normal(size=4) * 9, rng.normal(size=(4, 3))
    next_arms, next_rest = rng.normal(size=(4, 3)), rng.normal(size=4)
    give = torch.tensor
    found = targets.bellman_loss((None, give(rest)), give(reward), (None, give(next_rest)), (2.0, 5.0))
    assert float(found) == pytest.approx(huber((rest - reward.sum(axis=1) - next_rest) / 5.0))
    found = targets.bellman_loss((give(arms), give(rest)), give(reward), (give(next_arms), give(next_rest)), (2.0, 5.0))
    over = arms - reward - next_arms
    assert float(found) == pytest.approx(huber(over / 2.0) + huber((rest + over.sum(axis=1) - next_rest) / 5.0))


def test_habit_is_an_exponential_average_of_how_arms_were_treated():
    habit, history = np.full((3, 2), 0.5), np.random.default_rng(0).integers(2, size=(50, 3))
    for action in history:
        habit = targets.treated(habit, action, 0.1)
    age = 0.9 ** np.arange(49, -1, -1)
    assert np.allclose(habit[:, 1], 0.5 * 0.9**50 + 0.1 * (age[:, None] * history).sum(axis=0))
    assert np.allclose(habit.sum(axis=1), 1.0)
    learner = Learner(model_of(), config(network="dense"), 0, "cpu")
    learner.remember(
        state=[0, 0, 0], period=0, action=[0, 0, 1], reward=[0, 0, 0], next_state=[[0, 0, 0]],
        next_action=np.array([[0, 1, 0]]), weight=[1.0], ended=False,
    )  # fmt: skip
    assert learner.habit[1, 1] == pytest.approx(0.5 * (1 - HABIT_RATE) + HABIT_RATE)
    assert learner.habit[2, 1] == pytest.approx(0.5 * (1 - HABIT_RATE))


def paid_for_acting(n: int = 8, size: float = 1.0) -> Model:
    """Passive arms earn nothing at all; acting pays by arm and state, and wears the arm out."""
    rng = np.random.default_rng(3)
    arms = Arms.from_arrays(n)
    up, down = [[0.4, 0.6, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0], [0.8, 0.2, 0.0], [0.3, 0.7, 0.0]]
    reward = np.zeros((n, 3, 2))
    reward[:, :, 1] = rng.uniform(0.0, 1.0, (n, 1)) * np.array([0.1, 0.5, 1.0]) * size
    problem = Problem(arms, Tabular(np.tile(np.array([up, down]), (n, 1, 1, 1)), reward), horizon=6)
    return Model(problem, ActionSet(arms, {"budget": Budget(at_most=2)}), title="paid for acting")


@pytest.mark.slow
def test_pooled_learns_where_passive_arms_earn_nothing(tmp_path):
    """The unit is what acting pays; a short run beats random actions by more than the noise."""
    model = paid_for_acting()
    run = train(model, DQNConfig(episodes=10, validation_episodes=0), seed=0, out=tmp_path)
    table = ro.evaluate(model, [run.policy, "random"], episodes=60)
    low = table.difference("learned", "random")[1]
    assert low > 0
    assert table.rows[0]["reward"] > 1.3 * table.rows[1]["reward"]


def test_the_reward_unit_is_what_arms_earn_or_what_acting_changes():
    rng = np.random.default_rng(0)
    model = paid_for_acting(40)
    unit = targets.reward_unit(model.problem, model.actions, rng)
    paid = model.problem.dynamics.reward[:, :, 1].mean()
    assert unit == pytest.approx(paid, rel=0.2)
    for power in (-40, 3):
        scaled = paid_for_acting(40, 2.0**power)
        again = targets.reward_unit(scaled.problem, scaled.actions, np.random.default_rng(0))
        assert again == unit * 2.0**power
    arms = Arms.from_arrays(3)
    nothing = Problem(arms, Tabular(np.tile(np.eye(2), (3, 2, 1, 1)), np.zeros((3, 2))), horizon=2)
    assert targets.reward_unit(nothing, ActionSet(arms, {}), rng) == 1.0
    # Where every arm earns about one whatever is done, that is the unit, as it always was.
    even = Problem(arms, Tabular(np.tile(np.eye(2), (3, 2, 1, 1)), np.ones((3, 2))), horizon=2)
    assert targets.reward_unit(even, ActionSet(arms, {"budget": Budget(at_most=1)}), rng) == 1.0


def test_rewards_in_another_unit_give_the_same_weights(tmp_path):
    """Rewards times a power of two: the run differs in the stored unit and in nothing else, bit for bit."""
    found = []
    for power in (0, -12, 9):
        learner_run = train(paid_for_acting(5, 2.0**power), config(), seed=1, out=tmp_path / str(power))
        from safetensors.numpy import load_file

        found.append(load_file(learner_run.folder / "weights.safetensors"))
    same = [name for name in found[0] if not name.startswith(("scale", "feature"))]
    assert same
    for other in found[1:]:
        assert all(np.array_equal(found[0][name], other[name]) for name in same)


class OwnStep:
    """Arms of a user's own simulator: no tables, only ``step`` and the expected reward."""

    n_arms, n_states, n_actions = 6, 3, 2

    def __init__(self) -> None:
        self.inner = paid_for_acting(6).problem.dynamics

    def step(self, state, action, rng):
        return self.inner.step(state, action, rng)

    def expected_reward(self, state, action):
        return self.inner.expected_reward(state, action)


@pytest.mark.parametrize("network", amount(["dense"], ["pooled", "dense"]))
@pytest.mark.parametrize("warm_start", ["lasting", "published"])
def test_an_own_step_is_enough_to_train_and_to_decide(tmp_path, network, warm_start):
    """No tables anywhere: training, warm start, validation, loading and evaluation; twice the same."""
    arms = Arms.from_arrays(6)
    model = Model(Problem(arms, OwnStep(), horizon=5), ActionSet(arms, {"budget": Budget(at_most=2)}), title="own")
    runs = [
        train(model, config(network=network, warm_start=warm_start), seed=0, out=tmp_path / name) for name in ("a", "b")
    ]
    assert runs[0].weights_hash() == runs[1].weights_hash()
    table = ro.evaluate(model, [load_policy(tmp_path / "a", model), "random"], episodes=5)
    assert {row["policy"] for row in table.rows} == {"learned", "random"}


def test_arms_without_tables_are_told_apart_by_what_they_earn_and_where_they_go(tmp_path):
    arms = Arms.from_arrays(6)
    problem = Problem(arms, OwnStep(), horizon=5)
    numbers = arm_numbers(problem)
    _, reward = problem.dynamics.inner.tabular()
    assert np.array_equal(numbers[:, 0::2], reward.reshape(6, -1))
    # All arms move alike here: what the draws' noise says is left out.
    assert (numbers[:, 1::2].std(axis=0) <= 0.25).all()
    assert (numbers[:, 1::2].std(axis=0) == 0).mean() > 0.5
    model = Model(problem, ActionSet(arms, {"budget": Budget(at_most=2)}))
    with pytest.raises(CapabilityError, match=r"tabular\(\)"):
        train(model, config(network="anchored", anchor="open_loop"), out=tmp_path)


def test_the_warm_start_asks_for_expected_rewards_only():
    arms = Arms.from_arrays(6)
    model = Model(Problem(arms, OwnStep(), horizon=5), ActionSet(arms, {"budget": Budget(at_most=2)}))
    state, period, action, reward = WarmStart(model, "lasting", np.random.default_rng(0)).draw(20)
    assert np.allclose(reward, model.problem.dynamics.expected_reward(state, action) * (5 - period)[:, None])


def test_a_checkpoint_without_the_unit_goes_on_with_its_networks_own(tmp_path):
    """Folders of older versions: the unit was not written then; the run goes on in the one that it began with."""
    for network in ("pooled", "dense"):
        from rmab_opt.learning.run_folder import RunFolder

        learner = Learner(model_of(), config(network=network), 0, "cpu")
        folder = RunFolder(tmp_path / network)
        learner.begin()
        learner.save(folder)
        arrays, meta = folder.read_tensors("checkpoint")
        unit = meta.pop("unit")
        arrays["online.scale"] = np.asarray(3.0 * arrays["online.scale"])
        folder.write_tensors("checkpoint", arrays, meta)
        assert learner.restore(folder)
        assert learner.scale == pytest.approx(3.0 * unit, rel=1e-6)
