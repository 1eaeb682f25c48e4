"""``rmab-opt trial``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmab_opt.cli.common import PROGRAMME, Json, answer, demand_finite
from rmab_opt.errors import ModelError
from rmab_opt.registry import register


@register("verb", "trial", group=PROGRAMME)
def trial(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="A programme's folder: villages and their spread by its log.")
    ] = None,
    difference: Annotated[float | None, typer.Option(help="Of the mean shares engaged that should be seen.")] = None,
    sd: Annotated[float | None, typer.Option(help="Standard deviation of the villages' means.")] = None,
    families: Annotated[float | None, typer.Option(help="Families a village.")] = None,
    rho: Annotated[float, typer.Option(help="Correlation of two families of one village.")] = 0.0,
    baseline: Annotated[float | None, typer.Option(help="Correlation with the weeks before; 0: no baseline.")] = None,
    villages: Annotated[int | None, typer.Option(help="Villages at hand, both sides together.")] = None,
    power: Annotated[float, typer.Option(help="Chance to show the difference.")] = 0.80,
    level: Annotated[float, typer.Option(help="Chance to see one where there is none.")] = 0.05,
    weeks: Annotated[int, typer.Option(min=1, help="Of the trial; and before it, for the baseline.")] = 12,
    by: Annotated[str, typer.Option(metavar="COLUMN", help="Of the cohort: what is drawn by lot.")] = "Village",
    results: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What was seen: village, side, outcome, optional baseline.")
    ] = None,
    as_json: Json = False,
) -> None:
    """How many villages a trial of two lists needs, what those at hand can show, and what it showed."""
    from rmab_opt.programme.trial import Trial, Villages, analyse

    demand_finite(difference=difference, sd=sd, families=families, rho=rho, baseline=baseline, power=power, level=level)

    if results is not None:
        from rmab_opt.problem import Table

        shown = analyse(Table.read(results, needed=("side", "outcome")))
        answer(as_json, shown.document(), str(shown))
        return
    if folder is not None:
        from dataclasses import replace

        from rmab_opt.programme.folder import spread_of_villages

        own = spread_of_villages(folder, by, weeks)
        own = replace(own, baseline=own.baseline if baseline is None else baseline, count=villages or own.count)
    elif sd is None or families is None:
        raise ModelError("neither a programme's folder nor --sd and --families", "say how much villages differ.")
    else:
        own = Villages.from_mean(sd, families, rho, baseline=baseline or 0.0, count=villages)
    if difference is None:
        raise ModelError("--difference is not given", "say which difference of the mean shares should be seen.")
    found = Trial(own, difference, power, level)
    answer(as_json, found.document(), str(found))
