"""The published figures of equitable restless bandits, measured again, with the reference's rules beside ours.

Policies named ``published_...`` are the reference's rules as they were coded, faults included: indices by bisection on
[-1, 1] (larger ones are clipped), the charge between two neighbouring indices instead of the minimising one, greedy
rules on the curves that this gives, the whole budget always spent, nothing remembered. ``published_round_robin`` is the
reference's round robin whose clock stands still. "25 seeds" are 25 draws of first states and moves: arm parameters are
the same in all of them, as in the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import process_time
from typing import Any

import numpy as np

from rmab_opt.catalog import load
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.policy import Policy, make_policy, round_of
from rmab_opt.experiments import Experiment, figure
from rmab_opt.learning.simulator import Simulator
from rmab_opt.registry import register
from rmab_opt.settings.equity.fairness import compare_groups
from rmab_opt.settings.equity.policies import model_groups
from rmab_opt.settings.equity.published import mmr, mnw, mnw_eg, whittle_to_lagrange

__all__ = ["PublishedRule", "StandingRoundRobin", "final_shares"]

Task = Mapping[str, Any]
Found = Sequence[tuple[Task, Mapping[str, Any]]]

SOURCE = "Killian et al., arXiv 2308.09726"

SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("equity_synthetic", {"at_most": 10}),
    ("equity_synthetic", {"at_most": 20}),
    ("equity_synthetic", {"at_most": 33}),
    ("maternal_health", {"large": "A"}),
    ("maternal_health", {"large": "B"}),
    ("maternal_health", {"large": "C"}),
    ("digital_diabetes", {"alpha": 0.0}),
    ("digital_diabetes", {"alpha": 0.5}),
    ("digital_diabetes", {"alpha": 1.0}),
)

RULES = ("opt", "mmr", "mnw", "mnw_eg")

TIE = 1e-4
"""Indices closer than this to the last one chosen are tied, and drawn from."""


class PublishedRule:
    """A rule of the reference as coded, vectorised over arms; nothing is kept from one round to the next.

    ``rule`` is ``mmr``, ``mnw``, ``mnw_eg``, or ``opt``: the largest clipped indices, groups aside.
    """

    def __init__(self, model: Model, rule: str = "mmr") -> None:
        self.model, self.problem, self.rule, self.name = model, model.problem, rule, f"published_{rule}"
        self.transition, self.reward = model.problem.dynamics.tabular()
        self.groups = model_groups(model)
        self.members = [np.flatnonzero(row) for row in self.groups.member]
        limit: Any = model.actions.constraints["budget"]
        self.budget = round(limit.at_most)

    def indices(self, state: np.ndarray, rounds: int) -> np.ndarray:
        """Whittle indices by eight bisections of [-1, 1], (N,)."""
        every = np.arange(len(state))
        low, high = -np.ones(len(state)), np.ones(len(state))
        for _ in range(8):
            charge = 0.5 * (low + high)
            value = np.zeros(self.reward.shape[:2])
            for _ in range(rounds):
                ahead = self.problem.discount * np.matmul(self.transition, value[:, None, :, None])[..., 0]
                gain = ahead[:, 1] - ahead[:, 0] - charge[:, None]
                value = self.reward[:, :, 0] + ahead[:, 0] + np.maximum(gain, 0.0)
            up = gain[every, state] > 0
            low, high = np.where(up, charge, low), np.where(up, high, charge)
        return 0.5 * (low + high)

    def plan(
        self, state: np.ndarray, period: int, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Indices (N,) and budgets (K,) of one round."""
        rounds = self.problem.horizon - period
        index = self.indices(state, rounds)

        def curve(arms: np.ndarray) -> np.ndarray:
            return whittle_to_lagrange(
                self.transition[arms],
                self.reward[arms],
                state[arms],
                index[arms],
                rounds=rounds,
                discount=self.problem.discount,
                as_written=True,
            )

        if self.rule == "mnw_eg":
            return index, mnw_eg(curve, self.members, self.budget, as_written=True, rng=rng)
        share = {"mmr": mmr, "mnw": mnw}[self.rule]
        return index, share([curve(arms) for arms in self.members], self.budget, as_written=True)

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> np.ndarray:
        """The largest indices of each group, or of all arms, ties at random."""
        given: Any
        members: Any
        if self.rule == "opt":
            index, given, members = self.indices(state, self.problem.horizon - period), [self.budget], [...]
        else:
            index, given = self.plan(state, period, rng)
            members = self.members
        action = np.zeros(len(state), dtype=np.int64)
        for chosen, units in zip(members, given, strict=True):
            arms = np.arange(len(state))[chosen]
            if units > 0:
                border = np.sort(index[arms])[::-1][units - 1]
                rank = np.where(index[arms] > border + TIE, 2.0, np.where(index[arms] >= border - TIE, 1.0, 0.0))
                action[arms[np.argsort(-(rank + rng.random(len(arms)) * 0.5), kind="stable")[:units]]] = 1
        return action


