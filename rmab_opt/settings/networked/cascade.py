"""Arms on a contact graph: they move alone first, then activity spreads along contacts to exhaustion, in one round.

The spread is bond percolation: each contact is live with its own probability, and an arm ends the round active
when a live path joins it to an arm that is active after its own move. One coin a contact is enough on undirected
graphs, because a contact is only ever tried from its active end.

References
----------
Kempe, Kleinberg, Tardos (2003); Zhang, Sun, Wang (2025), networked restless bandits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from rmab_opt.errors import CapabilityError, Findings, ModelError
from rmab_opt.overdue import checkpoint

if TYPE_CHECKING:
    from rmab_opt.actions import ActionSet
    from rmab_opt.planning.improve import BatchRule
    from rmab_opt.problem import Problem

__all__ = ["EXACT_NODES", "Cascade", "Graph", "LiveEdges", "active_sets", "set_bits"]

EXACT_NODES = 10
"""Graphs up to this size have their expectations computed over all sets: 2^n by 2^n numbers are 8 MB."""

KERNEL_NODES = 12
"""Largest graph whose exact kernel is computed at all (134 MB)."""

RARE_BELOW = 0.25
"""Contacts rarer than this are drawn by the points that fall on them."""

SPREAD_ROUNDS = 24
"""Layers of spread followed one by one before components are labelled: only long thin graphs get there."""

SINGLE = 4
"""Fewer episodes than this gain nothing from short draws."""

DRAWN = 2**15
"""Values of one draw of an arm's own move."""

EXPECTATION_SAMPLES = 500
"""Live-edge samples behind expected rewards of graphs too large for exact sums."""

STEP_BLOCK = 60_000
"""Nodes of all episodes moved together: what a block needs stays in the cache."""

CONTACT_BLOCK = 400_000
"""Contacts of all episodes drawn together."""

CHUNK = 4_000_000
"""Numbers held at once while samples are drawn or valued."""


