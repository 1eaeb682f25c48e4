"""``rmab-opt evaluate``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rmab_opt import registry
from rmab_opt.cli.common import (
    RESEARCH,
    Force,
    GroupColumn,
    Jobs,
    Json,
    ModelName,
    Seconds,
    Sets,
    SolverName,
    answer,
    brought,
    check_outputs,
    has_tables,
    load_now,
)
from rmab_opt.errors import LimitError, ModelError
from rmab_opt.progress import watch
from rmab_opt.registry import register

if TYPE_CHECKING:
    from rmab_opt.learning import Evaluation

FIRST_EPISODES, KEPT = 2, 0.9
"""With --seconds: episodes that say how long one takes, and the share of the time that is filled with them."""

LEAST_LEFT = 0.05
"""Seconds that the episodes get in any case."""

WRITTEN = ("evaluation.csv", "evaluation.tex", "evaluation.json", "evaluation.png", "seconds.png")
GROUPED = ("groups.csv", "groups.tex", "groups.png")
"""Files of the folder --out."""

TABLE = "sequoia_table"
"""MODEL that stands for a comparison over many models."""

Policies = Annotated[str, typer.Option(help="Names or run folders, separated by commas; see `rmab-opt policies`.")]
Seeds = Annotated[int, typer.Option(min=1, max=1_000_000, help="How many seeds (instances, for a generated model).")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The first of them.")]
Episodes = Annotated[int, typer.Option(min=1, max=10_000_000, help="Episodes a seed.")]
Reward = Annotated[str, typer.Option(help="expected or sampled.")]
WithBound = Annotated[bool, typer.Option("--bound/--no-bound", help="Compare with the upper bound.")]
Hull = Annotated[bool, typer.Option("--hull", help="The tightest bound, through the allowed actions.")]
Out = Annotated[Path | None, typer.Option(help="Folder for the table (CSV, JSON, LaTeX) and the plots.")]
Quick = Annotated[bool, typer.Option("--quick", help=f"MODEL {TABLE}: one instance, the default.")]
Full = Annotated[bool, typer.Option("--full", help=f"MODEL {TABLE}: ten instances, two sizes.")]


@register("verb", "evaluate", group=RESEARCH)
def evaluate(
    model: ModelName,
    policies: Policies = "none,random,sampling,myopic",
    seeds: Seeds = 1,
    seed: Seed = 0,
    episodes: Episodes = 20,
    reward: Reward = "expected",
    solver: SolverName = None,
    seconds: Seconds = None,
    with_bound: WithBound = True,
    hull: Hull = False,
    groups: GroupColumn = None,
    sets: Sets = None,
    out: Out = None,
    jobs: Jobs = None,
    quick: Quick = False,
    full: Full = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compare policies on common random numbers; MODEL sequoia_table compares over all coupled settings."""
    if model == TABLE:
        _compare_models(out, quick, full, jobs, as_json)
        return
    if quick or full:
        raise ModelError(f"--quick or --full with model {model!r}", f"they are of {TABLE!r}; give --seeds.")
    began = perf_counter()
    from dataclasses import replace

    from rmab_opt.learning import evaluate as compare

    grouped = None if groups is None else brought("report", "policy_groups", "equity", "--groups")
    loaded = load_now(model, sets)
    if solver is not None:
        from rmab_opt.solver import load_profile

        # A profile and not its name: a clock that is asked for here is meant.
        loaded = replace(loaded, solver=load_profile(solver))
    if out is not None:
        check_outputs(loaded, *(out / name for name in (GROUPED if grouped is not None else WRITTEN)))
    names = registry.split(policies)
    if seeds < 1:
        raise ModelError(f"--seeds {seeds}", "give at least 1.")
    if grouped is not None:
        if seeds > 1:
            raise ModelError(f"--groups with --seeds {seeds}", "give --episodes: groups are those of one instance.")
        limits = with_bound and has_tables(loaded)
        left = None if seconds is None else max(LEAST_LEFT, seconds - (perf_counter() - began))
        try:
            told = grouped(loaded, names, groups, episodes=episodes, seed=seed, bound=limits, out=out, seconds=left)
        except LimitError as late:
            _say_late(as_json, loaded.title, late)
            return
        answer(as_json, told.document, told.text)
        return
    with watch("evaluating", len(names) * seeds * loaded.problem.horizon, quiet=as_json) as tell:

        def show(event: dict[str, Any]) -> None:
            tell(f"evaluating {event['policy']}", advance=event["advance"])

        def run(count: int) -> Evaluation:
            left = None if seconds is None else max(LEAST_LEFT, seconds - (perf_counter() - began))
            return compare(
                loaded,
                names,
                seeds=range(seed, seed + seeds),
                episodes=count,
                reward=reward,
                bound="hull" if with_bound and hull else with_bound,
                n_jobs=jobs,
                on_event=show,
                seconds=left,
            )

        count = episodes if seconds is None else min(FIRST_EPISODES, episodes)
        try:
            table, spent = run(count), perf_counter() - began
        except LimitError as late:
            _say_late(as_json, loaded.title, late)
            return
        if seconds is not None:
            # What a few episodes took says how many fit into the rest; set-up counts as part of them, so they do.
            fitting = min(episodes, int(count * max(0.0, KEPT * seconds - spent) / spent))
            if fitting > count and "stopped" not in table.header:
                table, count = _longer(run, fitting, table, count)
    text = str(table)
    if count < episodes:
        text += f"\n{count} of {episodes} episodes: {seconds:g} s are the limit"
    if out is not None:
        _write(table, out, loaded.title)
        text += f"\nwritten to {out}"
    answer(as_json, {"header": table.header, "rows": table.rows}, text)


def _say_late(as_json: bool, title: str, late: LimitError) -> None:
    """The answer of a limit within which nothing was played: an empty table that says so."""
    answer(as_json, {"header": {"model": title, "stopped": late.message}, "rows": []}, f"{late.message}\n{late.fix}")


def _longer(run: Callable[[int], Evaluation], fitting: int, table: Evaluation, count: int) -> tuple[Evaluation, int]:
    """The table of more episodes, unless the clock ended them; else the one at hand."""
    try:
        more = run(fitting)
    except LimitError:
        return table, count
    return (table, count) if "stopped" in more.header else (more, fitting)


def _write(table: Evaluation, out: Path, title: str) -> None:
    from rmab_opt.learning.plots import policy_plot, time_plot
    from rmab_opt.records import json_text, write_atomically

    write_atomically(out / "evaluation.csv", table.to_csv())
    write_atomically(out / "evaluation.tex", table.to_latex())
    write_atomically(out / "evaluation.json", json_text({"header": table.header, "rows": table.rows}) + "\n")
    policy_plot(table, out / "evaluation.png")
    time_plot(table.seconds, out / "seconds.png", title=title)


def _compare_models(out: Path | None, quick: bool, full: bool, jobs: int | None, as_json: bool) -> None:
    """The comparison over all models of a setting, or the rest of it."""
    if quick and full:
        raise ModelError("--quick and --full", "give one of them.")
    compare = brought("report", TABLE, "coupled", TABLE)
    place = Path(TABLE) if out is None else out
    check_outputs(None, place / "table.csv", place / "times.csv")
    with watch("comparing", quiet=as_json) as tell:

        def show(event: dict[str, Any]) -> None:
            tell(f"after {event['task']}", done=event["done"], total=event["tasks"])

        told = compare(place, full=full, n_jobs=jobs, on_event=show)
    answer(as_json, told.document, told.text)
