"""Whittle indices: all arms in lockstep against markovianbandit-pkg arm by arm, interleaved in one run.

    python benchmarks/whittle.py            # needs: pip install markovianbandit-pkg numba
Prints user CPU seconds of both sides, their ratio and the largest difference of the indices.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from rmab_opt.planning import whittle_indices


def random_arms(n_arms: int, n_states: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Dirichlet(1) rows and uniform rewards."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(n_states), (n_arms, 2, n_states)), rng.random((n_arms, n_states, 2))


def library_indices(transition: np.ndarray, reward: np.ndarray, discount: float) -> np.ndarray:
    """The other side: one arm after another, with the library's own indexability test."""
    import markovianbandit

    values = np.empty(reward.shape[:2])
    for arm in range(len(reward)):
        bandit = markovianbandit.restless_bandit_from_P0P1_R0R1(
            transition[arm, 0], transition[arm, 1], reward[arm, :, 0], reward[arm, :, 1]
        )
        values[arm] = bandit.whittle_indices(discount=discount)
    return values


def main() -> None:
    """Run the cases of the acceptance list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="alternations of the two sides")
    rounds = parser.parse_args().rounds
    discount = 0.95
    print(
        f"{'arms':>6} {'states':>6} {'ours':>9} {'library':>9} {'ratio':>7} {'difference':>11}   CPU seconds, best of"
    )
    for n_arms, n_states in ((5000, 10), (100, 200), (1000, 30)):
        transition, reward = random_arms(n_arms, n_states, seed=n_states)
        # Both sides run once before the clock starts: compilation and page faults are nobody's algorithm.
        whittle_indices(transition[:4], reward[:4], discount=discount)
        library_indices(transition[:2], reward[:2], discount)
        ours, theirs = [], []
        for _ in range(rounds):
            begun = time.process_time()
            found = whittle_indices(transition, reward, discount=discount)
            ours.append(time.process_time() - begun)
            begun = time.process_time()
            values = library_indices(transition, reward, discount)
            theirs.append(time.process_time() - begun)
        good = found.indexable
        difference = np.abs(found.values[good] - values[good]).max()
        print(
            f"{n_arms:>6} {n_states:>6} {min(ours):>9.4f} {min(theirs):>9.3f} {min(theirs) / min(ours):>7.1f} "
            f"{difference:>11.1e}   {rounds} alternations, {good.sum()} of {n_arms} indexable"
        )


if __name__ == "__main__":
    main()
