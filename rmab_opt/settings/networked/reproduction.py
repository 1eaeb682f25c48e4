"""The published figures of networked bandits, measured again: levels on a contact network, ten nodes, run time.

Rows named ``first k inactive``, ``highest degree`` and ``acted arms move twice`` repeat what the published code does,
in one correct simulator, on the same attribute draws as everything else. India's contacts are read where the data
folder has them; a synthetic network of their size stands in otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import process_time
from typing import Any

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Model
from rmab_opt.decisions.policy import Policy, make_policy
from rmab_opt.experiments import Experiment, data_file, figure
from rmab_opt.instances import generate
from rmab_opt.registry import register
from rmab_opt.settings.networked.cascade import Cascade, active_sets, set_bits
from rmab_opt.settings.networked.greedy import CascadeObjective
from rmab_opt.settings.networked.instances import contact_problem
from rmab_opt.settings.networked.spread import backward_induction

__all__ = ["exact_value", "simulate", "ten_node_model"]

Task = Mapping[str, Any]
Found = Sequence[tuple[Task, Mapping[str, Any]]]

INDIA = "india_contacts.csv"

PROTOCOLS = ((30, 0.03), (20, 0.03), (10, 0.05))
"""Acted on a round, chance that a contact passes activity on: text, caption and later code of the study."""

PUBLISHED: dict[tuple[int, str], tuple[float, float]] = {
    (30, "none"): (67.88, 69.90),
    (30, "first k inactive"): (78.49, 80.74),
    (30, "highest degree"): (78.21, 80.34),
    (30, "random_inactive"): (78.73, 80.89),
    (30, "acted arms move twice"): (79.57, 81.81),
    (10, "none"): (73.40, 75.27),
    (10, "random"): (74.90, 76.65),
    (10, "first k inactive"): (76.43, 78.32),
    (10, "highest degree"): (75.92, 77.63),
    (10, "random_inactive"): (76.73, 78.51),
}
"""Published mean over 30 rounds and level at the end, % active, beside the policy that repeats what was coded: Whittle
is ``first k inactive``, the look-ahead ``highest degree``, DQN ``random_inactive``, GNN ``acted arms move twice``."""

FAULTS = ["first k inactive", "highest degree", "acted arms move twice"]
PLAIN = ["none", "random", "random_inactive", "whittle", "myopic_cascade", "lookahead_cascade", "lookahead_priced"]
LEARNED = ["hill_climbing_dqn", "gnn"]

ROUNDS, DISCOUNT = 30, 0.95

REGIMES = (
    ("reference", "random", 0.05, 1),
    ("slow_start", "random", 0.3, 1),
    ("slow_start", "stars", 0.3, 1),
    ("lapsing", "random", 0.2, 1),
    ("lapsing", "stars", 0.3, 1),
    ("lapsing", "random", 0.1, 2),
)
"""Regime, shape, chance of a contact and arms acted on, of the ten-node instances."""


# ------------------------------------------------------------------------------------------- figure 2: levels by round
def instance(task: Task) -> Model:
    """The contacts with drawn attributes."""
    rng = np.random.default_rng(task["seed"])
    path = data_file(INDIA) if task["graph"] == "india" else None
    if path is not None:
        edges = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.int64)
        problem = contact_problem(edges, 202, task["w"], rng)
    else:
        problem = generate("contacts", probability=task["w"], seed=task["seed"]).problem
    actions = ActionSet(problem.arms, {"visits": Budget(at_most=task["k"])})
    train = {"episodes": 2, "refreshes": 0, "argmax": "hill_climb", "validation_episodes": 0}
    train |= {"hidden": (8,)} if task["policy"] == "gnn" else {"hidden": (32,), "episodes": 15}
    return Model(replace(problem, discount=DISCOUNT), actions, CascadeObjective(100), settings={"train": train})


def first_by(score: np.ndarray, state: np.ndarray, budget: int) -> np.ndarray:
    """The k inactive arms with the largest scores, (episodes, N)."""
    key = np.where(state == 0, score, -np.inf)
    rank = np.argsort(np.argsort(-key, axis=1, kind="stable"), axis=1)
    return ((rank < budget) & (state == 0)).astype(np.int64)


def simulate(
    dynamics: Cascade, choose: Callable[[np.ndarray], np.ndarray], episodes: int, seed: int, *, twice: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Share active after each of 30 rounds and value of each, (episodes, 30), all arms inactive at first.

    ``twice``: acted arms move passively first and then once more, as in the published simulation.
    """
    rng = np.random.default_rng([seed, 0xD0])
    state = np.zeros((episodes, dynamics.n_arms), dtype=np.int64)
    active, value = np.empty((episodes, ROUNDS)), np.empty((episodes, ROUNDS))
    for period in range(ROUNDS):
        action = choose(state)
        if twice:
            passive = rng.random(state.shape) < dynamics.own_move(state, np.zeros_like(state))
            state = np.where(action == 1, passive, state)
        state, paid = dynamics.step(state, action, rng)
        active[:, period], value[:, period] = state.mean(axis=1), paid.sum(axis=1)
    return active, value


