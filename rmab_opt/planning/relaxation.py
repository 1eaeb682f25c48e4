"""A bound for coupled arms by relaxed information: who knows the draws beforehand earns at least as much.

On one path of draws the best actions are found by looking ahead; what looking ahead earns is charged by

    penalty(t) = discount * (W(s') - E W(s')),   E over the next state s' given state and action,

whose mean is zero for whoever does not look ahead, whatever the values W. The mean over paths is therefore an upper
limit of every policy, tight where W are the true values. It is an estimate with an interval, never a proof.

References
----------
Brown, Smith, Sun (2010), Information relaxations and duality in stochastic dynamic programs, Operations Research 58.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.planning.improve import base_rule
from rmab_opt.planning.joint import CoupledTable
from rmab_opt.problem import Problem

__all__ = ["StatisticalBound", "information_bound"]

NORMAL_99 = 2.3263478740408408
"""One-sided 99 % quantile of the normal law."""


@dataclass(frozen=True)
class StatisticalBound:
    """An upper limit that holds with a stated confidence.

    Parameters
    ----------
    value
        The limit at 99 % confidence: the mean over paths plus 2.33 standard errors.
    mean, error
        Of the paths, and the standard error.
    paths
        Number of paths.
    """

    value: float
    mean: float
    error: float
    paths: int

    def __str__(self) -> str:
        return f"statistical bound (99 %) {self.value:.6g} (mean {self.mean:.6g}, {self.paths} paths)"

    def share(self, total: np.ndarray) -> tuple[float, float, float]:
        """What episodes (E,) earned as a share of the bound's mean: (share, low, high) of a 95 % interval.

        The interval holds the noise of both, which are taken as independent.
        """
        earned = float(np.mean(total))
        own = float(np.std(total, ddof=1) / len(total) ** 0.5) if len(total) > 1 else 0.0
        share = earned / self.mean
        error = abs(share) * float(np.hypot(own / max(abs(earned), 1e-300), self.error / abs(self.mean)))
        return share, share - 1.96 * error, share + 1.96 * error


def information_bound(
    table: CoupledTable,
    *,
    paths: int = 100,
    seed: int = 0,
    values: list[np.ndarray] | None = None,
    penalty: bool = True,
) -> StatisticalBound:
    """Upper limit of every policy's expected total from the table's start, with 99 % confidence.

    Parameters
    ----------
    table
        The joint states that can be met; it is what makes the look ahead exact, and what keeps this to few arms.
    values
        W of each joint state by round, T + 1 arrays; by default those of the planner's policy.
    penalty
        Whether looking ahead is charged; False gives the plain bound of perfect information.

    Raises
    ------
    CapabilityError
        When the dynamics cannot move by given draws.
    """
    problem: Problem = table.problem
    dynamics: Any = problem.dynamics
    if not callable(getattr(dynamics, "moved", None)):
        raise CapabilityError("moved() by given draws", dynamics, ("add it", "use CoupledTable.optimum()"))
    if paths < 2:
        raise ModelError(f"paths is {paths}", "give at least 2.")
    given = values if values is not None else _planned(table)
    rng, totals = np.random.default_rng(seed), np.zeros(paths)
    for path in range(paths):
        draws = [dynamics.uniforms((), rng) for _ in range(problem.horizon)]
        worth = np.zeros(len(table.states))
        for period in range(problem.horizon - 1, -1, -1):
            here = np.zeros(len(table.states))
            ahead = given[period + 1] if penalty else np.zeros(len(table.states))
            for place, node in enumerate(table.nodes):
                if table.first[place] > period:
                    continue
                after = table.after(place, draws[period])
                charge = ahead[after] - (node.chance * ahead[node.leads]).sum(axis=1)
                here[place] = (node.reward + problem.discount * (worth[after] - charge)).max()
            worth = here
        totals[path] = worth[0]
    mean, error = float(totals.mean()), float(totals.std(ddof=1) / paths**0.5)
    return StatisticalBound(mean + NORMAL_99 * error, mean, error, paths)


def _planned(table: CoupledTable) -> list[np.ndarray]:
    """Exact values of the plan around the means, followed by its table of indices; of the myopic rule without one."""
    problem = table.problem
    try:
        rule = base_rule(problem, table.actions, "mean_field")
    except CapabilityError:
        return table.values(table.myopic()[1])

    def followed(state: np.ndarray, period: int, shared: np.ndarray | None) -> np.ndarray:
        return rule(state[None], period, None if shared is None else shared[None])[0]

    return table.values(table.of(followed)[1])
