"""``rmab-opt compare``."""

from __future__ import annotations

import math
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from rmab_opt.cli.common import PROGRAMME, Force, Json, Seconds, StateFile, answer, check_outputs
from rmab_opt.registry import register

KEPT = 0.9
"""Share of --seconds for reading and deciding; the rest is for the answer."""


@register("verb", "compare", group=PROGRAMME)
def compare(
    model: Annotated[str, typer.Argument(metavar="DIR|MODEL", help="A programme's folder, or a model.")],
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="CHANGE",
            help="A case: KEY=VALUE of the model file, without=CONSTRAINT, more=WORKER, less=WORKER, "
            "calls=WORKER:NUMBER; joined by and.",
        ),
    ] = None,
    state: StateFile = None,
    groups: Annotated[str, typer.Option("--groups", metavar="COLUMN", help="Count the lists by this column.")] = "",
    episodes: Annotated[int, typer.Option(min=0, help="Runs behind each expected total; 0: bounds only.")] = 4,
    draws: Annotated[
        int, typer.Option(min=0, help="Of the estimate, over which the change of the bound is looked at.")
    ] = 0,
    policy: Annotated[str | None, typer.Option(metavar="NAME", help="Decide by this policy.")] = None,
    seconds: Seconds = None,
    report: Annotated[Path | None, typer.Option(metavar="HTML", help="Write one page.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Other budgets, one more nurse, a constraint less, side by side."""
    began = perf_counter()
    from rmab_opt.programme.comparison import compare as side_by_side
    from rmab_opt.programme.comparison import standpoint
    from rmab_opt.records import write_atomically
    from rmab_opt.report import static_page

    here = standpoint(model, state)
    check_outputs(None, report, also=[state])
    until = math.inf if seconds is None else began + KEPT * seconds
    found = side_by_side(here, sets or [], episodes=episodes, column=groups, policy=policy, draws=draws, until=until)
    text = str(found)
    if seconds is not None:
        text += f"\nwithin {seconds:g} s: every bound holds; without a limit some may be tighter"
    if report is not None:
        parts = [("Cases", found.rows()), *([(f"The list by {groups}", found.groups())] if groups else [])]
        lines = [("", line) for line in (*found.changes(), *found.worth())]
        write_atomically(report, static_page("Side by side", [*parts, *lines]))
        text += f"\nwritten to {report}"
    answer(as_json, found.document(), text)
