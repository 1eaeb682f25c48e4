"""The argmax of trained networks over combinatorial sets: ours against the known embeddings, side by side.

Every instance (network, set, state) goes to every contender in turn, interleaved, with the same relative gap, the same
cap on seconds (CPU seconds for the search, the wall's for the others) and one thread; what is measured is the user and
system CPU time of one whole decision: bounds, building, passing on and solving, with nothing left over from another
contender. A contender that hits the cap counts with its time so far: ratios against it are lower limits. Gurobi's free
licence refuses large instances, which then count for the others only.

    search   rmab_opt's exact search without a MILP solver
    milp     rmab_opt.encoder rows, HiGHS, settings of the profile `fast`, start by local search
    omlt     OMLT big-M rows, HiGHS (development extra)
    scip     PySCIPOpt-ML, SCIP (development extra)
    gurobi   gurobi-machinelearning, Gurobi with the free size-limited licence that pip installs (development extra)

`python benchmarks/argmax.py --states 1 --seconds 60 --out argmax.csv --plot argmax.svg` prints geometric means of CPU
seconds a set and the ratios to the exact search, and draws them; `--ablation` compares our own variants instead.
`--only budget,knapsack`, `--sizes 20,40`, `--hidden 64_64`, `--contenders search,gurobi` and `--gap 0.01` narrow and
change it, `--read a.csv,b.csv` reports and draws recorded runs, and `--pooled 1000,10000` takes the pooled network over
cohorts of these sizes instead.
Networks come from `train_argmax_networks.py`; wide ones do not come along: `--hidden 128_128 --sizes 100 --data DIR`.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyomo.environ as pyo
from safetensors.numpy import load_file

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Capacity, Knapsack, Scheduling
from rmab_opt.encoder import Network, Support, encode
from rmab_opt.problem import Arms, Table
from rmab_opt.search import branch_and_bound
from rmab_opt.search.branch_and_bound import maximise
from rmab_opt.search.local_search import climb
from rmab_opt.solver import Session

DATA = Path(__file__).parent / "data"
HIDDEN = ["32", "16_32", "32_32", "64_64"]
SETS = ["budget", "knapsack", "scheduling", "capacity"]
GAP = 1e-4


@dataclass(frozen=True)
class Instance:
    """One decision: the network at a state, the set, its program."""

    name: str
    kind: str
    network: Network
    actions: ActionSet


@dataclass(frozen=True)
class Answer:
    """Value by the network itself, proven bound, CPU seconds, nodes, and whether the gap was closed in time."""

    value: float
    bound: float
    seconds: float
    nodes: int
    solved: bool


def make_set(kind: str, n_arms: int, rng: np.random.Generator) -> ActionSet:
    """A budget of a quarter to a tenth of the arms, a knapsack, a roster over slots, or workers with capacities."""
    if kind == "budget":
        return ActionSet(Arms.from_arrays(n_arms), {"budget": Budget(at_most=5 if n_arms == 20 else n_arms // 10)})
    if kind == "knapsack":
        arms = Arms.from_arrays(n_arms, cost=rng.uniform(0.5, 2.0, n_arms).round(3))
        return ActionSet(arms, {"money": Knapsack(cost="cost", at_most=n_arms / 5)})
    if kind == "capacity":
        arms = Arms.from_arrays(n_arms, load=rng.integers(1, 6, n_arms))
        workers = max(2, n_arms // 15)
        table = Table({"worker": [f"w{i}" for i in range(workers)], "capacity": rng.integers(5, 9, workers)})
        return ActionSet(arms, {"team": Capacity(workers=table, cost="load")})
    slots = [f"s{k}" for k in range(max(5, n_arms // 10))]
    free = [";".join(rng.choice(slots, rng.integers(1, 4), replace=False)) for _ in range(n_arms)]
    shifts = [(f"w{w}", s) for w in range(max(3, n_arms // 20)) for s in slots if rng.random() < 0.4]
    roster = Table({"worker": [w for w, _ in shifts], "slot": [s for _, s in shifts]})
    return ActionSet(Arms.from_arrays(n_arms, slots=free), {"roster": Scheduling(roster=roster)})


def instances(
    sizes: list[int], kinds: list[str], states: int, hidden: list[str] = HIDDEN, folder: Path = DATA
) -> list[Instance]:
    """All of them, seeded by size, set and state."""
    found = []
    for n_arms in sizes:
        for widths in hidden:
            name = f"{n_arms}_{widths}"
            full = Network.from_safetensors(folder / f"argmax_{name}.safetensors")
            for kind in kinds:
                for number in range(states):
                    rng = np.random.default_rng([n_arms, SETS.index(kind), number])
                    state = rng.integers(0, 2, n_arms)
                    network = full.fold(np.arange(n_arms, 2 * n_arms), state)
                    found.append(Instance(f"{name}/{kind}/{number}", kind, network, make_set(kind, n_arms, rng)))
    return found


def pooled(sizes: list[int], kinds: list[str], states: int) -> list[Instance]:
    """The pooled network, Q = sum of q + N g(mean of psi), over random cohorts: a head of 32 reads all columns."""
    part = {name: array.astype(np.float64) for name, array in load_file(DATA / "argmax_pooled.safetensors").items()}
    found = []
    for n_arms in sizes:
        for kind in kinds:
            for number in range(states):
                rng = np.random.default_rng([n_arms, SETS.index(kind), number])
                features, state = cohort(rng, n_arms)
                inside = np.concatenate([features, state[:, None]], axis=1) @ part["arm.0.weight"].T
                inside = np.maximum(inside + part["arm.0.bias"], 0.0)
                table = (inside @ part["arm.2.weight"].T + part["arm.2.bias"]).reshape(n_arms, 2, 9)
                change, base = (table[:, 1] - table[:, 0]) / n_arms, table[:, 0].mean(axis=0)
                first = part["head.0.weight"]
                layers = [
                    (first @ change[:, 1:].T, part["head.0.bias"] + first @ base[1:], "relu"),
                    (part["head.2.weight"], part["head.2.bias"], "linear"),
                ]
                network = Network.from_arrays(layers, skip=change[:, 0], constant=float(base[0]))
                actions = make_set(kind, n_arms, rng)
                found.append(Instance(f"pooled_{n_arms}/{kind}/{number}", kind, network, actions))
    return found


def cohort(rng: np.random.Generator, n_arms: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (J, 9) of arms (weight, chances, lifts, one of four types) and states (J,), as in training."""
    up, lift = rng.uniform(0.05, 0.4, size=(n_arms, 2)), rng.uniform(0.05, 0.6, size=(n_arms, 2))
    weight = rng.uniform(0.5, 1.5, size=(n_arms, 1))
    return np.concatenate([weight, up, lift, np.eye(4)[rng.integers(0, 4, n_arms)]], axis=1), rng.integers(0, 2, n_arms)


