"""Dynamics on contact graphs by the names of model files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rmab_opt.problem import Arms
from rmab_opt.registry import register
from rmab_opt.settings.networked.cascade import Cascade
from rmab_opt.settings.networked.contacts import Doubles, read_contacts


@register("dynamics", "cascade")
def cascade(
    arms: Arms,
    folder: Path,
    others: str,
    *,
    contacts: str,
    ends: tuple[str, str] = ("u", "v"),
    probability: float | str = 0.05,
    weight: str | None = None,
    directed: bool = False,
    doubles: Doubles = "refuse",
    active: tuple[str, str, str, str] = ("p00", "p01", "p10", "p11"),
    value: float | str = 1.0,
) -> Cascade:
    """Arms that are active or not, and whose activity spreads along contacts.

    Parameters
    ----------
    contacts
        Table with one row a contact, or an edge list without a header.
    ends
        Its columns with the ids of the two arms.
    probability
        That a contact passes activity on in a round: a number, or a column of the contacts' table.
    weight
        Column of the contacts' table: a weight w passes activity on with probability 1 - (1 - probability)^w.
    directed
        Whether activity only goes from the first end to the second.
    doubles
        What holds where rows of one contact, in either direction, differ: largest, mean, or any of them.
    active
        Columns of the arms' table: probability to be active after the own move when inactive and left alone, inactive
        and acted on, active and left alone, active and acted on.
    value
        Reward a round of an active arm: a number, or a column of the arms' table.
    """
    graph = read_contacts(
        arms,
        folder / contacts,
        ends=ends,
        probability=probability,
        weight=weight,
        directed=directed,
        doubles=doubles,
        others=others,
    )
    chance = np.stack([arms.numbers(column, minimum=0, maximum=1) for column in active], axis=1)
    worth = arms.numbers(value, minimum=0) if isinstance(value, str) else value
    return Cascade(graph, chance.reshape(-1, 2, 2), worth, names=arms.ids)
