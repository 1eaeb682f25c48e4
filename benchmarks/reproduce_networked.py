"""The published comparison of networked bandits beside a corrected one, and what explains the difference.

India's contact graph where the checkout has it (else a synthetic one of its size), ten attribute seeds, all policies on
common random numbers in one correct simulator. Rows marked "as published" repeat what the published code does.

    python benchmarks/reproduce_networked.py [--quick] [--learned SEEDS] [--out DIR]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Model
from rmab_opt.decisions.cascade import CascadeObjective
from rmab_opt.decisions.policy import make_policy
from rmab_opt.domains import DOMAINS
from rmab_opt.domains.contacts import contact_problem
from rmab_opt.learning import evaluate
from rmab_opt.learning import graph_networks as _learned  # noqa: F401 - registers gnn and hill_climbing_dqn
from rmab_opt.planning.cascade import backward_induction
from rmab_opt.problem.cascade import Cascade

INDIA = Path(__file__).resolve().parents[2] / "shared" / "data" / "india_contacts.csv"
PUBLISHED = {
    (30, 0.03): {"none": 67.9, "first k inactive": 78.5, "random_inactive": 78.7, "acted arms move twice": 79.6},
    (10, 0.05): {"none": 73.4, "random": 74.9, "first k inactive": 76.4, "random_inactive": 76.7},
}
"""Published mean activation, %, of the policy that the row repeats: Whittle is "first k inactive", DQN behaves as
"random_inactive", the GNN as "acted arms move twice"."""

NAMES = ["none", "random", "random_inactive", "whittle", "myopic_cascade", "lookahead_cascade"]


def instance(seed: int, budget: int, probability: float) -> Model:
    """India's contacts with drawn attributes."""
    rng = np.random.default_rng(seed)
    if INDIA.exists():
        edges = np.loadtxt(INDIA, delimiter=",", skiprows=1, dtype=np.int64)
        problem = contact_problem(edges, 202, probability, rng)
    else:
        problem = DOMAINS["contacts"](probability=probability, seed=seed).problem
    # The index of an average: 0.95 as published, also for the undiscounted means reported here.
    problem = replace(problem, discount=0.95)
    return Model(problem, ActionSet(problem.arms, {"visits": Budget(at_most=budget)}), CascadeObjective(100))


def first_inactive(state: np.ndarray, budget: int) -> np.ndarray:
    """What the published Whittle index amounts to: its ties are broken by id."""
    waiting = state == 0
    return (waiting & (np.cumsum(waiting, axis=1) <= budget)).astype(np.int64)


def random_inactive(state: np.ndarray, budget: int, rng: np.random.Generator) -> np.ndarray:
    """k random inactive arms an episode."""
    key = np.where(state == 0, rng.random(state.shape), 2.0)
    rank = key.argsort(axis=1).argsort(axis=1)
    return ((rank < budget) & (state == 0)).astype(np.int64)


