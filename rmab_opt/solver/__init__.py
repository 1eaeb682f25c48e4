"""One compiled program, one HiGHS object, many solves.

A :class:`Session` compiles a Pyomo model once into sparse arrays, keeps the HiGHS object and, before each solve,
pushes only what changed. The pieces that travel are plain: :class:`Program` (the arrays, picklable), :class:`Profile`
(a named set of solver options, TOML) and :class:`Result` (what a solve has proven, and nothing more).

Conventions: columns are the program's variables, rows its constraints, both numbered from 0. Objective values, bounds
and duals are in the sense of the objective as written (a maximisation's bound lies above its objective).
Pyomo and the solvers load when a session first needs them, so that importing this module stays cheap.
"""

from rmab_opt.solver.compiling import Parameters
from rmab_opt.solver.profile import Profile, load_profile, profile_names, repeatable
from rmab_opt.solver.program import Program
from rmab_opt.solver.progress import Progress
from rmab_opt.solver.result import Result, Status
from rmab_opt.solver.session import Session, check_encoded
from rmab_opt.solver.sifting import Sifting, siftable

__all__ = [
    "Parameters",
    "Profile",
    "Program",
    "Progress",
    "Result",
    "Session",
    "Sifting",
    "Status",
    "check_encoded",
    "load_profile",
    "profile_names",
    "repeatable",
    "siftable",
]