class StandingRoundRobin:
    """The reference's round robin as coded: the clock never moves, so that all waits are equal and a sort decides."""

    name = "published_round_robin"

    def __init__(self, model: Model) -> None:
        limit: Any = model.actions.constraints["budget"]
        named: Any = model.problem.dynamics
        self.model, self.budget = model, round(limit.at_most)
        self.high = np.array(["high" in str(name).split("/") for name in named.state_names])

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator) -> np.ndarray:
        """High-risk arms in the order of an unstable sort of equal waits, the others after them."""
        parts = [np.flatnonzero(self.high[state]), np.flatnonzero(~self.high[state])]
        order = np.concatenate([arms[np.argsort(np.zeros(len(arms)))] for arms in parts])
        action = np.zeros(len(state), dtype=np.int64)
        action[order[: self.budget]] = 1
        return action


# ------------------------------------------------------------------------------ figures 1, 3, 4: groups and their Gini
CODE: dict[str, dict[str, tuple[float, float]]] = {
    "equity_synthetic at_most=10": {"none": (4.644, 0.373), "random": (5.718, 0.231), "published_opt": (7.114, 0.345),
        "published_mmr": (6.482, 0.119), "published_mnw": (6.423, 0.311), "published_mnw_eg": (6.489, 0.127)},
    "equity_synthetic at_most=20": {"random": (6.788, 0.117), "published_opt": (8.903, 0.225),
        "published_mmr": (7.658, 0.033), "published_mnw": (8.577, 0.157), "published_mnw_eg": (8.608, 0.040)},
    "equity_synthetic at_most=33": {"random": (8.049, 0.054), "published_opt": (11.022, 0.134),
        "published_mmr": (7.678, 0.033), "published_mnw": (10.986, 0.168), "published_mnw_eg": (10.992, 0.115)},
    "maternal_health large=A": {"none": (4.357, 0.017), "random": (5.184, 0.016), "published_opt": (7.133, 0.152),
        "published_mmr": (6.341, 0.059), "published_mnw": (6.137, 0.141), "published_mnw_eg": (6.433, 0.085)},
    "maternal_health large=B": {"none": (4.576, 0.028), "random": (5.301, 0.022), "published_opt": (7.000, 0.199),
        "published_mmr": (6.489, 0.053), "published_mnw": (6.694, 0.159), "published_mnw_eg": (6.600, 0.064)},
    "maternal_health large=C": {"none": (4.576, 0.030), "random": (5.261, 0.016), "published_opt": (7.134, 0.229),
        "published_mmr": (6.312, 0.047), "published_mnw": (6.934, 0.165), "published_mnw_eg": (6.380, 0.066)},
    "digital_diabetes alpha=0.0": {"none": (8.793, 0.052), "published_opt": (9.310, 0.066),
        "published_mmr": (9.057, 0.024), "published_mnw_eg": (9.254, 0.054)},
    "digital_diabetes alpha=0.5": {"none": (9.749, 0.050), "published_opt": (10.919, 0.035),
        "published_mmr": (10.617, 0.012), "published_mnw_eg": (10.775, 0.036)},
    "digital_diabetes alpha=1.0": {"none": (10.701, 0.042), "published_opt": (12.710, 0.036),
        "published_mmr": (12.400, 0.019), "published_mnw_eg": (12.767, 0.023)},
}  # fmt: skip
"""Mean total of an arm and Gini of the group means, by the published code run unchanged but for renamed NumPy types."""


def title(name: str, changes: Mapping[str, Any]) -> str:
    """A setting in a few words."""
    return f"{name} {' '.join(f'{key}={value}' for key, value in changes.items())}"


def groups_of(task: Task) -> dict[str, Any]:
    """Every policy of one setting on the same draws."""
    model = load(task["model"], **task["changes"])
    policies: list[Any] = ["none", "random", "whittle", *(PublishedRule(model, rule) for rule in RULES)]
    policies += ["utilitarian", "mmr", "mnw", "mnw_eg", "leximin", "nash"]
    if task["model"] == "digital_diabetes":
        policies += [StandingRoundRobin(model), "round_robin_high_risk", "random_high_risk"]
    table = compare_groups(model, policies, episodes=task["episodes"], seed=task["seed"])
    by_policy = {
        row["policy"]: {
            "means": table.means[row["policy"]].round(6).tolist(),
            "worst": table.groups[row["policy"]][:, int(table.groups[row["policy"]].mean(axis=0).argmin())].tolist(),
            "gini": row["gini"],
            "groups": table.groups[row["policy"]].mean(axis=0).round(6).tolist(),
        }
        for row in table.rows
    }
    return {"policies": by_policy, "mean_limit": table.header["mean_limit"], "worst_limit": table.header["worst_limit"]}


