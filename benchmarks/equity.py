"""Speed of fair planning: one episode of digital diabetes against the published rule, and 10,000 arms in 20 groups.

python benchmarks/equity.py [--quick]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from reproduce_equity import PublishedRule

import rmab_opt as ro
from rmab_opt.decisions import Situation
from rmab_opt.decisions.equity import FairObjective
from rmab_opt.planning import Coupling
from rmab_opt.planning.equity import Groups, fair_plan_arrays


def large_cohort(n_arms: int, n_groups: int):
    """Maternal-health arms in groups that respond unequally."""
    problem = ro.load("maternal_health", n_arms=n_arms).problem
    transition, reward = problem.dynamics.tabular()
    rng = np.random.default_rng(0)
    label = np.sort(rng.integers(n_groups, size=n_arms))
    transition = transition.copy()
    transition[:, 1, 1, 0] *= rng.uniform(0.4, 1.0, n_groups)[label]
    transition[:, 1, 1, 1] = 1.0 - transition[:, 1, 1, 0] - transition[:, 1, 1, 2]
    return transition, reward, problem.start_distribution, Groups.from_labels(label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds and 1,000 arms")
    quick = parser.parse_args().quick
    model = ro.load("digital_diabetes")
    problem, rng = model.problem, np.random.default_rng(0)
    ours = once = theirs = 0.0
    published = PublishedRule(model)
    clock = time.perf_counter()
    objective = FairObjective(problem, model.actions, "group", units=30)
    _ = objective.table
    once = time.perf_counter() - clock
    state = problem.sample_start(rng)
    for period in range(0, problem.horizon, 5 if quick else 1):
        clock = time.perf_counter()
        objective.shares(Situation(problem, model.actions.columns, state, period))
        ours += time.perf_counter() - clock
        clock = time.perf_counter()
        index, given = published.plan(state, period)
        theirs += time.perf_counter() - clock
        action = np.zeros(len(state), dtype=np.int64)
        for row, units in zip(published.groups.member, given, strict=True):
            arms = np.flatnonzero(row)
            action[arms[np.argsort(-index[arms], kind="stable")[:units]]] = 1
        state, _ = problem.dynamics.step(state, action, rng)
    print("planning one episode of digital diabetes, 300 arms, 6 groups, 20 rounds")
    print(f"  published rule as written  {theirs:8.3f} s")
    print(f"  ours, values once          {once:8.3f} s, then {ours:.4f} s an episode")
    print(
        f"  ratio                      {theirs / (once + ours):8.1f} first episode, {theirs / ours:.0f} every later one"
    )
    n_arms = 1000 if quick else 10_000
    transition, reward, start, groups = large_cohort(n_arms, 20)
    for welfare in ("max_min", "leximin"):
        plan = fair_plan_arrays(
            transition,
            reward,
            start,
            groups,
            Coupling.budgets([n_arms / 10]),
            horizon=20,
            discount=0.9999,
            welfare=welfare,
            method="prices",
            tolerance=1e-4,
        )
        print(f"{welfare}, {n_arms} arms, 20 groups: {plan.seconds:.1f} s, relative gap {plan.relative_gap:.1e}")


if __name__ == "__main__":
    main()
