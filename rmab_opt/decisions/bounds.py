"""Bound files: what no policy can exceed, with the prices that prove it; checked by numpy without solver and torch.

For any prices mu[t, n, a] of the arms' actions and any prices y[t, i] of the set's rows, no policy earns more than

    sum over n of V_n(start; mu) + sum over t of discount**t * rent_t,

with V_n the value of arm n alone when it pays mu (backward induction) and rent_t the most that an allowed action can
collect in prices: weak duality at y[t], or a list. What an endless run is worth follows from any values v by the
largest excess of one step over them: T v <= v + e gives V <= v + e / (1 - discount). Every sum is rounded outward.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from rmab_opt import planning
from rmab_opt.actions import ActionSet, arm_levels, build_levels, column_values, shared_arms
from rmab_opt.actions.checker import EPS, Rows, best_of_routes, price_bound
from rmab_opt.decisions.model import Model
from rmab_opt.decisions.proof import packed, rows_of, rows_of_set, unpacked
from rmab_opt.decisions.saved import Verification, digest, digests_of_problem, digests_of_set, parsed, read_document
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.planning import Bound, Coupling
from rmab_opt.planning.bound import in_unit
from rmab_opt.planning.lagrangian import stationary_values
from rmab_opt.problem.dynamics import require_tabular
from rmab_opt.solver import Program, Session
from rmab_opt.solver.compiling import compile_model

__all__ = ["BoundFile", "Proven", "prove_bound", "save_bound", "verify_bound"]

FIX = "give the file that `bound --out` wrote, or bound again."

CLOSE = 1e-9
"""Numbers that agree so well, relative to the largest sums behind them, agree but for rounding on another machine."""

SWEEPS = 2000
"""Damped sweeps that bring an average's values near its own."""

NEARLY_ONE = 1.0 - 1e-5
"""Discount whose values an average's sweeps begin from."""

Rents = Literal["rows", "listing", "routes"]


class BoundFile(BaseModel):
    """A saved bound; unknown fields and other types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    format: Literal[1]
    what: Literal["bound"]
    title: str
    value: float
    """What the prices prove, in reward units."""
    said: float
    """The method's own number; it counts for nothing."""
    kind: Literal["time_indexed", "discounted", "discounted_tail", "average"]
    method: str
    coupling: str
    unit: float
    horizon: int = Field(ge=1)
    discount: float = Field(gt=0, le=1)
    state: list[int] | None
    """The start, where it is not the model's own."""
    ids: list[str]
    rents: Rents
    rounds: int = Field(ge=1)
    arm_prices: str
    """float64 (rounds, N, A - 1), in the unit, of all actions but the passive one; packed."""
    row_prices: str | None
    """float64 (rounds, m), in the unit; packed. With ``rents`` ``rows`` only."""
    digests: dict[str, str]


@dataclass(frozen=True, eq=False)
class Proven:
    """Prices that prove a bound, in the unit of the rewards.

    Parameters
    ----------
    kind
        See :data:`rmab_opt.planning.bound.KINDS`; never ``auto``.
    arm_prices
        (R, N, A): R is the horizon (``time_indexed``), one more (``discounted_tail``, the last is the tail's), or 1.
    rents
        How each round's rent is bounded.
    row_prices
        (R, m) of the rows of each round's set, zero beyond them; None unless ``rents`` is ``rows``.
    horizon, discount
        Of the run.
    start
        Probabilities (N, S).
    """

    kind: str
    arm_prices: np.ndarray
    rents: Rents
    row_prices: np.ndarray | None
    horizon: int
    discount: float
    start: np.ndarray


