"""Exact maximisation of a network over 0/1 columns without a MILP solver: best-first branch and bound in batches.

A node fixes some columns and the signs of some neurons. Its upper bound is the network's linear bound (one line above
and one below each neuron that may still bend) maximised over the columns by sorting; the lines below, the multipliers
of fixed signs and the prices of rows that cannot be sorted are improved by a few subgradient steps, inherited from the
parent. Columns whose other value would lose more than the gap are fixed. Maximisers of the bounds are the incumbents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmab_opt.encoder import Network, Support, bounds
from rmab_opt.encoder.bounds import masses
from rmab_opt.encoder.network import Reduced
from rmab_opt.errors import CapabilityError, CertificateError, InfeasibleError, LimitError, ModelError
from rmab_opt.search.local_search import climb
from rmab_opt.search.node_bounds import Node, NodeBounds, rows
from rmab_opt.search.oracle import Oracle, Places
from rmab_opt.search.quadratic import applies
from rmab_opt.search.quadratic_tree import close
from rmab_opt.search.tilted_lines import ends, fit
from rmab_opt.solver import Progress

__all__ = ["SearchResult", "maximise"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

ROOT_STEPS, NODE_STEPS = 60, 3
"""Subgradient steps on lines, multipliers and prices."""

INHERITED = ("low", "up", "lower", "upper", "alpha", "beta", "sign", "price", "share")
"""What a child begins with as its parent has it."""

SLOW = 0.1
"""Share of its parent's gap that a node closes at least, or both kinds of branching are looked at again."""

RECORDED = 200_000
"""Nodes up to which a search's tree is recorded."""

TRIES = 8
"""Maximisers of one batch that may go to the checker."""

FEW_COLUMNS = 12
"""From so few open columns on only columns are branched on: the tree below is then finite in practice too, also where
weights of many orders of magnitude leave rounding margins wider than the gap."""

EXACT_ROOT_STEPS, WIDE, EASY_NODES = 10, 500, 300
"""Sets without prices and of fewer columns than ``WIDE`` need fewer steps at the root, and none at nodes while the tree
is small: measured to pay by a third. Five save 6 % on narrow networks, but cost wide pooled ones ten times as much."""


HARD_NODES, HARD_OPEN, MANY_NEURONS = 2000, 100, 150
"""Nodes looked at, and still open, from which on tilted lines are fitted: they cost what some 2,000 nodes do, and save
nine in ten where the open columns are many. Networks of many neurons need them from ``EASY_NODES`` on."""


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search has proven: no allowed action is worth more than ``bound``."""

    action: np.ndarray
    """int64 (C,), allowed."""
    value: float
    """The network's value of ``action``."""
    bound: float
    nodes: int
    seconds: float
    status: str
    """``optimal`` (gap reached), ``limit`` (seconds or nodes), ``interrupted``."""
    tree: np.ndarray | None = None
    """What was branched on, int16, level by level: a column, the number of columns + a neuron, -1 for a leaf; first
    child out or off. A guide for a proof; None where numbers do not fit."""

    @property
    def gap(self) -> float:
        """bound - value, in the network's unit."""
        return self.bound - self.value


