"""Policies side by side on common random numbers: reward, interval, speed, share proven, share of the bound."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from rmab_opt import registry
from rmab_opt.decisions import Model
from rmab_opt.decisions import bound as upper_bound
from rmab_opt.decisions.policy import Decider, Policy, known_policy, make_policy, round_of
from rmab_opt.errors import CapabilityError, LimitError, ModelError, OverdueError
from rmab_opt.learning.run_folder import versions
from rmab_opt.learning.simulator import Simulator
from rmab_opt.learning.statistics import (
    ControlVariate,
    Difference,
    Estimate,
    cross_fit,
    demand_below,
    exact_value,
    paired,
    summaries,
    units,
)
from rmab_opt.overdue import given_up_at
from rmab_opt.parallel import pmap, runs_here
from rmab_opt.planning import Bound
from rmab_opt.planning.relaxation import NORMAL_99, StatisticalBound, decoupled_bound
from rmab_opt.problem.table import nearest
from rmab_opt.progress import watch
from rmab_opt.report import cell, frame, notebook_html, table_csv, table_latex, table_text
from rmab_opt.solver import load_profile

__all__ = ["Evaluation", "evaluate", "row_names", "summary_rows"]

BLOCK = 50
"""Episodes of one task: the split is the same whatever the number of workers."""

BOUND_SHARE, GIVEN_UP = 0.5, 0.7
"""With a limit in seconds: shares of it after which bounds are looser and hold, and after which there is none."""


@dataclass(frozen=True)
class Evaluation:
    """A table of policies.

    ``rows`` holds, per policy: ``policy, reward`` (mean total of an episode, adjusted by the bound's prices where
    there is a bound), ``low, high`` (95 % interval, None with one episode), ``share_of_bound`` with ``share_low,
    share_high`` and ``normalised`` (None without a bound; never above 1), ``against_best`` (``best``, ``worse`` or
    ``not told apart``, Holm's step-down at 5 % over the table), ``estimate`` (``adjusted``, ``exact`` or ``raw``),
    ``raw`` (plain mean), ``variance_ratio`` (raw over adjusted), ``note``, ``seconds_per_decision, proven_share``,
    ``decisions`` (how many were made), ``mean_gap`` (relative, over those with a bound; None without any) and
    ``limit_share`` (of those that a limit ended).
    A policy that needs what the model does not offer has a row with nothing but the ``note`` that says it.
    ``episodes`` holds the totals behind it, policy to array (seeds, episodes), ``raw`` the same as they were earned;
    ``seconds`` the time of every decision.
    """

    rows: list[dict[str, Any]]
    header: dict[str, Any]
    episodes: dict[str, np.ndarray] = field(repr=False, default_factory=dict)
    seconds: dict[str, np.ndarray] = field(repr=False, default_factory=dict)
    raw: dict[str, np.ndarray] = field(repr=False, default_factory=dict)

    def _head(self) -> str:
        return " · ".join(f"{key} {cell(value)}" for key, value in self.header.items() if key != "versions")

    def __str__(self) -> str:
        return f"{self._head()}\n{table_text(self.printed())}"

    def _repr_html_(self) -> str:
        return notebook_html("Evaluation", [("", self._head()), ("", self.printed())])

    def to_frame(self, backend: str | None = None) -> Any:
        """``rows`` as a data frame, pandas before polars unless ``backend`` names one."""
        return frame(self.rows, backend)

    def printed(self) -> list[dict[str, Any]]:
        """The rows as a person reads them; :meth:`to_csv` and JSON have the raw means and the ends of the shares."""
        left_out = {"share_low", "share_high", "raw", "variance_ratio", "decisions", "mean_gap", "limit_share"}
        left_out |= {key for key in ("note", "against_best") if all(row.get(key) is None for row in self.rows)}
        return [{key: value for key, value in row.items() if key not in left_out} for row in self.rows]

    def to_csv(self) -> str:
        """The rows as CSV."""
        return table_csv(self.rows)

    def to_latex(self) -> str:
        """The rows as a LaTeX tabular."""
        return table_latex(self.printed())

    def difference(self, first: str, second: str) -> Difference:
        """Paired difference of two policies on the same draws, with the number of pairs that would settle its sign."""
        for name in (first, second):
            if name not in self.episodes:
                raise ModelError(f"no policy {name!r} in this table", f"name one of {', '.join(self.episodes)}.")
        return paired(units(self.episodes[first]), units(self.episodes[second]))


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
    seconds: float | None = None,
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
        Solves are limited by nodes where the model names a shipped profile; a profile of your own keeps its clock, and
        the header then says ``depends on the clock``.
    on_event
        Called with ``{"policy", "seed", "round", "rounds", "advance"}`` while it works, ``advance`` rounds after the
        last call, in place of the progress bar that a terminal or a notebook shows; several workers report whole
        blocks only.
    seconds
        Until the table is due, on the wall, the bound included. A policy whose episodes were not all played to their
        end by then has no row; the header's ``stopped`` names it and the round.

    Returns
    -------
    Evaluation
        Intervals are over seeds when there are at least two, else over episodes; t-distribution, 95 %, cut at the
        bound. With a bound, totals count without the luck that the bound's prices see
        (:mod:`rmab_opt.learning.statistics`): unbiased, and for good policies with 10 to 600 times less variance.

    Raises
    ------
    ModelError
        When a name is unknown, a policy acts against the constraints, or numbers are out of range.
    CapabilityError
        When the model lacks what every policy needs. Where it lacks it for some, their rows say so in ``note``.
    CertificateError
        When an episode without its luck lies above the bound: one of the two is wrong; names the episode.
    LimitError
        When no policy's episodes were played to their end within ``seconds``.
    """
    until = np.inf if seconds is None else perf_counter() + seconds
    seeds = list(seeds)
    _refuse(model, policies, seeds, episodes, reward)
    names = row_names(policies)
    model = model.by_nodes()
    if model.instance is None:
        instances = [model] * len(seeds)
    else:
        instances = [replace(model.instance(seed), solver=model.solver) for seed in seeds]
    variates, sampled, late = _bounds(instances, bound, n_jobs, until)
    expected = reward == "expected"
    tasks = [
        _Block(instance, given, name, seed, first, min(BLOCK, episodes - first), episodes, expected, variate, until)
        for seed, instance, variate in zip(seeds, instances, variates, strict=True)
        for given, name in zip(policies, names, strict=True)
        for first in range(0, episodes, BLOCK)
    ]
    with watch("evaluating", sum(each.model.problem.horizon for each in tasks), quiet=on_event is not None) as tell:

        def show(event: dict[str, Any]) -> None:
            tell(f"evaluating {event['policy']}", advance=event["advance"])

        played, stopped, lacking = _played(tasks, n_jobs, show if on_event is None else on_event)
    if lacking and not played and not stopped:
        raise next(iter(lacking.values()))
    if not played:
        raise LimitError(
            f"no episode was played to its end in {seconds:g} s: {_where(stopped)}",
            "give more seconds, fewer policies or a shorter horizon.",
        )
    limits = np.array([each.limit for each in variates if each is not None])
    estimates = {name: _estimate(name, parts, variates, limits) for name, parts in played.items()}
    said = [*(["the bound"] if late else []), *([_where(stopped)] if stopped else [])]
    header = {
        "model": model.title,
        "reward": reward,
        "horizon": model.problem.horizon,
        "discount": model.problem.discount,
        "arms": model.problem.n_arms,
        "seeds": len(seeds),
        "episodes": episodes,
        "bound": float(limits.mean()) if len(limits) else None if sampled is None else sampled.value,
        **({} if sampled is None else {"bound_kind": sampled.coupling}),
        "profile": load_profile(model.solver).name,
        **_clocks(model, policies),
        **({"stopped": "; ".join(said)} if said else {}),
        "versions": versions(),
    }
    return Evaluation(
        _rows(played, estimates, limits, sampled, lacking),
        header,
        {name: each.totals for name, each in estimates.items()},
        {name: np.concatenate([part.seconds for part in parts]) for name, parts in played.items()},
        {name: each.raw for name, each in estimates.items()},
    )


def _refuse(
    model: Model, policies: Sequence[str | Policy | Decider], seeds: list[int], episodes: int, reward: str
) -> None:
    """Refuse what cannot be evaluated, before anything is solved."""
    if not seeds or episodes < 1:
        raise ModelError(f"{len(seeds)} seeds, {episodes} episodes", "give at least one of each.")
    if reward not in ("expected", "sampled"):
        raise ModelError(f"reward is {reward!r}", "use 'expected' or 'sampled'.")
    if not policies:
        raise ModelError("no policy to evaluate", "name at least one.")
    # Columns that are more than one round's action (a period's visits) refuse here and name the verb that plans them.
    model.actions.columns.arm_action(np.zeros(len(model.actions.columns), dtype=np.int64))
    for given in policies:
        if isinstance(given, str) and not known_policy(given) and not Path(given).is_dir():
            raise ModelError(
                f"no policy {given!r} and no run folder of that name", nearest(given, registry.names("policy"))
            )


def row_names(policies: Sequence[str | Policy | Decider]) -> list[str]:
    """Under what name each policy stands in a table: runs by the end of their folder where that tells them apart.

    Raises
    ------
    ModelError
        When two are of one name: their rows, and their draws, would be taken for one.
    """
    runs = [isinstance(given, str) and not known_policy(given) for given in policies]
    short = [
        Path(str(given)).name if run else given if isinstance(given, str) else given.name
        for given, run in zip(policies, runs, strict=True)
    ]
    whole = [
        str(given) if run and short.count(name) > 1 else name
        for given, run, name in zip(policies, runs, short, strict=True)
    ]
    for name in whole:
        if whole.count(name) > 1:
            raise ModelError(
                f"policy {name!r} stands {whole.count(name)} times", "give each once, under a name of its own."
            )
    return whole


def _rows(
    played: dict[str, list[_Played]],
    estimates: dict[str, Estimate],
    limits: np.ndarray,
    sampled: StatisticalBound | None,
    lacking: dict[str, CapabilityError],
) -> list[dict[str, Any]]:
    """The rows of :class:`Evaluation`; ``limits`` are the instances' bounds (none, or one a seed).

    Policies in ``lacking`` have rows without figures that say what they need.
    """
    rows: list[dict[str, Any]] = []
    for name, row in summaries(estimates, limits if len(limits) else None):
        if sampled is not None and sampled.mean > 0:
            # The interval of a share holds the noise of the bound as well.
            shares = sampled.share(units(estimates[name].totals))
            row |= dict(zip(("share_of_bound", "share_low", "share_high"), shares, strict=True))
        row["seconds_per_decision"] = float(np.concatenate([part.seconds for part in played[name]]).mean())
        status = [status for part in played[name] for status in part.status]
        gaps = np.concatenate([part.gap for part in played[name]])
        row["proven_share"] = float(np.mean([each == "optimal" for each in status]))
        row["decisions"] = len(status)
        row["mean_gap"] = float(gaps[np.isfinite(gaps)].mean()) if np.isfinite(gaps).any() else None
        row["limit_share"] = float(np.mean([each == "limit" for each in status]))
        rows.append(row)
    empty = dict.fromkeys(rows[0])
    return rows + [empty | {"policy": name, "note": f"not played: {error.message}"} for name, error in lacking.items()]


def _clocks(model: Model, policies: Sequence[str | Policy | Decider]) -> dict[str, str]:
    """What of the table's profiles reads the clock, for the header; empty where a repeat gives the same totals."""
    own = [each.__dict__["chooser"].profile for each in policies if "chooser" in getattr(each, "__dict__", {})]
    own += [load_profile(each.model.solver) for each in policies if isinstance(each, Policy)]
    found = {each.clock for each in [load_profile(model.solver), *own] if each.clock is not None}
    return {"depends on the clock": "; ".join(sorted(found))} if found else {}


def summary_rows(totals: dict[str, np.ndarray], limit: float | None) -> list[dict[str, Any]]:
    """Mean, interval, share of the bound and normalised score by policy, from raw totals (seeds, episodes)."""
    estimates = {name: Estimate(parts, parts, "raw") for name, parts in totals.items()}
    return [row for _, row in summaries(estimates, None if limit is None else np.array([limit]))]


def _where(stopped: Mapping[str, tuple[int, int]]) -> str:
    """Where the clock stopped each policy."""
    return "; ".join(f"{name} in round {now} of {rounds}" for name, (now, rounds) in stopped.items())


def _bounds(
    instances: list[Model], wanted: bool | str, n_jobs: int | None, until: float
) -> tuple[list[ControlVariate | None], StatisticalBound | None, bool]:
    """What the table is held against: the control variate of each instance, None without a bound; the statistical
    bound where arms have no tables; and whether the clock took it.

    One bound where the instances are one model.
    """
    several = instances if any(each is not instances[0] for each in instances) else instances[:1]
    left = until - perf_counter()
    due = until if np.isinf(left) else until - (1.0 - GIVEN_UP) * left
    none: list[ControlVariate | None] = [None] * len(instances)
    try:
        with given_up_at(due):
            if not wanted or not hasattr(instances[0].problem.dynamics, "tabular"):
                return none, _statistical(several, wanted), False
            share = None if np.isinf(left) else left * BOUND_SHARE / len(several)
            asked = [(each, wanted if isinstance(wanted, str) else "auto", share, due) for each in several]
            found = dict(pmap(_bound_of, asked, n_jobs=n_jobs))
            made = [ControlVariate.of(each.problem, each.actions, found[k]) for k, each in enumerate(several)]
    except OverdueError:
        return none, None, True
    return list(made) if len(made) == len(instances) else [made[0]] * len(instances), None, False


def _bound_of(asked: tuple[Model, str, float | None, float]) -> Bound:
    # In a process of its own the time is not known yet.
    with given_up_at(asked[3]):
        found = upper_bound(asked[0], coupling=asked[1], seconds=asked[2])
    assert isinstance(found, Bound)
    return found


def _statistical(several: list[Model], wanted: bool | str) -> StatisticalBound | None:
    """The mean of the instances' statistical bounds, for coupled arms without tables that have one."""
    dynamics = several[0].problem.dynamics
    if not wanted or hasattr(dynamics, "tabular") or not hasattr(dynamics, "chances_between"):
        return None
    found = [decoupled_bound(each.problem, each.actions) for each in several]
    mean = float(np.mean([each.mean for each in found]))
    error = float(np.sqrt(sum(each.error**2 for each in found))) / len(found)
    return StatisticalBound(mean + NORMAL_99 * error, mean, error, found[0].paths)


def _played(
    tasks: list[_Block], n_jobs: int | None, on_event: Callable[[dict[str, Any]], None] | None
) -> tuple[dict[str, list[_Played]], dict[str, tuple[int, int]], dict[str, CapabilityError]]:
    """What came of the blocks, by policy: one entry a seed, blocks joined; where the clock stopped others; what the
    rest lack."""
    results: list[Any] = [None] * len(tasks)
    inside = on_event if runs_here(n_jobs) else None
    for number, result in pmap(partial(_work, on_event=inside), tasks, n_jobs=n_jobs):
        results[number] = result
        if on_event is not None and inside is None:
            task, rounds = tasks[number], tasks[number].model.problem.horizon
            on_event({"policy": result[0], "seed": task.seed, "round": rounds, "rounds": rounds, "advance": rounds})
    played: dict[str, list[_Played]] = {}
    stopped = {
        name: (part, each.model.problem.horizon)
        for each, (name, part) in zip(tasks, results, strict=True)
        if isinstance(part, int)
    }
    lacking = {name: part for name, part in results if isinstance(part, CapabilityError)}
    for task, (name, part) in zip(tasks, results, strict=True):
        if name in stopped or name in lacking:
            continue
        parts = played.setdefault(name, [])
        if task.first:
            part = parts.pop().and_then(part)
        parts.append(part)
    return played, stopped, lacking


def _estimate(name: str, parts: list[_Played], variates: list[ControlVariate | None], limits: np.ndarray) -> Estimate:
    """A policy's totals as they count: held against the bound one by one, then with as little noise as can be had."""
    raw = np.array([part.totals for part in parts])
    if not len(limits):
        return Estimate(raw, raw, "raw")
    noise = np.array([part.variate for part in parts])
    demand_below(name, raw, noise, limits, max(each.mass for each in variates if each is not None))
    exact = [part.exact for part in parts if part.exact is not None]
    if len(exact) == len(parts):
        return Estimate(np.repeat(np.array(exact)[:, None], raw.shape[1], axis=1), raw, "exact")
    return Estimate(cross_fit(raw, noise, limits), raw, "adjusted")


def _policy(given: str | Policy | Decider, model: Model) -> Policy:
    """A registered policy by name, a finished run by its folder, or the object itself."""
    if isinstance(given, str) and not known_policy(given) and Path(given).is_dir():
        # Reads weights, for which torch is loaded; other policies do without.
        from rmab_opt.learning.runs import load_policy

        learned = load_policy(given, model)
        learned.name = Path(given).name
        return learned
    return make_policy(given, model)


@dataclass(frozen=True)
class _Block:
    """Some episodes of one policy on one instance: ``count`` of ``episodes``, from ``first`` on."""

    model: Model
    given: str | Policy | Decider
    name: str
    seed: int
    first: int
    count: int
    episodes: int
    expected: bool
    variate: ControlVariate | None
    until: float = np.inf
    """``time.perf_counter()`` at which it ends, also inside an episode."""


@dataclass(frozen=True, eq=False)
class _Played:
    """Episodes of one policy on one instance: totals and noise (episodes,), seconds, status and gaps of all decisions.

    ``exact`` is the expected total where the actions depend on nothing but the round.
    """

    totals: np.ndarray
    variate: np.ndarray
    seconds: np.ndarray
    status: list[str]
    gap: np.ndarray
    exact: float | None

    def and_then(self, more: _Played) -> _Played:
        """Both, one after the other."""
        return _Played(
            np.concatenate([self.totals, more.totals]),
            np.concatenate([self.variate, more.variate]),
            np.concatenate([self.seconds, more.seconds]),
            self.status + more.status,
            np.concatenate([self.gap, more.gap]),
            self.exact if self.exact == more.exact else None,
        )


def _work(
    task: _Block, on_event: Callable[[dict[str, Any]], None] | None = None
) -> tuple[str, _Played | int | CapabilityError]:
    """The policy's name and what it played, the round in which the clock ended it, or what the model lacks for it."""
    try:
        try:
            with given_up_at(task.until):
                chosen = _policy(task.given, task.model)
        except OverdueError:
            return task.name, 1
        # What an earlier block left in a solver could tip a tie; a block must not depend on where it runs.
        chosen.forget()
        return task.name, _simulate(task, chosen, on_event)
    except CapabilityError as error:
        # Some policies find out when they are asked, others when they are made.
        return task.name, error


def _simulate(task: _Block, chosen: Policy, on_event: Callable[[dict[str, Any]], None] | None) -> _Played | int:
    """The episodes of a block, played; the round, counted from 1, in which the clock ended them."""
    model, seed, episodes, variate = task.model, task.seed, task.count, task.variate
    moves, choices = np.random.SeedSequence(seed).spawn(2)
    block = slice(task.first, task.first + episodes)
    simulator = Simulator(model.problem, model.actions, moves.spawn(task.episodes)[block])
    memories = [chosen.begin(np.random.default_rng(child)) for child in choices.spawn(task.episodes)[block]]
    noise = np.zeros(episodes) if variate is None else variate.first(simulator.state)
    total, spent, status, gaps, done, weight = np.zeros(episodes), [], [], [], False, 1.0
    taken = []
    while not done:
        try:
            found = round_of(chosen, simulator.state, simulator.period, memories, simulator.shared, until=task.until)
        except OverdueError:
            return simulator.period + 1
        made, memories = found.decisions, found.memories
        spent += found.seconds
        status += [decision.status for decision in made]
        gaps += [decision.relative_gap for decision in made]
        before, period, action = simulator.state, simulator.period, np.stack([decision.action for decision in made])
        _, realised, mean, done = simulator.step(action, checked=True)
        paid = (mean if task.expected else realised).sum(axis=1)
        total += weight * paid
        if variate is not None:
            arm_action = model.actions.columns.arm_action(action)
            noise += variate.moved(period, before, arm_action, simulator.state) + weight * (paid - mean.sum(axis=1))
            taken.append(arm_action)
        weight *= model.problem.discount
        if on_event is not None:
            event = {"policy": task.name, "seed": seed, "round": simulator.period, "rounds": model.problem.horizon}
            on_event({**event, "advance": 1})
    blind = variate is not None and chosen.blind and all((each == each[0]).all() for each in taken)
    exact = exact_value(model.problem, np.stack([each[0] for each in taken])) if blind else None
    return _Played(total, noise, np.array(spent), status, np.array(gaps), exact)
