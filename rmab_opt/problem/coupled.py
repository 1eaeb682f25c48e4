"""Arms of two states that are coupled: how likely each is in state 1 next, given everybody's state and action.

A subclass says :meth:`CoupledArms.chance_of_one`; steps, expected rewards and joint probabilities follow. There is no
``tabular()``: tables of single arms leave out what the others do.
"""

from __future__ import annotations

import numpy as np

from rmab_opt.errors import ModelError

__all__ = ["CoupledArms", "all_states"]

MOST_ARMS = 16
"""Arms whose joint states are listed: 65,536 rows."""


def all_states(n_arms: int) -> np.ndarray:
    """All joint states of arms with two states, int64 (2^N, N), in the order of binary numbers.

    Raises
    ------
    ModelError
        When there are more than 16 arms.
    """
    if n_arms > MOST_ARMS:
        raise ModelError(f"{n_arms} arms have too many joint states", f"list those of {MOST_ARMS} arms at most.")
    return (np.arange(2**n_arms)[:, None] >> np.arange(n_arms - 1, -1, -1)) & 1


class CoupledArms:
    """Base of arms with states 0 and 1 whose moves depend on each other; ``...`` is any number of leading axes.

    Given everybody's state and action, arms move independently, unless a subclass says otherwise in
    :meth:`joint_chance`. Rewards are paid on arrival.

    Parameters
    ----------
    worth
        Reward of arriving in the state that pays, (N,).
    pays
        The state that pays.
    shared_names, shared_start
        Of a shared state, where there is one.

    Raises
    ------
    ModelError
        When a worth is not finite.
    """

    n_states = 2
    n_actions = 2
    coupled = False
    """Whether one round's expected reward is no sum over single actions."""
    state_names: tuple[str, ...] = ("0", "1")

    def __init__(
        self,
        worth: np.ndarray,
        *,
        pays: int = 1,
        shared_names: tuple[str, ...] = (),
        shared_start: np.ndarray | None = None,
    ) -> None:
        self.worth = np.array(worth, dtype=np.float64)
        if self.worth.ndim != 1 or not np.isfinite(self.worth).all():
            raise ModelError(f"worth is {self.worth}", "give one finite number an arm.")
        self.n_arms, self.pays = len(self.worth), pays
        self.shared_names = shared_names
        self.shared_start = np.zeros(0) if shared_start is None else np.array(shared_start, dtype=np.float64)

    # ---- what a subclass says
    def chance_of_one(self, state: np.ndarray, action: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """Probability of state 1 after the round, (..., N); states and actions may be fractions (their means)."""
        raise NotImplementedError

    def shared_next(
        self, state: np.ndarray, action: np.ndarray, shared: np.ndarray, following: np.ndarray
    ) -> np.ndarray:
        """Shared state after the round, (..., K), once the arms have moved to ``following`` (..., N)."""
        return shared

    # ---- what follows
    def p_next(self, state: np.ndarray, action: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """Probability of each next state of each arm, (..., N, 2)."""
        one = self.chance_of_one(np.asarray(state), np.asarray(action), shared)
        return np.stack([1.0 - one, one], axis=-1)

    def expected_reward(self, state: np.ndarray, action: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """Expected reward of the round a arm, (..., N)."""
        one = self.chance_of_one(np.asarray(state), np.asarray(action), shared)
        return self.worth * (one if self.pays == 1 else 1.0 - one)

    def paid(self, following: np.ndarray) -> np.ndarray:
        """Reward of arriving, (..., N)."""
        return self.worth * (following == self.pays)

    def uniforms(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """The draws of one round, (..., N): whoever gives them to :meth:`moved` meets the same chance."""
        return rng.random((*shape, self.n_arms))

    def moved(
        self, state: np.ndarray, action: np.ndarray, shared: np.ndarray | None, uniforms: np.ndarray
    ) -> np.ndarray:
        """Next states (..., N) by given draws: 1 where the draw is below the chance, so a small change flips few."""
        return (uniforms < self.chance_of_one(state, action, shared)).astype(np.int64)

    def step(self, state: np.ndarray, action: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Next states and realised reward a arm, (..., N) each."""
        following, paid, _ = self.step_shared(state, action, self.shared_start, rng)
        return following, paid

    def step_shared(
        self, state: np.ndarray, action: np.ndarray, shared: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Next states (..., N), realised reward a arm (..., N), next shared state (..., K)."""
        state, action = np.asarray(state), np.asarray(action)
        shape = np.broadcast_shapes(state.shape, action.shape)[:-1]
        following = self.moved(state, action, shared, self.uniforms(shape, rng))
        after = self.shared_next(state, action, shared, following)
        return following, self.paid(following), np.broadcast_to(after, (*shape, len(self.shared_names))).copy()

    def joint_chance(
        self, state: np.ndarray, action: np.ndarray, shared: np.ndarray | None, following: np.ndarray
    ) -> np.ndarray:
        """Probability that all arms move to ``following`` (..., N) together, (...)."""
        one = self.chance_of_one(state, action, shared)
        return np.asarray(np.where(following == 1, one, 1.0 - one).prod(axis=-1))

    def possible(self) -> np.ndarray:
        """Joint states that can follow, (M, N): all of them, unless a subclass knows better."""
        return all_states(self.n_arms)