def group_tasks(full: bool) -> list[dict[str, Any]]:
    """Nine settings, 25 seeds; quick: two settings, three seeds."""
    chosen = SETTINGS if full else (SETTINGS[1], SETTINGS[3])
    return [{"model": name, "changes": changes, "episodes": 25 if full else 3, "seed": 0} for name, changes in chosen]


def group_rows(found: Found) -> list[dict[str, Any]]:
    """Mean, worst group and Gini of every policy (curve: the groups), and the ratios the text speaks of."""
    rows = []
    for task, result in found:
        said, policies = title(task["model"], task["changes"]), result["policies"]
        for name, got in policies.items():
            mean, unequal = CODE[said].get(name, (None, None))
            rows.append(figure(f"{said}/{name}/mean", got["means"], mean, curve=got["groups"]))
            rows.append(figure(f"{said}/{name}/worst", got["worst"]))
            rows.append(figure(f"{said}/{name}/gini", got["gini"], unequal))
        opt = np.array(policies["published_opt"]["means"])
        for name in ("published_mmr", "published_mnw_eg", "leximin"):
            ratio = policies["published_opt"]["gini"] / policies[name]["gini"]
            rows.append(figure(f"{said}/gini published_opt over {name}", ratio))
            mine, idle = np.array(policies[name]["means"]), np.array(policies["none"]["means"])
            share = 100 * (mine - idle) / (opt - idle).mean()
            rows.append(figure(f"{said}/gain of {name}, % of published_opt", share))
            rows.append(figure(f"{said}/loss of {name}, % of published_opt", 100 * (opt - mine) / opt.mean()))
        rows.append(figure(f"{said}/limit of the mean", result["mean_limit"]))
        rows.append(figure(f"{said}/limit of the worst group", result["worst_limit"]))
    return rows


@register("experiment", "equity_settings")
def equity_settings() -> Experiment:
    """Mean, worst group and Gini of the nine published settings: the reference's rules as coded, and ours."""
    return Experiment(f"{SOURCE}, figures 1, 3 and 4", group_tasks, groups_of, group_rows)


# ------------------------------------------------------------------------------ figures 7, 8: the end of the programme
def final_shares(model: Model, policy: str | Policy, episodes: int, seed: int) -> dict[str, np.ndarray]:
    """Share of patients in the programme and with A1c below 8 after the last round, an entry an episode."""
    chosen = make_policy(policy, model)
    moves, choices = np.random.SeedSequence(seed).spawn(2)
    simulator = Simulator(model.problem, model.actions, moves.spawn(episodes))
    memories = [chosen.begin(np.random.default_rng(child)) for child in choices.spawn(episodes)]
    done = False
    while not done:
        made = round_of(chosen, simulator.state, simulator.period, memories, simulator.shared)
        memories = made.memories
        _, _, _, done = simulator.step(np.stack([d.action for d in made.decisions]), checked=True)
    named: Any = model.problem.dynamics
    names = [str(name) for name in named.state_names]
    inside = np.array([not name.startswith("dropout") for name in names])
    low = np.array(["/low/" in name for name in names])
    return {"engaged": inside[simulator.state].mean(axis=1), "low A1c": low[simulator.state].mean(axis=1)}


ENDS = ("none", "round_robin_high_risk", "random_high_risk", "whittle", "leximin", "nash")


def end_of(task: Task) -> dict[str, Any]:
    """One policy, weight and budget: both shares at the end."""
    model = load("digital_diabetes", alpha=task["alpha"], at_most=task["budget"])
    shares = final_shares(model, task["policy"], task["episodes"], task["seed"])
    return {name: values.round(6).tolist() for name, values in shares.items()}


def pareto_tasks(full: bool) -> list[dict[str, Any]]:
    """Seven weights, 25 seeds; quick: three weights, three seeds."""
    weights = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0) if full else (0.0, 0.5, 1.0)
    return [
        {"alpha": alpha, "budget": 30, "policy": name, "episodes": 25 if full else 3, "seed": 0}
        for alpha in weights
        for name in ENDS
        if full or name in ("none", "whittle", "leximin")
    ]


def pareto_rows(found: Found) -> list[dict[str, Any]]:
    """Both shares by weight and policy, in per cent of the patients."""
    return [
        figure(f"alpha={task['alpha']:g}/{task['policy']}/{name}", [100 * value for value in result[name]])
        for task, result in found
        for name in ("engaged", "low A1c")
    ]


