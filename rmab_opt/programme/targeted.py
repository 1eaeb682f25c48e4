"""Transitions from a log in which calls went to those a worker worried about.

Every arm has a lasting level of its own, and how much it was called beyond what its group and its states explain says
something about that level (a correlated random effect, after Mundlak 1978)::

    logit p[n, cell] = theta[g, cell] + sigma[g] z[n] + delta[g] c[n],        z[n] ~ N(0, 1)
    c[n] = (calls[n] - E[n]) / sqrt(V[n]),  E[n] = sum_w r(g, s_w),  V[n] = sum_w r (1 - r)

with r(g, s) the share called among the reachable arms of the group in that state, c = 0 for arms out of reach. A cell
is an action, a state and a step up: with S states, the chance to reach at least state j + 1 among those who reach at
least j. Fitted by marginal likelihood over z; ``delta`` with its interval is the test for targeting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from rmab_opt.programme.moves import Moves

__all__ = ["CELL_SD", "TargetedFit", "excess_calls", "fit_targeted"]

NODES = 33
"""Points of the quadrature over an arm's level."""

CELL_SD = 0.3
"""Spread of one cell's own deviation on the logit scale, in the draws: what the one level of an arm leaves out."""

PRIOR = {"theta": 1.5, "log_sigma": 1.0, "sigma": 0.5, "delta": 1.0}
"""Weak priors: sd of theta around the whole cohort's, of log sigma around log 0.5, of delta around 0."""

PARAMETER_DRAWS, LEVEL_DRAWS = 100, 4
"""Draws of a group's parameters, and of the arms' levels for each."""

LOGISTIC_SLOPE = 0.346
"""(16 sqrt(3) / (15 pi))^2: a normal deviation of variance v flattens a logit by sqrt(1 + 0.346 v)."""


@dataclass(frozen=True, eq=False)
class TargetedFit:
    """Estimated transitions with what is not known about them.

    Parameters
    ----------
    transition
        Posterior mean of each arm's tables, (N, A, S, S).
    draws
        Posterior draws of the steps up, float32 (D, N, A, S, S - 1); :meth:`tables` makes tables of one.
    sigma, delta, delta_sd
        By group (G,): spread of the arms' levels, effect of excess calls, and its standard error.
    excess
        c of each arm, (N,).
    """

    transition: np.ndarray
    draws: np.ndarray
    sigma: np.ndarray
    delta: np.ndarray
    delta_sd: np.ndarray
    excess: np.ndarray

    def tables(self, draw: int) -> np.ndarray:
        """Tables (N, A, S, S) of one posterior draw."""
        return tables_of(self.draws[draw].astype(np.float64))


def tables_of(steps: np.ndarray) -> np.ndarray:
    """Tables (..., S) from the chances (..., S - 1) to go on one state higher, given that one got so far."""
    reach = np.concatenate([np.ones_like(steps[..., :1]), np.cumprod(steps, axis=-1)], axis=-1)
    return np.asarray(np.concatenate([reach[..., :-1] - reach[..., 1:], reach[..., -1:]], axis=-1))


def excess_calls(moves: Moves, group: np.ndarray, reachable: np.ndarray) -> np.ndarray:
    """How much each arm was called beyond what group and states explain, in standard deviations, (N,)."""
    called, seen = moves.visits[:, 1:].sum(axis=1), moves.visits.sum(axis=1)
    n_groups = int(group.max()) + 1
    by = np.zeros((n_groups, len(group)))
    by[group[reachable], np.flatnonzero(reachable)] = 1.0
    share = (by @ called) / np.maximum(by @ seen, 1.0)
    rate = share[group]
    spread = (seen * rate * (1.0 - rate)).sum(axis=1)
    away = called.sum(axis=1) - (seen * rate).sum(axis=1)
    return np.where(reachable & (spread > 1e-9), away / np.sqrt(np.maximum(spread, 1e-9)), 0.0)


def fit_targeted(
    moves: Moves,
    group: np.ndarray,
    reachable: np.ndarray,
    *,
    call_term: bool = True,
    rng: np.random.Generator | None = None,
) -> TargetedFit:
    """Fit the model of this module, group by group.

    Parameters
    ----------
    group
        Number of each arm's group from 0, (N,).
    reachable
        Arms that could have been called, bool (N,).
    call_term
        Whether ``delta`` is estimated; without it calls are taken as exchangeable within an arm's level.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    n_arms, n_actions, n_states, _ = moves.counts.shape
    trials, wins = _steps(moves.counts)
    excess = excess_calls(moves, group, reachable) if call_term else np.zeros(n_arms)
    whole = _centre(trials, wins)
    n_groups = int(group.max()) + 1
    sigma, delta, delta_sd = np.zeros(n_groups), np.zeros(n_groups), np.zeros(n_groups)
    means = np.empty(trials.shape)
    draws = np.empty((PARAMETER_DRAWS * LEVEL_DRAWS, *trials.shape), dtype=np.float32)
    for g in range(n_groups):
        members = np.flatnonzero(group == g)
        fit = _Group(trials[members], wins[members], excess[members], whole, call_term)
        best, spread = fit.optimum()
        sigma[g], delta[g] = np.exp(best[-2]), best[-1]
        delta_sd[g] = np.sqrt(spread[-1, -1]) if call_term else 0.0
        draws[:, members] = fit.draws(best, spread, rng)
        means[members] = draws[:, members].mean(axis=0, dtype=np.float64)
    shape = (n_actions, n_states, n_states - 1)
    steps = draws.reshape(len(draws), n_arms, *shape)
    if n_states == 2:
        transition = tables_of(means.reshape(n_arms, *shape))
    else:
        transition = np.mean([tables_of(one.astype(np.float64)) for one in steps], axis=0)
    return TargetedFit(transition, steps, sigma, delta, delta_sd, excess)


def _steps(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Trials and wins of every step up, (N, cells): who reached at least j, and who of them went further."""
    reach = np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]
    flat = (len(counts), -1)
    return reach[..., :-1].reshape(flat).astype(np.float64), reach[..., 1:].reshape(flat).astype(np.float64)


