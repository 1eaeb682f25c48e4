"""What training changes: networks, optimiser, memory, generators; one step, one trial, one checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from rmab_opt.actions import ActionSet
from rmab_opt.decisions import Chooser, Model, NetworkObjective, Objective, Situation
from rmab_opt.errors import ModelError
from rmab_opt.learning import targets
from rmab_opt.learning.config import DQNConfig
from rmab_opt.learning.networks import AnchoredQ, QNetwork, make_network
from rmab_opt.learning.penalties import Penalties
from rmab_opt.learning.replay import Batch, Replay
from rmab_opt.learning.run_folder import RunFolder
from rmab_opt.learning.samples import Successors, WarmStart
from rmab_opt.learning.simulator import Simulator
from rmab_opt.overdue import checkpoint
from rmab_opt.planning.anchors import anchor_values, anchors
from rmab_opt.search.hill_climb import climb_network
from rmab_opt.solver import repeatable

__all__ = ["Learner"]

FEW_EPISODES = 4
"""Episodes that tell the level of an anchor's values where no validation episodes are asked for."""

HABIT_RATE = 0.01
"""Share of the way that the record of how arms are treated moves each round."""


class Learner:
    """Everything that training changes, so that a checkpoint is this object and nothing else."""

    def __init__(self, model: Model, config: DQNConfig, seed: int, device: str) -> None:
        self.model, self.config, self.device = model, config, _device(device)
        weights, explore, draw, pretrain, episodes, validation = np.random.SeedSequence(seed).spawn(6)
        problem, columns = model.problem, model.actions.columns
        scale = targets.reward_unit(problem, model.actions, np.random.default_rng(pretrain))
        arguments = (problem, columns, config.hidden, config.head, scale, int(weights.generate_state(1)[0]))
        self.online, self.target, self.average, self.best = (
            make_network(config.network, *arguments).to(self.device) for _ in range(4)
        )
        self.optimiser = torch.optim.AdamW(
            self.online.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.penalties, self.progress = Penalties(model, config, self.online), 0.0
        self.scale = scale
        self.discount = problem.discount if config.discount is None else config.discount
        self.successors = Successors(problem, config.next_states)
        self.n_shared = len(problem.shared_names)
        self.replay = Replay(config.capacity, problem.n_arms, len(columns), self.successors.count, self.n_shared)
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
        chooses = targets.who_chooses(config.double, self.online, self.target)
        self.chooser = self._chooser(chooses.objective(lambda: self.steps))

    def _chooser(self, objective: Objective) -> Chooser:
        return Chooser(
            self.model.problem, self.model.actions, objective, repeatable(self.config.solver), title=self.model.title
        )

    def begin(self) -> None:
        """What comes before the first episode: the anchor, the warm start."""
        if isinstance(self.online, AnchoredQ):
            self._choose_anchor(self.online)
        steps = self.config.pretrain_steps if self.online.pretrains else 0
        if steps:
            samples = WarmStart(self.model, self.config.warm_start, self.generators["pretrain"])
            for _ in range(steps):
                checkpoint()
                state, period, action, reward = samples.draw(self.config.batch)
                start = self.model.problem.start_shared
                shared = np.zeros((len(state), 0)) if start is None else np.repeat(start[None], len(state), axis=0)
                nothing = torch.zeros(len(state), device=self.device)
                self._descend(state, period, action, reward, (None, nothing), shared)
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
        self.penalties.settle(self.average)
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
            checkpoint()
            state, period, shared = simulator.state, simulator.period, simulator.shared
            chosen = self._choose(chooser, objective, state, period, shared=shared)
            with torch.no_grad():
                arms, rest = self._parts(network, state, np.full(len(state), period), chosen, shared)
            claimed.append(_numpy(rest if arms is None else rest + arms.sum(dim=1)))
            _, _, expected, done = simulator.step(chosen, checked=True)
            paid.append(expected.sum(axis=1))
        earned, over = np.zeros(len(seeds)), np.zeros(problem.horizon)
        for period in range(problem.horizon - 1, -1, -1):
            earned = paid[period] + problem.discount * earned
            over[period] = (earned - claimed[period]).mean()
        return [float(value) for value in earned], over

    def _choose(
        self,
        chooser: Chooser,
        objective: Objective,
        states: np.ndarray,
        period: int,
        starts: np.ndarray | None = None,
        shared: np.ndarray | None = None,
    ) -> np.ndarray:
        """Best actions at states (M, N) and shared states (M, k).

        Functions of weights, states and starts alone, so that runs repeat.
        """
        if self.config.argmax == "hill_climb" and isinstance(objective, NetworkObjective):
            problem, columns = self.model.problem, self.model.actions.columns
            beside = [None] * len(states) if shared is None else list(shared)
            found = [
                climb_network(objective.at(Situation(problem, columns, s, period, now)), self.allowed(period, now))
                for s, now in zip(states, beside, strict=True)
            ]
            return np.stack([action for action, _ in found])
        if starts is None or self.model.actions.open_constraints:
            # Where limits change, an earlier action may not be one to begin from.
            return np.stack([made.action for made in chooser.batch_decide(states, period, shared=shared)])
        beside = [None] * len(states) if shared is None else list(shared)
        made = [
            chooser.decide(s, period, start=a, shared=now) for s, a, now in zip(states, starts, beside, strict=True)
        ]
        return np.stack([decision.action for decision in made])

    def allowed(self, period: int, shared: np.ndarray | None = None) -> ActionSet:
        """What may be done in a round, at a shared state (k,) where there is one."""
        return self.model.actions.at(period, self.model.problem.shared_values(shared))

    def argmax(
        self, states: np.ndarray, period: int, starts: np.ndarray | None, shared: np.ndarray | None = None
    ) -> np.ndarray:
        """Best actions by the network that chooses, (M, C), at shared states (M, k) where there are any."""
        return self._choose(self.chooser, self.chooser.objective, states, period, starts, shared)

    def explore(self, period: int = 0, shared: np.ndarray | None = None) -> np.ndarray:
        """A random allowed action; of any size where the argmax climbs, because climbing asks about partial sets."""
        rng = self.generators["explore"]
        action = self.allowed(period, shared).sample(rng)[0]
        if self.config.argmax == "hill_climb":
            action = action * (rng.random(len(action)) < rng.random())
        return np.asarray(action)

    def remember(self, **values: Any) -> None:
        """Store a transition and note how its next action treats the arms."""
        self.replay.add(**values)
        arm_action = self.model.actions.columns.arm_action(values["next_action"][0])
        self.habit = targets.treated(self.habit, arm_action, HABIT_RATE)

    def refresh(self) -> None:
        """Solve again for a few remembered next actions."""
        rng = self.generators["draw"]
        stale = self.replay.sample(rng, self.config.refreshes)
        which = rng.integers(self.successors.count, size=self.config.refreshes)
        parts = (stale.rows, which, stale.next_state, stale.period + 1, stale.next_action, stale.ended)
        for row, k, states, period, known, ended, beside in zip(*parts, stale.next_shared, strict=True):
            if not ended and stale.weight.size:
                shared = beside[k][None] if self.n_shared else None
                state, start = states[k].astype(np.int64)[None], known[k].astype(np.int64)[None]
                found = self.argmax(state, int(period), start, shared)
                self.replay.refresh(int(row), int(k), found[0])

    def learn(self, batch: Batch) -> float:
        """One gradient step on the Bellman error; returns the loss."""
        follows = self.follows(batch)
        loss = self._descend(batch.state, batch.period, batch.action, batch.reward, follows, batch.shared)
        if self.config.target == "soft":
            targets.follow(self.target, self.online, self.config.target_rate)
        elif targets.copy_due(self.steps, self.config.target_every):
            targets.follow(self.target, self.online, 1.0)
        targets.follow(self.average, self.online, self.config.average_rate)
        return loss

    def follows(self, batch: Batch) -> tuple[torch.Tensor | None, torch.Tensor]:
        """What follows each transition by the target network: (of each arm (B, N) or None, the rest (B,))."""
        size, count = batch.weight.shape
        weight, ended = self._tensor(batch.weight), self._tensor(batch.ended)
        with torch.no_grad():
            flat = (batch.next_state.reshape(size * count, -1), batch.next_action.reshape(size * count, -1))
            beside = batch.next_shared.reshape(size * count, -1) if self.n_shared else None
            arms, rest = self._parts(self.target, flat[0], np.repeat(batch.period + 1, count), flat[1], beside)
            rest = rest.reshape(size, count)
            if isinstance(self.target, AnchoredQ):
                past = (batch.state, batch.period, batch.action, batch.next_state)
                state, period, action, moved = map(self._long, past)
                habit = torch.as_tensor(self.habit, device=self.device)
                rest = rest - self.target.chance(state, period, action, moved, habit).to(rest.dtype)
            by_arm = None if arms is None else arms.reshape(size, count, -1)
            return (
                None if by_arm is None else targets.what_follows(by_arm, weight, ended, self.discount),
                targets.what_follows(rest, weight, ended, self.discount),
            )

    def _descend(
        self,
        state: np.ndarray,
        period: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        follows: tuple[torch.Tensor | None, torch.Tensor],
        shared: np.ndarray | None = None,
    ) -> float:
        """One step towards reward (B, N) plus what follows; returns the loss."""
        # Noise of a sum of independent arms grows with the root of their number.
        unit = (self.scale, self.scale * self.model.problem.n_arms**0.5)
        said = self._parts(self.online, state, period, action, shared if self.n_shared else None)
        loss = targets.bellman_loss(said, self._tensor(reward), follows, unit)
        if self.penalties.active:
            beside = self._tensor(shared) if shared is not None and self.n_shared else None
            loss = loss + self.penalties(self.online, self._long(state), self._long(period), beside, self.progress)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.online.parameters(), 10.0)
        self.optimiser.step()
        self.steps += 1
        return float(loss.detach())

    def _parts(
        self,
        network: QNetwork,
        state: np.ndarray,
        period: np.ndarray,
        action: np.ndarray,
        shared: np.ndarray | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        beside = None if shared is None else torch.as_tensor(shared, dtype=torch.float64, device=self.device)
        parts: tuple[torch.Tensor | None, torch.Tensor] = network(
            *map(self._long, (state, period, action)), *(() if beside is None else (beside,))
        )
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
        self.penalties.settle(self.average)
        return self.best if self.kept in self.trials else self.average

    def set_rate(self, progress: float) -> None:
        """Learning rate at a share of the run: cosine from the first rate to a tenth of it."""
        self.progress = progress
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
            "unit": self.scale,
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
        lacking = [f"{prefix}.{key}" for prefix, network in self._networks() for key in network.state_dict()]
        lacking = [key for key in (*lacking, "habit") if key not in arrays]
        if lacking or "logged" not in meta:
            raise ModelError(
                f"{folder.path / 'checkpoint.safetensors'}: is no checkpoint of this run (it lacks "
                f"{(lacking or ['logged'])[0]})",
                "put back the file, or train in another folder.",
            )
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
        # Older checkpoints have no shared states; their arms share none.
        self.replay.load(
            {key.removeprefix("replay."): array for key, array in arrays.items() if key.startswith("replay.")},
            int(meta["added"]),
        )
        for name, rng in self.generators.items():
            rng.bit_generator.state = meta["generators"][name]
        self.habit = arrays["habit"].copy()
        self.episode, self.steps = int(meta["episode"]), int(meta["steps"])
        self.trials, self.kept, self.anchor = meta["trials"], meta["kept"], meta["anchor"]
        # Older checkpoints lack the unit, whose rule has changed since; theirs stands in the network.
        self.scale = float(meta.get("unit", self.online.arm_unit))
        self.log = folder.logged(int(meta["logged"]))
        return True


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _device(name: str) -> torch.device:
    """The device of that name; ModelError where this machine has none."""
    try:
        # Asked for a number, since a name alone may stand for a device that is not there.
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"device {name!r}: {reason}", "use 'cpu', or a device that this torch can reach.") from None