@register("experiment", "equity_pareto")
def equity_pareto() -> Experiment:
    """Engagement against A1c at the end of the diabetes programme, over the weight alpha."""
    return Experiment(f"{SOURCE}, figure 7", pareto_tasks, end_of, pareto_rows)


TARGETS = ((0.0, "low A1c", 200), (1.0, "engaged", 150))
"""Weight, share and number of patients that the published capacity plot aims at."""


def capacity_tasks(full: bool) -> list[dict[str, Any]]:
    """Budgets from 0 to 150 patients a month by policy and target; quick: two policies, a coarse grid, two seeds."""
    budgets = range(0, 151, 10) if full else (0, 30, 60, 120)
    names = ENDS[1:] if full else ("round_robin_high_risk", "whittle")
    return [
        {"alpha": alpha, "budget": budget, "policy": name, "episodes": 10 if full else 2, "seed": 0}
        for alpha, _, _ in TARGETS
        for name in names
        for budget in budgets
    ]


def capacity_rows(found: Found) -> list[dict[str, Any]]:
    """Patients at the end by budget (curve: over the budgets), and the budget that reaches the target, interpolated."""
    rows = []
    for alpha, name, target in TARGETS:
        policies = dict.fromkeys(task["policy"] for task, _ in found if task["alpha"] == alpha)
        needed = {}
        for policy in policies:
            mine = [(t, r) for t, r in found if (t["alpha"], t["policy"]) == (alpha, policy)]
            mine.sort(key=lambda pair: pair[0]["budget"])
            at = np.array([task["budget"] for task, _ in mine], dtype=float)
            patients = 300 * np.array([np.mean(result[name]) for _, result in mine])
            above = np.flatnonzero(patients >= target)
            rows.append(figure(f"{name}/{policy}/most patients", float(patients.max()), curve=patients))
            if len(above):
                k = int(above[0])
                part = 1.0 if k == 0 else (target - patients[k - 1]) / (patients[k] - patients[k - 1])
                needed[policy] = float(at[k] if k == 0 else at[k - 1] + part * (at[k] - at[k - 1]))
                rows.append(figure(f"{name}/{policy}/budget for {target}", needed[policy]))
        if "whittle" in needed and "round_robin_high_risk" in policies:
            # A rule that does not get there within the budgets tried needs at least the largest of them.
            usual = needed.get("round_robin_high_risk", float(max(task["budget"] for task, _ in found)))
            if usual > 0:
                saved = 100 * (1 - needed["whittle"] / usual)
                rows.append(figure(f"{name}/resources saved by whittle, at least, %", saved, 50.0))
    return rows


@register("experiment", "equity_capacity")
def equity_capacity() -> Experiment:
    """Patients at their goal by the end, by monthly budget and policy; the budget that reaches the target."""
    return Experiment(f"{SOURCE}, figure 8", capacity_tasks, end_of, capacity_rows)


# ---------------------------------------------------------------------------------------------------------- complexity
def planning_time(task: Task) -> dict[str, Any]:
    """CPU seconds of planning one episode of diabetes by the published rule, vectorised, and by ours."""
    n = task["n"]
    model = load("digital_diabetes", n_arms=n, at_most=n // 10)
    rng, horizon = np.random.default_rng(0), model.problem.horizon
    state = np.asarray(model.problem.start)
    spent = {}
    policies: dict[str, Any] = {"published_mmr": PublishedRule(model, "mmr"), "leximin": make_policy("leximin", model)}
    for name, policy in policies.items():
        begun = process_time()
        for period in range(horizon):
            policy.decide(state, period, rng)
        spent[name] = process_time() - begun
    return spent


def planning_tasks(full: bool) -> list[dict[str, Any]]:
    """Cohorts from 75 patients on."""
    return [{"n": n, "seed": 0} for n in ((75, 150, 300, 600, 1200) if full else (75, 150))]


def planning_rows(found: Found) -> list[dict[str, Any]]:
    """Seconds by cohort, and the slope of their logarithm over that of the number of arms."""
    rows = [
        figure(f"N={task['n']}/{name}", result[name], 4.3 if (task["n"], name) == (300, "published_mmr") else None)
        for name in ("published_mmr", "leximin")
        for task, result in found
    ]
    sizes = np.log([task["n"] for task, _ in found])
    for name in ("published_mmr", "leximin"):
        slope = float(np.polyfit(sizes, np.log([result[name] for _, result in found]), 1)[0])
        rows.append(figure(f"growth of {name}", slope))
    return rows


@register("experiment", "equity_complexity")
def equity_complexity() -> Experiment:
    """CPU seconds of planning an episode, by number of arms."""
    return Experiment(f"{SOURCE}, complexities of its algorithms", planning_tasks, planning_time, planning_rows)