def cpu() -> float:
    """User and system seconds of this process."""
    return time.process_time()


def search(given: Instance, seconds: float) -> Answer:
    """Our exact search; the set is built and its support read each time, actions are judged without any model."""
    began = cpu()
    model = given.actions.model()
    support = Support.from_model(model, list(model.act.values()))
    checks = given.actions.violations
    found = maximise(given.network, support, lambda action: not checks(action), gap=GAP, seconds=seconds)
    return Answer(found.value, found.bound, cpu() - began, found.nodes, found.status == "optimal")


def milp(
    given: Instance,
    seconds: float,
    effort: str = "linear",
    box: bool = False,
    started: bool = True,
    profile: str = "fast",
) -> Answer:
    """Our rows on HiGHS, started by a local search from doing nothing; the options are for the ablation."""
    began = cpu()
    model = pyo.ConcreteModel()
    given.actions.build(model)
    model.q = pyo.Block()
    n = given.network.n_inputs
    support = Support.box(np.zeros(n), np.ones(n)) if box else None
    output, _ = encode(given.network, model.q, model.act, effort=effort, support=support)
    model.value = pyo.Objective(expr=output, sense=pyo.maximize)
    session = Session(model, profile)
    act = session.index(model.act)
    start, _ = climb(given.network, np.zeros(len(act)), given.actions.plain_rows.allow, given.actions.allows)
    if started:
        session.start(act, start)
    result = session.solve(seconds=seconds, relative_gap=GAP)
    action = np.rint(result.x[act]) if result.x is not None else start
    return Answer(given.network(action), result.bound, cpu() - began, result.nodes, result.status == "optimal")


