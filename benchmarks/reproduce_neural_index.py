"""Neural index policies against policies without training, as a share of the upper bound.

    python benchmarks/reproduce_neural_index.py [--quick] [--sizes 10,50,100,200] [--runs 400] [--out DIR]
Tables: cohorts of all sizes, losses, epsilon, masses, unseen arms, the exact joint optimum of ten arms; plots with
intervals. Setting: four states, two actions with budgets of 10 % and 6 % of the arms, 50 rounds.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from rmab_opt import registry
from rmab_opt.actions import ActionSet, Columns
from rmab_opt.actions.kinds import Linear
from rmab_opt.decisions import Model, bound
from rmab_opt.decisions.policy import make_policy
from rmab_opt.instances.synthetic import delayed, ladder_mix
from rmab_opt.problem import Arms, Problem
from rmab_opt.records import write_atomically
from rmab_opt.report import table_csv, table_text
from rmab_opt.settings.neural_index.estimation import collect, count_moves, estimate, with_estimate
from rmab_opt.settings.neural_index.index import NeuralIndexConfig, Rounding, simulate_table, train_neural_index

GENERAL = NeuralIndexConfig(steps=500, uniform=0.25, weight_decay=1.0, log_episodes=0)
"""For a network that is to act on other arms: less time to learn the training arms by heart."""

QUIET = NeuralIndexConfig(log_episodes=0)

GENERATORS = {"hard": delayed, "easy": ladder_mix}


def cohort(kind: str, n_arms: int, seed: int, *, n_states: int = 4, horizon: int = 50) -> Model:
    """A generated cohort with budgets of 10 % and 6 % of the arms, at least one."""
    made = GENERATORS[kind](n_arms, n_states, 3, seed)
    arms = Arms.from_arrays(n_arms)
    budgets = (max(1, n_arms // 10), max(1, round(0.06 * n_arms)))
    limits = {f"action{a + 1}": Linear(where={"action": a + 1}, at_most=limit) for a, limit in enumerate(budgets)}
    problem = Problem(arms, made.dynamics, horizon, 1.0, made.start)
    return Model(problem, ActionSet(Columns.of_arm_actions(arms, 3), limits), solver="fast")


def one_step(model: Model) -> np.ndarray:
    """Reward of this round and the next: the myopic rule that can see an effect at all."""
    transition, reward = model.problem.dynamics.tabular()
    ahead = np.einsum("nast,nt->nsa", transition, reward[:, :, 0])
    return reward + ahead - (reward + ahead)[..., :1]


def random_total(model: Model, runs: int, rng: np.random.Generator, rounding: Rounding) -> np.ndarray:
    """Totals of a random full use of the budgets."""
    problem = model.problem
    state, total = problem.sample_start(rng, runs), np.zeros(runs)
    noise = np.random.default_rng(1)
    for _ in range(problem.horizon):
        scores = noise.random((runs, problem.n_arms, problem.dynamics.n_actions))
        scores[..., 0] = 0.0
        action = np.stack([rounding.arm_actions(row) for row in scores])
        total += problem.dynamics.expected_reward(state, action).sum(axis=1)
        state, _ = problem.dynamics.step(state, action, rng)
    return total


class Table:
    """Rows of one table; a policy's share of the bound with its 95 % interval over runs."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, policy: str, total: np.ndarray, limit: float, idle: float, seconds: float) -> None:
        """One policy on one cohort."""
        share = 100.0 * total / limit
        half = 1.96 * share.std(ddof=1) / len(share) ** 0.5
        row = {
            "cohort": name,
            "policy": policy,
            "share": round(float(share.mean()), 2),
            "low": round(float(share.mean() - half), 2),
            "high": round(float(share.mean() + half), 2),
            "normalised": round(float(100 * (total.mean() - idle) / (limit - idle)), 2),
            "cpu_seconds": round(seconds, 2),
        }
        self.rows.append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


