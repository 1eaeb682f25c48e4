"""The upper bound as one linear program over expected state-action frequencies.

x[n, s, a] is the expected (discounted) number of rounds arm n spends in state s under action a, or, with a horizon,
x[t, n, s, a] the probability of that at round t. Every policy, even a joint and history-dependent one, gives such
frequencies: they satisfy each arm's balance, and whatever linear rows hold for every allowed action hold for its
expectation. So the program with the action set's own linear relaxation as coupling is an upper bound.

The vectorised form builds the arrays for HiGHS in one pass; :func:`occupancy_model` writes the same as readable Pyomo.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds.rows import row_units
from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError, SolverError
from rmab_opt.planning.costs import Costs
from rmab_opt.planning.coupling import Coupling, merge_identical
from rmab_opt.solver import Profile, Program, Session, load_profile
from rmab_opt.solver.polytope import row_reach

__all__ = ["Occupancy", "Polyhedron", "occupancy_model", "occupancy_program", "polyhedron", "solve_occupancy"]


@dataclass(frozen=True, eq=False)
class Polyhedron:
    """Linear relaxation of what may be done in one round, over z[c] and auxiliary variables w.

    lower <= act @ z + extra @ w <= upper,  0 <= z <= z_upper,  w_lower <= w <= w_upper;  z[c] = 1 gives arm[c] its
    action[c]. An action that no column gives cannot be taken.
    """

    act: sparse.csr_array
    extra: sparse.csr_array
    lower: np.ndarray
    upper: np.ndarray
    w_lower: np.ndarray
    w_upper: np.ndarray
    z_upper: np.ndarray
    arm: np.ndarray
    action: np.ndarray
    names: tuple[str, ...]
    integer: np.ndarray
    """Which auxiliary variables are whole numbers in the true set; dropped by the relaxation."""

    @property
    def n_extra(self) -> int:
        """Number of auxiliary variables a round."""
        return self.w_lower.size

    @classmethod
    def from_coupling(cls, coupling: Coupling, n_arms: int) -> Polyhedron:
        """Rows on all arm-actions; costs must not depend on the state."""
        n_actions = coupling.cost.shape[3]
        if coupling.cost.by_state:
            raise CapabilityError(
                "rows with state-dependent costs", coupling, ("use solve_occupancy with the coupling", "drop the state")
            )
        if coupling.limit.ndim != 1:
            raise CapabilityError(
                "rows whose limits change from round to round",
                coupling,
                ("use method='dual'", "use solve_occupancy with the coupling"),
            )
        size = n_arms * (n_actions - 1)
        acting = np.flatnonzero(np.arange(n_arms * n_actions) % n_actions)
        return cls(
            act=sparse.csr_array(sparse.csc_array(coupling.cost.for_arms(n_arms))[:, acting]),
            extra=sparse.csr_array((coupling.n_rows, 0)),
            lower=np.where(coupling.equal, coupling.limit, -np.inf),
            upper=np.array(coupling.limit),
            w_lower=np.zeros(0),
            w_upper=np.zeros(0),
            z_upper=np.ones(size),
            arm=np.repeat(np.arange(n_arms), n_actions - 1),
            action=np.tile(np.arange(1, n_actions), n_arms),
            names=coupling.names,
            integer=np.zeros(0, dtype=bool),
        )

    def coupling(self, n_arms: int, n_actions: int) -> Coupling | None:
        """The same rows as resources with one price each, or None when auxiliary variables are involved.

        Rows that no combination of single actions can reach are dropped; ranges give two resources.
        """
        if self.n_extra:
            return None
        free = np.zeros((n_arms, n_actions), dtype=bool)
        free[:, 0] = True
        free[self.arm[self.z_upper > 0], self.action[self.z_upper > 0]] = True
        if not free.all():
            return None
        least, most = row_reach(self.act, self.arm)
        slack = 1e-9 * np.maximum(row_units(self.act), np.maximum(np.abs(least), np.abs(most)))
        exact = self.lower == self.upper
        caps = exact | (self.upper < most - slack)
        floors = ~exact & (self.lower > least + slack)
        if not (caps | floors).any():
            return Coupling(np.zeros((1, 1, 1, n_actions)), np.zeros(1), names=("none",))
        # Row by row, a cap before a floor of the same row.
        at = np.concatenate([np.flatnonzero(caps), np.flatnonzero(floors)])
        up = np.arange(at.size) < int(caps.sum())
        order = np.argsort(at, kind="stable")
        at, up = at[order], up[order]
        rows = sparse.csr_array(sparse.diags_array(np.where(up, 1.0, -1.0)) @ self.act[at])
        names = [self.names[k] if cap else f"{self.names[k]} (at least)" for k, cap in zip(at, up, strict=True)]
        return Coupling(
            Costs.of_columns(rows, self.arm, self.action, n_arms, n_actions),
            np.where(up, self.upper[at], -self.lower[at]),
            exact[at] & up,
            names,
        )


def polyhedron(actions: ActionSet, n_actions: int) -> Polyhedron:
    """Rows of an action set's own program in every round, integrality dropped.

    Raises
    ------
    CapabilityError
        When a column acts on several arms, or several columns of an arm can be chosen together.
    """
    actions = actions.lasting
    effect = sparse.csr_array(actions.columns.effect)
    effect.eliminate_zeros()
    if (np.diff(effect.indptr) != 1).any():
        raise CapabilityError(
            "a bound by occupancy measures when a column acts on several arms",
            actions.columns,
            ("use the multi-intervention domain's own bound", "give each arm its own columns"),
        )
    arm, action = effect.indices.astype(np.int64), np.rint(effect.data).astype(np.int64)
    if (np.abs(action - effect.data) > 1e-9).any() or (action < 1).any() or (action >= n_actions).any():
        raise ModelError("a column's effect is no action of its arm", f"use whole numbers from 1 to {n_actions - 1}.")
    if not actions.columns.exclusive and np.bincount(arm).max(initial=0) > 1:
        raise CapabilityError(
            "a bound by occupancy measures when several columns of an arm can be chosen together",
            actions.columns,
            ("declare the columns exclusive", "make the combinations actions of their own"),
        )
    if not actions.structured or actions.outer is not None:
        plain = (actions.outer or actions.plain_rows).as_declared
        size, rows = arm.size, plain.matrix.shape[0]
        return Polyhedron(
            plain.matrix,
            sparse.csr_array((rows, 0)),
            plain.lower,
            plain.upper,
            np.zeros(0),
            np.zeros(0),
            np.ones(size),
            arm,
            action,
            _row_names(actions),
            np.zeros(0, dtype=bool),
        )
    model = actions.model()
    session = Session(model, "exact")
    program = session.program
    act = np.asarray(session.index(model.act), dtype=np.int64)
    other = np.setdiff1d(np.arange(program.cost.size), act)
    matrix = sparse.csc_array(program.matrix)
    forced = np.flatnonzero(program.lower[act] > 0)
    pick = sparse.csr_array((np.ones(forced.size), (np.arange(forced.size), forced)), shape=(forced.size, act.size))
    return Polyhedron(
        sparse.csr_array(sparse.vstack([matrix[:, act], pick])),
        sparse.csr_array(sparse.vstack([matrix[:, other], sparse.csr_array((forced.size, other.size))])),
        np.concatenate([program.row_lower, program.lower[act][forced]]),
        np.concatenate([program.row_upper, np.full(forced.size, np.inf)]),
        program.lower[other],
        program.upper[other],
        program.upper[act],
        arm,
        action,
        tuple(name.removeprefix("constraint") for name in session.row_names),
        program.integer[other],
    )


def _row_names(actions: ActionSet) -> tuple[str, ...]:
    """Names of the rows, in their order: the constraint's own, with the row's key where it has several."""
    rows = actions.outer or actions.plain_rows
    several = Counter(rows.owner)
    return tuple(
        f"{owner}.{key}" if key and (several[owner] > 1 or actions.outer is not None) else owner
        for owner, key in zip(rows.owner, rows.key, strict=True)
    )


@dataclass(frozen=True, eq=False)
class Occupancy:
    """Solution of the linear program.

    Parameters
    ----------
    value
        Optimum; the dual bound of the solver where one is known. ``bound.py`` re-evaluates the prices, so that no
        reported bound rests on solver tolerances.
    x
        Frequencies, (N, S, A) or (T, N, S, A).
    prices
        Shadow prices of the coupling rows in one round's reward units, (K,) or (T, K).
    rows, columns, nonzeros
        Size of the program.
    seconds
        Wall-clock time of build and solve.
    """

    value: float
    x: np.ndarray
    prices: np.ndarray
    rows: int
    columns: int
    nonzeros: int
    seconds: float


# ---------------------------------------------------------------------------------------------------------------------
# Vectorised form


def occupancy_program(
    transition: np.ndarray,
    reward: np.ndarray,
    start: np.ndarray,
    *,
    discount: float = 1.0,
    horizon: int | None = None,
    coupling: Coupling | None = None,
    rows: Polyhedron | None = None,
    transient: bool = False,
    terminal: np.ndarray | None = None,
) -> tuple[Program, np.ndarray]:
    """The linear program as arrays, built in one pass over the non-zero transitions.

    Parameters
    ----------
    transition, reward
        Shapes (M, A, S, S) and (M, S, A).
    start
        Start weights (M, S); a row sums to the number of arms it stands for.
    discount
        Below 1 without a horizon: discounted; 1 without a horizon: average reward.
    horizon
        Rounds T of the time-indexed program.
    coupling, rows
        Resources, and (or) an action set's polyhedron.
    transient
        Average reward only: Kallenberg's transient variables, so that arms with several recurrent classes stay in
        those that the start can reach.
    terminal
        With a horizon: value of ending in each state, (M, S).

    Returns
    -------
    Program, numpy.ndarray
        Columns begin with x in the order (t, n, s, a). The array lists the coupling's rows first, then the
        polyhedron's, shape (rounds, K).
    """
    n_arms, n_actions, n_states, _ = transition.shape
    rounds = 1 if horizon is None else horizon
    pay = np.repeat(_weights(discount, rounds, horizon), reward.size) * np.tile(reward.reshape(-1), rounds)
    if terminal is not None and horizon is not None:
        after = np.einsum("nasx,nx->nsa", transition, terminal).reshape(-1)
        pay[-after.size :] += discount**horizon * after
    allowed = np.ones((n_arms, n_actions), dtype=bool)
    if rows is not None:
        allowed[:, 1:] = False
        open_ = rows.z_upper > 0
        allowed[rows.arm[open_], rows.action[open_]] = True
    most = np.broadcast_to(np.where(allowed[:, None, :], np.inf, 0.0), (n_arms, n_states, n_actions)).reshape(-1)
    draft = _Draft()
    draft.columns(np.zeros(pay.size), np.tile(most, rounds), pay)
    if horizon is None:
        _stationary_balance(draft, transition, start, discount, transient)
    else:
        _timed_balance(draft, transition, start, rounds)
    # With a discount, frequencies are divided by the number of discounted rounds: limits and w keep their meaning.
    share = 1.0 - discount if horizon is None and discount < 1.0 else 1.0
    numbers = np.empty((rounds, 0), dtype=np.int64)
    if coupling is not None:
        numbers = _coupling_rows(draft, coupling, (n_arms, n_states, n_actions), rounds, share)
    if rows is not None:
        numbers = np.hstack([numbers, _action_rows(draft, rows, (n_arms, n_states, n_actions), rounds, share)])
    return draft.program(), numbers


class _Draft:
    """A program's columns and rows while they are written down, in the order in which they come."""

    def __init__(self) -> None:
        self.n_rows = self.n_columns = 0
        self._rows: list[tuple[np.ndarray, np.ndarray]] = []
        self._columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def columns(self, lower: np.ndarray, upper: np.ndarray, cost: np.ndarray) -> int:
        """Number of the first of these columns."""
        first, self.n_columns = self.n_columns, self.n_columns + cost.size
        self._columns.append((lower, upper, cost))
        return first

    def rows(self, lower: np.ndarray, upper: np.ndarray) -> int:
        """Number of the first of these rows."""
        first, self.n_rows = self.n_rows, self.n_rows + lower.size
        self._rows.append((lower, upper))
        return first

    def put(self, row: np.ndarray, column: np.ndarray, amount: np.ndarray | float) -> None:
        """Coefficients; those of one place are added up."""
        row, column, amount = np.broadcast_arrays(row, column, amount)
        self._entries.append((row.ravel(), column.ravel(), amount.ravel()))

    def program(self) -> Program:
        row, column, amount = (np.concatenate(each) for each in zip(*self._entries, strict=True))
        row_lower, row_upper = (np.concatenate(each) for each in zip(*self._rows, strict=True))
        lower, upper, cost = (np.concatenate(each) for each in zip(*self._columns, strict=True))
        return Program(
            cost=cost,
            matrix=sparse.csr_array((amount, (row, column)), shape=(self.n_rows, self.n_columns)),
            row_lower=row_lower,
            row_upper=row_upper,
            lower=lower,
            upper=upper,
            integer=np.zeros(self.n_columns, dtype=bool),
            maximise=True,
        )


