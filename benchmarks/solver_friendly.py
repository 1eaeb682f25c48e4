"""Penalties in training against the time of a decision: binaries, encode and solve, reward, at the same data and seeds.

    python benchmarks/solver_friendly.py run [--instances 0,1,2]
    python benchmarks/solver_friendly.py table

Contagion, 20 arms, budget 3, a dense network on advantages; sizes stand in coupled.yaml (`solver_friendly`), fixed
before the runs. Rewards are those of the best of all 1,351 actions by the network, on paired episodes; times are CPU
seconds of a decision by the program (HiGHS) and by search at states that the hand rule meets. A factor counts only
where the reward is equal: the 95 % interval of the paired difference over instances holds 0 and its lower end is above
-1 %.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

import coupled
import numpy as np

if TYPE_CHECKING:
    from rmab_opt.decisions import Model
    from rmab_opt.learning.networks import QNetwork

PROTOCOL = coupled.PLAN["solver_friendly"]
RECORDS = coupled.HERE / "data" / "solver_friendly.jsonl"


def records() -> dict[tuple[int, str], dict[str, Any]]:
    """Finished tasks by instance and training."""
    if not RECORDS.exists():
        return {}
    rows = [json.loads(line) for line in RECORDS.read_text(encoding="utf-8").splitlines() if line]
    return {(row["instance"], row["training"]): row for row in rows}


def decided(model: Model, network: QNetwork) -> dict[str, Any]:
    """CPU seconds by program and by search, binaries, distance to enumeration, at states that the hand rule meets.

    The first decision of each way, which builds what all share, is not timed.
    """
    from rmab_opt.decisions import Chooser
    from rmab_opt.decisions.objective import Situation
    from rmab_opt.encoder import Support, assemble
    from rmab_opt.learning.simulator import Simulator
    from rmab_opt.planning.improve import on_arrays

    simulator = Simulator(model.problem, model.actions, coupled.seeds(1))
    hand = on_arrays(model.problem, model.actions, "hand")
    compiled_model, compiled = model.actions.compiled
    support = Support.from_program(compiled.program, compiled.index(compiled_model.act))
    every = model.actions.enumerate()
    assert every is not None
    choosers = {
        method: Chooser(model.problem, model.actions, network.objective(), "default", method=method)
        for method in ("program", "search")
    }
    spent: dict[str, list[float]] = {method: [] for method in choosers}
    binaries, apart = [], []
    for turn in range(PROTOCOL["states"] + 1):
        state, period = simulator.state[0], simulator.period
        folded = network.at(Situation(model.problem, model.actions.columns, state, period))
        best = float(folded(every.astype(float)).max())
        for method, chooser in choosers.items():
            clock = process_time()
            found = chooser.decide(state, period)
            if turn:
                spent[method].append(round(process_time() - clock, 5))
            apart.append(abs(best - float(folded(found.action.astype(float)))))
        if turn:
            binaries.append(int(assemble(folded, support, effort="linear").counts["binaries"]))
        if simulator.step(hand(simulator.state, period, None))[3]:
            simulator.reset()
    return {"seconds": spent["program"], "by_search": spent["search"], "binaries": binaries,
            "largest_difference": max(apart)}  # fmt: skip


def one(instance: int, training: str, out: Path) -> dict[str, Any]:
    """One training's record."""
    import rmab_opt as ro
    from rmab_opt.learning import DQNConfig, train
    from rmab_opt.learning.advantages import rule_of
    from rmab_opt.learning.run_folder import RunFolder
    from rmab_opt.learning.runs import load_network
    from rmab_opt.learning.simulator import played

    model = ro.load("contagion", **{"problem.seed": instance})
    folder = out / f"{instance}-{training.replace(' ', '-')}"
    config = DQNConfig.from_mapping({**PROTOCOL["train"], **PROTOCOL["trainings"][training]})
    train(model, config, seed=coupled.PLAN["training_seed"], out=folder)
    network = load_network(RunFolder(folder), model)
    totals = played(model.problem, model.actions, rule_of(folder, model), coupled.seeds(PROTOCOL["episodes"]))
    weights = np.concatenate([part.detach().numpy().ravel() for part in network.parameters() if part.dim() == 2])
    return {"totals": np.round(totals, 6).tolist(), "zero": float((weights == 0.0).mean()), **decided(model, network)}


def table() -> list[str]:
    """Markdown rows: each training against the plain one."""
    known = records()
    # Instances that every training has been run on.
    instances = [k for k in PROTOCOL["instances"] if all((k, name) in known for name in PROTOCOL["trainings"])]
    if not instances:
        return ["Not recorded yet."]
    lines = [
        f"| training ({len(instances)} instances) | reward | minus plain, 95 % | binaries | program, median / "
        "worst ms | search, median ms | zero weights | factor of the median, where the reward is equal |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in PROTOCOL["trainings"]:
        rows, plain = ([known[k, each] for k in instances] for each in (name, "plain"))
        apart = np.array([np.mean(np.subtract(a["totals"], b["totals"])) for a, b in zip(rows, plain, strict=True)])
        gain, half = coupled.interval(apart)
        base = np.mean([b["totals"] for b in plain])
        equal = half is not None and gain - half <= 0.0 <= gain + half and gain - half > -0.01 * base
        seconds, before = (np.concatenate([row["seconds"] for row in part]) for part in (rows, plain))
        factor = (
            ""
            if name == "plain"
            else f"{np.median(before) / np.median(seconds):.1f}"
            if equal
            else "equality not shown"
        )
        said = "" if name == "plain" else f"{gain:+.1f}" + ("" if half is None else f" +- {half:.1f}")
        lines.append(
            f"| {name} | {np.mean([row['totals'] for row in rows]):.1f} | {said} | "
            f"{np.mean(np.concatenate([row['binaries'] for row in rows])):.1f} | "
            f"{1e3 * np.median(seconds):.1f} / {1e3 * seconds.max():.0f} | "
            f"{1e3 * np.median(np.concatenate([row['by_search'] for row in rows])):.1f} | "
            f"{100 * np.mean([row['zero'] for row in rows]):.0f} % | {factor} |"
        )
    return lines


def main() -> None:
    """Run trainings that are not recorded yet, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("run", "table"))
    parser.add_argument("--instances", default=",".join(map(str, PROTOCOL["instances"])))
    parser.add_argument("--out", type=Path, default=Path("runs/solver_friendly"))
    given = parser.parse_args()
    if given.verb == "table":
        print("\n".join(table()))
        return
    for instance in map(int, given.instances.split(",")):
        for training in PROTOCOL["trainings"]:
            if (instance, training) in records():
                continue
            found = one(instance, training, given.out)
            with RECORDS.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"instance": instance, "training": training, **found}) + "\n")
            print(instance, training, f"{np.mean(found['totals']):.2f}", np.mean(found["binaries"]),
                  np.median(found["seconds"]), found["largest_difference"], flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