def simulate(
    dynamics: Cascade, choose: Callable[[np.ndarray, int], np.ndarray], episodes: int, seed: int, *, twice: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Share active after each of 30 rounds and value of each, (episodes, 30); ``twice``: acted arms move passively
    first, as in the published simulation."""
    rng = np.random.default_rng([seed, 0xD0])
    state = np.zeros((episodes, dynamics.n_arms), dtype=np.int64)
    active, value = np.empty((episodes, 30)), np.empty((episodes, 30))
    for period in range(30):
        action = choose(state, period)
        if twice:
            passive = rng.random(state.shape) < dynamics.own_move(state, np.zeros_like(state))
            state = np.where(action == 1, passive, state)
        state, paid = dynamics.step(state, action, rng)
        active[:, period], value[:, period] = state.mean(axis=1), paid.sum(axis=1)
    return active, value


def by_name(model: Model, name: str) -> Callable[[np.ndarray, int], np.ndarray]:
    """A registered policy over parallel episodes; period 0 throughout, so that no look-ahead sees the end."""
    chosen, rng = make_policy(name, model), np.random.default_rng(17)
    return lambda state, period: np.stack([chosen.decide(row, 0, rng).action for row in state])


def protocol(budget: int, probability: float, seeds: int, episodes: int, learned: int) -> dict[str, Any]:
    """All policies on all attribute seeds: name to (seed, round) shares and (seed,) values."""
    share: dict[str, list[np.ndarray]] = {}
    value: dict[str, list[float]] = {}
    for seed in range(seeds):
        model = instance(seed, budget, probability)
        dynamics: Any = model.problem.dynamics
        rng = np.random.default_rng(seed)
        rules: dict[str, tuple[Callable[[np.ndarray, int], np.ndarray], bool]] = {
            "first k inactive": (lambda state, _: first_inactive(state, budget), False),
            "acted arms move twice": (lambda state, _, r=rng: random_inactive(state, budget, r), True),
        }
        names = NAMES + (["gnn", "hill_climbing_dqn"] if seed < learned else [])
        rules |= {name: (by_name(model, name), False) for name in names}
        for name, (choose, twice) in rules.items():
            active, paid = simulate(dynamics, choose, episodes, seed, twice=twice)
            share.setdefault(name, []).append(100 * active.mean(axis=0))
            value.setdefault(name, []).append(float(paid.sum(axis=1).mean()))
    return {"share": share, "value": value}


def paired(one: list[float], two: list[float]) -> str:
    """Mean paired difference with its 95 % interval over seeds."""
    difference = np.array(one) - np.array(two[: len(one)])
    if len(difference) < 2:
        return f"{difference.mean():+7.1f}"
    half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    return f"{difference.mean():+7.1f} ± {half:4.1f}"


def report(found: dict[str, Any], budget: int, probability: float) -> None:
    """The two comparisons side by side."""
    share, value = found["share"], found["value"]
    print(f"\nk = {budget}, w = {probability}: {len(value['none'])} attribute seeds, 30 rounds, all start inactive")
    print(f"{'policy':<24}{'published %':>12}{'mean %':>8}{'value':>8}   value minus whittle, minus random_inactive")
    for name in sorted(value, key=lambda key: -np.mean(value[key])):
        quoted = PUBLISHED[budget, probability].get(name)
        print(
            f"{name:<24}{'' if quoted is None else quoted:>12}{np.mean(share[name]):8.2f}{np.mean(value[name]):8.0f}   "
            f"{paired(value[name], value['whittle'])}   {paired(value[name], value['random_inactive'])}"
            + (f"   ({len(value[name])} seeds)" if len(value[name]) < len(value["none"]) else "")
        )


def plot(found: dict[str, Any], path: Path, title: str) -> None:
    """Share active round by round with bands of one standard deviation over seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rounds = np.arange(1, 31)
    for name, parts in found["share"].items():
        curves = np.array(parts)
        middle, spread = curves.mean(axis=0), curves.std(axis=0)
        axes.plot(rounds, middle, label=name, linewidth=1.2)
        axes.fill_between(rounds, middle - spread, middle + spread, alpha=0.12)
    axes.set_xlabel("round")
    axes.set_ylabel("active, % of arms")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def ten_nodes(seeds: int, episodes: int, learned: int) -> None:
    """Share of the optimal gain over doing nothing, on 10 nodes, by common random numbers."""
    names = ["random_inactive", "whittle", "myopic_cascade", "lookahead_cascade", "lookahead_priced"]
    print(f"\n10 nodes, 30 rounds, discount 0.95: share of the optimal gain, mean of {seeds} (lowest)")
    cases = [
        ("reference", "random", 0.05, 2),
        ("slow_start", "random", 0.3, 1),
        ("lapsing", "random", 0.2, 1),
        ("lapsing", "stars", 0.3, 1),
        ("lapsing", "random", 0.1, 2),
    ]
    for regime, shape, probability, budget in cases[2:4] if seeds == 1 else cases:
        gains: dict[str, list[float]] = {}
        against: list[float] = []
        for seed in range(seeds):
            problem = DOMAINS["contacts"](
                n_arms=10, n_contacts=16, regime=regime, shape=shape, probability=probability, seed=seed, discount=0.95
            ).problem
            model = Model(problem, ActionSet(problem.arms, {"visits": Budget(at_most=budget)}))
            dynamics: Any = problem.dynamics
            every = model.actions.enumerate()
            assert every is not None
            optimal = backward_induction(dynamics, every.astype(np.int64), 30, 0.95)[0][0, 0]
            idle = backward_induction(dynamics, np.zeros((1, 10), dtype=np.int64), 30, 0.95)[0][0, 0]
            trains = seed < learned and regime == "lapsing"
            table = evaluate(model, ["none", "tabular", *names, *(["gnn"] if trains else [])], episodes=episodes)
            for name in table.episodes:
                if name not in ("none", "tabular"):
                    lost = table.difference("tabular", name)[0]
                    gains.setdefault(name, []).append(1.0 - lost / (optimal - idle))
            if trains:
                against.append(table.difference("gnn", "myopic_cascade")[0])
        line = "  ".join(f"{name} {np.mean(part):.3f} ({min(part):.3f})" for name, part in gains.items())
        print(f"{regime}, {shape}, w = {probability}, k = {budget}\n  {line}")
        if against:
            print(f"  gnn minus myopic, paired over instances: {paired(against, [0.0] * len(against))}")


def main() -> None:
    """Print the tables, write the plots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two seeds, few episodes: within a minute")
    parser.add_argument("--learned", type=int, default=0, help="train gnn and dqn on so many seeds")
    parser.add_argument("--out", type=Path, help="folder for the plots")
    options = parser.parse_args()
    seeds, episodes = (2, 1) if options.quick else (10, 8)
    print("graph:", "India, 202 nodes and 692 contacts" if INDIA.exists() else "synthetic, of India's size")
    for budget, probability in PUBLISHED:
        found = protocol(budget, probability, seeds, episodes, options.learned)
        report(found, budget, probability)
        if options.out is not None:
            plot(found, options.out / f"active_k{budget}.png", f"k = {budget}, w = {probability}")
    ten_nodes(1 if options.quick else 6, 10 if options.quick else 200, options.learned)
    print(
        "\nWhat explains the published ranking: its Whittle index charges for acting in the active state only, so all\n"
        "indices of inactive arms tie and ids decide (first k inactive); its DQN is hardly trained (random_inactive);\n"
        "arms acted on by its GNN move twice a round (acted arms move twice)."
    )


if __name__ == "__main__":
    main()
