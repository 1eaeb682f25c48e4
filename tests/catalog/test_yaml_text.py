"""Text of model files: how much aliases may stand for."""

from __future__ import annotations

import pytest

from rmab_opt.catalog import yaml_text
from rmab_opt.catalog.yaml_text import read_value
from rmab_opt.errors import ModelError


def test_aliases_stand_for_so_many_values_and_not_one_more(monkeypatch):
    monkeypatch.setattr(yaml_text, "MOST_COPIED", 4)
    assert read_value("[&x 7, *x, *x, *x, *x]", "here") == [7] * 5
    with pytest.raises(ModelError, match="aliases stand for more than 4 values"):
        read_value("[&x 7, *x, *x, *x, *x, *x]", "here")


def test_a_list_behind_an_alias_counts_with_all_its_values(monkeypatch):
    monkeypatch.setattr(yaml_text, "MOST_COPIED", 4)
    made = read_value("[&x [1, 2], *x, *x]", "here")
    assert made == [[1, 2]] * 3
    made[1].append(3)
    assert made[0] == made[2] == [1, 2]
    with pytest.raises(ModelError, match="aliases stand for more than 4 values"):
        read_value("[&x [1, 2], *x, *x, *x]", "here")