def compare(
    table: Table, name: str, model: Model, runs: int, seed: int, variants: dict[str, NeuralIndexConfig], baselines: bool
) -> None:
    """All policies of one cohort on common random numbers."""
    begun = time.process_time()
    limit = bound(model, tolerance=1e-4).value
    rounding = Rounding(model)

    def run(scores: np.ndarray) -> np.ndarray:
        return simulate_table(model, scores, runs, np.random.default_rng(10_000 + seed), rounding)

    shape = (model.problem.n_arms, model.problem.dynamics.n_states, model.problem.dynamics.n_actions)
    idle = run(np.zeros(shape))
    print(f"{name}: bound {limit:.3f}, {time.process_time() - begun:.1f} CPU s")
    if baselines:
        table.add(name, "none", idle, limit, float(idle.mean()), 0.0)
        total = random_total(model, runs, np.random.default_rng(10_000 + seed), rounding)
        table.add(name, "random", total, limit, float(idle.mean()), 0.0)
        table.add(name, "one_step", run(one_step(model)), limit, float(idle.mean()), 0.0)
        for rule in ("occupancy_index", "lagrangian", "lp_index"):
            begun = time.process_time()
            scores = registry.find("rule", rule).make(model.problem, model.actions).values
            spent = time.process_time() - begun
            table.add(name, rule, run(scores if len(scores) > 1 else scores[0]), limit, float(idle.mean()), spent)
    for label, config in variants.items():
        begun = time.process_time()
        policy = train_neural_index(model, config, seed=seed).policy
        spent = time.process_time() - begun
        table.add(name, label, run(policy.table), limit, float(idle.mean()), spent)


def unseen(table: Table, runs: int, n_train: int, tests: list[tuple[int, int]]) -> None:
    """A network trained on one cohort acts on others; nothing is solved for them."""
    trained = train_neural_index(cohort("hard", n_train, 0), GENERAL).network
    for n_arms, seed in tests:
        model = cohort("hard", n_arms, seed)
        limit, rounding = bound(model, tolerance=1e-4).value, Rounding(model)
        lagrangian = registry.find("rule", "lagrangian").make(model.problem, model.actions).values[0]
        name = f"unseen N={n_arms} seed {seed}"
        idle = 0.0
        for label, scores in (
            ("none", np.zeros(lagrangian.shape)),
            ("one_step", one_step(model)),
            ("lagrangian", lagrangian),
            (f"trained on {n_train} others", trained.indices(model.problem)),
        ):
            total = simulate_table(model, scores, runs, np.random.default_rng(10_000 + seed), rounding)
            idle = float(total.mean()) if label == "none" else idle
            table.add(name, label, total, limit, idle, 0.0)


def data(table: Table, runs: int, sizes: tuple[int, ...]) -> None:
    """What estimated transitions cost: reward over the number of logged episodes of random actions."""
    model = cohort("hard", 50, 0)
    limit, rounding = bound(model, tolerance=1e-4).value, Rounding(model)
    general = train_neural_index(cohort("hard", 200, 1), GENERAL).network
    idle = 0.0

    def row(name: str, scores: np.ndarray) -> np.ndarray:
        total = simulate_table(model, scores, runs, np.random.default_rng(10_000), rounding)
        table.add("unknown moves N=50", name, total, limit, idle, 0.0)
        return total

    idle = float(row("none", np.zeros((50, 4, 3))).mean())
    for episodes in sizes:
        seen = collect(model, make_policy("random", model), episodes, seed=3)
        problem = with_estimate(model.problem, estimate(count_moves(seen, 4, 3)))
        guess = Model(problem, model.actions, solver="fast")
        row(f"{episodes} episodes, network of other arms", general.indices(problem))
        row(f"{episodes} episodes, trained on the estimate", train_neural_index(guess, QUIET).policy.table)
        row(
            f"{episodes} episodes, lagrangian",
            registry.find("rule", "lagrangian").make(problem, model.actions).values[0],
        )


