"""What dynamics promise: steps, expected rewards and tables tell of the same arms.

Chances are compared by exact tests on fixed seeds: a right implementation fails with probability below
:data:`ERROR` over all the seeds that could have been fixed, and then never or always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from rmab_opt.problem import Dynamics
from rmab_opt.testing.contract import Promise, copied, keep, require, same

__all__ = ["DYNAMICS_PROMISES", "ERROR", "check_dynamics"]

ERROR = 1e-6
"""Probability that any test of chances fails although all is right."""

DRAWS = 2000
"""Moves drawn at each state and action."""

MOST_CELLS = 24
"""States with actions at which chances are tested; of more, evenly so many."""

VALUE_TOLERANCE = 1e-9


@dataclass(frozen=True)
class DynamicsCase:
    """Dynamics, and joint states with actions at which they are tried."""

    dynamics: Dynamics

    @property
    def shared(self) -> np.ndarray | None:
        """The first shared state, where there is one: chances are tried there."""
        return np.asarray(self.dynamics.shared_start) if getattr(self.dynamics, "shared_names", ()) else None  # type: ignore[attr-defined]

    def step(self, state: np.ndarray, action: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Next states and rewards, at the first shared state where there is one."""
        if self.shared is None:
            return self.dynamics.step(state, action, rng)
        given = np.broadcast_to(self.shared, (*np.shape(state)[:-1], len(self.shared)))
        following, paid, _ = self.dynamics.step_shared(state, action, given, rng)  # type: ignore[attr-defined]
        return following, paid

    def expected(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Expected rewards, at the first shared state where there is one."""
        if self.shared is None:
            return self.dynamics.expected_reward(state, action)
        given = np.broadcast_to(self.shared, (*np.shape(state)[:-1], len(self.shared)))
        return np.asarray(self.dynamics.expected_reward(state, action, given))  # type: ignore[call-arg]

    @cached_property
    def cells(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(state (N,), action (N,)): all arms alike in every pair, and a few mixed ones."""
        n, rng = self.dynamics.n_arms, np.random.default_rng(0)
        pairs = [(s, a) for s in range(self.dynamics.n_states) for a in range(self.dynamics.n_actions)]
        some = np.unique(np.linspace(0, len(pairs) - 1, MOST_CELLS).astype(int))
        found = [(np.full(n, pairs[k][0]), np.full(n, pairs[k][1])) for k in some]
        mixed = [
            (rng.integers(self.dynamics.n_states, size=n), rng.integers(self.dynamics.n_actions, size=n))
            for _ in range(6)
        ]
        return found + mixed

    @cached_property
    def drawn(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Next states and rewards of each cell, (DRAWS, N) each."""
        rng = np.random.default_rng(1)
        return [self.step(np.tile(state, (DRAWS, 1)), np.tile(action, (DRAWS, 1)), rng) for state, action in self.cells]

    @property
    def tables(self) -> tuple[np.ndarray, np.ndarray] | None:
        """P (N, A, S, S) and r (N, S, A), where there are any."""
        return None if getattr(self.dynamics, "tabular", None) is None else self.dynamics.tabular()


def has_sizes(case: DynamicsCase) -> None:
    """``n_arms``, ``n_states`` and ``n_actions`` are whole and at least 1, 1 and 2."""
    for name, least in (("n_arms", 1), ("n_states", 1), ("n_actions", 2)):
        size = getattr(case.dynamics, name)
        require(isinstance(size, int | np.integer) and size >= least, f"{name} is {size!r}")


def steps_have_shape(case: DynamicsCase) -> None:
    """``step`` and ``expected_reward`` take any number of leading axes and answer in kind, with states in range."""
    n, rng = case.dynamics.n_arms, np.random.default_rng(0)
    for shape in ((n,), (3, n), (2, 3, n)):
        state = rng.integers(case.dynamics.n_states, size=shape)
        action = rng.integers(case.dynamics.n_actions, size=shape)
        following, paid = case.step(state, action, rng)
        expected = case.expected(state, action)
        found = tuple(np.shape(part) for part in (following, paid, expected))
        require(found == (shape,) * 3, f"states {shape} give next states, rewards and expectations {found}")
        require(np.issubdtype(np.asarray(following).dtype, np.integer), "next states are not whole numbers")
        inside = (np.asarray(following) >= 0) & (np.asarray(following) < case.dynamics.n_states)
        require(inside.all(), "a next state is out of range")
        require(np.isfinite(paid).all() and np.isfinite(expected).all(), "a reward is not finite")


def shared_states_follow(case: DynamicsCase) -> None:
    """``step_shared`` gives a finite next shared state of the right shape, and leaves the given one alone."""
    if case.shared is None:
        return
    names, rng = case.dynamics.shared_names, np.random.default_rng(0)  # type: ignore[attr-defined]
    require(case.shared.shape == (len(names),), f"shared_start has shape {case.shared.shape} for {len(names)} names")
    for state, action in case.cells:
        given = case.shared.copy()
        _, _, after = case.dynamics.step_shared(state, action, given, rng)  # type: ignore[attr-defined]
        require(np.shape(after) == given.shape, f"the next shared state has shape {np.shape(after)}")
        require(np.isfinite(after).all(), "a next shared value is not finite")
        require(same(given, case.shared), "the shared state was changed in place")


def same_seed_same_step(case: DynamicsCase) -> None:
    """The same generator gives the same step, and the arrays given are left alone."""
    for state, action in case.cells:
        before = state.copy(), action.copy()
        one, two = (case.step(state, action, np.random.default_rng(5)) for _ in range(2))
        require(same(one[0], two[0]) and same(one[1], two[1]), f"two steps from {state.tolist()} differ")
        require(same(state, before[0]) and same(action, before[1]), "step changed what it was given")


def draws_do_not_depend_on_the_action(case: DynamicsCase) -> None:
    """A step takes the same draws whatever is done, so that policies meet the same chance."""
    left = set()
    for state, action in case.cells:
        rng = np.random.default_rng(9)
        case.step(state, action, rng)
        left.add(rng.random())
    require(len(left) == 1, "what is left of the generator depends on state or action")


def tables_are_chances(case: DynamicsCase) -> None:
    """Rows of ``tabular`` are chances that sum to one, and its rewards are finite, in the shapes promised."""
    if case.tables is None:
        return
    transition, reward = case.tables
    n, s, a = case.dynamics.n_arms, case.dynamics.n_states, case.dynamics.n_actions
    require(transition.shape == (n, a, s, s), f"P has shape {transition.shape}, not {(n, a, s, s)}")
    require(reward.shape == (n, s, a), f"r has shape {reward.shape}, not {(n, s, a)}")
    require((transition >= -1e-12).all() and np.isfinite(reward).all(), "a chance is negative or a reward not finite")
    off = float(np.abs(transition.sum(axis=3) - 1.0).max())
    require(off <= 1e-8, f"a row of P misses one by {off:.2g}")


def tables_agree_with_steps(case: DynamicsCase) -> None:
    """Next states come as often as ``tabular`` says: exact binomial tests of every arm and next state."""
    if case.tables is None:
        return
    transition, _ = case.tables
    arm = np.arange(case.dynamics.n_arms)
    level = ERROR / (len(case.cells) * case.dynamics.n_arms * case.dynamics.n_states)
    for (state, action), (following, _) in zip(case.cells, case.drawn, strict=True):
        chance = np.clip(transition[arm, action, state], 0.0, 1.0)
        seen = np.stack([(following == s).sum(axis=0) for s in range(case.dynamics.n_states)], axis=1)
        tail = 2.0 * np.minimum(stats.binom.cdf(seen, DRAWS, chance), stats.binom.sf(seen - 1, DRAWS, chance))
        # A sum of chances that is one but for rounding must not make a certain state an impossible one.
        tail[(seen == 0) & (chance <= 1e-12)] = 1.0
        tail[(seen == DRAWS) & (chance >= 1 - 1e-12)] = 1.0
        if (tail < level).any():
            n, s = np.unravel_index(tail.argmin(), tail.shape)
            require(
                False,
                f"arm {n} in state {state[n]} under action {action[n]} went to {s} {seen[n, s]} times of {DRAWS}, "
                f"the table says {chance[n, s]:.4g}",
            )


def tables_agree_with_expected_rewards(case: DynamicsCase) -> None:
    """``expected_reward`` is the reward of ``tabular``, whatever the other arms do."""
    if case.tables is None:
        return
    _, reward = case.tables
    arm = np.arange(case.dynamics.n_arms)
    for state, action in case.cells:
        expected, table = case.expected(state, action), reward[arm, state, action]
        off = float(np.abs(expected - table).max())
        require(off <= VALUE_TOLERANCE * (1 + np.abs(table).max()), f"at {state.tolist()} they differ by {off:.3g}")


def rewards_average_to_the_expected(case: DynamicsCase) -> None:
    """The mean of realised rewards is ``expected_reward``: Hoeffding's inequality over the rewards' range seen."""
    level = ERROR / (len(case.cells) * case.dynamics.n_arms)
    for (state, action), (_, paid) in zip(case.cells, case.drawn, strict=True):
        # Twice the range seen, because rare rewards may lie beyond it.
        span = 2.0 * (paid.max(axis=0) - paid.min(axis=0))
        expected = case.expected(state, action)
        most = span * np.sqrt(np.log(2.0 / level) / (2.0 * DRAWS)) + VALUE_TOLERANCE * (1 + np.abs(expected))
        off = np.abs(paid.mean(axis=0) - expected)
        n = int((off - most).argmax())
        require((off <= most).all(), f"arm {n}: mean {paid[:, n].mean():.6g}, expected {expected[n]:.6g}")


def pickles(case: DynamicsCase) -> None:
    """A copy in another process takes the same steps."""
    back = copied(case.dynamics)
    for state, action in case.cells:
        one, two = (c.step(state, action, np.random.default_rng(3)) for c in (case, DynamicsCase(back)))
        require(same(one[0], two[0]) and same(one[1], two[1]), "the copy steps otherwise")


DYNAMICS_PROMISES: tuple[Promise, ...] = (
    has_sizes,
    steps_have_shape,
    shared_states_follow,
    same_seed_same_step,
    draws_do_not_depend_on_the_action,
    tables_are_chances,
    tables_agree_with_steps,
    tables_agree_with_expected_rewards,
    rewards_average_to_the_expected,
    pickles,
)


def check_dynamics(dynamics: Dynamics, *, promises: Sequence[Promise] = DYNAMICS_PROMISES) -> None:
    """Hold dynamics to what a problem asks of its arms; without ``tabular`` the promises about tables pass.

    Raises
    ------
    ContractError
        At the first promise that does not hold; names the class and the promise.
    """
    keep(f"dynamics {type(dynamics).__name__}", DynamicsCase(dynamics), promises)
