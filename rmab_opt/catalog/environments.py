"""Gymnasium ids of the shipped models: ``gymnasium.make("rmab_opt/Contagion-v0", n_arms=30)``.

Gymnasium calls :func:`register` by the package's entry point ``gymnasium.envs``; in a source tree it is called by hand.
"""

from __future__ import annotations

from typing import Any

__all__ = ["identifier", "make", "make_vector", "register"]

NAMESPACE = "rmab_opt"

OWN = ("forbidden", "penalty", "flat", "render_mode")
"""Keywords of the environment; all others go over the model file's values."""


def identifier(name: str) -> str:
    """Gymnasium's id of a shipped model: ``weekly_calls`` is ``rmab_opt/WeeklyCalls-v0``."""
    return f"{NAMESPACE}/{''.join(part.capitalize() for part in name.split('_'))}-v0"


def register() -> None:
    """Tell Gymnasium the ids: ``rmab_opt/Model-v0`` with ``model=`` a name or file, and one a shipped model."""
    from gymnasium.envs.registration import register as tell
    from gymnasium.envs.registration import registry

    from rmab_opt.catalog.files import model_names

    known: list[tuple[str, dict[str, Any]]] = [(f"{NAMESPACE}/Model-v0", {})]
    known += [(identifier(name), {"model": name}) for name in model_names()]
    for found, given in known:
        if found not in registry:
            tell(found, entry_point=f"{__name__}:make", vector_entry_point=f"{__name__}:make_vector", kwargs=given)


def make(model: str, **given: Any) -> Any:
    """One environment of a model; keywords of the environment by name, values of the model file by theirs."""
    from rmab_opt.catalog import load
    from rmab_opt.learning.environment import RestlessBanditEnv

    own = {name: given.pop(name) for name in OWN if name in given}
    return RestlessBanditEnv(load(model, **given), **own)


def make_vector(model: str, num_envs: int = 1, **given: Any) -> Any:
    """Many episodes of a model side by side."""
    from rmab_opt.catalog import load
    from rmab_opt.learning.environment import RestlessBanditVectorEnv

    own = {name: given.pop(name) for name in OWN if name in given and name != "render_mode"}
    given.pop("render_mode", None)
    return RestlessBanditVectorEnv(load(model, **given), num_envs, **own)
