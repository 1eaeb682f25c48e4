"""Every rule of :mod:`rmab_opt.planning` as a policy of the same name: its scores, maximised over the true set."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from rmab_opt import registry
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.policy import RulePolicy


def _policy_of(rule: registry.Entry) -> Callable[..., RulePolicy]:
    def make(model: Model, **arguments: Any) -> RulePolicy:
        return RulePolicy(model, rule.name, rule.make, **arguments)

    # The rule's arguments are the policy's.
    context = [inspect.Parameter("model", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Model)]
    make.__signature__ = inspect.Signature([*context, *rule.arguments.values()])  # type: ignore[attr-defined]
    # The policy belongs to whoever brings the rule.
    make.__module__ = rule.make.__module__
    make.__qualname__ = f"rule {rule.name}"
    return make


for _rule in registry.entries("rule"):
    registry.register("policy", _rule.name, line=_rule.line)(_policy_of(_rule))
