"""The decision vector's entries: what can be chosen, and which arms each choice acts on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from scipy import sparse

from rmab_opt.errors import ModelError
from rmab_opt.problem import Arms, Problem, Table
from rmab_opt.problem.table import nearest
from rmab_opt.registry import register

__all__ = ["Columns"]


class Columns:
    """Entries of the decision vector, in a fixed order.

    A column is an arm, an arm with one of its actions, or an intervention that touches several arms.

    Parameters
    ----------
    arms
        The cohort.
    table
        One row a column with its attributes; the column ``id`` names them. A function of nothing is asked when a name
        or an attribute is first wanted: a year of days has millions of columns that nobody names.
    effect
        Sparse, shape (C, N): what choosing the column adds to each arm's action; identity by default.
    exclusive
        Whether at most one column of an arm may be chosen (several actions an arm).
    """

    def __init__(
        self,
        arms: Arms,
        table: Table | Callable[[], Table] | None = None,
        effect: sparse.csr_array | None = None,
        *,
        exclusive: bool = False,
    ) -> None:
        self.arms = arms
        self._table = table
        self.effect = sparse.csr_array(sparse.eye_array(len(arms))) if effect is None else sparse.csr_array(effect)
        self.exclusive = exclusive
        size = self.effect.shape[0] if callable(table) else len(self.ids)
        if self.effect.shape != (size, len(arms)):
            raise ModelError(
                f"effect has shape {self.effect.shape}",
                f"give one row a column and one entry an arm: {size, len(arms)}.",
            )

    @cached_property
    def _cohort(self) -> Arms:
        # A column has ids, groups and numbers just as an arm has: the same checked table serves.
        table = self._table() if callable(self._table) else self._table
        return self.arms if table is None else Arms(table)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self._cohort.ids

    @classmethod
    def of_arms(cls, arms: Arms) -> Columns:
        """One column an arm: act on it or not."""
        return cls(arms)

    @classmethod
    def of_arm_actions(cls, arms: Arms, n_actions: int) -> Columns:
        """One column an arm and action 1 .. A-1; ids are ``arm:action``, attributes those of the arm.

        The added table columns ``arm`` and ``action`` let ``linear`` rows select by action.
        """
        if n_actions < 2:
            raise ModelError(f"{n_actions} actions", "give at least two, action 0 is passive.")
        pairs = [(arm, action) for arm in range(len(arms)) for action in range(1, n_actions)]
        position = np.array([arm for arm, _ in pairs])
        table = arms.table.take(position).with_columns(
            {
                "id": [f"{arms.ids[arm]}:{action}" for arm, action in pairs],
                "arm": [arms.ids[arm] for arm, _ in pairs],
                "action": [action for _, action in pairs],
            }
        )
        level = np.array([float(action) for _, action in pairs])
        effect = sparse.csr_array((level, (np.arange(len(pairs)), position)), shape=(len(pairs), len(arms)))
        return cls(arms, table, effect, exclusive=n_actions > 2)

    def __len__(self) -> int:
        return int(self.effect.shape[0])

    def __contains__(self, name: object) -> bool:
        return name in self._cohort

    @property
    def sheet(self) -> Table:
        """The columns' attributes, one row a column."""
        return self._cohort.table

    @property
    def names(self) -> list[str]:
        """Names of the attributes."""
        return self._cohort.columns

    def index(self, name: str) -> int:
        """Position of the column called ``name``; ModelError with the nearest id otherwise."""
        if name not in self._cohort:
            raise ModelError(f"no column {name!r}", nearest(name, self.ids))
        return self._cohort.index(name)

    def indices(self, names: tuple[str, ...] | list[str]) -> np.ndarray:
        """Positions of several columns, int64."""
        return np.array([self.index(name) for name in names], dtype=np.int64)

    def text(self, attribute: str) -> list[str]:
        """Cells of one attribute."""
        return self._cohort.text(attribute)

    def numbers(self, attribute: str, *, minimum: float = -np.inf, maximum: float = np.inf) -> np.ndarray:
        """One attribute as float64, shape (C,)."""
        return self._cohort.numbers(attribute, minimum=minimum, maximum=maximum)

    def by(self, attribute: str) -> dict[str, np.ndarray]:
        """Value of the attribute to the positions of its columns."""
        return self._cohort.groups(attribute)

    def arm_action(self, action: np.ndarray) -> np.ndarray:
        """Action of every arm, shape (..., N), from the 0/1 vector over columns, shape (..., C)."""
        action = np.asarray(action)
        if self._identity:
            return action.astype(np.int64)
        flat = np.asarray(action, dtype=np.float64).reshape(-1, len(self)) @ self.effect
        return np.rint(flat).astype(np.int64).reshape(*action.shape[:-1], len(self.arms))

    @property
    def _identity(self) -> bool:
        return self._table is None


@register("columns", "arms")
def _arms(problem: Problem) -> Columns:
    """One an arm: act on it or not."""
    if problem.dynamics.n_actions > 2:
        raise ModelError(f"columns: the arms have {problem.dynamics.n_actions} actions", "set `columns: arm_actions`.")
    return Columns.of_arms(problem.arms)


@register("columns", "arm_actions")
def _arm_actions(problem: Problem) -> Columns:
    """One an arm and action above 0."""
    return Columns.of_arm_actions(problem.arms, problem.dynamics.n_actions)
