"""``rmab-opt new``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmab_opt.cli.common import THIS_WEEK, Json, answer
from rmab_opt.registry import register


@register("verb", "new", group=THIS_WEEK)
def new(
    name: Annotated[str, typer.Argument(help="The shipped model to begin from, or the sheets weekly_calls_sheets.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    as_json: Json = False,
) -> None:
    """Write a model file and its tables into a new folder, to change."""
    from rmab_opt.catalog import copy_model

    written = copy_model(name, folder)
    text = "\n".join(str(path) for path in written)
    names = {path.stem: path for path in written}
    follows = f"check {written[0]}"
    if "register" in names:
        follows = f"start {names['register']} --log {names['call_log']} --roster {names['roster']} --out calls"
    answer(as_json, [str(path) for path in written], f"{text}\nnext: rmab-opt {follows}")
