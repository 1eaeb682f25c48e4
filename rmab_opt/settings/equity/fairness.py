"""Outcomes of groups under policies: measures, paired evaluation on common draws, capacity, and their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from rmab_opt.decisions import Model
from rmab_opt.decisions.policy import Policy, make_policy, round_of
from rmab_opt.errors import LimitError, ModelError, OverdueError
from rmab_opt.learning.evaluation import row_names
from rmab_opt.learning.plots import _axes, _save
from rmab_opt.learning.simulator import Simulator
from rmab_opt.learning.statistics import Difference, interval, marks, paired
from rmab_opt.overdue import given_up_at
from rmab_opt.problem.table import nearest
from rmab_opt.report import cell, table_csv, table_latex, table_text
from rmab_opt.settings.equity import Groups, Welfare, fair_plan, gini, smallest_budget
from rmab_opt.settings.equity.outcomes import MOST_ROWS, Fairness, fairness_of
from rmab_opt.settings.equity.policies import model_groups

__all__ = [
    "Fairness",
    "GroupTable",
    "capacity_plot",
    "capacity_table",
    "compare_groups",
    "fairness_of",
    "front_plot",
    "group_plot",
    "measure_front",
    "welfare_front",
]


AXIS_NAMES = {
    "gini": "Gini coefficient of the group means (less is more even)",
    "mean": "mean total of an arm",
    "worst": "mean total of an arm in the worst group",
}

COLOURS = (
    "#4878a8", "#f0a35e", "#6aa84f", "#c0504d", "#8e7cc3", "#8c6d53", "#d98bb9", "#7f7f7f",
    "#b5b35c", "#5fb8c4", "#1f3f66", "#b8621b", "#2f6b2f", "#7a1f1f", "#4b3a86", "#c9c9c9",
)  # fmt: skip
"""One a policy."""


LIMIT_SHARE = 0.15
"""Share of the seconds that each of the two limits may take."""


@dataclass(frozen=True)
class GroupTable:
    """Policies by what groups get from them.

    ``rows`` hold, per policy: ``policy, mean`` (total of an arm), ``low, high`` (95 % interval over episodes),
    ``worst`` (smallest group mean over all episodes), ``worst_low, worst_high`` (interval of that group),
    ``gini`` (of the group means over all episodes, one denominator: the mean of the K group means),
    ``price_of_fairness`` (share of the utilitarian limit given up), one column ``group:NAME`` a group,
    ``measure:NAME`` for further measures, ``seconds_per_decision``, and ``against_best`` (``best``, ``worse`` or
    ``not told apart`` by the mean; Holm's step-down at 5 %). One episode has no interval: its ends are None.
    ``groups`` (policy to (E, K)) and ``means`` (policy to (E,)) are the episodes behind it, ``units`` (policy to (K,))
    the arms of each group acted on in a round.
    """

    rows: list[dict[str, Any]]
    header: dict[str, Any]
    names: tuple[str, ...]
    groups: dict[str, np.ndarray] = field(repr=False, default_factory=dict)
    means: dict[str, np.ndarray] = field(repr=False, default_factory=dict)
    units: dict[str, np.ndarray] = field(repr=False, default_factory=dict)

    def __str__(self) -> str:
        return " · ".join(f"{key} {cell(value)}" for key, value in self.header.items()) + "\n" + table_text(self.rows)

    def to_csv(self) -> str:
        """The rows as CSV."""
        return table_csv(self.rows)

    def to_latex(self) -> str:
        """The rows as a LaTeX tabular."""
        return table_latex(self.rows)

    def row(self, policy: str) -> dict[str, Any]:
        """One policy's row; ModelError with the nearest name otherwise."""
        for row in self.rows:
            if row["policy"] == policy:
                return row
        raise ModelError(f"no policy {policy!r} in this table", nearest(policy, list(self.groups)))

    def difference(self, first: str, second: str, measure: str = "mean") -> Difference:
        """Paired difference of two policies with its 95 % interval and the number of pairs that would settle its sign.

        ``measure`` is ``mean`` or the name of a group.
        """
        self.row(first)
        self.row(second)
        if measure == "mean":
            return paired(self.means[first], self.means[second])
        if measure not in self.names:
            raise ModelError(f"no measure {measure!r}", nearest(measure, ["mean", *self.names]))
        at = self.names.index(measure)
        return paired(self.groups[first][:, at], self.groups[second][:, at])


def compare_groups(
    model: Model,
    policies: Sequence[str | Policy],
    *,
    group: str | Groups | None = None,
    episodes: int = 25,
    seed: int = 0,
    bound: bool = True,
    measures: Mapping[str, np.ndarray] | None = None,
    seconds: float | None = None,
) -> GroupTable:
    """Simulate policies on the same draws and compare what every group gets.

    Parameters
    ----------
    policies
        Names, or objects with ``name`` and ``decide``.
    group
        Column of the cohort's table or groups; the one of the model's objective, or ``group``, by default.
    episodes, seed
        All policies meet the same first states and the same random numbers of every arm and round.
    bound
        Whether to compute the limits of the worst group and of the mean, for ``price_of_fairness`` and the header.
    measures
        Further state measures, name to (N, S), summed over the rounds and averaged over arms.
    seconds
        Until the table is due, on the wall, limits included. Policies that were not played to their end by then have
        no row; the header's ``stopped`` names them.

    Raises
    ------
    LimitError
        When no policy was played to its end within ``seconds``.

    Returns
    -------
    GroupTable
        Expected rewards of the states met, discounted as the problem says.
    """
    if episodes < 1 or not policies:
        raise ModelError(f"{episodes} episodes, {len(policies)} policies", "give at least one of each.")
    names = row_names(policies)
    until = np.inf if seconds is None else perf_counter() + seconds
    model = model.by_nodes()
    groups = group if isinstance(group, Groups) else model_groups(model, group)
    limits: dict[str, float] = {}
    if bound:
        for name, key in (("utilitarian", "mean_limit"), ("max_min", "worst_limit")):
            share = None if seconds is None else LIMIT_SHARE * seconds
            plan = fair_plan(model.problem, model.actions, groups, welfare=name, tolerance=1e-5, seconds=share)
            limits[key] = plan.upper
    rows, by_group, means, units = [], {}, {}, {}
    stopped: list[str] = []
    for given, name in zip(policies, names, strict=True):
        try:
            with given_up_at(until):
                chosen = make_policy(given, model)
            totals, counts, extra, spent = _simulate(model, chosen, episodes, seed, measures or {}, until)
        except OverdueError:
            stopped.append(name)
            continue
        by_group[name], means[name] = groups.means(totals), totals.mean(axis=1)
        units[name] = groups.member @ counts
        mean, low, high = interval(means[name])
        pooled = by_group[name].mean(axis=0)
        worst = int(pooled.argmin())
        least, worst_low, worst_high = interval(by_group[name][:, worst])
        row: dict[str, Any] = {
            "policy": name,
            "mean": mean,
            "low": low,
            "high": high,
            "worst": least,
            "worst_low": worst_low,
            "worst_high": worst_high,
            "gini": float(gini(pooled)),
            "price_of_fairness": 1.0 - mean / limits["mean_limit"] if limits.get("mean_limit", 0.0) > 0 else None,
        }
        row |= _by_group(groups.names, pooled)
        row |= {f"measure:{key}": float(value.mean()) for key, value in extra.items()}
        row["seconds_per_decision"] = spent
        rows.append(row)
    if not rows:
        raise LimitError(
            f"no policy was played to its end in {seconds:g} s", "give more seconds, fewer policies or fewer episodes."
        )
    told = marks(means)
    for row in rows:
        row["against_best"] = told[row["policy"]]
    header = {"model": model.title, "arms": model.problem.n_arms, "episodes": episodes, "seed": seed, **limits}
    header |= {"stopped": ", ".join(stopped)} if stopped else {}
    return GroupTable(rows, header, groups.names, by_group, means, units)


def _by_group(names: tuple[str, ...], values: np.ndarray) -> dict[str, float]:
    """A column a group, or of many groups how their means are spread; all stand in :attr:`GroupTable.groups`."""
    if len(names) <= MOST_ROWS:
        return {f"group:{key}": float(value) for key, value in zip(names, values, strict=True)}
    marks_ = ("lowest", "tenth", "quarter", "middle", "three_quarters", "highest")
    at = np.quantile(values, [0.0, 0.1, 0.25, 0.5, 0.75, 1.0])
    return {f"groups:{key}": float(value) for key, value in zip(marks_, at, strict=True)}


def _simulate(
    model: Model, chosen: Policy, episodes: int, seed: int, measures: Mapping[str, np.ndarray], until: float
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], float]:
    """Totals (E, N), actions an arm and round (N,), further measures (E,) each, and seconds a decision.

    Raises
    ------
    OverdueError
        When ``until`` came before the end.
    """
    moves, choices = np.random.SeedSequence(seed).spawn(2)
    simulator = Simulator(model.problem, model.actions, moves.spawn(episodes))
    memories = [chosen.begin(np.random.default_rng(child)) for child in choices.spawn(episodes)]
    arm = np.arange(model.problem.n_arms)
    totals, counts = np.zeros((episodes, len(arm))), np.zeros(len(arm))
    extra = {name: np.zeros(episodes) for name in measures}
    weight, spent, done = 1.0, 0.0, False
    while not done:
        for name, table in measures.items():
            extra[name] += weight * np.asarray(table)[arm, simulator.state].mean(axis=1)
        made = round_of(chosen, simulator.state, simulator.period, memories, simulator.shared, until=until)
        memories = made.memories
        spent += sum(made.seconds)
        actions = np.stack([decision.action for decision in made.decisions])
        counts += (model.actions.columns.arm_action(actions) > 0).mean(axis=0)
        _, _, expected, done = simulator.step(actions, checked=True)
        totals += weight * expected
        weight *= model.problem.discount
    rounds = model.problem.horizon
    return totals, counts / rounds, extra, spent / (episodes * rounds)


