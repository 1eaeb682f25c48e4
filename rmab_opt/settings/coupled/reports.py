"""The comparison over the coupled settings as something that `evaluate` runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rmab_opt.registry import register
from rmab_opt.report import Report


@register("report", "sequoia_table")
def sequoia_table(
    out: Path,
    *,
    full: bool = False,
    n_jobs: int | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Report:
    """The comparison over all coupled settings, or the rest of it; tables and plots are written into ``out``."""
    from rmab_opt.catalog import load
    from rmab_opt.learning.plots import policy_plot, time_plot
    from rmab_opt.settings.coupled.comparison import FULL, QUICK, compare

    found = compare(FULL if full else QUICK, out, load=load, n_jobs=n_jobs, on_event=on_event)
    for name, table in found.tables.items():
        policy_plot(table, out / f"{name}.png")
        time_plot(table.seconds, out / f"{name}.seconds.png", title=name)
    return Report({"rows": found.rows, "times": found.times}, f"{found}\nwritten to {out}")
