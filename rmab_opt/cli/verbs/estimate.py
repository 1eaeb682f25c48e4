"""``rmab-opt estimate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rmab_opt.cli.common import PROGRAMME, Json, answer
from rmab_opt.registry import register


@register("verb", "estimate", group=PROGRAMME)
def estimate(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="The call log: id, week, called, listened.")],
    sheet: Annotated[Path, typer.Option("--register", help="The register: who belongs to which group.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="For transitions.csv, estimate.json and .html.")],
    columns: Annotated[Path | None, typer.Option("--columns", help="A columns.yaml: which column means what.")] = None,
    as_json: Json = False,
) -> None:
    """Each member's chances from a log, with what it cannot tell."""
    from rmab_opt.programme.folder import estimate_sheets
    from rmab_opt.programme.pages import estimate_page
    from rmab_opt.records import write_atomically

    made, said = estimate_sheets(log, sheet, columns)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "transitions.csv", made.transitions_csv())
    write_atomically(out / "estimate.json", json.dumps(made.document(), indent=1, ensure_ascii=False) + "\n")
    write_atomically(out / "estimate.html", estimate_page(made))
    text = "\n".join([*said, str(made), f"written to {out}: transitions.csv, estimate.json, estimate.html"])
    answer(as_json, made.document(), text)
