"""The published tables of inspection planning, measured again, and the city's 7,000 establishments.

The published arms, windows and seeds were never released, and which generator made Table 1 is not said; the one called
"narrow" gives the published equality plan within two standard errors. ``random_as_coded`` draws arm numbers with
replacement from all arms, windows or not, as the published random policy does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Model
from rmab_opt.decisions.policy import make_policy
from rmab_opt.errors import InfeasibleError
from rmab_opt.experiments import Experiment, data_file, figure
from rmab_opt.instances import generate
from rmab_opt.problem import Arms, Problem
from rmab_opt.registry import register
from rmab_opt.settings.inspection.beliefs import BeliefChains, EncodedArms, Windows
from rmab_opt.settings.inspection.periods import plan_periods

__all__ = ["narrow_problem", "played"]

Task = Mapping[str, Any]
Found = Sequence[tuple[Task, Mapping[str, Any]]]

SOURCE = "Mao, Perrault, AAMAS 2024"

POLICIES = {
    "IP": "lookahead",
    "IP_equality": "lookahead_once",
    "TCB": "time_constrained",
    "RFP": "risk_first",
    "WIP": "whittle_unwindowed",
}
"""Names of the published tables, and ours."""

TABLE_1 = {
    ("IP", "arms"): (4327.40, 4507.40, 4650.20, 4775.60, 4939.10, 5000.00),
    ("IP", "reward"): (40534.73, 40751.29, 40919.68, 41065.62, 41253.96, 41324.07),
    ("TCB", "arms"): (4091.00, 4254.40, 4385.40, 4502.60, 4654.70, 4889.10),
    ("TCB", "reward"): (40323.12, 40515.14, 40667.54, 40800.59, 40970.34, 41242.30),
    ("IP_equality", "arms"): (None, None, None, 5000.0, 5000.0, 5000.0),
    ("IP_equality", "reward"): (None, None, None, 41186.96, 41309.57, 41331.99),
}
TABLE_1_ERRORS = {
    ("IP", "arms"): (26.02, 26.02, 25.55, 24.76, 21.59, 0.0),
    ("IP", "reward"): (38.30, 38.28, 37.64, 36.41, 37.52, 58.26),
    ("TCB", "arms"): (32.96, 34.84, 33.91, 35.33, 32.60, 25.36),
    ("TCB", "reward"): (30.00, 28.15, 29.92, 30.54, 40.13, 68.88),
    ("IP_equality", "reward"): (None, None, None, 40.37, 33.44, 34.02),
}
"""Published standard errors."""
BUDGETS = (380, 400, 416, 430, 450, 500)
"""Columns of Table 1, of 5,000 arms; a smaller cohort gets its share of them, and its figures are scaled up."""

TABLE_2: dict[str, dict[int, dict[int, float]]] = {
    "IP": {1: {100: 2.5, 1000: 2.4, 5000: 2.6}, 5: {50: 9.6, 100: 12.1, 1000: 12.2, 5000: 12.3},
           10: {10: 17.8, 50: 19.0, 100: 20.4, 1000: 20.1, 5000: 20.2},
           20: {10: 19.5, 50: 19.1, 100: 19.6, 1000: 19.4, 5000: 19.4}},
    "TCB": {1: {100: 2.4, 1000: 2.4, 5000: 2.4}, 5: {50: 9.4, 100: 11.9, 1000: 12.0, 5000: 12.1},
            10: {10: 16.0, 50: 18.4, 100: 19.4, 1000: 20.1, 5000: 20.1},
            20: {10: 19.3, 50: 19.5, 100: 19.4, 1000: 19.3, 5000: 19.3}},
    "RFP": {1: {100: 1.0, 1000: 0.9, 5000: 1.1}, 5: {50: 8.4, 100: 11.0, 1000: 11.1, 5000: 11.0},
            10: {10: 15.4, 50: 17.7, 100: 18.6, 1000: 19.5, 5000: 19.6},
            20: {10: 19.0, 50: 19.1, 100: 19.0, 1000: 18.9, 5000: 19.1}},
    "WIP": {1: {100: 0.3, 1000: 0.3, 5000: 0.3}, 5: {50: 1.1, 100: 1.4, 1000: 1.5, 5000: 1.5},
            10: {10: 2.0, 50: 2.5, 100: 2.5, 1000: 2.6, 5000: 2.6},
            20: {10: 3.7, 50: 3.7, 100: 3.7, 1000: 3.6, 5000: 3.6}},
}  # fmt: skip
"""Published improvement over random in per cent, by policy, budget in per cent of the arms, and arms; 60 slots."""

CITY = "chicago/arms_7000.csv"


def narrow_problem(n_arms: int, horizon: int, seed: int) -> Problem:
    """The published setting: twelve slots a period, windows of two, chains cut by the published rule."""
    made = generate("inspection", n_arms=n_arms, generator="narrow", rule="step", horizon=horizon, seed=seed)
    return made.problem


def played(problem: Problem, budget: int, name: str, seed: int) -> dict[str, float] | None:
    """Total reward of a policy and inspections with effect; None where no plan is allowed."""
    model = Model(problem, ActionSet(problem.arms, {"slot": Budget(at_most=budget)}))
    arms: Any = problem.dynamics
    rng, state = np.random.default_rng(seed), np.asarray(problem.start)
    policy = None if name == "random_as_coded" else make_policy(name, model)
    total, inspected, n_arms = 0.0, 0, problem.n_arms
    try:
        for period in range(problem.horizon):
            if policy is None:
                action = np.zeros(n_arms, dtype=np.int64)
                action[rng.integers(0, n_arms, budget)] = 1
            else:
                action = policy.decide(state, period, rng).action
            inspected += int((action.astype(bool) & arms.eligible(state)).sum())
            total += float(arms.expected_reward(state, action).sum())
            state = arms.move(state, action)
    except InfeasibleError:
        return None
    return {"reward": total, "arms": float(inspected)}


def several(problem: Problem, budget: int, names: Sequence[str], seed: int) -> dict[str, Any]:
    """What each policy earns and inspects."""
    return {name: played(problem, budget, POLICIES.get(name, name), seed) for name in names}


# ------------------------------------------------------------------------------------------------------------- table 1
def first_task(task: Task) -> dict[str, Any]:
    """One cohort and budget."""
    problem = narrow_problem(task["n"], 12, task["seed"])
    names = ("IP", "TCB", "IP_equality", "none", "random_eligible", "lookahead_gain")
    return several(problem, task["budget"] * task["n"] // 5000, names, task["seed"])


def first_tasks(full: bool) -> list[dict[str, Any]]:
    """All budgets on 5,000 arms, five seeds; quick: on 500 arms, two seeds."""
    return [
        {"n": 5000 if full else 500, "budget": budget, "seed": seed}
        for seed in range(5 if full else 2)
        for budget in BUDGETS
    ]


def first_rows(found: Found) -> list[dict[str, Any]]:
    """Rewards and arms inspected, scaled to 5,000 arms; ``infeasible`` counts the cohorts without a plan."""
    rows = []
    for column, budget in enumerate(BUDGETS):
        mine = [(task, result) for task, result in found if task["budget"] == budget]
        for name in mine[0][1]:
            for what in ("reward", "arms"):
                published = TABLE_1.get((name, what), (None,) * 6)[column]
                got = [result[name][what] * 5000 / task["n"] for task, result in mine if result[name] is not None]
                if got:
                    error = TABLE_1_ERRORS.get((name, what), (None,) * 6)[column]
                    rows.append(figure(f"B={budget}/{name}/{what}", got, published, published_error=error))
            lost = sum(result[name] is None for _, result in mine)
            if name == "IP_equality":
                rows.append(figure(f"B={budget}/{name}/infeasible, % of cohorts", 100 * lost / len(mine)))
    return rows


@register("experiment", "inspection_table_1")
def inspection_table_1() -> Experiment:
    """Rewards and arms inspected within one year of twelve slots, by inspections a slot."""
    return Experiment(f"{SOURCE}, table 1", first_tasks, first_task, first_rows)


# ------------------------------------------------------------------------------------------------------------- table 2
def second_task(task: Task) -> dict[str, Any]:
    """One cohort over five years."""
    problem = narrow_problem(task["n"], 60, task["seed"])
    names = (
        *(name for name in POLICIES if name != "IP_equality"),
        "random",
        "random_as_coded",
        "random_eligible",
        "none",
    )
    return several(problem, task["n"] * task["percent"] // 100, names, task["seed"])


def second_tasks(full: bool) -> list[dict[str, Any]]:
    """All five sizes, ten seeds (three for 1,000 arms, one for 5,000); quick: up to 100 arms, three seeds."""
    sizes = {10: 10, 50: 10, 100: 10, 1000: 3, 5000: 1} if full else {10: 3, 50: 3, 100: 3}
    return [
        {"n": n, "percent": percent, "seed": seed}
        for n, seeds in sizes.items()
        for percent in (1, 5, 10, 20)
        if n * percent >= 100
        for seed in range(seeds)
    ]


def second_rows(found: Found) -> list[dict[str, Any]]:
    """Improvement in per cent over random among all arms, over the random policy as coded, and over no inspection."""
    rows = []
    for n, percent in dict.fromkeys((task["n"], task["percent"]) for task, _ in found):
        mine = [result for task, result in found if (task["n"], task["percent"]) == (n, percent)]
        for name in mine[0]:
            for base, said in (("random", ""), ("random_as_coded", " over random as coded"), ("none", " over none")):
                if name != base:
                    gain = [100 * (result[name]["reward"] / result[base]["reward"] - 1) for result in mine]
                    published = TABLE_2.get(name, {}).get(percent, {}).get(n) if not said else None
                    rows.append(figure(f"N={n}/{percent} %/{name}{said}", gain, published))
    return rows


@register("experiment", "inspection_table_2")
def inspection_table_2() -> Experiment:
    """Improvement over random inspection in five years, by size and budget."""
    return Experiment(f"{SOURCE}, table 2", second_tasks, second_task, second_rows)


# ------------------------------------------------------------------------------------------------------------ the city
def city_problem(horizon: int) -> Problem:
    """7,000 establishments with estimated chances and windows of two months, all good at first as published."""
    path = data_file(CITY)
    table = np.genfromtxt(str(path), delimiter=",", names=True)
    chains = BeliefChains.build(table["p_gg"], table["p_bg"], rule="step")
    windows = Windows.spans(table["window_start"].astype(np.int64), 2, 12)
    dynamics = EncodedArms(chains, windows)
    return Problem(Arms.from_arrays(len(table)), dynamics, horizon)


def city_task(task: Task) -> dict[str, Any]:
    """All policies at one budget, and the certified bound."""
    problem = city_problem(task["horizon"])
    names = (*POLICIES, "random", "random_as_coded", "random_eligible", "none")
    found = several(problem, task["budget"], names, task["seed"])
    dynamics: Any = problem.dynamics
    bound = plan_periods(dynamics.chains, dynamics.windows, task["horizon"], task["budget"]).bound
    return {**found, "bound": {"reward": bound, "arms": 0.0}}


def city_tasks(full: bool) -> list[dict[str, Any]]:
    """One year at four budgets, five years at one; quick: one year at two budgets."""
    tasks = [{"budget": budget, "horizon": 12, "seed": 0} for budget in ((350, 590, 630, 700) if full else (350, 630))]
    return [*tasks, {"budget": 630, "horizon": 60, "seed": 0}] if full else tasks


def city_rows(found: Found) -> list[dict[str, Any]]:
    """Improvement over no inspection and over the random policy as coded, in per cent."""
    rows = []
    for task, result in found:
        said = f"H={task['horizon']}, B={task['budget']}"
        for name, got in result.items():
            if got is None:
                continue
            rows.append(figure(f"{said}/{name}/reward", got["reward"]))
            for base in ("none", "random_as_coded"):
                if name != base:
                    gain = 100 * (got["reward"] / result[base]["reward"] - 1)
                    rows.append(figure(f"{said}/{name} over {base}, %", gain))
    return rows


@register("experiment", "inspection_city")
def inspection_city() -> Experiment:
    """Chicago's 7,000 establishments: what policies gain over no inspection and over random ones."""
    return Experiment(f"{SOURCE}, real data", city_tasks, city_task, city_rows, needs=CITY)
