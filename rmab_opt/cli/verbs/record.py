"""``rmab-opt record``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rmab_opt.cli.common import PROGRAMME, Json, ModelName, Sets, answer, load_model
from rmab_opt.errors import ModelError
from rmab_opt.registry import register


@register("verb", "record", group=PROGRAMME)
def record(
    model: ModelName,
    decision: Annotated[Path, typer.Option("--decision", metavar="JSON", help="The saved decision of the round.")],
    outcomes: Annotated[
        Path, typer.Option("--outcomes", metavar="CSV", help="Columns id, done (yes or no), state; gaps are allowed.")
    ],
    ledger: Annotated[Path, typer.Option("--ledger", metavar="DIR", help="Where rounds are kept.")],
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Keep what was done and observed in a round; `decide --ledger` starts from there."""
    from rmab_opt.problem import Table
    from rmab_opt.programme.ledger import Ledger

    try:
        made = json.loads(decision.read_text(encoding="utf-8"))
        missing = {"ids", "state", "action", "period"} - set(made)
    except (OSError, ValueError, TypeError):
        missing = {"ids"}
    if missing:
        raise ModelError(f"{decision}: is no saved decision", "write one with `rmab-opt decide --out FILE.json`.")
    kept = Ledger(ledger, load_model(model, sets))
    path = kept.record(made, Table.read(outcomes, needed=("id",)))
    standing = kept.standing()
    assert standing is not None
    done, decided = set(kept.rounds[-1]["done"]), set(kept.rounds[-1]["decided"])
    document = {
        "file": str(path),
        "done": sorted(done),
        "not_done": sorted(decided - done),
        "observed": len(kept.rounds[-1]["observed"]),
        "estimated": standing.estimated,
    }
    answer(
        as_json,
        document,
        f"recorded in {path}: {len(done)} done, {len(decided - done)} planned but not done, "
        f"{document['observed']} states observed\nnext: {standing}",
    )
