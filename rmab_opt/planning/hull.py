"""The upper bound that couples arms through the allowed actions themselves, not through a linear relaxation of them.

Price every action of every arm in every round, mu[t, n, a]. Under prices the arms no longer compete, and whatever is
done in a round collects at most h(mu_t) = max over allowed actions of the sum over n of mu[t, n, a_n]. So

    g(mu) = sum over n of V_n(mu) + sum over t of discount**t * h(mu_t)

is an upper bound for every mu, also where columns act on several arms or share them. Its minimum is the program over
expected frequencies whose actions are mixtures of allowed actions (Dantzig-Wolfe); the linear relaxation of the action
set can only be looser. Here that program's dual is built up action by action; each try evaluates g exactly.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from rmab_opt.actions import ActionSet, arm_levels, build_levels, column_values, shared_arms
from rmab_opt.errors import ModelError, SolverError
from rmab_opt.overdue import checkpoint
from rmab_opt.planning.lagrangian import priced_arms_value
from rmab_opt.solver import Program, Session, load_profile

__all__ = ["ActionOracle", "Hull", "hull_bound"]

CUT_TOLERANCE = 1e-9
"""How far an action must exceed the rent it is granted, relative to the prices, before it becomes a row."""

CAUTION = 0.5
"""Share of the way from the last program's prices back to the best known ones at which prices are tried: plain cutting
planes jump between extremes."""


class ActionOracle:
    """The most that an allowed action collects when every arm's action has a price.

    Parameters
    ----------
    actions
        Listed where small, or by routes (:attr:`ActionSet.routes`); otherwise one mixed-integer program a question,
        started from the last answer.
    n_actions
        Actions A an arm has.
    relative_gap
        Of the program; what it leaves open is added to the answer.

    Raises
    ------
    ModelError
        When columns add up to an action that the arms do not have, or add fractions.
    """

    def __init__(self, actions: ActionSet, n_actions: int, relative_gap: float = 1e-6) -> None:
        self.actions, self.n_actions, self.relative_gap = actions, n_actions, relative_gap
        self.allowed = arm_levels(actions.columns, n_actions)
        """Actions that columns can give each arm, bool (N, A)."""
        effect = actions.columns.effect.data
        if (effect != np.rint(effect)).any():
            raise ModelError("columns add fractions of actions", "let columns add whole actions.")
        if self._treated is not None and self._treated.max(initial=0) >= n_actions:
            raise ModelError(
                f"columns add up to action {self._treated.max()} of an arm, arms have 0 to {n_actions - 1}",
                "give the arms more actions, or allow fewer columns together.",
            )

    @property
    def listed(self) -> bool:
        """Whether all actions are listed, so that questions cost next to nothing."""
        return self._treated is not None

    @cached_property
    def _treated(self) -> np.ndarray | None:
        """Ways to treat the arms, (M, N), where all are listed."""
        listed = self.actions.listed
        return None if listed is None else np.unique(self.actions.columns.arm_action(listed), axis=0)

    @cached_property
    def _one_hot(self) -> np.ndarray:
        assert self._treated is not None
        return np.eye(self.n_actions)[self._treated].reshape(len(self._treated), -1)

    @cached_property
    def _program(self) -> tuple[Any, Session, np.ndarray]:
        """(model, session, columns of ``act``); the Param ``price`` holds the objective."""
        import pyomo.environ as pyo

        model = pyo.ConcreteModel()
        self.actions.build(model)
        columns = self.actions.columns
        if shared_arms(columns):
            keys = build_levels(model, model.act, columns, self.n_actions)
            size, terms = len(keys), [model.level[key] for key in keys]
        else:
            size, terms = len(columns), [model.act[c] for c in range(len(columns))]
        model.price = pyo.Param(range(size), mutable=True, initialize=0.0, domain=pyo.Reals)
        model.objective = pyo.Objective(
            expr=pyo.quicksum(model.price[k] * term for k, term in enumerate(terms)), sense=pyo.maximize
        )
        profile = replace(load_profile("fast"), relative_gap=self.relative_gap, absolute_gap=1e-9, at_limit="raise")
        session = Session(model, profile)
        return model, session, np.asarray(session.index(model.act), dtype=np.int64)

    def action(self, values: np.ndarray) -> np.ndarray:
        """An allowed action, int64 (C,), whose sum of arm values, (N, A), is largest."""
        listed = self.actions.listed
        if listed is not None:
            arm = np.arange(len(values))
            return listed[values[arm, self.actions.columns.arm_action(listed)].sum(axis=1).argmax()].astype(np.int64)
        if self.actions.routes is not None and not shared_arms(self.actions.columns):
            return self.actions.routes.best(column_values(self.actions.columns, values))[0]
        self.best(values[None])
        _, session, act = self._program
        assert session.last_result is not None
        assert session.last_result.x is not None
        return np.rint(session.last_result.x[act]).astype(np.int64)

    def best(self, prices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rents, proven upper values (T,), and the arms' actions that attain them within the gap, (T, N).

        Parameters
        ----------
        prices
            (T, N, A); the passive action's price counts too.
        """
        if self._treated is not None:
            worth = prices.reshape(len(prices), -1) @ self._one_hot.T
            best = worth.argmax(axis=1)
            return worth[np.arange(len(prices)), best], self._treated[best]
        rents, treated = np.empty(len(prices)), np.empty(prices.shape[:2], dtype=np.int64)
        columns, arm = self.actions.columns, np.arange(prices.shape[1])
        if self.actions.routes is not None and not shared_arms(columns):
            for t, price in enumerate(prices):
                action, _ = self.actions.routes.best(column_values(columns, price))
                treated[t] = columns.arm_action(action)
                rents[t] = price[arm, treated[t]].sum()
            return rents, treated
        _, session, act = self._program
        last: np.ndarray | None = None
        for t, price in enumerate(prices):
            if t and np.array_equal(price, prices[t - 1]):
                rents[t], treated[t] = rents[t - 1], treated[t - 1]
                continue
            if shared_arms(columns):
                touched = np.bincount(columns.effect.indices, minlength=len(arm)) > 0
                session.parameters["price"][:] = price[self.allowed & touched[:, None]]
                offset = float(price[~touched, 0].sum())
            else:
                session.parameters["price"][:] = column_values(columns, price)
                offset = float(price[:, 0].sum())
            if last is not None:
                session.start(act, last)
            result = session.solve()
            if result.x is None or not np.isfinite(result.bound):
                raise SolverError(f"rents were not bounded: {result.status}", "bound the constraint's own variables.")
            last = np.rint(result.x[act])
            treated[t] = columns.arm_action(last)
            rents[t] = max(result.bound + offset, float(price[arm, treated[t]].sum()))
        return rents, treated


