"""``rmab-opt start``."""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from rmab_opt.cli.common import PROGRAMME, Force, Json, Seconds, answer, say
from rmab_opt.errors import ModelError
from rmab_opt.registry import register

if TYPE_CHECKING:
    from rmab_opt.programme.folder import Week

LISTED = 0.8
"""Share of --seconds for the list; the rest is for its files."""

Pseudonyms = Annotated[
    bool, typer.Option("--pseudonyms", help="Beside it a folder that can travel: no id, name or telephone in it.")
]


@register("verb", "start", group=PROGRAMME)
def start(
    sheet: Annotated[Path, typer.Argument(metavar="REGISTER", help="The register: .csv, .xlsx or .ods.")],
    log: Annotated[Path, typer.Option("--log", help="The call log: id, week, called, listened.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the programme, to be made.")],
    roster: Annotated[
        Path | None, typer.Option("--roster", help="Who works in which slot, for how many calls.")
    ] = None,
    columns: Annotated[Path | None, typer.Option("--columns", help="A columns.yaml, whole or in part.")] = None,
    calls: Annotated[int | None, typer.Option(min=0, help="At most so many calls a week, beside the roster.")] = None,
    season: Annotated[int | None, typer.Option(min=0, help="At most so many calls from this week on, in all.")] = None,
    weeks: Annotated[int | None, typer.Option(min=1, max=1000, help="Weeks to look ahead; 12 by default.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Take the columns as they are inferred.")] = False,
    pseudonyms: Pseudonyms = False,
    seconds: Seconds = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """From a programme's spreadsheets to this week's list."""
    began = perf_counter()
    from rmab_opt.programme.columns import plan_section
    from rmab_opt.programme.folder import inferred_columns
    from rmab_opt.programme.folder import start as begin
    from rmab_opt.records import keep_safe

    keep_safe([sheet, log, roster, columns])
    if not force and out.is_dir() and _strangers(out):
        lying = ", ".join(sorted(_strangers(out))[:3])
        raise ModelError(f"{out}: is not empty ({lying})", "name a new folder, or say --force.")
    if roster is None and calls is None and columns is None:
        raise ModelError("neither a roster nor a number of calls", "give --roster FILE or --calls NUMBER.")
    plan = plan_section(columns, weeks=weeks, calls=calls, season=season)
    said = [] if yes else inferred_columns(sheet, log, roster, columns)
    if said:
        if not sys.stdin.isatty():
            listed = "\n  ".join(said)
            raise ModelError(f"columns are inferred:\n  {listed}", "repeat with --yes, or tell them in --columns FILE.")
        say("\n".join(said))
        if not typer.confirm("Is this right?", default=True):
            raise ModelError("the columns are not as inferred", "tell them in --columns FILE; see docs/programme.md.")
        began = perf_counter()  # A person's thinking is not the verb's time.
    due = due_after(began, seconds)
    week = begin(sheet, out, log=log, roster=roster, columns=columns, plan=plan, due=due)
    answer(as_json, week.document(), f"{week}\n{write_files(week, out, pseudonyms)}")


def due_after(began: float, seconds: float | None) -> float | None:
    """Time of ``perf_counter`` by which the list of --seconds is made; the rest is for its files."""
    return None if seconds is None else began + LISTED * seconds


def _strangers(out: Path) -> list[str]:
    """What lies in the folder of a programme to be, and was not left by a start that was stopped."""
    ours = {"ledger", "cohort", "travel", "weeks"}
    names = [path.name for path in out.iterdir() if not path.name.startswith(".")]
    whole = (out / "model.yaml").exists() or (out / ".next").exists()
    return [] if whole else [name for name in names if name not in ours]


def write_files(week: Week, folder: Path, pseudonyms: bool) -> str:
    """What stands beside the list, and where."""
    said = f"to read and print: {write_page(week)}"
    if pseudonyms:
        from rmab_opt.programme.privacy import travelling

        said += f"\nto travel, under pseudonyms: {travelling(folder, week.number)}"
    return said


def write_page(week: Week) -> Path:
    """The week on one page, beside its list."""
    from rmab_opt.page.report import decision_page
    from rmab_opt.records import write_atomically

    path = week.list_path.with_suffix(".html")
    assert week.model is not None
    write_atomically(path, decision_page(week.model, week.decision, week.parts(), week.shown))
    return path