def over_episodes(chosen: Policy) -> Callable[[np.ndarray], np.ndarray]:
    """A policy over parallel episodes; period 0 throughout, so that nobody sees the end coming."""
    rng = np.random.default_rng(17)
    return lambda state: np.stack([chosen.decide(row, 0, rng).action for row in state])


def level(task: Task) -> dict[str, Any]:
    """A policy on one attribute draw: percentages by round and mean value of an episode."""
    model, name, budget = instance(task), task["policy"], task["k"]
    dynamics: Any = model.problem.dynamics
    graph, rng = dynamics.graph, np.random.default_rng(task["seed"])
    degree = np.bincount(np.concatenate([graph.tail, graph.head]), minlength=dynamics.n_arms)
    rules: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "first k inactive": lambda state: first_by(-np.arange(dynamics.n_arms), state, budget),
        "highest degree": lambda state: first_by(degree, state, budget),
        "acted arms move twice": lambda state: first_by(rng.random(state.shape), state, budget),
    }
    choose = rules.get(name) or over_episodes(make_policy(name, model))
    twice = name == "acted arms move twice"
    active, paid = simulate(dynamics, choose, task["episodes"], task["seed"], twice=twice)
    share = (100 * active.mean(axis=0)).round(4).tolist()
    return {"share": share, "value": float(paid.sum(axis=1).mean())}


def level_tasks(full: bool) -> list[dict[str, Any]]:
    """Ten attribute draws of eight episodes; quick: five of two, without networks and look-aheads."""
    graph = "synthetic" if data_file(INDIA) is None else "india"
    names = [*FAULTS, *PLAIN, *LEARNED] if full else [*FAULTS, *PLAIN[:4]]
    return [
        {"graph": graph, "k": k, "w": w, "seed": seed, "policy": name, "episodes": 8 if full else 2}
        for k, w in PROTOCOLS
        for seed in range(10 if full else 5)
        for name in names
        if not (name in LEARNED and k == 20)
    ]


def level_rows(found: Found) -> list[dict[str, Any]]:
    """Mean and final level of every policy, and paired differences in value of an episode."""
    rows = []
    for k, _ in PROTOCOLS:
        values: dict[str, dict[int, float]] = {}
        for name in dict.fromkeys(task["policy"] for task, _ in found):
            mine = [(task, result) for task, result in found if (task["k"], task["policy"]) == (k, name)]
            if not mine:
                continue
            values[name] = {task["seed"]: result["value"] for task, result in mine}
            shares = np.array([result["share"] for _, result in mine])
            mean, last = PUBLISHED.get((k, name), (None, None))
            rows.append(figure(f"k{k}/{name}/mean", shares.mean(axis=1), mean, curve=shares.mean(axis=0)))
            rows.append(figure(f"k{k}/{name}/end", shares[:, -1], last))
        for name, own in values.items():
            for other in ("random_inactive", "whittle"):
                if name != other:
                    apart = [own[seed] - values[other][seed] for seed in own]
                    rows.append(figure(f"k{k}/{name} minus {other}/value", apart))
    return rows


@register("experiment", "networked_levels")
def networked_levels() -> Experiment:
    """Share of active arms on the contact network by policy: published, its fault repeated, and corrected."""
    return Experiment("Zhang, Sun, Wang (Dec 2025), figure 2 and repository results", level_tasks, level, level_rows)