def _centre(trials: np.ndarray, wins: np.ndarray) -> np.ndarray:
    """The cohort's logit of every cell, (cells,)."""
    chance = (wins.sum(axis=0) + 0.5) / (trials.sum(axis=0) + 1.0)
    return np.asarray(np.log(chance / (1.0 - chance)))


class _Group:
    """One group's likelihood; parameters are theta (cells), log sigma, delta."""

    def __init__(
        self, trials: np.ndarray, wins: np.ndarray, excess: np.ndarray, centre: np.ndarray, call_term: bool
    ) -> None:
        self.trials, self.wins, self.excess, self.centre, self.call_term = trials, wins, excess, centre, call_term
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        self.nodes, self.log_weight = nodes, np.log(weights / weights.sum())
        self.n_cells = trials.shape[1]

    def _at(self, given: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Marginal log likelihood of each arm, posterior weights (n, Q) and residuals (n, Q) by cell (cells, n, Q)."""
        theta, sigma, delta = given[: self.n_cells], np.exp(given[-2]), given[-1]
        level = sigma * self.nodes[None] + delta * self.excess[:, None]
        log_like = np.zeros(level.shape)
        residual = np.empty((self.n_cells, *level.shape))
        for cell in range(self.n_cells):
            trials, wins = self.trials[:, cell, None], self.wins[:, cell, None]
            eta = theta[cell] + level
            small = np.exp(-np.abs(eta))
            log_like += wins * eta - trials * (np.maximum(eta, 0.0) + np.log1p(small))
            chance = np.where(eta >= 0, 1.0, small) / (1.0 + small)
            residual[cell] = wins - trials * chance
        joint = log_like + self.log_weight
        top = joint.max(axis=1, keepdims=True)
        weight = np.exp(joint - top)
        total = weight.sum(axis=1, keepdims=True)
        return (top + np.log(total))[:, 0], weight / total, residual

    def loss(self, given: np.ndarray) -> tuple[float, np.ndarray]:
        """Negative log posterior and its gradient."""
        marginal, weight, residual = self._at(given)
        slope = np.empty(len(given))
        mean = (residual * weight).sum(axis=2)
        slope[: self.n_cells] = mean.sum(axis=1)
        slope[-2] = (residual.sum(axis=0) * weight * self.nodes).sum() * np.exp(given[-2])
        slope[-1] = (mean.sum(axis=0) * self.excess).sum() if self.call_term else 0.0
        away = (given - self._prior_mean) / self._prior_sd
        return float(-marginal.sum() + 0.5 * (away**2).sum()), -slope + away / self._prior_sd

    @property
    def _prior_mean(self) -> np.ndarray:
        return np.concatenate([self.centre, [np.log(PRIOR["sigma"]), 0.0]])

    @property
    def _prior_sd(self) -> np.ndarray:
        return np.concatenate([np.full(self.n_cells, PRIOR["theta"]), [PRIOR["log_sigma"], PRIOR["delta"]]])

    def optimum(self) -> tuple[np.ndarray, np.ndarray]:
        """Mode and covariance of the parameters."""
        found: Any = minimize(self.loss, self._prior_mean, jac=True, method="BFGS", options={"gtol": 1e-4})
        best, step = np.asarray(found.x), 1e-3
        curve = np.empty((len(best), len(best)))
        for k in range(len(best)):
            ahead, behind = best.copy(), best.copy()
            ahead[k] += step
            behind[k] -= step
            curve[k] = (self.loss(ahead)[1] - self.loss(behind)[1]) / (2 * step)
        values, vectors = np.linalg.eigh((curve + curve.T) / 2)
        # The prior keeps the curvature away from zero; what rounding leaves below is taken as the prior's.
        spread = (vectors / np.maximum(values, 0.05)) @ vectors.T
        return best, spread

    def draws(self, best: np.ndarray, spread: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws of every arm's steps up, (D, n, cells)."""
        found = np.empty((PARAMETER_DRAWS, LEVEL_DRAWS, *self.trials.shape), dtype=np.float32)
        flatten = np.sqrt(1.0 + LOGISTIC_SLOPE * CELL_SD**2)
        chol = np.linalg.cholesky(spread)
        half = rng.standard_normal((PARAMETER_DRAWS // 2, len(best)))
        for k, normal in enumerate(np.concatenate([half, -half])):
            given = best + chol @ normal
            if not self.call_term:
                given[-1] = 0.0
            _, weight, _ = self._at(given)
            mean = weight @ self.nodes
            sd = np.sqrt(np.maximum(weight @ self.nodes**2 - mean**2, 1e-9))
            level = mean + sd * rng.standard_normal((LEVEL_DRAWS, len(mean)))
            shift = np.exp(given[-2]) * level + given[-1] * self.excess
            eta = (given[: self.n_cells] + shift[..., None]) * flatten
            eta += CELL_SD * rng.standard_normal(eta.shape)
            found[k] = 1.0 / (1.0 + np.exp(-eta))
        return found.reshape(-1, *self.trials.shape)
