"""The bound by decomposition against HiGHS on the same linear program, interleaved; growth with the number of arms.

    python benchmarks/dual.py [--large] [--plot growth.png]
Prints user CPU seconds of both sides, values, certified gaps and peak memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from rmab_opt.instances.synthetic import ladder_mix
from rmab_opt.planning import Coupling, dual_discounted, dual_finite, solve_occupancy

HORIZON, DISCOUNT = 20, 0.95


def case(n_arms: int, n_states: int, n_actions: int) -> tuple[np.ndarray, np.ndarray, Coupling, np.ndarray]:
    """Generator G-easy, seed 0, budgets 10 % (and 5 %)."""
    cohort = ladder_mix(n_arms, n_states, n_actions, 0)
    transition, reward = cohort.dynamics.tabular()
    return transition, reward, Coupling.budgets([0.1 * n_arms, 0.05 * n_arms][: n_actions - 1]), cohort.start


def main() -> None:
    """Both sides where HiGHS finishes in reasonable time, the decomposition alone beyond."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="also 10,000 arms with HiGHS on the discounted program")
    parser.add_argument("--plot", help="write the growth with the number of arms to this file")
    options = parser.parse_args()
    print(f"{'case':<32} {'ours':>8} {'HiGHS':>8} {'ratio':>7} {'ours value':>15} {'HiGHS value':>15} {'gap':>8} tried")
    for n_states, n_actions in ((5, 2), (10, 3)):
        for n_arms in (100, 1000, 10_000):
            transition, reward, coupling, start = case(n_arms, n_states, n_actions)
            for horizon in (None, HORIZON):
                begun = time.process_time()
                if horizon is None:
                    found = dual_discounted(transition, reward, coupling, start, discount=DISCOUNT)
                else:
                    found = dual_finite(transition, reward, coupling, start, horizon=horizon)
                ours = time.process_time() - begun
                theirs, value = float("nan"), float("nan")
                small = n_arms * n_states * n_actions * (horizon or 1) <= (400_000 if options.large else 60_000)
                if small:
                    begun = time.process_time()
                    value = solve_occupancy(
                        transition,
                        reward,
                        start,
                        coupling=coupling,
                        discount=DISCOUNT if horizon is None else 1.0,
                        horizon=horizon,
                        algorithm="ipm" if n_arms > 100 or horizon else "simplex",
                    ).value
                    theirs = time.process_time() - begun
                name = f"{'discounted' if horizon is None else f'T={horizon}'} N={n_arms} S={n_states} A={n_actions}"
                print(
                    f"{name:<32} {ours:>8.3f} {theirs:>8.3f} {theirs / ours:>7.1f} {found.value:>15.6f} {value:>15.6f} "
                    f"{found.relative_gap:>8.1e} {found.evaluations}",
                    flush=True,
                )
    sizes, seconds = (1000, 3000, 10_000, 30_000, 100_000), []
    print("growth, discounted S=5 A=2 to 1e-4")
    for n_arms in sizes:
        transition, reward, coupling, start = case(n_arms, 5, 2)
        best = np.inf
        for _ in range(3):
            begun = time.process_time()
            found = dual_discounted(transition, reward, coupling, start, discount=DISCOUNT, tolerance=1e-4)
            best = min(best, time.process_time() - begun)
        seconds.append(best)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"N={n_arms:>7}  {best:8.3f} s  {best / n_arms * 1e6:8.2f} s per million arms  peak {peak:.2f} GiB",
            flush=True,
        )
    print(
        f"from {sizes[0]} to {sizes[-1]} arms: time x {seconds[-1] / seconds[0]:.1f} for x {sizes[-1] // sizes[0]} arms"
    )
    if options.plot:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(5, 3.5), layout="constrained")
        axes.loglog(sizes, seconds, "o-", label="decomposition, gap 1e-4")
        axes.loglog(sizes, np.array(sizes) / sizes[0] * seconds[0], "--", color="grey", label="linear")
        axes.set(xlabel="arms", ylabel="CPU seconds")
        axes.legend()
        figure.savefig(options.plot)


if __name__ == "__main__":
    main()
