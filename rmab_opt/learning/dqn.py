"""Deep Q-learning whose argmax is `decide`: the loop on one page.

References
----------
Xu, Wilder, Khalil, Tambe (ICLR 2025), with what their released code leaves undone: time in the state,
a terminal mask, a target network that moves, double Q, a schedule tied to the run's length.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from rmab_opt import registry
from rmab_opt.decisions import Chooser, Model, NetworkObjective, Objective, Situation
from rmab_opt.decisions.policy import ChooserPolicy
from rmab_opt.errors import ModelError
from rmab_opt.learning.config import DQNConfig
from rmab_opt.learning.networks import AnchoredQ, QNetwork, anchor_values, anchors, make_network
from rmab_opt.learning.replay import Batch, Replay
from rmab_opt.learning.run_folder import RunFolder, fingerprint, versions
from rmab_opt.learning.samples import Successors, WarmStart
from rmab_opt.learning.simulator import Simulator
from rmab_opt.parallel import pmap
from rmab_opt.search.hill_climb import climb_network

__all__ = ["Run", "load_policy", "train", "train_seeds"]

FEW_EPISODES = 4
"""Episodes that tell the level of an anchor's values where no validation episodes are asked for."""

HABIT_RATE = 0.01
"""Share of the way that the record of how arms are treated moves each round."""


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
        weights, explore, draw, pretrain, episodes, validation = np.random.SeedSequence(seed).spawn(6)
        problem, columns = model.problem, model.actions.columns
        scale = _reward_scale(model, np.random.default_rng(pretrain))
        arguments = (problem, columns, config.hidden, config.head, scale, int(weights.generate_state(1)[0]))
        self.online, self.target, self.average, self.best = (
            make_network(config.network, *arguments).to(self.device) for _ in range(4)
        )
        self.optimiser = torch.optim.AdamW(
            self.online.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        # Loss unit: noise of a sum of independent arms grows with the root of their number.
        self.scale, self.unit = scale, scale * problem.n_arms**0.5
        self.discount = problem.discount if config.discount is None else config.discount
        self.successors = Successors(problem, config.next_states)
        self.replay = Replay(config.capacity, problem.n_arms, len(columns), self.successors.count)
        self.habit = np.full((problem.n_arms, problem.dynamics.n_actions), 1.0 / problem.dynamics.n_actions)
        self.generators = {
            "explore": np.random.default_rng(explore),
            "draw": np.random.default_rng(draw),
            "pretrain": np.random.default_rng(pretrain.spawn(1)[0]),
            "successors": np.random.default_rng(pretrain.spawn(1)[0]),
        }
        self.episode_seed, self.validation_seed = episodes, validation
        self.episode = 0
        self.log: list[dict[str, Any]] = []
        self.trials: dict[str, list[float]] = {}
        """Validation totals, one an episode, by what was tried."""
        self.kept = "average"
        self.anchor: str | None = None
        self.steps = 0
        chooses = self.online if config.double else self.target
        self.chooser = self._chooser(chooses.objective(lambda: self.steps))

    def _chooser(self, objective: Objective) -> Chooser:
        return Chooser(self.model.problem, self.model.actions, objective, self.config.solver, title=self.model.title)

    def begin(self) -> None:
        """What comes before the first episode: the anchor, the warm start."""
        if isinstance(self.online, AnchoredQ):
            self._choose_anchor(self.online)
        steps = self.config.pretrain_steps if self.online.pretrains else 0
        if steps:
            samples = WarmStart(self.model, self.config.warm_start, self.generators["pretrain"])
            for _ in range(steps):
                state, period, action, reward = samples.draw(self.config.batch)
                self._descend(state, period, action, reward, None, torch.zeros(len(state), device=self.device))
        for network in (self.target, self.average, self.best):
            network.load_state_dict(self.online.state_dict())
        if self.online.begins_at is not None and self.config.validation_episodes:
            # A policy already, which noise alone must not lead away from.
            objective = self.online.objective()
            self.anchor = self.kept = self.online.begins_at
            self.trials[self.anchor], _ = self._try(objective, self.online)

    def _choose_anchor(self, network: AnchoredQ) -> None:
        """The anchor asked for, or the one that does best on the validation episodes."""
        problem, actions, asked = self.model.problem, self.model.actions, self.config.anchor
        names = anchors(actions) if asked == "auto" else (asked,)
        values = {name: anchor_values(problem, actions, name) for name in names}
        missing = {}
        for name in names:
            network.base.copy_(torch.as_tensor(values[name]))
            self.trials[name], missing[name] = self._try(network.alone(), network)
        self.anchor = max(names, key=lambda name: np.mean(self.trials[name]))
        network.base.copy_(torch.as_tensor(values[self.anchor]))
        # Priced values leave out what the prices collect: left to the head, it would learn that before all else.
        with torch.no_grad():
            network.offset[: problem.horizon] = torch.as_tensor(missing[self.anchor] / (problem.n_arms * self.scale))
        if self.config.validation_episodes:
            self.kept = self.anchor
        else:
            self.trials = {}

    def validate(self) -> None:
        """Try the averaged weights; kept when they beat what is kept by more than the noise of the difference.

        What is kept first is the anchor, so that noise alone never leads away from it.
        """
        name = f"episode {self.episode}"
        self.trials[name], _ = self._try(self.average.objective(), self.average)
        gain = np.array(self.trials[name]) - np.array(self.trials.get(self.kept, self.trials[name]))
        noise = gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 and self.kept == self.anchor else 0.0
        if self.kept not in self.trials or gain.mean() > noise:
            self.kept = name
            self.best.load_state_dict(self.average.state_dict())

    def _try(self, objective: Objective, network: QNetwork) -> tuple[list[float], np.ndarray]:
        """The greedy policy of an objective on the validation episodes, all on the same draws.

        Returns
        -------
        tuple
            Expected total reward of each episode; mean of what was still earned from each round on, over the network's
            own value, (T,).
        """
        problem, actions = self.model.problem, self.model.actions
        chooser = self._chooser(objective)
        # Children of a seed of their own: neither training nor evaluation ever draws from it.
        seeds = [
            np.random.SeedSequence(self.validation_seed.entropy, spawn_key=(*self.validation_seed.spawn_key, k))
            for k in range(self.config.validation_episodes or FEW_EPISODES)
        ]
        simulator, done, paid, claimed = Simulator(problem, actions, seeds), False, [], []
        while not done:
            state, period = simulator.state, simulator.period
            chosen = self._choose(chooser, objective, state, period)
            with torch.no_grad():
                arms, rest = self._parts(network, state, np.full(len(state), period), chosen)
            claimed.append(_numpy(rest if arms is None else rest + arms.sum(dim=1)))
            _, _, expected, done = simulator.step(chosen, checked=True)
            paid.append(expected.sum(axis=1))
        earned, over = np.zeros(len(seeds)), np.zeros(problem.horizon)
        for period in range(problem.horizon - 1, -1, -1):
            earned = paid[period] + problem.discount * earned
            over[period] = (earned - claimed[period]).mean()
        return [float(value) for value in earned], over

    def _choose(
        self, chooser: Chooser, objective: Objective, states: np.ndarray, period: int, starts: np.ndarray | None = None
    ) -> np.ndarray:
        """Best actions at states (M, N); functions of weights, states and starts alone, so that runs repeat."""
        if self.config.argmax == "hill_climb" and isinstance(objective, NetworkObjective):
            problem, actions = self.model.problem, self.model.actions
            found = [
                climb_network(objective.at(Situation(problem, actions.columns, s, period)), actions) for s in states
            ]
            return np.stack([action for action, _ in found])
        if starts is None:
            return np.stack([decision.action for decision in chooser.batch_decide(states, period)])
        return np.stack([chooser.decide(s, period, start=a).action for s, a in zip(states, starts, strict=True)])

    def argmax(self, states: np.ndarray, period: int, starts: np.ndarray) -> np.ndarray:
        """Best actions by the network that chooses, (M, C)."""
        return self._choose(self.chooser, self.chooser.objective, states, period, starts)

    def explore(self) -> np.ndarray:
        """A random allowed action; of any size where the argmax climbs, because climbing asks about partial sets."""
        rng = self.generators["explore"]
        action = self.model.actions.sample(rng)[0]
        if self.config.argmax == "hill_climb":
            action = action * (rng.random(len(action)) < rng.random())
        return np.asarray(action)

    def remember(self, **values: Any) -> None:
        """Store a transition and note how its next action treats the arms."""
        self.replay.add(**values)
        arm_action = self.model.actions.columns.arm_action(values["next_action"][0])
        self.habit *= 1.0 - HABIT_RATE
        self.habit[np.arange(len(arm_action)), arm_action] += HABIT_RATE

    def refresh(self) -> None:
        """Solve again for a few remembered next actions."""
        rng = self.generators["draw"]
        stale = self.replay.sample(rng, self.config.refreshes)
        which = rng.integers(self.successors.count, size=self.config.refreshes)
        for row, k, states, period, known, ended in zip(
            stale.rows, which, stale.next_state, stale.period + 1, stale.next_action, stale.ended, strict=True
        ):
            if not ended and stale.weight.size:
                found = self.argmax(states[k].astype(np.int64)[None], int(period), known[k].astype(np.int64)[None])
                self.replay.refresh(int(row), int(k), found[0])

    def learn(self, batch: Batch) -> float:
        """One gradient step on the Bellman error; returns the loss."""
        kept = self.discount * self._tensor(1.0 - batch.ended)
        count, size = batch.next_state.shape[1], len(batch.period)
        with torch.no_grad():
            flat = (batch.next_state.reshape(size * count, -1), batch.next_action.reshape(size * count, -1))
            arms, rest = self._parts(self.target, flat[0], np.repeat(batch.period + 1, count), flat[1])
            weight = self._tensor(batch.weight)
            rest = rest.reshape(size, count)
            if isinstance(self.target, AnchoredQ):
                rest = rest - self.target.chance(
                    self._long(batch.state), self._long(batch.period), self._long(batch.action),
                    self._long(batch.next_state), torch.as_tensor(self.habit, device=self.device),
                ).to(rest.dtype)  # fmt: skip
            goal_rest = kept * (weight * rest).sum(dim=1)
            goal_arms = None
            if arms is not None:
                goal_arms = kept[:, None] * (weight[:, :, None] * arms.reshape(size, count, -1)).sum(dim=1)
        loss = self._descend(batch.state, batch.period, batch.action, batch.reward, goal_arms, goal_rest)
        if self.config.target == "soft":
            _follow(self.target, self.online, self.config.target_rate)
        elif self.steps % self.config.target_every == 0:
            _follow(self.target, self.online, 1.0)
        _follow(self.average, self.online, self.config.average_rate)
        return loss

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
        parts: tuple[torch.Tensor | None, torch.Tensor] = network(*map(self._long, (state, period, action)))
        return parts

    def _long(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.asarray(array, dtype=np.int64), device=self.device)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.asarray(array), dtype=torch.float32, device=self.device)

    def _networks(self) -> tuple[tuple[str, QNetwork], ...]:
        return (("online", self.online), ("target", self.target), ("average", self.average), ("best", self.best))

    def result(self) -> QNetwork:
        """The network that the run keeps."""
        if self.kept == self.anchor and isinstance(self.online, AnchoredQ):
            self.online.silence()
            return self.online
        return self.best if self.kept in self.trials else self.average

    def set_rate(self, progress: float) -> None:
        """Learning rate at a share of the run: cosine from the first rate to a tenth of it."""
        factor = 0.1 + 0.45 * (1.0 + np.cos(np.pi * progress))
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * float(factor)

    def save(self, folder: RunFolder) -> None:
        """Log first, checkpoint second: a log may run ahead of its checkpoint and is cut back, never the reverse."""
        arrays = {f"replay.{name}": array for name, array in self.replay.save().items()}
        arrays["habit"] = self.habit
        for prefix, network in self._networks():
            arrays |= {f"{prefix}.{key}": _numpy(value) for key, value in network.state_dict().items()}
        state = self.optimiser.state_dict()["state"]
        arrays |= {f"optimiser.{k}.{name}": _numpy(v) for k, part in state.items() for name, v in part.items()}
        meta = {
            "episode": self.episode,
            "logged": len(self.log),
            "added": self.replay.added,
            "steps": self.steps,
            "trials": self.trials,
            "kept": self.kept,
            "anchor": self.anchor,
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
        self.habit = arrays["habit"].copy()
        self.episode, self.steps = int(meta["episode"]), int(meta["steps"])
        self.trials, self.kept, self.anchor = meta["trials"], meta["kept"], meta["anchor"]
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
            learner.begin()
            learner.save(folder)
        for row in _episodes(learner):
            # Saved before it is shown: whatever interrupts the showing, the episode is kept.
            if learner.episode % config.checkpoint_every == 0 or learner.episode == config.episodes:
                learner.save(folder)
            if on_event is not None:
                on_event(row)
        arrays = {key: _numpy(value) for key, value in learner.result().state_dict().items()}
    meta = {"config": record["config"], "fingerprint": record["fingerprint"], "anchor": learner.anchor}
    folder.write_tensors("weights", arrays, meta)
    folder.write_log(learner.log)
    seconds = perf_counter() - clock
    outcome = {
        # Which argmax served where, and how the result was picked: both matter to who reads the numbers.
        "argmax": {"training": f"{config.argmax}, profile {config.solver}", "evaluation": "exact"},
        "anchor": learner.anchor,
        "kept": learner.kept,
        "validation": {name: float(np.mean(totals)) for name, totals in learner.trials.items()},
    }
    folder.write_record(
        {**record, **outcome, "versions": versions(), "finished": True, "seconds_of_last_start": round(seconds, 2)}
    )
    return Run(folder.path, learner.log, load_policy(folder.path, model), seconds)


def train_seeds(
    model: Model,
    config: DQNConfig | None = None,
    *,
    seeds: Iterable[int],
    out: str | Path,
    device: str = "cpu",
    n_jobs: int | None = None,
) -> Iterator[tuple[int, Run]]:
    """Runs of several seeds, each in ``out/seed-N``, as they finish: (seed, run).

    Runs do not depend on the number of workers; one whose worker dies goes on from its folder.

    Parameters
    ----------
    n_jobs
        Worker processes; see :func:`rmab_opt.parallel.pmap`.
    """
    config = DQNConfig.from_mapping(dict(model.settings.get("train", {}))) if config is None else config
    numbers = list(seeds)
    tasks = [(model, config, seed, str(Path(out) / f"seed-{seed}"), device) for seed in numbers]
    for number, run in pmap(_train_one, tasks, n_jobs=n_jobs):
        yield numbers[number], run


def _train_one(task: tuple[Model, DQNConfig, int, str, str]) -> Run:
    model, config, seed, out, device = task
    return train(model, config, seed=seed, out=out, device=device)


def _episodes(learner: _Learner) -> Iterator[dict[str, Any]]:
    """The loop: choose, step, store, learn, log; one row an episode."""
    config, model = learner.config, learner.model
    rng, draw, horizon = learner.generators["explore"], learner.generators["draw"], model.problem.horizon
    trials = {round(config.episodes * (k + 1) / config.validations) for k in range(config.validations)}
    while learner.episode < config.episodes:
        seed = np.random.SeedSequence(
            learner.episode_seed.entropy, spawn_key=(*learner.episode_seed.spawn_key, learner.episode)
        )
        simulator = Simulator(model.problem, model.actions, [seed])
        state, done, total, losses, epsilon = simulator.state[0], False, 0.0, [], 0.0
        best = learner.argmax(state[None], 0, model.actions.sample(rng))[0]
        while not done:
            period = simulator.period
            progress = (learner.episode + period / horizon) / config.episodes
            learner.set_rate(progress)
            epsilon = config.epsilon_end + max(0.0, 1.0 - 2.0 * progress) * (config.epsilon_start - config.epsilon_end)
            action = learner.explore() if rng.random() < epsilon else best
            moved, _, expected, done = simulator.step(action[None], checked=True)
            following, weight = learner.successors(
                state, action, moved[0], model.actions, learner.generators["successors"]
            )
            after = np.repeat(best[None], len(following), axis=0)
            if not done:
                after = learner.argmax(following, period + 1, after)
            # The expected reward replaces the sampled one: same mean, less noise.
            learner.remember(
                state=state, period=period, action=action, reward=expected[0], next_state=following,
                next_action=after, weight=weight, ended=done,
            )  # fmt: skip
            for _ in range(config.updates):
                losses.append(learner.learn(learner.replay.sample(draw, config.batch)))
            learner.refresh()
            state, total = moved[0], total + float(expected.sum())
            best = after[int((following == state).all(axis=1).argmax())]
        learner.episode += 1
        if learner.episode in trials and config.validation_episodes:
            learner.validate()
        row = {
            "episode": learner.episode,
            "reward": total,
            "loss": float(np.mean(losses)) if losses else 0.0,
            "epsilon": epsilon,
        }
        if f"episode {learner.episode}" in learner.trials:
            row["validation"] = float(np.mean(learner.trials[f"episode {learner.episode}"]))
            if learner.anchor in learner.trials:
                row["anchor"] = float(np.mean(learner.trials[learner.anchor]))
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
    if "policy" in meta:
        # Runs of other learners than this one say whose they are.
        loader = registry.find("run", str(meta["policy"])).make
        found: ChooserPolicy = loader(folder, model if solver is None else replace(model, solver=solver))
        return found
    config = DQNConfig.from_mapping(meta["config"])
    weights = {key: torch.as_tensor(array) for key, array in arrays.items()}
    own = meta.get("fingerprint") == fingerprint(model)
    if not own and config.network not in ("pooled", "anchored"):
        raise ModelError(
            f"{run.path}: was trained on another model",
            "evaluate it on the model it was trained on; pooled and anchored networks serve other cohorts.",
        )
    options: dict[str, Any] = {}
    if config.network in ("pooled", "anchored"):
        options["features"] = tuple(arrays[f"feature_{name}"] for name in ("place", "mean", "spread"))
    if not own:
        _same_arms(weights, model, config, run.path)
        # Weights shared by arms know no cohort; the arm values below them are this cohort's own.
        weights = {key: tensor for key, tensor in weights.items() if key not in ("base", "offset")}
        if config.network == "anchored":
            options["values"] = anchor_values(model.problem, model.actions, str(meta["anchor"]))
    network = make_network(
        config.network, model.problem, model.actions.columns, config.hidden, config.head, 1.0, 0, **options
    )
    network.load_state_dict(weights, strict=own)
    silent = isinstance(network, AnchoredQ) and network.silent
    objective = network.alone() if isinstance(network, AnchoredQ) and silent else network.objective()
    chooser = Chooser(
        model.problem, model.actions, objective, model.solver if solver is None else solver, title=model.title
    )
    return ChooserPolicy(chooser, "learned")


def _same_arms(weights: dict[str, torch.Tensor], model: Model, config: DQNConfig, path: Path) -> None:
    """Refuse weights whose arms have other states or actions than the model's."""
    dynamics = model.problem.dynamics
    wide = weights["arm.0.weight"].shape[1] - len(weights["feature_place"]) - 1
    out = max(int(key.split(".")[1]) for key in weights if key.startswith("arm."))
    levels = weights[f"arm.{out}.weight"].shape[0] // (1 + config.head)
    if (wide, levels) != (dynamics.n_states, dynamics.n_actions):
        raise ModelError(
            f"{path}: was trained on another model: arms of {wide} states and {levels} actions, "
            f"here {dynamics.n_states} and {dynamics.n_actions}",
            "evaluate it on a cohort of the same kind of arms.",
        )


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
