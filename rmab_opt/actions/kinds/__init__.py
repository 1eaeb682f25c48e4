"""The kinds that come with the package; one file a family. Importing this registers them."""

from rmab_opt.actions.kinds.assignment import Capacity
from rmab_opt.actions.kinds.closed import Closed
from rmab_opt.actions.kinds.guarantee import Guarantee
from rmab_opt.actions.kinds.path import Path
from rmab_opt.actions.kinds.preferences import Continuity, PreferredSlot, SameWorker
from rmab_opt.actions.kinds.rows import Budget, Conflict, Knapsack, Linear, LockedIn, LockedOut, OneAction
from rmab_opt.actions.kinds.scheduling import Scheduling

__all__ = [
    "Budget",
    "Capacity",
    "Closed",
    "Conflict",
    "Continuity",
    "Guarantee",
    "Knapsack",
    "Linear",
    "LockedIn",
    "LockedOut",
    "OneAction",
    "Path",
    "PreferredSlot",
    "SameWorker",
    "Scheduling",
]
