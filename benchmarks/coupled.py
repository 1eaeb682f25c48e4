"""Coupled arms: hand rules, planners, learner and bound on the same episodes, one recorded task after the other.

    python benchmarks/coupled.py run [--settings a,b] [--instances 0,1] [--policies "x;y"] [--kept-aside]
    python benchmarks/coupled.py transfer [--instances 0] [--arms 100,1000]
    python benchmarks/coupled.py table [--instances 0,1]

Seeds, lengths and validation stand in coupled.yaml, fixed before any run. Every finished task is one line of
data/coupled.jsonl: stopped runs go on where they were, and the table needs no run at all.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np
from ruamel.yaml import YAML
from scipy import stats

if TYPE_CHECKING:
    from rmab_opt.decisions import Model

HERE = Path(__file__).parent
PLAN = YAML(typ="safe").load((HERE / "coupled.yaml").read_text(encoding="utf-8"))
RECORDS = HERE / "data" / "coupled.jsonl"
AGAINST = "mean_field"
MORE = "learned, more states"
"""The learner with `more` of coupled.yaml over its usual settings."""


def records() -> dict[tuple[str, int, str], dict[str, Any]]:
    """Finished tasks by setting, instance and policy."""
    if not RECORDS.exists():
        return {}
    rows = [json.loads(line) for line in RECORDS.read_text(encoding="utf-8").splitlines() if line]
    return {(row["setting"], row["instance"], row["policy"]): row for row in rows}


def seeds(count: int) -> list[np.random.SeedSequence]:
    """The episodes' draws, the same as `evaluate` takes for the episode seed."""
    moves, _ = np.random.SeedSequence(PLAN["episode_seed"]).spawn(2)
    return moves.spawn(count)


def one(setting: str, instance: int, policy: str, out: Path) -> dict[str, Any]:
    """What one task records: totals of the paired episodes, CPU seconds, and of a learner what its run says."""
    # Here and not at the top: tables and plots read the records without loading a solver or torch.
    import rmab_opt as ro
    from rmab_opt.learning import evaluate
    from rmab_opt.learning.simulator import played
    from rmab_opt.planning.improve import on_arrays

    model = ro.load(setting, **{"problem.seed": instance})
    clock = process_time()
    if policy == "bound":
        found = ro.bound(model)
        more: dict[str, Any] = {"bound": found.summary()}
        return {"totals": [], "cpu_seconds": round(process_time() - clock, 2), **more}
    if policy in PLAN["arrays"]:
        rule = on_arrays(model.problem, model.actions, policy)
        totals = played(model.problem, model.actions, rule, seeds(PLAN["episodes"]))
        return said(totals, process_time() - clock)
    if policy in ("learned", MORE):
        more_states = PLAN["more"] if policy == MORE else {}
        return learned(model, setting, out / f"{setting}-{instance}{'-more' * bool(more_states)}", more_states)
    few = PLAN["few_episodes"]
    # The episodes' seed is not the instance's: without this, `evaluate` would make another instance for it.
    table = evaluate(replace(model, instance=None), [policy], episodes=few, seeds=[PLAN["episode_seed"]], bound=False)
    return said(next(iter(table.episodes.values()))[0], process_time() - clock)


def said(totals: np.ndarray, spent: float, **more: Any) -> dict[str, Any]:
    """A task's record."""
    return {"totals": np.round(totals, 6).tolist(), "cpu_seconds": round(spent, 2), **more}


def learned(model: Model, setting: str, folder: Path, more: dict[str, Any]) -> dict[str, Any]:
    """Train, then play the network that the run found best and the policy that the run kept."""
    from rmab_opt.learning import DQNConfig, train
    from rmab_opt.learning.advantages import rule_of
    from rmab_opt.learning.simulator import played

    network = "loads" if setting in PLAN["loads"] else "pooled"
    config = DQNConfig.from_mapping({**PLAN["train"], "network": network, "head": 0, **more})
    clock = process_time()
    train(model, config, seed=PLAN["training_seed"], out=folder)
    trained = process_time() - clock
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    rule = rule_of(folder, model)
    totals = played(model.problem, model.actions, rule, seeds(PLAN["episodes"]))
    keys = ("kept", "validation", "paired", "ablations", "seconds_by_part")
    return said(totals, process_time() - clock, training_cpu_seconds=round(trained, 1),
                **{key: record.get(key) for key in keys})  # fmt: skip