# ---- what is proven
def proven_value(model: Model, proof: Proven) -> tuple[float, float]:
    """(the bound that the prices prove, in reward units; the size of the terms behind it), by numpy alone."""
    transition, own = require_tabular(model.problem.dynamics, "the upper bound")
    unit, least, reward = in_unit(own)
    sets = _sets(model, proof)
    allowed = arm_levels(model.actions.columns, reward.shape[2])
    rents = np.empty(len(proof.arm_prices))
    for t, (actions, price) in enumerate(zip(sets, proof.arm_prices, strict=True)):
        same = t and actions is sets[t - 1] and np.array_equal(price, proof.arm_prices[t - 1])
        if same and (proof.row_prices is None or np.array_equal(proof.row_prices[t], proof.row_prices[t - 1])):
            rents[t] = rents[t - 1]
        else:
            rents[t] = _rent(actions, price, proof, t)
    arms, mass = _arms_value(transition, reward, allowed, proof)
    weight = _weights(proof)
    total = arms + float(weight @ rents)
    size = mass + float(weight @ np.abs(rents))
    total += 4 * (len(rents) + 4) * EPS * size
    rounds = 1.0 / (1.0 - proof.discount) if proof.kind.startswith("discounted") else float(weight.sum())
    value = total * unit + least * rounds
    mass = size * unit + abs(least) * rounds
    return float(value + 8 * (model.problem.n_arms + 4) * EPS * mass), float(mass)


def _sets(model: Model, proof: Proven) -> list[ActionSet]:
    """The action set of each round; the last serves what comes after."""
    if proof.kind in ("discounted", "average") and model.actions.open_constraints:
        raise CapabilityError(
            "an endless run under limits that change",
            model.actions,
            ("bound the horizon", "give one limit for all rounds"),
        )
    return [model.actions.at(t) for t in range(len(proof.arm_prices))]


def _weights(proof: Proven) -> np.ndarray:
    """What one unit of rent in each round counts, (R,)."""
    if proof.kind == "average":
        return np.ones(1)
    if proof.kind == "discounted":
        return np.array([1.0 / (1.0 - proof.discount)])
    weight = proof.discount ** np.arange(len(proof.arm_prices), dtype=np.float64)
    if proof.kind == "discounted_tail":
        weight[-1] /= 1.0 - proof.discount
    return weight


def _arms_value(transition: np.ndarray, reward: np.ndarray, allowed: np.ndarray, proof: Proven) -> tuple[float, float]:
    """(sum of the arms' values under their prices, rounded outward; the size of its terms)."""
    n_states = reward.shape[1]
    ban = np.where(allowed, 0.0, np.inf)

    def step(values: np.ndarray, price: np.ndarray, factor: float) -> np.ndarray:
        ahead = np.einsum("nast,nt->nsa", transition, values) * factor
        best: np.ndarray = (reward - (price + ban)[:, None, :] + ahead).max(axis=2)
        return best

    def slack(values: np.ndarray, price: np.ndarray) -> np.ndarray:
        size = np.abs(reward).max(axis=(1, 2)) + np.abs(price).max(axis=1) + np.abs(values).max(axis=1)
        return 4 * (n_states + 6) * EPS * size

    values, price = np.zeros(reward.shape[:2]), proof.arm_prices[-1]
    if proof.kind == "average":
        values = _endless(transition, reward, price, allowed, NEARLY_ONE)
        values = values - values.min(axis=1, keepdims=True)
        for _ in range(SWEEPS):
            after = step(values, price, 1.0)
            values = 0.5 * (values + after - after.min(axis=1, keepdims=True))
        gain = (step(values, price, 1.0) - values).max(axis=1) + 2 * slack(values, price)
        return float(gain.sum()), float(np.abs(gain).sum() + np.abs(values).max(axis=1).sum())
    rounds = len(proof.arm_prices)
    if proof.kind != "time_indexed":
        values = _endless(transition, reward, price, allowed, proof.discount)
        excess = (step(values, price, proof.discount) - values).max(axis=1) + 2 * slack(values, price)
        values = values + (excess / (1.0 - proof.discount))[:, None]
        rounds -= 1
    for t in range(rounds - 1, -1, -1):
        values = step(values, proof.arm_prices[t], proof.discount) + slack(values, proof.arm_prices[t])[:, None]
    mass = float((proof.start * np.abs(values)).sum())
    return float((proof.start * values).sum()) + 4 * (n_states + len(values)) * EPS * mass, mass


def _endless(
    transition: np.ndarray, reward: np.ndarray, price: np.ndarray, allowed: np.ndarray, discount: float
) -> np.ndarray:
    """Values of an endless run, (N, S): a guide whose excess is looked at, not a proof."""
    paid = np.where(allowed[:, None, :], reward - price[:, None, :], (reward - price[:, None, :])[:, :, :1])
    kernel = np.where(allowed[:, :, None, None], transition, transition[:, :1])
    free = Coupling(np.zeros((1, 1, 1, reward.shape[2])), np.zeros(1))
    return stationary_values(kernel, paid, free, np.zeros(1), discount=discount)


