"""``rmab-opt next``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmab_opt.cli.common import PROGRAMME, Json, answer
from rmab_opt.cli.verbs.start import Pseudonyms, write_files
from rmab_opt.registry import register


@register("verb", "next", group=PROGRAMME)
def next_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The programme's folder, from `rmab-opt start`.")],
    outcomes: Annotated[Path, typer.Option("--outcomes", help="The list, ticked; or any sheet with id, done, state.")],
    sheet: Annotated[
        Path | None,
        typer.Option("--register", help="The new register, or a sheet of who joined, left, paused, changed."),
    ] = None,
    pseudonyms: Pseudonyms = False,
    as_json: Json = False,
) -> None:
    """Record the week and make the next list."""
    from rmab_opt.programme.folder import next_week

    week = next_week(folder, outcomes, sheet)
    answer(as_json, week.document(), f"{week}\n{write_files(week, folder, pseudonyms)}")
