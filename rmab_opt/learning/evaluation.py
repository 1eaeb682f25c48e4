"""Policies side by side on common random numbers: reward, interval, speed, share proven, share of the bound."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from scipy import stats

from rmab_opt.decisions import Model
from rmab_opt.decisions import bound as upper_bound
from rmab_opt.decisions.policy import POLICIES, Policy, decisions, make_policy
from rmab_opt.errors import ModelError
from rmab_opt.learning import graph_networks as _graph_networks  # noqa: F401 - registers its policies
from rmab_opt.learning import neural_index as _neural_index  # noqa: F401 - registers its policy
from rmab_opt.learning.dqn import load_policy
from rmab_opt.learning.run_folder import versions
from rmab_opt.learning.simulator import Simulator
from rmab_opt.problem.table import nearest
from rmab_opt.report import cell, table_csv, table_latex, table_text

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """A table of policies.

    ``rows`` holds, per policy: ``policy, reward`` (mean total of an episode), ``low, high`` (95 %
    interval), ``share_of_bound, normalised`` (None without a bound), ``seconds_per_decision,
    proven_share``. ``episodes`` holds the totals behind it, policy to array (seeds, episodes).
    """

    rows: list[dict[str, Any]]
    header: dict[str, Any]
    episodes: dict[str, np.ndarray] = field(repr=False, default_factory=dict)

    def __str__(self) -> str:
        head = " · ".join(f"{key} {cell(value)}" for key, value in self.header.items() if key != "versions")
        return f"{head}\n{table_text(self.rows)}"

    def to_csv(self) -> str:
        """The rows as CSV."""
        return table_csv(self.rows)

    def to_latex(self) -> str:
        """The rows as a LaTeX tabular."""
        return table_latex(self.rows)

    def difference(self, first: str, second: str) -> tuple[float, float, float]:
        """Mean paired difference of two policies' totals with its 95 % interval: (mean, low, high)."""
        for name in (first, second):
            if name not in self.episodes:
                raise ModelError(f"no policy {name!r} in this table", f"name one of {', '.join(self.episodes)}.")
        return _interval(self.episodes[first] - self.episodes[second])