def welfare_front(
    model: Model, welfares: Sequence[str | float | Welfare], *, group: str | Groups | None = None, **options: Any
) -> list[dict[str, Any]]:
    """Efficiency against equity, solved: one relaxed plan a welfare; rows with ``welfare, mean, worst, gini``."""
    groups = group if isinstance(group, Groups) else model_groups(model, group)
    rows = []
    for welfare in welfares:
        plan = fair_plan(model.problem, model.actions, groups, welfare=welfare, **options)
        rows.append(
            {
                "welfare": plan.welfare.name,
                "mean": plan.mean,
                "worst": float(plan.values.min()),
                "gini": float(gini(plan.values)),
                "relative_gap": plan.relative_gap,
            }
        )
    return rows


def measure_front(
    models: Mapping[str, Model],
    policies: Sequence[str | Policy],
    measures: Mapping[str, np.ndarray],
    *,
    episodes: int = 25,
    **options: Any,
) -> list[dict[str, Any]]:
    """Two or more objectives against each other: policies simulated under models that weigh them differently.

    Parameters
    ----------
    models
        Label to model, for example ``{"0.5": load("digital_diabetes", alpha=0.5)}``; all see the same draws.
    measures
        State measures, name to (N, S), summed over the rounds and averaged over arms.
    options
        Of :func:`compare_groups`.

    Returns
    -------
    list of dict
        Rows with ``model, policy``, one column a measure, ``mean``, ``worst`` and ``gini``, for :func:`front_plot`.
    """
    rows = []
    for label, model in models.items():
        table = compare_groups(model, policies, episodes=episodes, measures=measures, bound=False, **options)
        rows += [
            {
                "model": label,
                "policy": row["policy"],
                **{name: row[f"measure:{name}"] for name in measures},
                **{key: row[key] for key in ("mean", "worst", "gini")},
            }
            for row in table.rows
        ]
    return rows


