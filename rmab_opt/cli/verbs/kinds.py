"""``rmab-opt kinds``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rmab_opt import registry
from rmab_opt.cli.common import RESEARCH, Json, answer
from rmab_opt.errors import ModelError
from rmab_opt.registry import register


@register("verb", "kinds", group=RESEARCH)
def kinds(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help="For example constraint, objective.")] = None,
    as_json: Json = False,
) -> None:
    """List what is registered: kinds of constraints, dynamics, objectives, ... with their arguments."""
    if kind is None:
        counts = [{"kind": name, "what": part.what, "count": len(registry.names(name))} for name, part in _parts()]
        text = "\n".join(f"{row['kind']:<12}{row['count']:>4}  {row['what']}" for row in counts)
        answer(as_json, counts, f"{text}\nnext: rmab-opt kinds KIND")
        return
    if kind not in registry.PARTS:
        from rmab_opt.problem.table import nearest

        raise ModelError(f"kinds: nothing is registered as {kind!r}", nearest(kind, list(registry.PARTS)))
    listing(kind, as_json)


def _parts() -> list[tuple[str, registry.Part]]:
    return list(registry.PARTS.items())


def listing(kind: str, as_json: bool) -> None:
    """Answer with one line a registered thing: name, arguments, what it is, whose it is."""
    rows: list[dict[str, Any]] = [
        {"name": e.name, "arguments": e.described(), "setting": e.setting, "line": e.line}
        for e in registry.entries(kind)
    ]
    lines = []
    for row in rows:
        said = ", ".join(f"{name}{'' if value is None else f' = {value}'}" for name, value in row["arguments"].items())
        whose = f"  [{row['setting']}]" if row["setting"] else ""
        lines.append(f"{row['name']}{whose}")
        lines += [f"    {row['line']}"] if row["line"] else []
        lines += [f"    {said}"] if said else []
    answer(as_json, rows, "\n".join(lines) if lines else "(none)")
