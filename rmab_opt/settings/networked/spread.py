"""What an action on a contact graph is worth: one round over live-edge samples, and beyond it by arm.

The value of one round, the expected worth of the nodes active at its end, is monotone and submodular in the set
acted on (an average of coverage functions), for non-negative worths and actions that never lower a chance. The
optimal value function of the whole problem is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from rmab_opt.errors import ModelError
from rmab_opt.overdue import checkpoint
from rmab_opt.settings.networked.cascade import Cascade, Graph, LiveEdges, active_sets, set_bits

__all__ = [
    "WEIGHTS",
    "OneRound",
    "Scenarios",
    "backward_induction",
    "continuation_weights",
    "raising_moves",
]

WEIGHTS = ("reward", "never_again", "priced", "contacts")
"""What a node active at the end of the round counts for: its reward; that and what follows when nobody acts again;
that and what follows when acting costs the price at which the budget is just used; that and what its contacts gain by
it in the rounds to come, while it stays active by itself."""


def continuation_weights(
    dynamics: Cascade, discount: float, kind: str = "never_again", *, left: int | None = None, budget: float = 0.0
) -> np.ndarray:
    """Worth of each node being active at the end of the round, (N,); contacts are ignored from there on, but by kind
    ``contacts``: those next to a node, as far as they are not active anyway when nobody acts.

    Parameters
    ----------
    discount
        Per round, in (0, 1].
    kind
        See :data:`WEIGHTS`.
    left
        Rounds left, this one included; endless when None (the discount, or what arms forget, then bounds the sum).
    budget
        Actions a round, for ``priced`` and ``contacts``.

    Raises
    ------
    ModelError
        When there is no such kind or an endless sum has no limit.
    """
    if kind not in WEIGHTS:
        raise ModelError(f"weights are {kind!r}", f"use one of {', '.join(WEIGHTS)}.")
    reward, chance = dynamics.value, dynamics.chance
    if kind == "reward" or left == 1:
        return reward
    keeps = discount * (chance[:, 1, 0] - chance[:, 0, 0])
    if left is None and (keeps >= 1).any():
        raise ModelError(f"{dynamics.arm(int(keeps.argmax()))} never leaves its state", "give a discount below 1.")
    if kind in ("priced", "contacts"):
        own = _priced(chance, reward, discount, budget, left)
        return own if kind == "priced" else own + _next_to(dynamics, discount, left)
    if left is None:
        return np.maximum(reward / (1.0 - keeps), 0.0)
    near_one = np.abs(1.0 - keeps) < 1e-12
    total = np.where(near_one, float(left), (1.0 - keeps**left) / np.where(near_one, 1.0, 1.0 - keeps))
    return np.maximum(reward * total, 0.0)


def _next_to(dynamics: Cascade, discount: float, left: int | None) -> np.ndarray:
    """What each node's contacts gain by it in the rounds after this one while it stays active by itself, (N,)."""
    chance = dynamics.chance
    anyway = chance[:, 0, 0] / np.maximum(1.0 - chance[:, 1, 0] + chance[:, 0, 0], 1e-12)
    gained = np.asarray(dynamics.graph.weights @ (dynamics.value * (1.0 - np.minimum(anyway, 1.0))))
    keeps = discount * chance[:, 1, 0]
    if left is None:
        return gained * keeps / np.maximum(1.0 - keeps, 1e-12)
    near_one = np.abs(1.0 - keeps) < 1e-12
    rounds = np.where(near_one, left - 1.0, keeps * (1.0 - keeps ** (left - 1)) / np.where(near_one, 1.0, 1.0 - keeps))
    return gained * rounds


