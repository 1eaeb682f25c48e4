"""Wrong bounds of a polytope name the input at fault."""

from __future__ import annotations

import numpy as np
import pytest

from rmab_opt.errors import ModelError
from rmab_opt.solver.polytope import Polytope


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ([0, 0, -np.inf], [1, 1, 1], r"c has bounds \[-inf, 1\]"),
        ([0, np.nan, 0], [1, 1, np.inf], r"b has bounds \[nan, 1\]"),
        ([0, 2, 0], [1, 1, 1], r"b has bounds \[2, 1\]"),
        ([3, 0, 2], [1, 1, 1], r"a has bounds \[3, 1\]"),
    ],
)
def test_the_first_input_with_wrong_bounds_is_named(lower, upper, message):
    with pytest.raises(ModelError, match=message):
        Polytope(lower, upper, names=("a", "b", "c"))
    with pytest.raises(ModelError, match=r"input \d has bounds"):
        Polytope(lower, upper)
