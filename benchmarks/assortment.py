"""Dynamic assortment: a learned score an item, the expert, the dearest items, on the published test seeds, paired.

    python benchmarks/assortment.py run
    python benchmarks/assortment.py table

Draws are numpy's, not the publication's; sizes stand in coupled.yaml (`assortment`), fixed before the run. Every test
seed is an instance and an episode of its own; the learner is trained on one other instance.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import process_time
from typing import Any

import coupled
import numpy as np

PROTOCOL = coupled.PLAN["assortment"]
RECORD = coupled.HERE / "data" / "assortment.json"


def run(out: Path) -> dict[str, Any]:
    """Train, then one episode of every policy on each test seed."""
    import rmab_opt as ro
    from rmab_opt.learning import DQNConfig, train
    from rmab_opt.learning.advantages import rule_of
    from rmab_opt.learning.simulator import played
    from rmab_opt.planning.improve import on_arrays
    from rmab_opt.settings.coupled.within import best_assortment

    clock = process_time()
    model = ro.load("assortment", **{"problem.seed": PROTOCOL["trained"]})
    if not (out / "weights.safetensors").exists():
        train(model, DQNConfig.from_mapping(PROTOCOL["train"]), seed=coupled.PLAN["training_seed"], out=out)
    trained = process_time() - clock
    kept = json.loads((out / "run.json").read_text(encoding="utf-8"))["kept"]
    first, last = PROTOCOL["tested"]
    totals: dict[str, list[float]] = {"learned": [], "expert": [], "dearest": []}
    for seed in range(first, last + 1):
        one = ro.load("assortment", **{"problem.seed": seed})
        world, actions = one.problem.dynamics, one.actions

        def expert(
            states: np.ndarray, period: int, shared: np.ndarray | None, world: Any = world, actions: Any = actions
        ) -> np.ndarray:
            assert shared is not None
            return np.stack([best_assortment(world, actions, each)[0] for each in shared])

        rules = {"learned": rule_of(out, one), "expert": expert, "dearest": on_arrays(one.problem, actions, "hand")}
        for name, rule in rules.items():
            draws = [np.random.SeedSequence(seed)]
            totals[name].append(round(float(played(one.problem, actions, rule, draws)[0]), 6))
    return {"kept": kept, "training_cpu_seconds": round(trained, 1), "totals": totals}


def table() -> list[str]:
    """Markdown rows from the record."""
    if not RECORD.exists():
        return ["Not recorded yet."]
    found = json.loads(RECORD.read_text(encoding="utf-8"))
    totals = {name: np.array(each) for name, each in found["totals"].items()}
    lines = ["| policy | mean of 100 episodes | minus the expert, 95 % over seeds |", "|---|---|---|"]
    for name, each in totals.items():
        gain, half = coupled.interval(each - totals["expert"])
        said = "" if name == "expert" else f"{gain:+.1f} ({gain - (half or 0):+.1f} to {gain + (half or 0):+.1f})"
        lines.append(f"| {name} | {each.mean():.1f} | {said} |")
    return lines


def main() -> None:
    """Run and record, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("run", "table"))
    parser.add_argument("--out", type=Path, default=Path("runs/assortment"))
    given = parser.parse_args()
    if given.verb == "run":
        RECORD.write_text(json.dumps(run(given.out)) + "\n", encoding="utf-8")
    print("\n".join(table()))


if __name__ == "__main__":
    main()
