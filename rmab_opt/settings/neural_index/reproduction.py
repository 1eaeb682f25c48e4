"""The claims about neural index policies, measured again on generated cohorts with a delayed effect.

The study's own generator, sizes of arms and tables were not obtainable; what is held to is its headline: within 5 % of
the occupancy bound, no budget exceeded, up to 1,000 arms, epsilon from 0.05 to 0.1. The baselines need no training:
one-price Lagrangian and time-indexed scores of the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import process_time
from typing import Any

import numpy as np

from rmab_opt import registry
from rmab_opt.actions import ActionSet, Columns
from rmab_opt.actions.kinds import Linear
from rmab_opt.decisions import Model, bound
from rmab_opt.decisions.policy import make_policy
from rmab_opt.experiments import Experiment, figure
from rmab_opt.instances.synthetic import delayed
from rmab_opt.problem import Arms, Problem, Tabular
from rmab_opt.registry import register
from rmab_opt.settings.neural_index.estimation import RefittedIndex, collect, count_moves, estimate, with_estimate
from rmab_opt.settings.neural_index.index import NeuralIndexConfig, Rounding, simulate_table, train_neural_index

__all__ = ["cohort", "exact_values", "simulated"]

Task = Mapping[str, Any]
Found = Sequence[tuple[Task, Mapping[str, Any]]]

SOURCE = "Pandey, Wang, Garcia, arXiv 2510.22069"

CLAIM = 95.0
"""Within 5 % of the oracle: the least share of the bound that the headline allows, in per cent."""

GENERAL = NeuralIndexConfig(steps=500, uniform=0.25, weight_decay=1.0, log_episodes=0)
"""For a network that is to act on other arms: less time to learn the training arms by heart."""


def cohort(n_arms: int, seed: int, *, n_states: int = 4, horizon: int = 50) -> Model:
    """Arms whose effect comes late, with budgets of 10 % and 6 % of the arms, at least one."""
    made = delayed(n_arms, n_states, 3, seed)
    arms = Arms.from_arrays(n_arms)
    budgets = (max(1, n_arms // 10), max(1, round(0.06 * n_arms)))
    limits = {f"action{a + 1}": Linear(where={"action": a + 1}, at_most=limit) for a, limit in enumerate(budgets)}
    problem = Problem(arms, made.dynamics, horizon, 1.0, made.start)
    return Model(problem, ActionSet(Columns.of_arm_actions(arms, 3), limits), solver="fast")


def one_step(model: Model) -> np.ndarray:
    """Reward of this round and the next: the myopic rule that can see an effect at all."""
    transition, reward = model.problem.dynamics.tabular()
    ahead = np.einsum("nast,nt->nsa", transition, reward[:, :, 0])
    scores: np.ndarray = reward + ahead - (reward + ahead)[..., :1]
    return scores


def rule_scores(name: str, problem: Problem, model: Model) -> np.ndarray:
    """Scores of a planning rule on a problem under the model's limits; of one price (N, S, A) or timed (T, N, S, A)."""
    scores: np.ndarray = registry.find("rule", name).make(problem, model.actions).values
    return scores if len(scores) > 1 else scores[0]


def simulated(model: Model, scores: np.ndarray, runs: int, seed: int) -> np.ndarray:
    """Totals of scores rounded each round, the same draws for every table."""
    return simulate_table(model, scores, runs, np.random.default_rng(10_000 + seed), Rounding(model))