# ---- rents
def _rent(actions: ActionSet, price: np.ndarray, proof: Proven, t: int) -> float:
    """The most that an allowed action can collect in prices (N, A) in round t, rounded outward."""
    if proof.rents == "rows":
        rows, cost, constant = _round_program(actions, price)
        assert proof.row_prices is not None
        own, beyond = np.split(proof.row_prices[t], [len(rows.row_lower)])
        # Rounds with fewer rows than others have zeros in their place.
        if len(own) != len(rows.row_lower) or beyond.any():
            return np.inf
        return price_bound(rows, cost, constant, own)
    columns, arm = actions.columns, np.arange(len(price))
    mass = float(np.abs(price).max(axis=1).sum())
    if proof.rents == "routes":
        routes = actions.routes
        if routes is None or shared_arms(columns):
            return np.inf
        bits = (routes.sets[:, None] >> np.arange(routes.n_columns, dtype=np.uint64)) & np.uint64(1)
        best = best_of_routes(bits == 1, column_values(columns, price), routes.most) + float(price[:, 0].sum())
        return best + 4 * (len(arm) + 2) * EPS * mass
    if actions.listed is None or not len(actions.listed):
        return np.inf
    treated = np.unique(columns.arm_action(actions.listed), axis=0)
    return float(price[arm, treated].sum(axis=1).max()) + 4 * (len(arm) + 2) * EPS * mass


def _round_program(actions: ActionSet, price: np.ndarray) -> tuple[Rows, np.ndarray, float]:
    """Rows of one round, what every column of them collects, and what is collected whatever is done."""
    import pyomo.environ as pyo

    columns = actions.columns
    if not shared_arms(columns):
        rows = rows_of_set(actions)
        cost = np.zeros(len(rows.lower))
        cost[rows.act] = column_values(columns, price)
        return rows, cost, float(price[:, 0].sum())
    model = pyo.ConcreteModel()
    actions.build(model)
    keys = build_levels(model, model.act, columns, price.shape[1])
    model.objective = pyo.Objective(expr=sum(model.level[key] for key in keys), sense=pyo.maximize)
    read = compile_model(model)
    places = {id(variable): j for j, variable in enumerate(read.names.variables)}
    act = np.array([places[id(variable)] for variable in model.act.values()], dtype=np.int64)
    cost = np.zeros(len(read.program.cost))
    for arm, level in keys:
        cost[places[id(model.level[arm, level])]] = price[arm, level]
    untouched = np.bincount(columns.effect.indices, minlength=len(price)) == 0
    return rows_of(read.program, act), cost, float(price[untouched, 0].sum())


# ---- making it
def prove_bound(model: Model, found: Bound, state: np.ndarray | None = None, **options: Any) -> Proven:
    """The prices behind a bound with what bounds each round's rent; a solver proposes the rows' prices.

    Parameters
    ----------
    found
        From :func:`rmab_opt.decisions.bound`, for the same start.
    options
        ``horizon`` and ``discount``, where they were given.

    Raises
    ------
    CapabilityError
        When the bound rests on no prices of arms (the calendar's own).
    """
    if found.method not in ("dual", "highs", "pyomo", "cuts", "none") or found.coupling == "the plan's own program":
        raise CapabilityError("a bound file", found.coupling, ("keep the printed bound", "bound a model of rounds"))
    problem = model.problem
    _, own = require_tabular(problem.dynamics, "the upper bound")
    unit, _, reward = in_unit(own)
    start = problem.start_distribution if state is None else np.eye(reward.shape[1])[state]
    horizon = int(options.get("horizon") or problem.horizon)
    discount = float(problem.discount if options.get("discount") is None else options["discount"])
    prices = np.asarray(found.arm_prices, dtype=np.float64) / unit
    prices = np.array(prices[None] if prices.ndim == 2 else prices)
    if found.kind == "time_indexed" and len(prices) == 1:
        prices = np.repeat(prices, horizon, axis=0)
    if found.kind == "discounted_tail":
        tail = planning.bound(problem, model.actions, kind="discounted", discount=discount, state=state).arm_prices
        prices = np.concatenate([prices, tail[None] / unit])
    # Passive stays free: a price on it is one on all of an arm's actions, taken off both sides.
    prices = prices - prices[:, :, :1]
    proof = Proven(found.kind, prices, "rows", None, horizon, discount, start)
    sets = _sets(model, proof)
    if found.coupling in ("hull", "allowed actions"):
        if all(actions.listed is not None and len(actions.listed) for actions in set(sets)):
            return replace(proof, rents="listing")
        if all(actions.routes is not None for actions in set(sets)) and not shared_arms(model.actions.columns):
            return replace(proof, rents="routes")
    each = [_row_prices(actions, price) for actions, price in zip(sets, prices, strict=True)]
    rows = np.zeros((len(each), max(map(len, each))))
    for t, paid in enumerate(each):
        rows[t, : len(paid)] = paid
    return replace(proof, row_prices=rows)


