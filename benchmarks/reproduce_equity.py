"""Published equity settings: the reference's rules and ours, side by side on the same draws, with intervals.

    python benchmarks/reproduce_equity.py [--quick | --episodes 25] [--settings 0,1,2] [--out benchmarks/data]
        [--pictures FOLDER]
    python benchmarks/reproduce_equity.py --show benchmarks/data

Rows named ``published_...`` are the reference's rules as they were coded, faults included: indices by bisection on
[-1, 1] (larger ones are clipped), the charge between two neighbouring indices instead of the minimising one, greedy
rules on the curves that this gives, the whole budget always spent, nothing remembered. ``published_round_robin`` is the
reference's round robin whose clock stands still. All other rows are the package's own policies.

What was not reproducible: a 20 and 10 times lower Gini of the published max-min and equalised Nash rules against the
utilitarian one on the synthetic domain (their code gives 7 and 6 times at best), and the diabetes figures, of which
the text gives no values. "25 seeds" are 25 draws of first states and moves: arm parameters are the same in all of
them, as in the reference.
"""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path

import numpy as np

import rmab_opt as ro
from rmab_opt.decisions.model import Model
from rmab_opt.problem import Table
from rmab_opt.records import write_atomically
from rmab_opt.report import table_csv, table_text
from rmab_opt.settings.equity.fairness import compare_groups, group_plot
from rmab_opt.settings.equity.policies import model_groups
from rmab_opt.settings.equity.published import mmr, mnw, mnw_eg, whittle_to_lagrange

SETTINGS = [
    ("equity_synthetic", {"at_most": 10}),
    ("equity_synthetic", {"at_most": 20}),
    ("equity_synthetic", {"at_most": 33}),
    ("maternal_health", {"large": "A"}),
    ("maternal_health", {"large": "B"}),
    ("maternal_health", {"large": "C"}),
    ("digital_diabetes", {"alpha": 0.0}),
    ("digital_diabetes", {"alpha": 0.5}),
    ("digital_diabetes", {"alpha": 1.0}),
]

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
        self.budget = round(model.actions.constraints["budget"].at_most)

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

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator):
        """The largest indices of each group, or of all arms, ties at random."""
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
        self.model, self.budget = model, round(model.actions.constraints["budget"].at_most)
        self.high = np.array(["high" in str(name).split("/") for name in model.problem.dynamics.state_names])

    def decide(self, state: np.ndarray, period: int, rng: np.random.Generator):
        """High-risk arms in the order of an unstable sort of equal waits, the others after them."""
        parts = [np.flatnonzero(self.high[state]), np.flatnonzero(~self.high[state])]
        order = np.concatenate([arms[np.argsort(np.zeros(len(arms)))] for arms in parts])
        action = np.zeros(len(state), dtype=np.int64)
        action[order[: self.budget]] = 1
        return action


def title(name: str, changes: dict) -> str:
    """A setting in a few words."""
    return f"{name} {' '.join(f'{key}={value}' for key, value in changes.items())}"


def setting(name: str, changes: dict, episodes: int, pictures: Path | None) -> list[dict]:
    """Rows of one published setting."""
    model = ro.load(name, **changes)
    published = [PublishedRule(model, rule) for rule in ("opt", "mmr", "mnw", "mnw_eg")]
    policies = ["none", "random", "whittle", *published, "utilitarian", "mmr", "mnw", "mnw_eg", "leximin", "nash"]
    if name == "digital_diabetes":
        policies += [StandingRoundRobin(model), "round_robin_high_risk", "random_high_risk"]
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    table = compare_groups(model, policies, episodes=episodes)
    seconds = resource.getrusage(resource.RUSAGE_SELF).ru_utime - begun
    print(f"{title(name, changes)}  ({seconds:.0f} user s)\n{table}", flush=True)
    gain, low, high = table.difference("leximin", "published_mmr")
    print(f"mean, leximin against the published rule: {gain:+.3f} ({low:+.3f} to {high:+.3f}), paired\n", flush=True)
    if pictures is not None:
        group_plot(table, pictures / f"equity_groups_{title(name, changes).replace(' ', '_')}.png")
    rows = []
    for row in table.rows:
        spent = table.units[row["policy"]]
        rows.append(
            {
                "setting": title(name, changes),
                "policy": row["policy"],
                "episodes": episodes,
                **{key: f"{row[key]:.4f}" for key in ("mean", "low", "high", "worst", "worst_low", "worst_high")},
                "gini": f"{row['gini']:.4f}",
                "group_means": " ".join(f"{row[f'group:{g}']:.3f}" for g in table.names),
                "units_a_round": " ".join(f"{n:.2f}" for n in spent),
                **{key: f"{table.header[key]:.4f}" for key in ("mean_limit", "worst_limit")},
                "seconds_per_decision": f"{row['seconds_per_decision']:.5f}",
            }
        )
    return rows


def show(folder: Path) -> None:
    """The recorded results as a short table: worst group and mean of the reference's max-min rule and of ours."""
    table = Table.from_csv(folder / "equity_settings.csv")
    columns = {
        key: table.text(key) for key in ("setting", "policy", "mean", "worst", "worst_low", "worst_high", "gini")
    }
    rows = []
    for name in dict.fromkeys(columns["setting"]):
        line: dict[str, object] = {"setting": name}
        for policy in ("published_mmr", "mmr", "leximin", "published_opt", "utilitarian"):
            at = next(k for k, s in enumerate(columns["setting"]) if s == name and columns["policy"][k] == policy)
            line |= {f"{key} {policy}": columns[key][at] for key in ("worst", "mean", "gini")}
        rows.append(line)
    print(table_text(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two settings, three seeds: within a minute")
    parser.add_argument("--episodes", type=int, default=25)
    parser.add_argument("--settings", help="numbers of settings, for example 0,3")
    parser.add_argument("--out", type=Path, help="folder for equity_settings.csv")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of the groups by policy, one a setting")
    parser.add_argument("--show", type=Path, metavar="FOLDER", help="print recorded results and stop")
    given = parser.parse_args()
    if given.show is not None:
        show(given.show)
        sys.exit(0)
    chosen = range(2) if given.quick else range(len(SETTINGS))
    if given.settings:
        chosen = [int(part) for part in given.settings.split(",")]
    rows: list[dict] = []
    for number in chosen:
        rows += setting(*SETTINGS[number], 3 if given.quick else given.episodes, given.pictures)
        if given.out is not None:
            write_atomically(given.out / "equity_settings.csv", table_csv(rows))


if __name__ == "__main__":
    main()