def search_without(part: str, given: Instance, seconds: float) -> Answer:
    """The exact search without ``slopes`` (lines, multipliers, prices), ``search``, ``fixing``, ``quadratics``, and
    without those and ``tilted`` lines."""
    changed: list[tuple[object, str, object]] = {
        "slopes": [(branch_and_bound, "ROOT_STEPS", 1), (branch_and_bound, "NODE_STEPS", 1)],
        "search": [(branch_and_bound, "climb", lambda net, action, *_, **__: (action, -np.inf))],
        "fixing": [(branch_and_bound._Search, "fix", lambda *_: -np.inf)],
        "tilted": [(branch_and_bound._Search, "hard", lambda *_: False)],
        "quadratics": [(branch_and_bound, "applies", lambda *_: False)],
    }[part]
    kept = [(where, name, getattr(where, name)) for where, name, _ in changed]
    for where, name, value in changed:
        setattr(where, name, value)
    try:
        return search(given, seconds)
    finally:
        for where, name, value in kept:
            setattr(where, name, value)


def omlt(given: Instance, seconds: float) -> Answer:
    """OMLT's big-M rows from the 0/1 box, HiGHS defaults."""
    from omlt import OmltBlock
    from omlt.neuralnet import NetworkDefinition, ReluBigMFormulation
    from omlt.neuralnet.layer import DenseLayer, InputLayer
    from pyomo.contrib import appsi

    began = cpu()
    n = given.network.n_inputs
    definition = NetworkDefinition(scaled_input_bounds=dict.fromkeys(range(n), (0.0, 1.0)))
    before = InputLayer([n])
    definition.add_layer(before)
    for weight, bias, activation in given.network.layers():
        layer = DenseLayer([weight.shape[1]], [len(bias)], weight.T.copy(), bias.copy(), activation=activation.name)
        definition.add_layer(layer)
        definition.add_edge(before, layer)
        before = layer
    model = pyo.ConcreteModel()
    given.actions.build(model)
    model.q = OmltBlock()
    model.q.build_formulation(ReluBigMFormulation(definition))
    model.link = pyo.Constraint(range(n), rule=lambda m, i: m.q.inputs[i] == m.act[i])
    model.value = pyo.Objective(expr=model.q.outputs[0], sense=pyo.maximize)
    solver = appsi.solvers.Highs()
    solver.config.load_solution, solver.config.time_limit, solver.config.mip_gap = False, seconds, GAP
    solver.highs_options = {"threads": 1, "output_flag": False}
    result = solver.solve(model)
    value, bound, solved = -np.inf, result.best_objective_bound, result.termination_condition.name == "optimal"
    if result.best_feasible_objective is not None:
        values = result.solution_loader.get_primals(list(model.act.values()))
        value = given.network(np.rint([values[v] for v in model.act.values()]))
    return Answer(value, bound if bound is not None else np.inf, cpu() - began, -1, solved)


def torch_module(network: Network):
    """The network as the torch Sequential that the two others read."""
    import torch

    parts = []
    for weight, bias, activation in network.layers():
        layer = torch.nn.Linear(*weight.T.shape).double()
        with torch.no_grad():
            layer.weight[:] = torch.tensor(weight)
            layer.bias[:] = torch.tensor(bias)
        parts += [layer, torch.nn.ReLU()] if activation.name == "relu" else [layer]
    return torch.nn.Sequential(*parts)


