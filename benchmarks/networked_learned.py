"""A graph network trained on effects of actions against the rule it begins at, and against one step of improvement.

    python benchmarks/networked_learned.py [--instances 0,1,2] [--network graph|dense] [--quick]

Contacts with influencers, 60 people of whom 6 influence, 2 visits a round, 20 rounds. The network (messages along
contacts, 8 channels) is trained by `targets: advantages` from the priced look-ahead, on 20 states; all rules then play
the same episodes with draws that training never saw. Sizes were fixed before the runs. Every finished instance is a
line of data/networked_learned.jsonl; the table at the end is over all lines.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from scipy.special import stdtrit

import rmab_opt as ro
from rmab_opt.learning import DQNConfig, evaluate, load_policy, train

RECORDS = Path(__file__).parent / "data" / "networked_learned.jsonl"
MODEL = {"n_arms": 60, "problem.influencers": 6, "visits.at_most": 2}
TRAIN = {
    "targets": "advantages", "network": "graph", "states": 20, "draws": 4, "rounds": 1, "validation_episodes": 20,
    "ablations": False, "rivals": ["lookahead_priced"],
}  # fmt: skip
BASE = "lookahead_priced"
BESIDE = ("myopic_cascade", BASE, f"improve:base={BASE},draws=16")
EPISODES, EPISODE_SEED = 12, 7
QUICK = {"n_arms": 16, "problem.influencers": 3, "visits.at_most": 1}


def one(instance: int, network: str, quick: bool) -> dict[str, Any]:
    """Train on an instance and play all rules on it."""
    model = ro.load("contacts_influencers", **{**(QUICK if quick else MODEL), "problem.seed": instance})
    with tempfile.TemporaryDirectory() as folder:
        clock = process_time()
        train(model, DQNConfig.from_mapping({**TRAIN, "network": network}), seed=0, out=folder)
        spent = process_time() - clock
        kept = json.loads((Path(folder) / "run.json").read_text(encoding="utf-8"))["kept"]
        learned = load_policy(folder, model)
        # A rule that was kept would stand under its own name, beside itself.
        learned.name = "learned"
    clock = process_time()
    here = replace(model, instance=None)
    table = evaluate(here, [*BESIDE, learned], episodes=2 if quick else EPISODES, seeds=[EPISODE_SEED], bound=False)
    totals = {name: np.round(each[0], 6).tolist() for name, each in table.episodes.items()}
    return {
        "instance": instance,
        "network": network,
        "kept": kept,
        "training_cpu_seconds": round(spent, 1),
        "playing_cpu_seconds": round(process_time() - clock, 1),
        "totals": totals,
    }


def told(rows: list[dict[str, Any]]) -> list[str]:
    """Means, and the learned policy against each other one: paired by episode, intervals over instances."""
    learned = next(name for name in rows[0]["totals"] if name not in BESIDE)
    spent, kept = [row["training_cpu_seconds"] for row in rows], ", ".join(row["kept"] for row in rows)
    lines = [f"{len(rows)} instances; trained in {min(spent):.0f} to {max(spent):.0f} CPU s; kept: {kept}"]
    for name in rows[0]["totals"]:
        mean = np.mean([np.mean(row["totals"][name]) for row in rows])
        apart = np.array([np.mean(np.subtract(row["totals"][learned], row["totals"][name])) for row in rows])
        half = float("nan")
        if len(apart) > 1:
            half = float(stdtrit(len(apart) - 1, 0.975) * apart.std(ddof=1) / len(apart) ** 0.5)
        lines.append(f"{name:<42} {mean:9.2f}   learned less it {apart.mean():+8.2f} +- {half:.2f}")
    return lines


def main() -> None:
    """Run instances that are not recorded yet, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", default="0,1,2")
    parser.add_argument("--quick", action="store_true", help="one small instance, not recorded")
    parser.add_argument("--network", default="graph", choices=("graph", "dense"))
    given = parser.parse_args()
    if given.quick:
        print("\n".join(told([one(0, given.network, quick=True)])))
        return
    every = [json.loads(line) for line in RECORDS.read_text(encoding="utf-8").splitlines()] if RECORDS.exists() else []
    rows = [row for row in every if row.get("network", "graph") == given.network]
    for instance in map(int, given.instances.split(",")):
        if instance in {row["instance"] for row in rows}:
            continue
        rows.append(one(instance, given.network, quick=False))
        every.append(rows[-1])
        RECORDS.write_text("".join(json.dumps(row) + "\n" for row in every), encoding="utf-8")
        print(instance, {name: round(float(np.mean(each)), 2) for name, each in rows[-1]["totals"].items()}, flush=True)
    print("\n".join(told(rows)))


if __name__ == "__main__":
    main()