_KEPT: dict[str, Any] = {}
"""The last round's program, while a file is made."""


def _row_prices(actions: ActionSet, price: np.ndarray) -> np.ndarray:
    """Prices of a round's rows at the arms' prices, proposed by the solver on the linear relaxation."""
    rows, cost, _ = _round_program(actions, price)
    key = (rows.indices.tobytes(), rows.data.tobytes(), rows.row_upper.tobytes(), rows.row_lower.tobytes())
    if _KEPT.get("key") != key:
        from scipy import sparse

        matrix = sparse.csr_array((rows.data, rows.indices, rows.indptr), shape=rows.size)
        n = len(cost)
        program = Program(
            np.zeros(n),
            matrix,
            rows.row_lower,
            rows.row_upper,
            rows.lower,
            rows.upper,
            np.zeros(n, bool),
            maximise=True,
        )
        _KEPT.update(key=key, session=Session.from_arrays(program, "fast"), last=None)
    last = _KEPT["last"]
    if last is not None and np.array_equal(last[0], cost):
        return np.asarray(last[1])
    session = _KEPT["session"]
    session.set_cost(np.arange(len(cost)), cost)
    duals = session.solve().row_duals
    found = np.zeros(len(rows.row_lower)) if duals is None or not np.isfinite(duals).all() else np.array(duals)
    _KEPT["last"] = (cost, found)
    return found


def save_bound(
    model: Model, found: Bound, state: np.ndarray | None = None, *, path: str | Path | None = None, **options: Any
) -> tuple[str, float]:
    """(text of the bound's file, what it proves); written atomically when a path is given.

    Parameters
    ----------
    found
        From :func:`rmab_opt.decisions.bound`.
    state
        int (N,) that it was asked for; None: the model's own start.

    Raises
    ------
    CapabilityError
        See :func:`prove_bound`.
    """
    from rmab_opt.records import write_atomically

    proof = prove_bound(model, found, state, **options)
    _KEPT.clear()
    value, _ = proven_value(model, proof)
    if not np.isfinite(value):
        raise CapabilityError(
            "a proof by prices of rows",
            found.coupling,
            ("bound the constraint's own variables", "keep the printed bound"),
        )
    unit = in_unit(require_tabular(model.problem.dynamics, "the upper bound")[1])[0]
    document = {
        "format": 1,
        "what": "bound",
        "title": model.title,
        "value": value,
        "said": float(found.value),
        "kind": proof.kind,
        "method": found.method,
        "coupling": found.coupling,
        "unit": unit,
        "horizon": proof.horizon,
        "discount": proof.discount,
        "state": None if state is None else [int(s) for s in state],
        "ids": list(model.problem.arms.ids),
        "rents": proof.rents,
        "rounds": len(proof.arm_prices),
        "arm_prices": packed(proof.arm_prices[:, :, 1:], "<f8"),
        "row_prices": None if proof.row_prices is None else packed(proof.row_prices, "<f8"),
    }
    document["digests"] = _digests(model, proof, document)
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if path is not None:
        write_atomically(Path(path), text)
    return text, value


