"""``rmab-opt bound``."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from rmab_opt.cli.common import (
    RESEARCH,
    Force,
    GroupColumn,
    Json,
    ModelName,
    Seconds,
    Sets,
    StateFile,
    answer,
    brought,
    check_outputs,
    has_tables,
    load_now,
    stoppable,
)
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.registry import register

if TYPE_CHECKING:
    from rmab_opt.decisions import Model
    from rmab_opt.planning import Bound
    from rmab_opt.planning.relaxation import StatisticalBound

WRITTEN = ("bound.csv", "bound.png")
"""Files of the folder --out."""

MOST_POINTS = 10_000
"""Points of a curve that anybody can look at."""

KEPT = 0.9
"""Share of --seconds for reading and solving; the rest is for the proof and the file."""

Sweep = Annotated[str | None, typer.Option(metavar="NAME=FROM:TO:STEP", help="The bound over a limit.")]
Kind = Annotated[str, typer.Option(help="auto, time_indexed, discounted, discounted_tail or average.")]
Coupling = Annotated[str, typer.Option(help="auto, relaxation, or hull: tighter for routes and loads, takes longer.")]
Method = Annotated[str, typer.Option(help="auto, dual, highs or pyomo.")]
Margin = Annotated[int, typer.Option(min=0, help="List so many arms at the margin.")]
WelfareName = Annotated[
    str, typer.Option(help="With --groups: leximin, max_min, nash, nash_groups, utilitarian or a number.")
]
Target = Annotated[
    list[float] | None, typer.Option(help="With --groups: the smallest budget that lifts every group so far.")
]
Out = Annotated[
    Path | None, typer.Option(help="File.json for the bound with its proof; with --sweep a folder for the curve.")
]


@register("verb", "bound", group=RESEARCH)
def bound(
    model: ModelName,
    state: StateFile = None,
    sweep: Sweep = None,
    kind: Kind = "auto",
    coupling: Coupling = "auto",
    method: Method = "auto",
    margin: Margin = 0,
    groups: GroupColumn = None,
    welfare: WelfareName = "leximin",
    target: Target = None,
    sets: Sets = None,
    seconds: Seconds = None,
    out: Out = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Say what no policy can exceed, and what one more unit of a resource is worth."""
    began = perf_counter()
    if groups is not None:
        grouped, loaded = brought("report", "bound_groups", "equity", "--groups"), load_now(model, sets)
        if not has_tables(loaded):
            raise CapabilityError(
                "tabular(), on which fair bounds rest",
                loaded.problem.dynamics,
                (
                    f"see what groups get: `rmab-opt evaluate MODEL --groups {groups}`",
                    f"give each its share: a constraint {{kind: linear, per: {groups}, at_least: 1}}",
                ),
            )
        left = None if seconds is None else max(0.0, seconds - (perf_counter() - began))
        told = grouped(loaded, groups, state=state, welfare=welfare, targets=target or [], seconds=left)
        answer(as_json, told.document, told.text)
        return
    if target or welfare != "leximin":
        flag = "--target" if target else "--welfare"
        brought("report", "bound_groups", "equity", flag)
        raise ModelError(f"{flag} without --groups", "say whose it is: --groups COLUMN.")
    from rmab_opt.decisions import bound as upper_bound
    from rmab_opt.decisions import margin as arms_at_margin
    from rmab_opt.planning import Bound
    from rmab_opt.report import table_text

    loaded = load_now(model, sets)
    if sweep is not None:
        if out is not None:
            check_outputs(loaded, *(out / name for name in WRITTEN), also=[state])
        _sweep(loaded, sweep, out, None if seconds is None else began + KEPT * seconds, as_json)
        return
    if out is not None:
        if out.suffix != ".json":
            raise ModelError(f"--out {out}: unknown format {out.suffix!r}", "end it in .json; --sweep takes a folder.")
        check_outputs(loaded, out, also=[state])

    def asked(deadline: float | None) -> Bound | StatisticalBound:
        left = None if deadline is None else max(0.0, deadline - perf_counter())
        return upper_bound(loaded, state, kind=kind, coupling=coupling, method=method, seconds=left)

    found, stopped = stoppable(asked, None if seconds is None else began + KEPT * seconds)
    wanted = "--margin" if margin > 0 else None if out is None else "--out"
    if wanted is not None and not isinstance(found, Bound):
        raise ModelError(f"{wanted} of coupled arms", "leave it out: their bound is an estimate, without prices.")
    near = arms_at_margin(loaded, found, state, margin) if margin > 0 and isinstance(found, Bound) else []
    text, document = f"{found}\n{table_text(near)}" if near else str(found), found.summary()
    joiners = _joiners(Path(model), loaded, state)
    if joiners:
        text, document = f"{text}\nwith joiners: {joiners}", document | {"joiners": joiners}
    document |= {"margin": near} if near else {}
    if stopped:
        text, document = f"{text}\nstopped by Ctrl-C; the bound holds all the same", document | {"stopped": True}
    if out is not None and isinstance(found, Bound):
        from rmab_opt.decisions import save_bound

        written, proven = save_bound(loaded, found, loaded.state(state), path=out)
        document |= {"proven": proven, "bytes": len(written)}
        text += f"\nproven at most {proven:.6g} by the prices in {out} ({len(written)} bytes)"
    answer(as_json, document, text)


def _joiners(path: Path, loaded: Model, state: Path | None) -> str:
    """The bound of a programme's folder with those who will join and leave; empty where nothing says who will."""
    from rmab_opt.programme.arrivals import arrivals_of
    from rmab_opt.programme.front_door import ahead_of, choose_rule

    coming = arrivals_of(path)
    if coming is None:
        return ""
    given = loaded.state(state)
    start = loaded.problem.start_distribution if given is None else given
    lying = ahead_of(loaded, choose_rule(loaded, 0), start, shared=loaded.shared(state, None))
    return "" if lying is None else coming.line(*lying.living_part)


def _limits(sweep: str) -> tuple[str, list[float]]:
    """``budget=5:50:5`` as a resource and its limits."""
    name, sign, span = sweep.partition("=")
    try:
        low, high, step = (float(part) for part in span.split(":"))
    except ValueError:
        low, high, step = 0.0, -1.0, 0.0
    if not sign or not low <= high or not step > 0 or not high < 1e12:
        raise ModelError(f"--sweep {sweep!r}", "write --sweep NAME=FROM:TO:STEP, for example --sweep budget=5:50:5.")
    if (high - low) / step > MOST_POINTS:
        raise ModelError(
            f"--sweep {sweep!r} has {(high - low) / step:.3g} points",
            f"take a larger step: at most {MOST_POINTS} points.",
        )
    return name, [low + step * k for k in range(int((high - low) / step + 1e-9) + 1)]


def _sweep(loaded: Model, sweep: str, out: Path | None, deadline: float | None, as_json: bool) -> None:
    """The bound over the limit of a resource."""
    from rmab_opt.planning import sweep as curve_over
    from rmab_opt.records import write_atomically
    from rmab_opt.report import table_csv, table_text

    name, limits = _limits(sweep)
    left = None if deadline is None else max(0.0, deadline - perf_counter())
    curve = curve_over(loaded.problem, loaded.actions, limits, resource=name, breakpoints=20, seconds=left)
    rows = curve.rows()
    text = table_text(rows)
    if out is not None:
        from rmab_opt.learning.plots import curve_plot

        write_atomically(out / "bound.csv", table_csv(rows))
        curve_plot(curve, out / "bound.png", title=loaded.title)
        text += f"\nwritten to {out}"
    answer(as_json, rows, text)
