"""Regret of re-fitting, optimism and posterior sampling while a programme acts; see programme.md, section 6.

    python benchmarks/learning_while_acting.py --quick     # 4 seeds, about a minute
    python benchmarks/learning_while_acting.py             # 20 seeds

30 arms of three kinds that nobody knows, 3 calls a week, 40 weeks, Whittle's rule at discount 0.95. Regret is the
expected reward lost against the same rule with the truth, under the same chances.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from rmab_opt.planning import whittle_indices
from rmab_opt.programme.explore import Counts, Explore
from rmab_opt.report import table_text

CENTRE = np.array([[[0.15, 0.75], [0.40, 0.90]], [[0.10, 0.50], [0.70, 0.80]], [[0.05, 0.95], [0.50, 0.98]]])
ARMS, CALLS, WEEKS = 30, 3, 40
RULES: tuple[Explore, ...] = ("none", "optimism", "sampling")


def indices(tables: np.ndarray) -> np.ndarray:
    """Whittle indices (N, S) of arms paid on arrival."""
    reward = tables[..., 1].transpose(0, 2, 1)
    return np.asarray(whittle_indices(tables, np.ascontiguousarray(reward), discount=0.95).values)


def prior_of(name: str, truth: np.ndarray) -> np.ndarray:
    """Dirichlet counts (N, A, S, S)."""
    if name == "flat":
        return np.ones_like(truth)
    centre = truth.mean(axis=0)
    if name == "useless":
        centre = np.stack([centre[0], centre[0]])
    return np.broadcast_to(4.0 * centre, truth.shape)


def season(truth: np.ndarray, prior: np.ndarray, rule: Explore | None, seed: int) -> float:
    """Expected reward of a season; ``rule`` None knows the truth."""
    world, own = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    counts, state, total = Counts(prior), np.zeros(ARMS, dtype=int), 0.0
    known, arms = indices(truth), np.arange(ARMS)
    for week in range(WEEKS):
        values = known if rule is None else indices(counts.tables(rule, week, own))
        action = np.zeros(ARMS, dtype=int)
        action[np.argsort(-values[arms, state], kind="stable")[:CALLS]] = 1
        chance = truth[arms, action, state, 1]
        total += float(chance.sum())
        after = (world.random(ARMS) < chance).astype(int)
        counts.see(state, action, after)
        state = after
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 seeds")
    seeds = range(4 if parser.parse_args().quick else 20)
    rows = []
    for name in ("centre", "flat", "useless"):
        lost: dict[str, list[float]] = {rule: [] for rule in RULES}
        for seed in seeds:
            rng = np.random.default_rng(seed)
            kind = rng.choice(3, ARMS, p=(0.5, 0.3, 0.2))
            logit = np.log(CENTRE / (1 - CENTRE))[kind] + rng.normal(0, 0.6, ARMS)[:, None, None]
            up = 1 / (1 + np.exp(-logit - rng.normal(0, 0.3, (ARMS, 2, 2))))
            truth = np.stack([1 - up, up], axis=-1)
            prior = prior_of(name, truth)
            best = season(truth, prior, None, seed)
            for rule in RULES:
                lost[rule].append(best - season(truth, prior, rule, seed))
        half = {rule: 1.96 * np.std(values, ddof=1) / np.sqrt(len(values)) for rule, values in lost.items()}
        rows.append({"prior": name, **{f"regret {r}": f"{np.mean(v):.1f} +- {half[r]:.1f}" for r, v in lost.items()}})
    sys.stdout.write(table_text(rows) + "\n")


if __name__ == "__main__":
    main()
