"""Transitions by group with arms drawn to their group as strongly as the data say, never by a fixed smoothing.

For a group, an action and a state the next-state counts are Dirichlet-multinomial, ``c[n] ~ DirMult(N[n], kappa m)``;
centre m and concentration kappa maximise the marginal likelihood (Minka, "Estimating a Dirichlet distribution", 2000)
with a weak prior on log kappa. Calls are taken as exchangeable within a group: where calls went to weaker arms, as in
most programmes, :mod:`rmab_opt.programme.targeted` is the estimate that is not biased.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import digamma, gammaln
from scipy.stats import beta

__all__ = ["Cell", "HierarchyFit", "fit_cell", "fit_hierarchy"]

KAPPA = (0.5, 1e4)
"""Range of the concentration."""

LOG_KAPPA_PRIOR = (float(np.log(20.0)), 1.5)
"""Mean and sd of log kappa."""

FEW_MOVES = 30
"""Below so many moves a cell borrows its centre from the whole cohort's."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One group, action and state: centre (S,) and concentration in moves."""

    centre: np.ndarray
    kappa: float


@dataclass(frozen=True, eq=False)
class HierarchyFit:
    """Estimates of all arms.

    ``transition`` is (N, A, S, S); ``low`` and ``high`` the 95 % interval of each probability; ``kappa`` (G, A, S).
    """

    transition: np.ndarray
    low: np.ndarray
    high: np.ndarray
    kappa: np.ndarray
    centre: np.ndarray


def fit_cell(counts: np.ndarray, prior: np.ndarray | None = None, prior_weight: float = 0.0) -> Cell:
    """Centre and concentration of counts (n, S); a prior centre with a weight in arms-worth of moves is optional."""
    counts = counts[counts.sum(axis=1) > 0].astype(np.float64)
    n_states = counts.shape[1]
    total = counts.sum(axis=1)
    base = np.full(n_states, 1.0 / n_states) if prior is None else prior
    first = (counts.sum(axis=0) + 1e-3 + prior_weight * base) / (counts.sum() + 1e-3 * n_states + prior_weight)
    # A trace of the even distribution keeps a centre away from the simplex's edge, where logs end.
    pull = 1e-2 / n_states + prior_weight * base

    def loss(given: np.ndarray) -> tuple[float, np.ndarray]:
        log_kappa, logits = given[0], np.append(given[1:], 0.0)
        centre = np.exp(logits - logits.max())
        centre /= centre.sum()
        kappa = np.exp(log_kappa)
        a = kappa * centre
        like = gammaln(kappa) - gammaln(kappa + total) + (gammaln(a + counts) - gammaln(a)).sum(axis=1)
        by_a = (digamma(a + counts) - digamma(a)).sum(axis=0)
        by_kappa = float((digamma(kappa) - digamma(kappa + total)).sum() + by_a @ centre)
        away = (log_kappa - LOG_KAPPA_PRIOR[0]) / LOG_KAPPA_PRIOR[1]
        value = like.sum() - 0.5 * away**2 + float(pull @ np.log(centre))
        by_centre = kappa * by_a + pull / centre
        by_logits = centre * (by_centre - by_centre @ centre)
        slope = np.append(kappa * by_kappa - away / LOG_KAPPA_PRIOR[1], by_logits[:-1])
        return -float(value), -slope

    bounds = [tuple(np.log(KAPPA)), *[(-12.0, 12.0)] * (n_states - 1)]
    begin = np.append(LOG_KAPPA_PRIOR[0], np.log(first[:-1] / first[-1]))
    found: Any = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds)
    logits = np.append(found.x[1:], 0.0)
    centre = np.exp(logits - logits.max())
    return Cell(centre / centre.sum(), float(np.exp(found.x[0])))


def fit_hierarchy(counts: np.ndarray, group: np.ndarray) -> HierarchyFit:
    """Every arm's tables from counts (N, A, S, S) and group numbers (N,)."""
    _, n_actions, n_states, _ = counts.shape
    n_groups = int(group.max()) + 1
    kappa = np.empty((n_groups, n_actions, n_states))
    centre = np.empty((n_groups, n_actions, n_states, n_states))
    for a in range(n_actions):
        for s in range(n_states):
            parent = fit_cell(counts[:, a, s])
            for g in range(n_groups):
                own = counts[group == g, a, s]
                few = own.sum() < FEW_MOVES
                cell = fit_cell(own, parent.centre, parent.kappa if few else 0.0)
                kappa[g, a, s], centre[g, a, s] = cell.kappa, cell.centre
    weight = kappa[group][..., None]
    alpha = counts + weight * centre[group]
    total = alpha.sum(axis=3, keepdims=True)
    low, high = beta.ppf(0.025, alpha, total - alpha), beta.ppf(0.975, alpha, total - alpha)
    return HierarchyFit(alpha / total, low, high, kappa, centre)
