"""The kinds that come with the package; one file a family. Importing this registers them."""

from rmab_opt.actions.kinds.assignment import Capacity
from rmab_opt.actions.kinds.inspection import Cells, Frequency, Gap, SlotBudget, VisitColumns, Window
from rmab_opt.actions.kinds.path import Path
from rmab_opt.actions.kinds.rows import Budget, Conflict, Knapsack, Linear, LockedIn, LockedOut, OneAction
from rmab_opt.actions.kinds.scheduling import Scheduling

__all__ = [
    "Budget",
    "Capacity",
    "Cells",
    "Conflict",
    "Frequency",
    "Gap",
    "Knapsack",
    "Linear",
    "LockedIn",
    "LockedOut",
    "OneAction",
    "Path",
    "Scheduling",
    "SlotBudget",
    "VisitColumns",
    "Window",
]
