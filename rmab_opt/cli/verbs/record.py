"""``rmab-opt record``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmab_opt.cli.common import PROGRAMME, Json, ModelName, Sets, answer, load_model
from rmab_opt.errors import ModelError
from rmab_opt.registry import register

FIX = "write one with `rmab-opt decide --out FILE.json`."


@register("verb", "record", group=PROGRAMME)
def record(
    model: ModelName,
    decision: Annotated[Path, typer.Option("--decision", metavar="JSON", help="The saved decision of the round.")],
    outcomes: Annotated[
        Path, typer.Option("--outcomes", metavar="CSV", help="Columns id, done (yes or no), state; gaps are allowed.")
    ],
    ledger: Annotated[Path, typer.Option("--ledger", metavar="DIR", help="Where rounds are kept.")],
    sets: Sets = None,
    new: Annotated[bool, typer.Option("--new", help="Begin a ledger where there is none.")] = False,
    as_json: Json = False,
) -> None:
    """Keep what was done and observed in a round; `decide --ledger` starts from there."""
    from rmab_opt.problem import Table
    from rmab_opt.programme.ledger import Ledger
    from rmab_opt.records import read_object

    made = read_object(decision, "saved decision", FIX)
    if not {"ids", "state", "action", "period"} <= made.keys():
        raise ModelError(f"{decision}: is no saved decision", FIX)
    # The first round has no ledger yet; a later one without its ledger is more likely a name that was mistyped.
    if not new and made["period"] != 0 and not ledger.exists():
        raise ModelError(f"{ledger}: there is no ledger", "check the name, or begin one there with --new.")
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
