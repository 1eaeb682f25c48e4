"""Plots of the coupled settings from the recorded runs: docs/images/coupled_SETTING.svg, one a setting.

    python scripts/coupled_plots.py

Reads benchmarks/data/coupled.jsonl and nothing else; draws each policy's mean minus the best planner's, by instance.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import coupled  # noqa: E402  (it stands beside, not in the package)


def main() -> None:
    """Draw every setting that has records."""
    known = coupled.records()
    plt.rcParams["svg.hashsalt"] = "coupled"
    for setting in coupled.PLAN["settings"]:
        of = {
            policy: {
                k: np.mean(row["totals"]) for (name, k, one), row in known.items() if (name, one) == (setting, policy)
            }
            for policy in coupled.policies(setting)
            if policy != "bound"
        }
        of = {policy: found for policy, found in of.items() if found}
        if not of:
            continue
        figure, axes = plt.subplots(figsize=(6.0, 0.45 * len(of) + 1.0))
        for place, found in enumerate(of.values()):
            axes.barh(place, np.mean(list(found.values())), color="0.8")
            axes.plot(list(found.values()), [place] * len(found), "k.", markersize=5)
        axes.set_yticks(range(len(of)), list(of))
        axes.invert_yaxis()
        axes.set_xlabel("mean total of an episode; dots are instances")
        axes.set_title(setting)
        figure.tight_layout()
        figure.savefig(ROOT / "docs" / "images" / f"coupled_{setting}.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