def gurobi(given: Instance, seconds: float) -> Answer:
    """gurobi-machinelearning's own rows."""
    import gurobipy as gp
    from gurobi_ml import add_predictor_constr

    module = torch_module(given.network)
    began = cpu()
    own = given.actions.model()
    session = Session(own, "fast")
    act, program = session.index(own.act), session.program
    with gp.Env(params={"OutputFlag": 0}) as env, gp.Model(env=env) as model:
        kinds = np.where(program.integer, "B", "C")
        x = model.addMVar(len(kinds), lb=program.lower, ub=program.upper, vtype=kinds)
        y = model.addMVar(1, lb=-gp.GRB.INFINITY)
        for side, sense in ((program.row_upper, "<"), (program.row_lower, ">")):
            rows = np.flatnonzero(np.isfinite(side))
            if rows.size:
                model.addMConstr(program.matrix[rows], x, sense, side[rows])
        add_predictor_constr(model, module, x[act].reshape(1, -1), y.reshape(1, 1))
        model.setObjective(y.sum(), gp.GRB.MAXIMIZE)
        model.Params.Threads, model.Params.TimeLimit, model.Params.MIPGap = 1, seconds, GAP
        model.optimize()
        value = given.network(np.rint(x.X[act])) if model.SolCount else -np.inf
        return Answer(value, model.ObjBound, cpu() - began, int(model.NodeCount), model.Status == gp.GRB.OPTIMAL)


def scip(given: Instance, seconds: float) -> Answer:
    """PySCIPOpt-ML's default rows."""
    import pyscipopt
    from pyscipopt_ml.add_predictor import add_predictor_constr

    module = torch_module(given.network).float()
    began = cpu()
    own = given.actions.model()
    session = Session(own, "fast")
    act, program = session.index(own.act), session.program
    model = pyscipopt.Model()
    model.hideOutput()
    x = [
        model.addVar(lb=lo, ub=up if np.isfinite(up) else None, vtype="B" if whole else "C")
        for lo, up, whole in zip(program.lower, program.upper, program.integer, strict=True)
    ]
    for i in range(program.matrix.shape[0]):
        part = slice(program.matrix.indptr[i], program.matrix.indptr[i + 1])
        pairs = zip(program.matrix.data[part], program.matrix.indices[part], strict=True)
        body = pyscipopt.quicksum(w * x[j] for w, j in pairs)
        if np.isfinite(program.row_upper[i]):
            model.addCons(body <= program.row_upper[i])
        if np.isfinite(program.row_lower[i]):
            model.addCons(body >= program.row_lower[i])
    y = model.addVar(lb=None, ub=None)
    add_predictor_constr(
        model, module, np.array([x[j] for j in act]).reshape(1, -1), np.array([[y]]), unique_naming_prefix="q_"
    )
    model.setObjective(y, "maximize")
    model.setParam("limits/time", seconds)
    model.setParam("limits/gap", GAP)
    model.optimize()
    value = -np.inf
    if model.getNSols():
        value = given.network(np.rint([model.getVal(x[j]) for j in act]))
    solved = model.getStatus() in ("optimal", "gaplimit")
    return Answer(value, model.getDualbound(), cpu() - began, int(model.getNTotalNodes()), solved)


CONTENDERS: dict[str, tuple[Callable[[Instance, float], Answer], str]] = {
    "search": (search, "rmab_opt"),
    "milp": (milp, "rmab_opt"),
    "omlt": (omlt, "omlt"),
    "scip": (scip, "pyscipopt_ml"),
    "gurobi": (gurobi, "gurobi_ml"),
}
ABLATION: dict[str, tuple[Callable[[Instance, float], Answer], str]] = {
    "search": (search, "rmab_opt"),
    "without slopes": (partial(search_without, "slopes"), "rmab_opt"),
    "without climb": (partial(search_without, "search"), "rmab_opt"),
    "without fixing": (partial(search_without, "fixing"), "rmab_opt"),
    "without quadratics": (partial(search_without, "quadratics"), "rmab_opt"),
    "without tilted lines": (partial(search_without, "tilted"), "rmab_opt"),
    "milp": (milp, "rmab_opt"),
    "milp lp": (partial(milp, effort="lp"), "rmab_opt"),
    "milp interval": (partial(milp, effort="interval"), "rmab_opt"),
    "milp box": (partial(milp, box=True), "rmab_opt"),
    "milp unstarted": (partial(milp, started=False), "rmab_opt"),
    "milp default": (partial(milp, profile="default"), "rmab_opt"),
}


