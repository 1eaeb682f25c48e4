"""``rmab-opt reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rmab_opt.cli.common import RESEARCH, Due, Force, Jobs, Json, Seconds, answer, check_outputs
from rmab_opt.progress import Tell, watch
from rmab_opt.registry import register


@register("verb", "reproduce", group=RESEARCH)
def reproduce(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Experiments; all of them without a name.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for tables and finished tasks.")] = Path(
        "reproduction"
    ),
    full: Annotated[bool, typer.Option("--full/--quick", help="The published sizes, or a few minutes in all.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Name the experiments and stop.")] = False,
    n_jobs: Jobs = None,
    seconds: Seconds = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Measure published figures again, side by side with ours; a run that was stopped goes on.

    Tables stand in DIR/NAME.csv, finished tasks in DIR/NAME. What came of the recorded runs, and why some claims do not
    hold, is in the guide's page on reproduction.
    """
    due = Due(seconds, "finished tasks are kept")
    from rmab_opt import registry
    from rmab_opt.experiments import data_file, measure, outline
    from rmab_opt.report import table_text

    if listed:
        rows = outline()
        answer(as_json, rows, table_text(rows))
        return
    chosen = list(names or registry.names("experiment"))
    for name in chosen:
        registry.find("experiment", name)
    check_outputs(None, *(out / f"{name}.csv" for name in chosen))
    documents, texts = [], []
    for name in chosen:
        lacking = registry.find("experiment", name).make().needs
        if not names and lacking and data_file(lacking) is None:
            texts.append(f"{name}: left out, the data file {lacking} is not there")
            continue
        with watch(name, quiet=as_json) as tell:

            def event(found: dict[str, Any], tell: Tell = tell) -> None:
                tell(done=found["done"], total=found["of"])
                due(f"{found['done']} of {found['of']} tasks of {found['name']} done", found["done"] < found["of"])

            with due.work():
                made = measure(name, out, full=full, n_jobs=n_jobs, on_event=event)
        documents.append(made.document)
        texts.append(made.text)
    answer(as_json, documents, "\n\n".join([*texts, f"written to {out}"]))
