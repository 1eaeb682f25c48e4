"""Dynamics of inspected arms by the names of model files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rmab_opt.problem import Arms
from rmab_opt.registry import register
from rmab_opt.settings.inspection.beliefs import EncodedArms
from rmab_opt.settings.inspection.instances import inspection_arms


@register("dynamics", "inspection")
def inspection(
    arms: Arms,
    folder: Path,
    others: str,
    *,
    n_slots: Annotated[int, Field(ge=1)],
    stay_good: str = "stay_good",
    recover: str = "recover",
    window: str | None = "window",
    visits: Annotated[int, Field(ge=1)] = 1,
    given_for: Annotated[int, Field(ge=1)] | None = None,
    rule: Literal["limit", "step"] = "limit",
    tolerance: Annotated[float, Field(gt=0)] = 0.01,
) -> EncodedArms:
    """Arms known only when inspected, with windows: belief chains from two columns of the arms' table.

    Parameters
    ----------
    n_slots
        Slots of a period.
    stay_good, recover
        Columns: probability that a good, a bad arm is good one slot later.
    window
        Column with the open slots, ``2-4`` or ``0-1;6-7``; null for the whole period.
    visits
        Inspections with an effect in each window.
    given_for
        Slots a year the probabilities are meant for, when not ``n_slots``.
    """
    return inspection_arms(
        arms, n_slots=n_slots, stay_good=stay_good, recover=recover, window=window, visits=visits, given_for=given_for,
        rule=rule, tolerance=tolerance,
    )  # fmt: skip
