"""What the stored proofs prove: share of what is decided, bytes, seconds of search, proof and check, side by side.

`python benchmarks/proofs.py --out benchmarks/data/proofs.csv` decides every shipped model at its own start by every
method that applies (its own objective, and the plan's scores where tables are known), saves the decision, and checks
the proof again; `--networks 20,40,100` takes the networks of `argmax.py` instead, `--overhead 15` the time that the
price proof adds to `decide weekly_calls`, interleaved with the same decision without any proof. Seconds are of the
user's CPU; one thread.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import rmab_opt as ro
from rmab_opt.decisions import Chooser, Decision, Model, NetworkObjective, certify, verify
from rmab_opt.decisions.chooser import METHODS
from rmab_opt.decisions.proof import NONE
from rmab_opt.errors import CapabilityError, RmabError
from rmab_opt.problem import Problem, Tabular
from rmab_opt.programme.front_door import Plan, plan_decision
from rmab_opt.solver import load_profile

MODELS = Path(__file__).resolve().parent.parent / "models"
FIELDS = (
    "model",
    "objective",
    "columns",
    "method",
    "status",
    "proof",
    "proven_percent",
    "solver_percent",
    "bytes",
    "search_seconds",
    "proof_seconds",
    "check_seconds",
    "verdict",
)


def row_of(found: tuple[Decision, float, float], model: Model, name: str, goal: str, method: str) -> dict[str, Any]:
    """One line of the table: the decision's proof, and how long its re-check takes."""
    decision, search, proof = found
    document = json.loads(decision.to_json())
    objective = decision._question.objective if decision._question is not None else model.objective
    verify(document, model.problem, model.actions, objective)
    began = time.process_time()
    verdict = verify(document, model.problem, model.actions, objective)
    check = time.process_time() - began
    return {
        "model": name,
        "objective": goal,
        "columns": len(model.actions),
        "method": method,
        "status": decision.status,
        "proof": decision.proof.kind,
        "proven_percent": f"{100 * max(0.0, 1 - decision.relative_gap):.4f}",
        "solver_percent": "" if decision.solver_bound is None else f"{100 * max(0.0, 1 - decision.solver_gap):.4f}",
        "bytes": decision.proof.size,
        "search_seconds": f"{search:.4f}",
        "proof_seconds": f"{proof:.4f}",
        "check_seconds": f"{check:.4f}",
        "verdict": verdict.exit_code,
    }


def decided(model: Model, method: str, seconds: float, proof: float) -> tuple[Decision, float, float]:
    """(decision, CPU seconds of search, of proof), sets and programs read beforehand."""
    profile = replace(load_profile(model.solver), seconds=seconds, proof_seconds=proof)
    chooser = Chooser(model.problem, model.actions, model.objective, profile, method=method, many=False)
    state = None
    if model.problem.start is not None and model.problem.start.ndim != 1:
        state = model.problem.start.argmax(axis=1)
    spent, real = [0.0], certify.prove

    def timed(*given: Any) -> Any:
        start = time.process_time()
        try:
            return real(*given)
        finally:
            spent[0] += time.process_time() - start

    with mock.patch.object(certify, "prove", timed):
        began = time.process_time()
        made = chooser.decide(state)
        whole = time.process_time() - began
    return made, whole - spent[0], spent[0]


SHEETS = "weekly_calls_sheets"


def loaded(name: str) -> Model:
    """A shipped model; the programme on shipped sheets is first made of them, as `make demo` does."""
    if name != SHEETS:
        return ro.load(name)
    folder, sheets = Path(tempfile.mkdtemp()) / "calls", MODELS / SHEETS
    tables = ["--log", str(sheets / "call_log.csv"), "--roster", str(sheets / "roster.csv"), "--out", str(folder)]
    command = [sys.executable, "-m", "rmab_opt.cli", "start", str(sheets / "register.csv"), *tables, "--yes"]
    subprocess.run(command, check=True, capture_output=True)
    return ro.load(folder)


