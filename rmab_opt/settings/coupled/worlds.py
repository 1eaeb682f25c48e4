"""Arms coupled by what they do to each other: contagion, crowding, sessions, tiring workers, stock, peers, assortment.

Every world says ``chance_of_one`` for fractions of states and actions too (what planners by means ask), and where its
derivatives are cheap, ``pull``: how the others' chances move with one arm's state and action. ``hand`` is the rule of
thumb that a planner, or a learned network, has to beat.

References
----------
Assortment: Hoppe, Baty, Bouvier, Parmentier, Schiffer (2025), arXiv 2505.19053, dynamic assortment.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from rmab_opt.errors import ModelError
from rmab_opt.problem.coupled import CoupledArms

__all__ = ["Assortment", "Contagion", "Crowding", "Influencers", "Sessions", "Stock", "Tiring"]


_NOTHING = np.zeros(1)


def _per_group(action: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Sums over groups (..., G) of (..., N); ``member`` (N, G) is 0/1."""
    return np.asarray(action @ member)


def _member(group: np.ndarray) -> np.ndarray:
    return np.eye(int(group.max(initial=-1)) + 1)[group]


class Contagion(CoupledArms):
    """State 1 is ill. Force f on an arm = sum of weights of ill arms; a well arm falls ill with 1 - exp(-beta u f).

    Parameters
    ----------
    worth
        Reward a round of each well arm, (N,).
    susceptible
        u, (N,).
    reach
        reach[j, i], weight of arm j's illness in arm i's force, (N, N).
    weight
        Of each arm in its own group, for the hand rule, (N,).
    """

    beta, stays, cured, guarded = 1.2, 0.92, 0.15, 0.5
    state_names = ("well", "ill")

    def __init__(self, worth: np.ndarray, susceptible: np.ndarray, reach: np.ndarray, weight: np.ndarray) -> None:
        super().__init__(worth, pays=0)
        self.susceptible, self.reach, self.weight = (np.asarray(a, float) for a in (susceptible, reach, weight))
        # An arm that is well itself feels the others alone.
        self._to_others = self.reach * (1.0 - np.eye(len(self.reach)))

    def force(self, state: np.ndarray) -> np.ndarray:
        """What ill arms exert on each, (..., N)."""
        return np.asarray(state @ self.reach)

    def response(self, force: np.ndarray) -> np.ndarray:
        """Chance that a well arm falls ill under a force, (..., N)."""
        return np.asarray(1.0 - np.exp(-self.beta * self.susceptible * force))

    def chance_of_one(self, state: np.ndarray, action: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        caught = self.response(self.force(state)) * (1.0 - (1.0 - self.guarded) * action)
        ill = self.stays - (self.stays - self.cured) * action
        return np.asarray((1 - state) * caught + state * ill)

    def _from_others(self, mean: np.ndarray) -> np.ndarray:
        """Force on an arm that is well itself, where the others are ill with given chances, (N,)."""
        return np.asarray(mean @ self._to_others)

    def chances_between(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest P(ill next) by own state and action, (..., N, 2, 2), for states between bounds (..., N)."""
        least, most = (self.response(np.asarray(part, float) @ self._to_others) for part in (low, high))
        return self._by_caught(least), self._by_caught(most)

    def of_one_arm(self, mean: np.ndarray, act: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """P(ill next) of each arm by its own state and action where the others are at their means, (..., N, 2, 2)."""
        return self._by_caught(self.response(self._from_others(mean)))

    def _by_caught(self, caught: np.ndarray) -> np.ndarray:
        one = np.empty((*caught.shape, 2, 2))
        one[..., 0, 0] = caught
        np.multiply(self.guarded, caught, out=one[..., 0, 1])
        one[..., 1, 0], one[..., 1, 1] = self.stays, self.cured
        return one

    def pull(
        self,
        mean: np.ndarray,
        act: np.ndarray,
        shared: np.ndarray,
        weight: np.ndarray,
        costate: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives of the sum of ``weight`` times the others' chances by what one arm is and does.

        ``act`` (..., N, 2) is the share of action by state, ``costate`` (..., K) what the next shared state is worth.

        Returns
        -------
        tuple
            By the arm's state, by its action in state 0, by its action in state 1, (..., N) each; by the shared state,
            its effect on the next one included, (..., K).
        """
        rate = self.beta * self.susceptible
        apart = self._to_others
        slope = rate * np.exp(-rate * (mean @ apart))
        moved = slope * (1.0 - mean) * (1.0 - (1.0 - self.guarded) * act[..., 0]) * weight
        return moved @ apart.T, _NOTHING, _NOTHING, _NOTHING

    def hand(self, state: np.ndarray, period: int, shared: np.ndarray | None = None) -> np.ndarray:
        """Ill arms by ten times weight plus worth, then well ones; (..., N)."""
        return np.asarray(state * (10.0 * self.weight + self.worth) + (1 - state) * 0.01 * self.worth)

    def context(self, state: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """Numbers of each arm that a network is told, (..., N, F): weight, worth, u, force, response, share ill."""
        state = np.asarray(state, dtype=np.float64)
        force = self.force(state)
        ill = np.broadcast_to(state.mean(axis=-1, keepdims=True), force.shape)
        fixed = [np.broadcast_to(a, force.shape) for a in (self.weight / 5.0, self.worth, self.susceptible)]
        return np.stack([*fixed, force, self.response(force), ill], axis=-1)


class _Visited(CoupledArms):
    """Arms that a visit lifts: P(good next) = b + (1 - b) * success, with b ``up`` in state 0 and ``stay`` in 1."""

    state_names = ("poor", "good")

    def __init__(
        self,
        worth: np.ndarray,
        success: np.ndarray,
        up: np.ndarray,
        stay: np.ndarray,
        *,
        shared_names: tuple[str, ...] = (),
        shared_start: np.ndarray | None = None,
    ) -> None:
        super().__init__(worth, shared_names=shared_names, shared_start=shared_start)
        self.success, self.up, self.stay = (np.asarray(a, float) for a in (success, up, stay))

    def base(self, state: np.ndarray) -> np.ndarray:
        """Chance of being good next without a visit, (..., N)."""
        return np.asarray((1 - state) * self.up + state * self.stay)

    def effect(self, action: np.ndarray, shared: np.ndarray | None) -> np.ndarray:
        """Chance that a visit succeeds, zero where there is none, (..., N)."""
        return np.asarray(action * self.success)

    def chance_of_one(self, state: np.ndarray, action: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        base = self.base(np.asarray(state))
        return base + (1.0 - base) * self.effect(np.asarray(action), shared)

    def _by_success(self, success: np.ndarray) -> np.ndarray:
        """P(good next) by own state and action, (..., N, 2, 2), where a visit succeeds with given chances (..., N)."""
        base = np.stack([self.up, self.stay], axis=1)
        one = np.empty((*success.shape, 2, 2))
        one[..., 0] = base
        one[..., 1] = base + (1.0 - base) * success[..., None]
        return one

    def gains(self, state: np.ndarray) -> np.ndarray:
        """Expected reward that a sure success adds, (..., N)."""
        return self.worth * (1.0 - self.base(state))

    def alone(self, state: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """What acting on one arm alone adds to the round's expected reward, (..., N)."""
        state, one = np.asarray(state), np.ones(self.n_arms)
        return np.asarray(self.gains(state) * self.effect(one, shared))

    def hand(self, state: np.ndarray, period: int, shared: np.ndarray | None = None) -> np.ndarray:
        """Arms by what a visit of their own adds this round, (..., N)."""
        return self.gains(np.asarray(state)) * self.success

    def context(self, state: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """Numbers of each arm that a network is told, (..., N, F): worth, success, up, stay, gain, share good."""
        state = np.asarray(state, dtype=np.float64)
        good = np.broadcast_to(state.mean(axis=-1, keepdims=True), state.shape)
        fixed = [np.broadcast_to(a, state.shape) for a in (self.worth, self.success, self.up, self.stay)]
        return np.stack([*fixed, self.gains(state) * self.success, good], axis=-1)


class Crowding(_Visited):
    """A visit succeeds with q rho^(load - 1), load the visits of the same worker in this round.

    Parameters
    ----------
    worker
        Number of each arm's worker, (N,).
    rho
        What one further visit leaves of the others' success.
    """

    coupled = True

    def __init__(
        self,
        worth: np.ndarray,
        success: np.ndarray,
        up: np.ndarray,
        stay: np.ndarray,
        worker: np.ndarray,
        rho: float = 0.6,
    ) -> None:
        super().__init__(worth, success, up, stay)
        self.group, self.rho = np.asarray(worker), rho
        self.member = _member(self.group)

    def alone(self, state: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        return self.gains(np.asarray(state)) * self.success

    def effect(self, action: np.ndarray, shared: np.ndarray | None) -> np.ndarray:
        # Means of loads below one crowd nobody; whole loads of visited arms are never below one.
        # Compared by real parts: derivatives come as imaginary ones.
        load = _per_group(action, self.member)[..., self.group] - 1.0
        return np.asarray(action * self.success * self.rho ** np.where(load.real > 0.0, load, 0.0))

    def _others(self, mean: np.ndarray, act: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How much each arm is acted on at the means, and all others of its worker together, (..., N) each."""
        acting = (1.0 - mean) * act[..., 0] + mean * act[..., 1]
        return acting, _per_group(acting, self.member)[..., self.group] - acting

    def chances_between(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest P(good next), (N, 2, 2) each: alone, and with all others of the worker. See Contagion."""
        others = self.member.sum(axis=0)[self.group] - 1.0
        return self._by_success(self.success * self.rho**others), self._by_success(self.success)

    def of_one_arm(self, mean: np.ndarray, act: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """P(good next) of each arm by its own state and action where the others are at their means, (..., N, 2, 2)."""
        return self._by_success(self.success * self.rho ** self._others(mean, act)[1])

    def pull(
        self,
        mean: np.ndarray,
        act: np.ndarray,
        shared: np.ndarray,
        weight: np.ndarray,
        costate: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """By an arm's action: what one further visit takes from the others of its worker. See Contagion."""
        acting, others = self._others(mean, act)
        crowd = others + acting - 1.0
        slope = np.where(crowd > 0.0, np.log(self.rho) * self.rho ** np.maximum(crowd, 0.0), 0.0)
        felt = weight * (1.0 - self.base(mean)) * acting * self.success * slope
        lost = _per_group(felt, self.member)[..., self.group] - felt
        return _NOTHING, lost, lost, _NOTHING


class Sessions(_Visited):
    """A visit works only when at least ``least`` arms of the same group are invited in this round.

    Parameters
    ----------
    group
        Number of each arm's group, (N,).
    least
        Arms from which a session is held.
    """

    coupled = True

    def __init__(
        self,
        worth: np.ndarray,
        success: np.ndarray,
        up: np.ndarray,
        stay: np.ndarray,
        group: np.ndarray,
        least: int = 3,
    ) -> None:
        super().__init__(worth, success, up, stay)
        self.group, self.least = np.asarray(group), least
        self.member = _member(self.group)

    def alone(self, state: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        return self.gains(np.asarray(state)) * self.success * (self.least <= 1)

    def effect(self, action: np.ndarray, shared: np.ndarray | None) -> np.ndarray:
        held = _per_group(action, self.member)[..., self.group].real >= self.least
        return np.asarray(action * held * self.success)

    def chances_between(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest P(good next), (N, 2, 2) each: the class is held or not. See Contagion."""
        never, always = (self.least > self.member.sum(axis=0)[self.group]), self.least <= 1
        return self._by_success(self.success * always), self._by_success(self.success * ~never)

    def of_one_arm(self, mean: np.ndarray, act: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """P(good next) of each arm by its own state and action where the others are at their means, (..., N, 2, 2)."""
        acting = (1.0 - mean) * act[..., 0] + mean * act[..., 1]
        held = _per_group(acting, self.member)[..., self.group] - acting >= self.least - 1.0
        return self._by_success(self.success * held)

    def pull(
        self,
        mean: np.ndarray,
        act: np.ndarray,
        shared: np.ndarray,
        weight: np.ndarray,
        costate: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Nothing: a threshold has no slope, and a plan around the means does not see it. See Contagion."""
        return _NOTHING, _NOTHING, _NOTHING, _NOTHING

    def hand(self, state: np.ndarray, period: int, shared: np.ndarray | None = None) -> np.ndarray:
        """The best full group first: this round's gains, lifted where the group's best few add up to most, (..., N)."""
        gain = super().hand(state, period)
        masked = gain[..., None, :] * self.member.T
        top = np.sort(masked, axis=-1)[..., -self.least :].sum(axis=-1)
        first = top.argmax(axis=-1)[..., None] == self.group
        return np.asarray(gain + first * (1.0 + gain.sum(axis=-1, keepdims=True)))


class Tiring(_Visited):
    """Workers tire: fatigue' = clip(fatigue + load - 1, 0, 3) and a visit succeeds with q (1 - 0.3 fatigue).

    Parameters
    ----------
    worker
        Number of each arm's worker, (N,).
    """

    most, costs = 3.0, 0.3

    def __init__(
        self, worth: np.ndarray, success: np.ndarray, up: np.ndarray, stay: np.ndarray, worker: np.ndarray
    ) -> None:
        self.group = np.asarray(worker)
        self.member = _member(self.group)
        names = tuple(f"fatigue {k}" for k in range(self.member.shape[1]))
        super().__init__(worth, success, up, stay, shared_names=names, shared_start=np.zeros(len(names)))

    def effect(self, action: np.ndarray, shared: np.ndarray | None) -> np.ndarray:
        tired = self.shared_start if shared is None else np.asarray(shared)
        return np.asarray(action * self.success * (1.0 - self.costs * tired[..., self.group]))

    def chances_between(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest P(good next), (N, 2, 2) each: the worker is worn out or fresh. See Contagion."""
        return self._by_success(self.success * (1.0 - self.costs * self.most)), self._by_success(self.success)

    def of_one_arm(self, mean: np.ndarray, act: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """P(good next) of each arm by its own state and action at given fatigues, (..., N, 2, 2)."""
        tired = (self.shared_start if shared is None else np.asarray(shared))[..., self.group]
        return self._by_success(np.broadcast_to(self.success * (1.0 - self.costs * tired), mean.shape))

    def pull(
        self,
        mean: np.ndarray,
        act: np.ndarray,
        shared: np.ndarray,
        weight: np.ndarray,
        costate: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """A visit tires its worker for the rounds to come, where fatigue is at neither end. See Contagion."""
        acting = (1.0 - mean) * act[..., 0] + mean * act[..., 1]
        after = shared + _per_group(acting, self.member) - 1.0
        ahead = np.where((after > 0.0) & (after < self.most), costate, 0.0)
        felt = weight * (1.0 - self.base(mean)) * acting * self.success
        return _NOTHING, ahead[..., self.group], ahead[..., self.group], ahead - self.costs * felt @ self.member

    def shared_next(
        self, state: np.ndarray, action: np.ndarray, shared: np.ndarray, following: np.ndarray
    ) -> np.ndarray:
        return np.clip(np.asarray(shared) + _per_group(action, self.member) - 1.0, 0.0, self.most)

    def context(self, state: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """As of all visited arms, and how tired the arm's own worker is, (..., N, F)."""
        tired = (self.shared_start if shared is None else np.asarray(shared))[..., self.group]
        told = super().context(state, shared)
        return np.concatenate([told, np.broadcast_to(tired, told.shape[:-1])[..., None]], axis=-1)

    def hand(self, state: np.ndarray, period: int, shared: np.ndarray | None = None) -> np.ndarray:
        """Gains in this round at today's fatigue; nothing where the worker is tired, (..., N)."""
        tired = (self.shared_start if shared is None else np.asarray(shared))[..., self.group]
        gain = super().hand(state, period) * (1.0 - self.costs * tired)
        return np.where(tired < 1.0, gain, -1.0)


class Stock(_Visited):
    """A season's stock of visits shared by all rounds: every visit takes one."""

    season = "stock"
    """Name of the shared value that every visit takes one of: planners price it for the season."""

    def __init__(self, worth: np.ndarray, success: np.ndarray, up: np.ndarray, stay: np.ndarray, stock: int) -> None:
        super().__init__(worth, success, up, stay, shared_names=("stock",), shared_start=np.array([float(stock)]))

    def chances_between(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P(good next) twice, (N, 2, 2): other arms change nothing. See Contagion."""
        one = self._by_success(self.success)
        return one, one

    def of_one_arm(self, mean: np.ndarray, act: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """P(good next) of each arm by its own state and action, (..., N, 2, 2): the stock alone couples them."""
        return self._by_success(np.broadcast_to(self.success, mean.shape))

    def pull(
        self,
        mean: np.ndarray,
        act: np.ndarray,
        shared: np.ndarray,
        weight: np.ndarray,
        costate: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Nothing: an arm does to the others only what the season's price says."""
        return _NOTHING, _NOTHING, _NOTHING, _NOTHING

    def shared_next(
        self, state: np.ndarray, action: np.ndarray, shared: np.ndarray, following: np.ndarray
    ) -> np.ndarray:
        # A roll-out may try a visit that an empty stock forbids: there is never less than nothing.
        return np.maximum(np.asarray(shared) - np.asarray(action).sum(axis=-1, keepdims=True), 0.0)


class Influencers(CoupledArms):
    """Arms move alone; then every active influencer activates each of its contacts with ``spread``, independently.

    Parameters
    ----------
    own
        own[n, s, a], chance of being active after the own move, (N, 2, 2).
    contacts
        Arcs from influencer (row) to arm, 0/1, (M, N), M the number of influencers, who are the first M arms and
        receive none.
    spread
        Chance that an active influencer activates a contact.
    """

    coupled = True
    state_names = ("inactive", "active")

    def __init__(self, worth: np.ndarray, own: np.ndarray, contacts: np.ndarray, spread: float) -> None:
        super().__init__(worth)
        self.own, self.spread = np.asarray(own, float), spread
        self.contacts = sparse.csr_array(np.asarray(contacts, float))
        self.leaders = self.contacts.shape[0]
        if self.contacts[:, : self.leaders].nnz:
            raise ModelError("an influencer has a contact who is an influencer", "let arcs lead to other arms only.")

    def own_move(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Chance of being active after the own move, (..., N)."""
        c = self.own
        idle = c[:, 0, 0] + (c[:, 1, 0] - c[:, 0, 0]) * state
        acted = c[:, 0, 1] + (c[:, 1, 1] - c[:, 0, 1]) * state
        return np.asarray(idle + (acted - idle) * action)

    def _left_out(self, active: np.ndarray) -> np.ndarray:
        """Chance that no influencer reaches an arm, (..., N), by how likely each influencer is active (..., M)."""
        logs = np.log1p(-self.spread * active)
        flat = logs.reshape(-1, self.leaders)
        return np.exp(np.asarray(flat @ self.contacts)).reshape(*logs.shape[:-1], self.n_arms)

    def chance_of_one(self, state: np.ndarray, action: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        alone = self.own_move(np.asarray(state), np.asarray(action))
        return np.asarray(1.0 - (1.0 - alone) * self._left_out(alone[..., : self.leaders]))

    def moved(
        self, state: np.ndarray, action: np.ndarray, shared: np.ndarray | None, uniforms: np.ndarray
    ) -> np.ndarray:
        # Influencers first: their contacts depend on the same influencers' moves, and on nothing else together.
        alone = self.own_move(np.asarray(state), np.asarray(action))
        active = (uniforms[..., : self.leaders] < alone[..., : self.leaders]).astype(np.float64)
        chance = 1.0 - (1.0 - alone) * self._left_out(active)
        chance[..., : self.leaders] = alone[..., : self.leaders]
        return np.asarray((uniforms < chance).astype(np.int64))

    def joint_chance(
        self, state: np.ndarray, action: np.ndarray, shared: np.ndarray | None, following: np.ndarray
    ) -> np.ndarray:
        alone = self.own_move(np.asarray(state), np.asarray(action))
        left = self._left_out(np.asarray(following)[..., : self.leaders].astype(np.float64))
        one = 1.0 - (1.0 - alone) * left
        shape = np.broadcast_shapes(one.shape, np.shape(following))
        one = np.broadcast_to(one, shape).copy()
        one[..., : self.leaders] = np.broadcast_to(alone, shape)[..., : self.leaders]
        return np.asarray(np.where(following == 1, one, 1.0 - one).prod(axis=-1))

    def chances_between(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest P(active next), (N, 2, 2) each: no influencer reaches the arm, or every one may."""
        most = self._left_out(np.ones(self.leaders))
        return self.own.copy(), 1.0 - (1.0 - self.own) * most[:, None, None]

    def of_one_arm(self, mean: np.ndarray, act: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """P(active next) of each arm by its own state and action, the others at their means, (..., N, 2, 2)."""
        alone = self._mean_move(mean, act)
        left = self._left_out(alone[..., : self.leaders])
        return np.asarray(1.0 - (1.0 - self.own) * left[..., None, None])

    def pull(
        self,
        mean: np.ndarray,
        act: np.ndarray,
        shared: np.ndarray,
        weight: np.ndarray,
        costate: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives of the sum of ``weight`` times the others' chances by one arm's own chance: see Contagion.

        With W_h = sum over contacts of w / (1 - w p_h) (1 - own) L weight: an influencer's state and action count by
        what they change in its own chance p_h.

        Returns
        -------
        tuple
            By state, by action in state 0, by action in state 1, (..., N) each; by the shared state: nothing.
        """
        m = self.leaders
        alone = self._mean_move(mean, act)
        chance = alone[..., :m]
        felt = (1.0 - alone) * self._left_out(chance) * weight
        heard = np.asarray(felt.reshape(-1, self.n_arms) @ self.contacts.T).reshape(chance.shape)
        full = np.zeros(alone.shape)
        full[..., :m] = self.spread / (1.0 - self.spread * chance) * heard
        by_state = self.own[:, 1, 0] - self.own[:, 0, 0]
        by_action = self.own[:, :, 1] - self.own[:, :, 0]
        return full * by_state, full * by_action[:, 0], full * by_action[:, 1], _NOTHING

    def alone(self, state: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """What acting on one arm alone adds to the round's expected reward, its spread included, (..., N)."""
        state, m = np.asarray(state), self.leaders
        idle = self.own_move(state, np.zeros_like(state))
        lift = self.own_move(state, np.ones_like(state)) - idle
        left = self._left_out(idle[..., :m])
        gain = self.worth * lift * left
        gain[..., :m] = (self.worth * lift)[..., :m]
        felt = (1.0 - idle) * left * self.worth
        reached = np.asarray(felt.reshape(-1, self.n_arms) @ self.contacts.T).reshape(*felt.shape[:-1], m)
        gain[..., :m] += lift[..., :m] * self.spread / (1.0 - self.spread * idle[..., :m]) * reached
        return np.asarray(gain)

    def _mean_move(self, mean: np.ndarray, act: np.ndarray) -> np.ndarray:
        c = self.own
        idle = c[:, 0, 0] + (c[:, 0, 1] - c[:, 0, 0]) * act[..., 0]
        lasting = c[:, 1, 0] + (c[:, 1, 1] - c[:, 1, 0]) * act[..., 1]
        return np.asarray((1 - mean) * idle + mean * lasting)

    def hand(self, state: np.ndarray, period: int, shared: np.ndarray | None = None) -> np.ndarray:
        """Inactive influencers by their number of contacts, then what an own move gains in this round, (..., N)."""
        state = np.asarray(state)
        gain = self.own_move(state, np.ones_like(state)) - self.own_move(state, np.zeros_like(state))
        first = np.zeros(self.n_arms)
        first[: self.leaders] = 10.0 + np.diff(self.contacts.indptr)
        return np.asarray(gain * self.worth + (1 - state) * first)

    def context(self, state: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """Numbers of each arm that a network is told, (..., N, F): contacts, worth, own chances, who may reach it."""
        state = np.asarray(state, dtype=np.float64)
        degree = np.zeros(self.n_arms)
        degree[: self.leaders] = np.diff(self.contacts.indptr)
        reached = 1.0 - self._left_out(state[..., : self.leaders])
        waiting = (1.0 - state[..., self.leaders :]).mean(axis=-1, keepdims=True)
        fixed = (degree / max(1.0, degree.max()), self.worth, self.own[:, 0, 1], self.own[:, 1, 0])
        parts = [np.broadcast_to(a, state.shape) for a in fixed]
        return np.stack([*parts, reached, np.broadcast_to(waiting, state.shape)], axis=-1)


class Assortment(CoupledArms):
    """Items of which some are shown; a customer buys one of them or nothing, and that changes what others like.

    An item is in state 1 when it was bought in the last round. Shared: hype and satisfaction of each item and the last
    four purchases (0 for none, k + 1 for item k), the latest first.

    Parameters
    ----------
    price
        Of each item, (N,).
    fixed
        The part of each utility that never changes, (N,).
    hype, satisfaction
        At the start, (N,).
    lift, fade, fill
        A purchase multiplies the item's hype by 1 + lift, each of the four before takes ``fade`` off, and the item's
        satisfaction is multiplied by ``fill``.
    """

    coupled = True
    memory = 4
    state_names = ("not bought", "bought")

    def __init__(
        self,
        price: np.ndarray,
        fixed: np.ndarray,
        hype: np.ndarray,
        satisfaction: np.ndarray,
        *,
        lift: float = 0.02,
        fade: float = 0.005,
        fill: float = 1.01,
    ) -> None:
        n = len(price)
        names = (
            *(f"hype {i}" for i in range(n)),
            *(f"satisfaction {i}" for i in range(n)),
            *(f"bought {k + 1}" for k in range(self.memory)),
        )
        start = np.concatenate([hype, satisfaction, np.zeros(self.memory)])
        super().__init__(price, shared_names=names, shared_start=start)
        self.fixed, self.lift, self.fade, self.fill = np.asarray(fixed, float), lift, fade, fill

    def attraction(self, shared: np.ndarray | None) -> np.ndarray:
        """exp of the utility of each item, (..., N)."""
        shared = self.shared_start if shared is None else np.asarray(shared)
        n = self.n_arms
        return np.asarray(np.exp(self.fixed + 0.6 * shared[..., :n] - 0.4 * shared[..., n : 2 * n]))

    def chance_of_one(self, state: np.ndarray, action: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        shown = self.attraction(shared) * action
        return np.asarray(shown / (1.0 + shown.sum(axis=-1, keepdims=True))) + 0.0 * np.asarray(state)

    def moved(
        self, state: np.ndarray, action: np.ndarray, shared: np.ndarray | None, uniforms: np.ndarray
    ) -> np.ndarray:
        # One Gumbel draw an item: a changed set of shown items changes few choices. Nobody's draw is the median one.
        noise = -np.log(-np.log(np.clip(uniforms, 1e-300, 1.0 - 1e-16)))
        liking = np.where(np.asarray(action) > 0, np.log(self.attraction(shared)) + noise[..., : self.n_arms], -np.inf)
        best = liking.argmax(axis=-1)
        bought = np.take_along_axis(liking, best[..., None], axis=-1) > noise[..., self.n_arms :]
        return np.asarray((np.arange(self.n_arms) == best[..., None]) & bought).astype(np.int64)

    def uniforms(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return rng.random((*shape, self.n_arms + 1))

    def joint_chance(
        self, state: np.ndarray, action: np.ndarray, shared: np.ndarray | None, following: np.ndarray
    ) -> np.ndarray:
        one = self.chance_of_one(state, action, shared)
        following = np.asarray(following)
        count = following.sum(axis=-1)
        none = 1.0 - one.sum(axis=-1)
        return np.where(count == 1, (one * following).sum(axis=-1), np.where(count == 0, none, 0.0))

    def possible(self) -> np.ndarray:
        return np.vstack([np.zeros((1, self.n_arms), dtype=np.int64), np.eye(self.n_arms, dtype=np.int64)])

    def shared_next(
        self, state: np.ndarray, action: np.ndarray, shared: np.ndarray, following: np.ndarray
    ) -> np.ndarray:
        n = self.n_arms
        shared, following = np.asarray(shared), np.asarray(following)
        before = shared[..., 2 * n :]
        times = (before[..., None] == np.arange(1, n + 1)).sum(axis=-2)
        hype = shared[..., :n] * (1.0 + self.lift * following - self.fade * times)
        satisfaction = shared[..., n : 2 * n] * np.where(following == 1, self.fill, 1.0)
        latest = (following * np.arange(1.0, n + 1)).sum(axis=-1, keepdims=True)
        shape = np.broadcast_shapes(hype.shape[:-1], satisfaction.shape[:-1], latest.shape[:-1])
        older = before[..., : self.memory - 1]
        parts = (hype, satisfaction, latest, older)
        return np.concatenate([np.broadcast_to(part, (*shape, part.shape[-1])) for part in parts], axis=-1)

    def alone(self, state: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """Revenue of showing one item alone, (..., N)."""
        liked = self.attraction(shared)
        return np.asarray(self.worth * liked / (1.0 + liked)) + 0.0 * np.asarray(state)

    def hand(self, state: np.ndarray, period: int, shared: np.ndarray | None = None) -> np.ndarray:
        """The dearest items, (..., N): the published greedy rule."""
        return np.broadcast_to(self.worth, np.shape(state)).copy()

    def context(self, state: np.ndarray, shared: np.ndarray | None = None) -> np.ndarray:
        """Numbers of each item that a network is told, (..., N, F): price, utility, its share of the attraction."""
        liked = self.attraction(shared) + 0.0 * np.asarray(state)
        share = liked / (1.0 + liked.sum(axis=-1, keepdims=True))
        return np.stack([np.broadcast_to(self.worth, liked.shape) / 10.0, np.log(liked) / 5.0, share], axis=-1)
