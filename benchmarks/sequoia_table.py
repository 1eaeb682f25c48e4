"""The four coupled settings side by side: every policy as reward and share of the coupled bound.

``--quick`` (the default) runs one instance of each published size with 20 arms; ``--full`` ten instances with
20 arms and, where the bound is cheap, with 40. Learned rows are trained here; say ``--no-learned`` to leave them out.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import rmab_opt as ro
from rmab_opt.report import table_text

SETTINGS = {"capacity": {}, "scheduling": {}, "path": {}, "interventions": {}}
TABULAR = ["lagrangian", "lp_index", "static", "rollout"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one instance, the default")
    parser.add_argument("--full", action="store_true", help="ten instances")
    parser.add_argument("--no-learned", action="store_true")
    arguments = parser.parse_args()
    seeds = range(10 if arguments.full else 1)
    rows = []
    for name in SETTINGS:
        common = ["none", "random", "myopic"]
        common += [] if name == "interventions" else ["iterative_myopic", *TABULAR]
        for seed in seeds:
            model = ro.load(name).instance(seed)
            policies: list = list(common)
            if not arguments.no_learned and name != "interventions":
                with tempfile.TemporaryDirectory() as folder:
                    policies.append(ro.train(model, seed=seed, out=Path(folder) / "run").policy)
            table = ro.evaluate(model, policies, episodes=50 if arguments.full else 10, bound=name != "interventions")
            rows += [{"setting": name, "seed": seed, **row} for row in table.rows]
    shown = (
        "setting",
        "seed",
        "policy",
        "reward",
        "low",
        "high",
        "share_of_bound",
        "normalised",
        "seconds_per_decision",
    )
    print(table_text([{key: row[key] for key in shown} for row in rows]))


if __name__ == "__main__":
    main()