def transfer(instance: int, n_arms: int, out: Path) -> list[dict[str, Any]]:
    """The network of `learned` on contagion with 20 arms, used on another instance with more, beside the planners.

    Up to 100 arms a network is also trained there, by the same settings.
    """
    import rmab_opt as ro
    from rmab_opt.learning.advantages import rule_of
    from rmab_opt.learning.simulator import played
    from rmab_opt.planning.improve import on_arrays

    plan, other = PLAN["transfer"], instance + 1
    given = plan["contagion"][n_arms]
    large = ro.load("contagion", n_arms=n_arms, **{"problem.seed": other, **given})
    own, rows = out / f"contagion-{n_arms}-{other}", []
    for policy in ("hand", "mean_field", "learned with 20 arms", *(["learned there"] if n_arms <= 100 else [])):
        clock = process_time()
        if policy == "learned there":
            found = learned(large, "contagion", own, {})
        else:
            trained = policy.startswith("learned")
            rule = (
                rule_of(out / f"contagion-{instance}", large)
                if trained
                else on_arrays(large.problem, large.actions, policy)
            )
            totals = played(large.problem, large.actions, rule, seeds(plan["episodes"][n_arms]))
            found = said(totals, process_time() - clock)
        rows.append({"setting": f"contagion, {n_arms} arms", "instance": other, "policy": policy, **found})
        print(rows[-1]["setting"], other, policy, np.mean(found["totals"]), found["cpu_seconds"], flush=True)
    return rows


def interval(apart: np.ndarray) -> tuple[float, float | None]:
    """Mean of differences by instance and half of its 95 % interval over instances; None where there is one."""
    if len(apart) < 2:
        return float(apart.mean()), None
    half = stats.t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / len(apart) ** 0.5
    return float(apart.mean()), float(half)


def policies(setting: str) -> list[str]:
    """All policies of a setting, the cheap ones first."""
    exact = ["model", "planned_round"] if setting in PLAN["program_of_the_round"] else []
    return [*PLAN["arrays"], "learned", "bound", *exact, *PLAN["one_by_one"]]


def table(instances: list[int]) -> list[dict[str, Any]]:
    """One row a setting and policy: mean, difference to mean_field with its interval, paired by episode."""
    known, rows = records(), []
    for setting in PLAN["settings"]:
        for policy in policies(setting):
            both = [
                (known[setting, k, policy], known[setting, k, AGAINST])
                for k in instances
                if {(setting, k, policy), (setting, k, AGAINST)} <= known.keys() and policy != "bound"
            ]
            if not both:
                continue
            pairs = [(np.array(a["totals"]), np.array(b["totals"])) for a, b in both]
            apart = np.array([(a - b[: len(a)]).mean() for a, b in pairs])
            gain, half = interval(apart)
            row = {"setting": setting, "policy": policy, "instances": len(both), "episodes": len(pairs[0][0])}
            row |= {"mean": float(np.mean([a.mean() for a, _ in pairs])), "minus_mean_field": gain, "half": half}
            rows.append(row)
    return rows


def main() -> None:
    """Run tasks that are not recorded yet, or print the table of those that are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("run", "transfer", "table"))
    parser.add_argument("--settings")
    parser.add_argument("--instances")
    parser.add_argument("--policies")
    parser.add_argument("--arms", default="100,1000")
    parser.add_argument("--kept-aside", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/coupled"))
    given = parser.parse_args()
    usual = PLAN["kept_aside"] if given.kept_aside else PLAN["open_instances"]
    instances = [int(k) for k in given.instances.split(",")] if given.instances else usual
    if given.verb == "table":
        for row in table(instances):
            half = "" if row["half"] is None else f" +- {row['half']:.2f}"
            print(
                f"{row['setting']:13s} {row['policy']:36s} {row['instances']} x {row['episodes']:3d} "
                f"{row['mean']:9.2f}  {row['minus_mean_field']:+8.2f}{half}"
            )
        return
    if given.verb == "transfer":
        for n_arms in map(int, given.arms.split(",")):
            rows = [row for instance in instances for row in transfer(instance, n_arms, given.out)]
            with RECORDS.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        return
    for instance in instances:
        for setting in given.settings.split(",") if given.settings else PLAN["settings"]:
            for policy in given.policies.split(";") if given.policies else policies(setting):
                if (setting, instance, policy) in records():
                    continue
                found = one(setting, instance, policy, given.out)
                row = {"setting": setting, "instance": instance, "policy": policy, **found}
                with RECORDS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                mean = np.mean(found["totals"]) if found["totals"] else float("nan")
                print(setting, instance, policy, f"{mean:.2f}", found["cpu_seconds"], flush=True)


if __name__ == "__main__":
    main()
