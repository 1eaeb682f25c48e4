"""What the verbs say about groups."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rmab_opt.records import write_atomically
from rmab_opt.registry import register
from rmab_opt.report import Report, table_text

if TYPE_CHECKING:
    from rmab_opt.decisions import Decision, Model


@register("report", "decision_groups")
def decision_groups(model: Model, decision: Decision, column: str, *, seconds: float | None = None) -> Report:
    """What each group gets from a decision; with ``seconds``, plans are shown as far as they are by then."""
    from rmab_opt.settings.equity.outcomes import fairness_of

    fairness = fairness_of(model, decision, column, seconds=seconds)
    parts = [(f"By {column}", fairness.shown), ("", fairness.sentence)]
    return Report(fairness.summary(), str(fairness), parts)


@register("report", "bound_groups")
def bound_groups(
    model: Model, column: str, *, state: Path | None, welfare: str, targets: list[float], seconds: float | None = None
) -> Report:
    """What groups can get together at most; with targets, the smallest budgets that reach them.

    With ``seconds``, what is proven by then is the answer.
    """
    from rmab_opt.settings.equity import fair_plan
    from rmab_opt.settings.equity.fairness import capacity_table
    from rmab_opt.settings.equity.policies import model_groups

    named = model_groups(model, column)
    if targets:
        rows = capacity_table(model, targets, group=named)
        return Report(rows, table_text(rows))
    try:
        wanted: str | float = float(welfare)
    except ValueError:
        wanted = welfare
    plan = fair_plan(
        model.problem, model.actions, named, welfare=wanted, state=model.state(state), tolerance=1e-5, seconds=seconds
    )
    return Report(plan.summary(), str(plan))


@register("report", "policy_groups")
def policy_groups(
    model: Model,
    names: list[str],
    column: str,
    *,
    episodes: int,
    seed: int,
    bound: bool,
    out: Path | None,
    seconds: float | None = None,
) -> Report:
    """Policies by what groups get from them; with ``out``, the table and its picture are written there.

    With ``seconds``, policies that were not played to their end by then have no row, and the header names them.
    """
    from rmab_opt.settings.equity.fairness import compare_groups, group_plot

    grouped = compare_groups(model, names, group=column, episodes=episodes, seed=seed, bound=bound, seconds=seconds)
    text = str(grouped)
    if out is not None:
        write_atomically(out / "groups.csv", grouped.to_csv())
        write_atomically(out / "groups.tex", grouped.to_latex())
        group_plot(grouped, out / "groups.png")
        text += f"\nwritten to {out}"
    return Report({"header": grouped.header, "rows": grouped.rows}, text)
