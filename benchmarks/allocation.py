"""The soft allocation by Newton's method against 100 unrolled Sinkhorn steps, forward and backward, interleaved.

    python benchmarks/allocation.py [--quick]
A ratio below 1 means the exact layer is cheaper than the approximate one.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from rmab_opt.settings.neural_index.allocation import Allocation, sinkhorn


def main() -> None:
    """One row an epsilon and batch: milliseconds of both, ratio, column errors, gradient error of the unroll."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    repeat = 5 if parser.parse_args().quick else 40
    torch.set_num_threads(1)
    limit, n_arms = [5.0, 3.0], 50
    masses = torch.tensor(limit, dtype=torch.float64)
    print("batch epsilon  newton_ms  unrolled_ms  ratio  steps  column_error  unrolled_error  unrolled_gradient_error")
    for batch in (4, 16):
        for epsilon in (0.5, 0.2, 0.1, 0.05, 0.02, 0.01):
            rng = np.random.default_rng(0)
            index = torch.tensor(rng.normal(size=(batch, n_arms, 3)))
            weight = torch.tensor(rng.normal(size=(batch, n_arms, 3)))
            layer = Allocation.budgets(limit, equal=True, epsilon=epsilon)
            spent: tuple[list[float], list[float]] = ([], [])
            results = []
            for _ in range(repeat):
                results = []
                for side in (0, 1):
                    variable = index.clone().requires_grad_()
                    begun = time.perf_counter()
                    plan = layer(variable) if side == 0 else sinkhorn(variable, masses, epsilon=epsilon, iterations=100)
                    (plan * weight).sum().backward()
                    spent[side].append(time.perf_counter() - begun)
                    error = float((plan.detach()[:, :, 1:].sum(dim=1) - masses).abs().max())
                    assert variable.grad is not None
                    results.append((error, variable.grad))
            newton, unrolled = (1e3 * float(np.median(part)) for part in spent)
            off = float((results[0][1] - results[1][1]).norm() / results[0][1].norm())
            print(
                f"{batch:>5} {epsilon:>7} {newton:>10.2f} {unrolled:>12.2f} {newton / unrolled:>6.2f} {layer.steps:>6} "
                f"{results[0][0]:>13.1e} {results[1][0]:>15.1e} {off:>24.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
