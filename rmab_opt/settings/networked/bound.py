"""What no policy exceeds on a contact graph: a linear program over chances, each contact's help capped.

Let x[t, v, s, a] be the chance that arm v is in state s and action a is done to it in round t, z[t, v] that it is
active at the round's end, h[t, v, s, a] that besides others' activity reaches it. Whatever the policy,

    z = sum over s, a of p(s, a) x + (1 - p(s, a)) h,   h <= capped x,   sum over s, a of h <= sum over u of w_uv z_u,

because an arm's own luck is independent of what reaches it along paths that avoid it, activity reaches it over a last
contact that is live, and it is not reached when all its contacts fail: capped = 1 - product of (1 - w_uv). Actions
satisfy the declared rows in expectation. The program's value is an upper limit. It is computed again, by numpy, from
the prices of the solver's rows: with any prices y >= 0 of rows A x <= b and 0 <= x <= 1,
c x <= y b + sum of max(c - y A, 0).

References
----------
Hawkins (2003) for the rows in expectation; the union bound of influence is that of Kempe, Kleinberg, Tardos (2003).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from rmab_opt.actions import ActionSet
from rmab_opt.errors import ModelError, SolverError
from rmab_opt.problem import Problem
from rmab_opt.settings.networked.cascade import Cascade
from rmab_opt.settings.networked.greedy import arm_of_column
from rmab_opt.solver import Program, Session, load_profile

__all__ = ["ContactBound", "contact_bound"]

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class ContactBound:
    """An upper limit of every policy's expected total, proven by prices that numpy sums up again.

    Parameters
    ----------
    value
        In reward units, discounted as the problem says.
    rows
        Of the linear program.
    """

    value: float
    rows: int

    coupling = "contacts' help capped, rows in expectation"
    paths = 0

    def __float__(self) -> float:
        return self.value

    @property
    def mean(self) -> float:
        """The bound itself: nothing is drawn."""
        return self.value

    @property
    def error(self) -> float:
        """Nothing is drawn."""
        return 0.0

    def summary(self) -> dict[str, Any]:
        """Plain numbers for reports and JSON."""
        return {"value": self.value, "kind": "linear program over chances", "coupling": self.coupling}

    def __str__(self) -> str:
        return f"upper bound {self.value:.6g} ({self.coupling}; proven by the prices of {self.rows} rows)"


def contact_bound(problem: Problem, actions: ActionSet, *, state: np.ndarray | None = None) -> ContactBound:
    """Upper limit of every policy's expected total from the problem's start, or from states (N,).

    Raises
    ------
    SolverError
        When the linear program is not solved.
    """
    dynamics: Any = problem.dynamics
    program = _Program(problem, dynamics, actions, state)
    size = len(program.worth)
    profile = load_profile("exact")
    # Interior points without crossover: ten times quicker here, and any prices prove a bound.
    profile = replace(profile, options={**profile.options, "solver": "ipm", "run_crossover": "off"})
    found = Session.from_arrays(
        Program(
            cost=program.worth,
            matrix=program.matrix,
            row_lower=np.full(len(program.limit), -np.inf),
            row_upper=program.limit,
            lower=np.zeros(size),
            upper=np.ones(size),
            integer=np.zeros(size, dtype=bool),
            maximise=True,
        ),
        profile,
    ).solve()
    if found.row_duals is None:
        raise SolverError(f"the bound's linear program ended {found.status}", "use fewer arms or a shorter horizon.")
    # Whatever the sign that a solver gives prices of a maximum, one of the two is the good one, and both are valid.
    values = [program.proven(np.maximum(sign * found.row_duals, 0.0)) for sign in (1.0, -1.0)]
    return ContactBound(min(values), len(program.limit))


class _Program:
    """max worth . x over matrix x <= limit, 0 <= x <= 1; equalities are pairs of rows."""

    def __init__(self, problem: Problem, dynamics: Cascade, actions: ActionSet, state: np.ndarray | None) -> None:
        n, rounds = problem.n_arms, problem.horizon
        start = problem.start_distribution[:, 1] if state is None else np.asarray(state, dtype=np.float64)
        self.n, self.block = n, 9 * n
        weights = sparse.csr_array(dynamics.graph.weights)
        capped = 1.0 - np.exp(_log_fails(weights))
        own = self._round(dynamics, weights, capped)
        size, parts, limits = rounds * self.block, [], []
        eye, both = sparse.eye_array(n), sparse.csr_array((n, n))
        # Chances of the states now: sum over a of x[s, a]; those of the round before ended in z.
        for active in (0, 1):
            columns = [eye if k in (2 * active, 2 * active + 1) else both for k in range(8)]
            share = sparse.hstack([*columns, both])
            before = sparse.hstack([*[both] * 8, eye if active else -eye])
            for t in range(rounds):
                row = sparse.hstack(_placed(rounds, self.block, n, {t: share, **({t - 1: -before} if t else {})}))
                constant = (start if active else 1.0 - start) if t == 0 else np.full(n, 0.0 if active else 1.0)
                parts += [row, -row]
                limits += [constant, -constant]
        for t in range(rounds):
            parts.append(sparse.hstack(_placed(rounds, self.block, own[0].shape[0], {t: own[0]})))
            limits.append(own[1])
            rows = self._rows(problem, actions, t)
            if rows is not None:
                parts.append(sparse.hstack(_placed(rounds, self.block, rows[0].shape[0], {t: rows[0]})))
                limits.append(rows[1])
        self.matrix = sparse.csr_array(sparse.vstack(parts))
        self.limit = np.concatenate(limits)
        self.worth = np.zeros(size)
        for t in range(rounds):
            self.worth[t * self.block + 8 * n : (t + 1) * self.block] = problem.discount**t * dynamics.value

    def _round(
        self, dynamics: Cascade, weights: sparse.csr_array, capped: np.ndarray
    ) -> tuple[sparse.csr_array, np.ndarray]:
        """Rows of one round over x[0,0], x[0,1], x[1,0], x[1,1], h likewise, z; each a block of N."""
        n = self.n
        eye, none = sparse.eye_array(n), sparse.csr_array((n, n))
        chance = [dynamics.chance[:, s, a] for s in (0, 1) for a in (0, 1)]
        ends = sparse.hstack(
            [*(sparse.diags_array(p) for p in chance), *(sparse.diags_array(1.0 - p) for p in chance), -eye]
        )
        rows = [ends, -ends]
        for k in range(4):
            blocks = [none] * 9
            blocks[4 + k], blocks[k] = eye, -sparse.diags_array(capped)
            rows.append(sparse.hstack(blocks))
        rows.append(sparse.hstack([*[none] * 4, *[eye] * 4, -weights.T]))
        found = sparse.csr_array(sparse.vstack(rows))
        return found, np.zeros(found.shape[0])

    def _rows(self, problem: Problem, actions: ActionSet, period: int) -> tuple[sparse.csr_array, np.ndarray] | None:
        """The declared rows over what is done to each arm: finite limits of both sides."""
        now = actions.at(period) if actions.open_constraints else actions
        arm, plain = arm_of_column(now.columns), now.plain_rows
        n, columns = self.n, len(arm)
        pick = sparse.csr_array((np.ones(columns), (np.arange(columns), arm)), shape=(columns, n))
        none = sparse.csr_array((columns, n))
        acted = sparse.csr_array(plain.matrix) @ sparse.hstack([none, pick, none, pick, *[none] * 5])
        untouched = np.setdiff1d(np.arange(n), arm)
        upper, lower = np.asarray(plain.upper, dtype=np.float64), np.asarray(plain.lower, dtype=np.float64)
        high, low = np.isfinite(upper), np.isfinite(lower)
        rows, limits = [sparse.csr_array(acted)[high], -sparse.csr_array(acted)[low]], [upper[high], -lower[low]]
        if len(untouched):
            shut = sparse.csr_array(
                (np.ones(len(untouched)), (np.arange(len(untouched)), untouched)), (len(untouched), n)
            )
            off = sparse.csr_array((len(untouched), n))
            rows.append(sparse.hstack([off, shut, off, shut, *[off] * 5]))
            limits.append(np.zeros(len(untouched)))
        matrix = sparse.csr_array(sparse.vstack(rows))
        return (matrix, np.concatenate(limits)) if matrix.shape[0] else None

    def proven(self, prices: np.ndarray) -> float:
        """The limit that prices (rows,) prove, rounded outward."""
        if not np.isfinite(prices).all():
            raise ModelError("the bound's prices are not finite", "report the model.")
        reduced = self.worth - self.matrix.T @ prices
        size = float(
            np.abs(self.limit) @ prices
            + np.abs(self.worth).sum()
            + (abs(self.matrix) @ np.ones(len(self.worth))) @ prices
        )
        return float(prices @ self.limit + np.maximum(reduced, 0.0).sum()) + 8 * EPS * size


def _log_fails(weights: sparse.csr_array) -> np.ndarray:
    """log of the chance that every contact into each arm fails, (N,)."""
    into = sparse.coo_array(weights)
    with np.errstate(divide="ignore"):
        return np.bincount(into.col, np.log1p(-into.data), minlength=weights.shape[0])


def _placed(rounds: int, width: int, height: int, at: dict[int, Any]) -> list[Any]:
    """Blocks of one row of rounds: those given, zeros for the others."""
    return [at.get(t, sparse.csr_array((height, width))) for t in range(rounds)]
