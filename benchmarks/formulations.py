"""What each kind of bound and each form of the rows buys: our own variants of one program, side by side.

Every instance (network, set, state; those of `argmax.py`) goes to every variant in turn, with the same start, gap, cap
and solver settings; measured is the CPU time of bounds, rows, passing on and solving. A variant that hits the cap
counts with its time so far.

    box        big-M, bounds from the 0/1 box by intervals
    interval   big-M, intervals over the action set
    linear     big-M, lines propagated back to the set (CROWN): what `auto` takes
    lp         big-M, two LPs a neuron still unstable
    cut row    linear, and a row: output >= the start's value
    cutoff     LPs over the whole network where the output is at least the start's value, and the row
    cuts       linear, rows of the ideal form separated at the root
    partition  linear, every neuron's inputs in three groups, convex hull

`python benchmarks/formulations.py --quick` takes half a minute; `--sizes 20,40,100 --states 2 --seconds 20` is the full
table. Printed are geometric means of CPU seconds and of nodes, and the ratio to `linear`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from argmax import SETS, Instance, instances

from rmab_opt.encoder import Support, assemble
from rmab_opt.report import table_csv
from rmab_opt.search.local_search import climb
from rmab_opt.solver import Session

GAP = 1e-4
VARIANTS: dict[str, dict[str, object]] = {
    "box": {"effort": "interval", "box": True},
    "interval": {"effort": "interval"},
    "linear": {"effort": "linear"},
    "lp": {"effort": "lp"},
    "cut row": {"effort": "linear", "cut": True},
    "cutoff": {"effort": "cutoff", "cut": True},
    "cuts": {"effort": "linear", "formulation": "cuts"},
    "partition": {"effort": "linear", "formulation": "partition"},
}


def one(given: Instance, options: dict[str, object], start: np.ndarray, seconds: float) -> dict[str, object]:
    """One variant on one instance: CPU seconds, nodes, LPs, binaries, whether solved, value and bound."""
    options = dict(options)
    model, compiled = given.actions.compiled
    base, act = compiled.program, compiled.index(model.act)
    n = len(act)
    support = Support.box(np.zeros(n), np.ones(n)) if options.pop("box", False) else Support.from_program(base, act)
    worth = given.network(start)
    began = time.process_time()
    at_least = float(worth) if options.pop("cut", False) else None
    record = assemble(given.network, support, at_least=at_least, **options)  # type: ignore[arg-type]
    built = time.process_time() - began
    session = Session.from_arrays(record.arrays.join(base, act), "fast")
    session.start(act, start)
    result = session.solve(seconds=seconds, relative_gap=GAP)
    spent = time.process_time() - began
    action = np.rint(result.x[act]) if result.x is not None else start
    return {
        "seconds": spent,
        "bounds": built,
        "nodes": max(1, result.nodes),
        "lps": record.bounds.lps,
        "binaries": record.counts["binaries"],
        "cuts": record.arrays.cuts,
        "solved": result.status == "optimal",
        "value": max(float(given.network(action)), float(worth)),
        "bound": result.bound,
    }


def geometric(values: list[float]) -> float:
    """Geometric mean."""
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-9)))))


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="20,40,100")
    parser.add_argument("--only", default=",".join(SETS))
    parser.add_argument("--hidden", default="32,16_32,32_32,64_64")
    parser.add_argument("--states", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.only, options.seconds = "20,40", "budget,scheduling", 4.0
        options.hidden = "32,32_32"
    asked = options.variants.split(",")
    rows: list[dict[str, object]] = []
    for given in instances([int(s) for s in options.sizes.split(",")], options.only.split(","), options.states):
        hidden = given.name.split("/")[0].split("_", 1)[1]
        if hidden not in options.hidden.split(","):
            continue
        start, _ = climb(
            given.network, np.zeros(given.network.n_inputs), given.actions.plain_rows.allow, given.actions.allows
        )
        mine = []
        for name in asked:
            found = one(given, VARIANTS[name], start, options.seconds)
            mine.append({"instance": given.name, "set": given.kind, "hidden": hidden, "variant": name, **found})
        best = max(float(row["value"]) for row in mine)  # type: ignore[arg-type]
        for row in mine:
            slack = 2 * GAP * max(1.0, abs(best))
            row["wrong"] = bool(row["solved"] and best - float(row["value"]) > slack)  # type: ignore[arg-type]
            row["wrong"] |= float(row["bound"]) < best - slack  # type: ignore[arg-type]
        rows += mine
        said = "  ".join(f"{r['variant']} {r['seconds']:.3f}{'' if r['solved'] else '*'}" for r in mine)
        print(f"{given.name:<26}{said}", flush=True)
    words = "".join(f"{word:>9}" for word in ("seconds", "ratio", "nodes", "bounds s", "solved", "wrong"))
    print(f"\n{'hidden':<10}{'variant':<11}{words}")
    for hidden in [*options.hidden.split(","), "all"]:
        own = [row for row in rows if hidden in ("all", row["hidden"])]
        whole = {name: [row for row in own if row["variant"] == name] for name in asked}
        base = geometric([float(r["seconds"]) for r in whole["linear"]]) if whole.get("linear") else float("nan")  # type: ignore[arg-type]
        for name, part in whole.items():
            if not part:
                continue
            mean = geometric([float(r["seconds"]) for r in part])  # type: ignore[arg-type]
            nodes = geometric([float(r["nodes"]) for r in part])  # type: ignore[arg-type]
            built = geometric([float(r["bounds"]) for r in part])  # type: ignore[arg-type]
            solved, wrong = sum(bool(r["solved"]) for r in part), sum(bool(r["wrong"]) for r in part)
            print(
                f"{hidden:<10}{name:<11}{mean:>9.3f}{mean / base:>9.2f}{nodes:>9.1f}{built:>9.4f}"
                f"{f'{solved}/{len(part)}':>9}{wrong:>9}"
            )
    if options.out is not None:
        options.out.write_text(table_csv(rows))


if __name__ == "__main__":
    main()
