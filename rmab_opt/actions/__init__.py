"""What may be done: columns, declared constraints, and the action set they make together."""

from rmab_opt.actions import kinds
from rmab_opt.actions.action_set import ActionSet, Conflict, Relaxation
from rmab_opt.actions.columns import Columns
from rmab_opt.actions.constraint import KINDS, Constraint

__all__ = ["KINDS", "ActionSet", "Columns", "Conflict", "Constraint", "Relaxation", "kinds"]
