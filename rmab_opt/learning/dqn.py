"""Deep Q-learning whose argmax is `decide`: the loop on one page.

References
----------
Xu, Wilder, Khalil, Tambe (ICLR 2025), with what their released code leaves undone: time in the state,
a terminal mask, a target network that moves, double Q, a schedule tied to the run's length.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from rmab_opt.decisions import Chooser, Model, Situation
from rmab_opt.decisions.cascade import climb_network
from rmab_opt.decisions.policy import ChooserPolicy
from rmab_opt.errors import ModelError
from rmab_opt.learning.config import DQNConfig
from rmab_opt.learning.networks import QNetwork, make_network
from rmab_opt.learning.replay import Batch, Replay
from rmab_opt.learning.run_folder import RunFolder, fingerprint, versions
from rmab_opt.learning.simulator import Simulator

__all__ = ["Run", "load_policy", "train"]


@dataclass(frozen=True)
class Run:
    """A finished (or resumed and finished) training run."""

    folder: Path
    log: list[dict[str, Any]]
    policy: ChooserPolicy
    seconds: float

    def weights_hash(self) -> str:
        """SHA-256 of the final weights file."""
        return hashlib.sha256((self.folder / "weights.safetensors").read_bytes()).hexdigest()


class _Learner:
    """Everything that training changes, so that a checkpoint is this object and nothing else."""

    def __init__(self, model: Model, config: DQNConfig, seed: int, device: str) -> None:
        self.model, self.config, self.device = model, config, torch.device(device)
        weights, explore, draw, pretrain, episodes = np.random.SeedSequence(seed).spawn(5)
        problem, columns = model.problem, model.actions.columns
        scale = _reward_scale(model, np.random.default_rng(pretrain))
        arguments = (problem, columns, config.hidden, config.head, scale, int(weights.generate_state(1)[0]))
        self.online = make_network(config.network, *arguments, actions=model.actions, anchor=config.anchor).to(
            self.device
        )
        self.target = make_network(config.network, *arguments).to(self.device)
        self.average = make_network(config.network, *arguments).to(self.device)
        self.target.load_state_dict(self.online.state_dict())
        self.average.load_state_dict(self.online.state_dict())
        self.optimiser = torch.optim.Adam(self.online.parameters(), lr=config.learning_rate)
        # Loss unit: noise of a sum of independent arms grows with the root of their number.
        self.scale, self.unit = scale, scale * problem.n_arms**0.5
        self.replay = Replay(config.capacity, problem.n_arms, len(columns))
        self.generators = {
            "explore": np.random.default_rng(explore),
            "draw": np.random.default_rng(draw),
            "pretrain": np.random.default_rng(pretrain.spawn(1)[0]),
        }
        self.episode_seed = episodes
        self.episode = 0
        self.log: list[dict[str, Any]] = []
        self.steps = 0
        objective = self.online.objective(lambda: self.steps)
        self.chooser = Chooser(problem, model.actions, objective, config.solver, title=model.title)

    def argmax(self, state: np.ndarray, period: int, start: np.ndarray) -> np.ndarray:
        """Best action by the online network; a function of weights, state and start alone, so that runs repeat."""
        if self.config.argmax == "hill_climb":
            problem, actions = self.model.problem, self.model.actions
            return climb_network(self.online.at(Situation(problem, actions.columns, state, period)), actions)[0]
        return self.chooser.decide(state, period, start=start).action

    def learn(self, batch: Batch) -> float:
        """One gradient step on the Bellman error; returns the loss."""
        kept = self.model.problem.discount * self._tensor(1.0 - batch.ended)
        with torch.no_grad():
            arms, rest = self._parts(self.target, batch.next_state, batch.period + 1, batch.next_action)
            goal_rest = kept * rest
            goal_arms = None if arms is None else kept[:, None] * arms
        loss = self._descend(batch.state, batch.period, batch.action, batch.reward, goal_arms, goal_rest)
        _follow(self.target, self.online, self.config.target_rate)
        _follow(self.average, self.online, self.config.average_rate)
        return loss

    def fit_rewards(self, size: int) -> float:
        """One gradient step on the reward of random states and actions, as if it went on to the end: a myopic start."""
        problem, rng = self.model.problem, self.generators["pretrain"]
        state = rng.integers(problem.dynamics.n_states, size=(size, problem.n_arms))
        # Forbidden actions are welcome here: they teach the reward of every arm and action alike.
        action = (rng.random((size, len(self.model.actions))) < rng.random((size, 1))).astype(np.int64)
        if self.model.actions.columns.exclusive:
            action = np.stack([_one_an_arm(row, self.model, rng) for row in action])
        reward = problem.dynamics.expected_reward(state, self.model.actions.columns.arm_action(action))
        period = rng.integers(problem.horizon, size=size)
        reward = reward * (problem.horizon - period)[:, None]
        return self._descend(state, period, action, reward, None, torch.zeros(size, device=self.device))

    def _descend(
        self,
        state: np.ndarray,
        period: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        next_arms: torch.Tensor | None,
        next_rest: torch.Tensor,
    ) -> float:
        """One step towards reward (B, N) plus what follows.

        The value of a sum of arms is the sum of their values: where the network says what each arm adds,
        each arm learns from its own reward, N errors a transition instead of one; the rest learns what is
        left of the total.
        """
        arms, rest = self._parts(self.online, state, period, action)
        paid = self._tensor(reward)
        if arms is None:
            error = (rest - paid.sum(dim=1) - next_rest) / self.unit
            loss = nn.functional.smooth_l1_loss(error, torch.zeros_like(error))
        else:
            goal = paid if next_arms is None else paid + next_arms
            loss = nn.functional.smooth_l1_loss((arms - goal) / self.scale, torch.zeros_like(goal))
            left_over = (rest + (arms - goal).detach().sum(dim=1) - next_rest) / self.unit
            loss = loss + nn.functional.smooth_l1_loss(left_over, torch.zeros_like(left_over))
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.online.parameters(), 10.0)
        self.optimiser.step()
        self.steps += 1
        return float(loss.detach())

    def _parts(
        self, network: QNetwork, state: np.ndarray, period: np.ndarray, action: np.ndarray
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        as_long = [torch.as_tensor(np.asarray(a, dtype=np.int64), device=self.device) for a in (state, period, action)]
        parts: tuple[torch.Tensor | None, torch.Tensor] = network(*as_long)
        return parts

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.asarray(array), dtype=torch.float32, device=self.device)

    def _networks(self) -> tuple[tuple[str, QNetwork], ...]:
        return (("online", self.online), ("target", self.target), ("average", self.average))

    def set_rate(self, progress: float) -> None:
        """Learning rate at a share of the run: cosine from the first rate to a tenth of it."""
        factor = 0.1 + 0.45 * (1.0 + np.cos(np.pi * progress))
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * float(factor)

    def save(self, folder: RunFolder) -> None:
        """Log first, checkpoint second: a log may run ahead of its checkpoint and is cut back, never the reverse."""
        arrays = {f"replay.{name}": array for name, array in self.replay.save().items()}
        for prefix, network in self._networks():
            arrays |= {f"{prefix}.{key}": _numpy(value) for key, value in network.state_dict().items()}
        state = self.optimiser.state_dict()["state"]
        arrays |= {f"optimiser.{k}.{name}": _numpy(v) for k, part in state.items() for name, v in part.items()}
        meta = {
            "episode": self.episode,
            "logged": len(self.log),
            "added": self.replay.added,
            "generators": {name: rng.bit_generator.state for name, rng in self.generators.items()},
        }
        folder.write_log(self.log)
        folder.write_tensors("checkpoint", arrays, meta)

    def restore(self, folder: RunFolder) -> bool:
        """Continue from the folder's checkpoint, if there is one."""
        stored = folder.read_tensors("checkpoint")
        if stored is None:
            return False
        arrays, meta = stored
        for prefix, network in self._networks():
            network.load_state_dict(
                {key: torch.as_tensor(arrays[f"{prefix}.{key}"]) for key in network.state_dict()}, strict=True
            )
        entries: dict[int, dict[str, torch.Tensor]] = {}
        for key, array in arrays.items():
            if key.startswith("optimiser."):
                _, number, name = key.split(".")
                entries.setdefault(int(number), {})[name] = torch.as_tensor(array)
        whole = self.optimiser.state_dict()
        self.optimiser.load_state_dict({"state": entries, "param_groups": whole["param_groups"]})
        self.replay.load(
            {key.removeprefix("replay."): array for key, array in arrays.items() if key.startswith("replay.")},
            int(meta["added"]),
        )
        for name, rng in self.generators.items():
            rng.bit_generator.state = meta["generators"][name]
        self.episode = int(meta["episode"])
        self.log = folder.read_log()[: int(meta["logged"])]
        return True


