"""``rmab-opt next``."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from rmab_opt.cli.common import PROGRAMME, Json, Seconds, answer
from rmab_opt.cli.verbs.start import Pseudonyms, due_after, write_files
from rmab_opt.registry import register

SHOWN = 40
"""Changes of the list that are printed."""


@register("verb", "next", group=PROGRAMME)
def next_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The programme's folder, from `rmab-opt start`.")],
    outcomes: Annotated[Path, typer.Option("--outcomes", help="The list, ticked; or any sheet with id, done, state.")],
    sheet: Annotated[
        Path | None,
        typer.Option("--register", help="The new register, or a sheet of who joined, left, paused, changed."),
    ] = None,
    pseudonyms: Pseudonyms = False,
    seconds: Seconds = None,
    as_json: Json = False,
) -> None:
    """Record the week and make the next list; says who comes, who goes, and why."""
    began = perf_counter()
    from rmab_opt.programme.desk import Desk
    from rmab_opt.programme.folder import next_week
    from rmab_opt.report import table_text

    week = next_week(folder, outcomes, sheet, due_after(began, seconds))
    changes = [{"id": name, "list": how, "why": why} for name, how, why in Desk(folder).changes()]
    text = f"{week}\n{write_files(week, folder, pseudonyms)}"
    if changes:
        text += f"\n\nAgainst last week's list\n{table_text(changes[:SHOWN])}"
    if len(changes) > SHOWN:
        text += f"\nand {len(changes) - SHOWN} more, see `rmab-opt serve` or --json"
    answer(as_json, week.document() | {"changes": changes}, text)