@dataclass(frozen=True, eq=False)
class Graph:
    """Contacts between arms with the probability that each passes activity on in a round.

    Parameters
    ----------
    n_nodes
        Number of nodes N.
    tail, head
        Ends of each contact, int64 (M,); activity goes from tail to head, and back unless ``directed``.
    probability
        Per contact and round, in [0, 1], shape (M,).
    directed
        Whether contacts pass activity one way only.

    Raises
    ------
    ModelError
        When an end is no node, a contact joins a node to itself or stands twice, or a probability is outside [0, 1].
    """

    n_nodes: int
    tail: np.ndarray
    head: np.ndarray
    probability: np.ndarray
    directed: bool = False

    def __post_init__(self) -> None:
        tail, head = (np.ascontiguousarray(end, dtype=np.int64) for end in (self.tail, self.head))
        chance = np.array(np.broadcast_to(np.asarray(self.probability, dtype=np.float64), tail.shape))
        findings = Findings("contacts")
        if tail.ndim != 1 or head.shape != tail.shape:
            raise ModelError(f"contacts have ends of shapes {tail.shape} and {head.shape}", "give two equal lists.")
        outside = (tail < 0) | (head < 0) | (tail >= self.n_nodes) | (head >= self.n_nodes)
        for k in np.flatnonzero(outside)[:5].tolist():
            findings.add(f" {k + 1}", f"joins {tail[k]} and {head[k]}", f"use nodes 0 to {self.n_nodes - 1}")
        for k in np.flatnonzero(tail == head)[:5].tolist():
            findings.add(f" {k + 1}", f"joins node {tail[k]} to itself", "remove it")
        for k in np.flatnonzero(~((chance >= 0) & (chance <= 1)))[:5].tolist():
            findings.add(f" {k + 1}", f"has probability {chance[k]:g}", "keep probabilities in [0, 1]")
        low, high = (tail, head) if self.directed else (np.minimum(tail, head), np.maximum(tail, head))
        key = low * max(1, self.n_nodes) + high
        order = np.argsort(key, kind="stable")
        for k in order[1:][np.diff(key[order]) == 0][:5].tolist():
            findings.add(f" {k + 1}", f"the contact of {tail[k]} and {head[k]} stands twice", "keep one row")
        findings.raise_if_any()
        for name, array in (("tail", tail), ("head", head), ("probability", chance)):
            object.__setattr__(self, name, array)

    @classmethod
    def from_edges(
        cls,
        edges: Iterable[Any] | np.ndarray,
        n_nodes: int | None = None,
        probability: float | np.ndarray = 0.05,
        *,
        directed: bool = False,
    ) -> Graph:
        """From pairs of node numbers, shape (M, 2)."""
        pairs = np.asarray(edges if isinstance(edges, np.ndarray) else list(edges), dtype=np.int64).reshape(-1, 2)
        size = int(pairs.max(initial=-1)) + 1 if n_nodes is None else n_nodes
        return cls(size, pairs[:, 0], pairs[:, 1], np.asarray(probability), directed)

    @classmethod
    def from_networkx(cls, graph: Any, probability: float | str = 0.05) -> Graph:
        """From a networkx graph in the order of its nodes; ``probability`` is a number or an edge attribute.

        With a cohort of your own, :func:`rmab_opt.settings.networked.contacts.read_contacts` goes by its ids.
        """
        from rmab_opt.problem import Arms
        from rmab_opt.settings.networked.contacts import read_contacts

        if not len(graph):
            return cls.from_edges([], 0, 0.0, directed=bool(graph.is_directed()))
        return read_contacts(Arms.from_arrays(list(graph.nodes)), graph, probability=probability)

    def __len__(self) -> int:
        return len(self.tail)

    @cached_property
    def weights(self) -> sparse.csr_array:
        """Sparse (N, N): probability that node i's activity reaches node j along their contact."""
        rows, columns, chance = self.tail, self.head, self.probability
        if not self.directed:
            rows, columns = np.concatenate([rows, columns]), np.concatenate([columns, rows])
            chance = np.concatenate([chance, chance])
        return sparse.csr_array((chance, (rows, columns)), shape=(self.n_nodes, self.n_nodes))

    def draw(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Live contacts of ``size`` independent draws, as draw times the number of contacts plus contact.

        In no order, and one may stand twice: a contact is live when at least one point of a Poisson process of rate
        -ln(1 - p) falls on it, which costs a draw a live contact instead of one a contact.
        """
        total, most = size * len(self), float(self.probability.max(initial=0.0))
        if not total or not most:
            return np.empty(0, dtype=np.int64)
        if most >= RARE_BELOW:
            return np.flatnonzero(rng.random(total).reshape(size, len(self)) < self.probability)
        points = (rng.random(rng.poisson(-np.log1p(-most) * total)) * total).astype(np.int64)
        if self._thinner is None:
            return points
        return points[rng.random(len(points)) < self._thinner[points % len(self)]]

    @cached_property
    def _thinner(self) -> np.ndarray | None:
        """Share of points kept on each contact; None where all are."""
        rate = np.log1p(-self.probability)
        return None if (rate == rate[:1]).all() else rate / rate.min()

    def spread(self, active: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Who is active after one cascade to exhaustion: bool (..., N) from bool (..., N), all rows at once."""
        active = np.array(active, dtype=bool)
        flat = active.reshape(-1, self.n_nodes)
        block = self.block
        for k in range(0, len(flat), block):
            part = flat[k : k + block]
            live = self.draw(rng, len(part))
            tail, head = self._ends
            _reach(part.reshape(-1), tail[live], head[live], self.directed)
        return active

    @cached_property
    def block(self) -> int:
        """Episodes moved together."""
        return max(1, min(STEP_BLOCK // max(1, self.n_nodes), CONTACT_BLOCK // max(1, len(self))))

    @cached_property
    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Tail and head of every contact of a block of episodes, nodes of all of them numbered through."""
        first = np.arange(self.block)[:, None] * self.n_nodes
        # Half the bytes stay in the cache twice as well; a block's nodes fit.
        small = np.int32 if self.block > 1 else np.int64
        return (first + self.tail).reshape(-1).astype(small), (first + self.head).reshape(-1).astype(small)

    @cached_property
    def kernel(self) -> np.ndarray:
        """P[U, S]: probability that a cascade from the set U ends with the set S, (2^N, 2^N); bit i is node i.

        With esc(T, S) the probability that no contact from T into S leaves T, and C(U, S) that of a cascade
        confined to S filling it: C(S, S) = 1, C(U, S) = 1 - sum over U <= T < S of C(U, T) esc(T, S), and
        P(S | U) = C(U, S) esc(S, V).

        Raises
        ------
        CapabilityError
            For more than 12 nodes.
        """
        n = self.n_nodes
        if n > KERNEL_NODES:
            raise CapabilityError(
                f"an exact kernel of {n} nodes",
                self,
                (f"use at most {KERNEL_NODES} nodes", "use live-edge samples"),
            )
        sets, bits = np.arange(2**n), set_bits(n)
        # stays[T, v]: no contact from T to v is live.
        stays = np.ones((2**n, n))
        for i, j, chance in zip(*sparse.find(self.weights), strict=True):
            stays[bits[:, i], j] *= 1.0 - chance
        stays[bits] = 1.0
        fills = np.zeros((2**n, 2**n))
        for target in sets:
            inside = sets[(sets & ~target) == 0]
            proper = inside[:-1]
            escape = np.prod(stays[proper][:, bits[target]], axis=1)
            fills[inside, target] = 1.0 - fills[np.ix_(inside, proper)] @ escape
        return np.clip(fills, 0.0, 1.0) * stays.prod(axis=1)


def set_bits(n_nodes: int) -> np.ndarray:
    """bool (2^N, N): which nodes each set holds; bit i is node i."""
    return (np.arange(2**n_nodes)[:, None] >> np.arange(n_nodes)) % 2 == 1


def _reach(active: np.ndarray, tail: np.ndarray, head: np.ndarray, directed: bool) -> None:
    """Activate, in place, whatever live contacts (tail, head) reach from ``active`` (flat)."""
    for _ in range(SPREAD_ROUNDS if not directed else active.size):
        from_tail, from_head = active.take(tail), active.take(head)
        crossing = np.flatnonzero(from_tail & ~from_head if directed else from_tail ^ from_head)
        if not len(crossing):
            return
        active[head.take(crossing)] = True
        if not directed:
            active[tail.take(crossing)] = True
        # A contact with an active end has passed on what it can.
        kept = np.flatnonzero(~(from_tail | from_head))
        tail, head = tail.take(kept), head.take(kept)
    nodes, place = np.unique(np.concatenate([tail, head]), return_inverse=True)
    label = _components(len(nodes), place[: len(tail)], place[len(tail) :])
    lit = np.zeros(label.max(initial=-1) + 1, dtype=bool)
    lit[label[active[nodes]]] = True
    active[nodes[lit[label]]] = True


def _components(n_nodes: int, tail: np.ndarray, head: np.ndarray) -> np.ndarray:
    matrix = sparse.coo_array((np.ones(len(tail), dtype=np.int8), (tail, head)), shape=(n_nodes, n_nodes))
    return csgraph.connected_components(matrix, directed=False)[1]


# ------------------------------------------------------------------------------------------------- live-edge samples
@dataclass(frozen=True, eq=False)
class LiveEdges:
    """Samples of the live contacts, reused for every state, action and round: they depend on the graph alone.

    Row k of ``sources`` holds the nodes any of which activates the nodes of row k of ``members``: the
    components of an undirected graph (both the same), or the nodes that reach one node of a directed graph.
    Nodes that nobody else reaches in a sample have no row there; ``alone`` counts them.
    """

    size: int
    """Number of samples."""
    sources: sparse.csr_array
    """(K, N) of ones."""
    members: sparse.csr_array
    """(K, N) of ones."""
    sample: np.ndarray
    """Sample of each row, int64 (K,)."""
    alone: np.ndarray
    """Share of samples in which a node depends on itself only, (N,)."""

    @classmethod
    def draw(cls, graph: Graph, size: int, rng: np.random.Generator) -> LiveEdges:
        """Draw ``size`` samples."""
        if size < 1:
            raise ModelError(f"{size} live-edge samples", "draw at least 1.")
        n = graph.n_nodes
        draw, contact = np.divmod(graph.draw(rng, size), max(1, len(graph)))
        tail, head = draw * n + graph.tail[contact], draw * n + graph.head[contact]
        nodes, place = np.unique(np.concatenate([tail, head]), return_inverse=True)
        near, far = place[: len(tail)], place[len(tail) :]
        if graph.directed:
            rows, source = _ancestors(len(nodes), near, far)
            reached = np.bincount(rows, minlength=len(nodes)) > 1
            number = np.cumsum(reached) - 1
            kept = reached[rows]
            owner = np.flatnonzero(reached)
            sources = _incidence(number[rows[kept]], nodes[source[kept]] % n, len(owner), n)
            members = _incidence(np.arange(len(owner)), nodes[owner] % n, len(owner), n)
            sample, depends = nodes[owner] // n, nodes[owner] % n
        else:
            label = _components(len(nodes), near, far)
            count = int(label.max(initial=-1)) + 1
            sources = members = _incidence(label, nodes % n, count, n)
            sample = np.zeros(count, dtype=np.int64)
            sample[label] = nodes // n
            depends = nodes % n
        alone = 1.0 - np.bincount(depends, minlength=n) / size
        return cls(size, sources, members, sample, alone)

    @cached_property
    def merged(self) -> LiveEdges:
        """Equal rows once, their number as the entries of ``members``; for all that looks at no single sample."""
        key = np.random.default_rng(0x5E75).integers(1, 2**63, size=(2, self.sources.shape[1]), dtype=np.uint64)
        mark = np.zeros((self.sources.shape[0], 2), dtype=np.uint64)
        filled = np.diff(self.sources.indptr) > 0
        for column, part in enumerate((self.sources, self.members)):
            if part.nnz:
                mark[filled, column] = np.add.reduceat(key[column][part.indices], part.indptr[:-1][filled])
        _, first, group = np.unique(mark, axis=0, return_index=True, return_inverse=True)
        times = np.bincount(group.reshape(-1), minlength=len(first)).astype(np.float64)
        members = sparse.csr_array(sparse.diags_array(times) @ self.members[first])
        return LiveEdges(self.size, self.sources[first], members, self.sample[first], self.alone)

    def totals(self, chance: np.ndarray, worth: np.ndarray) -> np.ndarray:
        """Expected worth (N,) of the nodes active after the cascade, by sample, (size,), for ``chance`` (N,)."""
        with np.errstate(divide="ignore"):
            idle = np.exp(self.sources @ np.log1p(-chance))
        own = chance * worth
        change = self.members @ worth * (1.0 - idle) - self.members @ own
        return float(own.sum()) + np.bincount(self.sample, change, minlength=self.size)

    def activation(self, chance: np.ndarray) -> np.ndarray:
        """P(active after the cascade), (..., N), when nodes are first active with ``chance`` (..., N).

        Exact over the nodes' own draws, an average over the sampled contacts:
        1 - product over the sources of (1 - chance).
        """
        sets = self.merged
        chance = np.asarray(chance, dtype=np.float64)
        flat = chance.reshape(-1, chance.shape[-1])
        with np.errstate(divide="ignore"):
            idle = np.exp(sets.sources @ np.log1p(-flat).T)
        spread = (sets.members.T @ (1.0 - idle)).T / self.size
        return (self.alone * flat + spread).reshape(chance.shape)


def _incidence(rows: np.ndarray, columns: np.ndarray, n_rows: int, n_columns: int) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(n_rows, n_columns))


def _ancestors(n_nodes: int, tail: np.ndarray, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (node, a node that reaches it), itself included."""
    one = np.ones(len(tail) + n_nodes, dtype=np.int32)
    own = np.arange(n_nodes)
    step = sparse.csr_array((one, (np.concatenate([head, own]), np.concatenate([tail, own]))), shape=(n_nodes, n_nodes))
    reach = step
    while True:
        # Squaring doubles the path length covered.
        further = sparse.csr_array(reach @ reach)
        further.data[:] = 1
        if further.nnz == reach.nnz:
            pairs = sparse.coo_array(reach)
            return pairs.row, pairs.col
        reach = further


# ------------------------------------------------------------------------------------------------------ the dynamics
def two_state_whittle(
    chance: np.ndarray, reward: np.ndarray, discount: float, named: Callable[[int], str] = "arm {}".format
) -> np.ndarray:
    """Whittle index of two-state arms paid ``reward`` while active, in closed form; acting costs in either state.

    With d_s = p(s,1) - p(s,0), D_pass = r / (1 - g (p(1,0) - p(0,0))) and D_act = r / (1 - g (p(1,1) - p(0,1))):
    W(s) = g d_s D, where D is D_pass when the other state's d is at most d_s, else D_act, for s = 0, and the same
    for s = 1. An arm is indexable when both d are at least 0.

    Parameters
    ----------
    chance
        chance[n, s, a] = P(active next), shape (N, 2, 2).
    reward
        Per round while active, shape (N,).
    discount
        g, in (0, 1].
    named
        What messages call an arm.

    Returns
    -------
    numpy.ndarray
        W[n, s], shape (N, 2), in reward units, for arms paid on departure; divide by g for pay on arrival.

    Raises
    ------
    ModelError
        When an action lowers an arm's chance, or the discount is 1 and an arm never forgets its state.
    """
    chance, reward = np.asarray(chance, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    if not 0 < discount <= 1:
        raise ModelError(f"discount is {discount!r}", "give a number above 0 and at most 1.")
    effect = chance[:, :, 1] - chance[:, :, 0]
    if (effect < 0).any():
        arm, state = np.argwhere(effect < 0)[0].tolist()
        raise ModelError(
            f"acting on {named(arm)} in state {state} lowers its chance by {-effect[arm, state]:g}",
            "use policy 'lagrangian', which needs no sign.",
        )
    keeps = discount * (chance[:, 1] - chance[:, 0])
    if (keeps >= 1).any():
        raise ModelError(
            f"{named(int(np.argmax(keeps.max(axis=1))))} never leaves its state", "give a discount below 1."
        )
    passive, active = (reward / (1.0 - keeps[:, action]) for action in (0, 1))
    waiting = effect[:, 0] >= effect[:, 1]
    worth = np.stack([np.where(waiting, passive, active), np.where(waiting, active, passive)], axis=1)
    index: np.ndarray = discount * effect * worth
    return index


class Cascade:
    """Two-state arms (0 inactive, 1 active) on a contact graph, paid for being active at the end of the round.

    Parameters
    ----------
    graph
        N nodes; node i is arm i.
    chance
        chance[n, s, a]: probability that arm n is active after its own move, (N, 2, 2); action 0 is passive.
    value
        Reward a round of an active arm, at least 0, shape (N,).
    seed
        Of the live-edge samples behind :meth:`expected_reward` on graphs of more than 10 nodes.
    names
        Ids of the arms, for messages.

    Raises
    ------
    ModelError
        When shapes disagree or a number is out of range; names arm, state and action.
    """

    n_states, n_actions = 2, 2
    coupled = True
    """The reward of a round is no sum of what each arm's own action earns."""
    state_names = ("inactive", "active")

    def __init__(
        self,
        graph: Graph,
        chance: np.ndarray,
        value: np.ndarray | float = 1.0,
        *,
        seed: int = 0,
        names: Sequence[str] = (),
    ) -> None:
        self.names = tuple(names)
        chance = np.ascontiguousarray(chance, dtype=np.float64)
        n = graph.n_nodes
        if chance.shape != (n, 2, 2):
            raise ModelError(f"chance has shape {chance.shape}", f"give chance[arm, state, action], shape {(n, 2, 2)}.")
        bad = np.argwhere(~((chance >= 0) & (chance <= 1)))
        if bad.size:
            arm, state, action = bad[0].tolist()
            raise ModelError(
                f"chance of {self.arm(arm)}, state {state}, action {action} is {chance[arm, state, action]:g}",
                "keep probabilities in [0, 1].",
            )
        worth = np.array(np.broadcast_to(np.asarray(value, dtype=np.float64), (n,)))
        if not (np.isfinite(worth) & (worth >= 0)).all():
            arm = int(np.flatnonzero(~(np.isfinite(worth) & (worth >= 0)))[0])
            raise ModelError(f"value of {self.arm(arm)} is {worth[arm]:g}", "give a number of at least 0.")
        self.graph, self.chance, self.value, self.seed = graph, chance, worth, seed
        self.n_arms = n
        # By state and action, then arm: four rows to choose from with two masks instead of one gather an arm.
        self._rows = np.ascontiguousarray(chance.transpose(1, 2, 0))

    def arm(self, place: int) -> str:
        """An arm as messages call it: by its id where that is known."""
        return f"arm {self.names[place]!r}" if self.names else f"arm {place}"

    def whittle_indices(self, discount: float) -> np.ndarray:
        """Index of every arm by state, (N, 2), in closed form, spread ignored; see :func:`two_state_whittle`."""
        return two_state_whittle(self.chance, self.value, discount, self.arm)

    def own_move(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Probability that each arm is active before the cascade, shape (..., N)."""
        active, acted, rows = np.asarray(state) > 0, np.asarray(action) > 0, self._rows
        picked: np.ndarray = np.where(
            active, np.where(acted, rows[1, 1], rows[1, 0]), np.where(acted, rows[0, 1], rows[0, 0])
        )
        return picked

    def step(self, state: np.ndarray, action: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Move every arm, spread, and pay; the same number of draws whatever the action."""
        state, action = np.broadcast_arrays(state, action)
        following = np.empty(state.shape, dtype=np.int64)
        paid = np.empty(state.shape)
        rows = [array.reshape(-1, self.n_arms) for array in (state, action, following, paid)]
        block = self.graph.block
        for k in range(0, len(rows[0]), block):
            checkpoint()
            here = slice(k, k + block)
            active = self.graph.spread(self._move(rows[0][here], rows[1][here], rng), rng)
            rows[2][here] = active
            np.multiply(active, self.value, out=rows[3][here])
        return following, paid

    def moved_together(self, states: np.ndarray, actions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Next states of first actions that all meet the same chance: int64 (B, M, R, N), as states and actions are.

        Luck and live contacts are drawn once for each (b, r) and shared by the M actions.
        """
        batch, count, draws, n = states.shape
        luck = rng.random((batch, 1, draws, n))
        active = luck < self.own_move(states, actions)
        draw, contact = np.divmod(self.graph.draw(rng, batch * draws), max(1, len(self.graph)))
        first = (draw // draws * count * draws + draw % draws)[:, None] + np.arange(count) * draws
        offset = first.ravel(order="F") * n
        tail, head = (np.tile(end[contact], count) + offset for end in (self.graph.tail, self.graph.head))
        _reach(active.reshape(-1), tail, head, self.graph.directed)
        return active.astype(np.int64)

    def _move(self, state: np.ndarray, action: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Who is active by its own move, bool (B, N)."""
        if len(state) < SINGLE:
            return rng.random(state.shape) < self.own_move(state, action)
        words = rng.bit_generator.random_raw((state.size + 3) // 4)
        drawn = words.view(np.uint16)[: state.size].reshape(state.shape)
        drawn >>= 1
        # Short draws are fast. Limits rounded up or down at random meet every chance exactly all the same; that the
        # episodes of a block share them ties two of them together by less than 1e-9.
        limits = (self._rows * DRAWN + rng.random(self._rows.shape)).astype(np.uint16)
        # Comparing all four ways and then choosing among bits is four times faster than choosing among chances.
        (idle, started), (kept, held) = ((drawn < limit for limit in pair) for pair in limits)
        active, acted = state > 0, action > 0
        idle ^= (idle ^ started) & acted
        kept ^= (kept ^ held) & acted
        idle ^= (idle ^ kept) & active
        return idle

    def expected_reward(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Value times the probability of being active after the round, (..., N).

        Exact up to 10 nodes; beyond, exact over the arms' moves and averaged over 500 live-edge samples that
        no policy sees.
        """
        return self.value * self.activation(state, action)

    def activation(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """P(active at the end of the round), (..., N); see :meth:`expected_reward`."""
        return self._spread_out(self.own_move(state, action))

    def _spread_out(self, chance: np.ndarray) -> np.ndarray:
        """P(active at the end), (..., N), from the arms' own chances (..., N)."""
        if self.n_arms <= EXACT_NODES:
            return active_sets(chance) @ self._spread_table
        rows = chance.reshape(-1, self.n_arms)
        width = max(1, CHUNK // max(1, self._live.merged.sources.shape[0]))
        parts = [self._live.activation(rows[k : k + width]) for k in range(0, len(rows), width)]
        return np.concatenate(parts).reshape(chance.shape) if parts else chance

    def forecast(self, belief: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Chance of each state after a round, (N, 2), from chances before it (N, 2), arms taken as independent."""
        own = np.stack([self.own_move(np.full(self.n_arms, state), action) for state in (0, 1)], axis=1)
        up = self._spread_out((belief * own).sum(axis=1))
        return np.stack([1.0 - up, up], axis=1)

    @cached_property
    def _spread_table(self) -> np.ndarray:
        """P(node active at the end | set active before the cascade), (2^N, N)."""
        return self.graph.kernel @ set_bits(self.n_arms).astype(np.float64)

    @cached_property
    def _live(self) -> LiveEdges:
        return self.live_edges(EXPECTATION_SAMPLES, np.random.default_rng([self.seed, 0xE7]))

    def live_edges(self, size: int, rng: np.random.Generator) -> LiveEdges:
        """Samples of the live contacts."""
        return LiveEdges.draw(self.graph, size, rng)

    usual_base = "lookahead_priced"
    """Policy that improvement begins from when none is named."""
    realised = True
    """Roll-outs add what episodes earn: a step costs far less than its expected reward over samples of contacts."""

    def batch_rule(self, problem: Problem, actions: ActionSet, name: str) -> BatchRule | None:
        """A policy of contact graphs on arrays, by name; None for others."""
        from rmab_opt.settings.networked.rollouts import batch_rule

        return batch_rule(problem, actions, name)

    def rollouts(self, problem: Problem, actions: ActionSet, base: BatchRule) -> Any:
        """Simulated totals of first actions, exact ones up to ten arms; see :class:`rmab_opt.planning.Rollouts`."""
        from rmab_opt.settings.networked.rollouts import rollouts_of

        return rollouts_of(problem, actions, base)

    def bound(
        self,
        problem: Problem,
        actions: ActionSet,
        state: np.ndarray | None = None,
        *,
        seconds: float | None = None,
    ) -> Any:
        """Upper limit of every policy's expected total; see :mod:`rmab_opt.settings.networked.bound`."""
        from rmab_opt.settings.networked.bound import contact_bound

        return contact_bound(problem, actions, state=state, seconds=seconds)

    def arms_alone(self) -> tuple[np.ndarray, np.ndarray]:
        """The arms without their contacts: ``P[n, a, s, s']`` (N, 2, 2, 2) and ``r[n, s, a]``, paid on departure.

        Not ``tabular()``: bounds and indices computed from it would ignore that activity spreads.
        """
        up = self.chance.transpose(0, 2, 1)
        reward = np.zeros((self.n_arms, 2, 2))
        reward[:, 1] = self.value[:, None]
        return np.stack([1.0 - up, up], axis=3), reward

    def identity(self) -> tuple[np.ndarray, ...]:
        """Arrays that tell one networked problem from another, for run records."""
        graph = self.graph
        return (self.chance, self.value, graph.tail, graph.head, graph.probability, np.array([graph.directed]))


def active_sets(chance: np.ndarray) -> np.ndarray:
    """Probability of every set of independently active nodes, (..., 2^N) from (..., N); bit i is node i."""
    chance = np.asarray(chance, dtype=np.float64)
    spread = np.ones((*chance.shape[:-1], 1))
    for node in range(chance.shape[-1]):
        here = chance[..., node, None]
        spread = np.concatenate([spread * (1.0 - here), spread * here], axis=-1)
    return spread
