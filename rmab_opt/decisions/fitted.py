"""Multipliers for a proof by a quadratic: the search's own fit over the whole set, handed over to the checker.

Nothing here is believed: :mod:`rmab_opt.decisions.quadratics` computes the limit from what is handed over.
"""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from rmab_opt.actions import ActionSet
from rmab_opt.actions.checker import Rows
from rmab_opt.decisions.bench import relaxation
from rmab_opt.decisions.leaves import Layers
from rmab_opt.decisions.quadratics import MOST_IMPLIED, Multipliers, ends_of, implied
from rmab_opt.encoder import Network, Support
from rmab_opt.encoder.bounds import masses
from rmab_opt.errors import OverdueError
from rmab_opt.search.node_bounds import Node, NodeBounds
from rmab_opt.search.oracle import Oracle
from rmab_opt.search.quadratic import applies, fit
from rmab_opt.solver import Program
from rmab_opt.solver.polytope import Row

__all__ = ["STEPS", "fitted", "prices_of", "step_seconds"]

Floats = NDArray[np.float64]

STEPS = 300
"""Of the fit; fewer where time is short. With 150 it leaves 0.2 % of the value more (100 columns, 128 + 128 neurons),
with 600 it leaves 0.06 % less."""

STEP, FEW_STEPS = 2e-10, 20
"""CPU seconds of a step, by the third power of columns and neurons together, and how many steps are worth it."""

MOST_PRICES = 1_000_000
"""Prices of all implied rows together."""

DIGITS = 9
"""Decimals of prices that imply a row: the solver's noise would take its weights off their grid."""


def fitted(
    network: Network, actions: ActionSet, layers: Layers, rows: Rows, seconds: float = np.inf, steps: int = STEPS
) -> Multipliers | None:
    """Multipliers over the whole set; None where no quadratic applies, or none was found.

    Parameters
    ----------
    layers, rows
        The network and the set as the checker sees them.
    seconds
        That it may take: the fit has no more steps than that is enough for.
    """
    until = perf_counter() + seconds
    program, act = actions.program
    steps = int(min(steps, seconds / step_seconds(len(act), len(layers.bias[0])))) if layers.bias else 0
    if steps < FEW_STEPS:
        return None
    support = Support.from_program(program, act, names=actions.columns.ids)
    reduced = network.reduced.dense()
    made = NodeBounds(reduced, Oracle.of(support), masses(reduced, support)[:-1])
    if not applies(made):
        return None
    groups = [group for group in made.oracle.groups if np.isfinite(group.upper)]
    groups = groups[: min(MOST_IMPLIED, MOST_PRICES // max(1, len(rows.row_lower)))]
    y = [_implying(group, program, act, rows) for group in groups]
    implies = [implied(rows, prices) for prices in y]
    # Over the checker's own ends of neurons the fit finds what the checker will.
    node = _root(made, ends_of(layers, rows, implies), support)
    if not (node["up"] & ~node["low"]).any():
        return None
    found = fit(made, node, None, steps, -np.inf, lambda: perf_counter() > until)
    now = found.multipliers
    if not np.isfinite(found.bound):
        return None
    member, share = np.full(len(found.point), -1.0), np.zeros(len(found.point))
    for k, (group, row) in enumerate(zip(groups, implies, strict=True)):
        weight = row.weight[group.members]
        member[group.members] = k
        # The fit's row in another unit.
        share[group.members] = np.exp(now["row"][group.members]) * float(group.weight.sum() / (weight.sum() or 1.0))
    # What the fit left out, neurons that it knows are never on and columns, must not keep all from being concave.
    here = node["upper"][0, made.parts[0]] > 0
    neurons = np.array([np.where(here, np.exp(now[name]), 0.0) for name in ("e", "most", "on", "own", "under")])
    neurons[1, ~here] = neurons[0].max()
    cost = found.cost.copy()
    cost[cost <= 0] = float(cost.mean())
    single = np.float32
    return Multipliers(
        neurons.astype(single).astype(np.float64),
        np.array([np.exp(now["q"]), now["p"], now["alpha"]]).astype(single).astype(np.float64),
        np.array([found.point, cost, share, member]).astype(single).astype(np.float64),
        np.array(y).reshape(len(y), len(rows.row_lower)),
    )


def step_seconds(columns: int, neurons: int) -> float:
    """What a step of a fit takes, with neurons of the first layer."""
    return STEP * float(columns + neurons) ** 3


def _root(made: NodeBounds, ends: list[tuple[Floats, Floats]], support: Support) -> Node:
    """The node that holds the whole set; the unit of its prices is set beside."""
    lower, upper = (np.concatenate([pair[side] for pair in ends])[None] for side in (0, 1))
    node: Node = {
        "low": support.lower[None] > 0,
        "up": support.upper[None] > 0,
        "lower": lower,
        "upper": upper,
        "alpha": (upper > -lower).astype(np.float64),
        "beta": np.zeros_like(lower),
        "sign": np.zeros(lower.shape, dtype=np.int8),
        "price": np.zeros((1, made.oracle.n_prices)),
        "share": np.zeros((1, len(made.net.hidden[0].bias))),
    }
    loss = made.evaluate(node, True)["loss"][0]
    made.price_scale = float(np.median(loss[np.isfinite(loss)])) + 1e-12 if np.isfinite(loss).any() else 1.0
    return node


def _implying(group: Row, program: Program, act: NDArray[np.int64], rows: Rows) -> Floats:
    """Prices of the program's rows that imply a row over some columns: the row itself, or a combination."""
    prices = np.zeros(len(rows.row_lower))
    columns = act[group.members]
    for i in range(len(prices)):
        part = slice(rows.indptr[i], rows.indptr[i + 1])
        order = np.argsort(rows.indices[part])
        if np.array_equal(rows.indices[part][order], np.sort(columns)) and np.isfinite(rows.row_upper[i]):
            ratio = rows.data[part][order] / group.weight[np.argsort(columns)]
            if ratio[0] > 0 and np.ptp(ratio) <= 1e-9 * ratio[0]:
                prices[i] = 1.0
                return prices
    # Without ends of the columns the dual is of the rows alone.
    upper = program.upper.copy()
    upper[columns] = np.inf
    free = relaxation(replace(program, upper=upper, maximise=True, integer=np.zeros(len(upper), dtype=bool)))
    free.set_cost(columns, group.weight)
    duals = free.solve().row_duals
    return prices if duals is None or not np.isfinite(duals).all() else np.round(duals, DIGITS)


def prices_of(actions: ActionSet, cost: Floats, seconds: float) -> Floats:
    """Prices of the set's rows at columns' values (C,): duals of its linear relaxation, 0 where it was not solved."""
    program, act = actions.program
    free = relaxation(replace(program, maximise=True))
    free.set_cost(act, cost)
    try:
        duals = free.solve(seconds=max(seconds, 0.1)).row_duals
    except OverdueError:
        duals = None
    return np.zeros(len(program.row_lower)) if duals is None else np.asarray(duals)
