"""What arms are worth: indices, prices and one upper bound for every policy."""

from rmab_opt.planning.assignment import Assignment, assign
from rmab_opt.planning.bound import Bound, MarginalArm, bound, bound_arrays, marginal_arms
from rmab_opt.planning.costs import Costs
from rmab_opt.planning.coupling import Coupling
from rmab_opt.planning.joint import CoupledTable, JointOptimum, joint_optimum, joint_value
from rmab_opt.planning.lagrangian import Dual, dual_average, dual_discounted, dual_finite
from rmab_opt.planning.occupancy import Polyhedron, occupancy_model, polyhedron, solve_occupancy
from rmab_opt.planning.rollout import constant_action, open_loop, open_loop_values, rollout, rollout_values
from rmab_opt.planning.scores import ScoreTable, column_scores
from rmab_opt.planning.sweep import Curve, budget_curve, sweep
from rmab_opt.planning.whittle import Indices, LevelIndices, passive_set_grows, whittle_indices, whittle_levels

__all__ = [
    "Assignment",
    "Bound",
    "Costs",
    "CoupledTable",
    "Coupling",
    "Curve",
    "Dual",
    "Indices",
    "JointOptimum",
    "LevelIndices",
    "MarginalArm",
    "Polyhedron",
    "ScoreTable",
    "assign",
    "bound",
    "bound_arrays",
    "budget_curve",
    "column_scores",
    "constant_action",
    "dual_average",
    "dual_discounted",
    "dual_finite",
    "joint_optimum",
    "joint_value",
    "marginal_arms",
    "occupancy_model",
    "open_loop",
    "open_loop_values",
    "passive_set_grows",
    "polyhedron",
    "rollout",
    "rollout_values",
    "solve_occupancy",
    "sweep",
    "whittle_indices",
    "whittle_levels",
]