def shipped(names: list[str], seconds: float, proof: float) -> list[dict[str, Any]]:
    """Every shipped model by every method that applies, by its own objective and by the plan's scores."""
    found = []
    for name in names:
        model = loaded(name)
        goals = [("declared", model)]
        try:
            asked = plan_decision(model, Plan("lagrangian", "benchmark"), None)._question
        except RmabError:
            asked = None
        if asked is not None and asked.objective is not model.objective:
            goals.append(("lagrangian", replace(model, objective=asked.objective)))
        for goal, own in goals:
            for method in METHODS:
                try:
                    found.append(row_of(decided(own, method, seconds, proof), own, name, goal, method))
                except CapabilityError:
                    continue
                except RmabError as error:
                    sys.stderr.write(f"{name} {goal} {method}: {error}\n")
                    continue
                sys.stdout.write(",".join(str(cell) for cell in found[-1].values()) + "\n")
                sys.stdout.flush()
    return found


def networks(sizes: list[int], seconds: float, proof: float) -> list[dict[str, Any]]:
    """The trained networks of the argmax benchmark, by the exact search."""
    from argmax import instances

    found = []
    for instance in instances(sizes, ["budget", "knapsack"], 1):
        n = len(instance.actions)
        tables = Tabular(np.tile(np.eye(2), (n, 2, 1, 1)), np.zeros((n, 2, 2)))
        problem = Problem(instance.actions.columns.arms, tables, horizon=1, start=np.zeros(n, dtype=int))
        goal = NetworkObjective(lambda _, network=instance.network: network)
        model = Model(problem, instance.actions, goal)
        made = decided(model, "search", seconds, proof)
        found.append(row_of(made, model, f"argmax {instance.name}", "network", "search"))
        sys.stdout.write(",".join(str(cell) for cell in found[-1].values()) + "\n")
        sys.stdout.flush()
    return found


def overhead(turns: int) -> str:
    """CPU seconds of `decide weekly_calls` with and without its proof, interleaved."""
    model = ro.load("weekly_calls")
    spent: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(turns + 1):
        for proven in (True, False):
            fresh = replace(model, actions=type(model.actions)(model.actions.columns, model.actions.constraints))
            chooser = Chooser(fresh.problem, fresh.actions, fresh.objective, "default", many=False)
            without = mock.patch.object(certify, "prove", return_value=NONE)
            began = time.process_time()
            if proven:
                chooser.decide()
            else:
                with without, mock.patch("rmab_opt.decisions.bench.Bench.prices", return_value=None):
                    chooser.decide()
            if turn:
                spent[proven].append(time.process_time() - began)
    middle = {proven: float(np.median(times)) for proven, times in spent.items()}
    share = 100 * (middle[True] / middle[False] - 1)
    return f"weekly_calls: {middle[False]:.3f} s without a proof, {middle[True]:.3f} s with one: {share:.1f} % more\n"


def main() -> None:
    """Run what was asked for; see the module's first lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="", help="names, separated by commas; all by default")
    parser.add_argument("--networks", default="", help="sizes, separated by commas")
    parser.add_argument("--seconds", type=float, default=20.0, help="limit of one search or program")
    parser.add_argument("--proof-seconds", type=float, default=None, help="limit of lists and trees")
    parser.add_argument("--overhead", type=int, default=0, help="turns of the comparison on weekly_calls")
    parser.add_argument("--out", type=Path, default=None)
    told = parser.parse_args()
    if told.overhead:
        sys.stdout.write(overhead(told.overhead))
        return
    if told.networks:
        sizes = [int(size) for size in told.networks.split(",")]
        rows = networks(sizes, told.seconds, told.proof_seconds)
    else:
        names = [*sorted(p.stem for p in MODELS.glob("*.yaml")), "weekly_calls", SHEETS]
        rows = shipped(told.models.split(",") if told.models else names, told.seconds, told.proof_seconds)
    if told.out is not None:
        kept = []
        if told.out.exists():
            with told.out.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if row["model"] not in {row["model"] for row in rows}]
        with told.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows([*kept, *rows])


if __name__ == "__main__":
    main()