def train(
    model: Model,
    config: DQNConfig | None = None,
    *,
    seed: int = 0,
    out: str | Path = "run",
    device: str = "cpu",
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Train a Q-network for a model; resumes when the folder holds an unfinished run of the same settings.

    Parameters
    ----------
    model
        What is learned on. Its own objective plays no part.
    config
        Hyper-parameters; by default those of the model's ``train`` section, or :class:`DQNConfig`'s.
    seed
        Of weights, exploration, episodes and minibatches; the same seed gives the same run.
    out
        The run's folder. Ctrl-C and crashes keep what the last checkpoint holds.
    device
        Of the torch modules.
    on_event
        Called with each log row, for progress.

    Returns
    -------
    Run
        Folder, log and the greedy policy.

    Raises
    ------
    ModelError
        When the folder holds a run of another model, seed or configuration; names what differs.
    """
    config = DQNConfig.from_mapping(dict(model.settings.get("train", {}))) if config is None else config
    folder, clock = RunFolder(out), perf_counter()
    record = {
        "format": 1,
        "model": model.title,
        "fingerprint": fingerprint(model),
        "settings": dict(model.settings),
        "config": {**asdict(config), "hidden": list(config.hidden)},
        "seed": seed,
    }
    _same_run(folder, json.loads(json.dumps(record)))
    folder.write_record({**record, "versions": versions(), "finished": False})
    with _one_thread():
        learner = _Learner(model, config, seed, device)
        if not learner.restore(folder):
            for _ in range(config.pretrain_steps if learner.online.pretrains else 0):
                learner.fit_rewards(config.batch)
            learner.target.load_state_dict(learner.online.state_dict())
            learner.average.load_state_dict(learner.online.state_dict())
        for row in _episodes(learner):
            # Saved before it is shown: whatever interrupts the showing, the episode is kept.
            if learner.episode % config.checkpoint_every == 0 or learner.episode == config.episodes:
                learner.save(folder)
            if on_event is not None:
                on_event(row)
    arrays = {key: _numpy(value) for key, value in learner.average.state_dict().items()}
    folder.write_tensors("weights", arrays, {"config": record["config"], "fingerprint": record["fingerprint"]})
    folder.write_log(learner.log)
    seconds = perf_counter() - clock
    folder.write_record(
        {**record, "versions": versions(), "finished": True, "seconds_of_last_start": round(seconds, 2)}
    )
    return Run(folder.path, learner.log, load_policy(folder.path, model), seconds)


def _episodes(learner: _Learner) -> Iterator[dict[str, Any]]:
    """The loop: choose, step, store, learn, log; one row an episode."""
    config, model = learner.config, learner.model
    rng, draw = learner.generators["explore"], learner.generators["draw"]
    while learner.episode < config.episodes:
        progress = learner.episode / config.episodes
        learner.set_rate(progress)
        epsilon = config.epsilon_end + max(0.0, 1.0 - 2.0 * progress) * (config.epsilon_start - config.epsilon_end)
        seed = np.random.SeedSequence(
            learner.episode_seed.entropy, spawn_key=(*learner.episode_seed.spawn_key, learner.episode)
        )
        simulator = Simulator(model.problem, model.actions, [seed])
        state, done, total, losses = simulator.state[0], False, 0.0, []
        best = learner.argmax(state, 0, model.actions.sample(rng)[0])
        while not done:
            period = simulator.period
            action = model.actions.sample(rng)[0] if rng.random() < epsilon else best
            following, _, expected, done = simulator.step(action[None], checked=True)
            if not done:
                best = learner.argmax(following[0], period + 1, best)
            # The expected reward replaces the sampled one: same mean, less noise.
            learner.replay.add(
                state=state, period=period, action=action, reward=expected[0], next_state=following[0],
                next_action=best, ended=done,
            )  # fmt: skip
            for _ in range(config.updates):
                losses.append(learner.learn(learner.replay.sample(draw, config.batch)))
            stale = learner.replay.sample(draw, config.refreshes)
            for row, s, t, a, ended in zip(
                stale.rows, stale.next_state, stale.period + 1, stale.next_action, stale.ended, strict=True
            ):
                if not ended:
                    learner.replay.refresh(int(row), learner.argmax(s.astype(np.int64), int(t), a.astype(np.int64)))
            state, total = following[0], total + float(expected.sum())
        learner.episode += 1
        row = {
            "episode": learner.episode,
            "reward": total,
            "loss": float(np.mean(losses)) if losses else 0.0,
            "epsilon": epsilon,
        }
        learner.log.append(row)
        yield row


def load_policy(folder: str | Path, model: Model, *, solver: str | None = None) -> ChooserPolicy:
    """The greedy policy of a finished run, for its own model; a neural index also for other cohorts.

    Raises
    ------
    ModelError
        When there are no weights in the folder or they are of another model.
    """
    run = RunFolder(folder)
    stored = run.read_tensors("weights")
    if stored is None:
        raise ModelError(f"{run.path}: holds no finished run", "train into this folder first.")
    arrays, meta = stored
    if meta.get("policy") == "neural_index":
        from rmab_opt.learning.neural_index import load_run

        return load_run(folder, model if solver is None else replace(model, solver=solver))
    if meta.get("fingerprint") != fingerprint(model):
        raise ModelError(f"{run.path}: was trained on another model", "evaluate it on the model it was trained on.")
    config = DQNConfig.from_mapping(meta["config"])
    network = make_network(config.network, model.problem, model.actions.columns, config.hidden, config.head, 1.0, 0)
    network.load_state_dict({key: torch.as_tensor(array) for key, array in arrays.items()})
    objective = network.objective()
    chooser = Chooser(
        model.problem, model.actions, objective, model.solver if solver is None else solver, title=model.title
    )
    return ChooserPolicy(chooser, "learned")


def _same_run(folder: RunFolder, record: dict[str, Any]) -> None:
    found = folder.record
    if found is None:
        return
    differing = [name for name in ("fingerprint", "config", "seed") if found.get(name) != record[name]]
    if not differing:
        return
    name = differing[0]
    what = {"fingerprint": "another model", "seed": f"seed {found.get('seed')}, not {record['seed']}"}
    if name == "config":
        old = found.get("config", {})
        keys = [key for key in record["config"] if old.get(key) != record["config"][key]]
        what["config"] = ", ".join(f"{key} {old.get(key)}, not {record['config'][key]}" for key in keys)
    raise ModelError(f"{folder.path}: holds a run with {what[name]}", "name another folder, or repeat its settings.")


def _reward_scale(model: Model, rng: np.random.Generator) -> float:
    """Mean absolute expected reward of an arm and round over random states and passive arms; at least 1e-6."""
    problem = model.problem
    state = rng.integers(problem.dynamics.n_states, size=(64, problem.n_arms))
    reward = problem.dynamics.expected_reward(state, np.zeros_like(state))
    return max(1e-6, float(np.abs(reward).mean()))


def _one_an_arm(action: np.ndarray, model: Model, rng: np.random.Generator) -> np.ndarray:
    arm = model.actions.columns.effect.indices
    order = rng.permutation(len(action))
    kept = order[np.unique(np.where(action[order] == 1, arm[order], -1 - order), return_index=True)[1]]
    out = np.zeros_like(action)
    out[kept] = action[kept]
    return out


def _follow(moving: QNetwork, source: QNetwork, rate: float) -> None:
    """Move weights a share of the way."""
    with torch.no_grad():
        for target, value in zip(moving.parameters(), source.parameters(), strict=True):
            target.lerp_(value, rate)


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread: sums in a fixed order, so that runs repeat; small layers gain nothing from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