def _priced(chance: np.ndarray, reward: np.ndarray, discount: float, budget: float, left: int | None) -> np.ndarray:
    """Value of active over inactive when acting costs the price at which arms alone use ``budget`` a round."""
    rounds = 400 if left is None else min(left, 400)

    def at(price: float) -> tuple[np.ndarray, float]:
        worth = reward
        act = np.zeros((len(reward), 2), dtype=bool)
        for _ in range(rounds - 1):
            gain = discount * (chance[:, :, 1] - chance[:, :, 0]) * worth[:, None] - price
            act = gain > 0
            following = discount * chance[:, :, 0] * worth[:, None] + np.maximum(gain, 0.0)
            before, worth = worth, reward + following[:, 1] - following[:, 0]
            if np.abs(worth - before).max(initial=0.0) <= 1e-12 * reward.max(initial=0.0):
                break
        up = np.where(act, chance[:, :, 1], chance[:, :, 0])
        active = up[:, 0] / np.maximum(1.0 - up[:, 1] + up[:, 0], 1e-12)
        return worth, float((act[:, 0] * (1 - active) + act[:, 1] * active).sum())

    low, high = 0.0, float(discount * reward.max(initial=0.0) / max(1e-3, 1.0 - discount) + reward.max(initial=0.0))
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if at(middle)[1] > budget else (low, middle)
    return np.maximum(at(high)[0], 0.0)


