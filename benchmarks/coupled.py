"""Coupled arms: hand rules, planners and the learner on the same episodes, paired, with intervals over instances.

    python benchmarks/coupled.py --quick | --full [--kept-aside] [--out FOLDER]

Instances, lengths and seeds stand in coupled_seeds.json, fixed before any run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import process_time

import numpy as np
from scipy import stats

import rmab_opt as ro
from rmab_opt.learning import DQNConfig, evaluate, train

PLAN = json.loads((Path(__file__).parent / "coupled_seeds.json").read_text(encoding="utf-8"))
POLICIES = ["none", "single_gains", "hand", "mean_field:frozen=true", "mean_field", "improve:hand"]
AGAINST = "mean_field"
WITHIN_ONE_ROUND = ("crowding", "sessions")


def one(setting: str, instance: int, plan: dict, out: Path) -> tuple[dict[str, np.ndarray], float]:
    """Totals of every policy on one instance, by policy, and the CPU seconds of training."""
    model = ro.load(setting, horizon=plan["horizon"], **{"problem.seed": instance})
    head = 8 if setting in WITHIN_ONE_ROUND else 0
    config = DQNConfig(
        targets="advantages", states=plan["states"], draws=plan["draws"], head=head, hidden=(32, 16), ablations=False
    )
    clock, folder = process_time(), out / f"{setting}-{instance}"
    train(model, config, seed=PLAN["training_seed"], out=folder)
    spent = process_time() - clock
    # The exact program of the round, where one round is no sum over arms.
    also = ["model"] if setting in WITHIN_ONE_ROUND else []
    names = [*POLICIES, *also, str(folder)]
    table = evaluate(model, names, episodes=plan["episodes"], seeds=[PLAN["episode_seed"]], bound=False)
    return {"learned" if name == folder.name else name: total[0] for name, total in table.episodes.items()}, spent


def interval(apart: np.ndarray) -> str:
    """Mean of differences by instance with a 95 % interval over instances; none where there is one instance."""
    if len(apart) < 2:
        return f"{apart.mean():+.2f} (one instance, no interval)"
    half = stats.t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / len(apart) ** 0.5
    return f"{apart.mean():+.2f} +- {half:.2f}"


def main() -> None:
    """Print one table a setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--quick", action="store_true")
    which.add_argument("--full", action="store_true")
    parser.add_argument("--kept-aside", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/coupled"))
    given = parser.parse_args()
    plan = PLAN["full" if given.full else "quick"]
    instances = PLAN["kept_aside"] if given.kept_aside else plan.get("instances", PLAN["open_instances"])
    for setting in plan["settings"]:
        found = [one(setting, instance, plan, given.out) for instance in instances]
        print(f"{setting}: {len(instances)} instances, {plan['episodes']} episodes, horizon {plan['horizon']}")
        for name in found[0][0]:
            means = np.array([totals[name].mean() for totals, _ in found])
            apart = np.array([(totals[name] - totals[AGAINST]).mean() for totals, _ in found])
            print(f"  {name:24s} {means.mean():9.2f}   minus {AGAINST} {interval(apart)}")
        print(f"  training {np.mean([spent for _, spent in found]):.1f} CPU s an instance", flush=True)


if __name__ == "__main__":
    main()
