"""Arms under prices against plain dynamic programs, round by round; what ties are forgiven counts in the bound."""

from __future__ import annotations

import numpy as np
import pytest

from rmab_opt.planning import Coupling
from rmab_opt.planning.costs import Costs
from rmab_opt.planning.lagrangian import action_values
from rmab_opt.planning.priced_arms import IMPROVEMENT, Finite, Stationary

RNG = np.random.default_rng(0)
N, S, A, T = 3, 4, 3, 5
MOVE, PAY = RNG.dirichlet(np.ones(S), (N, A, S)), RNG.random((N, S, A))
COUPLING = Coupling.budgets([1.0, 1.0])
PRICES = RNG.random((T, 2)) * np.linspace(0.0, 1.0, T)[:, None]


def priced(discount: float, terminal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q before its own round's price, and the value after it, of every round: a loop over rounds, arms and states."""
    q, value, after = np.zeros((T, N, S, A)), np.zeros((T, N, S)), terminal
    for t in reversed(range(T)):
        for n in range(N):
            for s in range(S):
                q[t, n, s] = [PAY[n, s, a] + discount * MOVE[n, a, s] @ after[n] for a in range(A)]
                value[t, n, s] = (q[t, n, s] - [0.0, *PRICES[t]]).max()
        after = value[t]
    return q, value


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("terminal", [np.zeros((N, S)), RNG.random((N, S))])
def test_every_round_pays_its_own_price(discount, terminal):
    q, value = priced(discount, terminal)
    found = action_values(MOVE, PAY, COUPLING, PRICES, discount=discount, horizon=T, terminal=terminal)
    assert found == pytest.approx(q, abs=1e-12)
    start = RNG.dirichlet(np.ones(S), N)
    total, used, _ = Finite(MOVE, PAY, COUPLING.cost, start, discount, T, terminal)(PRICES.ravel())
    assert total == pytest.approx((start * value[0]).sum(), abs=1e-12)
    assert used.shape == (2 * T,)


@pytest.mark.parametrize(("discount", "exact"), [(0.9, 10.0), (1.0, 1.0)])
def test_a_bound_counts_what_a_tie_forgives(discount, exact):
    """One state, two actions that earn 1 and a shade more, too little for the rule to change: no bound below it."""
    shade = 0.75 * IMPROVEMENT * (1.0 + exact)
    move, pay = np.ones((1, 2, 1, 1)), np.array([[[1.0, 1.0 + shade]]])
    arms = Stationary(move, pay, Costs.of(np.zeros((1, 1, 1, 2))), np.ones((1, 1)), discount)
    total, _, rule = arms(np.zeros(1))
    assert not np.asarray(rule).any()
    optimum = exact * (1.0 + shade)
    assert optimum - 1e-14 * exact <= total <= optimum + 1e-10 * exact
