"""Rewrite the tables of coupled settings in docs/training.md from the recorded runs.

    python scripts/coupled_tables.py

Reads benchmarks/data/coupled.jsonl and nothing else; between ``<!-- coupled: NAME -->`` and its end.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import coupled  # noqa: E402  (it stands beside, not in the package)

SHOWN = (0, 1)
"""Instances in the table of planners; those that every planner has been run on count in the last column."""


def planners() -> list[str]:
    """Means of each planner by setting, and mean_field minus the hand rule over all instances of both."""
    known, names = coupled.records(), coupled.PLAN["arrays"]
    lines = [
        f"| setting | {' | '.join(f'`{name}`' for name in names)} | `mean_field` minus `hand`, 95 % over instances |",
        f"|---|{'---|' * (len(names) + 1)}",
    ]
    for setting in coupled.PLAN["settings"]:
        means = {
            name: [float(np.mean(known[setting, k, name]["totals"])) for k in SHOWN if (setting, k, name) in known]
            for name in names
        }
        best = max(np.mean(found) for found in means.values() if found)
        cells = [
            f"{'**' if found and np.mean(found) >= best - 1e-9 else ''}{' / '.join(f'{x:.1f}' for x in found)}"
            f"{'**' if found and np.mean(found) >= best - 1e-9 else ''}"
            for found in means.values()
        ]
        both = [
            k
            for k in coupled.PLAN["open_instances"]
            if {(setting, k, "hand"), (setting, k, "mean_field")} <= known.keys()
        ]
        apart = [
            np.mean(np.subtract(known[setting, k, "mean_field"]["totals"], known[setting, k, "hand"]["totals"]))
            for k in both
        ]
        gain, half = coupled.interval(np.array(apart))
        said = f"{gain:+.1f}" + ("" if half is None else f" ({gain - half:+.1f} to {gain + half:+.1f})")
        lines.append(f"| `{setting}` | {' | '.join(cells)} | {said}, {len(both)} instances |")
    return lines


def learned() -> list[str]:
    """The best network of each recorded run against the best planner of its instance, paired by episode."""
    known = coupled.records()
    lines = [
        "| setting, instance | learned | best planner | learned minus it (s.e.) | kept by the run | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for (setting, k, policy), row in sorted(known.items()):
        if policy != "learned":
            continue
        rivals = {
            name: known[setting, k, name]["totals"] for name in coupled.PLAN["arrays"] if (setting, k, name) in known
        }
        best = max(rivals, key=lambda name: np.mean(rivals[name]))
        apart = np.subtract(row["totals"], rivals[best])
        lines.append(
            f"| `{setting}`, {k} | {np.mean(row['totals']):.1f} | `{best}` {np.mean(rivals[best]):.1f} | "
            f"{apart.mean():+.1f} ({apart.std(ddof=1) / len(apart) ** 0.5:.1f}) | {row['kept']} | "
            f"{row['training_cpu_seconds']:.0f} |"
        )
    return lines if len(lines) > 2 else ["No run of the learner at these sizes has been recorded yet."]


def main() -> None:
    """Write both tables."""
    page = ROOT / "docs" / "training.md"
    text = page.read_text(encoding="utf-8")
    for name, rows in (("planners", planners()), ("learned", learned())):
        pattern = rf"(<!-- coupled: {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda found, rows=rows: found[1] + "\n".join(rows) + "\n" + found[2], text, flags=re.S)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
