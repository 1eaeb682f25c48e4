"""The test that a model file carries: its stated optimum against enumeration and the decision."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rmab_opt.catalog.reading import CheckSection, load
from rmab_opt.decisions import Situation, decide
from rmab_opt.errors import ModelError

__all__ = ["check_model"]


def check_model(name: str | Path) -> tuple[float, float, float]:
    """A model's own regression test: (optimum stated in ``check``, found by enumeration, found by ``decide``).

    Enumeration is judged by the independent checkers and valued without a program; arms with a random
    start are taken in their most likely state.

    Raises
    ------
    ModelError
        When the model has no ``check`` section or its set is too large to enumerate.
    """
    section = load(name).settings.get("check")
    if section is None:
        raise ModelError(f"{name}: has no check section", "add `check: {optimum: ...}`.")
    stated = CheckSection.model_validate(section)
    model = load(name, **stated.set)
    assert model.problem.start is not None
    state = model.state(stated.state)
    if state is None:
        state = model.problem.start_distribution.argmax(axis=1)
    allowed = model.actions.at(0, model.problem.shared_values(model.shared(stated.state)))
    candidates = allowed.enumerate()
    if candidates is None:
        raise ModelError(f"{name}: its check is too large to enumerate", "make it smaller by `check.set`.")
    shared = model.shared(stated.state)
    situation = Situation(model.problem, model.actions.columns, state, shared=shared)
    values = model.objective.batch_value(candidates.astype(np.int64), situation)
    return stated.optimum, float(values.max()), decide(model, state, solver="exact").value
