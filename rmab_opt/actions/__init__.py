"""What may be done: columns, declared constraints, and the action set they make together."""

from rmab_opt.actions import kinds
from rmab_opt.actions.action_set import ActionSet, Conflict, Relaxation
from rmab_opt.actions.columns import Columns
from rmab_opt.actions.constraint import Constraint
from rmab_opt.actions.levels import arm_levels, build_interpolation, build_levels, column_values, shared_arms

__all__ = [
    "ActionSet",
    "Columns",
    "Conflict",
    "Constraint",
    "Relaxation",
    "arm_levels",
    "build_interpolation",
    "build_levels",
    "column_values",
    "kinds",
    "shared_arms",
]
