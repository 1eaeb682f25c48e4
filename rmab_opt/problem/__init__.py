"""The world: arms, their tables and their dynamics. numpy only; knows nothing of constraints or solvers."""

from rmab_opt.problem.arms import Arms
from rmab_opt.problem.dynamics import Dynamics, Ladder, Tabular
from rmab_opt.problem.problem import Problem
from rmab_opt.problem.season import Season
from rmab_opt.problem.shared import SharedDynamics, draw_next
from rmab_opt.problem.table import Table

__all__ = ["Arms", "Dynamics", "Ladder", "Problem", "Season", "SharedDynamics", "Table", "Tabular", "draw_next"]
