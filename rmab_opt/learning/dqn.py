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
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from rmab_opt.decisions import Model
from rmab_opt.decisions.policy import ChooserPolicy
from rmab_opt.errors import ModelError
from rmab_opt.learning import advantages
from rmab_opt.learning.config import DQNConfig
from rmab_opt.learning.learner import Learner
from rmab_opt.learning.run_folder import RunFolder, fingerprint, versions
from rmab_opt.learning.runs import load_policy
from rmab_opt.learning.simulator import Simulator
from rmab_opt.overdue import checkpoint
from rmab_opt.parallel import pmap
from rmab_opt.progress import watch
from rmab_opt.solver import repeatable

__all__ = ["Run", "train", "train_seeds"]


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


def _argmax(config: DQNConfig) -> str:
    """The argmax of training in words, with the clock that its profile reads, if it does."""
    clock = repeatable(config.solver).clock
    return f"{config.argmax}, profile {config.solver}" + (f", depends on the clock: {clock}" if clock else "")


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
        Called with each log row, in place of the progress bar that a terminal or a notebook shows.

    Returns
    -------
    Run
        Folder, log and the greedy policy.

    Raises
    ------
    ModelError
        When the folder holds a run of another model, seed or configuration; names what differs. When another process
        trains in it; says which.
    """
    config = DQNConfig.from_mapping(dict(model.settings.get("train", {}))) if config is None else config
    folder = RunFolder(out)
    steps = config.rounds if config.targets == "advantages" else config.episodes
    with folder.held(), watch("training", steps, quiet=on_event is not None) as tell:

        def show(row: dict[str, Any]) -> None:
            tell(f"training · reward {row['reward']:.4g}", done=row["episode"])

        return _train(folder, model, config, seed, device, show if on_event is None else on_event)


def _train(
    folder: RunFolder,
    model: Model,
    config: DQNConfig,
    seed: int,
    device: str,
    on_event: Callable[[dict[str, Any]], None] | None,
) -> Run:
    clock = perf_counter()
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
    if config.targets == "advantages":
        with _one_thread():
            log, outcome = advantages.learn(folder, model.by_nodes(), config, seed, record, on_event)
        seconds = perf_counter() - clock
        done = {"versions": versions(), "finished": True, "seconds_of_last_start": round(seconds, 2)}
        folder.write_record({**record, **outcome, **done})
        return Run(folder.path, log, load_policy(folder.path, model), seconds)
    with _one_thread():
        learner = Learner(model, config, seed, device)
        if not learner.restore(folder):
            learner.begin()
            learner.save(folder)
        for row in _episodes(learner):
            # Saved before it is shown: whatever interrupts the showing, the episode is kept.
            if learner.episode % config.checkpoint_every == 0 or learner.episode == config.episodes:
                learner.save(folder)
            if on_event is not None:
                on_event(row)
        arrays = {key: value.detach().cpu().numpy() for key, value in learner.result().state_dict().items()}
    meta = {"config": record["config"], "fingerprint": record["fingerprint"], "anchor": learner.anchor}
    digest = folder.write_tensors("weights", arrays, meta)
    folder.write_log(learner.log)
    seconds = perf_counter() - clock
    outcome = {
        # Which argmax served where, and how the result was picked: both matter to who reads the numbers.
        "argmax": {"training": _argmax(config), "evaluation": "exact"},
        "anchor": learner.anchor,
        "kept": learner.kept,
        "validation": {name: float(np.mean(totals)) for name, totals in learner.trials.items()},
    }
    folder.write_record(
        {
            **record,
            **outcome,
            "versions": versions(),
            "finished": True,
            "digests": {"weights": digest},
            "seconds_of_last_start": round(seconds, 2),
        }
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


def _episodes(learner: Learner) -> Iterator[dict[str, Any]]:
    """The loop: choose, step, store, learn, log; one row an episode."""
    config, model = learner.config, learner.model
    rng, draw, horizon = learner.generators["explore"], learner.generators["draw"], model.problem.horizon
    # Penalties act late: what was tried before them is not what was asked for.
    moments = range(config.validations - 1 if learner.penalties.active else 0, config.validations)
    trials = {round(config.episodes * (k + 1) / config.validations) for k in moments}
    while learner.episode < config.episodes:
        seed = np.random.SeedSequence(
            learner.episode_seed.entropy, spawn_key=(*learner.episode_seed.spawn_key, learner.episode)
        )
        simulator = Simulator(model.problem, model.actions, [seed])
        state, done, total, losses, epsilon = simulator.state[0], False, 0.0, [], 0.0
        shared = simulator.shared
        first = None if shared is None else shared[0]
        best = learner.argmax(state[None], 0, learner.allowed(0, first).sample(rng), shared)[0]
        while not done:
            checkpoint()
            period = simulator.period
            progress = (learner.episode + period / horizon) / config.episodes
            learner.set_rate(progress)
            epsilon = config.epsilon_end + max(0.0, 1.0 - 2.0 * progress) * (config.epsilon_start - config.epsilon_end)
            now = None if shared is None else shared[0]
            action = learner.explore(period, now) if rng.random() < epsilon else best
            moved, _, expected, done = simulator.step(action[None], checked=True)
            shared, after_it = simulator.shared, None if simulator.shared is None else simulator.shared[0]
            following, weight, beside = learner.successors(
                state, action, moved[0], model.actions, learner.generators["successors"], now, after_it
            )
            after = np.repeat(best[None], len(following), axis=0)
            if not done:
                after = learner.argmax(following, period + 1, after, beside)
            # The expected reward replaces the sampled one: same mean, less noise.
            learner.remember(
                state=state, period=period, action=action, reward=expected[0], next_state=following,
                next_action=after, weight=weight, ended=done, **({} if now is None else {"shared": now}),
                **({} if beside is None else {"next_shared": beside}),
            )  # fmt: skip
            for _ in range(config.updates):
                losses.append(learner.learn(learner.replay.sample(draw, config.batch)))
            learner.refresh()
            state, total = moved[0], total + float(expected.sum())
            best = after[_same_as(following, state, beside, after_it)]
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


def _same_as(following: np.ndarray, state: np.ndarray, beside: np.ndarray | None, shared: np.ndarray | None) -> int:
    """Which of the next states (K, N) with shared states (K, k) came about."""
    alike = (following == state).all(axis=1)
    if beside is not None and shared is not None:
        alike &= (beside == shared).all(axis=1)
    return int(alike.argmax())


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


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread: sums in a fixed order, so that runs repeat; small layers gain nothing from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
