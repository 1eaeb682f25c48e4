"""Kinds of dynamics by the names of model files: ``make(arms, folder, others, *, arguments)``.

``others`` says what to do with rows about arms that are not in the cohort: ``refuse`` or ``ignore``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from rmab_opt.errors import Findings, ModelError
from rmab_opt.problem.arms import Arms
from rmab_opt.problem.dynamics import Ladder, Tabular
from rmab_opt.problem.season import season
from rmab_opt.problem.table import Table, nearest
from rmab_opt.registry import register

__all__ = ["ladder", "season", "tabular"]

Finite = Annotated[float, Field(allow_inf_nan=False)]


@register("dynamics", "tabular")
def tabular(
    arms: Arms,
    folder: Path,
    others: str,
    *,
    file: str,
    by: str = "id",
    reward: dict[str, Finite] | None = None,
    paid_on: Literal["departure", "arrival"] = "departure",
) -> Tabular:
    """Arms by transition table.

    Parameters
    ----------
    file
        CSV with columns: the one named by ``by``, ``state``, ``action``, one a state with its probability, and
        ``reward`` unless ``reward`` is given here.
    by
        Column that this table shares with the arms' table: ``id`` for a block of rows an arm, or e.g. ``type``.
    reward
        Reward of each state, by name; in place of the table's column.
    paid_on
        See :class:`rmab_opt.problem.Tabular`.
    """
    table = Table.read(folder / file, needed=(by, "state", "action"))
    findings = Findings(table.source)
    owners, states = table.text(by), table.text("state")
    names = list(dict.fromkeys(states))
    missing = [name for name in names if name not in table]
    if missing:
        raise ModelError(
            f"{table.source}: no column for state {missing[0]!r}", "give one column a state, named as in column state."
        )
    numbers = {"action": 0.0} if reward is not None else {"action": 0.0, "reward": -np.inf}
    read = {
        name: findings.attempt(table.numbers, name, minimum=low, maximum=np.inf) for name, low in numbers.items()
    } | {name: findings.attempt(table.numbers, name, minimum=0, maximum=1) for name in names}
    findings.raise_if_any()
    table.only((by, "state", "action", "reward", *names))
    actions, probabilities = read["action"], np.stack([read[name] for name in names], axis=1)
    if actions.max(initial=0.0) >= len(table):
        row = int(actions.argmax())
        raise ModelError(
            f"{table.source}:{table.place(row)}: action is {actions[row]:g}, the table has {len(table)} rows",
            "number actions from 0 and give each its rows.",
        )
    groups = {value: number for number, value in enumerate(dict.fromkeys(owners))}
    n_actions = int(actions.max()) + 1
    if n_actions < 2:
        raise ModelError(f"{table.source}: only action 0 has rows", "give rows for action 1.")
    transition = np.full((len(groups), n_actions, len(names), len(names)), np.nan)
    paid_by = np.zeros((len(groups), len(names), n_actions))
    paid = read["reward"] if reward is None else np.zeros(len(table))
    for row, (owner, state, action) in enumerate(zip(owners, states, actions, strict=True)):
        if action != int(action):
            findings.add(table.place(row), f"action is {action:g}", "give a whole number")
            continue
        cell = (groups[owner], int(action), names.index(state))
        if not np.isnan(transition[cell]).all():
            findings.add(
                table.place(row),
                f"{by} {owner!r}, state {state!r}, action {int(action)} stands twice",
                "keep one row",
            )
        if abs(probabilities[row].sum() - 1.0) > 1e-6:
            findings.add(
                table.place(row), f"probabilities sum to {probabilities[row].sum():.9g}", "make the row sum to one"
            )
        # Twelve printed digits do not sum to one in the last place; the row is scaled to do so.
        transition[cell] = probabilities[row] / max(probabilities[row].sum(), 1e-300)
        paid_by[groups[owner], names.index(state), int(action)] = paid[row]
    for group, action, state in np.argwhere(np.isnan(transition).any(axis=3))[:5]:
        findings.add("", f"no row for {by} {list(groups)[group]!r}, state {names[state]!r}, action {action}", "add it")
    wanted = arms.ids if by == "id" else arms.text(by)
    for row, value in enumerate(wanted):
        if value not in groups:
            findings.add("", f"no rows for {by} {value!r} of arm {arms.ids[row]!r}", nearest(value, list(groups)))
            break
    if reward is not None:
        if unknown := [name for name in reward if name not in names]:
            findings.add("", f"reward names state {unknown[0]!r}", nearest(unknown[0], names))
        if lacking := [name for name in names if name not in reward]:
            findings.add("", f"reward lacks state {lacking[0]!r}", "give every state's reward")
    findings.raise_if_any()
    member = np.array([groups[value] for value in wanted])
    if reward is not None:
        by_state = np.array([reward[name] for name in names])
        return Tabular(transition[member], np.tile(by_state, (len(arms), 1)), paid_on=paid_on, state_names=tuple(names))
    if paid_on == "arrival":
        raise ModelError(
            "paid_on: arrival needs a reward a state", "give `reward: {state: number, ...}` in the model file."
        )
    return Tabular(transition[member], paid_by[member], state_names=tuple(names))


@register("dynamics", "ladder")
def ladder(
    arms: Arms,
    folder: Path,
    others: str,
    *,
    up: tuple[str, str],
    reward: Annotated[tuple[str | float, ...], Field(min_length=2)],
) -> Ladder:
    """Arms that climb and slip one rung at a time.

    Parameters
    ----------
    up
        Columns of the arms' table: probability to climb when passive, when acted on.
    reward
        Reward of arriving on each rung: numbers, or columns of the arms' table.
    """
    chance = np.stack([arms.numbers(column, minimum=0, maximum=1) for column in up], axis=1)
    paid = np.stack(
        [arms.numbers(cell) if isinstance(cell, str) else np.full(len(arms), cell) for cell in reward], axis=1
    )
    return Ladder(chance, paid)
