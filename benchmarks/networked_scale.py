"""Command line on power-law graphs: CPU seconds, memory and gap of ``decide``, against ``--method greedy``.

    python benchmarks/networked_scale.py [--sizes 10000 100000] [--seeds 20] [--out FILE]

Budget N/50 with village quotas; every run is a process of its own, reading included. Graphs grow by preferential
attachment (Barabasi, Albert 1999), three contacts a newcomer.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import networkx
import numpy as np

MODEL = """format: 1
title: Power law
problem:
  arms: arms.csv
  dynamics: {{kind: cascade, contacts: contacts.csv, probability: 0.05, value: worth}}
  horizon: 1
constraints:
  visits: {{kind: budget, at_most: {budget}}}
  villages: {{kind: linear, per: village, at_most: {quota}}}
objective: {{kind: cascade, samples: 100}}
"""


def write(folder: Path, n_arms: int, seed: int) -> None:
    """Arms, contacts and model of one instance."""
    rng = np.random.default_rng(seed)
    graph = networkx.barabasi_albert_graph(n_arms, 3, seed=seed)
    villages = max(1, n_arms // 200)
    idle, acted, worth = rng.uniform(0.0, 0.1, n_arms), rng.uniform(0.5, 1.0, n_arms), rng.uniform(1.0, 2.0, n_arms)
    village = rng.integers(0, villages, n_arms)
    lines = [f"p{k},{idle[k]:.4f},{acted[k]:.4f},0.7,0.9,{worth[k]:.4f},v{village[k]}" for k in range(n_arms)]
    (folder / "arms.csv").write_text("\n".join(["id,p00,p01,p10,p11,worth,village", *lines]) + "\n")
    (folder / "contacts.csv").write_text("\n".join(["u,v", *(f"p{u},p{v}" for u, v in graph.edges)]) + "\n")
    budget = n_arms // 50
    quota = max(1, round(1.5 * budget / villages))
    (folder / "model.yaml").write_text(MODEL.format(budget=budget, quota=quota))


def decided(folder: Path, *more: str) -> dict[str, Any]:
    """Value, bound, CPU seconds and megabytes of one run of the command."""
    command = [sys.executable, "-m", "rmab_opt.cli", "decide", str(folder / "model.yaml"), "--json", *more]
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=out)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        found = json.loads(out.read()) if child.returncode == 0 else {}
    return {
        "value": found.get("value", float("nan")),
        "bound": found.get("bound", float("nan")),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "megabytes": round(used.ru_maxrss / 1024),
    }


def main() -> None:
    """Print or write one row a size and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="one seed of 2,000 arms")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sizes = [2000] if options.quick else options.sizes
    rows = []
    for n_arms in sizes:
        for seed in range(1 if options.quick or n_arms > 20_000 else options.seeds):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                write(folder, n_arms, seed)
                mine, greedy = decided(folder), decided(folder, "--method", "greedy")
            gap = (mine["bound"] - mine["value"]) / mine["value"]
            row = {"arms": n_arms, "seed": seed, **mine, "gap_percent": round(100 * gap, 3),
                   "greedy_value": greedy["value"], "greedy_cpu_seconds": greedy["cpu_seconds"]}  # fmt: skip
            rows.append({key: round(cell, 4) if isinstance(cell, float) else cell for key, cell in row.items()})
            if options.out is None:
                sys.stdout.write(f"{rows[-1]}\n")
                sys.stdout.flush()
    if options.out is not None:
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
