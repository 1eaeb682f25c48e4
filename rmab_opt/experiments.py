"""Measurements that are kept: independent tasks, a file each, and one table of figures beside the published ones.

An experiment is registered by the setting it belongs to, as kind ``experiment``: its maker returns an
:class:`Experiment`. :func:`measure` runs the tasks that its folder does not hold yet, on as many workers as asked, and
writes the table when all are there. A run that is stopped at any moment goes on from the finished tasks.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

from rmab_opt import registry
from rmab_opt.errors import ModelError
from rmab_opt.parallel import pmap
from rmab_opt.records import held, read_object, write_atomically
from rmab_opt.report import Report, table_csv, table_text

if TYPE_CHECKING:
    import numpy as np

__all__ = ["COLUMNS", "Experiment", "data_file", "figure", "measure", "outline"]

COLUMNS = ("measure", "published", "published_error", "ours", "low", "high", "n", "curve")
"""Of every table: what was measured, the published figure and its standard error,
ours with its 95 % interval, over how many, and a curve."""

DATA = "RMAB_DATA"
"""Environment variable with the folder of data sets that do not come along."""

Task = Mapping[str, Any]
Result = Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """Tasks, what one does, and the figures that come of them."""

    source: str
    """What is measured again: paper, table or figure."""
    tasks: Callable[[bool], Sequence[Task]]
    """Of the full form (True) or the quick one: plain JSON, each with its own seed."""
    run: Callable[[Task], Result]
    """One task's result, plain JSON; a function of a module, so that workers find it."""
    rows: Callable[[Sequence[tuple[Task, Result]]], list[dict[str, Any]]]
    """Figures, see :func:`figure`, of all tasks with their results."""
    needs: str = ""
    """File of the data folder without which nothing can be measured."""
    edition: int = 1
    """Raised when a task's result changes its meaning: results of older editions are measured anew."""


def data_file(name: str) -> Path | None:
    """A data set that does not come along, from the folder in ``$RMAB_DATA`` or ``shared/data``; None without it."""
    folders = [Path(os.environ[DATA])] if os.environ.get(DATA) else []
    return next((path / name for path in [*folders, Path("shared/data")] if (path / name).is_file()), None)


def figure(
    measure: str,
    values: Sequence[float] | np.ndarray | float,
    published: float | None = None,
    *,
    published_error: float | None = None,
    curve: Sequence[float] | np.ndarray = (),
) -> dict[str, Any]:
    """One row: the mean of independent values with its 95 % interval (Student's t), or a single value without one."""
    import numpy as np
    from scipy import stats

    found = np.atleast_1d(np.asarray(values, dtype=np.float64))
    row: dict[str, Any] = {"measure": measure, "published": published, "published_error": published_error}
    row["ours"] = round(float(found.mean()), 6)
    half = None
    if len(found) > 1:
        half = float(stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5)
    row["low"], row["high"] = (
        (None, None) if half is None else (round(row["ours"] - half, 6), round(row["ours"] + half, 6))
    )
    row["n"] = len(found)
    row["curve"] = " ".join(f"{value:.6g}" for value in curve)
    return row


def outline() -> list[dict[str, Any]]:
    """Every experiment by name, with what it measures again and how many tasks its two forms have."""
    rows = []
    for entry in registry.entries("experiment"):
        made: Experiment = entry.make()
        rows.append(
            {
                "name": entry.name,
                "what": entry.line,
                "source": made.source,
                "quick": len(made.tasks(False)),
                "full": len(made.tasks(True)),
            }
        )
    return rows


def measure(
    name: str,
    out: str | Path,
    *,
    full: bool = False,
    n_jobs: int | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Report:
    """Run what is missing of an experiment, and write its table.

    Parameters
    ----------
    name
        Of an experiment.
    out
        Folder; ``out/NAME/tasks`` gets a file a finished task, ``out/NAME.csv`` the table and ``out/NAME.json`` what it
        was made with: versions, seeds, CPU seconds.
    full
        The published sizes; otherwise the quick form.
    on_event
        Called after every finished task with ``{"name", "done", "of"}``.

    Raises
    ------
    ModelError
        When there is no such experiment, its data are not there, or another process measures into the folder.
    """
    made: Experiment = registry.find("experiment", name).make()
    if made.needs and data_file(made.needs) is None:
        raise ModelError(
            f"{name}: the data file {made.needs} is not there",
            f"name its folder: {DATA}=FOLDER rmab-opt reproduce {name}.",
        )
    folder, tasks = Path(out) / name, list(made.tasks(full))
    files = [folder / "tasks" / f"{_digest(made, task)}.json" for task in tasks]
    with held(folder, "measures"):
        missing = [k for k, file in enumerate(files) if not file.exists()]
        done = len(tasks) - len(missing)
        for number, record in pmap(partial(_timed, made.run), [tasks[k] for k in missing], n_jobs=n_jobs):
            write_atomically(files[missing[number]], json.dumps(record, indent=1) + "\n")
            done += 1
            if on_event is not None:
                on_event({"name": name, "done": done, "of": len(tasks)})
        records = [read_object(file, "a finished task", "remove it, and it is measured again.") for file in files]
        rows = made.rows([(record["task"], record["result"]) for record in records])
        head = {
            "experiment": name,
            "source": made.source,
            "form": "full" if full else "quick",
            "tasks": len(tasks),
            "seeds": sorted({task["seed"] for task in tasks if "seed" in task}),
            "cpu_seconds": round(sum(record["cpu_seconds"] for record in records), 1),
            "versions": records[0]["versions"] if records else _versions(),
        }
        write_atomically(Path(out) / f"{name}.csv", table_csv([{key: row.get(key) for key in COLUMNS} for row in rows]))
        write_atomically(Path(out) / f"{name}.json", json.dumps(head, indent=1) + "\n")
    keys = [key for key in COLUMNS[:-1] if key != "published_error" or any(row[key] is not None for row in rows)]
    shown = [{key: row[key] for key in keys} for row in rows]
    said = f"{name} ({head['form']}): {made.source}\n{table_text(shown)}\n{head['cpu_seconds']} CPU seconds in all"
    return Report({**head, "rows": rows}, said)


def _timed(run: Callable[[Task], Result], task: Task) -> dict[str, Any]:
    begun = process_time()
    result = dict(run(task))
    spent = round(process_time() - begun, 2)
    return {"task": dict(task), "result": result, "cpu_seconds": spent, "versions": _versions()}


def _digest(made: Experiment, task: Task) -> str:
    text = json.dumps([made.edition, made.needs, task], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _versions() -> dict[str, str]:
    """Versions that a figure depends on."""
    found = {"python": platform.python_version()}
    for package in ("rmab-opt", "numpy", "scipy", "highspy", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