def maximise(
    network: Network,
    support: Support,
    feasible: Callable[[np.ndarray], bool],
    start: np.ndarray | None = None,
    *,
    gap: float = 1e-4,
    absolute_gap: float = 1e-6,
    seconds: float | None = None,
    nodes: int | None = None,
    batch: int = 160,
    interrupt: Callable[[], bool] | None = None,
    root: list[tuple[Floats, Floats]] | None = None,
    climbed: bool = False,
) -> SearchResult:
    """The allowed action with the largest network value, with a proven bound.

    Parameters
    ----------
    network
        Over the C columns, everything else folded in.
    support
        A relaxation of the set over the columns, 0/1. Rows over disjoint columns are exact; other rows, and
        assignments of columns to units with capacities, enter by prices; what it does not hold is left to ``feasible``.
    feasible
        Judges an action (C,) independently: True when it is allowed. Decides what may become the incumbent.
    start
        An action to begin from; used when it is allowed.
    gap, absolute_gap
        The search ends when bound - value <= max(absolute_gap, gap * abs(value)).
    seconds, nodes
        Limits; none by default. Runs repeat exactly when only ``nodes`` limits them.
    batch
        Nodes looked at together.
    interrupt
        Asked once a batch; the search stops when it says True. A
        :class:`rmab_opt.solver.Progress` sees value and bound.
    root
        ``bounds(network, support)`` where they are at hand.
    climbed
        Whether the start comes from a local search, which need not be repeated.

    Raises
    ------
    InfeasibleError
        When no action is allowed, proven by exhausting the tree.
    SolverError
        When a limit came before any allowed action was met.
    CapabilityError
        When the inputs are not 0/1 columns.
    CertificateError
        When an allowed action is worth more than the bound: the support misses it, or a bound is wrong.
    """
    if not np.isin(support.lower, (0, 1)).all() or not np.isin(support.upper, (0, 1)).all():
        raise CapabilityError(
            "a search over inputs that are not 0/1", support, ("encode the network for a MILP", "use binary columns")
        )
    if support.n != network.n_inputs:
        raise ModelError(f"the network has {network.n_inputs} inputs, the support {support.n}", "build both alike.")
    root = bounds(network, support, "linear") if root is None else root
    until = _Until(gap, absolute_gap, seconds, nodes, batch, interrupt)
    found = _Search(network.reduced.dense(), support, feasible, root, until).run(start, climbed)
    # The network's own forward pass has the last word: where large terms cancel the two differ in their last digits.
    value = float(network(found.action))
    return replace(found, value=value, bound=max(found.bound, value))


@dataclass(frozen=True)
class _Until:
    """When a search ends, see :func:`maximise`."""

    gap: float
    absolute_gap: float
    seconds: float | None
    nodes: int | None
    batch: int
    interrupt: Callable[[], bool] | None


