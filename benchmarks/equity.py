"""Speed of fair planning: one episode of digital diabetes against the published rule, and plans and decisions at size.

    python benchmarks/equity.py [--quick] [--only episode|large|scale]

The published rule is written literally as its specification reads: a loop over arms, eight bisections an arm, each a
value iteration of the rounds left, and all values of a group once more after every unit given; nothing is kept. Both
sides plan the same 20 states one after the other in one process; times are user CPU seconds.

``scale`` holds leximin and ``decide --groups`` against their targets and writes ``benchmarks/data/equity_scale.csv``.
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import rmab_opt as ro
from rmab_opt.decisions import Situation
from rmab_opt.planning import Coupling
from rmab_opt.settings.equity import Cohort, Groups, fair_plan_arrays
from rmab_opt.settings.equity.policies import FairObjective
from rmab_opt.settings.equity.prices import PricedGroups
from rmab_opt.settings.equity.relaxed import Stage
from rmab_opt.settings.equity.reproduction import PublishedRule


def user_seconds(call: Callable[[], object]) -> tuple[object, float]:
    """What a call returns and its user CPU seconds."""
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    answer = call()
    return answer, resource.getrusage(resource.RUSAGE_SELF).ru_utime - begun


class LiteralRule:
    """The published max-min rule arm by arm: bisected indices, the charge between two of them, water filling."""

    def __init__(self, problem, groups: Groups, budget: int) -> None:
        transition, reward = problem.dynamics.tabular()
        self.arms = [(transition[i], reward[i, :, 0]) for i in range(problem.n_arms)]
        self.members = [np.flatnonzero(row).tolist() for row in groups.member]
        self.horizon, self.discount, self.budget = problem.horizon, problem.discount, budget

    def iterate(self, arm: int, charge: float, rounds: int) -> tuple[np.ndarray, np.ndarray]:
        """Values of an arm under a charge, (S,), and the gain of acting in the first round."""
        transition, reward = self.arms[arm]
        value = gain = np.zeros(len(reward))
        for _ in range(rounds):
            rest, act = self.discount * (transition @ value)
            gain = act - rest - charge
            value = reward + np.maximum(rest, act - charge)
        return value, gain

    def index(self, arm: int, state: int, rounds: int) -> float:
        """Whittle index by bisection on [-1, 1] to a length of 0.01."""
        low, high = -1.0, 1.0
        while high - low > 0.01:
            middle = 0.5 * (low + high)
            if self.iterate(arm, middle, rounds)[1][state] > 0:
                low = middle
            else:
                high = middle
        return 0.5 * (low + high)

    def group_value(self, members: list[int], index: list[float], state: list[int], units: int, rounds: int) -> float:
        """The group's total by the charge between its unit-th and next largest index."""
        order = sorted((index[i] for i in members), reverse=True)
        charge = 1e6 if units == 0 else order[-1] if units == len(order) else 0.5 * (order[units - 1] + order[units])
        total = sum(float(self.iterate(i, charge, rounds)[0][state[i]]) for i in members)
        return total + charge * units * sum(self.discount**t for t in range(rounds))

    def plan(self, state: np.ndarray, period: int) -> np.ndarray:
        """Budgets (K,) of a round."""
        rounds, now = self.horizon - period, state.tolist()
        index = [self.index(i, now[i], rounds) for i in range(len(self.arms))]
        given = [0] * len(self.members)
        mean = [self.group_value(arms, index, now, 0, rounds) / len(arms) for arms in self.members]
        for _ in range(self.budget):
            lowest = min((g for g, arms in enumerate(self.members) if given[g] < len(arms)), key=mean.__getitem__)
            given[lowest] += 1
            arms = self.members[lowest]
            mean[lowest] = self.group_value(arms, index, now, given[lowest], rounds) / len(arms)
        return np.array(given)


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


def set_up(model) -> FairObjective:
    """Our side's one-time work: values and indices of all arms, states, rounds and charges."""
    objective = FairObjective(model.problem, model.actions, "group")
    _ = objective.table, objective.units
    return objective