def raising_moves(
    dynamics: Cascade, state: np.ndarray, shut: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Chances (N,) of each arm's own move when left alone and when acted on, the second at least the first.

    Arms that are ``shut``, bool (N,), are never acted on: both chances are the first.

    Raises
    ------
    ModelError
        When acting lowers the chance of an arm that is not shut.
    """
    passive = np.zeros(dynamics.n_arms, dtype=np.int64)
    idle, acted = dynamics.own_move(state, passive), dynamics.own_move(state, passive + 1)
    if shut is not None:
        acted = np.where(shut, idle, acted)
    if (acted < idle).any():
        name = dynamics.arm(int(np.argmax(idle - acted)))
        raise ModelError(
            f"acting on {name} lowers its chance of being active",
            "lock it out (a constraint of kind locked_out): gains of spread need a sign.",
        )
    return idle, acted


class OneRound:
    """Worth of acting on sets of arms in one round: exact over the arms' moves, averaged over live-edge samples.

    With q_k(A) the probability that no source of row k becomes active by itself,
    f(A) = alone part + (1/N) sum over rows of worth_k (1 - q_k(A)).

    Parameters
    ----------
    dynamics, live
        Arms and samples of their contacts.
    state
        int (N,).
    worth
        Of each node active at the end, at least 0, (N,).
    shut
        Arms that are never acted on, bool (N,): acting on them may lower their chance.
    """

    def __init__(
        self,
        dynamics: Cascade,
        live: LiveEdges,
        state: np.ndarray,
        worth: np.ndarray,
        shut: np.ndarray | None = None,
    ) -> None:
        self.dynamics, self.live, self.state, self.worth = dynamics, live, np.asarray(state), worth
        self.idle, self.acted = raising_moves(dynamics, state, shut)
        sets = live.merged
        self.row_worth = (sets.members @ worth) / live.size
        room = 1.0 - self.idle
        self.share = np.divide(self.acted - self.idle, room, out=np.zeros_like(room), where=room > 0)
        """What acting takes off the probability of staying inactive, as a share."""
        self.alone_gain = live.alone * worth * (self.acted - self.idle)

    def value(self, actions: np.ndarray) -> np.ndarray:
        """f of arm actions (..., N)."""
        chance = np.where(np.asarray(actions) > 0, self.acted, self.idle)
        return np.asarray(self.live.activation(chance) @ self.worth)

    def idle_rows(self) -> np.ndarray:
        """Worth of each row times the probability that none of its sources is active when nobody is acted on, (K,)."""
        with np.errstate(divide="ignore"):
            return self.row_worth * np.exp(self.live.merged.sources @ np.log1p(-self.idle))

    def gains(self, left: np.ndarray) -> np.ndarray:
        """Gain of acting on each arm alone, (N,), when rows still have ``left`` of their worth to gain."""
        return self.alone_gain + self.share * (self.live.merged.sources.T @ left)

    @cached_property
    def by_source(self) -> sparse.csc_array:
        """Rows of each source, for updates after a choice."""
        return _by_source(self.live)


_KEPT: list[tuple[LiveEdges, sparse.csc_array]] = []


def _by_source(live: LiveEdges) -> sparse.csc_array:
    """Kept with the last samples used: they outlive the rounds."""
    if not _KEPT or _KEPT[0][0] is not live:
        _KEPT[:] = [(live, sparse.csc_array(live.merged.sources))]
    return _KEPT[0][1]


@dataclass(frozen=True, eq=False)
class Scenarios:
    """Whole rounds drawn in advance: contacts and the arms' own luck; f is then a coverage function of the set.

    One uniform a node decides both of its moves: active by itself below p(s, 0), when acted on below p(s, 1).
    """

    live: LiveEdges
    luck: np.ndarray
    """Uniforms, shape (samples, N)."""

    @classmethod
    def draw(cls, graph: Graph, size: int, rng: np.random.Generator) -> Scenarios:
        """Draw ``size`` scenarios."""
        live = LiveEdges.draw(graph, size, rng)
        return cls(live, rng.random((size, graph.n_nodes)))

    @cached_property
    def _own(self) -> np.ndarray:
        """Where a node depends on itself only, bool (samples, N)."""
        n = self.luck.shape[1]
        own = np.ones((self.live.size, n), dtype=bool)
        pairs = sparse.coo_array(self.live.members)
        own[self.live.sample[pairs.row], pairs.col] = False
        return own

    @cached_property
    def _flat(self) -> sparse.csr_array:
        """Sources over all (scenario, node) pairs, (K, samples * N)."""
        n, sources = self.luck.shape[1], self.live.sources
        columns = sources.indices + n * np.repeat(self.live.sample, np.diff(sources.indptr))
        return sparse.csr_array(
            (np.ones(len(columns), dtype=np.float32), columns, sources.indptr),
            shape=(sources.shape[0], self.luck.size),
        )

    def values(self, idle: np.ndarray, acted: np.ndarray, worth: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Worth of the nodes active at the end of each scenario, (M, samples), for arm actions (M, N).

        Every scenario is played out by itself; no coverage row of the program is used.
        """
        actions = np.asarray(actions)
        size, n = self.luck.shape
        by_itself, when_acted = self.luck < idle, self.luck < acted
        row_worth, own = self.live.members @ worth, self._own * worth
        which = sparse.csr_array(
            (np.ones(len(self.live.sample)), (np.arange(len(self.live.sample)), self.live.sample)),
            shape=(len(self.live.sample), size),
        )
        found = np.empty((len(actions), size))
        step = max(1, 2_000_000 // max(1, size * n))
        for k in range(0, len(actions), step):
            checkpoint()
            active = np.where(actions[k : k + step, None, :] > 0, when_acted, by_itself)
            hit = (self._flat @ active.reshape(len(active), -1).T.astype(np.float32)) > 0
            found[k : k + step] = (active * own).sum(axis=2) + (which.T @ (hit * row_worth[:, None])).T
        return found

    def activation(self, chance: np.ndarray) -> np.ndarray:
        """Share of the scenarios in which each node is active at the end, (M, N), for chances of own moves (M, N)."""
        chance = np.asarray(chance, dtype=np.float64)
        size, n = self.luck.shape
        found = np.empty(chance.shape)
        step = max(1, 2_000_000 // max(1, size * n))
        for k in range(0, len(chance), step):
            active = self.luck < chance[k : k + step, None, :]
            hit = (self._flat @ active.reshape(len(active), -1).T.astype(np.float32)) > 0
            found[k : k + step] = (active & self._own).sum(axis=1) + (self.live.members.T @ hit).T
        return found / size

    def coverage(
        self, idle: np.ndarray, acted: np.ndarray, worth: np.ndarray
    ) -> tuple[float, np.ndarray, sparse.csr_array, np.ndarray]:
        """The same mean as a maximum-coverage program over arms.

        Returns
        -------
        tuple
            ``(constant, linear (N,), sets (K, N), gain (K,))`` with
            f(a) = constant + linear . a + sum over k of gain_k [some a_n = 1 with n in set k]. Components active
            anyway are in the constant, those that one arm alone can activate in the linear part, equal sets merged.
        """
        size = self.luck.shape[0]
        by_itself = self.luck < idle
        turns = (self.luck < acted) & ~by_itself
        own = self._own * worth
        constant = float((own * by_itself).sum())
        linear = (own * turns).sum(axis=0)
        rows = np.repeat(np.arange(self.live.sources.shape[0]), np.diff(self.live.sources.indptr))
        sample, node = self.live.sample[rows], self.live.sources.indices
        row_worth = self.live.members @ worth
        lit = np.bincount(rows, by_itself[sample, node], minlength=len(row_worth)) > 0
        constant += float(row_worth[lit].sum())
        eligible = turns[sample, node] & ~lit[rows]
        sets = sparse.csr_array(
            (np.ones(int(eligible.sum())), (rows[eligible], node[eligible])), shape=self.live.sources.shape
        )
        count = np.diff(sets.indptr)
        single = count == 1
        np.add.at(linear, sets[single].indices, row_worth[single])
        several = count > 1
        empty = sparse.csr_array((int(several.sum()), len(worth)))
        merged = LiveEdges(1, sets[several], empty, np.zeros(int(several.sum()), dtype=np.int64), np.zeros(len(worth)))
        kept, group = _grouped(merged.sources)
        gain = np.bincount(group, row_worth[several], minlength=kept.shape[0])
        return constant / size, linear / size, kept, gain / size


def _grouped(sets: sparse.csr_array) -> tuple[sparse.csr_array, np.ndarray]:
    """Different rows once, and the place of every row among them."""
    if not sets.shape[0]:
        return sets, np.empty(0, dtype=np.int64)
    key = np.random.default_rng(0x5E76).integers(1, 2**63, size=sets.shape[1], dtype=np.uint64)
    mark = np.add.reduceat(key[sets.indices], sets.indptr[:-1])
    _, first, group = np.unique(mark, return_index=True, return_inverse=True)
    return sets[first], group.reshape(-1)


# ---------------------------------------------------------------------------------------------- exact, small graphs
def backward_induction(
    dynamics: Cascade, actions: np.ndarray, horizon: int, discount: float
) -> tuple[np.ndarray, np.ndarray]:
    """Optimal values and actions of a small networked problem, exactly.

    Parameters
    ----------
    actions
        Allowed arm actions, 0/1, (M, N).
    horizon
        Rounds; pay is on arrival.

    Returns
    -------
    tuple
        ``value[t, S]`` of shape (horizon + 1, 2^N) and ``best[t, S]``, the row of ``actions`` taken; bit i of S is
        arm i.

    Raises
    ------
    CapabilityError
        For more than 12 arms.
    """
    kernel = dynamics.graph.kernel
    pay = set_bits(dynamics.n_arms) @ dynamics.value
    value = np.zeros((horizon + 1, len(pay)))
    best = np.zeros((horizon, len(pay)), dtype=np.int64)
    for period in range(horizon - 1, -1, -1):
        checkpoint()
        arrival = kernel @ (pay + discount * value[period + 1])
        value[period] = -np.inf
        for number, action in enumerate(actions):
            found = own_moves(dynamics, action, arrival)
            better = found > value[period] + 1e-12
            value[period][better] = found[better]
            best[period][better] = number
    return value, best


def own_moves(dynamics: Cascade, action: np.ndarray, arrival: np.ndarray) -> np.ndarray:
    """E[arrival(u) | S, action] over the arms' own moves, for every set S: one 2-by-2 average an arm; (2^N,)."""
    n = dynamics.n_arms
    table = arrival.reshape((2,) * n)
    for arm in range(n):
        up = dynamics.chance[arm, :, action[arm]]
        # Bit i is node i: node i is axis n - 1 - i of the cube.
        table = np.moveaxis(
            np.tensordot(np.stack([1.0 - up, up], axis=1), table, axes=(1, n - 1 - arm)), 0, n - 1 - arm
        )
    return table.reshape(-1)


def policy_value(dynamics: Cascade, chosen: np.ndarray, horizon: int, discount: float) -> np.ndarray:
    """Exact value of a policy, (2^N,) at the start: ``chosen[t, S]`` is the arm action (N,) taken, (T, 2^N, N)."""
    pay = set_bits(dynamics.n_arms) @ dynamics.value
    value = np.zeros(len(pay))
    states = set_bits(dynamics.n_arms).astype(np.int64)
    for period in range(horizon - 1, -1, -1):
        checkpoint()
        arrival = dynamics.graph.kernel @ (pay + discount * value)
        chance = dynamics.own_move(states, chosen[period])
        value = active_sets(chance) @ arrival if len(pay) <= 64 else _rows(chance, arrival)
    return value


def _rows(chance: np.ndarray, arrival: np.ndarray) -> np.ndarray:
    """Sum over sets without holding all of them for all states at once."""
    parts = [active_sets(chance[k : k + 256]) @ arrival for k in range(0, len(chance), 256)]
    return np.concatenate(parts)