@dataclass(frozen=True, eq=False)
class Hull:
    """Prices found, what they prove, and how.

    ``value`` is g at ``prices`` (T, N, A), ``lower`` the last program's optimum: the smallest g lies between them.
    """

    value: float
    lower: float
    prices: np.ndarray
    tries: int
    actions_used: int
    converged: bool
    seconds: float


def hull_bound(
    transition: np.ndarray,
    reward: np.ndarray,
    start: np.ndarray,
    oracle: ActionOracle,
    *,
    horizon: int,
    discount: float = 1.0,
    prices: np.ndarray | None = None,
    terminal: np.ndarray | None = None,
    constant: bool = False,
    tolerance: float = 1e-4,
    seconds: float | None = None,
) -> Hull:
    """Smallest g over prices, to a relative gap or until time is up; the best value found is a bound either way.

    Parameters
    ----------
    transition, reward, start
        Shapes (N, A, S, S), (N, S, A), (N, S).
    prices
        Where to begin, (T, N, A): the linear relaxation's prices are good ones. Zero by default.
    terminal
        Values of the arms' states after the last round, (N, S); zero by default.
    constant
        One price an arm and action for all rounds: a looser bound, and prices that do not know the round.
    """
    begun = time.perf_counter()
    n_arms, n_states, n_actions = reward.shape
    allowed = oracle.allowed
    # A price on the passive action shifts all of an arm's prices alike; it stays 0.
    priced = allowed & (allowed.sum(axis=1) > 1)[:, None]
    priced[:, 0] = False
    number = np.full((n_arms, n_actions), -1)
    number[priced] = np.arange(int(priced.sum()))
    after = np.zeros((n_arms, n_states)) if terminal is None else terminal
    nonnegative = oracle.actions.monotone and n_actions == 2 and not shared_arms(oracle.actions.columns)
    master = _Master(transition, reward, start, number, allowed, horizon, discount, after, constant, nonnegative)
    weight = discount ** np.arange(horizon)
    best_prices = np.zeros((horizon, n_arms, n_actions)) if prices is None else np.array(prices)
    best_prices[:, number < 0] = 0.0
    if constant:
        best_prices[:] = best_prices.mean(axis=0)
    best, lower, tries, converged = np.inf, -np.inf, 0, False
    known: dict[bytes, np.ndarray] = {}
    trial, caution, asked = best_prices, CAUTION, None
    while True:
        checkpoint()
        rents, treated = oracle.best(trial)
        tries += 1
        value = priced_arms_value(transition, reward, start, trial, horizon, discount, allowed, after) + float(
            weight @ rents
        )
        if value < best:
            best, best_prices = value, trial
        for action in treated:
            known.setdefault(action.tobytes(), action)
        late = seconds is not None and time.perf_counter() - begun > seconds
        converged = best - lower <= tolerance * max(1.0, abs(best))
        if converged or late:
            break
        cut = master.cut(np.array(list(known.values())), asked)
        if asked is not None and not cut:
            if caution == 0.0:
                # Nothing cuts the program's own prices: its optimum is the smallest g, up to the oracle's gap.
                break
            caution, trial = 0.0, asked.prices
            continue
        asked = master.solve(None if seconds is None else max(1.0, seconds - (time.perf_counter() - begun)))
        while asked is not None and not oracle.listed and master.cut(np.array(list(known.values())), asked):
            # Actions at hand are tried before a program is asked for new ones.
            asked = master.solve(None if seconds is None else max(1.0, seconds - (time.perf_counter() - begun)))
        if asked is None:
            break
        lower = max(lower, asked.value)
        if best - lower <= tolerance * max(1.0, abs(best)):
            converged = True
            break
        caution = CAUTION
        trial = caution * best_prices + (1.0 - caution) * asked.prices
    return Hull(best, min(lower, best), best_prices, tries, len(known), converged, time.perf_counter() - begun)