def fresh(given: Instance) -> Instance:
    """The same instance with a set that nobody has compiled yet."""
    return replace(given, actions=ActionSet(given.actions.columns, given.actions.constraints))


def main() -> None:
    """Run, print, write."""
    global GAP
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest cohort, one network, five seconds each")
    parser.add_argument("--states", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--gap", type=float, default=GAP)
    parser.add_argument("--sizes", default="20,40,100")
    parser.add_argument("--hidden", default=",".join(HIDDEN))
    parser.add_argument("--pooled", help="sizes of cohorts for the pooled network, in place of the others")
    parser.add_argument("--only", default=",".join(SETS))
    parser.add_argument("--contenders", help="some of them by name; the first is what ratios refer to")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of other networks of the training script")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--ablation", action="store_true", help="our own variants instead of the rivals")
    parser.add_argument("--read", help="recorded runs to report and draw together, in place of a new one")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.hidden, options.seconds = "20", "16_32", 5.0
    if options.read:
        recorded: list[dict[str, object]] = []
        for path in options.read.split(","):
            with Path(path).open(newline="") as file:
                recorded += [{**row, "solved": row["solved"] == "True"} for row in csv.DictReader(file)]
        finish(recorded, options.out, options.plot)
        return
    GAP = options.gap
    # The search's own limit counts what the contenders are measured by: on a busy machine the wall runs while it waits.
    branch_and_bound.perf_counter = time.process_time  # type: ignore[attr-defined]
    kinds = options.only.split(",")
    contenders = ABLATION if options.ablation else CONTENDERS
    asked = (options.contenders or ",".join(contenders)).split(",")
    present = [name for name in asked if importlib.util.find_spec(contenders[name][1]) is not None]
    for name in set(asked) - set(present):
        print(f"{name}: not installed, left out")
    rows: list[dict[str, object]] = []
    for name in present:
        # Imports and the solvers' first start are nobody's decision time.
        contenders[name][0](instances([20], ["budget"], 1)[0], options.seconds)
    sizes = [int(s) for s in (options.pooled or options.sizes).split(",")]
    given_all = (
        pooled(sizes, kinds, options.states)
        if options.pooled
        else instances(sizes, kinds, options.states, options.hidden.split(","), options.data)
    )
    for given in given_all:
        best = -np.inf
        for name in present:
            try:
                answer = contenders[name][0](fresh(given), options.seconds)
            except Exception as error:  # noqa: BLE001 - a rival's failure is a result: reported, counted as unsolved
                print(f"  {given.name} {name}: {type(error).__name__}: {str(error)[:100]}")
                answer = Answer(-np.inf, np.inf, float("nan"), -1, False)
            best = max(best, answer.value)
            gap = (answer.bound - answer.value) / max(1e-9, abs(answer.value))
            rows.append(
                {"instance": given.name, "set": given.kind, "contender": name, "seconds": answer.seconds}
                | {"value": answer.value, "bound": answer.bound, "gap": gap, "nodes": answer.nodes}
                | {"solved": answer.solved}
            )
        mine = [row for row in rows if row["instance"] == given.name]
        for row in mine:
            row["short_of_best"] = best - float(row["value"])
        said = "  ".join(f"{row['contender']} {row['seconds']:.3f}{'' if row['solved'] else '*'}" for row in mine)
        print(f"{given.name:<26}{said}", flush=True)
        wrong = [row for row in mine if float(row["bound"]) < best - 2 * GAP * max(1.0, abs(best))]
        for row in wrong:
            print(f"  {row['contender']}: bound {row['bound']} below a value found, {best}")
        if options.out:
            # After every instance: what has been measured stays when the run is cut short.
            write(rows, options.out)
    finish(rows, options.out, options.plot)
    print(f"load over the last 15 minutes {os.getloadavg()[2]:.1f}, {os.cpu_count()} processors")