def _moves(transition: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column (n, s, a) and balance row (n, next state) of each possible move, with its probability."""
    _, n_actions, n_states, _ = transition.shape
    arm, action, state, following = np.nonzero(transition)
    source = (arm * n_states + state) * n_actions + action
    return source, arm * n_states + following, transition[arm, action, state, following]


def _stationary_balance(
    draft: _Draft, transition: np.ndarray, start: np.ndarray, discount: float, transient: bool
) -> None:
    """What leaves a state is what enters it; on average over rounds where the discount is 1."""
    n_arms, n_actions, n_states, _ = transition.shape
    own = np.arange(n_arms * n_states * n_actions)
    source, target, chance = _moves(transition)
    average = discount == 1.0
    begin = start.reshape(-1).astype(float)
    balance = np.zeros_like(begin) if average else begin
    first = draft.rows(balance, balance)
    draft.put(first + own // n_actions, own, 1.0)
    draft.put(first + target, source, -discount * chance)
    if average:
        total = start.sum(axis=1)
        draft.put(draft.rows(total, total) + own // (n_actions * n_states), own, 1.0)
    if average and transient:
        extra = draft.columns(np.zeros(own.size), np.full(own.size, np.inf), np.zeros(own.size))
        first = draft.rows(begin, begin)
        draft.put(first + own // n_actions, own, 1.0)
        draft.put(first + own // n_actions, extra + own, 1.0)
        draft.put(first + target, extra + source, -chance)


def _timed_balance(draft: _Draft, transition: np.ndarray, start: np.ndarray, rounds: int) -> None:
    """What is in a state at a round is what entered it in the round before."""
    n_arms, n_actions, n_states, _ = transition.shape
    own = np.arange(n_arms * n_states * n_actions)
    source, target, chance = _moves(transition)
    step = np.arange(rounds)[:, None]
    initial = np.zeros((rounds, n_arms * n_states))
    initial[0] = start.reshape(-1)
    first = draft.rows(initial.ravel(), initial.ravel())
    draft.put(first + step * initial.shape[1] + own // n_actions, step * own.size + own, 1.0)
    later = step[:-1]
    draft.put(first + (later + 1) * initial.shape[1] + target, later * own.size + source, -chance)


def _coupling_rows(
    draft: _Draft, coupling: Coupling, shape: tuple[int, int, int], rounds: int, share: float
) -> np.ndarray:
    """Resources of each round; numbers of their rows, (rounds, K)."""
    block = int(np.prod(shape))
    table = sparse.coo_array(coupling.cost.over(shape[0], shape[1]))
    limit = np.broadcast_to(coupling.limit, (rounds, coupling.n_rows))
    first = draft.rows(np.where(coupling.equal, limit, -np.inf).ravel(), limit.ravel())
    step = np.arange(rounds)[:, None]
    draft.put(first + step * coupling.n_rows + table.row, step * block + table.col, table.data * share)
    return first + np.arange(rounds * coupling.n_rows).reshape(rounds, -1)


def _action_rows(draft: _Draft, rows: Polyhedron, shape: tuple[int, int, int], rounds: int, share: float) -> np.ndarray:
    """An action set's polyhedron of each round, on expected use; numbers of its rows, (rounds, K)."""
    _, n_states, n_actions = shape
    block = int(np.prod(shape))
    n_rows = rows.act.shape[0]
    act, extra = sparse.coo_array(rows.act), sparse.coo_array(rows.extra)
    base = (rows.arm[act.col] * n_states * n_actions + rows.action[act.col])[:, None]
    column = (base + n_actions * np.arange(n_states)).ravel()
    step = np.arange(rounds)[:, None]
    first = draft.rows(np.tile(rows.lower, rounds), np.tile(rows.upper, rounds))
    draft.put(
        first + step * n_rows + np.repeat(act.row, n_states),
        step * block + column,
        np.repeat(act.data, n_states) * share,
    )
    free = draft.columns(np.tile(rows.w_lower, rounds), np.tile(rows.w_upper, rounds), np.zeros(rounds * rows.n_extra))
    draft.put(first + step * n_rows + extra.row, free + step * rows.n_extra + extra.col, extra.data)
    return first + np.arange(rounds * n_rows).reshape(rounds, -1)


def _weights(discount: float, rounds: int, horizon: int | None) -> np.ndarray:
    return np.ones(1) if horizon is None else discount ** np.arange(rounds, dtype=float)


def solve_occupancy(
    transition: np.ndarray,
    reward: np.ndarray,
    start: np.ndarray,
    *,
    discount: float = 1.0,
    horizon: int | None = None,
    coupling: Coupling | None = None,
    rows: Polyhedron | None = None,
    transient: bool = False,
    terminal: np.ndarray | None = None,
    algorithm: str = "choose",
    seconds: float | None = None,
    profile: str | Profile = "exact",
) -> Occupancy:
    """Build and solve the linear program with HiGHS; identical arms are merged when only resources couple them.

    Parameters
    ----------
    algorithm
        HiGHS's ``solver`` option: ``"choose"``, ``"simplex"`` or ``"ipm"`` (with crossover).

    Other parameters are those of :func:`occupancy_program`, with ``start`` (N,) or (N, S).

    Raises
    ------
    InfeasibleError
        When no frequencies satisfy the rows, e.g. limits from below that cannot be met even on average.
    SolverError
        When the solver stops before the optimum.
    """
    begun = time.perf_counter()
    transition, reward = np.asarray(transition, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    n_arms, n_actions, n_states, _ = transition.shape
    start = np.asarray(start)
    if start.ndim == 1:
        start = np.eye(n_states)[start]
    merged = None
    if rows is None and terminal is None:
        cost: np.ndarray | Costs = np.zeros((1, 1, 1, n_actions)) if coupling is None else coupling.cost
        merged = merge_identical(transition, reward, cost, start)
        if merged.representative.size < n_arms:
            kinds = merged.representative
            transition, reward, start = transition[kinds], reward[kinds], merged.start
            coupling = None if coupling is None else coupling.of_arms(kinds)
        else:
            merged = None
    program, numbers = occupancy_program(
        transition,
        reward,
        start,
        discount=discount,
        horizon=horizon,
        coupling=coupling,
        rows=rows,
        transient=transient,
        terminal=terminal,
    )
    settings = load_profile(profile)
    settings = dataclasses.replace(settings, options={**settings.options, "solver": algorithm})
    result = Session.from_arrays(program, settings).solve(seconds=seconds)
    if result.status in ("infeasible", "infeasible_or_unbounded"):
        raise InfeasibleError("no policy meets the limits, not even on average", "relax a limit from below.")
    if result.x is None or result.row_duals is None:
        raise SolverError(
            f"the occupancy program was not solved: {result.status}", "give it more time, or method='dual'."
        )
    rounds = numbers.shape[0]
    kinds_ = transition.shape[0]
    x = result.x[: rounds * kinds_ * n_states * n_actions].reshape(rounds, kinds_, n_states, n_actions)
    if merged is not None:
        x = x[:, merged.member] / merged.count[merged.member][:, None, None]
    prices = result.row_duals[numbers]
    if horizon is not None:
        prices = prices / (discount ** np.arange(rounds))[:, None]
    elif discount < 1.0:
        prices = prices * (1.0 - discount)
    return Occupancy(
        value=float(result.objective),
        x=x if horizon is not None else x[0],
        prices=prices if horizon is not None else prices[0],
        rows=program.matrix.shape[0],
        columns=program.matrix.shape[1],
        nonzeros=program.matrix.nnz,
        seconds=time.perf_counter() - begun,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Readable form


def occupancy_model(
    transition: np.ndarray,
    reward: np.ndarray,
    start: np.ndarray,
    *,
    discount: float = 1.0,
    horizon: int | None = None,
    coupling: Coupling | None = None,
    actions: ActionSet | None = None,
) -> Any:
    """The same program as a Pyomo model for teaching, tests and further rows; about 1 s per 50,000 non-zeros.

    Components: ``x[t, n, s, a]``, ``balance``, ``resource[t, k]``, ``use[t, c]`` (expected use of column c in one
    round) and ``allowed[t]`` with the action set's own constraints on that expectation. ``t`` is 0 without a horizon.
    """
    import pyomo.environ as pyo

    n_arms, n_actions, n_states, _ = transition.shape
    start = np.eye(n_states)[start] if np.ndim(start) == 1 else np.asarray(start)
    average = horizon is None and discount == 1.0
    rounds = 1 if horizon is None else horizon
    # Divided by the number of discounted rounds, frequencies are those of one round, as limits are.
    share = 1.0 - discount if horizon is None and not average else 1.0
    weight = [discount**t if horizon is not None else 1.0 for t in range(rounds)]
    pay = np.asarray(reward)
    model = pyo.ConcreteModel()
    model.T, model.N = pyo.RangeSet(0, rounds - 1), pyo.RangeSet(0, n_arms - 1)
    model.S, model.A = pyo.RangeSet(0, n_states - 1), pyo.RangeSet(0, n_actions - 1)
    model.x = pyo.Var(model.T, model.N, model.S, model.A, domain=pyo.NonNegativeReals)

    @model.Objective(sense=pyo.maximize)
    def total_reward(m: Any) -> Any:
        return pyo.quicksum(
            weight[t] * float(pay[n, s, a]) * m.x[t, n, s, a] for t in m.T for n in m.N for s in m.S for a in m.A
        )

    @model.Constraint(model.T, model.N, model.S)
    def balance(m: Any, t: int, n: int, s: int) -> Any:
        out = sum(m.x[t, n, s, a] for a in m.A)
        if horizon is not None and t == 0:
            return out == float(start[n, s])
        before = t if horizon is None else t - 1
        inflow = sum(
            float(transition[n, a, old, s]) * m.x[before, n, old, a]
            for old in m.S
            for a in m.A
            if transition[n, a, old, s]
        )
        if horizon is not None or average:
            return out == inflow
        return out == float(start[n, s]) + discount * inflow

    if average:

        @model.Constraint(model.N)
        def total(m: Any, n: int) -> Any:
            return sum(m.x[0, n, s, a] for s in m.S for a in m.A) == 1

    if coupling is not None:
        cost = np.broadcast_to(coupling.cost.dense(), (coupling.n_rows, n_arms, n_states, n_actions))
        limit = np.broadcast_to(coupling.limit, (rounds, coupling.n_rows))

        @model.Constraint(model.T, range(coupling.n_rows))
        def resource(m: Any, t: int, k: int) -> Any:
            used = share * pyo.quicksum(
                float(cost[k, n, s, a]) * m.x[t, n, s, a] for n in m.N for s in m.S for a in m.A if cost[k, n, s, a]
            )
            return used == float(limit[t, k]) if coupling.equal[k] else used <= float(limit[t, k])

    if actions is not None:
        shape = polyhedron(actions, n_actions)

        model.use = pyo.Var(model.T, range(len(actions)), bounds=(0.0, 1.0))

        @model.Constraint(model.T, range(len(actions)))
        def expected(m: Any, t: int, c: int) -> Any:
            return share * sum(m.x[t, int(shape.arm[c]), s, int(shape.action[c])] for s in m.S) == m.use[t, c]

        @model.Block(model.T, actions.order)
        def allowed(b: Any, t: int, name: str) -> None:
            actions.constraints[name].build(b, {c: model.use[t, c] for c in range(len(actions))}, actions.columns)

        covered = set(zip(shape.arm.tolist(), shape.action.tolist(), strict=True))
        for n in model.N:
            for a in range(1, n_actions):
                if (n, a) not in covered:
                    for t in model.T:
                        for state in model.S:
                            model.x[t, n, state, a].fix(0.0)

        pyo.TransformationFactory("core.relax_integer_vars").apply_to(model)
    return model
