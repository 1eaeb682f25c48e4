"""Rows that a kind declares are its own only while its build is theirs."""

from __future__ import annotations

from typing import Any

import pytest

from rmab_opt.actions import Columns
from rmab_opt.actions.kinds import Budget
from rmab_opt.actions.kinds.path import Path
from rmab_opt.problem import Arms

COLUMNS = Columns.of_arms(Arms.from_arrays(3))


class Renamed(Budget):
    """A budget under another name."""


class Rebuilt(Budget):
    """A budget that writes rows of its own, which nobody may take for the declared ones."""

    def build(self, block: Any, act: Any, columns: Columns) -> None:
        block.one = None


class Again(Rebuilt):
    """With declared rows again, after a build of its own."""

    def rows(self, columns: Columns) -> Any:
        return Budget.rows(self, columns)


@pytest.mark.parametrize(("kind", "said"), [(Budget, True), (Renamed, True), (Rebuilt, False), (Again, True)])
def test_declared_rows_are_said_until_a_subclass_builds_others(kind, said):
    rows = kind(at_most=2).said_rows(COLUMNS)
    assert (rows is not None) == said
    if rows is not None:
        assert rows.matrix.toarray().tolist() == [[1.0, 1.0, 1.0]]
        assert rows.upper.tolist() == [2.0]


def test_a_kind_without_declared_rows_says_none():
    assert Path.said_rows(Path.model_construct(), COLUMNS) is None
