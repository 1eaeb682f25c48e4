"""Two versions of the package side by side, interleaved: the same answers, and how long each takes.

    python benchmarks/before_after.py --before ../before [--after .] [--alternations 15]

Each side runs in processes of its own with its tree first on PYTHONPATH. Printed: medians of user CPU seconds, their
ratio, and whether actions, values and node counts agree.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ARGMAX = """
import json, resource, numpy as np
from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Knapsack, Linear
from rmab_opt.decisions import Chooser, NetworkObjective
from rmab_opt.encoder import Network
from rmab_opt.problem import Arms, Problem, Tabular
rng = np.random.default_rng(0)
n, found = 24, []
arms = Arms.from_arrays(n, cost=rng.uniform(0.5, 2.0, n), village=rng.choice(list("abcd"), n))
tables = Tabular(np.full((n, 2, 2, 2), 0.5), np.zeros((n, 2)))
problem = Problem(arms, tables, start=np.zeros(n, dtype=int))
sets = [{"b": Budget(at_most=6)}, {"m": Knapsack(cost="cost", at_most=6.0)}, {"v": Linear(per="village", at_most=3)}]
choosers = []
for rules in sets:
    for seed in range(6):
        draw = np.random.default_rng(seed)
        layers = [(draw.normal(size=(12, n)) / n**0.5, draw.normal(size=12), "relu"), (draw.normal(size=(8, 12)) / 3,
                  draw.normal(size=8), "relu"), (draw.normal(size=(1, 8)), np.zeros(1), "linear")]
        network = Network.from_arrays(layers)
        goal = NetworkObjective(lambda _, k=network: k)
        choosers.append(Chooser(problem, ActionSet(arms, rules), goal, method="search"))
        choosers[-1].actions.compiled
begun = resource.getrusage(resource.RUSAGE_SELF).ru_utime
for chooser in choosers:
    made = chooser.decide()
    found.append([list(made.chosen), made.value, made.nodes])
print(json.dumps({"seconds": resource.getrusage(resource.RUSAGE_SELF).ru_utime - begun, "found": found}))
"""

WEEKLY = """
import json, resource, rmab_opt as ro
model = ro.load("weekly_calls")
begun = resource.getrusage(resource.RUSAGE_SELF).ru_utime
found = []
for _ in range(5):
    made = ro.decide(model, "monday.csv", solver="default")
    found.append([list(made.chosen), made.value, made.nodes])
print(json.dumps({"seconds": resource.getrusage(resource.RUSAGE_SELF).ru_utime - begun, "found": found}))
"""

HELP = """
import json, resource, subprocess, sys
begun = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
code = "import sys; sys.argv=['rmab-opt','--help']; from rmab_opt.cli import main; main()"
subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
print(json.dumps({"seconds": resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begun, "found": []}))
"""


def run(code: str, tree: Path) -> dict:
    """One process on one tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


def main() -> None:
    """Alternate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--alternations", type=int, default=15)
    given = parser.parse_args()
    for name, code in (("argmax search", ARGMAX), ("decide weekly_calls", WEEKLY), ("--help", HELP)):
        pairs = [
            (run(code, given.before.resolve()), run(code, given.after.resolve())) for _ in range(given.alternations)
        ]
        before, after = (statistics.median(pair[side]["seconds"] for pair in pairs) for side in (0, 1))
        same = all(pair[0]["found"] == pair[1]["found"] for pair in pairs)
        print(
            f"{name:20s} before {before:.3f} s  after {after:.3f} s  ratio {after / before:.3f}  same answers: {same}"
        )


if __name__ == "__main__":
    main()
