"""Learners on simulators whose equations are hidden behind `step`, all with the same number of simulated rounds.

    python benchmarks/simulator_only.py [--settings contagion,sessions] [--policies learned,hand] [--full]

Protocol and sizes stand in coupled.yaml (`simulator_only`), fixed before the runs: the short one, or with `--full`
200,000 rounds, three instances and three seeds. Policies are played on the known equations, so that totals are expected
rewards of the same draws; `mean_field`, which knows the equations, stands beside as the level to reach. Records go to
data/coupled.jsonl, one finished task a line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

import coupled
import numpy as np

if TYPE_CHECKING:
    from rmab_opt.decisions import Model
    from rmab_opt.planning.improve import BatchRule

PROTOCOL = coupled.PLAN["simulator_only"]
EQUATION = 4
"""Column of the worlds' `context` that is an equation (chance of falling ill, this round's gain): not told."""


class Hidden:
    """A world of which `step` is left, and what a user would name of each arm; counts the rounds it is asked for."""

    n_states = 2
    n_actions = 2

    def __init__(self, world: Any) -> None:
        self._world = world
        self.n_arms, self.coupled = world.n_arms, True
        self.shared_names, self.shared_start = world.shared_names, world.shared_start
        self.rounds = 0
        if hasattr(world, "group"):
            self.group = world.group

    def context(self, state: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """What is told of each arm, (..., N, F)."""
        return np.delete(self._world.context(state, shared), EQUATION, axis=-1)

    def step(self, state: np.ndarray, action: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Next states and rewards (..., N); each row of (...) is one round."""
        following, paid, _ = self.step_shared(state, action, self.shared_start, rng)
        return following, paid

    def step_shared(
        self, state: np.ndarray, action: np.ndarray, shared: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As the world's own."""
        found: tuple[np.ndarray, np.ndarray, np.ndarray] = self._world.step_shared(state, action, shared, rng)
        self.rounds += int(np.prod(found[0].shape[:-1], dtype=np.int64))
        return found


def hidden(model: Model) -> tuple[Model, Hidden]:
    """The model whose dynamics say nothing but `step`."""
    world = Hidden(model.problem.dynamics)
    return replace(model, problem=replace(model.problem, dynamics=world), instance=None), world


def at_random(model: Model) -> BatchRule:
    """Allowed actions of full size, drawn."""
    from rmab_opt.planning.improve import ScoreRule

    rng = np.random.default_rng(PROTOCOL["instance"])

    def scores(states: np.ndarray, period: int, shared: np.ndarray | None) -> np.ndarray:
        drawn = rng.random(states.shape)
        return np.stack([np.zeros_like(drawn), drawn], axis=-1)

    return ScoreRule(model.problem, model.actions, scores)


def rule(model: Model, name: str) -> tuple[Callable[[], np.ndarray], Hidden | None]:
    """How a policy that needs no training is played."""
    from rmab_opt.learning.simulator import played
    from rmab_opt.planning.improve import on_arrays

    blind, world = hidden(model)
    if name == "random":
        made: BatchRule = at_random(model)
    elif name == "greedy, simulated gains":
        made = on_arrays(blind.problem, blind.actions, "single_gains")
    else:
        made, world = on_arrays(model.problem, model.actions, name), None  # type: ignore[assignment]
    return lambda: played(model.problem, model.actions, made, coupled.seeds(PROTOCOL["episodes"])), world


def learned(model: Model, setting: str, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """The learner by effects of actions; its states are so many that it asks for about as many rounds as it may."""
    from rmab_opt.learning import DQNConfig, train
    from rmab_opt.learning.advantages import rule_of
    from rmab_opt.learning.simulator import played

    blind, world = hidden(model)
    key = "loads" if setting in coupled.PLAN["loads"] else "pooled"
    own = {**PROTOCOL[key], **(PROTOCOL["full"][key] if steps == PROTOCOL["full"]["steps"] else {})}
    config = DQNConfig.from_mapping({**PROTOCOL["learner"], **own})
    clock = process_time()
    train(blind, config, seed=seed, out=folder)
    trained, asked = process_time() - clock, world.rounds
    totals = played(model.problem, model.actions, rule_of(folder, blind), coupled.seeds(PROTOCOL["episodes"]))
    kept = json.loads((folder / "run.json").read_text(encoding="utf-8"))["kept"]
    return coupled.said(
        totals, process_time() - clock, training_cpu_seconds=round(trained, 1), simulated_rounds=asked, kept=kept
    )


def outside(model: Model, algorithm: str, seed: int, steps: int) -> dict[str, Any]:
    """PPO or DQN of another library with its own settings, column by column."""
    from rmab_opt.decisions.policy import make_policy
    from rmab_opt.learning import evaluate

    blind, world = hidden(model)
    clock = process_time()
    made = make_policy(f"sb3:algorithm={algorithm},steps={steps},seed={seed}", blind)
    trained, asked = process_time() - clock, world.rounds
    # The equations are back for playing alone: expected rewards of the same draws.
    table = evaluate(replace(model, instance=None), [made], episodes=PROTOCOL["episodes"],
                     seeds=[coupled.PLAN["episode_seed"]], bound=False)  # fmt: skip
    totals = next(iter(table.episodes.values()))[0]
    return coupled.said(totals, process_time() - clock, training_cpu_seconds=round(trained, 1), simulated_rounds=asked)


def tasks(full: bool) -> list[tuple[int, str]]:
    """Instances and policies, one seed of everything before the next."""
    sizes = PROTOCOL["full"] if full else {"seeds": PROTOCOL["seeds"], "instances": [PROTOCOL["instance"]]}
    plain = ["random", "greedy, simulated gains", "hand", "mean_field"]
    trained = [f"{name}, seed {seed}" for seed in sizes["seeds"] for name in ("learned", "ppo", "dqn")]
    return [(instance, name) for instance in sizes["instances"] for name in [*plain, *trained]]


def one(setting: str, instance: int, policy: str, steps: int, out: Path) -> dict[str, Any]:
    """One task's record."""
    import rmab_opt as ro

    model = ro.load(setting, **{**PROTOCOL["settings"][setting], "problem.seed": instance})
    name, _, rest = policy.partition(", seed ")
    if name == "learned":
        return learned(model, setting, int(rest), steps, out / f"{setting}-{instance}-{rest}-{steps}")
    if name in ("ppo", "dqn"):
        return outside(model, name, int(rest), steps)
    clock = process_time()
    play, world = rule(model, policy)
    totals = play()
    return coupled.said(totals, process_time() - clock, simulated_rounds=0 if world is None else world.rounds)


def main() -> None:
    """Run tasks that are not recorded yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings")
    parser.add_argument("--seeds", help="leave out tasks of other training seeds")
    parser.add_argument("--policies", help="of these alone, by how their names begin: learned,mean_field")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/simulator_only"))
    given = parser.parse_args()
    steps = PROTOCOL["full"]["steps"] if given.full else PROTOCOL["steps"]
    for instance, policy in tasks(given.full):
        if given.seeds and ", seed " in policy and policy.rpartition(" ")[2] not in given.seeds.split(","):
            continue
        if given.policies and not policy.startswith(tuple(given.policies.split(","))):
            continue
        for setting in given.settings.split(",") if given.settings else PROTOCOL["settings"]:
            label = f"{setting}, simulator only" + (f", {steps} rounds" if given.full else "")
            if (label, instance, policy) in coupled.records():
                continue
            found = one(setting, instance, policy, steps, given.out)
            with coupled.RECORDS.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"setting": label, "instance": instance, "policy": policy, **found}) + "\n")
            mean = np.mean(found["totals"])
            print(label, instance, policy, f"{mean:.2f}", found["cpu_seconds"], found["simulated_rounds"], flush=True)


if __name__ == "__main__":
    main()
