"""What a new state costs: set-up of the first decision, of a re-solve, and the share of building in a decision.

A set-up is everything before the solver runs: the set's Pyomo model, its compilation, the support, bounds, rows and the
passing of arrays to HiGHS. Figures are CPU seconds by the program (`method="program"`, profile `fast`); every set-up is
repeated and the median taken. Last columns: building as a share of the first decision, and of a decision in a run of
`--states` states.

`python benchmarks/resolve.py` takes under a minute; networks are those of `argmax.py`, and a pooled head over
1,000 and 10,000 arms.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from argmax import SETS, make_set

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Chooser, NetworkObjective, Situation
from rmab_opt.encoder import Network
from rmab_opt.problem import Arms, Problem, Tabular
from rmab_opt.solver import load_profile

DATA = Path(__file__).parent / "data"
WARM_UP = 3


def problem_over(arms: Arms) -> Problem:
    """Two states, two actions; the dynamics are not used."""
    n = len(arms)
    return Problem(arms, Tabular(np.full((n, 2, 2, 2), 0.5), np.zeros((n, 2, 2))), start=np.zeros(n, dtype=int))


def cpu() -> float:
    """User and system seconds of this process."""
    return time.process_time()


def set_up(chooser: Chooser, state: np.ndarray) -> float:
    """CPU seconds until HiGHS holds the program of a state; the learner's own folding of the state is not counted."""
    situation = chooser._situation(state, 0)
    chooser.objective.network(situation)
    began = cpu()
    session = chooser._prepare(situation)
    session._solver.push(session._arrays)
    return cpu() - began


def measure(goal: NetworkObjective, make: object, n: int, states: int, seconds: float) -> dict[str, float]:
    """First and later set-ups, and decisions, over random states."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, 2, (states, n))
    firsts, later = [], []
    for _ in range(WARM_UP):
        actions: ActionSet = make()  # type: ignore[operator]
        problem = problem_over(actions.columns.arms)
        profile = replace(load_profile("fast"), seconds=seconds)
        chooser = Chooser(problem, actions, goal, profile, method="program")
        firsts.append(set_up(chooser, draws[0]))
        later += [set_up(chooser, state) for state in draws[1:4]]
    began = cpu()
    for state in draws:
        chooser.decide(state)
    each = (cpu() - began) / states
    first, again = float(np.median(firsts)), float(np.median(later))
    return {
        "first": first,
        "again": again,
        "ratio": again / first,
        "decision": each,
        "share_first": first / (first + each - again),
        "share": (first + (states - 1) * again) / (states * each + first - again),
    }


def pooled(n: int) -> NetworkObjective:
    """A head of 32 neurons over sums of 8 features an arm, of a pooled network's shape."""
    rng = np.random.default_rng(1)
    head = (rng.normal(size=(32, 8)), rng.normal(size=32), "relu")
    readout = (rng.normal(size=(1, 32)), np.zeros(1), "linear")

    def at(situation: Situation) -> Network:
        own = np.random.default_rng(int(situation.state @ np.arange(len(situation.state))))
        weight = head[0] @ (own.normal(size=(8, n)) / np.sqrt(n))
        return Network.from_arrays([(weight, *head[1:]), readout], skip=own.normal(size=n) / n)

    return NetworkObjective(at)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest network, two states")
    parser.add_argument("--hidden", default="32,16_32,32_32")
    parser.add_argument("--only", default=",".join(SETS))
    parser.add_argument("--states", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    if options.quick:
        options.hidden, options.states, options.seconds = "32", 2, 1.0
    words = ("first ms", "again ms", "again/first", "decision ms", "built, first", "built, run")
    print(f"{'instance':<28}" + "".join(f"{word:>14}" for word in words))
    cases = []
    for hidden in options.hidden.split(","):
        for kind in options.only.split(","):
            full = Network.from_safetensors(DATA / f"argmax_100_{hidden}.safetensors")
            goal = NetworkObjective(lambda at, full=full: full.fold(np.arange(100, 200), at.state))
            make = lambda kind=kind: make_set(kind, 100, np.random.default_rng(5))  # noqa: E731
            cases.append((f"100 {hidden} {kind}", goal, make, 100))
    for n in (1000, 10_000):
        make = lambda n=n: ActionSet(Arms.from_arrays(n), {"budget": Budget(at_most=n // 10)})  # noqa: E731
        cases.append((f"{n} pooled 32 budget", pooled(n), make, n))
    ratios, shares = [], []
    for name, goal, make, n in cases:
        found = measure(goal, make, n, options.states, options.seconds)
        ratios.append(found["ratio"])
        shares.append(found["share"])
        print(
            f"{name:<28}{1e3 * found['first']:>14.1f}{1e3 * found['again']:>14.2f}{found['ratio']:>14.3f}"
            f"{1e3 * found['decision']:>14.1f}{found['share_first']:>14.3f}{found['share']:>14.3f}",
            flush=True,
        )
    means = [float(np.exp(np.mean(np.log(part)))) for part in (ratios, shares)]
    print(f"geometric means: again/first {means[0]:.3f}, built in a run {means[1]:.3f}")


if __name__ == "__main__":
    main()