def evaluate(
    model: Model,
    policies: Sequence[str | Policy],
    *,
    seeds: Iterable[int] = (0,),
    episodes: int = 20,
    reward: str = "expected",
    bound: bool = True,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Evaluation:
    """Simulate policies from the problem's start, all on the same draws.

    Parameters
    ----------
    policies
        Names (see ``rmab_opt.decisions.policy.POLICIES``), folders of finished runs, or objects with
        ``name`` and ``decide``.
    seeds
        Of the episodes; for a model made by a generator also of its instance.
    episodes
        Episodes a seed.
    reward
        ``expected``: the expected reward of each round given state and action, less noisy;
        ``sampled``: the realised one.
    bound
        Whether to compute the upper bound of every policy, for the columns ``share_of_bound`` and, with
        policy ``none`` in the table, ``normalised`` = (policy - none) / (bound - none).
    on_event
        Called with ``{"policy", "seed", "round", "rounds"}`` while it works.

    Returns
    -------
    Evaluation
        Intervals are over seeds when there are at least two, else over episodes; t-distribution, 95 %.

    Raises
    ------
    ModelError
        When a name is unknown, a policy acts against the constraints, or numbers are out of range.
    """
    seeds = list(seeds)
    if not seeds or episodes < 1:
        raise ModelError(f"{len(seeds)} seeds, {episodes} episodes", "give at least one of each.")
    if reward not in ("expected", "sampled"):
        raise ModelError(f"reward is {reward!r}", "use 'expected' or 'sampled'.")
    if not policies:
        raise ModelError("no policy to evaluate", "name at least one.")
    for given in policies:
        if isinstance(given, str) and given not in POLICIES and not Path(given).is_dir():
            raise ModelError(f"no policy {given!r} and no run folder of that name", nearest(given, list(POLICIES)))
    totals: dict[str, list[np.ndarray]] = {}
    spent: dict[str, list[float]] = {}
    proven: dict[str, list[bool]] = {}
    limits: list[float] = []
    for seed in seeds:
        instance = model if model.instance is None else model.instance(seed)
        if bound and hasattr(instance.problem.dynamics, "tabular"):
            limits.append(upper_bound(instance).value)
        for given in policies:
            chosen = _policy(given, instance)
            total, seconds, shares = _simulate(instance, chosen, seed, episodes, reward == "expected", on_event)
            totals.setdefault(chosen.name, []).append(total)
            spent.setdefault(chosen.name, []).append(seconds)
            proven.setdefault(chosen.name, []).extend(shares)
    limit = float(np.mean(limits)) if limits else None
    idle = float(np.mean(totals["none"])) if "none" in totals else None
    rows = []
    for name, parts in totals.items():
        mean, low, high = _interval(np.array(parts))
        rows.append(
            {
                "policy": name,
                "reward": mean,
                "low": low,
                "high": high,
                "share_of_bound": mean / limit if limit is not None and limit > 0 else None,
                "normalised": (mean - idle) / (limit - idle)
                if limit is not None and idle is not None and limit - idle > 1e-9 * max(1.0, abs(limit))
                else None,
                "seconds_per_decision": float(np.mean(spent[name])),
                "proven_share": float(np.mean(proven[name])) if name in proven else None,
            }
        )
    header = {
        "model": model.title,
        "reward": reward,
        "horizon": model.problem.horizon,
        "discount": model.problem.discount,
        "arms": model.problem.n_arms,
        "seeds": len(seeds),
        "episodes": episodes,
        "bound": limit,
        "profile": str(getattr(model.solver, "name", model.solver)),
        "versions": versions(),
    }
    return Evaluation(rows, header, {name: np.array(parts) for name, parts in totals.items()})


def _policy(given: str | Policy, model: Model) -> Policy:
    """A registered policy by name, a finished run by its folder, or the object itself."""
    if isinstance(given, str) and given not in POLICIES and Path(given).is_dir():
        learned = load_policy(given, model)
        learned.name = Path(given).name
        return learned
    return make_policy(given, model)


def _simulate(
    model: Model,
    chosen: Policy,
    seed: int,
    episodes: int,
    expected: bool,
    on_event: Callable[[dict[str, Any]], None] | None,
) -> tuple[np.ndarray, float, list[bool]]:
    """Totals (episodes,), seconds a decision and which decisions were proven optimal."""
    moves, choices = np.random.SeedSequence(seed).spawn(2)
    simulator = Simulator(model.problem, model.actions, moves.spawn(episodes))
    generators = [np.random.default_rng(child) for child in choices.spawn(episodes)]
    total, spent, proven, done, weight = np.zeros(episodes), 0.0, [], False, 1.0
    while not done:
        clock = perf_counter()
        made = list(decisions(chosen, simulator.state, simulator.period, generators))
        spent += perf_counter() - clock
        proven += [decision.status == "optimal" for decision in made]
        _, realised, mean, done = simulator.step(np.stack([decision.action for decision in made]), checked=True)
        total += weight * (mean if expected else realised).sum(axis=1)
        weight *= model.problem.discount
        if on_event is not None:
            on_event({"policy": chosen.name, "seed": seed, "round": simulator.period, "rounds": model.problem.horizon})
    return total, spent / (episodes * model.problem.horizon), proven


def _interval(totals: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % t-interval over seeds (rows) when several, else over episodes."""
    units = totals.mean(axis=1) if totals.shape[0] > 1 else totals[0]
    mean = float(units.mean())
    if len(units) < 2:
        return mean, mean, mean
    half = float(stats.t.ppf(0.975, len(units) - 1) * units.std(ddof=1) / np.sqrt(len(units)))
    return mean, mean - half, mean + half
