"""``rmab-opt estimate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmab_opt.cli.common import PROGRAMME, Force, Json, answer, check_outputs
from rmab_opt.registry import register

WRITTEN = ("transitions.csv", "estimate.json", "estimate.html")
"""Files of the folder --out."""


@register("verb", "estimate", group=PROGRAMME)
def estimate(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="The call log: id, week, called, listened.")],
    sheet: Annotated[Path, typer.Option("--register", help="The register: who belongs to which group.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="For transitions.csv, estimate.json and .html.")],
    columns: Annotated[Path | None, typer.Option("--columns", help="A columns.yaml: which column means what.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Each member's chances from a log, with what it cannot tell."""
    from rmab_opt.programme.folder import estimate_sheets
    from rmab_opt.programme.pages import estimate_page
    from rmab_opt.records import json_text, write_atomically

    check_outputs(None, *(out / name for name in WRITTEN), also=[log, sheet, columns])
    made, said = estimate_sheets(log, sheet, columns)
    write_atomically(out / "transitions.csv", made.transitions_csv())
    write_atomically(out / "estimate.json", json_text(made.document()) + "\n")
    write_atomically(out / "estimate.html", estimate_page(made))
    text = "\n".join([*said, str(made), f"written to {out}: {', '.join(WRITTEN)}"])
    answer(as_json, made.document(), text)