# ---------------------------------------------------------------------------------------- figure 3: exact on ten nodes
def ten_node_model(regime: str, shape: str, probability: float, budget: int, seed: int, n_arms: int = 10) -> Model:
    """An instance of ten nodes (or fewer) whose policies are valued exactly."""
    made = generate(
        "contacts",
        n_arms=n_arms,
        n_contacts=min(round(1.6 * n_arms), n_arms * (n_arms - 1) // 2),
        regime=regime,
        shape=shape,
        probability=probability,
        seed=seed,
        discount=DISCOUNT,
    )
    actions = ActionSet(made.problem.arms, {"visits": Budget(at_most=budget)})
    # 400 rounds are no end at this discount.
    return Model(replace(made.problem, horizon=400), actions)


def exact_value(model: Model, chosen: np.ndarray) -> float:
    """Discounted reward without end from all inactive, of the action ``chosen[S]`` in every state S: no simulation."""
    dynamics: Any = model.problem.dynamics
    states = set_bits(dynamics.n_arms)
    moves = active_sets(dynamics.own_move(states, chosen)) @ dynamics.graph.kernel
    return float(np.linalg.solve(np.eye(len(states)) - DISCOUNT * moves, moves @ (states @ dynamics.value))[0])


def lookahead(model: Model, rounds: int) -> np.ndarray:
    """The action in every state that is best for so many rounds, after which nothing counts: k-step look-ahead."""
    every: Any = model.actions.enumerate()
    dynamics: Any = model.problem.dynamics
    _, best = backward_induction(dynamics, every.astype(np.int64), rounds, DISCOUNT)
    return every[best[0]].astype(np.int64)


def ten_nodes(task: Task) -> dict[str, Any]:
    """Exact value of a policy, ``optimum`` or ``rounds:K`` on an instance of ten nodes."""
    regime, shape, probability, budget = task["case"]
    model = ten_node_model(regime, shape, probability, budget, task["seed"])
    name, states, rng = task["policy"], set_bits(10).astype(np.int64), np.random.default_rng(5)
    if name == "optimum":
        return {"value": exact_value(model, lookahead(model, 400))}
    if name.startswith("rounds:"):
        return {"value": exact_value(model, lookahead(model, int(name.partition(":")[2])))}
    policy = make_policy(name, model)
    return {"value": exact_value(model, np.stack([policy.decide(state, 0, rng).action for state in states]))}


def ten_tasks(full: bool) -> list[dict[str, Any]]:
    """Six instances a regime; quick: one of the reference ranges and one where who stays active matters."""
    names = ["optimum", "none", "random_inactive", *PLAIN[3:], "rounds:2", "rounds:3", "rounds:5"]
    return [
        {"case": list(case), "seed": seed, "policy": name}
        for case in (REGIMES if full else (REGIMES[0], REGIMES[3]))
        for seed in range(6 if full else 1)
        for name in names
    ]


def ten_rows(found: Found) -> list[dict[str, Any]]:
    """Share of the optimal gain over doing nothing, by regime and policy."""
    value = {(tuple(task["case"]), task["seed"], task["policy"]): result["value"] for task, result in found}
    rows = []
    for case in dict.fromkeys(key[0] for key in value):
        seeds = sorted({key[1] for key in value if key[0] == case})
        gain = {seed: value[case, seed, "optimum"] - value[case, seed, "none"] for seed in seeds}
        said = "{}, {}, w={}, k={}".format(*case)
        rows.append(figure(f"{said}/optimal gain, %", [100 * gain[s] / value[case, s, "optimum"] for s in seeds]))
        for name in dict.fromkeys(key[2] for key in value if key[0] == case):
            if name not in ("optimum", "none"):
                share = [100 * (value[case, s, name] - value[case, s, "none"]) / gain[s] for s in seeds]
                rows.append(figure(f"{said}/{name}", share))
    return rows


@register("experiment", "networked_ten")
def networked_ten() -> Experiment:
    """Share of the optimal gain on ten nodes, computed exactly; look-ahead over one and several rounds."""
    return Experiment("Zhang, Sun, Wang (Dec 2025), figure 3 and section 4.3", ten_tasks, ten_nodes, ten_rows)


# -------------------------------------------------------------------------------------------------- figure 4: run time
def run_time(task: Task) -> dict[str, Any]:
    """CPU seconds of the exact optimum, and of one decision by look-ahead and by index, on n nodes."""
    model = ten_node_model("reference", "random", 0.05, min(2, task["n"]), task["seed"], task["n"])
    rng, state = np.random.default_rng(0), np.zeros(task["n"], dtype=np.int64)
    model = replace(model, problem=replace(model.problem, horizon=ROUNDS))
    spent = {}
    begun = process_time()
    lookahead(model, ROUNDS)
    spent["optimum"] = process_time() - begun
    for name in ("myopic_cascade", "whittle"):
        policy = make_policy(name, model)
        policy.decide(state, 0, rng)
        begun = process_time()
        for _ in range(20):
            policy.decide(state, 0, rng)
        spent[name] = (process_time() - begun) / 20
    return spent


def run_time_tasks(full: bool) -> list[dict[str, Any]]:
    """Two to eleven nodes."""
    return [{"n": n, "seed": 0} for n in (range(2, 12) if full else (2, 5, 8))]


def run_time_rows(found: Found) -> list[dict[str, Any]]:
    """Seconds by number of nodes; the published ones are of the sampled table, training included."""
    published = {2: 0.007, 11: 44.9}
    return [
        figure(f"n={task['n']}/{name}", result[name], published.get(task["n"]) if name == "optimum" else None)
        for name in ("optimum", "myopic_cascade", "whittle")
        for task, result in found
    ]


@register("experiment", "networked_run_time")
def networked_run_time() -> Experiment:
    """CPU seconds by number of nodes: the exact optimum, one look-ahead decision, one by index."""
    return Experiment("Zhang, Sun, Wang (Dec 2025), figure 4", run_time_tasks, run_time, run_time_rows)
