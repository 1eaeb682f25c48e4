"""A network over loads inside the program, under a roster and a budget: proven decisions, seconds, what scores lose.

    python benchmarks/in_program.py run [--sizes 40,400]
    python benchmarks/in_program.py table

The network is that of `coupled.py run --policies learned` (40 arms), trained here where its folder is missing; with 400
arms it is used on groups of the same size. Workers on duty in three of five slots make one visit each, arms are
reachable in two. States are those that the program's own decisions meet. Beside each decision: the best sum of one
score an arm by the same set, the network's own effect of acting on that arm alone, and `mean_field`'s index. Sizes
stand in coupled.yaml (`in_program`), fixed before the runs.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

import coupled
import numpy as np

if TYPE_CHECKING:
    from rmab_opt.decisions import Model
    from rmab_opt.learning.loads import LoadQ

PROTOCOL = coupled.PLAN["in_program"]
RECORDS = coupled.HERE / "data" / "in_program.jsonl"


def records() -> list[dict[str, Any]]:
    """Finished settings and sizes."""
    if not RECORDS.exists():
        return []
    return [json.loads(line) for line in RECORDS.read_text(encoding="utf-8").splitlines() if line]


def rostered(setting: str, n_arms: int, workers: int) -> Model:
    """The setting's arms in groups of eight under a budget and a roster."""
    from rmab_opt.actions import ActionSet
    from rmab_opt.actions.kinds import Budget, Scheduling
    from rmab_opt.decisions import Model
    from rmab_opt.instances import generate
    from rmab_opt.problem import Arms

    groups = {"sessions": "n_groups", "crowding": "n_workers"}[setting]
    world = generate(setting, n_arms=n_arms, seed=PROTOCOL["instance"], **{groups: n_arms // 8}).problem
    shifts = generate("scheduling", n_arms=n_arms, n_workers=workers, seed=PROTOCOL["instance"])
    slots = shifts.problem.arms.table.cells("slots")
    arms = Arms.from_arrays(n_arms, slots=slots)
    kinds = {
        "visits": Budget(at_most=int(PROTOCOL["visits"] * n_arms)),
        "roster": Scheduling(roster=shifts.tables["roster"]),
    }
    return Model(replace(world, arms=arms), ActionSet(arms, kinds))


def trained(setting: str, model: Model, out: Path) -> LoadQ:
    """The network of `learned` on this model's arms."""
    import rmab_opt as ro
    from rmab_opt.learning.loads import LoadQ
    from rmab_opt.learning.run_folder import RunFolder
    from rmab_opt.learning.runs import load_network

    folder = out / f"{setting}-{PROTOCOL['trained']}"
    if not (folder / "weights.safetensors").exists():
        coupled.learned(ro.load(setting, **{"problem.seed": PROTOCOL["trained"]}), setting, folder, {})
    network = load_network(RunFolder(folder), model)
    assert isinstance(network, LoadQ)
    return network


def one(setting: str, n_arms: int, out: Path) -> dict[str, Any]:
    """Decisions along an episode: seconds, status and gap, and what the best sum of scores is worth to the network."""
    from rmab_opt.decisions import Chooser
    from rmab_opt.decisions.objective import Situation
    from rmab_opt.learning.simulator import Simulator
    from rmab_opt.planning.improve import on_arrays
    from rmab_opt.solver import load_profile

    size = PROTOCOL["sizes"][n_arms]
    model = rostered(setting, n_arms, size["workers"])
    network = trained(setting, model, out)
    objective = network.objective()
    chooser = Chooser(
        model.problem, model.actions, objective, replace(load_profile("default"), seconds=float(PROTOCOL["seconds"]))
    )
    simulator = Simulator(model.problem, model.actions, coupled.seeds(1))
    planner = on_arrays(model.problem, model.actions, "mean_field")
    rows: list[dict[str, Any]] = []
    for _ in range(size["states"]):
        state, period = simulator.state[0], simulator.period
        situation = Situation(model.problem, model.actions.columns, state, period)
        clock = process_time()
        found = chooser.decide(state, period)
        row = {
            "seconds": round(process_time() - clock, 3),
            "status": found.status,
            "gap": found.gap,
            "solver_bound": found.solver_bound,
            "value": found.value,
        }
        alone = network.numbers(state[None], period, None)
        single = alone[0][0, :, 0] + alone[1][0, network.group.numpy(), 0]
        scored = {"single": model.actions.best_by_program(single)[0]}
        if size["episodes"]:
            scored["mean_field"] = planner(state[None], period, None)[0]
        for name, action in scored.items():
            row[f"value_{name}"] = objective.value(action, situation)
        rows.append(row)
        simulator.step(found.action[None])
    return {"decisions": rows, "rewards": rewards(model, chooser, network, size["episodes"])}


def rewards(model: Model, chooser: Any, network: LoadQ, episodes: int) -> dict[str, list[float]]:
    """Totals of paired episodes by the program of the network, by sums of its single effects, and by the planner."""
    from rmab_opt.learning.simulator import played
    from rmab_opt.planning.improve import ScoreRule, on_arrays

    if not episodes:
        return {}

    def by_program(states: np.ndarray, period: int, shared: np.ndarray | None) -> np.ndarray:
        return np.stack([chooser.decide(state, period).action for state in states])

    def alone(states: np.ndarray, period: int, shared: np.ndarray | None) -> np.ndarray:
        q, c = network.numbers(states, period, None)
        score = q[..., 0] + c[:, network.group.numpy(), 0]
        return np.stack([np.zeros_like(score), score], axis=-1)

    problem, actions = model.problem, model.actions
    rules = {
        "program": by_program,
        "single": ScoreRule(problem, actions, alone),
        "mean_field": on_arrays(problem, actions, "mean_field"),
    }
    return {
        name: np.round(played(problem, actions, rule, coupled.seeds(episodes)), 6).tolist()
        for name, rule in rules.items()
    }


def table() -> list[str]:
    """Markdown rows from the records."""
    lines = [
        "| setting, arms | closed by the solver | CPU s a decision, median / worst | worst solver's gap | worst gap "
        "proven here | value of the best "
        "sum of single effects | of `mean_field`'s | reward: program / single effects / `mean_field` |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in records():
        made = row["decisions"]
        seconds = [one["seconds"] for one in made]
        closed = sum(one["status"] in ("optimal", "solver_optimal") for one in made)
        open_by = max((one["solver_bound"] - one["value"]) / max(abs(one["value"]), 1e-9) for one in made)
        gap = max(one["gap"] / max(abs(one["value"]), 1e-9) for one in made)

        def share(name: str, made: list[dict[str, Any]] = made) -> str:
            if f"value_{name}" not in made[0]:
                return "-"
            return f"{100 * sum(one[f'value_{name}'] for one in made) / sum(one['value'] for one in made):.0f} %"

        paid = " / ".join(f"{np.mean(totals):.0f}" for totals in row["rewards"].values()) or "-"
        gaps = f"{100 * max(0.0, open_by):.2f} % | {100 * gap:.1f} %"
        lines.append(
            f"| `{row['setting']}`, {row['arms']} | {closed} of {len(made)} | {np.median(seconds):.2f} / "
            f"{max(seconds):.2f} | {gaps} | {share('single')} | {share('mean_field')} | {paid} |"
        )
    return lines if len(lines) > 2 else ["Not recorded yet."]


def main() -> None:
    """Run what is not recorded yet, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("run", "table"))
    parser.add_argument("--sizes", default="40,400")
    parser.add_argument("--settings", default=",".join(PROTOCOL["settings"]))
    parser.add_argument("--out", type=Path, default=Path("runs/coupled"))
    given = parser.parse_args()
    if given.verb == "table":
        print("\n".join(table()))
        return
    for n_arms in map(int, given.sizes.split(",")):
        for setting in given.settings.split(","):
            if any((row["setting"], row["arms"]) == (setting, n_arms) for row in records()):
                continue
            found = {"setting": setting, "arms": n_arms, **one(setting, n_arms, given.out)}
            with RECORDS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
            print(setting, n_arms, [(row["status"], row["seconds"]) for row in found["decisions"]], flush=True)


if __name__ == "__main__":
    main()