def shares(limit: float, totals: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Per cent of the bound, run by run."""
    return {name: (100 * total / limit).round(4).tolist() for name, total in totals.items()}


def share_rows(found: Found, said: Callable[[Task], str], bars: Mapping[str, float]) -> list[dict[str, Any]]:
    """A row a cohort and policy: the mean share over runs and seeds."""
    pooled: dict[str, list[float]] = {}
    for task, result in found:
        for name, values in result["shares"].items():
            pooled.setdefault(f"{said(task)}/{name}", []).extend(values)
    return [figure(name, values, bars.get(name.rpartition("/")[2])) for name, values in pooled.items()]


def exact_values(model: Model, scores: np.ndarray) -> tuple[float, float]:
    """(value of the best joint policy, value of scores rounded each round) from the start, by dynamic programming.

    All joint states and joint actions; expected values are contracted arm by arm with shared prefixes.
    """
    problem = model.problem
    transition, reward = problem.dynamics.tabular()
    n_arms, n_states = problem.n_arms, problem.dynamics.n_states
    budgets: Any = Rounding(model).budgets
    grid = (n_states,) * n_arms

    def spread(values: np.ndarray, arm: int) -> np.ndarray:
        return values.reshape((1,) * arm + (n_states,) + (1,) * (n_arms - arm - 1))

    best, own = np.zeros(grid), np.zeros(grid)
    for _ in range(problem.horizon):
        top, top_own = np.full(grid, -np.inf), np.zeros(grid)
        top_score = np.full(grid, -np.inf)

        def visit(
            arm: int,
            value: np.ndarray,
            mine: np.ndarray,
            score: np.ndarray | float,
            left: tuple[int, ...],
            top: np.ndarray = top,
            top_own: np.ndarray = top_own,
            top_score: np.ndarray = top_score,
        ) -> None:
            if arm == n_arms:
                np.maximum(top, value, out=top)
                better = np.broadcast_to(score, grid) > top_score
                top_own[better] = mine[better]
                top_score[better] = np.broadcast_to(score, grid)[better]
                return
            for action in range(transition.shape[1]):
                if action and not left[action - 1]:
                    continue
                rest = tuple(count - (k == action - 1) for k, count in enumerate(left))
                kernel = transition[arm, action]
                moved = np.moveaxis(np.tensordot(kernel, value, axes=(1, arm)), 0, arm)
                moved_own = np.moveaxis(np.tensordot(kernel, mine, axes=(1, arm)), 0, arm)
                paid = spread(reward[arm, :, action], arm)
                visit(arm + 1, moved + paid, moved_own + paid, score + spread(scores[arm, :, action], arm), rest)

        visit(0, best, own, 0.0, tuple(int(b) for b in budgets))
        best, own = top, top_own
    start = tuple(problem.sample_start(np.random.default_rng(0)))
    return float(best[start]), float(own[start])


# --------------------------------------------------------------------------------------------------------------- sizes
def size_task(task: Task) -> dict[str, Any]:
    """All policies on one cohort."""
    model = cohort(task["n"], task["seed"])
    limit, tables = bound(model, tolerance=1e-4).value, {}
    transitions = model.problem.dynamics.tabular()[1]
    tables["none"], tables["one_step"] = np.zeros_like(transitions), one_step(model)
    for rule in ("occupancy_index", "lagrangian", "lp_index"):
        tables[rule] = rule_scores(rule, model.problem, model)
    seconds = {}
    for loss in ("tempered", "occupancy"):
        begun = process_time()
        config = NeuralIndexConfig(loss=loss, log_episodes=0)
        tables[loss] = train_neural_index(model, config, seed=task["seed"]).policy.table
        seconds[loss] = round(process_time() - begun, 2)
    totals = {name: simulated(model, scores, task["runs"], task["seed"]) for name, scores in tables.items()}
    return {"shares": shares(limit, totals), "limit": limit, "seconds": seconds}


def size_tasks(full: bool) -> list[dict[str, Any]]:
    """10 to 1,000 arms, three cohorts of 50; quick: 10 and 50."""
    return [
        {"n": n, "seed": seed, "runs": max(20, (400 if full else 40) * 50 // max(50, n))}
        for n in ((10, 50, 100, 200, 500, 1000) if full else (10, 50))
        for seed in range(3 if full and n == 50 else 1)
    ]


def size_rows(found: Found) -> list[dict[str, Any]]:
    """Shares of the bound by size."""
    return share_rows(found, lambda task: f"N={task['n']}", dict.fromkeys(("tempered", "occupancy"), CLAIM))


@register("experiment", "neural_index_sizes")
def neural_index_sizes() -> Experiment:
    """Share of the occupancy bound by number of arms: trained indices, and rules that need no training."""
    return Experiment(f"{SOURCE}, within 5 % of the oracle", size_tasks, size_task, size_rows)


# ------------------------------------------------------------------------------------------------------------- epsilon
def epsilon_task(task: Task) -> dict[str, Any]:
    """Score of a network trained at an epsilon; how far the published iteration is from the budgets after its steps."""
    import torch

    from rmab_opt.settings.neural_index.allocation import Allocation, sinkhorn

    model, epsilon = cohort(50, 0), task["epsilon"]
    limit = bound(model, tolerance=1e-4).value
    trained = train_neural_index(model, NeuralIndexConfig(epsilon=epsilon, log_episodes=0), seed=task["seed"])
    totals = {"trained": simulated(model, trained.policy.table, task["runs"], 0)}
    index = torch.randn(4, 50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    index[..., 0] = 0.0
    masses = torch.tensor([5.0, 3.0], dtype=torch.float64)

    def off(plan: torch.Tensor) -> float:
        return float((plan[..., 1:].sum(dim=-2) - masses).abs().max())

    iterated = {f"sinkhorn {k}": off(sinkhorn(index, masses, epsilon=epsilon, iterations=k)) for k in (50, 100, 1000)}
    exact = Allocation.budgets([5, 3], equal=True, epsilon=epsilon)
    return {"shares": shares(limit, totals), "off": {**iterated, "newton": off(exact(index))}}


def epsilon_tasks(full: bool) -> list[dict[str, Any]]:
    """Four epsilons; quick: two, few runs."""
    return [
        {"epsilon": epsilon, "seed": 0, "runs": 400 if full else 40}
        for epsilon in ((0.5, 0.1, 0.05, 0.01) if full else (0.1, 0.05))
    ]


def epsilon_rows(found: Found) -> list[dict[str, Any]]:
    """Share of the bound, and the worst error of a budget in arms, by epsilon."""
    rows = share_rows(found, lambda task: f"epsilon={task['epsilon']:g}", {"trained": CLAIM})
    for task, result in found:
        for name, value in result["off"].items():
            rows.append(figure(f"epsilon={task['epsilon']:g}/budget off by, {name}", value))
    return rows


@register("experiment", "neural_index_epsilon")
def neural_index_epsilon() -> Experiment:
    """Entropy against the score and against how well the published iteration keeps the budgets."""
    return Experiment(f"{SOURCE}, epsilon from 0.05 to 0.1", epsilon_tasks, epsilon_task, epsilon_rows)


# --------------------------------------------------------------------------------------- unseen arms and other budgets
def unseen_task(task: Task) -> dict[str, Any]:
    """A network trained on one cohort acts on another, or under other budgets; nothing is solved for it."""
    network = train_neural_index(cohort(task["train"], 0), GENERAL).network
    model = cohort(task["test"], task["seed"])
    if task["budget"] != 1:
        limits = {
            name: Linear(where=limit.where, at_most=max(1, round(limit.at_most * task["budget"])))
            for name, limit in ((n, c) for n, c in model.actions.constraints.items() if isinstance(c, Linear))
        }
        model = Model(model.problem, ActionSet(model.actions.columns, limits), solver="fast")
    limit = bound(model, tolerance=1e-4).value
    own = rule_scores("lagrangian", model.problem, model)
    tables = {"none": np.zeros(own.shape), "one_step": one_step(model), "lagrangian": own}
    tables["network of others"] = network.indices(model.problem)
    totals = {name: simulated(model, scores, task["runs"], task["seed"]) for name, scores in tables.items()}
    return {"shares": shares(limit, totals)}


def unseen_tasks(full: bool) -> list[dict[str, Any]]:
    """Trained on 100 arms, acting on 200 others; budgets halved and doubled; quick: 50 others."""
    runs = 100 if full else 20
    tasks = [{"train": 100, "test": 200 if full else 50, "seed": 9, "budget": 1, "runs": runs}]
    return tasks + [
        {"train": 100, "test": 50, "seed": 7, "budget": budget, "runs": runs}
        for budget in ((0.5, 1, 2) if full else (2,))
    ]


def unseen_rows(found: Found) -> list[dict[str, Any]]:
    """Shares of the bound on unseen arms."""

    def said(task: Task) -> str:
        return f"{task['train']} to {task['test']} others, budgets x {task['budget']:g}"

    return share_rows(found, said, {"network of others": CLAIM})


@register("experiment", "neural_index_unseen")
def neural_index_unseen() -> Experiment:
    """Trained on 100 arms, acting on arms that it never saw and under budgets that it was not trained for."""
    return Experiment(f"{SOURCE}, scales to unseen arms", unseen_tasks, unseen_task, unseen_rows)


# -------------------------------------------------------------------------- open questions: unknown and drifting moves
def unknown_task(task: Task) -> dict[str, Any]:
    """Moves known from logged episodes of random actions: a network of others, one trained here, prices solved here."""
    model = cohort(task["n"], 0)
    limit = bound(model, tolerance=1e-4).value
    seen = collect(model, make_policy("random", model), task["episodes"], seed=3)
    problem = with_estimate(model.problem, estimate(count_moves(seen, 4, 3)))
    guess = Model(problem, model.actions, solver="fast")
    general = train_neural_index(cohort(100, 1), GENERAL).network
    tables = {
        "none": np.zeros_like(model.problem.dynamics.tabular()[1]),
        "network of others": general.indices(problem),
        "trained on the estimate": train_neural_index(guess, NeuralIndexConfig(log_episodes=0)).policy.table,
        "prices re-solved on the estimate": rule_scores("lagrangian", problem, model),
        "prices of the truth": rule_scores("lagrangian", model.problem, model),
    }
    return {"shares": shares(limit, {name: simulated(model, s, task["runs"], 0) for name, s in tables.items()})}


def unknown_tasks(full: bool) -> list[dict[str, Any]]:
    """One to 100 logged episodes; quick: one."""
    return [
        {"n": 50, "episodes": episodes, "runs": 200 if full else 20, "seed": 0}
        for episodes in ((1, 5, 20, 100) if full else (1,))
    ]


def unknown_rows(found: Found) -> list[dict[str, Any]]:
    """Shares of the bound of the true moves, by number of logged episodes."""
    return share_rows(found, lambda task: f"{task['episodes']} logged episodes", {})


@register("experiment", "neural_index_unknown")
def neural_index_unknown() -> Experiment:
    """Unknown moves: what acting on an estimate earns, by index and by prices solved again."""
    return Experiment(f"{SOURCE}, open question: unknown dynamics", unknown_tasks, unknown_task, unknown_rows)


def turned(model: Model, other: Model, share: float) -> Problem:
    """The model's problem whose moves have gone a share of the way to the other's."""
    (first, reward), (second, _) = model.problem.dynamics.tabular(), other.problem.dynamics.tabular()
    dynamics = Tabular((1 - share) * first + share * second, reward)
    return Problem(model.problem.arms, dynamics, model.problem.horizon, 1.0, model.problem.start)


class PricesOnEstimate(RefittedIndex):
    """The same estimate, but prices are solved for again instead of asking a network."""

    name = "prices_on_estimate"

    def _refit(self) -> None:
        found = estimate(self.counts, **self.options)
        self.table = rule_scores("lagrangian", with_estimate(self.model.problem, found), self.model)
        self.refits += 1


def drift_task(task: Task) -> dict[str, Any]:
    """Moves drift to those of other arms; earned in the second half, as a share of prices that know the moves."""
    n, phases, rounds = task["n"], 6, task["rounds"]
    model, other = cohort(n, 0), cohort(n, 50 + task["seed"])
    network = train_neural_index(cohort(100, 1), GENERAL).network
    worlds = [turned(model, other, k / (phases - 1)) for k in range(phases)]
    fitted = {"never re-fitted": 1.0, "re-fitted": 1.0, "re-fitted, forgetting": 0.97}
    acting = {
        name: RefittedIndex(model, network, forget=factor, every=10**9 if name.startswith("never") else 1)
        for name, factor in fitted.items()
    }
    acting["never re-fitted"].table = network.indices(model.problem)
    priced = PricesOnEstimate(model, network, forget=0.97, every=10)
    informed = RefittedIndex(model, network, every=10**9)
    earned: dict[str, float] = dict.fromkeys([*acting, "prices re-solved on the estimate", "prices of the truth"], 0.0)
    for k, world in enumerate(worlds):
        informed.table = rule_scores("lagrangian", world, model)
        policies = {**acting, "prices re-solved on the estimate": priced, "prices of the truth": informed}
        for name, policy in policies.items():
            got = policy.run(rounds, seed=100 * task["seed"] + k, world=world).sum()
            earned[name] += got if k >= phases // 2 else 0.0
    top = earned["prices of the truth"]
    return {"shares": {name: [100 * value / top] for name, value in earned.items() if name != "prices of the truth"}}


def drift_tasks(full: bool) -> list[dict[str, Any]]:
    """Five drifts of 30 arms over six phases; quick: one, of short phases."""
    return [{"n": 30, "seed": seed, "rounds": 50 if full else 20} for seed in range(5 if full else 1)]


def drift_rows(found: Found) -> list[dict[str, Any]]:
    """Shares of what prices earn that know the present moves."""
    return share_rows(found, lambda task: "drift", {})


@register("experiment", "neural_index_drift")
def neural_index_drift() -> Experiment:
    """Drifting moves: re-fitted indices beside prices solved again on the same estimate."""
    return Experiment(f"{SOURCE}, open question: drift", drift_tasks, drift_task, drift_rows)


# --------------------------------------------------------------------------------------------------------------- exact
def exact_task(task: Task) -> dict[str, Any]:
    """Joint optimum, trained index and one-price rule by dynamic programming over all joint states."""
    model = cohort(task["n"], task["seed"], n_states=task["states"])
    trained = train_neural_index(model, NeuralIndexConfig(log_episodes=0)).policy.table
    best, own = exact_values(model, trained)
    _, priced = exact_values(model, rule_scores("lagrangian", model.problem, model))
    return {"bound": bound(model).value, "optimum": best, "tempered": own, "lagrangian": priced}


def exact_tasks(full: bool) -> list[dict[str, Any]]:
    """Ten arms of three states and seven of four; quick: five of three."""
    sizes = ((10, 3), (7, 4)) if full else ((5, 3),)
    return [{"n": n, "states": states, "seed": 0} for n, states in sizes]


def exact_rows(found: Found) -> list[dict[str, Any]]:
    """Per cent of the optimum, and the optimum in per cent of the bound."""
    rows = []
    for task, got in found:
        said = f"N={task['n']}, S={task['states']}"
        rows.append(figure(f"{said}/optimum, % of the bound", 100 * got["optimum"] / got["bound"]))
        for name in ("tempered", "lagrangian"):
            bar = CLAIM if name == "tempered" else None
            rows.append(figure(f"{said}/{name}, % of the optimum", 100 * got[name] / got["optimum"], bar))
    return rows


@register("experiment", "neural_index_exact")
def neural_index_exact() -> Experiment:
    """Small cohorts against the joint optimum of all states and actions."""
    return Experiment(f"{SOURCE}, N = 10 against exact dynamic programming", exact_tasks, exact_task, exact_rows)