def episode(quick: bool) -> None:
    """One episode of digital diabetes, planned by the published rule and by ours."""
    model = ro.load("digital_diabetes")
    problem, rng = model.problem, np.random.default_rng(0)
    objective, once = user_seconds(lambda: set_up(model))
    literal = LiteralRule(problem, objective.groups, 30)
    published = PublishedRule(model)
    ours = theirs = arrays = 0.0
    state = problem.sample_start(rng)
    for period in range(0, problem.horizon, 5 if quick else 1):
        situation = Situation(problem, model.actions.columns, state, period)
        _, seconds = user_seconds(lambda now=situation: objective.shares(now))
        ours += seconds
        given, seconds = user_seconds(lambda now=situation: literal.plan(now.state, now.period))
        theirs += seconds
        (index, same), seconds = user_seconds(lambda now=situation: published.plan(now.state, now.period))
        arrays += seconds
        if given.tolist() != same.tolist():
            raise SystemExit(f"round {period}: the rule gives {given} literally and {same} on arrays")
        action = np.zeros(len(state), dtype=np.int64)
        for row, units in zip(published.groups.member, given, strict=True):
            arms = np.flatnonzero(row)
            action[arms[np.argsort(-index[arms], kind="stable")[:units]]] = 1
        state, _ = problem.dynamics.step(state, action, rng)
    print("planning one episode of digital diabetes, 300 arms, 6 groups, 20 rounds, user CPU seconds")
    print(f"  published rule, literally    {theirs:8.3f}")
    print(f"  the same rule on arrays      {arrays:8.3f}")
    print(f"  ours                         {ours:8.3f} an episode, after {once:.3f} once for all episodes of a cohort")
    for name, seconds in (("literal", theirs), ("on arrays", arrays)):
        print(f"  ratio to {name:10} {seconds / (once + ours):8.1f} with the set-up, {seconds / ours:.0f} without it")


def large(quick: bool) -> None:
    """A large cohort planned by prices."""
    n_arms = 1000 if quick else 10_000
    transition, reward, start, groups = large_cohort(n_arms, 20)
    for welfare in ("max_min", "leximin", "nash"):
        cohort = Cohort(transition, reward, start, groups, Coupling.budgets([n_arms / 10]), 20, 0.9999)
        plan = fair_plan_arrays(cohort, welfare=welfare, tolerance=1e-4)
        print(f"{welfare}, {n_arms} arms, 20 groups: {plan.seconds:.1f} s by the clock, gap {plan.relative_gap:.1e}")


RECORD = Path(__file__).parent / "data" / "equity_scale.csv"

LEVELS_SECONDS = 900.0
"""Wall-clock limit of a plan: it then stops with what is proven."""


def leximin_at(n_arms: int, n_groups: int) -> list[dict[str, Any]]:
    """CPU seconds to the first level within 1e-3, and to all levels."""
    transition, reward, start, groups = large_cohort(n_arms, n_groups)
    cohort = Cohort(transition, reward, start, groups, Coupling.budgets([n_arms / 10]), 20, 0.9999)
    stage = Stage(np.full(n_groups, -np.inf), free=np.ones(n_groups, dtype=bool))
    found, first = user_seconds(lambda: PricedGroups(cohort).solve(stage, tolerance=1e-3))
    plan, every = user_seconds(lambda: fair_plan_arrays(cohort, tolerance=1e-5, seconds=LEVELS_SECONDS))
    said = f"gap {(found.upper - found.lower) / found.upper:.1e}"
    done = f"{len(plan.levels)} levels, {'complete' if plan.complete else 'stopped'}, gap {plan.relative_gap:.1e}"
    size = f"{n_arms} arms, {n_groups} groups"
    return [
        {"what": "leximin, first level to 1e-3", "size": size, "cpu_seconds": first, "target": 30, "said": said},
        {"what": "leximin, all levels", "size": size, "cpu_seconds": every, "target": 300, "said": done},
    ]