@dataclass(frozen=True, eq=False)
class _Asked:
    """An optimum of the program: its value, prices (T, N, A) and the rents (T,) it grants."""

    value: float
    prices: np.ndarray
    rents: np.ndarray


class _Master:
    """The linear program over prices, rents and arm values whose rows are the actions seen so far.

    min sum of start * v[0] + sum of discount**t rent[t]:  v[t, n, s] + mu[t, n, a] >= r[n, s, a] + discount * P v[t+1],
    in the states that the start can reach, and rent[t] >= sum over n of mu[t, n, a_n] for each known action.
    """

    def __init__(
        self,
        transition: np.ndarray,
        reward: np.ndarray,
        start: np.ndarray,
        number: np.ndarray,
        allowed: np.ndarray,
        horizon: int,
        discount: float,
        terminal: np.ndarray,
        constant: bool,
        nonnegative: bool,
    ) -> None:
        n_arms, n_states, _ = reward.shape
        n_priced = int((number >= 0).sum())
        rounds = 1 if constant else horizon
        self.horizon, self.constant, self.number = horizon, constant, number
        self.n_priced = n_priced
        step = np.einsum("nast,na->nst", transition, allowed.astype(float)) > 0
        reachable = np.zeros((horizon, n_arms, n_states), dtype=bool)
        reachable[0] = start > 0
        for t in range(1, horizon):
            reachable[t] = np.einsum("ns,nst->nt", reachable[t - 1].astype(float), step.astype(float)) > 0
        # Columns: prices, rents, then the values of reachable states.
        self.first_rent, first_value = rounds * n_priced, rounds * n_priced + rounds
        place = np.full(reachable.shape, -1)
        place[reachable] = first_value + np.arange(int(reachable.sum()))
        size = first_value + int(reachable.sum())
        cost = np.zeros(size)
        weight = discount ** np.arange(horizon)
        cost[self.first_rent : first_value] = weight.sum() if constant else weight
        known = start > 0
        cost[place[0][known]] = start[known]
        rows, columns, data, right = [], [], [], []
        count = 0
        for t in range(horizon):
            arm, state, action = np.nonzero(reachable[t][:, :, None] & allowed[:, None, :])
            row = count + np.arange(arm.size)
            rows.append(row)
            columns.append(place[t][arm, state])
            data.append(np.ones(arm.size))
            price = number[arm, action]
            with_price = price >= 0
            rows.append(row[with_price])
            columns.append((0 if constant else t) * n_priced + price[with_price])
            data.append(np.ones(int(with_price.sum())))
            if t + 1 < horizon:
                chance = transition[arm, action, state]
                k, after = np.nonzero(chance)
                rows.append(row[k])
                columns.append(place[t + 1][arm[k], after])
                data.append(-discount * chance[k, after])
                right.append(reward[arm, state, action])
            else:
                ahead = (transition[arm, action, state] * terminal[arm]).sum(axis=1)
                right.append(reward[arm, state, action] + discount * ahead)
            count += arm.size
        # Prices beyond what acting can change in value are never needed.
        span = float(reward.max() - reward.min()) * weight.sum() + float(np.ptp(terminal)) + 1.0
        lower, upper = np.full(size, -np.inf), np.full(size, np.inf)
        lower[: self.first_rent] = 0.0 if nonnegative else -span
        upper[: self.first_rent] = span
        self.program = Program(
            cost=cost,
            matrix=sparse.csr_array(
                (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns))), shape=(count, size)
            ),
            row_lower=np.concatenate(right),
            row_upper=np.full(count, np.inf),
            lower=lower,
            upper=upper,
            integer=np.zeros(size, dtype=bool),
        )
        self.session = Session.from_arrays(self.program, replace(load_profile("default"), interruptible=False))

    def cut(self, actions: np.ndarray, asked: _Asked | None) -> int:
        """Add rows that the last optimum breaks (all rows, at first), the worst a round; how many were added."""
        n_arms = actions.shape[1]
        column = self.number[np.arange(n_arms), actions]
        pick = sparse.csr_array(
            (
                np.ones(int((column >= 0).sum())),
                (np.nonzero(column >= 0)[0], column[column >= 0]),
            ),
            shape=(len(actions), self.n_priced),
        )
        rounds = 1 if self.constant else self.horizon
        if asked is None:
            which, when = (grid.ravel() for grid in np.meshgrid(np.arange(len(actions)), np.arange(rounds)))
        else:
            price = asked.prices[:rounds, self.number >= 0]
            over = pick @ price.T - asked.rents[:rounds]
            slack = CUT_TOLERANCE * max(1.0, float(np.abs(price).max()))
            worst = over.argmax(axis=0)
            when = np.flatnonzero(over[worst, np.arange(rounds)] > slack)
            which = worst[when]
        if not len(when):
            return 0
        chosen = sparse.coo_array(pick[which])
        n = self.program.cost.size
        matrix = sparse.csr_array(
            (
                np.concatenate([-chosen.data, np.ones(len(when))]),
                (
                    np.concatenate([chosen.row, np.arange(len(when))]),
                    np.concatenate([when[chosen.row] * self.n_priced + chosen.col, self.first_rent + when]),
                ),
            ),
            shape=(len(when), n),
        )
        self.session.add_rows(matrix, np.zeros(len(when)), np.full(len(when), np.inf))
        return len(when)

    def solve(self, seconds: float | None) -> _Asked | None:
        """The program's optimum, or None when time ran out."""
        result = self.session.solve(seconds=seconds)
        if result.x is None or result.status != "optimal":
            if seconds is not None:
                return None
            raise SolverError(f"the price program was not solved: {result.status}", "report this with the model file.")
        rounds = 1 if self.constant else self.horizon
        prices = np.zeros((rounds, *self.number.shape))
        prices[:, self.number >= 0] = result.x[: self.first_rent].reshape(rounds, -1)
        rents = result.x[self.first_rent : self.first_rent + rounds]
        if self.constant:
            prices, rents = np.repeat(prices, self.horizon, axis=0), np.repeat(rents, self.horizon)
        return _Asked(float(result.objective), prices, rents)