def exact_values(model: Model, scores: np.ndarray) -> tuple[float, float]:
    """(value of the best joint policy, value of scores rounded each round) from the start, by dynamic programming.

    All joint states and joint actions; expected values are contracted arm by arm with shared prefixes.
    """
    problem = model.problem
    transition, reward = problem.dynamics.tabular()
    n_arms, n_states = problem.n_arms, problem.dynamics.n_states
    budgets = Rounding(model).budgets
    assert budgets is not None
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


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Share of the bound over the number of arms, with intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    kept = [row for row in rows if row["cohort"].startswith("hard N=") and row["cohort"].endswith("seed 0")]
    for policy in ("one_step", "occupancy_index", "lagrangian", "lp_index", "tempered", "occupancy", "rollout"):
        own = [row for row in kept if row["policy"] == policy]
        sizes = [int(row["cohort"].split("N=")[1].split()[0]) for row in own]
        middle = np.array([row["share"] for row in own])
        if len(own):
            reach = np.array([[row["share"] - row["low"], row["high"] - row["share"]] for row in own]).T
            axes.errorbar(sizes, middle, yerr=reach, marker="o", capsize=3, label=policy)
    axes.set(xscale="log", xlabel="arms", ylabel="% of the upper bound", title="Arms with delayed effect")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    """Everything, or with --quick a minute's worth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, few runs")
    parser.add_argument("--sizes", default="10,50,100,200,500,1000")
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--parts", default="sizes,easy,ablations,unseen,data,exact")
    parser.add_argument("--out", type=Path, help="folder for table and plots")
    options = parser.parse_args()
    sizes = [10, 50] if options.quick else [int(size) for size in options.sizes.split(",")]
    runs = 20 if options.quick else options.runs
    parts = options.parts.split(",")
    quiet: dict[str, Any] = {"log_episodes": 0}
    table = Table()
    losses = {"tempered": NeuralIndexConfig(**quiet), "occupancy": NeuralIndexConfig(loss="occupancy", **quiet)}
    for n_arms in sizes if "sizes" in parts else []:
        few = max(20, runs * 50 // max(50, n_arms))
        for seed in range(3 if n_arms == 50 and not options.quick else 1):
            more = {"rollout": NeuralIndexConfig(loss="rollout", **quiet)} if n_arms <= 50 and not options.quick else {}
            compare(table, f"hard N={n_arms} seed {seed}", cohort("hard", n_arms, seed), few, seed, losses | more, True)
    if "easy" in parts and not options.quick:
        compare(table, "easy N=50 seed 0", cohort("easy", 50, 0), runs, 0, losses, True)
    if "ablations" in parts and not options.quick:
        variants = {f"epsilon {e:g}": NeuralIndexConfig(epsilon=e, **quiet) for e in (0.5, 0.1, 0.05, 0.01)}
        variants |= {
            f"{loss}, masses {masses}": NeuralIndexConfig(loss=loss, masses=masses, **quiet)
            for loss in ("tempered", "occupancy")
            for masses in ("equal", "upper")
        }
        compare(table, "hard N=50 seed 0", cohort("hard", 50, 0), runs, 0, variants, False)
    if "unseen" in parts:
        unseen(table, runs, 50 if options.quick else 200, [(50, 7)] if options.quick else [(50, 7), (50, 8), (200, 9)])
    if "data" in parts:
        data(table, runs, (1,) if options.quick else (1, 5, 20, 100))
    if "exact" in parts:
        for n_arms, n_states in ((5, 3),) if options.quick else ((10, 3), (7, 4)):
            model = cohort("hard", n_arms, 0, n_states=n_states)
            best, own = exact_values(model, train_neural_index(model, NeuralIndexConfig(**quiet)).policy.table)
            _, fair = exact_values(
                model, registry.find("rule", "lagrangian").make(model.problem, model.actions).values[0]
            )
            limit = bound(model).value
            print(
                f"exact N={n_arms} S={n_states}: joint optimum {best:.4f} ({100 * best / limit:.2f} % of the bound), "
                f"tempered {100 * own / best:.2f} %, lagrangian {100 * fair / best:.2f} % of the optimum"
            )
    print(table_text(table.rows))
    rules = {"lagrangian", "lp_index"}
    for name in dict.fromkeys(row["cohort"] for row in table.rows):
        rows = [row for row in table.rows if row["cohort"] == name]
        plain = [row for row in rows if row["policy"] in rules]
        learned = [
            row for row in rows if row["policy"] not in rules | {"none", "random", "one_step", "occupancy_index"}
        ]
        if plain and learned:
            rule, net = (max(part, key=lambda row: row["share"]) for part in (plain, learned))
            word = "better than" if rule["share"] > net["share"] else "no better than"
            print(
                f"{name}: without training {rule['policy']} {rule['share']} % is {word} the best index "
                f"({net['policy']}, {net['share']} %)"
            )
    if options.out is not None:
        write_atomically(options.out / "neural_index.csv", table_csv(table.rows))
        plot(table.rows, options.out / "neural_index.png")


if __name__ == "__main__":
    main()