def capacity_table(
    model: Model, targets: Sequence[float], *, group: str | Groups | None = None, whole: bool = False
) -> list[dict[str, Any]]:
    """Smallest budget a round for every target in every group; rows with ``target, budget, worth_of_one_more``.

    ``worth_of_one_more`` is the rise of the target that one more unit a round buys; None with whole budgets, where
    nothing is worth an infinitesimal change.
    """
    groups = group if isinstance(group, Groups) else model_groups(model, group)
    rows = []
    for target in targets:
        found = smallest_budget(model.problem, groups, float(target), whole=whole)
        price = float(found.worth.sum()) / model.problem.horizon
        rows.append(
            {
                "target": float(target),
                "budget": float(found.budgets.max()),
                "worst": float(found.values.min()),
                "worth_of_one_more": None if whole or price <= 1e-12 else 1.0 / price,
            }
        )
    return rows


# ------------------------------------------------------------------------------------------------------------- pictures
def group_plot(table: GroupTable, path: str | Path) -> None:
    """Bars of the group means by policy with 95 % intervals, or of many groups their means in order.

    The limit of the worst group is a line.
    """
    if len(table.names) > MOST_ROWS:
        _spread_plot(table, path)
        return
    figure, axes = _axes(max(8.0, 2.0 + 0.11 * len(table.rows) * len(table.names)), 4.0)
    width = 0.8 / len(table.rows)
    place = np.arange(len(table.names))
    for number, row in enumerate(table.rows):
        values = table.groups[row["policy"]]
        found = [interval(values[:, g]) for g in range(values.shape[1])]
        intervals = np.array(
            [[mean, mean if low is None else low, mean if high is None else high] for mean, low, high in found]
        )
        axes.bar(
            place + (number - (len(table.rows) - 1) / 2) * width,
            intervals[:, 0],
            width,
            yerr=[intervals[:, 0] - intervals[:, 1], intervals[:, 2] - intervals[:, 0]],
            error_kw={"elinewidth": 0.8, "capsize": 1.5, "ecolor": "#333333"},
            color=COLOURS[number % len(COLOURS)],
            label=row["policy"],
        )
    limit = table.header.get("worst_limit")
    if limit is not None:
        axes.axhline(limit, color="#b03030", linestyle="--", linewidth=1, label="limit of the worst group")
    axes.set_xticks(place, table.names)
    axes.set_xlabel("group")
    axes.set_ylabel("mean total of an arm, 95 % interval")
    axes.set_title(str(table.header["model"]), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    _save(figure, path)


def _spread_plot(table: GroupTable, path: str | Path) -> None:
    """The means of many groups in order, a line a policy."""
    figure, axes = _axes(7.5, 4.0)
    share = (np.arange(len(table.names)) + 0.5) / len(table.names) * 100.0
    for number, row in enumerate(table.rows):
        means = np.sort(table.groups[row["policy"]].mean(axis=0))
        axes.plot(share, means, color=COLOURS[number % len(COLOURS)], linewidth=1.6, label=row["policy"])
    limit = table.header.get("worst_limit")
    if limit is not None:
        axes.axhline(limit, color="#b03030", linestyle="--", linewidth=1, label="limit of the worst group")
    axes.set_xlabel(f"share of the {len(table.names)} groups with less, %")
    axes.set_ylabel("mean total of an arm of the group")
    axes.set_title(str(table.header["model"]), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    _save(figure, path)


def front_plot(
    rows: Sequence[Mapping[str, Any]], path: str | Path, *, x: str = "gini", y: str = "mean", label: str = "welfare"
) -> None:
    """Two measures against each other, a labelled point a row; points that no other row beats are joined."""
    figure, axes = _axes(6.0, 4.0)
    points = np.array([[float(row[x]), float(row[y])] for row in rows])
    # Less of a Gini is better, more of anything else is.
    sign = -1.0 if x == "gini" else 1.0
    order = np.argsort(-sign * points[:, 0], kind="stable")
    front, best = [], -np.inf
    for i in order:
        if points[i, 1] > best:
            front.append(i)
            best = points[i, 1]
    axes.plot(points[front, 0], points[front, 1], color="#9db8d2", linewidth=1)
    axes.plot(points[:, 0], points[:, 1], "o", color="#1f4e79", markersize=4)
    for row, point in zip(rows, points, strict=True):
        axes.annotate(f" {row[label]}", point, fontsize=8)
    axes.set_xlabel(AXIS_NAMES.get(x, x))
    axes.set_ylabel(AXIS_NAMES.get(y, y))
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def capacity_plot(rows: Sequence[Mapping[str, Any]], path: str | Path, title: str = "") -> None:
    """Smallest budget over the target of every group."""
    figure, axes = _axes(6.0, 4.0)
    axes.plot([row["target"] for row in rows], [row["budget"] for row in rows], "o-", color="#1f4e79", markersize=4)
    axes.set_xlabel("target: least mean total of an arm, in every group")
    axes.set_ylabel("smallest budget a round")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)
