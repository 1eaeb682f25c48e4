"""``rmab-opt audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmab_opt.cli.common import PROGRAMME, Force, Json, answer, check_outputs, demand_finite
from rmab_opt.registry import register


@register("verb", "audit", group=PROGRAMME)
def audit(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The programme's folder.")],
    log: Annotated[
        Path | None, typer.Option("--log", help="A log whose calls were drawn by lottery, with each call's chance.")
    ] = None,
    chance: Annotated[
        str, typer.Option("--chance", metavar="COLUMN", help="Of --log: the chance of a call.")
    ] = "chance",
    calls: Annotated[float | None, typer.Option("--calls", help="Calls a week of the other list; as made.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="HTML", help="The page; DIR/audit.html.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """After the weeks: planned, done, seen; groups; drift; what another list would have earned."""
    from rmab_opt.programme.audit import audit as look_back
    from rmab_opt.records import write_atomically

    demand_finite(calls=calls)
    page = folder / "audit.html" if out is None else out
    # The programme's own files are read one after another: none of them is a place for the page.
    check_outputs(None, page, also=[log, *(path for path in folder.rglob("*") if path != folder / "audit.html")])
    found = look_back(folder, log, chance, calls)
    write_atomically(page, found.page())
    answer(as_json, found.document(), f"{found}\n\na page for a ministry: {page}")
