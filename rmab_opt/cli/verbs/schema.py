"""``rmab-opt schema``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmab_opt.cli.common import RESEARCH, Force, Json, answer, check_outputs
from rmab_opt.registry import register


@register("verb", "schema", group=RESEARCH)
def schema(
    out: Annotated[Path | None, typer.Option(metavar="JSON", help="Write it here instead of showing it.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """JSON Schema of model files, plugins included: an editor completes and checks while one types."""
    from rmab_opt.catalog.files import MODELINE
    from rmab_opt.catalog.schema import model_schema, schema_text
    from rmab_opt.records import write_atomically

    if out is None:
        answer(as_json, model_schema(), schema_text().rstrip("\n"))
        return
    check_outputs(None, out)
    write_atomically(out, schema_text())
    answer(
        as_json, {"written": str(out)}, f"written to {out}\nfirst line of a model file beside it: {MODELINE}{out.name}"
    )