def _digests(model: Model, proof: Proven, document: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of what the bound rests on, and of what the file says beside it."""
    sets = list(dict.fromkeys(_sets(model, proof)))
    found = digests_of_problem(model.problem) | digests_of_set(sets[0])
    for number, actions in enumerate(sets[1:], start=2):
        found |= {f"{name} {number}": said for name, said in digests_of_set(actions).items() if name != "ids"}
    return found | {"said": digest(*(document[name] for name in ("title", "said", "method", "coupling", "state")))}


# ---- the check
def verify_bound(saved: str | Path | Mapping[str, Any], model: Model) -> Verification:
    """Re-check a saved bound without a solver: the first thing that fails is named.

    In this order: format, ids, state, digests, unit, prices, value.

    Parameters
    ----------
    saved
        The path of a file that ``bound --out`` wrote, or its document.

    Raises
    ------
    ModelError
        When the file is no saved bound, or has a field of another type.
    """
    document = saved if isinstance(saved, Mapping) else read_document(Path(saved), "bound", FIX)
    file = parsed(document, BoundFile, "bound", FIX)
    problem = model.problem

    def fail(what: str) -> Verification:
        return Verification((what,), file.value)

    if tuple(file.ids) != tuple(problem.arms.ids):
        raise ModelError("ids: the bound was found for other arms than this model has", "check it with its own model.")
    _, own = require_tabular(problem.dynamics, "the upper bound")
    unit = in_unit(own)[0]
    state = None if file.state is None else problem.check_state(np.asarray(file.state, dtype=np.int64))
    rounds = {"time_indexed": file.horizon, "discounted_tail": file.horizon + 1}.get(file.kind, 1)
    if file.rounds != rounds:
        return fail(f"rounds is {file.rounds}, a bound of kind {file.kind} over {file.horizon} rounds has {rounds}")
    if file.kind.startswith("discounted") and file.discount >= 1.0:
        return fail(f"discount is {file.discount:g}, kind {file.kind} needs one below 1")
    n_arms, n_states, n_actions = own.shape
    taken = unpacked(file.arm_prices, "<f8", "arm_prices", FIX)
    if taken.size != rounds * n_arms * (n_actions - 1) or not np.isfinite(taken).all():
        return fail("arm_prices do not fit the model")
    prices = np.zeros((rounds, n_arms, n_actions))
    prices[:, :, 1:] = taken.reshape(rounds, n_arms, n_actions - 1)
    rows = None if file.row_prices is None else unpacked(file.row_prices, "<f8", "row_prices", FIX)
    if (rows is None) != (file.rents != "rows") or (rows is not None and rows.size % rounds):
        return fail(f"row_prices do not fit rents {file.rents!r}")
    if rows is not None and not np.isfinite(rows).all():
        return fail("row_prices hold NaN or infinity")
    start = problem.start_distribution if state is None else np.eye(n_states)[state]
    by_round = None if rows is None else rows.reshape(rounds, -1)
    proof = Proven(file.kind, prices, file.rents, by_round, file.horizon, file.discount, start)
    mine = _digests(model, proof, document)
    for name in sorted(set(mine) | set(file.digests)):
        if mine.get(name) != file.digests.get(name):
            if name == "said":
                return fail("digests.said: title, said, method, coupling or state is not as it was written")
            return fail(f"digests.{name}: the bound was found for another one than this model's")
    if file.unit != unit:
        return fail(f"unit is {file.unit!r}, the model's {unit!r}")
    value, mass = proven_value(model, proof)
    if not np.isfinite(value):
        return fail("row_prices: they bound no rent of this model's rows")
    if not value <= file.value + CLOSE * mass:
        return fail(f"value is {file.value:.9g}, the prices prove {value:.9g}")
    if value < file.value - CLOSE * mass:
        return fail(f"value is {file.value:.9g}, the prices prove less: {value:.9g}")
    return Verification((), value, True, _sentence(file, value, mass))


def _sentence(file: BoundFile, value: float, mass: float) -> str:
    over = {
        "time_indexed": f"{file.horizon} rounds" + (f", discount {file.discount:g}" if file.discount < 1 else ""),
        "average": "a round in the long run",
    }.get(file.kind, f"an endless run, discount {file.discount:g}")
    by = {"rows": "prices of arms and rows", "listing": "prices of arms, a list", "routes": "prices of arms, routes"}
    said = f"no policy above {value:.6g} over {over}, by {by[file.rents]}"
    if file.said < value - 1e-6 * mass:
        said += f"; that nothing is above {file.said:.6g} is the method's word ({file.method})"
    return said
