"""Groups of arms: who belongs to which, from any column of the cohort's own table; groups may overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.problem import Arms

__all__ = ["Groups"]

SMALL = 5
"""Arms from which a group's mean says something of the group and not of single arms."""

MOST_NAMED = 10
"""Groups that a sentence names."""


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
        """Groups by columns of the cohort's table.

        Parameters
        ----------
        columns
            One column (``village``); several, whose groups overlap and are named column=value (``village,language``,
            or an argument each); or an intersection (``village*sex``, groups named value*value).

        Raises
        ------
        ModelError
            When a column is unknown, or an arm has no entry in it: a group without a name would hide who is in it.
        """
        terms = [term for given in columns for term in _terms(arms, given)]
        if not terms:
            raise ModelError("no column that names the groups", "give one, such as 'village'.")
        names: list[str] = []
        rows: list[np.ndarray] = []
        for term in terms:
            labels = _labels(arms, term)
            found = dict.fromkeys(labels)
            names += [value if len(terms) == 1 else f"{'*'.join(term)}={value}" for value in found]
            place = {value: k for k, value in enumerate(found)}
            which = np.fromiter((place[value] for value in labels), dtype=np.int64, count=len(labels))
            rows.append(which == np.arange(len(found))[:, None])
        return cls(tuple(names), np.concatenate(rows))

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

    @property
    def overlap(self) -> bool:
        """Whether an arm is in several groups."""
        return bool((self.member.sum(axis=0) > 1).any())

    @property
    def small(self) -> str:
        """Groups of fewer than :data:`SMALL` arms with their sizes, in words; empty where there are none."""
        few = [f"{name} ({int(size)})" for name, size in zip(self.names, self.sizes, strict=True) if size < SMALL]
        if not few:
            return ""
        more = f" and {len(few) - MOST_NAMED} more" if len(few) > MOST_NAMED else ""
        return f"small groups, whose outcome hangs on a few: {', '.join(few[:MOST_NAMED])}{more}"

    @cached_property
    def label(self) -> np.ndarray:
        """Group of every arm, int64 (N,); ModelError when groups overlap."""
        if self.overlap:
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


def _terms(arms: Arms, given: str) -> list[tuple[str, ...]]:
    """Columns of every term of ``village,sex*age``; a column of exactly that name comes first."""
    if given in arms.columns:
        return [(given,)]
    terms = [tuple(part.strip() for part in term.split("*")) for term in given.split(",")]
    for column in (column for term in terms for column in term):
        if column not in arms.columns:
            known = ", ".join(name for name in arms.columns if name != "id") or "(none)"
            raise ModelError(
                f"the cohort has no column {column!r} that says who belongs to which group",
                f"name one of {known}, as `--groups village`, `--groups village,language`, `--groups village*sex` or "
                "`objective: {kind: fair, group: village}`.",
            )
    return terms


def _labels(arms: Arms, term: tuple[str, ...]) -> list[str]:
    """Group of every arm."""
    texts = [[str(value).strip() for value in arms.table.text(column)] for column in term]
    for column, text in zip(term, texts, strict=True):
        if "" in text:
            raise ModelError(
                f"arm {arms.ids[text.index('')]!r} has no {column}, so its group has no name",
                f"fill column {column!r}, with a word such as 'unknown' where it is not known.",
            )
    return ["*".join(values) for values in zip(*texts, strict=True)]
