"""Policies side by side on common random numbers: reward, interval, speed, share proven, share of the bound."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from scipy import stats

from rmab_opt import registry
from rmab_opt.decisions import Model
from rmab_opt.decisions import bound as upper_bound
from rmab_opt.decisions.policy import Decider, Policy, known_policy, make_policy, round_of
from rmab_opt.errors import ModelError
from rmab_opt.learning.dqn import load_policy
from rmab_opt.learning.run_folder import versions
from rmab_opt.learning.simulator import Simulator
from rmab_opt.parallel import pmap
from rmab_opt.problem.table import nearest
from rmab_opt.report import cell, table_csv, table_latex, table_text

__all__ = ["Evaluation", "evaluate", "summary_rows"]

BLOCK = 50
"""Episodes of one task: the split is the same whatever the number of workers."""


@dataclass(frozen=True)
class Evaluation:
    """A table of policies.

    ``rows`` holds, per policy: ``policy, reward`` (mean total of an episode), ``low, high`` (95 %
    interval), ``share_of_bound, normalised`` (None without a bound), ``seconds_per_decision,
    proven_share``. ``episodes`` holds the totals behind it, policy to array (seeds, episodes); ``seconds`` the time of
    every decision.
    """

    rows: list[dict[str, Any]]
    header: dict[str, Any]
    episodes: dict[str, np.ndarray] = field(repr=False, default_factory=dict)
    seconds: dict[str, np.ndarray] = field(repr=False, default_factory=dict)

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
    policies: Sequence[str | Policy | Decider],
    *,
    seeds: Iterable[int] = (0,),
    episodes: int = 20,
    reward: str = "expected",
    bound: bool | str = True,
    n_jobs: int | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Evaluation:
    """Simulate policies from the problem's start, all on the same draws.

    Parameters
    ----------
    policies
        Names (see ``rmab-opt policies``), folders of finished runs, or objects with
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
        policy ``none`` in the table, ``normalised`` = (policy - none) / (bound - none). ``"hull"`` takes the tightest
        one, see :func:`rmab_opt.planning.bound`.
    n_jobs
        Worker processes, as in :func:`rmab_opt.parallel.pmap`; seeds, policies and blocks of 50 episodes run side by
        side. Rewards do not depend on it; seconds do, where workers share a core.
    on_event
        Called with ``{"policy", "seed", "round", "rounds", "advance"}`` while it works, ``advance`` rounds after the
        last call; several workers report whole blocks only.

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
        if isinstance(given, str) and not known_policy(given) and not Path(given).is_dir():
            raise ModelError(
                f"no policy {given!r} and no run folder of that name", nearest(given, registry.names("policy"))
            )
    tasks: list[_Block | _BoundTask] = []
    for seed in seeds:
        instance = model if model.instance is None else model.instance(seed)
        if bound and hasattr(instance.problem.dynamics, "tabular"):
            tasks.append(_BoundTask(instance, bound if isinstance(bound, str) else "auto"))
        for given in policies:
            for first in range(0, episodes, BLOCK):
                count = min(BLOCK, episodes - first)
                tasks.append(_Block(instance, given, seed, first, count, episodes, reward == "expected"))
    results: list[Any] = [None] * len(tasks)
    inside = on_event if n_jobs in (None, 1) else None
    for number, result in pmap(partial(_work, on_event=inside), tasks, n_jobs=n_jobs):
        results[number] = result
        task = tasks[number]
        if on_event is not None and inside is None and isinstance(task, _Block):
            rounds = model.problem.horizon
            event = {"policy": result[0], "seed": task.seed, "round": rounds, "rounds": rounds, "advance": rounds}
            on_event(event)
    limits = [result for task, result in zip(tasks, results, strict=True) if isinstance(task, _BoundTask)]
    totals: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, list[np.ndarray]] = {}
    proven: dict[str, list[bool]] = {}
    for task, result in zip(tasks, results, strict=True):
        if isinstance(task, _Block):
            name, total, spent, shares = result
            if task.first:
                total = np.concatenate([totals[name].pop(), total])
            totals.setdefault(name, []).append(total)
            seconds.setdefault(name, []).append(spent)
            proven.setdefault(name, []).extend(shares)
    found = {name: np.array(parts) for name, parts in totals.items()}
    taken = {name: np.concatenate(parts) for name, parts in seconds.items()}
    limit = float(np.mean(limits)) if limits else None
    rows = summary_rows(found, limit)
    for row in rows:
        row["seconds_per_decision"] = float(taken[row["policy"]].mean())
        row["proven_share"] = float(np.mean(proven[row["policy"]]))
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
    return Evaluation(rows, header, found, taken)


