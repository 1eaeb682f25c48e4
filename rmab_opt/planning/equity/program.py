"""The relaxed equity problem as one linear program over expected state-action frequencies, solved by HiGHS."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import sparse

from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError, SolverError
from rmab_opt.planning.coupling import Coupling, merge_identical
from rmab_opt.planning.equity.groups import Groups
from rmab_opt.planning.equity.relaxed import Answer, Stage
from rmab_opt.planning.occupancy import Polyhedron, occupancy_program
from rmab_opt.solver import Program, Session, load_profile

__all__ = ["EquityProgram"]

MOST_TANGENTS = 200
"""Rounds of tangents; ten to thirteen reach 1e-7."""

MODES = ("step", "constant", "total", "capacity")


class EquityProgram:
    """Columns: frequencies x (and the action set's own variables), budgets b, group values v, z, and u_g <= U(v_g).

    Parameters
    ----------
    transition, reward, start
        P[n, a, s, s'] (N, A, S, S), r[n, s, a] (N, S, A), probabilities of the first states (N, S).
    groups
        May overlap, except for the modes with group budgets.
    rows
        What couples the arms in a round: resources or an action set's polyhedron.
    past
        Mean reward each group has collected before, (K,).
    mode
        How the one budget of ``rows`` is shared: ``step``, anew in every round; ``constant``, one number a group for
        all rounds (the published decision); ``total``, one number a group on its discounted total; ``capacity``,
        the budget itself is a variable.
    whole
        Whole budgets, for ``constant`` and ``total``: a mixed-integer program.
    gini, ratio
        Ceiling on the Gini coefficient of the group values; least ratio of any group's value to any other's.
    arm_floors
        Least value of single arms, (N,), -inf for none.
    """

    def __init__(
        self,
        transition: np.ndarray,
        reward: np.ndarray,
        start: np.ndarray,
        groups: Groups,
        rows: Coupling | Polyhedron,
        *,
        horizon: int,
        discount: float,
        past: np.ndarray | None = None,
        mode: str = "step",
        whole: bool = False,
        gini: float | None = None,
        ratio: float | None = None,
        arm_floors: np.ndarray | None = None,
    ) -> None:
        if mode not in MODES:
            raise ModelError(f"mode is {mode!r}", f"use one of {', '.join(MODES)}.")
        self.groups, self.horizon, self.discount, self.mode = groups, horizon, discount, mode
        self.past = np.zeros(len(groups)) if past is None else np.asarray(past, dtype=float)
        coupling = rows if isinstance(rows, Coupling) else rows.coupling(*transition.shape[:2])
        if mode != "step" and (coupling is None or coupling.n_rows != 1 or coupling.limit.ndim != 1):
            raise CapabilityError(f"mode {mode!r}", rows, ("use mode='step'", "use a single budget"))
        member = groups.member
        if coupling is not None and arm_floors is None:
            # Identical arms of the same groups move as one pool, as long as nothing asks for a single arm.
            marks = np.concatenate(
                [member.astype(float)[:, :, None, None], _by_arm(coupling, len(transition))[:, :, None]]
            )
            merged = merge_identical(transition, reward, _one_state(marks), start)
            kinds = merged.representative
            transition, reward, start, member = transition[kinds], reward[kinds], merged.start, member[:, kinds]
            if coupling.cost.shape[1] > 1:
                coupling = dataclasses.replace(coupling, cost=coupling.cost[:, kinds])
        n_types, n_actions, n_states, _ = transition.shape
        inner = {"coupling": coupling} if coupling is not None else {"rows": rows}
        base, self._numbers = occupancy_program(
            transition,
            reward,
            start,
            discount=discount,
            horizon=horizon,
            **(inner if mode == "step" else {}),  # type: ignore[arg-type]
        )
        self._weight = discount ** np.arange(horizon)
        block = n_types * n_states * n_actions
        n_base = base.cost.size
        n_groups = len(groups)
        per_round = np.repeat(member.astype(float) / groups.sizes[:, None], n_states * n_actions, axis=1)
        worth = np.tile(per_round * reward.reshape(1, -1), horizon) * np.repeat(self._weight, block)
        unit = np.ones((n_types, n_states, n_actions))
        unit[:, :, 0] = 0.0
        if mode != "step":
            assert coupling is not None
            unit = np.broadcast_to(coupling.cost[0], unit.shape)
        self._acted = np.repeat(member.astype(float), n_states * n_actions, axis=1) * (
            (np.arange(block) % n_actions) > 0
        )
        self._shape = (horizon, block)
        used = np.repeat(member.astype(float), n_states * n_actions, axis=1) * unit.reshape(1, -1)
        n_budgets = {"step": 0, "constant": n_groups, "total": n_groups, "capacity": horizon}[mode]
        self._budget = n_base + np.arange(n_budgets)
        self._value = n_base + n_budgets + np.arange(n_groups)
        self._z = int(self._value[-1]) + 1
        self._u = self._z + 1 + np.arange(n_groups)
        width = n_base + n_budgets + 2 * n_groups + 1
        parts, lower, upper = [_wide(base.matrix, width)], [base.row_lower], [base.row_upper]
        self._first = base.matrix.shape[0]

        def add(matrix: sparse.csr_array, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
            at = sum(part.shape[0] for part in parts) + np.arange(matrix.shape[0])
            parts.append(_wide(matrix, width))
            lower.append(np.broadcast_to(low, matrix.shape[:1]).astype(float))
            upper.append(np.broadcast_to(high, matrix.shape[:1]).astype(float))
            return at

        def columns(at: np.ndarray, coefficient: float) -> sparse.csr_array:
            return sparse.csr_array((np.full(len(at), coefficient), (np.arange(len(at)), at)), shape=(len(at), width))

        worth_rows = _wide(sparse.csr_array(worth), width)
        self._define = add(worth_rows + columns(self._value, -1.0), -self.past, -self.past)
        self._floor = add(columns(self._value, 1.0), -np.inf, np.inf)
        below = columns(np.full(n_groups, self._z), 1.0) + columns(self._value, -1.0)
        self._lowest = add(below, -np.inf, np.inf)
        if mode != "step":
            assert coupling is not None
            self._share_budget(add, columns, used, float(coupling.limit[0]), block, width)
        if ratio is not None or gini is not None:
            width = self._bound_spread(parts, lower, upper, width, ratio, gini)
        if arm_floors is not None:
            by_arm = sparse.csr_array(np.kron(np.eye(n_types), np.ones(n_states * n_actions)) * reward.reshape(1, -1))
            rows_ = sparse.hstack([by_arm * weight for weight in self._weight])
            parts.append(_wide(sparse.csr_array(rows_), width))
            lower.append(np.asarray(arm_floors, dtype=float))
            upper.append(np.full(n_types, np.inf))
        free = width - n_base
        integer = np.zeros(width, dtype=bool)
        integer[self._budget] = whole
        low = np.concatenate([base.lower, np.full(free, -np.inf)])
        low[self._budget] = 0.0
        self._integer = whole
        low[self._u[-1] + 1 :] = 0.0
        program = Program(
            cost=np.zeros(width),
            matrix=sparse.csr_array(sparse.vstack([_wide(part, width) for part in parts])),
            row_lower=np.concatenate(lower),
            row_upper=np.concatenate(upper),
            lower=low,
            upper=np.concatenate([base.upper, np.full(free, np.inf)]),
            integer=integer,
            maximise=True,
        )
        self.session = Session.from_arrays(program, load_profile("exact"))
        self.size = program.matrix.shape

    def _share_budget(self, add, columns, used: np.ndarray, limit: float, block: int, width: int) -> None:  # type: ignore[no-untyped-def]
        """Rows that tie the use of each round, or of all rounds, to the budget variables."""
        n_groups, horizon = len(self.groups), self.horizon
        if self.mode == "capacity":
            total = sparse.csr_array(np.kron(np.eye(horizon), np.minimum(used.sum(axis=0), used.max(axis=0))))
            add(_wide(total, width) + columns(self._budget, -1.0), -np.inf, 0.0)
            return
        self.groups.label  # noqa: B018 - raises when groups overlap
        add(
            columns(self._budget, 1.0).sum(axis=0).reshape(1, -1) * sparse.csr_array(np.eye(1))
            if False
            else sparse.csr_array((np.ones(n_groups), (np.zeros(n_groups, dtype=int), self._budget)), shape=(1, width)),
            -np.inf,
            limit,
        )
        if self.mode == "constant":
            for t in range(horizon):
                now = sparse.csr_array((n_groups, t * block))
                row = sparse.csr_array(sparse.hstack([now, sparse.csr_array(used)]))
                add(_wide(row, width) + columns(self._budget, -1.0), -np.inf, 0.0)
        else:
            row = sparse.csr_array(np.tile(used, horizon) * np.repeat(self._weight, block))
            add(_wide(row, width) + columns(self._budget, -float(self._weight.sum())), -np.inf, 0.0)
