"""Gymnasium's own checker, for several test files."""

from __future__ import annotations

import warnings

from gymnasium.utils.env_checker import check_env

from rmab_opt.learning import RestlessBanditEnv


def checked(model, **options) -> None:
    """Gymnasium's checker, without its advice on unbounded boxes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        check_env(RestlessBanditEnv(model, **options), skip_render_check=True)