def summary_rows(totals: dict[str, np.ndarray], limit: float | None) -> list[dict[str, Any]]:
    """Mean, interval, share of the bound and normalised score by policy, from totals (seeds, episodes)."""
    idle = float(np.mean(totals["none"])) if "none" in totals else None
    rows = []
    for name, parts in totals.items():
        mean, low, high = _interval(parts)
        room = None if limit is None or idle is None else limit - idle
        rows.append(
            {
                "policy": name,
                "reward": mean,
                "low": low,
                "high": high,
                "share_of_bound": mean / limit if limit is not None and limit > 0 else None,
                "normalised": (mean - idle) / room
                if room is not None and idle is not None and limit is not None and room > 1e-9 * max(1.0, abs(limit))
                else None,
            }
        )
    return rows


def _policy(given: str | Policy | Decider, model: Model) -> Policy:
    """A registered policy by name, a finished run by its folder, or the object itself."""
    if isinstance(given, str) and not known_policy(given) and Path(given).is_dir():
        learned = load_policy(given, model)
        learned.name = Path(given).name
        return learned
    return make_policy(given, model)


@dataclass(frozen=True)
class _Block:
    """Some episodes of one policy on one instance: ``count`` of ``episodes``, from ``first`` on."""

    model: Model
    given: str | Policy | Decider
    seed: int
    first: int
    count: int
    episodes: int
    expected: bool


@dataclass(frozen=True)
class _BoundTask:
    """The upper bound of one instance."""

    model: Model
    coupling: str = "auto"


def _work(task: _Block | _BoundTask, on_event: Callable[[dict[str, Any]], None] | None = None) -> Any:
    if isinstance(task, _BoundTask):
        return upper_bound(task.model, coupling=task.coupling).value
    chosen = _policy(task.given, task.model)
    # What an earlier block left in a solver could tip a tie; a block must not depend on where it runs.
    chosen.forget()
    return (chosen.name, *_simulate(task, chosen, on_event))


def _simulate(
    task: _Block, chosen: Policy, on_event: Callable[[dict[str, Any]], None] | None
) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """Totals (episodes,), seconds of every decision and which decisions were proven optimal."""
    model, seed, episodes = task.model, task.seed, task.count
    moves, choices = np.random.SeedSequence(seed).spawn(2)
    block = slice(task.first, task.first + episodes)
    simulator = Simulator(model.problem, model.actions, moves.spawn(task.episodes)[block])
    memories = [chosen.begin(np.random.default_rng(child)) for child in choices.spawn(task.episodes)[block]]
    total, spent, proven, done, weight = np.zeros(episodes), [], [], False, 1.0
    while not done:
        made = []
        for e, state in enumerate(simulator.state):
            clock = perf_counter()
            shared = None if simulator.shared is None else simulator.shared[e : e + 1]
            found = round_of(chosen, state[None], simulator.period, [memories[e]], shared)
            spent.append(perf_counter() - clock)
            made += found.decisions
            memories[e] = found.memories[0]
        proven += [decision.status == "optimal" for decision in made]
        _, realised, mean, done = simulator.step(np.stack([decision.action for decision in made]), checked=True)
        total += weight * (mean if task.expected else realised).sum(axis=1)
        weight *= model.problem.discount
        if on_event is not None:
            on_event(
                {
                    "policy": chosen.name,
                    "seed": seed,
                    "round": simulator.period,
                    "rounds": model.problem.horizon,
                    "advance": 1,
                }
            )
    return total, np.array(spent), proven


def _interval(totals: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % t-interval over seeds (rows) when several, else over episodes."""
    units = totals.mean(axis=1) if totals.shape[0] > 1 else totals[0]
    mean = float(units.mean())
    if len(units) < 2:
        return mean, mean, mean
    half = float(stats.t.ppf(0.975, len(units) - 1) * units.std(ddof=1) / np.sqrt(len(units)))
    return mean, mean - half, mean + half
