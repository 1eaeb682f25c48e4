"""Every rule of :mod:`rmab_opt.planning` as a policy of the same name: its scores, maximised over the true set."""

from __future__ import annotations

from functools import partial

from rmab_opt import registry
from rmab_opt.decisions.policy import RulePolicy

for _rule in registry.entries("rule"):
    registry.register("policy", _rule.name, line=_rule.line)(partial(RulePolicy, name=_rule.name, make=_rule.make))
