"""Rewrite the tables of coupled settings in docs/training.md from the recorded runs.

    python scripts/coupled_tables.py

Reads benchmarks/data/ and nothing else; between ``<!-- coupled: NAME -->`` and its end.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

# They stand beside, not in the package.
import assortment  # noqa: E402
import coupled  # noqa: E402
import effects  # noqa: E402
import in_program  # noqa: E402
import solver_friendly  # noqa: E402

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


def simulators() -> list[str]:
    """Learners on simulators whose equations are hidden, at equal numbers of rounds: means over seeds, one instance."""
    known, protocol = coupled.records(), coupled.PLAN["simulator_only"]
    plain, trained = ("random", "greedy, simulated gains", "hand", "mean_field"), ("learned", "ppo", "dqn")
    lines = [
        "| setting | random | greedy on simulated gains | hand rule | `mean_field` (knows the equations) | PPO | DQN | "
        "learned | learned minus the best of random, greedy, PPO, DQN, 95 % | share of `mean_field` |",
        f"|{'---|' * 10}",
    ]
    for setting in protocol["settings"]:
        label, instance = f"{setting}, simulator only", protocol["instance"]
        found = {name: [np.array(known[label, instance, name]["totals"])] for name in plain
                 if (label, instance, name) in known}  # fmt: skip
        for name in trained:
            keys = [(label, instance, f"{name}, seed {seed}") for seed in protocol["seeds"]]
            found[name] = [np.array(known[key]["totals"]) for key in keys if key in known]
        if any(not found.get(name) for name in (*plain, *trained)):
            continue
        # Of each episode the mean over training seeds.
        mean = {name: np.mean(each, axis=0) for name, each in found.items()}
        best = max(("random", plain[1], "ppo", "dqn"), key=lambda name: mean[name].mean())
        gain, half = coupled.interval(mean["learned"] - mean[best])
        cells = [" / ".join(f"{each.mean():.1f}" for each in found[name]) for name in (*plain, "ppo", "dqn", "learned")]
        share = 100 * mean["learned"].mean() / mean["mean_field"].mean()
        said = f"{gain:+.1f} ({gain - (half or 0):+.1f} to {gain + (half or 0):+.1f}), {best}"
        lines.append(f"| `{setting}` | {' | '.join(cells)} | {said} | {share:.1f} % |")
    return lines if len(lines) > 2 else ["Not recorded yet."]


def long_simulators() -> list[str]:
    """The learner at 200,000 hidden rounds: means over training seeds by instance, intervals over instances."""
    known, full = coupled.records(), coupled.PLAN["simulator_only"]["full"]
    lines = [
        "| setting | instances, runs | random | hand rule | `mean_field` (knows the equations) | learned, by instance "
        "| learned minus `hand`, 95 % | share of `mean_field`, 95 % |",
        f"|{'---|' * 8}",
    ]
    for setting in coupled.PLAN["simulator_only"]["settings"]:
        label = f"{setting}, simulator only, {full['steps']} rounds"
        means: dict[str, list[float]] = {name: [] for name in ("random", "hand", "mean_field", "learned")}
        runs = 0
        for instance in full["instances"]:
            tries = [
                np.mean(known[label, instance, f"learned, seed {seed}"]["totals"])
                for seed in full["seeds"]
                if (label, instance, f"learned, seed {seed}") in known
            ]
            if not tries:
                continue
            runs += len(tries)
            means["learned"].append(float(np.mean(tries)))
            for name in ("random", "hand", "mean_field"):
                means[name].append(float(np.mean(known[label, instance, name]["totals"])))
        if not runs:
            continue
        each = {name: np.array(values) for name, values in means.items()}
        gain, half = coupled.interval(each["learned"] - each["hand"])
        share, wide = coupled.interval(100 * each["learned"] / each["mean_field"])
        cells = [f"{each[name].mean():.1f}" for name in ("random", "hand", "mean_field")]
        cells.append(" / ".join(f"{value:.1f}" for value in each["learned"]))
        ends = "" if half is None else f" ({gain - half:+.1f} to {gain + half:+.1f})"
        about = "" if wide is None else f" ({share - wide:.1f} to {share + wide:.1f})"
        shown = [f"`{setting}`", f"{len(each['learned'])}, {runs}", *cells, f"{gain:+.1f}{ends}", f"{share:.1f}{about}"]
        lines.append(f"| {' | '.join(shown)} |")
    return lines if len(lines) > 2 else ["Not recorded yet."]


def transfer() -> list[str]:
    """The network of one size on another, against the planner and the rule of thumb there."""
    sizes = [f"contagion, {n} arms" for n in coupled.PLAN["transfer"]["contagion"]]
    rows = [row for (setting, _, _), row in coupled.records().items() if setting in sizes]
    lines = ["| setting, instance, policy | mean | share of `mean_field` there | CPU s |", "|---|---|---|---|"]
    planned = {row["setting"]: np.mean(row["totals"]) for row in rows if row["policy"] == "mean_field"}
    for row in rows:
        mean = np.mean(row["totals"])
        said = f"{row['setting']}, {row['instance']}, {row['policy']}"
        lines.append(
            f"| {said} | {mean:.1f} | {100 * mean / planned[row['setting']]:.1f} % | {row['cpu_seconds']:.0f} |"
        )
    return lines if rows else ["Not recorded yet."]


def more() -> list[str]:
    """The learner with more states on the instances kept aside, against the planner and the hand rule there."""
    known = coupled.records()
    lines = [
        "| setting | learned | `mean_field` | `hand` | minus `mean_field`, 95 % | minus `hand`, 95 % | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for setting in coupled.PLAN["settings"]:
        names = (coupled.MORE, "mean_field", "hand")
        instances = [k for k in coupled.PLAN["kept_aside"] if all((setting, k, name) in known for name in names)]
        if not instances:
            continue
        means = {name: np.array([np.mean(known[setting, k, name]["totals"]) for k in instances]) for name in names}
        apart = []
        for name in names[1:]:
            gain, half = coupled.interval(means[names[0]] - means[name])
            apart.append(f"{gain:+.1f} ({gain - (half or 0):+.1f} to {gain + (half or 0):+.1f})")
        spent = np.mean([known[setting, k, coupled.MORE]["training_cpu_seconds"] for k in instances])
        cells = " | ".join(f"{each.mean():.1f}" for each in means.values())
        lines.append(f"| `{setting}`, {len(instances)} instances | {cells} | {' | '.join(apart)} | {spent:.0f} |")
    return lines if len(lines) > 2 else ["Not recorded yet."]


def verdicts() -> list[str]:
    """For each setting the learner against the best planner over the same instances, and what is the default."""
    known = coupled.records()
    lines = [
        "| setting | learned minus the best planner, 95 % over instances | minus `hand` | so |",
        "|---|---|---|---|",
    ]
    for setting in coupled.PLAN["settings"]:
        instances = [k for k in coupled.PLAN["learned_instances"] if (setting, k, "learned") in known]
        names = [
            name
            for name in (*coupled.PLAN["arrays"], "planned_round")
            if all((setting, k, name) in known for k in instances)
        ]
        if not instances:
            continue
        apart = {name: np.array([_apart(known, setting, k, name) for k in instances]) for name in names}
        best = min(apart, key=lambda name: apart[name].mean())
        said, claims = [], []
        for name in (best, "hand"):
            gain, half = coupled.interval(apart[name])
            half = 0.0 if half is None else half
            said.append(f"{gain:+.1f} ({gain - half:+.1f} to {gain + half:+.1f})")
            claims.append((gain - half, gain + half))
        low, high = claims[0]
        verdict = "the network" if low > 0 else f"`{best}`" if high < 0 else f"level: `{best}`, which needs no training"
        lines.append(
            f"| `{setting}`, {len(instances)} instances | against `{best}` {said[0]} | {said[1]} | {verdict} |"
        )
    return lines


def _apart(known: dict, setting: str, instance: int, name: str) -> float:
    """Learned minus a policy on the episodes that both have played."""
    other = np.array(known[setting, instance, name]["totals"])
    return float((np.array(known[setting, instance, "learned"]["totals"])[: len(other)] - other).mean())


def figures() -> list[str]:
    """All learners of this page on one line each: mean CPU seconds of training by setting and size."""
    known, spent = coupled.records(), {}
    for (setting, _, policy), row in known.items():
        if policy.startswith("learned") and "training_cpu_seconds" in row and "simulator" not in setting:
            spent.setdefault((setting, policy), []).append(row["training_cpu_seconds"])
    lines = ["| setting, run | CPU s of training, least to most |", "|---|---|"]
    return [*lines, *(f"| `{setting}`, {policy} | {min(each):.0f} to {max(each):.0f} |" for (setting, policy), each
                      in sorted(spent.items()))]  # fmt: skip


def main() -> None:
    """Write the tables."""
    page = ROOT / "docs" / "training.md"
    text = page.read_text(encoding="utf-8")
    made = {
        "planners": planners(),
        "learned": learned(),
        "programs": programs(),
        "simulators": simulators(),
        "long": long_simulators(),
        "transfer": transfer(),
        "more": more(),
        "verdicts": verdicts(),
        "seconds": figures(),
        "solver": solver_friendly.table(),
        "inside": in_program.table(),
        "assortment": assortment.table(),
        "effects": effects.table(),
    }
    for name, rows in made.items():
        pattern = rf"(<!-- coupled: {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda found, rows=rows: found[1] + "\n".join(rows) + "\n" + found[2], text, flags=re.S)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
