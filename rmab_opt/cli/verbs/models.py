"""``rmab-opt models``."""

from __future__ import annotations

from typing import Any

from rmab_opt.cli.common import THIS_WEEK, Json, answer
from rmab_opt.errors import ModelError
from rmab_opt.registry import register


@register("verb", "models", group=THIS_WEEK)
def models(as_json: Json = False) -> None:
    """List the models that come along, and those of plugins."""
    from rmab_opt.catalog import load, model_names
    from rmab_opt.report import table_text

    rows: list[dict[str, Any]] = []
    for name in model_names():
        row: dict[str, Any] = {"name": name, "title": "", "arms": None, "columns": None, "horizon": None, "source": ""}
        try:
            model = load(name)
        except ModelError as error:
            fault = f"needs the setting {', '.join(error.needs)}" if error.needs else "has faults: check it"
            rows.append({**row, "title": fault, "needs": list(error.needs)})
            continue
        rows.append(
            {
                "name": name,
                "title": model.title,
                "arms": model.problem.n_arms,
                "columns": len(model.actions),
                "horizon": model.problem.horizon,
                "source": model.source,
            }
        )
    shown = [{key: value for key, value in row.items() if key != "needs"} for row in rows]
    answer(as_json, rows, table_text(shown))
