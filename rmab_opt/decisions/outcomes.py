"""What groups get from one round's decision where arms are coupled: expected rewards now, without it and by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.registry import register
from rmab_opt.report import Report, table_text

if TYPE_CHECKING:
    from rmab_opt.decisions.decision import Decision
    from rmab_opt.decisions.model import Model

__all__ = ["round_groups"]


@register("report", "round_groups")
def round_groups(model: Model, decision: Decision, column: str, *, seconds: float | None = None) -> Report:
    """Each group's arms, how many are acted on, and its expected reward of the round with and without the decision.

    What others' actions do to a group counts: a group may gain by contacts although nobody in it is chosen. It takes
    a moment, whatever ``seconds`` are left.
    """
    del seconds
    problem = model.problem
    groups = problem.arms.groups(column)
    if "" in groups:
        lacking = problem.arms.ids[int(groups[""][0])]
        raise ModelError(f"arm {lacking!r} has no {column}", "give every arm a group, 'none' for those without.")
    state, shared = decision.state, problem.shared_array(decision.shared) if decision.shared else None
    acted = np.asarray(model.actions.columns.arm_action(decision.action))
    without, planned = (
        np.asarray(problem.expected_reward(state, action, shared)) for action in (np.zeros_like(acted), acted)
    )
    rows = [
        {
            column: name,
            "arms": len(members),
            "chosen": int((acted[members] > 0).sum()),
            "without": float(without[members].sum()),
            "planned": float(planned[members].sum()),
            "gain": float((planned - without)[members].sum()),
            "gain_an_arm": float((planned - without)[members].mean()),
        }
        for name, members in groups.items()
    ]
    said = (
        f"expected reward of this round, contacts included; over the horizon: `rmab-opt evaluate --groups {column}`. "
        f"To give each {column} its share add a constraint {{kind: linear, per: {column}, at_least: 1}}."
    )
    return Report({"groups": rows, "said": said}, f"{table_text(rows)}\n{said}", [(f"By {column}", rows), ("", said)])