class _Search:
    """State of one search; arrays of open nodes in one pool."""

    def __init__(
        self,
        reduced: Reduced,
        support: Support,
        feasible: Callable[[np.ndarray], bool],
        root: list[tuple[Floats, Floats]],
        until: _Until,
    ) -> None:
        self.checker = feasible
        self.until, self.began = until, perf_counter()
        self.verdicts: dict[bytes, bool] = {}
        self.bounds = NodeBounds(reduced, Oracle.of(support), masses(reduced, support)[:-1])
        self.low0, self.up0 = support.lower > 0, support.upper > 0
        # The search may shrink to the columns still open; these lead back to all columns.
        self.whole = (reduced, self.bounds.oracle, self.low0, self.up0)
        self.columns, self.base = np.arange(support.n), np.zeros(support.n, dtype=np.int64)
        self.root = root
        self.top = float(root[-1][1][0])
        """Largest bound of what is still open."""
        self.lid = np.inf
        """What no open node is worth more than, by another bound than its own."""
        self.best_value = -np.inf
        self.best: np.ndarray | None = None
        self.polished = -np.inf
        """The incumbent's value when it last was improved by local search."""
        self.closed = -np.inf
        """Largest bound among what was dropped because the incumbent is within the gap."""
        self.nodes = 0
        self.rejected = 0
        self.batches, self.probing, self.neurons_won = 0, True, 0.5
        self.record = _Record(support.n, self.bounds.n_neurons)

    @property
    def net(self) -> Reduced:
        """The network over the columns still open."""
        return self.bounds.net

    @property
    def oracle(self) -> Oracle:
        """The set over the columns still open."""
        return self.bounds.oracle

    def shrink(self, pool: Node) -> Node:
        """Drop the columns that are fixed alike in all open nodes, when they are many: everything gets narrower."""
        one: Mask = np.logical_and.reduce(pool["low"], axis=0)
        out = ~np.logical_or.reduce(pool["up"], axis=0)
        kept = ~(out | self.oracle.removable(one))
        if kept.sum() > 0.7 * len(kept) or not kept.any():
            return pool
        self.base[self.columns[one & ~kept]] = 1
        self.bounds.restrict(kept, one)
        self.columns = self.columns[kept]
        self.low0, self.up0 = self.low0[kept], self.up0[kept]
        # Positions of branching columns move with the columns; a fixed one is not branched on.
        place = np.cumsum(kept) - 1
        pool = dict(pool)
        pool["low"], pool["up"] = pool["low"][:, kept], pool["up"][:, kept]
        pool["column"] = place[pool["column"]]
        return pool

    def expand(self, action: np.ndarray) -> np.ndarray:
        """All columns of an action over the columns still open."""
        full = self.base.copy()
        full[self.columns] = np.rint(action).astype(np.int64)
        return full

    # ---- incumbents
    def offer(self, actions: np.ndarray, tries: int | None = TRIES) -> None:
        """Take the best allowed one among the actions (M, C) as incumbent when it is better.

        At most ``tries`` of them go to the checker; None asks about all.
        """
        actions = actions.astype(np.float64)
        values = self.net(actions)
        better = np.flatnonzero(values > self.best_value)
        better = better[self.fits(actions[better])] if better.size else better
        asked = 0
        for i in better[np.argsort(-values[better], kind="stable")]:
            action = self.expand(actions[i])
            known = len(self.verdicts)
            if self.feasible(action):
                # From all columns again, so that folding leaves no trace in the value.
                self.best, self.best_value = action, float(self.whole[0](action[None].astype(np.float64))[0])
                return
            asked += len(self.verdicts) > known
            if asked == tries:
                return

    def feasible(self, action: np.ndarray) -> bool:
        """The checker's verdict on an action over all columns, asked once; columns without room are refused first."""
        name = np.packbits(action.astype(bool)).tobytes()
        if name not in self.verdicts:
            units = self.whole[1].assignments
            self.verdicts[name] = all(block.holds(action) for block in units) and bool(self.checker(action))
        return self.verdicts[name]

    def fits(self, actions: Floats) -> Mask:
        """Which actions (M, C) keep the support's fixed columns and rows."""
        return ((actions >= self.low0) & (actions <= self.up0)).all(axis=1) & self.oracle.fits(actions)

    def tolerance(self) -> float:
        """How far the bound may lie above the incumbent at the end."""
        return max(self.until.absolute_gap, self.until.gap * abs(self.best_value))

    def cutoff(self) -> float:
        """What is worth no more than this need not be looked at."""
        return -np.inf if self.best is None else self.best_value + self.tolerance()

    def polish(self, start: np.ndarray | None = None) -> None:
        """Local search from the incumbent, or an allowed action, until it is within the tolerance of the best bound."""
        if self.best is not None:
            tolerance = self.tolerance()
            net, oracle, low, up = self.whole

            def fits(actions: Floats) -> Mask:
                return ((actions >= low) & (actions <= up)).all(axis=1) & oracle.fits(actions)

            begin = self.best if start is None else start
            action, value = climb(net, begin, fits, self.feasible, ceiling=self.top - tolerance)
            if value > self.best_value:
                self.best, self.best_value = action, value
        self.polished = self.best_value

    def repair(self, point: Floats, worth: Floats) -> np.ndarray | None:
        """Columns of a maximiser, dearest first, as long as the checker lets each in: an incumbent where rows clash.

        What it comes to, (C,), or None where sets cannot be grown.
        """
        action = self.low0.astype(np.int64)
        if not self.feasible(self.expand(action)) and not self.oracle.exact:
            # Sets that ask for something cannot be grown from nothing one column at a time.
            return None
        ranked = np.argsort(-(point * 1e6 + worth), kind="stable")
        order = [int(c) for c in ranked[: int(point.sum()) + 60] if self.up0[c] and not action[c]]
        # Places in units by augmenting paths judge most columns at once; the checker then sees the whole action.
        units = [Places(block) for block in self.oracle.assignments]
        for c in np.flatnonzero(action).tolist():
            for places in units:
                places.insert(c)
        grown = action.copy()
        for c in order:
            grown[c] = 1
            if not (self.fits(grown[None].astype(np.float64))[0] and all(places.insert(c) for places in units)):
                grown[c] = 0
        if self.feasible(self.expand(grown)):
            self.offer(grown[None])
            return grown
        for c in order:
            action[c] = 1
            if not (self.fits(action[None].astype(np.float64))[0] and self.feasible(self.expand(action))):
                action[c] = 0
        self.offer(action[None])
        return action

    # ---- tree
    def run(self, start: np.ndarray | None, climbed: bool) -> SearchResult:
        """See :func:`maximise`."""
        node = self.begin(start, climbed)
        pool, status, picked = _Pool(), "optimal", None
        many = self.oracle.n_prices or self.oracle.n >= WIDE
        fresh, steps = node, ROOT_STEPS if many else min(ROOT_STEPS, EXACT_ROOT_STEPS)
        while True:
            kept = self.look(fresh, steps)
            if picked is not None:
                kept = self.select(kept, picked, self.cutoff())
            if self.best is not None and self.best_value > self.polished + self.until.absolute_gap:
                before = self.best_value
                self.polish()
                if picked is None and len(kept["bound"]) and self.best_value > before:
                    # At the root a better incumbent fixes more columns, and what is fixed there leaves for good.
                    again = {name: value for name, value in kept.items() if name in node}
                    again["parent"] = kept["bound"]
                    kept = self.look(again, NODE_STEPS)
            pool.add(kept)
            self.top = max(min(pool.top, self.lid), self.closed, self.best_value)
            if picked is None or self.batches % 20 == 0:
                pool = self.sifted(pool)
            if pool.top <= self.cutoff():
                self.closed = max(self.closed, pool.top)
                pool = _Pool()
                break
            stopped = self.stopped()
            if stopped is not None:
                status = stopped
                break
            if self.hard(pool):
                ended = self.start_again(pool)
                if ended is not None:
                    return self.result(*ended)
                pool = self.tilt(pool)
                if pool.top <= self.cutoff():
                    self.closed = max(self.closed, pool.top)
                    pool = _Pool()
                    break
            picked = pool.take(min(self.until.batch // 4, pool.size))
            easy = not self.oracle.n_prices and self.nodes < EASY_NODES
            fresh, steps = self.branch(picked), 1 if easy else NODE_STEPS
        return self.result(min(pool.top, self.lid), status)

    def begin(self, start: np.ndarray | None, climbed: bool) -> Node:
        """The root, after what the start and the first maximiser give; units of slopes and prices."""
        if start is not None:
            self.offer(np.asarray(start)[None])
            if not climbed:
                self.polish()
            self.polished = self.best_value
        width = self.bounds.n_neurons
        lower, upper = (
            np.concatenate([ends[side] for ends in self.root[:-1]]) if width else np.zeros(0) for side in (0, 1)
        )
        node: Node = {
            "low": self.low0[None].copy(),
            "up": self.up0[None].copy(),
            "lower": lower[None],
            "upper": upper[None],
            "alpha": (upper > -lower).astype(np.float64)[None],
            "beta": np.zeros((1, width)),
            "sign": np.zeros((1, width), dtype=np.int8),
            "price": np.zeros((1, self.oracle.n_prices)),
            "share": np.zeros((1, len(self.net.hidden[0].bias) if width else 0)),
            "parent": np.array([float(self.root[-1][1][0])]),
            "origin": np.zeros(1, dtype=np.int64),
            "way": np.zeros(1, dtype=bool),
            "side": np.zeros(1, dtype=bool),
            "number": np.zeros(1, dtype=np.int64),
        }
        root = self.bounds.evaluate(node, True)
        self.top = min(self.top, float(root["bound"][0]))
        if width:
            self.bounds.scale = np.abs(root["bent"][0]) + 1e-3 * np.abs(root["bent"][0]).max() + 1e-12
        losses = root["loss"][0]
        self.bounds.price_scale = (
            float(np.median(losses[np.isfinite(losses)])) + 1e-12 if np.isfinite(losses).any() else 1.0
        )
        if self.oracle.exact and start is None:
            # The first maximiser, improved by swaps, gives the root something to fix columns against.
            self.offer_points(root, root["bound"])
            self.polish()
        return node

    def sifted(self, pool: _Pool) -> _Pool:
        """Without what the incumbent has settled, and without columns that all open nodes agree on."""
        everyone = pool.take(pool.size)
        alive = everyone["bound"] > self.cutoff()
        self.closed = max(self.closed, float(everyone["bound"][~alive].max(initial=-np.inf)))
        everyone = rows(everyone, alive)
        kept = _Pool()
        kept.add(self.shrink(everyone) if alive.any() else everyone)
        return kept

    def hard(self, pool: _Pool) -> bool:
        """Whether it is time for tilted lines."""
        neurons = self.bounds.n_neurons
        long = self.nodes >= (HARD_NODES if neurons < MANY_NEURONS else EASY_NODES)
        return self.bounds.tilted is None and neurons > 0 and long and pool.size >= HARD_OPEN and not self.late()

    def common(self, everyone: Node) -> Node:
        """One node that holds them all."""
        top = int(np.argmax(everyone["bound"]))
        common = {name: value[top : top + 1].copy() for name, value in everyone.items()}
        low: Mask = np.logical_and.reduce(everyone["low"], axis=0)
        up: Mask = np.logical_or.reduce(everyone["up"], axis=0)
        common["low"], common["up"] = low[None], up[None]
        common["lower"], common["upper"] = everyone["lower"].min(axis=0)[None], everyone["upper"].max(axis=0)[None]
        common["sign"][:], common["beta"][:] = 0, 0.0
        return common

    def start_again(self, pool: _Pool) -> tuple[float, str] | None:
        """From one node that holds all open ones, by quadratics (:mod:`quadratic_tree`); None where lines go on."""
        if self.bounds.n_neurons < MANY_NEURONS or not applies(self.bounds):
            return None
        everyone = {name: value[: pool.size] for name, value in pool.parts.items()}
        root = {name: value for name, value in self.common(everyone).items() if name in INHERITED}
        root["number"], root["parent"] = np.zeros(1, dtype=np.int64), np.array([pool.top])
        kept, self.record = self.record, _Record(self.record.n, self.bounds.n_neurons)
        ended = close(self, root)
        if ended is None:
            self.record = kept
        return ended

    def tilt(self, pool: _Pool) -> _Pool:
        """Tilted lines for all open nodes, fitted to what they have in common, and the nodes bounded again by them."""
        everyone = pool.take(pool.size)
        common = self.common(everyone)
        if len(self.net.hidden) > 1:
            ends(self.bounds, common, self.late)
            everyone["lower"] = np.maximum(everyone["lower"], common["lower"])
            everyone["upper"] = np.minimum(everyone["upper"], common["upper"])
        slopes = fit(self.bounds, common)
        self.bounds.tilt(slopes)
        everyone["share"] = np.ones_like(everyone["share"])
        again = {name: everyone[name] for name in (*INHERITED, "origin", "way", "side", "number")}
        again["parent"] = everyone["bound"]
        kept = _Pool()
        kept.add(self.look(again, NODE_STEPS))
        return kept

    def late(self) -> bool:
        """Whether half of the seconds are gone: what helps only in the long run is left out then."""
        return self.until.seconds is not None and perf_counter() - self.began >= self.until.seconds / 2

    def stopped(self) -> str | None:
        """Why the search ends before its gap is reached; None while it goes on."""
        until = self.until
        late = until.seconds is not None and perf_counter() - self.began >= until.seconds
        if late or (until.nodes is not None and self.nodes >= until.nodes):
            return "limit"
        if isinstance(until.interrupt, Progress):
            until.interrupt.saw(self.best_value if self.best is not None else -np.inf, self.top)
        return "interrupted" if until.interrupt is not None and until.interrupt() else None

    def result(self, top: float, status: str) -> SearchResult:
        """What is proven when ``top`` is the largest bound still open."""
        bound = max(top, self.best_value)
        if np.isfinite(self.closed):
            # A node left because it was within the gap still bounds what was not looked at, never by more than that.
            bound = max(bound, min(self.closed, self.best_value + self.tolerance()))
        ceiling = float(self.root[-1][1][0])
        if self.best_value > ceiling + 1e-6 * max(1.0, abs(ceiling)):
            raise CertificateError(
                f"an allowed action is worth {self.best_value:.8g}, above the proven bound {ceiling:.8g}",
                "check that the support holds every allowed action; report this with the model file.",
            )
        if self.best is None:
            if status == "optimal":
                raise InfeasibleError("no action is allowed", "read the explanation of the action set.")
            raise LimitError("no allowed action was met before the limit", "give a start, or more seconds.")
        spent, tree = perf_counter() - self.began, self.record.tree()
        return SearchResult(self.best, self.best_value, float(bound), self.nodes, spent, status, tree)

    def look(self, node: Node, steps: int) -> Node:
        """Bound nodes, offer their maximisers, fix columns; the nodes still open."""
        self.nodes += len(node["low"])
        alive = self.bounds.tighten(node, self.cutoff())
        node = rows(node, alive)
        self.bounds.improve(node, steps, self.cutoff())
        found = self.bounds.evaluate(node, True)
        bound = np.minimum(found["bound"], node["parent"])
        self.offer_points(found, bound)
        limit = self.cutoff()
        open_ = bound > limit
        self.closed = max(self.closed, float(bound[~open_].max(initial=-np.inf)))
        node = rows(node, open_)
        found = {name: value[open_] if isinstance(value, np.ndarray) else value for name, value in found.items()}
        bound = bound[open_]
        self.closed = max(self.closed, self.fix(node, found, limit))
        # Nodes without free columns are single actions: offered exactly, and done.
        done = ~(node["up"] & ~node["low"]).any(axis=1)
        if done.any():
            self.offer(node["low"][done].astype(np.float64), tries=None)
            keep = ~done
            node = rows(node, keep)
            found = {name: value[keep] if isinstance(value, np.ndarray) else value for name, value in found.items()}
            bound = bound[keep]
        node["bound"] = bound
        node["slow"] = node["parent"] - bound < SLOW * np.maximum(node["parent"] - limit, 0.0)
        node["neuron"], node["column"] = self.choose(node, found)
        return node

    def fix(self, node: Node, found: dict[str, Any], limit: float) -> float:
        """Fix columns whose other value is worth at most the limit; the largest of these worths."""
        # Reduced costs: the other value of a column is worth at most found bound - loss.
        worth = found["bound"][:, None] - found["loss"]
        sure = node["up"] & ~node["low"] & (worth <= limit)
        chosen = found["points"] > 0.5
        node["low"] = node["low"] | (sure & chosen)
        node["up"] = node["up"] & ~(sure & ~chosen)
        return float(worth[sure].max(initial=-np.inf))

    def offer_points(self, found: dict[str, Any], bound: Floats) -> None:
        """Maximisers, made whole, that could beat the incumbent."""
        if not len(bound):
            return
        points = np.floor(found["points"] + 1e-9)
        self.offer(points)
        if self.oracle.exact:
            return
        self.rejected += 1
        if self.rejected <= 2 or self.best is None or self.rejected % 10 == 0:
            top = int(np.argmax(bound))
            self.repair(points[top], np.where(found["points"][top] > 0, found["loss"][top], -found["loss"][top]))

    def choose(self, node: Node, found: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """What each node branches on: a neuron (kind 1) by its share of the gap, or a column (kind 0)."""
        n_nodes = len(node["low"])
        neuron, column = np.full(n_nodes, -1), np.full(n_nodes, -1)
        if not n_nodes:
            return neuron, column
        free = node["up"] & ~node["low"]
        pull = np.zeros(free.shape)
        if self.bounds.n_neurons:
            x, bent = found["x"], found["bent"]
            relu = np.maximum(x, 0.0)
            above = bent * (found["top"] - relu)
            below = bent * (node["alpha"] * x - relu)
            share = np.where(found["unstable"], np.maximum(np.where(bent > 0, above, below), 0.0), 0.0)
            best = share.argmax(axis=1)
            worth = share[np.arange(n_nodes), best]
            left = node["bound"] - self.best_value if self.best is not None else np.full(n_nodes, np.inf)
            neuron = np.where(worth > 1e-4 * np.where(np.isfinite(left), left, 0.0) + 1e-12, best, -1)
            neuron = np.where(free.sum(axis=1) <= FEW_COLUMNS, -1, neuron)
            spread = np.where(found["unstable"], share / np.maximum(node["upper"] - node["lower"], 1e-12), 0.0)
            # Signs that the maximiser breaks also ask for columns.
            spread += np.where(node["sign"] * x < 0, np.abs(x) * node["beta"], 0.0)
            reach = np.zeros((n_nodes, 0))
            for k in range(len(self.net.hidden) - 1, -1, -1):
                own = spread[:, self.bounds.parts[k]]
                reach = (own if not reach.size else own + reach) @ np.abs(self.net.hidden[k].weight)
            pull = np.asarray(reach)
        part = found["points"]
        fractional = np.minimum(part, 1 - part)
        near = 1.0 / (1e-9 + np.abs(found["loss"]))
        # Columns that widen the neurons behind the gap come first; shares and near ties only decide without any.
        tie = fractional + 1e-3 * near / near.max(axis=1, keepdims=True)
        score = np.where(free, pull + 1e-6 * (pull.max(axis=1, keepdims=True) + 1e-12) * tie, -1.0)
        column = score.argmax(axis=1)
        return neuron, column

    def branch(self, node: Node) -> Node:
        """Both children of every node, on its neuron or on its column; of both ``select`` keeps the better pair."""
        children = []
        self.batches += 1
        # Both pairs are looked at until one kind wins nearly always; then now and again.
        self.probing = 0.08 < self.neurons_won < 0.92 or self.batches < 6 or self.batches % 5 == 0
        bends = node["neuron"] >= 0
        # A node that the winning kind has hardly moved asks about the other one as well.
        node["both"] = bends & (self.probing | node["slow"])
        winning = node["winning"] = bends & (self.neurons_won > 0.5)
        for on_neuron, use in ((True, node["both"] | winning), (False, node["both"] | ~winning)):
            origin = np.flatnonzero(use)
            at = np.arange(len(origin))
            for side in (True, False):
                child = {name: node[name][origin] for name in INHERITED}
                child["parent"] = node["bound"][origin]
                child["origin"] = origin
                child["way"] = np.full(len(origin), on_neuron)
                child["side"] = np.full(len(origin), side)
                child["number"] = np.zeros(len(origin), dtype=np.int64)
                if on_neuron:
                    child["sign"][at, node["neuron"][origin]] = 1 if side else -1
                elif side:
                    child["low"][at, node["column"][origin]] = True
                else:
                    child["up"][at, node["column"][origin]] = False
                children.append(child)
        return {name: np.concatenate([child[name] for child in children]) for name in children[0]}

    def select(self, node: Node, parents: Node, limit: float) -> Node:
        """Of the two pairs of children that cover a parent, those of the pair that closes more of its gap."""
        both, won = parents["both"], parents["winning"]
        if not both.any():
            return self.numbered(node, parents, won)
        n = len(parents["bound"])
        # Without an incumbent the best child's own bound stands for the goal.
        goal = limit if np.isfinite(limit) else float(node["bound"].min(initial=0.0))
        gap = np.maximum(parents["bound"] - goal, 1e-300)
        closed = np.ones((2, n))
        for way in (0, 1):
            mine = node["way"] == bool(way)
            origin = node["origin"][mine]
            left = np.clip((node["bound"][mine] - goal) / gap[origin], 0.0, 1.0)
            np.multiply.at(closed[way], origin, 1.03 - left)
            # A child that is gone has closed its whole share.
            closed[way] *= 1.03 ** (2 - np.bincount(origin, minlength=n))
        take = (closed[1] > closed[0]) & both
        if self.probing:
            self.neurons_won += 0.2 * (float(take.mean()) - self.neurons_won)
        node = rows(node, ~both[node["origin"]] | (node["way"] == take[node["origin"]]))
        return self.numbered(node, parents, np.where(both, take, won))

    def numbered(self, node: Node, parents: Node, neuron: Mask) -> Node:
        """The children kept, with their numbers in the record of what their parents were branched on."""
        on = np.where(neuron, self.record.n + parents["neuron"], self.columns[parents["column"]])
        first = self.record.add(parents["number"], on)
        return {**node, "number": first[node["origin"]] + node["side"]}


class _Record:
    """What was branched on, by the nodes' numbers: ``first`` child of each, the second follows."""

    def __init__(self, n_columns: int, n_neurons: int) -> None:
        self.n, self.fits, self.count = n_columns, n_columns + n_neurons < 2**15, 1
        self.numbers: list[np.ndarray] = []
        self.on: list[np.ndarray] = []
        self.first: list[np.ndarray] = []

    def add(self, numbers: np.ndarray, on: np.ndarray) -> np.ndarray:
        """First child of each node (B,) that was branched on (B,)."""
        first = self.count + 2 * np.arange(len(numbers))
        self.count += 2 * len(numbers)
        if self.fits and self.count <= RECORDED:
            self.numbers.append(numbers)
            self.on.append(on)
            self.first.append(first)
        return first

    def tree(self) -> np.ndarray | None:
        """The whole tree level by level, int16; None when it is too large."""
        if not self.fits or self.count > RECORDED:
            return None
        on, first = np.full(self.count, -1), np.zeros(self.count, dtype=np.int64)
        for numbers, chosen, children in zip(self.numbers, self.on, self.first, strict=True):
            on[numbers], first[numbers] = chosen, children
        levels, here = [], np.zeros(1, dtype=np.int64)
        while here.size:
            levels.append(on[here])
            inner = here[on[here] >= 0]
            here = np.stack([first[inner], first[inner] + 1], axis=1).ravel()
        return np.concatenate(levels).astype(np.int16)


class _Pool:
    """Open nodes in arrays that grow; best ones are taken out, the last ones fill their places."""

    def __init__(self) -> None:
        self.parts: dict[str, np.ndarray] = {}
        self.size = 0

    @property
    def top(self) -> float:
        """Largest bound of an open node."""
        return float(self.parts["bound"][: self.size].max()) if self.size else -np.inf

    def add(self, nodes: dict[str, np.ndarray]) -> None:
        """Put nodes in."""
        count = len(nodes["bound"])
        if not count:
            return
        if not self.parts:
            self.parts = {name: value.copy() for name, value in nodes.items()}
            self.size = count
            return
        end = self.size + count
        if end > len(self.parts["bound"]):
            for name, value in self.parts.items():
                room = np.empty((2 * end, *value.shape[1:]), dtype=value.dtype)
                room[: self.size] = value[: self.size]
                self.parts[name] = room
        for name, value in self.parts.items():
            value[self.size : end] = nodes[name]
        self.size = end

    def take(self, count: int) -> dict[str, np.ndarray]:
        """The nodes with the largest bounds, out of the pool."""
        if not count:
            return {name: value[:0].copy() for name, value in self.parts.items()} or {"bound": np.zeros(0)}
        bound = self.parts["bound"][: self.size]
        chosen = np.argpartition(-bound, count - 1)[:count] if count < self.size else np.arange(self.size)
        taken = {name: value[chosen] for name, value in self.parts.items()}
        left = self.size - count
        holes = chosen[chosen < left]
        movers = np.setdiff1d(np.arange(left, self.size), chosen)
        for value in self.parts.values():
            value[holes] = value[movers]
        self.size = left
        return taken