def leximin_against_program(n_arms: int, n_groups: int) -> dict[str, Any]:
    """Largest difference of any group's value by prices and by one linear program a level."""
    transition, reward, start, groups = large_cohort(n_arms, n_groups)
    cohort = Cohort(transition, reward, start, groups, Coupling.budgets([n_arms / 10]), 20, 0.9999)
    priced, seconds = user_seconds(lambda: fair_plan_arrays(cohort, method="prices"))
    plain = fair_plan_arrays(cohort, method="program")
    apart = float(np.abs(priced.values - plain.values).max())
    size = f"{n_arms} arms, {n_groups} groups"
    return {"what": "leximin against the program", "size": size, "cpu_seconds": seconds, "difference": apart}


def overlapping(instances: int) -> dict[str, Any]:
    """The same over small cohorts whose groups overlap; the largest difference of all."""
    apart, spent = 0.0, 0.0
    for seed in range(instances):
        rng = np.random.default_rng(seed)
        n_arms, n_groups = 10 + seed % 5, 3 + seed % 4
        transition = rng.dirichlet(np.ones(3), (n_arms, 2, 3))
        reward = np.repeat(np.sort(rng.random((n_arms, 3)), axis=1)[:, :, None], 2, axis=2)
        member = rng.random((n_groups, n_arms)) < 0.5
        member[rng.integers(0, n_groups, n_arms), np.arange(n_arms)] = True
        member = member[member.any(axis=1)]
        groups = Groups(tuple(f"g{k}" for k in range(len(member))), member)
        start = rng.integers(0, 3, n_arms)
        cohort = Cohort(transition, reward, start, groups, Coupling.budgets([2.0]), 4, 0.95)
        priced, seconds = user_seconds(lambda of=cohort: fair_plan_arrays(of, method="prices"))
        plain = fair_plan_arrays(cohort, method="program")
        apart, spent = max(apart, float(np.abs(priced.values - plain.values).max())), spent + seconds
    size = f"{instances} cohorts of 10 to 14 arms"
    return {"what": "leximin of overlapping groups", "size": size, "cpu_seconds": spent, "difference": apart}


def decided(n_arms: int, target: float, *more: str) -> dict[str, Any]:
    """CPU seconds of one command, start of Python included: the better of two runs."""
    command = [sys.executable, "-m", "rmab_opt.cli", "decide", "maternal_health", "--groups", "group"]
    command += ["--set", f"problem.n_arms={n_arms}", "--set", f"constraints.budget.at_most={n_arms // 10}", *more]
    spent = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        spent.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
    said = " ".join(more)
    return {
        "what": "decide --groups",
        "size": f"{n_arms} arms",
        "cpu_seconds": min(spent),
        "target": target,
        "said": said,
    }


def scale(quick: bool) -> None:
    """Leximin and decisions by groups at the sizes of real programmes, against their targets."""
    rows: list[dict[str, Any]] = []
    for n_arms, target in ((240, 1.0), (1200, 5.0), (20_000, 60.0))[: 1 if quick else 3]:
        rows.append(decided(n_arms, target))
        rows.append(decided(n_arms, target, "--set", "objective={kind: immediate}"))
        print(rows[-2], rows[-1], sep="\n", flush=True)
    for row in (overlapping(5 if quick else 50), leximin_against_program(60 if quick else 300, 5 if quick else 40)):
        rows.append(row)
        print(row, flush=True)
    for row in leximin_at(*((400, 10) if quick else (20_000, 300))):
        rows.append(row)
        print(row, flush=True)
    if quick:
        return
    names = ["what", "size", "cpu_seconds", "target", "difference", "said"]
    with RECORD.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names, restval="", lineterminator="\n")
        table.writeheader()
        for row in rows:
            told = {"cpu_seconds": f"{row['cpu_seconds']:.2f}"}
            told |= {"difference": f"{row['difference']:.1e}"} if "difference" in row else {}
            table.writerow(row | told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds and 1,000 arms")
    parser.add_argument("--only", choices=("episode", "large", "scale"), help="one of the comparisons")
    given = parser.parse_args()
    for name, run in (("episode", episode), ("large", large), ("scale", scale)):
        if given.only in (None, name):
            run(given.quick)


if __name__ == "__main__":
    main()
