"""Groups of arms: who belongs to which, from any column of the cohort's own table; groups may overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.problem import Arms

__all__ = ["Groups"]


@dataclass(frozen=True, eq=False)
class Groups:
    """K groups over N arms.

    Parameters
    ----------
    names
        One a group.
    member
        bool (K, N); every group has an arm and every arm a group, columns may hold several True.

    Raises
    ------
    ModelError
        When shapes disagree, a group is empty or an arm is in no group.
    """

    names: tuple[str, ...]
    member: np.ndarray

    def __post_init__(self) -> None:
        member = np.asarray(self.member, dtype=bool)
        object.__setattr__(self, "member", member)
        if member.ndim != 2 or len(self.names) != len(member) or not len(member):
            raise ModelError(f"{len(self.names)} groups, members {member.shape}", "give one row of members a group.")
        if (lonely := np.flatnonzero(~member.any(axis=1))).size:
            raise ModelError(f"group {self.names[lonely[0]]!r} holds no arm", "leave it out.")
        if (lost := np.flatnonzero(~member.any(axis=0))).size:
            raise ModelError(f"arm {lost[0]} is in no group", "give every arm a group.")

    @classmethod
    def of(cls, arms: Arms, *columns: str) -> Groups:
        """Groups by one column of the cohort's table; several columns give overlapping groups named column=value."""
        if not columns:
            raise ModelError("no column that names the groups", "give one, such as 'village'.")
        names, rows = [], []
        for column in columns:
            for value, members in arms.groups(column).items():
                names.append(value if len(columns) == 1 else f"{column}={value}")
                rows.append(np.isin(np.arange(len(arms)), members))
        return cls(tuple(names), np.array(rows))

    @classmethod
    def from_labels(cls, labels: Sequence[object] | np.ndarray) -> Groups:
        """Groups from one label an arm, in order of first appearance."""
        text = [str(label) for label in labels]
        names = tuple(dict.fromkeys(text))
        return cls(names, np.array(text)[None, :] == np.array(names)[:, None])

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Arms of each group, float (K,)."""
        return self.member.sum(axis=1).astype(float)

    @cached_property
    def label(self) -> np.ndarray:
        """Group of every arm, int64 (N,); ModelError when groups overlap."""
        if (self.member.sum(axis=0) > 1).any():
            raise ModelError("groups overlap, so budgets a group are not defined", "plan by prices or by the program.")
        return self.member.argmax(axis=0)

    @cached_property
    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Arms with the same memberships as one cell: (cell of every arm (N,), memberships of each cell (K, cells))."""
        patterns, cell = np.unique(self.member.T, axis=0, return_inverse=True)
        return cell.reshape(-1), patterns.T

    def means(self, totals: np.ndarray) -> np.ndarray:
        """Mean over each group's arms of an array (..., N); shape (..., K)."""
        return np.asarray(totals) @ (self.member / self.sizes[:, None]).T
