"""``rmab-opt plan``, ``replan`` and ``fit``: a calendar from the command line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rmab_opt.errors import LimitError, OverdueError
from rmab_opt.registry import register

if TYPE_CHECKING:
    from rmab_opt.decisions import Model
    from rmab_opt.settings.inspection.calendar import Calendar

CALENDAR = "a calendar"

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A shipped model's name or a model file.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A value in place of the file's.")]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
PlanOut = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the plan; must hold none.")]
PlanFolder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a plan.")]
Events = Annotated[
    list[str] | None,
    typer.Option(
        "--event",
        metavar="WORDS",
        help="'kind=complaint arm=r12 on=2026-03-02 by=2026-03-05'; kinds: done, missed, complaint, failed, closed, "
        "opened (like=), window (window=), capacity (change=, group=), leave (arm= the inspector), holiday.",
    ),
]
EventFile = Annotated[Path | None, typer.Option("--file", metavar="CSV", help="Events, one a row, same words.")]


def _force(given: bool) -> bool:
    from rmab_opt.records import allow

    return allow(given)


Force = Annotated[bool, typer.Option("--force", callback=_force, help="Write over a file that rmab-opt did not write.")]
Seconds = Annotated[
    float | None, typer.Option(min=0.1, max=1e7, help="Until the plan is due, reading and solving together.")
]
SOLVED = 0.4
"""Share of the time left for each of the programs of a plan, of which there are two at most."""

Now = Annotated[str | None, typer.Option("--now", metavar="DATE", help="First date or slot that is still open.")]
Stay = Annotated[float, typer.Option(help="Reward that moving a visit must gain.")]
Records = Annotated[str, typer.Argument(metavar="CSV", help="Dated inspections, or pairs with the time between.")]
Column = Annotated[str, typer.Option(help="Column of the table.")]
Features = Annotated[list[str] | None, typer.Option("--feature", help="Column known before the visit.")]
FitOut = Annotated[Path | None, typer.Option("--out", metavar="CSV", help="Write the arms with their decay.")]


@register("verb", "plan", group=CALENDAR)
def plan(
    model: ModelName,
    out: PlanOut = Path("plan"),
    sets: Sets = None,
    seconds: Seconds = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Plan a period's visits, keep the plan in a folder with its log, and write it as tables, calendars and a page."""
    began = perf_counter()
    from rmab_opt.catalog import load_with
    from rmab_opt.records import keep_safe
    from rmab_opt.settings.inspection.saved import SavedPlan

    source = str(Path(model).resolve()) if Path(model).exists() else model
    loaded = load_with(model, sets)
    keep_safe([loaded.path, *(table.path for table in loaded.tables)])
    with _until(began, seconds):
        _, made = SavedPlan.create(out, _limited(loaded, began, seconds), source, sets or [])
    _answer(made, out, as_json)


@register("verb", "replan", group=CALENDAR)
def replan(
    folder: PlanFolder,
    event: Events = None,
    file: EventFile = None,
    now: Now = None,
    stay: Stay = 0.0,
    seconds: Seconds = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Plan the rest again after what happened; the whole log is replayed, and nothing that is due is dropped."""
    began = perf_counter()
    from rmab_opt.catalog import load_with
    from rmab_opt.problem import Table
    from rmab_opt.records import keep_safe
    from rmab_opt.settings.inspection.saved import SavedPlan, read_event, read_slot

    source, sets = SavedPlan.source(folder)
    keep_safe([file])
    saved = SavedPlan.open(folder, _limited(load_with(source, sets), began, seconds))
    given: list[Any] = list(event or [])
    if file is not None:
        table = Table.from_csv(file)
        given += [{name: cells[row] for name, cells in table.columns.items()} for row in range(len(table))]
    events = [read_event(words, saved.dates) for words in given]
    slot = None if now is None else read_slot(now, saved.dates, "--now")
    with _until(began, seconds):
        made = saved.replan(events, now=slot, stay=stay)
    _answer(made, folder, as_json)


@contextmanager
def _until(began: float, seconds: float | None) -> Iterator[None]:
    """Programs that are not written by then are given up; those that are have their share of the time."""
    from rmab_opt.overdue import given_up_at

    try:
        with given_up_at(math.inf if seconds is None else began + seconds):
            yield
    except OverdueError:
        raise LimitError(f"no plan was found in {seconds:g} s", "give more seconds.") from None


def _limited(model: Model, began: float, seconds: float | None) -> Model:
    """The model with what is left of the time as the limit of its profile."""
    if seconds is None:
        return model
    from rmab_opt.solver import load_profile

    left = SOLVED * max(0.0, seconds - (perf_counter() - began))
    return replace(model, solver=replace(load_profile(model.solver), seconds=max(0.01, left)))


def _answer(made: Calendar, folder: Path, as_json: bool) -> None:
    document = {**made.summary(), "changes": made.changes(), "because": made.because(), "folder": str(folder)}
    text = f"{made}\n{made.because()}\nwritten to {folder}"
    _say(document, text, as_json)


def _say(document: dict[str, Any], text: str, as_json: bool) -> None:
    import json
    import sys

    from rmab_opt.errors import SolverError

    try:
        said = json.dumps(document, indent=1, allow_nan=False) if as_json else text
    except ValueError:
        raise SolverError("the answer holds a number that is not finite", "look at the model's numbers.") from None
    # Whatever the output's encoding.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(said.encode(encoding, "backslashreplace").decode(encoding) + "\n")


@register("verb", "fit", group=CALENDAR)
def fit(
    records: Records,
    arm: Column = "id",
    outcome: Column = "outcome",
    dated: Annotated[str | None, typer.Option("--date", help="Column with the visit's date.")] = None,
    elapsed: Column = "elapsed",
    before: Column = "before",
    group: Annotated[str | None, typer.Option("--class", help="Column with the arm's class.")] = None,
    feature: Features = None,
    unit: Annotated[str, typer.Option(help="Slots of the plan: day, week or month.")] = "month",
    out: FitOut = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Estimate decay from inspection records, and say when memory is only a difference between establishments."""
    from rmab_opt.records import keep_safe, refuse_foreign, write_atomically
    from rmab_opt.report import table_csv
    from rmab_opt.settings.inspection.fit import RecordColumns
    from rmab_opt.settings.inspection.memory import from_records

    keep_safe([Path(records)])
    if out is not None:
        refuse_foreign(out)
    given = RecordColumns(
        arm=arm, elapsed=elapsed, before=before, outcome=outcome, features=tuple(feature or ())
    )  # fmt: skip
    found = from_records(records, given, dated=dated, group=group, unit=unit)
    text = str(found)
    if out is not None:
        # Tables have no exponents.
        cells = [{k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()} for row in found.arms]
        write_atomically(out, "\ufeff" + table_csv(cells))
        text += f"\nwritten to {out}"
    _say(found.summary(), text, as_json)
