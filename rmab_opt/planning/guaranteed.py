"""The upper bound of policies that keep guaranteed services, on average; what the guarantees cost beside it.

    g(prices, bonuses) = arms' values, acting paid its price less the bonus of its guarantees
                         + rents of the action set at the prices  -  sum_g bonus_g owed_g

for bonuses of at least 0 of every service in the window. One linear program over expected frequencies proposes prices
and bonuses; the reported value is g at them, evaluated arm by arm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds.guarantee import Guarantee, Owed
from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError, SolverError
from rmab_opt.planning.occupancy import Polyhedron, occupancy_program, polyhedron
from rmab_opt.solver import Program, Session, load_profile

__all__ = ["MOST_COLUMNS", "Guaranteed", "guaranteed_prices", "owed_of"]

MOST_COLUMNS = 1_000_000
"""Frequencies up to which the program is solved; interior points took 95 s for 288,000."""


def owed_of(actions: ActionSet) -> dict[str, Owed]:
    """What the guarantees of an action set leave to do, by their names."""
    return {
        name: constraint.owed(actions.columns)
        for name, constraint in actions.constraints.items()
        if isinstance(constraint, Guarantee)
    }


@dataclass(frozen=True, eq=False)
class Guaranteed:
    """What the program proposes; nothing of it is believed but evaluated.

    Parameters
    ----------
    rows
        The action set's in every round.
    prices, column_prices, arm_prices
        Of the rows (T, R), of choosing columns (T, C), and of the arms' actions less their bonuses (T, N, A).
    rent
        What the bonuses pay for what is owed.
    lower
        The program's optimum.
    """

    rows: Polyhedron
    prices: np.ndarray
    column_prices: np.ndarray
    arm_prices: np.ndarray
    rent: float
    lower: float


def guaranteed_prices(
    transition: np.ndarray,
    reward: np.ndarray,
    start: np.ndarray,
    actions: ActionSet,
    *,
    horizon: int,
    discount: float,
    seconds: float | None = None,
) -> Guaranteed:
    """Prices and bonuses that bound every policy which keeps the set's guarantees on average, from a start (N, S).

    Certain services are had on average too, so what they prove holds for them.

    Raises
    ------
    CapabilityError
        When the program would have more than :data:`MOST_COLUMNS` frequencies.
    ModelError
        When a window ends after the horizon.
    InfeasibleError
        When no policy keeps the guarantees, not even on average.
    SolverError
        When the program is not solved in time.
    """
    n_arms, n_actions, n_states, _ = transition.shape
    block = n_arms * n_states * n_actions
    owed = owed_of(actions)
    for name, one in owed.items():
        if one.end > horizon:
            raise ModelError(
                f"constraints.{name}: its window ends {one.end - horizon} rounds after the horizon",
                f"let it end by {horizon}, or plan over more rounds.",
            )
    if block * horizon > MOST_COLUMNS:
        raise CapabilityError(
            f"a bound under guarantees over {block * horizon:,} frequencies",
            actions,
            ("bound the set without them, which holds with them too", f"bound up to {MOST_COLUMNS:,}"),
        )
    rows = polyhedron(actions, n_actions)
    base, numbers = occupancy_program(transition, reward, start, discount=discount, horizon=horizon, rows=rows)
    program, first = _with_services(base, owed, (n_arms, n_states, n_actions), horizon)
    result = Session.from_arrays(program, load_profile("exact")).solve(seconds=seconds)
    if result.status in ("infeasible", "infeasible_or_unbounded"):
        raise InfeasibleError(
            f"no policy keeps {' and '.join(owed)} together with the other constraints, not even on average",
            "guarantee less, or relax a limit.",
        )
    if result.x is None or result.row_duals is None:
        raise SolverError(f"the program under guarantees was not solved: {result.status}", "give it more time.")
    weight = discount ** np.arange(horizon)
    prices = result.row_duals[numbers] / weight[:, None]
    column_prices = prices @ rows.act
    arm_prices = np.zeros((horizon, n_arms, n_actions))
    arm_prices[:, rows.arm, rows.action] = column_prices
    rent, at = 0.0, first
    for one in owed.values():
        bonus = np.maximum(-result.row_duals[at : at + len(one.least)], 0.0)
        at += len(one.least)
        rent += float(bonus @ one.least)
        each = bonus[one.of][None, :, None] / weight[one.begin : one.end, None, None]
        arm_prices[one.begin : one.end, :, 1:] -= each
    return Guaranteed(rows, prices, column_prices, arm_prices, rent, float(result.objective))


def _with_services(
    base: Program, owed: dict[str, Owed], shape: tuple[int, int, int], horizon: int
) -> tuple[Program, int]:
    """The program with a row for everybody to whom services are owed, and the first of these rows."""
    n_arms, n_states, n_actions = shape
    block, first = n_arms * n_states * n_actions, base.matrix.shape[0]
    acted = np.arange(block) % n_actions > 0
    parts, least = [sparse.csr_array(base.matrix)], []
    for one in owed.values():
        places = np.flatnonzero(acted)
        whose = np.repeat(one.of, n_states * n_actions)[places]
        of_arm = sparse.csr_array((np.ones(len(places)), (whose, places)), shape=(len(one.least), block))
        empty = sparse.csr_array(of_arm.shape)
        rounds = [of_arm if one.begin <= t < one.end else empty for t in range(horizon)]
        wide = base.cost.size - horizon * block
        parts.append(sparse.csr_array(sparse.hstack([*rounds, sparse.csr_array((len(one.least), wide))])))
        least.append(one.least)
    more = np.concatenate(least)
    program = Program(
        cost=base.cost,
        matrix=sparse.csr_array(sparse.vstack(parts, format="csr")),
        row_lower=np.concatenate([base.row_lower, more]),
        row_upper=np.concatenate([base.row_upper, np.full(len(more), np.inf)]),
        lower=base.lower,
        upper=base.upper,
        integer=base.integer,
        maximise=True,
    )
    return program, first