def write(rows: list[dict[str, object]], path: Path) -> None:
    """All rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def finish(rows: list[dict[str, object]], out: Path | None, figure: Path | None) -> None:
    """Report, and write and draw where asked."""
    kinds, present = (list(dict.fromkeys(str(row[name]) for row in rows)) for name in ("set", "contender"))
    report(rows, kinds, present)
    if out:
        write(rows, out)
    if figure:
        plot(rows, kinds, present, figure)


def measured(rows: list[dict[str, object]], kind: str, name: str) -> dict[str, dict[str, object]]:
    """A contender's rows of a set that hold a time, by instance."""
    return {
        str(row["instance"]): row
        for row in rows
        if row["set"] == kind and row["contender"] == name and float(row["seconds"]) == float(row["seconds"])
    }


def mean(values: list[float]) -> float:
    """Geometric mean."""
    return float(np.exp(np.log(np.maximum(values, 1e-4)).mean())) if values else float("nan")


def ratio(rows: list[dict[str, object]], kind: str, name: str, base: str) -> float:
    """Geometric mean of a contender's times in those of another, over the instances that both took."""
    mine, other = measured(rows, kind, name), measured(rows, kind, base)
    return mean([float(mine[i]["seconds"]) / float(other[i]["seconds"]) for i in mine if i in other])


def report(rows: list[dict[str, object]], kinds: list[str], present: list[str]) -> None:
    """A table a set: geometric mean, ratio to the first contender, solved inside the cap, largest time and gap."""
    print("\nset          contender      CPU s (geo. mean)   x first   solved   nodes (median)   longest   largest gap")
    for kind in kinds:
        for name in present:
            mine = list(measured(rows, kind, name).values())
            if not mine:
                print(f"{kind:<13}{name:<15}  nothing measured")
                continue
            seconds = [float(row["seconds"]) for row in mine]
            solved = sum(bool(row["solved"]) for row in mine)
            sign = " " if solved == len(mine) else ">"
            print(
                f"{kind:<13}{name:<15}{mean(seconds):>13.3f}{sign:>8}{ratio(rows, kind, name, present[0]):>6.1f}"
                f"{f'{solved}/{len(mine)}':>9}{np.median([int(row['nodes']) for row in mine]):>17.0f}"
                f"{max(seconds):>10.2f}{max(float(row['gap']) for row in mine):>14.1e}"
            )
    for name in present[1:]:
        missed = [
            row["instance"]
            for row in rows
            if row["contender"] == name
            and row["solved"]
            and not any(r["solved"] for r in rows if r["instance"] == row["instance"] and r["contender"] == present[0])
        ]
        if missed:
            print(f"{name} solved what {present[0]} did not: {', '.join(map(str, missed))}")


def plot(rows: list[dict[str, object]], kinds: list[str], present: list[str], path: Path) -> None:
    """Bars of geometric means on a logarithmic axis; above a bar how many instances hit the cap."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7.5, 3.6), constrained_layout=True)
    width = 0.8 / len(present)
    for k, name in enumerate(present):
        mine = [list(measured(rows, kind, name).values()) for kind in kinds]
        heights = [mean([float(row["seconds"]) for row in part]) for part in mine]
        at = np.arange(len(kinds)) + (k - (len(present) - 1) / 2) * width
        axis.bar(at, heights, width, label=name)
        for x, height, part in zip(at, heights, mine, strict=True):
            capped = sum(not row["solved"] for row in part)
            if capped:
                axis.annotate(f"{capped}", (x, height), ha="center", va="bottom", fontsize="x-small")
    axis.set_yscale("log")
    axis.margins(y=0.15)
    axis.set_xticks(range(len(kinds)), kinds)
    axis.set_ylabel("CPU seconds a decision")
    axis.set_title("geometric means; numbers: instances stopped at the cap", fontsize="small")
    axis.legend(ncols=len(present), fontsize="small", frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    figure.savefig(path)


if __name__ == "__main__":
    main()
