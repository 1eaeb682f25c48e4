"""``rmab-opt erase``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmab_opt.cli.common import PROGRAMME, Json, answer
from rmab_opt.registry import register


@register("verb", "erase", group=PROGRAMME)
def erase(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The programme's folder.")],
    name: Annotated[str, typer.Argument(metavar="ID", help="Of the person.")],
    as_json: Json = False,
) -> None:
    """Erase one person from all that a programme keeps; its records stay whole."""
    from rmab_opt.programme.folder import erase as forget

    token = forget(folder, name)
    said = f"erased: {token} stands in the records; the chains are sealed anew, see {folder / 'erasures'}"
    answer(as_json, {"token": token}, f"{said}\nsheets outside this folder and copies of it are not reached")
