"""Choosing actions under budgets: price iteration against scipy's assignment and HiGHS, interleaved.

    python benchmarks/assignment.py
Prints CPU milliseconds a decision, best of several scores, and the certificate.
"""

from __future__ import annotations

import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.optimize import linear_sum_assignment

from rmab_opt.planning import assign
from rmab_opt.planning.assignment import _program


def replicated(scores: np.ndarray, budgets: np.ndarray) -> float:
    """Value by scipy: every unit of budget a column, every arm its own column for resting."""
    worth = scores - scores[:, :1]
    table = worth[:, np.repeat(np.arange(1, scores.shape[1]), budgets)]
    # An arm that earns less than resting rests: negative entries count as zero.
    table = np.maximum(table, 0.0)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum())


def main() -> None:
    """Normal scores, three actions, budgets of a tenth and a twentieth of the arms."""
    print(f"{'arms':>6} {'prices ms':>10} {'scipy ms':>10} {'HiGHS ms':>10} {'ratio':>8} {'gap':>8} {'agree':>6}")
    for n_arms in (50, 1000, 5000, 10_000):
        rng = np.random.default_rng(n_arms)
        budgets = np.array([n_arms // 10, n_arms // 20])
        times: dict[str, list[float]] = {"prices": [], "scipy": [], "highs": []}
        agree, gap = True, 0.0
        for _ in range(7 if n_arms <= 1000 else 2):
            scores = rng.normal(size=(n_arms, 3))
            begun = time.process_time()
            found = assign(scores, budgets)
            times["prices"].append(time.process_time() - begun)
            gap = max(gap, found.gap)
            if n_arms <= 5000:
                begun = time.process_time()
                value = replicated(scores, budgets)
                times["scipy"].append(time.process_time() - begun)
                agree &= abs(value - found.value) <= 1e-8 * abs(value)
            begun = time.process_time()
            program = _program(np.ascontiguousarray((scores[:, 1:] - scores[:, :1]).T), budgets, False)
            times["highs"].append(time.process_time() - begun)
            agree &= abs(program.value - found.value) <= 1e-8 * abs(found.value)
        best = {name: min(values, default=float("nan")) * 1e3 for name, values in times.items()}
        others = np.nanmin([best["scipy"], best["highs"]])
        print(
            f"{n_arms:>6} {best['prices']:>10.3f} {best['scipy']:>10.3f} {best['highs']:>10.3f} "
            f"{others / best['prices']:>8.0f} {gap:>8.1e} {agree!s:>6}",
            flush=True,
        )


if __name__ == "__main__":
    main()
