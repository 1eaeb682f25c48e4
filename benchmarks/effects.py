"""Contagion, 20 arms: learned single effects against true ones, variance by common numbers, spread over ten seeds.

    python benchmarks/effects.py run
    python benchmarks/effects.py table

Sizes stand in coupled.yaml (`effects`), fixed before the run. Raw effects are means of 16 common roll-outs, as in the
learner's first targets of that size; true ones of 1,500.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import coupled
import numpy as np

PROTOCOL = coupled.PLAN["effects"]
RECORD = coupled.HERE / "data" / "coupled_effects.json"
RAW = 16
"""Roll-outs of the raw estimates."""


def quality(instance: int, out: Path) -> dict[str, float]:
    """Correlations with the true effects of base myopic, and the median variance ratio of independent over common."""
    import torch

    import rmab_opt as ro
    from rmab_opt.learning import DQNConfig, train
    from rmab_opt.learning.run_folder import RunFolder
    from rmab_opt.learning.runs import load_network
    from rmab_opt.learning.simulator import Simulator
    from rmab_opt.planning.improve import Rollouts, on_arrays

    model = ro.load("contagion", **{"problem.seed": instance})
    plan = {**coupled.PLAN["train"], "network": "pooled", "head": 0, **PROTOCOL["train"]}
    train(model, DQNConfig.from_mapping(plan), seed=coupled.PLAN["training_seed"], out=out / str(instance))
    network = load_network(RunFolder(out / str(instance)), model)
    base = on_arrays(model.problem, model.actions, "single_gains")
    rollouts, n = Rollouts(model.problem, model.actions, base), model.problem.n_arms
    first = np.vstack([np.zeros((1, n), dtype=np.int64), np.eye(n, dtype=np.int64)])
    simulator, found = Simulator(model.problem, model.actions, coupled.seeds(1)), []
    for _ in range(PROTOCOL["states"]):
        state, period = simulator.state[0].copy(), simulator.period
        means = []
        for draws, seed in ((PROTOCOL["draws"], 0), (RAW, 1)):
            totals = rollouts(state, period, None, first, draws, np.random.default_rng([seed, period]))
            means.append((totals[1:] - totals[:1]).mean(axis=1))
        with torch.no_grad():
            said = network.single_effects(torch.as_tensor(state)[None], torch.tensor([period]))[0].numpy()
        found.append((*means, said))
        simulator.step(base(simulator.state, period, None))
    true, raw, said = (np.concatenate(part) for part in zip(*found, strict=True))
    start, pairs = model.problem.sample_start(np.random.default_rng(0)), PROTOCOL["pairs"]
    spread = []
    for common in (False, True):
        totals = rollouts(start, 0, None, first, pairs, np.random.default_rng(2), common=common)
        spread.append((totals[1:] - totals[:1]).var(axis=1))
    return {
        "raw": float(np.corrcoef(true, raw)[0, 1]),
        "learned": float(np.corrcoef(true, said)[0, 1]),
        "variance_ratio": float(np.median(spread[0] / spread[1])),
    }


def spread(out: Path) -> list[float]:
    """Mean total of instance 0 by training seed: the network of each run, kept or not."""
    import rmab_opt as ro
    from rmab_opt.learning import DQNConfig, train
    from rmab_opt.learning.advantages import rule_of
    from rmab_opt.learning.simulator import played

    model, means = ro.load("contagion", **{"problem.seed": 0}), []
    config = DQNConfig.from_mapping({**coupled.PLAN["train"], "network": "pooled", "head": 0})
    for seed in PROTOCOL["seeds"]:
        train(model, config, seed=seed, out=out / f"seed-{seed}")
        totals = played(model.problem, model.actions, rule_of(out / f"seed-{seed}", model),
                        coupled.seeds(coupled.PLAN["episodes"]))  # fmt: skip
        means.append(round(float(totals.mean()), 4))
    return means


def table() -> list[str]:
    """Markdown rows from the record."""
    if not RECORD.exists():
        return ["Not recorded yet."]
    found: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    lines = [
        "| instance | correlation of raw effects (16 roll-outs) | of the network's | variance, independent / common |",
        "|---|---|---|---|",
    ]
    for instance, row in found["quality"].items():
        lines.append(f"| {instance} | {row['raw']:.3f} | {row['learned']:.3f} | {row['variance_ratio']:.0f} |")
    means = np.array(found["seeds"])
    lines += ["", f"Ten training seeds of instance 0: {means.mean():.1f}, standard deviation {means.std(ddof=1):.1f} "
              f"({100 * means.std(ddof=1) / means.mean():.1f} %)."]  # fmt: skip
    return lines


def main() -> None:
    """Run and record, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("run", "table"))
    parser.add_argument("--out", type=Path, default=Path("runs/effects"))
    given = parser.parse_args()
    if given.verb == "run":
        made = {"quality": {k: quality(k, given.out) for k in PROTOCOL["instances"]}, "seeds": spread(given.out)}
        RECORD.write_text(json.dumps(made) + "\n", encoding="utf-8")
    print("\n".join(table()))


if __name__ == "__main__":
    main()
