"""What no policy can exceed in a model, whatever its arms say of themselves, and who is at its margin."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from rmab_opt import planning
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.policies.living import TOLERANCE, Living
from rmab_opt.errors import ModelError
from rmab_opt.planning import Bound
from rmab_opt.planning.living import living_bound
from rmab_opt.planning.relaxation import StatisticalBound, decoupled_bound
from rmab_opt.problem import Season
from rmab_opt.problem.dynamics import require_tabular
from rmab_opt.problem.table import TableLike

__all__ = ["bound", "margin"]

BY_ROUND = "limits of each round"
"""What couples the arms where limits change from round to round."""


def bound(model: Model, state: np.ndarray | TableLike | None = None, **options: Any) -> Bound | StatisticalBound:
    """Upper limit on what any policy can earn from a state, or from the model's start; certified.

    Where limits change from round to round or are a season's, every round's acts have a price of their own.
    Coupled arms without tables get the limit that their dynamics bring (``bound``), or one that holds with 99 %
    confidence where they say ``chances_between``.

    Parameters
    ----------
    model
        Its action set couples the arms by its own linear relaxation.
    state
        As in :func:`rmab_opt.decide`.
    options
        ``kind``, ``method``, ``tolerance``, ``seconds`` and more: see :func:`rmab_opt.planning.bound`.

    Raises
    ------
    CapabilityError
        When the dynamics offer no ``tabular()``.
    """
    given = model.state(state)
    start = model.problem.start if given is None else given
    own = None if start is None else model.objective.bound(model.problem, model.actions, start)
    if own is not None:
        return own
    dynamics = model.problem.dynamics
    brought = getattr(dynamics, "bound", None)
    if not hasattr(dynamics, "tabular") and callable(brought):
        _known(options)
        limit = {} if options.get("seconds") is None else {"seconds": options["seconds"]}
        found: StatisticalBound = brought(model.problem, model.actions, given, **limit)
        return found
    if not hasattr(dynamics, "tabular") and hasattr(dynamics, "chances_between"):
        return decoupled_bound(model.problem, model.actions, state=given, **_known(options))
    if isinstance(dynamics, Season) or model.actions.lasting.open_constraints:
        return _by_round(model, given, **options)
    return planning.bound(model.problem, model.actions, state=given, **options)


def _by_round(
    model: Model,
    state: np.ndarray | None,
    *,
    kind: str = "auto",
    coupling: str = "auto",
    method: str = "auto",
    tolerance: float = TOLERANCE,
    seconds: float | None = None,
) -> Bound:
    """The bound where limits change: the most acts that a round allows, and who is closed then."""
    asked = {"kind": (kind, "time_indexed"), "coupling": (coupling, BY_ROUND), "method": (method, "dual")}
    for name, (given, only) in asked.items():
        if given not in ("auto", only):
            raise ModelError(f"{name} {given!r} where limits change from round to round", "leave it out.")
    begun, rule = perf_counter(), Living(model)
    start = model.problem.start_distribution if state is None else state
    belief = np.eye(model.problem.dynamics.n_states)[start] if start.ndim == 1 else start
    course = rule.course(belief, 0, model.problem.start_shared)
    found = living_bound(course, tolerance=tolerance, seconds=seconds)
    factor = model.problem.discount ** np.arange(course.horizon)
    paid = found.prices[:, 0] + found.saved / factor
    # What is closed costs more than all that could ever be earned by it.
    dear = 1.0 + paid.max() + 2.0 * course.horizon * float(np.abs(course.reward).max())
    assert course.open is not None
    arm_prices = np.zeros((course.horizon, model.problem.n_arms, course.transition.shape[1]))
    arm_prices[:, :, 1:] = np.where(course.open, paid[:, None], dear)[:, :, None]
    gap = found.value - found.lower
    return Bound(
        value=found.value,
        lower=found.lower,
        kind="time_indexed",
        method="dual",
        coupling=BY_ROUND,
        prices=found.prices,
        price_names=("the acts of a round",),
        arm_prices=arm_prices,
        occupancy=None,
        evaluations=found.evaluations,
        converged=gap <= tolerance * max(abs(found.value), abs(found.lower)),
        seconds=perf_counter() - begun,
    )


def _known(options: dict[str, Any]) -> dict[str, Any]:
    """Options of the bound by relaxed information; those of the other bound at their defaults are left out."""
    usual = {"kind": "auto", "coupling": "auto", "method": "auto"}
    # A limit on seconds is of no use to the paths: they take one or two.
    asked = {name: value for name, value in options.items() if usual.get(name) != value and name != "seconds"}
    unknown = sorted(set(asked) - {"paths", "seed"})
    if unknown:
        raise ModelError(
            f"{unknown[0]}={asked[unknown[0]]!r} is no option of a bound for coupled arms", "give paths or seed."
        )
    return asked


def margin(
    model: Model, found: Bound, state: np.ndarray | TableLike | None = None, most: int = 10
) -> list[dict[str, Any]]:
    """Arms whose service in the first round is worth about its price, nearest first: who one more unit would reach.

    Returns
    -------
    list of dict
        ``arm, action, worth, price, margin``; random starts are taken at each arm's most likely state.

    Raises
    ------
    ModelError
        When the bound has no prices of resources (constraints with variables of their own).
    """
    transition, reward = require_tabular(model.problem.dynamics, "prices")
    rows = planning.polyhedron(model.actions, reward.shape[2]).coupling(*transition.shape[:2])
    if rows is None or found.prices is None:
        raise ModelError("this bound has no resource prices", "ask for the margin of a model with plain rows only.")
    given = model.state(state)
    here = model.problem.start_distribution.argmax(axis=1) if given is None else given
    horizon, discount = model.problem.horizon, model.problem.discount
    near = planning.marginal_arms(transition, reward, here, found, rows, horizon=horizon, discount=discount, most=most)
    names = model.problem.arms.ids
    return [
        {"arm": names[a.arm], "action": a.action, "worth": a.worth, "price": a.price, "margin": a.margin} for a in near
    ]
