"""One step of policy improvement on contact graphs: against the optimum on eight arms, against its base on 200.

    python benchmarks/networked_improve.py exact        # nine regimes of eight arms, values by enumeration
    python benchmarks/networked_improve.py simulated    # the same with drawn roll-outs: what simulation keeps
    python benchmarks/networked_improve.py rules        # look-aheads on arrays, 200 arms, ten instances, 32 episodes
    python benchmarks/networked_improve.py large --seconds 400   # 200 arms, ten instances, paired episodes
    python benchmarks/networked_improve.py summary      # the paired gains of that record with their intervals

Writes CSV to standard output; recorded in ``benchmarks/data/networked_improve_*.csv``. ``large`` appends to its record
itself, an episode a row, and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from scipy import stats

import rmab_opt as ro
from rmab_opt.decisions import Model
from rmab_opt.decisions.policies.improved import Improve
from rmab_opt.decisions.policy import make_policy
from rmab_opt.planning.improve import Rollouts, improve
from rmab_opt.settings.networked.instances import TINY
from rmab_opt.settings.networked.rollouts import BASES, BatchLookahead, ExactRollouts
from rmab_opt.settings.networked.spread import backward_induction, policy_value, set_bits

LARGE: dict[str, tuple[str, dict[str, Any], int]] = {
    "influencers": ("contacts_influencers", {}, 6),
    "reference": (
        "contacts",
        {"n_arms": 200, "n_contacts": 690, "probability": 0.05, "at_most": 10, "discount": 0.95},
        3,
    ),
    "slow start": ("contacts_slow_start", {"n_arms": 200, "n_contacts": 330, "at_most": 5}, 3),
    "lapsing": ("contacts_lapsing", {"n_arms": 200, "n_contacts": 330, "at_most": 5}, 3),
    "influencers, two visits": ("contacts_influencers", {"at_most": 2}, 3),
}
"""Regimes of 200 arms, in the order of the record: model, its settings, paired episodes an instance."""


def shares(model: Model, draws: int = 0) -> dict[str, float]:
    """Share of the optimal gain over doing nothing that the base, one improvement and two visits of it keep."""
    problem, actions = model.problem, model.actions
    dynamics: Any = problem.dynamics
    listed = actions.enumerate()
    assert listed is not None
    arm_action = actions.columns.arm_action(listed.astype(np.int64))
    best, _ = backward_induction(dynamics, arm_action, problem.horizon, problem.discount)
    base = BatchLookahead(problem, actions, "priced")
    states = set_bits(problem.n_arms).astype(np.int64)
    horizon, discount = problem.horizon, problem.discount
    none = np.zeros((horizon, *states.shape), dtype=np.int64)
    exact = ExactRollouts(problem, actions, base)
    simulated = Rollouts(problem, actions, base)
    rng = np.random.default_rng(0)
    found = np.zeros_like(none)
    for period in range(horizon):
        for place, state in enumerate(states):
            rollouts: Any = simulated if draws else exact
            made = improve(rollouts, actions, state, period, None, draws or 8, rng)
            found[period, place] = actions.columns.arm_action(made.action)
    low = policy_value(dynamics, none, horizon, discount)[0]
    room = best[0, 0] - low
    return {
        "optimum": float(best[0, 0]),
        "none": float(low),
        "lookahead_priced": float((exact.values[0][0] - low) / room),
        "improve": float((policy_value(dynamics, found, horizon, discount)[0] - low) / room),
    }


def small(draws: int, instances: int) -> list[dict[str, Any]]:
    """All nine regimes, several instances each."""
    rows = []
    for name, (model, given) in TINY.items():
        for seed in range(instances):
            sets = {**given, "horizon": 8 if draws else 16}
            began = process_time()
            row = shares(ro.load(model, seed=seed, samples=20, **sets), draws)
            seconds = process_time() - began
            rows.append({"regime": name, "seed": seed, "draws": draws, **row, "cpu_seconds": round(seconds, 2)})
    return rows


def large(record: Path, instances: int, draws: int, seconds: float) -> None:
    """Paired totals of 200 arms, the same seeds of episodes for every policy: appends what the record lacks."""
    done = set()
    if record.exists():
        with record.open(newline="") as file:
            done = {(row["regime"], int(row["seed"]), int(row["episode"])) for row in csv.DictReader(file)}
    until = perf_counter() + seconds
    # The regime that the figure is asked for first, then one episode of every instance of all regimes, then the next.
    first, *others = LARGE
    tasks = [(first, seed, k) for seed in range(instances) for k in range(LARGE[first][2])]
    most = max(LARGE[name][2] for name in others)
    tasks += [
        (name, seed, k) for k in range(most) for seed in range(instances) for name in others if k < LARGE[name][2]
    ]
    for name, seed, k in tasks:
        if (name, seed, k) in done:
            continue
        if perf_counter() > until:
            return
        source, given, _ = LARGE[name]
        model = ro.load(source, seed=seed, **given)
        row: dict[str, Any] = {"regime": name, "seed": seed, "episode": k, "draws": draws}
        for policy in ("none", "lookahead_priced", "lookahead_contacts", "improve"):
            began = process_time()
            row[policy] = round(episode(model, policy, [seed, k], draws), 6)
            row["decision_cpu_s"] = round((process_time() - began) / model.problem.horizon, 4)
        new = not record.exists()
        with record.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)


def summary(record: Path) -> list[dict[str, Any]]:
    """By regime: gains over doing nothing, and paired differences with 95 % intervals over instances (Student's t)."""
    with record.open(newline="") as file:
        read = list(csv.DictReader(file))
    rows = []
    for name in dict.fromkeys(row["regime"] for row in read):
        own = [row for row in read if row["regime"] == name]
        seeds = sorted({int(row["seed"]) for row in own})

        def mean(policy: str, own: list[dict[str, str]] = own, seeds: list[int] = seeds) -> np.ndarray:
            return np.array([np.mean([float(row[policy]) for row in own if int(row["seed"]) == one]) for one in seeds])

        base = mean("lookahead_priced")
        room = float((base - mean("none")).mean())
        row = {"regime": name, "instances": len(seeds), "episodes": len(own), "gain_of_base": round(room, 2)}
        for policy in ("lookahead_contacts", "improve"):
            less = mean(policy) - base
            half = float(stats.t.ppf(0.975, len(less) - 1) * less.std(ddof=1) / len(less) ** 0.5)
            row |= {
                f"{policy}_less_base": round(float(less.mean()), 2),
                f"{policy}_half": round(half, 2),
                f"{policy}_percent": round(100 * float(less.mean()) / room, 2),
                f"{policy}_percent_half": round(100 * half / room, 2),
            }
        rows.append(row | {"decision_cpu_s": round(float(np.mean([float(row["decision_cpu_s"]) for row in own])), 3)})
    return rows


def on_arrays(part: int, parts: int, instances: int, episodes: int) -> list[dict[str, Any]]:
    """Rules on arrays over many episodes side by side: means by instance, paired by seeds."""
    rows = []
    for name, seed in [(name, seed) for name in LARGE for seed in range(instances)][part::parts]:
        source, given, _ = LARGE[name]
        model = ro.load(source, seed=seed, **given)
        problem, row = model.problem, {"regime": name, "seed": seed, "episodes": episodes}
        for policy, weights in {"none": "", **BASES}.items():
            rule = BatchLookahead(problem, model.actions, weights) if weights else None
            state, total = np.zeros((episodes, problem.n_arms), dtype=np.int64), np.zeros(episodes)
            rng = np.random.default_rng([seed, 5])
            for period in range(problem.horizon):
                acted = model.actions.columns.arm_action(rule(state, period)) if rule else np.zeros_like(state)
                state, paid = problem.dynamics.step(state, acted, rng)[:2]
                total += problem.discount**period * paid.sum(axis=1)
            row |= {
                policy: round(float(total.mean()), 3),
                f"{policy}_error": round(float(total.std() / episodes**0.5), 3),
            }
        rows.append(row)
    return rows


def episode(model: Model, policy: str, seed: list[int], draws: int) -> float:
    """What one episode earned, discounted; chance of the arms is the same for every policy."""
    problem = model.problem
    chosen = Improve(model, base="lookahead_priced", draws=draws) if policy == "improve" else make_policy(policy, model)
    state, total = problem.sample_start(np.random.default_rng(seed), 1)[0], 0.0
    memory = chosen.begin(np.random.default_rng([*seed, 7]))
    for period in range(problem.horizon):
        decision, memory = chosen.follow(state, period, memory)
        acted = model.actions.columns.arm_action(decision.action)
        state, paid = problem.dynamics.step(state, acted, np.random.default_rng([*seed, 1, period]))[:2]
        total += problem.discount**period * float(np.sum(paid))
    return total


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("exact", "simulated", "rules", "large", "summary"))
    parser.add_argument("--instances", type=int, default=0)
    parser.add_argument("--draws", type=int, default=32)
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="large: begin no episode later than this")
    parser.add_argument("--record", type=Path, default=Path("benchmarks/data/networked_improve_large.csv"))
    given = parser.parse_args()
    if given.what == "large":
        large(given.record, given.instances or 10, given.draws, given.seconds)
        return
    if given.what == "rules":
        rows = on_arrays(given.part, given.parts, given.instances or 10, 32)
    elif given.what == "summary":
        rows = summary(given.record)
    else:
        rows = small(given.draws if given.what == "simulated" else 0, given.instances or 4)
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    main()
