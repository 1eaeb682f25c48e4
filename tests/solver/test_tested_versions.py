"""A HiGHS that the suite has not run with is named, once."""

from __future__ import annotations

import warnings

import highspy
import pytest

from rmab_opt.solver.highs import TESTED, _warn_untested


def test_the_installed_highs_is_a_tested_one_and_stays_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _warn_untested.__wrapped__(f"{TESTED[-1]}.3")
    installed = highspy.Highs().version()
    if installed.rpartition(".")[0] not in TESTED:
        pytest.skip(f"HiGHS {installed} is not a tested one")


@pytest.mark.parametrize("version", ["1.15.2", "1.160.0", "2.0.0"])
def test_another_highs_is_named_once(version):
    _warn_untested.cache_clear()
    with pytest.warns(UserWarning, match=f"HiGHS {version} is not among the tested versions"):
        _warn_untested(version)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _warn_untested(version)
