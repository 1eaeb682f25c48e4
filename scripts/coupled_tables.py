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
        if not both:
            lines.append(f"| `{setting}` | {' | '.join(cells)} | - |")
            continue
        gain, half = coupled.interval(np.array(apart))
        said = f"{gain:+.1f}" + ("" if half is None else f" ({gain - half:+.1f} to {gain + half:+.1f})")
        lines.append(f"| `{setting}` | {' | '.join(cells)} | {said}, {len(both)} instances |")
    return lines


def learned() -> list[str]:
    """The best network of each recorded run against the rival it beats by least, paired by episode."""
    known = coupled.records()
    lines = [
        "| setting, instance | learned | best rival, on the same episodes | learned minus it (s.e.) | "
        "minus `hand` (s.e.) | kept by the run | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for (setting, k, policy), row in sorted(known.items()):
        if policy != "learned":
            continue
        names = [name for name in (*coupled.PLAN["arrays"], "model", "planned_round") if (setting, k, name) in known]
        apart = {}
        for name in names:
            other = np.array(known[setting, k, name]["totals"])
            apart[name] = np.array(row["totals"])[: len(other)] - other
        best = min(apart, key=lambda name: apart[name].mean())
        said = [f"{found.mean():+.1f} ({found.std(ddof=1) / len(found) ** 0.5:.1f})" for found in
                (apart[best], apart["hand"])]  # fmt: skip
        rival = np.mean(known[setting, k, best]["totals"])
        lines.append(
            f"| `{setting}`, {k} | {np.mean(row['totals']):.1f} | `{best}` {rival:.1f} ({len(apart[best])} episodes) | "
            f"{said[0]} | {said[1]} | {row['kept']} | {row['training_cpu_seconds']:.0f} |"
        )
    return lines if len(lines) > 2 else ["No run of the learner at these sizes has been recorded yet."]


def programs() -> list[str]:
    """The exact program of the round without and with the plan's values, against the planner and the hand rule."""
    known, few = coupled.records(), coupled.PLAN["few_episodes"]
    names = ("hand", "mean_field", "model", "planned_round")
    said = " | ".join(f"`{name}`" for name in names)
    lines = [
        f"| setting, instance | {said} | `planned_round` minus `mean_field` (s.e.) |",
        "|---|---|---|---|---|---|",
    ]
    for setting, k, policy in sorted(known):
        if policy != "planned_round" or any((setting, k, name) not in known for name in names):
            continue
        totals = {name: np.array(known[setting, k, name]["totals"][:few]) for name in names}
        apart = totals["planned_round"] - totals["mean_field"]
        cells = " | ".join(f"{totals[name].mean():.1f}" for name in names)
        error = apart.std(ddof=1) / len(apart) ** 0.5
        lines.append(f"| `{setting}`, {k} | {cells} | {apart.mean():+.1f} ({error:.1f}) |")
    return lines if len(lines) > 2 else ["Not recorded yet."]


def outside() -> list[str]:
    """Learners of another library on contagion, each seed against the planner and the rule of thumb."""
    known = coupled.records()
    lines = [
        "| setting, instance, policy | mean | minus `mean_field` (s.e.) | CPU s, training included |",
        "|---|---|---|---|",
    ]
    for (setting, k, policy), row in sorted(known.items()):
        if not policy.startswith("sb3:"):
            continue
        apart = np.subtract(row["totals"], known[setting, k, "mean_field"]["totals"][: len(row["totals"])])
        error = apart.std(ddof=1) / len(apart) ** 0.5
        lines.append(
            f"| `{setting}`, {k}, `{policy}` | {np.mean(row['totals']):.1f} | {apart.mean():+.1f} ({error:.1f}) | "
            f"{row['cpu_seconds']:.0f} |"
        )
    return lines if len(lines) > 2 else ["Not recorded yet."]


def transfer() -> list[str]:
    """The network of one size on another, against the planner and the rule of thumb there."""
    rows = [row for (setting, _, _), row in sorted(coupled.records().items()) if setting == coupled.LARGER]
    lines = ["| setting, instance, policy | mean | share of `mean_field` there |", "|---|---|---|"]
    planned = {row["instance"]: np.mean(row["totals"]) for row in rows if row["policy"] == "mean_field"}
    for row in rows:
        mean = np.mean(row["totals"])
        said = f"{row['setting']}, {row['instance']}, {row['policy']}"
        lines.append(f"| {said} | {mean:.1f} | {100 * mean / planned[row['instance']]:.1f} % |")
    return lines if rows else ["Not recorded yet."]


def main() -> None:
    """Write the tables."""
    page = ROOT / "docs" / "training.md"
    text = page.read_text(encoding="utf-8")
    made = {"planners": planners(), "learned": learned(), "programs": programs(), "outside": outside()}
    made["transfer"] = transfer()
    for name, rows in made.items():
        pattern = rf"(<!-- coupled: {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda found, rows=rows: found[1] + "\n".join(rows) + "\n" + found[2], text, flags=re.S)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
