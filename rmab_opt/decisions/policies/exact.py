"""Policies that maximise an objective exactly each round."""

from __future__ import annotations

from rmab_opt.decisions.chooser import Chooser
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.objective import Immediate
from rmab_opt.decisions.policy import ChooserPolicy, policy


@policy("myopic")
def _myopic(model: Model) -> ChooserPolicy:
    """The expected reward of this round."""
    return ChooserPolicy(Chooser(model.problem, model.actions, Immediate(), model.solver, title=model.title), "myopic")


@policy("model")
def _own(model: Model) -> ChooserPolicy:
    """The model's own objective."""
    return ChooserPolicy(
        Chooser(model.problem, model.actions, model.objective, model.solver, title=model.title), "model"
    )
