"""``rmab-opt new``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmab_opt.cli.common import THIS_WEEK, Json, answer
from rmab_opt.registry import register


@register("verb", "new", group=THIS_WEEK)
def new(
    name: Annotated[str, typer.Argument(help="The shipped model to begin from.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    as_json: Json = False,
) -> None:
    """Write a model file and its tables into a new folder, to change."""
    from rmab_opt.catalog import copy_model

    written = copy_model(name, folder)
    text = "\n".join(str(path) for path in written)
    answer(as_json, [str(path) for path in written], f"{text}\nnext: rmab-opt check {written[0]}")
